"""Quality (ISO 22400-2): scrap, rework, fall-off, first pass yield, scrap against plan, warm-up."""

from fractions import Fraction

from edge.kpi import Kpi, number, ratio
from edge.kpis.oee import CELL, COUNTED, MACHINES, TERMS, UNIT
from edge.measures import Fact, Facts
from edge.measures.situations import Component, Rises, Situations, Times
from edge.measures.warmups import PIECES, Warmups

_PICO = 10**12
_WARMUP = Warmups()


def _plan(times: Times, rises: Rises) -> dict[str, Fact]:
    """Scrap that the plan allows for, in trillionths of a piece."""
    del times
    facts: dict[str, int] = {}
    for _, (quantity, planned_milli), count in rises:
        if quantity is not None and planned_milli is not None and quantity + planned_milli > 0:
            allowed = Fraction(planned_milli * count, quantity * 1_000 + planned_milli)
            facts["planned_scrap_pico"] = facts.get("planned_scrap_pico", 0) + round(
                _PICO * allowed
            )
    return dict(facts)


_PLAN = Situations(
    "scrap_plan",
    (Component("quantity"), Component("planned_scrap", scale=1_000)),
    ("produced",),
    _plan,
)
_FIRST = Situations(
    "first_operation", (), ("entered", "scrapped"),
    lambda _, rises: _sums(rises, ("first_entered", "all_scrapped")),
)  # fmt: skip


def _sums(rises: Rises, names: tuple[str, ...]) -> dict[str, Fact]:
    facts: dict[str, int] = {}
    for counter, _, count in rises:
        facts[names[counter]] = facts.get(names[counter], 0) + count
    return dict(facts)


def scrap_ratio(facts: Facts) -> float | None:
    return ratio(number(facts, "scrap") or 0, number(facts, "produced"))


def rework_ratio(facts: Facts) -> float | None:
    return ratio(number(facts, "rework") or 0, number(facts, "produced"))


def first_pass_yield(facts: Facts) -> float | None:
    return ratio(number(facts, "first_pass") or 0, number(facts, "inspected"))


def planned_scrap(facts: Facts) -> float | None:
    return ratio(number(facts, "scrap") or 0, number(facts, "planned_scrap_pico"), _PICO)


def fall_off(facts: Facts) -> float | None:
    return ratio(number(facts, "all_scrapped") or 0, number(facts, "first_entered"))


def warm_up_scrap(facts: Facts) -> float | None:
    return ratio(number(facts, "warmup_scrap"), number(facts, "warmup_pieces"))


KPIS = (
    Kpi(
        name="scrap_ratio", unit="1", better="down", kinds=MACHINES, needs=(*COUNTED, "scrap"),
        summary="Share of produced pieces that are scrap.",
        formula="SQ / PQ", clause="ISO 22400-2 scrap ratio",
        measures=(UNIT,), value=scrap_ratio, rolls_up=True, pool=CELL,
        terms=TERMS,
    ),
    Kpi(
        name="rework_ratio", unit="1", better="down", kinds=MACHINES, needs=(*COUNTED, "rework"),
        summary="Share of produced pieces that must be reworked.",
        formula="RQ / PQ", clause="ISO 22400-2 rework ratio",
        measures=(UNIT,), value=rework_ratio, rolls_up=True, pool=CELL,
        terms=TERMS,
    ),
    Kpi(
        name="first_pass_yield", unit="1", better="up", kinds=MACHINES,
        needs=("state", "inspected", "first_pass"),
        summary="Share of inspected pieces that were good at once, without rework. Of one "
        "operation: over several the yields multiply, so it does not roll up.",
        formula="GP / IP", clause="ISO 22400-2 first pass yield",
        measures=(UNIT,), value=first_pass_yield,
        terms=TERMS,
    ),
    Kpi(
        name="actual_to_planned_scrap", unit="1", index=True, better="down", kinds=MACHINES,
        needs=(*COUNTED, "scrap", "planned_scrap", "quantity"),
        summary="Scrap over what the plan allows for as many pieces: below 1 is better than plan. "
        "Where PQ is POQ + PSQ it is SQ / PSQ of the order; the plan is exact to 1e-12 of a piece.",
        formula="SQ / (PQ * PSQ / (POQ + PSQ))", clause="ISO 22400-2 actual to planned scrap ratio",
        measures=(UNIT, _PLAN), value=planned_scrap, rolls_up=True, pool=CELL, bounds=(0.0, None),
        terms=TERMS,
    ),
    Kpi(
        name="fall_off_ratio", unit="1", better="down", kinds=("material_flow",),
        needs=("entered", "scrapped"),
        summary="Scrap of all operations over what the first operation let in. In a short window "
        "the scrap may be of pieces that came in before, so it may exceed 1.",
        formula="SQ / PQ of the first operation", clause="ISO 22400-2 fall off ratio",
        measures=(_FIRST,), value=fall_off, rolls_up=True, bounds=(0.0, None),
    ),
    Kpi(
        name="warm_up_scrap_ratio", unit="1", better="down", kinds=("casting_cell",),
        needs=(*COUNTED, "scrap"),
        summary=f"Share of scrap among the first {PIECES} shots after a start (state STARTING).",
        formula=f"SQ / PQ of shots 1 to {PIECES}", clause="ISO 22400-2 scrap ratio, at warm-up",
        measures=(_WARMUP,), value=warm_up_scrap, rolls_up=True,
    ),
)  # fmt: skip
