"""Clocks that jump ahead or back for a while: what it does to KPIs ends with the stretch."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.windows import Every
from edge import kpis
from edge.columns import Columns
from edge.engine import Engine
from edge.gate import Entry, Gate
from edge.kpi import Kpi, bins, number
from edge.kpis.oee import UNIT
from edge.measures import Facts, Measure
from edge.measures.counters import Rise, gather, total
from edge.measures.delays import Delays
from edge.measures.flows import MICRO, Flows
from edge.policy import Policy
from edge.rows import Row
from ingest.bins import bin_of, delay_of
from ingest.messages import (
    Asset,
    Batch,
    Birth,
    Envelope,
    Floats,
    Identity,
    Message,
    Meta,
    Progress,
    Record,
)

S, MS = 10**9, 10**6
T0 = 1_767_571_200 * S
MINUTES = 6
END = T0 + MINUTES * 60 * S
EVERY = 5
"""Samples in a message, one a second."""
DELAY = 8 * MS
STEPPED, STEADY = Asset("s", "a", "l", "m1"), Asset("s", "a", "l", "m2")
POLICY = Policy(windows=(Every(60 * S),))
UNITS = {
    "state": "1", "produced": "1", "scrap": "1", "planned": "1", "order": "1", "pri_s": "s",
    "energy_kwh": "kWh",
}  # fmt: skip


def told(name: str, count: str, measures: tuple[Measure, ...]) -> Kpi:
    """A fact as a KPI, to be looked at from outside."""

    def value(facts: Facts) -> float | None:
        found = number(facts, count)
        return None if found is None else float(found)

    return Kpi(
        name, "1", "A fact.", count, "none", "", ("casting_cell",), (), measures, value, True
    )


def heard(facts: Facts) -> float | None:
    return float(sum(bins(facts, "delay_bins").values()) + (number(facts, "early") or 0))


FACTS = (
    told("planned_ns", "pbt_ns", (UNIT,)),
    told("made", "produced", (UNIT,)),
    told("energy", "energy_kwh", (Flows("energy_kwh"),)),
    replace(told("heard", "early", (Delays(),)), value=heard),
)
KPIS = (*kpis.load().values(), *FACTS)


class Past:
    """All there is, for an engine to read again."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records

    def recall(self, first_ns: int, last_ns: int) -> Sequence[Record]:
        del first_ns, last_ns
        return self.records


def telemetry(asset: Asset, step_ns: int, span: tuple[int, int]) -> list[Message]:
    """A machine's messages, stamped by a clock that is off in ``span``; one that the clock jumped
    under is cut in two, since time runs forward within a message."""
    meta = Meta(Identity(str(asset), 1, 1), T0 + DELAY, T0, "r", "s/c", 1)
    out: list[Message] = [Birth(asset, "casting_cell", T0, UNITS, meta)]

    def off(t_ns: int) -> int:
        return step_ns if span[0] <= t_ns < span[1] else 0

    for first_ns in range(T0, END, EVERY * S):
        t_ns = first_ns + S * np.arange(EVERY, dtype=np.int64)
        second = (t_ns - T0) // S
        sent_ns = int(t_ns[-1])
        channels: dict[str, Floats] = {
            "state": np.where(second % 40 < 30, 6.0, 11.0),
            "produced": (second * 2 + 100).astype(np.float64),
            "scrap": (second // 3 + 1).astype(np.float64),
            "planned": np.ones(EVERY),
            "order": np.ones(EVERY),
            "pri_s": np.full(EVERY, 7.0),
            "energy_kwh": (second + 2_000).astype(np.float64) / 2,
        }
        offs = np.array([off(t) for t in t_ns.tolist()], dtype=np.int64)
        for part in np.split(np.arange(EVERY), np.nonzero(np.diff(offs))[0] + 1):
            seq = len(out) + 1
            identity = Identity(str(asset), 1, seq)
            meta = Meta(identity, sent_ns + DELAY, sent_ns + off(sent_ns), "r", "s/c", seq)
            columns = {name: values[part] for name, values in channels.items()}
            out.append(Batch(asset, "process", t_ns[part] + offs[part], columns, meta))
    return out


def records(step_ns: int, span: tuple[int, int]) -> list[Record]:
    """What both machines sent, in order of arrival, and how far their connection is."""
    messages = [*telemetry(STEPPED, step_ns, span), *telemetry(STEADY, 0, span)]
    found = [(m.meta.arrival_ns, m) for m in messages if isinstance(m, Birth | Batch)]
    said = [
        (t_ns, Progress("s/c", "r", t_ns, 1, 0, {}, 0, t_ns > END, 1))
        for t_ns in range(T0 + 10 * S, END + 31 * S, 10 * S)
    ]
    both = sorted([*found, *said], key=lambda item: item[0])
    return [Record(Envelope("uns", "t", 0, b""), m, i) for i, (_, m) in enumerate(both)]


Rows = dict[tuple[Asset, str, int, int], Row]


def run(found: Sequence[Record], size: int = 1) -> tuple[Rows, Engine]:
    """The last row of every key, and the engine, fed some records at a time."""
    past = Past(())
    engine = Engine(POLICY, KPIS, past, run="r")
    rows: Rows = {}

    def keep(made: Iterable[Row]) -> None:
        rows.update({row.key: row for row in made})

    for start in range(0, len(found), size):
        past.records = found[: start + size]
        engine.feed(found[start : start + size])
        keep(engine.advance())
    keep(engine.finish())
    return rows, engine


@pytest.fixture(scope="module")
def steady() -> Rows:
    rows, _ = run(records(0, (END, END)))
    return rows


def summed(rows: Rows, kpi: str, asset: Asset = STEPPED) -> float:
    return sum(r.value or 0 for r in rows.values() if r.kpi == kpi and r.asset == asset)


stepping = pytest.mark.parametrize("step_ns", [step * S for step in (3, -3, 10, -10, -40)])
SPANS = st.tuples(st.integers(50, 200), st.integers(5, 110)).map(
    lambda at: (T0 + at[0] * S, T0 + (at[0] + at[1]) * S)
)
cheap = settings(max_examples=5, deadline=None)


@stepping
@cheap
@given(span=SPANS)
def test_windows_apart_from_the_stretch_are_as_if_no_clock_had_stepped(
    step_ns: int, span: tuple[int, int], steady: Rows
) -> None:
    rows, engine = run(records(step_ns, span))
    assert engine.ledger.imbalance() == 0
    assert rows.keys() == steady.keys()
    # A message brings the samples of the seconds before it; the first one after tells what is new.
    first = span[0] + min(0, step_ns) - EVERY * S
    last = span[1] + max(0, step_ns) + EVERY * S
    apart = {
        key for key, row in steady.items()
        if last < row.window_start_ns or row.window_start_ns + 60 * S < first
        or row.asset == STEADY
    }  # fmt: skip
    assert any(key[0] == STEPPED for key in apart)
    assert {key: rows[key] for key in apart} == {key: steady[key] for key in apart}


@stepping
@cheap
@given(span=SPANS)
def test_no_second_piece_or_message_is_counted_twice(
    step_ns: int, span: tuple[int, int], steady: Rows
) -> None:
    rows, engine = run(records(step_ns, span))
    for row in rows.values():
        if row.kpi == "planned_ns" and row.asset in (STEPPED, STEADY):
            assert row.value is not None
            assert 0 <= row.value <= 60 * S
    for kpi in ("made", "energy"):
        assert summed(rows, kpi) == summed(steady, kpi)
    ledger = engine.ledger
    site = Asset("s", "-", "-", "-")
    births = 2
    assert summed(rows, "heard", site) == ledger.accepted - births
    sent = [m for r in records(step_ns, span) if isinstance(m := r.message, Batch)]
    good = [m for m in sent if max(lead(m)) <= POLICY.max_skew_ns]
    refused = len(sent) - len(good)
    assert ledger.rejected == ({"skewed": refused} if refused else {})
    assert summed(rows, "early_messages") == sum(lead(m)[1] > 0 for m in good)
    assert ledger.late == sum(POLICY.late(int(m.t_ns[0]), m.meta.arrival_ns) for m in good)


def lead(message: Batch) -> tuple[int, int]:
    """By how much a message's last sample, and its sending, are stamped after its arrival."""
    meta = message.meta
    assert meta.sent_ns is not None
    return int(message.t_ns[-1]) - meta.arrival_ns, meta.sent_ns - meta.arrival_ns


@stepping
@cheap
@given(
    span=SPANS, seed=st.integers(0, 2**32), size=st.sampled_from([40, 200]),
    twice=st.integers(0, 30),
)  # fmt: skip
def test_any_order_and_repetition_gives_the_same_rows(
    step_ns: int, span: tuple[int, int], seed: int, size: int, twice: int
) -> None:
    found = records(step_ns, span)
    straight, _ = run(found)
    dice = random.Random(seed)
    shuffled = [*found, *dice.sample(found, twice)]
    dice.shuffle(shuffled)
    rows, engine = run(shuffled, size)
    assert rows == straight
    assert engine.ledger.imbalance() == 0


@pytest.mark.parametrize(("step_s", "told_ms"), [(3, 2_992), (-3, -3_008), (-40, -40_008)])
def test_the_skew_of_a_clock_is_told_while_it_lasts(step_s: int, told_ms: float) -> None:
    span = (T0 + 65 * S, T0 + 250 * S)
    rows, _ = run(records(step_s * S, span))

    def skew(asset: Asset, minute: int) -> float | None:
        return rows[asset, "clock_skew", 60 * S, T0 + minute * 60 * S].value

    assert skew(STEPPED, 2) == pytest.approx(told_ms, rel=0.005)
    assert skew(STEPPED, 5) == skew(STEADY, 2) == pytest.approx(-8, rel=0.005)
    p50 = rows[STEPPED, "delay_p50", 60 * S, T0 + 120 * S].value
    if step_s > 0:
        assert p50 is None  # nothing that arrives before it was sent tells of a delay
        assert rows[STEPPED, "within_10ms", 60 * S, T0 + 120 * S].value is None
    else:
        assert p50 == pytest.approx(-told_ms, rel=0.005)


def test_a_sending_far_ahead_is_skewed_whatever_its_samples_say() -> None:
    found = records(0, (END, END))
    message = found[10].message
    assert isinstance(message, Batch)
    ahead = replace(message.meta, sent_ns=message.meta.arrival_ns + POLICY.max_skew_ns + 1)
    found[10] = replace(found[10], message=replace(message, meta=ahead))
    _, engine = run(found)
    assert engine.ledger.rejected == {"skewed": 1}


def test_two_samples_of_one_time_are_told_apart_by_their_numbers() -> None:
    """The first sample after a step back stands beside one from before it."""

    def batch(seq: int, produced: float) -> Batch:
        meta = Meta(Identity("m", 1, seq), T0 + seq, T0, "r")
        channels = {"produced": np.array([produced])}
        return Batch(STEPPED, "process", np.array([T0]), channels, meta)

    pair = [batch(2, 7.0), batch(1, 5.0)]
    _, values = Columns(pair, T0, T0 + S).channel("produced")
    assert values.tolist() == [5.0, 7.0]
    assert Flows("produced").fold(Columns(pair, T0, T0 + S)) == Flows("produced").fold(
        Columns(pair[::-1], T0, T0 + S)
    )


# Counters


@given(
    readings=st.lists(st.integers(0, 1_000), min_size=1, max_size=30),
    step=st.integers(-8, 8),
    span=st.tuples(st.integers(0, 30), st.integers(0, 30)),
)
def test_a_counter_counts_what_it_rose_whatever_its_clock_says(
    readings: list[int], step: int, span: tuple[int, int]
) -> None:
    """Stamps of readings ``span`` are off by ``step``: the total is that of good stamps, as long
    as the first reading is still the first."""
    values = sorted(readings)
    stamped = [(i + step * (span[0] <= i < span[1]), i, value) for i, value in enumerate(values)]
    stamped.sort()
    counts = gather((1, Rise(value)) for _, _, value in stamped)
    assert total(counts) == values[-1] - stamped[0][2]


def test_a_machine_started_anew_counts_from_zero_and_its_past_is_over() -> None:
    counts = gather([(1, Rise(10)), (1, Rise(12)), (2, Rise(3)), (1, Rise(13)), (2, Rise(4))])
    assert total(counts) == 2 + 3 + 1


def test_a_counter_that_outlives_a_restart_goes_on() -> None:
    assert total(gather([(1, Rise(10)), (2, Rise(12)), (2, Rise(15))])) == 5


def test_without_numbers_every_fall_is_a_reset() -> None:
    assert total(gather([(0, Rise(10)), (0, Rise(12)), (0, Rise(3)), (0, Rise(4))])) == 2 + 3 + 1


@given(
    values=st.lists(st.integers(0, 10**6), min_size=1, max_size=20),
    starts=st.lists(st.integers(0, 3), min_size=20, max_size=20),
)
def test_columns_count_as_readings_one_by_one(values: list[int], starts: list[int]) -> None:
    numbered = all(starts[: len(values)])
    starts = starts if numbered else [0] * len(starts)
    batches = [
        Batch(
            STEPPED, "process", np.array([T0 + i]), {"x": np.array([float(value)])},
            Meta(Identity("m", start, i), T0 + i, resolution="seq" if numbered else "content"),
        )
        for i, (value, start) in enumerate(zip(values, starts, strict=False))
    ]  # fmt: skip
    state = Flows("x").fold(Columns(batches, T0 - 1, T0 + S))
    one_by_one = zip(starts, values, strict=False)
    assert state == gather((start, Rise(value * MICRO)) for start, value in one_by_one)


# Bins


@given(delay_ns=st.integers(1, 10**13))
def test_a_negative_delay_has_the_bin_of_its_amount_below_zero(delay_ns: int) -> None:
    ahead, behind = bin_of(np.array([-delay_ns, delay_ns], dtype=np.int64)).tolist()
    assert ahead == -1 - behind
    assert delay_of(ahead) == -delay_of(behind)


def test_a_skewed_message_that_comes_again_is_a_duplicate() -> None:
    gate = Gate(Policy(), "r")
    asset = Asset("k", "a", "l", "m")
    meta = Meta(Identity("m", 1, 1), T0, T0, "r", "c", 1)
    batch = Batch(asset, "process", np.array([T0 + 60 * S]), {}, meta)
    record = Record(Envelope("uns", "t", T0, b""), batch, 7)
    assert [gate.admit(record, batch) for _ in range(3)] == [
        Entry.REJECTED, Entry.DUPLICATE, Entry.DUPLICATE
    ]  # fmt: skip
    assert gate.ledger.imbalance() == 0
    assert (gate.ledger.rejected.total(), gate.ledger.duplicate) == (1, 2)
