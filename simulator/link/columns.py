"""Integer columns, units and dice that the parts of the link share."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from config.units import NS_PER_MS
from simulator.link.profile import Hop

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

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


class Air(Protocol):
    """The radio as one bearer uses it: from ready to heard.

    ``ready_ns`` never goes back. ``one`` and ``many`` do the same to the state and give the same
    times; both work in integers, or in float operations that IEEE 754 rounds exactly, so that a
    column and a single value cannot differ.
    """

    def roll(self, rng: np.random.Generator, n: int) -> list[Ints]:
        """The dice of ``n`` messages, one column per question."""
        ...

    def one(self, ready_ns: int, n_bytes: int, dice: list[int]) -> tuple[int, bool]:
        """When the message was heard or given up, and which of the two."""
        ...

    def many(self, ready_ns: Ints, n_bytes: Ints, dice: Ints) -> tuple[Ints, Flags]:
        """The same for columns; ``dice`` has a row per question."""
        ...
