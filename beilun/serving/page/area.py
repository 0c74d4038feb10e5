"""Site, area and line: what belongs to it, worst first, its KPIs, and where its OEE went.

Worst first is: alarms, then what a machine is doing (aborted, held, stopped ... producing), then
the key figure of its kind, worse before better. A group is as bad as the worst in it.
"""

from asyncio import to_thread
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from beilun.serving.page import asset, panels, words
from beilun.serving.page.asset import Doing, doing_at, doing_cells
from beilun.serving.page.clock import Session
from beilun.serving.page.history import KpiPanel, spans_of
from beilun.serving.page.loss_panel import LossPanel
from beilun.serving.page.panels import Cell, Column, Entry, Panel, Table
from beilun.serving.page.shell import View, box
from beilun.serving.page.tiles import STALE_WINDOWS, asset_of, is_group, path_of, within
from beilun.serving.reading import AlarmSpan, AssetInfo, Reader
from edge import kpis
from edge.rows import ALL, Row
from ingest.messages import Asset

KEY_FIGURES = (
    "oee", "line_speed", "availability", "agv_utilisation", "throughput", "worker_efficiency",
    "uplink_within_10ms",
)  # fmt: skip
"""The first of these that an asset or group has stands for it in a list."""
LINK = "within_10ms"
SEVERITY: Mapping[str, int] = {
    "ABORTED": 0, "ABORTING": 0, "CLEARING": 0,
    "HELD": 1, "HOLDING": 1, "UNHOLDING": 1,
    "STOPPED": 2, "STOPPING": 2,
    "SUSPENDED": 3, "SUSPENDING": 3, "UNSUSPENDING": 3,
    "": 4,
    "IDLE": 5, "COMPLETE": 5,
    "RESETTING": 6, "STARTING": 6, "COMPLETING": 6,
    "EXECUTE": 7,
}  # fmt: skip
"""How bad it is to be in a state: least is worst; of what has none to tell there is no say."""


class Standing(NamedTuple):
    """One line of the list."""

    asset: Asset
    kind: str
    """Of an asset; of a group empty."""
    members: int
    doing: tuple[Doing, ...]
    """Of an asset that has states one, of a group those of its members."""
    figure: Row | None
    link: float | None
    """Share of messages within 10 ms."""
    alarms: int

    @property
    def severity(self) -> int:
        """Of the worst state; what has no states is no matter of concern."""
        return min((SEVERITY.get(one.state, 4) for one in self.doing), default=8)

    @property
    def worth(self) -> float:
        """The key figure, turned so that less is worse; without one, in the middle."""
        if self.figure is None or self.figure.value is None:
            return 0.5
        known = kpis.load().get(self.figure.kpi)
        return -self.figure.value if known and known.better == "down" else self.figure.value


def worst_first(standings: Iterable[Standing]) -> list[Standing]:
    """In the order in which somebody should look."""
    return sorted(standings, key=lambda s: (-s.alarms, s.severity, s.worth, s.asset))


def children(group: Asset, assets: Iterable[Asset]) -> list[Asset]:
    """What is directly below a group: areas of a site, lines of an area, assets of a line."""
    depth = group.index(ALL) if ALL in group else 4
    found: set[Asset] = set()
    for one in assets:
        if depth < 4 and within(one, group):
            levels = one[: depth + 1]
            found.add(Asset(*levels, *[ALL] * (4 - len(levels))))
    return sorted(found)


def standings(
    reader: Reader, group: Asset, window: str, t_ns: int, sees: Callable[[Asset], bool]
) -> list[Standing]:
    """What is directly below a group, worst first, of what may be seen. Reads store and journal."""
    infos = [i for i in reader.assets() if within(i.asset, group) and sees(i.asset)]
    rows: dict[Asset, dict[str, Row]] = {}
    for row in reader.last((*KEY_FIGURES, LINK), window, t_ns) if window else ():
        if sees(row.asset):
            rows.setdefault(row.asset, {})[row.kpi] = row
    alarms = [a for a in reader.alarms(t_ns, t_ns) if a.cleared_ns is None and sees(a.asset)]
    doing = {info.asset: doing_at(reader, info, t_ns) for info in infos}
    return worst_first(
        _standing(child, infos, doing, rows, alarms)
        for child in children(group, (info.asset for info in infos))
    )


def _standing(
    child: Asset,
    infos: Sequence[AssetInfo],
    doing: Mapping[Asset, Doing | None],
    rows: Mapping[Asset, Mapping[str, Row]],
    alarms: Sequence[AlarmSpan],
) -> Standing:
    members = [info for info in infos if within(info.asset, child)]
    mine = rows.get(child, {})
    figure = next((mine[name] for name in KEY_FIGURES if name in mine), None)
    if figure is None:  # a group of which nothing is added up: the worst of its members stands
        each = [rows[m.asset][n] for m in members for n in KEY_FIGURES
                if n in rows.get(m.asset, {})]  # fmt: skip
        figure = min((row for row in each if row.value is not None),
                     key=lambda row: row.value or 0.0, default=None)  # fmt: skip
    link = mine.get(LINK)
    return Standing(
        child,
        members[0].kind if len(members) == 1 and not is_group(child) else "",
        len(members),
        tuple(d for m in members if (d := doing[m.asset]) is not None),
        figure,
        link.value if link is not None else None,
        sum(1 for alarm in alarms if within(alarm.asset, child)),
    )


def entry(one: Standing, session: Session, t_ns: int) -> Entry:
    """A line of the list."""
    language, path = session.language, path_of(one.asset)
    figure, alarms = one.figure, str(one.alarms) if one.alarms else "–"
    cells = (
        Cell(path.rpartition("/")[2]),
        Cell(session.say(f"kind.{one.kind}") if f"kind.{one.kind}" in words.WORDS else one.kind)
        if one.kind else Cell(
            session.say("area.member" if one.members == 1 else "area.members", n=one.members),
            "muted",
        ),
        *_doing(one, session, t_ns),
        Cell("–", "muted") if figure is None else Cell(
            panels.value(figure.kpi, figure.value, figure.unit, language)
        ),
        Cell("" if figure is None else session.kpi(figure.kpi), "muted"),
        Cell(panels.value(LINK, one.link, "1", language)),
        Cell(f"! {alarms}" if one.alarms else alarms, "bad" if one.alarms else "muted"),
        _age(figure, session, t_ns),
    )  # fmt: skip
    return Entry(path, cells, session.address(panels.place_of(path), path))


def _doing(one: Standing, session: Session, t_ns: int) -> tuple[Cell, Cell]:
    if not one.doing:
        return Cell("–", "muted"), Cell("", "muted")
    if one.kind:
        return doing_cells(one.doing[0], session, t_ns)
    counts: dict[str, int] = {}
    for doing in sorted(one.doing, key=lambda d: SEVERITY.get(d.state, 4)):
        counts[doing.state] = counts.get(doing.state, 0) + 1
    text = " · ".join(f"{n} {words.state(s, session.language)}" for s, n in counts.items())
    return Cell(text, state=next(iter(counts))), Cell("", "muted")


def _age(figure: Row | None, session: Session, t_ns: int) -> Cell:
    if figure is None:
        return Cell("–", "muted")
    age_ns = t_ns - figure.window_start_ns - figure.window_length_ns
    stale = age_ns > STALE_WINDOWS * figure.window_length_ns
    text = words.age(age_ns, session.language)
    return Cell(
        session.say("tile.stale", age=text) if stale else text, "warn" if stale else "muted"
    )


def build(session: Session) -> None:
    """A group, by the session's focus; without one the whole site."""
    say = session.say
    group = asset_of(session.focus or session.reader.site)
    if not is_group(group):
        asset.build(session)
        return
    with panels.view("area"):
        with box("v-top"):
            panels.crumbs(session, path_of(group))
            spans = spans_of(session)
        with Panel(say("area.title"), wide=True):
            table = Table(
                [
                    Column(say("area.name")), Column(say("area.kind"), minor=True),
                    Column(say("area.state")), Column(say("area.since"), minor=True),
                    Column(say("area.figure"), number=True), Column("", minor=True),
                    Column(say("area.link"), number=True, minor=True),
                    Column(say("area.alarms"), number=True), Column(say("kpis.age"), number=True),
                ],
                lambda path: session.go(panels.place_of(path), path),
            )  # fmt: skip

        async def update() -> None:
            t_ns = session.t_ns
            found = await to_thread(
                standings, session.reader, group, session.window, t_ns, session.sees
            )
            table.show([entry(one, session, t_ns) for one in found])

        session.on_tick(update)  # before what takes longer
        if session.sees(group):
            LossPanel(session, group)
            KpiPanel(session, group, spans)


VIEWS = (View("/area", "view.area", "▤", build),)
