"""``beilun score``: how wrong each KPI is, held against what the simulator knows."""

from collections import defaultdict
from pathlib import Path
from typing import Annotated

import typer

from beilun import console
from config.errors import Exit, RecordingError
from config.units import NS_PER_S, format_duration, format_time
from edge.store import RowStore
from ingest.recording import Recording


def command(
    file: Annotated[Path, typer.Argument(help="A recording of a simulated run.")],
    truth: Annotated[
        Path | None, typer.Option(help="The simulator's own file, where it was not merged.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> Exit:
    """Error against truth per KPI and window length: bias, mean absolute error, worst window."""
    with Recording.open(file) as recording:
        rows = {
            ("/".join(r.asset), r.kpi, r.window_length_ns, r.window_start_ns): r.value
            for r in RowStore(recording).rows()
        }
        known = list(recording.truth())
    if truth is not None:
        with Recording.open(truth) as own:
            known = list(own.truth())
    if not known:
        raise RecordingError(
            "holds no truth",
            at=str(file),
            hint="only simulated runs have it; --truth names the file `beilun simulate` wrote",
        )
    errors: dict[tuple[str, int], list[tuple[float, str, int]]] = defaultdict(list)
    blank: dict[tuple[str, int], int] = defaultdict(int)
    for row in known:
        key = (row.kpi, row.window_length_ns)
        mine = rows.get((row.asset, row.kpi, row.window_length_ns, row.window_start_ns))
        if mine is None or row.value is None:
            blank[key] += mine is not row.value
            errors.setdefault(key, [])
        else:
            errors[key].append((mine - row.value, row.asset, row.window_start_ns))
    lines = [_score(kpi, length, errors[kpi, length], blank[kpi, length])
             for kpi, length in sorted(errors)]  # fmt: skip
    if as_json:
        console.ndjson(lines)
    else:
        console.table(tuple(lines[0]), [tuple(line.values()) for line in lines])
    return Exit.OK


def _score(
    kpi: str, length_ns: int, errors: list[tuple[float, str, int]], blank: int
) -> dict[str, object]:
    n = len(errors)
    worst = max(errors, key=lambda error: abs(error[0]), default=None)
    return {
        "kpi": kpi,
        "window": format_duration(length_ns) if length_ns >= NS_PER_S else str(length_ns),
        "rows": n,
        "bias": sum(error for error, _, _ in errors) / n if n else None,
        "mae": sum(abs(error) for error, _, _ in errors) / n if n else None,
        "worst": worst[0] if worst else None,
        "worst_at": f"{worst[1]} {format_time(worst[2])}" if worst and worst[0] else "",
        "known_on_one_side_only": blank,
    }
