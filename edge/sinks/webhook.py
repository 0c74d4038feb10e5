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
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec

from config.units import NS_PER_S, format_duration
from config.version import __version__
from edge.rows import ALL, Row
from edge.sinks.counted import guard, judge, shown
from edge.sinks.influx import Answer, Later, Refused, Taken, answer_of, silence
from ingest.boundary import OutsideError, around

if TYPE_CHECKING:
    from urllib3 import PoolManager

PREFIX = "whsec_"
"""Before a secret that is written in base64, as Standard Webhooks has it; else it is plain text."""
READ = 4_096
"""The most of an answer that is read; an error may say why."""


class Webhook:
    """One URL. ``write`` blocks, for at most the timeout at each step of the way.

    It belongs to the campus boundary of the block it is made in, and making it raises
    ``OutsideError`` where it leads out of one that nothing may leave. A proxy of the environment is
    used, and then it is whom that boundary sees.
    """

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
        self._timeout_s = timeout_ns / NS_PER_S
        self._clock = clock
        self._manager: PoolManager | None = None
        self._boundary = around()
        if self._boundary is not None:
            whom = _proxy(url) or url
            judge(whom, self._boundary, timeout_s=self._timeout_s, kind="webhook")

    def close(self) -> None:
        """Let go of the connections."""
        if self._manager is not None:
            self._manager.clear()

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
        from urllib3.exceptions import HTTPError

        try:
            answer: Any = self._connected().request(
                "POST", self._target, body=body, headers=head, timeout=self._timeout_s,
                retries=False, redirect=False, preload_content=False,
            )  # fmt: skip
            try:
                said = answer.read(READ).decode(errors="replace")
            finally:
                answer.close()
        except OutsideError as error:  # its name leads elsewhere by now
            return Refused(error.problem)
        except (HTTPError, OSError, ValueError) as error:
            return Later(silence(error))
        if 200 <= answer.status < 300:
            return Taken(connected=False)
        return _refusal(answer.status, said or str(answer.reason), answer.headers)

    def _connected(self) -> "PoolManager":
        if self._manager is None:
            from urllib3 import PoolManager, ProxyManager

            proxy = _proxy(self._target)
            self._manager = ProxyManager(proxy) if proxy else PoolManager()
            if self._boundary is not None:
                guard(self._manager, self._target, self._boundary, kind="webhook")
        return self._manager


def _proxy(url: str) -> str:
    """The proxy that the environment names for a URL, if any."""
    found = urlsplit(url)
    return "" if proxy_bypass(found.netloc) else getproxies().get(found.scheme, "")


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


def _refusal(status: int, said: str, head: Mapping[str, str]) -> Answer:
    why = " ".join(said.split())[:200]
    if 300 <= status < 400:
        where = head.get("Location", "elsewhere")
        return Refused(f"{status} it sends to {where}; give the address where it is now")
    if status == HTTPStatus.GONE:
        return Refused(f"{status} {why}")
    return answer_of(status, why, head)
