"""How long the real path takes on this machine, hop by hop; never mixed with the modelled link."""

import time
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np

from edge.kpi import quantile
from ingest.bins import bin_of, delay_of

HOPS = ("mqtt", "wait", "decode", "commit", "fold", "rows", "feed")
"""``mqtt``: from the edge through the broker back to it; ``wait``: read, but not yet taken up;
``decode``, ``commit`` (to the journal), ``fold`` and ``rows`` (to the store): per batch taken;
``feed``: a row, from its offer to the word of the broker it is fed to."""


class Hops:
    """Histograms of wall-clock durations, in the bins of the wire contract."""

    def __init__(self) -> None:
        self._bins: dict[str, dict[int, int]] = {}

    def add(self, hop: str, took_ns: int) -> None:
        """Count one passage of a hop."""
        [number] = bin_of(np.array([took_ns], dtype=np.int64)).tolist()
        counts = self._bins.setdefault(hop, {})
        counts[number] = counts.get(number, 0) + 1

    @contextmanager
    def timed(self, hop: str) -> Generator[None, None, None]:
        """Count the time the block takes."""
        began_ns = time.perf_counter_ns()
        yield
        self.add(hop, time.perf_counter_ns() - began_ns)

    def quantile_ms(self, hop: str, share: float) -> float | None:
        """A quantile in ms; ``None`` where nothing passed."""
        found = quantile(self._bins.get(hop, {}), share)
        return None if found is None else delay_of(found) / 1e6

    def summary(self) -> dict[str, dict[str, float | int | None]]:
        """Per hop how often it was passed, and p50, p99 and the slowest in ms."""
        return {
            hop: {
                "n": sum(self._bins[hop].values()),
                "p50_ms": self.quantile_ms(hop, 0.5),
                "p99_ms": self.quantile_ms(hop, 0.99),
                "max_ms": self.quantile_ms(hop, 1.0),
            }
            for hop in HOPS
            if hop in self._bins
        }
