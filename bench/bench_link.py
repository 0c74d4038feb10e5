"""Messages per second through the link: whole streams, single messages, many sparse devices."""

import tracemalloc
from typing import Any

import numpy as np
import pytest

from config.faults import Congestion
from config.units import NS_PER_MS, NS_PER_S
from simulator.link.layout import load_layout
from simulator.link.link import Bearer, Direction, Link
from simulator.link.profile import load_profile

pytestmark = pytest.mark.benchmark(group="link")
T0_NS = 1_767_571_200 * NS_PER_S


def stream(n: int, period_ns: int) -> tuple[Any, Any]:
    t_ns = T0_NS + np.arange(n, dtype=np.int64) * period_ns
    return t_ns, np.full(n, 250, np.int64)


@pytest.mark.parametrize("name", ["private-5g", "private-5g-udp", "wifi-loaded", "ethernet"])
@pytest.mark.parametrize("direction", Direction, ids=lambda d: d.name)
def test_100k_messages_in_columns(benchmark: Any, name: str, direction: Direction):
    link = Link(load_profile(name), 1)
    t_ns, n_bytes = stream(100_000, 100 * NS_PER_MS)
    arrival_ns = benchmark(lambda: link.bearer("a", direction).send_many(t_ns, n_bytes))
    benchmark.extra_info["messages_per_s"] = 100_000 / benchmark.stats.stats.min
    heard = arrival_ns >= 0
    assert np.mean(heard) > 0.99
    assert np.all(arrival_ns[heard] > t_ns[heard])


def busy_link() -> Link:
    """Cells, slices and background load."""
    rush = Congestion(kind="congestion", after=1, length=24 * 3_600 * NS_PER_S, flows=20)
    return Link(load_profile("private-5g"), 1, load_layout("ikd"), [rush], T0_NS)


def drive(bearer: Bearer) -> Bearer:
    """Round the site at 1 to 2 m/s for three hours."""
    corners = [(20.0, 20.0), (280.0, 30.0), (275.0, 270.0), (150.0, 150.0)]
    for i in range(60):
        bearer.move(T0_NS + i * 180 * NS_PER_S, *corners[i % 4])
    return bearer


@pytest.mark.parametrize("moving", [False, True], ids=["standing", "moving"])
@pytest.mark.parametrize("direction", Direction, ids=lambda d: d.name)
def test_100k_messages_with_cells_slices_and_load(
    benchmark: Any, direction: Direction, *, moving: bool
):
    link = busy_link()
    t_ns, n_bytes = stream(100_000, 100 * NS_PER_MS)

    def send() -> Any:
        bearer = link.bearer("a", direction, "video")
        return (drive(bearer) if moving else bearer).send_many(t_ns, n_bytes)

    arrival_ns = benchmark(send)
    benchmark.extra_info["messages_per_s"] = 100_000 / benchmark.stats.stats.min
    assert np.all(arrival_ns > t_ns)


def test_10k_single_messages_with_cells_slices_and_load(benchmark: Any):
    link = busy_link()
    t_ns, n_bytes = stream(10_000, 100 * NS_PER_MS)
    sent = list(zip(t_ns.tolist(), n_bytes.tolist(), strict=True))

    def send() -> list[int | None]:
        bearer = drive(link.bearer("a", Direction.UP, "video"))
        return [bearer.send(t, n) for t, n in sent]

    arrivals = benchmark(send)
    benchmark.extra_info["messages_per_s"] = 10_000 / benchmark.stats.stats.min
    again = drive(link.bearer("a", Direction.UP, "video"))
    assert arrivals == again.send_many(t_ns, n_bytes).tolist()


PLACED = 10_000


def placed() -> list[Bearer]:
    """Ten thousand devices on the site of ikd, each standing somewhere."""
    link = busy_link()
    bearers = [link.bearer(f"ue-{i}", Direction.UP, "control") for i in range(PLACED)]
    for i, bearer in enumerate(bearers):
        bearer.move(T0_NS, float(i % 300), float(i * 7 % 293))
    return bearers


@pytest.mark.parametrize("entrance", ["send", "send_many"])
def test_10k_placed_devices_with_twenty_messages_each(benchmark: Any, entrance: str):
    t_ns, n_bytes = stream(20, 10 * NS_PER_S)
    sent = list(zip(t_ns.tolist(), n_bytes.tolist(), strict=True))

    def minutes(bearers: list[Bearer]) -> list[Any]:
        if entrance == "send_many":
            return [bearer.send_many(t_ns, n_bytes).tolist() for bearer in bearers]
        return [[bearer.send(t, n) for t, n in sent] for bearer in bearers]

    arrivals = benchmark.pedantic(minutes, setup=lambda: ((placed(),), {}), rounds=2)
    benchmark.extra_info["us_per_message"] = benchmark.stats.stats.min / (20 * PLACED) * 1e6
    assert len(arrivals) == PLACED
    other = placed()[:50]
    swapped = [[b.send(t, n) for t, n in sent] for b in other]
    if entrance == "send":
        swapped = [b.send_many(t_ns, n_bytes).tolist() for b in placed()[:50]]
    assert arrivals[:50] == swapped


def test_memory_of_10k_placed_devices(benchmark: Any):
    t_ns, n_bytes = stream(20, 10 * NS_PER_S)

    def build() -> list[Bearer]:
        bearers = placed()
        for bearer in bearers:
            bearer.send_many(t_ns, n_bytes)
        return bearers

    tracemalloc.start()
    bearers = benchmark.pedantic(build, rounds=1)
    held_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    benchmark.extra_info["bytes_per_bearer"] = held_bytes / PLACED
    assert all(bearer.last_ns == t_ns[-1] for bearer in bearers)
    assert held_bytes < 20_000 * PLACED


@pytest.mark.parametrize("name", ["private-5g", "wifi-loaded"])
def test_10k_single_messages(benchmark: Any, name: str):
    link = Link(load_profile(name), 1)
    t_ns, n_bytes = stream(10_000, 100 * NS_PER_MS)
    sent = list(zip(t_ns.tolist(), n_bytes.tolist(), strict=True))

    def send() -> list[int | None]:
        bearer = link.bearer("a", Direction.UP)
        return [bearer.send(t, n) for t, n in sent]

    arrivals = benchmark(send)
    benchmark.extra_info["messages_per_s"] = 10_000 / benchmark.stats.stats.min
    assert arrivals == link.bearer("a", Direction.UP).send_many(t_ns, n_bytes).tolist()


def test_1k_devices_with_six_messages_a_minute(benchmark: Any):
    link = Link(load_profile("private-5g"), 1)
    t_ns, n_bytes = stream(6, 10 * NS_PER_S)

    def minute() -> list[Any]:
        bearers = [link.bearer(f"ue-{i}", Direction.UP) for i in range(1_000)]
        return [bearer.send_many(t_ns, n_bytes) for bearer in bearers]

    arrivals = benchmark(minute)
    benchmark.extra_info["messages_per_s"] = 6_000 / benchmark.stats.stats.min
    assert len({tuple(arrival_ns.tolist()) for arrival_ns in arrivals}) == 1_000
