"""The service: gate, API and page on one port, from the first word to the last."""

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import uvicorn
from fastapi import FastAPI

from beilun.composing import Stop
from beilun.serving.access import Access
from beilun.serving.api import make_app
from beilun.serving.gate import Gate
from beilun.serving.library import Library
from config.errors import ConfigError, UnreachableError

LEAVE_S = 2
"""How long requests that are under way may take once the service ends."""
RECONNECT_S = 30.0
"""How long a tab whose connection was lost is waited for: it goes on where it was."""
BACKLOG = 512
"""Connections that may wait to be accepted."""


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens there; raises ``UnreachableError`` where that cannot be."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UnreachableError(f"no such address: {error.strerror}", at=host) from None
    own = socket.socket(family, kind, number)
    try:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.bind(address)
        own.listen(BACKLOG)
    except OSError as error:
        own.close()
        raise UnreachableError(
            f"cannot be listened on: {error.strerror}",
            at=f"{host}:{port}",
            hint="--port names another; --port 0 takes any that is free",
        ) from None
    return own


def is_loopback(host: str) -> bool:
    """Whether nobody beyond this host reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def access_of(host: str, tokens_file: Path | None) -> Access:
    """Who may come in; raises ``ConfigError`` where everybody in the network could."""
    if tokens_file is not None:
        return Access.of(tokens_file)
    if not is_loopback(host):
        raise ConfigError(
            "whoever reaches this address could see and acknowledge everything",
            at=f"serve.host {host}",
            hint="make tokens with `beilun serve token NAME --role viewer --tokens-file F`, and"
            " serve with --tokens-file F; or stay on 127.0.0.1",
        )
    return Access(None)


class Tls(NamedTuple):
    """What https is spoken with: two PEM files that belong together."""

    certificate: Path
    key: Path


def tls_of(certificate: Path | None, key: Path | None) -> Tls | None:
    """``None``: plain http. Raises ``ConfigError`` where one of the two is missing, or they cannot
    be used."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ConfigError(
            "a certificate and its key go together",
            at="serve.certificate" if certificate is None else "serve.key",
            hint="set both, or neither for plain http",
        )
    for at, file in (("serve.certificate", certificate), ("serve.key", key)):
        try:
            file.read_bytes()
        except OSError as error:
            raise ConfigError(f"cannot be read: {error.strerror}", at=f"{at} {file}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except ssl.SSLError as error:
        raise ConfigError(
            f"cannot be used: {(error.reason or 'not PEM').replace('_', ' ').lower()}",
            at=f"serve.certificate {certificate}, serve.key {key}",
            hint="both are PEM files, and the key is that of the certificate",
        ) from None
    return Tls(certificate, key)


def is_in_the_clear(host: str, tls: Tls | None) -> bool:
    """Whether whoever listens on the way beyond this host reads the tokens."""
    return tls is None and not is_loopback(host)


def _no_passphrase() -> str:
    """Nobody is asked: a server may be started by a machine."""
    raise ConfigError(
        "the key has a passphrase", at="serve.key",
        hint="`openssl pkey -in KEY -out PLAIN` takes it away; let only the server read that file",
    )  # fmt: skip


def url_of(own: socket.socket, host: str, *, tls: bool = False) -> str:
    """Where a browser finds it."""
    port = own.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if tls else 'http'}://{shown}:{port}/"


def composed(
    library: Library, access: Access, *, page: bool, proxies: Sequence[str] = ()
) -> tuple[FastAPI, Gate]:
    """The API of what is served, with the page where that is wanted, and what stands before both.
    ``proxies``: who may say for whom they ask."""
    app = make_app(library.served)
    if page:
        from nicegui import ui

        from beilun.serving.page.shell import attach

        attach(library)
        run_with = cast("Callable[..., None]", ui.run_with)  # pyright: ignore[reportUnknownMemberType]
        run_with(
            app, title="Beilun", tailwind=False, binding_refresh_interval=None,
            show_welcome_message=False, reconnect_timeout=RECONNECT_S,
        )  # fmt: skip
    return app, Gate(app, access, proxies)


class _Server(uvicorn.Server):
    """Uvicorn, which leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


def run(
    library: Library,
    own: socket.socket,
    access: Access,
    *,
    page: bool,
    proxies: Sequence[str] = (),
    tls: Tls | None = None,
    ready: Callable[[], None],
) -> None:
    """Serve until SIGINT or SIGTERM; ``ready`` is called once requests are answered."""
    app, gate = composed(library, access, page=page, proxies=proxies)
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    settings = uvicorn.Config(
        gate,
        log_level="warning",
        access_log=False,
        lifespan="on",
        server_header=False,
        proxy_headers=False,  # the gate believes those that the settings name, and nobody else
        timeout_graceful_shutdown=LEAVE_S,
        ssl_certfile=None if tls is None else tls.certificate,
        ssl_keyfile=None if tls is None else tls.key,
    )
    server = _Server(settings)

    async def main() -> None:
        stop = Stop()
        stop.listen()
        serving = asyncio.create_task(server.serve(sockets=[own]), name="serving.http")
        while not server.started and not serving.done():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
        if server.started:
            ready()
        told = asyncio.create_task(stop.event.wait())
        await asyncio.wait((serving, told), return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        if (feed := getattr(app.state, "feed", None)) is not None:
            await feed.end()
        server.should_exit = True
        await serving

    asyncio.run(main())


def _is_news(record: logging.LogRecord) -> bool:
    """A follower that takes nothing any more is left in the middle of its answer, on purpose; and a
    browser that goes elsewhere leaves what it had asked for."""
    error = record.exc_info[1] if record.exc_info else None
    left = isinstance(error, RuntimeError) and str(error) == "No response returned."
    return not left and "returned without completing response" not in str(record.msg)
