"""Broken connections: restarts of the broker, and when each client is connected again.

Theory of operation
===================

A broker that dies takes every connection with it, whoever's and in whichever direction. At the end
of the restart it is back; each client then waits its back-off, shakes hands (TCP's and MQTT's: two
round trips) and sends again, oldest first, what was not acknowledged:

    broker   ────┐ start          end ┌─────────────────────────────
    client   ────┘                    │ back-off │ 2 round trips │ burst, in order

A message that arrives before ``start`` is through, whenever it was sent; nothing arrives between
``start`` and the end of the handshake. A client whose network is down as well begins when both are
there. The back-off is uniform over ``BACKOFF_NS``. It belongs to the seed, the client's name and
the instant of the break: both directions and all slices of a client come back together, other
clients at times of their own, and one client more changes nothing.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from zlib import crc32

import numpy as np

from config.faults import BrokerRestart, Fault
from config.units import NS_PER_S
from simulator.link.columns import Flags, Ints
from simulator.link.lattice import key, uniform

BACKOFF_NS = NS_PER_S
"""Clients that lost one broker together must not all return at once; a second spreads them."""
_ROUND_TRIPS = 2
_SALT = 0xBACC0FF
_NEVER_NS = 2**62


class Breaks:
    """Which messages a restart breaks: sent before all is well again, and not through before it.

    ``free_ns`` is when it is, restart by restart and never earlier than before.
    """

    def __init__(self, spans: Sequence[tuple[int, int]], free_ns: Sequence[int]) -> None:
        self._starts = [*(start_ns for start_ns, _ in spans), _NEVER_NS]
        self._free = [*free_ns]
        self._columns = np.array(self._starts, np.int64), np.array(self._free, np.int64)

    def one(self, t_ns: int, own_ns: int) -> bool:
        """Of a message that is sent, and would arrive."""
        return self._starts[bisect_right(self._free, t_ns)] <= own_ns

    def many(self, t_ns: Ints, own_ns: Ints) -> Flags:
        """``one`` of columns."""
        starts, free = self._columns
        found: Flags = starts[np.searchsorted(free, t_ns, side="right")] <= own_ns
        return found


class Client:
    """A client of the broker, and how it finds back."""

    def __init__(self, spans: Sequence[tuple[int, int]], own: int, handshake_ns: int) -> None:
        self.spans = spans
        """Beginnings and ends of the restarts, in order, none touching the next."""
        self._key, self._handshake_ns = own, handshake_ns
        self._ends = [end_ns for _, end_ns in spans]
        self._backs = [self.connected_ns(*span) for span in spans]
        self.breaks = Breaks(spans, self._backs)

    def connected_ns(self, broken_ns: int, able_ns: int) -> int:
        """When the connection that broke at ``broken_ns`` is replaced, given that the client can
        reach the MEC from ``able_ns`` on. A restart that comes in between makes it begin anew."""
        done_ns = self._done_ns(broken_ns, able_ns)
        for start_ns, end_ns in self.spans[bisect_right(self._ends, able_ns) :]:
            if start_ns >= done_ns:
                break
            done_ns = self._done_ns(start_ns, end_ns)
        return done_ns

    def again_ns(self, sent_ns: int, arrival_ns: int, until_ns: int = 0) -> int:
        """When a message is sent anew whose connection broke before it arrived, or 0 if none did.

        With ``arrival_ns`` equal to ``sent_ns`` it is a question about the connection: when what
        wants to go now can. ``until_ns`` is the end of a cut of the network that the message met:
        the client cannot be back before.
        """
        for place in range(bisect_right(self._backs, sent_ns), len(self.spans)):
            start_ns, end_ns = self.spans[place]
            if start_ns > arrival_ns:
                break
            back_ns = self.connected_ns(start_ns, max(end_ns, until_ns))
            if sent_ns < back_ns:
                return back_ns
        return 0

    def _done_ns(self, broken_ns: int, able_ns: int) -> int:
        return able_ns + int(uniform(self._key, broken_ns) * BACKOFF_NS) + self._handshake_ns


class Restarts:
    """The restarts of one broker."""

    def __init__(self, faults: Iterable[Fault] = (), start_ns: int = 0, seed: int = 0) -> None:
        found = sorted(
            (start_ns + fault.after, start_ns + fault.after + fault.length)
            for fault in faults
            if isinstance(fault, BrokerRestart)
        )
        spans: list[tuple[int, int]] = []
        for begin_ns, end_ns in found:
            if spans and begin_ns <= spans[-1][1]:
                spans[-1] = (spans[-1][0], max(spans[-1][1], end_ns))
            else:
                spans.append((begin_ns, end_ns))
        self.spans = tuple(spans)
        self._seed = seed

    def client(self, name: str, round_trip_ns: int) -> Client:
        """A client by its name, with the usual round trip between it and the broker."""
        own = key(self._seed, crc32(name.encode()), _SALT)
        return Client(self.spans, own, _ROUND_TRIPS * round_trip_ns)
