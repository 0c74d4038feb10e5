"""A scenario is looked over as a whole before anything is started."""

from pathlib import Path

import pytest

from beilun.cli import main
from beilun.rehearsal import rehearse
from config.errors import ConfigError
from config.scenario import Scenario, find_scenario

OUTAGE = {"kind": "outage", "after": "1m", "length": "1m"}


def with_faults(*faults: dict[str, object]) -> Scenario:
    return find_scenario("quickstart", changes={"length": "10m", "fault": list(faults)})


def test_the_shipped_scenarios_have_nothing_idle():
    for name in ("quickstart", "campus-only", "link-faults"):
        assert rehearse(find_scenario(name)) == []


def test_an_unknown_cell_is_told_before_the_run():
    with pytest.raises(ConfigError, match="no cell 'c99'") as caught:
        rehearse(with_faults(OUTAGE | {"cell": "c99"}))
    assert caught.value.at == "scenario quickstart"


@pytest.mark.parametrize(
    ("fault", "note"),
    [
        (OUTAGE | {"after": "10m"}, "begins after 10m"),
        ({"kind": "clock_step", "after": "1m", "length": "1m", "asset": "x*", "step_s": 3.0},
         "finds no device like 'x*'"),
    ],
)  # fmt: skip
def test_a_fault_that_will_do_nothing_is_named(fault: dict[str, object], note: str):
    (told,) = rehearse(with_faults(OUTAGE, fault))
    assert told.startswith("fault #2") and note in told


def test_config_check_finds_what_a_run_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "s.toml"
    fault = '[[fault]]\nkind = "outage"\nafter = "1m"\nlength = "1m"\ncell = "c99"\n'
    file.write_text(f'plant = "quickstart"\nlength = "5m"\n{fault}')
    assert main(["config", "check", str(file)]) == 3
    assert "c99" in capsys.readouterr().err
