"""A six-axis arm that trims castings: fetches a container's pieces one by one, asks its interlock.

The second joint (J1) carries the arm's own weight: its current never comes near zero mean.
"""

from collections import deque
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from config.units import NS_PER_MS, Kilowatts, Ratio, Seconds
from ingest.messages import Times
from ingest.packml import PackML as S
from simulator.device import (
    Amperes,
    Bell,
    Celsius,
    Columns,
    Count,
    DeviceSpec,
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
from simulator.plant.control import SERVICE_CHANNELS, arrive
from simulator.plant.floor import Floor
from simulator.plant.material import Container, Output

INTERLOCK_BYTES = 120
SWAP_S = 4.0
"""Putting an empty container away and the next in place."""

PHASES = ((0.15, 1.3), (0.20, 0.7), (0.45, 1.05), (0.20, 0.85))
"""Reach, lift, trim, place: share of the cycle, and current against its mean."""


class RobotArmSpec(DeviceSpec):
    """Settings of one arm."""

    kind: Literal["robot_arm"] = "robot_arm"
    node: str
    """Where AGVs bring and fetch containers."""
    cycle_min_s: Seconds = 18.0
    """Shortest cycle, without waiting for the interlock."""
    cycle_max_s: Seconds = 24.0
    """Longest cycle without a stop."""
    stop_ratio: Ratio = 0.02
    """Share of cycles with a protective stop."""
    stop_s: Seconds = 40.0
    """Mean time to acknowledge a protective stop."""
    scrap_ratio: Ratio = 0.003
    """Share of pieces spoilt."""
    input_slots: Count = 3
    """Containers at its input, the one at work and those on their way included."""
    output_slots: Count = 2
    """Full containers that may wait for a vehicle."""
    power_kw: Kilowatts = 1.2
    """Draw while it moves."""
    idle_kw: Kilowatts = 0.5
    """Draw while it stands."""
    gravity_a: Amperes = -2.24
    """Standing current of J1."""
    ambient_c: Celsius = 27.0
    """Around the motors."""
    winding_tau_s: Seconds = 2_700.0
    """Time constant of the winding."""
    winding_rise: float = 2.6
    """Rise of the winding per squared ampere, in degC/A2."""

    def settings_problems(self) -> list[str]:
        """The cycle's bounds must be in order."""
        if self.cycle_max_s < self.cycle_min_s:
            return [f"cycle_max_s {self.cycle_max_s:g} is below cycle_min_s {self.cycle_min_s:g}"]
        return []


class RobotArm(Unit):
    """Trims each piece of each container it is given.

    A cycle is uniform between its bounds, plus the interlock's round trip over the link and, in
    ``stop_ratio`` of all cycles, a protective stop of ``stop_s`` on average. The winding follows
    the square of the J1 current with one time constant.
    """

    channels: ClassVar[Mapping[str, str]] = {
        "state": "PackML", "produced": "1", "scrap": "1", "energy_kwh": "kWh",
        "co2_kg_per_kwh": "kg/kWh", "current_j1_a": "A", "winding_c": "degC", "cycle_s": "s",
        "wait_s": "s", "bin": "1", "count": "1", "down": "1", **SERVICE_CHANNELS,
    }  # fmt: skip

    def __init__(self, spec: RobotArmSpec, floor: Floor) -> None:
        self.spec = spec
        super().__init__(spec, floor)
        now = self.env.now
        self.node = spec.node
        self.control = floor.control(self.asset)
        self.produced = Steps(now, 0)
        self.scrap = Steps(now, 0)
        self.phase = Steps(now, 0)
        self.cycles: list[tuple[int, int, int]] = []
        """End, duration in ms, wait for the interlock in µs."""
        self.output = Output(
            self.env, floor.plant.pieces_per_container, spec.output_slots, self._call
        )
        self._input: deque[Container] = deque()
        self._bell = Bell(self.env)
        self._coming = 0
        self._at_work: deque[int] = deque()
        """When each piece of the container at work was shot, the one in hand first."""
        self._winding_c = spec.ambient_c
        floor.trimming.append(self)

    def watts(self, state: S) -> int:
        """Idle but for cycles, which set their own."""
        return round(self.spec.idle_kw * 1000)

    def free(self) -> int:
        """Containers there is room for, those on their way counted."""
        return self.spec.input_slots - self._coming - len(self._input) - bool(self._at_work)

    def reserve(self) -> None:
        """One will come."""
        self._coming += 1

    def receive(self, container: Container) -> None:
        """It is here."""
        self._coming -= 1
        self._input.append(container)
        self._bell.ring()

    def _call(self, container: Container) -> None:
        self.floor.fleet.call(container, self, (self.floor.warehouse,))

    def pieces(self) -> int:
        """At the input, in hand, and on the output lane."""
        return sum(c.pieces for c in self._input) + len(self._at_work) + self.output.pieces()

    def run(self) -> Process:
        """Work off container after container."""
        yield from self.rest()
        yield from self._start_up()
        while True:
            yield from self.await_outside(lambda: bool(self._input), self._bell, self._start_up)
            yield self.env.timeout(ns(SWAP_S))
            container = self._input.popleft()
            self._at_work = container.entered_ns
            if self.order.last != container.order.number:
                self.register(container.order, container.order.trim_pri_s)
            while self._at_work:
                yield from self._trim(container.order)
            self.floor.fleet.dispatch()

    def _start_up(self) -> Process:
        yield from self.pace(S.RESETTING, 10.0)
        yield from self.pace(S.IDLE, 1.0)
        yield from self.pace(S.STARTING, 5.0)
        self.enter(S.EXECUTE)

    def _trim(self, order: Order) -> Process:
        spec = self.spec
        yield from self.await_outside(
            lambda: self.output.room(order), self.output.bell, self._start_up
        )
        if self.planned_left_ns() < ns(spec.cycle_max_s):  # the cycle might not end in time
            yield from self.pace(S.STOPPING, 5.0)
            self.enter(S.STOPPED)
            yield self.env.timeout(self.planned_left_ns())
            yield from self.rest()
            yield from self._start_up()
            return
        start_ns = self.env.now
        yield from arrive(self.env, self.control.up, INTERLOCK_BYTES)
        yield from arrive(self.env, self.control.down, INTERLOCK_BYTES)
        wait_ns = self.env.now - start_ns
        cycle_ns = ns(self.dice.uniform(spec.cycle_min_s, spec.cycle_max_s))
        stops, spoilt = self.dice.random(2) < (spec.stop_ratio, spec.scrap_ratio)
        first_ns = round(cycle_ns * self.dice.random()) if stops else cycle_ns
        self._log_phases(cycle_ns, 0, first_ns)
        yield self.env.timeout(first_ns)
        if stops:
            yield from self.pace(S.HOLDING, 0.5)
            yield from self.pace(S.HELD, self.dice.exponential(spec.stop_s))
            yield from self.pace(S.UNHOLDING, 1.0)
            self.enter(S.EXECUTE)
            self._log_phases(cycle_ns, first_ns, cycle_ns)
            yield self.env.timeout(cycle_ns - first_ns)
        now = self.env.now
        entered_ns = self._at_work.popleft()
        self.produced.add(now)
        if spoilt:
            self.scrap.add(now)
            self.floor.flow.lose(now, self.floor.flow.production_loss)
        else:
            self.output.put(order, entered_ns)
        self.cycles.append((now, round((now - start_ns) / NS_PER_MS), round(wait_ns / 1000)))

    def _log_phases(self, cycle_ns: int, from_ns: int, to_ns: int) -> None:
        """Write the phases of the part of a cycle that begins now."""
        start_ns, share = self.env.now - from_ns, 0.0
        for number, (length, _) in enumerate(PHASES, start=1):
            low_ns = max(round(share * cycle_ns), from_ns)
            share += length
            if low_ns < min(round(share * cycle_ns), to_ns):
                self.phase.set(start_ns + low_ns, number)
                self.energy.set(start_ns + low_ns, round(self.spec.power_kw * 1000))
        self.phase.set(start_ns + to_ns, 0)
        self.energy.set(start_ns + to_ns, self.watts(S.EXECUTE))

    def first_reports(self, t_ns: int) -> list[Report]:
        """State and counters at the start."""
        state = (self.state.get(t_ns),)
        return [
            self.state_report(t_ns),
            Columns(self.asset, "process", t_ns, (t_ns,), {
                "state": state, "produced": (0,), "scrap": (0,),
                "energy_kwh": (0.0,),
                "current_j1_a": (self.spec.gravity_a,), "winding_c": (self.spec.ambient_c,),
            }),
            *self.control.first_reports(t_ns),
        ]  # fmt: skip

    def reports(self, times: Times) -> list[Report]:
        """States and cycles at once, signals and delay histograms by the pane."""
        spec = self.spec
        phase = self.phase.at(times)
        scale = np.array([1.0, *(weight for _, weight in PHASES)])[phase]
        spread = np.where(phase > 0, 0.25, 0.02)
        current = spec.gravity_a * scale + spread * self.noise.standard_normal(len(times))
        winding: list[float] = []
        for amperes in current.tolist():
            rise = spec.winding_rise * amperes * amperes
            self._winding_c += (spec.ambient_c + rise - self._winding_c) / spec.winding_tau_s
            winding.append(self._winding_c)
        ch = {
            "state": self.state.at(times).tolist(),
            "produced": self.produced.at(times).tolist(),
            "energy_kwh": on_grid(self.energy.at(times), 100_000),
            "current_j1_a": rounded(current, 2),
            "winding_c": rounded(np.array(winding), 1),
        }
        after_ns, to_ns = span(times)
        return [
            *self.state_reports(times), *self.process_reports(times, ch),
            *self._cycle_reports(after_ns, to_ns), *self.control.reports(after_ns, to_ns),
        ]  # fmt: skip

    def _cycle_reports(self, after_ns: int, to_ns: int) -> list[Report]:
        low = len(self.cycles)
        while low and self.cycles[low - 1][0] > after_ns:
            low -= 1
        return [
            Columns(self.asset, "event", end_ns, (end_ns,), {
                "produced": (self.produced.get(end_ns),), "scrap": (self.scrap.get(end_ns),),
                "cycle_s": (cycle_ms / 1000,), "wait_s": (wait_us / 1_000_000,),
            })
            for end_ns, cycle_ms, wait_us in self.cycles[low:]
            if end_ns <= to_ns
        ]  # fmt: skip


MODEL = (RobotArmSpec, RobotArm)
