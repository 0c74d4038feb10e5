"""One-way delays of messages, as histograms in the bins of the wire contract.

The delay of a telemetry message is its arrival less its sending: the time a batch spent collecting
samples is not in it. Control traffic reaches the edge as per-second histograms and is added.
"""

import numpy as np

from edge.columns import Columns
from edge.measures import Fact, add_bins
from ingest.bins import bin_of

State = dict[int, int]


class Delays:
    """Histogram of one-way delays of messages sent in the window."""

    name = "delay"
    channels = ()

    closing = False

    def zero(self) -> State:
        return {}

    def fold(self, columns: Columns) -> State:
        delays = [
            batch.meta.arrival_ns - batch.meta.sent_ns
            for batch in columns.batches
            if batch.meta.sent_ns is not None
            and columns.start_ns <= batch.meta.sent_ns < columns.end_ns
        ]
        _, (bins, counts) = columns.rows(("bin", "count"), stream="link")
        total = _gather(bin_of(np.array(delays, dtype=np.int64)), np.ones(len(delays)))
        return add_bins(total, _gather(np.rint(bins).astype(np.int64), counts))

    def merge(self, a: State, b: State) -> State:
        return add_bins(a, b)

    def edge(self, state: State, t_ns: int) -> State:
        del state, t_ns
        return {}

    def facts(self, state: State) -> dict[str, Fact]:
        return {"delay_bins": state} if state else {}


def _gather(numbers: np.ndarray, counts: np.ndarray) -> State:
    total: State = {}
    for number, count in zip(numbers.tolist(), np.rint(counts).astype(int).tolist(), strict=True):
        total[number] = total.get(number, 0) + count
    return total
