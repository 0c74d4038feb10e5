"""Publishes a factory: as fast as the edge confirms, or paced to a multiple of real time."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator

from config.units import NS_PER_S
from ingest.broker import BrokerAddress
from ingest.publish import Outgoing, Publisher, Stats, publishing
from simulator.factory import Chunk, Factory, Made, ProgressAt

GRACE_S = 10.0
"""How long a stopped run waits for the edge to confirm what was sent."""
SAY_EVERY_S = 1.0
"""Paced, every connection says how far it is this often."""


async def publish(
    factory: Factory,
    address: BrokerAddress,
    *,
    start_ns: int,
    speed: float | None,
    stop: asyncio.Event,
    watch: Callable[[int], None],
) -> Stats:
    """Publish a whole run and wait until the edge has confirmed it.

    ``speed`` is virtual seconds per second, ``None`` as fast as possible; ``stop`` ends the run at
    the virtual time it has reached, in good order; ``watch`` is told that time. Nothing depends
    on pace: the same messages go out, with the same stamps.
    """
    async with publishing(address, factory.site, factory.connections, factory.run) as publisher:
        work = asyncio.create_task(
            _publish(factory, publisher, start_ns, speed, stop, watch), name="simulator.publish"
        )
        told = asyncio.create_task(stop.wait(), name="simulator.stop")
        try:
            await asyncio.wait((work, told), return_when=asyncio.FIRST_COMPLETED)
            # Told to stop, it ends in good order; but not for ever, should nobody confirm.
            await asyncio.wait((work,), timeout=GRACE_S if told.done() else None)
        finally:
            told.cancel()
            work.cancel()
            await asyncio.wait((work,))
        if not work.cancelled():
            work.result()
        return publisher.stats


async def _publish(
    factory: Factory,
    publisher: Publisher,
    start_ns: int,
    speed: float | None,
    stop: asyncio.Event,
    watch: Callable[[int], None],
) -> None:
    teller = _Teller(factory, publisher)
    pace = _Pace(start_ns, speed, stop, teller.tell)
    for chunk in _until(stop, factory):
        for item in chunk.in_order():
            await pace.until(item.arrival_ns)
            if isinstance(item, ProgressAt):
                await teller.say(item)
            else:
                await teller.send(item)
        watch(chunk.end_ns)
        await asyncio.sleep(0)
    await publisher.drained()


class _Teller:
    """Sends, and remembers how far each connection is."""

    def __init__(self, factory: Factory, publisher: Publisher) -> None:
        self._factory = factory
        self._publisher = publisher
        self._next_cseq = dict.fromkeys(factory.connections, 1)
        self._said: dict[str, ProgressAt] = {}

    async def send(self, made: Made) -> None:
        self._next_cseq[made.conn] = made.cseq + 1
        message = Outgoing(made.topic, made.payload, made.cseq, made.retain)
        await self._publisher.send(made.conn, message)

    async def say(self, said: ProgressAt) -> None:
        self._said[said.conn] = said
        # Retained, an end outlives a broker that dies after we have left.
        await self._publisher.say(said.conn, said.topic, said.payload, retain=said.end)

    async def tell(self, now_ns: int) -> None:
        """Say on every connection that what arrived by now was sent; for paced runs."""
        for conn, last in self._said.items():
            if now_ns > last.arrival_ns:
                payload = self._factory.progress_at(last, now_ns, self._next_cseq[conn])
                await self._publisher.say(conn, last.topic, payload)


def _until(stop: asyncio.Event, factory: Factory) -> Iterator[Chunk]:
    """Chunks to the end; once told to stop, the factory ends its run with the next one."""
    for chunk in factory.chunks():
        yield chunk
        if stop.is_set():
            factory.stop()


class _Pace:
    """Holds virtual time to a multiple of the loop's clock, and tells it once a second."""

    def __init__(
        self,
        start_ns: int,
        speed: float | None,
        stop: asyncio.Event,
        tell: Callable[[int], Awaitable[None]],
    ) -> None:
        self._start_ns = start_ns
        self._speed = speed
        self._stop = stop
        self._tell = tell
        self._start_s = asyncio.get_running_loop().time()
        self._told_s = self._start_s

    async def until(self, t_ns: int) -> None:
        """Wait until virtual time is ``t_ns``; not at all once the run was told to stop."""
        if self._speed is None:
            return
        clock = asyncio.get_running_loop().time
        due_s = self._start_s + (t_ns - self._start_ns) / NS_PER_S / self._speed
        while not self._stop.is_set() and (wait_s := due_s - clock()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait_s, self._told_s + SAY_EVERY_S - clock())):
                    await self._stop.wait()
            if clock() - self._told_s >= SAY_EVERY_S:
                self._told_s = clock()
                passed_s = (self._told_s - self._start_s) * self._speed
                # Never beyond the next message: it has not been sent yet.
                await self._tell(min(t_ns - 1, self._start_ns + round(passed_s * NS_PER_S)))
