"""From received messages to a journal and KPI rows: the edge without its sockets.

Live processing *is* replay: what is computed is what the journal holds, in blocks, once they are
committed. ``resume`` reads a journal from its start, be it after ``kill -9`` or to replay it.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, cast

from config.errors import RecordingError
from edge import kpis
from edge.alarms import Alarms
from edge.engine import Engine
from edge.gate import Ledger
from edge.hops import Hops
from edge.policy import Policy
from edge.rows import Row, digest
from edge.store import RowStore
from ingest.codecs import Unusable
from ingest.contiguous import Contiguous
from ingest.decode import TICK, Decoder, tick
from ingest.messages import Batch, Birth, Envelope, Notice, Progress, Record, Reject
from ingest.recording import Recording
from ingest.subscribe import Received

Write = Callable[[list[Row]], None]


class Journal:
    """A recording's journal as the engine's past."""

    def __init__(self, recording: Recording, decoder: Decoder) -> None:
        self._recording = recording
        self._decoder = decoder

    def recall(self, first_ns: int, last_ns: int) -> Iterator[Record]:
        for block in self._recording.blocks_over(first_ns, last_ns):
            for envelope in block.envelopes:
                yield from self._decoder.read(envelope)


class Account(NamedTuple):
    """Both ends of the ledger of a run, in messages; ``made`` is ``None`` for real publishers."""

    made: int | None
    lost: Counter[str]
    shed: int
    unusable: Counter[str]
    ledger: Ledger
    ended: bool = True
    """Whether every connection said its end; before that, messages may be under way."""

    @property
    def delivered(self) -> int:
        """Messages of this run that are here, each counted once."""
        ledger = self.ledger
        return ledger.received - ledger.duplicate - ledger.rejected["other_run"]

    @property
    def under_way(self) -> int:
        """Messages made and not yet here, where the run was broken off."""
        if self.made is None or self.ended:
            return 0
        return max(0, self.made - self.lost.total() - self.shed - self.delivered)

    @property
    def closes(self) -> bool:
        """Whether every message made is lost, shed, or here, and all that came is accounted for."""
        if self.ledger.imbalance():
            return False
        here = self.delivered + self.under_way
        return self.made is None or self.made == self.lost.total() + self.shed + here


class Ending(NamedTuple):
    """The last revision of every row of a run, and where its messages went."""

    rows: list[Row]
    account: Account

    @property
    def digest(self) -> str:
        """Fingerprint of the rows."""
        return digest(self.rows)


class Pipeline:
    """Decode, journal, fold, write. ``write`` gets rows to upsert, outside any transaction."""

    def __init__(
        self,
        recording: Recording,
        decoder: Decoder,
        policy: Policy,
        run: str | None,
        write: Write,
        alarms: Alarms | None = None,
    ) -> None:
        self.recording = recording
        self._decoder = decoder
        self._write = write
        self._alarms = alarms
        self.engine = Engine(
            policy, tuple(kpis.load().values()), Journal(recording, decoder), run=run
        )
        self.hops = Hops()
        self.seen = Contiguous()
        self.unusable: Counter[str] = Counter()
        self.messages = 0
        self.journalled = 0
        """Messages in the journal, its ticks aside."""
        self.rows = 0
        """Rows that were written, each as often as it was amended."""
        self._run = run
        self._progress: dict[str, Progress] = {}
        self._held: list[Record] = []
        """What connections said of messages that are not here yet."""

    def resume(self, *, salvage: bool = False) -> None:
        """Feed what the journal holds; ``salvage`` stops at the damage instead of raising."""
        self.unusable.update(self.recording.unusable())
        for block in self.recording.blocks(salvage=salvage):
            self.journalled += sum(envelope.codec != TICK for envelope in block.envelopes)
            self._feed([r for e in block.envelopes for r in self._read(e)], watched=False)
        if (
            self._alarms is not None
        ):  # only what the rows came to: they were told of the rest before
            self._put(self._alarms.catch_up(self.engine.closed_ns, self.engine.kind_of))

    def take(self, received: Iterable[Received]) -> None:
        """Journal and fold messages; when this returns they are safe and may be acknowledged."""
        records: list[Record] = []
        rejects: list[Reject] = []
        taken = 0
        with self.hops.timed("decode"):
            for message in received:
                taken += 1
                found = self._decoder.receive(message.topic, message.payload, message.received_ns)
                if isinstance(found, Reject):
                    rejects.append(found)
                else:
                    records += found
        with self.hops.timed("commit"):
            self.recording.append(records, rejects)
        self.journalled += taken - len(rejects)
        self.unusable.update(reject.reason for reject in rejects)
        self._feed(records)

    def tick(self, now_ns: int) -> None:
        """Journal the host's clock, the watermark of publishers that report no progress."""
        records = self._decoder.read(tick(now_ns))
        self.recording.append(records)
        self._feed(records)

    def _read(self, envelope: Envelope) -> list[Record]:
        try:
            return self._decoder.read(envelope)
        except Unusable as why:
            raise RecordingError(
                f"a message of codec {envelope.codec!r} cannot be read: {why.detail}",
                at=str(self.recording.path),
                hint="a mapped recording is continued with the same --map",
            ) from None

    def finish(self) -> None:
        """Close every window there is."""
        rows = self.engine.finish()
        self._put(rows)
        if self._alarms is not None:
            whole = [row for row in rows if row.span.end_ns <= self.engine.closed_ns]
            self._watch(whole)
            self._put(self._alarms.finish())

    def conclude(self, rows: RowStore) -> "Ending":
        """Finish, and write down in the recording how it ended."""
        self.finish()
        ending = Ending(list(rows.rows()), self.account())
        self.recording.set_entries("edge", ending.account.ledger.entries())
        hops = json.dumps(self.hops.summary())
        self.recording.set_meta({"digest": ending.digest, "hops": hops, "finished": "true"})
        if ending.account.ended:
            self.recording.set_meta({"ended": "true"})
        return ending

    @property
    def complete(self) -> bool:
        """Whether every connection has ended and all its messages are here."""
        return self.engine.ended and all(
            self.seen.highest(conn) >= said.next_cseq - 1 for conn, said in self._progress.items()
        )

    def account(self) -> Account:
        """Where every message went, as far as this edge can know."""
        said = self._progress.values()
        lost: Counter[str] = Counter()
        for progress in said:
            lost.update(progress.lost)
        made = sum(p.made for p in said) if said else None
        shed = sum(p.shed for p in said)
        ended = self.engine.ended
        return Account(made, lost, shed, self.unusable, self.engine.ledger, ended)

    def _feed(self, records: list[Record], *, watched: bool = True) -> None:
        for record in records:
            message = record.message
            if isinstance(message, Progress):
                known = self._progress.get(message.conn)
                if message.run == self._run and (known is None or known.made <= message.made):
                    self._progress[message.conn] = message
            elif isinstance(message, Birth | Batch | Notice):
                self.messages += message.meta.resolution != "derived"
                if message.meta.conn and message.meta.run == self._run:
                    self.seen.add(message.meta.conn, message.meta.cseq)
        with self.hops.timed("fold"):
            self.engine.feed(self._in_turn(records))
            rows = self.engine.advance()
        if rows:
            with self.hops.timed("rows"):
                self._put(rows)
                if watched:
                    self._watch(rows)

    def _in_turn(self, records: list[Record]) -> list[Record]:
        """Records as they may be believed: a progress that speaks of messages which are not here is
        held until they are. An edge that was started again hears what is said now before it gets
        what it missed, and would close windows that these messages are still to fill."""
        out: list[Record] = []
        for record in records:
            message = record.message
            if isinstance(message, Progress) and message.run == self._run:
                self._held.append(record)
            else:
                out.append(record)
        kept: list[Record] = []
        for record in self._held:
            said = cast("Progress", record.message)
            here = self.seen.highest(said.conn) >= said.next_cseq - 1
            (out if here else kept).append(record)
        self._held = kept
        return out

    def _put(self, rows: list[Row]) -> None:
        self._write(rows)
        self.rows += len(rows)

    def _watch(self, rows: list[Row]) -> None:
        """Raise and clear alarms by rows of whole windows that were written."""
        if self._alarms is not None and (told := self._alarms.fold(rows, self.engine.kind_of)):
            self._put(told)
