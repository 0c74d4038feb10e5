"""Time and counts by situation: which state a unit was in, planned or not, with which order.

Theory of operation
===================

Each *component* is a step function of time: it holds its last reading until the next one, at most
``hold_ns`` long (a machine that fell silent is in no known state). The *situation* is the tuple of
all components. Time is added up per situation, and each increase of a counter is counted in the
situation just before it, the reading of a counter preceding a change at the same instant.

        pane 1                 pane 2
    ?---?-A--A----A--|--A----B----B------|        ? = carried in: what the pane before knew last
    head | body      |head| body

The head of a pane, before a component was first heard of, stays a list of segments whose missing
parts are filled in by the stretch before it: that makes ``merge`` associative.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np

from config.units import NS_PER_S
from edge.columns import Columns
from edge.measures import Fact

CARRIED: Final = -(1 << 62)
"""In a situation: whatever was known before."""

Value = int | None
"""A component's reading; ``None`` is "no evidence"."""
Situation = tuple[Value, ...]


class Component(NamedTuple):
    """One step function: its channel, how long a reading holds, and its fixed-point scale."""

    channel: str
    hold_ns: int | None = None
    scale: int = 1


class Segment(NamedTuple):
    """A stretch in one situation, some of it carried in."""

    start_ns: int
    end_ns: int
    situation: Situation


class Jump(NamedTuple):
    """An increase of a counter in a situation, some of it carried in."""

    t_ns: int
    counter: int
    amount: int
    situation: Situation


class Spent(NamedTuple):
    """Time and counts of a stretch; ``span`` is ``None`` for no time at all."""

    span: tuple[int, int] | None = None
    head: tuple[Segment, ...] = ()
    jumps: tuple[Jump, ...] = ()
    time: dict[Situation, int] = {}  # noqa: RUF012 - never changed in place
    counts: dict[tuple[int, Situation], int] = {}  # noqa: RUF012
    last: tuple[tuple[int, int] | None, ...] = ()
    """Per component the last reading and its time."""
    first_readings: tuple[Jump | None, ...] = ()
    """Per counter its first reading (as ``amount``), unless something is known before it."""
    last_readings: tuple[int | None, ...] = ()


class Situations:
    """Adds up time and counts per situation; ``describe`` turns them into facts."""

    closing = False

    def __init__(
        self,
        name: str,
        components: tuple[Component, ...],
        counters: tuple[str, ...],
        describe: Callable[[Iterator[tuple[Situation, int]], Iterator[tuple[int, Situation, int]]],
                           dict[str, Fact]],
    ) -> None:  # fmt: skip
        self.name = name
        self.components = components
        self.counters = counters
        self.channels = (*(c.channel for c in components), *counters)
        self._describe = describe
        self._unknown: Situation = (CARRIED,) * len(components)

    def zero(self) -> Spent:
        return Spent()

    def fold(self, columns: Columns) -> Spent:
        changes: list[tuple[int, int, int, Value]] = []  # time, 0 counter | 1 component, which, to
        last: list[tuple[int, int] | None] = []
        for which, component in enumerate(self.components):
            last.append(_readings(columns, component, which, changes))
        last_readings: list[int | None] = []
        for which, channel in enumerate(self.counters):
            last_readings.append(_increases(columns, channel, which, changes))
        changes.sort(key=lambda change: change[:3])
        return self._sweep(columns, changes, tuple(last), tuple(last_readings))

    def _sweep(
        self,
        columns: Columns,
        changes: list[tuple[int, int, int, Value]],
        last: tuple[tuple[int, int] | None, ...],
        last_readings: tuple[int | None, ...],
    ) -> Spent:
        segments: list[Segment] = []
        jumps: list[Jump] = []
        first_readings: list[Jump | None] = [None] * len(self.counters)
        readings: list[int] = [0] * len(self.counters)
        situation, since_ns = self._unknown, columns.start_ns
        for t_ns, is_component, which, to in changes:
            if is_component:
                if t_ns > since_ns:
                    segments.append(Segment(since_ns, t_ns, situation))
                    since_ns = t_ns
                situation = (*situation[:which], to, *situation[which + 1 :])
                continue
            assert to is not None
            if first_readings[which] is None:
                first_readings[which] = Jump(t_ns, which, to, situation)
            else:
                jumps.append(Jump(t_ns, which, _increase(readings[which], to), situation))
            readings[which] = to
        if columns.end_ns > since_ns:
            segments.append(Segment(since_ns, columns.end_ns, situation))
        head, time = _settle((), {}, segments)
        open_jumps, counts = _count((), {}, jumps)
        return Spent(
            (columns.start_ns, columns.end_ns), head, open_jumps, time, counts, last,
            tuple(first_readings), last_readings,
        )  # fmt: skip

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
        first_readings = list(a.first_readings)
        jumps = [self._fill_jump(jump, a.last) for jump in b.jumps]
        for which, first in enumerate(b.first_readings):
            if first is None:
                continue
            filled, before = self._fill_jump(first, a.last), a.last_readings[which]
            if before is not None:
                jumps.append(filled._replace(amount=_increase(before, first.amount)))
            elif first_readings[which] is None:
                first_readings[which] = filled
        open_jumps, counts = _count(a.jumps, a.counts, jumps)
        for key, count in b.counts.items():
            counts[key] = counts.get(key, 0) + count
        return Spent(
            (a.span[0], b.span[1]),
            head,
            open_jumps,
            time,
            counts,
            tuple(mine if new is None else new for mine, new in zip(a.last, b.last, strict=True)),
            tuple(first_readings),
            tuple(
                mine if new is None else new
                for mine, new in zip(a.last_readings, b.last_readings, strict=True)
            ),
        )

    def edge(self, state: Spent, t_ns: int) -> Spent:
        empty = (None,) * len(self.counters)
        last = state.last or (None,) * len(self.components)
        return Spent((t_ns, t_ns), (), (), {}, {}, last, empty, state.last_readings or empty)

    def facts(self, state: Spent) -> dict[str, Fact]:
        def times() -> Iterator[tuple[Situation, int]]:
            yield from state.time.items()
            for start_ns, end_ns, situation in state.head:
                yield _nothing_carried(situation), end_ns - start_ns

        def counts() -> Iterator[tuple[int, Situation, int]]:
            for (counter, situation), count in state.counts.items():
                yield counter, situation, count
            for _, counter, amount, situation in state.jumps:
                yield counter, _nothing_carried(situation), amount

        return self._describe(times(), counts())

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

    def _fill_jump(self, jump: Jump, last: tuple[tuple[int, int] | None, ...]) -> Jump:
        # A counter's step belongs to the situation just before it.
        return jump._replace(situation=self._known_at(jump.t_ns - 1, jump.situation, last))

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
    changes: list[tuple[int, int, int, Value]],
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
        changes.extend((int(times[i]) + hold_ns, 1, which, None) for i in lapsed)
        keep[lapsed[lapsed < len(times) - 1] + 1] = True
    changes.extend(
        (int(t), 1, which, int(v)) for t, v in zip(times[keep], fixed[keep], strict=True)
    )
    return int(fixed[-1]), int(times[-1])


def _increases(
    columns: Columns, channel: str, which: int, changes: list[tuple[int, int, int, Value]]
) -> int | None:
    """Add a counter's first reading and every one that differs from the one before."""
    times, values = columns.channel(channel)
    known = ~np.isnan(values)
    if not known.all():
        times, values = times[known], values[known]
    if not len(times):
        return None
    fixed = np.rint(values).astype(np.int64)
    keep = np.empty(len(times), dtype=np.bool_)
    keep[0] = True
    np.not_equal(fixed[1:], fixed[:-1], out=keep[1:])
    changes.extend(
        (int(t), 0, which, int(v)) for t, v in zip(times[keep], fixed[keep], strict=True)
    )
    return int(fixed[-1])


def _increase(before: int, now: int) -> int:
    """What a counter grew by; one that fell was reset and counts from zero."""
    return now - before if now >= before else now


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


def _count(
    jumps: tuple[Jump, ...], counts: dict[tuple[int, Situation], int], new: list[Jump]
) -> tuple[tuple[Jump, ...], dict[tuple[int, Situation], int]]:
    """Add increases: those in a fully known situation to ``counts``, the others to the list."""
    open_, total = list(jumps), dict(counts)
    for jump in new:
        if CARRIED in jump.situation:
            open_.append(jump)
        elif jump.amount:
            key = (jump.counter, jump.situation)
            total[key] = total.get(key, 0) + jump.amount
    return tuple(sorted(j for j in open_ if j.amount)), total


def _nothing_carried(situation: Situation) -> Situation:
    return tuple(None if value == CARRIED else value for value in situation)


STATE_HOLD_NS = 60 * NS_PER_S
"""How long a machine's state is believed without hearing from it."""
