r"""An AGV: drives on the map with trapezoid speed, carries containers, lives off a battery.

Theory of operation
===================

A vehicle may go to the end of its *base*, the released part of its order (VDA 5050); the rest is
*horizon*. It asks for more a little before it would have to brake, and the link decides what that
costs:

    speed   ____________________...          the base grows in time: nothing
           /         :  :
          /       asks  brakes

            _____________       ___...       the update is late: it brakes, perhaps stands, and goes
           /         :   \     /             on when it comes
          /       asks    \___/

            _________           ___...       nothing is heard for a while: the watchdog stops
           /         \         /             it, and it goes on when it hears again
          /     silent\_______/

All of it happens step by step in virtual time: nothing is sent, and no place is told to the radio,
before what could change it has been decided. Every time it reports lies on the millisecond grid of
its controller, as VDA 5050 stamps do.
"""

from bisect import bisect_right
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import atan2, sqrt
from typing import Annotated, Any, ClassVar, Literal

import simpy
from pydantic import Field

from config.units import NS_PER_MS, NS_PER_S, MetresPerSecond, Milliseconds, Ratio, Seconds
from ingest.messages import Asset, Times
from simulator.device import (
    PANE_NS,
    Acceleration,
    Amperes,
    Bell,
    DeviceSpec,
    Length,
    Meter,
    Process,
    Report,
    Steps,
    VdaConnection,
    VdaState,
    ns,
    span,
)
from simulator.plant.control import SERVICE_CHANNELS, STATE_BYTES, arrive
from simulator.plant.fleet import Mission, Way
from simulator.plant.floor import Floor
from simulator.plant.material import Container

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
    base_m: Length = 30.0
    """Way the fleet manager releases at a time, and on to the next node."""
    base_lead_s: Seconds = 1.0
    """It asks for more so long before it would have to brake for the end of what is released."""
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

    def settings_problems(self) -> list[str]:
        """Its place is a node."""
        return (
            [] if self.x_m is None else ["x_m and y_m are not for vehicles: they stand at a node"]
        )


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
    t_ns: int, at_m: float, to_m: float, top: float, acceleration: float, speed: float = 0.0
) -> list[Piece]:
    """From a speed to rest at ``to_m``; the last two pieces are to brake and to rest.

    From rest the time is ``2 sqrt(d/a)`` if d < v²/a, else ``d/v + v/a``. The way must be long
    enough to brake on.
    """
    distance = to_m - at_m
    top = max(min(top, sqrt(max(distance * acceleration + 0.5 * speed * speed, 0.0))), speed)
    ramp_ns, brake_ns = ns((top - speed) / acceleration), ns(top / acceleration)
    ramp_m, brake_m = (m / (2.0 * acceleration) for m in (top * top - speed * speed, top * top))
    cruise_ns = ns(max(distance - ramp_m - brake_m, 0.0) / top) if top else 0
    brakes_ns = t_ns + ramp_ns + cruise_ns
    return [
        Piece(t_ns, at_m, speed, acceleration),
        Piece(t_ns + ramp_ns, at_m + ramp_m, top),
        Piece(brakes_ns, to_m - brake_m, top, -acceleration),
        Piece(brakes_ns + brake_ns, to_m, 0.0),
    ]


@dataclass(slots=True)
class Drive:
    """A leg of a mission from node to node: where it is at any time up to now, and what it means to
    do next, exact within each piece of motion."""

    way: Way
    pieces: list[Piece]
    before: int = 0
    """Nodes of the mission that come before this leg's."""
    onward: int = 1
    """The next node of the way."""

    def at(self, t_ns: int) -> tuple[float, float]:
        """Distance driven and speed."""
        index = bisect_right(self.pieces, t_ns, key=lambda piece: piece.t_ns) - 1
        far, speed = self.pieces[max(index, 0)].after(t_ns)
        return min(max(far, 0.0), self.way[-1][1]), max(speed, 0.0)

    @property
    def end_ns(self) -> int:
        """When it stands, as far as that is decided."""
        return ceil_ms(self.pieces[-1].t_ns)

    def change(self, pieces: list[Piece]) -> None:
        """Move otherwise from the first of these pieces on."""
        while self.pieces and self.pieces[-1].t_ns >= pieces[0].t_ns:
            self.pieces.pop()
        self.pieces += pieces

    def comes_ns(self, far_m: float) -> int | None:
        """When it comes to a point of its way; ``None`` if it does not mean to."""
        for piece, onward in pairwise(self.pieces):
            if onward.at_m >= far_m - _SAME_M and onward.at_m > piece.at_m:
                v, a, d = piece.speed_mps, piece.acceleration_mps2, far_m - piece.at_m
                root = sqrt(max(v * v + 2.0 * a * d, 0.0))
                dt = 2.0 * d / (v + root) if v + root > 0 else 0.0
                return min(piece.t_ns + ns(dt), onward.t_ns)
        return None

    def next_ns(self) -> int | None:
        """When it comes to the next node, on the millisecond."""
        if self.onward == len(self.way):
            return None
        comes_ns = self.comes_ns(self.way[self.onward][1])
        return None if comes_ns is None else ceil_ms(comes_ns)


_SAME_M = 1e-9
_CHORD_M = 0.04
"""The radio knows the track as chords, which stay closer to the truth than this."""


def ceil_ms(t_ns: int) -> int:
    """The next whole millisecond."""
    return -(-t_ns // NS_PER_MS) * NS_PER_MS


@dataclass(frozen=True, slots=True)
class Situation:
    """What changes at events only; position, speed and battery are computed."""

    order: str = ""
    update: int = 0
    base: int = 0
    """Nodes of the order that are released."""
    asks: bool = False
    """For more of them."""
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
    deceleration; it goes on when it hears again. While it brakes for the end of its base or way,
    the watchdog has nothing to stop. It is on a mission from the arrival of an order until its last
    action is done.
    """

    channels: ClassVar[Mapping[str, str]] = {
        "mission": "1", "driving": "1", "loaded": "1", "waiting": "1", "charging": "1",
        "battery_ratio": "1", "x_m": "m", "y_m": "m", "bin": "1", "count": "1", "down": "1",
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
        self.halted = Meter(self.env.now, 0, 1)
        """Time the watchdog kept it standing, in ns."""
        self.waited = Meter(self.env.now, 0, 1)
        """Time it stood for want of a base, in ns."""
        grid = round(spec.battery_ah * 3600 * 1000 * NS_PER_S / 10_000)
        self._used = Meter(self.env.now, round(spec.idle_a * 1000), grid)
        """Charge taken from the battery, in ten-thousandths of its capacity."""
        self._situations = [(self.env.now, Situation(last_node=spec.node))]
        self._drives = [Drive(((spec.node, 0.0),), [Piece(self.env.now, 0.0, 0.0)])]
        self._track = [(self.env.now, *floor.roads.place[spec.node])]
        """What the radio knows of where it goes."""
        self._extended = Bell(self.env)
        self._container: Container | None = None
        floor.fleet.vehicles.append(self)

    @property
    def base_m(self) -> float:
        """The way it is released at a time."""
        return self.spec.base_m

    def log(self, read: Callable[[Situation], bool]) -> Steps:
        """Since when a statement about its situation holds, and since when not."""
        (first_ns, first), *changes = self._situations
        steps = Steps(first_ns, int(read(first)))
        for t_ns, situation in changes:
            steps.set(t_ns, int(read(situation)))
        return steps

    @property
    def halted_ns(self) -> int:
        """Time the watchdog kept it standing until now."""
        return self.halted.get(self.env.now)

    @property
    def base_wait_ns(self) -> int:
        """Time it stood until now because its base had not grown."""
        return self.waited.get(self.env.now)

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

    def _situate(self, situation: Situation) -> None:
        if situation != self._now:
            self._situations.append((self.env.now, situation))
            self.mission.set(self.env.now, int(bool(situation.order and situation.nodes)))

    def _rolls(self, *, driving: bool) -> None:
        self._situate(replace(self._now, driving=driving))
        draw_a = self.spec.drive_a if driving else self.spec.idle_a
        self._used.set(self.env.now, round(draw_a * 1000))

    @property
    def _now(self) -> Situation:
        return self._situations[-1][1]

    def run(self) -> Process:
        """Mission after mission; it waits where the last one ended."""
        while True:
            mission: Mission = yield self.inbox
            nodes = tuple((name, 2 * n) for n, (name, _) in enumerate(mission.nodes, 1))
            self._situate(
                Situation(mission.name, base=mission.base, last_node=self.at, nodes=nodes)
            )
            self.control.up.send(self.env.now, STATE_BYTES)
            yield from self._drive(mission, 0)
            if mission.source is not None and mission.sink is not None:
                yield from self._handle()
                assert mission.container is not None
                mission.source.output.take(mission.container)
                self._container = mission.container
                self._situate(replace(self._now, load=str(mission.container.order.number)))
                self.control.up.send(self.env.now, STATE_BYTES)
                yield from self._drive(mission, 1)
                yield from self._handle()
                self._container = None
                mission.sink.receive(mission.container)
            done = Situation(last_node=self.at, last_sequence=nodes[-1][1])
            self._situate(done)
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
        self._situate(replace(situation, charging=True))
        self._used.set(self.env.now, -round(spec.charge_a * 1000))
        yield self.env.timeout(ceil_ms(ns(missing * spec.battery_ah * 3600 / spec.charge_a)))
        self._used.set(self.env.now, round(spec.idle_a * 1000))
        self._situate(situation)

    def _drive(self, mission: Mission, number: int) -> Process:
        """A leg of a mission, from standing at its start to standing at its end."""
        way = mission.legs[number]
        before = sum(len(leg) - 1 for leg in mission.legs[:number])
        drive = Drive(way, [Piece(self.env.now, 0.0, 0.0)], before)
        self._drives.append(drive)
        while True:
            far, speed = drive.at(self.env.now)
            if speed or far < self._end_m(drive):
                if not (yield from self._go(drive, mission)):
                    yield from self._halt(drive)
            elif far < way[-1][1]:
                yield from self._await_base(mission)
            else:
                break
        self.at = way[-1][0]

    def _end_m(self, drive: Drive) -> float:
        """Where on this leg its base ends."""
        return drive.way[min(self._now.base - drive.before, len(drive.way) - 1)][1]

    def _go(self, drive: Drive, mission: Mission) -> Generator[simpy.Event, Any, bool]:
        """Drive towards the end of the base until it stands there or the base grows, or until it
        must stop because nothing is heard: ``False``."""
        spec, env, base = self.spec, self.env, self._now.base
        far, speed = drive.at(env.now)
        end_m = self._end_m(drive)
        plan = trapezoid(env.now, far, end_m, spec.speed_mps, spec.acceleration_mps2, speed)
        drive.change(plan)
        brakes_ns, stands_ns = plan[-2].t_ns, plan[-1].t_ns
        # No reason to ask while the base reaches into the next leg.
        wants = base < len(mission.nodes) and base - drive.before < len(drive.way)
        asks_ns = (brakes_ns - ns(spec.base_lead_s)) // NS_PER_MS * NS_PER_MS
        self._tell(drive, env.now, brakes_ns)
        self._rolls(driving=True)
        while env.now < brakes_ns:
            if wants and env.now >= asks_ns:
                self._ask(mission)
            due_ns = min(drive.next_ns() or brakes_ns, brakes_ns)
            if wants and asks_ns > env.now:
                due_ns = min(asks_ns, due_ns)
            silent = yield from self._watch(due_ns)
            self._pass_nodes(drive)
            if self._now.base != base:
                return True
            if silent:
                return False
        if wants:
            self._ask(mission)
        self._tell(drive, brakes_ns, stands_ns)
        while env.now < ceil_ms(stands_ns):
            due_ns = min(drive.next_ns() or ceil_ms(stands_ns), ceil_ms(stands_ns))
            yield self._extended.event | env.timeout(due_ns - env.now)
            self._pass_nodes(drive)
            if self._now.base != base:
                return True
        self._rolls(driving=False)
        return True

    def _watch(self, to_ns: int) -> Generator[simpy.Event, Any, bool]:
        """Let time pass up to ``to_ns``, or until the base has grown, or until nothing was heard
        for too long: ``True``."""
        env, down, limit_ns = self.env, self.control.down, ns(self.spec.watchdog_ms / 1000)
        if not self._now.asks:  # nobody sends it anything but heartbeats
            quiet_ns = down.quiet(env.now, to_ns, limit_ns)
            yield env.timeout((to_ns if quiet_ns is None else quiet_ns) - env.now)
            return quiet_ns is not None
        while self._now.asks and env.now < to_ns:
            quiet_ns = down.heard_ns(env.now) + limit_ns
            if quiet_ns <= env.now:
                return True
            yield self._extended.event | env.timeout(min(quiet_ns, to_ns) - env.now)
        return False

    def _halt(self, drive: Drive) -> Process:
        """Stop because nothing is heard, and stand until something is."""
        env, down, quiet_ns = self.env, self.control.down, self.env.now
        brake = self.spec.acceleration_mps2
        far, speed = drive.at(quiet_ns)
        still_ns = quiet_ns + ns(speed / brake)
        still = Piece(still_ns, far + speed * speed / (2.0 * brake), 0.0)
        drive.change([Piece(quiet_ns, far, speed, -brake), still])
        self._tell(drive, quiet_ns, still_ns)
        stands_ns = ceil_ms(still_ns)
        while env.now < stands_ns:
            yield env.timeout(min(drive.next_ns() or stands_ns, stands_ns) - env.now)
            self._pass_nodes(drive)
        self._rolls(driving=False)
        self._situate(replace(self._now, waiting_for_link=True))
        self.halted.set(env.now, 1)
        while (heard_ns := down.hears(quiet_ns, env.now)) is None:
            yield self._extended.event | env.timeout(down.next_beat_ns - env.now)
        yield env.timeout(max(ceil_ms(heard_ns), stands_ns + NS_PER_MS) - env.now)
        self.halted.set(env.now, 0)
        self._situate(replace(self._now, waiting_for_link=False))

    def _await_base(self, mission: Mission) -> Process:
        """Stand at the end of the base until it has grown."""
        self._ask(mission)
        self.waited.set(self.env.now, 1)
        yield self._extended.event
        self.waited.set(self.env.now, 0)

    def _ask(self, mission: Mission) -> None:
        if not self._now.asks:
            self._situate(replace(self._now, asks=True))
            self.env.process(self._extend(mission))

    def _extend(self, mission: Mission) -> Process:
        """Ask for a new base over the link, until the answer is here."""
        yield from arrive(self.env, self.control.up, STATE_BYTES)
        base = yield from self.floor.fleet.extend(self, mission, self._now.base)
        self._situate(replace(self._now, base=base, update=self._now.update + 1, asks=False))
        self._extended.ring()

    def _pass_nodes(self, drive: Drive) -> None:
        """Take note of the nodes it has come to. A node with an action is done with it, so the last
        node of a mission stays until then."""
        while (comes_ns := drive.next_ns()) is not None and comes_ns <= self.env.now:
            now = self._now
            (name, sequence), *left = now.nodes
            self._situate(
                replace(
                    now, last_node=name, last_sequence=sequence,
                    nodes=tuple(left) if left else now.nodes,
                )
            )  # fmt: skip
            drive.onward += 1

    def _tell(self, drive: Drive, from_ns: int, to_ns: int) -> None:
        """Tell the radio the track between two times, as it is decided now: the corners of the way,
        and changes of speed by chords."""
        if self.floor.plant.radio is None:
            return
        cut_ns = ns(sqrt(8.0 * _CHORD_M / self.spec.acceleration_mps2))
        times = {to_ns}
        for piece, onward in pairwise(drive.pieces):
            start_ns, end_ns = max(piece.t_ns, from_ns), min(onward.t_ns, to_ns)
            if start_ns < end_ns:
                parts = -(-(end_ns - start_ns) // cut_ns) if piece.acceleration_mps2 else 1
                times |= {start_ns + (end_ns - start_ns) * n // parts for n in range(parts)}
        for _, far_m in drive.way[drive.onward : -1]:
            if (comes_ns := drive.comes_ns(far_m)) is None or comes_ns >= to_ns:
                break
            times.add(comes_ns)
        track = [(from_ns, *self._told(from_ns))]
        for t_ns in sorted(times):
            if t_ns > from_ns:
                x_m, y_m, _, _ = self._place(drive, drive.at(t_ns)[0])
                track.append((t_ns, x_m, y_m))
        is_known, self._track = track[0] == self._track[-1], track
        for waypoint in track[is_known:]:
            self.control.terminal.move(*waypoint)

    def _told(self, t_ns: int) -> tuple[float, float]:
        """Where the radio believes it to be."""
        at = bisect_right(self._track, t_ns, key=lambda waypoint: waypoint[0])
        from_ns, *here = self._track[at - 1]
        if at == len(self._track):
            return here[0], here[1]
        to_ns, *there = self._track[at]
        share = (t_ns - from_ns) / (to_ns - from_ns)
        return here[0] + share * (there[0] - here[0]), here[1] + share * (there[1] - here[1])

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
            self.asset, t_ns, now.order, now.last_node, now.last_sequence, now.nodes, 2 * now.base,
            now.update, now.asks, now.driving, now.load, now.charging, now.waiting_for_link,
            round(x, 2), round(y, 2), round(theta, 2), round(speed, 2), round(since, 2),
            self.battery_ratio(t_ns),
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
