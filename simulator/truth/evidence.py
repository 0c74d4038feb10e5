"""Evidence of KPIs, window by window, which adds up over the assets of a group.

Where windows overlap much, quantiles come from one sifting of all readings for all of them, not
from sorting each.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, Self

import numpy as np

from ingest.messages import Times
from simulator.device import Ints
from simulator.truth.windows import Windows, any_of, plain

Number = int | Fraction
Named = tuple[str, Sequence[float | None]]
"""A KPI, and its values window by window."""
Values = Iterator[Named]


class Evidence(Protocol):
    """What KPIs are made of."""

    @classmethod
    def pooled(cls, members: Sequence[Any]) -> Self:
        """That of a whole group."""
        ...


@dataclass(frozen=True, slots=True)
class Family:
    """KPIs that are made of the same evidence."""

    evidence: Any
    kpis: Callable[[Any], Values]
    pooled: bool = False
    """Whether it is ``Evidence`` that is added up over the assets of line, area and site."""


class Sums:
    """Sums by name, window by window."""

    def __init__(self, columns: Mapping[str, Sequence[Number]]) -> None:
        self._columns = columns

    def __getitem__(self, names: str) -> list[Number]:
        """One column, or several (``a+b``) added up."""
        first, *more = (self._columns[name] for name in names.split("+"))
        return [sum(numbers) for numbers in zip(first, *more, strict=True)] if more else [*first]

    @classmethod
    def pooled(cls, members: "Sequence[Sums]") -> "Sums":
        """Of all of them, what all of them have."""
        names = set(members[0]._columns).intersection(*(m._columns for m in members[1:]))
        columns = {name: zip(*(m._columns[name] for m in members), strict=True) for name in names}
        return cls({name: [sum(numbers) for numbers in rows] for name, rows in columns.items()})

    def ratios(self, top: str, under: str, scale: Number = 1) -> list[float | None]:
        """``top / under * scale``; none over nothing."""
        return [over(a, b, scale) for a, b in zip(self[top], self[under], strict=True)]


def over(top: Number, under: Number, scale: Number = 1) -> float | None:
    """``top / under * scale``; none over nothing."""
    if not under:
        return None
    if isinstance(top, int) and isinstance(under, int):  # rounded once, however large they are
        return top * scale.numerator / (under * scale.denominator)
    return float(Fraction(top) / Fraction(under) * scale)


def where(known: Sequence[Number], counts: Sequence[Number]) -> list[float | None]:
    """Counts in the windows of which anything is known."""
    return [float(n) if k else None for k, n in zip(known, counts, strict=True)]


class Readings:
    """Whole numbers, each read at a time, of which any share of a window can be asked for."""

    def __init__(self, w: Windows, t_ns: Times, values: Ints) -> None:
        self._w, self._t_ns, self._values = w, t_ns, values

    @classmethod
    def pooled(cls, members: "Sequence[Readings]") -> "Readings":
        """All readings of all of them."""
        t_ns = np.concatenate([member._t_ns for member in members])
        values = np.concatenate([member._values for member in members])
        order = np.argsort(t_ns, kind="stable")
        return cls(members[0]._w, t_ns[order], values[order])

    @property
    def n(self) -> list[int]:
        """How many there are in each window."""
        low, high = self._w.cuts(self._t_ns)
        return plain(high - low)

    @property
    def totals(self) -> list[int]:
        """Their sum in each window."""
        sums = np.concatenate(([0], np.cumsum(self._values)))
        low, high = self._w.cuts(self._t_ns)
        return plain(sums[high] - sums[low])

    def within(self, limit: int) -> list[int]:
        """How many in each window are at most that."""
        return Readings(self._w, self._t_ns, any_of(limit + 1 - self._values)).totals

    def shares(self, *thousandths: int) -> list[list[int | None]]:
        """By share, per window the least reading that so many thousandths of it do not exceed."""
        low, high = self._w.cuts(self._t_ns)
        n = high - low
        ranks = [-(-n * share // 1_000) - 1 for share in thousandths]
        found = ranked(self._values, low, high, ranks)
        return [[v if m else None for v, m in zip(row.tolist(), n.tolist(), strict=True)]
                for row in found]  # fmt: skip


_OFTEN = 64
"""Sifting all values costs about as much as sorting them so many times."""


def ranked(values: Ints, low: Ints, high: Ints, ranks: Sequence[Ints]) -> list[Ints]:
    """The elements of some ranks (from 0) of each stretch ``[low, high)`` of values, for each
    element of ``ranks`` an array over the stretches; of an empty stretch it is any number."""
    if not len(values):
        return [np.zeros(len(low), dtype=np.int64) for _ in ranks]
    if int((high - low).sum()) > _OFTEN * len(values):
        return [_sifted(values, low, high, rank) for rank in ranks]
    found = [np.zeros(len(low), dtype=np.int64) for _ in ranks]
    for place, (first, last) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        ordered = np.sort(values[first:last])
        for column, rank in zip(found, ranks, strict=True):
            column[place] = ordered[rank[place]] if first < last else 0
    return found


def _sifted(values: Ints, low: Ints, high: Ints, rank: Ints) -> Ints:
    """The element of one rank of each stretch, of as many stretches as one likes.

    Values are numbered by size, and bit by bit from the top the numbers are parted by the bit:
    those without it come to stand before those with it, in the order they had, and so does every
    stretch's part of them.
    """
    order = np.argsort(values)
    n = len(values)
    left = np.empty(n, dtype=np.int32)
    left[order] = np.arange(n, dtype=np.int32)
    found = np.zeros(len(low), dtype=np.int64)
    for bit in range((n - 1).bit_length() - 1, -1, -1):
        lacks = left & np.int32(1 << bit) == 0
        without = np.concatenate(([0], np.cumsum(lacks)))
        first, last = without[low], without[high]
        goes = rank >= last - first
        rank = np.where(goes, rank - (last - first), rank)
        found |= goes.astype(np.int64) << bit
        low = np.where(goes, without[-1] + low - first, first)
        high = np.where(goes, without[-1] + high - last, last)
        left = np.concatenate((left[lacks], left[~lacks]))
    return np.asarray(values[order[np.minimum(found, n - 1)]], dtype=np.int64)


class Peaks:
    """The highest of marks in each window; none where there is nothing that could have any."""

    def __init__(self, highest: Sequence[int | None]) -> None:
        self.highest = highest

    @classmethod
    def of(cls, w: Windows, t_ns: Ints, marks: Ints, *, idle: int | None = None) -> Self:
        """From marks in order of time; ``idle`` is the highest of a window that has none."""
        (highest,) = Readings(w, t_ns, marks).shares(1_000)
        return cls([idle if mark is None else mark for mark in highest])

    @classmethod
    def pooled(cls, members: "Sequence[Peaks]") -> "Peaks":
        """The highest of all of them."""
        columns = zip(*(member.highest for member in members), strict=True)
        return cls([max((v for v in row if v is not None), default=None) for row in columns])


class Spread:
    """How widely readings spread: machine capability by the sample deviation of the readings of a
    window, process capability by half the mean square of each reading's step from the one before,
    in whatever window that was."""

    def __init__(self, name: str, w: Windows, t_ns: Ints, readings: Ints, after: int = 0) -> None:
        self._name = name
        low, high = w.cuts(t_ns, after)
        steps = np.diff(readings, prepend=readings[:1])
        sums = (np.concatenate(([0], np.cumsum(c))) for c in (readings, readings**2, steps**2))
        self._rows = zip(
            plain(high - low),
            *(plain(up_to[high] - up_to[low]) for up_to in sums),
            plain(high - np.maximum(low, 1)),
            strict=True,
        )

    def family(self, limits: tuple[float, float], per_unit: int) -> Family:
        """The four indices by the limits of what was read, in ``per_unit`` steps."""
        low, high = (Fraction(str(limit)) * per_unit for limit in limits)
        columns: dict[str, list[float | None]] = {kpi: [] for kpi in ("cm", "cmk", "cp", "cpk")}
        for n, total, squares, step_squares, pairs in self._rows:
            whole = Fraction(n * squares - total * total, n * (n - 1)) if n > 1 else None
            successive = Fraction(step_squares, 2 * pairs) if n and pairs > 0 else None
            room = min(high - Fraction(total, n), Fraction(total, n) - low) if n else None
            for wide, near, variance in (("cm", "cmk", whole), ("cp", "cpk", successive)):
                if not variance or room is None:
                    columns[wide].append(None)
                    columns[near].append(None)
                    continue
                sigma = math.sqrt(variance)
                columns[wide].append(float(high - low) / (6 * sigma))
                columns[near].append(float(room) / (3 * sigma))
        return Family({f"{self._name}_{kpi}": c for kpi, c in columns.items()}, _of_itself)


def _of_itself(columns: Mapping[str, Sequence[float | None]]) -> Values:
    yield from columns.items()
