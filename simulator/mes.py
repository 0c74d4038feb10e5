"""The MES: it knows the calendar, registers orders, counts material, and publishes all three."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar

from config.units import NS_PER_DAY, NS_PER_S
from ingest.messages import Asset, Times
from simulator.device import Columns, Report, Steps, Unit, span

if TYPE_CHECKING:
    from simulator.plant import CalendarSpec, Plant

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
    """Counts pieces of the casting area: entered at the shot, scrapped, left at the warehouse."""

    channels: ClassVar[Mapping[str, str]] = {"entered": "1", "left": "1", "scrapped": "1"}

    def __init__(self, asset: Asset, now_ns: int) -> None:
        self.asset = asset
        self.path = str(asset)
        self.entered = Steps(now_ns, 0)
        self.left = Steps(now_ns, 0)
        self.scrapped = Steps(now_ns, 0)

    def report(self, t_ns: int) -> Columns:
        """The three counts at a time."""
        counts = {
            "entered": (self.entered.get(t_ns),),
            "left": (self.left.get(t_ns),),
            "scrapped": (self.scrapped.get(t_ns),),
        }
        return Columns(self.asset, "flow", t_ns, (t_ns,), counts)


class Mes:
    """Says what machines cannot know: what was planned, and which job a unit is on."""

    def __init__(
        self, plant: "Plant", calendar: Calendar, units: Iterable[Unit], assets: Iterable[Asset],
        flow: Flow,
    ) -> None:  # fmt: skip
        self._quantity = {order.number: order.quantity for order in plant.order}
        self._calendar = calendar
        self._units = tuple(units)
        self._assets = tuple(assets)
        self._flow = flow

    def first_reports(self, t_ns: int) -> list[Report]:
        """Calendar, orders and flow at the start of the run."""
        orders = [self._order(unit, t_ns) for unit in self._units]
        return [*self._planned(t_ns), *orders, self._flow.report(t_ns)]

    def reports(self, times: Times) -> list[Report]:
        """Every change in the block, at once."""
        after_ns, to_ns = span(times)
        out: list[Report] = []
        t_ns = self._calendar.next_change_ns(after_ns)
        while t_ns is not None and t_ns <= to_ns:
            out += self._planned(t_ns)
            t_ns = self._calendar.next_change_ns(t_ns)
        for unit in self._units:
            changes = {
                t for steps in (unit.order, unit.pri_ns) for t, _ in steps.between(after_ns, to_ns)
            }
            out += [self._order(unit, t) for t in sorted(changes)]
        flow = self._flow
        moves = {
            t
            for steps in (flow.entered, flow.left, flow.scrapped)
            for t, _ in steps.between(after_ns, to_ns)
        }
        return [*out, *(flow.report(t) for t in sorted(moves))]

    def _planned(self, t_ns: int) -> list[Report]:
        planned = (int(self._calendar.planned(t_ns)),)
        return [Columns(a, "calendar", t_ns, (t_ns,), {"planned": planned}) for a in self._assets]

    def _order(self, unit: Unit, t_ns: int) -> Columns:
        number = unit.order.get(t_ns)
        ch = {
            "order": (number,),
            "pri_s": (unit.pri_ns.get(t_ns) / NS_PER_S,),
            "quantity": (self._quantity.get(number, 0),),
        }
        return Columns(unit.asset, "orders", t_ns, (t_ns,), ch)
