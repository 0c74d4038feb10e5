"""The way of a cable through its line: length, the exact integral of its speed, and the scrap."""

from array import array
from bisect import bisect_right
from math import inf, sqrt

import numpy as np

from config.units import NS_PER_S
from ingest.messages import Floats, Times
from simulator.device import ns

_NEVER_S = 3.2e9


class Path:
    """Length as the exact integral of a piecewise linear speed, and how much of it is scrap."""

    def __init__(self, t_ns: int) -> None:
        self._t = array("q", (t_ns,))
        self._length, self._speed, self._slope = (array("d", (0.0,)) for _ in range(3))
        self._starts, self._ends = array("d", (-1.0,)), array("d", (-1.0,))
        self._before = array("d", (0.0,))
        """Stretches that are scrap, and how much is before each; the first is none."""

    def set(self, t_ns: int, speed: float, slope: float) -> None:
        """From ``t_ns`` on the speed is ``speed`` and changes by ``slope`` per second."""
        length = self.length_m(t_ns)
        self._t.append(t_ns)
        self._length.append(length)
        self._speed.append(speed)
        self._slope.append(slope)

    def length_m(self, t_ns: int) -> float:
        """Metres at a time at or after the last change."""
        dt = (t_ns - self._t[-1]) / NS_PER_S
        return self._length[-1] + self._speed[-1] * dt + 0.5 * self._slope[-1] * dt * dt

    def speed_mps(self, t_ns: int) -> float:
        """Speed at a time at or after the last change."""
        return self._speed[-1] + self._slope[-1] * (t_ns - self._t[-1]) / NS_PER_S

    @property
    def slope_mps2(self) -> float:
        """How the speed changes since the last change."""
        return self._slope[-1]

    def spoil(self, from_m: float, to_m: float) -> None:
        """A stretch is scrap; none begins before the one before."""
        from_m = max(from_m, self._ends[-1])
        if to_m <= from_m:
            return
        if from_m == self._ends[-1]:
            self._ends[-1] = to_m
            return
        self._before.append(self.scrap_m)
        self._starts.append(from_m)
        self._ends.append(to_m)

    @property
    def scrap_m(self) -> float:
        """All the scrap there is, on the cable to come as well."""
        return self._before[-1] + self._ends[-1] - self._starts[-1]

    @property
    def spoilt_to_m(self) -> float:
        """Where the last scrap ends."""
        return self._ends[-1]

    def good_m(self, t_ns: int) -> float:
        """Good metres at a time at or after the last change."""
        length = self.length_m(t_ns)
        at = bisect_right(self._starts, length) - 1
        since = min(length, self._ends[at]) - self._starts[at]
        return length - (self._before[at] + since)

    def length_at_good_m(self, good_m: float) -> float:
        """The length at which so much is good, if no more of it is spoilt."""
        return good_m + self.scrap_m

    def motion(self, times: Times) -> tuple[Floats, Floats, Floats]:
        """Length, speed and its change per second at ascending times."""
        low = max(bisect_right(self._t, int(times[0])) - 1, 0)
        high = max(bisect_right(self._t, int(times[-1])), low + 1)
        since = np.array(self._t[low:high], dtype=np.int64)
        index = np.maximum(since.searchsorted(times, side="right") - 1, 0)
        dt = (times - since[index]) / NS_PER_S
        length, speed, slope = (
            np.array(column[low:high])[index] for column in (self._length, self._speed, self._slope)
        )
        return length + dt * (speed + 0.5 * slope * dt), speed + slope * dt, slope

    def scrap(self, length: Floats) -> Floats:
        """How much of ascending lengths is scrap."""
        low = max(bisect_right(self._starts, float(length[0])) - 1, 0)
        high = max(bisect_right(self._starts, float(length[-1])), low + 1)
        starts, ends, before = (
            np.array(column[low:high]) for column in (self._starts, self._ends, self._before)
        )
        index = np.maximum(starts.searchsorted(length, side="right") - 1, 0)
        since = np.minimum(length, ends[index]) - starts[index]
        return np.asarray(before[index] + since, dtype=np.float64)


def seconds_to(distance: float, speed: float, slope: float) -> float:
    """How long a motion takes for a distance; infinite if it stands before."""
    if distance <= 0.0:
        return 0.0
    square = speed * speed + 2.0 * slope * distance
    if square < 0.0:
        return inf
    both = speed + sqrt(square)
    return 2.0 * distance / both if both > 0.0 else inf


def whole_ns(seconds: float) -> int:
    """Seconds as whole nanoseconds; never below zero, and what never comes is a century away."""
    return ns(min(max(seconds, 0.0), _NEVER_S))
