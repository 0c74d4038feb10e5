"""The promises of the design, held on a short run of the quickstart factory without a broker."""

import json
import random
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beilun.commands.replay import replay
from beilun.composing import edge_header, policy_of, scenario_header
from beilun.offline import make_factory, run_offline
from config.scenario import Scenario, find_scenario
from edge import kpis
from edge.kpi import BY_SAMPLES
from edge.pipeline import Pipeline
from edge.rows import Row, digest
from edge.store import RowStore
from ingest.decode import Decoder
from ingest.recording import Recording
from ingest.subscribe import Received

KPIS = kpis.load()

RUN = "a-run"


def scenario(length: str = "10m") -> Scenario:
    return find_scenario("quickstart", changes={"length": length})


def messages(chosen: Scenario, run: str = RUN) -> list[Received]:
    """Everything a run publishes, in order."""
    made = make_factory(chosen, run)
    out: list[Received] = []
    for chunk in made.chunks():
        out += [Received(i.topic, i.payload, 0, False, (0, 0)) for i in chunk.in_order()]
    return out


def pipeline(path: Path, chosen: Scenario, run: str = RUN) -> tuple[Recording, RowStore, Pipeline]:
    recording = Recording.create(path)
    recording.set_meta({**scenario_header(chosen, run), "edge": edge_header(chosen.edge)})
    store = RowStore(recording)
    store.prepare()
    return recording, store, Pipeline(
        recording, Decoder(), policy_of(chosen.edge), run, store.write
    )  # fmt: skip


def groups(items: Sequence[Received], size: int) -> Iterable[Sequence[Received]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def rows_of(
    path: Path, items: Sequence[Received], size: int = 200, run: str = RUN
) -> tuple[list[Row], Pipeline]:
    """Rows an edge makes of messages that come in groups."""
    recording, store, pipe = pipeline(path, scenario(), run)
    with recording:
        for group in groups(items, size):
            pipe.take(group)
        pipe.finish()
        return list(store.rows()), pipe


@pytest.fixture(scope="module")
def published() -> list[Received]:
    return messages(scenario())


@pytest.fixture(scope="module")
def straight(published: list[Received], tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    rows, pipe = rows_of(tmp_path_factory.mktemp("straight") / "a.beilun", published)
    account = pipe.account()
    assert account.closes
    assert pipe.complete
    assert account.made == pipe.messages
    return rows


def test_two_runs_of_one_seed_give_the_same_rows(straight: list[Row], tmp_path: Path) -> None:
    rows, _ = rows_of(tmp_path / "b.beilun", messages(scenario(), "other"), run="other")
    assert digest(rows) == digest(straight)


@pytest.mark.parametrize("size", [1, 37, 100_000])
def test_it_does_not_matter_how_messages_are_grouped(
    size: int, straight: list[Row], published: list[Received], tmp_path: Path
) -> None:
    rows, _ = rows_of(tmp_path / "b.beilun", published, size)
    assert digest(rows) == digest(straight)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32), twice=st.integers(0, 300), size=st.sampled_from([150, 1_000]))
def test_any_order_and_repetition_gives_the_same_rows(
    seed: int,
    twice: int,
    size: int,
    straight: list[Row],
    published: list[Received],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    dice = random.Random(seed)
    shuffled = [*published, *dice.sample(published, twice)]
    dice.shuffle(shuffled)
    rows, pipe = rows_of(tmp_path_factory.mktemp("any") / "b.beilun", shuffled, size)
    assert digest(rows) == digest(straight)
    assert pipe.account().closes


def test_replay_gives_the_rows_of_the_live_run(
    straight: list[Row], published: list[Received], tmp_path: Path
) -> None:
    live, _ = rows_of(tmp_path / "b.beilun", published, 64)
    with Recording.open(tmp_path / "b.beilun") as recording:
        rows, pipe = replay(recording)
    assert digest(rows) == digest(live) == digest(straight)
    assert pipe.account().closes


@pytest.mark.parametrize("at", [1, 300, 700])
def test_a_killed_edge_goes_on_where_its_journal_ends(
    at: int, straight: list[Row], published: list[Received], tmp_path: Path
) -> None:
    path = tmp_path / "b.beilun"
    recording, _, pipe = pipeline(path, scenario())
    for group in groups(published[:at], 50):
        pipe.take(group)
    recording.db.close()  # no drain, no finish: as if killed
    recording, store, pipe = pipeline(path, scenario())
    with recording:
        pipe.resume()
        confirmed = pipe.seen.all()
        assert sum(confirmed.values()) <= at
        for group in groups(published[max(0, at - 120) :], 50):  # the publisher sends again
            pipe.take(group)
        pipe.finish()
        assert digest(store.rows()) == digest(straight)
        assert pipe.account().closes


def test_another_runs_messages_change_nothing(
    straight: list[Row], published: list[Received], tmp_path: Path
) -> None:
    foreign = messages(scenario("1m"), "yesterday")
    rows, pipe = rows_of(tmp_path / "b.beilun", [*foreign, *published])
    assert digest(rows) == digest(straight)
    account = pipe.account()
    assert account.ledger.rejected["other_run"] > 0
    assert account.closes


GARBAGE = [
    ("beilun/v1/ningbo/casting/line1/dcm01/process", b"\xff\x00garbage", "not_json"),
    ("beilun/v1/ningbo/casting/line1/dcm01/process", b'{"t_ns": "noon", "ch": {}}', "bad_shape"),
    (
        "beilun/v1/ningbo/casting/line1/dcm01/process",
        b'{"t_ns": 1767571200000000000, "ch": {"state": [NaN]}}',
        "not_json",
    ),
    (
        "beilun/v1/ningbo/casting/line1/dcm01/process",
        b'{"t_ns": 1767571200000000000, "ch": {"state": [1e999]}}',
        "bad_shape",
    ),
    (
        "beilun/v1/ningbo/casting/line1/dcm01/process",
        b'{"t_ns": 5, "ch": {"a": [1]}}',
        "absurd_time",
    ),
    (
        "beilun/v1/ningbo/casting/line1/dcm01/process",
        b'{"t_ns": 99999999999999999999, "ch": {"a": [1]}}',
        "bad_shape",
    ),
    ("beilun/v1/ningbo/casting/line1/dcm01/nonsense", b'{"t_ns": 5, "ch": {}}', "unknown_topic"),
    ("beilun/v1/ningbo/casting/line1/dcm01/process", b"x" * 1_000_000, "too_large"),
    ("uagv/v2/beilun/agv01/state", b"[]", "bad_shape"),
    ("somewhere/else", b"{}", "unknown_topic"),
]


def test_garbage_is_refused_with_a_reason_and_kept(
    straight: list[Row], published: list[Received], tmp_path: Path
) -> None:
    mixed = list(published)
    for place, (topic, payload, _) in enumerate(GARBAGE):
        mixed.insert(place * 50, Received(topic, payload, 10**18, False, (0, 0)))
    rows, pipe = rows_of(tmp_path / "b.beilun", mixed)
    assert digest(rows) == digest(straight)
    account = pipe.account()
    assert account.closes
    assert sorted(account.unusable.elements()) == sorted(reason for _, _, reason in GARBAGE)
    with Recording.open(tmp_path / "b.beilun") as recording:
        kept = recording.db.execute("SELECT reason, length(head), size FROM reject").fetchall()
    assert sorted(reason for reason, _, _ in kept) == sorted(reason for _, _, reason in GARBAGE)
    assert max(size for _, _, size in kept) == 1_000_000
    assert max(length for _, length, _ in kept) <= 512


def test_every_kpi_is_what_the_simulator_knows(tmp_path: Path) -> None:
    """Nothing is lost or late here, so event and counter KPIs must be exact, in every window."""
    outcome = run_offline(scenario("2h"), tmp_path / "b.beilun")
    rows = {
        ("/".join(r.asset), r.kpi, r.window_start_ns, r.window_length_ns): r.value
        for r in outcome.ending.rows
    }
    truth = outcome.truth
    assert {t.kpi for t in truth} >= {
        "nee", "mtbf", "rework_ratio", "worker_efficiency", "wip_age_days", "biscuit_cpk",
        "oee", "availability", "effectiveness", "quality_ratio", "output", "line_speed",
        "energy_per_unit", "energy_per_metre", "arm_cycle_time", "agv_utilisation",
        "wip_turnover_days", "throughput", "delay_p50", "within_10ms", "radio_delay",
    }  # fmt: skip
    wrong = [(t, rows.get(t[:4])) for t in truth if not same(t.kpi, rows.get(t[:4]), t.value)]
    assert not wrong, wrong[:5]


ROUGH: dict[str, dict[str, Any]] = {
    "casting_cell": {
        "mtbf_s": 900.0, "mttr_s": 120.0, "abort_ratio": 0.5, "maintain_every_h": 0.3,
        "maintain_s": 200.0, "die_change_s": 200.0, "scrap_ratio": 0.15, "rework_ratio": 0.6,
    },
    "cable_line": {"mtbf_s": 500.0, "spark_faults_per_km": 3.0, "reel_m": 700.0},
}  # fmt: skip


def test_every_kpi_is_what_the_simulator_knows_where_everything_goes_wrong(tmp_path: Path) -> None:
    """Breakdowns, repairs, services, die changes, rework, short orders and losses on the way."""
    plant = tomllib.loads((files("config") / "plants" / "quickstart.toml").read_text())
    for each in plant["device"]:
        each.update(ROUGH.get(each["kind"], {}))
    for order in plant["order"]:
        order["quantity"] = 1_500 if order["unit"] == "cl01" else 12
    file = tmp_path / "rough.toml"
    file.write_text(_toml({**plant, "transport_loss_ratio": 0.1}))
    chosen = find_scenario("quickstart", changes={"length": "75m", "plant": str(file)})
    outcome = run_offline(chosen, tmp_path / "b.beilun")
    rows = {
        ("/".join(r.asset), r.kpi, r.window_start_ns, r.window_length_ns): r.value
        for r in outcome.ending.rows
    }
    truth = outcome.truth
    wrong = [(t, rows.get(t[:4])) for t in truth if not same(t.kpi, rows.get(t[:4]), t.value)]
    assert not wrong, wrong[:5]
    said = {t.kpi for t in truth if t.value}
    assert said >= {
        "failures", "mttr", "corrective_maintenance_ratio", "rework_ratio", "wip_age_days",
        "storage_loss_ratio", "other_loss_ratio", "spark_faults_per_km", "agv_waiting_ratio",
    }  # fmt: skip


def _toml(tables: Mapping[str, Any]) -> str:
    """Tables as TOML, inline below the first level: strings and numbers are as in JSON."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k} = {text(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(text, value)) + "]"
        return json.dumps(value)

    return "".join(f"{key} = {text(value)}\n" for key, value in tables.items())


def same(kpi: str, mine: float | None, true: float | None) -> bool:
    """Equal to nine digits, a quantile to its bins' half per cent; no value only where none is. Of
    a flag that is sampled any value is as good as another: its KPI says so."""
    if mine is None or true is None:
        return mine is true
    if KPIS[kpi].accuracy is BY_SAMPLES:
        return True
    near = 5e-3 if "delay_p" in kpi or kpi == "clock_skew" else 1e-9
    if kpi == "actual_to_planned_scrap":
        near = 2e-8  # a piece's share of the plan, some 0.05, is kept to 1e-9
    if kpi.startswith("agv_battery"):
        return abs(mine - true) <= KPIS[kpi].accuracy.absolute  # from state to state
    return abs(mine - true) <= near * max(abs(mine), abs(true))
