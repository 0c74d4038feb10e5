"""Two recordings side by side, at the same time after their starts; worst differences first.

    here    start ├────────● offset            what differs: here - other, in the KPI's unit
    other   start ├────────● offset            how much:     as a share of the larger of both

Whether more is better is the KPI's own business; of one that does not say, a difference is only
that. Assets are matched by area, line and name, so that two sites of one plan can be compared.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from nicegui import ui

from beilun import console
from beilun.serving.page import charts, panels, words
from beilun.serving.page.clock import Session
from beilun.serving.page.shell import Text, View, box
from beilun.serving.page.tiles import KPIS, headlines, path_of
from config.units import NS_PER_S
from edge import kpis
from edge.rows import Row
from ingest.messages import Asset

if TYPE_CHECKING:
    from nicegui.events import GenericEventArguments

    from beilun.serving.reading import Reader

SHOWN = 40
"""Lines of the table; the filter finds the others."""
SAME = 1e-9
"""Relative difference below which two values are the same: rows of two machines agree to nine
significant digits."""
_WORSE, _UNJUDGED, _BETTER, _SAME = range(4)


class Pair(NamedTuple):
    """A KPI of an asset in both recordings."""

    here: Row
    other: Row

    @property
    def key(self) -> str:
        """What a line of the table is known by."""
        return f"{self.here.kpi} {path_of(self.here.asset)}"

    @property
    def difference(self) -> float:
        """Here minus other, in the KPI's unit; both have a value."""
        return (self.here.value or 0.0) - (self.other.value or 0.0)

    @property
    def size(self) -> float:
        """The difference as a share of the larger of both: 0 to 2, also where one of them is 0."""
        most = max(abs(self.here.value or 0.0), abs(self.other.value or 0.0))
        return abs(self.difference) / most if most else 0.0

    @property
    def verdict(self) -> int:
        """Whether here is worse, better, the same, or just other; worse is the least."""
        if self.size <= SAME:
            return _SAME
        known = kpis.load().get(self.here.kpi)
        better = known.better if known else ""
        if not better:
            return _UNJUDGED
        return _BETTER if (self.difference > 0) == (better == "up") else _WORSE


def _place(asset: Asset) -> tuple[str, str, str]:
    return asset.area, asset.line, asset.name


def pairs(here: Iterable[Row], other: Iterable[Row]) -> list[Pair]:
    """Rows that both recordings have with a value, the worst first: what is worse here, by how
    much, then what only differs, then what is better."""
    theirs = {(_place(row.asset), row.kpi): row for row in other if row.value is not None}
    found = [
        Pair(row, theirs[_place(row.asset), row.kpi])
        for row in here
        if row.value is not None and (_place(row.asset), row.kpi) in theirs
    ]
    return sorted(found, key=lambda pair: (pair.verdict, -pair.size, pair.key))


def matching(found: Iterable[Pair], wanted: str, names: Mapping[str, str]) -> list[Pair]:
    """Those whose KPI (by name, or by what people call it) or asset holds every word."""
    parts = wanted.casefold().split()
    return [
        pair
        for pair in found
        if all(part in f"{pair.key} {names.get(pair.here.kpi, '')}".casefold() for part in parts)
    ]


class _Look(NamedTuple):
    """What was read for one moment."""

    pairs: list[Pair]
    heads: list[Pair]
    chosen: Pair | None
    option: charts.Option
    beyond_ns: int
    """How long ago the other recording had ended by then; 0: it had not."""


class _Compare:
    """The elements of one tab's comparison."""

    def __init__(self, session: Session, other: "Reader") -> None:
        self.session, self.other = session, other
        self.wanted = ""
        self.chosen = ""
        self.found: list[Pair] = []
        self.names: dict[str, str] = {}
        self.heads: list[_Head] = []
        say = session.say
        with box("b-panel b-row"):
            for sign, key, reader in (
                ("b-solid", "compare.here", session.reader), ("b-dash", "compare.other", other),
            ):  # fmt: skip
                with box("b-key"):
                    box(sign).style(f"color: var(--series-{1 if sign == 'b-solid' else 2})")
                    Text(say(key), "b-muted")
                    Text(_called(session, reader), "b-title")
            self.offset = Text("", "b-muted")
            self.note = Text("", "b-worse")
        self.row = box("b-tiles b-tiles-low")
        with box("b-panel"):
            self.caption = Text("", "b-title", "h2")
            self.chart = panels.Chart(title=say("view.compare"))
        with box("b-panel"):
            with box("b-row"):
                Text(say("compare.worst"), "b-title", "h2")
                self._draw_filter()
            self.table = panels.Table(
                (
                    panels.Column(say("compare.kpi")),
                    panels.Column(say("compare.asset")),
                    panels.Column(say("compare.here"), number=True),
                    panels.Column(say("compare.other"), number=True),
                    panels.Column(say("compare.difference"), number=True),
                ),
                self._choose,
            )
            self.more = Text("", "b-muted")
        session.on_tick(self._tick)

    def _draw_filter(self) -> None:
        field = ui.element("input").classes("b-field")
        title = self.session.say("compare.filter")
        field.props["type"] = "search"
        field.props["placeholder"] = field.props["aria-label"] = title
        field.on("input", self._filter, js_handler="(e) => emit(e.target.value)", throttle=0.2)

    def _filter(self, event: "GenericEventArguments") -> None:
        self.wanted = str(event.args)
        self._show_table()

    def _choose(self, key: str) -> None:
        self.chosen = key
        self.session.renew()

    async def _tick(self) -> None:
        look = await asyncio.to_thread(self._read)
        say, language = self.session.say, self.session.language
        clock = self.session.clock
        offset_ns = clock.t_ns - clock.start_ns
        self.offset.text = say("compare.offset", age=words.age(offset_ns, language))
        over = words.age(look.beyond_ns, language)
        self.note.text = say("compare.over", age=over) if look.beyond_ns else ""
        self.found = look.pairs
        keys = [pair.key for pair in look.heads]
        if keys != [head.key for head in self.heads]:
            self.row.clear()
            with self.row:
                self.heads = [_Head(self.session, pair) for pair in look.heads]
        for head, pair in zip(self.heads, look.heads, strict=True):
            head.show(pair)
        chosen = look.chosen
        name = self.session.kpi(chosen.here.kpi) if chosen else ""
        self.caption.text = f"{name} · {path_of(chosen.here.asset)}" if chosen else ""
        self.chart.show(look.option)
        self._show_table()

    def _show_table(self) -> None:
        session = self.session
        found = matching(self.found, self.wanted, self.names)
        self.table.show([self._entry(pair) for pair in found[:SHOWN]])
        left = len(found) - SHOWN
        if not self.found:
            self.more.text = session.say("compare.empty")
        else:
            self.more.text = session.say("compare.more", n=left) if left > 0 else ""

    def _entry(self, pair: Pair) -> panels.Entry:
        language, kpi, unit = self.session.language, pair.here.kpi, pair.here.unit
        text, tone = difference(pair, language)
        return panels.Entry(
            pair.key,
            (
                panels.Cell(self.session.kpi(pair.here.kpi), title=pair.here.kpi),
                panels.Cell(path_of(pair.here.asset)),
                panels.Cell(panels.value(kpi, pair.here.value, unit, language)),
                panels.Cell(panels.value(kpi, pair.other.value, unit, language)),
                panels.Cell(text, tone),
            ),
        )

    # reading, in a thread

    def _read(self) -> _Look:
        session, other = self.session, self.other
        here_ns, window = session.t_ns, session.window
        offset_ns = here_ns - session.reader.start_ns
        other_ns = other.start_ns + offset_ns
        theirs = other.last((), window, other_ns) if window in other.windows else []
        rows = session.reader.last((), window, here_ns)
        found = pairs(
            (row for row in rows if session.sees(row.asset)),
            (row for row in theirs if session.sees(row.asset)),
        )
        self.names = {pair.here.kpi: session.kpi(pair.here.kpi) for pair in found}
        heads = _heads(found)
        by_key = {pair.key: pair for pair in found}
        chosen = by_key.get(self.chosen) or next(iter(heads or found), None)
        option = self._chart(chosen, here_ns, other_ns)
        return _Look(found, heads, chosen, option, max(other_ns - other.end_ns(), 0))

    def _chart(self, pair: Pair | None, here_ns: int, other_ns: int) -> charts.Option:
        """Both from start to now, on the clock of this recording."""
        session, reader = self.session, self.session.reader
        look, clock = panels.look(session), charts.clock_of(reader.zone, here_ns)
        start_ns = reader.start_ns
        span = charts.Span(start_ns, max(here_ns, start_ns + NS_PER_S))
        if pair is None:
            return charts.history([], span, clock, look)
        window = session.window
        scale = 100.0 if _is_share(pair.here) else 1.0
        shift_ns = here_ns - other_ns
        lines: list[charts.Line] = []
        for name, source, row, end_ns, by_ns in (
            (session.say("compare.here"), reader, pair.here, here_ns, 0),
            (session.say("compare.other"), self.other, pair.other, other_ns, shift_ns),
        ):
            past = source.history(row.asset, row.kpi, window, source.start_ns, end_ns)
            values = [
                charts.Value(
                    each.window_start_ns + by_ns,
                    each.span.end_ns + by_ns,
                    None if each.value is None else each.value * scale,
                )
                for each in past
            ]
            points = charts.stepped(values, clock)
            lines.append(charts.Line(name, points, look.lines[len(lines)], dashed=bool(lines)))
        text = "%" if _is_share(pair.here) else words.unit(pair.here.unit, session.language)
        return charts.history(lines, span, clock, look, unit=text)


def _heads(found: Sequence[Pair]) -> list[Pair]:
    """Of the headlines those that both have, in their own order."""
    by = {(pair.here.asset, pair.here.kpi): pair for pair in found}
    chosen = headlines((pair.here for pair in found if pair.here.kpi in KPIS), ())
    return [by[head.asset, head.kpi] for head in chosen]


def difference(pair: Pair, language: str) -> tuple[str, str]:
    """A difference in words, and its tone: ``▼ −0.031 m/s, worse``. Shares differ by points."""
    verdict = pair.verdict
    if verdict == _SAME:
        return words.say("compare.same", language), "muted"
    size = abs(pair.difference)
    if _is_share(pair.here):
        text = words.say("compare.points", language, n=console.number(size * 100))
    else:
        text = panels.value(pair.here.kpi, size, pair.here.unit, language)
    sign = "▲ +" if pair.difference > 0 else "▼ −"
    if verdict == _UNJUDGED:
        return f"{sign}{text}", ""
    said = words.say("compare.better" if verdict == _BETTER else "compare.worse", language)
    return f"{sign}{text}, {said}", "good" if verdict == _BETTER else "bad"


def _is_share(row: Row) -> bool:
    return words.is_share(row.kpi, row.unit)


def _called(session: Session, reader: "Reader") -> str:
    seed = session.say("seed", seed=reader.seed) if reader.seed is not None else ""
    return " · ".join(part for part in (reader.name, reader.scenario, seed) if part)


class _Head:
    """A headline number of both."""

    def __init__(self, session: Session, pair: Pair) -> None:
        self.key, self._session = pair.key, session
        root = box("b-tile")
        root.props["data-kpi"] = pair.here.kpi
        with root:
            with box("b-tile-head"):
                Text(session.say(f"tile.{pair.here.kpi}"), "b-tile-name")
                Text(path_of(pair.here.asset).rpartition("/")[2], "b-tile-asset")
            with box("b-twin"):
                self._here, self._other = Text("", "b-number"), Text("", "b-number b-muted")
                Text(session.say("compare.here"), "b-muted")
                Text(session.say("compare.other"), "b-muted")
            self._sign = Text("")

    def show(self, pair: Pair) -> None:
        """Both values and what lies between them."""
        language = self._session.language
        for text, row in ((self._here, pair.here), (self._other, pair.other)):
            number, _ = words.quantity(row.value, row.unit, language, kpi=row.kpi, short=True)
            text.text = f"{number}%" if _is_share(row) and row.value is not None else number
        said, tone = difference(pair, language)
        self._sign.text = said
        panels.tone(self._sign, tone)


def _build(session: Session) -> None:
    if session.other is None:
        Text(session.say("compare.none"), "b-empty")
        return
    _Compare(session, session.other)


VIEWS = (View("/compare", "view.compare", "⇄", _build),)
