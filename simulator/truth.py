"""The true value of every KPI, asset and window, from the full state of plant and network.

Nothing here looks at a message, and nothing here is shared with the edge: both follow the standard,
each in its own words. Time and counts are added up as integers and divided once. Events at ``t``
belong to ``[start, end)``; energy and length count what flowed in ``(start, end]``.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from config.units import NS_PER_DAY, NS_PER_MS, NS_PER_S
from ingest.messages import Times, TruthRow
from ingest.packml import PackML
from simulator.device import Ints, Meter, Steps, Unit
from simulator.devices.agv import Agv
from simulator.devices.cable_line import CableLine
from simulator.devices.casting_cell import CastingCell
from simulator.devices.robot_arm import RobotArm
from simulator.mes import Flow
from simulator.network import HOPS, Monitor
from simulator.plant.control import Control
from simulator.plant.floor import Floor

WINDOWS_NS = (60 * NS_PER_S, 3_600 * NS_PER_S, 8 * 3_600 * NS_PER_S)
_HOUR_NS = 3_600 * NS_PER_S
_KWH = 100_000
"""Cells of the energy grid in one kWh."""


@dataclass(frozen=True, slots=True)
class Windows:
    """All windows of one length, clipped to the run."""

    start_ns: Times
    """Where they begin on the grid."""
    a: Times
    b: Times

    @classmethod
    def over(cls, start_ns: int, end_ns: int, length_ns: int) -> "Windows":
        """Windows that touch ``[start_ns, end_ns)``, aligned to the epoch."""
        first = start_ns // length_ns * length_ns
        grid = np.arange(first, end_ns, length_ns, dtype=np.int64)
        a, b = np.maximum(grid, start_ns), np.minimum(grid + length_ns, end_ns)
        return cls(grid, a, b)

    def events(self, counter: Steps) -> list[int]:
        """What a counter counted in each."""
        return _plain(counter.at(self.b - 1) - counter.at(self.a - 1))

    def flowed(self, reading: Callable[[Times], Ints]) -> list[int]:
        """What a meter measured in each."""
        return _plain(reading(self.b) - reading(self.a))

    def spent(self, since: "Area") -> list[int]:
        """The integral over each."""
        return _plain(since(self.b) - since(self.a))

    def totals(self, t_ns: Sequence[int], values: Sequence[int]) -> list[int]:
        """Sums of the values of events in each."""
        times = np.array(t_ns, dtype=np.int64)
        sums = np.concatenate(([0], np.cumsum(np.array(values, dtype=np.int64))))
        low, high = np.searchsorted(times, self.a), np.searchsorted(times, self.b)
        return _plain(sums[high] - sums[low])


def _plain(values: Ints) -> list[int]:
    plain: list[int] = values.tolist()
    return plain


class Area:
    """The integral of a product of step functions, exact, from the start of the run."""

    def __init__(
        self, start_ns: int, end_ns: int, *factors: tuple[Steps, Callable[[Ints], Ints]]
    ) -> None:
        marks = {start_ns} | {t for steps, _ in factors for t, _ in steps.between(start_ns, end_ns)}
        self._marks = np.array(sorted(marks), dtype=np.int64)
        values = np.ones(len(marks), dtype=np.int64)
        for steps, read in factors:
            values = values * read(steps.at(self._marks))
        self._values: Ints = values
        spans = np.diff(self._marks, append=end_ns)
        self._sums: Ints = np.concatenate(([0], np.cumsum(spans * values)))

    def __call__(self, times: Times) -> Ints:
        """The integral up to each of these times."""
        index = np.searchsorted(self._marks, times, side="right") - 1
        since = self._values[index] * (times - self._marks[index])
        return np.asarray(self._sums[index] + since, dtype=np.int64)


def _as_is(values: Ints) -> Ints:
    return values


def _any(values: Ints) -> Ints:
    return np.asarray(values > 0, dtype=np.int64)


def _executing(values: Ints) -> Ints:
    return np.asarray(values == PackML.EXECUTE, dtype=np.int64)


def _over(top: int, under: int, scale: Fraction | int = 1) -> float | None:
    return float(Fraction(top, under) * scale) if under else None


Values = Iterator[tuple[str, Sequence[float | None]]]


@dataclass(frozen=True, slots=True)
class _Case:
    """A run to judge: its span and its plan."""

    start_ns: int
    end_ns: int
    planned: Steps

    def busy(self, unit: Unit, w: Windows) -> tuple[list[int], list[int]]:
        """Planned busy time and actual production time."""
        plan = (self.planned, _any)
        pbt = Area(self.start_ns, self.end_ns, plan)
        apt = Area(self.start_ns, self.end_ns, plan, (unit.state, _executing), (unit.order, _any))
        return w.spent(pbt), w.spent(apt)

    def cell(self, cell: CastingCell, w: Windows) -> Values:
        pbt, apt = self.busy(cell, w)
        made, bad, run = (
            w.events(cell.produced),
            w.events(cell.scrap),
            _planned_run(cell, cell.produced, w),
        )
        rows = list(zip(pbt, apt, made, bad, run, strict=True))
        yield "availability", [_over(a, p) for p, a, *_ in rows]
        yield "effectiveness", [_over(r, a) for _, a, _, _, r in rows]
        yield "quality_ratio", [_over(m - s, m) for _, _, m, s, _ in rows]
        yield "oee", [_oee(*row) for row in rows]
        yield "output", [float(m - s) if m or p else None for p, _, m, s, _ in rows]
        yield "energy_per_unit", _per(w, cell.energy, made)

    def arm(self, arm: RobotArm, w: Windows) -> Values:
        pbt, apt = self.busy(arm, w)
        made, run = w.events(arm.produced), _planned_run(arm, arm.produced, w)
        ends = [end_ns for end_ns, _, _ in arm.cycles]
        took = w.totals(ends, [cycle_ms for _, cycle_ms, _ in arm.cycles])
        yield "availability", [_over(a, p) for p, a in zip(pbt, apt, strict=True)]
        yield "effectiveness", [_over(r, a) for r, a in zip(run, apt, strict=True)]
        yield "arm_cycle_time", [_over(t, 1_000 * m) for t, m in zip(took, made, strict=True)]
        yield "energy_per_unit", _per(w, arm.energy, made)

    def cable(self, line: CableLine, w: Windows) -> Values:
        pbt, apt = self.busy(line, w)
        length, bad = w.flowed(line.length_mm), w.flowed(line.scrap_mm)
        energy = w.flowed(line.energy.at)
        good = [a - b for a, b in zip(length, bad, strict=True)]
        yield "line_speed", [_over(g * 1_000_000, p) for g, p in zip(good, pbt, strict=True)]
        yield "running_speed", [_over(m * 1_000_000, a) for m, a in zip(length, apt, strict=True)]
        yield "good_length", [g / 1_000 for g in good]
        yield (
            "energy_per_metre",
            [_over(e * 1_000, m * _KWH) for e, m in zip(energy, length, strict=True)],
        )

    def vehicle(self, agv: Agv, w: Windows) -> Values:
        plan = (self.planned, _any)
        pbt = w.spent(Area(self.start_ns, self.end_ns, plan))
        busy = w.spent(Area(self.start_ns, self.end_ns, plan, (agv.mission, _any)))
        yield "agv_utilisation", [_over(m, p) for m, p in zip(busy, pbt, strict=True)]

    def service(self, control: Control, w: Windows) -> Values:
        up = [w.spent(Area(self.start_ns, self.end_ns, (s.up, _as_is))) for s in control.services]
        failed = [w.events(s.failures) for s in control.services]
        spans = (w.b - w.a).tolist()
        yield (
            "service_availability",
            [_over(a + b, 2 * span) for a, b, span in zip(*up, spans, strict=True)],
        )
        yield "service_failures", [float(a + b) for a, b in zip(*failed, strict=True)]

    def flow(self, flow: Flow, w: Windows) -> Values:
        whole = (self.start_ns, self.end_ns)
        held = [
            w.spent(Area(*whole, (s, _as_is))) for s in (flow.entered, flow.left, flow.scrapped)
        ]
        wip = [e - lft - s for e, lft, s in zip(*held, strict=True)]
        spans, left = (w.b - w.a).tolist(), w.events(flow.left)
        yield "wip", [_over(i, t) for i, t in zip(wip, spans, strict=True)]
        yield (
            "wip_turnover_days",
            [_over(i, n, Fraction(1, NS_PER_DAY)) for i, n in zip(wip, left, strict=True)],
        )
        yield "throughput", [_over(n * _HOUR_NS, t) for n, t in zip(left, spans, strict=True)]


def _oee(pbt: int, apt: int, made: int, bad: int, run_ns: int) -> float | None:
    """Availability x effectiveness x quality. Planned time without production is an OEE of 0."""
    if not pbt:
        return None
    if not apt or not made:
        return 0.0
    return float(Fraction(apt, pbt) * Fraction(run_ns, apt) * Fraction(made - bad, made))


def _planned_run(unit: Unit, produced: Steps, w: Windows) -> list[int]:
    """Planned run time of what was produced, by the order that was on the unit."""
    ends = produced.t[1:]
    pri = unit.pri_ns.at(np.array(ends, dtype=np.int64) - 1).tolist()
    return w.totals(ends, pri)


def _per(w: Windows, meter: Meter, made: list[int]) -> list[float | None]:
    return [_over(e, m * _KWH) for e, m in zip(w.flowed(meter.at), made, strict=True)]


def truth_rows(
    floor: Floor, start_ns: int, end_ns: int, windows_ns: Sequence[int] = WINDOWS_NS
) -> list[TruthRow]:
    """Every true value over ``[start_ns, end_ns)``; the floor must have come that far."""
    case = _Case(start_ns, end_ns, floor.calendar.steps(start_ns, end_ns))
    rows: list[TruthRow] = []
    for length_ns in windows_ns:
        w = Windows.over(start_ns, end_ns, length_ns)
        starts = w.start_ns.tolist()
        for path, values in _values(case, floor, w):
            for kpi, column in values:
                rows += [
                    TruthRow(path, kpi, s, length_ns, v)
                    for s, v in zip(starts, column, strict=True)
                ]
    return rows


def _values(case: _Case, floor: Floor, w: Windows) -> Iterator[tuple[str, Values]]:
    for device in floor.devices:
        match device:
            case CastingCell():
                yield device.path, case.cell(device, w)
            case RobotArm():
                yield device.path, case.arm(device, w)
            case CableLine():
                yield device.path, case.cable(device, w)
            case Agv():
                yield device.path, case.vehicle(device, w)
            case _:
                pass  # a kind of somebody else's: no standard says what is true of it
    for control in floor.controls:
        yield str(control.asset), case.service(control, w)
    if floor.has_flow:
        yield floor.flow.path, case.flow(floor.flow, w)


_QUANTILES = (("delay_p50", 500), ("delay_p99", 990), ("delay_p999", 999))
"""In thousandths."""
_DEADLINE_NS = 10 * NS_PER_MS


def network_truth(
    monitor: Monitor, start_ns: int, end_ns: int, windows_ns: Sequence[int] = WINDOWS_NS
) -> list[TruthRow]:
    """The true delays of each cell, slice and kind of device that carried anything, from every
    message that arrived in ``[start_ns, end_ns)``: nothing is counted in bins here."""
    traffic = monitor.arrived()
    order = np.argsort(traffic.arrival_ns, kind="stable")
    rows: list[TruthRow] = []
    for asset, view, number in monitor.assets():
        mine = order[traffic.views[view][order] == number]
        times = traffic.arrival_ns[mine]
        if not len(times) or times[0] >= end_ns:
            continue
        delays = traffic.delay_ns[mine]
        sums = {
            hop: np.concatenate(([0], np.cumsum(spent[mine])))
            for hop, spent in zip(HOPS, traffic.hops_ns, strict=True)
        }
        for length_ns in windows_ns:
            w = Windows.over(start_ns, end_ns, length_ns)
            low, high = np.searchsorted(times, w.a), np.searchsorted(times, w.b)
            n = (high - low).tolist()
            columns = _delays(delays, list(zip(low.tolist(), high.tolist(), strict=True)))
            for hop, up_to in sums.items():
                spent = (up_to[high] - up_to[low]).tolist()
                pairs = zip(spent, n, strict=True)
                columns[f"{hop}_delay"] = [_over(s, NS_PER_MS * m) for s, m in pairs]
            rows += [
                TruthRow(str(asset), kpi, s, length_ns, v)
                for kpi, column in columns.items()
                for s, v in zip(w.start_ns.tolist(), column, strict=True)
            ]
    return rows


def _delays(delays: Ints, windows: Sequence[tuple[int, int]]) -> dict[str, list[float | None]]:
    """Of the messages of each window the delay that a share of them keeps, in ms, and the share
    that keeps the deadline."""
    columns: dict[str, list[float | None]] = {name: [] for name, _ in _QUANTILES}
    within: list[float | None] = []
    for low, high in windows:
        ordered, n = np.sort(delays[low:high]), high - low
        for name, thousandths in _QUANTILES:
            rank = -(-n * thousandths // 1000)
            columns[name].append(int(ordered[rank - 1]) / NS_PER_MS if n else None)
        within.append(_over(int(np.searchsorted(ordered, _DEADLINE_NS, side="right")), n))
    return columns | {"within_10ms": within}
