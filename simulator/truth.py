"""The true value of every KPI, asset and window, from the full state of plant and network.

Nothing here looks at a message, and nothing here is shared with the edge: both follow the standard,
each in its own words. Time and counts are added up as integers and divided once. Events at ``t``
belong to ``[start, end)``; energy and length count what flowed in ``(start, end]``.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from config.units import NS_PER_DAY, NS_PER_MS, NS_PER_S
from ingest.messages import Times, TruthRow
from ingest.packml import PackML
from simulator.device import Ints, Maintenance, Mode, Steps, Unit
from simulator.devices.agv import Agv
from simulator.devices.cable_line import CableLine
from simulator.devices.casting_cell import CastingCell
from simulator.devices.robot_arm import RobotArm
from simulator.mes import Crew, Flow
from simulator.network import HOPS, Monitor
from simulator.plant.control import Control
from simulator.plant.floor import Floor

WINDOWS_NS = (60 * NS_PER_S, 3_600 * NS_PER_S, 8 * 3_600 * NS_PER_S)
_HOUR_NS = 3_600 * NS_PER_S
_YEAR_NS = 365 * NS_PER_DAY
_WARM_UP = 10
"""Pieces after a start that are warm-up."""
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

    def spent(self, since: "Integral") -> list[int]:
        """The integral over each."""
        return _plain(since(self.b) - since(self.a))

    def totals(self, t_ns: Sequence[int], values: Sequence[int]) -> list[int]:
        """Sums of the values of events in each."""
        times = np.array(t_ns, dtype=np.int64)
        sums = np.concatenate(([0], np.cumsum(np.array(values, dtype=np.int64))))
        low, high = np.searchsorted(times, self.a), np.searchsorted(times, self.b)
        return _plain(sums[high] - sums[low])

    def cuts(self, t_ns: Sequence[int]) -> list[tuple[int, int]]:
        """Which of ascending times lie in each: from the first to before the second index."""
        times = np.array(t_ns, dtype=np.int64)
        low, high = np.searchsorted(times, self.a), np.searchsorted(times, self.b)
        return list(zip(low.tolist(), high.tolist(), strict=True))


def _plain(values: Ints) -> list[int]:
    plain: list[int] = values.tolist()
    return plain


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


def _none(values: Ints) -> Ints:
    return np.asarray(values == 0, dtype=np.int64)


def _over(top: int, under: int, scale: Fraction | int = 1) -> float | None:
    return float(Fraction(top, under) * scale) if under else None


Values = Iterator[tuple[str, Sequence[float | None]]]


_BROKEN = (PackML.HOLDING, PackML.HELD, PackML.UNHOLDING, PackML.ABORTING, PackML.ABORTED,
           PackML.CLEARING)  # fmt: skip
"""Stopped for a cause of its own."""
_PREPARING = (PackML.RESETTING, PackML.STARTING, PackML.COMPLETING)
_AT_REST = (PackML.IDLE, PackML.STOPPED, PackML.COMPLETE)


class Use:
    """How a unit used its time, by the standard's elements, each a window's nanoseconds.

    With an order and without maintenance, in planned busy time: in mode production it produces
    (APT) in EXECUTE, is set up (AUST) while it resets, starts and completes, has nothing to do
    (ADOT) at rest, and is delayed (ADET) otherwise; in mode set-up it is set up but for what
    breaks; run by hand it is delayed but for rest. Maintenance goes before all of that.
    """

    def __init__(self, start_ns: int, end_ns: int, planned: Steps, unit: Unit, w: Windows) -> None:
        logs = (unit.state, unit.mode, unit.maintenance, unit.order, planned)
        marks = _marks(start_ns, end_ns, logs)
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

        def spent(when: NDArray[np.bool_]) -> list[int]:
            return w.spent(Integral(marks, when.astype(np.int64), end_ns))

        self.pbt = spent(busy)
        self.apt = spent(produces)
        self.aust = spent(prepares)
        self.adet = spent(at_work & ~produces & ~prepares & ~rests)
        self.aoet = spent(registered)
        self.down = spent(busy & broken)
        self.able = spent(busy & ~broken & ~kept)
        self.repaired = spent(upkeep == Maintenance.CORRECTIVE)
        self.serviced = spent(upkeep == Maintenance.PREVENTIVE)
        self.aupt = _sums(self.apt, self.aust)
        self.aubt = _sums(self.aupt, self.adet)
        self.failures = w.totals(*self._failures(unit, planned))

    @staticmethod
    def _failures(unit: Unit, planned: Steps) -> tuple[list[int], list[int]]:
        """When it broke, with an order and in planned time just before."""
        broke: list[int] = []
        was = unit.state.v[0]
        for t_ns, state in zip(unit.state.t[1:], unit.state.v[1:], strict=True):
            counts = planned.get(t_ns - 1) and unit.order.get(t_ns - 1)
            if counts and state in _BROKEN and was not in _BROKEN:
                broke.append(t_ns)
            was = state
        return broke, [1] * len(broke)

    def kpis(self, *, maintained: bool) -> "Values":
        """What its time alone tells."""
        failures, hours = self.failures, _HOUR_NS
        yield "allocation_efficiency", _ratios(self.aubt, self.pbt)
        yield "utilisation_efficiency", _ratios(self.apt, self.aubt)
        yield "technical_efficiency", _ratios(self.apt, _sums(self.apt, self.adet))
        yield "setup_ratio", _ratios(self.aust, self.aupt)
        yield "allocation_ratio", _ratios(self.aubt, self.aoet)
        yield "production_process_ratio", _ratios(self.apt, self.aoet)
        yield (
            "failures",
            [float(n) if p else None for n, p in zip(failures, self.pbt, strict=True)],
        )
        for name, spent in (("mtbf", self.aupt), ("mttf", self.able), ("mttr", self.down)):
            for suffix, more in (("", 0), ("_iso", 1)):
                events = [(n + more) * hours if p else 0 for n, p in
                          zip(failures, self.pbt, strict=True)]  # fmt: skip
                yield f"{name}{suffix}", _ratios(spent, events)
        if maintained:
            both = _sums(self.repaired, self.serviced)
            yield "corrective_maintenance_ratio", _ratios(self.repaired, both)


@dataclass(frozen=True, slots=True)
class _Case:
    """A run to judge: its span and its plan."""

    start_ns: int
    end_ns: int
    planned: Steps
    co2_kg_per_kwh: Fraction

    def use(self, unit: Unit, w: Windows) -> Use:
        return Use(self.start_ns, self.end_ns, self.planned, unit, w)

    def cell(self, cell: CastingCell, w: Windows) -> Values:
        use = self.use(cell, w)
        made, scrap, rework, right = (
            w.events(c) for c in (cell.produced, cell.scrap, cell.rework, cell.first_pass)
        )
        run = _planned_run(cell, cell.produced, w)
        bad = _sums(scrap, rework)
        good = [m - b for m, b in zip(made, bad, strict=True)]
        rows = list(zip(use.pbt, use.apt, use.aupt, made, bad, run, strict=True))
        yield from use.kpis(maintained=True)
        yield "availability", _ratios(use.apt, use.pbt)
        yield "effectiveness", _ratios(run, use.apt)
        yield "quality_ratio", _ratios(good, made)
        yield "oee", [_index(p, a, a, m, b, r) for p, a, _, m, b, r in rows]
        yield "nee", [_index(p, a, u, m, b, r) for p, a, u, m, b, r in rows]
        yield "equipment_load_ratio", _ratios(run, use.pbt)
        yield "throughput_rate", _ratios(made, use.aoet, _HOUR_NS)
        yield "output", [float(g) if m or p else None for p, m, g in
                         zip(use.pbt, made, good, strict=True)]  # fmt: skip
        yield "scrap_ratio", _ratios(scrap, made)
        yield "rework_ratio", _ratios(rework, made)
        yield "first_pass_yield", _ratios(right, made)
        yield "actual_to_planned_scrap", _against_plan(cell, scrap, w)
        yield "warm_up_scrap_ratio", _warm_up(cell, w)
        ends = [shot.end_ns for shot in cell.shots]
        took = w.totals(ends, [shot.cycle_ms for shot in cell.shots])
        yield "shot_cycle_time", _ratios(took, made, Fraction(1, 1_000))
        yield from self.energy(cell, made, w)
        for name, channel, readings in (
            ("biscuit", "biscuit_mm", [shot.biscuit_um for shot in cell.shots]),
            ("pressure", "pressure_mpa", [shot.pressure_kpa for shot in cell.shots]),
        ):
            low, high = cell.limits[channel]
            yield from _capability(name, ends, readings, (low, high), 1_000, w)

    def arm(self, arm: RobotArm, w: Windows) -> Values:
        use = self.use(arm, w)
        made, scrap = w.events(arm.produced), w.events(arm.scrap)
        run = _planned_run(arm, arm.produced, w)
        ends = [end_ns for end_ns, _, _ in arm.cycles]
        took = w.totals(ends, [cycle_ms for _, cycle_ms, _ in arm.cycles])
        yield from use.kpis(maintained=False)
        yield "availability", _ratios(use.apt, use.pbt)
        yield "effectiveness", _ratios(run, use.apt)
        yield "throughput_rate", _ratios(made, use.aoet, _HOUR_NS)
        yield "scrap_ratio", _ratios(scrap, made)
        yield "arm_cycle_time", _ratios(took, made, Fraction(1, 1_000))
        yield from self.energy(arm, made, w)

    def energy(self, unit: Unit, made: list[int], w: Windows) -> Values:
        spent = w.flowed(unit.energy.at)
        yield "energy_per_unit", _ratios(spent, made, Fraction(1, _KWH))
        yield "co2_per_unit", _ratios(spent, made, self.co2_kg_per_kwh / _KWH)

    def cable(self, line: CableLine, w: Windows) -> Values:
        use = self.use(line, w)
        length, bad = w.flowed(line.length_mm), w.flowed(line.scrap_mm)
        energy = w.flowed(line.energy.at)
        good = [a - b for a, b in zip(length, bad, strict=True)]
        yield from use.kpis(maintained=False)
        yield "line_speed", _ratios(good, use.pbt, 1_000_000)
        yield "running_speed", _ratios(length, use.apt, 1_000_000)
        yield "good_length", [g / 1_000 for g in good]
        yield "energy_per_metre", _ratios(energy, length, Fraction(1_000, _KWH))
        yield "co2_per_metre", _ratios(energy, length, self.co2_kg_per_kwh * 1_000 / _KWH)
        yield "spark_faults_per_km", _ratios(w.flowed(line.spark_faults), length, 1_000_000)
        times, diameter, eccentricity = (
            np.concatenate([np.empty(0, dtype=np.int64), *c]).tolist()
            for c in (zip(*line.gauged, strict=True) if line.gauged else ((), (), ()))
        )
        limits = line.limits["diameter_mm"]
        yield from _capability("diameter", times, diameter, limits, 100, w)
        cuts = w.cuts(times)
        read = [sorted(eccentricity[low:high]) for low, high in cuts]
        yield "eccentricity_mean", [_over(sum(r), len(r) * 10_000) for r in read]
        # nearest rank: the first reading that 95 % are not above
        yield "eccentricity_p95", [r[-(-95 * len(r) // 100) - 1] / 10_000 if r else None
                                   for r in read]  # fmt: skip

    def vehicle(self, agv: Agv, w: Windows) -> Values:
        def spent(*factors: tuple[Steps, Callable[[Ints], Ints]]) -> list[int]:
            return w.spent(Area(self.start_ns, self.end_ns, *factors))

        on, driving = (agv.mission, _any), (agv.driving, _any)
        empty = (agv.loaded, _none)
        plan = (self.planned, _any)
        stands = _sums(spent(on, (agv.halted.rate, _any)), spent(on, (agv.waited.rate, _any)))
        begun = [t for t, v in zip(agv.mission.t[1:], agv.mission.v[1:], strict=True) if v]
        missions = w.totals(begun, [1] * len(begun))
        yield "agv_utilisation", _ratios(spent(plan, on), spent(plan))
        yield "agv_mission_time", _ratios(spent(on), missions, Fraction(1, NS_PER_S))
        yield "agv_empty_ratio", _ratios(spent(driving, empty), spent(driving))
        yield "agv_waiting_ratio", _ratios(stands, spent(on))

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
        spans: list[int] = (w.b - w.a).tolist()
        left, entered = w.events(flow.left), w.events(flow.entered)
        yield "wip", _ratios(wip, spans)
        days = _ratios(wip, left, Fraction(1, NS_PER_DAY))
        yield "wip_turnover_days", days
        # With the average inventory over time the turns say the same as Little's law.
        yield "wip_inventory_days", [d or None for d in days]
        yield "inventory_turns", _ratios(left, wip, _YEAR_NS)
        yield "wip_age_days", _ratios(w.events(flow.age_ms), left, Fraction(NS_PER_MS, NS_PER_DAY))
        yield "throughput", _ratios(left, spans, _HOUR_NS)
        yield "fall_off_ratio", _ratios(w.events(flow.scrapped), entered)
        consumed = w.flowed(flow.entered.at)
        for name, log in (
            ("finished_goods_ratio", flow.left),
            ("integrated_goods_ratio", flow.left),
            ("production_loss_ratio", flow.production_loss),
            ("storage_loss_ratio", flow.storage_loss),
            ("other_loss_ratio", flow.other_loss),
        ):
            yield name, _ratios(w.flowed(log.at), consumed)
        if flow.staff is not None:
            heads, value = flow.staff.heads, Fraction(str(flow.staff.value_cny_per_piece))
            there = [heads * span for span in spans]
            yield "output_per_head", _ratios(left, there, _HOUR_NS)
            yield "value_per_head", _ratios(left, there, value * _YEAR_NS)

    def crew(self, crew: Crew, w: Windows) -> Values:
        crew.follow(self.end_ns)
        at_work, there = (
            w.spent(Area(self.start_ns, self.end_ns, (steps, _as_is)))
            for steps in (crew.working, crew.attending)
        )
        yield "worker_efficiency", _ratios(at_work, there)


def _ratios(
    top: Sequence[int], under: Sequence[int], scale: Fraction | int = 1
) -> list[float | None]:
    return [_over(a, b, scale) for a, b in zip(top, under, strict=True)]


def _sums(a: Sequence[int], b: Sequence[int]) -> list[int]:
    return [x + y for x, y in zip(a, b, strict=True)]


def _index(pbt: int, apt: int, used: int, made: int, bad: int, run_ns: int) -> float | None:
    """Share of planned time that was used x effectiveness x quality: OEE where used is production,
    NEE where it is set-up too. Planned time without production is an index of 0."""
    if not pbt:
        return None
    if not apt or not made:
        return 0.0
    return float(Fraction(used, pbt) * Fraction(run_ns, apt) * Fraction(made - bad, made))


def _planned_run(unit: Unit, produced: Steps, w: Windows) -> list[int]:
    """Planned run time of what was produced, by the order that was on the unit."""
    ends = produced.t[1:]
    pri = unit.pri_ns.at(np.array(ends, dtype=np.int64) - 1).tolist()
    return w.totals(ends, pri)


def _against_plan(cell: CastingCell, scrap: list[int], w: Windows) -> list[float | None]:
    """Scrap over what the plan allows for as many pieces. An order of ``POQ`` good pieces and
    ``PSQ`` of scrap allows for ``PSQ / (POQ + PSQ)`` of each piece."""
    orders = {order.number: order for order in cell.floor.plant.order}
    ends = cell.produced.t[1:]
    numbers = cell.order.at(np.array(ends, dtype=np.int64) - 1).tolist()
    planned = [Fraction(0)] * len(w.a)
    for number in sorted({n for n in numbers if n}):
        order = orders[number]
        counts = w.totals(ends, [int(n == number) for n in numbers])
        share = Fraction(order.planned_scrap, order.quantity + order.planned_scrap)
        planned = [total + n * share for total, n in zip(planned, counts, strict=True)]
    return [float(s / p) if p else None for s, p in zip(scrap, planned, strict=True)]


def _warm_up(cell: CastingCell, w: Windows) -> list[float | None]:
    """Share of scrap among the first pieces after each start."""
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
    return _ratios(w.totals(times, spoilt), w.totals(times, [1] * len(times)))


def _capability(
    name: str, times: Sequence[int], readings: Sequence[int], limits: tuple[float, float],
    per_unit: int, w: Windows,
) -> Values:  # fmt: skip
    """Machine capability by the sample deviation of the readings of a window, process capability by
    half the mean square of each reading's step from the one before, in whatever window that was."""
    low, high = (Fraction(str(limit)) * per_unit for limit in limits)
    columns: Mapping[str, list[float | None]] = {kpi: [] for kpi in ("cm", "cmk", "cp", "cpk")}
    for first, end in w.cuts(times):
        mine = readings[first:end]
        n, total, squares = len(mine), sum(mine), sum(x * x for x in mine)
        steps = [readings[i] - readings[i - 1] for i in range(max(first, 1), end)]
        spread = Fraction(n * squares - total * total, n * (n - 1)) if n > 1 else None
        step = Fraction(sum(d * d for d in steps), 2 * len(steps)) if steps else None
        room = min(high - Fraction(total, n), Fraction(total, n) - low) if n else None
        for wide, near, variance in (("cm", "cmk", spread), ("cp", "cpk", step)):
            if not variance or room is None:
                columns[wide].append(None)
                columns[near].append(None)
                continue
            sigma = math.sqrt(variance)
            columns[wide].append(float(high - low) / (6 * sigma))
            columns[near].append(float(room) / (3 * sigma))
    for kpi, column in columns.items():
        yield f"{name}_{kpi}", column


def truth_rows(
    floor: Floor, start_ns: int, end_ns: int, windows_ns: Sequence[int] = WINDOWS_NS
) -> list[TruthRow]:
    """Every true value over ``[start_ns, end_ns)``; the floor must have come that far."""
    co2 = Fraction(str(floor.plant.co2_kg_per_kwh))
    case = _Case(start_ns, end_ns, floor.calendar.steps(start_ns, end_ns), co2)
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
    if (crew := floor.mes.crew) is not None:
        yield crew.path, case.crew(crew, w)


_QUANTILES = (("delay_p50", 500), ("delay_p99", 990), ("delay_p999", 999))
"""In thousandths."""
_DEADLINE_NS = 10 * NS_PER_MS


def network_truth(
    monitor: Monitor, start_ns: int, end_ns: int, windows_ns: Sequence[int] = WINDOWS_NS
) -> list[TruthRow]:
    """The true delays of each cell, slice and kind of device that carried anything, from every
    message that arrived in ``[start_ns, end_ns)``: nothing is counted in bins here. Windows must be
    whole panes of the monitor's."""
    if broken := [length_ns for length_ns in windows_ns if length_ns % monitor.pane_ns]:
        raise ValueError(f"windows of {broken} ns are not whole panes of {monitor.pane_ns} ns")
    rows: list[TruthRow] = []
    for asset, view, number in monitor.assets():
        seen = monitor.seen(view, number, end_ns)
        if not len(seen.n):
            continue
        up_to_n, *up_to_hops = (
            np.concatenate(([0], np.cumsum(column))) for column in (seen.n, *seen.hops_ns)
        )
        sums = dict(zip(HOPS, up_to_hops, strict=True))
        for length_ns in windows_ns:
            w = Windows.over(start_ns, end_ns, length_ns)
            low, high = np.searchsorted(seen.pane_ns, w.a), np.searchsorted(seen.pane_ns, w.b)
            first, end = up_to_n[low], up_to_n[high]
            n = (end - first).tolist()
            cuts = list(zip(first.tolist(), end.tolist(), strict=True))
            columns = _delays(seen.delay_ns, cuts)
            columns["messages"] = [float(m) if m else None for m in n]
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
