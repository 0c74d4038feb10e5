"""Capability of measured channels with limits: Cm, Cmk, Cp, Cpk, from exact sums, one root."""

import math
from collections.abc import Callable
from fractions import Fraction

from edge.kpi import Kpi, number
from edge.measures import Facts
from edge.measures.spreads import Spreads

_UNBOUND = (None, None)
_WHOLE = "s: sample deviation of all readings"
_STEPS = "sigma: root of half the mean square of successive differences (subgroups of two in a row)"


def _sampled(facts: Facts, name: str) -> Fraction | None:
    """The sample variance, in steps squared."""
    n, total = number(facts, f"{name}_n"), number(facts, f"{name}_total")
    squares = number(facts, f"{name}_squares")
    if n is None or total is None or squares is None or n < 2:
        return None
    return Fraction(n * squares - total * total, n * (n - 1))


def _successive(facts: Facts, name: str) -> Fraction | None:
    """The variance from one reading to the next, in steps squared."""
    pairs, squares = number(facts, f"{name}_pairs"), number(facts, f"{name}_pair_squares")
    return Fraction(squares, 2 * pairs) if pairs and squares is not None else None


Variance = Callable[[Facts, str], Fraction | None]


def _width(variance: Variance, name: str) -> Callable[[Facts], float | None]:
    """The limits' distance in six deviations."""

    def value(facts: Facts) -> float | None:
        low, high = number(facts, f"{name}_lsl"), number(facts, f"{name}_usl")
        found = variance(facts, name)
        if low is None or high is None or not found:
            return None
        return math.sqrt((high - low) ** 2 / (36 * found))

    return value


def _nearer(variance: Variance, name: str) -> Callable[[Facts], float | None]:
    """The nearer limit's distance from the mean in three deviations; below 0 beyond it."""

    def value(facts: Facts) -> float | None:
        low, high = number(facts, f"{name}_lsl"), number(facts, f"{name}_usl")
        n, total = number(facts, f"{name}_n"), number(facts, f"{name}_total")
        found = variance(facts, name)
        if low is None or high is None or not n or total is None or not found:
            return None
        mean = Fraction(total, n)
        room = min(high - mean, mean - low)
        return math.copysign(math.sqrt(room * room / (9 * found)), room)

    return value


def _kpis(kind: str, name: str, channel: str, steps_per_unit: int, what: str) -> tuple[Kpi, ...]:
    spread = Spreads(channel, steps_per_unit)
    wide, near = "(USL - LSL) / (6 {})", "min(USL - mean, mean - LSL) / (3 {})"
    shapes = (
        ("cm", _width(_sampled, spread.name), wide.format("s"), "Machine", _WHOLE, (0.0, None)),
        ("cmk", _nearer(_sampled, spread.name), near.format("s"), "Critical machine", _WHOLE,
         _UNBOUND),
        ("cp", _width(_successive, spread.name), wide.format("sigma"), "Process", _STEPS,
         (0.0, None)),
        ("cpk", _nearer(_successive, spread.name), near.format("sigma"), "Critical process",
         _STEPS, _UNBOUND),
    )  # fmt: skip
    return tuple(
        Kpi(
            name=f"{name}_{short}", unit="1", better="up", kinds=(kind,), needs=(channel,),
            summary=f"{words} capability index of {what}, by the limits in the birth; none without "
            "spread. Machines have limits and spreads of their own, so it does not roll up.",
            formula=f"{formula}, {deviation}",
            clause=f"ISO 22400-2 {words.lower()} capability index",
            measures=(spread,), value=value, limited=channel, bounds=bounds, index=True,
        )
        for short, value, formula, words, deviation, bounds in shapes
    )  # fmt: skip


KPIS = (
    *_kpis("casting_cell", "biscuit", "biscuit_mm", 1_000, "the biscuit"),
    *_kpis("casting_cell", "pressure", "pressure_mpa", 1_000, "the intensification pressure"),
    *_kpis("cable_line", "diameter", "diameter_mm", 1_000, "the diameter"),
)
