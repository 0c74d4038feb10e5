"""Slow fading of a device whose position is not known: noise over time.

Up to the margin link adaptation absorbs a fade by slower coding. Beyond it the robust end of the
coding is reached, and the share of failures grows to one over ``KNEE_DB``.
"""

import numpy as np

from config.units import NS_PER_S
from simulator.link.columns import KNEE_DB, Floats, Ints
from simulator.link.lattice import Noise, key
from simulator.link.profile import Shadowing


class Fade:
    """The fading of one device; its uplink and downlink share it."""

    def __init__(self, spec: Shadowing, seed: int, device: int) -> None:
        self._sd, self._margin = spec.sd_db, spec.margin_db
        self._noise = Noise(key(seed, device), round(spec.decorrelation_s * NS_PER_S))

    def depth(self, t_ns: int, worse_db: float = 0.0) -> float:
        """How far below the floor, in ``KNEE_DB``: at most 1, negative above it."""
        fade = self._noise.at(t_ns) * -self._sd + worse_db
        return min((fade - self._margin) / KNEE_DB, 1.0)

    def depths(self, t_ns: Ints, worse_db: Floats | float = 0.0) -> Floats:
        """``depth`` of a column."""
        fade: Floats = self._noise.column(t_ns) * -self._sd + worse_db
        return np.minimum((fade - self._margin) / KNEE_DB, 1.0)
