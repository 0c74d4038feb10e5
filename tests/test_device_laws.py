"""What holds for every device kind, and the numbers that docstrings promise, kept."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from config.errors import ConfigError
from config.faults import Fault, Outage
from config.units import NS_PER_MS, NS_PER_S, parse_time
from ingest.packml import Mode, PackML
from simulator.device import (
    LEGAL,
    Columns,
    Device,
    Kind,
    Meter,
    Steps,
    Stretch,
    Unit,
    VdaState,
    kinds,
    panes,
)
from simulator.devices.agv import Agv, Piece, trapezoid
from simulator.devices.cable_line import CableLine
from simulator.link.link import Link
from simulator.link.profile import load_profile
from simulator.plant import make_plant
from simulator.plant.floor import Floor

START = parse_time("2026-01-05T00:00:00Z")
ALWAYS = {"shift": [{"start": "00:00", "end": "24:00"}]}
NODES = [
    {"name": "cell", "x_m": 0.0, "y_m": 0.0},
    {"name": "station", "x_m": 30.0, "y_m": 0.0},
    {"name": "corner", "x_m": 30.0, "y_m": 40.0},
    {"name": "store", "x_m": 60.0, "y_m": 40.0},
]
EDGES = [{"between": [a["name"], b["name"]]} for a, b in pairwise(NODES)]
PLACES = {"casting_cell": "cell", "robot_arm": "station", "work_unit": "corner", "agv": "store"}
Settings = Mapping[str, Mapping[str, Any]]


def device(kind: str, name: str, **settings: Any) -> dict[str, Any]:
    place = {"node": PLACES[kind]} if kind in PLACES else {}
    charger = {"charger": "store"} if kind == "agv" else {}
    return {
        "name": name,
        "kind": kind,
        "area": "hall",
        "line": "l1",
        **place,
        **charger,
        **settings,
    }


def floor(
    devices: list[dict[str, Any]], *, seed: int = 1, hours: float = 0.0, pieces: int = 10,
    network: str = "ethernet", calendar: Mapping[str, Any] = ALWAYS, quantity: int = 10**6,
    faults: Sequence[Fault] = (), dies: int = 1, **plant_settings: Any,
) -> Floor:  # fmt: skip
    cells, lines = (
        [d["name"] for d in devices if d["kind"] == kind] for kind in ("casting_cell", "cable_line")
    )
    kinds_ = {d["kind"] for d in devices}
    cast = {"operation": "cast", "units": cells, "pri_s": 1.0}
    onward = [
        {"operation": operation, "units": [f"{name}*"], "pri_s": 1.0}
        for kind, operation, name in (("robot_arm", "trim", "r"), ("work_unit", "machine", "m"))
        if kind in kinds_
    ]
    products = [
        {"name": f"p{die}", "step": [cast | {"tool": f"m{die}"}, *onward]}
        for die in range(1, dies + 1)
        if cells
    ] + [{"name": "cable", "step": [{"operation": "draw", "units": lines, "pri_s": 1.0}]}] * bool(
        lines
    )
    orders = [
        {
            "number": dies * n + die,
            "unit": name,
            "product": f"p{die}" if name in cells else "cable",
            "quantity": quantity,
        }
        for n, name in enumerate([*cells, *lines])
        for die in range(1, dies + 1)
    ]
    plant = make_plant(
        {
            "site": "s", "pieces_per_container": pieces, "warehouse": "store", "calendar": calendar,
            "node": NODES, "edge": EDGES, "device": devices, "product": products, "order": orders,
            **plant_settings,
        }
    )  # fmt: skip
    link = Link(load_profile(network), seed, None, faults, START)
    world = Floor(plant, link, seed, START)
    if hours:
        world.run_to(START + round(hours * 3600) * NS_PER_S)
    return world


def find(world: Floor, name: str) -> Any:
    return next(d for d in world.devices if d.asset.name == name)


def blocks(minutes: int) -> list[Any]:
    return [
        START + NS_PER_S * np.arange(60 * m + 1, 60 * m + 61, dtype=np.int64)
        for m in range(minutes)
    ]


def over(times: Any) -> Stretch:
    """A block of whole seconds."""
    return Stretch(int(times[0]) - NS_PER_S, int(times[-1]), times)


SHOP = [device("casting_cell", "c"), device("robot_arm", "r"), device("agv", "v"),
        device("cable_line", "l"), device("work_unit", "m")]  # fmt: skip


@pytest.mark.parametrize("kind", kinds().values(), ids=lambda kind: kind.name)
class TestEveryKind:
    def _one(self, world: Floor, kind: Kind) -> Device:
        return next(d for d in world.devices if type(d) is kind.model)

    def test_it_is_described(self, kind: Kind) -> None:
        assert kind.summary.endswith(".") or kind.summary
        assert kind.channels
        assert all(name and unit for name, unit in kind.channels.items())
        rows = kind.settings()
        assert {name for name, *_ in rows} == set(kind.spec.model_fields)
        assert all(meaning for _, default, _, meaning in rows if default != kind.name)

    def test_reports_are_announced_ordered_and_never_sent_early(self, kind: Kind) -> None:
        world = floor(SHOP)
        one = self._one(world, kind)
        world.run_to(START)
        first = one.first_reports(START)
        assert all(r.sent_ns == START for r in first)
        for times in blocks(30):
            world.run_to(int(times[-1]))
            for report in one.reports(over(times)):
                assert times[0] - NS_PER_S < report.sent_ns <= times[-1]
                if not isinstance(report, Columns):
                    continue
                assert set(report.ch) <= set(one.channels)
                assert list(report.t_ns) == sorted(report.t_ns)
                assert report.t_ns[-1] <= report.sent_ns
                for values in report.ch.values():
                    assert len(values) == len(report.t_ns)
                    assert all(v is None or math.isfinite(v) for v in values)

    def test_the_same_seed_says_the_same(self, kind: Kind) -> None:
        said: list[list[Any]] = []
        for _ in range(2):
            world = floor(SHOP)
            one = self._one(world, kind)
            said.append([])
            for times in blocks(10):
                world.run_to(int(times[-1]))
                said[-1] += one.reports(over(times))
        assert said[0] == said[1]

    def test_sampling_never_changes_the_process(self, kind: Kind) -> None:
        watched, unwatched = floor(SHOP), floor(SHOP)
        one = self._one(watched, kind)
        for times in blocks(60):
            watched.run_to(int(times[-1]))
            one.reports(over(times))
        unwatched.run_to(int(times[-1]))
        for a, b in zip(watched.units, unwatched.units, strict=True):
            assert (a.state.t, a.state.v) == (b.state.t, b.state.v)
        assert watched.flow.entered.t == unwatched.flow.entered.t
        assert watched.flow.left.t == unwatched.flow.left.t

    def test_every_change_of_state_is_legal(self, kind: Kind) -> None:
        calendar = {"shift": [{"start": "08:00", "end": "16:00"}],
                    "pause": [{"start": "10:00", "end": "10:20"}]}  # fmt: skip
        rough = [
            device("casting_cell", "c", mtbf_s=1500.0, abort_ratio=0.5), device("robot_arm", "r"),
            device("agv", "v"), device("cable_line", "l", mtbf_s=600.0),
            device("work_unit", "m", mtbf_s=1500.0),
        ]  # fmt: skip
        world = floor(rough, hours=12, calendar=calendar, quantity=350)
        one = self._one(world, kind)
        if isinstance(one, Unit):
            states = [PackML(v) for v in one.state.v]
            assert len(set(states)) > 6
            assert all(b in LEGAL[a] for a, b in pairwise(states))
            assert all(a < b for a, b in pairwise(one.state.t))


def test_legal_transitions_are_those_of_packml() -> None:
    assert set(LEGAL) == set(PackML)
    assert all(PackML.ABORTING in LEGAL[s] for s in PackML if s.name not in ("ABORTING", "ABORTED"))
    assert PackML.EXECUTE not in LEGAL[PackML.STOPPED]
    assert LEGAL[PackML.ABORTED] == {PackML.CLEARING}


def test_adding_a_device_leaves_the_signals_of_others_unchanged() -> None:
    def metal(devices: list[dict[str, Any]]) -> list[Any]:
        world = floor(devices)
        cell = find(world, "c")
        out: list[Any] = []
        for times in blocks(20):
            world.run_to(int(times[-1]))
            said = cell.reports(over(times))
            out += [r.ch["metal_c"] for r in said if r.stream == "process"]
        return out

    assert metal(SHOP) == metal([device("robot_arm", "a"), *SHOP, device("casting_cell", "z")])


# Steps, meters, panes


def test_steps_are_right_continuous() -> None:
    steps = Steps(0, 1)
    steps.set(10, 5)
    steps.set(20, 7)
    assert steps.at(np.array([0, 9, 10, 19, 20, 99])).tolist() == [1, 1, 5, 5, 7, 7]
    assert [steps.get(t) for t in (-5, 0, 9, 10, 20)] == [1, 1, 1, 5, 7]
    assert steps.between(0, 10) == [(10, 5)]
    with pytest.raises(ValueError, match="runs back"):
        steps.set(19, 1)


def test_a_meter_is_the_exact_integral() -> None:
    rng = np.random.default_rng(1)
    meter, t = Meter(0, 3, 1000), 0
    marks = [(0, 3)]
    for _ in range(200):
        t += int(rng.integers(1, 10**9))
        rate = int(rng.integers(-50, 60_000))
        meter.set(t, rate)
        marks.append((t, rate))
    times = np.sort(rng.integers(0, t + 10**9, 500))
    for at, reading in zip(times.tolist(), meter.at(times).tolist(), strict=True):
        known = [*marks, (10**18, 0)]
        total = sum(r * (min(e, at) - s) for (s, r), (e, _) in pairwise(known) if s < at)
        assert reading == total // 1000


def test_a_sample_on_a_panes_end_closes_it() -> None:
    times = START + NS_PER_S * np.arange(1, 26, dtype=np.int64)
    assert panes(times) == [(0, 10), (10, 20), (20, 25)]


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("casting_cell", "biscuit_lsl_mm", "biscuit_usl_mm"),
     ("casting_cell", "pressure_lsl_mpa", "pressure_usl_mpa"),
     ("cable_line", "diameter_lsl_mm", "diameter_usl_mm")],
)  # fmt: skip
def test_limits_must_be_in_order(kind: str, low: str, high: str) -> None:
    with pytest.raises(ConfigError, match="lower limit 9 is not below the upper 8"):
        floor([device(kind, "x", **{low: 9.0, high: 8.0}), device("agv", "v")])


# AGV


def test_trip_time_of_the_trapezoid() -> None:
    long = trapezoid(0, 0.0, 100.0, 1.2, 0.5)
    assert long[-1].t_ns / NS_PER_S == pytest.approx(100 / 1.2 + 1.2 / 0.5)  # 85.7 s
    short = trapezoid(0, 0.0, 2.0, 1.2, 0.5)
    assert short[-1].t_ns / NS_PER_S == pytest.approx(2 * math.sqrt(2.0 / 0.5))
    for plan, goal in ((long, 100.0), (short, 2.0)):
        assert plan[-1].at_m == goal
        for piece, onward in pairwise(plan):
            far, speed = piece.after(onward.t_ns)
            assert far == pytest.approx(onward.at_m, abs=1e-6)
            assert speed == pytest.approx(onward.speed_mps, abs=1e-6)


def agv_shop(network: str) -> tuple[Agv, Floor]:
    world = floor(
        [device("casting_cell", "c", cycle_s=20.0, mtbf_s=1e9), device("robot_arm", "r"),
         device("agv", "v", start_ratio=0.5)],
        hours=8, network=network,
    )  # fmt: skip
    return find(world, "v"), world


def test_a_drive_never_outruns_its_limits_and_ends_at_its_goal() -> None:
    agv, _ = agv_shop("wifi-loaded")
    drives = [d for d in agv._drives if len(d.way) > 1][:-1]  # the last may be under way
    halts = agv.halted.rate
    assert sum(halts.v) > 10
    for drive in drives[:60]:
        assert drive.end_ns % NS_PER_MS == 0
        times = np.arange(drive.pieces[0].t_ns, drive.end_ns + 1, 50 * NS_PER_MS)
        far, speed = np.array([drive.at(int(t)) for t in times]).T
        assert speed.max() <= 1.2 + 1e-9
        assert np.abs(np.diff(speed)).max() <= 0.5 * 0.05 + 1e-6
        assert np.diff(far).min() > -1e-6
        assert drive.at(drive.end_ns) == (drive.way[-1][1], 0.0)
        assert np.trapezoid(speed, times / NS_PER_S) == pytest.approx(drive.way[-1][1], abs=0.1)
        assert not speed[halts.at(times) > 0].any()


def test_a_link_without_stalls_never_stops_the_vehicle_and_a_bad_one_does() -> None:
    good, _ = agv_shop("ethernet")
    bad, _ = agv_shop("wifi-loaded")
    assert good.halted_ns == 0
    assert bad.halted_ns > NS_PER_S


def test_battery_is_the_integral_of_its_current_and_charges_when_low() -> None:
    agv, world = agv_shop("ethernet")
    ratio = [agv.battery_ratio(t) for t in range(START, world.env.now, 60 * NS_PER_S)]
    assert min(ratio) > 0.18  # busy, it works down to where it must
    assert max(b - a for a, b in pairwise(ratio)) == pytest.approx(40.0 / 40.0 / 60.0, rel=0.02)
    still = [(a - b) * 40.0 * 60.0 for a, b in pairwise(ratio[:3])]  # amperes, before any order
    assert still == pytest.approx([1.5, 1.5], abs=0.3)
    assert sum(agv.charging.v) >= 1


def test_vehicle_reports_lie_on_the_millisecond_and_at_most_ten_seconds_apart() -> None:
    world = floor(SHOP)
    agv = find(world, "v")
    times_ns = [START]
    missions: set[str] = set()
    for times in blocks(90):
        world.run_to(int(times[-1]))
        said = [r for r in agv.reports(over(times)) if isinstance(r, VdaState)]
        times_ns += [r.sent_ns for r in said]
        missions |= {r.order for r in said if r.nodes}
        for report in said:
            assert bool(report.order and report.nodes) == bool(agv.mission.get(report.sent_ns))
    assert all(t % NS_PER_MS == 0 for t in times_ns)
    gaps = [b - a for a, b in pairwise(times_ns)]
    assert min(gaps) > 0
    assert max(gaps) <= 10 * NS_PER_S
    assert len(missions) >= 2


def test_a_piece_of_motion_is_exact() -> None:
    assert Piece(0, 1.0, 2.0, 0.5).after(2 * NS_PER_S) == (6.0, 3.0)


# Cable line


def cable(hours: float, **settings: Any) -> CableLine:
    line = find(floor([device("cable_line", "l", **settings)], hours=hours), "l")
    assert isinstance(line, CableLine)
    return line


def test_length_is_the_integral_of_speed() -> None:
    line = cable(6, mtbf_s=900.0)
    times = START + 100 * NS_PER_MS * np.arange(0, 6 * 36_000 + 1, dtype=np.int64)
    speed = line._path.motion(times)[1]
    assert speed.min() >= 0.0
    assert speed.max() <= 1.12 + 1e-12
    summed = np.concatenate(([0.0], np.cumsum((speed[1:] + speed[:-1]) / 2 * 0.1)))
    assert np.abs(summed - line.length_mm(times) / 1000).max() < 0.2  # 0.01 m/s x 0.1 s a corner
    assert np.diff(line.length_mm(times)).min() >= 0


def test_every_start_spoils_its_metres_and_a_reel_lasts_its_length() -> None:
    line = cable(12, mtbf_s=1e9)
    end = np.array([START + 12 * 3600 * NS_PER_S])
    starts = len(line._path._starts) - 1
    reels = sum(1 for v in line.state.v if v == PackML.SUSPENDED)
    assert starts == reels + 1
    assert line.scrap_mm(end)[0] == starts * 25_000
    assert reels == line.length_mm(end)[0] // 2_500_000
    stands = [t for t, v in zip(line.state.t, line.state.v, strict=True) if v == PackML.SUSPENDED]
    lengths = line.length_mm(np.array(stands))
    assert np.diff(lengths, prepend=0).tolist() == pytest.approx([2_500_000] * reels, abs=2)


def test_trips_come_with_running_time() -> None:
    line = cable(200, mtbf_s=1800.0, mttr_s=60.0)
    trips = sum(1 for v in line.state.v if v == PackML.HELD)
    end = START + 200 * 3600 * NS_PER_S
    run = sum(
        nxt - t
        for t, nxt, v in zip(line.state.t, [*line.state.t[1:], end], line.state.v, strict=True)
        if v == PackML.EXECUTE
    )
    assert trips == pytest.approx(run / NS_PER_S / 1800.0, rel=4 / math.sqrt(trips))


def test_a_line_ends_its_order_at_its_good_metres() -> None:
    world = floor([device("cable_line", "l", screw_lag_s=0.0)], hours=3, quantity=3_000)
    line = find(world, "l")
    end = np.array([START + 3 * 3600 * NS_PER_S])
    good = int(line.length_mm(end)[0] - line.scrap_mm(end)[0])
    assert line.order.last == 0
    ramp_m = 1.12 * 1.12 / 0.05 / 2
    assert good / 1000 == pytest.approx(3_000 + ramp_m, abs=0.1)


def test_a_line_is_executing_from_its_safe_speed_on() -> None:
    line = cable(1, safe_speed_ratio=0.25, mtbf_s=1e9)
    executes_ns = line.state.t[line.state.v.index(PackML.EXECUTE)]
    starts_ns = line.state.t[line.state.v.index(PackML.STARTING)]
    assert (executes_ns - starts_ns) / NS_PER_S == pytest.approx(0.25 * 1.12 / 0.05)
    full_s = 0.1 + 0.75 * 1.12 / 0.05  # a scan, and the rest of the ramp
    times = executes_ns + NS_PER_MS * np.array([0, round(1000 * full_s) + 1])
    assert line._path.motion(times)[1].tolist() == pytest.approx([0.25 * 1.12, 1.12])


def test_spark_faults_are_a_poisson_process_over_metres() -> None:
    line = cable(50, spark_faults_per_km=5.0, mtbf_s=1e9)
    times = START + 180 * NS_PER_S * np.arange(0, 1001, dtype=np.int64)
    found, length_km = line.spark_faults(times), line.length_mm(times) / 1e6
    expected = 5.0 * length_km[-1]
    assert abs(found[-1] - expected) < 4 * math.sqrt(expected)
    per_step, drawn = np.diff(found), np.diff(length_km)
    assert not per_step[drawn == 0.0].any(), "none while it stands"
    strays = (per_step - 5.0 * drawn) ** 2
    assert strays.sum() == pytest.approx(expected, rel=0.2), "variance as large as the mean"
    twin = cable(50, spark_faults_per_km=5.0, mtbf_s=1e9)
    assert twin.spark_faults(times[-1:])[0] == found[-1], "however often it is looked at"
    assert not cable(1, spark_faults_per_km=0.0).spark_faults(times[:11]).any()


def spells(steps: Steps, value: int, end_ns: int) -> list[tuple[int, int]]:
    """Start and end of each stretch in which a log has a value."""
    ends = [*steps.t[1:], end_ns]
    return [(a, b) for a, b, v in zip(steps.t, ends, steps.v, strict=True) if v == value]


def test_setting_up_an_order_is_mode_set_up() -> None:
    line = find(floor([device("cable_line", "l")], hours=3, quantity=2_000, dies=3), "l")
    changes = spells(line.mode, Mode.SETUP, line.env.now)
    assert len(changes) == 3
    assert {b - a for a, b in changes} == {300 * NS_PER_S}
    assert {line.psut_ns.get(a) for a, _ in changes} == {300 * NS_PER_S}


def outage(seconds: float) -> list[Fault]:
    length = round(seconds * NS_PER_S)
    return [Outage(kind="outage", after=1800 * NS_PER_S, length=length)] if length else []


def cut_line(outage_s: float, **settings: Any) -> CableLine:
    """A line that never stops of its own accord, and an outage after half an hour."""
    faults = outage(outage_s)
    steady = device("cable_line", "l", mtbf_s=1e9, reel_m=1e6, **settings)
    line = find(floor([steady], hours=1, faults=faults), "l")
    assert isinstance(line, CableLine)
    return line


def test_a_line_without_control_holds_its_safe_speed_and_executes() -> None:
    line = cut_line(600.0, safe_speed_ratio=0.5)
    # the last heartbeat came at most 0.2 s before, the watchdog waits 0.6 s, the ramp takes 11.2 s
    seconds = np.array([1799.0, 1800.39, 1806.5, 1812.0, 2399.0, 3599.0])
    speed = line._path.motion(START + (seconds * NS_PER_S).astype(np.int64))[1]
    assert speed[[0, 1, 3, 4, 5]].tolist() == pytest.approx([1.12, 1.12, 0.56, 0.56, 1.12])
    assert speed[2] == pytest.approx(1.12 - 0.05 * (6.5 - 0.5), abs=0.05 * 0.11)
    assert line.state.last == PackML.EXECUTE
    assert line.state.t[-1] < START + 1800 * NS_PER_S


def test_a_patient_watchdog_and_a_safe_full_speed_cost_no_metres() -> None:
    end = np.array([START + 3600 * NS_PER_S])
    whole = cut_line(0.0).length_mm(end)[0]
    assert cut_line(60.0, watchdog_ms=300_000.0).length_mm(end)[0] == whole
    fast, slow = cut_line(60.0, safe_speed_ratio=1.0), cut_line(60.0)
    assert list(fast.loop.closed.v) == list(slow.loop.closed.v) == [1, 0, 1]
    assert slow.length_mm(end)[0] < whole - 1000 * 0.56 * 59
    assert np.ptp(fast._path.motion(START + NS_PER_S * np.arange(400, 3600))[1]) < 1e-12


@pytest.mark.parametrize("outage_s", [0.0, 300.0])
def test_a_line_stands_when_planned_time_ends_whatever_its_speed(outage_s: float) -> None:
    calendar = {"shift": [{"start": "00:00", "end": "02:00"}],
                "pause": [{"start": "00:32", "end": "00:40"}], "utc_offset": "+00:00"}  # fmt: skip
    world = floor([device("cable_line", "l", mtbf_s=1e9)], hours=1, calendar=calendar,
                  faults=outage(outage_s))  # fmt: skip
    line = find(world, "l")
    line.state.t, line.state.v = (log[: line.state.v.index(PackML.STOPPED, 1) + 1]
                                  for log in (line.state.t, line.state.v))  # fmt: skip
    states = dict(zip(line.state.v, line.state.t, strict=True))
    pause_ns = START + 32 * 60 * NS_PER_S
    assert 0 <= pause_ns - states[PackML.STOPPED] <= 5
    speed = 1.12 if outage_s < 1.0 else 0.56
    assert (pause_ns - states[PackML.STOPPING]) / NS_PER_S == pytest.approx(speed / 0.05)


def test_reels_and_orders_end_at_their_metres_at_any_speed() -> None:
    settings = {"mtbf_s": 1e9, "reel_m": 700.0, "watchdog_ms": 350.0}
    world = floor([device("cable_line", "l", **settings)], hours=3, quantity=3_000,
                  network="wifi-loaded")  # fmt: skip
    line = find(world, "l")
    assert len(line.loop.closed.t) > 500, "the speed changes all the time"
    stands = [t for t, v in zip(line.state.t, line.state.v, strict=True) if v == PackML.SUSPENDED]
    lengths = line.length_mm(np.array(stands))
    assert len(lengths) == 4
    assert np.diff(lengths, prepend=0).tolist() == pytest.approx([700_000] * 4, abs=2)
    done_ns = line.state.t[line.state.v.index(PackML.COMPLETING)]
    done = np.array([done_ns])
    assert line.length_mm(done)[0] - line.scrap_mm(done)[0] == pytest.approx(3_000_000, abs=2)


def test_a_line_on_a_bad_link_is_the_same_however_it_is_watched() -> None:
    rough = [device("cable_line", "l", mtbf_s=300.0, mttr_s=30.0, reel_m=400.0)]
    watched, unwatched = (floor(rough, network="wifi-loaded") for _ in range(2))
    for times in blocks(60):
        watched.run_to(int(times[-1]))
        find(watched, "l").reports(over(times))
    unwatched.run_to(int(times[-1]))
    a, b = find(watched, "l"), find(unwatched, "l")
    assert len(a.loop.closed.t) > 50
    assert (a.loop.closed.t, a.loop.closed.v) == (b.loop.closed.t, b.loop.closed.v)
    assert (a.state.t, a.length_mm(times).tolist()) == (b.state.t, b.length_mm(times).tolist())
