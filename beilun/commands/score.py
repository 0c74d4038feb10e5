"""``beilun score``: how wrong each KPI is, held against what the simulator knows."""

from collections import defaultdict
from math import isclose
from pathlib import Path
from typing import Annotated

import typer

from beilun import console
from beilun.composing import recorded_policy
from config.errors import Exit, RecordingError
from config.units import format_duration, format_time
from config.windows import Span, labels_of
from edge.store import RowStore
from ingest.recording import Recording


def command(
    file: Annotated[Path, typer.Argument(help="A recording of a simulated run.")],
    truth: Annotated[
        Path | None, typer.Option(help="The simulator's own file, where it was not merged.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> Exit:
    """Error against truth per KPI and window: bias, mean absolute error, worst window."""
    with Recording.open(file) as recording:
        rows = {
            ("/".join(r.asset), r.kpi, r.window_length_ns, r.window_start_ns): r.value
            for r in RowStore(recording).rows()
        }
        known = list(recording.truth())
        windows = recorded_policy(recording).windows
    if truth is not None:
        with Recording.open(truth) as own:
            known = list(own.truth())
    if not known:
        raise RecordingError(
            "holds no truth",
            at=str(file),
            hint="only simulated runs have it; --truth names the file `beilun simulate` wrote",
        )
    errors: dict[tuple[str, str], list[tuple[float, str, int]]] = defaultdict(list)
    blank: dict[tuple[str, str], int] = defaultdict(int)
    labels: dict[Span, str] = {}
    for row in known:
        span = Span(row.window_start_ns, row.window_start_ns + row.window_length_ns)
        if span not in labels:
            labels[span] = (labels_of(windows, span) or [format_duration(span.length_ns)])[0]
        key = (row.kpi, labels[span])
        mine = rows.get((row.asset, row.kpi, row.window_length_ns, row.window_start_ns))
        if mine is None or row.value is None:
            blank[key] += mine is not row.value
            errors.setdefault(key, [])
        else:
            errors[key].append((_error(mine, row.value), row.asset, row.window_start_ns))
    places = {label: n for n, label in enumerate(dict.fromkeys(w.label for w in windows))}
    lines = [
        _score(*key, errors[key], blank[key])
        for key in sorted(errors, key=lambda key: (key[0], places.get(key[1], len(places)), key))
    ]
    if as_json:
        console.ndjson(lines)
    else:
        console.table(tuple(lines[0]), [tuple(line.values()) for line in lines])
        told = {(row.asset, row.kpi) for row in known}
        untold = {kpi for asset, kpi, _, _ in rows if (asset, kpi) not in told}
        if untold:
            console.note(f"without a truth, for some asset or group: {', '.join(sorted(untold))}")
    return Exit.OK


def _error(value: float, truth: float) -> float:
    """How far off; nothing where they agree in the nine digits in which rows are compared."""
    return 0.0 if isclose(value, truth, rel_tol=1e-9, abs_tol=1e-12) else value - truth


def _score(
    kpi: str, label: str, errors: list[tuple[float, str, int]], blank: int
) -> dict[str, object]:
    n = len(errors)
    worst = max(errors, key=lambda error: abs(error[0]), default=None)
    return {
        "kpi": kpi,
        "window": label,
        "rows": n,
        "bias": sum(error for error, _, _ in errors) / n if n else None,
        "mae": sum(abs(error) for error, _, _ in errors) / n if n else None,
        "worst": worst[0] if worst else None,
        "worst_at": f"{worst[1]} {format_time(worst[2])}" if worst and worst[0] else "",
        "known_on_one_side_only": blank,
    }
