"""What passed each stage of the edge: seven counters a stage, kept in the recording while it runs.

    subscribe ─► decode ─► journal ─► fold ─► rows ─┬─► feed
     socket      codec     commit    gate,          ├─► store
                                     panes          │   outbox
                                                    └─► webhook
                                              alarms    outbox of its own

Of every stage ``in = out + rejected + dropped + backlog``, and ``late`` is a part of ``out``. They
count from the start of the journal, so that an edge that was started again goes on counting. Times
are this machine's own. A stage that is not in use has no counters, which is not the same as none.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import NamedTuple

from edge.feed import Feed
from edge.pipeline import Pipeline
from edge.serve import Serving
from edge.sinks.forward import Forwarder
from ingest.recording import Recording

EVERY_S = 1.0
"""How often they are written."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS stage (
    stage TEXT PRIMARY KEY, place INTEGER NOT NULL, "in" INTEGER, out INTEGER, rejected INTEGER,
    late INTEGER, dropped INTEGER, backlog INTEGER, p99_ms REAL
) WITHOUT ROWID
"""


class Passed(NamedTuple):
    """The counters of one stage; ``None``: it has no such thing."""

    stage: str
    came: int | None = None
    """``in``, which Python keeps for itself."""
    out: int | None = None
    rejected: int | None = None
    late: int | None = None
    dropped: int | None = None
    backlog: int | None = None
    p99_ms: float | None = None


class Stages:
    """The counters of an edge, and their table; for the one who writes the recording."""

    def __init__(
        self,
        recording: Recording,
        serving: Serving,
        feed: Feed | None,
        store: Forwarder | None,
        webhook: Forwarder | None = None,
    ) -> None:
        self._recording = recording
        self._serving = serving
        self._feed = feed
        self._outboxes = {"store": store, "webhook": webhook}
        recording.db.execute(_SCHEMA)

    def passed(self) -> list[Passed]:
        """The counters as they are now; none before anything was heard."""
        pipeline, inbox = self._serving.pipeline, self._serving.inbox
        if pipeline is None:
            return []
        waiting = 0 if inbox is None else len(inbox)
        unusable, journalled = pipeline.unusable.total(), pipeline.journalled
        taken, made = journalled + unusable, pipeline.rows
        ledger, p99_ms = pipeline.engine.ledger, pipeline.hops.quantile_ms
        return [
            Passed("subscribe", taken + waiting, taken, 0, 0, 0, waiting, p99_ms("wait", 0.99)),
            Passed("decode", taken, journalled, unusable, 0, 0, 0, p99_ms("decode", 0.99)),
            Passed("journal", journalled, journalled, 0, 0, 0, 0, p99_ms("commit", 0.99)),
            Passed(
                "fold", ledger.received, ledger.on_time + ledger.late, ledger.rejected.total(),
                ledger.late, ledger.too_late + ledger.duplicate, 0, p99_ms("fold", 0.99),
            ),
            Passed("rows", made, made, 0, 0, 0, 0, p99_ms("rows", 0.99)),
            self._fed(pipeline),
            *(_sent(name, outbox) for name, outbox in self._outboxes.items()),
        ]  # fmt: skip

    def _fed(self, pipeline: Pipeline) -> Passed:
        if self._feed is None:
            return Passed("feed")
        fed = self._feed.fed
        return Passed(
            "feed", fed.offered, fed.delivered, fed.refused + fed.withheld, 0,
            fed.dropped + fed.replaced, fed.waiting, pipeline.hops.quantile_ms("feed", 0.99),
        )  # fmt: skip

    def write(self) -> None:
        """Write them, and the edge's side of the ledger as it is now, in one transaction."""
        pipeline = self._serving.pipeline
        if pipeline is None:
            return
        rows = [(each[0], place, *each[1:]) for place, each in enumerate(self.passed())]
        ledger = pipeline.engine.ledger.entries()
        db = self._recording.db
        db.execute("BEGIN IMMEDIATE")
        try:
            db.executemany("INSERT OR REPLACE INTO stage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            db.executemany("INSERT OR REPLACE INTO ledger VALUES ('edge', ?, ?)", ledger.items())
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise


def _sent(name: str, forwarder: Forwarder | None) -> Passed:
    if forwarder is None:
        return Passed(name)
    n = forwarder.outbox.counts()
    return Passed(name, n.queued, n.accepted, n.dead, 0, n.dropped + n.replaced, n.waiting)


@asynccontextmanager
async def reporting(stages: Stages) -> AsyncGenerator[None, None]:
    """Write the counters once a second while the block runs, and at its end."""

    async def report() -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            stages.write()

    task = asyncio.create_task(report(), name="edge.stages")
    try:
        yield
        stages.write()
    finally:
        task.cancel()
        await asyncio.wait((task,))
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
