"""One MQTT connection that mends itself: paho-mqtt for the protocol, asyncio for the socket.

Theory of operation
===================

paho is given no thread and no socket of its own. An ``asyncio.Protocol`` feeds it the bytes that
came and takes the packets it wrote:

    transport ──data_received──► _Pipe ──recv──► paho ──► on_message, on_puback
    transport ◄────one write──── _Pipe ◄──send── paho ◄── publish, ack

Why not paho's network thread: it needs four system calls per message and gives up the interpreter
lock at each; beside a busy event loop every return costs up to 5 ms. Here a read of the socket
brings hundreds of messages, a write carries hundreds of packets, ``pause`` is the transport's own
(the kernel's buffers fill and the broker waits), and nothing is left over when the block ends.

Every connection gets a fresh paho client. What paho would repeat after a reconnect by itself is
forgotten with the old one: what must be repeated is the run protocol's business, in one place.

It is also where bytes leave the process: all that any part of it publishes passes ``publish``, and
is counted there by who is at the far end (``ingest.boundary``).
"""

import asyncio
import logging
import random
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from paho.mqtt.client import (
    Client,
    ConnectFlags,
    DisconnectFlags,
    MQTTMessage,
)
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from config.errors import UnreachableError
from ingest.boundary import OutsideError, Peer, Traffic, around
from ingest.broker import MAX_PACKET_BYTES, PROBE, BrokerAddress

log = logging.getLogger(__name__)

KEEPALIVE_S = 60
ANSWER_S = 10.0
"""How long a broker may take to answer a CONNECT or a SUBSCRIBE."""
BACKOFF_S = (0.1, 5.0)
"""First and longest wait between two attempts to connect; each is drawn between half and whole."""
SESSION_EXPIRY_S = 24 * 3600

V5 = MQTTProtocolVersion.MQTTv5
V311 = MQTTProtocolVersion.MQTTv311


class Refused(Exception):
    """The broker answered, and said no."""


class _Pipe:
    """The socket paho believes in: reads what was fed to it, gathers what it writes."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._in = bytearray()
        self._at = 0
        self._out: list[bytes | bytearray] = []

    def feed(self, data: bytes) -> None:
        del self._in[: self._at]
        self._at = 0
        self._in += data

    def unread(self) -> int:
        return len(self._in) - self._at

    def flush(self) -> None:
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    def recv(self, size: int) -> bytes:
        data = bytes(self._in[self._at : self._at + size])
        if not data:
            raise BlockingIOError
        self._at += len(data)
        return data

    def send(self, data: bytes | bytearray) -> int:
        self._out.append(data)
        return len(data)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def fileno(self) -> int:
        return -1

    def setblocking(self, _: bool) -> None:
        return


class _Client(Client):
    """paho on a pipe."""

    pipe: _Pipe

    def _create_socket(self) -> Any:
        return self.pipe


class _Wire(asyncio.Protocol):
    """One TCP connection and its paho client; gone when ``lost`` is set."""

    def __init__(self, session: "Session") -> None:
        self.session = session
        self.lost = asyncio.Event()
        self.writable = asyncio.Event()
        self.client: _Client | None = None
        self._flushing = False
        self._transport: asyncio.Transport | None = None

    def start(self, client: _Client) -> None:
        client.pipe = _Pipe(self.transport)
        self.client = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        client = self.client
        if client is None:
            return
        client.pipe.feed(data)
        while client.pipe.unread():
            if client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                self.abort()
                break
        self.flush()
        self.session.on_batch()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def flush(self) -> None:
        """Write what paho has queued, in one piece."""
        self._flushing = False
        if self.client is not None:
            if self.client.want_write():
                self.client.loop_write()
            self.client.pipe.flush()

    def flush_soon(self) -> None:
        """The same at the end of this turn of the loop, so that many packets share one write."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self.flush)

    def pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Session:
    """A connection to a broker that comes back; see ``connected`` and ``sought``.

    The callbacks may be set before it is entered and run on the event loop: ``on_message`` and
    ``on_puback`` (whether the broker took the message) per packet, ``on_batch`` after everything
    one read brought, ``on_ready`` each time the connection stands and its subscriptions are
    granted, the first time included.

    It belongs to the boundary of the block it is made in. Only a session with ``may_leave``, which
    must carry nothing but summaries, may lead out of a campus that telemetry may not leave.
    """

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        topics: Sequence[str] = (),
        *,
        clean: bool = True,
        receive_maximum: int = 1000,
        version: MQTTProtocolVersion | None = None,
        may_leave: bool = False,
    ) -> None:
        self.address = address
        self.version = version
        self.reconnects = 0
        self.trouble = ""
        """Why the last attempt to bring it back failed; empty while it stands."""
        self.receive_maximum = 65_535
        """How many QoS 1 messages the broker takes unacknowledged."""
        self.generation = 0
        """The number of the connection: an acknowledgement is good on its own only."""
        self.on_message: Callable[[MQTTMessage], None] = lambda message: None
        self.on_puback: Callable[[bool], None] = lambda _: None
        self.on_batch: Callable[[], None] = lambda: None
        self.on_ready: Callable[[], None] = lambda: None
        self._client_id = f"{client_id}-{secrets.token_hex(3)}" if clean else client_id
        self._topics = tuple(topics)
        self._clean = clean
        self._offer = receive_maximum
        self._may_leave = may_leave
        self._boundary = around()
        self._peer: Peer | None = None
        self._wire: _Wire | None = None
        self._ready = False
        self._paused = False

    @property
    def connected(self) -> bool:
        """Whether the connection stands and its subscriptions are granted."""
        return self._ready

    def __str__(self) -> str:
        name = {V5: "MQTT 5", V311: "MQTT 3.1.1"}.get(cast("Any", self.version), "not connected")
        return f"{self.address} ({name})"

    def publish(
        self, topic: str, payload: bytes, *, qos: int, retain: bool, traffic: Traffic
    ) -> bool:
        """Hand a message to the connection; ``False`` when there is none. Never waits."""
        if self._may_leave and traffic != "summary":
            raise ValueError(f"{traffic} on a session that may leave the campus")
        if not self._ready or self._wire is None or self._wire.client is None:
            return False
        info = self._wire.client.publish(topic, payload, qos, retain)
        self._wire.flush_soon()
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            return False
        if self._peer is not None:
            self._peer.count(traffic, topic, payload)
        return True

    def ack(self, generation: int, mid: int) -> None:
        """Acknowledge a QoS 1 message; one that came on an earlier connection is let go."""
        if generation == self.generation and self._wire is not None and self._wire.client:
            self._wire.client.ack(mid, 1)
            self._wire.flush_soon()

    async def writable(self) -> None:
        """Wait while the socket does not take what was written."""
        if self._wire is not None:
            await self._wire.writable.wait()

    def pause(self) -> None:
        """Stop reading: the broker keeps the rest."""
        self._paused = True
        if self._wire is not None:
            self._wire.pause_reading()

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        if self._wire is not None:
            self._wire.resume_reading()

    def reset(self) -> None:
        """Give this connection up and make another."""
        if self._wire is not None:
            self._wire.abort()

    async def open(self) -> None:
        """Connect for the first time; raises ``UnreachableError``, or ``OutsideError``."""
        try:
            await self._connect()
        except Refused as error:
            raise UnreachableError(
                f"the broker refused: {error}",
                at=str(self.address),
                hint="check user and password (mqtt://user:password@host:port) and its access list",
            ) from None
        except (OSError, TimeoutError) as error:
            raise UnreachableError(
                f"no MQTT broker answers: {error or 'no answer in time'}",
                at=str(self.address),
                hint="start one there, or leave --broker out to have one started for you",
            ) from None

    async def keep(self) -> None:
        """Watch over the connection and bring it back, for ever."""
        stood = self._ready
        while True:
            if stood:
                await self._watch()
                self._ready = False
                log.warning("lost the connection to %s", self.address)
            await self._reconnect()
            if stood:
                self.reconnects += 1
                log.warning("connected to %s again", self.address)
            stood = True

    async def close(self) -> None:
        """Say goodbye, having written everything published so far (as far as the broker reads)."""
        wire, self._wire, self._ready = self._wire, None, False
        if wire is None or wire.client is None:
            return
        wire.client.on_disconnect = None
        wire.client.disconnect()
        wire.flush()
        wire.close()
        try:
            async with asyncio.timeout(2):
                await wire.lost.wait()
        except TimeoutError:
            wire.abort()
            await wire.lost.wait()

    async def _watch(self) -> None:
        wire = self._wire
        assert wire is not None
        while not wire.lost.is_set():
            try:
                async with asyncio.timeout(1):
                    await wire.lost.wait()
            except TimeoutError:
                if wire.client is None:
                    continue
                if wire.client.loop_misc() != MQTTErrorCode.MQTT_ERR_SUCCESS:
                    wire.abort()  # a mere close would wait for a peer that is gone
                wire.flush()

    async def _reconnect(self) -> None:
        wait_s, longest_s = BACKOFF_S
        while True:
            # Jitter: many connections lost at once must not return at once.
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))
            try:
                await self._connect()
            except (OSError, TimeoutError, Refused, OutsideError) as error:
                # A name that leads out of the campus today may lead back into it.
                level = logging.WARNING if isinstance(error, OutsideError) else logging.DEBUG
                log.log(level, "%s: %s", self.address, error)
                self.trouble = str(error) or "no answer in time"
                self.version = None  # another broker may come up there
                wait_s = min(2 * wait_s, longest_s)
            else:
                self.trouble = ""
                return

    async def _connect(self) -> None:
        if self.version is None:
            self.version = await spoken_version(self.address, self._admit)
        loop = asyncio.get_running_loop()
        client = self._client()
        answer: asyncio.Future[None] = loop.create_future()
        self._on_answers(client, answer)
        async with asyncio.timeout(ANSWER_S):
            _, wire = await loop.create_connection(
                lambda: _Wire(self), self.address.host, self.address.port
            )
            self._wire = wire
            self.generation += 1
            try:
                self._peer = self._admit(wire.transport)
                wire.start(client)
                self._dial(client)
                wire.flush()
                await _first(answer, wire.lost)
            except BaseException:
                wire.abort()
                answer.cancel()
                raise
        self._ready = True
        if self._paused:
            wire.pause_reading()
        self.on_ready()

    def _admit(self, transport: asyncio.BaseTransport) -> Peer | None:
        """The account of whoever is at the far end, before anything is sent there."""
        if self._boundary is None:
            return None
        name: tuple[object, ...] | None = transport.get_extra_info("peername")
        if name is None:
            raise ConnectionResetError("the broker hung up")
        return self._boundary.admit(str(name[0]), str(self.address), may_leave=self._may_leave)

    def _client(self) -> _Client:
        assert self.version is not None
        client = _Client(
            CallbackAPIVersion.VERSION2,
            self._client_id,
            clean_session=None if self.version == V5 else self._clean,
            protocol=self.version,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        # 0 is no limit: with one, paho walks all its messages at every PUBACK. We count ourselves.
        client.max_inflight_messages_set(0)
        if self.address.username is not None:
            client.username_pw_set(self.address.username, self.address.password)
        return client

    def _dial(self, client: _Client) -> None:
        host, port = self.address.host, self.address.port
        if self.version != V5:
            client.connect(host, port, KEEPALIVE_S)
            return
        # No Topic Alias Maximum, ever: paho does not resolve inbound aliases.
        properties = cast("Any", Properties)(PacketTypes.CONNECT)
        properties.ReceiveMaximum = max(1, min(self._offer, 65_535))
        properties.MaximumPacketSize = MAX_PACKET_BYTES
        if not self._clean:
            properties.SessionExpiryInterval = SESSION_EXPIRY_S
        client.connect(host, port, KEEPALIVE_S, clean_start=self._clean, properties=properties)

    def _on_answers(self, client: _Client, answer: "asyncio.Future[None]") -> None:
        """Subscribe when connected, and settle ``answer`` once subscribed."""

        def settle(problem: str = "") -> None:
            if answer.done():
                return
            if problem:
                answer.set_exception(Refused(problem))
            else:
                answer.set_result(None)

        def on_connect(
            client: Client,
            _data: object,
            _flags: ConnectFlags,
            code: ReasonCode,
            got: Properties | None,
        ) -> None:
            if code.is_failure:
                settle(str(code))
                return
            self.receive_maximum = getattr(got, "ReceiveMaximum", 65_535)
            if self._topics:
                client.subscribe([(topic, 1) for topic in self._topics])
            else:
                settle()

        def on_subscribe(
            _client: Client,
            _data: object,
            _mid: int,
            codes: list[ReasonCode],
            _got: Properties | None,
        ) -> None:
            refused = [t for t, code in zip(self._topics, codes, strict=False) if code.is_failure]
            settle(f"subscription to {', '.join(refused)}" if refused else "")

        def on_disconnect(
            _client: Client,
            _data: object,
            _f: DisconnectFlags,
            code: ReasonCode,
            _got: Properties | None,
        ) -> None:
            log.debug("%s: disconnected: %s", self.address, code)

        def on_message(_client: Client, _data: object, message: MQTTMessage) -> None:
            # The first message may come in one read with the SUBACK, before _connect goes on.
            self.on_message(message)

        def on_publish(
            _client: Client, _data: object, _mid: int, code: ReasonCode, _got: Properties | None
        ) -> None:
            self.on_puback(not code.is_failure)

        client.on_connect = on_connect
        client.on_subscribe = on_subscribe
        client.on_disconnect = on_disconnect
        client.on_message = on_message
        client.on_publish = on_publish


async def _first(answer: "asyncio.Future[None]", lost: asyncio.Event) -> None:
    """Wait for the broker's answer; a connection lost before it is an ``OSError``."""
    losing = asyncio.create_task(lost.wait(), name="ingest.lost")
    try:
        await asyncio.wait((answer, losing), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ConnectionResetError("the broker hung up")
        answer.result()
    finally:
        losing.cancel()


async def spoken_version(
    address: BrokerAddress, admit: Callable[[asyncio.BaseTransport], object]
) -> MQTTProtocolVersion:
    """MQTT 5 where the broker offers it, else 3.1.1: the length of its CONNACK tells.

    ``admit`` is asked before the first byte, and raises where none may be sent.
    """
    async with asyncio.timeout(ANSWER_S):
        reader, writer = await asyncio.open_connection(address.host, address.port)
        try:
            admit(writer.transport)
            writer.write(PROBE)
            head = await reader.readexactly(2)
            if head[0] != 0x20:
                raise ConnectionResetError("whatever answers there does not speak MQTT")
            await reader.readexactly(head[1])  # what is left unread turns the close into a reset
        except asyncio.IncompleteReadError:
            raise ConnectionResetError("whatever answers there hung up") from None
        finally:
            writer.close()
    return V311 if head[1] == 2 else V5


@asynccontextmanager
async def connected(session: Session) -> AsyncGenerator[asyncio.Task[None], None]:
    """Connect, stay connected while the block runs, say goodbye; yields the task that watches."""
    await session.open()
    async with sought(session) as watch:
        yield watch


@asynccontextmanager
async def sought(session: Session) -> AsyncGenerator[asyncio.Task[None], None]:
    """The same for a broker that may be absent at first too: entering does not wait for it."""
    watch = asyncio.create_task(session.keep(), name="ingest.session")
    try:
        yield watch
    finally:
        watch.cancel()
        await asyncio.wait((watch,))
        await session.close()
