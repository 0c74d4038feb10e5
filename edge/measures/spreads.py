"""How widely readings of one channel spread, over the whole and from each to the next: exact sums.

    overall       n, Σx, Σx²                   -> sample variance of the window
    successive    m, Σ(x_i - x_(i-1))²         -> variance within subgroups of two in a row

Half the mean square of successive differences is the variance that is left where the mean drifts
slowly. Two readings in a row are a subgroup wherever a pane or window ends, which longer ones, cut
by some rule, would not be: the pair across an edge belongs to the window of its second reading.
"""

import itertools
from typing import NamedTuple

import numpy as np

from edge.columns import Columns
from edge.measures import Fact
from ingest.messages import Birth


class Spread(NamedTuple):
    """Sums in steps; ``first`` and ``last`` reading are joined to the neighbours'."""

    n: int = 0
    total: int = 0
    squares: int = 0
    pairs: int = 0
    pair_squares: int = 0
    first: int | None = None
    last: int | None = None


class Spreads:
    """Sums of one channel in fixed point, ``steps_per_unit`` to the unit; blanks are left out."""

    closing = False

    def __init__(
        self, channel: str, steps_per_unit: int, *, limits: tuple[float, float] | None = None
    ) -> None:
        self.name = f"{channel}_spread"
        self.channels = (channel,)
        self.steps_per_unit = steps_per_unit
        self._limits = limits and tuple(round(limit * steps_per_unit) for limit in limits)

    def of(self, birth: Birth) -> "Spreads":
        """The same with the limits that the asset announced, if any, among its facts."""
        channel = self.channels[0]
        return Spreads(channel, self.steps_per_unit, limits=birth.limits.get(channel))

    def zero(self) -> Spread:
        return Spread()

    def fold(self, columns: Columns) -> Spread:
        _, values = columns.channel(self.channels[0])
        known = values[~np.isnan(values)]
        if not len(known):
            return Spread()
        steps: list[int] = np.rint(known * self.steps_per_unit).astype(np.int64).tolist()
        between = [after - before for before, after in itertools.pairwise(steps)]
        return Spread(
            len(steps), sum(steps), sum(x * x for x in steps),
            len(between), sum(d * d for d in between), steps[0], steps[-1],
        )  # fmt: skip

    def merge(self, a: Spread, b: Spread) -> Spread:
        if b.first is None:
            return a if b.last is None else b._replace(first=a.first)
        joint = () if a.last is None else (b.first - a.last,)
        return Spread(
            a.n + b.n, a.total + b.total, a.squares + b.squares,
            a.pairs + len(joint) + b.pairs,
            a.pair_squares + sum(d * d for d in joint) + b.pair_squares,
            b.first if a.first is None and a.last is None else a.first, b.last,
        )  # fmt: skip

    def edge(self, state: Spread, t_ns: int) -> Spread:
        del t_ns
        return Spread(last=state.last)

    def facts(self, state: Spread) -> dict[str, Fact]:
        if not state.n:
            return {}
        sums = zip(("n", "total", "squares", "pairs", "pair_squares"), state[:5], strict=True)
        facts: dict[str, Fact] = {f"{self.name}_{what}": value for what, value in sums}
        if self._limits is not None:
            facts[f"{self.name}_lsl"], facts[f"{self.name}_usl"] = self._limits
        return facts
