"""Faults of a scenario that are done for real: the restarts of a run's own broker."""

import asyncio

from beilun import console
from config.errors import UnreachableError
from config.faults import BrokerRestart
from config.scenario import Scenario
from config.units import format_duration
from edge.pipeline import Pipeline
from ingest.broker import Broker

LOOK_S = 0.01


async def upset(scenario: Scenario, pipeline: Pipeline, broker: Broker | None) -> None:
    """Kill the broker and start it again each time the edge's virtual time passes a restart; end
    after the last one.

    What a restart costs in virtual time is the link's affair and the same in every run of the
    scenario. This is the proof that a real one loses nothing and counts nothing twice: the digest
    of the run does not depend on it. Without a broker of our own (``None``) nothing is done but to
    say so. Cancelled early, it tells which restarts the run did not live to see.
    """
    due = sorted(fault.after for fault in scenario.fault if isinstance(fault, BrokerRestart))
    if due and broker is None:
        console.note(
            "the broker is not ours to restart: in virtual time it is away as the scenario says,"
            " in reality it stays up"
        )
        return
    try:
        while due and broker is not None:
            now_ns = pipeline.engine.watermark_ns
            if now_ns is None or now_ns < scenario.start + due[0]:
                await asyncio.sleep(LOOK_S)
                continue
            after = due.pop(0)
            console.note(f"{format_duration(after)}: killing the broker and starting it again")
            await asyncio.to_thread(broker.restart)
    except UnreachableError as error:
        console.error(f"error: the broker did not come back: {error}")
    finally:
        if due:
            missed = ", ".join(map(format_duration, due))
            console.note(f"the run was over before its broker could be restarted at {missed}")
