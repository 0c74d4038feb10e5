"""The shop as a planner knows it: routes, release, dispatch, operators, buffers, and their laws."""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.errors import ConfigError
from config.units import NS_PER_DAY, NS_PER_MS, NS_PER_S, parse_time
from ingest.messages import Asset
from ingest.packml import Mode
from ingest.packml import PackML as S
from simulator.device import Columns, Stretch, World
from simulator.devices.casting_cell import CastingCell
from simulator.devices.work_unit import WorkUnit
from simulator.link.link import Link
from simulator.link.profile import load_profile
from simulator.mes import Calendar, Counter, Flow
from simulator.plant import CalendarSpec, Plant, Span, make_plant
from simulator.plant.floor import Floor
from simulator.plant.material import Container
from simulator.plant.operators import Operators, OperatorsSpec
from simulator.plant.routes import Order, Product

START = parse_time("2026-01-04T16:00:00Z")
"""A Monday, 00:00 by the plants' clock."""
HOUR = 3_600 * NS_PER_S
DAY = NS_PER_DAY


class Quick:
    """A link that takes 5 ms and loses nothing."""

    faults = ()

    def __init__(self) -> None:
        self.profile = load_profile("ethernet")

    described = "a quick wire"

    def alike(self) -> "Quick":
        return self

    def take_trace(self) -> dict[str, Any]:
        """Nobody looks at it."""
        return {}

    def bearer(self, *_: object, **__: object) -> "Quick":
        return self

    def plain(self, *_: object) -> "Quick":
        return self

    def move(self, *_: object) -> None:
        """A place changes nothing."""

    def send(self, t_ns: int, n_bytes: int) -> int:
        del n_bytes
        return t_ns + 5 * NS_PER_MS

    def send_many(self, t_ns: Any, n_bytes: Any) -> Any:
        del n_bytes
        return t_ns + 5 * NS_PER_MS


def unit(name: str, at: int, **more: object) -> dict[str, Any]:
    """A machine that neither spoils anything nor breaks down, unless that is said."""
    calm = {"scrap_ratio": 0.0, "mtbf_s": 1e12, "maintain_every_h": 1e9, "cycle_spread": 0.0}
    where = {"kind": "work_unit", "area": "shop", "line": "l", "node": f"s{at}"}
    return {"name": name, **where, "set_up_s": 0.0, **calm, **more}


def step(operation: str, units: str, pri_s: float, **more: object) -> dict[str, Any]:
    return {"operation": operation, "units": units, "pri_s": pri_s, **more}


def plant(
    devices: list[dict[str, Any]], products: dict[str, list[dict[str, Any]]],
    orders: Sequence[tuple[str, int]] = (), agvs: int = 2, **more: Any,
) -> Plant:  # fmt: skip
    """Stations along one lane, the store at its end, and some vehicles."""
    count = max((int(d["node"][1:]) for d in devices), default=0) + 1
    nodes = [(f"n{at}", 10.0 * at, 0.0) for at in range(count + 1)]
    nodes += [(f"s{at}", 10.0 * at, 5.0) for at in range(count)]
    nodes += [("store", 10.0 * count, 5.0), ("dock", 10.0 * count, -5.0)]
    edges = [(f"n{at}", f"n{at + 1}") for at in range(count)]
    edges += [(f"n{at}", f"s{at}") for at in range(count)]
    edges += [(f"n{count}", "store"), (f"n{count}", "dock")]
    vehicle = {"kind": "agv", "area": "fleet", "line": "l", "node": "dock", "charger": "dock"}
    data = {
        "site": "shop", "warehouse": "store", "pieces_per_container": 10, "heartbeats": "drawn",
        "transport_loss_ratio": 0.0, "lab_pieces": 0,
        "calendar": {"shift": [{"start": "00:00", "end": "24:00"}]},
        "transport": {"reservations": False, "charge_points": {"dock": agvs}},
        "node": [{"name": n, "x_m": x, "y_m": y} for n, x, y in nodes],
        "edge": [{"between": list(edge)} for edge in edges],
        "device": [*devices, *(vehicle | {"name": f"agv{at}"} for at in range(agvs))],
        "product": [{"name": name, "step": steps} for name, steps in products.items()],
        "order": [{"number": at, "product": name, "quantity": quantity}
                  for at, (name, quantity) in enumerate(orders, 1)],
    }  # fmt: skip
    return make_plant(data | more)


def floor_of(made: Plant, seed: int = 1) -> Floor:
    return Floor(made, cast(Link, Quick()), seed, START)


def counts(floor: Floor) -> tuple[int, int, int, int]:
    """Entered, left, lost, and counted where they are, now."""
    flow, now = floor.flow, floor.env.now
    booked = (flow.entered.get(now), flow.left.get(now), flow.scrapped.get(now))
    return (*booked, floor.wip())


def is_conserved(floor: Floor) -> bool:
    entered, left, lost, held = counts(floor)
    return entered == left + lost + held


def hours(floor: Floor, count: int, every: int = 1) -> Iterator[int]:
    """Let hours pass."""
    start = floor.env.now - floor.env.now % NS_PER_S
    for hour in range(every, count + 1, every):
        floor.run_to(start + hour * HOUR)
        yield hour


def wip_and_rate(floor: Floor, after_ns: int, to_ns: int) -> tuple[float, float]:
    """Mean WIP and pieces a day."""
    flow, marks = floor.flow, np.arange(after_ns, to_ns, 600 * NS_PER_S, dtype=np.int64)
    wip = flow.entered.at(marks) - flow.left.at(marks) - flow.scrapped.at(marks)
    left = flow.left.get(to_ns) - flow.left.get(after_ns)
    return float(wip.mean()), left * DAY / (to_ns - after_ns)


LINE = {"part": [step("a", "a*", 60.0), step("b", "b*", 60.0), step("c", "c*", 60.0)]}


# Conservation, ages, Little


RESTLESS = {
    "scrap_ratio": 0.1, "rework_ratio": 0.5, "mtbf_s": 7_200.0, "mttr_s": 1_800.0,
    "maintain_every_h": 5.0, "cycle_spread": 0.3, "set_up_s": 900.0,
}  # fmt: skip
JOBS = {
    "x": [step("a", "a*", 60.0, tool="t1"), step("b", "b*", 45.0), step("a", "a*", 30.0, tool="t2"),
          step("c", "c*", 50.0)],
    "y": [step("b", "b*", 60.0, tool="t1", pieces_per_container=4), step("c", "c*", 40.0)],
    "z": [step("a", "a0", 50.0, pieces_per_container=25), step("b", "b*", 60.0),
          step("a", "a1", 20.0)],
}  # fmt: skip


def restless(**more: Any) -> Plant:
    devices = [unit("a0", 0, **RESTLESS, put_aside=True),
               unit("a1", 1, **RESTLESS, put_aside=True, fixtures=3),
               unit("b0", 2, **RESTLESS), unit("c0", 3, **RESTLESS, abort_ratio=1.0)]  # fmt: skip
    orders = [(name, quantity) for quantity in (7, 40, 23) for name in JOBS]
    calendar = {"shift": [{"start": "06:00", "end": "22:00"}],
                "pause": [{"start": "12:00", "end": "12:30"}]}  # fmt: skip
    return plant(devices, JOBS, orders, calendar=calendar, **more)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1_000), rule=st.sampled_from(["fifo", "edd", "spt", "same_tool"]),
       gaps=st.lists(st.integers(1, 4_000), min_size=40, max_size=40))  # fmt: skip
def test_material_is_conserved_and_every_order_ends(seed: int, rule: str, gaps: list[int]) -> None:
    """A job shop in which orders cross and return to the same units, and everything goes wrong."""
    floor = floor_of(restless(dispatch={"rule": rule}), seed)
    t_ns = START
    for gap in gaps:
        t_ns += gap * NS_PER_S
        floor.run_to(t_ns)
        assert is_conserved(floor), counts(floor)
    floor.run_to(START + 6 * DAY)
    assert is_conserved(floor)
    assert floor.wip() == 0
    orders = floor.dispatch.orders.values()
    assert all(order.finished_ns is not None and order.in_process == 0 for order in orders)
    entered, left, lost, _ = counts(floor)
    assert entered - lost == left
    assert floor.flow.finished.get(floor.env.now) == len(orders) == 9


_LOT = ("order", "step", "pieces", "begun")


def test_a_route_is_followed_step_by_step() -> None:
    """What the MES tells of lots: each piece of an order is begun at the units of its route only,
    and never more of it at a step than went onward from the one before."""
    floor = floor_of(restless())
    floor.run_to(START + 6 * DAY)
    begun: dict[tuple[int, int], int] = {}
    onward: dict[tuple[int, int], int] = {}
    whole = Stretch.every(START, START + 6 * DAY, None)
    for report in floor.mes.reports(whole):
        assert isinstance(report, Columns)
        if "lot_order" not in report.ch:
            continue
        columns = [cast(list[int], report.ch[f"lot_{c}"]) for c in _LOT]
        rows: list[tuple[int, int, int, int]] = list(zip(*columns, strict=True))
        for number, at, pieces, is_begun in rows:
            assert floor.dispatch.orders[number].steps[at - 1].fits(report.asset.name)
            book = begun if is_begun else onward
            book[number, at] = book.get((number, at), 0) + pieces
    for (number, at), pieces in begun.items():
        if at > 1:
            assert pieces == onward[number, at - 1]
        assert onward[number, at] <= pieces
    left = floor.flow.left.get(floor.env.now)
    last = {n: len(order.steps) for n, order in floor.dispatch.orders.items()}
    assert sum(onward[number, at] for number, at in last.items()) == left


def test_fifo_line_keeps_the_order_of_entry_and_its_exact_pace() -> None:
    made = plant([unit(f"{n}0", at) for at, n in enumerate("abc")], LINE, [("part", 100)])
    floor = floor_of(made)
    seen: list[int] = []
    receive = floor.warehouse.receive

    def watched(container: Container) -> None:
        seen.extend(container.entered_ns)
        receive(container)

    floor.warehouse.receive = watched  # type: ignore[method-assign]
    floor.run_to(START + DAY)
    assert len(seen) == 100
    assert seen == sorted(seen)
    a0 = cast(WorkUnit, floor.devices[0])
    gaps = np.diff(np.array(a0.done.end_ns))
    assert (gaps == 60 * NS_PER_S).all(), "one piece a minute, with nothing between"
    assert a0.energy.get(START + DAY) == pytest.approx(
        (100 / 60 * 9.0 + (24 - 100 / 60) * 2.5) * 100_000, abs=1
    )


def test_little_law_holds_on_a_long_run() -> None:
    """The area under WIP is the sum of the ages of what left, but for what lies there at the ends:
    and both forms of turnover days agree."""
    devices = [unit(f"{n}0", at, cycle_spread=0.3) for at, n in enumerate("abc")]
    demand = {"orders_per_week": 150.0, "mix": {"part": 1.0}, "quantity": 60, "due": "7d"}
    release = {"policy": "conwip", "cap_lots": 6}
    made = plant(devices, LINE, demand=demand, release=release, pieces_per_container=30)
    floor = floor_of(made)
    after, to = START + DAY, START + 9 * DAY
    floor.run_to(to)
    wip, rate = wip_and_rate(floor, after, to)
    ages = floor.flow.age_ms
    age = (ages.get(to) - ages.get(after)) * NS_PER_MS / DAY / (rate * 8)
    assert rate > 1_000
    assert wip / rate == pytest.approx(age, rel=0.01)


# Release and dispatch


def test_conwip_never_exceeds_its_cap_and_push_lies_deeper_at_the_same_rate() -> None:
    """A slow last unit sets the pace, ten pieces in 630 s: what is pushed lies before it."""
    devices = [unit("a0", 0, input_slots=20, output_slots=9, cycle_s=30.0),
               unit("b0", 1, input_slots=20, output_slots=9, cycle_s=30.0),
               unit("c0", 2, input_slots=20)]  # fmt: skip
    demand = {"orders_per_week": 300.0, "mix": {"part": 1.0}, "quantity": 30, "due": "7d"}
    push = floor_of(plant(devices, LINE, demand=demand))
    pull = floor_of(
        plant(devices, LINE, demand=demand, release={"policy": "conwip", "cap_pieces": 120})
    )
    for _ in hours(pull, 2 * 24):
        assert pull.dispatch.on_floor_pieces <= 120
        assert pull.wip() <= 120
        assert is_conserved(pull)
    push.run_to(START + 2 * DAY)
    (deep, pushed), (low, pulled) = (
        wip_and_rate(floor, START + DAY, START + 2 * DAY) for floor in (push, pull)
    )
    assert pushed == pytest.approx(864_000 / 630, rel=0.02)
    assert pulled == pytest.approx(pushed, rel=0.03)
    assert deep > 2 * low


def test_conwip_lets_in_as_many_lots_as_came_out() -> None:
    devices = [unit(f"{n}0", at) for at, n in enumerate("abc")]
    products = [{"name": "part", "step": LINE["part"], "lot_size": 20}]
    made = plant(devices, LINE, [("part", 130)], product=products,
                 release={"policy": "conwip", "cap_lots": 2})  # fmt: skip
    floor = floor_of(made)
    most = 0
    for _ in hours(floor, 24):
        most = max(most, floor.dispatch.on_floor_lots)
        assert floor.dispatch.on_floor_lots <= 2
    assert most == 2
    order = floor.dispatch.orders[1]
    assert order.finished_ns is not None
    assert floor.flow.left.get(floor.env.now) == 130
    assert floor.flow.lead_ms.get(floor.env.now) == (order.finished_ns - START) // NS_PER_MS


def test_kanban_cards_bound_what_waits_between_two_operations() -> None:
    devices = [unit("a0", 0, cycle_s=20.0), unit("b0", 1, input_slots=20), unit("c0", 2)]
    made = plant(devices, LINE, [("part", 400)], release={"policy": "kanban", "cards": {"a": 3}})
    floor = floor_of(made)
    blocked = False
    for _ in hours(floor, 10):
        assert floor.dispatch.cards_out["a"] <= 3
        blocked |= cast(WorkUnit, floor.devices[0]).state.last == S.SUSPENDED
        assert is_conserved(floor)
    assert blocked
    floor.run_to(START + DAY)
    assert floor.flow.left.get(floor.env.now) == 400
    assert floor.dispatch.cards_out["a"] == 0


def test_push_goes_by_the_calendar() -> None:
    """Weekly, what was ordered on Monday; with a lead time, so long before it is due."""
    devices = [unit(f"{n}0", at) for at, n in enumerate("abc")]
    orders = [
        {"number": at, "product": "part", "quantity": 5, "due": due}
        for at, due in enumerate(("2d", "9d", "5d"), 1)
    ]
    floor = floor_of(plant(devices, LINE, order=orders, release={"lead": "1d"}))
    floor.run_to(START + 10 * DAY)
    released = [cast(int, o.released_ns) - START for o in floor.dispatch.orders.values()]
    assert released == [DAY, 8 * DAY, 4 * DAY]
    demand = {"orders_per_week": 2.5, "mix": {"part": 1.0}, "quantity": 5, "due": "7d"}
    floor = floor_of(plant(devices, LINE, demand=demand, release={"every": "7d"}))
    floor.run_to(START + 15 * DAY)
    released = [cast(int, o.released_ns) - START for o in floor.dispatch.orders.values()]
    assert released == [0] * 2 + [7 * DAY] * 3 + [14 * DAY] * 2


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("fifo", "ABCD"), ("edd", "DCBA"), ("spt", "CABD"), ("same_tool", "DCBA")],
)
def test_a_free_unit_takes_its_next_container_by_the_rule(rule: str, expected: str) -> None:
    """The last one had tool t; ``same_tool`` takes D and C for their tool, B before A by its date.
    Whatever the rule, none passes what has waited longer than patience allows, but by date."""
    steps = {n: [step("a", "a0", 60.0), step("b", "b0", 60.0, tool=n)] for n in "tu"}
    made = plant([unit("a0", 0), unit("b0", 1)], steps, dispatch={"rule": rule, "patience": "1h"})
    floor = floor_of(made)
    products = {product.name: product for product in made.product}
    waiting = {
        name: Container(Order(at, products[tool], 99, START + due), deque([0] * pieces),
                        sent_ns=START + at)
        for at, (name, tool, pieces, due) in enumerate(
            (("A", "u", 20, 9), ("B", "u", 30, 8), ("C", "t", 10, 7), ("D", "t", 60, 6)))
    }  # fmt: skip
    b0 = cast(WorkUnit, floor.devices[1])
    for late in (False, True):
        if late:
            floor.run_to(START + 2 * HOUR)
            expected = "DCBA" if rule == "edd" else "ABCD"
        first = Container(Order(9, products["t"], 1, START), deque([0]))
        floor.dispatch.choose(b0, [first])
        left, taken = dict(waiting), ""
        while left:
            chosen = floor.dispatch.choose(b0, list(left.values()))
            name = next(n for n, each in left.items() if each is chosen)
            taken += name
            del left[name]
        assert taken == expected


def test_a_tool_that_is_there_once_is_used_once_at_a_time() -> None:
    for tools, most in ((1, 1), (2, 2), (None, 3)):
        first = step("a", "a*", 60.0, tool="die") | ({} if tools is None else {"tools": tools})
        devices = [unit(f"a{at}", at) for at in range(3)]
        floor = floor_of(plant(devices, {"part": [first]}, [("part", 20)] * 6))
        together = 0
        for minute in range(1, 200):
            floor.run_to(START + minute * 60 * NS_PER_S)
            together = max(together, sum(o.jobs and o.in_process > 0
                                         for o in floor.dispatch.orders.values()))  # fmt: skip
        units = [cast(WorkUnit, d) for d in floor.devices[:3]]
        assert sum(u.produced.last > 0 for u in units) == most
        floor.run_to(START + DAY)
        assert floor.flow.left.get(floor.env.now) == 120


# Buffers


def test_full_outputs_block_empty_inputs_starve_and_both_resolve() -> None:
    """While the middle unit is down for hours the first one is blocked and the last one starved."""
    devices = [unit("a0", 0), unit("b0", 1, mtbf_s=30_000.0, mttr_s=40_000.0, abort_ratio=0.0),
               unit("c0", 2)]  # fmt: skip
    floor = floor_of(plant(devices, LINE, [("part", 4_000)]), seed=4)
    floor.run_to(START + 6 * DAY)
    first, middle, last = (cast(WorkUnit, d) for d in floor.devices[:3])
    spells = zip(middle.state.t, middle.state.v, middle.state.t[1:], strict=False)
    down = [(since, until) for since, state, until in spells
            if state == S.HELD and until - since > 8 * HOUR]  # fmt: skip
    assert down
    for since, until in down:
        late = until - HOUR
        assert first.state.get(late) == S.SUSPENDED
        assert last.state.get(late) == S.SUSPENDED
        assert late > since
    assert S.EXECUTE in first.state.v[bisect_right(first.state.t, down[0][1]) :]
    assert floor.flow.left.get(floor.env.now) == 4_000


# Work units


def test_a_change_of_tool_is_a_set_up_by_a_person() -> None:
    products = {name: [step("a", "a0", 60.0, tool=name)] for name in ("x", "y")}
    devices = [unit("a0", 0, set_up_s=3_600.0, set_up_spread=0.0)]
    operators = {"per_shift": [1], "response_s": 600.0}
    made = plant(devices, products, [("x", 10), ("x", 10), ("y", 10)], operators=operators)
    floor = floor_of(made)
    floor.run_to(START + DAY)
    a0 = cast(WorkUnit, floor.devices[0])
    modes = list(zip(a0.mode.t, a0.mode.v, strict=True))
    assert [mode for _, mode in modes] == [Mode.PRODUCTION, Mode.SETUP, Mode.PRODUCTION]
    assert modes[2][0] - modes[1][0] == 4_200 * NS_PER_S, "600 s until somebody comes, then 3600 s"
    assert a0.psut_ns.get(modes[1][0]) == 3_600 * NS_PER_S


def test_counters_add_up_as_the_standard_says() -> None:
    floor = floor_of(plant([unit("a0", 0, **RESTLESS)], {"x": [step("a", "a0", 20.0)]},
                           [("x", 900)]))  # fmt: skip
    floor.run_to(START + 3 * DAY)
    a0 = cast(WorkUnit, floor.devices[0])
    made, scrap, rework, right = (c.last for c in (a0.produced, a0.scrap, a0.rework, a0.first_pass))
    assert made == right + scrap + rework
    assert scrap / made == pytest.approx(0.05, abs=0.025)
    assert rework / made == pytest.approx(0.05, abs=0.025)
    assert floor.flow.left.get(floor.env.now) == 900, "a lot is good pieces"
    assert floor.flow.entered.get(floor.env.now) == made
    total = a0.done.end_ns[-1] - START
    runs = sum(a0.done.cycle_ms) / 1_000
    assert runs < total / NS_PER_S


def test_what_happens_does_not_depend_on_how_it_is_watched() -> None:
    def story(gap_s: int) -> list[tuple[int, ...]]:
        floor = floor_of(restless(), 3)
        for t_ns in range(START + gap_s * NS_PER_S, START + 2 * DAY, gap_s * NS_PER_S):
            before = t_ns - gap_s * NS_PER_S
            floor.run_to(t_ns)
            for device in floor.devices:
                device.reports(Stretch.every(before, t_ns, 60 * NS_PER_S))
            floor.mes.reports(Stretch.every(before, t_ns, None))
        floor.run_to(START + 2 * DAY)
        units = [d for d in floor.devices if isinstance(d, WorkUnit)]
        return [tuple(u.state.t) + tuple(u.done.end_ns) for u in units]

    assert story(6_000) == story(50_000)


# Operators


def test_operators_come_in_turn_and_only_in_their_shift() -> None:
    calendar = Calendar(CalendarSpec(
        days=("mon", "tue"),
        shift=(Span(start="06:00", end="14:00"), Span(start="14:00", end="22:00")),
    ))  # fmt: skip
    env = World(START)
    operators = Operators(OperatorsSpec(per_shift=(1, 2), tasks=("repair",)), env, calendar)
    env.process(operators.run())
    came: list[tuple[str, float]] = []

    def job(name: str, at_h: float, takes_h: float, task: Any = "repair") -> Any:
        yield env.timeout(round(at_h * HOUR))
        yield from operators.fetch(task)
        came.append((name, (env.now - START) / HOUR))
        assert operators.busy <= 2
        yield env.timeout(round(takes_h * HOUR))
        operators.release(task)

    env.process(job("free", 3, 1, "maintain"))
    calls = (("early", 5, 2), ("second", 6.5, 9), ("third", 7, 1), ("fourth", 13, 1),
             ("night", 23, 1), ("weekend", 49, 1))  # fmt: skip
    for name, at_h, takes_h in calls:
        env.process(job(name, at_h, takes_h))
    env.run(until=START + 8 * DAY)
    assert came == [("free", 3.0), ("early", 6.0), ("second", 8.0), ("third", 14.0),
                    ("fourth", 15.0), ("night", 30.0), ("weekend", 7 * 24 + 6.0)]  # fmt: skip


# Calendar


def test_a_working_week() -> None:
    shifts = (Span(start="00:00", end="08:00"), Span(start="08:00", end="16:00"),
              Span(start="16:00", end="24:00"))  # fmt: skip
    pause = (Span(start="12:00", end="12:30"),)
    calendar = Calendar(CalendarSpec(days=("mon", "wed", "sat"), shift=shifts, pause=pause))
    assert calendar.monday_ns(START + 5 * DAY) == START
    for day, works in enumerate((True, False, True, False, False, True, False)):
        noon = START + day * DAY + 12 * HOUR
        assert calendar.planned(noon - 1) is works
        assert not calendar.planned(noon)
        assert calendar.shift(noon + HOUR) == (2 if works else 0)
    assert calendar.shift(START) == 1
    assert calendar.next_shift_ns(START) == START + 8 * HOUR
    assert calendar.next_change_ns(START) == START + 12 * HOUR
    assert calendar.resumes_ns(START + 3 * DAY) == START + 5 * DAY
    assert calendar.pauses_ns(START + 5 * DAY + 13 * HOUR) == START + 6 * DAY
    assert calendar.resumes_ns(START + 6 * DAY) == START + 7 * DAY
    steps = calendar.steps(START, START + 7 * DAY)
    planned = sum(v * (b - a) for v, a, b in zip(steps.v, steps.t, [*steps.t[1:], START + 7 * DAY],
                                                 strict=True))  # fmt: skip
    assert planned == 3 * 23.5 * HOUR


# Bookkeeping


@given(blocks=st.lists(st.tuples(st.integers(0, 50), st.lists(st.integers(0, 200), max_size=8)),
                       max_size=12))  # fmt: skip
def test_a_counter_takes_events_in_any_order_ahead_of_time(
    blocks: list[tuple[int, list[int]]],
) -> None:
    """Noted block by block, each for its own future, and asked about in between."""
    counter, now, every = Counter(0, 0), 0, list[int]()
    for wait, ahead in blocks:
        now += wait
        assert counter.get(now) == sum(t <= now for t in every)
        times = [now + 1 + t for t in ahead]
        counter.add_many(times)
        every += times
    last = now + 300
    assert counter.get(last) == len(every)
    assert counter.at(np.arange(last)).tolist() == [sum(t <= at for t in every)
                                                    for at in range(last)]  # fmt: skip


def test_an_order_is_cut_into_lots_as_equal_as_possible() -> None:
    a = {"operation": "a", "units": ("a",), "pri_s": 1.0}
    product = Product.model_validate({"name": "p", "lot_size": 40, "step": [a]})
    assert Order(1, product, 100, 0).lots == [33, 33, 34]
    assert Order(1, product, 40, 0).lots == [40]
    assert sum(Order(1, product, 997, 0).lots) == 997


def test_orders_are_told_on_the_flow() -> None:
    """What order lead time can be computed from: counters, and the sum of the lead times."""
    floor = floor_of(restless())
    floor.run_to(START + 6 * DAY)
    (last,) = (
        r for r in floor.flow.reports(Stretch.every(START, START + 6 * DAY, None))
        if isinstance(r, Columns)
    )  # fmt: skip
    assert last.stream == "flow"
    told = {name: cast(float, values[-1]) for name, values in last.ch.items()}
    orders = floor.dispatch.orders.values()
    leads = [cast(int, o.finished_ns) - cast(int, o.released_ns) for o in orders]
    assert (told["orders_released"], told["orders_started"], told["orders_finished"]) == (9, 9, 9)
    assert told["lead_order_s"] == pytest.approx(sum(leads) / NS_PER_S, abs=0.01)
    assert told["entered"] == told["left"] + told["scrapped"]
    flow = Flow(Asset("a", "b", "c", "d"), START)
    assert set(last.ch) == set(flow.channels)


# The plant file


def test_a_plant_file_tells_what_does_not_fit() -> None:
    good = {"part": [step("a", "a*", 60.0)]}
    devices = [unit("a0", 0)]
    cases: list[tuple[str, dict[str, Any]]] = [
        ("no device to b it: x*", {"product": [{"name": "part", "step": [step("b", "x*", 1.0)]}]}),
        ("unknown product prat; did you mean part?", {"order": [
            {"number": 1, "product": "prat", "quantity": 1}]}),
        ("agv0 does not a", {"order": [
            {"number": 1, "product": "part", "quantity": 1, "unit": "agv0"}]}),
        ("unknown product q", {"demand": {
            "orders_per_week": 1.0, "mix": {"q": 1.0}, "quantity": 1, "due": "1d"}}),
        ("the demand's", {"order": [{"number": 100_000, "product": "part", "quantity": 1}]}),
        ("unknown operation x", {"release": {"policy": "kanban", "cards": {"x": 2}}}),
        ("routes lead from a0 to b0 and back", {
            "device": [unit("a0", 0), unit("b0", 0), {
                "name": "v", "kind": "agv", "area": "x", "line": "l", "node": "dock",
                "charger": "dock"}],
            "product": [{"name": "part", "step": [
                step("a", "a0", 1.0), step("b", "b0", 1.0), step("a", "a0", 1.0)]}]}),
        ("product part is there twice", {
            "product": [{"name": "part", "step": good["part"]}] * 2}),
    ]  # fmt: skip
    for words, more in cases:
        with pytest.raises(ConfigError, match=words.replace("*", r"\*").replace("?", r"\?")):
            plant(devices, good, **more)


def test_five_hundred_resources_run_a_day() -> None:
    """Six operations on eighty machines each, and twenty vehicles, five machines to a node."""
    operations = "abcdef"
    devices = [
        unit(f"{n}{at:02d}", (80 * which + at) // 20, fixtures=2)
        for which, n in enumerate(operations)
        for at in range(80)
    ]
    route = [step(n, f"{n}*", 300.0) for n in operations]
    orders = [("part", 200)] * 60
    made = plant(devices, {"part": route}, orders, agvs=20, pieces_per_container=25)
    assert len(made.device) == 500
    floor = floor_of(made)
    floor.run_to(START + DAY)
    assert is_conserved(floor)
    made_pieces = sum(d.produced.last for d in floor.devices if isinstance(d, WorkUnit))
    assert made_pieces > 50_000
    assert floor.flow.left.get(floor.env.now) > 5_000
    assert not any(isinstance(d, CastingCell) for d in floor.devices)
    assert math.isfinite(wip_and_rate(floor, START, START + DAY)[0])
