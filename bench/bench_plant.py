"""How fast a factory is made: `pytest bench/bench_plant.py --benchmark-only`."""

from typing import Any

import pytest

from config.units import NS_PER_S, parse_time
from simulator.factory import Factory
from simulator.link.link import Link
from simulator.link.profile import load_profile
from simulator.network import Monitor
from simulator.plant import load_plant
from simulator.plant.floor import Floor
from simulator.truth import truth_rows

START = parse_time("2026-01-05T00:00:00Z")
SHIFT_NS = 8 * 3600 * NS_PER_S


@pytest.mark.benchmark(group="factory")
def test_a_shift_with_every_message(benchmark: Any) -> None:
    """Eight hours of quickstart: plant, signals, link, JSON."""

    def shift() -> tuple[Factory, int, int]:
        link = Link(load_profile("private-5g"), 1)
        factory = Factory(load_plant("quickstart"), link, 1, "bench", START, SHIFT_NS)
        made = [m for chunk in factory.chunks() for m in chunk.made]
        return factory, len(made), sum(len(m.payload) for m in made)

    factory, messages, size = benchmark.pedantic(shift, rounds=2)
    assert messages == sum(account.made for account in factory.ledger().values())
    assert factory.floor.flow.left.last > 1000
    benchmark.extra_info |= {"messages": messages, "payload_bytes": size}


@pytest.mark.benchmark(group="factory")
def test_a_shift_of_events_only(benchmark: Any) -> None:
    """The same plant and control traffic, without a word about it."""

    def shift() -> Floor:
        floor = Floor(load_plant("quickstart"), Link(load_profile("private-5g"), 1), 1, START)
        floor.run_to(START + SHIFT_NS)
        return floor

    floor = benchmark.pedantic(shift, rounds=2)
    assert floor.flow.entered.last == floor.flow.left.last + floor.flow.scrapped.last + floor.wip()


@pytest.mark.benchmark(group="truth")
def test_truth_of_a_shift(benchmark: Any) -> None:
    floor = Floor(load_plant("quickstart"), Link(load_profile("ethernet"), 1), 1, START)
    floor.run_to(START + SHIFT_NS)
    nobody = Monitor("ningbo", (), (), (), START)
    rows = benchmark(truth_rows, floor, nobody, START, START + SHIFT_NS)
    assert len(rows) > 20_000
