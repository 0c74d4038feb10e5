"""Empties an outbox into a server: in order, at least once, and never at the edge's cost.

Theory of operation
===================

    pending ─► write ─┬─ taken ──────────► accepted      (a new connection: suspect the last minute)
       ▲              ├─ malformed ──────► halves of it, down to the one line: dead letter
       │              ├─ too much ───────► halves of it
       └── wait ◄─────┼─ later, no answer: twice as long each time, less at random; or as asked
                      └─ refused ────────► stopped, and says so; everything stays in the outbox

What a server acknowledged just before it died may be lost (VictoriaMetrics flushes every few
seconds), and a server that died comes back behind a new connection. So entries are kept for a while
after they were accepted, and owed again when a connection had to be made anew. An hour without
traffic looks the same and costs a minute's rows, written over themselves.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from edge.sinks.influx import Answer, Later, Malformed, Refused, Taken, TooMuch
from edge.sinks.outbox import Entry, Outbox

log = logging.getLogger(__name__)

BATCH = 5_000
BACKOFF_S = (0.5, 60.0)
"""First and longest wait after no answer; each is drawn between half and whole."""
LOOK_S = 0.2
"""How often an empty outbox is looked into."""


class Writes(Protocol):
    """A server, as far as the forwarder knows one."""

    url: str

    def write(self, lines: Sequence[str]) -> Answer: ...


class Forwarder:
    """Sends what an outbox owes; ``state`` says in a word how that goes, and ``trouble`` why."""

    def __init__(
        self, outbox: Outbox, server: Writes, *, keep_s: float, batch: int = BATCH
    ) -> None:
        self.outbox = outbox
        self.url = server.url
        self.trouble = ""
        """Why the last attempt failed; empty where it did not."""
        self.stopped = False
        """Whether a person has to change something first."""
        self._server = server
        self._keep_s = keep_s
        self._batch = batch
        self._now_s: Callable[[], float] = outbox.now_s
        self._wait_s = BACKOFF_S[0]
        self._heard_s = outbox.heard_s()
        """When the server last took something."""

    @property
    def state(self) -> str:
        """``stopped``, ``waiting`` for the server, or ``sending``."""
        return "stopped" if self.stopped else "waiting" if self.trouble else "sending"

    async def run(self) -> None:
        """Send for ever, or until it is refused."""
        while not self.stopped:
            wait_s = await self.step()
            if wait_s is None:
                continue
            await asyncio.sleep(wait_s)

    async def step(self) -> float | None:
        """Send one batch; how long to wait before the next, ``None`` for not at all."""
        entries = self.outbox.pending(self._batch)
        self.outbox.tidy(self._keep_s)
        if not entries:
            return LOOK_S
        later = await self._deliver(entries)
        if later is None:
            self.trouble, self._wait_s = "", BACKOFF_S[0]
            return None
        if not self.trouble:
            log.warning("%s: %s; rows wait in the recording", self.url, later.why)
        self.trouble = later.why
        if self.stopped:
            return None
        drawn_s = self._wait_s * random.uniform(0.5, 1.0)
        self._wait_s = min(2 * self._wait_s, BACKOFF_S[1])
        return drawn_s if later.after_s is None else later.after_s

    async def _deliver(self, entries: Sequence[Entry]) -> Later | None:
        """Send entries, in parts where they are too many or one is malformed; ``Later`` where the
        rest has to wait."""
        asked_s = self._now_s()
        answer = await asyncio.to_thread(
            self._server.write, [line for entry in entries for line in entry.lines]
        )
        match answer:
            case Taken(connected):
                if connected and self._heard_s is not None:
                    self._doubt(self._heard_s)
                self._heard_s = asked_s
                self.outbox.accepted(entries)
                return None
            case Malformed(why) | TooMuch(why) if len(entries) == 1:
                log.warning("%s: a row is refused: %s", self.url, why)
                self.outbox.bury(entries[0], why)
                return None
            case Malformed() | TooMuch():
                half = len(entries) // 2
                later = await self._deliver(entries[:half])
                return later or await self._deliver(entries[half:])
            case Refused(why):
                self.stopped = True
                log.error("%s: %s; nothing is sent there any more", self.url, why)
                return Later(why)
            case Later():
                return answer

    def _doubt(self, heard_s: float) -> None:
        """Owe again what the server took shortly before it was last heard of."""
        again = self.outbox.suspect(heard_s - self._keep_s)
        if again:
            log.info("%s: connected anew; %d rows of before go out again", self.url, again)

    async def drained(self, timeout_s: float) -> bool:
        """Wait until nothing is owed; ``False`` where that takes too long or cannot be."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + timeout_s
        while self.outbox.waiting():
            if self.stopped or loop.time() > until_s:
                return False
            await asyncio.sleep(LOOK_S / 4)
        return True


DRAIN_S = 60.0
"""The most that leaving waits for a server that takes what it is sent..."""
TROUBLE_S = 5.0
"""...and for one that does not."""


@asynccontextmanager
async def forwarding(forwarder: Forwarder | None) -> AsyncGenerator[None, None]:
    """Send while the block runs, and, unless it failed, what is left for a while after."""
    if forwarder is None:
        yield
        return
    task = asyncio.create_task(forwarder.run(), name="edge.forward")
    try:
        yield
        if not await forwarder.drained(TROUBLE_S) and not forwarder.trouble:
            await forwarder.drained(DRAIN_S)
    finally:
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
