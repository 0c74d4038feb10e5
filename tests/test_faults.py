"""Network faults in a whole factory: they cost what they should, and every KPI stays true."""

import pytest

from beilun.offline import Outcome, run_offline
from config.errors import ConfigError
from config.scenario import find_scenario

OUTAGE = {"kind": "outage", "after": "5m", "length": "20s"}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("faults")
    return {
        name: run_offline(
            find_scenario("quickstart", changes={"length": "15m", "fault": faults}),
            folder / f"{name}.beilun",
        )
        for name, faults in (("calm", []), ("outage", [OUTAGE]))
    }


def site(outcome: Outcome, kpi: str) -> float:
    found = [
        row.value
        for row in outcome.ending.rows
        if row.kpi == kpi and row.asset[1] == "-" and row.window_length_ns == 28_800 * 10**9
    ]
    assert found[-1] is not None
    return found[-1]


def test_an_outage_takes_the_service_down_for_as_long_as_it_lasts(
    outcomes: dict[str, Outcome],
) -> None:
    calm, outage = (site(outcomes[n], "service_availability") for n in ("calm", "outage"))
    assert calm > 0.999
    assert 15 * 60 * (calm - outage) >= 20
    assert site(outcomes["outage"], "service_failures") >= 10


def test_late_messages_are_counted_amend_and_leave_every_kpi_true(
    outcomes: dict[str, Outcome],
) -> None:
    outage = outcomes["outage"]
    assert outage.ending.account.closes
    assert outage.ending.account.ledger.late > 0
    rows = {
        ("/".join(r.asset), r.kpi, r.window_start_ns, r.window_length_ns): r.value
        for r in outage.ending.rows
    }
    for true in outage.truth:
        mine = rows[true[:4]]
        assert (mine is None) == (true.value is None), true
        assert mine is None or mine == pytest.approx(true.value, rel=1e-9), true


def test_a_fault_with_mistakes_is_told_whole() -> None:
    wrong = {"kind": "outage", "after": "soon", "length": 20, "cel": "c1"}
    with pytest.raises(ConfigError) as told:
        find_scenario("quickstart", changes={"fault": [wrong]})
    assert len(told.value.details) == 3
    assert any("cel " in line and "unknown setting" in line for line in told.value.details)
