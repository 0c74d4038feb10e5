"""PASS, FAIL, and the exit code."""

import json
from collections import Counter
from xml.etree import ElementTree

import pytest

from beilun import report, verdict
from config.errors import Exit
from config.scenario import Expect
from config.units import NS_PER_S
from edge.gate import Ledger
from edge.pipeline import Account
from edge.policy import Policy
from edge.rows import Row
from ingest.messages import Asset

HOUR = 3_600 * NS_PER_S
CELLS = [Asset("beilun", "casting", f"line{n}", f"dcm0{n}") for n in (1, 2)]
AREA = Asset("beilun", "casting", "-", "-")
SITE = Asset("beilun", "-", "-", "-")


def row(asset: Asset, kpi: str, value: float | None, hour: int = 0, hours: int = 8) -> Row:
    return Row(asset, kpi, hour * HOUR, hours * HOUR, value, 10, 0, "1")


def expect(kpi: str = "oee", op: str = ">=", value: object = 0.6, **more: object) -> Expect:
    return Expect.model_validate({"kpi": kpi, "op": op, "value": value, **more})


def judge(expectations: list[Expect], rows: list[Row]) -> list[verdict.Verdict]:
    return verdict.judge(expectations, rows, Policy().windows)


def test_one_verdict_per_asset_as_the_style_shows_it():
    rows = [row(CELLS[0], "oee", 0.71349), row(CELLS[1], "oee", 0.5)]
    found = judge([expect(asset="dcm*")], rows)
    assert verdict.lines(found) == [
        "PASS  oee@casting/line1/dcm01 >= 0.6   got 0.713",
        "FAIL  oee@casting/line2/dcm02 >= 0.6   got 0.500",
    ]
    assert verdict.exit_code(found) == Exit.FAILED
    assert verdict.exit_code(found[:1]) == Exit.OK


@pytest.mark.parametrize(
    ("asset", "meant"),
    [
        (None, {*CELLS, AREA, SITE}),
        ("dcm*", set(CELLS)),
        ("dcm01", {CELLS[0]}),
        ("beilun/casting/*/dcm02", {CELLS[1]}),
        ("beilun/*", {AREA}),
        ("casting", {AREA}),
        ("beilun", {SITE}),
    ],
)
def test_an_asset_is_meant_by_its_name_or_its_whole_path(asset, meant):
    rows = [row(each, "oee", 1.0) for each in (*CELLS, AREA, SITE)]
    found = judge([expect(asset=asset)], rows)
    paths = {verdict.asset_path(each) for each in meant}
    assert {v.subject for v in found} == {path.split("/", 1)[-1] for path in paths}


@pytest.mark.parametrize("value", [None, "missing"])
def test_no_data_fails(value):
    rows = [] if value == "missing" else [row(CELLS[0], "oee", value)]
    [found] = judge([expect(asset="dcm01")], rows)
    assert not found.ok
    assert "got no data" in verdict.lines([found])[0]
    assert verdict.exit_code([found]) == Exit.FAILED


def test_every_window_must_hold_and_the_worst_is_told():
    rows = [row(CELLS[0], "oee", v, hour, 1) for hour, v in enumerate((0.9, 0.4, 0.5))]
    [found] = judge([expect(window="1h")], rows)
    assert (found.ok, found.measured) == (False, 0.4)
    assert "1970-01-01T01:00:00Z" in found.detail


def test_run_means_the_longest_window_in_use():
    rows = [row(CELLS[0], "oee", 0.1, hours=1), row(CELLS[0], "oee", 0.9, hours=8)]
    [found] = judge([expect()], rows)
    assert found.measured == 0.9


@pytest.mark.parametrize(
    ("op", "value", "holds", "fails"),
    [
        (">=", 1.0, 1.0, 0.999),
        ("<=", 1.0, 1.0, 1.001),
        (">", 1.0, 1.001, 1.0),
        ("<", 1.0, 0.999, 1.0),
        ("==", 1.0, 1.0, 1.001),
        ("between", [0.5, 1.4], 1.4, 1.41),
    ],
)
def test_operators(op, value, holds, fails):
    for measured, ok in ((holds, True), (fails, False)):
        [found] = judge([expect(op=op, value=value)], [row(CELLS[0], "oee", measured)])
        assert found.ok is ok


def test_digits_never_hide_a_miss():
    [found] = judge([expect(value=0.6)], [row(CELLS[0], "oee", 0.59999)])
    assert verdict.lines([found])[0].endswith("got 0.59999")


def test_junit_and_json_say_the_same():
    rows = [row(CELLS[0], "oee", 0.7), row(CELLS[1], "oee", None)]
    found = judge([expect(asset="dcm*")], rows)
    suite = ElementTree.fromstring(verdict.junit("quickstart", found))[0]
    assert (suite.get("name"), suite.get("tests"), suite.get("failures")) == (
        "quickstart",
        "2",
        "1",
    )
    assert [case.find("failure") is None for case in suite] == [True, False]
    body = json.loads(verdict.report("quickstart", found))
    assert not body["ok"]
    assert [v["measured"] for v in body["verdicts"]] == [0.7, None]


def test_a_report_is_written_whole(tmp_path, capsys):
    verdict.write(tmp_path / "deep" / "out.xml", "text")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out.xml"]
    assert "out.xml" in capsys.readouterr().err


def test_the_ledger_tells_what_was_reordered_and_rebooted_if_anything_was():
    def lines(**beside):
        ledger = Ledger(received=5, duplicate=1, on_time=4, **beside)
        return report.ledger_lines(Account(None, Counter(), 0, Counter(), ledger))

    calm = [
        "received 5 = accepted 4 + duplicate 1 + rejected 0",
        "accepted 4 = on time 4 + late 0 + too late 0",
        "the sums close",
    ]
    assert lines() == calm
    assert lines(rebooted=2) == [*calm[:2], "rebooted 2", calm[2]]
    assert lines(reordered=1_234) == [*calm[:2], "reordered 1,234", calm[2]]
    assert lines(reordered=3, rebooted=2) == [*calm[:2], "reordered 3, rebooted 2", calm[2]]
