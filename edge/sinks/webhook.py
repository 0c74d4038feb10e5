"""A server of anybody's that alarms are posted to, one by one, signed.

    POST /path
    webhook-id: 20261121T151036-57e56e/alarm.oee_low/ningbo/casting/line1/dcm02/1h@17675820…/0
    webhook-timestamp: 1767571263                       when this attempt was made
    webhook-signature: v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=
    idempotency-key: (the same as webhook-id)

    {"rule": "service_down", "severity": "critical", "state": "raised", ...}

Headers and signature are those of Standard Webhooks (standardwebhooks.com), so libraries that check
them exist: base64 of HMAC-SHA256 over ``id.timestamp.body``. The id is made of the run, the rule,
the asset, the window and the revision: whoever gets one twice got the same thing twice, after a
connection was lost or this process died between the answer and the note of it.

An answer 2xx takes the alarm over. 400 and 422 refuse what it says (a dead letter), 401, 403, 404
and 410 stop everything until a person looks, and so does an answer that sends elsewhere: to follow
it would tell alarms to a place nobody named. Anything else is tried again, later.
"""

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

import msgspec

from config.units import format_duration
from config.version import __version__
from edge.rows import ALL, Row
from edge.sinks.influx import Answer, Later, Refused, Taken, answer_of, silence

PREFIX = "whsec_"
"""Before a secret that is written in base64, as Standard Webhooks has it; else it is plain text."""
READ = 4_096
"""The most of an answer that is read; an error may say why."""


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        return None


class Webhook:
    """One URL. ``write`` blocks, for at most the timeout at each step of the way."""

    def __init__(
        self,
        url: str,
        *,
        secret: str = "",
        timeout_ns: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Without a secret nothing is signed; raises ``ValueError`` for one that is no base64."""
        self.url = shown(url)
        self._target = url
        self._key = key_of(secret)
        self._timeout_s = timeout_ns / 1e9
        self._clock = clock
        self._opener: OpenerDirector = build_opener(_NoRedirect)

    def write(self, lines: Sequence[str]) -> Answer:
        """Post alarms, each on its own; never raises for what a server may do."""
        for line in lines:
            answer = self._post(line.encode())
            if not isinstance(answer, Taken):
                return answer
        return Taken(connected=False)  # who took an alarm over has it: none is sent again

    def _post(self, body: bytes) -> Answer:
        identity = str(msgspec.json.decode(body)["id"])
        stamp = str(int(self._clock()))
        head = {
            "content-type": "application/json",
            "user-agent": f"beilun/{__version__}",
            "webhook-id": identity,
            "webhook-timestamp": stamp,
            "idempotency-key": identity,
        }
        if self._key:
            head["webhook-signature"] = signature(self._key, identity, stamp, body)
        request = Request(self._target, body, head, method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                answer.read(READ)
        except HTTPError as error:
            return _refusal(error)
        except (URLError, OSError, ValueError) as error:
            return Later(silence(error))
        return Taken(connected=False)


def shown(url: str) -> str:
    """Where it is, without its query, which may hold a key."""
    found = urlsplit(url)
    return f"{found.scheme}://{found.netloc}{found.path}"


def key_of(secret: str) -> bytes:
    """The bytes of a secret as it is written."""
    if not secret.startswith(PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"what follows {PREFIX} should be base64") from None


def signature(key: bytes, identity: str, stamp: str, body: bytes) -> str:
    """What a receiver computes again and compares."""
    signed = b".".join((identity.encode(), stamp.encode(), body))
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def identity_of(row: Row, run: str) -> str:
    """What one revision of one row is called, by everyone and for ever, in printable ASCII."""
    place = "/".join(level for level in row.asset if level != ALL)
    length = format_duration(row.window_length_ns)
    name = f"{run}/{row.kpi}/{place}/{length}@{row.window_start_ns}/{row.revision}"
    return "".join(c if 32 < ord(c) < 127 else f"%{ord(c):x}" for c in name)


def post_of(row: Row, about: Mapping[str, Any], run: str) -> str:
    """The body of one alarm row."""
    site, area, line, name = (None if level == ALL else level for level in row.asset)
    return msgspec.json.encode(
        {
            "id": identity_of(row, run),
            "run": run,
            "site": site,
            "area": area,
            "line": line,
            "asset": name,
            **about,
            "window_start_ns": row.window_start_ns,
            "window_length_ns": row.window_length_ns,
            "windows_held": row.n,
            "revision": row.revision,
        }
    ).decode()


def _refusal(error: HTTPError) -> Answer:
    status = error.code
    said = " ".join(error.read(READ).decode(errors="replace").split())[:200] or error.reason
    if 300 <= status < 400:
        where = error.headers.get("Location", "elsewhere")
        return Refused(f"{status} it sends to {where}; give the address where it is now")
    if status == HTTPStatus.GONE:
        return Refused(f"{status} {said}")
    return answer_of(status, said, error.headers)
