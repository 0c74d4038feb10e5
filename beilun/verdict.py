"""Expectations against rows: PASS, FAIL, and the one place that computes an exit code."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from beilun import console
from config.errors import Exit
from config.scenario import Expect
from config.units import format_duration
from config.windows import Window, longest
from edge.rows import Row, rows_in
from ingest.messages import Asset


@dataclass(frozen=True, slots=True)
class Verdict:
    """One expectation of one asset: the value that decided it, ``None`` where there was no data."""

    expectation: Expect
    subject: str
    measured: float | None
    ok: bool
    detail: str = ""
    skipped: bool = False
    """The run was too short to judge it, and the scenario says so; that is no failure."""

    @property
    def text(self) -> str:
        """What was expected, as in `oee@line1/dcm01 >= 0.6`."""
        return f"{self.expectation.kpi}@{self.subject} {self.expectation.bound}"


def asset_path(asset: Asset) -> str:
    """Levels of an asset or roll-up, as far as they go."""
    return "/".join(level for level in asset if level != "-")


def judge(
    expectations: Iterable[Expect],
    rows: Sequence[Row],
    windows: Sequence[Window],
    *,
    ran_ns: int | None = None,
) -> list[Verdict]:
    """One verdict per expectation and asset it means; where several windows are meant, all must
    hold, and the worst is told. No data fails.

    ``windows`` are those in use. ``ran_ns`` is how long the run was; an expectation for a longer
    one is skipped.
    """
    kinds = {kind.label: kind for kind in windows} | {"run": longest(windows)}
    tables: dict[str, dict[str, dict[str, list[Row]]]] = {}
    verdicts: list[Verdict] = []
    for expect in expectations:
        if expect.after is not None and ran_ns is not None and ran_ns < expect.after:
            told = f"for runs of {format_duration(expect.after)} or more"
            verdicts.append(Verdict(expect, expect.asset or "*", None, True, told, skipped=True))
            continue
        if expect.window not in tables:
            kind = kinds.get(expect.window)
            tables[expect.window] = {} if kind is None else _table(rows_in(rows, kind))
        found = tables[expect.window].get(expect.kpi, {})
        meant = {path: rows for path, rows in sorted(found.items()) if expect.matches(path)}
        if not meant:
            label = kinds["run"].label if expect.window == "run" else expect.window
            missing = f"no row of {expect.kpi} with window {label}"
            verdicts.append(Verdict(expect, expect.asset or "*", None, False, missing))
        verdicts += [_of_asset(expect, path, rows) for path, rows in meant.items()]
    return verdicts


def _table(rows: Iterable[Row]) -> dict[str, dict[str, list[Row]]]:
    """Rows by KPI and asset path."""
    table: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        table.setdefault(row.kpi, {}).setdefault(asset_path(row.asset), []).append(row)
    return table


def _of_asset(expect: Expect, path: str, rows: Sequence[Row]) -> Verdict:
    subject = path.split("/", 1)[-1]
    blank = [row for row in rows if row.value is None]
    if blank:
        first = min(row.window_start_ns for row in blank)
        told = f"in {len(blank)} of {len(rows)} windows, first at {console.time(first)}"
        return Verdict(expect, subject, None, False, told if len(rows) > 1 else "")
    worst = max(rows, key=lambda row: (_distance(expect, row.value or 0.0), -row.window_start_ns))
    measured = worst.value
    ok = measured is not None and expect.holds(measured)
    told = f"window at {console.time(worst.window_start_ns)}" if len(rows) > 1 else ""
    return Verdict(expect, subject, measured, ok, told)


def _distance(expect: Expect, value: float) -> float:
    """How badly a value stands to a bound; larger is worse."""
    low, high = expect.value[0], expect.value[-1]
    match expect.op:
        case ">=" | ">":
            return low - value
        case "<=" | "<":
            return value - low
        case "==":
            return abs(value - low)
        case "between":
            return max(low - value, value - high)


def exit_code(verdicts: Iterable[Verdict]) -> Exit:
    """0 when every expectation held, else 1."""
    return Exit.OK if all(v.ok for v in verdicts) else Exit.FAILED


def lines(verdicts: Sequence[Verdict]) -> list[str]:
    """`PASS  oee@line1/dcm01 >= 0.6   got 0.713`, one line each, aligned."""
    width = max((len(v.text) for v in verdicts), default=0)
    return [
        f"{_word(v)}  {v.text:{width}}   "
        + ("not judged" if v.skipped else f"got {got(v)}")
        + (f"  ({v.detail})" if v.detail else "")
        for v in verdicts
    ]


def _word(verdict: Verdict) -> str:
    return "SKIP" if verdict.skipped else "PASS" if verdict.ok else "FAIL"


def got(verdict: Verdict) -> str:
    """The measured value, with as many digits as it takes to see that it missed the bound."""
    value = verdict.measured
    if value is None:
        return "no data"
    short = console.number(value)
    return short if verdict.expectation.holds(float(short)) == verdict.ok else repr(value)


def as_json(verdict: Verdict) -> dict[str, object]:
    """One verdict for ``--json``."""
    expect = verdict.expectation
    return {
        "kpi": expect.kpi,
        "asset": verdict.subject,
        "op": expect.op,
        "bound": list(expect.value),
        "measured": verdict.measured,
        "ok": verdict.ok,
        "skipped": verdict.skipped,
        "detail": verdict.detail,
    }


def junit(suite: str, verdicts: Sequence[Verdict]) -> str:
    """JUnit XML: the suite is the scenario, a case is an expectation."""
    told = [f"got {got(v)}" + (f" ({v.detail})" if v.detail else "") for v in verdicts]
    return junit_xml(
        suite, [(v.text, None if v.ok else why) for v, why in zip(verdicts, told, strict=True)]
    )


def junit_xml(suite: str, cases: Sequence[tuple[str, str | None]]) -> str:
    """JUnit XML of named cases, each with why it failed, or ``None``."""
    failures = sum(why is not None for _, why in cases)
    root = ElementTree.Element("testsuites")
    counts = {"tests": str(len(cases)), "failures": str(failures), "errors": "0"}
    top = ElementTree.SubElement(root, "testsuite", {"name": suite, **counts})
    for name, why in cases:
        words = {"classname": f"beilun.{suite}", "name": name}
        case = ElementTree.SubElement(top, "testcase", words)
        if why is not None:
            ElementTree.SubElement(case, "failure", {"message": why})
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


def report(suite: str, verdicts: Sequence[Verdict]) -> str:
    """The verdicts as one JSON document."""
    ok = all(v.ok for v in verdicts)
    body = {"scenario": suite, "ok": ok, "verdicts": [as_json(v) for v in verdicts]}
    return json.dumps(body, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def write(path: Path, text: str) -> None:
    """Write a report whole or not at all, and name it on stderr."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    console.note(f"wrote {path}")
