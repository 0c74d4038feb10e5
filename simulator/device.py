"""What every device kind is made of: settings, logs of what really happened, a PackML life.

Theory of operation
===================

A device lives twice. Its *process* is a SimPy generator in virtual time that moves material and
writes logs: step functions of time (``Steps``) and exact integrals of them (``Meter``). Its
*signals* are columns computed afterwards, a block at a time, from those logs and a random stream
of their own, so that how often a signal is sampled can never change what the plant does. A log may
hold entries of the near future (the phases of a shot that is known to end well).
"""

import importlib
import pkgutil
from array import array
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from heapq import heappop
from importlib.metadata import entry_points
from itertools import pairwise
from operator import lt
from types import MethodType
from typing import TYPE_CHECKING, Annotated, Any, Protocol, cast, runtime_checkable
from zlib import crc32

import numpy as np
import simpy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator
from simpy.core import BoundClass

from config.units import NS_PER_MS, NS_PER_S, Metres
from ingest.messages import Asset, Floats, Times
from ingest.packml import Maintenance, Mode, PackML
from ingest.topics import is_level

if TYPE_CHECKING:
    from simulator.plant.floor import Floor
    from simulator.plant.operators import Task
    from simulator.plant.routes import Order

Ints = NDArray[np.int64]
Process = Generator[simpy.Event, Any, None]

Celsius = Annotated[float, Field(json_schema_extra={"unit": "degC"})]
Kilonewtons = Annotated[float, Field(gt=0, json_schema_extra={"unit": "kN"})]
Amperes = Annotated[float, Field(json_schema_extra={"unit": "A"})]
Millimetres = Annotated[float, Field(gt=0, json_schema_extra={"unit": "mm"})]
Megapascals = Annotated[float, Field(gt=0, json_schema_extra={"unit": "MPa"})]
Acceleration = Annotated[float, Field(gt=0, json_schema_extra={"unit": "m/s2"})]
Length = Annotated[float, Field(gt=0, json_schema_extra={"unit": "m"})]
Count = Annotated[int, Field(ge=1)]


KWH_NJ = 36 * 10**9
"""The grid of every energy counter, 1e-5 kWh, in nanojoules (watts times nanoseconds)."""


def ns(seconds: float) -> int:
    """Seconds as whole nanoseconds."""
    return round(seconds * NS_PER_S)


class World(simpy.Environment):
    """Virtual time, in integer nanoseconds."""

    def __init__(self, t_ns: int) -> None:
        super().__init__(t_ns)
        # SimPy binds early only what a class declares itself, and late for every single call.
        for name, what in vars(simpy.Environment).items():
            if isinstance(what, BoundClass):
                bound = cast("BoundClass[Any]", what)  # type: ignore[redundant-cast]  # pyright's
                setattr(self, name, MethodType(bound.cls, self))

    @property
    def now(self) -> int:
        """Now."""
        return self._now  # type: ignore[return-value]  # SimPy allows for floats, we never give any

    def run_to(self, t_ns: int) -> None:
        """Let everything happen up to and including a time; what ``run`` does, in less time."""
        if t_ns < self.now:
            raise ValueError(f"time runs back: {t_ns} after {self.now}")
        queue = self._queue
        while queue and queue[0][0] <= t_ns:
            self._now, _, _, event = heappop(queue)
            callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]  # as SimPy
            for callback in cast("list[Callable[[simpy.Event], None]]", callbacks):
                callback(event)
            if not event.ok and not event.defused:
                raise cast("BaseException", event.value)
        self._now = t_ns + 1


class DeviceSpec(BaseModel):
    """Settings that every device has."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    name: str
    """Its name in topics and orders."""
    kind: Any
    """Which model, a literal in each; ``beilun devices`` lists them."""
    area: str
    """ISA-95 area."""
    line: str
    """ISA-95 line or work centre."""
    x_m: Metres | None = None
    """Where it stands on the plant's map, if at no node."""
    y_m: Metres | None = None
    """See `x_m`."""

    @field_validator("name", "area", "line")
    @classmethod
    def _is_level(cls, value: str) -> str:
        if not is_level(value):
            raise ValueError("needs letters, digits, dot, dash or underscore only")
        return value

    def settings_problems(self) -> list[str]:
        """What is wrong between settings that are each valid; empty if nothing."""
        return []


_FEW = 64
"""Of fewer numbers than that a list takes less time than a column."""


def plainly(numbers: Ints | Sequence[int]) -> Sequence[int]:
    """Numbers as plain ones, whatever holds them."""
    return numbers.tolist() if isinstance(numbers, np.ndarray) else numbers


class Steps:
    """A step function of time, right-continuous: from ``t[i]`` on its value is ``v[i]``.

    Entries are kept as plain 64-bit integers, 16 bytes each.
    """

    __slots__ = ("t", "v")

    def __init__(self, t_ns: int, value: int) -> None:
        self.t = array("q", (t_ns,))
        self.v = array("q", (value,))

    @property
    def last(self) -> int:
        """The value of the last entry."""
        return self.v[-1]

    def set(self, t_ns: int, value: int) -> None:
        """From ``t_ns`` on; time never runs back, and setting the same value changes nothing."""
        if t_ns < self.t[-1]:
            raise ValueError(f"time runs back: {t_ns} after {self.t[-1]}")
        if value == self.v[-1]:
            return
        if t_ns == self.t[-1]:
            self.v[-1] = value
        else:
            self.t.append(t_ns)
            self.v.append(value)

    def add(self, t_ns: int, count: int = 1) -> None:
        """Step up by ``count``: a counter."""
        self.set(t_ns, self.v[-1] + count)

    def extend(self, times: Times | Sequence[int], values: Ints | Sequence[int]) -> None:
        """``set`` many entries at once, in order of time: the same function of time."""
        t, v = np.asarray(times, dtype=np.int64), np.asarray(values, dtype=np.int64)
        if len(t) != len(v):
            raise ValueError(f"{len(t)} times for {len(v)} values")
        if not len(t):
            return
        if t[0] < self.t[-1] or bool((t[1:] < t[:-1]).any()):
            raise ValueError(f"time runs back: after {self.t[-1]}")
        onward = t[1:] != t[:-1]
        if not onward.all():  # of several at one time the last counts
            ends = np.append(onward, True)
            t, v = t[ends], v[ends]
        if t[0] == self.t[-1]:
            self.v[-1] = int(v[0])
        changes = np.empty(len(v), dtype=np.bool_)
        changes[0] = v[0] != self.v[-1]
        np.not_equal(v[1:], v[:-1], out=changes[1:])
        self.t.frombytes(t[changes].tobytes())
        self.v.frombytes(v[changes].tobytes())

    def add_many(self, times: Times | Sequence[int]) -> None:
        """Step up by one at each of many times, in order of time: a counter."""
        n = len(times)
        if not n:
            return
        known = self.v[-1] + 1
        if n <= _FEW:
            plain = plainly(times)
            if plain[0] > self.t[-1] and all(map(lt, plain, plain[1:])):  # as it mostly is
                self.t.extend(plain)
                self.v.extend(range(known, known + n))
                return
        t, values = np.asarray(times, dtype=np.int64), np.arange(known, known + n, dtype=np.int64)
        if t[0] > self.t[-1] and bool((t[1:] > t[:-1]).all()):
            self.t.frombytes(t.tobytes())
            self.v.frombytes(values.tobytes())
        else:
            self.extend(t, values)

    def get(self, t_ns: int) -> int:
        """The value at one time."""
        return self.v[max(bisect_right(self.t, t_ns) - 1, 0)]

    def next_ns(self, after_ns: int) -> int | None:
        """When the first entry after a time is, if there is one."""
        at = bisect_right(self.t, after_ns)
        return self.t[at] if at < len(self.t) else None

    def at(self, times: Times) -> Ints:
        """Values at ascending times; an entry at exactly such a time counts."""
        if not len(times):
            return np.empty(0, dtype=np.int64)
        low = max(bisect_right(self.t, int(times[0])) - 1, 0)
        high = bisect_right(self.t, int(times[-1]))
        if high - low <= 1:
            return np.full(len(times), self.v[low], dtype=np.int64)
        steps = np.array(self.t[low:high], dtype=np.int64)
        index = np.maximum(steps.searchsorted(times, side="right") - 1, 0)
        return np.array(self.v[low:high], dtype=np.int64)[index]

    def times(self, after_ns: int, to_ns: int) -> Times:
        """When it changed in ``(after_ns, to_ns]``."""
        return np.array(self.changes(after_ns, to_ns), dtype=np.int64)

    def changes(self, after_ns: int, to_ns: int) -> Sequence[int]:
        """``times`` as plain numbers."""
        t = self.t
        if t[-1] <= after_ns:
            return ()
        return t[bisect_right(t, after_ns) : bisect_right(t, to_ns)]

    def told(self, times: Times) -> list[int]:
        """``at`` as plain numbers."""
        low = bisect_right(self.t, int(times[0])) if len(times) else 0
        if low and bisect_right(self.t, int(times[-1]), low) == low:
            return [self.v[low - 1]] * len(times)
        plain: list[int] = self.at(times).tolist()
        return plain

    def between(self, after_ns: int, to_ns: int) -> list[tuple[int, int]]:
        """Entries in ``(after_ns, to_ns]``."""
        low, high = bisect_right(self.t, after_ns), bisect_right(self.t, to_ns)
        return list(zip(self.t[low:high], self.v[low:high], strict=True))


def moments(
    logs: Iterable[Steps], after_ns: int, to_ns: int, more: Iterable[int] = ()
) -> list[int]:
    """When any of some logs changed in ``(after_ns, to_ns]``, and ``more`` times of it, each time
    once and in order."""
    at = set(more)
    for steps in logs:
        at.update(steps.changes(after_ns, to_ns))
    return sorted(at)


_LARGE = 1 << 62
"""Kilowatts over weeks, as a product of watts and nanoseconds, would be too large for 64 bits."""


class Meter:
    """The integral of a piecewise constant rate, exact in integers, read on a fixed grid.

    Watts times nanoseconds are nanojoules; the reading is the whole number of ``grid`` in them.
    """

    __slots__ = ("_cells", "_rest", "grid", "rate")

    def __init__(self, t_ns: int, rate: int, grid: int) -> None:
        self.rate = Steps(t_ns, rate)
        self.grid = grid
        self._cells = array("q", (0,))
        self._rest = array("q", (0,))

    def set(self, t_ns: int, rate: int) -> None:
        """The rate from ``t_ns`` on."""
        before = self.rate
        if rate == before.last:
            return
        since_ns, old = before.t[-1], before.last
        before.set(t_ns, rate)
        if len(before.t) > len(self._cells):
            cells, rest = divmod(self._rest[-1] + old * (t_ns - since_ns), self.grid)
            self._cells.append(self._cells[-1] + cells)
            self._rest.append(rest)

    def extend(self, times: Times | Sequence[int], rates: Ints | Sequence[int]) -> None:
        """``set`` many rates at once, in order of time: the same integral."""
        log, known = self.rate, len(self.rate.t)
        log.extend(times, rates)
        if len(log.t) == known:
            return
        t = np.array(log.t[known - 1 :], dtype=np.int64)
        spans, rate = np.diff(t), np.array(log.v[known - 1 : -1], dtype=np.int64)
        cells, rest = self._flow(rate, spans)
        rest = np.cumsum(rest) + self._rest[-1]
        cells = np.cumsum(cells) + self._cells[-1] + rest // self.grid
        self._cells.frombytes(cells.tobytes())
        self._rest.frombytes((rest % self.grid).tobytes())

    def _flow(self, rate: Ints, spans: Ints) -> tuple[Ints, Ints]:
        """Rate times span as whole cells and what is left of them."""
        whole, part = np.divmod(spans, self.grid)
        cells, rest = np.divmod(rate * part, self.grid)
        return rate * whole + cells, rest

    def at(self, times: Times) -> Ints:
        """Readings at ascending times."""
        if not len(times):
            return np.empty(0, dtype=np.int64)
        low = max(bisect_right(self.rate.t, int(times[0])) - 1, 0)
        high = max(bisect_right(self.rate.t, int(times[-1])), low + 1)
        since, rate, cells, rest = (
            np.array(column[low:high], dtype=np.int64)
            for column in (self.rate.t, self.rate.v, self._cells, self._rest)
        )
        at = np.maximum(since.searchsorted(times, side="right") - 1, 0)
        return self._read(times, int(since[0]), since[at], rate[at], cells[at], rest[at])

    def _read(
        self, times: Times, first_ns: int, since: Ints, rate: Ints, cells: Ints, rest: Ints
    ) -> Ints:
        """Readings at ascending times from those at earlier ones, ``first_ns`` being the first of
        these, since when each rate has held."""
        spans = times - since
        if (int(times[-1]) - first_ns) * max(int(rate.max()), -int(rate.min())) < _LARGE:
            return np.asarray(cells + (rest + rate * spans) // self.grid, dtype=np.int64)
        more, left = self._flow(rate, spans)
        return np.asarray(cells + more + (rest + left) // self.grid, dtype=np.int64)

    def get(self, t_ns: int) -> int:
        """The reading at one time."""
        return int(self.at(np.array([t_ns], dtype=np.int64))[0])


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of time ``(after_ns, to_ns]`` that a device reports on."""

    after_ns: int
    to_ns: int
    times: Times
    """When signals are sampled, ascending and evenly spaced; empty: they are not."""
    bundled: bool = False
    """What happened goes out as one message per stream, sent at the end, not one per event."""

    @classmethod
    def every(cls, after_ns: int, to_ns: int, interval_ns: int | None = NS_PER_S) -> "Stretch":
        """Sampled at each whole multiple of an interval; ``None``: events only, bundled."""
        if interval_ns is None:
            return cls(after_ns, to_ns, np.empty(0, dtype=np.int64), True)
        first_ns = (after_ns // interval_ns + 1) * interval_ns
        return cls(after_ns, to_ns, np.arange(first_ns, to_ns + 1, interval_ns, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Columns:
    """Samples of one stream, ready to be sent: times, and per channel as many values."""

    asset: Asset
    stream: str
    sent_ns: int
    t_ns: Sequence[int]
    ch: Mapping[str, Sequence[float | int | None]]


@dataclass(frozen=True, slots=True)
class VdaState:
    """What a VDA 5050 ``state`` message says, in our words."""

    asset: Asset
    sent_ns: int
    order: str
    last_node: str
    last_sequence: int
    nodes: tuple[tuple[str, int], ...]
    """Nodes still to be reached, with their sequence numbers."""
    base_sequence: int
    """Of the last node of the base: it and those before are released, the rest is horizon."""
    update: int
    """How often the order was updated."""
    new_base_request: bool
    """It will have to brake soon if the base does not grow."""
    driving: bool
    load: str
    charging: bool
    waiting_for_link: bool
    x_m: float
    y_m: float
    theta: float
    speed_mps: float
    since_node_m: float
    battery_ratio: float
    battery_v: float
    """At rest, by the charge."""


@dataclass(frozen=True, slots=True)
class VdaConnection:
    """An AGV comes online."""

    asset: Asset
    sent_ns: int


Report = Columns | VdaState | VdaConnection


class Device(Protocol):
    """One simulated device: a process in virtual time, and the reports it sends about it."""

    @property
    def channels(self) -> Mapping[str, str]:
        """Every channel it will ever send, or the MES about it, with its unit; those of its kind
        are there before it is made."""
        ...

    asset: Asset
    path: str

    def run(self) -> Process:
        """Its life; started once, at the start of the run."""
        ...

    def reports(self, stretch: Stretch) -> list[Report]:
        """What it says about a stretch of time.

        Called once per stretch, in order and without gaps, when the process has passed its end.
        """
        ...

    def first_reports(self, t_ns: int) -> list[Report]:
        """What it says at the start of the run, when the process has begun."""
        ...

    def pieces(self) -> int:
        """Pieces it holds now."""
        ...


@runtime_checkable
class Limited(Protocol):
    """A device some of whose channels have specification limits."""

    @property
    def limits(self) -> Mapping[str, tuple[float, float]]:
        """By channel the lower and the upper limit."""
        ...


S = PackML
_ACTIVE = frozenset(set(S) - {S.ABORTING, S.ABORTED, S.CLEARING, S.STOPPING, S.STOPPED})
LEGAL: Mapping[int, frozenset[PackML]] = {
    state: frozenset(
        [*onward]
        + ([S.STOPPING] if state in _ACTIVE else [])
        + ([] if state in (S.ABORTING, S.ABORTED) else [S.ABORTING])
    )
    for state, onward in {
        S.STOPPED: {S.RESETTING},
        S.RESETTING: {S.IDLE},
        S.IDLE: {S.STARTING},
        S.STARTING: {S.EXECUTE},
        S.EXECUTE: {S.HOLDING, S.SUSPENDING, S.COMPLETING},
        S.HOLDING: {S.HELD},
        S.HELD: {S.UNHOLDING},
        S.UNHOLDING: {S.EXECUTE},
        S.SUSPENDING: {S.SUSPENDED},
        S.SUSPENDED: {S.UNSUSPENDING},
        S.UNSUSPENDING: {S.EXECUTE},
        S.COMPLETING: {S.COMPLETE},
        S.COMPLETE: {S.RESETTING},
        S.STOPPING: {S.STOPPED},
        S.ABORTING: {S.ABORTED},
        S.ABORTED: {S.CLEARING},
        S.CLEARING: {S.STOPPED},
    }.items()
}
"""Which state may follow which (domain facts, section 2.5)."""


class Bell:
    """Wakes whoever waits for something to change."""

    def __init__(self, env: "World") -> None:
        self._env = env
        self.event = env.event()

    def ring(self) -> None:
        """Wake all who wait now."""
        rung, self.event = self.event, self._env.event()
        rung.succeed()


class Unit:
    """A machine with a PackML state, an order registered on it, and an energy counter.

    It leaves EXECUTE when the calendar does, and every second of its life is in one state.
    """

    channels: Mapping[str, str] = {}

    def __init__(self, spec: DeviceSpec, floor: "Floor") -> None:
        self.floor = floor
        self.env = floor.env
        self.asset = Asset(floor.plant.site, spec.area, spec.line, spec.name)
        self.path = str(self.asset)
        identity = crc32(self.path.encode())
        self.dice = np.random.default_rng([floor.seed, identity, 1])
        """What happens: draws of the process."""
        self.noise = np.random.default_rng([floor.seed, identity])
        """What is measured: draws of the signals."""
        now = self.env.now
        self.state = Steps(now, S.STOPPED)
        self.mode = Steps(now, Mode.PRODUCTION)
        self.maintenance = Steps(now, Maintenance.NONE)
        self.energy = Meter(now, self.watts(S.STOPPED), KWH_NJ)
        self.order = Steps(now, 0)
        """Number of the order registered, 0 for none."""
        self.pri_ns = Steps(now, 0)
        """Planned time per item (cable: per metre) of that order."""
        self.psut_ns = Steps(now, 0)
        """Planned time to set up for that order."""

    def watts(self, state: PackML) -> int:
        """What it draws in a state."""
        raise NotImplementedError

    def enter(self, state: PackML) -> None:
        """Change state now; an illegal change is a bug."""
        now, before = self.env.now, self.state.last
        if state not in LEGAL[before]:
            raise RuntimeError(f"{self.path}: {PackML(before).name} -> {state.name}")
        self.state.set(now, state)
        self.energy.set(now, self.watts(state))

    def stand_by(self, reset_s: float, bell: Bell) -> Process:
        """Wait without an order, IDLE in planned time, until a bell rings; ends STOPPED or IDLE's
        successor: in a state from which it can reset."""
        self.register(None)
        rung = bell.event
        while not rung.triggered:
            yield from self.rest()
            yield from self.pace(PackML.RESETTING, reset_s)
            self.enter(PackML.IDLE)
            yield rung | self.env.timeout(self.planned_left_ns())
            if rung.triggered:
                yield from self.pace(PackML.STOPPING, 1.0)
                self.enter(PackML.STOPPED)

    def pace(self, state: PackML, seconds: float) -> Process:
        """Be in a state for some time."""
        self.enter(state)
        yield self.env.timeout(ns(seconds))

    def register(self, order: "Order | None", pri_s: float = 0.0, psut_s: float = 0.0) -> None:
        """An order comes on the unit, or leaves it."""
        now = self.env.now
        self.psut_ns.set(now, ns(psut_s))
        self.order.set(now, 0 if order is None else order.number)
        self.pri_ns.set(now, ns(pri_s))

    def rest(self) -> Process:
        """If this is no planned time, stop until it is; ends STOPPED (or as it was)."""
        if self.floor.calendar.planned(self.env.now):
            return
        if self.state.last != S.STOPPED:
            yield from self.pace(S.STOPPING, 5.0)
            self.enter(S.STOPPED)
        yield self.env.timeout(self.floor.calendar.resumes_ns(self.env.now) - self.env.now)

    def be_maintained(self, task: "Task", seconds: float) -> Process:
        """In the present state wait for a person, and for the work to be done."""
        yield from self.floor.operators.fetch(task)
        why = Maintenance.CORRECTIVE if task == "repair" else Maintenance.PREVENTIVE
        self.maintenance.set(self.env.now, why)
        yield self.env.timeout(ns(seconds))
        self.floor.operators.release(task)
        self.maintenance.set(self.env.now, Maintenance.NONE)

    def planned_left_ns(self) -> int:
        """Planned time until the next planned stop."""
        return max(self.floor.calendar.pauses_ns(self.env.now) - self.env.now, 0)

    def await_outside(
        self, ready: Callable[[], bool], bell: Bell, start_up: Callable[[], Process]
    ) -> Process:
        """SUSPENDED until ``ready``: what is missing comes from outside. Ends in EXECUTE."""
        while not ready():
            yield self.env.timeout(SCAN_NS)
            if ready():
                return
            yield from self.pace(S.SUSPENDING, 1.0)
            self.enter(S.SUSPENDED)
            while not ready() and (left_ns := self.planned_left_ns()):
                yield bell.event | self.env.timeout(left_ns)
            if ready():
                yield from self.pace(S.UNSUSPENDING, 1.0)
                self.enter(S.EXECUTE)
            else:
                yield from self.rest()
                yield from start_up()

    def state_report(self, t_ns: int) -> Columns:
        """State at a time, and mode and maintenance if it tells of them: always all of them, so
        that what a lost message said is said again."""
        ch = {
            name: (steps.get(t_ns),)
            for name, steps in (
                ("state", self.state), ("mode", self.mode), ("maintenance", self.maintenance)
            )
            if name in self.channels
        }  # fmt: skip
        return Columns(self.asset, "state", t_ns, (t_ns,), ch)

    def state_reports(self, stretch: Stretch) -> list[Report]:
        """Each change of state, mode or maintenance, with all of them as they are then."""
        logs = {"state": self.state, "mode": self.mode, "maintenance": self.maintenance}
        told = {name: steps for name, steps in logs.items() if name in self.channels}
        plain = moments(told.values(), stretch.after_ns, stretch.to_ns)
        if not plain:
            return []
        times = np.array(plain, dtype=np.int64)
        columns = {name: steps.told(times) for name, steps in told.items()}
        return event_reports(self.asset, "state", stretch, plain, columns)

    def process_reports(
        self, stretch: Stretch, ch: Mapping[str, Sequence[float | int | None]]
    ) -> list[Report]:
        """The signals sampled, cut into panes; each is sent when it is full."""
        times: list[int] = stretch.times.tolist()
        columns = list(ch.items())
        return [
            Columns(
                self.asset,
                "process",
                times[high - 1],
                times[low:high],
                {name: values[low:high] for name, values in columns},
            )
            for low, high in panes(stretch.times)
        ]

    def counter_reports(
        self,
        stretch: Stretch,
        told: Callable[[Times], Mapping[str, Sequence[float | int | None]]] | None = None,
        *logs: "Steps",
    ) -> list[Report]:
        """Where no signals are sampled, what nothing else tells of (by default the energy) as it is
        at each change of state, of order and of other ``logs``, every five minutes and at the end:
        a window of an order, an hour or a shift begins and ends with a reading."""
        if len(stretch.times):
            return []
        after_ns, to_ns = stretch.after_ns, stretch.to_ns
        plain = moments(
            (self.state, self.order, *logs), after_ns, to_ns,
            (*range((after_ns // COUNT_NS + 1) * COUNT_NS, to_ns, COUNT_NS), to_ns),
        )  # fmt: skip
        times = np.array(plain, dtype=np.int64)
        ch = (
            {"energy_kwh": on_grid(self.energy.at(times), 100_000)} if told is None else told(times)
        )
        return event_reports(self.asset, "process", stretch, plain, ch)

    def pieces(self) -> int:
        """Pieces it holds now."""
        return 0


COUNT_NS = 300 * NS_PER_S
"""How often counters are told at least."""
PANE_NS = 10 * NS_PER_S
SCAN_NS = 100 * NS_PER_MS
"""A controller's cycle: no state lasts shorter, so that no change is hidden by the next."""


def pane_of(interval_ns: int) -> int:
    """How long samples so far apart are gathered: 10 s, or 10 samples if that is longer."""
    return max(PANE_NS, 10 * interval_ns)


def spacing_of(times: Times) -> int:
    """How far apart samples are; a second where there are no two."""
    return int(times[1] - times[0]) if len(times) > 1 else NS_PER_S


def panes(times: Times) -> list[tuple[int, int]]:
    """Index ranges of the panes of samples; a sample on a pane's end belongs to it."""
    if not len(times):
        return []
    numbers = (times - 1) // pane_of(spacing_of(times))
    cuts = [0, *((numbers[1:] != numbers[:-1]).nonzero()[0] + 1).tolist(), len(times)]
    return list(pairwise(cuts))


BUNDLED = 1_000
"""Events that go into one message at most; it may have 256 KiB."""


def event_reports(
    asset: Asset,
    stream: str,
    stretch: Stretch,
    times_ns: Sequence[int],
    columns: Mapping[str, Sequence[float | int | None]],
) -> list[Report]:
    """What happened at ascending times of a stretch: a message each, sent at once, or when they are
    bundled one with all of them (as many as fit), sent at the stretch's end; none if nothing
    happened."""
    if not len(times_ns):
        return []
    if stretch.bundled:
        parts = [slice(low, low + BUNDLED) for low in range(0, len(times_ns), BUNDLED)]
        return [
            Columns(
                asset, stream, stretch.to_ns, times_ns[part],
                {name: values[part] for name, values in columns.items()},
            )
            for part in parts
        ]  # fmt: skip
    return [
        Columns(asset, stream, t_ns, (t_ns,), {name: (v[i],) for name, v in columns.items()})
        for i, t_ns in enumerate(times_ns)
    ]


def rounded(values: Floats, decimals: int) -> list[float]:
    """Plain numbers with as many decimals as the instrument has."""
    plain: list[float] = values.round(decimals).tolist()
    return plain


def rows_rounded(rows: Floats, decimals: int) -> list[list[float]]:
    """``rounded`` of some signals at once, a row each."""
    plain: list[list[float]] = rows.round(decimals).tolist()
    return plain


def on_grid(units: Ints, per_one: int) -> list[float]:
    """Counts of a fixed grid as plain numbers, the nearest double to each."""
    plain: list[float] = (units / per_one).tolist()
    return plain


@dataclass(frozen=True, slots=True)
class Kind:
    """A device kind: its settings and its model."""

    name: str
    spec: type[DeviceSpec]
    model: Callable[[Any, "Floor"], Device]
    channels: Mapping[str, str]
    summary: str

    def settings(self) -> list[tuple[str, str, str, str]]:
        """Name, default, unit and meaning of each setting."""
        rows: list[tuple[str, str, str, str]] = []
        for name, shape in self.spec.model_json_schema()["properties"].items():
            default = "required" if "default" not in shape else str(shape["default"])
            rows.append((name, default, shape.get("unit", ""), shape.get("description", "")))
        return rows


@cache
def kinds() -> Mapping[str, Kind]:
    """Every device kind there is: files of ``simulator.devices``, then entry points."""
    import simulator.devices

    found: dict[str, Kind] = {}
    modules = [
        importlib.import_module(f"simulator.devices.{info.name}")
        for info in pkgutil.iter_modules(simulator.devices.__path__)
    ]
    for module, (spec, model) in [(m, m.MODEL) for m in modules] + [
        (None, point.load()) for point in entry_points(group="beilun.devices")
    ]:
        name = spec.model_fields["kind"].default
        doc = (module.__doc__ if module is not None else model.__doc__) or ""
        found[name] = Kind(name, spec, model, model.channels, doc.strip().splitlines()[0])
    return found
