"""Where a broker is, and a private one on a loopback port for as long as a block runs."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from config.errors import UnreachableError, UsageError

DEFAULT_PORT = 1883
Kind = Literal["mosquitto", "embedded"]

START_S = 15.0
"""A broker that has not answered by then will not."""
STOP_S = 5.0
_TRIES = 5
SLOW_S = 10.0
"""How long the embedded broker lets a subscriber that does not read hold up the others."""
MAX_PACKET_BYTES = 4 * 1024 * 1024
"""Well over what a codec accepts: an oversized payload is refused and counted, not cut off."""

PROBE = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x05\x00\x00\x00"
"""The smallest MQTT 5 CONNECT.

A 5 broker answers with a CONNACK of 3 bytes or more, a 3.1.1 broker with one of exactly 2. It must
have no properties: amqtt reads them as a length and waits for ever.
"""


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """A broker and how to log in; its text never shows the password.

    >>> str(BrokerAddress.parse("mqtt://ann:secret@floor.example:1884"))
    'mqtt://ann@floor.example:1884'
    """

    host: str
    port: int = DEFAULT_PORT
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> "BrokerAddress":
        """Read ``mqtt://[user:password@]host[:port]``; anything else is a ``UsageError``."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise _bad_address(url, str(error)) from None
        if parts.scheme != "mqtt":
            raise _bad_address(url, "it does not begin with mqtt://")
        if not parts.hostname or re.search(r"[\s,]", parts.netloc):
            raise _bad_address(url, "no host")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise _bad_address(url, "nothing may follow the port")
        if port == 0:
            raise _bad_address(url, "port 0")
        if parts.password and not parts.username:
            raise _bad_address(url, "a password without a user")
        return cls(
            parts.hostname,
            DEFAULT_PORT if port is None else port,
            unquote(parts.username) if parts.username else None,
            unquote(parts.password) if parts.password is not None else None,
        )

    def __str__(self) -> str:
        user = f"{self.username}@" if self.username else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt://{user}{host}:{self.port}"


def _bad_address(url: str, why: str) -> UsageError:
    return UsageError(
        f"not a broker address: {why}",
        at=re.sub(r"//[^/@]*@", "//…@", url),
        hint="write it like mqtt://127.0.0.1:1883 or mqtt://user:password@host:1883",
    )


class Broker:
    """A running broker that belongs to us; ``running_broker`` makes it, and ends it."""

    def __init__(
        self,
        kind: Kind,
        log: Path,
        start: Callable[[int | None, int], tuple[subprocess.Popen[bytes], BrokerAddress]],
        launcher: ThreadPoolExecutor,
    ) -> None:
        self.kind: Kind = kind
        self.log = log
        self.address = BrokerAddress("127.0.0.1")
        self._start, self._launcher = start, launcher
        self._process: subprocess.Popen[bytes] | None = None
        self._restarting = False

    @property
    def pid(self) -> int:
        """Its process; another one after a restart."""
        assert self._process is not None
        return self._process.pid

    def alive(self) -> bool:
        """Whether it runs, or is about to because ``restart`` is under way."""
        runs = self._process is not None and self._process.poll() is None
        return runs or self._restarting

    def start(self, port: int | None, tries: int) -> None:
        """Start it, on a free port or this one; it answers on return."""
        self._launcher.submit(self._begin, port, tries).result()

    def restart(self) -> None:
        """Kill it without warning, as a crash would, and start it again on its port, with the files
        it left; it answers on return. Blocks; any thread may call. Raises ``UnreachableError`` when
        it does not come back."""
        self._restarting = True
        try:
            self._launcher.submit(self._end, kill=True)
            self.start(self.address.port, _TRIES)
        finally:
            self._restarting = False

    def stop(self) -> None:
        """End it in good order, once what was asked before is done."""
        self._launcher.submit(self._end).result()

    def _begin(self, port: int | None, tries: int) -> None:
        self._process, self.address = self._start(port, tries)

    def _end(self, *, kill: bool = False) -> None:
        if self._process is not None:
            if kill:
                self._process.kill()
            _stop(self._process)


def mosquitto_path() -> str | None:
    """Where the mosquitto server is; Debian keeps it out of a user's PATH."""
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")


@contextmanager
def running_broker(
    kind: Literal["auto"] | Kind,
    workdir: Path,
    *,
    low_latency: bool = False,
    port: int | None = None,
) -> Generator[Broker, None, None]:
    """Run a private broker on 127.0.0.1 while the block runs: it answers when entered.

    ``auto`` is mosquitto where installed, else amqtt in a process of its own. ``port`` is for
    coming back where clients already look. Should this process be killed, the broker follows.
    """
    server = mosquitto_path()
    if kind == "mosquitto" and server is None:
        raise UnreachableError(
            "mosquitto is not installed",
            hint="install it (apt install mosquitto), or use the embedded broker",
        )
    if kind == "auto":
        kind = "embedded" if server is None else "mosquitto"
    workdir.mkdir(parents=True, exist_ok=True)
    log = workdir / f"{kind}.log"
    start = partial(_started, kind, server or "", workdir, log, low_latency)
    # On Linux a broker ends with the thread that started it, whichever asks for a restart: so one
    # thread starts them all, and lives as long as the block.
    with ThreadPoolExecutor(1, "broker") as launcher:
        broker = Broker(kind, log, start, launcher)
        try:
            broker.start(port, 1 if port else _TRIES)
            yield broker
        finally:
            broker.stop()


def _started(
    kind: Kind,
    server: str,
    workdir: Path,
    log: Path,
    low_latency: bool,
    port: int | None,
    tries: int,
) -> tuple[subprocess.Popen[bytes], BrokerAddress]:
    """A broker that answers. One that ends at once has most likely met somebody on its port: there
    are more tries, on other ports if none was asked for."""
    for _ in range(tries):
        address = BrokerAddress("127.0.0.1", port or free_port())
        command = [sys.executable, "-m", "ingest.broker", str(os.getpid()), kind, str(address.port)]
        if kind == "mosquitto":
            config = workdir / "mosquitto.conf"
            config.write_text(_mosquitto_config(address.port, workdir, low_latency))
            command += [server, str(config)]
        with log.open("ab") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True
            )
        try:
            if _answers(process, address):
                return process, address
        except BaseException:
            _stop(process)
            raise
        _stop(process)
    tail = log.read_text(errors="replace").splitlines()[-8:]
    raise UnreachableError(
        f"the {kind} broker did not start",
        at=str(log),
        details=tail,
        hint="see the log, or name a running broker with --broker mqtt://host:port",
    )


def _answers(process: subprocess.Popen[bytes], address: BrokerAddress) -> bool:
    """Wait for a CONNACK; ``False`` when the process ends first or time runs out."""
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with socket.create_connection((address.host, address.port), timeout=2) as probe:
                probe.sendall(PROBE)
                answer = probe.recv(64)  # what is left unread turns the close into a reset
        except OSError:
            answer = b""
        if answer[:1] == b"\x20":
            return process.poll() is None
        time.sleep(0.02)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _mosquitto_config(port: int, workdir: Path, low_latency: bool) -> str:
    # Queues and in-flight limits: with the defaults mosquitto drops in silence when a subscriber
    # is slow. Autosave every second bounds what a killed broker forgets; it writes retained
    # messages and the queues of persistent sessions, so its cost grows with their backlog only.
    # Started by root it would become another user, who may not write to workdir.
    return f"""\
{"user root" if os.geteuid() == 0 else ""}
listener {port} 127.0.0.1
allow_anonymous true
max_queued_messages 100000
max_queued_bytes 0
max_inflight_messages 1000
max_packet_size {MAX_PACKET_BYTES}
persistence true
persistence_location {workdir.resolve()}/
autosave_interval 1
set_tcp_nodelay {"true" if low_latency else "false"}
log_dest stderr
log_type error
log_type warning
log_type notice
connection_messages false
"""


def die_with_parent(parent: int) -> None:
    """Ask the kernel to end us when the thread that started us is gone (Linux; else nothing)."""
    if sys.platform != "linux":
        return
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != parent:  # it went before we asked
        os._exit(1)


def _serve_embedded(port: int) -> None:
    """Run amqtt until SIGTERM, or until the parent is gone (its end of stdin closes)."""
    import asyncio
    import logging

    from amqtt.adapters import StreamWriterAdapter  # pyright: ignore[reportMissingTypeStubs]
    from amqtt.broker import Broker as Amqtt  # pyright: ignore[reportMissingTypeStubs]
    from amqtt.contexts import BrokerConfig  # pyright: ignore[reportMissingTypeStubs]
    from amqtt.session import Session  # pyright: ignore[reportMissingTypeStubs]

    class Direct(Amqtt):  # type: ignore[misc]
        """amqtt that delivers where it receives, at QoS 0; durability is the confirms' business.

        Its own way is one queue for everyone's messages, drained by a task per message: a confirm
        waits behind all telemetry, and a QoS 1 delivery is given up after 5 s without a PUBACK.
        Delivered directly, a slow subscriber slows down those who write to it, which is the
        backpressure we want; one that reads nothing for ``SLOW_S`` is cut off.
        """

        async def _broadcast_message(
            self,
            session: Session | None,
            topic: str | None,
            data: bytes | bytearray | None,
            force_qos: int | None = None,
        ) -> None:
            if topic is None or data is None:
                return
            for pattern, subscribers in tuple(self._subscriptions.items()):
                if not self._matches(topic, pattern):
                    continue
                for target, _ in tuple(subscribers):
                    handler = self._get_handler(target)
                    if handler is None or target.transitions.state != "connected":
                        continue
                    writer = handler.writer
                    try:
                        async with asyncio.timeout(SLOW_S):
                            await handler.mqtt_publish(topic, data, 0, retain=False)
                    except Exception as error:
                        logging.error("%s is cut off: %r", target.client_id, error)
                        if isinstance(writer, StreamWriterAdapter):
                            writer._writer.transport.abort()  # pyright: ignore[reportPrivateUsage]

        async def add_subscription(self, subscription: tuple[str, int], session: Session) -> int:
            pattern, _ = subscription
            return int(await super().add_subscription((pattern, 0), session))

        async def _publish_retained_messages_for_subscription(
            self, subscription: tuple[str, int], session: Session
        ) -> None:
            # On every connect amqtt asks this for all subscriptions there are, of whomever, and
            # fails when one is added meanwhile.
            pattern, _ = subscription
            mine = self._subscriptions.get(pattern, ())
            if any(target.client_id == session.client_id for target, _ in mine):
                await super()._publish_retained_messages_for_subscription((pattern, 0), session)

    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(levelname)s %(message)s")
    settings: dict[str, Any] = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        # The only plugin: every further one costs a task per packet ($SYS, packet log).
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_reader(0, stop.set)
        broker = Direct(BrokerConfig.from_dict(settings))
        await broker.start()
        await stop.wait()
        loop.remove_reader(0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S / 2):
                await broker.shutdown()

    asyncio.run(serve())


def _main(arguments: list[str]) -> None:
    parent, kind, port, *rest = arguments
    die_with_parent(int(parent))
    if kind == "mosquitto":
        server, config = rest
        os.execv(server, [server, "-c", config])
    _serve_embedded(int(port))


if __name__ == "__main__":
    _main(sys.argv[1:])
