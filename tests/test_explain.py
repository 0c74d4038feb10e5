"""``beilun explain``: where the time of messages went, read back from a recording."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beilun.cli import main
from beilun.offline import make_factory
from config.scenario import find_scenario
from config.units import NS_PER_MS, NS_PER_S, parse_time
from ingest.recording import PARTS, Recording

START = parse_time("2026-01-05T00:00:00Z")
OUTAGE = {"kind": "outage", "after": "80s", "length": "5s"}


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three minutes of quickstart with an outage, as `run` leaves them: written, then attached."""
    folder = tmp_path_factory.mktemp("explain")
    factory = make_factory(
        find_scenario("quickstart", changes={"length": "3m", "fault": [OUTAGE]}), "r", trace=True
    )
    for _ in factory.chunks():
        pass
    tracer = factory.trace()
    assert tracer is not None
    with Recording.create(folder / "own.sim") as own:
        own.write_trace(tracer)
    with Recording.create(folder / "run.beilun") as recording:
        recording.attach(folder / "own.sim")
    return folder / "run.beilun"


def told(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["explain", *map(str, words)]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], code: int, *words: object) -> str:
    assert main(["explain", *map(str, words)]) == code
    captured = capsys.readouterr()
    assert not captured.out
    return captured.err


def lines(text: str) -> Iterator[dict[str, Any]]:
    yield from map(json.loads, text.splitlines())


def test_the_sums_of_all_hops_are_the_delay(
    traced: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = list(lines(told(capsys, traced, "--json", "--slowest", 0)))
    groups = {(line["direction"], line["slice"]) for line in found}
    assert groups == {("up", "telemetry"), ("up", "control"), ("down", "control")}
    for direction, slice in groups:
        mine = {
            line["hop"]: line for line in found
            if (line["direction"], line["slice"]) == (direction, slice)
        }  # fmt: skip
        whole = mine.pop("all")
        total = sum(line["mean_ns"] for line in mine.values())
        assert total == pytest.approx(whole["mean_ns"], rel=1e-12)
        assert len(mine) == len(PARTS)
        assert 0 < whole["p50_ns"] <= whole["p99_ns"] <= whole["max_ns"]
    with Recording.open(traced) as recording:
        delays = np.concatenate(
            [
                t.columns["arrival_ns"] - t.columns["sent_ns"]
                for t in recording.trace() if t.way == "down"
            ]
        )  # fmt: skip
    down = next(x for x in found if (x["direction"], x["hop"]) == ("down", "all"))
    assert (down["messages"], down["max_ns"]) == (len(delays), delays.max())
    assert down["mean_ns"] == pytest.approx(delays.mean(), rel=1e-12)


def test_the_slowest_are_listed_and_explain_themselves(
    traced: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = [x for x in lines(told(capsys, traced, "--json", "--slowest", 4)) if "message" in x]
    assert len(slow) == 4
    assert [x["delay_ns"] for x in slow] == sorted((x["delay_ns"] for x in slow), reverse=True)
    cut = range(START + 79 * NS_PER_S, START + 86 * NS_PER_S)
    assert all(x["sent_ns"] in cut for x in slow), "they were sent in the outage"
    for x in slow:
        (alone,) = lines(told(capsys, traced, "--message", x["message"], "--json"))
        assert {k: v for k, v in alone.items() if not k.startswith("released")} == x
        assert sum(x[part] for part in PARTS) == x["delay_ns"] == x["arrival_ns"] - x["sent_ns"]


def test_one_message_is_told_part_by_part_and_in_words(
    traced: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [x for x in lines(told(capsys, traced, "--json", "--slowest", 99)) if "message" in x]
    alone = max(
        (
            next(lines(told(capsys, traced, "--message", x["message"], "--json")))
            for x in found if x["cause"] == "outage"
        ),
        key=lambda x: len(x["released_after"]) * (not x["released_before"]),
    )  # fmt: skip
    assert len(alone["released_after"]) > 10
    text = told(capsys, traced, "--message", alone["message"])
    assert f"cell {alone['cell']}" in text
    assert f"{alone['delay_ns'] / NS_PER_MS:.3f} ms" in text
    assert "was transport" in text
    assert "Held back: its cell was off the air (outage). TCP took" in text
    assert "Released together: 0 before it" in text
    behind = told(capsys, traced, "--message", alone["released_after"][0])
    assert "behind a lost segment (TCP retransmission)" in behind
    assert f"{alone['message']} was not there: its cell was off the air" in behind
    assert "Released together: 1 before it" in behind
    last = told(capsys, traced, "--message", alone["released_after"][-1])
    assert f"Released together: {len(alone['released_after'])} before it, 0 after it" in last


@pytest.mark.parametrize(
    ("kind", "network", "words"),
    [
        ("backhaul", "private-5g", "Held back: nothing passed between station and MEC"),
        ("broker_restart", "private-5g", "the broker restarted and broke the connection"),
        ("outage", "private-5g-udp", "Lost: its cell was off the air (outage), and nothing"),
        ("broker_restart", "private-5g-udp", "Lost: the broker restarted and broke the"),
    ],
)
def test_the_cause_is_named(
    kind: str, network: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trouble = {"kind": kind, "after": "20s", "length": "10s"}
    factory = make_factory(
        find_scenario("quickstart", changes={"length": "1m", "network": network,
                                             "fault": [trouble]}), "r", trace=True,
    )  # fmt: skip
    for _ in factory.chunks():
        pass
    tracer = factory.trace()
    assert tracer is not None
    with Recording.create(tmp_path / "run.beilun") as recording:
        recording.write_trace(tracer)
    with Recording.open(tmp_path / "run.beilun") as recording:
        trace = next(t for t in recording.trace(way="telemetry")
                     if t.columns["cause"].any())  # fmt: skip
    number = trace.columns["number"][np.flatnonzero(trace.columns["cause"])[0]]
    text = told(capsys, tmp_path / "run.beilun", "--message", f"{trace.asset}#{number}")
    assert words in text


def test_a_repeated_transmission_is_told(traced: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Recording.open(traced) as recording:
        trace = next(t for t in recording.trace(way="up") if (t.columns["rounds"] == 2).any())
    number = trace.columns["number"][trace.columns["rounds"] == 2][0]
    text = told(capsys, traced, "--message", f"{trace.asset}/up#{number}")
    assert "2 HARQ rounds: the first transmission failed" in text


def test_a_unique_name_will_do(traced: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys, traced, "--message", "dcm01#1")
    assert text == told(capsys, traced, "--message", "ningbo/casting/line1/dcm01#1")
    assert text.startswith("ningbo/casting/line1/dcm01#1: telemetry, up")


def test_devices_can_be_chosen(traced: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = list(lines(told(capsys, traced, "--json", "--asset", "cl*")))
    assert {x["asset"] for x in found if "message" in x} == {"ningbo/cable/hall1/cl01"}
    assert "no device of the trace is cl9" in refused(capsys, 2, traced, "--asset", "cl9")


def test_what_is_not_there_is_told_with_what_to_try(
    traced: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "did you mean dcm01?" in refused(capsys, 2, traced, "--message", "dcm1#4")
    assert "names no message" in refused(capsys, 2, traced, "--message", "dcm01")
    long = refused(capsys, 2, traced, "--message", f"dcm01#{'9' * 20}")
    assert "no message has a number of 20 digits" in long
    assert "has no message" in refused(capsys, 2, traced, "--message", f"dcm01#{'9' * 18}")
    (tmp_path / "junk.beilun").write_bytes(b"junk" * 2_000)
    assert "`beilun replay --salvage`" in refused(capsys, 3, tmp_path / "junk.beilun")
    far = refused(capsys, 2, traced, "--message", "agv01/up#999999")
    assert "its numbers run from 1 to" in far
    assert "no such traffic" in refused(capsys, 2, traced, "--message", "dcm01/up#1")
    with Recording.create(tmp_path / "plain.beilun"):
        pass
    plain = refused(capsys, 3, tmp_path / "plain.beilun")
    assert "holds no link trace" in plain
    assert "--trace" in plain
