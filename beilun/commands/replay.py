"""``beilun replay``: a recording's KPIs computed again, and compared."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from beilun import alarming, compare, console, report, verdict
from beilun.composing import recorded_policy, recorded_scenario, versions
from beilun.link_report import without_observers
from config.errors import Exit, RecordingError
from edge.alarms import Alarms
from edge.pipeline import Pipeline
from edge.rows import LastRows, Row, digest
from ingest.codecs import Codec
from ingest.decode import Decoder
from ingest.recording import Recording


def command(
    file: Annotated[Path, typer.Argument(help="A recording.")],
    expect: Annotated[
        Path | None, typer.Option(help="Compare with this recording or golden file.")
    ] = None,
    golden: Annotated[Path | None, typer.Option(help="Write the rows as a golden file.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write what moved as JUnit XML.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="NDJSON: all rows, or with --expect what moved.")
    ] = False,
    salvage: Annotated[
        bool, typer.Option(help="Use everything before the damage of a broken file.")
    ] = False,
) -> Exit:
    """Recompute every KPI row from the journal alone, without a broker; same file, same bits."""
    against = compare.expected_rows(expect) if expect is not None else None
    with Recording.open(file, salvage=salvage) as recording:
        rows, pipeline = replay(recording, salvage=salvage)
        raised = alarming.lines(rows, alarming.recorded_rules(recording))
        expected, tolerances = recorded_scenario(recording)
        name = recording.meta("name") or file.stem
        kept = None if salvage else recording.meta("digest")
        made_here = recording.meta_json("versions") == versions()
        account = pipeline.account()
        windows = recorded_policy(recording).windows
    labels = report.Labels(windows)
    fingerprint = digest(rows)
    if golden is not None:
        verdict.write(golden, compare.golden(rows, versions(), fingerprint))
    if as_json and against is None:
        console.ndjson(report.as_json(row, labels) for row in rows)
    elif not as_json:
        report.show_tables(without_observers(report.run_rows(rows, windows)))
        console.out("Ledger", *report.ledger_lines(account), "")
        console.out(*raised, *([""] if raised else []))
    if kept is not None and against is None:
        same = "the same as" if kept == fingerprint else "NOT the same as"
        console.note(f"{same} when it was recorded ({kept[:12]})")
    if against is None:
        verdicts = verdict.judge(expected, rows, windows, ran_ns=pipeline.engine.covered_ns)
        if verdicts and not as_json:
            console.out("Expectations", *verdict.lines(verdicts), "")
        if junit is not None:
            verdict.write(junit, verdict.junit(name, verdicts))
        code = verdict.exit_code(verdicts)
    else:
        one_build = against.versions == versions()
        default = compare.EXACT if one_build else compare.NINE_DIGITS
        moved = compare.moved(against.rows, rows, tolerances, default, labels)
        how = "to the bit" if one_build else "to nine digits"
        if as_json:
            console.ndjson(dataclasses.asdict(m) for m in moved)
        else:
            _tell(expect, moved, how, len(against.rows))
        if junit is not None:
            verdict.write(junit, compare.junit(name, moved, against.rows))
        code = Exit.FAILED if moved else Exit.OK
    if not as_json:
        console.out(f"digest {fingerprint}")
    if not account.closes or (kept not in (None, fingerprint) and made_here and against is None):
        return Exit.FAILED
    return code


def _tell(expect: Path | None, moved: list[compare.Moved], how: str, count: int) -> None:
    if moved:
        console.out(f"FAIL  KPIs moved against {expect}:", *(f"  {m.text}" for m in moved))
    else:
        console.out(f"PASS  all {count:,} rows as in {expect} ({how}, tolerances aside)")


def replay(recording: Recording, *, salvage: bool = False) -> tuple[list[Row], Pipeline]:
    """The last revision of every row a recording's journal gives, and the pipeline they left."""
    out = LastRows()
    decoder, run = reader(recording)
    policy = recorded_policy(recording)
    alarms = Alarms(alarming.recorded_rules(recording), policy.windows, out)
    pipeline = Pipeline(recording, decoder, policy, run, out.write, alarms)
    pipeline.resume(salvage=salvage)
    pipeline.finish()
    rows = out.rows()
    if not rows:
        raise RecordingError("holds nothing that makes a KPI", at=str(recording.path))
    return rows, pipeline


def reader(recording: Recording) -> tuple[Decoder, str | None]:
    """What reads a recording's journal, and the run whose messages count there."""
    run = recording.meta("run") if recording.meta("source") in ("simulated", "live") else None
    return Decoder(_codecs(recording)), run


def _codecs(recording: Recording) -> list[Codec]:
    """The mapping a live recording was made with, for envelopes only it can read."""
    text = recording.meta("mapping")
    if text is None or recording.meta("source") != "live":
        return []
    from config.mapping import parse_mapping
    from ingest.codecs.mapped import Mapped

    return [Mapped(parse_mapping(text, at=f"{recording.path}, mapping"))]
