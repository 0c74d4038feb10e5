"""Faults of a network at simulated times: what a scenario may ask for."""

from typing import Annotated, Literal

from pydantic import Field

from config.model import Spec
from config.units import Decibels, DelayNs, DurationNs, MegabitsPerSecond, Metres


class Area(Spec):
    """A rectangle on the floor."""

    x_m: Metres
    y_m: Metres
    width_m: Annotated[float, Field(gt=0, json_schema_extra={"unit": "m"})]
    height_m: Annotated[float, Field(gt=0, json_schema_extra={"unit": "m"})]


class Timed(Spec):
    """What every fault has."""

    after: DelayNs
    """When it begins, from the start of the run; ``0s``: with it."""
    length: DurationNs
    """How long it lasts."""


class Outage(Timed):
    """A cell, all cells of a station, or the whole network is off the air. A wire has no cells: a
    fault of some leaves it as it is, so that one scenario fits wire and radio."""

    kind: Literal["outage"]
    cell: str = ""
    """A cell or station of the layout; empty: all of them."""


class Backhaul(Timed):
    """Radio as usual, but nothing passes between the station and the MEC. On a wire, which has no
    cells, a fault of some has no effect."""

    kind: Literal["backhaul"]
    cell: str = ""
    """A cell or station of the layout; empty: all of them."""


class Congestion(Timed):
    """More video in a slice of a cell. It loads; nobody's dice change. On a wire, which has no
    cells, a fault of some has no effect."""

    kind: Literal["congestion"]
    flows: Annotated[int, Field(ge=1, le=100_000)]
    flow_mbps: MegabitsPerSecond = 4.0
    direction: Literal["up", "down", "both"] = "up"
    slice: str = ""
    """Slice that carries it; empty: the last in priority."""
    cell: str = ""
    """A cell or station of the layout; empty: all of them."""


class Interference(Timed):
    """More noise: in an area, or everywhere; a device without a position feels the latter only."""

    kind: Literal["interference"]
    rise_db: Decibels
    area: Area | None = None


class BrokerRestart(Timed):
    """The broker at the MEC dies and is back at the end: every connection is made anew, and what
    was under way is sent again. A run with a broker of its own really restarts it."""

    kind: Literal["broker_restart"]


class ClockStep(Timed):
    """The clock of some devices jumps, and jumps back at the end: their stamps are wrong by as
    much, what they do is not."""

    kind: Literal["clock_step"]
    asset: str = "*"
    """Glob over the devices' names."""
    step_s: Annotated[float, Field(ge=-3_600, le=3_600, json_schema_extra={"unit": "s"})]
    """How far it jumps; negative: back in time."""


Fault = Annotated[
    Outage | Backhaul | Congestion | Interference | BrokerRestart | ClockStep,
    Field(discriminator="kind"),
]

FAULTS: dict[str, type[Timed]] = {
    "outage": Outage,
    "backhaul": Backhaul,
    "congestion": Congestion,
    "interference": Interference,
    "broker_restart": BrokerRestart,
    "clock_step": ClockStep,
}
"""Every kind of fault, as ``kind`` names it in a scenario's ``[[fault]]``."""
