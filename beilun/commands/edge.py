"""``beilun edge``: telemetry from a broker to KPI rows in a recording."""

from pathlib import Path
from typing import Annotated

import typer

from beilun import alarming, campus, console, remote, report, verdict
from beilun.composing import (
    Stop,
    address_of,
    edge_header,
    new_run,
    policy_of,
    run_loop,
    scenario_of,
    versions,
)
from beilun.link_report import without_observers
from config import settings as layers
from config.errors import Exit, RecordingError, UsageError


def command(
    broker: Annotated[str | None, typer.Option(help="mqtt://host:port.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The recording; default in runs/.")
    ] = None,
    once: Annotated[bool, typer.Option(help="End when every connection has ended.")] = False,
    run: Annotated[str, typer.Option(help="The run to listen to; default: the first heard.")] = "",
    scenario: Annotated[str, typer.Option(help="Panes and windows of this scenario.")] = "",
    summaries: Annotated[
        str | None, typer.Option(help="Feed final KPI rows to mqtt://host:port.")
    ] = None,
    store_url: Annotated[
        str | None,
        typer.Option(
            "--store", help="Also write KPI rows to an InfluxDB v2 API, http://host:8086."
        ),
    ] = None,
    mapping: Annotated[
        str, typer.Option("--map", help="Mapping of foreign MQTT JSON, shipped or a file.")
    ] = "",
) -> Exit:
    """Aggregate what a broker delivers until told to stop; an existing recording is continued."""
    import json
    from contextlib import ExitStack

    from config.mapping import find_mapping
    from edge.alarms import Alarms
    from edge.feed import Feed, feeding, storing
    from edge.pipeline import Ending, Pipeline
    from edge.serve import Serving, serve
    from edge.sinks.forward import forwarding
    from edge.stages import Stages, reporting
    from edge.store import RowStore
    from ingest import topics
    from ingest.boundary import guarding, sent, side
    from ingest.broker import BrokerAddress
    from ingest.codecs.mapped import Mapped
    from ingest.decode import Decoder
    from ingest.recording import Recording

    chosen = scenario_of(scenario) if scenario else None
    effective = layers.load(
        chosen, flags={"broker.url": broker, "feed.url": summaries, "store.url": store_url}
    )
    if effective.broker.own_kind is not None:
        raise UsageError(
            "name the broker to listen to",
            hint="--broker mqtt://127.0.0.1:1883; `beilun run` brings its own",
        )
    rules = alarming.rules_of(effective)
    mapped = Mapped(find_mapping(mapping)) if mapping else None
    if output is not None and output.exists():
        _continues(output, run)
    path = output or effective.run.directory / f"edge-{new_run()}.beilun"
    fed_to = BrokerAddress.parse(effective.feed.url) if effective.feed.url else None
    fence = None if chosen is None else chosen.campus
    with (
        guarding(fence) as boundary,
        Recording.create(path) as recording,
        ExitStack() as held,
    ):
        store = RowStore(recording)
        store.prepare()
        forwarder = held.enter_context(
            remote.remote(effective.store, recording, effective.edge.kinds)
        )
        alarms = Alarms(rules, effective.edge.kinds, store)
        poster = held.enter_context(alarming.posting(effective.webhook, recording, alarms))
        decoder = Decoder([mapped] if mapped else [])

        def start(found: str | None, feed: Feed | None) -> Pipeline:
            header = {"edge": edge_header(effective.edge), "versions": json.dumps(versions())}
            if found is not None:
                header["run"] = found
            if mapped is not None:
                header["mapping"] = mapped.source
            recording.set_meta({"source": "live", **header, **alarming.alarms_header(rules)})
            if recording.meta("finished") is not None:
                # An early end closed windows that later messages may move; rows come again anyway.
                store.clear()
            recording.drop_meta("finished", "digest")
            write = storing(store, feed)
            policy = policy_of(effective.edge)
            pipeline = Pipeline(recording, decoder, policy, found, write, alarms)
            if feed is not None:
                feed.hops = pipeline.hops
            pipeline.resume()
            console.note(f"run {found or 'of foreign publishers'}, recording to {path}")
            return pipeline

        serving = Serving()
        stop = Stop()
        known = run or recording.meta("run")

        async def main() -> tuple[Ending | None, Feed | None]:
            stop.listen()
            async with (
                feeding(
                    fed_to, campus.allowance(fence), effective.edge.kinds, alarms.about
                ) as feed,
                reporting(Stages(recording, serving, feed, forwarder, poster)),
                forwarding(forwarder),
                remote.telling(forwarder),
                forwarding(poster),
                remote.telling(poster, "webhook"),
            ):
                await serve(
                    address_of(effective.broker),
                    [*topics.SUBSCRIPTIONS, *(mapped.topics() if mapped else ())],
                    lambda found: start(found, feed),
                    run=known,
                    once=once,
                    stop=stop.event,
                    serving=serving,
                    foreign=mapped is not None and known is None,
                )
                heard = serving.pipeline
                return None if heard is None else heard.conclude(store), feed

        console.note(f"listening to {address_of(effective.broker)}. Ctrl-C stops and reports.")
        ending, feed = run_loop(main())
        pipeline = serving.pipeline
        if pipeline is None or ending is None:
            console.note("nothing was heard")
            return Exit.OK
        report.show_tables(without_observers(report.run_rows(ending.rows, effective.edge.kinds)))
        report.note_silence(pipeline.engine)
        console.out(
            *report.ledger_lines(ending.account), f"digest {ending.digest}", f"wrote {path}"
        )
        console.out(*alarming.lines(ending.rows, rules))
        if feed is not None:
            console.out(*report.feed_lines(feed))
        if forwarder is not None:
            console.out(*remote.lines(forwarder))
        if poster is not None:
            console.out(*remote.lines(poster, "webhook"))
        kept = remote.exit_code(forwarder) or remote.exit_code(poster)
        if boundary is not None and fence is not None:
            recording.set_entries(side("edge"), boundary.entries())
            counts = sent("edge", boundary.entries())
            console.out(*campus.lines(fence, counts))
            kept = verdict.exit_code(campus.judge(fence, counts, ["edge"])) or kept
        if stop.interrupted:
            return Exit.INTERRUPTED
        return kept if ending.account.closes else Exit.FAILED


def _continues(path: Path, run: str) -> None:
    """Refuse a recording that is no broken-off session of this run."""
    from ingest.recording import Recording

    with Recording.open(path) as recording:
        if recording.meta("source") not in (None, "live"):
            why = "is a recording of another kind"
        elif recording.meta("finished") is not None and recording.meta("ended") is not None:
            why = "is finished: every connection of its run has ended"
        elif run and recording.meta("run") not in (None, run):
            why = f"holds run {recording.meta('run')}"
        else:
            return
    raise RecordingError(why, at=str(path), hint="-o names another file")
