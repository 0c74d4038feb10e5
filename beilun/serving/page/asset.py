"""One machine: what it is doing and did, its signals with their limits, its losses and its KPIs.

What is drawn follows from what the machine announced: `TRACES` names channels, and a trace is
shown where any of its channels was announced, of whatever kind the machine is. Shots and cycles are
points, for nothing happened between them; measurements are lines with gaps where nothing was heard.
"""

import math
from asyncio import to_thread
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from beilun.serving.journal import series
from beilun.serving.page import charts, panels, words
from beilun.serving.page.clock import Session
from beilun.serving.page.history import KpiPanel, marks_of, span_of, spans_of
from beilun.serving.page.loss_panel import LossPanel
from beilun.serving.page.network import WAYS, histogram_of
from beilun.serving.page.panels import Cell, Chart, Column, Entry, Panel, Switch, Table
from beilun.serving.page.shell import Text, View, box
from beilun.serving.page.tiles import asset_of, path_of, within
from beilun.serving.reading import AlarmSpan, AssetInfo, OrderAt, Reader, StateSpan
from config.units import NS_PER_S
from edge.measures.situations import STATE_HOLD_NS
from ingest.messages import Asset, Floats, Times
from ingest.packml import PackML

STAYS = 12
"""How many stretches are listed under the time line."""
_LOOK_BACK_NS = 3_600 * NS_PER_S


class Trace(NamedTuple):
    """One chart of signals."""

    title: str
    channels: tuple[str, ...]
    dots: bool = False
    """One point a shot or cycle."""
    marked: str = ""
    """A counter: where it rose, the point is marked, as scrap is."""


_JOINTS = range(6)
TRACES = (
    Trace("pressure", ("pressure_mpa",), True, "scrap"),
    Trace("biscuit", ("biscuit_mm",), True, "scrap"),
    Trace("shot_speed", ("fast_mps", "slow_mps"), True),
    Trace("vacuum", ("vacuum_mbar",), True),
    Trace("temperature", ("metal_c", "die_c")),
    Trace("diameter", ("diameter_mm",)),
    Trace("speed", ("speed_mps",), marked="spark_faults"),
    Trace("eccentricity", ("eccentricity_ratio",)),
    Trace("melt", ("melt_c",)),
    Trace("tension", ("tension_kn", *(f"pay_off{n}_kn" for n in range(1, 5)))),
    Trace("current", tuple(f"current_j{n}_a" for n in _JOINTS)),
    Trace("joint_temperature", tuple(f"temperature_j{n}_c" for n in _JOINTS)),
    Trace("cycle", ("cycle_s", "wait_s"), True),
    Trace("power", ("power_kw",)),
    Trace("battery", ("battery_ratio",)),
)


class Doing(NamedTuple):
    """What a machine is doing."""

    state: str
    """PackML; empty: nobody knows."""
    since_ns: int | None
    """``None``: for longer than is known."""
    reason: str = ""


def doing_at(reader: Reader, info: AssetInfo, t_ns: int) -> Doing | None:
    """What an asset was doing at a moment; ``None``: it is of a kind that does nothing. Reads the
    last minutes of the journal, and the changes of state before."""
    if "state" not in info.channels and "mission" not in info.channels:
        return None
    back_ns = _LOOK_BACK_NS if "mission" in info.channels else 2 * STATE_HOLD_NS
    from_ns = max(t_ns - back_ns, reader.start_ns)
    spans = reader.states(info.asset, from_ns, t_ns)
    if not spans or spans[-1].end_ns < t_ns:
        return Doing("", spans[-1].end_ns if spans else None)
    last = spans.pop()
    since_ns = last.start_ns
    while spans and spans[-1].state == last.state and spans[-1].end_ns == since_ns:
        since_ns = spans.pop().start_ns
    if since_ns > from_ns or since_ns == reader.start_ns:
        return Doing(last.state, since_ns, last.reason)
    return Doing(last.state, changed(reader, info.asset, last.state, t_ns), last.reason)


def changed(reader: Reader, asset: Asset, state: str, t_ns: int) -> int | None:
    """When an asset came into the state it is in, by what it told of changes; ``None``: before the
    last that are known. Reads the journal."""
    told = [batch for batch in reader.told(asset, t_ns, t_ns)[1] if batch.stream == "state"]
    t_told, values = series(told, "state")
    there = ~np.isnan(values) & (t_told <= t_ns)
    since_ns: int | None = None
    number = PackML[state].value
    times, numbers = t_told[there].tolist(), values[there].tolist()
    for at_ns, value in zip(reversed(times), reversed(numbers), strict=True):
        if value != number:
            return since_ns
        since_ns = at_ns
    return since_ns if since_ns == reader.start_ns else None


def doing_cells(doing: Doing, session: Session, t_ns: int) -> tuple[Cell, Cell]:
    """What it does and why, and for how long."""
    text = words.state(doing.state, session.language)
    if doing.reason:
        text += f" · {session.say(f'reason.{doing.reason}')}"
    if doing.since_ns is None:
        return Cell(text, state=doing.state), Cell(
            "> " + words.age(_LOOK_BACK_NS, session.language)
        )
    return (
        Cell(text, state=doing.state),
        Cell(words.age(t_ns - doing.since_ns, session.language), "muted"),
    )


# signals ----------------------------------------------------------------------------------------


class Drawn(NamedTuple):
    """A trace with what was told of it."""

    trace: Trace
    told: dict[str, tuple[Times, Floats]]
    marks: tuple[Times, Floats]


def traces_of(info: AssetInfo) -> list[Trace]:
    """The traces of a machine, by what it announced."""
    found = (
        t._replace(channels=tuple(c for c in t.channels if c in info.channels)) for t in TRACES
    )
    return [trace for trace in found if trace.channels]


def told(reader: Reader, asset: Asset, trace: Trace, from_ns: int, to_ns: int) -> Drawn:
    """The signals of a trace. Reads the journal."""
    wanted = (*trace.channels, *((trace.marked,) if trace.marked else ()))
    found = reader.signals(asset, trace.channels, from_ns, to_ns)
    if trace.dots:
        found = {name: _without_blanks(*column) for name, column in found.items()}
    marks: tuple[Times, Floats] = (np.empty(0, dtype=np.int64), np.empty(0))
    if trace.marked and trace.channels[0] in found:
        counter = reader.signals(asset, wanted[-1:], from_ns, to_ns, 1_000_000)
        if trace.marked in counter:
            marks = risen(found[trace.channels[0]], counter[trace.marked])
    return Drawn(trace, found, marks)


def _without_blanks(t_ns: Times, values: Floats) -> tuple[Times, Floats]:
    there = ~np.isnan(values)
    return t_ns[there], values[there]


def risen(signal: tuple[Times, Floats], counter: tuple[Times, Floats]) -> tuple[Times, Floats]:
    """Points of a signal at which a counter had risen since the reading before: each rise marks the
    first point at or after it."""
    t_ns, values = _without_blanks(*signal)
    at_ns, counts = _without_blanks(*counter)
    rises = at_ns[1:][np.diff(counts) > 0]
    places = np.unique(np.searchsorted(t_ns, rises))
    places = places[places < len(t_ns)]
    return t_ns[places], values[places]


def drawn(
    found: Drawn, info: AssetInfo, span: charts.Span, session: Session, t_ns: int
) -> charts.Option:
    """The chart of a trace."""
    trace = found.trace
    clock, look = charts.clock_of(session.reader.zone, t_ns), panels.look(session)
    unit = info.channels[trace.channels[0]]
    scale = 100.0 if unit == "1" else 1.0
    lines = [
        charts.Line(
            channel_name(name, session),
            charts.sampled(times.tolist(), (values * scale).tolist(), clock, _gap_s(times, trace)),
            dots=trace.dots,
        )
        for name, (times, values) in found.told.items()
    ]
    times, values = found.marks
    if len(times):
        name = session.say(f"mark.{trace.marked}")
        points = charts.sampled(times.tolist(), (values * scale).tolist(), clock)
        lines.append(charts.Line(name, points, look.bad, dots=True, cross=True))
    band = None
    if len(trace.channels) == 1 and trace.channels[0] in info.limits:
        low, high = info.limits[trace.channels[0]]
        band = charts.Band(low * scale, high * scale)
    return charts.history(
        lines, span, clock, look, band=band, marks=marks_of(session, span), zoom=False,
        unit="%" if unit == "1" else words.unit(unit, session.language),
    )  # fmt: skip


def _gap_s(times: Times, trace: Trace) -> float:
    """Silence that is a gap: three readings missed. Points that stand for themselves have none."""
    if trace.dots or len(times) < 3:
        return float("inf")
    return max(3.0 * float(np.median(np.diff(times))) / NS_PER_S, 3.0)


def channel_name(name: str, session: Session) -> str:
    """What a line is called: joints by number, others in words, what has none by its name."""
    _, mark, joint = name.partition("_j")
    if mark and joint[:1].isdigit():
        return f"J{joint[0]}"
    key = f"channel.{name}"
    return session.say(key) if key in words.WORDS else name


# the view ---------------------------------------------------------------------------------------


class _Line:
    """The time line, and the last stretches as a list."""

    def __init__(self, session: Session, info: AssetInfo, spans: Switch) -> None:
        self._session, self._info, self._spans = session, info, spans
        self._key: object = None
        say = session.say
        with Panel(say("asset.timeline"), wide=True):
            self._chart = Chart("v-chart v-strip", title=say("asset.timeline"))
            self._table = Table(
                [Column(say("area.state")), Column(panels.local(session, "asset.from")),
                 Column(say("asset.for"), number=True)]
            )  # fmt: skip
        session.on_tick(self.update)

    async def update(self) -> None:
        session, reader, t_ns = self._session, self._session.reader, panels.paced(self._session)
        span = span_of(reader, self._spans.chosen, t_ns)
        if span == self._key:
            return
        self._key = span
        stays = await to_thread(reader.states, self._info.asset, span.from_ns, t_ns)
        clock = charts.clock_of(reader.zone, t_ns)
        lane = charts.Lane(
            self._info.asset.name,
            [charts.Stay(s.start_ns, s.end_ns, s.state, self._why(s)) for s in stays],
        )
        self._chart.show(
            charts.timeline(
                [lane], span, clock, panels.look(session), session.language,
                marks=marks_of(session, span),
            )
        )  # fmt: skip
        self._table.show([self._entry(stay) for stay in reversed(stays[-STAYS:])])

    def _why(self, stay: StateSpan) -> str:
        return self._session.say(f"reason.{stay.reason}") if stay.reason else ""

    def _entry(self, stay: StateSpan) -> Entry:
        session, why = self._session, self._why(stay)
        name = words.state(stay.state, session.language)
        return Entry(
            str(stay.start_ns),
            (
                Cell(f"{name} · {why}" if why else name, state=stay.state),
                Cell(panels.when(stay.start_ns, session.reader.zone)),
                Cell(panels.length(stay.end_ns - stay.start_ns)),
            ),
        )


class _Signals:
    """A chart for every trace."""

    def __init__(self, session: Session, info: AssetInfo, spans: Switch) -> None:
        self._session, self._info, self._spans = session, info, spans
        self._key: object = None
        self._charts: list[tuple[Trace, Chart]] = []
        for trace in traces_of(info):
            title = session.say(f"trace.{trace.title}")
            with Panel(title):
                self._charts.append((trace, Chart("v-chart", title=title)))
        if self._charts:
            session.on_tick(self.update)

    async def update(self) -> None:
        reader, t_ns = self._session.reader, panels.paced(self._session)
        span = span_of(reader, self._spans.chosen, t_ns)
        if span == self._key:
            return
        self._key = span
        for trace, chart in self._charts:
            chart.show(await to_thread(self._drawn, trace, span, t_ns))

    def _drawn(self, trace: Trace, span: charts.Span, t_ns: int) -> charts.Option:
        found = told(self._session.reader, self._info.asset, trace, span.from_ns, t_ns)
        return drawn(found, self._info, span, self._session, t_ns)


class _Path:
    """Where a vehicle went, on the plant's ways."""

    def __init__(self, session: Session, info: AssetInfo, spans: Switch) -> None:
        self._session, self._info, self._spans = session, info, spans
        title = session.say("trace.path")
        with Panel(title):
            self._chart = Chart("v-chart v-map", title=title)
        session.on_tick(self.update)

    async def update(self) -> None:
        session, t_ns = self._session, panels.paced(self._session)
        span = span_of(session.reader, self._spans.chosen, t_ns)
        self._chart.show(await to_thread(self._drawn, span, t_ns))

    def _drawn(self, span: charts.Span, t_ns: int) -> charts.Option:
        session, reader, info = self._session, self._session.reader, self._info
        found = reader.signals(info.asset, ("x_m", "y_m"), span.from_ns, t_ns, 1_000_000)
        plan = reader.layout()
        nodes = {} if plan is None else {node.name: (node.x_m, node.y_m) for node in plan.nodes}
        ways = [] if plan is None else [
            (nodes[lane.a], nodes[lane.b]) for lane in plan.edges
            if lane.a in nodes and lane.b in nodes
        ]  # fmt: skip
        trail = waypoints(found)
        here = reader.positions(t_ns, 0).get(info.asset)
        places = [charts.Place(name, x, y) for name, (x, y) in nodes.items()]
        return charts.path(
            trail, ways, places, panels.look(session),
            here=None if here is None else (here.x_m, here.y_m),
        )  # fmt: skip


def waypoints(found: dict[str, tuple[Times, Floats]]) -> list[tuple[float, float]]:
    """Places in order of time, standing still counted once."""
    if "x_m" not in found or "y_m" not in found:
        return []
    (x_ns, xs), (y_ns, ys) = found["x_m"], found["y_m"]
    _, i, j = np.intersect1d(x_ns, y_ns, return_indices=True)
    trail: list[tuple[float, float]] = []
    for x, y in zip(xs[i].tolist(), ys[j].tolist(), strict=True):
        if not (math.isnan(x) or math.isnan(y)) and trail[-1:] != [(x, y)]:
            trail.append((x, y))
    return trail


class _Delay:
    """How long its control messages took, each way."""

    def __init__(self, session: Session, info: AssetInfo, spans: Switch) -> None:
        self._session, self._info, self._spans = session, info, spans
        self._key: object = None
        title = session.say("trace.delay")
        with Panel(title):
            self._chart = Chart("v-chart", title=title)
        session.on_tick(self.update)

    async def update(self) -> None:
        session, t_ns = self._session, panels.paced(self._session)
        span = span_of(session.reader, self._spans.chosen, t_ns)
        if span == self._key:
            return
        self._key = span
        found = await to_thread(session.reader.delays, self._info.asset, span.from_ns, t_ns)
        ways = [
            charts.Distribution(
                session.say(f"net.{way}"),
                histogram_of(found, up=way == "uplink", down=way == "downlink"),
            )
            for way in WAYS
        ]
        shown = [one for one in ways if one.bins]
        line = session.say("net.line")
        self._chart.show(charts.histogram(shown, panels.look(session), line_text=line))


class _Head:
    """What it does now, its order, and how old the newest word of it is."""

    def __init__(self, session: Session, info: AssetInfo) -> None:
        self._session, self._info = session, info
        kind = f"kind.{info.kind}"
        with box("v-status"):
            self._fact("area.kind", session.say(kind) if kind in words.WORDS else info.kind)
            self._state = self._fact("area.state")
            self._since = self._fact("area.since")
            self._order = self._fact("asset.order")
            self._told = self._fact("asset.told")
            self._alarms = self._fact("area.alarms")
        session.on_tick(self.update)

    def _fact(self, key: str, text: str = "–") -> Text:
        with box("v-fact"):
            Text(self._session.say(key), "v-muted")
            return Text(text)

    async def update(self) -> None:
        session, reader, t_ns = self._session, self._session.reader, self._session.t_ns
        language = session.language
        found = await to_thread(_now, reader, self._info, t_ns)
        if found.doing is not None:
            state, since = doing_cells(found.doing, session, t_ns)
            name = found.doing.state
            panels.put(self._state, f"{words.letter(name)}  {state.text}")
            self._state.style(
                f"border-left: 0.5em solid var(--state-{name.lower() or 'none'}, var(--rule));"
                "padding-left: 0.4em"
            )
            panels.put(self._since, since.text)
        if (order := found.order) is not None:
            text = " · ".join(part for part in (str(order.number), order.product) if part)
            panels.put(self._order, f"{text} ({words.age(t_ns - order.since_ns, language)})")
        else:
            panels.put(self._order, "–")
        old = found.heard_ns is None or t_ns - found.heard_ns > 60 * NS_PER_S
        panels.put(
            self._told,
            session.say("asset.silent") if found.heard_ns is None
            else session.say("tile.age", age=words.age(t_ns - found.heard_ns, language)),
        )  # fmt: skip
        panels.tone(self._told, "warn" if old else "")
        texts = dict.fromkeys(one.text.get(language, one.rule) for one in found.alarms)
        panels.put(self._alarms, f"▲ {' · '.join(texts)}" if texts else "–")
        panels.tone(self._alarms, "bad" if texts else "")


class Now(NamedTuple):
    """What is known of a machine at a moment."""

    doing: Doing | None
    order: OrderAt | None
    heard_ns: int | None
    alarms: tuple[AlarmSpan, ...]
    """That are on, of it or of a group that holds it."""


def _now(reader: Reader, info: AssetInfo, t_ns: int) -> Now:
    on = [
        order for order in reader.order_spans(info.asset)
        if order.since_ns <= t_ns and (order.until_ns is None or t_ns < order.until_ns)
    ]  # fmt: skip
    alarms = tuple(
        one for one in reader.alarms(t_ns, t_ns)
        if one.cleared_ns is None and within(info.asset, one.asset)
    )  # fmt: skip
    told_ns = heard(reader, info.asset, t_ns)
    return Now(doing_at(reader, info, t_ns), on[-1] if on else None, told_ns, alarms)


def heard(reader: Reader, asset: Asset, t_ns: int) -> int | None:
    """When an asset last told anything, as far as a look at the last minutes, and at its last word
    of state, order and calendar shows. Reads the journal."""
    _, batches = reader.told(asset, t_ns, t_ns)
    times = [int(b.t_ns[b.t_ns <= t_ns][-1]) for b in batches if len(b) and b.t_ns[0] <= t_ns]
    return max(times, default=None)


def info_of(infos: Sequence[AssetInfo], asset: Asset) -> AssetInfo | None:
    """How an asset announced itself."""
    return next((info for info in infos if info.asset == asset), None)


def build(session: Session) -> None:
    """A machine, by the session's focus."""
    asset = asset_of(session.focus)
    info = info_of(session.reader.assets(), asset)
    with panels.view("asset"):
        with box("v-top"):
            panels.crumbs(session, path_of(asset))
            spans = spans_of(session)
        if info is None or not session.sees(asset):
            Text(session.say("asset.unknown"), "v-note", "p")
            return
        _Head(session, info)
        if "state" in info.channels or "mission" in info.channels:
            _Line(session, info, spans)
        if "x_m" in info.channels:
            _Path(session, info, spans)
        _Signals(session, info, spans)
        if "bin" in info.channels:
            _Delay(session, info, spans)
        LossPanel(session, asset)
        KpiPanel(session, asset, spans)


VIEWS = (View("/asset", "view.asset", "◇", build, listed=False),)
