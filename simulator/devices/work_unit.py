"""A work unit: a machining centre, washer, inspection bench, mill or press, by its settings.

It takes containers as a later step of a route, lots as the first one, or both, and works on
``fixtures`` pieces a cycle:

    input slots ── tool as before? ──┬── cycles ──┬─ good ─────────────────┬── output lane
                     └─ no: set-up ──┘            ├─ rework, once, here ─┬─┘
                                                  └─ scrap               └── production loss

What nothing disturbs is computed as columns: the cycles of as many pieces as have a place in the
container at the output, up to a breakdown, a service that is due, or a planned stop. A cycle that
is interrupted goes on where it was. Each cycle and each piece has draws of its own, used in order.

A container leaves the output lane when it is full, when pieces of another order follow, or when no
more of its order wait at the input.
"""

from array import array
from bisect import bisect_right
from collections.abc import Generator, Mapping, Sequence
from itertools import compress
from typing import Annotated, Any, Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from simpy import Event

from config.units import NS_PER_MS, Kilowatts, Ratio, Seconds
from ingest.packml import Mode
from ingest.packml import PackML as S
from simulator.cycles import MILLION, Cycles, Phase
from simulator.device import (
    Columns,
    Count,
    DeviceSpec,
    Ints,
    Process,
    Report,
    Steps,
    Stretch,
    event_reports,
    ns,
    on_grid,
    rounded,
)
from simulator.mes import LOT_CHANNELS
from simulator.plant.fed import FedUnit
from simulator.plant.floor import Floor
from simulator.plant.routes import Order, Step

Flags = NDArray[np.bool_]
Pause = Annotated[float, Field(ge=0, json_schema_extra={"unit": "s"})]
Hours = Annotated[float, Field(gt=0, json_schema_extra={"unit": "h"})]


class WorkUnitSpec(DeviceSpec):
    """Settings of one work unit. By default it is a machining centre."""

    kind: Literal["work_unit"] = "work_unit"
    node: str
    """Where AGVs bring and fetch containers."""
    cycle_s: Seconds | None = None
    """Mean time of a cycle; the planned time of the step, for all fixtures, if not given."""
    cycle_spread: Ratio = 0.02
    """Standard deviation of a cycle's time, as a share of it."""
    fixtures: Count = 1
    """Pieces that are worked on together."""
    swap_s: Pause = 30.0
    """Putting an empty container away and the next in place."""
    set_up_s: Pause = 1_800.0
    """Planned set-up when what comes next needs another tool."""
    set_up_spread: Ratio = 0.1
    """Standard deviation of a set-up, as a share of the plan; none takes less than half."""
    scrap_ratio: Ratio = 0.005
    """Share of pieces that are rejected."""
    rework_ratio: Ratio = 0.0
    """Share of the rejects that can be reworked, here and at once."""
    rework_s: Pause = 300.0
    """Time to rework a piece."""
    rework_pass_ratio: Ratio = 0.9
    """Share of reworked pieces that are good then; the others are lost."""
    mtbf_s: Seconds = 180_000.0
    """Mean running time between breakdowns."""
    mttr_s: Seconds = 2_700.0
    """Mean time to repair."""
    abort_ratio: Ratio = 0.2
    """Share of breakdowns that abort (and need clearing) instead of holding."""
    maintain_every_h: Hours = 500.0
    """Running time after which it is serviced, within planned time, before the next container."""
    maintain_s: Seconds = 3_600.0
    """Time of a service."""
    start_s: Pause = 10.0
    """From a stop to the next cycle."""
    input_slots: Count = 3
    """Containers at its input, the one at work and those on their way included."""
    put_aside: bool = False
    """Whether what finds no slot at the input is put aside on the floor."""
    output_slots: Count = 2
    """Full containers that may wait for a vehicle."""
    power_kw: Kilowatts = 9.0
    """Mean draw during cycles."""
    standby_kw: Kilowatts = 2.5
    """Draw in between."""


class Done:
    """The cycles that are done, or sure to be done: an array a column, an entry a cycle."""

    __slots__ = ("cycle_ms", "end_ns")

    def __init__(self) -> None:
        self.end_ns = array("q")
        self.cycle_ms = array("q")

    def log(self, end_ns: Ints, cycle_ns: Ints) -> None:
        """Cycles with the times at which they end."""
        self.end_ns.frombytes(end_ns.tobytes())
        self.cycle_ms.frombytes(((cycle_ns + NS_PER_MS // 2) // NS_PER_MS).tobytes())

    def between(self, after_ns: int, to_ns: int) -> slice:
        """Which ended in ``(after_ns, to_ns]``."""
        return slice(bisect_right(self.end_ns, after_ns), bisect_right(self.end_ns, to_ns))


class _Batch:
    """Pieces that are worked on in a row, and what becomes of them."""

    def __init__(self, order: Order, cycle_ns: Ints, bad: Flags, mends: Flags, each: int) -> None:
        self.order = order
        self.cycle_ns = cycle_ns
        self.end_ns: Ints = cycle_ns.cumsum()
        """Running time at which each cycle ends."""
        self.bad, self.mends = bad, mends
        """Per piece."""
        self.fine = not bad.any()
        """Whether no piece is bad."""
        self.each = each
        """Pieces a cycle, but for the last one."""


class WorkUnit(FedUnit):
    """Works on container after container, or lot after lot.

    Breakdowns come as a Poisson process over running time. Without disturbance a container of n
    pieces takes ``ceil(n / fixtures)`` cycles. A repair is corrective maintenance, a service
    preventive; a change of tool is mode set-up. The energy counter is the exact integral of a power
    that is constant during cycles and between them. A piece that is reworked stays counted as
    rework, whatever became of it, and is inspected once; its rework is running time without a
    cycle.
    """

    channels: Mapping[str, str] = {
        "state": "PackML", "mode": "1", "maintenance": "1", "produced": "1", "scrap": "1",
        "rework": "1", "inspected": "1", "first_pass": "1", "quantity": "1", "planned_scrap": "1",
        "energy_kwh": "kWh", "co2_kg_per_kwh": "kg/kWh", "power_kw": "kW", "cycle_s": "s",
        **LOT_CHANNELS,
    }  # fmt: skip

    def __init__(self, spec: WorkUnitSpec, floor: Floor) -> None:
        self.spec = spec
        super().__init__(spec, floor)
        now = self.env.now
        self.node = spec.node
        phase = Phase(MILLION, round(spec.power_kw * 1000))
        self.cycles = Cycles(now, self.watts(S.STOPPED), [phase])
        self.energy = self.cycles
        self.produced = Steps(now, 0)
        self.scrap = Steps(now, 0)
        self.rework = Steps(now, 0)
        self.first_pass = Steps(now, 0)
        self.done = Done()
        self.lanes(spec.input_slots, spec.output_slots, floor.dispatch.bell(self))
        self._lost_ns: list[int] = []
        """When pieces at work are lost in the present run."""
        self._tool: str | None = None
        identity = crc32(self.path.encode())
        self._cycle_dice = np.random.default_rng([floor.seed, identity, 2])
        self._piece_dice = np.random.default_rng([floor.seed, identity, 3])
        self._until_failure_ns = ns(self.dice.exponential(spec.mtbf_s))
        self._until_service_ns = ns(spec.maintain_every_h * 3_600)

    def watts(self, state: S) -> int:
        """What it draws between cycles."""
        return round(self.spec.standby_kw * 1000)

    # Material

    def free(self) -> int:
        """Containers there is room for; where they can be put aside there is for one more."""
        return max(super().free(), 1) if self.spec.put_aside else super().free()

    def pieces(self) -> int:
        """At the input, at work but for those lost by now, and on the output lane."""
        return super().pieces() - bisect_right(self._lost_ns, self.env.now)

    # Life

    def run(self) -> Process:
        """Work off containers, and lots while there are none."""
        yield from self.rest()
        yield from self._start_up()
        while True:
            yield from self.await_outside(self._has_work, self._bell, self._start_up)
            if self.planned_left_ns() <= 0:
                yield from self.rest()
                yield from self._start_up()
            elif self._input:
                yield from self._do_container()
            else:
                yield from self._do_lot()

    def _has_work(self) -> bool:
        return bool(self._input) or self.floor.dispatch.has_job(self)

    def _start_up(self) -> Process:
        yield from self.pace(S.RESETTING, self.spec.start_s)
        yield from self.pace(S.IDLE, 1.0)
        yield from self.pace(S.STARTING, 5.0)
        self.enter(S.EXECUTE)

    def _do_container(self) -> Process:
        yield self.env.timeout(ns(self.spec.swap_s))
        container = self.floor.dispatch.choose(self, self._input)
        self._input.remove(container)
        self._at_work = container.entered_ns
        order, at = container.order, container.step
        yield from self._prepare(order, order.steps[at])
        while self._at_work:
            yield from self._make(order, at, len(self._at_work))
        if not any(c.order is order and c.step == at for c in self._input):
            self.output.close()
        self.floor.fleet.dispatch()

    def _do_lot(self) -> Process:
        job = self.floor.dispatch.next_job(self)
        if job is None:
            return
        order, good = job.order, 0
        yield from self._prepare(order, job.step)
        while good < job.quantity:
            yield from self._await_room(order, 0)
            pieces = min(job.quantity - good, self.output.left(order, 1))
            self._at_work.extend([self.env.now] * pieces)
            self.floor.flow.enter_many([self.env.now] * pieces, order)
            while self._at_work:
                good += yield from self._make(order, 0, len(self._at_work))
        self.output.close()
        self.floor.dispatch.done(self)

    def _prepare(self, order: Order, step: Step) -> Process:
        """Register the order, and set up if it needs another tool."""
        spec = self.spec
        changes = self._tool is not None and step.tool != self._tool
        self._tool = step.tool
        self.register(order, step.pri_s, spec.set_up_s if changes else 0.0)
        if not changes or not spec.set_up_s:
            return
        yield from self.pace(S.COMPLETING, 2.0)
        yield from self.pace(S.COMPLETE, 1.0)
        self.mode.set(self.env.now, Mode.SETUP)
        self.enter(S.RESETTING)
        spread = spec.set_up_spread * float(self.dice.standard_normal())
        yield from self.floor.operators.fetch("set_up")
        yield self.env.timeout(ns(spec.set_up_s * max(1.0 + spread, 0.5)))
        self.floor.operators.release("set_up")
        self.mode.set(self.env.now, Mode.PRODUCTION)
        yield from self.pace(S.IDLE, 1.0)
        yield from self.pace(S.STARTING, 5.0)
        self.enter(S.EXECUTE)

    def _await_room(self, order: Order, at: int) -> Process:
        yield from self.await_outside(
            lambda: self.output.room(order, at + 1), self.output.bell, self._start_up
        )

    def _make(self, order: Order, at: int, most: int) -> Generator[Event, Any, int]:
        """Work on pieces, as many as have a place in the container at the output; how many are
        good."""
        yield from self._await_room(order, at)
        self.output.begin(order, at + 1)
        batch = self._draw(order, at, min(most, self.output.left(order, at + 1)))
        done_ns, total_ns = 0, int(batch.end_ns[-1])
        while done_ns < total_ns:
            run_ns = yield from self._ready(total_ns - done_ns)
            self._log(batch, done_ns, done_ns + run_ns)
            yield from self._pass(run_ns)
            done_ns += run_ns
        mended = None if batch.fine else (yield from self._mend(batch))
        good = [self._at_work.popleft() for _ in range(len(batch.bad))]
        self._lost_ns = []
        if mended is not None:
            kept = ~batch.bad
            kept[batch.mends] = mended
            good = list(compress(good, kept.tolist()))
        self.output.put_many(order, good, at + 1)
        return len(good)

    def _draw(self, order: Order, at: int, pieces: int) -> _Batch:
        """What will become of the next pieces."""
        spec, pri_s = self.spec, order.steps[at].pri_s
        count = -(-pieces // spec.fixtures)
        mean_s = pri_s * spec.fixtures if spec.cycle_s is None else spec.cycle_s
        stray = spec.cycle_spread * self._cycle_dice.standard_normal(count)
        cycle_ns = np.rint(ns(mean_s) * np.maximum(1.0 + stray, 0.5)).astype(np.int64)
        odds = self._piece_dice.random((pieces, 2))
        bad = odds[:, 0] < spec.scrap_ratio
        return _Batch(order, cycle_ns, bad, bad & (odds[:, 1] < spec.rework_ratio), spec.fixtures)

    def _ready(self, most_ns: int) -> Generator[Event, Any, int]:
        """Be serviced if that is due, stop if nothing is planned, and then say how long it can run
        undisturbed."""
        while True:
            if self._until_service_ns <= 0:
                yield from self._be_serviced()
            elif (planned_ns := self.planned_left_ns()) <= 0:
                yield from self.rest()
                yield from self._start_up()
            else:
                limits = (most_ns, self._until_failure_ns, self._until_service_ns, planned_ns)
                return min(limits)

    def _pass(self, run_ns: int) -> Process:
        """Run for a time nothing disturbs, and break down if that is all there was."""
        self._until_failure_ns -= run_ns
        self._until_service_ns -= run_ns
        yield self.env.timeout(run_ns)
        if self._until_failure_ns <= 0:
            yield from self._break_down()

    def _log(self, batch: _Batch, from_ns: int, to_ns: int) -> None:
        """Book the part of a batch's running time that begins now."""
        now, ends = self.env.now, batch.end_ns
        low = int(ends.searchsorted(from_ns, side="right"))
        high = int(ends.searchsorted(to_ns, side="right"))
        if from_ns == low == 0 and high == len(ends):
            self.cycles.log(now, batch.cycle_ns)
        else:
            part = slice(low, min(high + 1, len(ends)))
            cycle_ns = batch.cycle_ns[part]
            starts = ends[part] - cycle_ns
            begin, end = np.maximum(starts, from_ns), np.minimum(ends[part], to_ns)
            runs = end > begin
            self.cycles.log_parts(
                (now + begin - from_ns)[runs], (begin - starts)[runs], (end - begin)[runs],
                cycle_ns[runs],
            )  # fmt: skip
        if low == high:
            return
        end_ns = now + ends[low:high] - from_ns
        self.done.log(end_ns, batch.cycle_ns[low:high])
        pieces = slice(low * batch.each, min(high * batch.each, len(batch.bad)))
        times = end_ns.repeat(batch.each)[: pieces.stop - pieces.start]
        self.produced.add_many(times)
        if batch.fine:
            self.first_pass.add_many(times)
            return
        bad, mends = batch.bad[pieces], batch.mends[pieces]
        self.first_pass.add_many(times[~bad])
        self.rework.add_many(times[mends])
        self._lose(batch.order, times[bad & ~mends])

    def _lose(self, order: Order, times: Ints) -> None:
        if len(times):
            self.floor.flow.lose_many(times, self.floor.flow.production_loss, order)
            self.scrap.add_many(times)
            self._lost_ns += times.tolist()

    def _mend(self, batch: _Batch) -> Generator[Event, Any, Flags]:
        """Rework what can be, piece by piece; which of them are good then."""
        count = int(batch.mends.sum())
        passes: Flags = np.empty(0, dtype=np.bool_)
        if not count:
            return passes
        left_ns = count * ns(self.spec.rework_s)
        while left_ns > 0:
            run_ns = yield from self._ready(left_ns)
            yield from self._pass(run_ns)
            left_ns -= run_ns
        passes = self._piece_dice.random(count) < self.spec.rework_pass_ratio
        spoilt = np.full(count - int(passes.sum()), self.env.now, dtype=np.int64)
        if len(spoilt):
            self.floor.flow.lose_many(spoilt, self.floor.flow.production_loss, batch.order)
        return passes

    def _be_serviced(self) -> Process:
        yield from self.pace(S.STOPPING, 5.0)
        self.mode.set(self.env.now, Mode.MAINTENANCE)
        self.enter(S.STOPPED)
        yield from self.be_maintained("maintain", self.spec.maintain_s)
        self.mode.set(self.env.now, Mode.PRODUCTION)
        self._until_service_ns = ns(self.spec.maintain_every_h * 3_600)
        yield from self.rest()
        yield from self._start_up()

    def _break_down(self) -> Process:
        repair_s = self.dice.exponential(self.spec.mttr_s)
        if self.dice.random() < self.spec.abort_ratio:
            yield from self.pace(S.ABORTING, 2.0)
            self.enter(S.ABORTED)
            yield from self.be_maintained("repair", repair_s)
            yield from self.pace(S.CLEARING, 5.0)
            self.enter(S.STOPPED)
            yield from self.rest()
            yield from self._start_up()
        else:
            yield from self.pace(S.HOLDING, 2.0)
            self.enter(S.HELD)
            yield from self.be_maintained("repair", repair_s)
            yield from self.pace(S.UNHOLDING, 2.0)
            self.enter(S.EXECUTE)
        self._until_failure_ns = ns(self.dice.exponential(self.spec.mtbf_s))

    # Reports

    def first_reports(self, t_ns: int) -> list[Report]:
        """State and counters at the start."""
        counters = ("produced", "scrap", "rework", "inspected", "first_pass")
        return [
            self.state_report(t_ns),
            Columns(self.asset, "process", t_ns, (t_ns,), {
                "state": (self.state.get(t_ns),), **dict.fromkeys(counters, (0,)),
                "energy_kwh": (0.0,), "power_kw": (self.spec.standby_kw,),
            }),
        ]  # fmt: skip

    def reports(self, stretch: Stretch) -> list[Report]:
        """States and cycles at once, signals by the pane. Without samples: the energy."""
        signals = self._signals(stretch) if len(stretch.times) else {}
        process = self.process_reports(stretch, signals)
        return [
            *self.state_reports(stretch), *process, *self.counter_reports(stretch),
            *self._cycle_reports(stretch),
        ]  # fmt: skip

    def _signals(self, stretch: Stretch) -> dict[str, Sequence[float | int | None]]:
        spec, times = self.spec, stretch.times
        phase, energy = self.cycles.follow(times)
        runs = phase > 0
        draw = np.where(runs, spec.power_kw, spec.standby_kw)
        stray = 1.0 + np.where(runs, 0.1, 0.01) * self.noise.standard_normal(len(times))
        return {
            "state": self.state.told(times),
            "produced": self.produced.told(times),
            "scrap": self.scrap.told(times),
            "energy_kwh": on_grid(energy, 100_000),
            "power_kw": rounded(np.maximum(draw * stray, 0.0), 2),
        }

    def _cycle_reports(self, stretch: Stretch) -> list[Report]:
        which = self.done.between(stretch.after_ns, stretch.to_ns)
        times = np.array(self.done.end_ns[which], dtype=np.int64)
        produced = self.produced.told(times)
        return event_reports(self.asset, "event", stretch, times.tolist(), {
            "produced": produced,
            "scrap": self.scrap.told(times),
            "rework": self.rework.told(times),
            "inspected": produced,
            "first_pass": self.first_pass.told(times),
            "cycle_s": on_grid(np.array(self.done.cycle_ms[which], dtype=np.int64), 1_000),
        })  # fmt: skip


MODEL = (WorkUnitSpec, WorkUnit)
