"""Control traffic that is drawn: the law it is drawn by, and that looking ahead changes nothing."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from config.units import NS_PER_MS, NS_PER_S, parse_time
from ingest.messages import Asset
from simulator.devices.agv import Agv
from simulator.devices.robot_arm import RobotArm
from simulator.link.layout import load_layout
from simulator.link.link import TRACED, Direction, Link
from simulator.link.profile import load_profile
from simulator.network import HOPS
from simulator.plant import Plant, Roads, load_plant
from simulator.plant.control import BEAT_BYTES, BEAT_NS, Lane
from simulator.plant.floor import Floor
from simulator.plant.silences import Drawn, Heartbeats, Law, _laws

START = parse_time("2026-01-05T00:00:00Z")
HOUR = 3_600 * NS_PER_S


def quickstart() -> Plant:
    return load_plant("quickstart").model_copy(update={"heartbeats": "drawn"})


def heartbeats(plant: Plant, network: str, seed: int, layout: str | None = None) -> Heartbeats:
    radio = None if layout is None else load_layout(layout)
    link = Link(load_profile(network), seed, radio)
    return Heartbeats(plant, Roads(plant), link, seed, START, BEAT_NS, BEAT_BYTES)


def law_of(found: Heartbeats, name: str, n_bytes: int) -> Law:
    place = found._place(Asset("s", "a", "l", name))
    return found._law(Direction.DOWN, "control", place, n_bytes)


def test_a_law_is_that_of_the_network_whatever_the_seed_and_what_ran_before() -> None:
    plant = load_plant("ikd")
    told: list[Any] = []
    for seed in (1, 2):
        _laws.cache_clear()
        found = heartbeats(plant, "private-5g", seed, "ikd")
        for name, n_bytes in (("arm08", 120), ("agv01", 700), ("arm01", 120))[:: 3 - 2 * seed]:
            law = law_of(found, name, n_bytes)
            told.append((name, law.between_ns, law.lengths_ns.tolist(), law.delays_ns.tolist()))
    assert sorted(told[:3]) == sorted(told[3:])
    assert len({str(law[1:]) for law in told}) == 3, "where a device stands makes a difference"
    again = heartbeats(plant, "private-5g", 3, "ikd")
    assert law_of(again, "arm08", 120) is law_of(found, "arm08", 120)


@pytest.mark.parametrize("network", ["private-5g", "wifi-loaded", "private-5g-udp"])
def test_drawn_messages_take_what_sent_ones_take(network: str) -> None:
    """Their delays are those of messages between heartbeats, and so are their hops."""
    found = heartbeats(quickstart(), network, 5)
    bearer = found.drawn(Asset("s", "a", "l", "arm01"), Direction.UP, "control")
    strewn = np.random.default_rng(2).integers(0, BEAT_NS, 3_000)
    times = START + 3_200 * NS_PER_MS * np.arange(3_000, dtype=np.int64) + strewn
    arrived = np.array([bearer.send(int(t), 120) or -1 for t in times])
    trace = bearer.take_trace()
    assert set(trace) == set(TRACED)
    assert trace["sent_ns"].tolist() == times.tolist()
    assert trace["arrival_ns"].tolist() == arrived.tolist()
    came = arrived >= 0
    assert np.all(np.diff(arrived[came]) >= 0)
    parts = np.sum([trace[name] for hop in HOPS.values() for name in hop], axis=0)
    assert (parts[came] == (arrived - times)[came]).all()
    assert not len(bearer.take_trace()["sent_ns"])

    lane = Lane(Link(load_profile(network), 77).bearer("x", Direction.UP, "control"), START)
    sent = [lane.send(int(t), 120) for t in times]
    real = np.array([at - t for t, at in zip(times, sent, strict=True) if at])
    for share in (5, 50, 90):
        drawn, wanted = np.percentile((arrived - times)[came], share), np.percentile(real, share)
        assert drawn == pytest.approx(wanted, rel=0.1, abs=0.3 * NS_PER_MS)
    assert (~came).mean() == pytest.approx(1 - len(real) / len(times), abs=0.01)


def test_one_by_one_or_in_turn_messages_are_drawn_alike() -> None:
    law = Law(float("inf"), np.empty(0, np.int64), np.arange(1, 500) * NS_PER_MS)
    one, many = (Drawn(lambda _: law, np.random.default_rng(1)) for _ in range(2))
    t_ns, times = START, list[int]()
    arrivals: list[int | None] = []
    for takes_ns in many.ahead(50, 120) + many.ahead(50, 120)[:20]:
        times.append(t_ns)
        t_ns += takes_ns
    times = times[:50]
    arrivals = [one.send(t, 120) for t in times]
    assert many.send_in_turn(times, 120) == arrivals == [*times[1:], arrivals[-1]]
    assert [one.send(START + HOUR + n, 120) for n in range(300)] == [
        many.send(START + HOUR + n, 120) for n in range(300)
    ]


def lived(monkeypatch: pytest.MonkeyPatch, network: str, *, foresees: bool) -> list[Any]:
    """What vehicles and arms of quickstart did in six hours of work."""
    with monkeypatch.context() as patch:
        if not foresees:
            nobody: Iterator[int] = iter(())
            patch.setattr(Agv, "_foresees", lambda *_: False)
            patch.setattr(RobotArm, "_waits", lambda *_: nobody)
        floor = Floor(quickstart(), Link(load_profile(network), 4), 4, START)
        floor.run_to(START + 6 * HOUR)
    told: list[Any] = []
    for device in floor.devices:
        if isinstance(device, Agv):
            logs = (device.mission, device.driving, device.loaded, device.stands, device.charging)
            told += [list(zip(log.t, log.v, strict=True)) for log in logs]
            told.append((device.battery_ratio(floor.env.now), device.at, device.halted_ns))
            told.append(device.situations(floor.env.now)[:-1])
        elif isinstance(device, RobotArm):
            cycles = [c for c in device.cycles if c[0] <= floor.env.now]
            told += [cycles, device.scrap.last, device.pieces()]
        told.append(list(zip(log.t, log.v, strict=True)) if (
            log := getattr(device, "state", None)) else None)  # fmt: skip
    return [*told, floor.wip(), floor.fleet.tugger.moved]


@pytest.mark.parametrize("network", ["private-5g", "wifi-loaded"])
def test_looking_ahead_changes_nothing(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    near = lived(monkeypatch, network, foresees=False)
    far = lived(monkeypatch, network, foresees=True)
    assert near == far
    assert sum(len(each) > 400 for each in far if isinstance(each, list)) >= 3
