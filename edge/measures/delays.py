"""One-way delays of messages, as histograms in the bins of the wire contract.

The delay of a telemetry message is its arrival less its sending: the time a batch spent collecting
samples is not in it. Control traffic reaches the edge as histograms in ``link`` messages and is
added; blank cells there are no evidence. A network's own asset (a cell, a slice, a group of
devices) reports on other assets' messages, and its reports are not among them.

Sending is stamped by the sender's clock. A delay below zero is no evidence of a delay but of a
clock that is ahead: it is counted apart, as ``early``, and is in no quantile.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from edge.columns import Columns
from edge.measures import Fact, add_bins
from ingest.bins import LAST, bin_of

Bins = dict[int, int]

UPLINK, DOWNLINK = "uplink", "downlink"
MONITORED = "hop_messages"
"""The channel by which a report on other assets' messages is known."""


class Heard(NamedTuple):
    """Delays by bin; arrival less sending of one's own messages by signed bin; early messages."""

    delays: Bins = {}  # noqa: RUF012 - never changed in place
    stamps: Bins = {}  # noqa: RUF012
    early: int = 0


class Delays:
    """Histogram of one-way delays of messages sent in the window."""

    name = "delay"
    channels: tuple[str, ...] = ()

    closing = False

    def zero(self) -> Heard:
        return Heard()

    def fold(self, columns: Columns) -> Heard:
        own: list[int] = []
        monitored: list[int] = []
        for batch in columns.batches:
            meta = batch.meta
            if meta.sent_ns is not None and columns.start_ns <= meta.sent_ns < columns.end_ns:
                reports = MONITORED in batch.channels
                (monitored if reports else own).append(meta.arrival_ns - meta.sent_ns)
        stamps = _count((number, 1) for number in _bins(own))
        told = _count(_told(columns))
        delays, early = _sift(add_bins(stamps, told))
        return Heard(delays, add_bins(stamps, _count((n, 1) for n in _bins(monitored))), early)

    def merge(self, a: Heard, b: Heard) -> Heard:
        return Heard(add_bins(a.delays, b.delays), add_bins(a.stamps, b.stamps), a.early + b.early)

    def edge(self, state: Heard, t_ns: int) -> Heard:
        del state, t_ns
        return Heard()

    def facts(self, state: Heard) -> dict[str, Fact]:
        if state == Heard():
            return {}
        return {"delay_bins": state.delays, "stamp_bins": state.stamps, "early": state.early}


class Directed(Delays):
    """Of a report on other assets' messages, the one-way delays of one direction."""

    channels = ("bin", "count", "down")

    def __init__(self, way: str) -> None:
        self.name = f"{way}_delay"
        self._down = float(way == DOWNLINK)

    def fold(self, columns: Columns) -> Heard:
        delays, early = _sift(_count(_told(columns, self._down)))
        return Heard(delays, early=early)

    def facts(self, state: Heard) -> dict[str, Fact]:
        return {f"{self.name}_bins": state.delays} if state.delays else {}


def _bins(delays_ns: list[int]) -> list[int]:
    return bin_of(np.array(delays_ns, dtype=np.int64)).tolist() if delays_ns else []


def _told(columns: Columns, down: float | None = None) -> Iterable[tuple[int, int]]:
    """Bins and counts of control traffic (of one direction, if said), without blanks and what no
    stamps can give."""
    names = ("bin", "count") if down is None else ("bin", "count", "down")
    _, (bins, counts, *ways) = columns.rows(names, stream="link")
    good = (np.abs(bins) <= LAST) & (counts > 0)  # a blank is neither
    for way in ways:
        good &= way == down
    numbers, times = np.rint(bins[good]), np.rint(counts[good])
    return zip(numbers.astype(int).tolist(), times.astype(int).tolist(), strict=True)


def _count(found: Iterable[tuple[int, int]]) -> Bins:
    total: Bins = {}
    for number, count in found:
        total[number] = total.get(number, 0) + count
    return total


def _sift(signed: Bins) -> tuple[Bins, int]:
    """The delays of a signed histogram, and how many are none."""
    early = sum(count for number, count in signed.items() if number < 0)
    if not early:
        return signed, 0
    return {number: count for number, count in signed.items() if number >= 0}, early
