"""The clock of one browser tab, and its session: which recording, what moment, who looks.

    live     t = how far event time has come in the recording; grows as the edge writes
    replay   t = where the operator put it; plays on at 0.1 to 100 times the pace of events

A view never asks what is now: it is given ``t_ns``. So live and replay are one code, and what was
on a screen at some time can be shown again. Wall time enters in one place only, ``Session.tick``,
and there as the seconds that went by.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from beilun.serving.access import ANYBODY, Viewer
from beilun.serving.acks import Acks
from beilun.serving.page import words
from config.units import NS_PER_S, parse_duration, parse_time

if TYPE_CHECKING:
    from beilun.serving.reading import Reader
    from ingest.messages import Asset

SPEEDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 100.0)
"""Event seconds a second that a replay can be played at."""

QUIET_S = 10.0
"""Silence of a live recording that is worth telling; an edge writes its counters every second."""

REST_S = 2.0
"""After trouble, how long until it is tried again."""

Callback = Callable[[], Awaitable[None] | None]


@dataclass(slots=True)
class Clock:
    """Where in a recording a tab is. ``open`` says that the recording is still being written."""

    start_ns: int
    end_ns: int
    open: bool
    t_ns: int = 0
    following: bool = True
    """At the end, and going with it."""
    playing: bool = False
    speed: float = 1.0

    def __post_init__(self) -> None:
        self.end_ns = max(self.end_ns, self.start_ns)
        self.t_ns = self.end_ns

    @property
    def live(self) -> bool:
        """Whether what is shown is the newest of a recording that is still being written."""
        return self.following and self.open

    def follow(self) -> None:
        """To the end, and stay there."""
        self.following, self.playing, self.t_ns = True, False, self.end_ns

    def seek(self, t_ns: int) -> None:
        """To a moment, which is held inside the recording. Playing goes on from there."""
        self.following = False
        self.t_ns = min(max(t_ns, self.start_ns), self.end_ns)

    def play(self) -> None:
        """From here on; from the start where a finished recording stands at its end."""
        if self.t_ns >= self.end_ns:
            if self.open:
                self.follow()
                return
            self.t_ns = self.start_ns
        self.following, self.playing = False, True

    def pause(self) -> None:
        """Stay here."""
        self.following = self.playing = False

    def toggle(self) -> None:
        """Play what stands, stop what moves: also the end that is followed."""
        if self.playing or self.live:
            self.pause()
        else:
            self.play()

    def pace(self, steps: int) -> None:
        """So many speeds faster (slower: below 0), as far as there are any."""
        near = min(range(len(SPEEDS)), key=lambda i: abs(SPEEDS[i] - self.speed))
        self.speed = SPEEDS[min(max(near + steps, 0), len(SPEEDS) - 1)]

    def advance(self, seconds: float, end_ns: int, *, is_open: bool) -> None:
        """After so many seconds, with a recording that reaches up to ``end_ns`` now."""
        self.end_ns, self.open = max(end_ns, self.start_ns), is_open
        if self.following:
            self.t_ns = self.end_ns
        elif self.playing:
            self.t_ns = min(self.t_ns + round(seconds * self.speed * NS_PER_S), self.end_ns)
            if self.t_ns >= self.end_ns:
                self.playing = False
                self.following = self.open
        else:
            self.t_ns = min(self.t_ns, self.end_ns)


class Session:
    """One tab: a recording, its clock, and the choices of the person before it.

    A view builds its elements once and registers what must be brought up to date with ``on_tick``.
    """

    def __init__(
        self,
        reader: "Reader",
        *,
        viewer: Viewer = ANYBODY,
        language: str = "en",
        dark: bool = True,
        other: "Reader | None" = None,
        acks: Acks | None = None,
        keep: Mapping[str, str] | None = None,
    ) -> None:
        self.reader = reader
        self.acks = acks or Acks(reader.path)
        """Who acknowledged which alarm of this recording."""
        self.keep = dict(keep or {})
        """What of the address stays whichever view is open: the recording, if it is not the one the
        server was started with, and the one it is compared with."""
        self.other = other
        """The recording that this one is compared with."""
        self.viewer = viewer
        self.language = language
        self.dark = dark
        self.clock = Clock(reader.start_ns, reader.newest_ns(), reader.live())
        self.first_window = _first_window(reader, self.clock)
        self.window = self.first_window
        """Label of the windows whose KPIs are shown; see ``choose``."""
        self.path = "/"
        self.focus = ""
        """What a view is about: the path of an asset or group, like ``ningbo/casting``; the whole
        site where empty. It is part of the address, so a link leads to it."""
        self._quiet_s = 0.0
        self.trouble: Exception | None = None
        """Why what is on the screen is not up to date, as when the recording cannot be read."""
        self._rest_s = 0.0
        self.open_at: Callable[[str, str], None] = lambda path, focus: None
        """How a view is opened; the shell sets it."""
        self._lasting: list[Callback] = []
        self._callbacks: list[Callback] = []
        self._running: asyncio.Future[Any] | None = None
        """What of the view is under way."""
        self._seen: tuple[object, ...] = ()
        self._version = reader.version()

    @property
    def t_ns(self) -> int:
        """The moment that is shown."""
        return self.clock.t_ns

    @property
    def quiet_ns(self) -> int:
        """For how long nobody has written to a recording that is followed live, in whole seconds:
        the edge has stopped, or nothing reaches it. 0 below ten seconds, and in any replay: this
        grows with wall time, so it is no property of the moment shown."""
        quiet = self.clock.live and self._quiet_s >= QUIET_S
        return int(self._quiet_s) * NS_PER_S if quiet else 0

    @property
    def role(self) -> str:
        """Operator, viewer or customer."""
        return self.viewer.role

    def sees(self, asset: "Asset") -> bool:
        """Whether the person may see an asset or group; every list and row goes through it."""
        return self.viewer.sees(asset)

    def say(self, key: str, **values: object) -> str:
        """A text in the person's language; ``values`` fill its braces."""
        return words.say(key, self.language, **values)

    def kpi(self, name: str) -> str:
        """What people call a KPI."""
        return words.kpi(name, self.language)

    def address(self, path: str, focus: str = "", **more: str) -> str:
        """A link to a view about something, in this recording."""
        query = ({"at": focus} if focus else {}) | self.keep | more
        return path + (f"?{urlencode(query, safe=':/')}" if query else "")

    def go(self, path: str, focus: str = "") -> None:
        """Open another view, about an asset or group."""
        self.open_at(path, focus)

    def choose(self, window: str) -> str:
        """Show the KPIs of other windows, and return those that are shown: an unknown label changes
        nothing."""
        if window in self.reader.windows:
            self.window = window
        return self.window

    def on_tick(self, callback: Callback, *, lasting: bool = False) -> None:
        """Call it when the moment, the recording or the window has changed: at most four times a
        second, never twice at once, and no more once another view is open (``lasting``: the
        shell's own). It is called once soon after the view was built. Where it reads for more than
        20 ms it must be a coroutine and let a thread read, by ``asyncio.to_thread``."""
        (self._lasting if lasting else self._callbacks).append(callback)

    def renew(self) -> None:
        """Call everybody at the next tick, whether or not anything has changed."""
        self._seen = ()

    def forget(self) -> None:
        """Nothing is called again: everything on the page is made anew."""
        self._lasting.clear()
        self.forget_view()

    def forget_view(self) -> None:
        """The view is gone: nothing of it is called again, and what of it is under way ends where
        it waits, so that it never touches elements that are no more."""
        self._callbacks = []
        if self._running is not None and self._running is not asyncio.current_task():
            self._running.cancel()
        self.renew()

    async def tick(self, seconds: float) -> None:
        """So many seconds went by. What a callback raises is kept in ``trouble``: the others are
        called all the same, and after a while all again."""
        version = self.reader.version()
        is_open, end_ns = self.clock.open, self.clock.end_ns
        if version != self._version:
            self._version = version
            is_open, end_ns = self.reader.live(), self.reader.newest_ns()
            self._quiet_s = 0.0
        elif is_open:
            self._quiet_s += seconds
        self.clock.advance(seconds, end_ns, is_open=is_open)
        self._rest_s -= seconds
        seen = (self.clock.t_ns, self.clock.playing, version, self.window, self.quiet_ns)
        if seen == self._seen or self._rest_s > 0:
            return
        self._seen = seen
        trouble: Exception | None = None
        mine = self._callbacks
        for callback in (*self._lasting, *mine):
            of_view = callback in mine
            if of_view and self._callbacks is not mine:
                continue  # another view has been opened meanwhile
            try:
                await self._call(callback, of_view=of_view)
            except Exception as error:
                trouble = trouble or error
        self.trouble = trouble
        if trouble is not None:
            self._seen, self._rest_s = (), REST_S

    async def _call(self, callback: Callback, *, of_view: bool) -> None:
        found: Any = callback()
        if not isawaitable(found):
            return
        if not of_view:
            await found
            return
        running = self._running = asyncio.ensure_future(found)
        try:
            await running
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if not running.cancelled() or (own is not None and own.cancelling()):
                raise
        finally:
            self._running = None


def _first_window(reader: "Reader", clock: Clock) -> str:
    """The longest windows of up to an hour of which one has closed, or the shortest there are:
    what is of use to somebody who looks now."""
    most_ns = min(3600 * NS_PER_S, clock.end_ns - clock.start_ns)
    plain = [label for label in reader.windows if label[0].isdigit() and "/" not in label]
    short = [label for label in plain if parse_duration(label) <= most_ns]
    return max(short, key=parse_duration, default=next(iter(reader.windows), ""))


class Asked(NamedTuple):
    """What an address asks for besides its view."""

    focus: str
    t_ns: int | None
    window: str
    recording: str = ""
    """Name of one that is not the one the server was started with."""
    other: str = ""
    """The same, of the one it is compared with."""


def asked(query: Mapping[str, str]) -> Asked:
    """As in ``/area?at=ningbo/casting&w=1m&t=2026-01-05T03:00:00Z``; a moment that is none is left
    out."""
    try:
        t_ns = parse_time(query["t"]) if "t" in query else None
    except ValueError:
        t_ns = None
    return Asked(
        query.get("at", ""), t_ns, query.get("w", ""), query.get("r", ""), query.get("c", "")
    )
