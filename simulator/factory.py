"""A factory on the wire: what its devices send, in order of modelled arrival, chunk by chunk.

Theory of operation
===================

The plant runs ahead in blocks (of three minutes where signals are sampled every second), whatever
chunks are asked for, so that results cannot depend on them. What was sent in a block rides its
device's own bearer; then it waits at the connection of the device's area, and a chunk lets go of
everything that has arrived by its end:

    block   |-- plant runs, devices report, link says when it arrives --|--
    chunk   |------------------|------------------|------------------|----
                   arrived ≤ end: numbered 1, 2, 3 ..., stamped, handed out

A bearer keeps the order of sending, a connection that of arrival. Nothing arrives before it is
sent, so when the plant has run to some time, all that arrives by then is known and can be numbered
for good. What the link loses is never numbered; it is counted as made and lost. The MES and the
network's monitor stand beside the MEC: their connections are wires.

A device first says what it is (its birth) and how it is (its first reports). What the link loses of
that is said again every second until it arrives, in the words of the start: only the time of
sending is a later one. A birth therefore precedes all else of its device only where none is lost.

Between a device and its terminal faults may spoil what it says (``simulator.data_faults``). A
message is numbered when it is made, though it may go to the terminal later, and one that is sent
twice keeps its number: of two that arrive the second is published and not counted as made.

Without samples what happened goes out in bundles, one per device, stream and block: blocks are
hours then, and the network reports once per pane of the edge.
"""

import heapq
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from config.errors import ConfigError
from config.faults import ClockSkew, ClockStep, DataFault
from config.globs import asset_matches
from config.units import NS_PER_S
from config.windows import Window
from ingest import topics
from ingest.messages import Asset, Times, TruthRow
from ingest.recording import Tracer
from simulator.data_faults import Said, Spoiler
from simulator.device import (
    PANE_NS,
    Device,
    Ints,
    Limited,
    Report,
    Stretch,
    VdaConnection,
    ns,
    pane_of,
)
from simulator.link.surroundings import CAUSES
from simulator.network import AREA as NETWORK
from simulator.network import CHANNELS, Born, Monitor, slice_of
from simulator.plant import Plant
from simulator.plant.floor import Floor
from simulator.plant.terminal import TELEMETRY, Terminal
from simulator.truth import WINDOWS, truth_rows
from simulator.wire import STAMP_BYTES, Clock, Unstamped, Upset, Wire, birth, progress, stamped

if TYPE_CHECKING:
    from simulator.link.link import Link

BLOCK_NS = 180 * NS_PER_S
"""The plant runs ahead by so much: in shorter blocks calls would cost more than the work."""
BLOCK_SAMPLES = 60
"""Where signals are sampled rarely it runs ahead by so many samples."""
BLOCK_DEVICES = 100
"""With more devices than that it runs ahead by less: what is under way is held in memory."""
RARE_NS = 60 * NS_PER_S
"""A device that samples less often says that its states hold until they change."""
BUNDLE_NS = 12 * 3_600 * NS_PER_S
"""Where they are not sampled it runs ahead by so much, and what happened is sent as often."""
CHUNK_NS = 60 * NS_PER_S
AGAIN_NS = NS_PER_S
"""How soon a device says again what was lost of its birth and first reports."""
MES = "mes"
WIRE_NS = 500_000
"""Delay of a wire at the MEC."""


@dataclass(frozen=True, slots=True)
class Made:
    """A message as it will be published."""

    conn: str
    topic: str
    payload: bytes
    arrival_ns: int
    cseq: int
    retain: bool


@dataclass(frozen=True, slots=True)
class ProgressAt:
    """A progress message; it comes after ``next_cseq - 1`` and before ``next_cseq``."""

    conn: str
    topic: str
    payload: bytes
    arrival_ns: int
    next_cseq: int
    made: int
    lost: dict[str, int]
    shed: int
    end: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """What arrived up to ``end_ns`` (the last chunk: everything), by time of arrival."""

    end_ns: int
    made: list[Made]
    progress: list[ProgressAt]

    def in_order(self) -> list[Made | ProgressAt]:
        """Messages and progress in the order they must be published."""
        both: list[Made | ProgressAt] = [*self.made, *self.progress]
        return sorted(both, key=lambda item: (item.arrival_ns, isinstance(item, ProgressAt)))


@dataclass(frozen=True, slots=True)
class Account:
    """The fate of a connection's messages; ``made == lost + shed + published`` at the end, where
    of two with one number that arrive only one counts."""

    made: int
    lost: dict[str, int]
    shed: int
    published: int


class _Carrier(Protocol):
    """What takes messages to the broker: a bearer, or a wire, which loses nothing."""

    def send_many(self, t_ns: Times, n_bytes: Ints) -> Ints:
        """Arrivals of messages in order of time; -1 for one that never arrives."""
        ...


@dataclass(slots=True)
class _Sending:
    """A message on its way to its carrier, at a true time: its stamps may say another."""

    conn: str
    carrier: str
    asset: str
    sent_ns: int
    made_ns: int
    """Before it is sent, where a fault holds it back: messages are numbered in this order."""
    message: Unstamped
    until_heard: bool = False
    """Whether it is said again when the link loses it."""
    boot: int = 1
    seq: int = 0
    """Its number of that boot; 0 before it has one."""
    copy_of: "_Sending | None" = None
    """The same message, sent just before with the same number."""


_sent_ns = attrgetter("sent_ns")
_made_ns = attrgetter("made_ns")


class _Carried(NamedTuple):
    """A message, and when it arrives: -1 if it never does."""

    sending: _Sending
    arrival_ns: int


class _Arrived(NamedTuple):
    """A message on its connection; asset and number tell it from all others."""

    arrival_ns: int
    asset: str
    boot: int
    seq: int
    again: bool
    """Whether one with this number has been published, or will be."""
    sent_ns: int
    message: Unstamped


@dataclass(frozen=True, slots=True)
class _Member:
    """A device on the link."""

    device: Device
    kind: str
    terminal: Terminal
    clock: Clock
    spoiler: Spoiler | None
    """``None`` where no fault touches it."""


class Connection:
    """One connection: what arrives on it from its carriers, in order, and its numbers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.next_cseq = 1
        self._again = 0
        self._waiting: list[_Arrived] = []
        self._sent_ns: list[int] = []
        self._losses: list[tuple[int, str]] = []
        """These two: what was sent, and lost, after the time of the last account."""
        self._made = 0
        self._lost: Counter[str] = Counter()

    def sent(self, times: Iterable[int]) -> None:
        """Count what was sent since the last time."""
        self._sent_ns += sorted(times)

    def lose(self, losses: Iterable[tuple[int, str]]) -> None:
        """Note what of it was lost: when each was sent, and the cause."""
        self._losses = sorted([*self._losses, *losses])

    def arrive(self, item: _Arrived) -> None:
        """A message is under way and known to arrive."""
        heapq.heappush(self._waiting, item)

    def number(self, item: _Arrived) -> int:
        """Number of a message that is published now."""
        self._again += item.again
        self.next_cseq += 1
        return self.next_cseq - 1

    def by(self, t_ns: int) -> Iterator[_Arrived]:
        """Take what has arrived by a time."""
        while self._waiting and self._waiting[0].arrival_ns <= t_ns:
            yield heapq.heappop(self._waiting)

    def rest(self, sent_ns: int) -> Iterator[_Arrived]:
        """Take what is still under way of what was sent by a time; nothing comes after it."""
        waiting, self._waiting = self._waiting, []
        yield from sorted(item for item in waiting if item.sent_ns <= sent_ns)

    def account(self, t_ns: int) -> Account:
        """The fate of what was sent up to a time, which never goes back: only sums are kept."""
        n = bisect_right(self._sent_ns, t_ns)
        self._made += n
        del self._sent_ns[:n]
        n = bisect_right(self._losses, t_ns, key=itemgetter(0))
        self._lost.update(cause for _, cause in self._losses[:n])
        del self._losses[:n]
        return Account(
            self._made, dict(sorted(self._lost.items())), 0, self.next_cseq - 1 - self._again
        )


class Factory:
    """A plant whose devices publish over a link. The same arguments give the same messages.

    ``interval_ns`` lies between samples of a signal, whole seconds; ``None``: none are taken, and
    what happened is sent bundled. ``pane_ns`` is the pane of the edge, which is told at least that
    often how far each connection is. ``cells`` names the cells of the link's layout, if it has one.
    With ``trace`` the way of every message over the link is kept.
    """

    def __init__(
        self,
        plant: Plant,
        link: "Link",
        seed: int,
        run: str,
        start_ns: int,
        length_ns: int,
        *,
        interval_ns: int | None = NS_PER_S,
        pane_ns: int = PANE_NS,
        cells: Sequence[str] = ("cell",),
        faults: Sequence[DataFault] = (),
        trace: bool = False,
    ) -> None:
        if start_ns % PANE_NS or length_ns % NS_PER_S or length_ns <= 0:
            raise ConfigError("a run starts on a full 10 s and lasts whole seconds", at="run")
        if interval_ns is not None and (interval_ns % NS_PER_S or interval_ns <= 0):
            raise ConfigError("signals are sampled every so many whole seconds", at="telemetry")
        self.site = plant.site
        self.floor = Floor(plant, link, seed, start_ns)
        self.run = run
        self._interval_ns = interval_ns
        self._pane_ns = max(PANE_NS, pane_ns // PANE_NS * PANE_NS)
        """Between two messages about how far a connection is, and two of the network's monitor."""
        self._block_ns = _block_ns(interval_ns, len(plant.device))
        self._start_ns = start_ns
        self._end_ns: int = start_ns + length_ns
        self._ahead_ns = start_ns
        """How far the plant has run."""
        self._out_ns = start_ns
        """How far chunks have been handed out."""
        self._wire = Wire()
        self._seq: Counter[tuple[str, int]] = Counter()
        self._unheard: dict[str, list[_Sending]] = {}
        """Per device what was lost of its birth and first reports, the last time they were said."""
        self._members = {
            str(device.asset): _Member(
                device,
                spec.kind,
                self.floor.terminal(device.asset),
                Clock(_upsets(device.asset, faults, start_ns)),
                _spoiler(device.asset, faults, seed, start_ns),
            )
            for device, spec in zip(self.floor.devices, plant.device, strict=True)
        }
        members = self._members.values()
        self._carriers: dict[str, _Carrier] = {
            name: link.plain(f"{plant.site}/{name}", WIRE_NS) for name in (MES, NETWORK)
        }
        self._carriers |= {path: m.terminal.telemetry for path, m in self._members.items()}
        names = [*sorted({m.device.asset.area for m in members}), MES, NETWORK]
        self._connections = {name: Connection(name) for name in names}
        self.connections = tuple(self._connections)
        ways = {way.slice for m in members for way in m.terminal.ways}
        self._slices = {name: slice_of(link, name) for name in ways}
        kinds = [m.kind for m in members]
        self._monitor = Monitor(
            plant.site,
            cells,
            self._slices.values(),
            kinds,
            start_ns,
            every_ns=self._pane_ns,
            pane_ns=pane_ns,
        )
        self._tracer = Tracer(cells) if trace else None
        self._numbers: defaultdict[str, list[int]] = defaultdict(list)
        """Of what each carrier has taken since the link was last asked for its traces."""
        self._held: list[_Sending] = []
        """What a fault holds back in a device."""
        self._said_ns = start_ns
        self._stopped = False
        self._begun = False

    @property
    def held_ns(self) -> int:
        """How long a device keeps what it has to say until it sends it, at most."""
        return self._block_ns if self._interval_ns is None else pane_of(self._interval_ns)

    def chunks(self, chunk_ns: int | None = None) -> Iterator[Chunk]:
        """The run, a chunk at a time; the last one says that nothing will follow.

        By default a chunk is a minute, or a block where blocks are of hours.
        """
        if chunk_ns is None:
            chunk_ns = CHUNK_NS if self.held_ns <= CHUNK_NS else self._block_ns
        if not self._begun:
            self._begun = True
            self._begin()
        while self._out_ns < self._end_ns:
            self._out_ns = min(self._out_ns + chunk_ns, self._end_ns)
            while self._ahead_ns < self._out_ns:
                self._advance()
            if self._out_ns < self._end_ns:
                yield self._release(last=False)
                if self._stopped:
                    self._end_ns = self._out_ns
        yield self._release(last=True)

    def stop(self) -> None:
        """Cut the run short where it is: the next chunk is the last, with what is under way."""
        self._stopped = True

    def truth(self, windows: Sequence[Window] = WINDOWS) -> list[TruthRow]:
        """The true KPIs of what was handed out so far, in windows of whole panes or of orders."""
        return truth_rows(self.floor, self._monitor, self._start_ns, self._out_ns, windows)

    def trace(self) -> Tracer | None:
        """The way over the link of all that was sent so far, if it was asked for; at the end."""
        if self._tracer is not None:
            self._tracer.cut(self._out_ns)
        return self._tracer

    def ledger(self) -> dict[str, Account]:
        """Per connection what became of its messages."""
        return {name: c.account(self._out_ns) for name, c in self._connections.items()}

    def _begin(self) -> None:
        """Announce every asset there is from the start, and say how it is."""
        floor, t_ns = self.floor, self._start_ns
        floor.run_to(t_ns)  # what happens at the very start is part of the first reports
        batch: list[_Sending] = []
        for path, member in self._members.items():
            first = member.device.first_reports(t_ns)
            batch.append(self._birth(path, t_ns))
            spoiler = member.spoiler
            batch += (
                self._said(path, first)
                if spoiler is None
                else self._spoilt(path, spoiler.first(first))
            )
        for each in batch:
            each.until_heard = _holds(each.message)
        for asset, kind, channels in floor.mes.announced():
            said = birth(asset, kind, channels, t_ns)
            batch.append(_Sending(MES, MES, str(asset), t_ns, t_ns, said))
        batch += self._wired(MES, floor.mes.first_reports(t_ns))
        batch += map(self._announced, self._monitor.first(t_ns))
        self._send(batch, t_ns)

    def _advance(self) -> None:
        start_ns, block_ns = self._ahead_ns, self._block_ns
        end_ns = min((start_ns // block_ns + 1) * block_ns, self._end_ns)
        floor = self.floor
        floor.run_to(end_ns)
        stretch = Stretch.every(start_ns, end_ns, self._interval_ns)
        batch = self._wired(MES, floor.mes.reports(stretch))
        for path, member in self._members.items():
            reports, spoiler = member.device.reports(stretch), member.spoiler
            batch += (
                self._said(path, reports)
                if spoiler is None
                else self._spoilt(path, spoiler.spoil(reports, stretch))
            )
        self._send(batch, end_ns)
        self._look(end_ns)
        born, reported = self._monitor.reports(end_ns)
        self._send([*map(self._announced, born), *self._wired(NETWORK, reported)], end_ns)
        self._ahead_ns = end_ns

    def _look(self, t_ns: int) -> None:
        """See where the time of every message went that was sent up to a time."""
        for control in self.floor.controls:  # a kind of somebody else's may not report on it
            for lane in (control.up, control.down):
                lane.advance(t_ns)
        for path, member in self._members.items():
            numbers = self._numbers.pop(path, [])
            for way, trace in member.terminal.take_traces():
                if way.name == TELEMETRY:
                    self._connections[member.device.asset.area].lose(_losses(trace))
                slice = self._slices[way.slice]
                of = "" if way.name == TELEMETRY else path
                self._monitor.note(member.kind, slice, down=way.down, trace=trace, control_of=of)
                if self._tracer is not None:
                    own = numbers if way.name == TELEMETRY else None
                    self._tracer.add(path, way.name, slice, own, trace)

    def _birth(self, path: str, t_ns: int) -> _Sending:
        """What announces a device, sent at a time."""
        member = self._members[path]
        asset = member.device.asset
        device, now_ns = member.device, member.clock.reads(t_ns)
        limits = device.limits if isinstance(device, Limited) else None
        rare = self._interval_ns is None or self._interval_ns > RARE_NS
        spoiler, channels = member.spoiler, device.channels
        said = birth(
            asset, member.kind, channels, now_ns, limits, by_exception=rare,
            modulus=None if spoiler is None else spoiler.modulus(channels),
            sentinels=None if spoiler is None else spoiler.sentinels(channels),
            gathered_ns=_gathered(channels, self._interval_ns),
        )  # fmt: skip
        return _Sending(asset.area, path, path, t_ns, t_ns, said)

    def _announced(self, born: Born) -> _Sending:
        """What announces an asset of the network."""
        gathered_ns = dict.fromkeys(CHANNELS, self._pane_ns)
        said = birth(born.asset, born.kind, CHANNELS, born.t_ns, gathered_ns=gathered_ns)
        asset, t_ns = str(born.asset), born.sent_ns
        return _Sending(NETWORK, NETWORK, asset, t_ns, t_ns, replace(said, sent_ns=t_ns))

    def _said(self, path: str, reports: Iterable[Report]) -> list[_Sending]:
        """What a device says, stamped by its own clock."""
        member = self._members[path]
        conn, encode, dated = member.device.asset.area, self._wire.encode, member.clock.dated
        return [
            _Sending(conn, path, path, report.sent_ns, report.sent_ns, encode(part))
            for report in reports
            for part in dated(report)
        ]

    def _spoilt(self, path: str, said: Iterable[Said]) -> list[_Sending]:
        """What faults have left of what a device says."""
        out: list[_Sending] = []
        parts: list[_Sending] = []
        for each in said:
            if each.again:
                out += [replace(part, copy_of=part) for part in parts]
                continue
            if each.report is None:
                parts = [self._birth(path, each.goes_ns)]
            else:
                if isinstance(each.report, VdaConnection):
                    self._wire.restart(each.report.asset.name)
                parts = self._said(path, [each.report])
            for part in parts:
                part.sent_ns, part.made_ns, part.boot = each.goes_ns, each.said_ns, each.boot
                part.until_heard = each.until_heard and _holds(part.message)
            out += parts
        return out

    def _wired(self, name: str, reports: Iterable[Report]) -> list[_Sending]:
        """What is said on a connection that is a wire."""
        encode = self._wire.encode
        return [
            _Sending(name, name, str(r.asset), r.sent_ns, r.sent_ns, encode(r)) for r in reports
        ]

    def _send(self, batch: list[_Sending], end_ns: int) -> None:
        """Put all that is sent up to a time on its carriers, and number it per asset in the order
        in which it was made."""
        by_carrier: dict[str, list[_Sending]] = {carrier: [] for carrier in self._unheard}
        batch, self._held = [*self._held, *batch], []
        for each in sorted(batch, key=_sent_ns):
            if each.sent_ns > end_ns:
                self._held.append(each)
            else:
                by_carrier.setdefault(each.carrier, []).append(each)
        carried = [
            one for name, own in by_carrier.items() for one in self._carried(name, own, end_ns)
        ]
        self._number([*(each for each, _ in carried), *self._held])
        came: set[int] = set()
        sent: defaultdict[str, list[int]] = defaultdict(list)
        for each, arrival_ns in carried:
            if self._tracer is not None and each.carrier in self._members:
                self._numbers[each.carrier].append(each.seq)
            again = each.copy_of is not None and id(each.copy_of) in came and arrival_ns >= 0
            if not again:
                sent[each.conn].append(each.sent_ns)
            if arrival_ns >= 0:
                came.add(id(each))
                if not again:
                    self._monitor.post(each.message, each.sent_ns, arrival_ns)
                item = _Arrived(
                    arrival_ns, each.asset, each.boot, each.seq, again, each.sent_ns, each.message
                )
                self._connections[each.conn].arrive(item)
        for conn, times in sent.items():
            self._connections[conn].sent(times)

    def _number(self, batch: Iterable[_Sending]) -> None:
        """Give every message its number that has none."""
        for each in sorted((one for one in batch if not one.seq), key=_made_ns):
            if each.copy_of is not None:
                each.seq = each.copy_of.seq
                continue
            start = (each.asset, each.boot)
            self._seq[start] += 1
            each.seq = self._seq[start]

    def _carried(self, name: str, own: list[_Sending], end_ns: int) -> Iterator[_Carried]:
        """What becomes of messages in order of time on one carrier, and between them of what is
        said again: whether it has to be is known only once its last time is over."""
        carrier = self._carriers[name]
        while (unheard := self._unheard.pop(name, None)) is not None:
            t_ns = unheard[0].sent_ns + AGAIN_NS
            if t_ns > end_ns:
                self._unheard[name] = unheard
                break
            n = bisect_left(own, t_ns, key=_sent_ns)
            yield from self._watched(name, _carry(carrier, own[:n]))
            own = own[n:]
            now_ns = self._members[name].clock.reads(t_ns)
            again = [
                replace(
                    each, sent_ns=t_ns, made_ns=t_ns, seq=0,
                    message=replace(each.message, sent_ns=now_ns),
                )
                for each in unheard
            ]  # fmt: skip
            yield from self._watched(name, _carry(carrier, again))
        yield from self._watched(name, _carry(carrier, own))

    def _watched(self, name: str, carried: list[_Carried]) -> list[_Carried]:
        """The same, when it has been noted what has to be said again."""
        lost = [each for each, at in carried if at < 0 and each.until_heard]
        if lost:
            self._unheard[name] = [*self._unheard.get(name, ()), *lost]
        return carried

    def _release(self, *, last: bool) -> Chunk:
        made: list[Made] = []
        said: list[ProgressAt] = []
        end_ns, since_ns, pane_ns = self._out_ns, self._said_ns, self._pane_ns
        for connection in self._connections.values():
            for at_ns in range((since_ns // pane_ns + 1) * pane_ns, end_ns + 1, pane_ns):
                made += [self._made(connection, item) for item in connection.by(at_ns)]
                said.append(self._progress(connection, at_ns, at_ns, end=False))
            made += [self._made(connection, item) for item in connection.by(end_ns)]
            if last:
                rest = [self._made(connection, item) for item in connection.rest(end_ns)]
                made += rest
                over_ns = rest[-1].arrival_ns if rest else end_ns
                said.append(self._progress(connection, over_ns, end_ns, end=True))
        self._said_ns = end_ns
        by_arrival = sorted(made, key=lambda item: item.arrival_ns)
        return Chunk(end_ns, by_arrival, sorted(said, key=lambda item: item.arrival_ns))

    def _made(self, connection: Connection, item: _Arrived) -> Made:
        cseq = connection.number(item)
        message, arrival_ns = item.message, item.arrival_ns
        payload = stamped(
            message, run=self.run, conn=connection.name, cseq=cseq, boot=item.boot, seq=item.seq,
            arrival_ns=arrival_ns,
        )  # fmt: skip
        return Made(connection.name, message.topic, payload, arrival_ns, cseq, message.retain)

    def progress_at(self, last: ProgressAt, arrival_ns: int, next_cseq: int) -> bytes:
        """A progress message between two of a chunk: later arrival, counts of the last one."""
        return progress(
            self.run, len(self.connections), arrival_ns, next_cseq, last.made, last.lost,
            last.shed, False,
        )  # fmt: skip

    def _progress(
        self, connection: Connection, arrival_ns: int, sent_ns: int, *, end: bool
    ) -> ProgressAt:
        account = connection.account(sent_ns)
        numbers = (arrival_ns, connection.next_cseq, account.made, account.lost, account.shed)
        payload = progress(self.run, len(self.connections), *numbers, end)
        return ProgressAt(
            connection.name, topics.progress(self.site, connection.name), payload, *numbers, end
        )


def _block_ns(interval_ns: int | None, devices: int) -> int:
    """How far the plant runs ahead, in whole panes of samples."""
    if interval_ns is None:
        return BUNDLE_NS
    pane_ns = pane_of(interval_ns)
    panes = max(BLOCK_NS, BLOCK_SAMPLES * interval_ns) // pane_ns
    return max(min(panes, panes * BLOCK_DEVICES // devices), 1) * pane_ns


def _gathered(channels: Iterable[str], interval_ns: int | None) -> dict[str, int]:
    """Over how long a device gathers what it tells of its control traffic; what it tells of that is
    nothing where it samples nothing."""
    if interval_ns is None:
        return {}
    pane_ns = pane_of(interval_ns)
    spans = {"bin": NS_PER_S, "uplink_misses": pane_ns, "downlink_misses": pane_ns}
    return {name: spans[name] for name in spans if name in channels}


def _holds(message: Unstamped) -> bool:
    """Whether what is said at the start must be heard: not a vehicle's VDA 5050 state, which is
    said anew every pane and has no time but that of its sending."""
    return not message.names_asset or message.retain


def _carry(carrier: _Carrier, batch: Sequence[_Sending]) -> list[_Carried]:
    """What becomes of messages in order of time."""
    if not batch:
        return []
    times = np.array([each.sent_ns for each in batch], dtype=np.int64)
    sizes = [len(each.message.body) + STAMP_BYTES for each in batch]
    arrivals = carrier.send_many(times, np.array(sizes, dtype=np.int64)).tolist()
    return [_Carried(each, at) for each, at in zip(batch, arrivals, strict=True)]


def _losses(trace: Mapping[str, Ints]) -> Iterator[tuple[int, str]]:
    """Of a bearer's trace, when each message that was lost was sent, and the cause."""
    lost = trace["arrival_ns"] < 0
    times: list[int] = trace["sent_ns"][lost].tolist()
    causes: list[int] = trace["cause"][lost].tolist()
    return zip(times, map(CAUSES.__getitem__, causes), strict=True)


def _upsets(asset: Asset, faults: Iterable[DataFault], start_ns: int) -> list[Upset]:
    """What the faults do to the clock of one device."""
    out: list[Upset] = []
    for fault in faults:
        begin_ns = start_ns + fault.after
        if not asset_matches(fault.asset, str(asset)):
            continue
        if isinstance(fault, ClockStep):
            out.append(Upset(begin_ns, begin_ns + fault.length, step_ns=ns(fault.step_s)))
        elif isinstance(fault, ClockSkew):
            out.append(Upset(begin_ns, begin_ns + fault.length, rate_ppm=fault.rate_ppm))
    return out


def _spoiler(asset: Asset, faults: Iterable[DataFault], seed: int, start_ns: int) -> Spoiler | None:
    """What the other faults do to what one device says."""
    mine = [
        (number, fault)
        for number, fault in enumerate(faults)
        if not isinstance(fault, ClockStep | ClockSkew) and asset_matches(fault.asset, str(asset))
    ]
    return Spoiler(asset, mine, seed, start_ns) if mine else None
