"""Material between two counters: what entered less what left, integrated over time."""

from typing import NamedTuple

import numpy as np

from edge.columns import Columns
from edge.measures import Fact
from edge.measures.counters import modulus_of
from ingest.messages import Birth


class Held(NamedTuple):
    """Integral of a level since it was first known; ``span`` is ``None`` for no time at all."""

    span: tuple[int, int] | None = None
    first_ns: int | None = None
    """When the level was first heard of; before that it is what the stretch before knew."""
    first_left: int = 0
    level: int = 0
    """Pieces at the end."""
    left: int = 0
    """The leaving counter at the end."""
    piece_ns: int = 0
    """Pieces times nanoseconds since ``first_ns``."""
    departed: int = 0
    known_ns: int = 0


class Levels:
    """WIP: pieces that ``entered`` and have neither ``left`` nor been ``scrapped``."""

    name = "wip"
    channels = ("entered", "left", "scrapped")

    closing = False

    def __init__(self, modulus: int | None = None) -> None:
        """``modulus``: where all three counters begin again at 0. Then no more pieces are there
        than that, and fewer leave from one reading to the next."""
        self._modulus = modulus

    def of(self, birth: Birth) -> "Levels":
        """The same for an asset that may have announced a modulus: one for all its counters."""
        moduli = {modulus_of(birth, channel, 1) for channel in self.channels}
        return Levels(moduli.pop() if len(moduli) == 1 else None)

    def zero(self) -> Held:
        return Held()

    def fold(self, columns: Columns) -> Held:
        times, counters = columns.rows(self.channels)
        span = (columns.start_ns, columns.end_ns)
        if not len(times):
            return Held(span)
        entered, left, scrapped = (np.rint(column).astype(np.int64) for column in counters)
        levels, gone = entered - left - scrapped, np.diff(left)
        if self._modulus is not None:
            levels, gone = levels % self._modulus, gone % self._modulus
        spans = np.diff(np.append(times, columns.end_ns))
        piece_ns = sum(
            level * spent for level, spent in zip(levels.tolist(), spans.tolist(), strict=True)
        )
        first_ns = int(times[0])
        return Held(
            span, first_ns, int(left[0]), int(levels[-1]), int(left[-1]), piece_ns,
            int(gone.sum()), columns.end_ns - first_ns,
        )  # fmt: skip

    def merge(self, a: Held, b: Held) -> Held:
        if a.span is None:
            return b
        if b.span is None:
            return a
        span = (a.span[0], b.span[1])
        if a.first_ns is None:
            return b._replace(span=span)
        until_ns = b.span[1] if b.first_ns is None else b.first_ns
        waited_ns = until_ns - a.span[1]
        piece_ns, known_ns = a.piece_ns + a.level * waited_ns, a.known_ns + waited_ns
        if b.first_ns is None:
            return a._replace(span=span, piece_ns=piece_ns, known_ns=known_ns)
        gone = b.first_left - a.left
        if self._modulus is not None:
            gone %= self._modulus
        return Held(
            span, a.first_ns, a.first_left, b.level, b.left, piece_ns + b.piece_ns,
            a.departed + gone + b.departed, known_ns + b.known_ns,
        )  # fmt: skip

    def edge(self, state: Held, t_ns: int) -> Held:
        if state.first_ns is None:
            return Held((t_ns, t_ns))
        return Held((t_ns, t_ns), t_ns, state.left, state.level, state.left)

    def facts(self, state: Held) -> dict[str, Fact]:
        if state.first_ns is None:
            return {}
        return {
            "wip_piece_ns": state.piece_ns,
            "departed": state.departed,
            "wip_known_ns": state.known_ns,
        }
