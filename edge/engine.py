"""The heart of the edge: records in, KPI rows out; no clock, no socket, no file.

Theory of operation
===================

Samples are folded in *panes*, ``[k*P, (k+1)*P)``. Per asset a pane has a bundle of measure states
and a *carry*: what was known when it began. A window is the carry at its start, merged with its
panes in time order; windows that divide one another are built from each other.

    carry ──► pane ──► carry ──► pane ──► carry          (per asset)
              └────────── window ─────────┘

There is ONE watermark: the least of the connections' progress, or the host's ticks. Panes it has
passed (plus the lateness) are folded and their windows closed, for every asset of the roster, so a
silent machine has rows too. A record for a closed pane makes that pane *dirty*: it is folded again
from the journal, what it hands on is followed as far as it changes anything, and the windows
touched are emitted again. The last rows are therefore a function of the set of records alone.

Panes are kept as *blocks*, of which windows on the grid and by the calendar are whole numbers
(``config.windows``). An order begins and ends anywhere: the two blocks it cuts are folded again
from the journal as far as they are its own. The piece that completes an order is read at the very
instant of the change, and is of the order it completes. If an end moves, the rows of the old window
are *gone*.

Assets roll up to line, area and site. A work unit, or a cell that reports as one machine, is an
asset here (ISA-95's lowest level of equipment): a group of assets that is looked at as one is a
line, so there is no level between the two.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from config.units import NS_PER_S
from config.windows import Order, Span
from edge.columns import Columns
from edge.gate import Entry, Gate, Ledger, Stamped
from edge.kpi import Kpi
from edge.measures import Fact, Facts, Measure, add_facts, tailored
from edge.orders import ORDERS, Turns, ended
from edge.policy import Policy
from edge.rows import ALL, ORDER_NUMBER, Row
from ingest.messages import Asset, Batch, Birth, Notice, Progress, Record, Tick


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
    names: frozenset[str]
    """Of the KPIs."""
    first_block: int
    running: Block
    """What was folded of the block that is still open."""
    blocks: dict[int, Block] = field(default_factory=dict[int, Block])
    carries: dict[int, tuple[Any, ...]] = field(default_factory=dict[int, tuple[Any, ...]])
    """What was known at the start of each block kept."""
    orders: dict[int, tuple[tuple[Span, int], ...]] = field(
        default_factory=dict[int, tuple[tuple[Span, int], ...]]
    )
    """Orders with their numbers, by the block they ended in; of those that have any."""
    so_far: Block | None = None
    """The order that is on, up to the last closed block; unknown after an amendment."""


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
        self._heard = 0
        """The last pane closed in which anybody was heard of."""
        self._numbered: set[str] = set()
        """Connections of which a message was let in; only they have a say in the watermark."""
        self._block_ns = policy.block_ns
        self._per_block = policy.block_ns // policy.pane_ns
        self._anchor = max(LANDMARK_NS, *(w.nominal_ns for w in policy.windows)) // self._block_ns
        """Of every so many blocks it is never forgotten what was known at its start."""
        self._by_order = any(isinstance(window, Order) for window in policy.windows)
        """Then ``ORDERS`` is the last measure of every track."""
        self._closed: dict[Span, dict[Asset, Closed]] = {}
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
        if entry is Entry.DUPLICATE or isinstance(message, Notice):
            return
        if isinstance(message, Birth):
            self._announce(message)
            return
        if entry is Entry.REPLACES:
            self._withdraw(message)
        self.samples += len(message)
        if message.asset not in self._births:
            self._unannounced.add(message.asset)
        self._last_ns = max(int(message.t_ns[-1]), self._last_ns or 0)
        for pane in self._panes_of(message):
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
        known = self._births.get(birth.asset)
        if known is not None and _seniority(known) <= _seniority(birth):
            return
        self._births[birth.asset] = birth
        kpis = tuple(k for k in self._kpis if k.applies(birth.kind, birth.channels, birth.limits))
        known_as = {m.name: m for kpi in kpis for m in kpi.measures}
        measures = tuple(tailored(m, birth) for m in known_as.values())
        if self._by_order:  # whoever is told of orders: births need not announce what an MES says
            measures = (*measures, ORDERS)
        zero = Block(tuple(m.zero() for m in measures))
        # A flow counter's first reading may stand at the birth and close the pane before it.
        start = (birth.t_ns - 1) // self._policy.pane_ns // self._per_block
        names = frozenset(kpi.name for kpi in kpis)
        track = Track(birth.asset, birth.kind, birth.t_ns, measures, kpis, names, start, zero)
        if (before := self._tracks.get(birth.asset)) is not None:
            track.orders = before.orders
        self._tracks[birth.asset] = track
        track.carries[start] = self._nothing_at(track, start)
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
        for first, end in self._steps(track.first_block, -(-frontier // self._per_block)):
            if end == first + 1:
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
            self._frontier = min(t.first_block for t in self._tracks.values()) * self._per_block
            self._heard = self._frontier
        while (self._frontier + 1) * size <= until_ns:
            if self._frontier > self._quiet_from and self._pass_over(until_ns // size):
                continue
            self._close_pane(self._frontier)
            self._frontier += 1
            if self._frontier % self._per_block:
                continue
            end_ns = self._frontier * size
            for track in self._tracks.values():
                rows += self._follow_orders(track, self._frontier // self._per_block - 1)
            if self._frontier - 1 <= self._quiet_from:
                for span in self._windows_ending(end_ns):
                    rows += self._emit(span)
            if self._frontier % (self._per_block * FORGET_EVERY) == 0:
                self._forget(end_ns)
        return rows

    @property
    def _quiet_from(self) -> int:
        """The pane from which on nobody was heard of for as long as a row may be amended."""
        return self._heard + self._policy.retention_ns // self._policy.pane_ns

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
                track.carries[target] = self._carry(track, block, target)
                if track.so_far is not None:
                    nothing = self._part(track, block, target)
                    track.so_far = _join(track.measures, track.so_far, nothing)
        self._frontier = target * self._per_block
        return True

    def _steps(self, first: int, stop: int) -> Iterator[tuple[int, int]]:
        """Blocks ``[first, stop)`` one by one, as first and end; what was passed over, at once."""
        block = first
        while block < stop:
            gaps = (min(b, stop) for a, b in self._gaps if a <= block < b)
            end = next(gaps, block + 1)
            yield block, end
            block = end

    def _part(self, track: Track, first: int, end: int) -> Block:
        """What was folded in one of those steps."""
        if end == first + 1:
            return self._block(track, first)
        return self._fold(track, [], Span(first * self._block_ns, end * self._block_ns))

    def _close_pane(self, pane: int) -> None:
        batches = self._open.pop(pane, {})
        if batches:
            self._heard = max(self._heard, pane)
        block = pane // self._per_block
        for track in self._tracks.values():
            if block < track.first_block:
                continue  # announced for a later time
            folded = self._fold(track, batches.get(track.asset, []), self._pane(pane))
            track.running = _join(track.measures, track.running, folded)
            if (pane + 1) % self._per_block == 0:
                track.blocks[block] = track.running
                track.carries[block + 1] = self._carry(track, block, block + 1)
                track.running = Block(tuple(m.zero() for m in track.measures))

    def _pane(self, pane: int) -> Span:
        return Span(pane * self._policy.pane_ns, (pane + 1) * self._policy.pane_ns)

    def _fold(
        self,
        track: Track,
        batches: list[Batch],
        span: Span,
        turns: tuple[bool, bool] = (False, False),
    ) -> Block:
        """What one asset said in a pane, or in a part of one."""
        start_ns, end_ns = span
        columns = Columns(batches, start_ns, end_ns, turns)
        late_ns = self._policy.pane_end(start_ns) + self._policy.lateness_ns
        n = late = 0
        for batch in batches:
            low, high = batch.t_ns.searchsorted((start_ns, end_ns))
            n += int(high - low)
            if batch.meta.arrival_ns > late_ns:
                late += int(high - low)
        return Block(tuple(m.fold(columns) for m in track.measures), n, late)

    def _carry(self, track: Track, first: int, end: int) -> tuple[Any, ...]:
        """What is known at the end of a step, from what was known at its start."""
        end_ns = end * self._block_ns
        part = self._part(track, first, end)
        states = zip(track.measures, track.carries[first], part.states, strict=True)
        return tuple(m.edge(m.merge(carry, state), end_ns) for m, carry, state in states)

    def _nothing_at(self, track: Track, block: int) -> tuple[Any, ...]:
        start_ns = block * self._block_ns
        return tuple(m.edge(m.zero(), start_ns) for m in track.measures)

    # amending ----------------------------------------------------------------------------------

    def _mend(self) -> list[Row]:
        """Fold dirty panes again from the journal, and emit again what that changed."""
        dirty, self._dirty = self._dirty, {}
        touched: set[Span] = set()
        rows: list[Row] = []
        for asset, panes in dirty.items():
            track = self._tracks.get(asset)
            if track is None:
                continue
            changed = self._mend_track(track, {pane // self._per_block for pane in panes})
            for span in self._closed_over(changed):
                self._closed.get(span, {}).pop(asset, None)
                touched.add(span)
            rows += self._mend_orders(track, changed)
        for span in sorted(touched, key=lambda span: (span.length_ns, span.start_ns)):
            rows += self._emit(span)
        return rows

    def _closed_over(self, blocks: set[int]) -> set[Span]:
        """Windows that are closed and have a part in any of some blocks."""
        assert self._frontier is not None
        done_ns = self._frontier * self._policy.pane_ns
        return {
            span
            for first, last in _runs(blocks)
            for span in self._windows_over(first * self._block_ns, (last + 1) * self._block_ns)
            if span.end_ns <= done_ns
        }

    def _mend_track(self, track: Track, wanted: set[int]) -> set[int]:
        """Refold blocks of one asset and follow what they hand on; tells which blocks may now give
        other values."""
        assert self._frontier is not None
        whole = self._frontier // self._per_block
        first_block = track.first_block
        wanted = {block for block in wanted if block >= first_block}
        if not wanted:
            return set()
        self._gaps = [part for gap in self._gaps for part in _without(gap, wanted)]
        start = self._remembered(track, min(wanted))
        steps = list(self._steps(start, whole))
        single = {first for first, end in steps if end == first + 1}
        refold = (wanted | (single - track.blocks.keys())) & single
        if whole in wanted:
            refold.add(whole)
        for block, folded in self._refold(track, refold).items():
            if block == whole:
                track.running = folded
            else:
                track.blocks[block] = folded
        changed = set(wanted)
        last = max(wanted)
        for first, end in steps:
            carry = self._carry(track, first, end)
            if track.carries.get(end) != carry:
                track.carries[end] = carry
                changed.add(end)
            elif first >= last:
                break
        return changed

    def _remembered(self, track: Track, block: int) -> int:
        """The last block at or before ``block`` at whose start we know what was known."""
        first = block // self._anchor * self._anchor
        return max((b for b in track.carries if b <= first), default=track.first_block)

    def _refold(self, track: Track, blocks: set[int]) -> dict[int, Block]:
        """Blocks of one asset, folded again from the journal."""
        assert self._frontier is not None
        per_block = self._per_block
        folded: dict[int, Block] = {}
        for first, last in _runs(blocks, REFOLD_AT_ONCE):
            panes = self._recall(track, Span(first * self._block_ns, self._end_of(last)))
            for block in range(first, last + 1):
                total = Block(tuple(m.zero() for m in track.measures))
                for pane in range(block * per_block, min((block + 1) * per_block, self._frontier)):
                    part = self._fold(track, panes.get(pane, []), self._pane(pane))
                    total = _join(track.measures, total, part)
                folded[block] = total
        return folded

    def _recall(self, track: Track, span: Span) -> dict[int, list[Batch]]:
        """What one asset said, by pane, as the journal has it."""
        panes: dict[int, list[Batch]] = {}
        for record in self._past.recall(*span):
            message = record.message
            if (
                isinstance(message, Batch)
                and message.asset == track.asset
                and self._gate.holds(record, message)
            ):
                for pane in self._panes_of(message):
                    held = panes.setdefault(pane, [])
                    if all(b.meta.identity != message.meta.identity for b in held):
                        held.append(message)
        return panes

    def _forget(self, now_ns: int) -> None:
        """Drop what only a very late record would need; the journal still has it."""
        keep_ns = now_ns - KEEP_NS
        for span in [span for span in self._closed if span.end_ns <= keep_ns]:
            del self._closed[span]
        under_way = self._windows_over(keep_ns, keep_ns + 1)
        keep = min([keep_ns, *(span.start_ns for span in under_way)]) // self._block_ns
        for track in self._tracks.values():
            for block in [b for b in track.blocks if b < keep]:
                del track.blocks[block]
            for block in [b for b in track.carries if b < keep and b != track.first_block]:
                if block % self._anchor:
                    del track.carries[block]

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
            track.so_far = _join(track.measures, track.so_far, self._block(track, block))
        return rows

    def _find_orders(self, track: Track, block: int) -> Turns:
        """Note which orders ended in a block; the turns in it, the last one before it first."""
        turns = ORDERS.merge(track.carries[block][-1], self._block(track, block).states[-1])
        if found := tuple(ended(turns)):
            track.orders[block] = found
        else:
            track.orders.pop(block, None)
        return turns

    def _mend_orders(self, track: Track, changed: set[int]) -> list[Row]:
        """Rows of orders that may have other values, or lie elsewhere, after an amendment."""
        assert self._frontier is not None
        changed = {block for block in changed if block < self._frontier // self._per_block}
        if not changed or not self._by_order:
            return []
        track.so_far = None
        was = {span for found in track.orders.values() for span, _ in found}
        for block in changed:
            self._find_orders(track, block)
        now = {span: number for found in track.orders.values() for span, number in found}
        rows = self._gone(track, was - now.keys())
        runs = [(first * self._block_ns, self._end_of(last)) for first, last in _runs(changed)]
        for span in sorted(now):
            if any(span.start_ns <= end_ns and start_ns < span.end_ns for start_ns, end_ns in runs):
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
        values |= {kpi.name: kpi.value(_facts_of(kpi, facts)) for kpi in track.kpis}
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
        self._remember(track, first, min(last + 1, self._frontier // self._per_block))
        if total is None:
            total = Block(self._known_at(track, span.start_ns))
        for low, high in self._steps(first, last + 1):
            start_ns = max(low * self._block_ns, span.start_ns)
            end_ns = min(high * self._block_ns, span.end_ns)
            turns = (start_ns == span.start_ns, ends and end_ns == span.end_ns)
            if start_ns > low * self._block_ns or end_ns < high * self._block_ns or any(turns):
                folded = self._piece(track, Span(start_ns, end_ns), turns)
            else:
                folded = self._part(track, low, high)
            total = _join(track.measures, total, folded)
        return total

    def _goes_on(self, track: Track, span: Span, block: int) -> bool:
        """Whether what was added up of the order that is on is of this span, up to this block."""
        on = track.carries[block][-1]
        assert self._frontier is not None
        newest = self._end_of(block) >= self._frontier * self._policy.pane_ns
        return newest and bool(on) and on[-1].t_ns == span.start_ns

    def _known_at(self, track: Track, t_ns: int) -> tuple[Any, ...]:
        """What was known at a turn."""
        block = t_ns // self._block_ns
        before = self._piece(track, Span(block * self._block_ns, t_ns), (False, True))
        total = _join(track.measures, Block(track.carries[block]), before)
        pairs = zip(track.measures, total.states, strict=True)
        return tuple(m.edge(state, t_ns) for m, state in pairs)

    def _piece(self, track: Track, span: Span, turns: tuple[bool, bool]) -> Block:
        """A part of a block of one asset, folded from the journal."""
        size = self._policy.pane_ns
        panes = self._recall(track, span)
        total = Block(tuple(m.zero() for m in track.measures))
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

    def _block(self, track: Track, block: int) -> Block:
        """A block that is closed, or what was folded of the one that is open."""
        assert self._frontier is not None
        is_open = block == self._frontier // self._per_block
        return track.running if is_open else track.blocks[block]

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
                value = kpi.value(_facts_of(kpi, mine.facts))
                rows.append(
                    Row(track.asset, kpi.name, *_key(span), value, mine.n, mine.late, kpi.unit)
                )
        return rows + self._roll_up(tracks, closed, span)

    def _close_window(self, track: Track, span: Span) -> Closed:
        assert self._frontier is not None
        first = max(span.start_ns // self._block_ns, track.first_block)
        whole = min(span.end_ns // self._block_ns, self._frontier // self._per_block)
        self._remember(track, first, whole)
        parts = [self._part(track, *step) for step in self._steps(first, whole)]
        if whole * self._block_ns < span.end_ns:
            parts.append(track.running)
        total = Block(track.carries[first])
        for part in parts:
            total = _join(track.measures, total, part)
        return Closed(_facts(track.measures, total.states), total.n, total.late)

    def _remember(self, track: Track, first: int, stop: int) -> None:
        """Have blocks ``[first, stop)`` here, and what was known before; the journal has them."""
        blocks = {block for block, end in self._steps(first, stop) if end == block + 1}
        if not blocks <= track.blocks.keys():
            self._mend_track(track, blocks)
        if first in track.carries:
            return
        # In the middle of what was passed over: nothing was learnt since its start.
        begun = next((a for a, b in self._gaps if a < first < b), first)
        if begun not in track.carries:
            self._mend_track(track, {begun - 1})
        states = zip(track.measures, track.carries[begun], strict=True)
        t_ns = first * self._block_ns
        track.carries[first] = tuple(m.edge(state, t_ns) for m, state in states)

    def _roll_up(
        self,
        tracks: list[Track],
        closed: dict[Asset, Closed],
        span: Span,
    ) -> list[Row]:
        """Exact facts added up, never an average of averages."""
        groups: dict[Asset, list[Track]] = {}
        for track in tracks:
            site, area, line, _ = track.asset
            levels = (site, area, line)
            for depth in (3, 2, 1):
                group = Asset._make((*levels[:depth], *[ALL] * (4 - depth)))
                groups.setdefault(group, []).append(track)
        rows: list[Row] = []
        for group, members in groups.items():
            sums: dict[tuple[int, ...], dict[str, Fact]] = {}
            for kpi in self._kpis:
                if not kpi.rolls_up:
                    continue
                having = [
                    i for i, t in enumerate(members) if kpi.name in t.names and kpi.pools(t.kind)
                ]
                if not having:
                    continue
                facts: dict[str, Fact] = {}
                for measure in kpi.measures:
                    key = (id(measure), *having)
                    if key not in sums:
                        total: dict[str, Fact] = {}
                        for i in having:
                            mine = closed[members[i].asset]
                            total = add_facts(total, mine.facts[measure.name])
                        sums[key] = total
                    facts |= sums[key]
                n = sum(closed[members[i].asset].n for i in having)
                late = sum(closed[members[i].asset].late for i in having)
                rows.append(Row(group, kpi.name, *_key(span), kpi.value(facts), n, late, kpi.unit))
        return rows


FORGET_EVERY = 60
"""Blocks between two looks at what may be forgotten."""
KEEP_NS = 900 * NS_PER_S
"""How long closed windows stay in memory; older ones are folded again from the journal."""
REFOLD_AT_ONCE = 60
"""The most blocks whose samples are read from the journal at once."""
LANDMARK_NS = 3_600 * NS_PER_S
"""At least so often it is kept for good what was known then."""


def _seniority(birth: Birth) -> tuple[int, int]:
    return birth.t_ns, birth.meta.arrival_ns


def _join(measures: tuple[Measure, ...], a: Block, b: Block) -> Block:
    states = zip(measures, a.states, b.states, strict=True)
    return Block(tuple(m.merge(x, y) for m, x, y in states), a.n + b.n, a.late + b.late)


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


def _without(gap: tuple[int, int], blocks: set[int]) -> Iterator[tuple[int, int]]:
    """What is left of a stretch without some blocks."""
    first, end = gap
    for block in sorted(block for block in blocks if first <= block < end):
        if first < block:
            yield first, block
        first = block + 1
    if first < end:
        yield first, end
