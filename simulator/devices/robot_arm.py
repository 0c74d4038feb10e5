"""A six-axis arm that trims castings: fetches a container's pieces one by one, asks its interlock.

The second joint (J1) carries the arm's own weight: its current never comes near zero mean. What the
six joints draw is that of a UR3 at work (UR3 CobotOps, UCI 963, doi 10.24432/C5J891, CC BY 4.0):
per phase of the cycle a mean, which is what the pose asks for, and a spread, so that over a cycle
the quantiles are those of the recording. Each winding nears, with one time constant, a temperature
that lies above the surroundings by what the mean square of its current heats it; at work these are
the plateaus of the recording.

                J0     J1     J2     J3     J4     J5
    p5 A      -0.73  -3.82  -2.19  -1.43  -0.93  -0.21
    p50 A     -0.08  -2.24  -1.08  -0.57  -0.01   0.01
    p95 A      0.76  -1.45  -0.55   0.07   0.83   0.21
    plateau C  37.2   40.4   40.8   43.4   45.3   44.7
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal
from zlib import crc32

import numpy as np

from config.units import NS_PER_MS, NS_PER_S, Kilowatts, Ratio, Seconds
from ingest.messages import Floats, Times
from ingest.packml import PackML as S
from simulator.cycles import Cycles, Phase, Warmth
from simulator.device import (
    Amperes,
    Bell,
    Celsius,
    Columns,
    Count,
    DeviceSpec,
    Ints,
    Process,
    Report,
    Steps,
    Stretch,
    event_reports,
    ns,
    on_grid,
    rows_rounded,
)
from simulator.mes import LOT_CHANNELS
from simulator.plant.control import RETRY_NS, SERVICE_CHANNELS, CalmLane, Lane, arrive
from simulator.plant.fed import FedUnit
from simulator.plant.floor import Floor
from simulator.plant.routes import Order

INTERLOCK_BYTES = 120
SWAP_S = 4.0
"""Putting an empty container away and the next in place."""

JOINTS = 6
PHASES = (("reach", 120_000, 1.05), ("grip", 100_000, 0.8), ("lift", 200_000, 1.25),
          ("trim", 280_000, 1.0), ("place", 160_000, 1.1), ("return", 140_000, 0.85))  # fmt: skip
"""Share of the cycle in millionths, and power against the mean of the phase list's own scale."""
_SCALE = sum(ppm * weight for _, ppm, weight in PHASES) / 1_000_000

_REST_A = (-0.08, -2.24, -1.08, -0.57, -0.01, 0.01)
"""Current of each joint while the arm holds its pose, and below in each phase."""
_MEAN_A = np.array((
    _REST_A,
    (-0.12, -2.43, -1.21, -0.23, 0.04, 0.06),
    (0.41, -3.52, -1.54, -1.38, 0.13, -0.05),
    (0.16, -2.25, -1.32, -0.54, 0.03, 0.06),
    (-0.36, -1.94, -1.00, -0.63, -0.34, -0.05),
    (-0.08, -2.87, -1.51, -0.37, -0.04, 0.02),
    (0.07, -2.15, -0.82, -0.66, 0.16, 0.01),
))  # fmt: skip
_SPREAD_A = np.array((
    (0.03,) * JOINTS,
    (0.52, 0.66, 0.57, 0.42, 0.34, 0.17),
    (1.04, 0.56, 0.52, 0.34, 0.79, 0.15),
    (0.31, 0.65, 0.58, 0.30, 0.54, 0.09),
    (0.23, 0.29, 0.18, 0.33, 0.39, 0.12),
    (0.39, 0.75, 0.60, 0.28, 0.67, 0.12),
    (0.18, 0.32, 0.14, 0.36, 0.09, 0.06),
))  # fmt: skip
_SPREAD_RADPS = np.array((
    (0.0,) * JOINTS,
    (0.288, 0.078, 0.888, 0.332, 0.052, 0.195),
    (0.080, 0.094, 0.475, 0.270, 0.017, 0.247),
    (0.073, 0.025, 0.324, 0.266, 0.016, 0.248),
    (0.159, 0.054, 1.016, 0.463, 0.058, 0.393),
    (0.149, 0.045, 0.924, 0.524, 0.033, 0.491),
    (0.125, 0.003, 0.004, 0.094, 0.008, 0.043),
))  # fmt: skip
"""Deviation of the joints' speeds, which come and go about zero."""
_FASTEST_RADPS = np.array((0.79, 0.62, 2.73, 1.36, 0.23, 1.63))
_SHARE = np.array([ppm for _, ppm, _ in PHASES]) / 1_000_000
WORK_A2 = _SHARE @ (_MEAN_A[1:] ** 2 + _SPREAD_A[1:] ** 2)
"""Mean square of each joint's current at work."""
_UR3_AMBIENT_C = 27.0
_COOL_C = np.array((27.8, 29.3, 29.4, 32.1, 32.3, 32.0)) - _UR3_AMBIENT_C
"""How much warmer than the surroundings a joint without current is: the recording's lowest."""
_RISE_C_PER_A2 = (np.array((9.4, 11.1, 11.4, 11.3, 13.0, 12.7))) / WORK_A2
"""Its rise from there to the plateau, over the mean square that causes it."""

_GRIPS: Floats = np.array(((0.12, 0.10), (0.62, 0.16)))
"""Where in a cycle a piece is gripped and let go, and how long that takes, as shares of it: then a
grip can be lost."""
_SOON_NS = NS_PER_S
"""An answer of the interlock that takes longer is waited for on its own."""
_ROWS = 256
_AHEAD = 64
"""Cycles computed at a time, at most: heartbeats of all that time are kept."""
_STOPPED = frozenset((S.HOLDING, S.HELD, S.UNHOLDING))
_CURRENTS, _TEMPERATURES, _SPEEDS = (
    tuple(f"{what}_j{j}_{unit}" for j in range(JOINTS))
    for what, unit in (("current", "a"), ("temperature", "c"), ("speed", "radps"))
)


class RobotArmSpec(DeviceSpec):
    """Settings of one arm."""

    kind: Literal["robot_arm"] = "robot_arm"
    node: str
    """Where AGVs bring and fetch containers."""
    cycle_min_s: Seconds = 18.0
    """Shortest cycle, without waiting for the interlock."""
    cycle_max_s: Seconds = 24.0
    """Longest cycle without a stop or a lost grip."""
    stop_ratio: Ratio = 0.02
    """Share of cycles with a protective stop."""
    stop_s: Seconds = 40.0
    """Mean time to acknowledge a protective stop."""
    grip_lost_ratio: Ratio = 0.23
    """Share of the other cycles in which the gripper loses the piece and grips again."""
    grip_lost_s: Seconds = 3.2
    """Mean time that takes; the arm waits in its pose."""
    scrap_ratio: Ratio = 0.003
    """Share of pieces spoilt."""
    tool_change_s: Seconds = 300.0
    """Set-up when the next container needs another gripper or trimming tool."""
    input_slots: Count = 3
    """Containers at its input, the one at work and those on their way included."""
    output_slots: Count = 2
    """Full containers that may wait for a vehicle."""
    power_kw: Kilowatts = 1.2
    """Mean draw while it moves; each phase has its share of it."""
    idle_kw: Kilowatts = 0.5
    """Draw while it stands."""
    gravity_a: Amperes = -2.24
    """Standing current of J1; those of all joints scale with it, and so does what heats them."""
    ambient_c: Celsius = 27.0
    """Around the motors."""
    winding_tau_s: Seconds = 2_700.0
    """Time constant of the windings."""

    def settings_problems(self) -> list[str]:
        """The cycle's bounds must be in order."""
        if self.cycle_max_s < self.cycle_min_s:
            return [f"cycle_max_s {self.cycle_max_s:g} is below cycle_min_s {self.cycle_min_s:g}"]
        return []


class Trims:
    """The cycles done, or sure to be done, so far: an array a column, an entry a cycle."""

    __slots__ = ("cycle_ms", "end_ns", "wait_us")

    def __init__(self) -> None:
        self.end_ns = array("q")
        self.cycle_ms = array("q")
        """From asking the interlock to the end, stops included."""
        self.wait_us = array("q")
        """For the interlock's answer."""

    def __len__(self) -> int:
        return len(self.end_ns)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return zip(self.end_ns, self.cycle_ms, self.wait_us, strict=True)

    def log(self, start_ns: Sequence[int], begin_ns: Sequence[int], end_ns: Sequence[int]) -> None:
        """Cycles that asked, began and ended at these times: a few of them."""
        half_ms = NS_PER_MS // 2
        self.end_ns.extend(end_ns)
        self.cycle_ms.extend(
            [(end - t + half_ms) // NS_PER_MS for t, end in zip(start_ns, end_ns, strict=True)]
        )
        self.wait_us.extend(
            [(begin - t + 500) // 1000 for t, begin in zip(start_ns, begin_ns, strict=True)]
        )

    def between(self, after_ns: int, to_ns: int) -> slice:
        """Which ended in ``(after_ns, to_ns]``."""
        return slice(bisect_right(self.end_ns, after_ns), bisect_right(self.end_ns, to_ns))


class Coming:
    """The cycles to come: each has a row of draws of its own, and rows are used in order. Columns
    hold a block of them."""

    def __init__(self, spec: RobotArmSpec, dice: np.random.Generator) -> None:
        self._spec = spec
        self._dice = dice
        self.next = _ROWS
        """The row of the next cycle."""

    def left(self) -> int:
        """How many rows are there; at least one."""
        if self.next == _ROWS:
            self._draw()
        return _ROWS - self.next

    def _draw(self) -> None:
        spec = self._spec
        odds: Floats = self._dice.random((_ROWS, 6)).T
        length, where, again = odds[0], odds[1], odds[2]
        runs_s = spec.cycle_min_s + (spec.cycle_max_s - spec.cycle_min_s) * length
        stops, spoils = odds[3] < spec.stop_ratio, odds[4] < spec.scrap_ratio
        slips = ~stops & (odds[5] < spec.grip_lost_ratio)
        grip: Floats = _GRIPS[(where >= 0.5).astype(np.intp)]
        again_at: Floats = grip[:, 0] + grip[:, 1] * np.mod(2.0 * where, 1.0)
        share = np.where(slips, again_at, where)
        again_ns = np.maximum(_ns(-spec.grip_lost_s * np.log1p(-again)), 1)
        runs_ns, grips_ns = _ns(runs_s), np.where(slips, again_ns, 0)
        self.runs_ns: list[int] = runs_ns.tolist()
        """How long each moves."""
        self.breaks_ns: list[int] = np.rint(share * runs_ns).astype(np.int64).tolist()
        """How far into the movement it is interrupted, if it is."""
        self.grips_ns: list[int] = grips_ns.tolist()
        """How long it takes to grip again; 0 if the grip is not lost."""
        self.takes_ns: list[int] = (runs_ns + grips_ns).tolist()
        """How long it takes, but for a protective stop."""
        self.stops: list[bool] = stops.tolist()
        """Whether a protective stop comes."""
        self.spoils: list[bool] = spoils.tolist()
        self.next = 0


def _ns(seconds: Floats) -> Ints:
    return np.rint(seconds * NS_PER_S).astype(np.int64)


class RobotArm(FedUnit):
    """Trims each piece of each container it is given.

    A cycle is uniform between its bounds, plus the interlock's round trip over the link; in
    ``stop_ratio`` of all cycles a protective stop of ``stop_s`` on average, which somebody has to
    acknowledge, and in ``grip_lost_ratio`` of the others a lost grip of ``grip_lost_s`` on average,
    which the arm mends itself: with the defaults, at work, in 3.3 % of the time. Cycles between
    stops are computed at a time; each asks the interlock when the one before it is over.
    """

    channels: Mapping[str, str] = {
        "state": "PackML", "produced": "1", "scrap": "1", "energy_kwh": "kWh",
        "co2_kg_per_kwh": "kg/kWh", "phase": "1", "protective_stop": "1", "grip_lost": "1",
        **dict.fromkeys(_CURRENTS, "A"), **dict.fromkeys(_TEMPERATURES, "degC"),
        **dict.fromkeys(_SPEEDS, "rad/s"),
        "cycle_s": "s", "wait_s": "s", "bin": "1", "count": "1", "down": "1", **SERVICE_CHANNELS,
        **LOT_CHANNELS,
    }  # fmt: skip

    def __init__(self, spec: RobotArmSpec, floor: Floor) -> None:
        self.spec = spec
        super().__init__(spec, floor)
        now = self.env.now
        self.node = spec.node
        self.control = floor.control(self.asset)
        watts = spec.power_kw * 1000 / _SCALE
        phases = [Phase(ppm, round(watts * weight)) for _, ppm, weight in PHASES]
        self.phases = Cycles(now, self.watts(S.STOPPED), phases)
        self.energy = self.phases
        self.produced = Steps(now, 0)
        self.scrap = Steps(now, 0)
        self.grip_lost = Steps(now, 0)
        """1 while it grips a piece again that it had lost."""
        self.cycles = Trims()
        self.lanes(spec.input_slots, spec.output_slots, Bell(self.env))
        self._step = 1
        """Steps done with a piece that it has trimmed."""
        identity = crc32(self.path.encode())
        self._rows = Coming(spec, np.random.default_rng([floor.seed, identity, 2]))
        self._scale = spec.gravity_a / _REST_A[1]
        self._windings = self._warmth()

    def _warmth(self) -> Warmth:
        spec, cold = self.spec, self.spec.ambient_c + _COOL_C
        rise = _RISE_C_PER_A2 * self._scale**2
        work, rest = cold + rise * WORK_A2, cold + rise * np.square(_REST_A)
        return Warmth(self.phases, cold, work, rest, spec.winding_tau_s, spec.winding_tau_s)

    def watts(self, state: S) -> int:
        """What it draws while it stands."""
        return round(self.spec.idle_kw * 1000)

    def run(self) -> Process:
        """Work off container after container."""
        tool: str | None = None  # the first one is on the arm already
        yield from self.rest()
        yield from self._start_up()
        while True:
            yield from self.await_outside(lambda: bool(self._input), self._bell, self._start_up)
            yield self.env.timeout(ns(SWAP_S))
            container = self.floor.dispatch.choose(self, self._input)
            self._input.remove(container)
            self._step = container.step + 1
            self._at_work = container.entered_ns
            order, step = container.order, container.order.steps[container.step]
            changes, tool = tool not in (None, step.tool), step.tool
            self.register(order, step.pri_s, self.spec.tool_change_s if changes else 0.0)
            if changes:
                yield from self._change_tool()
            while self._at_work:
                yield from self._trim(order)
            if not any(c.order is order and c.step + 1 == self._step for c in self._input):
                self.output.close()
            self.floor.fleet.dispatch()

    def _change_tool(self) -> Process:
        yield from self.pace(S.COMPLETING, 1.0)
        yield from self.pace(S.COMPLETE, 1.0)
        self.enter(S.RESETTING)
        yield from self.floor.operators.fetch("set_up")
        yield self.env.timeout(ns(self.spec.tool_change_s))
        self.floor.operators.release("set_up")
        yield from self._start()

    def _start_up(self) -> Process:
        yield from self.pace(S.RESETTING, 10.0)
        yield from self._start()

    def _start(self) -> Process:
        yield from self.pace(S.IDLE, 1.0)
        yield from self.pace(S.STARTING, 5.0)
        self.enter(S.EXECUTE)

    def _trim(self, order: Order) -> Process:
        """Trim pieces up to the first thing that ends the run of cycles."""
        yield from self.await_outside(
            lambda: self.output.room(order, self._step), self.output.bell, self._start_up
        )
        # of a cycle that asks now: it might not end in time
        last_ns = self.env.now + self.planned_left_ns() - ns(self.spec.cycle_max_s)
        if last_ns < self.env.now:
            yield from self.pace(S.STOPPING, 5.0)
            self.enter(S.STOPPED)
            yield self.env.timeout(self.planned_left_ns())
            yield from self.rest()
            yield from self._start_up()
            return
        self.output.begin(order, self._step)
        rows, left = self._rows, self.output.left(order, self._step)
        most = min(rows.left(), len(self._at_work), _AHEAD)
        row, spoils, takes_ns = rows.next, rows.spoils, rows.takes_ns
        starts, begins = [self.env.now], list[int]()
        late: Process | None = None
        spoilt = False  # a loss may end the order: nobody may know of it before it happens
        for wait_ns in self._waits(most):
            if rows.stops[row] or spoilt or not left or starts[-1] > last_ns:
                break
            begins.append(starts[-1] + wait_ns)
            starts.append(begins[-1] + takes_ns[row])
            spoilt = spoils[row]
            left -= not spoilt
            row += 1
        self._asked(starts[:-1])
        while left and not spoilt and starts[-1] <= last_ns and len(begins) < most:
            answer = self._ask(starts[-1])
            if not isinstance(answer, int):
                late = answer
                break
            if rows.stops[row]:
                late = self._wait(answer)
                break
            begins.append(answer)
            starts.append(answer + takes_ns[row])
            spoilt = spoils[row]
            left -= not spoilt
            row += 1
        done = slice(rows.next, row)
        rows.next = row
        if begins:
            self._log(starts, begins, done)
        yield self.env.timeout(starts[-1] - self.env.now)
        self._deliver(order, spoils[done])
        if late is not None:
            rows.next += 1
            yield from late
            yield from self._trim_one(order, starts[-1], row)

    def _log(self, starts: list[int], begins: list[int], done: slice) -> None:
        """Book cycles, most of them ahead of time: when each asked and began, the last start being
        the end of the last one."""
        self._log_motion(begins, done)
        self.cycles.log(starts[:-1], begins, starts[1:])
        self.produced.add_many(starts[1:])

    def _log_motion(self, begin_ns: Sequence[int], which: slice) -> None:
        """How cycles without a stop move from these times on: one whose grip was lost in two
        parts."""
        rows, parts, lost = self._rows, list[int](), self.grip_lost
        columns = (rows.runs_ns[which], rows.breaks_ns[which], rows.grips_ns[which])
        for begin, run_ns, break_ns, grip_ns in zip(begin_ns, *columns, strict=True):
            if not grip_ns:
                parts += (begin, 0, run_ns, run_ns)
                continue
            lost_ns = begin + break_ns
            again_ns = lost_ns + grip_ns
            if break_ns:
                parts += (begin, 0, break_ns, run_ns)
            if run_ns > break_ns:
                parts += (again_ns, break_ns, run_ns - break_ns, run_ns)
            lost.set(lost_ns, 1)
            lost.set(again_ns, 0)
        self.phases.log_rows(parts)

    def _trim_one(self, order: Order, start_ns: int, row: int) -> Process:
        """A cycle that asked at a time and has its answer now, on its own."""
        rows, begin_ns = self._rows, self.env.now
        which = slice(row, row + 1)
        if not rows.stops[row]:
            self._log_motion((begin_ns,), which)
            yield self.env.timeout(rows.takes_ns[row])
        else:
            runs_ns, stop_ns = rows.runs_ns[row], rows.breaks_ns[row]
            self.phases.log_part(begin_ns, stop_ns, runs_ns)
            yield self.env.timeout(stop_ns)
            yield from self.pace(S.HOLDING, 0.5)
            yield from self.pace(S.HELD, self.dice.exponential(self.spec.stop_s))
            yield from self.pace(S.UNHOLDING, 1.0)
            self.enter(S.EXECUTE)
            self.phases.log_part(self.env.now, runs_ns - stop_ns, runs_ns, stop_ns)
            yield self.env.timeout(runs_ns - stop_ns)
        now = self.env.now
        self.cycles.log((start_ns,), (begin_ns,), (now,))
        self.produced.add(now)
        self._deliver(order, rows.spoils[which])

    def _deliver(self, order: Order, spoilt: Sequence[bool]) -> None:
        """Pieces are done, and only the last of them may be spoilt: the others go to the output
        lane."""
        pieces = [self._at_work.popleft() for _ in spoilt]
        if spoilt and spoilt[-1]:
            del pieces[-1]
            self.scrap.add(self.env.now)
            self.floor.flow.lose(self.env.now, self.floor.flow.production_loss, order)
        self.output.put_many(order, pieces, self._step)

    def _waits(self, most: int) -> Iterator[int]:
        """How long the next questions to the interlock will take, as far as that is known now and
        none takes long."""
        up, down = self.control.up, self.control.down
        if isinstance(up, CalmLane) and isinstance(down, CalmLane):
            ups, downs = (lane.ahead(most, INTERLOCK_BYTES) for lane in (up, down))
            for up_ns, down_ns in zip(ups, downs, strict=True):
                if not (0 <= up_ns <= _SOON_NS and 0 <= down_ns <= _SOON_NS):
                    return
                yield up_ns + down_ns

    def _asked(self, t_ns: Sequence[int]) -> None:
        """Ask at times as foreseen."""
        up, down = self.control.up, self.control.down
        if len(t_ns) and isinstance(up, CalmLane) and isinstance(down, CalmLane):
            down.send_in_turn(up.send_in_turn(t_ns, INTERLOCK_BYTES), INTERLOCK_BYTES)

    def _ask(self, t_ns: int) -> int | Process:
        """Ask the interlock at a time, now or later: when its answer is there, or, if that takes
        long, how to wait for it from that time on."""
        up_ns = self.control.up.send(t_ns, INTERLOCK_BYTES)
        if up_ns is None or up_ns - t_ns > _SOON_NS:
            return self._late_request(t_ns, up_ns)
        down_ns = self.control.down.send(up_ns, INTERLOCK_BYTES)
        if down_ns is None or down_ns - up_ns > _SOON_NS:
            return self._late(self.control.down, up_ns, down_ns)
        return down_ns

    def _late_request(self, sent_ns: int, arrival_ns: int | None) -> Process:
        yield from self._late(self.control.up, sent_ns, arrival_ns)
        yield from arrive(self.env, self.control.down, INTERLOCK_BYTES)

    def _late(self, lane: Lane, sent_ns: int, arrival_ns: int | None) -> Process:
        """Wait for a message that was sent; a lost one is sent again."""
        if arrival_ns is None:
            yield from self._wait(sent_ns + RETRY_NS)
            yield from arrive(self.env, lane, INTERLOCK_BYTES)
        else:
            yield from self._wait(arrival_ns)

    def _wait(self, t_ns: int) -> Process:
        yield self.env.timeout(t_ns - self.env.now)

    def first_reports(self, t_ns: int) -> list[Report]:
        """State and counters at the start."""
        state = (self.state.get(t_ns),)
        ch: dict[str, Sequence[float | int | None]] = {
            "state": state, "produced": (0,), "scrap": (0,), "energy_kwh": (0.0,), "phase": (0,),
            "protective_stop": (0,), "grip_lost": (0,),
        }  # fmt: skip
        for j, now_c in enumerate(self._windings.now_c.tolist()):
            ch[_CURRENTS[j]] = (round(self._scale * _REST_A[j], 2),)
            ch[_TEMPERATURES[j]] = (round(now_c, 1),)
            ch[_SPEEDS[j]] = (0.0,)
        return [
            self.state_report(t_ns),
            Columns(self.asset, "process", t_ns, (t_ns,), ch),
            *self.control.first_reports(t_ns),
        ]

    def reports(self, stretch: Stretch) -> list[Report]:
        """States and cycles at once, signals and delay histograms by the pane; without samples the
        energy now and then, and troubles as they come and go."""
        signals: Mapping[str, Sequence[float | int | None]] = {}
        if not stretch.bundled:  # else nobody ever asks how warm it is
            windings = self._windings.follow(stretch)
            signals = self._signals(stretch.times, windings) if len(stretch.times) else {}
        return [
            *self.state_reports(stretch), *self.process_reports(stretch, signals),
            *self.counter_reports(stretch, self._told, self.grip_lost),
            *self._cycle_reports(stretch),
            *self.control.reports(stretch),
        ]  # fmt: skip

    def _signals(self, times: Times, windings: Floats) -> dict[str, Sequence[float | int | None]]:
        phase, energy = self.phases.follow(times)
        state = self.state.told(times)
        stray, swing = self.noise.standard_normal((len(times), 2, JOINTS)).swapaxes(0, 1)
        current = self._scale * (_MEAN_A[phase] + _SPREAD_A[phase] * stray)
        speed = _SPREAD_RADPS[phase] * swing
        speed = np.minimum(np.maximum(speed, -_FASTEST_RADPS), _FASTEST_RADPS)
        ch: dict[str, Sequence[float | int | None]] = {
            "state": state,
            "produced": self.produced.told(times),
            "energy_kwh": on_grid(energy, 100_000),
            "phase": phase.tolist(),
            **self._troubles(times, state),
        }
        ch.update(zip(_CURRENTS, rows_rounded(current.T, 2), strict=True))
        ch.update(zip(_TEMPERATURES, rows_rounded(windings, 1), strict=True))
        ch.update(zip(_SPEEDS, rows_rounded(speed.T, 3), strict=True))
        return ch

    def _told(self, times: Times) -> dict[str, Sequence[float | int | None]]:
        energy = on_grid(self.energy.at(times), 100_000)
        return {"energy_kwh": energy, **self._troubles(times, self.state.told(times))}

    def _troubles(self, times: Times, state: Sequence[int]) -> dict[str, Sequence[int]]:
        stopped = [int(now in _STOPPED) for now in state]
        return {"protective_stop": stopped, "grip_lost": self.grip_lost.told(times)}

    def _cycle_reports(self, stretch: Stretch) -> list[Report]:
        which = self.cycles.between(stretch.after_ns, stretch.to_ns)
        ends_ns = self.cycles.end_ns[which].tolist()
        times = np.array(ends_ns, dtype=np.int64)
        ch: dict[str, Sequence[float | int | None]] = {
            "produced": self.produced.told(times),
            "scrap": self.scrap.told(times),
            "cycle_s": [ms / 1000 for ms in self.cycles.cycle_ms[which]],
            "wait_s": [us / 1_000_000 for us in self.cycles.wait_us[which]],
        }
        return event_reports(self.asset, "event", stretch, ends_ns, ch)


MODEL = (RobotArmSpec, RobotArm)
