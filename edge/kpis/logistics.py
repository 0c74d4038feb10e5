"""AGVs: utilisation, driving empty, time of a mission, waiting, charge of the battery."""

from config.units import NS_PER_S
from edge.kpi import Accuracy, Kpi, bins, number, ratio
from edge.measures import Fact, Facts
from edge.measures.situations import (
    STATE_HOLD_NS,
    Component,
    Rises,
    Situations,
    Times,
    Watch,
)


def _describe(times: Times, rises: Rises) -> dict[str, Fact]:
    facts: dict[str, int] = {}

    def add(name: str, amount: int) -> None:
        facts[name] = facts.get(name, 0) + amount

    for (mission, planned), spent_ns in times:
        if mission is None:
            continue
        if planned:
            add("vehicle_seen_ns", spent_ns)
        if mission:
            add("mission_any_ns", spent_ns)
            if planned:
                add("mission_ns", spent_ns)
    for _, (mission, _), count in rises:
        if mission is not None:
            add("missions", count)
    return dict(facts)


def _driving(times: Times, rises: Rises) -> dict[str, Fact]:
    del rises
    facts: dict[str, int] = {}
    for (driving, loaded), spent_ns in times:
        if driving and loaded is not None:
            facts["driving_ns"] = facts.get("driving_ns", 0) + spent_ns
            if not loaded:
                facts["empty_ns"] = facts.get("empty_ns", 0) + spent_ns
    return dict(facts)


def _waiting(times: Times, rises: Rises) -> dict[str, Fact]:
    del rises
    facts: dict[str, int] = {}
    for (mission, waiting), spent_ns in times:
        if mission and waiting is not None:
            facts["waiting_known_ns"] = facts.get("waiting_known_ns", 0) + spent_ns
            if waiting:
                facts["waiting_ns"] = facts.get("waiting_ns", 0) + spent_ns
    return dict(facts)


def _charge(times: Times, rises: Rises) -> dict[str, Fact]:
    del rises
    spent_at: dict[int, int] = {}
    for (charge,), spent_ns in times:
        if charge is not None:
            spent_at[charge] = spent_at.get(charge, 0) + spent_ns
    return {"battery_ns_bins": spent_at} if spent_at else {}


_MISSION = Component("mission", STATE_HOLD_NS)
_VEHICLE = Situations(
    "vehicle",
    (_MISSION, Component("planned", planned=True)),
    (),
    _describe,
    watch=Watch("mission", frozenset({1})),
)
_DRIVES = Situations(
    "drives",
    (Component("driving", STATE_HOLD_NS), Component("loaded", STATE_HOLD_NS)),
    (),
    _driving,
)
_WAITS = Situations("waits", (_MISSION, Component("waiting", STATE_HOLD_NS)), (), _waiting)

_STEPS = 10_000
"""Of the charge on the wire: 0.01 %."""
_BATTERY = Situations(
    "battery", (Component("battery_ratio", STATE_HOLD_NS, scale=_STEPS),), (), _charge
)
_FROM_STATE_TO_STATE = Accuracy(absolute=0.0084)
"""What a battery charged at 1 C gains in the 30 s that VDA 5050 allows from one state to the next,
and half a step of the wire."""


def utilisation(facts: Facts) -> float | None:
    return ratio(number(facts, "mission_ns") or 0, number(facts, "vehicle_seen_ns"))


def empty(facts: Facts) -> float | None:
    return ratio(number(facts, "empty_ns") or 0, number(facts, "driving_ns"))


def mission_time(facts: Facts) -> float | None:
    missions = number(facts, "missions")
    return ratio(number(facts, "mission_any_ns") or 0, missions and missions * NS_PER_S)


def waiting(facts: Facts) -> float | None:
    return ratio(number(facts, "waiting_ns") or 0, number(facts, "waiting_known_ns"))


def battery_min(facts: Facts) -> float | None:
    return ratio(min(bins(facts, "battery_ns_bins"), default=None), _STEPS)


def battery_mean(facts: Facts) -> float | None:
    spent_at = bins(facts, "battery_ns_bins")
    total = sum(charge * spent_ns for charge, spent_ns in spent_at.items())
    return ratio(total, sum(spent_at.values()) * _STEPS)


KPIS = (
    Kpi(
        name="agv_utilisation", unit="1", better="up", kinds=("agv",), needs=("mission",),
        summary="Share of planned busy time a vehicle is on a mission.",
        formula="mission time / PBT", clause="ISO 22400-2 allocation efficiency, for a vehicle",
        measures=(_VEHICLE,), value=utilisation, rolls_up=True,
    ),
    Kpi(
        name="agv_mission_time", unit="s", better="down", kinds=("agv",), needs=("mission",),
        summary="Mean time of a mission: time on missions over missions begun in the window, so "
        "one that crosses its edge weighs on both sides.",
        formula="mission time / missions begun", clause="VDA 5050 order, first node to last action",
        measures=(_VEHICLE,), value=mission_time, rolls_up=True,
    ),
    Kpi(
        name="agv_empty_ratio", unit="1", better="down", kinds=("agv",),
        needs=("driving", "loaded"),
        summary="Share of driving time without a load.",
        formula="driving time without load / driving time", clause="VDA 5050 driving, loads",
        measures=(_DRIVES,), value=empty, rolls_up=True,
    ),
    Kpi(
        name="agv_waiting_ratio", unit="1", better="down", kinds=("agv",),
        needs=("mission", "waiting"),
        summary="Share of time on missions that a vehicle stands for want of a base, of the link, "
        "or paused; handling its load is no waiting.",
        formula="waiting time on missions / mission time",
        clause="VDA 5050 newBaseRequest, paused, errors, while not driving",
        measures=(_WAITS,), value=waiting, rolls_up=True,
    ),
    Kpi(
        name="agv_battery_min", unit="1", better="up", kinds=("agv",), needs=("battery_ratio",),
        summary="Least state of charge, exact in the steps of the wire (0.01 %); of a group, of "
        "its emptiest vehicle.",
        formula="min of battery_ratio", clause="VDA 5050 batteryState.batteryCharge",
        measures=(_BATTERY,), value=battery_min, rolls_up=True, accuracy=_FROM_STATE_TO_STATE,
    ),
    Kpi(
        name="agv_battery_mean", unit="1", better="up", kinds=("agv",), needs=("battery_ratio",),
        summary="State of charge, averaged over the time it is known.",
        formula="time mean of battery_ratio", clause="VDA 5050 batteryState.batteryCharge",
        measures=(_BATTERY,), value=battery_mean, rolls_up=True, accuracy=_FROM_STATE_TO_STATE,
    ),
)  # fmt: skip
