"""A plant: one TOML file with its devices, map, calendar and orders, checked as a whole."""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import pairwise
from math import hypot
from pathlib import Path
from typing import Annotated, Any, Literal, Self, Union

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    create_model,
    field_validator,
    model_validator,
)

from config import tomlfile
from config.errors import UsageError
from config.units import Metres, Ratio
from ingest.topics import is_level
from simulator.device import Count, DeviceSpec, Length, kinds
from simulator.plant.dispatch import FIRST_OF_DEMAND, Demand, DispatchRule, Release
from simulator.plant.operators import OperatorsSpec
from simulator.plant.routes import OrderSpec, Product, Step
from simulator.plant.transport import Transport

STATIONS = frozenset({"casting_cell", "robot_arm", "work_unit"})
"""Kinds that hand containers on."""
_NO_FIRST = frozenset({"agv", "robot_arm"})
_NO_LATER = frozenset({"agv", "casting_cell", "cable_line"})
_STRICT = ConfigDict(
    strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
)
ClockTime = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$")]


class Span(BaseModel):
    """A stretch of every working day, local time."""

    model_config = _STRICT

    start: ClockTime
    """Like 08:00."""
    end: ClockTime
    """Later on the same day, at most 24:00."""

    @model_validator(mode="after")
    def _runs_forward(self) -> Self:
        if minutes(self.end) <= minutes(self.start):
            raise ValueError(f"ends at {self.end}, not after its start {self.start}")
        return self


Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class CalendarSpec(BaseModel):
    """When the plant is planned to be busy: shifts less breaks, on its working days."""

    model_config = _STRICT

    utc_offset: Annotated[str, Field(pattern=r"^[+-]\d\d:\d\d$")] = "+08:00"
    """The local clock, without daylight saving."""
    days: Annotated[tuple[Day, ...], Field(strict=False, min_length=1)] = DAYS
    """Working days; on the others nothing is planned."""
    shift: Annotated[tuple[Span, ...], Field(strict=False, min_length=1)]
    """Planned stretches; the shifts go by their order here."""
    pause: Annotated[tuple[Span, ...], Field(strict=False)] = ()
    """Planned breaks inside them."""


class Node(BaseModel):
    """A place an AGV can stop at."""

    model_config = _STRICT

    name: str
    """Its name on the map."""
    x_m: Metres
    """East."""
    y_m: Metres
    """North."""


class Edge(BaseModel):
    """A lane between two nodes, both ways."""

    model_config = _STRICT

    between: Annotated[tuple[str, str], Field(strict=False)]
    """The two nodes."""
    length_m: Length | None = None
    """Length; straight if not given."""


class Radio(BaseModel):
    """Where the plant's map lies on a radio layout."""

    model_config = _STRICT

    layout: str
    """A shipped layout by name (`config/layouts`), or the path of a layout file."""
    x_m: Metres = 0.0
    """East of the layout's origin: where the map has x 0."""
    y_m: Metres = 0.0
    """North of the layout's origin: where the map has y 0."""


class Staff(BaseModel):
    """The persons of the plant, and what their work is worth."""

    model_config = _STRICT

    crew: str = "crew"
    """Name of the asset that tells who is there."""
    heads: Count
    """Persons on the payroll: what output per head is divided by, all shifts together."""
    per_shift: Annotated[float, Field(gt=0)]
    """Persons planned to be there in planned time."""
    running: Annotated[float, Field(ge=0)] = 0.5
    """Persons bound to a machine that executes an order."""
    tending: Annotated[float, Field(ge=0)] = 1.0
    """Persons bound to a machine that is set up, repaired or maintained."""
    value_cny_per_piece: Annotated[float, Field(ge=0, json_schema_extra={"unit": "CNY"})] = 12.0
    """Value added to a piece that leaves."""

    @field_validator("crew")
    @classmethod
    def _is_level(cls, value: str) -> str:
        if not is_level(value):
            raise ValueError("needs letters, digits, dot, dash or underscore only")
        return value


class Plant(BaseModel):
    """A whole plant as its file describes it."""

    model_config = _STRICT

    site: str
    """ISA-95 site, the first level of every topic."""
    flow: str = "flow"
    """Name of the material-flow asset of the casting area."""
    radio: Radio | None = None
    """Without one every device is served by one cell, wherever it is."""
    pieces_per_container: Count = 24
    """Transfer batch: pieces that travel together."""
    warehouse: str = ""
    """Node of the finished-goods warehouse; needed where there are AGVs."""
    transport_loss_ratio: Ratio = 0.0005
    """Share of pieces found spoilt by storage and transport when they reach the warehouse."""
    lab_pieces: Annotated[int, Field(ge=0)] = 1
    """Pieces of each order, the first to reach the warehouse, that are cut up in the laboratory."""
    co2_kg_per_kwh: Annotated[float, Field(ge=0, json_schema_extra={"unit": "kg/kWh"})] = 0.5703
    """CO2 per kilowatt-hour of electricity. The default is China's mean of 2022, as the Ministry of
    Ecology and Environment set it in February 2023 (from memory: an estimate); put your grid's."""
    staff: Staff | None = None
    """Without it nobody is counted."""
    calendar: CalendarSpec
    transport: Transport = Transport()
    """How containers are moved."""
    heartbeats: Literal["sent", "drawn"] = "sent"
    """Whether every heartbeat between devices and their control is sent over the link, and every
    message, or both are drawn, when heartbeats are missing and what messages take, by a law
    measured on it: for runs of weeks. A link with faults always carries them."""
    node: Annotated[tuple[Node, ...], Field(strict=False)] = ()
    edge: Annotated[tuple[Edge, ...], Field(strict=False)] = ()
    device: Annotated[tuple[SerializeAsAny[DeviceSpec], ...], Field(strict=False, min_length=1)]
    product: Annotated[tuple[Product, ...], Field(strict=False)] = ()
    order: Annotated[tuple[OrderSpec, ...], Field(strict=False)] = ()
    demand: Demand | None = None
    """Without it there are the orders of the file and no more."""
    release: Release = Release()
    """When orders go onto the floor."""
    dispatch: DispatchRule = DispatchRule()
    """What a free unit does next."""
    operators: OperatorsSpec | None = None
    """Without them somebody is there at once, always."""

    @model_validator(mode="after")
    def _refers_to_what_exists(self) -> Self:
        if found := list(self._problems()):
            raise ValueError("; ".join(found))
        return self

    def _problems(self) -> Iterator[str]:
        names = [device.name for device in self.device]
        kinds_ = {device.kind for device in self.device}
        nodes = [node.name for node in self.node]
        there = set(nodes)
        numbers = [str(order.number) for order in self.order]
        for what, words in (("device", names), ("node", nodes), ("order", numbers)):
            for word in _twice(words):
                yield f"{what} {word} is there twice"
        for edge in self.edge:
            for end in edge.between:
                if end not in there:
                    yield f"edge {edge.between}: unknown node {end}{tomlfile.guess(end, nodes)}"
        for device in self.device:
            for at in (getattr(device, "node", None), getattr(device, "charger", None)):
                if at is not None and at not in there:
                    yield f"{device.name}: unknown node {at}{tomlfile.guess(at, nodes)}"
            if (device.x_m is None) != (device.y_m is None):
                yield f"{device.name}: x_m and y_m go together"
            if self.radio is not None and self.place_of(device) is None:
                yield f"{device.name}: no place on the radio layout; give it x_m and y_m"
            for problem in device.settings_problems():
                yield f"{device.name}: {problem}"
        if "agv" in kinds_ and (store := self.warehouse) not in there:
            yield f"warehouse: unknown node {store!r}{tomlfile.guess(store, nodes)}"
        if kinds_ & STATIONS and "agv" not in kinds_:
            yield "stations need at least one agv to fetch their containers"
        yield from self._problems_of_work(names)
        yield from self.transport.problems(self)
        if not self._is_connected():
            yield "map: some nodes cannot be reached from others"

    def _problems_of_work(self, names: Sequence[str]) -> Iterator[str]:
        """What does not fit in products, orders and demand."""
        products = {product.name: product for product in self.product}
        words = [product.name for product in self.product]
        for word in _twice(words):
            yield f"product {word} is there twice"
        for product in self.product:
            for step in product.step:
                if not any(_can(device, product, step) for device in self.device):
                    globs = ", ".join(step.units)
                    yield f"product {product.name}: no device to {step.operation} it: {globs}"
        wanted = [(f"order {order.number}", order.product) for order in self.order]
        wanted += [] if self.demand is None else [("demand", word) for word in self.demand.mix]
        for what, word in wanted:
            if word not in products:
                yield f"{what}: unknown product {word}{tomlfile.guess(word, words)}"
        devices = {device.name: device for device in self.device}
        for order in self.order:
            if order.number >= FIRST_OF_DEMAND:
                yield f"order {order.number}: numbers from {FIRST_OF_DEMAND} on are the demand's"
            if order.unit and order.unit not in devices:
                yield (
                    f"order {order.number}: unknown unit {order.unit}"
                    f"{tomlfile.guess(order.unit, names)}"
                )
            elif order.unit and order.product in products:
                product = products[order.product]
                first = product.step[0]
                if not _can(devices[order.unit], product, first):
                    yield f"order {order.number}: {order.unit} does not {first.operation}"
        if ring := self._ring():
            yield (
                f"routes lead from {' to '.join(ring)} and back: full inputs would block each"
                " other for good; give one of them put_aside = true"
            )
        operations = sorted({s.operation for product in self.product for s in product.step})
        for word in self.release.cards:
            if word not in operations:
                yield f"release: unknown operation {word}{tomlfile.guess(word, operations)}"

    def _ring(self) -> list[str]:
        """Units that hand on to each other in a ring and of which none puts aside; empty if there
        are none."""
        safe = {d.name for d in self.device if getattr(d, "put_aside", False)}
        stations = (d.name for d in self.device if d.kind in STATIONS)
        onward: dict[str, list[int]] = {name: [] for name in stations if name not in safe}
        goals: list[set[str]] = []  # of a step, for all who do it: a plant may have thousands
        for product in self.product:
            for step, after in pairwise(product.step):
                for name, ways in onward.items():
                    if step.fits(name):
                        ways.append(len(goals))
                goals.append({name for name in onward if after.fits(name)})
        there = onward.keys()
        while True:
            over = {at for at, names in enumerate(goals) if there.isdisjoint(names)}
            ends = [name for name, ways in onward.items() if over.issuperset(ways)]
            if not ends:
                break
            for name in ends:
                del onward[name]
        ring: list[str] = []
        at = next(iter(onward), "")
        while onward and at not in ring:
            ring.append(at)
            at = min(set[str]().union(*(goals[way] for way in onward[at])) & there)
        return ring[ring.index(at) :] if ring else []

    def _is_connected(self) -> bool:
        if not self.node:
            return True
        reach = _distances(self, self.node[0].name)[0]
        return len(reach) == len(self.node)

    def place_of(self, device: DeviceSpec) -> tuple[float, float] | None:
        """Where on the map a device stands (a vehicle: at the start); ``None`` if not said."""
        if device.x_m is not None and device.y_m is not None:
            return device.x_m, device.y_m
        at = getattr(device, "node", None)
        return next(((node.x_m, node.y_m) for node in self.node if node.name == at), None)


def _twice(words: Iterable[str]) -> list[str]:
    """Words that are there more than once."""
    return sorted(word for word, count in Counter(words).items() if count > 1)


def _can(device: DeviceSpec, product: Product, step: Step) -> bool:
    """Whether a device can do a step: as the first one not if it needs containers, as a later one
    not if it takes none."""
    cannot = _NO_FIRST if step is product.step[0] else _NO_LATER
    return device.kind not in cannot and step.fits(device.name)


def minutes(clock: str) -> int:
    """Minutes since midnight of ``08:30``."""
    hours, rest = clock.split(":")
    return int(hours) * 60 + int(rest)


def _distances(plant: Plant, start: str) -> tuple[dict[str, float], dict[str, str]]:
    """Shortest distance from a node to all others, and each one's predecessor (Dijkstra)."""
    place = {node.name: node for node in plant.node}
    lanes: dict[str, list[tuple[str, float]]] = {name: [] for name in place}
    for edge in plant.edge:
        a, b = edge.between
        if a in place and b in place:
            straight = hypot(place[a].x_m - place[b].x_m, place[a].y_m - place[b].y_m)
            length = straight if edge.length_m is None else edge.length_m
            lanes[a].append((b, length))
            lanes[b].append((a, length))
    reach: dict[str, float] = {}
    before: dict[str, str] = {}
    heap = [(0.0, start, start)]
    while heap:
        far, name, via = heapq.heappop(heap)
        if name in reach:
            continue
        reach[name], before[name] = far, via
        for onward, length in lanes[name]:
            if onward not in reach:
                heapq.heappush(heap, (far + length, onward, name))
    return reach, before


class Roads:
    """Shortest ways on the map of a plant."""

    def __init__(self, plant: Plant) -> None:
        self.place = {node.name: (node.x_m, node.y_m) for node in plant.node}
        self._from = {name: _distances(plant, name) for name in self.place}

    def distance_m(self, a: str, b: str) -> float:
        """Length of the shortest way."""
        return self._from[a][0][b]

    def way(self, a: str, b: str) -> list[tuple[str, float]]:
        """Nodes of the shortest way from ``a`` to ``b``, each with its distance from ``a``."""
        reach, before = self._from[a]
        nodes = [b]
        while nodes[-1] != a:
            nodes.append(before[nodes[-1]])
        return [(name, reach[name]) for name in reversed(nodes)]


@cache
def _model() -> type[Plant]:
    """``Plant`` with the settings of every device kind there is."""
    specs: Any = tuple(kind.spec for kind in kinds().values())
    one_of = Annotated[Union[specs], Field(discriminator="kind")]  # noqa: UP007 - of a tuple
    fields: dict[str, Any] = {
        "device": (Annotated[tuple[one_of, ...], Field(strict=False, min_length=1)], ...)
    }
    return create_model("Plant", __base__=Plant, **fields)


def make_plant(data: Mapping[str, Any], at: str = "plant") -> Plant:
    """A plant from tables, checked; raises ``ConfigError`` with every problem."""
    return tomlfile.validate(data, _model(), at=at)


def load_plant(name: str | Path | Traversable) -> Plant:
    """A plant by the name of a shipped one, or from a file."""
    if not isinstance(name, str):
        return tomlfile.read(name, _model())
    if name.endswith(".toml"):
        return tomlfile.read(Path(name), _model())
    shipped = files("config") / "plants"
    names = sorted(entry.name.removesuffix(".toml") for entry in shipped.iterdir())
    if name not in names:
        raise UsageError(f"unknown plant {name!r}{tomlfile.guess(name, names)}", at="plant")
    return tomlfile.read(shipped / f"{name}.toml", _model())
