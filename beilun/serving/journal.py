"""What devices said, by asset and time: the journal of a recording, read where it is asked for.

    asked for: an asset, streams, a span
        │
        ▼ index: blocks with samples in the span; landmarks: blocks in which something rare was told
      blocks ──► by topic, unpacked (kept: the newest asked for) ──► of the asset ──► decoded (kept)

A block is unpacked as a whole, and only messages on topics of the asset are decoded. What a
recording holds is as it came: with repeats, out of order, and with the messages of other runs,
which are left out. The order of time is made here.
"""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Generic, TypeVar

import numpy as np

from config.errors import RecordingError
from ingest import topics
from ingest.codecs import Unusable
from ingest.codecs.uns import CODEC as UNS
from ingest.codecs.vda5050 import CODEC as VDA5050
from ingest.decode import TICK, Decoder
from ingest.messages import Asset, Batch, Birth, Envelope, Floats, Record, Times
from ingest.recording import LANDMARKS, LAST_LANDMARKS, Landmark, Recording, landmarks_in

UNPACKED_BYTES = 64 << 20
"""How much of the journal is kept unpacked."""
DECODED_BYTES = 48 << 20
"""How much of it is kept decoded."""
PLACES = 100_000
"""Of how many topics it is kept what they are about."""
FIRST_BLOCKS, MORE_BLOCKS = 8, 2
"""In a recording of before landmarks were kept, how much is looked through for who announced itself
before anybody is told, and how much more each time that it is asked again."""
LINK = "link"
"""The stream with most messages, and of use to few."""

T = TypeVar("T")


class _Kept(Generic[T]):
    """The newest that were asked for, up to a size."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._items: OrderedDict[object, tuple[int, T]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object) -> T | None:
        with self._lock:
            found = self._items.get(key)
            if found is None:
                return None
            self._items.move_to_end(key)
            return found[1]

    def put(self, key: object, item: T, size: int) -> None:
        with self._lock:
            if key in self._items:
                return
            self._items[key] = size, item
            self._size += size
            while self._size > self._most and len(self._items) > 1:
                _, (gone, _) = self._items.popitem(last=False)
                self._size -= gone


class Journal:
    """The journal of a recording; ``open`` gives the calling thread's own recording."""

    def __init__(self, open: Callable[[], Recording], decoder: Decoder, run: str | None) -> None:
        self._open = open
        self._decoder = decoder
        self._run = run
        self._unpacked: _Kept[dict[tuple[str, str], list[Envelope]]] = _Kept(UNPACKED_BYTES)
        self._decoded: _Kept[list[Batch]] = _Kept(DECODED_BYTES)
        self._asset_of: dict[str, Asset] = {}
        """Of topics on which always one asset speaks."""
        self._told: dict[tuple[str, str], tuple[int, list[Batch | Birth]]] = {}
        """Everything of a landmark stream up to a block."""
        self._place_of: dict[str, tuple[str, str]] = {}
        """What topics are about, by the topic alone."""
        self._scanned: dict[tuple[str, str], list[tuple[int, Envelope | None]]] = {}
        self._scanned_to = 0
        """Number of the last block that was looked through."""
        self._begins: dict[int, int] | None = None
        """Once all were: where they begin."""
        self._lock = threading.Lock()

    # of one asset -------------------------------------------------------------------------------

    def batches(
        self, asset: Asset, first_ns: int, last_ns: int, *, link: bool = False
    ) -> list[Batch]:
        """What an asset told with samples in ``[first_ns, last_ns]``, but for its link's delays or
        only these; in no order."""
        found: list[Batch] = []
        for number in self._open().numbers_over(first_ns, last_ns):
            found += [
                batch
                for batch in self._batches_in(number, asset, link=link)
                if int(batch.t_ns[-1]) >= first_ns and int(batch.t_ns[0]) <= last_ns
            ]
        return found

    def told(self, asset: Asset, stream: str) -> list[Batch | Birth]:
        """Everything on a landmark stream but ``state``, as it came."""
        key = str(asset), stream
        with self._lock:
            after, known = self._told.get(key, (0, []))
        new = self._landmarks(*key, after)
        if not new:
            return known
        more = [*known, *self._decode_for(asset, (e for _, e in new if e is not None))]
        with self._lock:
            self._told[key] = new[-1][0], more
        return more

    def last_told(self, asset: Asset, stream: str, before_ns: int) -> list[Batch]:
        """What an asset told last on a landmark stream at some time, and shortly before that; a
        little may be later."""
        found: list[Batch] = []
        for number, envelope in self._landmarks_before(str(asset), stream, before_ns):
            if envelope is None:
                some = self._batches_in(number, asset, link=False)
                found += [batch for batch in some if batch.stream == stream]
            else:
                some = self._decode_for(asset, [envelope])
                found += [message for message in some if isinstance(message, Batch)]
        return found

    def _decode_for(self, asset: Asset, envelopes: Iterable[Envelope]) -> list[Any]:
        return [message for message in self._decode(envelopes) if message.asset == asset]

    def assets(self) -> list[Asset]:
        """Every asset that announced itself. In a recording of before landmarks were kept, those of
        its first blocks, and of more of it each time."""
        recording = self._open()
        if recording.landmarks("", "") is None:
            more = FIRST_BLOCKS if self._scanned_to < FIRST_BLOCKS else MORE_BLOCKS
            paths = sorted(path for path, stream in self._scan(more) if stream == "birth")
        else:
            paths = recording.landmark_assets("birth")
        return [Asset(*path.split("/")) for path in paths]

    def births(self, asset: Asset) -> list[Birth]:
        """Its births, the last one last."""
        born = [message for message in self.told(asset, "birth") if isinstance(message, Birth)]
        return sorted(born, key=lambda birth: birth.t_ns)

    # blocks -------------------------------------------------------------------------------------

    def _batches_in(self, number: int, asset: Asset, *, link: bool) -> list[Batch]:
        key = number, asset, link
        found = self._decoded.get(key)
        if found is None:
            found = list[Batch]()
            for (path, stream), envelopes in self._block(number).items():
                if path in ("", str(asset)) and (stream == LINK) == link:
                    found += [
                        message
                        for message in self._decode(envelopes)
                        if isinstance(message, Batch) and message.asset == asset
                    ]
            self._decoded.put(key, found, 500 + sum(_size(batch) for batch in found))
        return found

    def _decode(self, envelopes: Iterable[Envelope]) -> Iterator[Batch | Birth]:
        for envelope in envelopes:
            try:
                records = self._decoder.read(envelope)
            except Unusable:  # journalled by another version
                continue
            for record in records:
                message = record.message
                if not isinstance(message, Batch | Birth):
                    continue
                if self._run is None or message.meta.run == self._run:
                    yield message

    def _block(self, number: int) -> dict[tuple[str, str], list[Envelope]]:
        """A block by path of the asset and stream; empty where the topic does not say."""
        found = self._unpacked.get(number)
        if found is None:
            found = dict[tuple[str, str], list[Envelope]]()
            size = 0
            for envelope in self._open().block(number).envelopes:
                if envelope.codec == TICK:
                    continue
                size += len(envelope.payload) + 200
                found.setdefault(self._place(envelope), []).append(envelope)
            self._unpacked.put(number, found, size)
        return found

    def _place(self, envelope: Envelope) -> tuple[str, str]:
        topic = envelope.topic
        if envelope.codec == UNS.name:
            found = self._place_of.get(topic)
            if found is None:
                target = topics.parse(topic)
                found = ("-", "-") if target is None else (str(target[0]), target[1])
                if len(self._place_of) < PLACES:
                    self._place_of[topic] = found
            return found
        if envelope.codec != VDA5050.name:
            return "", ""
        asset = self._asset_of.get(topic)
        if asset is None:
            for message in self._decode([envelope]):
                asset = self._asset_of[topic] = message.asset
        return ("-", "-") if asset is None else (str(asset), "process")

    def _landmarks(self, path: str, stream: str, after: int) -> list[tuple[int, Envelope | None]]:
        found = self._open().landmarks(path, stream, after=after)
        if found is not None:
            return found
        scanned = self._scan(0 if stream == "birth" and self._scanned_to else None)
        return [mark for mark in scanned.get((path, stream), []) if mark[0] > after]

    def _landmarks_before(
        self, path: str, stream: str, before_ns: int
    ) -> list[tuple[int, Envelope | None]]:
        found = self._open().landmarks(path, stream, before_ns=before_ns)
        if found is not None:
            return found
        marks = self._scan().get((path, stream), [])
        begins = self._begins or {}
        marks = [mark for mark in marks if begins.get(mark[0], before_ns + 1) <= before_ns]
        return marks[: -1 - LAST_LANDMARKS : -1]

    def _scan(
        self, blocks: int | None = None
    ) -> dict[tuple[str, str], list[tuple[int, Envelope | None]]]:
        """Where the landmarks are, in a recording of before they were kept: so many more blocks of
        it are read, or all that are left. What was found is kept."""
        with self._lock:
            while self._begins is None and (blocks is None or blocks > 0):
                blocks = None if blocks is None else blocks - 1
                recording = self._open()
                try:
                    block = recording.block(self._scanned_to + 1)
                except RecordingError:  # the end, or what is left of one that was cut off
                    self._begins = recording.begins()
                    break
                for mark in self._landmarks_of(block.envelopes):
                    key = mark.asset, mark.stream
                    self._scanned.setdefault(key, []).append((block.id, mark.envelope))
                self._scanned_to = block.id
            return {key: list(marks) for key, marks in self._scanned.items()}

    def _landmarks_of(self, envelopes: Sequence[Envelope]) -> list[Landmark]:
        records: list[Record] = []
        for envelope in envelopes:
            named = envelope.codec == UNS.name and self._place(envelope)[1] not in LANDMARKS
            if named or envelope.codec in (TICK, VDA5050.name):
                continue
            with contextlib.suppress(Unusable):
                records += self._decoder.read(envelope)
        return landmarks_in(records)


def _size(batch: Batch) -> int:
    """Bytes that a batch takes, as measured: most of them are of objects, not of samples."""
    return 700 + 8 * len(batch) + len(batch.channels) * (200 + 8 * len(batch))


def series(batches: Iterable[Batch], channel: str) -> tuple[Times, Floats]:
    """One channel of what was told, in order of time, each time once; blank cells are NaN."""
    parts = [(b.t_ns, b.channels[channel]) for b in batches if channel in b.channels]
    if not parts:
        return np.empty(0, dtype=np.int64), np.empty(0)
    t_ns = np.concatenate([t for t, _ in parts])
    values = np.concatenate([v for _, v in parts])
    t_ns, first = np.unique(t_ns, return_index=True)
    return t_ns, values[first]


def within(t_ns: Times, values: Floats, from_ns: int, to_ns: int) -> tuple[Times, Floats]:
    """The part of a series in ``[from_ns, to_ns]``."""
    low = int(np.searchsorted(t_ns, from_ns, side="left"))
    high = int(np.searchsorted(t_ns, to_ns, side="right"))
    return t_ns[low:high], values[low:high]


def thinned(t_ns: Times, values: Floats, most: int) -> tuple[Times, Floats]:
    """At most about so many points of a series: of each stretch the least, the greatest, and one
    blank where there is one, so that neither a spike nor a gap is lost."""
    n = len(t_ns)
    if n <= most:
        return t_ns, values
    edges = np.linspace(0, n, max(1, most // 3) + 1).astype(np.int64)
    kept = np.unique(np.concatenate([_telling(values, a, b) for a, b in _pairs(edges) if a < b]))
    return t_ns[kept], values[kept]


def _pairs(edges: Times) -> Iterator[tuple[int, int]]:
    yield from pairwise(edges.tolist())


def _telling(values: Floats, a: int, b: int) -> Times:
    part = values[a:b]
    blank = np.isnan(part)
    if bool(blank.all()):
        return np.array([a])
    found = [a + int(np.nanargmin(part)), a + int(np.nanargmax(part))]
    if bool(blank.any()):
        found.append(a + int(np.argmax(blank)))
    return np.array(found)
