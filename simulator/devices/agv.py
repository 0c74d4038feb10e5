r"""An AGV: drives on the map with trapezoid speed, carries containers, lives off a battery.

Theory of operation
===================

A vehicle may go to the end of its *base*, the part of its order (VDA 5050) that the fleet manager
has reserved for it; the rest is *horizon*. It asks for more a little before it would have to brake,
and what that costs is up to the link and the other vehicles:

    speed   ____________________...          the base grows in time: nothing
           /         :  :
          /       asks  brakes

            _____________       ___...       the update is late: it brakes, perhaps stands (it is
           /         :   \     /             blocked), and goes on when it comes
          /       asks    \___/

            _________           ___...       nothing is heard for a while: the watchdog stops
           /         \         /             it, and it goes on when it hears again
          /     silent\_______/

All of it happens step by step in virtual time: nothing is sent, and no place is told to the radio,
before what could change it has been decided. Every time it reports lies on the millisecond grid of
its controller, as VDA 5050 stamps do. A stretch without anything to decide is one event, however
long it is; position, speed, nodes passed and charge are computed from it afterwards.

    LFP cell voltage           54.4 V    ,      charging        C ____
    over charge         51.6 ___________/       current              \      1 C to 90 %,
                  50.8 /                                             |`-.   then less by steps
                 44.0 |                                          ____|___`-.__
                      5 %  20 %   80 %  100 %                   40 %  90 %  charge_to
"""

from array import array
from bisect import bisect_right
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import sqrt
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import simpy
from pydantic import Field

from config.units import NS_PER_MS, NS_PER_S, MetresPerSecond, Milliseconds, Ratio, Seconds
from ingest.messages import Asset, Floats, Times
from simulator.device import (
    PANE_NS,
    Acceleration,
    Amperes,
    Columns,
    DeviceSpec,
    Ints,
    Length,
    Meter,
    Process,
    Report,
    Steps,
    Stretch,
    VdaConnection,
    VdaState,
    event_reports,
    ns,
    panes,
    rounded,
)
from simulator.plant.control import (
    ORDER_BYTES,
    RETRY_NS,
    SERVICE_CHANNELS,
    STATE_BYTES,
    CalmLane,
    deliver,
    later,
)
from simulator.plant.fleet import ANSWER_NS, Mission, Need, Way
from simulator.plant.floor import Floor
from simulator.plant.material import Container

AmpereHours = Annotated[float, Field(gt=0, json_schema_extra={"unit": "Ah"})]
CRate = Annotated[float, Field(gt=0, json_schema_extra={"unit": "1/h"})]


class AgvSpec(DeviceSpec):
    """Settings of one vehicle."""

    kind: Literal["agv"] = "agv"
    node: str
    """Where it stands at the start."""
    charger: str
    """Node of its charger."""
    zones: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Areas whose stations it serves. Without any: all, or with `[transport] zone = "area"` its
    own."""
    speed_mps: MetresPerSecond = 1.2
    """Top speed."""
    acceleration_mps2: Acceleration = 0.5
    """Acceleration and service deceleration."""
    watchdog_ms: Milliseconds = 300.0
    """Silence of the fleet manager after which it stops."""
    base_m: Length = 30.0
    """Way the fleet manager releases at a time, and on to the next node."""
    base_lead_s: Seconds = 1.0
    """It asks for more so long before it would have to brake for the end of what is released, and
    so long before it has loaded."""
    battery_ah: AmpereHours = 40.0
    """Capacity at 48 V."""
    start_ratio: Ratio = 0.9
    """Charge at the start."""
    charge_below_ratio: Ratio = 0.4
    """It goes to charge below this when there is nothing to do, and can be called away above."""
    forced_below_ratio: Ratio = 0.2
    """It takes no order below this and goes to charge."""
    charge_to_ratio: Ratio = 0.95
    """It charges up to this."""
    charge_c: CRate = 1.0
    """Charging current over capacity, up to a charge of 90 %."""
    idle_a: Amperes = 1.5
    """Draw while it stands."""
    empty_a: Amperes = 6.0
    """Draw while it drives without a load."""
    loaded_a: Amperes = 10.0
    """Draw while it drives with one."""
    handling_a: Amperes = 12.0
    """Draw while it lifts."""

    def settings_problems(self) -> list[str]:
        """Its place is a node, and its charges are in order."""
        problems = list[str]()
        if self.x_m is not None:
            problems.append("x_m and y_m are not for vehicles: they stand at a node")
        if not self.forced_below_ratio <= self.charge_below_ratio < self.charge_to_ratio:
            problems.append("needs forced_below_ratio <= charge_below_ratio < charge_to_ratio")
        return problems


class Piece(NamedTuple):
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
    square = distance * acceleration + 0.5 * speed * speed
    peak = sqrt(square) if square > 0.0 else 0.0
    top = peak if peak < top else top
    top = speed if speed > top else top
    ramp_ns, brake_ns = ns((top - speed) / acceleration), ns(top / acceleration)
    ramp_m = (top * top - speed * speed) / (2.0 * acceleration)
    brake_m = top * top / (2.0 * acceleration)
    cruise_ns = ns(max(distance - ramp_m - brake_m, 0.0) / top) if top else 0
    brakes_ns = t_ns + ramp_ns + cruise_ns
    return [
        Piece(t_ns, at_m, speed, acceleration),
        Piece(t_ns + ramp_ns, at_m + ramp_m, top),
        Piece(brakes_ns, to_m - brake_m, top, -acceleration),
        Piece(brakes_ns + brake_ns, to_m, 0.0),
    ]


@dataclass(slots=True, eq=False)
class Drive:
    """The way of a mission from stop to stop: where it is at any time up to now, and what it means
    to do next, exact within each piece of motion."""

    way: Way
    pieces: list[Piece]
    driven_m: float = 0.0
    """What the vehicle had driven before."""

    def at(self, t_ns: int) -> tuple[float, float]:
        """Distance driven and speed."""
        pieces, end_m = self.pieces, self.way[-1][1]
        at = len(pieces) - 1
        while at and pieces[at][0] > t_ns:
            at -= 1
        far, speed = pieces[at].after(t_ns)
        far = 0.0 if far < 0.0 else far
        return end_m if end_m < far else far, 0.0 if speed < 0.0 else speed

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

    def passes(self, to_ns: int) -> list[tuple[int, int]]:
        """When it came to each node of its way up to a time, on the millisecond, and which."""
        found = list[tuple[int, int]]()
        for index, (_, far_m) in enumerate(self.way[1:], 1):
            comes_ns = self.comes_ns(far_m)
            if comes_ns is None or ceil_ms(comes_ns) > to_ns:
                break
            found.append((ceil_ms(comes_ns), index))
        return found

    def passed(self, far_m: float) -> int:
        """The last node at or before a point of its way."""
        at = bisect_right(self.way, far_m + _SAME_M, key=lambda node: node[1]) - 1
        return max(at, 0)


_SAME_M = 1e-9
_ROUNDING_NS = 1_000
"""What many plans may differ from one, each rounded to a nanosecond."""
_GRACE_NS = NS_PER_S
_CHORD_M = 0.04
"""The radio knows the track as chords, which stay closer to the truth than this."""
_KEEP_NS = 30 * NS_PER_S
"""A VDA 5050 state is sent at least so often; signals sampled less often go as plain columns."""
_HOLD_NS = 60 * NS_PER_S
"""How long a reader believes a row of columns."""


def ceil_ms(t_ns: int) -> int:
    """The next whole millisecond."""
    return -(-t_ns // NS_PER_MS) * NS_PER_MS


_FULL_FROM = 0.9
"""Charge from which on the charging current tapers."""
_TAPER = 0.01
"""It does so in steps of this charge."""
_OPEN_CIRCUIT = ((0.0, 0.05, 0.2, 0.8, 1.0), (40.0, 44.0, 50.8, 51.6, 54.4))
"""Charge, and volts of a 16-cell LFP battery at rest."""


class Battery:
    """Its charge as the integral of its current, exact in integers (milliampere-nanoseconds)."""

    def __init__(self, t_ns: int, capacity_ah: float, ratio: float, draw_a: float) -> None:
        self.capacity = round(capacity_ah * 3600 * 1000 * NS_PER_S)
        self._t = array("q", (t_ns,))
        self._draw = array("q", (round(draw_a * 1000),))
        self._left = array("q", (round(ratio * self.capacity),))

    def draw(self, t_ns: int, amperes: float) -> None:
        """Current taken from ``t_ns`` on, which is not before the last change; less than none
        charges it."""
        draw = round(amperes * 1000)
        before = self._draw[-1]
        if draw == before:
            return
        left = max(self._left[-1] - before * (t_ns - self._t[-1]), 0)
        self._t.append(t_ns)
        self._draw.append(draw)
        self._left.append(left)

    def ratio(self, t_ns: int) -> float:
        """State of charge."""
        at = self._at(t_ns)
        left = self._left[at] - self._draw[at] * (t_ns - self._t[at])
        return min(max(left / self.capacity, 0.0), 1.0)

    def falls_ns(self, t_ns: int, ratio: float) -> int:
        """How long from a time on it lasts until it falls to a charge, at the current of then."""
        left, draw = (self.ratio(t_ns) - ratio) * self.capacity, self._draw[self._at(t_ns)]
        return max(round(left / draw), 0) if draw > 0 else _HOLD_NS

    def _at(self, t_ns: int) -> int:
        """The last change up to a time; there may be some to come."""
        at = len(self._t) - 1
        return at if self._t[at] <= t_ns else max(bisect_right(self._t, t_ns) - 1, 0)

    def at(self, times: Times) -> Floats:
        """State of charge at ascending times."""
        if not len(times):
            return np.empty(0, dtype=np.float64)
        low = max(bisect_right(self._t, int(times[0])) - 1, 0)
        high = max(bisect_right(self._t, int(times[-1])), low + 1)
        since, draw, left = (
            np.array(log[low:high], dtype=np.int64) for log in (self._t, self._draw, self._left)
        )
        index = np.maximum(np.searchsorted(since, times, side="right") - 1, 0)
        charge = left[index] - draw[index] * (times - since[index])
        return np.clip(charge / self.capacity, 0.0, 1.0)

    def bends(self, to_ns: int) -> list[tuple[int, int, int]]:
        """Its charge as straight pieces up to a time: when each begins, the charge then, and what
        it loses a nanosecond, both in the units of the capacity. An empty battery stays empty."""
        found = list[tuple[int, int, int]]()
        ends = (*self._t[1:], to_ns)
        for t_ns, end_ns, draw, left in zip(self._t, ends, self._draw, self._left, strict=True):
            if t_ns > to_ns:
                break
            charge = min(left, self.capacity)
            found.append((t_ns, charge, draw))
            if draw > 0 and charge < draw * (end_ns - t_ns):
                found.append((t_ns + charge // draw, 0, 0))
        return found


def volts(ratio: float) -> float:
    """Voltage at rest of a state of charge."""
    return float(np.interp(ratio, *_OPEN_CIRCUIT))


@dataclass(frozen=True, slots=True)
class Situation:
    """What changes at events only; position, speed and battery are computed."""

    order: str = ""
    way: Way = ()
    """Of the order; empty without one."""
    update: int = 0
    base: int = -1
    """The last node of the order that is released; -1 for none."""
    asks: bool = False
    """For more of them."""
    last_node: str = ""
    index: int = 0
    """Of the last node on the way of its order."""
    driving: bool = False
    load: str = ""
    charging: bool = False
    waiting_for_link: bool = False

    @property
    def nodes(self) -> tuple[tuple[str, int], ...]:
        """Nodes still to be reached, with their sequence numbers; the last one stays until what
        is to be done there is done."""
        way, last = self.way, len(self.way) - 1
        if not way:
            return ()
        return tuple((way[n][0], 2 * n) for n in range(min(self.index + 1, last), last + 1))


@dataclass(slots=True, eq=False)
class _Leg:
    """What a vehicle means to do on its way to a stop, as far as its base leads."""

    drive: Drive
    mission: Mission
    stop: int
    from_ns: int
    """Since when it means to."""
    head: int = -1
    end_m: float = 0.0
    """Where its base ends on the way to the stop."""
    brakes_ns: int = 0
    stands_ns: int = 0
    wants: bool = False
    """Whether its base does not reach to the stop."""
    calm: bool = False
    """Whether it is known that nothing will be missed until it brakes."""
    calm_ns: int = 0
    """Up to when that is known anyway."""
    asks_ns: int = 0
    index: int = 0
    """The last node passed when it asks."""
    due_ns: int = 0
    """When the fleet manager answers."""
    is_sure: bool = False
    """Whether that answer is foreseen, and will be what it wants."""


class Motion(NamedTuple):
    """Where it is at some times, and how fast."""

    x_m: Floats
    y_m: Floats
    theta: Floats
    speed_mps: Floats
    since_node_m: Floats


class Agv:
    """Works for the fleet manager: order in over the link, state back over the link.

    While it drives, ``watchdog_ms`` without a valid message makes it stop with its service
    deceleration; it goes on when it hears again. While it brakes for the end of its base or way,
    the watchdog has nothing to stop. It is on a mission from the arrival of an order until its last
    action is done.
    """

    channels: Mapping[str, str] = {
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
        self.control = floor.control(self.asset, (STATE_BYTES, ORDER_BYTES))
        self.at = spec.node
        self.charger = spec.charger
        own_area = (spec.area,) if floor.plant.transport.zone == "area" else ()
        self.zones = frozenset(spec.zones or own_area)
        self.idle = True
        now = self.env.now
        self.mission = Steps(now, 0)
        self.driving = Steps(now, 0)
        self.loaded = Steps(now, 0)
        self.charging = Steps(now, 0)
        self.stands = Steps(now, 0)
        """Whether it stands on a mission for want of a base or of the link."""
        self.halted = Meter(now, 0, 1)
        """Time the watchdog kept it standing, in ns."""
        self.waited = Meter(now, 0, 1)
        """Time it stood for want of a base, in ns."""
        self.battery = Battery(now, spec.battery_ah, spec.start_ratio, spec.idle_a)
        self._limit_ns = ns(spec.watchdog_ms / 1000)
        self._lead_ns = ns(spec.base_lead_s)
        self._situation, self._since_ns = Situation(last_node=spec.node), now
        """As it was before the first entry of the log, and since when."""
        self._log: list[tuple[int, dict[str, Any]]] = []
        """What changed since the last report, but for the nodes passed."""
        self._drives = [Drive(((spec.node, 0.0),), [Piece(now, 0.0, 0.0)])]
        self._heading = 0.0
        """Where it faced before these."""
        self._track = [(now, *floor.roads.place[spec.node])]
        """What the radio knows of where it goes."""
        self._is_tracked = floor.plant.radio is not None and not floor.draws_heartbeats
        """Whether the radio is told where it goes. Where heartbeats are drawn, the law they are
        drawn by was measured on the move, and the radio leaves the vehicle where it began."""
        self._ahead_ns = now
        """Up to when it has decided what it does, where nothing can come between."""
        self._life: simpy.Process | None = None
        """Its own process, while it relies on getting its base."""
        self._is_long = ns(spec.base_m / spec.speed_mps) > self._lead_ns + NS_PER_MS
        """Whether a base that comes in time lasts until the next one is asked for."""
        self._inbox = self.env.event()
        self._woken = self.env.event()
        """What it waits for, if a new base would change that."""
        self._head = -1
        self._asking = False
        self._update = 0
        self._container: Container | None = None
        floor.fleet.vehicles.append(self)

    @property
    def base_m(self) -> float:
        """The way it is released at a time."""
        return self.spec.base_m

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
        return round(self.battery.ratio(t_ns), 4)

    def charge_need(self) -> Need:
        """How badly it has to charge."""
        ratio = self.battery.ratio(self.env.now)
        return Need(ratio < self.spec.charge_below_ratio, ratio < self.spec.forced_below_ratio)

    def charge_lasts_ns(self) -> int:
        """How long it can stand before it has to charge more badly than now."""
        spec, now = self.spec, self.env.now
        ratio = self.battery.ratio(now)
        limit = spec.charge_below_ratio if ratio >= spec.charge_below_ratio else 0.0
        if limit == 0.0 and ratio >= spec.forced_below_ratio:
            limit = spec.forced_below_ratio
        return ceil_ms(self.battery.falls_ns(now, limit)) + NS_PER_S

    def pieces(self) -> int:
        """Pieces it carries."""
        return self._container.pieces if self._container else 0

    # Messages

    def take(self, mission: Mission, head: int) -> None:
        """An order is here, with its base; without one an update will bring it."""
        self._head = max(self._head, head)
        self._asking = self._head < 0
        self._inbox.succeed(mission)
        if self.charging.last and self._life is not None:
            self._life.interrupt()

    def extend(self, head: int) -> None:
        """A longer base is here, perhaps before its order, if that had to be sent again."""
        self._has(head, self.env.now)
        if not self._woken.triggered:
            self._woken.succeed()

    def _ask(self, mission: Mission, index: int) -> None:
        """Ask for a new base over the link, if it is not asked for."""
        if not self._asking:
            self._asking = True
            asked = partial(self.floor.fleet.asked, mission, index)
            deliver(self.env, self.control.up, STATE_BYTES, asked, after_ns=ANSWER_NS)

    def _tell_stop(self, mission: Mission, stop: int) -> None:
        """Have the fleet manager know that it stands at a stop; a lost state is sent again."""
        fleet, arrival_ns = self.floor.fleet, self.control.up.send(self.env.now, STATE_BYTES)
        if arrival_ns is None:
            later(self.env, RETRY_NS, partial(self._tell_stop, mission, stop))
        else:
            fleet.reservations.foresee(arrival_ns, partial(fleet.arrived, mission, stop))

    def _tell_state(self, heard: partial[None]) -> None:
        deliver(self.env, self.control.up, STATE_BYTES, heard)

    def _note(self, **changes: Any) -> None:
        self._log.append((self._now_ns, changes))

    # Life

    @property
    def _now_ns(self) -> int:
        """Now, or up to when it has lived ahead."""
        return max(self.env.now, self._ahead_ns)

    def _pass(self, t_ns: int) -> Process:
        """Let time pass, without waiting where nothing but what is foreseen can happen to it."""
        if self.control.down.foresees and not self._asking:
            self._ahead_ns = t_ns
        else:
            yield self.env.timeout(t_ns - self.env.now)

    def _catch_up(self) -> Process:
        """Wait until it is the time it has lived to."""
        if (left_ns := self._ahead_ns - self.env.now) > 0:
            yield self.env.timeout(left_ns)

    def run(self) -> Process:
        """Mission after mission; it waits where the last one ended."""
        while True:
            mission: Mission = yield self._inbox
            self._inbox = self.env.event()
            yield from self._carry_out(mission)
            if mission.sink is None:
                yield from self._charge(mission)

    def _carry_out(self, mission: Mission) -> Process:
        env, fleet, route = self.env, self.floor.fleet, mission.route
        self.mission.set(env.now, 1)
        self._note(
            order=mission.name, way=route.way, index=0, base=self._head, update=self._update,
            asks=self._asking,
        )  # fmt: skip
        last = self._drives[-1]
        drive = Drive(route.way, [Piece(env.now, 0.0, 0.0)], last.driven_m + last.way[-1][1])
        self._drives.append(drive)
        for stop in route.stops:
            yield from self._drive(drive, mission, stop)
            self.at = route.way[stop][0]
            self._note(index=stop, last_node=self.at)
            self._tell_stop(mission, stop)
            if mission.sink is not None:
                yield from self._handle(mission, stop)
        self.mission.set(env.now, 0)
        self._head, self._update = -1, 0
        self._note(order="", way=(), last_node=self.at, base=-1, update=0, load="")
        if mission.sink is not None:
            self._tell_state(partial(fleet.finished, mission))

    def _handle(self, mission: Mission, stop: int) -> Process:
        """Load, or unload at the last stop. The way on is asked for before it has loaded."""
        env, setting, battery = self.env, self.floor.plant.transport, self.battery
        container, source, sink = mission.container, mission.source, mission.sink
        assert container is not None
        assert source is not None
        assert sink is not None
        battery.draw(env.now, self.spec.handling_a)
        if stop != mission.route.stops[-1]:
            load_ns = ceil_ms(ns(setting.load_s))
            lead_ns = min(ceil_ms(ns(self.spec.base_lead_s)), load_ns)
            if self.control.up.foresees:
                self._ask_at(env.now + load_ns - lead_ns, mission, stop, env.now + load_ns)
                yield env.timeout(load_ns)
                self.floor.fleet.reservations.settle(env.now)
            else:
                yield env.timeout(load_ns - lead_ns)
                self._ask(mission, stop)
                yield env.timeout(lead_ns)
            source.output.take(container)
            self._container = container
            self.loaded.set(env.now, 1)
            self._note(load=str(container.order.number))
        else:
            yield env.timeout(ceil_ms(ns(setting.unload_s)))
            self._container = None
            self.loaded.set(env.now, 0)
            sink.receive(container)
        battery.draw(env.now, self.spec.idle_a)

    def _charge(self, mission: Mission) -> Process:
        """Charge until it is full or, once it is fit for work, called away."""
        env, spec, battery, fleet = self.env, self.spec, self.battery, self.floor.fleet
        self.charging.set(env.now, 1)
        self._note(charging=True)
        is_told = False
        while (ratio := battery.ratio(env.now)) < spec.charge_to_ratio - _SAME_M:
            if not is_told and ratio >= spec.charge_below_ratio - _SAME_M:
                is_told = True
                self._tell_state(partial(fleet.free, self))
            goal, amperes = _charging(ratio, spec)
            if not is_told:
                goal = min(goal, spec.charge_below_ratio)
            battery.draw(env.now, -amperes)
            left_s = (goal - ratio) * spec.battery_ah * 3600 / amperes
            enough = env.timeout(ceil_ms(ns(left_s)) + NS_PER_MS)
            self._life = env.active_process if is_told else None
            try:
                yield enough
            except simpy.Interrupt:  # called away
                break
        self._life = None
        battery.draw(env.now, spec.idle_a)
        self.charging.set(env.now, 0)
        self._note(charging=False)
        self._tell_state(partial(fleet.unplugged, self))

    # Motion

    def _rolls(self, *, driving: bool) -> None:
        spec, now = self.spec, self._now_ns
        if bool(self.driving.last) == driving:
            return
        self.driving.set(now, int(driving))
        self._note(driving=driving)
        draw_a = spec.loaded_a if self._container else spec.empty_a
        self.battery.draw(now, draw_a if driving else spec.idle_a)

    def _drive(self, drive: Drive, mission: Mission, stop: int) -> Process:
        """On to a stop, from standing to standing, once it is released."""
        goal_m = drive.way[stop][1]
        while True:
            far, speed = drive.at(self._now_ns)
            if speed or far < self._end_m(drive, stop) - _SAME_M:
                if not (yield from self._go(drive, mission, stop)):
                    yield from self._halt(drive)
                continue
            yield from self._catch_up()
            if self._head >= stop and far >= goal_m - _SAME_M:
                break
            yield from self._await_base(drive, mission)

    def _end_m(self, drive: Drive, stop: int) -> float:
        """Where its base ends on the way to a stop."""
        return drive.way[max(min(self._head, stop), 0)][1]

    def _go(self, drive: Drive, mission: Mission, stop: int) -> Generator[simpy.Event, Any, bool]:
        """Drive towards the end of the base until it stands there or the base grows, or until it
        must stop because nothing is heard: ``False``."""
        env, from_ns = self.env, self._now_ns
        leg = _Leg(drive, mission, stop, from_ns)
        self._intend(leg, from_ns)
        if self._may_request(leg):
            yield from self._catch_up()
        while self._requests(leg):
            stands_ns = self._sure_ns(leg)
            if stands_ns is None:
                yield env.timeout(leg.due_ns - env.now)
                if not self._grows(leg):
                    break
                continue
            self._foresee(leg)
            yield from self._sleep(leg, stands_ns)
            break
        wants, brakes_ns = leg.wants, leg.brakes_ns
        calm = leg.calm and not wants
        if not calm and self._now_ns < leg.from_ns:
            yield from self._pass(leg.from_ns)
        while not calm and (now := self._now_ns) < brakes_ns:
            if wants and now >= leg.asks_ns:
                yield from self._catch_up()
                self._wants(drive, mission)
            due_ns = leg.asks_ns if wants and leg.asks_ns > now else brakes_ns
            silent = yield from self._watch(due_ns)
            if self._head != leg.head:
                return True
            if silent:
                return False
        if wants:
            yield from self._catch_up()
            self._wants(drive, mission)
        if self._is_tracked:
            self._tell(drive, brakes_ns, leg.stands_ns)
        if wants:
            yield from self._until(ceil_ms(leg.stands_ns))
            if self._head != leg.head:
                return True
        elif (stands_ns := ceil_ms(leg.stands_ns)) > self._now_ns:
            yield from self._pass(stands_ns)
        self._rolls(driving=False)
        return True

    def _intend(self, leg: _Leg, from_ns: int) -> None:
        """Plan from a time on, with the base there is then, to its end."""
        spec, drive, stop, head = self.spec, leg.drive, leg.stop, self._head
        far, speed = drive.at(from_ns)
        end_m = self._end_m(drive, stop)
        plan = trapezoid(from_ns, far, end_m, spec.speed_mps, spec.acceleration_mps2, speed)
        drive.change(plan)
        leg.from_ns, leg.head, leg.end_m = from_ns, head, end_m
        leg.brakes_ns, leg.stands_ns = brakes_ns, _ = plan[-2].t_ns, plan[-1].t_ns
        leg.wants = head < stop
        leg.asks_ns = (brakes_ns - self._lead_ns) // NS_PER_MS * NS_PER_MS
        if self._is_tracked:
            self._tell(drive, from_ns, brakes_ns)
        if not self.driving.last:
            self._rolls(driving=True)
        leg.calm = brakes_ns <= leg.calm_ns or self._foresees(from_ns, brakes_ns)

    def _foresees(self, from_ns: int, to_ns: int) -> bool:
        """Whether it is known now that nothing will be missed on the way from one time to another:
        then only its base can change what it means to do."""
        down = self.control.down
        return down.foresees and down.quiet(from_ns, to_ns, self._limit_ns) is None

    def _may_request(self, leg: _Leg) -> bool:
        """Whether it wants more base, and knows that it will hear of it."""
        return leg.calm and leg.wants and not self._asking

    def _requests(self, leg: _Leg) -> bool:
        """Ask for more base at a time to come, if it is known that the fleet manager answers before
        it would have to brake."""
        if not self._may_request(leg):
            return False
        asks_ns = leg.asks_ns = max(leg.asks_ns, leg.from_ns)
        self._asking = True
        self._log.append((asks_ns, {"asks": True}))
        index = leg.drive.passed(leg.drive.at(asks_ns)[0])
        arrival_ns = self.control.up.send(asks_ns, STATE_BYTES)
        if arrival_ns is None or arrival_ns + ANSWER_NS >= leg.brakes_ns:
            self._asked(leg.mission, index, asks_ns, arrival_ns)
            return False
        leg.index, leg.due_ns = index, arrival_ns + ANSWER_NS
        return True

    def _grows(self, leg: _Leg) -> bool:
        """Have the answer, when it is due, and go on with the new base from when it will be here.
        ``False``: it is not known whether, or it comes too late for that."""
        answer = self.floor.fleet.answer(leg.mission, leg.index, leg.due_ns)
        if answer is None:
            return False
        head, comes_ns = answer
        if comes_ns >= leg.brakes_ns:
            later(self.env, comes_ns - self.env.now, partial(self.extend, head))
            return False
        self._has(head, comes_ns)
        self._intend(leg, comes_ns)
        return True

    def _sure_ns(self, leg: _Leg) -> int | None:
        """When it stands at its stop at the earliest, if it is sure to get all its base in time on
        the way there: nobody is in its way, every message comes through, and none is missed."""
        spec, control, far = self.spec, self.control, leg.drive.at(leg.from_ns)
        if not self._is_long or not self.floor.fleet.reservations.is_clear(leg.mission):
            return None
        goal_m = leg.drive.way[leg.stop][1]
        n = int((goal_m - leg.end_m) / spec.base_m) + 1
        up, down = control.up, control.down
        assert isinstance(up, CalmLane)
        assert isinstance(down, CalmLane)
        answers_ns, asks_ns = down.ahead(n, ORDER_BYTES), up.ahead(n, STATE_BYTES)
        if min(answers_ns) < 0 or min(asks_ns) < 0:
            return None
        slow_ns = max(answers_ns) + NS_PER_MS
        if leg.due_ns + slow_ns >= leg.brakes_ns:
            return None
        if max(asks_ns) + ANSWER_NS + slow_ns >= self._lead_ns:
            return None
        top, acceleration = spec.speed_mps, spec.acceleration_mps2
        stands_ns = trapezoid(leg.from_ns, far[0], goal_m, top, acceleration, far[1])[-1].t_ns
        if not self._foresees(leg.from_ns, stands_ns + _GRACE_NS):
            return None
        leg.calm_ns = stands_ns + _GRACE_NS
        return stands_ns

    def _foresee(self, leg: _Leg) -> None:
        """Have the answer to come put down, and by it the next request."""
        leg.is_sure = True
        step = partial(self._step, leg)
        self.floor.fleet.reservations.foresee(leg.due_ns, step, leg.mission)

    def _step(self, leg: _Leg) -> None:
        """Have an answer that was foreseen, and ask again; whoever came between, it is told of at
        its time, and wakes the vehicle to do as it must."""
        leg.is_sure = False
        if not self._grows(leg):
            self._is_broken(leg)
        elif leg.wants:
            if self._requests(leg):
                self._foresee(leg)
            else:
                self._is_broken(leg)

    def _is_broken(self, leg: _Leg) -> None:
        if self.env.now != leg.due_ns:
            raise RuntimeError(f"{self.path}: what was sure has not come at {leg.due_ns}")
        if self._life is not None and self._life is not self.env.active_process:
            self._life.interrupt()

    def _sleep(self, leg: _Leg, stands_ns: int) -> Process:
        """Let time pass until its stop is near, or somebody is in the way."""
        env, reservations = self.env, self.floor.fleet.reservations
        wakes_ns = max(ceil_ms(stands_ns - _ROUNDING_NS), env.now)
        self._life = env.active_process
        try:
            while True:
                yield env.timeout(wakes_ns - env.now)
                reservations.settle(env.now)
                if not leg.is_sure:
                    break
                wakes_ns = leg.due_ns
        except simpy.Interrupt:
            pass

    def _ask_at(self, t_ns: int, mission: Mission, index: int, wakes_ns: int) -> None:
        """``_ask`` at a time to come, where nobody sends anything before, and nothing is done
        before ``wakes_ns``."""
        self._asking = True
        up, down, reservations = self.control.up, self.control.down, self.floor.fleet.reservations
        arrival_ns = up.send(t_ns, STATE_BYTES)
        assert isinstance(down, CalmLane)
        is_sure = reservations.is_clear(mission) and down.ahead(1, ORDER_BYTES)[0] >= 0
        if not is_sure or arrival_ns is None or arrival_ns + ANSWER_NS > wakes_ns:
            self._asked(mission, index, t_ns, arrival_ns)
            return
        due_ns = arrival_ns + ANSWER_NS
        told = partial(self._is_told, mission, index, due_ns)
        reservations.foresee(due_ns, told, mission)

    def _is_told(self, mission: Mission, index: int, due_ns: int) -> None:
        """Have the answer of a time, while it stands."""
        answer = self.floor.fleet.answer(mission, index, due_ns)
        if answer is None:
            return
        head, comes_ns = answer
        if comes_ns >= self.env.now:
            later(self.env, comes_ns - self.env.now, partial(self.extend, head))
        else:
            self._has(head, comes_ns)

    def _has(self, head: int, comes_ns: int) -> None:
        """A longer base is here, at a time that nothing has happened to it since."""
        self._head, self._asking = head, False
        self._update += 1
        self._log.append((comes_ns, {"base": head, "update": self._update, "asks": False}))

    def _asked(self, mission: Mission, index: int, sent_ns: int, arrival_ns: int | None) -> None:
        """Have the fleet manager know of a request when it is there; a lost one is sent again."""
        env, up = self.env, self.control.up
        asked = partial(self.floor.fleet.asked, mission, index)
        if arrival_ns is not None:
            later(env, arrival_ns + ANSWER_NS - env.now, asked)
            return
        again = partial(deliver, env, up, STATE_BYTES, asked, after_ns=ANSWER_NS)
        later(env, sent_ns + RETRY_NS - env.now, again)

    def _wants(self, drive: Drive, mission: Mission) -> None:
        """Ask for a base, if that is not done."""
        if not self._asking:
            self._note(asks=True)
            self._ask(mission, drive.passed(drive.at(self.env.now)[0]))

    def _watch(self, to_ns: int) -> Generator[simpy.Event, Any, bool]:
        """Let time pass up to ``to_ns``, or until the base has grown, or until nothing was heard
        for too long: ``True``."""
        env, down, limit_ns = self.env, self.control.down, self._limit_ns
        if down.foresees or not self._asking:  # nobody sends it anything but heartbeats
            quiet_ns = down.quiet(self._now_ns, to_ns, limit_ns)
            due_ns = to_ns if quiet_ns is None else quiet_ns
            if not self._asking:
                yield from self._pass(due_ns)
                return quiet_ns is not None
            yield from self._until(due_ns)
            return quiet_ns is not None and env.now == due_ns
        while self._asking and env.now < to_ns:
            quiet_ns = down.heard_ns(env.now) + limit_ns
            if quiet_ns <= env.now:
                return True
            yield from self._until(min(quiet_ns, to_ns))
        return False

    def _until(self, t_ns: int) -> Process:
        """Let time pass up to then, or until a new base is here."""
        self._woken = woken = self.env.event()
        later(self.env, t_ns - self.env.now, lambda: woken.triggered or woken.succeed())
        yield woken

    def _halt(self, drive: Drive) -> Process:
        """Stop because nothing is heard, and stand until something is."""
        down, quiet_ns = self.control.down, self._now_ns
        brake = self.spec.acceleration_mps2
        far, speed = drive.at(quiet_ns)
        still_ns = quiet_ns + ns(speed / brake)
        still = Piece(still_ns, far + speed * speed / (2.0 * brake), 0.0)
        drive.change([Piece(quiet_ns, far, speed, -brake), still])
        if self._is_tracked:
            self._tell(drive, quiet_ns, still_ns)
        stands_ns = ceil_ms(still_ns)
        yield from self._pass(stands_ns)
        self._rolls(driving=False)
        self._stand(for_link=True)
        while (heard_ns := down.hears(quiet_ns, self._now_ns)) is None:
            yield from self._until(down.next_beat_ns)
        yield from self._pass(max(ceil_ms(heard_ns), stands_ns + NS_PER_MS))
        self._stand(for_link=False)

    def _stand(self, *, for_link: bool) -> None:
        """It stands for want of the link, or does so no longer."""
        self.halted.set(self._now_ns, int(for_link))
        self.stands.set(self._now_ns, int(for_link))
        self._note(waiting_for_link=for_link)

    def _await_base(self, drive: Drive, mission: Mission) -> Process:
        """Stand, blocked, at the end of the base until it has grown."""
        self._note(asks=True)
        self._ask(mission, drive.passed(drive.at(self.env.now)[0]))
        self.waited.set(self.env.now, 1)
        self.stands.set(self.env.now, 1)
        self._woken = self.env.event()
        yield self._woken
        self.waited.set(self.env.now, 0)
        self.stands.set(self.env.now, 0)

    # Track

    def _tell(self, drive: Drive, from_ns: int, to_ns: int) -> None:
        """Tell the radio the track between two times, as it is decided now: the corners of the way,
        and changes of speed by chords."""
        cut_ns = ns(sqrt(8.0 * _CHORD_M / self.spec.acceleration_mps2))
        times = {to_ns}
        for piece, onward in pairwise(drive.pieces):
            start_ns, end_ns = max(piece.t_ns, from_ns), min(onward.t_ns, to_ns)
            if start_ns < end_ns:
                parts = -(-(end_ns - start_ns) // cut_ns) if piece.acceleration_mps2 else 1
                times |= {start_ns + (end_ns - start_ns) * n // parts for n in range(parts)}
        far_m = drive.at(from_ns)[0]
        for _, corner_m in drive.way[drive.passed(far_m) + 1 : -1]:
            if (comes_ns := drive.comes_ns(corner_m)) is None or comes_ns >= to_ns:
                break
            times.add(comes_ns)
        to_come = [t_ns for t_ns in sorted(times) if t_ns > from_ns]
        track = [(from_ns, *self._told(from_ns))]
        track += [(t_ns, *self._place(drive, drive.at(t_ns)[0])) for t_ns in to_come]
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

    def _place(self, drive: Drive, far_m: float) -> tuple[float, float]:
        """Coordinates of a point of its way."""
        way, place = drive.way, self.floor.roads.place
        at = drive.passed(far_m)
        name, from_m = way[at]
        ax, ay = place[name]
        if at + 1 == len(way) or far_m <= from_m:
            return ax, ay
        bx, by = place[way[at + 1][0]]
        share = (far_m - from_m) / (way[at + 1][1] - from_m)
        return ax + share * (bx - ax), ay + share * (by - ay)

    def motion(self, times: Times) -> Motion:
        """Where it is at ascending times that it has lived through, no earlier than what was last
        reported."""
        drives, lasts = self._drives, np.cumsum([len(d.way) for d in self._drives]) - 1
        pieces = [(p, d.driven_m) for d in drives for p in d.pieces]
        since = np.array([p.t_ns for p, _ in pieces], dtype=np.int64)
        law: Floats = np.array([(p.at_m + m, *p[2:]) for p, m in pieces], dtype=np.float64)
        index = np.maximum(since.searchsorted(times, side="right") - 1, 0)
        dt = (times - since[index]) / NS_PER_S
        at, v, a = law[index, 0], law[index, 1], law[index, 2]
        far: Floats = at + v * dt + 0.5 * a * dt * dt
        node, x, y = self._nodes(drives)
        far = np.minimum(np.maximum(far, node[0]), node[-1])
        lane: Ints = node.searchsorted(far + _SAME_M, side="right") - 1
        begun = np.repeat(lasts, [len(d.pieces) for d in drives])[index]  # no order to come counts
        return Motion(
            np.interp(far, node, x), np.interp(far, node, y),
            self._headings(x, y)[np.minimum(lane, begun)],
            np.maximum(v + a * dt, 0.0), np.maximum(far - node[lane], 0.0),
        )  # fmt: skip

    def _nodes(self, drives: Sequence[Drive]) -> tuple[Floats, Floats, Floats]:
        """Nodes of some ways one after the other: metres driven, and coordinates."""
        place = self.floor.roads.place
        nodes = [(d.driven_m + m, *place[name]) for d in drives for name, m in d.way]
        far, x, y = np.array(nodes, dtype=np.float64).T
        return far, x, y

    def _headings(self, x: Floats, y: Floats) -> Floats:
        """Where it faces from each node of its ways on: to the next one, and at the end of a way
        where it faced before."""
        dx, dy = np.diff(x), np.diff(y)
        turns = np.flatnonzero((dx != 0.0) | (dy != 0.0))
        known = np.append(self._heading, np.arctan2(dy, dx)[turns])
        return known[turns.searchsorted(np.arange(len(x)), side="right")]

    # Reports

    def situations(self, to_ns: int) -> list[tuple[int, Situation]]:
        """The situation it was last reported in, or began in, and every change up to a time."""
        self.floor.fleet.reservations.settle(to_ns)
        passes = [entry for drive in self._drives for entry in self._passes(drive, to_ns)]
        log = [entry for entry in self._log if entry[0] <= to_ns]
        changes = sorted([*passes, *log], key=lambda change: change[0])
        now, found = self._situation, [(self._since_ns, self._situation)]
        for t_ns, change in changes:
            now = replace(now, **change)
            if t_ns == found[-1][0]:
                found[-1] = t_ns, now
            elif now != found[-1][1]:
                found.append((t_ns, now))
        return found

    def _passes(self, drive: Drive, to_ns: int) -> list[tuple[int, dict[str, Any]]]:
        """What the nodes it has passed since the last report change."""
        return [
            (t_ns, {"index": index, "last_node": drive.way[index][0]})
            for t_ns, index in drive.passes(to_ns)
            if t_ns > self._since_ns
        ]

    def first_reports(self, t_ns: int) -> list[Report]:
        """Online, and where it is."""
        online = VdaConnection(self.asset, t_ns)
        times = np.array([t_ns], dtype=np.int64)
        states = self._states(times, [self.situations(t_ns)[-1][1]])
        return [online, *states, *self.control.first_reports(t_ns)]

    def reports(self, stretch: Stretch) -> list[Report]:
        """VDA 5050 states at every event and at least every 30 s; where signals are sampled less
        often, or not at all, the same facts as plain columns. Delay histograms by the pane."""
        times, to_ns = stretch.times, stretch.to_ns
        every_ns = int(times[1] - times[0]) if len(times) > 1 else NS_PER_S
        self.floor.fleet.reservations.settle(to_ns)
        if stretch.bundled or every_ns > _KEEP_NS:
            said, last = self._rows(stretch), self._stands_at(to_ns)
        else:
            found = self.situations(to_ns)
            panes_ns = times[times % PANE_NS == 0].tolist()
            moments = sorted({t for t, _ in found if t > stretch.after_ns} | {*panes_ns, to_ns})
            since = [t for t, _ in found]
            now = [found[max(bisect_right(since, t) - 1, 0)][1] for t in moments]
            said, last = self._states(np.array(moments, dtype=np.int64), now), found[-1][1]
        self._situation, self._since_ns = last, to_ns
        self._log = [entry for entry in self._log if entry[0] > to_ns]
        begun = bisect_right(self._drives, to_ns, key=lambda drive: drive.pieces[0].t_ns)
        gone = max(begun - 1, 0)  # of what was reported only where it stands is kept
        if gone:
            _, x, y = self._nodes(self._drives[:gone])
            self._heading = float(self._headings(x, y)[-1])
            del self._drives[:gone]
        return [*said, *self.control.reports(stretch)]

    def _stands_at(self, to_ns: int) -> Situation:
        """The last of ``situations``, without those before it."""
        log = [entry for entry in self._log if entry[0] <= to_ns]
        begun = bisect_right(self._drives, to_ns, key=lambda drive: drive.pieces[0].t_ns)
        drive = self._drives[max(begun - 1, 0)]
        passes = self._passes(drive, to_ns)[-1:]
        changes = dict[str, Any]()
        for _, change in sorted([*passes, *log], key=lambda entry: entry[0]):
            changes |= change
        return replace(self._situation, **changes)

    def _states(self, times: Times, situations: Sequence[Situation]) -> list[Report]:
        motion = [rounded(column, 2) for column in self.motion(times)]
        ratio = rounded(self.battery.at(times), 4)
        return [
            VdaState(
                self.asset, t_ns, now.order, now.last_node, 2 * now.index, now.nodes,
                2 * now.base, now.update, now.asks, now.driving, now.load, now.charging,
                now.waiting_for_link, x, y, theta, speed, since, charge, round(volts(charge), 2),
            )
            for t_ns, now, x, y, theta, speed, since, charge in zip(
                times.tolist(), situations, *motion, ratio, strict=True
            )
        ]  # fmt: skip

    def _rows(self, stretch: Stretch) -> list[Report]:
        """What its states would say, as rows: at every change, and as often as it is sampled, but
        never so seldom that a reader would cease to believe them."""
        logs = {
            "mission": self.mission, "driving": self.driving, "loaded": self.loaded,
            "waiting": self.stands, "charging": self.charging,
        }  # fmt: skip
        after_ns, to_ns = stretch.after_ns, stretch.to_ns
        changes = {t for steps in logs.values() for t, _ in steps.between(after_ns, to_ns)}
        times = stretch.times
        if len(times) < 2 or int(times[1] - times[0]) > _HOLD_NS:
            times = Stretch.every(after_ns, to_ns, _HOLD_NS).times
        if stretch.bundled:
            changes |= {*times.tolist(), to_ns}
            times = times[:0]

        def columns(at: Times) -> dict[str, list[float]]:
            motion = self.motion(at)
            told: dict[str, list[float]] = {n: steps.at(at).tolist() for n, steps in logs.items()}
            return told | {
                "battery_ratio": rounded(self.battery.at(at), 4),
                "x_m": rounded(motion.x_m, 2), "y_m": rounded(motion.y_m, 2),
            }  # fmt: skip

        said = list[Report]()
        if changes:
            at = np.array(sorted(changes), dtype=np.int64)
            said += event_reports(self.asset, "process", stretch, at.tolist(), columns(at))
        for low, high in panes(times):
            at = times[low:high]
            said.append(Columns(self.asset, "process", int(at[-1]), at.tolist(), columns(at)))
        return said


def _charging(ratio: float, spec: AgvSpec) -> tuple[float, float]:
    """Up to which charge a charging current stays as it is, and the current."""
    full_a = spec.charge_c * spec.battery_ah
    if ratio < _FULL_FROM - _SAME_M:
        return min(_FULL_FROM, spec.charge_to_ratio), full_a
    step = int((ratio - _FULL_FROM) / _TAPER + 1e-6)
    share = 1.0 - (step + 0.5) * _TAPER / (1.0 - _FULL_FROM)
    return min(_FULL_FROM + (step + 1) * _TAPER, spec.charge_to_ratio), max(share, 0.05) * full_a


MODEL = (AgvSpec, Agv)
