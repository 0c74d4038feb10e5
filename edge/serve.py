"""The edge as a service: a broker's messages in, rows and confirms out."""

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from edge.pipeline import Pipeline
from ingest import topics
from ingest.broker import BrokerAddress
from ingest.subscribe import Received, Subscriber, subscribed

log = logging.getLogger(__name__)

T = TypeVar("T")

HELD = 50_000
"""Messages kept while no run is known."""
DRAIN_S = 5.0
CONFIRM_S = 0.1
TICK_S = 1.0


@dataclass(slots=True)
class Serving:
    """What a caller may look at while the edge serves."""

    pipeline: Pipeline | None = None
    inbox: Subscriber | None = None


async def first_run(inbox: Subscriber) -> tuple[str, list[Received]]:
    """The run that is on the air, by the first message that names one and is not a retained one of
    the past. What came before is handed back, the last ``HELD`` messages of it; a simulated run
    sends again what is missing.
    """
    held: list[Received] = []
    while True:
        received = await inbox.messages()
        held += received
        for message in received:
            if not message.retained and (run := run_of(message.payload)) is not None:
                return run, held
        del held[:-HELD]


class _Stamped(msgspec.Struct):
    run: str


class _Named(msgspec.Struct):
    run: str | None = None
    x_beilun: _Stamped | None = None


def run_of(payload: bytes) -> str | None:
    """The run a payload names, in its stamps or as a progress; ``None`` for none."""
    try:
        said = msgspec.json.decode(payload, type=_Named)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
    return said.run if said.x_beilun is None else said.x_beilun.run


async def serve(
    address: BrokerAddress,
    subscriptions: Sequence[str],
    start: Callable[[str | None], Pipeline],
    *,
    run: str | None,
    once: bool,
    stop: asyncio.Event,
    serving: Serving,
    foreign: bool = False,
) -> None:
    """Fold what the broker delivers until ``stop``, or with ``once`` until every connection ended.

    ``start`` makes the pipeline as soon as the run is known; without ``run`` it is the first one
    heard, or none at all where publishers are ``foreign``. Messages are acknowledged once they are
    journalled, and confirmed to simulated publishers, by connection, about every 100 ms. Leaving
    drains: what was received is folded and confirmed.
    """
    session = secrets.token_hex(4)
    topic_list = [*subscriptions, topics.probe(session)]
    async with subscribed(address, topic_list, client_id=f"beilun-edge-{session}") as inbox:
        serving.inbox = inbox
        pending: list[Received] = []
        if run is None and not foreign:
            found = await _unless(stop, first_run(inbox))
            if found is None:
                return
            run, pending = found
        pipeline = serving.pipeline = start(run)
        edge = _Edge(inbox, pipeline, run, session)
        edge.take(pending)
        async with asyncio.TaskGroup() as group:
            confirming = group.create_task(edge.confirm(), name="edge.confirm")
            try:
                while not stop.is_set() and not (once and pipeline.complete):
                    received = await _unless(stop, inbox.messages())
                    edge.take(received or [])
                    await asyncio.sleep(0)  # confirms go out between two full batches
            finally:
                confirming.cancel()
        # What was received is folded, as far as that ends: foreign publishers never stop.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while rest := await edge.rest():
                    edge.take(rest)
                    await asyncio.sleep(0)
        await edge.say()


class _Edge:
    def __init__(
        self, inbox: Subscriber, pipeline: Pipeline, run: str | None, session: str
    ) -> None:
        self._inbox = inbox
        self._pipeline = pipeline
        self._run = run
        self._session = session

    def take(self, received: list[Received]) -> None:
        if not received:
            return
        hops, now_ns = self._pipeline.hops, time.time_ns()
        hops.add("wait", now_ns - received[0].received_ns)
        probe = topics.probe(self._session)
        telemetry = [message for message in received if message.topic != probe]
        if len(telemetry) < len(received):
            for message in received:
                if message.topic == probe and message.payload.isdigit():
                    hops.add("mqtt", message.received_ns - int(message.payload))
        if telemetry:
            self._pipeline.take(telemetry)
        self._inbox.ack(message.token for message in received)

    async def rest(self) -> list[Received]:
        return await self._inbox.messages() if len(self._inbox) else []

    async def confirm(self) -> None:
        """Confirm what is committed; once a second time the broker, and tick the clock where no
        connection reports progress."""
        ticked_s = time.monotonic()
        while True:
            await asyncio.sleep(CONFIRM_S)
            await self.say()
            if time.monotonic() - ticked_s >= TICK_S:
                ticked_s = time.monotonic()
                now = str(time.time_ns()).encode()
                await self._inbox.publish(topics.probe(self._session), now)
                if self._run is None:
                    self._pipeline.tick(time.time_ns())

    async def say(self) -> None:
        for conn, cseq in self._pipeline.seen.all().items():
            site, name = conn.split("/", 1)
            said = {"run": self._run, "edge": self._session, "cseq": cseq}
            await self._inbox.publish(topics.confirm(site, name), json.dumps(said).encode())


async def _unless(stop: asyncio.Event, wanted: Coroutine[object, object, T]) -> T | None:
    """What ``wanted`` gives, or ``None`` where ``stop`` was set first."""
    task = asyncio.ensure_future(wanted)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for one in (task, stopping):
            one.cancel()
