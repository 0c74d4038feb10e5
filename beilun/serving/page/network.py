"""The network: delays against the 10 ms line, who keeps it, hops, cells and handovers.

The network reports on itself as assets of its own, a slice, a group of devices, a cell of the
radio; what they passed on is drawn as a distribution over the span chosen, and their KPIs are
listed for the last window that had ended. Two paths are kept apart: the modelled link, in event
time, from a device to the MEC; and the real one, on this host's clock, from its broker to a row.
"""

import itertools
from asyncio import to_thread
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from beilun import console
from beilun.serving.page import charts, panels, words
from beilun.serving.page.clock import Session
from beilun.serving.page.history import span_of, spans_of
from beilun.serving.page.panels import Cell, Chart, Column, Entry, Panel, Switch, Table
from beilun.serving.page.shell import Text, View, box
from beilun.serving.page.tiles import asset_of, band_of, is_group, path_of, targets
from beilun.serving.reading import AssetInfo, CellSpan, DelayBin, Reader
from config.units import NS_PER_MS, NS_PER_S
from edge.kpi import OBSERVERS
from edge.rows import Row
from ingest.bins import bin_of
from ingest.messages import Asset

HOPS = ("endpoint_delay", "radio_delay", "core_delay", "transport_delay")
WAYS = ("uplink", "downlink")
KPIS = (
    "messages", *(f"{way}_{what}" for way in WAYS for what in ("delay_p50", "delay_p99",
    "within_10ms")), *HOPS,
)  # fmt: skip
SERVICE = ("within_10ms", "delay_p99", "misses_in_a_row", "service_availability",
           "service_failures")  # fmt: skip
_TRACE_NS = 3_600 * NS_PER_S
HANDOVERS = 60


def histogram_of(found: Sequence[DelayBin], *, up: bool, down: bool) -> dict[int, int]:
    """Messages by bin of the wire contract, of one direction or both."""
    bins: dict[int, int] = {}
    if found:
        delays_ns = np.rint(np.array([one.delay_ms for one in found]) * NS_PER_MS).astype(np.int64)
        for number, one in zip(bin_of(delays_ns).tolist(), found, strict=True):
            messages = one.up * up + one.down * down
            if messages:
                bins[number] = bins.get(number, 0) + messages
    return bins


class Delays(NamedTuple):
    """The distribution of one reporter, one or both ways."""

    name: str
    bins: dict[int, int]


def delays(
    reader: Reader, of: Sequence[AssetInfo], way: str, from_ns: int, to_ns: int
) -> list[Delays]:
    """Distributions of some reporters. Reads the journal."""
    both = way == "both"
    return [
        Delays(
            info.asset.name,
            histogram_of(
                reader.delays(info.asset, from_ns, to_ns),
                up=both or way == "uplink", down=both or way == "downlink",
            ),
        )
        for info in of
    ]  # fmt: skip


def by_asset(rows: Sequence[Row]) -> dict[Asset, dict[str, Row]]:
    """Rows by asset and KPI."""
    found: dict[Asset, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row.asset, {})[row.kpi] = row
    return found


class _Distribution:
    """The histogram, and its quantiles as a table."""

    def __init__(self, session: Session, infos: Sequence[AssetInfo], spans: Switch) -> None:
        self._session, self._infos, self._spans = session, infos, spans
        self._least = least_share(session)
        self._key: object = None
        say = session.say
        kinds = [kind for kind in ("slice", "device_group", "radio_cell")
                 if any(info.kind == kind for info in infos)]  # fmt: skip
        with Panel(say("net.delay"), wide=True):
            with box("v-controls"):
                self._kind = Switch(
                    {kind: say(f"net.by.{kind}") for kind in kinds},
                    kinds[0] if kinds else "", self._again,
                )  # fmt: skip
                ways = {way: say(f"net.{way}") for way in ("both", *WAYS)}
                self._way = Switch(ways, "both", self._again)
            self._chart = Chart("v-chart v-tall", title=say("net.delay"))
            self._table = Table(
                [
                    Column(""), Column(say("net.messages"), number=True),
                    *(Column(name, number=True) for name in ("p50", "p90", "p99", "p99.9")),
                    Column(say("net.max"), number=True, minor=True),
                    Column("≤ 10 ms", number=True),
                ]
            )  # fmt: skip
        session.on_tick(self.update)

    def _again(self, _: str) -> None:
        self._session.renew()

    async def update(self) -> None:
        session, reader, t_ns = self._session, self._session.reader, panels.paced(self._session)
        span = span_of(reader, self._spans.chosen, t_ns)
        kind, way = self._kind.chosen, self._way.chosen
        if (span, kind, way) == self._key:
            return
        self._key = span, kind, way
        of = [info for info in self._infos if info.kind == kind]
        found = await to_thread(delays, reader, of, way, span.from_ns, t_ns)
        shown = [charts.Distribution(one.name, one.bins) for one in found if one.bins]
        line = session.say("net.line")
        self._chart.show(charts.histogram(shown, panels.look(session), line_text=line))
        self._table.show([self._entry(one) for one in found])

    def _entry(self, one: Delays) -> Entry:
        found, language = charts.spread(one.bins), self._session.language
        times = (found.p50_ms, found.p90_ms, found.p99_ms, found.p999_ms, found.max_ms)
        return Entry(
            one.name,
            (
                Cell(one.name),
                Cell(panels.count(found.messages)),
                *(Cell(panels.ms(one, language)) for one in times),
                within_cell(found.within, self._least, language),
            ),
        )


def least_share(session: Session) -> float | None:
    """What share within 10 ms is asked of the site: those below it are marked, whoever they are."""
    site = asset_of(session.reader.site)
    band = band_of("within_10ms", site, targets(session.reader), ())
    return None if band is None else band.low


def within_cell(value: float | None, least: float | None, language: str) -> Cell:
    """A share within 10 ms, marked where it is less than asked for."""
    low = value is not None and least is not None and value < least
    text = panels.value("", value, "1", language)
    return Cell(f"✗ {text}" if low else text, "bad" if low else "")


class _Reporters:
    """Slices, groups and cells with their KPIs of the last window, worst first; and where a
    message's time went."""

    def __init__(self, session: Session, infos: Sequence[AssetInfo]) -> None:
        self._session, self._infos = session, infos
        self._least = least_share(session)
        say = session.say
        short = {"delay_p50": "p50", "delay_p99": "p99", "within_10ms": "≤ 10 ms"}
        with Panel(say("net.reporters"), wide=True):
            self._table = Table(
                [
                    Column(say("area.name")), Column(say("area.kind"), minor=True),
                    Column(say("net.messages"), number=True),
                    *(
                        Column(f"{sign} {name}", number=True, minor=what != "within_10ms")
                        for sign in ("↑", "↓") for what, name in short.items()
                    ),
                ],
                lambda path: session.go("/asset", path),
            )  # fmt: skip
        with Panel(say("net.hops")):
            self._chart = Chart("v-chart", title=say("net.hops"))
            Text(say("net.hops_text"), "v-note", "p")
        session.on_tick(self.update)

    async def update(self) -> None:
        session, t_ns = self._session, panels.paced(self._session)
        language = session.language
        rows = await to_thread(_last, session.reader, KPIS, session.window, t_ns)
        found = by_asset([row for row in rows if session.sees(row.asset)])
        mine = [(info, found.get(info.asset, {})) for info in self._infos]
        mine.sort(key=lambda item: (_least(item[1]), item[0].asset))
        self._table.show([self._entry(info, rows, language) for info, rows in mine])
        parts = [(info.asset.name, [_value(rows, hop) for hop in HOPS]) for info, rows in mine]
        names = [session.kpi(hop) for hop in HOPS]
        self._chart.show(
            charts.stacked(
                [(name, values) for name, values in parts if any(v is not None for v in values)],
                names, panels.look(session), unit="ms",
            )
        )  # fmt: skip

    def _entry(self, info: AssetInfo, rows: Mapping[str, Row], language: str) -> Entry:
        cells = [
            Cell(info.asset.name),
            Cell(self._session.say(f"kind.{info.kind}"), "muted"),
            Cell(panels.count(_value(rows, "messages"))),
        ]
        for way in WAYS:
            times = (_value(rows, f"{way}_{what}") for what in ("delay_p50", "delay_p99"))
            cells += [Cell(panels.ms(value, language)) for value in times]
            share = _value(rows, f"{way}_within_10ms")
            cells.append(within_cell(share, self._least, language))
        path = path_of(info.asset)
        return Entry(path, tuple(cells), self._session.address("/asset", path))


def _value(rows: Mapping[str, Row], kpi: str) -> float | None:
    row = rows.get(kpi)
    return None if row is None else row.value


def _least(rows: Mapping[str, Row]) -> float:
    shares = [v for way in WAYS if (v := _value(rows, f"{way}_within_10ms")) is not None]
    return min(shares, default=2.0)


def _last(reader: Reader, kpis: Sequence[str], window: str, t_ns: int) -> list[Row]:
    return reader.last(kpis, window, t_ns) if window else []


class _Service:
    """What each device had of the network: availability, failures, misses in a row; worst first."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._least = least_share(session)
        say = session.say
        with Panel(say("net.service"), wide=True):
            self._table = Table(
                [
                    Column(say("truth.asset")), Column("≤ 10 ms", number=True),
                    Column("p99", number=True), Column(say("net.misses"), number=True),
                    Column(say("net.availability"), number=True),
                    Column(say("net.failures"), number=True),
                ],
                lambda path: session.go("/asset", path),
            )  # fmt: skip
        session.on_tick(self.update)

    async def update(self) -> None:
        session, language = self._session, self._session.language
        rows = await to_thread(_last, session.reader, SERVICE, session.window, session.t_ns)
        found = by_asset(
            [row for row in rows if session.sees(row.asset) and not is_group(row.asset)
             and row.asset.area != "network"]
        )  # fmt: skip
        lines: list[tuple[tuple[float, float, str], Entry]] = []
        for asset, mine in found.items():
            path = path_of(asset)
            up, share = _value(mine, "service_availability"), _value(mine, "within_10ms")
            failures, misses = _value(mine, "service_failures"), _value(mine, "misses_in_a_row")
            cells = (
                Cell(path.partition("/")[2]),
                within_cell(share, self._least, language),
                Cell(panels.ms(_value(mine, "delay_p99"), language)),
                Cell(panels.count(misses)),
                Cell(panels.value("", up, "1", language)),
                Cell(panels.count(failures)),
            )
            order = (2.0 if up is None else up, 2.0 if share is None else share, path)
            lines.append((order, Entry(path, cells, session.address("/asset", path))))
        self._table.show([line for _, line in sorted(lines, key=lambda line: line[0])])


class Handover(NamedTuple):
    """A device went from one cell to another."""

    t_ns: int
    asset: str
    before: str
    after: str


def handovers(camped: Mapping[str, Sequence[CellSpan]]) -> list[Handover]:
    """Changes of cell, the newest first."""
    found = [
        Handover(after.start_ns, asset, before.cell, after.cell)
        for asset, spans in camped.items()
        for before, after in itertools.pairwise(spans)
        if before.cell != after.cell
    ]
    return sorted(found, key=lambda one: (-one.t_ns, one.asset))


class _Cells:
    """Who is in which cell, and when that changed."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._key: object = None
        say = session.say
        self._panel = Panel(say("net.cells"), wide=True)
        with self._panel, box("v-split v-even"):
            self._now = Table(
                [Column(say("truth.asset")), Column(say("net.cell")),
                 Column(say("area.since"), number=True), Column(say("net.changes"), number=True)]
            )  # fmt: skip
            with box("v-list"):
                self._past = Table(
                    [
                        Column(panels.local(session, "net.when")),
                        Column(say("truth.asset")), Column(say("net.handover")),
                    ]
                )  # fmt: skip
        session.on_tick(self.update)

    async def update(self) -> None:
        session, t_ns = self._session, panels.paced(self._session)
        key = t_ns // (10 * NS_PER_S)
        if key == self._key:
            return
        self._key = key
        from_ns = max(session.reader.start_ns, t_ns - _TRACE_NS)
        found = await to_thread(session.reader.camped, from_ns, t_ns)
        mine = {path: spans for path, spans in found.items() if session.sees(asset_of(path))}
        if not mine:
            self._panel.note(session.say("net.no_trace"))
            return
        self._panel.note()
        changes = handovers(mine)
        count = {path: sum(1 for one in changes if one.asset == path) for path in mine}
        now = sorted(mine.items(), key=lambda item: (-count[item[0]], item[0]))
        self._now.show(
            [
                Entry(path, (
                    Cell(path.partition("/")[2]), Cell(spans[-1].cell),
                    Cell(words.age(t_ns - spans[-1].start_ns, session.language)),
                    Cell(panels.count(count[path])),
                ))
                for path, spans in now
            ]
        )  # fmt: skip
        zone = session.reader.zone
        self._past.show(
            [
                Entry(f"{one.asset}{one.t_ns}", (
                    Cell(panels.when(one.t_ns, zone)), Cell(one.asset.rpartition("/")[2]),
                    Cell(f"{one.before} → {one.after}"),
                ))
                for one in changes[:HANDOVERS]
            ]
        )  # fmt: skip


class _RealPath:
    """The steps of the real path, by this host's clock."""

    def __init__(self, session: Session) -> None:
        self._session = session
        say = session.say
        self._panel = Panel(say("net.real"))
        with self._panel:
            self._table = Table(
                [Column(say("net.step")), Column("n", number=True),
                 *(Column(name, number=True) for name in ("p50", "p99")),
                 Column(say("net.max"), number=True)]
            )  # fmt: skip
            Text(say("net.real_text"), "v-note", "p")
        session.on_tick(self.update)

    async def update(self) -> None:
        session = self._session
        found = await to_thread(session.reader.hops)
        self._panel.note("" if found else session.say("net.no_hops"))
        entries: list[Entry] = []
        for step, told in found.items():
            key = f"hop.{step}"
            name = session.say(key) if key in words.WORDS else step
            times = (Cell(f"{console.number(told.get(k))} ms") for k in
                     ("p50_ms", "p99_ms", "max_ms"))  # fmt: skip
            entries.append(Entry(step, (Cell(name), Cell(panels.count(told.get("n"))), *times)))
        self._table.show(entries)


def build(session: Session) -> None:
    """The network of the site."""
    say = session.say
    infos = [i for i in session.reader.assets() if i.kind in OBSERVERS and session.sees(i.asset)]
    with panels.view("network"):
        with box("v-top"):
            Text(say("view.network"), "v-here", "h1")
            spans = spans_of(session)
        if infos:
            _Distribution(session, infos, spans)
            _Reporters(session, infos)
        _RealPath(session)
        _Service(session)
        _Cells(session)


VIEWS = (View("/network", "view.network", "⌁", build),)
