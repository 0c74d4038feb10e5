"""KPI rows, and the digest of a run."""

import bisect
import hashlib
import heapq
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from operator import attrgetter
from typing import NamedTuple

from config.windows import Order, Span, Window, lies
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

    @property
    def span(self) -> Span:
        """Where its window lies."""
        return Span(self.window_start_ns, self.window_start_ns + self.window_length_ns)


ORDER_NUMBER = "order_number"
"""In the place of a KPI: the number of the order whose window it is. Only windows of orders have
such a row, one each, so it also tells them from others of the same length."""


class LastRows:
    """What holds in the end of rows as they come out, in memory: a store that is no file."""

    def __init__(self) -> None:
        self.by_key: dict[Key, Row] = {}
        self._starts: dict[tuple[Asset, str], dict[int, list[int]]] = {}
        """By the length of the windows, in order."""

    def write(self, rows: Iterable[Row]) -> None:
        """Keep rows; one that is gone is kept no longer."""
        for row in rows:
            key, start_ns = row.key, row.window_start_ns
            lengths = self._starts.setdefault((row.asset, row.kpi), {})
            starts = lengths.setdefault(row.window_length_ns, [])
            if row.gone:
                if self.by_key.pop(key, None) is not None:
                    starts.remove(start_ns)
                continue
            if key not in self.by_key:
                if starts and start_ns < starts[-1]:
                    bisect.insort(starts, start_ns)
                else:
                    starts.append(start_ns)
            self.by_key[key] = row

    def rows(self) -> list[Row]:
        """All that is kept."""
        return list(self.by_key.values())

    def assets(self) -> list[Asset]:
        """Every asset and group that has a row."""
        return sorted({asset for asset, _ in self._starts})

    def since(
        self, asset: Asset, kpi: str, t_ns: int, length_ns: int | None = None
    ) -> Iterator[Row]:
        """Rows of windows that begin then or after, oldest first; of one length, or of all."""

        def oldest_first(length: int, starts: list[int]) -> Iterator[Row]:
            for at in range(bisect.bisect_left(starts, t_ns), len(starts)):
                yield self.by_key[asset, kpi, length, starts[at]]

        parts = [oldest_first(*each) for each in self._along(asset, kpi, length_ns)]
        return heapq.merge(*parts, key=attrgetter("window_start_ns"))

    def before(
        self, asset: Asset, kpi: str, t_ns: int, length_ns: int | None = None
    ) -> Iterator[Row]:
        """Rows of windows that begin before then, newest first; of one length, or of all."""

        def newest_first(length: int, starts: list[int]) -> Iterator[Row]:
            for at in range(bisect.bisect_left(starts, t_ns) - 1, -1, -1):
                yield self.by_key[asset, kpi, length, starts[at]]

        parts = [newest_first(*each) for each in self._along(asset, kpi, length_ns)]
        return heapq.merge(*parts, key=attrgetter("window_start_ns"), reverse=True)

    def named(self, glob: str) -> Iterator[Row]:
        """Every row whose KPI's name matches."""
        return (row for row in self.rows() if fnmatchcase(row.kpi, glob))

    def _along(self, asset: Asset, kpi: str, length_ns: int | None) -> list[tuple[int, list[int]]]:
        lengths = self._starts.get((asset, kpi), {})
        return [each for each in lengths.items() if length_ns in (None, each[0])]


def last_rows(rows: Iterable[Row]) -> dict[Key, Row]:
    """Of rows as they came out, what holds in the end."""
    kept = LastRows()
    kept.write(rows)
    return kept.by_key


def rows_in(rows: Iterable[Row], kind: Window) -> list[Row]:
    """Rows whose windows are of one kind."""
    found = list(rows)
    if isinstance(kind, Order):
        orders = {(row.asset, row.span) for row in found if row.kpi == ORDER_NUMBER}
        return [row for row in found if (row.asset, row.span) in orders]
    return [row for row in found if row.kpi != ORDER_NUMBER and lies(kind, row.span)]


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
