"""Two sets of KPI rows: which KPIs moved, by how much, and where first."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from beilun.report import Labels
from beilun.verdict import asset_path, junit_xml
from config.errors import RecordingError
from config.scenario import Tolerance
from config.units import format_time
from edge.rows import Row
from edge.store import RowStore
from ingest.messages import Asset
from ingest.recording import Recording

NINE_DIGITS = Tolerance(relative=5e-10)
"""What two builds may differ by: numpy releases and machines disagree in the last bits."""
EXACT = Tolerance()


@dataclass(frozen=True, slots=True)
class Moved:
    """One KPI that is not what it was: how many rows, and the first and the worst of them."""

    kpi: str
    rows: int
    first: str
    old: float | None
    new: float | None
    worst: float | None
    """Largest difference, ``None`` where a row or value is missing on one side."""

    @property
    def text(self) -> str:
        """One line for a person."""
        difference = "" if self.old is None or self.new is None else f", {self.new - self.old:+.3g}"
        worst = "missing values" if self.worst is None else f"at most {self.worst:.3g} off"
        return (
            f"{self.kpi}: {self.rows} rows moved ({worst}); first {self.first}:"
            f" {_text(self.old)} -> {_text(self.new)}{difference}"
        )


@dataclass(frozen=True, slots=True)
class Expected:
    """Rows to compare with, and the versions that made them."""

    rows: list[Row]
    versions: Mapping[str, str] | None


def expected_rows(path: Path) -> Expected:
    """Rows of another recording, or of a golden file written by ``--golden``."""
    try:
        with path.open("rb") as file:
            is_recording = file.read(16).startswith(b"SQLite format 3")
    except OSError as error:
        raise RecordingError(f"cannot be read: {error.strerror}", at=str(path)) from None
    if not is_recording:
        return _golden(path)
    with Recording.open(path) as recording:
        rows = list(RowStore(recording).rows())
        if not rows:
            raise RecordingError(
                "holds no KPI rows",
                at=str(path),
                hint="was its run broken off? `beilun replay FILE --golden F` computes them",
            )
        return Expected(rows, recording.meta_json("versions"))


def golden(rows: Iterable[Row], versions: Mapping[str, str], fingerprint: str) -> str:
    """A golden file: one JSON object a line, made to be read in a diff."""
    head = {"golden": 1, "versions": versions, "digest": fingerprint}
    lines = [
        json.dumps([*row.asset, *row[1:8]], allow_nan=False)
        for row in sorted(rows, key=lambda row: row.key)
    ]
    return "\n".join((json.dumps(head), *lines)) + "\n"


def _golden(path: Path) -> Expected:
    try:
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        versions = json.loads(head)["versions"]
        rows = [_row(json.loads(line)) for line in lines]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise RecordingError(
            f"is neither a recording nor a golden file: {error}",
            at=str(path),
            hint="`beilun replay FILE --golden F` writes one",
        ) from None
    return Expected(rows, versions)


def _row(cells: list[object]) -> Row:
    site, area, line, name, kpi, start, length, value, n, late, unit = cells
    if not isinstance(start, int) or not isinstance(length, int) or not isinstance(n, int):
        raise TypeError("a row of other columns")
    if not isinstance(late, int) or not isinstance(value, int | float | None):
        raise TypeError("a row of other columns")
    asset = Asset(str(site), str(area), str(line), str(name))
    number = None if value is None else float(value)
    return Row(asset, str(kpi), start, length, number, n, late, str(unit))


def moved(
    old: Iterable[Row],
    new: Iterable[Row],
    tolerances: Mapping[str, Tolerance],
    default: Tolerance,
    labels: Labels,
) -> list[Moved]:
    """Every KPI with a row that is missing, extra, or off by more than its tolerance."""
    before = {row.key: row for row in old}
    after = {row.key: row for row in new}
    found: dict[str, list[tuple[Row | None, Row | None]]] = {}
    for key in sorted(before.keys() | after.keys(), key=lambda key: (key[1], key[3], key)):
        mine, other = before.get(key), after.get(key)
        if not _same(mine, other, tolerances.get(key[1], default)):
            found.setdefault(key[1], []).append((mine, other))
    return [_sum_up(kpi, pairs, labels) for kpi, pairs in found.items()]


def _same(old: Row | None, new: Row | None, tolerance: Tolerance) -> bool:
    if old is None or new is None:
        return False
    if (old.n, old.late, old.unit) != (new.n, new.late, new.unit):
        return False
    if old.value is None or new.value is None:
        return old.value is new.value
    return tolerance.covers(old.value, new.value)


def _sum_up(kpi: str, pairs: list[tuple[Row | None, Row | None]], labels: Labels) -> Moved:
    # The first whose value moved says more than one where only the number of samples did.
    old, new = next((pair for pair in pairs if not _equal(*pair)), pairs[0])
    row = old or new
    assert row is not None
    first = f"{asset_path(row.asset)} {labels.of_row(row)} at {format_time(row.window_start_ns)}"
    if old and new and old.value == new.value:
        first += f" (n {old.n} -> {new.n}, late {old.late} -> {new.late})"
    differences = [
        abs(b.value - a.value) if a and b and a.value is not None and b.value is not None else None
        for a, b in pairs
    ]
    worst = None if None in differences else max(d for d in differences if d is not None)
    return Moved(
        kpi, len(pairs), first, old.value if old else None, new.value if new else None, worst
    )


def _equal(old: Row | None, new: Row | None) -> bool:
    return old is not None and new is not None and old.value == new.value


def _text(value: float | None) -> str:
    return "no data" if value is None else f"{value:.9g}"


def junit(suite: str, moved_kpis: Iterable[Moved], old: Iterable[Row]) -> str:
    """JUnit XML: a case is a KPI, a failure one that moved."""
    found = {m.kpi: m for m in moved_kpis}
    names = sorted({row.kpi for row in old} | found.keys())
    return junit_xml(
        suite, [(kpi, f"moved: {found[kpi].text}" if kpi in found else None) for kpi in names]
    )
