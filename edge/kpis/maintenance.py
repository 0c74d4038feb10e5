"""Failures and maintenance (ISO 22400-2): MTBF, MTTF, MTTR with both divisors, and repairs' share.

A failure event (FE) is a change, in planned busy time with an order, from outside into the states
of an internal cause: HOLDING, HELD, UNHOLDING, ABORTING, ABORTED, CLEARING. Times are those of the
window: what a failure or a repair has of its neighbours is theirs.

The usual estimator divides by FE. The published standard divides by FE + 1, which gives a value
where nothing failed, and a smaller one otherwise: those KPIs end in ``_iso``.
"""

from collections.abc import Callable

from config.units import NS_PER_S
from edge.kpi import Kpi, number, ratio
from edge.kpis.oee import CELL, TERMS, UNIT, aupt_ns, seen_ns
from edge.kpis.time import UNITS
from edge.measures import Facts

_HOUR_NS = 3_600 * NS_PER_S


def failures(facts: Facts) -> float | None:
    return float(number(facts, "failures") or 0) if seen_ns(facts) else None


def _ttr_ns(facts: Facts) -> int:
    return number(facts, "ttr_ns") or 0


def _ttf_ns(facts: Facts) -> int:
    return number(facts, "ttf_ns") or 0


def _mean(spent_ns: Callable[[Facts], int], more: int) -> Callable[[Facts], float | None]:
    def value(facts: Facts) -> float | None:
        if not seen_ns(facts):
            return None
        events = (number(facts, "failures") or 0) + more
        return ratio(spent_ns(facts), events * _HOUR_NS)

    return value


def corrective(facts: Facts) -> float | None:
    spent_ns = number(facts, "cmt_ns") or 0
    return ratio(spent_ns, spent_ns + (number(facts, "pmt_ns") or 0))


def _means(
    name: str, spent_ns: Callable[[Facts], int], words: str, formula: str, better: str, clause: str
) -> tuple[Kpi, ...]:
    return (
        Kpi(
            name=name, unit="h", better=better, kinds=UNITS, needs=("state",),
            summary=f"{words}, per failure event: the usual estimator.",
            formula=f"{formula} / FE", clause=f"ISO 22400-2 {clause}, divisor FE",
            measures=(UNIT,), value=_mean(spent_ns, 0), rolls_up=True, pool=CELL,
            terms=TERMS,
        ),
        Kpi(
            name=f"{name}_iso", unit="h", better=better, kinds=UNITS, needs=("state",),
            summary=f"{words}, per failure event and one more, as the standard divides it; of one "
            "unit, since every unit has its own one more.",
            formula=f"{formula} / (FE + 1)", clause=f"ISO 22400-2 {clause}, divisor FE + 1",
            measures=(UNIT,), value=_mean(spent_ns, 1),
            terms=TERMS,
        ),
    )  # fmt: skip


KPIS = (
    Kpi(
        name="failures", unit="{event}", better="down", kinds=UNITS, needs=("state",),
        summary="How often the unit went, in planned busy time with an order, into HOLDING, HELD, "
        "UNHOLDING, ABORTING, ABORTED or CLEARING from any other state.",
        formula="FE", clause="ISO 22400-2 failure event",
        measures=(UNIT,), value=failures, rolls_up=True, pool=CELL,
        terms=TERMS,
    ),
    *_means("mtbf", aupt_ns, "Processing time, without delays", "TBF = AUPT", "up",
            "mean operating time between failures"),
    *_means("mttf", _ttf_ns, "Planned busy time in which the unit was able to produce",
            "TTF = PBT - TTR - maintenance outside it", "up", "mean time to failure"),
    *_means("mttr", _ttr_ns, "Planned busy time stopped for an internal cause",
            "TTR = PBT in the states of a failure", "down", "mean time to restoration"),
    Kpi(
        name="corrective_maintenance_ratio", unit="1", better="down", kinds=UNITS,
        needs=("state", "maintenance"),
        summary="Share of repairs in all maintenance whose kind is told, planned or not.",
        formula="CMT / (CMT + PMT)", clause="ISO 22400-2 corrective maintenance ratio",
        measures=(UNIT,), value=corrective, rolls_up=True, pool=UNITS,
        terms=TERMS,
    ),
)  # fmt: skip
