"""Faults of a network and of what devices send, at simulated times: what a scenario may ask for."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

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


class DataFault(Timed):
    """What spoils the telemetry of some devices on its way to the link; what they do is untouched.
    What a device says at the very start of the run is spared, but for its clock and counters."""

    asset: str = "*"
    """Glob over the devices' names (`dcm*`) or, with slashes, over whole paths."""


class ClockStep(DataFault):
    """The clock of some devices jumps, and jumps back at the end: their stamps are wrong by as
    much, what they do is not."""

    kind: Literal["clock_step"]
    step_s: Annotated[float, Field(ge=-3_600, le=3_600, json_schema_extra={"unit": "s"})]
    """How far it jumps; negative: back in time."""


class ClockSkew(DataFault):
    """The clock of some devices runs fast or slow, and is set right at the end."""

    kind: Literal["clock_skew"]
    rate_ppm: Annotated[float, Field(ge=-100_000, le=100_000, json_schema_extra={"unit": "ppm"})]
    """Microseconds that it gains in a second; negative: loses. A quartz keeps within 100."""


class ChannelFault(DataFault):
    """What spoils single readings. VDA 5050 states have no channels and are left as they are."""

    channel: str
    """Glob over the channels' names, like `die_c` or `*`."""


class Stuck(ChannelFault):
    """A sensor holds its last value."""

    kind: Literal["stuck"]


class Drift(ChannelFault):
    """A sensor goes off steadily, and is calibrated at the end. Whole numbers stay whole."""

    kind: Literal["drift"]
    per_h: float
    """How far per hour, in the unit of the channel."""


class Spike(ChannelFault):
    """Some readings are sentinel values that mean no measurement: full scale, zero, an open
    thermocouple."""

    kind: Literal["spike"]
    ratio: Annotated[float, Field(gt=0, le=1, json_schema_extra={"unit": "ratio"})] = 0.01
    """Share of readings."""
    values: Annotated[tuple[float, ...], Field(strict=False, min_length=1)] = (
        65_534.0,
        0.0,
        1_449.0,
    )
    """What is read then, one or another, all equally often."""
    announced: bool = False
    """Whether the device says at its birth that these values are none; they are blanks then."""


class Dropout(ChannelFault):
    """Readings are missing, or whole messages are never sent and not numbered either."""

    kind: Literal["dropout"]
    channel: str = "*"
    """Glob over the channels' names, like `die_c`; of whole messages it must be `*`."""
    ratio: Annotated[float, Field(gt=0, le=1, json_schema_extra={"unit": "ratio"})] = 0.1
    """Share of samples, or of messages."""
    of: Literal["samples", "messages"] = "samples"
    """What is missing."""

    @model_validator(mode="after")
    def _of_all_channels(self) -> Self:
        if self.of == "messages" and self.channel != "*":
            raise ValueError("a message is missing with all its channels: leave channel out")
        return self


class Duplicate(DataFault):
    """Some messages are sent twice, with the same number: a client that missed the PUBACK."""

    kind: Literal["duplicate"]
    ratio: Annotated[float, Field(gt=0, le=1, json_schema_extra={"unit": "ratio"})] = 0.1
    """Share of messages."""


class Reorder(DataFault):
    """Some messages are held back in the device and sent after later ones; their numbers and stamps
    are those of when they were made. What is held at the end of the run is never sent."""

    kind: Literal["reorder"]
    ratio: Annotated[float, Field(gt=0, le=1, json_schema_extra={"unit": "ratio"})] = 0.2
    """Share of messages."""
    window: DurationNs = 5_000_000_000
    """Each is held back by any time up to this, all equally likely."""


class CounterRollover(ChannelFault):
    """Counters wrap around, as those of a 16-bit register do. What they counted is exact all the
    same if the modulus is announced and they are read at least twice a turn."""

    kind: Literal["counter_rollover"]
    modulus: Annotated[float, Field(gt=0)] = 65_536.0
    """The value that is read as 0 again, in the unit of the channel."""
    announced: bool = True
    """Whether the device says so at its birth."""


class Reboot(DataFault):
    """A device goes down and starts again when the fault ends: it is silent until then, loses what
    it had sampled and not sent, and begins its message numbers anew, with a new boot number and a
    new birth. Its counters begin anew as it goes down."""

    kind: Literal["reboot"]


Fault = Annotated[
    Outage
    | Backhaul
    | Congestion
    | Interference
    | BrokerRestart
    | ClockStep
    | ClockSkew
    | Stuck
    | Drift
    | Spike
    | Dropout
    | Duplicate
    | Reorder
    | CounterRollover
    | Reboot,
    Field(discriminator="kind"),
]

FAULTS: dict[str, type[Timed]] = {
    "outage": Outage,
    "backhaul": Backhaul,
    "congestion": Congestion,
    "interference": Interference,
    "broker_restart": BrokerRestart,
    "clock_step": ClockStep,
    "clock_skew": ClockSkew,
    "stuck": Stuck,
    "drift": Drift,
    "spike": Spike,
    "dropout": Dropout,
    "duplicate": Duplicate,
    "reorder": Reorder,
    "counter_rollover": CounterRollover,
    "reboot": Reboot,
}
"""Every kind of fault, as ``kind`` names it in a scenario's ``[[fault]]``."""
