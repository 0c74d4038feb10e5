"""The floor of a plant as a recording keeps it: nodes, lanes, stations, areas, cells, products.

Coordinates are metres on the plant's own map, east and north; cells of the radio are moved there.
Areas have no drawing of their own in a plant: each is the rectangle around what belongs to it.
"""

from math import hypot
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from config.scenario import Scenario

if TYPE_CHECKING:
    from simulator.device import DeviceSpec
    from simulator.plant import Plant

MARGIN_M = 6.0
"""How far an area reaches beyond the places in it."""


class Node(msgspec.Struct, frozen=True):
    """A place where a vehicle can stop."""

    name: str
    x_m: float
    y_m: float


class Lane(msgspec.Struct, frozen=True):
    """A way between two nodes, both ways."""

    a: str
    b: str


class Station(msgspec.Struct, frozen=True):
    """Where a device stands; a vehicle: where it starts."""

    x_m: float
    y_m: float
    kind: str
    area: str
    line: str
    node: str = ""
    """Empty: it stands at no node."""


class Rectangle(msgspec.Struct, frozen=True):
    """A piece of ground; ``x_m`` and ``y_m`` are of its south-west corner."""

    x_m: float
    y_m: float
    width_m: float
    height_m: float

    def distance_m(self, x_m: float, y_m: float) -> float:
        """From a place to the nearest point of it; 0 inside."""
        dx = max(self.x_m - x_m, 0.0, x_m - self.x_m - self.width_m)
        dy = max(self.y_m - y_m, 0.0, y_m - self.y_m - self.height_m)
        return hypot(dx, dy)


class Cell(msgspec.Struct, frozen=True):
    """A cell of the radio."""

    name: str
    x_m: float
    y_m: float
    area: str
    """The area of the plant nearest to it."""
    station: str = ""
    """Cells of one station share power and backhaul."""


class Layout(msgspec.Struct, frozen=True):
    """All that a map of the plant is drawn from."""

    nodes: tuple[Node, ...] = ()
    edges: tuple[Lane, ...] = ()
    stations: dict[str, Station] = {}
    """By the name of the asset."""
    areas: dict[str, Rectangle] = {}
    cells: tuple[Cell, ...] = ()
    blocks: tuple[Rectangle, ...] = ()
    """Walls and racks, which the radio does not see through."""
    ground: Rectangle | None = None
    """What the radio layout covers."""
    warehouse: str = ""
    """Node of the finished goods."""
    utc_offset: str = ""
    """Of the plant's clock, like +08:00."""
    products: dict[str, str] = {}
    """By the number of an order of the plant's file, as text, what it makes."""


def encode(layout: Layout) -> str:
    """As the header of a recording has it."""
    return msgspec.json.encode(layout).decode()


def decode(text: str) -> Layout:
    """From the header of a recording; raises ``msgspec.MsgspecError`` for anything else."""
    return msgspec.json.decode(text, type=Layout)


def layout_of(scenario: Scenario) -> Layout:
    """The floor of a scenario's plant, with all that the scenario changes of it."""
    from simulator.link.layout import load_layout
    from simulator.plant import make_plant

    file = scenario.plant_file()
    plant = make_plant(scenario.plant_data(), at=str(file))
    nodes = tuple(Node(node.name, node.x_m, node.y_m) for node in plant.node)
    placed = [(device, plant.place_of(device)) for device in plant.device]
    areas = _areas(plant)
    cells: tuple[Cell, ...] = ()
    blocks: tuple[Rectangle, ...] = ()
    ground = None
    if plant.radio is not None:
        folder = file.parent if isinstance(file, Path) else Path()
        radio = load_layout(plant.radio.layout, folder)
        east, north = plant.radio.x_m, plant.radio.y_m
        cells = tuple(
            Cell(
                mast.name, mast.x_m - east, mast.y_m - north,
                _nearest(areas, mast.x_m - east, mast.y_m - north), mast.station,
            )
            for mast in radio.cell
        )  # fmt: skip
        blocks = tuple(
            Rectangle(block.x_m - east, block.y_m - north, block.width_m, block.height_m)
            for block in radio.block
        )
        whole = radio.area
        ground = Rectangle(whole.x_m - east, whole.y_m - north, whole.width_m, whole.height_m)
    return Layout(
        nodes,
        tuple(Lane(*edge.between) for edge in plant.edge),
        {
            device.name: Station(*place, device.kind, device.area, device.line, _node_of(device))
            for device, place in placed
            if place is not None
        },
        areas,
        cells,
        blocks,
        ground,
        plant.warehouse,
        plant.calendar.utc_offset,
        {str(order.number): order.product for order in plant.order},
    )


def _node_of(device: "DeviceSpec") -> str:
    return getattr(device, "node", None) or ""


def _areas(plant: "Plant") -> dict[str, Rectangle]:
    """The rectangle around the places of each area; one of nothing but vehicles has every node."""
    places: dict[str, list[tuple[float, float]]] = {}
    for device in plant.device:
        at = plant.place_of(device)
        if device.kind != "agv" and at is not None:
            places.setdefault(device.area, []).append(at)
    nodes = [(node.x_m, node.y_m) for node in plant.node]
    for device in plant.device:
        if device.kind == "agv" and nodes:
            places.setdefault(device.area, nodes)
    return {area: _around(points) for area, points in places.items()}


def _around(points: list[tuple[float, float]]) -> Rectangle:
    west, south = min(x for x, _ in points) - MARGIN_M, min(y for _, y in points) - MARGIN_M
    east, north = max(x for x, _ in points) + MARGIN_M, max(y for _, y in points) + MARGIN_M
    return Rectangle(west, south, east - west, north - south)


def _nearest(areas: dict[str, Rectangle], x_m: float, y_m: float) -> str:
    """The area a place is in or nearest to; of several the smallest."""
    far = {
        name: (area.distance_m(x_m, y_m), area.width_m * area.height_m)
        for name, area in areas.items()
    }
    return min(far, key=lambda name: (far[name], name)) if far else ""
