"""The ``vda5050`` codec: VDA 5050 2.1 state and connection messages of AGVs."""

import re
from typing import Any

import msgspec
import numpy as np

from config.units import parse_time
from ingest.codecs import Unusable
from ingest.codecs.stamps import Stamps, check_times, meta_of
from ingest.messages import Asset, Batch, Envelope, Message, Notice
from ingest.topics import is_level

_TOPIC = re.compile(r"uagv/v2/([^/]+)/([^/]+)/(state|connection|factsheet)")


class _Position(msgspec.Struct):
    x: float
    y: float


class _Battery(msgspec.Struct):
    batteryCharge: float
    charging: bool = False


class _Header(msgspec.Struct, kw_only=True):
    headerId: int
    timestamp: str
    x_beilun: Stamps | None = None


class _State(_Header):
    orderId: str
    nodeStates: list[msgspec.Raw]
    driving: bool
    batteryState: _Battery
    newBaseRequest: bool = False
    paused: bool = False
    errors: list[msgspec.Raw] = []
    loads: list[msgspec.Raw] = []
    agvPosition: _Position | None = None


class _Connection(_Header):
    connectionState: str


_header = msgspec.json.Decoder(_Header)
_state = msgspec.json.Decoder(_State)
_connection = msgspec.json.Decoder(_Connection)


class Vda5050:
    """Reads AGV messages; a vehicle is on a mission while it has an order with nodes to go to."""

    name = "vda5050"

    def claims(self, topic: str) -> bool:
        return topic.startswith("uagv/v2/")

    def decode(self, envelope: Envelope) -> tuple[Message, ...]:
        match = _TOPIC.fullmatch(envelope.topic)
        if match is None:
            raise Unusable("unknown_topic", "not uagv/v2/<manufacturer>/<serial>/<topic>")
        kind = match[3]
        try:
            if kind != "state":
                notice = (_connection if kind == "connection" else _header).decode(envelope.payload)
                source = str(_asset(notice.x_beilun, match[2]))
                return (Notice(meta_of(notice.x_beilun, envelope, source)),)
            said = _state.decode(envelope.payload)
            t_ns = parse_time(said.timestamp)
        except msgspec.ValidationError as error:
            raise Unusable("bad_shape", str(error)) from None
        except ValueError as error:
            raise Unusable("not_json", str(error)) from None
        if said.x_beilun is not None and said.x_beilun.t_ns is not None:
            t_ns = said.x_beilun.t_ns  # the standard's stamp has milliseconds only
        check_times(t_ns, t_ns)
        asset = _asset(said.x_beilun, match[2])
        return (
            Batch(asset, "process", np.array([t_ns], dtype=np.int64), _channels(said),
                  meta_of(said.x_beilun, envelope, str(asset))),
        )  # fmt: skip


def _asset(stamps: Stamps | None, serial: str) -> Asset:
    """The plant's place for a vehicle; an unknown one stands on its own in ``vda5050/agv``."""
    if stamps is None or not stamps.asset:
        name = serial if is_level(serial) else "unnamed"
        return Asset("vda5050", "agv", "fleet", name)
    parts = stamps.asset.split("/")
    if len(parts) != 4 or not all(map(is_level, parts)):
        raise Unusable("bad_shape", f"x_beilun.asset is no site/area/line/asset: {stamps.asset!r}")
    return Asset(*parts)


def _channels(said: _State) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    position = said.agvPosition
    wants = said.newBaseRequest or said.paused or bool(said.errors)
    columns = {
        "mission": float(bool(said.orderId) and bool(said.nodeStates)),
        "driving": float(said.driving),
        "loaded": float(bool(said.loads)),
        "waiting": float(wants and not said.driving),
        "charging": float(said.batteryState.charging),
        "battery_ratio": said.batteryState.batteryCharge / 100.0,
        "x_m": position.x if position else float("nan"),
        "y_m": position.y if position else float("nan"),
    }
    return {name: np.array([value]) for name, value in columns.items()}


CODEC = Vda5050()
