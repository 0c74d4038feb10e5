"""The truth of a shop of cells, arms and work units, against the edge and against its logs."""

from collections import defaultdict
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beilun.offline import Outcome, make_factory, run_offline
from config.scenario import Scenario, find_scenario
from config.units import NS_PER_S, parse_time
from config.windows import Every, Sliding
from edge import kpis
from edge.kpi import BY_SAMPLES as FLAGS
from ingest.messages import TruthRow
from ingest.packml import Maintenance, Mode, PackML
from simulator.device import Steps
from simulator.devices.work_unit import WorkUnit
from simulator.factory import Factory
from simulator.truth.windows import Area

START = parse_time("2026-01-05T00:00:00Z")
MINUTE = 60 * NS_PER_S
HOUR = 60 * MINUTE
KPIS = kpis.load()
BY_SAMPLES = ("delay_p", "within_", "clock_", "early_", "misses_")
"""What is known of samples or of their messages, and where none are taken of nothing."""
RISES = ("protective_stops", "grip_lost_events")

PLANT = """\
site = "shop"
warehouse = "store"
pieces_per_container = 6

[calendar]
shift = [{ start = "00:00", end = "24:00" }]
pause = [{ start = "00:25", end = "00:31" }]

[[node]]
name = "a"
x_m = 0.0
y_m = 0.0
[[node]]
name = "b"
x_m = 12.0
y_m = 0.0
[[node]]
name = "c"
x_m = 24.0
y_m = 0.0
[[node]]
name = "d"
x_m = 36.0
y_m = 0.0
[[node]]
name = "store"
x_m = 48.0
y_m = 0.0
[[edge]]
between = ["a", "b"]
[[edge]]
between = ["b", "c"]
[[edge]]
between = ["c", "d"]
[[edge]]
between = ["d", "store"]

[[product]]
name = "hinge"
step = [
  { operation = "cast", units = "cell", pri_s = 9.0, tool = "die1" },
  { operation = "trim", units = "arm", pri_s = 8.0 },
  { operation = "mill", units = "mill", pri_s = 8.0, tool = "jig1" },
  { operation = "wash", units = "wash", pri_s = 3.0 },
]
[[product]]
name = "knob"
planned_scrap_ratio = 0.2
step = [
  { operation = "mill", units = "mill", pri_s = 11.0, tool = "jig2" },
  { operation = "wash", units = "wash", pri_s = 3.0 },
]

[[order]]
number = 1
product = "hinge"
quantity = 400
[[order]]
number = 2
product = "knob"
quantity = 20
[[order]]
number = 3
product = "knob"
quantity = 30

[[device]]
kind = "casting_cell"
name = "cell"
area = "hot"
line = "one"
node = "a"
cycle_s = 8.0
warm_up_s = 20.0
reset_s = 5.0
[[device]]
kind = "robot_arm"
name = "arm"
area = "cold"
line = "one"
node = "b"
cycle_min_s = 6.0
cycle_max_s = 8.0
[[device]]
kind = "work_unit"
name = "mill"
area = "cold"
line = "two"
node = "c"
swap_s = 5.0
set_up_s = 90.0
scrap_ratio = 0.15
rework_ratio = 0.6
rework_s = 20.0
mtbf_s = 200.0
mttr_s = 60.0
maintain_every_h = 0.25
maintain_s = 75.0
[[device]]
kind = "work_unit"
name = "wash"
area = "cold"
line = "two"
node = "d"
fixtures = 4
swap_s = 4.0
mtbf_s = 900.0
mttr_s = 45.0
[[device]]
kind = "agv"
name = "agv1"
area = "cold"
line = "two"
node = "store"
charger = "store"
"""


def scenario(folder: Path, edge: str, telemetry: str = "1s") -> Scenario:
    (folder / "plant.toml").write_text(PLANT)
    (folder / "scenario.toml").write_text(f"""\
plant = "plant.toml"
network = "ethernet"
start = "2026-01-05T00:00:00Z"
length = "80m"
telemetry = "{telemetry}"
[edge]
{edge}
""")
    return find_scenario(folder / "scenario.toml")


@pytest.fixture(scope="module")
def seconds(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("seconds")
    chosen = scenario(folder, 'windows = ["10m", "1h", "30m/10m", "order"]')
    return run_offline(chosen, folder / "x.beilun")


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    made = make_factory(scenario(tmp_path_factory.mktemp("f"), 'windows = ["10m", "1h"]'), "r")
    for _ in made.chunks():
        pass
    return made


def compared(outcome: Outcome, *but: str, events: bool = False) -> dict[str, set[str]]:
    """By KPI the assets whose values agree as closely as the KPI says they do; ``events``: even how
    often a flag rose, which samples need not show."""
    rows = {
        ("/".join(r.asset), r.kpi, r.window_start_ns, r.window_length_ns): r.value
        for r in outcome.ending.rows
    }
    found: defaultdict[str, set[str]] = defaultdict(set)
    for true in outcome.truth:
        if true.kpi.startswith(but) or (but and "link_" in true.kpi):
            continue
        mine = rows[true[:4]]
        assert (mine is None) == (true.value is None), true
        accuracy = KPIS[true.kpi].accuracy if true.kpi in KPIS else None
        if mine is None or (accuracy and accuracy.cut_s != 0.0 and _is_cut(true)):
            continue
        if accuracy is FLAGS and not (events and true.kpi in RISES):
            continue
        relative = max(1e-9, accuracy.relative if accuracy else 0.0)
        absolute = 0.0084 if true.kpi.startswith("agv_battery") else 1e-12  # from state to state
        assert mine == pytest.approx(true.value, rel=relative, abs=absolute), true
        found[true.kpi].add(true.asset.rpartition("/")[2])
    return dict(found)


def _is_cut(row: TruthRow) -> bool:
    """Whether it lies where an order does, between samples."""
    return bool(row.window_length_ns % (10 * MINUTE) or row.window_start_ns % (10 * MINUTE))


def test_every_value_of_a_shop_is_what_the_edge_makes_of_seconds(seconds: Outcome) -> None:
    assert seconds.ending.account.closes
    agreed = compared(seconds)
    for kpi in ("oee", "nee", "scrap_ratio", "rework_ratio", "first_pass_yield", "failures", "mttr",
                "actual_to_planned_scrap", "corrective_maintenance_ratio", "setup_ratio",
                "energy_per_unit", "co2_per_unit", "throughput_rate", "order_number"):  # fmt: skip
        assert agreed[kpi] >= {"mill", "wash"}, kpi
    assert agreed["order_lead_time"] >= {"flow", "-"}
    assert agreed["oee"] == {"cell", "mill", "wash", "-"}
    assert {"agv_utilisation", "arm_cycle_time", "wip_age_days", "warm_up_scrap_ratio"} <= set(
        agreed
    )


def test_what_events_tell_is_known_without_samples(seconds: Outcome, tmp_path: Path) -> None:
    edge = 'windows = ["10m", "1h", "order"]\nlateness = "12h"\npane = "1m"'
    outcome = run_offline(scenario(tmp_path, edge, "events"), tmp_path / "x.beilun")
    assert outcome.ending.account.closes
    agreed = compared(outcome, *BY_SAMPLES, events=True)
    assert {"arm", "-"} <= agreed["protective_stops"] & agreed["grip_lost_events"]
    assert agreed["oee"] == {"cell", "mill", "wash", "-"}
    assert agreed["energy_per_unit"] == agreed["co2_per_unit"] == {"cell", "arm", "mill", "wash"}
    assert len(agreed) > 50
    same = {row[:4]: row.value for row in seconds.truth if not row.kpi.startswith(BY_SAMPLES)}
    there = [r for r in outcome.truth if r[:4] in same and "link_" not in r.kpi]
    assert len(there) > 2_000
    for row in there:
        if "/network/" not in row.asset:
            assert row.value == same[row[:4]], "the plant does the same, however it is looked at"


def test_a_work_unit_by_walking_through_its_log(factory: Factory) -> None:
    """Piece by piece and state by state, with one thing at a time."""
    truth = {row[:4]: row.value for row in factory.truth([Every(10 * MINUTE)])}
    floor = factory.floor
    made_at_all = 0
    for unit in (unit for unit in floor.units if isinstance(unit, WorkUnit)):
        logs = (unit.state, unit.mode, unit.maintenance, unit.order)
        plan = floor.calendar.steps(START, START + HOUR)
        for window in range(6):
            low, high = START + window * 10 * MINUTE, START + (window + 1) * 10 * MINUTE
            changes = {t for log in (*logs, plan) for t, _ in log.between(low, high)}
            cuts = sorted({low, high} | changes)
            busy = apt = 0
            for a, b in pairwise(cuts):
                state, mode, upkeep, number = (log.get(a) for log in logs)
                if plan.get(a):
                    busy += b - a
                    produces = (mode, upkeep) == (Mode.PRODUCTION, Maintenance.NONE)
                    apt += (b - a) * (produces and number > 0 and state == PackML.EXECUTE)
            made = scrap = rework = run_ns = 0
            allowed = Fraction(0)
            for t_ns in (t for t in unit.produced.t[1:] if low <= t < high):
                n = unit.produced.get(t_ns) - unit.produced.get(t_ns - 1)
                order = floor.dispatch.orders[unit.order.get(t_ns - 1)]
                made += n
                run_ns += n * unit.pri_ns.get(t_ns - 1)
                share = order.planned_scrap, order.quantity + order.planned_scrap
                allowed += n * Fraction(*share)
                scrap += unit.scrap.get(t_ns) - unit.scrap.get(t_ns - 1)
                rework += unit.rework.get(t_ns) - unit.rework.get(t_ns - 1)
            made_at_all += made

            def told(kpi: str, path: str = unit.path, at: int = low) -> float | None:
                return truth[path, kpi, at, 10 * MINUTE]

            assert told("availability") == pytest.approx(apt / busy)
            assert told("output") == made - scrap - rework
            if made:
                assert told("oee") == pytest.approx(run_ns / busy * (1 - (scrap + rework) / made))
                assert told("actual_to_planned_scrap") == pytest.approx(float(scrap / allowed))
    assert made_at_all > 100


def test_windows_of_the_network_are_whole_panes(factory: Factory) -> None:
    for kind in (Every(7 * NS_PER_S), Sliding(MINUTE, 15 * NS_PER_S)):
        with pytest.raises(ValueError, match="not whole panes"):
            factory.truth([kind])


@given(
    moves=st.lists(st.tuples(st.integers(1, 10**15), st.integers(0, 10**6)), min_size=1),
    cut=st.integers(0, 10**15),
)
@settings(max_examples=60, deadline=None)
def test_pieces_over_months_are_added_up_exactly(moves: list[tuple[int, int]], cut: int) -> None:
    """A hundred thousand pieces over a hundred days are more than 64 bits of nanoseconds."""
    log, t_ns, brute = Steps(0, 0), 0, 0
    for wait, value in moves:
        brute += wait * log.last
        t_ns += wait
        log.set(t_ns, value)
    end_ns = t_ns + cut
    brute += cut * log.last
    area = Area(0, end_ns, (log, lambda v: v))
    assert area(np.array([0, end_ns], dtype=np.int64)).tolist() == [0, brute]
