"""The remote store of a run: what must hold before anything is sent, and what became of it."""

import time
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager

from config.campus import Campus
from config.errors import ConfigError, Exit
from config.settings import Store
from config.units import NS_PER_S, format_duration, format_time
from config.windows import Window
from edge.sinks.forward import Forwarder
from edge.sinks.influx import Server
from edge.sinks.lines import AHEAD_NS
from edge.sinks.outbox import Outbox
from ingest.recording import Recording


def server_of(settings: Store) -> Server:
    """The server of the settings."""
    return Server(
        settings.url, bucket=settings.bucket, org=settings.org, token=settings.secret(),
        timeout_ns=settings.timeout,
    )  # fmt: skip


@contextmanager
def remote(
    settings: Store, recording: Recording, windows: Sequence[Window], campus: Campus | None
) -> Generator[Forwarder | None, None, None]:
    """What sends the rows of a recording that change in the block; ``None`` without a store."""
    if not settings.url:
        yield None
        return
    if campus is not None:
        raise ConfigError(
            "a scenario with [campus] counts every byte, and those to a store are not counted",
            at=f"store.url {settings.url}",
            hint="leave the store out, or feed summaries with --summaries",
        )
    outbox = Outbox(recording, windows, most=settings.backlog)
    outbox.prepare()
    with closing(server_of(settings)) as server:
        yield Forwarder(outbox, server, keep_s=settings.keep / NS_PER_S)


def refuse_future(end_ns: int, url: str) -> None:
    """Raise where rows would lie in the future of this machine: servers drop those in silence."""
    if url and end_ns > time.time_ns() + AHEAD_NS:
        raise ConfigError(
            f"the run ends at {format_time(end_ns)}, and a store drops what lies in the future",
            at=f"store.url {url}",
            hint="give the scenario a start in the past",
        )


def lines(forwarder: Forwarder) -> list[str]:
    """Where the rows that were owed to the store went, and why some are still here."""
    counts = forwarder.outbox.counts()
    rest = {"amended while they waited": counts.replaced, "dead letters": counts.dead,
            "dropped": counts.dropped, "waiting": counts.waiting}  # fmt: skip
    more = "".join(f" + {why} {n:,}" for why, n in rest.items() if n)
    again = f"; {counts.resent:,} sent once more" if counts.resent else ""
    told = [
        f"Store {forwarder.url}",
        f"rows {counts.queued:,} = accepted {counts.accepted:,}{more}{again}",
    ]
    if counts.oldest_s is not None and counts.waiting + counts.again:
        age = format_duration(round(max(0.0, time.time() - counts.oldest_s)) * NS_PER_S)
        why = forwarder.trouble or "it takes them too slowly"
        told.append(f"{why}; the oldest waits for {age}; `beilun store send FILE` sends them later")
    return told


def exit_code(forwarder: Forwarder | None) -> Exit:
    """Whether everything owed was accepted."""
    if forwarder is None:
        return Exit.OK
    counts = forwarder.outbox.counts()
    if counts.waiting or counts.again:
        return Exit.UNREACHABLE
    return Exit.FAILED if counts.dead or counts.dropped else Exit.OK
