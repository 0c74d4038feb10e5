"""Mergeable aggregation states, one family a file.

A *measure* turns the samples of one asset into a state that can be merged in time order without
loss, and a closed state into *facts*: named integers and histograms that add up over assets.

Laws (tests hold every measure to them, present and future):

- ``zero`` is neutral: ``merge(zero, s) == merge(s, zero) == s``;
- ``merge`` is associative, on neighbouring stretches of time;
- folding two halves and merging them is folding the whole;
- ``edge(s, t)`` keeps just what a later stretch must know, and nothing that would count twice:
  ``merge(edge(a, a.end), b)`` closes to the facts of ``b`` as they follow on ``a``;
- every state is made of integers: the same samples give the same bits, in whatever pieces.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from edge.columns import Columns
from ingest.messages import Birth

Fact = int | Mapping[int, int]
"""A sum, or a histogram (bin or value -> count). Both add up over assets."""

Facts = Mapping[str, Fact]


class Measure(Protocol):
    """One family of facts about one asset."""

    @property
    def name(self) -> str:
        """What the engine keeps its states by."""
        ...

    @property
    def channels(self) -> tuple[str, ...]:
        """What it reads."""
        ...

    @property
    def closing(self) -> bool:
        """Whether a reading at ``t`` closes the interval that ends at ``t`` (flow counters)."""
        ...

    def zero(self) -> Any:
        """The state of no time at all."""
        ...

    def fold(self, columns: Columns) -> Any:
        """The state of one pane."""
        ...

    def merge(self, a: Any, b: Any) -> Any:
        """The state of ``a`` followed at once by ``b``."""
        ...

    def edge(self, state: Any, t_ns: int) -> Any:
        """What was known at ``t_ns``, the end of ``state``, as a state of no duration."""
        ...

    def facts(self, state: Any) -> Facts:
        """What a window came to."""
        ...


@runtime_checkable
class Tailored(Protocol):
    """A measure that depends on what an asset announced, beyond the channels it reads."""

    def of(self, birth: Birth) -> Measure:
        """The measure for this asset, under the same name.

        It may add what was announced (limits) to its facts. Such facts are no sums, so a KPI that
        reads them does not roll up."""
        ...


@runtime_checkable
class Settling(Protocol):
    """A measure whose states are smaller once it is known what was known before.

    Law: ``settle(edge(a, a.end), b)`` in the place of ``b`` gives the same facts, and the same
    edges, after ``a`` or any other stretch with that edge; and so do merges of such states. Its own
    edge is that of ``a`` and ``b`` together."""

    def settle(self, known: Any, state: Any) -> Any:
        """``state`` with all filled in that it takes from ``known``, the edge it follows on. What
        is not known there is not known at all."""
        ...


def tailored(measure: Measure, birth: Birth) -> Measure:
    """A measure as it is for one asset."""
    return measure.of(birth) if isinstance(measure, Tailored) else measure


def add_facts(a: Facts, b: Facts) -> dict[str, Fact]:
    """Facts of two assets together."""
    total = dict(a)
    for name, value in b.items():
        mine = total.get(name)
        if mine is None:
            total[name] = value
        elif isinstance(mine, int) and isinstance(value, int):
            total[name] = mine + value
        elif not isinstance(mine, int) and not isinstance(value, int):
            total[name] = add_bins(mine, value)
    return total


def add_bins(a: Mapping[int, int], b: Mapping[int, int]) -> dict[int, int]:
    """Two histograms together."""
    if len(a) < len(b):
        a, b = b, a
    total = dict(a)
    for number, count in b.items():
        total[number] = total.get(number, 0) + count
    return total
