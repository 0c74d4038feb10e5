"""The shop floor at work: material, vehicles and machines in one discrete-event world.

    shot -> cell's container -> AGV -> arm trims -> arm's container -> AGV -> warehouse

Time is integer nanoseconds. Material is never drawn at random: a cell whose output is full is
blocked, an arm without a container is starved, and each piece is somewhere at every instant. What
the machines tell the fleet manager and their interlocks at the MEC travels over the link, and what
it takes is time lost.
"""

from collections import Counter, deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol
from zlib import crc32

import numpy as np
import simpy

from config.units import NS_PER_MS
from ingest.messages import Asset
from simulator.device import Bell, Device, Process, Unit, World, kinds
from simulator.mes import Calendar, Flow, Mes
from simulator.plant import Order, Plant, Roads
from simulator.plant.control import ORDER_BYTES, RETRY_NS, Control, Lane
from simulator.plant.terminal import Terminal

if TYPE_CHECKING:
    from simulator.link.link import Link


@dataclass(slots=True)
class Container:
    """Pieces of one order that travel together, first in, first out."""

    order: Order
    entered_ns: deque[int] = field(default_factory=deque[int])
    """When each piece was shot."""

    @property
    def pieces(self) -> int:
        """How many there are."""
        return len(self.entered_ns)


class Source(Protocol):
    """A station that hands full containers to the fleet."""

    node: str
    output: "Output"


class Sink(Protocol):
    """A station that takes containers; room is reserved before one is on its way."""

    node: str

    def free(self) -> int:
        """Containers there is room for, those on their way counted."""
        ...

    def reserve(self) -> None:
        """One will come."""
        ...

    def receive(self, container: Container) -> None:
        """It is here."""
        ...


class Output:
    """The output lane of a station: one container being filled, and full ones waiting."""

    def __init__(
        self, env: World, size: int, slots: int, call: Callable[[Container], None]
    ) -> None:
        self.bell = Bell(env)
        self._size = size
        self._slots = slots
        self._call = call
        self._filling: Container | None = None
        self._closing = False
        self._waiting: list[Container] = []

    def room(self, order: Order) -> bool:
        """Whether a piece of this order has a place."""
        filling = self._filling
        if filling is None or len(self._waiting) < self._slots:
            return True
        return not self._closing and filling.order is order and filling.pieces < self._size

    def put(self, order: Order, entered_ns: int) -> None:
        """Add a piece that was shot at a time; pieces of different orders never share a
        container."""
        if self._filling is not None and self._filling.order is not order:
            self.close()
        if self._filling is None:
            self._filling = Container(order)
        self._filling.entered_ns.append(entered_ns)
        if self._filling.pieces >= self._size:
            self.close()

    def close(self) -> None:
        """Send what is there on its way, now or as soon as the lane has a slot."""
        if self._filling is None:
            return
        self._closing = len(self._waiting) >= self._slots
        if not self._closing:
            done, self._filling = self._filling, None
            self._waiting.append(done)
            self._call(done)

    def take(self, container: Container) -> None:
        """A vehicle has it."""
        self._waiting.remove(container)
        if self._closing:
            self.close()
        self.bell.ring()

    def pieces(self) -> int:
        """Pieces on the lane."""
        filling = self._filling.pieces if self._filling else 0
        return filling + sum(container.pieces for container in self._waiting)


class Warehouse:
    """Takes everything; what arrives has left the process, as goods or as a loss."""

    def __init__(self, plant: Plant, env: World, flow: Flow, seed: int) -> None:
        self.node = plant.warehouse
        self._env = env
        self._flow = flow
        self._loss_ratio = plant.transport_loss_ratio
        self._lab_pieces = plant.lab_pieces
        self._in_lab: Counter[int] = Counter()
        self._dice = np.random.default_rng([seed, crc32(flow.path.encode()), 1])

    def free(self) -> int:
        """There is always room."""
        return 1

    def reserve(self) -> None:
        """Nothing to keep free."""

    def receive(self, container: Container) -> None:
        """Inspect the pieces and book them out."""
        now, number, good = self._env.now, container.order.number, list[int]()
        for entered_ns, die in zip(
            container.entered_ns, self._dice.random(container.pieces).tolist(), strict=True
        ):
            if die < self._loss_ratio:
                self._flow.lose(now, self._flow.storage_loss)
            elif self._in_lab[number] < self._lab_pieces:
                self._in_lab[number] += 1
                self._flow.lose(now, self._flow.other_loss)
            else:
                good.append(entered_ns)
        self._flow.leave(now, good)


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


def arrive(env: World, lane: Lane, n_bytes: int, tick_ns: int = 1) -> Process:
    """Send one message now and wait until it is there; a lost one is sent again.

    The receiver looks every ``tick_ns``.
    """
    while (arrival_ns := lane.send(env.now, n_bytes)) is None:
        yield env.timeout(RETRY_NS)
    yield env.timeout(-(-arrival_ns // tick_ns) * tick_ns - env.now)


class Floor:
    """Everything that happens in a plant, from ``start_ns`` to wherever ``run_to`` has led."""

    def __init__(self, plant: Plant, link: "Link", seed: int, start_ns: int) -> None:
        self.plant = plant
        self.seed = seed
        self.link = link
        self.env = World(start_ns)
        self.calendar = Calendar(plant.calendar)
        self.roads = Roads(plant)
        cells = [spec for spec in plant.device if spec.kind == "casting_cell"]
        area, line = (cells[0].area, cells[0].line) if cells else ("casting", "line1")
        self.has_flow = bool(cells)
        self.flow = Flow(Asset(plant.site, area, line, plant.flow), start_ns, plant.staff)
        self.fleet = Fleet(self.env, self.calendar, self.roads)
        self.warehouse = Warehouse(plant, self.env, self.flow, seed)
        self.trimming: list[Sink] = []
        self.controls: list[Control] = []
        self._terminals: dict[str, Terminal] = {}
        self.devices: list[Device] = [kinds()[s.kind].model(s, self) for s in plant.device]
        self.units: list[Unit] = [device for device in self.devices if isinstance(device, Unit)]
        assets = [*(device.asset for device in self.devices)]
        flow = self.flow if self.has_flow else None
        self.mes = Mes(plant, self.calendar, self.units, assets, flow, start_ns)
        for device in self.devices:
            self.env.process(device.run())
        self.env.process(self.fleet.run())

    def terminal(self, asset: Asset) -> Terminal:
        """A device's terminal, the same whoever asks."""
        path = str(asset)
        if path not in self._terminals:
            spec = next((s for s in self.plant.device if s.name == asset.name), None)
            place, origin = None, (0.0, 0.0)
            if (radio := self.plant.radio) is not None and spec is not None:
                place, origin = self.plant.place_of(spec), (radio.x_m, radio.y_m)
            self._terminals[path] = Terminal(self.link, path, self.env.now, place, origin)
        return self._terminals[path]

    def control(self, asset: Asset) -> Control:
        """A device's control traffic."""
        control = Control(self.terminal(asset), asset, self.env.now)
        self.controls.append(control)
        return control

    def run_to(self, t_ns: int) -> None:
        """Let everything happen up to and including a time."""
        self.env.run(until=t_ns + 1)

    def wip(self) -> int:
        """Pieces on the floor, counted where they are."""
        return sum(device.pieces() for device in self.devices)
