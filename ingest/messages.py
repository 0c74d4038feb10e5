"""What crosses the wire, once decoded: values that every codec makes and the edge consumes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Times = NDArray[np.int64]


class Asset(NamedTuple):
    """An asset by its ISA-95 levels; the levels are the topic's."""

    site: str
    area: str
    line: str
    name: str

    def __str__(self) -> str:
        return "/".join(self)


class Identity(NamedTuple):
    """What makes two messages the same: a source, its boot, and its sequence number there."""

    source: str
    boot: int
    seq: int


@dataclass(frozen=True, slots=True)
class Meta:
    """Stamps of one message.

    ``sent_ns`` is when the device handed it to its link (``None``: unknown), ``arrival_ns`` when it
    reached the MEC: modelled for simulated devices, the receiving host's clock for real ones.
    ``conn`` and ``cseq`` are the transport's: the connection and the number of the message on it,
    1, 2, 3, ... without gaps (``conn == ""``: a foreign publisher that does not number).
    """

    identity: Identity
    arrival_ns: int
    sent_ns: int | None = None
    run: str = ""
    conn: str = ""
    cseq: int = 0
    resolution: str = "seq"
    """What identity rests on: ``seq`` (numbered by the sender), ``content`` (hash of the bytes), or
    ``derived``: this is no message of its own but follows from another."""


@dataclass(frozen=True, slots=True)
class Birth:
    """An asset announces itself: its kind, and the unit of each channel it will ever send.

    ``limits`` are the lower and the upper specification limit of channels that have both.
    ``modulus``, in the unit of the channel, is where a counter begins again at 0: it then reads
    less than that, and its totals are exact as long as it is read at least twice a turn.
    ``sentinels`` are readings of a channel that stand for no measurement: full scale, an open
    thermocouple. They are no evidence, like a blank cell.
    ``gathered_ns`` is of channels that tell of a whole stretch at once (histograms, peaks): how
    long the stretches are, which lie side by side from the epoch on. Of a window that cuts one
    they tell nothing.
    ``by_exception``: it tells of its states when they change and not again, so that a state holds
    until the next, however long it is silent.
    """

    asset: Asset
    kind: str
    t_ns: int
    channels: Mapping[str, str]
    meta: Meta
    limits: Mapping[str, tuple[float, float]] = field(
        default_factory=dict[str, tuple[float, float]]
    )
    by_exception: bool = False
    modulus: Mapping[str, float] = field(default_factory=dict[str, float])
    sentinels: Mapping[str, tuple[float, ...]] = field(default_factory=dict[str, tuple[float, ...]])
    gathered_ns: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples of one stream of one asset, oldest first.

    ``t_ns`` int64[n], each channel float64[n]; NaN is a blank cell, which is no evidence.
    """

    asset: Asset
    stream: str
    t_ns: Times
    channels: Mapping[str, Floats]
    meta: Meta

    def __len__(self) -> int:
        return len(self.t_ns)


@dataclass(frozen=True, slots=True)
class Progress:
    """All that a connection sent with arrival up to ``arrival_ns`` has number < ``next_cseq``.

    ``made``, ``lost`` and ``shed`` count messages since the start of the run (``lost`` by cause);
    ``end`` says that nothing will follow, and ``connections`` of how many connections the run is
    made (0: not said), so that nobody takes the first one for all of them.
    """

    conn: str
    run: str
    arrival_ns: int
    next_cseq: int
    made: int
    lost: Mapping[str, int]
    shed: int
    end: bool = False
    connections: int = 0


@dataclass(frozen=True, slots=True)
class Tick:
    """The host's clock, journalled: the watermark of publishers that report no progress."""

    arrival_ns: int


@dataclass(frozen=True, slots=True)
class Notice:
    """A message with an identity and nothing to fold, such as an AGV's connection state."""

    meta: Meta


Message = Birth | Batch | Notice | Progress | Tick


@dataclass(frozen=True, slots=True)
class Envelope:
    """One received message as the journal keeps it; ``received_ns`` is the host's clock.

    ``codec`` names who reads ``payload``; decoding needs nothing but the envelope.
    """

    codec: str
    topic: str
    received_ns: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Reject:
    """A message nobody can use: why, and its first bytes."""

    reason: str
    detail: str
    topic: str
    received_ns: int
    head: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Record:
    """A journalled message and what it says."""

    envelope: Envelope
    message: Message
    content: int = field(default=0)
    """64 bits of the payload's hash: the tie-break where two messages claim one identity."""


class TruthRow(NamedTuple):
    """What a KPI really was, as the simulator knows; ``asset`` is ``site/area/line/name``.

    ``value`` is ``None`` where the KPI is not defined, as over no planned time.
    """

    asset: str
    kpi: str
    window_start_ns: int
    window_length_ns: int
    value: float | None
