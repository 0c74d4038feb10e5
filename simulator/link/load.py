"""What the traffic of others costs a message: slices, turns, and how many are waiting.

Theory of operation
===================

Background traffic is declared (flows of video per slice and cell), never simulated by packet. The
flows of one slice that have something to send take turns, each turn a part of a slot. With a load
``r`` of the capacity left to the slice, the number K of such flows is geometric, P(K >= k) = r**k,
as in any processor-sharing queue, and at most the number of flows. A device comes up once in K + 1
turns, and a turn carries ``turn_bytes`` of whatever it has by then. So its queue is served at that
pace, and a message that finds it empty waits for the first turn:

    service = bytes on the air + K * turn * bytes / turn_bytes
    wait    = the rest of K * turn, if any

K is a function of time: a noise that forgets within about a frame's time in the cell, through the
inverse of the geometric law. So neighbours see the same rush, and a rush hits several messages.

``priority``: a slice waits for its own kind and the more urgent, in turns that the more urgent
stretch, and never for the less urgent. ``weighted``: it has what its weight guarantees and what the
others leave of theirs. ``none``: everything waits for everything.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from config.units import NS_PER_MS, NS_PER_S
from simulator.link.columns import Ints
from simulator.link.lattice import Noise, key

_MOST_TAKEN = 0.98
"""Admission control leaves the less urgent slices this much less than everything."""
_REACH, _FINE = 6.0, 128
# Exponential quantile of a standard normal: -ln P(Z > z), tabulated and blended.
_RARITY = np.array(
    [-math.log(math.erfc(i / _FINE / math.sqrt(2)) / 2)
     for i in range(int(-_REACH * _FINE), int(_REACH * _FINE) + 2)]
)  # fmt: skip
_RARITY_LIST: list[float] = _RARITY.tolist()


class Demand(NamedTuple):
    """Declared traffic of one slice in one cell and direction."""

    flows: int = 0
    mbps: float = 0.0
    frames_hz: float = 0.0


def total(demands: Iterable[Demand]) -> Demand:
    """All of them together."""
    found = list(demands)
    return Demand(
        sum(d.flows for d in found), sum(d.mbps for d in found), sum(d.frames_hz for d in found)
    )


class Rank(NamedTuple):
    """What the scheduler knows of a slice."""

    priority: int
    weight: float


class Queue(NamedTuple):
    """How a slice's messages fare under a set of demands."""

    turn_ns: int
    turn_bytes: int
    flows: int
    steepness: float
    """One over -ln(load): rarity to number waiting."""
    forget_ns: int


def queue(
    capacity_mbps: float,
    turn_ns: float,
    demands: Mapping[str, Demand],
    ranks: Mapping[str, Rank],
    rule: str,
    name: str,
) -> Queue | None:
    """The queue of slice ``name``; ``None`` where nobody is before it."""
    free_mbps = capacity_mbps
    before = total(demands.values())
    if rule == "priority":
        mine = ranks[name].priority
        before = total(d for other, d in demands.items() if ranks[other].priority <= mine)
        urgent = total(d for other, d in demands.items() if ranks[other].priority < mine)
        free_mbps -= min(urgent.mbps, _MOST_TAKEN * capacity_mbps)
        load = before.mbps / capacity_mbps
    elif rule == "weighted":
        before = demands[name]
        free_mbps = _share(capacity_mbps, demands, ranks, name)
        load = before.mbps / free_mbps
    else:
        load = before.mbps / capacity_mbps
    if not before.flows:
        return None
    frame_mbit = before.mbps / before.frames_hz
    forget_ns = round(frame_mbit / free_mbps / max(1.0 - load, 0.02) * NS_PER_S)
    return Queue(
        round(turn_ns * capacity_mbps / free_mbps),
        max(round(capacity_mbps * turn_ns / 8_000.0), 1),
        before.flows,
        -1.0 / math.log(max(load, 1e-9)) if load < 1.0 else 1e12,
        min(max(forget_ns, NS_PER_MS), NS_PER_S),
    )


def _share(
    capacity_mbps: float, demands: Mapping[str, Demand], ranks: Mapping[str, Rank], name: str
) -> float:
    """Capacity for ``name``: others take what they demand, at most their weighted part."""
    hungry = {other for other in demands if other != name and demands[other].mbps}
    free = capacity_mbps
    while True:
        weights = ranks[name].weight + sum(ranks[other].weight for other in hungry)
        part = free / weights
        content = {o for o in hungry if demands[o].mbps <= part * ranks[o].weight}
        if not content:
            return part * ranks[name].weight
        hungry -= content
        free -= sum(demands[o].mbps for o in content)


class Backlog:
    """The queues of one slice and direction in every cell, over time."""

    def __init__(self, edges_ns: Sequence[int], queues: Sequence[Sequence[Queue | None]],
                 seed: int) -> None:  # fmt: skip
        """``queues[epoch][cell]``, the epochs parted by the edges."""
        self._edges = list(edges_ns)
        self._column = np.array(self._edges, np.int64)
        self._queues = queues
        self._seed = seed
        self._noises: dict[tuple[int, int], Noise] = {}

    def _noise(self, epoch: int, cell: int, forget_ns: int) -> Noise:
        found = self._noises.get((epoch, cell))
        if found is None:
            found = self._noises[epoch, cell] = Noise(key(self._seed, cell), forget_ns)
        return found

    def one(self, t_ns: int, n_bytes: int, cell: int) -> tuple[int, int]:
        """See ``columns.Backlog``."""
        epoch = bisect_right(self._edges, t_ns)
        q = self._queues[epoch][cell]
        if q is None:
            return 0, 0
        z = self._noise(epoch, cell, q.forget_ns).at(t_ns)
        place = (min(max(z, -_REACH), _REACH) + _REACH) * _FINE
        low = int(place)
        a = _RARITY_LIST[low]
        rarity = a + (_RARITY_LIST[low + 1] - a) * (place - low)
        waiting = int(min(rarity * q.steepness, float(q.flows)))
        round_ns = waiting * q.turn_ns
        served_ns = round_ns * n_bytes // q.turn_bytes
        return max(round_ns - served_ns, 0), served_ns

    def many(self, t_ns: Ints, n_bytes: Ints, cell: Ints) -> tuple[Ints, Ints]:
        """``one`` of columns."""
        waits, serves = np.zeros(len(t_ns), np.int64), np.zeros(len(t_ns), np.int64)
        group = np.searchsorted(self._column, t_ns, side="right") * 65_536 + cell
        first = int(group[0])
        groups = [first] if bool(np.all(group == first)) else np.unique(group).tolist()
        for number in groups:
            epoch, where = divmod(number, 65_536)
            q = self._queues[epoch][where]
            if q is None:
                continue
            rows = slice(None) if len(groups) == 1 else np.flatnonzero(group == number)
            z = self._noise(epoch, where, q.forget_ns).column(t_ns[rows])
            place = (np.clip(z, -_REACH, _REACH) + _REACH) * _FINE
            low = place.astype(np.int64)
            a = _RARITY[low]
            rarity = a + (_RARITY[low + 1] - a) * (place - low)
            waiting = np.minimum(rarity * q.steepness, float(q.flows)).astype(np.int64)
            round_ns = waiting * q.turn_ns
            serves[rows] = served_ns = round_ns * n_bytes[rows] // q.turn_bytes
            waits[rows] = np.maximum(round_ns - served_ns, 0)
        return waits, serves
