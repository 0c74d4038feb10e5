"""A full-duplex wire: the reference that a radio is compared with."""

import numpy as np

from simulator.link.cellular import queued
from simulator.link.columns import Backlog, Flags, Floats, Ints, Record, byte_ps
from simulator.link.profile import Wired


class Wire:
    """One direction of one port."""

    def __init__(self, spec: Wired, backlog: Backlog | None = None) -> None:
        self._byte_ps = byte_ps(spec.rate_mbps)
        self._backlog = backlog
        self._free_ns = -(2**62)
        self.parts: Record | None = None

    def roll(self, rng: np.random.Generator, n: int) -> list[Ints]:
        return []

    def one(
        self, ready_ns: int, n_bytes: int, dice: list[int], depth: float, cell: int
    ) -> tuple[int, bool]:
        wait_ns = served_ns = 0
        if self._backlog is not None:
            wait_ns, served_ns = self._backlog.one(ready_ns, n_bytes, cell)
        air_ns = n_bytes * self._byte_ps // 1_000
        self._free_ns = max(ready_ns + wait_ns, self._free_ns) + served_ns + air_ns
        if self.parts is not None:
            self.parts.row(self._free_ns - air_ns - ready_ns, air_ns, 0, 0, 0, 1)
        return self._free_ns, True

    def many(
        self, ready_ns: Ints, n_bytes: Ints, dice: Ints, depth: Floats, cell: Ints
    ) -> tuple[Ints, Flags]:
        air_ns = n_bytes * self._byte_ps // 1_000
        first_ns, work_ns = ready_ns, air_ns
        if self._backlog is not None:
            wait_ns, served_ns = self._backlog.many(ready_ns, n_bytes, cell)
            first_ns, work_ns = ready_ns + wait_ns, air_ns + served_ns
        done_ns = queued(first_ns, work_ns, self._free_ns)
        self._free_ns = int(done_ns[-1])
        if self.parts is not None:
            none = np.zeros_like(air_ns)
            self.parts.columns(done_ns - air_ns - ready_ns, air_ns, none, none, none, none + 1)
        return done_ns, np.ones(len(done_ns), np.bool_)
