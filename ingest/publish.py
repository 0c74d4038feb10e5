"""The publisher's half of the run protocol: nothing is let go before the edge has confirmed it.

Theory of operation
===================

Per connection (``conn``) there is one MQTT connection and one queue in order of ``cseq``:

    confirmed │ unconfirmed: written, not yet written │ room, up to ``window``
              ▲                         ▲             ▲
        edge's confirm            next to write   send() waits here

A PUBACK is the broker's word and frees only a place in flight. A message leaves the queue when the
edge has confirmed its number, that is, after the journal commit. Until then it can be written
again, byte for byte, and is, from the oldest on, when
- the connection was lost and came back (the broker may have forgotten everything),
- an edge speaks that did not speak before (it may have missed everything since its last commit),
- nothing was confirmed for ``STALL_S``: once in full; then only the oldest few every ``STALL_S``,
  so that an absent edge costs its broker nothing, until an edge answers: then in full again.
What was said last (progress, end) is not numbered and goes out again after every such repeat.
"""

import asyncio
import json
import logging
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from paho.mqtt.client import MQTTMessage

from ingest import topics
from ingest.boundary import Traffic
from ingest.broker import BrokerAddress
from ingest.session import Session, connected

log = logging.getLogger(__name__)

STALL_S = 2.0
"""Silence after which unconfirmed messages are written again, or ``PATIENCE`` round trips."""
PATIENCE = 4.0
SOON_S = 0.5
"""The same, when an edge has just appeared and has nothing."""
PROBES = 8
"""How many of the oldest are written while nobody answers."""
IN_FLIGHT = 500
"""Messages written without a PUBACK, per connection; the broker may ask for fewer."""
MUTE_S = 10.0
"""A broker that takes so long over a PUBACK gets a new connection."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message of a connection; ``cseq`` is its number there, without gaps."""

    topic: str
    payload: bytes
    cseq: int
    retain: bool = False


@dataclass(frozen=True, slots=True)
class _Said:
    """What a connection says about itself: not numbered, never confirmed."""

    topic: str
    payload: bytes
    retain: bool


@dataclass(slots=True)
class Stats:
    """Counts since the publisher was entered; ``resent`` counts messages written again."""

    sent: int = 0
    resent: int = 0
    confirmed: int = 0
    reconnects: int = 0


class _Lane:
    """One connection of the run protocol."""

    def __init__(
        self, conn: str, confirm_topic: str, run: str, session: Session, window: int, stats: Stats
    ) -> None:
        self.conn = conn
        self.session = session
        self.room = asyncio.Event()
        self.moved: Callable[[], None] = lambda: None
        self._confirm_topic = confirm_topic
        self._run = run
        self._window = window
        self._stats = stats
        self._unconfirmed: deque[Outgoing] = deque()
        self._to_write: deque[Outgoing | _Said] = deque()
        self._last_said: _Said | None = None
        self._confirmed = 0
        self._sent = 0
        self._written = 0  # highest number written at least once
        self._in_flight = 0
        self._edges: set[str] = set()
        self._stalls = 0
        self._timed: tuple[int, float] | None = None  # a number on its way, and since when
        self._round_trip_s = 0.0
        self._progress_s = self._puback_s = asyncio.get_running_loop().time()
        session.on_message = self._on_message
        session.on_puback = self._on_puback
        session.on_batch = self._on_batch
        session.on_ready = self._on_ready

    @property
    def full(self) -> bool:
        return len(self._unconfirmed) >= self._window

    @property
    def drained(self) -> bool:
        return not self._unconfirmed and not self._to_write and not self._in_flight

    @property
    def backlog(self) -> int:
        return len(self._unconfirmed)

    def send(self, message: Outgoing) -> None:
        if self._sent and message.cseq != self._sent + 1:
            raise ValueError(f"{self.conn}: number {message.cseq} after {self._sent}")
        if not self._unconfirmed:
            self._progress_s = asyncio.get_running_loop().time()
        self._sent = message.cseq
        self._stats.sent += 1
        self._unconfirmed.append(message)
        self._to_write.append(message)
        self._write()

    def say(self, said: _Said) -> None:
        # Said again before it was written: only the newer counts.
        last = self._to_write[-1] if self._to_write else None
        if isinstance(last, _Said) and last.topic == said.topic:
            self._to_write.pop()
        self._last_said = said
        self._to_write.append(said)
        self._write()

    def look(self, now_s: float) -> None:
        """Called every now and then: repeat what nobody confirms."""
        if not self.session.connected:
            return
        if self._in_flight and now_s - self._puback_s > MUTE_S:
            log.warning("%s: no PUBACK for %g s", self.conn, MUTE_S)
            self._puback_s = now_s
            self.session.reset()
            return
        # A slow broker with much in its queues must not get the same once more.
        patience_s = max(STALL_S, PATIENCE * self._round_trip_s)
        if not self._unconfirmed or now_s - self._progress_s < patience_s:
            return
        self._progress_s = now_s
        self._round_trip_s = 0.0
        self._stalls += 1
        self._repeat(None if self._stalls == 1 else PROBES)

    def _repeat(self, most: int | None) -> None:
        """Write the oldest ``most`` unconfirmed messages (all: ``None``) and the last word again.

        With ``most`` the rest stays unwritten or written as it was.
        """
        again: deque[Outgoing | _Said] = deque(self._unconfirmed)
        if most is not None:
            if self._to_write:
                return  # still busy with writing them the first time
            again = deque(list(self._unconfirmed)[:most])
        if self._last_said is not None:
            again.append(self._last_said)
        self._to_write = again
        self._write()

    def _write(self) -> None:
        most = min(IN_FLIGHT, self.session.receive_maximum)
        if not self._in_flight:
            self._puback_s = asyncio.get_running_loop().time()
        while self._to_write and self._in_flight < most:
            item = self._to_write[0]
            if isinstance(item, _Said):
                if not self._publish(item, "control"):
                    return
            elif item.cseq > self._confirmed:
                if not self._publish(item, "telemetry"):
                    return
                if item.cseq <= self._written:
                    self._stats.resent += 1
                else:
                    self._written = item.cseq
                    if self._timed is None:
                        self._timed = item.cseq, asyncio.get_running_loop().time()
            else:
                self._to_write.popleft()
                continue
            self._to_write.popleft()
            self._in_flight += 1

    def _publish(self, item: Outgoing | _Said, traffic: Traffic) -> bool:
        return self.session.publish(
            item.topic, item.payload, qos=1, retain=item.retain, traffic=traffic
        )

    def _on_ready(self) -> None:
        self._stats.reconnects += self.session.generation > 1 and self._written > 0
        self._in_flight = 0
        self._progress_s = self._puback_s = asyncio.get_running_loop().time()
        self._repeat(None)

    def _on_puback(self, _taken: bool) -> None:  # what was not, is not confirmed either
        self._in_flight = max(0, self._in_flight - 1)
        self._puback_s = asyncio.get_running_loop().time()

    def _on_batch(self) -> None:
        self._write()
        if not self.full:
            self.room.set()
        self.moved()

    def _on_message(self, message: MQTTMessage) -> None:
        # amqtt hands retained messages of other people's subscriptions to whoever connects.
        if message.topic != self._confirm_topic:
            return
        heard = _confirm(message.payload)
        if heard is None or heard[0] != self._run:
            return
        _, edge, cseq = heard
        # An edge may know more than we have sent: this publisher was itself started again.
        self._settle(min(cseq, self._sent))
        now_s = asyncio.get_running_loop().time()
        if (self._edges and edge not in self._edges) or self._stalls > 1:
            self._stalls = 0
            self._progress_s = now_s
            self._repeat(None)
        elif not self._edges and not cseq:
            # The first edge has nothing yet: on the way to it, or missed? We shall soon know.
            self._progress_s = min(self._progress_s, now_s - STALL_S + SOON_S)
        self._edges.add(edge)

    def _settle(self, cseq: int) -> None:
        if cseq <= self._confirmed:
            return
        while self._unconfirmed and self._unconfirmed[0].cseq <= cseq:
            self._unconfirmed.popleft()
            self._stats.confirmed += 1
        self._confirmed = cseq
        if self._stalls <= 1:
            self._stalls = 0
        self._progress_s = asyncio.get_running_loop().time()
        if self._timed is not None and self._timed[0] <= cseq:
            self._round_trip_s = self._progress_s - self._timed[1]
            self._timed = None


def _confirm(payload: bytes | bytearray) -> tuple[str, str, int] | None:
    """Run, edge and number of a confirm; ``None`` for anything else, which anyone may publish."""
    try:
        said: Any = json.loads(payload)
        run, edge, cseq = said["run"], said["edge"], said["cseq"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not isinstance(run, str) or not isinstance(edge, str) or type(cseq) is not int or cseq < 0:
        return None
    return run, edge, cseq


class Publisher:
    """Sends numbered messages and keeps each until the edge has confirmed it."""

    def __init__(self, lanes: dict[str, _Lane], stats: Stats) -> None:
        self.stats = stats
        self._lanes = lanes
        self._moved = asyncio.Event()
        for lane in lanes.values():
            lane.moved = self._moved.set

    async def send(self, conn: str, message: Outgoing) -> None:
        """Send the next message of a connection; waits while its unconfirmed window is full."""
        lane = self._lanes[conn]
        while lane.full:
            lane.room.clear()
            await lane.room.wait()
        lane.send(message)

    async def say(self, conn: str, topic: str, payload: bytes, retain: bool = False) -> None:
        """Say how far a connection is: after all it sent, outside the window, never waiting.

        Of things said on one topic only the last is sure to arrive.
        """
        self._lanes[conn].say(_Said(topic, payload, retain))

    async def drained(self, timeout_s: float | None = None) -> bool:
        """Wait until everything sent is confirmed and everything said has reached the broker."""
        try:
            async with asyncio.timeout(timeout_s):
                while not all(lane.drained for lane in self._lanes.values()):
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    def unconfirmed(self, conn: str) -> int:
        """How many messages of a connection the edge has not confirmed."""
        return self._lanes[conn].backlog

    async def look(self) -> None:
        """Repeat what stalls, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(STALL_S / 8)
            for lane in self._lanes.values():
                lane.look(loop.time())


@asynccontextmanager
async def publishing(
    address: BrokerAddress, site: str, conns: Sequence[str], run: str, window: int = 2_000
) -> AsyncGenerator[Publisher, None]:
    """Publish while the block runs, one MQTT connection per ``conn``.

    Leaving does not wait for confirms: await ``drained`` first. Raises ``UnreachableError`` when
    nobody answers at the start; later the broker is sought for as long as the block lasts.
    """
    stats = Stats()
    lanes: dict[str, _Lane] = {}
    async with AsyncExitStack() as stack:
        version = None
        for conn in conns:
            confirm = topics.confirm(site, conn)
            client_id = f"{conn}-{secrets.token_hex(3)}"
            session = Session(address, client_id, (confirm,), version=version)
            lanes[conn] = _Lane(conn, confirm, run, session, window, stats)
            await stack.enter_async_context(connected(session))
            version = session.version
        publisher = Publisher(lanes, stats)
        watch = asyncio.create_task(publisher.look(), name="ingest.look")
        try:
            yield publisher
        finally:
            watch.cancel()
            await asyncio.wait((watch,))
