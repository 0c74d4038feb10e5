"""``beilun verify``: warm-ups, intervals and claims; and that a value is what the edge computed."""

import json
import math
import random
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beilun import scenario_pages, steady
from beilun.cli import main
from beilun.documenting import DOCS
from beilun.offline import run_offline
from beilun.steady import Estimate, WarmUp, estimate, student_t, warm_up
from beilun.verifying import Case, Observed, Run, Spans, cases, contributions, judge, observe
from config import tomlfile
from config.changes import Change, values_at
from config.claims import Claims, load_claims
from config.errors import ConfigError
from config.scenario import Scenario, find_scenario, scenario_names
from config.units import NS_PER_DAY, NS_PER_S
from edge import kpis
from edge.columns import Columns
from edge.kpis.oee import UNIT
from edge.measures import tailored
from edge.measures.delays import DOWNLINK, UPLINK, Delays, Directed
from ingest.messages import Asset, Batch, Birth, Identity, Meta
from simulator.plant import make_plant

MINUTE = 60 * NS_PER_S

unhurried = settings(deadline=None)
"""A loaded machine is no finding."""

# statistics --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "freedom", "known"),
    [
        (0.975, 1, 12.7062047), (0.975, 2, 4.3026527), (0.975, 3, 3.1824463),
        (0.975, 4, 2.7764451), (0.975, 9, 2.2621572), (0.975, 19, 2.0930241),
        (0.975, 30, 2.0422725), (0.95, 1, 6.3137515), (0.95, 10, 1.8124611),
        (0.995, 5, 4.0321430), (0.975, 1000, 1.9623391), (0.5, 7, 0.0),
    ],
)  # fmt: skip
def test_student_t_has_the_values_of_the_tables(share: float, freedom: int, known: float) -> None:
    assert student_t(share, freedom) == pytest.approx(known, abs=5e-8)


@unhurried
@given(share=st.floats(0.51, 0.999), freedom=st.integers(1, 60))
def test_student_t_grows_with_its_share_and_falls_with_freedom(share: float, freedom: int) -> None:
    assert student_t(share, freedom) > student_t(share, freedom + 1) > 0
    assert student_t(share + 5e-4, freedom) > student_t(share, freedom)


def test_an_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    dice = random.Random(5)
    found = [estimate([dice.gauss(3.0, 2.0) for _ in range(4)]) for _ in range(4_000)]
    covered = sum(e is not None and e.low <= 3.0 <= e.high for e in found) / len(found)
    assert covered == pytest.approx(0.95, abs=0.012)


def test_one_seed_has_no_interval_and_a_missing_value_no_mean() -> None:
    assert estimate([2.0]) == Estimate(2.0, None)
    assert estimate([2.0, None]) is estimate([]) is None
    assert estimate([1.0, 3.0]) == Estimate(2.0, pytest.approx(12.7062047))


@unhurried
@given(cut=st.integers(0, 8), batches=st.integers(16, 30), high=st.floats(5, 50), dice=st.randoms())
def test_mser_cuts_a_step_just_where_it_ends(
    cut: int, batches: int, high: float, dice: random.Random
) -> None:
    flat = [high if i < cut * 5 else 0.0 for i in range(batches * 5)]
    assert warm_up([flat, flat]) == WarmUp(cut * 5, found=True)
    noisy = [[value + dice.uniform(-0.1, 0.1) for value in flat] for _ in range(2)]
    assert warm_up(noisy).steps >= cut * 5


def test_mser_is_the_least_of_the_formula_over_all_places_to_cut() -> None:
    dice = np.random.default_rng(1)
    course = 10 * np.exp(-np.arange(200) / 12) + dice.normal(0, 1, 200)
    z = course.reshape(-1, 5).mean(axis=1)
    error = [np.var(z[d:]) / len(z[d:]) for d in range(len(z) // 2 + 1)]
    assert warm_up([course.tolist()]).steps == int(np.argmin(error)) * 5 > 0


def remembering(dice: np.random.Generator, days: int, slope: float = 0.0) -> list[float]:
    """A series around 10 that remembers about ten steps, and may grow."""
    value, out = dice.normal(), list[float]()
    for day in range(days):
        value = 0.9 * value + 0.19**0.5 * dice.normal()
        out.append(10 + value + slope * day)
    return out


def test_a_steady_state_is_seldom_denied_and_growth_seldom_missed() -> None:
    dice = np.random.default_rng(2)
    found = {
        slope: sum(
            warm_up([remembering(dice, 100, slope) for _ in range(5)]).found for _ in range(200)
        )
        for slope in (0.0, 0.2)
    }
    assert found[0.0] >= 190
    assert found[0.2] <= 5


def test_what_never_becomes_steady_is_told_as_such() -> None:
    ramp = [float(i) for i in range(100)]
    assert warm_up([ramp]) == warm_up([ramp, ramp]) == WarmUp(50, found=False)
    assert warm_up([[None] * 10 + [1.0] * 90]) == WarmUp(50, found=False)
    with pytest.raises(ValueError, match="50 steps or more, there are 49"):
        warm_up([[1.0] * 49])


def test_seeds_are_pooled_so_that_one_cut_holds_for_all() -> None:
    up, down = [0.0] * 10 + [5.0] * 90, [10.0] * 10 + [5.0] * 90
    assert warm_up([up]) == warm_up([down]) == WarmUp(10, found=True)
    assert warm_up([up, down]).steps == 0
    assert steady.BATCH == 5


# claims ------------------------------------------------------------------------------------------


def claims(text: dict[str, Any]) -> Claims:
    return tomlfile.validate(text, Claims, at="claims.toml", context={"kpis": kpis.load()})


CLAIM = {"kpi": "wip", "asset": "flow", "source": "an article"}
WARM = [{"kpi": "wip", "asset": "flow"}]


def headlines(scenario: str = "a", *more: dict[str, Any], **claim: Any) -> dict[str, Any]:
    told = [{**CLAIM, **one} for one in (claim, *more)]
    return {"scenario": scenario, "warm_up": WARM, "claim": told}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"headline": [headlines(kpi="wipp")]}, "unknown KPI 'wipp'; did you mean wip?"),
        ({"headline": [headlines(band=[2.0, 1.0])]}, "needs a low and a high end"),
        ({"headline": [headlines(against="b")]}, "unknown scenario b"),
        ({"headline": [headlines(), headlines()]}, "a: there twice"),
        ({"headline": [headlines(same_as="wip", band=[0.0, 1.0])]}, "stands alone"),
        ({"headline": [headlines(source="")]}, "source"),
        ({"headline": []}, "needs at least one"),
    ],
)
def test_a_file_of_claims_is_checked(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        claims(wrong)
    assert words in str(error.value)


def test_the_shipped_claims_are_about_shipped_scenarios() -> None:
    told = load_claims(kpis=kpis.load())
    assert {each.scenario for each in told.headline} <= set(scenario_names())


def test_after_is_the_works_as_its_file_has_it() -> None:
    """What ``ikd-before`` sets, ``ikd-after`` gives back."""
    after = find_scenario("ikd-after")
    plant = make_plant(tomlfile.load(after.plant_file())).model_dump(mode="json")
    for change in after.change:
        for path, value in change.plant.items():
            assert set(map(repr, values_at(plant, path))) == {repr(value)}, path
    assert after.based_on is not None
    given_back = {path for change in after.change for path in change.plant}
    taken = {path for change in after.based_on.change for path in change.plant}
    assert taken - given_back == {"release.every", "heartbeats"}  # CONWIP has no calendar


def test_no_change_touches_heads_or_the_value_of_a_piece() -> None:
    """What output per head is divided by, and multiplied with, is the same before and after."""
    for each in load_claims().headline:
        scenario = find_scenario(each.scenario)
        before, after = (s.plant_data().get("staff") for s in (scenario.with_only(()), scenario))
        assert (
            before is None
            or after is None
            or all(before.get(key) == after.get(key) for key in ("heads", "value_cny_per_piece"))
        )


def case(scenario: str, per_seed: list[list[float]], told: Claims, key: str = "wip") -> Case:
    """A case of a hundred days whose every KPI is that list of values, a seed each."""
    asked = told.of(scenario)
    assert asked is not None
    length = 100 * NS_PER_DAY
    data = {"plant": "quickstart", "length": "100d"}
    made = find_scenario("quickstart").model_copy(update={"name": scenario, "length": length})
    assert data["length"] == "100d"
    names = {(c.kpi, c.asset) for c in asked.claim} | {("wip", "flow")}
    names |= {(c.same_as, c.asset) for c in asked.claim if c.same_as}
    seen = tuple(
        Observed(
            {name: [1.0] * 100 for name in names},
            {name: [values[0 if name[0] == key else 1]] * 11 for name in names},
        )
        for values in per_seed
    )
    return Case(made, asked, tuple(range(1, len(seen) + 1)), seen)


def test_a_claim_passes_where_the_mean_lies_in_the_band_and_is_sure_where_the_interval_does() -> (
    None
):
    told = claims({"headline": [headlines("a", {"band": [9.0, 11.0]}, {"band": [0.0, 99.0]},
                                          {"band": [10.5, 20.0]})]})  # fmt: skip
    found = case("a", [[9.0, 0.0], [11.0, 0.0]], told)
    reported, narrow, wide, off = judge(found, {"a": found})
    assert (reported.ok, reported.place, reported.sure) == (True, None, False)
    assert reported.estimate == Estimate(10.0, pytest.approx(12.706, abs=1e-3))
    assert (narrow.ok, narrow.sure, narrow.place) == (True, False, 0.5)
    assert (wide.ok, wide.sure) == (True, True) if wide.estimate.low > 0 else (True, False)
    assert (off.ok, off.place) == (False, pytest.approx(-0.5 / 9.5))


def test_scenarios_are_compared_seed_by_seed() -> None:
    told = claims({"headline": [headlines("a"), headlines("b", against="a", band=[-0.5, -0.4])]})
    a = case("a", [[10.0, 0.0], [1_000.0, 0.0]], told)
    b = case("b", [[5.4, 0.0], [540.0, 0.0]], told)
    (found,) = judge(b, {"a": a, "b": b})
    assert found.ok
    assert found.sure
    assert found.values == (pytest.approx(-0.46), pytest.approx(-0.46))
    assert found.unit == "1"


def test_two_forms_must_agree_within_what_lies_in_the_shop_at_an_edge() -> None:
    told = claims({"headline": [headlines(kpi="wip_age_days", same_as="wip_turnover_days")]})
    for age, ok in ((10.9, True), (11.1, False)):
        found = case("a", [[age, 10.0], [age, 10.0]], told, key="wip_age_days")
        (one,) = judge(found, {"a": found})
        assert one.band == (pytest.approx(-0.1), pytest.approx(0.1))  # 10 days of 100
        assert one.ok is ok


def test_no_steady_state_and_no_data_meet_nothing() -> None:
    told = claims({"headline": [headlines("a", band=[0.0, 99.0])]})
    good = case("a", [[5.0, 0.0], [6.0, 0.0]], told)
    for wrong in (
        {("wip", "flow"): [float(i) for i in range(100)]},
        {("wip", "flow"): [None] * 100},
    ):
        seen = tuple(Observed(wrong, one.left) for one in good.observed)
        bad = Case(good.scenario, good.headlines, good.seeds, seen)
        (one,) = judge(bad, {"a": bad})
        assert not one.ok
        assert "no steady state in a" in one.detail
    blank = tuple(Observed(one.course, {("wip", "flow"): [None] * 11}) for one in good.observed)
    none = Case(good.scenario, good.headlines, good.seeds, blank)
    (one,) = judge(none, {"a": none})
    assert (one.ok, one.detail) == (False, "no data")


def test_contributions_are_differences_with_the_same_dice() -> None:
    told = claims({"headline": [headlines("a")]})
    plain = find_scenario("quickstart")
    changes = tuple(
        Change.model_validate({"name": name, "why": "x", "set": {"pieces_per_container": n}})
        for n, name in enumerate(("one", "two"), 1)
    )
    after = plain.model_copy(update={"change": changes})
    values = {"before": 10.0, "after": 4.0, "only one": 8.0, "only two": 7.0, "without one": 5.5,
              "without two": 8.0}  # fmt: skip
    found = {name: case("a", [[v, 0.0], [v + 50, 0.0]], told) for name, v in values.items()}
    one, two, both = contributions(found, after)
    assert (one.change, two.change, both.change) == ("one", "two", "")
    assert one.alone == Estimate(-2.0, 0.0)
    assert one.last == Estimate(-1.5, 0.0)
    assert (one.share, two.share, both.share) == (pytest.approx(2 / 6), 0.5, 1.0)
    assert both.alone == both.last == Estimate(-6.0, 0.0)


# runs --------------------------------------------------------------------------------------------

PLANT = """\
site = "works"
[calendar]
utc_offset = "+00:00"
shift = [{ start = "00:00", end = "24:00" }]
[[device]]
name = "cl01"
kind = "cable_line"
area = "cable"
line = "hall1"
control = "local"
[[device]]
name = "cl02"
kind = "cable_line"
area = "cable"
line = "hall1"
control = "local"
[[product]]
name = "cable"
[[product.step]]
operation = "lay up"
units = "cl01"
pri_s = 0.7
[[order]]
number = 1
product = "cable"
quantity = 50_000_000
"""
BEFORE = """\
plant = "./plant.toml"
network = "ethernet"
start = "2026-01-05T00:00:00Z"
length = "1h"
telemetry = "events"
"""
AFTER = """\
base = "./before.toml"
summary = "A faster line."
[[change]]
name = "faster"
why = "a stronger drive"
set = { "device.cl01.speed_mps" = 1.6 }
[[change]]
name = "radio"
why = "to see that it does nearly nothing"
set = { network = "private-5g" }
"""
CLAIMS = """\
[[headline]]
scenario = "./before.toml"
step = "1m"
warm_up = [{ kpi = "good_length", asset = "cl01" }]
[[headline.claim]]
kpi = "line_speed"
asset = "cl01"
band = [0.0, 5.0]
source = "a test"

[[headline]]
scenario = "./after.toml"
step = "1m"
warm_up = [{ kpi = "good_length", asset = "cl01" }]
[[headline.claim]]
kpi = "line_speed"
asset = "cl01"
against = "./before.toml"
band = [0.01, 5.0]
source = "a test"
note = "What to know."
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("plant", PLANT), ("before", BEFORE), ("after", AFTER), ("claims", CLAIMS)):
        (tmp_path / f"{name}.toml").write_text(text)
    return tmp_path


def scenario(folder: Path, name: str) -> Scenario:
    return find_scenario(folder / f"{name}.toml")


def test_what_is_observed_is_what_a_run_writes_down(folder: Path) -> None:
    """The same rows as of a run with a recording, where their windows lie alike."""
    wanted = (("good_length", "cl01"), ("line_speed", "cl01"), ("running_speed", "cl01"))
    chosen = scenario(folder, "before")
    seen = observe(Run(chosen, 3, 5 * MINUTE, wanted))
    edge = chosen.edge.model_copy(update={"windows": ("5m", "1h")})
    run = chosen.model_copy(update={"seed": 3, "edge": edge})
    rows = run_offline(run, folder / "a.beilun").ending.rows
    for kpi, asset in wanted:
        mine = [row for row in rows if row.kpi == kpi and row.asset.name == asset]
        course = {r.window_start_ns: r.value for r in mine if r.window_length_ns == 5 * MINUTE}
        assert seen.course[kpi, asset] == [course[t_ns] for t_ns in sorted(course)]
        assert len(course) == 12
        assert [seen.left[kpi, asset][0]] == [
            r.value for r in mine if r.window_length_ns == 60 * MINUTE
        ]


def test_any_number_of_processes_sees_the_same(folder: Path) -> None:
    told = load_claims(folder / "claims.toml", kpis=kpis.load())
    wanted = {("line_speed", "cl01"), ("good_length", "cl01")}
    asked = [(scenario(folder, each.scenario[2:-5]), each, wanted) for each in told.headline]
    done: list[str] = []
    one, two = (
        cases(asked, (1, 2), jobs=jobs, done=lambda n, name: done.append(name)) for jobs in (1, 2)
    )
    assert [case.observed for case in one] == [case.observed for case in two]
    names = ["before, seed 1", "before, seed 2", "after, seed 1", "after, seed 2"]
    assert sorted(done[4:]) == sorted(names)
    assert done[:4] == names


def test_steps_and_stretches_lie_where_the_engine_can_follow() -> None:
    base = find_scenario("quickstart").model_copy(update={"length": 101 * MINUTE})
    run = Run(base, 1, MINUTE, ())
    assert len(run.steps) == 101
    starts = [(span.start_ns - base.start) // MINUTE for span in run.stretches]
    assert starts == list(range(0, 51, 5))
    assert {span.end_ns for span in run.stretches} == {run.steps[-1].end_ns}
    windows = Spans((*run.steps, *run.stretches))
    assert windows.grain_ns == MINUTE
    assert windows.nominal_ns == 101 * MINUTE
    first = run.steps[3]
    assert windows.over(first.start_ns, first.end_ns) == [first, run.stretches[0]]
    assert set(windows.ending(run.steps[-1].end_ns)) == {run.steps[-1], *run.stretches}
    assert windows.over(base.start - 5, base.start) == []


def test_a_glob_that_means_two_assets_is_told(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"means .*cl0\d and .*cl0\d"):
        observe(Run(scenario(folder, "before"), 1, 10 * MINUTE, (("good_length", "cl*"),)))


def verify(folder: Path, *words: str) -> int:
    file = str(folder / "claims.toml")
    return main(["verify", "--claims", file, "--seeds", "2", "--jobs", "1", *words])


def test_the_verb_tells_passes_and_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(folder, "--junit", str(folder / "out.xml")) == 0
    told = capsys.readouterr().out
    assert "./before.toml: 2 seeds of 1h; warm-up" in told
    assert told.count("PASS  line_speed@cl01") == 2
    assert "  What to know." in told
    assert "PASS: the mean over seeds lies in the band" in told
    suite = ElementTree.parse(folder / "out.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("2", "0")
    file = folder / "claims.toml"
    file.write_text(file.read_text().replace("[0.01, 5.0]", "[-0.9, -0.5]"))
    assert verify(folder, "./after.toml", "--json") == 1
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["ok"], line["against"], len(line["values"])) == (False, "./before.toml", 2)
    assert line["mean"] == pytest.approx(sum(line["values"]) / 2)
    assert line["mean"] > 0.1


def test_the_verb_tells_what_each_change_contributes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(folder, "./after.toml", "--one-at-a-time", "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["change"] for line in lines] == ["faster", "radio", None]
    faster, radio, both = (line["alone"] for line in lines)
    assert faster > 0.1
    assert abs(radio) < 0.05
    assert both == pytest.approx(faster, abs=0.05)
    assert lines[2]["share"] == 1.0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["./befor.toml"], 2),
        (["--seeds", "0"], 2),
        (["--docs", "x.md"], 2),
    ],
)
def test_wrong_words_exit_2(folder: Path, words: list[str], code: int) -> None:
    assert verify(folder, *words) == code


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("line_speed", "line_sped"),
        ("band = [0.0, 5.0]", "band = 5"),
        ('step = "1m"', "step = 60"),
        ("before.toml", "bfore.toml"),
        ('asset = "cl01" }', 'asset = "cl*" }'),
        ('step = "1m"', 'step = "90s"'),
        ('step = "1m"', 'step = "2h"'),
    ],
)
def test_a_bad_file_exits_3(folder: Path, old: str, new: str) -> None:
    file = folder / "claims.toml"
    file.write_text(file.read_text().replace(old, new))
    assert verify(folder) == 3


# the page ----------------------------------------------------------------------------------------


def test_contributions_are_kept_when_the_page_is_written_anew() -> None:
    told = load_claims().headline
    changed = next(each.scenario for each in told if find_scenario(each.scenario).base)
    mark = scenario_pages.Measured(scenario_pages.fingerprint(find_scenario(changed)), 7, "| a |")
    page = scenario_pages.page({changed: mark})
    assert scenario_pages.measured_in(page) == {changed: mark}
    assert "have changed since" not in page
    old = scenario_pages.Measured("0" * 12, 7, "| a |")
    assert "**The files have changed since this was measured.**" in scenario_pages.page(
        {changed: old}
    )


def test_the_page_names_every_parameter_that_differs() -> None:
    page = (DOCS / "scenarios.md").read_text()
    for each in load_claims().headline:
        for change in find_scenario(each.scenario).change:
            assert change.why in page
            assert all(f"`{path}`" in page for path in change.set)


# the edge's part ---------------------------------------------------------------------------------


def test_directions_of_a_report_are_told_apart_and_are_together_the_whole() -> None:
    asset, t_ns = Asset("s", "network", "kinds", "agv"), np.full(4, 5, dtype=np.int64)
    ch = {
        "bin": np.array([10.0, 20.0, 10.0, math.nan]),
        "count": np.array([3.0, 4.0, 5.0, 1.0]),
        "down": np.array([0.0, 1.0, 1.0, 0.0]),
    }
    meta = Meta(Identity("m", 1, 1), 7, 6)
    columns = Columns([Batch(asset, "link", t_ns, ch, meta)], 0, 10)
    up, down = (Directed(way) for way in (UPLINK, DOWNLINK))
    assert up.facts(up.fold(columns)) == {"uplink_delay_bins": {10: 3}}
    assert down.facts(down.fold(columns)) == {"downlink_delay_bins": {20: 4, 10: 5}}
    told = Columns([Batch(asset, "link", t_ns, ch | {"hop_messages": ch["bin"]}, meta)], 0, 10)
    assert Delays().fold(told).delays == {10: 8, 20: 4}


@unhurried
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 300), st.sampled_from([3, 6, 10])),
        min_size=1, max_size=5, unique_by=lambda change: change[0],
    )
)  # fmt: skip
def test_a_state_told_by_exception_is_that_state_told_every_second(
    changes: list[tuple[int, int]],
) -> None:
    """From the first word on: before it nothing is known either way."""
    asset, end = Asset("s", "a", "l", "m"), 400
    changes = sorted(changes)
    told = [(s, [v for t, v in changes if t <= s][-1]) for s in range(changes[0][0], end)]

    def spent(samples: list[tuple[int, int]], *, by_exception: bool) -> Any:
        meta = Meta(Identity("m", 1, 1), 0)
        channels = {"state": "PackML", "planned": "1"}
        birth = Birth(asset, "casting_cell", 0, channels, meta, by_exception=by_exception)
        measure = tailored(UNIT, birth)
        t_ns = np.array([s * NS_PER_S for s, _ in samples], dtype=np.int64)
        state = {"state": np.array([v for _, v in samples], dtype=np.float64)}
        planned = np.array([0], dtype=np.int64), {"planned": np.array([1.0])}
        batches = [
            Batch(asset, "state", t_ns, state, meta), Batch(asset, "calendar", *planned, meta)
        ]  # fmt: skip
        return measure.facts(measure.fold(Columns(batches, 0, end * NS_PER_S)))

    assert spent(changes, by_exception=True) == spent(told, by_exception=False)
