"""The live table on a real pseudo-terminal: what is on the screen, and that it is given back."""

import fcntl
import itertools
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from beilun.commands import watch
from beilun.commands.watch import Board, Chosen, Line, Look
from config.units import NS_PER_S
from config.windows import Every
from edge.rows import Row
from edge.store import RowStore
from ingest.messages import Asset
from ingest.recording import Recording

MINUTE_NS = 60 * NS_PER_S
PATIENCE_S = 20.0
PYTHON = [sys.executable, "-m", "beilun"]
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("BEILUN_")} | {
    "TERM": "xterm-256color", "PS1": "shell> ", "LC_ALL": "C.UTF-8",
}  # fmt: skip
SCENARIO = {
    "expect": [
        {"kpi": "oee", "asset": "dcm*", "window": "1m", "op": ">=", "value": [0.6]},
        {"kpi": "delay_p99", "window": "1m", "op": "<=", "value": [10.0]},
        {"kpi": "availability", "window": "1h", "op": ">=", "value": [0.9]},
        {"kpi": "output", "window": "1h", "op": ">=", "value": [100.0]},
    ]
}


def row(
    name: str, kpi: str, minute: int, value: float | None, *, n: int = 60, unit: str = "1"
) -> Row:
    asset = Asset("s", "casting", "line1", name)
    return Row(asset, kpi, minute * MINUTE_NS, MINUTE_NS, value, n, 0, unit)


ROWS = [
    *(row("dcm01", "oee", m, 0.9) for m in range(6)),
    *(row("dcm02", "oee", m, 0.5) for m in range(6)),  # misses 0.6 by a sixth
    *(row("dcm03", "oee", m, 0.3) for m in range(6)),  # by a half
    *(row("dcm01", "delay_p99", m, 12.0, unit="ms") for m in range(6)),  # 10 by a fifth
    *(row("dcm02", "delay_p99", m, 9.0, unit="ms") for m in range(6)),
    *(row("arm01", "availability", m, 0.95 if m < 5 else None, n=60 * (m < 5)) for m in range(6)),
    *(
        row("crew", "worker_efficiency", m, 0.5 if m in (0, 3) else None, n=m in (0, 3))
        for m in range(6)
    ),
]


def recording(path: Path, rows: list[Row] = ROWS) -> Recording:
    made = Recording.create(path)
    made.set_meta({"scenario": json.dumps(SCENARIO), "edge": '{"windows": ["1m", "1h"]}'})
    store = RowStore(made)
    store.prepare()
    store.write(rows)
    return made


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Recording]:
    with recording(tmp_path / "a.beilun") as made:
        yield made


def alarm(name: str, rule: str, minute: int, value: float) -> Row:
    return row(name, f"alarm.{rule}", minute, value)


def alarmed(made: Recording, rows: list[Row]) -> None:
    """Rules of two severities, and rows of theirs."""
    text = {"en": "E", "zh": "Z"}
    rules = [
        {"name": name, "text": text, "severity": severity, "kpi": "oee", "window": "1m", "below": 1}
        for name, severity in (("down", "critical"), ("low", "warning"))
    ]
    made.set_meta({"alarms": json.dumps({"rule": rules})})
    RowStore(made).write(rows)


class TestAlarms:
    def test_those_that_stand_are_told_the_most_severe_first(self, live: Recording) -> None:
        assert looked(live).alarms == []
        rows = [alarm("dcm01", "low", 1, 1.0), alarm("dcm02", "down", 2, 1.0)]
        rows += [alarm("dcm03", "low", 0, 1.0), alarm("dcm03", "low", 3, 0.0)]  # over
        rows += [alarm("dcm04", "down", 0, 1.0)]
        alarmed(live, rows)
        RowStore(live).write([alarm("dcm04", "down", 0, 1.0)._replace(gone=True)])  # never was
        assert not [line for line in looked(live).lines if line.kpi.startswith("alarm.")]
        told = [each.text(6 * MINUTE_NS) for each in looked(live).alarms]
        assert told == [
            "▲ critical  down  casting/line1/dcm02  since 1970-01-01T00:03:00Z, 3m",
            "▲ warning   low  casting/line1/dcm01  since 1970-01-01T00:02:00Z, 4m",
        ]
        chosen = Chosen(Every(60 * MINUTE_NS), asset="dcm01")  # of any window, of these assets
        assert [each.rule for each in watch.look(live.db, live.path, chosen).alarms] == ["low"]

    def test_they_leave_room_for_the_table(self, live: Recording) -> None:
        alarmed(live, [alarm(f"dcm{n:02}", "low", n, 1.0) for n in range(9)])
        board = Board(live.path, Chosen(Every(MINUTE_NS)), looked(live))
        for height in (2, 3, 5, 12, 24, 60):
            frame = board.frame(100, height)
            assert len(frame) == height
            told = [line for line in frame if line.startswith("▲")]
            assert len(told) == min(9, height // 4)
            if 0 < len(told) < 9:
                assert told[-1] == f"▲ and {9 - len(told) + 1} more alarms"
        assert board.room + 3 + 9 == 60


# worst first ------------------------------------------------------------------------------------


def looked(made: Recording) -> Look:
    return watch.look(made.db, made.path, Chosen(Every(MINUTE_NS)))


def shown(made: Recording) -> list[tuple[str, str, str]]:
    return [(line.mark, line.asset[-5:], line.kpi) for line in looked(made).lines]


class TestWorst:
    def test_a_missed_target_comes_first_by_how_far_then_silence(self, live: Recording) -> None:
        assert shown(live)[:4] == [
            ("!", "dcm03", "oee"), ("!", "dcm01", "delay_p99"), ("!", "dcm02", "oee"),
            ("?", "arm01", "availability"),
        ]  # fmt: skip

    def test_then_values_by_their_own_direction(self, tmp_path: Path) -> None:
        rows = [
            row("m1", "quality_ratio", 0, 0.6), row("m2", "quality_ratio", 0, 0.7),  # up is better
            row("m1", "scrap_ratio", 0, 0.1), row("m2", "scrap_ratio", 0, 0.8),  # down is better
        ]  # fmt: skip
        with recording(tmp_path / "a.beilun", rows) as made:
            assert [f"{line.asset[-2:]} {line.kpi}" for line in looked(made).lines] == [
                "m2 scrap_ratio", "m1 quality_ratio", "m2 quality_ratio", "m1 scrap_ratio",
            ]  # fmt: skip

    def test_a_kpi_without_bounds_is_held_against_what_is_on_the_screen(
        self, tmp_path: Path
    ) -> None:
        rows = [row(f"m{n}", "delay_p50", 0, ms, unit="ms") for n, ms in enumerate((3.0, 9.0, 6.0))]
        rows += [row("m9", "quality_ratio", 0, 0.7)]  # between: a third from its best
        with recording(tmp_path / "a.beilun", rows) as made:
            names = [line.asset.rpartition("/")[2] for line in looked(made).lines]
        assert names == ["m1", "m2", "m9", "m0"]

    def test_no_data_misses_a_target_of_these_windows(self, tmp_path: Path) -> None:
        rows = [row("dcm01", "oee", 0, None), row("dcm02", "oee", 0, 0.1)]
        with recording(tmp_path / "a.beilun", rows) as made:
            first, second = looked(made).lines
        assert (first.asset[-5:], first.mark, first.target) == ("dcm01", "!", "≥0.600")
        assert second.mark == "!"

    def test_a_target_of_other_windows_holds_for_shares_but_not_for_amounts(
        self, tmp_path: Path
    ) -> None:
        rows = [row("m1", "availability", 0, 0.5), row("m1", "output", 0, 3.0, unit="{piece}"),
                row("m2", "availability", 0, None)]  # fmt: skip
        with recording(tmp_path / "a.beilun", rows) as made:
            found = {(line.asset[-2:], line.kpi): line for line in looked(made).lines}
        assert found["m1", "availability"].mark == "!"
        assert found["m1", "output"].target == ""
        assert found["m2", "availability"].mark == ""

    def test_a_crew_that_tells_now_and_then_is_not_silent(self, live: Recording) -> None:
        assert ("", "/crew", "worker_efficiency") in shown(live)

    @pytest.mark.parametrize(
        ("counts", "silent"),
        [
            ([0, 5, 5], True),
            ([0, 0, 0], True),
            ([3, 0, 0], False),
            ([0, 1, 0, 0, 0], False),
            ([0, 0, 1, 0, 0, 1], False),
        ],
    )
    def test_silence_is_no_sample_where_there_used_to_be_some(
        self, counts: list[int], silent: bool
    ) -> None:
        assert watch._fell_silent(counts) is silent


# keys -------------------------------------------------------------------------------------------


class TestBoard:
    @pytest.fixture
    def board(self) -> Board:
        lines = [
            Line(f"hall/m{n}", "oee", "1", 0, n / 50, 60, 50 - n, (n / 50,), badness=(2, n / 50))
            for n in range(50)
        ]
        return Board(Path("a"), Chosen(Every(MINUTE_NS)), Look(lines, 0, True))

    @pytest.mark.parametrize("size", [(80, 24), (20, 6), (300, 100), (40, 3), (5, 2)])
    def test_fits_any_terminal(self, board: Board, size: tuple[int, int]) -> None:
        for key in ("", "?", "q", "/"):
            board.press(key)
            frame = board.frame(*size)
            assert len(frame) <= size[1]
            assert all(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) <= size[0] for line in frame)

    def test_s_goes_through_all_orders_and_back(self, board: Board) -> None:
        seen = []
        for _ in watch.ORDERS_OF:
            board.press("s")
            seen.append(board.order)
        assert sorted(seen) == sorted(watch.ORDERS_OF) and board.order == "w"
        board.press("S")
        assert board.order == seen[-2]

    def test_letters_choose_an_order_and_r_turns_it(self, board: Board) -> None:
        board.press("l")
        assert board.lines()[0].late == 50
        board.press("r")
        assert board.lines()[0].late == 1
        board.press("v")
        assert board.lines()[0].value == 49 / 50

    def test_the_filter_takes_words_in_any_order(self, board: Board) -> None:
        for key in "/OEE m4":
            board.press(key)
        assert len(board.lines()) == 11
        board.press("backspace")
        assert len(board.lines()) == 50
        board.press("4")
        board.press("enter")
        board.press("v")  # an order again, no letter of the filter
        assert (board.order, len(board.lines())) == ("v", 11)
        board.press("escape")
        assert len(board.lines()) == 50

    def test_scrolls_no_further_than_there_are_lines(self, board: Board) -> None:
        board.frame(80, 13)
        for keys, top in (
            (["page down"], 10), (["down", "down"], 12), (["up"], 11), (["end"], 40),
            (["page down"], 40), (["home"], 0), (["page up"], 0),
        ):  # fmt: skip
            for key in keys:
                board.press(key)
            board.frame(80, 13)
            assert board.top == top, keys


# on a terminal ----------------------------------------------------------------------------------


class Glass:
    """What a terminal shows: as much of VT100 as Beilun writes, and no more."""

    def __init__(self, columns: int, lines: int) -> None:
        self.columns, self.height = columns, lines
        self.other = False
        self.cursor = self.wraps = True
        self._pages = {False: self._blank(), True: self._blank()}
        self._x = self._y = 0
        self._rest = ""

    def _blank(self) -> list[list[str]]:
        return [[" "] * 400 for _ in range(200)]

    @property
    def rows(self) -> list[str]:
        page = self._pages[self.other]
        return ["".join(line[: self.columns]).rstrip() for line in page[: self.height]]

    @property
    def text(self) -> str:
        return "\n".join(self.rows)

    def feed(self, data: str) -> None:
        self._rest += data
        while self._rest:
            found = re.match(r"\x1b\[(\??)([0-9;]*)([A-Za-z])", self._rest)
            if found is not None:
                self._control(*found.groups())
                self._rest = self._rest[found.end() :]
            elif self._rest[0] == "\x1b" and len(self._rest) < 12:
                return  # not all of it is here
            else:
                self._put(self._rest[0])
                self._rest = self._rest[1:]

    def _control(self, private: str, numbers: str, what: str) -> None:
        args = [int(n or 0) for n in numbers.split(";")]
        page = self._pages[self.other]
        if private:
            match args[0]:
                case 1049:
                    self.other = what == "h"
                case 25:
                    self.cursor = what == "h"
                case 7:
                    self.wraps = what == "h"
                case 2004:  # bash, for pasting
                    pass
                case _:
                    raise AssertionError(f"unknown mode {numbers}")
            return
        match what:
            case "H":
                self._y, self._x = max(1, args[0]) - 1, max(1, [*args, 1][1]) - 1
            case "J":
                self._pages[self.other] = self._blank()
            case "K":
                page[self._y] = [" "] * 400 if args[0] == 2 else page[self._y]
            case "m" | "C" | "P":
                pass
            case _:
                raise AssertionError(f"unknown control {what}")

    def _put(self, char: str) -> None:
        page = self._pages[self.other]
        if char == "\n":
            self._y += 1
        elif char == "\r":
            self._x = 0
        elif char >= " ":
            page[min(self._y, 199)][min(self._x, 399)] = char
            self._x += 1
            if self.wraps and self._x >= self.columns:
                self._x, self._y = 0, self._y + 1
        if not self.other and self._y >= self.height:
            page.append(page.pop(0))
            self._y = self.height - 1


class Terminal:
    """A process on a pseudo-terminal of its own, and what its screen shows."""

    def __init__(self, words: list[str], folder: Path, size: tuple[int, int]) -> None:
        self.master, self._slave = pty.openpty()
        self.resize(*size)
        self.glass = Glass(*size)
        self.before = termios.tcgetattr(self._slave)
        setsid = shutil.which("setsid")
        assert setsid is not None
        self.process = subprocess.Popen(
            [setsid, "-c", *words], stdin=self._slave, stdout=self._slave, stderr=self._slave,
            cwd=folder, env=ENVIRONMENT,
        )  # fmt: skip

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        if hasattr(self, "glass"):
            self.glass.columns, self.glass.height = columns, lines

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def take(self, timeout_s: float = 0.05) -> None:
        """Show what was written meanwhile."""
        while select.select([self.master], [], [], timeout_s)[0]:
            self.glass.feed(os.read(self.master, 65_536).decode("utf-8", "replace"))

    def until(self, condition: Callable[[], bool]) -> None:
        until_s = time.monotonic() + PATIENCE_S
        while not condition():
            self.take()
            assert time.monotonic() < until_s, self.glass.text

    def sees(self, text: str) -> None:
        self.until(lambda: text in self.glass.text)

    def ended(self) -> int:
        """Wait for the end; the code."""
        self.until(lambda: self.process.poll() is not None)
        self.take()
        return int(self.process.returncode)

    def assert_given_back(self) -> None:
        assert termios.tcgetattr(self._slave) == self.before
        assert not self.glass.other and self.glass.cursor and self.glass.wraps

    def hang_up(self) -> None:
        os.close(self._slave)
        os.close(self.master)
        self.master = -1

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.master >= 0:
            self.hang_up()


@contextmanager
def terminal(
    folder: Path, *words: str, size: tuple[int, int] = (120, 24), program: list[str] = PYTHON
) -> Iterator[Terminal]:
    made = Terminal([*program, *words], folder, size)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def watching(live: Recording, size: tuple[int, int] = (120, 24)) -> Iterator[Terminal]:
    with terminal(live.path.parent, "watch", live.path.name, size=size) as made:
        made.sees("q quit")
        yield made


class TestOnATerminal:
    def test_shows_the_table_follows_the_run_and_gives_the_terminal_back(
        self, live: Recording
    ) -> None:
        with watching(live) as it:
            assert it.glass.other and not it.glass.cursor
            title, head, first, *_ = it.glass.rows
            assert title == "a.beilun: 1m windows up to 1970-01-01T00:06:00Z"
            assert head.split() == [
                "asset", "kpi", "last", "target", "unit", "last", "20", "n", "late", "age"
            ]  # fmt: skip
            assert first.split() == [
                "!", "casting/line1/dcm03", "oee", "0.300", "≥0.600", "1", "▁▁▁▁▁▁", "60", "0", "0s"
            ]  # fmt: skip
            RowStore(live).write([row("dcm03", "oee", 6, 0.45)])
            it.sees("0.450")
            it.press("q")
            assert it.ended() == 0
            it.assert_given_back()
            assert it.glass.text.strip() == ""

    def test_keys_filter_sort_pause_and_help(self, live: Recording) -> None:
        with watching(live) as it:
            it.press("/dcm02 oee")
            it.sees("/dcm02 oee▏ 1 lines")
            it.press("\r")
            it.sees("1–1 of 1")
            assert "dcm01" not in it.glass.text
            it.press("\x1b")
            it.sees("of 7")
            it.press("a")
            it.sees("by asset")
            assert "arm01" in it.glass.rows[2]
            it.press("?")
            it.sees("this help; any key leaves it")
            it.press(" ")
            it.sees("casting/line1/arm01")
            it.press("p")
            it.sees("PAUSED")
            RowStore(live).write([row("dcm01", "oee", 6, 0.123)])
            it.take(1.0)
            assert "0.123" not in it.glass.text
            it.press("p")
            it.sees("0.123")
            it.press("q")
            assert it.ended() == 0
            it.assert_given_back()

    def test_scrolls_and_follows_the_size_of_the_terminal(self, tmp_path: Path) -> None:
        rows = [row(f"m{n:03}", "oee", 0, n / 1_000) for n in range(300)]
        with recording(tmp_path / "a.beilun", rows) as live, watching(live) as it:
            it.press("\x1b[6~")
            it.sees("22–42 of 300")
            it.press("\x1b[F")
            it.sees("280–300 of 300")
            it.press("\x1b[A")
            it.sees("279–299 of 300")
            it.press("\x1b[H")
            it.sees("1–21 of 300")
            for columns, lines in ((60, 10), (160, 40)):
                it.resize(columns, lines)
                it.sees(f"1–{lines - 3} of 300")
                it.take(0.5)
                assert len(it.glass.rows) == lines and "m000" in it.glass.rows[2]
            it.press("q")
            assert it.ended() == 0

    def test_draws_at_most_four_times_a_second(self, live: Recording) -> None:
        code = (
            "import sys, time; from beilun import terminal; from beilun.cli import main\n"
            "draw, times = terminal.Screen.draw, open('times', 'w')\n"
            "def timed(self, lines):\n"
            "    print(time.monotonic(), file=times, flush=True); draw(self, lines)\n"
            "terminal.Screen.draw = timed; sys.exit(main(['watch', 'a.beilun']))"
        )
        program = [sys.executable, "-c", code]
        with terminal(live.path.parent, program=program) as it:
            it.sees("q quit")
            for turn in range(60):
                it.press("\x1b[B\x1b[A")
                RowStore(live).write([row("dcm01", "oee", 6, turn / 100)])
                it.take(0.02)
            it.sees("0.590")
            it.press("q")
            assert it.ended() == 0
        times = [float(line) for line in (live.path.parent / "times").read_text().split()]
        assert len(times) > 4
        assert min(b - a for a, b in itertools.pairwise(times)) >= watch.REDRAW_S

    @pytest.mark.parametrize("how", ["ctrl-c", "SIGINT", "SIGTERM", "SIGHUP"])
    def test_is_given_back_whoever_ends_it(self, live: Recording, how: str) -> None:
        with watching(live) as it:
            if how == "ctrl-c":
                it.press("\x03")
            else:
                it.process.send_signal(signal.Signals[how])
            assert it.ended() == 0
            it.assert_given_back()

    def test_is_given_back_when_drawing_fails_and_then_it_says_why(self, live: Recording) -> None:
        code = (
            "import sys; from beilun.commands import watch; from beilun.cli import main\n"
            "frame = watch.Board.frame\n"
            "def broken(self, *size): return 1 / 0 if self.pressed else frame(self, *size)\n"
            "watch.Board.frame = broken; sys.exit(main(['watch', 'a.beilun']))"
        )
        with terminal(live.path.parent, program=[sys.executable, "-c", code]) as it:
            it.sees("q quit")
            it.press("a")
            assert it.ended() == 70
            it.assert_given_back()
            assert "this is a bug in beilun: ZeroDivisionError" in it.glass.text

    def test_a_writer_that_is_killed_is_said_to_be_silent(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writes = (
            "import itertools, time; from pathlib import Path; from tests.test_watch import *\n"
            "made = recording(Path('a.beilun'))\n"
            "for n in itertools.count():\n"
            "    RowStore(made).write([row('dcm01', 'oee', 6, n / 1e6)]); time.sleep(0.05)"
        )
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        writer = subprocess.Popen([sys.executable, "-c", writes], cwd=tmp_path)
        try:
            while not (tmp_path / "a.beilun").exists():
                assert writer.poll() is None
                time.sleep(0.02)
            code = (
                "import sys; from beilun.commands import watch; from beilun.cli import main\n"
                "watch.SILENCE_S = 1.0; sys.exit(main(['watch', 'a.beilun']))"
            )
            with terminal(tmp_path, program=[sys.executable, "-c", code]) as it:
                it.sees("casting/line1/dcm01")
                writer.kill()
                writer.wait()
                it.sees("nothing was written for ")
                assert "casting/line1/dcm03" in it.glass.text
                it.press("q")
                assert it.ended() == 0
                it.assert_given_back()
        finally:
            writer.kill()
            writer.wait()

    def test_a_terminal_that_goes_away_ends_it(self, live: Recording) -> None:
        with watching(live) as it:
            it.hang_up()
            assert it.process.wait(PATIENCE_S) == 0

    def test_ctrl_z_gives_it_back_and_fg_takes_it_again(self, live: Recording) -> None:
        words = ["--norc", "--noprofile", "--noediting", "-i"]
        with terminal(live.path.parent, *words, program=["bash"]) as it:
            it.sees("shell>")
            it.press("stty -g >one\r")
            it.press(" ".join(PYTHON) + " watch a.beilun\r")
            it.sees("q quit")
            it.press("\x1a")
            it.sees("Stopped")
            assert not it.glass.other and it.glass.cursor
            it.press("stty -g >two\r")
            it.press("fg\r")
            it.sees("q quit")
            assert it.glass.other and not it.glass.cursor
            it.press("q")
            it.until(lambda: not it.glass.other)
            it.press("stty -g >three; echo $? done\r")
            it.sees("0 done")
            folder = live.path.parent
            assert (folder / "one").read_text() == (folder / "two").read_text()
            assert (folder / "one").read_text() == (folder / "three").read_text()

    def test_without_keys_it_shows_all_the_same(self, live: Recording) -> None:
        """Its input is a pipe that has ended."""
        words = ["-c", f"true | {' '.join(PYTHON)} watch a.beilun"]
        with terminal(live.path.parent, *words, program=["sh"]) as it:
            it.sees("q quit")
            it.take(0.6)
            assert it.process.poll() is None
            it.press("\x03")
            it.ended()
            it.assert_given_back()


def test_a_pipe_that_dies_ends_it_without_a_word(live: Recording) -> None:
    words = [*PYTHON, "watch", "--plain", str(live.path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, env=ENVIRONMENT) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        RowStore(live).write([row("dcm01", "oee", 7, 0.5)])
        assert process.wait(PATIENCE_S) == 130
        assert b"Traceback" not in process.stderr.read()
