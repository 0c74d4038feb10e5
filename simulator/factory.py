"""A factory on the wire: what its devices send, in order of modelled arrival, chunk by chunk.

Theory of operation
===================

The plant runs ahead in blocks of a minute, whatever chunks are asked for, so that results cannot
depend on them. What was sent in a block rides its connection's bearer and waits there; a chunk lets
go of everything that has arrived by its end:

    block   |-- plant runs, devices report, link says when it arrives --|--
    chunk   |------------------|------------------|------------------|----
                   arrived ≤ end: numbered 1, 2, 3 ..., stamped, handed out

A connection keeps the order of sending (it is a TCP connection). What the link loses is never
numbered; it is counted as made and lost.
"""

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from config.errors import ConfigError
from config.units import NS_PER_S
from ingest import topics
from ingest.messages import TruthRow
from simulator.device import PANE_NS
from simulator.plant import Plant
from simulator.plant.floor import Floor
from simulator.truth import WINDOWS_NS, truth_rows
from simulator.wire import STAMP_BYTES, Unstamped, Wire, birth, progress, stamped

if TYPE_CHECKING:
    from simulator.link.link import Bearer, Link

BLOCK_NS = 60 * NS_PER_S
MES = "mes"
MES_DELAY_NS = 500_000
"""The MES stands beside the MEC: its connection is a wire, and loses nothing."""


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


class _Connection:
    """One connection: its bearer, what is under way on it, and its numbers."""

    def __init__(self, name: str, bearer: "Bearer | None") -> None:
        self.name = name
        self.next_cseq = 1
        self.waiting: deque[tuple[int, int, Unstamped]] = deque()
        """Arrival, sequence number of the asset, message."""
        self._bearer = bearer
        self._sent_ns: list[int] = []
        self._lost: list[tuple[int, str]] = []
        self._last_ns = 0

    def send(self, batch: list[tuple[int, Unstamped]]) -> list[Unstamped]:
        """Put messages, oldest first, under way; those that get lost are returned."""
        if not batch:
            return []
        times = np.array([message.sent_ns for _, message in batch], dtype=np.int64)
        self._sent_ns += times.tolist()
        if self._bearer is None:
            arrivals = times + MES_DELAY_NS
            causes: list[str] = []
        else:
            before = dict(self._bearer.lost)
            sizes = [len(message.body) + STAMP_BYTES for _, message in batch]
            arrivals = np.asarray(self._bearer.send_many(times, np.array(sizes, dtype=np.int64)))
            causes = list((Counter(self._bearer.lost) - Counter(before)).elements())
        lost: list[Unstamped] = []
        for (seq, message), arrival_ns in zip(batch, arrivals.tolist(), strict=True):
            if arrival_ns < 0:
                lost.append(message)
                cause = causes[len(lost) - 1] if len(lost) <= len(causes) else "radio"
                self._lost.append((message.sent_ns, cause))
            else:
                self._last_ns = max(self._last_ns, arrival_ns)
                self.waiting.append((self._last_ns, seq, message))
        return lost

    def account(self, t_ns: int) -> Account:
        """The fate of what was sent up to a time."""
        lost = [cause for sent_ns, cause in self._lost if sent_ns <= t_ns]
        made = bisect_right(self._sent_ns, t_ns)
        return Account(made, dict(sorted(Counter(lost).items())), 0, self.next_cseq - 1)


class Factory:
    """A plant whose devices publish over a link. The same arguments give the same messages."""

    def __init__(
        self, plant: Plant, link: "Link", seed: int, run: str, start_ns: int, length_ns: int
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
        self._again: list[tuple[str, Unstamped]] = []
        names = sorted({device.asset.area for device in self.floor.devices})
        from simulator.link.link import Direction

        self._connections = {
            name: _Connection(name, link.bearer(f"{plant.site}/{name}", Direction.UP))
            for name in names
        } | {MES: _Connection(MES, None)}
        self.connections = tuple(self._connections)
        self._said_ns = start_ns
        self._stopped = False
        self._births: list[Made] | None = None

    def births(self) -> list[Made]:
        """The retained birth of every asset, the first messages of each connection."""
        if self._births is None:
            floor, t_ns = self.floor, self._start_ns
            floor.run_to(t_ns)  # what happens at the very start is part of the first reports
            batch = [
                (device.asset.area, birth(device.asset, spec.kind, device.channels, t_ns))
                for device, spec in zip(floor.devices, floor.plant.device, strict=True)
            ]
            if floor.has_flow:
                batch.append(
                    (MES, birth(floor.flow.asset, "material_flow", floor.flow.channels, t_ns))
                )
            self._send(batch)
            self._births = [
                self._made(connection)
                for connection in self._connections.values()
                for _ in range(len(connection.waiting))
            ]
            first = [
                (device.asset.area, self._wire.encode(report))
                for device in floor.devices
                for report in device.first_reports(t_ns)
            ]
            plans = [(MES, self._wire.encode(report)) for report in floor.mes.first_reports(t_ns)]
            self._send([*plans, *first])
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
        return truth_rows(self.floor, self._start_ns, self._out_ns, windows_ns)

    def ledger(self) -> dict[str, Account]:
        """Per connection what became of its messages."""
        return {name: c.account(self._out_ns) for name, c in self._connections.items()}

    def _advance(self) -> None:
        start_ns, end_ns = self._ahead_ns, min(self._ahead_ns + BLOCK_NS, self._end_ns)
        floor = self.floor
        floor.run_to(end_ns)
        times = np.arange(start_ns + NS_PER_S, end_ns + 1, NS_PER_S, dtype=np.int64)
        again, self._again = self._again, []
        batch = [(conn, replace(m, sent_ns=start_ns + NS_PER_S)) for conn, m in again]
        batch += [(MES, self._wire.encode(report)) for report in floor.mes.reports(times)]
        batch += [
            (device.asset.area, self._wire.encode(report))
            for device in floor.devices
            for report in device.reports(times)
        ]
        self._send(batch)
        self._ahead_ns = end_ns

    def _send(self, batch: list[tuple[str, Unstamped]]) -> None:
        """Number messages per asset in order of sending, and put them on their connections."""
        by_conn: dict[str, list[tuple[int, Unstamped]]] = {name: [] for name in self._connections}
        for conn, message in sorted(batch, key=lambda item: item[1].sent_ns):
            asset = str(message.asset)
            self._seq[asset] += 1
            by_conn[conn].append((self._seq[asset], message))
        for conn, messages in by_conn.items():
            lost = self._connections[conn].send(messages)
            self._again += [(conn, m) for m in lost if m.topic.endswith("/birth")]

    def _release(self, *, last: bool) -> Chunk:
        made: list[Made] = []
        said: list[ProgressAt] = []
        for connection in self._connections.values():
            waiting = connection.waiting
            end_ns = self._out_ns
            since_ns = self._said_ns
            for pane_ns in range((since_ns // PANE_NS + 1) * PANE_NS, end_ns + 1, PANE_NS):
                while waiting and waiting[0][0] <= pane_ns:
                    made.append(self._made(connection))
                said.append(self._progress(connection, pane_ns, pane_ns, end=False))
            while waiting and (
                waiting[0][0] <= end_ns or (last and waiting[0][2].sent_ns <= end_ns)
            ):
                made.append(self._made(connection))
            if last:
                end_ns = max([end_ns, *(m.arrival_ns for m in made if m.conn == connection.name)])
                said.append(self._progress(connection, end_ns, self._out_ns, end=True))
        self._said_ns = self._out_ns
        by_arrival = sorted(made, key=lambda item: item.arrival_ns)
        return Chunk(self._out_ns, by_arrival, sorted(said, key=lambda item: item.arrival_ns))

    def _made(self, connection: _Connection) -> Made:
        arrival_ns, seq, message = connection.waiting.popleft()
        cseq = connection.next_cseq
        connection.next_cseq += 1
        payload = stamped(
            message, run=self.run, conn=connection.name, cseq=cseq, seq=seq, arrival_ns=arrival_ns
        )
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
