"""Restarts of the broker, done for real in the middle of a run: nothing lost, nothing twice."""

import asyncio
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from beilun.offline import run_offline
from beilun.upsets import upset
from config.errors import BeilunError
from config.scenario import find_scenario
from config.units import NS_PER_S
from edge.pipeline import Pipeline
from ingest.broker import Broker, Kind, running_broker
from ingest.recording import Recording

KINDS = [pytest.param("mosquitto", marks=pytest.mark.needs_mosquitto), "embedded"]
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("BEILUN_")}

SCENARIO = """\
plant = "quickstart"
network = "private-5g"
length = "10m"
alarms = { file = "none" }
[[fault]]
kind = "broker_restart"
after = "2m"
length = "8s"
[[fault]]
kind = "broker_restart"
after = "5m"
length = "3s"
"""


def beilun(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "beilun", *words], cwd=folder, env=ENVIRONMENT,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A scenario with restarts, and the digest of its rows where there is no broker at all."""
    folder = tmp_path_factory.mktemp("upsets")
    path = folder / "restarts.toml"
    path.write_text(SCENARIO)
    outcome = run_offline(find_scenario(path), folder / "offline.beilun")
    assert outcome.ending.account.ledger.late > 0
    return path, outcome.ending.digest


@pytest.mark.parametrize("speed", ["max", "150"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_whose_broker_is_killed_has_the_rows_and_the_truth_of_one_without_a_broker(
    kind: Kind, speed: str, written: tuple[Path, str], tmp_path: Path
) -> None:
    path, digest = written
    words = ("run", str(path), "--broker", kind, "--speed", speed, "-o", "a.beilun")
    done = beilun(tmp_path, *words)
    assert re.findall(r"(\S+): killing the broker", done.stderr) == ["2m", "5m"]
    assert f"digest {digest}" in done.stdout
    assert "the sums close" in done.stdout
    assert "lost 0 + shed 0" in done.stdout
    scored = [
        json.loads(line)
        for line in beilun(tmp_path, "score", "a.beilun", "--json").stdout.splitlines()
    ]
    assert sum(line["rows"] for line in scored) > 400
    assert not [line for line in scored if not line["kept"]]
    moved = {line["kpi"] for line in scored if line["mae"]}
    told = ("delay_p", "clock_skew", "agv_battery")  # in bins, or from time to time
    assert all(any(name in kpi for name in told) for kpi in moved)


class Clock:
    """The part of a pipeline that says what time it is."""

    def __init__(self) -> None:
        self.engine = SimpleNamespace(watermark_ns=None)

    def set(self, t_ns: int) -> None:
        self.engine.watermark_ns = t_ns


@pytest.mark.parametrize("kind", KINDS)
def test_each_restart_happens_once_when_its_time_has_come(
    kind: Kind, written: tuple[Path, str], workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = find_scenario(written[0])
    clock = Clock()

    async def main(broker: Broker) -> None:
        first = broker.pid
        clock.set(scenario.start + 119 * NS_PER_S)
        task = asyncio.create_task(upset(scenario, cast("Pipeline", clock), broker))
        await asyncio.wait((task,), timeout=0.1)
        assert not task.done()
        assert broker.pid == first
        clock.set(scenario.start + 10_000 * NS_PER_S)  # past both of them at once
        await asyncio.wait_for(task, 20)
        assert broker.pid != first
        assert broker.alive()

    with running_broker(kind, workdir) as broker:
        asyncio.run(main(broker))
    told = capsys.readouterr().err
    assert re.findall(r"(\S+): killing the broker", told) == ["2m", "5m"]
    assert "was over" not in told


def test_what_a_run_did_not_live_to_see_is_told(
    written: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = find_scenario(written[0])
    clock = Clock()

    async def main(broker: Broker | None) -> None:
        task = asyncio.create_task(upset(scenario, cast("Pipeline", clock), broker))
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait((task,))

    asyncio.run(main(cast("Broker", object())))
    assert "before its broker could be restarted at 2m, 5m" in capsys.readouterr().err
    asyncio.run(main(None))
    assert "not ours to restart" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_a_broker_that_cannot_come_back_is_told_and_is_not_alive(
    kind: Kind,
    written: tuple[Path, str],
    workdir: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scenario = find_scenario(written[0])
    clock = Clock()
    clock.set(scenario.start + 130 * NS_PER_S)
    with running_broker(kind, workdir) as broker:
        monkeypatch.setattr("ingest.broker.sys.executable", "/bin/false")
        asyncio.run(upset(scenario, cast("Pipeline", clock), broker))
        assert not broker.alive()
    assert "did not come back" in capsys.readouterr().err


@pytest.mark.needs_mosquitto
def test_a_run_gives_up_a_broker_that_does_not_come_back_and_keeps_what_it_has(
    tmp_path: Path,
) -> None:
    with running_broker("mosquitto", tmp_path) as broker:
        run = subprocess.Popen(
            [
                sys.executable, "-m", "beilun", "run", "quickstart", "--speed", "20",
                "--broker", f"mqtt://{broker.address.host}:{broker.address.port}", "-o", "a.beilun",
            ],
            cwd=tmp_path, env=ENVIRONMENT | {"BEILUN_BROKER__PATIENCE": "1s"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not _has_blocks(tmp_path / "a.beilun"):
            assert time.monotonic() < deadline and run.poll() is None
            time.sleep(0.05)
        broker.stop()
        _, told = run.communicate(timeout=60)
    assert run.returncode == 4, told
    assert "went away and was not there again for 1 s" in told
    assert _has_blocks(tmp_path / "a.beilun")


def _has_blocks(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        with Recording.open(path) as recording:
            return next(iter(recording.db.execute("SELECT 1 FROM block")), None) is not None
    except (BeilunError, sqlite3.Error):
        return False
