"""Alarms: a day's rows of sixty assets through the shipped rules, and what an amendment costs.

    pytest bench/bench_alarms.py --benchmark-only -p no:xdist

Each asset's control traffic is down for five minutes of every hour, so what must come out is known:
an alarm an hour and asset, raised in the first of them and cleared in the third good one after.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from config.alarms import rules_in_force
from config.units import NS_PER_S
from config.windows import Every
from edge import kpis
from edge.alarms import Alarms
from edge.rows import LastRows, Row
from edge.store import RowStore
from ingest.messages import Asset
from ingest.recording import Recording

MINUTE_NS = 60 * NS_PER_S
START_NS = 1_546_300_800 * NS_PER_S
ASSETS, MINUTES = 60, 1_440
DOWN = range(10, 15)
CLEARED = 17
HEALTHY = {
    "service_availability": 1.0, "within_10ms": 0.98, "clock_skew": -4.0, "availability": 1.0,
    "line_speed": 0.9, "agv_battery_min": 0.6,
}  # fmt: skip
"""What the rules of one-minute windows look at, of assets."""
PLACES = [Asset("s", "a", "l", f"m{n:02}") for n in range(ASSETS)]
RULES = rules_in_force("default", kpis=kpis.load(), windows=("1m",))
WINDOWS = (Every(MINUTE_NS),)


def row(place: Asset, kpi: str, minute: int, value: float) -> Row:
    return Row(place, kpi, START_NS + minute * MINUTE_NS, MINUTE_NS, value, 60, 0, "1")


def of_minute(minute: int) -> list[Row]:
    """The rows that come out as one minute closes."""
    up = HEALTHY | ({"service_availability": 0.0} if minute % 60 in DOWN else {})
    return [row(place, kpi, minute, value) for kpi, value in up.items() for place in PLACES]


def told_at(rows: list[Row]) -> Counter[tuple[str, int, float | None, bool]]:
    """Of alarm rows: which, in which minute of the hour, and what."""
    return Counter(
        (r.kpi, (r.window_start_ns - START_NS) // MINUTE_NS % 60, r.value, r.gone) for r in rows
    )


def down(minute: int, value: float, *, gone: bool = False) -> tuple[str, int, float, bool]:
    return "alarm.service_down", minute, value, gone


def no_kind(asset: Asset) -> str:
    del asset
    return "cable_line"


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[RowStore]:
    with Recording.create(tmp_path / "a.beilun") as recording:
        store = RowStore(recording)
        store.prepare()
        yield store


def test_a_day(benchmark: BenchmarkFixture) -> None:
    """Minute by minute, as in a run; rows that come in order are looked up nowhere."""
    minutes = [of_minute(minute) for minute in range(MINUTES)]

    def fold() -> list[Row]:
        alarms = Alarms(RULES, WINDOWS, LastRows())
        return [told for rows in minutes for told in alarms.fold(rows, no_kind)]

    found = benchmark.pedantic(fold, rounds=3)
    n = ASSETS * MINUTES // 60
    assert told_at(found) == {down(DOWN[0], 1.0): n, down(CLEARED, 0.0): n}
    assert benchmark.stats is not None
    rows = sum(map(len, minutes))
    benchmark.extra_info |= {"rows": rows, "rows a second": round(rows / benchmark.stats["mean"])}


def test_amendments_of_an_hour(benchmark: BenchmarkFixture, stored: RowStore) -> None:
    """Over the rows of a recording: of every asset the first minute of an outage turns out to have
    been none, so the alarm is raised a minute later."""
    alarms = Alarms(RULES, WINDOWS, stored)
    for minute in range(60):
        rows = of_minute(minute)
        stored.write(rows)
        stored.write(alarms.fold(rows, no_kind))
    good = [row(place, "service_availability", DOWN[0], 1.0) for place in PLACES]
    stored.write(good)

    found = benchmark.pedantic(lambda: alarms.fold(good, no_kind), rounds=1)
    n = len(PLACES)
    assert told_at(found) == {down(DOWN[0], 1.0, gone=True): n, down(DOWN[1], 1.0): n}
    assert benchmark.stats is not None
    benchmark.extra_info["ms an amendment"] = round(benchmark.stats["mean"] / n * 1e3, 3)
