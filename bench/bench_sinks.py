"""The remote store: rows a second into VictoriaMetrics, and how far behind a run at full speed.

    pytest bench/bench_sinks.py --benchmark-only -p no:xdist -s

Both read back what is stored: a figure for rows that were lost or doubled would be worth nothing.
"""

import asyncio
import os
import re
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from config.units import NS_PER_S
from config.windows import Every
from edge.rows import Row
from edge.sinks.forward import Forwarder, forwarding
from edge.sinks.influx import Server
from edge.sinks.outbox import Outbox
from edge.store import RowStore
from ingest.messages import Asset
from ingest.recording import Recording
from tests.servers import Victoria, running_victoria

pytestmark = pytest.mark.needs_victoria_metrics

MINUTE_NS = 60 * NS_PER_S
START_NS = 1_546_300_800 * NS_PER_S
ASSETS, KPIS, MINUTES = 50, 20, 100
ROWS = ASSETS * KPIS * MINUTES
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("BEILUN_")}


@pytest.fixture
def victoria(tmp_path: Path) -> Iterator[Victoria]:
    with running_victoria(tmp_path / "vm") as server:
        yield server


def test_outbox_into_victoria_metrics(
    benchmark: BenchmarkFixture, victoria: Victoria, tmp_path: Path
) -> None:
    """100,000 rows that wait, as after an outage, until the last is accepted."""
    with (
        Recording.create(tmp_path / "a.beilun") as recording,
        closing(Server(victoria.url, bucket="b", timeout_ns=10 * NS_PER_S)) as server,
    ):
        store, outbox = RowStore(recording), Outbox(recording, [Every(MINUTE_NS)], most=10 * ROWS)
        store.prepare()
        outbox.prepare()
        store.write(
            Row(Asset("s", "a", "l", f"m{asset}"), f"kpi{kpi}", START_NS + minute * MINUTE_NS,
                MINUTE_NS, float(minute), 60, 0, "1")
            for minute in range(MINUTES) for asset in range(ASSETS) for kpi in range(KPIS)
        )  # fmt: skip
        forwarder = Forwarder(outbox, server, keep_s=60.0)

        async def send() -> None:
            async with forwarding(forwarder):
                pass

        benchmark.pedantic(lambda: asyncio.run(send()), rounds=1)
        counts = outbox.counts()
    read = victoria.read()  # it fails where a row is there twice
    assert counts.closes and counts.accepted == counts.queued == len(read) == ROWS
    assert benchmark.stats is not None
    benchmark.extra_info["rows a second"] = round(ROWS / benchmark.stats["mean"])


def test_lag_of_a_run_at_full_speed(
    benchmark: BenchmarkFixture, victoria: Victoria, tmp_path: Path
) -> None:
    """The age of the oldest row that waits, looked at twenty times a second while one hour of the
    quickstart factory runs as fast as it can."""
    words = ["run", "quickstart", "--for", "1h", "--store", victoria.url, "-o", "a.beilun", "-q"]
    ages: list[float] = []
    backlog: list[int] = []

    def run() -> str:
        process = subprocess.Popen(
            [sys.executable, "-m", "beilun", *words], cwd=tmp_path, env=ENVIRONMENT, text=True,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        while process.poll() is None:
            time.sleep(0.05)
            n, age_s = waiting(tmp_path / "a.beilun")
            backlog.append(n)
            ages.append(age_s)
        out, _ = process.communicate()
        assert process.returncode == 0, out
        return out

    out = benchmark.pedantic(run, rounds=1)
    found = re.search(r"^rows ([\d,]+) = accepted ([\d,]+)", out, re.MULTILINE)
    assert found is not None and found[1] == found[2], out
    with closing(sqlite3.connect(tmp_path / "a.beilun")) as db:
        [[rows]] = db.execute("SELECT count(*) FROM row").fetchall()
    assert len(victoria.read("known")) == rows  # none lost, none doubled
    benchmark.extra_info |= {
        "rows": rows, "worst age of a waiting row, s": round(max(ages), 2),
        "median age, s": round(statistics.median(ages), 2), "most rows waiting": max(backlog),
    }  # fmt: skip


def waiting(path: Path) -> tuple[int, float]:
    """How many rows of a recording wait, and the age of the oldest in seconds."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            n, made_s = db.execute(
                "SELECT count(*), min(made_s) FROM outbox WHERE accepted_s IS NULL"
            ).fetchone()
    except sqlite3.OperationalError:  # it is not there yet
        return 0, 0.0
    return int(n), 0.0 if made_s is None else max(0.0, time.time() - float(made_s))
