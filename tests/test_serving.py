"""The API over real sockets and real recordings: rows, feed, roles, health, and what is refused."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from beilun import layout
from beilun.composing import edge_header
from beilun.offline import run_offline
from beilun.serving import access, feed, journal, reading, server
from beilun.serving.access import Access, Narrowed, Token, TooMany, Viewer, make_token, read_tokens
from beilun.serving.library import Library
from beilun.serving.reading import Reader
from config.errors import ConfigError, Exit, RecordingError, UnreachableError, UsageError
from config.scenario import EdgeSettings, find_scenario
from config.units import NS_PER_S, format_time
from config.windows import window
from edge import store as store_module
from edge.pipeline import Pipeline
from edge.rows import ALL, Row, digest, last_rows
from edge.serve import Serving
from edge.sinks.outbox import Outbox
from edge.stages import Stages
from edge.store import RowStore
from ingest.decode import Decoder
from ingest.messages import Asset
from ingest.recording import Recording
from ingest.subscribe import Received

MINUTE_NS = 60 * NS_PER_S
T0_NS = 1_767_571_200 * NS_PER_S
SITE = "yard"
CABLE, OTHER, CELL = (
    Asset(SITE, "cable", "hall1", "cl01"),
    Asset(SITE, "cable", "hall2", "secretline"),
    Asset(SITE, "casting", "line9", "hiddencell"),
)
ASSETS = (CABLE, OTHER, CELL)
FOREIGN = re.compile(r"secretline|hiddencell|casting|hall2|line9|rivalcorp")
"""No customer of the cable line may ever read any of this."""


# what is served ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes of the quickstart factory."""
    path = tmp_path_factory.mktemp("serving") / "small.beilun"
    run_offline(find_scenario("quickstart", changes={"length": "10m"}), path)
    return path


def said(asset: Asset, stream: str, body: dict[str, Any]) -> tuple[str, bytes]:
    return f"beilun/v1/{'/'.join(asset)}/{stream}", json.dumps(body).encode()


def orders_of(asset: Asset) -> list[tuple[int, int]]:
    """Minute and number of every order of the made-up yard: ours are 31.., the rival's 99.."""
    if asset == CABLE:
        return [(0, 3101), (7, 9901), (11, 3102), (16, 0), (18, 9902)]
    return [(0, 9900 + ASSETS.index(asset))]


def rows_of(minutes: Iterable[int], value: float = 1.0) -> list[Row]:
    groups = [Asset(SITE, ALL, ALL, ALL), Asset(SITE, "casting", ALL, ALL)]
    return [
        Row(asset, kpi, T0_NS + m * MINUTE_NS, MINUTE_NS, value * m, m + 1, 0, "1")
        for m in minutes
        for asset in (*ASSETS, *groups)
        for kpi in ("oee", "line_speed", "alarm.silent")
    ]


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty minutes of three machines with changing orders."""
    path = tmp_path_factory.mktemp("serving") / "yard.beilun"
    make_yard(path)
    return path


def make_yard(path: Path, minutes: int = 20) -> None:
    decoder = Decoder()
    with Recording.create(path) as recording:
        edge = EdgeSettings(windows=("1m", "5m"))
        plan = layout.Layout(
            nodes=(layout.Node("hiddencell-dock", 0.0, 0.0),),
            stations={
                asset.name: layout.Station(0.0, 0.0, "cable_line", asset.area, asset.line)
                for asset in ASSETS
            },
            areas={"cable": layout.Rectangle(0, 0, 9, 9), "casting": layout.Rectangle(9, 0, 9, 9)},
            products={"3101": "our-cable", "9901": "rivalcorp-cable", "3102": "our-cable"},
        )
        recording.set_meta(
            {
                "source": "live", "edge": edge_header(edge), "layout": layout.encode(plan),
                "scenario": json.dumps({"fault": [
                    {"kind": "stuck", "asset": "hiddencell", "after": 0, "length": MINUTE_NS}
                ]}),
            }
        )  # fmt: skip
        for m in range(minutes):
            at_ns = T0_NS + m * MINUTE_NS
            told: list[tuple[str, bytes]] = []
            for asset in ASSETS:
                if not m:
                    units = {"state": "PackML", "speed_mps": "m/s", "order": "1"}
                    body = {"kind": "cable_line", "t_ns": at_ns, "ch": units}
                    told.append(said(asset, "birth", body))
                numbers = [number for minute, number in orders_of(asset) if minute == m]
                told += [
                    said(asset, "orders", {"t_ns": at_ns, "ch": {"order": [number]}})
                    for number in numbers
                ]
                body = {"t_ns": at_ns, "every_ns": NS_PER_S,
                        "ch": {"speed_mps": [m + n / 60 for n in range(60)]}}  # fmt: skip
                told.append(said(asset, "process", body))
                state = 6 if m % 4 else 11
                told.append(said(asset, "state", {"t_ns": at_ns, "ch": {"state": [state]}}))
            records = [
                record
                for topic, payload in told
                for record in decoder.receive(topic, payload, at_ns + MINUTE_NS)  # type: ignore[union-attr]
            ]
            recording.append(records)
        rows = RowStore(recording)
        rows.prepare()
        rows.write(rows_of(range(minutes)))
        recording.set_entries("edge", {"received": 12_345_678})


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    path = tmp_path_factory.mktemp("serving") / "tokens.toml"
    made = {
        "op": make_token(path, "op", "operator"),
        "eye": make_token(path, "eye", "viewer"),
        "acme": make_token(path, "acme", "customer", ["cl0*"], ["31*"]),
    }
    return path, made


@contextlib.contextmanager
def served(
    path: Path, who: Access | None = None, proxies: Sequence[str] = ()
) -> Generator[str, None, None]:
    """The API of a recording on a port of this host."""
    reader = Reader(path)
    own = server.bound("127.0.0.1", 0)
    app, guarded = server.composed(
        Library(reader), who or Access(None), page=False, proxies=proxies
    )
    config = uvicorn.Config(
        guarded, log_level="error", access_log=False, lifespan="on", proxy_headers=False,
        timeout_graceful_shutdown=2,
    )  # fmt: skip
    running = uvicorn.Server(config)

    async def main() -> None:
        task = asyncio.create_task(running.serve(sockets=[own]))
        while not running.should_exit and not task.done():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
        await app.state.feed.end()
        await task

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    until = time.monotonic() + 20
    while not running.started and time.monotonic() < until:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{own.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join(20)
        reader.close()
        own.close()
        assert not thread.is_alive()


def events_of(body: str) -> list[tuple[int, str, dict[str, Any]]]:
    """Number, kind and data of the whole events of a stream."""
    out: list[tuple[int, str, dict[str, Any]]] = []
    for part in body.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in part.splitlines() if not line.startswith(":"))
        if "data" in fields:
            out.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return out


def follow(
    client: httpx.Client, url: str, want: int, **headers: str
) -> list[tuple[int, str, dict[str, Any]]]:
    """The first events of a stream, and then the connection is dropped."""
    body = ""
    with client.stream("GET", url, headers=headers, timeout=20) as answer:
        assert answer.status_code == 200, answer.read()
        for chunk in answer.iter_text():
            body += chunk
            if body.count("event: ") >= want:
                break
    return events_of(body)


def told(row: Row) -> tuple[str, str, str, float | None, int, int]:
    path = "/".join(level for level in row.asset if level != ALL)
    return path, row.kpi, format_time(row.window_start_ns), row.value, row.n, row.late


def as_told(said: dict[str, Any]) -> tuple[str, str, str, float | None, int, int]:
    return tuple(said[key] for key in ("asset", "kpi", "start", "value", "n", "late"))  # type: ignore[return-value]


# rows -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def api(small: Path) -> Generator[httpx.Client, None, None]:
    with served(small) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client


def stored(path: Path, length_ns: int = MINUTE_NS) -> list[Row]:
    with Recording.open(path) as recording:
        return list(RowStore(recording).rows(window_length_ns=length_ns))


def test_all_rows_of_a_window_are_had_page_by_page(small: Path, api: httpx.Client) -> None:
    got: list[dict[str, Any]] = []
    cursor: str | None = ""
    pages = 0
    while cursor is not None:
        query = {"from": format_time(T0_NS), "window": "1m", "limit": 997}
        page = api.get("/api/v1/kpis", params=query | ({"cursor": cursor} if cursor else {})).json()
        got += page["rows"]
        cursor = page["next"]
        pages += 1
    everything = sorted(map(told, stored(small)), key=str)
    assert sorted(map(as_told, got), key=str) == everything
    assert pages == -(-len(everything) // 997)


def test_without_a_start_the_last_window_of_each_is_told(small: Path, api: httpx.Client) -> None:
    page = api.get("/api/v1/kpis", params={"kpi": "oee,line_speed", "asset": "dcm*"}).json()
    last = T0_NS + 9 * MINUTE_NS
    want = [r for r in stored(small) if r.window_start_ns == last and r.kpi == "oee"]
    want = [r for r in want if r.asset.name.startswith("dcm")]
    assert sorted(map(as_told, page["rows"])) == sorted(map(told, want))
    assert len(want) == 4
    assert page["until"] == "2026-01-05T00:10:00Z"
    earlier = api.get("/api/v1/kpis", params={"kpi": "oee", "to": "2026-01-05T00:03:59Z"}).json()
    assert {row["end"] for row in earlier["rows"]} == {"2026-01-05T00:03:00Z"}


def test_a_part_of_the_time_is_windows_that_ended_in_it(api: httpx.Client) -> None:
    query = {"kpi": "line_speed", "asset": "cl01", "from": "2026-01-05T00:02:00Z",
             "to": "2026-01-05T00:05:00Z"}  # fmt: skip
    rows = api.get("/api/v1/kpis", params=query).json()["rows"]
    assert [row["end"][14:16] for row in rows] == ["03", "04", "05"]


def test_no_evidence_is_null_and_units_are_told(api: httpx.Client) -> None:
    rows = api.get("/api/v1/kpis", params={"asset": "cl01"}).json()["rows"]
    assert any(row["value"] is None for row in rows)
    assert {row["unit"] for row in rows if row["kpi"] == "line_speed"} == {"m/s"}


def test_assets_are_those_that_were_born_and_their_groups(api: httpx.Client) -> None:
    found = {entry["asset"]: entry for entry in api.get("/api/v1/assets").json()}
    assert found["ningbo/cable/hall1/cl01"]["limits"] == {"diameter_mm": [61.5, 62.5]}
    assert found["ningbo/cable/hall1/cl01"]["channels"]["speed_mps"] == "m/s"
    assert found["ningbo/casting"]["kind"] == ""
    assert "oee" in found["ningbo/casting/line1/dcm01"]["kpis"]


TEXT = st.text(max_size=30) | st.sampled_from(
    ["1m", "0m", "shift", "-1", "oee", "*", "[", "a/b/c/d", "2026-01-05T00:00:00Z", "9" * 40, "%",
     "99999-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "MTox", "\x00", "order", "1h/5m"]
)  # fmt: skip


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    path=st.sampled_from(["/api/v1/kpis", "/api/v1/alarms", "/metrics", "/api/v1/assets"]),
    query=st.dictionaries(
        st.sampled_from(["kpi", "asset", "window", "from", "to", "limit", "cursor", "kpis"]), TEXT
    ),
)
def test_no_words_make_it_fail(api: httpx.Client, path: str, query: dict[str, str]) -> None:
    answer = api.get(path, params=query)
    assert answer.status_code in (200, 400, 422), (path, query, answer.text)
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code


def test_errors_say_what_to_try(api: httpx.Client) -> None:
    assert "did you mean oee" in api.get("/api/v1/kpis?kpi=oeee").json()["detail"]
    assert api.get("/api/v1/kpis?window=3m").json()["hint"] == "there are 1m, 1h, 8h"
    assert api.get("/api/v1/feed?after=x").status_code == 422
    assert api.get("/api/v1/feed", headers={"Last-Event-ID": "x"}).status_code == 422
    assert api.get("/nothing").json()["status"] == 404
    assert api.post("/api/v1/kpis").json()["status"] == 405


def test_it_describes_itself(api: httpx.Client) -> None:
    told = api.get("/api/openapi.json").json()
    assert "one recording" in told["info"]["description"]
    paths = told["paths"]
    assert {"/api/v1/kpis", "/api/v1/feed", "/metrics", "/healthz"} <= set(paths)
    page = api.get("/api/docs").text
    assert "//" not in page.replace("<!doctype", "")  # nothing from elsewhere
    assert all(path in page for path in paths)
    assert "one recording" in page


# the reader -------------------------------------------------------------------------------------


def test_the_last_windows_are_those_of_a_search_through_all_rows(small: Path) -> None:
    reader = Reader(small)
    rows = stored(small)
    for t_ns in (T0_NS, T0_NS + MINUTE_NS, T0_NS + 4 * MINUTE_NS + 1, T0_NS + 10 * MINUTE_NS):
        ended = [r for r in rows if r.window_start_ns + r.window_length_ns <= t_ns]
        newest = {(r.asset, r.kpi): r for r in sorted(ended, key=lambda r: r.window_start_ns)}
        assert reader.last((), "1m", t_ns) == [newest[key] for key in sorted(newest)]
    reader.close()


def test_every_query_of_rows_and_blocks_is_a_seek(yard: Path) -> None:
    with Recording.open(yard) as recording:
        asked = {
            reading._LAST: (1, 1), reading._RANGE: (1, 1, 2), reading._CHANGES: (1, 1),
            "SELECT max(window_start_ns) FROM row WHERE series = ?": (1,),
        }  # fmt: skip
        import ingest.recording as kept

        asked |= {kept._OVER: (1, 2), kept._LONG_OVER: (1, 2)}
        for sql, args in asked.items():
            plan = [row[3] for row in recording.db.execute(f"EXPLAIN QUERY PLAN {sql}", args)]
            assert plan and all(step.startswith("SEARCH") for step in plan), (sql, plan)


@settings(deadline=None, max_examples=60)
@given(
    spans=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 3_000)), max_size=30),
    asked=st.tuples(st.integers(0, 12_000), st.integers(0, 4_000)),
)
def test_blocks_are_found_by_their_span_however_long_they_are(
    spans: list[tuple[int, int]], asked: tuple[int, int]
) -> None:
    recording = Recording(Path(), sqlite3.connect(":memory:", isolation_level=None), writes=False)
    import ingest.recording as kept

    recording.db.executescript(kept._SCHEMA)
    for first_s, length_s in spans:
        recording.db.execute(
            "INSERT INTO block (messages, samples, first_ns, last_ns, crc, data)"
            " VALUES (1, 1, ?, ?, 0, x'')",
            (first_s * NS_PER_S, (first_s + length_s) * NS_PER_S),
        )
    low, high = asked[0], asked[0] + asked[1]
    want = [n for n, (a, length) in enumerate(spans, 1) if a + length >= low and a <= high]
    assert recording.numbers_over(low * NS_PER_S, high * NS_PER_S) == want
    recording.db.close()


def test_a_recording_without_its_indexes_and_landmarks_says_the_same(
    small: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old.beilun"
    old.write_bytes(small.read_bytes())
    with contextlib.closing(sqlite3.connect(old, isolation_level=None)) as db:
        for table in ("landmark", "change"):
            db.execute(f"DROP TABLE {table}")
        for index in ("block_by_time", "block_long"):
            db.execute(f"DROP INDEX {index}")
        db.execute("DELETE FROM meta WHERE key = 'layout'")
    new_reader, old_reader = Reader(small), Reader(old)
    asset = Asset("ningbo", "cable", "hall1", "cl01")
    end_ns = T0_NS + 10 * MINUTE_NS
    for call in (
        lambda r: r.assets(), lambda r: r.layout(), lambda r: r.states(asset, T0_NS, end_ns),
        lambda r: r.orders(end_ns), lambda r: r.positions(end_ns),
        lambda r: r.delays(asset, T0_NS, end_ns), lambda r: r.last((), "1m", end_ns),
    ):  # fmt: skip
        assert call(new_reader) == call(old_reader)
    assert old_reader.changes(0) == [] and old_reader.change_span() == (0, 0)
    new_reader.close()
    old_reader.close()


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cut=st.integers(1, 599), name=st.sampled_from(["cl01", "dcm01", "arm01", "agv01"]))
def test_states_of_two_halves_are_those_of_the_whole(reader: Reader, cut: int, name: str) -> None:
    (asset,) = [info.asset for info in reader.assets() if info.asset.name == name]
    mid_ns, end_ns = T0_NS + cut * NS_PER_S, T0_NS + 10 * MINUTE_NS
    whole = reader.states(asset, T0_NS, end_ns)
    parts = reader.states(asset, T0_NS, mid_ns) + reader.states(asset, mid_ns, end_ns)
    joined: list[reading.StateSpan] = []
    for span in parts:
        reading._join(joined, span)
    assert joined == whole
    assert all(a.end_ns <= b.start_ns for a, b in pairwise(whole))


@pytest.fixture(scope="module")
def reader(small: Path) -> Generator[Reader, None, None]:
    made = Reader(small)
    yield made
    made.close()


def test_states_agree_with_the_kpi_that_is_made_of_them(reader: Reader) -> None:
    """Availability of a cell over a minute is production time over planned busy time."""
    asset = Asset("ningbo", "casting", "line1", "dcm01")
    for row in reader.history(asset, "availability", "1m", T0_NS, T0_NS + 10 * MINUTE_NS):
        end_ns = row.window_start_ns + MINUTE_NS
        spans = reader.states(asset, row.window_start_ns, end_ns)
        run_ns = sum(s.end_ns - s.start_ns for s in spans if s.state == "EXECUTE")
        assert sum(s.end_ns - s.start_ns for s in spans) == MINUTE_NS
        assert row.value == pytest.approx(run_ns / MINUTE_NS)


def test_silence_is_a_gap_and_no_state(yard: Path) -> None:
    made = Reader(yard)
    spans = made.states(CABLE, T0_NS + 18 * MINUTE_NS, T0_NS + 25 * MINUTE_NS)
    assert spans[-1].end_ns == T0_NS + 20 * MINUTE_NS  # the last word was a minute before
    made.close()


def test_signals_keep_their_extremes_when_thinned(yard: Path) -> None:
    made = Reader(yard)
    t_ns, values = made.signals(CABLE, ["speed_mps"], T0_NS, T0_NS + 20 * MINUTE_NS)["speed_mps"]
    assert len(t_ns) == 1_200
    assert values.tolist() == [m + n / 60 for m in range(20) for n in range(60)]
    made.close()


@given(
    values=st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=300),
    most=st.integers(3, 60),
)
def test_thinning_loses_neither_extremes_nor_gaps(values: list[float], most: int) -> None:
    t_ns, column = np.arange(len(values), dtype=np.int64), np.array(values)
    kept_ns, kept = journal.thinned(t_ns, column, most)
    assert len(kept) <= max(most, 3) or len(values) <= most
    assert np.isnan(kept).any() == np.isnan(column).any()
    if not np.isnan(column).all():
        assert (np.nanmin(kept), np.nanmax(kept)) == (np.nanmin(column), np.nanmax(column))
    assert (column[kept_ns] == kept)[~np.isnan(kept)].all()


def test_a_recording_can_be_read_from_many_threads(small: Path) -> None:
    made = Reader(small)
    want = made.last((), "1m", T0_NS + 5 * MINUTE_NS)
    found: list[bool] = []

    def look() -> None:
        for _ in range(5):
            found.append(made.last((), "1m", T0_NS + 5 * MINUTE_NS) == want)
            made.states(Asset("ningbo", "cable", "hall1", "cl01"), T0_NS, T0_NS + MINUTE_NS)

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 40
    made.close()
    with pytest.raises(RecordingError):
        made.last((), "1m", T0_NS)


def test_what_many_ask_at_once_is_looked_up_once_until_somebody_writes(tmp_path: Path) -> None:
    path = tmp_path / "live.beilun"
    asked: list[str] = []
    with Recording.create(path) as recording:
        recording.set_meta({"edge": edge_header(EdgeSettings(windows=("1m",)))})
        store = RowStore(recording)
        store.prepare()
        store.write(rows_of(range(3)))
        with contextlib.closing(Reader(path)) as made:
            lookup = made._last_in
            gate = threading.Barrier(8)

            def counted(entry: Any, kind: Any, t_ns: int) -> Row | None:
                asked.append(entry.kpi)
                time.sleep(0.01)  # so that all of them ask while the first is looking
                return lookup(entry, kind, t_ns)

            made._last_in = counted  # type: ignore[method-assign]

            def ask() -> None:
                gate.wait()
                answers.append(made.last({"oee"}, "1m", T0_NS + 20 * MINUTE_NS))

            for minutes in (range(3), range(3, 4)):
                store.write(rows_of(minutes))
                answers: list[list[Row]] = []
                asked.clear()
                threads = [threading.Thread(target=ask) for _ in range(8)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                assert len(asked) == len(answers[0]) == 5, "once each, by all eight"
                assert all(answer == answers[0] for answer in answers)
                assert {row.value for row in answers[0]} == {float(minutes[-1])}
            answers[0].clear()
            assert answers[1] == made.last(["oee"], "1m", T0_NS + 20 * MINUTE_NS) != []


def test_a_question_that_cannot_be_answered_fails_for_all_and_is_asked_again(small: Path) -> None:
    with contextlib.closing(Reader(small)) as made:
        for _ in range(2):
            with pytest.raises(UsageError):
                made.last((), "nonsense", made.end_ns())
        assert made.last((), "1m", made.end_ns())


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="no such file"):
        Reader(tmp_path / "missing.beilun")
    junk = tmp_path / "junk.beilun"
    junk.write_bytes(b"x" * 5_000)
    with pytest.raises(RecordingError):
        Reader(junk)


# changes ----------------------------------------------------------------------------------------


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 4), st.sampled_from([None, 0.0, 1.0]), st.booleans()),
            max_size=8,
        ),
        max_size=8,
    )
)
@settings(deadline=None, max_examples=60)
def test_whoever_applies_the_changes_has_the_rows(
    batches: list[list[tuple[int, Any, bool]]],
) -> None:
    """From any place in them, and though only what changed is noted."""
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    recording = Recording(Path(), db, writes=True)
    rows = RowStore(recording)
    rows.prepare()
    made = Reader.__new__(Reader)
    made.__dict__.update(
        path=Path(), _catalogue={}, _by_kpi={}, _lock=threading.RLock(), _local=threading.local()
    )
    made._local.recording = recording
    held: dict[Any, Row] = {}
    after = 0
    for batch in batches:
        before = {row.key: row for row in rows.rows()}
        rows.write(
            [
                Row(CABLE, "oee", T0_NS + m * MINUTE_NS, MINUTE_NS, value, 1, 0, "1", gone=gone)
                for m, value, gone in batch
            ]
        )
        found = made.changes(after)
        assert [number for number, _ in found] == sorted({number for number, _ in found})
        assert bool(found) or {row.key: row for row in rows.rows()} == before
        after = found[-1][0] if found else after
        for _, row in found:
            if row.gone:
                held.pop(row.key, None)
            else:
                held[row.key] = row
        assert held == {row.key: row for row in rows.rows()}
    db.close()


def test_changes_are_in_the_transaction_of_their_rows(tmp_path: Path) -> None:
    with Recording.create(tmp_path / "a.beilun") as recording:
        rows = RowStore(recording)
        rows.prepare()
        rows.write(rows_of([0]))
        with pytest.raises(sqlite3.IntegrityError):
            rows.write([*rows_of([1]), rows_of([2])[0]._replace(n=None)])  # type: ignore[arg-type]
        (kept,) = recording.db.execute("SELECT count(*) FROM change").fetchone()
        assert kept == len(rows_of([0]))
        rows.write(rows_of([0]))  # as they were
        assert recording.db.execute("SELECT count(*) FROM change").fetchone() == (kept,)


def test_only_the_newest_changes_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "KEPT_CHANGES", 100)
    path = tmp_path / "a.beilun"
    with Recording.create(path) as recording:
        rows = RowStore(recording)
        rows.prepare()
        for m in range(40):
            rows.write(rows_of([m]))
            (kept,) = recording.db.execute("SELECT count(*) FROM change").fetchone()
            assert kept <= 110
    made = Reader(path)
    oldest, newest = made.change_span()
    assert newest == 40 * 15 and 100 <= newest - oldest + 1 <= 110
    made.close()
    with served(path) as url, httpx.Client(base_url=url) as client:
        got = follow(client, "/api/v1/feed?after=3", 1 + newest - oldest)
    assert got[0][1:] == ("gap", {"after": 3, "before": oldest})
    assert [number for number, kind, _ in got if kind == "row"] == list(range(oldest, newest + 1))


def test_noting_changes_does_not_move_the_digest(small: Path) -> None:
    with Recording.open(small) as recording:
        kept = list(RowStore(recording).rows())
        assert digest(kept) == recording.meta("digest")
        assert recording.db.execute("SELECT count(*) FROM change").fetchone() == (len(kept),)


# the feed ---------------------------------------------------------------------------------------


def test_the_feed_from_the_start_tells_every_row(small: Path, api: httpx.Client) -> None:
    with Recording.open(small) as recording:
        rows = list(RowStore(recording).rows())
    got = follow(api, "/api/v1/feed?after=0", len(rows))
    assert [number for number, _, _ in got] == list(range(1, len(rows) + 1))
    assert sorted((as_told(data) for *_, data in got), key=str) == sorted(map(told, rows), key=str)


def test_a_filter_takes_what_it_names(api: httpx.Client) -> None:
    got = follow(api, "/api/v1/feed?after=0&kpi=delay_*&asset=cl01&window=1h", 3)
    assert {(d["asset"], d["window"]) for *_, d in got} == {("ningbo/cable/hall1/cl01", "1h")}
    assert all(d["kpi"].startswith("delay_") for *_, d in got)


def write_live(path: Path, batches: int, pause_s: float) -> "subprocess.Popen[bytes]":
    """Another process that writes batches of fifteen rows into a recording."""
    code = f"""
import time
from pathlib import Path
from edge.rows import Row
from edge.store import RowStore
from ingest.messages import Asset
from ingest.recording import Recording
with Recording.create(Path({str(path)!r})) as recording:
    rows = RowStore(recording)
    rows.prepare()
    print(flush=True)
    for m in range({batches}):
        rows.write([Row(Asset("yard", "a", "l", f"m{{k:02d}}"), "oee", {T0_NS} + m * {MINUTE_NS},
                        {MINUTE_NS}, time.time(), 1, 0, "1") for k in range(15)])
        time.sleep({pause_s})
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return process


async def follow_all(url: str, last: int, query: str = "?after=0") -> list[tuple[int, float]]:
    """Numbers of the events up to a last one, each with how long after its writing it came."""
    got: list[tuple[int, float]] = []
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /api/v1/feed{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    while not got or got[-1][0] < last:
        line = await asyncio.wait_for(reader.readline(), 30)
        assert line, "closed"
        if line.startswith(b"id: "):
            number = int(line[4:])
        elif line.startswith(b"data: "):
            got.append((number, time.time() - json.loads(line[6:])["value"]))
    writer.close()
    return got


def test_a_hundred_followers_miss_nothing_of_what_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "live.beilun"
    batches, each = 20, 15
    writer = write_live(path, batches, 0.03)

    async def main(url: str) -> list[list[tuple[int, float]]]:
        return await asyncio.gather(*(follow_all(url, batches * each) for _ in range(100)))

    with served(path) as url:
        found = asyncio.run(main(url))
    assert writer.wait(20) == 0
    for got in found:
        assert [number for number, _ in got] == list(range(1, batches * each + 1))


def test_who_is_cut_off_again_and_again_misses_nothing_and_gets_nothing_twice(
    tmp_path: Path,
) -> None:
    path = tmp_path / "live.beilun"
    writer = write_live(path, 60, 0.01)
    seen: list[int] = []
    with served(path) as url, httpx.Client(base_url=url) as client:
        while len(seen) < 900:
            headers = {"Last-Event-ID": str(seen[-1] if seen else 0)}
            got = follow(client, "/api/v1/feed", 1, **headers)
            seen += [number for number, kind, _ in got if kind == "row"]
    assert writer.wait(20) == 0
    assert seen == list(range(1, 901))


def test_who_does_not_read_is_let_go_and_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "STUCK_S", 2.0)
    path = tmp_path / "a.beilun"
    with Recording.create(path) as recording:
        rows = RowStore(recording)
        rows.prepare()
        rows.write(rows_of(range(3_000)))  # 10 MB of events: more than sockets hold

    async def main(url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        _, stuck = await asyncio.open_connection(host, int(port), limit=1_024)
        stuck.write(b"GET /api/v1/feed?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        other = await asyncio.wait_for(follow_all(url, 45_000, "?after=40000"), 60)
        assert len(other) == 5_000
        async with httpx.AsyncClient(base_url=url) as client:
            for _ in range(200):
                text = (await client.get("/metrics")).text
                if "beilun_feed_closed_slow 1.0" in text and "beilun_feed_followers 0.0" in text:
                    break
                await asyncio.sleep(0.05)
            else:
                raise AssertionError(text)
        stuck.close()

    with served(path) as url:
        asyncio.run(main(url))


# who may see what -------------------------------------------------------------------------------


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def guarded(
    yard: Path, tokens: tuple[Path, dict[str, str]]
) -> Generator[tuple[httpx.Client, dict[str, str]], None, None]:
    who = Access(read_tokens(tokens[0]))
    with served(yard, who) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client, tokens[1]


def own_minutes() -> set[int]:
    """Minutes that lie in one of our orders as a whole: 0-6 and 11-15."""
    return {*range(7), *range(11, 16)}


def test_a_customer_sees_its_assets_while_its_orders_run_there(
    guarded: tuple[httpx.Client, dict[str, str]],
) -> None:
    client, made = guarded
    mine = bearer(made["acme"])
    query = {"from": format_time(T0_NS), "window": "1m"}
    rows = client.get("/api/v1/kpis", params=query, headers=mine).json()["rows"]
    minutes = {(row["kpi"], int(row["start"][14:16])) for row in rows}
    assert minutes == {(kpi, m) for kpi in ("oee", "line_speed") for m in own_minutes()}
    assert {row["asset"] for row in rows} == {str(CABLE)}
    got = follow(client, "/api/v1/feed?after=0", len(minutes), **mine)
    assert sorted(map(as_told, (data for *_, data in got))) == sorted(map(as_told, rows))
    everything = client.get("/api/v1/kpis", params=query, headers=bearer(made["eye"])).json()
    assert len(everything["rows"]) == 20 * 5 * 2


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(
    path=st.sampled_from(
        ["/api/v1/kpis", "/api/v1/alarms", "/api/v1/assets", "/metrics", "/healthz", "/nothing",
         "/api/openapi.json", "/api/docs", "/"]
    ),
    query=st.dictionaries(
        st.sampled_from(["kpi", "asset", "window", "from", "to", "limit", "cursor", "kpis"]),
        TEXT | st.sampled_from(["hiddencel?", "*/*/*/*", "h*", "alarm.silent", "true", "5m"]),
    ),
)  # fmt: skip
def test_no_answer_to_a_customer_names_what_is_not_its_own(
    guarded: tuple[httpx.Client, dict[str, str]], path: str, query: dict[str, str]
) -> None:
    client, made = guarded
    answer = client.get(path, params=query, headers=bearer(made["acme"]))
    asked = " ".join(query.values())
    told = FOREIGN.findall(answer.text)
    assert all(word in asked for word in told), (path, query, answer.text)
    assert answer.status_code < 500
    assert "12345678" not in answer.text


def test_what_is_for_others_is_refused_to_a_customer(
    guarded: tuple[httpx.Client, dict[str, str]],
) -> None:
    client, made = guarded
    for path in ("/metrics", "/api/v1/alarms"):
        assert client.get(path, headers=bearer(made["acme"])).status_code == 403
        assert client.get(path, headers=bearer(made["eye"])).status_code == 200
    body = client.get("/api/v1/assets", headers=bearer(made["acme"])).json()
    assert [entry["asset"] for entry in body] == [str(CABLE)]


def test_every_question_to_a_recording_is_answered_for_customers_on_its_own(yard: Path) -> None:
    """A question that is added to the reader has to be thought about here, or it is refused."""
    asked = {name for name in vars(Reader) if not name.startswith("_")}
    assert asked <= set(vars(Narrowed)), asked - set(vars(Narrowed))
    whole = Reader(yard)
    mine = Viewer("acme", "customer", ("cl0*",), ("31*",)).narrowed(whole)
    end_ns = T0_NS + 20 * MINUTE_NS
    plan = mine.layout()
    assert plan is not None
    said = [
        mine.assets(), mine.groups(), mine.kpi_names(), mine.last((), "1m", end_ns), mine.faults(),
        mine.states(CELL, T0_NS, end_ns), mine.signals(OTHER, ["speed_mps"], T0_NS, end_ns),
        mine.orders(end_ns), mine.order_spans(CABLE), mine.order_spans(CELL), mine.ledger(),
        mine.rejects(), mine.stages(), mine.alarms(end_ns, 0), mine.changes(0, 10_000),
        mine.positions(end_ns), mine.delays(CABLE, T0_NS, end_ns), mine.scenario,
        mine.alarm_rules(),
        mine.told(CELL, T0_NS, end_ns), mine.told(CABLE, T0_NS, end_ns)[1:], layout.encode(plan),
        mine.history(OTHER, "oee", "1m", T0_NS, end_ns), mine.truth(CELL, "oee", T0_NS, MINUTE_NS),
        mine.truth_history(OTHER, "oee", "1m", T0_NS, end_ns), mine.sinks(),
    ]  # fmt: skip
    assert not FOREIGN.search(repr(said))
    assert not re.search(r"\b990\d\b", repr(said))  # nor a number of the rival's orders
    minutes = {s.start_ns // MINUTE_NS for s in mine.states(CABLE, T0_NS, end_ns)}
    t_ns, _ = mine.signals(CABLE, ["speed_mps"], T0_NS, end_ns)["speed_mps"]
    seen = {(t - T0_NS) // MINUTE_NS for t in t_ns.tolist()}
    assert seen == own_minutes() and minutes
    whole.close()


def test_a_foreigner_gets_nothing(guarded: tuple[httpx.Client, dict[str, str]]) -> None:
    client, made = guarded
    for path in ("/api/v1/kpis", "/api/v1/feed", "/metrics", "/api/openapi.json"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert client.get("/healthz").status_code == 200
    away = client.get("/network?t=1", follow_redirects=False)
    assert (away.status_code, away.headers["location"]) == (303, "/sign-in?next=/network%3Ft%3D1")
    name, _, secret = made["op"].partition(".")
    for wrong in ("x", f"{name}.a", f"{name}.{secret[:-1]}", f"eye.{secret}", f"{name}.{secret}x"):
        assert client.get("/api/v1/kpis", headers=bearer(wrong)).status_code in (401, 429)


def test_a_browser_signs_in_and_out(yard: Path, tokens: tuple[Path, dict[str, str]]) -> None:
    who = Access(read_tokens(tokens[0]))
    with served(yard, who) as url, httpx.Client(base_url=url) as client:
        assert "password" in client.get("/sign-in").text
        form = {"token": "op.wrong", "next": "/network"}
        assert client.post("/sign-in", data=form).status_code == 401
        form["token"] = tokens[1]["op"]
        answer = client.post("/sign-in", data=form)
        assert (answer.status_code, answer.headers["location"]) == (303, "/network")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and tokens[1]["op"] not in cookie
        assert client.get("/api/v1/assets").status_code == 200
        other = {"Origin": "http://evil.example"}
        assert client.post("/sign-out", headers=other).status_code == 403
        assert client.get("/api/v1/assets").status_code == 200
        assert client.post("/sign-out").status_code == 303
        assert client.get("/api/v1/assets").status_code == 401
        for there in (
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "x",
            "/\r\nX: y",
        ):
            form["next"] = there
            assert client.post("/sign-in", data=form).headers["location"] == "/"


def test_guessing_is_slowed_down() -> None:
    now = [0.0]
    token = Token(name="a", role="viewer", salt="00" * 16, scrypt="00" * 32)
    who = Access([token], now_s=lambda: now[0])
    for _ in range(access.FAILURES):
        assert who.check("a.b", "1.2.3.4") is None
    with pytest.raises(TooMany):
        who.check("a.b", "1.2.3.4")
    assert who.check("a.b", "1.2.3.5") is None  # somebody else may try
    now[0] += access.FAILURES_S + 1
    assert who.check("a.b", "1.2.3.4") is None


def test_good_tokens_are_never_slowed_down(tokens: tuple[Path, dict[str, str]]) -> None:
    who = Access(read_tokens(tokens[0]))
    for _ in range(3 * access.FAILURES):
        viewer = who.check(tokens[1]["acme"], "1.2.3.4")
        assert viewer is not None and viewer.role == "customer"


def test_sessions_end() -> None:
    now = [0.0]
    entry = Token(name="a", role="viewer", salt="00" * 16, scrypt="00" * 32)
    who = Access([entry], now_s=lambda: now[0])
    viewer = Viewer("a", "viewer", entry=entry.scrypt)
    word = who.sign_in(viewer)
    assert who.session(word) == viewer and who.session(word + "x") is None
    assert who.session(who.sign_in(Viewer("b", "viewer"))) is None, "not in the file"
    now[0] = access.SESSION_S + 1
    assert who.session(word) is None


def test_a_tokens_file_that_changes_holds_at_once(yard: Path, tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    ann = make_token(file, "ann", "viewer")
    without = file.read_text()
    bob = make_token(file, "bob", "viewer")
    who = Access.of(file)
    with served(yard, who) as url, httpx.Client(base_url=url, timeout=20) as client:

        def status(token: str) -> int:
            return client.get("/api/v1/assets", headers=bearer(token)).status_code

        def until(token: str, wanted: int) -> None:
            ends_s = time.monotonic() + 10
            while status(token) != wanted:
                assert time.monotonic() < ends_s
                time.sleep(0.1)

        assert [status(ann), status(bob)] == [200, 200]
        answer = client.post("/sign-in", data={"token": bob})
        assert answer.status_code == 303
        with client.stream("GET", "/api/v1/feed", headers=bearer(bob)) as following:
            file.write_text("[[token]\n")  # half written: nothing changes
            time.sleep(access.LOOK_S + 0.2)
            assert status(bob) == 200
            file.write_text(without)
            began_s = time.monotonic()
            with pytest.raises(httpx.RemoteProtocolError):  # ends, for the permission has gone
                for _ in following.iter_bytes():
                    pass
            assert time.monotonic() - began_s < 5
        until(bob, 401)
        assert client.get("/api/v1/assets").status_code == 401, "nor is the browser signed in"
        assert status(ann) == 200
        cyd = make_token(file, "cyd", "operator")
        until(cyd, 200)
        file.unlink()
        until(ann, 401)


def test_only_a_proxy_that_is_named_says_that_it_came_by_https(
    yard: Path, tokens: tuple[Path, dict[str, str]]
) -> None:
    for proxies, headers, secure in (
        (("127.0.0.0/8",), {"X-Forwarded-Proto": "https"}, True),
        (("127.0.0.0/8",), {"X-Forwarded-Proto": "https, http"}, False),
        (("127.0.0.0/8",), {}, False),
        (("10.0.0.2",), {"X-Forwarded-Proto": "https"}, False),
        ((), {"X-Forwarded-Proto": "https"}, False),
    ):
        who = Access(read_tokens(tokens[0]))
        with served(yard, who, proxies) as url, httpx.Client(base_url=url) as client:
            answer = client.post("/sign-in", data={"token": tokens[1]["op"]}, headers=headers)
            assert ("; Secure" in answer.headers["set-cookie"]) is secure, (proxies, headers)


def test_behind_a_proxy_who_guesses_keeps_nobody_else_out(
    yard: Path, tokens: tuple[Path, dict[str, str]]
) -> None:
    who = Access(read_tokens(tokens[0]))
    with served(yard, who, ("127.0.0.1",)) as url, httpx.Client(base_url=url) as client:
        seen = [
            client.get("/metrics", headers=bearer("a.b") | {"X-Forwarded-For": f"9.9.9.9, {own}"})
            for own in ["8.8.8.8"] * (access.FAILURES + 1) + ["7.7.7.7"]
        ]
        assert [one.status_code for one in seen[-2:]] == [429, 401]


def test_the_library_opens_recordings_of_its_folder_and_nothing_else(
    small: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.beilun").write_bytes(small.read_bytes())
    (tmp_path / "secret.beilun").write_bytes(small.read_bytes())
    (folder / "link.beilun").symlink_to(tmp_path / "secret.beilun")
    (folder / "notes.beilun").write_text("no recording")
    (folder / "half.beilun").write_bytes(small.read_bytes()[:50])
    (folder / "empty.beilun").touch()
    (folder / "dir.beilun").mkdir()
    with contextlib.closing(sqlite3.connect(folder / "other.beilun")) as db:
        db.execute("CREATE TABLE meta (key, value)")
    now = [0.0]
    served_ = Reader(folder / "one.beilun")
    library = Library(served_, folder, follows=True, now_s=lambda: now[0])
    assert sorted(found.name for found in library.list()) == ["one", "two"]
    for name in ("../secret", "secret", "link", "notes", "half", "empty", "dir", "other", "",
                 "one.beilun", "/etc/passwd", "two/../two", "TWO", str(tmp_path / "secret"),
                 "*", "t?o", "two\x00"):  # fmt: skip
        with pytest.raises(RecordingError, match="no such recording"):
            library.lease(name)
    assert library.lease("one") is served_
    first, second = library.lease("two"), library.lease("two")
    assert first is second
    library.give_back(first)
    assert first.end_ns() > 0, "somebody still looks at it"
    library.give_back(second)
    library.give_back(second)
    with pytest.raises(RecordingError, match="closed"):
        Reader.assets(second)
    assert library.newest() == ""
    (folder / "three.beilun").write_bytes(small.read_bytes())
    assert library.newest() == ""
    now[0] = 10.0
    assert library.newest() == "three"
    assert Library(served_, folder).newest() == "", "it was told which to show"
    (folder / "three.beilun").unlink()
    now[0] = 20.0
    assert library.newest() == ""
    assert [each.name for each in Library(served_).list()] == []
    served_.close()


@pytest.mark.parametrize("table", ["landmark", "row", "block", "ledger", "truth", "series"])
def test_tables_of_another_shape_are_told_as_such(small: Path, tmp_path: Path, table: str) -> None:
    path = tmp_path / "strange.beilun"
    path.write_bytes(small.read_bytes())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"DROP TABLE {table}")
        db.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, what TEXT)")
    reader = Reader(path)
    asset = Asset("ningbo", "cable", "hall1", "cl01")
    calls: Sequence[Callable[[], object]] = (
        reader.assets, reader.end_ns, reader.newest_ns, reader.ledger, reader.kpi_names,
        lambda: reader.states(asset, T0_NS, T0_NS + MINUTE_NS),
        lambda: reader.positions(T0_NS + MINUTE_NS), lambda: reader.orders(T0_NS + MINUTE_NS),
        lambda: reader.last((), "1m", T0_NS + 5 * MINUTE_NS),
        lambda: reader.history(asset, "line_speed", "1m", T0_NS, T0_NS + 5 * MINUTE_NS),
        lambda: reader.truth(asset, "line_speed", T0_NS, MINUTE_NS),
        lambda: list(Recording.open(path).truth()),
    )  # fmt: skip
    told: list[RecordingError] = []
    for call in calls:
        try:
            call()
        except RecordingError as error:
            told.append(error)
    assert any(error.hint and "no such column" in error.problem for error in told)
    reader.close()


def test_who_announced_itself_late_in_an_old_recording_is_found_with_time(
    small: Path, tmp_path: Path
) -> None:
    """Of a recording without landmarks the first blocks are read, and then more of it."""
    late = tmp_path / "late.beilun"
    with Recording.open(small) as source, Recording.create(late) as made:
        made.set_meta({"edge": source.meta("edge") or ""})
        decoder = Decoder()
        births: list[Any] = []
        others: list[Any] = []
        for block in source.blocks():
            for envelope in block.envelopes:
                with contextlib.suppress(Exception):
                    kind = births if envelope.topic.endswith("/birth") else others
                    kind.append(decoder.read(envelope))
        made.append([record for records in births[:3] for record in records])
        for n in range(20):
            made.append([record for records in others[n * 50 : n * 50 + 50] for record in records])
        made.append([record for records in births[3:6] for record in records])
        made.db.execute("DROP TABLE landmark")
    reader = Reader(late)
    first = len(reader.assets())
    assert 0 < first < 6
    found = [len(reader.assets()) for _ in range(20)]
    assert found == sorted(found) and found[-1] > first
    assert journal.FIRST_BLOCKS + 20 * journal.MORE_BLOCKS > 22
    reader.close()


def test_a_tokens_file_keeps_no_secret_and_is_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    made = [make_token(path, f"n{k}", "viewer") for k in range(2)]
    text = path.read_text()
    assert all(token.split(".")[1] not in text for token in made)
    assert path.stat().st_mode & 0o077 == 0
    one, two = read_tokens(path)
    assert one.salt != two.salt and one.is_of(made[0].split(".")[1])
    with pytest.raises(ConfigError, match="is a token called"):
        make_token(path, "n0", "viewer")
    with pytest.raises(ConfigError):
        make_token(path, "acme", "customer", ["cl01"], [])
    with pytest.raises(ConfigError):
        make_token(path, "a b", "viewer")
    assert path.read_text() == text


def test_only_this_host_is_answered_where_nobody_signs_in(api: httpx.Client) -> None:
    for name in ("evil.example", "127.0.0.1.evil.example", ""):
        assert api.get("/healthz", headers={"Host": name}).status_code == 421
    port = api.base_url.port
    for name in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert api.get("/healthz", headers={"Host": name}).status_code == 200


# health -----------------------------------------------------------------------------------------


def test_alive_is_not_ready(tmp_path: Path) -> None:
    path = tmp_path / "a.beilun"
    with Recording.create(path) as recording:
        rows = RowStore(recording)
        rows.prepare()
        with served(path) as url, httpx.Client(base_url=url) as client:
            assert client.get("/healthz/live").status_code == 200
            assert client.get("/healthz/ready").status_code == 503
            found = client.get("/healthz")
            assert (found.status_code, found.json()["alive"]) == (503, True)
            rows.write(rows_of([0]))
            assert client.get("/healthz/ready").status_code == 200
            assert client.get("/healthz").json() == {"alive": True, "ready": True, "why": ""}


def test_the_sums_of_every_stage_close_and_metrics_tell_them(tmp_path: Path) -> None:
    chosen = find_scenario("quickstart", changes={"length": "2m"})
    path = tmp_path / "a.beilun"
    from beilun.composing import policy_of, scenario_header
    from beilun.offline import make_factory

    with Recording.create(path) as recording:
        recording.set_meta({**scenario_header(chosen, "r"), "edge": edge_header(chosen.edge)})
        rows = RowStore(recording)
        rows.prepare()
        pipeline = Pipeline(recording, Decoder(), policy_of(chosen.edge), "r", rows.write)
        serving = Serving()
        stages = Stages(recording, serving, None, None)
        stages.write()
        assert stages.passed() == []
        serving.pipeline = pipeline
        items = [
            Received(item.topic, item.payload, 0, False, (0, 0))
            for chunk in make_factory(chosen, "r").chunks()
            for item in chunk.in_order()
        ]
        junk = [Received("beilun/v1/a/b/c/d/process", b"{", 0, False, (0, 0))] * 3
        for start in range(0, len(items), 100):
            pipeline.take([*items[start : start + 100], *(junk if not start else ())])
            pipeline.take(items[:5])  # again
            stages.write()
        pipeline.conclude(rows)
        stages.write()
        passed = {each.stage: each for each in stages.passed()}
    for each in passed.values():
        if each.came is not None:
            gone = (each.out, each.rejected, each.dropped, each.backlog)
            assert each.came == sum(n or 0 for n in gone), each
    again = -(-len(items) // 100) * 5
    assert passed["subscribe"].came == len(items) + len(junk) + again
    assert passed["decode"].rejected == len(junk)
    assert passed["rows"].came == len(stored(path)) + len(stored(path, 3600 * NS_PER_S)) * 2
    assert passed["feed"].came is None
    made = Reader(path)
    assert [tuple(stage) for stage in made.stages()] == [tuple(each) for each in passed.values()]
    made.close()
    with served(path) as url, httpx.Client(base_url=url) as client:
        text = client.get("/metrics?kpis=true").text
    samples = {
        (s.name, *s.labels.values()): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }
    assert samples["beilun_stage_in_total", "journal"] == len(items) + again
    assert samples["beilun_stage_rejected_total", "decode"] == len(junk)
    assert ("beilun_stage_in_total", "feed") not in samples
    assert any(name == "beilun_kpi" for name, *_ in samples)


# the command ------------------------------------------------------------------------------------


def serve(*words: str, folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "beilun", "serve", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
        env=dict(os.environ, PYTHONPATH=str(Path(__file__).parents[1])),
    )  # fmt: skip


def test_it_serves_until_told_to_stop(small: Path, tmp_path: Path) -> None:
    process = serve(str(small), "--port", "0", "--api-only", folder=tmp_path)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    with httpx.Client(base_url=url) as client:
        assert client.get("/healthz").status_code == 200
        with client.stream("GET", "/api/v1/feed") as following:
            assert following.status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    assert "Traceback" not in process.communicate()[1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--host", "0.0.0.0"), Exit.INVALID, "beilun serve token"),
        (("--tokens-file", "missing.toml"), Exit.INVALID, "no such file"),
        (("missing.beilun",), Exit.INVALID, "no such file"),
        ((), Exit.INVALID, "beilun run quickstart"),
    ],
)
def test_what_it_cannot_serve_is_told(
    small: Path, tmp_path: Path, words: Sequence[str], code: Exit, told: str
) -> None:
    named = [*words] if words in (("missing.beilun",), ()) else [str(small), *words]
    process = serve(*named, "--port", "0", folder=tmp_path)
    _, error = process.communicate(timeout=30)
    assert (process.returncode, told in error) == (code, True), error


def make_certificate(folder: Path, *words: str, name: str = "own") -> tuple[Path, Path]:
    """A certificate of this host that vouches for itself, and its key."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", *(words or ("-nodes",))],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.mark.needs_openssl
def test_with_a_certificate_tokens_travel_by_https_and_not_otherwise(
    yard: Path, tmp_path: Path, tokens: tuple[Path, dict[str, str]], pair: tuple[Path, Path]
) -> None:
    (tmp_path / "beilun.toml").write_text(
        f'[serve]\ncertificate = "{os.path.relpath(pair[0], tmp_path)}"\nkey = "{pair[1]}"\n'
    )
    words = (str(yard), "--port", "0", "--tokens-file", str(tokens[0]))
    process = serve(*words, "--api-only", folder=tmp_path)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("https://127.0.0.1:")
        trusted = ssl.create_default_context(cafile=str(pair[0]))
        with httpx.Client(base_url=url, verify=trusted) as client:
            assert client.get("/api/v1/assets").status_code == 401
            answer = client.get("/api/v1/assets", headers=bearer(tokens[1]["eye"]))
            assert answer.status_code == 200
            form = {"token": tokens[1]["eye"]}
            assert "; Secure" in client.post("/sign-in", data=form).headers["set-cookie"]
            assert client.get("/api/v1/assets").status_code == 200, "by the cookie"
        with pytest.raises(httpx.ConnectError, match="certificate"):
            httpx.get(url)
        with pytest.raises(httpx.TransportError):
            httpx.get(url.replace("https", "http"))
    finally:
        process.terminate()
        _, said = process.communicate(timeout=20)
    assert "in the clear" not in said and "Traceback" not in said


def test_beyond_this_host_without_a_certificate_tokens_travel_in_the_clear() -> None:
    tls = server.Tls(Path("own.crt"), Path("own.key"))
    for host in ("0.0.0.0", "::", "10.0.0.7", "edge.example"):
        assert server.is_in_the_clear(host, None)
        assert not server.is_in_the_clear(host, tls)
    for host in ("127.0.0.1", "::1", "localhost"):
        assert not server.is_in_the_clear(host, None)


@pytest.mark.needs_openssl
@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        (("own.crt", ""), "go together"),
        (("", "own.key"), "go together"),
        (("own.crt", "missing.key"), "No such file"),
        (("own.crt", "other.key"), "mismatch"),
        (("own.key", "own.key"), "PEM"),
        (("own.crt", "locked.key"), "passphrase"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_told_before_anything_is_served(
    tmp_path: Path, chosen: tuple[str, str], told: str
) -> None:
    for name in {Path(each).stem for each in chosen} & {"own", "other", "locked"}:
        make_certificate(tmp_path, *(("-passout", "pass:x") if name == "locked" else ()), name=name)
    if chosen[1] == "locked.key":
        key = (tmp_path / "locked.key").read_text()
        assert "ENCRYPTED" in key
    with pytest.raises(ConfigError) as caught:
        server.tls_of(*(tmp_path / each if each else None for each in chosen))
    assert told in f"{caught.value} {caught.value.hint}"


@pytest.mark.needs_openssl
def test_a_run_shows_its_page_and_keeps_it_until_ctrl_c(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    words = ("run", "quickstart", "--for", "1m", "--serve", "-o", "a.beilun")
    env = dict(
        os.environ, PYTHONPATH=str(Path(__file__).parents[1]), BEILUN_SERVE__PORT="0",
        BEILUN_SERVE__CERTIFICATE=str(pair[0]), BEILUN_SERVE__KEY=str(pair[1]),
    )  # fmt: skip
    trusted = ssl.create_default_context(cafile=str(pair[0]))
    with subprocess.Popen(
        [sys.executable, "-m", "beilun", *words], stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=env,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        urls: list[str] = []
        for line in process.stderr:
            urls += re.findall(r"https://\S+/", line)
            if "page stays" in line:
                break
        assert len(urls) == 2 and urls[0] == urls[1]
        with httpx.Client(base_url=urls[0], timeout=20, verify=trusted) as client:
            assert client.get("/healthz/ready").status_code == 200
            assert "text/html" in client.get("/").headers["content-type"]
            stages = client.get("/metrics").text
        process.send_signal(signal.SIGINT)
        process.stderr.read()
        assert process.wait(20) == 0
    assert re.search(r'beilun_stage_out_total{stage="rows"} [1-9]', stages)
    with pytest.raises(httpx.ConnectError):
        httpx.get(urls[0], verify=trusted)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("a.beilun-")]


def test_a_port_that_is_taken_is_told() -> None:
    with server.bound("127.0.0.1", 0) as own, pytest.raises(UnreachableError) as caught:
        server.bound("127.0.0.1", own.getsockname()[1])
    assert "--port" in caught.value.hint


def test_a_token_is_printed_once(tmp_path: Path, small: Path) -> None:
    words = ("token", "acme", "--role", "customer", "--asset", "cl01", "--order", "31*")
    process = serve(*words, "--tokens-file", "t.toml", folder=tmp_path)
    out, error = process.communicate(timeout=30)
    assert process.returncode == 0, error
    (token,) = read_tokens(tmp_path / "t.toml")
    assert (token.assets, token.orders) == (("cl01",), ("31*",))
    assert token.is_of(out.strip().split(".")[1])
    unnamed = serve(*words, folder=tmp_path)
    assert "--tokens-file" in unnamed.communicate(timeout=30)[1]
    assert unnamed.returncode == Exit.USAGE


def test_windows_of_every_kind_are_found(tmp_path: Path) -> None:
    """Of windows of one length those of the label asked for, also by calendar and by order."""
    edge = EdgeSettings(windows=("1h", "1h/30m", "8h", "shift", "order"), zone="Europe/Berlin")
    path = tmp_path / "a.beilun"
    start_ns, end_ns = T0_NS, T0_NS + 24 * 60 * MINUTE_NS
    rows: list[Row] = []
    for kind in edge.kinds:
        rows += [
            Row(CABLE, "oee", s.start_ns, s.length_ns, 1.0, 1, 0, "1")
            for s in kind.over(start_ns, end_ns)
            if s.start_ns >= start_ns and s.end_ns <= end_ns
        ]
    order = Row(CABLE, "oee", T0_NS + 77, 8 * 60 * MINUTE_NS + 5, 2.0, 1, 0, "1")
    rows += [order, order._replace(kpi="order_number", value=3101.0)]
    with Recording.create(path) as recording:
        recording.set_meta({"edge": edge_header(edge)})
        store = RowStore(recording)
        store.prepare()
        store.write(last_rows(rows).values())
    made = Reader(path)
    for label in edge.windows[:-1]:
        kind = window(label, edge.zone, edge.shifts)
        want = {
            s for s in kind.over(start_ns, end_ns) if s.start_ns >= start_ns and s.end_ns <= end_ns
        }
        got = made.history(CABLE, "oee", label, 0, end_ns)
        assert {(r.window_start_ns, r.window_start_ns + r.window_length_ns) for r in got} == want
        (last,) = made.last(["oee"], label, end_ns)
        assert last.window_start_ns == max(s.start_ns for s in want)
        found, after = made.query(["oee"], "*", label, 0, end_ns, 1_000)
        assert sorted(found) == got and after is None
    assert made.last(["oee"], "order", end_ns) == made.history(CABLE, "oee", "order", 0, end_ns)
    assert [row.value for row in made.last(["oee"], "order", end_ns)] == [2.0]
    assert made.kpi_names() == ["oee"]
    made.close()


def test_what_is_owed_to_a_store_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.beilun"
    with Recording.create(path) as recording:
        rows = RowStore(recording)
        rows.prepare()
        made = Reader(path)
        assert made.sinks() is None and made.sinks("webhook") is None
        outbox = Outbox(recording, [], most=10)
        outbox.prepare()
        rows.write(rows_of([0]))
        outbox.tidy(60)
        found = made.sinks()
        assert found is not None and found.oldest_s is not None and 0 <= found.oldest_s < 60
        assert found[:1] + found[2:] == (10, 0, 5, 15, 0)
        made.close()


def test_the_floor_is_in_the_header(small: Path) -> None:
    made = Reader(small)
    plan = made.layout()
    assert plan is not None
    assert {info.asset.name for info in made.assets() if info.kind != "device_group"} >= set(
        plan.stations
    )
    assert plan.products["3101"] == "umbilical-4x"
    assert {cell.area for cell in plan.cells} <= set(plan.areas)
    assert layout.decode(layout.encode(plan)) == plan
    made.close()
