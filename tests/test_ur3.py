"""A recording nobody here made: the UR3 CobotOps log gives its known answers, through the verbs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(__file__).parents[1] / "../shared/data/ur3_cobotops/dataset_02052023.csv"

KNOWN = {
    "cycles_distinct": 240,
    "cycle_runs": 249,
    "protective_stops": 108,
    "protective_stop_blank": 54,
    "grip_lost_blank": 0,
}
ROUNDED = {
    "cycle_distance": (25.1, 1),
    "cycle_length": (24.1, 1),
    "protective_stop_share": (0.0375, 4),
    "grip_lost_share": (0.0328, 4),
    "current_j1_p5": (-3.82, 2),
    "current_j1_p50": (-2.24, 2),
    "current_j1_p95": (-1.45, 2),
}


@pytest.mark.skipif(not DATA.is_file(), reason="the UR3 log is not here")
def test_the_log_gives_its_known_answers(tmp_path: Path) -> None:
    def beilun(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "beilun", *words], cwd=tmp_path, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    beilun("import", "ur3-cobotops", str(DATA.resolve()), "-o", "ur3.beilun")
    rows = [json.loads(line) for line in beilun("replay", "ur3.beilun", "--json").splitlines()]
    day = {r["kpi"]: r["value"] for r in rows if r["window_s"] == 28_800 and "ur3" in r["asset"]}
    assert {name: day[name] for name in KNOWN} == KNOWN
    for name, (value, digits) in ROUNDED.items():
        assert round(day[name], digits) == value, name

    # The recording gap, 10:01 to 15:15 or so, is no evidence: rows are there and hold nothing.
    hours = sorted(
        (r["window_start"], r["value"])
        for r in rows
        if r["window_s"] == 3_600 and r["kpi"] == "protective_stop_ratio" and "ur3" in r["asset"]
    )
    blank = [start for start, value in hours if value is None]
    assert len(hours) == 8
    assert len(blank) >= 4
    assert sum(value is not None for _, value in hours) == 8 - len(blank)
