"""What people and pipes see: results on stdout, narration on stderr, progress on a terminal."""

import contextlib
import json
import math
import os
import shutil
import sys
import time as wall
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from config.units import format_time

if TYPE_CHECKING:
    from rich.table import Table

NO_DATA = "–"
_BARS = "▁▂▃▄▅▆▇█"


class _Tone:
    """How much is told, and how; set once by ``cli.main``."""

    level = 0
    color = "auto"
    bar: "Progress | None" = None


def setup(*, level: int = 0, color: str = "auto") -> None:
    """``level`` -1 is quiet, 1 and 2 tell more; ``color`` is auto, always or never."""
    _Tone.level, _Tone.color = level, color


def colors(stream: TextIO) -> bool:
    """Whether a stream takes colours: a capable terminal without NO_COLOR, or told so."""
    if _Tone.color != "auto":
        return _Tone.color == "always"
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def is_terminal(stream: TextIO) -> bool:
    """Whether someone looks at it, with a screen that can be redrawn."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str, stream: TextIO) -> str:
    """Text in a colour where that is wanted; never the only sign of anything."""
    codes = {"good": "32", "bad": "31", "warn": "33", "dim": "2", "bold": "1"}
    return f"\x1b[{codes[style]}m{text}\x1b[0m" if colors(stream) else text


def number(value: float | None) -> str:
    """Three significant digits, whole numbers in full, `–` for no data.

    >>> [number(v) for v in (0.71349, 12.04, 1234.5, 7, 0.0, None, 0.00001234, 99.984)]
    ['0.713', '12.0', '1234', '7', '0', '–', '1.23e-05', '99.98']
    """
    if value is None or math.isnan(value):
        return NO_DATA
    if isinstance(value, int) or not value or math.isinf(value):
        return f"{value:g}" if isinstance(value, float) else str(value)
    rounded = float(f"{value:.3g}")
    if rounded == 100 and value < 100:
        # Nines count: 99.98 is not 100.
        digits = -math.floor(math.log10(100 - value))
        return f"{value:.{min(digits, 6)}f}"
    size = math.floor(math.log10(abs(rounded)))
    return f"{value:.2e}" if size < -4 else f"{value:.{max(0, 2 - size)}f}"


def time(t_ns: int | None) -> str:
    """An instant in UTC with Z, `–` where there is none."""
    return NO_DATA if t_ns is None else format_time(t_ns)


def sparkline(values: Sequence[float | None]) -> str:
    """One character a value, between the lowest and the highest; a dot where there is none.

    >>> sparkline([0, None, 1, 2])
    '▁·▅█'
    """
    there = [v for v in values if v is not None]
    low, high = min(there, default=0.0), max(there, default=0.0)
    span = high - low or 1.0
    return "".join("·" if v is None else _BARS[min(7, int((v - low) / span * 8))] for v in values)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """A table on stdout: ruled on a terminal, plain aligned text in a pipe."""
    body = [list(row) for row in rows]
    if is_terminal(sys.stdout):
        _ruled(columns, body, title)
        return
    lines = aligned(columns, body)
    out(*([title] if title else []), *lines)


def aligned(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a table: text left, numbers right, two blanks between."""
    right = [_is_numeric(rows, place) for place in range(len(columns))]
    cells = [list(columns), *([cell(value) for value in row] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    return [
        "  ".join(
            text.rjust(width) if flush else text.ljust(width)
            for text, width, flush in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    ]


def cell(value: object) -> str:
    """One cell as people read it."""
    if value is None:
        return NO_DATA
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int | float) else str(value)


def _is_numeric(rows: Sequence[Sequence[object]], place: int) -> bool:
    values = [row[place] for row in rows if row[place] is not None]
    return bool(values) and all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in values
    )


def rich_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = ""
) -> "Table":
    """The same table for rich."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(columns):
        right = _is_numeric(rows, place)
        made.add_column(name, justify="right" if right else "left", no_wrap=right)
    for row in rows:
        made.add_row(*(Text(cell(value)) for value in row))
    return made


def _ruled(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str) -> None:
    from rich.console import Console

    Console(no_color=not colors(sys.stdout)).print(rich_table(columns, rows, title))


def out(*lines: str) -> None:
    """Lines of result on stdout."""
    for line in lines:
        sys.stdout.write(line + "\n")


def ndjson(objects: Iterable[Mapping[str, object]]) -> None:
    """One JSON object a line on stdout, keys in the given order, ``null`` for no data."""
    for item in objects:
        out(json.dumps(item, ensure_ascii=False, allow_nan=False))


def note(text: str, level: int = 0) -> None:
    """Narration on stderr; ``level`` 1 needs ``-v``, 2 ``-vv``, and ``-q`` silences all."""
    if level <= _Tone.level:
        error(text)


def error(text: str) -> None:
    """What is told on stderr even when quiet."""
    bar = _Tone.bar
    if bar is not None:
        bar.clear()
    print(text, file=sys.stderr, flush=True)  # noqa: T201


class Progress:
    """How far a piece of work is; drawn on a terminal after one second, else told every 10 s."""

    def __init__(self, total: float, unit: str, stream: TextIO) -> None:
        self._total, self._unit, self._stream = total, unit, stream
        self._draws = is_terminal(stream)
        self._next_s = wall.monotonic() + (1.0 if self._draws else 10.0)
        self._drawn = False

    def update(self, done: float, text: str = "") -> None:
        """Tell how much is done; cheap to call often."""
        now_s = wall.monotonic()
        if now_s < self._next_s or _Tone.level < 0:
            return
        share = min(1.0, done / self._total) if self._total else 1.0
        told = f"{number(float(done))}/{number(float(self._total))} {self._unit}"
        if not self._draws:
            self._next_s = now_s + 10.0
            note("  ".join(filter(None, (f"{share:4.0%}", told, text))))
            return
        self._next_s = now_s + 0.25
        filled = round(share * 24)
        line = f"{'━' * filled}{'─' * (24 - filled)} {share:4.0%}  {told}  {text}"
        self.clear()
        self._stream.write(line[: shutil.get_terminal_size().columns - 1])
        self._stream.flush()
        self._drawn = True

    def clear(self) -> None:
        """Take the bar off the screen."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False


@contextmanager
def progress(total: float, unit: str) -> Generator[Progress, None, None]:
    """A progress bar for the block; it is gone when the block ends, however it ends."""
    bar = Progress(total, unit, sys.stderr)
    _Tone.bar = bar
    try:
        yield bar
    finally:
        _Tone.bar = None
        with contextlib.suppress(OSError):
            bar.clear()
