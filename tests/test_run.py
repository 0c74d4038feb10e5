"""Whole runs through the console script: processes, brokers, speeds, signals, exit codes."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.broker import Broker, free_port

BEILUN = (sys.executable, "-m", "beilun")
QUIET = {k: v for k, v in os.environ.items() if not k.startswith("BEILUN_")}


def beilun(*words: str, folder: Path, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*BEILUN, *words], cwd=folder, env=QUIET, capture_output=True, text=True, timeout=180,
        check=False,
    )  # fmt: skip
    assert expect is None or done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def start(*words: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*BEILUN, *words], cwd=folder, env=QUIET, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], expect: int | None = 0) -> tuple[str, str]:
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert expect is None or process.returncode == expect, out + err
    assert "Traceback" not in err
    return out, err


def digest_of(text: str) -> str:
    found = re.findall(r"digest ([0-9a-f]{64})", text)
    assert found, text
    return str(found[-1])


def run(folder: Path, *words: str, length: str = "5m") -> str:
    """The digest of a run; its expectations are for a longer one."""
    done = beilun("run", "quickstart", "--for", length, *words, folder=folder, expect=None)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert "the sums close" in done.stdout
    return digest_of(done.stdout)


@pytest.mark.needs_mosquitto
def test_both_brokers_and_two_processes_give_the_same_digest(
    tmp_path: Path, broker: Broker
) -> None:
    reference = run(tmp_path, "--broker", "embedded")
    assert run(tmp_path, "--broker", "mosquitto") == reference
    url = f"mqtt://{broker.address.host}:{broker.address.port}"
    simulating = start("simulate", "--for", "5m", "--broker", url, folder=tmp_path)
    edge = start("edge", "--once", "--broker", url, "-o", "two.beilun", folder=tmp_path)
    out, _ = finish(edge)
    _, told = finish(simulating)
    assert "the sums close" in out
    assert digest_of(out) == reference
    own = re.search(r"wrote (\S+\.sim)", told)
    assert own is not None
    scored = beilun("score", "two.beilun", "--truth", own[1], "--json", folder=tmp_path)
    assert {json.loads(line)["kpi"] for line in scored.stdout.splitlines()} >= {"oee", "line_speed"}


@pytest.mark.slow
def test_the_digest_is_the_same_at_every_speed(tmp_path: Path) -> None:
    digests = {run(tmp_path, "--speed", speed, length="20s") for speed in ("1", "60", "max")}
    assert len(digests) == 1


def test_replay_gives_the_bits_of_the_run_and_tells_what_moved(tmp_path: Path) -> None:
    live = run(tmp_path, "-o", "a.beilun")
    replayed = beilun("replay", "a.beilun", folder=tmp_path, expect=None)
    assert digest_of(replayed.stdout) == live
    assert "the same as when it was recorded" in replayed.stderr
    beilun("replay", "a.beilun", "--golden", "golden.ndjson", folder=tmp_path, expect=None)
    same = beilun("replay", "a.beilun", "--expect", "golden.ndjson", folder=tmp_path)
    assert "PASS" in same.stdout
    beilun("replay", "a.beilun", "--expect", "a.beilun", folder=tmp_path)

    lines = (tmp_path / "golden.ndjson").read_text().splitlines()
    place = next(i for i, line in enumerate(lines) if '"delay_p50"' in line)
    row = json.loads(lines[place])
    row[7] = row[7] * 1.5
    lines[place] = json.dumps(row)
    (tmp_path / "moved.ndjson").write_text("\n".join(lines) + "\n")
    moved = beilun(
        "replay", "a.beilun", "--expect", "moved.ndjson", "--junit", "out.xml",
        folder=tmp_path, expect=1,
    )  # fmt: skip
    assert "delay_p50: 1 rows moved" in moved.stdout
    words = ("replay", "a.beilun", "--expect", "moved.ndjson", "--json")
    [told] = beilun(*words, folder=tmp_path, expect=1).stdout.splitlines()
    assert (json.loads(told)["kpi"], json.loads(told)["rows"]) == ("delay_p50", 1)
    assert 'failures="1"' in (tmp_path / "out.xml").read_text()


def test_a_cut_recording_says_so_and_can_be_salvaged(tmp_path: Path) -> None:
    run(tmp_path, "-o", "a.beilun")
    path = tmp_path / "a.beilun"
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 2 // 3)
    broken = beilun("replay", "a.beilun", folder=tmp_path, expect=3)
    assert "--salvage" in broken.stderr
    saved = beilun("replay", "a.beilun", "--salvage", folder=tmp_path, expect=None)
    assert digest_of(saved.stdout)


def test_rows_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    words = ("run", "quickstart", "--for", "3m", "--speed", "30", "-o", "a.beilun")
    running = start(*words, folder=tmp_path)
    path, seen = tmp_path / "a.beilun", 0
    while running.poll() is None and not seen:
        if path.exists():
            db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
            try:
                seen = db.execute("SELECT count(*) FROM kpi_rows").fetchone()[0]
            except sqlite3.OperationalError:
                pass  # its tables are not there yet
            finally:
                db.close()
    still_running = running.poll() is None
    if still_running:
        shown = beilun("watch", "a.beilun", "--once", folder=tmp_path)
        assert "dcm01" in shown.stdout
    finish(running, expect=None)
    assert seen
    assert still_running


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_drains_and_reports(number: signal.Signals, code: int, tmp_path: Path) -> None:
    words = ("run", "quickstart", "--speed", "60", "-o", "a.beilun")
    running = start(*words, folder=tmp_path)
    while running.poll() is None and not _blocks(tmp_path / "a.beilun"):
        pass
    running.send_signal(number)
    out, _ = finish(running, expect=code)
    assert "the sums close" in out
    replayed = beilun("replay", "a.beilun", folder=tmp_path, expect=None)
    assert digest_of(replayed.stdout) == digest_of(out)


def test_no_broker_is_told_with_what_to_try(tmp_path: Path) -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    for words in (("run", "quickstart"), ("simulate",), ("edge",)):
        failed = beilun(*words, "--broker", url, folder=tmp_path, expect=4)
        assert "hint:" in failed.stderr
        assert url.removeprefix("mqtt://") in failed.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_factory_without_an_edge_can_be_stopped(
    number: signal.Signals, code: int, broker: Broker, tmp_path: Path
) -> None:
    """Nobody confirms; told to stop it waits a while, and still writes down what it knows."""
    url = f"mqtt://{broker.address.host}:{broker.address.port}"
    words = ("simulate", "--for", "1h", "--broker", url, "--own", "own.sim")
    running = start(*words, folder=tmp_path)
    assert running.stderr is not None
    assert "10 devices" in running.stderr.readline()
    running.send_signal(number)
    _, told = finish(running, expect=code)
    assert "wrote own.sim" in told
    assert (tmp_path / "own.sim").exists()


def test_a_run_whose_broker_dies_says_so(tmp_path: Path) -> None:
    words = ("run", "quickstart", "--speed", "20", "--broker", "embedded", "-o", "a.beilun")
    running = start(*words, folder=tmp_path)
    path = tmp_path / "a.beilun"
    while running.poll() is None and not _blocks(path):
        pass
    threads = Path(f"/proc/{running.pid}/task").iterdir()
    children = [c for thread in threads for c in (thread / "children").read_text().split()]
    serving = [c for c in children if b"ingest.broker" in Path(f"/proc/{c}/cmdline").read_bytes()]
    os.kill(int(serving[0]), signal.SIGKILL)
    _, told = finish(running, expect=4)
    assert "the broker of this run has died" in told


def _blocks(path: Path) -> int:
    if not path.exists():
        return 0
    db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        return int(db.execute("SELECT count(*) FROM block").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # its tables are not there yet
    finally:
        db.close()
