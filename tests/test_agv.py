"""A vehicle on a leash: base, watchdog and the track it tells the radio, all causal."""

import json
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.units import NS_PER_MS, NS_PER_S, parse_time
from ingest.messages import Asset
from simulator.device import Stretch, VdaState
from simulator.devices.agv import Agv, Drive, trapezoid
from simulator.link.layout import load_layout
from simulator.link.link import Direction, Link
from simulator.link.profile import load_profile
from simulator.plant import load_plant, make_plant
from simulator.plant.control import ORDER_BYTES, RETRY_NS, STATE_BYTES
from simulator.plant.fleet import ANSWER_NS
from simulator.plant.floor import Floor
from simulator.plant.material import Container, Output
from simulator.plant.routes import Order
from simulator.wire import Wire

START = parse_time("2026-01-05T00:00:00Z")
SCHEMA = Path(__file__).parents[2] / "shared/data/vda5050_schemas/2.1.0/state.schema"
LIMIT_NS = 300 * NS_PER_MS

# The way is 105 m long and has two corners; the vehicle fetches at `a` what it brings to `f`.
NODES = {"a": (0, 0), "b": (20, 0), "c": (40, 0), "d": (40, 15), "e": (60, 15), "f": (60, 45)}
ENDS_M = (20.0, 40.0, 55.0, 75.0, 105.0)

Stalls = list[tuple[int, int]]
"""From when, after the start, and for how long what is sent stalls, in ms."""


@dataclass
class Air:
    """A bearer of one delay, with stalls and losses, that notes what it sees."""

    delay_ns: int
    stalls: Stalls
    lose: int
    """Every so many-th message is lost."""
    drop: tuple[int, int]
    """Of this size the message of this number is lost."""
    sent: list[tuple[int, int, int | None]] = field(default_factory=list[Any])
    """Time, bytes, arrival."""
    seen: list[tuple[int, float, float]] = field(default_factory=list[Any])
    """Where the device was, as far as known, at each sending."""
    track: list[tuple[int, float, float]] = field(default_factory=list[Any])
    lost: dict[str, int] = field(default_factory=dict[str, int])
    last_ns: int = 0
    released_ns: int = 0

    def place(self, t_ns: int) -> tuple[float, float]:
        at = bisect_right(self.track, t_ns, key=lambda waypoint: waypoint[0])
        if at == len(self.track):
            return self.track[-1][1:]
        (a_ns, ax, ay), (b_ns, bx, by) = self.track[max(at - 1, 0)], self.track[at]
        share = (t_ns - a_ns) / max(b_ns - a_ns, 1)
        return ax + share * (bx - ax), ay + share * (by - ay)

    def move(self, t_ns: int, x_m: float, y_m: float) -> None:
        assert t_ns >= self.last_ns, "moved before the last message"
        before = [waypoint for waypoint in self.track if waypoint[0] < t_ns]
        if before and before[-1][0] < self.last_ns:
            assert self.place(t_ns) == pytest.approx((x_m, y_m), abs=1e-6), "rewrote the track"
        self.track = [*before, (t_ns, x_m, y_m)]

    def send(self, t_ns: int, n_bytes: int) -> int | None:
        assert t_ns >= self.last_ns, "messages must be handed over in order of time"
        arrival_ns = max(t_ns + self.delay_ns, self.released_ns)
        for after_ms, for_ms in self.stalls:
            start_ns = START + after_ms * NS_PER_MS
            if start_ns <= t_ns < start_ns + for_ms * NS_PER_MS:
                arrival_ns = max(arrival_ns, start_ns + for_ms * NS_PER_MS)
        self.released_ns = arrival_ns
        number = sum(size == n_bytes for _, size, _ in self.sent) if self.drop[0] == n_bytes else -1
        lost = self.lose and len(self.sent) % self.lose == self.lose - 1
        lost = lost or (n_bytes, number) == self.drop
        self.last_ns = t_ns
        self.sent.append((t_ns, n_bytes, None if lost else arrival_ns))
        self.seen.append((t_ns, *self.place(t_ns)))
        return None if lost else arrival_ns

    def send_many(self, t_ns: Any, n_bytes: Any) -> Any:
        pairs = zip(t_ns.tolist(), n_bytes.tolist(), strict=True)
        arrivals = [self.send(t, n) for t, n in pairs]
        return np.array([-1 if a is None else a for a in arrivals], dtype=np.int64)


@dataclass
class Airs:
    """A link of such bearers."""

    delay_ms: float = 5.0
    stalls: Stalls = field(default_factory=list[Any])
    lose: int = 0
    drop: tuple[int, int] = (0, 0)
    made: dict[tuple[Direction, str | None], Air] = field(default_factory=dict[Any, Air])

    def bearer(
        self, ue: str, direction: Direction, slice: str | None = None, *, trace: bool = False
    ) -> Air:
        del ue, trace
        air = Air(round(self.delay_ms * NS_PER_MS), self.stalls, self.lose, self.drop)
        return self.made.setdefault((direction, slice), air)

    @property
    def down(self) -> Air:
        return self.made[Direction.DOWN, "control"]


class Platform:
    """The output of a station: what is called for waits there."""

    def take(self, container: Container) -> None:
        """It is gone."""
        assert container.pieces == 1


class Station:
    """Where containers come from, or go to."""

    def __init__(self, node: str, floor: Floor) -> None:
        self.node = node
        self.asset = Asset("s", "x", "y", node)
        self.got_ns: list[int] = []
        self.got: list[int] = []
        self.output = cast(Output, Platform())
        self._env = floor.env

    def free(self) -> int:
        return 1

    def reserve(self) -> None:
        """There is always room."""

    def receive(self, container: Container) -> None:
        assert container.pieces == 1
        self.got_ns.append(self._env.now)
        self.got.append(container.order.number)


def box(number: int = 7, due_ns: int = 0) -> Container:
    """A container with a piece of some order."""
    order = cast(Order, SimpleNamespace(number=number, due_ns=due_ns))
    return Container(order, deque([START]))


def shop(link: Airs, **device: Any) -> tuple[Agv, Floor, Station]:
    """A vehicle that has just been called; nothing has happened yet."""
    plant = make_plant(
        {
            "site": "s", "warehouse": "f", "radio": {"layout": "ikd"},
            "calendar": {"shift": [{"start": "00:00", "end": "24:00"}]},
            "node": [{"name": n, "x_m": float(x), "y_m": float(y)} for n, (x, y) in NODES.items()],
            "edge": [{"between": list(pair)} for pair in pairwise(NODES)],
            "device": [{"name": "v", "kind": "agv", "area": "x", "line": "y", "node": "a",
                        "charger": "a", **device}],
        }
    )  # fmt: skip
    floor = Floor(plant, cast(Link, link), 1, START)
    sink = Station("f", floor)
    floor.run_to(START)
    floor.fleet.call(box(), Station("a", floor), (sink,))
    (agv,) = floor.devices
    assert isinstance(agv, Agv)
    return agv, floor, sink


def ride(link: Airs, minutes: float = 10, **device: Any) -> tuple[Agv, int]:
    """The vehicle after its mission, and how long that took."""
    agv, floor, sink = shop(link, **device)
    floor.run_to(START + round(minutes * 60 * NS_PER_S))
    assert sink.got_ns, "it never came"
    (began_ns,) = (t for t, v in zip(agv.mission.t, agv.mission.v, strict=True) if v)
    return agv, sink.got_ns[0] - began_ns


def driven(agv: Agv) -> Drive:
    (drive,) = (drive for drive in agv._drives if len(drive.way) > 1)
    return drive


def states(agv: Agv, minutes: int) -> list[VdaState]:
    stretch = Stretch.every(START, START + 60 * minutes * NS_PER_S)
    return [r for r in agv.reports(stretch) if isinstance(r, VdaState)]


# Motion


@given(
    speed=st.floats(0, 2), top=st.floats(0.1, 2), acceleration=st.floats(0.1, 2),
    spare_m=st.floats(0, 100),
)  # fmt: skip
def test_a_motion_begins_at_any_speed_keeps_its_limits_and_ends_at_rest(
    speed: float, top: float, acceleration: float, spare_m: float
) -> None:
    speed = min(speed, top)
    to_m = 3.0 + speed * speed / (2 * acceleration) + spare_m
    plan = trapezoid(START, 3.0, to_m, top, acceleration, speed)
    assert plan[0].after(START) == (3.0, speed)
    assert (plan[-1].at_m, plan[-1].speed_mps, plan[-1].acceleration_mps2) == (to_m, 0.0, 0.0)
    for piece, onward in pairwise(plan):
        assert piece.t_ns <= onward.t_ns
        assert abs(piece.acceleration_mps2) in (0.0, acceleration)
        far, v = piece.after(onward.t_ns)
        assert far == pytest.approx(onward.at_m, abs=1e-6)
        assert v == pytest.approx(onward.speed_mps, abs=1e-6)
        assert -1e-9 <= onward.speed_mps <= top + 1e-9


# Base and horizon


def test_a_base_that_grows_in_time_costs_nothing() -> None:
    """A round trip, the answer's 20 ms and the lead of 1 s: up to 490 ms of delay are free."""
    whole_ns = ride(Airs(1), base_m=1000.0)[1]
    assert whole_ns == pytest.approx((105 / 1.2 + 2.4 + 50.0) * NS_PER_S, abs=2 * NS_PER_MS)
    for delay_ms in (1, 50, 250, 489):
        agv, took_ns = ride(Airs(delay_ms))
        assert took_ns == whole_ns
        assert (agv.halted_ns, agv.base_wait_ns) == (0, 0)
        assert max(s.update for s in states(agv, 10)) == 3  # up to a, c, e, f


def test_a_base_that_grows_late_costs_time_and_more_the_later_it_comes() -> None:
    delays_ms = (489, 600, 800, 1_200, 1_700, 2_500, 5_000, 20_000)
    rides = [ride(Airs(delay_ms)) for delay_ms in delays_ms]
    took = [took_ns for _, took_ns in rides]
    waits = [agv.base_wait_ns for agv, _ in rides]
    assert all(a < b for a, b in pairwise(took))
    assert waits == sorted(waits)
    assert waits[0] == 0
    # From standstill each update costs one for one: a round trip more for each of the three.
    assert took[-1] - took[-2] == 3 * 2 * 15_000 * NS_PER_MS
    assert waits[-1] - waits[-2] == 3 * 2 * 15_000 * NS_PER_MS
    assert all(agv.halted_ns == 0 for agv, _ in rides)


def test_without_a_base_it_stands_at_the_node_where_it_ends() -> None:
    agv, _ = ride(Airs(5_000))
    drive = driven(agv)
    stands = [t for t, v in zip(agv.waited.rate.t, agv.waited.rate.v, strict=True) if v]
    assert [drive.at(t) for t in stands] == [(0.0, 0.0), (40.0, 0.0), (75.0, 0.0)]
    asks = [s.sent_ns for s in states(agv, 10) if s.new_base_request]
    asks = [t for t in asks if t > stands[0] + 10_000 * NS_PER_MS]  # when it has loaded it stands
    brakes_ns = stands[1] - round(2.4 * NS_PER_S)
    assert asks[0] == pytest.approx(brakes_ns - NS_PER_S, abs=NS_PER_MS)
    goes_ns = agv.waited.rate.t[4]
    assert goes_ns == asks[0] + 2 * 5_000 * NS_PER_MS + ANSWER_NS


@pytest.mark.parametrize("drop", [(STATE_BYTES, 2), (ORDER_BYTES, 2)], ids=["asked", "answered"])
def test_a_lost_request_or_answer_is_sent_again(drop: tuple[int, int]) -> None:
    """A second later: 22 ms beyond the lead, in which it brakes, and it never stands."""
    link = Airs(1, drop=drop)
    agv, took_ns = ride(link)
    sent = [t for air in link.made.values() for t, size, _ in air.sent if size == drop[0]]
    assert sorted(sent)[drop[1] + 1] - sorted(sent)[drop[1]] == RETRY_NS
    late_ns = took_ns - ride(Airs(1))[1]
    assert 0 < late_ns < 22 * NS_PER_MS
    assert (agv.halted_ns, agv.base_wait_ns) == (0, 0)


# Watchdog


def test_it_stops_when_its_watchdog_has_run_out_and_not_a_nanosecond_later() -> None:
    link = Airs(7, stalls=[(45_000, 2_000)])
    agv, took_ns = ride(link)
    heard_ns = max(arrival for t, _, arrival in link.down.sent
                   if t < START + 45 * NS_PER_S and arrival is not None)  # fmt: skip
    drive = driven(agv)
    brakes = next(p for p in drive.pieces if p.acceleration_mps2 < 0)
    assert brakes.t_ns == heard_ns + LIMIT_NS
    stands_ns, goes_ns = agv.halted.rate.t[1:]
    assert stands_ns == pytest.approx(brakes.t_ns + 2.4 * NS_PER_S, abs=NS_PER_MS)
    assert goes_ns == stands_ns + NS_PER_MS  # heard again while it braked
    assert took_ns - ride(Airs(7))[1] == pytest.approx(2.4 * NS_PER_S, abs=3 * NS_PER_MS)


def test_longer_silence_costs_more() -> None:
    took, halted = [], []
    for for_ms in (0, 250, 1_000, 3_000, 10_000, 60_000):
        agv, took_ns = ride(Airs(7, stalls=[(45_000, for_ms)]))
        took.append(took_ns)
        halted.append(agv.halted_ns)
    assert took == sorted(took)
    assert halted == sorted(halted)
    assert halted[-1] - halted[-2] == 50_000 * NS_PER_MS


# Laws, whatever the link does

stalls = st.lists(st.tuples(st.integers(0, 120_000), st.integers(50, 8_000)), max_size=6)


@settings(max_examples=20, deadline=None)
@given(
    stalls=stalls, delay_ms=st.sampled_from([1, 40, 350, 1_500]), lose=st.sampled_from([0, 2, 7]),
    base_m=st.sampled_from([1.0, 30.0, 60.0]), lead_s=st.sampled_from([0.001, 1.0, 20.0]),
)  # fmt: skip
def test_on_any_link_it_keeps_its_limits_its_base_and_its_word(
    stalls: Stalls, delay_ms: int, lose: int, base_m: float, lead_s: float
) -> None:
    link = Airs(delay_ms, sorted(stalls), lose)
    agv, floor, _ = shop(link, base_m=base_m, base_lead_s=lead_s)
    floor.run_to(START + 240 * NS_PER_S)
    found = agv.situations(floor.env.now)
    since = [t for t, _ in found]
    for drive in agv._drives[1:]:
        for piece, onward in pairwise(drive.pieces):
            far, speed = piece.after(onward.t_ns)
            assert far == pytest.approx(onward.at_m, abs=1e-6)
            assert speed == pytest.approx(onward.speed_mps, abs=1e-6)
            assert abs(piece.acceleration_mps2) <= 0.5
            assert onward.speed_mps <= 1.2 + 1e-9
        end_ns = min(drive.end_ns, floor.env.now)
        for t_ns in range(drive.pieces[0].t_ns, end_ns + 1, 500 * NS_PER_MS):
            now = found[bisect_right(since, t_ns) - 1][1]
            if now.way:
                assert drive.at(t_ns)[0] <= drive.way[max(now.base, 0)][1] + 1e-6
    # What was sent has met the vehicle where it really was, as it came out in the end.
    starts = [drive.pieces[0].t_ns for drive in agv._drives]
    for air in link.made.values():
        for t_ns, x_m, y_m in air.seen[::5]:
            drive = agv._drives[max(bisect_right(starts, t_ns) - 1, 0)]
            true_x, true_y = agv._place(drive, drive.at(t_ns)[0])
            assert np.hypot(true_x - x_m, true_y - y_m) < 0.05
    # The watchdog stopped it on what had been heard by then, and as soon as it had run out.
    for stands_ns in (t for t, v in zip(agv.halted.rate.t, agv.halted.rate.v, strict=True) if v):
        drive = agv._drives[bisect_right(starts, stands_ns) - 1]
        still = bisect_right(drive.pieces, stands_ns, key=lambda piece: piece.t_ns) - 1
        brakes = drive.pieces[still - 1]
        silent_ns = brakes.t_ns - max(a for _, _, a in link.down.sent if a and a <= brakes.t_ns)
        assert silent_ns == LIMIT_NS if brakes.speed_mps else silent_ns >= LIMIT_NS


@settings(max_examples=10, deadline=None)
@given(stalls=stalls, delay_ms=st.sampled_from([1, 350, 1_500]), lose=st.sampled_from([0, 7]))
def test_steps_and_reports_change_nothing(stalls: Stalls, delay_ms: int, lose: int) -> None:
    def life(step_s: int) -> Any:
        link = Airs(delay_ms, sorted(stalls), lose)
        agv, floor, sink = shop(link)
        for second in range(step_s, 241, step_s):
            floor.run_to(START + second * NS_PER_S)
            if second % 60 == 0:
                end_ns = START + second * NS_PER_S
                agv.control.reports(Stretch.every(end_ns - 60 * NS_PER_S, end_ns))
        found = agv.situations(START + 240 * NS_PER_S)
        return found, [d.pieces for d in agv._drives], sink.got_ns, link.down

    *whole, down = life(240)
    for step_s in (1, 60):
        *cut, other = life(step_s)
        assert cut == whole
        both = min(len(down.sent), len(other.sent))
        assert down.sent[:both] == other.sent[:both]
        assert down.seen[:both] == other.seen[:both]


# What it says


def test_its_states_say_what_is_base_and_what_is_horizon() -> None:
    agv, _ = ride(Airs(800))
    said = [s for s in states(agv, 10) if s.order]
    released = {(s.update, s.base_sequence) for s in said}
    assert released == {(0, 0), (1, 4), (2, 8), (3, 10)}  # to a, to c, to e, to f
    asked = [s.update for a, s in pairwise(said) if s.new_base_request and not a.new_base_request]
    grown = [s.update for a, s in pairwise(said) if a.new_base_request and not s.new_base_request]
    assert (asked, grown) == ([0, 1, 2], [1, 2, 3])
    wire = Wire()
    bodies = [json.loads(wire.encode(s).body) for s in said]
    for body, s in zip(bodies, said, strict=True):
        assert body["orderUpdateId"] == s.update
        assert body["newBaseRequest"] is s.new_base_request
        flags = [n["released"] for n in body["nodeStates"]]
        assert flags == sorted(flags, reverse=True), "the base comes first"
        assert sum(flags) == sum(n <= s.base_sequence for _, n in s.nodes)
        for edge in body["edgeStates"]:
            (node,) = (n for n in body["nodeStates"] if n["sequenceId"] == edge["sequenceId"] + 1)
            assert edge["released"] is node["released"]
    assert any(not n["released"] for body in bodies for n in body["nodeStates"])


@pytest.mark.skipif(not SCHEMA.is_file(), reason="the VDA 5050 schemas are not here")
def test_its_states_are_vda5050() -> None:
    import jsonschema  # type: ignore[import-untyped]

    checker = jsonschema.Draft7Validator(json.loads(SCHEMA.read_text()))
    wire, seen = Wire(), set[tuple[bool, ...]]()
    for link in (Airs(5_000), Airs(1, [(50_000, 3_000)])):
        for state in states(ride(link)[0], 10):
            key = (state.new_base_request, state.waiting_for_link, state.driving)
            if key not in seen:
                checker.validate(json.loads(wire.encode(state).body))
            seen.add(key)
    assert {(True, False, True), (True, False, False), (False, True, False)} <= seen


def test_a_vehicle_stands_at_a_node_and_nowhere_else() -> None:
    from config.errors import ConfigError

    with pytest.raises(ConfigError, match="not for vehicles"):
        shop(Airs(), x_m=1.0, y_m=2.0)


# On the radio map


def test_on_the_map_it_is_handed_over() -> None:
    plant = load_plant("quickstart")
    assert plant.radio is not None
    link = Link(load_profile("private-5g"), 1, load_layout(plant.radio.layout), start_ns=START)
    floor = Floor(plant, link, 1, START)
    floor.run_to(START + 3600 * NS_PER_S)
    agvs = [device for device in floor.devices if isinstance(device, Agv)]
    cells, gaps = set[int](), 0
    for agv in agvs:
        for way, columns in agv.control.terminal.take_traces():
            if way.slice == "control":
                cells |= set(columns["cell"].tolist())
                gaps += int((columns["gap_ns"] > 0).sum())
    assert len(cells) >= 2
    assert gaps >= 1
