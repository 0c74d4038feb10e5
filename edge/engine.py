"""The heart of the edge: records in, KPI rows out; no clock, no socket, no file.

Theory of operation
===================

Samples are folded in *panes*, ``[k*P, (k+1)*P)``, and kept as *blocks*, of which windows on the
grid and by the calendar are whole numbers (``config.windows``). Per asset a block has a bundle of
measure states and a *carry*: what was known when it began. A window is the carry at its start,
merged with its blocks in time order. Neighbours are merged in twos, fours, ... (*nodes*) where a
window asks for them, and remembered from eight on, so that one of ``n`` blocks costs ``O(log n)``
merges however closely windows follow one another; a block that is amended takes the nodes over it
away.

    carry ──► block  block  block  block  block  block  block ──► carry      (per asset)
              └── node ───┘ └── node ───┘ └── node ───┘
              └───────── node ──────────┘
                     └──────────── window ────────────┘

Once nobody is likely to amend them, blocks within the windows that are under way are kept as nodes
alone, and from before those nothing but landmarks: what was known every so often. Where a measure
can, a block is *settled* as it closes: filled in with what was known when it began, so that a node
is no larger for what its blocks could not know.

    carry ──► [ ? ? A A B ]        settled: [ A A A A B ], where A was known before

There is ONE watermark: the least of the connections' progress, or the host's ticks. Panes it has
passed (plus the lateness) are folded and their windows closed, for every asset of the roster, so a
silent machine has rows too. A record for a closed pane makes that pane *dirty*: its block is folded
again from the journal, what it hands on is followed until that is what it was, and the windows
touched are emitted again. A block that was settled by something else is folded again as well. One
reading of the journal is for all assets, and is kept until the next record comes. The last rows are
therefore a function of the set of records alone.

Rows end where nobody at all was heard of for as long as a row may be amended; whoever is heard of
after that, be it fed late, *wakes* the windows that end from there on.

What an asset gathers over a stretch before it tells it is no evidence of a window that cuts the
stretch: such a KPI is made of nothing there.

An order begins and ends anywhere: the two blocks it cuts are folded again from the journal as far
as they are its own. The piece that completes an order is read at the very instant of the change,
and is of the order it completes. If an end moves, the rows of the old window are *gone*.

Assets roll up to line, area and site. A work unit, or a cell that reports as one machine, is an
asset here (ISA-95's lowest level of equipment): a group of assets that is looked at as one is a
line, so there is no level between the two.
"""

import bisect
import itertools
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from config.units import NS_PER_S
from config.windows import Order, Span
from edge.columns import Columns
from edge.gate import Entry, Gate, Ledger, Stamped
from edge.kpi import Kpi
from edge.measures import Fact, Facts, Measure, Settling, add_facts, tailored
from edge.orders import ORDERS, Turns, ended
from edge.policy import Policy
from edge.rows import ALL, ORDER_NUMBER, Row
from ingest.messages import Asset, Batch, Birth, Identity, Notice, Progress, Record, Tick


class Past(Protocol):
    """What was journalled, to be read again."""

    def recall(self, first_ns: int, last_ns: int) -> Iterable[Record]:
        """Records that may hold samples with time in ``[first_ns, last_ns]``, or were sent then."""
        ...


class Block(NamedTuple):
    """One asset over one block: states by measure, samples, and how many of them came late."""

    states: tuple[Any, ...]
    n: int = 0
    late: int = 0


class Blocks(NamedTuple):
    """A stretch of blocks."""

    first: int
    end: int

    def has(self, block: int) -> bool:
        """Whether a block is one of them."""
        return self.first <= block < self.end


class Closed(NamedTuple):
    """One asset in one closed window: facts by name of measure."""

    facts: dict[str, Facts]
    n: int
    late: int


@dataclass(slots=True)
class Track:
    """All the engine keeps of one asset of the roster."""

    asset: Asset
    kind: str
    since_ns: int
    measures: tuple[Measure, ...]
    kpis: tuple[Kpi, ...]
    sentinels: Mapping[str, tuple[float, ...]]
    """Readings of its channels that are none."""
    grains: Mapping[str, int]
    """KPIs made of what is gathered over stretches: of how many ns a window must be a multiple."""
    names: frozenset[str]
    """Of the KPIs."""
    first_block: int
    zero: Block
    running: Block
    """What was folded of the block that is still open."""
    blocks: dict[int, Block] = field(default_factory=dict[int, Block])
    nodes: dict[tuple[int, int], Block] = field(default_factory=dict[tuple[int, int], Block])
    """Merged blocks by the first one and how many: a power of two that divides the first."""
    carries: dict[int, tuple[Any, ...]] = field(default_factory=dict[int, tuple[Any, ...]])
    """What was known at the start of some blocks."""
    orders: dict[int, tuple[tuple[Span, int], ...]] = field(
        default_factory=dict[int, tuple[tuple[Span, int], ...]]
    )
    """Orders with their numbers, by the block they ended in; of those that have any."""
    so_far: Block | None = None
    """The order that is on, up to the last closed block; unknown after an amendment."""


Pools = list[tuple[Asset, list[tuple[Kpi, tuple[Asset, ...], int]]]]
"""Per line, area and site: KPIs, the assets each of them is made of there (the same assets are the
same tuple), and of how many ns a window must be a multiple."""


@dataclass(slots=True)
class Connection:
    """How far a connection says it is."""

    arrival_ns: int
    ended: bool = False


class Engine:
    """Feed it records in any order; ``advance`` and ``finish`` give rows, amended ones again."""

    def __init__(
        self, policy: Policy, kpis: Sequence[Kpi], past: Past, *, run: str | None = None
    ) -> None:
        self._policy = policy
        self._kpis = tuple(kpis)
        self._past = past
        measures = {m.name: m for kpi in self._kpis for m in kpi.measures}.values()
        self._closing = frozenset(c for m in measures if m.closing for c in m.channels)
        self._gate = Gate(policy, run)
        self._run = run
        self._births: dict[Asset, Birth] = {}
        self._tracks: dict[Asset, Track] = {}
        self._open: dict[int, dict[Asset, list[Batch]]] = {}
        self._dirty: dict[Asset, set[int]] = {}
        self._connections: dict[str, Connection] = {}
        self._expected = 0
        self._tick_ns: int | None = None
        self._last_ns: int | None = None
        self._frontier: int | None = None
        """Panes below this number are closed."""
        self._awake: list[tuple[int, int]] = []
        """Panes, first and end, in which windows that end have rows: those after which nobody was
        heard of for too long have none. Disjoint, oldest first; of panes before the frontier."""
        self._woken: list[tuple[int, int]] = []
        """What was added to them and is already closed."""
        self._numbered: set[str] = set()
        """Connections of which a message was let in; only they have a say in the watermark."""
        self._block_ns = policy.block_ns
        self._per_block = policy.block_ns // policy.pane_ns
        self._landmark = max(1, LANDMARK_NS // self._block_ns)
        """Of every so many blocks it is remembered what was known at its start."""
        self._longest_ns = max(LANDMARK_NS, *(w.nominal_ns for w in policy.windows))
        self._most = 1 << (self._longest_ns // self._block_ns).bit_length()
        """The most blocks in a node."""
        self._forgot_ns = 0
        self._by_order = any(isinstance(window, Order) for window in policy.windows)
        """Then ``ORDERS`` is the last measure of every track."""
        self._closed: dict[Span, dict[Asset, Closed]] = {}
        self._recalled: dict[Blocks, dict[Asset, dict[int, dict[Identity, Batch]]]] = {}
        """What was last read from the journal, until there is more in it."""
        self._asked: set[int] = set()
        """Where it was read from since."""
        self._pooled: tuple[tuple[Asset, ...], Pools] | None = None
        """Of which assets, and how they roll up; until somebody is announced."""
        self._gaps: list[tuple[int, int]] = []
        """Blocks that were passed over, as first and end: nothing was recorded in them."""
        self._unannounced: set[Asset] = set()
        self.samples = 0

    # what goes in ------------------------------------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        """Where every record went."""
        return self._gate.ledger

    @property
    def unannounced(self) -> set[Asset]:
        """Assets that sent samples and never a birth: no KPI is made of them."""
        return {asset for asset in self._unannounced if asset not in self._births}

    def without_kpis(self) -> list[tuple[Asset, str]]:
        """Announced assets, with their kind, that have no KPI but those of the network."""
        return sorted(
            (track.asset, track.kind)
            for track in self._tracks.values()
            if not any(kpi.kinds for kpi in track.kpis)
        )

    def kind_of(self, asset: Asset) -> str | None:
        """The kind of an announced asset; groups have none."""
        track = self._tracks.get(asset)
        return None if track is None else track.kind

    @property
    def closed_ns(self) -> int:
        """Up to where panes are closed: a window that ends later is not whole yet."""
        return 0 if self._frontier is None else self._frontier * self._policy.pane_ns

    @property
    def ended(self) -> bool:
        """Whether every connection that reported progress has ended."""
        return self._all_known and all(c.ended for c in self._live)

    @property
    def covered_ns(self) -> int:
        """How much time was folded, from the first birth on."""
        if self._frontier is None:
            return 0
        first_ns = min(birth.t_ns for birth in self._births.values())
        return self._frontier * self._policy.pane_ns - first_ns

    @property
    def watermark_ns(self) -> int | None:
        """Everything that arrived up to here has been fed."""
        if self._run is None:
            return self._tick_ns
        return min(c.arrival_ns for c in self._live) if self._all_known else None

    @property
    def _all_known(self) -> bool:
        return 0 < len(self._live) >= self._expected

    @property
    def _live(self) -> list[Connection]:
        return [c for name, c in self._connections.items() if name in self._numbered]

    def feed(self, records: Iterable[Record]) -> None:
        """Take records in; nothing is computed before ``advance``."""
        self._recalled.clear()  # some of these may be of there
        self._asked.clear()
        for record in records:
            message = record.message
            if isinstance(message, Progress):
                self._progress(message)
            elif isinstance(message, Tick):
                self._tick_ns = max(message.arrival_ns, self._tick_ns or message.arrival_ns)
            else:
                self._admit(record, message)

    def _progress(self, said: Progress) -> None:
        if said.run != self._run:
            return
        self._expected = max(self._expected, said.connections)
        known = self._connections.get(said.conn)
        if known is None:
            self._connections[said.conn] = Connection(said.arrival_ns, said.end)
        else:
            known.arrival_ns = max(known.arrival_ns, said.arrival_ns)
            known.ended = known.ended or said.end

    def _admit(self, record: Record, message: Stamped) -> None:
        if isinstance(message, Birth) and message.meta.resolution == "derived":
            self._announce(message)
            return
        entry = self._gate.admit(record, message)
        if entry is Entry.REJECTED:
            return
        if message.meta.conn:
            self._numbered.add(message.meta.conn)
        if isinstance(message, Notice):
            return
        if isinstance(message, Birth):
            if entry is not Entry.DUPLICATE:
                self._announce(message)
            return
        panes = self._panes_of(message)
        self._hear(panes)  # a duplicate too, for it may have come first
        if entry is Entry.DUPLICATE:
            return
        if entry is Entry.REPLACES:
            self._withdraw(message)
        self.samples += len(message)
        if message.asset not in self._births:
            self._unannounced.add(message.asset)
        self._last_ns = max(int(message.t_ns[-1]), self._last_ns or 0)
        for pane in panes:
            if self._frontier is not None and pane < self._frontier:
                self._dirty.setdefault(message.asset, set()).add(pane)
            else:
                self._open.setdefault(pane, {}).setdefault(message.asset, []).append(message)

    def _panes_of(self, batch: Batch) -> list[int]:
        """Panes whose fold reads a batch: those of its samples, of the intervals they close, and
        of its sending; but none for which it came too late."""
        size, arrival_ns = self._policy.pane_ns, batch.meta.arrival_ns
        t_ns = batch.t_ns
        if int(t_ns[0]) // size == int(t_ns[-1]) // size:
            panes = {int(t_ns[0]) // size}
        else:
            panes = set((t_ns // size).tolist())
        if not self._closing.isdisjoint(batch.channels):
            panes.update(((t_ns[t_ns % size == 0] - 1) // size).tolist())
        if batch.meta.sent_ns is not None:
            panes.add(batch.meta.sent_ns // size)
        return sorted(p for p in panes if not self._policy.too_late(p * size, arrival_ns))

    def _announce(self, birth: Birth) -> None:
        """Take an asset into the roster; of several births the earliest counts. One from before
        what may still be amended counts from there: nobody waits for rows of years ago."""
        oldest_ns = birth.meta.arrival_ns - self._policy.retention_ns
        if birth.t_ns < oldest_ns:
            birth = replace(birth, t_ns=oldest_ns)
        self._hear([birth.t_ns // self._policy.pane_ns])
        known = self._births.get(birth.asset)
        if known is not None and _seniority(known) <= _seniority(birth):
            return
        self._births[birth.asset] = birth
        self._pooled = None
        kpis = tuple(k for k in self._kpis if k.applies(birth.kind, birth.channels, birth.limits))
        known_as = {m.name: m for kpi in kpis for m in kpi.measures}
        measures = tuple(tailored(m, birth) for m in known_as.values())
        if self._by_order:  # whoever is told of orders: births need not announce what an MES says
            measures = (*measures, ORDERS)
        zero = Block(tuple(m.zero() for m in measures))
        # A flow counter's first reading may stand at the birth and close the pane before it.
        start = (birth.t_ns - 1) // self._policy.pane_ns // self._per_block
        names = frozenset(kpi.name for kpi in kpis)
        told = {kpi.name: kpi.grain_ns(birth.gathered_ns) for kpi in kpis}
        grains = {name: grain_ns for name, grain_ns in told.items() if grain_ns}
        track = Track(
            birth.asset, birth.kind, birth.t_ns, measures, kpis, birth.sentinels, grains, names,
            start, zero, zero,
        )  # fmt: skip
        if (before := self._tracks.get(birth.asset)) is not None:
            track.orders = before.orders
        self._tracks[birth.asset] = track
        start_ns = start * self._block_ns
        track.carries[start] = tuple(m.edge(m.zero(), start_ns) for m in measures)
        if self._frontier is not None and start * self._per_block < self._frontier:
            self._doubt(track, self._frontier)

    def _withdraw(self, winner: Batch) -> None:
        """Take back what a record let in before, of the same identity, was folded into."""
        for assets in self._open.values():
            if winner.asset in assets:
                kept = [b for b in assets[winner.asset] if b.meta.identity != winner.meta.identity]
                assets[winner.asset] = kept
        track = self._tracks.get(winner.asset)
        if track is not None and self._frontier is not None:
            self._doubt(track, self._frontier)

    def _doubt(self, track: Track, frontier: int) -> None:
        """Have everything of an asset folded again."""
        dirty = self._dirty.setdefault(track.asset, set())
        for first, end, passed in self._steps(track.first_block, -(-frontier // self._per_block)):
            if not passed:
                dirty.update(range(first * self._per_block, min(end * self._per_block, frontier)))

    # what comes out ----------------------------------------------------------------------------

    def advance(self) -> list[Row]:
        """Rows of the windows the watermark has passed, and amended rows of older ones."""
        rows = self._mend()
        watermark_ns = self.watermark_ns
        if watermark_ns is not None:
            rows += self._close_until(watermark_ns - self._policy.lateness_ns)
        return rows

    def finish(self) -> list[Row]:
        """Rows of everything that is left, the last windows as far as the recording reaches."""
        rows = self.advance()
        self._gate.count_arrivals()
        size = self._policy.pane_ns
        if live := self._live:
            horizon_ns = max(c.arrival_ns for c in live) // size * size
        elif self._last_ns is not None:
            horizon_ns = (self._last_ns // size + 1) * size
        else:
            return rows
        rows += self._close_until(horizon_ns)
        if self._frontier is None:
            return rows
        if self._frontier % self._per_block:
            for track in self._tracks.values():
                rows += self._follow_orders(track, self._frontier // self._per_block)
        for span in self._windows_over(horizon_ns - 1, horizon_ns):
            if span.end_ns > horizon_ns:
                rows += self._emit(span)
        return rows

    def _close_until(self, until_ns: int) -> list[Row]:
        """Fold every pane that ends by then, and close the windows that end with it."""
        rows: list[Row] = []
        if not self._tracks:
            return rows
        size = self._policy.pane_ns
        if self._frontier is None:
            self._begin()
        assert self._frontier is not None
        while (self._frontier + 1) * size <= until_ns:
            if not self._is_awake(self._frontier) and self._pass_over(until_ns // size):
                continue
            # Several panes of a block that are over at once, as in a replay, are folded at once.
            stop = min(until_ns // size, (self._frontier // self._per_block + 1) * self._per_block)
            self._close_panes(self._frontier, stop)
            self._frontier = stop
            if self._frontier % self._per_block:
                continue
            end_ns = self._frontier * size
            for track in self._tracks.values():
                rows += self._follow_orders(track, self._frontier // self._per_block - 1)
            if self._is_awake(self._frontier - 1):
                for span in self._windows_ending(end_ns):
                    rows += self._emit(span)
            if end_ns >= self._forgot_ns + FORGET_EVERY_NS:
                self._forgot_ns = end_ns
                self._forget(end_ns)
        return rows

    def _begin(self) -> None:
        """Start where the first asset was announced; nothing is made of samples before that."""
        self._frontier = min(t.first_block for t in self._tracks.values()) * self._per_block
        before = [pane for pane in self._open if pane < self._frontier]
        for pane in before:
            del self._open[pane]
        self._hear(before)

    def _hear(self, panes: Iterable[int]) -> None:
        """Note that somebody was heard of: from there on windows have rows for a while."""
        for pane in panes:
            if self._frontier is None or pane >= self._frontier:
                self._open.setdefault(pane, {})
            else:
                self._wake(pane)

    def _wake(self, pane: int) -> None:
        """Have windows that end after this pane make rows, for as long as one may be amended."""
        first, end = pane, pane + self._policy.retention_ns // self._policy.pane_ns + 1
        at = bisect.bisect_right(self._awake, (first, sys.maxsize)) - 1
        if at >= 0 and self._awake[at][1] >= end:
            return
        met = [span for span in self._awake if span[0] <= end and first <= span[1]]
        self._woken += _without_spans((first, end), met)
        self._awake = [span for span in self._awake if span not in met]
        bisect.insort(self._awake, (min([first, *(a for a, _ in met)]),
                                    max([end, *(b for _, b in met)])))  # fmt: skip

    def _is_awake(self, pane: int) -> bool:
        at = bisect.bisect_right(self._awake, (pane, sys.maxsize)) - 1
        return at >= 0 and pane < self._awake[at][1]

    def _pass_over(self, until: int) -> bool:
        """Pass over a stretch in which nothing was recorded at all, if there is one: it makes no
        rows, and what was known before it is known after it."""
        assert self._frontier is not None
        block = self._frontier // self._per_block
        target = min([*self._open, until]) // self._per_block
        if self._frontier % self._per_block or target <= block + 1:
            return False
        self._gaps.append((block, target))
        for track in self._tracks.values():
            if track.first_block <= block:
                nothing = self._nothing(track, block, target)
                track.carries[target] = self._carry(track, block, nothing, target)
                if track.so_far is not None:
                    track.so_far = _join(track.measures, track.so_far, nothing)
        self._frontier = target * self._per_block
        return True

    def _not_passed_over(self, blocks: set[int]) -> None:
        """Note that something was recorded in these blocks after all."""
        single = [(block, block + 1) for block in sorted(blocks)]
        self._gaps = [part for gap in self._gaps for part in _without_spans(gap, single)]

    def _steps(self, first: int, stop: int) -> Iterator[tuple[int, int, bool]]:
        """Blocks ``[first, stop)`` by what they are, as first and end: passed over or not."""
        block = first
        for start, end in self._gaps:
            if end <= block or start >= stop:
                continue
            if block < start:
                yield block, start, False
            yield max(block, start), min(end, stop), True
            block = min(end, stop)
        if block < stop:
            yield block, stop, False

    def _nothing(self, track: Track, first: int, end: int) -> Block:
        """What was folded of blocks that were passed over."""
        return self._fold(track, [], Span(first * self._block_ns, end * self._block_ns))

    def _close_panes(self, first: int, stop: int) -> None:
        """Fold panes ``[first, stop)``, all of one block, for every asset."""
        panes = {pane: self._open.pop(pane) for pane in range(first, stop) if pane in self._open}
        for pane in panes:
            self._wake(pane)
        self._woken.clear()  # what ends from here on is still to be closed
        block = first // self._per_block
        by_asset: dict[Asset, dict[int, list[Batch]]] = {}
        for pane, assets in panes.items():
            for asset, batches in assets.items():
                by_asset.setdefault(asset, {})[pane] = batches
        for track in self._tracks.values():
            if block < track.first_block:
                continue  # announced for a later time
            folded = self._fold_panes(track, by_asset.get(track.asset, {}), first, stop)
            if first % self._per_block:
                folded = _join(track.measures, track.running, folded)
            if stop % self._per_block:
                track.running = folded
            else:
                track.running = track.zero
                self._close_block(track, block, folded)

    def _close_block(self, track: Track, block: int, folded: Block) -> None:
        """Keep a block, settled by what was known at its start, and what it hands on."""
        carry = self._known(track, block)
        states = tuple(
            m.settle(known, state) if isinstance(m, Settling) else state
            for m, known, state in zip(track.measures, carry, folded.states, strict=True)
        )
        settled = folded._replace(states=states)
        track.blocks[block] = settled
        end_ns = self._end_of(block)
        track.carries[block + 1] = tuple(
            m.edge(state if isinstance(m, Settling) else m.merge(known, state), end_ns)
            for m, known, state in zip(track.measures, carry, states, strict=True)
        )

    def _fold_panes(
        self, track: Track, panes: dict[int, list[Batch]], first: int, stop: int
    ) -> Block:
        """What one asset said in panes ``[first, stop)``, of one block, with their batches."""
        size = self._policy.pane_ns
        batches = list(
            {id(b): b for pane in range(first, stop) for b in panes.get(pane, [])}.values()
        )
        start_ns = first * size
        if all(not self._policy.too_late(start_ns, b.meta.arrival_ns) for b in batches):
            return self._fold(track, batches, Span(start_ns, stop * size))
        total = track.zero  # a batch is in some panes, and for others it came too late
        for pane in range(first, stop):
            folded = self._fold(track, panes.get(pane, []), self._pane(pane))
            total = _join(track.measures, total, folded)
        return total

    def _pane(self, pane: int) -> Span:
        return Span(pane * self._policy.pane_ns, (pane + 1) * self._policy.pane_ns)

    def _fold(
        self,
        track: Track,
        batches: list[Batch],
        span: Span,
        turns: tuple[bool, bool] = (False, False),
    ) -> Block:
        """What one asset said in a stretch, in batches that are not too late for any of it."""
        start_ns, end_ns = span
        columns = Columns(batches, start_ns, end_ns, turns, track.sentinels)
        n = late = 0
        for batch in batches:
            late_ns = self._policy.late_before(batch.meta.arrival_ns)
            low, cut, high = batch.t_ns.searchsorted((start_ns, late_ns, end_ns)).tolist()
            n += high - low
            late += min(max(cut, low), high) - low
        return Block(tuple(m.fold(columns) for m in track.measures), n, late)

    def _carry(self, track: Track, first: int, part: Block, end: int) -> tuple[Any, ...]:
        """What is known at the end of a part, from what was known at its start."""
        end_ns = end * self._block_ns
        states = zip(track.measures, track.carries[first], part.states, strict=True)
        return tuple(m.edge(m.merge(carry, state), end_ns) for m, carry, state in states)

    # what is kept ------------------------------------------------------------------------------

    def _pieces(self, track: Track, first: int, stop: int) -> Iterator[Block]:
        """Closed blocks ``[first, stop)`` in as few parts as may be, in order of time."""
        for low, high, passed in self._steps(first, stop):
            if passed:
                yield self._nothing(track, low, high)
                continue
            nodes = list(_nodes(low, high, self._most))
            self._fill(track, [b for node in nodes for b in _missing(track, *node)])
            for node in nodes:
                yield self._node(track, *node)

    def _node(self, track: Track, first: int, size: int) -> Block:
        """So many blocks as one, all of which are here."""
        if size == 1:
            return track.blocks[first]
        found = track.nodes.get((first, size))
        if found is None:
            half = size // 2
            halves = self._node(track, first, half), self._node(track, first + half, half)
            found = _join(track.measures, *halves)
            if size >= REMEMBERED:
                track.nodes[first, size] = found
        return found

    def _fill(self, track: Track, blocks: Iterable[int]) -> None:
        """Have blocks here that are closed; the journal has them."""
        missing = {block for block in blocks if block not in track.blocks}
        for first, last in _runs(missing, REFOLD_AT_ONCE):
            self._known(track, first)
            for block, folded in self._refold(track, set(range(first, last + 1))).items():
                self._close_block(track, block, folded)

    def _known(self, track: Track, block: int) -> tuple[Any, ...]:
        """What was known at the start of a block."""
        if block not in track.carries:
            begun = max(b for b in track.carries if b < block)
            total = Block(track.carries[begun])
            for part in self._pieces(track, begun, block):
                total = _join(track.measures, total, part)
            pairs = zip(track.measures, total.states, strict=True)
            track.carries[block] = tuple(m.edge(s, block * self._block_ns) for m, s in pairs)
        return track.carries[block]

    # amending ----------------------------------------------------------------------------------

    def _mend(self) -> list[Row]:
        """Fold dirty panes again from the journal, and emit again what that changed."""
        dirty, self._dirty = self._dirty, {}
        touched: set[Span] = set()
        rows: list[Row] = []
        for asset, panes in dirty.items():
            blocks = {pane // self._per_block for pane in panes}
            self._not_passed_over(blocks)
            track = self._tracks.get(asset)
            if track is None:
                continue  # its birth may still come, and then all of it is folded
            changed = self._mend_track(track, blocks)
            for span in self._closed_over(changed):
                self._closed.get(span, {}).pop(asset, None)
                touched.add(span)
            rows += self._mend_orders(track, changed)
        touched |= self._closed_awake()
        for span in sorted(touched, key=lambda span: (span.length_ns, span.start_ns)):
            rows += self._emit(span)
        return rows

    def _closed_over(self, changed: list[tuple[int, int]]) -> set[Span]:
        """Windows that have closed with rows and have a part in any of some stretches of blocks."""
        assert self._frontier is not None
        size, done_ns = self._policy.pane_ns, self._frontier * self._policy.pane_ns
        found: set[Span] = set()
        for first, end in changed:
            for woken, asleep in self._awake:
                # Those that end in there begin so much earlier at the most; a day may have 25 h.
                since_ns = woken * size - self._longest_ns - LANDMARK_NS
                low_ns = max(first * self._block_ns, since_ns)
                high_ns = min(end * self._block_ns, asleep * size)
                if low_ns < high_ns:
                    found.update(self._windows_over(low_ns, high_ns))
        return {s for s in found if s.end_ns <= done_ns and self._is_awake(s.end_ns // size - 1)}

    def _closed_awake(self) -> set[Span]:
        """Windows that closed without rows and have some after all, as somebody was heard of."""
        woken, self._woken = self._woken, []
        if self._frontier is None:
            return set()
        size = self._policy.pane_ns
        spans = [(a * size, min(b, self._frontier) * size) for a, b in woken]
        return {
            span
            for low_ns, high_ns in spans
            if low_ns < high_ns
            for span in self._windows_over(low_ns, high_ns)
            if low_ns < span.end_ns <= high_ns
        }

    def _mend_track(self, track: Track, wanted: set[int]) -> list[tuple[int, int]]:
        """Fold closed blocks of one asset again, and the open one; follow what they hand on until
        it is what it was. Tells which blocks, as first and end, may now give other values."""
        assert self._frontier is not None
        whole = self._frontier // self._per_block
        wanted = {block for block in wanted if block >= track.first_block}
        if not wanted:
            return []
        if whole in wanted:
            track.running = self._refold(track, {whole})[whole]
        closed = sorted(wanted - {whole})
        for block in closed:
            self._amended(track, block)
        changed = [(block, block + 1) for block in sorted(wanted)]
        followed = 0
        for block in closed:
            if block >= followed:
                followed = self._follow(track, block, changed)
        return changed

    def _follow(self, track: Track, block: int, changed: list[tuple[int, int]]) -> int:
        """Close a block again that was amended, and those after it, until what is known is what was
        known before; tells where. A block is folded again where it is not here, and where it was
        settled by something else."""
        assert self._frontier is not None
        whole = self._frontier // self._per_block
        self._known(track, block)
        folded: dict[int, Block] = {}
        stale = False
        while block < whole:
            _, end, passed = next(self._steps(block, whole))
            if passed:
                for between in [b for b in track.carries if block < b < end]:
                    del track.carries[between]
                part = self._nothing(track, block, end)
            else:
                if block not in folded and (stale or block not in track.blocks):
                    ahead = range(block, min(end, block + REFOLD_AT_ONCE))
                    kept = next((b for b in ahead[1:] if b in track.blocks), ahead.stop)
                    folded = self._refold(track, {block} if stale else set(range(block, kept)))
                end = block + 1
                part = folded.pop(block) if block in folded else track.blocks[block]
            before = track.carries.get(end)
            if passed:
                track.carries[end] = self._carry(track, block, part, end)
            else:
                self._close_block(track, block, part)
            if (carry := track.carries[end]) == before:
                return end
            stale = before is None or any(
                isinstance(m, Settling) and x != y
                for m, x, y in zip(track.measures, before, carry, strict=True)
            )
            if stale:
                self._amended(track, end)
            changed.append((end, next((b for a, b in self._gaps if a <= end < b), end + 1)))
            block = end
        return block

    def _amended(self, track: Track, block: int) -> None:
        """Take a block away, and the nodes over it."""
        track.blocks.pop(block, None)
        size = 2
        while size <= self._most:
            track.nodes.pop((block // size * size, size), None)
            size *= 2

    def _refold(self, track: Track, blocks: set[int]) -> dict[int, Block]:
        """Blocks of one asset, folded again from the journal."""
        assert self._frontier is not None
        per_block = self._per_block
        folded: dict[int, Block] = {}
        for block in sorted(blocks):
            panes = self._recall(track, block, blocks)
            stop = min((block + 1) * per_block, self._frontier)
            folded[block] = self._fold_panes(track, panes, block * per_block, stop)
        return folded

    def _recall(self, track: Track, block: int, along: set[int]) -> dict[int, list[Batch]]:
        """What one asset said in the panes of a block and in the next one, as the journal has it.

        It is read ``along`` with blocks that will be asked for too, and with all around it where
        something there was asked for before: one reading of the journal is for all assets."""
        held = next((found for span, found in self._recalled.items() if span.has(block)), None)
        if held is None:
            around = block // REFOLD_AT_ONCE * REFOLD_AT_ONCE
            first, end = block, block + 1
            if around in self._asked:
                first, end = around, around + REFOLD_AT_ONCE
            else:
                while end in along and end < around + REFOLD_AT_ONCE:
                    end += 1
            self._asked.add(around)
            while len(self._recalled) >= RECALLED:
                del self._recalled[next(iter(self._recalled))]
            held = self._recalled[Blocks(first, end)] = self._recall_all(
                Span(first * self._block_ns, end * self._block_ns)
            )
        found = held.get(track.asset, {})
        panes = range(block * self._per_block, (block + 1) * self._per_block + 1)
        return {pane: list(found[pane].values()) for pane in panes if pane in found}

    def _recall_all(self, span: Span) -> dict[Asset, dict[int, dict[Identity, Batch]]]:
        found: dict[Asset, dict[int, dict[Identity, Batch]]] = {}
        for record in self._past.recall(*span):
            message = record.message
            if isinstance(message, Batch) and self._gate.holds(record, message):
                panes = found.setdefault(message.asset, {})
                for pane in self._panes_of(message):
                    panes.setdefault(pane, {}).setdefault(message.meta.identity, message)
        return found

    def _forget(self, now_ns: int) -> None:
        """Drop what only a very late record would need; the journal still has it."""
        keep_ns = now_ns - KEEP_NS
        for span in [span for span in self._closed if span.end_ns <= keep_ns]:
            del self._closed[span]
        recent = keep_ns // self._block_ns
        starts = {s.start_ns // self._block_ns for s in self._windows_over(keep_ns, keep_ns + 1)}
        cuts = sorted({*starts, recent})
        amended = (now_ns - self._policy.retention_ns) // self._block_ns
        nodes = [
            node
            for low, high in itertools.pairwise(cuts)
            for first, end, passed in self._steps(low, high)
            if not passed
            for node in _nodes(first, end, TOGETHER)
            if node[1] > 1
        ]
        for track in self._tracks.values():
            self._forget_before(track, cuts[0], amended)
            for first, size in nodes:
                self._put_together(track, first, size)

    def _forget_before(self, track: Track, keep: int, amended: int) -> None:
        """Keep nothing from before a block but landmarks, as long as anybody may need them."""
        for block in [b for b in track.blocks if b < keep]:
            del track.blocks[block]
        for node in [node for node in track.nodes if node[0] < keep]:
            del track.nodes[node]
        for block in [b for b in track.carries if b < keep and b != track.first_block]:
            if block % self._landmark or block < amended:
                del track.carries[block]

    def _put_together(self, track: Track, first: int, size: int) -> None:
        """Keep blocks as a node alone, in whose midst no window begins that is under way."""
        blocks = range(first, first + size)
        if track.blocks.keys().isdisjoint(blocks) or _missing(track, first, size):
            return
        track.nodes[first, size] = self._node(track, first, size)
        for block in blocks:
            track.blocks.pop(block, None)
            if block != first and block % self._landmark and block != track.first_block:
                track.carries.pop(block, None)
        half = size // 2
        while half > 1:
            for start in range(first, first + size, half):
                track.nodes.pop((start, half), None)
            half //= 2

    # orders ------------------------------------------------------------------------------------

    def _follow_orders(self, track: Track, block: int) -> list[Row]:
        """Rows of the orders that ended in a block, as it closes."""
        if not self._by_order or block < track.first_block:
            return []
        was = {span for span, _ in track.orders.get(block, ())}
        turns = self._find_orders(track, block)
        orders = track.orders.get(block, ())
        rows = self._gone(track, was - {span for span, _ in orders})
        for span, number in orders:
            rows += self._emit_order(track, span, number)
        on = turns[-1] if turns else None
        if on is None or on.number <= 0:
            track.so_far = None
        elif on.t_ns >= block * self._block_ns:
            so_far = Span(on.t_ns, self._end_of(block))
            track.so_far = self._stretch(track, so_far, ends=False)
        elif track.so_far is not None:
            assert self._frontier is not None
            is_open = block == self._frontier // self._per_block
            more = track.running if is_open else track.blocks[block]
            track.so_far = _join(track.measures, track.so_far, more)
        return rows

    def _find_orders(self, track: Track, block: int) -> Turns:
        """Note which orders ended in a block; the turns in it, the last one before it first."""
        assert self._frontier is not None
        is_open = block == self._frontier // self._per_block
        found_in = track.running if is_open else track.blocks[block]
        turns = ORDERS.merge(track.carries[block][-1], found_in.states[-1])
        if found := tuple(ended(turns)):
            track.orders[block] = found
        else:
            track.orders.pop(block, None)
        return turns

    def _mend_orders(self, track: Track, stretches: list[tuple[int, int]]) -> list[Row]:
        """Rows of orders that may have other values, or lie elsewhere, after an amendment."""
        assert self._frontier is not None
        if not self._by_order:
            return []
        # No order ends, and none begins, in what was passed over.
        changed = {first for first, _ in stretches if first in track.blocks}
        if not changed:
            return []
        track.so_far = None
        was = {span for found in track.orders.values() for span, _ in found}
        for block in changed:
            self._find_orders(track, block)
        now = {span: number for found in track.orders.values() for span, number in found}
        rows = self._gone(track, was - now.keys())
        runs = [(first * self._block_ns, self._end_of(last)) for first, last in _runs(changed)]
        for span in sorted(now):
            # One that ends where a block begins was completed by a turn in that block.
            if any(low_ns <= span.end_ns and span.start_ns <= high_ns for low_ns, high_ns in runs):
                rows += self._emit_order(track, span, now[span])
        return rows

    def _gone(self, track: Track, spans: set[Span]) -> list[Row]:
        """What takes back the rows of orders that were not there after all."""
        return [
            Row(track.asset, kpi, *_key(span), None, 0, 0, unit, gone=True)
            for span in sorted(spans)
            for kpi, unit in self._columns(track, span)
        ]

    def _columns(self, track: Track, span: Span) -> list[tuple[str, str]]:
        """KPIs and units of an order's rows. Where some other window lies at the very same place
        it has the same KPIs, and they are its rows."""
        kpis = [(kpi.name, kpi.unit) for kpi in track.kpis]
        taken = span in self._windows_over(span.start_ns, span.start_ns + 1)
        return [(ORDER_NUMBER, "1"), *(() if taken else kpis)]

    def _emit_order(self, track: Track, span: Span, number: int) -> list[Row]:
        total = self._stretch(track, span)
        values: dict[str, float | None] = {ORDER_NUMBER: float(number)}
        facts = _facts(track.measures, total.states)
        for kpi in track.kpis:
            known = span.length_ns >= track.grains.get(kpi.name, 0)  # its ends lie anywhere
            values[kpi.name] = kpi.value(_facts_of(kpi, facts) if known else {})
        return [
            Row(track.asset, kpi, *_key(span), values[kpi], total.n, total.late, unit)
            for kpi, unit in self._columns(track, span)
        ]

    def _stretch(self, track: Track, span: Span, *, ends: bool = True) -> Block:
        """Everything of one asset since a turn, and what was known before it; ``ends``: up to the
        next turn, else to the end of a block. All of it is closed time."""
        assert self._frontier is not None
        first, last = span.start_ns // self._block_ns, (span.end_ns - 1) // self._block_ns
        total = None
        if first < last and track.so_far is not None and self._goes_on(track, span, last):
            first, total = last, track.so_far
        if total is None:
            total = Block(self._known_at(track, span.start_ns))
        parts = [(first, first + 1), (first + 1, last), (last, last + 1)]
        for low, high in parts if first < last else parts[:1]:
            start_ns = max(low * self._block_ns, span.start_ns)
            end_ns = min(high * self._block_ns, span.end_ns)
            turns = (start_ns == span.start_ns, ends and end_ns == span.end_ns)
            whole = start_ns == low * self._block_ns and end_ns == high * self._block_ns
            if whole and not any(turns):
                for part in self._pieces(track, low, high):
                    total = _join(track.measures, total, part)
            elif low < high:
                folded = self._piece(track, Span(start_ns, end_ns), turns)
                total = _join(track.measures, total, folded)
        return total

    def _goes_on(self, track: Track, span: Span, block: int) -> bool:
        """Whether what was added up of the order that is on is of this span, up to this block."""
        on = self._known(track, block)[-1]
        assert self._frontier is not None
        newest = self._end_of(block) >= self._frontier * self._policy.pane_ns
        return newest and bool(on) and on[-1].t_ns == span.start_ns

    def _known_at(self, track: Track, t_ns: int) -> tuple[Any, ...]:
        """What was known at a turn."""
        block = t_ns // self._block_ns
        before = self._piece(track, Span(block * self._block_ns, t_ns), (False, True))
        total = _join(track.measures, Block(self._known(track, block)), before)
        pairs = zip(track.measures, total.states, strict=True)
        return tuple(m.edge(state, t_ns) for m, state in pairs)

    def _piece(self, track: Track, span: Span, turns: tuple[bool, bool]) -> Block:
        """A part of a block of one asset, folded from the journal."""
        size = self._policy.pane_ns
        block = span.start_ns // self._block_ns
        panes = self._recall(track, block, {block})
        total = track.zero
        first, last = span.start_ns // size, max(span.end_ns - 1, span.start_ns) // size
        for pane in range(first, last + 1):
            part = Span(max(pane * size, span.start_ns), min((pane + 1) * size, span.end_ns))
            batches = list(panes.get(pane, []))
            if turns[1] and part.end_ns == (pane + 1) * size:  # a reading at the very end is of it
                known = {batch.meta.identity for batch in batches}
                following = panes.get(pane + 1, [])
                batches += [b for b in following if b.meta.identity not in known]
            edges = (turns[0] and pane == first, turns[1] and pane == last)
            folded = self._fold(track, batches, part, edges)
            total = _join(track.measures, total, folded)
        return total

    def _end_of(self, block: int) -> int:
        return (block + 1) * self._block_ns

    # rows --------------------------------------------------------------------------------------

    def _windows_over(self, first_ns: int, last_ns: int) -> list[Span]:
        """Windows of every kind with any time in ``[first_ns, last_ns)``, each once."""
        kinds = self._policy.windows
        return list(dict.fromkeys(s for kind in kinds for s in kind.over(first_ns, last_ns)))

    def _windows_ending(self, t_ns: int) -> list[Span]:
        """Windows of every kind that end at ``t_ns``, each once."""
        return list(dict.fromkeys(s for kind in self._policy.windows for s in kind.ending(t_ns)))

    def _emit(self, span: Span) -> list[Row]:
        """Rows of one window: every asset of the roster, then line, area and site."""
        closed = self._closed.setdefault(span, {})
        tracks = [t for t in self._tracks.values() if t.since_ns < span.end_ns]
        rows: list[Row] = []
        for track in tracks:
            if track.asset not in closed:
                closed[track.asset] = self._close_window(track, span)
            mine = closed[track.asset]
            for kpi in track.kpis:
                cut = _cuts(span, track.grains.get(kpi.name, 0))
                value = kpi.value({} if cut else _facts_of(kpi, mine.facts))
                rows.append(
                    Row(track.asset, kpi.name, *_key(span), value, mine.n, mine.late, kpi.unit)
                )
        return rows + self._roll_up(tracks, closed, span)

    def _close_window(self, track: Track, span: Span) -> Closed:
        assert self._frontier is not None
        first = max(span.start_ns // self._block_ns, track.first_block)
        whole = min(span.end_ns // self._block_ns, self._frontier // self._per_block)
        total = Block(self._known(track, first))
        for part in self._pieces(track, first, whole):
            total = _join(track.measures, total, part)
        if whole * self._block_ns < span.end_ns:
            total = _join(track.measures, total, track.running)
        return Closed(_facts(track.measures, total.states), total.n, total.late)

    def _roll_up(
        self,
        tracks: list[Track],
        closed: dict[Asset, Closed],
        span: Span,
    ) -> list[Row]:
        """Exact facts added up, never an average of averages."""
        here = tuple(track.asset for track in tracks)
        if self._pooled is None or self._pooled[0] != here:
            self._pooled = here, self._pools(tracks)
        rows: list[Row] = []
        for group, kpis in self._pooled[1]:
            sums: dict[tuple[int, int], dict[str, Fact]] = {}
            for kpi, having, grain_ns in kpis:
                facts: dict[str, Fact] = {}
                for measure in () if _cuts(span, grain_ns) else kpi.measures:
                    key = (id(measure), id(having))
                    if key not in sums:
                        total: dict[str, Fact] = {}
                        for asset in having:
                            total = add_facts(total, closed[asset].facts[measure.name])
                        sums[key] = total
                    facts |= sums[key]
                n = sum(closed[asset].n for asset in having)
                late = sum(closed[asset].late for asset in having)
                rows.append(Row(group, kpi.name, *_key(span), kpi.value(facts), n, late, kpi.unit))
        return rows

    def _pools(self, tracks: list[Track]) -> Pools:
        """Which assets' facts are added up for which KPI of every line, area and site."""
        groups: dict[Asset, list[Track]] = {}
        for track in tracks:
            site, area, line, _ = track.asset
            levels = (site, area, line)
            for depth in (3, 2, 1):
                group = Asset._make((*levels[:depth], *[ALL] * (4 - depth)))
                groups.setdefault(group, []).append(track)
        pools: Pools = []
        for group, members in groups.items():
            kpis: list[tuple[Kpi, tuple[Asset, ...], int]] = []
            shared: dict[tuple[Asset, ...], tuple[Asset, ...]] = {}
            for kpi in self._kpis:
                if not kpi.rolls_up:
                    continue
                having = tuple(
                    t.asset for t in members if kpi.name in t.names and kpi.pools(t.kind)
                )
                if having:
                    grains = (self._tracks[a].grains.get(kpi.name, 1) for a in having)
                    kpis.append((kpi, shared.setdefault(having, having), math.lcm(*grains)))
            pools.append((group, kpis))
        return pools


FORGET_EVERY_NS = 300 * NS_PER_S
"""Time between two looks at what may be forgotten."""
KEEP_NS = 900 * NS_PER_S
"""How long closed windows stay in memory; older ones are folded again from the journal."""
REMEMBERED = 8
"""The fewest blocks whose merger is remembered beside them: smaller ones, three in four of all,
cost less to merge again than to keep."""
TOGETHER = 16
"""The most blocks that are kept as one: if one is amended, all are read from the journal again."""
REFOLD_AT_ONCE = 16
"""The most blocks whose samples are read from the journal at once..."""
RECALLED = 4
"""...and for how many such stretches they are kept while records are amended, for other assets."""
LANDMARK_NS = 3_600 * NS_PER_S
"""So often it is remembered what was known then, as long as a record may be amended."""


def _seniority(birth: Birth) -> tuple[int, int]:
    return birth.t_ns, birth.meta.arrival_ns


def _join(measures: tuple[Measure, ...], a: Block, b: Block) -> Block:
    states = zip(measures, a.states, b.states, strict=True)
    return Block(tuple(m.merge(x, y) for m, x, y in states), a.n + b.n, a.late + b.late)


def _cuts(span: Span, grain_ns: int) -> bool:
    """Whether a window begins or ends in the midst of what was gathered over so many ns."""
    return grain_ns > 1 and bool(span.start_ns % grain_ns or span.end_ns % grain_ns)


def _key(span: Span) -> tuple[int, int]:
    """Where a window lies, as a row has it."""
    return span.start_ns, span.length_ns


def _facts(measures: tuple[Measure, ...], states: tuple[Any, ...]) -> dict[str, Facts]:
    return {m.name: m.facts(state) for m, state in zip(measures, states, strict=True)}


def _facts_of(kpi: Kpi, facts: dict[str, Facts]) -> Facts:
    if len(kpi.measures) == 1:
        return facts[kpi.measures[0].name]
    together: dict[str, Fact] = {}
    for measure in kpi.measures:
        together |= facts[measure.name]
    return together


def _runs(numbers: set[int], most: int = sys.maxsize) -> list[tuple[int, int]]:
    """Runs of consecutive numbers, ``most`` of them at the most, as first and last."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1 and number - runs[-1][0] < most:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _without_spans(
    whole: tuple[int, int], taken: Iterable[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """What is left of a stretch without some others, which are in order."""
    first, end = whole
    for low, high in taken:
        if high <= first or low >= end:
            continue
        if first < low:
            yield first, low
        first = high
    if first < end:
        yield first, end


def _nodes(first: int, end: int, most: int) -> Iterator[tuple[int, int]]:
    """Blocks ``[first, end)`` in as few nodes as may be, each as its first block and how many.

    >>> list(_nodes(3, 13, 16))
    [(3, 1), (4, 4), (8, 4), (12, 1)]
    """
    while first < end:
        size = min(first & -first or most, most, 1 << (end - first).bit_length() - 1)
        yield first, size
        first += size


def _missing(track: Track, first: int, size: int) -> list[int]:
    """Blocks of a node that are not here, where the node is not here itself."""
    if size == 1:
        return [] if first in track.blocks else [first]
    if (first, size) in track.nodes:
        return []
    half = size // 2
    return _missing(track, first, half) + _missing(track, first + half, half)
