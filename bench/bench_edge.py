"""The edge: folding columns, decoding messages, and the whole path from bytes to rows."""

import functools
import gc
import os
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from config.windows import Every
from edge import kpis
from edge.columns import Columns
from edge.engine import Engine
from edge.kpis.oee import UNIT
from edge.measures import Measure
from edge.measures.flows import Flows
from edge.measures.values import Values
from edge.policy import Policy
from edge.rows import Row
from ingest.decode import Decoder
from ingest.messages import (
    Asset,
    Batch,
    Birth,
    Envelope,
    Identity,
    Message,
    Meta,
    Progress,
    Record,
    Reject,
)

S = 10**9
N = 100_000
T0 = 1_767_571_200 * S
ASSET = Asset("s", "a", "l", "m")


def family(measure: Measure) -> str:
    return type(measure).__name__


_ALL = [m for kpi in kpis.load().values() for m in kpi.measures]
FAMILIES: dict[str, Measure] = {family(m): m for m in _ALL} | {
    "Situations": UNIT, "Flows": Flows("energy_kwh"), "Values": Values("current_a", 1_000),
}  # fmt: skip
"""A measure of every family there is."""


def told(measure: Measure, n: int, *, begin: int = 0) -> Columns:
    """``n`` samples of 1 Hz of everything a measure reads, in batches of at most 100,000."""
    t_ns = T0 + np.arange(begin, begin + n, dtype=np.int64) * S
    number = np.arange(begin, begin + n)
    known = {
        "state": np.where(number % 600 < 540, 6.0, 11.0),
        "current_a": np.sin(number / 50.0),
        "bin": (number % 500).astype(np.float64),
        "count": np.ones(n),
    }
    names = measure.channels or ("bin", "count")
    channels = {name: known.get(name, (number // 60).astype(np.float64)) for name in names}
    meta = Meta(Identity("m", 1, begin + 1), int(t_ns[-1]), int(t_ns[-1]))
    stream = "link" if "bin" in channels else getattr(measure, "_stream", "") or "process"
    batches = [Batch(ASSET, stream, t_ns, channels, meta)]
    return Columns(batches, int(t_ns[0]), int(t_ns[-1]) + S)


@pytest.mark.parametrize("name", sorted(FAMILIES))
@pytest.mark.benchmark(group="fold")
def test_fold_100_000_samples(benchmark: Any, name: str) -> None:
    measure = FAMILIES[name]
    whole = told(measure, N)
    state = benchmark(measure.fold, whole)
    half = N // 2
    halves = [measure.fold(told(measure, half, begin=begin)) for begin in (0, half)]
    if measure.channels:  # a message is sent once, so delays are of one half only
        assert measure.facts(state) == measure.facts(measure.merge(*halves))
    assert measure.facts(state)
    benchmark.extra_info["million samples/s"] = N / benchmark.stats.stats.median / 1e6


@pytest.mark.parametrize("name", sorted(FAMILIES))
@pytest.mark.benchmark(group="merge")
def test_merge_two_minutes(benchmark: Any, name: str) -> None:
    measure = FAMILIES[name]
    a, b = (measure.fold(told(measure, 60, begin=begin)) for begin in (0, 60))
    both = benchmark(measure.merge, a, b)
    if measure.channels:
        assert measure.facts(both) == measure.facts(measure.fold(told(measure, 120)))


@pytest.mark.parametrize("name", sorted(FAMILIES))
@pytest.mark.benchmark(group="close")
def test_close_an_hour(benchmark: Any, name: str) -> None:
    """From a state to facts, and to the values of all KPIs that are made of these alone."""
    measure = FAMILIES[name]
    made_of_it = [kpi for kpi in kpis.load().values() if kpi.measures == (measure,)]

    def close(state: object) -> list[float | None]:
        facts = measure.facts(state)
        return [kpi.value(facts) for kpi in made_of_it]

    parts = [measure.fold(told(measure, 900, begin=begin)) for begin in range(0, 3_600, 900)]
    if measure.channels:
        whole = measure.fold(told(measure, 3_600))
        assert close(functools.reduce(measure.merge, parts)) == close(whole)
    assert benchmark(close, parts[0]) == close(parts[0])
    benchmark.extra_info["KPIs"] = len(made_of_it)


class Shop:
    """Casting cells of 1 Hz, a message a minute each, and windows of one length."""

    def __init__(self, machines: int, window_ns: int) -> None:
        windows = (Every(60 * S), Every(window_ns))
        self.engine = Engine(Policy(windows=windows), tuple(kpis.load().values()), self, run="r")
        self.machines = [Asset("s", "a", f"l{i // 50}", f"m{i}") for i in range(machines)]
        channels: dict[str, str] = dict.fromkeys(
            ("state", "planned", "produced", "scrap", "energy_kwh"), "1"
        )
        for place, asset in enumerate(self.machines):
            self._feed(Birth(asset, "casting_cell", T0, channels, self._meta(place, 0, T0)))

    def recall(self, first_ns: int, last_ns: int) -> list[Record]:
        raise AssertionError("nothing was late")

    def minute(self, number: int) -> list[Row]:
        t_ns = T0 + number * 60 * S
        made = np.arange(number * 60, number * 60 + 60)
        channels = {
            "state": np.where(made % 600 < 540, 6.0, 11.0), "planned": np.ones(60),
            "produced": (made // 50).astype(np.float64), "scrap": (made // 500).astype(np.float64),
            "energy_kwh": made / 1_000,
        }  # fmt: skip
        times = t_ns + np.arange(60, dtype=np.int64) * S + S // 2
        end_ns = t_ns + 60 * S
        for place, asset in enumerate(self.machines):
            meta = self._meta(place, number + 1, end_ns - 1)
            self._feed(Batch(asset, "process", times, channels, meta))
        self._feed(Progress("c", "r", end_ns + 2 * S, 0, 0, {}, 0))
        return self.engine.advance()

    def _feed(self, message: Message) -> None:
        self.engine.feed([Record(Envelope("uns", "t", 0, b""), message)])

    def _meta(self, place: int, seq: int, arrival_ns: int) -> Meta:
        return Meta(Identity(f"m{place}", 1, seq), arrival_ns, arrival_ns, "r", "c", 1)


@pytest.mark.benchmark(group="close")
def test_close_a_minute_of_200_machines(benchmark: Any) -> None:
    shop = Shop(200, 28_800 * S)
    numbers = iter(range(1_000))
    rows = benchmark.pedantic(lambda: shop.minute(next(numbers)), rounds=5)
    cells = {row.asset for row in rows if row.asset.name != "-"}
    assert len(cells) == 200
    assert {row.value for row in rows if row.kpi == "scrap_ratio" and row.value} <= {1.0, 0.5}


@pytest.mark.parametrize(
    ("machines", "hours"),
    [(20, 1), (20, 8), (200, 1)]
    + ([(200, 8), (2_000, 1), (2_000, 8)] if os.environ.get("BEILUN_BENCH_LARGE") else []),
)
@pytest.mark.benchmark(group="memory")
def test_memory_against_machines_and_window(
    benchmark: Any, capsys: pytest.CaptureFixture[str], machines: int, hours: int
) -> None:
    """Bytes a machine just before the window ends. The larger ones, with BEILUN_BENCH_LARGE, take
    a quarter of an hour or more."""
    shop = Shop(machines, hours * 3_600 * S)
    assert T0 % (8 * 3_600 * S) == 0  # a window begins here

    def whole() -> int:
        tracemalloc.start()
        for number in range(hours * 60 - 1):
            shop.minute(number)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return held

    held = benchmark.pedantic(whole, rounds=1)
    benchmark.extra_info["bytes a machine"] = held // machines
    with capsys.disabled():
        sys.stdout.write(f"{machines} machines, {hours} h: {held // machines:,} bytes a machine\n")
    assert not any(isinstance(found, Batch) for found in gc.get_objects())
    assert held < machines * 500_000


@pytest.mark.benchmark(group="codec")
def test_decode_a_batch_of_10_samples(benchmark: Any) -> None:
    payload = msgspec.json.encode(
        {
            "t_ns": 1_767_571_200 * S,
            "every_ns": S,
            "ch": {name: [1.5 * i for i in range(10)] for name in "abcdefg"},
            "x_beilun": {
                "run": "r", "conn": "c", "cseq": 1, "boot": 1, "seq": 1,
                "sent_ns": 1_767_571_210 * S, "arrival_ns": 1_767_571_210 * S + 1,
            },
        }
    )  # fmt: skip
    decoder = Decoder()
    found = benchmark(decoder.receive, "beilun/v1/s/a/l/m/process", payload, 0)
    assert not isinstance(found, Reject)
    assert len(found[0].message) == 10


@pytest.mark.benchmark(group="end-to-end")
def test_half_an_hour_of_quickstart_from_plant_to_rows(benchmark: Any, tmp_path: Path) -> None:
    from beilun.offline import run_offline
    from config.scenario import find_scenario

    chosen = find_scenario("quickstart", changes={"length": "30m"})
    names = iter(range(1_000))

    def whole() -> tuple[int, bool]:
        ending = run_offline(chosen, tmp_path / f"{next(names)}.beilun").ending
        return len(ending.rows), ending.account.closes

    rows, closes = benchmark.pedantic(whole, rounds=3)
    assert closes
    assert rows > 30 * 11
