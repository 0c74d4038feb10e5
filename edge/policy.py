"""What an edge is told: panes, windows, how late is late. Part of a recording's header."""

import math
from dataclasses import dataclass

from config.units import NS_PER_S
from config.windows import Every, Window


@dataclass(frozen=True, slots=True)
class Policy:
    """Every decision of the gate and the windows is a function of a record and of this.

    A sample is *late* where its message arrived more than ``lateness_ns`` after the end of the
    sample's pane, *too late* beyond ``retention_ns``, and its message is *skewed* where a sample
    claims a time more than ``max_skew_ns`` after arrival.
    """

    pane_ns: int = 10 * NS_PER_S
    windows: tuple[Window, ...] = (
        Every(60 * NS_PER_S),
        Every(3_600 * NS_PER_S),
        Every(28_800 * NS_PER_S),
    )
    lateness_ns: int = 2 * NS_PER_S
    retention_ns: int = 86_400 * NS_PER_S
    max_skew_ns: int = 5 * NS_PER_S

    def __post_init__(self) -> None:
        if any(window.grain_ns % self.pane_ns for window in self.windows):
            raise ValueError("every window must be a multiple of the pane")

    @property
    def block_ns(self) -> int:
        """What every window is made of: the greatest length that divides them all."""
        return math.gcd(*(window.grain_ns for window in self.windows))

    def late(self, t_ns: int, arrival_ns: int) -> bool:
        """Whether a sample came after its pane was closed."""
        return arrival_ns > self.pane_end(t_ns) + self.lateness_ns

    def late_before(self, arrival_ns: int) -> int:
        """Samples with time before this came late with a message that arrived then."""
        return -((self.lateness_ns - arrival_ns) // self.pane_ns + 1) * self.pane_ns

    def too_late(self, t_ns: int, arrival_ns: int) -> bool:
        """Whether a sample came too late to amend anything."""
        return arrival_ns > self.pane_end(t_ns) + self.retention_ns

    def pane_end(self, t_ns: int) -> int:
        """End of the pane a sample falls in."""
        return (t_ns // self.pane_ns + 1) * self.pane_ns
