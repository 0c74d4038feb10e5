"""Cumulative flow counters (energy, length): what went through in a window.

A reading at ``t`` closes the interval that ends at ``t``, so a window counts ``(start, end]``: with
readings on its edges the sum is exact, otherwise it is off by at most one reading interval.
"""

from typing import NamedTuple

import numpy as np

from edge.columns import Columns
from edge.measures import Fact

MICRO = 1_000_000
"""Fixed point: readings count in millionths of their unit."""


class Flow(NamedTuple):
    """First and last reading, and the sum of increases between them, in millionths."""

    first: int | None = None
    last: int | None = None
    total: int = 0


class Flows:
    """Sums of one flow counter; a counter that falls was reset and counts from zero."""

    closing = True

    def __init__(self, channel: str) -> None:
        self.name = channel
        self.channels = (channel,)

    def zero(self) -> Flow:
        return Flow()

    def fold(self, columns: Columns) -> Flow:
        _, values = columns.channel(self.name, closing=True)
        values = values[~np.isnan(values)]
        if not len(values):
            return Flow()
        fixed = np.rint(values * MICRO).astype(np.int64)
        steps = np.diff(fixed)
        total = int(np.where(steps >= 0, steps, fixed[1:]).sum())
        return Flow(int(fixed[0]), int(fixed[-1]), total)

    def merge(self, a: Flow, b: Flow) -> Flow:
        if b.last is None:
            return Flow(a.first, a.last, a.total + b.total)
        if a.last is None or b.first is None:
            return Flow(b.first if a.first is None else a.first, b.last, a.total + b.total)
        joint = b.first - a.last if b.first >= a.last else b.first
        return Flow(a.first, b.last, a.total + b.total + joint)

    def edge(self, state: Flow, t_ns: int) -> Flow:
        del t_ns
        return Flow(None, state.last, 0)

    def facts(self, state: Flow) -> dict[str, Fact]:
        return {} if state.last is None else {self.name: state.total}
