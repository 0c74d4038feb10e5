"""What the page costs: changes noted per row, the feed with 100 followers, a week of data opened.

`python bench/bench_serving.py` prints all of it; `--week FILE` keeps the recording of a week that
is made for it (an hour of the quickstart factory 168 times over, some 1 GB).
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from beilun.offline import run_offline
from beilun.serving.reading import Reader
from config.scenario import find_scenario
from config.units import NS_PER_S
from edge.rows import Row
from edge.store import RowStore
from ingest.messages import Asset
from ingest.recording import Recording

T = TypeVar("T")
START_NS = 1_767_571_200 * NS_PER_S
MINUTE_NS, HOUR_NS = 60 * NS_PER_S, 3_600 * NS_PER_S
FOLLOWERS = 100
RATE = 200
"""Rows a second: 15 times what the quickstart factory's edge writes in real time."""
WEEK_H = 168


def say(*words: object) -> None:
    """For whoever runs it."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")


def rows(n: int) -> list[Row]:
    """Rows of 500 series, in batches as windows close."""
    return [
        Row(Asset("s", "a", "l", f"m{k % 500:03d}"), "oee", START_NS + k // 500 * MINUTE_NS,
            MINUTE_NS, 0.5, 60, 0, "1")
        for k in range(n)
    ]  # fmt: skip


def write(folder: Path, n: int, *, told: bool) -> float:
    """Microseconds a row, with changes noted or not."""
    made = rows(n)
    path = folder / f"{told}.beilun"
    path.unlink(missing_ok=True)
    with Recording.create(path) as recording:
        store = RowStore(recording)
        store.prepare()
        if not told:
            for name in ("row_INSERT", "row_UPDATE", "gone_INSERT", "gone_UPDATE"):
                recording.db.execute(f"DROP TRIGGER tell_{name}")
        recording.db.execute("PRAGMA synchronous=OFF")  # the disk of this machine is not measured
        began = time.process_time()
        for start in range(0, n, 500):
            store.write(made[start : start + 500])
        took = time.process_time() - began
        (stored,) = recording.db.execute("SELECT count(*) FROM row").fetchone()
        (noted,) = recording.db.execute("SELECT count(*) FROM change").fetchone()
    assert stored == n
    assert noted <= 110_000 and (noted > 0) == told
    return took / n * 1e6


def test_noting_changes_costs_little(tmp_path: Path) -> None:
    without = min(write(tmp_path, 50_000, told=False) for _ in range(3))
    with_it = min(write(tmp_path, 50_000, told=True) for _ in range(3))
    say(f"row {without:.2f} µs, and {with_it - without:.2f} µs for its change")
    assert with_it < 3 * without


# the feed ---------------------------------------------------------------------------------------

_WRITER = """
import sys, time
from pathlib import Path
from edge.rows import Row
from edge.store import RowStore
from ingest.messages import Asset
from ingest.recording import Recording
path, seconds, rate = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
with Recording.create(path) as recording:
    store = RowStore(recording)
    store.prepare()
    print(flush=True)
    sys.stdin.readline()
    began = time.time()
    for k in range(seconds * 10):
        time.sleep(max(0, began + k / 10 - time.time()))
        store.write([Row(Asset("s", "a", "l", f"m{i:03d}"), "oee", 60_000_000_000 * (k + 1),
                         60_000_000_000, time.time(), 1, 0, "1") for i in range(rate // 10)])
    sys.stdin.readline()
"""


class Follower(asyncio.Protocol):
    """Takes what comes and when; looks at it later, so as not to measure itself."""

    def __init__(self, last: int) -> None:
        self._end = b"\nid: %d\nevent: row\n" % last
        self._parts: list[tuple[float, bytes]] = []
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"GET /api/v1/feed?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        before = self._parts[-1][1][-80:] if self._parts else b""
        self._parts.append((time.time(), data))
        if self._end in before + data and not self.done.done():
            asyncio.get_running_loop().call_later(0.5, self.done.set_result, None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or EOFError("the feed was closed"))

    def late_s(self, last: int) -> list[float]:
        """Seconds from writing to reading of every row; none is missing, none there twice."""
        got: list[float] = []
        number, rest = 0, b""
        for at_s, data in self._parts:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line.startswith(b"id: "):
                    assert int(line[4:]) == number + 1, (number, line)
                    number += 1
                elif line.startswith(b"data: "):
                    at = line.index(b'"value":') + 8
                    got.append(at_s - float(line[at : line.index(b",", at)]))
        assert number == len(got) == last
        return got


async def followed(port: int, last: int) -> list[float]:
    """Seconds from writing to reading, of every row up to a last one."""
    loop = asyncio.get_running_loop()
    transport, follower = await loop.create_connection(lambda: Follower(last), "127.0.0.1", port)
    await asyncio.wait_for(follower.done, 120)
    transport.abort()
    return follower.late_s(last)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


def feed(folder: Path, followers: int, seconds: int, rate: int = RATE) -> dict[str, float]:
    """Latency of a row through the feed, and what the server uses meanwhile."""
    path = folder / f"feed{followers}.beilun"
    words = [sys.executable, "-c", _WRITER, str(path), str(seconds), str(rate)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe) as writer:
        assert writer.stdout is not None and writer.stdin is not None
        writer.stdout.readline()
        serve = [sys.executable, "-m", "beilun", "serve", str(path), "--port", "0", "--api-only"]
        with subprocess.Popen(serve, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as server:
            assert server.stdout is not None
            port = int(server.stdout.readline().strip().rstrip("/").rpartition(":")[2])

            async def main() -> list[list[float]]:
                tasks = [
                    asyncio.create_task(followed(port, seconds * rate)) for _ in range(followers)
                ]
                await asyncio.sleep(1)
                assert writer.stdin is not None
                writer.stdin.write(b"\n")
                writer.stdin.flush()
                return await asyncio.gather(*tasks)

            before, idle_mb = cpu_s(server.pid), rss_mb(server.pid)
            began = time.monotonic()
            got = asyncio.run(main())
            took = time.monotonic() - began
            used, now_mb = cpu_s(server.pid) - before, rss_mb(server.pid)
            writer.stdin.write(b"\n")
            writer.stdin.flush()
            server.terminate()
            server.wait()
    assert all(len(each) == seconds * rate for each in got)
    late = np.concatenate([np.array(each) for each in got]) * 1e3
    return {
        "rows": seconds * rate, "p50_ms": float(np.median(late)),
        "p99_ms": float(np.percentile(late, 99)), "max_ms": float(late.max()),
        "cpu_share": used / took, "grown_mb": now_mb - idle_mb,
    }  # fmt: skip


@pytest.mark.slow
def test_a_hundred_followers(tmp_path: Path) -> None:
    found = feed(tmp_path, FOLLOWERS, 10)
    say(found)
    assert found["p50_ms"] < 1_000


# a week -----------------------------------------------------------------------------------------


def make_week(path: Path, hours: int = WEEK_H) -> None:
    """An hour of the quickstart factory so many times over: its rows and blocks, moved in time."""
    run_offline(find_scenario("quickstart", changes={"length": "1h"}), path)
    with Recording.open(path) as recording:
        assert recording.meta("finished")
    import sqlite3

    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA synchronous=OFF")
        db.execute("BEGIN")
        (blocks,) = db.execute("SELECT max(id) FROM block").fetchone()
        args = [{"by": k * HOUR_NS, "n": k * blocks, "h": HOUR_NS} for k in range(1, hours)]
        for statement in (
            "INSERT INTO block SELECT id + :n, messages, samples, first_ns + :by, last_ns + :by,"
            " crc, data FROM block WHERE id <= :n AND id <= (:n / (:by / :h))",
            "INSERT INTO landmark SELECT asset, stream, block + :n, place, codec, topic,"
            " received_ns, payload FROM landmark"
            " WHERE stream <> 'birth' AND block <= (:n / (:by / :h))",
            "INSERT OR IGNORE INTO row SELECT series, window_start_ns + :by, value, n, late,"
            f" revision FROM row WHERE window_start_ns >= {START_NS}"
            f" AND window_start_ns < {START_NS} + :h",
        ):
            db.executemany(statement, args)
        db.execute("COMMIT")


def timed(what: str, call: Callable[[], T], within_s: float) -> T:
    began = time.perf_counter()
    found = call()
    took = time.perf_counter() - began
    say(f"  {what:42}{took * 1e3:9.1f} ms")
    assert took < within_s, what
    return found


def open_week(path: Path) -> None:
    """What a page asks for when it is opened, from a process that knows nothing yet."""
    from beilun.commands.replay import reader as _  # noqa: F401 - its import is not measured

    cable = Asset("ningbo", "cable", "hall1", "cl01")
    began = time.perf_counter()
    with closing(Reader(path)) as reader:
        end_ns = timed("open, and how far it goes", reader.end_ns, 2)
        hours = (end_ns - reader.start_ns) // HOUR_NS
        assets = timed("assets", reader.assets, 2)
        assert len(assets) == 20
        last = timed("last 1m windows of all KPIs", lambda: reader.last((), "1m", end_ns), 2)
        assert len(last) == 768
        timed("where the vehicles are", lambda: reader.positions(end_ns), 2)
        timed("orders", lambda: reader.orders(end_ns), 2)
        say(f"  {'all of it, which is a page':42}{(time.perf_counter() - began) * 1e3:9.1f} ms")
        assert time.perf_counter() - began < 2
        whole = timed(
            f"{hours} h of one KPI, thinned",
            lambda: reader.history(cable, "line_speed", "1m", reader.start_ns, end_ns), 2,
        )  # fmt: skip
        assert len(whole) == min(60 * hours, len(whole))
        assert len(whole) <= 2_000 or hours * 60 <= 2_000
        timed("last windows, half way", lambda: reader.last((), "1h", end_ns // 2 * 2), 2)
        day_ns = end_ns - 8 * HOUR_NS
        timed("states of 8 h", lambda: reader.states(cable, day_ns, end_ns), 10)
        timed("the same again", lambda: reader.states(cable, day_ns, end_ns), 10)


def test_a_day_of_data_opens_at_once(tmp_path: Path) -> None:
    path = tmp_path / "day.beilun"
    make_week(path, 24)
    open_week(path)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--week", type=Path, help="where the recording of a week is kept")
    asked = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        test_noting_changes_costs_little(place)
        said: Any = {n: feed(place, n, 20) for n in (1, FOLLOWERS)}
        say(f"feed, {RATE} rows/s: {json.dumps(said, indent=1)}")
        path = asked.week or place / "week.beilun"
        if not path.exists():
            make_week(path)
        say(f"{path.stat().st_size / 1e6:,.0f} MB")
        open_week(path)


if __name__ == "__main__":
    main()
