r"""A cable line: drawn at the speed central control sets over the link, gauged, reel after reel.

Theory of operation
===================

    pay-offs          head             gauge          capstan      take-up
      O──dancer──┐  extruders            |                |
      O──dancer──┼─────►▼═══════════════╪════════════════╪════►   O
      O──dancer──┤      ▲<── gauge_m ──►|
      O──dancer──┘      └── trim ◄──────┘  over the link

    speed
     full |        ________              ________
          |       /        \            /        \
     safe |      /          \__________/          \      loop open, or derated after an alarm
        0 |_____/                                  \___   trip, reel, order done, planned stop
            ask  STARTING EXECUTE ......... EXECUTE  ...ING

Speed is piecewise linear and length its exact integral, so an opening of the loop of ``g`` seconds
costs ``min(ramp * g, full - safe) * g`` metres, neither drawn nor looked up. In each piece the line
knows when its motion leads it to the end of a reel, its order or its planned time (when braking
from its present speed brings it there), and it looks ahead in the loop no further than that. What
the cable is like belongs to its metres (see ``gauge_loop``), so it does not depend on how often
anybody looks. What is put on is what there is: kg/h = density x area x speed.

A line with a curing tube runs no faster than its insulation cures. The wall at the conductor is
heated through the insulation from outside (thickness ``s``, diffusivity ``a``), so the time to its
curing temperature is ``4 s^2 / (pi^2 a) * ln(4/pi * (tube - start) / (tube - cured))``, and it
starts between melt and conductor. A post-heater makes the conductor hotter and the time shorter.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from enum import Enum
from math import ceil, inf, log, pi
from typing import Annotated, Any, Literal, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from simpy import Event

from config.errors import ConfigError
from config.units import NS_PER_S, Kilowatts, MetresPerSecond, Milliseconds, Ratio, Seconds
from ingest.messages import Floats, Times
from ingest.packml import Mode
from ingest.packml import PackML as S
from simulator.device import (
    SCAN_NS,
    Acceleration,
    Celsius,
    Columns,
    Count,
    DeviceSpec,
    Ints,
    Kilonewtons,
    Length,
    Millimetres,
    Process,
    Report,
    Steps,
    Stretch,
    Unit,
    ns,
    on_grid,
    rounded,
    rows_rounded,
)
from simulator.plant.control import SERVICE_CHANNELS
from simulator.plant.floor import Floor
from simulator.plant.gauge_loop import Band, Fault, GaugeLoop, drift
from simulator.plant.path import Path, seconds_to, whole_ns
from simulator.plant.reels import ReelStore
from simulator.plant.routes import Job
from simulator.plant.speed_loop import LocalLoop, Loop, SpeedLoop

Flags = NDArray[np.bool_]
Pause = Annotated[float, Field(ge=0, json_schema_extra={"unit": "s"})]
Spread = Annotated[float, Field(ge=0, json_schema_extra={"unit": "mm"})]
Density = Annotated[float, Field(gt=0, json_schema_extra={"unit": "kg/dm3"})]
Kelvins = Annotated[float, Field(ge=0, json_schema_extra={"unit": "K"})]
Bar = Annotated[float, Field(gt=0, json_schema_extra={"unit": "bar"})]
Share = Annotated[float, Field(gt=0, le=1, json_schema_extra={"unit": "ratio"})]

_DIFFUSIVITY = 1.2e-7
"""Of polyethylene, in m2/s."""
_PAY_OFFS = 4
_EXTRUDED = ("eccentricity_ratio", "melt_kg", "melt_kg_per_h", "melt_c", "melt_bar", "screw_rpm")
"""Channels of what is put on and how."""
_LINK = ("bin", "count", "down", *SERVICE_CHANNELS)
"""Channels of what goes over the link to central control."""


class CableLineSpec(DeviceSpec):
    """Settings of one line. By default it is the article's headline line, some 0.9 m/s over planned
    time; a high-voltage line runs at a fiftieth of that."""

    kind: Literal["cable_line"] = "cable_line"
    speed_mps: MetresPerSecond = 1.12
    """Line speed of its drive, while it runs and central control hears it and is heard."""
    control: Literal["central", "local"] = "central"
    """Who allows its starts and sets its trim: central control over the link, or its own panel."""
    safe_speed_ratio: Share = 0.5
    """Share of the line speed at which the diameter holds without control."""
    watchdog_ms: Milliseconds = 600.0
    """Silence of the other end after which the line, or control for it, takes the safe speed."""
    ramp_mps2: Acceleration = 0.05
    """Acceleration and deceleration."""
    mtbf_s: Seconds = 2_700.0
    """Mean running time between trips."""
    mttr_s: Seconds = 240.0
    """Mean time from a trip to the restart."""
    pay_off_from: Annotated[
        tuple[str, ...], Field(strict=False, min_length=1, max_length=_PAY_OFFS)
    ] = ("",)
    """Its pay-offs, up to four, and for each the line whose full reels it takes; empty is a stock
    that never ends."""
    reel_m: Length = 2_500.0
    """Length on a pay-off reel from stock."""
    reel_rest_m: Annotated[float, Field(ge=0, json_schema_extra={"unit": "m"})] = 0.0
    """Rest on a reel that is changed with others, when the line stands for them; it is left over.
    """
    reel_change_s: Seconds = 150.0
    """Time to change one."""
    splice_s: Pause = 0.0
    """Time to splice the new one's end to the old one's."""
    reel_crews: Count = 1
    """Reels that are changed at the same time."""
    take_up_m: Length | None = None
    """Length that the take-up holds; without it one that holds all."""
    take_up_change_s: Pause = 0.0
    """Time to change it, or to load it off."""
    release_wait_s: Pause = 0.0
    """Mean wait for somebody to release an order, or a full take-up and an empty one."""
    store_reels: Count = 4
    """Places for full take-up reels that another line takes."""
    store_full: Annotated[int, Field(ge=0)] = 0
    """How many of them are full at the start."""
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
    gauge_m: Length = 30.0
    """From the head to the gauges: the dead time is this distance over the speed."""
    step_m: Length = 10.0
    """Cable that a reading is the mean of, and that one correction is for."""
    trim_gain: Ratio = 0.4
    """Share of a deviation that control takes back per reading; 0: nobody does but the operator,
    when there is an alarm."""
    drift_mm: Spread = 0.15
    """Standard deviation of the diameter if nobody corrected it: material, pressure, temperature of
    the shop."""
    drift_m: Length = 2_000.0
    """Length in which such a deviation falls to 37 %."""
    melt_c: Celsius = 130.0
    """Temperature of the melt."""
    melt_sd_k: Kelvins = 0.7
    """Standard deviation of that temperature, with the same length as the drift's."""
    melt_mm_per_k: Spread = 0.03
    """Diameter lost per kelvin of hotter melt."""
    screw_lag_s: Pause = 1.0
    """Time by which the screws come behind the line when its speed changes."""
    alarm_ratio: Share = 0.9
    """Share of a limit's distance from the nominal at which a gauge raises an alarm."""
    derate_ratio: Share = 0.7
    """Share of the line speed that the operator sets after an alarm."""
    derate_s: Seconds = 600.0
    """For how long."""
    wall_mm: Spread = 1.5
    """Thickness of what is put on; 0: nothing is extruded."""
    density_kg_per_dm3: Density = 0.92
    """Of what is put on."""
    extruders: Count = 3
    """They share the work."""
    screw_kg: Annotated[float, Field(gt=0, json_schema_extra={"unit": "kg"})] = 0.12
    """Put through per turn of a screw."""
    melt_bar: Bar = 180.0
    """Pressure before the head at full speed."""
    cure_m: Length | None = None
    """Length of the curing tube that heats; without one nothing has to cure."""
    tube_c: Celsius = 280.0
    """Temperature of the cable's surface in it."""
    cured_c: Celsius = 225.0
    """Temperature at the conductor at which the insulation has cured."""
    preheat_c: Celsius = 90.0
    """Temperature of the conductor at the head."""
    post_heater_c: Celsius | None = None
    """Temperature to which a post-heater brings the conductor behind the head."""
    tension_kn: Kilonewtons = 8.0
    """Capstan tension at full speed."""
    pay_off_kn: Kilonewtons = 1.2
    """Tension of each pay-off, held by its dancer."""
    spark_faults_per_km: Annotated[float, Field(ge=0, json_schema_extra={"unit": "1/km"})] = 0.1
    """Faults that the spark tester finds, on the mean."""
    eccentricity_ratio: Ratio = 0.04
    """Mean eccentricity of the insulation, wall to wall."""
    eccentricity_sd_ratio: Ratio = 0.006
    """Its standard deviation if nobody corrected it."""
    eccentricity_usl_ratio: Share = 0.1
    """Limit above which cable is scrap."""

    def settings_problems(self) -> list[str]:
        """Limits must be in order, the core inside, and the tube hot enough."""
        out: list[str] = []
        low, high = self.diameter_lsl_mm, self.diameter_usl_mm
        if low >= high:
            out.append(f"diameter: lower limit {low:g} is not below the upper {high:g}")
        elif not low < self.diameter_mm < high:
            out.append(f"diameter: {self.diameter_mm:g} is not between its limits")
        if self.core_mm < 0.0:
            out.append(f"wall_mm: two walls of {self.wall_mm:g} are more than the diameter")
        if self.tube_c <= max(self.cured_c, self._wall_c):
            out.append(f"tube_c: {self.tube_c:g} is not above what it heats")
        if self.eccentricity_ratio >= self.eccentricity_usl_ratio:
            out.append("eccentricity_ratio: not below its limit")
        return out

    @property
    def core_mm(self) -> float:
        """Diameter before the head."""
        return self.diameter_mm - 2.0 * self.wall_mm

    @property
    def _wall_c(self) -> float:
        """Where the wall at the conductor begins in the tube: half melt, half conductor."""
        conductor_c = self.preheat_c if self.post_heater_c is None else self.post_heater_c
        return (self.melt_c + conductor_c) / 2.0

    @property
    def top_mps(self) -> float:
        """What the line runs at: its drive's speed, or what the insulation can cure at."""
        if self.cure_m is None or not self.wall_mm or self._wall_c >= self.cured_c:
            return self.speed_mps
        tau_s = 4.0 * (self.wall_mm / 1_000.0) ** 2 / (pi * pi * _DIFFUSIVITY)
        cooler = (self.tube_c - self._wall_c) / (self.tube_c - self.cured_c)
        return min(self.speed_mps, self.cure_m / (tau_s * log(4.0 / pi * cooler)))

    def kg_per_m(self, diameter_mm: Floats) -> Floats:
        """What is put on per metre: density x area."""
        area_mm2 = pi / 4.0 * np.maximum(diameter_mm**2 - self.core_mm**2, 0.0)
        return self.density_kg_per_dm3 * area_mm2 / 1_000.0


MOVING = (S.EXECUTE, S.STARTING, S.HOLDING, S.UNHOLDING, S.SUSPENDING, S.UNSUSPENDING, S.STOPPING,
          S.COMPLETING)  # fmt: skip
_MM = _GRAMS = 1_000
_DIAMETER, _ECCENTRICITY = 100, 10_000
"""Steps of the gauges: a hundredth of a millimetre, a hundredth of a per cent."""
_AHEAD_NS = 300 * NS_PER_S
"""How far a line looks ahead in its loop."""
_CLEAR_S = 86_400.0
"""Longer than that nobody needs to know that nothing ends a motion."""
_NEVER_NS = 1 << 62
_EMPTY_M = 0.01
"""What is left on a reel that is empty."""


class End(Enum):
    """Why the line stops."""

    TRIP = 0
    ORDER = 1
    REEL = 2
    PLAN = 3


class Left(NamedTuple):
    """What is left before each reason to stop."""

    trip_ns: int
    order_m: float
    reel_m: float
    plan_ns: int


class CableLine(Unit):
    """Draws cable until its orders are done.

    It runs at its top speed while its speed loop is closed, at ``safe_speed_ratio`` of it while
    not, and at ``derate_ratio`` of it while the operator does not trust the gauges, with
    ``ramp_mps2`` between them; each start waits for a round trip to central control. It is STARTING
    until it has the safe speed, then EXECUTE at any speed.

    Trips come as a Poisson process over running time. The line stands for reels where a pay-off is
    empty or the take-up full, and SUSPENDED as long as it takes to get them. Length is the exact
    integral of the speed, to the millimetre; each start spoils ``restart_scrap_m`` metres, and what
    is off its limits in diameter or eccentricity is scrap too. Energy is the exact integral of a
    power that is constant in each state.

    Spark faults lie on the cable as a Poisson process over its metres, good or not. Diameter and
    eccentricity are of the cable at the gauges, once it has come so far, and read nothing while it
    stands; all of the melt is at the head.
    """

    channels: Mapping[str, str] = {
        "state": "PackML", "mode": "1", "length_m": "m", "scrap_m": "m", "energy_kwh": "kWh",
        "co2_kg_per_kwh": "kg/kWh", "speed_mps": "m/s", "diameter_mm": "mm", "tension_kn": "kN",
        "spark_faults": "1", "eccentricity_ratio": "1", "derated": "1",
        "melt_kg": "kg", "melt_kg_per_h": "kg/h", "melt_c": "degC", "melt_bar": "bar",
        "screw_rpm": "1/min",
        **{f"pay_off{n}_kn": "kN" for n in range(1, _PAY_OFFS + 1)},
        **{f"dancer{n}_ratio": "1" for n in range(1, _PAY_OFFS + 1)},
        **dict.fromkeys(_LINK, "1"),
    }  # fmt: skip

    def __init__(self, spec: CableLineSpec, floor: Floor) -> None:
        self.spec = spec
        super().__init__(spec, floor)
        self.control = floor.control(self.asset) if spec.control == "central" else None
        missing = _without(spec)
        self.channels = {n: unit for n, unit in CableLine.channels.items() if n not in missing}
        self.loop: Loop = LocalLoop(self.env)
        if self.control is not None:
            self.loop = SpeedLoop(self.env, self.control, spec.watchdog_ms)
        self._top_mps = spec.top_mps
        self._safe_mps = self._top_mps * spec.safe_speed_ratio
        self._path = Path(self.env.now)
        self._until_trip_ns = ns(self.dice.exponential(spec.mtbf_s))
        identity = crc32(self.path.encode())
        own = [np.random.default_rng([floor.seed, identity, n]) for n in range(2, 7)]
        self._flaws, material, melt, wall, self._waits = own
        """The first: where on the cable the spark tester finds something; the last: how long the
        line waits for people."""
        self._fault_mm: Ints = np.empty(0, dtype=np.int64)
        self.cable = GaugeLoop(
            self._faults(material, melt, wall),
            step_m=spec.step_m, gauge_m=spec.gauge_m, gain=spec.trim_gain,
            diameter=_band(spec.diameter_mm, spec.diameter_lsl_mm, spec.diameter_usl_mm,
                           spec.alarm_ratio),
            centring=_band(spec.eccentricity_ratio, -spec.eccentricity_usl_ratio,
                           spec.eccentricity_usl_ratio, spec.alarm_ratio),
            lag_s=spec.screw_lag_s, spoil=self._path.spoil,
            mm_per_flow=(spec.diameter_mm - spec.core_mm**2 / spec.diameter_mm) / 2.0,
            kg_per_m=lambda off_mm: spec.kg_per_m(spec.diameter_mm + off_mm),
        )  # fmt: skip
        """What the cable is like."""
        self.derated = Steps(self.env.now, 0)
        """1 while the operator runs the line slow after an alarm."""
        self._derated_until_ns = 0
        self._quiet_to_m = 0.0
        """No alarm is raised over cable before this length."""
        self._pay_off_m = [0.0] * len(spec.pay_off_from)
        """By pay-off the length of cable at which its reel is used up."""
        self._feeders: list[CableLine | None] = []
        self.left_over_m = 0.0
        """Rests on reels that were changed before they were empty."""
        self.store: ReelStore | None = None
        """Where its full reels wait for another line."""
        if spec.name in floor.taken_from:
            reel_m = spec.take_up_m or spec.reel_m
            self.store = ReelStore(self.env, spec.store_reels, spec.store_full, reel_m)
        self._take_up_m = inf
        """Length of cable at which the take-up is full."""
        self._wound_m = 0.0
        """Good metres when it was put on."""
        self.gauged: list[tuple[NDArray[np.int64 | np.int32], ...]] = []
        """What the gauges read so far: times, diameter and eccentricity, in their steps."""

    def _faults(
        self, material: np.random.Generator, melt: np.random.Generator, wall: np.random.Generator
    ) -> Iterator[Fault]:
        """What goes wrong with the cable, step by step."""
        spec = self.spec
        along = (spec.drift_m, spec.step_m)
        melt_k = drift(melt, spec.melt_sd_k, *along)
        centring = drift(wall, spec.eccentricity_sd_ratio, *along)
        for stray_mm in drift(material, spec.drift_mm, *along):
            hot_k = next(melt_k)
            yield Fault(stray_mm - spec.melt_mm_per_k * hot_k, next(centring), hot_k)

    def _feeder(self, name: str) -> "CableLine | None":
        """The line whose reels a pay-off takes; ``None`` if they come from stock."""
        if not name:
            return None
        device = self.floor.named.get(name)
        if isinstance(device, CableLine) and device is not self:
            return device
        raise ConfigError(f"no other cable line {name!r}", at=f"{self.spec.name} pay_off_from")

    @property
    def limits(self) -> Mapping[str, tuple[float, float]]:
        """Of the diameter."""
        return {"diameter_mm": (self.spec.diameter_lsl_mm, self.spec.diameter_usl_mm)}

    def watts(self, state: S) -> int:
        """Moving or not."""
        return round((self.spec.power_kw if state in MOVING else self.spec.standby_kw) * 1000)

    def length_mm(self, times: Times) -> Ints:
        """Length made, good or not, in whole millimetres."""
        return _whole(self._path.motion(times)[0], _MM)

    def scrap_mm(self, times: Times) -> Ints:
        """Length spoilt, in whole millimetres."""
        return _whole(self._path.scrap(self._path.motion(times)[0]), _MM)

    def melt_g(self, times: Times) -> Ints:
        """What was put on the length made, in whole grams; nothing where nothing is extruded."""
        if not self.spec.wall_mm:
            return np.zeros(len(times), dtype=np.int64)
        return _whole(self.cable.kg(self._path.motion(times)[0]), _GRAMS)

    def spark_faults(self, times: Times) -> Ints:
        """Faults on the length made."""
        return self._sparks(self.length_mm(times))

    def _sparks(self, length_mm: Ints) -> Ints:
        per_mm = self.spec.spark_faults_per_km / 1_000_000
        while per_mm and (not len(self._fault_mm) or self._fault_mm[-1] <= length_mm[-1]):
            last_mm = self._fault_mm[-1] if len(self._fault_mm) else 0
            gaps = np.ceil(self._flaws.exponential(1.0 / per_mm, 64)).astype(np.int64)
            self._fault_mm = np.concatenate((self._fault_mm, last_mm + np.cumsum(gaps)))
        return self._fault_mm.searchsorted(length_mm, side="right")

    def run(self) -> Process:
        """Make lot after lot."""
        self._feeders = [self._feeder(name) for name in self.spec.pay_off_from]
        self._pay_off_m = [self.spec.reel_m if f is None else 0.0 for f in self._feeders]
        while True:
            job = yield from self._next_job()
            self.register(job.order, job.step.pri_s, self.spec.set_up_s)
            self.mode.set(self.env.now, Mode.SETUP)
            target_m = job.quantity + self._path.good_m(self.env.now)
            yield from self._start_up(self.spec.set_up_s, released=False)
            while (end := (yield from self._draw(target_m))) is not End.ORDER:
                yield from self._interrupt(end)
            yield from self._ramp_down(S.COMPLETING)
            yield from self.pace(S.COMPLETE, 1.0)
            yield from self._wind_off()

    def _next_job(self) -> Generator[Event, Any, Job]:
        """The next lot, when there is one; until then IDLE in planned time."""
        desk = self.floor.dispatch
        while True:
            yield from self.rest()
            if (job := desk.next_job(self)) is not None:
                if self.state.last == S.IDLE:
                    yield from self.pace(S.STOPPING, 1.0)
                    self.enter(S.STOPPED)
                return job
            self.register(None)
            if self.state.last == S.IDLE:
                yield desk.bell(self).event | self.env.timeout(self.planned_left_ns())
            else:
                yield from self.pace(S.RESETTING, self.spec.reset_s)
                self.enter(S.IDLE)

    def _interrupt(self, end: End) -> Process:
        """Stand, put right what ended the run, and start again."""
        spec = self.spec
        if end is End.REEL:
            yield from self._ramp_down(S.SUSPENDING)
            self.enter(S.SUSPENDED)
            yield from self._change_reels()
            yield from self._until_planned()
            yield from self._ramp_up(S.UNSUSPENDING)
        elif end is End.PLAN:
            yield from self._ramp_down(S.STOPPING)
            self.enter(S.STOPPED)
            yield self.env.timeout(self.planned_left_ns())
            yield from self.rest()
            yield from self._start_up(spec.reset_s)
        else:
            yield from self._ramp_down(S.HOLDING)
            self.enter(S.HELD)
            yield from self.floor.operators.fetch("repair")
            yield self.env.timeout(ns(self.dice.exponential(spec.mttr_s)))
            self.floor.operators.release("repair")
            self._until_trip_ns = ns(self.dice.exponential(spec.mtbf_s))
            yield from self._until_planned()
            yield from self._ramp_up(S.UNHOLDING)

    def _until_planned(self) -> Process:
        """Nobody starts a line in a break."""
        yield self.env.timeout(self.floor.calendar.resumes_ns(self.env.now) - self.env.now)

    def _start_up(self, set_up_s: float, *, released: bool = True) -> Process:
        """Get ready, in IDLE as long as the order is not released, or reels or a place for them are
        missing, and start."""
        self.enter(S.RESETTING)
        if not released:
            yield from self.floor.operators.fetch("set_up")
        yield self.env.timeout(ns(set_up_s))
        if not released:
            self.floor.operators.release("set_up")
        self.mode.set(self.env.now, Mode.PRODUCTION)
        yield from self.pace(S.IDLE, 1.0)
        if not released:
            yield from self._await_people()
            if self.spec.take_up_m is not None:
                self._take_up_m = self._path.length_m(self.env.now) + self.spec.take_up_m
        for at in self._empty():
            yield from self._mount(at)
        yield from self._await_place()
        if self.floor.calendar.planned(self.env.now):
            yield from self._ramp_up(S.STARTING)
        else:
            yield from self.rest()
            yield from self._start_up(self.spec.reset_s)

    def _await_people(self) -> Process:
        if self.spec.release_wait_s:
            yield self.env.timeout(ns(self._waits.exponential(self.spec.release_wait_s)))

    def _empty(self, rest_m: float = _EMPTY_M) -> list[int]:
        """Pay-offs with no more than a rest on their reels."""
        made_m = self._path.length_m(self.env.now)
        return [at for at, end_m in enumerate(self._pay_off_m) if end_m <= made_m + rest_m]

    def _mount(self, at: int) -> Process:
        """Put a full reel on a pay-off when there is one; what is on it is left over."""
        made_m, feeder = self._path.length_m(self.env.now), self._feeders[at]
        self.left_over_m += max(self._pay_off_m[at] - made_m, 0.0)
        reel_m = self.spec.reel_m
        if feeder is not None and feeder.store is not None:
            while not len(feeder.store):
                yield feeder.store.bell.event
            reel_m = feeder.store.take()
        self._pay_off_m[at] = made_m + reel_m

    def _change_reels(self) -> Process:
        """Change what is empty and what is full."""
        spec = self.spec
        if self._empty():
            worn = self._empty(max(spec.reel_rest_m, _EMPTY_M))
            for at in worn:
                yield from self._mount(at)
            rounds = ceil(len(worn) / spec.reel_crews)
            yield self.env.timeout(ns(rounds * (spec.reel_change_s + spec.splice_s)))
        if self._path.length_m(self.env.now) + _EMPTY_M >= self._take_up_m:
            yield from self._wind_off()
            yield self.env.timeout(ns(spec.take_up_change_s))
            yield from self._await_people()
            self._take_up_m = self._path.length_m(self.env.now) + (spec.take_up_m or inf)

    def _wind_off(self) -> Process:
        """The reel on the take-up goes where it is taken, when there is a place."""
        good_m = self._path.good_m(self.env.now)
        yield from self._await_place()
        if self.store is not None and good_m > self._wound_m:
            self.store.put(good_m - self._wound_m)
        self._wound_m = good_m

    def _await_place(self) -> Process:
        while self.store is not None and not self.store.has_place():
            yield self.store.bell.event

    def _ramp_up(self, state: S) -> Process:
        """When control allows it, from standstill to the safe speed, then EXECUTE."""
        yield from self.loop.permission()
        self.enter(state)
        ramp_ns = ns(self._safe_mps / self.spec.ramp_mps2)
        self._path.set(self.env.now, 0.0, self._safe_mps / (ramp_ns / NS_PER_S))
        start_m = self._path.length_m(self.env.now)
        self._path.spoil(start_m, start_m + self.spec.restart_scrap_m)
        self._quiet_to_m = self._path.spoilt_to_m
        self.loop.look(self.env.now + ramp_ns + SCAN_NS + 1)
        self._make(ramp_ns)
        yield self.env.timeout(ramp_ns)
        self._path.set(self.env.now, self._safe_mps, 0.0)
        self.enter(S.EXECUTE)
        self._until_trip_ns -= SCAN_NS
        self._make(SCAN_NS)
        yield self.env.timeout(SCAN_NS)

    def _ramp_down(self, state: S) -> Process:
        """From the present speed to standstill."""
        self.enter(state)
        speed = self._path.speed_mps(self.env.now)
        ramp_ns = ns(speed / self.spec.ramp_mps2)
        self._path.set(self.env.now, speed, -speed / (ramp_ns / NS_PER_S))
        self._make(ramp_ns)
        yield self.env.timeout(ramp_ns)
        self._path.set(self.env.now, 0.0, 0.0)

    def _make(self, wait_ns: int, alarms_from_m: float = inf) -> int:
        """Make the cable of the present motion for a time, or until the gauges raise an alarm: how
        long that is."""
        path, now = self._path, self.env.now
        speed, slope = path.speed_mps(now), path.slope_mps2
        reply_s = self.loop.reply_s if self.loop.closed.get(now) else None
        alarm_m = self.cable.advance(
            path.length_m(now + wait_ns), speed, slope, reply_s, alarms_from_m
        )
        if alarm_m is None:
            return wait_ns
        wait_ns = min(whole_ns(seconds_to(alarm_m - path.length_m(now), speed, slope)), wait_ns)
        if not self.spec.trim_gain:
            self.cable.correct()
        self._derated_until_ns = now + wait_ns + ns(self.spec.derate_s)
        self.derated.set(now + wait_ns, 1)
        self.derated.set(self._derated_until_ns, 0)
        return wait_ns

    def _goal_mps(self) -> float:
        """The speed the line may have now."""
        goal = self._top_mps if self.loop.is_closed() else self._safe_mps
        if self.env.now < self._derated_until_ns:
            goal = min(goal, self._top_mps * self.spec.derate_ratio)
        return goal

    def _draw(self, target_m: float) -> Generator[Event, Any, End]:
        """Draw cable at the speed it may have until something ends it."""
        spec, env, path = self.spec, self.env, self._path
        speed = path.speed_mps(env.now)
        plan_ends_ns = env.now + self.planned_left_ns()
        clear_ns = env.now
        while True:
            goal = self._goal_mps()
            reach_ns = ns(abs(goal - speed) / spec.ramp_mps2)
            slope = (goal - speed) / (reach_ns / NS_PER_S) if reach_ns else 0.0
            now = env.now
            path.set(now, speed if reach_ns else goal, slope)
            if clear_ns <= now:
                left = self._left(target_m, plan_ns=plan_ends_ns - now)
                clear_ns = now + self._clear_ns(left)
                end, end_ns = self._end(left)
                known_ns = self._undisturbed_ns(left)
            else:
                end, end_ns = None, _NEVER_NS
                known_ns = min(clear_ns - now, _AHEAD_NS)
            wait_ns = min(end_ns, known_ns, reach_ns or end_ns)
            alarms_from_m = self._quiet_to_m
            if now < self._derated_until_ns:
                wait_ns = min(wait_ns, self._derated_until_ns - now)
                alarms_from_m = inf
            change_ns = self.loop.change_ns(now + known_ns)
            if change_ns is not None:
                wait_ns = min(wait_ns, change_ns - now)
            wait_ns = self._make(wait_ns, alarms_from_m)
            yield env.timeout(wait_ns)
            self._until_trip_ns -= wait_ns
            now += wait_ns
            if now == self._derated_until_ns:
                self._quiet_to_m = path.length_m(now)
            # What was spoilt on the way must be made once more.
            more = end is End.ORDER and self._order_left_m(target_m) > 1e-6
            if end is not None and wait_ns == end_ns and not more:
                return end
            speed = goal if wait_ns == reach_ns else path.speed_mps(now)

    def _left(self, target_m: float, plan_ns: int) -> Left:
        """What is left now before each reason to stop."""
        reel_m = min(*self._pay_off_m, self._take_up_m) - self._path.length_m(self.env.now)
        trip_ns = max(self._until_trip_ns, 0)
        return Left(trip_ns, self._order_left_m(target_m), reel_m, max(plan_ns, 0))

    def _end(self, left: Left) -> tuple[End, int]:
        """What ends the present motion first, and how long it takes to there. Where the line must
        stand at a certain length or time, that is when it must begin to brake."""
        brake, path = self.spec.ramp_mps2, self._path
        speed, slope = path.speed_mps(self.env.now), path.slope_mps2
        left_m = left.reel_m - speed * speed / (2.0 * brake)
        left_s = left.plan_ns / NS_PER_S - speed / brake
        # Speeding up, it comes nearer twice as fast: by what it drives, and by what its way to
        # stand grows. Slowing down it does not come nearer at all.
        if slope > 0.0:
            reel_s, plan_s = seconds_to(left_m / 2.0, speed, slope), left_s / 2.0
        elif slope < 0.0:
            reel_s, plan_s = (inf if still > 0.0 else 0.0 for still in (left_m, left_s))
        else:
            reel_s, plan_s = seconds_to(left_m, speed, 0.0), left_s
        end, end_ns = End.TRIP, left.trip_ns
        for other, seconds in (
            (End.ORDER, seconds_to(left.order_m, speed, slope)),
            (End.REEL, reel_s),
            (End.PLAN, plan_s),
        ):
            other_ns = whole_ns(seconds)
            if other_ns < end_ns:  # of several at once the first
                end, end_ns = other, other_ns
        return end, end_ns

    def _clear_ns(self, left: Left) -> int:
        """How long at least nothing ends a motion, whatever the line does meanwhile; 0 where that
        is too short to be worth knowing."""
        top_mps, ramp_s = self._top_mps, self._top_mps / self.spec.ramp_mps2
        # Speeding up to full speed and braking from it: see `_end`.
        along_s = min(left.order_m, left.reel_m - 1.5 * top_mps * ramp_s) / top_mps
        clear_ns = min(left.trip_ns, left.plan_ns - ns(3.0 * ramp_s), ns(min(along_s, _CLEAR_S)))
        return clear_ns if clear_ns > _AHEAD_NS else 0

    def _order_left_m(self, target_m: float) -> float:
        """Metres to draw until the order has its good ones, if no more are spoilt."""
        path, now = self._path, self.env.now
        if path.good_m(now) >= target_m - 1e-9:
            return 0.0
        return path.length_at_good_m(target_m) - path.length_m(now)

    def _undisturbed_ns(self, left: Left) -> int:
        """How long at least, whatever the loop does, until the line stands and asks for a
        permission; no further than it looks ahead."""
        along_ns = whole_ns(min(left.reel_m, left.order_m) / self._top_mps)
        return min(min(left.trip_ns, left.plan_ns, along_ns) + SCAN_NS, _AHEAD_NS)

    def first_reports(self, t_ns: int) -> list[Report]:
        """State and counters at the start."""
        ch: dict[str, tuple[float | None]] = {
            "state": (self.state.get(t_ns),), "length_m": (0.0,), "scrap_m": (0.0,),
            "energy_kwh": (0.0,), "speed_mps": (0.0,), "diameter_mm": (None,),
            "tension_kn": (0.0,), "spark_faults": (0,), "derated": (0,),
        }  # fmt: skip
        if self.spec.wall_mm:
            ch |= {"eccentricity_ratio": (None,), "melt_kg": (0.0,), "melt_kg_per_h": (0.0,)}
        return [
            self.state_report(t_ns),
            Columns(self.asset, "process", t_ns, (t_ns,), ch),
            *([] if self.control is None else self.control.first_reports(t_ns)),
        ]

    def reports(self, stretch: Stretch) -> list[Report]:
        """States at once, signals and delay histograms by the pane; without samples the counters
        now and then."""
        out = self.state_reports(stretch)
        signals = self._signals(stretch.times) if len(stretch.times) else {}
        out += self.process_reports(stretch, signals)
        out += self.counter_reports(
            stretch, lambda times: self._counters(times, self._path.motion(times)[0])
        )
        made_m = float(self._path.motion(np.array([stretch.to_ns]))[0][0])
        self.cable.forget(made_m - self.spec.gauge_m)
        if self.control is not None:
            out += self.control.reports(stretch)
        return out

    def _counters(self, times: Times, length: Floats) -> dict[str, Sequence[float | int | None]]:
        """What only ever grows, at some times and the lengths made by then."""
        melt: dict[str, Sequence[float | int | None]] = {}
        if self.spec.wall_mm:
            melt["melt_kg"] = on_grid(_whole(self.cable.kg(length), _GRAMS), _GRAMS)
        length_mm = _whole(length, _MM)
        return {
            "length_m": on_grid(length_mm, _MM),
            "scrap_m": on_grid(_whole(self._path.scrap(length), _MM), _MM),
            "energy_kwh": on_grid(self.energy.at(times), 100_000),
            "spark_faults": self._sparks(length_mm).tolist(),
            **melt,
        }

    def _signals(self, times: Times) -> dict[str, Sequence[float | int | None]]:
        """All that is measured at some times."""
        spec = self.spec
        noise = self.noise.standard_normal((len(times), 5 + len(spec.pay_off_from)))
        length, speed, slope = self._path.motion(times)
        moving = speed > 0.0
        measured = np.where(moving, speed + 0.0035 * self._top_mps * noise[:, 2], 0.0)
        tension = spec.tension_kn * (0.3 + 0.7 * speed / self._top_mps)
        return {
            "state": self.state.told(times),
            **self._counters(times, length),
            "speed_mps": rounded(np.maximum(measured, 0.0), 5),
            **self._gauge(times, length, moving, noise[:, :2]),
            "tension_kn": rounded(tension + 0.05 * noise[:, 3], 2),
            "derated": self.derated.told(times),
            **self._melt(length, speed, noise[:, 4]),
            **self._pay_offs(slope, noise[:, 5:]),
        }

    def _melt(
        self, length: Floats, speed: Floats, noise: Floats
    ) -> dict[str, Sequence[float | int | None]]:
        """What the extruders do: they put on what the cable has."""
        spec = self.spec
        if not spec.wall_mm:
            return {}
        here = self.cable.at(length)
        flow = here.kg_per_m * speed * 3_600.0
        full = spec.kg_per_m(np.array(spec.diameter_mm)) * self._top_mps * 3_600.0
        # A melt is shear-thinning: its pressure grows with a small power of its flow.
        bar = spec.melt_bar * (flow / full) ** 0.35 * (1.0 - 0.01 * here.melt_k)
        return {
            "melt_kg_per_h": rounded(flow, 2),
            "melt_c": rounded(spec.melt_c + here.melt_k + 0.05 * noise, 2),
            "melt_bar": rounded(bar, 1),
            "screw_rpm": rounded(flow / (60.0 * spec.extruders * spec.screw_kg), 3),
        }

    def _pay_offs(self, slope: Floats, noise: Floats) -> dict[str, Sequence[float | int | None]]:
        """Dancers give way when the line speeds up, and hold the tension but for a tenth."""
        spec = self.spec
        give = slope / spec.ramp_mps2
        sway = noise.T
        pull_kn = spec.pay_off_kn * (1.0 + 0.1 * give + 0.01 * sway)
        pulls, dancers = rows_rounded(pull_kn, 3), rows_rounded(0.5 - 0.2 * give - 0.02 * sway, 3)
        out: dict[str, Sequence[float | int | None]] = {}
        for at, (pull, dancer) in enumerate(zip(pulls, dancers, strict=True), 1):
            out[f"pay_off{at}_kn"], out[f"dancer{at}_ratio"] = pull, dancer
        return out

    def _gauge(
        self, times: Times, length: Floats, moving: Flags, noise: Floats
    ) -> dict[str, Sequence[float | int | None]]:
        """Read both gauges, on the cable that is there; where nothing is extruded there is nothing
        to be off the centre."""
        spec = self.spec
        there = length - spec.gauge_m
        seen = moving & (there >= 0.0)
        cable = self.cable.at(there)
        mm = spec.diameter_mm + cable.diameter_mm + 0.01 * noise[:, 0]
        ratio = np.abs(spec.eccentricity_ratio + cable.centring_ratio) + 0.0005 * noise[:, 1]
        diameter = np.rint(mm * _DIAMETER).astype(np.int64)
        eccentricity = np.rint(np.maximum(ratio, 0.0) * _ECCENTRICITY).astype(np.int64)
        readings = (diameter, eccentricity)
        self.gauged.append((times[seen], *(c[seen].astype(np.int32) for c in readings)))
        told = {"diameter_mm": _shown(on_grid(diameter, _DIAMETER), seen)}
        if spec.wall_mm:
            told["eccentricity_ratio"] = _shown(on_grid(eccentricity, _ECCENTRICITY), seen)
        return told


def _without(spec: CableLineSpec) -> frozenset[str]:
    """Channels of its kind that a line has nothing for."""
    of_pay_offs = {n: (f"pay_off{n}_kn", f"dancer{n}_ratio") for n in range(1, _PAY_OFFS + 1)}
    gone = {name for n in range(len(spec.pay_off_from), _PAY_OFFS) for name in of_pay_offs[n + 1]}
    gone |= {*(() if spec.wall_mm else _EXTRUDED)}
    gone |= {*(_LINK if spec.control == "local" else ())}
    return frozenset(gone)


def _whole(values: Floats, per_one: int) -> Ints:
    """In whole steps of an instrument that shows what it has passed."""
    return np.floor(values * per_one + 1e-6).astype(np.int64)


def _shown(values: list[float], seen: Flags) -> Sequence[float | int | None]:
    if seen.all():
        return values
    return [v if there else None for v, there in zip(values, seen.tolist(), strict=True)]


def _band(nominal: float, low: float, high: float, alarm_ratio: float) -> Band:
    """Deviations from the nominal that are good, and that are no alarm."""
    below, above = low - nominal, high - nominal
    return Band(below, above, below * alarm_ratio, above * alarm_ratio)


MODEL = (CableLineSpec, CableLine)
