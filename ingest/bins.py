"""Log-spaced delay bins of the wire contract: merge by integer addition, relative error 0.5 %.

Bin 0 holds everything up to 1 µs; bin ``i`` holds ``(1 µs * R**(i-1), 1 µs * R**i]`` with
``R = 10**(1/232)``, so that 1, 10 and 100 ms are edges and a share "within 10 ms" is exact. A delay
is read back as the value whose relative error is the same at both ends of its bin, ``2ab/(a+b)``:
at most ``(R-1)/(R+1)`` = 0.496 %.

By stamps of clocks that differ, a message may arrive before it was sent. That is no delay, and has
bins of its own: what would be in bin ``i`` but for its sign is in bin ``-1-i``.
"""

import numpy as np
from numpy.typing import NDArray

LOW_NS = 1_000
PER_DECADE = 232
LAST = 16 * PER_DECADE
"""The last bin that any stamps can give: 64 bits of nanoseconds end below it."""


def bin_of(delay_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bin numbers of delays in ns; a negative one has a negative number."""
    steps = np.ceil(PER_DECADE * np.log10(np.maximum(np.abs(delay_ns), 1) / LOW_NS))
    bins: NDArray[np.int64] = np.maximum(steps, 0).astype(np.int64)
    return np.where(delay_ns < 0, -1 - bins, bins)


def delay_of(number: int) -> float:
    """The delay in ns that stands for a bin."""
    if number < 0:
        return -delay_of(-1 - number)
    if number == 0:
        return float(LOW_NS)
    low: float = LOW_NS * 10.0 ** ((number - 1) / PER_DECADE)
    high: float = LOW_NS * 10.0 ** (number / PER_DECADE)
    return 2.0 * low * high / (low + high)
