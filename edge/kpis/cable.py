"""Cable lines: how fast good cable comes off the line, and what it costs in energy."""

from edge.kpi import Kpi, number, ratio
from edge.kpis.oee import UNIT, seen_ns
from edge.measures import Facts
from edge.measures.flows import Flows

_NEEDS = ("state", "length_m", "scrap_m")
_LENGTH, _SCRAP, _ENERGY = Flows("length_m"), Flows("scrap_m"), Flows("energy_kwh")


def good_um(facts: Facts) -> int | None:
    """Good length in millionths of a metre."""
    length = number(facts, "length_m")
    return None if length is None else length - (number(facts, "scrap_m") or 0)


def line_speed(facts: Facts) -> float | None:
    return ratio(good_um(facts), seen_ns(facts), 1_000)


def running_speed(facts: Facts) -> float | None:
    return ratio(number(facts, "length_m"), number(facts, "apt_ns"), 1_000)


def metres(facts: Facts) -> float | None:
    return ratio(good_um(facts), 1_000_000)


def energy_per_metre(facts: Facts) -> float | None:
    return ratio(number(facts, "energy_kwh"), number(facts, "length_m"))


KPIS = (
    Kpi(
        name="line_speed", unit="m/s", better="up", kinds=("cable_line",), needs=_NEEDS,
        summary="Good metres over planned busy time.",
        formula="(length - scrap) / PBT", clause="ISO 22400-2 throughput rate, per planned time",
        measures=(UNIT, _LENGTH, _SCRAP), value=line_speed,
    ),
    Kpi(
        name="running_speed", unit="m/s", better="up", kinds=("cable_line",), needs=_NEEDS,
        summary="Metres over the time the line produced.",
        formula="length / APT", clause="ISO 22400-2 actual production time",
        measures=(UNIT, _LENGTH), value=running_speed,
    ),
    Kpi(
        name="good_length", unit="m", better="up", kinds=("cable_line",), needs=_NEEDS,
        summary="Good metres of cable.",
        formula="length - scrap", clause="ISO 22400-2 good quantity",
        measures=(_LENGTH, _SCRAP), value=metres, rolls_up=True,
    ),
    Kpi(
        name="energy_per_metre", unit="kW.h/m", better="down", kinds=("cable_line",),
        needs=("energy_kwh", "length_m"),
        summary="Electrical energy per metre of cable.",
        formula="energy / length", clause="ISO 22400-2 comprehensive energy consumption",
        measures=(_ENERGY, _LENGTH), value=energy_per_metre, rolls_up=True,
    ),
)  # fmt: skip
