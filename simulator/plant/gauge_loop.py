"""The gauge loop of a cable line: what the cable is like, metre by metre, and who corrects it.

Theory of operation
===================

            head                              gauge
             |<────────── gauge_m ─────────────>|
    ═════════╪══════╪══════╪══════╪══════╪══════╪═══════►   the cable, in steps
             ▲                                  |
             | trim, at once                    | reading, a step late at most
             └──── control, over the link ◄─────┘

Along the cable nothing of this depends on the speed: dead time is distance, and a step is a step.
What goes wrong (material, melt temperature, a screw that lags behind the line) is drawn once per
step. The gauge sees a step when its end passes; the set point that answers it takes effect where
the head is when it has come back. Control knows what it had set when that step was made (a Smith
predictor: the process is a gain and a dead time), so what is left of the reading is what went
wrong, and a share ``gain`` of what is not corrected yet is corrected: no dead time makes it swing.

Nobody looks at single steps: a line makes as much cable at once as it knows its motion for.
"""

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import exp, inf, sqrt
from typing import NamedTuple

import numpy as np

from ingest.messages import Floats
from simulator.device import Ints

_MOST_LAG = 0.5
"""Share of its flow by which a screw can be behind or ahead over a step, at most."""


class Fault(NamedTuple):
    """What goes wrong in one step of cable, before anybody corrects it."""

    diameter_mm: float
    centring_ratio: float
    melt_k: float
    """How much hotter the melt is than it should be."""


@dataclass(frozen=True, slots=True)
class Band:
    """Which deviations are good, and which raise an alarm: open intervals."""

    low: float
    high: float
    alarm_low: float
    alarm_high: float

    def is_off(self, value: float) -> bool:
        """Beyond the limits."""
        return not self.low < value < self.high

    def alarms(self, value: float) -> bool:
        """Beyond what the gauge keeps quiet about."""
        return not self.alarm_low < value < self.alarm_high


def drift(rng: np.random.Generator, sd: float, length_m: float, step_m: float) -> Iterator[float]:
    """An AR(1) process along the cable, step by step, stationary from the start: a deviation falls
    to 37 % over a length."""
    keeps = exp(-step_m / length_m)
    fresh = sd * sqrt(1.0 - keeps * keeps)
    value = sd * float(rng.standard_normal())
    while True:
        for push in rng.standard_normal(512).tolist():
            yield value
            value = keeps * value + fresh * push


class Seen(NamedTuple):
    """A step of cable on its way to the gauge: what went wrong, and how its end came out."""

    from_m: float
    steady: bool
    """The speed was, where it began: control does not answer what a ramp does."""
    fault: Fault
    diameter_mm: float
    centring_ratio: float


class Profile(NamedTuple):
    """The cable at some lengths: deviations, heat of the melt, and what is put on per metre."""

    diameter_mm: Floats
    centring_ratio: Floats
    melt_k: Floats
    kg_per_m: Floats


class GaugeLoop:
    """The cable of one line as it leaves the head. Lengths are of the whole line's life.

    ``gain`` 0 means that nobody is at the other end: ``correct`` is the operator's hand.
    """

    def __init__(
        self,
        faults: Iterator[Fault],
        *,
        step_m: float,
        gauge_m: float,
        gain: float,
        diameter: Band,
        centring: Band,
        lag_s: float,
        mm_per_flow: float,
        kg_per_m: Callable[[Floats], Floats],
        spoil: Callable[[float, float], None],
    ) -> None:
        self._faults = faults
        self._step_m, self._gauge_m, self._gain = step_m, gauge_m, gain
        self._diameter, self._centring = diameter, centring
        self._lag_s = lag_s
        """By how much the screws come behind the line."""
        self._mm_per_flow = mm_per_flow
        """Diameter lost per share of the flow that is missing."""
        self._kg_per_m = kg_per_m
        self._spoil = spoil
        self.made_m = 0.0
        """Cable made so far."""
        self._steps = 0
        """Steps begun."""
        self._read = 0
        """Steps that have passed the gauge."""
        self._passing: deque[Seen] = deque()
        self._last: Seen | None = None
        self._due: deque[tuple[float, Fault]] = deque()
        """Set points under way: where the head will be, and the fault they answer."""
        self._fault = Fault(0.0, 0.0, 0.0)
        self._steady = True
        self._trim_mm = self._trim_ratio = 0.0
        self._is_off = False
        """Whether what the head makes now is spoilt."""
        self._x, self._kg, self._d, self._c, self._k = (array("d") for _ in range(5))
        """The cable piece by piece: where each begins, kilograms before it, both deviations, and
        the melt's. The second comes behind: see ``_weigh``."""
        self._gone = 0
        """Pieces of which only the first two are remembered."""

    def advance(
        self,
        to_m: float,
        speed: float,
        slope: float,
        delay_s: float | None,
        alarms_from_m: float = inf,
    ) -> float | None:
        """Make cable up to a length with a motion that begins at ``made_m``; ``delay_s`` is what a
        reading and its answer take together, ``None`` if they do not come through. It ends where
        the gauge raises an alarm over a step that began at ``alarms_from_m`` or later: that length,
        ``None`` if there is none before."""
        from_m, step_m, due = self.made_m, self._step_m, self._due
        while True:
            next_m = self._steps * step_m
            read_m = (self._read + 1) * step_m + self._gauge_m
            due_m = due[0][0] if due else inf
            at_m = min(next_m, read_m, due_m)
            if at_m >= to_m:
                break
            at_m = max(at_m, self.made_m)
            now = sqrt(max(speed * speed + 2.0 * slope * (at_m - from_m), 0.0)) if slope else speed
            if due_m <= at_m:
                _, fault = due.popleft()
                if delay_s is not None:
                    self._trim_mm -= self._gain * (fault.diameter_mm + self._trim_mm)
                    self._trim_ratio -= self._gain * (fault.centring_ratio + self._trim_ratio)
                    self._piece(at_m)
            elif next_m <= at_m:
                self._begin(at_m, now, slope)
            else:
                self._read += 1
                seen = self._last = self._passing.popleft()
                if delay_s is not None and self._gain and seen.steady:
                    due_m = max(at_m + now * delay_s, due[-1][0] if due else 0.0)
                    due.append((due_m, seen.fault))
                if seen.from_m >= alarms_from_m and self._alarms(seen):
                    self._make(at_m)
                    return at_m
        self._make(to_m)
        return None

    def correct(self) -> None:
        """By hand: take back all of what the gauge reads now."""
        if self._last is not None:
            self._trim_mm = -self._last.fault.diameter_mm
            self._trim_ratio = -self._last.fault.centring_ratio
            self._piece(self.made_m)

    def at(self, length_m: Floats) -> Profile:
        """The cable that ends at each of ascending lengths that were made and not forgotten: what
        comes after a length may not be known yet. Before the first metre it is perfect."""
        if not self._x:
            perfect = np.zeros(len(length_m))
            return Profile(perfect, perfect, perfect, self._kg_per_m(perfect))
        low, index, leader = self._find(length_m)
        low -= self._gone
        part = slice(low, low + int(index[-1]) + 1)
        d, c, k = (np.array(column[part])[index] for column in (self._d, self._c, self._k))
        if leader:
            d[:leader] = c[:leader] = k[:leader] = 0.0
        return Profile(d, c, k, self._kg_per_m(d))

    def kg(self, length_m: Floats) -> Floats:
        """What was put on up to ascending lengths that were made; nothing is forgotten of that."""
        if not self._x:
            return np.zeros(len(length_m))
        self._weigh()
        low, index, leader = self._find(length_m)
        part = slice(low, low + int(index[-1]) + 2)
        x, kg = np.array(self._x[part]), np.array(self._kg[part])
        spans = x[1:] - x[:-1]  # one of no length is where two things change at once
        rate = np.zeros(len(x))
        np.divide(kg[1:] - kg[:-1], spans, where=spans > 0.0, out=rate[:-1])
        if low + index[-1] + 1 == len(self._x):
            rate[index[-1]] = self._kg_per_m(np.array(self._d[-1:]))[0]
        on = kg[index] + rate[index] * (length_m - x[index])
        on[:leader] = 0.0
        return np.asarray(on, dtype=np.float64)

    def forget(self, before_m: float) -> None:
        """Nobody will ask how the cable was at lengths below this any more."""
        self._weigh()
        gone = max(bisect_left(self._x, before_m) - 1, self._gone)
        for column in (self._d, self._c, self._k):
            del column[: gone - self._gone]
        self._gone = gone

    def _find(self, length_m: Floats) -> tuple[int, Ints, int]:
        """The first piece that ends at or after some lengths, the piece of each from there on, and
        how many lie before all."""
        low = max(bisect_left(self._x, float(length_m[0])) - 1, 0)
        high = max(bisect_left(self._x, float(length_m[-1])), low + 1)
        index = np.array(self._x[low:high]).searchsorted(length_m) - 1
        leader = 0 if index[0] >= 0 else int(index.searchsorted(0))
        return low, np.maximum(index, 0), leader

    def _weigh(self) -> None:
        """Add up what the pieces weigh, those to which nothing can be added any more."""
        if not self._kg and self._x:
            self._kg.append(0.0)
        known = len(self._kg)
        if known == len(self._x):
            return
        x = np.array(self._x[known - 1 :])
        rate = self._kg_per_m(np.array(self._d[known - 1 - self._gone : -1]))
        grown = np.cumsum(np.concatenate((self._kg[-1:], rate * np.diff(x))))
        self._kg.frombytes(grown[1:].tobytes())

    def _alarms(self, seen: Seen) -> bool:
        diameter, centring = seen.diameter_mm, seen.centring_ratio
        return self._diameter.alarms(diameter) or self._centring.alarms(centring)

    def _begin(self, at_m: float, speed: float, slope: float) -> None:
        """A new step, with the motion there is where it begins."""
        if self._steps:
            from_m = (self._steps - 1) * self._step_m
            seen = Seen(from_m, self._steady, self._fault, self._d[-1], self._c[-1])
            self._passing.append(seen)
        self._fault = next(self._faults)
        self._steady = not slope
        if slope and self._lag_s:
            half_way = sqrt(max(speed * speed + slope * self._step_m, speed * speed / 4.0))
            behind = self._lag_s * slope / half_way if half_way else _MOST_LAG
            behind = min(max(behind, -_MOST_LAG), _MOST_LAG)
            off_mm = self._fault.diameter_mm - self._mm_per_flow * behind
            self._fault = self._fault._replace(diameter_mm=off_mm)
        self._steps += 1
        self._piece(at_m)

    def _piece(self, at_m: float) -> None:
        """From here on the cable is another."""
        self._make(at_m)
        fault_mm, fault_ratio, melt_k = self._fault
        diameter_mm, centring_ratio = fault_mm + self._trim_mm, fault_ratio + self._trim_ratio
        self._x.append(at_m)
        self._d.append(diameter_mm)
        self._c.append(centring_ratio)
        self._k.append(melt_k)
        self._is_off = self._diameter.is_off(diameter_mm) or self._centring.is_off(centring_ratio)

    def _make(self, to_m: float) -> None:
        if to_m > self.made_m:
            if self._is_off:
                self._spoil(self.made_m, to_m)
            self.made_m = to_m
