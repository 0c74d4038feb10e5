"""A cable line: metres at constant speed between ramps, trips, and changes of the pay-off reel."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from config.units import NS_PER_S, Kilowatts, MetresPerSecond, Seconds
from ingest.messages import Floats, Times
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
)
from simulator.plant import Order
from simulator.plant.floor import Floor


class CableLineSpec(DeviceSpec):
    """Settings of one line. By default it is the article's headline line, some 0.9 m/s over planned
    time; a high-voltage line runs at a fiftieth of that."""

    kind: Literal["cable_line"] = "cable_line"
    speed_mps: MetresPerSecond = 1.12
    """Line speed while it runs."""
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
    tension_kn: Kilonewtons = 8.0
    """Capstan tension at full speed."""


MOVING = (S.EXECUTE, S.STARTING, S.HOLDING, S.UNHOLDING, S.SUSPENDING, S.UNSUSPENDING, S.STOPPING,
          S.COMPLETING)  # fmt: skip
_MM = 1_000


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

    def restart(self, scrap_m: float) -> None:
        """A start at the last change: the metres from here are scrap at first."""
        start = self._length[-1]
        spoilt = min(start - self._starts[-1], scrap_m) if len(self._starts) > 1 else 0.0
        self._starts.append(start)
        self._scrap.append(self._scrap[-1] + spoilt)

    def motion(self, times: Times) -> tuple[Floats, Floats]:
        """Length and speed at ascending times."""
        index = np.searchsorted(self._t, times, side="right") - 1
        dt = (times - np.array(self._t, dtype=np.int64)[index]) / NS_PER_S
        speed, slope = np.array(self._speed)[index], np.array(self._slope)[index]
        return np.array(self._length)[index] + dt * (speed + 0.5 * slope * dt), speed + slope * dt

    def scrap(self, length: Floats, scrap_m: float) -> Floats:
        """How much of a length is scrap."""
        starts = np.array(self._starts)
        index = np.maximum(np.searchsorted(starts, length, side="right") - 1, 0)
        since = np.where(index > 0, np.minimum(length - starts[index], scrap_m), 0.0)
        return np.array(self._scrap)[index] + since


class CableLine(Unit):
    """Draws cable until its orders are done.

    Trips come as a Poisson process over running time, a reel change after every ``reel_m`` metres.
    Length is the exact integral of the speed, to the millimetre; each start spoils
    ``restart_scrap_m`` metres. Energy is the exact integral of a power that is constant in each
    state.
    """

    channels: ClassVar[Mapping[str, str]] = {
        "state": "PackML", "length_m": "m", "scrap_m": "m", "energy_kwh": "kWh",
        "speed_mps": "m/s", "diameter_mm": "mm", "tension_kn": "kN",
    }  # fmt: skip

    def __init__(self, spec: CableLineSpec, floor: Floor) -> None:
        self.spec = spec
        super().__init__(spec, floor)
        self._path = Path(self.env.now)
        self._orders = floor.plant.orders_of(spec.name)
        self._ramp_ns = ns(spec.speed_mps / spec.ramp_mps2)
        self._until_trip_ns = ns(self.dice.exponential(spec.mtbf_s))
        self._reel_left_m = spec.reel_m
        self._diameter_mm = 0.0

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

    def _good_m(self) -> float:
        length = self._path.length_m(self.env.now)
        return length - float(self._path.scrap(np.array([length]), self.spec.restart_scrap_m)[0])

    def run(self) -> Process:
        """Make order after order; then idle."""
        for order in self._orders:
            yield from self.rest()
            self.register(order, order.pri_s)
            yield from self._start_up(self.spec.set_up_s)
            yield from self._draw(order)
            yield from self._ramp_down(S.COMPLETING)
            yield from self.pace(S.COMPLETE, 1.0)
        yield from self.stand_by(self.spec.reset_s)

    def _start_up(self, set_up_s: float) -> Process:
        yield from self.pace(S.RESETTING, set_up_s)
        yield from self.pace(S.IDLE, 1.0)
        yield from self._ramp_up(S.STARTING)

    def _ramp_up(self, state: S) -> Process:
        """From standstill to full speed, then EXECUTE."""
        self.enter(state)
        spec = self.spec
        self._path.set(self.env.now, 0.0, spec.speed_mps / (self._ramp_ns / NS_PER_S))
        self._path.restart(spec.restart_scrap_m)
        yield self.env.timeout(self._ramp_ns)
        self._path.set(self.env.now, spec.speed_mps, 0.0)
        self.enter(S.EXECUTE)
        yield self.env.timeout(SCAN_NS)

    def _ramp_down(self, state: S) -> Process:
        """From full speed to standstill."""
        self.enter(state)
        speed = self.spec.speed_mps
        self._path.set(self.env.now, speed, -speed / (self._ramp_ns / NS_PER_S))
        yield self.env.timeout(self._ramp_ns)
        self._path.set(self.env.now, 0.0, 0.0)

    def _draw(self, order: Order) -> Process:
        spec = self.spec
        target_m = self._good_m() + order.quantity
        while True:
            # one ramp up, one scan, and one ramp down
            ramps_m = spec.speed_mps * (self._ramp_ns + SCAN_NS) / NS_PER_S
            reel_ns = ns(max(self._reel_left_m - ramps_m, 0.0) / spec.speed_mps)
            done_ns = ns(max(target_m - self._good_m(), 0.0) / spec.speed_mps)
            shift_ns = max(self.planned_left_ns() - self._ramp_ns, 0)
            runs_ns = min(reel_ns, done_ns, shift_ns, self._until_trip_ns)
            yield self.env.timeout(runs_ns)
            self._until_trip_ns -= runs_ns
            self._reel_left_m -= runs_ns * spec.speed_mps / NS_PER_S
            if runs_ns == done_ns:
                if self._good_m() >= target_m - 1e-3:
                    return
                continue  # the first metres after a start were scrap
            self._reel_left_m -= ramps_m
            if runs_ns == reel_ns:
                yield from self._ramp_down(S.SUSPENDING)
                yield from self.pace(S.SUSPENDED, spec.reel_change_s)
                yield from self._ramp_up(S.UNSUSPENDING)
                self._reel_left_m = spec.reel_m
            elif runs_ns == shift_ns:
                yield from self._ramp_down(S.STOPPING)
                self.enter(S.STOPPED)
                yield self.env.timeout(self.planned_left_ns())
                yield from self.rest()
                yield from self._start_up(spec.reset_s)
            else:
                yield from self._ramp_down(S.HOLDING)
                yield from self.pace(S.HELD, self.dice.exponential(spec.mttr_s))
                yield from self._ramp_up(S.UNHOLDING)
                self._until_trip_ns = ns(self.dice.exponential(spec.mtbf_s))

    def first_reports(self, t_ns: int) -> list[Report]:
        """State and counters at the start."""
        state = (self.state.get(t_ns),)
        return [
            Columns(self.asset, "state", t_ns, (t_ns,), {"state": state}),
            Columns(self.asset, "process", t_ns, (t_ns,), {
                "state": state, "length_m": (0.0,), "scrap_m": (0.0,), "energy_kwh": (0.0,),
                "speed_mps": (0.0,), "diameter_mm": (None,), "tension_kn": (0.0,),
            }),
        ]  # fmt: skip

    def reports(self, times: Times) -> list[Report]:
        """States at once, signals by the pane."""
        spec = self.spec
        noise = self.noise.standard_normal((len(times), 3))
        _, speed = self._path.motion(times)
        moving = speed > 0.0
        drift: list[float] = []
        for step in noise[:, 0].tolist():
            self._diameter_mm += -self._diameter_mm / 60.0 + 0.02 * step
            drift.append(self._diameter_mm)
        measured = np.where(moving, speed + 0.004 * noise[:, 1], 0.0)
        tension = spec.tension_kn * (0.3 + 0.7 * speed / spec.speed_mps)
        diameter = rounded(spec.diameter_mm + np.array(drift), 2)
        ch: dict[str, list[float]] = {
            "state": self.state.at(times).tolist(),
            "length_m": on_grid(self.length_mm(times), _MM),
            "scrap_m": on_grid(self.scrap_mm(times), _MM),
            "energy_kwh": on_grid(self.energy.at(times), 100_000),
            "speed_mps": rounded(np.maximum(measured, 0.0), 3),
            "diameter_mm": diameter,
            "tension_kn": rounded(tension + 0.05 * noise[:, 2], 2),
        }
        return [*self.state_reports(times), *self.process_reports(times, ch)]


MODEL = (CableLineSpec, CableLine)
