"""Telemetry spoilt on its way: what is sent, what the edge makes of it, and a truth that stays."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from beilun.offline import Outcome, make_factory, run_offline
from beilun.rehearsal import rehearse
from config.faults import FAULTS, DataFault, Fault
from config.scenario import Scenario, find_scenario
from config.units import NS_PER_S
from ingest.messages import Asset
from simulator.data_faults import COUNTERS, Said, Spoiler
from simulator.device import Columns, Stretch, VdaState, kinds
from simulator.factory import Made
from simulator.wire import Clock, Upset

START = 1_767_571_200 * NS_PER_S
MINUTE = 60 * NS_PER_S
ME = Asset("s", "a", "l", "m")
CASE: dict[str, Any] = {"length": "12m", "edge": {"windows": ["1m", "12m"]}}
WHILE = {"after": "4m10s", "length": "5m"}
ALWAYS = {"after": "0s", "length": "1h"}


# what is sent, by hand


def fault(kind: str, **settings: Any) -> DataFault:
    found = TypeAdapter(Fault).validate_python({"kind": kind, **settings})
    assert isinstance(found, DataFault)
    return found


def samples(first: int, n: int, **ch: Sequence[Any]) -> Columns:
    """Ten or so readings a second apart, sent with the last of them."""
    times = [START + (first + i) * NS_PER_S for i in range(n)]
    return Columns(ME, "process", times[-1], times, ch)


def spoil(reports: Sequence[Columns], *faults: DataFault, seed: int = 1) -> list[Said]:
    """What goes out of reports of 10 s panes, each a stretch of its own."""
    spoiler = Spoiler(ME, enumerate(faults), seed, START)
    out: list[Said] = []
    for report in reports:
        stretch = Stretch.every(report.t_ns[0] - NS_PER_S, report.t_ns[-1])
        out += spoiler.spoil([report], stretch)
    return out


def read(said: Sequence[Said], channel: str) -> list[Any]:
    return [v for s in said if isinstance(s.report, Columns) for v in s.report.ch[channel]]


PANES = [samples(1 + 10 * k, 10, a=range(10 * k, 10 * k + 10), b=[0.5] * 10) for k in range(6)]
"""A minute of a counter ``a``, which reads its second less one, and of a constant ``b``."""
TEN_TO_THIRTY = {"after": "10s", "length": "20s"}


def test_a_stuck_sensor_holds_its_last_value() -> None:
    said = spoil(PANES, fault("stuck", channel="a", **TEN_TO_THIRTY))
    assert read(said, "a") == [*range(9), *[8] * 20, *range(29, 60)]
    assert read(said, "b") == [0.5] * 60


def test_a_drift_grows_with_time_and_is_put_right() -> None:
    said = spoil(PANES, fault("drift", channel="b", per_h=360.0, **TEN_TO_THIRTY))
    drifted = [round(0.5 + 0.1 * k, 6) for k in range(20)]
    assert read(said, "b") == [*[0.5] * 9, *drifted, *[0.5] * 31]
    assert read(said, "a") == list(range(60))


@pytest.mark.parametrize("kind", ["spike", "dropout"])
def test_a_share_of_readings_is_spoilt_and_the_rest_is_as_it_was(kind: str) -> None:
    panes = [samples(1 + 10 * k, 10, a=[7] * 10, b=[0.5] * 10) for k in range(1_000)]
    said = spoil(panes, fault(kind, channel="a", ratio=0.3, **ALWAYS))
    found = Counter(read(said, "a"))
    bad: set[int | None] = {65_534, 0, 1_449} if kind == "spike" else {None}
    assert set(found) == bad | {7}
    # The fault lasts an hour: of 3,599 readings 1,080 on average, four deviations either way.
    assert sum(found[v] for v in bad) == pytest.approx(1_080, abs=4 * (3_600 * 0.21) ** 0.5)
    for value in bad:
        assert found[value] == pytest.approx(1_080 / len(bad), abs=120)


def test_lost_messages_leave_no_trace_but_a_silence() -> None:
    panes = [samples(1 + 10 * k, 10, a=[k] * 10) for k in range(360)]
    said = spoil(panes, fault("dropout", of="messages", ratio=0.5, **ALWAYS))
    kept = [s.report for s in said]
    assert 130 < len(kept) < 230
    assert kept == [p for p in panes if p in kept], "those that are left are untouched"


def test_a_counter_wraps_at_its_modulus() -> None:
    said = spoil(PANES, fault("counter_rollover", channel="a", modulus=16, **ALWAYS))
    assert read(said, "a") == [n % 16 for n in range(60)]


@given(
    st.lists(st.tuples(st.integers(1, 500), st.integers(0, 500)), max_size=4),
    st.lists(st.floats(0, 1), min_size=2, max_size=2),
    st.integers(1, 100),
)
@settings(max_examples=50, deadline=None)
def test_blocks_change_nothing(spans: list[tuple[int, int]], ratios: list[float], cut: int) -> None:
    """However a run is cut into stretches, what is spoilt is the same."""
    panes = [samples(1 + 10 * k, 10, a=range(10 * k, 10 * k + 10)) for k in range(60)]
    kinds_ = ("stuck", "spike", "dropout", "duplicate", "reorder", "reboot")
    faults = [
        fault(
            kind, after=f"{after}s", length=f"{length}s",
            **({"channel": "a"} if kind in ("stuck", "spike", "dropout") else {}),
            **({"ratio": max(ratios[0], 0.01)} if kind not in ("stuck", "reboot") else {}),
        )
        for kind, (length, after) in zip(kinds_, spans, strict=False)
    ]  # fmt: skip

    def run(size: int) -> list[Said]:
        spoiler = Spoiler(ME, enumerate(faults), 1, START)
        out: list[Said] = []
        for low in range(0, len(panes), size):
            some = panes[low : low + size]
            stretch = Stretch.every(some[0].t_ns[0] - NS_PER_S, some[-1].t_ns[-1])
            out += spoiler.spoil(some, stretch)
        return out

    assert run(1) == run(cut)


def test_another_fault_or_device_changes_no_draw() -> None:
    one = fault("spike", channel="a", ratio=0.5, **ALWAYS)
    other = fault("dropout", channel="b", ratio=0.5, **ALWAYS)
    assert read(spoil(PANES, one), "a") == read(spoil(PANES, one, other), "a")
    assert read(spoil(PANES, one), "a") != read(spoil(PANES, one, seed=2), "a")


def test_what_is_sent_twice_has_one_number_and_what_is_held_back_too() -> None:
    twice = spoil(PANES, fault("duplicate", ratio=1.0, **TEN_TO_THIRTY))
    assert [s.again for s in twice] == [False, True, False, True, *[False] * 4]
    held = spoil(PANES, fault("reorder", ratio=1.0, window="15s", **ALWAYS))
    assert all(0 < s.goes_ns - s.said_ns <= 15 * NS_PER_S for s in held)
    assert [s.report for s in held] == PANES


def test_a_reboot_begins_anew_and_loses_what_was_not_sent() -> None:
    """Down from 25 s to 42 s: of the pane under way nothing is left, and ``produced`` counts from
    what it was at 25 s."""
    panes = [samples(1 + 10 * k, 10, produced=range(10 * k, 10 * k + 10)) for k in range(6)]
    spoiler = Spoiler(ME, [(0, fault("reboot", after="25s", length="17s"))], 1, START)
    first = Columns(ME, "process", START, (START,), {"produced": (0,)})
    assert [s.report for s in spoiler.first([first])] == [first]
    said = spoiler.spoil(panes, Stretch.every(START, START + MINUTE))
    assert [(s.boot, (s.goes_ns - START) // NS_PER_S, s.report is None) for s in said] == [
        (1, 10, False), (1, 20, False), (2, 42, True), (2, 42, False), (2, 50, False),
        (2, 60, False),
    ]  # fmt: skip
    assert read(said, "produced") == [*range(20), 17, *range(17, 26), *range(26, 36)]
    assert [s.until_heard for s in said] == [False, False, True, True, False, False]


def test_bundles_lose_what_happened_while_it_was_down() -> None:
    events = Columns(ME, "event", START + MINUTE, [START + t * NS_PER_S for t in (5, 30, 50)],
                     {"produced": (1, 2, 3)})  # fmt: skip
    spoiler = Spoiler(ME, [(0, fault("reboot", after="25s", length="17s"))], 1, START)
    said = spoiler.spoil([events], Stretch.every(START, START + MINUTE, None))
    assert [(s.boot, s.goes_ns - START) for s in said if s.report is not None] == [
        (1, 25 * NS_PER_S - 1), (2, MINUTE),
    ]  # fmt: skip
    assert read(said, "produced") == [1, 2]


@given(st.floats(-1e5, 1e5), st.integers(0, 10**12), st.integers(1, 10**13))
def test_a_skewed_clock_gains_its_rate_and_never_runs_back(ppm: float, a: int, d: int) -> None:
    clock = Clock([Upset(0, 10**14, rate_ppm=ppm)])
    assert clock.reads(a) - a == pytest.approx(a * ppm / 1e6, abs=1)
    assert clock.reads(a + d) >= clock.reads(a)


def test_counters_are_what_counts_up() -> None:
    known = {channel for kind in kinds().values() for channel in kind.channels}
    assert known >= COUNTERS - {"first_pass", "rework", "inspected", "spark_faults"}


def test_settings_that_mean_nothing_are_refused() -> None:
    wrong: tuple[dict[str, Any], ...] = (
        {"kind": "dropout", "of": "messages", "channel": "die_c"},
        {"kind": "spike", "channel": "a", "values": []},
        {"kind": "duplicate", "ratio": 0.0},
        {"kind": "stuck"},
    )
    for broken in wrong:
        with pytest.raises(ValueError, match="validation error"):
            TypeAdapter(Fault).validate_python({**WHILE, **broken})
    assert {kind for kind, model in FAULTS.items() if issubclass(model, DataFault)} == {
        "clock_step", "clock_skew", "stuck", "drift", "spike", "dropout", "duplicate", "reorder",
        "counter_rollover", "reboot",
    }  # fmt: skip


# what the edge makes of it


def case(*faults: Mapping[str, Any]) -> Scenario:
    return find_scenario("quickstart", changes={**CASE, "fault": list(faults)})


Rows = dict[tuple[str, str, int, int], float | None]
WAY = ("delay", "within_", "clock_skew", "early_")
"""KPIs of the way of an asset's messages."""


class Run:
    """A run, its rows, and the names of its devices by kind."""

    def __init__(self, scenario: Scenario, path: Path) -> None:
        self.outcome: Outcome = run_offline(scenario, path)
        self.rows: Rows = {
            (r.asset.name, r.kpi, r.window_start_ns, r.window_length_ns): r.value
            for r in self.outcome.ending.rows
        }

    def of(self, name: str, window_ns: int = 12 * MINUTE) -> dict[tuple[str, int], float | None]:
        """Rows of an asset, but those about the way of its messages."""
        return {
            (kpi, start_ns): value
            for (asset, kpi, start_ns, length_ns), value in self.rows.items()
            if asset == name and length_ns == window_ns and not kpi.startswith((*WAY, "service_"))
        }


COUNTED = ("output", "scrap_ratio", "rework_ratio", "first_pass_yield", "throughput_rate")


def counted(rows: Mapping[tuple[str, int], float | None]) -> dict[tuple[str, int], float | None]:
    return {key: value for key, value in rows.items() if key[0] in COUNTED}


@pytest.fixture(scope="module")
def names() -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for device in make_factory(case(), "r").floor.plant.device:
        found[device.kind].append(device.name)
    return found


@pytest.fixture(scope="module")
def runs(names: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("spoilt")
    a, b, c, d = names["casting_cell"][:4]
    arm, other, *_ = names["robot_arm"]
    (line,), agv = names["cable_line"][:1], names["agv"][0]
    faults: dict[str, list[dict[str, Any]]] = {
        "calm": [],
        "messages": [
            {"kind": "duplicate", "asset": a, "ratio": 0.5, **WHILE},
            {"kind": "duplicate", "asset": agv, "ratio": 0.5, **WHILE},
            {"kind": "reorder", "asset": b, "ratio": 0.5, "window": "15s", **WHILE},
            {"kind": "reboot", "asset": c, "after": "8m3s", "length": "20s"},
            {"kind": "counter_rollover", "asset": d, "channel": "produced", "modulus": 5, **ALWAYS},
            {
                "kind": "counter_rollover",
                "asset": line,
                "channel": "length_m",
                "modulus": 9.5,
                **ALWAYS,
            },
            {
                "kind": "counter_rollover",
                "asset": line,
                "channel": "energy_kwh",
                "modulus": 0.5,
                **WHILE,
            },
            {"kind": "dropout", "asset": arm, "of": "messages", "ratio": 0.3, **WHILE},
            {"kind": "clock_skew", "asset": other, "rate_ppm": 100.0, **WHILE},
            {"kind": "reboot", "asset": names["agv"][-1], "after": "8m3s", "length": "20s"},
        ],
        "readings": [
            {"kind": "stuck", "asset": a, "channel": "produced", **WHILE},
            {"kind": "dropout", "asset": b, "ratio": 0.3, **WHILE},
            {"kind": "spike", "asset": c, "channel": "produced", "ratio": 0.05, **WHILE},
            {"kind": "drift", "asset": line, "channel": "diameter_mm", "per_h": 3.0, **WHILE},
            {"kind": "spike", "asset": d, "channel": "biscuit_mm", "ratio": 0.5, **WHILE},
        ],
        "registers": [
            {
                "kind": "counter_rollover",
                "asset": a,
                "channel": "produced",
                "modulus": 5,
                "announced": False,
                **ALWAYS,
            },
            {
                "kind": "spike",
                "asset": b,
                "channel": "produced",
                "ratio": 0.3,
                "values": [4_294_967_295, -1],
                "announced": True,
                **WHILE,
            },
        ],
    }
    return {name: Run(case(*each), folder / f"{name}.beilun") for name, each in faults.items()}


@pytest.mark.parametrize("name", ["messages", "readings", "registers"])
def test_the_truth_is_the_same_and_the_ledger_closes(name: str, runs: dict[str, Run]) -> None:
    def plant(run: Run) -> list[Any]:
        return [
            row
            for row in run.outcome.truth
            if "/network/" not in row.asset and not row.kpi.startswith(WAY)
        ]

    assert plant(runs[name]) == plant(runs["calm"])
    account = runs[name].outcome.ending.account
    assert account.closes
    assert account.ended
    assert account.made == account.lost.total() + account.delivered


def test_duplicates_are_counted_and_change_nothing(
    runs: dict[str, Run], names: dict[str, list[str]]
) -> None:
    assert runs["messages"].outcome.ending.account.ledger.duplicate > 20
    for name in (names["casting_cell"][0], names["agv"][0]):
        for window_ns in (MINUTE, 12 * MINUTE):
            assert runs["messages"].of(name, window_ns) == runs["calm"].of(name, window_ns)


def test_order_of_arrival_changes_nothing(
    runs: dict[str, Run], names: dict[str, list[str]]
) -> None:
    name = names["casting_cell"][1]
    for window_ns in (MINUTE, 12 * MINUTE):
        assert runs["messages"].of(name, window_ns) == runs["calm"].of(name, window_ns)
    assert runs["messages"].outcome.ending.account.ledger.late > 0


def test_a_reboot_costs_no_piece(runs: dict[str, Run], names: dict[str, list[str]]) -> None:
    name = names["casting_cell"][2]
    spoilt, calm = runs["messages"].of(name), runs["calm"].of(name)
    assert counted(spoilt) == counted(calm)
    assert counted(calm)
    # Energy of a pane that was sampled and not sent, at 60 kW: 0.17 kWh over all pieces.
    key = next(key for key in calm if key[0] == "energy_per_unit")
    before, after = calm[key], spoilt[key]
    assert before is not None
    assert after is not None
    assert before - 0.17 < after <= before
    moved = names["agv"][-1]
    key = next(key for key in runs["calm"].of(moved) if key[0] == "agv_utilisation")
    assert runs["messages"].of(moved)[key] == pytest.approx(runs["calm"].of(moved)[key], abs=0.05)


def test_a_rollover_that_is_announced_costs_nothing(
    runs: dict[str, Run], names: dict[str, list[str]]
) -> None:
    """Pieces, and metres and energy that go round several times a minute; the truth is the same."""
    for name in (names["casting_cell"][3], names["cable_line"][0]):
        for window_ns in (MINUTE, 12 * MINUTE):
            assert runs["messages"].of(name, window_ns) == runs["calm"].of(name, window_ns)


def test_a_rollover_that_nobody_told_of_stops_the_count_until_it_is_exceeded(
    runs: dict[str, Run], names: dict[str, list[str]]
) -> None:
    """Within one start a reading below one that is known was stamped by a clock that stepped, so
    nothing is counted beyond the last reading before the wrap: four of the pieces."""
    name = names["casting_cell"][0]
    key = next(key for key in runs["calm"].of(name) if key[0] == "throughput_rate")
    spoilt, calm = runs["registers"].of(name)[key], runs["calm"].of(name)[key]
    assert spoilt is not None
    assert calm is not None
    assert calm * 12 / 60 > 4
    assert spoilt * 12 / 60 == pytest.approx(4)


@pytest.mark.parametrize(("kind", "n"), [("robot_arm", 0), ("robot_arm", 1)])
def test_a_counter_catches_up_after_silence_and_skew(
    kind: str, n: int, runs: dict[str, Run], names: dict[str, list[str]]
) -> None:
    name = names[kind][n]
    assert counted(runs["messages"].of(name)) == counted(runs["calm"].of(name))


def test_a_clock_gains_what_its_rate_says(
    runs: dict[str, Run], names: dict[str, list[str]]
) -> None:
    """100 ppm over five minutes: 30 ms, less the delay of the message that tells it."""
    name = names["robot_arm"][1]
    found = {
        run: max(v for (asset, kpi, _, length), v in runs[run].rows.items()
                 if asset == name and kpi == "clock_skew" and length == MINUTE and v is not None)
        for run in ("calm", "messages")
    }  # fmt: skip
    assert found["calm"] < 1
    assert 10 < found["messages"] < 30


@pytest.mark.parametrize("n", [0, 1])
def test_a_stuck_or_blank_counter_is_made_up_for(
    n: int, runs: dict[str, Run], names: dict[str, list[str]]
) -> None:
    name = names["casting_cell"][n]
    assert counted(runs["readings"].of(name)) == counted(runs["calm"].of(name))
    spoilt, calm = (
        {key: v for key, v in runs[run].of(name, MINUTE).items() if key[0] == "output"}
        for run in ("readings", "calm")
    )
    assert (spoilt != calm) == (n == 0), "only the stuck one is wrong meanwhile"


def test_a_sentinel_that_is_announced_is_a_blank(
    runs: dict[str, Run], names: dict[str, list[str]]
) -> None:
    name = names["casting_cell"][1]
    assert counted(runs["registers"].of(name)) == counted(runs["calm"].of(name))


def test_another_sentinel_is_believed(runs: dict[str, Run], names: dict[str, list[str]]) -> None:
    """Nobody tells the edge what a channel cannot read, so 65,534 pieces are 65,534 pieces."""
    name = names["casting_cell"][2]
    output = next(v for (kpi, _), v in runs["readings"].of(name).items() if kpi == "output")
    assert output is not None
    assert 60_000 < output < 65_534


def test_a_drift_and_a_spike_of_a_gauge_touch_its_own_kpis_only(
    runs: dict[str, Run], names: dict[str, list[str]]
) -> None:
    for name, prefix in (
        (names["cable_line"][0], "diameter_"),
        (names["casting_cell"][3], "biscuit_"),
    ):
        spoilt, calm = runs["readings"].of(name), runs["calm"].of(name)
        wrong = {kpi for (kpi, _), v in calm.items() if spoilt[kpi, START] != v}
        assert wrong
        assert all(kpi.startswith(prefix) for kpi in wrong)
        worse = (prefix + "cmk", START)
        a, b = spoilt[worse], calm[worse]
        assert a is not None
        assert b is not None
        assert a < b


# numbers on the wire


def sent(*faults: Mapping[str, Any]) -> list[Made]:
    factory = make_factory(case(*faults), "r")
    made = [m for chunk in factory.chunks() for m in chunk.made]
    for account in factory.ledger().values():
        assert account.made == account.published + sum(account.lost.values())
    return made


def stamps(made: Made) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(made.payload)["x_beilun"]
    return found


def test_numbers_are_those_of_when_a_message_was_made(names: dict[str, list[str]]) -> None:
    """Held back and sent twice: each number stands for the same message as in the calm run."""
    name = names["casting_cell"][0]
    plain, spoilt = (
        [m for m in sent(*faults) if m.topic.split("/")[-2] == name and m.conn != "mes"]
        for faults in (
            [],
            [{"kind": "reorder", "asset": name, "ratio": 0.5, **WHILE},
             {"kind": "duplicate", "asset": name, "ratio": 0.5, **WHILE}],
        )
    )  # fmt: skip
    bodies: dict[int, bytes] = {stamps(m)["seq"]: m.payload.split(b',"x_beilun"')[0] for m in plain}
    found = Counter(stamps(m)["seq"] for m in spoilt)
    assert set(found) == set(bodies)
    assert set(found.values()) == {1, 2}
    assert all(m.payload.split(b',"x_beilun"')[0] == bodies[stamps(m)["seq"]] for m in spoilt)
    order = [stamps(m)["seq"] for m in spoilt]
    assert order != sorted(order)
    assert [stamps(m)["seq"] for m in plain] == sorted(bodies)


def test_a_new_start_has_a_new_boot_and_a_new_birth(names: dict[str, list[str]]) -> None:
    name = names["casting_cell"][0]
    made = [
        m for m in sent({"kind": "reboot", "asset": name, "after": "5m", "length": "20s"})
        if m.topic.split("/")[-2] == name and m.conn != "mes"
    ]  # fmt: skip
    by_boot: defaultdict[int, list[Made]] = defaultdict(list)
    for m in made:
        by_boot[stamps(m)["boot"]].append(m)
    assert set(by_boot) == {1, 2}
    for boot, own in by_boot.items():
        assert own[0].topic.endswith("/birth")
        assert own[0].retain
        assert stamps(own[0])["seq"] == 1, boot
    numbers = [stamps(m)["seq"] for m in by_boot[2]]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    silent = np.array([stamps(m)["sent_ns"] - START for m in made]) / MINUTE
    assert not ((silent >= 5) & (silent < 5 + 20 / 60)).any()


def test_a_fault_that_finds_nothing_is_named() -> None:
    notes = rehearse(case(
        {"kind": "stuck", "asset": "nobody", "channel": "die_c", **WHILE},
        {"kind": "spike", "channel": "no_such_*", **WHILE},
        {"kind": "reboot", "after": "1h", "length": "1s"},
        {"kind": "duplicate", **WHILE},
    ))  # fmt: skip
    assert [note.split(" ", 3)[1] for note in notes] == ["#1", "#2", "#3"]


def test_vehicles_have_no_channels_and_keep_their_states() -> None:
    state = VdaState(
        ME, START + 5, "", "n", 0, (), 0, 0, False, False, "", False, False,
        0.0, 0.0, 0.0, 0.0, 0.0, 0.9, 53.0,
    )  # fmt: skip
    spoiler = Spoiler(ME, [(0, fault("stuck", channel="*", **ALWAYS))], 1, START)
    assert [s.report for s in spoiler.spoil([state], Stretch.every(START, START + MINUTE))] == [
        state
    ]
