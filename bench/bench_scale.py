"""How much plant fits: samples per second and core without the wire, and memory of 10,000 devices.

`python bench/bench_scale.py 10000` makes every message of a plant of so many devices for a minute,
telemetry every second, and prints what the process has used at most, in MB.
"""

import resource
import subprocess
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from time import process_time
from typing import Any

import pytest

from config import tomlfile
from config.units import NS_PER_S, parse_time
from simulator.device import Columns, Stretch
from simulator.factory import Factory
from simulator.link.link import Link
from simulator.link.profile import load_profile
from simulator.plant import Plant, make_plant
from simulator.plant.floor import Floor

START = parse_time("2026-01-05T00:00:00Z")
BLOCK_NS = 180 * NS_PER_S
DEVICES = 10_000
MOST_MB = 1_000


def plant_of(devices: int) -> Plant:
    """Quickstart's plant many times over: its devices at its nodes, each group with its orders."""
    data = dict(tomlfile.load(files("config") / "plants" / "quickstart.toml"))
    groups = -(-devices // len(data["device"]))
    names = {device["name"] for device in data["device"]}

    def again(table: Mapping[str, Any], n: int) -> dict[str, Any]:
        renamed = {k: f"{v}-{n}" if v in names else v for k, v in table.items() if k != "node"}
        return {**renamed, **{k: v for k, v in table.items() if k == "node"}}

    for name in ("device", "order"):
        data[name] = [again(table, n) for n in range(groups) for table in data[name]]
    steps = [step for product in data["product"] for step in product["step"]]
    for step in steps:
        step["units"] += "*" if step["units"] in names else ""
    data["device"] = data["device"][:devices]
    left = {device["name"] for device in data["device"]}
    orders = (order for order in data["order"] if order.get("unit", "") in left | {""})
    data["order"] = [{**order, "number": n} for n, order in enumerate(orders, 1)]
    return make_plant(data)


def floor_of(devices: int) -> Floor:
    return Floor(plant_of(devices), Link(load_profile("ethernet"), 1), 1, START)


def sampled(floor: Floor, stretch: Stretch) -> int:
    """Readings in the telemetry of every device over a stretch."""
    return sum(
        len(report.t_ns) * len(report.ch)
        for device in floor.devices
        for report in device.reports(stretch)
        if isinstance(report, Columns) and report.stream == "process"
    )


@pytest.mark.benchmark(group="scale")
@pytest.mark.parametrize("kind", ["casting_cell", "robot_arm", "cable_line", "all"])
def test_samples_per_second_and_core(benchmark: Any, kind: str) -> None:
    """Two hours at 1 Hz, in the factory's blocks; what happens is worked out before."""
    floor = floor_of(40)
    if kind != "all":
        specs = zip(floor.devices, floor.plant.device, strict=True)
        floor.devices = [device for device, spec in specs if spec.kind == kind]
    floor.run_to(START + 40 * BLOCK_NS)
    spans = [(START + n * BLOCK_NS, START + (n + 1) * BLOCK_NS) for n in range(40)]
    blocks = iter([Stretch.every(*span) for span in spans])
    counts: list[int] = []
    spent: list[float] = []

    def block() -> None:
        stretch, began = next(blocks), process_time()
        counts.append(sampled(floor, stretch))
        spent.append(process_time() - began)

    benchmark.pedantic(block, rounds=40)
    assert len(set(counts)) == 1
    rows = BLOCK_NS // NS_PER_S
    assert counts[0] % rows == 0
    benchmark.extra_info["samples_per_s"] = round(sum(counts) / sum(spent))
    benchmark.extra_info["at_best"] = round(counts[0] / min(spent))


@pytest.mark.benchmark(group="scale")
def test_memory_of_10k_devices(benchmark: Any) -> None:
    def measured() -> int:
        command = [sys.executable, str(Path(__file__)), str(DEVICES)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    used_mb = benchmark.pedantic(measured, rounds=1)
    benchmark.extra_info["mb"] = used_mb
    assert used_mb < MOST_MB


def main(devices: int) -> None:
    """Print the most that this process has used, in MB."""
    link = Link(load_profile("ethernet"), 1)
    factory = Factory(plant_of(devices), link, 1, "bench", START, 60 * NS_PER_S)
    made = sum(len(chunk.made) for chunk in factory.chunks(10 * NS_PER_S))
    assert made > 6 * devices
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
