"""Laws of what devices say, whatever their kind: it hangs on no cut, and is what they announced."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.units import NS_PER_S, parse_time
from simulator.device import Columns, Stretch, Unit, VdaState
from simulator.devices.cable_line import CableLine
from simulator.link.link import Link
from simulator.link.profile import load_profile
from simulator.plant import Plant, load_plant, make_plant
from simulator.plant.floor import Floor
from simulator.wire import Wire

START = parse_time("2026-01-05T00:00:00Z")
HOUR = 3_600
_FOLLOWED = {"metal_c", "die_c", *(f"temperature_j{j}_c" for j in range(6))}
"""Followed from stretch to stretch in floating point: a last digit may be the next one."""


def floor_of(plant: Plant, seed: int = 3) -> Floor:
    return Floor(plant, Link(load_profile("private-5g"), seed), seed, START)


def said(floor: Floor, ends_s: Sequence[int], *, ahead: bool) -> dict[str, dict[str, list[Any]]]:
    """Per device and channel what it says, stretch after stretch; the plant runs to the end of
    each, or ``ahead`` of them all."""
    out: dict[str, dict[str, list[Any]]] = {}
    after_ns = START
    if ahead:
        floor.run_to(START + ends_s[-1] * NS_PER_S)
    for end_s in ends_s:
        to_ns = START + end_s * NS_PER_S
        if not ahead:
            floor.run_to(to_ns)
        for device in floor.devices:
            told = out.setdefault(device.path, {})
            for report in device.reports(Stretch.every(after_ns, to_ns)):
                if isinstance(report, Columns) and report.stream in ("process", "event", "state"):
                    for name, values in {"t_ns": report.t_ns, **report.ch}.items():
                        told.setdefault(f"{report.stream} {name}", []).extend(values)
                elif isinstance(report, VdaState):
                    told.setdefault("vda", []).append(report)
        after_ns = to_ns
    return out


@settings(deadline=None, max_examples=4)
@given(st.sets(st.integers(1, 239), min_size=1, max_size=8), st.integers(0, 2**16), st.booleans())
def test_where_stretches_are_cut_changes_nothing(cuts: set[int], seed: int, ahead: bool) -> None:
    """Neither the melt at the head of a line that has not begun, nor where a vehicle faces that
    waits for its next order, nor anything else."""
    plant = load_plant("quickstart")
    ends = [*sorted(10 * cut for cut in cuts), 2_400]
    whole = said(floor_of(plant, seed), [2_400], ahead=True)
    cut = said(floor_of(plant, seed), ends, ahead=ahead)
    assert cut.keys() == whole.keys()
    for path, told in whole.items():
        assert cut[path].keys() == told.keys()
        for name, values in told.items():
            if name.split()[-1] in _FOLLOWED:
                assert cut[path][name] == pytest.approx(values, abs=0.1001), (path, name)
            else:
                assert cut[path][name] == values, (path, name)


@pytest.mark.parametrize("plant", ["quickstart", "mould-shop", "orient-cable"])
def test_without_samples_the_energy_is_told_where_windows_begin_and_end(plant: str) -> None:
    floor = floor_of(load_plant(plant))
    end_ns = START + 3 * HOUR * NS_PER_S
    floor.run_to(end_ns)
    spans = [(START + n * HOUR * NS_PER_S, START + (n + 1) * HOUR * NS_PER_S)
             for n in range(3)]  # fmt: skip
    for unit in floor.devices:
        if not isinstance(unit, Unit):
            continue
        read: dict[int, float | None] = {}
        for span in spans:
            for report in unit.reports(Stretch.every(*span, None)):
                if isinstance(report, Columns) and report.stream == "process":
                    assert report.sent_ns == span[1]
                    read |= zip(report.t_ns, report.ch["energy_kwh"], strict=True)
        edges = {*range(START + 300 * NS_PER_S, end_ns + 1, 300 * NS_PER_S)}
        edges |= {t_ns for t_ns, _ in unit.order.between(START, end_ns)}
        assert edges <= read.keys()
        times = np.array(sorted(read), dtype=np.int64)
        energy = (unit.energy.at(times) / 100_000).tolist()
        assert [read[t] for t in times.tolist()] == energy
        assert energy[-1] > energy[0]


def cable(**settings: Any) -> CableLine:
    """A line after an hour."""
    step = {"operation": "draw", "units": "l", "pri_s": 1.0}
    device = {"kind": "cable_line", "name": "l", "area": "hall", "line": "l1", **settings}
    floor = floor_of(make_plant({
        "site": "s", "calendar": {"shift": [{"start": "00:00", "end": "24:00"}]},
        "device": [device], "product": [{"name": "c", "step": [step]}],
        "order": [{"number": 1, "product": "c", "quantity": 10**6}],
    }))  # fmt: skip
    floor.run_to(START + HOUR * NS_PER_S)
    (line,) = floor.devices
    assert isinstance(line, CableLine)
    return line


@pytest.mark.parametrize("wall_mm", [0.0, 1.5])
@pytest.mark.parametrize("control", ["central", "local"])
@pytest.mark.parametrize("pay_offs", [1, 3])
def test_a_line_announces_just_what_it_says(wall_mm: float, control: str, pay_offs: int) -> None:
    line = cable(wall_mm=wall_mm, control=control, pay_off_from=[""] * pay_offs)
    reports = [*line.first_reports(START)]
    reports += line.reports(Stretch.every(START, START + HOUR * NS_PER_S))
    heard = {name for r in reports if isinstance(r, Columns) for name in r.ch}
    by_mes = {"co2_kg_per_kwh"}
    assert heard | by_mes == set(line.channels)
    assert ("eccentricity_ratio" in heard) == ("melt_c" in heard) == (wall_mm > 0.0)
    assert ("bin" in heard) == (control == "central")


def test_a_vehicle_tells_the_voltage_of_its_charge() -> None:
    told = said(floor_of(load_plant("quickstart")), [1_800], ahead=True)
    states = [state for channels in told.values() for state in channels.get("vda", ())]
    assert len(states) > 100
    wire = Wire()
    for state in states:
        battery = json.loads(wire.encode(state).body)["batteryState"]
        charge = battery["batteryCharge"] / 100.0
        curve = ((0.0, 0.05, 0.2, 0.8, 1.0), (40.0, 44.0, 50.8, 51.6, 54.4))
        assert battery["batteryVoltage"] == pytest.approx(np.interp(charge, *curve), abs=0.006)
