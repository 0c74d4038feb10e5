"""Whatever others put on the broker or into a file: the run goes on, and says what it refused."""

import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from config.units import NS_PER_S, parse_time
from ingest.broker import Broker, BrokerAddress, free_port
from ingest.recording import KEPT_REJECTS

Message = tuple[str, bytes | dict[str, object]]

BEILUN = (sys.executable, "-m", "beilun")
QUIET = {k: v for k, v in os.environ.items() if not k.startswith("BEILUN_")}
LENGTH = "5m"

START_NS = parse_time("2026-01-05T00:00:00Z")
DATA = "beilun/v1/ningbo/casting/line1/dcm01/process"
PROGRESS = "beilun/v1/ningbo/_link/{}/progress"
CONFIRM = "beilun/v1/ningbo/_link/casting/confirm"
SAMPLE: dict[str, object] = {"t_ns": START_NS, "ch": {"state": [6]}}
DEEP = b"[" * 100_000

NOT_JSON: list[Message] = [
    (DATA, b"hello"),
    (DATA, b""),
    (DATA, b"\x00\xff\xfe" * 100),
    (DATA, b'{"t_ns": 1767571200000000000, "ch": {"state": [NaN]}}'),
    (DATA, b'{"t_ns": 1767571200000000000, "ch": {"state": [6'),
    (PROGRESS.format("casting"), b""),
]
BAD_SHAPE: list[Message] = [
    (DATA, DEEP),
    (DATA, b"null"),
    (DATA, b'{"t_ns": ' + b"9" * 5_000 + b', "ch": {"state": [6]}}'),
    (DATA, b'{"t_ns": 1767571200000000000, "ch": {"state": [1e400]}}'),
    (DATA, {"t_ns": "now", "ch": {"state": [6]}}),
    (DATA, {"t_ns": START_NS, "ch": {"state": ["running"]}}),
    (DATA, {"t_ns": START_NS, "ch": {}}),
    (DATA, {"t_ns": START_NS, "ch": {"state": [1, 2]}}),
    (DATA, {"t_ns": START_NS, "ch": {"state": [1], "produced": [1, 2]}}),
    (DATA, {"t_ns": START_NS, "after_ns": [5, 0], "ch": {"state": [1, 2]}}),
    (DATA, {**SAMPLE, "x_beilun": 5}),
    (DATA, {**SAMPLE, "x_beilun": {"run": 5}}),
    (PROGRESS.format("casting"), DEEP),
    (PROGRESS.format("casting"), b"{}"),
    ("uagv/v2/a/b/state", DEEP),
    ("uagv/v2/a/b/state", b"{}"),
    ("uagv/v2/a/b/connection", b"[]"),
]
ABSURD_TIME: list[Message] = [
    (DATA, {"t_ns": 1, "ch": {"state": [6]}}),
    (DATA, {"t_ns": -START_NS, "ch": {"state": [6]}}),
    (DATA, {"t_ns": 9 * 10**18, "ch": {"state": [6]}}),
]
UNKNOWN_TOPIC: list[Message] = [
    ("beilun/v1/ningbo/casting/line1/dcm01/nonsense", SAMPLE),
    ("beilun/v1/n b/é/line1/😀/process", SAMPLE),
    ("beilun/v1/////process", SAMPLE),
]
TOO_LARGE: list[Message] = [(DATA, b"x" * 1_000_000)]
OTHER_RUN: list[Message] = [
    (DATA, SAMPLE),
    (DATA.replace("process", "birth"), {"kind": "casting_cell", "t_ns": START_NS, "ch": {}}),
]
GARBAGE = {
    "not_json": NOT_JSON,
    "bad_shape": BAD_SHAPE,
    "absurd_time": ABSURD_TIME,
    "unknown_topic": UNKNOWN_TOPIC,
    "too_large": TOO_LARGE,
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest that five minutes give when nobody interferes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    # Its expectations may be for a longer run.
    out, _ = beilun("run", "quickstart", "--for", LENGTH, folder=folder, expect=(0, 1))
    return digest_of(out)


@contextmanager
def started(*words: str, folder: Path) -> Generator[subprocess.Popen[str]]:
    """A command in the background, gone when the block is left."""
    with subprocess.Popen(
        [*BEILUN, *words], cwd=folder, env=QUIET, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def beilun(*words: str, folder: Path, expect: Iterable[int] = (0,)) -> tuple[str, str]:
    with started(*words, folder=folder) as process:
        return ended(process, expect)


def ended(process: subprocess.Popen[str], expect: Iterable[int] = (0,)) -> tuple[str, str]:
    out, err = process.communicate(timeout=60)
    assert process.returncode in expect, out + err
    return out, err


def digest_of(text: str) -> str:
    found = re.findall(r"digest ([0-9a-f]{64})", text)
    assert found, text
    return str(found[-1])


@contextmanager
def intruder(address: BrokerAddress, run: str) -> Generator[mqtt.Client]:
    """Somebody else on the broker, who acts once the run is on the air."""
    heard = threading.Event()

    def on_message(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        if not message.retain and run.encode() in message.payload:
            heard.set()

    def on_connect(client: mqtt.Client, *_: Any) -> None:
        client.subscribe(PROGRESS.format("+"))

    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
    client.on_message, client.on_connect = on_message, on_connect
    client.connect(address.host, address.port)
    client.loop_start()
    try:
        assert heard.wait(30)
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def disturb(client: mqtt.Client, messages: Iterable[Message]) -> None:
    sent = [
        client.publish(topic, body if isinstance(body, bytes) else json.dumps(body).encode(), qos=1)
        for topic, body in messages
    ]
    for info in sent:
        info.wait_for_publish(20)
        assert info.is_published()


def disturbed(broker: Broker, run: str, messages: Iterable[Message], folder: Path) -> str:
    """What an edge prints of a run during which these messages came."""
    words = ("--broker", str(broker.address), "--run", run)
    pace = ("--for", LENGTH, "--speed", "100")
    with (
        started("edge", "--once", "-o", "f.beilun", *words, folder=folder) as edge,
        started("simulate", *pace, *words, folder=folder) as simulating,
    ):
        with intruder(broker.address, run) as client:
            disturb(client, messages)
        out, _ = ended(edge)
        ended(simulating)
    return out


def rejects(folder: Path) -> tuple[dict[str, int], int, int]:
    """Refused messages by reason, how many were kept, and the most bytes kept of one."""
    db = sqlite3.connect(f"{(folder / 'f.beilun').as_uri()}?mode=ro", uri=True)
    try:
        counts = dict(db.execute("SELECT entry, messages FROM ledger WHERE side = 'unusable'"))
        kept, head = db.execute("SELECT count(*), max(length(head)) FROM reject").fetchone()
        explained = db.execute("SELECT count(*) FROM reject WHERE detail = ''").fetchone()[0] == 0
    finally:
        db.close()
    assert explained
    return counts, kept, head


def test_garbage_is_refused_with_a_reason_and_changes_nothing(
    broker: Broker, undisturbed: str, tmp_path: Path
) -> None:
    messages = [m for some in GARBAGE.values() for m in some] + OTHER_RUN
    out = disturbed(broker, f"garbage-{broker.kind}", messages, tmp_path)
    assert digest_of(out) == undisturbed
    assert "the sums close" in out
    counts, kept, head = rejects(tmp_path)
    assert counts == {reason: len(some) for reason, some in GARBAGE.items()}
    assert kept == sum(counts.values())
    assert head <= 512
    other_run = re.search(r"other_run (\d+)", out)
    assert other_run is not None
    assert int(other_run[1]) >= len(OTHER_RUN)
    replayed, _ = beilun("replay", "f.beilun", folder=tmp_path)
    assert digest_of(replayed) == undisturbed


@pytest.mark.needs_mosquitto
@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_a_flood_of_garbage_is_counted_and_a_bounded_part_kept(
    broker: Broker, undisturbed: str, tmp_path: Path
) -> None:
    flood = [(DATA, b"no %d" % i) for i in range(2 * KEPT_REJECTS)]
    out = disturbed(broker, "flood", flood, tmp_path)
    assert digest_of(out) == undisturbed
    counts, kept, _ = rejects(tmp_path)
    assert counts == {"not_json": len(flood)}
    assert kept == KEPT_REJECTS


@pytest.mark.needs_mosquitto
@pytest.mark.parametrize("broker", ["mosquitto"], indirect=True)
def test_forged_words_of_the_protocol_change_nothing(
    broker: Broker, undisturbed: str, tmp_path: Path
) -> None:
    """An end of a connection nobody knows, one of another run, and confirms no edge ever gave."""
    said: dict[str, object] = {
        "run": "forged", "arrival_ns": START_NS + 10 * NS_PER_S, "next_cseq": 1, "made": 0,
        "lost": {}, "shed": 0, "end": True,
    }  # fmt: skip
    forged: list[Message] = [
        (PROGRESS.format("nobody"), said),
        (PROGRESS.format("casting"), {**said, "run": "another"}),
        (PROGRESS.format("casting"), {**said, "run": "another", "made": 10**9}),
        (CONFIRM, DEEP),
        (CONFIRM, {"run": "forged", "edge": 5, "cseq": -1}),
        (CONFIRM, {"run": "another", "edge": "evil", "cseq": 10**9}),
    ]
    out = disturbed(broker, "forged", forged, tmp_path)
    assert digest_of(out) == undisturbed
    assert "the sums close" in out


def test_all_mistakes_of_a_scenario_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'summary = "mistaken"\nplant = "quikstart"\nnetwork = "private-6g"\nlenght = "8h"\n'
        'length = "8"\n[edge]\nlateness = "-2s"\n'
        '[[expect]]\nkpi = "oe"\nop = ">="\nvalue = 0.5\n'
    )
    _, told_all = beilun("run", "mine.toml", folder=tmp_path, expect=(3,))
    lines = told_all.splitlines()
    assert lines[0] == "error: mine.toml: 6 problems"
    for told in (
        "did you mean quickstart?", "did you mean private-5g?", "did you mean length?",
        "got '8' [duration, like 90s or 1h30m]", "got '-2s' [duration, like 90s or 1h30m]",
        "did you mean oee?",
    ):  # fmt: skip
        assert sum(told in line for line in lines) == 1, told
    assert not (tmp_path / "runs").exists()


def test_a_run_without_its_broker_leaves_nothing_behind(tmp_path: Path) -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    words = ("run", "quickstart", "--broker", url, "-o", "a.beilun")
    out, err = beilun(*words, folder=tmp_path, expect=(4,))
    assert "no MQTT broker answers" in err
    assert "hint: start one there" in err
    assert out == ""
    assert not list(tmp_path.iterdir())
