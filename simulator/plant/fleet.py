r"""The fleet manager: which vehicle fetches which container, and which nodes are reserved for it.

Theory of operation
===================

An order (VDA 5050) leads through all nodes of a mission. Its *base* is what is reserved, the rest
is *horizon*:

    node        a1 ──── a2 ──── a3 ──── a4 ──── a5
                 │ passed │ held: the last one passed, up to the end of the base │ wanted │
    vehicle                   ■►

A vehicle holds the last node it has told to have passed, and all up to the end of its base; so it
is alone on the lane it drives on. It asks for the next stretch over the link. The stretch is
granted when its nodes are free and the floor stays *safe*: there is an order in which every vehicle
that holds anything could finish its mission while the others stand (Dijkstra's banker). In a safe
state one vehicle at least finds all its way free and can go on, so vehicles never wait for each
other in a circle. What is not granted waits, first come, first served, and is looked at again
whenever nodes are given back.

A vehicle holds the node of a station while it loads or unloads there. One without a mission, or at
a charging station, stands beside the lane and holds nothing.

A vehicle that drives where nobody else has or wants anything will be granted all it asks for. What
it will ask and give back, and when, is then put down (``foresee``), and done when somebody looks at
what is reserved, in order of time and as of its time: months of driving are an event a stop, not
one a request. As soon as somebody waits, or holds what such a vehicle has still before it, all is
done at its time.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, NamedTuple, Protocol

import simpy

from config.units import NS_PER_MS
from ingest.messages import Asset
from simulator.device import Process, World, ns
from simulator.mes import Calendar
from simulator.plant import Plant, Roads
from simulator.plant.control import ORDER_BYTES, RETRY_NS, Control, deliver, later
from simulator.plant.material import Container, Sink, Source

Way = tuple[tuple[str, float], ...]
"""Nodes, each with its distance from the first one."""


class Route(NamedTuple):
    """A way from stop to stop, and what has to be reserved for it."""

    way: Way
    stops: tuple[int, ...]
    """Which of its nodes are stops."""
    nodes: tuple[int, ...]
    """Per node its bit in the map of reservations."""
    rest: tuple[int, ...]
    """Per node the bits of that one and all that follow."""


@dataclass(slots=True, eq=False)
class Mission:
    """A transport from a source to a sink, or, without a container, a trip to the charger.

    What the fleet manager has reserved for it is its own business; the vehicle learns of it by
    message."""

    name: str
    vehicle: "Vehicle"
    route: Route
    container: Container | None = None
    source: "Source | Gate | None" = None
    sink: "Sink | Gate | None" = None
    tail: int = 0
    """The last node that the vehicle has told to have passed."""
    head: int = -1
    """The last node reserved; -1 for none."""
    wanted: int = -1
    """Up to where it wants to go, while that is not granted."""
    held: int = 0
    """Bits of the nodes reserved."""


class Vehicle(Protocol):
    """What the fleet manager knows of an AGV."""

    asset: Asset
    at: str
    """Node where it is."""
    idle: bool
    """Whether it can take an order."""
    control: Control
    zones: frozenset[str]
    """Areas whose stations it serves; empty for all."""
    charger: str

    @property
    def base_m(self) -> float:
        """The way it is released at a time."""
        ...

    def charge_need(self) -> "Need":
        """How badly it has to charge."""
        ...

    def charge_lasts_ns(self) -> int:
        """How long it can stand before it has to charge more badly than now."""
        ...

    def take(self, mission: Mission, head: int) -> None:
        """An order is here, with its base."""
        ...

    def extend(self, head: int) -> None:
        """An update is here, with a new base."""
        ...


class Need(NamedTuple):
    """Whether a battery is low, and whether it is too low to work."""

    low: bool
    empty: bool


ANSWER_NS = 20 * NS_PER_MS
"""What the fleet manager takes to answer a vehicle."""


class Reservations:
    """Nodes of the map, each for one vehicle at a time, granted so that all can always finish."""

    def __init__(self, env: World, names: Iterable[str], *, enforced: bool = True) -> None:
        self._env = env
        self._bit = {name: 1 << number for number, name in enumerate(names)}
        self._enforced = enforced
        self._holders: list[Mission] = []
        """Missions that hold nodes, the oldest first."""
        self._waiting: list[tuple[Mission, Callable[[], None]]] = []
        """What was not granted yet, and what to do when it is."""
        self._foreseen: list[tuple[int, int, Mission | None, Callable[[], None]]] = []
        """What will be done, and when, and if it asks of which mission: a heap."""
        self._put_down = 0
        self._sure = set[Mission]()
        """Missions that rely on being granted what they will ask for."""
        self._alarm_ns = -1
        """When what is foreseen has to be done at its time next; -1: nobody cares."""
        self._is_settling = False

    # What is to come

    def foresee(self, t_ns: int, call: Callable[[], None], asks: Mission | None = None) -> None:
        """At a time, now or to come, do what only gives nodes back, or ``asks`` for some where a
        mission is sure to get them, one such request at a time; perhaps later, but before anybody
        can see the difference."""
        self._put_down += 1
        heappush(self._foreseen, (t_ns, self._put_down, asks, call))
        if asks is not None:
            self._sure.add(asks)
        if not self._is_settling:
            self._beware()

    def settle(self, to_ns: int) -> None:
        """Do all that was foreseen up to a time."""
        foreseen = self._foreseen
        if self._is_settling or not foreseen or foreseen[0][0] > to_ns:
            return
        self._is_settling = True
        while foreseen and foreseen[0][0] <= to_ns:
            _, _, mission, call = heappop(foreseen)
            if mission is not None:
                self._sure.remove(mission)
            call()
        self._is_settling = False
        self._beware()

    def is_clear(self, mission: Mission) -> bool:
        """Whether nobody waits, or has anything a mission has still before it, or relies on it."""
        if not self._enforced:
            return True
        if self._waiting:
            return False
        ahead = mission.route.rest[mission.tail]
        for other in self._holders:
            if other is not mission:
                theirs = other.route.rest[other.tail] if other in self._sure else other.held
                if ahead & theirs:
                    return False
        return True

    def _beware(self) -> None:
        """See to it that what is foreseen is done at its time where somebody would notice."""
        if not self._foreseen:
            return
        if self._waiting or not all(map(self.is_clear, self._sure)):
            due_ns = self._foreseen[0][0]
            if self._alarm_ns < 0 or due_ns < self._alarm_ns:
                self._alarm_ns = due_ns
                later(self._env, max(due_ns - self._env.now, 0), lambda: self._ring(due_ns))

    def _ring(self, due_ns: int) -> None:
        if due_ns == self._alarm_ns:
            self._alarm_ns = -1
            self.settle(self._env.now)
            self._beware()

    def route(self, way: Way, stops: tuple[int, ...]) -> Route:
        """A way with what has to be reserved for it."""
        bits = tuple(self._bit[name] for name, _ in way)
        rest, tail = list[int](), 0
        for bit in reversed(bits):
            tail |= bit
            rest.append(tail)
        return Route(way, stops, bits, tuple(reversed(rest)))

    def ask(self, mission: Mission, granted: Callable[[], None]) -> None:
        """Reserve the next stretch, now or as soon as possible."""
        self.settle(self._env.now)
        mission.wanted = reach(mission.route, mission.head, mission.vehicle.base_m)
        if self._may(mission):
            self._grant(mission, granted)
        else:
            self._waiting.append((mission, granted))
        if not self._is_settling:
            self._beware()

    def passed(self, mission: Mission, index: int) -> None:
        """The vehicle has told that it is at a node of its route, or beyond."""
        self.settle(self._env.now)
        index = min(index, mission.head)
        if index <= mission.tail:
            return
        mission.tail = index
        mission.held = _bits(mission.route, index, mission.head)
        self._look_again()

    def leave(self, mission: Mission) -> None:
        """The vehicle stands beside the lane and needs no more."""
        self.settle(self._env.now)
        if mission.held:
            mission.held = 0
            self._holders.remove(mission)
            self._look_again()

    def _grant(self, mission: Mission, granted: Callable[[], None]) -> None:
        if not mission.held:
            self._holders.append(mission)
        mission.head, mission.wanted = mission.wanted, -1
        mission.held = _bits(mission.route, mission.tail, mission.head)
        granted()

    def _look_again(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for mission, granted in waiting:
            if self._may(mission):
                self._grant(mission, granted)
            else:
                self._waiting.append((mission, granted))

    def _may(self, mission: Mission) -> bool:
        """Whether what it wants is free, and all can still finish once it is given."""
        if not self._enforced:
            return True
        others = 0
        for holder in self._holders:
            if holder is not mission:
                others |= holder.held
        held = _bits(mission.route, mission.tail, mission.wanted)
        if held & others:
            return False
        if not mission.route.rest[mission.tail] & others:
            return True  # it can finish first, and then all is as it was, which was safe
        left = [(held, mission.route.rest[mission.tail])]
        left += [(h.held, h.route.rest[h.tail]) for h in self._holders if h is not mission]
        total = others | held
        while left:
            stuck = [(own, rest) for own, rest in left if rest & total & ~own]
            if len(stuck) == len(left):
                return False
            left, total = stuck, 0
            for own, _ in stuck:
                total |= own
        return True


def _bits(route: Route, tail: int, head: int) -> int:
    held = 0
    for bit in route.nodes[tail : head + 1]:
        held |= bit
    return held


def reach(route: Route, head: int, more_m: float) -> int:
    """The end of the next stretch after a node: the first node at least ``more_m`` beyond it, and
    never beyond a stop, where the vehicle will stand for a while."""
    way = route.way
    stop = next(stop for stop in route.stops if stop > head)
    end_m = way[max(head, 0)][1] + more_m
    for index in range(max(head + 1, 0), stop):
        if way[index][1] >= end_m:
            return index
    return stop


def _room(sink: "Sink | Gate") -> int:
    return sink.free()


@dataclass(slots=True, eq=False)
class _Call:
    container: Container
    source: "Source | Gate"
    sinks: Sequence["Sink | Gate"]


class _Platform:
    """Where containers wait at a gate."""

    def __init__(self, taken: Callable[[Container], None]) -> None:
        self._taken = taken

    def take(self, container: Container) -> None:
        """A vehicle has it."""
        self._taken(container)


class Gate:
    """Where an area hands its containers to the tugger train, and takes them from it."""

    def __init__(self, node: str, fleet: "Fleet", slots: int) -> None:
        self.node = node
        self.output = _Platform(self._left)
        self._fleet = fleet
        self._room = slots
        """Containers from other areas there is room for, those on their way counted."""
        self._queue: deque[Callable[[], None]] = deque()

    def admit(self, send: Callable[[], None]) -> None:
        """Send a container here from another area, now or when there is room."""
        if self._room:
            self._room -= 1
            send()
        else:
            self._queue.append(send)

    def _left(self, container: Container) -> None:
        self._fleet.tugger.hand_over(container)
        self._room += 1
        if self._queue:
            self.admit(self._queue.popleft())

    def free(self) -> int:
        """There is always room for what leaves the area."""
        return 1

    def reserve(self) -> None:
        """Nothing to keep free."""

    def receive(self, container: Container) -> None:
        """It waits for the train."""
        self._fleet.tugger.bring(container, self.node)


class Tugger:
    """The train between the areas: round the gates by its timetable, taking what waits there."""

    def __init__(self, env: World, plant: Plant, roads: Roads, calendar: Calendar) -> None:
        self._env, self._roads, self._calendar = env, roads, calendar
        self._setting = plant.transport
        self._stops = list(dict.fromkeys(plant.transport.gate.values()))
        self._bound: dict[int, tuple[str, Callable[[], None]]] = {}
        """Where each container goes, by its identity, and what to do when it is there."""
        self._waiting: dict[str, deque[Container]] = {}
        self._held: dict[int, Container] = {}
        """Containers at the gates or aboard, by identity."""
        self.moved = 0
        """Containers it has brought."""

    def book(self, container: Container, to: str, brought: Callable[[], None]) -> None:
        """A container will come, and goes to a node."""
        self._bound[id(container)] = (to, brought)
        if to not in self._stops:
            self._stops.append(to)

    def bring(self, container: Container, node: str) -> None:
        """A booked container waits at a node."""
        if node not in self._stops:
            self._stops.append(node)
        self._waiting.setdefault(node, deque()).append(container)
        self._held[id(container)] = container

    def hand_over(self, container: Container) -> None:
        """Somebody else has it now."""
        del self._held[id(container)]

    def pieces(self) -> int:
        """Pieces at the gates and aboard."""
        return sum(container.pieces for container in self._held.values())

    def run(self) -> Process:
        """Round after round, in planned time, from the first stop back to it."""
        env, aboard = self._env, list[Container]()
        at = self._stops[0]
        while True:
            due_ns = env.now - env.now % -self._setting.tugger_ns
            yield env.timeout(due_ns - env.now)
            if not self._calendar.planned(env.now):
                yield env.timeout(self._calendar.resumes_ns(env.now) - env.now)
                continue
            for stop in (*self._stops, self._stops[0]):
                if stop != at:
                    far_m = self._roads.distance_m(at, stop)
                    yield env.timeout(ns(far_m / self._setting.tugger_mps))
                    at = stop
                yield from self._serve(stop, aboard)
            yield env.timeout(NS_PER_MS)

    def _serve(self, stop: str, aboard: list[Container]) -> Process:
        """Unload what goes here, and load what waits."""
        for container in [c for c in aboard if self._bound[id(c)][0] == stop]:
            yield self._env.timeout(ns(self._setting.unload_s))
            aboard.remove(container)
            self.moved += 1
            self._bound.pop(id(container))[1]()
        waiting = self._waiting.get(stop, ())
        while waiting:
            aboard.append(waiting.popleft())
            yield self._env.timeout(ns(self._setting.load_s))


class Fleet:
    """The fleet manager at the MEC: calls in the order of the policy, the nearest idle vehicle."""

    def __init__(self, env: World, calendar: Calendar, roads: Roads, plant: Plant) -> None:
        self._env = env
        self._calendar = calendar
        self._roads = roads
        self._plant = plant
        self._setting = plant.transport
        self._new: deque[_Call] = deque()
        """Calls that nobody has looked at."""
        self._calls: deque[_Call] = deque()
        """Calls on the list."""
        self._missions = 0
        self._routes: dict[tuple[str, ...], Route] = {}
        self._choices: dict[tuple[str, tuple[int, ...]], tuple[tuple[Sink | Gate, ...], ...]] = {}
        """By area and sinks those in the area, and all: so long they keep their identities."""
        stations = ((getattr(s, "node", None), s.area) for s in plant.device if s.kind != "agv")
        self._area: dict[str, str] = {node: area for node, area in stations if node is not None}
        self._area |= {node: area for area, node in plant.transport.gate.items()}
        self._gates = {
            area: Gate(node, self, plant.transport.gate_slots)
            for area, node in plant.transport.gate.items()
        }
        self._points: dict[str, list[Vehicle]] = {}
        """Vehicles at, or on their way to, each charging station."""
        self._want_charge: deque[Vehicle] = deque()
        self._looked_after = set[Vehicle]()
        self.reservations = Reservations(env, roads.place, enforced=plant.transport.reservations)
        self.tugger = Tugger(env, plant, roads, calendar)
        self.vehicles: list[Vehicle] = []

    # Calls

    def call(
        self, container: Container, source: "Source | Gate", sinks: Sequence["Sink | Gate"]
    ) -> None:
        """A full container waits at ``source`` for a way to any of ``sinks``.

        Where vehicles stay in their areas and no sink is in this one, it goes by way of the gate.
        """
        if self._setting.zone == "area":
            area = self._area.get(source.node)
            inside = self._inside(sinks, area) if area else ()
            if sinks and not inside:
                self._change(container, source, area, sinks)
                return
            sinks = inside
        self._new.append(_Call(container, source, sinks))
        self.dispatch()

    def _inside(self, sinks: Sequence["Sink | Gate"], area: str) -> tuple["Sink | Gate", ...]:
        """Those of some sinks that are in an area, the same tuple for the same."""
        key = (area, tuple(map(id, sinks)))
        if key not in self._choices:
            of_area = tuple(sink for sink in sinks if self._area.get(sink.node) == area)
            self._choices[key] = of_area, tuple(sinks)
        return self._choices[key][0]

    def _change(
        self, container: Container, source: "Source | Gate", area: str | None,
        sinks: Sequence["Sink | Gate"],
    ) -> None:  # fmt: skip
        """Send a container to another area, that with the most room: by the gate of its own one and
        the train to the gate of the other; what lies in no area the train serves itself."""
        sink = max(sinks, key=lambda sink: sink.free())
        goal = self._area.get(sink.node)
        if goal is None:
            sink.reserve()

            def brought() -> None:
                self.tugger.hand_over(container)
                sink.receive(container)

            self.tugger.book(container, sink.node, brought)
            self._leave(container, source, area)
            return
        gate = self._gates[goal]
        there = self._inside(sinks, goal)

        def send() -> None:
            self.tugger.book(container, gate.node, lambda: self.call(container, gate, there))
            self._leave(container, source, area)

        gate.admit(send)

    def _leave(self, container: Container, source: "Source | Gate", area: str | None) -> None:
        """Bring a booked container to the gate of its area."""
        if area is None:
            source.output.take(container)
            self.tugger.bring(container, source.node)
            return
        self._new.append(_Call(container, source, (self._gates[area],)))
        self.dispatch()

    def dispatch(self) -> None:
        """Something has changed: where dispatch is by event, new calls go on the list. Idle
        vehicles take what is on it, in planned time only."""
        if self._setting.dispatch_ns is None and self._new:
            self._calls += self._new
            self._new.clear()
        if self._calls and self._calendar.planned(self._env.now):
            self._assign()

    def _assign(self) -> None:
        idle = [vehicle for vehicle in self.vehicles if vehicle.idle]
        calls = self._in_order(idle) if idle else ()
        full = set[int]()
        """Choices of sinks without room: calls from one shop have the same."""
        for call in calls:
            if not idle:
                break
            if id(call.sinks) in full:
                continue
            sinks = call.sinks
            sink = sinks[0] if len(sinks) == 1 else max(sinks, key=_room, default=None)
            if sink is None or sink.free() <= 0:
                full.add(id(call.sinks))
                continue
            vehicle = self._nearest(idle, call.source.node, sink.node)
            if vehicle is None:
                continue
            sink.reserve()
            self._calls.remove(call)
            idle.remove(vehicle)
            self._order(vehicle, call.container, call.source, sink)

    def _nearest(self, idle: list[Vehicle], start: str, end: str) -> Vehicle | None:
        """The idle vehicle to send; one that is too low to work is none."""
        able = [v for v in idle if self._serves(v, start, end)]
        if len(able) > 1:
            able.sort(key=lambda v: (self._roads.distance_m(v.at, start), v.asset))
        return next((v for v in able if not v.charge_need().empty), None)

    def _in_order(self, idle: list[Vehicle]) -> tuple[_Call, ...]:
        calls = tuple(self._calls)
        if self._setting.policy == "earliest_due":
            return tuple(sorted(calls, key=lambda call: call.container.order.due_ns))
        if self._setting.policy == "nearest" and len(calls) > 1:
            far_m = self._roads.distance_m
            return tuple(
                sorted(calls, key=lambda call: min(far_m(v.at, call.source.node) for v in idle))
            )
        return calls

    def _serves(self, vehicle: Vehicle, *nodes: str) -> bool:
        zones = vehicle.zones
        return not zones or all(self._area.get(node) in (None, *zones) for node in nodes)

    # Missions

    def _order(
        self, vehicle: Vehicle, container: Container, source: "Source | Gate", sink: "Sink | Gate"
    ) -> None:
        self._missions += 1
        route = self._route(vehicle.at, source.node, sink.node)
        name = f"T{self._missions:05d}"
        self._start(Mission(name, vehicle, route, container, source, sink))

    def _route(self, *stops: str) -> Route:
        """The shortest way from stop to stop."""
        if (known := self._routes.get(stops)) is not None:
            return known
        way: list[tuple[str, float]] = [(stops[0], 0.0)]
        ends: list[int] = []
        for goal in stops[1:]:
            start, far_m = way[-1]
            way += [(node, far_m + at_m) for node, at_m in self._roads.way(start, goal)[1:]]
            if ends and ends[-1] == len(way) - 1:
                way.append(way[-1])  # two stops at one node
            ends.append(len(way) - 1)
        route = self._routes[stops] = self.reservations.route(tuple(way), tuple(ends))
        return route

    def _start(self, mission: Mission) -> None:
        """Send an order, with as much base as there is at once."""
        mission.vehicle.idle = False
        head = -1

        def granted() -> None:
            nonlocal head
            if head < 0 and sending:
                head = mission.head
            else:
                self._update(mission)

        sending = True
        self.reservations.ask(mission, granted)
        sending = False
        down = mission.vehicle.control.down
        deliver(
            self._env, down, ORDER_BYTES, lambda: mission.vehicle.take(mission, head),
            tick_ns=NS_PER_MS,
        )  # fmt: skip

    def _update(self, mission: Mission) -> None:
        """Tell the vehicle of a base that was granted."""
        vehicle, head = mission.vehicle, mission.head
        down = vehicle.control.down
        deliver(self._env, down, ORDER_BYTES, lambda: vehicle.extend(head), tick_ns=NS_PER_MS)

    def asked(self, mission: Mission, index: int) -> None:
        """A vehicle's request for a new base is there; it has passed a node of its route."""
        self.reservations.passed(mission, index)
        self.reservations.ask(mission, lambda: self._update(mission))

    def answer(self, mission: Mission, index: int, t_ns: int) -> tuple[int, int] | None:
        """``asked`` at a time, which may be past where the mission is sure to be granted it, by a
        vehicle that can foresee when it hears: the end of its new base, and when it learns of it.
        ``None``: it will be told when there is one."""
        known: tuple[int, int] | None = None
        at_once = True

        def granted() -> None:
            nonlocal known
            if at_once:
                down, head = mission.vehicle.control.down, mission.head
                if (arrival_ns := down.send(t_ns, ORDER_BYTES)) is not None:
                    known = head, -(-arrival_ns // NS_PER_MS) * NS_PER_MS
                else:
                    later(self._env, RETRY_NS, lambda: self._update(mission))
            else:
                self._update(mission)

        self.reservations.passed(mission, index)
        self.reservations.ask(mission, granted)
        at_once = False
        return known

    def arrived(self, mission: Mission, index: int) -> None:
        """A vehicle's state is there: it stands at a stop of its route."""
        if mission.sink is None:
            self.reservations.leave(mission)
        else:
            self.reservations.passed(mission, index)

    def finished(self, mission: Mission) -> None:
        """The last state of a mission is there: its vehicle can be used again, or must charge."""
        self.reservations.leave(mission)
        self.free(mission.vehicle)

    def free(self, vehicle: Vehicle) -> None:
        """A vehicle can be used again, or must charge."""
        vehicle.idle = True
        self.dispatch()
        self._top_up((vehicle,))

    # Charging

    def _look_after(self, vehicle: Vehicle) -> None:
        """Look at an idle vehicle's battery when it will have run low."""
        if vehicle not in self._looked_after:
            self._looked_after.add(vehicle)
            later(self._env, vehicle.charge_lasts_ns(), lambda: self._look(vehicle))

    def _look(self, vehicle: Vehicle) -> None:
        self._looked_after.remove(vehicle)
        self._look_after(vehicle)
        self._top_up((vehicle,))

    def unplugged(self, vehicle: Vehicle) -> None:
        """A vehicle has left its charging station."""
        self._points[vehicle.charger].remove(vehicle)
        self._charge()
        self._top_up(self.vehicles)

    def _is_plugged(self, vehicle: Vehicle) -> bool:
        return vehicle in self._points.get(vehicle.charger, ())

    def _has_point(self, vehicle: Vehicle) -> bool:
        points = self._setting.charge_points.get(vehicle.charger, 1)
        return len(self._points.setdefault(vehicle.charger, [])) < points

    def _charge(self) -> None:
        """Send those that must charge, in the order they asked, where a station is free."""
        for vehicle in tuple(self._want_charge):
            if self._has_point(vehicle):
                self._want_charge.remove(vehicle)
                self._send_to_charger(vehicle)

    def _top_up(self, vehicles: Iterable[Vehicle]) -> None:
        """Send those with low batteries and nothing to do, where a station is free; one that is too
        low to work stands in line for it."""
        for vehicle in vehicles:
            if not vehicle.idle or self._is_plugged(vehicle):
                continue
            need = vehicle.charge_need()
            if need.low and self._has_point(vehicle):
                self._send_to_charger(vehicle)
            elif need.empty:
                vehicle.idle = False
                self._want_charge.append(vehicle)

    def _send_to_charger(self, vehicle: Vehicle) -> None:
        self._missions += 1
        self._points[vehicle.charger].append(vehicle)
        route = self._route(vehicle.at, vehicle.charger)
        self._start(Mission(f"C{self._missions:05d}", vehicle, route))

    # Time

    def run(self) -> Generator[simpy.Event, Any, None]:
        """Dispatch again when planned time begins, and where it is by a list whenever somebody
        looks at it."""
        env, every_ns = self._env, self._setting.dispatch_ns
        if self._gates:
            env.process(self.tugger.run())
        for vehicle in self.vehicles:
            self._look_after(vehicle)
        self._top_up(self.vehicles)
        while True:
            yield env.timeout(self._calendar.resumes_ns(env.now) - env.now)
            self._calls += self._new
            self._new.clear()
            self.dispatch()
            pauses_ns = self._calendar.pauses_ns(env.now)
            left_ns = pauses_ns - env.now
            looks_ns = left_ns if every_ns is None else every_ns - env.now % every_ns
            yield env.timeout(min(left_ns, looks_ns))
