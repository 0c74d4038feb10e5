"""OEE, NEE and their factors (ISO 22400-2), from states, calendar, orders and counters."""

from collections.abc import Callable, Mapping
from fractions import Fraction

from config.units import NS_PER_S
from edge.iso22400 import (
    CORRECTIVE,
    DELAY,
    DOWN,
    FAILED,
    MAINTAINED,
    MAINTENANCE,
    PREVENTIVE,
    PRODUCTION,
    SETUP,
    element,
)
from edge.kpi import Kpi, Term, counted, number, ratio, seconds
from edge.measures import Fact, Facts
from edge.measures.situations import (
    STATE_HOLD_NS,
    Component,
    Rises,
    Situations,
    Times,
    Watch,
)

_FACT = {
    PRODUCTION: "apt_ns",
    SETUP: "aust_ns",
    DELAY: "adet_ns",
    DOWN: "adot_ns",
    CORRECTIVE: "maintained_ns",
    PREVENTIVE: "maintained_ns",
    MAINTAINED: "maintained_ns",
    None: "dark_ns",
}
_COUNTERS = ("produced", "scrap", "rework", "inspected", "first_pass", "failures")


def _describe(times: Times, rises: Rises) -> dict[str, Fact]:
    """Time elements within planned busy time, how long orders were on and maintenance went on at
    any time, pieces, and the time they were planned to take."""
    facts: dict[str, int] = {}

    def add(name: str, amount: int) -> None:
        facts[name] = facts.get(name, 0) + amount

    for (state, planned, order, _, mode, maintenance), spent_ns in times:
        seen = element(state, order, mode, maintenance) if planned is not None else None
        if order is not None and order > 0:
            add("aoet_ns", spent_ns)
            if seen is not None:
                add("aoet_seen_ns", spent_ns)
        if maintenance in MAINTENANCE:
            add(f"{MAINTENANCE[maintenance].lower()}_ns", spent_ns)
        if planned:
            where = _FACT[seen]
            add(where, spent_ns)
            add("pbt_ns", spent_ns)
            if where == "dark_ns":
                continue
            if state in FAILED:
                add("ttr_ns", spent_ns)
            elif where != "maintained_ns":
                add("ttf_ns", spent_ns)
    for counter, (state, planned, order, pri_us, *_), count in rises:
        name = _COUNTERS[counter]
        if name == "failures":
            if state is None or not planned or order is None or order <= 0:
                continue
        elif name == "produced" and state is not None:
            # Pieces made unheard have no time they could be held against: theirs is dark.
            if pri_us is None:
                add("unpaced", count)
            else:
                add("planned_run_us", pri_us * count)
        add(name, count)
    return dict(facts)


UNIT = Situations(
    "unit",
    (
        Component("state", STATE_HOLD_NS),
        Component("planned", planned=True),
        Component("order", planned=True),
        Component("pri_s", scale=1_000_000, planned=True),
        Component("mode"),
        Component("maintenance"),
    ),
    _COUNTERS[:-1],
    _describe,
    watch=Watch("state", FAILED),
)


def seen_ns(facts: Facts) -> int | None:
    """Planned busy time (PBT) of which there is evidence."""
    planned_ns = number(facts, "pbt_ns")
    return None if planned_ns is None else planned_ns - (number(facts, "dark_ns") or 0)


def aupt_ns(facts: Facts) -> int:
    """Processing time: production and set-up."""
    return (number(facts, "apt_ns") or 0) + (number(facts, "aust_ns") or 0)


def aubt_ns(facts: Facts) -> int:
    """Busy time: processing and delay."""
    return aupt_ns(facts) + (number(facts, "adet_ns") or 0)


def good(facts: Facts) -> int | None:
    """Pieces that are neither scrap nor to be reworked: GQ = PQ - SQ - RQ."""
    made = number(facts, "produced")
    if made is None:
        return None
    return made - (number(facts, "scrap") or 0) - (number(facts, "rework") or 0)


def availability(facts: Facts) -> float | None:
    return ratio(number(facts, "apt_ns") or 0, seen_ns(facts))


def planned_run_us(facts: Facts) -> int | None:
    """Time the pieces were planned to take; ``None`` where nobody planned some of them."""
    return None if number(facts, "unpaced") else number(facts, "planned_run_us") or 0


def effectiveness(facts: Facts) -> float | None:
    return ratio(planned_run_us(facts), number(facts, "apt_ns"), 1_000)


def quality(facts: Facts) -> float | None:
    return ratio(good(facts), number(facts, "produced"))


def index(facts: Facts, used_ns: int) -> Fraction | None:
    """The share of planned busy time that was ``used_ns``, times effectiveness and quality ratio,
    where APT and PQ cancel only on paper: it needs them. ``None``: no evidence."""
    under, made, fine = seen_ns(facts), number(facts, "produced"), good(facts)
    run_us, apt_ns = planned_run_us(facts), number(facts, "apt_ns")
    if not under or run_us is None:
        return None
    if not apt_ns or not made or fine is None:
        return Fraction(0)  # planned, seen, and it made nothing
    return Fraction(used_ns * run_us * 1_000 * fine, under * apt_ns * made)


def oee(facts: Facts) -> float | None:
    found = index(facts, number(facts, "apt_ns") or 0)
    return None if found is None else float(found)


def nee(facts: Facts) -> float | None:
    found = index(facts, aupt_ns(facts))
    return None if found is None else float(found)


def output(facts: Facts) -> float | None:
    fine = good(facts)
    if fine is None:
        return 0.0 if seen_ns(facts) else None
    return float(fine)


def _seconds(ns: Callable[[Facts], int | None]) -> Term:
    def amount(facts: Facts) -> Fraction | None:
        found = ns(facts)
        return None if found is None else Fraction(found, NS_PER_S)

    return Term("s", amount)


def _pri(facts: Facts) -> Fraction | None:
    made, run_us = number(facts, "produced"), number(facts, "planned_run_us")
    return Fraction(run_us, made * 1_000_000) if made and run_us is not None else None


def _epc(facts: Facts) -> Fraction | None:
    pri_s, pbt_ns = _pri(facts), seen_ns(facts)
    return Fraction(pbt_ns, NS_PER_S) / pri_s if pri_s and pbt_ns is not None else None


def _gq(facts: Facts) -> Fraction | None:
    found = good(facts)
    return None if found is None else Fraction(found)


TERMS: Mapping[str, Term] = {
    "APT": seconds("apt_ns"),
    "AUST": seconds("aust_ns"),
    "ADET": seconds("adet_ns"),
    "ADOT": seconds("adot_ns"),
    "AUPT": _seconds(aupt_ns),
    "AUBT": _seconds(aubt_ns),
    "PBT": _seconds(seen_ns),
    "AOET": seconds("aoet_ns"),
    "TTF": seconds("ttf_ns"),
    "TTR": seconds("ttr_ns"),
    "CMT": seconds("cmt_ns"),
    "PMT": seconds("pmt_ns"),
    "PRI": Term("s", _pri),
    "EPC": Term("", _epc),
    "FE": counted("failures"),
    "PQ": counted("produced"),
    "GQ": Term("", _gq),
    "SQ": counted("scrap"),
    "RQ": counted("rework"),
    "IP": counted("inspected"),
    "GP": counted("first_pass"),
}
"""Symbols of ISO 22400 that the facts of a unit give."""

CELL = ("casting_cell", "work_unit", "machine")
"""``machine`` is anything a mapping brings that is no shipped kind."""
MACHINES = (*CELL, "robot_arm")
COUNTED = ("state", "produced")

KPIS = (
    Kpi(
        name="availability", unit="1", better="up", kinds=MACHINES, needs=COUNTED,
        summary="Share of planned busy time spent producing.",
        formula="APT / PBT", clause="ISO 22400-2 availability",
        measures=(UNIT,), value=availability, rolls_up=True, pool=CELL,
        terms=TERMS,
    ),
    Kpi(
        name="effectiveness", unit="1", better="up", kinds=MACHINES, needs=COUNTED,
        summary="Planned time for what was produced over the time it took; may exceed 1.",
        formula="PRI * PQ / APT", clause="ISO 22400-2 effectiveness",
        measures=(UNIT,), value=effectiveness, rolls_up=True, pool=CELL, bounds=(0.0, None),
        terms=TERMS,
    ),
    Kpi(
        name="quality_ratio", unit="1", better="up", kinds=CELL, needs=(*COUNTED, "scrap"),
        summary="Share of produced pieces that are good.",
        formula="GQ / PQ, GQ = PQ - SQ - RQ", clause="ISO 22400-2 quality ratio",
        measures=(UNIT,), value=quality, rolls_up=True,
        terms=TERMS,
    ),
    Kpi(
        name="oee", unit="1", better="up", kinds=CELL, needs=(*COUNTED, "scrap"),
        summary="Share of planned busy time that became good pieces at the planned pace; above 1 "
        "where the plan is too easy.",
        formula="availability * effectiveness * quality_ratio", clause="ISO 22400-2 OEE index",
        measures=(UNIT,), value=oee, rolls_up=True, bounds=(0.0, None),
        terms=TERMS,
    ),
    Kpi(
        name="nee", unit="1", better="up", kinds=CELL, needs=(*COUNTED, "scrap"),
        summary="OEE where set-up is no loss.",
        formula="AUPT / PBT * effectiveness * quality_ratio", clause="ISO 22400-2 NEE index",
        measures=(UNIT,), value=nee, rolls_up=True, bounds=(0.0, None),
        terms=TERMS,
    ),
    Kpi(
        name="output", unit="{piece}", better="up", kinds=CELL, needs=(*COUNTED, "scrap"),
        summary="Good pieces produced.",
        formula="GQ = PQ - SQ - RQ", clause="ISO 22400-2 good quantity",
        measures=(UNIT,), value=output, rolls_up=True,
        terms=TERMS,
    ),
)  # fmt: skip
