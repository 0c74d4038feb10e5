"""Contention for a shared medium: listen, count down, collide, double the window, give up.

The countdown stands still while others send, so each of its slots is either 9 us long or as long as
somebody's transmission. A loaded medium therefore stretches the doubling windows into a heavy tail.
Frames that queued meanwhile leave in the same transmission (aggregation).
"""

import numpy as np

from simulator.link.columns import Backlog, Flags, Floats, Ints, Record, byte_ps, ns
from simulator.link.profile import Wifi


class Contended:
    """One direction of one station."""

    def __init__(self, spec: Wifi, backlog: Backlog | None = None) -> None:
        self._spec = spec
        self._byte_ps = byte_ps(spec.rate_mbps)
        self._free_ns = -(2**62)
        self._aggregate_heard = True
        self._backlog = backlog
        self.parts: Record | None = None

    def roll(self, rng: np.random.Generator, n: int) -> list[Ints]:
        spec = self._spec
        again = spec.collision_ratio if spec.again_ratio is None else spec.again_ratio
        attempts = np.where(rng.random(n) < spec.collision_ratio, rng.geometric(1.0 - again, n), 0)
        attempts += 1
        heard = attempts <= spec.retries + 1
        attempts = np.minimum(attempts, spec.retries + 1)
        window = spec.cw_min
        slots = np.zeros(n, np.int64)
        for attempt in range(spec.retries + 1):
            slots += np.where(attempt < attempts, rng.integers(0, window + 1, n), 0)
            window = min(2 * window + 1, spec.cw_max)
        others = rng.standard_gamma(rng.binomial(slots, spec.busy_ratio))
        access_ns = (
            attempts * ns((spec.aifs_us + spec.overhead_us) / 1_000)
            + slots * ns(spec.slot_us / 1_000)
            + np.rint(others * ns(spec.busy_ms)).astype(np.int64)
        )
        return [access_ns, heard.astype(np.int64), attempts]

    def one(
        self, ready_ns: int, n_bytes: int, dice: list[int], depth: float, cell: int
    ) -> tuple[int, bool]:
        wait_ns = 0
        if self._backlog is not None:
            wait_ns = sum(self._backlog.one(ready_ns, n_bytes, cell))
        air_ns, access_ns, attempts = n_bytes * self._byte_ps // 1_000, 0, 1
        if ready_ns > self._free_ns:
            access_ns, heard, attempts = dice
            self._free_ns = ready_ns + wait_ns + access_ns + air_ns
            self._aggregate_heard = bool(heard)
        else:
            self._free_ns += air_ns
        if self.parts is not None:
            queue_ns = self._free_ns - air_ns - access_ns - ready_ns
            self.parts.row(queue_ns, air_ns, access_ns, 0, 0, attempts)
        return self._free_ns, self._aggregate_heard

    def many(
        self, ready_ns: Ints, n_bytes: Ints, dice: Ints, depth: Floats, cell: Ints
    ) -> tuple[Ints, Flags]:
        # Who contends and who joins depends on the message before: a plain loop, as `one`.
        air_ns = n_bytes * self._byte_ps // 1_000
        work_ns = air_ns
        if self._backlog is not None:
            wait_ns, served_ns = self._backlog.many(ready_ns, n_bytes, cell)
            work_ns = air_ns + wait_ns + served_ns
        free_ns, is_heard = self._free_ns, int(self._aggregate_heard)
        done: list[int] = []
        hears: list[int] = []
        joins: list[bool] = []
        columns = (ready_ns, air_ns, work_ns + dice[0], dice[1])
        for ready, air, takes, heard in zip(*(c.tolist() for c in columns), strict=True):
            contends = ready > free_ns
            if contends:
                free_ns, is_heard = ready + takes, heard
            else:
                free_ns += air
            done.append(free_ns)
            hears.append(is_heard)
            joins.append(not contends)
        self._free_ns, self._aggregate_heard = free_ns, bool(is_heard)
        done_ns = np.array(done, np.int64)
        if self.parts is not None:
            join, none = np.array(joins, np.bool_), np.zeros_like(air_ns)
            access_ns, attempts = np.where(join, 0, dice[0]), np.where(join, 1, dice[2])
            queue_ns = done_ns - air_ns - access_ns - ready_ns
            self.parts.columns(queue_ns, air_ns, access_ns, none, none, attempts)
        return done_ns, np.array(hears, np.bool_)
