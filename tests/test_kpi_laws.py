"""Laws that hold for every KPI and every measure there is, now and later."""

import itertools
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import kpis
from edge.columns import Columns
from edge.kpi import Kpi, ratio
from edge.measures import Fact, Measure, add_facts, tailored
from edge.measures.delays import Delays
from edge.measures.levels import Levels
from edge.measures.sums import Sums
from edge.measures.warmups import Warmups
from ingest.messages import Asset, Batch, Birth, Identity, Meta

ASSET = Asset("s", "a", "l", "m")
BORN = Meta(Identity("m", 1, 1), 0)
SPAN = 120
LINK = ("bin", "count", "down")
KPIS = list(kpis.load().values())
MEASURES = list({m.name: m for kpi in KPIS for m in kpi.measures}.values())

VALUES = {
    "state": st.one_of(st.integers(1, 17), st.sampled_from([0, 3, 3, 6, 6, 10, 11, 99])),
    "mode": st.integers(0, 5),
    "maintenance": st.integers(0, 3),
    "driving": st.integers(0, 1),
    "loaded": st.integers(0, 1),
    "uplink_misses": st.integers(0, 50),
    "downlink_misses": st.integers(0, 50),
    "waiting": st.integers(0, 1),
    "attending": st.integers(5, 9),
    "working": st.integers(0, 5),
    "heads": st.sampled_from([0, 2, 2.5, 600]),
    "value_cny": st.sampled_from([0.0, 1.25, 130.0]),
    "quantity": st.integers(0, 500),
    "planned_scrap": st.sampled_from([0, 1, 12.5]),
    "co2_kg_per_kwh": st.sampled_from([0.0, 0.5703, 0.21]),
    "eccentricity_ratio": st.sampled_from([0.0, 0.031, 0.05]),
    "battery_ratio": st.sampled_from([0.0, 0.4075, 1.0]),
    "cycle_s": st.sampled_from([0.0, 59.5, 60.125]),
    "planned": st.integers(0, 1),
    "mission": st.integers(0, 1),
    "protective_stop": st.integers(0, 1),
    "grip_lost": st.integers(0, 1),
    "uplink_up": st.integers(0, 1),
    "downlink_up": st.integers(0, 1),
    "order": st.integers(0, 3),
    "pri_s": st.sampled_from([0.0, 30.0, 60.5]),
}
SUMMED = st.integers(0, 10**15)
COUNTERS = {
    "produced", "scrap", "rework", "inspected", "first_pass", "entered", "left", "scrapped",
    "age_piece_s", "length_m", "scrap_m", "energy_kwh", "spark_faults", "consumed", "good",
    "integrated_good", "production_loss", "storage_loss", "other_loss",
    "uplink_failures", "downlink_failures", "orders_finished", "lead_order_s", "melt_kg",
}  # fmt: skip
COHERENT = {
    "quality_ratio", "scrap_ratio", "rework_ratio", "first_pass_yield", "warm_up_scrap_ratio",
    "finished_goods_ratio", "integrated_goods_ratio", "production_loss_ratio",
    "storage_loss_ratio", "other_loss_ratio", "good_length", "line_speed", "wip",
    "wip_turnover_days", "wip_inventory_days", "inventory_turns", "throughput", "output",
}  # fmt: skip
"""Ratios and differences of counters: they lie in their range if the counters do not contradict
one another, as random ones do. ``test_iso22400`` has such that do not."""


def channel_values(name: str) -> st.SearchStrategy[Any]:
    """Plausible readings of a channel, blanks included."""
    if name in COUNTERS:
        return st.one_of(st.integers(0, 50), st.just(math.nan))
    if name.startswith("hop_"):
        return st.one_of(SUMMED, st.just(math.nan))
    return st.one_of(VALUES.get(name, st.integers(-50, 50)), st.just(math.nan))


@st.composite
def samples(draw: st.DrawFn, measure: Measure) -> list[Batch]:
    """A few batches of the channels a measure reads, of senders with numbers or without."""
    names = measure.channels or LINK
    batches: list[Batch] = []
    wip = isinstance(measure, Levels)
    together = wip or isinstance(measure, Sums | Delays)  # they come in one row
    resolution = draw(st.sampled_from(["seq", "content"]))
    for seq in range(draw(st.integers(0, 6))):
        chosen: Sequence[str] = names if together else [draw(st.sampled_from(names))]
        if isinstance(measure, Warmups):
            chosen = draw(st.sampled_from([("state",), ("produced", "scrap"), names]))
        times = sorted(draw(st.lists(st.integers(0, SPAN), min_size=1, max_size=5)))
        columns = {
            name: np.array(
                [draw(st.integers(0, 50) if wip else channel_values(name)) for _ in times],
                dtype=np.float64,
            )
            for name in chosen
        }
        sent = draw(st.integers(times[-1], SPAN))
        boot = draw(st.integers(1, 3))
        arrival = sent + draw(st.integers(-(10**5), 10**8))
        meta = Meta(Identity("m", boot, seq), arrival, sent, resolution=resolution)
        t_ns = np.array(times, dtype=np.int64)
        stream = "link" if isinstance(measure, Sums | Delays) else "event"
        batches.append(Batch(ASSET, stream, t_ns, columns, meta))
    return batches


def fold(measure: Measure, batches: Sequence[Batch], start: int, end: int) -> Any:
    return measure.fold(Columns(batches, start, end))


many = settings(max_examples=25, deadline=None)
few = settings(max_examples=6, deadline=None)
"""There are many KPIs of the same few measures."""


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.name)
class TestEveryMeasure:
    @many
    @given(data=st.data())
    def test_zero_is_neutral(self, measure: Measure, data: st.DataObject) -> None:
        state = fold(measure, data.draw(samples(measure)), 0, SPAN)
        assert measure.merge(measure.zero(), state) == state
        assert measure.merge(state, measure.zero()) == state

    @many
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

    @many
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

    @many
    @given(data=st.data(), order=st.randoms(use_true_random=False))
    def test_the_order_of_batches_does_not_matter(
        self, measure: Measure, data: st.DataObject, order: Any
    ) -> None:
        batches = data.draw(samples(measure))
        shuffled = list(batches)
        order.shuffle(shuffled)
        assert fold(measure, batches, 0, SPAN) == fold(measure, shuffled, 0, SPAN)

    @many
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

    @many
    @given(data=st.data(), cut=st.integers(1, SPAN - 1))
    def test_what_an_asset_did_not_announce_changes_nothing(
        self, measure: Measure, data: st.DataObject, cut: int
    ) -> None:
        batches = data.draw(samples(measure))
        channels = {name: "1" for batch in batches for name in batch.channels}
        own = tailored(measure, Birth(ASSET, "machine", 0, channels, BORN))
        assert own.name == measure.name

        def facts(one: Measure) -> Mapping[str, Fact]:
            first, second = fold(one, batches, 0, cut), fold(one, batches, cut, SPAN)
            start = one.merge(one.edge(one.zero(), 0), first)
            return one.facts(one.merge(start, second))

        assert facts(own) == facts(measure)


@pytest.mark.parametrize("kpi", KPIS, ids=lambda kpi: kpi.name)
class TestEveryKpi:
    def test_no_data_has_no_value(self, kpi: Kpi) -> None:
        assert kpi.value({}) is None

    def test_metadata_is_complete(self, kpi: Kpi) -> None:
        assert kpi.name.isidentifier()
        assert kpi.name == kpi.name.lower()
        assert kpi.unit
        assert kpi.summary.endswith(".")
        assert kpi.formula
        assert kpi.clause
        assert kpi.better in ("up", "down", "")
        assert kpi.measures
        assert set(kpi.needs) <= set(kpi.inputs)
        assert kpi.inputs or not kpi.needs  # what any message tells needs no channel
        assert set(kpi.pool) <= set(kpi.kinds)
        least, most = kpi.range
        assert least is None or most is None or least < most

    def test_what_is_announced_is_no_sum(self, kpi: Kpi) -> None:
        """Limits are of one machine, so a KPI that reads them is too."""
        assert not kpi.limited or (kpi.limited in kpi.needs and not kpi.rolls_up)
        channels = dict.fromkeys(kpi.needs, "1")
        kind = kpi.kinds[0] if kpi.kinds else "any"
        assert kpi.applies(kind, channels, kpi.needs)
        assert kpi.applies(kind, channels) == (not kpi.limited)
        if kpi.needs:
            assert not kpi.applies(kind, {}, kpi.needs)

    @few
    @given(data=st.data(), cuts=st.lists(st.integers(1, SPAN - 1), max_size=4, unique=True),
           order=st.randoms(use_true_random=False))  # fmt: skip
    def test_any_cut_and_order_gives_the_same_bits(
        self, kpi: Kpi, data: st.DataObject, cuts: list[int], order: Any
    ) -> None:
        whole: dict[str, Fact] = {}
        pieces: dict[str, Fact] = {}
        marks = [0, *sorted(cuts), SPAN]
        for measure in kpi.measures:
            batches = data.draw(samples(measure))
            start = measure.edge(measure.zero(), 0)
            whole |= measure.facts(measure.merge(start, fold(measure, batches, 0, SPAN)))
            order.shuffle(batches)
            state = start
            for low, high in itertools.pairwise(marks):
                state = measure.merge(state, fold(measure, batches, low, high))
            pieces |= measure.facts(state)
        one, other = kpi.value(whole), kpi.value(pieces)
        assert (one is None) == (other is None)
        assert one is None or other is None or one.hex() == other.hex()

    @few
    @given(data=st.data())
    def test_assets_add_up_in_any_order(self, kpi: Kpi, data: st.DataObject) -> None:
        if not kpi.rolls_up:
            return
        a, b, c = (
            {
                name: fact
                for measure in kpi.measures
                for name, fact in measure.facts(
                    fold(measure, data.draw(samples(measure)), 0, SPAN)
                ).items()
            }
            for _ in range(3)
        )
        assert add_facts(a, {}) == add_facts({}, a) == a
        assert add_facts(a, b) == add_facts(b, a)
        left, right = add_facts(add_facts(a, b), c), add_facts(a, add_facts(b, c))
        assert left == right
        assert kpi.value(left) == kpi.value(right)

    @few
    @given(data=st.data())
    def test_a_value_lies_in_its_range(self, kpi: Kpi, data: st.DataObject) -> None:
        facts: dict[str, Any] = {}
        for measure in kpi.measures:
            facts |= measure.facts(fold(measure, data.draw(samples(measure)), 0, SPAN))
        value = kpi.value(facts)
        assert value is None or math.isfinite(value)
        if value is None or kpi.name in COHERENT:
            return
        least, most = kpi.range
        assert least is None or value >= least
        assert most is None or value <= most


def test_kpi_names_are_sorted_and_unique() -> None:
    assert list(kpis.load()) == sorted(kpis.load())


@given(
    over=st.integers(-(10**30), 10**30),
    under=st.integers(1, 10**30),
    scale=st.one_of(st.integers(1, 10**12), st.fractions(min_value=Fraction(1, 10**9))),
)
def test_a_ratio_is_rounded_once(over: int, under: int, scale: Fraction | int) -> None:
    assert ratio(over, under, scale) == float(Fraction(over, under) * scale)
    assert ratio(None, under) is ratio(over, None) is ratio(over, 0) is None
