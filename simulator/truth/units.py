"""Truth of machines: how their time was used, and what they made of it.

Time is that of ISO 22400-2, told apart by state, mode, maintenance, order and plan. A protective
stop and a lost grip are true as long as they last and as often as they begin, read or not. What has
no truth here is what nothing but readings can tell: the current of a joint.
"""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from config.units import NS_PER_S
from ingest.messages import Times
from ingest.packml import Maintenance, Mode, PackML
from simulator.device import Ints, Steps, Unit
from simulator.devices.casting_cell import CastingCell
from simulator.devices.robot_arm import RobotArm
from simulator.devices.work_unit import WorkUnit
from simulator.truth.evidence import Family, Number, Spread, Sums, Values, over, where
from simulator.truth.windows import Integral, Run, Windows, counted, entries, marks

KWH = 100_000
"""Cells of the energy grid in one kWh."""
HOUR_NS = 3_600 * NS_PER_S
_WARM_UP = 10
"""Pieces after a start that are warm-up."""
_BROKEN = (PackML.HOLDING, PackML.HELD, PackML.UNHOLDING, PackML.ABORTING, PackML.ABORTED,
           PackML.CLEARING)  # fmt: skip
"""Stopped for a cause of its own."""
_PREPARING = (PackML.RESETTING, PackML.STARTING, PackML.COMPLETING)
_HALTED = (PackML.HOLDING, PackML.HELD, PackML.UNHOLDING)
"""An arm in a protective stop."""
_AT_REST = (PackML.IDLE, PackML.STOPPED, PackML.COMPLETE)


# KPIs --------------------------------------------------------------------------------------------


def shares_of_time(s: Sums) -> Values:
    """What the time of units alone tells."""
    yield "allocation_efficiency", s.ratios("aubt", "pbt")
    yield "utilisation_efficiency", s.ratios("apt", "aubt")
    yield "technical_efficiency", s.ratios("apt", "apt+adet")
    yield "setup_ratio", s.ratios("aust", "aupt")
    yield "failures", where(s["pbt"], s["failures"])
    for name, spent in (("mtbf", "aupt"), ("mttf", "able"), ("mttr", "down")):
        yield name, _per_failure(s, spent, 0)


def orders_on(s: Sums) -> Values:
    """What is of one unit only: its orders' time, and the standard's means between failures."""
    yield "allocation_ratio", s.ratios("aubt", "aoet")
    yield "production_process_ratio", s.ratios("apt", "aoet")
    for name, spent in (("mtbf", "aupt"), ("mttf", "able"), ("mttr", "down")):
        yield f"{name}_iso", _per_failure(s, spent, 1)


def _per_failure(s: Sums, spent: str, more: int) -> list[float | None]:
    columns = zip(s[spent], s["failures"], s["pbt"], strict=True)
    return [over(t, (n + more) * HOUR_NS) if pbt else None for t, n, pbt in columns]


def _of_pieces(s: Sums) -> Values:
    """What units make of their time; it adds up over units."""
    yield "availability", s.ratios("apt", "pbt")
    yield "effectiveness", s.ratios("run", "apt")
    yield "quality_ratio", s.ratios("good", "made")
    for name, used in (("oee", "apt"), ("nee", "aupt")):
        terms = zip(*(s[n] for n in (used, "pbt", "apt", "made", "good", "run")), strict=True)
        yield name, [_index(*term) for term in terms]
    yield "equipment_load_ratio", s.ratios("run", "pbt")
    yield "output", where([p or m for p, m in zip(s["pbt"], s["made"], strict=True)], s["good"])
    yield "scrap_ratio", s.ratios("scrap", "made")
    yield "rework_ratio", s.ratios("rework", "made")
    yield "actual_to_planned_scrap", s.ratios("scrap", "allowed")
    yield "corrective_maintenance_ratio", s.ratios("repaired", "repaired+serviced")


def _of_shots(s: Sums) -> Values:
    yield "warm_up_scrap_ratio", s.ratios("cold_scrap", "cold")
    yield "shot_cycle_time", s.ratios("took_ms", "made", Fraction(1, 1_000))


def _of_a_unit(s: Sums) -> Values:
    yield from orders_on(s)
    yield "throughput_rate", s.ratios("made", "aoet", HOUR_NS)
    yield "first_pass_yield", s.ratios("right", "made")
    yield from _per_piece(s)


def _of_an_arm(s: Sums) -> Values:
    yield from shares_of_time(s)
    yield from orders_on(s)
    yield "availability", s.ratios("apt", "pbt")
    yield "effectiveness", s.ratios("run", "apt")
    yield "throughput_rate", s.ratios("made", "aoet", HOUR_NS)
    yield "scrap_ratio", s.ratios("scrap", "made")
    yield from _per_piece(s)


def _of_cycles(s: Sums) -> Values:
    yield "arm_cycle_time", s.ratios("took_ms", "made", Fraction(1, 1_000))


def _of_troubles(s: Sums) -> Values:
    yield "protective_stops", where(s["time"], s["stops"])
    yield "grip_lost_events", where(s["time"], s["slips"])
    for trouble, spent in (("protective_stop", "stopped"), ("grip_lost", "slipped")):
        shares = s.ratios(spent, "time")
        yield f"{trouble}_ratio", shares
        yield f"{trouble}_share", shares
        # a machine is never in doubt about itself
        yield f"{trouble}_blank", where(s["time"], [0] * len(shares))


def _per_piece(s: Sums) -> Values:
    yield "energy_per_unit", s.ratios("energy", "made", Fraction(1, KWH))
    yield "co2_per_unit", s.ratios("co2", "made", Fraction(1, KWH))


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


# evidence ----------------------------------------------------------------------------------------


def cell(run: Run, unit: CastingCell, w: Windows) -> list[Family]:
    """Of a casting cell."""
    times, spoilt = _warm_up(unit, run.end_ns)
    shots = unit.shots
    ends = np.array(shots.end_ns, dtype=np.int64)
    sums = Sums({
        **_pieces(run, unit, w),
        "cold": w.totals(times, np.ones_like(times)),
        "cold_scrap": w.totals(times, spoilt),
        "took_ms": w.totals(ends, np.array(shots.cycle_ms, dtype=np.int64)),
    })  # fmt: skip
    found = [*_of_any(sums), Family(sums, _of_shots, pooled=True)]
    for name, channel, column in (
        ("biscuit", "biscuit_mm", shots.biscuit_um),
        ("pressure", "pressure_mpa", shots.pressure_kpa),
    ):
        spread = Spread(name, w, ends, np.array(column, dtype=np.int64), w.after)
        found.append(spread.family(unit.limits[channel], 1_000))
    return found


def work_unit(run: Run, unit: WorkUnit, w: Windows) -> list[Family]:
    """Of a work unit."""
    return _of_any(Sums(_pieces(run, unit, w)))


def _of_any(sums: Sums) -> list[Family]:
    return [
        Family(sums, shares_of_time, pooled=True),
        Family(sums, _of_pieces, pooled=True),
        Family(sums, _of_a_unit),
    ]


def arm(run: Run, unit: RobotArm, w: Windows) -> list[Family]:
    """Of a robot arm."""
    ends = np.array(unit.cycles.end_ns, dtype=np.int64)
    sums = Sums({
        **use(run, unit, w),
        **power(run, unit, w),
        "made": w.events(unit.produced),
        "scrap": w.events(unit.scrap),
        "run": _planned_run(unit, unit.produced, run.end_ns, w),
        "took_ms": w.totals(ends, np.array(unit.cycles.cycle_ms, dtype=np.int64)),
    })  # fmt: skip
    return [
        Family(sums, _of_an_arm), Family(sums, _of_cycles, pooled=True),
        Family(_troubles(run, unit, w), _of_troubles, pooled=True),
    ]  # fmt: skip


def _troubles(run: Run, unit: RobotArm, w: Windows) -> Sums:
    """How often an arm came into a protective stop or lost its grip, and how long that lasted."""
    columns: dict[str, list[Number]] = {"time": [*w.lengths]}
    halts = entries(unit.state, run.end_ns)
    losses = entries(unit.grip_lost, run.end_ns)
    for began, lasted, t_ns, on in (
        ("stops", "stopped", halts.t_ns, np.isin(halts.values, _HALTED)),
        ("slips", "slipped", losses.t_ns, losses.values > 0),
    ):
        begins = t_ns[1:][on[1:] & ~on[:-1]]
        columns[began] = [*w.totals(begins, np.ones_like(begins))]
        columns[lasted] = [*w.spent(Integral(t_ns, on.astype(np.int64), run.end_ns))]
    return Sums(columns)


def use(run: Run, unit: Unit, w: Windows) -> dict[str, list[Number]]:
    """How a unit used its time, by the standard's elements, each a window's nanoseconds.

    With an order and without maintenance, in planned busy time: in mode production it produces
    (APT) in EXECUTE, is set up (AUST) while it resets, starts and completes, has nothing to do
    (ADOT) at rest, and is delayed (ADET) otherwise; in mode set-up it is set up but for what
    breaks; run by hand it is delayed but for rest. Maintenance goes before all of that.
    """
    logs = (unit.state, unit.mode, unit.maintenance, unit.order, run.planned)
    at = marks(run.start_ns, run.end_ns, logs)
    state, mode, upkeep, order, plan = (steps.at(at) for steps in logs)
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
        return [*w.spent(Integral(at, when.astype(np.int64), run.end_ns))]

    broke = _failures(run, unit)
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
        "failures": [*w.totals(broke, np.ones_like(broke))],
    }


def _failures(run: Run, unit: Unit) -> Times:
    """When it broke, with an order and in planned time just before."""
    t_ns, states = entries(unit.state, run.end_ns)
    broken = np.isin(states, _BROKEN)
    t_ns = t_ns[1:][broken[1:] & ~broken[:-1]]
    counts = (run.planned.at(t_ns - 1) > 0) & (unit.order.at(t_ns - 1) > 0)
    return t_ns[counts]


def power(run: Run, unit: Unit, w: Windows) -> dict[str, list[Number]]:
    """The energy it drew, and the CO2 that stands for it."""
    spent = w.flowed(unit.energy.at)
    return {"energy": [*spent], "co2": [e * run.co2_kg_per_kwh for e in spent]}


def _pieces(run: Run, unit: CastingCell | WorkUnit, w: Windows) -> Mapping[str, list[Number]]:
    """Time, energy, and pieces by what became of them."""
    made, scrap, rework = (w.events(c) for c in (unit.produced, unit.scrap, unit.rework))
    return {
        **use(run, unit, w),
        **power(run, unit, w),
        "made": [*made],
        "scrap": [*scrap],
        "rework": [*rework],
        "good": [m - s - r for m, s, r in zip(made, scrap, rework, strict=True)],
        "right": [*w.events(unit.first_pass)],
        "run": _planned_run(unit, unit.produced, run.end_ns, w),
        "allowed": _allowed(unit, run.end_ns, w),
    }


def _planned_run(unit: Unit, produced: Steps, end_ns: int, w: Windows) -> list[Number]:
    """Planned run time of what was produced, by the order that was on the unit."""
    t_ns, n = counted(produced, end_ns)
    return [*w.totals(t_ns, unit.pri_ns.at(t_ns - 1) * n)]


def _allowed(unit: CastingCell | WorkUnit, end_ns: int, w: Windows) -> list[Number]:
    """Scrap that the plan allows for as many pieces. An order of ``POQ`` good pieces and ``PSQ``
    of scrap allows for ``PSQ / (POQ + PSQ)`` of each piece."""
    orders = unit.floor.dispatch.orders
    t_ns, n = counted(unit.produced, end_ns)
    numbers, which = np.unique(unit.order.at(t_ns - 1), return_inverse=True)
    shares = [
        Fraction(order.planned_scrap, order.quantity + order.planned_scrap) if order else Fraction()
        for order in map(orders.get, numbers.tolist())
    ]
    planned: list[Number] = []
    low, high = w.cuts(t_ns, w.after)
    for first, last in zip(low.tolist(), high.tolist(), strict=True):
        pieces = np.zeros(len(shares), dtype=np.int64)
        np.add.at(pieces, which[first:last], n[first:last])
        planned.append(sum(shares[at] * int(pieces[at]) for at in np.flatnonzero(pieces)))
    return planned


def _warm_up(unit: CastingCell, end_ns: int) -> tuple[Times, Ints]:
    """When the first pieces after each start were made, and how many of each were scrap."""
    t_ns, states = entries(unit.state, end_ns)
    starts = t_ns[states == PackML.STARTING]
    made_ns, _ = counted(unit.produced, end_ns)
    since = np.searchsorted(starts, made_ns)
    number = np.arange(len(since)) - np.searchsorted(since, since)
    cold_ns = made_ns[(since > 0) & (number < _WARM_UP)]
    return cold_ns, unit.scrap.at(cold_ns) - unit.scrap.at(cold_ns - 1)
