"""A die-casting cell: shots, scrap while the die warms up, breakdowns, die changes.

A shot fails for one of two independent causes: the process out of control (``scrap_ratio``), and a
die not yet warm: 98 % of the first three shots after a start, 76 % of the next three, 8 % up to the
tenth, 3 % to the 50th, 1.2 % to the 300th (domain facts, finding 10).
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from config.units import NS_PER_MS, Kilowatts, Ratio, Seconds
from ingest.messages import Times
from ingest.packml import PackML as S
from simulator.device import (
    Celsius,
    Columns,
    Count,
    DeviceSpec,
    Kilonewtons,
    Megapascals,
    Millimetres,
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
from simulator.plant.floor import Container, Floor, Output

WARM_UP = ((3, 0.98), (6, 0.76), (10, 0.08), (50, 0.03), (300, 0.012))
"""Up to which shot after a start, and the share rejected for a cold die."""

PHASES = (("close", 0.08, 1.0), ("pour", 0.10, 0.5), ("shot", 0.03, 3.2), ("intensify", 0.09, 1.8),
          ("dwell", 0.42, 0.6), ("open", 0.13, 1.4), ("spray", 0.15, 0.7))  # fmt: skip
"""Share of the cycle, and power against the mean of the phase list's own scale."""
_LOCKED = (3, 4, 5)
"""Phases (from 1) in which the die is locked."""
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
    die_change_s: Seconds = 2_400.0
    """Set-up when the next order needs another die."""
    reset_s: Seconds = 60.0
    """Set-up when the die stays."""
    warm_up_s: Seconds = 120.0
    """From start to the first shot."""
    cooled_after_s: Seconds = 300.0
    """After a pause this long the die is cold again."""
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
    """Biscuit."""
    pressure_mpa: Megapascals = 70.0
    """Intensification pressure."""


def cold_scrap(shot: int) -> float:
    """Share rejected for a cold die at the n-th shot (from 1) after a start."""
    return next((share for upto, share in WARM_UP if shot <= upto), 0.0)


class CastingCell(Unit):
    """Shoots until its orders are done.

    Breakdowns come as a Poisson process over running time, so with nothing else in its way the
    share of running time tends to ``mtbf_s / (mtbf_s + mttr_s)``. The energy counter is the exact
    integral of a power that is constant within each phase. The die nears its running temperature
    with a time constant of 15 shots and cools with one of 40 minutes.
    """

    channels: ClassVar[Mapping[str, str]] = {
        "state": "PackML", "produced": "1", "scrap": "1", "energy_kwh": "kWh", "metal_c": "degC",
        "die_c": "degC", "locking_kn": "kN", "cycle_s": "s", "biscuit_mm": "mm",
        "pressure_mpa": "MPa",
    }  # fmt: skip

    def __init__(self, spec: CastingCellSpec, floor: Floor) -> None:
        self.spec = spec
        super().__init__(spec, floor)
        now = self.env.now
        self.node = spec.node
        self.produced = Steps(now, 0)
        self.scrap = Steps(now, 0)
        self.phase = Steps(now, 0)
        """Number of the phase from 1, 0 between shots."""
        self.shots: list[tuple[int, int, bool, int]] = []
        """End, duration in ms, whether bad, number since the last start."""
        self.output = Output(
            self.env, floor.plant.pieces_per_container, spec.output_slots, self._call
        )
        self._orders = floor.plant.orders_of(spec.name)
        self._until_failure_ns = ns(self.dice.exponential(spec.mtbf_s))
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
        """Castings on its output lane."""
        return self.output.pieces()

    def run(self) -> Process:
        """Make order after order; then idle."""
        mould = self._orders[0].mould if self._orders else ""
        for order in self._orders:
            yield from self.rest()
            self.register(order, order.pri_s)
            changes, mould = order.mould != mould, order.mould
            yield from self._start_up(self.spec.die_change_s if changes else self.spec.reset_s)
            yield from self._cast(order)
            self.output.close()
            yield from self.pace(S.COMPLETING, 2.0)
            yield from self.pace(S.COMPLETE, 1.0)
        yield from self.stand_by(self.spec.reset_s)

    def _start_up(self, set_up_s: float) -> Process:
        yield from self.pace(S.RESETTING, set_up_s)
        yield from self.pace(S.IDLE, 1.0)
        yield from self.pace(S.STARTING, self.spec.warm_up_s)
        self.enter(S.EXECUTE)

    def _restart(self) -> Process:
        yield from self._start_up(self.spec.reset_s)

    def _cast(self, order: Order) -> Process:
        spec, good = self.spec, 0
        while good < order.quantity:
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
            self._log_phases(cycle_ns, runs_ns)
            yield self.env.timeout(runs_ns)
            if runs_ns < cycle_ns:
                yield from self._break_down()
            else:
                good += self._end_shot(order, cycle_ns)

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

    def _end_shot(self, order: Order, cycle_ns: int) -> bool:
        now = self.env.now
        pause_ns = now - cycle_ns - self._last_shot_ns
        self._since_start = 1 if pause_ns > ns(self.spec.cooled_after_s) else self._since_start + 1
        self._last_shot_ns = now
        pass_ratio = (1.0 - self.spec.scrap_ratio) * (1.0 - cold_scrap(self._since_start))
        bad = bool(self.dice.random() >= pass_ratio)
        self.produced.add(now)
        self.floor.flow.entered.add(now)
        if bad:
            self.scrap.add(now)
            self.floor.flow.scrapped.add(now)
        else:
            self.output.put(order)
        self.shots.append((now, round(cycle_ns / NS_PER_MS), bad, self._since_start))
        return not bad

    def _break_down(self) -> Process:
        repair_s = self.dice.exponential(self.spec.mttr_s)
        if self.dice.random() < self.spec.abort_ratio:
            yield from self.pace(S.ABORTING, 2.0)
            yield from self.pace(S.ABORTED, repair_s)
            yield from self.pace(S.CLEARING, 30.0)
            yield from self.pace(S.STOPPED, 5.0)
            yield from self.rest()
            yield from self._restart()
        else:
            yield from self.pace(S.HOLDING, 3.0)
            yield from self.pace(S.HELD, repair_s)
            yield from self.pace(S.UNHOLDING, 5.0)
            self.enter(S.EXECUTE)
        self._until_failure_ns = ns(self.dice.exponential(self.spec.mtbf_s))

    def first_reports(self, t_ns: int) -> list[Report]:
        """State and counters at the start."""
        return [
            Columns(self.asset, "state", t_ns, (t_ns,), {"state": (self.state.get(t_ns),)}),
            Columns(self.asset, "process", t_ns, (t_ns,), {
                "state": (self.state.get(t_ns),), "produced": (0,), "scrap": (0,),
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
        locked = np.isin(phase, _LOCKED)
        locking = np.where(locked, spec.locking_kn * (1.0 + 0.01 * noise[:, 0]), 0.0)
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
        # the surface is hottest while metal dwells in it and coolest after the spray
        swing = np.array([0.0, -5.0, 0.0, 10.0, 14.0, 8.0, 2.0, -8.0])[phase]
        heat = (np.array(die) - 30.0) / (spec.die_c - 30.0)
        ch = {
            "state": self.state.at(times).tolist(),
            "produced": self.produced.at(times).tolist(),
            "scrap": self.scrap.at(times).tolist(),
            "energy_kwh": on_grid(self.energy.at(times), 100_000),
            "metal_c": rounded(np.array(metal), 1),
            "die_c": rounded(np.array(die) + swing * heat, 1),
            "locking_kn": (np.rint(locking / 10.0).astype(np.int64) * 10).tolist(),
        }
        return [
            *self.state_reports(times), *self.process_reports(times, ch), *self._shot_reports(times)
        ]  # fmt: skip

    def _shot_reports(self, times: Times) -> list[Report]:
        after_ns, to_ns = span(times)
        out: list[Report] = []
        low = len(self.shots)
        while low and self.shots[low - 1][0] > after_ns:
            low -= 1
        for end_ns, cycle_ms, bad, since_start in self.shots[low:]:
            if end_ns > to_ns:
                break
            a, b = self.noise.standard_normal(2).tolist()
            cold = bad and since_start <= 10
            ch = {
                "produced": (self.produced.get(end_ns),),
                "scrap": (self.scrap.get(end_ns),),
                "cycle_s": (cycle_ms / 1000,),
                "biscuit_mm": (round(self.spec.biscuit_mm + 1.5 * a, 1),),
                "pressure_mpa": (round(self.spec.pressure_mpa * (0.93 if cold else 1.0) + b, 1),),
            }
            out.append(Columns(self.asset, "event", end_ns, (end_ns,), ch))
        return out


MODEL = (CastingCellSpec, CastingCell)
