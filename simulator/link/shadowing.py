"""Slow fading of a device whose position is not known: noise over time.

Link adaptation absorbs a fade up to the margin. Beyond it the robust end of the coding is reached,
and the share of failures grows to one over ``knee_db``: ``depth`` is how far down that slope it is.
"""

import numpy as np

from config.units import NS_PER_S
from simulator.link.columns import Floats, Ints
from simulator.link.lattice import Noise, key
from simulator.link.profile import Shadowing


class Fade:
    """The fading of one device; its uplink and downlink share it."""

    def __init__(self, spec: Shadowing, seed: int, device: int) -> None:
        self._sd, self._margin, self._knee = spec.sd_db, spec.margin_db, spec.knee_db
        self._noise = Noise(key(seed, device), round(spec.decorrelation_s * NS_PER_S))

    def depth(self, t_ns: int, worse_db: float = 0.0) -> float:
        """How far down the slope, 0 (adaptation copes) to 1 (nothing is heard)."""
        fade = self._noise.at(t_ns) * -self._sd + worse_db
        return min(max((fade - self._margin) / self._knee, 0.0), 1.0)

    def depths(self, t_ns: Ints, worse_db: Floats | float = 0.0) -> Floats:
        """``depth`` of a column."""
        fade: Floats = self._noise.column(t_ns) * -self._sd + worse_db
        return np.clip((fade - self._margin) / self._knee, 0.0, 1.0)
