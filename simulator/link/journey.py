"""One device on its way: where it is, which cell serves it, how well, and the gaps between cells.

Theory of operation
===================

    waypoints ─► place and distance on a grid of instants ─► power of every cell ─► A3 ─► serving
                                                                                     cell, gaps

The track is piecewise linear and grows causally; before the first waypoint the device has no place,
after the last it stands. Cells are measured on a fixed grid of instants: power is path loss plus
shadowing, a noise over the distance travelled. Another cell that is stronger by the hysteresis for
the time to trigger takes over (3GPP's event A3): nothing passes for a lognormal gap, or for a
re-establishment where that fails or where the serving cell went off the air.

What passes by (people, trucks) adds a noise over time to the serving signal, of a device that
stands as of one that moves. It is looked up per message and so costs a rest nothing; the handover's
measurements average over it.

Everything is a function of (seed, device, track): both directions of a device that are moved alike
see the same gaps. The grid is worked through in chunks ahead of the messages; a waypoint that
changes what was foreseen restores the state before the chunk.
"""

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.faults import Area
from config.units import NS_PER_MS, NS_PER_S
from simulator.link.columns import KNEE_DB, Floats, Ints, ns
from simulator.link.lattice import Noise, key, normal, normals, uniform
from simulator.link.layout import Map
from simulator.link.profile import Mobility, Propagation

GRID_NS = 160 * NS_PER_MS
_CHUNK = 512
_SETTLE = 32
_OFF_DBM = -1_000.0
_FOREVER_NS = 2**35 * GRID_NS
_SAME_M = 0.01
_P99 = NormalDist().inv_cdf(0.99)


@dataclass(frozen=True, slots=True)
class Air:
    """What is in the air during one epoch, the same for every device."""

    off: NDArray[np.bool_]
    """Cells that do not send."""
    activity_db: Floats
    """What a neighbour's load makes of its power as interference."""
    rises: tuple[tuple[float, Area | None], ...]
    """More noise: dB, and where."""


@dataclass(frozen=True, slots=True)
class World:
    """The radio map and its epochs, shared by the devices of a link."""

    map: Map
    mobility: Mobility
    propagation: Propagation
    edges_ns: tuple[int, ...]
    airs: tuple[Air, ...]
    seed: int


@dataclass(slots=True)
class _State:
    """Between two chunks."""

    at: int
    """Next grid instant."""
    cell: int = -1
    depth: float = 0.0
    over: int = 0
    """Instants for which another cell has been stronger."""
    busy_ns: int = 0
    """End of the last gap."""
    dead: bool = False
    """The serving cell was off the air."""
    calm_ns: int = 0
    """Until then nothing will happen, as far as the track is known."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """What was foreseen of ``[start, end)``: a row per grid instant, or one for all (a rest)."""

    start_ns: int
    end_ns: int
    cells: Ints
    depths: Floats
    gaps: tuple[tuple[int, int], ...] = ()

    def rows(self, t_ns: Any) -> Any:
        """The row of a time, or of each of a column."""
        return (t_ns - self.start_ns) // GRID_NS * (len(self.cells) > 1)


class Journey:
    """The track and radio of one device."""

    def __init__(self, world: World, device: int) -> None:
        self._world = world
        self._key = key(world.seed, device, 0x3A3)
        cells = len(world.airs[0].off)
        self._keys = np.array([key(self._key, i) for i in range(cells)], np.uint64)
        self._t_ns: list[int] = []
        self._x: list[float] = []
        self._y: list[float] = []
        self._s: list[float] = []
        self._since_ns: int | None = None
        self._asked_ns = 0
        self._state = self._before = _State(0)
        self._chunk: _Chunk | None = None
        mobility = world.mobility
        self._need = max(-(-ns(mobility.trigger_ms) // GRID_NS), 1)
        propagation = world.propagation
        self._passing = Noise(key(self._key, 0x9A55), round(propagation.passing_s * NS_PER_S))
        self._passing_sd = propagation.passing_sd_db / KNEE_DB
        self._sigma = math.log(mobility.gap.p99_ms / mobility.gap.median_ms) / _P99

    @property
    def since_ns(self) -> int | None:
        """The first waypoint: before it the device has no place."""
        return self._since_ns

    def move(self, t_ns: int, x_m: float, y_m: float) -> None:
        """Be at a place at a time, straight from the waypoint before; later waypoints are dropped.

        What messages have seen cannot change: a waypoint either lies on the track as known (a stop,
        or the end of a rest) or begins at a waypoint after the last message.
        """
        if t_ns < self._asked_ns:
            raise ValueError(f"moved at {t_ns} ns, before the last message ({self._asked_ns} ns)")
        since_ns = self._since_ns
        if since_ns is None or t_ns <= since_ns:
            self._since_ns, self._chunk = t_ns, None
            self._t_ns, self._x, self._y, self._s = [t_ns], [x_m], [y_m], [0.0]
            self._state = _State(at=t_ns // GRID_NS)
            return
        x, y, s = self._places(np.array([t_ns], np.int64))
        known = math.hypot(x_m - float(x[0]), y_m - float(y[0])) < _SAME_M
        keep = bisect_left(self._t_ns, t_ns)
        if known:
            x_m, y_m, s_m, changed_ns = float(x[0]), float(y[0]), float(s[0]), t_ns
        else:
            changed_ns = self._t_ns[keep - 1] if keep else 0
            if changed_ns < self._asked_ns:
                raise ValueError(
                    "moved off a track that messages have seen: first move() to where the device is"
                )
            way_m = math.hypot(x_m - self._x[keep - 1], y_m - self._y[keep - 1])
            s_m = self._s[keep - 1] + way_m
        for column in (self._t_ns, self._x, self._y, self._s):
            del column[keep:]
        self._t_ns.append(t_ns)
        self._x.append(x_m)
        self._y.append(y_m)
        self._s.append(s_m)
        if self._chunk is not None and self._chunk.end_ns > changed_ns:
            self._state, self._chunk = self._before, None

    def one(self, t_ns: int) -> tuple[int, float, int]:
        """Serving cell, depth below the coding's floor (``columns.Air``), end of a gap (or 0)."""
        chunk = self._covering(t_ns)
        self._asked_ns = t_ns
        at = chunk.rows(t_ns)
        pause_ns = 0
        for begin_ns, end_ns in chunk.gaps:
            if begin_ns <= t_ns < end_ns:
                pause_ns = end_ns
        depth = float(chunk.depths[at]) - self._passing.at(t_ns) * self._passing_sd
        return int(chunk.cells[at]), min(depth, 1.0), pause_ns

    def many(self, t_ns: Ints) -> tuple[Ints, Floats, Ints]:
        """``one`` of a column in order of time."""
        n = len(t_ns)
        cells, depths, pauses = np.empty(n, np.int64), np.empty(n), np.zeros(n, np.int64)
        done = 0
        while done < n:
            chunk = self._covering(int(t_ns[done]))
            end = int(np.searchsorted(t_ns, chunk.end_ns))
            part = slice(done, end)
            times = t_ns[part]
            at = chunk.rows(times)
            cells[part], depths[part] = chunk.cells[at], chunk.depths[at]
            for begin_ns, end_ns in chunk.gaps:
                pauses[part][(begin_ns <= times) & (times < end_ns)] = end_ns
            self._asked_ns = int(times[-1])
            done = end
        depths -= self._passing.column(t_ns) * self._passing_sd
        return cells, np.minimum(depths, 1.0), pauses

    def _covering(self, t_ns: int) -> _Chunk:
        chunk = self._chunk
        while chunk is None or t_ns >= chunk.end_ns:
            chunk = self._next()
        return chunk

    def _next(self) -> _Chunk:
        state, start_ns = self._state, self._state.at * GRID_NS
        self._before = replace(state)
        keep = max(bisect_right(self._t_ns, start_ns) - 1, 0)
        for column in (self._t_ns, self._x, self._y, self._s):
            del column[:keep]
        still_ns = self._still_ns(start_ns)
        calm_ns = min(state.calm_ns, still_ns)
        if calm_ns > start_ns:
            state.at = -(-calm_ns // GRID_NS)
            one = np.array([state.cell], np.int64)
            self._chunk = _Chunk(start_ns, state.at * GRID_NS, one, np.array([state.depth]))
            return self._chunk
        moves = still_ns == start_ns
        end_ns = self._t_ns[-1] if moves else still_ns
        n = min(max(-(-(end_ns - start_ns) // GRID_NS), 2), _CHUNK if moves else _SETTLE)
        times = (state.at + np.arange(n, dtype=np.int64)) * GRID_NS
        gap = () if state.busy_ns <= start_ns else ((start_ns, state.busy_ns),)
        power, noise, activity = self._heard(times)
        cells, gaps, settled = self._served(times, power)
        depths = self._depths(cells, power, noise, activity)
        state.at += n
        state.depth = float(depths[-1])
        last_ns = int(times[-1])
        state.calm_ns = still_ns if settled and not moves and last_ns < still_ns else 0
        self._chunk = _Chunk(start_ns, last_ns + GRID_NS, cells, depths, (*gap, *gaps))
        return self._chunk

    def _still_ns(self, t_ns: int) -> int:
        """Until when everything stays as it is at a time; that time itself if the device moves."""
        edges = self._world.edges_ns
        at = bisect_right(edges, t_ns)
        until_ns = edges[at] if at < len(edges) else _FOREVER_NS
        at = bisect_right(self._t_ns, t_ns) - 1
        if at == len(self._t_ns) - 1:
            return until_ns
        stands = at >= 0 and self._s[at] == self._s[at + 1]
        return min(until_ns, self._t_ns[at + 1]) if stands else t_ns

    def _places(self, t_ns: Ints) -> tuple[Floats, Floats, Floats]:
        """Position and distance travelled."""
        marks = np.array(self._t_ns, np.int64)
        at = np.maximum(np.searchsorted(marks, t_ns, side="right") - 1, 0)
        to = np.minimum(at + 1, len(marks) - 1)
        f = np.clip((t_ns - marks[at]) / np.maximum(marks[to] - marks[at], 1), 0.0, 1.0)
        x, y, s = (
            row[at] + f * (row[to] - row[at]) for row in map(np.array, (self._x, self._y, self._s))
        )
        return x, y, s

    def _heard(self, t_ns: Ints) -> tuple[Floats, Floats, Floats]:
        """Power of every cell, noise, and what turns neighbours' power into interference."""
        world = self._world
        x, y, s = self._places(t_ns)
        place = s / world.propagation.decorrelation_m
        point = np.floor(place)
        f = (place - point)[:, None]
        g = 1.0 - f
        number = point.astype(np.int64)
        first, last = int(number[0]), int(number[-1])
        row = normals(np.arange(first, last + 2)[:, None], self._keys)
        a, b = row[number - first], row[number - first + 1]
        power = world.map.power(x, y, (a * g + b * f) / np.sqrt(f * f + g * g))
        epochs = np.searchsorted(np.array(world.edges_ns, np.int64), t_ns, side="right")
        noise = np.full(len(t_ns), world.propagation.noise_dbm)
        activity = np.empty_like(power)
        for epoch, air in enumerate(world.airs):
            rows = epochs == epoch
            if not rows.any():
                continue
            power[rows[:, None] & air.off] = _OFF_DBM
            activity[rows] = air.activity_db
            for rise_db, area in air.rises:
                inside = rows
                if area is not None:
                    inside = rows & (area.x_m <= x) & (x <= area.x_m + area.width_m)
                    inside &= (area.y_m <= y) & (y <= area.y_m + area.height_m)
                noise[inside] += rise_db
        return power, noise, activity

    def _served(self, t_ns: Ints, power: Floats) -> tuple[Ints, list[tuple[int, int]], bool]:
        """A3 along the grid: serving cell, gaps, and whether the last instant left nothing open."""
        state, mobility = self._state, self._world.mobility
        best, strongest = power.argmax(axis=1).tolist(), power.max(axis=1)
        n, times = len(t_ns), t_ns.tolist()
        cells = np.empty(n, np.int64)
        gaps: list[tuple[int, int]] = []
        if state.cell < 0:
            state.cell = best[0]
        at = 0
        open_end = False
        while at < n:
            mine = power[at:, state.cell]
            dead = np.append(state.dead, mine <= _OFF_DBM)
            lost = dead[:-1] | dead[1:]
            lost &= strongest[at:] > _OFF_DBM
            stronger = strongest[at:] > mine + mobility.hysteresis_db
            cells[at:] = state.cell
            from_at, at = at, n
            for row, (better, gone) in enumerate(
                zip(stronger.tolist(), lost.tolist(), strict=True), from_at
            ):
                state.dead = bool(dead[row - from_at + 1])
                state.over = state.over + 1 if better and times[row] >= state.busy_ns else 0
                open_end = better
                if gone or state.over >= self._need:
                    state.cell, state.over, state.dead = best[row], 0, False
                    state.busy_ns = times[row] + self.gap_ns(times[row] // GRID_NS, gone)
                    gaps.append((times[row], state.busy_ns))
                    cells[row] = state.cell
                    at = row + 1
                    open_end = True
                    break
        return cells, gaps, not open_end and state.busy_ns <= times[-1]

    def gap_ns(self, instant: int, gone: bool) -> int:
        """How long nothing passes for a change of cells at an instant of the grid; ``gone``: of one
        whose cell went off the air, or comes back to the air."""
        mobility = self._world.mobility
        if gone or uniform(self._key, instant, 1) < mobility.failure_ratio:
            again = mobility.reestablish
            return ns(again.fixed_ms + again.spread_ms * uniform(self._key, instant, 2))
        z = normal(instant, self._key)
        return ns(mobility.gap.median_ms * math.exp(self._sigma * z))

    def _depths(self, cells: Ints, power: Floats, noise: Floats, activity: Floats) -> Floats:
        """How far the stronger of noise and neighbours pushes the SINR below the coding's floor."""
        rows = np.arange(len(cells))
        others = power + activity
        others[rows, cells] = _OFF_DBM
        sinr = power[rows, cells] - np.maximum(noise, others.max(axis=1))
        depth: Floats = (self._world.propagation.floor_db - sinr) / KNEE_DB
        return depth
