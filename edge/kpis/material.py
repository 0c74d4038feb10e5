"""Material: WIP, its turnover days in three forms, throughput, turns, goods and losses.

The three forms of turnover days, which agree in a steady state:

    (a) wip_turnover_days    time-average WIP / throughput         (Little's law)
    (b) wip_age_days         mean age of the pieces that left
    (c) wip_inventory_days   calendar days / inventory turns       (of average WIP)

Over a window (a) and (b) differ by what lies in the shop at its two ends. Form (c) equals (a) by
algebra, since the average inventory is the one over time and the scope is WIP alone.
"""

from fractions import Fraction

from config.units import NS_PER_DAY, NS_PER_S
from edge.kpi import Kpi, Term, counted, number, ratio
from edge.measures import Fact, Facts
from edge.measures.flows import MICRO, Flows
from edge.measures.levels import Levels
from edge.measures.situations import Rises, Situations, Times

_WIP = Levels()
_FLOW = Levels.channels
_DAYS = 365
_MILLI = 1_000
_DAY_S = NS_PER_DAY // NS_PER_S


def _ages(times: Times, rises: Rises) -> dict[str, Fact]:
    """Pieces that left, and their ages in seconds, both in thousandths."""
    del times
    facts: dict[str, int] = {}
    for counter, _, count in rises:
        name = ("aged_milli", "age_milli_s")[counter]
        facts[name] = facts.get(name, 0) + count
    return dict(facts)


_AGES = Situations("ages", (), ("left", "age_piece_s"), _ages, scale=_MILLI)


def _leads(times: Times, rises: Rises) -> dict[str, Fact]:
    """Orders that were finished, and their lead times in seconds, both in thousandths."""
    del times
    facts: dict[str, int] = {}
    for counter, _, count in rises:
        name = ("finished_milli", "lead_milli_s")[counter]
        facts[name] = facts.get(name, 0) + count
    return dict(facts)


_LEADS = Situations("leads", (), ("orders_finished", "lead_order_s"), _leads, scale=_MILLI)


def wip(facts: Facts) -> float | None:
    return ratio(number(facts, "wip_piece_ns"), number(facts, "wip_known_ns"))


def turnover_days(facts: Facts) -> float | None:
    """WIP over throughput: the known time cancels."""
    return ratio(number(facts, "wip_piece_ns"), number(facts, "departed"), Fraction(1, NS_PER_DAY))


def age_days(facts: Facts) -> float | None:
    return ratio(
        number(facts, "age_milli_s") or 0, number(facts, "aged_milli"), Fraction(1, _DAY_S)
    )


def lead_days(facts: Facts) -> float | None:
    return ratio(
        number(facts, "lead_milli_s") or 0, number(facts, "finished_milli"), Fraction(1, _DAY_S)
    )


def _turns(facts: Facts) -> Fraction | None:
    """Throughput per year over average WIP."""
    left, piece_ns = number(facts, "departed"), number(facts, "wip_piece_ns")
    if left is None or not piece_ns:
        return None
    return Fraction(left * _DAYS * NS_PER_DAY, piece_ns)


def turns(facts: Facts) -> float | None:
    found = _turns(facts)
    return None if found is None else float(found)


def inventory_days(facts: Facts) -> float | None:
    found = _turns(facts)
    return float(_DAYS / found) if found else None


def throughput(facts: Facts) -> float | None:
    return ratio(number(facts, "departed"), number(facts, "wip_known_ns"), 3_600 * NS_PER_S)


def _mean_wip(facts: Facts) -> Fraction | None:
    held, known_ns = number(facts, "wip_piece_ns"), number(facts, "wip_known_ns")
    return Fraction(held, known_ns) if held is not None and known_ns else None


def _per_day(facts: Facts) -> Fraction | None:
    left, known_ns = number(facts, "departed"), number(facts, "wip_known_ns")
    return Fraction(left * NS_PER_DAY, known_ns) if left is not None and known_ns else None


_STOCK = {"WIP": Term("{piece}", _mean_wip), "TH": Term("{piece}/d", _per_day)}
_GOODS = {
    symbol: counted(channel, "", Fraction(1, MICRO))
    for symbol, channel in (
        ("CM", "consumed"), ("GQ", "good"), ("IGQ", "integrated_good"),
        ("PL", "production_loss"), ("STL", "storage_loss"), ("OL", "other_loss"),
    )
}  # fmt: skip
"""Symbols of ISO 22400, in pieces."""


def _of_consumed(name: str, channel: str, better: str, summary: str, formula: str,
                 clause: str) -> Kpi:  # fmt: skip
    def value(facts: Facts) -> float | None:
        return ratio(number(facts, channel) or 0, number(facts, "consumed"))

    return Kpi(
        name=name, unit="1", better=better, kinds=("material_flow",), needs=("consumed", channel),
        summary=f"Share of consumed material that {summary}.",
        formula=formula, clause=f"ISO 22400-2 {clause}",
        measures=(Flows("consumed"), Flows(channel)), value=value, rolls_up=True,
        terms={symbol: _GOODS[symbol] for symbol in formula.split(" / ")},
    )  # fmt: skip


KPIS = (
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
        measures=(_WIP,), value=turnover_days, rolls_up=True, terms=_STOCK,
    ),
    Kpi(
        name="wip_age_days", unit="d", better="down", kinds=("material_flow",),
        needs=("left", "age_piece_s"),
        summary="How long material stays: mean age, from entry, of the pieces that left.",
        formula="sum of exit - entry / left", clause="ISO 22400-2 inventory turns, by ages",
        measures=(_AGES,), value=age_days, rolls_up=True,
    ),
    Kpi(
        name="wip_inventory_days", unit="d", better="down", kinds=("material_flow",), needs=_FLOW,
        summary="How long material stays, by the books: calendar days over inventory turns. With "
        "the average inventory over time, as here, it is wip_turnover_days by algebra.",
        formula="365 / inventory_turns", clause="ISO 22400-2 inventory turns, inverted, scope WIP",
        measures=(_WIP,), value=inventory_days, rolls_up=True,
    ),
    Kpi(
        name="inventory_turns", unit="{turn}/a", better="up", kinds=("material_flow",),
        needs=_FLOW,
        summary="How often the inventory is turned over, at the window's pace over a year of 365 "
        "days; scope WIP: no raw material, no finished goods.",
        formula="TH per year / average WIP", clause="ISO 22400-2 inventory turns, scope WIP",
        measures=(_WIP,), value=turns, rolls_up=True, terms=_STOCK,
    ),
    Kpi(
        name="throughput", unit="{piece}/h", better="up", kinds=("material_flow",), needs=_FLOW,
        summary="Pieces that left for the warehouse per hour.",
        formula="left / time", clause="ISO 22400-2 throughput rate",
        measures=(_WIP,), value=throughput, rolls_up=True,
    ),
    Kpi(
        name="order_lead_time", unit="d", better="down", kinds=("material_flow",),
        needs=("orders_finished", "lead_order_s"),
        summary="Mean time of the orders that were finished, from the release of the first lot "
        "until none of its pieces is in process.",
        formula="sum of finish - release / orders_finished",
        clause="ISO 22400-2 actual order execution time, over all units",
        measures=(_LEADS,), value=lead_days, rolls_up=True,
    ),
    _of_consumed("finished_goods_ratio", "good", "up", "became good finished goods", "GQ / CM",
                 "finished goods ratio"),
    _of_consumed("integrated_goods_ratio", "integrated_good", "up",
                 "became good goods, integrated over all stages", "IGQ / CM",
                 "integrated goods ratio"),
    _of_consumed("production_loss_ratio", "production_loss", "down", "production lost", "PL / CM",
                 "production loss ratio"),
    _of_consumed("storage_loss_ratio", "storage_loss", "down",
                 "storage and transport lost", "STL / CM",
                 "storage and transportation loss ratio"),
    _of_consumed("other_loss_ratio", "other_loss", "down", "was lost otherwise", "OL / CM",
                 "other loss ratio"),
)  # fmt: skip
