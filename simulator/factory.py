"""A factory on the wire: what its devices send, in order of modelled arrival, chunk by chunk.

Theory of operation
===================

The plant runs ahead in blocks of a minute, whatever chunks are asked for, so that results cannot
depend on them. What was sent in a block rides its device's own bearer; then it waits at the
connection of the device's area, and a chunk lets go of everything that has arrived by its end:

    block   |-- plant runs, devices report, link says when it arrives --|--
    chunk   |------------------|------------------|------------------|----
                   arrived ≤ end: numbered 1, 2, 3 ..., stamped, handed out

A bearer keeps the order of sending, a connection that of arrival. Nothing arrives before it is
sent, so when the plant has run to some time, all that arrives by then is known and can be numbered
for good. What the link loses is never numbered; it is counted as made and lost. The MES and the
network's monitor stand beside the MEC: their connections are wires.
"""

import heapq
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from config.errors import ConfigError
from config.faults import ClockStep
from config.globs import asset_matches
from config.units import NS_PER_S
from ingest import topics
from ingest.messages import Asset, Times, TruthRow
from ingest.recording import Tracer
from simulator.device import PANE_NS, Device, Ints, Report, ns
from simulator.network import AREA as NETWORK
from simulator.network import CHANNELS, Born, Monitor, slice_of
from simulator.plant import Plant
from simulator.plant.floor import Floor
from simulator.plant.terminal import TELEMETRY, Terminal
from simulator.truth import WINDOWS_NS, network_truth, truth_rows
from simulator.wire import STAMP_BYTES, Clock, Jump, Unstamped, Wire, birth, progress, stamped

if TYPE_CHECKING:
    from simulator.link.link import Link

BLOCK_NS = 60 * NS_PER_S
OPENING_NS = NS_PER_S
"""A connection opens with its births: other messages wait for those that arrive this soon."""
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
    """The fate of a connection's messages; ``made == lost + shed + published`` at the end."""

    made: int
    lost: dict[str, int]
    shed: int
    published: int


class _Carrier(Protocol):
    """What takes messages to the broker: a bearer, or a wire."""

    lost: dict[str, int]

    def send_many(self, t_ns: Times, n_bytes: Ints) -> Ints:
        """Arrivals of messages in order of time; -1 for one that never arrives."""
        ...


@dataclass(frozen=True, slots=True)
class _Sending:
    """A message on its way to its carrier, at a true time: its stamps may say another."""

    conn: str
    carrier: str
    sent_ns: int
    message: Unstamped


class _Arrived(NamedTuple):
    """A message on its connection; asset and number tell it from all others."""

    arrival_ns: int
    asset: str
    seq: int
    sent_ns: int
    message: Unstamped


@dataclass(frozen=True, slots=True)
class _Member:
    """A device on the link."""

    device: Device
    kind: str
    terminal: Terminal
    clock: Clock


class _Connection:
    """One connection: what arrives on it from its carriers, in order, and its numbers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.next_cseq = 1
        self._waiting: list[_Arrived] = []
        self._open_ns = 0
        self._sent_ns: list[int] = []
        self._lost: list[tuple[int, str]] = []

    def sent(self, times: Iterable[int], lost: Iterable[tuple[int, str]]) -> None:
        """Count what was sent since the last time, and what of it gets lost, by cause."""
        self._sent_ns += sorted(times)
        self._lost += lost

    def arrive(self, item: _Arrived) -> None:
        """A message is under way and known to arrive."""
        if item.arrival_ns < self._open_ns:
            item = item._replace(arrival_ns=self._open_ns)
        heapq.heappush(self._waiting, item)

    def opening(self, to_ns: int) -> Iterator[_Arrived]:
        """The births that arrive soon, when nothing else is under way; all others come later."""
        for item in self.by(to_ns):
            self._open_ns = item.arrival_ns
            yield item

    def by(self, t_ns: int) -> Iterator[_Arrived]:
        """Take what has arrived by a time."""
        while self._waiting and self._waiting[0].arrival_ns <= t_ns:
            yield heapq.heappop(self._waiting)

    def rest(self, sent_ns: int) -> Iterator[_Arrived]:
        """Take what is still under way of what was sent by a time; nothing comes after it."""
        waiting, self._waiting = self._waiting, []
        yield from sorted(item for item in waiting if item.sent_ns <= sent_ns)

    def account(self, t_ns: int) -> Account:
        """The fate of what was sent up to a time."""
        lost = [cause for sent_ns, cause in self._lost if sent_ns <= t_ns]
        made = bisect_right(self._sent_ns, t_ns)
        return Account(made, dict(sorted(Counter(lost).items())), 0, self.next_cseq - 1)


class Factory:
    """A plant whose devices publish over a link. The same arguments give the same messages.

    ``cells`` names the cells of the link's layout, if it has one; ``clocks`` are the faults of the
    devices' clocks. With ``trace`` the way of every message over the link is kept.
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
        cells: Sequence[str] = ("cell",),
        clocks: Sequence[ClockStep] = (),
        trace: bool = False,
    ) -> None:
        if start_ns % PANE_NS or length_ns % NS_PER_S or length_ns <= 0:
            raise ConfigError("a run starts on a full 10 s and lasts whole seconds", at="run")
        self.site = plant.site
        self.floor = Floor(plant, link, seed, start_ns)
        self.run = run
        self._start_ns = start_ns
        self._end_ns: int = start_ns + length_ns
        self._ahead_ns = start_ns
        """How far the plant has run."""
        self._out_ns = start_ns
        """How far chunks have been handed out."""
        self._wire = Wire()
        self._seq: Counter[str] = Counter()
        self._again: list[str] = []
        """Devices whose birth was lost."""
        self._members = {
            str(device.asset): _Member(
                device,
                spec.kind,
                self.floor.terminal(device.asset),
                Clock(_jumps(device.asset, clocks, start_ns)),
            )
            for device, spec in zip(self.floor.devices, plant.device, strict=True)
        }
        members = self._members.values()
        self._carriers: dict[str, _Carrier] = {
            name: link.plain(f"{plant.site}/{name}", WIRE_NS) for name in (MES, NETWORK)
        }
        self._carriers |= {path: m.terminal.telemetry for path, m in self._members.items()}
        names = [*sorted({m.device.asset.area for m in members}), MES, NETWORK]
        self._connections = {name: _Connection(name) for name in names}
        self.connections = tuple(self._connections)
        ways = {way.slice for m in members for way in m.terminal.ways}
        self._slices = {name: slice_of(link, name) for name in ways}
        kinds = [m.kind for m in members]
        self._monitor = Monitor(plant.site, cells, self._slices.values(), kinds)
        self._tracer = Tracer(cells) if trace else None
        self._numbers: defaultdict[str, list[int]] = defaultdict(list)
        """Of what each carrier has taken since the link was last asked for its traces."""
        self._said_ns = start_ns
        self._stopped = False
        self._births: list[Made] | None = None

    def births(self) -> list[Made]:
        """The retained birth of every asset there is from the start, the first messages of each
        connection; one that takes longer than ``OPENING_NS``, or is sent again because the link
        lost it, comes later."""
        if self._births is None:
            floor, t_ns = self.floor, self._start_ns
            floor.run_to(t_ns)  # what happens at the very start is part of the first reports
            batch = [self._birth(path, t_ns) for path in self._members]
            if floor.has_flow:
                flow = floor.flow
                said = birth(flow.asset, "material_flow", flow.channels, t_ns)
                batch.append(_Sending(MES, MES, t_ns, said))
            batch += map(_announced, self._monitor.first(t_ns))
            self._send(batch)
            self._births = [
                self._made(connection, item)
                for connection in self._connections.values()
                for item in connection.opening(t_ns + OPENING_NS)
            ]
            batch = self._wired(MES, floor.mes.first_reports(t_ns))
            for path, member in self._members.items():
                batch += self._said(path, member.device.first_reports(t_ns))
            self._send(batch)
        return self._births

    def chunks(self, chunk_ns: int = BLOCK_NS) -> Iterator[Chunk]:
        """The run, a chunk at a time; the last one says that nothing will follow."""
        self.births()
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

    def truth(self, windows_ns: Sequence[int] = WINDOWS_NS) -> list[TruthRow]:
        """The true KPIs of what was handed out so far."""
        span = (self._start_ns, self._out_ns)
        return [
            *truth_rows(self.floor, *span, windows_ns),
            *network_truth(self._monitor, *span, windows_ns),
        ]

    def trace(self) -> Tracer | None:
        """The way over the link of all that was sent so far, if it was asked for; at the end."""
        if self._tracer is not None:
            self._tracer.cut(self._out_ns)
        return self._tracer

    def ledger(self) -> dict[str, Account]:
        """Per connection what became of its messages."""
        return {name: c.account(self._out_ns) for name, c in self._connections.items()}

    def _advance(self) -> None:
        start_ns, end_ns = self._ahead_ns, min(self._ahead_ns + BLOCK_NS, self._end_ns)
        floor = self.floor
        floor.run_to(end_ns)
        times = np.arange(start_ns + NS_PER_S, end_ns + 1, NS_PER_S, dtype=np.int64)
        again, self._again = self._again, []
        batch = [self._birth(path, start_ns + NS_PER_S) for path in again]
        batch += self._wired(MES, floor.mes.reports(times))
        for path, member in self._members.items():
            batch += self._said(path, member.device.reports(times))
        self._send(batch)
        self._look(end_ns)
        born, reports = self._monitor.reports(end_ns)
        self._send([*map(_announced, born), *self._wired(NETWORK, reports)])
        self._ahead_ns = end_ns

    def _look(self, t_ns: int) -> None:
        """See where the time of every message went that was sent up to a time."""
        for control in self.floor.controls:  # a kind of somebody else's may not report on it
            for lane in (control.up, control.down):
                lane.advance(t_ns)
        for path, member in self._members.items():
            numbers = self._numbers.pop(path, [])
            for way, trace in member.terminal.take_traces():
                slice = self._slices[way.slice]
                self._monitor.note(member.kind, slice, down=way.down, trace=trace)
                if self._tracer is not None:
                    own = numbers if way.name == TELEMETRY else None
                    self._tracer.add(path, way.name, slice, own, trace)

    def _birth(self, path: str, t_ns: int) -> _Sending:
        """What announces a device, sent at a time."""
        member = self._members[path]
        asset = member.device.asset
        said = birth(asset, member.kind, member.device.channels, member.clock.reads(t_ns))
        return _Sending(asset.area, path, t_ns, said)

    def _said(self, path: str, reports: Iterable[Report]) -> list[_Sending]:
        """What a device says, stamped by its own clock."""
        member = self._members[path]
        return [
            _Sending(member.device.asset.area, path, report.sent_ns, self._wire.encode(part))
            for report in reports
            for part in member.clock.dated(report)
        ]

    def _wired(self, name: str, reports: Iterable[Report]) -> list[_Sending]:
        """What is said on a connection that is a wire."""
        return [_Sending(name, name, r.sent_ns, self._wire.encode(r)) for r in reports]

    def _send(self, batch: list[_Sending]) -> None:
        """Number messages per asset in order of sending, and put them on their carriers."""
        by_carrier: dict[str, list[tuple[int, _Sending]]] = {}
        sent: dict[str, list[int]] = {}
        lost: dict[str, list[tuple[int, str]]] = {}
        for each in sorted(batch, key=lambda item: item.sent_ns):
            asset = str(each.message.asset)
            self._seq[asset] += 1
            by_carrier.setdefault(each.carrier, []).append((self._seq[asset], each))
            sent.setdefault(each.conn, []).append(each.sent_ns)
        for carrier, numbered in by_carrier.items():
            arrivals, causes = _carry(self._carriers[carrier], [each for _, each in numbered])
            if self._tracer is not None:
                self._numbers[carrier] += [seq for seq, _ in numbered]
            for (seq, each), arrival_ns in zip(numbered, arrivals, strict=True):
                if arrival_ns < 0:
                    lost.setdefault(each.conn, []).append((each.sent_ns, next(causes)))
                    if each.message.topic.endswith("/birth"):
                        self._again.append(carrier)
                else:
                    item = _Arrived(
                        arrival_ns, str(each.message.asset), seq, each.sent_ns, each.message
                    )
                    self._connections[each.conn].arrive(item)
        for conn, times in sent.items():
            self._connections[conn].sent(times, lost.get(conn, ()))

    def _release(self, *, last: bool) -> Chunk:
        made: list[Made] = []
        said: list[ProgressAt] = []
        end_ns, since_ns = self._out_ns, self._said_ns
        for connection in self._connections.values():
            for pane_ns in range((since_ns // PANE_NS + 1) * PANE_NS, end_ns + 1, PANE_NS):
                made += [self._made(connection, item) for item in connection.by(pane_ns)]
                said.append(self._progress(connection, pane_ns, pane_ns, end=False))
            made += [self._made(connection, item) for item in connection.by(end_ns)]
            if last:
                rest = [self._made(connection, item) for item in connection.rest(end_ns)]
                made += rest
                over_ns = rest[-1].arrival_ns if rest else end_ns
                said.append(self._progress(connection, over_ns, end_ns, end=True))
        self._said_ns = end_ns
        by_arrival = sorted(made, key=lambda item: item.arrival_ns)
        return Chunk(end_ns, by_arrival, sorted(said, key=lambda item: item.arrival_ns))

    def _made(self, connection: _Connection, item: _Arrived) -> Made:
        cseq = connection.next_cseq
        connection.next_cseq += 1
        message, arrival_ns = item.message, item.arrival_ns
        payload = stamped(
            message, run=self.run, conn=connection.name, cseq=cseq, seq=item.seq,
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
        self, connection: _Connection, arrival_ns: int, sent_ns: int, *, end: bool
    ) -> ProgressAt:
        account = connection.account(sent_ns)
        numbers = (arrival_ns, connection.next_cseq, account.made, account.lost, account.shed)
        payload = progress(self.run, len(self.connections), *numbers, end)
        return ProgressAt(
            connection.name, topics.progress(self.site, connection.name), payload, *numbers, end
        )


def _announced(born: Born) -> _Sending:
    said = birth(born.asset, born.kind, CHANNELS, born.t_ns)
    return _Sending(NETWORK, NETWORK, born.sent_ns, replace(said, sent_ns=born.sent_ns))


def _carry(carrier: _Carrier, batch: Sequence[_Sending]) -> tuple[list[int], Iterator[str]]:
    """Arrivals (-1: lost) of messages in order of time, and the causes of the losses."""
    before = Counter(carrier.lost)
    times = np.array([each.sent_ns for each in batch], dtype=np.int64)
    sizes = [len(each.message.body) + STAMP_BYTES for each in batch]
    arrivals = np.asarray(carrier.send_many(times, np.array(sizes, dtype=np.int64)))
    causes = (Counter(carrier.lost) - before).elements()
    return arrivals.tolist(), causes


def _jumps(asset: Asset, clocks: Iterable[ClockStep], start_ns: int) -> list[Jump]:
    """What the faults do to the clock of one device."""
    return [
        Jump(begin_ns, begin_ns + fault.length, ns(fault.step_s))
        for fault in clocks
        if asset_matches(fault.asset, str(asset))
        for begin_ns in (start_ns + fault.after,)
    ]
