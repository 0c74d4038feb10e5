"""The README: what it tells to type works, and prints what it shows."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import pytest

from beilun.cli import COMMANDS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
DATA = ROOT / "../shared/data/ur3_cobotops"
BIN = Path(sys.executable).parent

BLOCK = re.compile(r"^(?:<!-- ([^\n]+) -->\n)?```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOTE = re.compile(r"(?:not run|needs|test): .+")
VARIES = re.compile(r"\d{8}T\d{6}-[0-9a-f]{6}|127\.0\.0\.1:\d+|[\d,]+ bytes|\b[0-9a-f]{12,64}\b")
"""Names of runs, ports, sizes of files, and digests, which hold for one build only."""

SQLITE = """\
#!{python}
import sqlite3, sys
for row in sqlite3.connect(f"file:{{sys.argv[1]}}?mode=ro", uri=True).execute(sys.argv[2]):
    print(*("" if cell is None else cell for cell in row), sep="|")
"""
"""The shell of SQLite, as far as the README goes, for machines without it."""


@dataclass(frozen=True, slots=True)
class Step:
    """A command and the lines shown below it; ``...`` stands for what was left out."""

    line: int
    command: str
    shown: tuple[str, ...]

    @property
    def code(self) -> int:
        """The exit code it tells of."""
        told = (re.match(r"exit (\d+): ", line) for line in self.shown)
        return next((int(found[1]) for found in told if found), 0)


@dataclass(frozen=True, slots=True)
class Block:
    """One ``console`` block and the comment before it."""

    note: str
    steps: tuple[Step, ...]


def blocks() -> Iterator[Block]:
    for found in BLOCK.finditer(TEXT):
        first = TEXT.count("\n", 0, found.start(2)) + 1
        steps: list[Step] = []
        for number, line in enumerate(found[2].splitlines(), first):
            if line.startswith("$ "):
                steps.append(Step(number, line[2:], ()))
            else:
                last = steps.pop()
                shown = (*last.shown, line) if line.strip() not in ("", "...") else last.shown
                steps.append(Step(last.line, last.command, shown))
        yield Block(found[1] or "", tuple(steps))


def plain(line: str) -> str:
    """A line without what no two runs share."""
    return " ".join(VARIES.sub("~", line).split())


def problems(step: Step, done: subprocess.CompletedProcess[str]) -> Iterator[str]:
    where = f"README.md:{step.line}: {step.command}"
    if done.returncode != step.code:
        yield f"{where}\n  exit {done.returncode} instead of {step.code}\n{done.stdout[-2000:]}"
    printed = [plain(line) for line in done.stdout.splitlines()]
    for line in step.shown:
        if plain(line) not in printed:
            near = get_close_matches(plain(line), printed, n=1, cutoff=0.0)
            yield f"{where}\n  shown    {line.strip()}\n  printed  {near[0] if near else 'nothing'}"


@pytest.mark.slow
def test_commands_print_what_is_shown(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BEILUN_")}
    environment["PATH"] = os.pathsep.join([str(tmp_path), str(BIN), os.environ["PATH"]])
    if shutil.which("sqlite3") is None:
        (tmp_path / "sqlite3").write_text(SQLITE.format(python=sys.executable))
        (tmp_path / "sqlite3").chmod(0o755)
    found: list[str] = []
    for block in blocks():
        kind, _, rest = block.note.partition(": ")
        if kind == "not run":
            continue
        if kind == "needs":
            if not (DATA / rest).is_file():
                continue
            shutil.copy(DATA / rest, tmp_path)
        for step in block.steps:
            command = rest.partition(" (")[0] if kind == "test" else step.command
            done = subprocess.run(
                ["sh", "-c", command], cwd=tmp_path, env=environment, text=True, timeout=200,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
            found += problems(step, done)
    assert not found, "\n" + "\n".join(found)


def test_what_is_not_run_says_why() -> None:
    for block in blocks():
        assert not block.note or NOTE.fullmatch(block.note), block.note
        for step in block.steps:
            first = step.command.split()[0]
            run = first in ("beilun", "sqlite3", "python")
            assert run or block.note, f"{step.command}: says not why"


@cache
def help_of(*verb: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "beilun", *verb, "--help"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def test_verbs_and_options_exist_also_where_nothing_is_run() -> None:
    inline = re.findall(r"`(?:/usr/bin/time -v |time )?(beilun [a-z][^`]*)`", TEXT)
    commands = [step.command for block in blocks() for step in block.steps] + inline
    for command in commands:
        program, *words = shlex.split(command)
        if program != "beilun" or words[0].startswith("-"):
            continue
        assert words[0] in COMMANDS, command
        two_words = " ".join(words[:2]) in COMMANDS or words[0] in ("map", "config")
        group = 2 if two_words else 1
        known = help_of(*words[:group])
        for option in (word for word in words[group:] if word.startswith("-")):
            assert re.search(rf"(?<![\w-]){re.escape(option)}\b", known), f"{command}: {option}"


def test_the_verbs_are_all_there() -> None:
    table = TEXT.split("| verb | does |")[1].split("\n\n")[0]
    assert set(re.findall(r"`([\w ]+)`", table)) >= set(COMMANDS)


def test_make_run_is_the_run_that_is_tested() -> None:
    recipe = (ROOT / "Makefile").read_text().split("\nrun:")[1].split("\n\n")[0]
    assert recipe.splitlines()[-1].strip() == "$(BIN)/beilun run quickstart"
