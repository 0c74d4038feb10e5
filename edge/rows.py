"""KPI rows, and the digest of a run."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from config.windows import Order, Span, Window
from ingest.messages import Asset

ALL = "-"
"""In a lower level of an asset: the row is for everything below the level above."""


Key = tuple[Asset, str, int, int]


class Row(NamedTuple):
    """One KPI of one asset (or group) and window; ``value`` in ``unit``, ``None`` = no evidence.

    ``n`` counts the samples in the window, ``late`` those that came after their pane was closed.
    """

    asset: Asset
    kpi: str
    window_start_ns: int
    window_length_ns: int
    value: float | None
    n: int
    late: int
    unit: str
    revision: int = 0
    gone: bool = False
    """There is no such window after all (the end of an order moved): whoever has the row drops it,
    and its numbers mean nothing."""

    @property
    def key(self) -> Key:
        """What a store upserts by."""
        return self.asset, self.kpi, self.window_length_ns, self.window_start_ns


ORDER_NUMBER = "order_number"
"""In the place of a KPI: the number of the order whose window it is. Only windows of orders have
such a row, one each, so it also tells them from others of the same length."""


def last_rows(rows: Iterable[Row]) -> dict[Key, Row]:
    """Of rows as they came out, what holds in the end."""
    kept: dict[Key, Row] = {}
    for row in rows:
        if row.gone:
            kept.pop(row.key, None)
        else:
            kept[row.key] = row
    return kept


def rows_in(rows: Iterable[Row], kind: Window) -> list[Row]:
    """Rows whose windows are of one kind."""
    found = list(rows)
    if isinstance(kind, Order):
        orders = {(r.asset, r.window_start_ns, r.window_length_ns)
                  for r in found if r.kpi == ORDER_NUMBER}  # fmt: skip
        return [r for r in found if (r.asset, r.window_start_ns, r.window_length_ns) in orders]
    places = {row[2:4] for row in found}
    meant = {p for p in places if Span(p[0], p[0] + p[1]) in kind.over(p[0], p[0] + 1)}
    return [row for row in found if row[2:4] in meant and row.kpi != ORDER_NUMBER]


def digest(rows: Iterable[Row]) -> str:
    """Fingerprint of the last revisions: value to the bit, n, late, unit; order does not matter,
    and rows that are gone do not count."""
    total = hashlib.sha256()
    for row in sorted((row for row in rows if not row.gone), key=lambda row: row.key):
        value = "null" if row.value is None else row.value.hex()
        words = (*row.asset, row.kpi, row.window_start_ns, row.window_length_ns, value, row.n,
                 row.late, row.unit)  # fmt: skip
        total.update("\x1f".join(map(str, words)).encode() + b"\n")
    return total.hexdigest()
