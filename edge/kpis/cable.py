"""Cable lines: how fast good cable comes off the line, how good it is, and what energy it costs."""

from config.units import NS_PER_S
from edge.kpi import Accuracy, Kpi, bins, number, quantile, ratio
from edge.kpis.energy import CO2, CO2_NEEDS, PKG, READ_EACH_SECOND
from edge.kpis.oee import TERMS, UNIT, seen_ns
from edge.measures import Facts
from edge.measures.flows import MICRO, Flows
from edge.measures.values import Values

_NEEDS = ("state", "length_m", "scrap_m")
_LENGTH, _SCRAP, _ENERGY = Flows("length_m"), Flows("scrap_m"), Flows("energy_kwh")
_FAULTS = Flows("spark_faults")
_MELT = Flows("melt_kg")
_STEPS = 10_000
_TO_HALF_A_STEP = Accuracy(absolute=0.5 / _STEPS)
_ECCENTRICITY = Values("eccentricity_ratio", _STEPS)
_ECCENTRIC = "IEC 60840, IEC 62067 eccentricity: (max - min wall) / max wall"


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


def co2_per_metre(facts: Facts) -> float | None:
    length = number(facts, "length_m")
    return ratio(number(facts, "co2_pkg"), length and length * (PKG // MICRO))


def melt_per_metre(facts: Facts) -> float | None:
    return ratio(number(facts, "melt_kg"), number(facts, "length_m"))


def melt_rate(facts: Facts) -> float | None:
    return ratio(number(facts, "melt_kg"), number(facts, "apt_ns"), 3_600 * NS_PER_S // MICRO)


def spark_faults(facts: Facts) -> float | None:
    return ratio(number(facts, "spark_faults") or 0, number(facts, "length_m"), 1_000)


def eccentricity(facts: Facts) -> float | None:
    histogram = bins(facts, "eccentricity_ratio_bins")
    total = sum(step * count for step, count in histogram.items())
    return ratio(total, sum(histogram.values()) * _STEPS)


def eccentricity_p95(facts: Facts) -> float | None:
    step = quantile(bins(facts, "eccentricity_ratio_bins"), 0.95)
    return None if step is None else step / _STEPS


KPIS = (
    Kpi(
        name="line_speed", unit="m/s", better="up", kinds=("cable_line",), needs=_NEEDS,
        summary="Good metres over planned busy time.",
        formula="(length - scrap) / PBT", clause="ISO 22400-2 throughput rate, per planned time",
        measures=(UNIT, _LENGTH, _SCRAP), value=line_speed,
        terms=TERMS, accuracy=READ_EACH_SECOND,
    ),
    Kpi(
        name="running_speed", unit="m/s", better="up", kinds=("cable_line",), needs=_NEEDS,
        summary="Metres over the time the line produced.",
        formula="length / APT", clause="ISO 22400-2 actual production time",
        measures=(UNIT, _LENGTH), value=running_speed,
        terms=TERMS, accuracy=READ_EACH_SECOND,
    ),
    Kpi(
        name="good_length", unit="m", better="up", kinds=("cable_line",), needs=_NEEDS,
        summary="Good metres of cable.",
        formula="length - scrap", clause="ISO 22400-2 good quantity",
        measures=(_LENGTH, _SCRAP), value=metres, rolls_up=True,
        accuracy=READ_EACH_SECOND,
    ),
    Kpi(
        name="energy_per_metre", unit="kW.h/m", better="down", kinds=("cable_line",),
        needs=("energy_kwh", "length_m"),
        summary="Electrical energy per metre of cable.",
        formula="energy / length", clause="ISO 22400-2 comprehensive energy consumption",
        measures=(_ENERGY, _LENGTH), value=energy_per_metre, rolls_up=True,
        accuracy=READ_EACH_SECOND,
    ),
    Kpi(
        name="co2_per_metre", unit="kg/m", better="down", kinds=("cable_line",),
        needs=(*CO2_NEEDS, "length_m"),
        summary="CO2 of the electricity per metre of cable, by the grid's factor as published.",
        formula="integral of co2_kg_per_kwh over energy / length",
        clause="ISO 22400-2 comprehensive energy consumption, as CO2",
        measures=(CO2, _LENGTH), value=co2_per_metre, rolls_up=True,
        accuracy=READ_EACH_SECOND,
    ),
    Kpi(
        name="melt_per_metre", unit="kg/m", better="", kinds=("cable_line",),
        needs=("melt_kg", "length_m"),
        summary="Insulation or sheath put on per metre of cable: what its walls weigh.",
        formula="melt / length", clause="mass balance of an extrusion line",
        measures=(_MELT, _LENGTH), value=melt_per_metre, rolls_up=True,
    ),
    Kpi(
        name="melt_rate", unit="kg/h", better="up", kinds=("cable_line",),
        needs=("state", "melt_kg"),
        summary="Insulation or sheath put on per hour of production, all extruders together; over "
        "3,600 times the running speed in m/s it is melt_per_metre.",
        formula="melt / APT", clause="mass balance of an extrusion line",
        measures=(UNIT, _MELT), value=melt_rate,
    ),
    Kpi(
        name="spark_faults_per_km", unit="{fault}/km", better="down", kinds=("cable_line",),
        needs=("spark_faults", "length_m"),
        summary="Faults the spark tester found per kilometre of cable, good or not.",
        formula="spark faults / length", clause="IEC 62230 spark test",
        measures=(_FAULTS, _LENGTH), value=spark_faults, rolls_up=True,
        accuracy=READ_EACH_SECOND,
    ),
    Kpi(
        name="eccentricity_mean", unit="1", better="down", kinds=("cable_line",),
        needs=("eccentricity_ratio",),
        summary="Mean eccentricity of the insulation, each reading to 0.01 %.",
        formula="mean of readings", clause=_ECCENTRIC,
        measures=(_ECCENTRICITY,), value=eccentricity, rolls_up=True, accuracy=_TO_HALF_A_STEP,
    ),
    Kpi(
        name="eccentricity_p95", unit="1", better="down", kinds=("cable_line",),
        needs=("eccentricity_ratio",),
        summary="Eccentricity that 95 % of readings keep, to 0.01 %.",
        formula="quantile 0.95, nearest rank", clause=_ECCENTRIC,
        measures=(_ECCENTRICITY,), value=eccentricity_p95, rolls_up=True, accuracy=_TO_HALF_A_STEP,
    ),
)  # fmt: skip
