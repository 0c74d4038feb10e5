"""``beilun serve``: the operators' page and the API of a recording, and tokens to sign in with."""

import contextlib
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from beilun import console
from beilun.commands.watch import newest
from config import settings as layers
from config.errors import Exit, UsageError

EXTRA = ("nicegui", "fastapi", "uvicorn", "prometheus_client")


def require_extra() -> None:
    """Raise where what the page is made with is not installed."""
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the page needs {', '.join(missing)}",
            hint="install the extra `ui`: pip install 'beilun[ui]', or pipx inject beilun nicegui"
            " prometheus-client",
        )


def command(
    file: Annotated[
        Path | None, typer.Argument(help="A recording.", show_default="newest in runs/")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: any free one.")] = None,
    tokens_file: Annotated[
        Path | None, typer.Option(help="Who may sign in; see `beilun serve token`.")
    ] = None,
    acks: Annotated[
        Path | None,
        typer.Option(help="Folder (or file) for acknowledged alarms; default: by the recording."),
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="A second recording, to compare with.")
    ] = None,
    api_only: Annotated[bool, typer.Option("--api-only", help="No page.")] = False,
    parent: Annotated[int, typer.Option(hidden=True)] = 0,
) -> Exit:
    """Serve the operators' page and the API of a recording, also while it is written; Ctrl-C ends.

    Nothing is ever written to the recording. Without FILE the page says when a newer run begins.
    """
    require_extra()
    flags = {
        "serve.host": host, "serve.port": port, "serve.tokens_file": tokens_file,
        "serve.acks": acks,
    }  # fmt: skip
    settings = layers.load(flags=flags)
    effective = settings.serve
    path = newest() if file is None else file
    if parent:
        from ingest.broker import die_with_parent

        die_with_parent(parent)
    from beilun.serving import server
    from beilun.serving.library import Library
    from beilun.serving.reading import Reader

    access = server.access_of(effective.host, effective.tokens_file)
    tls = server.tls_of(effective.certificate, effective.key)
    with contextlib.ExitStack() as held:
        reader = held.enter_context(contextlib.closing(Reader(path)))
        other = None if compare is None else held.enter_context(contextlib.closing(Reader(compare)))
        library = Library(
            reader, settings.run.directory, follows=file is None, acks=effective.acks,
            compare=other,
        )  # fmt: skip
        own = held.enter_context(server.bound(effective.host, effective.port))
        url = server.url_of(own, effective.host, tls=tls is not None)

        def ready() -> None:
            console.out(url)
            who = "everybody on this host" if access.open else "whoever has a token"
            console.note(f"{path} for {who}; Ctrl-C ends")
            if server.is_in_the_clear(effective.host, tls):
                console.note("tokens travel in the clear: set serve.certificate and serve.key")

        server.run(
            library, own, access, page=not api_only, proxies=effective.proxies, tls=tls,
            ready=ready,
        )  # fmt: skip
    return Exit.OK


def token(
    name: Annotated[str, typer.Argument(help="Who gets it: letters, digits, dash, underscore.")],
    role: Annotated[
        Literal["operator", "viewer", "customer"], typer.Option(help="What it is good for.")
    ] = "viewer",
    asset: Annotated[
        list[str] | None, typer.Option(help="Of a customer: glob over assets, like cl01.")
    ] = None,
    order: Annotated[
        list[str] | None, typer.Option(help="Of a customer: glob over order numbers, like 31*.")
    ] = None,
    tokens_file: Annotated[
        Path | None, typer.Option(help="The file it is added to; default serve.tokens_file.")
    ] = None,
) -> Exit:
    """Make a token to sign in with. It is shown once; the file keeps a salted hash of it."""
    from beilun.serving.access import make_token

    path = layers.load(flags={"serve.tokens_file": tokens_file}).serve.tokens_file
    if path is None:
        raise UsageError(
            "which file is it to be added to?",
            hint="--tokens-file tokens.toml, or serve.tokens_file in beilun.toml",
        )
    made = make_token(path, name, role, asset or (), order or ())
    console.out(made)
    console.note(f"added to {path}; it is not shown again; a running server takes it at once")
    return Exit.OK
