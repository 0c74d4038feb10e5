"""An AGV: drives on the map with trapezoid speed, carries containers, lives off a battery.

Every time it reports lies on the millisecond grid of its controller, as VDA 5050 stamps do.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import atan2, sqrt
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from config.units import NS_PER_MS, NS_PER_S, MetresPerSecond, Milliseconds, Ratio, Seconds
from ingest.messages import Asset, Times
from simulator.device import (
    PANE_NS,
    Acceleration,
    Amperes,
    DeviceSpec,
    Meter,
    Process,
    Report,
    Steps,
    VdaConnection,
    VdaState,
    ns,
    span,
)
from simulator.plant.control import SERVICE_CHANNELS, STATE_BYTES
from simulator.plant.floor import Container, Floor, Mission, arrive

AmpereHours = Annotated[float, Field(gt=0, json_schema_extra={"unit": "Ah"})]


class AgvSpec(DeviceSpec):
    """Settings of one vehicle."""

    kind: Literal["agv"] = "agv"
    node: str
    """Where it stands at the start."""
    charger: str
    """Node of its charger."""
    speed_mps: MetresPerSecond = 1.2
    """Top speed."""
    acceleration_mps2: Acceleration = 0.5
    """Acceleration and service deceleration."""
    handling_s: Seconds = 25.0
    """Time to load or unload a container."""
    watchdog_ms: Milliseconds = 300.0
    """Silence of the fleet manager after which it stops."""
    battery_ah: AmpereHours = 40.0
    """Capacity at 48 V."""
    start_ratio: Ratio = 0.9
    """Charge at the start."""
    charge_below_ratio: Ratio = 0.4
    """It goes to charge after a mission that left less."""
    charge_to_ratio: Ratio = 0.85
    """It charges up to this."""
    idle_a: Amperes = 1.5
    """Draw while it stands."""
    drive_a: Amperes = 8.0
    """Draw while it drives."""
    handling_a: Amperes = 12.0
    """Draw while it lifts."""
    charge_a: Amperes = 40.0
    """Charging current."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Motion with constant acceleration from ``t_ns`` on."""

    t_ns: int
    at_m: float
    speed_mps: float
    acceleration_mps2: float = 0.0

    def after(self, t_ns: int) -> tuple[float, float]:
        """Distance and speed at a time."""
        dt = (t_ns - self.t_ns) / NS_PER_S
        return (
            self.at_m + self.speed_mps * dt + 0.5 * self.acceleration_mps2 * dt * dt,
            self.speed_mps + self.acceleration_mps2 * dt,
        )


def trapezoid(
    t_ns: int, at_m: float, to_m: float, speed: float, acceleration: float
) -> list[Piece]:
    """From rest to rest: the time is ``2 sqrt(d/a)`` if d < v²/a, else ``d/v + v/a``."""
    distance = to_m - at_m
    top = min(speed, sqrt(distance * acceleration))
    ramp_ns = ns(top / acceleration)
    ramp_m = top * top / (2.0 * acceleration)
    cruise_ns = ns(max(distance - 2.0 * ramp_m, 0.0) / top) if top else 0
    brake_ns = t_ns + ramp_ns + cruise_ns
    return [
        Piece(t_ns, at_m, 0.0, acceleration),
        Piece(t_ns + ramp_ns, at_m + ramp_m, top),
        Piece(brake_ns, to_m - ramp_m, top, -acceleration),
        Piece(brake_ns + ramp_ns, to_m, 0.0),
    ]


@dataclass(frozen=True, slots=True)
class Drive:
    """A way from node to node: where it is at any time, exact within each piece of motion."""

    way: tuple[tuple[str, float], ...]
    pieces: tuple[Piece, ...]
    halts: tuple[tuple[int, int], ...] = ()
    """Times at which the watchdog held it, from standing to moving again."""

    @property
    def end_ns(self) -> int:
        """When it stands at its goal."""
        return self.pieces[-1].t_ns

    def at(self, t_ns: int) -> tuple[float, float]:
        """Distance driven and speed."""
        index = bisect_right(self.pieces, t_ns, key=lambda piece: piece.t_ns) - 1
        far, speed = self.pieces[max(index, 0)].after(t_ns)
        return min(max(far, 0.0), self.way[-1][1]), max(speed, 0.0)

    def passes_ns(self, far_m: float) -> int:
        """When it comes to a point of its way, on the millisecond."""
        for piece, onward in pairwise(self.pieces):
            if onward.at_m >= far_m - 1e-9 and onward.at_m > piece.at_m:
                v, a, d = piece.speed_mps, piece.acceleration_mps2, far_m - piece.at_m
                root = sqrt(max(v * v + 2.0 * a * d, 0.0))
                dt = 2.0 * d / (v + root) if v + root > 0 else 0.0
                return min(ceil_ms(piece.t_ns + ns(dt)), self.end_ns)
        return self.end_ns


def ceil_ms(t_ns: int) -> int:
    """The next whole millisecond."""
    return -(-t_ns // NS_PER_MS) * NS_PER_MS


@dataclass(frozen=True, slots=True)
class Situation:
    """What changes at events only; position, speed and battery are computed."""

    order: str = ""
    last_node: str = ""
    last_sequence: int = 0
    nodes: tuple[tuple[str, int], ...] = ()
    driving: bool = False
    load: str = ""
    charging: bool = False
    waiting_for_link: bool = False


class Agv:
    """Works for the fleet manager: order in over the link, state back over the link.

    While it drives, ``watchdog_ms`` without a valid message makes it stop with its service
    deceleration; it goes on when it hears again. It is on a mission from the arrival of an order
    until its last action is done.
    """

    channels: ClassVar[Mapping[str, str]] = {
        "mission": "1", "driving": "1", "loaded": "1", "charging": "1", "battery_ratio": "1",
        "x_m": "m", "y_m": "m", "bin": "1", "count": "1", "down": "1",
        **SERVICE_CHANNELS,
    }  # fmt: skip

    def __init__(self, spec: AgvSpec, floor: Floor) -> None:
        self.spec = spec
        self.floor = floor
        self.env = floor.env
        self.asset = Asset(floor.plant.site, spec.area, spec.line, spec.name)
        self.path = str(self.asset)
        self.control = floor.control(self.asset)
        self.at = spec.node
        self.idle = True
        self.inbox = self.env.event()
        self.mission = Steps(self.env.now, 0)
        self.halted_ns = 0
        """Time the watchdog kept it standing."""
        grid = round(spec.battery_ah * 3600 * 1000 * NS_PER_S / 10_000)
        self._used = Meter(self.env.now, round(spec.idle_a * 1000), grid)
        """Charge taken from the battery, in ten-thousandths of its capacity."""
        self._situations = [(self.env.now, Situation(last_node=spec.node))]
        self._drives: list[Drive] = [self._stand(spec.node)]
        self._container: Container | None = None
        floor.fleet.vehicles.append(self)

    def battery_ratio(self, t_ns: int) -> float:
        """State of charge, in steps of 1e-4."""
        return round(self.spec.start_ratio - self._used.get(t_ns) / 10_000, 4)

    def wants_charge(self) -> str | None:
        """The charger, if the battery is low."""
        low = self.battery_ratio(self.env.now) < self.spec.charge_below_ratio
        return self.spec.charger if low else None

    def pieces(self) -> int:
        """Pieces it carries."""
        return self._container.pieces if self._container else 0

    def _stand(self, node: str) -> Drive:
        return Drive(((node, 0.0),), (Piece(self.env.now, 0.0, 0.0),))

    def _situate(self, t_ns: int, situation: Situation) -> None:
        if situation != self._situations[-1][1]:
            self._situations.append((t_ns, situation))
            self.mission.set(t_ns, int(bool(situation.order and situation.nodes)))

    @property
    def _now(self) -> Situation:
        return self._situations[-1][1]

    def run(self) -> Process:
        """Mission after mission; it waits where the last one ended."""
        while True:
            mission: Mission = yield self.inbox
            stops = (
                [mission.goal] if mission.source is None else [mission.source.node, mission.goal]
            )
            ways = [self.floor.roads.way(a, b) for a, b in pairwise([self.at, *stops])]
            names = [name for way in ways for name, _ in way[1:]] or [self.at]
            nodes = tuple((name, 2 * n + 2) for n, name in enumerate(names))
            base = Situation(last_node=self.at)
            self._situate(self.env.now, replace(base, order=mission.name, nodes=nodes))
            self.control.up.send(self.env.now, STATE_BYTES)
            yield from self._drive(ways[0], last=len(ways) == 1)
            if mission.source is not None and mission.sink is not None:
                yield from self._handle()
                assert mission.container is not None
                mission.source.output.take(mission.container)
                self._container = mission.container
                self._situate(
                    self.env.now, replace(self._now, load=str(mission.container.order.number))
                )
                self.control.up.send(self.env.now, STATE_BYTES)
                yield from self._drive(ways[1], last=True)
                yield from self._handle()
                self._container = None
                mission.sink.receive(mission.container)
            done = Situation(last_node=self.at, last_sequence=nodes[-1][1])
            self._situate(self.env.now, done)
            if mission.source is None:
                yield from self._charge(done)
            self.floor.env.process(self._report_done())

    def _report_done(self) -> Process:
        yield from arrive(self.env, self.control.up, STATE_BYTES)
        self.floor.fleet.finished(self)

    def _handle(self) -> Process:
        self._used.set(self.env.now, round(self.spec.handling_a * 1000))
        yield self.env.timeout(ceil_ms(ns(self.spec.handling_s)))
        self._used.set(self.env.now, round(self.spec.idle_a * 1000))

    def _charge(self, situation: Situation) -> Process:
        spec = self.spec
        missing = spec.charge_to_ratio - self.battery_ratio(self.env.now)
        self._situate(self.env.now, replace(situation, charging=True))
        self._used.set(self.env.now, -round(spec.charge_a * 1000))
        yield self.env.timeout(ceil_ms(ns(missing * spec.battery_ah * 3600 / spec.charge_a)))
        self._used.set(self.env.now, round(spec.idle_a * 1000))
        self._situate(self.env.now, situation)

    def _drive(self, way: list[tuple[str, float]], *, last: bool) -> Process:
        if len(way) == 1:
            return
        drive = self._plan(way)
        self._drives.append(drive)
        self.halted_ns += sum(end - start for start, end in drive.halts)
        self._log(drive, last=last)
        self._used.set(self.env.now, round(self.spec.drive_a * 1000))
        yield self.env.timeout(drive.end_ns - self.env.now)
        self._used.set(self.env.now, round(self.spec.idle_a * 1000))
        self.at = way[-1][0]

    def _plan(self, way: list[tuple[str, float]]) -> Drive:
        """The whole drive with its watchdog stops: the heartbeats on its way are known, since the
        fleet manager sends a driving vehicle nothing else."""
        spec, goal_m = self.spec, way[-1][1]
        limit_ns, brake = ns(spec.watchdog_ms / 1000), spec.acceleration_mps2
        t_ns, at_m = self.env.now, 0.0
        pieces: list[Piece] = []
        halts: list[tuple[int, int]] = []
        while True:
            plan = trapezoid(t_ns, at_m, goal_m, spec.speed_mps, brake)
            brakes_ns = plan[2].t_ns
            silence = self.control.down.silence(t_ns, brakes_ns, limit_ns)
            if silence is None:
                pieces += plan[:-1]
                break
            quiet_ns, heard_ns = silence
            index = bisect_right(plan, quiet_ns, key=lambda piece: piece.t_ns) - 1
            far, speed = plan[index].after(quiet_ns)
            pieces += [piece for piece in plan[: index + 1] if piece.t_ns < quiet_ns]
            pieces.append(Piece(quiet_ns, far, speed, -brake))
            stands_ns, at_m = (
                ceil_ms(quiet_ns + ns(speed / brake)),
                far + speed * speed / (2.0 * brake),
            )
            pieces.append(Piece(stands_ns, at_m, 0.0))
            t_ns = max(ceil_ms(heard_ns), stands_ns + NS_PER_MS)
            halts.append((stands_ns, t_ns))
        end_ns = ceil_ms(plan[-1].t_ns)
        pieces.append(Piece(end_ns, goal_m, 0.0))
        return Drive(tuple(way), tuple(pieces), tuple(halts))

    def _log(self, drive: Drive, *, last: bool) -> None:
        """Write the events of a drive that begins now. A node with an action is done with it, so
        the last node of a mission stays until then."""
        start = replace(self._now, driving=True)
        changes: list[tuple[int, str]] = [
            (drive.passes_ns(far), "node") for _, far in drive.way[1:-1]
        ] + [(drive.end_ns, "end")]
        for stands_ns, goes_ns in drive.halts:
            changes += [(stands_ns, "halt"), (goes_ns, "go")]
        self._situate(self.env.now, start)
        for t_ns, what in sorted(changes):
            now = self._now
            if what in ("node", "end"):
                (name, sequence), left = now.nodes[0], now.nodes[1:]
                now = replace(
                    now, last_node=name, last_sequence=sequence,
                    nodes=now.nodes if what == "end" and last else left,
                )  # fmt: skip
            if what != "node":
                now = replace(now, driving=what == "go", waiting_for_link=what == "halt")
            self._situate(t_ns, now)

    def first_reports(self, t_ns: int) -> list[Report]:
        """Online, and where it is."""
        online = VdaConnection(self.asset, t_ns)
        return [online, self._state(t_ns), *self.control.first_reports(t_ns)]

    def reports(self, times: Times) -> list[Report]:
        """State at every event and at the end of each pane; delay histograms by the pane."""
        after_ns, to_ns = span(times)
        low = bisect_right(self._situations, after_ns, key=lambda entry: entry[0])
        high = bisect_right(self._situations, to_ns, key=lambda entry: entry[0])
        moments = {t for t, _ in self._situations[low:high]}
        moments |= {t for t in times.tolist() if t % PANE_NS == 0} | {to_ns}
        states: list[Report] = [self._state(t) for t in sorted(moments)]
        return [*states, *self.control.reports(after_ns, to_ns)]

    def _state(self, t_ns: int) -> VdaState:
        at = bisect_right(self._situations, t_ns, key=lambda entry: entry[0]) - 1
        now = self._situations[at][1]
        at = bisect_right(self._drives, t_ns, key=lambda drive: drive.pieces[0].t_ns) - 1
        drive = self._drives[max(at, 0)]
        far, speed = drive.at(t_ns)
        x, y, theta, since = self._place(drive, far)
        return VdaState(
            self.asset, t_ns, now.order, now.last_node, now.last_sequence, now.nodes, now.driving,
            now.load, now.charging, now.waiting_for_link, round(x, 2), round(y, 2), round(theta, 2),
            round(speed, 2), round(since, 2), self.battery_ratio(t_ns),
        )  # fmt: skip

    def _place(self, drive: Drive, far: float) -> tuple[float, float, float, float]:
        """Coordinates, heading, and distance since the last node of the way."""
        place = self.floor.roads.place
        for (a, from_m), (b, to_m) in pairwise(drive.way):
            if far <= to_m:
                share = (far - from_m) / (to_m - from_m)
                (ax, ay), (bx, by) = place[a], place[b]
                heading = atan2(by - ay, bx - ax)
                return ax + share * (bx - ax), ay + share * (by - ay), heading, far - from_m
        x, y = place[drive.way[-1][0]]
        return x, y, 0.0, 0.0


MODEL = (AgvSpec, Agv)
