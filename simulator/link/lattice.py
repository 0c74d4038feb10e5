"""Noise that is a function of where one looks, so that it can be looked up in any order.

Theory of operation
===================

A row of lattice points, each with a standard normal value that is a hash of (key, number of the
point). Between two points the noise is their linear blend, divided by its own standard deviation,
so its variance is the same everywhere:

    x = ((1-f) z[k] + f z[k+1]) / sqrt((1-f)^2 + f^2)        k, f = whole and part of the place

The correlation falls to zero at a lag of two points. No state is kept, so an hour of silence costs
nothing. Only operations that IEEE 754 rounds exactly: a column and a single value cannot differ.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.link.columns import Ints

_MASK = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15
_MEAN = 8 * 65_535 // 2
_SD = math.sqrt(8 * (65_536**2 - 1) / 12)


def mix(z: Any) -> Any:
    """SplitMix64's finaliser, of an int or of a column of uint64."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


def key(*parts: int) -> int:
    """A key of its own for each combination."""
    z = 0
    for part in parts:
        z = int(mix(z + part & _MASK))
    return z


def uniform(*parts: int) -> float:
    """A number in [0, 1) that belongs to this combination."""
    return key(*parts, _STEP) / 2**64


def _sum16(z: Any) -> Any:
    return (z & 0xFFFF) + (z >> 16 & 0xFFFF) + (z >> 32 & 0xFFFF) + (z >> 48)


def _bell(point: Any, key: Any) -> Any:
    """Sum of eight hashed 16-bit numbers: normal enough down to four standard deviations."""
    z = point * (2 * _STEP & _MASK) + key & _MASK
    return _sum16(mix(z)) + _sum16(mix(z + _STEP & _MASK))


def normal(point: int, key: int) -> float:
    """The value at a lattice point."""
    return float((_bell(point, key) - _MEAN) / _SD)


def normals(point: Ints, key: Any) -> NDArray[np.float64]:
    """``normal`` of a column; ``key`` is one, or one per column of a matrix."""
    z: NDArray[np.float64] = (_bell(point.astype(np.uint64), key).astype(np.int64) - _MEAN) / _SD
    return z


class Noise:
    """One row of points, ``step`` apart."""

    def __init__(self, key: int, step: int) -> None:
        self._key, self._step = key, step
        self._near = (-1, 0.0, 0.0)

    def at(self, place: int) -> float:
        """The noise at a place."""
        point, rest = divmod(place, self._step)
        if self._near[0] != point:
            self._near = (point, normal(point, self._key), normal(point + 1, self._key))
        _, a, b = self._near
        f = rest / self._step
        g = 1.0 - f
        return (a * g + b * f) / math.sqrt(f * f + g * g)

    def column(self, places: Ints) -> NDArray[np.float64]:
        """``at`` of a column."""
        point, rest = np.divmod(places, self._step)
        f = rest / self._step
        g = 1.0 - f
        a, b = normals(point, self._key), normals(point + 1, self._key)
        x: NDArray[np.float64] = (a * g + b * f) / np.sqrt(f * f + g * g)
        return x
