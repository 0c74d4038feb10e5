"""The end of a run for people: KPI tables, ledger, verdicts, files, seed and digest."""

import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from beilun import console
from beilun.verdict import asset_path
from config.units import NS_PER_S, format_duration, format_time
from config.windows import Order, Span, Window, longest, naming
from edge import kpis
from edge.alarms import is_alarm
from edge.engine import Engine
from edge.feed import Feed
from edge.hops import Hops
from edge.kpi import Kpi
from edge.pipeline import Account
from edge.rows import ALL, ORDER_NUMBER, Row, rows_in
from ingest.messages import Asset
from ingest.recording import KEPT_REJECTS

_FIRST = (
    "line_speed", "running_speed", "good_length", "energy_per_metre", "oee", "availability",
    "effectiveness", "quality_ratio", "output", "energy_per_unit", "arm_cycle_time",
    "agv_utilisation", "wip_turnover_days", "wip", "throughput",
)  # fmt: skip
"""What a run is summed up by, in the order people look for it. Assets that have none of these are
shown with all they have."""

_SHORT = {"1": "%", "{piece}": "pcs", "kW.h/{piece}": "kWh/pc", "kW.h/m": "kWh/m",
          "{piece}/h": "pcs/h", "d": "days", "{event}": "n"}  # fmt: skip
"""UCUM units as a column's head shows them."""


@dataclass(frozen=True, slots=True)
class Table:
    """KPIs of a few assets: a line for each asset, or upright with a line for each KPI."""

    title: str
    assets: tuple[str, ...]
    kpis: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    """Per asset, per KPI."""

    def show(self, width: int) -> None:
        """Print it; upright where it would not fit, or has many more KPIs than assets."""
        lines = [(a, *line) for a, line in zip(self.assets, self.values, strict=True)]
        columns = ("", *self.kpis)
        if len(self.kpis) > 3 * len(self.assets) or _width(columns, lines) > width:
            turned = zip(*self.values, strict=True)
            columns = ("", *self.assets)
            lines = [(k, *line) for k, line in zip(self.kpis, turned, strict=True)]
        console.table(columns, lines, self.title)
        if not console.is_terminal(sys.stdout):
            console.out("")


def _width(columns: Sequence[str], lines: Sequence[Sequence[object]]) -> int:
    rule = 3  # what a ruled table adds between two columns
    return max(map(len, console.aligned(columns, lines))) + rule * len(columns)


class Labels:
    """What people call each window, by its place, where several kinds are in use."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self._names = naming(lambda: windows)
        self.used = tuple(dict.fromkeys(window.label for window in windows))

    def of(self, span: Span) -> str:
        """A window that none of the others is must be an order's, where orders have any."""
        name = self._names(span)[0]
        meant = name != Order.label or name in self.used
        return name if meant else format_duration(span.length_ns)

    def of_row(self, row: Row) -> str:
        """Of the window of a row."""
        return self.of(row.span)


def run_rows(rows: Iterable[Row], windows: Sequence[Window]) -> list[Row]:
    """The rows that sum a run up: of the longest of the windows in use."""
    found = rows_in(rows, longest(windows))
    return [row for row in found if row.kpi != ORDER_NUMBER and not is_alarm(row)]


def kpi_tables(rows: Sequence[Row]) -> list[Table]:
    """A table for every kind of asset, then one of the network."""
    known = kpis.load()
    last: dict[tuple[Asset, str], Row] = {}
    for row in sorted(rows, key=lambda row: row.window_start_ns):
        last[row.asset, row.kpi] = row
    of_asset: dict[Asset, dict[str, float | None]] = {}
    for (asset, kpi), row in last.items():
        of_asset.setdefault(asset, {})[kpi] = row.value
    groups: dict[tuple[str, ...], list[Asset]] = {}
    for asset, values in of_asset.items():
        own = [name for name in values if not _of_network(known[name])]
        own = [name for name in own if name in _FIRST] or own
        if asset.name != ALL and own:
            groups.setdefault(tuple(sorted(own, key=_place)), []).append(asset)
    tables = [
        _table(names, _with_total(names, sorted(assets), of_asset), of_asset, known)
        for names, assets in sorted(groups.items(), key=lambda item: _place(item[0][0]))
    ]
    network = tuple(name for name in sorted(known) if _of_network(known[name]))
    places = sorted(
        asset
        for asset, values in of_asset.items()
        if asset.name == ALL
        and any(values.get(name) is not None for name in network)
        and not _is_only_line(asset, of_asset)
    )
    if places:
        tables.append(_table(network, places, of_asset, known))
    return tables


def _with_total(
    names: tuple[str, ...], assets: list[Asset], of_asset: dict[Asset, dict[str, float | None]]
) -> list[Asset]:
    """The assets of a kind, and below them the smallest group that holds them all."""
    if len(assets) < 2:
        return assets
    for level in (3, 2, 1):
        groups = {Asset(*a[:level], *(ALL,) * (4 - level)) for a in assets}
        if len(groups) == 1:
            group = groups.pop()
            return [*assets, group] if set(names) & of_asset.get(group, {}).keys() else assets
    return assets


def _table(
    names: tuple[str, ...],
    assets: Sequence[Asset],
    of_asset: dict[Asset, dict[str, float | None]],
    known: dict[str, Kpi],
) -> Table:
    kinds = frozenset(known[names[0]].kinds)
    for name in names:
        kinds &= set(known[name].kinds)

    def value(asset: Asset, name: str) -> float | None:
        if asset.name == ALL and not kinds <= set(known[name].pooled):
            return None  # the group's value is of other kinds of machines
        return _shown(of_asset[asset].get(name), known[name])

    heads = tuple(
        name if known[name].index else f"{name} {_SHORT.get(known[name].unit, known[name].unit)}"
        for name in names
    )
    lines = tuple(tuple(value(asset, name) for name in names) for asset in assets)
    if any(asset.name != ALL for asset in assets):
        parents = {asset[:3] for asset in assets if asset.name != ALL}
        if len(parents) == 1:
            title = "/".join(parents.pop())
            own = tuple("all" if asset.name == ALL else asset.name for asset in assets)
            return Table(title, own, heads, lines)
        return Table("", tuple(map(asset_path, assets)), heads, lines)
    own = tuple(asset_path(asset).rpartition("/")[2] for asset in assets)
    return Table("one-way delay per message, and the service of control traffic", own, heads, lines)


def _is_only_line(group: Asset, of_asset: dict[Asset, dict[str, float | None]]) -> bool:
    """Whether a line is all there is of its area, which is shown."""
    if group.line == ALL:
        return False
    lines = {a.line for a in of_asset if a[:2] == group[:2] and a.name == ALL and a.line != ALL}
    return len(lines) == 1


def _shown(value: float | None, kpi: Kpi) -> float | None:
    if value is None:
        return None
    if kpi.unit.startswith("{") and value.is_integer():
        return int(value)  # a count
    return value * 100 if kpi.is_share else value


def _of_network(kpi: Kpi) -> bool:
    return not kpi.kinds


def _place(name: str) -> tuple[int, str]:
    return (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)


def ledger_lines(account: Account) -> list[str]:
    """The sums, each with its parts, what was seen beside them, and whether they close."""
    ledger = account.ledger
    lost = account.lost.total()
    causes = f" ({_causes(account.lost)})" if lost else ""
    rejected = ledger.rejected.total()
    reasons = f" ({_causes(ledger.rejected)})" if rejected else ""
    unusable = account.unusable.total()
    lines: list[str] = []
    under_way = f" + under way {account.under_way:,}" if account.under_way else ""
    if account.made is not None:
        lines.append(
            f"made {account.made:,} = lost {lost:,}{causes} + shed {account.shed:,}"
            f" + delivered {account.delivered:,}{under_way}"
        )
    lines += [
        f"received {ledger.received:,} = accepted {ledger.accepted:,}"
        f" + duplicate {ledger.duplicate:,} + rejected {rejected:,}{reasons}",
        f"accepted {ledger.accepted:,} = on time {ledger.on_time:,} + late {ledger.late:,}"
        f" + too late {ledger.too_late:,}",
    ]
    beside = {"reordered": ledger.reordered, "rebooted": ledger.rebooted}
    if any(beside.values()):
        lines.append(", ".join(f"{what} {count:,}" for what, count in beside.items() if count))
    if unusable:
        lines.append(
            f"unusable {unusable:,} ({_causes(account.unusable)}), the first {KEPT_REJECTS:,} kept"
        )
    lines.append("the sums close" if account.closes else "THE SUMS DO NOT CLOSE")
    return lines


def feed_lines(feed: Feed) -> list[str]:
    """Where the rows that were offered to a feed went, and why some did not arrive."""
    fed = feed.fed
    rest = {"refused by the broker": fed.refused, "replaced by a later revision": fed.replaced,
            "dropped from a full queue": fed.dropped, "not delivered": fed.waiting}  # fmt: skip
    more = "".join(f" + {why} {count:,}" for why, count in rest.items() if count)
    lines = [
        f"Feed to {feed.address}",
        f"rows {fed.offered:,} = delivered {fed.delivered:,} + withheld {fed.withheld:,}{more}",
    ]
    if fed.waiting:
        why = feed.trouble or "it takes them too slowly"
        lines.append(f"the broker of the feed: {why}; the recording has every row")
    return lines


def note_silence(engine: Engine) -> None:
    """Say which assets made no KPI of their own, and why."""
    for asset in sorted(engine.unannounced):
        console.note(f"{asset_path(asset)} sent samples and never a birth: no KPI is made of it")
    for asset, kind in engine.without_kpis():
        console.note(
            f"{asset_path(asset)} is a {kind}, and no KPI fits that kind and its channels;"
            " `beilun kpis` says what each needs"
        )


def path_lines(hops: Hops) -> list[str]:
    """The real path, hop by hop, in one table of text."""
    told = hops.summary()
    columns = ("hop", "n", "p50 ms", "p99 ms", "max ms")
    return console.aligned(columns, [(hop, *told[hop].values()) for hop in told])


def _causes(counts: dict[str, int]) -> str:
    return ", ".join(f"{why} {count:,}" for why, count in sorted(counts.items()) if count)


def show_tables(rows: Sequence[Row]) -> None:
    """Print the KPI tables, as wide as the terminal; a pipe is as wide as it takes."""
    terminal = console.is_terminal(sys.stdout)
    width = shutil.get_terminal_size().columns if terminal else sys.maxsize
    shown: set[str] = set()
    for table in kpi_tables(rows):
        table.show(width)
        shown.update(head.partition(" ")[0] for head in table.kpis)
    if more := {row.kpi for row in rows if row.value is not None} - shown:
        console.out(f"{len(more)} more KPIs have values; `beilun watch FILE --once` shows all", "")


def as_json(row: Row, labels: Labels) -> dict[str, object]:
    """One row for ``--json``: keys with units, null for no data."""
    return {
        "asset": asset_path(row.asset),
        "kpi": row.kpi,
        "window": labels.of_row(row),
        "window_start": format_time(row.window_start_ns),
        "window_s": row.window_length_ns // NS_PER_S,
        "value": row.value,
        "unit": row.unit,
        "n": row.n,
        "late": row.late,
        "revision": row.revision,
    }
