"""Reels between cable lines: full ones wait in a store, which has so many places.

    strander ─► store ─► insulation ─► store ─► lay-up (four pay-offs) ─► ... ─► ship

A reel carries the good metres that were wound on it. A line whose store has no place is blocked, a
line that finds none is starved; both are SUSPENDED, or IDLE if they have not begun.
"""

from collections import deque

from simulator.device import Bell, World


class ReelStore:
    """Full reels of one line, first in, first out."""

    def __init__(self, env: World, places: int, full: int, reel_m: float) -> None:
        self.bell = Bell(env)
        self._places = places
        self._reels = deque([reel_m] * full)

    @property
    def metres(self) -> float:
        """What lies there."""
        return sum(self._reels)

    def __len__(self) -> int:
        return len(self._reels)

    def has_place(self) -> bool:
        """Whether one more can be put."""
        return len(self._reels) < self._places

    def put(self, metres: float) -> None:
        """A full reel, or the last one of an order; there must be a place."""
        if not self.has_place():
            raise ValueError("no place for a reel")
        self._reels.append(metres)
        self.bell.ring()

    def take(self) -> float:
        """The oldest reel's metres; there must be one."""
        metres = self._reels.popleft()
        self.bell.ring()
        return metres
