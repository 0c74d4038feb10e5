"""Recordings: blocks, damage, readers beside the writer."""

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import RecordingError
from ingest.decode import Decoder
from ingest.messages import Record, Reject, Times
from ingest.recording import KEPT_REJECTS, PARTS, Recording, Tracer, unpacked

DAY_NS = 1_767_571_200 * 10**9


def records(number: int) -> list[Record]:
    found = Decoder().receive(
        "beilun/v1/s/a/l/m/process",
        b'{"t_ns": %d, "ch": {"x": [1, null, 3.5]}, "every_ns": 1000000000}'
        % (DAY_NS + number * 10**10),
        DAY_NS + number,
    )
    assert not isinstance(found, Reject)
    return found


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "a.beilun"
    with Recording.create(path) as recording:
        for number in range(400):
            recording.append(records(number) * 3)
    return path


def envelopes(path: Path, *, salvage: bool = False) -> list[int]:
    with Recording.open(path, salvage=salvage) as recording:
        return [e.received_ns for b in recording.blocks(salvage=salvage) for e in b.envelopes]


def test_what_was_appended_is_read_back_in_order(recorded: Path) -> None:
    assert envelopes(recorded) == [DAY_NS + n for n in range(400)]


def test_blocks_are_found_by_the_times_in_them(recorded: Path) -> None:
    with Recording.open(recorded) as recording:
        found = list(recording.blocks_over(DAY_NS + 5 * 10**10, DAY_NS + 7 * 10**10))
    assert [e.received_ns - DAY_NS for b in found for e in b.envelopes] == [5, 6, 7]


def test_a_finished_recording_is_one_plain_file(recorded: Path) -> None:
    assert [p.name for p in recorded.parent.iterdir()] == [recorded.name]


def test_a_reader_sees_the_recording_grow(tmp_path: Path) -> None:
    path = tmp_path / "a.beilun"
    with Recording.create(path) as writer:
        writer.append(records(0))
        with Recording.open(path) as reader:
            assert sum(1 for _ in reader.blocks()) == 1
            writer.append(records(1))
            assert sum(1 for _ in reader.blocks()) == 2


def test_a_flipped_byte_is_found_and_everything_before_it_is_usable(recorded: Path) -> None:
    with sqlite3.connect(recorded) as db:
        (data,) = db.execute("SELECT data FROM block WHERE id = 200").fetchone()
        broken = data[:20] + bytes([data[20] ^ 1]) + data[21:]
        db.execute("UPDATE block SET data = ? WHERE id = 200", (broken,))
    db.close()
    with pytest.raises(RecordingError, match="block 200") as told:
        envelopes(recorded)
    assert "--salvage uses the 199 blocks before it" in told.value.hint
    assert envelopes(recorded, salvage=True) == [DAY_NS + n for n in range(199)]


@pytest.mark.parametrize("share", [0.5, 0.7, 0.95])
def test_a_truncated_file_gives_what_was_before_the_cut(recorded: Path, share: float) -> None:
    cut = recorded.with_name("cut.beilun")
    shutil.copy(recorded, cut)
    size = recorded.stat().st_size
    with cut.open("r+b") as file:
        file.truncate(int(size * share))
    with pytest.raises(RecordingError) as told:
        envelopes(cut)
    assert "--salvage" in told.value.hint
    found = envelopes(cut, salvage=True)
    assert found == [DAY_NS + n for n in range(len(found))]
    assert len(found) > 400 * (share - 0.35)


def test_other_files_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "a.beilun"
    text.write_text("not a database, but long enough to be one" * 100)
    with pytest.raises(RecordingError):
        Recording.open(text)
    with pytest.raises(RecordingError, match="no such file"):
        Recording.open(tmp_path / "missing.beilun")
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE t (x)")
    db.close()
    with pytest.raises(RecordingError):
        Recording.open(other)


def test_refused_messages_are_kept_up_to_a_bound_and_all_counted(tmp_path: Path) -> None:
    reject = Reject("not_json", "", "t", 0, b"x", 1)
    with Recording.create(tmp_path / "a.beilun") as recording:
        for _ in range(3):
            recording.append([], [reject] * (KEPT_REJECTS // 2))
        kept = recording.db.execute("SELECT count(*) FROM reject").fetchone()[0]
        assert kept == KEPT_REJECTS
        assert recording.unusable() == {"not_json": KEPT_REJECTS // 2 * 3}


def test_a_file_that_lost_its_beginning_is_refused(recorded: Path) -> None:
    with recorded.open("r+b") as file:
        file.write(b"\0" * 4096)
    with pytest.raises(RecordingError):
        Recording.open(recorded, salvage=True)


# Link trace


def traced(sent_ns: list[int], spent_ns: list[list[int]], lost: list[bool]) -> dict[str, Times]:
    parts = dict(zip(PARTS, np.array(spent_ns, dtype=np.int64), strict=True))
    sent = np.array(sent_ns, dtype=np.int64)
    arrival = np.where(lost, -1, sent + np.sum(list(parts.values()), axis=0))
    names = ("n_bytes", "cell", "rounds", "cause")
    other = {name: np.arange(len(sent), dtype=np.int64) for name in names}
    return parts | other | {"sent_ns": sent, "arrival_ns": arrival}


@settings(deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 2**62 // 1000),
            st.lists(st.integers(-1, 2**50), min_size=len(PARTS), max_size=len(PARTS)),
            st.booleans(),
        ),
        min_size=1,
        max_size=20,
    ),
    numbers=st.integers(1, 2**40),
)
def test_a_trace_is_read_back_to_the_bit(
    rows: list[tuple[int, list[int], bool]], numbers: int
) -> None:
    rows.sort(key=lambda row: row[0])
    columns = traced(
        [DAY_NS + row[0] for row in rows],
        [[row[1][part] for row in rows] for part in range(len(PARTS))],
        [row[2] for row in rows],
    )
    tracer = Tracer(["c1"])
    own = [numbers + 3 * row for row in range(len(rows))]
    tracer.add("s/a/l/d", "telemetry", "t", own, columns)
    (block,) = tracer.blocks()
    assert block[:8] == (
        "s/a/l/d", "telemetry", columns["sent_ns"][0], columns["sent_ns"][-1], own[0], own[-1],
        "t", len(rows),
    )  # fmt: skip
    found = unpacked(block.data)
    assert found.pop("number").tolist() == own
    assert {k: v.tolist() for k, v in found.items()} == {k: v.tolist() for k, v in columns.items()}


def test_a_trace_is_found_by_device_way_number_and_time(tmp_path: Path) -> None:
    tracer = Tracer(["c1", "c2"])
    for start in range(0, 20_000, 500):
        for asset in ("s/a/l/d", "s/a/l/e"):
            sent = [DAY_NS + n for n in range(start, start + 500)]
            tracer.add(
                asset, "up", "control", None, traced(sent, [[1] * 500] * len(PARTS), [False])
            )
    with Recording.create(tmp_path / "own.sim") as own:
        own.write_trace(tracer)
    with Recording.create(tmp_path / "run.beilun") as recording:
        recording.attach(tmp_path / "own.sim")
    with Recording.open(tmp_path / "run.beilun") as recording:
        assert recording.meta_json("cells") == ["c1", "c2"]
        assert recording.traced() == [("s/a/l/d", "up", 20_000), ("s/a/l/e", "up", 20_000)]
        every = [n for t in recording.trace("s/a/l/e") for n in t.columns["number"].tolist()]
        assert every == list(range(1, 20_001))
        blocks = list(recording.trace("s/a/l/d", "up", numbers=(9_000, 9_000)))
        assert [9_000 in t.columns["number"] for t in blocks] == [True]
        span = (DAY_NS + 8_990, DAY_NS + 8_999)
        by_time = list(recording.trace("s/a/l/d", "up", span_ns=span))
        assert [t.columns["number"].tolist() for t in by_time] == [
            t.columns["number"].tolist() for t in blocks
        ]
        assert not list(recording.trace("s/a/l/d", "down"))


def test_a_recording_of_before_there_were_traces_has_none(recorded: Path, tmp_path: Path) -> None:
    with sqlite3.connect(recorded) as db:
        db.execute("DROP TABLE trace")
    db.close()
    with Recording.open(recorded) as recording:
        assert recording.traced() == []
        assert not list(recording.trace())
    with Recording.create(tmp_path / "b.beilun") as recording:
        recording.attach(recorded)
        assert recording.traced() == []


def test_a_damaged_trace_is_told(tmp_path: Path) -> None:
    tracer = Tracer(["c1"])
    tracer.add("s/a/l/d", "up", "t", None, traced([1, 2], [[1, 2]] * len(PARTS), [False, True]))
    with Recording.create(tmp_path / "a.beilun") as recording:
        recording.write_trace(tracer)
        recording.db.execute("UPDATE trace SET data = x'0102'")
        with pytest.raises(RecordingError, match="link trace is damaged at s/a/l/d, up"):
            list(recording.trace())
