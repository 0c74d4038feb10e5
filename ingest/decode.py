"""From bytes on a topic to messages: finds the codec, refuses what says nothing."""

from collections.abc import Sequence

import msgspec

from ingest.codecs import MAX_BYTES, Codec, Unusable, uns, vda5050
from ingest.codecs.stamps import content_of
from ingest.messages import Envelope, Record, Reject, Tick

TICK = "tick"
"""Codec name of a journalled reading of the host's clock; it never crosses the wire."""

KEPT_BYTES = 512
"""How much of a refused payload is kept for inspection."""


def tick(now_ns: int) -> Envelope:
    """A reading of the host's clock, as the journal keeps it."""
    return Envelope(TICK, "", now_ns, b"")


class Decoder:
    """The codecs in use: a mapping's first, since it may claim any topic."""

    def __init__(self, extra: Sequence[Codec] = ()) -> None:
        self._codecs: tuple[Codec, ...] = (*extra, uns.CODEC, vda5050.CODEC)
        self._by_name = {codec.name: codec for codec in self._codecs}

    def receive(self, topic: str, payload: bytes, received_ns: int) -> list[Record] | Reject:
        """The records of a message just received, or why nobody can use it."""
        codec = next((codec for codec in self._codecs if codec.claims(topic)), None)
        try:
            if codec is None:
                raise Unusable("unknown_topic", "no codec claims it")
            if len(payload) > MAX_BYTES:
                raise Unusable("too_large", f"{len(payload)} bytes, {MAX_BYTES} are taken")
            return self.read(Envelope(codec.name, topic, received_ns, payload))
        except Unusable as why:
            return Reject(
                why.reason, why.detail[:200], topic[:200], received_ns, payload[:KEPT_BYTES],
                len(payload),
            )  # fmt: skip

    def read(self, envelope: Envelope) -> list[Record]:
        """The records of a journalled envelope; the same whenever and wherever it is read."""
        if envelope.codec == TICK:
            return [Record(envelope, Tick(envelope.received_ns))]
        codec = self._by_name.get(envelope.codec)
        if codec is None:
            raise Unusable("unmapped", f"no codec {envelope.codec!r} here")
        try:
            messages = codec.decode(envelope)
        except (msgspec.MsgspecError, OverflowError, RecursionError) as error:
            raise Unusable("bad_shape", str(error)) from None
        content = content_of(envelope.payload)
        return [Record(envelope, message, content) for message in messages]
