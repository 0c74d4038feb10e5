"""How far a counter rose, and in which situations, though clocks step and machines start anew.

A sender that numbers its messages has a *start* (its boot), within which its counters only grow. A
reading below one that is known was then stamped by a clock that had stepped, and what was counted
once is not counted again:

    stamped at   57  58  59  60  61  62  63  64      a clock 3 s ahead up to its reading of 60,
    reading      54  55  56  57  58  59  60          whose stamp is 63,
                             60  61  62  63  64      and the same clock once it is put right
    counted      +1  +1  +1  +4  +1  +1  +1  +1

A reading of an older start, stamped after one of a newer, counts nothing. Senders without numbers
have start 0, where every fall is a reset. A counter that was reset counts from zero.

Rises that follow one another in one situation are one rise: a stretch is as long as the situation
changed often, and ``join`` is exact and associative.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple


class Rise(NamedTuple):
    """A counter rose ``by`` up to ``to``. ``t_ns`` is told where the situation is not yet known in
    full: such a rise stands alone."""

    to: int
    by: int = 0
    situation: Any = None
    t_ns: int | None = None


class Count(NamedTuple):
    """Readings of one start: the first one, the rises after it, and where it got to (the highest
    reading, of start 0 the last)."""

    start: int
    first: Rise
    rises: tuple[Rise, ...]
    last: int


Counts = tuple[Count, ...]
"""Readings of one counter by start, oldest start first; empty: none."""


def increase(before: int, now: int) -> int:
    """What a counter grew by; one that fell was reset and counts from zero."""
    return now - before if now >= before else now


def gather(readings: Iterable[tuple[int, Rise]]) -> Counts:
    """Readings in order of time, each with its start; ``by`` is not looked at."""
    done: list[Count] = []
    stretch: _Stretch | None = None
    for start, reading in readings:
        if stretch is None or start > stretch.start:
            if stretch is not None:
                done.append(stretch.close())
            stretch = _Stretch(start, reading._replace(by=0), [], reading.to)
        elif start == stretch.start:
            stretch.read(reading)
    return (*done, stretch.close()) if stretch is not None else ()


def join(a: Counts, b: Counts) -> Counts:
    """``a`` followed in time by ``b``."""
    if not a or not b:
        return a or b
    *done, last = a
    stretch = _Stretch(last.start, last.first, list(last.rises), last.last)
    for count in b:
        if count.start > stretch.start:
            done.append(stretch.close())
            stretch = _Stretch(count.start, count.first, list(count.rises), count.last)
        elif count.start == stretch.start:
            stretch.go_on(count)
    return (*done, stretch.close())


def carried(counts: Counts) -> Counts:
    """What a later stretch must know: the newest start, and where it got to."""
    return tuple(Count(c.start, Rise(c.last), (), c.last) for c in counts[-1:])


def filled(counts: Counts, fill: Callable[[Rise], Rise]) -> Counts:
    """The same with every rise that stands alone passed through ``fill``."""

    def known(rise: Rise) -> Rise:
        return rise if rise.t_ns is None else fill(rise)

    out: list[Count] = []
    for start, first, rises, last in counts:
        stretch = _Stretch(start, known(first), [], last)
        for rise in rises:
            stretch.add(known(rise))
        out.append(stretch.close())
    return tuple(out)


def risen(counts: Counts) -> Iterator[tuple[Any, int]]:
    """Every rise as situation and amount; a start's first reading rises on the start before."""
    before: int | None = None
    for count in counts:
        if before is not None and (by := increase(before, count.first.to)):
            yield count.first.situation, by
        for rise in count.rises:
            yield rise.situation, rise.by
        before = count.last


def total(counts: Counts) -> int:
    """All that was counted."""
    return sum(by for _, by in risen(counts))


@dataclass(slots=True)
class _Stretch:
    """A ``Count`` in the making."""

    start: int
    first: Rise
    rises: list[Rise]
    last: int

    def read(self, reading: Rise) -> None:
        if not self.start:
            self.add(reading._replace(by=increase(self.last, reading.to)))
            self.last = reading.to
        elif reading.to > self.last:
            self.add(reading._replace(by=reading.to - self.last))
            self.last = reading.to

    def go_on(self, count: Count) -> None:
        self.read(count.first)
        if self.start:
            for rise in count.rises:
                self.read(rise)
            return
        for rise in count.rises:
            self.add(rise)
        self.last = count.last

    def add(self, rise: Rise) -> None:
        if not rise.by:
            return
        before = self.rises[-1] if self.rises else None
        alone = before is None or before.t_ns is not None or rise.t_ns is not None
        if before is None or alone or before.situation != rise.situation:
            self.rises.append(rise)
        else:
            self.rises[-1] = rise._replace(by=before.by + rise.by)

    def close(self) -> Count:
        return Count(self.start, self.first, tuple(self.rises), self.last)
