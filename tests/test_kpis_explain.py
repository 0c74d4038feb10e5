"""``beilun kpis explain``: rows computed again with what they were made of kept beside them."""

import ast
import itertools
import json
import operator
import random
import re
import sqlite3
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from beilun.cli import main
from beilun.commands.replay import reader
from beilun.composing import recorded_policy
from beilun.offline import run_offline
from config.scenario import find_scenario
from config.units import NS_PER_S as S
from config.windows import Every, Order, Sliding, Span, Window
from edge import kpis
from edge.engine import Engine
from edge.evidence import (
    Evidence,
    Inquiry,
    Place,
    Said,
    described,
    messages,
    place_of,
    symbols,
    time_lines,
)
from edge.kpi import Kpi, Term, counted
from edge.measures import Facts, add_facts
from edge.measures.sums import Sums
from edge.pipeline import Journal
from edge.policy import Policy
from edge.rows import ALL, ORDER_NUMBER, Row, last_rows, rows_in
from edge.store import RowStore
from ingest.messages import Asset, Batch, Birth, Envelope, Identity, Meta, Progress, Record
from ingest.recording import Recording

KPIS = kpis.load()
SAMPLE = 240


def sum_of(parts: Iterable[Facts]) -> dict[str, Any]:
    total: dict[str, Any] = {}
    for part in parts:
        total = add_facts(total, part)
    return {name: fact for name, fact in total.items() if fact}


def rounded(facts: Facts) -> dict[str, Any]:
    """Facts that are not 0. What the plan allows for is rounded to 1e-9 of a piece in every stretch
    with pieces, so the stretches may differ from the whole by as much; all others are exact."""
    kept = sum_of([facts])
    if (allowed := kept.get("planned_scrap_pico")) is not None:
        kept["planned_scrap_pico"] = pytest.approx(allowed, abs=100_000)
    return kept


# a real recording ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes of quickstart with an outage, so that some samples came late."""
    path = tmp_path_factory.mktemp("kpis-explain") / "r.beilun"
    outage = {"kind": "outage", "after": "200s", "length": "20s"}
    edge = {"windows": ["1m", "5m", "4m/1m", "day", "order"]}
    changes = {"length": "10m", "fault": [outage], "edge": edge}
    run_offline(find_scenario("quickstart", changes=changes), path)
    return path


@pytest.fixture(scope="module")
def explained(recorded: Path) -> list[tuple[Row, Evidence, Policy]]:
    """Rows of every KPI and kind of window, drawn by a fixed die, each with its evidence."""
    with Recording.open(recorded) as recording:
        stored = [r for r in RowStore(recording).rows() if r.kpi != ORDER_NUMBER]
        of_kpi = {row.kpi: row for row in stored if row.value is not None}
        late = [row for row in stored if row.late and row.value is not None]
        dice = random.Random(11)
        rows = [*of_kpi.values(), *dice.sample(late, 30), *dice.sample(stored, SAMPLE)]
        chosen = {place_of(row): row for row in rows}
        policy = recorded_policy(recording)
        inquiry = Inquiry(tuple(KPIS.values()), chosen.keys())
        decoder, run = reader(recording)
        engine = Engine(policy, inquiry.kpis, Journal(recording, decoder), run=run)
        for block in recording.blocks():
            engine.feed(record for e in block.envelopes for record in decoder.read(e))
            inquiry.note(engine.advance())
        inquiry.note(engine.finish())
    found: list[tuple[Row, Evidence, Policy]] = []
    for place, row in chosen.items():
        evidence = inquiry.evidence(place)
        assert evidence is not None, place
        found.append((row, evidence, policy))
    return found


Explained = list[tuple[Row, Evidence, Policy]]


def test_a_row_comes_out_as_it_is_stored(explained: Explained) -> None:
    assert len({row.kpi for row, _, _ in explained}) > 60
    assert len({row.window_length_ns for row, _, _ in explained}) >= 4
    assert any(row.value is None for row, _, _ in explained)
    assert sum(row.late > 0 for row, _, _ in explained) >= 30
    for row, evidence, _ in explained:
        assert evidence.row._replace(revision=row.revision) == row


def test_a_groups_facts_are_the_sum_of_its_members(explained: Explained) -> None:
    groups = [e for row, e, _ in explained if row.asset.name == ALL]
    assert len(groups) > 30
    for evidence in groups:
        assert not evidence.parts
        assert evidence.members
        total = sum_of(member.facts for member in evidence.members)
        assert total == sum_of([evidence.facts])
        assert evidence.row.n == sum(member.row.n for member in evidence.members)
        assert evidence.row.late == sum(member.row.late for member in evidence.members)


def test_the_time_line_adds_up_to_the_facts(explained: Explained) -> None:
    checked = 0
    for row, evidence, _ in explained:
        for name, line in time_lines(evidence).items():
            part = next(part for part in evidence.parts if part.measure.name == name)
            assert rounded(sum_of(stretch.facts for stretch in line)) == rounded(part.facts)
            assert sum(s.span.length_ns for s in line) == part.span.length_ns
            ends = [s.span.end_ns for s in line]
            assert [s.span.start_ns for s in line] == [part.span.start_ns, *ends[:-1]]
            assert part.span.end_ns <= place_of(row).span.end_ns
            pairs = itertools.pairwise(line)
            assert all(before.situation != after.situation for before, after in pairs)
            checked += len(line) > 1
    assert checked > 20


def test_a_listed_message_has_a_part_in_the_window_or_told_what_was_known(
    explained: Explained,
) -> None:
    counted = late = before = 0
    for row, evidence, policy in explained:
        start_ns, end_ns = place_of(row).span
        said = messages(evidence, policy.late)
        assert len({one.identity for one in said}) == len(said)
        for one in said:
            counted += 1
            late += one.late
            before += one.before
            if one.before:
                assert one.first_ns <= start_ns
            else:
                assert one.n or one.told or start_ns <= (one.sent_ns or 0) < end_ns
        assert sum(one.n for one in said) <= row.n or row.asset.name == ALL
    assert counted > 1_000
    assert late
    assert before


def test_every_fact_has_words(explained: Explained) -> None:
    for _, evidence, _ in explained:
        told = described(evidence)
        assert len(told) == len(evidence.facts)
        assert all(one.label and "\0" not in one.label for one in told)


_ARITHMETIC: dict[type, Any] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip
_FACTOR = {"h": 3_600, "d": 1, "{piece}/h": 1 / 3_600, "kg/m": 1, "{fault}/km": 1e-3}


def evaluated(node: ast.expr, terms: dict[str, Any]) -> float:
    match node:
        case ast.BinOp(left, op, right):
            return float(_ARITHMETIC[type(op)](evaluated(left, terms), evaluated(right, terms)))
        case ast.Name(name):
            return float(terms[name].value)
        case ast.Constant(int(value)):
            return value
    raise ValueError(ast.dump(node))


def test_a_formula_with_the_numbers_put_in_gives_the_value(explained: Explained) -> None:
    """Of those formulas that are arithmetic, as far as their terms are known."""
    given: set[str] = set()
    for row, evidence, _ in explained:
        formula = re.sub(r",.*", "", evidence.kpi.formula).rpartition("=")[2].strip()
        terms = symbols(evidence, KPIS)
        words = set(re.findall(r"[A-Za-z_]\w*", formula))
        if row.value is None or not words or not words <= terms.keys():
            continue
        try:
            found = evaluated(ast.parse(formula, mode="eval").body, terms)
        except ZeroDivisionError:
            continue
        assert found == pytest.approx(row.value * _FACTOR.get(row.unit, 1)), (row, formula)
        given.add(row.kpi)
    assert given >= {
        "oee", "availability", "effectiveness", "quality_ratio", "scrap_ratio", "setup_ratio",
        "line_speed", "running_speed", "allocation_ratio", "throughput_rate",
    }  # fmt: skip


# a made-up one: orders, silence, amendments -------------------------------------------------------

T0 = 1_767_571_200 * S
MACHINE = Asset("s", "a", "l", "m1")
LENGTH = 240 * S
WINDOWS: tuple[Window, ...] = (Every(60 * S), Sliding(120 * S, 60 * S), Order())
CHANNELS = ("state", "planned", "order", "pri_s", "produced", "scrap", "energy_kwh", "mode")


class Life:
    """What one machine says in four minutes: each channel when it likes, some of it late, and
    with ``modulus`` its counters begin again at 0 there."""

    def __init__(self, dice: random.Random, modulus: int | None = None) -> None:
        self.records: list[Record] = []
        moduli = {} if modulus is None else dict.fromkeys(("produced", "energy_kwh"), modulus)
        units = dict.fromkeys(CHANNELS, "1")
        self._add(Birth(MACHINE, "casting_cell", T0, units, self._meta(T0), modulus=moduli))
        totals = dict.fromkeys(("produced", "scrap", "energy_kwh"), 0.0)
        for _ in range(dice.randrange(2, 60)):
            t_ns = T0 + dice.choice((dice.randrange(LENGTH), dice.randrange(24) * 10 * S))
            chosen = dice.sample(CHANNELS, dice.randrange(1, 5))
            channels: dict[str, float] = {}
            for name in chosen:
                if name in totals:
                    totals[name] = (t_ns - T0) // (7 * S) if name != "scrap" else t_ns // S % 3
                    channels[name] = totals[name]
                    if name in moduli:  # never half a turn from one reading to the next
                        channels[name] = (60 + totals[name]) % moduli[name]
                else:
                    values = {"state": (6, 6, 11, 4), "planned": (1, 1, 0), "order": (0, 1, 2),
                              "pri_s": (1.5, 2.0), "mode": (1, 4, np.nan)}  # fmt: skip
                    channels[name] = float(dice.choice(values[name]))
            arrival_ns = t_ns + dice.choice((1, 5, 60)) * S
            columns = {name: np.array([value]) for name, value in channels.items()}
            meta = self._meta(arrival_ns, t_ns)
            self._add(Batch(MACHINE, "event", np.array([t_ns], dtype=np.int64), columns, meta))
        dice.shuffle(self.records)
        self._add(Progress("c", "r", T0 + LENGTH, 0, 0, {}, 0, True, 1))

    def _meta(self, arrival_ns: int, sent_ns: int | None = None) -> Meta:
        number = len(self.records) + 1
        return Meta(Identity("m1", 1, number), arrival_ns, sent_ns, "r", "c", number)

    def _add(self, message: Birth | Batch | Progress) -> None:
        self.records.append(Record(Envelope("uns", "t", 0, b""), message, len(self.records)))

    def recall(self, first_ns: int, last_ns: int) -> list[Record]:
        del first_ns, last_ns
        return self.records

    def rows(self, heard: Collection[Identity] | None = None) -> dict[Place, Row]:
        """What an edge makes of all messages, or of some of them."""
        kept = [r for r in self.records if heard is None or not isinstance(r.message, Batch)
                or r.message.meta.identity in heard]  # fmt: skip
        engine = Engine(Policy(windows=WINDOWS), tuple(KPIS.values()), self, run="r")
        engine.feed(kept)
        return {place_of(row): row for row in last_rows(engine.finish()).values()}

    def inquired(self, places: Collection[Place], by_order: Collection[Span]) -> Inquiry:
        inquiry = Inquiry(tuple(KPIS.values()), places, by_order)
        engine = Engine(Policy(windows=WINDOWS), inquiry.kpis, self, run="r")
        for record in self.records:
            engine.feed([record])
            inquiry.note(engine.advance())
        inquiry.note(engine.finish())
        return inquiry


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.sampled_from([None, 70]))
@example(437, None)
@example(617052318, None)
@example(437, 70)
def test_what_is_kept_is_all_there_is_to_a_row(seed: int, modulus: int | None) -> None:
    dice = random.Random(seed)
    life = Life(dice, modulus)
    rows = life.rows()
    own = [row for row in rows.values() if row.asset == MACHINE]
    grid = {place_of(r).span for kind in WINDOWS[:2] for r in rows_in(own, kind)}
    by_order = {place_of(r).span for r in rows_in(own, WINDOWS[2])} - grid
    every = [p for p, row in rows.items() if p.asset == MACHINE and p.kpi != ORDER_NUMBER]
    told = dice.sample(every, 40)
    inquiry = life.inquired(told, by_order)
    said: dict[Place, list[Said]] = {}
    for place in told:
        evidence = inquiry.evidence(place)
        assert evidence is not None, place
        assert evidence.row == rows[place]
        assert evidence.by_order == (place.span in by_order)
        for name, line in time_lines(evidence).items():
            part = next(part for part in evidence.parts if part.measure.name == name)
            assert rounded(sum_of(stretch.facts for stretch in line)) == rounded(part.facts)
        said[place] = messages(evidence, Policy().late)
    for place in [p for p in told if p.span not in by_order][:4]:
        # Silence everybody who is not listed, and the value stays.
        alone = life.rows({one.identity for one in said[place]})
        assert alone[place].value == rows[place].value, place


def test_what_was_announced_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fault = {"after": "0s", "length": "1h", "asset": "dcm01", "channel": "produced"}
    faults = [
        {"kind": "counter_rollover", "modulus": 5, **fault},
        {"kind": "spike", "ratio": 0.1, "values": [65_534, -1], "announced": True, **fault},
    ]
    path = tmp_path / "r.beilun"
    run_offline(find_scenario("quickstart", changes={"length": "1m", "fault": faults}), path)
    words = ["kpis", "explain", "output", "--asset", "dcm01", "--window", "1m", str(path)]
    assert main(words) == 0
    told = capsys.readouterr().out.splitlines()
    at = told.index("announced   produced begins again at 0 at 5")
    assert told[at + 1] == "            produced of -1, 65534 is no measurement"
    assert main([*words, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["announced"]) == 2


def test_an_order_is_explained_to_the_nanosecond() -> None:
    life = Life(random.Random(0))
    life.records = [r for r in life.records if isinstance(r.message, Birth | Progress)]
    begin, end = T0 + 31 * S + 7, T0 + 100 * S + 1
    for number, (t_ns, channels) in enumerate(
        (
            (T0, {"planned": 1, "pri_s": 20, "state": 6, "order": 0, "produced": 0}),
            (begin, {"order": 5, "produced": 1}),  # the piece that came just before the order
            (T0 + 60 * S, {"state": 11, "produced": 3}),
            (end, {"order": 0, "produced": 4}),
        ),
        2,
    ):
        columns = {name: np.array([float(value)]) for name, value in channels.items()}
        meta = Meta(Identity("m1", 1, 100 + number), t_ns + S, t_ns, "r", "c", number)
        batch = Batch(MACHINE, "event", np.array([t_ns], dtype=np.int64), columns, meta)
        life.records.insert(-1, Record(Envelope("uns", "t", 0, b""), batch, number))
    place = Place(MACHINE, "allocation_ratio", Span(begin, end))
    evidence = life.inquired([place], [place.span]).evidence(place)
    assert evidence is not None
    assert evidence.by_order
    assert evidence.facts["produced"] == 3
    (line,) = time_lines(evidence).values()
    assert [(s.span, s.situation["state"], s.facts.get("produced", 0)) for s in line] == [
        (Span(begin, T0 + 60 * S), 6, 2), (Span(T0 + 60 * S, end), 11, 1),
    ]  # fmt: skip
    said = messages(evidence, Policy().late)
    assert [(one.identity.seq, one.before) for one in said] == [
        (102, True), (103, False), (104, False), (105, False),
    ]  # fmt: skip


def test_of_a_counter_whose_clock_stepped_the_highest_reading_is_what_was_known() -> None:
    life = Life(random.Random(0))
    life.records = [r for r in life.records if isinstance(r.message, Birth | Progress)]
    for number, (second, made) in enumerate(((10, 5), (20, 3), (70, 8)), 2):
        t_ns = T0 + second * S
        columns = {"produced": np.array([float(made)]), "scrap": np.array([0.0])}
        meta = Meta(Identity("m1", 1, 100 + number), t_ns + S, t_ns, "r", "c", number)
        batch = Batch(MACHINE, "event", np.array([t_ns], dtype=np.int64), columns, meta)
        life.records.insert(-1, Record(Envelope("uns", "t", 0, b""), batch, number))
    place = Place(MACHINE, "output", Span(T0 + 60 * S, T0 + 120 * S))
    evidence = life.inquired([place], []).evidence(place)
    assert evidence is not None
    assert evidence.row.value == 3
    before = [one for one in messages(evidence, Policy().late) if one.before]
    told = {one.identity.seq: one.told for one in before}
    assert told[102]["produced"] == (5, 5)
    assert "produced" not in told.get(103, {})


# the command --------------------------------------------------------------------------------------


def told(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["kpis", "explain", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_a_cell_is_explained_down_to_the_messages(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("oee", "--asset", "dcm01", recorded, "--window", "5m", "--at", "2026-01-05T00:06:00Z")
    text = told(capsys, *words, "--messages", "--limit", 4, "--raw")
    assert "oee of ningbo/casting/line1/dcm01, 2026-01-05T00:05:00Z to 2026-01-05T00:10:00Z" in text
    for part in ("recomputed  the same, to the bit", "truth", "ISO 22400-2 OEE index",
                 "availability = APT / PBT = ", "Made of", "Time line by `unit`",
                 "all the time: state EXECUTE", "known before", "--limit lists them",
                 "beilun/v1/ningbo/casting/line1/dcm01/state", '"x_beilun"'):  # fmt: skip
        assert part in text, part
    whole = json.loads(told(capsys, *words, "--messages", "--json"))
    found = re.search(r"Messages: ([\d,]+) of", text)
    assert found is not None
    assert int(found[1].replace(",", "")) == len(whole["messages"])
    assert whole["same"]
    assert whole["value"] == whole["recomputed"]["value"]
    assert whole["error"] == pytest.approx(whole["value"] - whole["truth"])
    assert whole["facts"]["pbt_ns"] == 300 * S
    line = whole["time_lines"]["unit"]
    assert sum(s["facts"].get("apt_ns", 0) for s in line) == whole["facts"]["apt_ns"]
    with sqlite3.connect(recorded) as db:  # where the messages are said to lie, there are blocks
        blocks = {row[0] for row in db.execute("SELECT id FROM block")}
    assert {message["block"] for message in whole["messages"]} <= blocks


def test_a_line_is_explained_by_its_members(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("oee", recorded, "--asset", "line1", "--window", "2026-01-05T00:05:00Z+5m")
    text = told(capsys, *words)
    assert "The sum of 4: facts are added up, never values" in text
    assert re.search(r"dcm01 +dcm02 +dcm03 +dcm04 +sum", text)
    whole = json.loads(told(capsys, *words, "--json"))
    assert whole["facts"]["pbt_ns"] == sum(m["facts"]["pbt_ns"] for m in whole["members"])


def test_no_value_is_explained_too(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Recording.open(recorded) as recording:
        row = next(r for r in RowStore(recording).rows() if r.kpi == "wip_age_days"
                   and r.value is None and r.window_length_ns == 60 * S
                   and r.asset.name == "flow")  # fmt: skip
    start = np.datetime64(row.window_start_ns, "ns").astype("datetime64[s]")
    text = told(capsys, "wip_age_days", recorded, "--window", "1m", "--at", f"{start}Z")
    assert "no evidence" in text
    assert "recomputed  the same" in text


def test_a_row_that_was_tampered_with_is_told_loudly(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy.beilun"
    copy.write_bytes(recorded.read_bytes())
    with sqlite3.connect(copy) as db:
        db.execute("UPDATE row SET value = value + 0.5")
    words = ("kpis", "explain", "oee", "--asset", "dcm01", str(copy), "--window", "5m")
    assert main([*words]) == 1
    captured = capsys.readouterr()
    assert "NOT THE SAME" in captured.out
    assert "does not give the stored row" in captured.err


@pytest.mark.parametrize(
    ("code", "words", "answer"),
    [
        (2, "oe --asset dcm01", "did you mean oee?"),
        (2, "oee", "--asset says whose"),
        (2, "oee --asset cl01", "cl01 has no oee"),
        (2, "oee --asset cl01", "ningbo/casting/line1/dcm04"),
        (2, "oee --asset dcm9", "has no asset 'dcm9'; did you mean dcm0"),
        (2, "oee --asset dcm*", "write the whole path"),
        (2, "oee --asset dcm01 --window 2h", "there are 1m, 5m, 4m/1m, day, order"),
        (2, "oee --asset dcm01 --window shif", "did you mean shift?"),
        (2, "oee --asset dcm01 --at 2027-01-05T04:30:30Z", "no such window"),
        (2, "oee --asset dcm01 --window 2026-01-05T00:05:00Z+3m", "there are 10 of 1m, from"),
        (2, "oee --asset dcm01 --at yesterday", "not a time"),
    ],
)  # fmt: skip
def test_what_cannot_be_explained_says_what_can(
    code: int, words: str, answer: str, recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kpi, *options = words.split()
    assert main(["kpis", "explain", kpi, str(recorded), *options]) == code
    captured = capsys.readouterr()
    assert not captured.out
    assert answer in captured.err


def test_a_recording_without_rows_is_refused(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy.beilun"
    copy.write_bytes(recorded.read_bytes())
    with sqlite3.connect(copy) as db:
        db.execute("DELETE FROM row")
    assert main(["kpis", "explain", "oee", str(copy)]) == 3
    assert "holds no KPI rows" in capsys.readouterr().err


def test_kpis_still_describes_a_kpi(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kpis", "oee"]) == 0
    assert "ISO 22400-2 OEE index" in capsys.readouterr().out


def test_a_kpi_of_somebody_elses_is_explained_by_its_own_terms() -> None:
    pieces = Sums("piece_sums", ("boxes",))
    kpi = Kpi(
        name="pallets", unit="{pallet}", summary="Full pallets.", formula="BX / 40", clause="ours",
        better="up", kinds=(), needs=("boxes",), measures=(pieces,), value=lambda _: 3.0,
        terms={"BX": counted("boxes"), "NO": Term("s", lambda _: None)},
    )  # fmt: skip
    row = Row(MACHINE, "pallets", T0, 60 * S, 3.0, 1, 0, "{pallet}")
    evidence = Evidence(row, kpi, {"boxes": 120}, (), (), None, by_order=False)
    terms = symbols(evidence, {})
    assert terms["BX"].value == 120
    assert "NO" not in terms


@pytest.mark.parametrize("kpi", KPIS.values(), ids=KPIS)
def test_the_terms_of_a_kpi_are_words_that_facts_may_give(kpi: Kpi) -> None:
    """None fails where the facts say nothing, and each is a word."""
    for word, term in kpi.terms.items():
        assert re.fullmatch(r"[A-Z]+", word)
        term.amount({})
