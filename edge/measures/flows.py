"""Cumulative flow counters (energy, length): what went through in a window.

A reading at ``t`` closes the interval that ends at ``t``, so a window counts ``(start, end]``: with
readings on its edges the sum is exact, otherwise it is off by at most one reading interval.
"""

import itertools

import numpy as np

from edge.columns import Columns
from edge.measures import Fact
from edge.measures.counters import Count, Counts, Rise, carried, join, modulus_of, total
from ingest.messages import Birth, Floats

MICRO = 1_000_000
"""Fixed point: readings count in millionths of their unit."""


class Flows:
    """Sums of one flow counter, in millionths."""

    closing = True

    def __init__(self, channel: str, *, modulus: int | None = None) -> None:
        """``modulus``, in millionths, is where the counter begins again at 0."""
        self.name = channel
        self.channels = (channel,)
        self._modulus = modulus
        self.moduli = {channel: modulus}

    def of(self, birth: Birth) -> "Flows":
        """The same for an asset that may have announced a modulus."""
        modulus = modulus_of(birth, self.name, MICRO)
        return self if modulus == self._modulus else Flows(self.name, modulus=modulus)

    def zero(self) -> Counts:
        return ()

    def fold(self, columns: Columns) -> Counts:
        _, values, starts = columns.counter(self.name, closing=True)
        counts: Counts = ()
        cuts = [0, *(np.nonzero(np.diff(starts))[0] + 1).tolist(), len(values)]
        for low, high in itertools.pairwise(cuts):
            if low < high:
                some = _count(int(starts[low]), values[low:high], self._modulus)
                counts = join(counts, some, self._modulus)
        return counts

    def merge(self, a: Counts, b: Counts) -> Counts:
        return join(a, b, self._modulus)

    def edge(self, state: Counts, t_ns: int) -> Counts:
        del t_ns
        return carried(state)

    def facts(self, state: Counts) -> dict[str, Fact]:
        return {self.name: total(state, self._modulus)} if state else {}


def _count(start: int, values: Floats, modulus: int | None) -> Counts:
    """Readings of one start, at once what ``gather`` would make of them one by one."""
    fixed = np.rint(values * MICRO).astype(np.int64)
    steps = np.diff(fixed)
    if modulus is not None:
        turned = 2 * (np.abs(steps) if start else -steps) > modulus
        on = steps % modulus
        back = modulus if start else 0
        steps = np.where(turned, np.where(2 * on < modulus, on, on - back), steps)
    if not start:
        steps = np.where(steps >= 0, steps, fixed[1:])
    furthest = np.maximum.accumulate(np.append(0, np.cumsum(steps)))
    up = np.nonzero(np.diff(furthest))[0]
    rises = (Rise(int(fixed[up[-1] + 1]), int(furthest[-1])),) if len(up) else ()
    behind = int(furthest[-1] - steps.sum())
    return (Count(start, Rise(int(fixed[0])), rises, int(fixed[-1]), behind),)
