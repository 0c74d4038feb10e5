"""The true value of every KPI, asset, group and window, from the full state of plant and network.

Nothing here looks at a message, and nothing here is shared with the edge: both follow the standard,
each in its own words. Time and counts are added up as integers and divided once. Events at ``t``
belong to ``[start, end)``; energy and length count what flowed in ``(start, end]``. The windows of
orders are those of a machine's own log; a piece made at the very end of one is its last.

    logs ─► evidence of an asset, all windows at once ─► its KPIs
                  │ added up
                  ▼
            evidence of a line, an area, the site ─────► its KPIs

A sum over a window is the difference of a running total at its two ends, and where windows overlap
much, quantiles come from one sifting of all readings for all of them: more windows cost little.

What has no truth here: the current of a joint, which is nothing but readings with noise, and what
devices and KPIs of somebody else mean.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from itertools import pairwise
from operator import add
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from config.units import NS_PER_DAY, NS_PER_MS, NS_PER_S
from config.windows import Every, Order, Span, Window
from ingest.messages import Asset, Times, TruthRow
from ingest.packml import Maintenance, Mode, PackML
from simulator.device import Ints, Steps, Unit
from simulator.devices.agv import Agv
from simulator.devices.cable_line import CableLine
from simulator.devices.casting_cell import CastingCell
from simulator.devices.robot_arm import RobotArm
from simulator.mes import Crew, Flow
from simulator.network import HOPS, Monitor, Posted, Traffic
from simulator.plant.control import Control
from simulator.plant.floor import Floor

WINDOWS: tuple[Window, ...] = tuple(Every(s * NS_PER_S) for s in (60, 3_600, 8 * 3_600))
_HOUR_NS = 3_600 * NS_PER_S
_YEAR_NS = 365 * NS_PER_DAY
_WARM_UP = 10
"""Pieces after a start that are warm-up."""
_KWH = 100_000
"""Cells of the energy grid in one kWh."""
_DEADLINE_NS = 10 * NS_PER_MS
_EVERYTHING = "-"
"""In a lower level of a path: all there is below the level above."""

Number = int | Fraction
Named = tuple[str, Sequence[float | None]]
"""A KPI, and its values window by window."""
Values = Iterator[Named]


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of any kinds, clipped to the run."""

    spans: tuple[Span, ...]
    a: Times
    b: Times
    after: int = 0
    """1 where what is completed at the very end of a window is its own, as of an order."""

    @classmethod
    def over(cls, start_ns: int, end_ns: int, kinds: Iterable[Window]) -> Self:
        """Windows that touch ``[start_ns, end_ns)``, those of several kinds once."""
        found = {span for kind in kinds for span in kind.over(start_ns, end_ns)}
        return cls.of(sorted(found), start_ns, end_ns)

    @classmethod
    def of(cls, spans: Iterable[Span], start_ns: int, end_ns: int, *, after: int = 0) -> Self:
        """These windows."""
        known = tuple(spans)
        a, b = np.array(known, dtype=np.int64).reshape(-1, 2).T
        return cls(known, np.maximum(a, start_ns), np.minimum(b, end_ns), after)

    def events(self, counter: Steps) -> list[int]:
        """What a counter counted in each."""
        low, high = self.a + self.after - 1, self.b + self.after - 1
        return _plain(_read(counter.at, high) - _read(counter.at, low))

    def flowed(self, reading: Callable[[Times], Ints]) -> list[int]:
        """What a meter measured in each."""
        return _plain(_read(reading, self.b) - _read(reading, self.a))

    def spent(self, since: "Integral") -> list[int]:
        """The integral over each."""
        return _plain(since(self.b) - since(self.a))

    def totals(self, t_ns: Sequence[int] | Times, values: Sequence[int] | Ints) -> list[int]:
        """Sums of the values of events in each."""
        sums = np.concatenate(([0], np.cumsum(np.array(values, dtype=np.int64))))
        low, high = self.cuts(t_ns, self.after)
        return _plain(sums[high] - sums[low])

    def cuts(self, t_ns: Sequence[int] | Times, after: int = 0) -> tuple[Ints, Ints]:
        """Which of ascending times lie in each: from the first to before the second index."""
        times = np.array(t_ns, dtype=np.int64)
        return np.searchsorted(times, self.a + after), np.searchsorted(times, self.b + after)

    @property
    def lengths(self) -> list[int]:
        """How much of each lies in the run, in ns."""
        return _plain(self.b - self.a)


def _plain(values: Ints) -> list[int]:
    plain: list[int] = values.tolist()
    return plain


def _read(reading: Callable[[Times], Ints], times: Times) -> Ints:
    """Readings at times in any order; logs are read in order of time."""
    order = np.argsort(times, kind="stable")
    out = np.empty(len(times), dtype=np.int64)
    if len(times):
        out[order] = reading(times[order])
    return out


def _marks(start_ns: int, end_ns: int, logs: Sequence[Steps]) -> Times:
    """The start, and every time at which one of the logs changes."""
    changes = {t for steps in logs for t, _ in steps.between(start_ns, end_ns)}
    return np.array(sorted({start_ns} | changes), dtype=np.int64)


class Integral:
    """The integral of a step function, exact, from its first mark on."""

    def __init__(self, marks: Times, values: Ints, end_ns: int) -> None:
        self._marks = marks
        self._values = values
        spans = np.diff(marks, append=end_ns)
        self._sums: Ints = np.concatenate(([0], np.cumsum(spans * values)))

    def __call__(self, times: Times) -> Ints:
        """The integral up to each of these times."""
        index = np.searchsorted(self._marks, times, side="right") - 1
        since = self._values[index] * (times - self._marks[index])
        return np.asarray(self._sums[index] + since, dtype=np.int64)


class Area(Integral):
    """The integral of a product of step functions."""

    def __init__(
        self, start_ns: int, end_ns: int, *factors: tuple[Steps, Callable[[Ints], Ints]]
    ) -> None:
        marks = _marks(start_ns, end_ns, [steps for steps, _ in factors])
        values = np.ones(len(marks), dtype=np.int64)
        for steps, read in factors:
            values = values * read(steps.at(marks))
        super().__init__(marks, values, end_ns)


def _as_is(values: Ints) -> Ints:
    return values


def _any(values: Ints) -> Ints:
    return np.asarray(values > 0, dtype=np.int64)


# evidence, which adds up over the assets of a group ----------------------------------------------


class Sums:
    """Sums by name, window by window."""

    def __init__(self, columns: Mapping[str, Sequence[Number]]) -> None:
        self._columns = columns

    def __getitem__(self, names: str) -> list[Number]:
        """One column, or several (``a+b``) added up."""
        first, *more = (self._columns[name] for name in names.split("+"))
        return [sum(numbers) for numbers in zip(first, *more, strict=True)] if more else [*first]

    def __add__(self, other: "Sums") -> "Sums":
        pairs = {name: (mine, other._columns[name]) for name, mine in self._columns.items()}
        return Sums({n: [x + y for x, y in zip(a, b, strict=True)] for n, (a, b) in pairs.items()})

    def ratios(self, top: str, under: str, scale: Number = 1) -> list[float | None]:
        """``top / under * scale``; none over nothing."""
        return [_over(a, b, scale) for a, b in zip(self[top], self[under], strict=True)]


def _over(top: Number, under: Number, scale: Number = 1) -> float | None:
    if not under:
        return None
    if isinstance(top, int) and isinstance(under, int):  # rounded once, however large they are
        return top * scale.numerator / (under * scale.denominator)
    return float(Fraction(top) / Fraction(under) * scale)


class Readings:
    """Whole numbers, each read at a time, of which any share of a window can be asked for."""

    def __init__(self, w: Windows, t_ns: Ints, values: Ints) -> None:
        self._w, self._t_ns, self._values = w, t_ns, values

    def __add__(self, other: "Readings") -> "Readings":
        t_ns = np.concatenate((self._t_ns, other._t_ns))
        values = np.concatenate((self._values, other._values))
        order = np.argsort(t_ns, kind="stable")
        return Readings(self._w, t_ns[order], values[order])

    @property
    def n(self) -> list[int]:
        """How many there are in each window."""
        low, high = self._w.cuts(self._t_ns)
        return _plain(high - low)

    @property
    def totals(self) -> list[int]:
        """Their sum in each window."""
        sums = np.concatenate(([0], np.cumsum(self._values)))
        low, high = self._w.cuts(self._t_ns)
        return _plain(sums[high] - sums[low])

    def within(self, limit: int) -> list[int]:
        """How many in each window are at most that."""
        return Readings(self._w, self._t_ns, _any(limit + 1 - self._values)).totals

    def shares(self, *thousandths: int) -> list[list[int | None]]:
        """By share, per window the least reading that so many thousandths of it do not exceed."""
        low, high = self._w.cuts(self._t_ns)
        n = high - low
        ranks = [-(-n * share // 1_000) - 1 for share in thousandths]
        found = ranked(self._values, low, high, ranks)
        return [[v if m else None for v, m in zip(row.tolist(), n.tolist(), strict=True)]
                for row in found]  # fmt: skip


_OFTEN = 64
"""Sifting all values costs about as much as sorting them so many times."""


def ranked(values: Ints, low: Ints, high: Ints, ranks: Sequence[Ints]) -> list[Ints]:
    """The elements of some ranks (from 0) of each stretch ``[low, high)`` of values, for each
    element of ``ranks`` an array over the stretches; of an empty stretch it is any number."""
    if not len(values):
        return [np.zeros(len(low), dtype=np.int64) for _ in ranks]
    if int((high - low).sum()) > _OFTEN * len(values):
        return [_sifted(values, low, high, rank) for rank in ranks]
    found = [np.zeros(len(low), dtype=np.int64) for _ in ranks]
    for place, (first, last) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        ordered = np.sort(values[first:last])
        for column, rank in zip(found, ranks, strict=True):
            column[place] = ordered[rank[place]] if first < last else 0
    return found


def _sifted(values: Ints, low: Ints, high: Ints, rank: Ints) -> Ints:
    """The element of one rank of each stretch, of as many stretches as one likes.

    Values are numbered by size, and bit by bit from the top the numbers are parted by the bit:
    those without it come to stand before those with it, in the order they had, and so does every
    stretch's part of them.
    """
    order = np.argsort(values)
    n = len(values)
    left = np.empty(n, dtype=np.int32)
    left[order] = np.arange(n, dtype=np.int32)
    found = np.zeros(len(low), dtype=np.int64)
    for bit in range((n - 1).bit_length() - 1, -1, -1):
        lacks = left & np.int32(1 << bit) == 0
        without = np.concatenate(([0], np.cumsum(lacks)))
        first, last = without[low], without[high]
        goes = rank >= last - first
        rank = np.where(goes, rank - (last - first), rank)
        found |= goes.astype(np.int64) << bit
        low = np.where(goes, without[-1] + low - first, first)
        high = np.where(goes, without[-1] + high - last, last)
        left = np.concatenate((left[lacks], left[~lacks]))
    return np.asarray(values[order[np.minimum(found, n - 1)]], dtype=np.int64)


class Peaks:
    """The highest of marks in each window; none where there is nothing that could have any."""

    def __init__(self, highest: Sequence[int | None]) -> None:
        self.highest = highest

    @classmethod
    def of(cls, w: Windows, t_ns: Ints, marks: Ints, *, idle: int | None = None) -> "Peaks":
        """From marks in order of time; ``idle`` is the highest of a window that has none."""
        (highest,) = Readings(w, t_ns, marks).shares(1_000)
        return cls([idle if mark is None else mark for mark in highest])

    def __add__(self, other: "Peaks") -> "Peaks":
        pairs = zip(self.highest, other.highest, strict=True)
        return Peaks([max((v for v in pair if v is not None), default=None) for pair in pairs])


@dataclass(frozen=True, slots=True)
class Family:
    """KPIs that are made of the same evidence."""

    evidence: Any
    kpis: Callable[[Any], Values]
    pooled: bool = False
    """Whether the evidence is added up over the assets of line, area and site."""


# how a unit used its time ------------------------------------------------------------------------

_BROKEN = (PackML.HOLDING, PackML.HELD, PackML.UNHOLDING, PackML.ABORTING, PackML.ABORTED,
           PackML.CLEARING)  # fmt: skip
"""Stopped for a cause of its own."""
_PREPARING = (PackML.RESETTING, PackML.STARTING, PackML.COMPLETING)
_AT_REST = (PackML.IDLE, PackML.STOPPED, PackML.COMPLETE)


def _failures(unit: Unit, planned: Steps) -> list[int]:
    """When it broke, with an order and in planned time just before."""
    broke: list[int] = []
    was = unit.state.v[0]
    for t_ns, state in zip(unit.state.t[1:], unit.state.v[1:], strict=True):
        counts = planned.get(t_ns - 1) and unit.order.get(t_ns - 1)
        if counts and state in _BROKEN and was not in _BROKEN:
            broke.append(t_ns)
        was = state
    return broke


def _shares_of_time(s: Sums) -> Values:
    """What the time of units alone tells."""
    yield "allocation_efficiency", s.ratios("aubt", "pbt")
    yield "utilisation_efficiency", s.ratios("apt", "aubt")
    yield "technical_efficiency", s.ratios("apt", "apt+adet")
    yield "setup_ratio", s.ratios("aust", "aupt")
    yield "failures", _while(s["pbt"], s["failures"])
    for name, spent in (("mtbf", "aupt"), ("mttf", "able"), ("mttr", "down")):
        yield name, _per_failure(s, spent, 0)


def _orders_on(s: Sums) -> Values:
    """What is of one unit only: its orders' time, and the standard's means between failures."""
    yield "allocation_ratio", s.ratios("aubt", "aoet")
    yield "production_process_ratio", s.ratios("apt", "aoet")
    for name, spent in (("mtbf", "aupt"), ("mttf", "able"), ("mttr", "down")):
        yield f"{name}_iso", _per_failure(s, spent, 1)


def _while(known: Sequence[Number], counts: Sequence[Number]) -> list[float | None]:
    return [float(n) if k else None for k, n in zip(known, counts, strict=True)]


def _per_failure(s: Sums, spent: str, more: int) -> list[float | None]:
    columns = zip(s[spent], s["failures"], s["pbt"], strict=True)
    return [_over(t, (n + more) * _HOUR_NS) if pbt else None for t, n, pbt in columns]


# machines ----------------------------------------------------------------------------------------


def _of_pieces(s: Sums) -> Values:
    """What cells make of their time; it adds up over cells."""
    yield "availability", s.ratios("apt", "pbt")
    yield "effectiveness", s.ratios("run", "apt")
    yield "quality_ratio", s.ratios("good", "made")
    for name, used in (("oee", "apt"), ("nee", "aupt")):
        terms = zip(*(s[n] for n in (used, "pbt", "apt", "made", "good", "run")), strict=True)
        yield name, [_index(*term) for term in terms]
    yield "equipment_load_ratio", s.ratios("run", "pbt")
    yield "output", _while([p or m for p, m in zip(s["pbt"], s["made"], strict=True)], s["good"])
    yield "scrap_ratio", s.ratios("scrap", "made")
    yield "rework_ratio", s.ratios("rework", "made")
    yield "actual_to_planned_scrap", s.ratios("scrap", "allowed")
    yield "warm_up_scrap_ratio", s.ratios("cold_scrap", "cold")
    yield "shot_cycle_time", s.ratios("took_ms", "made", Fraction(1, 1_000))
    yield "corrective_maintenance_ratio", s.ratios("repaired", "repaired+serviced")


def _of_a_cell(s: Sums) -> Values:
    yield from _orders_on(s)
    yield "throughput_rate", s.ratios("made", "aoet", _HOUR_NS)
    yield "first_pass_yield", s.ratios("right", "made")
    yield from _per_unit(s)


def _of_an_arm(s: Sums) -> Values:
    yield from _shares_of_time(s)
    yield from _orders_on(s)
    yield "availability", s.ratios("apt", "pbt")
    yield "effectiveness", s.ratios("run", "apt")
    yield "throughput_rate", s.ratios("made", "aoet", _HOUR_NS)
    yield "scrap_ratio", s.ratios("scrap", "made")
    yield from _per_unit(s)


def _of_cycles(s: Sums) -> Values:
    yield "arm_cycle_time", s.ratios("took_ms", "made", Fraction(1, 1_000))


def _per_unit(s: Sums) -> Values:
    yield "energy_per_unit", s.ratios("energy", "made", Fraction(1, _KWH))
    yield "co2_per_unit", s.ratios("co2", "made", Fraction(1, _KWH))


def _of_a_line(s: Sums) -> Values:
    yield from _shares_of_time(s)
    yield from _orders_on(s)
    yield "line_speed", s.ratios("good_mm", "pbt", 1_000_000)
    yield "running_speed", s.ratios("length_mm", "apt", 1_000_000)


def _of_cable(s: Sums) -> Values:
    yield "good_length", [float(Fraction(g) / 1_000) for g in s["good_mm"]]
    yield "energy_per_metre", s.ratios("energy", "length_mm", Fraction(1_000, _KWH))
    yield "co2_per_metre", s.ratios("co2", "length_mm", Fraction(1_000, _KWH))
    yield "spark_faults_per_km", s.ratios("faults", "length_mm", 1_000_000)


def _of_walls(r: Readings) -> Values:
    pairs = zip(r.totals, r.n, strict=True)
    yield "eccentricity_mean", [_over(total, n * 10_000) for total, n in pairs]
    (p95,) = r.shares(950)
    yield "eccentricity_p95", [None if v is None else v / 10_000 for v in p95]


def _of_vehicles(s: Sums) -> Values:
    yield "agv_utilisation", s.ratios("planned_on", "planned")
    yield "agv_mission_time", s.ratios("on", "missions", Fraction(1, NS_PER_S))
    yield "agv_empty_ratio", s.ratios("empty", "driving")
    yield "agv_waiting_ratio", s.ratios("stands", "on")


def _index(
    used: Number, pbt: Number, apt: Number, made: Number, good: Number, run_ns: Number
) -> float | None:
    """Share of planned time that was used x effectiveness x quality: OEE where used is production,
    NEE where it is set-up too. Planned time without production is an index of 0."""
    if not pbt:
        return None
    if not apt or not made:
        return 0.0
    return float(Fraction(used) / pbt * (Fraction(run_ns) / apt) * (Fraction(good) / made))


# material and persons ----------------------------------------------------------------------------


def _of_material(s: Sums) -> Values:
    yield "wip", s.ratios("held", "time")
    days = s.ratios("held", "left", Fraction(1, NS_PER_DAY))
    yield "wip_turnover_days", days
    # With the average inventory over time the turns say the same as Little's law.
    yield "wip_inventory_days", [d or None for d in days]
    yield "inventory_turns", s.ratios("left", "held", _YEAR_NS)
    yield "wip_age_days", s.ratios("age_ms", "left", Fraction(NS_PER_MS, NS_PER_DAY))
    yield "throughput", s.ratios("left", "time", _HOUR_NS)
    yield "fall_off_ratio", s.ratios("scrapped", "entered")
    for name, what in (
        ("finished_goods_ratio", "good"), ("integrated_goods_ratio", "good"),
        ("production_loss_ratio", "production_loss"), ("storage_loss_ratio", "storage_loss"),
        ("other_loss_ratio", "other_loss"),
    ):  # fmt: skip
        yield name, s.ratios(what, "consumed")


def _of_heads(s: Sums) -> Values:
    yield "output_per_head", s.ratios("left", "there", _HOUR_NS)
    yield "value_per_head", s.ratios("value", "there", _YEAR_NS)


def _of_work(s: Sums) -> Values:
    yield "worker_efficiency", s.ratios("at_work", "there")


# the network -------------------------------------------------------------------------------------


def _of_service(s: Sums) -> Values:
    yield "service_availability", s.ratios("up", "time")
    yield "service_failures", [float(n) for n in s["falls"]]


def _of_misses(p: Peaks) -> Values:
    yield "misses_in_a_row", [None if n is None else float(n) for n in p.highest]


def _of_delays(r: Readings) -> Values:
    """The delay that a share of the messages keeps, in ms, and the share that keeps 10 ms."""
    for name, found in zip(
        ("delay_p50", "delay_p99", "delay_p999"), r.shares(500, 990, 999), strict=True
    ):
        yield name, [None if d is None else d / NS_PER_MS for d in found]
    pairs = zip(r.within(_DEADLINE_NS), r.n, strict=True)
    yield "within_10ms", [_over(good, n) for good, n in pairs]


def _of_clocks(p: Peaks) -> Values:
    yield "clock_skew", [None if ns is None else ns / NS_PER_MS for ns in p.highest]


def _of_early(s: Sums) -> Values:
    yield "early_messages", _while(s["any"], s["early"])


def _of_hops(s: Sums) -> Values:
    yield "messages", _while(s["n"], s["n"])
    for hop in HOPS:
        yield f"{hop}_delay", s.ratios(hop, "n", Fraction(1, NS_PER_MS))


# what is known of each asset ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Case:
    """A run to judge: its span, its plan, and what its messages took."""

    floor: Floor
    monitor: Monitor
    start_ns: int
    end_ns: int
    planned: Steps
    co2_kg_per_kwh: Fraction

    def families(self, asset: Asset, w: Windows) -> list[Family]:
        """All there is to know of one asset that is no part of the network."""
        floor = self.floor
        found = self._delays(self.monitor.posted(str(asset)), w)
        for device in (d for d in floor.devices if d.asset == asset):
            match device:
                case CastingCell():
                    found += self._cell(device, w)
                case RobotArm():
                    found += self._arm(device, w)
                case CableLine():
                    found += self._cable(device, w)
                case Agv():
                    found += self._vehicle(device, w)
                case _:
                    pass  # a kind of somebody else's: no standard says what is true of it
        for control in (c for c in floor.controls if c.asset == asset):
            found += self._service(control, w)
        if floor.has_flow and floor.flow.asset == asset:
            found += self._flow(floor.flow, w)
        if (crew := floor.mes.crew) is not None and crew.asset == asset:
            found += self._crew(crew, w)
        return found

    def assets(self) -> list[Asset]:
        """Who has any."""
        floor = self.floor
        crew = floor.mes.crew
        return [
            *(device.asset for device in floor.devices),
            *([floor.flow.asset] if floor.has_flow else []),
            *([crew.asset] if crew is not None else []),
        ]

    def _spent(self, w: Windows, *factors: tuple[Steps, Callable[[Ints], Ints]]) -> list[int]:
        return w.spent(Area(self.start_ns, self.end_ns, *factors))

    def _use(self, unit: Unit, w: Windows) -> dict[str, list[Number]]:
        """How a unit used its time, by the standard's elements, each a window's nanoseconds.

        With an order and without maintenance, in planned busy time: in mode production it produces
        (APT) in EXECUTE, is set up (AUST) while it resets, starts and completes, has nothing to do
        (ADOT) at rest, and is delayed (ADET) otherwise; in mode set-up it is set up but for what
        breaks; run by hand it is delayed but for rest. Maintenance goes before all of that.
        """
        logs = (unit.state, unit.mode, unit.maintenance, unit.order, self.planned)
        marks = _marks(self.start_ns, self.end_ns, logs)
        state, mode, upkeep, order, plan = (steps.at(marks) for steps in logs)
        busy, registered = plan > 0, order > 0
        broken = np.isin(state, _BROKEN)
        kept = (upkeep != Maintenance.NONE) | (mode == Mode.MAINTENANCE)
        at_work = busy & registered & ~kept
        makes, set_up, by_hand = (
            at_work & (mode == m) for m in (Mode.PRODUCTION, Mode.SETUP, Mode.MANUAL)
        )
        produces = makes & (state == PackML.EXECUTE)
        prepares = (makes & np.isin(state, _PREPARING)) | (set_up & ~broken)
        rests = (makes | by_hand) & np.isin(state, _AT_REST)

        def spent(when: NDArray[np.bool_]) -> list[Number]:
            return [*w.spent(Integral(marks, when.astype(np.int64), self.end_ns))]

        broke = _failures(unit, self.planned)
        return {
            "pbt": spent(busy),
            "apt": spent(produces),
            "aust": spent(prepares),
            "adet": spent(at_work & ~produces & ~prepares & ~rests),
            "aupt": spent(produces | prepares),
            "aubt": spent(at_work & ~rests),
            "aoet": spent(registered),
            "down": spent(busy & broken),
            "able": spent(busy & ~broken & ~kept),
            "repaired": spent(upkeep == Maintenance.CORRECTIVE),
            "serviced": spent(upkeep == Maintenance.PREVENTIVE),
            "failures": [*w.totals(broke, [1] * len(broke))],
        }

    def _power(self, unit: Unit, w: Windows) -> dict[str, list[Number]]:
        spent = w.flowed(unit.energy.at)
        return {"energy": [*spent], "co2": [e * self.co2_kg_per_kwh for e in spent]}

    def _cell(self, cell: CastingCell, w: Windows) -> list[Family]:
        made, scrap, rework = (w.events(c) for c in (cell.produced, cell.scrap, cell.rework))
        ends = np.array([shot.end_ns for shot in cell.shots], dtype=np.int64)
        times, spoilt = _warm_up(cell)
        sums = Sums({
            **self._use(cell, w),
            **self._power(cell, w),
            "made": made,
            "scrap": scrap,
            "rework": rework,
            "good": [m - s - r for m, s, r in zip(made, scrap, rework, strict=True)],
            "right": w.events(cell.first_pass),
            "run": _planned_run(cell, cell.produced, w),
            "allowed": _allowed(cell, w),
            "cold": w.totals(times, [1] * len(times)),
            "cold_scrap": w.totals(times, spoilt),
            "took_ms": w.totals(ends, [shot.cycle_ms for shot in cell.shots]),
        })  # fmt: skip
        found = [
            Family(sums, _shares_of_time, pooled=True),
            Family(sums, _of_pieces, pooled=True),
            Family(sums, _of_a_cell),
        ]
        for name, channel, readings in (
            ("biscuit", "biscuit_mm", [shot.biscuit_um for shot in cell.shots]),
            ("pressure", "pressure_mpa", [shot.pressure_kpa for shot in cell.shots]),
        ):
            spread = Spread(name, w, ends, np.array(readings, dtype=np.int64), w.after)
            found.append(spread.family(cell.limits[channel], 1_000))
        return found

    def _arm(self, arm: RobotArm, w: Windows) -> list[Family]:
        ends = [end_ns for end_ns, _, _ in arm.cycles]
        sums = Sums({
            **self._use(arm, w),
            **self._power(arm, w),
            "made": w.events(arm.produced),
            "scrap": w.events(arm.scrap),
            "run": _planned_run(arm, arm.produced, w),
            "took_ms": w.totals(ends, [cycle_ms for _, cycle_ms, _ in arm.cycles]),
        })  # fmt: skip
        return [Family(sums, _of_an_arm), Family(sums, _of_cycles, pooled=True)]

    def _cable(self, line: CableLine, w: Windows) -> list[Family]:
        length, bad = w.flowed(line.length_mm), w.flowed(line.scrap_mm)
        sums = Sums({
            **self._use(line, w),
            **self._power(line, w),
            "length_mm": length,
            "good_mm": [a - b for a, b in zip(length, bad, strict=True)],
            "faults": w.flowed(line.spark_faults),
        })  # fmt: skip
        times, diameter, eccentricity = (
            np.concatenate([np.empty(0, dtype=np.int64), *c])
            for c in (zip(*line.gauged, strict=True) if line.gauged else ((), (), ()))
        )
        return [
            Family(sums, _of_a_line),
            Family(sums, _of_cable, pooled=True),
            Family(Readings(w, times, eccentricity), _of_walls, pooled=True),
            Spread("diameter", w, times, diameter).family(line.limits["diameter_mm"], 100),
        ]

    def _vehicle(self, agv: Agv, w: Windows) -> list[Family]:
        on, driving = (agv.mission, _any), (agv.log(lambda s: s.driving), _any)
        empty, plan = (agv.log(lambda s: not s.load), _any), (self.planned, _any)
        halted, waited = (self._spent(w, on, (log.rate, _any)) for log in (agv.halted, agv.waited))
        begun = [t for t, v in zip(agv.mission.t[1:], agv.mission.v[1:], strict=True) if v]
        sums = Sums({
            "planned": self._spent(w, plan),
            "planned_on": self._spent(w, plan, on),
            "on": self._spent(w, on),
            "driving": self._spent(w, driving),
            "empty": self._spent(w, driving, empty),
            "stands": [a + b for a, b in zip(halted, waited, strict=True)],
            "missions": w.totals(begun, [1] * len(begun)),
        })  # fmt: skip
        return [Family(sums, _of_vehicles, pooled=True)]

    def _flow(self, flow: Flow, w: Windows) -> list[Family]:
        logs = (flow.entered, flow.left, flow.scrapped)
        marks = _marks(self.start_ns, self.end_ns, logs)
        entered, left, scrapped = (log.at(marks) for log in logs)
        gone = w.events(flow.left)
        sums = Sums({
            "held": w.spent(Integral(marks, entered - left - scrapped, self.end_ns)),
            "time": w.lengths,
            "left": gone,
            "entered": w.events(flow.entered),
            "scrapped": w.events(flow.scrapped),
            "age_ms": w.events(flow.age_ms),
            "consumed": w.flowed(flow.entered.at),
            "good": w.flowed(flow.left.at),
            "production_loss": w.flowed(flow.production_loss.at),
            "storage_loss": w.flowed(flow.storage_loss.at),
            "other_loss": w.flowed(flow.other_loss.at),
        })  # fmt: skip
        found = [Family(sums, _of_material, pooled=True)]
        if flow.staff is not None:
            each = Fraction(str(flow.staff.value_cny_per_piece))
            heads = Fraction(str(flow.staff.heads))
            sums = Sums({
                "left": gone,
                "value": [n * each for n in gone],
                "there": [heads * ns for ns in w.lengths],
            })  # fmt: skip
            found.append(Family(sums, _of_heads, pooled=True))
        return found

    def _crew(self, crew: Crew, w: Windows) -> list[Family]:
        crew.follow(self.end_ns)
        sums = Sums({
            "at_work": self._spent(w, (crew.working, _as_is)),
            "there": self._spent(w, (crew.attending, _as_is)),
        })  # fmt: skip
        return [Family(sums, _of_work, pooled=True)]

    def _service(self, control: Control, w: Windows) -> list[Family]:
        a, b = (self._spent(w, (s.up, _as_is)) for s in control.services)
        failed, other = (w.events(s.failures) for s in control.services)
        sums = Sums({
            "up": [x + y for x, y in zip(a, b, strict=True)],
            "time": [2 * ns for ns in w.lengths],
            "falls": [x + y for x, y in zip(failed, other, strict=True)],
        })  # fmt: skip
        return [Family(sums, _of_service, pooled=True)]

    def _delays(self, posted: Posted, w: Windows) -> list[Family]:
        """Of an asset's own messages by their sending, and of its control traffic by arrival."""
        delays = Readings(w, posted.sent_ns, posted.arrival_ns - posted.sent_ns)
        misses: list[Peaks] = []
        for arrival_ns, delay_ns in posted.control:
            delays = delays + Readings(w, arrival_ns, delay_ns)
            misses.append(_misses(arrival_ns, delay_ns, w))
        found = [Family(delays, _of_delays, pooled=True), *self._clock(posted, delays.n, w)]
        if misses:
            found.append(Family(reduce(add, misses), _of_misses, pooled=True))
        return found

    def _clock(self, posted: Posted, heard: Sequence[int], w: Windows) -> list[Family]:
        """What an asset's own stamps say, right or wrong."""
        ahead_ns = posted.stamped_ns - posted.arrival_ns
        peaks = Peaks.of(w, posted.sent_ns, ahead_ns)
        early = Readings(w, posted.sent_ns, _any(ahead_ns)).totals
        sums = Sums({"any": heard, "early": early})
        return [Family(peaks, _of_clocks, pooled=True), Family(sums, _of_early, pooled=True)]

    def network(self, asset: Asset, traffic: Traffic, w: Windows) -> list[Family]:
        """Of a cell, a slice or a kind of device: what it carried, by arrival."""
        readings = Readings(w, traffic.arrival_ns, traffic.delay_ns)
        sums = {"n": readings.n}
        for hop, spent in zip(HOPS, traffic.hops_ns, strict=True):
            sums[hop] = Readings(w, traffic.arrival_ns, spent).totals
        posted = self.monitor.posted(str(asset))
        told = Readings(w, posted.sent_ns, posted.sent_ns).n
        heard = [x + y for x, y in zip(told, readings.n, strict=True)]
        return [
            Family(readings, _of_delays), Family(Sums(sums), _of_hops),
            *self._clock(posted, heard, w),
        ]  # fmt: skip


def _misses(arrival_ns: Ints, delay_ns: Ints, w: Windows) -> Peaks:
    """The longest run of messages beyond the deadline that a window saw the end or a part of."""
    late = delay_ns > _DEADLINE_NS
    place = np.arange(len(late))
    since = np.maximum.accumulate(np.where(late, -1, place)) if len(late) else place
    return Peaks.of(w, arrival_ns[late], (place - since)[late], idle=0)


def _planned_run(unit: Unit, produced: Steps, w: Windows) -> list[int]:
    """Planned run time of what was produced, by the order that was on the unit."""
    ends = np.array(produced.t[1:], dtype=np.int64)
    return w.totals(ends, unit.pri_ns.at(ends - 1))


def _allowed(cell: CastingCell, w: Windows) -> list[Number]:
    """Scrap that the plan allows for as many pieces. An order of ``POQ`` good pieces and ``PSQ``
    of scrap allows for ``PSQ / (POQ + PSQ)`` of each piece."""
    orders = {order.number: order for order in cell.floor.plant.order}
    ends = np.array(cell.produced.t[1:], dtype=np.int64)
    numbers = cell.order.at(ends - 1)
    planned: list[Number] = [0] * len(w.spans)
    for number in sorted({*_plain(numbers)} - {0}):
        order = orders[number]
        counts = w.totals(ends, (numbers == number).astype(np.int64))
        share = Fraction(order.planned_scrap, order.quantity + order.planned_scrap)
        planned = [total + n * share for total, n in zip(planned, counts, strict=True)]
    return planned


def _warm_up(cell: CastingCell) -> tuple[list[int], list[int]]:
    """When the first pieces after each start were made, and which of them were scrap."""
    log = zip(cell.state.t, cell.state.v, strict=True)
    starts = [t_ns for t_ns, state in log if state == PackML.STARTING]
    since = np.searchsorted(np.array(starts, dtype=np.int64), cell.produced.t[1:])
    times: list[int] = []
    spoilt: list[int] = []
    counted: dict[int, int] = {}
    for t_ns, start in zip(cell.produced.t[1:], since.tolist(), strict=True):
        counted[start] = counted.get(start, 0) + 1
        if start and counted[start] <= _WARM_UP:
            times.append(t_ns)
            spoilt.append(cell.scrap.get(t_ns) - cell.scrap.get(t_ns - 1))
    return times, spoilt


class Spread:
    """How widely readings spread: machine capability by the sample deviation of the readings of a
    window, process capability by half the mean square of each reading's step from the one before,
    in whatever window that was."""

    def __init__(self, name: str, w: Windows, t_ns: Ints, readings: Ints, after: int = 0) -> None:
        self._name = name
        low, high = w.cuts(t_ns, after)
        steps = np.diff(readings, prepend=readings[:1])
        sums = (np.concatenate(([0], np.cumsum(c))) for c in (readings, readings**2, steps**2))
        self._rows = zip(
            _plain(high - low),
            *(_plain(up_to[high] - up_to[low]) for up_to in sums),
            _plain(high - np.maximum(low, 1)),
            strict=True,
        )

    def family(self, limits: tuple[float, float], per_unit: int) -> Family:
        """The four indices by the limits of what was read, in ``per_unit`` steps."""
        low, high = (Fraction(str(limit)) * per_unit for limit in limits)
        columns: dict[str, list[float | None]] = {kpi: [] for kpi in ("cm", "cmk", "cp", "cpk")}
        for n, total, squares, step_squares, pairs in self._rows:
            whole = Fraction(n * squares - total * total, n * (n - 1)) if n > 1 else None
            successive = Fraction(step_squares, 2 * pairs) if n and pairs > 0 else None
            room = min(high - Fraction(total, n), Fraction(total, n) - low) if n else None
            for wide, near, variance in (("cm", "cmk", whole), ("cp", "cpk", successive)):
                if not variance or room is None:
                    columns[wide].append(None)
                    columns[near].append(None)
                    continue
                sigma = math.sqrt(variance)
                columns[wide].append(float(high - low) / (6 * sigma))
                columns[near].append(float(room) / (3 * sigma))
        return Family({f"{self._name}_{kpi}": c for kpi, c in columns.items()}, _of_itself)


def _of_itself(columns: Mapping[str, Sequence[float | None]]) -> Values:
    yield from columns.items()


# rows --------------------------------------------------------------------------------------------


def truth_rows(
    floor: Floor,
    monitor: Monitor,
    start_ns: int,
    end_ns: int,
    kinds: Sequence[Window] = WINDOWS,
) -> list[TruthRow]:
    """Every true value over ``[start_ns, end_ns)``; the floor must have come that far."""
    planned = floor.calendar.steps(start_ns, end_ns)
    co2 = Fraction(str(floor.plant.co2_kg_per_kwh))
    case = _Case(floor, monitor, start_ns, end_ns, planned, co2)
    w = Windows.over(start_ns, end_ns, kinds)
    rows: list[TruthRow] = []
    groups: dict[tuple[Asset, Callable[[Any], Values]], list[Any]] = {}
    known: dict[tuple[object, ...], list[Named]] = {}
    for asset in case.assets() if w.spans else ():
        for family in case.families(asset, w):
            evidence, kpis = family.evidence, family.kpis
            values = list(kpis(evidence))
            rows += _rows(str(asset), values, w)
            if family.pooled:
                known[kpis, id(evidence)] = values
                for group in _groups(asset):
                    groups.setdefault((group, kpis), []).append(evidence)
    for (group, kpis), members in groups.items():
        key = (kpis, *map(id, members))  # an area with one line has that line's values
        if key not in known:
            known[key] = list(kpis(reduce(add, members)))
        rows += _rows(str(group), known[key], w)
    for asset, traffic in monitor.traffic(end_ns) if w.spans else ():
        for family in case.network(asset, traffic, w):
            rows += _rows(str(asset), family.kpis(family.evidence), w)
    if any(isinstance(kind, Order) for kind in kinds):
        rows += _of_orders(case, {*w.spans})
    return rows


def _of_orders(case: _Case, taken: set[Span]) -> Iterator[TruthRow]:
    """Each order of each machine that began and ended; where a window of another kind lies at the
    very place of one, that has the row."""
    for unit in case.floor.units:
        turns = list(zip(unit.order.t, unit.order.v, strict=True))
        orders = {
            Span(t_ns, then_ns): number
            for (t_ns, number), (then_ns, _) in pairwise(turns)
            if number > 0 and then_ns < case.end_ns
        }
        path = str(unit.asset)
        for span, number in orders.items():
            yield TruthRow(path, "order_number", span.start_ns, span.length_ns, float(number))
        if own := [span for span in orders if span not in taken]:
            w = Windows.of(own, case.start_ns, case.end_ns, after=1)
            for family in case.families(unit.asset, w):
                yield from _rows(path, family.kpis(family.evidence), w)


def _rows(path: str, values: Iterable[Named], w: Windows) -> Iterator[TruthRow]:
    for kpi, column in values:
        for span, value in zip(w.spans, column, strict=True):
            yield TruthRow(path, kpi, span.start_ns, span.length_ns, value)


def _groups(asset: Asset) -> Iterator[Asset]:
    """Its line, its area, its site."""
    site, area, line, _ = asset
    none = _EVERYTHING
    yield from (Asset(site, area, line, none), Asset(site, area, none, none))
    yield Asset(site, none, none, none)
