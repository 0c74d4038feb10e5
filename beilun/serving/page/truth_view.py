"""What each KPI of a simulated run is off by: ours, the truth, the error, its bound, and why.

The simulator knows what really happened and computes every KPI of it with code that shares nothing
with the edge. So an error is shown beside the value and not estimated: the list has the worst
first, in bounds of each KPI (`edge.kpi.Accuracy`), and the dialog what it was over time and the
command that takes the value apart, down to the messages.
"""

import math
import shlex
from asyncio import to_thread
from collections.abc import Iterable
from typing import NamedTuple

from nicegui import ui

from beilun.serving.page import charts, panels, words
from beilun.serving.page.clock import Session
from beilun.serving.page.panels import Cell, Chart, Column, Entry, Panel, Table
from beilun.serving.page.shell import Text, View, box, button
from beilun.serving.page.tiles import path_of
from beilun.serving.reading import Reader
from config.units import format_duration, format_time
from edge import kpis
from edge.rows import Row

ORDER = "order"
"""Label of windows that may begin or end between two readings."""
_ROUNDING = 1e-9
"""Rows of two numpy releases agree to nine digits; below that nothing is an error."""
MOST = 200
"""Lines of the list."""


class Judged(NamedTuple):
    """A row against the truth."""

    truth: float | None
    error: float | None
    """Ours less the truth; ``None``: one of them does not exist."""
    bound: float | None
    """How far it may be off where no message is lost and no clock is wrong; ``None``: any."""
    known: bool = True
    """Whether the simulator said anything of it: it does once a run has ended."""

    @property
    def within(self) -> bool | None:
        """Whether the bound holds; ``None``: nothing to hold it against. Where only one side has a
        value, it does not."""
        if not self.known:
            return None
        if self.error is None:
            return None if self.truth is None else False
        if self.bound is None:
            return True
        return abs(self.error) <= self.bound + _ROUNDING * max(1.0, abs(self.truth or 0.0))

    @property
    def bounds(self) -> float:
        """How many bounds it is off, to sort by; an exact KPI that is off at all: infinitely."""
        if self.error is None or not self.known:
            return -1.0 if self.truth is None else math.inf
        scale = max(1.0, abs(self.truth or 0.0))
        if abs(self.error) <= _ROUNDING * scale:
            return 0.0
        return math.inf if self.bound == 0 else abs(self.error) / (self.bound or math.inf)


def judge(reader: Reader, row: Row, window: str) -> Judged:
    """A row against the truth. One look into the store."""
    start_ns, length_ns = row.window_start_ns, row.window_length_ns
    truth = reader.truth(row.asset, row.kpi, start_ns, length_ns)
    return judged(row, truth, window, known=truth is not None or row.value is None)


def judged(row: Row, truth: float | None, window: str, *, known: bool = True) -> Judged:
    """A row against a true value."""
    kpi = kpis.load().get(row.kpi)
    if truth is None or kpi is None:
        return Judged(truth, None, None, known and kpi is not None)
    bound = kpi.accuracy.within(truth, row.window_length_ns if window == ORDER else None)
    return Judged(truth, None if row.value is None else row.value - truth, bound)


def command_of(path: str, row: Row) -> str:
    """The command that explains a row of a recording, ready to be pasted into a terminal."""
    window = f"{format_time(row.window_start_ns)}+{format_duration(row.window_length_ns)}"
    return " ".join(
        ["beilun kpis explain", row.kpi, shlex.quote(path),
         "--asset", shlex.quote(path_of(row.asset)), "--window", window]
    )  # fmt: skip


def error_cell(one: Judged | None, session: Session) -> Cell:
    """An error in a table: small ones plain, those beyond their bound marked."""
    if one is None or not one.known:
        return Cell("–", "muted", title=session.say("truth.unknown"))
    if one.error is None:
        if one.truth is None:
            return Cell("–", "muted", title=session.say("truth.undefined"))
        return Cell(f"✗ {session.say('truth.one_side')}", "bad")
    sign = "" if one.within else "✗ "
    return Cell(sign + error_text(one, session.language), "" if one.within else "bad")


def error_text(one: Judged, language: str) -> str:
    """An error for people: of the truth in percent where that is anything, else in its unit."""
    if one.error is None or one.truth is None:
        return "–"
    if abs(one.error) <= _ROUNDING * max(1.0, abs(one.truth)):
        return words.say("truth.none", language)
    if one.truth:
        return f"{one.error / abs(one.truth) * 100:+.2g} %"
    return f"{one.error:+.3g}"


# the dialog -------------------------------------------------------------------------------------


def show(session: Session, row: Row, window: str) -> None:
    """Open the dialog of a row, as it was when it was chosen, with the windows before it."""
    say, language = session.say, session.language
    with ui.dialog() as dialog, box("v-dialog"):
        Text(f"{session.kpi(row.kpi)} · {path_of(row.asset)}", "v-title", "h2")
        known = kpis.load().get(row.kpi)
        if known is not None:
            if (told := words.summary(row.kpi, language)) != row.kpi:
                Text(told, "v-muted", "p")
            Text(f"{known.formula}   [{known.clause}]", "v-code", "code")
        facts = box("v-facts", "dl")
        chart = Chart("v-chart", title=say("truth.history"))
        Text(say("truth.command"), "v-muted", "p")
        # Where the file lies is a matter of who runs this host.
        path = session.reader.path
        command = command_of(str(path) if session.role == "operator" else path.name, row)
        with box("v-command"):
            Text(command, "v-code", "code")
            button(say("truth.copy"), "", lambda: ui.clipboard.write(command))
        with box("v-actions"):
            panels.link(session, say("truth.go"), panels.place_of(path_of(row.asset)),
                        path_of(row.asset)).on("click", dialog.close)  # fmt: skip
            button(say("close"), "", dialog.close)
    dialog.on("hide", dialog.delete)

    async def fill() -> None:
        reader, t_ns = session.reader, session.t_ns
        found = await to_thread(judge, reader, row, window) if reader.simulated else None
        option = await to_thread(error_history, session, row, window, t_ns)
        if dialog.is_deleted:
            return
        end_ns = row.span.end_ns
        zone = reader.zone
        lines = [
            ("kpis.value", panels.value(row.kpi, row.value, row.unit, language)),
            *_verdict(found, row, session),
            ("truth.window", f"{panels.when(row.window_start_ns, zone)} – "
                             f"{panels.when(end_ns, zone)} ({charts.clock_of(zone, end_ns).name})"),
            ("truth.samples", say("truth.samples_text", n=f"{row.n:,}", late=f"{row.late:,}",
                                  revision=row.revision)),
        ]  # fmt: skip
        with facts:
            for key, text in lines:
                Text(say(key), "", "dt")
                Text(text, "", "dd")
        chart.show(option)

    ui.timer(0, fill, once=True)
    dialog.open()


def _verdict(found: Judged | None, row: Row, session: Session) -> list[tuple[str, str]]:
    say, language = session.say, session.language
    if found is None:
        return [("truth.truth", say("truth.foreign"))]
    if not found.known:
        return [("truth.truth", say("truth.unknown"))]
    truth = panels.value(row.kpi, found.truth, row.unit, language)
    error = error_text(found, language)
    if found.error:
        error += f"  ({found.error:+.6g})"
    bound = say("truth.any") if found.bound is None else f"± {found.bound:.6g}"
    if found.bound == 0:
        bound = say("truth.exact")
    verdict = {True: "truth.held", False: "truth.broken", None: "truth.undefined"}[found.within]
    return [("truth.truth", truth), ("truth.error", error),
            ("truth.bound", f"{bound} · {say(verdict)}")]  # fmt: skip


def error_history(session: Session, row: Row, window: str, t_ns: int) -> charts.Option:
    """Ours less the truth, window by window, with the bound on both sides. Reads the store."""
    reader = session.reader
    length_ns = max(row.window_length_ns, 1)
    from_ns = max(reader.start_ns, t_ns - 200 * length_ns)
    rows = reader.history(row.asset, row.kpi, window, from_ns, t_ns)
    truths = {
        (start_ns, length): value
        for start_ns, length, value in reader.truth_history(
            row.asset, row.kpi, window, from_ns, t_ns
        )
    }
    clock, look = charts.clock_of(reader.zone, t_ns), panels.look(session)
    share = words.is_share(row.kpi, row.unit)
    scale = 100.0 if share else 1.0
    errors: list[charts.Value] = []
    upper: list[charts.Value] = []
    for one in rows:
        where = one.window_start_ns, one.window_length_ns
        found = judged(one, truths.get(where), window, known=where in truths)
        end_ns = where[0] + where[1]
        errors.append(charts.Value(where[0], end_ns, _scaled(found.error, scale)))
        upper.append(charts.Value(where[0], end_ns, _scaled(found.bound, scale)))
    lower = [one._replace(value=_scaled(one.value, -1.0)) for one in upper]
    lines = [
        charts.Line(session.say("truth.error"), charts.stepped(errors, clock)),
        charts.Line(session.say("truth.bound"), charts.stepped(upper, clock), look.good, True),
        charts.Line(session.say("truth.bound_low"), charts.stepped(lower, clock), look.good, True),
    ]
    span = charts.Span(rows[0].window_start_ns if rows else from_ns, max(t_ns, from_ns + 1))
    unit = "%" if share else words.unit(row.unit, session.language)
    return charts.history(lines, span, clock, look, unit=unit, zoom=False)


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else value * scale


# the list ---------------------------------------------------------------------------------------


def worst(reader: Reader, rows: Iterable[Row], window: str) -> list[tuple[Row, Judged]]:
    """Rows with their truth, those furthest beyond their bound first. Reads the store."""
    found = [(row, judge(reader, row, window)) for row in rows]
    return sorted(found, key=lambda item: (-item[1].bounds, item[0].kpi, item[0].asset))


def build(session: Session) -> None:
    """The list of all KPIs of the last windows."""
    say = session.say
    rows: dict[str, Row] = {}
    shown: list[Row] = []

    def chosen(key: str) -> None:
        if key in rows:
            show(session, rows[key], session.window)

    with panels.view("truth"), Panel(say("truth.title"), wide=True):
        summary = Text("", "v-lead", "p")
        table = Table(
            [
                Column(say("kpis.name")), Column(say("truth.asset")),
                Column(say("kpis.value"), number=True),
                Column(say("truth.truth"), number=True, minor=True),
                Column(say("truth.error"), number=True),
                Column(say("truth.bound"), number=True, minor=True),
            ],
            chosen,
        )  # fmt: skip

    async def update() -> None:
        reader, t_ns, window = session.reader, panels.paced(session), session.window
        if not reader.simulated:
            summary.text = say("truth.foreign")
            return
        last = await to_thread(reader.last, (), window, t_ns) if window else []
        if last == shown:  # of a truth that does not change
            return
        shown[:] = last
        found = await to_thread(worst, reader, last, window)
        mine = [(row, one) for row, one in found if session.sees(row.asset)]
        told = [one for _, one in mine if one.within is not None]
        if told:
            held = sum(1 for one in told if one.within)
            same = sum(1 for one in told if one.bounds == 0)
            panels.put(summary, say("truth.summary", n=len(told), held=held, same=same,
                                    window=window))  # fmt: skip
        else:
            panels.put(summary, say("truth.unknown"))
        rows.clear()
        entries: list[Entry] = []
        for row, one in mine[:MOST]:
            key = f"{path_of(row.asset)}|{row.kpi}"
            rows[key] = row
            entries.append(_entry(key, row, one, session))
        table.show(entries)

    session.on_tick(update)


def _entry(key: str, row: Row, one: Judged, session: Session) -> Entry:
    language = session.language
    bound = "" if one.truth is None else (
        session.say("truth.any") if one.bound is None
        else session.say("truth.exact") if not one.bound
        else f"± {panels.value(row.kpi, one.bound, row.unit, language)}"
    )  # fmt: skip
    return Entry(
        key,
        (
            Cell(session.kpi(row.kpi), title=row.kpi),
            Cell(path_of(row.asset).partition("/")[2] or row.asset.site),
            Cell(panels.value(row.kpi, row.value, row.unit, language)),
            Cell(panels.value(row.kpi, one.truth, row.unit, language)),
            error_cell(one, session),
            Cell(bound, "muted"),
        ),
    )


VIEWS = (View("/truth", "view.truth", "≈", build),)
