"""A text table through a mapping: rows to columnar messages of one pane each, in a stream.

Rows that say nothing usable are refused whole and told, row by row. Where time runs backwards the
fewest rows are refused that let the rest run forwards, so one wild stamp costs one row. The last
pane of a piece is held back and read again with the next piece, so no pane is cut by the reader.
"""

import csv
import difflib
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import NamedTuple

import msgspec
import numpy as np

from config.errors import ConfigError
from config.mapping import Channel, Mapping, TableOf
from config.tomlfile import count
from config.units import NS_PER_S
from ingest import topics
from ingest.cells import LARGEST, shown, time_reader, value_reader
from ingest.codecs import MAX_BYTES
from ingest.codecs.stamps import EARLIEST_NS, LATEST_NS, meta_of
from ingest.codecs.uns import MAX_SAMPLES
from ingest.decode import KEPT_BYTES, tick
from ingest.messages import Asset, Batch, Birth, Envelope, Floats, Record, Reject, Tick, Times

PANE_NS = 10 * NS_PER_S
PIECE = 16_384
"""Rows read at a time."""
BLOCK = 500
"""Messages committed at a time."""

_NAN = math.nan
_encode = msgspec.json.Encoder().encode


class Row(NamedTuple):
    """A row as it stands in the file; the first row is the header's."""

    number: int
    cells: list[str]


class Refused(NamedTuple):
    """A row that cannot be used."""

    row: Row
    reason: str
    detail: str


@dataclass(slots=True)
class Counts:
    """What became of a table; ``blank`` counts cells without evidence among the samples."""

    rows: int = 0
    samples: int = 0
    messages: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    rejected: Counter[str] = field(default_factory=Counter[str])
    first_detail: dict[str, str] = field(default_factory=dict[str, str])
    blank: Counter[str] = field(default_factory=Counter[str])


class Block(NamedTuple):
    """What belongs into one commit of a recording."""

    records: list[Record]
    rejects: list[Reject]


class _Piece(NamedTuple):
    times: Times
    columns: dict[str, Floats]
    refused: list[Refused]


class Tabular:
    """Turns the lines of a table into blocks of a recording; ``counts`` grows meanwhile.

    Raises ``ConfigError`` where the header lacks columns of the mapping, before anything else.
    """

    def __init__(self, mapping: Mapping, lines: Iterable[str]) -> None:
        table, time = mapping.table, mapping.time
        if table is None or time.column is None:
            raise ConfigError(
                "the mapping has no [table]", at=mapping.name, hint="it reads live messages only"
            )
        self.counts = Counts()
        self.asset = Asset(*mapping.asset.levels())
        self._mapping = mapping
        self._table: TableOf = table
        self._read_time = time_reader(time, table.decimal)
        self._topic = topics.of(self.asset, "process")
        source = iter(lines)
        self._row = sum(1 for _ in islice(source, table.skip_lines))
        self._rows = csv.reader(
            source,
            delimiter=table.delimiter,
            quotechar=table.quote or None,
            quoting=csv.QUOTE_MINIMAL if table.quote else csv.QUOTE_NONE,
        )
        header = list(table.columns) or self._header()
        self._needed = max((i + 1 for i, name in enumerate(header) if name.strip()), default=0)
        self._width = len(header)
        self._time_at, *self._places = _places(
            mapping, [time.column, *(c.column or "" for c in mapping.channel)], header
        )
        self._missing = frozenset(table.missing)
        cell = 22 * len(mapping.channel) + 16  # characters a sample takes at most
        self._most = max(1, min(MAX_SAMPLES, (MAX_BYTES - self._overhead()) // cell))

    def __iter__(self) -> Iterator[Block]:
        records: list[Record] = []
        rejects: list[Reject] = []
        for piece in self._pieces():
            rejects += map(self._reject, piece.refused)
            if len(piece.times):
                if not self.counts.samples:
                    records.append(self._birth(int(piece.times[0])))
                self._count(piece)
                records += self._messages(piece)
            while len(records) >= BLOCK or len(rejects) >= PIECE:
                yield self._block(records[:BLOCK], rejects)
                del records[:BLOCK]
                rejects = []
        if records or rejects:
            yield self._block(records, rejects)

    def _header(self) -> list[str]:
        try:
            for cells in self._rows:
                self._row += 1
                if cells:
                    return cells
        except csv.Error as error:
            raise ConfigError(f"header: {error}", at=self._mapping.name) from None
        raise ConfigError("the table is empty", at=self._mapping.name)

    def _overhead(self) -> int:
        return 256 + sum(len(c.name) + 8 for c in self._mapping.channel)

    def _pieces(self) -> Iterator[_Piece]:
        held: list[Row] = []
        floor_ns = EARLIEST_NS
        done = False
        while not done:
            refused: list[Refused] = []
            rows = held + self._take(refused)
            done = len(rows) == len(held) and not refused
            kept, times, columns = self._parse(rows, refused)
            forwards = forward(times, floor_ns)
            if not forwards.all():
                refused += (
                    Refused(kept[at], "time_backwards", "time runs backwards")
                    for at in np.nonzero(~forwards)[0].tolist()
                )
                kept = [row for row, keep in zip(kept, forwards.tolist(), strict=True) if keep]
                times = times[forwards]
                columns = {name: column[forwards] for name, column in columns.items()}
            cut = len(times)
            if cut and not done:
                last_pane = int(times[-1]) // PANE_NS * PANE_NS
                start = int(times.searchsorted(last_pane))
                cut = start if len(times) - start <= MAX_SAMPLES else cut
            held = kept[cut:]
            if cut:
                floor_ns = int(times[cut - 1])
            yield _Piece(times[:cut], {n: c[:cut] for n, c in columns.items()}, refused)

    def _take(self, refused: list[Refused]) -> list[Row]:
        """The next rows that have the right number of cells."""
        rows: list[Row] = []
        while len(rows) + len(refused) < PIECE:
            try:
                cells = next(self._rows, None)
            except csv.Error as error:
                self._row += 1
                self.counts.rows += 1
                row = Row(self._row, [])
                refused.append(Refused(row, "bad_shape", f"{error} (an open quote?)"))
                continue
            if cells is None:
                break
            self._row += 1
            if not cells:
                continue  # an empty line says nothing
            self.counts.rows += 1
            row = Row(self._row, cells)
            if len(cells) != self._width and (
                len(cells) < self._needed or any(map(str.strip, cells[self._needed :]))
            ):
                detail = f"{len(cells)} cells, the header has {self._width}"
                refused.append(Refused(row, "bad_shape", detail))
            else:
                rows.append(row)
        return rows

    def _parse(
        self, rows: list[Row], refused: list[Refused]
    ) -> tuple[list[Row], Times, dict[str, Floats]]:
        """Columns of the rows that can be read; the others are refused, each for one reason."""
        bad: dict[int, tuple[str, str]] = {}
        # Rows may differ in trailing blanks; the columns that are named are in all of them.
        texts = list(zip(*(row.cells for row in rows), strict=False)) or [()] * self._needed
        times = self._times(texts[self._time_at], bad)
        columns = {
            channel.name: self._column(channel, texts[place], bad)
            for channel, place in zip(self._mapping.channel, self._places, strict=True)
        }
        if not bad:
            return rows, times, columns
        refused += (Refused(rows[at], *why) for at, why in sorted(bad.items()))
        good = np.ones(len(rows), dtype=np.bool_)
        good[list(bad)] = False
        kept = [row for at, row in enumerate(rows) if at not in bad]
        return kept, times[good], {name: column[good] for name, column in columns.items()}

    def _times(self, texts: Sequence[str], bad: dict[int, tuple[str, str]]) -> Times:
        read = self._read_time
        times: list[int] = []
        for at, text in enumerate(texts):
            t_ns = 0
            try:
                t_ns = read(text)
            except (ValueError, OverflowError) as error:
                bad[at] = ("bad_time", str(error))
            else:
                if not EARLIEST_NS <= t_ns <= LATEST_NS:
                    bad[at] = ("absurd_time", f"{shown(text)} is not between 2000 and 2100")
                    t_ns = 0
            times.append(t_ns)
        return np.array(times, dtype=np.int64)

    def _column(
        self, channel: Channel, texts: Sequence[str], bad: dict[int, tuple[str, str]]
    ) -> Floats:
        missing, decimal = self._missing, self._table.decimal
        if channel.as_ == "number" and (values := _plain(texts, missing, decimal)) is not None:
            if channel.sentinels:
                values = np.where(np.isin(values, channel.sentinels), np.nan, values)
            if channel.scale != 1.0 or channel.offset != 0.0:
                values = values * channel.scale + channel.offset
            if not bool((np.abs(values) > LARGEST).any()):
                return _rounded(values)
        read = value_reader(channel, decimal)
        known: dict[str, float] = {}
        out: list[float] = []
        for at, text in enumerate(texts):
            value = known.get(text)
            if value is None:
                try:
                    value = _NAN if text.strip() in missing or text in missing else read(text)
                except (ValueError, OverflowError) as error:
                    bad.setdefault(at, ("bad_value", f"{channel.name}: {error}"))
                    value = _NAN
                else:
                    if len(known) < 1_000:
                        known[text] = value
            out.append(value)
        return _rounded(np.array(out, dtype=np.float64))

    def _count(self, piece: _Piece) -> None:
        counts = self.counts
        counts.samples += len(piece.times)
        if counts.first_ns is None:
            counts.first_ns = int(piece.times[0])
        counts.last_ns = int(piece.times[-1])
        for name, column in piece.columns.items():
            counts.blank[name] += int(np.isnan(column).sum())

    def _birth(self, t_ns: int) -> Record:
        units, modulus = self._mapping.units(), self._mapping.moduli()
        kind = self._mapping.asset.kind
        more = {"modulus": modulus} if modulus else {}
        payload = _encode({"kind": kind, "t_ns": t_ns, "ch": units, **more})
        envelope = Envelope("uns", topics.of(self.asset, "birth"), t_ns, payload)
        meta = meta_of(None, envelope, str(self.asset))
        self.counts.messages += 1
        birth = Birth(self.asset, kind, t_ns, units, meta, modulus=modulus)
        return Record(envelope, birth)

    def _messages(self, piece: _Piece) -> Iterator[Record]:
        source = str(self.asset)
        times = piece.times.tolist()
        lists = {name: column.tolist() for name, column in piece.columns.items()}
        for low, high in pairwise(_cuts(piece.times, self._most)):
            first_ns = times[low]
            payload = _encode(
                {
                    "t_ns": first_ns,
                    "after_ns": [t - first_ns for t in times[low:high]],
                    "ch": {name: column[low:high] for name, column in lists.items()},  # NaN: null
                }
            )
            envelope = Envelope("uns", self._topic, times[high - 1], payload)
            columns = {name: column[low:high] for name, column in piece.columns.items()}
            meta = meta_of(None, envelope, source)
            self.counts.messages += 1
            yield Record(
                envelope, Batch(self.asset, "process", piece.times[low:high], columns, meta)
            )

    def _reject(self, refused: Refused) -> Reject:
        row, reason, detail = refused
        told = f"row {row.number}: {detail}"
        self.counts.rejected[reason] += 1
        self.counts.first_detail.setdefault(reason, told)
        raw = self._table.delimiter.join(row.cells).encode(errors="replace")
        received_ns = self.counts.last_ns or EARLIEST_NS
        return Reject(reason, told[:200], self._topic, received_ns, raw[:KEPT_BYTES], len(raw))

    @staticmethod
    def _block(records: list[Record], rejects: list[Reject]) -> Block:
        if not records:
            return Block([], rejects)
        envelope = tick(records[-1].envelope.received_ns)
        return Block([*records, Record(envelope, Tick(envelope.received_ns))], rejects)


def forward(times: Times, floor_ns: int) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """Which to keep so that times never fall, none is below the floor, and most are kept."""
    keep: np.ndarray[tuple[int], np.dtype[np.bool_]] = times >= floor_ns
    if keep.all() and not bool((np.diff(times) < 0).any()):
        return keep
    tails: list[int] = []  # lowest end of a kept run of each length
    ends: list[int] = []
    before = [-1] * len(times)
    for at, t_ns in enumerate(times.tolist()):
        if t_ns < floor_ns:
            continue
        length = bisect_right(tails, t_ns)
        before[at] = ends[length - 1] if length else -1
        if length == len(tails):
            tails.append(t_ns)
            ends.append(at)
        else:
            tails[length] = t_ns
            ends[length] = at
    keep = np.zeros(len(times), dtype=np.bool_)
    at = ends[-1] if ends else -1
    while at >= 0:
        keep[at] = True
        at = before[at]
    return keep


def _places(mapping: Mapping, wanted: list[str], header: list[str]) -> list[int]:
    """Where the columns stand; tells all that are not there at once."""
    named = [name for name in header if name.strip()]
    wrong = [
        f"no column {name!r}{_like(name, named)}" if name not in header
        else f"{header.count(name)} columns are called {name!r}"
        for name in dict.fromkeys(wanted) if header.count(name) != 1
    ]  # fmt: skip
    if wrong:
        raise ConfigError(
            f"{count(wrong)} with the columns of the table",
            at=mapping.name,
            details=wrong,
            hint=f"the table has: {', '.join(map(repr, named[:50]))}; is the delimiter right?",
        )
    return [header.index(name) for name in wanted]


def _like(name: str, named: list[str]) -> str:
    """A guess in quotes: headers differ in blanks."""
    near = difflib.get_close_matches(name, named, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _plain(texts: Sequence[str], missing: frozenset[str], decimal: str) -> Floats | None:
    """A column of nothing but numbers and blanks, fast; ``None`` where a closer look is needed."""
    joined = "\n".join(texts)
    if "_" in joined or not joined.isascii() or joined.count("\n") != len(texts) - 1:
        return None
    if decimal == ",":
        if "." in joined:
            return None
        joined = joined.replace(",", ".")
    parts = joined.split("\n") if decimal == "," else texts
    try:
        values = np.array(
            [
                _NAN if raw in missing else float(text)
                for raw, text in zip(texts, parts, strict=True)
            ]
        )
    except ValueError:
        return None
    there = ~np.isnan(values)
    blanks = 0 if there.all() else sum(map(missing.__contains__, texts))
    if len(texts) - int(there.sum()) != blanks or bool(np.isinf(values).any()):
        return None
    return values


def _rounded(values: Floats) -> Floats:
    """At most six decimals, as everything on the wire; no negative zero."""
    return np.round(values, 6) + 0.0


def _cuts(times: Times, most: int) -> list[int]:
    """Where messages start: at each pane, and within one before it grows too large."""
    panes = times // PANE_NS
    inner: list[int] = (np.flatnonzero(panes[1:] != panes[:-1]) + 1).tolist()
    out = [0]
    for end in (*inner, len(times)):
        while end - out[-1] > most:
            cut = out[-1] + most
            same = int(times.searchsorted(int(times[cut])))  # keep equal times together
            out.append(same if same > out[-1] else cut)
        out.append(end)
    return out
