"""Slow fading that is a function of time, so that it can be looked up anywhere, in any order.

Theory of operation
===================

Every device has a row of lattice points, one per decorrelation time, each with a standard normal
value that is a hash of (device, number of the point). Between two points the fade is their linear
blend, divided by its own standard deviation, so its variance is the same everywhere:

    x(t) = ((1-f) z[k] + f z[k+1]) / sqrt((1-f)^2 + f^2)        k, f = divmod(t, T) in units of T

The correlation of x over a lag falls to zero at 2 T. No state is kept, so an hour of silence costs
nothing; where a device has a map, the distance it travelled takes the place of the time.

Link adaptation absorbs a fade up to the margin. Beyond it the robust end of the coding is reached,
and the share of failures grows to one over ``knee_db``: ``depth`` is how far down that slope it is.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from config.units import NS_PER_S
from simulator.link.columns import Ints
from simulator.link.profile import Shadowing

_MASK = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15
_MEAN = 8 * 65_535 // 2
_SD = math.sqrt(8 * (65_536**2 - 1) / 12)


def _mix(z: Any) -> Any:
    """SplitMix64's finaliser, of an int or of a column of uint64."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


def _sum16(z: Any) -> Any:
    return (z & 0xFFFF) + (z >> 16 & 0xFFFF) + (z >> 32 & 0xFFFF) + (z >> 48)


def _bell(point: Any, key: int) -> Any:
    """Sum of eight hashed 16-bit numbers: normal enough down to four standard deviations."""
    z = point * (2 * _STEP & _MASK) + key & _MASK
    return _sum16(_mix(z)) + _sum16(_mix(z + _STEP & _MASK))


class Fade:
    """The fading of one device."""

    def __init__(self, spec: Shadowing, seed: int, device: int) -> None:
        self._sd, self._margin, self._knee = spec.sd_db, spec.margin_db, spec.knee_db
        self._step_ns = round(spec.decorrelation_s * NS_PER_S)
        self._key = _mix(_mix(seed & _MASK) + device & _MASK)
        self._near = (-1, 0.0, 0.0)

    def depth(self, t_ns: int) -> float:
        """How far down the slope, 0 (adaptation copes) to 1 (nothing is heard)."""
        point, rest = divmod(t_ns, self._step_ns)
        if self._near[0] != point:
            a = (_bell(point, self._key) - _MEAN) / _SD
            b = (_bell(point + 1, self._key) - _MEAN) / _SD
            self._near = (point, a, b)
        _, a, b = self._near
        f = rest / self._step_ns
        g = 1.0 - f
        fade = (a * g + b * f) / math.sqrt(f * f + g * g)
        return min(max((fade * -self._sd - self._margin) / self._knee, 0.0), 1.0)

    def depths(self, t_ns: Ints) -> NDArray[np.float64]:
        """``depth`` of a column."""
        point, rest = np.divmod(t_ns, self._step_ns)
        word = point.astype(np.uint64)
        a = (_bell(word, self._key).astype(np.int64) - _MEAN) / _SD
        b = (_bell(word + np.uint64(1), self._key).astype(np.int64) - _MEAN) / _SD
        f = rest / self._step_ns
        g = 1.0 - f
        fade = (a * g + b * f) / np.sqrt(f * f + g * g)
        depth: NDArray[np.float64] = (fade * -self._sd - self._margin) / self._knee
        return np.clip(depth, 0.0, 1.0)
