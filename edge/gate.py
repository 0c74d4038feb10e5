"""Who gets in: every decision is a function of the record, its stamps, the policy and the run."""

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import numpy as np

from edge.policy import Policy
from ingest.messages import Batch, Birth, Identity, Notice, Record


class Entry(Enum):
    """What became of a record."""

    ACCEPTED = "accepted"
    REPLACES = "replaces"
    """Accepted in place of a record of the same identity that was let in before."""
    DUPLICATE = "duplicate"
    REJECTED = "rejected"


@dataclass(slots=True)
class Ledger:
    """Where every received message went. The sums close by ``imbalance() == 0``.

    ``reordered`` and ``rebooted`` stand beside the sums, and are there once a run is finished.
    """

    received: int = 0
    duplicate: int = 0
    rejected: Counter[str] = field(default_factory=Counter[str])
    on_time: int = 0
    late: int = 0
    too_late: int = 0
    reordered: int = 0
    """Accepted messages that arrived after one with a higher number from the same start (boot)."""
    rebooted: int = 0
    """Starts of senders beyond the first of each that was heard of."""

    @property
    def accepted(self) -> int:
        return self.on_time + self.late + self.too_late

    def imbalance(self) -> int:
        """Received less everything that is accounted for."""
        return self.received - self.accepted - self.duplicate - self.rejected.total()

    def entries(self) -> dict[str, int]:
        """As the recording keeps it."""
        fixed = {
            "received": self.received,
            "duplicate": self.duplicate,
            "accepted": self.accepted,
            "on_time": self.on_time,
            "late": self.late,
            "too_late": self.too_late,
            "reordered": self.reordered,
            "rebooted": self.rebooted,
        }
        return fixed | {f"rejected:{why}": n for why, n in sorted(self.rejected.items())}


Stamped = Birth | Batch | Notice


class Claim(NamedTuple):
    """Arrival and content hash: of two records with one identity the smaller claim wins."""

    arrival_ns: int
    content: int
    when: str


class Gate:
    """Lets each identity in once; where two records claim one, the smaller claim wins."""

    def __init__(self, policy: Policy, run: str | None) -> None:
        self._policy = policy
        self._run = run
        self._claims: dict[Identity, Claim] = {}
        self._numbering: set[str] = set()
        """Senders that number their messages."""
        self._skewed: set[tuple[Identity, int, int]] = set()
        """Refused for its stamps; when it is sent again it is a duplicate, as anything else."""
        self.ledger = Ledger()

    def admit(self, record: Record, message: Stamped) -> Entry:
        """Decide on one record, and account for it."""
        ledger = self.ledger
        ledger.received += 1
        if (why := self._refusal(message)) is not None:
            told = (message.meta.identity, message.meta.arrival_ns, record.content)
            if told in self._skewed:
                ledger.duplicate += 1
                return Entry.DUPLICATE
            if why == "skewed":
                self._skewed.add(told)
            ledger.rejected[why] += 1
            return Entry.REJECTED
        claim = Claim(message.meta.arrival_ns, record.content, self._when(message))
        known = self._claims.get(message.meta.identity)
        if known is not None:
            ledger.duplicate += 1
            if known <= claim:
                return Entry.DUPLICATE
            setattr(ledger, known.when, getattr(ledger, known.when) - 1)
        setattr(ledger, claim.when, getattr(ledger, claim.when) + 1)
        self._claims[message.meta.identity] = claim
        if message.meta.resolution == "seq":
            self._numbering.add(message.meta.identity.source)
        return Entry.ACCEPTED if known is None else Entry.REPLACES

    def holds(self, record: Record, message: Stamped) -> bool:
        """Whether this record is the one let in for its identity."""
        known = self._claims.get(message.meta.identity)
        return known is not None and known[:2] == (message.meta.arrival_ns, record.content)

    def count_arrivals(self) -> None:
        """Count what arrived out of order and how often senders started anew: from the stamps of
        all that was let in, so that it does not matter in which order it came here."""
        arrived: dict[tuple[str, int], tuple[list[int], list[int]]] = {}
        for (source, boot, seq), claim in self._claims.items():
            if source in self._numbering:
                times, numbers = arrived.setdefault((source, boot), ([], []))
                times.append(claim.arrival_ns)
                numbers.append(seq)
        self.ledger.rebooted = len(arrived) - len({source for source, _ in arrived})
        self.ledger.reordered = sum(_overtaken(*columns) for columns in arrived.values())

    def _refusal(self, message: Stamped) -> str | None:
        if message.meta.run != (self._run or ""):
            return "other_run"
        if isinstance(message, Notice):
            return None
        last_ns = message.t_ns if isinstance(message, Birth) else int(message.t_ns[-1])
        if message.meta.sent_ns is not None:
            last_ns = max(last_ns, message.meta.sent_ns)
        if last_ns > message.meta.arrival_ns + self._policy.max_skew_ns:
            return "skewed"
        return None

    def _when(self, message: Stamped) -> str:
        if not isinstance(message, Batch):
            return "on_time"
        arrival_ns = message.meta.arrival_ns
        if self._policy.too_late(int(message.t_ns[-1]), arrival_ns):
            return "too_late"
        return "late" if self._policy.late(int(message.t_ns[0]), arrival_ns) else "on_time"


def _overtaken(arrivals_ns: list[int], numbers: list[int]) -> int:
    """Messages of one start before which one with a higher number arrived."""
    times, sequence = np.array(arrivals_ns), np.array(numbers)
    sequence = sequence[np.lexsort((sequence, times))]  # of one instant: as they were numbered
    return int((sequence < np.maximum.accumulate(sequence)).sum())
