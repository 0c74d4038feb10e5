"""The fleet manager: which vehicle fetches which container, and how far it may drive."""

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

import simpy

from config.units import NS_PER_MS
from ingest.messages import Asset
from simulator.device import Process, World
from simulator.mes import Calendar
from simulator.plant import Roads
from simulator.plant.control import ORDER_BYTES, Control, arrive
from simulator.plant.material import Container, Sink, Source

Way = tuple[tuple[str, float], ...]
"""Nodes, each with its distance from the first one."""


@dataclass(frozen=True, slots=True)
class Mission:
    """A transport from a source to a sink, or, without a container, a trip to the charger."""

    name: str
    legs: tuple[Way, ...]
    """Ways from stop to stop."""
    base: int
    """How many of its nodes are released when the order is sent."""
    container: Container | None = None
    source: Source | None = None
    sink: Sink | None = None

    @property
    def nodes(self) -> Way:
        """All nodes it leads to, each with its distance from the start; that one if there is no
        way to go."""
        far_m, nodes = 0.0, list[tuple[str, float]]()
        for leg in self.legs:
            nodes += [(name, far_m + at_m) for name, at_m in leg[1:]]
            far_m += leg[-1][1]
        return tuple(nodes) or self.legs[0][:1]


class Vehicle(Protocol):
    """What the fleet manager knows of an AGV."""

    asset: Asset
    at: str
    """Node where it is."""
    idle: bool
    control: Control
    inbox: simpy.Event

    @property
    def base_m(self) -> float:
        """The way it is released at a time."""
        ...

    def wants_charge(self) -> str | None:
        """The charger it should go to, if its battery is low."""
        ...


ANSWER_NS = 20 * NS_PER_MS
"""What the fleet manager takes to answer a vehicle."""


@dataclass(frozen=True, slots=True)
class _Call:
    container: Container
    source: Source
    sinks: tuple[Sink, ...]


class Fleet:
    """The fleet manager at the MEC: oldest call first, nearest idle vehicle.

    An order leads to its last node, but only its base is released, and more on request.
    """

    def __init__(self, env: World, calendar: Calendar, roads: Roads) -> None:
        self._env = env
        self._calendar = calendar
        self._roads = roads
        self._calls: deque[_Call] = deque()
        self._missions = 0
        self.vehicles: list[Vehicle] = []

    def call(self, container: Container, source: Source, sinks: tuple[Sink, ...]) -> None:
        """A full container waits at ``source`` for a way to any of ``sinks``."""
        self._calls.append(_Call(container, source, sinks))
        self.dispatch()

    def dispatch(self) -> None:
        """Give work to idle vehicles, in planned time only."""
        if not self._calendar.planned(self._env.now):
            return
        for call in tuple(self._calls):
            idle = [vehicle for vehicle in self.vehicles if vehicle.idle]
            if not idle:
                return
            sink = max(call.sinks, key=lambda sink: sink.free(), default=None)
            if sink is None or sink.free() <= 0:
                continue
            sink.reserve()
            self._calls.remove(call)
            start = call.source.node
            nearest = min(idle, key=lambda v: (self._roads.distance_m(v.at, start), v.asset))
            self._order(nearest, call.container, call.source, sink)

    def _order(self, vehicle: Vehicle, container: Container, source: Source, sink: Sink) -> None:
        self._missions += 1
        name, stops = f"T{self._missions:05d}", [vehicle.at, source.node, sink.node]
        mission = self._mission(vehicle, name, stops)
        self._start(vehicle, replace(mission, container=container, source=source, sink=sink))

    def _mission(self, vehicle: Vehicle, name: str, stops: list[str]) -> Mission:
        legs = tuple(tuple(self._roads.way(a, b)) for a, b in pairwise(stops))
        mission = Mission(name, legs, 0)
        return replace(mission, base=_released(mission.nodes, 0, vehicle.base_m))

    def _start(self, vehicle: Vehicle, mission: Mission) -> None:
        vehicle.idle = False
        self._env.process(self._send_order(vehicle, mission))

    def extend(
        self, vehicle: Vehicle, mission: Mission, base: int
    ) -> Generator[simpy.Event, Any, int]:
        """Answer a request for a new base that is there now; how many nodes are released when the
        vehicle has the order's update."""
        yield self._env.timeout(ANSWER_NS)
        yield from arrive(self._env, vehicle.control.down, ORDER_BYTES, tick_ns=NS_PER_MS)
        return _released(mission.nodes, base, vehicle.base_m)

    def _send_order(self, vehicle: Vehicle, mission: Mission) -> Process:
        yield from arrive(self._env, vehicle.control.down, ORDER_BYTES, tick_ns=NS_PER_MS)
        inbox, vehicle.inbox = vehicle.inbox, self._env.event()
        inbox.succeed(mission)

    def finished(self, vehicle: Vehicle) -> None:
        """The vehicle's last state arrived: it can be used again, or must charge."""
        if charger := vehicle.wants_charge():
            self._missions += 1
            name = f"C{self._missions:05d}"
            self._start(vehicle, self._mission(vehicle, name, [vehicle.at, charger]))
            return
        vehicle.idle = True
        self.dispatch()

    def run(self) -> Process:
        """Dispatch again when planned time begins."""
        while True:
            yield self._env.timeout(self._calendar.resumes_ns(self._env.now) - self._env.now)
            self.dispatch()
            yield self._env.timeout(self._calendar.pauses_ns(self._env.now) - self._env.now)


def _released(nodes: Way, base: int, more_m: float) -> int:
    """How many nodes are released when a base of so many grows: up to the first one that is at
    least ``more_m`` beyond its end."""
    end_m = nodes[base - 1][1] if base else 0.0
    beyond = (n for n, (_, far_m) in enumerate(nodes, 1) if n > base and far_m - end_m >= more_m)
    return next(beyond, len(nodes))
