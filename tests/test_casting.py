"""The casting cell and the arm that trims: their laws, their physics, and how they are computed."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.faults import Fault, Outage
from config.units import NS_PER_MS, NS_PER_S, parse_time
from ingest.packml import Maintenance, Mode, PackML
from simulator.device import Columns, Steps, Stretch
from simulator.devices import robot_arm
from simulator.devices.casting_cell import CastingCell, CastingCellSpec
from simulator.devices.robot_arm import JOINTS, RobotArm
from simulator.link.link import Link
from simulator.link.profile import load_profile
from simulator.plant import make_plant
from simulator.plant.floor import Floor
from simulator.plant.shots import LOW_PRESSURE, Coming, Limits, Run, cold_scrap

START = parse_time("2026-01-05T00:00:00Z")
HOUR = 3_600 * NS_PER_S
ALWAYS = {"shift": [{"start": "00:00", "end": "24:00"}]}
PLACES = {"casting_cell": "cell", "robot_arm": "station", "agv": "store"}
NODES = [{"name": name, "x_m": x_m, "y_m": 0.0} for name, x_m in
         (("cell", 0.0), ("station", 30.0), ("store", 60.0))]  # fmt: skip
EDGES = [{"between": ["cell", "station"]}, {"between": ["station", "store"]}]
ENDLESS: dict[str, Any] = {"output_slots": 10**6}
"""A cell whose output never fills up."""


def device(kind: str, name: str, **more: Any) -> dict[str, Any]:
    own = {"name": name, "kind": kind, "area": "hall", "line": "l1", "node": PLACES[kind]}
    return own | ({"charger": "store"} if kind == "agv" else {}) | more


AGV = device("agv", "v")


def shop(
    devices: Sequence[dict[str, Any]], *, hours: float = 0.0, seed: int = 1, pieces: int = 10,
    calendar: Mapping[str, Any] = ALWAYS, quantity: int = 10**6, dies: int = 1, tools: int = 1,
    network: str = "ethernet", faults: Sequence[Fault] = (), **plant: Any,
) -> Floor:  # fmt: skip
    """Each cell has an order for each of its dies; arms trim, with as many tools as are given."""
    cells = [d["name"] for d in devices if d["kind"] == "casting_cell"]
    trims = any(d["kind"] == "robot_arm" for d in devices)
    cast: dict[str, Any] = {"operation": "cast", "units": cells, "pri_s": 58.0}
    trim: dict[str, Any] = {"operation": "trim", "units": ["r*"], "pri_s": 20.0}
    products = [
        {
            "name": f"p{die}",
            "step": [cast | {"tool": f"m{die}"}, trim | {"tool": f"t{die % tools}"}][: 1 + trims],
        }
        for die in range(dies)
    ]
    orders = [
        {"number": 1 + dies * n + die, "unit": name, "product": f"p{die}", "quantity": quantity}
        for n, name in enumerate(cells)
        for die in range(dies)
    ]
    made = make_plant(
        {"site": "s", "pieces_per_container": pieces, "warehouse": "store", "calendar": calendar,
         "node": NODES, "edge": EDGES, "device": list(devices), "product": products,
         "order": orders, "heartbeats": "drawn", **plant}
    )  # fmt: skip
    floor = Floor(made, Link(load_profile(network), seed, None, faults, START), seed, START)
    floor.run_to(START + round(hours * HOUR))
    return floor


def find(floor: Floor, name: str) -> Any:
    return next(d for d in floor.devices if d.asset.name == name)


def one_cell(hours: float = 60, **spec: Any) -> CastingCell:
    floor = shop([device("casting_cell", "c", **(ENDLESS | spec)), AGV], hours=hours, pieces=400)
    cell = find(floor, "c")
    assert isinstance(cell, CastingCell)
    return cell


def spells(steps: Steps, value: int, end_ns: int) -> list[tuple[int, int]]:
    """Start and end of each stretch in which a log has a value."""
    ends = [*steps.t[1:], end_ns]
    return [(a, b) for a, b, v in zip(steps.t, ends, steps.v, strict=True) if v == value]


def near(share: float, wanted: float, n: int) -> bool:
    """Whether a share of n draws is within four standard deviations."""
    return abs(share - wanted) < 4 * math.sqrt(wanted * (1.0 - wanted) / n)


def heard(one: Any, *stretches: Stretch) -> dict[str, dict[str, list[Any]]]:
    """Everything a device tells, stream by stream and channel by channel."""
    out: dict[str, dict[str, list[Any]]] = {}
    for stretch in stretches:
        for report in one.reports(stretch):
            assert isinstance(report, Columns)
            for name, values in (("t_ns", report.t_ns), *report.ch.items()):
                out.setdefault(report.stream, {}).setdefault(name, []).extend(values)
    return out


# What is scrap, and why


def test_warm_up_scrap_comes_in_its_bands() -> None:
    cells = [device("casting_cell", f"c{i}", cycle_s=10.0, mtbf_s=3000.0, mttr_s=600.0,
                    scrap_ratio=0.04, short_dose_ratio=0.0, **ENDLESS)
             for i in range(12)]  # fmt: skip
    floor = shop([*cells, AGV], hours=30, pieces=400)
    shots = [s for c in floor.devices if isinstance(c, CastingCell) for s in c.shots]
    for low, high, share in ((1, 3, 0.98), (4, 6, 0.76), (7, 10, 0.08), (11, 50, 0.03),
                             (51, 300, 0.012), (301, 10**6, 0.0)):  # fmt: skip
        assert cold_scrap(np.array((low, high))).tolist() == [share, share]
        bads = [s.bad for s in shots if low <= s.number <= high]
        assert len(bads) > 500
        assert near(sum(bads) / len(bads), share + (1.0 - share / 0.988) * 0.04, len(bads)), low


def test_too_little_pressure_is_a_cause_of_scrap() -> None:
    cell = one_cell(120, cycle_s=10.0, mtbf_s=3600.0, mttr_s=600.0)
    shots = list(cell.shots)
    low = [s for s in shots if s.pressure_kpa < LOW_PRESSURE * 70_000]
    high = [s for s in shots if s.pressure_kpa >= LOW_PRESSURE * 70_000]
    assert len(low) > 1400
    assert near(sum(s.bad for s in low) / len(low), 0.988, len(low))
    assert near(sum(s.bad for s in high) / len(high), 0.013, len(high))
    thin = [s for s in shots if s.biscuit_um < 18_500]
    assert len(thin) > 500
    assert sum(s.bad for s in thin) / len(thin) > 0.96, "a thin biscuit is how it begins"
    warm = [s for s in low if s.number > 300]
    assert all(s.biscuit_um < 20_000 for s in warm), "with a warm die there is no other way"
    assert near(len(thin) / len(shots), 0.025, len(shots))


def test_without_short_doses_a_warm_die_has_enough_pressure() -> None:
    cell = one_cell(40, short_dose_ratio=0.0, mtbf_s=1e9)
    assert all(s.pressure_kpa > LOW_PRESSURE * 70_000 for s in cell.shots if s.number > 300)


def test_the_biscuit_is_an_ar1_process_and_the_pressure_is_normal() -> None:
    cell = one_cell(40, cycle_s=15.0, biscuit_sd_mm=1.0, biscuit_memory=0.6, pressure_sd_mpa=1.5,
                    mtbf_s=7200.0, short_dose_ratio=0.0)  # fmt: skip
    n = len(cell.shots)
    assert n > 7_000
    biscuit = np.array(cell.shots.biscuit_um) / 1000
    assert np.mean(biscuit) == pytest.approx(25.0, abs=4 * math.sqrt(1.6 / 0.4 / n))
    assert np.std(biscuit) == pytest.approx(1.0, rel=0.06)
    for lag in (1, 2, 3):
        together = np.corrcoef(biscuit[:-lag], biscuit[lag:])[0, 1]
        assert together == pytest.approx(0.6**lag, abs=0.06)
    pressure, number = np.array(cell.shots.pressure_kpa) / 1000, np.array(cell.shots.number)
    for some, mean in ((pressure[number > 300], 70.0), (pressure[number <= 3], 0.85 * 70.0)):
        typical = some[np.abs(some - mean) < 5.0]  # some of the first have enough
        assert len(typical) > 0.97 * len(some)
        assert np.mean(typical) == pytest.approx(mean, abs=4 * 1.5 / math.sqrt(len(typical)))
    assert np.std(pressure[number > 300]) == pytest.approx(1.5, rel=0.04)
    assert {um % 100 for um in cell.shots.biscuit_um} == {0}
    assert {kpa % 100 for kpa in cell.shots.pressure_kpa} == {0}


def test_every_shot_is_good_at_once_scrap_or_rework_at_every_instant() -> None:
    cell = one_cell(scrap_ratio=0.2, rework_ratio=0.5, mtbf_s=3000.0)
    times = np.array(cell.produced.t, dtype=np.int64)
    parts = [steps.at(times) for steps in (cell.first_pass, cell.scrap, cell.rework)]
    assert (cell.produced.at(times) == sum(parts)).all()
    assert cell.produced.t[1:] == cell.shots.end_ns
    assert cell.produced.last - cell.first_pass.last == sum(cell.shots.bad)


def test_a_share_of_rejects_with_pressure_is_reworked_and_a_share_of_that_is_good() -> None:
    cell = one_cell(scrap_ratio=0.3, rework_ratio=0.4, rework_s=60.0, rework_pass_ratio=0.7,
                    mtbf_s=7200.0)  # fmt: skip
    now = cell.env.now
    firm = sum(s.bad and s.pressure_kpa >= LOW_PRESSURE * 70_000 for s in cell.shots)
    assert firm > 700
    assert near(cell.rework.last / firm, 0.4, firm)
    done = cell.rework.get(now) - sum(shot_ns <= now for _, shot_ns in cell._bench)
    failed = cell.floor.flow.production_loss.get(now) - cell.scrap.get(now)
    assert near(failed / done, 0.3, done)


def test_the_bench_takes_one_piece_at_a_time_in_planned_time() -> None:
    calendar = {"shift": [{"start": "00:00", "end": "12:00"}], "utc_offset": "+00:00",
                "pause": [{"start": "04:00", "end": "06:00"}]}  # fmt: skip
    busy = device("casting_cell", "c", scrap_ratio=0.5, rework_ratio=1.0, rework_s=600.0,
                  rework_pass_ratio=0.0, mtbf_s=1e9, **ENDLESS)  # fmt: skip
    floor = shop([busy, AGV], hours=24, calendar=calendar)
    cell, loss = find(floor, "c"), floor.flow.production_loss
    loss.settle(floor.env.now)
    lost = [t for t in loss.t[1:] if cell.scrap.get(t) == cell.scrap.get(t - 1)]
    assert len(cell._bench) > 100, "more than the bench can do"
    assert all(floor.calendar.planned(t - 1) for t in lost)
    assert {b - a for a, b in pairwise(lost)} == {600 * NS_PER_S, 600 * NS_PER_S + 2 * HOUR}
    assert len(lost) == (10 * 3600 - (lost[0] - START) // NS_PER_S + 600) // 600


def test_what_is_mended_reaches_the_warehouse_whatever_the_cell_does() -> None:
    """Two orders of twelve pieces, nearly everything reworked: none is lost, none is left."""
    cell = device("casting_cell", "c", scrap_ratio=0.6, rework_ratio=1.0, rework_pass_ratio=1.0,
                  rework_s=400.0, output_slots=1, mtbf_s=1e9)  # fmt: skip
    floor = shop([cell, device("robot_arm", "r", scrap_ratio=0.0), AGV], hours=30, quantity=12,
                 dies=2, transport_loss_ratio=0.0)  # fmt: skip
    flow, made, now = floor.flow, find(floor, "c"), floor.env.now
    assert made.rework.last > 10
    assert made.pieces() == 0
    lane = find(floor, "r").output.pieces()
    assert floor.wip() == lane < 10, "the last container of an arm waits to be full"
    assert flow.other_loss.get(now) == 2, "one piece of each order goes to the laboratory"
    assert flow.left.get(now) + 2 + lane == made.first_pass.last + made.rework.last >= 24


# When it runs


def test_running_share_tends_to_mtbf_over_mtbf_plus_mttr() -> None:
    cells = [device("casting_cell", f"c{i}", mtbf_s=3600.0, mttr_s=900.0, abort_ratio=0.0,
                    **ENDLESS) for i in range(8)]  # fmt: skip
    floor = shop([*cells, AGV], hours=60, pieces=400)
    spent = {
        state: sum(b - a for c in floor.units for a, b in spells(c.state, state, floor.env.now))
        for state in (PackML.EXECUTE, PackML.HELD)
    }
    share = spent[PackML.EXECUTE] / sum(spent.values())
    # 8 cells x 60 h of 75-minute turns: some 380 breakdowns, 1/sqrt(380) = 5.1 % either way
    assert share == pytest.approx(0.8, abs=0.8 * 0.2 * math.sqrt(2) * 0.051 * 4)


def test_a_shot_that_breaks_off_makes_nothing_and_its_draws_are_used_up() -> None:
    cell = one_cell(30, mtbf_s=600.0, mttr_s=60.0)
    halts = [a for state in (PackML.HOLDING, PackML.ABORTING)
             for a, _ in spells(cell.state, state, cell.env.now)]  # fmt: skip
    assert len(halts) > 100
    assert len(cell.phases) == pytest.approx(len(cell.shots) + len(halts), abs=2)
    halted = np.array(sorted(halts))
    assert cell.phases.follow(halted - 1)[0].min() > 0
    assert not cell.phases.follow(halted)[0].any()
    assert not set(halts) & set(cell.shots.end_ns)


def test_a_repair_is_corrective_maintenance_and_only_that() -> None:
    cell = one_cell(mtbf_s=2400.0, mttr_s=600.0, abort_ratio=0.5)
    end_ns = cell.env.now
    stands = [
        s for state in (PackML.HELD, PackML.ABORTED) for s in spells(cell.state, state, end_ns)
    ]
    repairs = spells(cell.maintenance, Maintenance.CORRECTIVE, end_ns)
    assert len(repairs) > 40
    assert sorted(stands) == sorted(repairs)
    assert not spells(cell.maintenance, Maintenance.PREVENTIVE, end_ns)
    taken_s = [(b - a) / NS_PER_S for a, b in repairs[:-1]]
    assert np.mean(taken_s) == pytest.approx(600.0, rel=4 / math.sqrt(len(taken_s)))


def test_a_service_comes_after_its_running_time_and_takes_its_time() -> None:
    cell = one_cell(24, maintain_every_h=2.0, maintain_s=1800.0, mtbf_s=1e9)
    services = spells(cell.maintenance, Maintenance.PREVENTIVE, cell.env.now)
    assert services == spells(cell.mode, Mode.MAINTENANCE, cell.env.now)
    assert len(services) > 8
    since_ns = START
    for start_ns, end_ns in services[:-1]:
        assert end_ns - start_ns == 1800 * NS_PER_S
        assert cell.state.get(start_ns) == cell.state.get(end_ns - 1) == PackML.STOPPED
        ran_ns = sum(s.cycle_ms for s in cell.shots if since_ns < s.end_ns <= start_ns) * NS_PER_MS
        assert 0 <= ran_ns - 2 * HOUR < 61 * NS_PER_S
        since_ns = end_ns


def test_only_a_die_change_is_mode_set_up_and_takes_its_plan_on_the_mean() -> None:
    cells = [device("casting_cell", f"c{i}", die_change_s=600.0, die_change_spread=0.2, **ENDLESS)
             for i in range(4)]  # fmt: skip
    floor = shop([*cells, AGV], hours=100, quantity=20, dies=30)
    taken: list[float] = []
    for cell in floor.units:
        changes = spells(cell.mode, Mode.SETUP, floor.env.now)
        assert len(changes) == 29, "the first die is in already"
        for start_ns, end_ns in changes:
            assert cell.state.get(start_ns) == cell.state.get(end_ns - 1) == PackML.RESETTING
            assert cell.psut_ns.get(start_ns) == 600 * NS_PER_S
            taken.append((end_ns - start_ns) / NS_PER_S)
        assert cell.psut_ns.v[0] == 60 * NS_PER_S
    assert min(taken) >= 300.0
    assert np.mean(taken) == pytest.approx(600.0, abs=4 * 120.0 / math.sqrt(len(taken)))
    assert np.std(taken) == pytest.approx(120.0, rel=4 / math.sqrt(2 * len(taken)))


def test_who_breaks_down_waits_in_its_state_for_a_person() -> None:
    """One person for four cells that break down all the time: never two are repaired at once."""
    cells = [device("casting_cell", f"c{i}", mtbf_s=1200.0, mttr_s=900.0, **ENDLESS)
             for i in range(4)]  # fmt: skip
    floor = shop([*cells, AGV], hours=30, operators={"per_shift": [1]})
    now, waited = floor.env.now, 0
    repairs = [spells(c.maintenance, Maintenance.CORRECTIVE, now) for c in floor.units]
    together = sorted(interval for own in repairs for interval in own)
    assert len(together) > 60
    assert all(a[1] <= b[0] for a, b in pairwise(together))
    for cell, own in zip(floor.units, repairs, strict=True):
        for state in (PackML.HELD, PackML.ABORTED):
            for start_ns, end_ns in spells(cell.state, state, now):
                begun = [a for a, b in own if start_ns <= a and b <= end_ns]
                assert len(begun) == 1 or end_ns == now
                waited += bool(begun) and begun[0] > start_ns
    assert waited > 30


# Energy and signals


def test_cell_energy_is_power_times_time() -> None:
    cell = one_cell(4)
    last, before = cell.shots[-1], cell.shots[-2]
    shot = cell.energy.get(last.end_ns) - cell.energy.get(before.end_ns)
    assert shot / 100_000 == pytest.approx(60.0 * last.cycle_ms / 3_600_000, rel=0.001)
    assert cell.energy.get(START + 10 * NS_PER_S) == 14 * 10 * 100_000 // 3600


def test_die_warms_with_fifteen_shots_and_cools_with_forty_minutes() -> None:
    calendar = {"shift": [{"start": "00:00", "end": "06:00"}], "utc_offset": "+00:00"}
    cell = find(
        shop([device("casting_cell", "c", mtbf_s=1e9, cycle_spread=0.0, **ENDLESS), AGV],
             hours=10, calendar=calendar), "c",
    )  # fmt: skip
    first_ns = cell.shots[0].end_ns - 60 * NS_PER_S
    cell.reports(Stretch.every(START, first_ns, 60 * NS_PER_S))
    assert cell._die.now_c[0] == pytest.approx(30.0)
    cell.reports(Stretch.every(first_ns, first_ns + 15 * 60 * NS_PER_S, 60 * NS_PER_S))
    assert cell._die.now_c[0] == pytest.approx(220.0 - 190.0 * math.exp(-1.0))
    last_ns = cell.shots[-1].end_ns
    cell.reports(Stretch.every(first_ns + 15 * 60 * NS_PER_S, last_ns, 60 * NS_PER_S))
    assert cell._die.now_c[0] == pytest.approx(220.0, abs=1e-6)
    cell.reports(Stretch.every(last_ns, last_ns + 2_400 * NS_PER_S, 60 * NS_PER_S))
    assert cell._die.now_c[0] == pytest.approx(30.0 + 190.0 * math.exp(-1.0))


def test_what_the_gauges_of_a_cell_say() -> None:
    cell = one_cell(24)
    now = cell.env.now
    events = heard(cell, Stretch.every(START, now, None))["event"]
    assert events["produced"] == list(range(1, len(events["t_ns"]) + 1))
    for name, low, high in (("slow_mps", 0.2, 0.3), ("fast_mps", 3.5, 4.5), ("spray_s", 8.5, 9.5),
                            ("vacuum_mbar", 40.0, 140.0)):  # fmt: skip
        assert low < min(events[name]) < np.mean(events[name]) < max(events[name]) < high, name
    dose, biscuit = np.array(events["dose_kg"]), np.array(events["biscuit_mm"])
    assert np.corrcoef(dose, biscuit)[0, 1] > 0.999
    assert 1.0 < dose.min() < dose[biscuit < 19.0].max() < 1.2, "a short dose is why it is thin"
    signals = heard(one_cell(24, mtbf_s=1e9), Stretch.every(START, now))["process"]
    metal = np.array(signals["metal_c"])
    assert np.abs(metal - 670.0).max() < 5.0
    assert np.std(metal) == pytest.approx(0.73, rel=0.25)
    shoots = slice(signals["phase"].index(1), signals["phase"].index(1) + 4 * 3600)
    die, phase = np.array(signals["die_c"])[shoots], np.array(signals["phase"])[shoots]
    assert (phase > 0).mean() > 0.99
    assert 180.0 < die[3600:].min() < die.max() < 260.0
    assert die[phase == 5].mean() > die[phase == 8].mean() + 15.0, "hot with metal, cool with spray"
    locked = np.array(signals["locking_kn"])[shoots] > 0
    assert (locked == np.isin(phase, (3, 4, 5, 6))).all()


def logs(floor: Floor) -> list[Any]:
    """All that the machines logged up to now."""
    now, out = floor.env.now, list[Any]()
    times = START + 7 * NS_PER_S * np.arange((now - START) // (7 * NS_PER_S))
    for one in floor.units:
        assert isinstance(one, CastingCell | RobotArm)
        counts = [one.produced, one.scrap, one.state, one.maintenance, one.order]
        counts += [one.rework, one.first_pass] if isinstance(one, CastingCell) else [one.grip_lost]
        out += [steps.between(START, now) for steps in counts]
        out += [one.energy.at(times).tolist(), one.phases.follow(times)[0].tolist()]
    flow = floor.flow
    for steps in (flow.entered, flow.left, flow.scrapped, flow.age_ms):
        out.append(steps.between(START, now))
    return out


ROUGH = (device("casting_cell", "c", cycle_s=25.0, mtbf_s=3000.0, mttr_s=200.0, scrap_ratio=0.05,
                rework_ratio=0.5), device("robot_arm", "r", stop_ratio=0.1), AGV)  # fmt: skip
PAUSED = {"shift": [{"start": "08:00", "end": "16:00"}],
          "pause": [{"start": "10:00", "end": "10:20"}]}  # fmt: skip


def rough(network: str = "ethernet", hours: float = 0.0, more: Iterable[dict[str, Any]] = (),
          **plant: Any) -> Floor:  # fmt: skip
    return shop([*more, *ROUGH], hours=hours, network=network, calendar=PAUSED, quantity=150,
                dies=3, tools=2, seed=4, **plant)  # fmt: skip


@settings(deadline=None, max_examples=3)
@given(st.lists(st.integers(1, 6 * 3_600 * 1000 - 1), min_size=1, max_size=6, unique=True))
def test_a_run_split_anywhere_logs_the_same(cuts_ms: list[int]) -> None:
    cut = rough()
    for at_ms in sorted(cuts_ms):
        cut.run_to(START + at_ms * NS_PER_MS)
        flow, now = cut.flow, cut.env.now
        assert flow.entered.get(now) == flow.left.get(now) + flow.scrapped.get(now) + cut.wip()
    cut.run_to(START + 6 * HOUR)
    assert logs(cut) == logs(rough(hours=6))


def test_events_alone_or_with_samples_are_the_same() -> None:
    watched, alone = rough(hours=3), rough(hours=3)
    whole = Stretch.every(START, START + 3 * HOUR, None)
    pieces = [Stretch.every(START + n * HOUR // 6, START + (n + 1) * HOUR // 6) for n in range(18)]
    minutes = [replace(piece, times=piece.times[59::60]) for piece in pieces]
    for name, cut in (("c", minutes), ("r", pieces)):
        few, many = heard(find(alone, name), whole), heard(find(watched, name), *cut)
        told = np.array(few["process"].pop("t_ns"))
        unit = find(watched, name)
        energy = {"energy_kwh": (unit.energy.at(told) / 100_000).tolist()}
        troubles = {"protective_stop", "grip_lost"} if name == "r" else set()
        assert few["process"].keys() == energy.keys() | troubles, "what no event tells of"
        assert few["process"].items() >= energy.items()
        for stream in ("event", "state"):
            assert len(few[stream]["t_ns"]) > 10
            assert few[stream] == many[stream]


def test_another_device_changes_nothing() -> None:
    """A second cell whose containers nobody fetches, and an arm that gets none."""
    more = [device("casting_cell", "a", output_slots=1, mtbf_s=900.0)]
    before, after = rough(hours=0.4), rough(hours=0.4, more=more)
    for floor in (before, after):
        cell = find(floor, "c")
        assert len(cell.shots) > 20
    a, b = find(before, "c"), find(after, "c")
    assert list(a.shots) == list(b.shots)[: len(a.shots)]
    assert a.state.v == b.state.v


# The columns of a cell


def spec(**more: Any) -> CastingCellSpec:
    return CastingCellSpec(**device("casting_cell", "c", **more))


def taken(coming: Coming, *limits: Limits) -> list[Run]:
    return [coming.take(limit)[0] for limit in limits]


FAR = 10**15


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 40), max_size=12), st.integers(0, 99))
def test_shots_do_not_depend_on_how_far_one_looks_ahead(goods: list[int], seed: int) -> None:
    def made(steps: list[int]) -> list[tuple[Any, ...]]:
        coming = Coming(spec(), np.random.default_rng(seed))
        out: list[tuple[Any, ...]] = []
        for good in steps:
            wanted = good
            while wanted:
                run, broken = coming.take(Limits(FAR, FAR, FAR, wanted))
                assert broken is None
                out += list(zip(*(column.tolist() for column in run), strict=True))
                wanted -= int((~run.bad).sum())
        return out

    assert made(goods) == made([sum(goods)])


def test_a_run_of_shots_ends_at_its_first_limit() -> None:
    minute = 60 * NS_PER_S
    steady = spec(cycle_spread=0.0, short_dose_ratio=0.0, scrap_ratio=0.0)

    def count(*limits: int) -> tuple[int, int | None]:
        coming = Coming(steady, np.random.default_rng(1))
        run, broken = coming.take(Limits(*limits))
        return len(run.cycle_ns), broken

    assert count(10 * minute, FAR, FAR, 10**6) == (10, minute), "the eleventh begins, and breaks"
    assert count(10 * minute + 1, FAR, FAR, 10**6) == (10, minute)
    assert count(10 * minute - 1, FAR, FAR, 10**6) == (9, minute)
    assert count(0, FAR, FAR, 10**6) == (0, minute)
    assert count(FAR, 10 * minute, FAR, 10**6) == (10, None)
    assert count(FAR, 10 * minute + 1, FAR, 10**6) == (11, None)
    assert count(FAR, 1, FAR, 10**6) == (1, None)
    assert count(FAR, FAR, 10 * minute, 10**6) == (11, None)
    assert count(FAR, FAR, 0, 10**6) == (1, None)
    assert count(10 * minute, 10 * minute, FAR, 10**6) == (10, None), "it is serviced first"
    run = Coming(steady, np.random.default_rng(1)).take(Limits(FAR, FAR, FAR, 5))[0]
    assert (~run.bad).sum() == 5
    assert not run.bad[-1]


def test_a_cold_start_is_judged_again_from_there_on() -> None:
    coming = Coming(spec(short_dose_ratio=0.0), np.random.default_rng(3))
    first = coming.take(Limits(FAR, FAR, FAR, 300))[0]
    coming.restart()
    second = coming.take(Limits(FAR, FAR, FAR, 100))[0]
    assert second.number[:3].tolist() == [1, 2, 3]
    assert second.bad[:3].sum() >= 2
    assert len(first.number) == first.number[-1]


# Robot arm


def one_arm(hours: float = 12, network: str = "ethernet", faults: Sequence[Fault] = (),
            heartbeats: str = "drawn", **spec: Any) -> RobotArm:  # fmt: skip
    cells = [device("casting_cell", f"c{i}", cycle_s=20.0, mtbf_s=1e9, node="cell")
             for i in range(2)]  # fmt: skip
    devices = [*cells, device("robot_arm", "r", **spec), AGV, device("agv", "w")]
    floor = shop(devices, hours=hours, network=network, faults=faults, heartbeats=heartbeats)
    arm = find(floor, "r")
    assert isinstance(arm, RobotArm)
    return arm


def test_arm_cycles_are_uniform_with_some_protective_stops() -> None:
    arm = one_arm(stop_ratio=0.1, stop_s=40.0, grip_lost_ratio=0.0)
    took = np.array(arm.cycles.cycle_ms) / 1000
    assert len(took) > 1200
    plain = took[took < 24.1]
    assert took.min() >= 18.0
    assert plain.mean() == pytest.approx(21.0, abs=4 * 6 / math.sqrt(12 * len(plain)) + 0.01)
    stops = sum(1 for v in arm.state.v if v == PackML.HELD)
    assert near(stops / len(took), 0.1, len(took))
    assert near(1.0 - len(plain) / len(took), 0.1, len(took))
    assert near(arm.scrap.last / arm.produced.last, 0.003, arm.produced.last)


def test_a_lost_grip_costs_its_time_and_is_no_stop() -> None:
    arm = one_arm(24, stop_ratio=0.0)
    n, now = len(arm.cycles), arm.env.now
    lost = spells(arm.grip_lost, 1, now)
    assert near(len(lost) / n, 0.23, n)
    lasts_s = np.array([(b - a) / NS_PER_S for a, b in lost])
    assert np.mean(lasts_s) == pytest.approx(3.2, rel=4 / math.sqrt(len(lost)))
    took = np.array(arm.cycles.cycle_ms) / 1000
    assert took.mean() == pytest.approx(21.0 + 0.23 * 3.2, abs=0.2)
    in_cycles = lasts_s.sum() / took.sum()
    assert in_cycles == pytest.approx(0.033, abs=0.003)
    assert PackML.HELD not in arm.state.v
    starts = np.array([a for a, _ in lost])
    assert arm.phases.follow(starts - 1)[0].min() > 0
    assert not arm.phases.follow(starts)[0].any(), "it waits in its pose"


def test_an_arm_is_the_same_however_far_it_looks_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    outage = Outage(kind="outage", after=2400 * NS_PER_S, length=100 * NS_PER_S)
    for network, faults in (("wifi-loaded", ()), ("private-5g", (outage,))):
        told: list[Any] = []
        for ahead in (1, 64):
            monkeypatch.setattr(robot_arm, "_AHEAD", ahead)
            arm = one_arm(1.2, network, faults, heartbeats="sent")
            told.append((list(arm.cycles), arm.state.t, arm.state.v, arm.grip_lost.t))
            told[-1] = tuple(list(each) for each in told[-1])
        short = min(len(each[0]) for each in told)
        assert short > 130
        assert len({str(each[0][: short - 64]) for each in told}) == 1
        assert told[0][1:3] == told[1][1:3]


def test_an_outage_is_waited_for_and_the_request_is_sent_again() -> None:
    outage = Outage(kind="outage", after=5400 * NS_PER_S, length=600 * NS_PER_S)
    arm = one_arm(3, faults=(outage,))
    waits_s = np.array(arm.cycles.wait_us) / 1e6
    assert np.sort(waits_s)[-2] < 0.01
    assert 500.0 < waits_s.max() < 610.0
    at_ns = arm.cycles.end_ns[int(waits_s.argmax())]
    assert at_ns > START + 6000 * NS_PER_S
    assert arm.state.get(START + 5700 * NS_PER_S) == PackML.EXECUTE


TABLE = {  # p5, p50, p95 of the current in A, plateau of the winding in degC
    0: (-0.73, -0.08, 0.76, 37.2), 1: (-3.82, -2.24, -1.45, 40.4), 2: (-2.19, -1.08, -0.55, 40.8),
    3: (-1.43, -0.57, 0.07, 43.4), 4: (-0.93, -0.01, 0.83, 45.3), 5: (-0.21, 0.01, 0.21, 44.7),
}  # fmt: skip


@pytest.fixture(scope="module")
def arm_signals() -> dict[str, Any]:
    """Six hours at 1 Hz."""
    signals = heard(one_arm(6), Stretch.every(START, START + 6 * HOUR))["process"]
    return {name: np.array(values) for name, values in signals.items()}


@pytest.mark.parametrize("joint", range(JOINTS))
def test_a_joint_at_work_is_that_of_the_recording(joint: int, arm_signals: Any) -> None:
    works = arm_signals["phase"] > 0
    assert works.mean() > 0.5
    current = arm_signals[f"current_j{joint}_a"]
    *quantiles, plateau_c = TABLE[joint]
    assert np.percentile(current[works], (5, 50, 95)) == pytest.approx(quantiles, abs=0.06)
    speed = arm_signals[f"speed_j{joint}_radps"]
    assert np.abs(speed).max() <= (0.79, 0.62, 2.73, 1.36, 0.23, 1.63)[joint]
    assert not speed[~works].any()
    warm = arm_signals[f"temperature_j{joint}_c"]
    assert warm[0] < warm[-1] <= plateau_c
    assert plateau_c - warm[-1] < 0.35 * (plateau_c - warm[0])


def test_the_joint_that_carries_the_arm_is_never_near_zero_mean(arm_signals: Any) -> None:
    current = arm_signals["current_j1_a"]
    means = [np.mean(current[low : low + 600]) for low in range(0, len(current) - 600, 600)]
    assert max(means) < -1.5
    rest = current[arm_signals["phase"] == 0]
    assert np.mean(rest) == pytest.approx(-2.24, abs=0.01)


def test_a_winding_nears_what_its_mean_square_heats_it_to() -> None:
    """Cycle after cycle for half a day: with one constant, to the recording's plateau."""
    arm = one_arm(0.1)
    rng = np.random.default_rng(1)
    at_work = robot_arm._MEAN_A[1:], robot_arm._SPREAD_A[1:]
    phase = rng.choice(len(robot_arm.PHASES), 400_000, p=robot_arm._SHARE)
    drawn = at_work[0][phase] + at_work[1][phase] * rng.standard_normal((len(phase), JOINTS))
    assert np.mean(drawn**2, axis=0) == pytest.approx(robot_arm.WORK_A2, rel=0.02)
    goals = arm._windings._goals
    assert goals[:, 1] == pytest.approx([plateau for *_, plateau in TABLE.values()])
    assert (goals[:, 0] < goals[:, 1]).all()
    assert goals[1, 0] - 29.3 > 0.7 * (goals[1, 1] - 29.3), "J1 is warm though it stands"
    arm.phases.log(arm.env.now, np.full(2_000, 21 * NS_PER_S))
    begin = arm.env.now
    arm.reports(Stretch.every(START, begin, None))
    before = arm._windings.now_c.copy()
    values = arm._windings.follow(
        Stretch(begin, begin + 13 * 900 * NS_PER_S, begin + 900 * NS_PER_S * np.arange(1, 14))
    )
    for n in (1, 3, 9):
        wanted = goals[:, 1] + (before - goals[:, 1]) * math.exp(-900.0 * n / 2_700.0)
        assert values[:, n - 1] == pytest.approx(wanted)


def test_flags_of_an_arm_say_why_it_stands() -> None:
    arm = one_arm(6, stop_ratio=0.05)
    end = START + 6 * HOUR
    signals = heard(arm, Stretch.every(START, end))["process"]
    stops, lost = np.array(signals["protective_stop"]), np.array(signals["grip_lost"])
    assert (
        stops.sum()
        == sum(v in (PackML.HOLDING, PackML.HELD, PackML.UNHOLDING) for v in signals["state"])
        > 100
    )
    assert lost.sum() > 100
    assert not (stops & lost).any()
    assert not np.array(signals["phase"])[(stops | lost) > 0].any()


def test_another_tool_is_a_set_up() -> None:
    floor = shop([device("casting_cell", "c", cycle_s=20.0, mtbf_s=1e9),
                  device("robot_arm", "r", tool_change_s=200.0, stop_ratio=0.0), AGV],
                 hours=10, quantity=40, dies=4, tools=2)  # fmt: skip
    arm = find(floor, "r")
    resets = [b - a for a, b in spells(arm.state, PackML.RESETTING, floor.env.now)]
    assert resets.count(200 * NS_PER_S) == 3, "t0 is on the arm, then t1, t0 and t1"
    assert sorted(set(arm.psut_ns.v)) == [0, 200 * NS_PER_S]
    assert arm.produced.last > 150


def test_arm_energy_is_idle_power_but_for_cycles() -> None:
    arm = one_arm(4, grip_lost_ratio=0.0, stop_ratio=0.0)
    n = len(arm.cycles) // 2
    end_ns, cycle_ms, wait_us = arm.cycles.end_ns[n], arm.cycles.cycle_ms[n], arm.cycles.wait_us[n]
    moves_ms = cycle_ms - wait_us / 1000
    begin_ns = end_ns - round(moves_ms * NS_PER_MS)
    drawn = (arm.energy.get(end_ns) - arm.energy.get(begin_ns)) / 100_000
    assert drawn == pytest.approx(1.2 * moves_ms / 3_600_000, rel=0.005)
    assert arm.energy.get(START + 15 * NS_PER_S) == 500 * 15 * 100_000 // 3_600_000
