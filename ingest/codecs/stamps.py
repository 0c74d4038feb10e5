"""The stamps every simulated message carries in its payload, and what stands in for them."""

import hashlib
from typing import Annotated

import msgspec

from ingest.codecs import Unusable
from ingest.messages import Envelope, Identity, Meta
from ingest.topics import is_level

EARLIEST_NS = 946_684_800 * 10**9
"""2000-01-01: anything older is a clock that was never set."""
LATEST_NS = 4_102_444_800 * 10**9
"""2100-01-01."""

Serial = Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]


class Stamps(msgspec.Struct):
    """``x_beilun``: run, connection and numbers, times of sending and of modelled arrival."""

    run: str
    conn: str
    cseq: Serial
    boot: Serial
    seq: Serial
    sent_ns: int
    arrival_ns: int
    asset: str = ""
    """Site/area/line/asset, where the topic does not say."""
    t_ns: int | None = None
    """Exact event time, where the payload's own stamp is coarser."""


def content_of(payload: bytes) -> int:
    """64 bits of a payload's hash."""
    return int.from_bytes(hashlib.blake2b(payload, digest_size=8).digest(), "big")


def meta_of(stamps: Stamps | None, envelope: Envelope, source: str) -> Meta:
    """Identity and arrival of a message; without stamps they rest on content and host clock."""
    if stamps is None:
        identity = Identity(f"{envelope.topic}#", 0, content_of(envelope.payload))
        return Meta(identity, envelope.received_ns, resolution="content")
    # A sender whose clock is ahead sends after it arrives, as stamped: the gate judges that.
    check_times(*sorted((stamps.sent_ns, stamps.arrival_ns)))
    if not is_level(stamps.conn) or not stamps.run:
        raise Unusable("bad_shape", f"x_beilun names no run or connection: {stamps.conn!r}")
    return Meta(
        Identity(source, stamps.boot, stamps.seq),
        stamps.arrival_ns,
        stamps.sent_ns,
        stamps.run,
        f"{source.split('/', 1)[0]}/{stamps.conn}",
        stamps.cseq,
    )


def check_times(first_ns: int, last_ns: int) -> None:
    """Refuse stamps that no working clock gives."""
    if not EARLIEST_NS <= first_ns <= last_ns <= LATEST_NS:
        raise Unusable("absurd_time", f"{first_ns} to {last_ns} ns since 1970")
