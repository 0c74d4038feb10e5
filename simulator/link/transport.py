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
doubled each time up to ``_LONGEST_NS``; the first try after the cut releases everything. After
``reset_after_s`` without an acknowledgement the connection is given up, long before the kernel
would. A client that keeps its messages until they are confirmed then connects anew as soon as the
network is there, and sends them again, instead of waiting for a timer that has grown to a minute:

    sent ──0.2──0.4──0.8── ... ──25.6──┤ reset_after │ network there │ back-off, handshake │ arrival

A try, or a new connection, that would come through in another cut is lost as well and waits for its
end: nothing arrives while a cut lasts. What was under way when one began has met it.

A restart of the broker breaks every connection at once (``simulator.link.restarts``): what was
under way and what is sent meanwhile goes out when the client is connected again. Without a
connection (UDP) it is lost.
"""

from array import array
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from config.units import NS_PER_S
from simulator.link.columns import Flags, Ints, ns
from simulator.link.profile import Tcp
from simulator.link.restarts import Breaks, Client

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


class Cuts(Protocol):
    """When nothing passes, as one device meets it."""

    def end_ns(self, place: int, t_ns: int) -> int:
        """End of the cut that a time lies in, or 0, at a place as in ``Now.place``."""
        ...


class Transport(Protocol):
    """From the arrival a segment would have had, and how often it was lost, to the arrival.

    ``losses`` is 0 for a segment that came through at once; until ``until_ns`` none does, and at
    ``place`` later cuts may come.
    """

    breaks: Breaks
    """What restarts of the broker do to messages."""

    def one(self, t_ns: int, own_ns: int, losses: int, until_ns: int = 0, place: int = 0) -> int:
        """Arrival, or -1 for a message that never arrives."""
        ...

    def many(
        self,
        t_ns: Ints,
        own_ns: Ints,
        losses: Ints,
        until_ns: Ints | None = None,
        places: Ints | None = None,
    ) -> Ints:
        """The same for columns."""
        ...


class Stream:
    """TCP."""

    def __init__(self, spec: Tcp, back_ns: int, client: Client, cuts: Cuts | None = None) -> None:
        self.breaks = client.breaks
        self._floor_ns = ns(spec.min_rto_ms)
        self._reset_ns = round(spec.reset_after_s * NS_PER_S)
        self._back_ns = back_ns
        self._client, self._cuts = client, cuts
        self._last_ns = self._until_ns = 0
        self._trips: array[int] = array("q")
        """Of these the last ``_MEMORY`` count."""

    def one(self, t_ns: int, own_ns: int, losses: int, until_ns: int = 0, place: int = 0) -> int:
        trip_ns = own_ns - t_ns
        meets_ns, waits_ns = until_ns, self._until_ns
        if again_ns := self._client.again_ns(t_ns, t_ns, until_ns):
            t_ns, meets_ns = self._uncut_ns(again_ns, trip_ns, place), 0
        own_ns = self._through_ns(t_ns, trip_ns, losses, meets_ns, place)
        arrival_ns = max(self._last_ns, own_ns)
        while again_ns := self._client.again_ns(t_ns, arrival_ns, until_ns):
            self._until_ns = waits_ns  # what the broken connection would have waited for
            t_ns = self._uncut_ns(again_ns, trip_ns, place)
            arrival_ns = max(self._last_ns, t_ns + trip_ns)
        self._last_ns = arrival_ns
        return arrival_ns

    def many(
        self,
        t_ns: Ints,
        own_ns: Ints,
        losses: Ints,
        until_ns: Ints | None = None,
        places: Ints | None = None,
    ) -> Ints:
        breaks = bool(self._client.spans)
        if not (breaks and until_ns is not None and until_ns.any()):
            before = self._last_ns, self._until_ns, self._trips[:]
            arrival_ns = self._unbroken(t_ns, own_ns, losses, until_ns, places)
            if not breaks or not self._client.again_ns(int(t_ns[0]), int(arrival_ns[-1])):
                return arrival_ns
            self._last_ns, self._until_ns, self._trips = before
        none = np.zeros_like(t_ns)
        untils = none if until_ns is None else until_ns
        where = none if places is None else places
        columns = (column.tolist() for column in (t_ns, own_ns, losses, untils, where))
        return np.array([self.one(*row) for row in zip(*columns, strict=True)], np.int64)

    def _unbroken(
        self,
        t_ns: Ints,
        own_ns: Ints,
        losses: Ints,
        until_ns: Ints | None,
        places: Ints | None,
    ) -> Ints:
        """Arrivals as far as no restart of the broker meets any of them."""
        trips = own_ns - t_ns
        stalls = np.flatnonzero(losses if until_ns is None else losses + until_ns)
        if len(stalls):
            own_ns = own_ns.copy()
            before = 0
            for at in stalls.tolist():
                self._remember(trips[before:at])
                until = 0 if until_ns is None else int(until_ns[at])
                place = 0 if places is None else int(places[at])
                own_ns[at] = self._through_ns(
                    int(t_ns[at]), int(trips[at]), int(losses[at]), until, place
                )
                before = at + 1
            trips = trips[before:]
        self._remember(trips)
        arrival_ns = np.maximum(np.maximum.accumulate(own_ns), self._last_ns)
        self._last_ns = int(arrival_ns[-1])
        return arrival_ns

    def _remember(self, trips: Ints) -> None:
        self._trips.frombytes((trips[-_MEMORY:] + self._back_ns).tobytes())
        del self._trips[:-_MEMORY]

    def _through_ns(self, t_ns: int, trip_ns: int, losses: int, until_ns: int, place: int) -> int:
        """Arrival of one segment, its own or what a stall makes of it."""
        if not losses and not until_ns:
            self._trips.append(trip_ns + self._back_ns)
            del self._trips[:-_MEMORY]
            return t_ns + trip_ns
        if until_ns:
            until_ns = max(until_ns, self._cut_ns(place, t_ns + trip_ns))
            if until_ns <= self._until_ns:
                return t_ns + trip_ns  # waits behind the first one that met this cut
        timer_ns = rto_ns(self._trips, self._floor_ns)
        reset_ns = t_ns + self._reset_ns
        tried = 0
        while tried < losses or t_ns < until_ns:
            t_ns += timer_ns
            if t_ns > reset_ns:
                self._until_ns = max(self._until_ns, until_ns)
                again_ns = self._client.connected_ns(reset_ns, max(reset_ns, until_ns))
                return self._uncut_ns(again_ns, trip_ns, place) + trip_ns
            timer_ns = min(2 * timer_ns, _LONGEST_NS)
            tried += 1
            if tried >= losses and t_ns >= until_ns:
                until_ns = max(until_ns, self._cut_ns(place, t_ns + trip_ns + self._back_ns))
        self._until_ns = max(self._until_ns, until_ns)
        return t_ns + trip_ns + self._back_ns

    def _cut_ns(self, place: int, t_ns: int) -> int:
        return 0 if self._cuts is None else self._cuts.end_ns(place, t_ns)

    def _uncut_ns(self, again_ns: int, trip_ns: int, place: int) -> int:
        """When a new connection carries the message, given when it is there by itself: what ends in
        a cut is made once more, when that is over."""
        while end_ns := self._cut_ns(place, again_ns + trip_ns):
            self._until_ns = max(self._until_ns, end_ns)
            again_ns = self._client.connected_ns(again_ns, end_ns)
        return again_ns


class Datagrams:
    """UDP over a bearer that delivers in order."""

    def __init__(self, client: Client) -> None:
        self.breaks = Breaks(client.spans, [end_ns for _, end_ns in client.spans])
        self._last_ns = 0

    def one(self, t_ns: int, own_ns: int, losses: int, until_ns: int = 0, place: int = 0) -> int:
        del place  # nothing is sent again
        if losses or until_ns or self.breaks.one(t_ns, own_ns):
            return -1
        self._last_ns = max(self._last_ns, own_ns)
        return self._last_ns

    def many(
        self,
        t_ns: Ints,
        own_ns: Ints,
        losses: Ints,
        until_ns: Ints | None = None,
        places: Ints | None = None,
    ) -> Ints:
        del places
        heard: Flags = (losses == 0) & ~self.breaks.many(t_ns, own_ns)
        if until_ns is not None:
            heard &= until_ns == 0
        heard_ns = np.where(heard, own_ns, self._last_ns)
        ordered_ns = np.maximum(np.maximum.accumulate(heard_ns), self._last_ns)
        self._last_ns = int(ordered_ns[-1])
        return np.where(heard, ordered_ns, -1)
