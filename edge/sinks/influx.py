"""A server that speaks the InfluxDB v2 write API, by influxdb-client's synchronous write.

Not by its batching ``WriteApi``, which drops a batch after some minutes of retries, has no bound,
and loses what it holds when it is closed (docs/decisions.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from config.units import NS_PER_MS, NS_PER_S
from edge.sinks.counted import guard, judge
from ingest.boundary import OutsideError, around

if TYPE_CHECKING:
    from influxdb_client.client.influxdb_client import InfluxDBClient

GONE = (401, 403, 404)
"""No one may write there, or there is no such bucket: to try again would change nothing."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Every line was accepted."""

    connected: bool
    """Over a connection that was made for it: the server may have been started again."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """Some line is not accepted for what it says."""

    why: str


@dataclass(frozen=True, slots=True)
class TooMuch:
    """Fewer lines at once may be accepted."""

    why: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing is accepted before a person has changed something."""

    why: str


@dataclass(frozen=True, slots=True)
class Later:
    """Nothing is accepted now; the same may be in a while."""

    why: str
    after_s: float | None = None
    """What the server asks to wait."""


Answer = Taken | Malformed | TooMuch | Refused | Later


class Server:
    """One bucket of one server. ``write`` blocks, for at most the timeout.

    It belongs to the campus boundary of the block it is made in, and making it raises
    ``OutsideError`` where it leads out of one that nothing may leave.
    """

    def __init__(
        self, url: str, *, bucket: str, org: str = "", token: str = "", timeout_ns: int
    ) -> None:
        self.url = url
        self._bucket = bucket
        self._org = org or "-"
        self._token = token or "-"
        self._timeout_ms = timeout_ns // NS_PER_MS
        self._client: InfluxDBClient | None = None
        self._connections = 0
        self._boundary = around()
        if self._boundary is not None:
            judge(url, self._boundary, timeout_s=timeout_ns / NS_PER_S)

    @property
    def host(self) -> str:
        """Where it is."""
        return urlsplit(self.url).hostname or ""

    def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            self._client.close()  # type: ignore[no-untyped-call]  # it has no annotations

    def write(self, lines: Sequence[str]) -> Answer:
        """Send lines with stamps in nanoseconds; never raises for what a server may do."""
        from influxdb_client.client.write_api import SYNCHRONOUS
        from influxdb_client.domain.write_precision import WritePrecision
        from influxdb_client.rest import ApiException
        from urllib3.exceptions import HTTPError

        client = self._connected()
        body = "\n".join(lines).encode()
        try:
            api: Any = cast("Any", client).write_api(write_options=SYNCHRONOUS)
            api.write(self._bucket, self._org, body, write_precision=WritePrecision.NS)
        except ApiException as error:
            return _answer(error)
        except OutsideError as error:  # its name leads elsewhere by now
            return Refused(error.problem)
        except (HTTPError, OSError) as error:
            return Later(silence(error))
        before, self._connections = self._connections, self._made()
        return Taken(self._connections != before)

    def _connected(self) -> "InfluxDBClient":
        if self._client is None:
            from influxdb_client.client.influxdb_client import InfluxDBClient

            self._client = InfluxDBClient(
                self.url, self._token, timeout=self._timeout_ms, org=self._org,
                enable_gzip=True, retries=False,
            )  # fmt: skip
            if self._boundary is not None:
                manager = cast("Any", self._client).api_client.rest_client.pool_manager
                guard(manager, self.url, self._boundary)
        return self._client

    def _made(self) -> int:
        """Connections made so far, by the pool's own count."""
        manager: Any = cast("Any", self._client).api_client.rest_client.pool_manager
        return int(manager.connection_from_url(self.url).num_connections)


def _answer(error: Any) -> Answer:
    return answer_of(int(error.status or 0), _message(error), error.headers)


def answer_of(status: int, said: str, headers: Any) -> Answer:
    """What a status other than 2xx means."""
    why = f"{status} {said}"
    if status in GONE:
        return Refused(why)
    if status in (400, 422):
        return Malformed(why)
    if status == 413:
        return TooMuch(why)
    return Later(why, _retry_after_s(headers))


def _message(error: Any) -> str:
    text = str(getattr(error, "message", "") or error.body or error.reason or "").strip()
    return text.splitlines()[0][:200] if text else ""


def _retry_after_s(headers: Any) -> float | None:
    """Seconds from a ``Retry-After`` header, in either of its forms."""
    text = "" if headers is None else str(headers.get("Retry-After") or "")
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        import time

        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def silence(error: BaseException) -> str:
    """Why there was no answer."""
    text = str(error).rsplit(": ", 1)[-1]
    return f"no answer: {text or type(error).__name__}"
