"""The link: for every device and direction, when what was sent arrives.

Theory of operation
===================

    sent ─► near hops ─► air (``Air``) ─► far hops ─► own arrival ─► transport ─► arrival

Every hop keeps the order. Each bearer rolls its dice from a stream of its own, message by message
in a fixed schedule of blocks (16, 32, ... 256): the dice of the n-th message depend on nothing but
the seed, the device, the direction and n. Hence ``send`` and ``send_many`` may be mixed and cut at
will. What devices share is in the ``Link`` (the frame in ``Cell``; cells, their declared load and
faults in ``Surroundings``), what is a device's own in its ``Bearer``, ``Air`` and ``Spot``.
"""

from collections.abc import Sequence
from enum import IntEnum
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from config.errors import ConfigError
from config.faults import Fault
from simulator.link.cellular import Cell, Scheduled
from simulator.link.columns import (
    AIR_PARTS,
    ODDS,
    Air,
    Flags,
    Ints,
    Record,
    narrowed,
    roll_hop,
    roll_odds,
)
from simulator.link.layout import Layout
from simulator.link.profile import Cellular, Profile, Shadowing, Tcp, Udp, Wifi, Wired
from simulator.link.restarts import Client, Restarts
from simulator.link.shadowing import Fade
from simulator.link.surroundings import CAUSES, Spot, Surroundings
from simulator.link.transport import Datagrams, Stream, Transport
from simulator.link.wifi import Contended
from simulator.link.wired import Wire

_FIRST_BLOCK, _LAST_BLOCK = 16, 256
_FEW = 24
"""Below this many messages a loop is faster than columns."""
_ACK_BYTES = 60
_NO_RUN = 0xA11CE
_NO_CELL, _NO_DEPTH = np.zeros(1, np.int64), np.zeros(1)
_TRACE = (
    "sent_ns",
    "arrival_ns",
    "n_bytes",
    "hops_ns",
    "core_ns",
    "gap_ns",
    "order_ns",
    "stall_ns",
    "cell",
    "cause",
)
_TIMES = 2
"""So many of them, the first, are times of day."""
TRACED = (*(name for name in _TRACE if name != "order_ns"), *AIR_PARTS)
"""The columns of a trace that was taken."""
_BROKER, _DROP, _RADIO = map(CAUSES.index, ("broker", "drop", "radio"))
_MAX_LOSSES = 6
"""Losses in a row of one segment; a bound for the doubling of the timeout."""


class Direction(IntEnum):
    """Up is from the device to the MEC."""

    UP = 0
    DOWN = 1


class Link:
    """A network of one profile. Every device's delays are its own: more devices change nothing.

    Faults begin after ``start_ns``; a layout matters to bearers that are moved.
    """

    def __init__(
        self,
        profile: Profile,
        seed: int,
        layout: Layout | None = None,
        faults: Sequence[Fault] = (),
        start_ns: int = 0,
    ) -> None:
        self.profile = profile
        self.faults = tuple(faults)
        self._seed, self._layout = seed, layout
        self._cell = Cell(profile.radio, seed) if profile.radio.kind == "cellular" else None
        self._around = Surroundings(profile, seed, layout, faults, start_ns)
        self._restarts = Restarts(faults, start_ns, seed)
        self._typical_ns: dict[Direction, int] = {}
        if profile.transport.kind == "tcp":
            self._typical_ns = {
                direction: _typical_ns(profile, direction) for direction in Direction
            }

    @property
    def cell_names(self) -> tuple[str, ...]:
        """Of the cells by number, as a trace has it; a wire is one of its own."""
        return self._around.cell_names

    @property
    def described(self) -> str:
        """All that is known of the network itself: what neither faults nor the seed decide."""
        layout = "" if self._layout is None else self._layout.model_dump_json()
        return self.profile.model_dump_json() + layout

    def alike(self) -> "Link":
        """The same network with dice of its own, those of no run, and without faults."""
        return Link(self.profile, _NO_RUN, self._layout)

    def bearer(
        self, ue: str, direction: Direction, slice: str | None = None, *, trace: bool = False
    ) -> "Bearer":
        """A fresh bearer, as if nothing had been sent yet. A device's bearers of different slices
        have dice of their own, and one journey."""
        own = () if slice is None else (crc32(slice.encode()),)
        return self._bearer(ue, direction, slice, trace, own)

    def confirmed(
        self, ue: str, direction: Direction, slice: str | None = None, *, inflight: int = 20
    ) -> "Confirmed":
        """A bearer under MQTT's QoS 1: acknowledgements ride the other direction, on their own
        dice, and at most ``inflight`` messages wait for theirs."""
        if self.profile.transport.kind != "tcp":
            raise ConfigError("QoS 1 needs TCP", at=self.profile.name)
        back = self._bearer(ue, Direction(1 - direction), slice, False, (0xAC,))
        return Confirmed(self._bearer(ue, direction, slice, False, ()), back, inflight)

    def plain(self, ue: str, delay_ns: int) -> "Plain":
        """The connection of something that stands beside the MEC: a plain wire, either way."""
        return Plain(delay_ns, self._restarts.client(ue, 2 * delay_ns))

    def _bearer(
        self, ue: str, direction: Direction, slice: str | None, trace: bool, own: tuple[int, ...]
    ) -> "Bearer":
        device = crc32(ue.encode())
        around, radio = self._around, self.profile.radio
        fade = None
        if isinstance(radio, Cellular):
            fade = Fade(radio.shadowing, self._seed, device)
        elif isinstance(radio, Wifi):
            fade = _steady(radio, self._seed, device) if around.matter else None
        spot = Spot(around, fade, device) if around.matter else None
        return Bearer(
            self.profile,
            np.random.default_rng([self._seed, device, int(direction), *own]),
            self._air(direction, around.slice_name(slice)),
            self._transport(direction, ue, spot),
            direction,
            fade,
            spot,
            trace=trace,
        )

    def _air(self, direction: Direction, slice: str) -> Air:
        radio = self.profile.radio
        uplink = direction is Direction.UP
        backlog = self._around.backlog(slice, uplink=uplink)
        if isinstance(radio, Wifi):
            return Contended(radio, backlog)
        if isinstance(radio, Wired):
            return Wire(radio, backlog)
        assert self._cell is not None
        grant = radio.slices.named[slice].grant if slice else None
        return Scheduled(self._cell, uplink=uplink, grant=grant, backlog=backlog)

    def _transport(self, direction: Direction, ue: str, spot: Spot | None) -> Transport:
        spec = self.profile.transport
        client = self._restarts.client(ue, sum(self._typical_ns.values()))
        if isinstance(spec, Tcp):
            return Stream(spec, self._typical_ns[Direction(1 - direction)], client, spot)
        return Datagrams(client)


class Bearer:
    """One direction of one device. Messages are handed over in order of time."""

    def __init__(
        self,
        profile: Profile,
        rng: np.random.Generator,
        air: Air,
        transport: Transport,
        direction: Direction,
        fade: Fade | None,
        spot: Spot | None,
        *,
        trace: bool,
    ) -> None:
        self.lost: dict[str, int] = {}
        """Messages that never arrive, by cause: ``radio`` gave up, ``drop`` behind it, or a fault
        (``outage``, ``backhaul``, ``broker``)."""
        self._rng, self._air, self._transport = rng, air, transport
        self._fade, self._spot = fade, spot
        up, down = profile.up, profile.down
        self._up = direction is Direction.UP
        self._near, self._far = (up.device, up.network) if self._up else (down.network, down.device)
        self._core = profile.core
        self._drop_ratio = profile.drop_ratio
        self._mss_bytes = profile.transport.mss_bytes
        self._loses = profile.transport.kind == "udp"
        self._drowns = profile.radio.kind == "wifi"
        self._t_ns = self._ready_ns = 0
        self._dice: list[NDArray[np.int32] | Ints] = []
        """A row for each question, of the whole block."""
        self._block = self._at = 0
        self._trace = Record(_TRACE, _TIMES) if trace else None
        if trace:
            air.parts = Record(AIR_PARTS)

    @property
    def last_ns(self) -> int:
        """When the last message was sent."""
        return self._t_ns

    def move(self, t_ns: int, x_m: float, y_m: float) -> None:
        """Be at a place at a time, going straight from the waypoint before; then stand.

        A waypoint may lie ahead of the messages, and one that comes before it cuts the way short: a
        vehicle appends the end of its leg and, when stopped, where it stopped. After standing it
        first says where it stands. Without a layout, and on a wire, places change nothing.
        """
        if self._spot is not None:
            self._spot.move(t_ns, x_m, y_m)

    def take_trace(self) -> dict[str, Ints]:
        """Where the time of each message since the last call went, if the bearer was asked to
        trace: integer columns whose ``_ns`` parts add up to the delay; a lost message has arrival
        -1, and its parts add up to when that was known. ``cause`` is the number in ``CAUSES`` of
        what held a message back by itself, or lost it; one that waits behind another has none."""
        if self._trace is None or self._air.parts is None:
            raise ValueError("this bearer does not trace")
        columns = self._trace.take() | (parts := self._air.parts.take())
        columns["queue_ns"] = parts["queue_ns"] + columns.pop("order_ns")
        return columns

    def send(self, t_ns: int, n_bytes: int) -> int | None:
        """When a message sent at ``t_ns`` arrives; ``None`` if it never does."""
        if t_ns < self._t_ns:
            raise ValueError(f"sent at {t_ns} ns, before the last message ({self._t_ns} ns)")
        self._t_ns = t_ns
        if (at := self._at) == self._block:
            self._roll()
            at = 0
        near_ns, far_ns, core_ns, drop, *dice = [row.item(at) for row in self._dice]
        self._at = at + 1
        own_ns = self._ready_ns
        ready_ns = self._ready_ns = max(own_ns, t_ns + near_ns)
        cell = pause_ns = until_ns = cause = place = 0
        now = None
        if self._spot is None:
            depth = 0.0 if self._fade is None else self._fade.depth(ready_ns)
        else:
            now = self._spot.one(t_ns)
            cell, depth_there, pause_ns, place = now.cell, now.depth, now.pause_ns, now.place
            ready_ns = self._ready_ns = max(ready_ns, pause_ns)
            depth = self._spot.depth(t_ns, ready_ns) if depth_there is None else depth_there
        done_ns, heard = self._air.one(ready_ns, n_bytes, dice, depth, cell)
        if self._drowns and drop > (1.0 - depth) * ODDS:
            heard = False
        ratio = min(-(-n_bytes // self._mss_bytes) * self._drop_ratio, 0.5)
        odds = ratio * ODDS
        losses = 0 if heard else 1
        if self._spot is not None and now is not None:
            until_ns, cause = self._spot.arrives(now, done_ns + far_ns)
        if not cause and not heard:
            cause = _RADIO
        elif not cause and drop < odds:
            cause = _DROP
        elif not cause and self._transport.breaks.one(t_ns, done_ns + far_ns):
            cause = _BROKER
        while drop < odds and losses < _MAX_LOSSES:
            losses += 1
            odds *= ratio
        arrival_ns = self._transport.one(t_ns, done_ns + far_ns, losses, until_ns, place)
        if arrival_ns < 0:
            self._count(cause, 1)
        if self._trace is not None:
            gap_ns = max(pause_ns - t_ns - near_ns, 0)
            self._trace.row(
                t_ns,
                arrival_ns,
                n_bytes,
                near_ns + far_ns - core_ns,
                core_ns,
                gap_ns,
                ready_ns - t_ns - near_ns - gap_ns,
                max(arrival_ns - done_ns - far_ns, 0),
                cell,
                cause,
            )
        return None if arrival_ns < 0 else arrival_ns

    def send_many(self, t_ns: Ints, n_bytes: Ints) -> Ints:
        """``send`` for columns in order of time; -1 for a message that never arrives."""
        n = len(t_ns)
        if n < _FEW:
            arrivals = map(self.send, t_ns.tolist(), n_bytes.tolist())
            return np.array([-1 if at is None else at for at in arrivals], np.int64)
        if t_ns[0] < self._t_ns or np.any(t_ns[1:] < t_ns[:-1]):
            raise ValueError("messages must be in order of time")
        self._t_ns = int(t_ns[-1])
        near_ns, far_ns, core_ns, drop = (dice := self._take(n))[:4]
        ready_ns = np.maximum(np.maximum.accumulate(t_ns + near_ns), self._ready_ns)
        cell = _NO_CELL
        column = until_ns = pause_ns = places = None
        if self._spot is None:
            depth = _NO_DEPTH if self._fade is None else self._fade.depths(ready_ns)
        else:
            column = self._spot.many(t_ns)
            cell, depth, pause_ns, since = (
                column.cells, column.depths, column.pauses_ns, column.since
            )  # fmt: skip
            ready_ns = np.maximum(ready_ns, np.maximum.accumulate(pause_ns))
            depth[:since] = self._spot.depths(t_ns[:since], ready_ns[:since])
        self._ready_ns = int(ready_ns[-1])
        done_ns, heard = self._air.many(ready_ns, n_bytes, dice[4:], depth, cell)
        if self._drowns:
            heard &= drop <= (1.0 - depth) * ODDS
        losses = self._losses(heard, drop, n_bytes)
        own_ns = done_ns + far_ns
        causes = np.where(heard, np.where(losses > 0, _DROP, 0), _RADIO)
        if self._spot is not None and column is not None:
            self._spot.arrive(column, own_ns)
            until_ns, places = column.until_ns, column.places
            causes = np.where(column.causes > 0, column.causes, causes)
        causes[(causes == 0) & self._transport.breaks.many(t_ns, own_ns)] = _BROKER
        arrival_ns = self._transport.many(t_ns, own_ns, losses, until_ns, places)
        if self._loses:
            for cause, count in enumerate(np.bincount(causes[arrival_ns < 0]).tolist()):
                self._count(cause, count)
        if self._trace is not None:
            late_ns = ready_ns - t_ns - near_ns
            gap_ns = np.zeros(n, np.int64)
            if pause_ns is not None:
                gap_ns = np.maximum(pause_ns - t_ns - near_ns, 0)
            self._trace.columns(
                t_ns,
                arrival_ns,
                n_bytes,
                near_ns + far_ns - core_ns,
                core_ns,
                gap_ns,
                late_ns - gap_ns,
                np.maximum(arrival_ns - done_ns - far_ns, 0),
                np.broadcast_to(cell, n),
                causes,
            )
        return arrival_ns

    def _losses(self, heard: Flags, drop: Ints, n_bytes: Ints) -> Ints:
        ratio = np.minimum(-(-n_bytes // self._mss_bytes) * self._drop_ratio, 0.5)
        odds = ratio * ODDS
        losses = 1 - heard.astype(np.int64)
        left = np.flatnonzero(drop < odds)
        while len(left := left[(drop[left] < odds[left]) & (losses[left] < _MAX_LOSSES)]):
            losses[left] += 1
            odds[left] *= ratio[left]
        return losses

    def _count(self, cause: int, n: int) -> None:
        if n:
            self.lost[CAUSES[cause]] = self.lost.get(CAUSES[cause], 0) + n

    def _roll(self) -> None:
        rng = self._rng
        self._block = n = min(2 * self._block, _LAST_BLOCK) or _FIRST_BLOCK
        if self._up:
            near = roll_hop(rng, self._near, n)
            far = roll_hop(rng, self._far, n)
            core = roll_hop(rng, self._core, n)
            far = far + core
        else:
            core = roll_hop(rng, self._core, n)
            near = core + roll_hop(rng, self._near, n)
            far = roll_hop(rng, self._far, n)
        rows = [near, far, core, roll_odds(rng, n), *self._air.roll(rng, n)]
        self._dice = [narrowed(row) for row in rows]
        self._at = 0

    def _take(self, n: int) -> Ints:
        """The dice of the next ``n`` messages."""
        if not self._block:
            self._roll()
        out = np.empty((len(self._dice), n), np.int64)
        low = 0
        while low < n:
            if self._at == self._block:
                self._roll()
            at = self._at
            self._at = end = min(at + n - low, self._block)
            for row, die in zip(out, self._dice, strict=True):
                row[low : low + end - at] = die[at:end]
            low += end - at
        return out


class Plain:
    """A wire that only takes its time; a restart of the broker is all that may stop it."""

    def __init__(self, delay_ns: int, client: Client) -> None:
        self.lost: dict[str, int] = {}
        """Nothing, ever."""
        self._delay_ns = delay_ns
        self._stream = Stream(Tcp(kind="tcp"), delay_ns, client)

    def send_many(self, t_ns: Ints, n_bytes: Ints) -> Ints:
        """``Bearer.send_many``; size does not matter."""
        return self._stream.many(t_ns, t_ns + self._delay_ns, np.zeros_like(n_bytes))


class Confirmed:
    """One direction of one device under QoS 1. Order is the bearer's; acknowledging adds none."""

    def __init__(self, forth: Bearer, back: Bearer, inflight: int) -> None:
        self._forth, self._back = forth, back
        self._inflight = inflight
        self._acked: Ints = np.zeros(inflight, np.int64)
        self._entered_ns = 0

    def move(self, t_ns: int, x_m: float, y_m: float) -> None:
        """``Bearer.move`` of both directions, no earlier than what is already under way."""
        for bearer in (self._forth, self._back):
            bearer.move(max(t_ns, bearer.last_ns), x_m, y_m)

    def send(self, t_ns: int, n_bytes: int) -> tuple[int, int]:
        """Arrival, and when the sender has its acknowledgement."""
        arrival_ns, acked_ns = self.send_many(np.array([t_ns]), np.array([n_bytes]))
        return int(arrival_ns[0]), int(acked_ns[0])

    def send_many(self, t_ns: Ints, n_bytes: Ints) -> tuple[Ints, Ints]:
        """``send`` for columns in order of time."""
        arrivals, acks = np.empty_like(t_ns), np.empty_like(t_ns)
        for at in range(0, len(t_ns), self._inflight):
            part = slice(at, at + self._inflight)
            n = len(t_ns[part])
            # A place in flight is free once the message that many before was acknowledged.
            entered_ns = np.maximum(np.maximum.accumulate(t_ns[part]), self._acked[:n])
            entered_ns = np.maximum(np.maximum.accumulate(entered_ns), self._entered_ns)
            self._entered_ns = int(entered_ns[-1])
            arrivals[part] = self._forth.send_many(entered_ns, n_bytes[part])
            acks[part] = self._back.send_many(arrivals[part], np.full(n, _ACK_BYTES, np.int64))
            self._acked = np.concatenate([self._acked[n:], acks[part]])
        return arrivals, acks


def _steady(radio: Wifi, seed: int, device: int) -> Fade:
    """No fading of its own, only a margin against noise."""
    spec = Shadowing(sd_db=0.0, decorrelation_s=1.0, margin_db=radio.margin_db)
    return Fade(spec, seed, device)


def _typical_ns(profile: Profile, direction: Direction) -> int:
    """Median delay of a sparse stream of short packets: what TCP's acknowledgements take."""
    datagrams = profile.model_copy(update={"transport": Udp(kind="udp"), "drop_ratio": 0.0})
    t_ns = np.arange(1, 200, dtype=np.int64) * 1_000_700_000
    arrival_ns = Link(datagrams, 0).bearer("ack", direction).send_many(t_ns, np.full_like(t_ns, 60))
    return int(np.median((arrival_ns - t_ns)[arrival_ns >= 0]))
