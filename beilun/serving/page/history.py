"""KPIs of one asset or group: all of them as they were last, and one of them over time.

The table has the last window that had ended at the moment shown; the chart that KPI's windows over
the span chosen, with the target it should keep, the truth where somebody knows it, and what the
scenario did to network and data meanwhile.
"""

from asyncio import to_thread
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from beilun.serving.page import charts, panels, truth_view, words
from beilun.serving.page.clock import Session
from beilun.serving.page.panels import Cell, Chart, Column, Entry, Panel, Switch, Table
from beilun.serving.page.shell import Text, box, button
from beilun.serving.page.tiles import STALE_WINDOWS, band_of, is_group, path_of, targets, within
from beilun.serving.page.truth_view import Judged
from beilun.serving.reading import Reader
from config.units import NS_PER_S
from edge.rows import ORDER_NUMBER, Row
from ingest.messages import Asset

SPANS: Mapping[str, int | None] = {
    "15m": 900 * NS_PER_S, "1h": 3_600 * NS_PER_S, "8h": 28_800 * NS_PER_S, "all": None,
}  # fmt: skip
"""How far back charts reach; ``None``: to the start of the recording."""
FIRST = ("oee", "line_speed", "availability", "agv_utilisation", "throughput", "within_10ms")
"""Which KPIs are listed first, and drawn before anybody chose one."""
LEAST_WINDOWS = 12
"""A history of fewer would be no history: where the span chosen is shorter, it reaches further."""
_STEPS = 120


def span_of(reader: Reader, chosen: str, t_ns: int) -> charts.Span:
    """What a chart shows at a moment. It moves on in steps, a hundred and twenty to its width, so
    that a live chart is not sent again with every tick; it never reaches beyond the moment."""
    length_ns = SPANS[chosen]
    if length_ns is None:
        length_ns = max(t_ns - reader.start_ns, 60 * NS_PER_S)
        return charts.Span(reader.start_ns, reader.start_ns + length_ns)
    step_ns = length_ns // _STEPS
    to_ns = t_ns if length_ns <= step_ns else -(-t_ns // step_ns) * step_ns
    return charts.Span(max(to_ns - length_ns, reader.start_ns), max(to_ns, reader.start_ns + 1))


def spans_of(session: Session) -> Switch:
    """The choice of how far back the charts of a view reach."""
    choices = {key: session.say(f"span.{key}") for key in SPANS}
    return Switch(choices, "1h", lambda _: session.renew())


class Shown(NamedTuple):
    """A KPI of an asset: its last row, and how far that is from the truth."""

    row: Row
    judged: Judged | None


def newest(reader: Reader, asset: Asset, window: str, t_ns: int) -> list[Shown]:
    """The last rows of an asset's KPIs, with their truth. Reads the store."""
    names = [name for name in reader.kpi_names(asset) if name != ORDER_NUMBER]
    rows = [
        row
        for row in reader.last(names, window, t_ns, path_of(asset))
        if row.asset == asset and not row.kpi.startswith("alarm.")
    ]
    return [
        Shown(row, truth_view.judge(reader, row, window) if reader.simulated else None)
        for row in sorted(rows, key=lambda row: (_place(row.kpi), row.kpi))
    ]


def _place(kpi: str) -> int:
    return FIRST.index(kpi) if kpi in FIRST else len(FIRST)


class KpiPanel:
    """The table and the chart; ``update`` brings both to the moment shown."""

    def __init__(self, session: Session, asset: Asset, spans: Switch) -> None:
        self._session, self._asset, self._spans = session, asset, spans
        say = session.say
        self._wanted = targets(session.reader)
        self._members = [
            info.asset
            for info in session.reader.assets()
            if is_group(asset) and within(info.asset, asset)
        ]
        self._kpi = ""
        self._key: object = None
        self._by_kpi: dict[str, Row] = {}
        self._panel = Panel(say("kpis.title"), wide=True)
        with self._panel, box("v-split"):
            with box("v-list"):
                columns = [
                    Column(say("kpis.name")),
                    Column(say("kpis.value"), number=True),
                    Column(say("kpis.age"), number=True),
                ]
                if session.reader.simulated:
                    columns.append(Column(say("kpis.error"), number=True))
                self._table = Table(columns, self._choose)
            with box("v-drawn"):
                with box("v-controls"):
                    self._name = Text("", "v-sub", "h3")
                    button(say("truth.open"), "", self._explain, title=say("truth.tip"))
                self._chart = Chart("v-chart v-tall", title=say("kpis.title"))
        session.on_tick(self.update)

    def _choose(self, kpi: str) -> None:
        self._kpi = kpi
        self._session.renew()

    def _explain(self) -> None:
        row = self._by_kpi.get(self._kpi)
        if row is not None:
            truth_view.show(self._session, row, self._session.window)

    async def update(self) -> None:
        """To the moment shown."""
        session, asset = self._session, self._asset
        reader, t_ns, window = session.reader, panels.paced(session), session.window
        shown = await to_thread(newest, reader, asset, window, t_ns)
        self._panel.note("" if shown else session.say("kpis.none", window=window))
        self._by_kpi = {one.row.kpi: one.row for one in shown}
        if self._kpi not in self._by_kpi:
            have = [name for name in FIRST if name in self._by_kpi] or list(self._by_kpi)
            self._kpi = have[0] if have else ""
        self._table.show([self._entry(one, t_ns) for one in shown])
        row = self._by_kpi.get(self._kpi)
        span = span_of(reader, self._spans.chosen, t_ns)
        if row is not None:
            from_ns = span.to_ns - LEAST_WINDOWS * row.window_length_ns
            span = charts.Span(max(min(span.from_ns, from_ns), reader.start_ns), span.to_ns)
        panels.put(self._name, session.kpi(self._kpi))
        key = (self._kpi, window, span.from_ns, span.to_ns, row, session.dark, session.language)
        if key != self._key:
            self._key = key
            option = await to_thread(self._drawn, span, t_ns, row)
            self._chart.show(option)

    def _entry(self, one: Shown, t_ns: int) -> Entry:
        row, language = one.row, self._session.language
        end_ns = row.span.end_ns
        stale = t_ns - end_ns > STALE_WINDOWS * row.window_length_ns
        name = self._session.kpi(row.kpi)
        here = row.kpi == self._kpi
        cells = [
            Cell(f"▸ {name}" if here else name, title=words.summary(row.kpi, language)),
            Cell(panels.value(row.kpi, row.value, row.unit, language), "muted" if stale else ""),
            Cell(words.age(t_ns - end_ns, language), "warn" if stale else "muted"),
        ]
        if self._session.reader.simulated:
            cells.append(truth_view.error_cell(one.judged, self._session))
        return Entry(row.kpi, tuple(cells))

    def _drawn(self, span: charts.Span, t_ns: int, row: Row | None) -> charts.Option:
        """The chart. Reads the store."""
        session, reader, asset = self._session, self._session.reader, self._asset
        clock, look = charts.clock_of(reader.zone, t_ns), panels.look(session)
        if row is None:
            return charts.history([], span, clock, look)
        share = words.is_share(row.kpi, row.unit)
        window, scale = session.window, 100.0 if share else 1.0
        rows = reader.history(asset, row.kpi, window, span.from_ns, t_ns)
        ours = [(r.window_start_ns, r.window_length_ns, r.value) for r in rows]
        lines = [charts.Line(session.kpi(row.kpi), _stepped(ours, scale, clock))]
        if reader.simulated:
            truth = reader.truth_history(asset, row.kpi, window, span.from_ns, t_ns)
            if any(value is not None for *_, value in truth):
                points = _stepped(truth, scale, clock)
                lines.append(charts.Line(session.say("truth.truth"), points, look.muted, True))
        target = band_of(row.kpi, asset, self._wanted, self._members)
        band = None
        if target is not None and target.window in ("", window):
            ends = (None if end is None else end * scale for end in target[:2])
            band = charts.Band(*ends)
        return charts.history(
            lines, span, clock, look, band=band, marks=marks_of(session, span),
            unit="%" if share else words.unit(row.unit, session.language),
        )  # fmt: skip


def _stepped(
    windows: Iterable[tuple[int, int, float | None]], scale: float, clock: charts.Clock
) -> list[charts.Point]:
    return charts.stepped(
        (
            charts.Value(start_ns, start_ns + length_ns, None if v is None else v * scale)
            for start_ns, length_ns, v in windows
        ),
        clock,
    )


def marks_of(session: Session, span: charts.Span) -> list[charts.Mark]:
    """What the scenario did to network and data while a chart's time went by."""
    return [
        charts.Mark(fault.start_ns, fault.end_ns, words.fault(fault.kind, session.language))
        for fault in session.reader.faults()
        if fault.end_ns > span.from_ns and fault.start_ns < span.to_ns
    ]
