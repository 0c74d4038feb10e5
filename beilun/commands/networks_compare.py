"""``beilun networks compare``: one factory over two links, KPI by KPI."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from beilun import console
from beilun.composing import scenario_of
from beilun.offline import Outcome, run_offline
from beilun.verdict import asset_path
from config.errors import Exit
from config.windows import Window, longest
from edge import kpis
from edge.rows import rows_in
from ingest.messages import Asset

Key = tuple[Asset, str]


def command(
    a: Annotated[str, typer.Argument(help="A network profile.")],
    b: Annotated[str, typer.Argument(help="Another one.")],
    scenario: Annotated[str, typer.Option(help="A shipped scenario, or a file.")] = "quickstart",
    length: Annotated[str | None, typer.Option("--for", help="Virtual time, like 1h.")] = None,
    seed: Annotated[int | None, typer.Option(help="Start of every random stream.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Also KPIs that are the same.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> Exit:
    """Run the same plant, orders and seed over two links; error is edge less truth."""
    outcomes: list[tuple[dict[Key, float | None], dict[Key, float | None]]] = []
    for network in (a, b):
        chosen = scenario_of(scenario, seed=seed, length=length, network=network)
        console.note(f"{chosen.name} over {network} ...")
        with tempfile.TemporaryDirectory(prefix="beilun-") as folder:
            outcome = run_offline(chosen, Path(folder) / "a.beilun")
            outcomes.append(_last(outcome, longest(chosen.edge.kinds)))
    (rows_a, true_a), (rows_b, true_b) = outcomes
    known = kpis.load()
    lines = [
        {
            "asset": asset_path(key[0]),
            "kpi": key[1],
            "unit": known[key[1]].unit,
            a: rows_a[key],
            b: rows_b.get(key),
            "difference": _less(rows_b.get(key), rows_a[key]),
            f"error_{a}": _less(rows_a[key], true_a.get(key)),
            f"error_{b}": _less(rows_b.get(key), true_b.get(key)),
        }
        for key in sorted(rows_a)
        if every or rows_a[key] != rows_b.get(key)
    ]
    if as_json:
        console.ndjson(lines)
    elif lines:
        console.table(tuple(lines[0]), [tuple(line.values()) for line in lines])
    else:
        console.out("every KPI is the same")
    return Exit.OK


def _last(
    outcome: Outcome, kind: Window
) -> tuple[dict[Key, float | None], dict[Key, float | None]]:
    """Rows of one kind of windows, the last of each, and the truth of the same windows."""
    rows = rows_in(outcome.ending.rows, kind)
    last = {(row.asset, row.kpi): row for row in sorted(rows, key=lambda row: row.window_start_ns)}
    true = {t[:4]: t.value for t in outcome.truth}
    return (
        {key: row.value for key, row in last.items()},
        {
            key: true.get(("/".join(key[0]), key[1], row.window_start_ns, row.window_length_ns))
            for key, row in last.items()
        },
    )


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other
