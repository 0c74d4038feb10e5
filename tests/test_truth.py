"""The truth: identities, hand-made cases, and agreement with what went over the wire."""

import json
from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beilun.offline import make_factory, run_offline
from config.scenario import find_scenario
from config.units import NS_PER_DAY, NS_PER_MS, NS_PER_S, parse_time
from config.windows import Every, Sliding
from config.windows import Order as ByOrder
from edge import kpis
from ingest.messages import Asset, TruthRow
from ingest.packml import PackML
from ingest.recording import unpacked
from simulator.device import Steps
from simulator.devices.agv import Agv, Battery
from simulator.devices.casting_cell import CastingCell
from simulator.devices.robot_arm import RobotArm
from simulator.factory import Factory, Made
from simulator.link.link import Link
from simulator.link.profile import load_profile
from simulator.mes import Flow
from simulator.network import Counts, Monitor
from simulator.plant import load_plant
from simulator.plant.floor import Floor
from simulator.plant.routes import Order
from simulator.truth import WINDOWS, truth_rows
from simulator.truth.evidence import ranked
from simulator.truth.windows import Area, Windows

START = parse_time("2026-01-05T00:00:00Z")
MINUTE, HOUR = 60 * NS_PER_S, 3600 * NS_PER_S
SHIFT = 8 * HOUR
LENGTHS = tuple(kind.nominal_ns for kind in WINDOWS)


@pytest.fixture(scope="module")
def run() -> tuple[Factory, list[Made]]:
    plant, link = load_plant("quickstart"), Link(load_profile("ethernet"), 7)
    factory = Factory(plant, link, 7, "r", START, SHIFT)
    return factory, [m for chunk in factory.chunks() for m in chunk.made]


@pytest.fixture(scope="module")
def rows(run: tuple[Factory, list[Made]]) -> list[TruthRow]:
    return run[0].truth()


def value(
    rows: Iterable[TruthRow], name: str, kpi: str, length_ns: int = SHIFT, start: int = START
) -> Any:
    (found,) = [
        r.value for r in rows
        if r.asset.endswith(f"/{name}") and (r.kpi, r.window_length_ns, r.window_start_ns)
        == (kpi, length_ns, start)
    ]  # fmt: skip
    return found


# Integrals


@given(
    changes=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 3)), max_size=20),
    other=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 1)), max_size=20),
    cuts=st.lists(st.integers(0, 400), min_size=1, max_size=10),
)
@settings(max_examples=60, deadline=None)
def test_area_is_the_integral(
    changes: list[tuple[int, int]], other: list[tuple[int, int]], cuts: list[int]
) -> None:
    def steps(moves: list[tuple[int, int]]) -> Steps:
        out, t = Steps(0, 1), 0
        for wait, v in moves:
            t += wait
            out.set(t, v)
        return out

    a, b = steps(changes), steps(other)
    area = Area(0, 400, (a, lambda v: v), (b, lambda v: v))
    times = np.array(sorted(cuts), dtype=np.int64)
    brute = [sum(a.get(t) * b.get(t) for t in range(cut)) for cut in times.tolist()]
    assert area(times).tolist() == brute


def test_windows_are_aligned_to_the_epoch_and_clipped_to_the_run() -> None:
    w = Windows.over(START + 90 * NS_PER_S, START + 200 * NS_PER_S, [Every(MINUTE)])
    assert [(span.start_ns - START) // NS_PER_S for span in w.spans] == [60, 120, 180]
    assert ((w.a - START) // NS_PER_S).tolist() == [90, 120, 180]
    assert ((w.b - START) // NS_PER_S).tolist() == [120, 180, 200]


def test_an_event_on_a_boundary_belongs_to_the_window_it_begins() -> None:
    counter = Steps(START, 0)
    for t in (START + MINUTE - 1, START + MINUTE, START + 2 * MINUTE):
        counter.add(t)
    w = Windows.over(START, START + 3 * MINUTE, [Every(MINUTE)])
    assert w.events(counter) == [1, 1, 1]
    assert w.totals(counter.t[1:], [5, 7, 9]) == [5, 7, 9]


# Identities


def test_oee_is_the_product_of_its_factors(rows: list[TruthRow]) -> None:
    by = {(r.asset, r.kpi, r.window_start_ns, r.window_length_ns): r.value for r in rows}
    checked = 0
    for (asset, kpi, start, length), oee in by.items():
        if kpi != "oee":
            continue
        a, e, q = (
            by[asset, k, start, length] for k in ("availability", "effectiveness", "quality_ratio")
        )
        if oee is None:
            assert a is None  # no planned time at all
        elif a is not None and e is not None and q is not None:
            assert oee == pytest.approx(a * e * q, rel=1e-12)
            checked += 1
        else:
            assert oee == 0.0
    assert checked > 1000


def test_oee_is_planned_run_time_of_good_pieces_over_planned_busy_time(
    run: tuple[Factory, list[Made]], rows: list[TruthRow]
) -> None:
    """The identity PRI x GQ / PBT, for cells whose orders share one PRI."""
    for name, pri_s in (("dcm01", 58.0), ("dcm02", 58.0), ("dcm03", 64.0), ("dcm04", 58.0)):
        good = value(rows, name, "output")
        assert value(rows, name, "oee") == pytest.approx(pri_s * good / (7.5 * 3600), rel=1e-12)


def test_small_windows_add_up_to_large_ones(rows: list[TruthRow]) -> None:
    for name, kpi in (("dcm01", "output"), ("dcm04", "output"), ("cl01", "good_length")):
        totals = [
            sum(
                r.value or 0.0 for r in rows
                if r.asset.endswith(name) and r.kpi == kpi and r.window_length_ns == length
            )
            for length in LENGTHS
        ]  # fmt: skip
        assert totals == pytest.approx([totals[0]] * 3, rel=1e-12)
        assert totals[0] > 0


def test_every_asset_kpi_and_window_has_one_row(rows: list[TruthRow]) -> None:
    keys = [(r.asset, r.kpi, r.window_start_ns, r.window_length_ns) for r in rows]
    assert len(keys) == len(set(keys))
    pairs = {(r.asset, r.kpi) for r in rows}
    assert len(keys) == len(pairs) * (480 + 8 + 1)
    spread = {f"{channel}_{index}" for channel in ("biscuit", "pressure", "diameter")
              for index in ("cm", "cmk", "cp", "cpk")}  # fmt: skip
    assert {kpi for _, kpi in pairs} == spread | {
        "availability", "effectiveness", "quality_ratio", "oee", "nee", "output", "energy_per_unit",
        "co2_per_unit", "allocation_efficiency", "utilisation_efficiency", "technical_efficiency",
        "setup_ratio", "equipment_load_ratio", "failures", "mtbf", "mtbf_iso", "mttf", "mttf_iso",
        "mttr", "mttr_iso", "corrective_maintenance_ratio", "throughput_rate", "allocation_ratio",
        "production_process_ratio", "scrap_ratio", "rework_ratio", "first_pass_yield",
        "actual_to_planned_scrap", "warm_up_scrap_ratio", "shot_cycle_time",
        "protective_stops", "grip_lost_events",
        *(f"{flag}_{what}" for flag in ("protective_stop", "grip_lost")
          for what in ("ratio", "share", "blank")),
        "arm_cycle_time", "line_speed", "running_speed", "good_length", "energy_per_metre",
        "co2_per_metre", "spark_faults_per_km", "eccentricity_mean", "eccentricity_p95",
        "agv_utilisation", "agv_mission_time", "agv_empty_ratio", "agv_waiting_ratio",
        "agv_battery_min", "agv_battery_mean",
        "wip", "wip_turnover_days", "wip_age_days", "wip_inventory_days", "inventory_turns",
        "throughput", "fall_off_ratio", "finished_goods_ratio", "integrated_goods_ratio",
        "production_loss_ratio", "storage_loss_ratio", "other_loss_ratio", "output_per_head",
        "value_per_head", "worker_efficiency", "service_availability", "service_failures",
        "messages", "delay_p50", "delay_p99", "delay_p999", "within_10ms",
        "endpoint_delay", "radio_delay", "core_delay", "transport_delay",
        "clock_skew", "early_messages", "misses_in_a_row",
        "melt_per_metre", "melt_rate", "order_lead_time",
        *(f"{way}_{what}" for way in ("uplink", "downlink")
          for what in ("delay_p50", "delay_p99", "within_10ms")),
    }  # fmt: skip


def test_nothing_is_said_of_the_break(rows: list[TruthRow]) -> None:
    noon = START + 4 * HOUR + 10 * MINUTE
    cell = [
        ("dcm01", k) for k in ("availability", "effectiveness", "quality_ratio", "oee", "output")
    ]
    others = [("cl01", "line_speed"), ("agv01", "agv_utilisation"), ("arm01", "arm_cycle_time")]
    for name, kpi in (*cell, *others):
        assert value(rows, name, kpi, MINUTE, noon) is None
    assert value(rows, "flow", "throughput", MINUTE, noon) == 0.0


def test_the_time_model_nests_in_every_window(
    run: tuple[Factory, list[Made]], rows: list[TruthRow]
) -> None:
    """availability = allocation x utilisation efficiency, NEE / OEE = 1 / (1 - setup ratio),
    corrective and preventive maintenance share all of it."""
    by = {(r.asset, r.kpi, r.window_start_ns, r.window_length_ns): r.value for r in rows}
    checked = 0
    for (asset, kpi, *window), oee in by.items():
        if kpi != "oee":
            continue

        def of(name: str, asset: str = asset, window: list[int] = window) -> Any:
            return by[asset, name, window[0], window[1]]

        allocated, used = of("allocation_efficiency"), of("utilisation_efficiency")
        if allocated and used is not None:
            assert of("availability") == pytest.approx(allocated * used, rel=1e-12)
        if oee:
            assert of("nee") == pytest.approx(oee / (1.0 - of("setup_ratio")), rel=1e-12)
            assert of("equipment_load_ratio") * of("quality_ratio") == pytest.approx(oee, rel=1e-12)
            checked += 1
        if of("quality_ratio") is not None:
            rejects = of("scrap_ratio") + of("rework_ratio")
            assert of("quality_ratio") == pytest.approx(1.0 - rejects, abs=1e-12)
            if not asset.endswith("/-"):
                assert of("first_pass_yield") == of("quality_ratio"), "each part is inspected once"
    assert checked > 1000


# By hand, from the logs, without the truth's own tools


def test_capability_by_the_textbook(run: tuple[Factory, list[Made]], rows: list[TruthRow]) -> None:
    cell = next(d for d in run[0].floor.devices if isinstance(d, CastingCell))
    for hour in (1, 6):
        low = START + hour * HOUR
        known = [(s.end_ns, s.biscuit_um / 1000) for s in cell.shots]
        mine = np.array([v for t, v in known if low <= t < low + HOUR])
        steps = np.array([b - a for (_, a), (t, b) in pairwise(known) if low <= t < low + HOUR])
        room = min(30.0 - mine.mean(), mine.mean() - 20.0)
        for sigma, wide, near in (
            (mine.std(ddof=1), "cm", "cmk"), (np.sqrt((steps**2).mean() / 2), "cp", "cpk")
        ):  # fmt: skip
            told = [value(rows, "dcm01", f"biscuit_{k}", HOUR, low) for k in (wide, near)]
            assert told == pytest.approx([10.0 / (6 * sigma), room / (3 * sigma)], rel=1e-9)


def test_availability_by_walking_through_the_log(
    run: tuple[Factory, list[Made]], rows: list[TruthRow]
) -> None:
    for unit in run[0].floor.units:
        if not isinstance(unit, CastingCell):
            continue
        for hour in range(8):
            low, high = START + hour * HOUR, START + (hour + 1) * HOUR
            planned = [(low, high)] if hour != 4 else [(low + HOUR // 2, high)]
            spent = 0
            ends = [*unit.state.t[1:], START + SHIFT]
            for start, end, state in zip(unit.state.t, ends, unit.state.v, strict=True):
                for a, b in planned:
                    if state == PackML.EXECUTE and unit.order.get(start) > 0:
                        spent += max(0, min(end, b) - max(start, a))
            share = spent / sum(b - a for a, b in planned)
            assert value(rows, unit.asset.name, "availability", HOUR, low) == pytest.approx(
                share, rel=1e-12
            )


def test_troubles_of_an_arm_by_walking_through_its_logs(
    run: tuple[Factory, list[Made]], rows: list[TruthRow]
) -> None:
    halted = (PackML.HOLDING, PackML.HELD, PackML.UNHOLDING)
    seen = [0, 0]
    for unit in run[0].floor.units:
        if not isinstance(unit, RobotArm):
            continue
        name = unit.asset.name
        for hour in range(8):
            low, high = START + hour * HOUR, START + (hour + 1) * HOUR
            for place, (log, on, trouble, events) in enumerate((
                (unit.state, halted, "protective_stop", "protective_stops"),
                (unit.grip_lost, (1,), "grip_lost", "grip_lost_events"),
            )):  # fmt: skip
                began = spent = 0
                before = False
                for start, end, now in zip(log.t, [*log.t[1:], START + SHIFT], log.v, strict=True):
                    began += now in on and not before and low <= start < high
                    spent += max(0, min(end, high) - max(start, low)) * (now in on)
                    before = now in on
                seen[place] += began
                assert value(rows, name, events, HOUR, low) == began
                for share in ("ratio", "share"):
                    found = value(rows, name, f"{trouble}_{share}", HOUR, low)
                    assert found == pytest.approx(spent / HOUR, rel=1e-12)
                assert value(rows, name, f"{trouble}_blank", HOUR, low) == 0
    assert min(seen) > 0


def test_charge_of_a_vehicle_by_looking_at_its_battery_each_second(
    run: tuple[Factory, list[Made]], rows: list[TruthRow]
) -> None:
    vehicles = [d for d in run[0].floor.devices if isinstance(d, Agv)]
    assert len(vehicles) == 2
    seen: list[Any] = []
    for hour in range(8):
        low = START + hour * HOUR
        times = np.arange(low, low + HOUR, NS_PER_S, dtype=np.int64)
        for agv in vehicles:
            charge, told = agv.battery.at(times), dict[str, Any]()
            for kpi in ("agv_battery_min", "agv_battery_mean"):
                told[kpi] = value(rows, agv.asset.name, kpi, HOUR, low)
            # A second moves it by at most 1/3600.
            assert told["agv_battery_min"] == pytest.approx(charge.min(), abs=3e-4)
            assert told["agv_battery_min"] <= charge.min()
            assert told["agv_battery_mean"] == pytest.approx(charge.mean(), abs=3e-5)
            seen.append(charge)
        both = np.concatenate(seen[-2:])
        mine = [r.value for r in rows if r.asset == "ningbo/-/-/-" and r.kpi == "agv_battery_min"
                and (r.window_start_ns, r.window_length_ns) == (low, HOUR)]  # fmt: skip
        assert mine == [pytest.approx(both.min(), abs=3e-4)]
    assert any((np.diff(charge) > 0).any() for charge in seen), "nobody charged"


def test_an_empty_battery_stays_empty_and_is_booked_so() -> None:
    battery = Battery(0, 1.0, 0.5, 3_600.0)  # 1 Ah: half of it lasts half a second
    assert battery.bends(NS_PER_S)[-1] == (NS_PER_S // 2, 0, 0)
    battery.draw(NS_PER_S, -900.0)
    at = {t: battery.ratio(t) for t in (NS_PER_S // 4, NS_PER_S // 2, NS_PER_S, 2 * NS_PER_S)}
    assert list(at.values()) == [0.25, 0.0, 0.0, 0.25]
    charged = [charge for _, charge, _ in battery.bends(2 * NS_PER_S)]
    assert charged == [battery.capacity // 2, 0, 0]


def test_littles_law_by_the_pieces_themselves(
    run: tuple[Factory, list[Made]], rows: list[TruthRow]
) -> None:
    flow = run[0].floor.flow
    times = sorted({*flow.entered.t, *flow.left.t, *flow.scrapped.t, START + SHIFT})
    held = sum(
        (flow.entered.get(a) - flow.left.get(a) - flow.scrapped.get(a)) * (b - a)
        for a, b in pairwise(times)
    )
    days = held / flow.left.last / NS_PER_DAY
    assert value(rows, "flow", "wip_turnover_days") == pytest.approx(days, rel=1e-12)
    assert value(rows, "flow", "wip") == pytest.approx(held / SHIFT, rel=1e-12)
    assert value(rows, "flow", "throughput") == flow.left.last / 8
    assert days == pytest.approx(value(rows, "flow", "wip") / (flow.left.last * 3), rel=1e-9)


def test_persons_at_work_by_looking_at_the_machines_each_second(
    run: tuple[Factory, list[Made]], rows: list[TruthRow]
) -> None:
    floor = run[0].floor
    tended = {PackML.RESETTING, PackML.STARTING, PackML.COMPLETING}
    there = at_work = 0.0
    for t_ns in range(START + HOUR, START + 2 * HOUR, NS_PER_S):
        bound = 0.0
        for unit in floor.units:
            if unit.maintenance.get(t_ns) or unit.state.get(t_ns) in tended:
                bound += 1.0
            elif unit.state.get(t_ns) == PackML.EXECUTE and unit.order.get(t_ns):
                bound += 0.5
        there += 6.0
        at_work += min(bound, 6.0)
    told = value(rows, "crew", "worker_efficiency", HOUR, START + HOUR)
    assert told == pytest.approx(at_work / there, rel=0.002)
    assert value(rows, "crew", "worker_efficiency", MINUTE, START + 4 * HOUR) is None, "the break"


@given(
    moves=st.lists(st.tuples(st.integers(0, 9_000), st.integers(0, 3)), min_size=1, max_size=60),
    cut=st.integers(0, 200_000), length=st.integers(1, 200_000),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_ages_and_littles_law_differ_by_what_lies_in_the_shop_at_the_edges(
    moves: list[tuple[int, int]], cut: int, length: int
) -> None:
    """Pieces that leave take their whole age along, WIP counts what of it lies in the window: so
    the two differ at most by the pieces there at its two ends, times the longest stay."""
    flow, queue, t_ns = Flow(Asset("s", "a", "l", "flow"), 0), list[int](), 0
    order = Order(1, load_plant("quickstart").product[0], len(moves), 0)
    longest = 0
    for wait_ms, leaving in moves:
        t_ns += wait_ms * NS_PER_MS
        flow.enter(t_ns, order)
        queue.append(t_ns)
        out, queue = queue[:leaving], queue[leaving:]
        flow.leave(t_ns, out, order)
        longest = max([longest, *(t_ns - entered for entered in out)])
    low, high = cut * NS_PER_MS, (cut + length) * NS_PER_MS
    end = max(high, t_ns)
    longest = max([longest, *(end - entered for entered in queue)])
    logs = (flow.entered, flow.left)
    held, gone = (Area(0, end, (steps, lambda v: v))(np.array([low, high])) for steps in logs)
    wip_ns = int(np.diff(held - gone)[0])
    ages_ns = (flow.age_ms.get(high) - flow.age_ms.get(low)) * NS_PER_MS
    edges = sum(flow.entered.get(t) - flow.left.get(t) for t in (low, high))
    assert abs(wip_ns - ages_ns) <= edges * longest


def test_an_age_is_whole_milliseconds_and_off_by_less_than_one() -> None:
    flow = Flow(Asset("s", "a", "l", "flow"), 0)
    order = Order(1, load_plant("quickstart").product[0], 1, 0)
    flow.enter(1_999_999, order)
    flow.leave(7_000_001, [1_999_999], order)
    assert flow.age_ms.get(7_000_001) == 6
    report = flow.first_report(7_000_001)
    assert report.ch["age_piece_s"] == [0.006]


def test_what_was_consumed_became_good_was_lost_or_is_in_process(
    run: tuple[Factory, list[Made]],
) -> None:
    floor = run[0].floor
    sent = samples(run[1], "/flow/flow")
    names = ("integrated_good", "production_loss", "storage_loss", "other_loss")
    wip = -1
    for index, (t_ns, consumed) in enumerate(sent["consumed"]):
        wip = sent["entered"][index][1] - sent["left"][index][1] - sent["scrapped"][index][1]
        assert consumed == wip + sum(sent[name][index][1] for name in names), t_ns
    assert wip == floor.wip()
    assert sent["other_loss"][-1][1] > 0


# Against the wire


def samples(messages: list[Made], topic: str) -> dict[str, list[tuple[int, Any]]]:
    out: dict[str, list[tuple[int, Any]]] = {}
    for message in messages:
        if not message.topic.endswith(topic):
            continue
        said = json.loads(message.payload)
        n = len(next(iter(said["ch"].values())))
        step = said.get("every_ns", 0)
        times = [said["t_ns"] + o for o in said.get("after_ns", [step * i for i in range(n)])]
        for name, values in said["ch"].items():
            out.setdefault(name, []).extend(zip(times, values, strict=True))
    return out


def test_what_was_sent_is_what_is_true(
    run: tuple[Factory, list[Made]], rows: list[TruthRow]
) -> None:
    messages = run[1]
    for name in ("dcm01", "dcm03", "arm02"):
        sent = samples(messages, f"/{name}/process")
        energy, made = dict(sent["energy_kwh"]), dict(sent["produced"])
        for hour in range(8):
            low, high = START + hour * HOUR, START + (hour + 1) * HOUR
            pieces = made[high] - made[low]
            if pieces:
                spent = round((energy[high] - energy[low]) * 100_000)
                told = value(rows, name, "energy_per_unit", HOUR, low)
                assert told == pytest.approx(spent / 100_000 / pieces, rel=1e-12)
        shots = samples(messages, f"/{name}/event")
        assert len(shots["produced"]) == made[START + SHIFT]
        assert [v for _, v in shots["produced"]] == list(range(1, len(shots["produced"]) + 1))
    sent = samples(messages, "/cl01/process")
    length, scrap = dict(sent["length_m"]), dict(sent["scrap_m"])
    good = length[START + SHIFT] - scrap[START + SHIFT]
    assert value(rows, "cl01", "line_speed") == pytest.approx(good / (7.5 * 3600), rel=1e-9)
    cycles = [v for t, v in samples(messages, "/arm01/event")["cycle_s"] if t < START + HOUR]
    told = value(rows, "arm01", "arm_cycle_time", HOUR)
    assert told == pytest.approx(sum(cycles) / len(cycles), rel=1e-12)
    flow = samples(messages, "/flow/flow")
    assert flow["left"][-1][1] == value(rows, "flow", "throughput") * 8


def test_state_on_the_wire_is_the_log(run: tuple[Factory, list[Made]]) -> None:
    for unit in run[0].floor.units:
        sent = samples(run[1], f"/{unit.asset.name}/state")["state"]
        changes = [s for i, s in enumerate(sent) if not i or sent[i - 1][1] != s[1]]
        assert changes == list(zip(unit.state.t, unit.state.v, strict=True))
        orders = samples(run[1], f"/{unit.asset.name}/orders")
        assert orders["order"] == list(zip(unit.order.t, unit.order.v, strict=True))
        assert all(round(v * NS_PER_S) == unit.pri_ns.get(t) for t, v in orders["pri_s"])
        assert all(round(v * NS_PER_S) == unit.psut_ns.get(t) for t, v in orders["psut_s"])
        for name, log in (("mode", unit.mode), ("maintenance", unit.maintenance)):
            told = samples(run[1], f"/{unit.asset.name}/state").get(name, [])
            assert all(log.get(t) == v for t, v in told)
            assert not told or {t for t, _ in told} >= set(log.t)
        sampled = samples(run[1], f"/{unit.asset.name}/process")["state"]
        assert len(sampled) == 8 * 3600 + 1
        assert all(unit.state.get(t) == v for t, v in sampled)


def test_truth_of_a_plant_that_did_nothing() -> None:
    floor = Floor(load_plant("quickstart"), Link(load_profile("ethernet"), 1), 1, START + 9 * HOUR)
    floor.run_to(START + 10 * HOUR)
    span = (START + 9 * HOUR, START + 10 * HOUR)
    rows = truth_rows(floor, Monitor("ningbo", (), (), (), span[0]), *span, [Every(HOUR)])
    assert {r.value for r in rows if r.asset.endswith("dcm01")} == {None}
    assert {r.value for r in rows if r.kpi in ("wip", "throughput")} == {0.0}
    assert {r.value for r in rows if r.kpi == "wip_turnover_days"} == {None}


# The network


@given(parts=st.lists(st.lists(st.integers(0, (1 << 32) + 3) | st.integers(0, 10**15))))
@settings(max_examples=60, deadline=None)
def test_numbers_are_kept_whole_in_few_bytes(parts: list[list[int]]) -> None:
    counts = Counts()
    for part in parts:
        counts.extend(np.array(part, dtype=np.int64))
    assert counts.values().tolist() == [value for part in parts for value in part]


FAULTS = [{"kind": "outage", "after": "130s", "length": "15s"}]
HOPS = {
    "endpoint_delay": ("hops_ns",),
    "radio_delay": ("gap_ns", "queue_ns", "access_ns", "align_ns", "air_ns", "harq_ns"),
    "core_delay": ("core_ns",),
    "transport_delay": ("stall_ns",),
}


def test_delays_are_true_message_by_message() -> None:
    """Every window by hand from the trace, which nothing of the truth has touched."""
    scenario = find_scenario("quickstart", changes={"length": "4m", "fault": FAULTS})
    factory = make_factory(scenario, "r", trace=True)
    for _ in factory.chunks():
        pass
    tracer = factory.trace()
    assert tracer is not None
    of_kind = {d.path: s.kind for d, s in zip(factory.floor.devices, factory.floor.plant.device,
                                            strict=True)}  # fmt: skip
    lengths = (10 * NS_PER_S, MINUTE, HOUR)
    delays: defaultdict[tuple[str, int, int], list[int]] = defaultdict(list)
    directed: defaultdict[tuple[str, int, int, str], list[int]] = defaultdict(list)
    spent: defaultdict[tuple[str, int, int, str], int] = defaultdict(int)
    for block in tracer.blocks():
        columns: dict[str, list[int]] = {
            name: column.tolist() for name, column in unpacked(block.data).items()
        }
        for row, arrival_ns in enumerate(columns["arrival_ns"]):
            if not 0 <= arrival_ns < START + 4 * MINUTE:
                continue
            cell = tracer.cells[columns["cell"][row]]
            way = "downlink" if block.way.startswith("down") else "uplink"
            for name in (f"cells/{cell}", f"slices/{block.slice}", f"kinds/{of_kind[block.asset]}"):
                for length_ns in lengths:
                    key = (f"ningbo/network/{name}", arrival_ns // length_ns * length_ns, length_ns)
                    delays[key].append(arrival_ns - columns["sent_ns"][row])
                    directed[*key, way].append(arrival_ns - columns["sent_ns"][row])
                    for hop, parts in HOPS.items():
                        spent[*key, hop] += sum(columns[part][row] for part in parts)
    kinds = [Every(length_ns) for length_ns in lengths]
    clocks = ("clock_skew", "early_messages")
    found = [r for r in factory.truth(kinds) if "/network/" in r.asset and r.kpi not in clocks]
    assert {(r.asset, r.window_start_ns, r.window_length_ns) for r in found} >= set(delays)
    assert len(found) == (9 + 6) * len({r.asset for r in found}) * (24 + 4 + 1)
    silent = 0
    for r in found:
        key = (r.asset, r.window_start_ns, r.window_length_ns)
        way, _, kpi = r.kpi.rpartition("link_")
        ordered = sorted(directed[*key, f"{way}link"] if way else delays[key])
        if not ordered:
            assert r.value is None
            silent += 1
        elif kpi == "messages":
            assert r.value == len(ordered)
        elif kpi == "within_10ms":
            good = sum(delay <= 10 * NS_PER_MS for delay in ordered)
            assert r.value == good / len(ordered)
        elif kpi.startswith("delay_p"):
            share = Fraction({"p50": 500, "p99": 990, "p999": 999}[kpi[6:]], 1000)
            assert r.value == ordered[ceil(share * len(ordered)) - 1] / NS_PER_MS
        else:
            assert r.value == float(Fraction(spent[*key, r.kpi], len(ordered) * NS_PER_MS))
    assert silent, "in the outage nothing arrived for some pane"


def test_an_outage_that_loses_nothing_leaves_nothing_wrong_but_bins(tmp_path: Path) -> None:
    scenario = find_scenario("quickstart", changes={"length": "6m", "fault": FAULTS})
    outcome = run_offline(scenario, tmp_path / "a.beilun")
    assert outcome.ending.account.closes
    rows = {
        ("/".join(r.asset), r.kpi, r.window_start_ns, r.window_length_ns): r.value
        for r in outcome.ending.rows
    }
    scored = 0
    for true in outcome.truth:
        mine = rows.get(true[:4])
        assert (mine is None) == (true.value is None), true
        if mine is None:
            continue
        exact = "delay_p" not in true.kpi and true.kpi != "clock_skew"
        held = 0.0084 if true.kpi.startswith("agv_battery") else 1e-12  # from state to state
        assert mine == pytest.approx(true.value, rel=1e-9 if exact else 0.005, abs=held), true
        scored += 1
    assert scored > 3_000
    down = [r.value for r in outcome.truth if r.kpi == "service_failures" and r.value]
    longest = [r.value for r in outcome.truth if r.kpi == "misses_in_a_row" and r.value]
    assert down
    assert max(longest) > 10


# Windows that overlap


@given(
    values=st.lists(st.integers(-3, 1_000), max_size=60),
    cuts=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=8),
    share=st.integers(1, 1_000),
    often=st.integers(1, 40),
)
@settings(max_examples=150, deadline=None)
def test_a_share_is_the_same_however_many_windows_ask_for_it(
    values: list[int], cuts: list[tuple[int, int]], share: int, often: int
) -> None:
    """Sorted window by window, or sifted for all of them where they overlap much."""
    spans = [(min(a, b, len(values)), min(max(a, b), len(values))) for a, b in cuts] * often
    low, high = np.array(spans, dtype=np.int64).T
    rank = -(-(high - low) * share // 1_000) - 1
    (found,) = ranked(np.array(values, dtype=np.int64), low, high, [rank])
    for (a, b), got in zip(spans, found.tolist(), strict=True):
        if a < b:
            assert got == sorted(values[a:b])[ceil(Fraction(share * (b - a), 1_000)) - 1]


def test_windows_shorter_than_a_report_of_the_network_have_no_evidence(tmp_path: Path) -> None:
    """What is told of ten seconds at once says nothing of one of them; what is told of a second
    does. Nothing is wrong in any window."""
    text = """\
plant = "quickstart"
seed = 7
length = "90s"
[edge]
windows = ["1s", "5s", "20s"]
"""
    (tmp_path / "short.toml").write_text(text)
    outcome = run_offline(find_scenario(tmp_path / "short.toml"), tmp_path / "a.beilun")
    mine = {(str(r.asset), r.kpi, r.window_start_ns, r.window_length_ns): r.value
            for r in outcome.ending.rows}  # fmt: skip
    known = kpis.load()
    told: defaultdict[tuple[str, int], int] = defaultdict(int)
    for asset, kpi, start_ns, length_ns, true in outcome.truth:
        got = mine[asset, kpi, start_ns, length_ns]
        if got is None or true is None:
            assert got is None, (asset, kpi, start_ns)
            continue
        bound = known[kpi].accuracy.within(true)
        assert bound is None or got == pytest.approx(true, rel=1e-9, abs=bound + 1e-9), kpi
        told["network" if "/network/" in asset else kpi, length_ns // NS_PER_S] += 1
    for seconds in (1, 5):
        assert not told["misses_in_a_row", seconds]
        assert told["delay_p99", seconds]
    assert told["misses_in_a_row", 20]
    network = {
        kpi for (asset, kpi, *_), v in mine.items() if "/network/" in asset and v is not None
    }
    assert {"messages", "radio_delay", "uplink_delay_p99"} <= network
    short = {kpi for (asset, kpi, _, ns), v in mine.items()
             if "/network/" in asset and v is not None and ns < 10 * NS_PER_S}  # fmt: skip
    assert short <= {"clock_skew"}


@pytest.mark.parametrize(("windows", "told_s"), [(["1m", "3m"], 60), (["1m", "90s"], 30)])
def test_with_samples_by_the_minute_the_network_is_told_no_oftener_than_windows_ask(
    tmp_path: Path, windows: list[str], told_s: int
) -> None:
    scenario = find_scenario(
        "quickstart", changes={"length": "6m", "telemetry": "1m", "edge": {"windows": windows}}
    )
    chunks = list(make_factory(scenario, "run").chunks())
    reports = [m for chunk in chunks for m in chunk.made if "/kinds/agv/" in m.topic]
    counts = [m for m in reports if m.topic.rsplit("/", 1)[-1] not in ("birth", "connection")]
    assert len(counts) == 360 // told_s
    outcome = run_offline(scenario, tmp_path / "a.beilun")
    mine = {(str(r.asset), r.kpi, r.window_start_ns, r.window_length_ns): r.value
            for r in outcome.ending.rows}  # fmt: skip
    known = kpis.load()
    scored = 0
    for asset, kpi, start_ns, length_ns, true in outcome.truth:
        if "/network/" not in asset or true is None:
            continue
        bound = known[kpi].accuracy.within(true)
        got = mine[asset, kpi, start_ns, length_ns]
        assert bound is None or got == pytest.approx(true, rel=1e-9, abs=bound + 1e-9), kpi
        scored += 1
    assert scored > 300


def test_how_many_in_a_row_are_late_is_unknown_where_heartbeats_are_drawn(tmp_path: Path) -> None:
    text = """\
plant = "quickstart"
seed = 7
length = "2m"
[edge]
windows = ["1m"]
[[change]]
name = "heartbeats-drawn"
why = "to see what is not known then"
set = { heartbeats = "drawn" }
"""
    (tmp_path / "drawn.toml").write_text(text)
    outcome = run_offline(find_scenario(tmp_path / "drawn.toml"), tmp_path / "a.beilun")
    misses = [row.value for row in outcome.ending.rows if row.kpi == "misses_in_a_row"]
    assert misses
    assert set(misses) == {None}
    assert not [
        row for row in outcome.truth if row.kpi == "misses_in_a_row" and row.value is not None
    ]
    served = [row.value for row in outcome.ending.rows if row.kpi == "service_availability"]
    assert served
    assert None not in served


def test_sliding_windows_are_those_of_the_grid_where_they_coincide(
    run: tuple[Factory, list[Made]], rows: list[TruthRow]
) -> None:
    """Every sixth window of an hour that begins every ten minutes is one of the grid."""
    grid = {row[:4]: row.value for row in rows if row.window_length_ns == HOUR}
    sliding = run[0].truth([Sliding(HOUR, HOUR // 6)])
    there = {row[:4]: row.value for row in sliding if row.window_start_ns % HOUR == 0}
    assert there == grid
    assert len(sliding) == len(there) // 8 * (48 + 5)


def test_orders_are_those_of_the_log_to_the_nanosecond(run: tuple[Factory, list[Made]]) -> None:
    rows = run[0].truth([ByOrder()])
    for unit in run[0].floor.units:
        turns = [*zip(unit.order.t, unit.order.v, strict=True)]
        mine = [
            (t, then - t, float(number))
            for (t, number), (then, _) in pairwise(turns) if number and then < START + SHIFT
        ]  # fmt: skip
        told = [
            (r.window_start_ns, r.window_length_ns, r.value) for r in rows
            if r.asset == unit.path and r.kpi == "order_number"
        ]  # fmt: skip
        assert told == mine
        if not isinstance(unit, CastingCell):
            continue
        for t_ns, length_ns, _ in mine:
            made = value(rows, unit.asset.name, "throughput_rate", length_ns, t_ns)
            pieces = sum(t_ns < t <= t_ns + length_ns for t in unit.produced.t[1:])
            assert made == pytest.approx(pieces * HOUR / length_ns, rel=1e-12)
    assert not [r for r in rows if r.asset.endswith("/-")], "nothing rolls up"
    assert len({r.asset for r in rows}) > 4
