"""``beilun score``: where nothing goes wrong nothing is wrong; what is wrong can be looked at."""

import itertools
import json
import re
import shlex
import shutil
import sqlite3
from collections import defaultdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from beilun import compare, report
from beilun.cli import main
from beilun.offline import RUN, make_factory, run_offline
from beilun.verdict import asset_path
from config.globs import asset_matches
from config.scenario import Scenario, find_scenario
from config.units import NS_PER_S
from config.windows import Every, Span
from edge import kpis
from edge.engine import Engine
from edge.kpi import BY_SAMPLES
from edge.policy import Policy
from edge.rows import ORDER_NUMBER
from edge.store import RowStore
from ingest.decode import Decoder
from ingest.messages import Record, Reject, TruthRow
from ingest.recording import Recording
from simulator.factory import Made

KPIS = kpis.load()
MINUTE = 60 * NS_PER_S
WITHOUT_TRUTH = {f"current_j1_{share}" for share in ("p5", "p50", "p95")}
"""What nobody can know but by reading it."""
UNSEEN = {name for name, kpi in KPIS.items() if kpi.accuracy is BY_SAMPLES}
BINNED = {
    "delay_p50", "delay_p99", "delay_p999", "clock_skew",
    *(f"{way}_delay_{share}" for way in ("uplink", "downlink") for share in ("p50", "p99")),
}  # fmt: skip
Key = tuple[str, str, int, int]


def plant(folder: Path) -> Path:
    """Quickstart with orders so small that several end within the hour."""
    text = (files("config") / "plants" / "quickstart.toml").read_text("utf-8")

    def small(found: re.Match[str]) -> str:
        return f"quantity = {int(found[1]) // 40}"

    path = folder / "plant.toml"
    path.write_text(re.sub(r"quantity = (\d+)", small, text))
    return path


@pytest.fixture(scope="module")
def perfect(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scenario, list[TruthRow]]:
    """Forty minutes over wires, in the night in which the clocks are put forward, in windows of
    every kind."""
    folder = tmp_path_factory.mktemp("score")
    plant(folder)
    (folder / "scenario.toml").write_text("""\
plant = "plant.toml"
network = "ethernet"
seed = 3
start = "2026-03-29T00:30:00Z"
length = "40m"
[edge]
windows = ["10m", "30m", "20m/5m", "shift", "day", "order"]
zone = "Europe/Berlin"
shifts = ["00:00", "01:40", "03:05"]
""")
    scenario = find_scenario(folder / "scenario.toml")
    path = folder / "perfect.beilun"
    outcome = run_offline(scenario, path)
    assert outcome.ending.account.closes
    assert not outcome.ending.account.lost
    return path, scenario, outcome.truth


def said(path: Path) -> dict[Key, float | None]:
    with Recording.open(path) as recording:
        return {
            ("/".join(r.asset), r.kpi, r.window_start_ns, r.window_length_ns): r.value
            for r in RowStore(recording).rows()
        }


Perfect = tuple[Path, Scenario, list[TruthRow]]


def test_where_nothing_goes_wrong_nothing_is_wrong_in_any_window(perfect: Perfect) -> None:
    path, scenario, truth = perfect
    rows = said(path)
    seen: defaultdict[str, set[str]] = defaultdict(set)
    valued: set[str] = set()
    sampled: list[tuple[str, int, float, float]] = []
    kinds = {kind.label: kind for kind in scenario.edge.kinds}
    for row in truth:
        mine = rows.pop(row[:4])  # each side has every row of the other
        assert (mine is None) == (row.value is None), row
        span = Span(row.window_start_ns, row.window_start_ns + row.window_length_ns)
        labels = [n for n, k in kinds.items() if span in k.over(span.start_ns, span.start_ns + 1)]
        for label in labels or ["order"]:
            seen[label].add(row.kpi)
        if mine is None or row.value is None:
            continue
        valued.add(row.kpi)
        if row.kpi in BINNED and (labels or not _cut(row.kpi)):
            assert mine == pytest.approx(row.value, rel=0.005), row
        elif row.kpi in UNSEEN:
            sampled.append((row.kpi, row.window_length_ns, mine, row.value))
        elif labels or not _cut(row.kpi):
            told = KPIS[row.kpi].accuracy.absolute if "battery" in row.kpi else 1e-12
            assert mine == pytest.approx(row.value, rel=1e-9, abs=told), row
    assert {kpi for _, kpi, _, _ in rows} == WITHOUT_TRUTH
    for kpi, length_ns, mine, value in sampled:
        if length_ns >= 10 * MINUTE and kpi.endswith(("_ratio", "_share")):  # a sample an event
            assert mine == pytest.approx(value, abs=0.01), kpi
        elif length_ns >= 10 * MINUTE:
            assert mine <= value, "what lies between two samples nobody sees"
    assert {kpi for kpi, _, mine, _ in sampled if mine} >= {"grip_lost_events", "grip_lost_share"}
    every = KPIS.keys() - WITHOUT_TRUTH
    told = {kpi for kpis_ in seen.values() for kpi in kpis_}
    for label in ("10m", "30m", "20m/5m", "shift", "day"):
        assert seen[label] == told - {ORDER_NUMBER}, label
    assert seen["order"] > {"oee", "energy_per_unit", "line_speed", "delay_p99", ORDER_NUMBER}
    of_others = {k for k in every if k.startswith("cycle")}
    assert told - {ORDER_NUMBER} == every - of_others
    assert told - valued <= {"mtbf", "mttf", "mttr", "corrective_maintenance_ratio"}


def _cut(kpi: str) -> bool:
    return kpi in KPIS and KPIS[kpi].accuracy.cut_s != 0.0


def thinned(made: Made, step: int) -> bytes:
    """A message of samples of which every second (4th, 8th ...) tells what is sampled; states and
    counts, which are told at their changes too, stay."""
    said = json.loads(made.payload)
    if not made.topic.endswith("/process") or "every_ns" not in said:
        return made.payload
    for name in ("energy_kwh", "length_m", "scrap_m", "diameter_mm", "eccentricity_ratio"):
        values = said["ch"].get(name, [])
        for place in range(len(values)):
            if (said["t_ns"] + place * said["every_ns"]) // NS_PER_S % step:
                values[place] = None
    return json.dumps(said).encode()


SAMPLED = ("diameter_cm", "diameter_cp", "eccentricity_mean", "energy_per_unit", "good_length")


class NoPast:
    """Of messages that all came in time nothing is asked again."""

    def recall(self, first_ns: int, last_ns: int) -> list[Record]:
        raise AssertionError(first_ns, last_ns)


def test_what_is_sampled_comes_nearer_the_truth_the_more_often_it_is_sampled(
    perfect: Perfect,
) -> None:
    """Windows of ten minutes are no multiple of seven seconds: the thinned counters are read in
    the middle of nowhere."""
    windows = (Every(10 * MINUTE),)
    factory = make_factory(perfect[1], RUN)
    told = [item for chunk in factory.chunks() for item in chunk.in_order()]
    truth = {row[:4]: row.value for row in factory.truth(windows)}
    off: defaultdict[str, list[float]] = defaultdict(list)
    for step in (1, 7, 49):
        decoder, errors = Decoder(), defaultdict[str, list[float]](list)
        engine = Engine(Policy(windows=windows), [KPIS[n] for n in SAMPLED], NoPast(), run=RUN)
        for item in told:
            payload = thinned(item, step) if isinstance(item, Made) else item.payload
            found = decoder.receive(item.topic, payload, 0)
            assert not isinstance(found, Reject)
            engine.feed(found)
        for row in engine.finish():
            true = truth["/".join(row.asset), row.kpi, row.window_start_ns, row.window_length_ns]
            if row.value is not None and true:
                errors[row.kpi].append(abs(row.value - true) / true)
        for kpi in SAMPLED:
            off[kpi].append(sum(errors[kpi]) / len(errors[kpi]))
    for kpi, means in off.items():
        assert means[0] < 1e-12, kpi
        assert means[0] < means[1] < means[2], (kpi, means)


# the command --------------------------------------------------------------------------------------


def scored(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> list[dict[str, Any]]:
    assert main(["score", *words, "--json"]) == code
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def spoilt(perfect: Perfect, tmp_path: Path) -> Path:
    """The same recording after availability was tampered with and a row was lost."""
    path = tmp_path / "spoilt.beilun"
    shutil.copy(perfect[0], path)
    with sqlite3.connect(path) as db:
        of = "series = (SELECT id FROM series WHERE asset = ? AND kpi = ? AND window_length_ns = ?)"
        changed = f"UPDATE row SET value = value + 0.25 WHERE {of}"
        assert db.execute(changed, ("dcm02", "availability", 30 * MINUTE)).rowcount == 2
        gone = f"DELETE FROM row WHERE {of}"
        assert db.execute(gone, ("dcm01", "output", 30 * MINUTE)).rowcount == 2
    db.close()
    return path


def test_a_perfect_run_keeps_every_bound(
    perfect: Perfect, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(perfect[0])
    assert main(["score", path, "--strict"]) == 0
    told = capsys.readouterr()
    assert re.search(r"\n[\d,]+ rows scored: every bound kept, 0 missing\n", told.out)
    assert told.err.splitlines() == [
        f"without a truth, for some asset or group: {', '.join(sorted(WITHOUT_TRUTH))}"
    ]
    lines = scored(capsys, path)
    assert all(line["kept"] for line in lines)
    assert {line["window"] for line in lines} == set(perfect[1].edge.windows)
    bound = {(line["kpi"], line["window"]): line["bound"] for line in lines}
    assert bound["delay_p99", "10m"] == "0.5 %"
    assert bound["delay_p99", "order"] == bound["grip_lost_events", "10m"] == "none"
    assert bound["oee", "order"] == bound["energy_per_unit", "day"] == "exact"
    assert bound["energy_per_unit", "order"] == "4 s at each end"


@pytest.mark.parametrize("kind", ["10m", "20m/5m", "order", "day"])
def test_the_worst_row_is_explained_by_what_is_printed(
    kind: str, perfect: Perfect, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pasted as it stands, also where the window of an order ends between two nanoseconds."""
    assert main(["score", str(perfect[0]), "--kpi", "delay_p50", "--window", kind]) == 0
    (hint,) = re.findall(r"^where it came from: (.*)$", capsys.readouterr().out, re.MULTILINE)
    (line,) = scored(capsys, str(perfect[0]), "--kpi", "delay_p50", "--window", kind)
    assert line["worst_at"]["explain"] == hint
    program, *words = shlex.split(hint)
    assert program == "beilun"
    assert main(words) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"delay_p50 of {line['worst_at']['asset']}, ")
    off = re.search(r"error ([-+.e\d]+)", told)
    assert off is not None
    assert float(off[1]) == pytest.approx(line["worst"], rel=1e-3)


def test_what_is_off_or_missing_is_counted_and_fails_where_that_is_asked(
    spoilt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(spoilt)]) == 0
    told = capsys.readouterr().out
    assert "2 beyond their bounds, 2 missing" in told
    assert "kpis explain availability --asset ningbo/casting/line1/dcm02 --window 2026-" in told
    lines = {(line["kpi"], line["window"]): line for line in scored(capsys, str(spoilt))}
    bad = [line for line in lines.values() if not line["kept"]]
    assert [(b["kpi"], b["rows_beyond"], b["rows_missing"]) for b in bad] == [
        ("availability", 2, 0), ("output", 0, 2)
    ]  # fmt: skip
    assert main(["score", str(spoilt), "--strict"]) == 1
    assert main(["score", str(spoilt), "--strict", "--kpi", "oee"]) == 0
    assert main(["score", str(spoilt), "--strict", "--asset", "dcm01", "--window", "day"]) == 0
    assert main(["score", str(spoilt), "--strict", "--asset", "dcm01"]) == 1


def test_only_what_is_asked_for_is_scored(
    perfect: Perfect, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(perfect[0])
    whole = {(line["kpi"], line["window"]): line for line in scored(capsys, path)}
    lines = scored(capsys, path, "--kpi", "oee", "--asset", "dcm*", "--window", "30m")
    assert [(line["kpi"], line["window"], line["rows"]) for line in lines] == [("oee", "30m", 8)]
    assert whole["oee", "30m"]["rows"] == 8 + 3 * 2  # and line, area and site
    assert main(["score", path, "--window", "1h"]) == 2
    assert "there are 10m, 30m" in capsys.readouterr().err
    assert main(["score", path, "--kpi", "oe"]) == 2
    assert "did you mean oee" in capsys.readouterr().err


# rows of a recording ------------------------------------------------------------------------------


def test_a_store_gives_the_rows_that_are_asked_for(perfect: Perfect) -> None:
    with Recording.open(perfect[0]) as recording:
        store = RowStore(recording)
        every = list(store.rows())
        assert store.assets() == sorted({row.asset for row in every})
        for kpis_, glob, length_ns in itertools.product(
            ((), ("oee",), ("oee", "wip", "nothing")),
            ("", "dcm*", "ningbo/casting", "ningbo/*/*", "x"),
            (None, 10 * MINUTE),
        ):
            found = list(store.rows(kpis=kpis_, asset=glob, window_length_ns=length_ns))
            assert sorted(found, key=lambda row: row.key) == sorted(
                (
                    row for row in every
                    if (not kpis_ or row.kpi in kpis_)
                    and (not glob or asset_matches(glob, asset_path(row.asset)))
                    and length_ns in (None, row.window_length_ns)
                ),
                key=lambda row: row.key,
            )  # fmt: skip


def test_rows_and_what_moved_name_their_windows(perfect: Perfect, spoilt: Path) -> None:
    labels = report.Labels(perfect[1].edge.kinds)
    rows, changed = (compare.expected_rows(path).rows for path in (perfect[0], spoilt))
    told = [report.as_json(row, labels) for row in rows]
    assert {row["window"] for row in told} == set(perfect[1].edge.windows)
    assert {row["window"] for row in told if row["kpi"] == ORDER_NUMBER} == {"order"}
    lengths = {row["window_s"] for row in told if row["window"] == "day"}
    assert lengths == {23 * 3_600}, "the clocks were put forward"
    moved = compare.moved(rows, changed, {}, compare.EXACT, labels)
    assert [(each.kpi, each.rows) for each in moved] == [("availability", 2), ("output", 2)]
    assert "first ningbo/casting/line1/dcm02 30m at 2026-03-29T00:30:00Z" in moved[0].text


# what there is ------------------------------------------------------------------------------------


def test_a_kpi_says_how_good_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kpis", "delay_p99"]) == 0
    told = dict(re.findall(r"^(\w+) +(.*)$", capsys.readouterr().out, re.MULTILINE))
    assert told["range"] == "0 to –"
    assert (told["bound"], told["bound_of_orders"]) == ("0.5 %", "none")
    assert told["clause"] == "3GPP TS 22.261 latency"
    assert told["better"] == "down"
    assert (told["needs"], told["rolls_up"]) == ("none", "yes")


def test_a_scenario_says_what_goes_wrong_and_what_may_leave(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["scenarios", "link-faults"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^fault +outage, after 5m, length 2m, cell c9$", told, re.MULTILINE)
    assert "clock_step, after 45m, length 5m, asset dcm01, step_s 3.0\n" in told
    assert re.search(r"^campus +–$", told, re.MULTILINE)
    assert main(["scenarios", "campus-only"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^summary +output@casting 15m, line_speed@cl01 15m$", told, re.MULTILINE)
    assert re.search(r"^fault +none$", told, re.MULTILINE)
    assert main(["config", "show", "--scenario", "link-faults"]) == 0
    assert re.search(r"^fault #1 +outage, after 5m, .*scenario link-faults$",
                     capsys.readouterr().out, re.MULTILINE)  # fmt: skip
    assert main(["config", "show", "--scenario", "campus-only"]) == 0
    assert re.search(r"^campus.networks +127.0.0.1/32, ::1/128 +scenario campus-only$",
                     capsys.readouterr().out, re.MULTILINE)  # fmt: skip


def test_the_pane_in_use_is_shown_where_it_is_not_the_one_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'plant = "quickstart"\nlength = "1m"\n[edge]\npane = "10s"\nwindows = ["1m/5s"]\n'
    (tmp_path / "short.toml").write_text(text)
    assert main(["config", "show", "--scenario", str(tmp_path / "short.toml")]) == 0
    assert re.search(r"^edge.pane in use +5s ", capsys.readouterr().out, re.MULTILINE)
