"""Yes-or-no channels: share of true samples, rising edges, blanks."""

from typing import NamedTuple

import numpy as np

from edge.columns import Columns
from edge.measures import Fact


class Flag(NamedTuple):
    """Samples by what they said; a blank is no evidence and neither ends nor starts anything."""

    true: int = 0
    known: int = 0
    blank: int = 0
    rises: int = 0
    first: bool | None = None
    last: bool | None = None


class Flags:
    """Counts of one boolean channel."""

    closing = False

    def __init__(self, channel: str) -> None:
        self.name = channel
        self.channels = (channel,)

    def zero(self) -> Flag:
        return Flag()

    def fold(self, columns: Columns) -> Flag:
        _, values = columns.channel(self.name)
        said = values[~np.isnan(values)] > 0.5
        blank = len(values) - len(said)
        if not len(said):
            return Flag(blank=blank)
        rises = int((said[1:] & ~said[:-1]).sum())
        return Flag(int(said.sum()), len(said), blank, rises, bool(said[0]), bool(said[-1]))

    def merge(self, a: Flag, b: Flag) -> Flag:
        joint = int(a.last is False and b.first is True)
        return Flag(
            a.true + b.true,
            a.known + b.known,
            a.blank + b.blank,
            a.rises + b.rises + joint,
            b.first if a.first is None and a.last is None else a.first,
            a.last if b.last is None else b.last,
        )

    def edge(self, state: Flag, t_ns: int) -> Flag:
        del t_ns
        return Flag(last=state.last)

    def facts(self, state: Flag) -> dict[str, Fact]:
        if not state.known and not state.blank:
            return {}
        return {
            f"{self.name}_true": state.true,
            f"{self.name}_known": state.known,
            f"{self.name}_blank": state.blank,
            f"{self.name}_rises": state.rises,
        }
