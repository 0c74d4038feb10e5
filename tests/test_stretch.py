"""Logs and stretches: many entries at once are as one by one, and sampling changes no plant."""

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from beilun.offline import run_offline
from config.errors import ConfigError
from config.scenario import find_scenario
from config.units import NS_PER_S
from ingest.messages import Asset
from simulator.device import (
    PANE_NS,
    Columns,
    Meter,
    Process,
    Steps,
    Stretch,
    World,
    event_reports,
    panes,
)
from simulator.factory import Factory
from simulator.link.link import Link
from simulator.link.profile import load_profile
from simulator.plant import load_plant

START = 1_767_571_200 * NS_PER_S
ME = Asset("s", "a", "l", "m")
WEEK_NS = 7 * 86_400 * NS_PER_S


@st.composite
def entries(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Times that do not run back, some of them equal, and values."""
    times = sorted(draw(st.lists(st.integers(0, 20), max_size=12)))
    return [(t, draw(st.integers(-3, 3))) for t in times]


def split(found: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [t for t, _ in found], [v for _, v in found]


@given(entries(), st.integers(0, 12))
def test_many_entries_are_as_one_by_one(found: list[tuple[int, int]], cut: int) -> None:
    one, many = Steps(0, 0), Steps(0, 0)
    for t, v in found:
        one.set(t, v)
    for part in (found[:cut], found[cut:]):
        many.extend(*split(part))
    times = np.arange(-1, 22)
    assert many.at(times).tolist() == one.at(times).tolist()
    assert [many.get(t) for t in range(22)] == [one.get(t) for t in range(22)]
    assert all(b > a for a, b in zip(many.t, many.t[1:], strict=False))


@given(st.lists(st.integers(0, 299), max_size=200).map(sorted), st.integers(0, 200))
def test_a_counter_of_many_steps_counts_them(times: list[int], cut: int) -> None:
    column, plain, parts = Steps(0, 5), Steps(0, 5), Steps(0, 5)
    column.add_many(np.array(times, dtype=np.int64))
    plain.add_many(times)
    for part in (times[:cut], np.array(times[cut:], dtype=np.int64)):
        parts.add_many(part)
    counted = [5 + sum(u <= t for u in times) for t in range(300)]
    for counter in (column, plain, parts):
        assert [counter.get(t) for t in range(300)] == counted
        assert all(b > a for a, b in pairwise(counter.t))


def test_a_counter_refuses_times_that_run_back() -> None:
    for times in ([12, 11], np.array([12, 11]), [9], list(range(8, 100))):
        with pytest.raises(ValueError, match="time runs back"):
            Steps(10, 0).add_many(times)


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=3), st.integers(0, 9))
def test_virtual_time_runs_as_simpy_runs_it(delays: list[list[int]], cut: int) -> None:
    def life(env: simpy.Environment, seen: list[tuple[int, int]], n: int) -> Process:
        for delay in delays[n]:
            seen.append((int(env.now), n))
            yield env.timeout(delay) | env.timeout(5)

    found: list[list[tuple[int, int]]] = []
    for env in (World(0), simpy.Environment(0)):
        seen: list[tuple[int, int]] = []
        for n in range(len(delays)):
            env.process(life(env, seen, n))
        for t_ns in (cut, 100):
            if isinstance(env, World):
                env.run_to(t_ns)
            else:
                env.run(until=t_ns + 1)
            assert env.now == t_ns + 1
            seen.append((t_ns, -1))
        found.append(seen)
    assert found[0] == found[1]


def test_what_goes_wrong_in_a_life_ends_the_run() -> None:
    def life(env: World) -> Process:
        yield env.timeout(3)
        raise RuntimeError("broken")

    env = World(0)
    env.process(life(env))
    env.run_to(2)
    with pytest.raises(ValueError, match="time runs back"):
        env.run_to(2)
    with pytest.raises(RuntimeError, match="broken"):
        env.run_to(9)


def test_time_never_runs_back_in_a_log() -> None:
    log = Steps(10, 0)
    for times in ((9,), (12, 11)):
        with pytest.raises(ValueError, match="time runs back"):
            log.extend(times, range(len(times)))
    with pytest.raises(ValueError, match="1 times for 2 values"):
        log.extend((11,), (1, 2))


@given(
    st.lists(
        st.tuples(st.integers(0, 100 * WEEK_NS // 7), st.integers(-40_000, 200_000)), max_size=9
    ).map(lambda found: sorted(found, key=lambda each: each[0])),
    st.sampled_from([1_000, 36 * 10**9, 144 * 10**11]),
    st.integers(0, 9),
    st.lists(st.integers(0, 200 * WEEK_NS // 7), min_size=1, max_size=5).map(sorted),
)
def test_a_meter_is_exact_over_months_however_it_is_written(
    found: list[tuple[int, int]], grid: int, cut: int, asked: list[int]
) -> None:
    """Hundreds of kilowatts over a hundred days: the products do not fit 64 bits, the sums do."""
    one, many = Meter(0, 7, grid), Meter(0, 7, grid)
    for t, rate in found:
        one.set(t, rate)
    for part in (found[:cut], found[cut:]):
        many.extend(*split(part))
    begins = [(0, 7), *found]
    ends = [t for t, _ in found] + [10**30]
    exact = [
        sum(rate * max(min(e, t) - b, 0) for (b, rate), e in zip(begins, ends, strict=True))
        for t in asked
    ]
    times = np.array(asked, dtype=np.int64)
    assert one.at(times).tolist() == [int(Fraction(x, grid).__floor__()) for x in exact]
    assert many.at(times).tolist() == one.at(times).tolist()


def test_logs_are_small() -> None:
    """16 bytes an entry, and a fraction more for growth."""
    log = Steps(0, 0)
    for t in range(1, 100_000):
        log.set(t, t)
    sizes = [each.buffer_info()[1] * each.itemsize for each in (log.t, log.v)]
    assert sum(sizes) == 16 * 100_000


@given(st.integers(0, 10**6), st.integers(1, 10**5), st.integers(1, 600))
def test_samples_stand_on_whole_multiples(after_s: int, length_s: int, every_s: int) -> None:
    after_ns, to_ns = after_s * NS_PER_S, (after_s + length_s) * NS_PER_S
    every_ns = every_s * NS_PER_S
    stretch = Stretch.every(after_ns, to_ns, every_ns)
    expected = [t for t in range(after_s + 1, after_s + length_s + 1) if t % every_s == 0][:50]
    assert [t // NS_PER_S for t in stretch.times[:50].tolist()] == expected
    assert not stretch.bundled
    cut = panes(stretch.times)
    assert [i for low, high in cut for i in range(low, high)] == list(range(len(stretch.times)))
    assert all(
        (stretch.times[high - 1] - stretch.times[low]) < max(PANE_NS, 10 * every_ns)
        for low, high in cut
    )


@given(st.lists(st.integers(1, 600), max_size=9, unique=True).map(sorted))
def test_bundled_or_not_the_same_has_happened(times: list[int]) -> None:
    columns: dict[str, Sequence[int | None]] = {
        "a": range(len(times)), "b": [None] * len(times),
    }  # fmt: skip
    single = event_reports(ME, "event", Stretch.every(0, 600), times, columns)
    bundle = event_reports(ME, "event", Stretch.every(0, 600, None), times, columns)
    assert [r.sent_ns for r in single] == times
    assert [r.sent_ns for r in bundle] == [600] * bool(times)

    def rows(reports: Sequence[Any]) -> list[tuple[int, tuple[Any, ...]]]:
        return [
            (t, row)
            for r in reports
            if isinstance(r, Columns)
            for t, row in zip(r.t_ns, zip(*r.ch.values(), strict=True), strict=True)
        ]

    assert rows(single) == rows(bundle)


# a whole factory


def factory(interval_s: int | None, minutes: int, *, pane_s: int = 10) -> Factory:
    """Quickstart on a wire, without its heartbeats."""
    plant = load_plant("quickstart").model_copy(update={"heartbeats": "drawn"})
    return Factory(
        plant,
        Link(load_profile("ethernet"), 1),
        1,
        "r",
        START,
        minutes * 60 * NS_PER_S,
        interval_ns=None if interval_s is None else interval_s * NS_PER_S,
        pane_ns=pane_s * NS_PER_S,
    )


GAUGED = ("diameter", "eccentricity")
WAY = ("delay", "within_", "clock_skew", "early_")
"""What is true of the way of messages, of which there are fewer."""


def test_how_often_signals_are_sampled_changes_no_truth() -> None:
    """But for gauges, which exist only where they are read."""
    truths: list[list[Any]] = []
    for interval_s in (1, 7, 60, None):
        made = factory(interval_s, 40)
        for _ in made.chunks():
            pass
        truths.append([
            row for row in made.truth()
            if "/network/" not in row.asset and not row.kpi.startswith(GAUGED + WAY)
        ])  # fmt: skip
    assert len(truths[0]) > 3_000
    assert all(truth == truths[0] for truth in truths)


def test_events_only_are_few_bundles_and_a_progress_per_pane() -> None:
    made = factory(None, 9 * 60, pane_s=60)
    chunks = list(made.chunks())
    by_topic: defaultdict[str, int] = defaultdict(int)
    for message in (m for chunk in chunks for m in chunk.made):
        by_topic[message.topic] += 1
    events = {t: n for t, n in by_topic.items() if t.endswith("/event")}
    assert events
    assert set(events.values()) == {1}, "nine hours lie in one block of twelve"
    assert not [t for t in by_topic if t.endswith("/process") and by_topic[t] > 2]
    said: defaultdict[str, list[int]] = defaultdict(list)
    for progress in (p for chunk in chunks for p in chunk.progress):
        said[progress.conn].append(progress.arrival_ns)
    assert set(said) == set(made.connections)
    for times in said.values():
        assert np.diff(times).max() <= 60 * NS_PER_S
        assert times == sorted(times)
    for account in made.ledger().values():
        assert account.made == account.published + sum(account.lost.values())


def test_minutes_give_the_same_counts_as_seconds(tmp_path: Any) -> None:
    """From the wire: what is counted by events is the same, however often signals are sampled."""
    rows: list[dict[Any, float | None]] = []
    for telemetry, edge in (
        ("1s", {"windows": ["10m"]}),
        ("1m", {"windows": ["10m"], "lateness": "10m"}),
        ("events", {"windows": ["10m"], "lateness": "12h", "pane": "1m"}),
    ):
        changes = {"length": "20m", "telemetry": telemetry, "network": "ethernet", "edge": edge}
        scenario = find_scenario("quickstart", changes=changes)
        outcome = run_offline(scenario, tmp_path / f"{telemetry}.beilun")
        assert outcome.ending.account.closes
        assert outcome.ending.account.ledger.late == 0
        rows.append({
            r.key: r.value for r in outcome.ending.rows
            if r.kpi in ("output", "throughput", "scrap_ratio", "first_pass_yield", "wip")
        })  # fmt: skip
    assert any(rows[0].values())
    assert rows[1] == rows[0]
    assert rows[2] == rows[0]


def test_what_cannot_be_sampled_is_refused() -> None:
    for telemetry in ("1.5s", "0s", "2d", "often"):
        with pytest.raises(ConfigError, match="telemetry"):
            find_scenario("quickstart", changes={"telemetry": telemetry})
