"""How much plant fits: samples per second and core, days per second, memory of 10,000 devices.

A *sample* is one value of one channel of one device at one time, computed with its physics and its
noise and laid out in the columns of a message. Making JSON of it is not part of that, and neither
is what happened in the plant, which is known before; `wire` measures columns and JSON together.

`python bench/bench_scale.py 10000` makes every message of a plant of so many devices for a minute,
telemetry every second, and prints what the process has used at most, in MB.

`python bench/bench_scale.py ikd-after 30 60` makes every message of 30 days of the scenario
`ikd-after`, telemetry every 60 s (`1`: each second, `0`: events only), and prints the seconds to
build and to run it on one core, the days per second, and the messages. Heartbeats are drawn there;
in `ikd-link` every one goes over the link.
"""

import resource
import subprocess
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import pytest

from beilun.offline import make_factory
from config import tomlfile
from config.scenario import find_scenario
from config.units import NS_PER_S, parse_time
from simulator.device import Columns, Report, Stretch
from simulator.factory import Factory
from simulator.link.link import Link
from simulator.link.profile import load_profile
from simulator.plant import Plant, make_plant
from simulator.plant.floor import Floor
from simulator.wire import Wire

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
    left = {device["name"] for device in data["device"]} | {""}
    orders = (order for order in data["order"] if order.get("unit", "") in left)
    data["order"] = [{**order, "number": n} for n, order in enumerate(orders, 1)]
    return make_plant(data)


def floor_of(devices: int) -> Floor:
    return Floor(plant_of(devices), Link(load_profile("ethernet"), 1), 1, START)


def samples_of(report: Report) -> int:
    """Values in a report: what a message of VDA 5050 says is not counted."""
    if not isinstance(report, Columns):
        return 0
    return sum(len(values) - list(values).count(None) for values in report.ch.values())


@pytest.mark.benchmark(group="scale")
@pytest.mark.parametrize("encoded", [False, True], ids=["columns", "wire"])
@pytest.mark.parametrize("kind", ["casting_cell", "robot_arm", "cable_line", "all"])
def test_samples_per_second_and_core(benchmark: Any, kind: str, encoded: bool) -> None:
    """Two hours at 1 Hz, in blocks like the factory's; what happens is worked out before. Counted
    are signals and events, and of control traffic the histograms of its delays; timed is all that
    devices report."""
    floor = floor_of(40)
    if kind != "all":
        specs = zip(floor.devices, floor.plant.device, strict=True)
        floor.devices = [device for device, spec in specs if spec.kind == kind]
    floor.run_to(START + 40 * BLOCK_NS)
    spans = [(START + n * BLOCK_NS, START + (n + 1) * BLOCK_NS) for n in range(40)]
    blocks = iter([Stretch.every(*span) for span in spans])
    counts: list[int] = []
    signals: list[int] = []
    spent: list[float] = []
    wire = Wire()

    def block() -> None:
        stretch, count, signal, took = next(blocks), 0, 0, 0.0
        for device in floor.devices:
            began = process_time()
            reports = device.reports(stretch)
            if encoded:
                for report in reports:
                    wire.encode(report)
            took += process_time() - began
            count += sum(map(samples_of, reports))
            signal += sum(
                len(r.t_ns) * len(r.ch)
                for r in reports
                if isinstance(r, Columns) and r.stream == "process"
            )
        counts.append(count)
        signals.append(signal)
        spent.append(took)

    benchmark.pedantic(block, rounds=40)
    assert len(set(signals)) == 1
    assert signals[0] % (BLOCK_NS // NS_PER_S) == 0
    benchmark.extra_info["samples_per_s"] = round(sum(counts) / sum(spent))
    benchmark.extra_info["at_best"] = round(max(n / s for n, s in zip(counts, spent, strict=True)))
    benchmark.extra_info["signals_alone_per_s"] = round(sum(signals) / sum(spent))


@pytest.mark.benchmark(group="scale")
@pytest.mark.parametrize(("every_s", "days"), [(60, 3), (1, 0.125)])
def test_days_of_ikd_per_second(benchmark: Any, every_s: int, days: float) -> None:
    """Plant, signals, link and JSON. A tenth of what `main` runs, so that it ends soon."""
    took = benchmark.pedantic(days_of, args=("ikd-after", days, every_s), rounds=1)
    benchmark.extra_info["days_per_s"] = days / took.run_s
    assert took.messages > 1_000


@pytest.mark.benchmark(group="scale")
def test_memory_of_10k_devices(benchmark: Any) -> None:
    def measured() -> int:
        command = [sys.executable, str(Path(__file__)), str(DEVICES)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    used_mb = benchmark.pedantic(measured, rounds=1)
    benchmark.extra_info["mb"] = used_mb
    assert used_mb < MOST_MB


class Took(NamedTuple):
    """Seconds of one core, and what came out."""

    build_s: float
    run_s: float
    messages: int


def days_of(name: str, days: float, every_s: int) -> Took:
    """Make every message of some days of a scenario."""
    began = process_time()
    given = {
        "length": f"{round(days * 86_400)}s",
        "telemetry": f"{every_s}s" if every_s else "events",
    }
    factory = make_factory(find_scenario(name, changes=given), "bench")
    built = process_time()
    made = sum(len(chunk.made) for chunk in factory.chunks())
    return Took(built - began, process_time() - built, made)


def memory(devices: int) -> None:
    """Print the most that this process has used, in MB."""
    link = Link(load_profile("ethernet"), 1)
    factory = Factory(plant_of(devices), link, 1, "bench", START, 60 * NS_PER_S)
    made = sum(len(chunk.made) for chunk in factory.chunks(10 * NS_PER_S))
    assert made > 6 * devices
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}\n")


def main(words: list[str]) -> None:
    """See the top of this file."""
    if len(words) == 1:
        memory(int(words[0]))
        return
    name, days, every_s = words
    took = days_of(name, float(days), int(every_s))
    sys.stdout.write(
        f"built in {took.build_s:.1f} s, run in {took.run_s:.1f} s: "
        f"{float(days) / took.run_s:.3g} days per second, {took.messages:,} messages\n"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
