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
from ingest.messages import TruthRow
from ingest.packml import PackML
from ingest.recording import unpacked
from simulator.device import Steps
from simulator.devices.casting_cell import CastingCell
from simulator.factory import Factory, Made
from simulator.link.link import Link
from simulator.link.profile import load_profile
from simulator.plant import load_plant
from simulator.plant.floor import Floor
from simulator.truth import WINDOWS_NS, Area, Windows, truth_rows

START = parse_time("2026-01-05T00:00:00Z")
MINUTE, HOUR = 60 * NS_PER_S, 3600 * NS_PER_S
SHIFT = 8 * HOUR


@pytest.fixture(scope="module")
def run() -> tuple[Factory, list[Made]]:
    plant, link = load_plant("quickstart"), Link(load_profile("ethernet"), 7)
    factory = Factory(plant, link, 7, "r", START, SHIFT)
    births = factory.births()
    return factory, [*births, *(m for chunk in factory.chunks() for m in chunk.made)]


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
    w = Windows.over(START + 90 * NS_PER_S, START + 200 * NS_PER_S, MINUTE)
    assert ((w.start_ns - START) // NS_PER_S).tolist() == [60, 120, 180]
    assert ((w.a - START) // NS_PER_S).tolist() == [90, 120, 180]
    assert ((w.b - START) // NS_PER_S).tolist() == [120, 180, 200]


def test_an_event_on_a_boundary_belongs_to_the_window_it_begins() -> None:
    counter = Steps(START, 0)
    for t in (START + MINUTE - 1, START + MINUTE, START + 2 * MINUTE):
        counter.add(t)
    w = Windows.over(START, START + 3 * MINUTE, MINUTE)
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
            for length in WINDOWS_NS
        ]  # fmt: skip
        assert totals == pytest.approx([totals[0]] * 3, rel=1e-12)
        assert totals[0] > 0


def test_every_asset_kpi_and_window_has_one_row(rows: list[TruthRow]) -> None:
    keys = [(r.asset, r.kpi, r.window_start_ns, r.window_length_ns) for r in rows]
    assert len(keys) == len(set(keys))
    pairs = {(r.asset, r.kpi) for r in rows}
    assert len(keys) == len(pairs) * (480 + 8 + 1)
    assert {kpi for _, kpi in pairs} == {
        "availability", "effectiveness", "quality_ratio", "oee", "output", "energy_per_unit",
        "arm_cycle_time", "line_speed", "running_speed", "good_length", "energy_per_metre",
        "agv_utilisation", "wip", "wip_turnover_days", "throughput", "service_availability",
        "service_failures", "delay_p50", "delay_p99", "delay_p999", "within_10ms",
        "endpoint_delay", "radio_delay", "core_delay", "transport_delay",
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


# By hand, from the logs, without the truth's own tools


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
        assert sent == list(zip(unit.state.t, unit.state.v, strict=True))
        orders = samples(run[1], f"/{unit.asset.name}/orders")
        assert orders["order"] == list(zip(unit.order.t, unit.order.v, strict=True))
        assert all(round(v * NS_PER_S) == unit.pri_ns.get(t) for t, v in orders["pri_s"])
        sampled = samples(run[1], f"/{unit.asset.name}/process")["state"]
        assert len(sampled) == 8 * 3600 + 1
        assert all(unit.state.get(t) == v for t, v in sampled)


def test_truth_of_a_plant_that_did_nothing() -> None:
    floor = Floor(load_plant("quickstart"), Link(load_profile("ethernet"), 1), 1, START + 9 * HOUR)
    floor.run_to(START + 10 * HOUR)
    rows = truth_rows(floor, START + 9 * HOUR, START + 10 * HOUR, (HOUR,))
    assert {r.value for r in rows if r.asset.endswith("dcm01")} == {None}
    assert {r.value for r in rows if r.kpi in ("wip", "throughput")} == {0.0}
    assert {r.value for r in rows if r.kpi == "wip_turnover_days"} == {None}


# The network

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
    factory.births()
    for _ in factory.chunks():
        pass
    tracer = factory.trace()
    assert tracer is not None
    kinds = {d.path: s.kind for d, s in zip(factory.floor.devices, factory.floor.plant.device,
                                            strict=True)}  # fmt: skip
    lengths = (10 * NS_PER_S, MINUTE, HOUR)
    delays: defaultdict[tuple[str, int, int], list[int]] = defaultdict(list)
    spent: defaultdict[tuple[str, int, int, str], int] = defaultdict(int)
    for block in tracer.blocks():
        columns: dict[str, list[int]] = {
            name: column.tolist() for name, column in unpacked(block.data).items()
        }
        for row, arrival_ns in enumerate(columns["arrival_ns"]):
            if not 0 <= arrival_ns < START + 4 * MINUTE:
                continue
            cell = tracer.cells[columns["cell"][row]]
            for name in (f"cells/{cell}", f"slices/{block.slice}", f"kinds/{kinds[block.asset]}"):
                for length_ns in lengths:
                    key = (f"ningbo/network/{name}", arrival_ns // length_ns * length_ns, length_ns)
                    delays[key].append(arrival_ns - columns["sent_ns"][row])
                    for hop, parts in HOPS.items():
                        spent[*key, hop] += sum(columns[part][row] for part in parts)
    found = [r for r in factory.truth(lengths) if "/network/" in r.asset]
    assert {(r.asset, r.window_start_ns, r.window_length_ns) for r in found} >= set(delays)
    assert len(found) == 8 * len({r.asset for r in found}) * (24 + 4 + 1)
    silent = 0
    for r in found:
        key = (r.asset, r.window_start_ns, r.window_length_ns)
        ordered = sorted(delays.get(key, ()))
        if not ordered:
            assert r.value is None
            silent += 1
        elif r.kpi == "within_10ms":
            good = sum(delay <= 10 * NS_PER_MS for delay in ordered)
            assert r.value == good / len(ordered)
        elif r.kpi.startswith("delay_p"):
            share = Fraction({"p50": 500, "p99": 990, "p999": 999}[r.kpi[6:]], 1000)
            assert r.value == ordered[ceil(share * len(ordered)) - 1] / NS_PER_MS
        else:
            assert r.value == float(Fraction(spent[*key, r.kpi], len(ordered) * NS_PER_MS))
    assert silent, "in the outage nothing arrived for some pane"


def test_what_the_edge_says_of_the_network_is_true_within_a_bin(tmp_path: Path) -> None:
    scenario = find_scenario("quickstart", changes={"length": "6m", "fault": FAULTS})
    outcome = run_offline(scenario, tmp_path / "a.beilun")
    assert outcome.ending.account.closes
    rows = {
        ("/".join(r.asset), r.kpi, r.window_start_ns, r.window_length_ns): r.value
        for r in outcome.ending.rows
    }
    scored = 0
    for true in (r for r in outcome.truth if "/network/" in r.asset):
        mine = rows.get(true[:4])
        assert (mine is None) == (true.value is None), true
        if mine is None:
            continue
        exact = not true.kpi.startswith("delay_p")
        assert mine == pytest.approx(true.value, rel=1e-9 if exact else 0.005), true
        scored += 1
    assert scored > 8 * 7 * 6
