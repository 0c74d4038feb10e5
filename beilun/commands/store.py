"""``beilun store``: what a remote store does with rows, and sending it what it is still owed."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from beilun import console, remote
from config import settings as layers
from config.errors import Exit, UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None)
Url = Annotated[str | None, typer.Argument(help="http://host:8086; default: store.url.")]


@app.command()
def check(
    url: Url = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> Exit:
    """Try out what a store does with our rows: accept, overwrite, refuse, drop in silence."""
    from edge.sinks.trial import try_out

    effective = layers.load(flags={"store.url": url})
    if not effective.store.url:
        raise UsageError("name the store", hint="beilun store check http://127.0.0.1:8086")
    with closing(remote.server_of(effective.store)) as server:
        found = try_out(server, effective.store)
    if as_json:
        console.ndjson(each._asdict() for each in found)
    else:
        console.table(
            ("", "trial", "found"), [(each.mark, each.trial, each.found) for each in found]
        )
    return Exit.FAILED if any(each.mark == "✗" for each in found) else Exit.OK


@app.command()
def send(
    file: Annotated[Path, typer.Argument(help="A recording that nobody writes to now.")],
    store: Annotated[str | None, typer.Option(help="http://host:8086.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every row, also those that were accepted before.")
    ] = False,
) -> Exit:
    """Send the rows that a store was not told, or all of them."""
    from beilun.composing import recorded_campus, recorded_policy
    from edge.store import RowStore
    from ingest.boundary import guarding
    from ingest.recording import Recording

    effective = layers.load(flags={"store.url": store})
    if not effective.store.url:
        raise UsageError("name the store", hint=f"beilun store send {file} --store http://…:8086")
    with Recording.open(file) as readable:
        windows, within = recorded_policy(readable).windows, recorded_campus(readable)
    with guarding(within), Recording.create(file) as recording:
        RowStore(recording).prepare()
        with remote.remote(effective.store, recording, windows) as forwarder:
            assert forwarder is not None
            return remote.send(forwarder, everything=everything)
