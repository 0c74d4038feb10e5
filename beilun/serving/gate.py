"""In front of everything that is served: who asks, whether from here, and what comes of errors.

A request carries a bearer token or the cookie of a signed-in browser. Without a tokens file nobody
needs either, and then only requests that name this host are answered: a page of some other site,
opened in a browser on this host, cannot reach the recording by giving us its own name (DNS
rebinding). What comes from another origin may neither change anything nor open a socket.

Sockets and feeds last longer than a sign-in: they end within a second of it, or of the entry in
the tokens file. A proxy before us is believed only if the settings name it.
"""

import asyncio
import contextlib
import html
import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from beilun.serving.access import ANYBODY, SESSION_S, Access, TooMany, Viewer

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "beilun_session"
SIGN_IN, SIGN_OUT = "/sign-in", "/sign-out"
STATE = "/sign-in/state"
"""Tells a page whose socket has gone whether it may have another one."""
LASTING = ("/api/v1/feed",)
"""Answers that go on for as long as somebody listens."""
CHECK_S = 1.0
"""How often it is asked whether who listens may still do so."""
OPEN = ("/healthz", "/healthz/live", "/healthz/ready")
"""What anybody may ask: whether the service is alive, and nothing about the plant."""
API = ("/api/", "/metrics")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LARGEST_FORM = 4_096


def problem(
    status: int, title: str, detail: str = "", hint: str = "", headers: dict[str, str] | None = None
) -> tuple[int, bytes, dict[str, str]]:
    """An error as RFC 9457 has it, with what to try."""
    said = {"type": "about:blank", "title": title, "status": status}
    said |= {"detail": detail} if detail else {}
    said |= {"hint": hint} if hint else {}
    kind = {"content-type": "application/problem+json", "cache-control": "no-store"}
    return status, json.dumps(said).encode(), kind | (headers or {})


class Gate:
    """The ASGI application around the others; it puts the viewer into ``scope["state"]``."""

    def __init__(self, app: App, access: Access, proxies: Sequence[str] = ()) -> None:
        """``proxies``: addresses or networks of those who may say for whom they ask, and how."""
        self._app = app
        self._access = access
        self._proxies = tuple(ipaddress.ip_network(each) for each in proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, socket, or the server's life."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request = _Request(scope, self._is_proxy(scope))
        if self._access.open and request.host not in LOOPBACK:
            await _refuse(
                scope, send,
                problem(421, "not this host", hint="ask for localhost or 127.0.0.1"),
            )  # fmt: skip
            return
        if not request.is_own_origin:
            await _refuse(scope, send, problem(403, "from another origin"))
            return
        if scope["type"] == "http" and scope["path"] in (SIGN_IN, SIGN_OUT, STATE):
            await self._door(request, receive, send)
            return
        try:
            viewer = await self._who(request)
        except TooMany as error:
            await _refuse(scope, send, _too_many(error))
            return
        if viewer is None and scope["path"] not in OPEN:
            await self._turn_away(request, send)
            return
        scope.setdefault("state", {})["viewer"] = viewer
        lasts = scope["type"] == "websocket" or scope["path"] in LASTING
        if viewer is None or self._access.open or not lasts:
            await self._app(scope, receive, send)
            return

        def holds() -> bool:
            if request.bearer is not None or request.cookie is None:
                return self._access.entitled(viewer)
            return self._access.session(request.cookie) is not None

        line = _Line(scope["type"], receive, send, holds)
        try:
            await self._app(scope, line.receive, line.send)
        finally:
            line.end()

    def _is_proxy(self, scope: Scope) -> bool:
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address((scope.get("client") or ("",))[0])
            return any(address in network for network in self._proxies)
        return False

    async def _who(self, request: "_Request") -> Viewer | None:
        if self._access.open:
            return ANYBODY
        if (token := request.bearer) is not None:
            return await asyncio.to_thread(self._access.check, token, request.address)
        return None if request.cookie is None else self._access.session(request.cookie)

    async def _turn_away(self, request: "_Request", send: Send) -> None:
        scope = request.scope
        if scope["type"] == "websocket" or scope["path"].startswith(API):
            said = problem(
                401, "not signed in", hint="send `Authorization: Bearer TOKEN`",
                headers={"www-authenticate": "Bearer"},
            )  # fmt: skip
        else:
            query = scope.get("query_string", b"").decode("latin-1")
            there = quote(scope["path"] + (f"?{query}" if query else ""), safe="/")
            said = 303, b"", {"location": f"{SIGN_IN}?next={there}", "cache-control": "no-store"}
        await _refuse(scope, send, said)

    async def _door(self, request: "_Request", receive: Receive, send: Send) -> None:
        """The page to sign in at, and what its form is sent to."""
        method = request.scope["method"]
        if request.scope["path"] == STATE:
            known = self._access.open or (
                request.cookie is not None and self._access.session(request.cookie) is not None
            )
            kind = {"content-type": "application/json", "cache-control": "no-store"}
            await _answer(send, (200, json.dumps({"signed_in": known}).encode(), kind))
            return
        if request.scope["path"] == SIGN_OUT and method == "POST":
            if request.cookie is not None:
                self._access.sign_out(request.cookie)
            gone = {"location": SIGN_IN, "set-cookie": _cookie("", 0, secure=request.secure)}
            await _answer(send, (303, b"", gone))
            return
        if request.scope["path"] == SIGN_IN and method == "POST":
            await _answer(send, await self._sign_in(request, await _form(receive)))
            return
        if request.scope["path"] == SIGN_IN and method in ("GET", "HEAD"):
            await _answer(send, _page(200, request.following, ""))
            return
        await _answer(send, problem(405, "not allowed", hint="send it with POST"))

    async def _sign_in(
        self, request: "_Request", form: dict[str, list[str]]
    ) -> tuple[int, bytes, dict[str, str]]:
        following = _local(form.get("next", ["/"])[0])
        token = form.get("token", [""])[0].strip()
        if self._access.open:
            return 303, b"", {"location": following}
        try:
            viewer = await asyncio.to_thread(self._access.check, token, request.address)
        except TooMany as error:
            return _page(429, following, str(error))
        if viewer is None:
            return _page(401, following, "no such token / 令牌无效")
        word = self._access.sign_in(viewer)
        cookie = _cookie(word, round(SESSION_S), secure=request.secure)
        return 303, b"", {"location": following, "set-cookie": cookie, "cache-control": "no-store"}


class _Request:
    """What the gate has to know of a request."""

    def __init__(self, scope: Scope, of_proxy: bool) -> None:
        self.scope = scope
        self.headers: dict[str, str] = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        self.address = str((scope.get("client") or ("unknown",))[0])
        self.secure = scope["scheme"] in ("https", "wss")
        if of_proxy:  # the last entry is the one that this proxy wrote itself
            self.address = self._last("x-forwarded-for") or self.address
            told = self._last("x-forwarded-proto")
            self.secure = told in ("https", "wss") if told else self.secure

    def _last(self, header: str) -> str:
        return self.headers.get(header, "").rpartition(",")[2].strip().lower()

    @property
    def host(self) -> str:
        """The name we were asked for, without the port."""
        return _name_of(f"//{self.headers.get('host', '')}")[0]

    @property
    def is_own_origin(self) -> bool:
        """Whether it comes from one of our own pages, or from no page at all."""
        origin = self.headers.get("origin")
        asks = self.scope["type"] == "http" and self.scope["method"] in ("GET", "HEAD")
        if origin is None or asks:
            return True
        return _name_of(origin) == _name_of(f"//{self.headers.get('host', '')}")

    @property
    def bearer(self) -> str | None:
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if kind.lower() == "bearer" else None

    @property
    def cookie(self) -> str | None:
        for part in self.headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == COOKIE and value:
                return value
        return None

    @property
    def following(self) -> str:
        """Where to go once signed in."""
        query = parse_qs(self.scope.get("query_string", b"").decode("latin-1"))
        return _local(query.get("next", ["/"])[0])


class _Line:
    """A socket or feed, for as long as who listens may."""

    def __init__(self, kind: str, receive: Receive, send: Send, holds: Callable[[], bool]) -> None:
        self._kind, self._receive, self._send, self._holds = kind, receive, send, holds
        self._next: asyncio.Future[MutableMapping[str, Any]] | None = None
        self._over = False

    async def receive(self) -> MutableMapping[str, Any]:
        """The next message; a disconnect once the permission is gone."""
        while not self._over:
            if self._next is None:
                self._next = asyncio.ensure_future(self._receive())
            await asyncio.wait({self._next}, timeout=CHECK_S)
            if not self._holds():
                self._over = True
                if self._kind == "websocket":
                    with contextlib.suppress(Exception):  # it may have gone meanwhile
                        await self._send({"type": "websocket.close", "code": 1008})
            elif self._next.done():
                found, self._next = self._next, None
                return found.result()
        return {"type": f"{self._kind}.disconnect", "code": 1008}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Send on, as long as there is somebody who may read it."""
        if not self._over:
            await self._send(message)

    def end(self) -> None:
        """The application is done with it."""
        if self._next is not None:
            self._next.cancel()


def _name_of(url: str) -> tuple[str, int | None]:
    try:
        found = urlsplit(url)
        return (found.hostname or "").lower(), found.port
    except ValueError:
        return "", None


def _local(path: str) -> str:
    """A path of ours; anything else would lead a person who signed in somewhere else."""
    found = urlsplit(path)
    safe = path.startswith("/") and not path.startswith(("//", "/\\")) and not found.netloc
    return quote(path, safe="/?=&%:") if safe and path.isprintable() else "/"


def _cookie(word: str, age_s: int, *, secure: bool) -> str:
    said = f"{COOKIE}={word}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Lax"
    return said + ("; Secure" if secure else "")


def _too_many(error: TooMany) -> tuple[int, bytes, dict[str, str]]:
    wait = {"retry-after": f"{max(1, round(error.wait_s))}"}
    return problem(429, "too many failed attempts", str(error), headers=wait)


async def _form(receive: Receive) -> dict[str, list[str]]:
    body, more = b"", True
    while more and len(body) <= LARGEST_FORM:
        message = await receive()
        if message["type"] != "http.request":
            break
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return parse_qs(body[:LARGEST_FORM].decode("utf-8", "replace"))


async def _refuse(scope: Scope, send: Send, said: tuple[int, bytes, dict[str, str]]) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
    else:
        await _answer(send, said)


async def _answer(send: Send, said: tuple[int, bytes, dict[str, str]]) -> None:
    status, body, headers = said
    packed = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    packed.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": packed})
    await send({"type": "http.response.body", "body": body})


def _page(status: int, following: str, trouble: str) -> tuple[int, bytes, dict[str, str]]:
    text = _PAGE.replace("{next}", html.escape(following)).replace(
        "{trouble}", html.escape(trouble)
    )
    kind = {
        "content-type": "text/html; charset=utf-8",
        "cache-control": "no-store",
        "content-security-policy": "default-src 'none'; style-src 'unsafe-inline';"
        " form-action 'self'; frame-ancestors 'none'",
    }
    return status, text.encode(), kind


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Beilun</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: dark light; font: 18px/1.5 system-ui, sans-serif }
body { display: grid; place-items: center; min-height: 100vh; margin: 0 }
form { display: grid; gap: .8rem; width: min(22rem, 90vw) }
h1 { font-size: 1.6rem; margin: 0 }
input, button { font: inherit; padding: .6rem }
p { margin: 0; min-height: 1.5em; color: #d33 }
</style></head><body>
<form method="post" action="/sign-in">
<h1>Beilun</h1>
<label for="token">Access token <span lang="zh">访问令牌</span></label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<input type="hidden" name="next" value="{next}">
<button>Sign in <span lang="zh">登录</span></button>
<p role="alert">{trouble}</p>
</form></body></html>
"""
