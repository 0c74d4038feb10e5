"""Alarms: what is on first, then what was; an operator says that it was seen, and may say more.

Alarms are rows of the edge with event time, so a replay shows those that were on at its moment.
Acknowledgements are kept apart from the recording (`beilun.serving.acks`) and are told with the
wall time at which somebody gave them.
"""

import time
from asyncio import to_thread
from collections.abc import Mapping
from typing import NamedTuple

from nicegui import ui

from beilun.serving.acks import LONGEST_NOTE, OPERATOR, Ack, Acks, Alarm, NotAllowed
from beilun.serving.page import panels, words
from beilun.serving.page.clock import Session
from beilun.serving.page.panels import Cell, Column, Entry, Panel, Table
from beilun.serving.page.shell import Text, View, box, button
from beilun.serving.page.tiles import path_of
from beilun.serving.reading import AlarmSpan, Reader
from config.alarms import SEVERITIES
from config.errors import BeilunError
from config.units import NS_PER_DAY

BACK_NS = 7 * NS_PER_DAY
"""How far back the history reaches."""
MOST = 300


class Listed(NamedTuple):
    """An alarm and who has seen it."""

    span: AlarmSpan
    ack: Ack | None

    @property
    def on(self) -> bool:
        return self.span.cleared_ns is None


def key_of(span: AlarmSpan) -> Alarm:
    """Which alarm it is, for acknowledgements."""
    return Alarm(span.rule, path_of(span.asset), span.raised_ns)


def listed(spans: list[AlarmSpan], acks: Mapping[Alarm, Ack]) -> list[Listed]:
    """What is on and was not seen, what is on, what was; in each the worst, then the newest
    first."""
    found = [Listed(span, acks.get(key_of(span))) for span in spans]

    def order(one: Listed) -> tuple[bool, bool, int, int, Alarm]:
        severity = one.span.severity
        rank = SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)
        if not one.on:
            rank = 0  # of what is over, only when it was matters
        seen = one.on and one.ack is not None
        return not one.on, seen, rank, -one.span.raised_ns, key_of(one.span)

    return sorted(found, key=order)


def read(reader: Reader, acks: Acks, t_ns: int) -> list[Listed]:
    """The alarms at a moment and in the week before it. Reads the store."""
    return listed(reader.alarms(t_ns, t_ns - BACK_NS), acks.all())


def build(session: Session) -> None:
    """What is on, and what was."""
    say = session.say
    acks = session.acks
    found: dict[str, Listed] = {}
    may = session.role == OPERATOR
    barred = _barred(session) if may else ""

    def chosen(key: str) -> None:
        if key in found:
            _show(session, acks, found[key], may=may)

    columns = [
        Column(say("alarm.severity")), Column(say("alarm.alarm")), Column(say("truth.asset")),
        Column(panels.local(session, "alarm.raised")),
        Column(say("asset.for"), number=True, minor=True), Column(say("alarm.seen")),
    ]  # fmt: skip
    with panels.view("alarms"):
        with box("v-top"):
            Text(say("view.alarms"), "v-here", "h1")
        now = Panel(say("alarm.now"), wide=True)
        with now:
            now_table = Table(columns, chosen)
        past = Panel(say("alarm.past"), wide=True)
        with past:
            past_table = Table(columns, chosen)
        if may:
            Text(barred or say("alarm.how"), "v-note", "p")

    async def update() -> None:
        t_ns = session.t_ns
        every = await to_thread(read, session.reader, acks, t_ns)
        mine = [one for one in every if session.sees(one.span.asset)]
        found.clear()
        entries: dict[bool, list[Entry]] = {True: [], False: []}
        for one in mine[:MOST]:
            key = "|".join(map(str, key_of(one.span)))
            found[key] = one
            entries[one.on].append(_entry(key, one, session, t_ns))
        now.note("" if entries[True] else f"✓ {say('alarm.none')}")
        past.note("" if entries[False] else say("alarm.none_past"))
        panels.put(now.aside, str(len(entries[True])) if entries[True] else "")
        now_table.show(entries[True])
        past_table.show(entries[False])

    session.on_tick(update)


def text_of(span: AlarmSpan, language: str) -> str:
    """What an alarm says, in a language; its rule where it says nothing."""
    return span.text.get(language) or span.text.get("en") or span.rule


def severity_of(span: AlarmSpan, session: Session) -> Cell:
    """A severity with a sign of its own."""
    signs = {"critical": ("▲▲", "bad"), "warning": ("▲", "warn"), "info": ("●", "muted")}
    sign, tone = signs.get(span.severity, ("●", ""))
    key = f"severity.{span.severity}"
    return Cell(f"{sign} {session.say(key) if key in words.WORDS else span.severity}", tone)


def _entry(key: str, one: Listed, session: Session, t_ns: int) -> Entry:
    span, ack = one.span, one.ack
    end_ns = t_ns if span.cleared_ns is None else span.cleared_ns
    seen = Cell(session.say("alarm.unseen"), "warn" if one.on else "muted")
    if ack is not None:
        note = f": {ack.note}" if ack.note else ""
        seen = Cell(f"✓ {ack.who}{note}", title=panels.when(ack.at_ns, session.reader.zone))
    return Entry(
        key,
        (
            severity_of(span, session),
            Cell(text_of(span, session.language), title=span.rule),
            Cell(path_of(span.asset).partition("/")[2] or span.asset.site),
            Cell(panels.when(span.raised_ns, session.reader.zone)),
            Cell(words.age(end_ns - span.raised_ns, session.language)),
            seen,
        ),
    )


def _barred(session: Session) -> str:
    """Why nothing can be acknowledged here; empty: it can. Looks at the file system."""
    place = session.acks.hindrance()
    return "" if place is None else session.say("alarm.barred", place=place)


def _show(session: Session, acks: Acks, one: Listed, *, may: bool) -> None:
    """One alarm: all that is known of it; for an operator the button that says it was seen."""
    say, span = session.say, one.span
    zone = session.reader.zone
    with ui.dialog() as dialog, box("v-dialog"):
        Text(text_of(span, session.language), "v-title", "h2")
        lines = [
            ("alarm.severity", severity_of(span, session).text),
            ("alarm.rule", span.rule),
            ("truth.asset", path_of(span.asset)),
            ("alarm.raised", panels.when(span.raised_ns, zone)),
            ("alarm.cleared", "–" if span.cleared_ns is None
             else panels.when(span.cleared_ns, zone)),
        ]  # fmt: skip
        if one.ack is not None:
            who, when = one.ack.who, panels.when(one.ack.at_ns, zone)
            lines.append(("alarm.seen", say("alarm.seen_by", who=who, when=when)))
            if one.ack.note:
                lines.append(("alarm.note", one.ack.note))
        with box("v-facts", "dl"):
            for key, text in lines:
                Text(say(key), "", "dt")
                Text(text, "", "dd")
        note = None
        barred = _barred(session) if may and one.ack is None else ""
        if may and one.ack is None and not barred:
            note = box("v-note-field", "textarea")
            note.props["maxlength"] = LONGEST_NOTE
            note.props["placeholder"] = note.props["aria-label"] = say("alarm.note")
            note.props["rows"] = 2
        trouble = Text(barred, "v-bad", "p")
        with box("v-actions"):
            path = path_of(span.asset)
            panels.link(session, say("truth.go"), panels.place_of(path), path).on(
                "click", dialog.close
            )
            if note is not None:
                written: list[str] = [""]
                note.on("input", lambda event: written.__setitem__(0, str(event.args)),
                        js_handler="(e) => emit(e.target.value)")  # fmt: skip

                async def give() -> None:
                    """Wall time enters here: it is a person who acts."""
                    try:
                        await to_thread(
                            lambda: acks.give(
                                key_of(span), who=who_of(session), role=session.role,
                                at_ns=time.time_ns(), note=written[0],
                            )
                        )  # fmt: skip
                    except (NotAllowed, BeilunError) as error:
                        trouble.text = str(error)
                        return
                    session.renew()
                    dialog.close()

                button(say("alarm.acknowledge"), "v-primary", give)
            elif barred:
                off = button(say("alarm.acknowledge"), "v-primary", dialog.close, title=barred)
                off.props["disabled"] = True
            button(say("close"), "", dialog.close)
    dialog.on("hide", dialog.delete)
    dialog.open()


def who_of(session: Session) -> str:
    """The name under which somebody signed in; without sign-in the role."""
    return str(getattr(session.viewer, "name", "") or session.role)


VIEWS = (View("/alarms", "view.alarms", "▲", build),)
