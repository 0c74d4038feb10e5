"""Cumulative flow counters (energy, length): what went through in a window.

A reading at ``t`` closes the interval that ends at ``t``, so a window counts ``(start, end]``: with
readings on its edges the sum is exact, otherwise it is off by at most one reading interval.
"""

import itertools

import numpy as np

from edge.columns import Columns
from edge.measures import Fact
from edge.measures.counters import Count, Counts, Rise, carried, join, total
from ingest.messages import Floats

MICRO = 1_000_000
"""Fixed point: readings count in millionths of their unit."""


class Flows:
    """Sums of one flow counter, in millionths."""

    closing = True

    def __init__(self, channel: str) -> None:
        self.name = channel
        self.channels = (channel,)

    def zero(self) -> Counts:
        return ()

    def fold(self, columns: Columns) -> Counts:
        _, values, starts = columns.counter(self.name, closing=True)
        counts: Counts = ()
        cuts = [0, *(np.nonzero(np.diff(starts))[0] + 1).tolist(), len(values)]
        for low, high in itertools.pairwise(cuts):
            if low < high:
                counts = join(counts, _count(int(starts[low]), values[low:high]))
        return counts

    def merge(self, a: Counts, b: Counts) -> Counts:
        return join(a, b)

    def edge(self, state: Counts, t_ns: int) -> Counts:
        del t_ns
        return carried(state)

    def facts(self, state: Counts) -> dict[str, Fact]:
        return {self.name: total(state)} if state else {}


def _count(start: int, values: Floats) -> Counts:
    """Readings of one start, at once what ``gather`` would make of them one by one."""
    fixed = np.rint(values * MICRO).astype(np.int64)
    if start:
        fixed = np.maximum.accumulate(fixed)
    steps = np.diff(fixed)
    steps = np.where(steps >= 0, steps, fixed[1:])
    up = np.nonzero(steps)[0]
    rises = (Rise(int(fixed[up[-1] + 1]), int(steps.sum())),) if len(up) else ()
    return (Count(start, Rise(int(fixed[0])), rises, int(fixed[-1])),)
