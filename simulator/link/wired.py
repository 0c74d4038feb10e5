"""A full-duplex wire: the reference that a radio is compared with."""

import numpy as np

from simulator.link.cellular import queued
from simulator.link.columns import Flags, Ints, byte_ps
from simulator.link.profile import Wired


class Wire:
    """One direction of one port."""

    def __init__(self, spec: Wired) -> None:
        self._byte_ps = byte_ps(spec.rate_mbps)
        self._free_ns = -(2**62)

    def roll(self, rng: np.random.Generator, n: int) -> list[Ints]:
        return []

    def one(self, ready_ns: int, n_bytes: int, dice: list[int]) -> tuple[int, bool]:
        self._free_ns = max(ready_ns, self._free_ns) + n_bytes * self._byte_ps // 1_000
        return self._free_ns, True

    def many(self, ready_ns: Ints, n_bytes: Ints, dice: Ints) -> tuple[Ints, Flags]:
        done_ns = queued(ready_ns, n_bytes * self._byte_ps // 1_000, self._free_ns)
        self._free_ns = int(done_ns[-1])
        return done_ns, np.ones(len(done_ns), np.bool_)
