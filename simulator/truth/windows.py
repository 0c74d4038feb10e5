"""Windows of any kinds, clipped to the run, and what the logs of the plant say of each.

Events at ``t`` belong to ``[start, end)``; energy and length count what flowed in ``(start, end]``.
The windows of orders are those of a machine's own log; a piece made at the very end of one is its
last. All is added up as integers: a sum over a window is the difference of a running total at its
two ends, so many windows cost little more than one.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from config.windows import Span, Window
from ingest.messages import Times
from simulator.device import Ints, Steps

_LARGE = 1 << 62
"""Pieces over months, as a product with nanoseconds, would be too large for 64 bits."""


class Entries(NamedTuple):
    """Changes of a step function."""

    t_ns: Times
    values: Ints


def entries(steps: Steps, to_ns: int) -> Entries:
    """Those of a log up to a time, the value it began with first."""
    steps.get(to_ns)  # a log that is kept ahead is settled by being asked
    t_ns = np.array(steps.t, dtype=np.int64)
    n = max(int(np.searchsorted(t_ns, to_ns, side="right")), 1)
    return Entries(t_ns[:n], np.array(steps.v[:n], dtype=np.int64))


class Counted(NamedTuple):
    """What a counter counted, and when."""

    t_ns: Times
    counts: Ints


def counted(counter: Steps, to_ns: int) -> Counted:
    """Each rise of a counter up to a time."""
    t_ns, values = entries(counter, to_ns)
    return Counted(t_ns[1:], np.diff(values))


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of any kinds, clipped to the run."""

    spans: tuple[Span, ...]
    a: Times
    b: Times
    after: int = 0
    """1 where what is completed at the very end of a window is its own, as of an order."""

    @classmethod
    def over(cls, start_ns: int, end_ns: int, kinds: Iterable[Window]) -> Self:
        """Windows that touch ``[start_ns, end_ns)``, those of several kinds once."""
        found = {span for kind in kinds for span in kind.over(start_ns, end_ns)}
        return cls.of(sorted(found), start_ns, end_ns)

    @classmethod
    def of(cls, spans: Iterable[Span], start_ns: int, end_ns: int, *, after: int = 0) -> Self:
        """These windows."""
        known = tuple(spans)
        a, b = np.array(known, dtype=np.int64).reshape(-1, 2).T
        return cls(known, np.maximum(a, start_ns), np.minimum(b, end_ns), after)

    def are_whole(self, pane_ns: int) -> bool:
        """Whether each is made of whole panes, but for the ends of the run."""
        return not any(a % pane_ns or b % pane_ns for a, b in self.spans)

    def events(self, counter: Steps) -> list[int]:
        """What a counter counted in each."""
        low, high = self.a + self.after - 1, self.b + self.after - 1
        return plain(_read(counter.at, high) - _read(counter.at, low))

    def flowed(self, reading: Callable[[Times], Ints]) -> list[int]:
        """What a meter measured in each."""
        return plain(_read(reading, self.b) - _read(reading, self.a))

    def spent(self, since: "Integral") -> list[int]:
        """The integral over each."""
        return plain(since(self.b) - since(self.a))

    def totals(self, t_ns: Sequence[int] | Times, values: Sequence[int] | Ints) -> list[int]:
        """Sums of the values of events, in order of time, in each."""
        sums = np.concatenate(([0], np.cumsum(np.array(values, dtype=np.int64))))
        low, high = self.cuts(t_ns, self.after)
        return plain(sums[high] - sums[low])

    def cuts(self, t_ns: Sequence[int] | Times, after: int = 0) -> tuple[Ints, Ints]:
        """Which of ascending times lie in each: from the first to before the second index."""
        times = np.asarray(t_ns, dtype=np.int64)
        return np.searchsorted(times, self.a + after), np.searchsorted(times, self.b + after)

    @property
    def lengths(self) -> list[int]:
        """How much of each lies in the run, in ns."""
        return plain(self.b - self.a)


def plain(values: NDArray[Any]) -> list[int]:
    """As plain integers."""
    found: list[int] = values.tolist()
    return found


def _read(reading: Callable[[Times], Ints], times: Times) -> Ints:
    """Readings at times in any order; logs are read in order of time."""
    order = np.argsort(times, kind="stable")
    out = np.empty(len(times), dtype=np.int64)
    if len(times):
        out[order] = reading(times[order])
    return out


def marks(start_ns: int, end_ns: int, logs: Sequence[Steps]) -> Times:
    """The start, and every time up to the end at which one of the logs changes."""
    changes = (entries(steps, end_ns).t_ns for steps in logs)
    t_ns = np.concatenate(([start_ns], *(t[t > start_ns] for t in changes)))
    t_ns.sort(kind="stable")  # logs are sorted, so this is quicker than to look for what is unique
    return t_ns[np.diff(t_ns, prepend=t_ns[0] - 1) > 0]


class Integral:
    """The integral of a step function, exact, from its first mark on."""

    def __init__(self, marks: Times, values: Ints, end_ns: int) -> None:
        most = int(np.abs(values).max()) * (end_ns - int(marks[0]))
        kind = np.int64 if most < _LARGE else np.object_
        self._marks = marks
        self._values: NDArray[Any] = values.astype(kind)
        spans = np.diff(marks, append=max(end_ns, int(marks[-1])))
        self._sums: NDArray[Any] = np.cumsum(np.append(np.zeros(1, kind), spans * self._values))

    def __call__(self, times: Times) -> NDArray[Any]:
        """The integral up to each of these times."""
        index = np.searchsorted(self._marks, times, side="right") - 1
        return np.asarray(self._sums[index] + self._values[index] * (times - self._marks[index]))


Factor = tuple[Steps, Callable[[Ints], Ints]]
"""A step function, and what is taken of its value."""


class Area(Integral):
    """The integral of a product of step functions."""

    def __init__(self, start_ns: int, end_ns: int, *factors: Factor) -> None:
        at = marks(start_ns, end_ns, [steps for steps, _ in factors])
        values = np.ones(len(at), dtype=np.int64)
        for steps, read in factors:
            values = values * read(steps.at(at))
        super().__init__(at, values, end_ns)


def as_is(values: Ints) -> Ints:
    """The value itself."""
    return values


def any_of(values: Ints) -> Ints:
    """1 where it is above 0."""
    return np.asarray(values > 0, dtype=np.int64)


def none_of(values: Ints) -> Ints:
    """1 where it is 0."""
    return np.asarray(values == 0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Run:
    """A run to judge: its span, and what was planned and known beforehand."""

    start_ns: int
    end_ns: int
    planned: Steps
    co2_kg_per_kwh: Fraction

    def spent(self, w: Windows, *factors: Factor) -> list[int]:
        """The integral of a product of step functions over each window."""
        return w.spent(Area(self.start_ns, self.end_ns, *factors))
