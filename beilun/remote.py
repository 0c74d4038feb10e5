"""The remote store of a run: what must hold before anything is sent, and what became of it; the
latter of its webhook too."""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Literal

from beilun import console
from config.errors import ConfigError, Exit
from config.settings import Store
from config.units import NS_PER_S, format_duration, format_time
from config.windows import Window
from edge.sinks.forward import Forwarder, forwarding
from edge.sinks.influx import Server
from edge.sinks.lines import AHEAD_NS
from edge.sinks.outbox import Outbox
from ingest.recording import Recording

TOLD_S = 10.0
"""How often a service without a progress line tells what waits for its store."""

Sink = Literal["store", "webhook"]
_CARRIES: dict[Sink, str] = {"store": "rows", "webhook": "alarms"}
_LATER: dict[Sink, str] = {"store": "store send", "webhook": "alarms send"}
"""The commands that send what a run could not."""


def server_of(settings: Store) -> Server:
    """The server of the settings."""
    return Server(
        settings.url, bucket=settings.bucket, org=settings.org, token=settings.secret(),
        timeout_ns=settings.timeout,
    )  # fmt: skip


@contextmanager
def remote(
    settings: Store, recording: Recording, windows: Sequence[Window]
) -> Generator[Forwarder | None, None, None]:
    """What sends the rows of a recording that change in the block; ``None`` without a store."""
    if not settings.url:
        yield None
        return
    with closing(server_of(settings)) as server:
        outbox = Outbox(recording, windows, most=settings.backlog)
        outbox.prepare()
        yield Forwarder(outbox, server, keep_s=settings.keep / NS_PER_S)


def refuse_future(end_ns: int, url: str) -> None:
    """Raise where rows would lie in the future of this machine: servers drop those in silence."""
    if url and end_ns > time.time_ns() + AHEAD_NS:
        raise ConfigError(
            f"the run ends at {format_time(end_ns)}, and a store drops what lies in the future",
            at=f"store.url {url}",
            hint="give the scenario a start in the past",
        )


def send(forwarder: Forwarder, sink: Sink = "store", *, everything: bool) -> Exit:
    """Send what is owed until nothing is or it goes no further, and say what became of it. All that
    is stored is owed where ``everything`` is wanted, or nothing was ever owed to this sink."""
    if everything or forwarder.outbox.new:
        forwarder.outbox.owe_all()

    async def main() -> None:
        async with forwarding(forwarder):
            pass

    asyncio.run(main())
    console.out(*lines(forwarder, sink))
    return exit_code(forwarder)


def lines(forwarder: Forwarder, sink: Sink = "store") -> list[str]:
    """Where the rows that were owed to a sink went, and why some are still here."""
    counts = forwarder.outbox.counts()
    rest = {"amended while they waited": counts.replaced, "dead letters": counts.dead,
            "dropped": counts.dropped, "waiting": counts.waiting}  # fmt: skip
    more = "".join(f" + {why} {n:,}" for why, n in rest.items() if n)
    again = f"; {counts.resent:,} sent once more" if counts.resent else ""
    told = [
        f"{sink.capitalize()} {forwarder.url}",
        f"rows {counts.queued:,} = accepted {counts.accepted:,}{more}{again}",
    ]
    if counts.oldest_s is not None and counts.waiting + counts.again:
        age = _age(counts.oldest_s)
        why = forwarder.trouble or "it takes them too slowly"
        later = _LATER[sink]
        told.append(f"{why}; the oldest waits for {age}; `beilun {later} FILE` sends them later")
    return told


class Backlog:
    """What waits for a store and a webhook and for how long, as an end of a line of progress; empty
    without either. May be asked often: it counts at most once a second, and less often where much
    waits."""

    def __init__(self, store: Forwarder | None, webhook: Forwarder | None = None) -> None:
        named: dict[Sink, Forwarder | None] = {"store": store, "webhook": webhook}
        self._sinks: dict[Sink, Forwarder] = {
            name: each for name, each in named.items() if each is not None
        }
        self._said = ""
        self._due_s = 0.0

    def __str__(self) -> str:
        began_s = time.monotonic()
        if self._sinks and began_s >= self._due_s:
            told = (f"  {name}: {waiting(each, name)}" for name, each in self._sinks.items())
            self._said = "".join(told)
            took_s = time.monotonic() - began_s
            self._due_s = began_s + max(1.0, 50 * took_s)
        return self._said


def waiting(forwarder: Forwarder, sink: Sink = "store") -> str:
    """What waits for a sink and for how long, in a few words."""
    counts = forwarder.outbox.counts()
    owed = counts.waiting + counts.again
    if not owed or counts.oldest_s is None:
        return "nothing waits"
    why = f" ({forwarder.trouble})" if forwarder.trouble else ""
    return f"{owed:,} {_CARRIES[sink]} wait, the oldest for {_age(counts.oldest_s)}{why}"


def _age(since_s: float) -> str:
    return format_duration(round(max(0.0, time.time() - since_s)) * NS_PER_S)


@asynccontextmanager
async def telling(forwarder: Forwarder | None, sink: Sink = "store") -> AsyncGenerator[None, None]:
    """Say every ten seconds what waits for a sink, as long as something does, and once that it
    does no more."""
    if forwarder is None:
        yield
        return

    async def tell() -> None:
        before = 0
        while True:
            await asyncio.sleep(TOLD_S)
            owed = forwarder.outbox.waiting()
            if owed or before:
                console.note(f"{sink}: {waiting(forwarder, sink)}")
            before = owed

    task = asyncio.create_task(tell(), name="edge.backlog")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait((task,))


def exit_code(forwarder: Forwarder | None) -> Exit:
    """Whether everything owed was accepted."""
    if forwarder is None:
        return Exit.OK
    counts = forwarder.outbox.counts()
    if counts.waiting or counts.again:
        return Exit.UNREACHABLE
    return Exit.FAILED if counts.dead or counts.dropped else Exit.OK
