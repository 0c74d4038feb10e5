"""How planned busy time is used (ISO 22400-2): allocation, utilisation, delay, set-up, load."""

from edge.kpi import Kpi, number, ratio
from edge.kpis.oee import (
    CELL,
    COUNTED,
    MACHINES,
    TERMS,
    UNIT,
    aubt_ns,
    aupt_ns,
    planned_run_us,
    seen_ns,
)
from edge.measures import Facts

UNITS = (*MACHINES, "cable_line")


def allocation(facts: Facts) -> float | None:
    return ratio(aubt_ns(facts), seen_ns(facts))


def utilisation(facts: Facts) -> float | None:
    return ratio(number(facts, "apt_ns") or 0, aubt_ns(facts))


def technical(facts: Facts) -> float | None:
    apt_ns = number(facts, "apt_ns") or 0
    return ratio(apt_ns, apt_ns + (number(facts, "adet_ns") or 0))


def set_up(facts: Facts) -> float | None:
    return ratio(number(facts, "aust_ns") or 0, aupt_ns(facts))


def load(facts: Facts) -> float | None:
    return ratio(planned_run_us(facts), seen_ns(facts), 1_000)


KPIS = (
    Kpi(
        name="allocation_efficiency", unit="1", better="up", kinds=UNITS, needs=("state",),
        summary="Share of planned busy time in which the unit is used for an order.",
        formula="AUBT / PBT, AUBT = APT + AUST + ADET",
        clause="ISO 22400-2 allocation efficiency",
        measures=(UNIT,), value=allocation, rolls_up=True, pool=CELL,
        terms=TERMS,
    ),
    Kpi(
        name="utilisation_efficiency", unit="1", better="up", kinds=UNITS, needs=("state",),
        summary="Share of busy time spent producing.",
        formula="APT / AUBT", clause="ISO 22400-2 utilization efficiency",
        measures=(UNIT,), value=utilisation, rolls_up=True, pool=CELL,
        terms=TERMS,
    ),
    Kpi(
        name="technical_efficiency", unit="1", better="up", kinds=UNITS, needs=("state",),
        summary="Share of time producing of that and delays: malfunctions, starving, blocking.",
        formula="APT / (APT + ADET)", clause="ISO 22400-2 technical efficiency",
        measures=(UNIT,), value=technical, rolls_up=True, pool=CELL,
        terms=TERMS,
    ),
    Kpi(
        name="setup_ratio", unit="1", better="down", kinds=UNITS, needs=("state",),
        summary="Share of processing time spent on set-up.",
        formula="AUST / AUPT, AUPT = APT + AUST", clause="ISO 22400-2 setup ratio",
        measures=(UNIT,), value=set_up, rolls_up=True, pool=CELL,
        terms=TERMS,
    ),
    Kpi(
        name="equipment_load_ratio", unit="1", better="", kinds=CELL, needs=COUNTED,
        summary="What was produced over what the planned busy time has room for, each piece at "
        "the planned run time of its order; above 1 where the plan is too easy.",
        formula="PQ / EPC, EPC = PBT / PRI", clause="ISO 22400-2 equipment load ratio",
        measures=(UNIT,), value=load, rolls_up=True, bounds=(0.0, None),
        terms=TERMS,
    ),
)  # fmt: skip
