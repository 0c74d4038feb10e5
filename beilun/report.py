"""The end of a run for people: KPI tables, ledger, verdicts, files, seed and digest."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from beilun import console
from beilun.verdict import asset_path
from config.units import NS_PER_S, format_time
from edge import kpis
from edge.kpi import Kpi
from edge.pipeline import Account
from edge.rows import ALL, Row
from ingest.messages import Asset

_FIRST = (
    "line_speed", "running_speed", "good_length", "energy_per_metre", "oee", "availability",
    "effectiveness", "quality_ratio", "output", "energy_per_unit", "arm_cycle_time",
    "agv_utilisation", "wip_turnover_days", "wip", "throughput",
)  # fmt: skip
"""Columns in the order people look for them; the others follow by name."""

_SHORT = {"1": "%", "{piece}": "pcs", "kW.h/{piece}": "kWh/pc", "kW.h/m": "kWh/m",
          "{piece}/h": "pcs/h", "d": "days", "{event}": "n"}  # fmt: skip
"""UCUM units as a column's head shows them."""


WIDEST = 8
"""A table of more KPIs stands upright, a line for each."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table: head, and lines of cells."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[object, ...], ...]


def run_rows(rows: Iterable[Row]) -> list[Row]:
    """The rows of the longest windows, the last of each key."""
    found = list(rows)
    longest = max((row.window_length_ns for row in found), default=0)
    return [row for row in found if row.window_length_ns == longest]


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
        if asset.name == ALL and any(values.get(name) is not None for name in network)
    )
    if places:
        tables.append(_table(network, places, of_asset, known, "one-way delay per message"))
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
    title: str = "",
) -> Table:
    kinds = frozenset(known[names[0]].kinds)
    for name in names:
        kinds &= set(known[name].kinds)

    def value(asset: Asset, name: str) -> float | None:
        if asset.name == ALL and not kinds <= set(known[name].pooled):
            return None  # the group's value is of other kinds of machines
        return _shown(of_asset[asset].get(name), known[name])

    heads = [f"{name} {_SHORT.get(known[name].unit, known[name].unit)}" for name in names]
    if len(names) > WIDEST:
        upright = [
            (head, *(value(asset, name) for asset in assets))
            for head, name in zip(heads, names, strict=True)
        ]
        return Table(title, ("KPI", *map(asset_path, assets)), tuple(upright))
    columns = ["asset", *heads]
    lines = [(asset_path(asset), *(value(asset, name) for name in names)) for asset in assets]
    return Table(title, tuple(columns), tuple(lines))


def _shown(value: float | None, kpi: Kpi) -> float | None:
    return value * 100 if value is not None and kpi.unit == "1" else value


def _of_network(kpi: Kpi) -> bool:
    return not kpi.kinds and not kpi.needs


def _place(name: str) -> tuple[int, str]:
    return (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)


def ledger_lines(account: Account) -> list[str]:
    """The sums, each with its parts, and whether they close."""
    ledger = account.ledger
    lost = account.lost.total()
    causes = f" ({_causes(account.lost)})" if lost else ""
    rejected = ledger.rejected.total()
    reasons = f" ({_causes(ledger.rejected)})" if rejected else ""
    unusable = account.unusable.total()
    lines: list[str] = []
    delivered = ledger.received - ledger.duplicate - ledger.rejected["other_run"]
    if account.made is not None:
        lines.append(
            f"made {account.made:,} = lost {lost:,}{causes} + shed {account.shed:,}"
            f" + delivered {delivered:,}"
        )
    lines += [
        f"received {ledger.received:,} = accepted {ledger.accepted:,}"
        f" + duplicate {ledger.duplicate:,} + rejected {rejected:,}{reasons}",
        f"accepted {ledger.accepted:,} = on time {ledger.on_time:,} + late {ledger.late:,}"
        f" + too late {ledger.too_late:,}",
    ]
    if unusable:
        lines.append(f"unusable {unusable:,} ({_causes(account.unusable)}), kept for inspection")
    lines.append("the sums close" if account.closes else "THE SUMS DO NOT CLOSE")
    return lines


def _causes(counts: dict[str, int]) -> str:
    return ", ".join(f"{why} {count:,}" for why, count in sorted(counts.items()) if count)


def show_tables(rows: Sequence[Row]) -> None:
    """Print the KPI tables."""
    for table in kpi_tables(rows):
        console.table(table.columns, table.lines, table.title)
        if not console.is_terminal(__import__("sys").stdout):
            console.out("")


def as_json(row: Row) -> dict[str, object]:
    """One row for ``--json``: keys with units, null for no data."""
    return {
        "asset": asset_path(row.asset),
        "kpi": row.kpi,
        "window_start": format_time(row.window_start_ns),
        "window_s": row.window_length_ns // NS_PER_S,
        "value": row.value,
        "unit": row.unit,
        "n": row.n,
        "late": row.late,
        "revision": row.revision,
    }
