r"""A cable line at the speed that central control sets over the link; trips, reels, and its loop.

Theory of operation
===================

    speed
     full |        ________              ________
          |       /        \            /        \
     safe |      /          \__________/          \      loop open: safe speed
        0 |_____/                                  \___   trip, reel, order done, planned stop
            ask  STARTING EXECUTE ......... EXECUTE  ...ING

Speed is piecewise linear and length its exact integral, so an opening of the loop of ``g`` seconds
costs ``min(ramp * g, full - safe) * g`` metres, neither drawn nor looked up. In each piece the line
knows when its motion leads it to the end of its reel, its order or its planned time (when braking
from its present speed brings it there), and it looks ahead in the loop no further than that.
"""

from bisect import bisect_right
from collections.abc import Generator, Mapping, Sequence
from enum import Enum
from math import exp, inf, sqrt
from typing import Annotated, Any, ClassVar, Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from simpy import Event

from config.units import NS_PER_S, Kilowatts, MetresPerSecond, Milliseconds, Ratio, Seconds
from ingest.messages import Floats, Times
from ingest.packml import Mode
from ingest.packml import PackML as S
from simulator.device import (
    SCAN_NS,
    Acceleration,
    Columns,
    DeviceSpec,
    Ints,
    Kilonewtons,
    Length,
    Millimetres,
    Process,
    Report,
    Unit,
    ns,
    on_grid,
    rounded,
    span,
)
from simulator.plant.control import SERVICE_CHANNELS
from simulator.plant.floor import Floor
from simulator.plant.speed_loop import SpeedLoop

Flags = NDArray[np.bool_]


class CableLineSpec(DeviceSpec):
    """Settings of one line. By default it is the article's headline line, some 0.9 m/s over planned
    time; a high-voltage line runs at a fiftieth of that."""

    kind: Literal["cable_line"] = "cable_line"
    speed_mps: MetresPerSecond = 1.12
    """Line speed while it runs and central control hears it and is heard."""
    safe_speed_ratio: Annotated[float, Field(gt=0, le=1, json_schema_extra={"unit": "ratio"})] = 0.5
    """Share of the line speed at which the diameter holds without control."""
    watchdog_ms: Milliseconds = 600.0
    """Silence of the other end after which the line, or control for it, takes the safe speed."""
    ramp_mps2: Acceleration = 0.05
    """Acceleration and deceleration."""
    mtbf_s: Seconds = 2_700.0
    """Mean running time between trips."""
    mttr_s: Seconds = 240.0
    """Mean time to clear a trip."""
    reel_m: Length = 2_500.0
    """Length on a pay-off reel."""
    reel_change_s: Seconds = 150.0
    """Time to change it."""
    restart_scrap_m: Length = 25.0
    """Metres after every start that are scrap."""
    set_up_s: Seconds = 300.0
    """Set-up for an order."""
    reset_s: Seconds = 60.0
    """Set-up after a planned stop."""
    power_kw: Kilowatts = 180.0
    """Draw while the cable moves."""
    standby_kw: Kilowatts = 45.0
    """Draw while it stands."""
    diameter_mm: Millimetres = 62.0
    """Outer diameter."""
    diameter_lsl_mm: Millimetres = 61.5
    """Lower specification limit of the diameter."""
    diameter_usl_mm: Millimetres = 62.5
    """Upper specification limit of the diameter."""
    tension_kn: Kilonewtons = 8.0
    """Capstan tension at full speed."""
    spark_faults_per_km: Annotated[float, Field(ge=0, json_schema_extra={"unit": "1/km"})] = 0.1
    """Faults that the spark tester finds, on the mean."""
    eccentricity_ratio: Ratio = 0.04
    """Mean eccentricity of the insulation, wall to wall."""
    eccentricity_sd_ratio: Ratio = 0.006
    """Its standard deviation in the long run."""
    eccentricity_tau_s: Seconds = 300.0
    """Time in which a deviation falls to 37 %, while the line moves."""

    def settings_problems(self) -> list[str]:
        """Limits must be in order."""
        low, high = self.diameter_lsl_mm, self.diameter_usl_mm
        if low >= high:
            return [f"diameter: lower limit {low:g} is not below the upper {high:g}"]
        return []


MOVING = (S.EXECUTE, S.STARTING, S.HOLDING, S.UNHOLDING, S.SUSPENDING, S.UNSUSPENDING, S.STOPPING,
          S.COMPLETING)  # fmt: skip
_MM = 1_000
_DIAMETER, _ECCENTRICITY = 100, 10_000
"""Steps of the gauges: a hundredth of a millimetre, a hundredth of a per cent."""
_NEVER_S = 3.2e9
_AHEAD_NS = 60 * NS_PER_S
"""How far a line looks ahead in its loop."""


class Path:
    """Length as the exact integral of a piecewise linear speed, and how much of it is scrap."""

    def __init__(self, t_ns: int) -> None:
        self._t = [t_ns]
        self._length = [0.0]
        self._speed = [0.0]
        self._slope = [0.0]
        self._starts = [0.0]
        self._scrap = [0.0]

    def set(self, t_ns: int, speed: float, slope: float) -> None:
        """From ``t_ns`` on the speed is ``speed`` and changes by ``slope`` per second."""
        length = self.length_m(t_ns)
        self._t.append(t_ns)
        self._length.append(length)
        self._speed.append(speed)
        self._slope.append(slope)

    def length_m(self, t_ns: int) -> float:
        """Metres at a time at or after the last change."""
        dt = (t_ns - self._t[-1]) / NS_PER_S
        return self._length[-1] + self._speed[-1] * dt + 0.5 * self._slope[-1] * dt * dt

    def speed_mps(self, t_ns: int) -> float:
        """Speed at a time at or after the last change."""
        return self._speed[-1] + self._slope[-1] * (t_ns - self._t[-1]) / NS_PER_S

    @property
    def slope_mps2(self) -> float:
        """How the speed changes since the last change."""
        return self._slope[-1]

    def restart(self, scrap_m: float) -> None:
        """A start at the last change: the metres from here are scrap at first."""
        start = self._length[-1]
        spoilt = min(start - self._starts[-1], scrap_m) if len(self._starts) > 1 else 0.0
        self._starts.append(start)
        self._scrap.append(self._scrap[-1] + spoilt)

    def good_m(self, t_ns: int, scrap_m: float) -> float:
        """Good metres at a time at or after the last change."""
        length = self.length_m(t_ns)
        return length - float(self.scrap(np.array([length]), scrap_m)[0])

    def length_at_good_m(self, good_m: float, scrap_m: float) -> float:
        """The length at which so much is good, if the line goes on from its last start."""
        return good_m + self._scrap[-1] + (scrap_m if len(self._starts) > 1 else 0.0)

    def motion(self, times: Times) -> tuple[Floats, Floats]:
        """Length and speed at ascending times."""
        low = max(bisect_right(self._t, int(times[0])) - 1, 0)
        high = max(bisect_right(self._t, int(times[-1])), low + 1)
        since = np.array(self._t[low:high], dtype=np.int64)
        index = np.maximum(np.searchsorted(since, times, side="right") - 1, 0)
        dt = (times - since[index]) / NS_PER_S
        length = np.array(self._length[low:high])[index]
        speed, slope = (
            np.array(self._speed[low:high])[index],
            np.array(self._slope[low:high])[index],
        )
        return length + dt * (speed + 0.5 * slope * dt), speed + slope * dt

    def scrap(self, length: Floats, scrap_m: float) -> Floats:
        """How much of a length is scrap."""
        starts = np.array(self._starts)
        index = np.maximum(np.searchsorted(starts, length, side="right") - 1, 0)
        since = np.where(index > 0, np.minimum(length - starts[index], scrap_m), 0.0)
        return np.array(self._scrap)[index] + since


def seconds_to(distance: float, speed: float, slope: float) -> float:
    """How long a motion takes for a distance; infinite if it stands before."""
    if distance <= 0.0:
        return 0.0
    square = speed * speed + 2.0 * slope * distance
    if square < 0.0:
        return inf
    both = speed + sqrt(square)
    return 2.0 * distance / both if both > 0.0 else inf


def whole_ns(seconds: float) -> int:
    """Seconds as whole nanoseconds; never below zero, and what never comes is a century away."""
    return ns(min(max(seconds, 0.0), _NEVER_S))


class End(Enum):
    """Why the line stops."""

    TRIP = 0
    ORDER = 1
    REEL = 2
    PLAN = 3


class CableLine(Unit):
    """Draws cable until its orders are done.

    It runs at ``speed_mps`` while its speed loop is closed and at ``safe_speed_ratio`` of it while
    not, with ``ramp_mps2`` between them; each start waits for a round trip to central control. It
    is STARTING until it has the safe speed, then EXECUTE at any speed.

    Trips come as a Poisson process over running time, a reel change after every ``reel_m`` metres.
    Length is the exact integral of the speed, to the millimetre; each start spoils
    ``restart_scrap_m`` metres. Energy is the exact integral of a power that is constant in each
    state. The diameter is not controlled over the link: its gauge looks at it 20 to 50 m behind the
    head, and against a dead time of half a minute no link delay would show.

    Spark faults lie on the cable as a Poisson process over its metres, good or not. Diameter and
    eccentricity are AR(1) processes over the seconds in which the line moves (the diameter with a
    time constant of 60 s and a deviation of 0.11 mm); while it stands the gauges read nothing.
    """

    channels: ClassVar[Mapping[str, str]] = {
        "state": "PackML", "mode": "1", "length_m": "m", "scrap_m": "m", "energy_kwh": "kWh",
        "co2_kg_per_kwh": "kg/kWh", "speed_mps": "m/s", "diameter_mm": "mm", "tension_kn": "kN",
        "spark_faults": "1", "eccentricity_ratio": "1",
        "bin": "1", "count": "1", "down": "1", **SERVICE_CHANNELS,
    }  # fmt: skip

    def __init__(self, spec: CableLineSpec, floor: Floor) -> None:
        self.spec = spec
        super().__init__(spec, floor)
        self.control = floor.control(self.asset)
        self.loop = SpeedLoop(self.env, self.control, spec.watchdog_ms)
        self._safe_mps = spec.speed_mps * spec.safe_speed_ratio
        self._path = Path(self.env.now)
        self._orders = floor.plant.orders_of(spec.name)
        self._until_trip_ns = ns(self.dice.exponential(spec.mtbf_s))
        self._reel_end_m = spec.reel_m
        """Length of cable at which the reel on the pay-off is used up."""
        identity = crc32(self.path.encode())
        self._flaws = np.random.default_rng([floor.seed, identity, 2])
        """Where on the cable the spark tester finds something."""
        self._fault_mm: Ints = np.empty(0, dtype=np.int64)
        self._wall = np.random.default_rng([floor.seed, identity, 3])
        self._diameter_mm = 0.0
        self._off_centre = float(self._wall.standard_normal())
        """Deviation of the eccentricity, in standard deviations."""
        self.gauged: list[tuple[Times, Ints, Ints]] = []
        """What the gauges read so far: times, diameter and eccentricity, in their steps."""

    @property
    def limits(self) -> Mapping[str, tuple[float, float]]:
        """Of the diameter."""
        return {"diameter_mm": (self.spec.diameter_lsl_mm, self.spec.diameter_usl_mm)}

    def watts(self, state: S) -> int:
        """Moving or not."""
        return round((self.spec.power_kw if state in MOVING else self.spec.standby_kw) * 1000)

    def length_mm(self, times: Times) -> Ints:
        """Length made, good or not, in whole millimetres."""
        return np.floor(self._path.motion(times)[0] * _MM + 1e-6).astype(np.int64)

    def scrap_mm(self, times: Times) -> Ints:
        """Length spoilt, in whole millimetres."""
        length = self._path.motion(times)[0]
        spoilt = self._path.scrap(length, self.spec.restart_scrap_m)
        return np.floor(spoilt * _MM + 1e-6).astype(np.int64)

    def spark_faults(self, times: Times) -> Ints:
        """Faults on the length made."""
        length_mm = self.length_mm(times)
        per_mm = self.spec.spark_faults_per_km / 1_000_000
        while per_mm and (not len(self._fault_mm) or self._fault_mm[-1] <= length_mm[-1]):
            last_mm = self._fault_mm[-1] if len(self._fault_mm) else 0
            gaps = np.ceil(self._flaws.exponential(1.0 / per_mm, 64)).astype(np.int64)
            self._fault_mm = np.concatenate((self._fault_mm, last_mm + np.cumsum(gaps)))
        found = np.searchsorted(self._fault_mm, length_mm, side="right")
        return np.asarray(found, dtype=np.int64)

    def run(self) -> Process:
        """Make order after order; then idle."""
        for order in self._orders:
            yield from self.rest()
            self.register(order, order.pri_s, self.spec.set_up_s)
            self.mode.set(self.env.now, Mode.SETUP)
            target_m = order.quantity + self._path.good_m(self.env.now, self.spec.restart_scrap_m)
            yield from self._start_up(self.spec.set_up_s)
            while (end := (yield from self._draw(target_m))) is not End.ORDER:
                yield from self._interrupt(end)
            yield from self._ramp_down(S.COMPLETING)
            yield from self.pace(S.COMPLETE, 1.0)
        yield from self.stand_by(self.spec.reset_s)

    def _interrupt(self, end: End) -> Process:
        """Stand, put right what ended the run, and start again."""
        spec = self.spec
        if end is End.REEL:
            yield from self._ramp_down(S.SUSPENDING)
            yield from self.pace(S.SUSPENDED, spec.reel_change_s)
            self._reel_end_m = self._path.length_m(self.env.now) + spec.reel_m
            yield from self._ramp_up(S.UNSUSPENDING)
        elif end is End.PLAN:
            yield from self._ramp_down(S.STOPPING)
            self.enter(S.STOPPED)
            yield self.env.timeout(self.planned_left_ns())
            yield from self.rest()
            yield from self._start_up(spec.reset_s)
        else:
            yield from self._ramp_down(S.HOLDING)
            yield from self.pace(S.HELD, self.dice.exponential(spec.mttr_s))
            self._until_trip_ns = ns(self.dice.exponential(spec.mtbf_s))
            yield from self._ramp_up(S.UNHOLDING)

    def _start_up(self, set_up_s: float) -> Process:
        yield from self.pace(S.RESETTING, set_up_s)
        self.mode.set(self.env.now, Mode.PRODUCTION)
        yield from self.pace(S.IDLE, 1.0)
        yield from self._ramp_up(S.STARTING)

    def _ramp_up(self, state: S) -> Process:
        """When control allows it, from standstill to the safe speed, then EXECUTE."""
        yield from self.loop.permission()
        self.enter(state)
        ramp_ns = ns(self._safe_mps / self.spec.ramp_mps2)
        self._path.set(self.env.now, 0.0, self._safe_mps / (ramp_ns / NS_PER_S))
        self._path.restart(self.spec.restart_scrap_m)
        self.loop.look(self.env.now + ramp_ns + SCAN_NS + 1)
        yield self.env.timeout(ramp_ns)
        self._path.set(self.env.now, self._safe_mps, 0.0)
        self.enter(S.EXECUTE)
        self._until_trip_ns -= SCAN_NS
        yield self.env.timeout(SCAN_NS)

    def _ramp_down(self, state: S) -> Process:
        """From the present speed to standstill."""
        self.enter(state)
        speed = self._path.speed_mps(self.env.now)
        ramp_ns = ns(speed / self.spec.ramp_mps2)
        self._path.set(self.env.now, speed, -speed / (ramp_ns / NS_PER_S))
        yield self.env.timeout(ramp_ns)
        self._path.set(self.env.now, 0.0, 0.0)

    def _draw(self, target_m: float) -> Generator[Event, Any, End]:
        """Draw cable at the speed the loop allows until something ends it."""
        spec, env, path = self.spec, self.env, self._path
        speed = path.speed_mps(env.now)
        while True:
            goal = spec.speed_mps if self.loop.is_closed() else self._safe_mps
            reach_ns = ns(abs(goal - speed) / spec.ramp_mps2)
            slope = (goal - speed) / (reach_ns / NS_PER_S) if reach_ns else 0.0
            path.set(env.now, speed if reach_ns else goal, slope)
            ends = self._ends_ns(target_m)
            end = min(ends, key=ends.__getitem__)
            known_ns = self._undisturbed_ns(target_m)
            waits = [ends[end], known_ns] + ([reach_ns] if reach_ns else [])
            change_ns = self.loop.change_ns(env.now + known_ns)
            if change_ns is not None:
                waits.append(change_ns - env.now)
            wait_ns = min(waits)
            yield env.timeout(wait_ns)
            self._until_trip_ns -= wait_ns
            if wait_ns == ends[end]:
                return end
            speed = goal if wait_ns == reach_ns else path.speed_mps(env.now)

    def _ends_ns(self, target_m: float) -> dict[End, int]:
        """How long the present motion takes to each reason to stop. Where the line must stand at a
        certain length or time, that is when it must begin to brake."""
        brake = self.spec.ramp_mps2
        path, now = self._path, self.env.now
        speed, slope = path.speed_mps(now), path.slope_mps2
        left_m = self._reel_end_m - path.length_m(now) - speed * speed / (2.0 * brake)
        left_s = self.planned_left_ns() / NS_PER_S - speed / brake
        # Speeding up, it comes nearer twice as fast: by what it drives, and by what its way to
        # stand grows. Slowing down it does not come nearer at all.
        if slope > 0.0:
            reel_s, plan_s = seconds_to(left_m / 2.0, speed, slope), left_s / 2.0
        elif slope < 0.0:
            reel_s, plan_s = (inf if left > 0.0 else 0.0 for left in (left_m, left_s))
        else:
            reel_s, plan_s = seconds_to(left_m, speed, 0.0), left_s
        return {
            End.TRIP: max(self._until_trip_ns, 0),
            End.ORDER: whole_ns(seconds_to(self._order_left_m(target_m), speed, slope)),
            End.REEL: whole_ns(reel_s),
            End.PLAN: whole_ns(plan_s),
        }

    def _order_left_m(self, target_m: float) -> float:
        """Metres to draw until the order has its good ones."""
        path, now, scrap_m = self._path, self.env.now, self.spec.restart_scrap_m
        if path.good_m(now, scrap_m) >= target_m - 1e-9:
            return 0.0
        return path.length_at_good_m(target_m, scrap_m) - path.length_m(now)

    def _undisturbed_ns(self, target_m: float) -> int:
        """How long at least, whatever the loop does, until the line stands and asks for a
        permission; no further than it looks ahead."""
        full = self.spec.speed_mps
        reel_s = (self._reel_end_m - self._path.length_m(self.env.now)) / full
        order_s = self._order_left_m(target_m) / full
        within = (self._until_trip_ns, self.planned_left_ns(), whole_ns(reel_s), whole_ns(order_s))
        return min(max(min(within), 0) + SCAN_NS, _AHEAD_NS)

    def first_reports(self, t_ns: int) -> list[Report]:
        """State and counters at the start."""
        state = (self.state.get(t_ns),)
        return [
            self.state_report(t_ns),
            Columns(self.asset, "process", t_ns, (t_ns,), {
                "state": state, "length_m": (0.0,), "scrap_m": (0.0,), "energy_kwh": (0.0,),
                "speed_mps": (0.0,), "diameter_mm": (None,), "tension_kn": (0.0,),
                "spark_faults": (0,), "eccentricity_ratio": (None,),
            }),
            *self.control.first_reports(t_ns),
        ]  # fmt: skip

    def reports(self, times: Times) -> list[Report]:
        """States at once, signals and delay histograms by the pane."""
        spec = self.spec
        noise = self.noise.standard_normal((len(times), 3))
        _, speed = self._path.motion(times)
        moving = speed > 0.0
        diameter, eccentricity = self._gauge(times, moving, noise[:, 0])
        measured = np.where(moving, speed + 0.004 * noise[:, 1], 0.0)
        tension = spec.tension_kn * (0.3 + 0.7 * speed / spec.speed_mps)
        ch: dict[str, Sequence[float | int | None]] = {
            "state": self.state.at(times).tolist(),
            "length_m": on_grid(self.length_mm(times), _MM),
            "scrap_m": on_grid(self.scrap_mm(times), _MM),
            "energy_kwh": on_grid(self.energy.at(times), 100_000),
            "speed_mps": rounded(np.maximum(measured, 0.0), 3),
            "diameter_mm": diameter,
            "tension_kn": rounded(tension + 0.05 * noise[:, 2], 2),
            "spark_faults": self.spark_faults(times).tolist(),
            "eccentricity_ratio": eccentricity,
        }
        return [
            *self.state_reports(times), *self.process_reports(times, ch),
            *self.control.reports(*span(times)),
        ]  # fmt: skip

    def _gauge(
        self, times: Times, moving: Flags, steps: Floats
    ) -> tuple[list[float | None], list[float | None]]:
        """Read both gauges, once a second."""
        spec = self.spec
        keeps = exp(-1.0 / spec.eccentricity_tau_s)
        fresh = sqrt(1.0 - keeps * keeps)
        drift: list[float] = []
        off: list[float] = []
        pushes = self._wall.standard_normal(len(times)).tolist()
        for runs, step, push in zip(moving.tolist(), steps.tolist(), pushes, strict=True):
            if runs:
                self._diameter_mm += -self._diameter_mm / 60.0 + 0.02 * step
                self._off_centre = keeps * self._off_centre + fresh * push
            drift.append(self._diameter_mm)
            off.append(self._off_centre)
        ratio = spec.eccentricity_ratio + spec.eccentricity_sd_ratio * np.array(off)
        diameter = np.rint((spec.diameter_mm + np.array(drift)) * _DIAMETER).astype(np.int64)
        eccentricity = np.rint(np.maximum(ratio, 0.0) * _ECCENTRICITY).astype(np.int64)
        self.gauged.append((times[moving], diameter[moving], eccentricity[moving]))
        return (
            _shown(on_grid(diameter, _DIAMETER), moving),
            _shown(on_grid(eccentricity, _ECCENTRICITY), moving),
        )


def _shown(values: list[float], moving: Flags) -> list[float | None]:
    return [v if runs else None for v, runs in zip(values, moving.tolist(), strict=True)]


MODEL = (CableLineSpec, CableLine)
