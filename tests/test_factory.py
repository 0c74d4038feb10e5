"""A factory on the wire: order, numbers and clocks; the network's monitor; the link trace."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beilun.offline import make_factory, run_offline
from config.globs import asset_matches
from config.scenario import find_scenario
from config.units import NS_PER_S, parse_time
from edge.store import RowStore
from ingest import bins
from ingest.cells import LARGEST
from ingest.codecs import uns, vda5050
from ingest.messages import Asset, Batch, Birth, Envelope
from ingest.recording import PARTS, Recording, Trace, unpacked
from simulator.device import PANE_NS, Columns, VdaConnection
from simulator.factory import AGAIN_NS, WIRE_NS, Chunk, Connection, Factory, Made
from simulator.link.surroundings import CAUSES
from simulator.network import HOPS, report
from simulator.wire import Clock, Upset

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
    chunks = list(made.chunks(chunk_ns))
    return made, [m for chunk in chunks for m in chunk.made], chunks


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


def test_every_asset_is_announced_and_first_of_all_by_its_own_bearer() -> None:
    made, messages, _ = everything(factory("1m"))
    by_asset: defaultdict[str, list[Made]] = defaultdict(list)
    for m in messages:
        if m.conn != "mes":
            by_asset[stamps(m).get("asset") or "/".join(m.topic.split("/")[2:6])].append(m)
    assert {d.path for d in made.floor.devices} < set(by_asset)
    for mine in by_asset.values():
        assert mine[0].topic.endswith("/birth")
        assert [m for m in mine if m.topic.endswith("/birth")] == mine[:1]
        assert mine[0].retain


@pytest.mark.parametrize("network", ["private-5g", "wifi-loaded"])
@pytest.mark.parametrize(
    "device",
    [
        {"name": "cl09", "kind": "cable_line", "area": "cable", "line": "line1",
         "x_m": 10.0, "y_m": 5.0},
        {"name": "agv09", "kind": "agv", "area": "logistics", "line": "fleet",
         "node": "dock", "charger": "dock"},
    ],
)  # fmt: skip
def test_a_device_more_changes_no_stamp_of_another(
    network: str, device: dict[str, Any], tmp_path: Path
) -> None:
    """Nor a byte; what is not the others' own are sums over all: the network's, and the crew's."""
    quickstart = (files("config") / "plants" / "quickstart.toml").read_text()
    added = "\n".join(f"{name} = {json.dumps(value)}" for name, value in device.items())
    found: list[dict[tuple[str, int], tuple[int, bytes]]] = []
    for name, text in (("as_is", ""), ("more", f"\n[[device]]\n{added}\n")):
        path = tmp_path / f"{name}.toml"
        path.write_text(quickstart + text)
        _, messages, _ = everything(factory("3m", network=network, plant=str(path)))
        found.append(
            {
                (m.topic, stamps(m)["seq"]): (m.arrival_ns, m.payload.split(b',"x_beilun"')[0])
                for m in messages
                if m.conn != "network" and "/crew/" not in m.topic
            }
        )
    as_is, more = found
    assert {key for key in more if str(device["name"]) in key[0]}
    assert as_is == {key: more[key] for key in more if str(device["name"]) not in key[0]}


@pytest.mark.parametrize("case", ["5g", "lossy"])
def test_how_far_the_plant_runs_ahead_changes_nothing(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = {"kind": "outage", "after": "1ms", "length": "25s"}
    changes: dict[str, Any] = CASES[case] | {"fault": [start, OUTAGE]}

    def others(run: Run) -> list[tuple[str, int, int, bytes]]:
        """Without casting cells, which draw the noise of all signals from one stream, and the
        network's reports on their messages."""
        return sorted(
            (m.topic, stamps(m)["seq"], m.arrival_ns, m.payload.split(b',"x_beilun"')[0])
            for m in run[1]
            if "/dcm" not in m.topic and m.conn != "network"
        )

    whole = everything(factory("3m", **changes))
    for block_s in (10, 70):
        monkeypatch.setattr("simulator.factory.BLOCK_NS", block_s * NS_PER_S)
        cut = everything(factory("3m", **changes))
        assert others(cut) == others(whole)
        for conn, account in whole[0].ledger().items():
            if conn not in ("casting", "network"):
                assert cut[0].ledger()[conn] == account


@given(
    sent=st.lists(st.tuples(st.integers(0, 100), st.sampled_from(["", "drop", "outage"]))),
    times=st.lists(st.integers(0, 110), max_size=8).map(sorted),
)
def test_an_account_says_what_was_sent_by_a_time_and_keeps_only_sums(
    sent: list[tuple[int, str]], times: list[int]
) -> None:
    connection = Connection("c")
    connection.sent(t for t, _ in sent)
    connection.lose((t, cause) for t, cause in sent if cause)
    for t_ns in [*times, 110]:
        account = connection.account(t_ns)
        assert account.made == sum(t <= t_ns for t, _ in sent)
        assert account.lost == Counter(cause for t, cause in sent if cause and t <= t_ns)
        assert list(account.lost) == sorted(account.lost)
        kept = vars(connection)
        assert all(t > t_ns for t in kept["_sent_ns"])
        assert all(t > t_ns for t, _ in kept["_losses"])


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
    published = 0
    for m in messages:
        if m.conn in ("mes", "network"):
            continue
        x = stamps(m)
        asset = x.get("asset") or "/".join(m.topic.split("/")[2:6])
        assert known[asset, x["seq"]] == (x["sent_ns"], x["arrival_ns"])
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


def test_losses_are_counted_by_the_cause_of_each_message() -> None:
    """In the midst of a block, and though drops lie between the messages of an outage."""
    fault = [OUTAGE, {"kind": "backhaul", "after": "120s", "length": "15s"}]
    made, _, chunks = everything(factory(trace=True, network="private-5g-udp", fault=fault))
    lost: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for trace in traces(made):
        if trace.way == "telemetry":
            c = trace.columns
            gone = c["arrival_ns"] < 0
            times: list[int] = c["sent_ns"][gone].tolist()
            causes: list[int] = c["cause"][gone].tolist()
            for sent_ns, number in zip(times, causes, strict=True):
                lost[trace.asset.split("/")[1]].append((sent_ns, CAUSES[number]))
    assert {cause for each in lost.values() for _, cause in each} >= {"outage", "backhaul"}
    for progress in (p for chunk in chunks for p in chunk.progress if not p.end):
        by_now = (c for sent_ns, c in lost[progress.conn] if sent_ns <= progress.arrival_ns)
        assert progress.lost == Counter(by_now)
    spans = {"outage": (70, 90), "backhaul": (120, 135)}
    for sent_ns, cause in (each for conn in lost.values() for each in conn):
        if cause in spans:
            low_s, high_s = spans[cause]
            assert START + (low_s - 1) * NS_PER_S <= sent_ns <= START + (high_s + 5) * NS_PER_S


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
    clock = Clock([Upset(start, start + length, step) for start, length, step in jumps])
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
    jump = Upset(START + 65 * NS_PER_S, START + 105 * NS_PER_S, round(step_s * NS_PER_S))
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


# What is lost at the start


def test_what_is_lost_of_the_start_comes_again_in_its_own_words() -> None:
    """Births and first reports; only the time of sending is a later one, by the same clock."""
    faults: list[dict[str, Any]] = [
        {"kind": "outage", "after": "1ms", "length": "500ms"},
        {"kind": "clock_step", "after": "1ms", "length": "10s", "asset": "dcm01", "step_s": 4.0},
    ]

    def first(network: str, fault: list[dict[str, Any]]) -> dict[str, tuple[dict[str, Any], int]]:
        """By topic the first message of each device, and when it was sent."""
        made, messages, _ = everything(factory("1m", network=network, fault=fault))
        found: dict[str, tuple[dict[str, Any], int]] = {}
        for m in messages:
            if m.conn not in ("mes", "network") and m.topic not in found:
                body = said(m)
                found[m.topic] = (body, body.pop("x_beilun")["sent_ns"])
        assert {f"beilun/v1/{d.path}/birth" for d in made.floor.devices} < set(found)
        return found

    calm, again = first("private-5g", []), first("private-5g-udp", faults)
    told = [
        topic for topic, (_, sent_ns) in calm.items()
        if sent_ns == START and not (topic.startswith("uagv") and topic.endswith("/state"))
    ]  # fmt: skip
    assert {topic.rsplit("/", 1)[1] for topic in told} == {
        "birth", "state", "process", "service", "connection"
    }  # fmt: skip
    for topic in told:
        step_ns = 4 * NS_PER_S if "/dcm01/" in topic else 0
        assert again[topic] == (calm[topic][0], START + AGAIN_NS + step_ns)


@pytest.mark.parametrize("length", ["500ms", "45s"])
def test_after_a_silent_start_kpis_are_known_from_the_next_window_on(
    length: str, tmp_path: Path
) -> None:
    outage = {"kind": "outage", "after": "1ms", "length": length}
    changes = {"length": "4m", "network": "private-5g-udp", "fault": [outage]}
    scenario = find_scenario("quickstart", changes=changes)
    path = tmp_path / "r.beilun"
    outcome = run_offline(scenario, path)
    with closing(Recording.open(path)) as recording:
        rows = {
            (str(r.asset), r.kpi, r.window_start_ns, r.window_length_ns): r.value
            for r in RowStore(recording).rows()
        }
    since_ns = START + 60 * NS_PER_S
    known = {
        key: t.value
        for t in outcome.truth
        if (key := (t.asset, t.kpi, t.window_start_ns, t.window_length_ns))[2] >= since_ns
        and t.value is not None
    }
    assert {"line_speed", "oee", "service_availability"} <= {kpi for _, kpi, _, _ in known}
    assert not [key for key in known if rows[key] is None]
    speeds = [key for key in known if key[1] == "line_speed"]
    assert [rows[key] for key in speeds] == pytest.approx([known[key] for key in speeds], rel=0.01)
