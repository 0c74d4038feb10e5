"""The loss tree of a machine or group on the screen, and the Pareto of its stop reasons."""

from asyncio import to_thread
from typing import NamedTuple

from beilun.serving.page import charts, losses, panels, words
from beilun.serving.page.clock import Session
from beilun.serving.page.losses import Account, Reason, Tree
from beilun.serving.page.panels import Chart, Panel
from beilun.serving.page.shell import Text, box, palette
from beilun.serving.page.tiles import path_of, within
from beilun.serving.reading import AssetInfo, Reader
from edge.kpis.oee import CELL
from edge.kpis.time import UNITS
from edge.rows import Row
from ingest.messages import Asset


class Found(NamedTuple):
    """The account of a window, and the OEE the edge made of it, to be held against it."""

    start_ns: int
    end_ns: int
    account: Account
    row: Row | None


def members_of(reader: Reader, asset: Asset) -> list[AssetInfo]:
    """Machines whose losses add up: those of a group that OEE is made for, or the one itself if
    its time is told apart at all."""
    infos = reader.assets()
    own = [info for info in infos if info.asset == asset and info.kind in UNITS]
    return own or [i for i in infos if i.kind in CELL and within(i.asset, asset)]


def window_of(reader: Reader, asset: Asset, window: str, t_ns: int) -> Row | None:
    """A row of the last window that had ended, in which the asset's time was told apart."""
    names = ("oee", "allocation_efficiency")
    rows = reader.last(names, window, t_ns, path_of(asset)) if window else []
    mine = [row for row in rows if row.asset == asset]
    return max(mine, key=lambda row: (row.window_start_ns, row.kpi), default=None)


def read(reader: Reader, asset: Asset, start_ns: int, end_ns: int, window: str) -> Found | None:
    """The account of a window. Reads the journal of all its machines."""
    accounts: list[Account] = []
    for info in members_of(reader, asset):
        birth, batches = reader.told(info.asset, start_ns, end_ns)
        if birth is not None:
            accounts.append(losses.account(batches, birth, start_ns, end_ns))
    if not accounts:
        return None
    rows = reader.history(asset, "oee", window, start_ns, end_ns)
    row = next((r for r in rows if r.window_start_ns == start_ns), None)
    return Found(start_ns, end_ns, losses.together(accounts), row)


def steps(tree: Tree, session: Session) -> list[charts.Step]:
    """Bars of the waterfall, in shares of the planned time that was seen."""
    if not tree.seen_ns:
        return []
    colours, say = palette(session), session.say
    hues = {
        losses.UNPLANNED: colours.states["HELD"], losses.PLANNED: colours.states["RESETTING"],
        losses.SUSPENDED: colours.states["SUSPENDED"], losses.OTHER: colours.states["STOPPED"],
        losses.SPEED: colours.series[3], losses.SCRAP: colours.bad, losses.REWORK: colours.warn,
    }  # fmt: skip

    def bar(name: str, ns: float, color: str, *, total: bool) -> charts.Step:
        share = float(ns / tree.seen_ns)
        text = f"{share * 100:.1f} %  {panels.length(float(ns))}"
        return charts.Step(say(f"loss.{name}"), share, text, total, color)

    found = [bar("planned", tree.seen_ns, colours.muted, total=True)]
    for name, ns in tree.losses_ns.items():
        if name == losses.SPEED:
            found.append(bar("producing", tree.producing_ns, colours.muted, total=True))
        found.append(bar(name, float(ns), hues[name], total=False))
    last = "producing" if tree.effective_ns is None else "effective"
    found.append(bar(last, float(tree.left_ns), colours.states["EXECUTE"], total=True))
    return found


def reason_text(reason: Reason, session: Session) -> str:
    """What people call a reason: a state by its name, others by their own."""
    state = reason.code.upper()
    if state in charts.STATES:
        return words.state(state, session.language)
    return session.say(f"stop.{reason.code}")


class LossPanel:
    """Where OEE went in the last window that ended; nothing where no machine has such losses."""

    def __init__(self, session: Session, asset: Asset) -> None:
        self._session, self._asset = session, asset
        self._key: object = None
        say = session.say
        if not members_of(session.reader, asset):
            return
        self._panel = Panel(say("loss.title"), wide=True)
        with self._panel:
            self._lead = Text("", "v-lead", "p")
            with box("v-split v-even"):
                self._tree = Chart("v-chart v-tree", title=say("loss.title"))
                with box("v-drawn"):
                    Text(say("loss.pareto"), "v-sub", "h3")
                    self._pareto = Chart("v-chart", title=say("loss.pareto"))
                    self._still = Text("", "v-note", "p")
        session.on_tick(self.update)

    async def update(self) -> None:
        """To the window that had ended last."""
        session, reader, window = self._session, self._session.reader, self._session.window
        t_ns = panels.paced(session)
        row = await to_thread(window_of, reader, self._asset, window, t_ns)
        if (row, window) == self._key:
            return
        self._key = row, window
        found = None
        if row is not None:
            start_ns, end_ns = row.span
            found = await to_thread(read, reader, self._asset, start_ns, end_ns, window)
        if found is None:
            self._panel.note(session.say("loss.none", window=window))
            return
        self._panel.note()
        self._draw(found)

    def _draw(self, found: Found) -> None:
        session = self._session
        look, tree = panels.look(session), losses.tree(found.account)
        zone = session.reader.zone
        start, end = (panels.when(t_ns, zone) for t_ns in (found.start_ns, found.end_ns))
        panels.put(self._panel.aside, f"{start} – {end.rpartition(' ')[2]}")
        self._tree.show(charts.waterfall(steps(tree, session), look))
        causes = losses.pareto(found.account)
        panels.put(self._still, "" if causes else session.say("loss.still"))
        self._pareto.element.set_visibility(bool(causes))
        colours = palette(session)
        self._pareto.show(
            charts.ranking(
                [
                    charts.Part(
                        reason_text(cause.reason, session), cause.spent_ns / 1e9,
                        panels.length(cause.spent_ns), cause.share,
                        colours.states[_HUES[cause.reason.loss]],
                    )
                    for cause in causes
                ],
                look,
            )
        )  # fmt: skip
        panels.put(self._lead, _lead(found, tree, session))


_HUES = {
    losses.UNPLANNED: "HELD", losses.PLANNED: "RESETTING", losses.SUSPENDED: "SUSPENDED",
    losses.OTHER: "STOPPED",
}  # fmt: skip


def _lead(found: Found, tree: Tree, session: Session) -> str:
    """Planned time, OEE and that it is the edge's own, and what is in no loss."""
    say, language = session.say, session.language
    parts = [
        say("loss.planned_one" if found.account.machines == 1 else "loss.planned_time",
            planned=panels.length(tree.planned_ns), covered=panels.length(tree.covered_ns),
            machines=found.account.machines)
    ]  # fmt: skip
    if tree.dark_ns:
        parts.append(say("loss.dark", dark=panels.length(tree.dark_ns)))
    oee = tree.oee
    if oee is not None and found.row is None:  # of a kind that has no such KPI
        parts.append(say("loss.share", share=words.text_of(oee, "1", language)))
    elif oee is not None and found.row is not None:
        parts.append(say("loss.oee", oee=words.text_of(oee, "1", language)))
        same = found.row.value == oee
        parts.append(say("loss.same" if same else "loss.differs",
                         oee=words.text_of(found.row.value, "1", language)))  # fmt: skip
    parts.append(say("loss.closes" if tree.closes else "loss.open"))
    return " · ".join(parts)
