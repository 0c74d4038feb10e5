"""Machines' lives from short scripts to recordings: what the wire would have carried, in JSON.

A script is a timeline. Times are hours since the life began, so no clock change can blur them:

    0:00       planned=1 order=1 pri_s=60 EXECUTE     from now on, each on its own stream
    0:00-8:00  produced+1 scrap+1 every 60s           counters; the first after 30 s, half of 60 s
    3:00       biscuit_mm=24.9                        one reading
    5:00       restart                                the machine starts anew, its counters at 0
    6:00-7:00  silent                                 tells nothing; its counters go on
    1:00       produced+5 arrives 2:30                what it tells now reaches the edge later
    8:00       end                                    of the recording

A word in capitals is a PackML state. A machine that told its state (or a vehicle its mission) says
it again every minute, as the wire asks. Counters stand at 0 at the start and after a restart, and
say so. Everything told on one stream at one moment is one message with one sample, which arrives
``DELAY_NS`` after it was sent. Nothing of the simulator or the edge is used here: this is the
sender's side of the wire contract, written a second time.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from ingest.decode import Decoder
from ingest.messages import Asset, Reject
from ingest.packml import PackML
from ingest.recording import Recording
from ingest.subscribe import Received

NS_PER_S = 10**9
DELAY_NS = 10_000_000
"""10 ms, the last delay that is within 10 ms."""
RUN = "known"
_HEARTBEAT_S = 60
_PROGRESS_S = 600
_STREAMS = {
    "state": ("state", "mode", "maintenance", "mission", "driving", "loaded", "waiting",
              "battery_ratio"),
    "calendar": ("planned",),
    "orders": ("order", "pri_s", "quantity", "planned_scrap"),
    "event": ("cycle_s", "biscuit_mm", "pressure_mpa", "diameter_mm"),
    "flow": ("entered", "left", "scrapped", "age_piece_s", "heads", "value_cny", "consumed",
             "good", "integrated_good", "production_loss", "storage_loss", "other_loss",
             "orders_finished", "lead_order_s"),
}  # fmt: skip
_STREAM = {channel: stream for stream, channels in _STREAMS.items() for channel in channels}
"""Any other channel is on ``process``."""
_MOMENT = re.compile(r"(\d+):(\d\d)(?::(\d\d))?")


def seconds(text: str) -> int:
    """Seconds of ``H:MM`` or ``H:MM:SS``."""
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise ValueError(f"not H:MM or H:MM:SS: {text!r}")
    hours, minutes, rest = found.groups("0")
    return 3_600 * int(hours) + 60 * int(minutes) + int(rest)


def epoch_ns(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time with its offset."""
    return int(datetime.fromisoformat(text).timestamp()) * NS_PER_S


@dataclass(frozen=True, slots=True)
class Machine:
    """One asset: its kind, its script, and limits of channels that have any."""

    asset: Asset
    kind: str
    script: str
    limits: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])


@dataclass(frozen=True, slots=True)
class Life:
    """A recording to be: machines, when it begins, and the edge's settings."""

    name: str
    start: str
    machines: tuple[Machine, ...]
    windows: tuple[str, ...]
    zone: str = "UTC"
    shifts: tuple[str, ...] = ("06:00", "14:00", "22:00")


Place = tuple[int, str]
"""Second of a life, and stream."""


class _Sample(NamedTuple):
    """What is told on one stream at one second of a life."""

    second: int
    stream: str
    boot: int
    arrives: int | None
    cells: dict[str, float]


class _Message(NamedTuple):
    arrival_ns: int
    topic: str
    body: dict[str, object]
    stamps: dict[str, object]


@dataclass(slots=True)
class _Plan:
    """A script read: by second and stream what is set, added, and when it arrives."""

    end: int = 0
    sets: dict[Place, dict[str, float]] = field(default_factory=dict[Place, dict[str, float]])
    adds: dict[Place, dict[str, float]] = field(default_factory=dict[Place, dict[str, float]])
    arrives: dict[Place, int] = field(default_factory=dict[Place, int])
    restarts: list[int] = field(default_factory=list[int])
    silences: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])


def _read(script: str) -> _Plan:
    plan = _Plan()
    for line in script.strip().splitlines():
        when, *words = line.split()
        first, dash, last = when.partition("-")
        start, end = seconds(first), seconds(last) if dash else 0
        if words == ["end"]:
            plan.end = start
        elif words == ["restart"]:
            plan.restarts.append(start)
        elif words == ["silent"]:
            plan.silences.append((start, end))
        else:
            _read_words(plan, words, start, end)
    return plan


def _read_words(plan: _Plan, words: list[str], start: int, end: int) -> None:
    moments, arrival = [start], None
    if len(words) > 2 and words[-2] == "every":
        period = int(words[-1].removesuffix("s"))
        moments, words = list(range(start + period // 2, end, period)), words[:-2]
    elif len(words) > 2 and words[-2] == "arrives":
        arrival, words = seconds(words[-1]), words[:-2]
    for word in words:
        name, plus, amount = word.partition("+")
        where, value = plan.adds, amount
        if not plus:
            name, _, value = word.partition("=")
            where = plan.sets
            if word.isupper():
                name, value = "state", str(int(PackML[word]))
        stream = _STREAM.get(name, "process")
        for second in moments:
            cells = where.setdefault((second, stream), {})
            cells[name] = cells.get(name, 0.0) + float(value) if plus else float(value)
            if arrival is not None:
                plan.arrives[second, stream] = arrival


def _samples(plan: _Plan) -> Iterator[_Sample]:
    """Everything told, in order of time; what is told in one breath, stream by stream."""
    counters = {name for cells in plan.adds.values() for name in cells}
    baseline = {_STREAM.get(name, "process") for name in counters}
    known: dict[str, dict[str, float]] = {}
    starts = [0, *plan.restarts]
    told = {*plan.sets, *plan.adds, *((second, b) for second in starts for b in baseline)}
    firsts = [second for second, stream in plan.sets if stream == "state"]
    if firsts:
        told |= {(second, "state") for second in range(min(firsts), plan.end, _HEARTBEAT_S)}
    boot = 0
    for second, stream in sorted(told):
        while boot < len(starts) and starts[boot] <= second:
            boot += 1
            for name in counters:
                known.setdefault(_STREAM.get(name, "process"), {})[name] = 0.0
        cells = known.setdefault(stream, {})
        if stream == "event":
            cells.clear()
        cells.update(plan.sets.get((second, stream), {}))
        for name, amount in plan.adds.get((second, stream), {}).items():
            cells[name] = round(cells[name] + amount, 6)
        if not any(low <= second < high for low, high in plan.silences):
            yield _Sample(second, stream, boot, plan.arrives.get((second, stream)), dict(cells))


def _messages(machine: Machine, start_ns: int) -> Iterator[_Message]:
    """A machine's birth and all it tells, each numbered by it, in order of time."""
    plan = _read(machine.script)
    names = {name for cells in (*plan.sets.values(), *plan.adds.values()) for name in cells}
    birth: dict[str, object] = {
        "kind": machine.kind, "t_ns": start_ns, "ch": dict.fromkeys(sorted(names), "1"),
    }  # fmt: skip
    if machine.limits:
        birth["limits"] = machine.limits
    root = f"beilun/v1/{machine.asset}"
    number, last_boot = 1, 1

    def stamps(t_ns: int, arrival_ns: int, boot: int) -> dict[str, object]:
        return {"boot": boot, "seq": number, "sent_ns": t_ns, "arrival_ns": arrival_ns}

    arrival_ns = start_ns + DELAY_NS
    yield _Message(arrival_ns, f"{root}/birth", birth, stamps(start_ns, arrival_ns, 1))
    for second, stream, boot, arrives, cells in _samples(plan):
        number = 1 if boot > last_boot else number + 1
        last_boot = boot
        t_ns = start_ns + second * NS_PER_S
        arrival_ns = DELAY_NS + (t_ns if arrives is None else start_ns + arrives * NS_PER_S)
        body: dict[str, object] = {"t_ns": t_ns, "ch": {k: [v] for k, v in sorted(cells.items())}}
        yield _Message(arrival_ns, f"{root}/{stream}", body, stamps(t_ns, arrival_ns, boot))


def published(life: Life) -> list[Received]:
    """Every message of a life as the broker hands it over, in order of arrival, with the progress
    of the one connection that carries them all."""
    start_ns, end = epoch_ns(life.start), max(_read(m.script).end for m in life.machines)
    said = [message for machine in life.machines for message in _messages(machine, start_ns)]
    said.sort(key=lambda message: message.arrival_ns)
    if said[-1].arrival_ns > start_ns + end * NS_PER_S:
        raise ValueError(f"{life.name}: something reaches the edge after the end")
    site = life.machines[0].asset.site
    out: list[Received] = []
    marks = [start_ns + s * NS_PER_S for s in (*range(_PROGRESS_S, end, _PROGRESS_S), end)]

    def progress(arrival_ns: int, made: int, *, last: bool) -> None:
        body: dict[str, object] = {
            "run": RUN, "arrival_ns": arrival_ns, "next_cseq": made + 1, "made": made, "lost": {},
            "shed": 0, "end": last, "connections": 1,
        }  # fmt: skip
        out.append(_received(f"beilun/v1/{site}/_link/c1/progress", body))

    for number, (arrival_ns, topic, body, stamps) in enumerate(said, 1):
        while marks and marks[0] < arrival_ns:
            progress(marks.pop(0), number - 1, last=False)
        whole = {"run": RUN, "conn": "c1", "cseq": number, **stamps}
        out.append(_received(topic, body | {"x_beilun": whole}))
    for mark in marks[:-1]:
        progress(mark, len(said), last=False)
    progress(marks[-1], len(said), last=True)
    return out


def _received(topic: str, body: dict[str, object]) -> Received:
    return Received(topic, json.dumps(body).encode(), 0, False, (0, 0))


def record(life: Life, path: Path, groups: Iterable[Sequence[Received]]) -> None:
    """A recording of messages as an edge journals them, group by group; its rows are still to be
    computed."""
    edge = {"windows": life.windows, "zone": life.zone, "shifts": life.shifts, "pane": "10m",
            "lateness": "2s", "retention": "1d", "max_skew": "5s"}  # fmt: skip
    decoder = Decoder()
    with Recording.create(path) as recording:
        header = {"run": RUN, "source": "live", "name": life.name, "edge": json.dumps(edge)}
        recording.set_meta(header)
        for group in groups:
            found = [decoder.receive(*message[:3]) for message in group]
            refused = [each for each in found if isinstance(each, Reject)]
            if refused:
                raise ValueError(f"{life.name}: {refused[0].reason}: {refused[0].detail}")
            recording.append([r for each in found if not isinstance(each, Reject) for r in each])
