"""The views behind the overview: losses, charts, acknowledgements, and each view in Chromium."""

import itertools
import json
import math
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import httpx
import numpy as np
import pytest

pytest.importorskip("nicegui")

from hypothesis import given
from hypothesis import strategies as st

from beilun.serving.acks import LONGEST_NOTE, Acks, Alarm, NotAllowed
from beilun.serving.page import (
    alarms_view,
    area,
    asset,
    charts,
    health,
    loss_panel,
    losses,
    network,
    panels,
    shell,
    truth_view,
    words,
)
from beilun.serving.page import clock as clocks
from beilun.serving.page.charts import Band, Clock, Line, Look, Span, Value
from beilun.serving.page.losses import Account, Reason
from beilun.serving.page.truth_view import Judged
from beilun.serving.reading import AlarmSpan, CellSpan, DelayBin, Reader, StateSpan
from config.errors import RecordingError
from config.units import NS_PER_S
from edge import iso22400, kpis
from edge.kpi import Accuracy
from edge.kpis import oee as oees
from edge.kpis.network import TEN_MS_BIN
from edge.measures import add_facts
from edge.rows import ALL, Row
from edge.store import RowStore
from ingest.bins import LAST, delay_of
from ingest.messages import Asset, Batch, Birth, Identity, Meta
from ingest.packml import Maintenance, Mode, PackML
from ingest.recording import Recording
from tests import chromium
from tests.test_page import run, served

PRESS = Asset("works", "casting", "line1", "press1")
MINUTE_NS = 60 * NS_PER_S
LOOK = Look("#000", "#666", "#ccc", "#fff", "#0a0", "#aa0", "#a00", ("#00a", "#a0a"), {}, "#fff")
PLAIN = Clock(0, "UTC")


# losses -----------------------------------------------------------------------------------------

UNIT_CHANNELS = ("state", "mode", "maintenance", "produced", "scrap", "rework")


@st.composite
def told(draw: st.DrawFn) -> tuple[list[Batch], Birth, int]:
    """What some machine told in some minutes: any states, orders, plans and counts."""
    length_s = draw(st.integers(1, 600))
    meta = Meta(Identity("works/press1", 1, 0), 0)
    birth = Birth(PRESS, "casting_cell", 0, dict.fromkeys(UNIT_CHANNELS, "1"), meta)
    batches: list[Batch] = []

    def say(stream: str, at_s: int, **values: float) -> None:
        number = Identity("works/press1", 1, len(batches) + 1)
        channels = {name: np.array([float(value)]) for name, value in values.items()}
        t_ns = np.array([at_s * NS_PER_S], dtype=np.int64)
        batches.append(Batch(PRESS, stream, t_ns, channels, Meta(number, at_s * NS_PER_S)))

    seconds = st.integers(0, length_s - 1)
    for at_s in draw(st.lists(seconds, max_size=20)):
        say("state", at_s, state=draw(st.sampled_from(PackML)), mode=draw(st.sampled_from(Mode)),
            maintenance=draw(st.sampled_from(Maintenance)))  # fmt: skip
    for at_s in draw(st.lists(seconds, max_size=4)):
        say("orders", at_s, order=draw(st.integers(0, 2)), pri_s=draw(st.integers(0, 90)))
    for at_s in draw(st.lists(seconds, max_size=4)):
        say("calendar", at_s, planned=draw(st.integers(0, 1)))
    made = scrap = rework = 0
    for at_s in sorted(draw(st.lists(seconds, max_size=20, unique=True))):
        pieces = draw(st.integers(0, 3))
        bad = draw(st.integers(0, pieces))
        mended = draw(st.integers(0, pieces - bad))
        made, scrap, rework = made + pieces, scrap + bad, rework + mended
        say("event", at_s, produced=made, scrap=scrap, rework=rework)
    return batches, birth, length_s * NS_PER_S


@given(told())
def test_every_nanosecond_of_planned_time_is_in_one_loss_and_what_is_left_is_oee(
    case: tuple[list[Batch], Birth, int],
) -> None:
    batches, birth, end_ns = case
    found = losses.account(batches, birth, 0, end_ns)
    tree = losses.tree(found)
    assert tree.closes
    assert tree.covered_ns == end_ns
    assert tree.oee == oees.oee(found.facts)
    elements = sum(
        found.facts.get(name, 0)  # type: ignore[misc] - all of these are integers
        for name in ("aust_ns", "adet_ns", "adot_ns", "maintained_ns")
    )
    assert sum(found.stops.values()) == elements == tree.seen_ns - tree.producing_ns
    assert all(spent_ns > 0 for spent_ns in found.stops.values())


@given(told(), st.fractions(0, 1))
def test_losses_of_two_parts_of_a_time_are_those_of_the_whole(
    case: tuple[list[Batch], Birth, int], share: Fraction
) -> None:
    batches, birth, end_ns = case
    cut_ns = int(end_ns * share)
    parts = [
        losses.account(batches, birth, a, b)
        for a, b in itertools.pairwise((0, cut_ns, end_ns))
        if a < b
    ]
    whole, both = losses.account(batches, birth, 0, end_ns), losses.together(parts)
    assert both.stops == whole.stops
    assert both.covered_ns == whole.covered_ns
    for name in ("pbt_ns", "apt_ns", "dark_ns"):
        assert both.facts.get(name, 0) == whole.facts.get(name, 0)


@given(
    st.sampled_from(PackML) | st.none(),
    st.integers(-1, 2) | st.none(),
    st.sampled_from(Mode) | st.none(),
    st.sampled_from(Maintenance) | st.none(),
)
def test_there_is_a_reason_exactly_where_time_is_known_and_not_production(
    state: PackML | None, order: int | None, mode: Mode | None, maintenance: Maintenance | None
) -> None:
    where = iso22400.element(state, order, mode, maintenance)
    reason = losses.reason_of(state, order, mode, maintenance)
    assert (reason is None) == (where in (None, iso22400.PRODUCTION))
    if reason is not None:
        assert reason.loss in losses.STOPS
        shown = reason.code.upper() in charts.STATES or f"stop.{reason.code}" in words.WORDS
        assert shown, f"{reason.code} has no name"


def test_a_shift_shared_out_by_hand() -> None:
    # 8 h covered, half an hour not planned; 400 s held, 100 s set up, 50 s starved; 60 s a piece.
    facts = {
        "pbt_ns": 27_000 * NS_PER_S, "apt_ns": 26_450 * NS_PER_S, "aust_ns": 100 * NS_PER_S,
        "adet_ns": 450 * NS_PER_S, "produced": 400, "scrap": 30, "rework": 10,
        "planned_run_us": 24_000 * 1_000_000,
    }  # fmt: skip
    stops = {
        Reason(losses.UNPLANNED, "held"): 400 * NS_PER_S,
        Reason(losses.PLANNED, "resetting"): 100 * NS_PER_S,
        Reason(losses.SUSPENDED, "suspended"): 50 * NS_PER_S,
    }
    one = Account(28_800 * NS_PER_S, facts, stops)
    tree = losses.tree(one)
    found = {name: float(ns / NS_PER_S) for name, ns in tree.losses_ns.items()}
    assert found == {
        "unplanned_stops": 400, "planned_stops": 100, "suspended": 50, "other_stops": 0,
        "reduced_speed": 2_450, "scrap": 1_800, "rework": 600,
    }  # fmt: skip
    assert tree.effective_ns == 21_600 * NS_PER_S
    assert tree.oee == 0.8
    assert tree.closes
    causes = losses.pareto(one)
    assert [cause.reason.code for cause in causes] == ["held", "resetting", "suspended"]
    assert causes[-1].running == 1.0
    twice = losses.tree(losses.together([one, one]))
    assert (twice.oee, twice.closes, twice.covered_ns) == (0.8, True, 2 * tree.covered_ns)


def test_what_counts_no_pieces_has_no_oee_and_its_tree_ends_at_production() -> None:
    facts = {"pbt_ns": 100, "apt_ns": 60, "adet_ns": 40}
    stops = {Reason(losses.SUSPENDED, "suspended"): 40}
    tree = losses.tree(Account(100, facts, stops, counts=False))
    assert (tree.oee, tree.left_ns, tree.closes) == (None, 60, True)
    assert list(tree.losses_ns) == list(losses.STOPS)


@given(st.dictionaries(st.sampled_from([Reason(losses.OTHER, f"r{n}") for n in range(9)]),
                       st.integers(0, 10**15)))  # fmt: skip
def test_a_pareto_begins_with_the_greatest_and_ends_at_the_whole(stops: dict[Reason, int]) -> None:
    causes = losses.pareto(Account(0, {}, stops))
    assert sorted(c.spent_ns for c in causes) == sorted(ns for ns in stops.values() if ns)
    for a, b in itertools.pairwise(causes):
        assert a.spent_ns >= b.spent_ns
        assert a.running <= b.running
    assert not causes or causes[-1].running == 1.0


# charts -----------------------------------------------------------------------------------------

amounts = st.none() | st.floats(-1e6, 1e6)


@st.composite
def windows(draw: st.DrawFn) -> list[Value]:
    """Windows side by side, some of them missing."""
    found: list[Value] = []
    t_ns = 0
    for skip, value in draw(st.lists(st.tuples(st.booleans(), amounts), max_size=30)):
        if not skip:
            found.append(Value(t_ns, t_ns + MINUTE_NS, value))
        t_ns += MINUTE_NS
    return found


def plain(option: Mapping[str, Any]) -> str:
    """An option as it goes to the browser; what JSON has no word for fails."""
    return json.dumps(option, allow_nan=False)


@given(windows())
def test_a_history_shows_every_window_and_joins_nothing_over_a_gap(values: list[Value]) -> None:
    points = charts.stepped(values, PLAIN)
    plain(charts.history([Line("x", points)], Span(0, 1), PLAIN, LOOK, band=Band(0.0, 1.0)))
    for start_ns, end_ns, value in values:
        at = points.index([PLAIN.ms(start_ns), value])
        while points[at + 1][0] == points[at][0]:  # what ended where this begins
            at += 1
        assert points[at + 1] == [PLAIN.ms(end_ns), value]
    for before, after in itertools.pairwise(values):
        if before.end_ns < after.start_ns:
            assert [PLAIN.ms(before.end_ns), None] in points
    told_now = [y for _, y in points if y is not None]
    assert sorted(told_now) == sorted(2 * [v.value for v in values if v.value is not None])
    assert [x for x, _ in points] == sorted(x for x, _ in points)  # type: ignore[type-var]


@given(st.lists(st.floats(-1e9, 1e9), min_size=1), st.floats(0, 1), st.floats(1, 2))
def test_the_axis_reaches_around_all_values_at_round_numbers(
    values: list[float], low: float, high: float
) -> None:
    option = charts.history(
        [Line("x", [[0.0, y] for y in values])], Span(0, 1), PLAIN, LOOK, band=Band(low, high)
    )
    axis = option["yAxis"]
    slack = 1e-6 * max(1.0, *map(abs, values))
    assert axis["min"] <= min(values) + slack
    assert axis["max"] >= max(values) - slack
    assert 0 < (axis["max"] - axis["min"]) / axis["interval"] <= 8


def test_silence_and_blanks_of_a_signal_are_gaps() -> None:
    points = charts.sampled([0, 10**9, 9 * 10**9, 10 * 10**9], [1.0, math.nan, 2.0, 3.0], PLAIN, 3)
    assert points == [[0, 1.0], [1000, None], [1000, None], [9000, 2.0], [10000, 3.0]]


bins = st.dictionaries(st.integers(-LAST, LAST // 2), st.integers(0, 10**6), max_size=60)


@given(bins)
def test_bars_hold_every_message_once_and_ten_milliseconds_lie_between_two(
    counts: dict[int, int],
) -> None:
    found = charts.bars(counts)
    kept = {number: count for number, count in counts.items() if number >= 0 and count}
    assert sum(bar.messages for bar in found) == sum(kept.values())
    for a, b in itertools.pairwise(found):
        assert a.high_ms == b.low_ms
    assert not any(bar.low_ms < 9.9999 and bar.high_ms > 10.0001 for bar in found)
    within = sum(count for number, count in kept.items() if number <= TEN_MS_BIN)
    assert sum(bar.messages for bar in found if bar.high_ms < 10.0001) == within
    plain(charts.histogram([charts.Distribution("x", counts)], LOOK))


@given(bins)
def test_the_table_under_the_histogram_says_what_the_kpis_say(counts: dict[int, int]) -> None:
    found = charts.spread(counts)
    facts = {"delay_bins": {n: c for n, c in counts.items() if n >= 0 and c}}
    every = kpis.load()
    assert found.within == every["within_10ms"].value(facts)
    assert found.p50_ms == every["delay_p50"].value(facts)
    assert found.p99_ms == every["delay_p99"].value(facts)
    assert found.p999_ms == every["delay_p999"].value(facts)


@given(
    st.dictionaries(st.integers(200, LAST // 2), st.tuples(st.integers(0, 99), st.integers(0, 99)))
)
def test_delays_of_the_reader_are_put_back_into_the_bins_they_came_from(
    counts: dict[int, tuple[int, int]],
) -> None:
    told_ = [DelayBin(delay_of(n) / 1e6, up, down) for n, (up, down) in counts.items()]
    both = network.histogram_of(told_, up=True, down=True)
    assert both == {n: up + down for n, (up, down) in counts.items() if up + down}
    assert network.histogram_of(told_, up=True, down=False) == {
        n: up for n, (up, _) in counts.items() if up
    }


def test_an_axis_is_in_the_zone_of_the_edge_and_says_so() -> None:
    summer_ns = 1_783_000_000 * NS_PER_S
    berlin = charts.clock_of(ZoneInfo("Europe/Berlin"), summer_ns)
    assert berlin == Clock(7_200_000, "UTC+02:00")
    assert charts.clock_of(ZoneInfo("America/St_Johns"), 0).name == "UTC-03:30"
    assert charts.clock_of(UTC, summer_ns).name == "UTC"
    assert berlin.t_ns(berlin.ms(summer_ns)) == summer_ns


@given(st.lists(st.floats(0, 1), max_size=8))
def test_each_loss_hangs_from_what_the_one_before_has_left(shares: list[float]) -> None:
    left = [1.0]
    for share in shares:
        left.append(left[-1] - share * left[-1])
    steps = [charts.Step("all", 1.0, "", True, "#000")]
    steps += [charts.Step("loss", a - b, "", False, "#000") for a, b in itertools.pairwise(left)]
    steps += [charts.Step("rest", left[-1], "", True, "#000")]
    option = charts.waterfall(steps, LOOK)
    plain(option)
    ground, length = (series["data"] for series in option["series"])
    for at in range(1, len(steps) - 1):
        assert ground[at] + length[at]["value"] == pytest.approx(left[at - 1] * 100, abs=1e-6)
        assert ground[at] == pytest.approx(left[at] * 100, abs=1e-6)


def test_a_time_line_leaves_blank_what_nobody_knows_and_tells_states_by_more_than_colour() -> None:
    stays = [charts.Stay(0, 10, "EXECUTE"), charts.Stay(10, 20, ""), charts.Stay(20, 30, "HELD"),
             charts.Stay(90, 99, "IDLE")]  # fmt: skip
    lane = charts.Lane("m", stays)
    option = charts.timeline([lane], Span(0, 50), PLAIN, LOOK, "en")
    plain(option)
    drawn = [bar["value"][3] for bar in option["series"][0]["data"]]
    assert [charts.STATES[number] for number in drawn] == ["EXECUTE", "HELD"]
    render = option["series"][0][":renderItem"]
    looks = json.loads(render[render.index("[{") : render.index("}][") + 2])
    signs = {(look["letter"], json.dumps(look["decal"])) for look in looks}
    groups = {shell.DARK.states[name] for name in charts.STATES}
    assert len(signs) >= len(groups), "states of another colour have another letter or pattern"


def test_points_where_a_counter_rose_are_marked_once() -> None:
    t_ns, values = np.array([10, 20, 30, 40]), np.array([1.0, 2.0, math.nan, 4.0])
    at_ns, counts = np.array([5, 15, 20, 35, 40]), np.array([0.0, 0.0, 1.0, 2.0, 3.0])
    marked = asset.risen((t_ns, values), (at_ns, counts))
    assert [column.tolist() for column in marked] == [[20, 40], [2.0, 4.0]]


def test_a_way_counts_standing_still_once() -> None:
    xs = (np.array([0, 1, 2, 3]), np.array([0.0, 0.0, 5.0, math.nan]))
    ys = (np.array([0, 1, 2, 3]), np.array([0.0, 0.0, 1.0, 1.0]))
    assert asset.waypoints({"x_m": xs, "y_m": ys}) == [(0.0, 0.0), (5.0, 1.0)]
    assert asset.waypoints({"x_m": xs}) == []


@given(st.integers(0, 10**14), st.sampled_from(clocks.SPEEDS), st.booleans())
def test_charts_of_a_replay_that_plays_are_a_step_behind_and_of_one_that_stands_are_not(
    t_ns: int, speed: float, playing: bool
) -> None:
    clock = clocks.Clock(10**12, 10**14, open=False, speed=speed)
    clock.seek(t_ns)
    clock.playing = playing
    shown_ns = panels.paced(SimpleNamespace(clock=clock))  # type: ignore[arg-type] - all it needs
    assert clock.start_ns <= shown_ns <= clock.t_ns
    assert clock.t_ns - shown_ns < panels.REDRAWN_S * speed * NS_PER_S
    assert playing or shown_ns == clock.t_ns


# lists ------------------------------------------------------------------------------------------


def standing(name: str, *states: str, alarms: int = 0, oee: float | None = None) -> area.Standing:
    figure = None if oee is None else Row(PRESS, "oee", 0, MINUTE_NS, oee, 1, 0, "1")
    doing = tuple(asset.Doing(state, 0) for state in states)
    who = Asset("works", "casting", "line1", name)
    return area.Standing(who, "casting_cell", 1, doing, figure, None, alarms)


def test_the_worst_comes_first() -> None:
    listed = [
        standing("runs well", "EXECUTE", oee=0.9), standing("runs badly", "EXECUTE", oee=0.2),
        standing("held", "HELD", oee=0.9), standing("rings", "EXECUTE", alarms=1, oee=0.9),
        standing("one of them aborted", "EXECUTE", "ABORTED"), standing("paper"),
        standing("silent", ""),
    ]  # fmt: skip
    found = [one.asset.name for one in area.worst_first(reversed(listed))]
    assert found == ["rings", "one of them aborted", "held", "silent", "runs badly", "runs well",
                     "paper"]  # fmt: skip


def test_below_a_group_is_the_next_level() -> None:
    every = [Asset("s", "a", "l1", "m1"), Asset("s", "a", "l2", "m2"), Asset("s", "b", "l", "m3")]
    site = Asset("s", ALL, ALL, ALL)
    assert area.children(site, every) == [Asset("s", "a", ALL, ALL), Asset("s", "b", ALL, ALL)]
    assert area.children(Asset("s", "a", ALL, ALL), every) == [
        Asset("s", "a", "l1", ALL), Asset("s", "a", "l2", ALL)
    ]  # fmt: skip
    assert area.children(Asset("s", "a", "l1", ALL), every) == every[:1]
    assert area.children(every[0], every) == []


def test_a_change_of_cell_is_a_handover_and_silence_is_none() -> None:
    spans = [CellSpan(0, 5, "c1"), CellSpan(5, 9, "c2"), CellSpan(20, 30, "c2"),
             CellSpan(30, 40, "c1")]  # fmt: skip
    found = network.handovers({"s/a/l/agv": spans, "s/a/l/still": spans[:1]})
    assert [(one.t_ns, one.before, one.after) for one in found] == [
        (30, "c2", "c1"), (5, "c1", "c2")
    ]  # fmt: skip


# the ledger -------------------------------------------------------------------------------------

counts_ = st.integers(0, 10**6)


@given(counts_, counts_, counts_, counts_, counts_, counts_, counts_, counts_)
def test_the_sums_close_for_every_ledger_that_lost_nothing_in_silence(
    on_time: int, late: int, too_late: int, duplicate: int, other_run: int, bad: int, lost: int,
    shed: int,
) -> None:  # fmt: skip
    accepted = on_time + late + too_late
    edge = {
        "received": accepted + duplicate + other_run + bad, "accepted": accepted,
        "duplicate": duplicate, "on_time": on_time, "late": late, "too_late": too_late,
        "rejected:other_run": other_run, "rejected:skewed": bad,
    }  # fmt: skip
    ours = {"made": accepted + bad + lost + shed, "lost:reset": lost, "shed": shed}
    ledger = {"simulator": ours, "edge": edge}
    assert [one.closes for one in health.sums(ledger, ended=True)] == [True] * 3
    less = {"simulator": ours | {"made": ours["made"] + 1}, "edge": edge}
    assert health.sums(less, ended=True)[0].closes is False
    assert health.sums(less, ended=False)[0].closes is None, "one is under way"
    assert health.sums(less, ended=False)[0].rest == 1
    wrong = {"simulator": ours, "edge": edge | {"late": late + 1}}
    assert health.sums(wrong, ended=False)[2].closes is False, "nothing here can be under way"
    told_ = {(what, why): n for what, why, n in health.causes(ledger)}
    assert told_ == {
        key: n
        for key, n in {
            ("lost", "reset"): lost, ("rejected", "other_run"): other_run,
            ("rejected", "skewed"): bad,
        }.items()
        if n
    }  # fmt: skip


def test_a_ledger_that_nobody_told_yet_is_open() -> None:
    found = health.sums({}, ended=False)
    assert [(one.name, one.closes) for one in found] == [("received", None), ("accepted", None)]
    assert health.sums({"simulator": {"made": 5}}, ended=False)[0].closes is None


# truth ------------------------------------------------------------------------------------------


def row(kpi: str, value: float | None) -> Row:
    return Row(PRESS, kpi, 0, MINUTE_NS, value, 60, 0, "1")


def test_an_error_is_held_against_the_bound_of_its_kpi() -> None:
    assert kpis.load()["oee"].accuracy == Accuracy()
    exact = truth_view.judged(row("oee", 0.5), 0.5, "1h")
    assert (exact.error, exact.within, exact.bounds) == (0.0, True, 0.0)
    rounded = truth_view.judged(row("oee", 0.5 + 1e-13), 0.5, "1h")
    assert (rounded.within, rounded.bounds) == (True, 0.0)
    wrong = truth_view.judged(row("oee", 0.6), 0.5, "1h")
    assert (wrong.within, wrong.bounds) == (False, math.inf)
    binned = truth_view.judged(row("delay_p50", 10.04), 10.0, "1h")
    assert binned.within is True
    assert 0 < binned.bounds < 1
    assert truth_view.judged(row("delay_p50", 90.0), 10.0, "order").within is True, "any distance"
    assert truth_view.judged(row("oee", None), 0.5, "1h").within is False
    assert truth_view.judged(row("oee", None), None, "1h").within is None
    assert Judged(None, None, None, known=False).within is None


def test_the_command_is_one_that_a_shell_takes_apart_again() -> None:
    import shlex

    said = shlex.split(truth_view.command_of("/tmp/a b/it's.beilun", row("oee", 0.5)))
    assert said == [
        "beilun", "kpis", "explain", "oee", "/tmp/a b/it's.beilun", "--asset",
        "works/casting/line1/press1", "--window", "1970-01-01T00:00:00Z+1m",
    ]  # fmt: skip


# acknowledgements -------------------------------------------------------------------------------

LOW = Alarm("speed_low", "works/cable/hall1/cl01", 5)


def test_an_operator_acknowledges_once_and_the_recording_is_not_touched(tmp_path: Path) -> None:
    acks = Acks(tmp_path / "day.beilun")
    assert acks.all() == {}
    assert list(tmp_path.iterdir()) == []
    first = acks.give(LOW, who="ana", role="operator", at_ns=7, note="  on my way ")
    assert (first.who, first.at_ns, first.note) == ("ana", 7, "on my way")
    again = acks.give(LOW, who="bo", role="operator", at_ns=9, note="me too")
    assert again == first, "who was first stands"
    other = acks.give(LOW._replace(raised_ns=6), who="bo", role="operator", at_ns=9)
    assert acks.all() == {LOW: first, other.alarm: other}
    assert Acks(tmp_path / "night.beilun").all() == {}
    assert {file.name.split("-")[0] for file in tmp_path.iterdir()} == {"day.beilun.acks"}


@pytest.mark.parametrize("role", ["viewer", "customer", "", "Operator"])
def test_nobody_else_does(tmp_path: Path, role: str) -> None:
    acks = Acks(tmp_path / "day.beilun")
    with pytest.raises(NotAllowed):
        acks.give(LOW, who="eve", role=role, at_ns=7)
    assert list(tmp_path.iterdir()) == []


def test_of_many_at_once_one_is_first_and_all_are_told_the_same(tmp_path: Path) -> None:
    path = tmp_path / "day.beilun"
    found: list[str] = []

    def give(name: str) -> None:
        found.append(Acks(path).give(LOW, who=name, role="operator", at_ns=1).who)

    threads = [threading.Thread(target=give, args=(f"p{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [Acks(path).all()[LOW].who] * 8


def test_a_file_that_is_something_else_is_said_to_be_so(tmp_path: Path) -> None:
    acks = Acks(tmp_path / "day.beilun")
    acks.path.write_text("a letter to my aunt, which is long enough to be read as a header" * 20)
    with pytest.raises(RecordingError, match="acks"):
        acks.all()
    with pytest.raises(RecordingError):
        acks.give(LOW, who="ana", role="operator", at_ns=7)
    assert acks.path.read_text().startswith("a letter")


def test_acknowledgements_lie_where_they_are_told_to(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere" / "acks"
    recording = tmp_path / "day.beilun"
    acks = Acks(recording, folder)
    assert acks.hindrance() is None
    acks.give(LOW, who="ana", role="operator", at_ns=7)
    assert [file.name for file in folder.iterdir()] == ["day.beilun.acks"]
    assert Acks(tmp_path / "night.beilun", folder).all() == {}
    one = Acks(recording, tmp_path / "mine.acks")
    one.give(LOW, who="ana", role="operator", at_ns=7)
    assert (tmp_path / "mine.acks").is_file()
    assert not (tmp_path / "day.beilun.acks").exists()
    blocked = Acks(recording, folder / "day.beilun.acks" / "below")
    assert blocked.hindrance() == folder / "day.beilun.acks"
    with pytest.raises(RecordingError, match="cannot be kept") as caught:
        blocked.give(LOW, who="ana", role="operator", at_ns=7)
    assert "--acks" in caught.value.hint


def test_without_a_place_for_them_the_page_says_so(
    window: chromium.Browser, recorded: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    copy = shutil.copy(recorded, tmp_path / "own.beilun")
    with served(str(copy), "--acks", str(tmp_path / "file")) as address:
        window.cookie(address, beilun_language="en")
        open_at(window, address, "/alarms")
        window.until(lambda: lines(window, "On now"), "the alarm")
        assert "--acks" in window.text(".v-alarms > .v-note")
        window.all(".v-line")[0].click()
        window.until(lambda: window.all(".v-dialog"), "the dialog")
        (off,) = [e for e in window.all(".v-dialog .b-button") if e.text == "Acknowledge"]
        assert not off.is_enabled()
        assert str(tmp_path / "file") in str(off.get_attribute("title"))
        assert str(tmp_path / "file") in window.text(".v-dialog .v-bad")
        window.open("about:blank")


def test_a_note_has_an_end(tmp_path: Path) -> None:
    acks = Acks(tmp_path / "day.beilun")
    said = acks.give(LOW, who="ana", role="operator", at_ns=7, note="x" * 10_000)
    assert len(said.note) == LONGEST_NOTE


def alarm(rule: str, raised_ns: int, *, severity: str, over: bool = False) -> AlarmSpan:
    cleared_ns = raised_ns + 1 if over else None
    return AlarmSpan(rule, PRESS, raised_ns, cleared_ns, severity, {"en": rule}, 1.0)


def test_what_is_on_and_unseen_comes_first(tmp_path: Path) -> None:
    acks = Acks(tmp_path / "day.beilun")
    spans = [
        alarm("over", 90, severity="critical", over=True), alarm("old", 10, severity="warning"),
        alarm("seen", 80, severity="critical"), alarm("new", 50, severity="warning"),
        alarm("bad", 20, severity="critical"), alarm("newer over", 95, severity="info", over=True),
    ]  # fmt: skip
    acks.give(alarms_view.key_of(spans[2]), who="ana", role="operator", at_ns=1)
    found = [one.span.rule for one in alarms_view.listed(spans, acks.all())]
    assert found == ["bad", "new", "old", "seen", "newer over", "over"]


# of a recording ---------------------------------------------------------------------------------

CELLS = [f"ningbo/casting/line1/dcm0{n}" for n in range(1, 5)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve minutes of quickstart; in it two alarms, of which one is over, as the edge would write
    them."""
    path = run(tmp_path_factory.mktemp("views") / "views.beilun", 7, 12)
    line = Asset("ningbo", "cable", "hall1", "cl01")
    cell = Asset("ningbo", "casting", "line1", "dcm02")
    with Recording.create(path) as recording:
        start_ns = int(recording.meta("start_ns") or 0)
        store = RowStore(recording)
        store.write(
            Row(who, f"alarm.{rule}", start_ns + minute * MINUTE_NS, MINUTE_NS, value, 1, 0, "1")
            for who, rule, minute, value in (
                (line, "service_down", 3, 1.0), (line, "service_down", 6, 0.0),
                (cell, "oee_low", 7, 1.0),
            )
        )  # fmt: skip
    return path


@pytest.fixture
def reader(recorded: Path) -> Iterator[Reader]:
    found = Reader(recorded)
    yield found
    found.close()


def test_the_loss_tree_of_every_window_ends_at_the_oee_that_the_edge_wrote(reader: Reader) -> None:
    checked = 0
    for path in (*CELLS, "ningbo/casting", "ningbo"):
        who = tiles_asset(path)
        for label in reader.windows:
            for one in reader.history(who, "oee", label, reader.start_ns, reader.end_ns()):
                start_ns = one.window_start_ns
                end_ns = start_ns + one.window_length_ns
                found = loss_panel.read(reader, who, start_ns, end_ns, label)
                assert found is not None
                tree = losses.tree(found.account)
                assert tree.closes
                assert tree.oee == one.value == (found.row and found.row.value)
                checked += 1
    assert checked > 60


def tiles_asset(path: str) -> Asset:
    from beilun.serving.page.tiles import asset_of

    return asset_of(path)


def test_what_a_machine_does_and_since_when_is_what_its_states_say(reader: Reader) -> None:
    infos = [info for info in reader.assets() if "state" in info.channels]
    assert len(infos) >= 8
    for info in infos:
        for minute in (1, 4, 11):
            t_ns = reader.start_ns + minute * MINUTE_NS
            spans: list[StateSpan] = reader.states(info.asset, reader.start_ns, t_ns)
            doing = asset.doing_at(reader, info, t_ns)
            assert doing is not None
            assert doing.state == spans[-1].state
            since_ns = spans[-1].start_ns
            for span in reversed(spans[:-1]):
                if span.state != doing.state:
                    break
                since_ns = span.start_ns
            assert doing.since_ns in (since_ns, None)


def test_every_kind_has_its_signals(reader: Reader) -> None:
    by_kind: dict[str, set[str]] = {}
    span = Span(reader.start_ns, reader.end_ns())
    for info in reader.assets():
        for trace in asset.traces_of(info):
            found = asset.told(reader, info.asset, trace, span.from_ns, span.to_ns)
            if found.told:
                by_kind.setdefault(info.kind, set()).add(trace.title)
    assert by_kind["casting_cell"] >= {"pressure", "biscuit", "shot_speed", "temperature", "cycle"}
    assert by_kind["cable_line"] >= {"diameter", "speed", "eccentricity", "tension"}
    assert by_kind["robot_arm"] >= {"current", "joint_temperature"}
    assert by_kind["agv"] == {"battery"}


def test_scrap_shots_are_as_many_as_the_counter_says(reader: Reader) -> None:
    trace = next(trace for trace in asset.TRACES if trace.title == "pressure")
    scrap = shots = 0
    for path in CELLS:
        who = tiles_asset(path)
        found = asset.told(reader, who, trace, reader.start_ns, reader.end_ns())
        _, counts = reader.signals(who, ("scrap",), reader.start_ns, reader.end_ns(), 10**6)[
            "scrap"
        ]
        assert len(found.marks[0]) == counts.max()
        scrap += len(found.marks[0])
        shots += len(found.told["pressure_mpa"][0])
    assert 0 < scrap < shots


def test_the_loss_facts_of_a_line_are_those_of_its_machines(reader: Reader) -> None:
    start_ns, end_ns = reader.start_ns, reader.start_ns + 10 * MINUTE_NS
    each = [loss_panel.read(reader, tiles_asset(p), start_ns, end_ns, "1m") for p in CELLS]
    whole = loss_panel.read(reader, tiles_asset("ningbo/casting/line1"), start_ns, end_ns, "1m")
    assert whole is not None
    total: dict[str, Any] = {}
    for one in each:
        assert one is not None
        total = add_facts(total, one.account.facts)
    assert whole.account.facts == total
    assert whole.account.machines == len(CELLS)


def test_an_alarm_is_counted_where_it_belongs(reader: Reader) -> None:
    t_ns = reader.start_ns + 10 * MINUTE_NS
    site = tiles_asset("ningbo")
    found = area.standings(reader, site, "1m", t_ns, lambda _: True)
    assert [(s.asset.area, s.alarms) for s in found if s.alarms] == [("casting", 1)]
    assert found[0].asset.area == "casting"
    earlier = area.standings(reader, site, "1m", reader.start_ns + 5 * MINUTE_NS, lambda _: True)
    assert earlier[0].asset.area == "cable"
    mine = area.standings(reader, site, "1m", t_ns, lambda one: one.area == "cable")
    assert [s.asset.area for s in mine] == ["cable"], "what may not be seen is not there"


# in a browser -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(recorded: Path) -> Iterator[str]:
    chromium.find()
    with served(str(recorded)) as url:
        yield url


window, browser = chromium.desktop(1600, 1000)


def open_at(browser: chromium.Browser, address: str, path: str, **query: str) -> None:
    asked = {"t": "2026-01-05T00:10:00Z", "w": "1m"} | query
    browser.open(address + path + "?" + "&".join(f"{k}={quote(v)}" for k, v in asked.items()))


def lines(browser: chromium.Browser, panel: str) -> list[list[str]]:
    """Cells of the table in a panel with a title."""
    found: list[list[str]] = browser.run(
        "const p = [...document.querySelectorAll('.v-panel')].find("
        "p => p.querySelector('.v-title').textContent === arguments[0]);"
        "return p ? [...p.querySelectorAll('tbody tr')].map("
        "r => [...r.cells].map(c => c.innerText.trim())) : []",
        panel,
    )
    return found


def clicked(browser: chromium.Browser, css: str, text: str) -> bool:
    """Click the first of some elements that has a text, if it is there."""
    return bool(
        browser.run(
            "const e = [...document.querySelectorAll(arguments[0])].find("
            "e => e.textContent.trim() === arguments[1]); e?.click(); return !!e",
            css,
            text,
        )
    )


def charts_drawn(browser: chromium.Browser) -> int:
    """Charts with something on them besides axes."""
    return int(
        browser.run(
            "return [...document.querySelectorAll('.nicegui-echart')].filter("
            "c => c.querySelector('canvas') && getElement(c.id.slice(1)).chart.getOption().series"
            ".some(s => s.data.length)).length"
        )
    )


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize(
    ("path", "focus", "least"),
    [
        ("/area", "", 2), ("/area", "ningbo/casting/line1", 2), ("/asset", CELLS[0], 8),
        ("/asset", "ningbo/cable/hall1/cl01", 8), ("/asset", "ningbo/logistics/fleet/agv01", 3),
        ("/asset", "ningbo/casting/line1/arm02", 4), ("/network", "", 2),
    ],
)  # fmt: skip
def test_every_view_draws_what_it_has(
    browser: chromium.Browser, address: str, path: str, focus: str, least: int, theme: str
) -> None:
    browser.cookie(address, beilun_theme=theme)
    open_at(browser, address, path, **({"at": focus} if focus else {}))
    browser.until(lambda: charts_drawn(browser) >= least, f"{least} charts")


def test_from_the_site_down_to_a_machine_and_back_by_mouse(
    browser: chromium.Browser, address: str
) -> None:
    open_at(browser, address, "/area")
    for step in ("casting", "line1", "dcm02"):
        browser.until(lambda step=step: clicked(browser, ".v-line .v-link", step), step)
    browser.until(lambda: browser.text(".v-here") == "dcm02", "the machine")
    assert "at=ningbo/casting/line1/dcm02" in browser.chrome.current_url
    assert browser.texts(".v-crumbs a") == ["ningbo", "casting", "line1"]
    browser.all(".v-crumbs a")[1].click()
    browser.until(lambda: browser.text(".v-here") == "casting", "the area")
    browser.chrome.back()
    browser.until(lambda: browser.text(".v-here") == "dcm02", "the machine again")


def test_the_error_against_the_truth_is_one_click_away(
    browser: chromium.Browser, address: str, reader: Reader
) -> None:
    open_at(browser, address, "/asset", at=CELLS[0])
    browser.until(lambda: lines(browser, "KPIs"), "KPIs")
    assert lines(browser, "KPIs")[0][0] == "▸ OEE"
    button = next(e for e in browser.all(".v-controls .b-button") if "Error" in e.text)
    button.click()
    browser.until(lambda: "Truth" in browser.texts(".v-dialog dt"), "the truth")
    facts = dict(zip(browser.texts(".v-dialog dt"), browser.texts(".v-dialog dd"), strict=True))
    assert facts["Error"] == "none"
    assert facts["Bound"] == "exact · ✓ holds"
    assert facts["Value"] == facts["Truth"]
    command = browser.text(".v-command code")
    assert command.startswith(f"beilun kpis explain oee {reader.path} --asset {CELLS[0]}")
    open_at(browser, address, "/truth")
    browser.until(lambda: "KPIs of the last 1m windows" in browser.text(".v-lead"), "the list")
    assert len(lines(browser, "What each KPI is off by")) == truth_view.MOST


def test_what_is_shown_moves_with_the_clock_and_nothing_is_built_again(
    browser: chromium.Browser, address: str
) -> None:
    open_at(browser, address, "/area", at="ningbo/casting/line1")
    browser.until(lambda: len(lines(browser, "Worst first")) == 8, "the machines")
    browser.until(lambda: charts_drawn(browser) >= 2, "charts")
    browser.run("document.querySelectorAll('.v-view *').forEach(e => e.dataset.old = '1')")
    before = lines(browser, "Worst first")
    browser.press("ArrowLeft")
    browser.press("ArrowLeft")
    browser.until(lambda: lines(browser, "Worst first") != before, "other values")
    assert not browser.all(".v-view .v-table td:not([data-old])")
    assert not browser.all(".v-view .v-chart:not([data-old])")


def test_the_ledger_is_written_out_and_closes(browser: chromium.Browser, address: str) -> None:
    open_at(browser, address, "/health")
    panel = "Where every message went"
    browser.until(lambda: lines(browser, panel), "the ledger")
    assert all(line[-1] == "✓ closes" for line in lines(browser, panel))


def test_an_operator_acknowledges_with_a_note(
    browser: chromium.Browser, address: str, recorded: Path
) -> None:
    open_at(browser, address, "/alarms")
    browser.until(lambda: lines(browser, "On now"), "the alarm")
    assert [line[2] for line in lines(browser, "On now")] == ["casting/line1/dcm02"]
    assert [line[2] for line in lines(browser, "Over, newest first")] == ["cable/hall1/cl01"]
    browser.all(".v-line")[0].click()
    field = browser.until(lambda: next(iter(browser.all(".v-note-field")), None), "the dialog")
    field.send_keys("die is worn")
    next(e for e in browser.all(".v-dialog .b-button") if e.text == "Acknowledge").click()
    browser.until(lambda: "die is worn" in lines(browser, "On now")[0][5], "the note")
    (given_,) = Acks(recorded).all().values()
    assert (given_.alarm.rule, given_.note) == ("oee_low", "die is worn")
    with sqlite3.connect(f"file:{recorded}?mode=ro", uri=True) as db:
        names = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
    assert "ack" not in names
    open_at(browser, address, "/alarms", t="2026-01-05T00:05:00Z")
    browser.until(
        lambda: [line[2] for line in lines(browser, "On now")] == ["cable/hall1/cl01"],
        "what was on five minutes earlier",
    )


@pytest.fixture(scope="module")
def signed(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    """The same, for people who sign in: a viewer, and a customer of the cable."""
    from beilun.serving.access import make_token

    folder = tmp_path_factory.mktemp("signed")
    copy = Path(shutil.copy(recorded, folder / "own.beilun"))
    file = folder / "tokens.toml"
    words_: dict[str, Any] = {
        "file": file,
        "vera": make_token(file, "vera", "viewer"),
        "carl": make_token(
            file, "carl", "customer", assets=("ningbo/cable/*/*",), orders=("3101",)
        ),
    }
    with served(str(copy), "--tokens-file", str(file)) as url:
        yield url, words_


def sign_in(browser: chromium.Browser, address: str, token: str) -> None:
    browser.open(address + "/sign-in")
    field = browser.until(lambda: next(iter(browser.all("input")), None), "a field")
    field.send_keys(token)
    field.submit()
    browser.until(lambda: browser.all(".b-top"), "the page")


def test_a_viewer_looks_and_acknowledges_nothing(
    window: chromium.Browser, signed: tuple[str, Any]
) -> None:
    address, tokens = signed
    window.cookie(address, beilun_language="en")
    sign_in(window, address, tokens["vera"])
    open_at(window, address, "/alarms")
    window.until(lambda: lines(window, "On now"), "the alarm")
    window.all(".v-line")[0].click()
    window.until(lambda: window.all(".v-dialog"), "the dialog")
    assert not window.all(".v-note-field")
    assert "Acknowledge" not in window.texts(".v-dialog .b-button")
    open_at(window, address, "/asset", at=CELLS[0])
    window.until(lambda: lines(window, "KPIs"), "KPIs")
    next(e for e in window.all(".v-controls .b-button") if "Error" in e.text).click()
    window.until(lambda: window.text(".v-command code"), "the command")
    assert " own.beilun " in window.text(".v-command code"), "and not where it lies"


def test_a_customer_sees_its_cable_and_nothing_else(
    window: chromium.Browser, signed: tuple[str, Any]
) -> None:
    address, tokens = signed
    window.cookie(address, beilun_language="en")
    window.open("about:blank")
    window.hosts()
    sign_in(window, address, tokens["carl"])
    assert not window.all(".b-runs")
    open_at(window, address, "/area", r="here")
    window.until(lambda: lines(window, "Worst first"), "a list")
    assert [line[0] for line in lines(window, "Worst first")] == ["cable"]
    open_at(window, address, "/asset", at="ningbo/cable/hall1/cl01")
    window.until(lambda: charts_drawn(window) >= 4, "its line")
    open_at(window, address, "/asset", at=CELLS[0])
    window.until(lambda: "not yours to see" in window.text(".v-note"), "a refusal")
    for path in ("/alarms", "/network", "/health", "/truth"):
        open_at(window, address, path)
        window.until(lambda: window.all(".v-view"), path)
        seen = window.run("return document.documentElement.outerHTML")
        assert not FOREIGN.search(seen), path
    open_at(window, address, "/", t="2026-01-05T00:05:00Z")
    window.until(lambda: window.all(".b-tile"), "tiles")
    window.press("o")
    window.press("ArrowRight")
    window.until(lambda: "t=2026-01-05T00:06" in window.chrome.current_url, "a minute later")
    assert not FOREIGN.search(window.run("return document.documentElement.outerHTML"))
    assert not window.all(".b-list li")
    frames = window.received()
    assert any("cl01" in frame for frame in frames), "its own did come by socket"
    assert not [found for frame in frames if (found := FOREIGN.search(frame))]


FOREIGN = re.compile(r"dcm\d|arm\d|agv\d|\bcasting/|logistics|radio_cell|oee_low")
"""Assets and rules that are no business of the cable's customer."""


def signed_out(browser: chromium.Browser) -> bool:
    return "/sign-in" in browser.chrome.current_url and bool(browser.all("input[name=token]"))


def test_who_signs_out_or_loses_the_token_is_shown_out_of_every_tab(
    window: chromium.Browser, signed: tuple[str, Any], tmp_path: Path
) -> None:
    address, tokens = signed
    window.cookie(address, beilun_language="en")
    sign_in(window, address, tokens["vera"])
    open_at(window, address, "/area", t="2026-01-05T00:05:00Z")
    cookie = window.chrome.get_cookie("beilun_session")
    assert cookie is not None
    began = time.monotonic()
    httpx.post(f"{address}/sign-out", cookies={"beilun_session": cookie["value"]})
    window.until(lambda: signed_out(window), "the way out", 10)
    assert time.monotonic() - began < 6
    window.all("input[name=token]")[0].send_keys(tokens["vera"])
    window.all("button")[0].click()
    window.until(lambda: window.all(".b-top"), "the page again")
    assert "/area?t=2026-01-05T00:05:00Z" in window.chrome.current_url.replace("%3A", ":")
    file = tokens["file"]
    text = file.read_text()
    try:
        file.write_text(text.replace('name = "vera"', 'name = "gone"'))
        window.until(lambda: signed_out(window), "the way out, without the token", 10)
    finally:
        file.write_text(text)
    window.open("about:blank")
