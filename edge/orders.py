"""Which order a machine was on, and since when: where order windows lie.

A measure like any other, so it is folded, carried and amended with the rest: its state is the
readings of the ``order`` channel that differ from the one before.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from config.windows import Span
from edge.columns import Columns
from edge.measures import Fact

CHANNEL = "order"


class Turn(NamedTuple):
    """From here on a machine is on this order; 0: on none."""

    t_ns: int
    number: int


Turns = tuple[Turn, ...]


class Orders:
    """The changes of the order on a machine."""

    name = "orders"
    channels = (CHANNEL,)
    closing = False

    def zero(self) -> Turns:
        return ()

    def fold(self, columns: Columns) -> Turns:
        times, values = columns.channel(CHANNEL)
        known = ~np.isnan(values)
        if not known.any():
            return ()
        times, numbers = times[known], np.rint(values[known]).astype(np.int64)
        keep = np.append(True, numbers[1:] != numbers[:-1])
        found = zip(times[keep].tolist(), numbers[keep].tolist(), strict=True)
        return tuple(Turn(t_ns, number) for t_ns, number in found)

    def merge(self, a: Turns, b: Turns) -> Turns:
        return a + b[1:] if a and b and a[-1].number == b[0].number else a + b

    def edge(self, state: Turns, t_ns: int) -> Turns:
        del t_ns
        return state[-1:]

    def facts(self, state: Turns) -> dict[str, Fact]:
        del state
        return {}


ORDERS = Orders()


def ended(turns: Turns) -> Iterator[tuple[Span, int]]:
    """Orders that began and ended among some turns, with their numbers."""
    for now, then in itertools.pairwise(turns):
        if now.number > 0 and then.t_ns > now.t_ns:
            yield Span(now.t_ns, then.t_ns), now.number
