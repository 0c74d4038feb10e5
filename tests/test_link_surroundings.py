"""Slices, layouts, moving devices, faults and the trace: one result however the link is called."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from config.errors import ConfigError
from config.faults import Fault
from config.units import NS_PER_MS, NS_PER_S
from simulator.link.journey import GRID_NS, Journey
from simulator.link.layout import Layout, layout_names, load_layout
from simulator.link.link import Bearer, Direction, Link
from simulator.link.load import Demand, Rank, queue
from simulator.link.profile import Cellular, Profile, Tcp, Udp, load_profile
from simulator.link.restarts import BACKOFF_NS, Restarts
from simulator.link.surroundings import CAUSES, UNPLACED, Cut, Dark
from simulator.link.transport import Stream

UP, DOWN = Direction.UP, Direction.DOWN
T0_NS = 1_767_571_200 * NS_PER_S
IKD = load_layout("ikd")
UDP = Udp(kind="udp")
NO_FADE = {"sd_db": 0.0, "decorrelation_s": 1.0, "margin_db": 30.0}


def fault(**words: Any) -> Fault:
    found: Fault = TypeAdapter(Fault).validate_python(words)
    return found


TROUBLE = (
    fault(kind="congestion", after="1s", length="20s", flows=40),
    fault(kind="congestion", after="10s", length="5s", flows=300, direction="both", cell="c5"),
    fault(kind="interference", after="4s", length="30s", rise_db=25.0,
          area={"x_m": 0.0, "y_m": 0.0, "width_m": 200.0, "height_m": 300.0}),
    fault(kind="interference", after="15s", length="10s", rise_db=16.0),
    fault(kind="outage", after="12s", length="3s", cell="north-west"),
    fault(kind="backhaul", after="18s", length="2s", cell="c5"),
    fault(kind="outage", after="25s", length="2500ms"),
    fault(kind="broker_restart", after="6s", length="700ms"),
    fault(kind="broker_restart", after="25500ms", length="1s"),
    fault(kind="broker_restart", after="27800ms", length="300ms"),
)  # fmt: skip


def everywhere(name: str, **update: Any) -> Link:
    profile = load_profile(name).model_copy(update={"drop_ratio": 0.02, **update})
    return Link(profile, 7, IKD, TROUBLE, T0_NS)


LINKS = {
    "tcp": everywhere("private-5g"),
    "hasty tcp": everywhere("private-5g", transport=Tcp(kind="tcp", reset_after_s=0.5)),
    "udp": everywhere("private-5g-udp"),
    "wifi": everywhere("wifi-untuned", transport=UDP),
    "wire": everywhere("ethernet"),
}

gaps_ns = st.integers(0, 60 * NS_PER_MS) | st.integers(0, 4 * NS_PER_S) | st.just(0)
legs = st.lists(
    st.tuples(
        st.lists(st.tuples(gaps_ns, st.integers(1, 6_000)), max_size=30),
        st.tuples(st.integers(1, 20_000), st.integers(0, 300), st.integers(0, 300)),
        st.booleans(),
    ),
    max_size=6,
)


def drive(bearer: Bearer, plan: Any, how: str) -> list[int]:
    """Messages, then a leg to somewhere, in turn; a leg may be cut short by a stop."""
    t_ns, out = T0_NS, []
    x, y, start_ns, end_ns, leg = 60.0, 60.0, T0_NS, T0_NS, (60.0, 60.0)
    bearer.move(t_ns, x, y)
    for sent, (ms, to_x, to_y), stops in plan:
        times = list(itertools.accumulate((gap for gap, _ in sent), initial=t_ns))[1:]
        sizes = [size for _, size in sent]
        if how == "one":
            got = [bearer.send(t, n) for t, n in zip(times, sizes, strict=True)]
            out += [-1 if at is None else at for at in got]
        else:
            cuts = (
                [0, len(sent) // 3, len(sent) // 2, len(sent)] if how == "cut" else [0, len(sent)]
            )
            for a, b in itertools.pairwise(cuts):
                part = np.array(times[a:b], np.int64), np.array(sizes[a:b], np.int64)
                out += bearer.send_many(*part).tolist()
        t_ns = times[-1] if times else t_ns
        if t_ns < end_ns and not stops:
            continue  # still under way
        if t_ns < end_ns:
            share = (t_ns - start_ns) / (end_ns - start_ns)
            x, y = (a + share * (b - a) for a, b in ((x, leg[0]), (y, leg[1])))
        else:
            x, y = leg
        bearer.move(t_ns, x, y)
        start_ns, end_ns, leg = t_ns, t_ns + ms * NS_PER_MS, (float(to_x), float(to_y))
        bearer.move(end_ns, *leg)
    return out


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
@pytest.mark.parametrize("direction", Direction, ids=lambda d: d.name)
class TestEveryTroubledBearer:
    @settings(max_examples=25, deadline=None)
    @given(plan=legs)
    def test_columns_cuts_and_traces_change_nothing(self, link: Link, direction: Direction,
                                                    plan: Any):  # fmt: skip
        bearers = [link.bearer("agv-1", direction, "video", trace=i > 2) for i in range(5)]
        hows = ("one", "many", "cut", "many", "one")
        results = [drive(bearer, plan, how) for bearer, how in zip(bearers, hows, strict=True)]
        assert all(result == results[0] for result in results)
        assert all(bearer.lost == bearers[0].lost for bearer in bearers)
        traces = [bearer.take_trace() for bearer in bearers[3:]]
        for name, column in traces[0].items():
            assert column.tolist() == traces[1][name].tolist(), name
        check_sums(traces[0])
        came = [at for at in results[0] if at >= 0]
        assert came == sorted(came)
        assert link.profile.transport.kind == "udp" or len(came) == len(results[0])
        for start_ns, end_ns in Restarts(TROUBLE, T0_NS).spans:
            assert not any(start_ns <= at < end_ns for at in came)


def check_sums(trace: dict[str, Any]) -> None:
    parts = [c for name, c in trace.items() if name.endswith("_ns") and name not in
             ("sent_ns", "arrival_ns")]  # fmt: skip
    assert all(np.all(part >= 0) for part in parts)
    came = trace["arrival_ns"] >= 0
    assert sum(parts)[came].tolist() == (trace["arrival_ns"] - trace["sent_ns"])[came].tolist()


def stream(period_ms: float, n: int = 1_000, n_bytes: int = 100) -> tuple[Any, Any]:
    t_ns = T0_NS + np.arange(n, dtype=np.int64) * round(period_ms * NS_PER_MS)
    return t_ns, np.full(n, n_bytes, np.int64)


def tour(bearer: Bearer, period_ms: float, laps: int = 3, speed_mps: float = 1.2) -> Any:
    """Delays in ms of a device that drives through the site."""
    stops = [(20.0, 20.0), (280.0, 30.0), (275.0, 270.0), (150.0, 150.0), (30.0, 280.0)]
    t_ns = T0_NS
    bearer.move(t_ns, *stops[0])
    route = [*(stops[1:] + stops[:1]) * laps]
    here = stops[0]
    for there in route:
        way_m = float(np.hypot(there[0] - here[0], there[1] - here[1]))
        t_ns += round(way_m / speed_mps * NS_PER_S)
        bearer.move(t_ns, *there)
        here = there
    times, sizes = stream(period_ms, int((t_ns - T0_NS) / NS_PER_MS / period_ms))
    return times, bearer.send_many(times, sizes)


def test_more_devices_and_their_ways_change_nothing_for_the_others():
    alone, crowd = (Link(load_profile("private-5g"), 3, IKD, TROUBLE, T0_NS) for _ in range(2))
    for ue in "bcdef":
        tour(crowd.bearer(ue, UP, "video"), 100.0, laps=1)
    expected = tour(alone.bearer("a", UP), 100.0, laps=1)[1]
    assert tour(crowd.bearer("a", UP), 100.0, laps=1)[1].tolist() == expected.tolist()


def test_a_layout_and_faults_elsewhere_change_nothing_for_a_device_without_a_place():
    profile = load_profile("private-5g")
    t_ns, n_bytes = stream(20.0)
    far = fault(kind="outage", after="1h", length="1s")
    plain, other = Link(profile, 3), Link(profile, 3, IKD, [far], T0_NS)
    for direction in Direction:
        expected = plain.bearer("a", direction).send_many(t_ns, n_bytes).tolist()
        assert other.bearer("a", direction).send_many(t_ns, n_bytes).tolist() == expected


# --- slices --------------------------------------------------------------------------------------


def p99_ms(link: Link, slice: str, *, period_ms: float = 10.0, n_bytes: int = 100) -> float:
    t_ns, sizes = stream(period_ms, 20_000, n_bytes)
    arrival_ns = link.bearer("arm", UP, slice).send_many(t_ns, sizes)
    return float(np.percentile((arrival_ns - t_ns) / NS_PER_MS, 99))


def shared(rule: str) -> Profile:
    profile = load_profile("private-5g").model_copy(update={"drop_ratio": 0.0})
    radio = profile.radio
    assert isinstance(radio, Cellular)
    sharing = radio.sharing.model_copy(update={"rule": rule})
    return profile.model_copy(update={"radio": radio.model_copy(update={"sharing": sharing})})


@pytest.mark.parametrize("rule", ["priority", "weighted"])
def test_l11_slices_keep_saturating_video_away_from_control(rule: str):
    video = fault(kind="congestion", after="1ms", length="1h", flows=60, slice="video")
    for profile, isolated in ((shared(rule), True), (shared("none"), False)):
        idle = p99_ms(Link(profile, 1, start_ns=T0_NS), "control")
        full = p99_ms(Link(profile, 1, faults=[video], start_ns=T0_NS), "control")
        assert (full < 1.1 * idle) == isolated


def test_a_standing_grant_saves_the_request():
    link = Link(load_profile("private-5g"), 1)
    medians = {}
    for name, n_bytes in (("control", 100), ("telemetry", 100), ("control", 5_000)):
        t_ns, sizes = stream(500.0, 2_000, n_bytes)
        arrival_ns = link.bearer("x", UP, name).send_many(t_ns, sizes)
        medians[name, n_bytes] = np.median(arrival_ns - t_ns) / NS_PER_MS
    # A request and its answer: a slot and 1.5 to 3.0 ms, then up to a period to the slot.
    assert 2.0 < medians["telemetry", 100] - medians["control", 100] < 6.0
    assert medians["control", 5_000] > medians["control", 100] + 2.0  # the rest must be asked for


def test_load_slows_its_own_slice_monotonically_and_large_messages_more():
    def mean_ms(flows: int, n_bytes: int) -> float:
        faults = [fault(kind="congestion", after="1ms", length="1h", flows=flows)] if flows else []
        link = Link(shared("priority"), 1, faults=faults, start_ns=T0_NS)
        t_ns, sizes = stream(100.0, 5_000, n_bytes)
        return float(np.mean(link.bearer("x", UP, "video").send_many(t_ns, sizes) - t_ns)) / 1e6

    small, large = ([mean_ms(flows, n) for flows in (0, 8, 16, 22, 40)] for n in (100, 30_000))
    assert all(a < b for a, b in itertools.pairwise(small))
    assert all(b / a > 1.0 for a, b in itertools.pairwise(large))
    assert large[3] - large[0] > 2 * (small[3] - small[0])


def test_the_number_waiting_is_geometric_and_neighbours_meet_the_same_rush():
    faults = [fault(kind="congestion", after="1ms", length="10h", flows=20)]  # load 0.8
    link = Link(shared("priority"), 1, faults=faults, start_ns=T0_NS)
    t_ns, sizes = stream(997.3, 30_000)
    radio = link.profile.radio
    assert isinstance(radio, Cellular)
    turn_ns = 0.99 * len(radio.pattern) * radio.slot_ms * NS_PER_MS / radio.sharing.users_per_slot
    waits = []
    for ue in "ab":
        bearer = link.bearer(ue, UP, "video", trace=True)
        bearer.send_many(t_ns, sizes)
        waits.append(np.floor(bearer.take_trace()["queue_ns"] / turn_ns))
    assert waits[0].max() == 20
    for k in (1, 2, 5, 10):
        assert np.mean(waits[0] >= k) == pytest.approx(0.8**k, rel=0.06)
    assert np.corrcoef(*waits)[0, 1] > 0.9


demand = st.builds(Demand, st.integers(0, 50), st.floats(0.0, 200.0), st.floats(1.0, 1_000.0)).map(
    lambda d: d if d.flows and d.mbps else Demand()
)


@given(demand, demand, demand)
def test_priority_looks_up_only_and_no_rule_gives_more_than_the_cell(a: Any, b: Any, c: Any):
    ranks = {"a": Rank(10, 1.0), "b": Rank(20, 2.0), "c": Rank(30, 3.0)}
    all_of = {"a": a, "b": b, "c": c}
    assert queue(100.0, 1e6, all_of, ranks, "priority", "a") == queue(
        100.0, 1e6, {"a": a, "b": Demand(), "c": Demand()}, ranks, "priority", "a"
    )
    for rule in ("priority", "weighted", "none"):
        for name in ranks:
            found = queue(100.0, 1e6, all_of, ranks, rule, name)
            assert found is None or found.turn_ns >= 1_000_000


def test_unknown_slices_and_cells_are_refused_with_a_guess():
    link = Link(load_profile("private-5g"), 1)
    with pytest.raises(ConfigError, match="unknown slice") as caught:
        link.bearer("a", UP, "contrl")
    assert "control" in caught.value.hint
    Link(load_profile("ethernet"), 1).bearer("a", UP, "control")  # nothing to choose from
    down = fault(kind="outage", after="1s", length="1s", cell="c99")
    with pytest.raises(ConfigError, match="no cell 'c99'"):
        Link(load_profile("private-5g"), 1, IKD, [down])
    with pytest.raises(ConfigError, match="no layout"):
        Link(load_profile("private-5g"), 1, faults=[down])


# --- on the move ---------------------------------------------------------------------------------


def test_the_shipped_layouts_are_valid_and_ikd_is_the_plant():
    assert "ikd" in layout_names()
    assert len(IKD.cell) == 11
    assert len({cell.station for cell in IKD.cell}) == 4
    assert IKD.area.width_m * IKD.area.height_m == 90_000.0
    with pytest.raises(ConfigError, match="unknown layout"):
        load_layout("nowhere")
    raw = IKD.model_dump()
    with pytest.raises(ValidationError, match="names of their own"):
        Layout.model_validate(raw | {"cell": [raw["cell"][0]] * 2})


def test_a_tour_meets_handovers_with_the_promised_gaps():
    link = Link(load_profile("private-5g"), 1, IKD)
    gaps_ms, failed = [], 0
    for n in range(12):
        bearer = link.bearer(f"agv-{n}", DOWN, trace=True)
        tour(bearer, 10.0, laps=2)
        trace = bearer.take_trace()
        assert len(np.unique(trace["cell"])) >= 5
        gap_ms = trace["gap_ns"] / NS_PER_MS
        starts = np.flatnonzero((gap_ms > 0) & (np.append(0.0, gap_ms[:-1]) == 0.0))
        found = gap_ms[starts]
        failed += int(np.sum(found > 290.0))
        gaps_ms += found[found < 290.0].tolist()
        check_sums(trace)
    assert len(gaps_ms) > 150
    # Seen from messages every 10 ms, about 5 ms after the gap began and less the way to the air.
    assert 22.0 < np.median(gaps_ms) < 40.0
    assert np.percentile(gaps_ms, 99) < 200.0
    assert failed / len(gaps_ms) < 0.03


def test_up_and_down_of_one_vehicle_change_cells_together():
    link = Link(load_profile("private-5g"), 1, IKD)
    cells = []
    for direction in Direction:
        bearer = link.bearer("agv", direction, trace=True)
        tour(bearer, 50.0, laps=1)
        cells.append(bearer.take_trace()["cell"].tolist())
    assert cells[0] == cells[1]


def test_untuned_wifi_costs_seconds_where_cells_cost_milliseconds():
    def worst_ms(name: str) -> float:
        link = Link(load_profile(name).model_copy(update={"drop_ratio": 0.0}), 2, IKD)
        t_ns, arrival_ns = tour(link.bearer("agv", DOWN), 50.0, laps=1)
        return float(np.max(arrival_ns - t_ns)) / NS_PER_MS

    assert worst_ms("wifi-untuned") > 1_500.0
    assert worst_ms("private-5g") < 1_600.0


def test_a_standing_device_costs_one_look_and_stays_where_it_is():
    link = Link(load_profile("private-5g"), 1, IKD)
    bearer = link.bearer("cell-1", UP, trace=True)
    bearer.move(T0_NS, 100.0, 100.0)
    t_ns, sizes = stream(10_000.0, 5_000)
    bearer.send_many(t_ns, sizes)
    trace = bearer.take_trace()
    assert len(np.unique(trace["cell"])) == 1
    assert not trace["gap_ns"][10:].any()


def test_what_messages_have_seen_cannot_be_moved():
    bearer = Link(load_profile("private-5g"), 1, IKD).bearer("agv", UP)
    bearer.move(T0_NS, 0.0, 0.0)
    bearer.move(T0_NS + 100 * NS_PER_S, 100.0, 0.0)
    bearer.send(T0_NS + 50 * NS_PER_S, 100)
    with pytest.raises(ValueError, match="before the last message"):
        bearer.move(T0_NS + 40 * NS_PER_S, 40.0, 0.0)
    with pytest.raises(ValueError, match="off a track"):
        bearer.move(T0_NS + 60 * NS_PER_S, 0.0, 200.0)
    bearer.move(T0_NS + 55 * NS_PER_S, 55.0, 0.0)  # a stop on the way
    bearer.send(T0_NS + 90 * NS_PER_S, 100)
    with pytest.raises(ValueError, match="off a track"):
        bearer.move(T0_NS + 95 * NS_PER_S, 80.0, 0.0)
    bearer.move(T0_NS + 95 * NS_PER_S, 55.0, 0.0)
    bearer.move(T0_NS + 99 * NS_PER_S, 60.0, 0.0)


def test_the_signal_is_the_same_however_often_one_looks():
    link = Link(load_profile("private-5g"), 1, IKD, TROUBLE, T0_NS)
    world = link._around.world
    assert world is not None
    often, seldom = Journey(world, 5), Journey(world, 5)
    for journey in (often, seldom):
        journey.move(T0_NS, 10.0, 10.0)
        journey.move(T0_NS + 120 * NS_PER_S, 290.0, 200.0)
    t_ns = T0_NS + np.arange(1_500, dtype=np.int64) * GRID_NS
    single = [often.one(t) for t in t_ns.tolist()]
    assert list(zip(*(c.tolist() for c in seldom.many(t_ns)), strict=True)) == single


# --- faults --------------------------------------------------------------------------------------


def test_faults_are_written_in_words_and_checked():
    outage = fault(kind="outage", after="10m", length="90s", cell="c3")
    assert outage.after == 600 * NS_PER_S
    assert fault(kind="outage", after="0s", length="90s").after == 0  # with the run
    with pytest.raises(ValidationError):
        fault(kind="outage", after="10s", length="0s")
    for wrong in ({"after": "10m"}, {"after": 5, "length": "1s", "cel": "c1"}):
        with pytest.raises(ValidationError):
            fault(kind="outage", **wrong)


@pytest.mark.parametrize("kind", ["outage", "backhaul"])
def test_a_cut_stalls_tcp_until_a_try_succeeds_and_loses_datagrams(kind: str):
    cut = fault(kind=kind, after="10s", length="20s")
    t_ns, sizes = stream(100.0, 1_000)
    inside = (t_ns >= T0_NS + 10 * NS_PER_S) & (t_ns < T0_NS + 30 * NS_PER_S)
    after = t_ns >= T0_NS + 40 * NS_PER_S
    for name in ("private-5g", "ethernet"):
        profile = load_profile(name).model_copy(update={"drop_ratio": 0.0})
        bearer = Link(profile, 1, faults=[cut], start_ns=T0_NS).bearer("a", UP)
        arrival_ns = bearer.send_many(t_ns, sizes)
        assert not bearer.lost
        # The first segment tries after 0.2, 0.6, 1.4 ... 12.6 and 25.4 s: one instant for all.
        assert len(np.unique(arrival_ns[inside])) == 1
        assert 25.4e9 < arrival_ns[inside][0] - t_ns[inside][0] < 25.6e9
        assert np.max((arrival_ns - t_ns)[after]) < 500 * NS_PER_MS
    profile = load_profile("private-5g-udp").model_copy(update={"drop_ratio": 0.0})
    bearer = Link(profile, 1, faults=[cut], start_ns=T0_NS).bearer("a", UP)
    lost = bearer.send_many(t_ns, sizes) < 0
    assert np.all(lost[inside])
    assert not lost[after].any()
    assert bearer.lost == {kind: int(lost.sum())}


def test_a_placed_device_flees_a_dead_cell_and_survives_one_station():
    link = Link(load_profile("private-5g-udp").model_copy(update={"drop_ratio": 0.0}), 1, IKD, [
        fault(kind="outage", after="10s", length="20s", cell="north-west")], T0_NS)  # fmt: skip
    bearer = link.bearer("agv", UP, trace=True)
    bearer.move(T0_NS, 70.0, 230.0)
    t_ns, sizes = stream(50.0, 1_000)
    arrival_ns = bearer.send_many(t_ns, sizes)
    trace = bearer.take_trace()
    home, away = IKD.cells("north-west"), trace["cell"][(t_ns >= T0_NS + 11 * NS_PER_S) & (
        t_ns < T0_NS + 30 * NS_PER_S)]  # fmt: skip
    assert trace["cell"][0] in home
    assert not set(away.tolist()) & set(home)
    assert 0.25e9 < trace["gap_ns"].max() < 1.6e9
    assert np.mean(arrival_ns >= 0) > 0.95


def test_interference_hurts_where_it_is():
    area = {"x_m": 80.0, "y_m": 70.0, "width_m": 60.0, "height_m": 60.0}
    noise = fault(kind="interference", after="1ms", length="1h", rise_db=60.0, area=area)
    link = Link(load_profile("private-5g-udp"), 1, IKD, [noise], T0_NS)
    lost = []
    for x, y in ((110.0, 100.0), (250.0, 250.0)):
        bearer = link.bearer("agv", UP)
        bearer.move(T0_NS, x, y)
        t_ns, sizes = stream(100.0, 500)
        lost.append(int(np.sum(bearer.send_many(t_ns, sizes) < 0)))
    assert lost[0] > 450
    assert lost[1] < 10


instants = st.integers(0, 150_000).map(lambda ms: f"{ms}ms")
lengths = st.integers(1, 60_000).map(lambda ms: f"{ms}ms")
cuts = st.lists(
    st.builds(
        lambda kind, after, length: fault(kind=kind, after=after, length=length),
        st.sampled_from(["outage", "backhaul", "broker_restart"]), instants, lengths,
    ),
    min_size=1, max_size=6,
)  # fmt: skip
RUSH = fault(kind="congestion", after="60s", length="45s", flows=3_000, direction="both")
CUT_OFF = {
    "radio": (load_profile("private-5g").model_copy(update={"drop_ratio": 0.02}), ()),
    "hasty": (
        load_profile("private-5g").model_copy(
            update={"transport": Tcp(kind="tcp", reset_after_s=0.7)}
        ),
        (),
    ),
    "backlog": (load_profile("wifi-loaded"), (RUSH,)),
    "wire": (load_profile("ethernet"), ()),
    "datagrams": (load_profile("private-5g-udp"), ()),
}


def dead_ns(faults: list[Fault]) -> list[tuple[int, int]]:
    """When nothing may arrive: restarts to the nanosecond, cuts on the grid."""
    found = []
    for each in faults:
        start_ns, end_ns = T0_NS + each.after, T0_NS + each.after + each.length
        if each.kind != "broker_restart":
            start_ns, end_ns = start_ns // GRID_NS * GRID_NS, -(-end_ns // GRID_NS) * GRID_NS
        found.append((start_ns, end_ns))
    return found


@pytest.mark.parametrize("name", CUT_OFF)
@settings(max_examples=25, deadline=None)
@example(
    faults=[
        fault(kind="outage", after="0s", length="5441ms"),
        fault(kind="outage", after="6880ms", length="4961ms"),
        fault(kind="broker_restart", after="1ms", length="1ms"),
    ],
    placed=False,
    direction=UP,
)
@given(faults=cuts, placed=st.booleans(), direction=st.sampled_from(Direction))
def test_nothing_arrives_while_nothing_passes(
    name: str, faults: list[Fault], placed: bool, direction: Direction
):
    profile, load = CUT_OFF[name]
    link = Link(profile, 7, IKD, [*faults, *load], T0_NS)
    whole, single = (link.bearer("arm", direction, trace=True) for _ in range(2))
    if placed:
        whole.move(T0_NS, 60.0, 90.0)
        single.move(T0_NS, 60.0, 90.0)
    t_ns, sizes = stream(390.0, 600)
    arrival_ns = whole.send_many(t_ns, sizes)
    alone = [single.send(t, 100) for t in t_ns.tolist()]
    assert [-1 if at is None else at for at in alone] == arrival_ns.tolist()
    traces = whole.take_trace(), single.take_trace()
    assert traces[0]["cause"].tolist() == traces[1]["cause"].tolist()
    check_sums(traces[0])
    assert whole.lost == single.lost
    for start_ns, end_ns in dead_ns(faults):
        assert not np.any((start_ns <= arrival_ns) & (arrival_ns < end_ns))
    lost = arrival_ns < 0
    assert np.all(traces[0]["cause"][lost] > 0)
    assert sum(whole.lost.values()) == lost.sum()
    assert name == "datagrams" or not lost.any()


@pytest.mark.parametrize("name", ["private-5g", "ethernet"])
@pytest.mark.parametrize("first", ["outage", "backhaul", "broker_restart"])
def test_what_one_cut_held_back_waits_for_the_next_that_touches_it(name: str, first: str):
    faults = [
        fault(kind=first, after="30s", length="60s"),
        fault(kind="backhaul", after="80s", length="60s"),
    ]
    profile = load_profile(name).model_copy(update={"drop_ratio": 0.0})
    t_ns, sizes = stream(200.0, 1_500)
    bearer = Link(profile, 7, faults=faults, start_ns=T0_NS).bearer("a", UP, trace=True)
    arrival_ns = bearer.send_many(t_ns, sizes)
    held = (t_ns > T0_NS + 31 * NS_PER_S) & (t_ns < T0_NS + 139 * NS_PER_S)
    assert len(np.unique(arrival_ns[held])) <= 30  # at once, or a burst
    assert np.all(arrival_ns[held] >= T0_NS + 140 * NS_PER_S)
    cause = bearer.take_trace()["cause"]
    names = [CAUSES[number] for number in cause[[200, 600]].tolist()]
    assert names == [first.partition("_")[0], "backhaul"]


def test_a_cut_after_the_restart_of_a_broker_holds_back_the_new_connection():
    restart = fault(kind="broker_restart", after="10s", length="4s")
    cut = fault(kind="backhaul", after="14s", length="6s")
    profile = load_profile("ethernet").model_copy(update={"drop_ratio": 0.0})
    bearer = Link(profile, 1, faults=[restart, cut], start_ns=T0_NS).bearer("a", UP)
    arrival_ns = bearer.send(T0_NS + 11 * NS_PER_S, 100)
    assert arrival_ns is not None
    assert 20 * NS_PER_S <= arrival_ns - T0_NS < 20 * NS_PER_S + BACKOFF_NS + 100 * MS


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20), st.sampled_from(CAUSES[1:3])),
                max_size=12))  # fmt: skip
def test_cuts_that_touch_are_one_and_the_longest_one_in_force_is_the_cause(raw: Any):
    spans = [Cut(start, start + length, cause) for start, length, cause in raw]
    dark = Dark(spans)
    times = np.arange(-2, 100, dtype=np.int64)
    columns = dark.many(times)
    assert list(zip(*(c.tolist() for c in columns), strict=True)) == [
        dark.one(t) for t in times.tolist()
    ]
    for t_ns in times.tolist():
        mine = [cut for cut in spans if cut.start_ns <= t_ns < cut.end_ns]
        end_ns, cause = dark.one(t_ns)
        until_ns = t_ns
        while further := [c.end_ns for c in spans if c.start_ns <= until_ns < c.end_ns]:
            until_ns = max(further)
        assert end_ns == (until_ns if mine else 0)
        last_ns = max((cut.end_ns for cut in mine), default=0)
        assert CAUSES[cause] in ({c.cause for c in mine if c.end_ns == last_ns} or {""})


def test_a_vehicle_that_flees_an_outage_is_not_held_back_by_the_cell_it_left():
    link = Link(load_profile("private-5g").model_copy(update={"drop_ratio": 0.0}), 1, IKD, [
        fault(kind="outage", after="10s", length="60s", cell="north-west")], T0_NS)  # fmt: skip
    bearer = link.bearer("agv", UP, trace=True)
    bearer.move(T0_NS, 70.0, 230.0)
    t_ns, sizes = stream(2.0, 10_000)
    arrival_ns = bearer.send_many(t_ns, sizes)
    trace = bearer.take_trace()
    under_way = trace["cause"] == CAUSES.index("outage")
    assert under_way.any()  # what the dead cell swallowed
    assert np.all((arrival_ns - t_ns)[under_way] > 200 * MS)
    assert np.max(arrival_ns - t_ns) < 4 * NS_PER_S


def test_a_wire_is_one_cell_and_faults_of_radio_cells_leave_it():
    t_ns, sizes = stream(100.0, 600)
    mine = fault(kind="outage", after="10s", length="20s", cell="c3")
    load = fault(kind="congestion", after="10s", length="20s", flows=3_000, cell="north-west")
    profile = load_profile("ethernet").model_copy(update={"drop_ratio": 0.0})
    calm = Link(profile, 1, IKD).bearer("a", UP).send_many(t_ns, sizes).tolist()
    link = Link(profile, 1, IKD, [mine, load], T0_NS)
    assert link.cell_names == ("wire",)
    bearer = link.bearer("a", UP, trace=True)
    assert bearer.send_many(t_ns, sizes).tolist() == calm
    assert not bearer.take_trace()["cell"].any()
    assert Link(load_profile("private-5g"), 1, IKD).cell_names == tuple(c.name for c in IKD.cell)
    for kind in ("outage", "backhaul"):
        with pytest.raises(ConfigError, match="no cell 'c99'"):
            Link(profile, 1, IKD, [fault(kind=kind, after="1s", length="1s", cell="c99")])
        whole = fault(kind=kind, after="10s", length="20s")
        hit = Link(profile, 1, IKD, [whole], T0_NS).bearer("a", UP).send_many(t_ns, sizes)
        assert hit.tolist() != calm


def test_a_fault_of_an_unknown_slice_is_refused_where_there_are_slices():
    for direction in ("up", "down", "both"):
        load = fault(
            kind="congestion", after="1h", length="1s", flows=1, slice="vido", direction=direction
        )
        with pytest.raises(ConfigError, match="unknown slice 'vido'"):
            Link(load_profile("private-5g"), 1, IKD, [load])
        Link(load_profile("ethernet"), 1, IKD, [load])  # carries any


def test_many_cuts_cost_a_message_no_more_than_one():
    faults = [fault(kind="outage", after=f"{n}m", length="10s", cell="c5") for n in range(96)]
    link = Link(load_profile("private-5g"), 1, IKD, faults, T0_NS)
    bearer = link.bearer("agv", UP)
    looks = 0

    class Counted(Dark):
        def many(self, t_ns: Any) -> Any:
            nonlocal looks
            looks += 1
            return super().many(t_ns)

    spot = bearer._spot
    assert spot is not None
    spot._dark[UNPLACED] = Counted(link._around.cuts[spot._home])
    bearer.send_many(*stream(1_000.0, 6_000))
    assert looks == 2  # when it is sent, and when it would arrive


# --- restarts of the broker, and connections given up ---------------------------------------------

MS = NS_PER_MS
RESTART = fault(kind="broker_restart", after="10s", length="4s")


def test_restarts_that_touch_are_one():
    def restart(after: str, length: str) -> Fault:
        return fault(kind="broker_restart", after=after, length=length)

    found = Restarts([restart("9s", "1s"), restart("1s", "2s"), restart("2s", "2s"),
                      restart("4s", "1s"), *TROUBLE[:2]], T0_NS).spans  # fmt: skip
    seconds = [((a - T0_NS) / NS_PER_S, (b - T0_NS) / NS_PER_S) for a, b in found]
    assert seconds == [(1.0, 5.0), (9.0, 10.0)]


def test_back_offs_are_bounded_spread_and_ones_own():
    restarts = Restarts([RESTART], T0_NS, seed=3)
    (start_ns, end_ns), *_ = restarts.spans
    waits_ns = []
    for n in range(2_000):
        client = restarts.client(f"agv-{n}", 8 * MS)
        waits_ns.append(client.connected_ns(start_ns, end_ns) - end_ns - 16 * MS)
    assert min(waits_ns) >= 0
    assert max(waits_ns) < BACKOFF_NS
    assert np.mean(waits_ns) == pytest.approx(BACKOFF_NS / 2, rel=0.05)
    other = Restarts([RESTART], T0_NS, seed=4).client("agv-0", 8 * MS)
    assert other.connected_ns(start_ns, end_ns) - end_ns - 16 * MS != waits_ns[0]


def test_a_restart_that_meets_a_handshake_makes_the_client_begin_anew():
    again = fault(kind="broker_restart", after="14s", length="2s")
    early = fault(kind="broker_restart", after="14001ms", length="2s")
    end_ns = T0_NS + 14 * NS_PER_S
    assert len(Restarts([RESTART, again], T0_NS).spans) == 1
    client = Restarts([RESTART, early], T0_NS).client("a", 8 * MS)
    assert client.connected_ns(T0_NS + 10 * NS_PER_S, end_ns) == client.connected_ns(
        T0_NS + 14_001 * MS, T0_NS + 16_001 * MS
    )
    assert client.again_ns(T0_NS, T0_NS) == 0
    assert client.again_ns(end_ns, end_ns) > T0_NS + 16_001 * MS


def test_a_restart_holds_back_what_would_arrive_and_lets_it_go_as_a_burst():
    client = Restarts([RESTART], 0, seed=1).client("a", 8 * MS)
    back_ns = client.connected_ns(10_000 * MS, 14_000 * MS)
    assert 14_016 * MS <= back_ns < 15_016 * MS
    back = back_ns // MS
    plan = [  # sent, its own time on the way, arrival after the end of the handshake
        (9_990, 5, None),
        (9_994, 5, None),
        (9_995, 5, 5),  # would arrive at the very instant
        (9_999, 3, 5),  # never before the one sent earlier
        (12_000, 7, 7),
        (14_010, 4, 7),  # the broker is back, this client is not
        (back + 1, 4, 7),  # was faster by itself, but keeps its place
        (back + 9, 5, None),
    ]
    sent, trips, _ = zip(*plan, strict=True)
    t_ns = np.array(sent, np.int64) * MS
    own_ns = t_ns + np.array(trips, np.int64) * MS
    expected = [(t + trip) * MS if held is None else back_ns + held * MS for t, trip, held in plan]
    none = np.zeros_like(t_ns)
    whole, single = (Stream(Tcp(kind="tcp"), 3 * MS, client) for _ in range(2))
    assert whole.many(t_ns, own_ns, none).tolist() == expected
    assert [single.one(*row, 0) for row in zip(t_ns.tolist(), own_ns.tolist(), strict=True)] == (
        expected
    )


def test_what_is_first_sent_after_the_handshake_may_then_be_lost_what_was_under_way_was():
    client = Restarts([RESTART], 0, seed=1).client("a", 8 * MS)
    back_ns = client.connected_ns(10_000 * MS, 14_000 * MS)
    for t_ms, expected_ns in ((9_900, back_ns + 5 * MS), (12_000, back_ns + (200 + 5 + 3) * MS)):
        stream = Stream(Tcp(kind="tcp"), 3 * MS, client)
        assert stream.one(t_ms * MS, (t_ms + 5) * MS, 1) == expected_ns


def test_both_directions_come_back_together_and_no_two_clients_do():
    profile = load_profile("private-5g").model_copy(update={"drop_ratio": 0.0})
    link = Link(profile, 1, faults=[RESTART], start_ns=T0_NS)
    t_ns, sizes = stream(20.0, 2_000)
    inside = (t_ns >= T0_NS + 10 * NS_PER_S) & (t_ns < T0_NS + 14 * NS_PER_S)
    first = {}
    for ue, direction in itertools.product("abc", Direction):
        bearer = link.bearer(ue, direction)
        arrival_ns = bearer.send_many(t_ns, sizes)
        assert not bearer.lost
        assert np.all(np.diff(arrival_ns) >= 0)
        held = arrival_ns[inside]
        assert held[-1] - held[0] < 100 * MS  # a burst
        first[ue, direction] = int(held[0]) - T0_NS - 14 * NS_PER_S
        assert np.max((arrival_ns - t_ns)[t_ns > held[-1]]) < NS_PER_S
    assert all(0 < wait_ns < BACKOFF_NS + 100 * MS for wait_ns in first.values())
    for ue in "abc":
        assert abs(first[ue, UP] - first[ue, DOWN]) < 25 * MS
    assert min(abs(first[a, UP] - first[b, UP]) for a, b in ("ab", "ac", "bc")) > 25 * MS


def test_before_and_after_a_restart_nothing_is_different():
    profile = load_profile("private-5g").model_copy(update={"drop_ratio": 0.0})
    t_ns, sizes = stream(20.0, 2_000)
    calm, upset = (
        Link(profile, 1, faults=faults, start_ns=T0_NS).bearer("a", UP).send_many(t_ns, sizes)
        for faults in ((), (RESTART,))
    )
    came = calm < T0_NS + 10 * NS_PER_S
    later = t_ns > upset[~came][0] + 50 * MS
    assert came.sum() > 400
    assert later.sum() > 1_000
    assert upset[came].tolist() == calm[came].tolist()
    assert upset[later].tolist() == calm[later].tolist()


def test_datagrams_that_meet_no_broker_are_lost_and_nothing_else_is():
    profile = load_profile("private-5g-udp").model_copy(update={"drop_ratio": 0.0})
    t_ns, sizes = stream(3.0, 6_000)
    start_ns, end_ns = T0_NS + 10 * NS_PER_S, T0_NS + 14 * NS_PER_S
    for direction in Direction:
        calm = Link(profile, 1).bearer("a", direction).send_many(t_ns, sizes)
        bearer = Link(profile, 1, faults=[RESTART], start_ns=T0_NS).bearer("a", direction)
        upset = bearer.send_many(t_ns, sizes)
        met = (calm >= start_ns) & (t_ns < end_ns)
        assert np.all(upset[met] == -1)
        assert upset[~met].tolist() == calm[~met].tolist()
        assert bearer.lost["broker"] == int(met.sum())
        assert met.sum() > 1_333  # more than is sent meanwhile: also what is under way


def test_a_broker_that_restarts_in_an_outage_is_found_again_after_it():
    outage = fault(kind="backhaul", after="8s", length="12s")
    profile = load_profile("ethernet").model_copy(update={"drop_ratio": 0.0})
    t_ns, sizes = stream(100.0, 400)
    links = [
        Link(profile, 1, faults=faults, start_ns=T0_NS)
        for faults in ((outage,), (outage, RESTART), (RESTART,))
    ]
    released = []
    for link in links:
        arrival_ns = link.bearer("a", UP).send_many(t_ns, sizes)
        cut = (t_ns >= T0_NS + 11 * NS_PER_S) & (t_ns < T0_NS + 13 * NS_PER_S)
        released.append((int(arrival_ns[cut][0]) - T0_NS) / NS_PER_S)
    only_outage, both, only_restart = released
    assert only_outage == pytest.approx(8.0 + 12.6, abs=0.2)  # TCP's sixth try, of the first one
    assert both - 20.0 == pytest.approx(only_restart - 14.0, abs=0.2)  # the same back-off, later
    client = Restarts([RESTART], 0, seed=1).client("a", 8 * MS)
    stalled = Stream(Tcp(kind="tcp"), 3 * MS, client).one(12_000 * MS, 12_005 * MS, 0, 20_000 * MS)
    assert stalled == client.connected_ns(10_000 * MS, 20_000 * MS) + 5 * MS


def test_a_restart_that_is_over_changes_nothing_about_a_later_outage():
    profile = load_profile("ethernet").model_copy(update={"drop_ratio": 0.0})
    t_ns, sizes = stream(100.0, 600)
    arrivals = [
        Link(profile, 1, faults=faults, start_ns=T0_NS).bearer("a", UP).send_many(t_ns, sizes)
        for outage in [fault(kind="backhaul", after="20s", length="10s")]
        for faults in ((outage,), (outage, RESTART))
    ]
    later = t_ns > T0_NS + 16 * NS_PER_S
    assert arrivals[0][later].tolist() == arrivals[1][later].tolist()


def test_a_connection_is_given_up_when_its_time_is_over_and_not_before():
    client = Restarts(seed=1).client("a", 8 * MS)
    spec = Tcp(kind="tcp", reset_after_s=60.0)  # tries after 0.2, 0.6, ... 51.0, 102.2 s

    def arrival_ms(until_ms: int, losses: int = 0, t_ms: int = 1_000) -> float:
        stream = Stream(spec, 3 * MS, client)
        return stream.one(t_ms * MS, (t_ms + 5) * MS, losses, until_ms * MS) / MS

    def connected_ms(broken_ms: int, able_ms: int) -> float:
        return client.connected_ns(broken_ms * MS, able_ms * MS) / MS

    assert arrival_ms(51_900) == 1_000 + 51_000 + 5 + 3
    assert arrival_ms(52_001) == connected_ms(61_000, 61_000) + 5  # not at 103 s
    assert arrival_ms(600_000) == connected_ms(61_000, 600_000) + 5
    assert 600_016 + 5 <= arrival_ms(600_000) < 601_016 + 5
    assert arrival_ms(0, losses=8) == 1_000 + 51_000 + 5 + 3
    assert arrival_ms(0, losses=9) == connected_ms(61_000, 61_000) + 5


def test_a_long_outage_ends_for_each_with_its_own_back_off():
    outage = fault(kind="outage", after="10s", length="5m")
    t_ns, sizes = stream(1_000.0, 600)
    waits_s = []
    for ue in "abcdefgh":
        link = Link(load_profile("private-5g"), 1, faults=[outage], start_ns=T0_NS)
        bearer = link.bearer(ue, UP)
        arrival_ns = bearer.send_many(t_ns, sizes)
        assert not bearer.lost
        held = arrival_ns[(t_ns >= T0_NS + 11 * NS_PER_S) & (t_ns < T0_NS + 310 * NS_PER_S)]
        assert len(np.unique(held)) == 1
        waits_s.append((int(held[0]) - T0_NS) / NS_PER_S - 310.0)
    # The radio finds its cell within 1.5 s, the client its broker within another.
    assert all(0.3 < wait_s < 2.7 for wait_s in waits_s)
    assert len({round(wait_s, 3) for wait_s in waits_s}) == 8


def test_a_plain_wire_is_stopped_by_the_broker_alone():
    link = Link(load_profile("private-5g"), 1, IKD, [*TROUBLE[:7], RESTART], T0_NS)
    t_ns, sizes = stream(100.0, 400)
    wire = link.plain("ningbo/mes", MS // 2)
    arrival_ns = wire.send_many(t_ns, sizes)
    held = (arrival_ns - t_ns) > MS // 2
    back_ns = int(arrival_ns[held][0]) - MS // 2
    assert 2 * MS <= back_ns - (T0_NS + 14 * NS_PER_S) < BACKOFF_NS + 2 * MS
    assert set(arrival_ns[held].tolist()) == {back_ns + MS // 2}
    assert held.tolist() == ((t_ns >= T0_NS + 10 * NS_PER_S) & (t_ns < back_ns)).tolist()
    assert not wire.lost


# --- quality of service 1 ------------------------------------------------------------------------


def test_qos_1_adds_a_round_trip_and_holds_back_only_beyond_its_window():
    link = Link(load_profile("private-5g"), 1)
    t_ns, sizes = stream(100.0, 3_000)
    plain = link.bearer("a", UP).send_many(t_ns, sizes)
    arrivals, acked = link.confirmed("a", UP).send_many(t_ns, sizes)
    assert arrivals.tolist() == plain.tolist()  # never 20 on their way at 10 a second
    back_ms = np.median(acked - arrivals) / NS_PER_MS
    assert 3.0 < back_ms < 7.0
    one = link.confirmed("a", UP, inflight=1)
    fast_ns, fast_sizes = stream(1.0, 500)
    slow, slow_acked = one.send_many(fast_ns, fast_sizes)
    assert np.all(slow[1:] > slow_acked[:-1])
    cut = link.confirmed("a", UP, inflight=7)
    whole = link.confirmed("a", UP, inflight=7).send_many(fast_ns, fast_sizes)[1].tolist()
    pieces = [cut.send_many(fast_ns[a : a + 33], fast_sizes[a : a + 33])[1] for a in
              range(0, 500, 33)]  # fmt: skip
    assert np.concatenate(pieces).tolist() == whole
    with pytest.raises(ConfigError, match="needs TCP"):
        Link(load_profile("private-5g-udp"), 1).confirmed("a", UP)
