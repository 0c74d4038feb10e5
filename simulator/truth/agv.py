"""Truth of vehicles: missions, empty driving, waiting for way or link, charge of the battery."""

from bisect import bisect_left, bisect_right
from fractions import Fraction

from config.units import NS_PER_S
from simulator.devices.agv import Agv, Battery
from simulator.truth.evidence import Family, Number, Peaks, Sums, Values
from simulator.truth.windows import Run, Windows, any_of, entries, none_of, plain

_FINE = 10**12
"""Steps in which the least charge is told."""


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
    return [Family(sums, _of_vehicles, pooled=True), *_battery(agv.battery, run.end_ns, w)]


def _of_charge(s: Sums) -> Values:
    yield "agv_battery_mean", s.ratios("charge", "time")


def _of_emptiness(p: Peaks) -> Values:
    yield "agv_battery_min", [None if n is None else 1.0 - n / _FINE for n in p.highest]


def _battery(battery: Battery, end_ns: int, w: Windows) -> list[Family]:
    """The area under its charge, exact, and its lowest point: at a bend, or at a window's end."""
    pieces = battery.bends(end_ns)
    times = [t_ns for t_ns, _, _ in pieces]
    areas = [0]
    """Twice that up to each bend, in units of the capacity."""
    for (t_ns, charge, draw), next_ns in zip(pieces, times[1:], strict=False):
        lasted = next_ns - t_ns
        areas.append(areas[-1] + (2 * charge - draw * lasted) * lasted)

    def at(t_ns: int) -> tuple[int, int]:
        place = bisect_right(times, t_ns) - 1
        since_ns, charge, draw = pieces[place]
        lost = draw * (t_ns - since_ns)
        return charge - lost, areas[place] + (2 * charge - lost) * (t_ns - since_ns)

    charged, emptiest = list[Number](), list[int | None]()
    for a, b in zip(plain(w.a), plain(w.b), strict=True):
        (first, before), (last, after) = at(a), at(b)
        between = pieces[bisect_left(times, a) : bisect_right(times, b)]
        least = min(first, last, *(charge for _, charge, _ in between))
        charged.append(Fraction(after - before, 2 * battery.capacity))
        emptiest.append((battery.capacity - least) * _FINE // battery.capacity)
    sums = Sums({"charge": charged, "time": [*w.lengths]})
    return [
        Family(sums, _of_charge, pooled=True), Family(Peaks(emptiest), _of_emptiness, pooled=True)
    ]  # fmt: skip
