"""A scenario looked over as a whole before it runs: what fails, and what has no effect."""

from collections.abc import Iterator
from fnmatch import fnmatchcase

from config.errors import ConfigError
from config.faults import ClockStep, Interference
from config.scenario import Scenario
from config.units import format_duration


def rehearse(scenario: Scenario) -> list[str]:
    """Build the scenario's factory, which raises the ``ConfigError`` a run would come to; the notes
    name faults that will do nothing."""
    from beilun.offline import make_factory

    try:
        factory = make_factory(scenario, "rehearsal")
    except ConfigError as error:
        error.at = error.at or f"scenario {scenario.name}"
        raise
    plant = factory.floor.plant
    names = [device.name for device in plant.device]
    return list(_idle(scenario, names, placed=plant.radio is not None))


def _idle(scenario: Scenario, names: list[str], *, placed: bool) -> Iterator[str]:
    for number, fault in enumerate(scenario.fault, 1):
        who = f"fault #{number} ({fault.kind})"
        if fault.after >= scenario.length:
            yield (
                f"{who} begins after {format_duration(fault.after)}, and the run ends after"
                f" {format_duration(scenario.length)}"
            )
        if isinstance(fault, ClockStep) and not any(fnmatchcase(n, fault.asset) for n in names):
            yield f"{who} finds no device like {fault.asset!r}"
        if isinstance(fault, Interference) and fault.area is not None and not placed:
            yield f"{who} has an area, but no device of the plant has a place"
