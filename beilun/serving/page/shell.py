"""The frame around every view: header, clocks, navigation, replay bar, keys; and all colours.

    header   site, scenario │ views │ live or replay, local time, UTC │ window, language, theme
    view     what ``View.build`` made, for as long as it is open
    bar      play ─────●──────────── speed, to the newest

A view is a file beside this one that ends with ``VIEWS``. Opening another view replaces the middle
and nothing else: the session, and with it the moment that is shown, stays.
"""

import asyncio
import importlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from functools import cache, partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

from fastapi import Request
from nicegui import app, ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from beilun.serving.access import ANYBODY, Viewer
from beilun.serving.page import words
from beilun.serving.page.clock import SPEEDS, Session, asked
from config.errors import BeilunError
from config.units import NS_PER_S, format_time

if TYPE_CHECKING:
    from nicegui.events import GenericEventArguments

    from beilun.serving.library import Found, Library

_log = logging.getLogger(__name__)
STATIC = Path(__file__).parent / "static"
_ROOMS = ("overview", "area", "asset", "network", "health", "alarms_view", "truth_view", "compare")
"""Files with views, in the order of their digits."""
_ALARMS = "/alarms"
_PERIOD_S = 0.25
_TOLD_S = 2.0
"""How often the address follows a replay that plays."""
_NEWS_S = 3.0
"""How often it is looked whether a newer run has begun."""
_MINUTE_NS = 60 * NS_PER_S
_YEAR_S = 365 * 86_400


# colours ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of one theme. Text has a contrast of 4.5 or more on ground, surface and raised; state
    colours have 3 or more on ground and surface, and ``on_state`` 4.5 or more on each of them."""

    ground: str
    surface: str
    raised: str
    rule: str
    """Lines that part things, and grids of charts."""
    ink: str
    muted: str
    accent: str
    good: str
    warn: str
    bad: str
    on_state: str
    """Letters on a state colour."""
    states: Mapping[str, str]
    """By PackML state."""
    series: tuple[str, ...]
    """Lines of a chart, in order; tell them apart by dashes or marks too."""


def _states(
    produce: str, setup: str, wait: str, idle: str, hold: str, abort: str, stop: str
) -> Mapping[str, str]:
    """States that mean the same to the time model share a colour; their letters differ."""
    return {
        "EXECUTE": produce,
        "STARTING": setup, "RESETTING": setup, "COMPLETING": setup, "COMPLETE": setup,
        "SUSPENDING": wait, "SUSPENDED": wait, "UNSUSPENDING": wait,
        "IDLE": idle,
        "HOLDING": hold, "HELD": hold, "UNHOLDING": hold,
        "ABORTING": abort, "ABORTED": abort, "CLEARING": abort,
        "STOPPING": stop, "STOPPED": stop,
    }  # fmt: skip


DARK = Palette(
    ground="#0d1218", surface="#151c25", raised="#1e2733", rule="#334052", ink="#eef2f6",
    muted="#a3b1c2", accent="#5cb3ff", good="#4cc38a", warn="#f0b429", bad="#ff7b72",
    on_state="#0b0f14",
    states=_states("#3fb37f", "#58a6f0", "#e8b339", "#8fa3ba", "#f08a4b", "#f2777a", "#78889c"),
    series=("#5cb3ff", "#f0b429", "#4cc38a", "#d49bff", "#ff9e80", "#7fdbe6"),
)  # fmt: skip
LIGHT = Palette(
    ground="#f3f5f8", surface="#ffffff", raised="#e9edf2", rule="#c5cfda", ink="#14202c",
    muted="#4c5b6b", accent="#0b62b5", good="#0d7245", warn="#8a5a00", bad="#b3261e",
    on_state="#ffffff",
    states=_states("#0d7a4b", "#1767b8", "#8f6400", "#5a6b7d", "#b4500f", "#b3261e", "#4d5b69"),
    series=("#0b62b5", "#a15c00", "#0d7245", "#7b3fb5", "#b4431f", "#0a6f7d"),
)  # fmt: skip


def palette(session: Session) -> Palette:
    """The colours of the theme that the session has; asked again when a view is built."""
    return DARK if session.dark else LIGHT


def _variables(colours: Palette) -> str:
    plain = ("ground", "surface", "raised", "rule", "ink", "muted", "accent", "good", "warn", "bad",
             "on_state")  # fmt: skip
    found = [f"--{name.replace('_', '-')}:{getattr(colours, name)}" for name in plain]
    found += [f"--state-{name.lower()}:{value}" for name, value in colours.states.items()]
    found += [f"--series-{place}:{value}" for place, value in enumerate(colours.series, 1)]
    return ";".join(found)


@cache
def _head() -> str:
    """What every page has in its head: the two themes as variables, and the style sheets."""
    sheets = "".join(
        f'<link rel="stylesheet" href="/beilun/static/{file.name}?{int(file.stat().st_mtime)}">'
        for file in sorted(STATIC.glob("*.css"))
    )
    return (
        f"<style>body{{{_variables(LIGHT)};color-scheme:light}}"
        f"body.body--dark{{{_variables(DARK)};color-scheme:dark}}</style>{sheets}"
    )


# elements ---------------------------------------------------------------------------------------


class Text(TextElement):
    """An element that holds nothing but text; ``text`` may be set again."""

    def __init__(self, text: str = "", classes: str = "", tag: str = "span") -> None:
        super().__init__(tag=tag, text=text)
        self.classes(classes)


def box(classes: str, tag: str = "div") -> Element:
    """A plain element to put others in."""
    return ui.element(tag).classes(classes)


def mark(element: Element, name: str, value: str) -> None:
    """Give an element an attribute, unless it has it: what has not changed is not sent."""
    known = cast("dict[str, object]", element.props)
    if known.get(name) != value:
        known[name] = value


def button(label: str, classes: str, on_click: Callable[[], object], *, title: str = "") -> Text:
    """A button with text; ``title`` is what it is called aloud where the text is a sign."""
    made = Text(label, f"b-button {classes}", "button")
    made.props["type"] = "button"
    if title:
        made.props["title"] = made.props["aria-label"] = title
    made.on("click", lambda _: on_click(), args=[])
    return made


class Choice:
    """A native list of choices: small, quick, and known to every phone and screen reader."""

    def __init__(
        self,
        choices: Mapping[str, str],
        chosen: str,
        on_choice: Callable[[str], object],
        *,
        title: str,
    ) -> None:
        self.element = ui.element("select").classes("b-choice")
        self.element.props["aria-label"] = self.element.props["title"] = title
        self._options: dict[str, Text] = {}
        with self.element:
            for key, text in choices.items():
                option = self._options[key] = Text(text, tag="option")
                option.props["value"] = key
        self.element.props["value"] = chosen
        self.element.on(
            "change",
            lambda event: on_choice(str(event.args)),
            js_handler="(e) => emit(e.target.value)",
        )

    def choose(self, key: str) -> None:
        """Show another choice as chosen."""
        mark(self.element, "value", key)


class _Time:
    """A clock that says whose time it is."""

    def __init__(self, zone: str, clock: str) -> None:
        root = box("b-time")
        root.props["data-clock"] = clock
        with root:
            Text(zone, "b-zone")
            with box("b-now"):
                self._date, self._time = Text("", "b-date"), Text("", "b-hour")

    def show(self, date: str, time: str) -> None:
        """Another moment."""
        self._date.text, self._time.text = date, time


class _Wire(Element, component="static/wire.js"):
    """What only a browser knows and can do: keys, its address, cookies, its own texts."""

    def __init__(self, *, keys: str, lost: tuple[str, str], language: str) -> None:
        super().__init__()
        self.props["keys"], self.props["lost"], self.props["language"] = keys, lost, language


class _Timeline(Element, component="static/timeline.js"):
    """A recording from start to end: where the session is, and what the scenario did to it."""

    def __init__(self, *, label: str, marks: list[dict[str, Any]]) -> None:
        super().__init__()
        self.props["label"], self.props["marks"] = label, marks


# views ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class View:
    """One view. ``build`` makes its elements in a column and registers what to do at a tick."""

    path: str
    title: str
    """Key of its name in ``words``."""
    icon: str
    """One sign before its name."""
    build: Callable[[Session], None]
    listed: bool = True
    """Whether it stands in the navigation; another is reached from a view."""


@cache
def views() -> tuple[View, ...]:
    """Every view there is, in the order of the navigation."""
    rooms = [importlib.import_module(f"{__package__}.{room}") for room in _ROOMS]
    return tuple(view for room in rooms for view in room.VIEWS)


class _Frame:
    """Header, view and bar of one tab."""

    def __init__(self, session: Session, library: "Library", trouble: str = "") -> None:
        self.session = session
        self.library = library
        self.amiss = trouble
        """What is wrong with the address itself."""
        self.newer = self.declined = ""
        """Name of a run that has begun since, and of the last one that nobody wanted."""
        self.theme = ui.dark_mode(session.dark)
        self.root = box("b-shell")
        self._last = self._told = monotonic()
        session.open_at = self.open
        self.draw()
        self.timer = ui.timer(_PERIOD_S, self._tick)
        if not session.viewer.limited:
            ui.timer(_NEWS_S, self._look_for_newer)

    # what there is

    def draw(self) -> None:
        """Everything anew, in the language of the session."""
        session = self.session
        session.forget()
        self.root.clear()
        ui.page_title(session.say("title", site=session.reader.site or session.reader.name))
        with self.root:
            self.wire = _Wire(
                keys=" ghjklmnotwr?+=-<>0123456789",
                lost=(session.say("lost.title"), session.say("lost.text")),
                language="zh-CN" if session.language == "zh" else "en",
            )
            self.wire.on("key", self._on_key)
            self.wire.on("place", self._on_place)
            self._draw_header()
            self.trouble = Text(self.amiss, "b-trouble", "p")
            self.trouble.props["role"] = "alert"
            self._draw_news()
            self.view = box("b-view", "main")
            self._draw_bar()
            self.help = self._draw_help()
            self.runs = self._draw_runs()
        session.on_tick(self._show, lasting=True)
        session.on_tick(self._count_alarms, lasting=True)
        self._fill()

    def _draw_header(self) -> None:
        session = self.session
        with box("b-top", "header"):
            with box("b-who"):
                Text(session.reader.site or session.reader.name, "b-site")
                Text(session.reader.scenario or session.reader.name, "b-scenario")
            self.menu = button("☰", "b-menu", self._fold, title=session.say("menu"))
            self.nav = box("b-nav", "nav")
            self.nav.props["aria-label"] = session.say("menu")
            with self.nav:
                self.links = {view.path: self._link(n, view) for n, view in self._listed()}
            with box("b-clock"):
                self.mode = Text("", "b-mode")
                self.local = _Time(session.say("clock.local", zone=self._zone()), "local")
                self.utc = _Time(session.say("clock.utc"), "utc")
            with box("b-tools"):
                if session.viewer != ANYBODY:
                    role = session.say(f"role.{session.role}")
                    button(f"{session.viewer.name} · {role}", "b-role", self._sign_out,
                           title=session.say("sign_out"))  # fmt: skip
                if not session.viewer.limited:
                    button("▤", "b-runs", self._open_runs, title=session.say("runs"))
                self.window = Choice(
                    {name: session.say("tile.per", window=name) for name in session.reader.windows},
                    session.window, self._choose_window, title=session.say("window"),
                )  # fmt: skip
                button(session.say("language"), "", self.switch_language,
                       title=session.say("language.tip"))  # fmt: skip
                button("◐", "", self.switch_theme, title=session.say("theme"))
                button("?", "b-keys-button", self._open_help, title=session.say("help"))

    def _listed(self) -> list[tuple[int, View]]:
        return list(enumerate((view for view in views() if view.listed), 1))

    def _link(self, number: int, view: View) -> Element:
        link = box("b-link", "a")
        link.props["href"] = self.session.address(view.path)
        with link:
            Text(view.icon, "b-icon").props["aria-hidden"] = "true"
            Text(self.session.say(view.title))
            if view.path == _ALARMS:
                self.alarms = Text("", "b-count")
            Text(str(number), "b-digit").props["aria-hidden"] = "true"
        link.on(
            "click", lambda: self.open(view.path, ""), args=[],
            js_handler="(e) => {if (!e.ctrlKey && !e.metaKey) {e.preventDefault(); emit()}}",
        )  # fmt: skip
        return link

    def _draw_bar(self) -> None:
        session, clock = self.session, self.session.clock
        with box("b-bar", "footer"):
            self.play = button("▶", "b-play", self._toggle, title=session.say("bar.play"))
            button("−1m", "b-step", lambda: self._step(-_MINUTE_NS), title=session.say("bar.back"))
            button("+1m", "b-step", lambda: self._step(_MINUTE_NS), title=session.say("bar.on"))
            self.line = _Timeline(label=session.say("bar.place"), marks=self._marks())
            self.line.on("seek", self._on_seek)
            self.speed = Choice(
                {f"{speed:g}": f"{speed:g}×" for speed in SPEEDS}, f"{clock.speed:g}",
                self._choose_speed, title=session.say("bar.speed"),
            )  # fmt: skip
            follow = "bar.follow" if clock.open else "bar.end"
            button("⇥", "b-follow", self._follow, title=session.say(follow))

    def _draw_help(self) -> ui.dialog:
        say = self.session.say
        listed = self._listed()
        rows: tuple[tuple[str, str], ...] = (
            ("Space", "key.space"), ("← →", "key.arrows"), ("+ −", "key.plus"),
            ("Home End", "key.home"), ("G", "key.g"), ("W", "key.w"), ("T", "key.t"),
            ("L", "key.l"), (f"1–{len(listed)}", "key.digits"), ("O", "key.o"), ("N", "key.n"),
            ("?", "key.help"),
        )  # fmt: skip
        if self.session.viewer.limited:
            rows = tuple(row for row in rows if row[1] not in ("key.o", "key.n"))
        with ui.dialog() as dialog, box("b-help"):
            Text(say("help"), "b-title", "h2")
            with box("b-keys", "dl"):
                for keys, key in rows:
                    with box("", "dt"):
                        for word in keys.split():
                            Text(word, tag="kbd")
                    Text(say(key), tag="dd")
            button(say("close"), "", dialog.close)
        return dialog

    def _draw_news(self) -> None:
        """That a newer run has begun; hidden until one has."""
        say = self.session.say
        self.news = box("b-news")
        self.news.props["role"] = "status"
        with self.news:
            self.news_text = Text("")
            self.news_link = Text(say("runs.newer_open"), "b-button", "a")
            button("×", "", self._decline, title=say("close"))
        self._show_news()

    def _show_news(self) -> None:
        wanted = bool(self.newer) and self.newer not in (self.declined, self.session.reader.name)
        self.news.set_visibility(wanted)
        if wanted:
            self.news_text.text = self.session.say("runs.newer", name=self.newer)
            mark(self.news_link, "href", self._address_of(self.newer))

    async def _look_for_newer(self) -> None:
        self.newer = await asyncio.to_thread(self.library.newest)
        self._show_news()

    def _decline(self) -> None:
        self.declined = self.newer
        self._show_news()

    def _draw_runs(self) -> ui.dialog:
        """The recordings there are; what is in the list is put there when it is opened."""
        say = self.session.say
        with ui.dialog() as dialog, box("b-help"):
            Text(say("runs"), "b-title", "h2")
            with box("b-scroll"):
                self.listed = box("b-list", "ul")
            button(say("close"), "", dialog.close)
        return dialog

    async def _open_runs(self) -> None:
        found = await asyncio.to_thread(self.library.list)
        self.listed.clear()
        with self.listed:
            for each in found:
                self._draw_run(each)
            if not found:
                Text(self.session.say("runs.none"), "b-muted", "li")
        self.runs.open()

    def _draw_run(self, found: "Found") -> None:
        session, name = self.session, found.name
        other = session.other
        with box("", "li"):
            here = name == session.reader.name
            if here:
                Text(name, "b-title")
            else:
                Text(name, "b-link", "a").props["href"] = self._address_of(name)
            when = words.clock(found.written_ns, session.reader.zone)
            Text(" ".join(when), "b-muted")
            if here:
                Text(session.say("runs.here"), "b-muted")
            elif other is not None and name == other.name:
                Text(session.say("runs.other"), "b-muted")
            else:
                with_it = Text(session.say("runs.compare"), "b-link", "a")
                with_it.props["href"] = session.address("/compare", c=name)

    def _address_of(self, name: str) -> str:
        """Where this view shows another recording, at the end of that."""
        other = {key: value for key, value in self.session.keep.items() if key == "c"}
        return self.session.path + f"?{urlencode({'r': name} | other)}"

    def _marks(self) -> list[dict[str, Any]]:
        """What the scenario did to network and data, for the bar."""
        session = self.session
        return [
            {"from": start_ns / NS_PER_S, "to": end_ns / NS_PER_S,
             "text": ", ".join([words.fault(kind, session.language), *text.split(", ")[1:]])}
            for start_ns, end_ns, kind, text in session.reader.faults()
        ]  # fmt: skip

    def _zone(self) -> str:
        return words.zone_name(self.session.reader.zone, self.session.t_ns)

    # which view

    def open(self, path: str, focus: str, *, push: bool = True) -> None:
        """Another view in the middle; ``push`` puts it in the browser's history."""
        session = self.session
        session.path, session.focus = path, focus
        self._fill()
        self.nav.classes(remove="b-open")
        if push:
            self.wire.run_method("go", self._address())

    def _fill(self) -> None:
        session = self.session
        session.forget_view()
        self.view.clear()
        for path, link in self.links.items():
            link.classes(**{"add" if path == session.path else "remove": "b-here"})
        found = next((view for view in views() if view.path == session.path), None)
        with self.view:
            if found is None:
                Text(session.say("gone"), "b-empty")
            else:
                found.build(session)

    def _address(self) -> str:
        session, clock = self.session, self.session.clock
        query: dict[str, str] = {}
        if session.window != session.first_window:
            query["w"] = session.window
        if not clock.following:
            query["t"] = format_time(clock.t_ns // NS_PER_S * NS_PER_S)
        return session.address(session.path, session.focus, **query)

    def _on_place(self, event: "GenericEventArguments") -> None:
        """The person went back or on in the browser's history."""
        wanted = asked(event.args["query"])
        if wanted.t_ns is not None:
            self.session.clock.seek(wanted.t_ns)
        self.window.choose(self.session.choose(wanted.window))
        self.open(str(event.args["path"]), wanted.focus, push=False)

    # what the person does

    def switch_theme(self) -> None:
        """Light to dark or back; views are built again, for charts have colours of their own."""
        self.session.dark = not self.session.dark
        self.theme.value = self.session.dark
        self._keep("theme", "dark" if self.session.dark else "light")
        self._fill()

    def switch_language(self) -> None:
        """The next language; the moment stays."""
        known = list(words.LANGUAGES)
        place = known.index(self.session.language)
        self.session.language = known[(place + 1) % len(known)]
        self.draw()
        self._keep("language", self.session.language)

    def _keep(self, name: str, value: str) -> None:
        self.wire.run_method("keep", f"beilun_{name}", value, _YEAR_S)

    def _sign_out(self) -> None:
        self.wire.run_method("signOut")

    def _fold(self) -> None:
        self.nav.classes(toggle="b-open")

    def _open_help(self) -> None:
        self.help.open()

    def _toggle(self) -> None:
        self.session.clock.toggle()
        self._changed()

    def _follow(self) -> None:
        self.session.clock.follow()
        self._changed()

    def _step(self, by_ns: int) -> None:
        self.session.clock.seek(self.session.t_ns + by_ns)
        self._changed()

    def _on_seek(self, event: "GenericEventArguments") -> None:
        self.session.clock.seek(round(float(event.args) * 1_000) * 1_000_000)
        self._changed()

    def _choose_speed(self, text: str) -> None:
        self.session.clock.speed = float(text)

    def _choose_window(self, label: str) -> None:
        self.window.choose(self.session.choose(label))
        self._changed()

    def _changed(self) -> None:
        """Play, pause and place have changed by hand: show it now, and put it in the address."""
        self._show()
        self.wire.run_method("replace", self._address())

    async def _on_key(self, event: "GenericEventArguments") -> None:
        key, shift = str(event.args["key"]), bool(event.args["shift"])
        clock = self.session.clock
        far_ns = 60 * _MINUTE_NS if shift else _MINUTE_NS
        match key:
            case " ":
                self._toggle()
            case "ArrowLeft":
                self._step(-far_ns)
            case "ArrowRight":
                self._step(far_ns)
            case "Home":
                clock.seek(clock.start_ns)
                self._changed()
            case "End" | "g":
                self._follow()
            case "+" | "=" | "-":
                clock.pace(-1 if key == "-" else 1)
                self.speed.choose(f"{clock.speed:g}")
            case "w":
                known = self.session.reader.windows
                if known:
                    place = known.index(self.session.window)
                    self._choose_window(known[(place + 1) % len(known)])
            case "t":
                self.switch_theme()
            case "l":
                self.switch_language()
            case "o" if not self.session.viewer.limited:
                if self.runs.value:
                    self.runs.close()
                else:
                    await self._open_runs()
            case "n" if self.news.visible:
                ui.navigate.to(self._address_of(self.newer))
            case "?":
                self.help.value = not self.help.value
            case _ if key.isdigit():
                for number, view in self._listed():
                    if str(number) == key:
                        self.open(view.path, "")
            case _:
                pass

    # what goes on

    async def _tick(self) -> None:
        now = monotonic()
        seconds, self._last = now - self._last, now
        try:
            await self.session.tick(seconds)
        except Exception as error:  # the recording itself cannot be asked
            self.session.trouble = error
        if self.session.clock.playing and now - self._told >= _TOLD_S:
            # Whoever loads the page again, or is cut off for long, goes on from about here.
            self._told = now
            self.wire.run_method("replace", self._address())
        trouble = self.session.trouble
        said = self.amiss if trouble is None else self.session.say("trouble", why=trouble)
        if said and said != self.trouble.text:
            # Once, and not four times a second; of what is no bug no traceback.
            bug = None if isinstance(trouble, BeilunError) else trouble
            _log.error("%s", trouble, exc_info=bug)
        self.trouble.text = said

    async def _count_alarms(self) -> None:
        """How many alarms stand at the moment shown; wherever one is, they are in sight."""
        session = self.session
        found = await asyncio.to_thread(session.reader.alarms, session.t_ns, session.t_ns)
        standing = [one for one in found if one.cleared_ns is None and session.sees(one.asset)]
        self.alarms.text = str(len(standing)) if standing else ""
        said = session.say("alarms.standing", n=len(standing)) if standing else ""
        mark(self.alarms, "title", said)

    def _show(self) -> None:
        """Clock and bar as the session has them."""
        session, clock = self.session, self.session.clock
        say, t_ns = session.say, clock.t_ns
        self.local.show(*words.clock(t_ns, session.reader.zone))
        self.utc.show(*words.clock(t_ns, UTC))
        if session.quiet_ns:
            mode, sign = (
                say("mode.quiet", age=words.age(session.quiet_ns, session.language)),
                "quiet",
            )
        elif clock.live:
            mode, sign = say("mode.live"), "live"
        elif clock.playing:
            mode, sign = f"{say('mode.replay')} {clock.speed:g}×", "replay"
        elif clock.following:
            mode, sign = say("mode.end"), "paused"
        else:
            mode, sign = say("mode.paused"), "paused"
        self.mode.text = mode
        mark(self.mode, "data-mode", sign)
        moving = clock.playing or clock.live
        self.play.text = "❚❚" if moving else "▶"
        name = say("bar.pause" if moving else "bar.play")
        mark(self.play, "title", name)
        mark(self.play, "aria-label", name)
        self.line.run_method(
            "place", clock.start_ns / NS_PER_S, clock.end_ns / NS_PER_S, t_ns / NS_PER_S,
            " ".join(words.clock(t_ns, session.reader.zone)),
        )  # fmt: skip


# the whole --------------------------------------------------------------------------------------


def attach(library: "Library") -> None:
    """Register the pages with NiceGUI; whoever runs it calls ``ui.run_with`` on a FastAPI app with
    ``tailwind=False, binding_refresh_interval=None``, behind ``gate.Gate``, which says who asks:
    without it everybody is let in as an operator."""
    app.add_static_files("/beilun/static", STATIC)

    def page(request: Request) -> None:
        ui.add_head_html(_head())
        wanted = asked(request.query_params)
        language = request.cookies.get("beilun_language", "en")
        viewer: Viewer = request.scope.get("state", {}).get("viewer") or ANYBODY
        language = language if language in words.LANGUAGES else "en"
        reader, other = library.served, library.compare
        keep: dict[str, str] = {}
        trouble = ""
        for key, name in (("r", wanted.recording), ("c", wanted.other)):
            if not name or viewer.limited:
                continue
            try:
                found = library.lease(name)
            except BeilunError as error:
                trouble = str(error)
                continue
            on_delete = cast("Callable[..., None]", ui.context.client.on_delete)  # pyright: ignore[reportUnknownMemberType]
            on_delete(partial(library.give_back, found))
            keep[key] = name
            reader, other = (found, other) if key == "r" else (reader, found)
        session = Session(
            viewer.narrowed(reader),
            viewer=viewer,
            language=language,
            dark=request.cookies.get("beilun_theme", "dark") == "dark",
            other=viewer.narrowed(other) if other is not None else None,
            acks=library.acks(reader),
            keep=keep,
        )
        session.path, session.focus = request.url.path, wanted.focus
        session.choose(wanted.window)
        if wanted.t_ns is not None:
            session.clock.seek(wanted.t_ns)
        _Frame(session, library, trouble)

    for view in views():
        ui.page(view.path, favicon=STATIC / "favicon.svg")(page)
