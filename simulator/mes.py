"""The MES: it knows the calendar, orders, material and persons, and publishes all four."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from config.units import NS_PER_DAY, NS_PER_MS, NS_PER_S
from ingest.messages import Asset, Times
from ingest.packml import Maintenance, PackML
from simulator.device import Columns, Report, Steps, Unit, span

if TYPE_CHECKING:
    from simulator.plant import CalendarSpec, Plant, Staff

_MINUTE_NS = 60 * NS_PER_S


class Calendar:
    """Planned busy time: shifts less breaks, the same every local day."""

    def __init__(self, spec: "CalendarSpec") -> None:
        from simulator.plant import minutes

        sign = -1 if spec.utc_offset.startswith("-") else 1
        self._offset_ns = sign * minutes(spec.utc_offset[1:]) * _MINUTE_NS
        busy = {
            m for s in spec.shift for m in range(minutes(s.start), minutes(s.end))
        } - {m for s in spec.pause for m in range(minutes(s.start), minutes(s.end))}  # fmt: skip
        self._edges = [m for m in range(1440) if (m in busy) != ((m - 1) % 1440 in busy)]
        self._busy = busy

    def planned(self, t_ns: int) -> bool:
        """Whether the plant is planned to be busy."""
        return (t_ns + self._offset_ns) % NS_PER_DAY // _MINUTE_NS in self._busy

    def next_change_ns(self, t_ns: int) -> int | None:
        """The first change after a time; ``None`` if there is never one."""
        if not self._edges:
            return None
        local_ns = t_ns + self._offset_ns
        day, minute = local_ns // NS_PER_DAY, local_ns % NS_PER_DAY // _MINUTE_NS
        at = bisect_right(self._edges, minute)
        edge = self._edges[at] if at < len(self._edges) else self._edges[0] + 1440
        return day * NS_PER_DAY + edge * _MINUTE_NS - self._offset_ns

    def pauses_ns(self, t_ns: int) -> int:
        """When planned time ends (at once if it is none; a century on if it never does)."""
        if not self.planned(t_ns):
            return t_ns
        change_ns = self.next_change_ns(t_ns)
        return t_ns + 36_500 * NS_PER_DAY if change_ns is None else change_ns

    def resumes_ns(self, t_ns: int) -> int:
        """When planned time begins, at once if it is."""
        if self.planned(t_ns):
            return t_ns
        change_ns = self.next_change_ns(t_ns)
        return t_ns + 36_500 * NS_PER_DAY if change_ns is None else change_ns

    def steps(self, start_ns: int, end_ns: int) -> Steps:
        """Planned or not, as a step function over a stretch of time."""
        steps = Steps(start_ns, int(self.planned(start_ns)))
        t_ns = self.next_change_ns(start_ns)
        while t_ns is not None and t_ns <= end_ns:
            steps.set(t_ns, int(self.planned(t_ns)))
            t_ns = self.next_change_ns(t_ns)
        return steps


class Flow:
    """Books pieces of the casting area: in at the shot, out at the warehouse, or lost on the way.

    A piece is one unit of material from shot to warehouse, so what was consumed is at every instant
    what became good, what was lost, and what is in process. There are no by-products: integrated
    goods are the goods. Times are booked in whole milliseconds, and an age is their difference: off
    by less than one from the truth, and exact from there on.
    """

    def __init__(self, asset: Asset, now_ns: int, staff: "Staff | None" = None) -> None:
        self.asset = asset
        self.path = str(asset)
        self.staff = staff
        self.entered = Steps(now_ns, 0)
        self.left = Steps(now_ns, 0)
        self.production_loss = Steps(now_ns, 0)
        """Scrap of any operation, a failed rework included."""
        self.storage_loss = Steps(now_ns, 0)
        """Spoilt in storage and transport."""
        self.other_loss = Steps(now_ns, 0)
        """Cut up in the laboratory."""
        self.scrapped = Steps(now_ns, 0)
        """All losses together."""
        self.age_ms = Steps(now_ns, 0)
        """Sum over the pieces that left of the time from entry to exit."""
        self._steps = {
            "entered": self.entered, "left": self.left, "scrapped": self.scrapped,
            "consumed": self.entered, "good": self.left, "integrated_good": self.left,
            "production_loss": self.production_loss, "storage_loss": self.storage_loss,
            "other_loss": self.other_loss,
        }  # fmt: skip

    @property
    def channels(self) -> Mapping[str, str]:
        """What it tells of."""
        counts = dict.fromkeys(self._steps, "1") | {"age_piece_s": "s"}
        return counts if self.staff is None else counts | {"heads": "1", "value_cny": "CNY"}

    def enter(self, t_ns: int) -> None:
        """A piece comes into being."""
        self.entered.add(t_ns)

    def lose(self, t_ns: int, loss: Steps) -> None:
        """A piece is lost, of one of the three losses."""
        loss.add(t_ns)
        self.scrapped.add(t_ns)

    def leave(self, t_ns: int, entered_ns: Sequence[int]) -> None:
        """Pieces go out as finished goods, each of its own age."""
        if entered_ns:
            self.left.add(t_ns, len(entered_ns))
            out_ms = t_ns // NS_PER_MS
            self.age_ms.add(t_ns, sum(out_ms - entry_ns // NS_PER_MS for entry_ns in entered_ns))

    def first_report(self, t_ns: int) -> Columns:
        """All counts at the start, and what is told once."""
        report = self.report(t_ns)
        if self.staff is None:
            return report
        once = {"heads": (self.staff.heads,), "value_cny": (self.staff.value_cny_per_piece,)}
        return Columns(self.asset, "flow", t_ns, (t_ns,), {**report.ch, **once})

    def report(self, t_ns: int) -> Columns:
        """All counts at a time."""
        counts: dict[str, tuple[float]] = {
            name: (steps.get(t_ns),) for name, steps in self._steps.items()
        }
        counts["age_piece_s"] = (self.age_ms.get(t_ns) / 1_000,)
        return Columns(self.asset, "flow", t_ns, (t_ns,), counts)

    def moves(self, after_ns: int, to_ns: int) -> list[int]:
        """When anything changed in ``(after_ns, to_ns]``."""
        logs = (self.entered, self.left, self.scrapped)
        return sorted({t_ns for steps in logs for t_ns, _ in steps.between(after_ns, to_ns)})


_RUNNING = frozenset({PackML.EXECUTE})
_TENDED = frozenset({PackML.RESETTING, PackML.STARTING, PackML.COMPLETING})


class Crew:
    """The persons present, and those at work.

    Present is everybody planned for the shift, in planned time: breaks are no attendance. At work
    is who is bound to a machine, of those who are present: ``running`` persons to one that executes
    an order, ``tending`` to one that is set up or repaired. In thousandths of a person.
    """

    channels: ClassVar[Mapping[str, str]] = {"attending": "1", "working": "1"}

    def __init__(
        self, asset: Asset, staff: "Staff", calendar: Calendar, units: Iterable[Unit], now_ns: int
    ) -> None:
        self.asset = asset
        self.path = str(asset)
        self._present = round(staff.per_shift * 1_000)
        self._running = round(staff.running * 1_000)
        self._tending = round(staff.tending * 1_000)
        self._calendar = calendar
        self._units = tuple(units)
        self._known_ns = now_ns - 1
        self.attending = Steps(now_ns, 0)
        self.working = Steps(now_ns, 0)

    def _there(self, t_ns: int) -> int:
        return self._present if self._calendar.planned(t_ns) else 0

    def _bound(self, t_ns: int) -> int:
        bound = 0
        for unit in self._units:
            state = unit.state.get(t_ns)
            if unit.maintenance.get(t_ns) != Maintenance.NONE or state in _TENDED:
                bound += self._tending
            elif state in _RUNNING and unit.order.get(t_ns):
                bound += self._running
        return min(bound, self._there(t_ns))

    def follow(self, to_ns: int) -> None:
        """Take note of everything up to a time, which the units must have reached."""
        if to_ns <= self._known_ns:
            return
        changes = {to_ns} if self._known_ns < self.attending.t[0] else set[int]()
        for unit in self._units:
            for steps in (unit.state, unit.maintenance, unit.order):
                changes |= {t_ns for t_ns, _ in steps.between(self._known_ns, to_ns)}
        t_ns = self._calendar.next_change_ns(self._known_ns)
        while t_ns is not None and t_ns <= to_ns:
            changes.add(t_ns)
            t_ns = self._calendar.next_change_ns(t_ns)
        for t_ns in sorted(changes):
            self.attending.set(t_ns, self._there(t_ns))
            self.working.set(t_ns, self._bound(t_ns))
        self._known_ns = to_ns

    def report(self, t_ns: int) -> Columns:
        """Both counts at a time."""
        ch = {
            "attending": (self.attending.get(t_ns) / 1_000,),
            "working": (self.working.get(t_ns) / 1_000,),
        }
        return Columns(self.asset, "process", t_ns, (t_ns,), ch)

    def reports(self, after_ns: int, to_ns: int) -> list[Columns]:
        """Every change in ``(after_ns, to_ns]``."""
        self.follow(to_ns)
        logs = (self.attending, self.working)
        changes = {t_ns for steps in logs for t_ns, _ in steps.between(after_ns, to_ns)}
        return [self.report(t_ns) for t_ns in sorted(changes)]


class Mes:
    """Says what machines cannot know: what was planned, which job a unit is on, who is there, and
    how much CO2 a kilowatt-hour stands for."""

    def __init__(
        self, plant: "Plant", calendar: Calendar, units: Iterable[Unit], assets: Iterable[Asset],
        flow: Flow | None, now_ns: int,
    ) -> None:  # fmt: skip
        self._orders = {order.number: order for order in plant.order}
        self._calendar = calendar
        self._units = tuple(units)
        self._assets = tuple(assets)
        self._co2 = plant.co2_kg_per_kwh
        self.flow = flow
        self.crew: Crew | None = None
        if plant.staff is not None:
            asset = Asset(plant.site, "staff", "shift", plant.staff.crew)
            self.crew = Crew(asset, plant.staff, calendar, self._units, now_ns)

    def announced(self) -> list[tuple[Asset, str, Mapping[str, str]]]:
        """Assets of its own: each with its kind and its channels."""
        out: list[tuple[Asset, str, Mapping[str, str]]] = []
        if self.flow is not None:
            out.append((self.flow.asset, "material_flow", self.flow.channels))
        if self.crew is not None:
            out.append((self.crew.asset, "crew", self.crew.channels))
        return out

    def first_reports(self, t_ns: int) -> list[Report]:
        """Calendar, orders, flow and crew at the start of the run."""
        out: list[Report] = []
        metered = {unit.asset for unit in self._units if "co2_kg_per_kwh" in unit.channels}
        for report in self._planned(t_ns):
            once = {"co2_kg_per_kwh": (self._co2,)} if report.asset in metered else {}
            out.append(Columns(report.asset, "calendar", t_ns, (t_ns,), {**report.ch, **once}))
        out += [self._order(unit, t_ns) for unit in self._units]
        out += [self.flow.first_report(t_ns)] if self.flow is not None else []
        if self.crew is not None:
            self.crew.follow(t_ns)
            out.append(self.crew.report(t_ns))
        return out

    def reports(self, times: Times) -> list[Report]:
        """Every change in the block, at once."""
        after_ns, to_ns = span(times)
        out: list[Report] = []
        t_ns = self._calendar.next_change_ns(after_ns)
        while t_ns is not None and t_ns <= to_ns:
            out += self._planned(t_ns)
            t_ns = self._calendar.next_change_ns(t_ns)
        for unit in self._units:
            logs = (unit.order, unit.pri_ns, unit.psut_ns)
            changes = {t for steps in logs for t, _ in steps.between(after_ns, to_ns)}
            out += [self._order(unit, t) for t in sorted(changes)]
        if self.flow is not None:
            out += [self.flow.report(t) for t in self.flow.moves(after_ns, to_ns)]
        return out if self.crew is None else [*out, *self.crew.reports(after_ns, to_ns)]

    def _planned(self, t_ns: int) -> list[Columns]:
        planned = (int(self._calendar.planned(t_ns)),)
        return [Columns(a, "calendar", t_ns, (t_ns,), {"planned": planned}) for a in self._assets]

    def _order(self, unit: Unit, t_ns: int) -> Columns:
        number = unit.order.get(t_ns)
        order = self._orders.get(number)
        ch = {
            "order": (number,),
            "pri_s": (unit.pri_ns.get(t_ns) / NS_PER_S,),
            "psut_s": (unit.psut_ns.get(t_ns) / NS_PER_S,),
            "quantity": (0 if order is None else order.quantity,),
        }
        if "planned_scrap" in unit.channels:
            ch["planned_scrap"] = (0 if order is None else order.planned_scrap,)
        return Columns(unit.asset, "orders", t_ns, (t_ns,), ch)
