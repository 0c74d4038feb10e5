"""Parquet: what DuckDB reads is what the recording holds, to the bit, and no NaN ever."""

import json
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beilun.cli import main
from beilun.commands import export
from beilun.commands.replay import reader
from config.units import NS_PER_S
from edge.gate import Gate
from edge.policy import Policy
from edge.rows import ORDER_NUMBER, Row
from edge.store import RowStore
from ingest.messages import Asset, Batch, Envelope, Record, TruthRow
from ingest.recording import Recording

MINUTE_NS = 60 * NS_PER_S
HOUR_NS = 60 * MINUTE_NS
DAY_NS = 24 * HOUR_NS
EDGE = json.dumps({"windows": ["1h", "8h", "shift", "order"], "zone": "UTC",
                   "shifts": ["00:00", "08:00", "16:00"]})  # fmt: skip
DCM = Asset("ningbo", "casting", "line1", "dcm01")
KEY = "site, area, line, asset, kpi, window_start_ns, window_length_ns"


def recording(path: Path, rows: list[Row], truth: tuple[TruthRow, ...] = ()) -> None:
    with Recording.create(path) as made:
        made.set_meta({"edge": EDGE, "name": "a test", "finished": "true"})
        store = RowStore(made)
        store.prepare()
        store.write(rows)
        made.write_truth(truth)


def row(kpi: str, start_ns: int, length_ns: int, value: float | None, **more: int) -> Row:
    return Row(DCM, kpi, start_ns, length_ns, value, more.get("n", 3), more.get("late", 1), "1")


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten minutes of a factory, over a link that repeats and loses."""
    path = tmp_path_factory.mktemp("export") / "a.beilun"
    words = [
        "run", "quickstart", "--for", "10m", "--broker", "embedded", "--network", "wifi-loaded",
        "-o", str(path), "-q",
    ]  # fmt: skip
    main(words)
    return path


def exported(path: Path, into: Path, *more: str) -> duckdb.DuckDBPyConnection:
    assert main(["export", str(path), "--parquet", str(into), *more]) == 0
    return duckdb.connect()


def bits(value: float | None) -> bytes | None:
    return None if value is None else struct.pack("<d", value)


class TestRows:
    def test_are_those_of_the_store_to_the_bit(self, quickstart: Path, tmp_path: Path) -> None:
        db = exported(quickstart, tmp_path / "out")
        columns = f"{KEY}, value, n, late, revision, unit"
        read = db.sql(
            f"SELECT {columns} FROM '{tmp_path}/out/kpis.parquet' ORDER BY {KEY}"
        ).fetchall()
        with sqlite3.connect(quickstart) as own:
            kept = own.execute(f"SELECT {columns} FROM kpi_rows ORDER BY {KEY}").fetchall()
        assert len(kept) > 5_000
        assert [(*r[:7], bits(r[7]), *r[8:]) for r in read] == [
            (*r[:7], bits(r[7]), *r[8:]) for r in kept
        ]
        [[nan]] = db.sql(
            f"SELECT count(*) FROM '{tmp_path}/out/kpis.parquet' WHERE isnan(value)"
        ).fetchall()
        assert nan == 0

    def test_have_the_truth_beside_them(self, quickstart: Path, tmp_path: Path) -> None:
        db = exported(quickstart, tmp_path / "out")
        asset = "site || '/' || area || '/' || line || '/' || asset"
        read = set(
            db.sql(
                f"SELECT {asset}, kpi, window_start_ns, window_length_ns, truth"
                f" FROM '{tmp_path}/out/kpis.parquet' WHERE truth IS NOT NULL"
            ).fetchall()
        )
        with sqlite3.connect(quickstart) as own:
            known = set(
                own.execute(
                    "SELECT t.asset, t.kpi, t.window_start_ns, t.window_length_ns, t.value"
                    " FROM truth t JOIN kpi_rows r ON t.kpi = r.kpi"
                    " AND t.asset = r.site || '/' || r.area || '/' || r.line || '/' || r.asset"
                    " AND t.window_start_ns = r.window_start_ns"
                    " AND t.window_length_ns = r.window_length_ns WHERE t.value IS NOT NULL"
                )
            )
        assert read == known and len(known) > 1_000

    def test_of_real_machines_have_none(self, tmp_path: Path) -> None:
        recording(tmp_path / "a.beilun", [row("oee", 0, HOUR_NS, 0.5)])
        exported(tmp_path / "a.beilun", tmp_path / "a.parquet")
        assert "truth" not in pq.read_schema(tmp_path / "a.parquet").names

    @given(values=st.lists(st.one_of(st.none(), st.floats(allow_nan=False)), max_size=20))
    @settings(
        max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def test_any_value_survives(self, tmp_path: Path, values: list[float | None]) -> None:
        path = tmp_path / "any.beilun"
        path.unlink(missing_ok=True)
        rows = [row("oee", n * HOUR_NS, HOUR_NS, value) for n, value in enumerate(values)]
        recording(path, rows)
        with Recording.open(path) as own:  # SQLite has no -0.0
            kept = [each.value for each in RowStore(own).rows()]
        assert kept == values
        exported(path, tmp_path / "any.parquet", "--force")
        table = pq.read_table(tmp_path / "any.parquet")
        order = np.argsort(table["window_start_ns"].to_numpy())
        read = table["value"].to_pylist()
        assert [bits(read[place]) for place in order] == [bits(value) for value in kept]

    def test_are_there_once_for_each_name_of_their_window(self, tmp_path: Path) -> None:
        start_ns = 30_000 * DAY_NS
        rows = [
            row("oee", start_ns, HOUR_NS, 0.1),
            row("oee", start_ns, 8 * HOUR_NS, 0.2),  # and a shift, by this calendar
            row("oee", start_ns + 5, HOUR_NS, 0.3),  # an order of this machine
            row(ORDER_NUMBER, start_ns + 5, HOUR_NS, 17.0),
        ]
        recording(tmp_path / "a.beilun", rows)
        db = exported(tmp_path / "a.beilun", tmp_path / "a.parquet")
        found = db.sql(f"SELECT kpi, value, window_label FROM '{tmp_path}/a.parquet'").fetchall()
        assert sorted(found) == [
            ("oee", 0.1, "1h"), ("oee", 0.2, "8h"), ("oee", 0.2, "shift"), ("oee", 0.3, "order"),
            (ORDER_NUMBER, 17.0, "order"),
        ]  # fmt: skip

    def test_instants_are_nanoseconds_in_utc_beside_the_integers(self, tmp_path: Path) -> None:
        start_ns = 30_000 * DAY_NS + 7
        recording(tmp_path / "a.beilun", [row("oee", start_ns, HOUR_NS + 1, 0.5)])
        exported(tmp_path / "a.beilun", tmp_path / "a.parquet")
        table = pq.read_table(tmp_path / "a.parquet")
        assert str(table.schema.field("window_start").type) == "timestamp[ns, tz=UTC]"
        assert table["window_start"].cast("int64").to_pylist() == [start_ns]
        assert table["window_end"].cast("int64").to_pylist() == [start_ns + HOUR_NS + 1]
        assert table["window_start_ns"].to_pylist() == [start_ns]

    def test_the_file_says_what_recording_it_is_of(self, quickstart: Path, tmp_path: Path) -> None:
        exported(quickstart, tmp_path / "a.parquet")
        told = pq.read_metadata(tmp_path / "a.parquet").metadata
        with Recording.open(quickstart) as own:
            for key in ("run", "seed", "digest", "scenario", "edge", "versions"):
                assert told[f"beilun.{key}".encode()].decode() == own.meta(key)


@pytest.fixture(scope="module")
def folder(quickstart: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("signals")
    exported(quickstart, found, "--signals")
    return found


class TestSignals:
    def test_are_the_samples_that_were_let_in(self, quickstart: Path, folder: Path) -> None:
        """Counted by the decoder and the gate, asset by asset and channel by channel."""
        samples: dict[str, int] = {}
        sums: dict[tuple[str, str], tuple[int, float]] = {}
        for batch in let_in(quickstart):
            name = str(batch.asset)
            samples[name] = samples.get(name, 0) + len(batch)
            for channel, values in batch.channels.items():
                there = values[~np.isnan(values)]
                n, total = sums.get((name, channel), (0, 0.0))
                sums[name, channel] = n + len(there), total + float(there.sum())
        db = duckdb.connect()
        read: dict[str, int] = {}
        for path in folder.glob("signals-*.parquet"):
            asset = "site || '/' || area || '/' || line || '/' || asset"
            read |= dict(
                db.sql(f"SELECT {asset} AS a, count(*) FROM '{path}' GROUP BY a").fetchall()
            )
            for entry in pq.read_schema(path):
                if b"channel" not in (entry.metadata or {}):
                    continue
                found = db.sql(
                    f'SELECT {asset} AS a, count("{entry.name}"), sum("{entry.name}"),'
                    f' count(*) FILTER (WHERE isnan("{entry.name}"))'
                    f" FROM '{path}' GROUP BY a"
                ).fetchall()
                for name, n, total, nan in found:
                    count, wanted = sums.pop((name, entry.metadata[b"channel"].decode()), (0, 0.0))
                    assert (n, nan) == (count, 0)
                    assert (total or 0.0) == pytest.approx(wanted)
        assert read == samples and sum(samples.values()) > 50_000
        assert not sums, "channels that are in no file"

    def test_a_kind_is_a_file_with_units(self, folder: Path) -> None:
        schema = pq.read_schema(folder / "signals-casting_cell.parquet")
        assert schema.metadata[b"beilun.kind"] == b"casting_cell"
        assert schema.field("energy_kwh").metadata[b"unit"] == b"kWh"
        assert str(schema.field("t").type) == "timestamp[ns, tz=UTC]"

    def test_a_message_that_came_twice_counts_once(self, tmp_path: Path) -> None:
        twice, first, other = (sample(seq, value) for seq, value in ((1, 1.0), (2, 2.0), (2, 9.0)))
        path = tmp_path / "a.beilun"
        with Recording.create(path) as made:
            made.set_meta({"edge": EDGE, "source": "live", "run": "r"})
            RowStore(made).prepare()
            decoder, _ = reader(made)
            for envelope in (twice, first, twice, other, first):
                made.append(decoder.read(envelope))
        exported(path, tmp_path / "out", "--signals")
        table = pq.read_table(tmp_path / "out" / "signals-unknown.parquet")
        assert table.num_rows == 2
        [second] = [batch for batch in let_in(path) if batch.meta.identity.seq == 2]
        assert sorted(table["x"].to_pylist()) == sorted([1.0, float(second.channels["x"][0])])

    def test_come_in_groups_of_rows(
        self, quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(export, "GROUP", 1_000)
        exported(quickstart, tmp_path, "--signals")
        for path in tmp_path.glob("*.parquet"):
            told = pq.read_metadata(path)
            groups = [told.row_group(n).num_rows for n in range(told.num_row_groups)]
            assert all(n < 1_000 + 500 for n in groups), path  # a batch is not cut
            assert sum(groups) == told.num_rows


def sample(seq: int, value: float) -> Envelope:
    sent_ns = DAY_NS * 20_000 + seq * NS_PER_S
    stamps = {"run": "r", "conn": "c", "cseq": seq, "boot": 1, "seq": seq, "sent_ns": sent_ns,
              "arrival_ns": sent_ns + 9}  # fmt: skip
    told = {"t_ns": sent_ns, "ch": {"x": [value]}, "x_beilun": stamps}
    return Envelope("uns", "beilun/v1/s/a/l/m1/process", 0, json.dumps(told).encode())


def let_in(path: Path) -> Iterator[Batch]:
    """Batches by the gate, the plain way: all records in memory."""
    with Recording.open(path) as own:
        decoder, run = reader(own)
        gate = Gate(Policy(), run)
        kept: dict[object, Record] = {}
        for block in own.blocks():
            for record in (r for e in block.envelopes for r in decoder.read(e)):
                if isinstance(record.message, Batch):
                    gate.admit(record, record.message)
                    if gate.holds(record, record.message):
                        kept[record.message.meta.identity] = record
        yield from (record.message for record in kept.values())  # type: ignore[misc]


class TestFiles:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Path:
        recording(tmp_path / "a.beilun", [row("oee", 0, HOUR_NS, 0.5)])
        return tmp_path / "a.beilun"

    def test_nothing_is_overwritten_without_force(
        self, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "a.parquet"
        path.write_text("mine")
        assert main(["export", str(small), "--parquet", str(path)]) == 2
        assert "--force replaces it" in capsys.readouterr().err
        assert path.read_text() == "mine"
        assert main(["export", str(small), "--parquet", str(path), "--force"]) == 0
        assert pq.read_table(path).num_rows == 1

    def test_a_failure_leaves_nothing_behind_and_what_was_there(
        self, quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / export.KPIS).write_text("mine")
        monkeypatch.setattr(export, "_signal_table", lambda *_: 1 / 0)
        words = ["export", str(quickstart), "--parquet", str(tmp_path), "--signals", "--force"]
        assert main(words) == 70
        assert [path.name for path in tmp_path.iterdir()] == [export.KPIS]
        assert (tmp_path / export.KPIS).read_text() == "mine"

    def test_a_killed_export_leaves_no_file_under_its_name(
        self, quickstart: Path, tmp_path: Path
    ) -> None:
        code = (
            "import os, signal; from beilun.commands import export; from beilun.cli import main;"
            "export._signal_table = lambda *_: os.kill(os.getpid(), signal.SIGKILL);"
            f"main(['export', {str(quickstart)!r}, '--parquet', {str(tmp_path)!r}, '--signals'])"
        )
        done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
        assert done.returncode == -signal.SIGKILL
        assert not list(tmp_path.glob("*.parquet"))

    def test_signals_want_a_folder(
        self, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["export", str(small), "--parquet", str(tmp_path / "a.parquet"), "--signals"]
        assert main(words) == 2
        assert "a file for each kind" in capsys.readouterr().err

    def test_without_the_extra_it_says_what_to_install(self, small: Path, tmp_path: Path) -> None:
        code = (
            "import sys; sys.modules['pyarrow'] = None; from beilun.cli import main;"
            f"sys.exit(main(['export', {str(small)!r}, '--parquet', {str(tmp_path / 'o')!r}]))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 2
        assert "pip install 'beilun[parquet]'" in done.stderr
        assert not (tmp_path / "o").exists()

    def test_a_recording_without_rows_says_so(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with Recording.create(tmp_path / "a.beilun") as made:
            made.set_meta({"edge": EDGE})
        words = ["export", str(tmp_path / "a.beilun"), "--parquet", str(tmp_path / "o")]
        assert main(words) == 3
        assert "holds no KPI rows" in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["a.beilun"]
