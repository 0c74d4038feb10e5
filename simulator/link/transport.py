"""What a lost segment means: a stall and an in-order release (TCP), or a loss (UDP).

Theory of operation
===================

TCP notices a loss by its timer, ``rto = max(floor, srtt + 4 rttvar)`` (RFC 6298), doubles the timer
for every further loss of the same segment, and needs a round trip more to be in step again:

    arrival = sent + rto + 2 rto + ... + round trip

Whatever was sent in the meantime waits in the receiver's buffer and is released at that instant, in
order: arrival[n] = max(arrival[n-1], own arrival). The smoothed values are taken over the last 32
round trips of messages that were not lost: older ones weigh less than 2 % in RFC 6298's averages.

While nothing passes at all (an outage, a cut backhaul) the first segment keeps trying, its timer
doubled each time up to ``_LONGEST_NS``; the first try after the cut releases everything.
"""

from collections import deque
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from config.units import NS_PER_S
from simulator.link.columns import Ints, ns
from simulator.link.profile import Tcp

_MEMORY = 32
_LONGEST_NS = 60 * NS_PER_S


def rto_ns(round_trips_ns: Iterable[int], floor_ns: int) -> int:
    """RFC 6298's timeout after these round trips, oldest first."""
    srtt, rttvar = 0.0, 0.0
    for number, sample in enumerate(round_trips_ns):
        if number:
            rttvar += (abs(srtt - sample) - rttvar) / 4
            srtt += (sample - srtt) / 8
        else:
            srtt, rttvar = float(sample), sample / 2
    return max(floor_ns, round(srtt + 4 * rttvar))


class Transport(Protocol):
    """From the arrival a segment would have had, and how often it was lost, to the arrival.

    ``losses`` is 0 for a segment that came through at once; until ``until_ns`` none does.
    """

    def one(self, t_ns: int, own_ns: int, losses: int, until_ns: int = 0) -> int:
        """Arrival, or -1 for a message that never arrives."""
        ...

    def many(self, t_ns: Ints, own_ns: Ints, losses: Ints, until_ns: Ints | None = None) -> Ints:
        """The same for columns."""
        ...


class Stream:
    """TCP."""

    def __init__(self, spec: Tcp, back_ns: int) -> None:
        self._floor_ns = ns(spec.min_rto_ms)
        self._back_ns = back_ns
        self._last_ns = self._until_ns = 0
        self._trips: deque[int] = deque(maxlen=_MEMORY)

    def one(self, t_ns: int, own_ns: int, losses: int, until_ns: int = 0) -> int:
        trip_ns = own_ns - t_ns + self._back_ns
        if losses or until_ns:
            own_ns = self._released_ns(t_ns, trip_ns, losses, until_ns)
        else:
            self._trips.append(trip_ns)
        self._last_ns = max(self._last_ns, own_ns)
        return self._last_ns

    def many(self, t_ns: Ints, own_ns: Ints, losses: Ints, until_ns: Ints | None = None) -> Ints:
        trips = own_ns - t_ns + self._back_ns
        stalls = np.flatnonzero(losses if until_ns is None else losses + until_ns)
        if len(stalls):
            own_ns = own_ns.copy()
            before = 0
            for at in stalls.tolist():
                self._remember(trips[before:at])
                until = 0 if until_ns is None else int(until_ns[at])
                own_ns[at] = self._released_ns(
                    int(t_ns[at]), int(trips[at]), int(losses[at]), until
                )
                before = at + 1
            trips = trips[before:]
        self._remember(trips)
        arrival_ns = np.maximum(np.maximum.accumulate(own_ns), self._last_ns)
        self._last_ns = int(arrival_ns[-1])
        return arrival_ns

    def _remember(self, trips: Ints) -> None:
        self._trips.extend(trips[-_MEMORY:].tolist())

    def _released_ns(self, t_ns: int, trip_ns: int, losses: int, until_ns: int) -> int:
        if until_ns and until_ns == self._until_ns:
            return 0  # waits for the first one that met this cut
        timer_ns = rto_ns(self._trips, self._floor_ns)
        if not until_ns:
            return t_ns + timer_ns * ((1 << losses) - 1) + trip_ns
        self._until_ns = until_ns
        tried = 0
        while tried < losses or t_ns < until_ns:
            t_ns += timer_ns
            timer_ns = min(2 * timer_ns, _LONGEST_NS)
            tried += 1
        return t_ns + trip_ns


class Datagrams:
    """UDP over a bearer that delivers in order."""

    def __init__(self) -> None:
        self._last_ns = 0

    def one(self, t_ns: int, own_ns: int, losses: int, until_ns: int = 0) -> int:
        if losses or until_ns:
            return -1
        self._last_ns = max(self._last_ns, own_ns)
        return self._last_ns

    def many(self, t_ns: Ints, own_ns: Ints, losses: Ints, until_ns: Ints | None = None) -> Ints:
        if until_ns is not None:
            losses = losses + until_ns
        heard_ns = np.where(losses == 0, own_ns, self._last_ns)
        ordered_ns = np.maximum(np.maximum.accumulate(heard_ns), self._last_ns)
        self._last_ns = int(ordered_ns[-1])
        return np.where(losses == 0, ordered_ns, -1)
