"""What a remote store or a webhook is still to be told, in the recording's own transactions.

Theory of operation
===================

    rows upserted ──trigger──► outbox ──pending──► forwarder ──accepted──► kept 60 s ──► forgotten
       (one transaction)         │ ▲                    │
                     too many:   │ └──── suspect ◄──────┤  the server may have lost its last minute
                     dropped ◄───┘                      └► dead letters: refused for what they say

Triggers write an entry a changed row, in the transaction that changes it: a row is in the store of
the recording and owed to the remote one at the same instant, or neither, whenever the process dies.
An entry names its row and does not repeat it, so a row that is amended while it waits is sent once,
as it is then. The triggers are temporary: they are there while somebody means to empty the outbox.
Each destination has an outbox of its own, with tables and triggers of its own, and what is not
there costs a row nothing.

    queued = accepted + replaced + dead + dropped + waiting
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from config.windows import Window, naming
from edge.rows import Row
from edge.sinks.lines import line_of
from ingest.messages import Asset
from ingest.recording import Recording

_SCHEMA = """
CREATE TABLE IF NOT EXISTS {box} (
    id INTEGER PRIMARY KEY AUTOINCREMENT, series INTEGER NOT NULL, window_start_ns INTEGER NOT NULL,
    made_s REAL NOT NULL, accepted_s REAL, times INTEGER NOT NULL DEFAULT 0,
    UNIQUE (series, window_start_ns)
);
CREATE INDEX IF NOT EXISTS {box}_waiting ON {box} (id) WHERE accepted_s IS NULL;
CREATE INDEX IF NOT EXISTS {box}_accepted ON {box} (accepted_s) WHERE accepted_s IS NOT NULL;
CREATE TABLE IF NOT EXISTS {dead} (
    id INTEGER PRIMARY KEY, line TEXT NOT NULL, reason TEXT NOT NULL, at_s REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS {box}_count (entry TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO {box}_count VALUES
    ('queued', 0), ('accepted', 0), ('resent', 0), ('replaced', 0), ('dead', 0), ('dropped', 0);
"""

_OWE = """
CREATE TEMP TRIGGER {box}_{table}_{event} AFTER {event} ON main.{table} {of} BEGIN
    UPDATE {box}_count SET n = n + 1 WHERE entry = 'queued';
    UPDATE {box}_count SET n = n + 1 WHERE entry = 'replaced' AND EXISTS (
        SELECT 1 FROM {box} WHERE series = NEW.series AND window_start_ns = NEW.window_start_ns
        AND accepted_s IS NULL AND times = 0
    );
    DELETE FROM {box} WHERE series = NEW.series AND window_start_ns = NEW.window_start_ns;
    INSERT INTO {box} (series, window_start_ns, made_s) VALUES (
        NEW.series, NEW.window_start_ns, (julianday('now') - 2440587.5) * 86400.0
    );
END
"""

_OWE_ALL = """
BEGIN IMMEDIATE;
UPDATE {box}_count SET n = n + (
    SELECT count(*) FROM row r JOIN series s ON s.id = r.series WHERE {of} AND NOT EXISTS (
        SELECT 1 FROM {box} o WHERE o.series = r.series AND o.window_start_ns = r.window_start_ns
    )
) WHERE entry = 'queued';
INSERT OR IGNORE INTO {box} (series, window_start_ns, made_s)
    SELECT series, window_start_ns, (julianday('now') - 2440587.5) * 86400.0
    FROM row r JOIN series s ON s.id = r.series WHERE {of} ORDER BY window_start_ns;
UPDATE {box} SET accepted_s = NULL;
COMMIT;
"""

_OF = "WHEN (SELECT kpi FROM main.series WHERE id = NEW.series) GLOB '{kpis}'"

_PENDING = """
SELECT o.id, o.times, s.site, s.area, s.line, s.asset, s.kpi, o.window_start_ns,
       s.window_length_ns, r.value, r.n, r.late, s.unit, r.revision, g.revision
FROM {box} o JOIN series s ON s.id = o.series
LEFT JOIN row r ON r.series = o.series AND r.window_start_ns = o.window_start_ns
LEFT JOIN gone g ON g.series = o.series AND g.window_start_ns = o.window_start_ns
WHERE o.accepted_s IS NULL ORDER BY o.id LIMIT ?
"""


class Entry(NamedTuple):
    """A row that is owed, in as many lines as its window has names."""

    number: int
    times: int
    """How often it was accepted before."""
    window_start_ns: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """Where the rows that were owed went; ``waiting`` are still owed.

    queued = accepted + replaced + dead + dropped + waiting
    """

    queued: int
    accepted: int
    """By the server, each row and revision once."""
    resent: int
    """Accepted again, after the server may have lost them."""
    replaced: int
    """Amended while they waited."""
    dead: int
    """Refused for what they say; `dead_letter` has them."""
    dropped: int
    """The oldest of a full outbox."""
    waiting: int
    again: int
    """Owed once more, for the server may have lost them."""
    oldest_s: float | None
    """When the oldest of those that wait was made, in seconds since the epoch."""

    @property
    def closes(self) -> bool:
        """Whether the sums close."""
        gone = self.accepted + self.replaced + self.dead + self.dropped
        return self.queued == gone + self.waiting


class Outbox:
    """The rows of a recording that are owed to one server; for the one who writes the recording.

    ``name`` tells destinations apart, and is empty for the store; ``kpis`` is a glob over the names
    of KPIs, empty for all; ``write`` makes what is sent of a row and the name of its window.
    """

    def __init__(
        self,
        recording: Recording,
        windows: Sequence[Window],
        *,
        most: int,
        name: str = "",
        kpis: str = "",
        write: Callable[[Row, str], str] = line_of,
        clock: Callable[[], float] = time.time,
    ) -> None:
        prefix = f"{name}_" if name else ""
        self._tables = {"box": f"{prefix}outbox", "dead": f"{prefix}dead_letter"}
        self._kpis = kpis
        self._line_of = write
        self._db = recording.db
        self._names = naming(lambda: windows)
        self._most = most
        self.now_s = clock
        self.new = False
        """Whether nothing was ever owed before ``prepare``."""

    def prepare(self) -> None:
        """Owe every row that changes from now on; the tables of the rows must be there."""
        self._db.executescript(self._sql(_SCHEMA))
        (queued,) = self._db.execute(
            self._sql("SELECT n FROM {box}_count WHERE entry = 'queued'")
        ).fetchone()
        self.new = queued == 0
        of = _OF.format(kpis=self._kpis) if self._kpis else ""
        for table in ("row", "gone"):
            for event in ("INSERT", "UPDATE"):
                self._db.execute(self._sql(_OWE, table=table, event=event, of=of))

    def owe_all(self) -> None:
        """Owe every row that is stored, be it accepted already or not."""
        self._db.executescript(self._sql(_SCHEMA))
        of = f"kpi GLOB '{self._kpis}'" if self._kpis else "1"
        self._db.executescript(self._sql(_OWE_ALL, of=of))

    def pending(self, most: int) -> list[Entry]:
        """The oldest entries that wait."""
        out: list[Entry] = []
        for number, times, *rest in self._db.execute(self._sql(_PENDING), (most,)).fetchall():
            site, area, line, name, kpi, start_ns, length_ns, *values = rest
            value, n, late, unit, revision, left = values
            gone = revision is None
            asset = Asset(site, area, line, name)
            if gone:
                row = Row(asset, kpi, start_ns, length_ns, None, 0, 0, unit, left or 0, gone=True)
            else:
                row = Row(asset, kpi, start_ns, length_ns, value, n, late, unit, revision)
            lines = tuple(self._line_of(row, called) for called in self._names(row.span))
            out.append(Entry(number, times, start_ns, lines))
        return out

    def accepted(self, entries: Sequence[Entry]) -> None:
        """The server took them. One that was amended meanwhile is another entry, and waits."""
        now_s = self.now_s()
        change = "UPDATE {box} SET accepted_s = ?2, times = times + 1 WHERE id = ?1"
        for entry, some in _by_first(entries, "accepted", "resent"):
            self._change(entry, change, [(each.number, now_s) for each in some])

    def bury(self, entry: Entry, reason: str) -> None:
        """The server does not take it, and never will."""
        now_s = self.now_s()
        self._db.executemany(
            self._sql("INSERT INTO {dead} (line, reason, at_s) VALUES (?, ?, ?)"),
            [(line, reason, now_s) for line in entry.lines],
        )
        self._leave([entry], "dead")

    def suspect(self, since_s: float) -> int:
        """Owe again what was accepted since then; tells how many."""
        found = self._db.execute(
            self._sql("UPDATE {box} SET accepted_s = NULL WHERE accepted_s >= ?"), (since_s,)
        )
        return found.rowcount

    def tidy(self, keep_s: float) -> None:
        """Forget what was accepted long enough before the server was last heard of, and drop the
        oldest of what is too much. Its silence does not count: if it died in it, what it took just
        before may be lost, however long ago that is once it is back."""
        heard_s = self.heard_s()
        if heard_s is not None:
            old = self._sql("DELETE FROM {box} WHERE accepted_s < ?")
            self._db.execute(old, (heard_s - keep_s,))
        over = self.waiting() - self._most
        if over > 0:
            self._leave(self.pending(over), "dropped")

    def heard_s(self) -> float | None:
        """When the server last took something of what is still kept."""
        (found,) = self._db.execute(self._sql("SELECT max(accepted_s) FROM {box}")).fetchone()
        return None if found is None else float(found)

    def waiting(self) -> int:
        """How many entries wait."""
        waiting = self._sql("SELECT count(*) FROM {box} WHERE accepted_s IS NULL")
        (n,) = self._db.execute(waiting).fetchone()
        return int(n)

    def counts(self) -> Counts:
        """The sums as they are now."""
        n = dict(self._db.execute(self._sql("SELECT entry, n FROM {box}_count")).fetchall())
        waiting, again, oldest_s = self._db.execute(
            self._sql(
                "SELECT count(*) FILTER (WHERE times = 0), count(*) FILTER (WHERE times > 0),"
                " min(made_s) FROM {box} WHERE accepted_s IS NULL"
            )
        ).fetchone()
        return Counts(waiting=waiting, again=again, oldest_s=oldest_s, **n)

    def _sql(self, text: str, **words: str) -> str:
        """A statement about the tables of this destination."""
        return text.format(**self._tables, **words)

    def _leave(self, entries: Sequence[Entry], why: str) -> None:
        for entry, some in _by_first(entries, why, ""):
            self._change(entry, _LEAVE, [(each.number,) for each in some])

    def _change(self, entry: str, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Change entries that are still there, and count how many."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            n = self._db.executemany(self._sql(statement), rows).rowcount
            count = self._sql("UPDATE {box}_count SET n = n + ? WHERE entry = ?")
            self._db.execute(count, (max(n, 0), entry))
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise


_LEAVE = "DELETE FROM {box} WHERE id = ?"


def _by_first(entries: Iterable[Entry], first: str, again: str) -> list[tuple[str, list[Entry]]]:
    """Entries that were never accepted before, and the others, each with what they count as."""
    halves: dict[str, list[Entry]] = {first: [], again: []}
    for entry in entries:
        halves[again if entry.times else first].append(entry)
    return [(name, some) for name, some in halves.items() if some]
