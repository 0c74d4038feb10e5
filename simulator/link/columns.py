"""Integer columns, units and dice that the parts of the link share."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from config.units import NS_PER_MS
from simulator.link.profile import Hop

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]

KNEE_DB = 3.0
"""SINR below the floor of the most robust coding at which nothing is heard any more."""
ODDS = 2.0**53
"""A die that decides between outcomes is an integer in ``[0, ODDS)``: ``die < ratio * ODDS``."""


def ns(ms: float) -> int:
    """Whole nanoseconds."""
    return round(ms * NS_PER_MS)


def roll_odds(rng: np.random.Generator, n: int) -> Ints:
    """A die for each of ``n`` messages."""
    return rng.integers(0, int(ODDS), n)


def roll_hop(rng: np.random.Generator, hop: Hop, n: int) -> Ints:
    """Time in a hop for each of ``n`` messages."""
    return ns(hop.fixed_ms) + rng.integers(0, ns(hop.spread_ms) + 1, n)


def byte_ps(rate_mbps: float) -> int:
    """Picoseconds on the air per byte."""
    return round(8e6 / rate_mbps)


AIR_PARTS = ("queue_ns", "air_ns", "access_ns", "align_ns", "harq_ns", "rounds")
"""Where a message's time on the radio went: behind its own and others' messages, on the air, for a
grant or a free medium, for a slot, for repair; and how often it was sent."""


def narrowed(values: NDArray[np.int32] | Ints) -> NDArray[np.int32] | Ints:
    """The same numbers in 4 bytes each, if all fit: to be kept, not to be reckoned with."""
    half = values.astype(np.int32)
    return half if bool((half == values).all()) else values


class Record:
    """Rows of a trace, gathered one by one or in columns; the first ``wide`` of them are times of
    day, which always take 8 bytes."""

    __slots__ = ("_names", "_pieces", "_rows", "_wide")

    def __init__(self, names: tuple[str, ...], wide: int = 0) -> None:
        self._names, self._wide = names, wide
        self._pieces: list[tuple[Ints, NDArray[np.int32] | Ints]] = []
        self._rows: list[tuple[int, ...]] = []

    def row(self, *values: int) -> None:
        """One message."""
        self._rows.append(values)

    def columns(self, *values: Ints) -> None:
        """Many messages."""
        self._flush()
        self._keep(np.array(values, np.int64))

    def _keep(self, values: Ints) -> None:
        wide = self._wide
        self._pieces.append((values[:wide].copy(), narrowed(values[wide:])))

    def take(self) -> dict[str, Ints]:
        """Everything since the last time."""
        self._flush()
        whole = np.empty(
            (len(self._names), sum(rest.shape[1] for _, rest in self._pieces)), np.int64
        )
        low = 0
        for times, rest in self._pieces:
            high = low + rest.shape[1]
            whole[: self._wide, low:high], whole[self._wide :, low:high] = times, rest
            low = high
        self._pieces = []
        return dict(zip(self._names, whole, strict=True))

    def _flush(self) -> None:
        if self._rows:
            self._keep(np.array(self._rows, np.int64).T)
            self._rows = []


class Backlog(Protocol):
    """What the traffic of others costs a message."""

    def one(self, t_ns: int, n_bytes: int, cell: int) -> tuple[int, int]:
        """Until a message's first turn, unless its own queue is served already; and what others'
        turns add to its service."""
        ...

    def many(self, t_ns: Ints, n_bytes: Ints, cell: Ints) -> tuple[Ints, Ints]:
        """``one`` of columns."""
        ...


class Air(Protocol):
    """The radio as one bearer uses it: from ready to heard.

    ``ready_ns`` never goes back; ``depth`` is how far below the floor of the most robust coding the
    signal is, in ``KNEE_DB``: at most 1 (nothing is heard), negative above the floor. ``one`` and
    ``many`` do the same to the state and give the same times; both work in integers, or in float
    operations that IEEE 754 rounds exactly, so that a column and a single value cannot differ.
    """

    parts: Record | None
    """Where the time went, if somebody wants to know."""

    def roll(self, rng: np.random.Generator, n: int) -> list[Ints]:
        """The dice of ``n`` messages, one column per question."""
        ...

    def one(
        self, ready_ns: int, n_bytes: int, dice: list[int], depth: float, cell: int
    ) -> tuple[int, bool]:
        """When the message was heard or given up, and which of the two."""
        ...

    def many(
        self, ready_ns: Ints, n_bytes: Ints, dice: Ints, depth: Floats, cell: Ints
    ) -> tuple[Ints, Flags]:
        """The same for columns; ``dice`` has a row per question."""
        ...
