"""Many vehicles on one map: reservations, policies, zones, charging, and what their reports say."""

import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import log
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beilun.composing import edge_header, policy_of
from config.errors import ConfigError
from config.scenario import EdgeSettings
from config.units import NS_PER_MS, NS_PER_S, parse_time
from edge import kpis
from edge.pipeline import Pipeline
from edge.store import RowStore
from ingest.decode import Decoder
from ingest.messages import Asset
from ingest.recording import Recording
from ingest.subscribe import Received
from simulator.device import Columns, Stretch, VdaState
from simulator.devices.agv import Agv, AgvSpec, Battery, volts
from simulator.factory import Factory
from simulator.link.link import Direction, Link
from simulator.link.profile import load_profile
from simulator.plant import Plant, make_plant
from simulator.plant.control import BEAT_NS, CalmLane, later
from simulator.plant.fleet import ANSWER_NS, Mission, Reservations
from simulator.plant.floor import Floor
from simulator.plant.material import Container, Output
from simulator.plant.routes import Order
from simulator.plant.silences import Law, Silences

KPIS = kpis.load()
START = parse_time("2026-01-05T00:00:00Z")
MINUTE = 60 * NS_PER_S
HOUR = 60 * MINUTE


class Wire:
    """A link of one delay; with ``stall`` what comes at the begin of a period waits a little."""

    faults = ()

    def __init__(self, delay_ms: float = 5.0, stall: tuple[float, float] = (0.0, 1.0)) -> None:
        self._delay_ns = round(delay_ms * NS_PER_MS)
        self._stall_ns, self._period_ns = (round(s * NS_PER_S) for s in stall)
        self.described = f"a wire of {delay_ms} ms, {stall}"

    def alike(self) -> "Wire":
        return self

    def bearer(
        self, ue: str, direction: Direction, slice: str | None = None, *, trace: bool = False
    ) -> "Wire":
        del ue, direction, slice, trace
        return self

    def move(self, t_ns: int, x_m: float, y_m: float) -> None:
        """A place changes nothing."""

    def take_trace(self) -> dict[str, Any]:
        """Nobody looks at it."""
        return {}

    def send(self, t_ns: int, n_bytes: int) -> int:
        return int(self.send_many(np.array([t_ns]), np.array([n_bytes]))[0])

    def send_many(self, t_ns: Any, n_bytes: Any) -> Any:
        del n_bytes
        phase = t_ns % self._period_ns
        return (
            np.where(phase < self._stall_ns, t_ns - phase + self._stall_ns, t_ns) + self._delay_ns
        )


class Platform:
    """What has been called for waits there."""

    def __init__(self) -> None:
        self.taken: list[Container] = []

    def take(self, container: Container) -> None:
        self.taken.append(container)


class Station:
    """Where containers come from, or go to; it has room for so many."""

    def __init__(self, node: str, floor: Floor, room: int = 10**6) -> None:
        self.node, self.room = node, room
        self.asset = Asset("s", "x", "y", node)
        self.platform = Platform()
        self.output = cast(Output, self.platform)
        self.got: list[tuple[int, int]] = []
        self._env = floor.env

    def free(self) -> int:
        return self.room

    def reserve(self) -> None:
        self.room -= 1

    def receive(self, container: Container) -> None:
        self.got.append((container.order.number, self._env.now))


def box(number: int, due_ns: int = 0) -> Container:
    order = cast(Order, SimpleNamespace(number=number, due_ns=due_ns))
    return Container(order, deque([START]))


def floor_of(
    nodes: Mapping[str, tuple[float, float]], edges: Sequence[tuple[str, str]],
    vehicles: Sequence[dict[str, Any]], link: Wire | None = None, stations: Sequence[Any] = (),
    **more: Any,
) -> Floor:  # fmt: skip
    """A floor with vehicles and nothing else, whose heartbeats are drawn."""
    plant = plant_of(nodes, edges, vehicles, stations, **more)
    floor = Floor(plant, cast(Link, link or Wire()), 1, START)
    floor.run_to(START)
    return floor


def plant_of(
    nodes: Mapping[str, tuple[float, float]], edges: Sequence[tuple[str, str]],
    vehicles: Sequence[dict[str, Any]], stations: Sequence[Any] = (), **more: Any,
) -> Plant:  # fmt: skip
    return make_plant(
        {
            "site": "s", "warehouse": next(iter(nodes)), "heartbeats": "drawn",
            "calendar": {"shift": [{"start": "00:00", "end": "24:00"}]},
            "node": [{"name": n, "x_m": float(x), "y_m": float(y)} for n, (x, y) in nodes.items()],
            "edge": [{"between": list(pair)} for pair in edges],
            "device": [*stations, *({"name": f"v{n}", "kind": "agv", "area": "x", "line": "y",
                        "charger": vehicle["node"], **vehicle}
                       for n, vehicle in enumerate(vehicles))], **more,
        }
    )  # fmt: skip


def agvs(floor: Floor) -> list[Agv]:
    return [device for device in floor.devices if isinstance(device, Agv)]


# Reservations


def check_holds(floor: Floor) -> None:
    """No node is reserved twice, and no vehicle on its way is anywhere else."""
    floor.fleet.reservations.settle(floor.env.now)
    bit = floor.fleet.reservations._bit
    held = 0
    for mission in floor.fleet.reservations._holders:
        assert not held & mission.held, "a node is reserved for two vehicles"
        held |= mission.held
        agv = cast(Agv, mission.vehicle)
        drive = agv._drives[-1]
        if not agv.mission.last or drive.way is not mission.route.way:
            continue  # it has not begun, or has done
        far_m, _ = drive.at(floor.env.now)
        at = drive.passed(far_m + 1e-6)
        assert mission.held & bit[drive.way[at][0]], "it stands where nothing is reserved"
        if far_m > drive.way[at][1] + 1e-6:
            assert mission.held & bit[drive.way[at + 1][0]], "it drives on what is not reserved"


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(3, 12), loops=st.integers(0, 4), vehicles=st.integers(2, 6),
    calls=st.integers(1, 14), base_m=st.sampled_from([1.0, 30.0, 500.0]), seed=st.integers(0, 999),
)  # fmt: skip
def test_on_any_map_every_call_is_served_and_no_node_is_held_twice(
    size: int, loops: int, vehicles: int, calls: int, base_m: float, seed: int
) -> None:
    dice = random.Random(seed)
    names = [f"n{number}" for number in range(size)]
    nodes = {name: (dice.uniform(0, 80), dice.uniform(0, 80)) for name in names}
    edges = {(dice.choice(names[:n]), names[n]) for n in range(1, size)}
    for _ in range(loops):
        a, b = sorted(dice.sample(range(size), 2))
        edges.add((names[a], names[b]))
    starts = [{"node": dice.choice(names), "base_m": base_m} for _ in range(vehicles)]
    floor = floor_of(nodes, sorted(edges), starts)
    places = [Station(name, floor) for name in names]
    for number in range(calls):
        source, sink = dice.choice(places), dice.choice(places)
        floor.fleet.call(box(number), source, (sink,))
    end_ns = START + calls * HOUR
    env = floor.env
    while env.peek() <= end_ns and sum(len(place.got) for place in places) < calls:
        env.step()
        check_holds(floor)
    assert sorted(number for place in places for number, _ in place.got) == [*range(calls)]
    floor.run_to(env.now + 10 * MINUTE)
    assert not floor.fleet.reservations._holders, "who has done holds nothing"


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(3, 10), vehicles=st.integers(1, 4), calls=st.integers(1, 8),
    stalls=st.sampled_from([(0.0, 40.0), (1.2, 20.0)]), seed=st.integers(0, 999),
)  # fmt: skip
def test_what_is_put_down_is_what_would_have_been_done_at_its_time(
    size: int, vehicles: int, calls: int, stalls: tuple[float, float], seed: int
) -> None:
    """Whether requests and returns of nodes are foreseen, or events of their own; calls come in
    between, and so others do."""

    def life(*, foreseen: bool) -> tuple[list[Any], int]:
        dice = random.Random(seed)
        names = [f"n{number}" for number in range(size)]
        nodes = {name: (dice.uniform(0, 150), dice.uniform(0, 150)) for name in names}
        edges = {(dice.choice(names[:n]), names[n]) for n in range(1, size)}
        starts = [{"node": dice.choice(names)} for _ in range(vehicles)]
        with pytest.MonkeyPatch.context() as patch:
            if not foreseen:
                patch.setattr(Agv, "_sure_ns", lambda *_: None)
                patch.setattr(Reservations, "foresee", at_its_time)
            floor = floor_of(nodes, sorted(edges), starts, Wire(7.3, stalls))
            places = [Station(name, floor) for name in names]
            for number in range(calls):
                source, sink = dice.choice(places), dice.choice(places)
                floor.fleet.call(box(number), source, (sink,))
                floor.run_to(floor.env.now + round(dice.uniform(0, 90) * NS_PER_S))
            floor.run_to(START + 2 * HOUR)
        told: list[Any] = [sorted(place.got) for place in places]
        for agv in agvs(floor):
            logs = (agv.mission, agv.driving, agv.loaded, agv.stands, agv.halted.rate)
            told += [list(zip(log.t, log.v, strict=True)) for log in logs]
            told += [agv.situations(floor.env.now), [d.pieces for d in agv._drives]]
        assert sum(map(len, told[: len(places)])) == calls
        return told, next(floor.env._eid)

    (far, few), (near, many) = life(foreseen=True), life(foreseen=False)
    assert far == near
    assert few < many


def at_its_time(
    self: Reservations, t_ns: int, call: Callable[[], None], asks: Mission | None = None
) -> None:
    del asks
    later(self._env, t_ns - self._env.now, call)


LANE = {"a": (0, 0), "b": (30, 0), "c": (60, 0), "d": (90, 0), "e": (45, 30)}
LANES = [("a", "b"), ("b", "c"), ("c", "d"), ("b", "e")]


def test_of_two_that_meet_one_waits_and_says_so() -> None:
    floor = floor_of(LANE, LANES, [{"node": "a"}, {"node": "d"}])
    there, back = Station("d", floor), Station("a", floor)
    here, gone = Station("a", floor), Station("d", floor)
    floor.fleet.call(box(1), here, (there,))
    floor.fleet.call(box(2), gone, (back,))
    floor.run_to(START + 10 * MINUTE)
    assert (len(there.got), len(back.got)) == (1, 1)
    waited = sorted(agv.base_wait_ns for agv in agvs(floor))
    # Each wants to where the other stands: one is let onto the map, loads, drives and unloads, and
    # the other stands beside the lane until that one has.
    assert waited[0] == 0
    assert waited[1] == pytest.approx((25 + 90 / 1.2 + 2.4 + 25) * NS_PER_S, abs=0.1 * NS_PER_S)
    (late,) = (agv for agv in agvs(floor) if agv.base_wait_ns > NS_PER_S)
    stretch = Stretch.every(START, START + 10 * MINUTE)
    said = [r for r in late.reports(stretch) if isinstance(r, VdaState)]
    blocked = [s for s in said if s.new_base_request and not s.driving]
    assert blocked[-1].sent_ns - blocked[0].sent_ns > 0.9 * waited[1]


def test_alone_it_drives_the_same_with_and_without_reservations() -> None:
    def life(*, reservations: bool) -> Any:
        floor = floor_of(
            LANE, LANES, [{"node": "a"}], transport={"reservations": reservations}
        )  # fmt: skip
        sink = Station("d", floor)
        for number in range(5):
            floor.fleet.call(box(number), Station("e", floor), (sink,))
        floor.run_to(START + HOUR)
        (agv,) = agvs(floor)
        return sink.got, agv.situations(floor.env.now), [d.pieces for d in agv._drives]

    free, reserved = life(reservations=False), life(reservations=True)
    assert free == reserved
    assert len(free[0]) == 5


def test_without_reservations_vehicles_do_not_wait_for_each_other() -> None:
    floor = floor_of(
        LANE, LANES, [{"node": "a"}, {"node": "d"}], transport={"reservations": False}
    )  # fmt: skip
    there, back = Station("d", floor), Station("a", floor)
    floor.fleet.call(box(1), Station("a", floor), (there,))
    floor.fleet.call(box(2), Station("d", floor), (back,))
    floor.run_to(START + 10 * MINUTE)
    assert len(there.got) == len(back.got) == 1
    assert all(agv.base_wait_ns < NS_PER_S for agv in agvs(floor))


# Calls


@pytest.mark.parametrize(
    ("policy", "order"),
    [("oldest", [0, 1, 2, 3]), ("earliest_due", [0, 3, 1, 2]), ("nearest", [0, 3, 2, 1])],
)
def test_calls_are_served_in_the_order_of_the_policy(policy: str, order: list[int]) -> None:
    floor = floor_of(LANE, LANES, [{"node": "a"}], transport={"policy": policy})
    sink = Station("a", floor)
    for number, (node, due_s) in enumerate([("a", 9), ("d", 5), ("c", 7), ("b", 1)]):
        floor.fleet.call(box(number, START + due_s * NS_PER_S), Station(node, floor), (sink,))
    floor.run_to(START + HOUR)
    assert [number for number, _ in sink.got] == order


def test_a_list_is_looked_at_every_so_often_only() -> None:
    floor = floor_of(LANE, LANES, [{"node": "a"}], transport={"dispatch": "30m"})
    (agv,), sink, source = agvs(floor), Station("c", floor), Station("a", floor)
    floor.run_to(START + MINUTE)
    floor.fleet.call(box(1), source, (sink,))
    floor.fleet.call(box(2), source, (sink,))
    floor.run_to(START + 31 * MINUTE)
    floor.fleet.call(box(3), source, (sink,))
    floor.run_to(START + HOUR + 10 * MINUTE)
    begun = [t for t, v in zip(agv.mission.t, agv.mission.v, strict=True) if v]
    assert begun[0] == START + 30 * MINUTE + 5 * NS_PER_MS
    assert begun[1] < START + 35 * MINUTE, "what is on the list is done one after the other"
    assert begun[2] == START + HOUR + 5 * NS_PER_MS


def test_a_full_sink_gets_nothing() -> None:
    floor = floor_of(LANE, LANES, [{"node": "a"}])
    sink, source = Station("c", floor, room=1), Station("a", floor)
    for number in range(3):
        floor.fleet.call(box(number), source, (sink,))
    floor.run_to(START + HOUR)
    assert [number for number, _ in sink.got] == [0]
    sink.room = 1
    floor.fleet.dispatch()
    floor.run_to(START + 2 * HOUR)
    assert [number for number, _ in sink.got] == [0, 1]


# Zones

TWO_SHOPS = {"a1": (0, 0), "ga": (30, 0), "gb": (60, 0), "b1": (90, 0), "store": (60, 30)}
AISLES = [("a1", "ga"), ("ga", "gb"), ("gb", "b1"), ("gb", "store")]


def two_shops() -> Floor:
    stations = [
        {"name": f"s{area}", "kind": "robot_arm", "area": area, "line": "l", "node": f"{area}1"}
        for area in ("a", "b")
    ]
    vehicles = [{"node": f"g{area}", "area": area} for area in ("a", "b")]
    rules = {"zone": "area", "gate": {"a": "ga", "b": "gb"}, "tugger_every": "20m"}
    return floor_of(TWO_SHOPS, AISLES, vehicles, None, stations, transport=rules)


def test_between_areas_a_container_rides_the_train() -> None:
    floor = two_shops()
    floor.run_to(START + MINUTE)
    source, sink, store = Station("a1", floor), Station("b1", floor), Station("store", floor)
    floor.fleet.call(box(1), source, (sink,))
    floor.fleet.call(box(2), source, (store,))
    floor.run_to(START + HOUR)
    assert [number for number, _ in sink.got] == [1]
    assert [number for number, _ in store.got] == [2]
    assert floor.fleet.tugger.moved == 2
    train_ns = START + 20 * MINUTE  # it loads two boxes at ga, drives 30 m, unloads the first
    at_gate_ns = train_ns + round((25 + 25 + 30 / 1.5 + 25) * NS_PER_S)
    assert sink.got[0][1] > at_gate_ns
    assert store.got[0][1] == at_gate_ns + round((30 / 1.5 + 25) * NS_PER_S)
    for agv, nodes in zip(agvs(floor), ({"a1", "ga"}, {"b1", "gb"}), strict=True):
        assert {name for drive in agv._drives for name, _ in drive.way} <= nodes


def test_in_one_area_nothing_rides_the_train() -> None:
    floor = two_shops()
    sink = Station("a1", floor)
    floor.fleet.call(box(1), Station("a1", floor), (sink, Station("b1", floor)))
    floor.run_to(START + HOUR)
    assert len(sink.got) == 1
    assert floor.fleet.tugger.moved == 0


def test_zones_need_gates_that_exist() -> None:
    with pytest.raises(ConfigError) as told:
        floor_of(
            LANE, LANES, [{"node": "a"}],
            stations=[{"name": "r", "kind": "robot_arm", "area": "w", "line": "l", "node": "b"}],
            transport={"zone": "area", "gate": {"z": "q"}},
        )  # fmt: skip
    text = " ".join(told.value.details)
    for part in ("unknown node q", "unknown area z", "needs a gate of w"):
        assert part in text


# Battery

SPEC = AgvSpec(name="v", area="x", line="y", node="a", charger="a")


@given(
    steps=st.lists(st.tuples(st.integers(1, 3_000), st.sampled_from([-40.0, 0.5, 1.5, 6.0, 12.0])),
                   max_size=12),
)  # fmt: skip
def test_charge_is_the_integral_of_the_current(steps: list[tuple[int, float]]) -> None:
    battery, now, left_as = Battery(0, 40.0, 0.5, 1.5), 0, 72_000.0
    draw = 1.5
    for seconds, amperes in steps:
        now += seconds * NS_PER_S
        left_as -= draw * seconds
        if not 1.0 < left_as < 143_999.0:
            return  # flat or full: a charger and a controller would have seen to it
        battery.draw(now, amperes)
        draw = amperes
        assert battery.ratio(now) == pytest.approx(left_as / 144_000, abs=1e-9)
    times = np.arange(0, now + NS_PER_S, 7 * NS_PER_S, dtype=np.int64)
    assert battery.at(times).tolist() == pytest.approx([battery.ratio(int(t)) for t in times])


def test_the_voltage_curve_is_that_of_lfp() -> None:
    assert (volts(0.05), volts(1.0)) == (44.0, 54.4)
    assert volts(0.5) == pytest.approx(51.2)
    assert volts(0.8) - volts(0.2) < 1.0
    ratios = np.linspace(0, 1, 50)
    assert all(a < b for a, b in pairwise(volts(float(r)) for r in ratios))


def test_it_tops_up_when_idle_at_1_c_to_90_percent_and_slower_after() -> None:
    floor = floor_of(LANE, LANES, [{"node": "a", "charger": "c", "start_ratio": 0.41}])
    (agv,) = agvs(floor)
    floor.run_to(START + 3 * HOUR)
    begin, end = agv.charging.t[1:]
    assert agv.battery.ratio(begin) == pytest.approx(0.4, abs=4e-3)
    assert agv.battery.ratio(end) == pytest.approx(0.95, abs=1e-4)
    fast_h = 0.9 - agv.battery.ratio(begin)
    ends = np.searchsorted(agv.battery.at(np.arange(begin, end, NS_PER_S, dtype=np.int64)), 0.9)
    assert ends / 3600 == pytest.approx(fast_h, abs=2e-3)
    taper_h = (end - begin) / HOUR - fast_h
    assert taper_h == pytest.approx(0.1 * log(2), rel=0.02)  # exponential, in steps of 1 %


def test_a_charging_station_is_for_one_vehicle_and_each_gets_its_turn() -> None:
    vehicles = [{"node": node, "charger": "c", "start_ratio": 0.2} for node in ("a", "b", "d")]
    floor = floor_of(LANE, LANES, vehicles)
    floor.run_to(START + 4 * HOUR)
    spans = sorted((agv.charging.t[1], agv.charging.t[2]) for agv in agvs(floor))
    assert len(spans) == 3
    assert all(end < begin for (_, end), (begin, _) in pairwise(spans))
    two = floor_of(LANE, LANES, vehicles, transport={"charge_points": {"c": 2}})
    two.run_to(START + 4 * HOUR)
    assert sum(agv.charging.get(START + 10 * MINUTE) for agv in agvs(two)) == 2


def test_too_low_it_takes_no_order_and_fit_again_it_is_called_away() -> None:
    floor = floor_of(LANE, LANES, [{"node": "a", "charger": "c", "start_ratio": 0.19}])
    (agv,), sink = agvs(floor), Station("d", floor)
    floor.fleet.call(box(1), Station("a", floor), (sink,))
    floor.run_to(START + 3 * HOUR)
    begin, end = agv.charging.t[1:3]
    assert begin < sink.got[0][1]
    assert agv.battery.ratio(end) == pytest.approx(0.4, abs=5e-3)
    assert agv.mission.get(end) == 1, "it left for the call"


def test_charges_must_be_in_order() -> None:
    with pytest.raises(ConfigError, match="problem"):
        floor_of(LANE, LANES, [{"node": "a", "forced_below_ratio": 0.5}])


# Signals and reports


def driven() -> tuple[Agv, Floor]:
    floor = floor_of(LANE, LANES, [{"node": "a"}, {"node": "d"}], Wire(5.0, (0.6, 40.0)))
    sink = Station("d", floor)
    for number in range(6):
        floor.fleet.call(box(number), Station("e", floor), (sink,))
    floor.run_to(START + HOUR)
    return agvs(floor)[0], floor


def test_position_is_the_integral_of_speed_whatever_the_spacing() -> None:
    agv, _ = driven()
    fine = np.arange(START, START + 30 * MINUTE, 50 * NS_PER_MS, dtype=np.int64)
    motion = agv.motion(fine)
    assert motion.speed_mps.max() <= 1.2 + 1e-9
    assert np.abs(np.diff(motion.speed_mps)).max() <= 0.5 * 0.05 + 1e-9
    moved = np.hypot(np.diff(motion.x_m), np.diff(motion.y_m))
    steps = (motion.speed_mps[1:] + motion.speed_mps[:-1]) / 2 * 0.05
    assert moved.sum() == pytest.approx(steps.sum(), rel=2e-3)  # corners are cut by 50 ms
    for every in (20, 1_200):
        few = agv.motion(fine[::every])
        for coarse, column in zip(few, motion, strict=True):
            assert coarse.tolist() == column[::every].tolist()


def test_rows_say_what_states_say() -> None:
    (states, _), (rows, _), (sampled, _) = driven(), driven(), driven()
    end_ns = START + HOUR
    said = [r for r in states.reports(Stretch.every(START, end_ns)) if isinstance(r, VdaState)]
    facts = {
        r.sent_ns: (
            int(bool(r.order)), int(r.driving), int(bool(r.load)),
            int(not r.driving and (r.new_base_request or r.waiting_for_link)), int(r.charging),
            r.battery_ratio, r.x_m, r.y_m,
        )
        for r in said
    }  # fmt: skip
    names = ("mission", "driving", "loaded", "waiting", "charging", "battery_ratio", "x_m", "y_m")
    for agv, stretch in (
        (rows, Stretch.every(START, end_ns, None)), (sampled, Stretch.every(START, end_ns, MINUTE))
    ):  # fmt: skip
        told = [r for r in agv.reports(stretch) if isinstance(r, Columns) and r.stream == "process"]
        assert (len(told) == 1) == stretch.bundled
        found = {
            t: tuple(r.ch[name][at] for name in names) for r in told for at, t in enumerate(r.t_ns)
        }
        assert max(b - a for a, b in pairwise([START, *sorted(found)])) <= MINUTE
        assert len(found) > 90
        for t_ns, row in found.items():
            if t_ns in facts:
                assert row == pytest.approx(facts[t_ns])
        changes = [t for (_, a), (t, b) in pairwise(sorted(facts.items())) if a[:5] != b[:5]]
        assert set(changes) <= set(found)


def test_reports_forget_what_they_have_said_and_cutting_changes_nothing() -> None:
    (whole, floor), (cut, _) = driven(), driven()
    end_ns = START + HOUR

    def said(agv: Agv, minutes: int) -> list[Any]:
        ends = range(START, end_ns + 1, minutes * MINUTE)
        return [
            r for a, b in pairwise(ends) for r in agv.reports(Stretch.every(a, b))
            if isinstance(r, VdaState)
        ]  # fmt: skip

    all_of_it = said(whole, 60)
    assert all_of_it == said(cut, 3)
    for minutes in (1, 7, 31, 59):  # rows first, and states from there on
        late, then_ns = driven()[0], START + minutes * MINUTE
        late.reports(Stretch.every(START, then_ns, None))
        rest = [r for r in late.reports(Stretch.every(then_ns, end_ns)) if isinstance(r, VdaState)]
        assert rest == [r for r in all_of_it if r.sent_ns > then_ns]
    assert len(cut._drives) == 1
    assert not cut._log
    del floor


@pytest.mark.parametrize("interval_ns", [NS_PER_S, MINUTE, None], ids=["1s", "1m", "events"])
def test_the_edge_tells_the_truth_about_vehicles_whatever_is_sampled(
    interval_ns: int | None, tmp_path: Path
) -> None:
    """Blocked, halted, empty and charging, by every window, from what is on the wire."""
    vehicles: list[dict[str, Any]] = [{"node": "a"}, {"node": "d", "start_ratio": 0.41}]
    plant = plant_of(LANE, LANES, vehicles)
    link = Link(load_profile("private-5g"), 1, None, (), START)
    factory = Factory(plant, link, 1, "r", START, HOUR, interval_ns=interval_ns)
    floor, dice = factory.floor, random.Random(1)
    places = [Station(name, floor) for name in "acde"]
    for number in range(12):
        source, sink = dice.sample(places, 2)
        floor.fleet.call(box(number), source, (sink,))
    edge = EdgeSettings()
    meta = {"run": "r", "edge": edge_header(edge), "windows": '["1m", "1h"]'}
    with Recording.create(tmp_path / "x.beilun") as recording:
        recording.set_meta(meta)
        store = RowStore(recording)
        store.prepare()
        pipeline = Pipeline(recording, Decoder(), policy_of(edge), "r", store.write)
        for chunk in factory.chunks():
            said = [Received(m.topic, m.payload, 0, False, (0, 0)) for m in chunk.in_order()]
            for low in range(0, len(said), 500):
                pipeline.take(said[low : low + 500])
        ending = pipeline.conclude(store)
        truth = [row for row in factory.truth(edge.kinds) if row.kpi.startswith("agv_")]
    rows = {
        ("/".join(r.asset), r.kpi, r.window_start_ns, r.window_length_ns): r.value
        for r in ending.rows
    }
    assert len({row.kpi for row in truth}) == 6
    for true in truth:
        mine = rows[true[:4]]
        assert (mine is None) == (true.value is None), true
        told = KPIS[true.kpi].accuracy.absolute  # the charge is told from time to time
        assert mine is None or mine == pytest.approx(true.value, rel=1e-9, abs=told), true
    assert any(true.kpi == "agv_waiting_ratio" and true.value for true in truth)


# Heartbeats that are drawn


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(300, 5_000), min_size=1, max_size=5),
    between_s=st.floats(2.0, 60.0), seed=st.integers(0, 99),
)  # fmt: skip
def test_drawn_silences_have_the_rate_and_lengths_of_their_law(
    lengths: list[int], between_s: float, seed: int
) -> None:
    law = Law(between_s * NS_PER_S, np.array(lengths, dtype=np.int64) * NS_PER_MS)
    silences = Silences(law, START, np.random.default_rng(seed))
    to_ns = START + round(1_000 * law.between_ns)
    found = list(zip(*silences.between(START, to_ns), strict=True))
    assert all(a < b for a, b in found)
    assert all(end <= start for (_, end), (start, _) in pairwise(found))
    assert {end - start for start, end in found} <= {length * NS_PER_MS for length in lengths}
    mean_s = between_s + sum(lengths) / len(lengths) / 1_000
    span_s = (found[-1][1] - START) / NS_PER_S
    assert span_s / len(found) == pytest.approx(mean_s, rel=5 / len(found) ** 0.5)


def test_vehicles_halt_as_often_as_heartbeats_would_make_them() -> None:
    """A stall of 1.2 s every 40 s, of which a vehicle that is on its way feels its share."""

    def halted_ratio(heartbeats: str) -> float:
        floor = floor_of(
            LANE, LANES, [{"node": "a"}], Wire(5.0, (1.2, 40.0)), heartbeats=heartbeats
        )  # fmt: skip
        (agv,), sink = agvs(floor), Station("d", floor)
        for number in range(150):
            floor.fleet.call(box(number), Station("a", floor), (sink,))
        floor.run_to(START + 8 * HOUR)
        return len(agv.halted.rate.t) // 2 / (len(sink.got))

    drawn, sent = halted_ratio("drawn"), halted_ratio("sent")
    assert sent > 1
    assert drawn == pytest.approx(sent, rel=0.15)


def test_a_drawn_silence_halts_and_fails_the_service() -> None:
    floor = floor_of(LANE, LANES, [{"node": "a"}], Wire(5.0, (2.0, 60.0)))
    (agv,) = agvs(floor)
    down = agv.control.down
    assert isinstance(down, CalmLane)
    first_ns = int(down._silences.between(START, START + HOUR)[0][0])
    agv.reports(Stretch.every(START, START + HOUR))
    service = agv.control.services[1]
    assert service.up.t[1] == first_ns + 2 * BEAT_NS
    assert service.failures.last == pytest.approx(60, abs=20)
    assert len(service.logs["downlink_up"].t) == 1, "what was told is not kept"
    cut = Floor(floor.plant, cast(Link, Wire(5.0, (2.0, 60.0))), 1, START)
    (again,), ends = agvs(cut), [START + n * HOUR // 7 for n in range(8)]
    for begin_ns, end_ns in pairwise(ends):
        cut.run_to(end_ns)
        again.reports(Stretch.every(begin_ns, end_ns))
    for name in ("up", "failures"):
        whole, parts = (getattr(s, name) for s in (service, again.control.services[1]))
        assert (whole.t, whole.v) == (parts.t, parts.v)
    ups = sum(b - a for (a, up), (b, _) in pairwise(zip(service.up.t, service.up.v, strict=True))
              if not up)  # fmt: skip
    assert ups / HOUR == pytest.approx(1.8 / 60, rel=0.4)


def test_the_answer_takes_its_time() -> None:
    floor = floor_of(LANE, LANES, [{"node": "a"}], Wire(700.0))
    (agv,), sink = agvs(floor), Station("d", floor)
    floor.fleet.call(box(1), Station("a", floor), (sink,))
    floor.run_to(START + 10 * MINUTE)
    # Standing still with its load it waits for what a round trip and the answer exceed the lead.
    waits = [t for t in agv.waited.rate.t if t > START][:2]
    assert waits[1] - waits[0] == 2 * 700 * NS_PER_MS + ANSWER_NS - NS_PER_S
