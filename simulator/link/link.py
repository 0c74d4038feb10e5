"""The link: for every device and direction, when what was sent arrives.

Theory of operation
===================

    sent ─► near hops ─► air (``Air``) ─► far hops ─► own arrival ─► transport ─► arrival

Every hop keeps the order. Each bearer rolls its dice from a stream of its own, message by message
in a fixed schedule of blocks (16, 32, ... 256): the dice of the n-th message depend on nothing but
the seed, the device, the direction and n. Hence ``send`` and ``send_many`` may be mixed and cut at
will. What devices share is in the ``Link`` (today one ``Cell``: its frame, no load), what is a
device's own in its ``Bearer`` and ``Air``.
"""

from enum import IntEnum
from zlib import crc32

import numpy as np

from simulator.link.cellular import Cell, Scheduled
from simulator.link.columns import ODDS, Air, Ints, roll_hop, roll_odds
from simulator.link.profile import Profile, Tcp, Udp, Wifi, Wired
from simulator.link.shadowing import Fade
from simulator.link.transport import Datagrams, Stream, Transport
from simulator.link.wifi import Contended
from simulator.link.wired import Wire

_FIRST_BLOCK, _LAST_BLOCK = 16, 256
_FEW = 12
"""Below this many messages a loop is faster than columns."""
_MAX_LOSSES = 6
"""Losses in a row of one segment; a bound for the doubling of the timeout."""


class Direction(IntEnum):
    """Up is from the device to the MEC."""

    UP = 0
    DOWN = 1


class Link:
    """A network of one profile. Every device's delays are its own: more devices change nothing."""

    def __init__(self, profile: Profile, seed: int) -> None:
        self.profile = profile
        self._seed = seed
        self._cell = Cell(profile.radio, seed) if profile.radio.kind == "cellular" else None
        self._typical_ns: dict[Direction, int] = {}
        if profile.transport.kind == "tcp":
            self._typical_ns = {
                direction: _typical_ns(profile, direction) for direction in Direction
            }

    def bearer(self, ue: str, direction: Direction) -> "Bearer":
        """A fresh bearer, as if nothing had been sent yet."""
        return Bearer(
            self.profile,
            np.random.default_rng([self._seed, crc32(ue.encode()), int(direction)]),
            self._air(ue, direction),
            self._transport(direction),
            direction,
        )

    def _air(self, ue: str, direction: Direction) -> Air:
        radio = self.profile.radio
        if isinstance(radio, Wifi):
            return Contended(radio)
        if isinstance(radio, Wired):
            return Wire(radio)
        assert self._cell is not None
        fade = Fade(radio.shadowing, self._seed, crc32(ue.encode()))
        return Scheduled(self._cell, fade, uplink=direction is Direction.UP)

    def _transport(self, direction: Direction) -> Transport:
        spec = self.profile.transport
        if isinstance(spec, Tcp):
            return Stream(spec, self._typical_ns[Direction(1 - direction)])
        return Datagrams()


class Bearer:
    """One direction of one device. Messages are handed over in order of time."""

    def __init__(
        self,
        profile: Profile,
        rng: np.random.Generator,
        air: Air,
        transport: Transport,
        direction: Direction,
    ) -> None:
        self.lost: dict[str, int] = {}
        """Messages that never arrive, by cause: ``radio`` gave up, or ``drop`` behind it."""
        self._rng, self._air, self._transport = rng, air, transport
        up, down, core = profile.up, profile.down, profile.core
        self._near, self._far = (
            ([up.device], [up.network, core])
            if direction is Direction.UP
            else ([core, down.network], [down.device])
        )
        self._drop_ratio = profile.drop_ratio
        self._mss_bytes = profile.transport.mss_bytes
        self._loses = profile.transport.kind == "udp"
        self._t_ns = self._ready_ns = 0
        self._dice: Ints = np.empty((0, 0), np.int64)
        self._at = 0

    def send(self, t_ns: int, n_bytes: int) -> int | None:
        """When a message sent at ``t_ns`` arrives; ``None`` if it never does."""
        if t_ns < self._t_ns:
            raise ValueError(f"sent at {t_ns} ns, before the last message ({self._t_ns} ns)")
        self._t_ns = t_ns
        if self._at == self._dice.shape[1]:
            self._roll()
        near_ns, far_ns, drop, *dice = self._dice[:, self._at].tolist()
        self._at += 1
        self._ready_ns = max(self._ready_ns, t_ns + near_ns)
        done_ns, heard = self._air.one(self._ready_ns, n_bytes, dice)
        ratio = min(-(-n_bytes // self._mss_bytes) * self._drop_ratio, 0.5)
        odds = ratio * ODDS
        losses = 0 if heard else 1
        dropped = drop < odds
        while drop < odds and losses < _MAX_LOSSES:
            losses += 1
            odds *= ratio
        if losses and self._loses:
            self._count("drop" if heard and dropped else "radio", 1)
        arrival_ns = self._transport.one(t_ns, done_ns + far_ns, losses)
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
        near_ns, far_ns, drop = (dice := self._take(n))[:3]
        ready_ns = np.maximum(np.maximum.accumulate(t_ns + near_ns), self._ready_ns)
        self._ready_ns = int(ready_ns[-1])
        done_ns, heard = self._air.many(ready_ns, n_bytes, dice[3:])
        losses = self._losses(heard.astype(np.int64), drop, n_bytes)
        return self._transport.many(t_ns, done_ns + far_ns, losses)

    def _losses(self, heard: Ints, drop: Ints, n_bytes: Ints) -> Ints:
        ratio = np.minimum(-(-n_bytes // self._mss_bytes) * self._drop_ratio, 0.5)
        odds = ratio * ODDS
        losses = 1 - heard
        left = np.flatnonzero(drop < odds)
        if self._loses:
            self._count("drop", int(heard[left].sum()))
            self._count("radio", int(losses.sum()))
        while len(left := left[(drop[left] < odds[left]) & (losses[left] < _MAX_LOSSES)]):
            losses[left] += 1
            odds[left] *= ratio[left]
        return losses

    def _count(self, cause: str, n: int) -> None:
        if n:
            self.lost[cause] = self.lost.get(cause, 0) + n

    def _roll(self) -> None:
        rng, n = self._rng, self._dice.shape[1]
        n = min(2 * n, _LAST_BLOCK) if n else _FIRST_BLOCK
        near = [roll_hop(rng, hop, n) for hop in self._near]
        far = [roll_hop(rng, hop, n) for hop in self._far]
        self._dice = np.stack(
            [
                sum(near[1:], near[0]),
                sum(far[1:], far[0]),
                roll_odds(rng, n),
                *self._air.roll(rng, n),
            ]
        )
        self._at = 0

    def _take(self, n: int) -> Ints:
        """The dice of the next ``n`` messages."""
        pieces: list[Ints] = []
        while n:
            if self._at == self._dice.shape[1]:
                self._roll()
            piece = self._dice[:, self._at : self._at + n]
            self._at += piece.shape[1]
            n -= piece.shape[1]
            pieces.append(piece)
        return np.concatenate(pieces, axis=1)


def _typical_ns(profile: Profile, direction: Direction) -> int:
    """Median delay of a sparse stream of short packets: what TCP's acknowledgements take."""
    datagrams = profile.model_copy(update={"transport": Udp(kind="udp"), "drop_ratio": 0.0})
    t_ns = np.arange(1, 200, dtype=np.int64) * 1_000_700_000
    arrival_ns = Link(datagrams, 0).bearer("ack", direction).send_many(t_ns, np.full_like(t_ns, 60))
    return int(np.median((arrival_ns - t_ns)[arrival_ns >= 0]))
