"""A cable line does what it says: metres, mass, reels, alarms, curing, and what a stop costs."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from config.errors import ConfigError
from config.faults import Fault, Outage
from config.units import NS_PER_S, parse_time
from ingest.packml import PackML as S
from simulator.device import Columns, Stretch
from simulator.devices.cable_line import CableLine, CableLineSpec
from simulator.link.link import Link
from simulator.link.profile import load_profile
from simulator.plant import Plant, make_plant
from simulator.plant.floor import Floor

START = parse_time("2026-01-05T00:00:00Z")
HOUR = 3_600 * NS_PER_S
ALWAYS = {"shift": [{"start": "00:00", "end": "24:00"}]}
STEADY: dict[str, Any] = {"mtbf_s": 1e12, "reel_m": 1e9}
"""It never stops of its own accord."""
PERFECT: dict[str, Any] = {
    "drift_mm": 0.0, "melt_sd_k": 0.0, "eccentricity_sd_ratio": 0.0, "screw_lag_s": 0.0,
}  # fmt: skip


def line(name: str = "l", **settings: Any) -> dict[str, Any]:
    own = {"name": name, "kind": "cable_line", "area": "hall", "line": "l1", "control": "local"}
    return own | settings


def works(
    *lines: Mapping[str, Any], metres: int = 10**7, lot_m: int | None = None,
    calendar: Mapping[str, Any] = ALWAYS,
) -> Plant:  # fmt: skip
    names = [each["name"] for each in lines]
    lot = {} if lot_m is None else {"lot_size": lot_m}
    return make_plant({
        "site": "s", "calendar": calendar, "device": [*lines],
        "product": [
            {"name": f"p-{name}", **lot,
             "step": [{"operation": "draw", "units": name, "pri_s": 1.0}]}
            for name in names
        ],
        "order": [
            {"number": n, "product": f"p-{name}", "quantity": metres}
            for n, name in enumerate(names, start=1)
        ],
    })  # fmt: skip


def ran(made: Plant, hours: float, *, seed: int = 1, faults: Sequence[Fault] = ()) -> Floor:
    world = Floor(made, Link(load_profile("ethernet"), seed, None, faults, START), seed, START)
    world.run_to(START + round(hours * 3_600) * NS_PER_S)
    return world


def find(world: Floor, name: str = "l") -> CableLine:
    found = next(device for device in world.devices if device.asset.name == name)
    assert isinstance(found, CableLine)
    return found


def run_line(hours: float, *, seed: int = 1, **settings: Any) -> CableLine:
    return find(ran(works(line(**settings)), hours, seed=seed))


def now(one: CableLine) -> Any:
    return np.array([one.env.now - 1])


def good_m(one: CableLine) -> float:
    return int(one.length_mm(now(one))[0] - one.scrap_mm(now(one))[0]) / 1_000


def scrap_m(one: CableLine) -> float:
    return int(one.scrap_mm(now(one))[0]) / 1_000


def spells(one: CableLine, state: S) -> list[tuple[int, int]]:
    """Start and end of each finished stay in a state."""
    log = zip(one.state.t, one.state.v, strict=True)
    return [(a, b) for (a, v), (b, _) in pairwise(log) if v == state]


def process(one: CableLine, hours: float, every_s: int, *, bundled: bool = False) -> dict[str, Any]:
    """What a line reports of its process, as columns over the whole time."""
    out: dict[str, list[Any]] = {}
    for hour in range(round(hours)):
        a, b = START + hour * HOUR, START + (hour + 1) * HOUR
        stretch = Stretch.every(a, b, None if bundled else every_s * NS_PER_S)
        for report in one.reports(stretch):
            if isinstance(report, Columns) and report.stream == "process":
                for name, values in {"t_ns": report.t_ns, **report.ch}.items():
                    out.setdefault(name, []).extend(values)
    return out


# Mass


def test_what_is_put_on_is_density_times_area_times_speed() -> None:
    one = run_line(4, mtbf_s=1_800.0, drift_mm=0.3)
    said = process(one, 4, 1)
    length, speed, _ = one._path.motion(np.array(said["t_ns"]))
    twin = run_line(4, mtbf_s=1_800.0, drift_mm=0.3)  # one that has forgotten nothing
    diameter = 62.0 + twin.cable.at(length).diameter_mm
    area_mm2 = np.pi / 4 * (diameter**2 - 59.0**2)
    kg_per_h = 0.92 * area_mm2 / 1_000 * speed * 3_600
    assert np.ptp(diameter) > 0.1
    assert said["melt_kg_per_h"] == pytest.approx(kg_per_h.tolist(), abs=0.006)
    # and what it adds up to, metre by metre: a fine sum over the cable itself
    fine = np.arange(0.0, length[-1], 0.05)
    rate = 0.92 * np.pi / 4 * ((62.0 + twin.cable.at(fine).diameter_mm) ** 2 - 59.0**2) / 1_000
    assert said["melt_kg"][-1] == pytest.approx(rate.sum() * 0.05, rel=1e-4)
    turned = np.array(said["screw_rpm"]) * 60.0 * 3 * 0.12
    assert turned.tolist() == pytest.approx(kg_per_h.tolist(), abs=0.02)


def test_a_line_of_perfect_cable_puts_on_exactly_its_metres() -> None:
    one = run_line(6, **PERFECT)
    said = process(one, 6, 60)
    per_m = 0.92 * np.pi / 4 * (62.0**2 - 59.0**2) / 1_000
    assert said["melt_kg"] == pytest.approx([per_m * m for m in said["length_m"]], abs=0.002)


HV: dict[str, Any] = {
    "speed_mps": 0.03, "wall_mm": 27.0, "diameter_mm": 114.0, "diameter_lsl_mm": 113.0,
    "diameter_usl_mm": 115.0, "cure_m": 57.2, "ramp_mps2": 5e-4, "step_m": 1.0,
    "screw_lag_s": 20.0, "drift_m": 400.0, "eccentricity_ratio": 0.03,
}  # fmt: skip


def test_high_voltage_core_weighs_what_the_literature_says() -> None:
    one = run_line(100, **STEADY, **(HV | PERFECT))
    said = process(one, 100, 60)
    top = one.spec.top_mps
    assert top * 60 == pytest.approx(1.0175, abs=0.001)
    assert said["melt_kg"][-1] / said["length_m"][-1] == pytest.approx(6.79, abs=0.01)
    # 6.8 kg/m x 1.0 m/min = 408 kg/h
    per_m_min = said["melt_kg_per_h"][-1] / (top * 60)
    assert per_m_min == pytest.approx(6.79 * 60, abs=1.0)


def spec(**settings: Any) -> CableLineSpec:
    return CableLineSpec.model_validate(line(**HV) | settings)


def test_a_line_with_a_tube_runs_as_fast_as_its_insulation_cures() -> None:
    cold, hot = spec(), spec(post_heater_c=200.0)
    assert hot.top_mps / cold.top_mps == pytest.approx(1.4, abs=0.005), "published: 20 to 40 %"
    assert 1.2 < spec(post_heater_c=180.0).top_mps / cold.top_mps < 1.4
    assert spec(cure_m=2 * 57.2).top_mps == pytest.approx(min(2 * cold.top_mps, 0.03))
    assert spec(wall_mm=2 * 27.0, diameter_mm=168.0, diameter_usl_mm=169.0).top_mps == (
        pytest.approx(cold.top_mps / 4)
    ), "time goes with the square of the wall"
    assert spec(speed_mps=0.01, post_heater_c=200.0).top_mps == 0.01, "the drive"
    tops = [spec(preheat_c=float(c)).top_mps for c in range(20, 300, 20)]
    assert tops == sorted(tops)
    ran_mps = run_line(60, **STEADY, **HV, post_heater_c=200.0)._path.motion(
        np.array([START + 50 * HOUR])
    )[1]
    assert ran_mps[0] == pytest.approx(hot.top_mps)


# Metres, scrap, energy


def test_metres_are_the_integral_of_the_speed_also_where_it_is_derated() -> None:
    one = run_line(8, trim_gain=0.0, drift_mm=0.35, mtbf_s=3_600.0)
    assert one.derated.v.count(1) > 3
    times = START + NS_PER_S // 10 * np.arange(0, 8 * 36_000 + 1, dtype=np.int64)
    speed = one._path.motion(times)[1]
    assert 0.0 <= speed.min() <= speed.max() <= 1.12 + 1e-12
    summed = np.concatenate(([0.0], np.cumsum((speed[1:] + speed[:-1]) / 2 * 0.1)))
    assert np.abs(summed - one.length_mm(times) / 1_000).max() < 0.2
    good = one.length_mm(times) - one.scrap_mm(times)
    assert np.diff(good).min() >= -1, "both are rounded down"


def test_a_stop_scraps_its_metres() -> None:
    one = run_line(30, mtbf_s=2_000.0, mttr_s=60.0, restart_scrap_m=40.0, **PERFECT)
    starts = sum(state in (S.STARTING, S.UNHOLDING, S.UNSUSPENDING) for state in one.state.v)
    assert starts > 40
    begun = [t for t, v in zip(one.state.t, one.state.v, strict=True)
             if v in (S.STARTING, S.UNHOLDING, S.UNSUSPENDING)]  # fmt: skip
    lengths = [*(one.length_mm(np.array(begun)) / 1_000), one.length_mm(now(one))[0] / 1_000]
    runs = [b - a for a, b in pairwise(lengths)]
    assert scrap_m(one) == pytest.approx(sum(min(run, 40.0) for run in runs), abs=0.1)
    assert scrap_m(one) > 0.9 * 40.0 * starts


def test_scrap_is_what_a_start_spoils_and_what_is_off_its_limits() -> None:
    one = run_line(20, **STEADY, trim_gain=0.0, drift_mm=0.5, derate_ratio=1.0)
    at = np.arange(0.25, one.length_mm(now(one))[0] / 1_000 - 1.0, 0.5)
    off = np.abs(one.cable.at(at).diameter_mm) >= 0.5
    bad = off | (at < 25.0)
    assert 0.02 < off.mean() < 0.6
    spoilt = np.diff(one._path.scrap(np.append(at - 0.25, at[-1] + 0.25)))
    assert spoilt.tolist() == pytest.approx((0.5 * bad).tolist(), abs=1e-9)


def test_a_lot_ends_at_its_good_metres_whatever_was_spoilt() -> None:
    settings: dict[str, Any] = {
        "trim_gain": 0.0,
        "drift_mm": 0.5,
        "mtbf_s": 3_000.0,
        "mttr_s": 60.0,
    }
    one = find(ran(works(line(**settings), metres=16_000, lot_m=4_000), 12))
    done = [t for t, v in zip(one.state.t, one.state.v, strict=True) if v == S.COMPLETING]
    assert len(done) == 4
    times = np.array(done)
    good = (one.length_mm(times) - one.scrap_mm(times)) / 1_000
    assert scrap_m(one) > 300.0
    # while it slows down after a lot it makes up to 12.5 m more, which are of no lot
    lots = np.diff(good, prepend=0.0)
    assert ((lots > 3_999.0) & (lots < 4_013.0)).all()
    assert one.order.last == 0
    assert one.state.last == S.IDLE


def test_energy_is_the_power_of_each_state() -> None:
    one = run_line(10, mtbf_s=1_800.0)
    still = (S.STOPPED, S.RESETTING, S.IDLE, S.HELD, S.SUSPENDED, S.COMPLETE)
    log = [*zip(one.state.t, one.state.v, strict=True), (one.env.now - 1, 0)]
    kwh = sum((b - a) * (45.0 if v in still else 180.0) for (a, v), (b, _) in pairwise(log))
    assert one.energy.get(one.env.now - 1) == kwh * 100_000 // HOUR


# Alarms


def test_an_alarm_derates_the_line_for_a_while() -> None:
    one = run_line(
        40, **STEADY, trim_gain=0.0, drift_mm=0.3, derate_ratio=0.6, derate_s=900.0, ramp_mps2=0.05
    )
    begins = [t for t, v in zip(one.derated.t, one.derated.v, strict=True) if v]
    ends = [t for t, v in zip(one.derated.t, one.derated.v, strict=True) if not v][1:]
    assert len(begins) >= 5
    assert all(b - a == 900 * NS_PER_S for a, b in zip(begins, ends, strict=False))
    before = np.array(begins)
    after = before + round(0.4 * 1.12 / 0.05 * NS_PER_S) + 1
    assert one._path.motion(before)[1].tolist() == pytest.approx([1.12] * len(before))
    assert one._path.motion(after)[1].tolist() == pytest.approx([0.6 * 1.12] * len(before))
    # the gauge has just seen the end of a step that was beyond nine tenths of a limit
    seen_m = one._path.motion(before)[0] - 30.0
    assert (np.abs(one.cable.at(seen_m - 0.01).diameter_mm) >= 0.45).all()


def test_control_makes_alarms_rare_and_a_hand_only_comes_after_them() -> None:
    rough: dict[str, Any] = {**STEADY, "drift_mm": 0.35}
    for seed in (1, 2):
        hand = run_line(60, seed=seed, trim_gain=0.0, **rough)
        loop = run_line(60, seed=seed, trim_gain=0.4, **rough)
        assert hand.derated.v.count(1) > 10
        assert loop.derated.v.count(1) <= 1
        assert good_m(loop) > 1.02 * good_m(hand)
        assert scrap_m(loop) < scrap_m(hand)


def test_a_longer_outage_spoils_more_metres() -> None:
    """The line runs on at its safe speed with the trim it has."""
    hours = (0.0, 1.0, 4.0)
    spoilt: list[float] = []
    for length in hours:
        cut = [Outage(kind="outage", after=HOUR, length=round(length * HOUR))] if length else []
        settings: dict[str, Any] = {
            **STEADY,
            "control": "central",
            "drift_mm": 0.35,
            "drift_m": 6_000.0,
        }
        made = works(line(**settings, derate_ratio=1.0, watchdog_ms=1_000.0))
        spoilt.append(sum(scrap_m(find(ran(made, 6, seed=seed, faults=cut))) for seed in (1, 2)))
    assert spoilt == sorted(spoilt)
    assert spoilt[-1] > 2 * spoilt[0]


# Reels


def test_four_pay_offs_are_changed_together_at_their_metres() -> None:
    one = run_line(
        20, mtbf_s=1e12, pay_off_from=["", "", "", ""], reel_m=6_000.0, reel_change_s=200.0,
        splice_s=100.0, reel_crews=2,
    )  # fmt: skip
    stops = spells(one, S.SUSPENDED)
    lengths = one.length_mm(np.array([a for a, _ in stops]))
    assert len(stops) >= 8
    assert np.diff(lengths, prepend=0).tolist() == pytest.approx([6_000_000] * len(stops), abs=2)
    scan = NS_PER_S // 10
    assert {b - a for a, b in stops} == {2 * 300 * NS_PER_S + scan}, "four reels, two at a time"


def test_a_full_take_up_waits_for_people_with_their_mean() -> None:
    one = run_line(
        150, mtbf_s=1e12, reel_m=1e9, take_up_m=1_500.0, take_up_change_s=60.0, release_wait_s=600.0
    )
    waits = [(b - a) / NS_PER_S - 60.1 for a, b in spells(one, S.SUSPENDED)]
    assert len(waits) > 100
    assert min(waits) >= -1e-6
    assert np.mean(waits) == pytest.approx(600.0, rel=4 / np.sqrt(len(waits)))
    idle = spells(one, S.IDLE)
    assert len(idle) == 1
    assert (idle[0][1] - idle[0][0]) / NS_PER_S > 1.1, "its order was to be released, too"


def test_an_unknown_feeder_is_refused() -> None:
    with pytest.raises(ConfigError, match="no other cable line 'x'"):
        ran(works(line(pay_off_from=["x"])), 0.1)
    with pytest.raises(ConfigError, match="two walls"):
        works(line(wall_mm=40.0))
    with pytest.raises(ConfigError, match="not between its limits"):
        works(line(diameter_mm=70.0))


CHAIN = (
    line("a", mtbf_s=9_000.0, take_up_m=3_000.0, store_reels=2, speed_mps=2.0),
    line("b", mtbf_s=9_000.0, pay_off_from=["a", "", ""], reel_m=3_000.0, reel_rest_m=100.0,
         take_up_m=5_000.0, store_reels=1, speed_mps=1.2),
    line("c", mtbf_s=9_000.0, pay_off_from=["b"], speed_mps=0.8),
)  # fmt: skip


def test_no_metre_is_lost_between_lines() -> None:
    world = ran(works(*CHAIN), 60)
    a, b, c = (find(world, name) for name in "abc")
    for giver, taker in ((a, b), (b, c)):
        assert giver.store is not None
        made_m = taker.length_mm(now(taker))[0] / 1_000
        on_reel_m = taker._pay_off_m[0] - made_m
        bought_m = 0.0 if taker is c else taker.left_over_m  # some of it is of bought reels
        drawn_off_m = made_m + on_reel_m
        given_m = giver._wound_m - giver.store.metres
        assert drawn_off_m <= given_m + 1e-6 <= drawn_off_m + bought_m + 0.02
        assert given_m > 20_000.0


def test_a_line_is_blocked_by_a_full_store_and_starved_by_an_empty_one() -> None:
    world = ran(works(*CHAIN), 60)
    a, b, c = (find(world, name) for name in "abc")
    shares = {
        one.asset.name: sum(y - x for x, y in spells(one, S.SUSPENDED)) / (60 * HOUR)
        for one in (a, b, c)
    }
    assert shares["a"] > 0.4, "it could make 2 m/s, and 0.8 are taken"
    assert shares["b"] > 0.2
    assert shares["c"] < 0.15
    first = spells(c, S.IDLE)[0]
    assert (first[1] - first[0]) > 3_000 * NS_PER_S, "no reel for the first run yet"
    starved = ran(works(CHAIN[0] | {"speed_mps": 0.3}, *CHAIN[1:]), 60)
    waits = sum(y - x for x, y in spells(find(starved, "b"), S.SUSPENDED)) / (60 * HOUR)
    assert waits > 0.5


def test_adding_a_line_changes_no_other() -> None:
    alone = find(ran(works(line("a")), 10), "a")
    beside = find(ran(works(line("b"), line("a")), 10), "a")
    assert list(alone.state.t) == list(beside.state.t)
    assert good_m(alone) == good_m(beside)


# Signals


def test_what_is_exact_is_the_same_at_any_spacing() -> None:
    exact = ("length_m", "scrap_m", "energy_kwh", "spark_faults", "melt_kg", "melt_kg_per_h",
             "derated", "screw_rpm")  # fmt: skip
    settings: dict[str, Any] = {"mtbf_s": 2_000.0, "drift_mm": 0.35, "trim_gain": 0.0}
    fine = process(run_line(6, **settings), 6, 1)
    coarse = process(run_line(6, **settings), 6, 60)
    assert len(coarse["t_ns"]) == 6 * 60
    for name in exact:
        assert coarse[name] == fine[name][59::60], name
    pairs = zip(coarse["diameter_mm"], fine["diameter_mm"][59::60], strict=True)
    assert all((a is None) == (b is None) for a, b in pairs)
    read = [
        abs(a - b)
        for a, b in zip(coarse["diameter_mm"], fine["diameter_mm"][59::60], strict=True)
        if a is not None
    ]
    assert max(read) < 0.1, "only the gauge's own noise"


def test_reports_do_not_depend_on_how_long_their_stretches_are() -> None:
    settings: dict[str, Any] = {"mtbf_s": 900.0, "drift_mm": 0.35}
    one, twin = run_line(1, **settings), run_line(1, **settings)
    whole = process(twin, 1, 1)
    parts: dict[str, list[Any]] = {}
    for minute in range(60):
        a = START + minute * 60 * NS_PER_S
        for report in one.reports(Stretch.every(a, a + 60 * NS_PER_S)):
            if isinstance(report, Columns) and report.stream == "process":
                for name, values in report.ch.items():
                    parts.setdefault(name, []).extend(values)
    assert all(parts[name] == values for name, values in whole.items() if name != "t_ns")


def test_gauges_read_the_cable_that_has_come_to_them() -> None:
    settings: dict[str, Any] = {"mtbf_s": 3_000.0, "drift_mm": 0.3}
    said = process(run_line(5, **settings), 5, 1)
    twin = run_line(5, **settings)
    length, speed, _ = twin._path.motion(np.array(said["t_ns"]))
    seen = (speed > 0.0) & (length >= 30.0)
    assert [v is not None for v in said["diameter_mm"]] == seen.tolist()
    assert [v is not None for v in said["eccentricity_ratio"]] == seen.tolist()
    there = twin.cable.at(length[seen] - 30.0)
    read = np.array([v for v in said["diameter_mm"] if v is not None])
    noise = read - 62.0 - there.diameter_mm
    assert noise.std() == pytest.approx(0.01, rel=0.1)
    assert np.abs(noise).max() < 0.06
    times = np.concatenate([t for t, _, _ in find_gauged(settings)])
    assert len(times) == seen.sum()


def find_gauged(settings: Mapping[str, Any]) -> list[Any]:
    one = run_line(5, **settings)
    process(one, 5, 1)
    return one.gauged


def test_pay_offs_have_a_channel_each_and_give_way_when_the_line_speeds_up() -> None:
    one = run_line(3, mtbf_s=1_000.0, pay_off_from=["", "", "", ""])
    said = process(one, 3, 1)
    slope = one._path.motion(np.array(said["t_ns"]))[2]
    for n in (1, 2, 3, 4):
        pull, dancer = np.array(said[f"pay_off{n}_kn"]), np.array(said[f"dancer{n}_ratio"])
        assert pull[slope == 0].mean() == pytest.approx(1.2, abs=0.005)
        assert pull[slope > 0].mean() > 1.3
        assert dancer[slope > 0].mean() < 0.35
        assert dancer[slope < 0].mean() > 0.6
    assert "pay_off2_kn" not in process(run_line(1), 1, 1)


def test_without_samples_counters_are_told_once_a_stretch() -> None:
    one, twin = run_line(4, mtbf_s=1_200.0), run_line(4, mtbf_s=1_200.0)
    said = process(one, 4, 0, bundled=True)
    assert len(said["t_ns"]) > 20
    times = np.array(said["t_ns"])
    assert said["length_m"] == (twin.length_mm(times) / 1_000).tolist()
    assert said["scrap_m"] == (twin.scrap_mm(times) / 1_000).tolist()
    reports = twin.reports(Stretch.every(START, START + HOUR, None))
    assert {r.stream for r in reports if isinstance(r, Columns)} == {"state", "process"}
    assert len(reports) == 2
