"""The samples of one asset in one pane, as sorted columns."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ingest.messages import Batch, Floats, Times

_NOTHING = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64))


class _Part(NamedTuple):
    """What one batch has of some channels in a pane."""

    start: int
    t_ns: Times
    columns: list[Floats]


class Columns:
    """Channels of one asset over a pane, in the one canonical order: time, boot, sequence.

    Batches may reach beyond the pane. ``channel`` gives what lies in ``[start, end)``; for flow
    counters, whose reading at ``t`` closes the interval ending at ``t``, ``closing=True`` gives
    what lies in ``(start, end]``.

    A stretch may begin or end at a *turn*, as where one order gives way to the next. A counter's
    reading precedes a change at the same instant: it is of what was before, on either side.

    Readings that the asset announced as ``sentinels`` of a channel are blank.
    """

    def __init__(
        self,
        batches: Sequence[Batch],
        start_ns: int,
        end_ns: int,
        turns: tuple[bool, bool] = (False, False),
        sentinels: Mapping[str, tuple[float, ...]] | None = None,
    ) -> None:
        self.batches = sorted(batches, key=lambda b: b.meta.identity)
        self.start_ns = start_ns
        self.end_ns = end_ns
        self.sentinels = sentinels or {}
        self._turns = turns

    def read(self, batch: Batch, name: str) -> Floats:
        """All values of one channel in one of the batches; NaN is a blank, as a sentinel is."""
        values = batch.channels[name]
        if (sentinels := self.sentinels.get(name)) is None:
            return values
        return np.where(np.isin(values, sentinels), np.nan, values)

    def channel(self, name: str, *, closing: bool = False) -> tuple[Times, Floats]:
        """Times (int64, ns) and values (float64, NaN = blank) of one channel."""
        times, (values,) = self.rows((name,), closing=closing)
        return times, values

    def rows(
        self, names: tuple[str, ...], *, stream: str = "", closing: bool = False
    ) -> tuple[Times, list[Floats]]:
        """Several channels that come together, row by row."""
        parts = self._parts(names, stream, (closing, closing))
        if not parts:
            return _NOTHING[0], [_NOTHING[1] for _ in names]
        if len(parts) == 1:
            return parts[0].t_ns, parts[0].columns
        times, order = _in_time(parts)
        together = (np.concatenate(c) for c in zip(*(p.columns for p in parts), strict=True))
        return times, [column[order] for column in together]

    def counter(self, name: str, *, closing: bool = False) -> tuple[Times, Floats, Times]:
        """Times and values of one channel without its blanks, and the start (boot) of the sender
        that each reading is of; 0 where the sender does not number its messages."""
        after = (True, True) if closing else self._turns
        parts = self._parts((name,), "", after)
        if not parts:
            return *_NOTHING, _NOTHING[0]
        times, order = _in_time(parts)
        values = np.concatenate([part.columns[0] for part in parts])[order]
        lengths = [len(part.t_ns) for part in parts]
        starts = np.repeat(np.array([part.start for part in parts], dtype=np.int64), lengths)[order]
        known = ~np.isnan(values)
        return times[known], values[known], starts[known]

    def _parts(self, names: tuple[str, ...], stream: str, after: tuple[bool, bool]) -> list[_Part]:
        """What lies in the stretch, each of whose edges is taken just after its instant or not."""
        first_ns, last_ns = self.start_ns + after[0], self.end_ns + after[1]
        parts: list[_Part] = []
        lead, *others = names
        for batch in self.batches:
            channels = batch.channels
            if lead not in channels or (stream and batch.stream != stream):
                continue
            if others and not channels.keys() >= set(others):
                continue
            t_ns, start = batch.t_ns, _start(batch)
            if t_ns[0] >= first_ns and t_ns[-1] < last_ns:  # all of it, as it mostly is
                parts.append(_Part(start, t_ns, [self.read(batch, name) for name in names]))
                continue
            low, high = t_ns.searchsorted((first_ns, last_ns))
            if high > low:
                values = [self.read(batch, name)[low:high] for name in names]
                parts.append(_Part(start, t_ns[low:high], values))
        return parts


def _start(batch: Batch) -> int:
    return batch.meta.identity.boot if batch.meta.resolution == "seq" else 0


def _in_time(parts: Sequence[_Part]) -> tuple[Times, Times]:
    """All times in order, and the order that sorts what belongs to them."""
    times = np.concatenate([part.t_ns for part in parts])
    order = np.argsort(times, kind="stable")  # stable: batches are sorted by boot and seq
    return times[order], order
