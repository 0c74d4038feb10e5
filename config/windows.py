"""KPI windows of every kind and where they lie: on a grid, sliding, by calendar, by order.

Windows are half-open, ``[start, end)``, in nanoseconds since the epoch. Nothing here reads a clock.

    1m           |--|--|--|--|--|--|      the grid: multiples of the length since the epoch
    4m/1m        |--------|               sliding: 4 minutes long, one begins every minute
                    |--------|
    shift, day   |------|-------|---|     by the local time of a zone: on the day the clocks are put
                                          forward a day has 23 hours, and the night shift lost one
    order           |----------|   |--|   per machine: from the reading that begins an order to the
                                          one that ends it, exact to the nanosecond

A local time that the clocks skip is taken an hour later, one that they pass twice is taken the
first time, for the end of one window and the start of the next alike: windows that tile the clock
tile the time line. Days and shifts begin at whole minutes (all offsets in use since 1972 are).

This is in ``config`` because files and command lines name windows, and are checked as a whole.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Annotated, NamedTuple, Protocol
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BeforeValidator, Field

from config.tomlfile import guess
from config.units import NS_PER_DAY, NS_PER_MS, NS_PER_S, format_duration, parse_duration

MINUTE_NS = 60 * NS_PER_S
_DAY_MINUTES = 1_440


class Span(NamedTuple):
    """Where one window lies: ``[start_ns, end_ns)``."""

    start_ns: int
    end_ns: int

    @property
    def length_ns(self) -> int:
        return self.end_ns - self.start_ns


class Window(Protocol):
    """One kind of windows. Equal values are the same windows."""

    @property
    def label(self) -> str:
        """How people write it; see ``spelt``."""
        ...

    @property
    def grain_ns(self) -> int:
        """What every edge is a multiple of; of ``Order``, how closely the engine follows it."""
        ...

    @property
    def shortest_ns(self) -> int:
        """A pane may not be longer."""
        ...

    @property
    def nominal_ns(self) -> int:
        """How long one is as a rule; 0 where there is no rule."""
        ...

    def over(self, first_ns: int, last_ns: int) -> list[Span]:
        """Windows with any time in ``[first_ns, last_ns)``, oldest first."""
        ...

    def ending(self, t_ns: int) -> list[Span]:
        """Windows that end at ``t_ns``."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """Windows of one length side by side."""

    length_ns: int

    @property
    def label(self) -> str:
        return format_duration(self.length_ns)

    @property
    def grain_ns(self) -> int:
        return self.length_ns

    @property
    def shortest_ns(self) -> int:
        return self.length_ns

    @property
    def nominal_ns(self) -> int:
        return self.length_ns

    def over(self, first_ns: int, last_ns: int) -> list[Span]:
        length_ns = self.length_ns
        starts = range(first_ns // length_ns * length_ns, last_ns, length_ns)
        return [Span(start_ns, start_ns + length_ns) for start_ns in starts]

    def ending(self, t_ns: int) -> list[Span]:
        return [] if t_ns % self.length_ns else [Span(t_ns - self.length_ns, t_ns)]


@dataclass(frozen=True, slots=True)
class Sliding:
    """Windows of one length that begin at every multiple of a shorter step."""

    length_ns: int
    step_ns: int

    @property
    def label(self) -> str:
        return f"{format_duration(self.length_ns)}/{format_duration(self.step_ns)}"

    @property
    def grain_ns(self) -> int:
        return math.gcd(self.length_ns, self.step_ns)

    @property
    def shortest_ns(self) -> int:
        return self.step_ns

    @property
    def nominal_ns(self) -> int:
        return self.length_ns

    def over(self, first_ns: int, last_ns: int) -> list[Span]:
        length_ns, step_ns = self.length_ns, self.step_ns
        starts = range(((first_ns - length_ns) // step_ns + 1) * step_ns, last_ns, step_ns)
        return [Span(start_ns, start_ns + length_ns) for start_ns in starts]

    def ending(self, t_ns: int) -> list[Span]:
        start_ns = t_ns - self.length_ns
        return [] if start_ns % self.step_ns else [Span(start_ns, t_ns)]


@dataclass(frozen=True, slots=True)
class Shift:
    """Working shifts by the local time of a zone, in minutes after the midnight of the day they
    begin; an end beyond 1,440 is on the next day. Between them may be time that is in none."""

    zone: str
    shifts: tuple[tuple[int, int], ...]

    label = "shift"
    grain_ns = MINUTE_NS
    shortest_ns = MINUTE_NS

    @property
    def nominal_ns(self) -> int:
        return max(end - start for start, end in self.shifts) * MINUTE_NS

    def over(self, first_ns: int, last_ns: int) -> list[Span]:
        return _over(self, first_ns, last_ns)

    def ending(self, t_ns: int) -> list[Span]:
        return _ending(self, t_ns)


@dataclass(frozen=True, slots=True)
class Day:
    """Local midnight to local midnight; where the clocks skip midnight, from the first moment."""

    zone: str

    label = "day"
    grain_ns = MINUTE_NS
    shortest_ns = MINUTE_NS
    nominal_ns = NS_PER_DAY
    shifts = ((0, _DAY_MINUTES),)

    def over(self, first_ns: int, last_ns: int) -> list[Span]:
        return _over(self, first_ns, last_ns)

    def ending(self, t_ns: int) -> list[Span]:
        return _ending(self, t_ns)


@dataclass(frozen=True, slots=True)
class Order:
    """From the change of a machine's ``order`` channel to a number above 0 until its next change.

    Where they lie is in the data, so the engine finds them; an order that is still on has no window
    yet. Nothing rolls up: machines begin their orders at different times.
    """

    label = "order"
    grain_ns = MINUTE_NS
    shortest_ns = MINUTE_NS
    nominal_ns = 0

    def over(self, first_ns: int, last_ns: int) -> list[Span]:
        del first_ns, last_ns
        return []

    def ending(self, t_ns: int) -> list[Span]:
        del t_ns
        return []


def lies(kind: Window, span: Span) -> bool:
    """Whether a span is one of a kind's windows; the same as asking ``over``, and quick. No span is
    one of ``Order``: where those lie is in the data."""
    if isinstance(kind, Every):
        return span.length_ns == kind.length_ns and span.start_ns % kind.length_ns == 0
    if isinstance(kind, Sliding):
        return span.length_ns == kind.length_ns and span.start_ns % kind.step_ns == 0
    if isinstance(kind, Day | Shift):
        return _in_calendar(kind, span)
    return span in kind.over(span.start_ns, span.start_ns + 1)


@lru_cache(8_192)
def _in_calendar(kind: Day | Shift, span: Span) -> bool:
    return span in kind.over(span.start_ns, span.start_ns + 1)


def lengths_of(kind: Window) -> set[int]:
    """How long windows of a kind may be, in nanoseconds; clocks are changed by half an hour, one or
    two. Of ``Order`` this says nothing: those are of any length."""
    if isinstance(kind, Day | Shift):
        changes = (0, 1_800, 3_600, 7_200)
        spans = [(end - start) * MINUTE_NS for start, end in kind.shifts]
        return {span + sign * s * NS_PER_S for span in spans for s in changes for sign in (1, -1)}
    return {kind.nominal_ns}


# by calendar ------------------------------------------------------------------------------------


def _over(kind: Day | Shift, first_ns: int, last_ns: int) -> list[Span]:
    zone = _zone(kind.zone)
    # A shift may have begun the day before, and a zone may have skipped a whole day.
    first = datetime.fromtimestamp(first_ns // NS_PER_S, zone).toordinal() - 2
    last = datetime.fromtimestamp(last_ns // NS_PER_S, zone).toordinal() + 1
    found = {
        span
        for day in range(first, last + 1)
        for span in _spans(kind, day)
        if span.start_ns < last_ns and span.end_ns > first_ns
    }
    return sorted(found)


def _ending(kind: Day | Shift, t_ns: int) -> list[Span]:
    if t_ns % MINUTE_NS:
        return []
    return [span for span in _over(kind, t_ns - 1, t_ns) if span.end_ns == t_ns]


@lru_cache(1_024)
def _spans(kind: Day | Shift, day: int) -> tuple[Span, ...]:
    """Windows that begin on a local day, by its number; none that the clocks skip as a whole."""
    zone = _zone(kind.zone)
    spans = (Span(_instant_ns(zone, day, a), _instant_ns(zone, day, b)) for a, b in kind.shifts)
    return tuple(span for span in spans if span.length_ns > 0)


def _instant_ns(zone: tzinfo, day: int, minutes: int) -> int:
    later, minute = divmod(minutes, _DAY_MINUTES)
    at = time(minute // 60, minute % 60, tzinfo=zone)
    local = datetime.combine(date.fromordinal(day) + timedelta(days=later), at)
    return int(local.timestamp()) // 60 * MINUTE_NS


@lru_cache(64)
def _zone(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)  # UTC needs no database


# text -------------------------------------------------------------------------------------------

_NAMED = ("shift", "day", "order")
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


def spelt(text: str) -> str:
    """The one spelling of a window; raises ``ValueError`` for what is none.

    >>> [spelt(text) for text in ("60m", "shift", "90m/300s")]
    ['1h', 'shift', '1h30m/5m']
    """
    if text in _NAMED:
        return text
    length, slash, step = text.partition("/")
    try:
        length_ns = parse_duration(length)
        step_ns = parse_duration(step) if slash else length_ns
    except ValueError:
        raise ValueError(
            f"not a duration, nor shift, day or order: {text!r}; write a length like 8h, or a"
            f" sliding window like 1h/5m{guess(text, _NAMED)}"
        ) from None
    if slash and not 0 < step_ns < length_ns:
        raise ValueError(f"not a sliding window: {text!r}; its step is shorter than its length")
    if not length_ns or length_ns % NS_PER_MS or step_ns % NS_PER_MS:
        raise ValueError(f"not a window: {text!r} is not whole milliseconds")
    return format_duration(length_ns) + (f"/{format_duration(step_ns)}" if slash else "")


def window(label: str, zone: str, shifts: Sequence[str]) -> Window:
    """The windows of one spelling, days and shifts by the local time of a zone.

    >>> window("1h/5m", "UTC", ()).label
    '1h/5m'
    """
    match spelt(label):
        case "shift":
            return Shift(zone, shift_minutes(shifts))
        case "day":
            return Day(zone)
        case "order":
            return Order()
        case text:
            length, _, step = text.partition("/")
            length_ns = parse_duration(length)
            return Sliding(length_ns, parse_duration(step)) if step else Every(length_ns)


def shift_minutes(shifts: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Starts and ends of shifts in minutes. One without an end lasts until the next begins.

    >>> shift_minutes(("06:00-14:00", "14:30", "22:00"))
    ((360, 840), (870, 1320), (1320, 1800))
    """
    bounds: dict[int, int | None] = {}
    for text in shifts:
        start, dash, end = text.partition("-")
        clocks = [_CLOCK.fullmatch(part.strip()) for part in ((start, end) if dash else (start,))]
        minutes = [int(found[1]) * 60 + int(found[2]) for found in clocks if found is not None]
        if len(minutes) < len(clocks):
            raise ValueError(f"not a shift: {text!r}; write it like 22:00-06:00, or just 22:00")
        if minutes[0] in bounds:
            raise ValueError(f"two shifts begin at {start.strip()}")
        bounds[minutes[0]] = minutes[1] if dash else None
    starts = sorted(bounds)
    after = [*starts[1:], *starts[:1]]
    ends = [following if bounds[start] is None else bounds[start]
            for start, following in zip(starts, after, strict=True)]  # fmt: skip
    return tuple(
        (start, end if end > start else end + _DAY_MINUTES)
        for start, end in zip(starts, ends, strict=True)
        if end is not None
    )


def check_zone(name: str) -> str:
    """The name of a zone of this machine's database; raises ``ValueError`` for any other."""
    try:
        _zone(name)
    except (KeyError, ValueError, OSError):  # not found, no such name at all, or a folder of zones
        known = available_timezones()
        hint = guess(name, known) if known else "; this machine has no zones: install tzdata"
        raise ValueError(f"unknown zone {name!r}{hint}") from None
    return name


UNIT = "window, like 8h, 1h/5m, shift, day, order"


def as_label(value: object) -> object:
    """One spelling for every window."""
    if isinstance(value, int | float):
        raise ValueError(f"needs a unit, got {value}")
    return spelt(value) if isinstance(value, str) else value


WindowLabel = Annotated[
    str,
    BeforeValidator(as_label, json_schema_input_type=str),
    Field(json_schema_extra={"unit": UNIT}),
]


# several ----------------------------------------------------------------------------------------


def ordered(labels: Iterable[str]) -> tuple[str, ...]:
    """Spellings, each once: lengths from short to long, then sliding ones, then the named."""

    def place(label: str) -> tuple[int, int, int]:
        if label in _NAMED:
            return 2, _NAMED.index(label), 0
        length, _, step = label.partition("/")
        return bool(step), parse_duration(length), parse_duration(step) if step else 0

    return tuple(sorted(set(labels), key=place))


def labels_of(windows: Iterable[Window], span: Span) -> list[str]:
    """What people call a window that lies there; nothing where only an order's could."""
    return [w.label for w in windows if lies(w, span)]


def naming(windows: Callable[[], Iterable[Window]]) -> Callable[[Span], tuple[str, ...]]:
    """What tells the labels of a window, or ``order`` where only an order's could lie there. It
    remembers the latest, for rows come window by window; of any other it asks for ``windows``."""

    @lru_cache(10_000)
    def names(span: Span) -> tuple[str, ...]:
        return tuple(labels_of(windows(), span)) or (Order.label,)

    return names


def longest(windows: Sequence[Window]) -> Window:
    """The longest windows in use that lie side by side: what a run is summed up by."""
    side_by_side = [w for w in windows if w.nominal_ns and not isinstance(w, Sliding)]
    return max(side_by_side or windows, key=lambda w: w.nominal_ns)
