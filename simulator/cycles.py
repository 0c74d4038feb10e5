"""A machine's cycles as columns: its phase and its energy at any time, by arithmetic.

Theory of operation
===================

Cycle follows cycle with the same phases, each a fixed share of the cycle's own length, and each
with a power of its own; between cycles the draw is constant:

    power   idle |p1|p2 |p3      |p4 |p1|p2 |p3  ...
    time         start           start + cycle

So it is enough to log when each cycle began and how long it was. A cycle that was interrupted is
logged in parts: a part runs from ``offset_ns`` of its cycle on, for ``runs_ns``. Phase bounds are
whole nanoseconds, rounded down, so the energy is an exact integral in integers, of which the
reading is the whole number of grid cells.
"""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from config.units import NS_PER_S
from ingest.messages import Floats, Times
from simulator.device import KWH_NJ, Ints, Meter, Stretch
from simulator.lags import lagged

MILLION = 1_000_000
_MARK = 64
"""Every so many cycles the energy up to there is kept."""


class Phase(NamedTuple):
    """A phase of a cycle."""

    ppm: int
    """Its share of the cycle, in millionths; those of all phases add up to a million."""
    watts: int


class Parts(NamedTuple):
    """Parts of cycles, as columns."""

    start_ns: Ints
    offset_ns: Ints
    runs_ns: Ints
    cycle_ns: Ints


class Cycles(Meter):
    """The log of a machine's cycles, and its energy meter: a constant draw but for cycles.

    Cycles may be logged ahead of time, when it is known how they will run.
    """

    __slots__ = ("_cycle", "_extra", "_known", "_offset", "_ppm", "_runs", "_start", "_sums")

    def __init__(self, t_ns: int, idle_watts: int, phases: Sequence[Phase]) -> None:
        super().__init__(t_ns, idle_watts, KWH_NJ)
        if sum(phase.ppm for phase in phases) != MILLION:
            raise ValueError("the phases' shares must add up to one")
        self._ppm = np.cumsum([0, *(phase.ppm for phase in phases)], dtype=np.int64)
        self._extra = np.array([phase.watts - idle_watts for phase in phases], dtype=np.int64)
        self._start, self._offset = array("q"), array("q")
        self._runs, self._cycle = array("q"), array("q")
        self._sums: list[tuple[int, int]] = [(0, 0)]
        """Cells and rest that the cycles before each mark drew more than the constant."""
        self._known = 0
        """Cycles in the last mark."""

    def __len__(self) -> int:
        return len(self._start)

    def set(self, t_ns: int, rate: int) -> None:
        """Between cycles the draw is the same in every state."""
        if rate != self.rate.last:
            raise ValueError(f"idle draw of {rate} W from {t_ns} on, not {self.rate.last} W")

    def log(self, start_ns: int, cycle_ns: Ints) -> None:
        """Whole cycles, one after the other from a time on."""
        starts_ns = start_ns + np.cumsum(cycle_ns) - cycle_ns
        self.log_parts(starts_ns, np.zeros_like(cycle_ns), cycle_ns, cycle_ns)

    def log_parts(self, start_ns: Ints, offset_ns: Ints, runs_ns: Ints, cycle_ns: Ints) -> None:
        """Parts of cycles, in order of time and none in another; each must run."""
        self._start.frombytes(start_ns.tobytes())
        self._offset.frombytes(offset_ns.tobytes())
        self._runs.frombytes(runs_ns.tobytes())
        self._cycle.frombytes(cycle_ns.tobytes())

    def log_part(self, start_ns: int, runs_ns: int, cycle_ns: int, offset_ns: int = 0) -> None:
        """A part of a cycle; one that does not run is none."""
        if runs_ns:
            self._start.append(start_ns)
            self._offset.append(offset_ns)
            self._runs.append(runs_ns)
            self._cycle.append(cycle_ns)

    def _parts(self, low: int, high: int) -> Parts:
        columns = (self._start, self._offset, self._runs, self._cycle)
        return Parts(*(np.array(column[low:high], dtype=np.int64) for column in columns))

    def _drawn(self, offset_ns: Ints, to_ns: Ints, cycle_ns: Ints) -> Ints:
        """Nanojoules beyond the constant draw between two offsets of cycles."""
        bounds = self._bounds(cycle_ns)
        low, high = bounds[:, :-1], bounds[:, 1:]
        within = np.clip(to_ns[:, None], low, high) - np.clip(offset_ns[:, None], low, high)
        return np.asarray(within @ self._extra, dtype=np.int64)

    def _bounds(self, cycle_ns: Ints) -> Ints:
        """Where the phases of cycles begin, and in the last column where the cycles end."""
        whole, part = np.divmod(cycle_ns[:, None], MILLION)
        return np.asarray(whole * self._ppm + part * self._ppm // MILLION, dtype=np.int64)

    def _keep_marks(self) -> None:
        """Bring the kept sums up to the last full mark."""
        while len(self._start) - self._known >= _MARK:
            high = min(self._known + 64 * _MARK, len(self._start) // _MARK * _MARK)
            parts = self._parts(self._known, high)
            drawn = self._drawn(parts.offset_ns, parts.offset_ns + parts.runs_ns, parts.cycle_ns)
            cells, rest = np.divmod(drawn.reshape(-1, _MARK).sum(axis=1), self.grid)
            for more, left in zip(cells.tolist(), rest.tolist(), strict=True):
                up = self._sums[-1]
                carry, rest_now = divmod(up[1] + left, self.grid)
                self._sums.append((up[0] + more + carry, rest_now))
            self._known = high

    def _look(self, times: Times) -> tuple[int, Parts, Ints, Ints]:
        """The parts around some times from a mark on, that mark, and for each time the number of
        its part there (-1: before them all), and how long that part had run."""
        first = bisect_right(self._start, int(times[0])) - 1
        low = max(first, 0) // _MARK * _MARK
        parts = self._parts(low, max(bisect_right(self._start, int(times[-1])), low + 1))
        at = np.searchsorted(parts.start_ns, times, side="right") - 1
        ran = np.zeros(len(times), dtype=np.int64)
        in_one = at >= 0
        ran[in_one] = times[in_one] - parts.start_ns[at[in_one]]
        return low // _MARK, parts, at, ran

    def at(self, times: Times) -> Ints:
        """Readings at ascending times."""
        if not len(times):
            return np.empty(0, dtype=np.int64)
        cells, rest = self._flow(np.array(self.rate.last), times - self.rate.t[0])
        if not len(self._start):
            return cells
        self._keep_marks()
        mark, parts, at, ran = self._look(times)
        whole = self._drawn(parts.offset_ns, parts.offset_ns + parts.runs_ns, parts.cycle_ns)
        before_cells, before_rest = np.divmod(np.concatenate(([0], whole)), self.grid)
        before_cells, before_rest = np.cumsum(before_cells), np.cumsum(before_rest)
        n = np.maximum(at, 0)
        offset, cycle = parts.offset_ns[n], parts.cycle_ns[n]
        drawn = self._drawn(offset, offset + np.minimum(ran, parts.runs_ns[n]), cycle)
        up_cells, up_rest = self._sums[mark]
        rest = rest + np.where(at >= 0, drawn + before_rest[n], 0) + up_rest
        cells = cells + np.where(at >= 0, before_cells[n], 0) + up_cells
        return np.asarray(cells + rest // self.grid, dtype=np.int64)

    def phase(self, times: Times) -> NDArray[np.intp]:
        """Number of the phase from 1 at ascending times, 0 between cycles. A phase begins at its
        bound, the first one at the cycle's start."""
        if not len(times) or not len(self._start):
            return np.zeros(len(times), dtype=np.intp)
        _, parts, at, ran = self._look(times)
        n = np.maximum(at, 0)
        bounds = self._bounds(parts.cycle_ns[n])[:, 1:-1]
        number = 1 + ((parts.offset_ns[n] + ran)[:, None] >= bounds).sum(axis=1)
        return np.where((at >= 0) & (ran < parts.runs_ns[n]), number, 0)

    def spells(self, after_ns: int, to_ns: int) -> tuple[Ints, NDArray[np.bool_]]:
        """When cycles began and ceased to run in a stretch, the first entry being its begin: from
        each of these times on they run or do not."""
        low = max(bisect_right(self._start, after_ns) - 1, 0)
        parts = self._parts(low, bisect_right(self._start, to_ns))
        ends = parts.start_ns + parts.runs_ns
        before_ns = min(after_ns, self._start[low]) - 1 if len(ends) else after_ns
        t_ns = np.concatenate(([before_ns], ends, parts.start_ns))
        runs = np.repeat([False, False, True], [1, len(ends), len(ends)])
        order = np.argsort(t_ns, kind="stable")  # of an end and a start at one time the start wins
        t_ns, runs = np.maximum(t_ns[order], after_ns), runs[order]
        last = np.append(t_ns[1:] != t_ns[:-1], True) & (t_ns < to_ns)
        return t_ns[last], runs[last]


class Warmth:
    """Temperatures that near one value while cycles run and another while they do not, each with a
    time constant."""

    def __init__(
        self, cycles: Cycles, start_c: Floats, run_c: Floats, rest_c: Floats,
        run_tau_s: float, rest_tau_s: float,
    ) -> None:  # fmt: skip
        self._cycles = cycles
        self._goals = np.stack((rest_c, run_c), axis=1)
        self._tau_ns = np.array((rest_tau_s, run_tau_s)) * NS_PER_S
        self.now_c = start_c
        """At the end of the last stretch."""

    def follow(self, stretch: Stretch) -> Floats:
        """A row of values for each temperature at the times of a stretch; stretches must follow one
        another without gaps."""
        marks, runs = self._cycles.spells(stretch.after_ns, stretch.to_ns)
        t_ns = np.union1d(np.append(marks[1:], stretch.to_ns), stretch.times)
        since_ns = np.concatenate(([stretch.after_ns], t_ns[:-1]))
        which = runs[np.searchsorted(marks, since_ns, side="right") - 1].astype(np.intp)
        steps = (t_ns - since_ns) / self._tau_ns[which]
        values = lagged(self.now_c, self._goals[:, which], steps)
        self.now_c = values[:, -1]
        return values[:, np.searchsorted(t_ns, stretch.times)]
