"""Where a row came from: the same engine and measures once more, keeping what they were given.

Theory of operation
===================

A KPI's measures are wrapped in *witnesses*. A witness folds, merges and carries exactly as the
measure in it, and keeps beside each state what it was made of:

    carry ──► pane ──► pane ──► pane         state   what the measure says
    sources   columns  columns  columns      kept    what it was told, and what was known before

The engine is given these KPIs instead of the plain ones, and what it emits for the wanted rows is
their evidence: there is no second way to compute a row. Only what was said to a wanted asset within
a wanted window is kept, so the rest of a recording passes through without staying in memory.

A *time line* is the window cut wherever a component was read to be something else, or a reading
ceased to hold: every piece is one situation, folded by the same measure, so that the facts of the
pieces add up to the facts of the window.
"""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from config.units import NS_PER_MS, NS_PER_S
from config.windows import Span
from edge.columns import Columns
from edge.kpi import Kpi, quantile
from edge.measures import Fact, Facts, Measure, tailored
from edge.measures.delays import Delays
from edge.measures.flows import MICRO, Flows
from edge.measures.runs import CounterRuns
from edge.measures.situations import CARRIED, Situation, Situations, Spent
from edge.measures.spreads import Spreads
from edge.measures.values import Values
from edge.rows import ALL, Row
from ingest.bins import delay_of
from ingest.messages import Asset, Birth, Identity

# what is kept ------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Which row: its asset (or group), KPI and window."""

    asset: Asset
    kpi: str
    span: Span


def place_of(row: Row) -> Place:
    """Where a row belongs."""
    start_ns = row.window_start_ns
    return Place(row.asset, row.kpi, Span(start_ns, start_ns + row.window_length_ns))


class Source(NamedTuple):
    """The message whose reading of a channel is what is known; of a counter within one start of
    its sender that is the highest, of one that rolls over and of everything else the last."""

    start: int
    """Of the sender, for a counter; 0 where it does not number its messages, and for all else."""
    t_ns: int
    value: float
    identity: Identity
    arrival_ns: int
    rolls: bool = False
    """Whether it is of a counter with a modulus."""

    def yields_to(self, other: "Source") -> bool:
        """Whether the other one is known rather than this one, of the same channel."""
        if not self.start and not other.start:
            return other.t_ns >= self.t_ns
        if self.rolls:
            return (other.start, other.t_ns) >= (self.start, self.t_ns)
        mine = (self.start, self.value, self.t_ns)
        return (other.start, other.value, other.t_ns) >= mine


class Held(NamedTuple):
    """A measure's state with what it was made of."""

    state: Any
    carry: Any = None
    """What was known when it began; ``None`` where it does not begin at such an edge."""
    sources: tuple[tuple[str, Source], ...] = ()
    """By channel who told what is known at the end."""
    before: tuple[tuple[str, Source], ...] = ()
    """The same at the edge where it began: who told what was known then."""
    panes: tuple[Columns, ...] = ()
    """What was folded, in order of time."""


class Witness:
    """A measure that keeps what it is given, of the assets and in the windows that are wanted.

    ``spans`` are the wanted windows of its asset: with none it only measures, for a group.
    """

    def __init__(self, inner: Measure, inquiry: "Inquiry", spans: Sequence[Span] = ()) -> None:
        self.inner = inner
        self.name = inner.name
        self.channels = inner.channels
        self.closing = inner.closing
        self._inquiry = inquiry
        self._spans = spans
        self._nothing = inner.zero()

    def of(self, birth: Birth) -> "Witness | Deaf":
        """The same for one asset; of one that nobody asked for nothing is measured."""
        spans = self._inquiry.wanted_of(birth)
        if spans is None:
            return Deaf(self.inner)
        return Witness(tailored(self.inner, birth), self._inquiry, spans)

    def zero(self) -> Held:
        return Held(self._nothing)

    def fold(self, columns: Columns) -> Held:
        state = self.inner.fold(columns)
        if not self._spans:
            return Held(state)
        start_ns, end_ns = columns.start_ns, columns.end_ns
        wanted = any(s.start_ns < end_ns and start_ns < s.end_ns for s in self._spans)
        sources = tuple(_sources(self.inner, columns).items())
        return Held(state, None, sources, (), (columns,) if wanted else ())

    def merge(self, a: Held, b: Held) -> Held:
        state = self.inner.merge(a.state, b.state)
        if not self._spans:
            return Held(state)
        sources = a.sources
        if b.sources:
            sources = tuple(_later(dict(a.sources), b.sources).items())
        return Held(state, a.carry, sources, a.before, a.panes + b.panes)

    def edge(self, state: Held, t_ns: int) -> Held:
        inner = self.inner.edge(state.state, t_ns)
        if not self._spans:
            return Held(inner)
        carries = inner != self.inner.edge(self._nothing, t_ns)
        sources = state.sources if carries else ()
        return Held(inner, inner, sources, sources)

    def facts(self, state: Held) -> Facts:
        facts = self.inner.facts(state.state)
        if not state.panes:
            return facts
        return {**facts, _mark(self.name): self._inquiry.keep(Part(self.inner, state))}


class Deaf:
    """In the place of a measure, of an asset that nobody asked for; its rows mean nothing."""

    def __init__(self, inner: Measure) -> None:
        self.name = inner.name
        self.channels = inner.channels
        self.closing = inner.closing

    def zero(self) -> None:
        return None

    def fold(self, columns: Columns) -> None:
        del columns

    def merge(self, a: None, b: None) -> None:
        del a, b

    def edge(self, state: None, t_ns: int) -> None:
        del state, t_ns

    def facts(self, state: None) -> Facts:
        del state
        return {}


def _sources(measure: Measure, columns: Columns) -> dict[str, Source]:
    """Who told what is known of each channel at the end, of those that were told at all."""
    counters: Mapping[str, int | None] = {}
    if isinstance(measure, Situations | Flows):
        counters = measure.moduli
    found: dict[str, Source] = {}
    for batch in columns.batches:
        meta = batch.meta
        for channel in measure.channels:
            if channel not in batch.channels:
                continue
            closes = measure.closing and channel in counters  # at the end: of this, not the next
            low, high = batch.t_ns.searchsorted(
                (columns.start_ns, columns.end_ns), "right" if closes else "left"
            )
            values = columns.read(batch, channel)[low:high]
            known = np.flatnonzero(~np.isnan(values))
            if not len(known):
                continue
            numbered = channel in counters and meta.resolution == "seq"
            rolls = counters.get(channel) is not None
            at = known[np.argmax(values[known])] if numbered and not rolls else known[-1]
            told = Source(
                meta.identity.boot if numbered else 0, int(batch.t_ns[low + at]),
                float(values[at]), meta.identity, meta.arrival_ns, rolls,
            )  # fmt: skip
            _later(found, ((channel, told),))
    return found


def _later(known: dict[str, Source], then: Iterable[tuple[str, Source]]) -> dict[str, Source]:
    """What is known once more was told; changes ``known``."""
    for channel, source in then:
        before = known.get(channel)
        if before is None or before.yields_to(source):
            known[channel] = source
    return known


def _mark(name: str) -> str:
    """The name of the fact that says where the state is kept; no channel has such a name."""
    return f"\0{name}"


# what is asked -----------------------------------------------------------------------------------


class Part(NamedTuple):
    """What one measure made of a window, and of what."""

    measure: Measure
    held: Held

    @property
    def facts(self) -> Facts:
        return self.measure.facts(self.held.state)

    @property
    def span(self) -> Span:
        """The time that was folded: less than the window where an asset came later, or the
        recording ends sooner."""
        return Span(self.held.panes[0].start_ns, self.held.panes[-1].end_ns)


class Member(NamedTuple):
    """One asset of a group, and what it has to add."""

    row: Row
    facts: Facts


@dataclass(frozen=True, slots=True)
class Evidence:
    """A row, computed again, and what it was computed from."""

    row: Row
    kpi: Kpi
    facts: Facts
    parts: tuple[Part, ...]
    """By measure; of a group there are none, its members have them."""
    members: tuple[Member, ...]
    """Of a group: the assets whose facts were added up."""
    birth: Birth | None
    by_order: bool


@dataclass(slots=True)
class Inquiry:
    """KPIs for an engine, and what is found out about the wanted rows as it emits them.

    Give ``kpis`` to an ``Engine`` with the policy of the recording, feed it everything, and pass
    all the rows it gives to ``note``.
    """

    plain: Sequence[Kpi]
    places: Collection[Place]
    by_order: Collection[Span] = ()
    """Windows of orders among them: these begin and end at a turn."""
    kpis: tuple[Kpi, ...] = ()
    births: dict[Asset, Birth] = field(default_factory=dict[Asset, Birth])
    _parts: list[Part] = field(default_factory=list[Part])
    _filed: list[Facts] = field(default_factory=list[Facts])
    _found: dict[Place, tuple[Row, Facts]] = field(default_factory=dict[Place, tuple[Row, Facts]])
    _spans: dict[Asset, list[Span]] = field(default_factory=dict[Asset, list[Span]])
    _near: set[tuple[str, Span]] = field(default_factory=set[tuple[str, Span]])
    """KPI and window of the wanted: the rows of other assets there may be members' rows."""

    def __post_init__(self) -> None:
        witnesses: dict[str, Witness] = {}
        for place in self.places:
            self._near.add((place.kpi, place.span))
            if place.asset.name != ALL:
                self._spans.setdefault(place.asset, []).append(place.span)

        def watched(kpi: Kpi) -> Kpi:
            measures = tuple(witnesses.setdefault(m.name, Witness(m, self)) for m in kpi.measures)
            return replace(kpi, measures=measures, value=self._file)

        self.kpis = tuple(map(watched, self.plain))

    def wanted_of(self, birth: Birth) -> list[Span] | None:
        """Windows of an asset that are wanted; none where only a group is that it belongs to,
        ``None`` where not even that."""
        asset = birth.asset
        self.births[asset] = birth
        if asset not in self._spans and not any(
            place.asset.name == ALL and _within(asset, place.asset) for place in self.places
        ):
            return None
        return self._spans.get(asset, [])

    def keep(self, part: Part) -> int:
        """Keep a state; where it can be found again."""
        self._parts.append(part)
        return len(self._parts) - 1

    def _file(self, facts: Facts) -> float:
        self._filed.append(facts)
        return float(len(self._filed) - 1)

    def note(self, rows: Iterable[Row]) -> None:
        """Take the rows an engine just gave; the last one of each key counts."""
        for row in rows:
            place = place_of(row)
            if (place.kpi, place.span) not in self._near:
                continue
            if row.gone:
                self._found.pop(place, None)
            elif row.value is not None:
                self._found[place] = (row, self._filed[int(row.value)])
        self._filed.clear()

    def evidence(self, place: Place) -> Evidence | None:
        """What is known of a wanted row; ``None``: the recording gives no such row."""
        found = self._found.get(place)
        if found is None:
            return None
        kpi = next(kpi for kpi in self.plain if kpi.name == place.kpi)
        row, filed = found
        facts = _unmarked(filed)
        row = row._replace(value=kpi.value(facts))
        if place.asset.name == ALL:
            members = tuple(self._members(place, kpi))
            return Evidence(row, kpi, facts, (), members, None, by_order=False)
        marks = (filed.get(_mark(m.name)) for m in kpi.measures)
        parts = tuple(self._parts[mark] for mark in marks if isinstance(mark, int))
        by_order = place.span in self.by_order
        return Evidence(row, kpi, facts, parts, (), self.births.get(place.asset), by_order)

    def _members(self, place: Place, kpi: Kpi) -> Iterator[Member]:
        for (asset, name, span), (row, filed) in sorted(self._found.items()):
            if (name, span) != place[1:] or asset.name == ALL or not _within(asset, place.asset):
                continue
            if kpi.pools(self.births[asset].kind):
                facts = _unmarked(filed)
                yield Member(row._replace(value=kpi.value(facts)), facts)


def _within(asset: Asset, group: Asset) -> bool:
    """Whether a group, by its levels, holds an asset."""
    return all(level in (ALL, own) for own, level in zip(asset, group, strict=True))


def _unmarked(facts: Facts) -> dict[str, Fact]:
    return {name: fact for name, fact in facts.items() if not name.startswith("\0")}


# time line ---------------------------------------------------------------------------------------


class Stretch(NamedTuple):
    """A part of a window in one situation, and what it adds to the facts of the window."""

    span: Span
    situation: Mapping[str, float | None]
    """By channel what was known; ``None``: no evidence."""
    facts: Facts

    @property
    def elements(self) -> list[str]:
        """Facts that count the whole of this time, as it is."""
        spent_ns = self.span.length_ns
        return [n for n, f in self.facts.items() if n.endswith("_ns") and f == spent_ns]


def time_lines(evidence: Evidence) -> dict[str, list[Stretch]]:
    """By measure, of those that tell situations apart, how the window went by."""
    turns = evidence.row.window_start_ns, place_of(evidence.row).span.end_ns
    return {
        part.measure.name: _time_line(part.measure, part.held, turns if evidence.by_order else ())
        for part in evidence.parts
        if isinstance(part.measure, Situations) and part.measure.components
    }


def _time_line(measure: Situations, held: Held, turns: Collection[int]) -> list[Stretch]:
    line: list[Stretch] = []
    known = whole = held.carry
    for span, piece in _pieces(measure, held, turns):
        state = measure.merge(known, piece)
        (situation,) = {*state.time, *(segment.situation for segment in state.head)}
        read = _read(measure, situation)
        begin_ns = span.start_ns
        if line and line[-1].situation == read:
            begin_ns = line.pop().span.start_ns
            whole = measure.merge(whole, piece)
        else:
            whole = state
        line.append(Stretch(Span(begin_ns, span.end_ns), read, measure.facts(whole)))
        known = measure.edge(state, span.end_ns)
    return line


def _pieces(
    measure: Situations, held: Held, turns: Collection[int]
) -> Iterator[tuple[Span, Spent]]:
    """The window in pieces of one situation each. A counter's reading precedes a change at the
    same instant, so it is of the piece before, also where a pane ends."""
    known: Spent = held.carry
    panes = held.panes
    edges = {*turns, *(pane.start_ns for pane in panes[1:] if _told_at_its_start(measure, pane))}
    for place, pane in enumerate(panes, 1):
        batches = pane.batches
        if pane.end_ns in edges and place < len(panes):
            own = {batch.meta.identity for batch in batches}
            batches = [*batches, *(b for b in panes[place].batches if b.meta.identity not in own)]
        cuts = _cuts(measure, pane, known)
        edges.update(cuts)
        for start_ns, end_ns in itertools.pairwise((pane.start_ns, *cuts, pane.end_ns)):
            outer = (start_ns in edges, end_ns in edges)
            piece = measure.fold(Columns(batches, start_ns, end_ns, outer, pane.sentinels))
            yield Span(start_ns, end_ns), piece
            known = measure.edge(measure.merge(known, piece), end_ns)


def _told_at_its_start(measure: Situations, pane: Columns) -> bool:
    times = (pane.channel(component.channel)[0] for component in measure.components)
    return any(len(told) and told[0] == pane.start_ns for told in times)


def _cuts(measure: Situations, pane: Columns, known: Spent) -> list[int]:
    """Instants within a pane at which a component may become something else."""
    cuts: set[int] = set()
    known_last = known.last or (None,) * len(measure.components)
    for component, last in zip(measure.components, known_last, strict=True):
        times, values = pane.channel(component.channel)
        there = ~np.isnan(values)
        fixed = np.rint(values[there] * component.scale).astype(np.int64)
        readings = [*([last] if last is not None else ()),
                    *zip(fixed.tolist(), times[there].tolist(), strict=True)]  # fmt: skip
        if last is None and readings:
            cuts.add(readings[0][1])
        hold_ns = component.hold_ns
        for place, (value, t_ns) in enumerate(readings, 1):
            following = readings[place] if place < len(readings) else None
            until_ns = following[1] if following is not None else pane.end_ns
            lapses = hold_ns is not None and until_ns - t_ns > hold_ns
            if hold_ns is not None and lapses:
                cuts.add(t_ns + hold_ns)
            if following is not None and (lapses or following[0] != value):
                cuts.add(until_ns)
    return sorted(cut for cut in cuts if pane.start_ns < cut < pane.end_ns)


def _read(measure: Situations, situation: Situation) -> dict[str, float | None]:
    return {
        component.channel: None if value is None or value == CARRIED else value / component.scale
        for component, value in zip(measure.components, situation, strict=True)
    }


# messages ----------------------------------------------------------------------------------------


class Said(NamedTuple):
    """A message that told a KPI's measures something, and what."""

    identity: Identity
    arrival_ns: int
    sent_ns: int | None
    first_ns: int
    """When its first sample in the window was; without any, when it was sent, or the end of the
    window, whose last interval it closed. Of what was known before, when that was read."""
    before: bool
    """Whether it told what was known when the window began."""
    late: bool
    n: int
    """Its samples in the window."""
    told: Mapping[str, tuple[float, float]]
    """First and last reading by channel, of those that the measures read."""


def messages(evidence: Evidence, late: Callable[[int, int], bool]) -> list[Said]:
    """Every message that went into the value, in order of time: those that told what was known
    when the window began, and those that tell a measure anything when it hears nothing else.

    Without all the others the facts are the same. ``late`` is the policy's.
    """
    before: dict[Identity, Said] = {}
    within: dict[Identity, tuple[Columns, set[str]]] = {}
    span = place_of(evidence.row).span
    turns = span if evidence.by_order else ()
    if evidence.parts:  # what was folded of it
        span = evidence.parts[0].span
    for part in evidence.parts:
        for channel, source in part.held.before:
            identity, arrival_ns, t_ns = source.identity, source.arrival_ns, source.t_ns
            known = before.get(identity)
            reading = (source.value, source.value)
            told = {**(known.told if known is not None else {}), channel: reading}
            is_late = late(t_ns, arrival_ns)
            before[identity] = Said(identity, arrival_ns, None, t_ns, True, is_late, 0, told)
        for columns in _speaking(part, turns):
            (batch,) = columns.batches
            _, channels = within.setdefault(batch.meta.identity, (columns, set()))
            channels.update(part.measure.channels)
    said = [_said(columns, channels, span, late) for columns, channels in within.values()]
    found = [*(s for s in before.values() if s.identity not in within), *said]
    return sorted(found, key=lambda s: (s.first_ns, s.identity))


def _speaking(part: Part, turns: Collection[int]) -> Iterator[Columns]:
    """Messages, each by itself, that tell a measure something when it hears nothing else."""
    measure = part.measure
    for pane in part.held.panes:
        span = (pane.start_ns, pane.end_ns)
        edges = (span[0] in turns, span[1] in turns)
        silence = measure.fold(Columns([], *span, edges))
        for batch in pane.batches:
            alone = Columns([batch], *span, edges, pane.sentinels)
            if measure.fold(alone) != silence:
                yield alone


def _said(
    columns: Columns, channels: Collection[str], span: Span, late: Callable[[int, int], bool]
) -> Said:
    (batch,) = columns.batches
    meta = batch.meta
    low, high = batch.t_ns.searchsorted(span)
    closing = min(int(high), len(batch) - 1)  # at the very end of the window: of a flow counter
    reach = slice(int(low), max(int(high), closing + int(batch.t_ns[closing] == span.end_ns)))
    told: dict[str, tuple[float, float]] = {}
    for channel in sorted(channels & batch.channels.keys()):
        values = columns.read(batch, channel)[reach]
        known = values[~np.isnan(values)]
        if len(known):
            told[channel] = (float(known[0]), float(known[-1]))
    n, sent_ns = int(high - low), meta.sent_ns
    if n:
        first_ns = int(batch.t_ns[low])
    elif sent_ns is not None and span.start_ns <= sent_ns < span.end_ns:
        first_ns = sent_ns
    else:
        first_ns = span.end_ns
    is_late = late(first_ns, meta.arrival_ns)
    return Said(meta.identity, meta.arrival_ns, sent_ns, first_ns, False, is_late, n, told)


# facts as quantities -----------------------------------------------------------------------------


class Quantity(NamedTuple):
    """A fact in a unit people use; ``s`` for times."""

    label: str
    value: Fraction
    unit: str


class Spectrum(NamedTuple):
    """A histogram as its ends and its middle, in a unit people use."""

    label: str
    n: int
    least: float | None
    middle: float | None
    most: float | None
    unit: str


_SCALES: dict[str, tuple[Fraction, str]] = {
    "ns": (Fraction(1, NS_PER_S), "s"),
    "us": (Fraction(1, 1_000_000), "s"),
    "ms": (Fraction(1, 1_000), "s"),
    "s": (Fraction(1), "s"),
    "milli": (Fraction(1, 1_000), ""),
    "micro": (Fraction(1, 1_000_000), ""),
    "nano": (Fraction(1, 1_000_000_000), ""),
    "pkg": (Fraction(1, MICRO * MICRO), "kg"),
    "piece": (Fraction(1), "{piece}"),
    "cny": (Fraction(1), "{CNY}"),
}
"""What the last words of a fact's name say about its integer."""


def described(evidence: Evidence, facts: Facts | None = None) -> list[Quantity | Spectrum]:
    """The facts of a row (or of one of its members) in units people use, histograms last."""
    measures = {m.name: m for m in evidence.kpi.measures}
    measures |= {part.measure.name: part.measure for part in evidence.parts}
    units = evidence.birth.channels if evidence.birth is not None else dict[str, str]()
    told = [
        _described(_owner(name, measures.values()), units, name, fact)
        for name, fact in (evidence.facts if facts is None else facts).items()
    ]
    return sorted(told, key=lambda quantity: isinstance(quantity, Spectrum))


def _owner(name: str, measures: Iterable[Measure]) -> Measure | None:
    """The measure whose facts bear its name; ``None``: named by a function of its own."""
    named = [m for m in measures if not isinstance(m, Situations) and name.startswith(m.name)]
    delays = [m for m in measures if isinstance(m, Delays)]
    return max(named, key=lambda m: len(m.name), default=next(iter(delays), None))


def _described(
    measure: Measure | None, units: Mapping[str, str], name: str, fact: Fact
) -> Quantity | Spectrum:
    if not isinstance(fact, int):
        return _spectrum(measure, units, name, fact)
    match measure:
        case Flows():
            return Quantity(name, Fraction(fact, MICRO), units.get(name, ""))
        case Spreads():
            unit, what = units.get(measure.channels[0], ""), name.removeprefix(measure.name)
            power = {"_n": 0, "_pairs": 0, "_squares": 2, "_pair_squares": 2}.get(what, 1)
            scaled = Fraction(fact, measure.steps_per_unit**power)
            return Quantity(name, scaled, f"{unit}2" if power == 2 else unit if power else "")
        case _:
            return _by_name(name, fact)


def _by_name(name: str, fact: int) -> Quantity:
    words, value, units = name.split("_"), Fraction(fact), list[str]()
    while len(words) > 1 and words[-1] in _SCALES:
        scale, unit = _SCALES[words.pop()]
        value *= scale
        if unit:
            units.insert(0, unit)
    return Quantity("_".join(words), value, ".".join(units))


def _spectrum(
    measure: Measure | None, units: Mapping[str, str], name: str, fact: Mapping[int, int]
) -> Spectrum:
    steps, unit = 1, ""
    match measure:
        case Delays():
            unit = "ms"
        case Values():
            steps, unit = measure.steps_per_unit, units.get(measure.name, "")
        case CounterRuns() if not name.endswith("_values"):
            steps, unit = 1_000, "s"
        case _:
            pass

    def read(key: int | None) -> float | None:
        if key is None:
            return None
        return delay_of(key) / NS_PER_MS if isinstance(measure, Delays) else key / steps

    least, most = read(min(fact, default=None)), read(max(fact, default=None))
    label, n = name.removesuffix("_bins"), sum(fact.values())
    return Spectrum(label, n, least, read(quantile(fact, 0.5)), most, unit)


# formula with the numbers put in -----------------------------------------------------------------


def symbols(evidence: Evidence, known: Mapping[str, Kpi]) -> dict[str, Quantity]:
    """What the words of the KPI's formula stand for: its terms, facts, and KPIs of the same facts.
    ``known`` are all KPIs."""
    kpi, facts = evidence.kpi, evidence.facts
    found: dict[str, Quantity] = {}
    for quantity in described(evidence):
        if isinstance(quantity, Quantity):
            found[quantity.label] = quantity
            stem, _, unit = quantity.label.rpartition("_")
            if stem and unit in ("m", "kwh"):  # a channel's name ends with its unit
                found.setdefault(stem, quantity)
    measures = {m.name for m in kpi.measures}
    for other in known.values():
        if other.name != kpi.name and {m.name for m in other.measures} <= measures:
            result = other.value(facts)
            if result is not None:
                found[other.name] = Quantity(other.name, Fraction(result), other.unit)
    for symbol, term in kpi.terms.items() if facts else ():
        if (value := term.amount(facts)) is not None:
            found[symbol] = Quantity(symbol, value, term.unit)
    return found
