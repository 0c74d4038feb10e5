"""``beilun run``: a whole factory and its edge over real MQTT, and the verdict."""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from beilun import alarming, campus, console, remote, report, verdict
from beilun.child_page import showing
from beilun.composing import (
    Stop,
    address_of,
    edge_header,
    failure_of,
    fresh,
    new_run,
    policy_of,
    run_loop,
    scenario_header,
    scenario_of,
    settle,
)
from beilun.link_report import link_lines, without_observers
from beilun.rehearsal import rehearse
from beilun.upsets import upset
from config import settings as layers
from config.errors import BeilunError, Exit, UnreachableError
from config.scenario import Scenario
from config.settings import Settings
from config.units import NS_PER_S, format_duration
from edge.alarms import Alarms
from edge.feed import Feed, feeding, storing
from edge.pipeline import Ending, Pipeline
from edge.policy import Policy
from edge.rows import Row
from edge.serve import Serving, serve
from edge.sinks.forward import forwarding
from edge.stages import Stages, reporting
from edge.store import RowStore
from ingest import topics
from ingest.boundary import guarding, side
from ingest.broker import Broker, BrokerAddress, running_broker
from ingest.decode import Decoder
from ingest.recording import Recording

GRACE_S = 20.0
"""How long a stopped factory may take to end in good order."""
HALVES = ("simulator", "edge")
"""Who sends anything in a run, each from a process of its own."""


def command(
    scenario: Annotated[str, typer.Argument(help="A shipped scenario, or a file.")] = "quickstart",
    broker: Annotated[
        str | None,
        typer.Option(help="auto (own mosquitto, else embedded), embedded, mosquitto, or mqtt://…"),
    ] = None,
    speed: Annotated[str | None, typer.Option(help="Times real time, or max.")] = None,
    length: Annotated[str | None, typer.Option("--for", help="Virtual time, like 10m.")] = None,
    seed: Annotated[int | None, typer.Option(help="Start of every random stream.")] = None,
    network: Annotated[str | None, typer.Option(help="Profile of the radio.")] = None,
    summaries: Annotated[
        str | None, typer.Option(help="Feed final KPI rows to mqtt://host:port.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(help="Also write KPI rows to an InfluxDB v2 API, http://host:8086."),
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Keep every message's way over the link, for `explain`.")
    ] = False,
    page: Annotated[
        bool, typer.Option("--serve", help="Show the operators' page meanwhile, and afterwards.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The recording; default in runs/.")
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace the recording named by -o.")] = False,
    junit: Annotated[Path | None, typer.Option(help="Write the verdict as JUnit XML.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Rows of the run as NDJSON.")] = False,
) -> Exit:
    """Run a scenario from machine to KPI, record it, and say whether it met its expectations."""
    chosen = scenario_of(scenario, seed=seed, length=length, network=network)
    effective = layers.load(
        chosen,
        flags={
            "broker.url": broker, "run.speed": speed, "feed.url": summaries, "store.url": store
        },
    )  # fmt: skip
    rules = alarming.rules_of(effective)
    remote.refuse_future(chosen.start + chosen.length, effective.store.url)
    run = new_run()
    path = fresh(output or effective.run.directory / f"{chosen.name}-{run}.beilun", force=force)
    console.note(
        f"{chosen.name}: {chosen.summary} Seed {chosen.seed},"
        f" {format_duration(chosen.length)} virtual over {chosen.network}."
        " Ctrl-C stops and reports."
    )
    for note in rehearse(chosen):  # problems are told before anything is started
        console.note(note)
    fed_to = BrokerAddress.parse(effective.feed.url) if effective.feed.url else None
    with (
        guarding(chosen.campus) as boundary,
        _broker(effective) as (address, own),
        _recording(path) as recording,
        contextlib.ExitStack() as held,
    ):
        recording.set_meta({**scenario_header(chosen, run), "edge": edge_header(effective.edge)})
        recording.set_meta(alarming.alarms_header(rules))
        shown = held.enter_context(showing(path)) if page else None
        policy = policy_of(effective.edge)
        rows_here = RowStore(recording)
        rows_here.prepare()
        alarms = Alarms(rules, policy.windows, rows_here)
        flags = {"--seed": seed, "--for": length, "--network": network}
        told = [scenario, "--speed", str(effective.run.speed)]
        told += [
            str(w) for flag, given in flags.items() if given is not None for w in (flag, given)
        ]

        if trace:
            told.append("--trace")

        forwarder = held.enter_context(
            remote.remote(effective.store, recording, effective.edge.kinds)
        )
        poster = held.enter_context(alarming.posting(effective.webhook, recording, alarms))

        waits = remote.Backlog(forwarder, poster)

        async def main() -> tuple[Pipeline, Ending, Feed | None, Exit | None]:
            async with feeding(
                fed_to, campus.allowance(chosen.campus), effective.edge.kinds, alarms.about
            ) as feed:
                write = storing(rows_here, feed)
                pipeline = Pipeline(recording, Decoder(), policy, run, write, alarms)
                if feed is not None:
                    feed.hops = pipeline.hops
                serving = Serving(pipeline)
                async with (
                    reporting(Stages(recording, serving, feed, forwarder, poster)),
                    forwarding(forwarder),
                    forwarding(poster),
                ):
                    stopped = await _live(
                        chosen, told, run, address, own, effective, pipeline, recording, waits,
                        serving,
                    )  # fmt: skip
                    return pipeline, pipeline.conclude(rows_here), feed, stopped

        pipeline, ending, feed, stopped = run_loop(main())
        verdicts = verdict.judge(
            chosen.expect, ending.rows, policy.windows, ran_ns=pipeline.engine.covered_ns
        )
        crossed: list[str] = []
        if boundary is not None and chosen.campus is not None:
            recording.set_entries(side("edge"), boundary.entries())
            counts = campus.recorded(recording, HALVES)
            verdicts += campus.judge(chosen.campus, counts, HALVES)
            crossed = campus.lines(chosen.campus, counts)
        if feed is not None:
            crossed = [*report.feed_lines(feed), *([""] if crossed else []), *crossed]
        if forwarder is not None:
            crossed = [*remote.lines(forwarder), *([""] if crossed else []), *crossed]
        if poster is not None:
            told = remote.lines(poster, "webhook")
            crossed = [*told, *([""] if crossed else []), *crossed]
        if raised := alarming.lines(ending.rows, rules):
            crossed = [*raised, *([""] if crossed else []), *crossed]
        last = report.run_rows(ending.rows, policy.windows)
        if as_json:
            labels = report.Labels(policy.windows)
            console.ndjson(report.as_json(row, labels) for row in last)
        else:
            _tell(chosen, last, pipeline, policy, crossed, verdicts, ending, path)
        if junit is not None:
            verdict.write(junit, verdict.junit(chosen.name, verdicts))
        if stopped is not None:
            return stopped
        if shown is not None:
            shown.stay()
        whole_ns = chosen.length // policy.pane_ns * policy.pane_ns
        if pipeline.engine.covered_ns < whole_ns:
            ran, meant = format_duration(pipeline.engine.covered_ns), format_duration(whole_ns)
            console.error(f"error: the simulating half ended after {ran} of {meant}")
            return Exit.FAILED
        judged = verdict.exit_code(verdicts) if ending.account.closes else Exit.FAILED
        return judged or remote.exit_code(forwarder) or remote.exit_code(poster)


def _tell(
    scenario: Scenario,
    rows: list[Row],
    pipeline: Pipeline,
    policy: Policy,
    crossed: list[str],
    verdicts: list[verdict.Verdict],
    ending: Ending,
    path: Path,
) -> None:
    report.show_tables(without_observers(rows))
    console.out("Ledger", *report.ledger_lines(ending.account), "")
    if modelled := link_lines(rows, policy):
        console.out(*modelled, "")
    console.out("Real path of this machine, beside the modelled link")
    console.out(*report.path_lines(pipeline.hops), "")
    if crossed:
        console.out(*crossed, "")
    if verdicts:
        console.out("Expectations", *verdict.lines(verdicts), "")
    samples, size = pipeline.engine.samples, pipeline.recording.size_bytes
    console.out(
        f"{pipeline.messages:,} messages with {samples:,} samples",
        f"wrote {path} ({size:,} bytes); replay it with `beilun replay {path}`",
        f"seed {scenario.seed}  digest {ending.digest}",
    )


@contextlib.contextmanager
def _recording(path: Path) -> Generator[Recording, None, None]:
    """A recording that is not left behind where nobody was there to send anything."""
    with Recording.create(path) as recording:
        try:
            yield recording
        except BeilunError:
            begun = recording.db.execute("SELECT 1 FROM block LIMIT 1").fetchone() is not None
            recording.close()
            settle(path, good=begun)
            raise
    settle(path, good=True)


@contextlib.contextmanager
def _broker(effective: Settings) -> Generator[tuple[BrokerAddress, Broker | None], None, None]:
    """The broker of the settings, or one of our own for as long as the run lasts."""
    kind = effective.broker.own_kind
    if kind is None:
        yield address_of(effective.broker), None
        return
    with (
        tempfile.TemporaryDirectory(prefix="beilun-") as folder,
        running_broker(kind, Path(folder)) as broker,
    ):
        console.note(f"broker: {broker.kind} at {broker.address}, for this run")
        yield broker.address, broker


async def _live(
    scenario: Scenario,
    told: Sequence[str],
    run: str,
    address: BrokerAddress,
    broker: Broker | None,
    effective: Settings,
    pipeline: Pipeline,
    recording: Recording,
    waits: remote.Backlog,
    serving: Serving,
) -> Exit | None:
    """Both halves until every message is folded; an exit code where it was broken off."""
    stop, done = Stop(), asyncio.Event()
    stop.listen()
    with tempfile.TemporaryDirectory(prefix="beilun-") as folder:
        own = Path(folder) / "own.sim"
        factory = await _start(told, run, address, effective, own)
        words = asyncio.create_task(_listen(factory), name="run.factory")
        watching = asyncio.create_task(_show(scenario, pipeline, waits), name="run.progress")
        ending = asyncio.create_task(_end(factory, stop, done, broker, pipeline), name="run.end")
        patience_s = effective.broker.patience / NS_PER_S
        missing = asyncio.create_task(_miss(serving, done, patience_s), name="run.broker")
        upsetting = asyncio.create_task(upset(scenario, pipeline, broker), name="run.upset")
        try:
            await serve(
                address, topics.SUBSCRIPTIONS, lambda _: pipeline,
                run=run, once=False, stop=done, serving=serving,
            )  # fmt: skip
            if broker is not None and not broker.alive():
                raise UnreachableError("the broker of this run has died", at=str(address))
            if missing.done():
                missing.result()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await factory.wait()
        finally:
            tasks = (watching, ending, upsetting, missing)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled() and (error := task.exception()) is not None:
                    if isinstance(error, UnreachableError):
                        continue  # it is told as the end of the run
                    console.error(f"error: {task.get_name()}: {error!r}")
            if factory.returncode is None:
                factory.kill()
            await factory.wait()
            said = await words
        if own.exists():
            recording.attach(own)
        code = factory.returncode
        # 1 is a verdict on its own half; whatever else there is must not pass for a whole run.
        if stop.signal is None and (not own.exists() or code not in (Exit.OK, Exit.FAILED)):
            raise _failure(code, said)
    if stop.signal is None:
        return None
    return Exit.INTERRUPTED if stop.interrupted else Exit.OK


async def _start(
    told: Sequence[str], run: str, address: BrokerAddress, effective: Settings, own: Path
) -> asyncio.subprocess.Process:
    """The simulating half, out of the terminal's reach: we pass signals on."""
    environment = dict(os.environ)
    secret = effective.broker.secret()
    if effective.broker.username and secret is not None:
        environment["BEILUN_BROKER__USERNAME"] = effective.broker.username
        environment["BEILUN_BROKER__PASSWORD"] = secret
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "beilun", "simulate", *told,
        "--broker", f"mqtt://{address.host}:{address.port}",
        "--run", run, "--own", str(own), "--parent", str(os.getpid()),
        stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        env=environment, start_new_session=True,
    )  # fmt: skip


async def _listen(factory: asyncio.subprocess.Process) -> str:
    assert factory.stderr is not None
    return (await factory.stderr.read()).decode(errors="replace")


async def _end(
    factory: asyncio.subprocess.Process,
    stop: Stop,
    done: asyncio.Event,
    broker: Broker | None,
    pipeline: Pipeline,
) -> None:
    """Stop the factory when told to; stop the edge when the factory or our broker is gone.

    Not before: as long as the factory is there it may have missed the last confirm, with a broker
    that died, and ask again.
    """
    gone = asyncio.create_task(factory.wait())
    told = asyncio.create_task(stop.event.wait())
    try:
        while not gone.done() and not told.done():
            await asyncio.wait((gone, told), timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            if broker is not None and not broker.alive():
                return
        if not gone.done():
            factory.terminate()
            await asyncio.wait((gone,), timeout=GRACE_S)
        if gone.done() and not factory.returncode:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    # Its last word is on the way; the engine knows no loop that could tell.
                    while not pipeline.complete:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
    finally:
        done.set()
        gone.cancel()
        told.cancel()


async def _miss(serving: Serving, done: asyncio.Event, patience_s: float) -> None:
    """End the run where its broker went away and did not come back; raises ``UnreachableError``."""
    loop = asyncio.get_running_loop()
    seen_s, where = loop.time(), ""
    while loop.time() - seen_s < patience_s:
        await asyncio.sleep(min(1.0, patience_s / 4))
        inbox = serving.inbox
        if inbox is None or inbox.is_connected:
            seen_s = loop.time()
        else:
            where = inbox.broker
    done.set()
    raise UnreachableError(
        f"the broker went away and was not there again for {patience_s:g} s",
        at=where,
        hint="broker.patience says how long a run seeks it; what was recorded so far is kept",
    )


async def _show(scenario: Scenario, pipeline: Pipeline, waits: remote.Backlog) -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    with console.progress(scenario.length / NS_PER_S, "s virtual") as bar:
        while True:
            await asyncio.sleep(0.2)
            now_ns = pipeline.engine.watermark_ns
            if now_ns is not None:
                done_s = (now_ns - scenario.start) / NS_PER_S
                pace = done_s / max(1e-9, loop.time() - began_s)
                bar.update(done_s, f"{pace:,.0f}x  {pipeline.messages:,} messages{waits}")


def _failure(code: int | None, said: str) -> BeilunError:
    """The error of the simulating half, in its own words."""
    if code is not None and code < 0:
        return BeilunError(f"the simulating half was killed ({signal.Signals(-code).name})")
    return failure_of("the simulating half failed", code, said)
