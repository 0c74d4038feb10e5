"""Output analysis of simulated runs: where the warm-up ends, and how sure a mean over seeds is.

The warm-up is found, not typed, by **MSER-5** (White 1997; White, Cobb and Spratt 2000): the series
is cut in batches of five steps, and of all places to cut in the first half, the one is taken that
makes the standard error of what is left the least,

    d* = argmin over d <= n/2 of  sum_(i > d) (z_i - mean_(i > d))^2 / (n - d)^2 .

A warm-up pulls the mean away and makes the sum large; cutting too much makes n - d small. The
series is the mean over all seeds at each step, so that one cut holds for all of them and chance
hides less of it.

MSER always finds a place. Whether what is left is steady is asked of the seeds: the mean of its
second half less that of its first, seed by seed, must not lie beyond its 99 % interval (Student t)
and beyond 2 % of the mean. The usual sign of a run that is too short, a d* at the end of where it
may lie, is used with one seed only: of series that remember ten days (WIP does), and that are as
steady as can be, it condemns 9 % at a hundred days.

Seeds are independent, so the mean over seeds has a Student t interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, fsum, pi, sin, sqrt, tan

BATCH = 5
"""Steps in a batch: the 5 of MSER-5."""
FEWEST = 10
"""Batches without which nothing is said."""
DRIFT = 0.02
"""A difference between halves that matters to nobody, as a share of the mean."""


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What the test came to."""

    steps: int
    """To be cut at the start; half of the run where no steady state was found."""
    found: bool


def warm_up(series: Sequence[Sequence[float | None]]) -> WarmUp:
    """Where one quantity, of which every seed has a series, becomes steady.

    A step of which any seed knows nothing is never steady. Raises ``ValueError`` where there are
    fewer than ten batches.
    """
    n = min(map(len, series)) // BATCH
    if n < FEWEST:
        there = min(map(len, series))
        raise ValueError(f"the test needs {FEWEST * BATCH} steps or more, there are {there}")
    half = n // 2
    batched = [_batches(one, n) for one in series]
    known = [one for one in batched if one is not None]
    if len(known) < len(batched):
        return WarmUp(half * BATCH, found=False)
    pooled = [fsum(step) / len(step) for step in zip(*known, strict=True)]
    errors = [_square_error(pooled[d:]) for d in range(half + 1)]
    nothing = (1e-12 * max(map(abs, pooled))) ** 2  # less than that is rounding
    best = next(d for d, error in enumerate(errors) if error <= min(errors) + nothing)
    steady = best < half if len(known) == 1 else not _drifts([one[best:] for one in known])
    return WarmUp((best if steady else half) * BATCH, found=steady)


def _batches(series: Sequence[float | None], n: int) -> list[float] | None:
    """Means of batches; ``None`` where a step is not known."""
    known = [value for value in series[: n * BATCH] if value is not None]
    if len(known) < n * BATCH:
        return None
    return [fsum(known[i : i + BATCH]) / BATCH for i in range(0, n * BATCH, BATCH)]


def _square_error(rest: Sequence[float]) -> float:
    """The square of the standard error, but for a factor that is the same for all."""
    mean = fsum(rest) / len(rest)
    return fsum((z - mean) ** 2 for z in rest) / len(rest) ** 2


def _drifts(rest: Sequence[Sequence[float]]) -> bool:
    """Whether the second half of a series lies elsewhere than its first, over several seeds."""
    middle = len(rest[0]) // 2
    moved = [_mean(one[middle:]) - _mean(one[:middle]) for one in rest]
    found = estimate(moved, 0.99)
    level = abs(_mean([_mean(one) for one in rest]))
    if found is None or found.half is None:
        return True
    return abs(found.mean) > found.half and abs(found.mean) > DRIFT * level


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds, and half the width of its interval; ``None``: one seed has none."""

    mean: float
    half: float | None

    @property
    def low(self) -> float:
        """Lower end; the mean itself where there is no interval."""
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + (self.half or 0.0)


def estimate(values: Sequence[float | None], share: float = 0.95) -> Estimate | None:
    """Mean and interval of one value a seed; ``None`` where any seed has none: what nobody could
    compute is not left out of a mean."""
    known = [value for value in values if value is not None]
    n = len(known)
    if not n or n < len(values):
        return None
    mean = _mean(known)
    if n == 1:
        return Estimate(mean, None)
    spread = sqrt(fsum((value - mean) ** 2 for value in known) / (n - 1))
    return Estimate(mean, student_t((1 + share) / 2, n - 1) * spread / sqrt(n))


def student_t(share: float, freedom: int) -> float:
    """The quantile of Student's t, for a share in [0.5, 1) and whole degrees of freedom.

    For those the distribution is a finite sum in the angle whose tangent is t / sqrt(freedom)
    (Abramowitz and Stegun 26.7.3, 26.7.4), which is inverted by bisection of that angle.
    """
    if freedom < 1 or not 0.5 <= share < 1:
        raise ValueError(f"no quantile {share} with {freedom} degrees of freedom")
    low, high = 0.0, pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if 0.5 + _central(middle, freedom) / 2 < share:
            low = middle
        else:
            high = middle
    return tan((low + high) / 2) * sqrt(freedom)


def _central(angle: float, freedom: int) -> float:
    """Share of the distribution within plus and minus sqrt(freedom) * tan(angle)."""
    odd = freedom % 2
    term = cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= cos(angle) ** 2 * (k - 1) / k
        total += term
    return 2 / pi * (angle + sin(angle) * total) if odd else sin(angle) * total
