"""Sums of channels of whole numbers, blanks aside, exact however large they grow."""

from typing import NamedTuple

import numpy as np

from edge.columns import Columns
from edge.measures import Fact
from ingest.messages import Floats


class Sum(NamedTuple):
    """By channel what its readings add up to, and how many there were."""

    totals: tuple[int, ...]
    told: tuple[int, ...]


class Sums:
    """Adds up channels that come together; a reading is exact up to 2**53, a total without limit.

    Each row tells of a part: where a channel is blank, another row has it, or nobody knows.
    """

    closing = False

    def __init__(self, name: str, channels: tuple[str, ...], *, stream: str = "") -> None:
        self.name = name
        self.channels = channels
        self._stream = stream

    def zero(self) -> Sum:
        nothing = (0,) * len(self.channels)
        return Sum(nothing, nothing)

    def fold(self, columns: Columns) -> Sum:
        _, values = columns.rows(self.channels, stream=self._stream)
        whole = list(map(_whole, values))
        return Sum(tuple(map(sum, whole)), tuple(map(len, whole)))

    def merge(self, a: Sum, b: Sum) -> Sum:
        return Sum(_add(a.totals, b.totals), _add(a.told, b.told))

    def edge(self, state: Sum, t_ns: int) -> Sum:
        del state, t_ns
        return self.zero()

    def facts(self, state: Sum) -> dict[str, Fact]:
        found = zip(self.channels, *state, strict=True)
        return {channel: total for channel, total, told in found if told}


def _whole(values: Floats) -> list[int]:
    numbers: list[int] = np.rint(values[~np.isnan(values)]).astype(np.int64).tolist()
    return numbers


def _add(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))
