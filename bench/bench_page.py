"""What the page costs in a browser: a week of data opened, an hour left open, many tabs at once.

    python bench/bench_page.py week  [--recording FILE]     views of a week, from address to drawn
    python bench/bench_page.py soak  [--minutes 60]         heap, elements and the server's memory
    python bench/bench_page.py tabs  [--tabs 20]            the server's CPU with so many open pages

Each makes what it needs, asserts that what it timed was drawn, and says what it measured. They need
chromium and chromedriver, and nothing beyond this host.
"""

import argparse
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from beilun.offline import run_offline
from config.scenario import find_scenario
from config.units import NS_PER_S, format_time
from tests import chromium

SPEED = 20
"""Times real time, of the run that is watched: an hour of it is most of a day of windows."""


def say(*words: object) -> None:
    """For whoever runs it."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


@contextmanager
def served(recording: Path) -> Iterator[tuple[str, int]]:
    """``beilun serve`` in a process of its own; yields its address and its number."""
    line = [sys.executable, "-m", "beilun", "serve", str(recording), "--port", "0"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip().rstrip("/"), server.pid
        finally:
            server.terminate()


# a week -----------------------------------------------------------------------------------------

WEEK = {
    "length": "7d", "telemetry": "1m",
    "edge": {"pane": "1m", "windows": ["1m", "1h", "8h", "1d"]},
    "change": [
        {"name": "drawn", "why": "it is made sooner", "set": {"heartbeats": "drawn"}},
    ],
}  # fmt: skip
PRESS, CABLE = "ningbo/casting/line1/dcm01", "ningbo/cable/hall1/cl01"
WITHIN_S = 2.0
_NUMBERS = "[...document.querySelectorAll('.b-number')].map(e => e.textContent)"
_LETTERS = "[...document.querySelectorAll('.m-letter')].map(e => e.textContent)"
_CHARTS = (
    "[...document.querySelectorAll('.nicegui-echart')].filter(e => e.offsetParent).map(e => {"
    " const chart = e.querySelector('canvas') && getElement(e.id.slice(1)).chart;"
    " const told = chart ? chart.getModel().getSeries().map(s => s.getData()) : [];"
    " const ends = told.filter(d => d.count()).map(d => d.getDataExtent(d.dimensions[0]));"
    " return {points: told.reduce((n, d) => n + d.count(), 0), time: chart?.getModel()"
    ".getComponent('xAxis')?.get('type') === 'time', days: (Math.max(...ends.map(e => e[1]))"
    " - Math.min(...ends.map(e => e[0]))) / 864e5}; })"
)
OVERVIEW = (
    f"const tiles = {_NUMBERS}, letters = {_LETTERS};"
    "return tiles.length >= 4 && !tiles.includes('–') && letters.length >= 8"
    " && letters.every(l => /[A-Z]/.test(l)) && document.querySelectorAll('.m-vehicle').length"
)
"""Every tile has its number, every machine its state, and vehicles are on the map."""
DRAWN = f"return {_CHARTS}.filter(c => c.points).length >= arguments[0]"
"""So many charts have something on them: the works stand still at the end of a week."""
OF_A_WEEK = (
    f"const charts = {_CHARTS}.filter(c => c.time || !c.points);"
    "return charts.every(c => c.points || !c.time)"
    " && charts.filter(c => c.time && c.days > 6).length >= arguments[0]"
)
"""Every chart of time is filled, and those of what goes on all the time over the week: states, a
temperature, a KPI."""


def make_week(path: Path) -> None:
    """Seven days of the quickstart factory, from machine to KPI row, with the truth. It works a
    shift a day, and has orders for three."""
    run_offline(find_scenario("quickstart", changes=WEEK), path)


def week(folder: Path, kept: Path | None, rounds: int) -> None:
    """Each view of a week, from its address to drawn: in a server that has just been started, and
    again in one that has shown it."""
    path = kept or folder / "week.beilun"
    if not path.exists():
        began = time.monotonic()
        make_week(path)
        say(f"a week of quickstart, made in {time.monotonic() - began:.0f} s")
    say(f"{path.stat().st_size / 1e6:,.0f} MB")
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        (first_ns, last_ns) = db.execute("SELECT min(first_ns), max(last_ns) FROM block").fetchone()
        counts = {
            table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("row", "truth", "landmark", "block")
        }
    say(f"{(last_ns - first_ns) / 86_400e9:.2f} days;", counts)
    assert last_ns - first_ns > 6.9 * 86_400e9 and all(counts.values())
    middle = format_time(first_ns // NS_PER_S * NS_PER_S + 2 * 86_400 * NS_PER_S)
    took: dict[str, list[float]] = {}
    spent: dict[str, list[float]] = {}
    with chromium.browser(folder / "profile", 1600, 900) as browser:

        def timed(
            what: str, address: str, drawn: str, least: int = 0, *, whole: bool = False
        ) -> None:
            browser.open("about:blank")
            began, used = time.monotonic(), cpu_s(pid)
            browser.open(address)
            if whole:
                browser.until(lambda: browser.all(".v-switch button"), "the spans", 60)
                began = time.monotonic()
                used = cpu_s(pid)
                browser.all(".v-switch button")[-1].click()
            browser.until(lambda: browser.run(drawn, least), what, 120)
            took.setdefault(what, []).append(time.monotonic() - began)
            spent.setdefault(what, []).append(cpu_s(pid) - used)

        for _ in range(rounds):
            with served(path) as (url, pid):
                for state in ("first", "again"):
                    timed(f"overview, {state}", url, OVERVIEW)
                    timed(f"overview of the third day, {state}", f"{url}/?t={middle}", OVERVIEW)
                    timed(f"a press, {state}", f"{url}/asset?at={PRESS}", DRAWN, 3)
                    timed(f"a press over the week, {state}", f"{url}/asset?at={PRESS}",
                          OF_A_WEEK, 3, whole=True)  # fmt: skip
                    timed(f"the cable line over the week, {state}", f"{url}/asset?at={CABLE}",
                          OF_A_WEEK, 3, whole=True)  # fmt: skip
                    timed(f"the casting area's losses, {state}",
                          f"{url}/area?at=ningbo/casting&w=1d&t={middle}", DRAWN, 2)  # fmt: skip
    for what, seconds in took.items():
        cpu = statistics.median(spent[what])
        say(f"  {what:38} {statistics.median(seconds):5.2f} s, {cpu:.2f} s of CPU; all:",
            " ".join(f"{one:.2f}" for one in seconds))  # fmt: skip
    late = [w for w, seconds in took.items() if statistics.median(seconds) >= WITHIN_S]
    assert not late, f"not drawn in {WITHIN_S:g} s: {late}"


# an hour ----------------------------------------------------------------------------------------


@contextmanager
def running(recording: Path, minutes: float, speed: float = SPEED) -> Iterator[None]:
    """The quickstart factory and its edge, at work for so long and a little longer."""
    virtual_m = round((minutes + 5) * speed)
    line = [
        sys.executable, "-m", "beilun", "run", "quickstart", "--speed", f"{speed:g}", "--for",
        f"{virtual_m}m", "--broker", "embedded", "-o", str(recording), "-q",
    ]  # fmt: skip
    with subprocess.Popen(line, stdout=subprocess.DEVNULL) as run:
        try:
            until = time.monotonic() + 60
            while not recording.exists() and time.monotonic() < until:
                assert run.poll() is None, "the run ended"
                time.sleep(0.1)
            yield
        finally:
            run.terminate()


def soak(folder: Path, minutes: float) -> None:
    """The overview of a run, left open while it goes on; a line a minute."""
    recording = folder / "live.beilun"
    with (
        running(recording, minutes), served(recording) as (url, pid),
        chromium.browser(folder / "profile", 1600, 900) as browser,
    ):  # fmt: skip
        browser.open(url)
        browser.until(lambda: len(browser.all(".b-tile")) >= 3, "tiles", 120)
        browser.until(lambda: browser.all(".m-vehicle"),
                      "vehicles", 120)  # fmt: skip
        utc = ".b-time[data-clock=utc] .b-hour"
        began, shown, table = time.monotonic(), "", list[tuple[float, ...]]()
        say("minute  heap MB  elements  RSS MB  CPU %   shown")
        used = cpu_s(pid)
        while True:
            minute = (time.monotonic() - began) / 60
            now, was = browser.text(utc), shown
            assert browser.text(".b-mode") == "Live", browser.text(".b-mode")
            assert now != was, "the page stands still"
            shown, spent = now, cpu_s(pid)
            row = (minute, browser.heap_bytes() / 1e6, browser.nodes(), rss_mb(pid), spent - used)
            used = spent
            browser.complaints(), browser.hosts()  # what was logged is let go
            table.append(row)
            said = f"{row[0]:6.1f} {row[1]:8.2f} {row[2]:9.0f} {row[3]:7.1f} {row[4] / 0.6:6.1f}"
            say(said, " ", now)
            if minute >= minutes:
                break
            time.sleep(max(0.0, began + 60 * len(table) - time.monotonic()))
    half = np.array(table[len(table) // 2 :])
    for what, column, unit in (("heap", 1, "MB"), ("elements", 2, ""), ("RSS", 3, "MB")):
        slope = np.polyfit(half[:, 0], half[:, column], 1)[0] * 60
        say(f"{what}: {slope:+.2f} {unit} an hour, over the second half")


# many tabs --------------------------------------------------------------------------------------


def tabs(folder: Path, most: int, seconds: float, speed: float) -> None:
    """The server's CPU with so many pages of one run, each in a tab of its own."""
    recording = folder / "live.beilun"
    with (
        running(recording, 10 + 3 * seconds / 60, speed), served(recording) as (url, pid),
        chromium.browser(folder / "profile", 1600, 900) as browser,
    ):  # fmt: skip
        utc = ".b-time[data-clock=utc] .b-hour"
        drivers, began_at = browser.chrome, dict[str, str]()
        say("pages  CPU %  RSS MB")
        for pages in sorted({0, 1, most}):
            while len(drivers.window_handles) <= pages:
                drivers.switch_to.new_window("tab")
                browser.open(url)
                browser.until(lambda: browser.all(".m-vehicle") and browser.all(".b-tile"),
                              "the map", 120)  # fmt: skip
                began_at[drivers.current_window_handle] = browser.text(utc)
            began, used = time.monotonic(), cpu_s(pid)
            time.sleep(seconds)
            share = (cpu_s(pid) - used) / (time.monotonic() - began)
            say(f"{pages:5} {share * 100:6.1f} {rss_mb(pid):7.1f}")
        for handle in drivers.window_handles[1:]:
            drivers.switch_to.window(handle)
            assert browser.text(".b-mode") == "Live"
            assert browser.text(utc) > began_at[handle], "every page goes on"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    what = words.add_subparsers(dest="what", required=True)
    of_week = what.add_parser("week")
    of_week.add_argument("--recording", type=Path, help="where it is kept")
    of_week.add_argument("--rounds", type=int, default=5)
    of_soak = what.add_parser("soak")
    of_soak.add_argument("--minutes", type=float, default=60)
    of_tabs = what.add_parser("tabs")
    of_tabs.add_argument("--tabs", type=int, default=20)
    of_tabs.add_argument("--seconds", type=float, default=30)
    of_tabs.add_argument("--speed", type=float, default=1)
    asked = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if asked.what == "week":
            week(Path(folder), asked.recording, asked.rounds)
        elif asked.what == "soak":
            soak(Path(folder), asked.minutes)
        elif asked.what == "tabs":
            tabs(Path(folder), asked.tabs, asked.seconds, asked.speed)


if __name__ == "__main__":
    main()
