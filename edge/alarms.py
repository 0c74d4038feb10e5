"""Alarms: a fold over final rows, window by window; raised and cleared are rows like any other.

Theory of operation
===================

    final rows of a rule's KPI ─► does its condition hold? ─► so many in a row ─► raised 1.0
       (one asset, one kind        + yes, - the contrary,                         cleared 0.0
        of windows, in order)      nothing without evidence

Per rule and asset there is one state: raised or not, and for how many windows in a row what would
change that has held. A row is written where it changes, at the window in which it did, so the rows
of ``alarm.<rule>`` are the edges of a square wave. They are a function of the final rows alone, and
those of the records: live, replayed or shuffled, the same alarms, to the bit.

    window        1   2   3   4   5   6   7   8   9
    condition     -   +   +   +   .   -   +   -   -         for = 3, clear_for = 2
    state         0   0   0   1   1   1   1   1   0
    row                       1.0                 0.0

A window that comes again is amended. Then the state at its start is found by looking back: the last
change before it says whether the alarm stood, and fewer than ``for`` windows before it how many in
a row there were. From there the rows are folded again, as the store has them, until the state is
what it was told to be; a change that was told and is none is ``gone``. So nothing is kept per
window, and an amendment costs what it amends.

An edge that is started again goes through its journal first, and only then looks at what its rows
came to: what was raised and taken back before is not told once more. What it finds in its store of
before is held against that, and what it does not come to is gone.

Windows that a recording's end cuts short raise and clear nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

from config.alarms import PREFIX, Rule
from config.windows import Every, Sliding, Window, lies
from edge.rows import ALL, Row
from ingest.messages import Asset

UNIT = "1"


class Past(Protocol):
    """Rows as they are stored now, their last revisions; ``length_ns``: of such windows only."""

    def since(
        self, asset: Asset, kpi: str, t_ns: int, length_ns: int | None = None
    ) -> Iterator[Row]:
        """Rows of windows that begin then or after, oldest first."""
        ...

    def before(
        self, asset: Asset, kpi: str, t_ns: int, length_ns: int | None = None
    ) -> Iterator[Row]:
        """Rows of windows that begin before then, newest first."""
        ...

    def named(self, glob: str) -> Iterator[Row]:
        """Every row whose KPI's name matches."""
        ...

    def assets(self) -> list[Asset]:
        """Every asset and group that has a row."""
        ...


class Standing(NamedTuple):
    """An alarm from raised to cleared; ``None``: it stands."""

    rule: str
    asset: Asset
    raised: Row
    cleared: Row | None

    @property
    def raised_ns(self) -> int:
        """When it was known: at the end of the window that raised it."""
        return self.raised.span.end_ns

    @property
    def cleared_ns(self) -> int | None:
        """When it was known to be over."""
        return None if self.cleared is None else self.cleared.span.end_ns


@dataclass(slots=True)
class _Watch:
    """One rule on one asset, as far as its rows have come."""

    last_ns: int | None = None
    """Where the last window begins that was seen."""
    raised: bool = False
    held: int = 0
    """Windows in a row in which what would change it has held."""


class Alarms:
    """Give it rows as they come out, after they were stored; it gives rows to be stored."""

    def __init__(self, rules: Sequence[Rule], windows: Sequence[Window], past: Past) -> None:
        """Rules whose windows are not among ``windows`` see nothing."""
        kinds = {kind.label: kind for kind in windows}
        self.rules = tuple(rules)
        self._past = past
        self._kinds = {rule.name: kinds[rule.window] for rule in rules if rule.window in kinds}
        self._by_name = {rule.row_name: rule for rule in rules}
        self._by_kpi: dict[str, list[Rule]] = {}
        for rule in rules:
            if rule.name in self._kinds:
                self._by_kpi.setdefault(rule.kpi, []).append(rule)
        self._watches: dict[tuple[str, Asset], _Watch] = {}
        self._meant: dict[tuple[str, Asset], bool] = {}
        self._inherited: dict[tuple[str, Asset], list[Row]] | None = None
        """Told by the session before this one and not yet come to, the latest first."""

    def fold(self, rows: Iterable[Row], kind_of: Callable[[Asset], str | None]) -> list[Row]:
        """What changes with some rows of whole windows: rows raised, cleared, and gone."""
        out = self._inherit()
        found: dict[tuple[str, Asset], dict[int, Row]] = {}
        for row in rows:
            for rule in self._by_kpi.get(row.kpi, ()):
                if self._means(rule, row.asset, kind_of) and self._has(rule, row):
                    found.setdefault((rule.row_name, row.asset), {})[row.window_start_ns] = row
        for (name, asset), windows in found.items():
            rule = self._by_name[name]
            watch = self._watches.setdefault((name, asset), _Watch())
            starts = sorted(windows)
            last_ns = watch.last_ns
            amended = [s for s in starts if last_ns is not None and s <= last_ns]
            if amended:
                out += self._again(rule, asset, watch, amended)
            for start_ns in starts[len(amended) :]:
                if not windows[start_ns].gone:
                    out += self._next(rule, watch, windows[start_ns])
        return out

    def catch_up(self, until_ns: int, kind_of: Callable[[Asset], str | None]) -> list[Row]:
        """What all stored rows of windows that end by then come to; for one who begins in the
        middle, and before any other row."""
        out = self._inherit()
        assets = self._past.assets()
        for rule in self.rules:
            if rule.name not in self._kinds:
                continue
            for asset in assets:
                if not self._means(rule, asset, kind_of):
                    continue
                watch = self._watches.setdefault((rule.row_name, asset), _Watch())
                for row in self._past.since(asset, rule.kpi, 0, self._length_ns(rule)):
                    if self._has(rule, row) and row.span.end_ns <= until_ns:
                        out += self._next(rule, watch, row)
        return out

    def finish(self) -> list[Row]:
        """What is left to be taken back when no more rows will come."""
        out = self._inherit()
        left, self._inherited = self._inherited or {}, {}
        return out + [_gone(row) for rows in left.values() for row in rows]

    def _next(self, rule: Rule, watch: _Watch, row: Row) -> list[Row]:
        """The window after all those that were seen."""
        changed = self._step(rule, watch, row)
        watch.last_ns = row.window_start_ns
        out = [changed] if changed is not None else []
        told = (self._inherited or {}).get((rule.row_name, row.asset), [])
        while told and told[-1].window_start_ns <= row.window_start_ns:
            before = told.pop()
            if changed is None or before.key != changed.key:
                out.insert(0, _gone(before))
        return out

    def _again(self, rule: Rule, asset: Asset, watch: _Watch, amended: list[int]) -> list[Row]:
        """Windows that were seen before, and what follows from them."""
        assert watch.last_ns is not None
        first_ns, last_ns = amended[0], amended[-1]
        told = {
            row.window_start_ns: row
            for row in self._since(rule, asset, rule.row_name, first_ns, watch.last_ns)
        }
        state = self._state_at(rule, asset, first_ns)
        was, out = state.raised, list[Row]()
        for row in self._since(rule, asset, rule.kpi, first_ns, watch.last_ns):
            changed = self._step(rule, state, row)
            while told and (start_ns := next(iter(told))) <= row.window_start_ns:
                before = told.pop(start_ns)
                was = before.value == 1.0
                if changed is None or before.key != changed.key:
                    out.append(_gone(before))
                elif (before.value, before.n) == (changed.value, changed.n):
                    changed = None
            if changed is not None:
                out.append(changed)
            # From here on everything is as it was told: the same state, and nothing counted.
            if row.window_start_ns > last_ns and state.raised == was and not state.held:
                return out
        watch.raised, watch.held = state.raised, state.held
        return out + [_gone(row) for row in told.values()]

    def _state_at(self, rule: Rule, asset: Asset, t_ns: int) -> _Watch:
        """The state when a window begins that is stored, and all before it are as told."""
        length_ns = self._length_ns(rule)
        told = (
            row
            for row in self._past.before(asset, rule.row_name, t_ns, length_ns)
            if self._has(rule, row)
        )
        last = next(told, None)
        state = _Watch(None, last is not None and last.value == 1.0)
        wanted = -1 if state.raised else 1
        for row in self._past.before(asset, rule.kpi, t_ns, length_ns):
            if last is not None and row.window_start_ns <= last.window_start_ns:
                break
            if not self._has(rule, row):
                continue
            if _verdict(rule, row) != wanted:
                break
            state.held += 1
        return state

    def _step(self, rule: Rule, state: _Watch, row: Row) -> Row | None:
        """Take one more window; gives the row of the change, if there is one."""
        wanted, needed = (-1, rule.to_clear) if state.raised else (1, rule.to_raise)
        if _verdict(rule, row) != wanted:
            state.held = 0
            return None
        state.held += 1
        if state.held < needed:
            return None
        n, state.held, state.raised = state.held, 0, not state.raised
        return Row(
            row.asset, rule.row_name, row.window_start_ns, row.window_length_ns,
            float(state.raised), n, 0, UNIT,
        )  # fmt: skip

    # what is meant -----------------------------------------------------------------------------

    def _since(
        self, rule: Rule, asset: Asset, kpi: str, first_ns: int, last_ns: int
    ) -> Iterator[Row]:
        """Stored rows of a rule's windows that begin in ``[first_ns, last_ns]``."""
        for row in self._past.since(asset, kpi, first_ns, self._length_ns(rule)):
            if row.window_start_ns > last_ns:
                return
            if self._has(rule, row):
                yield row

    def _length_ns(self, rule: Rule) -> int | None:
        """How long its windows are; ``None`` where that varies."""
        kind = self._kinds[rule.name]
        return kind.nominal_ns if isinstance(kind, Every | Sliding) else None

    def _has(self, rule: Rule, row: Row) -> bool:
        """Whether a row's window is of the kind that a rule goes by."""
        return lies(self._kinds[rule.name], row.span)

    def _means(self, rule: Rule, asset: Asset, kind_of: Callable[[Asset], str | None]) -> bool:
        key = (rule.name, asset)
        if key not in self._meant:
            path = "/".join(level for level in asset if level != ALL)
            self._meant[key] = rule.means(path, kind_of(asset))
        return self._meant[key]

    def _inherit(self) -> list[Row]:
        """Look once at what was told before this session; rules no longer in force tell nothing."""
        if self._inherited is not None:
            return []
        self._inherited = {}
        out: list[Row] = []
        for row in self._past.named(f"{PREFIX}*"):
            rule = self._by_name.get(row.kpi)
            if rule is None or rule.name not in self._kinds:
                out.append(_gone(row))
            else:
                self._inherited.setdefault((row.kpi, row.asset), []).append(row)
        for rows in self._inherited.values():
            rows.sort(key=lambda row: row.window_start_ns, reverse=True)
        return out

    # for people --------------------------------------------------------------------------------

    def about(self, row: Row) -> Mapping[str, Any]:
        """What an alarm row means, for a message about it; empty for any other row.

        ``value`` is the KPI's in that window; ``standing`` is what holds after all windows so far,
        which is not the row's where it is ``gone`` or amended.
        """
        rule = self._by_name.get(row.kpi)
        if rule is None:
            return {}
        start_ns, length_ns = row.window_start_ns, row.window_length_ns
        seen = next(self._past.since(row.asset, rule.kpi, start_ns, length_ns), None)
        if seen is not None and seen.window_start_ns != start_ns:
            seen = None
        told = islice(self._past.before(row.asset, row.kpi, start_ns + 1), 2)
        raised = next((each for each in told if each.value == 1.0), None)
        latest = next(self._past.before(row.asset, row.kpi, FAR_NS), None)
        return {
            "rule": rule.name,
            "severity": rule.severity,
            "text": rule.text.model_dump(),
            "state": "gone" if row.gone else "raised" if row.value == 1.0 else "cleared",
            "standing": latest is not None and latest.value == 1.0,
            "kpi": rule.kpi,
            "value": None if seen is None else seen.value,
            "unit": "" if seen is None else seen.unit,
            "condition": rule.condition,
            "threshold": rule.limit,
            "window": rule.window,
            "raised_ns": None if raised is None else raised.span.end_ns,
            "changed_ns": row.span.end_ns,
        }


FAR_NS = 2**63 - 1
"""After every window."""


def is_alarm(row: Row) -> bool:
    """Whether a row tells of an alarm and not of a KPI."""
    return row.kpi.startswith(PREFIX)


def standings(rows: Iterable[Row]) -> list[Standing]:
    """Alarms by when they were raised, of rows among which there may be any others."""
    found: list[Standing] = []
    series: dict[tuple[str, Asset], list[Row]] = {}
    for row in rows:
        if is_alarm(row) and not row.gone:
            series.setdefault((row.kpi, row.asset), []).append(row)
    for (name, asset), changes in series.items():
        raised: Row | None = None
        for row in sorted(changes, key=lambda row: row.window_start_ns):
            if row.value == 1.0:
                raised = row
            elif raised is not None:
                found.append(Standing(name.removeprefix(PREFIX), asset, raised, row))
                raised = None
        if raised is not None:
            found.append(Standing(name.removeprefix(PREFIX), asset, raised, None))
    return sorted(found, key=lambda each: (each.raised_ns, each.rule, each.asset))


def _verdict(rule: Rule, row: Row) -> int:
    """1 where its condition holds, -1 where the contrary does, 0 in between and in the dark."""
    if rule.condition == "stale":
        return 1 if row.value is None else -1
    if rule.condition == "missing":
        return -1 if row.n else 1
    value = row.value
    if rule.condition == "late_above":
        value = row.late / row.n if row.n else None
    limit, clear = rule.limit, rule.clear_limit
    if value is None or limit is None or clear is None:
        return 0
    if rule.condition == "below":
        return 1 if value < limit else -1 if value >= clear else 0
    return 1 if value > limit else -1 if value <= clear else 0


def _gone(row: Row) -> Row:
    return row._replace(gone=True)
