"""The ``uns`` codec: columnar JSON on the ISA-95 topic tree, and the run protocol's progress."""

from typing import Annotated, Generic, TypeVar

import msgspec
import numpy as np

from ingest import topics
from ingest.cells import LARGEST
from ingest.codecs import Unusable
from ingest.codecs.stamps import Stamps, check_times, meta_of
from ingest.messages import Asset, Batch, Birth, Envelope, Floats, Message, Progress

T = TypeVar("T")
C = TypeVar("C")

MAX_SAMPLES = 20_000
Count = Annotated[int, msgspec.Meta(ge=0)]
Cell = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
Turn = Annotated[float, msgspec.Meta(gt=0, le=LARGEST)]
Stretch = Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]
EXACT = 1 << 53
"""Whole numbers up to here are exact in a float64."""
Exact = Annotated[float, msgspec.Meta(ge=-EXACT, le=EXACT)]


class _Data(msgspec.Struct, Generic[C]):
    """One or more samples: regular (``every_ns``) or at offsets from the first (``after_ns``)."""

    t_ns: int
    ch: dict[str, list[C | None]]
    every_ns: int = 0
    after_ns: list[int] = []
    x_beilun: Stamps | None = None


class _Birth(msgspec.Struct):
    kind: str
    t_ns: int
    ch: dict[str, str]
    limits: dict[str, tuple[Cell, Cell]] = {}
    by_exception: bool = False
    modulus: dict[str, Turn] = {}
    sentinels: dict[str, list[Cell]] = {}
    gathered_ns: dict[str, Stretch] = {}
    x_beilun: Stamps | None = None


class _Progress(msgspec.Struct):
    run: str
    arrival_ns: int
    next_cseq: Annotated[int, msgspec.Meta(ge=1)]
    made: Count
    lost: dict[str, Count]
    shed: Count
    end: bool = False
    connections: Count = 0


_data = msgspec.json.Decoder(_Data[Cell])
_link = msgspec.json.Decoder(_Data[Exact])
"""Of stream ``link``, whose sums of nanoseconds (``*_ns``) are added up as integers."""
_birth = msgspec.json.Decoder(_Birth)
_progress = msgspec.json.Decoder(_Progress)


class Uns:
    """Reads telemetry, births and progress below ``beilun/v1``."""

    name = "uns"

    def claims(self, topic: str) -> bool:
        return topic.startswith(topics.ROOT + "/")

    def decode(self, envelope: Envelope) -> tuple[Message, ...]:
        if (parsed := topics.parse_progress(envelope.topic)) is not None:
            return (self._progress(envelope, *parsed),)
        if (target := topics.parse(envelope.topic)) is None:
            raise Unusable("unknown_topic", "not site/area/line/asset/stream below " + topics.ROOT)
        asset, stream = target
        if stream == "birth":
            birth = _read(_birth, envelope.payload)
            check_times(birth.t_ns, birth.t_ns)
            _check_announced(birth)
            meta = meta_of(birth.x_beilun, envelope, str(asset))
            sentinels = {name: tuple(values) for name, values in birth.sentinels.items()}
            return (
                Birth(
                    asset, birth.kind, birth.t_ns, birth.ch, meta, birth.limits,
                    birth.by_exception, birth.modulus, sentinels, birth.gathered_ns,
                ),
            )  # fmt: skip
        if stream not in topics.STREAMS:
            raise Unusable("unknown_topic", f"no stream {stream!r}")
        data = _read(_data if stream != "link" else _link, envelope.payload)
        return (_batch(data, asset, stream, envelope),)

    @staticmethod
    def _progress(envelope: Envelope, site: str, conn: str) -> Progress:
        said = _read(_progress, envelope.payload)
        check_times(said.arrival_ns, said.arrival_ns)
        return Progress(
            f"{site}/{conn}", said.run, said.arrival_ns, said.next_cseq, said.made, said.lost,
            said.shed, said.end, said.connections,
        )  # fmt: skip


def _batch(data: _Data[float], asset: Asset, stream: str, envelope: Envelope) -> Batch:
    sizes = {len(column) for column in data.ch.values()}
    if len(sizes) != 1:
        raise Unusable("bad_shape", f"columns of {sorted(sizes)} values" if sizes else "no columns")
    n = sizes.pop()
    if not 0 < n <= MAX_SAMPLES:
        raise Unusable("bad_shape", f"{n} samples, 1 to {MAX_SAMPLES} are taken")
    if data.after_ns:
        if len(data.after_ns) != n:
            raise Unusable("bad_shape", f"{len(data.after_ns)} offsets for {n} samples")
        if not 0 <= data.after_ns[0] <= data.after_ns[-1] < 1 << 60:
            raise Unusable("bad_shape", "offsets run backwards")
        times = data.t_ns + np.array(data.after_ns, dtype=np.int64)
        if n > 1 and bool((np.diff(times) < 0).any()):
            raise Unusable("bad_shape", "offsets run backwards")
    elif n > 1:
        if not 0 < data.every_ns < 1 << 40:
            raise Unusable("bad_shape", f"{n} samples need every_ns or after_ns")
        times = data.t_ns + data.every_ns * np.arange(n, dtype=np.int64)
    else:
        times = np.array([data.t_ns], dtype=np.int64)
    check_times(int(times[0]), int(times[-1]))
    channels = {name: np.array(column, dtype=np.float64) for name, column in data.ch.items()}
    if stream == "link":
        _check_link(channels)
    return Batch(asset, stream, times, channels, meta_of(data.x_beilun, envelope, str(asset)))


def _check_announced(birth: _Birth) -> None:
    told = (
        ("limits", birth.limits), ("modulus", birth.modulus), ("sentinels", birth.sentinels),
        ("gathered_ns", birth.gathered_ns),
    )  # fmt: skip
    for what, by_channel in told:
        if unknown := by_channel.keys() - birth.ch.keys():
            raise Unusable(
                "bad_shape", f"{what} of {min(unknown)!r}, which is not among the channels"
            )
    for name, (low, high) in birth.limits.items():
        if not low < high:
            raise Unusable("bad_shape", f"limits of {name!r}: {low:g} is not below {high:g}")


def _check_link(channels: dict[str, Floats]) -> None:
    for name, values in channels.items():
        if not name.endswith("_ns") and bool((np.abs(values) > LARGEST).any()):
            raise Unusable("bad_shape", f"{name} is beyond ±{LARGEST:g}")


def _read(decoder: "msgspec.json.Decoder[T]", payload: bytes) -> T:
    try:
        return decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise Unusable("bad_shape", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unusable("not_json", str(error)) from None


CODEC = Uns()
