"""Publishes a factory: as fast as the edge confirms, or paced to a multiple of real time."""

import asyncio
from collections.abc import Callable, Iterator

from config.units import NS_PER_S
from ingest.broker import BrokerAddress
from ingest.publish import Outgoing, Publisher, Stats, publishing
from simulator.factory import Chunk, Factory, Made, ProgressAt


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
        pace = _Pace(start_ns, speed, stop)
        for made in factory.births():
            await _send(publisher, made)
        for chunk in _until(stop, factory):
            for item in chunk.in_order():
                await pace.until(item.arrival_ns)
                if isinstance(item, ProgressAt):
                    # Retained, an end outlives a broker that dies after we have left.
                    await publisher.say(item.conn, item.topic, item.payload, retain=item.end)
                else:
                    await _send(publisher, item)
            watch(chunk.end_ns)
            await asyncio.sleep(0)
        await publisher.drained()
        return publisher.stats


def _until(stop: asyncio.Event, factory: Factory) -> Iterator[Chunk]:
    """Chunks to the end; once told to stop, the factory ends its run with the next one."""
    for chunk in factory.chunks():
        yield chunk
        if stop.is_set():
            factory.stop()


async def _send(publisher: Publisher, made: Made) -> None:
    await publisher.send(made.conn, Outgoing(made.topic, made.payload, made.cseq, made.retain))


class _Pace:
    """Holds virtual time to a multiple of the loop's clock."""

    def __init__(self, start_ns: int, speed: float | None, stop: asyncio.Event) -> None:
        self._start_ns = start_ns
        self._speed = speed
        self._stop = stop
        self._start_s = asyncio.get_running_loop().time()

    async def until(self, t_ns: int) -> None:
        """Wait until virtual time is ``t_ns``; not at all once the run was told to stop."""
        if self._speed is None or self._stop.is_set():
            return
        due_s = self._start_s + (t_ns - self._start_ns) / NS_PER_S / self._speed
        wait_s = due_s - asyncio.get_running_loop().time()
        if wait_s > 0:
            try:
                async with asyncio.timeout(wait_s):
                    await self._stop.wait()
            except TimeoutError:
                pass
