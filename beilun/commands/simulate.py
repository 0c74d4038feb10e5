"""``beilun simulate``: a factory's telemetry to a broker."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from beilun import campus, console, verdict
from beilun.composing import (
    Stop,
    address_of,
    new_run,
    run_loop,
    scenario_header,
    scenario_of,
)
from beilun.offline import make_factory
from config import settings as layers
from config.errors import Exit, UsageError
from config.scenario import Scenario
from config.units import NS_PER_S, format_duration
from ingest.boundary import guarding, sent, side

if TYPE_CHECKING:
    from ingest.boundary import Boundary
    from ingest.broker import BrokerAddress


def command(
    scenario: Annotated[str, typer.Argument(help="A shipped scenario, or a file.")] = "quickstart",
    broker: Annotated[str | None, typer.Option(help="mqtt://host:port.")] = None,
    speed: Annotated[str | None, typer.Option(help="Times real time, or max.")] = None,
    length: Annotated[str | None, typer.Option("--for", help="Virtual time, like 10m.")] = None,
    seed: Annotated[int | None, typer.Option(help="Start of every random stream.")] = None,
    network: Annotated[str | None, typer.Option(help="Profile of the radio.")] = None,
    run: Annotated[str, typer.Option(help="Name of the run; made up when left out.")] = "",
    own: Annotated[
        Path | None, typer.Option(help="Where truth and ledger go; default: runs/RUN.sim.")
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Keep every message's way over the link, for `explain`.")
    ] = False,
    parent: Annotated[int, typer.Option(hidden=True)] = 0,
) -> Exit:
    """Simulate a factory and publish it; its truth and its side of the ledger go to a file."""
    chosen = scenario_of(scenario, seed=seed, length=length, network=network)
    flags = {"broker.url": broker, "run.speed": speed}
    effective = layers.load(chosen, flags=flags)
    chosen = chosen.model_copy(update={"edge": effective.edge})  # its panes are the truth's too
    if effective.broker.own_kind is not None:
        raise UsageError(
            "name the broker to publish to",
            hint="--broker mqtt://127.0.0.1:1883; `beilun run` brings its own",
        )
    name = run or new_run()
    path = own or effective.run.directory / f"{chosen.name}-{name}.sim"
    pace = effective.run.speed
    if parent:
        from ingest.broker import die_with_parent

        die_with_parent(parent)
    address = address_of(effective.broker)
    speed_up = None if pace == "max" else pace
    with guarding(chosen.campus) as boundary:
        return run_loop(_simulate(chosen, name, path, address, speed_up, boundary, trace=trace))


async def _simulate(
    scenario: Scenario,
    run: str,
    path: Path,
    address: "BrokerAddress",
    speed: float | None,
    boundary: "Boundary | None",
    *,
    trace: bool,
) -> Exit:
    from ingest.recording import Recording
    from simulator.publish import publish

    stop = Stop()
    stop.listen()
    factory = make_factory(scenario, run, trace=trace)
    console.note(
        f"run {run}: {scenario.name}, {len(factory.floor.devices)} devices, {scenario.network},"
        f" seed {scenario.seed}, {format_duration(scenario.length)} virtual, to {address}."
        " Ctrl-C stops and reports."
    )
    with console.progress(scenario.length / NS_PER_S, "s") as bar:
        stats = await publish(
            factory,
            address,
            start_ns=scenario.start,
            speed=speed,
            stop=stop.event,
            watch=lambda now_ns: bar.update((now_ns - scenario.start) / NS_PER_S),
        )
    accounts = factory.ledger().values()
    made, shed = sum(a.made for a in accounts), sum(a.shed for a in accounts)
    lost: Counter[str] = Counter()
    for account in accounts:
        lost.update(account.lost)
    with Recording.create(path) as recording:
        recording.set_meta(scenario_header(scenario, run))
        recording.write_truth(factory.truth(scenario.edge.kinds))
        if (tracer := factory.trace()) is not None:
            recording.write_trace(tracer)
        recording.set_entries(
            "simulator",
            {
                "made": made,
                "shed": shed,
                **{f"lost:{cause}": n for cause, n in lost.items()},
            },
        )
        if boundary is not None:
            recording.set_entries(side("simulator"), boundary.entries())
    console.note(
        f"made {made:,}, lost {lost.total():,}, shed {shed:,},"
        f" confirmed by the edge {stats.confirmed:,} (resent {stats.resent:,}); wrote {path}"
    )
    kept = Exit.OK
    if boundary is not None and scenario.campus is not None:
        counts = sent("simulator", boundary.entries())
        for line in campus.lines(scenario.campus, counts):
            console.note(line)
        kept = verdict.exit_code(campus.judge(scenario.campus, counts, ["simulator"]))
    return Exit.INTERRUPTED if stop.interrupted else kept
