"""``beilun explain``: where on the link the time of a recorded run's messages went."""

import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer

from beilun import console
from config.errors import Exit, RecordingError, UsageError
from config.globs import asset_matches
from config.tomlfile import guess
from config.units import NS_PER_MS, format_time
from ingest.messages import Times
from ingest.recording import PARTS, Recording, Trace

NAMES = {
    "hops_ns": "processing",
    "gap_ns": "handover",
    "queue_ns": "queue",
    "access_ns": "access",
    "align_ns": "slot",
    "air_ns": "air",
    "harq_ns": "repair",
    "core_ns": "core",
    "stall_ns": "transport",
}
"""A word for each part of a message's time."""
_MEANS = {
    "hops_ns": "in the device and the network's nodes",
    "gap_ns": "in a gap between two cells",
    "queue_ns": "behind other messages, its own device's or others'",
    "access_ns": "for a grant, or for a free medium",
    "align_ns": "for the next slot of its direction",
    "air_ns": "on the air",
    "harq_ns": "for transmissions that failed to be repeated",
    "core_ns": "between station and MEC",
    "stall_ns": "for TCP to send a lost segment again",
}
_WHY = {
    "outage": "its cell was off the air (outage)",
    "backhaul": "nothing passed between station and MEC (backhaul)",
    "broker": "the broker restarted and broke the connection",
    "drop": "a segment of it was lost behind the radio (drop)",
    "radio": "the radio gave it up",
}
_BAR = 30
_NEIGHBOURS = 3
_DIGITS = 18
"""Of the longest number of a message: what a recording's integers surely hold."""
TELEMETRY = "telemetry"


class Message(NamedTuple):
    """One message of the trace: its bearer, and every column of it."""

    asset: str
    way: str
    slice: str
    values: Mapping[str, int]

    @property
    def id(self) -> str:
        """What ``--message`` takes."""
        name = self.asset if self.way == TELEMETRY else f"{self.asset}/{self.way}"
        return f"{name}#{self.values['number']}"

    @property
    def lost(self) -> bool:
        """Whether it never arrived."""
        return self.values["arrival_ns"] < 0

    @property
    def spent_ns(self) -> int:
        """From sending to arrival, or to when it was known to be lost."""
        if self.lost:
            return sum(self.values[part] for part in PARTS)
        return self.values["arrival_ns"] - self.values["sent_ns"]

    @property
    def cause(self) -> str:
        """What held it back by itself or lost it; empty where nothing did, or where the trace does
        not tell: one made before causes were kept."""
        from simulator.link.surroundings import CAUSES

        return CAUSES[self.values.get("cause", 0)]

    def as_json(self, cells: Sequence[str]) -> dict[str, object]:
        """With times as they are recorded, in ns; ``arrival_ns`` is null for a lost message."""
        v = self.values
        return {
            "message": self.id, "asset": self.asset, "direction": _direction(self.way),
            "way": self.way, "slice": self.slice, "cell": _cell(cells, v["cell"]),
            "n_bytes": v["n_bytes"], "sent_ns": v["sent_ns"],
            "arrival_ns": None if self.lost else v["arrival_ns"], "delay_ns": self.spent_ns,
            "rounds": v["rounds"], "cause": self.cause or None, **{part: v[part] for part in PARTS},
        }  # fmt: skip


def command(
    file: Annotated[Path, typer.Argument(help="A recording made with --trace.")],
    message: Annotated[
        str | None, typer.Option(help="One message: ASSET#SEQ, ASSET/up#N or ASSET/down#N.")
    ] = None,
    asset: Annotated[str, typer.Option(help="Glob over the devices that are looked at.")] = "*",
    slowest: Annotated[int, typer.Option(min=0, help="How many of the slowest to list.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="NDJSON, times in ns.")] = False,
) -> Exit:
    """Say where on the link the time of messages went: hop by hop, or of one message."""
    with Recording.open(file) as recording:
        known = recording.traced()
        if not known:
            raise RecordingError(
                "holds no link trace",
                at=str(file),
                hint="make one with `beilun run SCENARIO --trace`, then explain that recording",
            )
        cells: Sequence[str] = recording.meta_json("cells") or ()
        if message is not None:
            _one(recording, message, known, cells, as_json=as_json)
        else:
            _all(recording, asset, known, cells, slowest, as_json=as_json)
    return Exit.OK


# One message --------------------------------------------------------------------------------------


def _one(
    recording: Recording,
    text: str,
    known: Sequence[tuple[str, str, int]],
    cells: Sequence[str],
    *,
    as_json: bool,
) -> None:
    asset, way, number = _parsed(text, known)
    traces = list(recording.trace(asset, way, numbers=(number, number)))
    found = next((m for trace in traces for m in _messages(trace, number)), None)
    if found is None:
        raise UsageError(
            f"{recording.path} has no message {text}", hint=_nearby(recording, asset, way, number)
        )
    before, after = _burst(recording, found)
    if as_json:
        burst = {"released_before": [m.id for m in before], "released_after": [m.id for m in after]}
        console.ndjson([found.as_json(cells) | burst])
        return
    v = found.values
    console.out(
        f"{found.id}: {'telemetry' if way == TELEMETRY else 'control traffic'},"
        f" {_direction(way)}, {v['n_bytes']:,} bytes",
        f"slice {found.slice}, cell {_cell(cells, v['cell'])}",
        "",
        f"{'sent':12}{format_time(v['sent_ns'])}",
    )
    longest = max(1, *(v[part] for part in PARTS))
    for part in PARTS:
        bar = "█" * max(round(v[part] / longest * _BAR), int(v[part] > 0))
        console.out(f"{NAMES[part]:12}{v[part] / NS_PER_MS:12.3f} ms  {bar}".rstrip())
    console.out(f"{'sum':12}{found.spent_ns / NS_PER_MS:12.3f} ms")
    console.out(
        f"{'lost':12}it never arrived" if found.lost
        else f"{'arrived':12}{format_time(v['arrival_ns'])}",
        "", *_in_words(found, before),
    )  # fmt: skip
    if before or after:
        rows = [
            ("this" if m is found else "", m.id, _since(m, found), m.spent_ns / NS_PER_MS)
            for m in (*before[-_NEIGHBOURS:], found, *after[:_NEIGHBOURS])
        ]
        console.out("", f"Released together: {len(before)} before it, {len(after)} after it")
        console.table(("", "message", "sent", "delay [ms]"), rows)


def _parsed(text: str, known: Sequence[tuple[str, str, int]]) -> tuple[str, str, int]:
    """Asset path, way and number of an ID."""
    name, mark, digits = text.rpartition("#")
    if not mark or not digits.isascii() or not digits.isdigit():
        raise UsageError(
            f"{text!r} names no message",
            hint="ASSET#SEQ is telemetry, ASSET/up#N and ASSET/down#N control traffic; without"
            " --message the slowest are listed with theirs",
        )
    ways = {way for _, way, _ in known} - {TELEMETRY}
    way = TELEMETRY
    if (last := name.rpartition("/"))[2] in ways:
        name, _, way = last
    paths = sorted({path for path, _, _ in known})
    found = [path for path in paths if name in (path, path.rpartition("/")[2])]
    if len(found) > 1:
        raise UsageError(f"{name} may be {' or '.join(found)}", hint="write the whole path")
    if not found:
        names = [path.rpartition("/")[2] for path in paths]
        raise UsageError(
            f"no device {name!r} in the trace{guess(name, [*paths, *names])}",
            hint=f"there are {', '.join(names)}",
        )
    if len(digits) > _DIGITS:
        raise UsageError(
            f"no message has a number of {len(digits)} digits",
            hint="without --message the slowest are listed with theirs",
        )
    return found[0], way, int(digits)


def _nearby(recording: Recording, asset: str, way: str, number: int) -> str:
    """Which numbers there are instead."""
    numbers = [trace.columns["number"] for trace in recording.trace(asset, way)]
    if not numbers:
        return "the device has no such traffic; without --message the slowest are listed"
    every = np.concatenate(numbers)
    at = int(np.searchsorted(every, number))
    near = [str(n) for n in every[max(at - 1, 0) : at + 1].tolist()]
    told = f"its numbers run from {every[0]} to {every[-1]}"
    if 0 < at < len(every):
        told += f"; near it is {' and '.join(near)} (the MES takes some of a device's numbers)"
    return told


def _burst(recording: Recording, found: Message) -> tuple[list[Message], list[Message]]:
    """What was released on the same bearer at the same instant, before it and after it."""
    if found.lost:
        return [], []
    at_ns, number = found.values["arrival_ns"], found.values["number"]
    reach, known = 0, 0
    while True:  # blocks around it, until the burst ends within them or there are no more
        traces = list(
            recording.trace(found.asset, found.way, numbers=(number - reach, number + reach))
        )
        arrivals = [trace.columns["arrival_ns"] for trace in traces]
        loaded = sum(map(len, arrivals))
        if loaded == known or at_ns not in (arrivals[0][0], arrivals[-1][-1]):
            break
        reach, known = 2 * loaded, loaded
    burst = [
        _message(trace, row)
        for trace, arrival in zip(traces, arrivals, strict=True)
        for row in np.flatnonzero(arrival == at_ns).tolist()
    ]
    before = [m for m in burst if m.values["number"] < number]
    return before, [m for m in burst if m.values["number"] > number]


def _in_words(message: Message, before: Sequence[Message]) -> Iterator[str]:
    """What the numbers mean, a line each."""
    v = message.values
    spent = {part: v[part] for part in PARTS}
    most = max(PARTS, key=lambda part: spent[part])
    share = spent[most] / max(message.spent_ns, 1)
    yield f"{share:.0%} of its time was {NAMES[most]}: {_MEANS[most]}."
    if v["gap_ns"]:
        yield f"Changed the cell: nothing passed for {_ms(v['gap_ns'])} after it was sent."
    if v["rounds"] > 1:
        failed = v["rounds"] - 1
        tries = "the first transmission" if failed == 1 else f"the first {failed} transmissions"
        yield f"{v['rounds']} HARQ rounds: {tries} failed, and {_ms(v['harq_ns'])} went by."
    if v["queue_ns"] > NS_PER_MS:
        yield f"Waited {_ms(v['queue_ns'])} behind other messages before the radio took it."
    if v["stall_ns"] and before:
        first = before[0]
        why = f": {_WHY[first.cause]}" if first.cause else ""
        yield (
            f"Waited {_ms(v['stall_ns'])} behind a lost segment (TCP retransmission): TCP keeps the"
            f" order, and {first.id} was not there{why}."
        )
        if message.cause:
            yield f"It would not have come through by itself either: {_WHY[message.cause]}."
    elif v["stall_ns"]:
        why = _WHY.get(message.cause, "its own segment was lost, or met a broken connection")
        yield f"Held back: {why}. TCP took {_ms(v['stall_ns'])} more to bring it through."
    if message.lost:
        why = _WHY.get(message.cause, "the radio or the network behind it gave it up")
        yield f"Lost: {why}, and nothing sent it again."


def _since(message: Message, other: Message) -> str:
    return f"{(message.values['sent_ns'] - other.values['sent_ns']) / NS_PER_MS:+.3f} ms"


# All messages -------------------------------------------------------------------------------------


def _all(
    recording: Recording,
    asset: str,
    known: Sequence[tuple[str, str, int]],
    cells: Sequence[str],
    slowest: int,
    *,
    as_json: bool,
) -> None:
    paths = sorted({path for path, _, _ in known})
    chosen = [path for path in paths if asset_matches(asset, path)]
    if not chosen:
        names = [path.rpartition("/")[2] for path in paths]
        raise UsageError(
            f"no device of the trace is {asset}{guess(asset, names)}",
            hint=f"there are {', '.join(names)}",
        )
    groups: defaultdict[tuple[str, str], list[Times]] = defaultdict(list)
    top: list[tuple[int, int, int, Message]] = []
    for path in chosen:
        for trace in recording.trace(path):
            columns = trace.columns
            spent = np.stack([columns[part] for part in PARTS])
            delay = np.where(
                columns["arrival_ns"] < 0, -1, columns["arrival_ns"] - columns["sent_ns"]
            )
            groups[_direction(trace.way), trace.slice].append(np.vstack((delay, spent)))
            if slowest:
                rows = np.argsort(-delay, kind="stable")[:slowest].tolist()
                top += [
                    (int(delay[row]), -int(columns["sent_ns"][row]), -len(top) - n,
                     _message(trace, row))
                    for n, row in enumerate(rows) if delay[row] >= 0
                ]  # fmt: skip
                top = heapq.nlargest(slowest, top)
    lines = [
        line for key, pieces in sorted(groups.items())
        for line in _summary(*key, np.concatenate(pieces, axis=1))
    ]  # fmt: skip
    found = [message for *_, message in top]
    if as_json:
        console.ndjson(lines)
        console.ndjson(message.as_json(cells) for message in found)
        return
    console.out("Where the time went, in ms per message")
    told = [
        (line["direction"], line["slice"], line["hop"], line["messages"], line["lost"],
         *(_in_ms(line[f"{what}_ns"]) for what in ("mean", "p50", "p99", "max")))
        for line in lines if line["max_ns"] or line["hop"] == "all"
    ]  # fmt: skip
    head = ("direction", "slice", "hop", "messages", "lost", "mean", "p50", "p99", "max")
    console.table(head, told)
    if found:
        console.out("", "The slowest; `--message ID` explains one")
        rows = [
            (m.id, format_time(m.values["sent_ns"]), m.spent_ns / NS_PER_MS,
             NAMES[max(PARTS, key=lambda part: m.values[part])], _cell(cells, m.values["cell"]))
            for m in found
        ]  # fmt: skip
        console.table(("message", "sent", "delay [ms]", "mostly", "cell"), rows)


def _summary(direction: str, slice: str, rows: Times) -> Iterator[dict[str, object]]:
    """Delay and parts of the messages of one direction and slice that arrived."""
    came = rows[:, rows[0] >= 0]
    lost = rows.shape[1] - came.shape[1]
    for name, values in zip(("all", *(NAMES[part] for part in PARTS)), came, strict=True):
        n = len(values)
        ordered = np.sort(values)
        yield {
            "direction": direction, "slice": slice, "hop": name, "messages": n, "lost": lost,
            "mean_ns": int(values.sum()) / n if n else None,
            "p50_ns": int(ordered[-(-n // 2) - 1]) if n else None,
            "p99_ns": int(ordered[-(-n * 99 // 100) - 1]) if n else None,
            "max_ns": int(ordered[-1]) if n else None,
        }  # fmt: skip


def _messages(trace: Trace, number: int) -> Iterator[Message]:
    for row in np.flatnonzero(trace.columns["number"] == number).tolist():
        yield _message(trace, row)


def _message(trace: Trace, row: int) -> Message:
    values = {name: int(column[row]) for name, column in trace.columns.items()}
    return Message(trace.asset, trace.way, trace.slice, values)


def _direction(way: str) -> str:
    return "down" if way.startswith("down") else "up"


def _cell(cells: Sequence[str], number: int) -> str:
    return cells[number] if number < len(cells) else str(number)


def _ms(t_ns: int) -> str:
    return f"{console.number(t_ns / NS_PER_MS)} ms"


def _in_ms(t_ns: object) -> float | None:
    return t_ns / NS_PER_MS if isinstance(t_ns, int | float) else None
