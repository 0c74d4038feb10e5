"""The embedded KPI store: rows upserted by key, in the recording's own SQLite file."""

import itertools
import sqlite3
from collections.abc import Iterable, Iterator
from operator import attrgetter

from edge.rows import Row
from ingest.messages import Asset
from ingest.recording import Recording

_SCHEMA = """
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY, site TEXT NOT NULL, area TEXT NOT NULL, line TEXT NOT NULL,
    asset TEXT NOT NULL, kpi TEXT NOT NULL, window_length_ns INTEGER NOT NULL, unit TEXT NOT NULL,
    UNIQUE (site, area, line, asset, kpi, window_length_ns)
);
CREATE TABLE IF NOT EXISTS row (
    series INTEGER NOT NULL REFERENCES series, window_start_ns INTEGER NOT NULL, value REAL,
    n INTEGER NOT NULL, late INTEGER NOT NULL, revision INTEGER NOT NULL,
    PRIMARY KEY (series, window_start_ns)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gone (
    series INTEGER NOT NULL REFERENCES series, window_start_ns INTEGER NOT NULL,
    revision INTEGER NOT NULL, PRIMARY KEY (series, window_start_ns)
) WITHOUT ROWID;
CREATE VIEW IF NOT EXISTS kpi_rows AS
    SELECT site, area, line, asset, kpi, window_start_ns, window_length_ns, value, n, late,
           revision, unit
    FROM row JOIN series ON series.id = row.series;
"""

_UPSERT = """
INSERT INTO row VALUES (?1, ?2, ?3, ?4, ?5, coalesce(
    (SELECT revision + 1 FROM gone WHERE series = ?1 AND window_start_ns = ?2), 0
)) ON CONFLICT (series, window_start_ns) DO UPDATE
SET value = excluded.value, n = excluded.n, late = excluded.late, revision = revision + 1
WHERE value IS NOT excluded.value OR n <> excluded.n OR late <> excluded.late
"""

_LEAVE = """
INSERT INTO gone SELECT series, window_start_ns, revision + 1 FROM row
WHERE series = ? AND window_start_ns = ? ON CONFLICT DO UPDATE SET revision = excluded.revision
"""
_DELETE = "DELETE FROM row WHERE series = ? AND window_start_ns = ?"
_REVISION = """
SELECT max(revision) FROM (
    SELECT revision FROM row WHERE series = ?1 AND window_start_ns = ?2 UNION ALL
    SELECT revision FROM gone WHERE series = ?1 AND window_start_ns = ?2
)
"""

_SELECT = """
SELECT site, area, line, asset, kpi, window_start_ns, window_length_ns, value, n, late, unit,
       revision
FROM kpi_rows
"""


class RowStore:
    """Rows of a recording. A row written again as it was stays as it is; a changed one is the next
    revision of its key, and so is one that is gone, or that is back: only ``gone`` remembers it."""

    def __init__(self, recording: Recording) -> None:
        self._db = recording.db
        self._series: dict[tuple[Asset, str, int], int] = {}

    def prepare(self) -> None:
        """Make the tables where they are missing; for the one writer."""
        self._db.executescript(_SCHEMA)

    def write(self, rows: Iterable[Row]) -> None:
        """Upsert rows in one transaction."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for gone, some in itertools.groupby(rows, key=attrgetter("gone")):
                if gone:
                    keys = [(self._series_of(row), row.window_start_ns) for row in some]
                    self._db.executemany(_LEAVE, keys)
                    self._db.executemany(_DELETE, keys)
                    continue
                values = [
                    (self._series_of(row), row.window_start_ns, row.value, row.n, row.late)
                    for row in some
                ]
                self._db.executemany(_UPSERT, values)
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            self._series.clear()
            raise

    def revision(self, row: Row) -> int:
        """At which revision a row that was written is stored, or was taken away."""
        key = (self._series_of(row), row.window_start_ns)
        (found,) = self._db.execute(_REVISION, key).fetchone()
        return int(found or 0)  # none: taken away before it was ever stored

    def clear(self) -> None:
        """Forget all rows, to compute them again from the journal."""
        self._db.executescript("DELETE FROM row; DELETE FROM gone")

    def rows(self, *, window_length_ns: int | None = None) -> Iterator[Row]:
        """The last revision of every row, optionally of one window length."""
        where, args = ("", ()) if window_length_ns is None else (
            "WHERE window_length_ns = ?", (window_length_ns,))  # fmt: skip
        try:
            found = self._db.execute(_SELECT + where, args)
        except sqlite3.OperationalError:
            return  # a recording no edge ever ran on has no such table
        for site, area, line, name, *rest in found:
            yield Row(Asset(site, area, line, name), *rest)

    def _series_of(self, row: Row) -> int:
        key = (row.asset, row.kpi, row.window_length_ns)
        known = self._series.get(key)
        if known is None:
            values = (*row.asset, row.kpi, row.window_length_ns, row.unit)
            self._db.execute(
                "INSERT OR IGNORE INTO series"
                " (site, area, line, asset, kpi, window_length_ns, unit)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                values,
            )
            found = self._db.execute(
                "SELECT id FROM series WHERE site = ? AND area = ? AND line = ? AND asset = ?"
                " AND kpi = ? AND window_length_ns = ?",
                values[:6],
            ).fetchone()
            known = self._series[key] = int(found[0])
        return known
