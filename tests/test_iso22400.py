"""The time model of ISO 22400-2 against second-by-second book-keeping, and what must be identical.

Lives of a unit are random: states, calendar, orders, modes and maintenance as steps, counters that
do not contradict one another. The book-keeper below knows nothing of measures: it looks at each
second by itself.
"""

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import kpis
from edge.columns import Columns
from edge.engine import Engine
from edge.iso22400 import ELEMENT, FAILED, MAINTAINED, Mode, element
from edge.kpi import Kpi
from edge.kpis.capability import KPIS as CAPABILITY
from edge.kpis.oee import UNIT, aubt_ns, aupt_ns, index, seen_ns
from edge.measures import Fact, Facts, Measure, tailored
from edge.measures.spreads import Spreads
from edge.measures.warmups import PIECES, Warmups
from edge.policy import Policy
from ingest.codecs import Unusable
from ingest.codecs.uns import CODEC
from ingest.messages import Asset, Batch, Birth, Envelope, Identity, Message, Meta, Record, Tick
from ingest.packml import PackML as S

NS = 10**9
SPAN = 300
HOLD = 60
ASSET = Asset("s", "a", "l", "m")
META = Meta(Identity("m", 1, 1), 0)
KPIS = kpis.load()

STEPS = ("state", "planned", "order", "pri_s", "mode", "maintenance")
COUNTERS = ("produced", "scrap", "rework", "inspected", "first_pass")
Steps = dict[int, float]


@dataclass
class Life:
    """What a unit told: readings by second; counters stand at 0 at the start."""

    steps: dict[str, Steps] = field(default_factory=dict[str, Steps])
    counters: dict[str, Steps] = field(default_factory=dict[str, Steps])

    def batches(self) -> list[Batch]:
        return [
            Batch(
                ASSET, "process", np.array([t * NS for t in sorted(told)]),
                {name: np.array([float(told[t]) for t in sorted(told)])},
                Meta(Identity("m", 1, seq), 0),
            )
            for seq, (name, told) in enumerate({**self.steps, **self.counters}.items())
            if told
        ]  # fmt: skip

    def at(self, name: str, second: int) -> int | None:
        """The reading that holds from the start of a second on."""
        told = [t for t in self.steps.get(name, {}) if t <= second]
        if not told or (name == "state" and second - max(told) >= HOLD):
            return None
        return int(self.steps[name][max(told)])


def moments(values: st.SearchStrategy[Any], most: int = 8) -> st.SearchStrategy[Steps]:
    return st.dictionaries(st.integers(0, SPAN - 1), values, max_size=most)


@st.composite
def lives(draw: st.DrawFn) -> Life:
    """A unit's life; some units tell nothing of modes, maintenance, rework or inspection."""
    busy = st.one_of(st.sampled_from([6, 6, 3, 11, 9, 5, 4]), st.integers(0, 18))
    life = Life(
        {
            "state": draw(moments(busy, 12)),
            "planned": {0: 1} | draw(moments(st.integers(0, 1), 4)),
            "order": {0: 1} | draw(moments(st.integers(0, 3), 4)),
            "pri_s": {0: 30} | draw(moments(st.sampled_from([10, 30, 60.5]), 3)),
        }
    )
    if draw(st.booleans()):
        life.steps["mode"] = draw(moments(st.integers(1, 5), 4))
    if draw(st.booleans()):
        life.steps["maintenance"] = draw(moments(st.integers(0, 2), 4))
    names = COUNTERS[: draw(st.sampled_from([2, 3, 5]))]
    at = dict.fromkeys(COUNTERS, 0)
    life.counters = {name: {0: 0} for name in names}
    for second in sorted(draw(st.sets(st.integers(1, SPAN - 1), max_size=12))):
        made = draw(st.integers(0, 3))
        bad = draw(st.integers(0, made))
        looked = draw(st.integers(0, made))
        by = (made, bad, draw(st.integers(0, made - bad)), looked, draw(st.integers(0, looked)))
        for name, rise in zip(COUNTERS, by, strict=True):
            at[name] += rise
            if name in names:
                life.counters[name][second] = at[name]
    return life


def channels(life: Life) -> dict[str, str]:
    return dict.fromkeys((*life.steps, *life.counters), "1")


def told(measure: Measure, life: Life, cuts: Sequence[int] = ()) -> Facts:
    """Facts of the whole life, folded in panes."""
    own = tailored(measure, Birth(ASSET, "machine", 0, channels(life), META))
    state, batches = own.edge(own.zero(), 0), life.batches()
    for low, high in itertools.pairwise((0, *sorted(set(cuts)), SPAN)):
        state = own.merge(state, own.fold(Columns(batches, low * NS, high * NS)))
    return own.facts(state)


CUTS = st.lists(st.integers(1, SPAN - 1), max_size=4)
some = settings(max_examples=60, deadline=None)


def booked(life: Life) -> Counter[str]:
    """Seconds by where they belong, in the words of the standard."""
    book: Counter[str] = Counter()
    for second in range(SPAN):
        state, planned, order, _, mode, care = (life.at(name, second) for name in STEPS)
        book["aoet"] += bool(order)
        book["cmt"] += care == 1
        book["pmt"] += care == 2
        if care in (1, 2):
            where = "maintained"
        elif (
            state is None or not 1 <= state <= 17 or order is None or mode not in (None, 1, 2, 3, 4)
        ):
            where = "dark"
        elif mode == 2:
            where = "maintained"
        elif not order or (state in (S.IDLE, S.STOPPED, S.COMPLETE) and mode != 4):
            where = "adot"
        elif state in (S.RESETTING, S.STARTING, S.COMPLETING, S.EXECUTE) and mode in (None, 1):
            where = "apt" if state == S.EXECUTE else "aust"
        else:
            where = "aust" if mode == 4 and state not in _INTERNAL else "adet"
        book["aoet_seen"] += bool(order) and planned is not None and where != "dark"
        if not planned:
            continue
        book["pbt"] += 1
        book[where] += 1
        if where != "dark" and state in _INTERNAL:
            book["ttr"] += 1
        elif where not in ("dark", "maintained"):
            book["ttf"] += 1
    return book


_INTERNAL = (S.HOLDING, S.HELD, S.UNHOLDING, S.ABORTING, S.ABORTED, S.CLEARING)


def failed(life: Life) -> int:
    """Changes from a known state outside into an internal cause, planned and with an order."""
    readings = sorted(life.steps["state"].items())
    return sum(
        before not in _INTERNAL and after in _INTERNAL
        and bool(life.at("planned", t - 1)) and bool(life.at("order", t - 1))
        for (_, before), (t, after) in itertools.pairwise(readings)
    )  # fmt: skip


def pieces(life: Life) -> dict[str, int]:
    """What counters rose by, and the planned run time of what was produced and heard, in µs."""
    totals = {name: int(max(readings.values())) for name, readings in life.counters.items()}
    run = 0
    readings = sorted(life.counters["produced"].items())
    for (_, before), (t, after) in itertools.pairwise(readings):
        was = max(s for s in life.steps["pri_s"] if s < t)
        if life.at("state", t - 1) is None:
            continue  # made unheard
        run += int(after - before) * round(life.steps["pri_s"][was] * 1_000_000)
    return {**totals, "planned_run_us": run}


def sums(facts: Facts) -> dict[str, int]:
    return {name: value for name, value in facts.items() if isinstance(value, int) and value}


@some
@given(life=lives(), cuts=CUTS)
def test_every_moment_lands_in_one_element(life: Life, cuts: list[int]) -> None:
    facts = sums(told(UNIT, life, cuts))
    expected = {f"{name}_ns": count * NS for name, count in booked(life).items() if count}
    expected |= {name: count for name, count in pieces(life).items() if count}
    if count := failed(life):
        expected["failures"] = count
    assert facts == expected
    parts = ("apt_ns", "aust_ns", "adet_ns", "adot_ns", "maintained_ns", "dark_ns")
    assert sum(facts.get(name, 0) for name in parts) == facts.get("pbt_ns", 0)


@some
@given(life=lives(), cuts=CUTS)
def test_times_nest(life: Life, cuts: list[int]) -> None:
    facts = told(UNIT, life, cuts)
    f = sums(facts)
    seen = seen_ns(facts) or 0
    assert aupt_ns(facts) == f.get("apt_ns", 0) + f.get("aust_ns", 0)
    assert aubt_ns(facts) == aupt_ns(facts) + f.get("adet_ns", 0)
    inside = aubt_ns(facts) + f.get("adot_ns", 0) + f.get("maintained_ns", 0)
    assert inside == seen <= f.get("pbt_ns", 0)
    assert aubt_ns(facts) <= f.get("aoet_ns", 0)
    assert aupt_ns(facts) <= f.get("ttf_ns", 0)
    assert f.get("ttf_ns", 0) + f.get("ttr_ns", 0) <= seen
    made = f.get("produced", 0)
    good = (KPIS["output"].value(facts) or 0) if made else 0
    assert made == good + f.get("scrap", 0) + f.get("rework", 0)


def close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-300)


@some
@given(life=lives())
def test_identities(life: Life) -> None:
    facts = told(UNIT, life)
    f, value = sums(facts), {name: kpi.value(facts) for name, kpi in KPIS.items()}
    seen, apt = seen_ns(facts) or 0, f.get("apt_ns", 0)
    made, run_us = f.get("produced", 0), f.get("planned_run_us", 0)
    good = made - f.get("scrap", 0) - f.get("rework", 0)
    if not seen:
        assert value["oee"] is value["nee"] is value["availability"] is None
        return
    if apt and made:
        oee, nee = index(facts, apt), index(facts, aupt_ns(facts))
        assert oee is not None
        assert nee is not None
        assert oee == Fraction(run_us * 1_000 * good, seen) / made  # PRI * GQ / PBT
        factors = Fraction(apt, seen) * Fraction(run_us * 1_000, apt) * Fraction(good, made)
        assert oee == factors
        assert nee * apt == oee * aupt_ns(facts)
        parts = [value[name] for name in ("availability", "effectiveness", "quality_ratio")]
        assert value["oee"] is not None
        assert close(value["oee"], math.prod(p for p in parts if p is not None))
        assert value["nee"] is not None
        if value["setup_ratio"] != 1.0:
            assert value["setup_ratio"] is not None
            assert close(value["nee"] * (1.0 - value["setup_ratio"]), value["oee"]) or (
                value["oee"] < 1e-6
            )
        assert value["equipment_load_ratio"] is not None
        assert parts[0] is not None
        assert parts[1] is not None
        assert close(value["equipment_load_ratio"], parts[0] * parts[1])
    if aubt_ns(facts):
        allocation, utilisation = value["allocation_efficiency"], value["utilisation_efficiency"]
        assert allocation is not None
        assert utilisation is not None
        assert value["availability"] is not None
        assert close(value["availability"], allocation * utilisation)
        assert Fraction(apt, seen) == Fraction(aubt_ns(facts), seen) * Fraction(apt, aubt_ns(facts))
    events = f.get("failures", 0)
    for name in ("mtbf", "mttf", "mttr"):
        usual, iso = value[name], value[f"{name}_iso"]
        assert iso is not None
        assert (usual is None) == (events == 0)
        assert usual is None or close(usual * events, iso * (events + 1))


def drawn(life: Life, kpi: Kpi) -> float | None:
    facts: dict[str, Fact] = {}
    for measure in kpi.measures:
        facts |= told(measure, life)
    return kpi.value(facts)


OF_UNITS = [kpi for kpi in KPIS.values() if kpi.measures[0] is UNIT and "state" in kpi.needs]


@settings(max_examples=40, deadline=None)
@given(life=lives())
def test_values_of_a_unit_lie_in_their_ranges(life: Life) -> None:
    facts = told(UNIT, life)
    for kpi in OF_UNITS:
        value = kpi.value(facts) if len(kpi.measures) == 1 else drawn(life, kpi)
        least, most = kpi.range
        assert value is None or math.isfinite(value)
        assert value is None or least is None or value >= least, kpi.name
        assert value is None or most is None or value <= most, kpi.name


def test_the_table_is_whole() -> None:
    assert set(ELEMENT) == set(Mode)
    for mode, states in ELEMENT.items():
        assert set(states) == set(S)
        assert all((where == MAINTAINED) == (mode == Mode.MAINTENANCE) for where in states.values())
    assert element(99, 1) is element(6, 1, 99) is element(None, 1) is element(6, None) is None
    assert {element(s, 0) for s in S} == {"ADOT"}
    assert {element(s, 1) for s in FAILED} == {"ADET"}


def test_an_hour_of_a_press_by_hand() -> None:
    """60 s planned: 10 s set-up, 30 s production of 3 pieces (PRI 12 s, 1 scrap, 1 to rework), 5 s
    held, 5 s repaired, 10 s without an order; then 20 s held in no planned time."""
    life = Life(
        {
            "state": {0: S.RESETTING, 10: S.EXECUTE, 40: S.HELD, 50: S.IDLE, 61: S.HELD},
            "planned": {0: 1, 60: 0}, "order": {0: 7, 50: 0}, "pri_s": {0: 12},
            "maintenance": {0: 0, 45: 1, 50: 0, 70: 2},
        },
        {
            "produced": {0: 0, 20: 1, 30: 2, 39: 3}, "scrap": {0: 0, 30: 1},
            "rework": {0: 0, 39: 1}, "inspected": {0: 0, 39: 2}, "first_pass": {0: 0, 39: 1},
        },
    )  # fmt: skip
    facts = told(UNIT, life, [15, 47])
    expected = {
        "availability": 30 / 60, "effectiveness": 36 / 30, "quality_ratio": 1 / 3,
        "oee": 12 / 60, "nee": (40 / 60) * (36 / 30) / 3, "allocation_efficiency": 45 / 60,
        "utilisation_efficiency": 30 / 45, "technical_efficiency": 30 / 35, "setup_ratio": 10 / 40,
        "equipment_load_ratio": 36 / 60, "throughput_rate": 3 * 3_600 / 50,
        "allocation_ratio": 45 / 50, "production_process_ratio": 30 / 50, "scrap_ratio": 1 / 3,
        "rework_ratio": 1 / 3, "first_pass_yield": 1 / 2, "failures": 1.0, "mtbf": 40 / 3_600,
        "mtbf_iso": 20 / 3_600, "mttf": 50 / 3_600, "mttr": 10 / 3_600, "mttr_iso": 5 / 3_600,
        "corrective_maintenance_ratio": 5 / 235, "output": 1.0,
    }  # fmt: skip
    for name, value in expected.items():
        assert KPIS[name].value(facts) == pytest.approx(value, rel=1e-12), name


def test_a_failure_is_one_change_however_it_is_told() -> None:
    """Telling HELD again, or falling silent in it, is no new failure; going on to ABORTED none."""
    life = Life(
        {
            "state": {0: S.EXECUTE, 10: S.HOLDING, 12: S.HELD, 13: S.HELD, 100: S.HELD,
                      110: S.ABORTING, 120: S.CLEARING, 130: S.STOPPED, 140: S.EXECUTE,
                      240: S.HELD},
            "planned": {0: 1}, "order": {0: 1}, "pri_s": {},
        }
    )  # fmt: skip
    for cuts in ([], [10], [11, 12, 13], [50, 90, 105], [240]):
        assert told(UNIT, life, cuts)["failures"] == 2


# Capability


@some
@given(
    readings=st.lists(st.integers(-900, 900), min_size=1, max_size=30),
    limits=st.tuples(st.integers(-500, 0), st.integers(1, 500)),
    cuts=CUTS,
)
def test_capability_is_that_of_the_readings(
    readings: list[int], limits: tuple[int, int], cuts: list[int]
) -> None:
    low, high = (limit / 10 for limit in limits)
    values = [reading / 1_000 for reading in readings]
    t_ns = np.arange(len(values), dtype=np.int64) * 7 * NS
    batch = Batch(ASSET, "event", t_ns, {"biscuit_mm": np.array(values)}, META)
    birth = Birth(ASSET, "casting_cell", 0, {"biscuit_mm": "mm"}, META, {"biscuit_mm": (low, high)})
    own = tailored(Spreads("biscuit_mm", 1_000), birth)
    state = own.zero()
    for a, b in itertools.pairwise((0, *sorted(set(cuts)), SPAN)):
        state = own.merge(state, own.fold(Columns([batch], a * NS, b * NS)))
    facts = own.facts(state)
    got = {kpi.name: kpi.value(facts) for kpi in CAPABILITY if kpi.name.startswith("biscuit")}
    if len(set(values)) < 2:
        assert set(got.values()) == {None}
        return
    mean, s = statistics.fmean(values), statistics.stdev(values)
    steps = [b - a for a, b in itertools.pairwise(values)]
    sigma = math.sqrt(sum(d * d for d in steps) / len(steps) / 2)
    room = min(high - mean, mean - low)
    expected = {
        "biscuit_cm": (high - low) / (6 * s), "biscuit_cmk": room / (3 * s),
        "biscuit_cp": (high - low) / (6 * sigma), "biscuit_cpk": room / (3 * sigma),
    }  # fmt: skip
    assert got == {name: pytest.approx(v, rel=1e-9, abs=1e-9) for name, v in expected.items()}


def born(limits: str) -> Envelope:
    t_ns = 1_767_571_200 * NS
    head = f'{{"kind": "casting_cell", "t_ns": {t_ns}, "ch": {{"biscuit_mm": "mm"}}'
    body = head + f', "limits": {limits}' + "}"
    return Envelope("uns", "beilun/v1/s/a/l/m/birth", t_ns + 9, body.encode())


def test_a_birth_carries_limits() -> None:
    (birth,) = CODEC.decode(born('{"biscuit_mm": [20, 30.5]}'))
    assert isinstance(birth, Birth)
    assert birth.limits == {"biscuit_mm": (20.0, 30.5)}
    assert [k.name for k in CAPABILITY if k.applies(birth.kind, birth.channels, birth.limits)] == [
        "biscuit_cm", "biscuit_cmk", "biscuit_cp", "biscuit_cpk"
    ]  # fmt: skip
    (plain,) = CODEC.decode(born("{}"))
    assert isinstance(plain, Birth)
    assert not any(k.applies(plain.kind, plain.channels, plain.limits) for k in CAPABILITY)


def test_limits_and_modes_go_from_the_birth_to_the_rows() -> None:
    """Two cells say the same; only one has limits, and only one is in mode set-up."""
    start = 1_767_571_200
    t_ns = (start + np.arange(60, dtype=np.int64)) * NS
    ones = np.ones(60)
    told_ = {"state": 6 * ones, "planned": ones, "order": ones, "produced": np.arange(60.0),
             "mode": 4 * ones, "biscuit_mm": 25 + np.arange(60) % 2 / 2}  # fmt: skip
    records: list[Record] = []
    for name, limits in (("limited", {"biscuit_mm": (20.0, 26.0)}), ("plain", {})):
        asset = Asset("s", "a", "l", name)
        channels = {n: "1" for n in told_ if n != "mode" or name == "limited"}
        meta = Meta(Identity(name, 1, 0), start * NS)
        messages: list[Message] = [
            Birth(asset, "casting_cell", start * NS, channels, meta, limits),
            Batch(asset, "process", t_ns, {n: told_[n] for n in channels},
                  Meta(Identity(name, 1, 1), int(t_ns[-1]) + 1)),
        ]  # fmt: skip
        records += [Record(Envelope("uns", "t", 0, b""), m, len(records)) for m in messages]

    class Past:
        def recall(self, first_ns: int, last_ns: int) -> list[Record]:
            del first_ns, last_ns
            return records

    engine = Engine(Policy(), tuple(KPIS.values()), Past())
    engine.feed([*records, Record(Envelope("uns", "t", 0, b""), Tick(int(t_ns[-1]) + NS), 0)])
    rows = {
        (row.asset.name, row.kpi): row.value
        for row in engine.finish()
        if (row.window_length_ns, row.window_start_ns) == (60 * NS, start * NS)
    }
    s = statistics.stdev(told_["biscuit_mm"].tolist())
    assert rows["limited", "biscuit_cmk"] == pytest.approx((26 - 25.25) / (3 * s))
    assert rows["limited", "biscuit_cp"] == pytest.approx(6 / (6 * math.sqrt(0.125)))
    assert {kpi for name, kpi in rows if name == "limited"} - {
        kpi for name, kpi in rows if name == "plain"
    } == {"biscuit_cm", "biscuit_cmk", "biscuit_cp", "biscuit_cpk"}
    assert (rows["plain", "availability"], rows["plain", "setup_ratio"]) == (1.0, 0.0)
    assert (rows["limited", "availability"], rows["limited", "setup_ratio"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    "limits",
    ['{"biscuit_mm": [30, 20]}', '{"biscuit_mm": [20, 20]}', '{"biscuit_mm": [20]}',
     '{"biscuit_mm": [20, null]}', '{"biscuit_mm": [20, 1e999]}', '{"pressure_mpa": [1, 2]}'],
)  # fmt: skip
def test_limits_that_are_none_are_refused(limits: str) -> None:
    with pytest.raises(Unusable):
        CODEC.decode(born(limits))


# Warm-up


@some
@given(
    seconds=st.lists(
        st.tuples(
            st.sampled_from(["", "", "good", "bad", "good", "two"]),
            st.sampled_from(["", "", "", "", "start", "run"]),
        ),
        min_size=15,
        max_size=45,
    ),
    cuts=st.lists(st.integers(1, 40), max_size=8),
)
def test_warm_up_is_counted_shot_by_shot(seconds: list[tuple[str, str]], cuts: list[int]) -> None:
    """In each second there may be a count, and after it a change of state."""
    produced, scrap, since = 0, 0, None
    warm = bad = 0
    readings: dict[int, tuple[int, int]] = {0: (0, 0)}
    states: Steps = {}
    for second, (count, change) in enumerate(seconds, start=1):
        if count:
            made, spoilt = (2, 0) if count == "two" else (1, int(count == "bad"))
            if since is not None and since < PIECES:
                warm, bad = warm + made, bad + spoilt
            since = None if since is None else since + made
            produced, scrap = produced + made, scrap + spoilt
            readings[second] = (produced, scrap)
        if change:
            states[second] = S.STARTING if change == "start" else S.EXECUTE
            since = 0 if change == "start" else since
    life = Life({"state": states})
    t_ns = np.array(sorted(readings), dtype=np.int64) * NS
    columns = [np.array([float(readings[t][i]) for t in sorted(readings)]) for i in (0, 1)]
    both = {"produced": columns[0], "scrap": columns[1]}
    batches = [*life.batches(), Batch(ASSET, "event", t_ns, both, Meta(Identity("m", 1, 99), 0))]
    measure = Warmups()
    state = measure.edge(measure.zero(), 0)
    total: Counter[str] = Counter()
    for low, high in itertools.pairwise((0, *sorted(set(cuts)), SPAN)):
        # a window of its own each time, begun from the edge of the one before
        state = measure.merge(state, measure.fold(Columns(batches, low * NS, high * NS)))
        total.update(measure.facts(state))
        state = measure.edge(state, high * NS)
    assert (total["warmup_pieces"], total["warmup_scrap"]) == (warm, bad)


# Material, personnel, energy, vehicles


def value(name: str, told_: Mapping[str, Mapping[int, float]], *, together: bool = False) -> float:
    """A KPI of what was told, in panes of 100 s."""
    kpi = KPIS[name]
    parts = [told_] if together else [{channel: steps} for channel, steps in told_.items()]
    batches: list[Batch] = []
    for seq, part in enumerate(parts):
        times = sorted(next(iter(part.values())))
        columns = {n: np.array([float(steps[t]) for t in times]) for n, steps in part.items()}
        t_ns = np.array(times, dtype=np.int64) * NS
        stream = "event" if "cycle_s" in part else "process"
        batches.append(Batch(ASSET, stream, t_ns, columns, Meta(Identity("m", 1, seq), 0)))
    assert kpi.applies(kpi.kinds[0], dict.fromkeys(told_, "1"))
    birth = Birth(ASSET, kpi.kinds[0], 0, dict.fromkeys(told_, "1"), META)
    facts: dict[str, Fact] = {}
    for measure in kpi.measures:
        own = tailored(measure, birth)
        state = own.edge(own.fold(Columns(batches, -100 * NS, 0)), 0)
        for low in (0, 100, 200):
            state = own.merge(state, own.fold(Columns(batches, low * NS, (low + 100) * NS)))
        facts |= own.facts(state)
    found = kpi.value(facts)
    assert found is not None
    return found


def test_turnover_days_in_three_forms_agree_in_a_steady_state() -> None:
    """Every 10 s a piece comes in that stays 40 s: seen for long, WIP is 4 and the age 40 s."""
    entered = {t: float(t // 10 + 5) for t in range(0, 301, 10)}
    flow = {
        "entered": entered,
        "left": {t: n - 4 for t, n in entered.items()},
        "scrapped": dict.fromkeys(entered, 0.0),
        "age_piece_s": {t: 40.0 * (n - 5) for t, n in entered.items()},
    }
    days = 40 / 86_400
    # A window holds a reading at its start and not the one at its end: 29 of 30 departures.
    by_little, by_books = (
        value(name, flow, together=True) for name in ("wip_turnover_days", "wip_inventory_days")
    )
    assert by_little == pytest.approx(by_books, rel=1e-12)
    assert by_little == pytest.approx(4 * 300 / 29 / 86_400, rel=1e-12)
    assert value("wip_age_days", flow, together=True) == pytest.approx(days, rel=1e-12)
    assert value("inventory_turns", flow, together=True) * by_books == pytest.approx(365.0)


def test_goods_and_losses_add_up_to_what_was_consumed() -> None:
    flow = {"consumed": {0: 0.0, 150: 50.5, 300: 200.0}}
    shares = {"integrated_good": 150.0, "production_loss": 30.0, "storage_loss": 15.0,
              "other_loss": 5.0}  # fmt: skip
    flow |= {name: {0: 0.0, 300: amount} for name, amount in shares.items()}
    names = ("integrated_goods_ratio", "production_loss_ratio", "storage_loss_ratio",
             "other_loss_ratio")  # fmt: skip
    found = [value(name, flow) for name in names]
    assert found == [0.75, 0.15, 0.075, 0.025]
    flow["good"] = {0: 0.0, 300: 140.0}
    assert value("finished_goods_ratio", flow) == 0.7


@pytest.mark.parametrize(
    ("name", "told_", "expected"),
    [
        ("fall_off_ratio", {"entered": {0: 0, 10: 50}, "scrapped": {0: 0, 20: 4}}, 0.08),
        ("worker_efficiency", {"attending": {0: 4, 150: 2}, "working": {0: 3, 150: 2}}, 750 / 900),
        ("output_per_head", {"left": {0: 0, 99: 60}, "heads": {0: 2.5}}, 60 * 12 / 2.5),
        (
            "value_per_head",
            {"left": {0: 0, 99: 6, 200: 10}, "heads": {0: 5}, "value_cny": {0: 2.5, 150: 100}},
            (6 * 2.5 + 4 * 100) / 5 * 365 * 86_400 / 300,
        ),
        (
            "co2_per_unit",
            {"energy_kwh": {0: 1, 100: 3.5, 300: 4.5}, "co2_kg_per_kwh": {0: 0.5, 100: 0.25},
             "produced": {0: 0, 50: 5}},
            (2.5 * 0.5 + 1 * 0.25) / 5,
        ),
        (
            "co2_per_metre",
            {"energy_kwh": {0: 0, 300: 8}, "co2_kg_per_kwh": {0: 0.5}, "length_m": {0: 0, 300: 50}},
            0.08,
        ),
        ("spark_faults_per_km", {"spark_faults": {0: 0, 9: 3}, "length_m": {0: 0, 99: 1_500}}, 2.0),
        ("eccentricity_mean", {"eccentricity_ratio": {0: 0.02, 5: 0.03, 250: 0.0401}}, 0.09010 / 3),
        ("eccentricity_p95", {"eccentricity_ratio": {0: 0.02, 5: 0.03, 250: 0.0401}}, 0.0401),
        ("shot_cycle_time", {"cycle_s": {60: 59.5, 121: 61.0}}, 60.25),
        (
            "actual_to_planned_scrap",
            {"state": {0: 6}, "produced": {0: 0, 50: 50}, "scrap": {0: 0, 40: 3},
             "quantity": {0: 96}, "planned_scrap": {0: 4}},
            1.5,
        ),
        (
            "agv_empty_ratio",
            {"driving": {0: 1, 50: 0, 60: 1, 110: 0}, "loaded": {0: 0, 20: 1, 55: 0, 100: 1}},
            60 / 100,
        ),
        ("agv_mission_time", {"mission": {0: 0, 10: 1, 50: 0, 100: 1, 130: 0}}, 35.0),
        (
            "agv_waiting_ratio",
            {"mission": {0: 0, 10: 1, 60: 0}, "waiting": {0: 1, 20: 0, 40: 1, 70: 0}},
            30 / 50,
        ),
    ],
)  # fmt: skip
def test_a_value_by_hand(
    name: str, told_: Mapping[str, Mapping[int, float]], expected: float
) -> None:
    assert value(name, told_) == pytest.approx(expected, rel=1e-9)
