"""Control traffic of one device over the link: heartbeats and messages on one bearer, in order."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import cast
from zlib import crc32

import numpy as np

from config.units import NS_PER_MS, NS_PER_S
from ingest import bins
from ingest.messages import Asset, Times
from simulator.device import PANE_NS, Columns, Ints, Process, Steps, World
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
_BINS = 1 << 13
_FEW = 4
"""Up to as many heartbeats are cheaper one by one than as columns."""


class Lane:
    """One direction. Heartbeats stand on a fixed grid and are sent as late as possible: before the
    next message, or when somebody asks what was heard. So both share one bearer in order of time,
    and the bearer keeps it: nothing arrives before what was sent before it."""

    def __init__(self, bearer: Bearer, first_beat_ns: int) -> None:
        self._bearer = bearer
        self._beat_ns = first_beat_ns
        self._sent: list[int] = []
        self._arrived: list[int] = []
        self._coming: list[int] = []
        """Arrivals after ``_heard_ns``, in order."""
        self._heard_ns = first_beat_ns
        """The last arrival that was asked about; a lane begins as if something had just come."""
        self.made = 0
        self.lost = 0

    @property
    def next_beat_ns(self) -> int:
        """When the next heartbeat will be sent."""
        return self._beat_ns

    def advance(self, to_ns: int) -> None:
        """Send all heartbeats up to and including a time. Nothing can be sent before it any more,
        nor may the device move otherwise than it was said to."""
        count = (to_ns - self._beat_ns) // BEAT_NS + 1
        if count <= 0:
            return
        if count <= _FEW:
            for _ in range(count):
                self._send(self._beat_ns, BEAT_BYTES)
                self._beat_ns += BEAT_NS
            return
        times = self._beat_ns + BEAT_NS * np.arange(count, dtype=np.int64)
        self._beat_ns += BEAT_NS * count
        sizes = np.full(count, BEAT_BYTES, dtype=np.int64)
        arrived = np.asarray(self._bearer.send_many(times, sizes), dtype=np.int64)
        came = arrived >= 0
        self.made += count
        self.lost += count - int(came.sum())
        self._note(times[came].tolist(), arrived[came].tolist())

    def send(self, t_ns: int, n_bytes: int) -> int | None:
        """Arrival of one message sent now, ``None`` if the link loses it."""
        self.advance(t_ns)
        return self._send(t_ns, n_bytes)

    def _send(self, t_ns: int, n_bytes: int) -> int | None:
        arrival_ns = self._bearer.send(t_ns, n_bytes)
        self.made += 1
        if arrival_ns is None:
            self.lost += 1
        else:
            self._note((t_ns,), (arrival_ns,))
        return arrival_ns

    def _note(self, sent: Sequence[int], arrived: Sequence[int]) -> None:
        self._sent += sent
        self._arrived += arrived
        self._coming += arrived

    def heard_ns(self, t_ns: int) -> int:
        """The last arrival up to a time; heartbeats up to then are sent. Ask in order of time."""
        if t_ns >= self._beat_ns:
            self.advance(t_ns)
        if self._coming and self._coming[0] <= t_ns:
            self._pass(t_ns)
        return self._heard_ns

    def _pass(self, t_ns: int) -> None:
        at = bisect_right(self._coming, t_ns)
        if at:
            self._heard_ns = self._coming[at - 1]
            del self._coming[:at]

    def quiet(self, from_ns: int, to_ns: int, limit_ns: int) -> int | None:
        """The first time in ``[from_ns, to_ns)`` at which nothing was heard for ``limit_ns``.

        No heartbeat later than the time returned (``None``: than ``to_ns``) is sent, since silence
        can change what is sent next and where the device is. Nobody else may have to send on this
        lane before that time. Ask in order of time, and for when it is over ask ``hears``.
        """
        quiet_ns = max(self.heard_ns(from_ns) + limit_ns, from_ns)
        while quiet_ns < to_ns:
            heard_ns = self.heard_ns(quiet_ns)
            if heard_ns + limit_ns <= quiet_ns:
                return quiet_ns
            quiet_ns = heard_ns + limit_ns
        return None

    def hears(self, from_ns: int, to_ns: int) -> int | None:
        """The first arrival after ``from_ns``, which may lie after ``to_ns``, among all that is
        sent up to ``to_ns``; ``None`` if the link lost that. What is long past may be told as any
        later arrival that was asked about.

        Heartbeats are sent one by one until one comes through. Without one wait until ``to_ns`` and
        ask again; where somebody else may send on this lane, ``to_ns`` must be now, and the time to
        ask again is ``next_beat_ns``.
        """
        if self._heard_ns > from_ns:
            return self._heard_ns
        while True:
            at = bisect_right(self._coming, from_ns)
            if at < len(self._coming):
                return self._coming[at]
            if self._beat_ns > to_ns:
                return None
            self.advance(self._beat_ns)

    def delays(self, before_ns: int) -> tuple[Times, Ints]:
        """Arrivals before a time that were not yet asked for, in order, and how long each was under
        way."""
        at = bisect_left(self._arrived, before_ns)
        sent = np.array(self._sent[:at], dtype=np.int64)
        arrived = np.array(self._arrived[:at], dtype=np.int64)
        del self._sent[:at], self._arrived[:at]
        self._pass(before_ns - 1)
        return arrived, arrived - sent


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
        missed = delays > DEADLINE_NS
        if not missed.any():  # as it mostly is
            self._missed = 0 if len(missed) else self._missed
            return 0
        for late in missed.tolist():
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
        """Changes of a service at once; per second of arrival and direction a histogram of delays,
        one report per pane, whose last row has the misses of the pane."""
        keys: list[Ints] = []
        out: list[Columns] = []
        misses: list[list[int]] = []
        for way, lane in enumerate((self.up, self.down)):
            lane.advance(end_ns)
            arrived, delay = lane.delays(end_ns)
            changes, missed = self._serve(self.services[way], arrived, delay, start_ns, end_ns)
            out += changes
            misses.append(missed)
            second = (arrived - start_ns) // NS_PER_S
            keys.append((second * 2 + way) * _BINS + np.minimum(bins.bin_of(delay), _BINS - 1))
        found, count = np.unique(np.concatenate(keys), return_counts=True)
        rest = found // _BINS
        t_ns = start_ns + rest // 2 * NS_PER_S
        panes = range(start_ns - start_ns % PANE_NS, end_ns, PANE_NS)
        cuts = np.searchsorted(t_ns, [*panes, panes[-1] + PANE_NS]).tolist()
        stamps: list[int] = t_ns.tolist()
        columns = (found % _BINS, count, rest % 2)
        number, counts, down = (cast(list[int | None], c.tolist()) for c in columns)
        for pane_ns, (low, high), *missed in zip(panes, pairwise(cuts), *misses, strict=False):
            sent_ns = min(pane_ns + PANE_NS, end_ns)
            times = stamps[low:high] or [sent_ns - 1]
            ch: dict[str, list[int | None]] = {
                "bin": number[low:high] or [None],
                "count": counts[low:high] or [None],
                "down": down[low:high] or [None],
            }
            for service, n in zip(self.services, missed, strict=True):
                ch[f"{service.way}_misses"] = [*[None] * (len(times) - 1), n]
            out.append(Columns(self.asset, "link", sent_ns, times, ch))
        return out

    def _serve(
        self, service: Service, arrived: Times, delay: Ints, start_ns: int, end_ns: int
    ) -> tuple[list[Columns], list[int]]:
        """Changes of a service, to be said at once, and its misses in each pane."""
        service.note(arrived, end_ns)
        changes = service.up.between(start_ns, end_ns)
        panes = np.arange(start_ns - start_ns % PANE_NS, end_ns + PANE_NS, PANE_NS)
        if not (delay > DEADLINE_NS).any():
            misses = [service.longest_miss(delay)] * (len(panes) - 1)
            return [self._service(service, t_ns) for t_ns, _ in changes], misses
        cuts = np.searchsorted(arrived, panes).tolist()
        misses = [service.longest_miss(delay[low:high]) for low, high in pairwise(cuts)]
        return [self._service(service, t_ns) for t_ns, _ in changes], misses


def arrive(env: World, lane: Lane, n_bytes: int, tick_ns: int = 1) -> Process:
    """Send one message now and wait until it is there; a lost one is sent again.

    The receiver looks every ``tick_ns``.
    """
    while (arrival_ns := lane.send(env.now, n_bytes)) is None:
        yield env.timeout(RETRY_NS)
    yield env.timeout(-(-arrival_ns // tick_ns) * tick_ns - env.now)
