"""When a link is silent: drawn from what a long row of heartbeats met, so that none need be sent.

Theory of operation
===================

Of all heartbeats only the missing ones matter: a watchdog asks when nothing has come for too long.
Over months they are the cost of the whole plant, five a second, device and direction. So a few
hours of them are sent once per kind of place over the same network, and the silences between their
arrivals are kept; a device then meets silences at the same rate and of the same lengths, at times
drawn from dice of its own:

    sent     | | | | | | | | | | | | | | | ...  15 hours, once
    heard    | | | |       |||| | | | | |       a silence: from the last to the next
    drawn    ────────┘silence└──────────────    exponential waits between them

A device that stands is measured where it stands, a vehicle on a tour of the map. What a fault does
at its time cannot be drawn: a link with faults carries every heartbeat.
"""

from collections import deque
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from config.units import NS_PER_MS, NS_PER_S
from ingest.messages import Asset
from simulator.device import Ints, ns
from simulator.link.link import Direction, Link
from simulator.plant import Plant, Roads

_BEATS = 1 << 18
_COLUMN = 1 << 13
_BATCH = 64
_TOUR_MPS = 1.0
FOREVER_NS = 1 << 62
SHORTEST_NS = 250 * NS_PER_MS
"""A shorter pause between two heartbeats is none; no watchdog may have a shorter limit."""


@dataclass(frozen=True, slots=True)
class Law:
    """How often silences come, and how long they are."""

    between_ns: float
    """Mean time from the end of one to the next; infinite without any."""
    lengths_ns: Ints
    """Those that were met."""


class Silences:
    """The silences of one direction of one device, ``(last heard, next heard)``, as time goes on.

    Ask in order of time.
    """

    def __init__(self, law: Law, t_ns: int, dice: np.random.Generator) -> None:
        self._law = law
        self._dice = dice
        self._known_ns = t_ns
        self._coming: deque[tuple[int, int]] = deque()

    def until(self, t_ns: int) -> deque[tuple[int, int]]:
        """All that begin before a time and were not forgotten, and perhaps later ones."""
        law = self._law
        while self._known_ns <= t_ns:
            if not len(law.lengths_ns):
                self._known_ns = FOREVER_NS
                break
            waits = self._dice.exponential(law.between_ns, _BATCH).astype(np.int64)
            lengths = law.lengths_ns[self._dice.integers(0, len(law.lengths_ns), _BATCH)]
            ends = self._known_ns + np.cumsum(waits + lengths)
            self._coming.extend(zip((ends - lengths).tolist(), ends.tolist(), strict=True))
            self._known_ns = int(ends[-1])
        return self._coming

    def forget(self, t_ns: int) -> None:
        """Nobody will ask about what was over before a time."""
        coming = self._coming
        while coming and coming[0][1] <= t_ns:
            coming.popleft()


class Heartbeats:
    """The laws of a plant's link, measured when they are first needed."""

    def __init__(self, plant: Plant, roads: Roads, link: Link, seed: int, t_ns: int) -> None:
        self._plant, self._roads, self._link = plant, roads, link
        self._seed, self._t_ns = seed, t_ns
        self._laws: dict[tuple[Direction, str | None, tuple[float, float] | None], Law] = {}

    def silences(
        self, asset: Asset, direction: Direction, slice: str | None, beat_ns: int, n_bytes: int
    ) -> Silences:
        """Those of a device of the plant; asked for again, the same again."""
        spec = next((s for s in self._plant.device if s.name == asset.name), None)
        place = None
        if self._plant.radio is not None and spec is not None and spec.kind != "agv":
            place = self._plant.place_of(spec)
        key = (direction, slice, place)
        if key not in self._laws:
            self._laws[key] = self._measured(*key, beat_ns, n_bytes)
        identity = [self._seed, crc32(str(asset).encode()), 3, int(direction)]
        return Silences(self._laws[key], self._t_ns, np.random.default_rng(identity))

    def _measured(
        self, direction: Direction, slice: str | None, place: tuple[float, float] | None,
        beat_ns: int, n_bytes: int,
    ) -> Law:  # fmt: skip
        bearer = self._link.bearer("silences", direction, slice)
        times = self._t_ns + beat_ns * np.arange(_BEATS, dtype=np.int64)
        if (radio := self._plant.radio) is not None:
            track = self._tour(int(times[-1])) if place is None else [(self._t_ns, *place)]
            for t_ns, x_m, y_m in track:
                bearer.move(t_ns, x_m + radio.x_m, y_m + radio.y_m)
        came = [np.array([self._t_ns], dtype=np.int64)]
        for low in range(0, _BEATS, _COLUMN):
            part = times[low : low + _COLUMN]
            arrived = np.asarray(
                bearer.send_many(part, np.full(len(part), n_bytes, dtype=np.int64)),
                dtype=np.int64,
            )
            came.append(arrived[arrived >= 0])
        pauses = np.asarray(np.diff(np.concatenate(came)), dtype=np.int64)
        lengths = pauses[pauses > SHORTEST_NS]
        calm_ns = _BEATS * beat_ns - int(lengths.sum())
        return Law(calm_ns / len(lengths) if len(lengths) else float("inf"), lengths)

    def _tour(self, to_ns: int) -> list[tuple[int, float, float]]:
        """From node to node of the map, at random, without a stop."""
        dice = np.random.default_rng([self._seed, 0x7043])
        names = sorted(self._roads.place)
        at, t_ns = names[0], self._t_ns
        track = [(t_ns, *self._roads.place[at])]
        while t_ns < to_ns and len(names) > 1:
            goal = names[int(dice.integers(len(names)))]
            start_ns = t_ns
            for name, far_m in self._roads.way(at, goal)[1:]:
                t_ns = start_ns + max(ns(far_m / _TOUR_MPS), NS_PER_S)
                if t_ns > track[-1][0]:
                    track.append((t_ns, *self._roads.place[name]))
            at = goal
        return track
