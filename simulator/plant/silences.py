"""What control traffic meets on a link, drawn from a long row of it, so that months cost little.

Theory of operation
===================

Of all heartbeats only the missing ones matter: a watchdog asks when nothing has come for too long.
Over months they are the cost of the whole plant, five a second, device and direction; what is said
between them comes next. So hours of both are sent once per kind of place over the same network.
Kept are the silences between heartbeats that arrived, and of each message its trace. A device then
meets silences at the same rate and of the same lengths, and each of its messages takes as long as
one of those did, and the same way; which, is up to dice of its own:

    sent     | | | | ▌| | | | | | | ▌| | | ...  1 h 49 min, once
    heard    | | | | ▌       |||| | ▌| | |      a silence: from the last to the next
    drawn    ────────┘ silence └────────────    exponential waits between them

A device that stands is measured where it stands, a vehicle on a tour of the map, whatever the place
it is at when it sends. The law is one of the network: it has dice and a time of its own, is the
same for every seed, and a process measures it once for all its runs. What a fault does at its time
cannot be drawn: a link with faults carries everything.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import add
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from config.units import NS_PER_MS, NS_PER_S
from ingest.messages import Asset, Times
from simulator.device import Ints, ns
from simulator.link.link import TRACED, Direction, Link
from simulator.plant import Plant, Roads

_BEATS = 1 << 15
_TOUR_BEATS = 1 << 16
_EVERY = 8
"""Heartbeats to a message."""
_COLUMN = 1 << 13
_BATCH = 256
_TOUR_MPS = 1.0
_DICE = 0x7043
_MEASURED_NS = 1_767_225_600 * NS_PER_S
_FOREVER_NS = 1 << 62
SHORTEST_NS = 250 * NS_PER_MS
"""A shorter pause between two heartbeats is none; no watchdog may have a shorter limit."""
_NONE: Ints = np.empty(0, dtype=np.int64)

Place = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Law:
    """How often silences come and how long they are, and what messages between them meet."""

    between_ns: float
    """Mean time from the end of one to the next; infinite without any."""
    lengths_ns: Ints
    """Those that were met."""
    delays_ns: Ints = field(default_factory=_NONE.copy)
    """Of each message that was sent; -1 for one that never arrived."""
    trace: Mapping[str, Ints] = field(default_factory=dict[str, Ints])
    """Where its time went, as ``Bearer.take_trace`` says it."""


class Silences:
    """The silences of one direction of one device as time goes on, last heard to next heard.

    They are drawn once for both who ask: who lives through them (``between``), and who tells of
    them afterwards (``told``).
    """

    def __init__(self, law: Law, t_ns: int, dice: np.random.Generator) -> None:
        self._law = law
        self._dice = dice
        self._drawn_ns = t_ns if len(law.lengths_ns) else _FOREVER_NS
        """All that begin before are drawn."""
        self._untold: list[tuple[Times, Times]] = []
        """Beginnings and ends that may be told yet, in order."""
        self._ahead: deque[tuple[Times, Times]] | None = None
        """Those drawn that no question has reached; ``None`` before the first one."""
        self._known_ns = self._drawn_ns
        """All that begin before are known to who asks."""
        self._starts, self._ends = list[int](), list[int]()
        """As plain numbers: most questions are about one or none."""
        self._low = 0
        """Of these the first that ended after the first time of the last question."""

    def between(self, from_ns: int, to_ns: int) -> tuple[list[int], list[int]]:
        """Beginnings and ends of all that end after a time and begin before another, in order.

        The first may never go back, nor before a stretch that was told of: what was over before is
        forgotten.
        """
        if self._known_ns <= to_ns:
            self._learn(from_ns, to_ns)
        low = bisect_right(self._ends, from_ns)
        if low >= _BATCH:
            del self._starts[:low], self._ends[:low]
            low = 0
        self._low = low
        high = bisect_left(self._starts, to_ns, low)
        return self._starts[low:high], self._ends[low:high]

    def begins_ns(self) -> int:
        """Of those that end after the first time of the last question, when the first begins; it
        may not be known yet, then no earlier than that."""
        return self._starts[self._low] if self._low < len(self._starts) else self._known_ns

    def told(self, after_ns: int, to_ns: int) -> tuple[Times, Times]:
        """``between`` for who tells of them, stretch after stretch."""
        if self._drawn_ns <= to_ns:
            self._draw(to_ns)
        untold = self._untold
        while untold and int(untold[0][1][-1]) <= after_ns:
            del untold[0]
        if not untold:
            return _NONE, _NONE
        if len(untold) > 1:
            untold[:] = [(np.concatenate([s for s, _ in untold]),
                          np.concatenate([e for _, e in untold]))]  # fmt: skip
        starts, ends = untold[0]
        low, high = ends.searchsorted(after_ns, side="right"), starts.searchsorted(to_ns)
        untold[0] = starts[low:], ends[low:]
        return starts[low:high], ends[low:high]

    def _learn(self, from_ns: int, to_ns: int) -> None:
        if self._ahead is None:
            self._ahead = deque(self._untold)
        while self._known_ns <= to_ns:
            if not self._ahead:
                self._draw(to_ns)
            starts, ends = self._ahead.popleft()
            self._known_ns = int(ends[-1])
            if self._known_ns > from_ns:
                self._starts += starts.tolist()
                self._ends += ends.tolist()

    def _draw(self, to_ns: int) -> None:
        law, dice, many = self._law, self._dice, len(self._law.lengths_ns)
        while self._drawn_ns <= to_ns:
            waits = dice.exponential(law.between_ns, _BATCH).astype(np.int64)
            lengths = law.lengths_ns[dice.integers(0, many, _BATCH)]
            waits += lengths
            ends = waits.cumsum()
            ends += self._drawn_ns
            drawn = ends - lengths, ends
            self._drawn_ns = int(ends[-1])
            self._untold.append(drawn)
            if self._ahead is not None:
                self._ahead.append(drawn)


class Drawn:
    """A bearer whose messages take what messages of their size took when the law was measured."""

    def __init__(self, laws: Callable[[int], Law], dice: np.random.Generator) -> None:
        self._laws, self._dice = laws, dice
        self._coming: dict[int, _Coming] = {}
        """By size what the next messages will be."""
        self._last_ns = 0
        self._sent = _Sent()

    def send(self, t_ns: int, n_bytes: int) -> int | None:
        """When a message sent at ``t_ns`` arrives, not before the last one; ``None``: never."""
        coming, at = self._next(n_bytes, 1)
        coming.at = at + 1
        delay_ns, arrival_ns = coming.delays_ns[at], -1
        if delay_ns >= 0:
            arrival_ns = self._last_ns = max(t_ns + delay_ns, self._last_ns)
        sent = self._sent
        sent.sent_ns.append(t_ns)
        sent.arrival_ns.append(arrival_ns)
        sent.size.append(n_bytes)
        sent.row.append(coming.rows[at])
        return arrival_ns if delay_ns >= 0 else None

    def send_many(self, t_ns: Ints, n_bytes: Ints) -> Ints:
        """``send`` for columns in order of time; -1 for a message that never arrives."""
        arrivals = map(self.send, t_ns.tolist(), n_bytes.tolist())
        return np.array([-1 if at is None else at for at in arrivals], dtype=np.int64)

    def ahead(self, n: int, n_bytes: int) -> list[int]:
        """What the next messages of a size will take, if nothing else of that size is sent before;
        -1 for one that never arrives."""
        coming, at = self._next(n_bytes, n)
        return coming.delays_ns[at : at + n]

    def send_in_turn(self, t_ns: Sequence[int], n_bytes: int) -> list[int]:
        """``send`` each when the one before is there; ``ahead`` has told that all arrive."""
        coming, at = self._next(n_bytes, len(t_ns))
        coming.at = end = at + len(t_ns)
        arrivals_ns = list(map(add, t_ns, coming.delays_ns[at:end]))
        sent = self._sent
        sent.sent_ns += t_ns
        sent.arrival_ns += arrivals_ns
        sent.size += [n_bytes] * len(t_ns)
        sent.row += coming.rows[at:end]
        self._last_ns = arrivals_ns[-1]
        return arrivals_ns

    def _next(self, n_bytes: int, n: int) -> tuple["_Coming", int]:
        """What comes, of which that many are known at least, and from where on."""
        coming = self._coming.get(n_bytes)
        if coming is None:
            coming = self._coming[n_bytes] = _Coming([], [], 0)
        if len(coming.rows) < coming.at + n:
            delays_ns = self._laws(n_bytes).delays_ns
            rows = self._dice.integers(0, len(delays_ns), _BATCH)
            coming.rows[: coming.at] = []
            coming.delays_ns[: coming.at] = []
            coming.at = 0
            coming.rows += rows.tolist()
            coming.delays_ns += delays_ns[rows].tolist()
        return coming, coming.at

    def take_trace(self) -> dict[str, Ints]:
        """See ``Bearer.take_trace``; who waited for the one before was in a queue."""
        columns = (np.array(column, dtype=np.int64) for column in self._sent)
        sent_ns, arrival_ns, sizes, rows = columns
        self._sent = _Sent()
        out: dict[str, Ints] = {name: np.empty_like(rows) for name in TRACED}
        for size in np.unique(sizes).tolist():
            mine, law = sizes == size, self._laws(size)
            for name, column in law.trace.items():
                out[name][mine] = column[rows[mine]]
        took_ns = out["arrival_ns"] - out["sent_ns"]
        behind_ns = np.where(arrival_ns < 0, 0, arrival_ns - sent_ns - took_ns)
        queue_ns = out["queue_ns"] + behind_ns
        return out | {"sent_ns": sent_ns, "arrival_ns": arrival_ns, "queue_ns": queue_ns}


@dataclass(slots=True)
class _Coming:
    """What the next messages will be: as which messages of the law, and what those took."""

    rows: list[int]
    delays_ns: list[int]
    at: int


class _Sent:
    """What was sent, and as which message of the law."""

    __slots__ = ("arrival_ns", "row", "sent_ns", "size")

    def __init__(self) -> None:
        self.sent_ns, self.arrival_ns = list[int](), list[int]()
        self.size, self.row = list[int](), list[int]()

    def __iter__(self) -> Iterator[list[int]]:
        return iter((self.sent_ns, self.arrival_ns, self.size, self.row))


@lru_cache(maxsize=8)
def _laws(network: str) -> dict[tuple[Any, ...], Law]:
    """What this process has measured of a network."""
    del network
    return {}


class Heartbeats:
    """The laws of a plant's link, measured when they are first needed.

    Heartbeats come every ``beat_ns`` and have ``beat_bytes``.
    """

    def __init__(
        self, plant: Plant, roads: Roads, link: Link, seed: int, t_ns: int, beat_ns: int,
        beat_bytes: int,
    ) -> None:  # fmt: skip
        self._plant, self._roads, self._link = plant, roads, link.alike()
        self._seed, self._t_ns = seed, t_ns
        self._beat_ns, self._beat_bytes = beat_ns, beat_bytes
        self._laws = _laws(link.described)
        self._map = repr((plant.node, plant.edge, plant.radio))

    def silences(
        self, asset: Asset, direction: Direction, slice: str | None, n_bytes: int
    ) -> Silences:
        """Those of a device of the plant whose messages mostly have a size; asked for again, the
        same again."""
        law = self._law(direction, slice, self._place(asset), n_bytes)
        return Silences(law, self._t_ns, self._dice(asset, 3, direction))

    def drawn(self, asset: Asset, direction: Direction, slice: str | None) -> Drawn:
        """The messages of a device of the plant."""
        place = self._place(asset)
        return Drawn(
            lambda n_bytes: self._law(direction, slice, place, n_bytes),
            self._dice(asset, 4, direction),
        )

    def _dice(self, asset: Asset, purpose: int, direction: Direction) -> np.random.Generator:
        identity = crc32(str(asset).encode())
        return np.random.default_rng([self._seed, identity, purpose, int(direction)])

    def _place(self, asset: Asset) -> Place | None:
        """Where it stands on the radio's map, if it stands and there is one."""
        spec = next((s for s in self._plant.device if s.name == asset.name), None)
        radio = self._plant.radio
        if radio is None or spec is None or spec.kind == "agv":
            return None
        place = self._plant.place_of(spec)
        return None if place is None else (place[0] + radio.x_m, place[1] + radio.y_m)

    def _law(
        self, direction: Direction, slice: str | None, place: Place | None, n_bytes: int
    ) -> Law:
        where = place or self._map
        key = (direction, slice, where, n_bytes, self._beat_ns, self._beat_bytes)
        if key not in self._laws:
            self._laws[key] = self._measured(direction, slice, place, n_bytes)
        return self._laws[key]

    def _measured(
        self, direction: Direction, slice: str | None, place: Place | None, n_bytes: int
    ) -> Law:
        tours = place is None and self._plant.radio is not None
        n = _TOUR_BEATS if tours else _BEATS
        bearer = self._link.bearer(f"silences at {place}", direction, slice, trace=True)
        times, sizes, is_beat = self._row(n, n_bytes)
        track = self._tour(int(times[-1])) if tours else [(int(times[0]), *(place or (0.0, 0.0)))]
        for waypoint in track:
            bearer.move(*waypoint)
        arrived = np.concatenate([
            bearer.send_many(times[low : low + _COLUMN], sizes[low : low + _COLUMN])
            for low in range(0, len(times), _COLUMN)
        ])  # fmt: skip
        trace = {name: column[~is_beat] for name, column in bearer.take_trace().items()}
        heard = arrived[is_beat & (arrived >= 0)]
        pauses = np.diff(heard, prepend=times[0])
        lengths = pauses[pauses > SHORTEST_NS]
        calm_ns = n * self._beat_ns - int(lengths.sum())
        between_ns = calm_ns / len(lengths) if len(lengths) else float("inf")
        delays_ns = np.where(arrived < 0, -1, arrived - times)[~is_beat]
        return Law(between_ns, lengths, delays_ns, trace)

    def _row(self, n: int, n_bytes: int) -> tuple[Times, Ints, NDArray[np.bool_]]:
        """Heartbeats and messages between them: when each is sent, how large it is, and which are
        heartbeats."""
        beats = self._beat_ns * np.arange(n, dtype=np.int64)
        every_ns = _EVERY * self._beat_ns
        at = np.random.default_rng(_DICE).integers(0, every_ns, n // _EVERY)
        messages = every_ns * np.arange(n // _EVERY, dtype=np.int64) + at
        times = np.concatenate((beats, messages))
        order = np.argsort(times, kind="stable")
        is_beat = order < n
        return _MEASURED_NS + times[order], np.where(is_beat, self._beat_bytes, n_bytes), is_beat

    def _tour(self, to_ns: int) -> list[tuple[int, float, float]]:
        """From node to node of the map, at random, without a stop."""
        dice, radio = np.random.default_rng(_DICE), self._plant.radio
        origin = (0.0, 0.0) if radio is None else (radio.x_m, radio.y_m)
        place = {
            name: (x_m + origin[0], y_m + origin[1])
            for name, (x_m, y_m) in sorted(self._roads.place.items())
        }
        names = [*place]
        at, t_ns = names[0], _MEASURED_NS
        track = [(t_ns, *place[at])]
        while t_ns < to_ns and len(names) > 1:
            goal = names[int(dice.integers(len(names)))]
            start_ns = t_ns
            for name, far_m in self._roads.way(at, goal)[1:]:
                t_ns = start_ns + max(ns(far_m / _TOUR_MPS), NS_PER_S)
                if t_ns > track[-1][0]:
                    track.append((t_ns, *place[name]))
            at = goal
        return track
