"""Control traffic of one device over the link: heartbeats and messages on one bearer, in order."""

from bisect import bisect_right
from itertools import pairwise
from zlib import crc32

import numpy as np

from config.units import NS_PER_MS, NS_PER_S
from ingest import bins
from ingest.messages import Asset, Times
from simulator.device import PANE_NS, Columns, Ints, Steps
from simulator.link.link import Bearer, Direction
from simulator.plant.terminal import Terminal

SLICE = "control"
"""Slice of control traffic, where the network has slices."""
BEAT_NS = 200 * NS_PER_MS
BEAT_BYTES = 100
ORDER_BYTES = 700
STATE_BYTES = 1_500
RETRY_NS = NS_PER_S
"""A control message that was lost is sent again after this time without an answer."""
_KEEP_NS = 10 * NS_PER_S
_BINS = 1 << 13
_PATIENCE = 3_600 * NS_PER_S // BEAT_NS
"""Heartbeats waited for on a dead link: an hour of them."""


class Lane:
    """One direction. Heartbeats stand on a fixed grid and are computed as columns, each time up to
    the next message that something waits for, so both share one bearer in time order."""

    def __init__(self, bearer: Bearer, first_beat_ns: int) -> None:
        self._bearer = bearer
        self._beat_ns = first_beat_ns
        self._sent: list[Times] = []
        self._arrived: list[Times] = []
        self._recent: list[int] = []
        self.made = 0
        self.lost = 0

    def advance(self, to_ns: int) -> None:
        """Send all heartbeats up to and including a time."""
        count = (to_ns - self._beat_ns) // BEAT_NS + 1
        if count <= 0:
            return
        times = self._beat_ns + BEAT_NS * np.arange(count, dtype=np.int64)
        self._beat_ns += BEAT_NS * count
        sizes = np.full(count, BEAT_BYTES, dtype=np.int64)
        arrived = np.asarray(self._bearer.send_many(times, sizes), dtype=np.int64)
        came = arrived >= 0
        self._note(times[came], arrived[came], count)

    def send(self, t_ns: int, n_bytes: int) -> int | None:
        """Arrival of one message sent now, ``None`` if the link loses it."""
        self.advance(t_ns)
        arrival_ns = self._bearer.send(t_ns, n_bytes)
        came = [] if arrival_ns is None else [arrival_ns]
        times = np.array([t_ns] if came else [], dtype=np.int64)
        self._note(times, np.array(came, dtype=np.int64), 1)
        return arrival_ns

    def _note(self, sent: Times, arrived: Times, made: int) -> None:
        self.made += made
        self.lost += made - len(arrived)
        self._sent.append(sent)
        self._arrived.append(arrived)
        self._recent += arrived.tolist()

    def silence(self, from_ns: int, to_ns: int, limit_ns: int) -> tuple[int, int] | None:
        """The first time in ``[from_ns, to_ns)`` at which nothing was heard for ``limit_ns``, and
        when something is heard again. Heartbeats are sent ahead up to then: nobody else may have
        to send before."""
        self.advance(to_ns)
        self.forget(from_ns)
        heard = sorted(self._recent)
        at = bisect_right(heard, from_ns)
        marks = [heard[at - 1] if at else from_ns, *heard[at:]]
        for last_ns, next_ns in pairwise(marks):
            quiet_ns = max(last_ns + limit_ns, from_ns)
            if quiet_ns >= to_ns:
                return None
            if next_ns > quiet_ns:
                return quiet_ns, next_ns
        quiet_ns = max(marks[-1] + limit_ns, from_ns)
        if quiet_ns >= to_ns:
            return None
        known = len(self._recent)
        for _ in range(_PATIENCE):
            if len(self._recent) > known:
                break
            self.advance(self._beat_ns)
        return quiet_ns, min(self._recent[known:], default=self._beat_ns)

    def delays(self, before_ns: int) -> tuple[Times, Ints]:
        """Arrivals before a time that were not yet asked for, and how long each was under way."""
        if not self._sent:
            empty = np.empty(0, dtype=np.int64)
            return empty, empty
        sent, arrived = np.concatenate(self._sent), np.concatenate(self._arrived)
        due = arrived < before_ns
        self._sent, self._arrived = [sent[~due]], [arrived[~due]]
        return arrived[due], arrived[due] - sent[due]

    def forget(self, before_ns: int) -> None:
        """Drop arrivals that no watchdog will ask for."""
        self._recent = [t for t in self._recent if t >= before_ns - _KEEP_NS]


SURVIVAL_NS = BEAT_NS
"""How long the application lives without the message it expected (TS 22.104 survival time, for the
traffic of mobile robots: one transfer interval)."""
DEADLINE_NS = 10 * NS_PER_MS
"""The delay budget of 5QI 82 and 83; a later message counts as a miss."""

SERVICE_CHANNELS = {
    f"{way}_{what}": "1" for way in ("uplink", "downlink") for what in ("up", "failures", "misses")
}


class Service:
    """One direction as TS 22.104 sees it: up until nothing came for a beat and the survival time.

    ``misses`` is the longest run of messages beyond the deadline that a pane saw the end or a
    further part of.
    """

    def __init__(self, way: str, now_ns: int) -> None:
        self.way = way
        self.up = Steps(now_ns, 1)
        self.failures = Steps(now_ns, 0)
        self._heard_ns = now_ns
        self._missed = 0

    def note(self, arrived: Times, to_ns: int) -> None:
        """Follow arrivals, oldest first, up to a time."""
        limit_ns = BEAT_NS + SURVIVAL_NS
        marks = np.concatenate(([self._heard_ns], arrived))
        for index in np.nonzero(np.diff(marks) > limit_ns)[0].tolist():
            self._fail(int(marks[index]) + limit_ns)
            self.up.set(int(marks[index + 1]), 1)
        self._heard_ns = int(marks[-1])
        if to_ns - self._heard_ns > limit_ns:
            self._fail(self._heard_ns + limit_ns)

    def _fail(self, t_ns: int) -> None:
        if self.up.last:
            self.up.set(t_ns, 0)
            self.failures.add(t_ns)

    def longest_miss(self, delays: Ints) -> int:
        """The longest run of misses among delays in order of arrival, begun earlier or not."""
        longest = 0
        for late in (delays > DEADLINE_NS).tolist():
            self._missed = self._missed + 1 if late else 0
            longest = max(longest, self._missed)
        return longest

    def reading(self, t_ns: int) -> dict[str, tuple[int, ...]]:
        """The service at a time."""
        return {
            f"{self.way}_up": (self.up.get(t_ns),),
            f"{self.way}_failures": (self.failures.get(t_ns),),
        }


class Control:
    """Both directions of one device, and what it publishes of their delays and their service."""

    def __init__(self, terminal: Terminal, asset: Asset, now_ns: int) -> None:
        self.asset = asset
        self.terminal = terminal
        phase_ns = crc32(str(asset).encode()) % BEAT_NS
        up, down = (terminal.bearer(way, SLICE) for way in (Direction.UP, Direction.DOWN))
        self.up, self.down = Lane(up, now_ns + phase_ns), Lane(down, now_ns + phase_ns)
        self.services = (Service("uplink", now_ns), Service("downlink", now_ns))

    def first_reports(self, t_ns: int) -> list[Columns]:
        """Both directions are up."""
        return [self._service(service, t_ns) for service in self.services]

    def _service(self, service: Service, t_ns: int) -> Columns:
        return Columns(self.asset, "service", t_ns, (t_ns,), service.reading(t_ns))

    def reports(self, start_ns: int, end_ns: int) -> list[Columns]:
        """Per second of arrival and direction a histogram of delays; one report per pane."""
        keys: list[Ints] = []
        out: list[Columns] = []
        misses: list[list[int]] = []
        for down, lane in enumerate((self.up, self.down)):
            lane.advance(end_ns)
            arrived, delay = lane.delays(end_ns)
            lane.forget(end_ns)
            changes, missed = self._serve(self.services[down], arrived, delay, start_ns, end_ns)
            out += changes
            misses.append(missed)
            second = (arrived - start_ns) // NS_PER_S
            keys.append((second * 2 + down) * _BINS + np.minimum(bins.bin_of(delay), _BINS - 1))
        found, count = np.unique(np.concatenate(keys), return_counts=True)
        number, rest = found % _BINS, found // _BINS
        t_ns = start_ns + rest // 2 * NS_PER_S
        panes = range(start_ns - start_ns % PANE_NS, end_ns, PANE_NS)
        for pane_ns, *missed in zip(panes, *misses, strict=False):
            said_ns = min(pane_ns + PANE_NS, end_ns)
            ch = {f"{s.way}_misses": (n,) for s, n in zip(self.services, missed, strict=True)}
            out.append(Columns(self.asset, "service", said_ns, (said_ns - 1,), ch))
            low, high = np.searchsorted(t_ns, (pane_ns, pane_ns + PANE_NS)).tolist()
            if low < high:
                ch = {
                    "bin": number[low:high].tolist(),
                    "count": count[low:high].tolist(),
                    "down": (rest[low:high] % 2).tolist(),
                }
                sent_ns = min(pane_ns + PANE_NS, end_ns)
                out.append(Columns(self.asset, "link", sent_ns, t_ns[low:high].tolist(), ch))
        return out

    def _serve(
        self, service: Service, arrived: Times, delay: Ints, start_ns: int, end_ns: int
    ) -> tuple[list[Columns], list[int]]:
        """Changes of a service, to be said at once, and its misses in each pane."""
        order = np.argsort(arrived, kind="stable")
        arrived, delay = arrived[order], delay[order]
        service.note(arrived, end_ns)
        changes = service.up.between(start_ns, end_ns)
        panes = np.arange(start_ns - start_ns % PANE_NS, end_ns + PANE_NS, PANE_NS)
        cuts = np.searchsorted(arrived, panes).tolist()
        misses = [service.longest_miss(delay[low:high]) for low, high in pairwise(cuts)]
        return [self._service(service, t_ns) for t_ns, _ in changes], misses
