"""The remote store: nothing lost, nothing doubled, whoever dies; against real servers."""

import asyncio
import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beilun import console, remote
from config.units import NS_PER_S
from config.windows import Every
from edge.rows import Row
from edge.sinks import forward
from edge.sinks.forward import Forwarder, forwarding
from edge.sinks.influx import Later, Refused, Server, Taken
from edge.sinks.lines import line_of
from edge.sinks.outbox import Outbox
from edge.store import RowStore
from ingest.broker import running_broker
from ingest.messages import Asset
from ingest.recording import Recording
from tests.servers import Influx, Victoria, free_port, get, running_influx, running_victoria

HOUR_NS = 3_600 * NS_PER_S
START_NS = 1_546_300_800 * NS_PER_S
WINDOWS = (Every(HOUR_NS),)
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("BEILUN_")}
TIMEOUT_NS = 5 * NS_PER_S
BEGAN_S = 1_000_000
"""What the clock of a test says at first."""


def row(n: int, value: float | None = 1.0, *, asset: str = "m1", gone: bool = False) -> Row:
    place = Asset("s", "a", "l", asset)
    return Row(place, "oee", START_NS + n * HOUR_NS, HOUR_NS, value, 10, 0, "1", gone=gone)


class Books:
    """A recording with a store and an outbox, as an edge has them."""

    def __init__(self, path: Path, *, most: int = 1_000_000) -> None:
        self.now_s = float(BEGAN_S)
        self.recording = Recording.create(path)
        self.store = RowStore(self.recording)
        self.store.prepare()
        self.outbox = Outbox(self.recording, WINDOWS, most=most, clock=lambda: self.now_s)
        self.outbox.prepare()


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    found = Books(tmp_path / "a.beilun")
    with found.recording:
        yield found


@pytest.fixture(scope="module")
def victoria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victoria]:
    with running_victoria(tmp_path_factory.mktemp("stores") / "vm") as server:
        yield server


@pytest.fixture(scope="module")
def influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    with running_influx(tmp_path_factory.mktemp("stores") / "influx") as server:
        yield server


def server_at(url: str) -> Server:
    return Server(url, bucket="beilun", timeout_ns=TIMEOUT_NS)


def send(books: Books, server: Server, *, keep_s: float = 60.0, batch: int = 5_000) -> Forwarder:
    """Send all that is owed, as a run does at its end."""
    forwarder = Forwarder(books.outbox, server, keep_s=keep_s, batch=batch)

    async def main() -> None:
        async with asyncio.timeout(60), forwarding(forwarder):
            pass

    asyncio.run(main())
    return forwarder


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)


class TestLines:
    def test_a_row_is_one_line_with_sorted_tags(self) -> None:
        assert line_of(row(0, 0.5), "1h") == (
            "kpi,area=a,asset=m1,kpi=oee,line=l,site=s,unit=1,window=1h known=1i,value=0.5,n=10i,"
            f"late=0i,revision=0i,length_ns={HOUR_NS}i {START_NS}"
        )

    def test_without_evidence_there_is_no_value(self) -> None:
        for none in (row(0, None), row(0, 0.5, gone=True), row(0, float("nan"))):
            assert " known=0i,n=" in line_of(none, "1h")

    @given(asset=names, unit=names, window=names)
    def test_no_name_breaks_a_line(self, asset: str, unit: str, window: str) -> None:
        line = line_of(row(0)._replace(asset=Asset("s", "a", "l", asset), unit=unit), window)
        assert len(line.split("\n")) == 1
        key, fields, stamp = re.split(r"(?<!\\) ", line)
        assert stamp == str(START_NS)
        assert len(re.split(r"(?<!\\),", key)) == 8
        assert all(len(re.split(r"(?<!\\)=", tag)) == 2 for tag in re.split(r"(?<!\\),", key)[1:])
        assert fields.startswith("known=1i,")


class TestOutbox:
    @given(
        steps=st.lists(
            st.one_of(
                st.tuples(st.just("write"), st.integers(0, 5), st.integers(0, 3)),
                st.tuples(st.just("gone"), st.integers(0, 5), st.just(0)),
                st.tuples(st.sampled_from(["accept", "bury", "suspect", "tidy"]),
                          st.integers(1, 4), st.integers(0, 90)),
            ), max_size=30,
        )
    )  # fmt: skip
    def test_the_sums_close_whatever_happens(self, steps: list[tuple[str, int, int]]) -> None:
        path = Path(f"/dev/shm/beilun-test-{os.getpid()}-{time.monotonic_ns()}")
        try:
            books = Books(path, most=4)
            with books.recording:
                for what, n, other in steps:
                    books.now_s += other
                    match what:
                        case "write":
                            books.store.write([row(n, float(other))])
                        case "gone":
                            books.store.write([row(n, gone=True)])
                        case "accept":
                            books.outbox.accepted(books.outbox.pending(n))
                        case "bury":
                            for entry in books.outbox.pending(n)[:1]:
                                books.outbox.bury(entry, "for a test")
                        case "suspect":
                            books.outbox.suspect(books.now_s - other)
                        case _:
                            books.outbox.tidy(60.0)
                            assert books.outbox.waiting() <= 4
                    assert books.outbox.counts().closes, (what, books.outbox.counts())
        finally:
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)

    def test_a_row_written_again_as_it_was_is_owed_once(self, books: Books) -> None:
        books.store.write([row(0), row(1)])
        books.store.write([row(0), row(1, 2.0)])
        assert [entry.window_start_ns for entry in books.outbox.pending(9)] == [
            START_NS, START_NS + HOUR_NS
        ]  # fmt: skip
        assert books.outbox.counts().replaced == 1

    def test_what_was_amended_while_it_was_under_way_is_still_owed(self, books: Books) -> None:
        books.store.write([row(0)])
        under_way = books.outbox.pending(9)
        books.store.write([row(0, 2.0)])
        books.outbox.accepted(under_way)
        [entry] = books.outbox.pending(9)
        assert "value=2.0" in entry.lines[0] and "revision=1i" in entry.lines[0]

    def test_an_outbox_is_new_until_anything_was_owed(self, books: Books) -> None:
        assert books.outbox.new
        books.recording.close()
        again = Books(books.recording.path)
        with again.recording:
            assert again.outbox.new, "whoever made it may have died before it owed anything"
            again.store.write([row(0)])
            again.outbox.accepted(again.outbox.pending(9))
        again = Books(books.recording.path)
        with again.recording:
            assert not again.outbox.new
            other = Outbox(again.recording, WINDOWS, most=9, name="other")
            other.prepare()
            assert other.new

    def test_a_rolled_back_row_is_not_owed(self, books: Books) -> None:
        with pytest.raises(sqlite3.Error):
            books.store.write([row(0), row(1)._replace(n=None)])  # type: ignore[arg-type]
        assert not books.outbox.pending(9)


@pytest.mark.needs_victoria_metrics
class TestVictoriaMetrics:
    def test_every_row_arrives_once(self, books: Books, victoria: Victoria) -> None:
        books.store.write([row(n, n / 7, asset="once") for n in range(12_000)])
        with closing(server_at(victoria.url)) as server:
            done = send(books, server)
        assert done.outbox.counts().accepted == 12_000
        read = {key[3]: value for key, value in victoria.read().items() if key[0] == "s/a/l/once"}
        assert len(read) == 12_000
        assert read[START_NS // 1_000_000] == 0.0

    def test_a_server_killed_loses_nothing_and_doubles_nothing(
        self, books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(forward, "BACKOFF_S", (0.05, 0.2))
        with (
            running_victoria(tmp_path / "vm") as victoria,
            closing(server_at(victoria.url)) as server,
        ):
            forwarder = Forwarder(books.outbox, server, keep_s=60.0, batch=500)

            async def main() -> None:
                async with asyncio.timeout(60), forwarding(forwarder):
                    for turn in range(3):
                        books.store.write([row(turn * 1_000 + n, float(n)) for n in range(1_000)])
                        # Acknowledged, and not yet on its disk.
                        await until(lambda: not books.outbox.waiting())
                        victoria.kill()
                        books.store.write([row(9_000 + turn)])
                        await until(lambda: bool(forwarder.trouble))
                        victoria.start()

            asyncio.run(main())
            assert len(victoria.read()) == 3_003
        counts = books.outbox.counts()
        assert counts.closes and counts.accepted == 3_003 and counts.resent >= 3_000

    def test_an_absent_server_costs_no_row(self, books: Books) -> None:
        books.store.write([row(n) for n in range(100)])
        with closing(server_at(f"http://127.0.0.1:{free_port()}")) as server:
            done = send_once(books, server)
        assert done.state == "waiting" and "refused" in done.trouble
        counts = books.outbox.counts()
        assert counts.waiting == 100 and counts.oldest_s is not None

    def test_a_whole_run_is_in_the_store(self, tmp_path: Path, victoria: Victoria) -> None:
        words = ["run", "quickstart", "--for", "5m", "--store", victoria.url, "-o", "a.beilun"]
        done = subprocess.run(
            [sys.executable, "-m", "beilun", *words], cwd=tmp_path, env=ENVIRONMENT,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        found = re.search(r"rows ([\d,]+) = accepted \1$", done.stdout, re.MULTILINE)
        assert found
        db = sqlite3.connect(tmp_path / "a.beilun")
        rows = db.execute(
            "SELECT site || '/' || area || '/' || line || '/' || asset, kpi, window_start_ns, value"
            " FROM kpi_rows"
            " WHERE value IS NOT NULL AND window_length_ns = ?", (60 * NS_PER_S,)
        ).fetchall()  # fmt: skip
        db.close()
        wanted = {(asset, kpi, "1m", start_ns // 1_000_000) for asset, kpi, start_ns, _ in rows}
        # Accepted is not yet to be read, on a loaded machine and in spite of a flush.
        until_s = time.monotonic() + 20
        while wanted - (read := victoria.read()).keys() and time.monotonic() < until_s:
            time.sleep(0.2)
        for asset, kpi, start_ns, value in rows:
            assert read[asset, kpi, "1m", start_ns // 1_000_000] == pytest.approx(value)


def send_once(books: Books, server: Server) -> Forwarder:
    forwarder = Forwarder(books.outbox, server, keep_s=60.0)
    asyncio.run(asyncio.wait_for(forwarder.step(), 30))
    return forwarder


@pytest.mark.needs_influxd
class TestInflux:
    def test_the_last_revision_wins(self, books: Books, influx: Influx) -> None:
        with closing(server_at(influx.url)) as server:
            for value in (5.0, 3.0, 4.0):
                books.store.write([row(0, value, asset="revised")])
                send(books, server)
        [[_, value, revision]] = influx.query(
            "SELECT value, revision FROM kpi WHERE asset = 'revised'"
        )
        assert (value, revision) == (4, 2)

    def test_one_malformed_row_is_a_dead_letter_and_the_others_arrive(
        self, books: Books, influx: Influx
    ) -> None:
        books.store.write([row(n, float(n), asset="dead") for n in range(100)])
        outbox = books.outbox
        spoilt = outbox.pending

        def pending(most: int):  # type: ignore[no-untyped-def]
            return [
                entry._replace(lines=("no line at all",))
                if entry.window_start_ns == START_NS + 41 * HOUR_NS else entry
                for entry in spoilt(most)
            ]  # fmt: skip

        outbox.pending = pending  # type: ignore[method-assign]
        with closing(server_at(influx.url)) as server:
            send(books, server)
        counts = outbox.counts()
        assert (counts.accepted, counts.dead, counts.waiting) == (99, 1, 0)
        [(line, why)] = books.recording.db.execute("SELECT line, reason FROM dead_letter")
        assert line == "no line at all" and why.startswith("400")
        [[_, n]] = influx.query("SELECT count(value) FROM kpi WHERE asset = 'dead'")
        assert n == 99

    def test_a_missing_bucket_stops_it_and_says_so(self, books: Books, influx: Influx) -> None:
        books.store.write([row(0)])
        with closing(Server(influx.url, bucket="nowhere", timeout_ns=TIMEOUT_NS)) as server:
            done = send(books, server)
        assert done.state == "stopped" and "404" in done.trouble
        assert books.outbox.counts().waiting == 1


def test_what_a_server_says_is_understood(books: Books) -> None:
    """Retry-After, refusals and silence, said by a server of our own that says nothing else."""
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    said: list[tuple[int, dict[str, str]]] = []

    class Says(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, head = said.pop(0)
            self.send_response(status)
            for name, value in {**head, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    front = HTTPServer(("127.0.0.1", 0), Says)
    Thread(target=front.serve_forever, daemon=True).start()
    try:
        with closing(server_at(f"http://127.0.0.1:{front.server_address[1]}")) as server:
            said += [(429, {"Retry-After": "7"}), (503, {}), (401, {}), (204, {})]
            assert server.write(["kpi x=1 1"]) == Later("429 Too Many Requests", 7.0)
            later = server.write(["kpi x=1 1"])
            assert isinstance(later, Later) and later.after_s is None
            assert isinstance(server.write(["kpi x=1 1"]), Refused)
            assert isinstance(server.write(["kpi x=1 1"]), Taken)
    finally:
        front.shutdown()
        front.server_close()
    with closing(server_at(f"http://127.0.0.1:{front.server_address[1]}")) as server:
        silent = server.write(["kpi x=1 1"])
        assert isinstance(silent, Later) and silent.why.startswith("no answer")


# hard times -------------------------------------------------------------------------------------


class Front:
    """A way to a real store that is as bad as it is told to be.

    ``passes`` as it comes; ``late``: passed on, and answered when nobody waits any more; ``cut``:
    passed on, and the line drops before the answer; ``busy``: 503 with ``Retry-After: 7``.
    """

    def __init__(self, url: str) -> None:
        self.behaves: Callable[[], str] = lambda: "passes"
        self.token = ""
        """Where there is one, nobody gets in without it."""
        self.late_s = 0.0
        self.requests = 0
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                front.requests += 1
                how = front.behaves()
                if front.token and self.headers["Authorization"] != f"Token {front.token}":
                    return self._answer(401)
                if how == "busy":
                    return self._answer(503, {"Retry-After": "7"})
                kept = ("Content-Encoding", "Content-Type")
                head = {name: self.headers[name] for name in kept if name in self.headers}
                try:
                    with urlopen(Request(url + self.path, body, head), timeout=10) as answer:
                        status = answer.status
                except HTTPError as error:
                    status = error.code
                time.sleep(front.late_s if how == "late" else 0)
                self.close_connection = how in ("late", "cut")
                return None if how == "cut" else self._answer(status)

            def _answer(self, status: int, head: dict[str, str] | None = None) -> None:
                with contextlib.suppress(OSError):  # nobody waits any more
                    self.send_response(status)
                    for name, value in {**(head or {}), "Content-Length": "0"}.items():
                        self.send_header(name, value)
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def before(url: str) -> Iterator[Front]:
    with closing(Front(url)) as front:
        yield front


def beilun(folder: Path, *words: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "beilun", *words], cwd=folder, env=ENVIRONMENT | more,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def accepted(path: Path) -> int:
    """How many rows the store took by now, by the recording of another process."""
    with (
        contextlib.suppress(sqlite3.OperationalError),
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db,
    ):
        found = db.execute("SELECT n FROM outbox_count WHERE entry = 'accepted'").fetchone()
        return 0 if found is None else int(found[0])
    return 0


def wait_for(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.005)


Key = tuple[str, str, str, int]
"""Path of the asset, KPI, window, start in ns."""
NAMES = {60: "1m", 3_600: "1h", 28_800: "8h"}


def recorded(path: Path) -> dict[Key, tuple[int, float | None]]:
    """Revision and value of every row of a recording, and of those that were there and are gone:
    a store cannot take a row back, but it is told that nothing is known there."""
    with closing(sqlite3.connect(path)) as db:
        return {
            (place, kpi, NAMES[length_ns // NS_PER_S], start_ns): (revision, value)
            for place, kpi, length_ns, start_ns, revision, value in db.execute(
                "SELECT site || '/' || area || '/' || line || '/' || asset, kpi,"
                " window_length_ns, window_start_ns, r.revision, r.value FROM series JOIN ("
                "SELECT series, window_start_ns, revision, value FROM row UNION ALL"
                " SELECT series, window_start_ns, revision, NULL FROM gone WHERE (series,"
                " window_start_ns) NOT IN (SELECT series, window_start_ns FROM row)"
                ") r ON r.series = series.id"
            )
        }


def stored(store: Influx) -> dict[Key, tuple[int, float | None]]:
    """The same of every row of an InfluxDB; a row that is there twice fails."""
    asked = urlencode(
        {"db": "beilun", "q": "SELECT known, revision, value FROM kpi GROUP BY *", "epoch": "ns"}
    )
    [found] = json.loads(get(f"{store.own}/query?{asked}", b"", 60))["results"]
    rows: dict[Key, tuple[int, float | None]] = {}
    for series in found.get("series", ()):
        tags = series["tags"]
        place = "/".join(tags[level] for level in ("site", "area", "line", "asset"))
        for start_ns, known, revision, value in series["values"]:
            key = (place, tags["kpi"], tags["window"], start_ns)
            assert key not in rows, f"twice: {key}"
            rows[key] = (revision, value if known else None)
    return rows


class TestKilled:
    @pytest.mark.needs_influxd
    @pytest.mark.needs_mosquitto
    def test_an_edge_killed_in_mid_run_loses_nothing_and_doubles_nothing(
        self, tmp_path: Path
    ) -> None:
        with (
            running_influx(tmp_path / "influx") as store,
            running_broker("mosquitto", tmp_path / "broker") as broker,
        ):
            to = ("--broker", f"mqtt://{broker.address.host}:{broker.address.port}", "--run", "r1")
            words = ("edge", "--once", *to, "--store", store.url, "-o", "e.beilun")
            edge = beilun(tmp_path, *words)
            # At a pace: an edge that starts again must not find the end of the run waiting for it.
            paced = ("--for", "10m", "--speed", "30")
            factory = beilun(tmp_path, "simulate", "quickstart", *paced, "--own", "own.sim", *to)
            try:
                for least in (1_000, 3_000):
                    wait_for(lambda least=least: accepted(tmp_path / "e.beilun") > least)
                    edge.kill()
                    assert ended(edge)[0] == -9
                    edge = beilun(tmp_path, *words)
                code, out, err = ended(edge)
                assert code == 0, out + err
                assert ended(factory)[0] == 0
            finally:
                edge.kill()
                factory.kill()
            assert "the sums close" in out
            assert re.search(r"^rows [\d,]+ = accepted [\d,]+", out, re.MULTILINE)
            assert "waiting" not in out and "dropped" not in out and "dead" not in out
            rows = recorded(tmp_path / "e.beilun")
            assert len(rows) > 7_000
            assert stored(store) == rows  # to the last revision of each

    @pytest.mark.needs_victoria_metrics
    def test_a_sender_killed_at_any_point_is_continued(self, tmp_path: Path) -> None:
        path = tmp_path / "a.beilun"
        books = Books(path)
        with books.recording:
            books.recording.set_meta({"edge": json.dumps({"windows": ["1h"]})})
            books.store.write([row(n, float(n)) for n in range(20_000)])
        with running_victoria(tmp_path / "vm") as store, before(store.url) as front:
            behaviours = iter(["passes", "late", "passes", "late"])
            front.late_s = 0.5
            front.behaves = lambda: next(behaviours, "passes")
            words = ("store", "send", "a.beilun", "--store", front.url)
            for least, more in ((1, ("--all",)), (2, ())):
                sender = beilun(tmp_path, *words, *more)
                # It is killed while an answer is under way: taken there, and not noted here.
                wait_for(lambda least=least: front.requests == 2 * least)
                sender.kill()
                assert ended(sender)[0] == -9
            code, out, err = ended(beilun(tmp_path, *words))
            assert code == 0, out + err
            assert re.search(r"rows 20,000 = accepted 20,000[;\n]", out), out
            read = {key[3] * 1_000_000: value for key, value in store.read().items()}
        assert read == {START_NS + n * HOUR_NS: float(n) for n in range(20_000)}


class Hour:
    """An hour in which nobody waits: the forwarder's waits only move a clock."""

    def __init__(self, books: Books, forwarder: Forwarder) -> None:
        self._books, self._forwarder = books, forwarder
        self.waits: list[float] = []

    async def passes(self, until_s: float) -> None:
        """A row a second is made meanwhile."""
        while self._books.now_s < until_s:
            wait_s = await self._forwarder.step()
            if wait_s is None:
                continue
            self.waits.append(wait_s)
            first, self._books.now_s = self._books.now_s, self._books.now_s + wait_s
            seconds = range(int(first) + 1, int(self._books.now_s) + 1)
            self._books.store.write([row(second - BEGAN_S, float(second)) for second in seconds])


@pytest.mark.needs_victoria_metrics
class TestOutage:
    def test_an_hour_without_the_server_costs_a_minute_at_most_and_no_row(
        self, books: Books, tmp_path: Path
    ) -> None:
        with running_victoria(tmp_path / "vm") as store, closing(server_at(store.url)) as server:
            forwarder = Forwarder(books.outbox, server, keep_s=60.0)
            hour = Hour(books, forwarder)
            began_s = books.now_s
            asyncio.run(hour.passes(began_s + 10))
            store.kill()
            hour.waits.clear()
            asyncio.run(hour.passes(began_s + 3_600))
            waits = [wait_s for wait_s in hour.waits if wait_s != forward.LOOK_S]
            assert 60 < len(waits) < 150
            for wait_s, most_s in zip(waits, [0.5 * 2**n for n in range(7)], strict=False):
                assert most_s / 2 <= wait_s <= most_s  # twice as long each time, less at random
            assert all(30 <= wait_s <= 60 for wait_s in waits[8:])
            counts = books.outbox.counts()
            assert counts.closes and counts.queued == int(books.now_s) - int(began_s)
            assert 0 < counts.accepted <= 10 and counts.waiting == counts.queued - counts.accepted
            assert forwarder.state == "waiting" and "refused" in forwarder.trouble
            books.recording.db.execute("UPDATE outbox SET made_s = made_s - 3600 WHERE times = 0")
            assert re.fullmatch(
                r"3,\d\d\d rows wait, the oldest for 1h\d?s? \(no answer: .*refused.*\)",
                remote.waiting(forwarder),
            )
            store.start()
            asyncio.run(hour.passes(books.now_s + 61))
            assert forwarder.state == "sending"
            counts = books.outbox.counts()
            assert counts.closes and counts.waiting <= 1 and counts.accepted + 1 >= counts.queued
            assert len(store.read()) == counts.accepted

    def test_what_is_more_than_its_bound_is_dropped_oldest_first_and_counted(
        self, tmp_path: Path
    ) -> None:
        books = Books(tmp_path / "a.beilun", most=100)
        with books.recording, closing(server_at(f"http://127.0.0.1:{free_port()}")) as server:
            forwarder = Forwarder(books.outbox, server, keep_s=60.0)
            asyncio.run(Hour(books, forwarder).passes(books.now_s + 600))
            send_once(books, server)
            counts = books.outbox.counts()
            assert counts.closes and counts.waiting == 100 and counts.dropped == counts.queued - 100
            [oldest, *_] = books.outbox.pending(100)
            assert oldest.window_start_ns == START_NS + (counts.queued - 100 + 1) * HOUR_NS
            assert "dropped" in remote.lines(forwarder)[1]
            assert remote.exit_code(forwarder) == 4

    @pytest.mark.parametrize("how", ["late", "cut"])
    def test_what_was_taken_without_a_word_is_sent_again_and_not_doubled(
        self, books: Books, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(forward, "BACKOFF_S", (0.01, 0.05))
        books.store.write([row(n, float(n)) for n in range(2_000)])
        with running_victoria(tmp_path / "vm") as store, before(store.url) as front:
            turns = iter([how, "passes", how, how])
            front.behaves = lambda: next(turns, "passes")
            front.late_s = 0.6
            server = Server(front.url, bucket="beilun", timeout_ns=NS_PER_S // 4)
            with closing(server):
                done = send(books, server, batch=500)
            counts = done.outbox.counts()
            assert counts.closes and counts.accepted == 2_000 and front.requests >= 7
            assert len(store.read()) == 2_000

    def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(
        self, books: Books, victoria: Victoria
    ) -> None:
        books.store.write([row(n, asset="busy") for n in range(10)])
        with before(victoria.url) as front, closing(server_at(front.url)) as server:
            front.behaves = lambda: "busy"
            forwarder = Forwarder(books.outbox, server, keep_s=60.0)
            hour = Hour(books, forwarder)
            asyncio.run(hour.passes(books.now_s + 70))
            assert set(hour.waits) == {7.0} and front.requests == 10
            assert "503" in forwarder.trouble and forwarder.state == "waiting"
            front.behaves = lambda: "passes"
            asyncio.run(hour.passes(books.now_s + 1))
            assert books.outbox.counts().accepted >= 80 and forwarder.state == "sending"


@pytest.mark.needs_victoria_metrics
def test_a_wrong_token_stops_it_says_so_and_the_right_one_sends_all(
    tmp_path: Path, victoria: Victoria
) -> None:
    path = tmp_path / "a.beilun"
    books = Books(path)
    with books.recording:
        books.recording.set_meta({"edge": json.dumps({"windows": ["1h"]})})
        books.store.write([row(n, asset="token") for n in range(700)])
    with before(victoria.url) as front:
        front.token = "right"
        words = ("store", "send", "a.beilun", "--store", front.url)
        code, out, err = ended(beilun(tmp_path, *words, BEILUN_STORE__TOKEN="wrong"))
        assert code == 4
        assert "rows 700 = accepted 0 + waiting 700" in out
        assert "401" in out and "nothing is sent there any more" in err
        assert "wrong" not in out + err  # the token itself is told to nobody
        asked = front.requests
        assert asked == 1  # and it is not tried again
        code, out, err = ended(beilun(tmp_path, *words, BEILUN_STORE__TOKEN="right"))
        assert code == 0, out + err
        assert "rows 700 = accepted 700" in out
    read = victoria.read()
    assert sum(key[0] == "s/a/l/token" for key in read) == 700


class TestVisible:
    def test_backlog_and_age_are_in_the_line_of_progress(self, books: Books) -> None:
        assert str(remote.Backlog(None)) == ""
        with closing(server_at(f"http://127.0.0.1:{free_port()}")) as server:
            forwarder = Forwarder(books.outbox, server, keep_s=60.0)
            assert str(remote.Backlog(forwarder)) == "  store: nothing waits"
            books.store.write([row(n) for n in range(1_234)])
            books.recording.db.execute("UPDATE outbox SET made_s = made_s - 90")
            asyncio.run(forwarder.step())
            assert re.fullmatch(
                r"  store: 1,234 rows wait, the oldest for 1m3[01]s \(no answer: .*refused.*\)",
                str(remote.Backlog(forwarder)),
            )

    def test_a_service_tells_while_rows_wait_and_when_none_do_any_more(
        self, books: Books, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(remote, "TOLD_S", 0.05)
        console.setup()
        with closing(server_at(f"http://127.0.0.1:{free_port()}")) as server:
            forwarder = Forwarder(books.outbox, server, keep_s=60.0)

            async def main() -> None:
                async with remote.telling(forwarder):
                    await asyncio.sleep(0.2)
                    books.store.write([row(n) for n in range(7)])
                    await asyncio.sleep(0.2)
                    books.outbox.accepted(books.outbox.pending(9))
                    await asyncio.sleep(0.2)

            asyncio.run(main())
        said = capsys.readouterr().err.splitlines()
        assert said[0] == "store: 7 rows wait, the oldest for 0s"
        assert said[-1] == "store: nothing waits" and said.count("store: nothing waits") == 1
