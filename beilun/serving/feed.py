"""Rows as they change, as server-sent events that can be resumed: one look for all who follow.

    recording ──look, when it was written to──► ring of the newest changes, encoded once
                                                   │       │       │      each follower has a place
                                                   ▼       ▼       ▼      in it, and nothing else
                                                 socket  socket  socket

An event's ``id`` is the number of the change, which the writer gave it in the transaction that
wrote the row: whoever comes back with the last one it saw misses nothing and gets nothing twice,
from this or any other server of the recording. A change names its row, and the row is sent as it is
when it is read, so of two quick amendments both events may carry the second.

A follower who reads too slowly costs no memory: it stands at its place while the others go on. When
the recording has let go of that place, it is told so in a comment and the connection is closed; so
is one whose socket takes nothing for long. Who comes back too late gets an event ``gap``, which
says what is missing.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from itertools import islice
from typing import NamedTuple

import msgspec
from starlette.responses import Response

from beilun.serving.gate import Receive, Scope, Send
from beilun.serving.reading import Reader
from config.errors import RecordingError
from config.globs import asset_matches
from config.units import format_time
from config.windows import Order, naming
from edge.rows import ALL, Row

LOOK_S = 0.1
"""How often the recording is asked whether anybody wrote to it."""
HEARTBEAT_S = 15.0
RETRY_MS = 2_000
"""After how long a browser comes back."""
RING = 20_000
"""Changes that are kept encoded, some 6 MB; who is further behind reads the recording."""
CHUNK = 500
"""Events that are written at once."""
STUCK_S = 30.0
"""How long a socket may take nothing before it is closed."""


class Event(NamedTuple):
    """A change, ready to be sent."""

    number: int
    row: Row
    windows: tuple[str, ...]
    sent: bytes


class Wanted(NamedTuple):
    """What a follower asked for; empty: everything."""

    kpis: tuple[str, ...] = ()
    asset: str = ""
    windows: tuple[str, ...] = ()

    def takes(self, event: Event) -> bool:
        """Whether an event is wanted."""
        row = event.row
        if self.kpis and not any(fnmatchcase(row.kpi, kpi) for kpi in self.kpis):
            return False
        if self.asset and not asset_matches(self.asset, path_of(row)):
            return False
        return not self.windows or not set(self.windows).isdisjoint(event.windows)


def path_of(row: Row) -> str:
    """An asset's or group's path, without the levels a group does not have."""
    return "/".join(level for level in row.asset if level != ALL)


def as_json(row: Row, windows: tuple[str, ...]) -> dict[str, object]:
    """A row as the API tells it."""
    return {
        "asset": path_of(row),
        "kpi": row.kpi,
        "unit": row.unit,
        "window": windows[0] if windows else Order.label,
        "start": format_time(row.window_start_ns),
        "end": format_time(row.span.end_ns),
        "value": row.value,
        "n": row.n,
        "late": row.late,
        "revision": row.revision,
        **({"gone": True} if row.gone else {}),
    }


class Feed:
    """The newest changes of a recording, for any number of followers; see ``following``."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._names = naming(reader.kinds)
        self._ring: deque[Event] = deque(maxlen=RING)
        self._newest = 0
        self._moved = asyncio.Condition()
        self.followers = 0
        self.closed_slow = 0
        """Followers that were closed because they did not keep up."""
        self.trouble = ""
        """Why the recording cannot be read, as long as it cannot."""
        self.ended = False

    async def end(self) -> None:
        """Nothing follows: every follower is let go in good order."""
        self.ended = True
        async with self._moved:
            self._moved.notify_all()

    @property
    def newest(self) -> int:
        """Number of the newest change there is."""
        return self._newest

    async def run(self) -> None:
        """Look for ever; what cannot be read is tried again."""
        version = -1
        self._newest = (await asyncio.to_thread(self._reader.change_span))[1]
        while True:
            try:
                found = self._reader.version()
                if found != version:
                    version = found
                    await self._take()
                self.trouble = ""
            except RecordingError as error:
                self.trouble = str(error)
            await asyncio.sleep(LOOK_S)

    async def _take(self) -> None:
        while new := await asyncio.to_thread(self.read, self._newest):
            self._ring.extend(new)
            self._newest = new[-1].number
            async with self._moved:
                self._moved.notify_all()
            await asyncio.sleep(0)

    def oldest(self) -> int:
        """Number of the oldest change that the recording still has; 0 where it has none."""
        return self._reader.change_span()[0]

    def read(self, after: int) -> list[Event]:
        """The next changes after one, from the recording."""
        return [self._event(number, row) for number, row in self._reader.changes(after, 2 * CHUNK)]

    def _event(self, number: int, row: Row) -> Event:
        windows = self._names(row.span)
        data = msgspec.json.encode(as_json(row, windows))
        return Event(number, row, windows, b"id: %d\nevent: row\ndata: %s\n\n" % (number, data))

    async def wait(self, after: int) -> bool:
        """Wait until there is something after a change; ``False`` where there is none for long."""
        if self._newest > after:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT_S), self._moved:
                await self._moved.wait_for(lambda: self.ended or self._newest > after)
        return self._newest > after

    async def next(self, after: int) -> list[Event]:
        """Some of what follows a change; from the ring as far as it has it."""
        ring = self._ring
        if ring and ring[0].number <= after + 1:
            return list(islice(self._behind(after), CHUNK))
        return await asyncio.to_thread(self.read, after)

    def _behind(self, after: int) -> Iterator[Event]:
        """Events of the ring after a change; they lie at its end, so that is where to look."""
        missing = 0
        for event in reversed(self._ring):
            if event.number <= after:
                break
            missing += 1
        return islice(self._ring, len(self._ring) - missing, None)


@asynccontextmanager
async def following(reader: Reader) -> AsyncGenerator[Feed, None]:
    """Follow a recording while the block runs."""
    feed = Feed(reader)
    task = asyncio.create_task(feed.run(), name="serving.feed")
    try:
        yield feed
    finally:
        task.cancel()
        await asyncio.wait((task,))


class Stream(Response):
    """An ASGI response: the feed to one follower, from a place on, for as long as it listens."""

    def __init__(
        self,
        feed: Feed,
        wanted: Wanted,
        after: int | None,
        allows: Callable[[Row], bool] | None = None,
    ) -> None:
        """``after`` ``None``: from now on. ``allows``: what the follower may see, where that is not
        everything."""
        super().__init__()
        self._feed = feed
        self._wanted = wanted
        self._after = feed.newest if after is None else after
        self._allows = allows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the follower leaves, or does not keep up."""
        del scope
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),  # a proxy must not collect events
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        self._feed.followers += 1
        leaving = asyncio.create_task(_left(receive), name="serving.feed.left")
        sending = asyncio.create_task(self._send(send), name="serving.feed.send")
        try:
            await asyncio.wait((leaving, sending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._feed.followers -= 1
            for task in (leaving, sending):
                task.cancel()
            await asyncio.wait((leaving, sending))
        if not sending.cancelled() and (error := sending.exception()) is not None:
            raise error

    async def _send(self, send: Send) -> None:
        async def write(body: bytes) -> None:
            async with asyncio.timeout(STUCK_S):
                await send({"type": "http.response.body", "body": body, "more_body": True})

        try:
            await write(b"retry: %d\n\n" % RETRY_MS)
            oldest = await asyncio.to_thread(self._feed.oldest)
            if oldest > self._after + 1:
                gap = b'{"after": %d, "before": %d}' % (self._after, oldest)
                self._after = oldest - 1
                await write(b"id: %d\nevent: gap\ndata: %s\n\n" % (self._after, gap))
            while not self._feed.ended and await self._some(write):
                pass
            if not self._feed.ended:
                self._feed.closed_slow += 1
                await write(b": too slow; come back with Last-Event-ID %d\n\n" % self._after)
        except TimeoutError:  # it takes nothing, so it cannot be told either
            self._feed.closed_slow += 1
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _some(self, write: Callable[[bytes], Awaitable[None]]) -> bool:
        """Send what is next, or that nothing is; ``False`` where its place is lost."""
        if not await self._feed.wait(self._after):
            if self._feed.ended:
                return True
            # The number moves on where nothing was wanted, so that whoever comes back need not
            # begin at what the recording has let go of meanwhile.
            await write(b": still here\nid: %d\n\n" % self._after)
            return True
        events = await self._feed.next(self._after)
        if not events:
            return True
        if events[0].number > self._after + 1:
            return False
        self._after = events[-1].number
        wanted, allows = self._wanted, self._allows
        body = b"".join(
            event.sent
            for event in events
            if wanted.takes(event) and (allows is None or allows(event.row))
        )
        if body:
            await write(body)
        else:
            await asyncio.sleep(0)
        return True


async def _left(receive: Receive) -> None:
    """Return once the follower is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
