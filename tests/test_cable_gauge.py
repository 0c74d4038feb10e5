"""The gauge loop of a cable line: dead time is distance, control takes back what it can see, and
the cable does not depend on how it is looked at."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.messages import Floats
from simulator.plant.gauge_loop import Band, Fault, GaugeLoop, drift

STEP_M, GAUGE_M = 10.0, 30.0
WIDE = Band(-1e9, 1e9, -1e9, 1e9)


def jump(after: int, by_mm: float) -> Iterator[Fault]:
    """Nothing, and from a step on a deviation that stays."""
    n = 0
    while True:
        yield Fault(by_mm if n >= after else 0.0, 0.0, 0.0)
        n += 1


def straying(seed: int, *, sd_mm: float = 0.3, length_m: float = 2_000.0) -> Iterator[Fault]:
    off = drift(np.random.default_rng(seed), sd_mm, length_m, STEP_M)
    return (Fault(value, 0.0, 0.0) for value in off)


def loop(faults: Iterator[Fault], spoilt: list[tuple[float, float]] | None = None, *,
         gauge_m: float = GAUGE_M, gain: float = 0.4, diameter: Band = WIDE,
         step_m: float = STEP_M, lag_s: float = 0.0) -> GaugeLoop:  # fmt: skip
    note = [] if spoilt is None else spoilt
    return GaugeLoop(
        faults, step_m=step_m, gauge_m=gauge_m, gain=gain, diameter=diameter, centring=WIDE,
        lag_s=lag_s, mm_per_flow=2.0, kg_per_m=lambda off: 1.0 + off,
        spoil=lambda a, b: note.append((a, b)),
    )  # fmt: skip


def metres(length_m: float, every_m: float = 0.5) -> Floats:
    return np.arange(0.0, length_m, every_m)


def off_m(spoilt: Sequence[tuple[float, float]]) -> float:
    return sum(b - a for a, b in spoilt)


@given(
    gauge_m=st.floats(5.0, 80.0),
    speed=st.floats(0.015, 2.0),
    delay_s=st.floats(0.0, 4.0),
    gain=st.floats(0.05, 1.0),
)
@settings(max_examples=60)
def test_a_step_is_first_corrected_after_the_dead_time(
    gauge_m: float, speed: float, delay_s: float, gain: float
) -> None:
    cable = loop(jump(5, 0.2), gauge_m=gauge_m, gain=gain)
    cable.advance(300.0, speed, 0.0, delay_s)
    begins_m = 5 * STEP_M
    # its first step must have passed the gauge, and the answer have come back to the head
    answered_m = begins_m + STEP_M + gauge_m + speed * delay_s
    around = np.array([begins_m, begins_m + 1e-3, answered_m - 1e-3, answered_m + 1e-3])
    found = cable.at(around).diameter_mm
    assert found[:3].tolist() == pytest.approx([0.0, 0.2, 0.2])
    assert found[3] == pytest.approx(0.2 * (1.0 - gain))
    dead_s = (answered_m - begins_m) / speed
    assert dead_s >= gauge_m / speed, "dead time is distance over speed"


def test_what_is_left_of_a_step_falls_by_the_gain_with_every_reading() -> None:
    cable = loop(jump(0, 0.5), gain=0.4)
    cable.advance(1_000.0, 1.0, 0.0, 0.0)
    found = cable.at(np.array([GAUGE_M + STEP_M * n + 1e-6 for n in range(1, 20)])).diameter_mm
    assert found.tolist() == pytest.approx([0.5 * 0.6**n for n in range(1, 20)])


def test_no_dead_time_makes_it_swing() -> None:
    """What control knows it has set already is not corrected again."""
    for gauge_m in (5.0, 200.0, 1_500.0):
        cable = loop(jump(0, 1.0), gauge_m=gauge_m, gain=1.0)
        cable.advance(8_000.0, 1.0, 0.0, 0.5)
        found = cable.at(metres(8_000.0)[1:]).diameter_mm
        assert found.min() >= -1e-12
        assert found[-1] == pytest.approx(0.0)
        assert (np.diff(found) <= 1e-12).all()


@given(cuts=st.lists(st.floats(0.1, 1_999.0), max_size=12), delay_s=st.floats(0.0, 3.0))
@settings(max_examples=40)
def test_the_cable_is_the_same_however_it_is_cut(cuts: list[float], delay_s: float) -> None:
    whole_off: list[tuple[float, float]] = []
    parts_off: list[tuple[float, float]] = []
    tight = Band(-0.1, 0.1, -1e9, 1e9)
    whole = loop(straying(3), whole_off, diameter=tight)
    parts = loop(straying(3), parts_off, diameter=tight)
    whole.advance(2_000.0, 1.3, 0.0, delay_s)
    for to_m in [*sorted(cuts), 2_000.0]:
        parts.advance(to_m, 1.3, 0.0, delay_s)
    at = metres(2_000.0)
    assert parts.at(at).diameter_mm.tolist() == whole.at(at).diameter_mm.tolist()
    assert off_m(parts_off) == pytest.approx(off_m(whole_off))


def test_an_open_loop_holds_what_was_set() -> None:
    cable = loop(jump(0, 0.5))
    cable.advance(500.0, 1.0, 0.0, 0.0)
    held = float(cable.at(np.array([499.9])).diameter_mm[0])
    cable.advance(900.0, 1.0, 0.0, None)
    assert set(cable.at(metres(900.0)[1_001:]).diameter_mm) == {held}
    cable.advance(1_500.0, 1.0, 0.0, 0.0)
    assert abs(cable.at(np.array([1_499.9])).diameter_mm[0]) < held / 100


def test_a_longer_dead_time_spoils_more_metres() -> None:
    spoilt = {
        gauge_m: sum(_spoilt_m(seed, gauge_m=gauge_m, delay_s=0.05) for seed in (1, 2, 3))
        for gauge_m in (10.0, 50.0, 200.0, 1_000.0)
    }
    assert list(spoilt.values()) == sorted(spoilt.values())
    assert spoilt[10.0] < 0.5 * spoilt[1_000.0]


def test_a_slower_link_spoils_more_metres_and_milliseconds_do_not_matter() -> None:
    spoilt = {
        delay_s: sum(_spoilt_m(seed, gauge_m=30.0, delay_s=delay_s) for seed in (1, 2, 3))
        for delay_s in (0.005, 0.05, 20.0, 120.0, 600.0)
    }
    assert list(spoilt.values()) == sorted(spoilt.values())
    assert spoilt[0.05] == pytest.approx(spoilt[0.005], rel=0.02), "half a minute hides them"
    assert spoilt[600.0] > 1.5 * spoilt[0.005]


def _spoilt_m(seed: int, *, gauge_m: float, delay_s: float) -> float:
    spoilt: list[tuple[float, float]] = []
    band = Band(-0.1, 0.1, -1e9, 1e9)
    cable = loop(straying(seed), spoilt, gauge_m=gauge_m, diameter=band)
    cable.advance(80_000.0, 1.4, 0.0, delay_s)
    return off_m(spoilt)


def test_uncorrected_it_is_the_process_it_says() -> None:
    values = np.array([next(walk) for walk in [drift(np.random.default_rng(2), 0.3, 500.0, 10.0)]
                       for _ in range(200_000)])  # fmt: skip
    free = len(values) * 10.0 / (2 * 500.0)
    assert values.mean() == pytest.approx(0.0, abs=4 * 0.3 / math.sqrt(free))
    assert values.std() == pytest.approx(0.3, rel=4 / math.sqrt(2 * free))
    after = (values[:-50] * values[50:]).mean() / values.var()
    assert after == pytest.approx(math.exp(-1), abs=0.05)


def test_spoilt_is_what_is_beyond_the_limits_and_nothing_else() -> None:
    spoilt: list[tuple[float, float]] = []
    cable = loop(straying(5), spoilt, gain=0.0, diameter=Band(-0.2, 0.3, -1e9, 1e9))
    cable.advance(5_000.0, 1.0, 0.0, 0.0)
    at = metres(5_000.0) + 0.25
    off = cable.at(at).diameter_mm
    inside = np.zeros(len(at), dtype=bool)
    for a, b in spoilt:
        inside |= (at > a) & (at < b)
    assert inside.tolist() == ((off <= -0.2) | (off >= 0.3)).tolist()
    assert 100.0 < off_m(spoilt) < 4_900.0


def test_an_alarm_comes_when_the_gauge_sees_it_and_a_hand_takes_it_back() -> None:
    band = Band(-0.5, 0.5, -0.4, 0.4)
    cable = loop(jump(7, 0.45), gain=0.0, diameter=band)
    alarm_m = cable.advance(1_000.0, 1.0, 0.0, 0.0, 0.0)
    assert alarm_m is not None
    assert alarm_m == cable.made_m == 7 * STEP_M + STEP_M + GAUGE_M
    cable.correct()
    assert cable.advance(1_000.0, 1.0, 0.0, 0.0, alarm_m) is None
    assert cable.at(np.array([alarm_m - 0.1, alarm_m + 0.1])).diameter_mm.tolist() == (
        pytest.approx([0.45, 0.0])
    )
    quiet = loop(jump(7, 0.45), gain=0.0, diameter=band)
    assert quiet.advance(1_000.0, 1.0, 0.0, 0.0) is None, "nobody listens"


def test_a_line_that_speeds_up_is_ahead_of_its_screws_and_control_does_not_answer() -> None:
    cable = loop(jump(0, 0.0), lag_s=1.0)
    cable.advance(100.0, 1.0, 0.0, 0.0)
    cable.advance(120.0, 1.0, 0.05, 0.0)  # two steps at 0.05 m/s2
    cable.advance(600.0, math.sqrt(1.0 + 2 * 0.05 * 20.0), 0.0, 0.0)
    found = cable.at(np.array([99.0, 100.1, 110.1, 120.1, 500.0])).diameter_mm
    assert found[[0, 3, 4]].tolist() == [0.0, 0.0, 0.0]
    assert found[1] == pytest.approx(-2.0 * 0.05 / math.sqrt(1.0 + 2 * 0.05 * 5.0))
    assert found[2] == pytest.approx(-2.0 * 0.05 / math.sqrt(1.0 + 2 * 0.05 * 15.0))


def test_what_was_put_on_is_the_integral_and_forgetting_changes_nothing() -> None:
    cable = loop(straying(4))
    cable.advance(3_000.0, 1.4, 0.0, 0.1)
    fine = metres(3_000.0, 0.01)
    summed = np.concatenate(([0.0], np.cumsum(cable.at(fine).kg_per_m[:-1] * np.diff(fine))))
    whole = cable.kg(fine)
    assert np.abs(summed - whole).max() < 0.01
    late = metres(3_000.0)[4_000:]
    before = cable.at(late)
    cable.forget(float(late[0]))
    cable.forget(100.0)
    assert all((a == b).all() for a, b in zip(before, cable.at(late), strict=True))
    assert (cable.kg(fine) == whole).all()
    assert len(cable._d) < 250
    # asked for often or once, the cable weighs the same
    piecewise = loop(straying(4))
    for to_m in range(50, 3_001, 50):
        piecewise.advance(float(to_m), 1.4, 0.0, 0.1)
        piecewise.kg(np.array([to_m - 1.0]))
        piecewise.forget(to_m - 40.0)
    assert piecewise.kg(fine[-1:])[0] == whole[-1]
