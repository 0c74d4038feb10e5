"""The true value of every KPI, asset, group and window, from the full state of plant and network.

Nothing here looks at a message, and nothing here is shared with the edge: both follow the standard,
each in its own words.

    logs ─► evidence of an asset, all windows at once ─► its KPIs
                  │ added up
                  ▼
            evidence of a line, an area, the site ─────► its KPIs

A file here is a subject; ``windows`` and ``evidence`` are what they have in common. What devices
and KPIs of somebody else mean has no truth.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from config.units import NS_PER_S
from config.windows import Every, Order, Span, Window
from ingest.messages import Asset, TruthRow
from simulator.devices.agv import Agv
from simulator.devices.cable_line import CableLine
from simulator.devices.casting_cell import CastingCell
from simulator.devices.robot_arm import RobotArm
from simulator.devices.work_unit import WorkUnit
from simulator.network import Monitor
from simulator.plant.control import CalmLane
from simulator.plant.floor import Floor
from simulator.truth import agv, cable, material, network, units
from simulator.truth.evidence import Evidence, Family, Named, Values
from simulator.truth.windows import Run, Windows

WINDOWS: tuple[Window, ...] = tuple(Every(s * NS_PER_S) for s in (60, 3_600, 8 * 3_600))
_EVERYTHING = "-"
"""In a lower level of a path: all there is below the level above."""


@dataclass(frozen=True, slots=True)
class _Case:
    """A run to judge, with what its messages took."""

    floor: Floor
    monitor: Monitor
    run: Run

    def families(self, asset: Asset, w: Windows) -> list[Family]:
        """All there is to know of one asset that is no part of the network."""
        floor, run = self.floor, self.run
        controls = [c for c in floor.controls if c.asset == asset]
        drawn = any(isinstance(lane, CalmLane) for c in controls for lane in (c.up, c.down))
        found = network.delays(self.monitor.posted(asset), w, drawn=drawn)
        for device in (d for d in floor.devices if d.asset == asset):
            match device:
                case CastingCell():
                    found += units.cell(run, device, w)
                case WorkUnit():
                    found += units.work_unit(run, device, w)
                case RobotArm():
                    found += units.arm(run, device, w)
                case CableLine():
                    found += cable.line(run, device, w)
                case Agv():
                    found += agv.vehicle(run, device, w)
                case _:
                    pass  # a kind of somebody else's: no standard says what is true of it
        for control in controls:
            found += network.service(run, control, w)
        if floor.has_flow and floor.flow.asset == asset:
            found += material.material(run, floor.flow, w)
        if (crew := floor.mes.crew) is not None and crew.asset == asset:
            found += material.persons(run, crew, w)
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


def truth_rows(
    floor: Floor,
    monitor: Monitor,
    start_ns: int,
    end_ns: int,
    kinds: Sequence[Window] = WINDOWS,
) -> list[TruthRow]:
    """Every true value over ``[start_ns, end_ns)``; the floor must have come that far.

    Windows must be made of whole panes of the monitor's (``ValueError``), but for those of orders.
    """
    w = Windows.over(start_ns, end_ns, kinds)
    if not w.are_whole(monitor.pane_ns):
        raise ValueError(f"there are windows that are not whole panes of {monitor.pane_ns} ns")
    planned = floor.calendar.steps(start_ns, end_ns)
    co2 = Fraction(str(floor.plant.co2_kg_per_kwh))
    case = _Case(floor, monitor, Run(start_ns, end_ns, planned, co2))
    rows: list[TruthRow] = []
    if w.spans:
        rows += _of_assets(case, w)
        for asset, view, number in monitor.assets():
            seen = monitor.seen(view, number, end_ns)
            if len(seen.n):
                for family in network.carried(monitor.posted(asset), seen, w):
                    rows += _rows(str(asset), family.kpis(family.evidence), w)
    if any(isinstance(kind, Order) for kind in kinds):
        rows += _of_orders(case, {*w.spans})
    return rows


def _of_assets(case: _Case, w: Windows) -> Iterator[TruthRow]:
    """Of each asset, and of each group in which evidence adds up."""
    groups: dict[tuple[Asset, Callable[[Any], Values]], list[Evidence]] = {}
    known: dict[tuple[object, ...], list[Named]] = {}
    for asset in case.assets():
        for family in case.families(asset, w):
            evidence, kpis = family.evidence, family.kpis
            values = list(kpis(evidence))
            yield from _rows(str(asset), values, w)
            if family.pooled:
                known[kpis, id(evidence)] = values
                for group in _groups(asset):
                    groups.setdefault((group, kpis), []).append(evidence)
    for (group, kpis), members in groups.items():
        key = (kpis, *map(id, members))  # an area with one line has that line's values
        if key not in known:
            pooled: Evidence = type(members[0]).pooled(members)
            known[key] = list(kpis(pooled))
        yield from _rows(str(group), known[key], w)


def _of_orders(case: _Case, taken: set[Span]) -> Iterator[TruthRow]:
    """Each order of each machine that began and ended; where a window of another kind lies at the
    very place of one, that has the row."""
    start_ns, end_ns = case.run.start_ns, case.run.end_ns
    for unit in case.floor.units:
        turns = list(zip(unit.order.t, unit.order.v, strict=True))
        orders = {
            Span(t_ns, then_ns): number
            for (t_ns, number), (then_ns, _) in pairwise(turns)
            if number > 0 and then_ns < end_ns
        }
        path = str(unit.asset)
        for span, number in orders.items():
            yield TruthRow(path, "order_number", span.start_ns, span.length_ns, float(number))
        if own := [span for span in orders if span not in taken]:
            w = Windows.of(own, start_ns, end_ns, after=1)
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
