"""The overview: headline tiles, and the plant as a map with what everything in it is doing."""

import asyncio
from typing import TYPE_CHECKING, Any

from beilun.serving.page import words
from beilun.serving.page.clock import Session
from beilun.serving.page.plantmap import (
    CELL,
    PlantMap,
    Shown,
    bystanders,
    grid,
    state_sign,
    stations,
    survey,
)
from beilun.serving.page.shell import Text, View, box
from beilun.serving.page.tiles import (
    Headline,
    Reading,
    Tile,
    Wanted,
    path_of,
    readings,
    targets,
    tiles_of,
)
from config.units import NS_PER_S
from edge.rows import ALL
from ingest.messages import Asset

if TYPE_CHECKING:
    from nicegui.events import GenericEventArguments

    from beilun.layout import Layout
    from beilun.serving.reading import AssetInfo, Place

_MINUTE_NS = 60 * NS_PER_S
_TRAIL_S = 60.0
_LINK_GOOD, _LINK_FAIR = 0.99, 0.9
LEGEND = ("EXECUTE", "STARTING", "SUSPENDED", "IDLE", "HELD", "ABORTED", "STOPPED")
"""One state of each colour."""


class _Overview:
    """The elements of one tab's overview."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.stations: list[Asset] = []
        self.cells: set[Asset] = set()
        self.wanted: list[Wanted] | None = None
        self.asking: asyncio.Task[None] | None = None
        self.failed: Exception | None = None
        self.roster = -1
        """How many assets the map was drawn for."""
        self.known: tuple[str, int] = ("", -1)
        self.chosen: list[Headline] = []
        """What ``_headlines`` found for these windows and this version of the recording."""
        self.headlines: list[Headline] = []
        """What there are tiles for."""
        self.tiles: list[Tile] = []
        self.map: PlantMap | None = None
        self.row = box("b-tiles")
        with box("b-panel b-map-panel"):
            self.ground = box("b-ground")
            self._draw_legend()
        session.on_tick(self._tick)

    def _draw_map(self, roster: "list[AssetInfo]", layout: "Layout | None") -> None:
        session = self.session
        self.stations = stations(roster)
        self.cells = {info.asset for info in roster if info.kind == "radio_cell"}
        self.ground.clear()
        self.map = None
        with self.ground:
            if layout is not None and (layout.nodes or layout.stations):
                drawing = survey(layout, self.stations)
            elif roster:
                drawing = grid(bystanders(roster))
            else:
                Text(session.say("map.no_data"), "b-empty")
                return
            self.map = PlantMap(drawing, session)
            self.map.on("open", self._open)

    def _draw_legend(self) -> None:
        with box("b-legend"):
            for state in LEGEND:
                with box("b-key"):
                    Text(words.letter(state), "b-swatch").style(
                        f"background:var(--state-{state.lower()})"
                    )
                    Text(words.state(state, self.session.language))

    def _open(self, event: "GenericEventArguments") -> None:
        self.session.go("/asset", str(event.args))

    async def _tick(self) -> None:
        await self._show_tiles()
        if await self._has_roster():
            await self._show_map()

    async def _show_tiles(self) -> None:
        t_ns, tiles, found = await asyncio.to_thread(self._read_tiles)
        if tiles != self.headlines:
            self.headlines = tiles
            self.row.clear()
            with self.row:
                self.tiles = [Tile(self.session, tile) for tile in tiles]
        for tile, reading in zip(self.tiles, found, strict=True):
            tile.show(reading, t_ns)

    async def _has_roster(self) -> bool:
        """Whether it is known who is there. That may take a while the first time, in a recording of
        before it was kept apart; clock and tiles do not wait for it."""
        if self.asking is None:
            self.asking = asyncio.create_task(self._ask(), name="overview.roster")
            return False
        if not self.asking.done():
            return False
        if self.failed is not None:
            failed, self.failed, self.asking = self.failed, None, None
            raise failed
        return True

    async def _ask(self) -> None:
        try:
            await asyncio.to_thread(self.session.reader.assets)
        except Exception as error:
            self.failed = error
        self.session.renew()

    async def _show_map(self) -> None:
        roster, layout = await asyncio.to_thread(self._survey)
        if len(roster) != self.roster:
            self.roster = len(roster)
            self._draw_map(roster, layout)
        shown = await asyncio.to_thread(self._read_map)
        if self.map is not None:
            self.map.show(shown)

    # reading, in a thread

    def _survey(self) -> "tuple[list[AssetInfo], Layout | None]":
        session = self.session
        roster = [info for info in session.reader.assets() if session.sees(info.asset)]
        return roster, session.reader.layout()

    def _read_tiles(self) -> tuple[int, list[Headline], list[Reading]]:
        session = self.session
        t_ns, window = session.t_ns, session.window
        tiles = self._headlines(window)
        return t_ns, tiles, readings(session.reader, tiles, window, t_ns)

    def _read_map(self) -> Shown:
        t_ns = self.session.t_ns
        return Shown(self._states(t_ns), self._links(t_ns), self._vehicles(t_ns))

    def _headlines(self, window: str) -> list[Headline]:
        """Which tiles there are, looked up again when the windows or the recording have changed."""
        session = self.session
        key = (window, session.reader.version())
        if self.wanted is None:
            self.wanted = targets(session.reader)
        if key != self.known:
            self.chosen = tiles_of(session.reader, window, self.wanted, session.sees)
            self.known = key
        return self.chosen

    def _states(self, t_ns: int) -> dict[str, tuple[str, str, str]]:
        found: dict[str, tuple[str, str, str]] = {}
        for asset in self.stations:
            spans = self.session.reader.states(asset, t_ns - _MINUTE_NS, t_ns)
            state, reason = (spans[-1].state, spans[-1].reason) if spans else ("", "")
            found[path_of(asset)] = state_sign(state, reason, asset.name, self.session)
        return found

    def _links(self, t_ns: int) -> dict[str, tuple[str, str]]:
        """Share of messages within 10 ms in the last window of the shortest kind: of areas, and of
        cells of the radio."""
        session = self.session
        window = next(iter(session.reader.windows), "")
        if self.map is None or all(tile.kpi != "within_10ms" for tile in self.chosen):
            return {}
        none = session.say("map.no_link")
        found = {ground.name: (none, "none") for ground in self.map.drawing.areas}
        for row in session.reader.last({"within_10ms"}, window, t_ns):
            asset = row.asset
            if asset in self.cells:
                place = CELL + asset.name
            elif asset.area != ALL and asset.line == ALL and asset.area in found:
                place = asset.area
            else:
                continue
            if row.value is None or not session.sees(asset):
                continue
            how = (
                "good" if row.value >= _LINK_GOOD else "fair" if row.value >= _LINK_FAIR else "bad"
            )
            share = words.text_of(row.value, "1", session.language)
            text = share if asset in self.cells else session.say("map.link", share=share)
            found[place] = (text, how)
        return found

    def _vehicles(self, t_ns: int) -> list[dict[str, Any]]:
        if self.map is None or self.map.drawing.axes is None:
            return []
        drawing, session = self.map.drawing, self.session
        found: list[dict[str, Any]] = []
        for asset, at in session.reader.positions(t_ns, _TRAIL_S).items():
            if not session.sees(asset):
                continue
            x, y = drawing.at(at.x_m, at.y_m)
            found.append(
                {
                    "path": path_of(asset),
                    "name": asset.name,
                    "x": x,
                    "y": y,
                    "turn": _turn(at.heading_rad),
                    "battery": round(at.battery_ratio or 0.0, 3),
                    "load": at.loaded,
                    "doing": _doing(at),
                    "trail": " ".join(
                        "{},{}".format(*drawing.at(x_m, y_m)) for _, x_m, y_m in at.trail
                    ),
                    "text": self._about(asset, at),
                }
            )
        return found

    def _about(self, asset: Asset, at: "Place") -> str:
        say = self.session.say
        return say(
            "map.vehicle",
            name=asset.name,
            battery=words.text_of(at.battery_ratio, "1", self.session.language),
            load=say("map.loaded" if at.loaded else "map.empty"),
            doing=say(f"map.{_doing(at)}"),
        )


def _doing(at: "Place") -> str:
    if at.waiting:
        return "waiting"
    if at.charging:
        return "charging"
    return "driving" if at.driving else "standing"


def _turn(heading_rad: float | None) -> float:
    """Degrees clockwise on the screen from radians anticlockwise on the plan."""
    return round(-(heading_rad or 0.0) * 57.29577951308232, 1)


def _build(session: Session) -> None:
    _Overview(session)


VIEWS = (View("/", "view.overview", "◰", _build),)
