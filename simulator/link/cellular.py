"""A scheduled radio, 4G or 5G: slots, grants, HARQ and RLC.

Theory of operation
===================

    ready ── queue ──► whole ── request, grant (uplink, idle) ──► open ── next slot ──► sent
                                                                          ▲             │ failed
                                                                          └─ verdict ◄──┘

A message is *whole* once its last byte had room in the carrier, *open* once it may be sent, and is
sent in the next slot of its direction. A failed transmission is told by the receiver (a downlink
failure must wait for an uplink slot to say so), rescheduled, and sent in a slot again: the spacing
of retransmissions follows from the slot pattern and is nowhere a constant. One die decides how
often a message fails: at least k times if the die is below ``first * next**(k-1)``.

A ``Cell`` is what its bearers share; the bearer's own state is in ``Scheduled``.
"""

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from simulator.link.columns import ODDS, Flags, Ints, byte_ps, ns, roll_hop, roll_odds
from simulator.link.profile import Carrier, Cellular, Harq
from simulator.link.shadowing import Fade

_NEVER_NS = -(2**62)


class Clock:
    """The frame of a cell against the clock of the plant: a phase and a slow drift."""

    def __init__(self, phase_ns: int, drift_ppm: float) -> None:
        self._phase_ns = phase_ns
        self._drift_ppb = round(drift_ppm * 1_000)

    def frame_ns(self, t_ns: int) -> int:
        """Time in the frame's count."""
        return t_ns + t_ns // 1_000_000 * self._drift_ppb // 1_000 + self._phase_ns

    def frames_ns(self, t_ns: Ints) -> Ints:
        """``frame_ns`` of a column."""
        return t_ns + t_ns // 1_000_000 * self._drift_ppb // 1_000 + self._phase_ns


class Grid:
    """Instants that repeat, on a cell's clock."""

    def __init__(self, starts_ns: list[int], period_ns: int, clock: Clock) -> None:
        self._starts = [*starts_ns, starts_ns[0] + period_ns]
        self._column = np.array(self._starts, dtype=np.int64)
        self._period_ns = period_ns
        self._clock = clock

    def next(self, t_ns: int) -> int:
        """The first instant not before ``t_ns``."""
        phase = self._clock.frame_ns(t_ns) % self._period_ns
        return t_ns + self._starts[bisect_left(self._starts, phase)] - phase

    def nexts(self, t_ns: Ints) -> Ints:
        """``next`` of a column."""
        phase = self._clock.frames_ns(t_ns) % self._period_ns
        return t_ns + self._column[np.searchsorted(self._column, phase)] - phase


class Cell:
    """Slots, request occasions and clock, the same for every device in the cell."""

    def __init__(self, spec: Cellular, seed: int) -> None:
        self.spec = spec
        self.slot_ns = ns(spec.slot_ms)
        period_ns = len(spec.pattern) * self.slot_ns
        phase_ns = int(np.random.default_rng([seed, 0xCE11]).integers(period_ns))
        clock = Clock(phase_ns, spec.drift_ppm)
        up = [i * self.slot_ns for i, kind in enumerate(spec.pattern) if kind in "UF"]
        down = [i * self.slot_ns for i, kind in enumerate(spec.pattern) if kind in "DF"]
        self.up = Grid(up, period_ns, clock)
        self.down = Grid(down, period_ns, clock)
        self.requests = Grid(up[:1], ns(spec.grant.sr_period_ms), clock)


class Scheduled:
    """One direction of one device in a cell."""

    def __init__(self, cell: Cell, fade: Fade, *, uplink: bool) -> None:
        self._cell, self._fade, self._uplink = cell, fade, uplink
        self._carrier: Carrier = cell.spec.up if uplink else cell.spec.down
        self._slots = cell.up if uplink else cell.down
        self._byte_ps = byte_ps(self._carrier.rate_mbps)
        self._hold_ns = ns(cell.spec.grant.hold_ms)
        self._decode_ns = ns(self._carrier.harq.decode_ms)
        self._ready_ns = self._free_ns = self._open_ns = _NEVER_NS

    def roll(self, rng: np.random.Generator, n: int) -> list[Ints]:
        spec, harq = self._cell.spec, self._carrier.harq
        return [
            roll_odds(rng, n),
            roll_odds(rng, n),
            roll_hop(rng, harq.schedule, n),
            roll_hop(rng, spec.rlc.recovery, n),
            roll_hop(rng, spec.grant.processing, n) if self._uplink else np.zeros(n, np.int64),
        ]

    def one(self, ready_ns: int, n_bytes: int, dice: list[int]) -> tuple[int, bool]:
        luck, misread, schedule_ns, recovery_ns, grant_ns = dice
        cell = self._cell
        whole_ns = max(ready_ns, self._free_ns) + n_bytes * self._byte_ps // 1_000
        open_ns = whole_ns
        if self._uplink and ready_ns - self._ready_ns > self._hold_ns:
            open_ns = cell.requests.next(whole_ns) + cell.slot_ns + grant_ns
        open_ns = max(open_ns, self._open_ns)
        self._ready_ns, self._free_ns, self._open_ns = ready_ns, whole_ns, open_ns
        sent_ns = self._slots.next(open_ns) + cell.slot_ns

        harq = self._carrier.harq
        depth = self._fade.depth(ready_ns)
        first = harq.first_error_ratio + (1.0 - harq.first_error_ratio) * depth
        again = harq.next_error_ratio + (1.0 - harq.next_error_ratio) * depth
        odds = first * ODDS
        if luck >= odds:
            return sent_ns, True
        if misread < harq.feedback_error_ratio * ODDS:
            return self._slots.next(sent_ns + recovery_ns) + cell.slot_ns, True
        for _ in range(harq.transmissions - 1):
            verdict_ns = sent_ns + self._decode_ns
            if not self._uplink:
                verdict_ns = cell.up.next(verdict_ns) + cell.slot_ns
            sent_ns = self._slots.next(verdict_ns + schedule_ns) + cell.slot_ns
            odds *= again
            if luck >= odds:
                return sent_ns, True
        whole_failure = odds / ODDS
        for _ in range(cell.spec.rlc.rounds):
            sent_ns = self._slots.next(sent_ns + recovery_ns) + cell.slot_ns
            odds *= whole_failure
            if luck >= odds:
                return sent_ns, True
        return sent_ns, False

    def many(self, ready_ns: Ints, n_bytes: Ints, dice: Ints) -> tuple[Ints, Flags]:
        luck, misread, schedule_ns, recovery_ns, grant_ns = dice
        cell = self._cell
        whole_ns = queued(ready_ns, n_bytes * self._byte_ps // 1_000, self._free_ns)
        open_ns = whole_ns
        if self._uplink:
            idle = np.diff(ready_ns, prepend=self._ready_ns) > self._hold_ns
            asked_ns = cell.requests.nexts(whole_ns) + cell.slot_ns + grant_ns
            open_ns = np.where(idle, asked_ns, whole_ns)
        open_ns = np.maximum(np.maximum.accumulate(open_ns), self._open_ns)
        self._ready_ns, self._free_ns, self._open_ns = (
            int(ready_ns[-1]),
            int(whole_ns[-1]),
            int(open_ns[-1]),
        )
        sent_ns = self._slots.nexts(open_ns) + cell.slot_ns

        harq = self._carrier.harq
        depth = self._fade.depths(ready_ns)
        first = harq.first_error_ratio + (1.0 - harq.first_error_ratio) * depth
        failed = np.flatnonzero(luck < first * ODDS)
        heard = np.ones(len(ready_ns), np.bool_)
        if len(failed):
            again = harq.next_error_ratio + (1.0 - harq.next_error_ratio) * depth[failed]
            sent_ns[failed], heard[failed] = self._repair(
                harq,
                sent_ns[failed],
                luck[failed],
                misread[failed],
                schedule_ns[failed],
                recovery_ns[failed],
                first[failed] * ODDS,
                again,
            )
        return sent_ns, heard

    def _repair(
        self,
        harq: Harq,
        sent_ns: Ints,
        luck: Ints,
        misread: Ints,
        schedule_ns: Ints,
        recovery_ns: Ints,
        odds: NDArray[np.float64],
        again: NDArray[np.float64],
    ) -> tuple[Ints, Flags]:
        """What ``one`` does to a message whose first transmission failed."""
        cell = self._cell
        fooled = misread < harq.feedback_error_ratio * ODDS
        sent_ns = np.where(fooled, self._slots.nexts(sent_ns + recovery_ns) + cell.slot_ns, sent_ns)
        left = np.flatnonzero(~fooled)
        for _ in range(harq.transmissions - 1):
            if not len(left):
                break
            verdict_ns = sent_ns[left] + self._decode_ns
            if not self._uplink:
                verdict_ns = cell.up.nexts(verdict_ns) + cell.slot_ns
            sent_ns[left] = self._slots.nexts(verdict_ns + schedule_ns[left]) + cell.slot_ns
            odds[left] *= again[left]
            left = left[luck[left] < odds[left]]
        whole_failure = odds / ODDS
        for _ in range(cell.spec.rlc.rounds):
            if not len(left):
                break
            sent_ns[left] = self._slots.nexts(sent_ns[left] + recovery_ns[left]) + cell.slot_ns
            odds[left] *= whole_failure[left]
            left = left[luck[left] < odds[left]]
        heard = np.ones(len(sent_ns), np.bool_)
        heard[left] = False
        return sent_ns, heard


def queued(ready_ns: Ints, work_ns: Ints, free_ns: int) -> Ints:
    """When a first-come-first-served server ends each job, ``max(ready, last end) + work``."""
    done = np.cumsum(work_ns)
    return np.maximum(np.maximum.accumulate(ready_ns - (done - work_ns)), free_ns) + done
