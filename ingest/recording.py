"""One SQLite file a run: the journal of received messages, and what belongs to it.

Messages are kept as they came, before any gate, in compressed *blocks*: one row a block, with a
checksum and the span of event times in it. One connection writes; readers open the file read-only
and may do so while the run goes on.
"""

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from config.errors import RecordingError
from config.units import NS_PER_S, format_time
from ingest.messages import Batch, Birth, Envelope, Record, Reject, Times, TruthRow

FORMAT = "1"
KEPT_REJECTS = 1_000
"""How many refused messages are kept for inspection; the rest are only counted."""

LONG_NS = 600 * NS_PER_S
"""Blocks that span more event time than this have an index of their own, for they are few: so those
of a time are found among all that end within this after it."""

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS block (
    id INTEGER PRIMARY KEY, messages INTEGER NOT NULL, samples INTEGER NOT NULL,
    first_ns INTEGER, last_ns INTEGER, crc INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS block_by_time ON block (last_ns, first_ns);
CREATE INDEX IF NOT EXISTS block_long ON block (last_ns, first_ns)
    WHERE last_ns - first_ns > {LONG_NS};
CREATE TABLE IF NOT EXISTS landmark (
    asset TEXT NOT NULL, stream TEXT NOT NULL, block INTEGER NOT NULL, place INTEGER NOT NULL,
    codec TEXT, topic TEXT, received_ns INTEGER, payload BLOB,
    PRIMARY KEY (asset, stream, block, place)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reject (
    id INTEGER PRIMARY KEY, reason TEXT NOT NULL, detail TEXT NOT NULL, topic TEXT NOT NULL,
    received_ns INTEGER NOT NULL, size INTEGER NOT NULL, head BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS ledger (
    side TEXT NOT NULL, entry TEXT NOT NULL, messages INTEGER NOT NULL, PRIMARY KEY (side, entry)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS truth (
    asset TEXT NOT NULL, kpi TEXT NOT NULL, window_start_ns INTEGER NOT NULL,
    window_length_ns INTEGER NOT NULL, value REAL,
    PRIMARY KEY (asset, kpi, window_length_ns, window_start_ns)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trace (
    asset TEXT NOT NULL, way TEXT NOT NULL, first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,
    first_number INTEGER NOT NULL, last_number INTEGER NOT NULL,
    slice TEXT NOT NULL, messages INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (asset, way, first_number)
);
CREATE INDEX IF NOT EXISTS trace_by_time ON trace (asset, way, first_ns);
"""

_OVER = f"""
SELECT id FROM block WHERE last_ns >= ?1 AND last_ns <= ?2 + {LONG_NS} AND first_ns <= ?2
"""
_LONG_OVER = f"""
SELECT id FROM block
WHERE last_ns - first_ns > {LONG_NS} AND last_ns > ?2 + {LONG_NS} AND first_ns <= ?2
"""
"""The others, of those that end later."""
_OVER_UNINDEXED = """
SELECT id FROM block NOT INDEXED WHERE last_ns >= ?1 AND first_ns <= ?2 ORDER BY id
"""


PARTS = (
    "hops_ns", "gap_ns", "queue_ns", "access_ns", "align_ns", "air_ns", "harq_ns", "core_ns",
    "stall_ns",
)  # fmt: skip
"""Where a message's time on the link went, in the order in which it goes, but for the first, which
is spent at both ends: processing in device and network, a gap between cells, behind other messages,
for a grant or a free medium, for a slot, on the air, for repair, on the way between station and
MEC, and behind a segment that was lost."""
_TRACED = ("number", "sent_ns", "arrival_ns", "n_bytes", "cell", "rounds", *PARTS, "cause")
_TRACE_MESSAGES = 4_096
"""How many messages of a bearer make a block of the trace."""


_TRUTH = "SELECT asset, kpi, window_start_ns, window_length_ns, value FROM truth"


class TraceBlock(NamedTuple):
    """The way of some messages of one bearer over the link, packed; as the table has it."""

    asset: str
    way: str
    first_ns: int
    last_ns: int
    """Times of sending."""
    first_number: int
    last_number: int
    slice: str
    messages: int
    data: bytes


class Trace(NamedTuple):
    """The way of some messages of one bearer over the link, oldest first.

    ``way`` is ``telemetry``, or the direction of control traffic, ``up`` or ``down``. The columns:
    ``number`` (telemetry: the message's ``seq``; control: 1, 2, 3 ...), ``sent_ns``, ``arrival_ns``
    (-1: lost), ``n_bytes``, ``cell``, ``rounds`` of HARQ, ``PARTS``, and ``cause``,
    what held a message back or lost it (``simulator.link.surroundings.CAUSES``).
    """

    asset: str
    way: str
    slice: str
    columns: Mapping[str, Times]


class Tracer:
    """Packs the way of every message over the link as it becomes known."""

    def __init__(self, cells: Sequence[str]) -> None:
        self.cells = tuple(cells)
        self._blocks: list[TraceBlock] = []
        self._open: dict[tuple[str, str], tuple[str, list[Mapping[str, Times]]]] = {}
        self._numbered: dict[tuple[str, str], int] = {}

    def add(
        self,
        asset: str,
        way: str,
        slice: str,
        numbers: Sequence[int] | None,
        columns: Mapping[str, Times],
    ) -> None:
        """Add what a bearer carried, with the numbers of the messages or, without, the next."""
        n, key = len(columns["sent_ns"]), (asset, way)
        if not n:
            return
        if numbers is None:
            first = self._numbered.get(key, 0) + 1
            self._numbered[key] = first + n - 1
            numbers = range(first, first + n)
        _, pieces = self._open.setdefault(key, (slice, []))
        if sum(len(piece["number"]) for piece in pieces) >= _TRACE_MESSAGES:
            self._pack(key)
            _, pieces = self._open[key] = (slice, [])
        pieces.append(dict(columns) | {"number": np.array(numbers, dtype=np.int64)})

    def cut(self, t_ns: int) -> None:
        """Forget what was sent after a time; only what was added last can be forgotten."""
        for _, pieces in self._open.values():
            for at, piece in enumerate(pieces):
                kept = int(np.searchsorted(piece["sent_ns"], t_ns, side="right"))
                pieces[at] = {name: column[:kept] for name, column in piece.items()}

    def blocks(self) -> list[TraceBlock]:
        """Everything added so far."""
        for key in list(self._open):
            self._pack(key)
        return self._blocks

    def _pack(self, key: tuple[str, str]) -> None:
        slice, pieces = self._open.pop(key)
        columns = {name: np.concatenate([piece[name] for piece in pieces]) for name in _TRACED}
        number, sent_ns = columns["number"], columns["sent_ns"]
        if not len(number):
            return
        block = TraceBlock(
            *key, int(sent_ns[0]), int(sent_ns[-1]), int(number[0]), int(number[-1]), slice,
            len(number), _packed(columns),
        )  # fmt: skip
        self._blocks.append(block)


def _packed(columns: Mapping[str, Times]) -> bytes:
    """Columns in as few bytes as their values need, the first bytes of all values first. Arrivals
    follow from the parts, but for what these leave over."""
    sent_ns, arrival_ns = columns["sent_ns"], columns["arrival_ns"]
    lost = arrival_ns < 0
    spent_ns = np.sum([columns[name] for name in PARTS], axis=0)
    stored = dict(columns) | {
        "sent_ns": np.diff(sent_ns, prepend=0),
        "number": np.diff(columns["number"], prepend=0),
        "arrival_ns": np.where(lost, 0, arrival_ns - sent_ns - spent_ns),
    }
    pieces = [_squeezed(stored[name]) for name in _TRACED]
    return zlib.compress(_pack([*pieces, _squeezed(lost.astype(np.int64))]), 6)


def _squeezed(values: Times) -> tuple[int, int, int, bytes]:
    """First value and count, and of the others the width and the bytes, plane by plane."""
    rest = values[1:]
    low, high = (int(rest.min()), int(rest.max())) if len(rest) else (0, 0)
    width = next(w for w in (1, 2, 4, 8) if -(1 << 8 * w - 1) <= low and high < 1 << 8 * w - 1)
    planes = rest.astype(f"<i{width}").view(np.uint8).reshape(-1, width).T
    return int(values[0]), len(rest), width, planes.tobytes()


def _unsqueezed(piece: tuple[int, int, int, bytes]) -> Times:
    first, n, width, data = piece
    planes = np.frombuffer(data, dtype=np.uint8).reshape(width, n)
    rest: NDArray[Any] = np.ascontiguousarray(planes.T).reshape(-1).view(f"<i{width}")
    return np.concatenate(([first], rest)).astype(np.int64)


def unpacked(data: bytes) -> dict[str, Times]:
    pieces = list(map(_unsqueezed, _unpack_trace(zlib.decompress(data))))
    columns: dict[str, Times] = dict(zip(_TRACED, pieces[:-1], strict=False))
    columns["number"], columns["sent_ns"] = map(np.cumsum, (pieces[0], pieces[1]))
    columns["arrival_ns"] = np.where(
        pieces[-1] > 0, -1,
        columns["sent_ns"] + columns["arrival_ns"]
        + np.sum([columns[name] for name in PARTS], axis=0),
    )  # fmt: skip
    return columns


class Block(NamedTuple):
    """Messages committed together."""

    id: int
    envelopes: list[Envelope]


_pack = msgspec.msgpack.Encoder().encode
_unpack_trace = msgspec.msgpack.Decoder(list[tuple[int, int, int, bytes]]).decode
_unpack = msgspec.msgpack.Decoder(list[tuple[str, str, int, bytes]]).decode


LANDMARKS = frozenset({"birth", "state", "orders", "calendar"})
"""Streams that tell something when it changes and not again: the last word may be far back."""
FREQUENT = "state"
"""Of these the one that may tell so much that its messages are not kept a second time."""
LAST_LANDMARKS = 4
"""Blocks follow each other in time, but for what came late."""


class Landmark(NamedTuple):
    """That something was told that holds until the next; ``envelope``: the message, if rare."""

    asset: str
    stream: str
    envelope: Envelope | None


def landmarks_in(records: Iterable[Record]) -> list[Landmark]:
    """The landmarks among records that belong together, in their order."""
    found: dict[tuple[str, str, int], Landmark] = {}
    for record in records:
        match record.message:
            case Birth(asset):
                stream = "birth"
            case Batch(asset, stream) if stream in LANDMARKS:
                pass
            case _:
                continue
        envelope = None if stream == FREQUENT else record.envelope
        key = str(asset), stream, id(envelope)
        found[key] = Landmark(str(asset), stream, envelope)
    return list(found.values())


def _told(envelope: Envelope | None) -> tuple[object, ...]:
    if envelope is None:
        return (None,) * 4
    return envelope.codec, envelope.topic, envelope.received_ns, envelope.payload


_DAMAGES = (sqlite3.Error, ValueError, TypeError, zlib.error, msgspec.MsgspecError)
"""What reading a block of a damaged file may raise."""


def _envelopes(crc: int, data: bytes) -> list[Envelope]:
    """What a block holds; raises one of ``_DAMAGES``."""
    if zlib.crc32(data) != crc:
        raise ValueError("its checksum does not match")
    return [Envelope(*item) for item in _unpack(zlib.decompress(data))]


class Recording:
    """A recording open for reading, or for writing by its one writer."""

    def __init__(self, path: Path, db: sqlite3.Connection, *, writes: bool) -> None:
        self.path = path
        self.db = db
        self._writes = writes
        self._closed = False

    @classmethod
    def create(cls, path: Path) -> "Recording":
        """Open for writing; a file of an earlier, broken-off session is continued."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size and not is_recording(path):
                raise RecordingError("is some other file", at=str(path), hint="-o names another")
            db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            raise RecordingError(f"cannot be written: {error}", at=str(path)) from None
        recording = cls(path, db, writes=True)
        recording._check_format(fresh=True)
        return recording

    @classmethod
    def open(cls, path: Path, *, salvage: bool = False) -> "Recording":
        """Open read-only; ``salvage`` also takes a file that was cut off."""
        if not path.is_file():
            raise RecordingError("no such file", at=str(path))
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None,
            check_same_thread=False,
        )  # fmt: skip
        recording = cls(path, db, writes=False)
        if salvage:
            db.execute("PRAGMA writable_schema=ON")  # else SQLite refuses a file that lost its end
        recording._check_format(fresh=False)
        return recording

    def _check_format(self, *, fresh: bool) -> None:
        try:
            found = self.meta("format")
        except sqlite3.Error as error:
            raise RecordingError(
                f"not readable as a recording: {error}",
                at=str(self.path),
                hint="if it was cut off, `beilun replay --salvage` uses everything before it",
            ) from None
        if found is None and fresh:
            self.set_meta({"format": FORMAT})
        elif found != FORMAT:
            raise RecordingError(
                f"format {found}, this version reads format {FORMAT}", at=str(self.path)
            )

    def __enter__(self) -> "Recording":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close; the last writer leaves one plain file, readable from read-only media."""
        if self._closed:
            return
        self._closed = True
        if self.db.in_transaction:
            self.db.rollback()
        if self._writes:
            # A reader may still be there: then the file stays in WAL mode, and complete.
            with contextlib.suppress(sqlite3.OperationalError):
                self.db.execute("PRAGMA journal_mode=DELETE")
        self.db.close()

    @property
    def size_bytes(self) -> int:
        """Size of the file once everything written is in it."""
        pages = self.db.execute("PRAGMA page_count").fetchone()[0]
        return int(pages) * int(self.db.execute("PRAGMA page_size").fetchone()[0])

    # header -----------------------------------------------------------------------------------

    def meta(self, key: str) -> str | None:
        """One entry of the header."""
        row = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def meta_json(self, key: str) -> Any:
        """One entry of the header that is JSON; ``None`` where it is missing."""
        text = self.meta(key)
        return None if text is None else json.loads(text)

    def set_meta(self, entries: Mapping[str, str]) -> None:
        """Write entries of the header, all or none."""
        self.db.executemany(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            list(entries.items()),
        )

    def drop_meta(self, *keys: str) -> None:
        """Take entries out of the header: what they said is no longer so."""
        self.db.executemany("DELETE FROM meta WHERE key = ?", [(key,) for key in keys])

    # journal ----------------------------------------------------------------------------------

    def append(self, records: Sequence[Record], rejects: Sequence[Reject] = ()) -> None:
        """Commit one block; once this returns, ``kill -9`` does not lose it."""
        envelopes: dict[int, Envelope] = {id(r.envelope): r.envelope for r in records}
        batches = [r.message for r in records if isinstance(r.message, Batch)]
        spans = [_span(batch) for batch in batches]
        data = zlib.compress(
            _pack([(e.codec, e.topic, e.received_ns, e.payload) for e in envelopes.values()]), 6
        )
        self.db.execute("BEGIN IMMEDIATE")
        try:
            if envelopes:
                written = self.db.execute(
                    "INSERT INTO block (messages, samples, first_ns, last_ns, crc, data)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        len(envelopes),
                        sum(map(len, batches)),
                        min((first for first, _ in spans), default=None),
                        max((last for _, last in spans), default=None),
                        zlib.crc32(data),
                        data,
                    ),
                )
                self.db.executemany(
                    "INSERT INTO landmark VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    [
                        (mark.asset, mark.stream, written.lastrowid, place, *_told(mark.envelope))
                        for place, mark in enumerate(landmarks_in(records))
                    ],
                )
            if rejects:
                self._reject(rejects)
            self.db.execute("COMMIT")
        except BaseException:
            self.db.execute("ROLLBACK")
            raise

    def _reject(self, rejects: Sequence[Reject]) -> None:
        kept = self.db.execute("SELECT count(*) FROM reject").fetchone()[0]
        self.db.executemany(
            "INSERT INTO reject (reason, detail, topic, received_ns, size, head)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [
                (r.reason, r.detail, r.topic, r.received_ns, r.size, r.head)
                for r in rejects[: max(0, KEPT_REJECTS - kept)]
            ],
        )
        self.db.executemany(
            "INSERT INTO ledger VALUES ('unusable', ?, 1)"
            " ON CONFLICT (side, entry) DO UPDATE SET messages = messages + 1",
            [(r.reason,) for r in rejects],
        )

    def blocks(self, *, salvage: bool = False) -> Iterator[Block]:
        """All blocks in the order they were committed.

        A damaged block raises ``RecordingError``, or with ``salvage`` ends the journal; everything
        before it has been yielded.
        """
        after, seen_ns = 0, None
        while True:
            try:
                row = self.db.execute(
                    "SELECT id, last_ns, crc, data FROM block WHERE id > ? ORDER BY id LIMIT 1",
                    (after,),
                ).fetchone()
                if row is None:
                    return
                number, block_last_ns, crc, data = row
                if number != after + 1:
                    raise ValueError(f"block {after + 1} is missing")
                envelopes = _envelopes(crc, data)
            except _DAMAGES as error:
                if salvage:
                    return
                raise self._damaged(after + 1, error, seen_ns) from None
            yield Block(number, envelopes)
            after, seen_ns = number, block_last_ns or seen_ns

    def blocks_over(self, first_ns: int, last_ns: int) -> Iterator[Block]:
        """Blocks with samples in a span, in the order they were committed; raises
        ``RecordingError`` for a damaged one."""
        for number in self.numbers_over(first_ns, last_ns):
            yield self.block(number)

    def numbers_over(self, first_ns: int, last_ns: int) -> list[int]:
        """Numbers of the blocks with samples in a span: an index seek, but in a recording of before
        there was an index."""
        try:
            found = self.db.execute(_OVER, (first_ns, last_ns)).fetchall()
            found += self.db.execute(_LONG_OVER, (first_ns, last_ns)).fetchall()
            return sorted(number for (number,) in found)
        except sqlite3.DatabaseError as error:  # cut off: its indexes may be lost with its end
            if str(error).startswith("no such column"):
                raise unlike(self.path, error) from None
            before: list[int] = []
            with contextlib.suppress(sqlite3.DatabaseError):
                before.extend(n for (n,) in self.db.execute(_OVER_UNINDEXED, (first_ns, last_ns)))
            return before

    def begins(self) -> dict[int, int]:
        """By number of a block, the first event time in it; of those with samples."""
        rows = self._found("SELECT id, first_ns FROM block WHERE first_ns IS NOT NULL")
        return {int(number): int(first_ns) for number, first_ns in rows}

    def block(self, number: int) -> Block:
        """One block; raises ``RecordingError`` where it is missing or damaged."""
        try:
            row = self.db.execute("SELECT crc, data FROM block WHERE id = ?", (number,)).fetchone()
            if row is None:
                raise ValueError(f"block {number} is missing")
            return Block(number, _envelopes(*row))
        except _DAMAGES as error:
            raise self._damaged(number, error) from None

    def _damaged(self, number: int, error: Exception, seen_ns: int | None = None) -> RecordingError:
        until = f", up to event time {format_time(seen_ns)}" if seen_ns else ""
        return RecordingError(
            f"damaged at block {number}: {error}",
            at=str(self.path),
            hint=f"--salvage uses the {number - 1} blocks before it{until}",
        )

    def landmarks(
        self, asset: str, stream: str, *, after: int = 0, before_ns: int | None = None
    ) -> list[tuple[int, Envelope | None]] | None:
        """Where an asset told something that holds until it tells the next: the numbers of the
        blocks beyond one, and the messages where they are kept. With ``before_ns`` the last few of
        blocks that begin before a time, the newest first. ``None`` in a recording of before."""
        if not self._has("landmark"):
            return None
        rows = self._found(
            "SELECT block, codec, topic, received_ns, payload FROM landmark WHERE asset = ?"
            " AND stream = ? AND block > ? ORDER BY block, place"
            if before_ns is None
            else "SELECT block, codec, topic, received_ns, payload FROM landmark CROSS JOIN block b"
            " ON b.id = block WHERE asset = ? AND stream = ? AND block > ? AND b.first_ns <= ?"
            f" ORDER BY block DESC, place DESC LIMIT {LAST_LANDMARKS}",
            (asset, stream, after, *(() if before_ns is None else (before_ns,))),
        )
        return [(block, None if said[0] is None else Envelope(*said)) for block, *said in rows]

    def landmark_assets(self, stream: str) -> list[str]:
        """The assets of which there are such blocks."""
        rows = self._found(
            "SELECT DISTINCT asset FROM landmark WHERE stream = ? ORDER BY asset", (stream,)
        )
        return [asset for (asset,) in rows]

    def unusable(self) -> dict[str, int]:
        """Refused messages by reason."""
        return self.entries("unusable")

    # ledger and truth ---------------------------------------------------------------------------

    def entries(self, side: str) -> dict[str, int]:
        """One side of the ledger."""
        rows = self._found("SELECT entry, messages FROM ledger WHERE side = ?", (side,))
        return {str(entry): int(count) for entry, count in rows}

    def set_entries(self, side: str, entries: Mapping[str, int]) -> None:
        """Replace one side of the ledger."""
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute("DELETE FROM ledger WHERE side = ?", (side,))
        self.db.executemany(
            "INSERT INTO ledger VALUES (?, ?, ?)", [(side, k, n) for k, n in entries.items()]
        )
        self.db.execute("COMMIT")

    def write_truth(self, rows: Iterable[TruthRow]) -> None:
        """Add what the simulator knows."""
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany("INSERT OR REPLACE INTO truth VALUES (?, ?, ?, ?, ?)", rows)
        self.db.execute("COMMIT")

    def truth(self) -> Iterator[TruthRow]:
        """All true KPI values."""
        yield from map(TruthRow._make, self._found(_TRUTH))

    # link trace ---------------------------------------------------------------------------------

    def write_trace(self, tracer: Tracer) -> None:
        """Add the way of messages over the link, and the names of the link's cells."""
        self.set_meta({"cells": json.dumps(tracer.cells)})
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany(
            "INSERT OR REPLACE INTO trace VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", tracer.blocks()
        )
        self.db.execute("COMMIT")

    def traced(self) -> list[tuple[str, str, int]]:
        """Asset, way and number of messages of every bearer there is a trace of; none where no
        trace was made."""
        if not self._has("trace"):
            return []
        rows = self._found(
            "SELECT asset, way, sum(messages) FROM trace GROUP BY asset, way ORDER BY asset, way"
        )
        return [(str(asset), str(way), int(n)) for asset, way, n in rows]

    def trace(
        self,
        asset: str | None = None,
        way: str | None = None,
        *,
        numbers: tuple[int, int] | None = None,
        span_ns: tuple[int, int] | None = None,
    ) -> Iterator[Trace]:
        """Blocks of the trace, bearer by bearer in order of time; optionally of one device and way,
        and those that hold messages with numbers, or times of sending, from one to another."""
        if not self._has("trace"):
            return
        chosen: list[tuple[str, tuple[object, ...] | None]] = [
            ("asset = ?", None if asset is None else (asset,)),
            ("way = ?", None if way is None else (way,)),
            ("last_number >= ? AND first_number <= ?", numbers),
            ("last_ns >= ? AND first_ns <= ?", span_ns),
        ]
        wanted = [(text, args) for text, args in chosen if args is not None]
        where = " AND ".join(text for text, _ in wanted) or "1"
        rows = self._found(
            f"SELECT asset, way, slice, data FROM trace WHERE {where}"
            " ORDER BY asset, way, first_number",
            [arg for _, args in wanted for arg in args],
        )
        for name, lane, slice, data in rows:
            try:
                columns = unpacked(data)
            except (ValueError, zlib.error, msgspec.MsgspecError) as error:
                raise RecordingError(
                    f"its link trace is damaged at {name}, {lane}: {error}", at=str(self.path)
                ) from None
            yield Trace(name, lane, slice, columns)

    def _found(self, sql: str, args: Sequence[object] = ()) -> Iterator[Any]:
        """Rows of a query; raises ``RecordingError`` where its tables are others than ours."""
        try:
            yield from self.db.execute(sql, args)
        except sqlite3.Error as error:
            raise unlike(self.path, error) from None

    def _has(self, table: str, schema: str = "main") -> bool:
        query = f"SELECT 1 FROM {schema}.sqlite_master WHERE type = 'table' AND name = ?"
        return self.db.execute(query, (table,)).fetchone() is not None

    def attach(self, simulated: Path) -> None:
        """Take over the simulator's own file: its header entries, ledger, truth and link trace."""
        self.db.execute("ATTACH ? AS simulated", (str(simulated),))
        try:
            self.db.execute("BEGIN IMMEDIATE")
            self.db.execute("INSERT OR REPLACE INTO truth SELECT * FROM simulated.truth")
            self.db.execute("INSERT OR REPLACE INTO ledger SELECT * FROM simulated.ledger")
            self.db.execute("INSERT OR IGNORE INTO meta SELECT * FROM simulated.meta")
            if self._has("trace", "simulated"):
                self.db.execute("INSERT OR REPLACE INTO trace SELECT * FROM simulated.trace")
            self.db.execute("COMMIT")
        finally:
            self.db.execute("DETACH simulated")


def unlike(path: Path, error: sqlite3.Error) -> RecordingError:
    """That a recording cannot be asked what every recording can."""
    told = str(error)
    hint = "if it was cut off, `beilun replay --salvage` uses everything before it"
    if told.startswith(("no such column", "no such table")):
        hint = "another version of beilun wrote it, or something else did; that one can read it"
    return RecordingError(f"its tables cannot be read: {told}", at=str(path), hint=hint)


def is_recording(path: Path) -> bool:
    """Whether a file is a recording, of this or another version."""
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        ) as db:
            return db.execute("SELECT 1 FROM meta WHERE key = 'format'").fetchone() is not None
    except sqlite3.Error:
        return False


def _span(batch: Batch) -> tuple[int, int]:
    """The times a fold may ask for a batch by: its samples' and its sending."""
    first_ns, last_ns = int(batch.t_ns[0]), int(batch.t_ns[-1])
    sent_ns = batch.meta.sent_ns
    return (
        (first_ns, last_ns) if sent_ns is None else (min(first_ns, sent_ns), max(last_ns, sent_ns))
    )
