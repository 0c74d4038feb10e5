"""Windows of every kind: where they lie, and that the engine fills them as one fold would."""

import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from beilun import verdict
from beilun.cli import main
from beilun.commands.replay import replay
from beilun.composing import edge_header, policy_of, recorded_policy
from beilun.offline import run_offline
from config.errors import ConfigError
from config.scenario import EdgeSettings, Expect, find_scenario
from config.windows import (
    Day,
    Every,
    Order,
    Shift,
    Sliding,
    Span,
    Window,
    labels_of,
    lengths_of,
    lies,
    longest,
    naming,
    ordered,
    shift_minutes,
    spelt,
    window,
)
from edge import engine, kpis
from edge.columns import Columns
from edge.engine import Engine
from edge.measures import add_facts
from edge.policy import Policy
from edge.rows import ALL, ORDER_NUMBER, Key, Row, digest, last_rows, rows_in
from edge.store import RowStore
from ingest.messages import (
    Asset,
    Batch,
    Birth,
    Envelope,
    Identity,
    Message,
    Meta,
    Progress,
    Record,
    Tick,
)
from ingest.recording import Recording

S = 10**9
MINUTE, HOUR, DAY = 60 * S, 3_600 * S, 86_400 * S
THREE = ("06:00", "14:00", "22:00")
ZONES = ("UTC", "Asia/Shanghai", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu",
         "Australia/Lord_Howe", "America/Havana", "Asia/Beirut")  # fmt: skip
"""Among them offsets of 45 minutes, a change of 30, and zones whose clocks change at midnight."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at(zone: str, text: str) -> int:
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))
    return (local - EPOCH) // timedelta(seconds=1) * S


# where they lie ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-28", 24), ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25), ("Asia/Shanghai", "2026-03-29", 24),
        ("Australia/Lord_Howe", "2026-04-05", 24.5), ("America/Havana", "2026-03-08", 23),
        ("America/Havana", "2026-11-01", 25), ("Asia/Beirut", "2026-03-29", 23),
    ],
)  # fmt: skip
def test_a_day_is_as_long_as_its_clocks_say(zone: str, day: str, hours: float) -> None:
    noon = at(zone, f"{day}T12:00")
    (span,) = Day(zone).over(noon, noon + 1)
    assert span.length_ns == hours * HOUR
    local = datetime.fromtimestamp(span.start_ns // S, ZoneInfo(zone))
    assert local.date().isoformat() == day
    before = datetime.fromtimestamp(span.start_ns // S - 1, ZoneInfo(zone))
    assert before.date() < local.date()


def test_the_night_shift_loses_an_hour_and_wins_one() -> None:
    kind = Shift("Europe/Berlin", shift_minutes(THREE))
    lengths = {}
    for day in ("2026-03-27", "2026-03-28", "2026-10-24"):
        start = at("Europe/Berlin", f"{day}T22:00")
        (span,) = kind.over(start, start + 1)
        assert span.start_ns == start
        lengths[day] = span.length_ns // HOUR
    assert lengths == {"2026-03-27": 8, "2026-03-28": 7, "2026-10-24": 9}


def test_a_shift_that_begins_when_the_clocks_skip_begins_an_hour_later() -> None:
    kind = Shift("Europe/Berlin", shift_minutes(("02:30-10:00",)))
    noon = at("Europe/Berlin", "2026-03-29T09:00")
    (span,) = kind.over(noon, noon + 1)
    assert span.start_ns == at("Europe/Berlin", "2026-03-29T03:30")


def test_a_day_that_a_zone_skipped_has_no_window() -> None:
    start = at("Pacific/Apia", "2011-12-28T12:00")
    days = Day("Pacific/Apia").over(start, start + 3 * DAY)
    assert all(a.end_ns == b.start_ns for a, b in itertools.pairwise(days))
    zone = ZoneInfo("Pacific/Apia")
    named = [datetime.fromtimestamp(s.start_ns // S, zone).day for s in days]
    assert named == [28, 29, 31, 1]


def test_time_between_shifts_is_in_none() -> None:
    kind = Shift("Asia/Shanghai", shift_minutes(("08:00-16:00", "22:00-02:00")))
    zone = "Asia/Shanghai"
    assert kind.over(at(zone, "2026-01-05T16:00"), at(zone, "2026-01-05T22:00")) == []
    (night,) = kind.over(at(zone, "2026-01-06T01:59"), at(zone, "2026-01-06T08:00"))
    assert night == (at(zone, "2026-01-05T22:00"), at(zone, "2026-01-06T02:00"))


KINDS = st.one_of(
    st.integers(1, 600).map(lambda n: Every(n * 10 * S)),
    st.tuples(st.integers(1, 60), st.integers(2, 600)).map(
        lambda n: Sliding((n[0] + n[1]) * 10 * S, n[0] * 10 * S)
    ),
    st.sampled_from(ZONES).map(Day),
    st.tuples(st.sampled_from(ZONES), st.sets(st.integers(0, 1_439), min_size=1, max_size=4)).map(
        lambda n: Shift(n[0], shift_minutes([f"{m // 60:02}:{m % 60:02}" for m in n[1]]))
    ),
)


@settings(deadline=None)
@given(KINDS, st.integers(0, 400 * 1_440), st.integers(1, 2 * 1_440))
def test_over_and_ending_agree(kind: Window, minute: int, minutes: int) -> None:
    first = at("UTC", "2026-01-01T00:00") + minute * MINUTE
    last = first + minutes * MINUTE
    spans = kind.over(first, last)
    assert spans == sorted(set(spans))
    assert all(s.start_ns < last and s.end_ns > first for s in spans)
    assert all(s.start_ns % kind.grain_ns == s.end_ns % kind.grain_ns == 0 for s in spans)
    for span in spans[:40]:
        assert span in kind.ending(span.end_ns)
        assert span in kind.over(span.start_ns, span.start_ns + 1)
        assert span in kind.over(span.end_ns - 1, span.end_ns)
        assert span not in kind.over(span.end_ns, span.end_ns + 1)
        assert span.length_ns in lengths_of(kind)
    if not isinstance(kind, Sliding):  # side by side: no gap, no overlap
        assert spans[0].start_ns <= first
        assert spans[-1].end_ns >= last
        assert all(a.end_ns == b.start_ns for a, b in itertools.pairwise(spans))


@settings(deadline=None)
@given(st.one_of(KINDS, st.just(Order())), KINDS, st.integers(-(10**4), 400 * 1_440))
def test_a_span_lies_in_a_kind_where_over_has_it(kind: Window, by: Window, minute: int) -> None:
    """Also asked of windows of another kind, and of spans that are off by a little."""
    t_ns = at("UTC", "2026-01-01T00:00") + minute * MINUTE
    spans = [*kind.over(t_ns, t_ns + 1)[:5], *by.over(t_ns, t_ns + 1)[:5]]
    for (start, end), a, b in itertools.product(spans, (0, 1, -MINUTE), (0, -1, MINUTE)):
        span = Span(start + a, end + b)
        assert lies(kind, span) == (span in kind.over(span.start_ns, span.start_ns + 1))


def test_names_are_looked_up_once_and_the_oldest_forgotten() -> None:
    asked = 0

    def in_use() -> tuple[Window, ...]:
        nonlocal asked
        asked += 1
        return Every(HOUR), Sliding(HOUR, MINUTE), Order()

    names = naming(in_use)
    for _ in range(3):
        assert names(Span(0, HOUR)) == ("1h", "1h/1m")
        assert names(Span(MINUTE, MINUTE + HOUR)) == ("1h/1m",)
        assert names(Span(1, 2)) == ("order",)
    assert asked == 3
    for start_ns in range(2, 20_000):
        assert names(Span(start_ns, start_ns + 1)) == ("order",)
    before = asked
    assert names(Span(19_999, 20_000)) == ("order",)
    assert asked == before
    assert names(Span(0, HOUR)) == ("1h", "1h/1m")
    assert asked == before + 1


@given(st.sampled_from(ZONES), st.integers(0, 400))
def test_shifts_that_tile_a_day_add_up_to_it(zone: str, day: int) -> None:
    noon = at("UTC", "2026-01-01T12:00") + day * DAY
    (whole,) = Day(zone).over(noon, noon + 1)
    kind = Shift(zone, shift_minutes(("00:00", "06:15", "14:15")))
    shifts = [s for s in kind.over(*whole) if s.start_ns >= whole.start_ns]
    assert sum(s.length_ns for s in shifts) == whole.length_ns
    assert len(shifts) == 3


@given(st.lists(st.sampled_from(["1m", "90s", "shift", "day", "order", "1h/5m", "60s", "8h/1h"])))
def test_a_spelling_is_read_back(texts: list[str]) -> None:
    labels = ordered(map(spelt, texts))
    assert ordered(labels) == labels
    assert [window(label, "UTC", THREE).label for label in labels] == list(labels)
    assert {window(spelt(t), "UTC", THREE) for t in texts} == {
        window(label, "UTC", THREE) for label in labels
    }


@pytest.mark.parametrize(
    "text", ["", "1x", "shfit", "1m/1h", "1h/1h", "1h/0s", "0s", "1h/", "/5m", "8", "0.5ms"]
)
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        spelt(text)


@pytest.mark.parametrize("shifts", [["6:00"], ["06:00-24:30"], ["06:00", "06:00-07:00"], ["x"]])
def test_what_is_no_shift_is_refused(shifts: list[str]) -> None:
    with pytest.raises(ValueError, match="shift"):
        shift_minutes(shifts)


def test_a_run_is_summed_up_by_the_longest_windows_side_by_side() -> None:
    kinds = tuple(window(t, "UTC", THREE) for t in ("1m", "8h", "7d/1h", "shift", "order"))
    assert longest(kinds) == Every(8 * HOUR)
    assert longest((Order(),)) == Order()
    span = Every(8 * HOUR).over(0, 1)[0]
    assert labels_of((*kinds, Shift("UTC", shift_minutes(("00:00", "08:00")))), span) == [
        "8h", "shift",
    ]  # fmt: skip


# what is in them --------------------------------------------------------------------------------

T0 = at("Asia/Shanghai", "2026-01-05T13:50")
M1, M2 = (Asset("s", "a", "l", name) for name in ("m1", "m2"))
CHANNELS = ("state", "planned", "order", "pri_s", "produced", "scrap", "energy_kwh")
KPIS = tuple(kpis.load().values())


class Floor:
    """What two machines send, and an edge that is fed with it."""

    def __init__(self, policy: Policy, run: str | None = "r") -> None:
        self.policy = policy
        self.run = run
        self.records: list[Record] = []
        self._seq: Counter[Asset] = Counter()

    def add(self, message: Message) -> None:
        self.records.append(Record(Envelope("uns", "t", 0, b""), message, len(self.records)))

    def meta(
        self, asset: Asset, arrival_ns: int, sent_ns: int | None = None, boot: int = 1
    ) -> Meta:
        self._seq[asset] += 1
        seq = self._seq[asset]
        conn = f"s/{asset.name}" if self.run else ""
        identity = Identity(str(asset), boot, seq)
        return Meta(identity, arrival_ns, sent_ns, self.run or "", conn, seq)

    def birth(self, asset: Asset, t_ns: int) -> None:
        channels = dict.fromkeys(CHANNELS, "1")
        self.add(Birth(asset, "casting_cell", t_ns, channels, self.meta(asset, t_ns)))

    def say(
        self,
        asset: Asset,
        t_ns: Sequence[int],
        arrival_ns: int,
        *,
        boot: int = 1,
        **channels: Sequence[float],
    ) -> None:
        times = np.array(t_ns, dtype=np.int64)
        columns = {name: np.array(values, dtype=np.float64) for name, values in channels.items()}
        self.add(
            Batch(asset, "event", times, columns, self.meta(asset, arrival_ns, int(times[0]), boot))
        )

    def progress(self, arrival_ns: int, *, end: bool = False) -> None:
        for asset in (M1, M2):
            if self._seq[asset]:
                self.add(Progress(f"s/{asset.name}", "r", arrival_ns, 0, 0, {}, 0, end, 0))

    def recall(self, first_ns: int, last_ns: int) -> list[Record]:
        """As a journal may: some of what it has, all of it that has a part in the span."""
        return [
            record
            for record in self.fed
            if not isinstance(record.message, Batch)
            or (record.message.t_ns[0] <= last_ns and record.message.t_ns[-1] >= first_ns)
            or first_ns <= (record.message.meta.sent_ns or 0) <= last_ns
        ]

    def emitted(self, order: Sequence[int] | None = None, group: int = 1) -> list[Row]:
        """All rows of an edge that gets the records in some order, a group at a time."""
        self.fed: list[Record] = []
        engine = Engine(self.policy, KPIS, self, run=self.run)
        rows: list[Row] = []
        places = range(len(self.records)) if order is None else order
        for start in range(0, len(places), group):
            some = [self.records[place] for place in places[start : start + group]]
            self.fed += some
            engine.feed(some)
            rows += engine.advance()
        return rows + engine.finish()

    # by brute force ---------------------------------------------------------------------------

    def batches(self, asset: Asset) -> list[Batch]:
        found = (record.message for record in self.records)
        return [m for m in found if isinstance(m, Batch) and m.asset == asset]

    def facts(
        self, asset: Asset, span: Span, begin_ns: int, *, of_order: bool = False
    ) -> dict[str, object]:
        """Facts of each measure of one asset in one stretch, folded in one go."""
        batches = self.batches(asset)
        found: dict[str, object] = {}
        for kpi in KPIS:
            if not kpi.applies("casting_cell", dict.fromkeys(CHANNELS, "1")):
                continue
            for m in kpi.measures:
                before = m.fold(Columns(batches, begin_ns, span.start_ns, (False, of_order)))
                known = m.edge(m.merge(m.edge(m.zero(), begin_ns), before), span.start_ns)
                inside = m.fold(Columns(batches, *span, (of_order, of_order)))
                found[m.name] = m.facts(m.merge(known, inside))
        return found

    def counted(self, asset: Asset, span: Span) -> tuple[int, int]:
        """Samples in a stretch, and how many of them came late."""
        n = late = 0
        for batch in self.batches(asset):
            for t_ns in batch.t_ns.tolist():
                if span.start_ns <= t_ns < span.end_ns:
                    n += 1
                    late += self.policy.late(t_ns, batch.meta.arrival_ns)
        return n, late

    def orders(self, asset: Asset) -> list[tuple[Span, int]]:
        """Orders that ended, read off the samples."""
        readings = sorted(
            (t_ns, batch.meta.identity, value)
            for batch in self.batches(asset)
            if "order" in batch.channels
            for t_ns, value in zip(batch.t_ns.tolist(), batch.channels["order"], strict=True)
            if not np.isnan(value)
        )
        found: list[tuple[Span, int]] = []
        on: tuple[int, int] | None = None
        for t_ns, _, value in readings:
            if on is not None and value != on[1]:
                if on[1] > 0 and t_ns > on[0]:
                    found.append((Span(on[0], t_ns), on[1]))
                on = None
            on = on or (t_ns, int(value))
        return found


def brute(floor: Floor, begin_ns: int, horizon_ns: int) -> dict[Key, Row]:
    """Every row there must be, each from the samples in one go."""
    wanted: dict[Key, Row] = {}
    everywhere = {s for kind in floor.policy.windows for s in kind.over(begin_ns, horizon_ns)}
    first_ns = (begin_ns - 1) // floor.policy.block_ns * floor.policy.block_ns

    def put(asset: Asset, kpi: str, span: Span, value: float | None, n: int, late: int) -> None:
        unit = "1" if kpi == ORDER_NUMBER else kpis.load()[kpi].unit
        row = Row(asset, kpi, span.start_ns, span.length_ns, value, n, late, unit)
        wanted[row.key] = row

    applying = [k for k in KPIS if k.applies("casting_cell", dict.fromkeys(CHANNELS, "1"))]
    for span in everywhere:
        part = Span(max(span.start_ns, first_ns), min(span.end_ns, horizon_ns))
        facts = {asset: floor.facts(asset, part, first_ns) for asset in (M1, M2)}
        counts = {asset: floor.counted(asset, part) for asset in (M1, M2)}
        for asset, kpi in itertools.product((M1, M2), applying):
            together = {}
            for measure in kpi.measures:
                together |= facts[asset][measure.name]
            put(asset, kpi.name, span, kpi.value(together), *counts[asset])
        for kpi in applying:
            if kpi.pools("casting_cell"):
                total = {}
                for measure in kpi.measures:
                    total |= add_facts(facts[M1][measure.name], facts[M2][measure.name])
                both = [sum(c) for c in zip(counts[M1], counts[M2], strict=True)]
                for group in (Asset("s", "a", "l", ALL), Asset("s", "a", ALL, ALL),
                              Asset("s", ALL, ALL, ALL)):  # fmt: skip
                    put(group, kpi.name, span, kpi.value(total), *both)
    if any(isinstance(kind, Order) for kind in floor.policy.windows):
        for asset in (M1, M2):
            for span, number in floor.orders(asset):
                facts_of = floor.facts(asset, span, first_ns, of_order=True)
                counted = floor.counted(asset, span)
                put(asset, ORDER_NUMBER, span, float(number), *counted)
                for kpi in applying if span not in everywhere else ():
                    together = {}
                    for measure in kpi.measures:
                        together |= facts_of[measure.name]
                    put(asset, kpi.name, span, kpi.value(together), *counted)
    return wanted


LENGTH = 180 * S
SHANGHAI = "Asia/Shanghai"
CHOICE = (
    Every(10 * S), Every(30 * S), Every(MINUTE), Sliding(MINUTE, 20 * S), Sliding(50 * S, 30 * S),
    Sliding(4 * MINUTE, MINUTE), Day(SHANGHAI), Order(), Order(),
    Shift(SHANGHAI, shift_minutes(("13:52-13:53", "13:53", "13:54-13:52"))),
)  # fmt: skip


def random_floor(dice: random.Random, windows: tuple[Window, ...], delay_s: int) -> Floor:
    """Three minutes of two machines: any states, orders that change at any nanosecond, counters
    that rise, blanks, and messages up to some seconds on the way."""
    floor = Floor(Policy(windows=windows))
    for asset in (M1, M2):
        floor.birth(asset, T0)
    messages: list[tuple[int, int, Asset, list[int], dict[str, list[float]]]] = []
    for asset in (M1, M2):
        times = sorted(
            {T0 + dice.choice((dice.randrange(LENGTH), dice.randrange(18) * 10 * S))
             for _ in range(dice.randrange(36))}
        )  # fmt: skip
        values: dict[str, list[float]] = {name: [] for name in CHANNELS}
        produced = scrap = energy = 0.0
        order = 0
        for _ in times:
            order = dice.choice((order, order, order, 0, dice.randrange(1, 4)))
            produced += dice.randrange(3)
            scrap += dice.randrange(2)
            energy += dice.randrange(5) / 8
            blank = dice.random() < 0.1
            for name, value in (
                ("state", dice.choice((6, 6, 11, 4))), ("planned", dice.choice((1, 1, 1, 0))),
                ("order", np.nan if blank else order), ("pri_s", dice.choice((1.5, 2.0))),
                ("produced", produced), ("scrap", scrap), ("energy_kwh", energy),
            ):  # fmt: skip
                values[name].append(float(value))
        start = 0
        while start < len(times):
            stop = start + (1 if delay_s == 1 else dice.randrange(1, 8))
            part = times[start:stop]
            arrival = part[-1] + dice.randrange(1, delay_s * S)
            columns = {name: column[start:stop] for name, column in values.items()}
            messages.append((arrival, len(messages), asset, part, columns))
            start = stop
    progressed = T0
    for arrival, _, asset, part, columns in sorted(messages, key=lambda m: m[:2]):
        while progressed + 10 * S <= min(arrival, T0 + LENGTH):
            progressed += 10 * S
            floor.progress(progressed)
        floor.say(asset, part, arrival, **columns)
    floor.progress(T0 + LENGTH, end=True)
    return floor


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.sets(st.sampled_from(CHOICE), min_size=1, max_size=4),
       st.sampled_from([1, 40]))  # fmt: skip
@example(7, {Order()}, 40)
@example(8, {Order(), Every(MINUTE), Day(SHANGHAI)}, 1)
@example(84, {Order(), Every(30 * S)}, 40)
def test_every_window_is_one_fold_of_its_samples(
    seed: int, kinds: set[Window], delay_s: int
) -> None:
    dice = random.Random(seed)
    floor = random_floor(dice, tuple(sorted(kinds, key=repr)), delay_s)
    rows = floor.emitted()
    wanted = brute(floor, T0, T0 + LENGTH)
    found = last_rows(rows)
    assert found.keys() == wanted.keys()
    assert {k: (found[k], wanted[k]) for k in wanted if found[k] != wanted[k]} == {}
    if delay_s == 1:  # nothing was late, so nothing was amended
        again = {key: n for key, n in Counter(row.key for row in rows).items() if n > 1}
        assert again == {}
        assert not any(row.gone for row in rows)
    places = list(range(len(floor.records)))
    dice.shuffle(places)
    assert last_rows(floor.emitted(places, dice.choice((1, 3, 20)))) == found


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32))
@example(4)
@example(12)
def test_what_was_forgotten_or_passed_over_is_found_again(seed: int) -> None:
    """As above, but next to nothing is kept, nobody says anything for a while, and what is amended
    is read from the journal in pieces of any size. With so short a retention as here and there,
    no sample by sample reckoning says what must come out, but any order of feeding the same."""
    dice = random.Random(seed)
    floor = random_floor(dice, tuple(dice.sample(CHOICE, 2)), dice.choice((1, 40, 100)))
    floor.policy = replace(floor.policy, retention_ns=dice.choice((20, 40, 90, 86_400)) * S)
    silent = range(quiet := T0 + dice.randrange(10, 90) * S, quiet + dice.randrange(2, 120) * S)
    floor.records = [
        r for r in floor.records
        if not isinstance(r.message, Batch) or all(t not in silent for t in r.message.t_ns.tolist())
    ]  # fmt: skip
    places = list(range(len(floor.records)))
    with pytest.MonkeyPatch.context() as patch:
        for name, choice in {
            "FORGET_EVERY_NS": (10 * S, 60 * S), "KEEP_NS": (10 * S, 40 * S),
            "LANDMARK_NS": (10 * S, 60 * S), "TOGETHER": (1, 2, 4, 16),
            "REFOLD_AT_ONCE": (1, 2, 16), "RECALLED": (1, 4),
        }.items():  # fmt: skip
            patch.setattr(engine, name, dice.choice(choice))
        found = last_rows(floor.emitted())
        if floor.policy.retention_ns > LENGTH:
            assert found == brute(floor, T0, T0 + LENGTH)
        late = {n for n in places if dice.random() < 0.3}
        held = [n for n in places if n not in late]
        for order in (dice.sample(places, len(places)), held + dice.sample([*late], len(late))):
            assert last_rows(floor.emitted(order, dice.choice((1, 3, 20)))) == found


ORDERS = Policy(windows=(Every(MINUTE), Order()))


def one_machine(policy: Policy = ORDERS, run: str | None = "r") -> Floor:
    floor = Floor(policy, run)
    floor.birth(M1, T0)
    return floor


def order_rows(rows: Sequence[Row]) -> dict[tuple[int, int], float | None]:
    """Numbers of the orders by start and end, in seconds of the run."""
    return {
        ((r.window_start_ns - T0) // S, (r.window_start_ns + r.window_length_ns - T0) // S): r.value
        for r in rows
        if r.kpi == ORDER_NUMBER
    }


def test_an_order_whose_end_moves_leaves_no_row_behind(tmp_path: Path) -> None:
    floor = one_machine()
    floor.say(M1, [T0 + S], T0 + 2 * S, order=[7], state=[6], planned=[1], produced=[0])
    floor.say(M1, [T0 + 100 * S], T0 + 101 * S, order=[8], state=[6], planned=[1], produced=[40])
    floor.progress(T0 + 200 * S)
    floor.say(M1, [T0 + 51 * S], T0 + 201 * S, order=[9], produced=[30])
    floor.progress(T0 + 240 * S, end=True)
    rows = floor.emitted()
    first = [r for r in rows if r[2:4] == (T0 + S, 99 * S)]
    assert {r.kpi: (r.value, r.gone) for r in first if not r.gone}["output"] == (40.0, False)
    assert Counter(r.kpi for r in first if r.gone) == Counter(r.kpi for r in first if not r.gone)
    last = last_rows(rows)
    assert order_rows(list(last.values())) == {(1, 51): 7.0, (51, 100): 9.0}
    output = {r.window_start_ns: r.value for r in last.values() if r.kpi == "output"
              and r.window_length_ns in (50 * S, 49 * S)}  # fmt: skip
    assert output == {T0 + S: 30.0, T0 + 51 * S: 10.0}
    with Recording.create(tmp_path / "r.beilun") as recording:
        store = RowStore(recording)
        store.prepare()
        store.write(rows[:50])
        store.write(rows[50:])
        assert {r.key: r._replace(revision=0) for r in store.rows()} == last
        assert {store.revision(r) for r in first if r.gone} == {1}
        back = next(r for r in first if not r.gone)
        store.write([back])
        assert store.revision(back) == 2
        assert back.key in {r.key for r in store.rows()}
        store.write([back._replace(gone=True), back])
        assert store.revision(back) == 4


def test_an_order_that_a_late_turn_ends_at_the_end_of_a_block_has_its_rows() -> None:
    """The turn came too late for the block before it, which is therefore not amended."""
    floor = one_machine(Policy(windows=(Every(10 * S), Order()), retention_ns=20 * S))
    for second, order, arrived in ((1, 7, 2), (60, 8, 85), (90, 9, 91)):
        floor.progress(T0 + arrived * S)
        floor.say(M1, [T0 + second * S], T0 + arrived * S, order=[order], state=[6], planned=[1])
    floor.progress(T0 + 120 * S, end=True)
    found = last_rows(floor.emitted())
    assert order_rows(list(found.values())) == {(1, 60): 7.0, (60, 90): 8.0}
    assert last_rows(floor.emitted(group=len(floor.records))) == found


def test_a_stop_across_the_end_of_a_window_is_in_both() -> None:
    kind = Shift(SHANGHAI, shift_minutes(("12:00-14:00", "14:00-22:00")))
    begin = at(SHANGHAI, "2026-01-05T13:59")
    floor = Floor(Policy(windows=(kind, Every(MINUTE))))
    floor.birth(M1, begin)
    # Running, held at 13:59:45, running again at 14:00:20, order 5 all the time.
    for after, state in ((0, 6), (45, 11), (80, 6), (119, 6)):
        t_ns = begin + after * S
        floor.say(M1, [t_ns], t_ns + S, state=[state], planned=[1], order=[5], produced=[0])
    floor.progress(begin + 120 * S, end=True)
    found = {
        (r.window_start_ns, r.window_length_ns): r.value
        for r in last_rows(floor.emitted()).values()
        if r.kpi == "availability" and r.asset == M1
    }
    assert found[begin, MINUTE] == found[begin - 119 * MINUTE, 2 * HOUR] == 45 / 60
    assert found[begin + MINUTE, MINUTE] == found[begin + MINUTE, 8 * HOUR] == 40 / 60


def test_an_order_across_the_end_of_a_shift_is_one_window_and_its_parts_are_in_both_shifts() -> (
    None
):
    kind = Shift(SHANGHAI, shift_minutes(("12:00-14:00", "14:00-22:00")))
    begin = at(SHANGHAI, "2026-01-05T13:58")
    floor = Floor(Policy(windows=(kind, Order())))
    floor.birth(M1, begin)
    for second in range(0, 240, 5):
        t_ns = begin + second * S + 123_456_789
        order = 5 if 30 <= second < 200 else 0
        floor.say(M1, [t_ns], t_ns + S, state=[6], planned=[1], order=[order],
                  produced=[max(0, min(second, 200) - 30)], scrap=[0])  # fmt: skip
    floor.progress(begin + 240 * S, end=True)
    rows = last_rows(floor.emitted())
    output = {r.window_length_ns: r.value for r in rows.values()
              if r.kpi == "output" and r.asset == M1}  # fmt: skip
    assert output == {170 * S: 170.0, 2 * HOUR: 85.0, 8 * HOUR: 85.0}
    (number,) = [r for r in rows.values() if r.kpi == ORDER_NUMBER]
    assert (number.value, number.window_start_ns) == (5.0, begin + 30 * S + 123_456_789)
    assert not [r for r in rows.values() if r.window_length_ns == 170 * S and r.asset.name == ALL]


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_shifts_add_up_to_a_day_on_which_the_clocks_change(day: str, hours: int) -> None:
    zone = "Europe/Berlin"
    shifts = Shift(zone, shift_minutes(("00:00", "06:00", "14:00", "22:00")))
    policy = Policy(pane_ns=MINUTE, windows=(Every(30 * MINUTE), Day(zone), shifts))
    begin = at(zone, f"{day}T00:00")
    floor = Floor(policy)
    floor.birth(M1, begin)
    made = 0
    for half in range(2 * hours):
        t_ns = begin + half * 30 * MINUTE + 7 * S
        made += half % 5
        floor.say(M1, [t_ns], t_ns + S, state=[6], planned=[1], order=[1], produced=[made],
                  scrap=[0], energy_kwh=[made / 4])  # fmt: skip
    floor.progress(begin + hours * HOUR, end=True)
    found = [r for r in last_rows(floor.emitted()).values() if r.asset == M1 and r.kpi == "output"]
    whole = [r for r in found if r.window_length_ns == hours * HOUR]
    assert [(r.window_start_ns, r.value, r.n) for r in whole] == [(begin, float(made), 2 * hours)]
    parts = {length: [r for r in found if r.window_length_ns == length]
             for length in {r.window_length_ns for r in found} - {hours * HOUR}}  # fmt: skip
    night = (6 + hours - 24) * HOUR
    assert parts.keys() == {30 * MINUTE, night, 8 * HOUR, 2 * HOUR}
    assert sum(r.value or 0 for r in parts[30 * MINUTE]) == made
    tiles = [*parts[night], *parts[8 * HOUR], *parts[2 * HOUR]]
    assert (sum(r.value or 0 for r in tiles), sum(r.n for r in tiles)) == (made, 2 * hours)
    assert sum(r.window_length_ns for r in tiles) == hours * HOUR


def test_kinds_that_coincide_give_each_row_once() -> None:
    kinds = (Every(8 * HOUR), Shift("UTC", shift_minutes(("00:00", "08:00", "16:00"))), Day("UTC"),
             Every(DAY), Order())  # fmt: skip
    start = at("UTC", "2026-01-05T00:00")
    floor = Floor(Policy(pane_ns=MINUTE, windows=kinds))
    floor.birth(M1, start)
    for hour, order in ((0, 3), (4, 3), (8, 4), (16, 0), (23, 0)):
        t_ns = start + hour * HOUR
        floor.say(M1, [t_ns], t_ns + S, order=[order], state=[6], planned=[1], produced=[hour])
    floor.progress(start + DAY, end=True)
    rows = floor.emitted()
    assert max(Counter(r.key for r in rows).values()) == 1
    assert {r[2:4] for r in rows if r.kpi == "output"} == {
        *((start + n * HOUR, 8 * HOUR) for n in (0, 8, 16)), (start, DAY),
    }  # fmt: skip
    assert {r[2:4]: r.value for r in rows if r.kpi == ORDER_NUMBER} == {
        (start, 8 * HOUR): 3.0, (start + 8 * HOUR, 8 * HOUR): 4.0,
    }  # fmt: skip


def test_a_long_silence_in_the_middle_of_windows_and_of_an_order_costs_nothing() -> None:
    """Ten months are passed over in one step, and what lies around them is right."""
    windows = (Every(MINUTE), Every(8 * HOUR), Day(SHANGHAI), Order())
    floor = one_machine(Policy(windows=windows, retention_ns=10 * MINUTE), run=None)
    said = T0 + 300 * DAY + 5 * HOUR
    for t_ns, order, made in (
        (T0, 4, 0),
        (T0 + 30 * S, 4, 10),
        (said, 4, 12),
        (said + 90 * S, 0, 13),
    ):
        floor.say(M1, [t_ns], t_ns + S, order=[order], produced=[made], state=[6], planned=[1])
        floor.add(Tick(t_ns + 2 * S))
    floor.add(Tick(said + 10 * MINUTE))
    late = [*range(len(floor.records))]
    late.remove(5)
    found = last_rows(floor.emitted())
    assert order_rows(list(found.values())) == {(0, (said + 90 * S - T0) // S): 4.0}
    (whole,) = [r for r in found.values() if r.kpi == "output" and r.window_length_ns > 300 * DAY]
    assert (whole.value, whole.n) == (13.0, 3)
    (day,) = Day(SHANGHAI).over(said, said + 1)
    assert found[M1, "output", DAY, day.start_ns].value == 3.0
    assert found[M1, "output", MINUTE, said // MINUTE * MINUTE].value == 2.0
    assert last_rows(floor.emitted([*late, 5])) == found


def test_what_a_machine_says_before_it_is_announced_counts_in_the_midst_of_silence() -> None:
    floor = Floor(Policy(windows=(Every(MINUTE),), retention_ns=10 * MINUTE), run=None)
    floor.birth(M1, T0)
    floor.birth(M2, T0)
    said = T0 + 5 * HOUR
    floor.say(M2, [said, said + 5 * S], said + 6 * S, produced=[1, 4], state=[6, 6], planned=[1, 1])
    floor.add(Tick(T0 + 20 * HOUR))
    found = last_rows(floor.emitted())
    assert found[M2, "output", MINUTE, said].value == 3.0
    for order in ([0, 3, 2, 1], [0, 3, 1, 2], [3, 2, 1, 0]):
        assert last_rows(floor.emitted(order)) == found


def test_a_window_of_a_week_does_not_hold_what_it_was_made_of() -> None:
    """Samples live as long as their pane, and blocks as long as the longest window and a little."""
    policy = Policy(
        pane_ns=MINUTE, windows=(Every(10 * MINUTE), Sliding(2 * HOUR, 10 * MINUTE), Order())
    )
    floor = one_machine(policy)
    for minute in range(0, 2_000, 10):
        t_ns = T0 + minute * MINUTE
        floor.say(M1, [t_ns], t_ns + S, order=[1], produced=[minute], state=[6], planned=[1])
        floor.progress(t_ns)
    floor.fed = floor.records
    engine = Engine(policy, KPIS, floor, run="r")
    engine.feed(floor.records)
    engine.advance()
    (track,) = engine._tracks.values()
    assert len(engine._open) <= 2
    assert len(track.blocks) <= 15 + 5 + 16
    assert len(track.nodes) <= 2 * 60 // 2
    assert len(track.carries) <= len(track.blocks) + len(track.nodes) + 2_000 // 60 + 2


@pytest.mark.parametrize(
    ("boot", "readings", "output"),
    [(2, (0, 3), 13.0), (2, (4, 6), 16.0), (1, (4, 6), 10.0), (1, (4, 12), 12.0)],
)
def test_a_counter_starts_anew_with_its_machine_and_only_then(
    boot: int, readings: tuple[int, int], output: float
) -> None:
    """It had counted 10. What a machine that was started again counts is added; a fall without a
    new start is a clock that stepped, and nothing is counted twice."""
    floor = one_machine()
    said = [(0, 1, 0), (20, 1, 10), (40, boot, readings[0]), (59, boot, readings[1])]
    for second, start, made in said:
        t_ns = T0 + second * S
        floor.say(M1, [t_ns], t_ns + S, boot=start, produced=[made], state=[6], planned=[1])
    floor.progress(T0 + MINUTE, end=True)
    places = [*range(len(floor.records))]
    for order in (places, places[::-1]):
        assert last_rows(floor.emitted(order))[M1, "output", MINUTE, T0].value == output


# in files and on the command line ---------------------------------------------------------------


def test_a_recording_keeps_windows_zone_and_shifts(tmp_path: Path) -> None:
    wanted = EdgeSettings.model_validate(
        {"windows": ["order", "1h/5m", "60s", "day", "shift", "8h"], "zone": "Europe/Berlin",
         "shifts": ["22:00-06:00", "06:00"]}
    )  # fmt: skip
    assert wanted.windows == ("1m", "8h", "1h/5m", "shift", "day", "order")
    with Recording.create(tmp_path / "r.beilun") as recording:
        recording.set_meta({"edge": edge_header(wanted)})
        policy = recorded_policy(recording)
    assert policy == policy_of(wanted)
    assert [w.label for w in policy.windows] == list(wanted.windows)
    assert Shift("Europe/Berlin", ((360, 1_320), (1_320, 1_800))) in policy.windows
    assert policy.pane_ns == 10 * S
    assert policy.block_ns == MINUTE


def test_a_recording_from_before_had_windows_on_the_grid_only(tmp_path: Path) -> None:
    with Recording.create(tmp_path / "r.beilun") as recording:
        recording.set_meta({"edge": json.dumps({"pane": "10s", "windows": ["1m", "8h"]})})
        assert recorded_policy(recording).windows == (Every(MINUTE), Every(8 * HOUR))


def test_a_pane_is_no_longer_than_the_shortest_window() -> None:
    settings = EdgeSettings.model_validate({"windows": ["1s", "1m"]})
    assert policy_of(settings).pane_ns == S
    assert policy_of(EdgeSettings.model_validate({"windows": ["1m/5s"]})).pane_ns == 5 * S


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('zone = "Asia/Shanghia"', "edge.zone      unknown zone 'Asia/Shanghia'; did you mean"),
        ('zone = "Asia"', "unknown zone 'Asia'"),
        ('shifts = ["8:00"]', "not a shift: '8:00'; write it like 22:00-06:00"),
        ('windows = ["shfit"]', "edge.windows #1"),
        ('windows = ["1h/7s"]', "every window must be a multiple of the pane (7s); 1h/7s is not"),
        ('pane = "7s"\nwindows = ["day"]', "multiple of the pane (7s); day is not"),
        ("windows = [60]", "needs a unit, got 60"),
        ('[[expect]]\nkpi = "oee"\nop = ">"\nvalue = 0\nwindow = "shift"',
         "expect #1.window shift is not in edge.windows (1m, 1h, 8h)"),
    ],
)  # fmt: skip
def test_wrong_windows_are_told_in_the_words_of_the_file(
    text: str, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'plant = "quickstart"\nlength = "1h"\n[edge]\n{text}\nlateness = "x"\n')
    with pytest.raises(ConfigError) as caught:
        find_scenario(path, kpis=["oee"])
    found = str(caught.value)
    if "expect" not in text:
        assert "edge.lateness" in found  # all at once
        assert " ".join(told.split()) in " ".join(found.split())


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quarter of an hour of the quickstart factory with windows of every kind."""
    path = tmp_path_factory.mktemp("recorded") / "r.beilun"
    edge = {"windows": ["1m", "10m", "10m/5m", "shift", "day", "order"], "zone": SHANGHAI,
            "shifts": ["08:00-08:10", "08:10-08:30"]}  # fmt: skip
    run_offline(find_scenario("quickstart", changes={"length": "15m", "edge": edge}), path)
    return path


def test_a_replay_gives_windows_of_every_kind_again(recorded: Path) -> None:
    with Recording.open(recorded) as recording:
        stored = list(RowStore(recording).rows())
        rows, pipeline = replay(recording)
        assert recording.meta("digest") == digest(rows) == digest(stored)
    windows = pipeline.engine._policy.windows
    counts = {w.label: len({r[2:4] for r in rows_in(rows, w)}) for w in windows}
    assert {k: n for k, n in counts.items() if k != "order"} == {
        "1m": 15, "10m": 2, "10m/5m": 4, "shift": 2, "day": 1,
    }  # fmt: skip


@pytest.mark.parametrize(("label", "lines"), [("shift", True), ("day", True), ("10m/5m", True),
                                              ("2h", False)])  # fmt: skip
def test_watch_shows_windows_by_their_name(
    label: str, lines: bool, recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["watch", str(recorded), "--once", "--window", label, "--kpi", "oee"])
    said = capsys.readouterr()
    assert (code == 0) is lines
    assert (f"{label} windows up to" in said.out) is lines
    if not lines:
        assert "it has windows of 1m, 10m, 10m/5m, shift, day, order" in said.err


def test_an_expectation_names_its_windows() -> None:
    kinds = tuple(window(label, SHANGHAI, ("08:00-16:00",)) for label in ("8h", "shift", "order"))
    start = at(SHANGHAI, "2026-01-05T08:00")
    other = start - 4 * HOUR
    rows = [
        Row(M1, "oee", start, 8 * HOUR, 0.7, 1, 0, "1"),
        Row(M1, "oee", other, 8 * HOUR, 0.2, 1, 0, "1"),
        Row(M1, "oee", start + 1, HOUR, 0.4, 1, 0, "1"),
        Row(M1, ORDER_NUMBER, start + 1, HOUR, 7.0, 1, 0, "1"),
    ]
    for label, worst in (("shift", 0.7), ("order", 0.4), ("8h", 0.7), ("run", 0.7)):
        expect = Expect.model_validate({"kpi": "oee", "op": ">", "value": 0.5, "window": label})
        [found] = verdict.judge([expect], rows, kinds)
        assert (found.measured, found.ok) == (worst, worst > 0.5)
