"""Charts as plain values: history, state timeline, histogram, Pareto, losses and path, for ECharts.

Every function here is pure: rows in, an ECharts option (a ``dict`` that JSON can hold) out. What
holds for all of them:

- nothing moves by itself, nothing is smoothed, nothing is added up in the browser;
- what is not known is a gap: ``None`` in the data, never 0, and never joined over;
- a value of a window is drawn over the whole window, as a step: it is of all of it;
- colour never says anything alone: states also have letters and patterns, lines have names;
- time axes are in the edge's zone and say so; the browser's zone is of no account.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, Final, NamedTuple

from beilun import console
from beilun.serving.page import words
from config.units import NS_PER_MS, NS_PER_S
from edge.kpi import quantile
from edge.kpis.network import TEN_MS_BIN
from ingest.bins import LOW_NS, PER_DECADE, delay_of
from ingest.packml import PackML

Option = dict[str, Any]
"""What ECharts draws; keys that begin with a colon hold JavaScript (NiceGUI)."""
Point = list[float | None]


@dataclass(frozen=True, slots=True)
class Look:
    """Colours and sizes of a theme, as CSS has them."""

    text: str
    muted: str
    grid: str
    surface: str
    good: str
    warn: str
    bad: str
    lines: tuple[str, ...]
    states: Mapping[str, str]
    """By PackML state."""
    on_state: str
    """Letters on a state's colour."""
    font_px: int = 13


class Clock(NamedTuple):
    """How instants are written on an axis: at one offset from UTC, that of the zone at its end."""

    offset_ms: int
    name: str

    def ms(self, t_ns: int) -> float:
        """Where an instant lies on the axis."""
        return t_ns / NS_PER_MS + self.offset_ms

    def t_ns(self, ms: float) -> int:
        """Which instant lies at a place of the axis."""
        return round((ms - self.offset_ms) * NS_PER_MS)


def clock_of(zone: tzinfo, t_ns: int) -> Clock:
    """The clock of a zone as it is at an instant; the name says what the offset from UTC is."""
    offset = datetime.fromtimestamp(t_ns // NS_PER_S, UTC).astimezone(zone).utcoffset()
    minutes = 0 if offset is None else round(offset.total_seconds() / 60)
    sign, (hours, rest) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
    name = "UTC" if not minutes else f"UTC{sign}{hours:02}:{rest:02}"
    return Clock(minutes * 60_000, name)


class Span(NamedTuple):
    """What a time axis shows."""

    from_ns: int
    to_ns: int


class Band(NamedTuple):
    """Where a value should be; ``None``: no limit on that side."""

    low: float | None = None
    high: float | None = None


class Value(NamedTuple):
    """A value of the stretch ``[start_ns, end_ns)``."""

    start_ns: int
    end_ns: int
    value: float | None


class Line(NamedTuple):
    """One line of a history."""

    name: str
    points: Sequence[Point]
    color: str = ""
    dashed: bool = False
    dots: bool = False
    """Points that stand for themselves, as of shots: no line joins them."""
    cross: bool = False
    """Points that are crossed out, as scrap is."""


class Mark(NamedTuple):
    """Something that was the matter for a while, drawn behind a chart."""

    start_ns: int
    end_ns: int
    text: str


# lines ------------------------------------------------------------------------------------------


def stepped(values: Iterable[Value], clock: Clock) -> list[Point]:
    """Points of a step line: each value from begin to end, a gap where a value is not known and
    where no window follows."""
    points: list[Point] = []
    last_ns: int | None = None
    for start_ns, end_ns, value in values:
        if last_ns is not None and start_ns > last_ns:
            points.append([clock.ms(last_ns), None])
        # Windows that slide overlap: each is then drawn from the end of the one before.
        begin_ns = start_ns if last_ns is None else max(start_ns, last_ns)
        points += [[clock.ms(begin_ns), value], [clock.ms(end_ns), value]]
        last_ns = end_ns
    return points


def sampled(
    times_ns: Iterable[int], values: Iterable[float], clock: Clock, gap_s: float = math.inf
) -> list[Point]:
    """Points of a signal; NaN, and silence longer than ``gap_s``, is a gap."""
    points: list[Point] = []
    last_ns: int | None = None
    for t_ns, value in zip(times_ns, values, strict=True):
        if last_ns is not None and t_ns - last_ns > gap_s * NS_PER_S:
            points.append([clock.ms(last_ns), None])
        points.append([clock.ms(t_ns), None if math.isnan(value) else value])
        last_ns = t_ns
    return points


def _told_in(unit: str) -> Option:
    """How a value is told where the mouse rests: with no more digits than anybody reads."""
    number = "Number(v.toPrecision(4)).toLocaleString('en')"
    return {":valueFormatter": f"v => v == null ? '–' : {number} + {json.dumps(' ' + unit)}"}


def history(
    lines: Sequence[Line],
    span: Span,
    clock: Clock,
    look: Look,
    *,
    unit: str = "",
    band: Band | None = None,
    marks: Sequence[Mark] = (),
    zoom: bool = True,
) -> Option:
    """Lines over time, with the band they should keep and what was the matter meanwhile."""
    series = [_line(line, look.lines[i % len(look.lines)]) for i, line in enumerate(lines)]
    if not series:
        series = [_line(Line("", []), look.muted)]
    series[0] |= _area(marks, clock, look) | _limits(band, look)
    option = _base(look, bottom=62 if zoom else 34, top=34 if len(lines) > 1 else 22)
    return option | {
        "tooltip": option["tooltip"] | _told_in(unit),
        "legend": _legend(look) | {"show": len(lines) > 1},
        "xAxis": _time(span, clock, look),
        "yAxis": _amount(unit, look) | _reach(lines, band),
        "dataZoom": _zoom(look)[: 2 if zoom else 1],
        "series": series,
    }


def _reach(lines: Sequence[Line], band: Band | None) -> Option:
    """Ends and ticks of the axis of amounts, at round numbers. A limit is in it unless it is so far
    away that the values would be a flat line; it begins at 0 where that is not far."""
    values = [y for line in lines for _, y in line.points if y is not None]
    if not values:
        return {}
    low, high = min(values), max(values)
    size = (high - low) or abs(high) * 0.1 or 1.0
    if low == high:
        low, high = low - size / 2, high + size / 2
    ends = [] if band is None else [end for end in band if end is not None]
    near = [end for end in ends if low - 3 * size <= end <= high + 3 * size]
    low, high = min([low, *near]), max([high, *near])
    if 0 < low < 0.4 * high:
        low = 0.0
    size = high - low
    power = math.pow(10.0, math.floor(math.log10(size / 4)))
    step = next(power * n for n in (1, 2, 2.5, 5, 10) if power * n >= size / 4)
    least, most = math.floor(low / step) * step, math.ceil(high / step) * step
    return {"min": _short(least), "max": _short(most), "interval": _short(step)}


def _short(number: float) -> float:
    """Without the last digits, in which multiples of a tenth differ from what people write."""
    return float(f"{number:.12g}")


_CROSS: Final = "path://M0 2 L2 0 L5 3 L8 0 L10 2 L7 5 L10 8 L8 10 L5 7 L2 10 L0 8 L3 5 Z"


def _line(line: Line, color: str) -> Option:
    hue = line.color or color
    lonely = len([1 for _, y in line.points if y is not None]) < 3
    return {
        "type": "scatter" if line.dots else "line",
        "name": line.name,
        "data": [list(point) for point in line.points],
        "connectNulls": False,
        "smooth": False,
        "animation": False,
        "showSymbol": line.dots or lonely,
        "symbol": _CROSS if line.cross else "circle",
        "symbolSize": 9 if line.cross else 5 if line.dots else 4,
        "lineStyle": {"width": 2, "color": hue, "type": "dashed" if line.dashed else "solid"},
        "itemStyle": {"color": hue},
        "emphasis": {"disabled": True},
        "markLine": {"data": []},
        "markArea": {"data": []},
    }


def _limits(band: Band | None, look: Look) -> Option:
    ends = [] if band is None else [(band.low, "≥"), (band.high, "≤")]
    data = [
        {"yAxis": y, "label": {"formatter": f"{sign} {console.number(y)}"}}
        for y, sign in ends
        if y is not None
    ]
    return {
        "markLine": {
            "silent": True,
            "symbol": "none",
            "animation": False,
            "lineStyle": {"color": look.good, "type": "dashed", "width": 1.5},
            "label": {"color": look.good, "position": "insideEndTop", "fontSize": look.font_px - 1},
            "data": data,
        }
    }


def _area(marks: Sequence[Mark], clock: Clock, look: Look, *, named: bool = True) -> Option:
    return {
        "markArea": {
            "silent": True,
            "animation": False,
            "itemStyle": {"color": look.warn, "opacity": 0.16},
            "label": {
                "show": named,
                "color": look.muted,
                "fontSize": look.font_px - 2,
                "position": "insideTop",
            },
            "data": [
                [{"xAxis": clock.ms(m.start_ns), "name": m.text}, {"xAxis": clock.ms(m.end_ns)}]
                for m in marks
            ],
        }
    }


# states -----------------------------------------------------------------------------------------

_WAITING: Final[Option] = {
    "symbol": "circle", "dashArrayX": [[6, 6], [0, 6, 6, 0]], "dashArrayY": [5, 0],
    "symbolSize": 0.7,
}  # fmt: skip
_SLANTED: Final[Option] = {
    "symbol": "rect", "dashArrayX": [1, 0], "dashArrayY": [2, 5], "rotation": -math.pi / 4,
}  # fmt: skip
_BACKWARD: Final[Option] = {
    "symbol": "rect", "dashArrayX": [1, 0], "dashArrayY": [1, 6], "rotation": math.pi / 4,
}  # fmt: skip
_CHECKED: Final[Option] = {
    "symbol": "rect", "dashArrayX": [[5, 5], [0, 5, 5, 0]], "dashArrayY": [5, 0],
}  # fmt: skip
_LYING: Final[Option] = {"symbol": "rect", "dashArrayX": [1, 0], "dashArrayY": [1, 5]}

_PATTERNS: Final[Mapping[str, Option]] = {
    "SUSPENDING": _WAITING, "SUSPENDED": _WAITING, "UNSUSPENDING": _WAITING,
    "HOLDING": _SLANTED, "HELD": _SLANTED, "UNHOLDING": _SLANTED,
    "ABORTING": _CHECKED, "ABORTED": _CHECKED, "CLEARING": _CHECKED,
    "STARTING": _BACKWARD, "RESETTING": _BACKWARD, "COMPLETING": _BACKWARD,
    "COMPLETE": _BACKWARD, "STOPPING": _LYING, "STOPPED": _LYING,
}  # fmt: skip
"""Pattern by state, as states share colours; running and idle have none."""
_WHITE: Final = "rgba(255,255,255,0.38)"


class Stay(NamedTuple):
    """A stretch in one state; an empty ``state`` is none that is known."""

    start_ns: int
    end_ns: int
    state: str
    note: str = ""


class Lane(NamedTuple):
    """One machine's states."""

    name: str
    stays: Sequence[Stay]


_RENDER = """(params, api) => {
  const y = api.value(2), from = api.coord([api.value(0), y]), to = api.coord([api.value(1), y]);
  const height = Math.max(10, api.size([0, 1])[1] * 0.72), area = params.coordSys;
  const left = Math.max(from[0], area.x), right = Math.min(to[0], area.x + area.width);
  if (right <= left) return null;
  const width = Math.max(1, right - left), top = from[1] - height / 2;
  const look = LOOKS[api.value(3)];
  const children = [{type: 'rect', shape: {x: left, y: top, width: width, height: height},
    style: {fill: look.fill, decal: look.decal}}];
  if (width > 13 && look.letter) children.push({type: 'text', silent: true,
    style: {text: look.letter, x: left + width / 2, y: from[1], align: 'center',
      verticalAlign: 'middle', fill: look.text, font: 'bold FONTpx sans-serif',
      backgroundColor: look.fill, padding: [1, 2]}});
  return {type: 'group', children: children};
}"""

STATES: Final = tuple(state.name for state in PackML)


def timeline(
    lanes: Sequence[Lane],
    span: Span,
    clock: Clock,
    look: Look,
    language: str,
    *,
    marks: Sequence[Mark] = (),
    zoom: bool = False,
) -> Option:
    """States over time, a lane a machine.

    Each bar is ``[begin, end, lane, state]``; a stretch of no known state is left blank.
    """
    looks = [
        {"fill": look.states.get(name, look.muted), "letter": words.letter(name),
         "text": look.on_state, "decal": _pattern(name)}
        for name in STATES
    ]  # fmt: skip
    data = [
        {
            "value": [
                clock.ms(stay.start_ns),
                clock.ms(stay.end_ns),
                row,
                STATES.index(stay.state),
            ],
            "name": f"{words.state(stay.state, language)}{stay.note and f' · {stay.note}'}",
        }
        for row, lane in enumerate(lanes)
        for stay in lane.stays
        if stay.state in STATES and stay.end_ns > span.from_ns and stay.start_ns < span.to_ns
    ]
    render = _RENDER.replace("LOOKS", json.dumps(looks)).replace("FONT", str(look.font_px - 2))
    option = _base(look, bottom=62 if zoom else 30, top=8)
    return option | {
        "tooltip": option["tooltip"]
        | {
            "trigger": "item",
            ":formatter": "p => p.name + '<br>' + [p.value[0], p.value[1]].map(t => "
            "new Date(t).toISOString().slice(11, 19)).join(' – ')",
        },
        "xAxis": _time(span, clock, look),
        "yAxis": {
            "type": "category",
            "data": [lane.name for lane in lanes],
            "inverse": True,
            "axisLabel": {"color": look.text, "fontSize": look.font_px},
            "axisLine": {"show": False},
            "axisTick": {"show": False},
        },
        "dataZoom": _zoom(look)[: 2 if zoom else 1],
        "series": [
            {
                "type": "custom",
                "animation": False,
                ":renderItem": render,
                "encode": {"x": [0, 1], "y": 2},
                "clip": True,
                "data": data,
            }
            | _area(marks, clock, look, named=False)
        ],
    }


def _pattern(state: str) -> Option | None:
    found = _PATTERNS.get(state)
    return None if found is None else {"color": _WHITE, **found}


# distributions ----------------------------------------------------------------------------------

_PER_BAR = 8
"""Bins a bar: 29 bars a decade, and 1, 10 and 100 ms still lie between two bars."""
TEN_MS: Final = 10.0


class Bar(NamedTuple):
    """Messages whose delay is above ``low_ms`` and at most ``high_ms``."""

    low_ms: float
    high_ms: float
    messages: int


def bars(bins: Mapping[int, int]) -> list[Bar]:
    """A delay histogram of the wire (`ingest.bins`) in wider bars, without those at the ends that
    hold nothing. Bins of negative delays are no delays and left out."""
    wide: dict[int, int] = {}
    for number, count in bins.items():
        if number >= 0 and count > 0:
            place = -(-number // _PER_BAR)
            wide[place] = wide.get(place, 0) + count
    if not wide:
        return []

    def edge_ms(place: int) -> float:
        return LOW_NS * math.pow(10.0, place * _PER_BAR / PER_DECADE) / NS_PER_MS

    return [
        Bar(edge_ms(place - 1), edge_ms(place), wide.get(place, 0))
        for place in range(min(wide), max(wide) + 1)
    ]


class Spread(NamedTuple):
    """What a delay histogram comes to, in ms; ``None``: of no messages."""

    messages: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    max_ms: float | None
    within: float | None
    """Share at most 10 ms."""


def spread(bins: Mapping[int, int]) -> Spread:
    """Quantiles and share within 10 ms, as the KPIs have them."""
    kept = {number: count for number, count in bins.items() if number >= 0 and count > 0}
    total = sum(kept.values())
    if not total:
        return Spread(0, None, None, None, None, None, None)

    def at(share: float) -> float:
        found = quantile(kept, share)
        assert found is not None
        return delay_of(found) / NS_PER_MS

    good = sum(count for number, count in kept.items() if number <= TEN_MS_BIN)
    return Spread(total, at(0.5), at(0.9), at(0.99), at(0.999), at(1.0), good / total)


class Distribution(NamedTuple):
    """One histogram of several in a chart."""

    name: str
    bins: Mapping[int, int]
    color: str = ""


def histogram(
    of: Sequence[Distribution], look: Look, *, line_text: str = "10 ms", axis: str = "ms"
) -> Option:
    """Delays on a logarithmic axis, the share of messages per bar on another, and the 10 ms line.

    Shares are of each distribution's own messages, so that a small slice can be laid over a great
    one; a bar of nothing is a gap, for a logarithm knows no 0.
    """
    series: list[Option] = []
    for place, (name, bins, color) in enumerate(of):
        hue = color or look.lines[place % len(look.lines)]
        total = sum(count for number, count in bins.items() if number >= 0 and count > 0)
        points: list[Point] = []
        for bar in bars(bins):
            share = bar.messages / total * 100 if bar.messages else None
            points += [[bar.low_ms, share], [bar.high_ms, share]]
        series.append(
            _line(Line(name, points, hue), hue)
            | {"areaStyle": {"color": hue, "opacity": 0.14, "origin": "start"}, "showSymbol": False}
        )
    if not series:
        series = [_line(Line("", []), look.muted)]
    series[0]["markLine"] = {
        "silent": True,
        "symbol": "none",
        "animation": False,
        "lineStyle": {"color": look.bad, "width": 2, "type": "solid"},
        "label": {"formatter": line_text, "color": look.bad, "fontSize": look.font_px},
        "data": [{"xAxis": TEN_MS}],
    }
    lows = [bar.low_ms for one in of for bar in bars(one.bins)]
    highs = [bar.high_ms for one in of for bar in bars(one.bins)]
    option = _base(look, bottom=40, top=40)
    return option | {
        "tooltip": option["tooltip"] | _told_in("%"),
        "legend": _legend(look),
        "xAxis": {
            "type": "log",
            "min": _decade(min(lows, default=1.0), up=False),
            "max": _decade(max([*highs, TEN_MS * 1.5]), up=True),
            "name": axis,
            "nameLocation": "middle",
            "nameGap": 24,
            "minorTick": {"show": True, "splitNumber": 9},
            **_axis(look),
        },
        "yAxis": _amount("%", look) | {"type": "log", "min": _floor(of)},
        "series": series,
    }


def _decade(value: float, *, up: bool) -> float:
    steps = math.log10(value)
    whole = math.ceil(steps - 1e-9) if up else math.floor(steps + 1e-9)
    return math.pow(10.0, whole)


def _floor(of: Sequence[Distribution]) -> float:
    """Below the least bar there may be: one message of the greatest distribution."""
    most = max((sum(c for n, c in one.bins.items() if n >= 0) for one in of), default=0)
    return _decade(100 / most, up=False) if most else 0.01


class Part(NamedTuple):
    """One bar of a ranking: a name, how much, and its share of all."""

    name: str
    amount: float
    text: str
    share: float
    color: str = ""


def ranking(parts: Sequence[Part], look: Look, *, most: int = 12) -> Option:
    """A Pareto chart: bars from the greatest down, and a line of what they come to together."""
    shown = list(parts[:most])
    total = sum(part.amount for part in parts)
    running = [
        round(sum(part.share for part in shown[: place + 1]) * 100, 6)
        for place in range(len(shown))
    ]
    option = _base(look, bottom=8, top=26)
    option["grid"] |= {"right": 64}
    return option | {
        "tooltip": option["tooltip"] | {"trigger": "axis", "axisPointer": {"type": "shadow"}},
        "xAxis": [
            {"type": "value", "show": False, "min": 0, "max": total or 1},
            {
                "type": "value", "min": 0, "max": 100, "position": "top",
                **_axis(look), "splitLine": {"show": False},
                "axisLabel": {"color": look.muted, "formatter": "{value} %"},
            },
        ],
        "yAxis": {
            "type": "category",
            "inverse": True,
            "data": [part.name for part in shown],
            "axisLabel": {"color": look.text, "fontSize": look.font_px, "width": 150,
                          "overflow": "truncate"},
            "axisLine": {"show": False},
            "axisTick": {"show": False},
        },
        "series": [
            {
                "type": "bar",
                "animation": False,
                "barMaxWidth": 22,
                "data": [
                    {"value": part.amount, "itemStyle": {"color": part.color or look.lines[0]},
                     "label": {"formatter": f"{part.text}  {_percent(part.share)}"}
                     | ({"position": "insideLeft", "color": look.on_state}
                        if part.share > 0.45 else {})}
                    for part in shown
                ],
                "label": {"show": True, "position": "right", "color": look.text,
                          "fontSize": look.font_px},
            },
            {
                "type": "line",
                "animation": False,
                "xAxisIndex": 1,
                "symbolSize": 6,
                "data": [[share, row] for row, share in enumerate(running)],
                "lineStyle": {"color": look.muted, "width": 1.5},
                "itemStyle": {"color": look.muted},
            },
        ],
    }  # fmt: skip


def stacked(
    parts: Sequence[tuple[str, Sequence[float | None]]],
    names: Sequence[str],
    look: Look,
    *,
    unit: str = "",
) -> Option:
    """Bars of several pieces one after the other, a line each, with what they come to."""
    option = _base(look, bottom=26, top=30)
    option["grid"] |= {"right": 58}
    totals = [sum(v for v in values if v is not None) for _, values in parts]
    series: list[Option] = [
        {
            "type": "bar", "stack": "all", "name": name, "animation": False, "barMaxWidth": 20,
            "itemStyle": {
                "color": look.lines[place % len(look.lines)],
                "decal": {"color": _WHITE, **_SLANTED} if place % 2 else {"symbol": "none"},
            },
            "emphasis": {"disabled": True},
            "data": [values[place] for _, values in parts],
        }
        for place, name in enumerate(names)
    ]  # fmt: skip
    if series:
        series[-1]["label"] = {"show": True, "position": "right", "color": look.text,
                               "fontSize": look.font_px}  # fmt: skip
        series[-1]["data"] = [
            {"value": values[-1] or 0, "label": {"formatter": f"{console.number(total)} {unit}"}}
            for (_, values), total in zip(parts, totals, strict=True)
        ]
    return option | {
        "tooltip": option["tooltip"] | {"trigger": "axis", "axisPointer": {"type": "shadow"}},
        "legend": _legend(look),
        "xAxis": {"type": "value", "name": "", **_axis(look)},
        "yAxis": {
            "type": "category", "inverse": True, "data": [name for name, _ in parts],
            "axisLabel": {"color": look.text, "fontSize": look.font_px},
            "axisLine": {"show": False}, "axisTick": {"show": False},
        },
        "series": series,
    }  # fmt: skip


def _percent(share: float) -> str:
    return "<1 %" if 0 < share < 0.01 else f"{share * 100:.0f} %"


class Step(NamedTuple):
    """One bar of a waterfall: it hangs from what is left above it, or stands on the ground."""

    name: str
    share: float
    """Of the whole; of a loss how much goes, of a total how much is left."""
    text: str
    total: bool
    color: str


def waterfall(steps: Sequence[Step], look: Look) -> Option:
    """Losses one under the other, each from where the one before left off."""
    ground: list[float] = []
    length: list[Option] = []
    left = 0.0
    for step in steps:
        if step.total:
            left, begin = step.share, 0.0
        else:
            left -= step.share
            begin = min(left, left + step.share)
        ground.append(max(0.0, begin) * 100)
        length.append(
            {
                "value": abs(step.share) * 100,
                "itemStyle": {
                    "color": step.color,
                    "decal": {"symbol": "none"} if step.total else {"color": _WHITE, **_SLANTED},
                },
                "label": {"formatter": step.text},
            }
        )
    option = _base(look, bottom=24, top=6)
    option["grid"] |= {"right": 118}
    return option | {
        "tooltip": {"show": False},
        "xAxis": {"type": "value", "min": 0, "max": 100, **_axis(look),
                  "axisLabel": {"color": look.muted, "formatter": "{value} %"}},
        "yAxis": {
            "type": "category",
            "inverse": True,
            "data": [step.name for step in steps],
            "axisLabel": {"color": look.text, "fontSize": look.font_px},
            "axisLine": {"show": False},
            "axisTick": {"show": False},
        },
        "series": [
            {"type": "bar", "stack": "all", "animation": False, "silent": True, "data": ground,
             "itemStyle": {"color": "transparent"}},
            {"type": "bar", "stack": "all", "animation": False, "silent": True, "barMaxWidth": 24,
             "data": length,
             "label": {"show": True, "position": "right", "color": look.text,
                       "fontSize": look.font_px}},
        ],
    }  # fmt: skip


# places -----------------------------------------------------------------------------------------


class Place(NamedTuple):
    """A named point of the plant."""

    name: str
    x_m: float
    y_m: float


def path(
    trail: Sequence[tuple[float, float]],
    ways: Sequence[tuple[tuple[float, float], tuple[float, float]]],
    places: Sequence[Place],
    look: Look,
    *,
    here: tuple[float, float] | None = None,
) -> Option:
    """Where a vehicle went, on the ways there are, in metres; at about one scale in both directions
    where the chart is twice as wide as it is high."""
    xs = [x for (x, _) in trail] + [p.x_m for p in places] + [w[i][0] for w in ways for i in (0, 1)]
    ys = [y for (_, y) in trail] + [p.y_m for p in places] + [w[i][1] for w in ways for i in (0, 1)]
    high = max(_extent(ys), _extent(xs) / 2, 1.0) * 1.15
    option = _base(look, bottom=28, top=10)
    option["grid"] |= {"left": 44, "right": 16}
    return option | {
        "tooltip": option["tooltip"] | {"trigger": "item", "formatter": "{b}"},
        "xAxis": _metres(xs, 2 * high, look),
        "yAxis": _metres(ys, high, look),
        "series": [
            {
                "type": "lines", "coordinateSystem": "cartesian2d", "animation": False,
                "silent": True, "lineStyle": {"color": look.grid, "width": 5, "opacity": 1},
                "data": [{"coords": [list(a), list(b)]} for a, b in ways],
            },
            {
                "type": "lines", "coordinateSystem": "cartesian2d", "polyline": True,
                "animation": False, "silent": True,
                "lineStyle": {"color": look.lines[0], "width": 2, "opacity": 0.9},
                "data": [{"coords": [list(point) for point in trail]}] if len(trail) > 1 else [],
            },
            {
                "type": "scatter", "animation": False, "symbol": "rect", "symbolSize": 9,
                "itemStyle": {"color": look.muted},
                "label": {"show": True, "formatter": "{b}", "position": "top",
                          "color": look.muted, "fontSize": look.font_px - 2},
                "labelLayout": {"hideOverlap": True},
                "data": [{"name": p.name, "value": [p.x_m, p.y_m]} for p in places],
            },
            {
                "type": "scatter", "animation": False, "symbol": "circle", "symbolSize": 15,
                "itemStyle": {"color": look.lines[0], "borderColor": look.text, "borderWidth": 2},
                "data": [] if here is None else [{"name": "", "value": list(here)}],
            },
        ],
    }  # fmt: skip


def _extent(values: Sequence[float]) -> float:
    return max(values) - min(values) if values else 0.0


def _metres(values: Sequence[float], size: float, look: Look) -> Option:
    middle = (min(values, default=0.0) + max(values, default=0.0)) / 2
    return {
        "type": "value",
        "min": middle - size / 2,
        "max": middle + size / 2,
        **_axis(look),
        "splitLine": {"show": False},
        "axisLabel": {
            "color": look.muted, "showMinLabel": False, "showMaxLabel": False,
            "formatter": "{value} m",
        },
    }  # fmt: skip


# what all share ---------------------------------------------------------------------------------


def _base(look: Look, *, bottom: int, top: int) -> Option:
    return {
        "animation": False,
        "backgroundColor": "transparent",
        "useUTC": True,
        "textStyle": {"color": look.text, "fontSize": look.font_px},
        "grid": {"left": 8, "right": 22, "top": top, "bottom": bottom, "containLabel": True},
        "tooltip": {
            "trigger": "axis",
            "backgroundColor": look.surface,
            "borderColor": look.grid,
            "textStyle": {"color": look.text, "fontSize": look.font_px},
            "confine": True,
            "transitionDuration": 0,
        },
    }


def _axis(look: Look) -> Option:
    return {
        "axisLine": {"onZero": False, "lineStyle": {"color": look.grid}},
        "axisLabel": {"color": look.muted, "fontSize": look.font_px - 1, "hideOverlap": True},
        "splitLine": {"lineStyle": {"color": look.grid, "opacity": 0.6}},
        "nameTextStyle": {"color": look.muted, "fontSize": look.font_px - 1},
    }


def _time(span: Span, clock: Clock, look: Look) -> Option:
    return {
        "type": "time",
        "min": clock.ms(span.from_ns),
        "max": clock.ms(span.to_ns),
        "name": clock.name,
        "nameLocation": "end",
        "nameGap": 4,
        **_axis(look),
        "splitLine": {"show": False},
        "nameTextStyle": {
            "color": look.muted, "fontSize": look.font_px - 2, "align": "right",
            "verticalAlign": "top", "padding": [18, 0, 0, 0],
        },
    }  # fmt: skip


def _amount(unit: str, look: Look) -> Option:
    return {
        "type": "value",
        "name": unit,
        "nameGap": 8,
        **_axis(look),
        "nameTextStyle": {"color": look.muted, "align": "left", "fontSize": look.font_px - 1},
    }


def _legend(look: Look) -> Option:
    return {
        "top": 0,
        "right": 8,
        "type": "scroll",
        "itemHeight": 8,
        "textStyle": {"color": look.text, "fontSize": look.font_px},
        "pageTextStyle": {"color": look.muted},
        "inactiveColor": look.grid,
    }


def _zoom(look: Look) -> list[Option]:
    return [
        {"type": "inside", "filterMode": "none", "zoomOnMouseWheel": "ctrl"},
        {
            "type": "slider", "filterMode": "none", "height": 18, "bottom": 8,
            "borderColor": look.grid, "textStyle": {"color": look.muted}, "showDetail": False,
            "brushSelect": False, "showDataShadow": False,
        },
    ]  # fmt: skip
