"""Messages from a broker, in bounded batches, acknowledged by their reader."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from paho.mqtt.client import MQTTMessage

from ingest.broker import BrokerAddress
from ingest.session import Session, connected

BATCH = 2_000
"""The most messages one call of ``messages`` returns."""
_QOS0 = (0, 0)


class Received(NamedTuple):
    """A message as it came; hand ``token`` to ``Subscriber.ack`` once it is safe."""

    topic: str
    payload: bytes
    received_ns: int
    retained: bool
    token: tuple[int, int]


class Subscriber:
    """What came and was not yet taken, at most about ``backlog`` of it.

    A full backlog stops the reading of the socket: nothing is dropped here, the broker waits. (The
    last read may exceed it by what 256 KiB hold.) A message that is not acknowledged comes again
    after a reconnect only where the session is persistent, and perhaps twice: a reader must know
    repeats.
    """

    def __init__(self, session: Session, backlog: int) -> None:
        self._session = session
        self._most = backlog
        self._backlog: deque[Received] = deque()
        self._some = asyncio.Event()
        self._paused = False
        self._watch: asyncio.Task[None] | None = None
        session.on_message = self._on_message
        session.on_batch = self._on_batch

    @property
    def is_connected(self) -> bool:
        """Whether the broker is there now; it is sought for as long as the block lasts."""
        return self._session.connected

    @property
    def reconnects(self) -> int:
        """How often the connection was lost and came back."""
        return self._session.reconnects

    @property
    def broker(self) -> str:
        """The broker and the protocol spoken, for people."""
        return str(self._session)

    def __len__(self) -> int:
        return len(self._backlog)

    async def messages(self) -> list[Received]:
        """All messages at hand, oldest first, at most ``BATCH``; waits for the first."""
        backlog = self._backlog
        while not backlog:
            if self._watch is not None and self._watch.done():
                self._watch.result()  # a bug in there must not look like silence
            self._some.clear()
            await self._some.wait()
        if len(backlog) <= BATCH:
            taken = list(backlog)
            backlog.clear()
        else:
            taken = [backlog.popleft() for _ in range(BATCH)]
        if self._paused and len(backlog) <= self._most // 2:
            self._paused = False
            self._session.resume()
        return taken

    def ack(self, tokens: Iterable[tuple[int, int]]) -> None:
        """Tell the broker that these are safe; none needed at QoS 0, too late after a reconnect."""
        for generation, mid in tokens:
            if mid:
                self._session.ack(generation, mid)

    async def publish(self, topic: str, payload: bytes, retain: bool = False, qos: int = 0) -> bool:
        """Publish on the same connection; ``False`` when the broker is away.

        Waits while the socket is full. For what is said again anyway (confirms), or may be missed;
        at the campus boundary it counts as control.
        """
        await self._session.writable()
        return self._session.publish(topic, payload, qos=qos, retain=retain, traffic="control")

    def watched_by(self, watch: asyncio.Task[None]) -> None:
        self._watch = watch
        watch.add_done_callback(lambda _: self._some.set())

    def _on_message(self, message: MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""  # no codec claims it: counted as unknown there
        token = (self._session.generation, message.mid) if message.qos else _QOS0
        self._backlog.append(
            Received(topic, bytes(message.payload), time.time_ns(), message.retain, token)
        )

    def _on_batch(self) -> None:
        if self._backlog:
            self._some.set()
        if len(self._backlog) >= self._most and not self._paused:
            self._paused = True
            self._session.pause()


@asynccontextmanager
async def subscribed(
    address: BrokerAddress,
    topics: Sequence[str],
    *,
    client_id: str,
    clean: bool = True,
    backlog: int = 20_000,
) -> AsyncGenerator[Subscriber, None]:
    """Subscribe (QoS 1) while the block runs; raises ``UnreachableError`` when nobody answers.

    With ``clean=False`` the broker keeps what comes between two blocks of the same ``client_id``.
    """
    session = Session(address, client_id, topics, clean=clean, receive_maximum=backlog)
    subscriber = Subscriber(session, backlog)
    async with connected(session) as watch:
        subscriber.watched_by(watch)
        yield subscriber
