"""The remote store: nothing lost, nothing doubled, whoever dies; against real servers."""

import asyncio
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.units import NS_PER_S
from config.windows import Every
from edge.rows import Row
from edge.sinks import forward
from edge.sinks.forward import Forwarder, forwarding
from edge.sinks.influx import Later, Refused, Server, Taken
from edge.sinks.lines import line_of
from edge.sinks.outbox import Outbox
from edge.store import RowStore
from ingest.messages import Asset
from ingest.recording import Recording
from tests.servers import Influx, Victoria, free_port, running_influx, running_victoria

HOUR_NS = 3_600 * NS_PER_S
START_NS = 1_546_300_800 * NS_PER_S
WINDOWS = (Every(HOUR_NS),)
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("BEILUN_")}
TIMEOUT_NS = 5 * NS_PER_S


def row(n: int, value: float | None = 1.0, *, asset: str = "m1", gone: bool = False) -> Row:
    place = Asset("s", "a", "l", asset)
    return Row(place, "oee", START_NS + n * HOUR_NS, HOUR_NS, value, 10, 0, "1", gone=gone)


class Books:
    """A recording with a store and an outbox, as an edge has them."""

    def __init__(self, path: Path, *, most: int = 1_000_000) -> None:
        self.now_s = 1_000_000.0
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
        read = victoria.read()
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
