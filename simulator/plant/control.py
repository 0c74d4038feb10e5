"""Control traffic of one device over the link: heartbeats and messages on one bearer, in order."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar, cast
from zlib import crc32

import numpy as np
import simpy

from config.units import NS_PER_MS, NS_PER_S
from ingest import bins
from ingest.messages import Asset, Times
from simulator.device import (
    Columns,
    Ints,
    Process,
    Report,
    Steps,
    Stretch,
    World,
    event_reports,
    pane_of,
    spacing_of,
)
from simulator.link.link import Bearer, Direction
from simulator.plant.silences import Drawn, Heartbeats, Silences
from simulator.plant.terminal import Terminal

SLICE = "control"
"""Slice of control traffic, where the network has slices."""
BEAT_NS = 200 * NS_PER_MS
BEAT_BYTES = 100
CONTROL_BYTES = (120, 120)
"""A question or a reading up, an answer or a command down."""
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

    foresees: ClassVar[bool] = False
    """Whether ``quiet`` may be asked while somebody else may send."""

    def __init__(self, bearer: Bearer | Drawn, first_beat_ns: int) -> None:
        self._bearer = bearer
        self._beat_ns = first_beat_ns
        self._sent, self._arrived = array("q"), array("q")
        self._coming = array("q")
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
        self.made += count
        came = arrived >= 0
        if not came.all():
            times, arrived = times[came], arrived[came]
            self.lost += count - len(times)
        here = arrived.tobytes()
        self._sent.frombytes(times.tobytes())
        self._arrived.frombytes(here)
        self._coming.frombytes(here)

    def send(self, t_ns: int, n_bytes: int) -> int | None:
        """Arrival of one message sent now, ``None`` if the link loses it. Where the lane
        ``foresees``, it may be one to come, in order of time."""
        if t_ns >= self._beat_ns:
            self.advance(t_ns)
        return self._send(t_ns, n_bytes)

    def _send(self, t_ns: int, n_bytes: int) -> int | None:
        arrival_ns = self._bearer.send(t_ns, n_bytes)
        self.made += 1
        if arrival_ns is None:
            self.lost += 1
            return None
        self._sent.append(t_ns)
        self._arrived.append(arrival_ns)
        if not self.foresees:  # where heartbeats are drawn, so is what is heard
            self._coming.append(arrival_ns)
        return arrival_ns

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


class CalmLane(Lane):
    """One direction on which heartbeats are not sent: when they would be missing is drawn, and so
    is what each message takes."""

    foresees = True

    def __init__(self, bearer: Drawn, first_beat_ns: int, silences: Silences) -> None:
        super().__init__(bearer, first_beat_ns)
        self._drawn = bearer
        self._silences = silences
        self._calm_ns = 0
        """None begins from the last question to then."""

    @property
    def next_beat_ns(self) -> int:
        """When the next heartbeat would be sent after the last question."""
        return self._heard_ns + BEAT_NS

    def advance(self, to_ns: int) -> None:
        """There is nothing to send."""

    def ahead(self, n: int, n_bytes: int) -> list[int]:
        """See ``Drawn.ahead``."""
        return self._drawn.ahead(n, n_bytes)

    def send_in_turn(self, t_ns: Sequence[int], n_bytes: int) -> list[int]:
        """See ``Drawn.send_in_turn``."""
        arrivals_ns = self._drawn.send_in_turn(t_ns, n_bytes)
        self.made += len(t_ns)
        self._sent.extend(t_ns)
        self._arrived.extend(arrivals_ns)
        return arrivals_ns

    def heard_ns(self, t_ns: int) -> int:
        starts, _ = self._silences.between(t_ns, t_ns + 1)
        self._heard_ns = max(self._heard_ns, starts[0] if starts else t_ns)
        return self._heard_ns

    def quiet(self, from_ns: int, to_ns: int, limit_ns: int) -> int | None:
        if to_ns <= self._calm_ns:  # as it mostly is
            return None
        starts, ends = self._silences.between(from_ns, to_ns)
        if not starts:
            self._calm_ns = self._silences.begins_ns()
        for last_ns, next_ns in zip(starts, ends, strict=True):
            quiet_ns = max(last_ns + limit_ns, from_ns)
            if quiet_ns < min(next_ns, to_ns):
                return quiet_ns
        return None

    def hears(self, from_ns: int, to_ns: int) -> int | None:
        _, ends = self._silences.between(from_ns, from_ns + 1)
        return ends[0] if ends else from_ns + 1

    def gaps(self, after_ns: int, to_ns: int) -> tuple[Times, Times]:
        """Beginnings and ends of the silences that touch a stretch; ask stretch after stretch."""
        return self._silences.told(after_ns, to_ns)


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
    further part of. What is drawn can be drawn ``again``: of that nothing is kept that was told.
    """

    def __init__(self, way: str, now_ns: int, again: Callable[[], Silences] | None = None) -> None:
        self.way = way
        self._up = Steps(now_ns, 1)
        self._failures = Steps(now_ns, 0)
        self._began_ns = self._heard_ns = now_ns
        self._missed = 0
        self._again = again

    @property
    def up(self) -> Steps:
        """Whether it was up, from the start as far as it was followed. Asking may cost seconds
        after months, and is answered anew each time."""
        return self._whole()._up

    @property
    def failures(self) -> Steps:
        """How often it has failed; see ``up``."""
        return self._whole()._failures

    def _whole(self) -> "Service":
        if self._again is None:
            return self
        whole = Service(self.way, self._began_ns)
        if self._heard_ns > self._began_ns:
            whole.note_gaps(*self._again().told(self._began_ns, self._heard_ns), self._heard_ns)
        return whole

    def forget(self) -> None:
        """All that was told so far is told, and need not be kept."""
        if self._again is not None:
            self._up, self._failures = (
                Steps(steps.t[-1], steps.last) for steps in (self._up, self._failures)
            )

    def note(self, arrived: Times, to_ns: int) -> None:
        """Follow arrivals, oldest first, up to a time."""
        limit_ns = BEAT_NS + SURVIVAL_NS
        marks = np.concatenate(([self._heard_ns], arrived))
        for index in np.nonzero(np.diff(marks) > limit_ns)[0].tolist():
            self._fail(int(marks[index]) + limit_ns)
            self._up.set(int(marks[index + 1]), 1)
        self._heard_ns = int(marks[-1])
        if to_ns - self._heard_ns > limit_ns:
            self._fail(self._heard_ns + limit_ns)

    def note_gaps(self, last_ns: Times, next_ns: Times, to_ns: int) -> None:
        """Follow what is known of the silences up to a time: when each began and ended."""
        fails_ns = last_ns + BEAT_NS + SURVIVAL_NS
        down = (fails_ns < next_ns) & (fails_ns <= to_ns)
        if down.any():
            fails_ns, next_ns = fails_ns[down], next_ns[down]
            changes = np.stack((fails_ns, next_ns), axis=1).ravel()
            values = np.tile((0, 1), len(fails_ns))
            known = int(fails_ns[0] <= self._heard_ns)  # that it fell into the first one
            changes, values = changes[known:], values[known:]
            over = int(next_ns[-1] > to_ns)  # the last one lasts
            self._up.extend(changes[: len(changes) - over], values[: len(values) - over])
            self._failures.add_many(fails_ns[known:])
        self._heard_ns = to_ns

    def _fail(self, t_ns: int) -> None:
        if self._up.last:
            self._up.set(t_ns, 0)
            self._failures.add(t_ns)

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

    @property
    def logs(self) -> dict[str, Steps]:
        """What is told of the service, by channel, since it was told last."""
        return {f"{self.way}_up": self._up, f"{self.way}_failures": self._failures}


class Control:
    """Both directions of one device, and what it publishes of their delays and their service."""

    def __init__(
        self, terminal: Terminal, asset: Asset, now_ns: int, heartbeats: Heartbeats | None = None,
        sizes: tuple[int, int] = CONTROL_BYTES,
    ) -> None:  # fmt: skip
        self.asset = asset
        self.terminal = terminal
        phase_ns = crc32(str(asset).encode()) % BEAT_NS
        ways = (Direction.UP, Direction.DOWN)
        again: list[Callable[[], Silences] | None] = [None, None]
        if heartbeats is None:
            self.up, self.down = (
                Lane(terminal.bearer(way, SLICE), now_ns + phase_ns) for way in ways
            )
        else:
            lanes: list[CalmLane] = []
            for at, (way, n_bytes) in enumerate(zip(ways, sizes, strict=True)):
                terminal.add(bearer := heartbeats.drawn(asset, way, SLICE), way, SLICE)
                again[at] = drawn = partial(heartbeats.silences, asset, way, SLICE, n_bytes)
                lanes.append(CalmLane(bearer, now_ns + phase_ns, drawn()))
            self.up, self.down = lanes
        self.services = tuple(
            Service(name, now_ns, drawn)
            for name, drawn in zip(("uplink", "downlink"), again, strict=True)
        )

    def first_reports(self, t_ns: int) -> list[Columns]:
        """Both directions are up."""
        return [self._service(service, t_ns) for service in self.services]

    def _service(self, service: Service, t_ns: int) -> Columns:
        told = {name: (steps.get(t_ns),) for name, steps in service.logs.items()}
        return Columns(self.asset, "service", t_ns, (t_ns,), told)

    def reports(self, stretch: Stretch) -> list[Report]:
        """Changes of a service; per second of arrival and direction a histogram of delays, one
        report per pane, whose last row has the misses of the pane. Bundled, changes only."""
        start_ns, end_ns = stretch.after_ns, stretch.to_ns
        pane_ns = pane_of(spacing_of(stretch.times))
        panes = [*range(start_ns - start_ns % pane_ns, end_ns, pane_ns)]
        edges = [*panes, panes[-1] + pane_ns]
        keys: list[Ints] = []
        out: list[Report] = []
        misses: list[list[int] | list[None]] = []
        for way, (lane, service) in enumerate(
            zip((self.up, self.down), self.services, strict=True)
        ):
            lane.advance(end_ns)
            arrived, delay = lane.delays(end_ns)
            out += self._changes(service, lane, arrived, stretch)
            if stretch.bundled:
                continue
            known = not isinstance(lane, CalmLane)  # heartbeats that are not sent may be missed too
            misses.append(_misses(service, arrived, delay, edges) if known else [None] * len(panes))
            second = (arrived - start_ns) // NS_PER_S
            keys.append((second * 2 + way) * _BINS + np.minimum(bins.bin_of(delay), _BINS - 1))
        if stretch.bundled:
            return out
        found, count = np.unique(np.concatenate(keys), return_counts=True)
        rest = found // _BINS
        t_ns = start_ns + rest // 2 * NS_PER_S
        cuts = np.searchsorted(t_ns, edges).tolist()
        stamps: list[int] = t_ns.tolist()
        columns = (found % _BINS, count, rest % 2)
        number, counts, down = (cast(list[int | None], c.tolist()) for c in columns)
        for begin_ns, (low, high), *missed in zip(panes, pairwise(cuts), *misses, strict=False):
            sent_ns = min(begin_ns + pane_ns, end_ns)
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

    def _changes(
        self, service: Service, lane: Lane, arrived: Times, stretch: Stretch
    ) -> list[Report]:
        after_ns, to_ns = stretch.after_ns, stretch.to_ns
        if isinstance(lane, CalmLane):
            service.note_gaps(*lane.gaps(after_ns, to_ns), to_ns)
        else:
            service.note(arrived, to_ns)
        up, _ = service.logs.values()
        at = up.times(after_ns, to_ns)
        columns = {name: steps.at(at).tolist() for name, steps in service.logs.items()}
        service.forget()
        return event_reports(self.asset, "service", stretch, at.tolist(), columns)


def _misses(service: Service, arrived: Times, delay: Ints, edges: Sequence[int]) -> list[int]:
    """The misses of a service in each pane."""
    if not (delay > DEADLINE_NS).any():
        return [service.longest_miss(delay)] * (len(edges) - 1)
    cuts = np.searchsorted(arrived, edges).tolist()
    return [service.longest_miss(delay[low:high]) for low, high in pairwise(cuts)]


def deliver(
    env: World, lane: Lane, n_bytes: int, then: Callable[[], None], *, tick_ns: int = 1,
    after_ns: int = 0,
) -> None:  # fmt: skip
    """``arrive`` for who does not wait for it: call when it is there, and some time has passed."""
    arrival_ns = lane.send(env.now, n_bytes)
    if arrival_ns is None:
        later(env, RETRY_NS, lambda: deliver(
            env, lane, n_bytes, then, tick_ns=tick_ns, after_ns=after_ns))  # fmt: skip
        return
    later(env, -(-arrival_ns // tick_ns) * tick_ns + after_ns - env.now, then)


def later(env: World, delay_ns: int, call: Callable[[], object]) -> None:
    """Call after some time: an event without a process that waits for it."""

    def happens(_: simpy.Event) -> None:
        call()

    event: Any = env.timeout(delay_ns)  # its callbacks have no type of their own
    event.callbacks.append(happens)


def arrive(env: World, lane: Lane, n_bytes: int, tick_ns: int = 1) -> Process:
    """Send one message now and wait until it is there; a lost one is sent again.

    The receiver looks every ``tick_ns``.
    """
    while (arrival_ns := lane.send(env.now, n_bytes)) is None:
        yield env.timeout(RETRY_NS)
    yield env.timeout(-(-arrival_ns // tick_ns) * tick_ns - env.now)
