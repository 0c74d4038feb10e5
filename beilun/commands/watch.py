"""The live KPI table of a recording, worst first, read while the run writes it.

What is worst is one order over all KPIs:

1. a target of the scenario is missed, the farthest first, or has no data: no data meets no target;
2. the asset fell silent: not one sample came in the window, and it used to send some;
3. by where a value stands between best and worst, in its KPI's own direction: those that can be,
   or where a KPI has no bounds, those that are on the screen and in its sparklines;
4. neither direction is better, or the KPI is not defined in this window.

Above all of them are the alarms that stand, whatever windows and KPIs are shown.
"""

import contextlib
import io
import json
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from beilun import console
from config.alarms import PREFIX, SEVERITIES
from config.errors import ConfigError, Exit, RecordingError
from config.units import NS_PER_S, format_duration, format_time
from config.windows import Order, Span, Window, lengths_of, lies, spelt, window
from edge.rows import ORDER_NUMBER

if TYPE_CHECKING:
    from config.scenario import Expect

_Row = tuple[int, int, float | None, int, int]
"""Start, length, value, n, late."""

REDRAW_S = 0.25
SHOWN = 20
"""How many windows a sparkline shows."""

SERIES = """
SELECT id, site, area, line, asset, kpi, unit, window_length_ns FROM series
"""
ALARMS = f"{SERIES} WHERE kpi GLOB '{PREFIX}*'"
LAST = """
SELECT window_start_ns, value, n, late FROM row
WHERE series = ? ORDER BY window_start_ns DESC LIMIT ?
"""
"""An index seek: the primary key is (series, window_start_ns)."""
ORDERS = """
SELECT site, area, line, asset, window_length_ns, window_start_ns FROM kpi_rows WHERE kpi = ?
"""

SHORT = 10
MISSED, SILENT = "!", "?"
"""Marks of a line: its target is missed, its asset was silent."""


@dataclass(frozen=True, slots=True)
class Line:
    """The last closed window of one KPI of one asset, and its history, oldest first."""

    asset: str
    kpi: str
    unit: str
    end_ns: int
    value: float | None
    n: int
    late: int
    history: tuple[float | None, ...]
    silent: bool = False
    """Whether the asset fell silent: there was no sample, and it used to send some."""
    target: str = ""
    """What the scenario expects, like ``≥0.600``."""
    badness: tuple[int, float] = (3, 0.0)
    """Place in the order of the worst, smaller is worse."""

    @property
    def mark(self) -> str:
        """One character that says what is wrong, if anything."""
        return {0: MISSED, 1: SILENT}.get(self.badness[0], "")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which rows are shown: windows of one kind, KPIs and assets by glob."""

    window: Window
    kpi: str = "*"
    asset: str = "*"


class Alarm(NamedTuple):
    """One that stands."""

    severity: str
    """Empty where the recording does not know its rule."""
    rule: str
    asset: str
    since_ns: int

    def text(self, end_ns: int) -> str:
        """On a line, as of a time."""
        lasted = format_duration(max(0, end_ns - self.since_ns))
        since = f"since {format_time(self.since_ns)}, {lasted}"
        return f"▲ {self.severity:8}  {self.rule}  {self.asset}  {since}"


@dataclass(frozen=True, slots=True)
class Look:
    """What one look into the file found; ``end_ns`` is as far as virtual time has come."""

    lines: Sequence[Line]
    """Worst first."""
    end_ns: int
    finished: bool
    alarms: Sequence[Alarm] = ()
    """The most severe first, then the latest."""


def command(
    file: Annotated[
        Path | None, typer.Argument(help="A recording.", show_default="newest in runs/")
    ] = None,
    window: Annotated[
        str, typer.Option(help="The windows shown: 1m, 1h/5m, shift, day, order ...")
    ] = "1m",
    kpi: Annotated[str, typer.Option(help="Only KPIs like this (a glob).")] = "*",
    asset: Annotated[str, typer.Option(help="Only assets with a name like this (a glob).")] = "*",
    once: Annotated[bool, typer.Option("--once", help="Print one table and end.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Append lines, redraw nothing.")] = False,
) -> Exit:
    """Show the last value of every KPI, worst first; on a terminal, `?` tells the keys."""
    try:
        label = spelt(window)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--window") from None
    path = file or newest()
    with contextlib.closing(_open(path)) as db:
        chosen = Chosen(_kind(db, path, label), kpi, asset)
        if once:
            seen = look(db, path, chosen)
            _require(db, seen, chosen, path)
            _print(seen, heading(path, seen, chosen.window))
        else:
            follow = _show if console.is_terminal(sys.stdout) and not plain else _append
            with contextlib.suppress(KeyboardInterrupt):  # the way to end it, not an accident
                follow(db, path, chosen)
    return Exit.OK


def newest() -> Path:
    """The recording written to last, in the run directory."""
    from config import settings

    directory = settings.load().run.directory
    found = [path for path in directory.glob("*.beilun") if _is_database(path)]
    if not found:
        raise ConfigError(
            "no recording yet", at=str(directory), hint="`beilun run quickstart` makes one"
        )
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def _is_database(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(15) == b"SQLite format 3"


def look(db: sqlite3.Connection, path: Path, chosen: Chosen) -> Look:
    """Read the last windows of every series; a file without tables yet has none."""
    lines: list[Line] = []
    done = False
    try:
        done = db.execute("SELECT 1 FROM meta WHERE key = 'finished'").fetchone() is not None
        meant, others = _expected(db, path, chosen.window)
        expected = [*meant, *others]
        site = ""
        for (site, area, line, asset, kpi, unit), rows in _rows(db, chosen).items():
            start_ns, length_ns, value, n, late = rows[0]
            names = [level for level in (area, line, asset) if level != "-"]
            history = tuple(row[2] for row in reversed(rows))
            end_ns, place = start_ns + length_ns, "/".join((site, *names))
            expect = next((e for e in expected if e.kpi == kpi and e.matches(place)), None)
            made = Line("/".join(names) or "site", kpi, unit, end_ns, value, n, late, history,
                        _fell_silent([row[3] for row in rows]))  # fmt: skip
            lines.append(made if expect is None else _held(made, expect, own=expect in meant))
        alarms = _standing(db, path, chosen.asset)
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return Look((), 0, done)
        raise RecordingError(str(error), at=str(path)) from None
    except sqlite3.DatabaseError as error:
        raise RecordingError(f"not readable as a recording: {error}", at=str(path)) from None
    lines = _judged(lines)
    lines.sort(key=lambda line: (*line.badness, line.kpi, line.asset))
    return Look(lines, max((line.end_ns for line in lines), default=0), done, alarms)


def _standing(db: sqlite3.Connection, path: Path, whose: str) -> list[Alarm]:
    """Alarms that stand after all windows so far: the last row of each says so."""
    from beilun.alarming import recorded_rules
    from ingest.recording import Recording

    last: dict[tuple[str, ...], tuple[int, float | None]] = {}
    for number, *names, length_ns in db.execute(ALARMS).fetchall():
        key = tuple(names[:5])
        for start_ns, value, _, _ in db.execute(LAST, (number, 1)):
            # Shifts and days are of several lengths, each a series of its own.
            last[key] = max(last.get(key, (0, None)), (start_ns + length_ns, value))
    rules = recorded_rules(Recording(path, db, writes=False)) if last else ()
    severities: dict[str, str] = {rule.name: rule.severity for rule in rules}
    found: list[Alarm] = []
    for (_, *levels, kpi), (since_ns, value) in last.items():
        names = [level for level in levels if level != "-"]
        if value == 1.0 and fnmatchcase(names[-1] if names else "site", whose):
            rule = kpi.removeprefix(PREFIX)
            place = "/".join(names) or "site"
            found.append(Alarm(severities.get(rule, ""), rule, place, since_ns))
    ranks: dict[str, int] = {severity: rank for rank, severity in enumerate((*SEVERITIES, ""))}
    return sorted(found, key=lambda each: (ranks[each.severity], -each.since_ns, each))


def _expected(
    db: sqlite3.Connection, path: Path, kind: Window
) -> "tuple[list[Expect], list[Expect]]":
    """What the scenario expects of these windows, and what it expects of others. The latter is no
    verdict, but a target all the same where the KPI is a share or a rate: an amount grows with its
    window."""
    from beilun.composing import recorded_policy, recorded_scenario
    from config.windows import longest
    from edge import kpis
    from ingest.recording import Recording

    recording = Recording(path, db, writes=False)
    expected, _ = recorded_scenario(recording)
    if not expected:
        return [], []
    run = longest(recorded_policy(recording).windows).label
    meant = [e for e in expected if (run if e.window == "run" else e.window) == kind.label]
    rates = {name for name, kpi in kpis.load().items() if kpi.unit == "1" or "/" in kpi.unit}
    return meant, [e for e in expected if e not in meant and e.kpi in rates]


_SIGNS = {">=": "≥", "<=": "≤", "==": "=", ">": ">", "<": "<"}


def _held(line: Line, expect: "Expect", *, own: bool) -> Line:
    """A line with its target, and by which share of it that is missed. Without data the target is
    missed where it is ``own``, one for these very windows."""
    bounds = [console.number(bound) for bound in expect.value]
    target = "–".join(bounds) if expect.op == "between" else _SIGNS[expect.op] + bounds[0]
    line = replace(line, target=target)
    value = line.value
    if value is None:
        return replace(line, badness=(0, float("-inf"))) if own else line
    if expect.holds(value):
        return line
    nearest = min(expect.value, key=lambda bound: abs(value - bound))
    return replace(line, badness=(0, -abs(value - nearest) / (abs(nearest) or 1.0)))


def _fell_silent(counts: Sequence[int]) -> bool:
    """Whether there are no samples now, newest first, and there used to be some in most windows.
    What tells only now and then, as a crew does, is not silent when it has nothing to tell."""
    spoke = next((place for place, n in enumerate(counts) if n), len(counts))
    before = counts[spoke:]
    return spoke > 0 and (not before or 2 * sum(n > 0 for n in before) > len(before))


def _judged(lines: Sequence[Line]) -> list[Line]:
    """Lines with their place in the order of the worst."""
    from edge import kpis

    known = kpis.load()
    seen: dict[str, list[float]] = {}
    for line in lines:
        seen.setdefault(line.kpi, []).extend(v for v in line.history if v is not None)

    def place(line: Line) -> tuple[int, float]:
        if line.badness[0] == 0:
            return line.badness
        if line.silent:
            return 1, 0.0
        kpi = known.get(line.kpi)
        if line.value is None or kpi is None or not kpi.better:
            return 3, 0.0
        least, greatest = kpi.range
        if least is None or greatest is None:
            least, greatest = min(seen[line.kpi]), max(seen[line.kpi])
        share = (line.value - least) / ((greatest - least) or 1.0)
        return 2, share - 1.0 if kpi.better == "up" else -share

    return [replace(line, badness=place(line)) for line in lines]


def _rows(db: sqlite3.Connection, chosen: Chosen) -> dict[tuple[str, ...], list[_Row]]:
    """The last rows of each KPI of each asset, newest first. A day or shift may be of any length
    that its clocks give it, and an order of any at all, so they are in several series."""
    kind = chosen.window
    orders: set[tuple[str, str, str, str, int, int]] = set()
    if isinstance(kind, Order):
        orders.update(db.execute(ORDERS, (ORDER_NUMBER,)))
    lengths = {order[4] for order in orders} or lengths_of(kind)
    found: dict[tuple[str, ...], list[_Row]] = {}
    for number, *names, length_ns in db.execute(SERIES).fetchall():
        site, area, line, asset, kpi, _ = names
        own = next((level for level in (asset, line, area) if level != "-"), "site")
        if length_ns not in lengths or kpi.startswith(PREFIX):  # alarms stand above
            continue
        if not (fnmatchcase(kpi, chosen.kpi) and fnmatchcase(own, chosen.asset)):
            continue
        for start_ns, *rest in db.execute(LAST, (number, SHOWN)):
            if isinstance(kind, Order):
                meant = (site, area, line, asset, length_ns, start_ns) in orders
            else:
                span = Span(start_ns, start_ns + length_ns)
                meant = kpi != ORDER_NUMBER and lies(kind, span)
            if meant:
                row = (start_ns, length_ns, *rest)
                found.setdefault(tuple(names), []).append(row)
    return {key: sorted(rows, reverse=True)[:SHOWN] for key, rows in found.items()}


def _kind(db: sqlite3.Connection, path: Path, label: str) -> Window:
    """The windows of a label, days and shifts by the calendar the recording was made with."""
    from config.scenario import EdgeSettings

    try:
        found = db.execute("SELECT value FROM meta WHERE key = 'edge'").fetchone()
    except sqlite3.OperationalError:
        found = None  # nothing is in it yet
    except sqlite3.DatabaseError as error:
        raise RecordingError(f"not readable as a recording: {error}", at=str(path)) from None
    settings = EdgeSettings() if found is None else EdgeSettings.model_validate_json(found[0])
    return window(label, settings.zone, settings.shifts)


Column = tuple[str, Callable[[Line, int], object]]
"""Its name, and what it shows of a line at a time."""
_MARK: Column = ("", lambda line, _: line.mark)
_KPI: Column = ("kpi", lambda line, _: line.kpi)
_LAST: Column = ("last", lambda line, _: line.value)
_TARGET: Column = ("target", lambda line, _: line.target)
_OWN: Column = ("asset", lambda line, _: line.asset.rpartition("/")[2])
_SPARKS: Column = (f"last {SHORT}", lambda line, _: console.sparkline(line.history[-SHORT:]))
_AGE: Column = ("age", lambda line, end_ns: format_duration(end_ns - line.end_ns))
LAYOUTS: Sequence[Sequence[Column]] = (
    (
        _MARK,
        ("asset", lambda line, _: line.asset),
        _KPI,
        _LAST,
        _TARGET,
        ("unit", lambda line, _: line.unit),
        (f"last {SHOWN}", lambda line, _: console.sparkline(line.history)),
        ("n", lambda line, _: line.n),
        ("late", lambda line, _: line.late),
        _AGE,
    ),
    (_MARK, _OWN, _KPI, _LAST, _TARGET, _SPARKS, _AGE),
    (_MARK, _OWN, _KPI, _LAST, _SPARKS),
)
"""From wide to narrow: a terminal shows the first that fits, so that no line is cut or wraps."""
GAP = 2
"""Blanks between two columns."""


class Grid(NamedTuple):
    """Lines as cells of one layout, and how wide its columns have to be for all of them."""

    columns: tuple[str, ...]
    rows: list[tuple[object, ...]]
    widths: tuple[int, ...]


def grid(lines: Sequence[Line], end_ns: int, width: int) -> Grid:
    """Columns and lines as a terminal of this width can show them."""
    made = Grid((), [], ())
    for layout in LAYOUTS:
        columns = tuple(name for name, _ in layout)
        rows = [tuple(show(line, end_ns) for _, show in layout) for line in lines]
        widths = tuple(
            max([len(name), *(len(console.cell(row[place])) for row in rows)])
            for place, name in enumerate(columns)
        )
        made = Grid(columns, rows, widths)
        if sum(widths) + GAP * len(widths) <= width:
            break
    return made


def _print(seen: Look, title: str) -> None:
    terminal = console.is_terminal(sys.stdout)
    width = shutil.get_terminal_size().columns if terminal else sys.maxsize
    made = grid(seen.lines, seen.end_ns, width)
    console.out(*(each.text(seen.end_ns) for each in seen.alarms))
    console.table(made.columns, made.rows, title)


def heading(path: Path, seen: Look, window: Window) -> str:
    """The line above the table."""
    if not seen.lines:
        return f"{path}: no {window.label} window has closed yet"
    at = format_time(seen.end_ns)
    return f"{path}: {window.label} windows up to {at}" + (", finished" if seen.finished else "")


def _open(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise RecordingError("no such file", at=str(path), hint="`beilun run` makes one")
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def _require(db: sqlite3.Connection, seen: Look, chosen: Chosen, path: Path) -> None:
    """A table without a line is explained: which windows are there."""
    if seen.lines:
        return
    try:
        rows = db.execute("SELECT DISTINCT window_length_ns FROM series").fetchall()
        found = db.execute("SELECT value FROM meta WHERE key = 'edge'").fetchone()
    except sqlite3.OperationalError:
        rows, found = [], None
    names = [format_duration(row[0]) for row in sorted(rows)]
    if rows and found is not None:
        names = json.loads(found[0])["windows"]
    labels = ", ".join(names)
    raise RecordingError(
        f"no window of {chosen.window.label} of what was asked in it",
        at=str(path),
        hint=f"it has windows of {labels}" if labels else "no window has closed yet",
    )


def _append(db: sqlite3.Connection, path: Path, chosen: Chosen) -> None:
    told: dict[tuple[str, str], int] = {}
    while True:
        seen = look(db, path, chosen)
        for line in sorted(seen.lines, key=lambda line: (line.end_ns, line.asset, line.kpi)):
            if told.get((line.asset, line.kpi)) != line.end_ns:
                told[line.asset, line.kpi] = line.end_ns
                value = console.number(line.value)
                console.out(
                    f"{format_time(line.end_ns)}  {line.asset}  {line.kpi}  {value} {line.unit}"
                )
        sys.stdout.flush()
        if seen.finished:
            return
        time.sleep(REDRAW_S)


# on a terminal ----------------------------------------------------------------------------------


def _by_value(line: Line) -> Any:
    return line.value is None, line.value or 0.0


ORDERS_OF: Mapping[str, tuple[str, Callable[[Line], Any]]] = {
    "w": ("worst first", lambda line: line.badness),
    "a": ("by asset", lambda line: line.asset),
    "k": ("by KPI, worst first", lambda line: (line.kpi, *line.badness)),
    "v": ("by value", _by_value),
    "l": ("most late samples first", lambda line: -line.late),
    "o": ("oldest first", lambda line: line.end_ns),
}
"""Key -> name of an order, and what it sorts by; the worst come first among equals."""
HELP = (
    ("s", "the next order; S the one before"),
    (" ".join(ORDERS_OF), ", ".join(name for name, _ in ORDERS_OF.values())),
    ("r", "the same order, reversed"),
    ("/", "show lines with these words only (asset, KPI, unit); Enter keeps, Esc clears"),
    ("p", "pause: keep what is shown; again to go on"),
    ("↑ ↓ PgUp PgDn Home End", "scroll"),
    ("?", "this help; any key leaves it"),
    ("q", "quit, as Ctrl-C does"),
    (MISSED, "marks a line whose target is missed, or has no data"),
    (SILENT, "marks a line whose asset sent nothing in the window"),
    ("▲", "an alarm that stands, and since when"),
    ("·  –", "no data in a window; it is never 0 instead"),
)


@dataclass(slots=True)
class Board:
    """What a person looks at: an order, a filter, a place; keys change it, ``frame`` shows it."""

    path: Path
    chosen: Chosen
    seen: Look = field(default_factory=lambda: Look((), 0, False))
    silent_s: float = 0.0
    """For how long nothing was written to the recording."""
    order: str = "w"
    reverse: bool = False
    words: str = ""
    typing: bool = False
    paused: bool = False
    help: bool = False
    quit: bool = False
    top: int = 0
    room: int = 1
    """Lines of the table that fit."""
    pressed: int = 0
    """How many keys were."""

    def press(self, key: str) -> None:
        """One key, by its name."""
        self.pressed += 1
        if self.help:
            self.help = False
            self.quit = key == "q"
        elif self.typing:
            self._type(key)
        elif key in ORDERS_OF:
            self.order, self.top = key, 0
        elif key in ("s", "S"):
            orders = list(ORDERS_OF)
            step = 1 if key == "s" else -1
            self.order, self.top = orders[(orders.index(self.order) + step) % len(orders)], 0
        else:
            match key:
                case "q":
                    self.quit = True
                case "r":
                    self.reverse, self.top = not self.reverse, 0
                case "p":
                    self.paused = not self.paused
                case "?":
                    self.help = True
                case "/":
                    self.typing = True
                case "escape":
                    self.words = ""
                case _:
                    self._scroll(key)

    def _type(self, key: str) -> None:
        match key:
            case "enter":
                self.typing = False
            case "escape":
                self.typing, self.words = False, ""
            case "backspace":
                self.words = self.words[:-1]
            case _ if len(key) == 1 and key.isprintable():
                self.words += key
            case _:
                self._scroll(key)
        self.top = 0 if key not in _SCROLLS else self.top

    def _scroll(self, key: str) -> None:
        if key in _SCROLLS:
            step = {"up": -1, "down": 1, "page up": -self.room, "page down": self.room}
            self.top = {"home": 0, "end": sys.maxsize}.get(key, self.top + step.get(key, 0))

    def lines(self) -> list[Line]:
        """The lines of the filter, in the order."""
        words = self.words.casefold().split()
        wanted = [
            line
            for line in self.seen.lines
            if all(w in f"{line.asset} {line.kpi} {line.unit}".casefold() for w in words)
        ]
        return sorted(wanted, key=ORDERS_OF[self.order][1], reverse=self.reverse)

    def frame(self, width: int, height: int) -> list[str]:
        """The screen, line by line; none is wider, and there are no more than fit."""
        found = self.lines()
        alarms = self._alarms(height // 4)
        self.room = max(1, height - 3 - len(alarms))
        self.top = max(0, min(self.top, len(found) - self.room))
        if self.help:
            rows: list[tuple[object, ...]] = [*HELP]
            body = _drawn(Grid(("key", "does"), rows, ()), width)
        else:
            made = grid(found, self.seen.end_ns, width)
            body = _drawn(made._replace(rows=made.rows[self.top : self.top + self.room]), width)
        title = heading(self.path, self.seen, self.chosen.window) + self.silence
        over = [_cut(line, width) for line in (title, *alarms)]
        head = [*over, *body[: height - 1 - len(over)]]
        return [*head, *[""] * (height - 1 - len(head)), self._foot(found, width)][:height]

    def _alarms(self, most: int) -> list[str]:
        """Alarms that stand, on at most so many lines."""
        told = [each.text(self.seen.end_ns) for each in self.seen.alarms]
        if len(told) <= most:
            return told
        return [*told[: most - 1], f"▲ and {len(told) - most + 1} more alarms"] if most else []

    @property
    def silence(self) -> str:
        """What is said of a recording that should be written to and is not."""
        if self.seen.finished or self.paused or self.silent_s < SILENCE_S:
            return ""
        return f"; nothing was written for {format_duration(int(self.silent_s) * NS_PER_S)}"

    def _foot(self, found: Sequence[Line], width: int) -> str:
        if self.typing:
            return _cut(f"/{self.words}▏ {len(found)} lines   Enter keeps, Esc clears", width)
        last = min(len(found), self.top + self.room)
        parts = [
            f"{min(self.top + 1, last)}–{last} of {len(found)}",
            ORDERS_OF[self.order][0] + (", reversed" if self.reverse else ""),
            *([f"/{self.words}"] if self.words else []),
            *(["PAUSED"] if self.paused else []),
            "s order  / filter  p pause  ? help  q quit",
        ]
        return _cut("   ".join(parts), width)


_SCROLLS: Collection[str] = ("up", "down", "page up", "page down", "home", "end")
SILENCE_S = 5.0
"""A recording nobody wrote to for so long is said to be silent."""


def _drawn(made: Grid, width: int) -> list[str]:
    """Lines of a table, in the colours a terminal takes. Columns are as wide as all lines need, so
    that nothing jumps when one scrolls."""
    from rich.console import Console

    table = console.rich_table(made.columns, made.rows)
    table.box, table.padding = None, (0, GAP, 0, 0)
    for column, wanted in zip(table.columns, made.widths, strict=False):
        column.width, column.no_wrap = wanted, True
    for row, cells in zip(table.rows, made.rows, strict=True):
        row.style = {MISSED: "bold red", SILENT: "yellow"}.get(str(cells[0]))
    text = io.StringIO()
    colors = console.colors(sys.stdout)
    Console(file=text, width=width, force_terminal=colors, no_color=not colors).print(table)
    return text.getvalue().splitlines()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def _show(db: sqlite3.Connection, path: Path, chosen: Chosen) -> None:
    """The whole terminal, until ``q`` or a signal."""
    from beilun.terminal import Screen

    board = Board(path, chosen)
    version, due_s, heard_s = None, 0.0, time.monotonic()
    shown: object = None
    with Screen(sys.stdout, sys.stdin) as screen:
        while not (screen.ended or board.quit):
            now_s = time.monotonic()
            if now_s >= due_s and not board.paused:
                found = db.execute("PRAGMA data_version").fetchone()
                if found != version:
                    version, heard_s = found, now_s
                    board.seen = look(db, path, chosen)
                    # A large plant takes a while to read: the keys come first.
                    due_s = 2 * time.monotonic() - now_s
                board.silent_s = now_s - heard_s
            state = (version, board.pressed, screen.size, board.silence)
            if state != shown or screen.blank:
                screen.draw(board.frame(*screen.size))
                shown = state
            until_s = time.monotonic() + REDRAW_S
            while (rest_s := until_s - time.monotonic()) > 0 and not (screen.ended or board.quit):
                for key in screen.keys(rest_s):
                    board.press(key)
