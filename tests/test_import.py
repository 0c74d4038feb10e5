"""Tables become recordings: nothing invented or lost in silence; the UR3's known answers."""

import csv
import io
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from beilun import console
from beilun.cli import main
from config.errors import ConfigError
from config.mapping import parse_mapping
from config.units import NS_PER_S, parse_time
from ingest import tabular
from ingest.codecs import MAX_BYTES
from ingest.decode import Decoder
from ingest.messages import Batch, Birth, Tick
from ingest.recording import Recording
from ingest.tabular import Tabular, forward

UR3 = Path(__file__).parents[1] / "../shared/data/ur3_cobotops/dataset_02052023.csv"
T0_S = 1_767_600_000

MAPPING = """
asset = { site = "s", area = "a", line = "l", name = "m", kind = "press" }
time = { column = "t", format = "epoch_s" }
[table]
delimiter = ";"
decimal = ","
[[channel]]
name = "x"
column = "x "
unit = "mm"
[[channel]]
name = "on"
column = "on"
as = "bool"
unit = "1"
role = "event"
[[channel]]
name = "mode"
column = "mode"
as = "map"
values = { "run; fast" = 6, "it's \\"off\\"" = 2 }
unit = "PackML"
role = "state"
"""
HEADER = "t;x ;on;mode;;"


def read(text, mapping=MAPPING):
    """The table through the mapping: counts, decoded messages, rejects."""
    table = Tabular(parse_mapping(mapping), io.StringIO(text, newline=""))
    decoder = Decoder()
    messages, rejects = [], []
    for block in table:
        rejects += block.rejects
        for record in block.records:
            (again,) = decoder.read(record.envelope)
            assert_same(again.message, record.message)  # what is written is what is read
            messages.append(again.message)
    assert sum(table.counts.rejected.values()) == len(rejects)
    return table.counts, messages, rejects


def assert_same(a, b):
    assert type(a) is type(b)
    if not isinstance(a, Batch):
        assert a == b
        return
    assert (a.asset, a.stream, a.meta) == (b.asset, b.stream, b.meta)
    np.testing.assert_array_equal(a.t_ns, b.t_ns)
    assert list(a.channels) == list(b.channels)
    for name in a.channels:
        np.testing.assert_array_equal(a.channels[name], b.channels[name])


def joined(messages):
    """All samples in order: times, and a column per channel."""
    batches = [m for m in messages if isinstance(m, Batch)]
    times = np.concatenate([b.t_ns for b in batches])
    return times, {
        name: np.concatenate([b.channels[name] for b in batches]) for name in batches[0].channels
    }


def table(*rows):
    return "\n".join([HEADER, *rows]) + "\n"


blank = st.sampled_from(["", " ", "  "])
numbers = st.decimals(-(10**6), 10**6, places=6)
cells = st.tuples(
    st.one_of(st.none(), numbers), st.sampled_from([None, True, False]),
    st.sampled_from([None, "run; fast", "it's \"off\""]),
)  # fmt: skip


class TestTable:
    @given(
        rows=st.lists(st.tuples(st.integers(0, 30_000), cells), min_size=1, max_size=60),
        empty=blank, quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        crlf=st.booleans(),
    )  # fmt: skip
    @example(rows=[(0, (None, None, None))], empty="", quoting=csv.QUOTE_MINIMAL, crlf=False)
    def test_what_was_written_is_read(self, rows, empty, quoting, crlf):
        """Decimal comma, blanks, quotes, delimiters inside quotes, both line ends."""
        rows.sort(key=lambda row: row[0])
        out = io.StringIO(newline="")
        writer = csv.writer(
            out, delimiter=";", quoting=quoting, lineterminator="\r\n" if crlf else "\n"
        )
        writer.writerow(HEADER.split(";"))
        for after_ms, (x, on, mode) in rows:
            seconds = f"{T0_S + after_ms // 1000},{after_ms % 1000:03d}"
            number = empty if x is None else f" {x:f}".replace(".", ",")
            writer.writerow([seconds, number, empty if on is None else str(on),
                             empty if mode is None else mode, "", ""])  # fmt: skip
        counts, messages, rejects = read(out.getvalue())
        assert not rejects
        assert counts.rows == counts.samples == len(rows)
        times, columns = joined(messages)
        assert times.tolist() == [T0_S * NS_PER_S + ms * 1_000_000 for ms, _ in rows]
        numbers_of = {True: 1, False: 0, "run; fast": 6, 'it\'s "off"': 2}
        for place, (name, column) in enumerate(columns.items()):
            wanted = [row[1][place] for row in rows]
            for value, cell in zip(column.tolist(), wanted, strict=True):
                if cell is None:
                    assert math.isnan(value)
                else:
                    assert value == (float(cell) if name == "x" else numbers_of[cell])
        self.check_messages(messages)

    @staticmethod
    def check_messages(messages):
        birth, *rest = messages
        assert isinstance(birth, Birth)
        assert isinstance(rest[-1], Tick)
        batches = [m for m in rest if isinstance(m, Batch)]
        for batch in batches:
            assert batch.t_ns[0] // tabular.PANE_NS == batch.t_ns[-1] // tabular.PANE_NS
            assert batch.meta.arrival_ns == batch.t_ns[-1]
        panes = [int(batch.t_ns[0]) // tabular.PANE_NS for batch in batches]
        assert panes == sorted(set(panes))
        assert birth.t_ns == batches[0].t_ns[0]

    @given(
        rows=st.lists(st.integers(0, 100), min_size=1, max_size=80), piece=st.integers(1, 20)
    )  # fmt: skip
    def test_every_row_is_a_sample_or_a_reject(self, rows, piece):
        """Whatever the order of the times, and however the reader cuts the file."""
        text = table(*(f"{T0_S + t};{n};;" for n, t in enumerate(rows)))
        before = tabular.PIECE
        tabular.PIECE = piece
        try:
            counts, messages, rejects = read(text)
        finally:
            tabular.PIECE = before
        assert counts.rows == len(rows) == counts.samples + len(rejects)
        assert {r.reason for r in rejects} <= {"time_backwards"}
        times, columns = joined(messages)
        assert (np.diff(times) >= 0).all()
        at = columns["x"].astype(int)
        assert [T0_S + rows[n] for n in at.tolist()] == (times // NS_PER_S).tolist()
        if rows == sorted(rows):
            assert not rejects

    def test_the_same_messages_whatever_the_piece(self, monkeypatch):
        text = table(*(f"{T0_S + n // 3};{n};;" for n in range(500)))
        whole = [m.meta.identity for m in read(text)[1] if isinstance(m, Batch)]
        monkeypatch.setattr(tabular, "PIECE", 7)
        assert [m.meta.identity for m in read(text)[1] if isinstance(m, Batch)] == whole

    @pytest.mark.parametrize(
        ("row", "reason", "told"),
        [
            (f"{T0_S};1", "bad_shape", "row 4: 2 cells, the header has 6"),
            (f"{T0_S};1;;;;;;extra", "bad_shape", "8 cells"),
            (f"{T0_S};1.5;;", "bad_value", "x: not a number: '1.5'"),
            (f"{T0_S};1_0;;", "bad_value", "x: not a number"),
            (f"{T0_S};nan;;", "bad_value", "x: not a number"),
            (f"{T0_S};1e300;;", "bad_value", "x: beyond"),
            (f"{T0_S};1;2;", "bad_value", "on: neither true nor false: '2'"),
            (f"{T0_S};1;;runn", "bad_value", "mode: not among the values: 'runn'"),
            (";1;;", "bad_time", "not a time: ''"),
            ("yesterday;1;;", "bad_time", "not a time: 'yesterday'"),
            ("1000;1;;", "absurd_time", "not between 2000 and 2100"),
            (f"{T0_S - 1};1;;", "time_backwards", "time runs backwards"),
        ],
    )
    def test_a_bad_row_is_told_and_the_others_are_used(self, row, reason, told):
        good = f"{T0_S};1,5;True;"
        counts, messages, (reject,) = read(table(good, good, row, good))
        assert reject.reason == reason
        assert reject.detail.startswith("row 4: ")
        assert told in reject.detail
        assert reject.head.decode().startswith(row[:20])
        assert (counts.rows, counts.samples) == (4, 3)
        assert joined(messages)[1]["x"].tolist() == [1.5, 1.5, 1.5]

    def test_one_wild_stamp_costs_one_row(self):
        seconds = [*range(50), 4_000, *range(50, 100), 20, *range(100, 150)]
        counts, _, rejects = read(table(*(f"{T0_S + s};1;;" for s in seconds)))
        assert (counts.samples, len(rejects)) == (150, 2)

    def test_rows_may_differ_in_trailing_blanks_and_lines_may_be_empty(self):
        counts, _, rejects = read(table(f"{T0_S};1;;", "", f"{T0_S};1;;;;;;", f"{T0_S};1;;;"))
        assert (counts.rows, counts.samples, rejects) == (3, 3, [])

    def test_an_open_quote_costs_rows_and_is_told(self):
        good = f"{T0_S};1;;"
        counts, _, rejects = read(table(good, f'{T0_S};"1;;', *[good] * 20_000, good))
        assert counts.samples >= 1
        assert rejects[0].reason == "bad_shape"
        assert "an open quote?" in rejects[0].detail

    def test_missing_columns_are_told_with_a_guess(self):
        with pytest.raises(ConfigError) as error:
            read("t;x;on ;mode;mode\n")
        told = str(error.value)
        assert "no column 'x '; did you mean 'x'?" in told
        assert "no column 'on'; did you mean 'on '?" in told
        assert "2 columns are called 'mode'" in told

    def test_without_a_header_columns_are_named_by_the_mapping(self):
        text = MAPPING.replace(
            "[table]", '[table]\nskip_lines = 2\ncolumns = ["t", "x ", "on", "mode"]'
        )
        counts, messages, _ = read(f"junk\njunk\n{T0_S};1;;\n", text)
        assert counts.samples == 1
        assert joined(messages)[1]["x"].tolist() == [1]

    def test_scale_and_offset(self):
        text = MAPPING.replace('unit = "mm"', 'unit = "mm"\nscale = 0.1\noffset = -3.0')
        _, messages, _ = read(table(f"{T0_S};10;;"), text)
        assert joined(messages)[1]["x"].tolist() == [-2.0]

    def test_messages_stay_below_what_a_codec_takes(self):
        wide = MAPPING + "".join(
            f'[[channel]]\nname = "c{n}"\ncolumn = "x "\nunit = "1"\n' for n in range(200)
        )
        rows = (f"{T0_S + n / 1_000:.3f};-8999999999999,123456;;".replace(".", ",", 1)
                for n in range(2_000))  # fmt: skip
        text = table(*rows)
        source = Tabular(parse_mapping(wide), io.StringIO(text, newline=""))
        sizes = [len(r.envelope.payload) for block in source for r in block.records]
        assert source.counts.samples == 2_000
        assert MAX_BYTES // 3 < max(sizes) < MAX_BYTES

    @given(times=st.lists(st.integers(0, 12), max_size=12), floor=st.integers(0, 6))
    def test_forward_keeps_as_many_as_can_be(self, times, floor):
        keep = forward(np.array(times, dtype=np.int64), floor)
        kept = [t for t, k in zip(times, keep.tolist(), strict=True) if k]
        assert all(a <= b for a, b in pairwise([floor, *kept]))
        longest = [0] * len(times)
        for at, t in enumerate(times):
            before = (longest[i] for i in range(at) if times[i] <= t)
            longest[at] = 0 if t < floor else 1 + max(before, default=0)
        assert len(kept) == max(longest, default=0)


@pytest.fixture(autouse=True)
def tells_again():
    """``-q`` is for one command only."""
    yield
    console.setup()


class TestCommand:
    @pytest.fixture
    def files(self, tmp_path):
        mapping, data = tmp_path / "m.toml", tmp_path / "log.csv"
        mapping.write_text(MAPPING)
        rows = (f"{T0_S + n};{n};{n % 5 == 0};" for n in range(100))
        data.write_text(table(*rows, "garbage"), encoding="utf-8-sig")
        return mapping, data

    def test_writes_a_recording(self, files, tmp_path, capsys):
        mapping, data = files
        target = tmp_path / "out" / "log.beilun"
        assert main(["import", str(mapping), str(data), "-o", str(target)]) == 0
        told = capsys.readouterr().err
        assert "101 rows, 100 samples of s/a/l/m in 11 messages" in told
        assert "1 rows refused" not in told
        assert "1 row refused, kept in the recording:" in told
        assert "row 102: 1 cells" in told
        with Recording.open(target) as recording:
            assert recording.meta("source") == "import"
            assert recording.meta("name") == "m"
            assert recording.meta("mapping") == MAPPING
            assert recording.meta_json("edge")["windows"] == ["1m", "1h", "8h"]
            assert recording.meta_json("edge")["pane"] == "10s"
            assert recording.unusable() == {"bad_shape": 1}
            (block,) = recording.blocks()
            assert [e.codec for e in block.envelopes] == ["uns"] * 11 + ["tick"]
            first = json.loads(block.envelopes[1].payload)
            assert first["ch"]["mode"] == [None] * 10
        assert [path.name for path in target.parent.iterdir()] == ["log.beilun"]

    def test_twice_gives_the_same_messages(self, files, tmp_path):
        mapping, data = files
        found = []
        for name in ("a", "b"):
            assert main(["-q", "import", str(mapping), str(data), "-o", str(tmp_path / name)]) == 0
            with Recording.open(tmp_path / name) as recording:
                found.append((recording.meta("run"), list(recording.blocks())))
        assert found[0] == found[1]

    def test_never_overwrites_unless_told(self, files, capsys):
        mapping, data = files
        assert main(["import", str(mapping), str(data)]) == 0
        assert data.with_suffix(".beilun").exists()
        assert main(["import", str(mapping), str(data)]) == 2
        assert "--force replaces it" in capsys.readouterr().err
        assert main(["import", str(mapping), str(data), "--force"]) == 0

    def test_nothing_usable_is_exit_3_and_leaves_nothing(self, files, capsys):
        mapping, data = files
        data.write_text(table("a;b;c;d", "e"))
        assert main(["import", str(mapping), str(data)]) == 3
        told = capsys.readouterr().err
        assert "none of 2 rows is usable" in told
        assert "row 2: not a time: 'a'" in told
        data.write_text("")
        assert main(["import", str(mapping), str(data)]) == 3
        assert main(["import", str(mapping), str(data.with_name("none.csv"))]) == 3
        assert sorted(p.name for p in data.parent.iterdir()) == ["log.csv", "m.toml"]


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """What a recording of the UR3 file holds."""
    target = tmp_path_factory.mktemp("ur3") / "ur3.beilun"
    assert main(["-q", "import", "ur3-cobotops", str(UR3), "-o", str(target)]) == 0
    decoder = Decoder()
    with Recording.open(target) as recording:
        assert recording.unusable() == {}
        envelopes = [e for block in recording.blocks() for e in block.envelopes]
    return joined([record.message for e in envelopes for record in decoder.read(e)])


@pytest.mark.skipif(not UR3.is_file(), reason="the data is not here")
class TestUr3:
    """Answers known before the import was written: see README.md beside the data."""

    def test_cycles(self, samples):
        times, columns = samples
        cycle = columns["cycle"].astype(int)
        steps = np.diff(cycle)
        starts = np.concatenate([[0], np.flatnonzero(steps) + 1])
        ends = np.append(starts[1:] - 1, len(cycle) - 1)
        assert len(times) == 7_409
        assert cycle[-1] == 264
        assert len(np.unique(cycle)) == 240
        assert len(starts) == 249
        assert (steps < 0).sum() == 1
        assert np.median(np.diff(times[starts])) == 25_135_000_000
        assert np.median(times[ends] - times[starts]) == 24_129_000_000

    def test_protective_stops_and_lost_grips(self, samples):
        _, columns = samples
        stop, grip = columns["protective_stop"], columns["grip_lost"]
        known = stop[~np.isnan(stop)]
        assert np.isnan(stop).sum() == 54
        assert (np.diff(known) > 0).sum() == 108
        assert round(100 * np.nansum(stop) / len(stop), 2) == 3.75
        assert round(100 * known.mean(), 2) == 3.78  # where blank cells are no evidence
        assert not np.isnan(grip).any()
        assert round(100 * grip.mean(), 2) == 3.28

    def test_the_gap(self, samples):
        times, _ = samples
        steps = np.diff(times)
        assert steps.max() == 18_814_125_000_000
        assert (steps > 60 * NS_PER_S).sum() == 1
        assert times[0] == parse_time("2022-10-26T08:17:21.847Z")

    def test_currents(self, samples):
        _, columns = samples
        current = columns["current_j1_a"]
        found = np.nanpercentile(current, [5, 50, 95], method="inverted_cdf")
        assert np.round(found, 2).tolist() == [-3.82, -2.24, -1.45]
