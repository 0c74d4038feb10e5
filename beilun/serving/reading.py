"""One recording as its readers see it: KPIs, states, signals, orders and health, at any time.

Every answer is a function of the recording and of the times it is asked for, so what is shown live
and what is shown in a replay come from the same calls. Nothing here is ever written: the file is
opened read-only, in this or any other process than the one that writes it.

    last      ─► catalogue of series (kept in memory) ─► one seek in (series, start) each
    history   ─► the same, and a scan of the windows asked for
    signals   ─► index of blocks by event time ─► see ``journal``
    changes   ─► what the writer noted in the transaction that wrote the rows, by number

A reader may be used from any number of threads: each gets a connection of its own. What several ask
at once is looked up once: many pages of one run that is going on ask the same every second.
"""

import contextlib
import functools
import json
import math
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from copy import copy
from datetime import UTC, timedelta, timezone, tzinfo
from itertools import chain
from pathlib import Path
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec, TypeVar, cast
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from pydantic import ValidationError

from beilun import layout as layouts
from beilun.layout import Layout
from beilun.serving.journal import Journal, series, thinned, within
from config.alarms import PREFIX, Rule, Rules
from config.errors import ConfigError, RecordingError, UsageError
from config.globs import asset_matches
from config.scenario import EdgeSettings, Expect, Scenario
from config.units import NS_PER_S
from config.windows import Order, Span, Window, lengths_of, lies
from edge.measures.situations import STATE_HOLD_NS
from edge.rows import ALL, ORDER_NUMBER, Row
from ingest.bins import delay_of
from ingest.decode import Decoder
from ingest.messages import Asset, Batch, Birth, Floats, Identity, Times
from ingest.packml import Maintenance, Mode, PackML
from ingest.recording import Recording, unlike

TRAIL_REACH_NS = 120 * NS_PER_S
"""How far before a trail begins a vehicle's last word is looked for, and after it the next."""
PLACE_HOLD_NS = 90 * NS_PER_S
"""A vehicle that has told nothing for longer is nowhere."""


class AssetInfo(NamedTuple):
    """An asset as it announced itself last."""

    asset: Asset
    kind: str
    channels: Mapping[str, str]
    """Units of everything it will ever tell."""
    limits: Mapping[str, tuple[float, float]]
    """Lower and upper specification limit, of channels that have both."""


class StateSpan(NamedTuple):
    """A stretch in one state, ``[start_ns, end_ns)``; between spans nothing is known."""

    start_ns: int
    end_ns: int
    state: str
    """PackML, like ``EXECUTE``."""
    reason: str
    """Why, as far as it told, or empty: ``corrective`` or ``preventive`` maintenance; the unit's
    mode (``setup``, ``maintenance``, ``manual``); an arm's ``protective_stop`` or ``grip_lost``; no
    planned time (``not_planned``); a cause that is ``internal`` (HELD) or ``external`` (SUSPENDED:
    blocked or starved); ``aborted``; a vehicle that is ``waiting`` for others, or ``charging``."""


class Place(NamedTuple):
    """Where a vehicle is. Between two reports it is on the straight line between them."""

    x_m: float
    y_m: float
    heading_rad: float | None
    """Of its last move, east is 0, north is a quarter turn; ``None`` if it has not moved."""
    battery_ratio: float | None
    trail: list[tuple[int, float, float]]
    """Time and place, oldest first."""
    driving: bool
    waiting: bool
    """It wants to move and may not."""
    loaded: bool
    charging: bool
    t_ns: int
    """Of the last report."""


class OrderAt(NamedTuple):
    """The order registered on a unit."""

    number: int
    product: str
    """Empty where the recording does not say."""
    since_ns: int
    until_ns: int | None
    """``None``: still on, as far as the recording goes."""


class DelayBin(NamedTuple):
    """How many messages of control traffic took about so long."""

    delay_ms: float
    up: int
    down: int


class Stage(NamedTuple):
    """The seven counters of one stage of the edge's pipeline; ``None`` = it does not have that."""

    stage: str
    in_: int | None
    out: int | None
    rejected: int | None
    late: int | None
    dropped: int | None
    backlog: int | None
    p99_ms: float | None


class CellSpan(NamedTuple):
    """A stretch in which a device was in one cell of the radio."""

    start_ns: int
    end_ns: int
    cell: str


class AlarmSpan(NamedTuple):
    """An alarm from when it was raised until it was cleared; times of events."""

    rule: str
    asset: Asset
    raised_ns: int
    cleared_ns: int | None
    severity: str
    text: Mapping[str, str]
    """By language, ``en`` and ``zh``."""
    value: float | None
    """Of the KPI in the window that raised it."""


class FaultSpan(NamedTuple):
    """What the scenario does to the network or the data."""

    start_ns: int
    end_ns: int
    kind: str
    text: str


class Sink(NamedTuple):
    """A remote store's outbox; ``oldest_s`` is how long the oldest row waits."""

    waiting: int
    oldest_s: float | None
    dead: int
    dropped: int
    queued: int
    accepted: int


class Refused(NamedTuple):
    """A message nobody could use."""

    reason: str
    detail: str
    topic: str
    received_ns: int
    size: int
    head: bytes


class _Series(NamedTuple):
    number: int
    asset: Asset
    kpi: str
    length_ns: int
    unit: str


_LAST = """
SELECT window_start_ns, value, n, late, revision FROM row
WHERE series = ? AND window_start_ns <= ? ORDER BY window_start_ns DESC
"""
_RANGE = """
SELECT window_start_ns, value, n, late, revision FROM row
WHERE series = ? AND window_start_ns > ? AND window_start_ns <= ? ORDER BY window_start_ns
"""
_CHANGES = """
SELECT c.id, c.series, c.window_start_ns, r.value, r.n, r.late, r.revision, g.revision
FROM change c
LEFT JOIN row r ON r.series = c.series AND r.window_start_ns = c.window_start_ns
LEFT JOIN gone g ON g.series = c.series AND g.window_start_ns = c.window_start_ns
WHERE c.id > ? ORDER BY c.id LIMIT ?
"""


ANSWERS = 128
"""How many answers are kept for whoever asks the same, until somebody writes."""
P = ParamSpec("P")
T = TypeVar("T")


class _Answers:
    """The newest answers, each made once however many ask at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._version = -1
        self._kept: OrderedDict[object, Future[Any]] = OrderedDict()

    def get(self, version: int, question: object, answer: Callable[[], T]) -> T:
        """An answer of this version of the recording, or of one that came while it was made."""
        with self._lock:
            if version > self._version:
                self._version = version
                self._kept.clear()
            elif version < self._version:
                question = object()  # somebody has written since
            promised, first = self._kept.get(question), False
            if promised is None:
                promised = self._kept[question] = Future()
                first = True
            self._kept.move_to_end(question)
            while len(self._kept) > ANSWERS:
                self._kept.popitem(last=False)
        if first:
            try:
                promised.set_result(answer())
            except BaseException as error:
                promised.set_exception(error)
                with self._lock:
                    if self._kept.get(question) is promised:
                        del self._kept[question]
        found: T = promised.result()
        return copy(found)  # lists and dicts of values: whoever asked may change his own


def _shared(
    method: "Callable[Concatenate[Reader, P], T]",
) -> "Callable[Concatenate[Reader, P], T]":
    """Answer what is asked several times of one version of the recording once."""

    @functools.wraps(method)
    def asked(self: "Reader", /, *args: P.args, **more: P.kwargs) -> T:
        question: list[object] = [method.__name__]
        for part in (*args, *chain(*sorted(more.items()))):
            if isinstance(part, set | list):  # names, which are no key as they come
                question.append(frozenset(cast("Collection[str]", part)))
            else:
                question.append(part)
        answer = functools.partial(method, self, *args, **more)
        return self._answers.get(self.version(), tuple(question), answer)  # pyright: ignore[reportPrivateUsage]

    return asked


class Reader:
    """One recording, read-only; raises ``RecordingError`` where it cannot be read."""

    _closed = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name.removesuffix(".beilun")
        self._local = threading.local()
        self._opened: list[Recording] = []
        self._lock = threading.RLock()
        self._watching = threading.Lock()
        self._watch = self._open()
        """The one connection whose counter of foreign changes is looked at: each has its own."""
        self._meta: dict[str, str] = {}
        self._catalogue: dict[int, _Series] = {}
        self._by_kpi: dict[str, list[_Series]] = {}
        self._end: tuple[int, int] = (-1, 0)
        self._journal: Journal | None = None
        self._layout: Layout | None = None
        self._answers = _Answers()

    def close(self) -> None:
        """Close every connection; nothing can be asked any more."""
        with self._lock:
            self._closed = True
            for recording in self._opened:
                recording.close()
            self._opened.clear()

    # header -------------------------------------------------------------------------------------

    @property
    def scenario(self) -> str:
        """Name of the scenario; empty for a foreign recording."""
        return self._header("name") or ""

    @property
    def seed(self) -> int | None:
        text = self._header("seed")
        return None if text is None else int(text)

    @property
    def simulated(self) -> bool:
        return self._header("source") == "simulated"

    @property
    def site(self) -> str:
        """The site of the first asset; empty while there is none."""
        for entry in self._series():
            return entry.asset.site
        for info in self.assets():
            return info.asset.site
        return ""

    @property
    def windows(self) -> tuple[str, ...]:
        """Labels, as the edge was told; of a recording without an edge's header none."""
        return self._edge().windows if self._header("edge") is not None else ()

    def kinds(self) -> tuple[Window, ...]:
        """The windows themselves, in the order of their labels."""
        return self._edge().kinds if self._header("edge") is not None else ()

    @property
    def zone(self) -> tzinfo:
        """Of local time: the edge's zone; where that is plain UTC, the plant's clock."""
        name = self._edge().zone
        if name != "UTC":
            return ZoneInfo(name)
        plan = self.layout()
        offset = "" if plan is None else plan.utc_offset
        if not offset:
            return UTC
        hours, minutes = offset[1:].split(":")
        east = timedelta(hours=int(hours), minutes=int(minutes))
        return timezone(-east if offset.startswith("-") else east)

    @property
    def start_ns(self) -> int:
        """Where event time begins; 0 while nothing is known."""
        text = self._header("start_ns")
        if text is not None:
            return int(text)
        (found,) = self._one(
            "SELECT min(first_ns) FROM (SELECT first_ns FROM block ORDER BY id LIMIT 50)"
        )
        return int(found or 0)

    def end_ns(self) -> int:
        """How far event time has come: the end of the last window that closed."""
        version = self.version()
        if self._end[0] != version:
            ends = [self._newest_ns(entry) for entry in self._pulse()]
            self._end = version, max(ends, default=0)
        return max(self._end[1], self.start_ns)

    def newest_ns(self) -> int:
        """Event time of the newest message while it is written, for what moves between two windows;
        then ``end_ns``. A clock that is ahead carries it two of the shortest windows beyond that
        and no further."""
        end_ns = self.end_ns()
        if not self.live():
            return end_ns
        (newest_ns,) = self._one("SELECT max(last_ns) FROM block")[:1]
        lengths = [kind.nominal_ns for kind in self._edge().kinds if kind.nominal_ns]
        return min(max(newest_ns or 0, end_ns), end_ns + 2 * min(lengths, default=0))

    def live(self) -> bool:
        """Whether nobody has said that it is finished. An edge that was killed has not either."""
        return self._fresh("finished") is None

    def version(self) -> int:
        """Changes whenever anybody wrote; costs microseconds."""
        with self._watching:
            (number,) = self._ask(self._watch, "PRAGMA data_version")[0]
        return int(number)

    def layout(self) -> Layout | None:
        """The floor; ``None`` for a recording of foreign devices."""
        if self._layout is None:
            text = self._header("layout")
            if text is not None:
                try:
                    self._layout = layouts.decode(text)
                except msgspec.MsgspecError as error:
                    raise RecordingError(
                        f"its layout cannot be read: {error}", at=str(self.path)
                    ) from None
            elif (said := self._header("scenario")) is not None:
                self._layout = _layout_of(said)
        return self._layout

    def faults(self) -> list[FaultSpan]:
        """What the scenario does to the network and the data, oldest first."""
        said: dict[str, Any] = json.loads(self._header("scenario") or "{}")
        found: list[FaultSpan] = []
        for fault in said.get("fault", ()):
            start_ns = self.start_ns + int(fault["after"])
            found.append(
                FaultSpan(start_ns, start_ns + int(fault["length"]), fault["kind"], _told(fault))
            )
        return sorted(found)

    def expects(self) -> list[Expect]:
        """What the scenario expects of the KPIs; of a foreign recording nothing."""
        said: dict[str, Any] = json.loads(self._header("scenario") or "{}")
        return [Expect.model_validate(each) for each in said.get("expect", ())]

    # assets -------------------------------------------------------------------------------------

    def assets(self) -> list[AssetInfo]:
        """Every asset that announced itself, in order of their paths; groups have no entry."""
        journal = self._said()
        found: list[AssetInfo] = []
        for asset in journal.assets():
            births = journal.births(asset)
            if births:
                last = births[-1]
                found.append(AssetInfo(asset, last.kind, last.channels, last.limits))
        return sorted(found)

    def groups(self) -> list[Asset]:
        """Lines, areas and sites that have a KPI, their lower levels ``-``."""
        return sorted({entry.asset for entry in self._series() if ALL in entry.asset})

    def kpi_names(self, asset: Asset | None = None) -> list[str]:
        """KPIs of one asset or of all, in alphabetical order."""
        names = {entry.kpi for entry in self._series() if asset is None or entry.asset == asset}
        return sorted(name for name in names if _is_kpi(name))

    # rows ---------------------------------------------------------------------------------------

    @_shared
    def last(self, kpis: Collection[str], window: str, t_ns: int, asset: str = "*") -> list[Row]:
        """Per asset and KPI the last window of a label that had ended at a time; of no KPIs: of
        all. ``asset`` is a glob as in scenarios: ``dcm*``, ``ningbo/*/*/*``; ``*`` is everything.
        Raises ``UsageError`` for a label that is none."""
        kind = self._kind(window)
        chosen = [
            entry
            for entry in self._chosen(kpis)
            if asset == "*" or asset_matches(asset, _path(entry.asset))
        ]
        if isinstance(kind, Order):
            return self._last_of_orders(chosen, t_ns)
        lengths = lengths_of(kind)
        newest: dict[tuple[Asset, str], Row] = {}
        for entry in chosen:
            if entry.length_ns not in lengths:
                continue
            row = self._last_in(entry, kind, t_ns)
            if row is not None:
                key = entry.asset, entry.kpi
                known = newest.get(key)
                if known is None or known.window_start_ns < row.window_start_ns:
                    newest[key] = row
        return sorted(newest.values(), key=lambda row: (row.asset, row.kpi))

    @_shared
    def history(
        self, asset: Asset, kpi: str, window: str, from_ns: int, to_ns: int, most: int = 2_000
    ) -> list[Row]:
        """Windows of a label that ended in ``(from_ns, to_ns]``, oldest first. Of more than
        ``most`` those are kept that tell most: the least, the greatest and a blank of each stretch.
        """
        kind = self._kind(window)
        found: list[Row] = []
        orders = self._order_windows(asset) if isinstance(kind, Order) else set[Span]()
        lengths = {span.length_ns for span in orders} or lengths_of(kind)
        for entry in self._by(kpi):
            if entry.asset != asset or entry.length_ns not in lengths:
                continue
            args = (entry.number, from_ns - entry.length_ns, to_ns - entry.length_ns)
            found += (
                row
                for row in self._rows(entry, self._many(_RANGE, args))
                if row.span in orders or (not orders and lies(kind, row.span))
            )
        found.sort(key=lambda row: (row.window_start_ns, row.window_length_ns))
        if len(found) <= most:
            return found
        values = np.array([math.nan if row.value is None else row.value for row in found])
        kept, _ = thinned(np.arange(len(found)), values, most)
        return [found[at] for at in kept.tolist()]

    def query(
        self,
        kpis: Collection[str],
        asset: str,
        window: str,
        from_ns: int,
        to_ns: int,
        limit: int,
        after: tuple[int, int] = (0, 0),
        sees: Callable[[Asset], bool] = lambda _: True,
    ) -> tuple[list[Row], tuple[int, int] | None]:
        """Windows of a label that ended in ``(from_ns, to_ns]``, series by series and each oldest
        first, at most ``limit``, and where the next ones begin: hand that in as ``after``. ``None``
        where there are no more. Rows that come meanwhile change no other's place."""
        kind = self._kind(window)
        out: list[Row] = []
        for entry in sorted(self._chosen(kpis)):
            if entry.number < after[0] or not sees(entry.asset):
                continue
            if asset != "*" and not asset_matches(asset, _path(entry.asset)):
                continue
            if isinstance(kind, Order):
                orders = self._order_windows(entry.asset)
            elif entry.length_ns in lengths_of(kind):
                orders = None
            else:
                continue
            first_ns = from_ns - entry.length_ns
            if entry.number == after[0]:
                first_ns = max(first_ns, after[1])
            args = (entry.number, first_ns, to_ns - entry.length_ns)
            for row in self._rows(entry, self._each(_RANGE, args)):
                if row.span not in orders if orders is not None else not lies(kind, row.span):
                    continue
                if len(out) == limit:
                    return out, (entry.number, row.window_start_ns - 1)
                out.append(row)
        return out, None

    def truth(
        self, asset: Asset, kpi: str, window_start_ns: int, window_length_ns: int
    ) -> float | None:
        """What a KPI really was; ``None`` where nobody knows or it is not defined. A simulator
        tells only once a run has ended."""
        rows = self._many(
            "SELECT value FROM truth WHERE asset = ? AND kpi = ? AND window_length_ns = ?"
            " AND window_start_ns = ?",
            (str(asset), kpi, window_length_ns, window_start_ns),
        )
        return rows[0][0] if rows else None

    def truth_history(
        self, asset: Asset, kpi: str, window: str, from_ns: int, to_ns: int
    ) -> list[tuple[int, int, float | None]]:
        """Start, length and true value of the windows of a label that ended in
        ``(from_ns, to_ns]``, oldest first."""
        kind = self._kind(window)
        orders = self._order_windows(asset) if isinstance(kind, Order) else set[Span]()
        found: list[tuple[int, int, float | None]] = []
        for length_ns in {span.length_ns for span in orders} or lengths_of(kind):
            rows = self._many(
                "SELECT window_start_ns, value FROM truth WHERE asset = ? AND kpi = ?"
                " AND window_length_ns = ? AND window_start_ns > ? AND window_start_ns <= ?",
                (str(asset), kpi, length_ns, from_ns - length_ns, to_ns - length_ns),
            )
            for start_ns, value in rows:
                span = Span(start_ns, start_ns + length_ns)
                if span in orders or (not orders and lies(kind, span)):
                    found.append((start_ns, length_ns, value))
        return sorted(found)

    def changes(self, after: int, limit: int = 1_000) -> list[tuple[int, Row]]:
        """Rows in the order in which they were written, amended, or taken away (``gone``), each
        with a number that only grows. A row that was amended meanwhile comes as it is now. Numbers
        start at 1; only the newest are kept, see ``change_span``."""
        if not self._has("change"):
            return []
        found: list[tuple[int, Row]] = []
        for number, series_number, start_ns, *rest in self._many(_CHANGES, (after, limit)):
            entry = self._entry(series_number)
            if entry is None:
                continue
            value, n, late, revision, left = rest
            where = (entry.asset, entry.kpi, start_ns, entry.length_ns)
            if revision is None:
                row = Row(*where, None, 0, 0, entry.unit, left or 0, gone=True)
            else:
                row = Row(*where, value, n, late, entry.unit, revision)
            found.append((number, row))
        return found

    def change_span(self) -> tuple[int, int]:
        """Numbers of the oldest and the newest change that are kept; (0, 0) where there is none."""
        if not self._has("change"):
            return 0, 0
        oldest, newest = self._one(
            "SELECT (SELECT id FROM change ORDER BY id LIMIT 1),"
            " (SELECT id FROM change ORDER BY id DESC LIMIT 1)"
        )
        return int(oldest or 0), int(newest or 0)

    # alarms -------------------------------------------------------------------------------------

    @_shared
    def alarms(self, t_ns: int, since_ns: int) -> list[AlarmSpan]:
        """Alarms that were on at any time in ``[since_ns, t_ns]``, as they stood then, the newest
        first. One that was raised and cleared later is not there, and one cleared later is on."""
        rules = self.alarm_rules()
        found: list[AlarmSpan] = []
        for entry in self._series():
            if not entry.kpi.startswith(PREFIX):
                continue
            rule = entry.kpi.removeprefix(PREFIX)
            said = rules.get(rule)
            raised: Row | None = None
            args = (entry.number, -1, t_ns - entry.length_ns)
            for row in self._rows(entry, self._many(_RANGE, args)):
                if row.value:
                    raised = raised or row
                elif raised is not None:
                    if row.span.end_ns >= since_ns:
                        found.append(self._alarm(rule, said, raised, row.span.end_ns))
                    raised = None
            if raised is not None:
                found.append(self._alarm(rule, said, raised, None))
        return sorted(found, key=lambda alarm: (-alarm.raised_ns, alarm.asset, alarm.rule))

    def alarm_rules(self) -> dict[str, Rule]:
        """The rules the edge went by, by name."""
        text = self._header("alarms")
        try:
            found = () if text is None else Rules.model_validate_json(text).rule
        except ValidationError as error:
            raise RecordingError(
                f"its alarm rules cannot be read: {error.errors()[0]['msg']}", at=str(self.path)
            ) from None
        return {rule.name: rule for rule in found}

    def _alarm(
        self, name: str, rule: Rule | None, raised: Row, cleared_ns: int | None
    ) -> AlarmSpan:
        value = None
        for entry in self._by("" if rule is None else rule.kpi):
            if (entry.asset, entry.length_ns) == (raised.asset, raised.window_length_ns):
                row = self._at(entry, raised.window_start_ns)
                value = None if row is None else row.value
        text = {"en": name, "zh": name} if rule is None else rule.text.model_dump()
        severity = "warning" if rule is None else rule.severity
        return AlarmSpan(name, raised.asset, raised.span.end_ns, cleared_ns, severity, text, value)

    # what devices said --------------------------------------------------------------------------

    @_shared
    def states(self, asset: Asset, from_ns: int, to_ns: int) -> list[StateSpan]:
        """What a unit was doing, cut to ``[from_ns, to_ns]``; gaps are times of which nothing is
        known, as when a unit that should talk fell silent. Vehicles tell no PackML state: theirs
        follows from mission, motion and charging."""
        journal = self._said()
        births = journal.births(asset)
        batches = journal.batches(asset, from_ns - STATE_HOLD_NS, to_ns)
        if births and "mission" in births[-1].channels:
            return _vehicle_states(batches, from_ns, to_ns)
        batches += journal.last_told(asset, "state", from_ns)
        calendar = [m for m in journal.told(asset, "calendar") if isinstance(m, Batch)]
        lasting = bool(births) and births[-1].by_exception
        return _unit_states(batches, calendar, from_ns, to_ns, lasting=lasting)

    def signals(
        self, asset: Asset, channels: Sequence[str], from_ns: int, to_ns: int, most: int = 4_000
    ) -> dict[str, tuple[Times, Floats]]:
        """Times and values of some channels in ``[from_ns, to_ns]``, of those that told anything;
        NaN is a blank cell. Of more than ``most`` points those are kept that tell most. What an
        asset tells of its link is no signal: see ``delays``."""
        batches = self._said().batches(asset, from_ns, to_ns)
        out: dict[str, tuple[Times, Floats]] = {}
        for name in channels:
            t_ns, values = within(*series(batches, name), from_ns, to_ns)
            if len(t_ns):
                out[name] = thinned(t_ns, values, most)
        return out

    def told(self, asset: Asset, from_ns: int, to_ns: int) -> tuple[Birth | None, list[Batch]]:
        """How an asset announced itself last, and what it told in ``[from_ns, to_ns]``, each
        message once, with as much before as it takes to know state, order and calendar then."""
        journal = self._said()
        births = journal.births(asset)
        batches = journal.batches(asset, from_ns - 2 * STATE_HOLD_NS, to_ns)
        batches += journal.last_told(asset, "state", from_ns)
        for stream in ("calendar", "orders"):
            batches += [m for m in journal.told(asset, stream) if isinstance(m, Batch)]
        once: dict[Identity, Batch] = {}
        for batch in batches:
            known = once.setdefault(batch.meta.identity, batch)
            if batch.meta.arrival_ns < known.meta.arrival_ns:
                once[batch.meta.identity] = batch
        return births[-1] if births else None, list(once.values())

    def delays(self, asset: Asset, from_ns: int, to_ns: int) -> list[DelayBin]:
        """How long the control traffic of a device, cell, slice or kind took on the link, by bin of
        the wire contract, the shortest first."""
        counts: dict[int, list[int]] = {}
        for batch in self._said().batches(asset, from_ns, to_ns, link=True):
            if "bin" not in batch.channels or "count" not in batch.channels:
                continue
            down = batch.channels.get("down")
            inside = (batch.t_ns >= from_ns) & (batch.t_ns <= to_ns)
            for at in np.nonzero(inside)[0].tolist():
                number, n = batch.channels["bin"][at], batch.channels["count"][at]
                if math.isnan(number) or math.isnan(n):
                    continue
                way = int(down is not None and bool(down[at] == 1))
                counts.setdefault(int(number), [0, 0])[way] += int(n)
        return [
            DelayBin(delay_of(number) / 1e6, up, down)
            for number, (up, down) in sorted(counts.items())
        ]

    def positions(self, t_ns: int, trail_s: float = 60) -> dict[Asset, Place]:
        """Where the vehicles are that have told it lately, and the way they came."""
        journal = self._said()
        trail_ns = round(trail_s * NS_PER_S)
        out: dict[Asset, Place] = {}
        for info in self.assets():
            if "x_m" not in info.channels or "y_m" not in info.channels:
                continue
            first_ns, last_ns = t_ns - trail_ns - TRAIL_REACH_NS, t_ns + TRAIL_REACH_NS
            place = _place(journal.batches(info.asset, first_ns, last_ns), t_ns, trail_ns)
            if place is not None:
                out[info.asset] = place
        return out

    def orders(self, t_ns: int) -> dict[Asset, OrderAt]:
        """The order on each unit that has one at a time, since it was told last."""
        out: dict[Asset, OrderAt] = {}
        for info in self.assets():
            told = self._said().last_told(info.asset, "orders", t_ns)
            at = [order for order in self._runs(told) if order.since_ns <= t_ns]
            if at and (at[-1].until_ns is None or t_ns < at[-1].until_ns):
                out[info.asset] = at[-1]
        return out

    def order_spans(self, asset: Asset) -> list[OrderAt]:
        """Every order that was on a unit, oldest first."""
        told = self._said().told(asset, "orders")
        return self._runs([message for message in told if isinstance(message, Batch)])

    def _runs(self, told: Sequence[Batch]) -> list[OrderAt]:
        """Orders by what a unit told of them; the last one is on, as far as that goes."""
        t_ns, numbers = series(told, "order")
        plan = self.layout()
        products = {} if plan is None else plan.products
        out: list[OrderAt] = []
        for at_ns, value in zip(t_ns.tolist(), numbers.tolist(), strict=True):
            number = 0 if math.isnan(value) else int(value)
            if out and out[-1].until_ns is None:
                if out[-1].number == number:
                    continue
                out[-1] = out[-1]._replace(until_ns=at_ns)
            if number > 0:
                out.append(OrderAt(number, products.get(str(number), ""), at_ns, None))
        return out

    # health -------------------------------------------------------------------------------------

    def ledger(self) -> dict[str, dict[str, int]]:
        """Counts of messages by side: what was made, what came, what became of it."""
        out: dict[str, dict[str, int]] = {}
        for side, entry, n in self._many("SELECT side, entry, messages FROM ledger", ()):
            out.setdefault(side, {})[entry] = int(n)
        return out

    def rejects(self, limit: int = 100) -> list[Refused]:
        """The newest messages nobody could use, of those that are kept."""
        rows = self._many(
            "SELECT reason, detail, topic, received_ns, size, head FROM reject"
            " ORDER BY id DESC LIMIT ?",
            (limit,),
        )
        return [Refused(*row) for row in rows]

    def sinks(self, to: Literal["", "webhook"] = "") -> Sink | None:
        """How far what is owed to the remote store is, or to the webhook of the alarms; ``None``
        where there is none."""
        box = f"{to}_outbox" if to else "outbox"
        if not self._has(box):
            return None
        counts = dict(self._many(f"SELECT entry, n FROM {box}_count", ()))
        waiting, oldest_s = self._one(
            "SELECT count(*), (julianday('now') - 2440587.5) * 86400.0 - min(made_s)"
            f" FROM {box} WHERE accepted_s IS NULL"
        )
        return Sink(
            waiting, oldest_s, counts.get("dead", 0), counts.get("dropped", 0),
            counts.get("queued", 0), counts.get("accepted", 0),
        )  # fmt: skip

    def stages(self) -> list[Stage]:
        """The counters of the edge's stages, in the order in which a message passes them; as they
        were at most a second ago while it runs."""
        if not self._has("stage"):
            return []
        rows = self._many(
            'SELECT stage, "in", out, rejected, late, dropped, backlog, p99_ms FROM stage'
            " ORDER BY place",
            (),
        )
        return [Stage(*row) for row in rows]

    def hops(self) -> dict[str, dict[str, float]]:
        """How long the steps of the real path took, from this host's broker to rows: ``n`` and
        ``p50_ms``, ``p99_ms``, ``max_ms`` by step; told when a run ends."""
        return dict(json.loads(self._fresh("hops") or "{}"))

    def camped(self, from_ns: int, to_ns: int) -> dict[str, list[CellSpan]]:
        """By path of the device, in which cell of the radio it was, by the messages it sent in
        ``[from_ns, to_ns)``; empty where the run kept no trace of its link."""
        recording = self._recording()
        names: list[str] = recording.meta_json("cells") or []
        found: dict[str, list[tuple[Times, Times]]] = {}
        for trace in recording.trace(span_ns=(from_ns, to_ns)) if names else ():
            sent_ns, cells = trace.columns["sent_ns"], trace.columns["cell"]
            inside = (sent_ns >= from_ns) & (sent_ns < to_ns) & (cells >= 0) & (cells < len(names))
            if trace.way != "down" and inside.any():
                found.setdefault(trace.asset, []).append((sent_ns[inside], cells[inside]))
        out: dict[str, list[CellSpan]] = {}
        for asset, parts in sorted(found.items()):
            sent_ns = np.concatenate([times for times, _ in parts])
            order = np.argsort(sent_ns, kind="stable")
            sent_ns, cells = sent_ns[order], np.concatenate([told for _, told in parts])[order]
            first = np.concatenate(([0], np.nonzero(np.diff(cells))[0] + 1))
            starts = sent_ns[first].tolist()
            out[asset] = [
                CellSpan(start_ns, end_ns, names[cell])
                for start_ns, end_ns, cell in zip(
                    starts, [*starts[1:], int(sent_ns[-1])], cells[first].tolist(), strict=True
                )
            ]
        return out

    # inside -------------------------------------------------------------------------------------

    def _open(self) -> Recording:
        try:
            recording = Recording.open(self.path)
        except sqlite3.Error as error:
            raise RecordingError(
                f"not readable as a recording: {error}", at=str(self.path)
            ) from None
        with self._lock:
            if self._closed:
                recording.close()
                raise RecordingError("is closed", at=str(self.path))
            self._opened.append(recording)
        return recording

    def _recording(self) -> Recording:
        found: Recording | None = getattr(self._local, "recording", None)
        if found is None or self._closed:
            found = self._local.recording = self._open()
        return found

    def _ask(self, recording: Recording, sql: str, args: Sequence[object] = ()) -> list[Any]:
        try:
            return recording.db.execute(sql, args).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise unlike(self.path, error) from None
        except sqlite3.Error as error:
            raise RecordingError(
                f"not readable as a recording: {error}", at=str(self.path)
            ) from None

    def _many(self, sql: str, args: Sequence[object]) -> list[Any]:
        return self._ask(self._recording(), sql, args)

    def _each(self, sql: str, args: Sequence[object]) -> Iterator[Any]:
        """Row by row, for those who will not want all; of tables that are there."""
        try:
            with contextlib.closing(self._recording().db.execute(sql, args)) as cursor:
                yield from cursor
        except sqlite3.Error as error:
            raise unlike(self.path, error) from None

    def _one(self, sql: str) -> Any:
        found = self._many(sql, ())
        return found[0] if found else (None, None)

    def _has(self, table: str) -> bool:
        return bool(
            self._many("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,))
        )

    def _fresh(self, key: str) -> str | None:
        found = self._many("SELECT value FROM meta WHERE key = ?", (key,))
        return str(found[0][0]) if found else None

    def _header(self, key: str) -> str | None:
        """An entry of the header; one that is there does not change while a run is written."""
        if key not in self._meta:
            found = self._fresh(key)
            if found is None:
                return None
            self._meta[key] = found
        return self._meta[key]

    def _edge(self) -> EdgeSettings:
        text = self._header("edge")
        try:
            return EdgeSettings() if text is None else EdgeSettings.model_validate_json(text)
        except ValidationError as error:
            raise RecordingError(
                f"its edge settings cannot be read: {error.errors()[0]['msg']}", at=str(self.path)
            ) from None

    def _kind(self, label: str) -> Window:
        from config.windows import spelt, window

        settings = self._edge()
        try:
            return window(spelt(label), settings.zone, settings.shifts)
        except ValueError as error:
            raise UsageError(
                str(error), hint=f"this recording has windows of {', '.join(self.windows)}"
            ) from None

    def _said(self) -> Journal:
        with self._lock:
            if self._journal is None:
                from beilun.commands.replay import reader

                recording = self._recording()
                decoder: Decoder
                decoder, run = reader(recording)
                self._journal = Journal(self._recording, decoder, run)
            return self._journal

    def _series(self) -> Iterable[_Series]:
        """The catalogue, with what was added since."""
        with self._lock:
            after = max(self._catalogue, default=0)
            rows = self._many(
                "SELECT id, site, area, line, asset, kpi, window_length_ns, unit FROM series"
                " WHERE id > ? ORDER BY id",
                (after,),
            )
            for number, site, area, line, name, kpi, length_ns, unit in rows:
                entry = _Series(number, Asset(site, area, line, name), kpi, length_ns, unit)
                self._catalogue[number] = entry
                self._by_kpi.setdefault(kpi, []).append(entry)
            return list(self._catalogue.values())

    def _entry(self, number: int) -> _Series | None:
        if number not in self._catalogue:
            self._series()
        return self._catalogue.get(number)

    def _by(self, kpi: str) -> list[_Series]:
        self._series()
        return list(self._by_kpi.get(kpi, ()))

    def _chosen(self, kpis: Collection[str]) -> list[_Series]:
        if not kpis:
            return [entry for entry in self._series() if _is_kpi(entry.kpi)]
        return [entry for kpi in dict.fromkeys(kpis) for entry in self._by(kpi)]

    def _pulse(self) -> list[_Series]:
        """One series of each asset, of the shortest windows there are: all close at once."""
        found: dict[Asset, _Series] = {}
        for entry in self._series():
            known = found.get(entry.asset)
            if _is_kpi(entry.kpi) and (known is None or entry.length_ns < known.length_ns):
                found[entry.asset] = entry
        return list(found.values())

    def _newest_ns(self, entry: _Series) -> int:
        rows = self._many("SELECT max(window_start_ns) FROM row WHERE series = ?", (entry.number,))
        return 0 if rows[0][0] is None else int(rows[0][0]) + entry.length_ns

    def _rows(self, entry: _Series, found: Iterable[Any]) -> Iterable[Row]:
        for start_ns, value, n, late, revision in found:
            yield Row(
                entry.asset, entry.kpi, start_ns, entry.length_ns, value, n, late, entry.unit,
                revision,
            )  # fmt: skip

    def _at(self, entry: _Series, start_ns: int) -> Row | None:
        args = (entry.number, start_ns - 1, start_ns)
        return next(iter(self._rows(entry, self._many(_RANGE, args))), None)

    def _last_in(self, entry: _Series, kind: Window, t_ns: int) -> Row | None:
        """Windows of another kind may have the same length, so the first found may not be meant."""
        found = self._each(_LAST, (entry.number, t_ns - entry.length_ns))
        for row in self._rows(entry, found):
            if lies(kind, row.span):
                return row
        return None

    def _order_windows(self, asset: Asset) -> set[Span]:
        """Where the windows of orders of an asset lie: as their numbers' rows say."""
        return {
            Span(start_ns, start_ns + entry.length_ns)
            for entry in self._by(ORDER_NUMBER)
            if entry.asset == asset
            for (start_ns,) in self._many(
                "SELECT window_start_ns FROM row WHERE series = ?", (entry.number,)
            )
        }

    def _last_of_orders(self, chosen: Sequence[_Series], t_ns: int) -> list[Row]:
        ended: dict[Asset, Span] = {}
        for asset in {entry.asset for entry in chosen}:
            spans = [span for span in self._order_windows(asset) if span.end_ns <= t_ns]
            if spans:
                ended[asset] = max(spans, key=lambda span: (span.end_ns, span.start_ns))
        out: list[Row] = []
        for entry in chosen:
            span = ended.get(entry.asset)
            if span is not None and span.length_ns == entry.length_ns:
                row = self._at(entry, span.start_ns)
                if row is not None:
                    out.append(row)
        return sorted(out, key=lambda row: (row.asset, row.kpi))


def _is_kpi(name: str) -> bool:
    return name != ORDER_NUMBER and not name.startswith(PREFIX)


def _path(asset: Asset) -> str:
    """As globs mean it: roll-ups are shorter."""
    return "/".join(level for level in asset if level != ALL)


def _layout_of(scenario: str) -> Layout | None:
    """Of a recording of before layouts were kept: the floor of its shipped plant."""
    try:
        return layouts.layout_of(Scenario.model_validate_json(scenario))
    except (ValidationError, ConfigError, UsageError):
        return None


def _told(fault: Mapping[str, Any]) -> str:
    """A fault in a line: its kind and what is set of it."""
    left = ("after", "length", "kind", "area")
    rest = [f"{key} {value}" for key, value in fault.items() if key not in left and value != ""]
    return ", ".join([str(fault["kind"]).replace("_", " "), *rest])


# states -----------------------------------------------------------------------------------------


def _unit_states(
    batches: Sequence[Batch], calendar: Sequence[Batch], from_ns: int, to_ns: int, *, lasting: bool
) -> list[StateSpan]:
    state_ns, states = _told_only(*series(batches, "state"))
    names = ("mode", "maintenance", "protective_stop", "grip_lost")
    beside = [_told_only(*series(batches, name)) for name in names]
    beside.append(_told_only(*series(calendar, "planned")))
    until = np.append(state_ns[1:], to_ns)
    if not lasting:
        until = np.minimum(until, state_ns + STATE_HOLD_NS)
    cuts = np.unique(
        np.concatenate([state_ns, until, *[t for t, _ in beside], np.array([from_ns, to_ns])])
    )
    cuts = cuts[(cuts >= from_ns) & (cuts <= to_ns)]
    if len(cuts) < 2:
        return []
    starts, ends = cuts[:-1], cuts[1:]
    at = np.searchsorted(state_ns, starts, side="right") - 1
    known = (at >= 0) & (until[np.maximum(at, 0)] > starts) if len(state_ns) else at >= 0
    others = [_held(t, v, starts) for t, v in beside]
    out: list[StateSpan] = []
    for i in np.nonzero(known)[0].tolist():
        state = _packml(float(states[int(at[i])]))
        if state is None:
            continue
        reason = _reason(state, *(float(values[i]) for values in others))
        _join(out, StateSpan(int(starts[i]), int(ends[i]), state.name, reason))
    return out


def _reason(
    state: PackML, mode: float, maintenance: float, stopped: float, lost: float, planned: float
) -> str:
    if maintenance == Maintenance.CORRECTIVE:
        return "corrective"
    if maintenance == Maintenance.PREVENTIVE:
        return "preventive"
    if mode in (Mode.SETUP, Mode.MAINTENANCE, Mode.MANUAL):
        return Mode(int(mode)).name.lower()
    if state is PackML.EXECUTE:
        return ""
    if stopped == 1:
        return "protective_stop"
    if lost == 1:
        return "grip_lost"
    if planned == 0:
        return "not_planned"
    if state in (PackML.HELD, PackML.HOLDING, PackML.UNHOLDING):
        return "internal"
    if state in (PackML.SUSPENDED, PackML.SUSPENDING, PackML.UNSUSPENDING):
        return "external"
    return "aborted" if state in (PackML.ABORTED, PackML.ABORTING) else ""


def _vehicle_states(batches: Sequence[Batch], from_ns: int, to_ns: int) -> list[StateSpan]:
    names = ("mission", "driving", "waiting", "charging")
    columns = {name: series(batches, name) for name in names}
    t_ns, mission = columns["mission"]
    out: list[StateSpan] = []
    for i in range(len(t_ns)):
        start_ns = int(t_ns[i])
        end_ns = int(t_ns[i + 1]) if i + 1 < len(t_ns) else to_ns
        end_ns = min(end_ns, start_ns + PLACE_HOLD_NS, to_ns)
        start_ns = max(start_ns, from_ns)
        if end_ns <= start_ns:
            continue
        waiting, charging = columns["waiting"][1][i] == 1, columns["charging"][1][i] == 1
        if waiting:
            state, reason = PackML.SUSPENDED, "waiting"
        elif charging:
            state, reason = PackML.IDLE, "charging"
        else:
            state, reason = (PackML.EXECUTE if mission[i] == 1 else PackML.IDLE), ""
        _join(out, StateSpan(start_ns, end_ns, state.name, reason))
    return out


def _join(spans: list[StateSpan], new: StateSpan) -> None:
    """Add a span, or lengthen the last one where it goes on."""
    if spans and spans[-1].end_ns == new.start_ns and spans[-1][2:] == new[2:]:
        new = new._replace(start_ns=spans.pop().start_ns)
    spans.append(new)


def _packml(value: float) -> PackML | None:
    try:
        return PackML(int(value))
    except ValueError:
        return None


def _told_only(t_ns: Times, values: Floats) -> tuple[Times, Floats]:
    told = ~np.isnan(values)
    return t_ns[told], values[told]


def _held(t_ns: Times, values: Floats, at_ns: Times) -> Floats:
    """The last value told at each time; NaN before the first."""
    if not len(t_ns):
        return np.full(len(at_ns), math.nan)
    at = np.searchsorted(t_ns, at_ns, side="right") - 1
    return np.where(at >= 0, values[np.maximum(at, 0)], math.nan)


# vehicles ---------------------------------------------------------------------------------------


def _place(batches: Sequence[Batch], t_ns: int, trail_ns: int) -> Place | None:
    seen_ns, xs = series(batches, "x_m")
    ys = series(batches, "y_m")[1]
    told = ~(np.isnan(xs) | np.isnan(ys))
    seen_ns, xs, ys = seen_ns[told], xs[told], ys[told]
    at = int(np.searchsorted(seen_ns, t_ns, side="right")) - 1
    if at < 0 or t_ns - int(seen_ns[at]) > PLACE_HOLD_NS:
        return None
    last_ns, x, y = int(seen_ns[at]), float(xs[at]), float(ys[at])
    flags = {
        name: _held(*series(batches, name), np.array([t_ns]))[0]
        for name in ("battery_ratio", "driving", "waiting", "loaded", "charging")
    }
    turn: tuple[float, float] | None = None
    if at + 1 < len(seen_ns) and flags["driving"] == 1:
        share = (t_ns - last_ns) / (int(seen_ns[at + 1]) - last_ns)
        turn = float(xs[at + 1]) - x, float(ys[at + 1]) - y
        x, y = x + share * turn[0], y + share * turn[1]
    first = int(np.searchsorted(seen_ns, t_ns - trail_ns, side="left"))
    trail = [(int(seen_ns[i]), float(xs[i]), float(ys[i])) for i in range(first, at + 1)]
    for i in range(at, 0, -1):
        if turn is not None and turn != (0.0, 0.0):
            break
        turn = float(xs[i] - xs[i - 1]), float(ys[i] - ys[i - 1])
    heading = None if turn is None or turn == (0.0, 0.0) else math.atan2(turn[1], turn[0])
    battery = flags["battery_ratio"]
    return Place(
        x, y, heading, None if math.isnan(battery) else float(battery),
        [*trail, (t_ns, x, y)], bool(flags["driving"] == 1), bool(flags["waiting"] == 1),
        bool(flags["loaded"] == 1), bool(flags["charging"] == 1), last_ns,
    )  # fmt: skip
