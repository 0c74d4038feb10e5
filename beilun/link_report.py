"""The modelled link at the end of a run: messages and delays by slice and hop, in virtual time."""

from collections.abc import Iterable, Sequence

from beilun import console
from config.units import format_duration
from edge.kpis.network import HOPS
from edge.policy import Policy
from edge.rows import Row
from ingest.messages import Asset

_MESSAGES = "messages"
"""A KPI that the network's own assets have, and they alone."""
_COLUMNS = {
    _MESSAGES: "messages",
    "delay_p50": "p50 ms",
    "delay_p99": "p99 ms",
    "within_10ms": "within 10 ms %",
    **{f"{hop}_delay": f"{hop} ms" for hop in HOPS},
}
_LINE = "slices"
"""Where the assets that stand for slices are, below the area of the network."""


def observers(rows: Iterable[Row]) -> frozenset[Asset]:
    """The network's own assets: cells, slices, groups of devices."""
    return frozenset(row.asset for row in rows if row.kpi == _MESSAGES)


def without_observers(rows: Sequence[Row]) -> list[Row]:
    """The rows of the factory: what the tables of KPIs show."""
    apart = observers(rows)
    return [row for row in rows if row.asset not in apart]


def link_lines(rows: Sequence[Row], policy: Policy) -> list[str]:
    """The last window of each slice among ``rows``, all of one length, and how long a row waits in
    the edge by its policy; nothing where no slice was reported on."""
    last: dict[Asset, dict[str, float | None]] = {}
    slices = {asset for asset in observers(rows) if asset.line == _LINE}
    for row in sorted(rows, key=lambda row: row.window_start_ns):
        if row.asset in slices:
            last.setdefault(row.asset, {})[row.kpi] = row.value
    if not last:
        return []
    table = [
        (asset.name, *(_shown(kpi, values.get(kpi)) for kpi in _COLUMNS))
        for asset, values in sorted(last.items())
    ]
    after, pane = policy.lateness_ns, policy.pane_ns
    return [
        "Modelled link (virtual time)",
        *console.aligned(("slice", *_COLUMNS.values()), table),
        f"window: a row is final {format_duration(after)} after its window has ended, which is"
        f" {format_duration(after)} to {format_duration(after + pane)} after a sample of the last"
        f" {format_duration(pane)}",
    ]


def _shown(kpi: str, value: float | None) -> float | None:
    if value is None:
        return None
    if kpi == _MESSAGES:
        return int(value)
    return value * 100 if kpi == "within_10ms" else value
