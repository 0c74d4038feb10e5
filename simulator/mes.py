"""The MES: it knows the calendar, orders, material and persons, and publishes all four."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from operator import itemgetter
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from config.units import NS_PER_DAY, NS_PER_MS, NS_PER_S
from ingest.messages import Asset, Times
from ingest.packml import Maintenance, PackML
from simulator.device import (
    Columns,
    Ints,
    Report,
    Steps,
    Stretch,
    Unit,
    event_reports,
    moments,
    on_grid,
)

if TYPE_CHECKING:
    from simulator.plant import CalendarSpec, Plant, Staff
    from simulator.plant.routes import Order

_MINUTE_NS = 60 * NS_PER_S


_WEEK_M = 7 * 1440
_MONDAY_NS = 4 * NS_PER_DAY
"""The first Monday of the epoch, which began on a Thursday."""


class Calendar:
    """Planned busy time: shifts less breaks, the same every working week."""

    def __init__(self, spec: "CalendarSpec") -> None:
        from simulator.plant import DAYS, minutes

        sign = -1 if spec.utc_offset.startswith("-") else 1
        self._offset_ns = sign * minutes(spec.utc_offset[1:]) * _MINUTE_NS
        days = [1440 * at for at, day in enumerate(DAYS) if day in spec.days]
        shifts = bytearray(_WEEK_M)
        for number, shift in reversed(list(enumerate(spec.shift, 1))):
            for day in days:
                low, high = day + minutes(shift.start), day + minutes(shift.end)
                shifts[low:high] = bytes([number]) * (high - low)
        for pause in spec.pause:
            for day in days:
                low, high = day + minutes(pause.start), day + minutes(pause.end)
                shifts[low:high] = bytes(high - low)
        self._shifts = bytes(shifts)
        """By minute of the local week the number of the shift, 0 where nothing is planned."""
        self._edges = [m for m in range(_WEEK_M) if (shifts[m] > 0) != (shifts[m - 1] > 0)]
        self._shift_edges = [m for m in range(_WEEK_M) if shifts[m] != shifts[m - 1]]

    def _minute(self, t_ns: int) -> int:
        return (t_ns + self._offset_ns - _MONDAY_NS) // _MINUTE_NS % _WEEK_M

    def monday_ns(self, t_ns: int) -> int:
        """When the local week of a time began."""
        local_ns = t_ns + self._offset_ns - _MONDAY_NS
        return t_ns - local_ns % (_WEEK_M * _MINUTE_NS)

    def planned(self, t_ns: int) -> bool:
        """Whether the plant is planned to be busy."""
        return self._shifts[self._minute(t_ns)] > 0

    def shift(self, t_ns: int) -> int:
        """The number of the shift that is planned to work, from 1; 0 if none is."""
        return self._shifts[self._minute(t_ns)]

    def next_change_ns(self, t_ns: int) -> int | None:
        """When planned time next begins or ends after a time; ``None`` if it never does."""
        return self._next_ns(self._edges, t_ns)

    def next_shift_ns(self, t_ns: int) -> int | None:
        """The same, or when one shift next follows another."""
        return self._next_ns(self._shift_edges, t_ns)

    def _next_ns(self, edges: list[int], t_ns: int) -> int | None:
        if not edges:
            return None
        minute = self._minute(t_ns)
        at = bisect_right(edges, minute)
        edge = edges[at] if at < len(edges) else edges[0] + _WEEK_M
        return t_ns - (t_ns + self._offset_ns) % _MINUTE_NS + (edge - minute) * _MINUTE_NS

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


class Counter(Steps):
    """A counter whose events may be noted in any order and ahead of time.

    What is asked about is settled for good: nothing may be noted for a time that was asked about.
    """

    __slots__ = ("_coming", "_few", "_ones")

    def __init__(self, t_ns: int, value: int) -> None:
        super().__init__(t_ns, value)
        self._coming: list[tuple[Ints, Ints]] = []
        self._ones: list[Ints] = []
        self._few: list[tuple[int, int]] = []
        """Times and counts that are not in the log yet: as columns, times of a count of one, and
        one by one."""

    def add(self, t_ns: int, count: int = 1) -> None:
        """Step up by ``count`` at a time."""
        self._few.append((t_ns, count))

    def add_many(self, times: Times | Sequence[int]) -> None:
        """Step up by one at each of many times."""
        if isinstance(times, np.ndarray):
            self._ones.append(times)
        else:
            self._few.extend(zip(times, repeat(1)))

    def settle(self, to_ns: int) -> None:
        """Bring the log up to a time."""
        coming = self._coming
        if self._ones:
            ones = np.concatenate(self._ones)
            coming.append((ones, np.ones_like(ones)))
        if self._few:
            few_ns, few = np.array(self._few, dtype=np.int64).T
            coming.append((few_ns, few))
        if not coming:
            return
        t_ns = np.concatenate([t for t, _ in coming])
        counts = np.concatenate([count for _, count in coming])
        order = t_ns.argsort(kind="stable")
        t_ns, counts = t_ns[order], counts[order]
        n = int(t_ns.searchsorted(to_ns, side="right"))
        self.extend(t_ns[:n], counts[:n].cumsum() + self.v[-1])
        self._coming = [(t_ns[n:], counts[n:])] if n < len(t_ns) else []
        self._ones, self._few = [], []

    def get(self, t_ns: int) -> int:
        """The value at one time."""
        self.settle(t_ns)
        return super().get(t_ns)

    def at(self, times: Times) -> Ints:
        """Values at ascending times; an entry at exactly such a time counts."""
        if len(times):
            self.settle(int(times[-1]))
        return super().at(times)

    def changes(self, after_ns: int, to_ns: int) -> Sequence[int]:
        """When it changed in ``(after_ns, to_ns]``."""
        self.settle(to_ns)
        return super().changes(after_ns, to_ns)

    def between(self, after_ns: int, to_ns: int) -> list[tuple[int, int]]:
        """Entries in ``(after_ns, to_ns]``."""
        self.settle(to_ns)
        return super().between(after_ns, to_ns)


class Flow:
    """Books pieces: in at the first operation, out at the warehouse, or lost on the way.

    A piece is one unit of material from its first operation to the warehouse, so what was consumed
    is at every instant what became good, what was lost, and what is in process. There are no
    by-products: integrated goods are the goods. Times are booked in whole milliseconds, and an age
    is their difference: off by less than one from the truth, and exact from there on.

    Pieces may be booked ahead of time, when it is sure what will become of them. Each is of an
    order; an order of which nothing is left in process is told to ``on_drained``.
    """

    def __init__(self, asset: Asset, now_ns: int, staff: "Staff | None" = None) -> None:
        self.asset = asset
        self.path = str(asset)
        self.staff = staff
        self.on_drained: Callable[[Order], None] = _nobody
        self.on_left: Callable[[Order, int], None] = _nobody
        self.entered = Counter(now_ns, 0)
        self.left = Counter(now_ns, 0)
        self.production_loss = Counter(now_ns, 0)
        """Scrap of any operation, a failed rework included."""
        self.storage_loss = Counter(now_ns, 0)
        """Spoilt in storage and transport."""
        self.other_loss = Counter(now_ns, 0)
        """Cut up in the laboratory."""
        self.scrapped = Counter(now_ns, 0)
        """All losses together."""
        self.age_ms = Counter(now_ns, 0)
        """Sum over the pieces that left of the time from entry to exit."""
        self.released = Counter(now_ns, 0)
        self.started = Counter(now_ns, 0)
        self.finished = Counter(now_ns, 0)
        """Orders of which the first lot was released, the first lot was begun, and no piece was
        left in process."""
        self.lead_ms = Counter(now_ns, 0)
        """Sum over the orders finished of the time from the first to the last."""
        self._steps = {
            "entered": self.entered, "left": self.left, "scrapped": self.scrapped,
            "consumed": self.entered, "good": self.left, "integrated_good": self.left,
            "production_loss": self.production_loss, "storage_loss": self.storage_loss,
            "other_loss": self.other_loss, "orders_released": self.released,
            "orders_started": self.started, "orders_finished": self.finished,
        }  # fmt: skip
        self._sums = {"age_piece_s": self.age_ms, "lead_order_s": self.lead_ms}

    @property
    def channels(self) -> Mapping[str, str]:
        """What it tells of."""
        counts = dict.fromkeys(self._steps, "1") | dict.fromkeys(self._sums, "s")
        return counts if self.staff is None else counts | {"heads": "1", "value_cny": "CNY"}

    # Pieces

    def enter(self, t_ns: int, order: "Order") -> None:
        """A piece comes into being."""
        self.enter_many((t_ns,), order)

    def enter_many(self, times_ns: Times | Sequence[int], order: "Order") -> None:
        """Pieces come into being."""
        self.entered.add_many(times_ns)
        order.in_process += len(times_ns)

    def lose(self, t_ns: int, loss: Counter, order: "Order") -> None:
        """A piece is lost, of one of the three losses."""
        self.lose_many((t_ns,), loss, order)

    def lose_many(self, times_ns: Times | Sequence[int], loss: Counter, order: "Order") -> None:
        """Pieces are lost, of one of the three losses."""
        loss.add_many(times_ns)
        self.scrapped.add_many(times_ns)
        order.in_process -= len(times_ns)
        self.check(order)

    def leave(self, t_ns: int, entered_ns: Sequence[int], order: "Order") -> None:
        """Pieces go out as finished goods, each of its own age."""
        if not entered_ns:
            return
        self.left.add(t_ns, len(entered_ns))
        now_ms = t_ns // NS_PER_MS
        self.age_ms.add(t_ns, sum(now_ms - entered // NS_PER_MS for entered in entered_ns))
        order.in_process -= len(entered_ns)
        self.on_left(order, len(entered_ns))
        self.check(order)

    # Orders

    def release(self, t_ns: int) -> None:
        """An order goes onto the floor."""
        self.released.add(t_ns)

    def start(self, t_ns: int) -> None:
        """The first lot of an order is begun."""
        self.started.add(t_ns)

    def finish(self, t_ns: int, lead_ns: int) -> None:
        """No piece of an order is in process any more, so long after its release."""
        self.finished.add(t_ns)
        self.lead_ms.add(t_ns, lead_ns // NS_PER_MS)

    def check(self, order: "Order") -> None:
        """See whether anything of an order is left in process."""
        if not order.jobs and not order.in_process and order.released_ns is not None:
            self.on_drained(order)

    # Reports

    def first_report(self, t_ns: int) -> Columns:
        """All counts at the start, and what is told once."""
        report = Columns(self.asset, "flow", t_ns, (t_ns,), self._columns([t_ns]))
        if self.staff is None:
            return report
        once = {"heads": (self.staff.heads,), "value_cny": (self.staff.value_cny_per_piece,)}
        return Columns(self.asset, "flow", t_ns, (t_ns,), {**report.ch, **once})

    def reports(self, stretch: Stretch) -> list[Report]:
        """All counts whenever one has changed."""
        span = (stretch.after_ns, stretch.to_ns)
        logs = (self.entered, self.left, self.scrapped, self.released, self.started, self.finished)
        moves = moments(logs, *span)
        if not moves:
            return []
        return event_reports(self.asset, "flow", stretch, moves, self._columns(moves))

    def _columns(self, times_ns: Sequence[int]) -> dict[str, Sequence[float | int | None]]:
        times = np.array(times_ns, dtype=np.int64)
        counts: dict[str, Sequence[float | int | None]] = {
            name: steps.at(times).tolist() for name, steps in self._steps.items()
        }
        return counts | {name: on_grid(s.at(times), 1_000) for name, s in self._sums.items()}


def _nobody(*_: object) -> None:
    """Nobody wants to know."""


LOT_CHANNELS = {"lot_order": "1", "lot_step": "1", "lot_pieces": "1", "lot_begun": "1"}
"""What the MES tells of a station about each lot and container: its order, the step of the route
from 1, its pieces, and 1 where it is begun and 0 where it goes onward."""


class Lots:
    """Begin and end of each lot and container at each station."""

    def __init__(self) -> None:
        self._logs: defaultdict[Asset, list[tuple[int, ...]]] = defaultdict(list)
        """By station what was not told yet: time, order, step, pieces, and begun or not."""

    def note(
        self, asset: Asset, t_ns: int, order: "Order", step: int, pieces: int, begun: int
    ) -> None:
        """Something was begun, or went onward, at a station."""
        self._logs[asset].append((t_ns, order.number, step, pieces, begun))

    def reports(self, stretch: Stretch, units: Iterable[Unit]) -> list[Report]:
        """What was begun and what went onward at the units that tell of it; stretches must follow
        one another."""
        out: list[Report] = []
        told = {unit.asset for unit in units if "lot_order" in unit.channels}
        for asset, rows in self._logs.items():
            low, high = (
                bisect_right(rows, t_ns, key=itemgetter(0))
                for t_ns in (stretch.after_ns, stretch.to_ns)
            )
            new = rows[low:high]
            del rows[:high]
            if new and asset in told:
                times, *values = map(list, zip(*new, strict=True))
                ch = dict(zip(LOT_CHANNELS, values, strict=True))
                out += event_reports(asset, "flow", stretch, times, ch)
        return out


_TENDED = np.isin(
    np.arange(max(PackML) + 1), (PackML.RESETTING, PackML.STARTING, PackML.COMPLETING)
)
"""By number of a state."""


class Crew:
    """The persons present, and those at work.

    Present is everybody planned for the shift, in planned time: breaks are no attendance. At work
    is who is bound to a machine, of those who are present: ``running`` persons to one that executes
    an order, ``tending`` to one that is set up or repaired. In thousandths of a person.
    """

    channels: ClassVar[Mapping[str, str]] = {"attending": "1", "working": "1", "shift": "1"}

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

    def follow(self, to_ns: int) -> None:
        """Take note of everything up to a time, which the units must have reached."""
        if to_ns <= self._known_ns:
            return
        after_ns = self._known_ns
        plan = [to_ns] if after_ns < self.attending.t[0] else []
        t_ns = self._calendar.next_change_ns(after_ns)
        while t_ns is not None and t_ns <= to_ns:
            plan.append(t_ns)
            t_ns = self._calendar.next_change_ns(t_ns)
        logs = [
            steps for unit in self._units for steps in (unit.state, unit.maintenance, unit.order)
        ]
        plain = moments(logs, after_ns, to_ns, plan)
        if not plain:
            self._known_ns = to_ns
            return
        times = np.array(plain, dtype=np.int64)
        bound = np.zeros(len(times), dtype=np.int64)
        for unit in self._units:
            state = unit.state.at(times)
            tended = (unit.maintenance.at(times) != Maintenance.NONE) | _TENDED[state]
            runs = (state == PackML.EXECUTE) & (unit.order.at(times) != 0)
            bound += np.where(tended, self._tending, np.where(runs, self._running, 0))
        there = np.array([self._there(t) for t in plain], dtype=np.int64)
        self.attending.extend(times, there)
        self.working.extend(times, np.minimum(bound, there))
        self._known_ns = to_ns

    def first_report(self, t_ns: int) -> Columns:
        """Both counts at the start, and the shift."""
        self.follow(t_ns)
        return Columns(self.asset, "process", t_ns, (t_ns,), self._columns([t_ns]))

    def reports(self, stretch: Stretch) -> list[Report]:
        """Every change of persons or shift."""
        after_ns, to_ns = stretch.after_ns, stretch.to_ns
        self.follow(to_ns)
        logs = (self.attending, self.working)
        shifts: list[int] = []
        t_ns = self._calendar.next_shift_ns(after_ns)
        while t_ns is not None and t_ns <= to_ns:
            shifts.append(t_ns)
            t_ns = self._calendar.next_shift_ns(t_ns)
        times = moments(logs, after_ns, to_ns, shifts)
        return event_reports(self.asset, "process", stretch, times, self._columns(times))

    def _columns(self, times_ns: Sequence[int]) -> dict[str, Sequence[float | int | None]]:
        times = np.array(times_ns, dtype=np.int64)
        return {
            "attending": on_grid(self.attending.at(times), 1_000),
            "working": on_grid(self.working.at(times), 1_000),
            "shift": [self._calendar.shift(t_ns) for t_ns in times_ns],
        }


class Mes:
    """Says what machines cannot know: what was planned, which job a unit is on, who is there, and
    how much CO2 a kilowatt-hour stands for."""

    def __init__(
        self, plant: "Plant", calendar: Calendar, units: Iterable[Unit], assets: Iterable[Asset],
        flow: Flow | None, lots: Lots, now_ns: int, orders: "Mapping[int, Order]",
    ) -> None:  # fmt: skip
        self._orders = orders
        self._lots = lots
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
        for unit in self._units:
            columns = self._order(unit, [t_ns])
            out.append(Columns(unit.asset, "orders", t_ns, (t_ns,), columns))
        out += [self.flow.first_report(t_ns)] if self.flow is not None else []
        return out if self.crew is None else [*out, self.crew.first_report(t_ns)]

    def reports(self, stretch: Stretch) -> list[Report]:
        """Every change in the stretch, at once."""
        after_ns, to_ns = stretch.after_ns, stretch.to_ns
        out: list[Report] = []
        changes: list[int] = []
        t_ns = self._calendar.next_change_ns(after_ns)
        while t_ns is not None and t_ns <= to_ns:
            changes.append(t_ns)
            t_ns = self._calendar.next_change_ns(t_ns)
        planned = {"planned": [int(self._calendar.planned(t_ns)) for t_ns in changes]}
        for asset in self._assets:
            out += event_reports(asset, "calendar", stretch, changes, planned)
        for unit in self._units:
            logs = (unit.order, unit.pri_ns, unit.psut_ns)
            if times := moments(logs, after_ns, to_ns):
                columns = self._order(unit, times)
                out += event_reports(unit.asset, "orders", stretch, times, columns)
        out += [] if self.flow is None else self.flow.reports(stretch)
        out += self._lots.reports(stretch, self._units)
        return out if self.crew is None else [*out, *self.crew.reports(stretch)]

    def _planned(self, t_ns: int) -> list[Columns]:
        planned = (int(self._calendar.planned(t_ns)),)
        return [Columns(a, "calendar", t_ns, (t_ns,), {"planned": planned}) for a in self._assets]

    def _order(
        self, unit: Unit, times_ns: Sequence[int]
    ) -> dict[str, Sequence[float | int | None]]:
        """The order registered at some times."""
        times = np.array(times_ns, dtype=np.int64)
        numbers = unit.order.at(times).tolist()
        orders = [self._orders.get(number) for number in numbers]
        ch: dict[str, Sequence[float | int | None]] = {
            "order": numbers,
            "pri_s": on_grid(unit.pri_ns.at(times), NS_PER_S),
            "psut_s": on_grid(unit.psut_ns.at(times), NS_PER_S),
            "quantity": [0 if order is None else order.quantity for order in orders],
        }
        if "planned_scrap" in unit.channels:
            ch["planned_scrap"] = [0 if o is None else o.planned_scrap for o in orders]
        return ch
