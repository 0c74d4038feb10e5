"""Counters that roll over, and readings that are none: what births announce of them."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import kpis
from edge.columns import Columns
from edge.engine import Engine
from edge.measures import Measure, tailored
from edge.measures.counters import Counts, Rise, carried, gather, join, total
from edge.measures.flows import MICRO, Flows
from edge.measures.levels import Levels
from edge.measures.situations import Component, Situations
from edge.measures.warmups import Warmups
from edge.policy import Policy
from ingest.codecs import Unusable
from ingest.codecs.uns import Uns
from ingest.messages import Asset, Batch, Birth, Envelope, Identity, Meta, Progress, Record
from ingest.packml import PackML

S = 10**9
NOW = 1_767_571_200 * S
ME = Asset("s", "a", "l", "m1")
CHANNELS = {"state": "PackML", "produced": "1", "scrap": "1", "energy_kwh": "kWh",
            "planned": "1"}  # fmt: skip
Reading = tuple[int, int]
"""Start and what was read."""


def way(start: int, before: int, now: int, modulus: int | None) -> int:
    """From one reading to the next, in words of its own: of all ways round, the shortest."""
    if start == 0:
        if now >= before:
            return now - before
        turn = modulus is not None and before - now > modulus / 2
        return (now - before) % modulus if turn and modulus else now
    if modulus is None or abs(now - before) <= modulus / 2:
        return now - before
    ways = [(now - before) % modulus, (now - before) % modulus - modulus]
    return min(ways, key=lambda by: (abs(by), by))


def counted(readings: Sequence[Reading], modulus: int | None) -> int:
    """One reading after another."""
    sum_, newest = 0, -1
    at = furthest = last = first = 0
    for start, reading in readings:
        if start < newest:
            continue
        if start > newest:
            if newest >= 0:
                high_before = first + furthest
                high_before = high_before if modulus is None else high_before % modulus
                sum_ += reading - high_before if reading >= high_before else reading
            newest, at, furthest, first = start, 0, 0, reading
        else:
            at += way(start, last, reading, modulus)
            sum_ += max(at - furthest, 0)
            furthest = max(furthest, at)
            if start == 0 and at == furthest:
                first = reading - furthest  # a reset: what it got to is the reading itself
        last = reading
    return sum_


readings = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 11)), max_size=14)
moduli = st.sampled_from([None, 12, 7, 20])


@given(readings, st.booleans(), moduli, st.randoms(use_true_random=False))
def test_any_cut_counts_as_one_reading_after_another(
    readings: list[Reading], numbered: bool, modulus: int | None, dice: Any
) -> None:
    told = [(start * numbered, Rise(value, 0, value % 2)) for start, value in readings]
    parts: list[Counts] = [gather([one], modulus) for one in told]
    whole = gather(told, modulus)
    while len(parts) > 1:
        at: int = dice.randrange(len(parts) - 1)
        parts[at : at + 2] = [join(parts[at], parts[at + 1], modulus)]
    assert (parts[0] if parts else ()) == whole
    assert total(whole, modulus) == counted([(s, r.to) for s, r in told], modulus)
    cut = dice.randint(0, len(told))
    before, after = gather(told[:cut], modulus), gather(told[cut:], modulus)
    apart = total(before, modulus) + total(join(carried(before), after, modulus), modulus)
    assert apart == total(whole, modulus)


@st.composite
def lives(draw: st.DrawFn) -> tuple[list[Reading], list[Reading], int]:
    """What a counter with a modulus read and what one without would have, and the modulus: two
    readings a turn and more, and it says 0 when it starts anew."""
    modulus = draw(st.sampled_from([4, 10, 65]))
    rise = st.integers(0, (modulus - 1) // 2)
    boots = draw(st.lists(st.lists(rise, max_size=15), min_size=1, max_size=4))
    plain: list[Reading] = []
    for boot, rises in enumerate(boots, 1):
        plain += [(boot, at) for at in itertools.accumulate(rises, initial=0)]
    return plain, [(boot, at % modulus) for boot, at in plain], modulus


@given(lives())
def test_two_readings_a_turn_are_exact_whatever_starts_anew(
    life: tuple[list[Reading], list[Reading], int],
) -> None:
    plain, wrapped, modulus = life
    made = sum(max(b - a, 0) for (s, a), (t, b) in itertools.pairwise(plain) if s == t)
    assert total(gather([(s, Rise(v)) for s, v in wrapped], modulus), modulus) == made
    assert total(gather([(s, Rise(v)) for s, v in plain])) == made


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(-6, 6),
       st.tuples(st.integers(0, 40), st.integers(0, 40)))  # fmt: skip
def test_a_clock_that_steps_counts_no_turn_twice(
    rises: list[int], step: int, span: tuple[int, int]
) -> None:
    """Stamps off by up to 6 readings: at most 39 of a modulus of 90 apart."""
    values = list(itertools.accumulate(rises))
    stamped = [(i + step * (span[0] <= i < span[1]), i, v % 90) for i, v in enumerate(values)]
    stamped.sort()
    counts = gather(((1, Rise(v)) for _, _, v in stamped), 90)
    assert total(counts, 90) == values[-1] - values[stamped[0][1]]


def batch(
    values: Mapping[str, Sequence[float]], times: list[int], boot: int = 1, seq: int = 1
) -> Batch:
    ch = {name: np.array(column, dtype=np.float64) for name, column in values.items()}
    at = NOW + times[-1]
    meta = Meta(Identity("m", boot, seq), at, at, "r", "s/c", seq)
    return Batch(ME, "event", np.array(times, dtype=np.int64) + NOW, ch, meta)


def birth(modulus: Mapping[str, float], **more: Any) -> Birth:
    meta = Meta(Identity("m", 1, 0), NOW, NOW, "r", "s/c", 1)
    return Birth(ME, "casting_cell", NOW, CHANNELS, meta, modulus=modulus, **more)


@given(readings, st.booleans(), moduli)
def test_columns_of_a_register_count_as_readings_one_by_one(
    readings: list[Reading], numbered: bool, modulus: int | None
) -> None:
    measure = Flows("energy_kwh").of(birth({} if modulus is None else {"energy_kwh": modulus}))
    batches = [
        batch({"energy_kwh": [float(v)]}, [i + 1], start, i)
        for i, (start, v) in enumerate(readings)
    ]
    if not numbered:
        batches = [
            replace(b, meta=replace(b.meta, resolution="content", identity=Identity("m", 0, i)))
            for i, b in enumerate(batches)
        ]
    state = measure.fold(Columns(batches, NOW, NOW + S))
    one_by_one = [(start * numbered, Rise(value * MICRO)) for start, value in readings]
    assert state == gather(one_by_one, modulus and modulus * MICRO)


def alike(measure: Measure, announced: Birth, wrapped: list[Batch], plain: list[Batch]) -> None:
    """A measure that knows the modulus makes of one what it makes of the other without."""
    own = tailored(measure, announced)
    facts = [
        one.facts(one.merge(one.fold(Columns(some, NOW, NOW + 15)),
                            one.fold(Columns(some, NOW + 15, NOW + 90))))
        for one, some in ((own, wrapped), (measure, plain))
    ]  # fmt: skip
    assert facts[0] == facts[1]
    assert facts[0]


@given(lives())
def test_situations_and_warm_ups_know_the_modulus(
    life: tuple[list[Reading], list[Reading], int],
) -> None:
    plain, wrapped, modulus = life
    both: list[list[Batch]] = []
    for told in (wrapped, plain):
        some = [batch({"state": [PackML.STARTING]}, [0])]
        for i, (boot, value) in enumerate(told, 1):
            some.append(batch({"produced": [value], "scrap": [0]}, [i], boot, i))
        both.append(some)
    announced = birth({"produced": modulus})
    alike(Situations("made", (Component("state"),), ("produced",),
                     lambda times, rises: {"ns": sum(t for _, t in times),
                                           "n": sum(n for _, _, n in rises)}),
          announced, *both)  # fmt: skip
    if plain[-1][0] == 1:  # a warm-up counts nothing with a fall
        alike(Warmups(), announced, *both)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=30))
def test_a_level_is_what_is_left_whatever_its_counters_read(moves: list[tuple[int, int]]) -> None:
    entered, left = 0, 0
    rows: list[tuple[int, int, int]] = []
    for come, go in moves:
        entered += min(come, 15 - (entered - left))
        left += min(go, entered - left)
        rows.append((entered, left, 0))
    both: list[list[Batch]] = []
    for modulus in (16, 10**6):
        columns = zip(("entered", "left", "scrapped"), zip(*rows, strict=True), strict=True)
        values = {name: [float(v % modulus) for v in column] for name, column in columns}
        both.append([batch(values, list(range(len(rows))))])
    alike(Levels(), birth(dict.fromkeys(("entered", "left", "scrapped"), 16.0)), *both)


class Past:
    def __init__(self, records: list[Record]) -> None:
        self.records = records

    def recall(self, first_ns: int, last_ns: int) -> list[Record]:
        del first_ns, last_ns
        return self.records


Rows = dict[object, tuple[float | None, int, int]]


def rows_of(messages: Sequence[Birth | Batch], order: Sequence[int]) -> Rows:
    """Rows of messages fed in an order, in which some may come twice."""
    records = [Record(Envelope("uns", "t", 0, b""), m, i) for i, m in enumerate(messages)]
    engine = Engine(Policy(), tuple(kpis.load().values()), Past(records), run="r")
    found: Rows = {}

    def keep(rows: Any) -> None:
        found.update({row.key: (row.value, row.n, row.late) for row in rows})

    for at in order:
        engine.feed([records[at]])
        keep(engine.advance())
        if at % 5 == 0:  # so that some come to closed windows
            done = Progress("s/c", "r", NOW + at * 10 * S, 1, 0, {}, 0, False, 1)
            engine.feed([Record(Envelope("uns", "t", 0, b""), done)])
            keep(engine.advance())
    end = Progress("s/c", "r", NOW + 600 * S, 1, 0, {}, 0, True, 1)
    engine.feed([Record(Envelope("uns", "t", 0, b""), end)])
    keep(engine.finish())
    return found


@settings(max_examples=15, deadline=None)
@given(lives(), st.randoms(use_true_random=False))
def test_rows_are_those_of_a_counter_without_end_in_any_order(
    life: tuple[list[Reading], list[Reading], int], dice: Any
) -> None:
    plain, wrapped, modulus = life
    found: list[Rows] = []
    for told, moduli in ((wrapped, {"produced": modulus}), (plain, dict[str, int]())):
        messages: list[Birth | Batch] = [birth(moduli)]
        for i, (boot, value) in enumerate(told):
            ch = {"state": [6.0], "planned": [1.0], "produced": [float(value)], "scrap": [0.0]}
            messages.append(batch(ch, [5 * i * S], boot, i + 1))
        order = list(range(len(messages)))
        found.append(rows_of(messages, order))
        order += dice.sample(order, dice.randint(0, len(order)))
        dice.shuffle(order)
        found.append(rows_of(messages, order))
    assert found[0] == found[1] == found[2] == found[3]
    made = sum(max(b - a, 0) for (s, a), (t, b) in itertools.pairwise(plain) if s == t)
    assert (found[0][ME, "output", 3_600 * S, NOW][0] or 0) == made


def test_a_sentinel_is_no_reading_of_a_counter_or_a_sensor() -> None:
    def told(values: Sequence[float]) -> list[Batch]:
        return [
            batch({"state": [6.0], "planned": [1.0], "produced": [v]}, [5 * i * S], 1, i + 1)
            for i, v in enumerate(values)
        ]

    sentinels = {"produced": (4_294_967_295.0, -1.0)}
    spiky = told((0, 1, 4_294_967_295, 2, 5, -1))
    plain = told((0, 1, math.nan, 2, 5, math.nan))
    order = range(7)
    expected = rows_of([birth({}), *plain], order)
    assert rows_of([birth({}, sentinels=sentinels), *spiky], order) == expected
    assert rows_of([birth({}), *spiky], order) != expected


class TestBirth:
    def decoded(self, **more: object) -> Birth:
        said = {"kind": "k", "t_ns": NOW, "ch": {"produced": "1", "die_c": "degC"}, **more}
        payload = msgspec.json.encode(said)
        (message,) = Uns().decode(Envelope("uns", "beilun/v1/s/a/l/m1/birth", NOW, payload))
        assert isinstance(message, Birth)
        return message

    def test_it_announces_where_counters_begin_again_and_what_is_no_reading(self) -> None:
        told = self.decoded(modulus={"produced": 65536}, sentinels={"die_c": [0, 1449]})
        assert told.modulus == {"produced": 65_536.0}
        assert told.sentinels == {"die_c": (0.0, 1_449.0)}
        assert not self.decoded().modulus
        assert not self.decoded().sentinels

    @pytest.mark.parametrize(
        "more",
        [
            {"modulus": {"produced": 0}},
            {"modulus": {"produced": -5}},
            {"modulus": {"pieces": 5}},
            {"modulus": 5},
            {"sentinels": {"pieces": [5]}},
            {"sentinels": {"die_c": 5}},
        ],
    )
    def test_what_makes_no_sense_is_refused(self, more: dict[str, object]) -> None:
        with pytest.raises(Unusable, match="bad_shape"):
            self.decoded(**more)
