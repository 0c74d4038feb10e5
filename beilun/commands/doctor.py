"""Checks of this machine, each with a fix."""

import contextlib
import os
import platform
import re
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from beilun import console
from config.errors import BeilunError, Exit

Mark = Literal["ok", "warn", "broken"]
SIGNS: dict[Mark, tuple[str, str]] = {
    "ok": ("✓", "good"),
    "warn": ("!", "warn"),
    "broken": ("✗", "bad"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found, and what to do about it."""

    check: str
    mark: Mark
    text: str
    fix: str = ""


def command(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> Exit:
    """Check Python, SQLite, broker, ports, disk, clock and settings; 1 if something is broken."""
    found = [check() for check in CHECKS]
    if as_json:
        console.ndjson(
            {"check": f.check, "mark": f.mark, "text": f.text, "fix": f.fix} for f in found
        )
    else:
        width = max(len(finding.check) for finding in found)
        for finding in found:
            sign, style = SIGNS[finding.mark]
            console.out(f"{console.paint(sign, style, sys.stdout)} {finding.check:{width}}  "
                        f"{finding.text}")  # fmt: skip
            if finding.fix:
                console.out(f"  {'':{width}}  fix: {finding.fix}")
    return Exit.FAILED if any(finding.mark == "broken" for finding in found) else Exit.OK


def python() -> Finding:
    """The interpreter; pip installs Beilun on none that is too old."""
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("python", "ok", text)


def sqlite() -> Finding:
    """The database a recording is, in the directory where recordings go."""
    version = f"SQLite {sqlite3.sqlite_version}"
    if sqlite3.sqlite_version_info < (3, 35):
        return Finding("sqlite", "broken", version, "use a Python with SQLite 3.35 or newer")
    folder = existing(directory())
    try:
        commit_ms = commit_time_ms(folder)
    except (sqlite3.Error, OSError) as error:
        return Finding(
            "sqlite",
            "broken",
            f"{version}; no WAL file can be written in {folder}: {error}",
            "make it writable, or set run.directory to a local disk",
        )
    text = f"{version}; a durable commit in {folder} takes {console.number(commit_ms)} ms"
    if commit_ms > 100:
        return Finding("sqlite", "warn", text, "a local disk as run.directory is faster")
    return Finding("sqlite", "ok", text)


def commit_time_ms(folder: Path) -> float:
    """Median time of a small commit that is on disk when it returns."""
    with tempfile.TemporaryDirectory(prefix=".beilun-doctor-", dir=folder) as place:
        path = Path(place) / "probe"
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            mode = db.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            if mode != "wal":
                raise sqlite3.OperationalError(f"journal mode stays {mode}")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("CREATE TABLE probe (value BLOB)")
            times: list[float] = []
            for _ in range(7):
                start = time.perf_counter()
                db.execute("INSERT INTO probe VALUES (zeroblob(4096))")
                times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def broker() -> Finding:
    """Who carries the messages of ``beilun run``."""
    from ingest.broker import mosquitto_path

    server = mosquitto_path()
    if server is None:
        return Finding(
            "broker",
            "warn",
            "mosquitto is not installed; the embedded broker serves a one-command run, not"
            " durability",
            "install mosquitto (apt install mosquitto), or name a broker with --broker",
        )
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        told = subprocess.run(
            [server, "-h"], capture_output=True, text=True, timeout=5, check=False
        )
        if version := re.search(r"version (\S+)", told.stdout):
            return Finding("broker", "ok", f"mosquitto {version[1]} ({server})")
    return Finding("broker", "warn", f"{server} does not answer", "reinstall mosquitto")


def port() -> Finding:
    """A loopback port for a broker of our own."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = server.getsockname()
            with socket.create_connection(address, timeout=2):
                return Finding("loopback", "ok", "a free port on 127.0.0.1 can be used")
    except OSError as error:
        fix = "allow TCP on 127.0.0.1, or name a broker with --broker"
        return Finding("loopback", "broken", f"no port on 127.0.0.1: {error}", fix)


def disk() -> Finding:
    """Room for recordings."""
    folder = existing(directory())
    free_mb = shutil.disk_usage(folder).free / 1e6
    text = f"{console.number(free_mb / 1e3)} GB free in {folder}"
    if free_mb < 100:
        return Finding("disk", "broken", text, "free some space, or set run.directory elsewhere")
    if free_mb < 1000:
        return Finding("disk", "warn", text, "a day of a large factory may not fit")
    return Finding("disk", "ok", text)


def clock() -> Finding:
    """The steps of the host's clock, which stamps what real devices send."""
    steps: set[int] = set()
    last = time.time_ns()
    until = time.perf_counter() + 0.02
    while time.perf_counter() < until:
        now = time.time_ns()
        if now != last:
            steps.add(now - last)
            last = now
    smallest_us = min((step for step in steps if step > 0), default=20_000_000) / 1e3
    text = f"steps of {console.number(smallest_us)} µs"
    if smallest_us > 1000:
        return Finding("clock", "warn", text, "delays of real devices are known no better")
    return Finding("clock", "ok", text)


def settings() -> Finding:
    """``beilun.toml`` and the environment."""
    from config import settings as layers

    try:
        layers.load()
    except BeilunError as error:
        return Finding(
            "settings", "broken", " ".join(str(error).split()), "mend the settings named"
        )
    nearest = layers.nearest_file(Path.cwd())
    return Finding("settings", "ok", f"{nearest or 'no beilun.toml'}: valid")


def terminal() -> Finding:
    """What the screen can show."""
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    if encoding != "utf8":
        fix = "set PYTHONUTF8=1, or a UTF-8 locale"
        return Finding("terminal", "warn", f"writes {sys.stdout.encoding}, not UTF-8", fix)
    if not console.is_terminal(sys.stdout):
        return Finding("terminal", "ok", "none: plain text")
    why = "NO_COLOR is set" if os.environ.get("NO_COLOR") else "colours"
    return Finding("terminal", "ok", why)


def directory() -> Path:
    """Where recordings go; the default where the settings are broken, which is told elsewhere."""
    from config import settings as layers

    try:
        return layers.load().run.directory
    except BeilunError:
        return layers.Run().directory


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    start = folder.absolute()
    return next(path for path in (start, *start.parents) if path.is_dir())


CHECKS: tuple[Callable[[], Finding], ...] = (
    python,
    sqlite,
    broker,
    port,
    disk,
    clock,
    settings,
    terminal,
)
