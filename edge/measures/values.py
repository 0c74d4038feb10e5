"""Readings of one channel as a histogram at its own resolution: exact to half a step."""

from typing import NamedTuple

import numpy as np

from edge.columns import Columns
from edge.measures import Fact, add_bins


class Seen(NamedTuple):
    """How often each multiple of the resolution was read, and how many cells were blank."""

    bins: dict[int, int] = {}  # noqa: RUF012 - never changed in place
    blank: int = 0


class Values:
    """Counts readings by value; memory is bounded by the channel's range over its resolution."""

    closing = False

    def __init__(self, channel: str, steps_per_unit: int, *, stream: str = "") -> None:
        self.name = channel
        self.channels = (channel,)
        self.steps_per_unit = steps_per_unit
        self._stream = stream

    def zero(self) -> Seen:
        return Seen()

    def fold(self, columns: Columns) -> Seen:
        _, (values,) = columns.rows((self.name,), stream=self._stream)
        known = values[~np.isnan(values)]
        steps = np.rint(known * self.steps_per_unit).astype(np.int64)
        numbers, counts = np.unique(steps, return_counts=True)
        bins = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
        return Seen(bins, len(values) - len(known))

    def merge(self, a: Seen, b: Seen) -> Seen:
        return Seen(add_bins(a.bins, b.bins), a.blank + b.blank)

    def edge(self, state: Seen, t_ns: int) -> Seen:
        del state, t_ns
        return Seen()

    def facts(self, state: Seen) -> dict[str, Fact]:
        if not state.bins and not state.blank:
            return {}
        return {f"{self.name}_bins": state.bins, f"{self.name}_blank": state.blank}
