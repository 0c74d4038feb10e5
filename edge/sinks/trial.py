"""Tries out what a store does with rows: what it promises is not always what it does."""

import json
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

from config.units import NS_PER_DAY, NS_PER_S
from edge.sinks.influx import Malformed, Server, Taken

if TYPE_CHECKING:
    from config.settings import Store

SETTLE_S = 5.0
"""How long a store may take to show what it accepted."""
REVISED = 20
APART_S = 3.0
PROBE = "beilun_probe"
SPAN_S = 3 * 365 * 86_400
"""How far back and ahead is read."""


class Found(NamedTuple):
    """What one trial showed; the mark is ✓, ! (works, but know this) or ✗."""

    mark: str
    trial: str
    found: str


class Reader(NamedTuple):
    """How what is stored is read back."""

    kind: str
    values: Callable[[str], list[float]]
    """The values of one probe, by its tag."""
    flush: Callable[[], object] = lambda: None
    """Has it write down what it holds in memory, where two revisions do not meet."""


def try_out(server: Server, settings: "Store") -> list[Found]:
    """Write probes and read them back. They stay there, as measurement ``beilun_probe``."""
    now_ns = time.time_ns()
    hour_ns = 3_600 * NS_PER_S
    tag = secrets.token_hex(4)
    answer = server.write([_line(f"{tag}a", 1.0, now_ns - hour_ns)])
    if not isinstance(answer, Taken):
        return [Found("✗", "a row is accepted", getattr(answer, "why", ""))]
    found = [Found("✓", "a row is accepted", server.url)]
    reader = _reader(settings)
    if reader is None:
        return [*found, Found("!", "it can be read back", "no known way to; look there yourself")]
    found.append(Found("✓", "it can be read back", reader.kind))
    server.write([_line(f"{tag}old", 3.0, now_ns - 200 * NS_PER_DAY)])
    server.write([_line(f"{tag}new", 3.0, now_ns + 400 * NS_PER_DAY)])
    good = f"{tag}good"
    mixed = server.write([_line(good, 4.0, now_ns - hour_ns), "no line protocol at all"])
    found.append(_revisions(server, reader, tag, now_ns - hour_ns))
    refused = isinstance(mixed, Malformed)
    found.append(
        Found("✓" if refused else "!", "a line that is none is refused",
              "yes" if refused else "no: it is dropped in silence; ours are checked before")
    )  # fmt: skip
    for name, trial, lost in (
        ("old", "a row of 200 days ago is kept", "no: beyond its retention"),
        ("new", "a row of the future is kept", "no: dropped in silence; we refuse to send any"),
    ):
        kept = bool(_settled(reader, f"{tag}{name}", [3.0]))
        found.append(Found("✓" if kept else "!", trial, "yes" if kept else lost))
    return found


def _revisions(server: Server, reader: Reader, tag: str, t_ns: int) -> Found:
    """Write rows twice, the larger value first and last in turn, and see which is read."""
    trial = "the last revision of a row wins"
    probes = {f"{tag}r{n}": (1.0, 2.0) if n % 2 else (2.0, 1.0) for n in range(REVISED)}
    for turn in (0, 1):
        server.write([_line(probe, values[turn], t_ns) for probe, values in probes.items()])
        reader.flush()
        time.sleep(APART_S)  # so that each revision is written down on its own
    read = {probe: _settled(reader, probe, [v[1]]) for probe, v in probes.items()}
    won = sum(read[probe] == [values[1]] for probe, values in probes.items())
    if won == REVISED:
        return Found("✓", trial, f"yes, {won} of {REVISED} times")
    return Found("!", trial, f"not always: {won} of {REVISED} times")


def _line(tag: str, value: float, t_ns: int) -> str:
    return f"{PROBE},probe={tag} value={value} {t_ns}"


def _settled(reader: Reader, tag: str, wanted: list[float]) -> list[float]:
    """What is read once it is what is wanted, or at last."""
    until_s = time.monotonic() + SETTLE_S
    while (values := reader.values(tag)) != wanted and time.monotonic() < until_s:
        time.sleep(0.25)
    return values


def _reader(settings: "Store") -> Reader | None:
    """How this server is read: VictoriaMetrics by its export, InfluxDB 2 by Flux, 1 by InfluxQL."""
    url, token = settings.url, settings.secret()
    head = {"Authorization": f"Token {token}"} if token else {}

    def export(tag: str) -> list[float]:
        match = quote(f'{PROBE}_value{{probe="{tag}"}}')
        now_s = time.time_ns() // NS_PER_S
        since = f"&start={now_s - SPAN_S}&end={now_s + SPAN_S}"
        body = _get(f"{url}/api/v1/export?match[]={match}{since}", head) or b""
        return [v for line in body.splitlines() for v in json.loads(line)["values"]]

    def influxql(tag: str) -> list[float]:
        asked = f"SELECT value FROM \"{PROBE}\" WHERE probe = '{tag}'"
        query = urlencode({"db": settings.bucket, "q": asked})
        body = _get(f"{url}/query?{query}", head) or b"{}"
        series = json.loads(body).get("results", [{}])[0].get("series", [])
        return [float(value) for one in series for _, value in one["values"]]

    def flux(tag: str) -> list[float]:
        asked = (
            f'from(bucket: "{settings.bucket}") |> range(start: -3y, stop: 3y)'
            f' |> filter(fn: (r) => r._measurement == "{PROBE}" and r.probe == "{tag}")'
            ' |> keep(columns: ["_value"])'
        )
        csv = {**head, "Accept": "application/csv", "Content-Type": "application/vnd.flux"}
        org = urlencode({"org": settings.org})
        body = _get(f"{url}/api/v2/query?{org}", csv, asked.encode()) or b""
        lines = body.decode().split()
        return [float(line.rsplit(",", 1)[1]) for line in lines[1:]]

    if b"victoria" in (_get(f"{url}/", head) or b"").lower():
        flush = partial(_get, f"{url}/internal/force_flush", head)
        return Reader("VictoriaMetrics, by /api/v1/export", export, flush)
    if _get(f"{url}/query?{urlencode({'db': settings.bucket, 'q': 'SHOW DATABASES'})}", head):
        return Reader("InfluxDB 1, by InfluxQL", influxql)
    if b"influxdb" in (_get(f"{url}/health", head) or b""):
        return Reader("InfluxDB 2, by Flux", flux)
    return None


def _get(url: str, head: dict[str, str], body: bytes | None = None) -> bytes | None:
    try:
        with urlopen(Request(url, body, head), timeout=10) as answer:
            return bytes(answer.read())
    except (HTTPError, URLError, OSError):
        return None
