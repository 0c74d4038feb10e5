"""Personnel: worker efficiency (ISO 22400-2), and output per head in pieces and in value."""

from fractions import Fraction

from config.units import NS_PER_DAY, NS_PER_S
from edge.kpi import Kpi, counted, number, ratio
from edge.measures import Fact, Facts
from edge.measures.situations import Component, Rises, Situations, Times

_MILLI, _MICRO = 1_000, 1_000_000
_YEAR_NS = 365 * NS_PER_DAY


def _work(times: Times, rises: Rises) -> dict[str, Fact]:
    """Attendance and work in thousandths of a person, times ns."""
    del rises
    facts: dict[str, int] = {}
    for (attending, working), spent_ns in times:
        if attending is not None and working is not None:
            facts["apat_milli_ns"] = facts.get("apat_milli_ns", 0) + attending * spent_ns
            facts["apwt_milli_ns"] = facts.get("apwt_milli_ns", 0) + working * spent_ns
    return dict(facts)


def _share(times: Times, rises: Rises) -> dict[str, Fact]:
    """Time of persons, and what left while it is known how many they are."""
    facts: dict[str, int] = {}

    def add(name: str, amount: int) -> None:
        facts[name] = facts.get(name, 0) + amount

    for (heads, _), spent_ns in times:
        if heads is not None:
            add("heads_milli_ns", heads * spent_ns)
    for _, (heads, value_micro), count in rises:
        if heads is not None:
            add("shared_left", count)
            if value_micro is not None:
                add("shared_micro_cny", value_micro * count)
    return dict(facts)


_CREW = Situations(
    "crew",
    (Component("attending", scale=_MILLI), Component("working", scale=_MILLI)),
    (),
    _work,
)
_HEADS = Situations(
    "heads",
    (Component("heads", scale=_MILLI), Component("value_cny", scale=_MICRO)),
    ("left",),
    _share,
)


def worker_efficiency(facts: Facts) -> float | None:
    return ratio(number(facts, "apwt_milli_ns"), number(facts, "apat_milli_ns"))


def output_per_head(facts: Facts) -> float | None:
    hour = 3_600 * NS_PER_S * _MILLI
    return ratio(number(facts, "shared_left") or 0, number(facts, "heads_milli_ns"), hour)


def value_per_head(facts: Facts) -> float | None:
    year = Fraction(_YEAR_NS * _MILLI, _MICRO)
    return ratio(number(facts, "shared_micro_cny") or 0, number(facts, "heads_milli_ns"), year)


KPIS = (
    Kpi(
        name="worker_efficiency", unit="1", better="up", kinds=("crew",),
        needs=("attending", "working"),
        summary="Share of attendance spent at work, over all persons.",
        formula="APWT / APAT, integrals of persons at work and persons present",
        clause="ISO 22400-2 worker efficiency",
        measures=(_CREW,), value=worker_efficiency, rolls_up=True,
        terms={
            "APAT": counted("apat_milli_ns", "s", Fraction(1, _MILLI * NS_PER_S)),
            "APWT": counted("apwt_milli_ns", "s", Fraction(1, _MILLI * NS_PER_S)),
        },
    ),
    Kpi(
        name="output_per_head", unit="{piece}/{person}/h", better="up", kinds=("material_flow",),
        needs=("left", "heads"),
        summary="Pieces that left per person and hour; every hour counts, planned or not.",
        formula="left / integral of heads", clause="labour productivity, in pieces",
        measures=(_HEADS,), value=output_per_head, rolls_up=True,
    ),
    Kpi(
        name="value_per_head", unit="{CNY}/{person}/a", better="up", kinds=("material_flow",),
        needs=("left", "heads", "value_cny"),
        summary="Value added per person, at the window's pace over a year of 365 days.",
        formula="left * value per piece / integral of heads",
        clause="labour productivity, in value added",
        measures=(_HEADS,), value=value_per_head, rolls_up=True,
    ),
)  # fmt: skip
