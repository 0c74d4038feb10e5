"""A factory on the wire: order, numbers and clocks; the network's monitor; the link trace."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beilun.offline import make_factory
from config.globs import asset_matches
from config.scenario import find_scenario
from config.units import NS_PER_S, parse_time
from ingest import bins
from ingest.cells import LARGEST
from ingest.codecs import uns, vda5050
from ingest.messages import Asset, Batch, Birth, Envelope
from ingest.recording import PARTS, Trace, unpacked
from simulator.device import PANE_NS, Columns, VdaConnection
from simulator.factory import OPENING_NS, WIRE_NS, Chunk, Factory, Made
from simulator.network import HOPS, report
from simulator.wire import Clock, Jump

START = parse_time("2026-01-05T00:00:00Z")
OUTAGE = {"kind": "outage", "after": "70s", "length": "20s"}
CASES: dict[str, dict[str, Any]] = {
    "5g": {"network": "private-5g"},
    "outage": {"network": "private-5g", "fault": [OUTAGE]},
    "lossy": {"network": "private-5g-udp", "fault": [OUTAGE]},
    "wifi": {"network": "wifi-loaded"},
}
Run = tuple[Factory, list[Made], list[Chunk]]


def factory(length: str = "4m", *, trace: bool = False, **changes: Any) -> Factory:
    return make_factory(
        find_scenario("quickstart", changes={"length": length, **changes}), "r", trace=trace
    )


def everything(made: Factory, chunk_ns: int = 60 * NS_PER_S) -> Run:
    births = made.births()
    chunks = list(made.chunks(chunk_ns))
    return made, [*births, *(m for chunk in chunks for m in chunk.made)], chunks


@pytest.fixture(scope="module", params=list(CASES))
def run(request: pytest.FixtureRequest) -> Run:
    return everything(factory(trace=True, **CASES[request.param]))


def said(message: Made) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(message.payload)
    return found


def stamps(message: Made) -> dict[str, Any]:
    found: dict[str, Any] = said(message)["x_beilun"]
    return found


def traces(made: Factory) -> list[Trace]:
    tracer = made.trace()
    assert tracer is not None
    return [Trace(b.asset, b.way, b.slice, unpacked(b.data)) for b in tracer.blocks()]


# Connections


def test_a_connection_numbers_in_order_of_arrival_and_keeps_each_senders_order(run: Run) -> None:
    made, messages, _ = run
    for conn in made.connections:
        mine = [m for m in messages if m.conn == conn]
        assert [m.cseq for m in mine] == list(range(1, len(mine) + 1))
        assert all(a.arrival_ns <= b.arrival_ns for a, b in pairwise(mine))
        seqs: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for m in mine:
            topic = m.topic.split("/")
            asset = topic[3] if topic[0] == "uagv" else "/".join(topic[2:6])
            seqs[asset].append((stamps(m)["seq"], stamps(m)["sent_ns"]))
            assert stamps(m)["sent_ns"] <= m.arrival_ns
        assert all(told == sorted(told) for told in seqs.values())
    assert len({len(m.topic.split("/")) for m in messages}) > 1, "vehicles are among them"


def test_devices_of_an_area_do_not_wait_for_each_other() -> None:
    """One is silent in an outage of its cell, another on the same connection is heard."""
    cells = {"kind": "outage", "after": "70s", "length": "60s", "cell": "c9"}
    _, messages, _ = everything(factory("3m", fault=[cells]))
    late = Counter(
        m.topic.split("/")[3 if m.topic.startswith("uagv") else 5]
        for m in messages
        if m.conn in ("casting", "logistics") and m.arrival_ns - stamps(m)["sent_ns"] > NS_PER_S
    )
    heard = Counter(m.topic.split("/")[5] for m in messages if m.conn == "casting")
    assert late
    assert set(heard) - set(late), "not everybody stands in that cell"


def test_births_come_first(run: Run) -> None:
    made, messages, _ = run
    births = made.births()
    assert messages[: len(births)] == births
    assert all(m.topic.endswith("/birth") and m.retain for m in births)
    assert all(m.arrival_ns <= START + OPENING_NS for m in births)
    assert {m.conn for m in births} == set(made.connections)
    for conn in made.connections:
        opened = sum(m.conn == conn for m in births)
        first = [m for m in messages if m.conn == conn][:opened]
        assert all(m.topic.endswith("/birth") for m in first)
    announced = {m.topic for m in messages if m.topic.endswith("/birth")}
    assert {f"beilun/v1/{d.path}/birth" for d in made.floor.devices} < announced


def test_progress_counts_what_was_sent(run: Run) -> None:
    made, messages, chunks = run
    for conn in made.connections:
        sent = sorted(stamps(m)["sent_ns"] for m in messages if m.conn == conn)
        reported = [p for c in chunks for p in c.progress if p.conn == conn]
        for p in reported[:-1]:
            known = np.searchsorted(sent, p.arrival_ns, side="right") + sum(p.lost.values())
            assert p.made == known
        account = made.ledger()[conn]
        assert account.made == account.published + sum(account.lost.values())
        assert (reported[-1].made, reported[-1].lost) == (account.made, account.lost)
        assert reported[-1].end


@settings(max_examples=6, deadline=None)
@given(chunk_s=st.integers(1, 200), case=st.sampled_from(["outage", "lossy"]))
def test_chunks_only_cut(chunk_s: int, case: str) -> None:
    whole = everything(factory("3m", **CASES[case]))
    cut = everything(factory("3m", **CASES[case]), chunk_s * NS_PER_S)
    for conn in whole[0].connections:
        assert [m for m in cut[1] if m.conn == conn] == [m for m in whole[1] if m.conn == conn]
        a, b = ([p for c in r[2] for p in c.progress if p.conn == conn] for r in (whole, cut))
        assert a == b


def test_a_restart_of_the_broker_stops_the_wires_too() -> None:
    restart = {"kind": "broker_restart", "after": "65s", "length": "10s"}
    made, messages, _ = everything(factory("2m", fault=[restart]))
    away = range(START + 65 * NS_PER_S, START + 75 * NS_PER_S)
    assert not [m for m in messages if m.arrival_ns in away]
    waited = [m for m in messages if m.conn == "network" and stamps(m)["sent_ns"] in away]
    assert waited
    calm = [m for m in messages if m.conn == "network" and stamps(m)["sent_ns"] < away.start]
    assert {m.arrival_ns - stamps(m)["sent_ns"] for m in calm} == {WIRE_NS}
    assert not any(account.lost for account in made.ledger().values())


# The monitor


def reports(messages: Sequence[Made]) -> dict[tuple[str, str, int], Batch]:
    """By view, name and pane."""
    found: dict[tuple[str, str, int], Batch] = {}
    for m in messages:
        if m.conn == "network" and m.topic.endswith("/link"):
            (batch,) = uns.CODEC.decode(Envelope("uns", m.topic, 0, m.payload))
            assert isinstance(batch, Batch)
            assert set(batch.t_ns.tolist()) == {batch.t_ns[0]}
            key = (batch.asset.line, batch.asset.name, int(batch.t_ns[0]))
            assert key not in found
            found[key] = batch
    return found


def test_the_monitor_counts_every_message_that_arrived_once_per_view(run: Run) -> None:
    made, messages, _ = run
    end_ns = START + 240 * NS_PER_S
    expected: Counter[tuple[int, int, int]] = Counter()
    spent: Counter[int] = Counter()
    for trace in traces(made):
        c = trace.columns
        came = (c["arrival_ns"] >= 0) & (c["arrival_ns"] < end_ns)
        pane = (c["arrival_ns"] // PANE_NS * PANE_NS)[came]
        delay = (c["arrival_ns"] - c["sent_ns"])[came]
        down = int(trace.way.startswith("down"))
        expected.update(
            (p, down, b) for p, b in zip(pane.tolist(), bins.bin_of(delay).tolist(), strict=True)
        )
        for p, d in zip(pane.tolist(), delay.tolist(), strict=True):
            spent[p] += d
    found = reports(messages)
    for view in ("cells", "slices", "kinds"):
        counted: Counter[tuple[int, int, int]] = Counter()
        total: Counter[int] = Counter()
        for (line, _, pane_ns), batch in found.items():
            if line != view:
                continue
            ch = {name: column.tolist() for name, column in batch.channels.items()}
            for b, n, down in zip(ch["bin"], ch["count"], ch["down"], strict=True):
                counted[pane_ns, int(down), int(b)] += int(n)
            sums = [f"hop_{hop}_ns" for hop in HOPS]
            assert sum(ch["count"]) == np.nansum(ch["hop_messages"]) == ch["hop_messages"][-1]
            if max(ch[name][-1] for name in sums) < LARGEST:
                assert all(np.isnan(ch[name][:-1]).all() for name in sums)
            total[pane_ns] += sum(int(np.nansum(ch[name])) for name in sums)
        assert counted == expected
        assert total == spent


def test_parts_add_up_to_the_delay(run: Run) -> None:
    seen = 0
    for trace in traces(run[0]):
        c = trace.columns
        came = c["arrival_ns"] >= 0
        parts = np.sum([c[part] for part in PARTS], axis=0)
        assert (parts == c["arrival_ns"] - c["sent_ns"])[came].all()
        assert (np.stack([c[part] for part in PARTS]) >= 0).all()
        seen += int(came.sum())
    assert seen > 10_000


def test_every_message_is_in_the_trace_under_its_own_number(run: Run) -> None:
    made, messages, _ = run
    known = {
        (t.asset, n): (sent, arrival)
        for t in traces(made) if t.way == "telemetry"
        for n, sent, arrival in zip(
            *(t.columns[name].tolist() for name in ("number", "sent_ns", "arrival_ns")), strict=True
        )
    }  # fmt: skip
    opened = {m.conn: m.arrival_ns for m in made.births()}
    published = 0
    for m in messages:
        if m.conn in ("mes", "network"):
            continue
        x = stamps(m)
        asset = x.get("asset") or "/".join(m.topic.split("/")[2:6])
        sent_ns, arrival_ns = known[asset, x["seq"]]
        assert (sent_ns, max(arrival_ns, opened[m.conn] if x["seq"] > 1 else 0)) == (
            x["sent_ns"], x["arrival_ns"]
        )  # fmt: skip
        published += 1
    lost = sum(sum(a.lost.values()) for a in made.ledger().values())
    assert len(known) == published + lost


def test_a_cell_is_born_when_it_is_first_used(run: Run) -> None:
    made, messages, _ = run
    first: dict[int, int] = {}
    for trace in traces(made):
        c = trace.columns
        for cell, arrival_ns in zip(c["cell"].tolist(), c["arrival_ns"].tolist(), strict=True):
            if arrival_ns >= 0:
                first[cell] = min(first.get(cell, arrival_ns), arrival_ns)
    born: dict[str, Birth] = {}
    for m in messages:
        if m.conn == "network" and m.topic.endswith("/birth"):
            (birth,) = uns.CODEC.decode(Envelope("uns", m.topic, 0, m.payload))
            assert isinstance(birth, Birth)
            born["/".join(birth.asset[2:])] = birth
    tracer = made.trace()
    assert tracer is not None
    for cell, arrival_ns in first.items():
        birth = born.pop(f"cells/{tracer.cells[cell]}")
        assert (birth.kind, birth.t_ns) == ("radio_cell", arrival_ns)
    kinds = {name: birth.kind for name, birth in born.items()}
    assert not [name for name in kinds if name.startswith("cells/")]
    assert {n for n, kind in kinds.items() if kind == "device_group"} == {
        f"kinds/{spec.kind}" for spec in made.floor.plant.device
    }
    assert {birth.t_ns for birth in born.values()} == {START}


def test_a_network_without_slices_has_one() -> None:
    _, messages, _ = everything(factory("1m", network="ethernet"))
    assert {name for view, name, _ in reports(messages) if view == "slices"} == {"default"}


@given(
    counts=st.lists(st.integers(1, 50), min_size=1, max_size=4),
    spent=st.lists(st.integers(0, 10**14), min_size=4, max_size=4),
)
def test_sums_beyond_a_cell_of_the_wire_go_over_several_rows(
    counts: list[int], spent: list[int]
) -> None:
    ch: dict[str, Any] = {"bin": [*range(len(counts))], "count": counts, "down": [0] * len(counts)}
    asset = Asset("s", "network", "cells", "c")
    said = report(asset, START, START, ch, (sum(counts), *spent))
    assert {len(column) for column in said.ch.values()} == {len(said.t_ns)}
    assert sum(n or 0 for n in said.ch["count"]) == sum(counts)
    rows = list(zip(*(said.ch[f"hop_{h}"] for h in ("messages", *(f"{h}_ns" for h in HOPS))),
                    strict=True))  # fmt: skip
    told = [row for row in rows if None not in row]
    assert [sum(n or 0 for n in column) for column in zip(*told, strict=True)] == [
        sum(counts), *spent
    ]  # fmt: skip
    assert all(set(row) == {None} for row in rows if None in row)
    assert all(0 <= (cell or 0) <= LARGEST for row in told for cell in row)


def test_a_trace_changes_no_message() -> None:
    assert everything(factory("2m", trace=True))[1] == everything(factory("2m"))[1]


def test_a_run_cut_short_has_a_trace_of_what_was_sent() -> None:
    made = factory("5m", trace=True)
    made.births()
    for chunk in made.chunks(25 * NS_PER_S):
        if chunk.end_ns == START + 75 * NS_PER_S:
            made.stop()
    found = traces(made)
    cut_ns = START + 75 * NS_PER_S
    assert {t.way for t in found} == {"telemetry", "up", "down"}
    assert cut_ns - NS_PER_S < max(t.columns["sent_ns"][-1] for t in found) <= cut_ns
    telemetry = sum(len(t.columns["number"]) for t in found if t.way == "telemetry")
    ledger = made.ledger()
    assert telemetry == sum(a.made for conn, a in ledger.items() if conn not in ("mes", "network"))


# Clocks


@given(
    times=st.lists(st.integers(0, 100), min_size=1, max_size=30).map(sorted),
    jumps=st.lists(
        st.tuples(st.integers(0, 100), st.integers(1, 50), st.integers(-40, 40)), max_size=3
    ),
    wait=st.integers(0, 20),
)
def test_a_jump_cuts_a_report_and_moves_what_was_sampled_after_it(
    times: list[int], jumps: list[tuple[int, int, int]], wait: int
) -> None:
    clock = Clock([Jump(start, start + length, step) for start, length, step in jumps])
    whole = Columns(Asset("s", "a", "l", "d"), "process", times[-1] + wait, times, {"x": times})
    parts = [part for part in clock.dated(whole) if isinstance(part, Columns)]
    assert [x for part in parts for x in part.ch["x"]] == times, "nothing is lost, order stays"
    for part in parts:
        assert part.sent_ns == clock.reads(whole.sent_ns)
        assert list(part.t_ns) == sorted(part.t_ns)
        assert list(part.t_ns) == [clock.reads(int(x or 0)) for x in part.ch["x"]]
    online = VdaConnection(whole.asset, 7)
    assert clock.dated(online) == [VdaConnection(whole.asset, clock.reads(7))]


def test_a_clock_of_nobody_changes_nothing() -> None:
    step = {"kind": "clock_step", "after": "1m", "length": "1m", "asset": "x*", "step_s": 30.0}
    assert everything(factory("3m", fault=[step]))[1] == everything(factory("3m"))[1]


@pytest.mark.parametrize("step_s", [30.0, -30.0])
def test_a_wrong_clock_moves_stamps_and_nothing_else(step_s: float) -> None:
    fault = {
        "kind": "clock_step", "after": "65s", "length": "40s", "asset": "[da][cg][mv]0[12]",
        "step_s": step_s,
    }  # fmt: skip
    (made, before, _), (_, after, _) = (everything(factory("3m", fault=f)) for f in ([], [fault]))
    jump = Jump(START + 65 * NS_PER_S, START + 105 * NS_PER_S, round(step_s * NS_PER_S))
    clock = Clock([jump])

    def is_wrong(path: str) -> bool:
        return asset_matches(str(fault["asset"]), path)

    def contents(messages: list[Made], *, true: bool) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for m in messages:
            codec = uns.CODEC if uns.CODEC.claims(m.topic) else vda5050.CODEC
            body = said(m)
            body["x_beilun"]["sent_ns"] = min(body["x_beilun"]["sent_ns"], m.arrival_ns)
            payload = json.dumps(body).encode()
            for batch in codec.decode(Envelope("", m.topic, 0, payload)):
                if not isinstance(batch, Batch) or not is_wrong(str(batch.asset)):
                    continue
                if batch.stream == "link":
                    continue  # its delays are those of a bearer that carries a message more
                by_mes = m.conn == "mes"
                times = batch.t_ns.tolist()
                assert times == sorted(times)
                if true and not by_mes:
                    times = [clock.reads(t) for t in times]
                for row, t in enumerate(times):
                    values = tuple((k, v[row]) for k, v in sorted(batch.channels.items()))
                    rows.append((str(batch.asset), batch.stream, t, values))
        return sorted(rows, key=repr)

    wrong = [d.path for d in made.floor.devices if is_wrong(d.path)]
    assert len(wrong) == 4
    assert contents(before, true=True) == contents(after, true=False)

    def others(messages: list[Made]) -> list[tuple[str, int, int, bytes]]:
        return [
            (m.topic, m.arrival_ns, stamps(m)["seq"], m.payload.split(b',"x_beilun"')[0])
            for m in messages
            if m.conn in ("casting", "cable", "logistics") and "network" not in m.topic
            and not any(d.rpartition("/")[2] in m.topic for d in wrong)
        ]  # fmt: skip

    assert others(after) == others(before)
    moved = [m for m in after if m.conn == "logistics" and m.topic.endswith("/state")
             and clock.reads(m.arrival_ns) != m.arrival_ns]  # fmt: skip
    assert moved
    for m in moved:
        x = stamps(m)
        assert abs(x["sent_ns"] - m.arrival_ns - jump.step_ns) < NS_PER_S
        shown = parse_time(said(m)["timestamp"])
        assert shown <= x["t_ns"] < shown + 10**6


def test_a_lost_birth_comes_again_stamped_by_its_clock() -> None:
    faults = [
        {"kind": "outage", "after": "1ms", "length": "500ms"},
        {"kind": "clock_step", "after": "1ms", "length": "10s", "asset": "dcm01", "step_s": 4.0},
    ]
    made, messages, _ = everything(factory("1m", network="private-5g-udp", fault=faults))
    assert {m.conn for m in made.births()} == {"mes", "network"}
    for path in (d.path for d in made.floor.devices):
        (birth,) = [m for m in messages if m.topic == f"beilun/v1/{path}/birth"]
        again_ns = START + NS_PER_S + (4 * NS_PER_S if path.endswith("dcm01") else 0)
        assert said(birth)["t_ns"] == stamps(birth)["sent_ns"] == again_ns
