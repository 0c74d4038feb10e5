"""The samples of one asset in one pane, as sorted columns."""

from collections.abc import Sequence

import numpy as np

from ingest.messages import Batch, Floats, Times

_NOTHING = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64))


class Columns:
    """Channels of one asset over a pane, in the one canonical order: time, boot, sequence.

    Batches may reach beyond the pane. ``channel`` gives what lies in ``[start, end)``; for flow
    counters, whose reading at ``t`` closes the interval ending at ``t``, ``closing=True`` gives
    what lies in ``(start, end]``.
    """

    def __init__(self, batches: Sequence[Batch], start_ns: int, end_ns: int) -> None:
        self.batches = sorted(batches, key=lambda b: b.meta.identity)
        self.start_ns = start_ns
        self.end_ns = end_ns

    def channel(self, name: str, *, closing: bool = False) -> tuple[Times, Floats]:
        """Times (int64, ns) and values (float64, NaN = blank) of one channel."""
        times, (values,) = self.rows((name,), closing=closing)
        return times, values

    def rows(
        self, names: tuple[str, ...], *, stream: str = "", closing: bool = False
    ) -> tuple[Times, list[Floats]]:
        """Several channels that come together, row by row."""
        first_ns, last_ns = self.start_ns + closing, self.end_ns + closing
        parts: list[tuple[Times, list[Floats]]] = []
        lead, *others = names
        for batch in self.batches:
            channels = batch.channels
            if lead not in channels or (stream and batch.stream != stream):
                continue
            if others and not channels.keys() >= set(others):
                continue
            t_ns = batch.t_ns
            if t_ns[0] >= first_ns and t_ns[-1] < last_ns:  # all of it, as it mostly is
                parts.append((t_ns, [channels[name] for name in names]))
                continue
            low, high = t_ns.searchsorted((first_ns, last_ns))
            if high > low:
                parts.append((t_ns[low:high], [channels[name][low:high] for name in names]))
        if not parts:
            return _NOTHING[0], [_NOTHING[1] for _ in names]
        if len(parts) == 1:
            return parts[0]
        times = np.concatenate([part[0] for part in parts])
        order = np.argsort(times, kind="stable")  # stable: batches are sorted by boot and seq
        together = (np.concatenate(columns) for columns in zip(*(p[1] for p in parts), strict=True))
        return times[order], [column[order] for column in together]
