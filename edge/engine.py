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
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from config.units import NS_PER_S
from edge.columns import Columns
from edge.gate import Entry, Gate, Ledger, Stamped
from edge.kpi import Kpi
from edge.measures import Fact, Facts, Measure, add_facts
from edge.policy import Policy
from edge.rows import ALL, Row
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
        self._per_block = math.gcd(*policy.windows_ns) // policy.pane_ns
        self._windows: dict[tuple[int, int], dict[Asset, Closed]] = {}
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
        kpis = tuple(k for k in self._kpis if k.applies(birth.kind, birth.channels))
        measures = tuple({m.name: m for kpi in kpis for m in kpi.measures}.values())
        zero = Block(tuple(m.zero() for m in measures))
        # A flow counter's first reading may stand at the birth and close the pane before it.
        start = (birth.t_ns - 1) // self._policy.pane_ns // self._per_block
        names = frozenset(kpi.name for kpi in kpis)
        track = Track(birth.asset, birth.kind, birth.t_ns, measures, kpis, names, start, zero)
        self._tracks[birth.asset] = track
        track.carries[start] = self._nothing_at(track, start)
        if self._frontier is not None and start * self._per_block < self._frontier:
            panes = range(start * self._per_block, self._frontier)
            self._dirty.setdefault(birth.asset, set()).update(panes)

    def _withdraw(self, winner: Batch) -> None:
        """Take back what a record let in before, of the same identity, was folded into."""
        for assets in self._open.values():
            if winner.asset in assets:
                kept = [b for b in assets[winner.asset] if b.meta.identity != winner.meta.identity]
                assets[winner.asset] = kept
        track = self._tracks.get(winner.asset)
        if track is not None and self._frontier is not None:
            since = track.first_block * self._per_block
            self._dirty.setdefault(winner.asset, set()).update(range(since, self._frontier))

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
        for length_ns in self._policy.windows_ns:
            if horizon_ns % length_ns and self._frontier is not None:
                rows += self._emit(length_ns, horizon_ns // length_ns * length_ns)
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
            if self._frontier > self._quiet_from:
                self._skip(until_ns // size)
                continue
            self._close_pane(self._frontier)
            self._frontier += 1
            end_ns = self._frontier * size
            for length_ns in self._policy.windows_ns:
                if end_ns % length_ns == 0:
                    rows += self._emit(length_ns, end_ns - length_ns)
            if self._frontier % (self._per_block * FORGET_EVERY) == 0:
                self._forget(end_ns)
        return rows

    @property
    def _quiet_from(self) -> int:
        """The pane from which on nobody was heard of for as long as a row may be amended."""
        return self._heard + self._policy.retention_ns // self._policy.pane_ns

    def _skip(self, until: int) -> None:
        """Pass over a stretch in which nothing was recorded at all: it makes no rows, and what was
        known before it is known after it."""
        assert self._frontier is not None
        block = self._frontier // self._per_block
        target = min([*self._open, until]) // self._per_block
        if self._frontier % self._per_block or target <= block:
            self._close_pane(self._frontier)
            self._frontier += 1
            return
        start_ns = target * self._per_block * self._policy.pane_ns
        for track in self._tracks.values():
            if track.first_block <= block:
                carry = zip(track.measures, track.carries[block], strict=True)
                track.carries[target] = tuple(m.edge(state, start_ns) for m, state in carry)
        self._frontier = target * self._per_block

    def _close_pane(self, pane: int) -> None:
        batches = self._open.pop(pane, {})
        if batches:
            self._heard = max(self._heard, pane)
        block = pane // self._per_block
        for track in self._tracks.values():
            if block < track.first_block:
                continue  # announced for a later time
            folded = self._fold(track, batches.get(track.asset, []), pane)
            track.running = _join(track.measures, track.running, folded)
            if (pane + 1) % self._per_block == 0:
                track.blocks[block] = track.running
                track.carries[block + 1] = self._carry(track, block)
                track.running = Block(tuple(m.zero() for m in track.measures))

    def _fold(self, track: Track, batches: list[Batch], pane: int) -> Block:
        size = self._policy.pane_ns
        start_ns, end_ns = pane * size, (pane + 1) * size
        columns = Columns(batches, start_ns, end_ns)
        n = late = 0
        for batch in batches:
            low, high = batch.t_ns.searchsorted((start_ns, end_ns))
            n += int(high - low)
            if batch.meta.arrival_ns > end_ns + self._policy.lateness_ns:
                late += int(high - low)
        return Block(tuple(m.fold(columns) for m in track.measures), n, late)

    def _carry(self, track: Track, block: int) -> tuple[Any, ...]:
        """What is known at the end of a block, from what was known at its start."""
        end_ns = (block + 1) * self._per_block * self._policy.pane_ns
        states = zip(track.measures, track.carries[block], track.blocks[block].states, strict=True)
        return tuple(m.edge(m.merge(carry, state), end_ns) for m, carry, state in states)

    def _nothing_at(self, track: Track, block: int) -> tuple[Any, ...]:
        start_ns = block * self._per_block * self._policy.pane_ns
        return tuple(m.edge(m.zero(), start_ns) for m in track.measures)

    # amending ----------------------------------------------------------------------------------

    def _mend(self) -> list[Row]:
        """Fold dirty panes again from the journal, and emit again what that changed."""
        dirty, self._dirty = self._dirty, {}
        touched: set[tuple[int, int]] = set()
        for asset, panes in dirty.items():
            track = self._tracks.get(asset)
            if track is not None:
                touched |= self._mend_track(track, {pane // self._per_block for pane in panes})
        rows: list[Row] = []
        for length_ns, start_ns in sorted(touched):
            rows += self._emit(length_ns, start_ns)
        return rows

    def _mend_track(self, track: Track, wanted: set[int]) -> set[tuple[int, int]]:
        """Refold blocks of one asset, follow what they hand on, and name the windows touched."""
        assert self._frontier is not None
        per_block, whole = self._per_block, self._frontier // self._per_block
        first_block = track.first_block
        wanted = {block for block in wanted if block >= first_block}
        if not wanted:
            return set()
        start = self._remembered(track, min(wanted))
        missing = {b for b in range(start, whole) if b not in track.blocks}
        refold = (wanted | missing) & set(range(start, whole))
        if whole in wanted:
            refold.add(whole)
        for block, folded in self._refold(track, refold).items():
            if block == whole:
                track.running = folded
            else:
                track.blocks[block] = folded
        changed = set(wanted)
        for block in range(start, whole):
            carry = self._carry(track, block)
            if track.carries.get(block + 1) != carry:
                track.carries[block + 1] = carry
                changed.add(block + 1)
            elif block >= max(wanted):
                break
        size = self._policy.pane_ns
        touched: set[tuple[int, int]] = set()
        for block in changed:
            start_ns = block * per_block * size
            for length_ns in self._policy.windows_ns:
                window_ns = start_ns // length_ns * length_ns
                if window_ns + length_ns <= self._frontier * size:
                    self._windows.get((length_ns, window_ns), {}).pop(track.asset, None)
                    touched.add((length_ns, window_ns))
        return touched

    def _remembered(self, track: Track, block: int) -> int:
        """The last block at or before ``block`` at whose start we know what was known."""
        longest = max(self._policy.windows_ns) // (self._per_block * self._policy.pane_ns)
        first = block // longest * longest
        return max((b for b in track.carries if b <= first), default=track.first_block)

    def _refold(self, track: Track, blocks: set[int]) -> dict[int, Block]:
        """Blocks of one asset, folded again from the journal."""
        if not blocks:
            return {}
        assert self._frontier is not None
        size, per_block = self._policy.pane_ns, self._per_block
        panes: dict[int, list[Batch]] = {}
        for first, last in _runs(blocks):
            span = (first * per_block * size, (last + 1) * per_block * size)
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
        folded: dict[int, Block] = {}
        for block in sorted(blocks):
            total = Block(tuple(m.zero() for m in track.measures))
            for pane in range(block * per_block, min((block + 1) * per_block, self._frontier)):
                total = _join(track.measures, total, self._fold(track, panes.get(pane, []), pane))
            folded[block] = total
        return folded

    def _forget(self, now_ns: int) -> None:
        """Drop what only a very late record would need; the journal still has it."""
        longest_ns = max(self._policy.windows_ns)
        keep_ns = (now_ns - KEEP_NS) // longest_ns * longest_ns
        block_ns = self._per_block * self._policy.pane_ns
        for track in self._tracks.values():
            for block in [b for b in track.blocks if b * block_ns < keep_ns]:
                del track.blocks[block]
            first = track.first_block
            old = [b for b in track.carries if b * block_ns < keep_ns and b != first]
            for block in old:
                if block * block_ns % longest_ns:
                    del track.carries[block]
        for length_ns, start_ns in [w for w in self._windows if w[1] < keep_ns]:
            del self._windows[length_ns, start_ns]

    # rows --------------------------------------------------------------------------------------

    def _emit(self, length_ns: int, start_ns: int) -> list[Row]:
        """Rows of one window: every asset of the roster, then line, area and site."""
        closed = self._windows.setdefault((length_ns, start_ns), {})
        end_ns = start_ns + length_ns
        tracks = [t for t in self._tracks.values() if t.since_ns < end_ns]
        rows: list[Row] = []
        for track in tracks:
            if track.asset not in closed:
                closed[track.asset] = self._close_window(track, start_ns, end_ns)
            mine = closed[track.asset]
            for kpi in track.kpis:
                value = kpi.value(_facts_of(kpi, mine.facts))
                rows.append(
                    Row(track.asset, kpi.name, start_ns, length_ns, value, mine.n, mine.late,
                        kpi.unit)
                )  # fmt: skip
        return rows + self._roll_up(tracks, closed, length_ns, start_ns)

    def _close_window(self, track: Track, start_ns: int, end_ns: int) -> Closed:
        assert self._frontier is not None
        block_ns = self._per_block * self._policy.pane_ns
        first = max(start_ns // block_ns, track.first_block)
        whole = min(end_ns // block_ns, self._frontier // self._per_block)
        if any(b not in track.blocks for b in range(first, whole)) or first not in track.carries:
            self._mend_track(track, set(range(first, whole)))
        parts = [track.blocks[block] for block in range(first, whole)]
        if whole * block_ns < end_ns:
            parts.append(track.running)
        total = Block(track.carries[first])
        for part in parts:
            total = _join(track.measures, total, part)
        facts = {
            m.name: m.facts(state) for m, state in zip(track.measures, total.states, strict=True)
        }
        return Closed(facts, total.n, total.late)

    def _roll_up(
        self,
        tracks: list[Track],
        closed: dict[Asset, Closed],
        length_ns: int,
        start_ns: int,
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
                    i
                    for i, t in enumerate(members)
                    if kpi.name in t.names and (not kpi.pooled or t.kind in kpi.pooled)
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
                rows.append(
                    Row(group, kpi.name, start_ns, length_ns, kpi.value(facts), n, late, kpi.unit)
                )
        return rows


FORGET_EVERY = 60
"""Blocks between two looks at what may be forgotten."""
KEEP_NS = 900 * NS_PER_S
"""How long closed windows stay in memory; older ones are folded again from the journal."""


def _seniority(birth: Birth) -> tuple[int, int]:
    return birth.t_ns, birth.meta.arrival_ns


def _join(measures: tuple[Measure, ...], a: Block, b: Block) -> Block:
    states = zip(measures, a.states, b.states, strict=True)
    return Block(tuple(m.merge(x, y) for m, x, y in states), a.n + b.n, a.late + b.late)


def _facts_of(kpi: Kpi, facts: dict[str, Facts]) -> Facts:
    if len(kpi.measures) == 1:
        return facts[kpi.measures[0].name]
    together: dict[str, Fact] = {}
    for measure in kpi.measures:
        together |= facts[measure.name]
    return together


def _runs(numbers: set[int]) -> list[tuple[int, int]]:
    """Runs of consecutive numbers, as first and last."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
