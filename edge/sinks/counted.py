"""HTTP connections that the campus boundary sees: whom they lead to, every byte they send.

A connection is judged where its socket was opened, by the peer's address and before a byte is
written (with https: before the handshake, which would tell a name). Counted is all that is handed
to the socket, request lines and headers too, before TLS makes it longer.
"""

import socket
from typing import Any, cast
from urllib.parse import urlsplit

from ingest.boundary import Boundary, Destination, Peer


def shown(url: str) -> str:
    """Where it is, without its query, which may hold a key."""
    found = urlsplit(url)
    return f"{found.scheme}://{found.netloc}{found.path}"


def judge(url: str, boundary: Boundary, *, timeout_s: float, kind: Destination = "store") -> None:
    """Connect once, and raise ``OutsideError`` where that leads out of the campus. A server that is
    not there is judged once it is."""
    found = urlsplit(url)
    port = found.port or {"http": 80, "https": 443}[found.scheme]
    try:
        opened = socket.create_connection((found.hostname or "", port), timeout_s)
    except OSError:
        return
    with opened:
        _admit(opened, url, boundary, kind)


def guard(manager: Any, url: str, boundary: Boundary, *, kind: Destination = "store") -> None:
    """Have every connection that a urllib3 pool manager makes judged and counted."""
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
    from urllib3.connection import HTTPConnection, HTTPSConnection

    class Counted(HTTPConnection):
        peer: Peer | None = None

        def _new_conn(self) -> socket.socket:
            opened = super()._new_conn()
            try:
                self.peer = _admit(opened, url, boundary, kind)
            except BaseException:
                opened.close()
                raise
            return opened

        def send(self, data: Any) -> None:
            if self.sock is None:
                self.connect()
            assert self.peer is not None
            self.peer.sent_bytes["summary"] += len(data)
            super().send(data)

    class CountedTls(Counted, HTTPSConnection):
        pass

    class Pool(HTTPConnectionPool):
        ConnectionCls = cast("Any", Counted)

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = cast("Any", CountedTls)

    manager.pool_classes_by_scheme = {"http": Pool, "https": TlsPool}


def _admit(opened: socket.socket, url: str, boundary: Boundary, kind: Destination) -> Peer:
    return boundary.admit(str(opened.getpeername()[0]), shown(url), may_leave=False, kind=kind)
