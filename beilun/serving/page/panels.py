"""What views are built of: panels, tables, charts, crumbs; each brought up to date in place.

Nothing here is built twice: a table keeps its lines and changes the cells that differ, a chart is
sent again only if its option is another one. So a screen that nobody touches costs nothing, the
keyboard stays where it was, and what somebody marked with the mouse stays marked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from functools import partial
from typing import NamedTuple, cast

from nicegui.element import Element

from beilun import console
from beilun.serving.page import charts, words
from beilun.serving.page.clock import Session
from beilun.serving.page.echart import EChart
from beilun.serving.page.shell import Text, box, button, palette
from config.units import NS_PER_S

TONES = ("good", "warn", "bad", "muted", "")


def look(session: Session) -> charts.Look:
    """Colours of charts in the theme of a session."""
    colours = palette(session)
    return charts.Look(
        text=colours.ink, muted=colours.muted, grid=colours.rule, surface=colours.raised,
        good=colours.good, warn=colours.warn, bad=colours.bad, on_state=colours.on_state,
        lines=colours.series, states=colours.states,
    )  # fmt: skip


def view(name: str) -> Element:
    """The box of a whole view."""
    return box(f"v-view v-{name}")


class Panel:
    """A titled part of a view; use ``with panel:`` to fill it, ``note`` to say what it lacks."""

    def __init__(self, title: str, *, wide: bool = False, classes: str = "") -> None:
        self.root = box(f"v-panel {'v-wide' if wide else ''} {classes}", "section")
        with self.root:
            self.head = box("v-head")
            with self.head:
                self.title = Text(title, "v-title", "h2")
                self.aside = Text("", "v-aside")
            self.body = box("v-body")
            self._note = Text("", "v-note", "p")
            self._note.set_visibility(False)

    def __enter__(self) -> Element:
        return self.body.__enter__()

    def __exit__(self, *error: object) -> None:
        self.body.__exit__(*error)  # pyright: ignore[reportUnknownMemberType] - not typed there

    def note(self, text: str = "", *, alone: bool = True) -> None:
        """Say something under the panel, in the place of what it holds if ``alone``."""
        put(self._note, text)
        self._note.set_visibility(bool(text))
        self.body.set_visibility(not (text and alone))


def put(element: Text, text: str) -> None:
    """Change a text, if it is another one."""
    if element.text != text:
        element.text = text


def tone(element: Element, name: str) -> None:
    """Give an element one of ``TONES``, which its text must say too."""
    wanted = f"v-{name}" if name else ""
    gone = " ".join(f"v-{other}" for other in TONES if other and other != name)
    element.classes(add=wanted, remove=gone)


# tables -----------------------------------------------------------------------------------------


class Column(NamedTuple):
    """One column of a table."""

    title: str
    number: bool = False
    """Numbers stand at the right."""
    minor: bool = False
    """Left out on a narrow screen."""


class Cell(NamedTuple):
    """What stands in a cell."""

    text: str
    tone: str = ""
    state: str = ""
    """A PackML state: its letter is put before the text, on its colour."""
    title: str = ""
    """Shown when the mouse rests on it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a table. ``key`` says which; where it leads, ``href`` is where."""

    key: str
    cells: tuple[Cell, ...]
    href: str = ""


class Table:
    """A native table; ``show`` brings it up to date. ``on_open`` gets the key of a line that was
    chosen by mouse or keyboard."""

    def __init__(
        self, columns: Sequence[Column], on_open: Callable[[str], object] | None = None
    ) -> None:
        self._columns = columns
        self._on_open = on_open
        self._lines: list[_Line] = []
        with box("v-scroll"), box("v-table", "table"):
            with box("", "thead"), box("", "tr"):
                for column in columns:
                    Text(column.title, _classes(column), "th")
            self._body = box("", "tbody")

    def show(self, entries: Sequence[Entry]) -> None:
        """These lines, in this order."""
        for place, entry in enumerate(entries):
            if place == len(self._lines):
                with self._body:
                    self._lines.append(_Line(self._columns, self._on_open))
            self._lines[place].show(entry)
        for line in self._lines[len(entries) :]:
            line.row.delete()
        del self._lines[len(entries) :]


def _classes(column: Column) -> str:
    return f"{'v-number' if column.number else ''} {'v-minor' if column.minor else ''}"


class _Line:
    def __init__(self, columns: Sequence[Column], on_open: Callable[[str], object] | None) -> None:
        self._entry: Entry | None = None
        self.row = box("v-line" if on_open else "", "tr")
        self._signs: list[Text] = []
        self._texts: list[Text] = []
        self._cells: list[Element] = []
        with self.row:
            for place, column in enumerate(columns):
                cell = box(_classes(column), "td")
                self._cells.append(cell)
                with cell:
                    self._signs.append(Text("", "v-sign"))
                    self._signs[-1].set_visibility(False)
                    link = place == 0 and on_open is not None
                    self._texts.append(Text("", "v-link" if link else "", "a" if link else "span"))
        if on_open is not None:
            self.row.on(
                "click",
                lambda: on_open(self._entry.key) if self._entry else None,
                args=[],
                js_handler="(e) => {if (!e.ctrlKey && !e.metaKey) {e.preventDefault(); emit()}}",
            )

    def show(self, entry: Entry) -> None:
        before, self._entry = self._entry, entry
        if before == entry:
            return
        if before is None or before.href != entry.href:
            self._texts[0].props["href"] = entry.href or "#"
        for place, cell in enumerate(entry.cells):
            if before is not None and before.cells[place] == cell:
                continue
            put(self._texts[place], cell.text)
            tone(self._texts[place], cell.tone)
            if cell.title != ("" if before is None else before.cells[place].title):
                self._cells[place].props["title"] = cell.title
            sign = self._signs[place]
            sign.set_visibility(bool(cell.state))
            if cell.state:
                put(sign, words.letter(cell.state))
                sign.style(f"background: var(--state-{cell.state.lower()}, var(--rule))")


# charts -----------------------------------------------------------------------------------------

REDRAWN_S = 2.0
"""While a replay plays, charts are drawn again no more often: at a hundredfold speed each tick
would change all of them, and a browser that draws nothing else answers nobody."""


def paced(session: Session) -> int:
    """The moment that charts show: while a replay plays, the last whole step before the one that
    is shown; else just that one."""
    clock = session.clock
    if not clock.playing:
        return clock.t_ns
    step_ns = max(1, round(REDRAWN_S * clock.speed * NS_PER_S))
    return max(clock.start_ns, clock.t_ns // step_ns * step_ns)


class Chart:
    """A chart that is drawn when it has something to show."""

    def __init__(self, classes: str = "v-chart", *, title: str = "") -> None:
        self.element = EChart({}, renderer="canvas").classes(classes)
        self.element.props["role"] = "img"
        if title:
            self.element.props["aria-label"] = title
        self._option: charts.Option = {}

    def show(self, option: charts.Option) -> None:
        """Draw this, unless it is drawn already."""
        if option == self._option:
            return
        self._option = option
        # Set as any other property, each of its lists would be wrapped to be watched for changes:
        # 0.4 s for six lines of 4,000 points, in which the page would answer nobody.
        plain = cast(dict[str, charts.Option], self.element.props)
        dict[str, charts.Option].__setitem__(plain, "options", option)
        self.element.update()


# where one is -----------------------------------------------------------------------------------


def place_of(focus: str) -> str:
    """Which view is about it: ``/asset`` of a machine, ``/area`` of a group of them."""
    return "/asset" if focus.count("/") >= 3 else "/area"


def crumbs(session: Session, focus: str) -> None:
    """The way from the site to here, each step a link."""
    levels = (focus or session.reader.site).split("/")
    with box("v-crumbs", "nav"):
        for depth in range(1, len(levels) + 1):
            path = "/".join(levels[:depth])
            if depth > 1:
                Text("›", "v-muted")
            if depth == len(levels):
                Text(levels[-1], "v-here", "h1")
            else:
                link(session, levels[depth - 1], "/area", path if depth > 1 else "")


def link(session: Session, text: str, path: str, focus: str = "") -> Text:
    """A link to a view, which the browser may also open in another tab."""
    made = Text(text, "v-link", "a")
    made.props["href"] = session.address(path, focus)
    made.on(
        "click", lambda: session.go(path, focus), args=[],
        js_handler="(e) => {if (!e.ctrlKey && !e.metaKey) {e.preventDefault(); emit()}}",
    )  # fmt: skip
    return made


class Switch:
    """A row of buttons of which one is chosen."""

    def __init__(
        self, choices: Mapping[str, str], chosen: str, on_choice: Callable[[str], object]
    ) -> None:
        self.chosen = chosen
        self._on_choice = on_choice
        self._buttons: dict[str, Text] = {}
        with box("v-switch"):
            for key, text in choices.items():
                self._buttons[key] = button(text, "", partial(self._choose, key))
        self._mark()

    def _choose(self, key: str) -> None:
        self.chosen = key
        self._mark()
        self._on_choice(key)

    def _mark(self) -> None:
        for key, element in self._buttons.items():
            element.props["aria-pressed"] = "true" if key == self.chosen else "false"


# words ------------------------------------------------------------------------------------------


def value(kpi: str, number: float | None, unit: str, language: str) -> str:
    """A KPI's value for people, or with no KPI that of anything."""
    return words.text_of(number, unit, language, kpi=kpi)


def ms(number: float | None, language: str) -> str:
    """A delay; long ones in seconds."""
    if number is not None and number >= 1_000:
        return value("", number / 1_000, "s", language)
    return value("", number, "ms", language)


def count(value: float | None) -> str:
    """A whole number with its thousands apart; ``–`` where there is none."""
    return console.NO_DATA if value is None else f"{value:,.0f}"


def length(ns: float) -> str:
    """A length of time like ``1:05:09``, rounded to seconds; below a minute ``4.2 s``."""
    if abs(ns) < 60e9:
        return f"{ns / 1e9:.3g} s"
    whole = round(abs(ns) / 1e9)
    hours, rest = divmod(whole, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{'-' if ns < 0 else ''}{hours}:{minutes:02}:{seconds:02}"


def when(t_ns: int, zone: tzinfo) -> str:
    """Date and time of day in a zone."""
    return " ".join(words.clock(t_ns, zone))


def local(session: Session, key: str) -> str:
    """The title of times in a table, with the zone they are in."""
    offset = charts.clock_of(session.reader.zone, session.t_ns).name
    return f"{session.say(key)} ({offset})"
