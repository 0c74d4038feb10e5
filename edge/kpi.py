"""What a KPI is: metadata and a pure function of facts."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import inf, isinf, lcm
from typing import NamedTuple

from config.units import NS_PER_S
from edge.measures import Fact, Facts, Measure

OBSERVERS = ("radio_cell", "slice", "device_group")
"""Kinds of a network's own assets. They look at other assets' messages a second time, so they are
never added up: a line, area or site holds each message once, by the device that sent it."""


class Accuracy(NamedTuple):
    """How far a value may be from the truth where no message is lost and no clock is wrong: the
    wider of the first two. As it stands: not at all, but for rounding. ``absolute=inf``: any
    distance, as of what is only known where somebody looked."""

    relative: float = 0.0
    """Share of the true value."""
    absolute: float = 0.0
    """In the unit of the KPI."""
    cut_s: float | None = 0.0
    """Where a window (only an order's does) begins or ends between two readings: how much of its
    time, at its mean pace, each of its ends may put on the wrong side; ``None``: any amount."""

    def within(self, truth: float, cut_from_ns: int | None = None) -> float | None:
        """How far a value may be from the truth; ``None``: any distance. ``cut_from_ns`` is the
        length of a window that is cut between readings."""
        if isinf(self.absolute):
            return None
        relative = self.relative
        if cut_from_ns is not None:
            if self.cut_s is None:
                return None
            relative += 2 * self.cut_s * NS_PER_S / cut_from_ns
        return max(relative * abs(truth), self.absolute)

    def text(self, *, cut: bool = False) -> str:
        """In words, of windows that are cut between readings or of those that are not."""
        parts = [f"{self.relative * 100:g} %"] if self.relative else []
        parts += [f"{self.absolute:g}"] if self.absolute else []
        if isinf(self.absolute) or (cut and self.cut_s is None):
            return "none"
        if cut and self.cut_s:
            parts.append(f"{self.cut_s:g} s at each end")
        return " or ".join(parts) or "exact"


EXACT = Accuracy()
BY_SAMPLES = Accuracy(absolute=inf)
"""What lies between two samples nobody told."""


class Term(NamedTuple):
    """What a word of a formula stands for, as the facts have it; ``None``: they do not say."""

    unit: str
    """UCUM, ``s`` for a time; empty for what is counted."""
    amount: Callable[[Facts], Fraction | None]


@dataclass(frozen=True, slots=True)
class Kpi:
    """A named quantity of one asset and window, or of a group of assets where it rolls up.

    ``value`` gets the facts of its measures, added up over the assets of the group, and gives the
    value in ``unit`` or ``None`` for no evidence. It rounds once: facts are integers.
    """

    name: str
    unit: str
    summary: str
    formula: str
    clause: str
    better: str
    """``up``, ``down``, or empty where neither is better."""
    kinds: tuple[str, ...]
    """Device kinds it is made for; empty: any."""
    needs: tuple[str, ...]
    """Channels an asset must have announced."""
    measures: tuple[Measure, ...]
    value: Callable[[Facts], float | None]
    rolls_up: bool = False
    """Whether it is also given for line, area and site; never of ``OBSERVERS``."""
    pool: tuple[str, ...] = ()
    """Kinds that are added up in a roll-up; empty: all of ``kinds``. Factors of one product must
    pool the same machines, or the product does not hold for the group."""
    histograms: tuple[str, ...] = ()
    """Channels that its measures add where an asset tells them, without asking for them."""
    limited: str = ""
    """A channel for which an asset must have announced specification limits."""
    bounds: tuple[float | None, float | None] | None = None
    """Least and greatest value that consistent telemetry gives, ``None``: no bound. Left out: 0
    to 1 for a share (unit ``1``), otherwise at least 0."""
    index: bool = False
    """Whether it is a pure number that is no share of anything, like Cpk: never shown in percent,
    as other KPIs of unit ``1`` are, also those that ISO 22400-2 lets exceed 100 %."""
    accuracy: Accuracy = EXACT
    """How far from the truth it may be if nothing goes wrong; ``beilun score`` holds it to that."""
    terms: Mapping[str, Term] = field(default_factory=dict[str, Term])
    """Words of the formula that are no fact by that name and no KPI of the same facts:
    ``beilun kpis explain`` puts their numbers in."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Every channel that goes into it, those it cannot do without first."""
        read = (channel for measure in self.measures for channel in measure.channels)
        return tuple(dict.fromkeys((*self.needs, *read, *self.histograms)))

    @property
    def is_share(self) -> bool:
        """Whether it is shown in percent."""
        return self.unit == "1" and not self.index

    @property
    def range(self) -> tuple[float | None, float | None]:
        """Least and greatest value that consistent telemetry gives; ``None``: no bound."""
        if self.bounds is not None:
            return self.bounds
        return (0.0, 1.0 if self.unit == "1" else None)

    @property
    def range_text(self) -> str:
        """The same for people."""
        return " to ".join("–" if end is None else f"{end:g}" for end in self.range)

    @property
    def pooled(self) -> tuple[str, ...]:
        """Kinds that are added up in a roll-up; empty: any."""
        return self.pool or self.kinds

    def pools(self, kind: str) -> bool:
        """Whether an asset of this kind, which has this KPI, is added up in its roll-ups."""
        if not self.rolls_up or kind in OBSERVERS:
            return False
        return not self.pooled or kind in self.pooled

    def grain_ns(self, gathered_ns: Mapping[str, int]) -> int:
        """What windows must be whole multiples of, of an asset that gathers some channels; 0: of
        nothing."""
        grains = [gathered_ns[name] for name in self.inputs if name in gathered_ns]
        return lcm(*grains) if grains else 0

    def applies(self, kind: str, channels: Mapping[str, str], limits: Collection[str] = ()) -> bool:
        """Whether an asset of this kind, with these channels, some with limits, has this KPI."""
        if self.limited and self.limited not in limits:
            return False
        return (not self.kinds or kind in self.kinds) and all(n in channels for n in self.needs)


def number(facts: Facts, name: str) -> int | None:
    """A sum among the facts; ``None`` where there is no evidence."""
    value = facts.get(name)
    return value if isinstance(value, int) else None


def bins(facts: Facts, name: str) -> Mapping[int, int]:
    """A histogram among the facts."""
    value: Fact = facts.get(name, {})
    return {} if isinstance(value, int) else value


def counted(name: str, unit: str = "", scale: Fraction | int = 1) -> Term:
    """A term that is one sum among the facts, in steps of ``scale``; not told is 0."""

    def amount(facts: Facts) -> Fraction:
        return Fraction(number(facts, name) or 0) * scale

    return Term(unit, amount)


def seconds(name: str) -> Term:
    """A term that is a time among the facts, which has it in ns."""
    return counted(name, "s", Fraction(1, NS_PER_S))


def ratio(over: int | None, under: int | None, scale: Fraction | int = 1) -> float | None:
    """``over / under * scale``, rounded once; ``None`` without evidence or over nothing."""
    if over is None or not under:
        return None
    # The quotient of two integers is rounded once, correctly, however large they are.
    return over * scale.numerator / (under * scale.denominator)


def quantile(histogram: Mapping[int, int], share: float) -> int | None:
    """The bin that holds the ``share`` quantile (nearest rank, lower); ``None`` when empty."""
    total = sum(histogram.values())
    if not total:
        return None
    rank = max(1, -int(-share * total // 1))
    for key in sorted(histogram):
        rank -= histogram[key]
        if rank <= 0:
            return key
    return None


def median(histogram: Mapping[int, int]) -> float | None:
    """The median in bins, the mean of the middle two where their number is even."""
    total = sum(histogram.values())
    if not total:
        return None
    wanted = ((total - 1) // 2, total // 2)
    found: list[int] = []
    passed = 0
    for key in sorted(histogram):
        passed += histogram[key]
        while len(found) < 2 and passed > wanted[len(found)]:
            found.append(key)
    return (found[0] + found[1]) / 2
