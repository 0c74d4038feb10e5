"""The plant as a map: areas, ways, stations by their state, radio cells, and vehicles that move.

    ┌ casting  99.1 % ≤ 10 ms ┐      drawn once, as SVG; afterwards only what has changed is sent:
    │ [E dcm01]  [H dcm02]    │      letters and colours of stations, shares of areas, and all
    │     ●────────●───▣ agv  │      vehicles in one message a tick
    └─────────────────────────┘

A recording that says nothing about places gets its assets in rows, area by area. Metres of the
plant become units of the drawing with y turned over (plants count it upwards, screens downwards)
and wide empty stretches cut short; inside a hall the drawing is to scale.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from nicegui.element import Element

from beilun.serving.page import words
from beilun.serving.page.clock import Session
from beilun.serving.page.tiles import path_of
from edge.kpi import OBSERVERS
from ingest.messages import Asset

if TYPE_CHECKING:
    from beilun.layout import Layout, Rectangle
    from beilun.serving.reading import AssetInfo

WIDE = 1_000.0
"""Units across the drawing."""
GAP_M = 8.0
_GAP_SHARE = 0.12
"""A stretch in which nothing is, is drawn no longer than this, or this share of what is taken."""
CELL = "cell "
"""Before the name of a radio cell where it could be an area's."""
_MARGIN = 64.0
_STATION = 46.0
_LABEL = 15.0
_LETTER, _SHARE = 9.5, 130.0
"""About how wide a letter of an area's name is, and what stands after it."""


class Place(NamedTuple):
    """An asset on the drawing."""

    asset: Asset
    x: float
    y: float


class Ground(NamedTuple):
    """An area on the drawing, and where its name begins, or ends."""

    name: str
    x: float
    y: float
    width: float
    height: float
    name_x: float
    name_y: float
    ends: bool = False


class Axis:
    """Metres along one direction to units of the drawing. Where nothing is for long, the drawing is
    short: a hall far off would make all the others small."""

    def __init__(self, taken: Iterable[tuple[float, float]]) -> None:
        """``taken`` are the stretches, from and to, in which something is."""
        stretches = sorted(taken)
        gap_m = max(GAP_M, _GAP_SHARE * sum(high - low for low, high in stretches))
        self._at_m: list[float] = []
        self._drawn_m: list[float] = []
        for low, high in stretches:
            if not self._at_m:
                self._at_m, self._drawn_m = [low, high], [0.0, high - low]
                continue
            gap = low - self._at_m[-1]
            if gap > gap_m:
                self._at_m.append(low)
                self._drawn_m.append(self._drawn_m[-1] + gap_m)
            if high > self._at_m[-1]:
                self._drawn_m.append(self._drawn_m[-1] + high - self._at_m[-1])
                self._at_m.append(high)

    @property
    def size_m(self) -> float:
        """How long it is as drawn."""
        return self._drawn_m[-1]

    def drawn_m(self, at_m: float) -> float:
        """Where a place is drawn, from the begin of the axis."""
        place = bisect_right(self._at_m, at_m)
        if not 0 < place < len(self._at_m):
            end = 0 if place == 0 else -1
            return self._drawn_m[end] + at_m - self._at_m[end]
        from_m, to_m = self._at_m[place - 1], self._at_m[place]
        begin_m, end_m = self._drawn_m[place - 1], self._drawn_m[place]
        return begin_m + (at_m - from_m) / (to_m - from_m) * (end_m - begin_m)


@dataclass(frozen=True, slots=True)
class Drawing:
    """A map in units of the drawing, before it is SVG."""

    width: float
    height: float
    station: float
    """Width of a station."""
    areas: tuple[Ground, ...]
    places: tuple[Place, ...]
    ways: tuple[tuple[float, float, float, float], ...] = ()
    cells: tuple[tuple[str, float, float], ...] = ()
    axes: tuple[Axis, Axis] | None = None
    """``None`` where nothing has a place in metres."""
    scale: float = 1.0
    """Units a metre."""

    def at(self, x_m: float, y_m: float) -> tuple[float, float]:
        """A place in metres on the drawing."""
        assert self.axes is not None
        x, y = self.axes
        return (
            round(x.drawn_m(x_m) * self.scale + _MARGIN, 1),
            round(self.height - _MARGIN - y.drawn_m(y_m) * self.scale, 1),
        )


def stations(roster: Iterable["AssetInfo"]) -> list[Asset]:
    """Assets that tell a state, and stay where they are."""
    return [info.asset for info in roster if "state" in info.channels and not is_vehicle(info)]


def is_vehicle(info: "AssetInfo") -> bool:
    """Whether it says where it is."""
    return "x_m" in info.channels and "y_m" in info.channels


def bystanders(roster: Iterable["AssetInfo"]) -> list[Asset]:
    """Assets of foreign devices, which may tell no state; not the network looking at itself."""
    return [info.asset for info in roster if info.kind not in OBSERVERS]


def survey(layout: "Layout", assets: Sequence[Asset]) -> Drawing:
    """A plant with places in metres."""
    nodes = {node.name: (node.x_m, node.y_m) for node in layout.nodes}
    spots = {
        asset: (layout.stations[asset.name].x_m, layout.stations[asset.name].y_m)
        for asset in assets
        if asset.name in layout.stations
    }
    points = [*nodes.values(), *spots.values()]
    rooms = layout.areas.values()
    x = Axis([(r.x_m, r.x_m + r.width_m) for r in rooms] + [(at, at) for at, _ in points])
    y = Axis([(r.y_m, r.y_m + r.height_m) for r in rooms] + [(at, at) for _, at in points])
    scale = (WIDE - 2 * _MARGIN) / max(x.size_m, 2 * y.size_m, 1.0)
    height = y.size_m * scale + 2 * _MARGIN
    frame = Drawing(x.size_m * scale + 2 * _MARGIN, height, 0.0, (), (), axes=(x, y), scale=scale)
    places = tuple(Place(asset, *frame.at(*spot)) for asset, spot in spots.items())
    station = _fitting(places)
    return replace(
        frame,
        station=station,
        areas=tuple(_grounds(layout, frame, places, station)),
        places=places,
        ways=tuple((*frame.at(*nodes[lane.a]), *frame.at(*nodes[lane.b])) for lane in layout.edges),
        cells=tuple(_cells(layout, frame, places, station)),
    )


def _cells(
    layout: "Layout", frame: Drawing, places: Sequence[Place], station: float
) -> Iterable[tuple[str, float, float]]:
    """Cells that stand on the drawing, beside what stands where they do."""
    for cell in layout.cells:
        x, y = frame.at(cell.x_m, cell.y_m)
        if not (0 <= x <= frame.width and 0 <= y <= frame.height):
            continue
        hidden = any(abs(x - p.x) < station and abs(y - p.y) < station for p in places)
        yield cell.name, x + (1.4 * station if hidden else 0.0), y


def _grounds(
    layout: "Layout", frame: Drawing, places: Sequence[Place], station: float
) -> list[Ground]:
    """Areas, the largest first, for it is the furthest back. A name goes where it covers least:
    above or below its area, at the left or at the right, or inside."""
    half = station / 2
    taken = [(p.x - half, p.y - half, p.x + half, p.y + half + _LABEL) for p in places]
    found: list[Ground] = []
    for name, area in sorted(layout.areas.items(), key=lambda each: _size(each[1])):
        left, top = frame.at(area.x_m, area.y_m + area.height_m)
        right, low = frame.at(area.x_m + area.width_m, area.y_m)
        left, right, top, low = left - half, right + half, top - half, low + half + _LABEL
        size = _LETTER * len(name) + _SHARE
        choices = [
            (at_x, at_y, ends)
            for at_y in (top - 7, low + 18, low - 7, top + 18)
            for at_x, ends in ((left + 2, False), (right - 2, True))
        ]
        boxes = [
            (x - size * ends, y - _LABEL, x + size * (not ends), y + 4) for x, y, ends in choices
        ]
        cover = [
            sum(_shared(box, other) for other in taken) + 9 * (_area(box) - _shared(
                box, (0.0, 0.0, frame.width, frame.height)))
            for box in boxes
        ]  # fmt: skip
        best = cover.index(min(cover))
        taken.append(boxes[best])
        found.append(Ground(name, left, top, right - left, low - top, *choices[best]))
    return found[::-1]


def _size(area: "Rectangle") -> float:
    return area.width_m * area.height_m


_Box = tuple[float, float, float, float]


def _area(box: _Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _shared(one: _Box, two: _Box) -> float:
    """How much two boxes (left, top, right, bottom) cover each other."""
    wide = min(one[2], two[2]) - max(one[0], two[0])
    high = min(one[3], two[3]) - max(one[1], two[1])
    return max(wide, 0.0) * max(high, 0.0)


def _fitting(places: Sequence[Place]) -> float:
    """A width at which the nearest two do not cover each other."""
    least = min(
        (
            max(abs(a.x - b.x), abs(a.y - b.y))
            for n, a in enumerate(places)
            for b in places[n + 1 :]
        ),
        default=_STATION * 2,
    )
    return min(max(least * 0.8, 16.0), _STATION)


def grid(assets: Sequence[Asset]) -> Drawing:
    """Assets without a place: in rows, area by area."""
    wide, tall, gap = 92.0, 84.0, 16.0
    columns = int((WIDE - 2 * gap) // wide)
    areas: list[Ground] = []
    places: list[Place] = []
    y = gap
    for area, found in groupby(sorted(assets), key=lambda asset: asset.area):
        members = list(found)
        rows = math.ceil(len(members) / columns)
        areas.append(Ground(area, gap, y + 22, WIDE - 2 * gap, rows * tall + 12, gap + 2, y + 15))
        for place, asset in enumerate(members):
            row, column = divmod(place, columns)
            places.append(Place(asset, gap + (column + 0.5) * wide, y + 34 + (row + 0.4) * tall))
        y += rows * tall + 34 + gap
    return Drawing(WIDE, max(y, 120.0), _STATION, tuple(areas), tuple(places))


def svg(drawing: Drawing, session: Session) -> str:
    """The drawing as SVG. Elements that will change carry their asset in ``data-``."""
    size = drawing.station
    parts = [
        f'<svg viewBox="0 0 {drawing.width:.0f} {drawing.height:.0f}" role="img"'
        f' aria-label="{escape(session.say("map" if drawing.axes else "map.grid"))}">'
    ]
    for name, x, y, wide, high, name_x, name_y, ends in drawing.areas:
        side = "end" if ends else "start"
        parts.append(
            f'<g class="m-area" data-area="{escape(name)}">'
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}" rx="8"/>'
            f'<text x="{name_x:.1f}" y="{name_y:.1f}" class="m-area-name m-{side}">{escape(name)}'
            '<tspan class="m-link" dx="12"></tspan></text></g>'
        )
    for x1, y1, x2, y2 in drawing.ways:
        parts.append(f'<line class="m-way" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    for name, x, y in drawing.cells:
        title = escape(session.say("map.cell", name=name))
        parts.append(
            f'<g class="m-cell" data-area="{escape(CELL + name)}"'
            f' transform="translate({x:.1f} {y:.1f})"><title>{title}</title>'
            '<path d="M0 4V-9M-5 -6a7 7 0 0 1 0 -9M5 -6a7 7 0 0 0 0 -9M-5 4H5"/>'
            f'<text y="17">{escape(name)} <tspan class="m-link"></tspan></text></g>'
        )
    parts.append('<g class="m-trails"></g>')
    for asset, x, y in drawing.places:
        parts.append(
            f'<g class="m-station" data-asset="{escape(path_of(asset))}" tabindex="0" role="link"'
            f' transform="translate({x:.1f} {y:.1f})"><title></title>'
            f'<rect x="{-size / 2:.1f}" y="{-size / 2:.1f}" width="{size:.1f}" height="{size:.1f}"'
            f' rx="{size / 8:.1f}"/><text class="m-letter" font-size="{size * 0.6:.1f}"'
            f' y="{size * 0.21:.1f}">–</text>'
            f'<text class="m-name" y="{size / 2 + _LABEL:.1f}">{escape(asset.name)}</text></g>'
        )
    parts.append('<g class="m-vehicles"></g></svg>')
    return "".join(parts)


class Shown(NamedTuple):
    """What changes on a map, as sent to the browser; compared with what was sent before."""

    states: Mapping[str, tuple[str, str, str]]
    """Path of a station: letter, colour, text."""
    links: Mapping[str, tuple[str, str]]
    """Area: text, and how good it is."""
    vehicles: Sequence[Mapping[str, Any]]


class PlantMap(Element, component="static/plantmap.js"):
    """The map on the screen; ``show`` sends what is new."""

    def __init__(self, drawing: Drawing, session: Session) -> None:
        super().__init__()
        self.drawing = drawing
        self._session = session
        self._states: dict[str, tuple[str, str, str]] = {}
        self._links: dict[str, tuple[str, str]] = {}
        self._vehicles: Sequence[Mapping[str, Any]] = ()
        self.props["svg"] = svg(drawing, session)
        self.classes("b-map")

    def show(self, shown: Shown) -> None:
        """Bring the map up to date with one message; none where nothing has changed."""
        message: dict[str, Any] = {}
        states = {k: v for k, v in shown.states.items() if self._states.get(k) != v}
        if states:
            self._states.update(states)
            message["states"] = states
        links = {k: v for k, v in shown.links.items() if self._links.get(k) != v}
        if links:
            self._links.update(links)
            message["links"] = links
        if list(shown.vehicles) != list(self._vehicles):
            self._vehicles = shown.vehicles
            message["vehicles"] = list(shown.vehicles)
        if message:
            self.run_method("show", message)


def state_sign(state: str, reason: str, name: str, session: Session) -> tuple[str, str, str]:
    """Letter, colour as a CSS variable, and text of a station's state."""
    text = words.state(state, session.language)
    said = f"{name}: {text}" + (f", {reason}" if reason else "")
    return words.letter(state), state.lower(), said
