"""A scenario looked over as a whole before it runs: what fails, and what has no effect."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from config.errors import ConfigError
from config.faults import ChannelFault, DataFault, Interference
from config.globs import asset_matches
from config.scenario import Scenario
from config.units import format_duration

if TYPE_CHECKING:
    from simulator.factory import Factory


def rehearse(scenario: Scenario) -> list[str]:
    """Build the scenario's factory, which raises the ``ConfigError`` a run would come to; the notes
    name faults that will do nothing, and telemetry that the edge will take for late."""
    from beilun.offline import make_factory

    try:
        factory = make_factory(scenario, "rehearsal")
    except ConfigError as error:
        error.at = error.at or f"scenario {scenario.name}"
        raise
    return [*_idle(scenario, factory), *_late(scenario, factory)]


def _idle(scenario: Scenario, factory: "Factory") -> Iterator[str]:
    plant = factory.floor.plant
    channels = {device.path: device.channels for device in factory.floor.devices}
    for number, fault in enumerate(scenario.fault, 1):
        who = f"fault #{number} ({fault.kind})"
        if fault.after >= scenario.length:
            yield (
                f"{who} begins after {format_duration(fault.after)}, and the run ends after"
                f" {format_duration(scenario.length)}"
            )
        if isinstance(fault, DataFault):
            found = [path for path in channels if asset_matches(fault.asset, path)]
            if not found:
                yield f"{who} finds no device like {fault.asset!r}"
            elif isinstance(fault, ChannelFault) and not any(
                fnmatchcase(channel, fault.channel) for path in found for channel in channels[path]
            ):
                where = f"of a device like {fault.asset!r}"
                yield f"{who} finds no channel like {fault.channel!r} {where}"
        if isinstance(fault, Interference) and fault.area is not None and plant.radio is None:
            yield f"{who} has an area, but no device of the plant has a place"


def _late(scenario: Scenario, factory: "Factory") -> Iterator[str]:
    """Whether what is sent together comes later than the edge waits for it."""
    held_ns = factory.held_ns
    if held_ns > scenario.edge.pane_ns + scenario.edge.lateness:
        yield (
            f"telemetry = {scenario.telemetry!r} is sent every {format_duration(held_ns)}, and"
            f" edge.lateness is {format_duration(scenario.edge.lateness)}: what is older counts as"
            f" late and amends its rows; set lateness = {format_duration(held_ns)!r}"
        )
