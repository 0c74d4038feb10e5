"""What the bearers of a link share beyond the frame: cells, declared load, faults over time.

Time is cut into epochs at the beginnings and ends of the faults; within one nothing changes. All of
it is declared, nothing is drawn from a bearer's dice: a bearer more changes nothing for the others.
"""

import difflib
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from config.errors import ConfigError
from config.faults import Backhaul, Congestion, Fault, Interference, Outage
from simulator.link.columns import Flags, Floats, Ints, ns
from simulator.link.journey import GRID_NS, Air, Journey, World
from simulator.link.lattice import key, uniform
from simulator.link.layout import Layout, Map
from simulator.link.load import Backlog, Demand, Queue, Rank, queue, total
from simulator.link.profile import Cellular, Mobility, Profile, Wifi, Wired
from simulator.link.shadowing import Fade
from simulator.link.slices import FIVE_QI

_ONE_FRAME_BYTES = 1_518
_FRAME_HZ = 25.0
_ANY = Rank(FIVE_QI[9].priority, 1.0)
_OF_THE_NETWORK = Backhaul | Congestion | Interference | Outage
"""Faults of the broker and of the devices leave cells and bearers as they are."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A time in which nothing passes through a cell."""

    start_ns: int
    end_ns: int
    cause: str


class Surroundings:
    """Cells, loads and faults of one link."""

    def __init__(
        self,
        profile: Profile,
        seed: int,
        layout: Layout | None,
        faults: Sequence[Fault],
        start_ns: int,
    ) -> None:
        self._radio = radio = profile.radio
        self._seed, self._layout = seed, layout
        self._wired = isinstance(radio, Wired)
        self.cell_names: tuple[str, ...] = ("cell",)
        """Of the numbers that messages' traces have."""
        if self._wired:
            self.cell_names = ("wire",)
        elif layout is not None:
            self.cell_names = tuple(cell.name for cell in layout.cell)
        self.cells = len(self.cell_names)
        # On the grid on which moving devices look for cells, so that both see a fault at once.
        self._faults = [
            (
                (start_ns + fault.after) // GRID_NS * GRID_NS,
                -(-(start_ns + fault.after + fault.length) // GRID_NS) * GRID_NS,
                fault,
            )
            for fault in faults
            if isinstance(fault, _OF_THE_NETWORK)
        ]
        self.edges_ns = sorted({at for start, end, _ in self._faults for at in (start, end)})
        self._slices = radio.slices.named if isinstance(radio, Cellular) else {}
        self._ranks = {
            name: Rank(FIVE_QI[each.five_qi].priority, each.weight)
            for name, each in self._slices.items()
        } or {"": _ANY}
        self.cuts = [self._cuts(cell) for cell in range(self.cells)]
        self._demands = {up: self._all_demands(up) for up in (True, False)}
        self._backlogs: dict[tuple[str, bool], Backlog | None] = {}
        self.rises_db = np.array([self._rise_db(at) for at in range(len(self.edges_ns) + 1)])
        self.mobility = Mobility() if not isinstance(radio, Cellular | Wifi) else radio.mobility
        self.world = None
        if layout is not None and isinstance(radio, Cellular | Wifi):
            self.world = World(
                Map(layout, radio.propagation),
                radio.mobility,
                radio.propagation,
                tuple(self.edges_ns),
                tuple(self._air(epoch) for epoch in range(len(self.edges_ns) + 1)),
                seed,
            )

    @property
    def matter(self) -> bool:
        """Whether there is anything here that a lone idle cell does not have."""
        return bool(self._layout or self._faults)

    def slice_name(self, name: str | None) -> str:
        """The slice meant; a network without slices carries any of them as best effort."""
        if not self._slices:
            return ""
        assert isinstance(self._radio, Cellular)
        if name is None:
            return self._radio.default_slice
        if name not in self._slices:
            guesses = difflib.get_close_matches(name, self._slices, n=1)
            hint = f"did you mean {guesses[0]}?" if guesses else f"known: {', '.join(self._slices)}"
            raise ConfigError(f"unknown slice {name!r}", hint=hint)
        return name

    def backlog(self, name: str, *, uplink: bool) -> Backlog | None:
        """What the others cost a slice's messages; ``None`` where there never are others."""
        if (name, uplink) not in self._backlogs:
            queues = [
                [self._queue(name, demands, uplink=uplink) for demands in cells]
                for cells in self._demands[uplink]
            ]
            busy = any(q for cells in queues for q in cells)
            found = None
            if busy:
                found = Backlog(self.edges_ns, queues, key(self._seed, 0xB10C, uplink))
            self._backlogs[name, uplink] = found
        return self._backlogs[name, uplink]

    def _during(self, epoch: int) -> list[Fault]:
        at = self.edges_ns[epoch - 1] if epoch else -(2**62)
        return [fault for start, end, fault in self._faults if start <= at < end]

    def _rise_db(self, epoch: int) -> float:
        """Noise that is everywhere."""
        found = (f for f in self._during(epoch) if isinstance(f, Interference))
        return sum((f.rise_db for f in found if f.area is None), 0.0)

    def any_cell_ns(self, t_ns: int) -> int:
        """From when on some cell is on the air; never before ``t_ns``, where an outage begins."""
        assert self.world is not None
        for epoch in range(bisect_right(self.edges_ns, t_ns), len(self.edges_ns) + 1):
            if not self.world.airs[epoch].off.all():
                return max(t_ns, self.edges_ns[epoch - 1])
        raise AssertionError("every fault ends")

    def _numbers(self, name: str) -> Sequence[int]:
        if self._layout is not None:
            found = self._layout.cells(name)
            if not self._wired:
                return found
            return () if name else range(1)  # a wire has no cells that could fail
        if name:
            raise ConfigError(f"a fault names cell {name!r}, but the network has no layout")
        return range(1)

    def _cuts(self, cell: int) -> tuple[Cut, ...]:
        return tuple(
            Cut(start, end, fault.kind)
            for start, end, fault in self._faults
            if isinstance(fault, Outage | Backhaul) and cell in self._numbers(fault.cell)
        )

    def _all_demands(self, uplink: bool) -> list[list[dict[str, Demand]]]:
        """Per epoch and cell, by slice."""
        base: dict[str, Demand] = dict.fromkeys(self._ranks, Demand())
        for name, each in self._slices.items():
            flows = each.up if uplink else each.down
            base[name] = Demand(
                flows.flows, flows.flows * flows.flow_mbps, flows.flows * flows.frame_hz
            )
        last = max(self._ranks, key=lambda name: self._ranks[name].priority)
        epochs: list[list[dict[str, Demand]]] = []
        for epoch in range(len(self.edges_ns) + 1):
            cells = [dict(base) for _ in range(self.cells)]
            for fault in self._during(epoch):
                if not isinstance(fault, Congestion):
                    continue
                if fault.direction not in ("both", "up" if uplink else "down"):
                    continue
                name = self.slice_name(fault.slice) if fault.slice else last
                n = fault.flows
                more = Demand(n, n * fault.flow_mbps, n * _FRAME_HZ)
                for cell in self._numbers(fault.cell):
                    cells[cell][name] = total((cells[cell][name], more))
            epochs.append(cells)
        return epochs

    def _capacity_mbps(self, *, uplink: bool) -> float:
        radio = self._radio
        if isinstance(radio, Cellular):
            return (radio.up if uplink else radio.down).rate_mbps
        return radio.rate_mbps

    def _queue(self, name: str, demands: dict[str, Demand], *, uplink: bool) -> Queue | None:
        radio = self._radio
        capacity = self._capacity_mbps(uplink=uplink)
        rule = "none"
        if isinstance(radio, Cellular):
            rule = radio.sharing.rule
            usable = sum(kind in ("UF" if uplink else "DF") for kind in radio.pattern)
            every_ns = len(radio.pattern) * ns(radio.slot_ms) / usable
            turn_ns = every_ns / radio.sharing.users_per_slot
        elif isinstance(radio, Wifi):
            turn_ns = ns(radio.busy_ms)
        else:
            turn_ns = _ONE_FRAME_BYTES * 8_000.0 / capacity
        return queue(capacity, turn_ns, demands, self._ranks, rule, name)

    def _air(self, epoch: int) -> Air:
        off = np.zeros(self.cells, np.bool_)
        rises: list[Interference] = []
        for fault in self._during(epoch):
            if isinstance(fault, Outage):
                off[list(self._numbers(fault.cell))] = True
            elif isinstance(fault, Interference):
                rises.append(fault)
        assert isinstance(self._radio, Cellular | Wifi)
        idle = self._radio.propagation.activity_ratio
        activity = [
            max(
                idle,
                *(
                    min(total(self._demands[up][epoch][cell].values()).mbps
                        / self._capacity_mbps(uplink=up), 1.0)
                    for up in (True, False)
                ),
            )
            for cell in range(self.cells)
        ]  # fmt: skip
        return Air(
            off,
            np.array([10.0 * math.log10(max(each, 1e-6)) for each in activity]),
            tuple((each.rise_db, each.area) for each in rises),
        )


CAUSES = ("", "outage", "backhaul", "broker", "drop", "radio")
"""What may hold a message back or lose it: nothing, a cut, a restart of the broker, a segment lost
behind the radio, or the radio that gave up. A trace has the number."""
UNPLACED = -1
"""``Now.place`` of a device without a position."""


class Now(NamedTuple):
    """What meets a message that is sent."""

    cell: int
    depth: float | None
    """``None`` without a place: then the fade decides."""
    pause_ns: int
    """End of a gap between cells, or 0: the radio waits."""
    until_ns: int
    """End of a cut, or 0: what is sent is lost."""
    cause: int
    """Of the cut, in ``CAUSES``."""
    place: int
    """The cell of a device with a position, or ``UNPLACED``: whose cuts concern it."""


class Column(NamedTuple):
    """``Now`` of many."""

    cells: Ints
    depths: Floats
    pauses_ns: Ints
    until_ns: Ints
    causes: Ints
    places: Ints
    since: int
    """The first message with a place, and so with a depth."""


class Dark:
    """When nothing passes: cuts that touch are one, to the latest end, and the cause at a time is
    that of the one in force that ends last."""

    def __init__(self, cuts: Iterable[Cut]) -> None:
        starts, ends, causes = [-(2**62)], [0], [0]
        group, last_ns = 0, -(2**62)
        for cut in sorted(cuts, key=lambda cut: (cut.start_ns, -cut.end_ns)):
            if cut.end_ns <= last_ns:
                continue
            if cut.start_ns > last_ns:
                if group:
                    starts.append(last_ns)
                    ends.append(0)
                    causes.append(0)
                group = len(starts)
            starts.append(cut.start_ns)
            ends.append(0)
            causes.append(CAUSES.index(cut.cause))
            last_ns = cut.end_ns
            ends[group:] = [last_ns] * (len(ends) - group)
        if group:
            starts.append(last_ns)
            ends.append(0)
            causes.append(0)
        self._steps = starts, ends, causes
        self._columns = tuple(np.array(column, np.int64) for column in self._steps)

    def one(self, t_ns: int) -> tuple[int, int]:
        """End and cause of the cut that a time lies in; zeros outside."""
        starts, ends, causes = self._steps
        at = bisect_right(starts, t_ns) - 1
        return ends[at], causes[at]

    def many(self, t_ns: Ints) -> tuple[Ints, Ints]:
        """``one`` of a column."""
        starts, ends, causes = self._columns
        at = np.searchsorted(starts, t_ns, side="right") - 1
        return ends[at], causes[at]


class Spot:
    """Where one bearer is, and what that means at a time."""

    def __init__(self, around: Surroundings, fade: Fade | None, device: int) -> None:
        self._around, self._fade = around, fade
        self._home = device % around.cells
        self._edges = np.array(around.edges_ns, np.int64)
        self._journey = None if around.world is None else Journey(around.world, device)
        again = around.mobility.reestablish
        self._back_ns = ns(again.fixed_ms + again.spread_ms * uniform(key(0xBAC), device))
        self._dark: dict[int, Dark] = {}
        self._cut = any(around.cuts)

    def move(self, t_ns: int, x_m: float, y_m: float) -> None:
        """See ``Bearer.move``."""
        if self._journey is not None:
            self._journey.move(t_ns, x_m, y_m)

    def one(self, t_ns: int) -> Now:
        """What meets a message that is sent now."""
        journey = self._journey
        cell, depth, pause_ns, place = self._home, None, 0, UNPLACED
        if journey is not None and journey.since_ns is not None and t_ns >= journey.since_ns:
            cell, depth, pause_ns = journey.one(t_ns)
            place = cell
        until_ns = cause = 0
        if self._cut and not pause_ns:
            until_ns, cause = self._at(place).one(t_ns)
        return Now(cell, depth, pause_ns, until_ns, cause, place)

    def many(self, t_ns: Ints) -> Column:
        """``one`` of a column in order of time."""
        n, journey = len(t_ns), self._journey
        cells, places = np.full(n, self._home, np.int64), np.full(n, UNPLACED, np.int64)
        depths, pauses = np.zeros(n), np.zeros(n, np.int64)
        since = n
        if journey is not None and journey.since_ns is not None:
            since = int(np.searchsorted(t_ns, journey.since_ns))
        if journey is not None and since < n:
            cells[since:], depths[since:], pauses[since:] = journey.many(t_ns[since:])
            places[since:] = cells[since:]
        until_ns, causes = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self._look(t_ns, places, until_ns, causes, pauses == 0)
        return Column(cells, depths, pauses, until_ns, causes, places, since)

    def arrives(self, now: Now, own_ns: int) -> tuple[int, int]:
        """``until_ns`` and ``cause`` of a message, also if it is through in time to meet the next
        cut only at the end of its way."""
        if now.until_ns or not self._cut:
            return now.until_ns, now.cause
        return self._at(now.place).one(own_ns)

    def arrive(self, column: Column, own_ns: Ints) -> None:
        """``arrives`` of many: changes the column."""
        self._look(own_ns, column.places, column.until_ns, column.causes, column.until_ns == 0)

    def end_ns(self, place: int, t_ns: int) -> int:
        """See ``transport.Cuts``."""
        return self._at(place).one(t_ns)[0] if self._cut else 0

    def _look(self, t_ns: Ints, places: Ints, until_ns: Ints, causes: Ints, open: Flags) -> None:
        if not self._cut:
            return
        low, high = int(places.min()), int(places.max())
        for place in range(low, high + 1):
            rows = np.flatnonzero(open & (places == place)) if low < high else np.flatnonzero(open)
            if len(rows):
                until_ns[rows], causes[rows] = self._at(place).many(t_ns[rows])

    def _at(self, place: int) -> Dark:
        if place not in self._dark:
            cuts = self._around.cuts[self._home if place == UNPLACED else place]
            self._dark[place] = Dark(
                self._unplaced(cuts) if place == UNPLACED else self._placed(cuts)
            )
        return self._dark[place]

    def _unplaced(self, cuts: Iterable[Cut]) -> Iterator[Cut]:
        """A device without a place is given its time to find back."""
        for cut in cuts:
            again_ns = self._back_ns if cut.cause == "outage" else 0
            yield Cut(cut.start_ns, cut.end_ns + again_ns, cut.cause)

    def _placed(self, cuts: Iterable[Cut]) -> Iterator[Cut]:
        """One with a place flees an outage as soon as there is a cell on the air (``Journey``);
        until it is there, what was under way has met the outage."""
        assert self._journey is not None
        for cut in cuts:
            if cut.cause != "outage":
                yield cut
                continue
            flees_ns = self._around.any_cell_ns(cut.start_ns)
            gap_ns = self._journey.gap_ns(flees_ns // GRID_NS, gone=True)
            yield Cut(cut.start_ns, flees_ns + gap_ns, cut.cause)

    def depths(self, t_ns: Ints, ready_ns: Ints) -> Floats:
        """``depth`` of columns."""
        if self._fade is None:
            return np.zeros(len(t_ns))
        at = np.searchsorted(self._edges, t_ns, side="right")
        rises_db: Floats = self._around.rises_db[at]
        return self._fade.depths(ready_ns, rises_db)

    def depth(self, t_ns: int, ready_ns: int) -> float:
        """Without a place: the fade, and noise that is everywhere."""
        if self._fade is None:
            return 0.0
        rise_db = float(self._around.rises_db[bisect_right(self._around.edges_ns, t_ns)])
        return self._fade.depth(ready_ns, rise_db)
