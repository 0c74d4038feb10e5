"""A die-casting cell: shots, warm-up and low-pressure scrap, rework, breakdowns, die changes.

A shot goes through eight phases. What ends as scrap begins with the ladle or with a cold die:

    ladle's dose ── biscuit ──┐
                              ├── intensification pressure ── below 0.91 of nominal: 98.8 % rejected
    die cold: gate freezes ───┘                             └ otherwise: ``scrap_ratio``

A thin biscuit lets the plunger run against the die instead of the metal, and in a cold die the
metal freezes before the intensifier acts: either way the pressure does not get through. The die is
so cold that it happens to nearly each of the first three shots after a start, and to fewer and
fewer up to the 300th: 98, 76, 8, 3 and 1.2 % are rejected for it (domain facts, finding 10). What
had too little pressure is scrap; any other reject may go over the bench once:

    shot, inspected ─┬─ good ───────────────────────────────┬─ output lane     produced = inspected
                     ├─ rework ── bench, inspected again ─┬─┘                  = first_pass
                     └─ scrap                             └── production loss    + scrap + rework

The counters are of the casting operation: a piece that was to be reworked stays counted as rework,
whatever the bench made of it, and is inspected as a part once. What the bench has mended joins the
others when a container is full, or while no shot is made.

Nothing that happens to an undisturbed run of shots comes from outside, so it is computed as
columns, up to the first thing that ends it: a full container, the order's last good piece, a
breakdown, a service that is due, a planned stop. Each shot has its own row of draws, used in order,
so that it does not matter how far one looks ahead.
"""

from collections import deque
from collections.abc import Mapping
from typing import Annotated, Literal
from zlib import crc32

import numpy as np
from pydantic import Field

from config.units import Kilowatts, Ratio, Seconds
from ingest.packml import Mode
from ingest.packml import PackML as S
from simulator.cycles import Cycles, Phase, Warmth
from simulator.device import (
    Bell,
    Celsius,
    Columns,
    Count,
    DeviceSpec,
    Ints,
    Kilonewtons,
    Megapascals,
    Millimetres,
    Process,
    Report,
    Steps,
    Stretch,
    Unit,
    event_reports,
    ns,
    on_grid,
    rounded,
)
from simulator.lags import noise
from simulator.mes import LOT_CHANNELS
from simulator.plant.floor import Floor
from simulator.plant.material import Container, Output
from simulator.plant.routes import Order
from simulator.plant.shots import Coming, Limits, Run, Shots

Speed = Annotated[float, Field(gt=0, json_schema_extra={"unit": "m/s"})]

PHASES = (("close", 80_000, 1.0), ("pour", 100_000, 0.5), ("slow shot", 29_000, 2.0),
          ("fast shot", 1_000, 38.0), ("intensify", 90_000, 1.8), ("dwell", 420_000, 0.6),
          ("open", 130_000, 1.4), ("spray", 150_000, 0.7))  # fmt: skip
"""Share of the cycle in millionths, and power against the mean of the phase list's own scale. The
fast shot is fed from the accumulator in some 60 ms; the metal solidifies from there to the end of
the dwell, half of the cycle."""
_LOCKED = np.array([number in range(3, 7) for number in range(len(PHASES) + 1)])
"""In which phases (from 1) the die is locked."""
_SWING_C = np.array([0.0, -5.0, 0.0, 10.0, 12.0, 14.0, 8.0, 2.0, -8.0])
"""The surface is hottest while metal dwells in it and coolest after the spray."""
_SCALE = sum(ppm * weight for _, ppm, weight in PHASES) / 1_000_000
_SPRAY = PHASES[-1][1] / 1_000_000
_AMBIENT_C = 30.0
_WARM_SHOTS = 15.0
"""Time constant of a die that warms, in shots, and of one that cools, in seconds."""
_COOL_S = 2_400.0
_HOLDING_S = 300.0
"""Time constant and deviation of the holding furnace about its set point: within 5 degC."""
_HOLDING_SD_C = 0.73
_KG_PER_MM3 = 2.6e-6
_GAUGES = np.array((0.02, 0.025, 0.13))
"""Deviation from shot to shot of the slow and the fast speed and of the vacuum, as shares."""


class CastingCellSpec(DeviceSpec):
    """Settings of one casting cell."""

    kind: Literal["casting_cell"] = "casting_cell"
    node: str
    """Where AGVs fetch its containers."""
    cycle_s: Seconds = 60.0
    """Mean time of a shot."""
    cycle_spread: Ratio = 0.01
    """Standard deviation of a shot's time, as a share of it."""
    scrap_ratio: Ratio = 0.013
    """Share of shots rejected although their pressure was high enough."""
    mtbf_s: Seconds = 36_000.0
    """Mean running time between breakdowns."""
    mttr_s: Seconds = 1_500.0
    """Mean time to repair."""
    abort_ratio: Ratio = 0.2
    """Share of breakdowns that abort (and need clearing) instead of holding."""
    maintain_every_h: Annotated[float, Field(gt=0, json_schema_extra={"unit": "h"})] = 200.0
    """Running time after which it is serviced, within planned time, before the next shot."""
    maintain_s: Seconds = 3_600.0
    """Time of a service."""
    die_change_s: Seconds = 2_400.0
    """Planned set-up when the next order needs another die."""
    die_change_spread: Ratio = 0.1
    """Standard deviation of a die change, as a share of the plan; none takes less than half."""
    reset_s: Seconds = 60.0
    """Set-up when the die stays."""
    warm_up_s: Seconds = 120.0
    """From start to the first shot."""
    cooled_after_s: Seconds = 300.0
    """After a pause this long the die is cold again."""
    rework_ratio: Ratio = 0.15
    """Share of those rejects that can be reworked: what had too little pressure cannot."""
    rework_s: Seconds = 300.0
    """Time to rework and inspect a piece; the bench takes one at a time, in planned time."""
    rework_pass_ratio: Ratio = 0.9
    """Share of reworked pieces that are good then; the others are lost."""
    output_slots: Count = 2
    """Full containers that may wait for a vehicle."""
    power_kw: Kilowatts = 60.0
    """Mean draw while shooting; each phase has its share of it."""
    standby_kw: Kilowatts = 14.0
    """Draw in every other state."""
    locking_kn: Kilonewtons = 12_000.0
    """Locking force."""
    metal_c: Celsius = 670.0
    """Set point of the holding furnace."""
    die_c: Celsius = 220.0
    """Die surface in steady running."""
    biscuit_mm: Millimetres = 25.0
    """Mean thickness of the biscuit."""
    biscuit_sd_mm: Millimetres = 1.2
    """Its standard deviation in the long run."""
    biscuit_memory: Annotated[float, Field(ge=0, lt=1, json_schema_extra={"unit": "ratio"})] = 0.7
    """Share of a shot's deviation from the mean that the next shot has too: the ladle's dose
    drifts."""
    biscuit_lsl_mm: Millimetres = 20.0
    """Lower specification limit; a thinner one costs pressure."""
    biscuit_usl_mm: Millimetres = 30.0
    """Upper specification limit."""
    short_dose_ratio: Ratio = 0.025
    """Share of shots for which the ladle brings too little metal."""
    short_dose_mm: Millimetres = 9.0
    """By how much the biscuit is thinner then."""
    dose_kg: Annotated[float, Field(gt=0, json_schema_extra={"unit": "kg"})] = 1.2
    """Metal in a shot with a biscuit of the mean thickness."""
    plunger_mm: Millimetres = 60.0
    """Diameter of the plunger, and so of the biscuit."""
    pressure_mpa: Megapascals = 70.0
    """Mean intensification pressure."""
    pressure_sd_mpa: Megapascals = 1.0
    """Its standard deviation from shot to shot, each on its own."""
    pressure_lsl_mpa: Megapascals = 65.0
    """Lower specification limit."""
    pressure_usl_mpa: Megapascals = 75.0
    """Upper specification limit."""
    slow_mps: Speed = 0.25
    """Mean speed of the plunger in the slow shot, which brings the metal to the gate."""
    fast_mps: Speed = 4.0
    """Mean speed of the plunger in the fast shot, which fills the cavity."""
    vacuum_mbar: Annotated[float, Field(gt=0, json_schema_extra={"unit": "mbar"})] = 90.0
    """Mean pressure left in the cavity when the fast shot begins."""

    def settings_problems(self) -> list[str]:
        """Limits must be in order."""
        limits = {
            "biscuit": (self.biscuit_lsl_mm, self.biscuit_usl_mm),
            "pressure": (self.pressure_lsl_mpa, self.pressure_usl_mpa),
        }
        return [
            f"{name}: lower limit {low:g} is not below the upper {high:g}"
            for name, (low, high) in limits.items()
            if low >= high
        ]


class CastingCell(Unit):
    """Shoots lot after lot.

    Breakdowns come as a Poisson process over running time, so with nothing else in its way the
    share of running time tends to ``mtbf_s / (mtbf_s + mttr_s)``. A repair is corrective
    maintenance, and a service, due after ``maintain_every_h`` of running time, preventive; a die
    change is mode set-up. The energy counter is the exact integral of a power that is constant
    within each phase. The die nears its running temperature with a time constant of 15 shots and
    cools with one of 40 minutes. The biscuit is an AR(1) process from shot to shot, but for short
    doses; the pressure is normal around a mean that falls by 8 % for each millimetre the biscuit is
    below its lower limit, and by 15 % if the gate is frozen. Both are measured to a tenth.
    """

    channels: Mapping[str, str] = {
        "state": "PackML", "mode": "1", "maintenance": "1", "produced": "1", "scrap": "1",
        "rework": "1", "inspected": "1", "first_pass": "1", "quantity": "1", "planned_scrap": "1",
        "energy_kwh": "kWh", "co2_kg_per_kwh": "kg/kWh", "phase": "1", "metal_c": "degC",
        "die_c": "degC", "locking_kn": "kN", "cycle_s": "s", "dose_kg": "kg", "biscuit_mm": "mm",
        "slow_mps": "m/s", "fast_mps": "m/s", "vacuum_mbar": "mbar", "pressure_mpa": "MPa",
        "spray_s": "s",
        **LOT_CHANNELS,
    }  # fmt: skip

    def __init__(self, spec: CastingCellSpec, floor: Floor) -> None:
        self.spec = spec
        super().__init__(spec, floor)
        now = self.env.now
        self.node = spec.node
        watts = spec.power_kw * 1000 / _SCALE
        phases = [Phase(ppm, round(watts * weight)) for _, ppm, weight in PHASES]
        self.phases = Cycles(now, self.watts(S.STOPPED), phases)
        self.energy = self.phases
        self.produced = Steps(now, 0)
        self.scrap = Steps(now, 0)
        self.rework = Steps(now, 0)
        self.first_pass = Steps(now, 0)
        self.shots = Shots()
        self.output = Output(
            self.env, floor.plant.pieces_per_container, spec.output_slots, self._call
        )
        self._until_failure_ns = ns(self.dice.exponential(spec.mtbf_s))
        self._until_service_ns = ns(spec.maintain_every_h * 3_600)
        identity = crc32(self.path.encode())
        self._coming = Coming(spec, np.random.default_rng([floor.seed, identity, 2]))
        self._bench_dice = np.random.default_rng([floor.seed, identity, 3])
        self._gauge_dice = np.random.default_rng([floor.seed, identity, 4])
        """What is measured of a shot and causes nothing."""
        self._casting: Order | None = None
        """The order shots are made for; then only the cell itself puts pieces on the lane."""
        self._good = 0
        """Good pieces of that order."""
        self._in_run: Ints = np.empty(0, dtype=np.int64)
        """When the good pieces are shot that are not on the lane yet, since a run is under way."""
        self._bench: deque[tuple[Order, int]] = deque()
        """Pieces to be reworked, the one in hand first, with the time of their shot, which may be
        still to come."""
        self._mended: deque[tuple[Order, int]] = deque()
        """Reworked pieces that wait for a place on the lane."""
        self._to_bench = Bell(self.env)
        self.env.process(self._rework())
        self._last_shot_ns = now
        ambient, die = np.array([_AMBIENT_C]), np.array([spec.die_c])
        warm_s = _WARM_SHOTS * spec.cycle_s
        self._die = Warmth(self.phases, ambient, die, ambient, warm_s, _COOL_S)
        self._holding = 0.0
        """Deviation of the holding furnace at ``_sampled_ns``, in standard deviations."""
        self._sampled_ns = now

    def watts(self, state: S) -> int:
        """What it draws between shots."""
        return round(self.spec.standby_kw * 1000)

    def _call(self, container: Container) -> None:
        self.floor.onward(container, self)

    def pieces(self) -> int:
        """Castings on its output lane and at the bench, or just shot."""
        now = self.env.now
        shot = int(self._in_run.searchsorted(now, side="right"))
        return (
            self.output.pieces() + shot + sum(shot_ns <= now for _, shot_ns in self._bench)
            + len(self._mended)
        )  # fmt: skip

    @property
    def limits(self) -> Mapping[str, tuple[float, float]]:
        """Of what is measured at each shot."""
        spec = self.spec
        return {
            "biscuit_mm": (spec.biscuit_lsl_mm, spec.biscuit_usl_mm),
            "pressure_mpa": (spec.pressure_lsl_mpa, spec.pressure_usl_mpa),
        }

    def run(self) -> Process:
        """Make lot after lot; idle while there is none."""
        die: str | None = None  # the first one is in the machine already
        while True:
            yield from self.rest()
            job = self.floor.dispatch.next_job(self)
            if job is None:
                yield from self.stand_by(self.spec.reset_s, self.floor.dispatch.bell(self))
                continue
            order, quantity, tool = job.order, job.quantity, job.step.tool
            changes, die = die is not None and tool != die, tool
            set_up_s = self.spec.die_change_s if changes else self.spec.reset_s
            self.register(order, job.step.pri_s, set_up_s)
            if changes:
                yield from self._change_die()
            else:
                yield from self.pace(S.RESETTING, set_up_s)
            yield from self._start_up()
            self._casting, self._good = order, 0
            yield from self._cast(order, quantity)
            self._casting = None
            self.output.close()
            self._to_bench.ring()
            yield from self.pace(S.COMPLETING, 2.0)
            yield from self.pace(S.COMPLETE, 1.0)

    def _change_die(self) -> Process:
        spread = self.spec.die_change_spread * float(self.dice.standard_normal())
        self.mode.set(self.env.now, Mode.SETUP)
        self.enter(S.RESETTING)
        yield from self.floor.operators.fetch("set_up")
        yield self.env.timeout(ns(self.spec.die_change_s * max(1.0 + spread, 0.5)))
        self.floor.operators.release("set_up")
        self.mode.set(self.env.now, Mode.PRODUCTION)

    def _start_up(self) -> Process:
        yield from self.pace(S.IDLE, 1.0)
        yield from self.pace(S.STARTING, self.spec.warm_up_s)
        self.enter(S.EXECUTE)

    def _restart(self) -> Process:
        yield from self.pace(S.RESETTING, self.spec.reset_s)
        yield from self._start_up()

    def _cast(self, order: Order, quantity: int) -> Process:
        spec = self.spec
        while True:
            self._take_mended()
            if self._good >= quantity:
                return
            if self._until_service_ns <= 0:
                yield from self._be_serviced()
                continue
            yield from self.await_outside(
                lambda: self.output.room(order), self.output.bell, self._restart
            )
            if self.planned_left_ns() < ns(spec.cycle_s):  # the shot would not end in time
                yield from self.pace(S.STOPPING, 5.0)
                self.enter(S.STOPPED)
                yield self.env.timeout(self.planned_left_ns())
                yield from self.rest()
                yield from self._restart()
                continue
            yield from self._shoot(order, quantity)

    def _shoot(self, order: Order, quantity: int) -> Process:
        """Make shots up to the first thing that ends their run."""
        self.output.begin(order)
        last_ns = self.env.now + self.planned_left_ns() - ns(self.spec.cycle_s)
        good = self._good + min(self.output.left(order), quantity - self._good)
        while (now := self.env.now) <= last_ns and self._good < good and self._until_service_ns > 0:
            if now - self._last_shot_ns > ns(self.spec.cooled_after_s):
                self._coming.restart()
            run, broken_ns = self._coming.take(
                Limits(
                    self._until_failure_ns, self._until_service_ns, last_ns - now, good - self._good
                )
            )
            ends_ns = now + run.cycle_ns.cumsum()
            runs_ns = int(ends_ns[-1]) - now if len(ends_ns) else 0
            self.phases.log(now, run.cycle_ns)
            self._log(order, ends_ns, run)
            if broken_ns is not None:
                self.phases.log_part(now + runs_ns, self._until_failure_ns - runs_ns, broken_ns)
                runs_ns = self._until_failure_ns
            self._until_failure_ns -= runs_ns
            self._until_service_ns -= runs_ns
            yield self.env.timeout(runs_ns)
            made: list[int] = self._in_run.tolist()
            self._in_run = self._in_run[:0]
            self._good += len(made)
            self.output.put_many(order, made)
            if broken_ns is not None:
                yield from self._break_down()
                return

    def _log(self, order: Order, ends_ns: Ints, run: Run) -> None:
        """Book whole shots, some of them ahead of time."""
        if not len(ends_ns):
            return
        self._last_shot_ns = int(ends_ns[-1])
        self.shots.log(ends_ns, run)
        self.produced.add_many(ends_ns)
        self.floor.flow.enter_many(ends_ns, order)
        self._in_run = ends_ns[~run.bad]
        self.first_pass.add_many(self._in_run)
        if not run.bad.any():
            return
        lost_ns = ends_ns[run.bad & ~run.mends]
        self.scrap.add_many(lost_ns)
        self.floor.flow.lose_many(lost_ns, self.floor.flow.production_loss, order)
        if run.mends.any():
            mends_ns: list[int] = ends_ns[run.mends].tolist()
            self.rework.add_many(mends_ns)
            self._bench.extend((order, shot_ns) for shot_ns in mends_ns)
            self._to_bench.ring()

    def _take_mended(self) -> None:
        """Put what comes from the bench on the lane, as far as there is room."""
        while self._mended and self.output.room(self._mended[0][0]):
            order, entered_ns = self._mended.popleft()
            self._good += order is self._casting
            self.output.put(order, entered_ns)
            if order is not self._casting:
                self.output.close()

    def _rework(self) -> Process:
        """The bench: piece after piece, for as long as the plant runs. While no shot is made it
        puts on the lane what it has mended."""
        spec, env = self.spec, self.env
        left_ns = ns(spec.rework_s)
        while True:
            if self._casting is None:
                self._take_mended()
            if not self._bench:
                yield self._to_bench.event | self.output.bell.event
            elif self._bench[0][1] > env.now:
                yield env.timeout(self._bench[0][1] - env.now)
            elif (planned_ns := self.planned_left_ns()) <= 0:
                yield env.timeout(self.floor.calendar.resumes_ns(env.now) - env.now)
            elif planned_ns < left_ns:
                yield env.timeout(planned_ns)
                left_ns -= planned_ns
            else:
                yield env.timeout(left_ns)
                left_ns = ns(spec.rework_s)
                piece = self._bench.popleft()
                if self._bench_dice.random() < spec.rework_pass_ratio:
                    self._mended.append(piece)
                else:
                    self.floor.flow.lose(env.now, self.floor.flow.production_loss, piece[0])

    def _be_serviced(self) -> Process:
        """Stand for preventive maintenance, then start anew."""
        yield from self.pace(S.STOPPING, 5.0)
        self.mode.set(self.env.now, Mode.MAINTENANCE)
        self.enter(S.STOPPED)
        yield from self.be_maintained("maintain", self.spec.maintain_s)
        self.mode.set(self.env.now, Mode.PRODUCTION)
        self._until_service_ns = ns(self.spec.maintain_every_h * 3_600)
        yield from self.rest()
        yield from self._restart()

    def _break_down(self) -> Process:
        repair_s = self.dice.exponential(self.spec.mttr_s)
        if self.dice.random() < self.spec.abort_ratio:
            yield from self.pace(S.ABORTING, 2.0)
            self.enter(S.ABORTED)
            yield from self.be_maintained("repair", repair_s)
            yield from self.pace(S.CLEARING, 30.0)
            yield from self.pace(S.STOPPED, 5.0)
            yield from self.rest()
            yield from self._restart()
        else:
            yield from self.pace(S.HOLDING, 3.0)
            self.enter(S.HELD)
            yield from self.be_maintained("repair", repair_s)
            yield from self.pace(S.UNHOLDING, 5.0)
            self.enter(S.EXECUTE)
        self._until_failure_ns = ns(self.dice.exponential(self.spec.mtbf_s))

    def first_reports(self, t_ns: int) -> list[Report]:
        """State and counters at the start."""
        return [
            self.state_report(t_ns),
            Columns(self.asset, "process", t_ns, (t_ns,), {
                "state": (self.state.get(t_ns),), "produced": (0,), "scrap": (0,), "rework": (0,),
                "inspected": (0,), "first_pass": (0,), "energy_kwh": (0.0,), "phase": (0,),
                "metal_c": (round(self.spec.metal_c, 1),), "die_c": (_AMBIENT_C,),
                "locking_kn": (0,),
            }),
        ]  # fmt: skip

    def reports(self, stretch: Stretch) -> list[Report]:
        """States and shots at once, signals by the pane. Without samples: the energy."""
        signals = {} if stretch.bundled else self._signals(stretch)
        return [
            *self.state_reports(stretch), *self.process_reports(stretch, signals),
            *self.counter_reports(stretch),
            *self._shot_reports(stretch),
        ]  # fmt: skip

    def _signals(self, stretch: Stretch) -> dict[str, list[float] | list[int]]:
        spec, times = self.spec, stretch.times
        die_c = self._die.follow(stretch)[0]
        if not len(times):
            return {}
        phase, energy = self.phases.follow(times)
        strays = self.noise.standard_normal((len(times), 3)).T  # so that blocks change no draw
        locking = _LOCKED[phase] * (0.1 * spec.locking_kn) * (1.0 + 0.01 * strays[0])
        gaps = np.empty(len(times))
        gaps[0], gaps[1:] = times[0] - self._sampled_ns, times[1:] - times[:-1]
        holding = noise(self._holding, strays[2], gaps / ns(_HOLDING_S))
        self._holding, self._sampled_ns = float(holding[-1]), int(times[-1])
        heat = (die_c - _AMBIENT_C) / (spec.die_c - _AMBIENT_C)
        metal_c = spec.metal_c + _HOLDING_SD_C * holding
        felt_c = die_c + 0.4 * strays[1] + _SWING_C[phase] * heat
        return {
            "state": self.state.told(times),
            "produced": self.produced.told(times),
            "scrap": self.scrap.told(times),
            "energy_kwh": on_grid(energy, 100_000),
            "phase": phase.tolist(),
            "metal_c": rounded(metal_c, 1),
            "die_c": rounded(felt_c, 1),
            "locking_kn": (10 * np.rint(locking).astype(np.int64)).tolist(),
        }

    def _shot_reports(self, stretch: Stretch) -> list[Report]:
        which = self.shots.between(stretch.after_ns, stretch.to_ns)
        ends_ns = self.shots.end_ns[which].tolist()
        if not ends_ns:
            return []
        spec, shots, times = self.spec, self.shots, np.array(ends_ns, dtype=np.int64)
        cycle_s = np.array(shots.cycle_ms[which]) / 1000
        biscuit_mm = np.array(shots.biscuit_um[which]) / 1000
        kg_per_mm = _KG_PER_MM3 * np.pi / 4.0 * spec.plunger_mm**2
        dose_kg = spec.dose_kg + kg_per_mm * (biscuit_mm - spec.biscuit_mm)
        means = np.array((spec.slow_mps, spec.fast_mps, spec.vacuum_mbar))
        strays = self._gauge_dice.standard_normal((len(ends_ns), len(means)))
        slow_mps, fast_mps, vacuum_mbar = (means * np.maximum(1.0 + _GAUGES * strays, 0.1)).T
        produced = self.produced.told(times)
        ch = {
            "produced": produced,
            "scrap": self.scrap.told(times),
            "rework": self.rework.told(times),
            "inspected": produced,
            "first_pass": self.first_pass.told(times),
            "cycle_s": cycle_s.tolist(),
            "dose_kg": rounded(dose_kg, 3),
            "biscuit_mm": biscuit_mm.tolist(),
            "slow_mps": rounded(slow_mps, 3),
            "fast_mps": rounded(fast_mps, 2),
            "vacuum_mbar": rounded(vacuum_mbar, 0),
            "pressure_mpa": (np.array(shots.pressure_kpa[which]) / 1000).tolist(),
            "spray_s": rounded(_SPRAY * cycle_s, 2),
        }
        return event_reports(self.asset, "event", stretch, ends_ns, ch)


MODEL = (CastingCellSpec, CastingCell)
