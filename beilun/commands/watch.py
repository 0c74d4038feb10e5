"""The live KPI table of a recording, read while the run writes it."""

import contextlib
import json
import shutil
import sqlite3
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer

from beilun import console
from config.errors import ConfigError, Exit, RecordingError
from config.units import NS_PER_S, format_duration, format_time
from config.windows import MINUTE_NS, Day, Order, Shift, Span, Window, spelt, window
from edge.rows import ORDER_NUMBER

_Row = tuple[int, int, float | None, int, int]
"""Start, length, value, n, late."""

REDRAW_S = 0.25
SHOWN = 20
"""How many windows a sparkline shows."""

SERIES = """
SELECT id, site, area, line, asset, kpi, unit, window_length_ns FROM series
"""
LAST = """
SELECT window_start_ns, value, n, late FROM row
WHERE series = ? ORDER BY window_start_ns DESC LIMIT ?
"""
"""An index seek: the primary key is (series, window_start_ns)."""
ORDERS = """
SELECT site, area, line, asset, window_length_ns, window_start_ns FROM kpi_rows WHERE kpi = ?
"""

COLUMNS = ("asset", "kpi", "last", "unit", f"last {SHOWN}", "n", "late", "age")
NARROW = 110
"""A terminal of fewer columns shows less of each line, so that none is cut or wraps."""
SHORT = 10
NARROW_COLUMNS = ("asset", "kpi", "last", "unit", f"last {SHORT}", "age")


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


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which rows are shown: windows of one kind, KPIs and assets by glob."""

    window: Window
    kpi: str = "*"
    asset: str = "*"


@dataclass(frozen=True, slots=True)
class Look:
    """What one look into the file found; ``end_ns`` is as far as virtual time has come."""

    lines: Sequence[Line]
    end_ns: int
    finished: bool


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
    """Show the last value of every KPI, no data and worst first, until the run ends."""
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
            follow = _redraw if console.is_terminal(sys.stdout) and not plain else _append
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
    better = _directions()
    lines: list[Line] = []
    done = False
    try:
        done = db.execute("SELECT 1 FROM meta WHERE key = 'finished'").fetchone() is not None
        for (area, line, asset, kpi, unit), rows in _rows(db, chosen).items():
            start_ns, length_ns, value, n, late = rows[0]
            name = "/".join(level for level in (area, line, asset) if level != "-") or "site"
            history = tuple(row[2] for row in reversed(rows))
            lines.append(Line(name, kpi, unit, start_ns + length_ns, value, n, late, history))
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return Look((), 0, done)
        raise RecordingError(str(error), at=str(path)) from None
    except sqlite3.DatabaseError as error:
        raise RecordingError(f"not readable as a recording: {error}", at=str(path)) from None

    def badness(line: Line) -> tuple[bool, str, float, str]:
        value = line.value or 0.0
        worst = {"up": value, "down": -value}.get(better.get(line.kpi, ""), 0.0)
        return line.value is not None, line.kpi, worst, line.asset

    lines.sort(key=badness)
    return Look(lines, max((line.end_ns for line in lines), default=0), done)


def _rows(db: sqlite3.Connection, chosen: Chosen) -> dict[tuple[str, ...], list[_Row]]:
    """The last rows of each KPI of each asset, newest first. A day or shift may be of any length
    that its clocks give it, and an order of any at all, so they are in several series."""
    kind = chosen.window
    orders: set[tuple[str, str, str, str, int, int]] = set()
    if isinstance(kind, Order):
        orders.update(db.execute(ORDERS, (ORDER_NUMBER,)))
    lengths = {order[4] for order in orders} or _lengths(kind)
    found: dict[tuple[str, ...], list[_Row]] = {}
    for number, *names, length_ns in db.execute(SERIES).fetchall():
        site, area, line, asset, kpi, _ = names
        own = next((level for level in (asset, line, area) if level != "-"), "site")
        if length_ns not in lengths:
            continue
        if not (fnmatchcase(kpi, chosen.kpi) and fnmatchcase(own, chosen.asset)):
            continue
        for start_ns, *rest in db.execute(LAST, (number, SHOWN)):
            if isinstance(kind, Order):
                meant = (site, area, line, asset, length_ns, start_ns) in orders
            else:
                span = Span(start_ns, start_ns + length_ns)
                meant = kpi != ORDER_NUMBER and span in kind.over(start_ns, start_ns + 1)
            if meant:
                row = (start_ns, length_ns, *rest)
                found.setdefault(tuple(names[1:]), []).append(row)
    return {key: sorted(rows, reverse=True)[:SHOWN] for key, rows in found.items()}


def _lengths(kind: Window) -> set[int]:
    """How long a window of this kind may be; clocks are changed by half an hour, one or two."""
    if isinstance(kind, Day | Shift):
        changes = (0, 1_800, 3_600, 7_200)
        spans = [(end - start) * MINUTE_NS for start, end in kind.shifts]
        return {span + sign * s * NS_PER_S for span in spans for s in changes for sign in (1, -1)}
    return {kind.nominal_ns}


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


def cells(seen: Look) -> list[tuple[object, ...]]:
    """The table of one look."""
    return [
        (
            line.asset,
            line.kpi,
            line.value,
            line.unit,
            console.sparkline(line.history),
            line.n,
            line.late,
            format_duration(seen.end_ns - line.end_ns),
        )
        for line in seen.lines
    ]


def view(seen: Look, width: int) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Columns and lines as a terminal of this width can show them."""
    if width >= NARROW:
        return COLUMNS, cells(seen)
    lines: list[tuple[object, ...]] = [
        (
            line.asset.rpartition("/")[2],
            line.kpi,
            line.value,
            line.unit,
            console.sparkline(line.history[-SHORT:]),
            format_duration(seen.end_ns - line.end_ns),
        )
        for line in seen.lines
    ]
    return NARROW_COLUMNS, lines


def _print(seen: Look, title: str) -> None:
    terminal = console.is_terminal(sys.stdout)
    columns, lines = view(seen, shutil.get_terminal_size().columns if terminal else sys.maxsize)
    console.table(columns, lines, title)


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


def _directions() -> dict[str, str]:
    from edge import kpis

    return {name: kpi.better for name, kpi in kpis.load().items()}


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


def _redraw(db: sqlite3.Connection, path: Path, chosen: Chosen) -> None:
    from rich.console import Console
    from rich.live import Live

    screen = Console(no_color=not console.colors(sys.stdout))
    with Live(console=screen, screen=True, auto_refresh=False) as live:
        while True:
            seen = look(db, path, chosen)
            room = max(1, screen.size.height - 6)
            columns, rows = view(seen, screen.size.width)
            title = heading(path, seen, chosen.window) + "   Ctrl-C ends"
            if len(rows) > room:
                title += f"   ({room} of {len(rows)} lines; --kpi and --asset narrow it)"
            live.update(console.rich_table(columns, rows[:room], title), refresh=True)
            if seen.finished:
                break
            time.sleep(REDRAW_S)
    _print(seen, heading(path, seen, chosen.window))
