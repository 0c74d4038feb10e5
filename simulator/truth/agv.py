"""Truth of vehicles: missions, empty driving, and waiting for way or link."""

from fractions import Fraction

from config.units import NS_PER_S
from simulator.devices.agv import Agv
from simulator.truth.evidence import Family, Sums, Values
from simulator.truth.windows import Run, Windows, any_of, entries, none_of


def _of_vehicles(s: Sums) -> Values:
    yield "agv_utilisation", s.ratios("planned_on", "planned")
    yield "agv_mission_time", s.ratios("on", "missions", Fraction(1, NS_PER_S))
    yield "agv_empty_ratio", s.ratios("empty", "driving")
    yield "agv_waiting_ratio", s.ratios("stands", "on")


def vehicle(run: Run, agv: Agv, w: Windows) -> list[Family]:
    """Of one vehicle."""
    on, driving = (agv.mission, any_of), (agv.driving, any_of)
    empty, plan = (agv.loaded, none_of), (run.planned, any_of)
    halted, waited = (run.spent(w, on, (log.rate, any_of)) for log in (agv.halted, agv.waited))
    t_ns, missions = entries(agv.mission, run.end_ns)
    sums = Sums({
        "planned": run.spent(w, plan),
        "planned_on": run.spent(w, plan, on),
        "on": run.spent(w, on),
        "driving": run.spent(w, driving),
        "empty": run.spent(w, driving, empty),
        "stands": [a + b for a, b in zip(halted, waited, strict=True)],
        "missions": w.totals(t_ns[1:], any_of(missions[1:])),
    })  # fmt: skip
    return [Family(sums, _of_vehicles, pooled=True)]
