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
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from config.units import NS_PER_S
from ingest.messages import Floats, Times
from simulator.device import KWH_NJ, Ints, Meter, Stretch
from simulator.lags import lagged

MILLION = 1_000_000
_MARK = 8
"""Every so many cycles the energy up to there is kept."""
_BATCH = 512 * _MARK


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

    __slots__ = (
        "_cycle", "_extra", "_known", "_left", "_number", "_offset", "_ppm", "_runs", "_start",
        "_up", "_watts",
    )  # fmt: skip

    def __init__(self, t_ns: int, idle_watts: int, phases: Sequence[Phase]) -> None:
        super().__init__(t_ns, idle_watts, KWH_NJ)
        if sum(phase.ppm for phase in phases) != MILLION:
            raise ValueError("the phases' shares must add up to one")
        laws = _laws(idle_watts, tuple(phases))
        self._ppm, self._extra, self._watts, self._number = laws
        self._start, self._offset = array("q"), array("q")
        self._runs, self._cycle = array("q"), array("q")
        self._up, self._left = array("q", (0,)), array("q", (0,))
        """Cells and rest that the cycles before each mark drew more than the constant."""
        self._known = 0
        """Cycles before the last mark."""

    def __len__(self) -> int:
        return len(self._start)

    def set(self, t_ns: int, rate: int) -> None:
        """Between cycles the draw is the same in every state."""
        if rate != self.rate.last:
            raise ValueError(f"idle draw of {rate} W from {t_ns} on, not {self.rate.last} W")

    def log(self, start_ns: int, cycle_ns: Ints) -> None:
        """Whole cycles, one after the other from a time on."""
        starts_ns = start_ns + cycle_ns.cumsum() - cycle_ns
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

    def log_rows(self, rows: Sequence[int]) -> None:
        """``log_parts`` of plain numbers, four for each part: its start, its offset, for how long
        it runs, and the length of its cycle."""
        flat = array("q", rows)
        self._start.extend(flat[::4])
        self._offset.extend(flat[1::4])
        self._runs.extend(flat[2::4])
        self._cycle.extend(flat[3::4])

    def _parts(self, low: int, high: int) -> Parts:
        columns = (self._start, self._offset, self._runs, self._cycle)
        return Parts(*(np.array(column[low:high], dtype=np.int64) for column in columns))

    def _bounds(self, parts: Parts) -> Ints:
        """When the phases of parts begin, and in the last column when the parts end; a phase that
        lies outside its part takes no time."""
        whole, rest = np.divmod(parts.cycle_ns[:, None], MILLION)
        bounds = whole * self._ppm + rest * self._ppm // MILLION
        low = parts.offset_ns[:, None]
        high = low + parts.runs_ns[:, None]
        within = np.minimum(np.maximum(bounds, low), high)
        return np.asarray(within + (parts.start_ns[:, None] - low), dtype=np.int64)

    def _keep_marks(self) -> None:
        """Bring the kept sums up to the last full mark."""
        while len(self._start) - self._known >= _MARK:
            high = min(self._known + _BATCH, len(self._start) // _MARK * _MARK)
            bounds = self._bounds(self._parts(self._known, high))
            drawn = (bounds[:, 1:] - bounds[:, :-1]) @ self._extra
            cells, rest = np.divmod(drawn.reshape(-1, _MARK).sum(axis=1), self.grid)
            rest = rest.cumsum() + self._left[-1]
            cells = cells.cumsum() + self._up[-1] + rest // self.grid
            self._up.frombytes(cells.tobytes())
            self._left.frombytes((rest % self.grid).tobytes())
            self._known = high

    def _look(self, times: Times) -> tuple[int, Ints, NDArray[np.intp]]:
        """The mark before some times, when phases begin and end from there on (the log's begin put
        before them), and for each time the number of the last of these that is not after it."""
        first = bisect_right(self._start, int(times[0])) - 1
        mark = max(first, 0) // _MARK
        high = bisect_right(self._start, int(times[-1]))
        bounds = self._bounds(self._parts(mark * _MARK, high))
        since = np.empty(bounds.size + 1, dtype=np.int64)
        since[0] = self.rate.t[0]
        since[1:] = bounds.ravel()
        return mark, since, np.maximum(since.searchsorted(times, side="right") - 1, 0)

    def _energy(self, times: Times, mark: int, since: Ints, at: NDArray[np.intp]) -> Ints:
        self._keep_marks()
        idle, begin_ns = self.rate.last, int(since[0])
        watts = np.empty(len(since), dtype=np.int64)
        watts[0] = idle
        watts[1:].reshape(-1, len(self._ppm))[:] = self._watts
        cells, rest = np.zeros(len(since), dtype=np.int64), np.zeros(len(since), dtype=np.int64)
        if len(since) > 1:
            idle_ns = int(since[1]) - begin_ns
            up, left = divmod(idle * idle_ns + self._left[mark], self.grid)
            cells[1], rest[1] = up + self._up[mark], left
            spans = since[2:] - since[1:-1]
            cells[2:], rest[2:] = self._flow(watts[1:-1], spans)
            cells, rest = cells.cumsum(), rest.cumsum()
        return self._read(times, int(since[at[0]]), since[at], watts[at], cells[at], rest[at])

    def at(self, times: Times) -> Ints:
        """Readings at ascending times."""
        if not len(times):
            return np.empty(0, dtype=np.int64)
        return self._energy(times, *self._look(times))

    def follow(self, times: Times) -> tuple[NDArray[np.intp], Ints]:
        """Number of the phase from 1 at ascending times, 0 between cycles, and readings. A phase
        begins at its bound, the first one at the cycle's start."""
        if not len(times):
            return np.empty(0, dtype=np.intp), np.empty(0, dtype=np.int64)
        mark, since, at = self._look(times)
        number = self._number[(at - 1) % len(self._ppm)]
        return number, self._energy(times, mark, since, at)

    def spells(self, after_ns: int, to_ns: int) -> tuple[Ints, NDArray[np.intp]]:
        """From when on cycles run (1) or do not (0) in a stretch; the first entry is its begin."""
        low = max(bisect_right(self._start, after_ns) - 1, 0)
        high = bisect_right(self._start, to_ns)
        start_ns = np.array(self._start[low:high], dtype=np.int64)
        end_ns = start_ns + np.array(self._runs[low:high], dtype=np.int64)
        stands = start_ns[1:] > end_ns[:-1]
        turns = np.empty(2 * int(stands.sum()) + 2 * bool(high > low), dtype=np.int64)
        if len(turns):
            turns[0], turns[-1] = start_ns[0], end_ns[-1]
            turns[1:-1:2], turns[2:-1:2] = end_ns[:-1][stands], start_ns[1:][stands]
        before = int(turns.searchsorted(after_ns, side="right"))
        t_ns = np.append(after_ns, turns[before : int(turns.searchsorted(to_ns))])
        return t_ns, (before + np.arange(len(t_ns))) % 2


@cache
def _laws(idle_watts: int, phases: tuple[Phase, ...]) -> tuple[Ints, Ints, Ints, NDArray[np.intp]]:
    """Of machines that are alike: where in the cycle the phases begin, what they draw more than
    the constant, what is drawn from each bound on, and the number of the phase that begins there,
    the last bound being the cycle's end."""
    ppm = np.cumsum([0, *(phase.ppm for phase in phases)], dtype=np.int64)
    watts = np.array([*(phase.watts for phase in phases), idle_watts], dtype=np.int64)
    return ppm, watts[:-1] - idle_watts, watts, np.arange(1, len(ppm) + 1) % len(ppm)


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
        since_ns, which = self._cycles.spells(stretch.after_ns, stretch.to_ns)
        goals, tau_ns = self._goals[:, which], self._tau_ns[which]
        above = self.now_c[:, None] - goals
        if len(since_ns) > 1:
            steps = (since_ns[1:] - since_ns[:-1]) / tau_ns[:-1]
            above[:, 1:] = lagged(self.now_c, goals[:, :-1], steps) - goals[:, 1:]
        left = np.exp((since_ns[-1] - stretch.to_ns) / tau_ns[-1])
        self.now_c = goals[:, -1] + above[:, -1] * left
        times = stretch.times
        if len(since_ns) == 1:
            return np.asarray(goals + above * np.exp((since_ns - times) / tau_ns))
        at = since_ns.searchsorted(times, side="right") - 1
        left = np.exp((since_ns[at] - times) / tau_ns[at])
        return np.asarray(goals[:, at] + above[:, at] * left)
