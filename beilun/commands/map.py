"""Drafts mappings from somebody's MQTT traffic, and shows what a mapping makes of a message."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from beilun import console
from beilun.composing import address_of
from config import settings as layers
from config.errors import BeilunError, ConfigError, Exit, UnreachableError, UsageError
from config.mapping import find_mapping
from config.units import NS_PER_S, format_duration, format_time, parse_duration

if TYPE_CHECKING:
    from ingest.broker import BrokerAddress
    from ingest.suggest import Survey

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command()
def suggest(
    broker: Annotated[str | None, typer.Option(help="mqtt://[user:password@]host[:port].")] = None,
    topic: Annotated[str, typer.Option(help="What to listen to.")] = "#",
    for_: Annotated[str, typer.Option("--for", help="How long, like 60s.")] = "60s",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File; more kinds of topic: FILE-2, ...")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> Exit:
    """Listen for a while and draft a mapping for each kind of topic."""
    import asyncio

    from ingest.suggest import Survey

    try:
        length_ns = parse_duration(for_)
    except ValueError as error:
        raise UsageError(f"--for: {error}") from None
    settings = layers.load(flags={"broker.url": broker}).broker
    if settings.url == "auto":
        raise UsageError("name the broker to listen to", hint="--broker mqtt://127.0.0.1:1883")
    where = address_of(settings)
    survey = Survey()
    console.note(
        f"listening to {topic} on {where} for {format_duration(length_ns)}; Ctrl-C drafts now"
    )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_listen(survey, where, topic, length_ns / NS_PER_S))
    seen = survey.messages
    drafts = survey.drafts()
    console.note(f"{seen} messages, {len(drafts)} kind{'s' * (len(drafts) != 1)} of topic to map")
    for why, n in survey.unread.most_common():
        console.note(f"{n:>8}  {why}")
    if not drafts:
        raise BeilunError(
            "nothing to map was heard", at=f"{topic} on {where}",
            hint="listen longer (--for 5m), or to another --topic",
        )  # fmt: skip
    if output is None:
        console.out(*drafts)
        return Exit.OK
    files = [output] + [
        output.with_stem(f"{output.stem}-{number}") for number in range(2, len(drafts) + 1)
    ]
    if not force and (there := [str(file) for file in files if file.exists()]):
        raise UsageError("is there already", at=", ".join(there), hint="--force replaces it")
    for file, draft in zip(files, drafts, strict=True):
        file.write_text(draft, encoding="utf-8")
        console.note(f"wrote {file}")
    return Exit.OK


async def _listen(survey: "Survey", broker: "BrokerAddress", topic: str, length_s: float) -> None:
    import asyncio
    import time

    import aiomqtt

    try:
        async with (
            asyncio.timeout(length_s + 10),
            aiomqtt.Client(
                broker.host,
                broker.port,
                username=broker.username,
                password=broker.password,
                timeout=10,
            ) as client,
        ):
            await client.subscribe(topic)
            with console.progress(length_s, "s") as bar:
                began_s = time.monotonic()
                try:
                    async with asyncio.timeout(length_s):
                        async for message in client.messages:
                            survey.add(message.topic.value, message.payload, time.time_ns())
                            told = f"{survey.messages} messages"
                            bar.update(time.monotonic() - began_s, told)
                except TimeoutError:
                    pass
    except (aiomqtt.MqttError, OSError, TimeoutError) as error:
        raise UnreachableError(
            str(error) or "no answer", at=str(broker),
            hint="is the broker running there, and may this user subscribe?",
        ) from None  # fmt: skip


@app.command()
def check(
    mapping: Annotated[str, typer.Argument(help="Mapping file, or the name of a shipped one.")],
    topic: Annotated[str | None, typer.Option(help="Topic of a message.")] = None,
    payload: Annotated[
        Path | None, typer.Option(help="File with its payload; - is standard input.")
    ] = None,
) -> Exit:
    """Validate a mapping; with a topic and payload, show what that message becomes."""
    made = find_mapping(mapping)
    if (topic is None) != (payload is None):
        raise UsageError("--topic and --payload go together")
    if topic is None or payload is None:
        console.table(
            ("channel", "column", "pointer", "as", "unit", "role"),
            [(c.name, c.column, c.pointer, c.as_, c.unit, c.role) for c in made.channel],
            f"{made.name}: {'/'.join(made.asset.levels())}, a {made.asset.kind}",
        )
        return Exit.OK
    if made.live is None:
        raise ConfigError("has no [live]: it reads tables only", at=mapping)
    import time

    from ingest.codecs.mapped import Mapped
    from ingest.decode import Decoder
    from ingest.messages import Batch, Reject

    try:
        data = sys.stdin.buffer.read() if str(payload) == "-" else payload.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", at=str(payload)) from None
    codec = Mapped(made)
    if not codec.claims(topic):
        raise BeilunError(f"{topic} is no topic of the mapping", at=made.live.topic)
    found = Decoder([codec]).receive(topic, data, time.time_ns())
    if isinstance(found, Reject):
        raise BeilunError(f"{found.reason}: {found.detail}", at=f"{topic} with {payload}")
    batch = next(r.message for r in found if isinstance(r.message, Batch))
    console.table(
        ("time", *batch.channels),
        [
            (format_time(t_ns), *values)
            for t_ns, *values in zip(
                batch.t_ns.tolist(), *(c.tolist() for c in batch.channels.values()), strict=True
            )
        ],
        f"{batch.asset}, a {made.asset.kind}",
    )
    return Exit.OK
