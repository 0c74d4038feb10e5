"""First-order lags and AR(1) noise as columns, exact for any spacing of their steps.

Both are the recursion ``x[i] = exp(-s[i]) * x[i - 1] + b[i]``, where ``s`` is a step in time
constants. With ``S`` the running sum of ``s`` it has the closed form

    x[i] * exp(S[i]) = x[0] + sum of b[j] * exp(S[j]), j <= i

which is a cumulative sum. The exponentials would overflow, so it is taken piece by piece; within a
piece the latest terms are the largest, and nothing cancels.
"""

import numpy as np

from ingest.messages import Floats

_PIECE = 500.0
"""Time constants in one piece: exp(700) is the largest a double can hold."""
_LONGEST = 50.0
"""After so many time constants nothing of before is left in a double."""


def lagged(start: Floats, goals: Floats, steps: Floats) -> Floats:
    """The value after each step of first-order lags that begin at ``start`` and near
    ``goals[..., i]`` for ``steps[i]`` time constants."""
    s = np.minimum(steps, _LONGEST)
    return _recursion(start, s, -np.expm1(-s) * goals)


def noise(start: float, pushes: Floats, steps: Floats) -> Floats:
    """An AR(1) process of deviation 1 after each step, from its value at the start and from one
    standard normal draw a step."""
    s = np.minimum(steps, _LONGEST)
    return _recursion(np.array(start), s, np.sqrt(-np.expm1(-2.0 * s)) * pushes)


def _recursion(start: Floats, s: Floats, b: Floats) -> Floats:
    out = np.empty(b.shape)
    ages: Floats = s.cumsum()
    low = 0
    while low < len(s):
        before = float(ages[low] - s[low])
        high = int(ages.searchsorted(before + _PIECE, side="right"))
        grown = np.exp(ages[low:high] - before)
        summed = (b[..., low:high] * grown).cumsum(axis=-1)
        out[..., low:high] = (start[..., None] + summed) / grown
        start, low = out[..., high - 1], high
    return out
