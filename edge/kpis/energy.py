"""Energy per produced piece."""

from edge.kpi import Kpi, number, ratio
from edge.kpis.oee import UNIT
from edge.measures import Facts
from edge.measures.flows import MICRO, Flows


def energy_per_unit(facts: Facts) -> float | None:
    energy, made = number(facts, "energy_kwh"), number(facts, "produced")
    return ratio(energy, made and made * MICRO)


KPIS = (
    Kpi(
        name="energy_per_unit", unit="kW.h/{piece}", better="down",
        kinds=("casting_cell", "machine", "robot_arm"), needs=("energy_kwh", "produced"),
        summary="Electrical energy per produced piece, good or not.",
        formula="energy / PQ", clause="ISO 22400-2 comprehensive energy consumption",
        measures=(Flows("energy_kwh"), UNIT), value=energy_per_unit,
    ),
)  # fmt: skip
