"""KPI rows over MQTT, for whoever wants to see them: final rows, retained, from a bounded queue.

Theory of operation
===================

    rows of closed windows ─► allowed? ─► waiting, oldest first ─► in flight ─► PUBACK: delivered
                                │            │         ▲               │
                            withheld      dropped      └─ lost the ────┘
                                        (queue full)    connection

The edge never waits for its feed: ``offer`` puts rows into a queue and returns, and a broker that
is away is sought for as long as the block lasts. What was written and not acknowledged when a
connection was lost goes out again, so a row arrives at least once, and nothing is lost but what the
counts of ``Fed`` name. The recording holds every row, delivered or not.

An alarm's row also has what it means under ``alarm``: severity, text, the KPI's value and its
threshold, since when, and whether it stands, which is the last word, whichever row it comes with.

A row whose window turned out never to have been (an order that ended earlier) comes again as
``gone``. A topic's retained message is the row of its latest window. An older window that is
amended later goes out without being retained, or a newcomer would take the past for the present.

The design gives feeds to aiomqtt. This one goes by ``Session``, as telemetry does: it knows whom it
is connected to before it sends anything, it is counted at the same one place, it comes back by
itself, and it needs neither a thread to connect nor a task a message.
"""

import asyncio
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from config.windows import Window, naming
from edge.hops import Hops
from edge.rows import Row
from edge.store import RowStore
from ingest import topics
from ingest.broker import BrokerAddress
from ingest.session import Session, sought

Key = tuple[object, ...]
About = Callable[[Row], Mapping[str, Any]]
"""What a row means beside its numbers; nothing for most."""

WAITING = 200_000
"""The most rows kept while the broker is away or slow; after that the oldest are dropped.

Some 100 MB. A run at full speed gives its feed a turn only between two batches, a few dozen rows
each: it needs room for most of the rows of a day, and delivers them at the end.
"""
IN_FLIGHT = 500
"""Rows written without a PUBACK; the broker may ask for fewer."""
DRAIN_S = 60.0
"""The most that leaving waits for what is still to be delivered..."""
SILENCE_S = 5.0
"""...and for a broker that takes nothing of it."""


@dataclass(slots=True)
class Fed:
    """Where the rows that were offered went; ``waiting`` are still here.

    offered = withheld + delivered + refused + replaced + dropped + waiting
    """

    offered: int = 0
    withheld: int = 0
    """May not leave the campus."""
    delivered: int = 0
    """Taken by the broker."""
    refused: int = 0
    """Refused by the broker, by its access list or a quota."""
    replaced: int = 0
    """Amended while they waited: the next revision went out in their place."""
    dropped: int = 0
    """The oldest of a full queue."""
    waiting: int = 0


class _Waiting(NamedTuple):
    window: str
    row: Row
    offered_ns: int
    """By this machine's own clock, which only measures."""


class Feed:
    """Publishes rows on a session as far as it goes; see ``feeding``."""

    def __init__(
        self,
        session: Session,
        allows: Callable[[Row, str], bool],
        windows: Sequence[Window],
        *,
        about: About = lambda _: {},
        most: int = WAITING,
    ) -> None:
        self._session = session
        self._about = about
        self._names = naming(lambda: windows)
        self._allows = allows
        self._most = most
        self._fed = Fed()
        self._waiting: OrderedDict[Key, _Waiting] = OrderedDict()
        """By window and key of the row."""
        self._flying: deque[_Waiting] = deque()
        self.hops: Hops | None = None
        """Where it is counted how long a row took, from its offer to the broker's word."""
        self._latest_ns: dict[str, int] = {}
        self._moved = asyncio.Event()
        session.on_ready = self._on_ready
        session.on_puback = self._on_puback
        session.on_batch = self._write

    @property
    def fed(self) -> Fed:
        """The counts as they are now."""
        self._fed.waiting = len(self._waiting) + len(self._flying)
        return self._fed

    @property
    def trouble(self) -> str:
        """Why the broker is not connected; empty when it is."""
        return "" if self._session.connected else self._session.trouble or "not connected yet"

    @property
    def address(self) -> BrokerAddress:
        """Where it publishes."""
        return self._session.address

    def offer(self, rows: Iterable[Row], revision: Callable[[Row], int]) -> None:
        """Feed what is allowed of some rows, each with its ``revision``; never waits."""
        for row in rows:
            for window in self._names(row.span):
                self._fed.offered += 1
                if not self._allows(row, window):
                    self._fed.withheld += 1
                    continue
                key = (window, *row.key)
                self._fed.replaced += key in self._waiting
                told = row._replace(revision=revision(row))
                self._waiting[key] = _Waiting(window, told, time.perf_counter_ns())
                if len(self._waiting) > self._most:
                    self._waiting.popitem(last=False)
                    self._fed.dropped += 1
        self._write()

    async def drained(self) -> bool:
        """Wait until all is delivered: at most ``DRAIN_S``, and ``SILENCE_S`` for no answer."""
        try:
            async with asyncio.timeout(DRAIN_S):
                while self._waiting or self._flying:
                    self._moved.clear()
                    async with asyncio.timeout(SILENCE_S):
                        await self._moved.wait()
        except TimeoutError:
            return False
        return True

    def _write(self) -> None:
        most = min(IN_FLIGHT, self._session.receive_maximum)
        while self._waiting and len(self._flying) < most:
            key, item = next(iter(self._waiting.items()))
            row, window = item.row, item.window
            topic = topics.kpi(row.asset, row.kpi, window)
            newest = row.window_start_ns >= self._latest_ns.get(topic, row.window_start_ns)
            if not self._session.publish(
                topic, _payload(row, self._about(row)), qos=1, retain=newest, traffic="summary"
            ):
                return
            if newest:
                self._latest_ns[topic] = row.window_start_ns
            del self._waiting[key]
            self._flying.append(item)

    def _on_puback(self, taken: bool) -> None:
        # A broker acknowledges in the order it was written to (MQTT 4.6), so it is the oldest.
        if self._flying:
            item = self._flying.popleft()
            self._fed.delivered += taken
            if taken and self.hops is not None:
                self.hops.add("feed", time.perf_counter_ns() - item.offered_ns)
            self._fed.refused += not taken
            self._moved.set()

    def _on_ready(self) -> None:
        """Write again, in the old order, what the last connection did not see acknowledged."""
        while self._flying:
            item = self._flying.pop()
            key = (item.window, *item.row.key)
            if key in self._waiting:
                self._fed.replaced += 1
            else:
                self._waiting[key] = item
                self._waiting.move_to_end(key, last=False)
        self._moved.set()
        self._write()


def _payload(row: Row, alarm: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(
        {
            "value": row.value,
            "unit": row.unit,
            "n": row.n,
            "late": row.late,
            "revision": row.revision,
            "window_start_ns": row.window_start_ns,
            "window_length_ns": row.window_length_ns,
            **({"gone": True} if row.gone else {}),
            **({"alarm": alarm} if alarm else {}),
        }
    )


def storing(store: RowStore, feed: Feed | None) -> Callable[[list[Row]], None]:
    """What a pipeline writes its rows by: into the store, and then to the feed where there is one.

    An edge that was started again goes through its journal, and feeds all rows once more: it
    cannot know which of them arrived.
    """
    if feed is None:
        return store.write

    def write(rows: list[Row]) -> None:
        store.write(rows)
        feed.offer(rows, store.revision)

    return write


@asynccontextmanager
async def feeding(
    address: BrokerAddress | None,
    allows: Callable[[Row, str], bool],
    windows: Sequence[Window],
    about: About = lambda _: {},
) -> AsyncGenerator[Feed | None, None]:
    """Feed a broker while the block runs, wherever it is; without an address there is no feed.

    ``windows`` are those in use, by which a topic names the windows of its rows; ``allows`` is
    asked with that name, and ``about`` for what a row means. Entering does not wait for the broker.
    Leaving waits for what is to be delivered, unless the block failed; what does not get through in
    time stays counted as waiting.
    """
    if address is None:
        yield None
        return
    session = Session(address, f"beilun-feed-{secrets.token_hex(4)}", may_leave=True)
    feed = Feed(session, allows, windows, about=about)
    async with sought(session):
        yield feed
        await feed.drained()
