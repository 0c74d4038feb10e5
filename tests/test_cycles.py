"""Cycles as columns: energy and phase by arithmetic, temperatures and noise for any spacing."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.units import NS_PER_S
from simulator.cycles import Cycles, Phase, Warmth
from simulator.device import KWH_NJ, Ints, Meter, Stretch
from simulator.lags import lagged, noise

PHASES = (Phase(80_000, 60_000), Phase(1_000, 900_000), Phase(500_000, 20_000),
          Phase(419_000, 9_000))  # fmt: skip
IDLE_W = 14_000
Part = tuple[int, int, int, int]
"""Gap before it, its cycle, its offset in it, and how long it runs."""


@st.composite
def parts(draw: st.DrawFn) -> list[Part]:
    out: list[Part] = []
    for _ in range(draw(st.integers(0, 150))):
        gap_ns = draw(st.sampled_from((0, 0, 1, 7_000_000_001)))
        cycle_ns = draw(st.integers(1, 90 * NS_PER_S))
        whole = draw(st.booleans())
        offset_ns = 0 if whole else draw(st.integers(0, cycle_ns - 1))
        runs_ns = cycle_ns if whole else draw(st.integers(1, cycle_ns - offset_ns))
        out.append((gap_ns, cycle_ns, offset_ns, runs_ns))
    return out


def both(listed: list[Part]) -> tuple[Cycles, Meter, list[tuple[int, int]], int]:
    """The log, a meter that is told of every phase, when each phase begins, and the end."""
    cycles, meter, t_ns = Cycles(0, IDLE_W, PHASES), Meter(0, IDLE_W, KWH_NJ), 0
    phases = [(0, 0)]
    for gap_ns, cycle_ns, offset_ns, runs_ns in listed:
        t_ns += gap_ns
        cycles.log_part(t_ns, runs_ns, cycle_ns, offset_ns)
        share = 0
        for number, phase in enumerate(PHASES, 1):
            low = max(share * cycle_ns // 1_000_000, offset_ns)
            share += phase.ppm
            high = min(share * cycle_ns // 1_000_000, offset_ns + runs_ns)
            if low < high:
                meter.set(t_ns + low - offset_ns, phase.watts)
                phases.append((t_ns + low - offset_ns, number))
        t_ns += runs_ns
        meter.set(t_ns, IDLE_W)
        phases.append((t_ns, 0))
    return cycles, meter, phases, t_ns


@settings(deadline=None, max_examples=25)
@given(parts(), st.integers(0, 2**32))
def test_the_energy_is_the_exact_sum_over_all_phases(listed: list[Part], seed: int) -> None:
    cycles, meter, phases, end_ns = both(listed)
    rng = np.random.default_rng(seed)
    marks = [t for t, _ in phases] + [t - 1 for t, _ in phases[1:]]
    times = np.sort(np.append(rng.integers(0, end_ns + NS_PER_S, 50), marks)).astype(np.int64)
    assert cycles.at(times).tolist() == meter.at(times).tolist()
    assert [cycles.get(int(t)) for t in times[::17]] == meter.at(times[::17]).tolist()
    assert np.diff(cycles.at(times)).min(initial=0) >= 0
    late = times[times > end_ns // 2]
    assert cycles.at(late).tolist() == meter.at(late).tolist(), "wherever one begins to look"


@settings(deadline=None, max_examples=20)
@given(parts())
def test_a_phase_begins_at_its_bound(listed: list[Part]) -> None:
    cycles, _, phases, _ = both(listed)
    known = dict(phases)  # of several at one time the last one is true
    times = np.array(sorted(known), dtype=np.int64)
    assert cycles.follow(times)[0].tolist() == [known[t] for t in times.tolist()]
    between = times[:-1][np.diff(times) > 1]
    assert cycles.follow(between + 1)[0].tolist() == [known[t] for t in between.tolist()]


def test_energy_of_weeks_at_megawatts_does_not_overflow() -> None:
    cycles = Cycles(0, 500_000, (Phase(1_000_000, 2_000_000),))
    cycles.log(0, np.full(100 * 1440, 60 * NS_PER_S))
    end = np.array([100 * 86_400 * NS_PER_S])
    assert cycles.at(end)[0] == 2_000 * 100 * 24 * 100_000
    assert cycles.at(2 * end)[0] == 2_500 * 100 * 24 * 100_000


def test_cycles_are_logged_one_by_one_or_as_columns() -> None:
    rng = np.random.default_rng(1)
    lengths: Ints = rng.integers(NS_PER_S, 60 * NS_PER_S, 300)
    one, many = Cycles(0, IDLE_W, PHASES), Cycles(0, IDLE_W, PHASES)
    starts = 5 + np.concatenate(([0], np.cumsum(lengths)[:-1]))
    for start_ns, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        one.log_part(start_ns, length, length)
    many.log(5, lengths[:100])
    many.log(int(starts[100]), lengths[100:])
    times = np.arange(0, int(starts[-1]) + 60 * NS_PER_S, NS_PER_S)
    assert one.at(times).tolist() == many.at(times).tolist()
    assert one.follow(times)[0].tolist() == many.follow(times)[0].tolist()


def test_phases_add_up_to_the_cycle_and_the_idle_draw_never_changes() -> None:
    with pytest.raises(ValueError, match="add up"):
        Cycles(0, 1, PHASES[:2])
    with pytest.raises(ValueError, match="idle draw"):
        Cycles(0, 1, PHASES).set(3, 2)


# Lags


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 40), st.floats(-1e3, 1e3)), max_size=120),
       st.floats(-1e3, 1e3))  # fmt: skip
def test_a_lag_is_its_recursion(steps: list[tuple[float, float]], start: float) -> None:
    value, wanted = start, list[float]()
    for step, goal in steps:
        value = goal + (value - goal) * math.exp(-step)
        wanted.append(value)
    taken, goals = np.array(steps).reshape(-1, 2).T
    assert lagged(np.array(start), goals, taken).tolist() == pytest.approx(wanted, abs=1e-8)


def test_noise_has_deviation_one_and_its_memory_at_any_spacing() -> None:
    rng, n = np.random.default_rng(2), 200_000
    for step in (0.003, 0.1, 1.0, 200.0):
        values = noise(0.0, rng.standard_normal(n), np.full(n, step))
        keeps = math.exp(-step)
        free = n * (1 - keeps) / (1 + keeps)  # readings as good as independent
        if free > 500:
            assert np.std(values) == pytest.approx(1.0, rel=4 / math.sqrt(2 * free))
        stays = values[1:] - keeps * values[:-1]
        assert np.std(stays) == pytest.approx(math.sqrt(1 - keeps**2), rel=4 / math.sqrt(2 * n))


def shifts() -> Cycles:
    """An hour of cycles after an hour of rest, twice."""
    cycles = Cycles(0, IDLE_W, PHASES)
    for hour in (1, 3):
        cycles.log(hour * 3600 * NS_PER_S, np.full(60, 60 * NS_PER_S))
    return cycles


def test_warmth_nears_each_goal_with_its_constant() -> None:
    cold, hot = np.array([20.0, 30.0]), np.array([200.0, 45.0])
    warmth = Warmth(shifts(), cold, hot, cold, 900.0, 2_400.0)
    hours = 3600 * NS_PER_S * np.arange(1, 6)
    values = warmth.follow(Stretch(0, 5 * 3600 * NS_PER_S, hours))
    up, down = math.exp(-3600 / 900), math.exp(-3600 / 2400)
    for row, low, high in zip(values.tolist(), (20.0, 30.0), (200.0, 45.0), strict=True):
        x, wanted = 0.0, [0.0]
        for _ in range(2):
            wanted.append(x := 1 - (1 - x) * up)
            wanted.append(x := x * down)
        assert row == pytest.approx([low + (high - low) * w for w in wanted])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 5 * 3600), max_size=8, unique=True))
def test_warmth_is_the_same_however_it_is_watched(cuts: list[int]) -> None:
    cold, hot = np.array([20.0]), np.array([200.0])
    ends = [0, *sorted(cut * NS_PER_S for cut in cuts), 5 * 3600 * NS_PER_S + 1]
    whole = Warmth(shifts(), cold, hot, cold, 900.0, 2_400.0)
    cut = Warmth(shifts(), cold, hot, cold, 900.0, 2_400.0)
    whole.follow(Stretch(0, ends[-1], np.empty(0, dtype=np.int64)))
    for after_ns, to_ns in pairwise(ends):
        values = cut.follow(Stretch(after_ns, to_ns, np.array([to_ns])))
        assert values[0, -1] == cut.now_c[0]
    assert cut.now_c[0] == pytest.approx(whole.now_c[0], abs=1e-9)
