"""Recordings: blocks, damage, readers beside the writer."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from config.errors import RecordingError
from ingest.decode import Decoder
from ingest.messages import Record, Reject
from ingest.recording import KEPT_REJECTS, Recording

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
        found = list(recording.blocks(DAY_NS + 5 * 10**10, DAY_NS + 7 * 10**10))
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
