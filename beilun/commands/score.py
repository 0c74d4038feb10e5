"""``beilun score``: how wrong each KPI is, held against what the simulator knows."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isclose
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from beilun import console
from beilun.commands.kpis_explain import command_for
from beilun.commands.nouns import known
from beilun.composing import recorded_policy
from beilun.report import Labels
from beilun.verdict import asset_path
from config.errors import Exit, RecordingError, UsageError
from config.globs import asset_matches
from config.units import NS_PER_S, format_time
from config.windows import Span, Window, spelt
from edge import kpis
from edge.alarms import is_alarm
from edge.evidence import Place
from edge.kpi import EXACT, Kpi
from edge.rows import ORDER_NUMBER
from edge.store import RowStore
from ingest.messages import Asset, TruthRow
from ingest.recording import Recording

_HINTS = 3
"""The most rows for which it is said how to have them explained."""


class Held(NamedTuple):
    """A row that both sides know, held against the truth."""

    place: Place
    error: float
    bound: float | None
    """How far off it may be; ``None``: any distance."""

    @property
    def beyond(self) -> bool:
        """Whether it is farther off than it may be."""
        return self.bound is not None and abs(self.error) > self.bound * (1 + 1e-9)

    @property
    def badness(self) -> tuple[bool, float]:
        """What sorts rows: those beyond their bounds last, by how many bounds they are off."""
        return self.beyond, abs(self.error) / self.bound if self.bound else float(self.beyond)


@dataclass(slots=True)
class Score:
    """One KPI over all windows of one kind."""

    kpi: str
    window: str
    held: list[Held] = field(default_factory=list[Held])
    missing: int = 0
    """Rows for which the truth has a value and the edge none."""
    extra: int = 0
    """The other way round."""

    @property
    def worst(self) -> Held | None:
        """The row that is farthest off, of those beyond their bounds if there are any."""
        return max(self.held, key=lambda held: (held.beyond, abs(held.error)), default=None)

    @property
    def beyond(self) -> int | None:
        """How many rows are farther off than they may be; ``None`` where none is bound."""
        bound = [held.beyond for held in self.held if held.bound is not None]
        return sum(bound) if bound else None

    @property
    def kept(self) -> bool:
        """Whether nothing is wrong: all rows are there, none is beyond its bound."""
        return not (self.missing or self.extra or self.beyond)


def command(
    file: Annotated[Path, typer.Argument(help="A recording of a simulated run.")],
    truth: Annotated[
        Path | None, typer.Option(help="The simulator's own file, where it was not merged.")
    ] = None,
    kpi: Annotated[str, typer.Option(help="Only this KPI.")] = "",
    asset: Annotated[
        str, typer.Option(help="Only these: a glob over names or, with slashes, over paths.")
    ] = "",
    window: Annotated[str, typer.Option(help="Only these windows, like 1h, shift, order.")] = "",
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 if a row is missing or beyond its bound.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> Exit:
    """Error against truth per KPI and window: bias, mean absolute error, worst row, rows missing.

    The bound is how far off a KPI may be where every message arrives and clocks are right: what is
    beyond it was lost or came wrong. Without --strict that is a finding, and the exit code is 0.
    """
    every = kpis.load()
    if kpi:
        known("KPI", kpi, every)
    with Recording.open(file) as recording:
        windows = recorded_policy(recording).windows
        only = _label(window, windows)
        mine = {
            ("/".join(r.asset), r.kpi, r.window_start_ns, r.window_length_ns): r.value
            for r in RowStore(recording).rows(kpis=[kpi] if kpi else [], asset=asset)
            if not is_alarm(r)
        }
        true = list(recording.truth())
    if truth is not None:
        with Recording.open(truth) as own:
            true = list(own.truth())
    if not true:
        raise RecordingError(
            "holds no truth",
            at=str(file),
            hint="only simulated runs have it; --truth names the file `beilun simulate` wrote",
        )
    labels = Labels(windows)
    true = [
        row for row in true
        if (not kpi or row.kpi == kpi) and (not asset or asset_matches(asset, _path(row.asset)))
    ]  # fmt: skip
    scores = _scores(true, mine, every, labels, only)
    if as_json:
        console.ndjson(_as_json(score, every, file) for score in scores)
    else:
        _show(scores, every, file)
        told = {(row.asset, row.kpi) for row in true}
        untold = {name for path, name, *_ in mine if (path, name) not in told}
        if untold:
            console.note(f"without a truth, for some asset or group: {', '.join(sorted(untold))}")
    return Exit.FAILED if strict and not all(score.kept for score in scores) else Exit.OK


def _label(text: str, windows: Sequence[Window]) -> str:
    if not text:
        return ""
    try:
        label = spelt(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
    used = [w.label for w in windows]
    if label not in used:
        hint = f"there are {', '.join(used)}"
        raise UsageError(f"no windows of {label} in the recording", hint=hint)
    return label


def _path(asset: str) -> str:
    return asset_path(Asset(*asset.split("/")))


def _scores(
    true: Iterable[TruthRow],
    mine: dict[tuple[str, str, int, int], float | None],
    every: dict[str, Kpi],
    labels: Labels,
    only: str,
) -> list[Score]:
    found: defaultdict[tuple[str, str], Score] = defaultdict(lambda: Score("", ""))
    for asset, kpi, start_ns, length_ns, value in true:
        span = Span(start_ns, start_ns + length_ns)
        label = labels.of(span)
        if only and label != only:
            continue
        score = found[kpi, label]
        score.kpi, score.window = kpi, label
        got = mine.get((asset, kpi, start_ns, length_ns))
        if got is None or value is None:
            score.missing += value is not None
            score.extra += got is not None
            continue
        accuracy = every[kpi].accuracy if kpi in every else EXACT
        cut = start_ns % NS_PER_S or span.end_ns % NS_PER_S  # counters are read on whole seconds
        bound = accuracy.within(value, length_ns if cut else None)
        score.held.append(
            Held(Place(Asset(*asset.split("/")), kpi, span), _error(got, value), bound)
        )
    places = {label: number for number, label in enumerate(labels.used)}
    return sorted(
        found.values(), key=lambda s: (s.kpi, places.get(s.window, len(places)), s.window)
    )


def _error(value: float, truth: float) -> float:
    """How far off; nothing where they agree in the nine digits in which rows are compared."""
    return 0.0 if isclose(value, truth, rel_tol=1e-9, abs_tol=1e-12) else value - truth


def _mean(errors: Sequence[float]) -> float | None:
    return sum(errors) / len(errors) if errors else None


def _bound(score: Score, every: dict[str, Kpi]) -> str:
    accuracy = every[score.kpi].accuracy if score.kpi in every else EXACT
    return accuracy.text(cut=score.window == "order")


def _show(scores: Sequence[Score], every: dict[str, Kpi], file: Path) -> None:
    columns = ("kpi", "window", "rows", "rows_missing", "bias", "mae", "worst", "bound", "beyond",
               "worst_at")  # fmt: skip
    lines: list[tuple[object, ...]] = []
    for score in scores:
        worst, errors = score.worst, [held.error for held in score.held]
        at = ""
        if worst is not None and worst.error:
            place = worst.place
            at = f"{asset_path(place.asset)} {format_time(place.span.start_ns)}"
        lines.append((
            score.kpi, score.window, len(errors), score.missing, _mean(errors),
            _mean(list(map(abs, errors))), worst and worst.error, _bound(score, every),
            score.beyond, at,
        ))  # fmt: skip
    console.table(columns, lines)
    extra = {score.kpi: score.extra for score in scores if score.extra}
    if extra:
        told = ", ".join(f"{kpi} {n:,}" for kpi, n in extra.items())
        console.out("", f"rows with a value where the truth has none: {told}")
    beyond = sum(score.beyond or 0 for score in scores)
    missing = sum(score.missing for score in scores)
    rows = sum(len(score.held) for score in scores)
    verdict = f"{beyond:,} beyond their bounds" if beyond else "every bound kept"
    console.out("", f"{rows:,} rows scored: {verdict}, {missing:,} missing")
    for held in _worst(scores):
        console.out(f"where it came from: {command_for(held.place, file)}")


def _worst(scores: Iterable[Score]) -> list[Held]:
    """Of the worst rows those that are farthest off by their bounds, one of a KPI; none where
    nothing is off."""
    worst: dict[str, Held] = {}
    for held in (score.worst for score in scores):
        if held is None or not held.error:
            continue
        mine = worst.get(held.place.kpi)
        if mine is None or held.badness > mine.badness:
            worst[held.place.kpi] = held
    worst.pop(ORDER_NUMBER, None)  # no KPI
    return sorted(worst.values(), key=lambda held: held.badness, reverse=True)[:_HINTS]


def _as_json(score: Score, every: dict[str, Kpi], file: Path) -> dict[str, object]:
    worst, errors = score.worst, [held.error for held in score.held]
    at: dict[str, object] | None = None
    if worst is not None and worst.error:
        asset, kpi, span = worst.place
        at = {
            "asset": asset_path(asset), "window_start_ns": span.start_ns,
            "window_length_ns": span.length_ns, "bound": worst.bound,
            "explain": command_for(Place(asset, kpi, span), file),
        }  # fmt: skip
    return {
        "kpi": score.kpi, "window": score.window, "rows": len(errors),
        "rows_missing": score.missing, "rows_extra": score.extra, "bias": _mean(errors),
        "mae": _mean(list(map(abs, errors))), "worst": worst and worst.error, "worst_at": at,
        "bound": _bound(score, every), "rows_beyond": score.beyond, "kept": score.kept,
    }  # fmt: skip
