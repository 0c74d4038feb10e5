"""The closed loop: a worse link costs metres of cable and minutes of arms and vehicles.

Every comparison is between two runs of one plant and one seed that differ in nothing but the link:
the same trips, cycles and stops are drawn, so that what is lost was lost to the link.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar, cast

import numpy as np
import pytest

from config.faults import Outage
from config.units import NS_PER_MS, NS_PER_S, parse_time
from ingest.packml import PackML
from simulator.device import SCAN_NS
from simulator.devices.agv import Agv
from simulator.devices.cable_line import CableLine
from simulator.devices.robot_arm import RobotArm
from simulator.link.link import Direction, Link
from simulator.link.profile import load_profile
from simulator.plant import Plant, make_plant
from simulator.plant.control import BEAT_NS
from simulator.plant.floor import Floor

START = parse_time("2026-01-05T00:00:00Z")
HOUR = 3_600 * NS_PER_S
UP, DOWN = Direction.UP, Direction.DOWN

FULL, SAFE, RAMP, WATCHDOG_NS = 1.2, 0.6, 0.05, 600 * NS_PER_MS
"""Of the cable line, in m/s, m/s, m/s2."""
LINE = {
    "name": "l", "kind": "cable_line", "area": "hall", "line": "l1", "speed_mps": FULL,
    "safe_speed_ratio": SAFE / FULL, "ramp_mps2": RAMP, "watchdog_ms": 600.0,
}  # fmt: skip
STEADY = LINE | {"mtbf_s": 1e12, "reel_m": 1e9}
"""It never stops of its own accord."""
WAY = [("cell", 0.0, 0.0), ("a", 40.0, 0.0), ("b", 80.0, 0.0), ("arm", 120.0, 0.0),
       ("c", 120.0, 40.0), ("store", 120.0, 80.0)]  # fmt: skip
SHOP = [
    {"name": "c", "kind": "casting_cell", "area": "hall", "line": "l1", "node": "cell"},
    {"name": "r", "kind": "robot_arm", "area": "hall", "line": "l1", "node": "arm"},
    {"name": "v", "kind": "agv", "area": "hall", "line": "l1", "node": "store", "charger": "store"},
]


def plant(*devices: Mapping[str, Any]) -> Plant:
    """Its single vehicle serves one cell and one arm, so that the link cannot change who does what;
    calls are far apart."""
    trim = [{"operation": "trim", "units": "r", "pri_s": 20.0}]
    routes = {"casting_cell": trim, "cable_line": list[Any]()}
    makers = {d["name"]: routes[d["kind"]] for d in devices if d["kind"] in routes}
    return make_plant(
        {
            "site": "s", "pieces_per_container": 8, "warehouse": "store",
            "calendar": {"shift": [{"start": "00:00", "end": "24:00"}]},
            "node": [{"name": name, "x_m": x, "y_m": y} for name, x, y in WAY],
            "edge": [{"between": [a, b]} for (a, *_), (b, *_) in pairwise(WAY)],
            "device": [*devices],
            "product": [
                {"name": name, "step": [{"operation": "make", "units": name, "pri_s": 1.0}, *trim]}
                for name, trim in makers.items()
            ],
            "order": [
                {"number": n, "unit": name, "product": name, "quantity": 10**6}
                for n, name in enumerate(makers, start=1)
            ],
        }
    )  # fmt: skip


class Wire:
    """A link of one delay; what is sent in a gap arrives with what is sent at its end."""

    def __init__(self, delay_ms: float, gaps: Mapping[Direction, tuple[int, int]]) -> None:
        self.delay_ns, self.gaps = round(delay_ms * NS_PER_MS), gaps

    def bearer(
        self, ue: str, direction: Direction, slice: str | None = None, *, trace: bool = False
    ) -> "WireBearer":
        del ue, slice, trace
        return WireBearer(self.delay_ns, *self.gaps.get(direction, (0, 0)))


@dataclass
class WireBearer:
    delay_ns: int
    from_ns: int
    to_ns: int
    last_ns: int = 0

    def move(self, t_ns: int, x_m: float, y_m: float) -> None:
        """A place changes nothing."""

    def send(self, t_ns: int, n_bytes: int) -> int:
        assert t_ns >= self.last_ns, "messages must be handed over in order of time"
        assert n_bytes > 0
        self.last_ns = t_ns
        return (self.to_ns if self.from_ns <= t_ns < self.to_ns else t_ns) + self.delay_ns

    def send_many(self, t_ns: Any, n_bytes: Any) -> Any:
        pairs = zip(t_ns.tolist(), n_bytes.tolist(), strict=True)
        return np.array([self.send(t, n) for t, n in pairs], dtype=np.int64)


def wire(delay_ms: float, **gaps: tuple[int, int]) -> Link:
    ways = {"up": UP, "down": DOWN}
    return cast(Link, Wire(delay_ms, {ways[name]: gap for name, gap in gaps.items()}))


def real(network: str, seed: int, outage_ns: int = 0, after_ns: int = HOUR) -> Link:
    faults = [Outage(kind="outage", after=after_ns, length=outage_ns)] if outage_ns else []
    return Link(load_profile(network), seed, None, faults, START)


def ran(made: Plant, link: Link, *, seed: int = 1, to_ns: int = START + 2 * HOUR) -> Floor:
    floor = Floor(made, link, seed, START)
    floor.run_to(to_ns)
    return floor


Kind = TypeVar("Kind")


def only(floor: Floor, kind: type[Kind]) -> Kind:
    return next(device for device in floor.devices if isinstance(device, kind))


def drawn_mm(floor: Floor) -> int:
    """Length of cable so far."""
    return int(only(floor, CableLine).length_mm(np.array([floor.env.now]))[0])


def drawn_on_the_way_mm(floor: Floor) -> int:
    """Length of cable summed over every full ten minutes: a line that happens to stand at the end
    has caught up by then."""
    times = np.arange(START + HOUR // 6, floor.env.now + 1, HOUR // 6)
    return int(only(floor, CableLine).length_mm(times).sum())


Route = tuple[str, ...]


def missions(floor: Floor) -> list[tuple[Route, int]]:
    """The nodes of each finished mission of the vehicle, and how long it took."""
    agv = only(floor, Agv)
    begun = {t_ns: now for t_ns, now in agv.situations(floor.env.now) if now.way}
    steps = list(zip(agv.mission.t, agv.mission.v, strict=True))
    return [
        (tuple(name for name, _ in begun[start].way), end - start)
        for (start, on), (end, _) in pairwise(steps)
        if on
    ]


def mission_costs(floors: list[Floor]) -> list[int]:
    """Time that each floor's vehicle took for the same transports: of each route as many as every
    floor has seen, for a slow link can also change which container calls first."""
    done = [missions(floor) for floor in floors]
    counts = [Counter(route for route, _ in one) for one in done]
    alike = counts[0]
    for count in counts[1:]:
        alike &= count
    assert alike.total() >= 8
    costs: list[int] = []
    for one in done:
        left = alike.copy()
        costs.append(0)
        for route, ns in one:
            if left[route]:
                left[route] -= 1
                costs[-1] += ns
    return costs


def wait_us(floor: Floor) -> list[int]:
    """How long the arm waited for its interlock before each piece."""
    return [wait for *_, wait in only(floor, RobotArm).cycles]


def never_better(costs: list[int]) -> bool:
    """From the best link to the worst, and worse in the end."""
    return all(a <= b for a, b in pairwise(costs)) and costs[0] < costs[-1]


# What each loop costs, exactly, on a link of one delay


@pytest.mark.parametrize("delay_ms", [0.0, 0.25, 40.0, 3_000.0])
def test_every_start_of_the_line_waits_for_its_permission(delay_ms: float) -> None:
    made = plant(LINE | {"set_up_s": 300.0, "reel_m": 2_500.0, "reel_change_s": 150.0})
    line = only(ran(made, wire(delay_ms)), CableLine)
    asks_ns = SCAN_NS + 2 * round(delay_ms * NS_PER_MS)
    states = list(zip(line.state.t, line.state.v, strict=True))
    assert (START + 301 * NS_PER_S + asks_ns, PackML.STARTING) in states
    stood = [
        after - since
        for (since, state), (after, _) in pairwise(states)
        if state == PackML.SUSPENDED
    ]
    assert len(stood) >= 2
    assert set(stood) == {150 * NS_PER_S + asks_ns}


@pytest.mark.parametrize("delay_ms", [1.0, 130.0])
@pytest.mark.parametrize("ways", [("up",), ("down",), ("up", "down")])
def test_an_open_loop_costs_the_area_between_the_speeds(
    ways: tuple[str, ...], delay_ms: float
) -> None:
    made, delay_ns = plant(STEADY), round(delay_ms * NS_PER_MS)
    whole = Floor(made, wire(delay_ms), 1, START)
    beat_ns = only(whole, CableLine).control.up.next_beat_ns
    whole.run_to(START + 2 * HOUR)
    cut_ns = START + HOUR
    last_ns = cut_ns - 1 - (cut_ns - 1 - beat_ns) % BEAT_NS  # the last heartbeat to come through
    silent_ns = last_ns + delay_ns + WATCHDOG_NS
    costs = [0]
    for gap_ms in (100, 300, 700, 1_500, 8_000, 12_500, 60_000, 900_000):
        end_ns = cut_ns + gap_ms * NS_PER_MS
        opens_ns = silent_ns + (delay_ns if ways == ("up",) else 0)  # control has to say it
        closes_ns = end_ns + delay_ns * (1 if ways == ("down",) else 2)  # hears, and says it
        opened = end_ns + delay_ns > silent_ns
        open_s = (closes_ns - opens_ns) / NS_PER_S if opened else 0.0
        floor = ran(made, wire(delay_ms, **dict.fromkeys(ways, (cut_ns, end_ns))))
        costs.append(drawn_mm(whole) - drawn_mm(floor))
        assert costs[-1] == pytest.approx(1000 * min(RAMP * open_s, FULL - SAFE) * open_s, abs=2)
    assert costs[:3] == [0, 0, 0]
    assert all(a < b for a, b in pairwise(costs[3:]))


def test_the_interlock_costs_its_round_trip_piece_by_piece() -> None:
    waits = {d: wait_us(ran(plant(*SHOP), wire(d))) for d in (0.0, 0.5, 20.0, 400.0)}
    assert len(waits[0.0]) >= 50
    assert all(set(waited) == {round(2_000 * delay)} for delay, waited in waits.items())


def test_a_longer_delay_costs_metres_and_minutes() -> None:
    made = plant(*SHOP, LINE | {"mtbf_s": 600.0})
    floors = [ran(made, wire(delay_ms)) for delay_ms in (0.1, 2.0, 30.0, 400.0, 2_500.0)]
    assert never_better([-drawn_on_the_way_mm(floor) for floor in floors])
    assert never_better(mission_costs(floors))
    pieces = [len(wait_us(floor)) for floor in floors]
    assert all(a >= b for a, b in pairwise(pieces))


# The same on networks as they are

NETWORKS = ("ethernet", "urllc-5g", "private-5g", "private-4g", "wifi-loaded")
"""From the best to the worst. Without roaming wifi-untuned is wifi-loaded."""
SEEDS = (1, 2)


@pytest.fixture(scope="module")
def worlds() -> dict[str, list[Floor]]:
    """75 minutes of a shop and a cable line on each network, once per seed."""
    made = plant(*SHOP, LINE | {"mtbf_s": 600.0})
    return {
        name: [ran(made, real(name, s), seed=s, to_ns=START + 5 * HOUR // 4) for s in SEEDS]
        for name in NETWORKS
    }


def test_a_worse_network_costs_metres(worlds: dict[str, list[Floor]]) -> None:
    assert never_better([-sum(map(drawn_on_the_way_mm, worlds[name])) for name in NETWORKS])


def test_a_worse_network_costs_minutes_per_piece(worlds: dict[str, list[Floor]]) -> None:
    waits = {name: [wait_us(floor) for floor in worlds[name]] for name in NETWORKS}
    pieces = [min(len(w) for w in column) for column in zip(*waits.values(), strict=True)]
    assert min(pieces) >= 25
    assert never_better(
        [
            sum(sum(waited[:n]) for waited, n in zip(waits[name], pieces, strict=True))
            for name in NETWORKS
        ]
    )


def test_a_worse_network_costs_minutes_per_mission(worlds: dict[str, list[Floor]]) -> None:
    """A vehicle feels what stalls for longer than its watchdog, and the base that comes late. Of
    that private 4G, with delays of 20 ms, has no more than private 5G: it is left out."""
    names = [name for name in NETWORKS if name != "private-4g"]
    by_seed = [mission_costs([*floors]) for floors in zip(*(worlds[n] for n in names), strict=True)]
    assert never_better([sum(costs) for costs in zip(*by_seed, strict=True)])


OUTAGES_S = (0.0, 0.1, 1.0, 3.0, 10.0, 40.0, 300.0)


def test_a_longer_outage_costs_metres() -> None:
    made = plant(STEADY)
    drawn = [drawn_mm(ran(made, real("private-5g", 1, round(s * NS_PER_S)))) for s in OUTAGES_S]
    assert never_better([-mm for mm in drawn])
    # TCP stalls beyond an outage's end, never shorter than it: the line is slow for at least that
    full_mm = 1000 * (FULL - SAFE) * (OUTAGES_S[-1] - 0.6 - 0.2)
    assert drawn[0] - drawn[-1] >= full_mm


def test_a_longer_outage_costs_the_minutes_of_a_mission() -> None:
    made, end_ns = plant(*SHOP), START + 3 * HOUR // 4
    mission = only(ran(made, real("private-5g", 1), to_ns=end_ns), Agv).mission
    assert mission.v[3] == 1, "the vehicle is on its second mission"
    after_ns = mission.t[3] + 20 * NS_PER_S - START
    links = [real("private-5g", 1, round(s * NS_PER_S), after_ns) for s in OUTAGES_S]
    done = [missions(ran(made, link, to_ns=end_ns)) for link in links]
    assert never_better([ns for (_, ns) in (one[1] for one in done)])
    assert len({one[0] for one in done}) == 1, "the first mission was over before"


def test_a_longer_outage_costs_the_minutes_of_a_piece() -> None:
    made = plant(*SHOP)
    cycles = only(ran(made, real("private-5g", 1), to_ns=START + 2 * HOUR // 3), RobotArm).cycles
    hit = 4
    after_ns = cycles.end_ns[hit - 1] - 50 * NS_PER_MS - START  # the arm asks for the next one then
    links = [real("private-5g", 1, round(s * NS_PER_S), after_ns) for s in OUTAGES_S]
    waits = [wait_us(ran(made, link, to_ns=START + 2 * HOUR // 3)) for link in links]
    assert never_better([waited[hit] for waited in waits])
    assert len({tuple(waited[:hit]) for waited in waits}) == 1
    assert waits[-1][hit] >= 1e6 * OUTAGES_S[-1] - 50_000
