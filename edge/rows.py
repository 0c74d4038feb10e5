"""KPI rows, and the digest of a run."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from ingest.messages import Asset

ALL = "-"
"""In a lower level of an asset: the row is for everything below the level above."""


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

    @property
    def key(self) -> tuple[Asset, str, int, int]:
        """What a store upserts by."""
        return self.asset, self.kpi, self.window_length_ns, self.window_start_ns


def digest(rows: Iterable[Row]) -> str:
    """Fingerprint of the last revisions: value to the bit, n, late, unit; order does not matter."""
    total = hashlib.sha256()
    for row in sorted(rows, key=lambda row: row.key):
        value = "null" if row.value is None else row.value.hex()
        words = (*row.asset, row.kpi, row.window_start_ns, row.window_length_ns, value, row.n,
                 row.late, row.unit)  # fmt: skip
        total.update("\x1f".join(map(str, words)).encode() + b"\n")
    return total.hexdigest()
