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
often a message fails: at least k times if the die is below ``first * next**(k-1)``. A message of
several slots is in one piece when all its blocks are. A standing grant replaces the request; a
request that is not heard is repeated at the next occasion.

The weaker the signal, the slower the coding that is sure to be heard: a message takes longer on the
air, more slots, and what follows waits. Below the floor of the slowest coding failures grow to one.

A ``Cell`` is what its bearers share; the bearer's own state is in ``Scheduled``.
"""

from bisect import bisect_left

import numpy as np

from simulator.link.columns import (
    KNEE_DB,
    ODDS,
    Backlog,
    Flags,
    Floats,
    Ints,
    Record,
    byte_ps,
    ns,
    roll_hop,
    roll_odds,
)
from simulator.link.profile import Carrier, Cellular, Harq, StandingGrant

_NEVER_NS = -(2**62)
# TS 38.214 table 5.2.2.1-2, CQI 15 down to 2: bits per symbol, and the SINR above that of CQI 2
# from which it is heard nine times in ten (link simulations; the standard has no such column).
_CODINGS = (
    (5.55, 27.4), (5.12, 25.7), (4.52, 23.4), (3.90, 21.0), (3.32, 18.8), (2.73, 16.4),
    (2.41, 15.0), (1.91, 12.8), (1.48, 10.6), (1.18, 9.0), (0.877, 7.1), (0.602, 4.9),
    (0.377, 2.4), (0.234, 0.0),
)  # fmt: skip
_BEST = _CODINGS[0][0]
_SLOWNESS = tuple(_BEST / bits for bits, _ in _CODINGS)
_DEPTHS = [-above_db / KNEE_DB for _, above_db in _CODINGS[:-1]]
"""Depths down to which each coding but the slowest will do."""
_DEPTH_COLUMN = np.array(_DEPTHS)


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
        self._clock = clock = Clock(phase_ns, spec.drift_ppm)
        up = [i * self.slot_ns for i, kind in enumerate(spec.pattern) if kind in "UF"]
        down = [i * self.slot_ns for i, kind in enumerate(spec.pattern) if kind in "DF"]
        self.up = Grid(up, period_ns, clock)
        self.down = Grid(down, period_ns, clock)
        self.requests = Grid(up[:1], ns(spec.grant.sr_period_ms), clock)
        self._first_up, self._period_ns = up[:1], period_ns

    def occasions(self, period_ns: int) -> Grid:
        """When a device with a standing grant may send."""
        return Grid(self._first_up, period_ns, self._clock)

    def slot_bytes(self, *, uplink: bool) -> int:
        """What one slot carries for one device."""
        carrier, kinds = (self.spec.up, "UF") if uplink else (self.spec.down, "DF")
        usable = sum(kind in kinds for kind in self.spec.pattern)
        return max(round(carrier.rate_mbps * self._period_ns / usable / 8_000.0), 1)


class Scheduled:
    """One direction of one device in a cell; its signal's depth is told with every message."""

    def __init__(
        self,
        cell: Cell,
        *,
        uplink: bool,
        grant: StandingGrant | None = None,
        backlog: Backlog | None = None,
    ) -> None:
        self._cell, self._uplink, self._backlog = cell, uplink, backlog
        self._carrier: Carrier = cell.spec.up if uplink else cell.spec.down
        self._slots = cell.up if uplink else cell.down
        full, rate_mbps = cell.slot_bytes(uplink=uplink), self._carrier.rate_mbps
        self._slot_bytes = [max(round(full / slow), 1) for slow in _SLOWNESS]
        self._byte_ps = [byte_ps(rate_mbps / slow) for slow in _SLOWNESS]
        self._slot_bytes_column = np.array(self._slot_bytes, np.int64)
        self._byte_ps_column = np.array(self._byte_ps, np.int64)
        self._hold_ns = ns(cell.spec.grant.hold_ms)
        self._decode_ns = ns(self._carrier.harq.decode_ms)
        self._ready_ns = self._free_ns = self._open_ns = _NEVER_NS
        self._occasions = None
        if uplink and grant is not None:
            self._occasions = cell.occasions(ns(grant.period_ms))
            self._grant_bytes = grant.grant_bytes
        self.parts: Record | None = None

    def roll(self, rng: np.random.Generator, n: int) -> list[Ints]:
        spec, harq = self._cell.spec, self._carrier.harq
        return [
            roll_odds(rng, n),
            roll_odds(rng, n),
            roll_hop(rng, harq.schedule, n),
            roll_hop(rng, spec.rlc.recovery, n),
            self._roll_grant(rng, n),
        ]

    def _roll_grant(self, rng: np.random.Generator, n: int) -> Ints:
        """From the end of the first request's slot to the start of the grant."""
        grant = self._cell.spec.grant
        if not self._uplink:
            return np.zeros(n, np.int64)
        processing_ns = roll_hop(rng, grant.processing, n)
        if self._occasions is not None:
            return processing_ns  # asks within its own grant, repaired like any message
        return processing_ns + (rng.geometric(1.0 - grant.missed_ratio, n) - 1) * ns(
            grant.sr_period_ms
        )

    def one(
        self, ready_ns: int, n_bytes: int, dice: list[int], depth: float, cell: int
    ) -> tuple[int, bool]:
        luck, misread, schedule_ns, recovery_ns, grant_ns = dice
        frame = self._cell
        wait_ns = served_ns = 0
        if self._backlog is not None:
            wait_ns, served_ns = self._backlog.one(ready_ns, n_bytes, cell)
        coding = bisect_left(_DEPTHS, depth)
        air_ns = n_bytes * self._byte_ps[coding] // 1_000
        whole_ns = max(ready_ns + wait_ns, self._free_ns) + served_ns + air_ns
        open_ns, slots = whole_ns, self._slots
        if self._occasions is not None:
            if n_bytes > self._grant_bytes:
                open_ns = self._occasions.next(whole_ns) + frame.slot_ns + grant_ns
            else:
                slots = self._occasions
        elif self._uplink and ready_ns - self._ready_ns > self._hold_ns:
            open_ns = frame.requests.next(whole_ns) + frame.slot_ns + grant_ns
        open_ns = max(open_ns, self._open_ns)
        self._ready_ns, self._free_ns, self._open_ns = ready_ns, whole_ns, open_ns
        slot_ns = slots.next(open_ns)

        sent_ns, heard, rounds = slot_ns + frame.slot_ns, True, 1
        harq = self._carrier.harq
        deaf = max(depth, 0.0)
        first = harq.first_error_ratio + (1.0 - harq.first_error_ratio) * deaf
        blocks = -(-n_bytes // self._slot_bytes[coding])
        odds = blocks * first / (1.0 + (blocks - 1) * first) * ODDS
        if luck < odds:
            again = harq.next_error_ratio + (1.0 - harq.next_error_ratio) * deaf
            sent_ns, heard, rounds = self._repaired(
                harq, sent_ns, luck, misread, schedule_ns, recovery_ns, odds, again
            )
        if self.parts is not None:
            self.parts.row(
                whole_ns - air_ns - ready_ns,
                air_ns + frame.slot_ns,
                open_ns - whole_ns,
                slot_ns - open_ns,
                sent_ns - slot_ns - frame.slot_ns,
                rounds,
            )
        return sent_ns, heard

    def _repaired(
        self,
        harq: Harq,
        sent_ns: int,
        luck: int,
        misread: int,
        schedule_ns: int,
        recovery_ns: int,
        odds: float,
        again: float,
    ) -> tuple[int, bool, int]:
        """A message whose first transmission failed: last one's end, heard or not, how many."""
        cell = self._cell
        if misread < harq.feedback_error_ratio * ODDS:
            return self._slots.next(sent_ns + recovery_ns) + cell.slot_ns, True, 2
        for further in range(1, harq.transmissions):
            verdict_ns = sent_ns + self._decode_ns
            if not self._uplink:
                verdict_ns = cell.up.next(verdict_ns) + cell.slot_ns
            sent_ns = self._slots.next(verdict_ns + schedule_ns) + cell.slot_ns
            odds *= again
            if luck >= odds:
                return sent_ns, True, 1 + further
        whole_failure = odds / ODDS
        for further in range(cell.spec.rlc.rounds):
            sent_ns = self._slots.next(sent_ns + recovery_ns) + cell.slot_ns
            odds *= whole_failure
            if luck >= odds:
                return sent_ns, True, harq.transmissions + 1 + further
        return sent_ns, False, harq.transmissions + cell.spec.rlc.rounds

    def many(
        self, ready_ns: Ints, n_bytes: Ints, dice: Ints, depth: Floats, cell: Ints
    ) -> tuple[Ints, Flags]:
        luck, misread, schedule_ns, recovery_ns, grant_ns = dice
        frame = self._cell
        coding = np.searchsorted(_DEPTH_COLUMN, depth)
        air_ns = n_bytes * self._byte_ps_column[coding] // 1_000
        first_ns, work_ns = ready_ns, air_ns
        if self._backlog is not None:
            wait_ns, served_ns = self._backlog.many(ready_ns, n_bytes, cell)
            first_ns, work_ns = ready_ns + wait_ns, air_ns + served_ns
        whole_ns = queued(first_ns, work_ns, self._free_ns)
        open_ns = whole_ns
        if self._occasions is not None:
            asked_ns = self._occasions.nexts(whole_ns) + frame.slot_ns + grant_ns
            open_ns = np.where(n_bytes > self._grant_bytes, asked_ns, whole_ns)
        elif self._uplink:
            idle = np.diff(ready_ns, prepend=self._ready_ns) > self._hold_ns
            asked_ns = frame.requests.nexts(whole_ns) + frame.slot_ns + grant_ns
            open_ns = np.where(idle, asked_ns, whole_ns)
        open_ns = np.maximum(np.maximum.accumulate(open_ns), self._open_ns)
        self._ready_ns, self._free_ns, self._open_ns = (
            int(ready_ns[-1]),
            int(whole_ns[-1]),
            int(open_ns[-1]),
        )
        slot_ns = self._slots.nexts(open_ns)
        if self._occasions is not None:
            own_ns = self._occasions.nexts(open_ns)
            slot_ns = np.where(n_bytes > self._grant_bytes, slot_ns, own_ns)

        sent_ns = slot_ns + frame.slot_ns
        harq = self._carrier.harq
        deaf = np.maximum(depth, 0.0)
        first = harq.first_error_ratio + (1.0 - harq.first_error_ratio) * deaf
        blocks = -(-n_bytes // self._slot_bytes_column[coding])
        odds = blocks * first / (1.0 + (blocks - 1) * first) * ODDS
        failed = np.flatnonzero(luck < odds)
        heard = np.ones(len(ready_ns), np.bool_)
        rounds = np.ones(len(ready_ns), np.int64)
        if len(failed):
            again = harq.next_error_ratio + (1.0 - harq.next_error_ratio) * deaf[failed]
            sent_ns[failed], heard[failed], rounds[failed] = self._repair(
                harq,
                sent_ns[failed],
                luck[failed],
                misread[failed],
                schedule_ns[failed],
                recovery_ns[failed],
                odds[failed],
                again,
            )
        if self.parts is not None:
            self.parts.columns(
                whole_ns - air_ns - ready_ns,
                air_ns + frame.slot_ns,
                open_ns - whole_ns,
                slot_ns - open_ns,
                sent_ns - slot_ns - frame.slot_ns,
                rounds,
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
        odds: Floats,
        again: Floats,
    ) -> tuple[Ints, Flags, Ints]:
        """``_repaired`` of columns."""
        cell = self._cell
        fooled = misread < harq.feedback_error_ratio * ODDS
        sent_ns = np.where(fooled, self._slots.nexts(sent_ns + recovery_ns) + cell.slot_ns, sent_ns)
        rounds = np.where(fooled, 2, 1)
        left = np.flatnonzero(~fooled)
        for _ in range(harq.transmissions - 1):
            if not len(left):
                break
            verdict_ns = sent_ns[left] + self._decode_ns
            if not self._uplink:
                verdict_ns = cell.up.nexts(verdict_ns) + cell.slot_ns
            sent_ns[left] = self._slots.nexts(verdict_ns + schedule_ns[left]) + cell.slot_ns
            rounds[left] += 1
            odds[left] *= again[left]
            left = left[luck[left] < odds[left]]
        whole_failure = odds / ODDS
        for _ in range(cell.spec.rlc.rounds):
            if not len(left):
                break
            sent_ns[left] = self._slots.nexts(sent_ns[left] + recovery_ns[left]) + cell.slot_ns
            rounds[left] += 1
            odds[left] *= whole_failure[left]
            left = left[luck[left] < odds[left]]
        heard = np.ones(len(sent_ns), np.bool_)
        heard[left] = False
        return sent_ns, heard, rounds


def queued(ready_ns: Ints, work_ns: Ints, free_ns: int) -> Ints:
    """When a first-come-first-served server ends each job, ``max(ready, last end) + work``."""
    done = np.cumsum(work_ns)
    return np.maximum(np.maximum.accumulate(ready_ns - (done - work_ns)), free_ns) + done
