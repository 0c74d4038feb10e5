"""Energy and CO2 per produced piece."""

from edge.kpi import Accuracy, Kpi, number, ratio
from edge.kpis.oee import MACHINES, TERMS, UNIT
from edge.measures import Fact, Facts
from edge.measures.flows import MICRO, Flows
from edge.measures.situations import Component, Rises, Situations, Times


def _describe(times: Times, rises: Rises) -> dict[str, Fact]:
    """CO2 in 1e-12 kg: energy times the grid's factor when it was drawn."""
    del times
    facts: dict[str, int] = {}
    for _, (factor,), count in rises:
        if factor is not None:
            facts["co2_pkg"] = facts.get("co2_pkg", 0) + factor * count
    return dict(facts)


CO2 = Situations(
    "co2",
    (Component("co2_kg_per_kwh", scale=MICRO),),
    ("energy_kwh",),
    _describe,
    scale=MICRO,
    closing=True,
)
CO2_NEEDS = ("energy_kwh", "co2_kg_per_kwh")
PKG = MICRO * MICRO
READ_EACH_SECOND = Accuracy(cut_s=4.0)
"""Of flow counters read once a second, of something whose pace is at most four times its mean."""


def energy_per_unit(facts: Facts) -> float | None:
    energy, made = number(facts, "energy_kwh"), number(facts, "produced")
    return ratio(energy, made and made * MICRO)


def co2_per_unit(facts: Facts) -> float | None:
    made = number(facts, "produced")
    return ratio(number(facts, "co2_pkg"), made and made * PKG)


KPIS = (
    Kpi(
        name="energy_per_unit", unit="kW.h/{piece}", better="down", kinds=MACHINES,
        needs=("energy_kwh", "produced"),
        summary="Electrical energy per produced piece, good or not.",
        formula="energy / PQ", clause="ISO 22400-2 comprehensive energy consumption",
        measures=(Flows("energy_kwh"), UNIT), value=energy_per_unit,
        terms=TERMS, accuracy=READ_EACH_SECOND,
    ),
    Kpi(
        name="co2_per_unit", unit="kg/{piece}", better="down", kinds=MACHINES,
        needs=(*CO2_NEEDS, "produced"),
        summary="CO2 of the electricity per produced piece, good or not, by the grid's factor as "
        "it is published; no factor is assumed.",
        formula="integral of co2_kg_per_kwh over energy / PQ",
        clause="ISO 22400-2 comprehensive energy consumption, as CO2",
        measures=(CO2, UNIT), value=co2_per_unit,
        terms=TERMS, accuracy=READ_EACH_SECOND,
    ),
)  # fmt: skip
