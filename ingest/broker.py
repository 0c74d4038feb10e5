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
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from config.errors import UnreachableError, UsageError

DEFAULT_PORT = 1883
Kind = Literal["mosquitto", "embedded"]

START_S = 15.0
"""A broker that has not answered by then will not."""
STOP_S = 5.0
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


@dataclass(frozen=True, slots=True)
class Broker:
    """A running broker that belongs to us."""

    address: BrokerAddress
    kind: Kind
    pid: int
    log: Path
    alive: Callable[[], bool]


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
    coming back where clients already look. Should this process be killed, the broker follows: on
    Linux it watches the thread that entered here, which must therefore live as long as the block.
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
    process, address = _started(kind, server or "", workdir, log, low_latency, port)
    try:
        yield Broker(address, kind, process.pid, log, lambda: process.poll() is None)
    finally:
        _stop(process)


def _started(
    kind: Kind,
    server: str,
    workdir: Path,
    log: Path,
    low_latency: bool,
    port: int | None,
) -> tuple[subprocess.Popen[bytes], BrokerAddress]:
    """A broker that answers; another try on another port when someone else took this one."""
    for _ in range(1 if port else 5):
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
