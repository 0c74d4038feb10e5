"""OEE and its three factors (ISO 22400-2), from states, calendar, orders and counters."""

from collections.abc import Iterator
from fractions import Fraction

from edge.iso22400 import DELAY, DOWN, PRODUCTION, SETUP, element
from edge.kpi import Kpi, number, ratio
from edge.measures import Fact, Facts
from edge.measures.situations import STATE_HOLD_NS, Component, Situation, Situations

_FACT = {PRODUCTION: "apt_ns", SETUP: "aust_ns", DELAY: "adet_ns", DOWN: "adot_ns", None: "dark_ns"}


def _describe(
    times: Iterator[tuple[Situation, int]], counts: Iterator[tuple[int, Situation, int]]
) -> dict[str, Fact]:
    """Time elements within planned busy time, pieces, and the time they were planned to take."""
    facts: dict[str, int] = {}
    for (state, planned, order, _), spent_ns in times:
        if planned:
            name = _FACT[element(state, order)]
            facts[name] = facts.get(name, 0) + spent_ns
            facts["pbt_ns"] = facts.get("pbt_ns", 0) + spent_ns
    for counter, (_, _, _, pri_us), count in counts:
        name = ("produced", "scrap")[counter]
        facts[name] = facts.get(name, 0) + count
        if counter == 0 and pri_us is not None:
            facts["planned_run_us"] = facts.get("planned_run_us", 0) + pri_us * count
    return dict(facts)


UNIT = Situations(
    "unit",
    (
        Component("state", STATE_HOLD_NS),
        Component("planned"),
        Component("order"),
        Component("pri_s", scale=1_000_000),
    ),
    ("produced", "scrap"),
    _describe,
)


def seen_ns(facts: Facts) -> int | None:
    """Planned busy time (PBT) of which there is evidence."""
    planned_ns = number(facts, "pbt_ns")
    return None if planned_ns is None else planned_ns - (number(facts, "dark_ns") or 0)


def availability(facts: Facts) -> float | None:
    under = seen_ns(facts)
    return ratio(number(facts, "apt_ns") or 0, under)


def effectiveness(facts: Facts) -> float | None:
    return ratio(number(facts, "planned_run_us") or 0, number(facts, "apt_ns"), 1_000)


def quality(facts: Facts) -> float | None:
    made = number(facts, "produced")
    return None if made is None else ratio(made - (number(facts, "scrap") or 0), made)


def oee(facts: Facts) -> float | None:
    """The product of the three factors, where APT and PQ cancel only on paper: it needs them."""
    under, made = seen_ns(facts), number(facts, "produced")
    run_us, apt_ns = number(facts, "planned_run_us"), number(facts, "apt_ns")
    if not under:
        return None
    if not apt_ns:
        return 0.0  # planned, seen, and it did not run
    if not made or run_us is None:
        return 0.0
    good = made - (number(facts, "scrap") or 0)
    return float(Fraction(run_us * 1_000 * good, under * made))


def output(facts: Facts) -> float | None:
    made = number(facts, "produced")
    if made is None:
        return 0.0 if seen_ns(facts) else None
    return float(made - (number(facts, "scrap") or 0))


_CELL = ("casting_cell", "machine")
"""``machine`` is anything a mapping brings that is no shipped kind."""
_MACHINES = (*_CELL, "robot_arm")
_CHANNELS = ("state", "produced")

KPIS = (
    Kpi(
        name="availability", unit="1", better="up", kinds=_MACHINES, needs=_CHANNELS,
        summary="Share of planned busy time spent producing.",
        formula="APT / PBT", clause="ISO 22400-2 availability",
        measures=(UNIT,), value=availability, rolls_up=True, pool=_CELL,
    ),
    Kpi(
        name="effectiveness", unit="1", better="up", kinds=_MACHINES, needs=_CHANNELS,
        summary="Planned time for what was produced over the time it took; may exceed 1.",
        formula="PRI * PQ / APT", clause="ISO 22400-2 effectiveness",
        measures=(UNIT,), value=effectiveness, rolls_up=True, pool=_CELL,
    ),
    Kpi(
        name="quality_ratio", unit="1", better="up", kinds=_CELL,
        needs=(*_CHANNELS, "scrap"),
        summary="Share of produced pieces that are good.",
        formula="GQ / PQ", clause="ISO 22400-2 quality ratio",
        measures=(UNIT,), value=quality, rolls_up=True,
    ),
    Kpi(
        name="oee", unit="1", better="up", kinds=_CELL, needs=(*_CHANNELS, "scrap"),
        summary="Share of planned busy time that became good pieces at the planned pace.",
        formula="availability * effectiveness * quality_ratio", clause="ISO 22400-2 OEE index",
        measures=(UNIT,), value=oee, rolls_up=True,
    ),
    Kpi(
        name="output", unit="{piece}", better="up", kinds=_CELL,
        needs=(*_CHANNELS, "scrap"),
        summary="Good pieces produced.",
        formula="GQ = PQ - SQ", clause="ISO 22400-2 good quantity",
        measures=(UNIT,), value=output, rolls_up=True,
    ),
)  # fmt: skip
