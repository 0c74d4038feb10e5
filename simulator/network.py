"""The network as an asset: a QoS monitor that reports delay per cell, slice and kind of device.

Theory of operation
===================

    every bearer's trace ─► what arrived in a pane ─► by cell, by slice, by kind of device:
                                                      histogram of delays, time spent hop by hop

For the truth it keeps of every message the exact delay, in 4 bytes, and of the messages of a cell,
slice, kind and direction in a pane their number and the exact sums of their hops: windows of the
network are whole panes. Of a device's own traffic it keeps when each message came as well, since
its orders begin and end at any time: in 8 bytes where it is control, in 24 where it has samples.

It stands at the user plane function, where 3GPP puts QoS monitoring (TS 23.501, 5.33.3), sees both
directions of telemetry and control, and counts a message in the pane it arrives in; what is lost
never arrives. Each message is counted once per view, so the views have equal sums. Slices and kinds
are known beforehand and born at the start; a cell is born when the first message comes through it,
so that a large layout is not said to be silent where nobody ever was.
"""

from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ingest import bins
from ingest.cells import LARGEST
from ingest.messages import Asset, Times
from simulator.device import PANE_NS, Columns, Ints
from simulator.link.columns import narrowed
from simulator.link.link import Link
from simulator.link.profile import Cellular
from simulator.wire import Unstamped

AREA = "network"
"""Area of the network's assets, and the name of the monitor's connection."""
VIEWS = (("cells", "radio_cell"), ("slices", "slice"), ("kinds", "device_group"))
"""ISA-95 line and asset kind of each way to look at the same messages."""
CELLS, SLICES, KINDS = range(3)
HOPS: Mapping[str, tuple[str, ...]] = {
    "endpoint": ("hops_ns",),
    "radio": ("queue_ns", "access_ns", "align_ns", "air_ns", "harq_ns", "gap_ns"),
    "core": ("core_ns",),
    "transport": ("stall_ns",),
}
"""Parts of a message's delay, by hop: processing in device and network, the radio, the way between
station and MEC, and waiting behind a segment that was lost."""
_SUMS = ("hop_messages", *(f"hop_{hop}_ns" for hop in HOPS))
CHANNELS = {"bin": "1", "count": "1", "down": "1"} | {
    name: "ns" if name.endswith("_ns") else "1" for name in _SUMS
}
_WITHOUT_SAMPLES = ("birth", "connection")
"""What a message announces, by the last level of its topic: it is in no delay."""
_MOST_NS = int(LARGEST)
"""The largest sum that one cell of a report can hold: 2 h 30 min. The rest stands in other rows."""


def slice_of(link: Link, name: str | None) -> str:
    """The slice that carries what is sent on ``name``; ``default`` where a network has none."""
    radio = link.profile.radio
    if not isinstance(radio, Cellular) or not radio.slices.named:
        return "default"
    return name or radio.default_slice


class Traffic(NamedTuple):
    """Messages that arrived, as columns."""

    arrival_ns: Times
    parts_ns: NDArray[np.int32] | Ints
    """The delay, and a row for each of ``HOPS``, which add up to it; in 4 bytes where all fit."""
    views: NDArray[np.int16]
    """A row for each of ``VIEWS``, number of the cell, slice and kind, and one for the direction: 1
    where it came down."""


class Tally(NamedTuple):
    """Messages that arrived, counted by pane and by what all views tell apart, panes in order."""

    pane_ns: Times
    """Since when, of each group: the start of its pane."""
    views: NDArray[np.int16]
    """As in ``Traffic``."""
    n: NDArray[np.int32]
    """Messages in each group."""
    hops_ns: Ints
    """A row for each of ``HOPS``: the sum over the group."""
    delay_ns: NDArray[np.uint32] | Ints
    """Of every message, group by group; in 4 bytes where all are below 4.29 s."""


class Seen(NamedTuple):
    """What one asset of the network saw, as ``Tally``, in order of time."""

    pane_ns: Times
    down: NDArray[np.bool_]
    """Of each group, whether it came down."""
    n: NDArray[np.int32]
    hops_ns: Ints
    delay_ns: Ints


class Posted(NamedTuple):
    """Messages of one asset that arrived, for the truth."""

    sent_ns: Times
    """Of those with samples, when they were truly sent, in order."""
    stamped_ns: Times
    """When the sender's own clock said so."""
    arrival_ns: Times
    control: tuple[tuple[Times, Ints], ...]
    """Of its control traffic, up and down if it has any: arrivals in order, and delays."""


class Counts:
    """Whole numbers from 0 on, in 4 bytes each but for the few that need more."""

    __slots__ = ("_large", "_small")

    def __init__(self) -> None:
        self._small = array("I")
        self._large = array("q")
        """Those that the largest of the small ones stands for."""

    def extend(self, values: Ints) -> None:
        """Add some."""
        self._small.frombytes(np.minimum(values, _LARGE).astype(np.uint32).tobytes())
        self._large.frombytes(values[values >= _LARGE].tobytes())

    def values(self) -> Ints:
        """All of them."""
        out = np.array(self._small, dtype=np.int64)
        out[out == _LARGE] = self._large
        return out


_LARGE = (1 << 32) - 1


class _Controlled:
    """Control traffic of one device in one direction."""

    __slots__ = ("delays", "last_ns", "steps")

    def __init__(self) -> None:
        self.last_ns = 0
        """When the last one came."""
        self.steps = Counts()
        """Time from arrival to arrival, the first since the epoch."""
        self.delays = Counts()


@dataclass(frozen=True, slots=True)
class Born:
    """An asset of the network that is to be announced."""

    asset: Asset
    kind: str
    t_ns: int
    sent_ns: int


class Monitor:
    """Counts what arrives, and reports it pane by pane; keeps what the truth needs.

    ``pane_ns`` is the edge's pane, of which every window has whole ones; reports come every
    ``every_ns``.
    """

    def __init__(
        self,
        site: str,
        cells: Sequence[str],
        slices: Iterable[str],
        kinds: Iterable[str],
        start_ns: int,
        *,
        every_ns: int = PANE_NS,
        pane_ns: int = PANE_NS,
    ) -> None:
        self._site = site
        self._start_ns = start_ns
        self._every_ns = every_ns
        self.pane_ns = pane_ns
        self._names: tuple[tuple[str, ...], ...] = (
            tuple(cells), tuple(sorted(set(slices))), tuple(sorted(set(kinds)))
        )  # fmt: skip
        self._number = [{name: i for i, name in enumerate(names)} for names in self._names]
        self._found: deque[Traffic] = deque()
        self._tallies: list[Tally] = []
        self._last: Traffic | None = None
        """Of the last block, which the run may be cut short in."""
        self._used: set[int] = set()
        """Cells that have carried something."""
        self._posted: dict[Asset, tuple[array[int], array[int], array[int]]] = {}
        """By asset when its messages were sent, were said to be sent, and arrived."""
        self._control: dict[tuple[str, bool], _Controlled] = {}
        """By asset and direction."""

    def assets(self) -> Iterator[tuple[Asset, int, int]]:
        """Every asset there can be, with its view and its number there."""
        for view, names in enumerate(self._names):
            for number, name in enumerate(names):
                yield self._asset(view, name), view, number

    def first(self, t_ns: int) -> list[Born]:
        """What is there from the start."""
        return [
            Born(asset, VIEWS[view][1], t_ns, t_ns)
            for asset, view, _ in self.assets()
            if view != CELLS
        ]

    def post(self, message: Unstamped, sent_ns: int, arrival_ns: int) -> None:
        """Add a message that arrived; its own stamp is that of its sender's clock."""
        if message.topic.rpartition("/")[2] in _WITHOUT_SAMPLES:
            return
        columns = self._posted.get(message.asset)
        if columns is None:
            columns = self._posted[message.asset] = (array("q"), array("q"), array("q"))
        for column, t_ns in zip(columns, (sent_ns, message.sent_ns, arrival_ns), strict=True):
            column.append(t_ns)

    def note(
        self, kind: str, slice: str, *, down: bool, trace: Mapping[str, Ints], control_of: str = ""
    ) -> None:
        """Add a bearer's trace; ``control_of`` is whose control traffic it is, if it is."""
        came = trace["arrival_ns"] >= 0
        n = int(came.sum())
        if not n:
            return
        if control_of:
            arrival_ns = trace["arrival_ns"][came]
            known = self._control.setdefault((control_of, down), _Controlled())
            steps_ns = arrival_ns.copy()
            steps_ns[0] -= known.last_ns
            steps_ns[1:] -= arrival_ns[:-1]
            known.steps.extend(steps_ns)
            known.delays.extend(arrival_ns - trace["sent_ns"][came])
            known.last_ns = int(arrival_ns[-1])
        parts_ns = np.empty((1 + len(HOPS), len(came)), dtype=np.int64)
        np.subtract(trace["arrival_ns"], trace["sent_ns"], out=parts_ns[0])
        for row, parts in enumerate(HOPS.values(), 1):
            parts_ns[row] = trace[parts[0]]
            for part in parts[1:]:
                parts_ns[row] += trace[part]
        views = np.empty((len(VIEWS) + 1, len(came)), dtype=np.int16)
        views[CELLS] = trace["cell"]
        views[SLICES], views[KINDS] = self._number[SLICES][slice], self._number[KINDS][kind]
        views[-1] = down
        found = Traffic(trace["arrival_ns"].copy(), parts_ns, views)
        if n < len(came):
            found = _those(found, came)
        self._found.append(found._replace(parts_ns=narrowed(found.parts_ns)))

    def reports(self, end_ns: int) -> tuple[list[Born], list[Columns]]:
        """What arrived before a time and was not reported yet: cells seen for the first time, and
        a message per pane and asset. All that was sent before that time must have been noted."""
        if self._last is not None and len(self._last.arrival_ns):
            self._tallies.append(self._tally(self._last))
        self._last = None  # before more is gathered: a pane of a large plant is some 100 MB
        traffic = self._last = self._due(end_ns)
        cells = traffic.views[CELLS]
        born: list[Born] = []
        found: list[int] = np.unique(cells).tolist()
        new = set(found) - self._used
        self._used |= new
        for cell in sorted(new):
            first_ns = int(traffic.arrival_ns[cells == cell].min())
            asset, kind = self._asset(CELLS, self._names[CELLS][cell]), VIEWS[CELLS][1]
            born.append(Born(asset, kind, first_ns, self._report_ns(first_ns, end_ns)))
        return born, list(self._columns(traffic, end_ns)) if len(cells) else []

    def _due(self, end_ns: int) -> Traffic:
        """Take what arrived before a time; what is copied is let go of piece by piece."""
        dues = [found.arrival_ns < end_ns for found in self._found]
        n = sum(int(np.count_nonzero(due)) for due in dues)
        shape = (1 + len(HOPS), n)
        half = all(found.parts_ns.dtype == np.int32 for found in self._found)
        traffic = Traffic(
            np.empty(n, dtype=np.int64),
            np.empty(shape, dtype=np.int32) if half else np.empty(shape, dtype=np.int64),
            np.empty((len(VIEWS) + 1, n), dtype=np.int16),
        )
        low = 0
        for due in dues:
            found = self._found.popleft()
            if not due.all():
                self._found.append(_those(found, ~due))
                found = _those(found, due)
            high = low + len(found.arrival_ns)
            for column, some in zip(traffic, found, strict=True):
                column[..., low:high] = some
            low = high
        return traffic

    def posted(self, asset: Asset) -> Posted:
        """Messages of one asset that arrived."""
        columns = np.array(self._posted.get(asset, ((), (), ())), dtype=np.int64)
        sent_ns, stamped_ns, arrival_ns = columns[:, np.argsort(columns[0], kind="stable")]
        ways = (self._control.get((str(asset), down)) for down in (False, True))
        control = [(np.cumsum(k.steps.values()), k.delays.values()) for k in ways if k is not None]
        return Posted(sent_ns, stamped_ns, arrival_ns, tuple(control))

    def seen(self, view: int, number: int, end_ns: int) -> Seen:
        """What one asset saw of the messages that arrived before a time, which lies in the last
        block that was reported."""
        tallies = list(self._tallies)
        if self._last is not None:
            before = self._last.arrival_ns < end_ns
            if before.any():
                tallies.append(self._tally(_those(self._last, before)))
        none = np.empty(0, dtype=np.int64)
        hops_ns = np.empty((len(HOPS), 0), dtype=np.int64)
        parts = [Seen(none, none > 0, none.astype(np.int32), hops_ns, none)]
        for tally in tallies:
            mine = tally.views[view] == number
            delay_ns = tally.delay_ns[np.repeat(mine, tally.n)].astype(np.int64)
            down = tally.views[-1, mine] > 0
            hops_ns = tally.hops_ns[:, mine]
            parts.append(Seen(tally.pane_ns[mine], down, tally.n[mine], hops_ns, delay_ns))
        return Seen(*(np.concatenate(column, axis=-1) for column in zip(*parts, strict=True)))

    def _tally(self, traffic: Traffic) -> Tally:
        t_ns, parts_ns, views = traffic
        keys = (*views[::-1], t_ns // self.pane_ns)
        order = np.lexsort(keys)
        ranked = [key[order] for key in keys]
        changes = np.any([np.diff(key) != 0 for key in ranked], axis=0)
        firsts = np.concatenate(([0], np.flatnonzero(changes) + 1))
        delay_ns = parts_ns[0, order]
        small = int(delay_ns.max()) < 1 << 32
        return Tally(
            np.maximum(ranked[-1][firsts] * self.pane_ns, self._start_ns),
            views[:, order[firsts]],
            np.diff(firsts, append=len(order)).astype(np.int32),
            np.add.reduceat(parts_ns[1:, order], firsts, axis=1, dtype=np.int64),
            delay_ns.astype(np.uint32) if small else delay_ns.astype(np.int64),
        )

    def _asset(self, view: int, name: str) -> Asset:
        return Asset(self._site, AREA, VIEWS[view][0], name)

    def _columns(self, traffic: Traffic, end_ns: int) -> Iterator[Columns]:
        every_ns = self._every_ns
        first = int(traffic.arrival_ns.min()) // every_ns
        panes, pane = _dense(traffic.arrival_ns // every_ns - first)
        number, bin_ = _dense(bins.bin_of(traffic.parts_ns[0].astype(np.int64)))
        *numbers_of, down = traffic.views
        there, views = zip(*map(_dense, numbers_of), strict=True)
        sizes = (len(panes), *map(len, there))
        group = np.ravel_multi_index((pane, *views), sizes)
        width = 2 * len(number)
        place = group * width + down.astype(np.int64) * len(number) + bin_
        counts = np.bincount(place, minlength=int(np.prod(sizes)) * width).reshape(*sizes, width)
        sums = _sums(group, traffic.parts_ns[1:], int(np.prod(sizes))).reshape(-1, *sizes)
        for view, numbers in enumerate(there):
            present: list[int] = numbers.tolist()
            assets = [self._asset(view, self._names[view][n]) for n in present]
            others = tuple(axis + 1 for axis in range(len(VIEWS)) if axis != view)
            seen = counts.sum(axis=others)
            spent = sums.sum(axis=tuple(axis + 1 for axis in others))
            at, name, column = np.nonzero(seen)
            asset_numbers: list[int] = name.tolist()
            count = seen[at, name, column].tolist()
            bin_numbers = number[column % len(number)].tolist()
            came_down = (column // len(number)).tolist()
            cuts = (np.flatnonzero(np.diff(at * len(assets) + name)) + 1).tolist()
            for low, high in pairwise((0, *cuts, len(count))):
                t_ns = max((first + int(panes[at[low]])) * every_ns, self._start_ns)
                ch: dict[str, Sequence[float | int | None]] = {
                    "bin": bin_numbers[low:high],
                    "count": count[low:high],
                    "down": came_down[low:high],
                }
                hops = (sum(count[low:high]), *spent[:, at[low], name[low]].tolist())
                asset = assets[asset_numbers[low]]
                yield report(asset, self._report_ns(t_ns, end_ns), t_ns, ch, hops)

    def _report_ns(self, t_ns: int, end_ns: int) -> int:
        """When a report on the pane of a time is sent: the run may end within it."""
        return min((t_ns // self._every_ns + 1) * self._every_ns, end_ns)


def _those(traffic: Traffic, which: NDArray[np.bool_]) -> Traffic:
    arrival_ns, parts_ns, views = traffic
    return Traffic(arrival_ns[which], parts_ns[:, which], views[:, which])


def _dense(values: NDArray[np.integer]) -> tuple[Ints, Ints]:
    """The distinct values of small whole numbers in order, and for each value its place there."""
    there = np.bincount(values) > 0
    return np.flatnonzero(there), (np.cumsum(there) - 1)[values]


def _sums(group: Ints, values: NDArray[np.int32] | Ints, groups: int) -> Ints:
    """Exact sums of each row of values by group."""
    order = np.argsort(group.astype(np.uint16) if groups <= 1 << 16 else group, kind="stable")
    ordered = group[order]
    starts = np.concatenate(([0], np.flatnonzero(np.diff(ordered)) + 1))
    out = np.zeros((len(values), groups), dtype=np.int64)
    out[:, ordered[starts]] = np.add.reduceat(values[:, order], starts, axis=1, dtype=np.int64)
    return out


def _rows(total: int, need: int) -> list[int | None]:
    """A sum over as many rows as it may take, the last ones full first."""
    return [min(max(total - row * _MOST_NS, 0), _MOST_NS) for row in range(need - 1, -1, -1)]


def report(
    asset: Asset,
    sent_ns: int,
    t_ns: int,
    ch: dict[str, Sequence[float | int | None]],
    hops: Sequence[int],
) -> Columns:
    """A report with its sums in the last row, or where that is too small in the last rows."""
    n, need = len(ch["bin"]), max(-(-max(hops) // _MOST_NS), 1)
    if need > n:  # rows that count nothing make room
        ch = {name: [*[values[0]] * (need - n), *values] for name, values in ch.items()}
        ch["count"] = [*[0] * (need - n), *ch["count"][need - n :]]
        n = need
    blank: list[int | None] = [None] * (n - need)
    for name, total in zip(_SUMS, hops, strict=True):
        ch[name] = blank + ([total] if need == 1 else _rows(total, need))
    return Columns(asset, "link", sent_ns, [t_ns] * n, ch)
