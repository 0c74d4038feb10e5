"""One codec a file: bytes on a topic to self-contained messages, and back."""

from typing import Protocol

from ingest.messages import Envelope, Message

MAX_BYTES = 256 * 1024
"""A larger payload is refused unread (``too_large``)."""


class Unusable(Exception):
    """The payload says nothing we can use.

    ``reason`` is one of a small set, counted in the ledger: ``too_large not_json bad_shape
    absurd_time unknown_topic unmapped``. ``detail`` is for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Codec(Protocol):
    """Reads one payload format; a pure function of the envelope."""

    name: str

    def claims(self, topic: str) -> bool:
        """Whether messages on this topic are this codec's."""
        ...

    def decode(self, envelope: Envelope) -> tuple[Message, ...]:
        """The messages in a payload; raises ``Unusable``."""
        ...
