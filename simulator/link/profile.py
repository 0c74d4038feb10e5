"""Network profiles: what a file in ``config/networks`` may say, and reading one by name.

A profile holds mechanisms and their constants, never a table of measured delays. What concerns
the whole network (``core``, ``transport``, ``drop_ratio``) stands at the top, what concerns the air
under ``radio``: there also the slices, and how a moving device is heard and handed over. Where the
cells stand is a layout's (``simulator.link.layout``), what goes wrong a fault's.
"""

import difflib
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from config import tomlfile
from config.errors import ConfigError
from config.model import Spec
from config.units import (
    NS_PER_MS,
    Decibels,
    MegabitsPerSecond,
    Milliseconds,
    Ratio,
    Seconds,
)
from simulator.link.slices import FIVE_QI


def _unit(unit: str) -> dict[str, Any]:
    return {"unit": unit}


DecibelMilliwatts = Annotated[float, Field(ge=-200, le=80, json_schema_extra=_unit("dBm"))]
Gigahertz = Annotated[float, Field(gt=0, le=100, json_schema_extra=_unit("GHz"))]
Microseconds = Annotated[float, Field(gt=0, json_schema_extra=_unit("us"))]
PartsPerMillion = Annotated[float, Field(ge=-100, le=100, json_schema_extra=_unit("ppm"))]
PositiveMs = Annotated[float, Field(gt=0, le=10_000, json_schema_extra=_unit("ms"))]
SmallRatio = Annotated[float, Field(ge=0, le=0.5, json_schema_extra=_unit("ratio"))]


class Hop(Spec):
    """A station on the way: some fixed work, then a wait for its tick, uniform over the spread."""

    fixed_ms: PositiveMs
    """Time that every message takes."""
    spread_ms: Milliseconds = 0.0
    """Longest further wait."""


class Path(Spec):
    """The two ends of one direction."""

    device: Hop
    """The device: its network stack, its modem and the wire between them."""
    network: Hop
    """The base station, access point or switch."""


class Grant(Spec):
    """How an uplink without a grant gets one: scheduling request, decision, grant."""

    sr_period_ms: PositiveMs
    """Distance of two occasions for a scheduling request: a multiple of the slot pattern."""
    processing: Hop
    """From the end of the request's slot to the earliest start of the granted one."""
    hold_ms: Milliseconds
    """A device keeps its grant this long after its last message; later it must ask again."""
    missed_ratio: SmallRatio = 0.01
    """Requests that are not heard, so that the device asks again at the next occasion. TS 38.104
    and TS 36.104 (8.3) let a base station miss one in a hundred."""


class Harq(Spec):
    """Hybrid ARQ of one direction: the retransmission is soft-combined with what was heard."""

    first_error_ratio: Ratio
    """First transmissions that fail; link adaptation steers this value."""
    next_error_ratio: Ratio
    """Retransmissions that fail after soft combining."""
    transmissions: Annotated[int, Field(ge=1, le=16)] = 4
    """Attempts before RLC takes over."""
    decode_ms: PositiveMs
    """From the end of a slot to the receiver's verdict."""
    schedule: Hop
    """From the verdict (downlink: from the end of its feedback slot) to the earliest next try."""
    feedback_error_ratio: SmallRatio = 0.0
    """Failures taken for success because the feedback was misread; RLC has to notice."""


class Carrier(Spec):
    """One direction of the air."""

    rate_mbps: MegabitsPerSecond
    """What one device gets from the idle cell with the best coding, averaged over the slot pattern.
    A weaker signal takes a slower coding (``simulator.link.cellular``)."""
    harq: Harq


class Rlc(Spec):
    """RLC in acknowledged mode, after HARQ gave up."""

    recovery: Hop
    """From the last failed attempt to the retransmission: reordering timer, status, scheduling."""
    rounds: Annotated[int, Field(ge=1, le=32)] = 8
    """Retransmissions before the radio gives a message up."""


class Shadowing(Spec):
    """Slow fading of one device; uplink and downlink share it."""

    sd_db: Decibels
    """Standard deviation of the received power."""
    decorrelation_s: Seconds
    """Time after which the device is, to the radio, somewhere else."""
    margin_db: Decibels
    """SINR above the floor of the most robust coding: the fade that link adaptation absorbs."""


class Flows(Spec):
    """Background video of one slice in every cell: declared, so no device's dice depend on it."""

    flows: Annotated[int, Field(ge=0, le=100_000)] = 0
    flow_mbps: MegabitsPerSecond = 4.0
    frame_hz: Annotated[float, Field(gt=0, le=1_000, json_schema_extra=_unit("Hz"))] = 25.0


class StandingGrant(Spec):
    """A configured grant: occasions that are the device's own, without a request."""

    period_ms: PositiveMs
    """Distance of two occasions: a multiple of the slot pattern."""
    grant_bytes: Annotated[int, Field(ge=1, le=100_000)]
    """A larger message asks for the rest in its first occasion, and waits for that grant."""


class Slice(Spec):
    """A share of every cell under one S-NSSAI and 5QI."""

    sst: Annotated[int, Field(ge=1, le=255)]
    """Slice type: 1 eMBB, 2 URLLC, 3 massive IoT, 4 V2X."""
    sd: Annotated[str, Field(pattern=r"^([0-9A-F]{6})?$")] = ""
    """Slice differentiator, six hexadecimal digits."""
    five_qi: int
    """Row of TS 23.501 table 5.7.4-1 (``simulator.link.slices``): priority and delay budget."""
    weight: Annotated[float, Field(gt=0, le=1_000)] = 1.0
    """Share under weighted sharing."""
    grant: StandingGrant | None = None
    up: Flows = Flows()
    down: Flows = Flows()

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.five_qi not in FIVE_QI:
            raise ValueError(f"five_qi {self.five_qi} is none of {sorted(FIVE_QI)}")
        return self


class Slices(Spec):
    """Slices by name; any name will do."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Slice] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def named(self) -> dict[str, Slice]:
        """All of them."""
        return self.__pydantic_extra__


class Sharing(Spec):
    """How the scheduler divides a cell among slices; within one, backlogged flows take turns."""

    rule: Literal["priority", "weighted", "none"] = "priority"
    """``none``: slices are names only, everything takes turns with everything."""
    users_per_slot: Annotated[int, Field(ge=1, le=64)] = 4
    """Devices that one slot can serve, so a turn is this part of a slot."""


class Gap(Spec):
    """A lognormal pause."""

    median_ms: PositiveMs
    p99_ms: PositiveMs

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.p99_ms < self.median_ms:
            raise ValueError("p99_ms is below median_ms")
        return self


class Mobility(Spec):
    """When a device that has a position changes its cell, and what that costs."""

    hysteresis_db: Decibels = 3.0
    """Another cell must be this much stronger (event A3) ..."""
    trigger_ms: PositiveMs = 320.0
    """... for this long."""
    gap: Gap = Gap(median_ms=35.0, p99_ms=120.0)
    failure_ratio: SmallRatio = 0.008
    """Handovers that fail and end in a re-establishment."""
    reestablish: Hop = Hop(fixed_ms=300.0, spread_ms=1_200.0)


class Propagation(Spec):
    """What a device that has a position receives: path loss, shadowing, noise."""

    carrier_ghz: Gigahertz = 3.7
    power_dbm: DecibelMilliwatts = 24.0
    noise_dbm: DecibelMilliwatts = -85.0
    """Thermal noise in the carrier and the receiver's own."""
    floor_db: Annotated[float, Field(ge=-30, le=30, json_schema_extra=_unit("dB"))] = -4.0
    """SINR below which the most robust coding begins to fail."""
    sight_sd_db: Decibels = 4.0
    """Shadowing in line of sight."""
    blocked_sd_db: Decibels = 5.7
    decorrelation_m: Annotated[float, Field(gt=0, json_schema_extra=_unit("m"))] = 7.0
    passing_sd_db: Decibels = 2.0
    """What people and trucks that pass make of the serving signal, also of one that stands."""
    passing_s: Seconds = 20.0
    """Time after which others are in the way."""
    activity_ratio: Ratio = 0.02
    """What an idle cell still sends, and neighbours hear."""


class Cellular(Spec):
    """A scheduled radio: 4G or 5G."""

    kind: Literal["cellular"]
    slot_ms: PositiveMs
    """Slot length (LTE: the subframe)."""
    pattern: Annotated[str, Field(pattern=r"^([DSU]{2,40}|F)$")]
    """Slots in turn: D down, S switching (no data), U up; ``F`` alone is FDD, both ways always. A
    special slot with most of its symbols down is a D."""
    drift_ppm: PartsPerMillion = 10.0
    """Drift of the cell's frame against the devices' clock: phases wander, as in the field."""
    grant: Grant
    up: Carrier
    down: Carrier
    rlc: Rlc
    shadowing: Shadowing
    """Of a device whose position is not known."""
    propagation: Propagation = Propagation()
    mobility: Mobility = Mobility()
    sharing: Sharing = Sharing()
    default_slice: str = ""
    """Slice of a bearer that names none."""
    slices: Slices = Slices()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        slices = self.slices.named
        if bool(slices) != (self.default_slice in slices):
            raise ValueError("default_slice is none of the slices")
        if self.pattern != "F" and not {"D", "U"} <= set(self.pattern):
            raise ValueError("pattern needs at least one D and one U")
        turn_ns = len(self.pattern) * round(self.slot_ms * NS_PER_MS)
        if round(self.grant.sr_period_ms * NS_PER_MS) % turn_ns:
            raise ValueError(f"grant.sr_period_ms is no multiple of {turn_ns / NS_PER_MS:g} ms")
        for name, each in slices.items():
            if each.grant and round(each.grant.period_ms * NS_PER_MS) % turn_ns:
                raise ValueError(
                    f"slices.{name}.grant.period_ms is no multiple of {turn_ns / NS_PER_MS:g} ms"
                )
        return self


class Wifi(Spec):
    """Contention for a shared medium (802.11 DCF, best effort), one access per direction."""

    kind: Literal["wifi"]
    rate_mbps: MegabitsPerSecond
    slot_us: Microseconds = 9.0
    aifs_us: Microseconds = 43.0
    """Silence before each countdown."""
    overhead_us: Microseconds = 100.0
    """Preamble, interframe space and acknowledgement of each attempt."""
    cw_min: Annotated[int, Field(ge=1, le=1023)] = 15
    """First countdown is uniform over 0 to this; every failure doubles it."""
    cw_max: Annotated[int, Field(ge=1, le=32767)] = 1023
    retries: Annotated[int, Field(ge=0, le=15)] = 7
    """Further attempts before the frame is dropped."""
    collision_ratio: SmallRatio
    """First attempts that meet another station's or a hidden one's."""
    again_ratio: SmallRatio | None = None
    """The same of a further attempt: what spoilt the one before may still be there. ``None``: as
    of a first attempt."""
    busy_ratio: Ratio
    """Countdown slots in which another station takes the medium."""
    busy_ms: PositiveMs
    """Mean time it then keeps it, and so a turn of background traffic."""
    margin_db: Decibels = 20.0
    """Noise that a device whose position is not known can bear."""
    propagation: Propagation = Propagation(
        carrier_ghz=5.5, power_dbm=20.0, noise_dbm=-92.0, floor_db=3.0
    )
    mobility: Mobility = Mobility(
        hysteresis_db=8.0,
        trigger_ms=160.0,
        gap=Gap(median_ms=30.0, p99_ms=60.0),
        failure_ratio=0.01,
    )
    """Roaming between access points: here tuned (802.11k/v/r)."""


class Wired(Spec):
    """A full-duplex wire: nothing but serialisation."""

    kind: Literal["wired"]
    rate_mbps: MegabitsPerSecond


class Tcp(Spec):
    """A lost segment stalls its connection; nothing overtakes, nothing is lost."""

    kind: Literal["tcp"]
    min_rto_ms: PositiveMs = 200.0
    """Floor of the retransmission timeout."""
    reset_after_s: Seconds = 90.0
    """Without an acknowledgement for so long the connection is given up and made anew: MQTT takes a
    client for gone after 1.5 keep-alives, which are 60 s by default."""
    mss_bytes: Annotated[int, Field(ge=88, le=65_535)] = 1_400
    """A larger message is several segments, each of which can be lost."""


class Udp(Spec):
    """A lost datagram is lost, and nothing waits for it."""

    kind: Literal["udp"]
    mss_bytes: Annotated[int, Field(ge=88, le=65_535)] = 1_400
    """A larger message is several fragments, all of which must arrive."""


class Profile(Spec):
    """A network as one device sees it."""

    name: str
    """The file's name."""
    summary: str
    """One line for ``beilun networks``."""
    source: str
    """What the constants rest on."""
    core: Hop
    """User plane function and switch between radio and MEC, each way; not the edge's own work."""
    drop_ratio: SmallRatio
    """Segments lost outside the radio's repair: full buffers, resets, route changes."""
    up: Path
    down: Path
    radio: Annotated[Cellular | Wifi | Wired, Field(discriminator="kind")]
    transport: Annotated[Tcp | Udp, Field(discriminator="kind")]


def _folder() -> Traversable:
    return files("config") / "networks"


def profile_names() -> list[str]:
    """Every profile in ``config/networks``, sorted."""
    return sorted(f.name[:-5] for f in _folder().iterdir() if f.name.endswith(".toml"))


def _read(name: str) -> dict[str, Any]:
    names = profile_names()
    if name not in names:
        guesses = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(guesses)}?" if guesses else f"known: {', '.join(names)}"
        raise ConfigError(f"unknown network profile {name!r}", hint=hint)
    return tomlfile.load(_folder() / f"{name}.toml")


def load_profile(name: str) -> Profile:
    """The profile of that name; ``like = "other"`` in a file takes over the other's tables."""
    raw = _read(name)
    if (base := raw.pop("like", None)) is not None:
        other = _read(base)
        if "like" in other:
            raise ConfigError(f"like = {base!r}, which is itself like another", at=f"{name}.toml")
        raw = other | raw
    return tomlfile.validate(raw | {"name": name}, Profile, at=f"{name}.toml")
