"""Time and counts by situation: which state a unit was in, planned or not, with which order.

Theory of operation
===================

Each *component* is a step function of time: it holds its last reading until the next one, at most
``hold_ns`` long (a machine that fell silent is in no known state, unless it announced that it tells
by exception). The *situation* is the tuple of all components. Time is added up per situation, and
each rise of a counter is counted in the situation just before it, the reading of a counter
preceding a change at the same instant; what rises is said in ``edge.measures.counters``.

        pane 1                 pane 2
    ?---?-A--A----A--|--A----B----B------|        ? = carried in: what the pane before knew last
    head | body      |head| body

The head of a pane, before a component was first heard of, stays a list of segments whose missing
parts are filled in by the stretch before it: that makes ``merge`` associative.

One component may be *watched*: how often it went from outside a set of values into it is counted
like a rise of one more counter, in the situation just before, where the component is what it was
read to be last, however long ago: neither silence nor telling the same again makes an entry.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Self

import numpy as np

from config.units import NS_PER_S
from edge.columns import Columns
from edge.measures import Fact
from edge.measures.counters import Counts, Rise, carried, filled, gather, join, modulus_of, risen
from ingest.messages import Birth

CARRIED: Final = -(1 << 62)
"""In a situation: whatever was known before."""

Value = int | None
"""A component's reading; ``None`` is "no evidence"."""
Situation = tuple[Value, ...]
Change = tuple[int, int, int, Value, int]
"""Time, 0 of a counter or 1 of a component, which one, its reading, and the sender's start."""


Times = Iterator[tuple[Situation, int]]
"""Time spent per situation; one may come more than once."""
Rises = Iterator[tuple[int, Situation, int]]
"""Which counter (entries of the watched component: the number of counters), in which situation,
how many."""


class Component(NamedTuple):
    """One step function: its channel, how long a reading holds, and its fixed-point scale."""

    channel: str
    hold_ns: int | None = None
    scale: int = 1
    planned: bool = False
    """Told by whoever plans, and so perhaps of a machine that does not announce it."""


class Watch(NamedTuple):
    """A component, and the readings that it enters."""

    channel: str
    inside: frozenset[int]


class Segment(NamedTuple):
    """A stretch in one situation, some of it carried in."""

    start_ns: int
    end_ns: int
    situation: Situation


class Spent(NamedTuple):
    """Time and counts of a stretch; ``span`` is ``None`` for no time at all."""

    span: tuple[int, int] | None = None
    head: tuple[Segment, ...] = ()
    time: dict[Situation, int] = {}  # noqa: RUF012 - never changed in place
    last: tuple[tuple[int, int] | None, ...] = ()
    """Per component the last reading and its time."""
    counts: tuple[Counts, ...] = ()
    """Per counter its rises by situation."""
    entries: dict[Situation, int] = {}  # noqa: RUF012 - never changed in place
    """Of the watched component, by the situation before."""


class Situations:
    """Adds up time and counts per situation; ``describe`` turns them into facts.

    Counters count in steps of ``1 / scale``. With ``closing`` a reading of a counter at ``t``
    closes the interval that ends at ``t``, as of flow counters; components always hold from ``t``.
    ``moduli`` says of each counter, in the same steps, where it begins again at 0.
    """

    def __init__(
        self,
        name: str,
        components: tuple[Component, ...],
        counters: tuple[str, ...],
        describe: Callable[[Times, Rises], dict[str, Fact]],
        *,
        watch: Watch | None = None,
        scale: int = 1,
        closing: bool = False,
        moduli: tuple[int | None, ...] = (),
    ) -> None:
        self.name = name
        self.components = components
        self.counters = counters
        self.channels = (*(c.channel for c in components), *counters)
        self.watch = watch
        self.scale = scale
        self.closing = closing
        self._moduli = moduli or (None,) * len(counters)
        self.moduli = dict(zip(counters, self._moduli, strict=True))
        self._describe = describe
        self._unknown: Situation = (CARRIED,) * len(components)
        watched = [i for i, c in enumerate(components) if watch and c.channel == watch.channel]
        self._watched = watched[0] if watched else None
        self._inside: frozenset[Value] = frozenset(watch.inside if watch else ())

    def of(self, birth: Birth) -> Self:
        """The same for an asset that announced only some channels: the others cost nothing there,
        and are no evidence in its situations. What it tells by exception holds until the next, and
        a counter that has a modulus begins again at 0 there."""
        moduli = tuple(modulus_of(birth, name, self.scale) for name in self.counters)
        hasty = birth.by_exception and any(c.hold_ns is not None for c in self.components)
        if hasty or moduli != self._moduli:
            lasting = tuple(component._replace(hold_ns=None) for component in self.components)
            same = type(self)(
                self.name, lasting if hasty else self.components, self.counters, self._describe,
                watch=self.watch, scale=self.scale, closing=self.closing, moduli=moduli,
            )  # fmt: skip
            return same.of(birth)
        said = birth.channels
        kept = [i for i, c in enumerate(self.components) if c.planned or c.channel in said]
        counted = [i for i, name in enumerate(self.counters) if name in said]
        if len(kept) == len(self.components) and len(counted) == len(self.counters):
            return self
        places = [kept.index(i) if i in kept else None for i in range(len(self.components))]
        which = [*counted, len(self.counters)]

        def whole(situation: Situation) -> Situation:
            return tuple(None if place is None else situation[place] for place in places)

        def describe(times: Times, rises: Rises) -> dict[str, Fact]:
            return self._describe(
                ((whole(situation), spent) for situation, spent in times),
                ((which[i], whole(situation), count) for i, situation, count in rises),
            )

        return type(self)(
            self.name, tuple(self.components[i] for i in kept),
            tuple(self.counters[i] for i in counted), describe,
            watch=self.watch, scale=self.scale, closing=self.closing,
            moduli=tuple(moduli[i] for i in counted),
        )  # fmt: skip

    def zero(self) -> Spent:
        return Spent()

    def fold(self, columns: Columns) -> Spent:
        changes: list[Change] = []
        last: list[tuple[int, int] | None] = []
        for which, component in enumerate(self.components):
            last.append(_readings(columns, component, which, changes))
        for which, channel in enumerate(self.counters):
            self._counted(columns, channel, which, changes)
        changes.sort(key=lambda change: change[:3])
        return self._sweep(columns, changes, tuple(last))

    def _counted(self, columns: Columns, channel: str, which: int, changes: list[Change]) -> None:
        """Add a counter's first reading and every one that differs from the one before."""
        times, values, starts = columns.counter(channel, closing=self.closing)
        if not len(times):
            return
        fixed = np.rint(values * self.scale).astype(np.int64)
        keep = np.empty(len(times), dtype=np.bool_)
        keep[0] = True
        np.logical_or(fixed[1:] != fixed[:-1], starts[1:] != starts[:-1], out=keep[1:])
        told = zip(times[keep].tolist(), fixed[keep].tolist(), starts[keep].tolist(), strict=True)
        changes.extend((t_ns, 0, which, to, start) for t_ns, to, start in told)

    def _sweep(
        self,
        columns: Columns,
        changes: list[Change],
        last: tuple[tuple[int, int] | None, ...],
    ) -> Spent:
        segments: list[Segment] = []
        readings: list[list[tuple[int, Rise]]] = [[] for _ in self.counters]
        entries: dict[Situation, int] = {}
        situation, since_ns = self._unknown, columns.start_ns
        watched, last_read = self._watched, CARRIED
        for t_ns, is_component, which, to, start in changes:
            if is_component:
                if t_ns > since_ns:
                    segments.append(Segment(since_ns, t_ns, situation))
                    since_ns = t_ns
                if which == watched and to is not None:
                    if to in self._inside and last_read not in self._inside:
                        before = _replaced(situation, which, last_read)
                        entries[before] = entries.get(before, 0) + 1
                    last_read = to
                situation = _replaced(situation, which, to)
                continue
            assert to is not None
            open_ns = t_ns if CARRIED in situation else None
            readings[which].append((start, Rise(to, 0, situation, open_ns)))
        if columns.end_ns > since_ns:
            segments.append(Segment(since_ns, columns.end_ns, situation))
        head, time = _settle((), {}, segments)
        counts = tuple(map(gather, readings, self._moduli))
        return Spent((columns.start_ns, columns.end_ns), head, time, last, counts, entries)

    def merge(self, a: Spent, b: Spent) -> Spent:
        if a.span is None:
            return b
        if b.span is None:
            return a
        if a.span[1] != b.span[0]:
            raise ValueError(f"not neighbours: {a.span} and {b.span}")
        head, time = _settle(
            a.head, a.time, (piece for seg in b.head for piece in self._fill(seg, a.last))
        )
        for situation, spent in b.time.items():
            time[situation] = time.get(situation, 0) + spent
        return Spent(
            (a.span[0], b.span[1]),
            head,
            time,
            tuple(mine if new is None else new for mine, new in zip(a.last, b.last, strict=True)),
            tuple(
                join(mine, filled(new, lambda rise: self._fill_rise(rise, a.last)), modulus)
                for mine, new, modulus in zip(a.counts, b.counts, self._moduli, strict=True)
            ),
            self._entered(a, b) if b.entries else a.entries,
        )

    def edge(self, state: Spent, t_ns: int) -> Spent:
        last = state.last or (None,) * len(self.components)
        counts = state.counts or ((),) * len(self.counters)
        return Spent((t_ns, t_ns), (), {}, last, tuple(map(carried, counts)))

    def settle(self, known: Spent, state: Spent) -> Spent:
        merged = self.merge(known, state)
        head = (seg._replace(situation=_nothing_carried(seg.situation)) for seg in merged.head)
        _, time = _settle((), merged.time, head)
        entries: dict[Situation, int] = {}
        for found, count in merged.entries.items():
            situation = _nothing_carried(found)
            entries[situation] = entries.get(situation, 0) + count
        counts = tuple(filled(found, _settled) for found in merged.counts)
        return Spent(state.span, (), time, merged.last, counts, entries)

    def facts(self, state: Spent) -> dict[str, Fact]:
        def times() -> Iterator[tuple[Situation, int]]:
            yield from state.time.items()
            for start_ns, end_ns, situation in state.head:
                yield _nothing_carried(situation), end_ns - start_ns

        def counts() -> Iterator[tuple[int, Situation, int]]:
            for counter, found in enumerate(state.counts):
                for situation, count in risen(found, self._moduli[counter]):
                    yield counter, _nothing_carried(situation), count
            for situation, count in state.entries.items():
                yield len(self.counters), _nothing_carried(situation), count

        return self._describe(times(), counts())

    def _entered(self, a: Spent, b: Spent) -> dict[Situation, int]:
        """Entries of both; what seemed one at the start of ``b`` is none if it was inside."""
        watched = self._watched
        assert watched is not None
        total = dict(a.entries)
        for situation, count in b.entries.items():
            before = tuple(
                known[0] if value == CARRIED and known is not None else value
                for value, known in zip(situation, a.last, strict=True)
            )
            if before[watched] not in self._inside:
                total[before] = total.get(before, 0) + count
        return total

    def _fill(
        self, segment: Segment, last: tuple[tuple[int, int] | None, ...]
    ) -> Iterator[Segment]:
        """Fill in what was known before; cut where a reading ceases to hold."""
        start_ns, end_ns, situation = segment
        cuts = {start_ns, end_ns}
        for value, known, component in zip(situation, last, self.components, strict=True):
            if value == CARRIED and known is not None and component.hold_ns is not None:
                cuts.add(min(max(known[1] + component.hold_ns, start_ns), end_ns))
        marks = sorted(cuts)
        for start, end in itertools.pairwise(marks):
            yield Segment(start, end, self._known_at(start, situation, last))

    def _fill_rise(self, rise: Rise, last: tuple[tuple[int, int] | None, ...]) -> Rise:
        assert rise.t_ns is not None
        # A counter's step belongs to the situation just before it.
        situation = self._known_at(rise.t_ns - 1, rise.situation, last)
        open_ns = rise.t_ns if CARRIED in situation else None
        return rise._replace(situation=situation, t_ns=open_ns)

    def _known_at(
        self, t_ns: int, situation: Situation, last: tuple[tuple[int, int] | None, ...]
    ) -> Situation:
        if CARRIED not in situation:
            return situation
        filled: list[Value] = []
        for value, known, component in zip(situation, last, self.components, strict=True):
            if value != CARRIED or known is None:
                filled.append(value)
            elif component.hold_ns is not None and t_ns >= known[1] + component.hold_ns:
                filled.append(None)
            else:
                filled.append(known[0])
        return tuple(filled)


def _readings(
    columns: Columns,
    component: Component,
    which: int,
    changes: list[Change],
) -> tuple[int, int] | None:
    """Add the changes of a component, and the ends of its readings; the last one is returned."""
    times, values = columns.channel(component.channel)
    known = ~np.isnan(values)
    if not known.all():
        times, values = times[known], values[known]
    if not len(times):
        return None
    fixed = np.rint(values * component.scale).astype(np.int64)
    hold_ns = component.hold_ns
    keep = np.empty(len(times), dtype=np.bool_)
    keep[0] = True
    np.not_equal(fixed[1:], fixed[:-1], out=keep[1:])
    if hold_ns is not None:
        ends = np.append(times[1:], columns.end_ns)
        lapsed = np.nonzero(ends - times > hold_ns)[0]
        changes.extend((int(times[i]) + hold_ns, 1, which, None, 0) for i in lapsed)
        keep[lapsed[lapsed < len(times) - 1] + 1] = True
    changes.extend(
        (int(t), 1, which, int(v), 0) for t, v in zip(times[keep], fixed[keep], strict=True)
    )
    return int(fixed[-1]), int(times[-1])


def _settle(
    head: tuple[Segment, ...],
    time: dict[Situation, int],
    segments: Iterator[Segment] | list[Segment],
) -> tuple[tuple[Segment, ...], dict[Situation, int]]:
    """Add segments: those fully known to ``time``, the others to the head, neighbours joined."""
    open_, total = list(head), dict(time)
    for segment in segments:
        if CARRIED not in segment.situation:
            spent = segment.end_ns - segment.start_ns
            total[segment.situation] = total.get(segment.situation, 0) + spent
        elif (
            open_
            and open_[-1].end_ns == segment.start_ns
            and open_[-1].situation == segment.situation
        ):
            open_[-1] = open_[-1]._replace(end_ns=segment.end_ns)
        else:
            open_.append(segment)
    return tuple(open_), total


def _replaced(situation: Situation, which: int, to: Value) -> Situation:
    return (*situation[:which], to, *situation[which + 1 :])


def _settled(rise: Rise) -> Rise:
    return Rise(rise.to, rise.by, _nothing_carried(rise.situation))


def _nothing_carried(situation: Situation) -> Situation:
    return tuple(None if value == CARRIED else value for value in situation)


STATE_HOLD_NS = 60 * NS_PER_S
"""How long a machine's state is believed without hearing from it."""
