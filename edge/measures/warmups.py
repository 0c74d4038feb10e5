"""Pieces soon after a start, and how many of them were scrap.

A *start* is any reading of STARTING: telling it again changes nothing, since nothing is made
before it ends. The pieces counted after it are warm-up until ``PIECES`` of them are counted. A
counter that falls (a machine anew, a clock that stepped) counts nothing with that reading, unless
it announced where it begins again at 0.

    rises of (produced, scrap):   3 1 | 1 1 1 1 1 1 1 1 1 1 1 1          | = STARTING
                                  head  warm-up             no more

Before its first start a stretch does not know how warm the machine is, so it keeps its first rises
(``head``), up to the number that may matter to the stretch before.
"""

import itertools
from typing import Final, NamedTuple

import numpy as np

from edge.columns import Columns
from edge.measures import Fact
from edge.measures.counters import modulus_of, step
from ingest.messages import Birth, Floats
from ingest.packml import PackML

PIECES: Final = 10
"""Pieces after a start that count as warm-up."""

_NUMBERED: Final = 1
"""A start whose falls are no resets: here they count nothing in any."""

Rise = tuple[int, int]
"""Pieces and scrap counted with one reading."""


class Warmup(NamedTuple):
    """Rises of one stretch."""

    first: Rise | None = None
    """The first reading of both counters."""
    last: Rise | None = None
    """Where they got to; alone if that was read in an earlier stretch."""
    fresh: bool = False
    """Whether a start came before the first reading."""
    head: tuple[Rise, ...] = ()
    """Rises from the first reading to the next start, as far as they may be warm-up."""
    since: int | None = None
    """Pieces since the last start, at most ``PIECES``, where the stretch knows."""
    made: int = 0
    scrap: int = 0
    """Warm-up pieces known to be such, and scrap among them."""


class Warmups:
    """Counts warm-up pieces of one machine by ``state``, ``produced`` and ``scrap``."""

    name = "warmup"
    channels = ("state", "produced", "scrap")

    closing = False

    def __init__(self, moduli: tuple[int | None, int | None] = (None, None)) -> None:
        """``moduli``: where the counters of pieces and of scrap begin again at 0."""
        self._moduli = moduli

    def of(self, birth: Birth) -> "Warmups":
        """The same for an asset that may have announced moduli."""
        return Warmups((modulus_of(birth, "produced", 1), modulus_of(birth, "scrap", 1)))

    def zero(self) -> Warmup:
        return Warmup()

    def fold(self, columns: Columns) -> Warmup:
        times, (produced, scrap) = columns.rows(("produced", "scrap"))
        told_ns, states = columns.channel("state")
        known = ~np.isnan(produced + scrap)
        if not known.all():
            times, produced, scrap = times[known], produced[known], scrap[known]
        readings = list(zip(_whole(produced), _whole(scrap), strict=True))
        started = states == PackML.STARTING
        state, low = Warmup(), 0
        if started.any():
            # A counter's reading precedes a change at the same instant.
            for cut in dict.fromkeys(times.searchsorted(told_ns[started], side="right").tolist()):
                state = self._start(self.merge(state, self._rises(readings[low:cut])))
                low = cut
        return self.merge(state, self._rises(readings[low:]))

    @staticmethod
    def _start(state: Warmup) -> Warmup:
        return state._replace(fresh=True) if state.last is None else state._replace(since=0)

    def merge(self, a: Warmup, b: Warmup) -> Warmup:
        if a.last is None:
            return b._replace(fresh=a.fresh or b.fresh)
        if b.first is None:
            if b.last is not None:  # an edge follows on nothing but itself
                return b
            return self._start(a) if b.fresh else a
        rises = _kept((self._rise(a.last, b.first), *b.head))
        since = 0 if b.fresh else a.since
        a = a._replace(first=a.first or b.first, last=b.last)
        made, scrap = a.made + b.made, a.scrap + b.scrap
        if since is None:
            head = _kept((*a.head, *rises))
            return a._replace(head=head, since=b.since, made=made, scrap=scrap)
        since, more, bad = _walk(since, rises)
        since = since if b.since is None else b.since
        return a._replace(since=since, made=made + more, scrap=scrap + bad)

    def edge(self, state: Warmup, t_ns: int) -> Warmup:
        del t_ns
        if state.last is None:
            return Warmup(fresh=state.fresh)
        since = state.since
        if since is None and state.fresh:
            since, _, _ = _walk(0, state.head)
        return Warmup(last=state.last, since=since)

    def facts(self, state: Warmup) -> dict[str, Fact]:
        if state.first is None:
            return {}
        _, made, scrap = _walk(0, state.head) if state.fresh else (0, 0, 0)
        return {"warmup_pieces": state.made + made, "warmup_scrap": state.scrap + scrap}

    def _rises(self, readings: list[Rise]) -> Warmup:
        """A stretch without a start."""
        if not readings:
            return Warmup()
        rises = [self._rise(a, b) for a, b in itertools.pairwise(readings) if a != b]
        return Warmup(readings[0], readings[-1], head=_kept(tuple(rises)))

    def _rise(self, before: Rise, now: Rise) -> Rise:
        made, scrap = map(_way, before, now, self._moduli)
        return max(made, 0), max(scrap, 0)


def _way(before: int, now: int, modulus: int | None) -> int:
    return step(_NUMBERED, before, now, modulus)


def _whole(values: Floats) -> list[int]:
    numbers: list[int] = np.rint(values).astype(np.int64).tolist()
    return numbers


def _kept(rises: tuple[Rise, ...]) -> tuple[Rise, ...]:
    """Those before which fewer than ``PIECES`` pieces came."""
    total, kept = 0, 0
    for made, _ in rises:
        if total >= PIECES:
            break
        total += made
        kept += 1
    return tuple(rise for rise in rises[:kept] if rise != (0, 0))


def _walk(since: int, rises: tuple[Rise, ...]) -> tuple[int, int, int]:
    """Pieces since the start after some rises, and the warm-up pieces and scrap among them."""
    pieces = bad = 0
    for made, scrap in rises:
        if since >= PIECES:
            break
        pieces, bad = pieces + made, bad + scrap
        since = min(since + made, PIECES)
    return since, pieces, bad
