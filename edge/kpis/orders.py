"""Orders on a unit (ISO 22400-2): throughput rate, allocation ratio, production process ratio.

The actual order execution time (AOET) here is the time with an order registered on the unit,
planned or not: over the window of an order it is that order's. Shares of it are of the part that
something is known of. An order that runs over several
units has one AOET and the sum of their busy times, which no one unit's telemetry tells; these
ratios are of one unit, at most 1, and never added up.
"""

from config.units import NS_PER_S
from edge.kpi import Kpi, number, ratio
from edge.kpis.oee import COUNTED, MACHINES, TERMS, UNIT, aubt_ns
from edge.kpis.time import UNITS
from edge.measures import Facts


def throughput_rate(facts: Facts) -> float | None:
    made = number(facts, "produced")
    if made is None and not number(facts, "aoet_seen_ns"):
        return None  # nothing was heard of the unit
    return ratio(made or 0, number(facts, "aoet_ns"), 3_600 * NS_PER_S)


def allocation_ratio(facts: Facts) -> float | None:
    return ratio(aubt_ns(facts), number(facts, "aoet_seen_ns"))


def process_ratio(facts: Facts) -> float | None:
    return ratio(number(facts, "apt_ns") or 0, number(facts, "aoet_seen_ns"))


KPIS = (
    Kpi(
        name="throughput_rate", unit="{piece}/h", better="up", kinds=MACHINES,
        needs=COUNTED,
        summary="Pieces per hour with an order on the unit.",
        formula="PQ / AOET, AOET of this unit: time with an order, planned or not",
        clause="ISO 22400-2 throughput rate",
        measures=(UNIT,), value=throughput_rate,
        terms=TERMS,
    ),
    Kpi(
        name="allocation_ratio", unit="1", better="up", kinds=UNITS, needs=("state",),
        summary="Share of the time with an order in which the unit is busy with it; the rest is "
        "waiting and unplanned time.",
        formula="AUBT / AOET, of this unit alone",
        clause="ISO 22400-2 allocation ratio",
        measures=(UNIT,), value=allocation_ratio,
        terms=TERMS,
    ),
    Kpi(
        name="production_process_ratio", unit="1", better="up", kinds=UNITS,
        needs=("state",),
        summary="Share of the time with an order in which the unit produces.",
        formula="APT / AOET, of this unit alone",
        clause="ISO 22400-2 production process ratio",
        measures=(UNIT,), value=process_ratio,
        terms=TERMS,
    ),
)  # fmt: skip
