"""The front: help, errors, exit codes; and the verbs that look things up."""

import asyncio
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from beilun import cli, composing, console
from beilun.cli import main
from beilun.commands import watch
from config.claims import load_claims
from config.errors import UnreachableError
from config.scenario import find_scenario
from config.units import NS_PER_S
from edge.rows import Row
from edge.store import RowStore
from ingest.messages import Asset
from ingest.recording import Recording

BEILUN = [sys.executable, "-m", "beilun"]
MINUTE = 60 * NS_PER_S


@pytest.fixture(autouse=True)
def clean(tmp_path, monkeypatch):
    """Every test in a folder of its own, told nothing by the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith("BEILUN_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NO_COLOR", raising=False)
    yield
    console.setup()


def command(monkeypatch, function):
    """``beilun run`` does this for the time of a test."""
    module = types.ModuleType("beilun.commands.of_a_test")
    module.command = function
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.COMMANDS, "run", ("of_a_test", "for a test"))


class TestHelp:
    def test_answers_at_once(self):
        took: list[float] = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([*BEILUN, "--help"], check=True, capture_output=True)
            took.append(time.perf_counter() - start)
        assert statistics.median(took) < 0.3

    def test_loads_nothing_heavy(self):
        code = (
            "import sys; from beilun.cli import main; main(['--help']);"
            "heavy = {'numpy', 'pydantic', 'rich', 'typer', 'simpy'} & set(sys.modules);"
            "sys.exit(f'loaded {heavy}' if heavy else 0)"
        )
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)

    def test_names_every_command(self, capsys):
        assert main(["--help"]) == 0
        text = capsys.readouterr().out
        assert all(re.search(rf"^  {name} ", text, re.MULTILINE) for name in cli.COMMANDS)

    @pytest.mark.parametrize("verb", sorted(cli.COMMANDS))
    def test_every_command_has_its_own(self, verb, capsys):
        assert main([verb, "--help"]) == 0
        assert f"Usage: beilun {verb}" in capsys.readouterr().out

    def test_version_says_where_it_is(self, capsys):
        assert main(["--version"]) == 0
        assert re.match(
            r"beilun \d+\.\d+\.\d+ \(Python 3\.\d+\.\d+, /.*beilun\)", capsys.readouterr().out
        )


class TestExitCodes:
    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["rnu"], "did you mean `beilun run`?"),
            (["--colour", "never", "kpis"], "no such option: --colour"),
            (["--color", "pink", "kpis"], "'pink'"),
            (["watch", "--onc"], "--once"),
            (["watch", "--window", "soon"], "not a duration"),
            (["kpis", "oe"], "did you mean oee?"),
            (["networks", "private-6g"], "did you mean private-5g?"),
            (["config", "shwo"], "show"),
        ],
    )
    def test_wrong_words_are_2(self, words, told, capsys):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.splitlines()[-1] == "exit 2: wrong usage"

    def test_five_mistakes_of_a_file_are_one_message_and_3(self, tmp_path, capsys):
        (tmp_path / "bad.toml").write_text(
            'plant = "nowhere.toml"\nnetwork = "private-6g"\nlenght = "8h"\nlength = "fast"\n'
            "[edge]\npane = 10\n"
        )
        assert main(["config", "check", "bad.toml"]) == 3
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == "error: bad.toml: 5 problems"
        assert "length" in lines[5] or any("did you mean length?" in line for line in lines)
        assert any("[duration, like 90s or 1h30m]" in line for line in lines)
        assert lines[-1] == "exit 3: a file or setting does not validate"

    def test_an_unreachable_broker_is_4(self, monkeypatch, capsys):
        def away() -> None:
            raise UnreachableError("no answer", at="mqtt://h:1", hint="start one")

        command(monkeypatch, away)
        assert main(["run"]) == 4
        assert capsys.readouterr().err.splitlines() == [
            "error: mqtt://h:1: no answer", "  hint: start one",
            "exit 4: broker or store unreachable",
        ]  # fmt: skip

    def test_a_failed_expectation_is_1(self, monkeypatch, capsys):
        command(monkeypatch, lambda: 1)
        assert main(["run"]) == 1
        assert capsys.readouterr().err == "exit 1: an expectation failed or had no data\n"

    def test_an_interrupt_is_130(self, monkeypatch, capsys):
        def stopped() -> None:
            raise KeyboardInterrupt

        command(monkeypatch, stopped)
        assert main(["run"]) == 130
        assert capsys.readouterr().err == "exit 130: interrupted\n"

    @pytest.mark.filterwarnings("always")
    def test_an_interrupt_while_a_loop_clears_up_waits_for_that(self):
        done = list[str]()

        async def main() -> None:
            loop = asyncio.get_running_loop()
            last_thing = loop.shutdown_asyncgens

            def again():
                coroutine = last_thing()
                signal.raise_signal(signal.SIGINT)  # before it was ever awaited
                return coroutine

            loop.shutdown_asyncgens = again
            signal.raise_signal(signal.SIGINT)  # nobody listens yet: it cancels this
            try:
                await asyncio.Event().wait()
            finally:
                done.append("drained")

        with warnings.catch_warnings(record=True) as warned, pytest.raises(KeyboardInterrupt):
            composing.run_loop(main())
        assert done == ["drained"]
        assert [str(w.message) for w in warned] == []

    def test_a_second_interrupt_ends_what_runs_and_a_third_what_clears_up(self):
        async def main() -> None:
            stop = composing.Stop()
            stop.listen()
            stubborn = asyncio.create_task(stays())
            signal.raise_signal(signal.SIGINT)
            await stop.event.wait()
            signal.raise_signal(signal.SIGINT)
            await stubborn

        cleared = list[str]()

        async def stays() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                signal.raise_signal(signal.SIGINT)
                cleared.append("one more")
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)
                cleared.append("at once")

        with pytest.raises(KeyboardInterrupt):
            composing.run_loop(main())
        assert cleared == ["one more", "at once"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_a_bug_is_70_and_its_log_holds_the_traceback_and_no_password(self, monkeypatch, capsys):
        def broken(broker: str) -> None:
            raise ZeroDivisionError(len(broker))

        command(monkeypatch, broken)
        assert main(["run", "mqtt://ann:hunter2@h:1"]) == 70
        error = capsys.readouterr().err
        assert "this is a bug in beilun: ZeroDivisionError" in error
        assert "Traceback" not in error
        log = Path(re.search(r"(/\S+\.log)", error)[1])
        text = log.read_text()
        log.unlink()
        assert "Traceback" in text
        assert "hunter2" not in text

    def test_debug_shows_the_traceback_wherever_it_stands(self, monkeypatch, capsys):
        def away() -> None:
            raise UnreachableError("no answer")

        command(monkeypatch, away)
        assert main(["run", "--debug"]) == 4
        assert "Traceback" in capsys.readouterr().err

    def test_a_reader_that_leaves_is_no_error_to_talk_about(self):
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            [*BEILUN, "kpis", "--json"], stdout=write, stderr=subprocess.PIPE, check=False
        )
        os.close(write)
        assert done.stderr == b""
        assert done.returncode == 130


class TestConsole:
    def test_a_pipe_gets_plain_aligned_text(self, capsys):
        console.table(("asset", "oee"), [("dcm01", 0.71349), ("x", None), ("y", 12)], "title")
        assert capsys.readouterr().out == (
            "title\nasset    oee\ndcm01  0.713\nx          –\ny         12\n"
        )

    def test_quiet_silences_narration_and_verbose_adds(self, capsys):
        for level, told in ((-1, ""), (0, "a\n"), (1, "a\nb\n")):
            console.setup(level=level)
            console.note("a")
            console.note("b", level=1)
            assert capsys.readouterr().err == told

    def test_progress_in_a_pipe_is_a_line_every_ten_seconds(self, capsys, monkeypatch):
        now_s = [100.0]
        monkeypatch.setattr(console.wall, "monotonic", lambda: now_s[0])
        with console.progress(100, "s") as bar:
            for done in range(0, 30, 3):
                now_s[0] = 100.0 + done
                bar.update(done, "x 9")
        assert capsys.readouterr().err.splitlines() == [
            " 12%  12.0/100 s  x 9", " 24%  24.0/100 s  x 9",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("when", "no_color", "painted"),
        [
            ("auto", None, False),
            ("always", None, True),
            ("always", "1", True),
            ("never", None, False),
        ],
    )
    def test_colour_is_the_readers_choice(self, when, no_color, painted, monkeypatch):
        if no_color:
            monkeypatch.setenv("NO_COLOR", no_color)
        console.setup(color=when)
        assert (console.paint("x", "good", sys.stdout) != "x") is painted


class TestNouns:
    @pytest.mark.parametrize("noun", ["kpis", "devices", "scenarios", "networks"])
    def test_what_is_listed_can_be_described(self, noun, capsys):
        assert main([noun, "--json"]) == 0
        listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert listed
        for item in listed:
            assert main([noun, item["name"], "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["name"] == item["name"]
            assert main([noun, item["name"]]) == 0
            assert item["name"] in capsys.readouterr().out
        assert main([noun]) == 0
        assert len(capsys.readouterr().out.splitlines()) == len(listed) + 1

    def test_a_scenario_tells_what_it_changes_why_and_what_is_claimed_of_it(self, capsys):
        assert main(["scenarios", "ikd-after"]) == 0
        shown = capsys.readouterr().out
        assert re.search(r"^base +ikd-before$", shown, re.MULTILINE)
        scenario = find_scenario("ikd-after")
        for change in scenario.change:
            line = next(x for x in shown.splitlines() if x.startswith(change.name))
            assert change.why in line
            assert all(path in line for path in change.set)
        headlines = load_claims().of("ikd-after")
        assert all(claim.text in shown and claim.source in shown for claim in headlines.claim)
        assert re.search(r"wip@flow, over ikd-before +-51% to -41% ", shown)
        assert main(["scenarios", "ikd-before"]) == 0
        assert "ikd-after: wip@flow, over ikd-before" in capsys.readouterr().out
        assert main(["scenarios", "link-faults"]) == 0
        assert "broker_restart, after 35m, length 15s" in capsys.readouterr().out

    def test_a_device_is_described_with_units_and_defaults(self, capsys):
        assert main(["devices", "casting_cell"]) == 0
        assert re.search(r"cycle_s +[\d.]+ +s +\w", capsys.readouterr().out)


class TestConfig:
    def test_show_names_the_origin(self, capsys, monkeypatch):
        monkeypatch.setenv("BEILUN_RUN__SPEED", "60")
        assert main(["config", "show", "--scenario", "quickstart", "--json"]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        origin = {row["key"]: row["origin"] for row in rows}
        assert origin["run.speed"] == "BEILUN_RUN__SPEED"
        assert origin["edge.pane"] == "scenario quickstart"
        assert origin["log.level"] == "default"

    def test_check_knows_every_shipped_file_by_its_content(self, capsys):
        folder = Path(cli.__file__).parents[1] / "config"
        files = sorted(folder.rglob("*.toml"))
        assert main(["config", "check", *map(str, files)]) == 0
        kinds = {"scenarios": "scenario", "plants": "plant", "networks": "network profile",
                 "layouts": "layout",
                 "mappings": "mapping", "config": "claims"}  # fmt: skip
        for line, path in zip(capsys.readouterr().out.splitlines(), files, strict=True):
            kind = "alarms" if path.name == "alarms.toml" else kinds[path.parent.name]
            assert line.endswith(f"({kind})")

    def test_check_tells_of_every_bad_file(self, tmp_path, capsys):
        (tmp_path / "a.toml").write_text("length = 8\n")
        (tmp_path / "b.toml").write_text("nothing = 1\n")
        assert main(["config", "check", "a.toml", "b.toml", "c.toml"]) == 3
        error = capsys.readouterr().err
        assert all(f"error: {name}.toml" in error for name in "abc")

    @pytest.mark.parametrize(
        "kind", ["scenario", "plant", "settings", "network", "mapping", "alarms"]
    )
    def test_schema_holds_for_the_shipped_files(self, kind, capsys):
        jsonschema = pytest.importorskip("jsonschema")
        tomllib = pytest.importorskip("tomllib")
        assert main(["config", "schema", kind]) == 0
        schema = json.loads(capsys.readouterr().out)
        jsonschema.Draft202012Validator.check_schema(schema)
        folder = Path(cli.__file__).parents[1] / "config" / f"{kind}s"
        for path in folder.glob("*.toml") if kind in ("scenario", "plant") else ():
            data = json.loads(json.dumps(tomllib.loads(path.read_text()), default=str))
            jsonschema.validate(data, schema)


class TestInit:
    def test_writes_files_that_validate(self, tmp_path, capsys):
        assert main(["init", "floor", "--ci"]) == 0
        written = [Path(line) for line in capsys.readouterr().out.splitlines()]
        assert {p.name for p in written} == {
            "scenario.toml", "plant.toml", "beilun.toml", "beilun.yml", "beilun.sh",
        }  # fmt: skip
        assert main(["config", "check", *(str(p) for p in written if p.suffix == ".toml")]) == 0
        subprocess.run(["sh", "-n", "floor/ci/beilun.sh"], check=True)

    def test_the_settings_it_writes_are_the_defaults_once_uncommented(self, tmp_path):
        assert main(["init"]) == 0
        text = re.sub(r"(?m)^# (\w+ = )", r"\1", Path("beilun.toml").read_text())
        Path("beilun.toml").write_text(text.replace("/run/secrets/broker", "/nowhere"))
        assert main(["config", "check", "beilun.toml"]) == 0

    def test_overwrites_only_when_forced(self, tmp_path, capsys):
        (tmp_path / "plant.toml").write_text("mine")
        assert main(["init"]) == 2
        assert "already there: plant.toml" in capsys.readouterr().err
        assert [p.name for p in tmp_path.iterdir()] == ["plant.toml"]
        assert main(["init", "--force"]) == 0
        assert (tmp_path / "plant.toml").read_text() != "mine"


class TestDoctor:
    def test_says_what_it_found(self, capsys):
        assert main(["doctor", "--json"]) == 0
        found = {f["check"]: f for f in map(json.loads, capsys.readouterr().out.splitlines())}
        assert set(found) == {
            "python", "sqlite", "broker", "loopback", "disk", "clock", "settings", "terminal",
        }  # fmt: skip
        assert (found["broker"]["mark"] == "ok") == (shutil.which("mosquitto") is not None)

    def test_something_broken_is_1_with_a_fix(self, tmp_path, capsys):
        (tmp_path / "beilun.toml").write_text('[run]\nspeed = "fast"\n')
        assert main(["doctor"]) == 1
        assert re.search(r"✗ settings .*speed.*\n.*fix: ", capsys.readouterr().out)


def recording(path: Path, rows: Iterable[Row]) -> Recording:
    open_one = Recording.create(path)
    store = RowStore(open_one)
    store.prepare()
    store.write(rows)
    return open_one


def row(name: str, kpi: str, minute: int, value: float | None) -> Row:
    asset = Asset("beilun", "casting", "line1", name)
    return Row(asset, kpi, minute * MINUTE, MINUTE, value, 60, 0, "1")


@contextmanager
def watching() -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([*BEILUN, "watch", "--plain"], stdout=pipe, stderr=pipe, text=True) as it:
        try:
            yield it
        finally:
            it.kill()


class TestWatch:
    @pytest.fixture
    def live(self, tmp_path):
        rows = [row("dcm01", "oee", m, m / 10) for m in range(6)]
        rows += [row("dcm02", "oee", m, 0.1) for m in range(4)]
        rows += [row("dcm03", "oee", m, None) for m in range(6)]
        with recording(tmp_path / "runs" / "one.beilun", rows) as writer:
            yield writer

    def test_shows_the_worst_first_with_its_age_and_what_is_undefined_last(self, live, capsys):
        assert main(["watch", "--once"]) == 0
        _, header, *lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0][-5:] for line in lines] == ["dcm02", "dcm01", "dcm03"]
        assert "–" in lines[2]
        assert lines[0].endswith("2m")
        assert "▁▂▄▅▇█" in lines[1]
        assert header.split()[0] == "asset"

    def test_reads_the_last_windows_by_an_index_seek(self, live):
        plan = live.db.execute(f"EXPLAIN QUERY PLAN {watch.LAST}", (1, 20)).fetchall()
        assert [step[3] for step in plan] == ["SEARCH row USING PRIMARY KEY (series=?)"]

    def test_ends_when_the_run_has_finished(self, live, capsys):
        live.set_meta({"finished": "1"})
        assert main(["watch", "--plain"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 3
        assert lines[0] == "1970-01-01T00:04:00Z  casting/line1/dcm02  oee  0.100 1"

    def test_follows_while_another_process_writes(self, live):
        with watching() as process:
            first = [process.stdout.readline() for _ in range(3)]
            assert all("oee" in line for line in first)
            RowStore(live).write([row("dcm02", "oee", 6, 0.7)])
            assert process.stdout.readline().startswith("1970-01-01T00:07:00Z  casting/line1/dcm02")
            live.set_meta({"finished": "1"})
            assert process.stdout.read() == ""
            assert process.wait(10) == 0

    def test_ctrl_c_ends_it(self, live):
        with watching() as process:
            process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
            assert process.stderr.read() == ""

    def test_can_be_narrowed(self, live, capsys):
        assert main(["watch", "--once", "--kpi", "oe*", "--asset", "*02"]) == 0
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == [
            "casting/line1/dcm02"
        ]

    def test_says_which_windows_there_are(self, live, capsys):
        assert main(["watch", "--once", "--window", "7m"]) == 3
        assert "it has windows of 1m" in capsys.readouterr().err

    def test_without_a_recording_says_how_to_make_one(self, capsys):
        assert main(["watch"]) == 3
        assert "`beilun run quickstart` makes one" in capsys.readouterr().err

    def test_refuses_what_is_no_recording(self, tmp_path, capsys):
        (tmp_path / "x").write_bytes(b"no database" * 1000)
        assert main(["watch", "x"]) == 3
        assert "not readable as a recording" in capsys.readouterr().err
