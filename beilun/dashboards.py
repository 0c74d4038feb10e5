"""Grafana's dashboards, made by code: a site, a line, an asset, a KPI, over the store's rows.

Annotations are the alarms: what the edge itself noticed, in the rows it writes anyway, with event
time and of real machines too. What a scenario did to the network is known to the simulator alone,
and is in no store.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from config.alarms import PREFIX
from edge import kpis
from edge.sinks.lines import MEASUREMENT

Json = dict[str, Any]

SOURCE: Json = {"type": "influxdb", "uid": "beilun"}
_LEVELS = ("site", "area", "line", "asset", "window")
_UNITS = {"1": "percentunit", "s": "s", "ms": "ms", "m/s": "velocityms", "m": "lengthm", "h": "h",
          "W": "watt", "kW.h": "kwatth"}  # fmt: skip
_HEADLINES = ("oee", "line_speed", "wip_turnover_days", "output_per_head", "within_10ms")
_LOSSES = ("availability", "effectiveness", "quality_ratio", "oee")


def dashboards() -> dict[str, str]:
    """File name -> text of every dashboard."""
    made = (_site(), _line(), _asset(), _kpi())
    return {f"{board['uid']}.json": json.dumps(board, indent=1) + "\n" for board in made}


def write(folder: Path) -> list[Path]:
    """Write them anew; the paths written."""
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name, text in dashboards().items():
        (folder / name).write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written


def flux(kpi: str, *, levels: Sequence[str], last: bool = False) -> str:
    """The rows of a KPI as chosen by the dashboard's variables; rows without evidence are gaps."""
    chosen = "".join(f' and r.{level} == "${{{level}}}"' for level in levels)
    query = (
        'from(bucket: "beilun")\n'
        " |> range(start: v.timeRangeStart, stop: v.timeRangeStop)\n"
        f' |> filter(fn: (r) => r._measurement == "{MEASUREMENT}" and r.kpi == "{kpi}"{chosen})\n'
        ' |> filter(fn: (r) => r._field == "value" or r._field == "known")\n'
        ' |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")\n'
        " |> filter(fn: (r) => r.known == 1)\n"
        " |> map(fn: (r) => ({r with _value: r.value, _field: r.asset}))\n"
        ' |> keep(columns: ["_time", "_value", "_field"])\n'
        ' |> group(columns: ["_field"])'
    )
    return query + "\n |> last()" if last else query


def _site() -> Json:
    levels = ("site", "window")
    tiles = [
        _panel("stat", name, flux(name, levels=levels, last=True), (4 * n, 0, 4, 5), name)
        for n, name in enumerate(_HEADLINES)
    ]
    trends = _trends(_HEADLINES, levels, 13)
    panels = [*tiles, _timeline(levels, 5, 8), *trends]
    return _board("beilun-site", "Beilun: site", panels, levels)


def _line() -> Json:
    levels = ("site", "area", "line", "window")
    panels = _trends((*_LOSSES, "line_speed", "output"), levels, 8)
    return _board("beilun-line", "Beilun: line", [_timeline(levels, 0, 8), *panels], levels)


def _asset() -> Json:
    levels = ("site", "area", "line", "asset", "window")
    names = (*_LOSSES, "energy_per_unit", "mtbf", "mttr", "delay_p99")
    panels = _trends(names, levels, 5)
    return _board("beilun-asset", "Beilun: asset", [_timeline(levels, 0, 5), *panels], levels)


def _timeline(levels: Sequence[str], top: int, height: int) -> Json:
    """A bar an asset, coloured by how much of its planned time it ran. A store holds KPIs and no
    states: those of each second are on the page of `beilun serve`."""
    states = _panel(
        "state-timeline", "availability", flux("availability", levels=levels),
        (0, top, 24, height), "availability",
    )  # fmt: skip
    bounds = ((None, "red", "down"), (0.5, "orange", "partly"), (0.9, "green", "running"))
    ends = [bound for bound, _, _ in bounds[1:]] + [None]
    states["fieldConfig"]["defaults"] |= {
        "color": {"mode": "thresholds"},
        "thresholds": {"mode": "absolute", "steps": [
            {"color": color, "value": bound} for bound, color, _ in bounds
        ]},
        # Colour is never the only sign.
        "mappings": [
            {"type": "range", "options": {
                "from": bound, "to": None if end is None else end - 1e-9, "result": {"text": word},
            }} for (bound, _, word), end in zip(bounds, ends, strict=True)
        ],
    }  # fmt: skip
    states["options"] = {"showValue": "auto", "mergeValues": True}
    return states


def _kpi() -> Json:
    levels = ("site", "window")
    all_assets = _panel("timeseries", "$kpi", flux("${kpi}", levels=levels), (0, 0, 24, 12), None)
    latest = _panel("bargauge", "$kpi, last", flux("${kpi}", levels=levels, last=True),
                    (0, 12, 24, 8), None)  # fmt: skip
    board = _board("beilun-kpi", "Beilun: one KPI, every asset", [all_assets, latest], levels)
    names = list(kpis.load())
    board["templating"]["list"].append(
        {"name": "kpi", "type": "custom", "query": ",".join(names),
         "current": {"text": "oee", "value": "oee"}}
    )  # fmt: skip
    return board


def _trends(names: Sequence[str], levels: Sequence[str], top: int) -> list[Json]:
    """Two columns of time series, from a row of the grid down."""
    return [
        _panel(
            "timeseries", name, flux(name, levels=levels),
            (12 * (n % 2), top + 8 * (n // 2), 12, 8), name,
        )
        for n, name in enumerate(names)
    ]  # fmt: skip


def _panel(
    kind: str, title: str, query: str, place: tuple[int, int, int, int], kpi: str | None
) -> Json:
    x, y, w, h = place
    described = kpis.load()[kpi] if kpi is not None else None
    defaults: Json = {"custom": {"spanNulls": False}} if kind == "timeseries" else {}
    if described is not None:
        defaults["unit"] = _UNITS.get(described.unit, f"suffix: {described.unit}")
    return {
        "type": kind, "title": title, "datasource": SOURCE,
        "description": "" if described is None else described.summary,
        "gridPos": {"x": x, "y": y, "w": w, "h": h},
        "targets": [{"refId": "A", "datasource": SOURCE, "query": query}],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {},
    }  # fmt: skip


def _board(uid: str, title: str, panels: list[Json], levels: Sequence[str]) -> Json:
    return {
        "uid": uid, "title": title, "tags": ["beilun"], "timezone": "browser", "refresh": "10s",
        "schemaVersion": 41, "editable": False, "graphTooltip": 1,
        "time": {"from": "2026-01-05T00:00:00Z", "to": "2026-01-05T08:00:00Z"},
        "panels": [{**panel, "id": number} for number, panel in enumerate(panels, 1)],
        "templating": {"list": [_variable(level, levels) for level in _LEVELS if level in levels]},
        "links": [{"type": "dashboards", "tags": ["beilun"], "title": "", "keepTime": True,
                   "includeVars": True, "asDropdown": False}],
        "annotations": {"list": [_alarms(state, levels) for state in ("raised", "cleared")]},
    }  # fmt: skip


def _alarms(state: str, levels: Sequence[str]) -> Json:
    """A mark where an alarm changed its state; under a chosen asset its own and its groups'."""
    value = {"raised": "1.0", "cleared": "0.0"}[state]
    chosen = "".join(
        f' and (r.{level} == "${{{level}}}" or r.{level} == "-")'
        for level in levels
        if level != "window"
    )
    query = (
        'from(bucket: "beilun")\n'
        " |> range(start: v.timeRangeStart, stop: v.timeRangeStop)\n"
        f' |> filter(fn: (r) => r._measurement == "{MEASUREMENT}"'
        f" and r.kpi =~ /^{PREFIX.replace('.', '[.]')}/{chosen})\n"
        ' |> filter(fn: (r) => r._field == "value" or r._field == "known")\n'
        ' |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")\n'
        f" |> filter(fn: (r) => r.known == 1 and r.value == {value})\n"
        f' |> map(fn: (r) => ({{_time: r._time, text: r.kpi + " {state}", tags: r.asset}}))\n'
        " |> group()"
    )
    return {
        "name": f"alarms {state}", "datasource": SOURCE, "enable": True, "hide": False,
        "iconColor": {"raised": "red", "cleared": "green"}[state],
        "target": {"refId": "Anno", "query": query}, "query": query,
        "mappings": {"time": {"source": "field", "value": "_time"},
                     "text": {"source": "field", "value": "text"},
                     "tags": {"source": "field", "value": "tags"}},
    }  # fmt: skip


def _variable(level: str, levels: Sequence[str]) -> Json:
    """What there is of a level, under what was chosen of those above it."""
    place = 0 if level == "window" else _LEVELS.index(level)
    above = [name for name in _LEVELS[:place] if name in levels]
    chosen = "".join(f' and r.{name} == "${{{name}}}"' for name in above)
    query = (
        'import "influxdata/influxdb/schema"\n'
        f'schema.tagValues(bucket: "beilun", tag: "{level}", start: -3y,'
        f' predicate: (r) => r._measurement == "{MEASUREMENT}"{chosen})'
    )
    default = {"text": "1h", "value": "1h"} if level == "window" else {}
    return {"name": level, "label": level, "type": "query", "datasource": SOURCE, "refresh": 2,
            "query": {"query": query}, "current": default}  # fmt: skip
