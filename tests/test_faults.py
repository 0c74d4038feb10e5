"""Network faults in a whole factory: they cost what they should, and every KPI stays true."""

from pathlib import Path

import pytest

from beilun.offline import Outcome, make_factory, run_offline
from config.errors import ConfigError
from config.scenario import find_scenario
from config.units import NS_PER_S
from edge import kpis
from simulator.devices.agv import Agv

KPIS = kpis.load()
OUTAGE = {"kind": "outage", "after": "5m", "length": "20s"}
RESTART = {"kind": "broker_restart", "after": "5m", "length": "20s"}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("faults")
    return {
        name: run_offline(
            find_scenario("quickstart", changes={"length": "15m", "fault": faults}),
            folder / f"{name}.beilun",
        )
        for name, faults in (("calm", []), ("outage", [OUTAGE]), ("restart", [RESTART]))
    }


def site(outcome: Outcome, kpi: str) -> float:
    found = [
        row.value
        for row in outcome.ending.rows
        if row.kpi == kpi and row.asset[1] == "-" and row.window_length_ns == 28_800 * 10**9
    ]
    assert found[-1] is not None
    return found[-1]


@pytest.mark.parametrize("what", ["outage", "restart"])
def test_a_fault_takes_the_service_down_for_as_long_as_it_lasts(
    what: str, outcomes: dict[str, Outcome]
) -> None:
    calm, upset = (site(outcomes[n], "service_availability") for n in ("calm", what))
    assert calm > 0.999
    assert 15 * 60 * (calm - upset) >= 20
    assert site(outcomes[what], "service_failures") >= 10


@pytest.mark.parametrize("what", ["outage", "restart"])
def test_late_messages_are_counted_amend_and_leave_every_kpi_true(
    what: str, outcomes: dict[str, Outcome]
) -> None:
    upset = outcomes[what]
    assert upset.ending.account.closes
    assert upset.ending.account.ledger.late > 0
    assert not upset.ending.account.lost
    rows = {
        ("/".join(r.asset), r.kpi, r.window_start_ns, r.window_length_ns): r.value
        for r in upset.ending.rows
    }
    for true in upset.truth:
        mine = rows[true[:4]]
        assert (mine is None) == (true.value is None), true
        binned = "delay_p" in true.kpi or true.kpi == "clock_skew"
        near = 0.005 if binned else 1e-9
        told = (
            KPIS[true.kpi].accuracy.absolute if "battery" in true.kpi else 0.0
        )  # from time to time
        assert mine is None or mine == pytest.approx(true.value, rel=near, abs=told), true


def test_without_a_connection_what_meets_no_broker_is_lost_and_told(tmp_path: Path) -> None:
    changes = {"length": "6m", "network": "private-5g-udp", "fault": [RESTART]}
    outcome = run_offline(find_scenario("quickstart", changes=changes), tmp_path / "udp.beilun")
    account = outcome.ending.account
    assert account.closes
    assert account.lost["broker"] > 20
    assert account.made == account.lost.total() + account.ledger.received


def test_vehicles_halt_while_the_broker_between_them_and_their_control_is_away() -> None:
    def halted_s(faults: list[dict[str, str]]) -> float:
        changes = {"length": "50m", "fault": faults}
        factory = make_factory(find_scenario("quickstart", changes=changes), "a-run")
        for _ in factory.chunks():
            pass
        vehicles = [d for d in factory.floor.devices if isinstance(d, Agv)]
        assert vehicles
        return sum(vehicle.halted_ns for vehicle in vehicles) / NS_PER_S

    again = [RESTART | {"after": f"{minute}m"} for minute in range(30, 50)]
    assert halted_s([]) < 1.0
    assert halted_s(again) > 20.0


def test_a_fault_with_mistakes_is_told_whole() -> None:
    wrong = {"kind": "outage", "after": "soon", "length": 20, "cel": "c1"}
    with pytest.raises(ConfigError) as told:
        find_scenario("quickstart", changes={"fault": [wrong]})
    assert len(told.value.details) == 3
    assert any("cel " in line and "unknown setting" in line for line in told.value.details)
