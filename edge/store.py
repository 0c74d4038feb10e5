"""The embedded KPI store: rows upserted by key, in the recording's own SQLite file."""

import heapq
import itertools
from collections.abc import Collection, Iterable, Iterator
from operator import attrgetter

from config.globs import asset_matches
from edge.rows import ALL, Row
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
CREATE TABLE IF NOT EXISTS change (
    id INTEGER PRIMARY KEY AUTOINCREMENT, series INTEGER NOT NULL, window_start_ns INTEGER NOT NULL
);
CREATE VIEW IF NOT EXISTS kpi_rows AS
    SELECT site, area, line, asset, kpi, window_start_ns, window_length_ns, value, n, late,
           revision, unit
    FROM row JOIN series ON series.id = row.series;
"""

KEPT_CHANGES = 100_000
"""How many of the newest changes of rows are kept, for whoever follows them; up to a tenth more
are, so that the old ones leave many at a time."""

_TELL = """
CREATE TEMP TRIGGER IF NOT EXISTS tell_{table}_{event} AFTER {event} ON main.{table} BEGIN
    INSERT INTO change (series, window_start_ns) VALUES (NEW.series, NEW.window_start_ns);
END
"""
"""A change names its row and does not repeat it. It is in the transaction that changes the row, and
a row that is written again as it was makes none."""
_ENDS = (
    "SELECT id FROM change ORDER BY id LIMIT 1",
    "SELECT id FROM change ORDER BY id DESC LIMIT 1",
)

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
FROM series JOIN row ON row.series = series.id
"""


def _means(glob: str, *levels: str) -> bool:
    return asset_matches(glob, "/".join(level for level in levels if level != ALL))


class RowStore:
    """Rows of a recording. A row written again as it was stays as it is; a changed one is the next
    revision of its key, and so is one that is gone, or that is back: only ``gone`` remembers it."""

    def __init__(self, recording: Recording) -> None:
        self._db = recording.db
        self._series: dict[tuple[Asset, str, int], int] = {}

    def prepare(self) -> None:
        """Make the tables where they are missing, and keep changes from now on: for the writer."""
        self._db.executescript(_SCHEMA)
        for table in ("row", "gone"):
            for event in ("INSERT", "UPDATE"):
                self._db.execute(_TELL.format(table=table, event=event))

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
            self._forget()
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            self._series.clear()
            raise

    def _forget(self) -> None:
        """Let go of the oldest changes where there are too many."""
        (oldest,), (newest,) = (self._db.execute(end).fetchone() or (0,) for end in _ENDS)
        if newest - oldest > 1.1 * KEPT_CHANGES:
            self._db.execute("DELETE FROM change WHERE id <= ?", (newest - KEPT_CHANGES,))

    def revision(self, row: Row) -> int:
        """At which revision a row that was written is stored, or was taken away."""
        key = (self._series_of(row), row.window_start_ns)
        (found,) = self._db.execute(_REVISION, key).fetchone()
        return int(found or 0)  # none: taken away before it was ever stored

    def clear(self) -> None:
        """Forget all rows, to compute them again from the journal."""
        self._db.executescript("DELETE FROM row; DELETE FROM gone")

    def rows(
        self,
        *,
        kpis: Collection[str] = (),
        asset: str = "",
        window_length_ns: int | None = None,
    ) -> Iterator[Row]:
        """The last revision of every row, or of those of some KPIs, of assets by a glob over names
        or paths, of windows of one length: other series are not read."""
        where: list[str] = []
        args: list[str | int] = [*kpis]
        if kpis:
            where.append(f"kpi IN ({', '.join('?' * len(kpis))})")
        if asset:
            self._db.create_function("means", 5, _means, deterministic=True)
            where.append("means(?, site, area, line, asset)")
            args.append(asset)
        if window_length_ns is not None:
            where.append("window_length_ns = ?")
            args.append(window_length_ns)
        if not self._exists():
            return
        found = self._db.execute(_SELECT + (f"WHERE {' AND '.join(where)}" if where else ""), args)
        for site, area, line, name, *rest in found:
            yield Row(Asset(site, area, line, name), *rest)

    def since(
        self, asset: Asset, kpi: str, t_ns: int, length_ns: int | None = None
    ) -> Iterator[Row]:
        """Rows of windows that begin then or after, oldest first; of one length, or of all."""
        found = self._along("row.window_start_ns >= ? ORDER BY 2", asset, kpi, t_ns, length_ns)
        return heapq.merge(*found, key=attrgetter("window_start_ns"))

    def before(
        self, asset: Asset, kpi: str, t_ns: int, length_ns: int | None = None
    ) -> Iterator[Row]:
        """Rows of windows that begin before then, newest first; of one length, or of all."""
        found = self._along("row.window_start_ns < ? ORDER BY 2 DESC", asset, kpi, t_ns, length_ns)
        return heapq.merge(*found, key=attrgetter("window_start_ns"), reverse=True)

    def named(self, glob: str) -> Iterator[Row]:
        """Every row whose KPI's name matches."""
        if not self._exists():
            return
        for site, area, line, name, *rest in self._db.execute(
            _SELECT + "WHERE kpi GLOB ?", (glob,)
        ):
            yield Row(Asset(site, area, line, name), *rest)

    def _along(
        self, where: str, asset: Asset, kpi: str, t_ns: int, length_ns: int | None
    ) -> list[Iterator[Row]]:
        """Some rows of each series of one KPI of one asset, by its index."""
        series = self._db.execute(
            "SELECT id, window_length_ns, unit FROM series WHERE site = ? AND area = ? AND line = ?"
            " AND asset = ? AND kpi = ? AND (?6 IS NULL OR window_length_ns = ?6)",
            (*asset, kpi, length_ns),
        ).fetchall()
        query = (
            "SELECT value, window_start_ns, n, late, revision FROM row"
            f" WHERE series = ? AND {where}"
        )

        def rows(number: int, length: int, unit: str) -> Iterator[Row]:
            for value, start_ns, n, late, revision in self._db.execute(query, (number, t_ns)):
                yield Row(asset, kpi, start_ns, length, value, n, late, unit, revision)

        return [rows(*each) for each in series]

    def assets(self) -> list[Asset]:
        """Every asset and group that has a row."""
        if not self._exists():
            return []
        found = self._db.execute(
            "SELECT DISTINCT site, area, line, asset FROM series"
            " WHERE EXISTS (SELECT 1 FROM row WHERE row.series = series.id)"
        )
        return sorted(map(Asset._make, found))

    def _exists(self) -> bool:
        """Whether there are tables: a recording no edge ever ran on has none."""
        found = self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'series'")
        return found.fetchone() is not None

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
