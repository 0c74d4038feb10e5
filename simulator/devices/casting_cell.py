"""A die-casting cell: shots, warm-up scrap, rework, breakdowns, die changes, service.

A shot is rejected for one of two independent causes: the process out of control (``scrap_ratio``),
and a die not yet warm: 98 % of the first three shots after a start, 76 % of the next three, 8 % up
to the tenth, 3 % to the 50th, 1.2 % to the 300th (domain facts, finding 10). What is rejected is
scrap, or goes over the bench once:

    shot, inspected ─┬─ good ───────────────────────────────┬─ output lane     produced = inspected
                     ├─ rework ── bench, inspected again ─┬─┘                  = first_pass
                     └─ scrap                             └── production loss    + scrap + rework

The counters are of the casting operation: a piece that was to be reworked stays counted as rework,
whatever the bench made of it, and is inspected as a part once.
"""

from collections import deque
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, NamedTuple
from zlib import crc32

import numpy as np
from pydantic import Field

from config.units import NS_PER_MS, Kilowatts, Ratio, Seconds
from ingest.messages import Times
from ingest.packml import PackML as S
from simulator.device import (
    Bell,
    Celsius,
    Columns,
    Count,
    DeviceSpec,
    Kilonewtons,
    Maintenance,
    Megapascals,
    Millimetres,
    Mode,
    Process,
    Report,
    Steps,
    Unit,
    ns,
    on_grid,
    rounded,
    span,
)
from simulator.plant import Order
from simulator.plant.floor import Floor
from simulator.plant.material import Container, Output

WARM_UP = ((3, 0.98), (6, 0.76), (10, 0.08), (50, 0.03), (300, 0.012))
"""Up to which shot after a start, and the share rejected for a cold die."""

PHASES = (("close", 0.08, 1.0), ("pour", 0.10, 0.5), ("shot", 0.03, 3.2), ("intensify", 0.09, 1.8),
          ("dwell", 0.42, 0.6), ("open", 0.13, 1.4), ("spray", 0.15, 0.7))  # fmt: skip
"""Share of the cycle, and power against the mean of the phase list's own scale."""
_LOCKED = np.array([number in (3, 4, 5) for number in range(len(PHASES) + 1)])
"""In which phases (from 1) the die is locked."""
_SWING_C = np.array([0.0, -5.0, 0.0, 10.0, 14.0, 8.0, 2.0, -8.0])
"""The surface is hottest while metal dwells in it and coolest after the spray."""
_COLD_SHOTS = 10
"""Rejects among so many shots after a start are cold shuts: their pressure is low, and nothing can
be mended."""
_SCALE = sum(share * weight for _, share, weight in PHASES)


class CastingCellSpec(DeviceSpec):
    """Settings of one casting cell."""

    kind: Literal["casting_cell"] = "casting_cell"
    node: str
    """Where AGVs fetch its containers."""
    cycle_s: Seconds = 60.0
    """Mean time of a shot."""
    cycle_spread: Ratio = 0.01
    """Standard deviation of a shot's time, as a share of it."""
    scrap_ratio: Ratio = 0.04
    """Share of shots rejected in control, with a warm die."""
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
    """Share of a warm die's rejects that can be reworked."""
    rework_s: Seconds = 300.0
    """Time to rework and inspect a piece; the bench takes one at a time, in planned time."""
    rework_pass_ratio: Ratio = 0.9
    """Share of reworked pieces that are good then; the others are lost."""
    output_slots: Count = 2
    """Full containers that may wait for a vehicle."""
    power_kw: Kilowatts = 60.0
    """Mean draw while shooting."""
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
    """Lower specification limit."""
    biscuit_usl_mm: Millimetres = 30.0
    """Upper specification limit."""
    pressure_mpa: Megapascals = 70.0
    """Mean intensification pressure."""
    pressure_sd_mpa: Megapascals = 1.0
    """Its standard deviation from shot to shot, each on its own."""
    pressure_lsl_mpa: Megapascals = 65.0
    """Lower specification limit."""
    pressure_usl_mpa: Megapascals = 75.0
    """Upper specification limit."""

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


class Shot(NamedTuple):
    """What became of one shot, and what was measured."""

    end_ns: int
    cycle_ms: int
    bad: bool
    """Whether it was rejected."""
    number: int
    """Since the last start with a cold die."""
    biscuit_um: int
    pressure_kpa: int


def cold_scrap(shot: int) -> float:
    """Share rejected for a cold die at the n-th shot (from 1) after a start."""
    return next((share for upto, share in WARM_UP if shot <= upto), 0.0)


class CastingCell(Unit):
    """Shoots until its orders are done.

    Breakdowns come as a Poisson process over running time, so with nothing else in its way the
    share of running time tends to ``mtbf_s / (mtbf_s + mttr_s)``. A repair is corrective
    maintenance, and a service, due after ``maintain_every_h`` of running time, preventive; a die
    change is mode set-up. The energy counter is the exact integral of a power that is constant
    within each phase. The die nears its running temperature with a time constant of 15 shots and
    cools with one of 40 minutes. The biscuit is an AR(1) process from shot to shot, the pressure is
    normal around its mean; a cold shut has 7 % less. Both are measured to a tenth.
    """

    channels: ClassVar[Mapping[str, str]] = {
        "state": "PackML", "mode": "1", "maintenance": "1", "produced": "1", "scrap": "1",
        "rework": "1", "inspected": "1", "first_pass": "1", "quantity": "1", "planned_scrap": "1",
        "energy_kwh": "kWh", "co2_kg_per_kwh": "kg/kWh", "metal_c": "degC", "die_c": "degC",
        "locking_kn": "kN", "cycle_s": "s", "biscuit_mm": "mm", "pressure_mpa": "MPa",
    }  # fmt: skip

    def __init__(self, spec: CastingCellSpec, floor: Floor) -> None:
        self.spec = spec
        super().__init__(spec, floor)
        now = self.env.now
        self.node = spec.node
        self.produced = Steps(now, 0)
        self.scrap = Steps(now, 0)
        self.rework = Steps(now, 0)
        self.first_pass = Steps(now, 0)
        self.phase = Steps(now, 0)
        """Number of the phase from 1, 0 between shots."""
        self.shots: list[Shot] = []
        self.output = Output(
            self.env, floor.plant.pieces_per_container, spec.output_slots, self._call
        )
        self._orders = floor.plant.orders_of(spec.name)
        self._until_failure_ns = ns(self.dice.exponential(spec.mtbf_s))
        self._until_service_ns = ns(spec.maintain_every_h * 3_600)
        self._quality = np.random.default_rng([floor.seed, crc32(self.path.encode()), 2])
        """What is measured of a shot, and what becomes of a reject: draws of their own."""
        self._biscuit = float(self._quality.standard_normal())
        """Its deviation, in standard deviations."""
        self._casting: Order | None = None
        """The order shots are made for; then only the cell itself puts pieces on the lane."""
        self._good = 0
        """Good pieces of that order."""
        self._bench: deque[tuple[Order, int]] = deque()
        """Pieces to be reworked, the one in hand first, with the time of their shot."""
        self._mended: deque[tuple[Order, int]] = deque()
        """Reworked pieces that wait for a place on the lane."""
        self._to_bench = Bell(self.env)
        self.env.process(self._rework())
        self._since_start = 0
        self._last_shot_ns = now
        self._die_c = 30.0
        self._metal_c = spec.metal_c

    def watts(self, state: S) -> int:
        """Phases set the power of a shot themselves."""
        return round(self.spec.standby_kw * 1000)

    def _call(self, container: Container) -> None:
        self.floor.fleet.call(
            container, self, tuple(self.floor.trimming) or (self.floor.warehouse,)
        )

    def pieces(self) -> int:
        """Castings on its output lane and at the bench."""
        return self.output.pieces() + len(self._bench) + len(self._mended)

    @property
    def limits(self) -> Mapping[str, tuple[float, float]]:
        """Of what is measured at each shot."""
        spec = self.spec
        return {
            "biscuit_mm": (spec.biscuit_lsl_mm, spec.biscuit_usl_mm),
            "pressure_mpa": (spec.pressure_lsl_mpa, spec.pressure_usl_mpa),
        }

    def run(self) -> Process:
        """Make order after order; then idle."""
        mould = self._orders[0].mould if self._orders else ""
        for order in self._orders:
            yield from self.rest()
            changes, mould = order.mould != mould, order.mould
            set_up_s = self.spec.die_change_s if changes else self.spec.reset_s
            self.register(order, order.pri_s, set_up_s)
            if changes:
                spread = self.spec.die_change_spread * float(self._quality.standard_normal())
                set_up_s *= max(1.0 + spread, 0.5)
                self.mode.set(self.env.now, Mode.SETUP)
            yield from self._start_up(set_up_s)
            self._casting, self._good = order, 0
            yield from self._cast(order)
            self._casting = None
            self.output.close()
            self._to_bench.ring()
            yield from self.pace(S.COMPLETING, 2.0)
            yield from self.pace(S.COMPLETE, 1.0)
        yield from self.stand_by(self.spec.reset_s)

    def _start_up(self, set_up_s: float) -> Process:
        yield from self.pace(S.RESETTING, set_up_s)
        self.mode.set(self.env.now, Mode.PRODUCTION)
        yield from self.pace(S.IDLE, 1.0)
        yield from self.pace(S.STARTING, self.spec.warm_up_s)
        self.enter(S.EXECUTE)

    def _restart(self) -> Process:
        yield from self._start_up(self.spec.reset_s)

    def _cast(self, order: Order) -> Process:
        spec = self.spec
        while True:
            self._take_mended()
            if self._good >= order.quantity:
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
            cycle_ns = ns(spec.cycle_s * max(self.dice.normal(1.0, spec.cycle_spread), 0.5))
            runs_ns = min(cycle_ns, self._until_failure_ns)
            self._until_failure_ns -= runs_ns
            self._until_service_ns -= runs_ns
            self._log_phases(cycle_ns, runs_ns)
            yield self.env.timeout(runs_ns)
            if runs_ns < cycle_ns:
                yield from self._break_down()
            else:
                self._end_shot(order, cycle_ns)

    def _log_phases(self, cycle_ns: int, runs_ns: int) -> None:
        """Write the phases of the shot that begins now: it is known how long it will run."""
        start_ns, share, watts = self.env.now, 0.0, self.spec.power_kw * 1000 / _SCALE
        for number, (_, length, weight) in enumerate(PHASES, start=1):
            at_ns = round(share * cycle_ns)
            if at_ns >= runs_ns:
                break
            self.phase.set(start_ns + at_ns, number)
            self.energy.set(start_ns + at_ns, round(watts * weight))
            share += length
        self.phase.set(start_ns + runs_ns, 0)
        self.energy.set(start_ns + runs_ns, self.watts(S.EXECUTE))

    def _end_shot(self, order: Order, cycle_ns: int) -> None:
        now = self.env.now
        pause_ns = now - cycle_ns - self._last_shot_ns
        self._since_start = 1 if pause_ns > ns(self.spec.cooled_after_s) else self._since_start + 1
        self._last_shot_ns = now
        pass_ratio = (1.0 - self.spec.scrap_ratio) * (1.0 - cold_scrap(self._since_start))
        bad = bool(self.dice.random() >= pass_ratio)
        cold = bad and self._since_start <= _COLD_SHOTS
        self.produced.add(now)
        self.floor.flow.enter(now)
        if not bad:
            self.first_pass.add(now)
            self._good += 1
            self.output.put(order, now)
        elif not cold and self._quality.random() < self.spec.rework_ratio:
            self.rework.add(now)
            self._bench.append((order, now))
            self._to_bench.ring()
        else:
            self.scrap.add(now)
            self.floor.flow.lose(now, self.floor.flow.production_loss)
        cycle_ms = round(cycle_ns / NS_PER_MS)
        self.shots.append(Shot(now, cycle_ms, bad, self._since_start, *self._measure(cold=cold)))

    def _measure(self, *, cold: bool) -> tuple[int, int]:
        """Biscuit in µm and pressure in kPa of a shot, each to a tenth of its unit."""
        spec = self.spec
        step, strays = self._quality.standard_normal(2).tolist()
        keeps = spec.biscuit_memory
        self._biscuit = keeps * self._biscuit + (1.0 - keeps * keeps) ** 0.5 * step
        biscuit = spec.biscuit_mm + spec.biscuit_sd_mm * self._biscuit
        pressure = spec.pressure_mpa * (0.93 if cold else 1.0) + spec.pressure_sd_mpa * strays
        return 100 * round(10 * biscuit), 100 * round(10 * pressure)

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
            elif (planned_ns := self.planned_left_ns()) <= 0:
                yield env.timeout(self.floor.calendar.resumes_ns(env.now) - env.now)
            elif planned_ns < left_ns:
                yield env.timeout(planned_ns)
                left_ns -= planned_ns
            else:
                yield env.timeout(left_ns)
                left_ns = ns(spec.rework_s)
                piece = self._bench.popleft()
                if self._quality.random() < spec.rework_pass_ratio:
                    self._mended.append(piece)
                else:
                    self.floor.flow.lose(env.now, self.floor.flow.production_loss)

    def _be_serviced(self) -> Process:
        """Stand for preventive maintenance, then start anew."""
        yield from self.pace(S.STOPPING, 5.0)
        self.mode.set(self.env.now, Mode.MAINTENANCE)
        self.maintenance.set(self.env.now, Maintenance.PREVENTIVE)
        yield from self.pace(S.STOPPED, self.spec.maintain_s)
        self.mode.set(self.env.now, Mode.PRODUCTION)
        self.maintenance.set(self.env.now, Maintenance.NONE)
        self._until_service_ns = ns(self.spec.maintain_every_h * 3_600)
        yield from self.rest()
        yield from self._restart()

    def _break_down(self) -> Process:
        repair_s = self.dice.exponential(self.spec.mttr_s)
        if self.dice.random() < self.spec.abort_ratio:
            yield from self.pace(S.ABORTING, 2.0)
            yield from self._be_repaired(S.ABORTED, repair_s)
            yield from self.pace(S.CLEARING, 30.0)
            yield from self.pace(S.STOPPED, 5.0)
            yield from self.rest()
            yield from self._restart()
        else:
            yield from self.pace(S.HOLDING, 3.0)
            yield from self._be_repaired(S.HELD, repair_s)
            yield from self.pace(S.UNHOLDING, 5.0)
            self.enter(S.EXECUTE)
        self._until_failure_ns = ns(self.dice.exponential(self.spec.mtbf_s))

    def _be_repaired(self, state: S, seconds: float) -> Process:
        self.maintenance.set(self.env.now, Maintenance.CORRECTIVE)
        yield from self.pace(state, seconds)
        self.maintenance.set(self.env.now, Maintenance.NONE)

    def first_reports(self, t_ns: int) -> list[Report]:
        """State and counters at the start."""
        return [
            self.state_report(t_ns),
            Columns(self.asset, "process", t_ns, (t_ns,), {
                "state": (self.state.get(t_ns),), "produced": (0,), "scrap": (0,), "rework": (0,),
                "inspected": (0,), "first_pass": (0,),
                "energy_kwh": (0.0,), "metal_c": (round(self._metal_c, 1),),
                "die_c": (round(self._die_c, 1),), "locking_kn": (0,),
            }),
        ]  # fmt: skip

    def reports(self, times: Times) -> list[Report]:
        """States and shots at once, signals by the pane."""
        spec = self.spec
        phase = self.phase.at(times)
        noise = self.noise.standard_normal((len(times), 3))
        running = phase > 0
        locking = np.where(_LOCKED[phase], spec.locking_kn * (1.0 + 0.01 * noise[:, 0]), 0.0)
        warm_share, cool_share = 1.0 / (15.0 * spec.cycle_s), 1.0 / 2_400.0
        die: list[float] = []
        metal: list[float] = []
        for runs, a, b in zip(
            running.tolist(), noise[:, 1].tolist(), noise[:, 2].tolist(), strict=True
        ):
            goal, share = (spec.die_c, warm_share) if runs else (30.0, cool_share)
            self._die_c += share * (goal - self._die_c)
            self._metal_c += (spec.metal_c - self._metal_c) / 300.0 + 0.06 * b
            die.append(self._die_c + 0.4 * a)
            metal.append(self._metal_c)
        heat = (np.array(die) - 30.0) / (spec.die_c - 30.0)
        ch = {
            "state": self.state.at(times).tolist(),
            "produced": self.produced.at(times).tolist(),
            "scrap": self.scrap.at(times).tolist(),
            "energy_kwh": on_grid(self.energy.at(times), 100_000),
            "metal_c": rounded(np.array(metal), 1),
            "die_c": rounded(np.array(die) + _SWING_C[phase] * heat, 1),
            "locking_kn": (np.rint(locking / 10.0).astype(np.int64) * 10).tolist(),
        }
        return [
            *self.state_reports(times), *self.process_reports(times, ch), *self._shot_reports(times)
        ]  # fmt: skip

    def _shot_reports(self, times: Times) -> list[Report]:
        after_ns, to_ns = span(times)
        out: list[Report] = []
        low = len(self.shots)
        while low and self.shots[low - 1].end_ns > after_ns:
            low -= 1
        for shot in self.shots[low:]:
            end_ns = shot.end_ns
            if end_ns > to_ns:
                break
            made = (self.produced.get(end_ns),)
            ch = {
                "produced": made,
                "scrap": (self.scrap.get(end_ns),),
                "rework": (self.rework.get(end_ns),),
                "inspected": made,
                "first_pass": (self.first_pass.get(end_ns),),
                "cycle_s": (shot.cycle_ms / 1000,),
                "biscuit_mm": (shot.biscuit_um / 1000,),
                "pressure_mpa": (shot.pressure_kpa / 1000,),
            }
            out.append(Columns(self.asset, "event", end_ns, (end_ns,), ch))
        return out


MODEL = (CastingCellSpec, CastingCell)
