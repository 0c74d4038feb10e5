"""``beilun export``: KPI rows and signals of a recording as Parquet files.

Theory of operation
===================

    recording ─┬─ series ⋈ row ⟕ truth, one read transaction ──► kpis.parquet
               └─ journal ─► decoder ─► gate, twice ───────────► signals-<kind>.parquet, ...

Rows leave as they are stored: the integers as integers, the values to the bit, ``null`` where there
was no evidence. Time is there twice, as the integers everything is computed with and as
``timestamp[ns, UTC]`` for tools that want one. A row that has two names of windows (``8h`` and
``shift`` may coincide) is there once for each, as in a remote store, so that a choice by name is
always whole.

Signals are the samples that the KPIs were made of: of two messages with one identity the journal
keeps both, and the gate says which counts. It can only say so once it has seen them all, so the
journal is read twice. Memory holds a group of rows of each file, and what the gate remembers of
each message; neither grows with samples.

A file appears under its name once it is whole.
"""

import contextlib
import importlib
import os
import secrets
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from beilun import console
from config.errors import Exit, RecordingError, UsageError

if TYPE_CHECKING:
    from config.windows import Window
    from ingest.messages import Asset, Batch, Identity, Record
    from ingest.recording import Recording

GROUP = 65_536
"""Rows of a row group."""
KPIS = "kpis.parquet"
SUFFIX = ".parquet"

_ROWS = """
SELECT s.site, s.area, s.line, s.asset, s.kpi, s.unit, r.window_start_ns, s.window_length_ns,
       r.value, r.n, r.late, r.revision, {truth}
FROM series s JOIN row r ON r.series = s.id {join} ORDER BY s.id, r.window_start_ns
"""
_TRUTH = """
LEFT JOIN truth t ON t.asset = s.site || '/' || s.area || '/' || s.line || '/' || s.asset
    AND t.kpi = s.kpi AND t.window_length_ns = s.window_length_ns
    AND t.window_start_ns = r.window_start_ns
"""
_ORDERS = """
SELECT site, area, line, asset, window_start_ns, window_length_ns FROM kpi_rows WHERE kpi = ?
"""
_LEVELS = ("site", "area", "line", "asset")


def command(
    file: Annotated[Path, typer.Argument(help="A recording.")],
    parquet: Annotated[
        Path, typer.Option(help="A folder, or with the KPI rows alone a file that ends .parquet.")
    ],
    signals: Annotated[
        bool, typer.Option("--signals", help="Also the samples, a file for each kind of asset.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> Exit:
    """Write a recording's KPI rows, and its signals, as Parquet."""
    _pyarrow()
    single = parquet.suffix == SUFFIX
    if single and signals:
        raise UsageError(
            "signals are a file for each kind of asset",
            hint=f"--parquet {parquet.with_suffix('')} makes a folder of them",
        )
    from ingest.recording import Recording

    written: list[tuple[Path, int]] = []
    with Recording.open(file) as recording, Files(force=force) as files:
        rows = parquet if single else parquet / KPIS
        files.claim(rows)  # told before any work is done
        unfinished = recording.meta("finished") is None
        written.append((rows, write_rows(recording, files, rows)))
        if signals:
            written += write_signals(recording, files, parquet)
    for path, count in written:
        console.out(f"wrote {path} ({count:,} rows, {path.stat().st_size:,} bytes)")
    if unfinished:
        console.note("the recording is not finished: rows and truth are those of this moment")
    return Exit.OK


def _pyarrow(module: str = "pyarrow") -> Any:
    """The extra, once it is needed; raises ``UsageError`` where it is not installed."""
    try:
        return importlib.import_module(module)  # it has no annotations
    except ImportError:
        raise UsageError(
            "Parquet needs pyarrow, which is not installed",
            hint="pip install 'beilun[parquet]'",
        ) from None


# files ------------------------------------------------------------------------------------------


class Files:
    """Parquet files that appear together when the block ends well, and not at all when it fails.

    Raises ``UsageError`` for a file that is there, unless it may be replaced.
    """

    def __init__(self, *, force: bool) -> None:
        self._force = force
        self._parts: list[tuple[Path, Path]] = []

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, kind: type[BaseException] | None, *__: object) -> None:
        try:
            if kind is None:
                for _, path in self._parts:
                    self.claim(path)  # somebody may have written it meanwhile
                for part, path in self._parts:
                    part.replace(path)
        finally:
            for part, _ in self._parts:
                part.unlink(missing_ok=True)

    def claim(self, path: Path) -> None:
        """Raise where a file may not be written."""
        if path.exists() and not self._force:
            raise UsageError("is there already", at=str(path), hint="--force replaces it")

    @contextlib.contextmanager
    def writing(self, path: Path, schema: Any) -> Generator[Any, None, None]:
        """A writer of one file."""
        pq = _pyarrow("pyarrow.parquet")
        self.claim(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        self._parts.append((part, path))
        with part.open("wb") as sink:
            with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
                yield writer
            sink.flush()
            os.fsync(sink.fileno())


def header(recording: "Recording") -> dict[str, str]:
    """What a recording says of itself, as metadata of a file."""
    entries = recording.db.execute("SELECT key, value FROM meta ORDER BY key")
    return {f"beilun.{key}": str(value) for key, value in entries}


# KPI rows ---------------------------------------------------------------------------------------


def write_rows(recording: "Recording", files: Files, path: Path) -> int:
    """Write the last revision of every row, and the truth beside it where it is known; the number
    of rows written."""
    from beilun.composing import recorded_policy

    db = recording.db
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'series'").fetchone() is None:
        raise RecordingError("holds no KPI rows", at=str(recording.path))
    simulated = db.execute("SELECT 1 FROM truth LIMIT 1").fetchone() is not None
    named = _named(recording, recorded_policy(recording).windows)
    schema = _row_schema(header(recording), simulated=simulated)
    written = 0
    db.execute("BEGIN")  # one snapshot, also of a recording that is being written
    try:
        found = db.execute(
            _ROWS.format(truth="t.value", join=_TRUTH) if simulated
            else _ROWS.format(truth="NULL", join="")
        )  # fmt: skip
        lines = ((*row, label) for row in found for label in named(row))
        with files.writing(path, schema) as writer:
            while group := list(islice(lines, GROUP)):
                writer.write_table(_row_table(group, schema))
                written += len(group)
    finally:
        db.execute("COMMIT")
    return written


def _named(
    recording: "Recording", windows: "Sequence[Window]"
) -> Callable[[Sequence[Any]], Sequence[str]]:
    """What the window of a stored row is called."""
    from config.units import format_duration
    from config.windows import Order, Span, labels_of
    from edge.rows import ORDER_NUMBER

    orders = set(recording.db.execute(_ORDERS, (ORDER_NUMBER,)).fetchall())
    known: dict[Span, list[str]] = {}

    def names(row: Sequence[Any]) -> Sequence[str]:
        span = Span(row[6], row[6] + row[7])
        if span not in known:
            known[span] = labels_of(windows, span)
        order = [Order.label] if (*row[:4], row[6], row[7]) in orders else []
        own = [] if row[4] == ORDER_NUMBER else known[span]
        return [*own, *order] or [format_duration(row[7])]

    return names


def _row_schema(told: Mapping[str, str], *, simulated: bool) -> Any:
    pa = _pyarrow()

    text, count, number = pa.string(), pa.int64(), pa.float64()
    instant = pa.timestamp("ns", tz="UTC")
    fields = [
        *(
            pa.field(name, text, nullable=False)
            for name in (*_LEVELS, "kpi", "unit", "window_label")
        ),
        pa.field("window_start", instant, nullable=False),
        pa.field("window_end", instant, nullable=False),
        pa.field("window_start_ns", count, nullable=False),
        pa.field("window_length_ns", count, nullable=False),
        pa.field("value", number),
        *(pa.field(name, count, nullable=False) for name in ("n", "late", "revision")),
        *([pa.field("truth", number)] if simulated else []),
    ]
    return pa.schema(fields, metadata=dict(told))


def _row_table(group: Sequence[Sequence[Any]], schema: Any) -> Any:
    pa = _pyarrow()

    *levels, kpi, unit, start, length, value, n, late, revision, truth, label = zip(
        *group, strict=True
    )
    end = [a + b for a, b in zip(start, length, strict=True)]
    columns = dict(zip(_LEVELS, levels, strict=True)) | {
        "kpi": kpi, "unit": unit, "window_label": label, "window_start": start, "window_end": end,
        "window_start_ns": start, "window_length_ns": length, "value": value, "n": n,
        "late": late, "revision": revision, "truth": truth,
    }  # fmt: skip
    return pa.table([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


# signals ----------------------------------------------------------------------------------------

_STAMPS = (*_LEVELS, "stream", "t", "t_ns", "arrival_ns")
"""Columns beside the channels."""


def write_signals(recording: "Recording", files: Files, folder: Path) -> list[tuple[Path, int]]:
    """Write every sample that was let in, a file for each kind of asset; the files, and how many
    samples are in each."""
    journal = _Journal(recording)
    told = header(recording)
    written: dict[Path, int] = {}
    with contextlib.ExitStack() as held:
        open_files: dict[str, _Signals] = {}
        for kind, channels in sorted(journal.kinds().items()):
            path = folder / f"signals-{kind}{SUFFIX}"
            schema = _signal_schema(channels, told | {"beilun.kind": kind})
            made = _Signals(schema, held.enter_context(files.writing(path, schema)))
            open_files[kind], written[path] = made, 0
        for batch in journal.batches():
            kind = journal.kind_of(batch.asset)
            open_files[kind].add(batch)
            written[folder / f"signals-{kind}{SUFFIX}"] += len(batch)
        for each in open_files.values():
            each.flush()
    return list(written.items())


class _Journal:
    """The samples of a recording that count, and what is known of who sent them."""

    UNBORN = "unknown"
    """In the place of the kind of an asset that never announced itself."""

    def __init__(self, recording: "Recording") -> None:
        from beilun.commands.replay import reader
        from beilun.composing import recorded_policy
        from edge.gate import Entry, Gate
        from ingest.messages import Batch, Birth, Notice

        self._recording = recording
        self._decoder, run = reader(recording)
        self._gate = Gate(recorded_policy(recording), run)
        self._repeated: set[Identity] = set()
        # Of a recording that is being written, both readings see the same blocks.
        (self._last,) = recording.db.execute("SELECT max(id) FROM block").fetchone()
        self._kinds: dict[Asset, str] = {}
        self._channels: dict[Asset, dict[str, str]] = {}
        for record in self._records():
            message = record.message
            if not isinstance(message, Birth | Batch | Notice):
                continue
            if self._gate.admit(record, message) in (Entry.DUPLICATE, Entry.REPLACES):
                self._repeated.add(message.meta.identity)
            if isinstance(message, Birth):
                self._kinds[message.asset] = message.kind
                self._channels.setdefault(message.asset, {}).update(message.channels)
            elif isinstance(message, Batch):
                known = self._channels.setdefault(message.asset, {})
                known.update({name: "" for name in message.channels if name not in known})

    def _records(self) -> "Iterator[Record]":
        for block in self._recording.blocks():
            if block.id > (self._last or 0):
                return
            for envelope in block.envelopes:
                yield from self._decoder.read(envelope)

    def kind_of(self, asset: "Asset") -> str:
        """What an asset says it is."""
        return self._kinds.get(asset, self.UNBORN)

    def kinds(self) -> dict[str, dict[str, str]]:
        """The units of the channels of every kind that is there; empty where none was announced."""
        found: dict[str, dict[str, str]] = {}
        for asset, channels in self._channels.items():
            known = found.setdefault(self.kind_of(asset), {})
            known.update({name: unit for name, unit in channels.items() if not known.get(name)})
        return found

    def batches(self) -> "Iterator[Batch]":
        """Every batch that was let in, once, in the order of the journal."""
        from ingest.messages import Batch

        given: set[Identity] = set()
        for record in self._records():
            message = record.message
            if not isinstance(message, Batch) or not self._gate.holds(record, message):
                continue
            identity = message.meta.identity
            if identity in self._repeated:
                if identity in given:
                    continue
                given.add(identity)
            yield message


class _Signals:
    """Gathers batches to groups of rows of one file."""

    def __init__(self, schema: Any, writer: Any) -> None:
        self._schema = schema
        self._writer = writer
        self._waiting: list[Batch] = []
        self._n = 0

    def add(self, batch: "Batch") -> None:
        self._waiting.append(batch)
        self._n += len(batch)
        if self._n >= GROUP:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        if self._waiting:
            self._writer.write_table(_signal_table(self._waiting, self._schema))
        self._waiting, self._n = [], 0


def _signal_schema(channels: Mapping[str, str], told: Mapping[str, str]) -> Any:
    pa = _pyarrow()

    fields = [
        *(pa.field(name, pa.string(), nullable=False) for name in (*_LEVELS, "stream")),
        pa.field("t", pa.timestamp("ns", tz="UTC"), nullable=False),
        pa.field("t_ns", pa.int64(), nullable=False),
        pa.field("arrival_ns", pa.int64(), nullable=False),
        *(
            pa.field(
                f"{name}_" if name in _STAMPS else name, pa.float64(),
                metadata={"channel": name, **({"unit": unit} if unit else {})},
            )
            for name, unit in sorted(channels.items())
        ),
    ]  # fmt: skip
    return pa.schema(fields, metadata=dict(told))


def _signal_table(batches: "Sequence[Batch]", schema: Any) -> Any:
    import numpy as np

    pa = _pyarrow()

    sizes = [len(batch) for batch in batches]

    def repeated(values: Sequence[str]) -> Any:
        codes: dict[str, int] = {}
        places = np.repeat([codes.setdefault(value, len(codes)) for value in values], sizes)
        return pa.DictionaryArray.from_arrays(places, pa.array(list(codes))).cast(pa.string())

    t_ns = np.concatenate([batch.t_ns for batch in batches])
    arrivals = np.repeat([batch.meta.arrival_ns for batch in batches], sizes)
    columns: list[Any] = [
        *(repeated([batch.asset[level] for batch in batches]) for level in range(4)),
        repeated([batch.stream for batch in batches]),
        pa.array(t_ns, pa.timestamp("ns", tz="UTC")),
        pa.array(t_ns, pa.int64()),
        pa.array(arrivals, pa.int64()),
    ]
    for entry in list(schema)[len(_STAMPS) :]:
        name = entry.metadata[b"channel"].decode()
        pieces = [
            batch.channels.get(name, np.full(n, np.nan))
            for batch, n in zip(batches, sizes, strict=True)
        ]
        # NaN is a blank cell of a batch; in a file it is null, which no average trips over.
        columns.append(pa.array(np.concatenate(pieces), pa.float64(), from_pandas=True))
    return pa.table(columns, schema=schema)
