"""What devices say as bytes: ``uns`` JSON for most, VDA 5050 2.1 for AGVs, stamps on both."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby

import msgspec

from config.units import format_time
from ingest import topics
from ingest.messages import Asset
from simulator.device import Columns, Report, VdaConnection, VdaState

MANUFACTURER = "beilun"
_RETAINED = ("state", "birth")
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Unstamped:
    """A message before it is sent: everything but its transport's stamps."""

    asset: Asset
    topic: str
    body: bytes
    sent_ns: int
    """By the sender's own clock."""
    retain: bool
    names_asset: bool = False
    """Whether the stamps must say which asset it is: the topic does not."""


@dataclass(frozen=True, slots=True)
class Upset:
    """A stretch of true time, ``[start_ns, end_ns)``, in which a clock is wrong: by a step, and by
    a rate in parts per million since the start."""

    start_ns: int
    end_ns: int
    step_ns: int = 0
    rate_ppm: float = 0.0

    def off_ns(self, t_ns: int) -> int:
        """By how much, at a time of the stretch."""
        return self.step_ns + round((t_ns - self.start_ns) * self.rate_ppm / 1_000_000)


class Clock:
    """A device's clock: true time, but for what somebody did to it."""

    def __init__(self, upsets: Iterable[Upset] = ()) -> None:
        self._upsets = tuple(upsets)

    def reads(self, t_ns: int) -> int:
        """What it says at a true time."""
        return t_ns + sum(u.off_ns(t_ns) for u in self._at(t_ns))

    def _at(self, t_ns: int) -> tuple[Upset, ...]:
        return tuple(u for u in self._upsets if u.start_ns <= t_ns < u.end_ns)

    def dated(self, report: Report) -> list[Report]:
        """A report with the stamps this clock gave, cut where the clock was set under it: what was
        sampled before keeps its stamps, and within a message time runs forward."""
        if not self._upsets:
            return [report]
        sent_ns = self.reads(report.sent_ns)
        if not isinstance(report, Columns):
            return [replace(report, sent_ns=sent_ns)]
        parts: list[Report] = []
        numbered = enumerate(report.t_ns)
        for _, samples in groupby(numbered, key=lambda sample: self._at(sample[1])):
            part = list(samples)
            low, high = part[0][0], part[-1][0] + 1
            times = [self.reads(t_ns) for _, t_ns in part]
            ch = {name: values[low:high] for name, values in report.ch.items()}
            parts.append(replace(report, sent_ns=sent_ns, t_ns=times, ch=ch))
        return parts


def birth(
    asset: Asset,
    kind: str,
    channels: Mapping[str, str],
    t_ns: int,
    limits: Mapping[str, tuple[float, float]] | None = None,
    *,
    by_exception: bool = False,
    modulus: Mapping[str, float] | None = None,
    sentinels: Mapping[str, Sequence[float]] | None = None,
    gathered_ns: Mapping[str, int] | None = None,
) -> Unstamped:
    """The retained announcement of an asset, with the specification limits of its channels,
    whether it tells of its states only when they change, where its counters begin again at 0,
    which readings mean no measurement, and how long the stretches are that some channels tell of
    at once."""
    said: dict[str, object] = {"kind": kind, "t_ns": t_ns, "ch": channels}
    if limits:
        said["limits"] = limits
    if by_exception:
        said["by_exception"] = True
    if modulus:
        said["modulus"] = modulus
    if sentinels:
        said["sentinels"] = sentinels
    if gathered_ns:
        said["gathered_ns"] = gathered_ns
    body = _encode(said)
    return Unstamped(asset, topics.of(asset, "birth"), body, t_ns, True)


class Wire:
    """Encodes reports; counts VDA 5050 header ids per topic."""

    def __init__(self) -> None:
        self._header_ids: dict[str, int] = {}

    def restart(self, serial: str) -> None:
        """A vehicle starts anew, and its header ids with it."""
        for name in ("state", "connection"):
            self._header_ids.pop(_vda_topic(serial, name), None)

    def encode(self, report: Report) -> Unstamped:
        """One report as one message."""
        if isinstance(report, Columns):
            return _columns(report)
        if isinstance(report, VdaState):
            return self._vda(report, "state", _state(report), retain=False)
        return self._vda(report, "connection", {"connectionState": "ONLINE"}, retain=True)

    def _vda(
        self,
        report: VdaState | VdaConnection,
        name: str,
        said: Mapping[str, object],
        *,
        retain: bool,
    ) -> Unstamped:
        serial = report.asset.name
        topic = _vda_topic(serial, name)
        number = self._header_ids.get(topic, 0)
        self._header_ids[topic] = (number + 1) % (1 << 32)
        header = {
            "headerId": number,
            "timestamp": format_time(report.sent_ns),
            "version": "2.1.0",
            "manufacturer": MANUFACTURER,
            "serialNumber": serial,
        }
        body = _encode(header | dict(said))
        return Unstamped(report.asset, topic, body, report.sent_ns, retain, True)


def _vda_topic(serial: str, name: str) -> str:
    return f"uagv/v2/{MANUFACTURER}/{serial}/{name}"


def stamped(
    message: Unstamped, *, run: str, conn: str, cseq: int, boot: int, seq: int, arrival_ns: int
) -> bytes:
    """The payload with its stamps, which are all known only on arrival."""
    exact = f',"asset":"{message.asset}","t_ns":{message.sent_ns}' if message.names_asset else ""
    stamps = (
        f',"x_beilun":{{"run":{_text(run)},"conn":"{conn}","cseq":{cseq},"boot":{boot},'
        f'"seq":{seq},"sent_ns":{message.sent_ns},"arrival_ns":{arrival_ns}{exact}}}}}'
    )
    return message.body[:-1] + stamps.encode()


STAMP_BYTES = 160
"""What the stamps add to a message, about: the link is asked before they are known."""


def progress(
    run: str, connections: int, arrival_ns: int, next_cseq: int, made: int, lost: Mapping[str, int],
    shed: int, end: bool,
) -> bytes:  # fmt: skip
    """How far a connection is."""
    return _encode(
        {
            "run": run, "arrival_ns": arrival_ns, "next_cseq": next_cseq, "made": made,
            "lost": lost, "shed": shed, "end": end, "connections": connections,
        }
    )  # fmt: skip


@lru_cache(maxsize=16)
def _text(text: str) -> str:
    """A text as JSON."""
    return _encode(text).decode()


def _columns(report: Columns) -> Unstamped:
    times = report.t_ns
    said: dict[str, object] = {"t_ns": times[0]}
    if len(times) > 1:
        step = times[1] - times[0]
        if (
            0 < step < 1 << 40
            and times[-1] - times[0] == step * (len(times) - 1)
            and _regular(times, step)
        ):
            said["every_ns"] = step
        elif times[-1] == times[0]:
            said["after_ns"] = [0] * len(times)
        else:
            first = times[0]
            said["after_ns"] = [t - first for t in times]
    said["ch"] = report.ch
    topic = topics.of(report.asset, report.stream)
    retain = report.stream in _RETAINED
    return Unstamped(report.asset, topic, _encode(said), report.sent_ns, retain)


def _regular(times: Sequence[int], step: int) -> bool:
    return list(times) == list(range(times[0], times[-1] + 1, step))


def _state(said: VdaState) -> dict[str, object]:
    """VDA 5050 2.1 ``state``. A docking node counts as traversed when its action is done."""
    edges = [
        {
            "edgeId": f"to-{node}", "sequenceId": sequence - 1,
            "released": sequence <= said.base_sequence,
        }
        for node, sequence in said.nodes
        if sequence > said.last_sequence
    ]  # fmt: skip
    errors = [{"errorType": "watchdog", "errorLevel": "WARNING",
               "errorDescription": "no valid message from fleet control"}]  # fmt: skip
    nodes = [
        {"nodeId": node, "sequenceId": n, "released": n <= said.base_sequence}
        for node, n in said.nodes
    ]
    return {
        "orderId": said.order,
        "orderUpdateId": said.update,
        "lastNodeId": said.last_node,
        "lastNodeSequenceId": said.last_sequence,
        "nodeStates": nodes,
        "edgeStates": edges,
        "newBaseRequest": said.new_base_request,
        "driving": said.driving,
        "distanceSinceLastNode": said.since_node_m,
        "actionStates": [],
        "batteryState": {
            "batteryCharge": round(said.battery_ratio * 100, 2),
            "batteryVoltage": said.battery_v, "charging": said.charging,
        },
        "operatingMode": "AUTOMATIC",
        "errors": errors if said.waiting_for_link else [],
        "safetyState": {"eStop": "NONE", "fieldViolation": False},
        "agvPosition": {
            "x": said.x_m, "y": said.y_m, "theta": said.theta, "mapId": "floor",
            "positionInitialized": True,
        },
        "velocity": {"vx": said.speed_mps},
        "loads": [{"loadId": said.load}] if said.load else [],
    }  # fmt: skip
