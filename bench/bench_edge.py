"""The edge: folding columns, decoding messages, and the whole path from bytes to rows."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge.columns import Columns
from edge.kpis.energy import KPIS as ENERGY
from edge.kpis.oee import UNIT
from edge.measures.counters import total
from edge.measures.flows import MICRO, Flows
from edge.measures.values import Values
from ingest.decode import Decoder
from ingest.messages import Asset, Batch, Identity, Meta, Reject

S = 10**9
N = 100_000
ASSET = Asset("s", "a", "l", "m")


@pytest.fixture(scope="module")
def columns() -> Columns:
    """A day of 1 Hz samples of one machine, 100,000 of them in one batch."""
    t_ns = np.arange(1, N + 1, dtype=np.int64) * S
    produced = np.arange(N) // 60
    channels = {
        "state": np.where(np.arange(N) % 600 < 540, 6.0, 11.0),
        "produced": produced.astype(np.float64),
        "scrap": (produced // 20).astype(np.float64),
        "energy_kwh": np.arange(N) / 1_000,
        "current_j1_a": np.sin(np.arange(N) / 50.0),
    }
    meta = Meta(Identity("m", 1, 1), N * S, N * S)
    return Columns([Batch(ASSET, "process", t_ns, channels, meta)], S, (N + 1) * S)


@pytest.mark.benchmark(group="fold")
def test_fold_100k_samples_of_a_machine(benchmark: Any, columns: Columns) -> None:
    facts = UNIT.facts(UNIT.merge(UNIT.edge(UNIT.zero(), S), benchmark(UNIT.fold, columns)))
    assert facts["produced"] == (N - 1) // 60


@pytest.mark.benchmark(group="fold")
def test_fold_100k_samples_of_a_flow_counter(benchmark: Any, columns: Columns) -> None:
    assert ENERGY[0].measures[0].name == "energy_kwh"
    state = benchmark(Flows("energy_kwh").fold, columns)
    assert total(state) == (N - 2) * MICRO // 1_000


@pytest.mark.benchmark(group="fold")
def test_fold_100k_readings_into_a_histogram(benchmark: Any, columns: Columns) -> None:
    state = benchmark(Values("current_j1_a", 1_000).fold, columns)
    assert sum(state.bins.values()) == N


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
