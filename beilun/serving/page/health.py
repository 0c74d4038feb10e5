"""The pipeline's health: do the sums close, does it keep up, what was refused, what waits.

The ledger is the promise that nothing is lost in silence, so its three sums are written out with
their numbers, and each says whether it closes. While a run goes on the simulator has not told its
side yet, and messages on their way are in none: then a sum is open and not wrong.

    made     = lost + shed + delivered
    received = accepted + duplicate + rejected
    accepted = on time + late + too late
"""

from asyncio import to_thread
from collections.abc import Mapping
from typing import NamedTuple

from beilun import console
from beilun.serving.page import panels, words
from beilun.serving.page.clock import Session
from beilun.serving.page.panels import Cell, Column, Entry, Panel, Table
from beilun.serving.page.shell import Text, View, box
from beilun.serving.reading import Reader, Refused, Sink, Stage
from config.units import NS_PER_S
from ingest import topics

SHOWN_REJECTS = 100
HEAD_BYTES = 120
"""How much of a refused message is shown."""
_LOST = "lost:"
_REJECTED = "rejected:"


class Sum(NamedTuple):
    """One line of the ledger: a whole and its parts; ``None`` where nobody has told it."""

    name: str
    whole: int | None
    parts: tuple[tuple[str, int | None], ...]
    final: bool = True
    """Whether nothing is under way any more."""

    @property
    def rest(self) -> int | None:
        """The whole less its parts; ``None``: something is not known yet."""
        counts = [count for _, count in self.parts if count is not None]
        if self.whole is None or len(counts) < len(self.parts):
            return None
        return self.whole - sum(counts)

    @property
    def closes(self) -> bool | None:
        """Whether the parts make the whole; ``None``: it cannot be said yet."""
        rest = self.rest
        if rest is None or (rest > 0 and not self.final):
            return None
        return rest == 0


def sums(ledger: Mapping[str, Mapping[str, int]], *, ended: bool) -> list[Sum]:
    """The sums of a ledger, as `edge.pipeline.Account` has them. Only a simulated run has a
    publisher's side; ``ended`` says that all of it has arrived that ever will."""
    ours, edge = ledger.get("simulator", {}), ledger.get("edge", {})
    reasons = {name.removeprefix(_REJECTED): n for name, n in edge.items()
               if name.startswith(_REJECTED)}  # fmt: skip
    received, duplicate = edge.get("received"), edge.get("duplicate")
    found: list[Sum] = []
    if ours:
        # What came twice was made once, and what another run sent was not made by this one.
        delivered = None
        if received is not None and duplicate is not None:
            delivered = received - duplicate - reasons.get("other_run", 0)
        lost = sum(n for name, n in ours.items() if name.startswith(_LOST))
        parts = (("lost", lost), ("shed", ours.get("shed", 0)), ("delivered", delivered))
        found.append(Sum("made", ours.get("made"), parts, ended))
    refused = sum(reasons.values()) if edge else None
    came = (("accepted", edge.get("accepted")), ("duplicate", duplicate), ("rejected", refused))
    found.append(Sum("received", received, came))
    accepted = tuple((name, edge.get(name)) for name in ("on_time", "late", "too_late"))
    found.append(Sum("accepted", edge.get("accepted"), accepted))
    return found


def causes(ledger: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str, int]]:
    """Why messages were lost, rejected or of no use: what became of them, why, and how many; the
    most first."""
    found = [
        (begin.removesuffix(":"), name.removeprefix(begin), n)
        for side, begin in (("simulator", _LOST), ("edge", _REJECTED))
        for name, n in ledger.get(side, {}).items()
        if name.startswith(begin) and n
    ]
    found += [("unusable", reason, n) for reason, n in ledger.get("unusable", {}).items() if n]
    return sorted(found, key=lambda one: (-one[2], one))


class Health(NamedTuple):
    """Everything the view shows."""

    ledger: dict[str, dict[str, int]]
    rejects: list[Refused]
    sink: Sink | None
    stages: list[Stage]
    live: bool


def read(reader: Reader) -> Health:
    """How the pipeline is. It is not a matter of the moment shown: a ledger has no past. Reads the
    store."""
    return Health(
        reader.ledger(), reader.rejects(SHOWN_REJECTS), reader.sinks(), reader.stages(),
        reader.live(),
    )  # fmt: skip


COUNTERS = ("in", "out", "rejected", "late", "dropped", "backlog")


def build(session: Session) -> None:
    """Ledger, stages, sinks, refused messages."""
    say = session.say
    with panels.view("health"):
        with box("v-top"):
            Text(say("view.health"), "v-here", "h1")
        ledger = Panel(say("health.ledger"), wide=True)
        with ledger:
            sums_table = Table(
                [Column(say("health.sum")), Column(say("health.whole"), number=True),
                 Column(say("health.parts")), Column(say("health.closes"))]
            )  # fmt: skip
        stages_panel = Panel(say("health.stages"), wide=True)
        with stages_panel:
            backlog = Text("", "v-lead", "p")
            stages = Table(
                [Column(say("net.step")),
                 *(Column(say(f"health.{name}"), number=True) for name in COUNTERS),
                 Column("p99", number=True)]
            )  # fmt: skip
        sinks = Panel(say("health.sinks"))
        with sinks:
            sink = Table([Column(""), Column("", number=True)])
        why_panel = Panel(say("health.why"))
        with why_panel:
            why = Table(
                [Column(say("health.became")), Column(say("health.reason")),
                 Column(say("net.messages"), number=True)]
            )  # fmt: skip
        rejects = Panel(say("health.rejects"), wide=True)
        with rejects:
            refused = Table(
                [Column(say("health.reason")), Column(say("health.topic")),
                 Column(panels.local(session, "health.received"), minor=True),
                 Column(say("health.size"), number=True, minor=True), Column(say("health.head"))]
            )  # fmt: skip

    async def update() -> None:
        found = await to_thread(read, session.reader)
        ended = not found.live
        sums_table.show([_sum(one, session) for one in sums(found.ledger, ended=ended)])
        stages.show([_stage(one, session) for one in found.stages])
        waiting = sum(one.backlog or 0 for one in found.stages)
        until = panels.when(session.clock.end_ns, session.reader.zone)
        panels.put(backlog, say("health.waiting", n=panels.count(waiting), until=until))
        panels.tone(backlog, "warn" if waiting else "muted")
        stages_panel.note("" if found.stages else say("health.no_stages"))
        sinks.note("" if found.sink else say("health.no_sink"))
        if found.sink is not None:
            sink.show(_sink(found.sink, session))
        told = causes(found.ledger)
        why.show([_cause(*one, session) for one in told])
        why_panel.note("" if told else say("health.nothing_lost"))
        # A topic tells of an asset: of those somebody may not see, nothing is shown.
        shown = [one for one in found.rejects if _may_see(session, one.topic)]
        rejects.note("" if shown else say("health.no_rejects"))
        refused.show([_refused(n, one, session) for n, one in enumerate(shown)])

    session.on_tick(update)


def _may_see(session: Session, topic: str) -> bool:
    target = topics.parse(topic)
    return session.role != "customer" if target is None else session.sees(target[0])


def _sum(one: Sum, session: Session) -> Entry:
    say = session.say
    parts = "  +  ".join(f"{say(f'ledger.{name}')} {panels.count(n)}" for name, n in one.parts)
    closes = one.closes
    rest = "" if one.rest is None else f"{one.rest:+,}"
    verdict = {
        True: Cell(f"✓ {say('ledger.closes')}", "good"),
        False: Cell(f"✗ {say('ledger.differs', n=rest)}", "bad"),
        None: Cell(
            say("ledger.open") if one.rest is None else say("ledger.under_way", n=rest), "muted"
        ),
    }[closes]
    name = "accepted_whole" if one.name == "accepted" else one.name
    cells = (Cell(say(f"ledger.{name}")), Cell(panels.count(one.whole)), Cell(f"=  {parts}"))
    return Entry(one.name, (*cells, verdict))


def _stage(one: Stage, session: Session) -> Entry:
    key = f"hop.{one.stage}"
    name = session.say(key) if key in words.WORDS else one.stage
    counts = (one.in_, one.out, one.rejected, one.late, one.dropped, one.backlog)
    marked = ("rejected", "late", "dropped", "backlog")
    cells = (
        Cell(panels.count(n), "warn" if n and name in marked else "")
        for name, n in zip(COUNTERS, counts, strict=True)
    )
    p99 = "–" if one.p99_ms is None else f"{console.number(one.p99_ms)} ms"
    return Entry(one.stage, (Cell(name), *cells, Cell(p99)))


def _sink(one: Sink, session: Session) -> list[Entry]:
    say = session.say
    oldest = "–" if one.oldest_s is None else words.age(
        round(one.oldest_s * NS_PER_S), session.language
    )  # fmt: skip
    lines = (
        ("waiting", panels.count(one.waiting), ""),
        ("oldest", oldest, "warn" if (one.oldest_s or 0) > 60 else ""),
        ("accepted", panels.count(one.accepted), ""),
        ("dead", panels.count(one.dead), "bad" if one.dead else ""),
        ("dropped", panels.count(one.dropped), "bad" if one.dropped else ""),
    )
    return [
        Entry(name, (Cell(say(f"sink.{name}")), Cell(text, tone))) for name, text, tone in lines
    ]


def _cause(what: str, why: str, n: int, session: Session) -> Entry:
    return Entry(f"{what}{why}", (Cell(session.say(f"ledger.{what}")),
                                  Cell(words.cause(why, session.language)),
                                  Cell(panels.count(n), "warn")))  # fmt: skip


def _refused(place: int, one: Refused, session: Session) -> Entry:
    head = one.head[:HEAD_BYTES].decode("utf-8", "backslashreplace")
    head = "".join(letter if letter.isprintable() else "·" for letter in head)
    more = "…" if one.size > len(head) else ""
    when = panels.when(one.received_ns, session.reader.zone) if one.received_ns else "–"
    return Entry(
        str(place),
        (
            Cell(words.cause(one.reason, session.language), "warn", title=one.detail),
            Cell(one.topic),
            Cell(when),
            Cell(f"{one.size:,} B"),
            Cell(head + more, "muted"),
        ),
    )


VIEWS = (View("/health", "view.health", "✚", build),)
