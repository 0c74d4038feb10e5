"""Runs of equal readings of a counter: how many began, of which values, how long, how far apart.

A *run* is a maximal stretch of equal consecutive readings, blanks aside; silence does not end it.
It belongs to the window in which it begins, its length to the one in which it is found to be over.

    7 7 7 | 7 8 8 9 | 9          7: begun in the first window, over in the second
    head             tail
"""

import itertools
from typing import NamedTuple

import numpy as np

from edge.columns import Columns
from edge.measures import Fact, add_bins

NS_PER_STEP = 1_000_000
"""Lengths and distances are counted in whole milliseconds."""


class Run(NamedTuple):
    """A value, and when it was read first and last."""

    value: int
    first_ns: int
    last_ns: int

    def length(self) -> int:
        """From first to last reading, in ms."""
        return _ms(self.last_ns - self.first_ns)


class Runs(NamedTuple):
    """Runs of a stretch, its first (``head``) and last (``tail``) apart: they may go on outside."""

    head: Run | None = None
    tail: Run | None = None
    n: int = 0
    carried: bool = False
    """Whether the head began before the stretch."""
    second_ns: int | None = None
    """When the run after the head began."""
    values: dict[int, int] = {}  # noqa: RUF012 - never changed in place
    """Runs by value, but for the head."""
    lengths: dict[int, int] = {}  # noqa: RUF012
    """Lengths of runs that are neither head nor tail."""
    distances: dict[int, int] = {}  # noqa: RUF012
    """From the start of a run to the next one's, but for the head's."""


class CounterRuns:
    """Runs of one channel of whole numbers."""

    closing = False

    def __init__(self, channel: str) -> None:
        self.name = f"{channel}_runs"
        self.channels = (channel,)

    def zero(self) -> Runs:
        return Runs()

    def fold(self, columns: Columns) -> Runs:
        times, values = columns.channel(self.channels[0])
        known = ~np.isnan(values)
        times, values = times[known], np.rint(values[known]).astype(np.int64)
        if not len(times):
            return Runs()
        starts = np.append(0, np.nonzero(values[1:] != values[:-1])[0] + 1)
        ends = np.append(starts[1:], len(times)) - 1
        state = Runs()
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            run = Run(int(values[start]), int(times[start]), int(times[end]))
            state = self.merge(state, Runs(run, run, 1))
        return state

    def merge(self, a: Runs, b: Runs) -> Runs:
        if a.head is None or a.tail is None:
            return b
        if b.head is None or b.tail is None:
            return a
        values, lengths = add_bins(a.values, b.values), add_bins(a.lengths, b.lengths)
        distances = add_bins(a.distances, b.distances)
        second_ns, head, tail = a.second_ns, a.head, b.tail
        if a.tail.value == b.head.value:
            joint = Run(a.tail.value, a.tail.first_ns, b.head.last_ns)
            if a.n == 1:
                head = joint
            if b.n == 1:
                tail = joint
            if a.n > 1 and b.n > 1:
                lengths = _count(lengths, joint.length())
            n, starts = a.n + b.n - 1, [joint.first_ns, b.second_ns]
        else:
            if a.n > 1:
                lengths = _count(lengths, a.tail.length())
            if b.n > 1:
                lengths = _count(lengths, b.head.length())
            values = _count(values, b.head.value)
            n, starts = a.n + b.n, [a.tail.first_ns, b.head.first_ns, b.second_ns]
        if a.n == 1 and starts[1] is not None:
            second_ns, starts = starts[1], starts[1:]
        for before_ns, after_ns in itertools.pairwise(starts):
            if before_ns is not None and after_ns is not None:
                distances = _count(distances, _ms(after_ns - before_ns))
        return Runs(head, tail, n, a.carried, second_ns, values, lengths, distances)

    def edge(self, state: Runs, t_ns: int) -> Runs:
        del t_ns
        return Runs(state.tail, state.tail, 1, True) if state.tail is not None else Runs()

    def facts(self, state: Runs) -> dict[str, Fact]:
        if state.head is None:
            return {}
        values, lengths, distances = state.values, state.lengths, state.distances
        if not state.carried:
            values = _count(values, state.head.value)
        if state.second_ns is not None:
            lengths = _count(lengths, state.head.length())
            distances = _count(distances, _ms(state.second_ns - state.head.first_ns))
        return {
            f"{self.name}_values": values,
            f"{self.name}_lengths": lengths,
            f"{self.name}_distances": distances,
        }


def _ms(ns: int) -> int:
    return (ns + NS_PER_STEP // 2) // NS_PER_STEP


def _count(histogram: dict[int, int], key: int) -> dict[int, int]:
    return histogram | {key: histogram.get(key, 0) + 1}
