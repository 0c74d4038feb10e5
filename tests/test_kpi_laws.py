"""Laws that hold for every KPI and every measure there is, now and later."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import kpis
from edge.columns import Columns
from edge.kpi import Kpi
from edge.measures import Measure, add_facts
from ingest.messages import Asset, Batch, Identity, Meta

ASSET = Asset("s", "a", "l", "m")
SPAN = 120
KPIS = list(kpis.load().values())
MEASURES = list({m.name: m for kpi in KPIS for m in kpi.measures}.values())

VALUES = {
    "state": st.integers(1, 17),
    "planned": st.integers(0, 1),
    "mission": st.integers(0, 1),
    "protective_stop": st.integers(0, 1),
    "grip_lost": st.integers(0, 1),
    "uplink_up": st.integers(0, 1),
    "downlink_up": st.integers(0, 1),
    "order": st.integers(0, 3),
    "pri_s": st.sampled_from([0.0, 30.0, 60.5]),
}
COUNTERS = {"produced", "scrap", "entered", "left", "scrapped", "length_m", "scrap_m", "energy_kwh"}


def channel_values(name: str) -> st.SearchStrategy[Any]:
    """Plausible readings of a channel, blanks included."""
    if name in COUNTERS:
        return st.one_of(st.integers(0, 50), st.just(math.nan))
    return st.one_of(VALUES.get(name, st.integers(-50, 50)), st.just(math.nan))


@st.composite
def samples(draw: st.DrawFn, measure: Measure) -> list[Batch]:
    """A few batches of the channels a measure reads."""
    names = measure.channels or ("x",)
    batches: list[Batch] = []
    together = measure.name == "wip"  # its counters come in one row
    for seq in range(draw(st.integers(0, 6))):
        chosen = names if together else [draw(st.sampled_from(names))]
        times = sorted(draw(st.lists(st.integers(0, SPAN), min_size=1, max_size=5)))
        value = st.integers(0, 50) if together else channel_values(chosen[0])
        columns = {
            name: np.array([draw(value) for _ in times], dtype=np.float64) for name in chosen
        }
        sent = draw(st.integers(times[-1], SPAN))
        meta = Meta(Identity("m", 1, seq), sent + draw(st.integers(0, 10**8)), sent)
        t_ns = np.array(times, dtype=np.int64)
        batches.append(Batch(ASSET, "event", t_ns, columns, meta))
    return batches


def fold(measure: Measure, batches: Sequence[Batch], start: int, end: int) -> Any:
    return measure.fold(Columns(batches, start, end))


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.name)
class TestEveryMeasure:
    @given(data=st.data())
    def test_zero_is_neutral(self, measure: Measure, data: st.DataObject) -> None:
        state = fold(measure, data.draw(samples(measure)), 0, SPAN)
        assert measure.merge(measure.zero(), state) == state
        assert measure.merge(state, measure.zero()) == state

    @given(data=st.data(), cut=st.integers(1, SPAN - 1))
    def test_folding_two_halves_is_folding_the_whole(
        self, measure: Measure, data: st.DataObject, cut: int
    ) -> None:
        batches = data.draw(samples(measure))
        halves = measure.merge(fold(measure, batches, 0, cut), fold(measure, batches, cut, SPAN))
        whole = fold(measure, batches, 0, SPAN)
        assert measure.facts(halves) == measure.facts(whole)
        start = measure.edge(measure.zero(), 0)
        assert measure.facts(measure.merge(start, halves)) == measure.facts(
            measure.merge(start, whole)
        )

    @given(data=st.data(), cuts=st.lists(st.integers(1, SPAN - 1), min_size=2, max_size=2))
    def test_merge_is_associative(
        self, measure: Measure, data: st.DataObject, cuts: list[int]
    ) -> None:
        batches = data.draw(samples(measure))
        low, high = sorted(cuts)
        a, b, c = (
            measure.edge(measure.zero(), 0) if start == end else fold(measure, batches, start, end)
            for start, end in ((0, low), (low, max(low, high)), (max(low, high), SPAN))
        )
        if low == high:
            b = measure.zero()
        assert measure.merge(measure.merge(a, b), c) == measure.merge(a, measure.merge(b, c))

    @given(data=st.data(), order=st.randoms(use_true_random=False))
    def test_the_order_of_batches_does_not_matter(
        self, measure: Measure, data: st.DataObject, order: Any
    ) -> None:
        batches = data.draw(samples(measure))
        shuffled = list(batches)
        order.shuffle(shuffled)
        assert fold(measure, batches, 0, SPAN) == fold(measure, shuffled, 0, SPAN)

    @given(data=st.data(), cut=st.integers(1, SPAN - 1))
    def test_an_edge_hands_on_all_that_a_later_stretch_needs(
        self, measure: Measure, data: st.DataObject, cut: int
    ) -> None:
        """Facts of two windows, the second begun from an edge, add up to the facts of both."""
        batches = data.draw(samples(measure))
        first, second = fold(measure, batches, 0, cut), fold(measure, batches, cut, SPAN)
        carried = measure.merge(measure.edge(first, cut), second)
        both = measure.merge(first, second)
        apart = add_facts(measure.facts(first), measure.facts(carried))
        assert {k: v for k, v in apart.items() if v} == {
            k: v for k, v in measure.facts(both).items() if v
        }


@pytest.mark.parametrize("kpi", KPIS, ids=lambda kpi: kpi.name)
class TestEveryKpi:
    def test_no_data_has_no_value(self, kpi: Kpi) -> None:
        assert kpi.value({}) is None

    def test_metadata_is_complete(self, kpi: Kpi) -> None:
        assert kpi.name.isidentifier()
        assert kpi.unit
        assert kpi.summary.endswith(".")
        assert kpi.formula
        assert kpi.clause
        assert kpi.better in ("up", "down", "")
        assert kpi.measures

    @given(data=st.data())
    def test_a_share_lies_between_0_and_1(self, kpi: Kpi, data: st.DataObject) -> None:
        facts: dict[str, Any] = {}
        for measure in kpi.measures:
            facts |= measure.facts(fold(measure, data.draw(samples(measure)), 0, SPAN))
        value = kpi.value(facts)
        assert value is None or math.isfinite(value)
        if kpi.unit == "1" and kpi.name not in ("effectiveness", "oee", "quality_ratio"):
            assert value is None or 0 <= value <= 1


def test_kpi_names_are_sorted_and_unique() -> None:
    assert list(kpis.load()) == sorted(kpis.load())
