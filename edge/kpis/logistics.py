"""AGVs and material: utilisation of vehicles, WIP and its turnover days, throughput."""

from collections.abc import Iterator
from fractions import Fraction

from config.units import NS_PER_DAY, NS_PER_S
from edge.kpi import Kpi, number, ratio
from edge.measures import Fact, Facts
from edge.measures.levels import Levels
from edge.measures.situations import STATE_HOLD_NS, Component, Situation, Situations


def _describe(
    times: Iterator[tuple[Situation, int]], counts: Iterator[tuple[int, Situation, int]]
) -> dict[str, Fact]:
    del counts
    facts: dict[str, int] = {}
    for (mission, planned), spent_ns in times:
        if planned and mission is not None:
            facts["vehicle_seen_ns"] = facts.get("vehicle_seen_ns", 0) + spent_ns
            if mission:
                facts["mission_ns"] = facts.get("mission_ns", 0) + spent_ns
    return dict(facts)


_VEHICLE = Situations(
    "vehicle", (Component("mission", STATE_HOLD_NS), Component("planned")), (), _describe
)
_WIP = Levels()
_FLOW = Levels.channels


def utilisation(facts: Facts) -> float | None:
    return ratio(number(facts, "mission_ns") or 0, number(facts, "vehicle_seen_ns"))


def wip(facts: Facts) -> float | None:
    return ratio(number(facts, "wip_piece_ns"), number(facts, "wip_known_ns"))


def turnover_days(facts: Facts) -> float | None:
    """WIP over throughput: the known time cancels."""
    return ratio(number(facts, "wip_piece_ns"), number(facts, "departed"), Fraction(1, NS_PER_DAY))


def throughput(facts: Facts) -> float | None:
    return ratio(number(facts, "departed"), number(facts, "wip_known_ns"), 3_600 * NS_PER_S)


KPIS = (
    Kpi(
        name="agv_utilisation", unit="1", better="up", kinds=("agv",), needs=("mission",),
        summary="Share of planned busy time a vehicle is on a mission.",
        formula="mission time / PBT", clause="ISO 22400-2 allocation efficiency, for a vehicle",
        measures=(_VEHICLE,), value=utilisation, rolls_up=True,
    ),
    Kpi(
        name="wip", unit="{piece}", better="down", kinds=("material_flow",), needs=_FLOW,
        summary="Pieces in the shop, averaged over time.",
        formula="mean of entered - left - scrapped", clause="ISO 22400-2 work in process",
        measures=(_WIP,), value=wip, rolls_up=True,
    ),
    Kpi(
        name="wip_turnover_days", unit="d", better="down", kinds=("material_flow",), needs=_FLOW,
        summary="How long material stays, by Little's law: mean WIP over throughput per day.",
        formula="WIP / TH", clause="ISO 22400-2 inventory turns, inverted, scope WIP",
        measures=(_WIP,), value=turnover_days, rolls_up=True,
    ),
    Kpi(
        name="throughput", unit="{piece}/h", better="up", kinds=("material_flow",), needs=_FLOW,
        summary="Pieces that left for the warehouse per hour.",
        formula="left / time", clause="ISO 22400-2 throughput rate",
        measures=(_WIP,), value=throughput, rolls_up=True,
    ),
)  # fmt: skip
