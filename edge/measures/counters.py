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

A *register* begins again at 0 once it reaches its ``modulus``. Of one that announced it, two
readings in a row are less than half a turn apart: a fall by more is a rollover, a smaller one an
older reading (of start 0 a reset), and a rise by more is an older reading from before a rollover.
So what it counted is exact over any number of turns, with two readings in each.

    modulus 100    reading   60  95  20  98  30      95, 20: 25 on; 20, 98: 22 back; 98, 30: 32 on,
                   counted      +35 +25      +10     of which 22 are known

Rises that follow one another in one situation are one rise: a stretch is as long as the situation
changed often, and ``join`` is exact and associative.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from ingest.messages import Birth


class Rise(NamedTuple):
    """A counter rose ``by`` up to ``to``. ``t_ns`` is told where the situation is not yet known in
    full: such a rise stands alone."""

    to: int
    by: int = 0
    situation: Any = None
    t_ns: int | None = None


class Count(NamedTuple):
    """Readings of one start: the first one, the rises after it, and the last one."""

    start: int
    first: Rise
    rises: tuple[Rise, ...]
    last: int
    behind: int = 0
    """How far the last reading is behind the furthest."""
    ahead: int = 0
    """How far ahead of the first reading the counter was known to have got before."""

    @property
    def furthest(self) -> int:
        """Where it got to; of a register that may be beyond its modulus."""
        return self.last + self.behind


Counts = tuple[Count, ...]
"""Readings of one counter by start, oldest start first; empty: none."""


def increase(before: int, now: int) -> int:
    """What a counter grew by; one that fell was reset and counts from zero."""
    return now - before if now >= before else now


def modulus_of(birth: Birth, channel: str, scale: int) -> int | None:
    """Where a register begins again at 0, in steps of ``1 / scale``, if its asset announced it."""
    modulus = round(birth.modulus.get(channel, 0.0) * scale)
    return modulus or None


def step(start: int, before: int, now: int, modulus: int | None = None) -> int:
    """How far a counter went from one reading of a start to the next; below 0: back."""
    if not start and (now >= before or modulus is None or 2 * (before - now) <= modulus):
        return increase(before, now)
    if modulus is None or 2 * abs(now - before) <= modulus:
        return now - before
    on = (now - before) % modulus
    return on if 2 * on < modulus or not start else on - modulus


def gather(readings: Iterable[tuple[int, Rise]], modulus: int | None = None) -> Counts:
    """Readings in order of time, each with its start; ``by`` is not looked at."""
    done: list[Count] = []
    stretch: _Stretch | None = None
    for start, reading in readings:
        if stretch is None or start > stretch.start:
            if stretch is not None:
                done.append(stretch.close())
            stretch = _Stretch(start, reading._replace(by=0), [], reading.to, 0, 0, modulus)
        elif start == stretch.start:
            stretch.read(reading)
    return (*done, stretch.close()) if stretch is not None else ()


def join(a: Counts, b: Counts, modulus: int | None = None) -> Counts:
    """``a`` followed in time by ``b``."""
    if not a or not b:
        return a or b
    *done, last = a
    stretch = _Stretch.of(last, modulus)
    for count in b:
        if count.start > stretch.start:
            done.append(stretch.close())
            stretch = _Stretch.of(count, modulus)
        elif count.start == stretch.start:
            stretch.go_on(count)
    return (*done, stretch.close())


def carried(counts: Counts) -> Counts:
    """What a later stretch must know: the newest start, and where it got to."""
    return tuple(Count(c.start, Rise(c.last), (), c.last, c.behind, c.behind) for c in counts[-1:])


def filled(counts: Counts, fill: Callable[[Rise], Rise]) -> Counts:
    """The same with every rise that stands alone passed through ``fill``."""

    def known(rise: Rise) -> Rise:
        return rise if rise.t_ns is None else fill(rise)

    out: list[Count] = []
    for count in counts:
        stretch = _Stretch.of(count._replace(first=known(count.first), rises=()), None)
        for rise in count.rises:
            stretch.add(known(rise))
        out.append(stretch.close())
    return tuple(out)


def risen(counts: Counts, modulus: int | None = None) -> Iterator[tuple[Any, int]]:
    """Every rise as situation and amount; a start's first reading rises on the start before."""
    before: int | None = None
    for count in counts:
        if before is not None and (by := increase(before, count.first.to)):
            yield count.first.situation, by
        for rise in count.rises:
            yield rise.situation, rise.by
        before = count.furthest if modulus is None else count.furthest % modulus


def total(counts: Counts, modulus: int | None = None) -> int:
    """All that was counted."""
    return sum(by for _, by in risen(counts, modulus))


@dataclass(slots=True)
class _Stretch:
    """A ``Count`` in the making."""

    start: int
    first: Rise
    rises: list[Rise]
    last: int
    behind: int
    ahead: int
    modulus: int | None

    @classmethod
    def of(cls, count: Count, modulus: int | None) -> "_Stretch":
        start, first, rises, last, behind, ahead = count
        return cls(start, first, list(rises), last, behind, ahead, modulus)

    def read(self, reading: Rise) -> None:
        by = step(self.start, self.last, reading.to, self.modulus) - self.behind
        if by > 0:
            self.add(reading._replace(by=by))
        self.last, self.behind = reading.to, max(-by, 0)

    def go_on(self, count: Count) -> None:
        self.read(count.first)
        further = count.ahead - self.behind  # than what is known here; below 0: not as far
        for rise in count.rises:
            by = min(rise.by, further + rise.by)
            further += rise.by
            if by > 0:
                self.add(rise._replace(by=by))
        self.last, self.behind = count.last, count.behind + max(-further, 0)

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
        return Count(self.start, self.first, tuple(self.rises), self.last, self.behind, self.ahead)
