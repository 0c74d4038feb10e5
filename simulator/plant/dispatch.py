"""Which work is let onto the floor, when, and what a unit does next: release, dispatch, kanban.

Theory of operation
===================

    demand ─► order book ──release──► lots ──dispatch──► unit of the first step ─► containers ─►

An order waits in the book until it is released, in lots:

    push     by the calendar, whatever lies on the floor: at once, in a run every week, or so long
             before it is due
    conwip   when the floor has room for it: a lot goes in when as much has come out (Spearman,
             Woodruff and Hopp 1990), the earliest due first
    kanban   at once, but a container moves on only with a card of its operation, which comes free
             when the next unit begins a container; without one it waits in the output lane, which
             fills, and blocks the unit

A unit that is free takes the next lot, or the next of the containers at its input, by the rule.
"""

from bisect import bisect_right, insort
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, TypeVar
from zlib import crc32

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from config.units import NS_PER_DAY, Ratio
from ingest.messages import Asset
from simulator.device import Bell, Process, World
from simulator.mes import Flow, Lots
from simulator.plant.routes import Count, Delay, Duration, Job, Order, Step

if TYPE_CHECKING:
    from simulator.mes import Calendar
    from simulator.plant import Plant
    from simulator.plant.material import Container

_STRICT = ConfigDict(
    strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
)
WEEK_NS = 7 * NS_PER_DAY
_NEVER_NS = 36_500 * NS_PER_DAY
FIRST_OF_DEMAND = 100_000
"""Orders of the file have smaller numbers, those of the demand larger ones."""
T = TypeVar("T")


class Release(BaseModel):
    """The table `[release]`: when an order goes onto the floor."""

    model_config = _STRICT

    policy: Literal["push", "conwip", "kanban"] = "push"
    """By the calendar, when as much has come out, or at once with cards between operations."""
    every: Duration | None = None
    """Push: how often the book is looked at, from the Monday before the start on, like 7d; at once
    if not given."""
    lead: Delay | None = None
    """Push: how long before it is due an order is released; as soon as it is seen if not given."""
    cap_pieces: Count | None = None
    """Conwip: most pieces on the floor, those of a lot counted from its release on."""
    cap_lots: Count | None = None
    """Conwip: most lots on the floor."""
    cards: dict[str, Count] = {}
    """Kanban: by operation, how many containers from it may be on their way or wait to be begun."""


class DispatchRule(BaseModel):
    """The table `[dispatch]`: what a free unit does next."""

    model_config = _STRICT

    rule: Literal["fifo", "edd", "spt", "same_tool"] = "fifo"
    """First come first served, earliest due date, shortest processing time, or what needs no
    set-up, and of that the earliest due."""
    patience: Duration = 2 * NS_PER_DAY
    """`spt` and `same_tool`: what has waited longer goes first."""


class Demand(BaseModel):
    """The table `[demand]`: orders that come in by chance, a week's on its Monday."""

    model_config = _STRICT

    orders_per_week: Annotated[float, Field(gt=0)]
    """Orders a week, on the mean; each week has the next whole number of the running sum."""
    mix: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)]
    """By product its share of the orders; only the proportions count."""
    quantity: Count
    """Mean quantity of an order."""
    quantity_spread: Ratio = 0.0
    """Orders are uniform between so much less and so much more than that."""
    due: Duration
    """When an order is due, from the Monday it comes on."""
    due_spread: Delay = 0
    """Due dates are uniform between so much earlier and so much later."""


class _Asked(Protocol):
    """What a unit must tell to be given work."""

    @property
    def asset(self) -> Asset: ...


class Dispatch:
    """The shop's control desk: it releases orders and says what each unit does next."""

    def __init__(
        self, plant: "Plant", env: World, calendar: "Calendar", flow: Flow, lots: Lots, seed: int
    ) -> None:
        self._env = env
        self._calendar = calendar
        self._flow = flow
        self._log = lots
        self._release = plant.release
        self._rule = plant.dispatch
        self._demand = plant.demand
        self._products = {product.name: product for product in plant.product}
        self._dice = np.random.default_rng([seed, crc32(f"{plant.site}/demand".encode()), 1])
        self._start_ns = env.now
        self.orders: dict[int, Order] = {}
        """Every order known so far, by number."""
        self._book: list[tuple[int, int, Order]] = []
        """Orders not released, with due date and number: the earliest due first."""
        self._lots: list[Job] = []
        """Lots released and not begun, in order of release."""
        self._at: dict[str, Job] = {}
        """By unit the lot it is making."""
        self._tools: dict[str, str] = {}
        """By unit the tool of its last work."""
        self._bells: dict[str, Bell] = {}
        self._released = 0
        self.on_floor_lots = 0
        """Lots released of orders that are not finished."""
        self.on_floor_pieces = 0
        """Pieces of those lots that have not become finished goods."""
        self.cards_out: Counter[str] = Counter()
        """By operation how many cards are out."""
        self._held: dict[str, deque[Callable[[], None]]] = {}
        """By operation containers that wait for a card: how to send each on."""
        flow.on_drained = self._drained
        flow.on_left = self._left
        for spec in plant.order:
            due_ns = self._start_ns + (_NEVER_NS if spec.due is None else spec.due)
            product = self._products[spec.product]
            self._note(Order(spec.number, product, spec.quantity, due_ns, spec.unit))
        self._monday_ns = calendar.monday_ns(env.now)
        self._next_week_ns = self._monday_ns
        self._expected = 0.0
        """Orders of the demand that should have come by now, of which not all are whole."""
        self._last = FIRST_OF_DEMAND
        self._take_in()
        self._look()

    # Orders and their release

    def run(self) -> Process:
        """Take in what is ordered, and look at the book when it is time."""
        env, every_ns, lead_ns = self._env, self._release.every, self._release.lead
        if self._release.policy != "push":
            every_ns = lead_ns = None
        while True:
            wait_ns = _NEVER_NS if self._demand is None else self._next_week_ns - env.now
            if every_ns is not None:
                wait_ns = min(wait_ns, every_ns - (env.now - self._monday_ns) % every_ns)
            elif lead_ns is not None and self._book:
                wait_ns = min(wait_ns, self._book[0][0] - lead_ns - env.now)
            yield env.timeout(wait_ns)
            self._take_in()
            if every_ns is None or (env.now - self._monday_ns) % every_ns == 0:
                self._look()

    def _take_in(self) -> None:
        """Note what was ordered up to now."""
        while self._demand is not None and self._next_week_ns <= self._env.now:
            self._expected += self._demand.orders_per_week
            while self._last - FIRST_OF_DEMAND < int(self._expected):
                self._last += 1
                self._note(self._draw(self._demand, self._last, self._next_week_ns))
            self._next_week_ns += WEEK_NS

    def _draw(self, demand: Demand, number: int, now_ns: int) -> Order:
        shares = list(accumulate(demand.mix.values()))
        which, more, later = self._dice.random(3).tolist()
        at = bisect_right(shares, which * shares[-1])
        product = self._products[list(demand.mix)[min(at, len(shares) - 1)]]
        quantity = round(demand.quantity * (1.0 + demand.quantity_spread * (2.0 * more - 1.0)))
        due_ns = now_ns + demand.due + round(demand.due_spread * (2.0 * later - 1.0))
        return Order(number, product, max(quantity, 1), due_ns)

    def _note(self, order: Order) -> None:
        self.orders[order.number] = order
        insort(self._book, (order.due_ns, order.number, order), key=lambda entry: entry[:2])

    def _look(self) -> None:
        """Release what may go now, lot by lot."""
        setting = self._release
        while self._book:
            order = self._book[0][2]
            if setting.policy == "push" and setting.lead is not None:
                horizon_ns = self._env.now + setting.lead + (setting.every or 0)
                if order.due_ns > horizon_ns:
                    return
            while order.lots:
                if setting.policy == "conwip" and not self._has_room(order.lots[0]):
                    return
                self._let_go(order)
            self._book.pop(0)

    def _has_room(self, pieces: int) -> bool:
        """Whether a lot fits under the caps; one that is larger than them goes in alone."""
        setting = self._release
        lots, pieces = self.on_floor_lots + 1, self.on_floor_pieces + pieces
        return not self.on_floor_lots or (
            (setting.cap_lots is None or lots <= setting.cap_lots)
            and (setting.cap_pieces is None or pieces <= setting.cap_pieces)
        )

    def _let_go(self, order: Order) -> None:
        """Release the next lot of an order."""
        now, pieces = self._env.now, order.lots.pop(0)
        if order.released_ns is None:
            order.released_ns = now
            self._flow.release(now)
        self._released += 1
        self._lots.append(Job(order, pieces, now, self._released))
        order.jobs += 1
        self._count(order, 1, pieces)
        for name, bell in self._bells.items():
            if _may(name, order):
                bell.ring()

    def _count(self, order: Order, lots: int, pieces: int) -> None:
        """So much more, or less, of an order is on the floor."""
        order.open_lots += lots
        order.open_pieces += pieces
        self.on_floor_lots += lots
        self.on_floor_pieces += pieces

    def _left(self, order: Order, pieces: int) -> None:
        """Pieces of an order have become finished goods."""
        self._count(order, 0, -min(pieces, order.open_pieces))
        self._look_for_room()

    def _drained(self, order: Order) -> None:
        """Nothing that was released of an order is in process any more."""
        self._count(order, -order.open_lots, -order.open_pieces)
        now = self._env.now
        if not order.lots and order.finished_ns is None and order.released_ns is not None:
            order.finished_ns = now
            self._flow.finish(now, now - order.released_ns)
        self._look_for_room()

    def _look_for_room(self) -> None:
        if self._release.policy == "conwip":
            self._look()

    # What a unit does next

    def bell(self, unit: _Asked) -> Bell:
        """Rings when there may be a lot for a unit."""
        name = unit.asset.name
        if name not in self._bells:
            self._bells[name] = Bell(self._env)
        return self._bells[name]

    def next_job(self, unit: _Asked) -> Job | None:
        """The next lot for a unit, which by asking says that it is done with its last one; ``None``
        if there is none now, then wait for the bell."""
        name = unit.asset.name
        self.done(unit)
        mine = list(self._mine(name))
        if not mine:
            return None
        job = self._pick(
            name, mine, lambda j: (j.step, j.order, j.quantity * j.step.pri_s, j.released_ns)
        )
        self._lots.remove(job)
        self._at[name], self._tools[name] = job, job.step.tool
        self._log.note(unit.asset, self._env.now, job.order, 1, job.quantity, 1)
        if job.order.started_ns is None:
            job.order.started_ns = self._env.now
            self._flow.start(self._env.now)
        return job

    def has_job(self, unit: _Asked) -> bool:
        """Whether there is a lot for a unit."""
        return next(self._mine(unit.asset.name), None) is not None

    def _mine(self, name: str) -> Iterator[Job]:
        """The lots for a unit."""
        return (job for job in self._lots if _may(name, job.order) and self._has_tool(job.step))

    def done(self, unit: _Asked) -> None:
        """A unit is done with its lot; it says so too when it asks for the next one."""
        done = self._at.pop(unit.asset.name, None)
        if done is None:
            return
        done.order.jobs -= 1
        if done.step.tools is not None:
            for bell in self._bells.values():
                bell.ring()
        self._flow.check(done.order)

    def _has_tool(self, step: Step) -> bool:
        if step.tools is None or not step.tool:
            return True
        return sum(job.step.tool == step.tool for job in self._at.values()) < step.tools

    def choose(self, unit: _Asked, containers: Sequence["Container"]) -> "Container":
        """Which of the containers at a unit's input, the oldest first, it begins now. It must begin
        it: a kanban card comes free."""
        name = unit.asset.name
        chosen = containers[0]
        if len(containers) > 1:
            chosen = self._pick(name, containers, lambda c: (
                _step_of(c), c.order, c.pieces * _step_of(c).pri_s, c.sent_ns
            ))  # fmt: skip
        self._tools[name] = _step_of(chosen).tool
        self._give_back(chosen.order.steps[chosen.step - 1].operation)
        at = chosen.step + 1
        self._log.note(unit.asset, self._env.now, chosen.order, at, chosen.pieces, 1)
        return chosen

    def _pick(
        self, name: str, waiting: Sequence[T], read: Callable[[T], tuple[Step, Order, float, int]]
    ) -> T:
        """The first by the rule; of equals the one that came first."""
        rule, tool = self._rule.rule, self._tools.get(name)
        old_ns = self._env.now - self._rule.patience

        def rank(item: T) -> tuple[bool, bool, float]:
            step, order, work_s, since_ns = read(item)
            patient = since_ns >= old_ns
            match rule:
                case "fifo":
                    return (False, False, 0.0)
                case "edd":
                    return (False, False, order.due_ns)
                case "spt":
                    return (patient, False, work_s if patient else since_ns)
                case "same_tool":
                    sets_up = patient and step.tool != tool
                    return (patient, sets_up, order.due_ns if patient else since_ns)

        return min(waiting, key=rank)

    # Kanban

    def move(self, operation: str, send: Callable[[], None]) -> None:
        """Send a container on from an operation, now or when there is a card."""
        cards = self._release.cards.get(operation)
        if self._release.policy != "kanban" or cards is None or self.cards_out[operation] < cards:
            self.cards_out[operation] += 1
            send()
        else:
            self._held.setdefault(operation, deque()).append(send)

    def _give_back(self, operation: str) -> None:
        self.cards_out[operation] -= 1
        if self._held.get(operation):
            self.cards_out[operation] += 1
            self._held[operation].popleft()()


def _step_of(container: "Container") -> Step:
    """What is done next with a container."""
    return container.order.steps[container.step]


def _may(unit: str, order: Order) -> bool:
    """Whether a unit can do the first operation of an order."""
    return order.unit == unit if order.unit else order.steps[0].fits(unit)
