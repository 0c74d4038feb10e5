"""The API of a recording: KPI rows, assets, alarms, a feed, metrics, health; OpenAPI describes it.

Answers are JSON: ``null`` is no evidence, times are RFC 3339 in UTC. Errors are problem JSON (RFC
9457) that say what to try. Who may see what is decided in ``gate`` and ``access``; nothing here
writes.
"""

import asyncio
import base64
import binascii
import html
import platform
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
from fastapi import FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from beilun.serving.access import ANYBODY, Narrowed, Viewer
from beilun.serving.feed import Feed, Stream, Wanted, as_json, following
from beilun.serving.gate import problem
from beilun.serving.reading import Reader
from config.errors import BeilunError, RecordingError, UsageError
from config.tomlfile import guess
from config.units import NS_PER_S, format_time, parse_time
from config.version import __version__
from edge import kpis
from edge.rows import ALL, ORDER_NUMBER
from ingest.messages import Asset

MOST_ROWS = 10_000
LATEST_NS = (1 << 63) - 1
"""The last time SQLite can be asked for."""


class KpiRow(BaseModel):
    """One KPI of one asset or group and window."""

    asset: str
    kpi: str
    unit: str
    window: str
    start: str
    end: str
    value: float | None
    """`null`: no evidence."""
    n: int
    late: int
    revision: int


class KpiRows(BaseModel):
    """Rows, and where the next ones begin."""

    rows: list[KpiRow]
    next: str | None
    """Hand it in as `cursor`; `null`: there are no more."""
    until: str
    """How far event time has come."""


class AssetEntry(BaseModel):
    """An asset, or a group of them (`kind` is empty)."""

    asset: str
    kind: str
    channels: dict[str, str]
    limits: dict[str, tuple[float, float]]
    kpis: list[str]


class AlarmEntry(BaseModel):
    """An alarm from when it was raised until it was cleared (`null`: it stands)."""

    rule: str
    asset: str
    severity: str
    text: dict[str, str]
    raised: str
    cleared: str | None
    value: float | None


class Health(BaseModel):
    """Whether the service runs, and whether it has anything to tell."""

    alive: bool
    ready: bool
    why: str


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str = ""
    hint: str = ""


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": said}
    for status, said in (
        (400, "a parameter means nothing here"),
        (401, "not signed in"),
        (403, "not for this role"),
        (422, "a parameter does not validate"),
        (503, "the recording cannot be read"),
    )
}


OF_ONE = (
    "Everything here is of one recording: the one that the server was started with. A page may show"
    " another meanwhile; the API, the feed and the metrics do not follow it. For another recording,"
    " start a server for it: `beilun serve FILE --api-only --port 0`."
)


def make_app(reader: Reader) -> FastAPI:
    """The API over a recording. ``gate.Gate`` has to stand before it, or everybody is let in as an
    operator."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncGenerator[None, None]:
        async with following(reader) as feed:
            app.state.feed = feed
            yield

    app = FastAPI(
        title="Beilun",
        version=__version__,
        summary="KPIs of a factory floor, as its edge computes them.",
        description=OF_ONE,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=life,
        responses=_PROBLEMS,
    )
    _Api(reader, app).add()
    _errors(app)
    return app


class _Api:
    def __init__(self, reader: Reader, app: FastAPI) -> None:
        self._reader = reader
        self._app = app
        self._known = frozenset(kpis.load())

    def add(self) -> None:
        """Every path."""
        app = self._app
        kpis, health = ["KPIs"], ["Health"]
        for path, say, tags, model, summary in (
            ("/api/v1/kpis", self.kpis, kpis, KpiRows, "KPI rows"),
            ("/api/v1/assets", self.assets, kpis, list[AssetEntry], "Assets and groups"),
            ("/api/v1/alarms", self.alarms, kpis, list[AlarmEntry], "Alarms"),
            ("/api/v1/feed", self.feed, kpis, None, "Rows as they change, server-sent events"),
            ("/metrics", self.metrics, health, None, "Counters of the edge's stages"),
            ("/healthz", self.health, health, Health, "Alive and ready"),
            ("/healthz/live", self.live, health, Health, "The process answers"),
            ("/healthz/ready", self.ready, health, Health, "There is a window that has closed"),
        ):
            app.get(path, summary=summary, tags=[*tags], response_model=model)(say)
        app.get("/api/docs", include_in_schema=False)(self.docs)

    # rows ---------------------------------------------------------------------------------------

    async def kpis(
        self,
        request: Request,
        kpi: Annotated[list[str] | None, Query(description="Names of KPIs; none: all.")] = None,
        asset: Annotated[
            str, Query(max_length=300, description="Glob over names, or with / over paths.")
        ] = "*",
        window: Annotated[
            str | None, Query(max_length=40, description="1m, 1h, shift ...; the shortest if none.")
        ] = None,
        begin: Annotated[
            str | None,
            Query(alias="from", max_length=40, description="Windows that ended after this time."),
        ] = None,
        end: Annotated[
            str | None,
            Query(alias="to", max_length=40, description="... and up to this one."),
        ] = None,
        limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 1_000,
        cursor: Annotated[
            str | None, Query(max_length=100, description="`next` of before.")
        ] = None,
    ) -> Response:
        """Rows of windows that ended in a stretch of time, series by series and each oldest first.

        Without `from` the last window of each that had ended at `to`, or by now.
        """
        reader = self._for(request)
        names = self._named(kpi or ())
        label = self._label(reader, window)
        to_ns = LATEST_NS if end is None else _time_ns(end, "to")
        if begin is None and cursor is None:
            found = await asyncio.to_thread(reader.last, names, label, to_ns, asset)
            rows, following = found[:limit], None
            if len(found) > limit:
                raise _bad(
                    f"{len(found)} rows, and limit is {limit}", "ask for fewer, or set `from`"
                )
        else:
            from_ns = 0 if begin is None else _time_ns(begin, "from")
            rows, following = await asyncio.to_thread(
                reader.query, names, asset, label, from_ns, to_ns, limit, _place(cursor)
            )
        return _json(
            {
                "rows": [as_json(row, (label,)) for row in rows],
                "next": None if following is None else _cursor(following),
                "until": format_time(await asyncio.to_thread(reader.end_ns)),
            }
        )

    def _named(self, asked: Sequence[str]) -> list[str]:
        names = [name for part in asked for name in part.split(",") if name]
        known = self._known | {ORDER_NUMBER}
        for name in names:
            if name not in known and not name.startswith("alarm."):
                raise _bad(f"unknown KPI {name[:100]!r}{guess(name[:100], known)}")
        return names

    def _label(self, reader: Reader, asked: str | None) -> str:
        from config.windows import spelt

        known = reader.windows
        if asked is None:
            if not known:
                raise _bad("no window is known yet", "name one, like window=1m")
            return known[0]
        try:
            label = spelt(asked)
        except ValueError as error:
            raise _bad(str(error)) from None
        if known and label not in known:
            raise _bad(f"no windows of {label}", f"there are {', '.join(known)}")
        return label

    async def assets(self, request: Request) -> Response:
        """Every asset that announced itself, and every group that has KPIs."""
        reader = self._for(request)

        def find() -> list[dict[str, Any]]:
            found = [
                _asset(info.asset, info.kind, info.channels, info.limits,
                       reader.kpi_names(info.asset))
                for info in reader.assets()
            ]  # fmt: skip
            groups = [
                _asset(group, "", {}, {}, reader.kpi_names(group)) for group in reader.groups()
            ]
            return sorted([*found, *groups], key=lambda each: each["asset"])

        return _json(await asyncio.to_thread(find))

    async def alarms(
        self,
        request: Request,
        begin: Annotated[
            str | None, Query(alias="from", max_length=40, description="On at any time since.")
        ] = None,
        end: Annotated[
            str | None, Query(alias="to", max_length=40, description="As they stood then.")
        ] = None,
    ) -> Response:
        """Alarms that were on, the newest first; without `from` those that stand."""
        self._only(request, "operator", "viewer")
        reader = self._for(request)

        def find() -> list[dict[str, Any]]:
            at_ns = reader.end_ns() if end is None else _time_ns(end, "to")
            since_ns = at_ns if begin is None else _time_ns(begin, "from")
            return [
                {
                    "rule": alarm.rule,
                    "asset": _path(alarm.asset),
                    "severity": alarm.severity,
                    "text": alarm.text,
                    "raised": format_time(alarm.raised_ns),
                    "cleared": None if alarm.cleared_ns is None else format_time(alarm.cleared_ns),
                    "value": alarm.value,
                }
                for alarm in reader.alarms(at_ns, since_ns)
                if begin is not None or alarm.cleared_ns is None
            ]

        return _json(await asyncio.to_thread(find))

    async def feed(
        self,
        request: Request,
        kpi: Annotated[list[str] | None, Query(description="Globs over KPIs.")] = None,
        asset: Annotated[str, Query(max_length=300)] = "",
        window: Annotated[list[str] | None, Query(description="Labels of windows.")] = None,
        after: Annotated[
            int | None, Query(ge=0, le=LATEST_NS, description="Number of the last event seen.")
        ] = None,
        last_event_id: Annotated[
            str | None, Header(pattern=r"^\d{1,18}$", description="The same, from a browser.")
        ] = None,
    ) -> Any:
        """Each event is a row as `/api/v1/kpis` has it (`gone`: there is no such window after all);
        its `id` grows for ever. Whoever comes back with the last one misses nothing. An event `gap`
        says what is no longer there; without `after` it begins with what changes from now on."""
        narrowed = self._for(request)
        place = after if last_event_id is None else int(last_event_id)
        globs = tuple(part[:100] for each in kpi or () for part in each.split(",") if part)
        labels = tuple(self._label(narrowed, each) for each in window or ())
        allows = narrowed.allows if isinstance(narrowed, Narrowed) else None
        feed: Feed = self._app.state.feed
        return Stream(feed, Wanted(globs, asset, labels), place, allows)

    # health -------------------------------------------------------------------------------------

    async def metrics(
        self,
        request: Request,
        kpis: Annotated[bool, Query(description="Also the last value of every KPI.")] = False,
        window: Annotated[str, Query(max_length=40, description="... in these windows.")] = "1m",
    ) -> Response:
        """The seven counters of each stage of the edge, what the feed does, and build info."""
        self._only(request, "operator", "viewer")
        label = self._label(self._reader, window) if kpis else ""

        def find() -> bytes:
            registry = CollectorRegistry(auto_describe=False)
            registry.register(_Metrics(self._reader, self._app.state.feed, label))
            return generate_latest(registry)

        return Response(await asyncio.to_thread(find), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    async def health(self) -> Response:
        """Both in one: 200 where it is ready, 503 where it is not."""
        why = await self._trouble()
        return _json({"alive": True, "ready": not why, "why": why}, 503 if why else 200)

    async def live(self) -> Response:
        """200 as long as the process answers."""
        return _json({"alive": True, "ready": not await self._trouble(), "why": ""})

    async def ready(self) -> Response:
        """200 once the recording can be read and its first window has closed."""
        return await self.health()

    async def _trouble(self) -> str:
        def find() -> str:
            try:
                closed = self._reader.end_ns() > self._reader.start_ns
                return "" if closed else "no window has closed yet"
            except RecordingError:
                return "the recording cannot be read"  # no name: anybody may ask

        return await asyncio.to_thread(find)

    def docs(self) -> HTMLResponse:
        """The API as a page: what OpenAPI says, without anything from elsewhere."""
        return HTMLResponse(_described(self._app.openapi()))

    # who ----------------------------------------------------------------------------------------

    def _for(self, request: Request) -> Reader:
        """The recording as the one who asks may see it."""
        return viewer_of(request).narrowed(self._reader)

    @staticmethod
    def _only(request: Request, *roles: str) -> None:
        if viewer_of(request).role not in roles:
            raise HTTPException(403, f"only for {' and '.join(roles)}")


def viewer_of(request: Request) -> Viewer:
    """Who sent a request, as the gate found."""
    found = request.scope.get("state", {}).get("viewer")
    return found if isinstance(found, Viewer) else ANYBODY


# answers ----------------------------------------------------------------------------------------


def _json(said: object, status: int = 200) -> Response:
    return Response(
        msgspec.json.encode(said), status, {"cache-control": "no-store"}, "application/json"
    )


def _bad(why: str, hint: str = "") -> UsageError:
    return UsageError(why, hint=hint)


def _time_ns(text: str, name: str) -> int:
    try:
        return min(max(parse_time(text.strip().replace(" ", "+")), 0), LATEST_NS)
    except (ValueError, OverflowError):
        raise _bad(f"{name} is not a time", "write it like 2026-01-05T00:00:00Z") from None


def _cursor(place: tuple[int, int]) -> str:
    return base64.urlsafe_b64encode(f"{place[0]}:{place[1]}".encode()).decode().rstrip("=")


def _place(cursor: str | None) -> tuple[int, int]:
    if cursor is None:
        return 0, 0
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        number, start_ns = base64.b64decode(padded, b"-_", validate=True).decode().split(":")
        place = int(number), int(start_ns)
    except (ValueError, binascii.Error):
        place = -1, 0
    if not (0 <= place[0] <= LATEST_NS and abs(place[1]) <= LATEST_NS):
        raise _bad("not a cursor", "hand in `next` as it came")
    return place


def _path(asset: Asset) -> str:
    return "/".join(level for level in asset if level != ALL)


def _asset(
    asset: Asset,
    kind: str,
    channels: Mapping[str, str],
    limits: Mapping[str, tuple[float, float]],
    names: Sequence[str],
) -> dict[str, Any]:
    return {
        "asset": _path(asset), "kind": kind, "channels": dict(channels), "limits": dict(limits),
        "kpis": list(names),
    }  # fmt: skip


def _errors(app: FastAPI) -> None:
    def respond(said: tuple[int, bytes, dict[str, str]]) -> Response:
        status, body, headers = said
        return Response(body, status, headers)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return respond(problem(422, "does not validate", f"{where}: {first['msg']}"))

    @app.exception_handler(UsageError)
    async def _usage(_: Request, error: UsageError) -> Response:
        return respond(problem(400, "not understood", error.problem, error.hint))

    @app.exception_handler(BeilunError)
    async def _unreadable(request: Request, error: BeilunError) -> Response:
        """The words of the error name a file of this host, which is not for everybody."""
        told = error.problem if viewer_of(request).role == "operator" else ""
        return respond(problem(503, "the recording cannot be read", told, error.hint))

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        hint = "/api/docs lists what there is" if error.status_code == 404 else ""
        title = {404: "no such path", 405: "no such method"}.get(error.status_code, error.detail)
        return respond(problem(error.status_code, title, hint=hint))


# metrics ----------------------------------------------------------------------------------------

_COUNTED = {
    "in_": ("in", "Messages or rows that came to a stage."),
    "out": ("out", "What went on from it."),
    "rejected": ("rejected", "Refused for what they are."),
    "late": ("late", "Came after their pane was closed."),
    "dropped": ("dropped", "Lost or left out there."),
}


class _Metrics:
    """What Prometheus collects, as it is at this moment."""

    def __init__(self, reader: Reader, feed: Feed, window: str) -> None:
        self._reader = reader
        self._feed = feed
        self._window = window

    def collect(self) -> Iterable[Metric]:
        """For the registry."""
        build = GaugeMetricFamily(
            "beilun_build_info", "Which build serves.", labels=["version", "python"]
        )
        build.add_metric([__version__, platform.python_version()], 1)
        yield build
        yield from self._stages()
        reader, feed = self._reader, self._feed
        for name, said, value in (
            ("event_time_seconds", "How far event time has come.", reader.end_ns() / NS_PER_S),
            ("recording_live", "Whether it is still being written.", int(reader.live())),
            ("feed_followers", "Connections that follow the feed.", feed.followers),
            ("feed_newest", "Number of the newest change.", feed.newest),
            ("feed_closed_slow", "Followers that did not keep up.", feed.closed_slow),
        ):
            yield GaugeMetricFamily(f"beilun_{name}", said, value=value)
        if self._window:
            yield self._kpis()

    def _stages(self) -> Iterable[Metric]:
        stages = self._reader.stages()
        for field, (name, said) in _COUNTED.items():
            counter = CounterMetricFamily(f"beilun_stage_{name}", said, labels=["stage"])
            for stage in stages:
                if (n := getattr(stage, field)) is not None:
                    counter.add_metric([stage.stage], n)
            yield counter
        backlog = GaugeMetricFamily("beilun_stage_backlog", "What waits.", labels=["stage"])
        slow = GaugeMetricFamily(
            "beilun_stage_p99_seconds", "99 % take no longer.", labels=["stage"]
        )
        for stage in stages:
            if stage.backlog is not None:
                backlog.add_metric([stage.stage], stage.backlog)
            if stage.p99_ms is not None:
                slow.add_metric([stage.stage], stage.p99_ms / 1e3)
        yield from (backlog, slow)

    def _kpis(self) -> Metric:
        labels = ["asset", "kpi", "unit"]
        found = GaugeMetricFamily("beilun_kpi", f"Last {self._window} window.", labels=labels)
        for row in self._reader.last((), self._window, LATEST_NS):
            if row.value is not None:
                found.add_metric([_path(row.asset), row.kpi, row.unit], row.value)
        return found


# docs -------------------------------------------------------------------------------------------


def _described(api: Mapping[str, Any]) -> str:
    parts = [
        f"<h1>{html.escape(api['info']['title'])} {html.escape(api['info']['version'])}</h1>",
        f"<p>{html.escape(api['info'].get('summary', ''))} The whole description is"
        ' <a href="/api/openapi.json">openapi.json</a>, for any OpenAPI tool; a page to try it out'
        " would need scripts from elsewhere, and there are none here.</p>",
        f"<p>{html.escape(api['info'].get('description', ''))}</p>",
    ]
    for path, operations in api["paths"].items():
        for method, said in operations.items():
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            parts.append(
                f"<p>{html.escape(said.get('description') or said.get('summary', ''))}</p>"
            )
            rows = "".join(
                f"<tr><td><code>{html.escape(each['name'])}</code></td><td>{each['in']}</td>"
                f"<td>{html.escape(each.get('description', ''))}</td></tr>"
                for each in said.get("parameters", ())
            )
            if rows:
                parts.append(f"<table>{rows}</table>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Beilun API</title>'
        "<style>:root{color-scheme:dark light;font:16px/1.5 system-ui,sans-serif}body{max-width:"
        "60rem;margin:2rem auto;padding:0 1rem}td{padding:.1rem .8rem .1rem 0;vertical-align:top}"
        f"</style></head><body>{''.join(parts)}</body></html>"
    )
