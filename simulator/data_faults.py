"""What spoils telemetry on its way from a device to its terminal: sensors, counters, reboots.

Theory of operation
===================

    plant ─► device ─► readings spoilt ─► messages spoilt ─► clock ─► terminal ─► link
               │       stuck, drift,      lost, sent twice,
               ▼       spike, rollover    held back, reboot
             truth

A fault changes what is said and never what happens, so the truth stays what it was. Faults act in
the order of the scenario, each with a random stream of its own for every device: another fault, or
another device, changes no draw.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import fmod
from zlib import crc32

import numpy as np

from config.faults import (
    ChannelFault,
    CounterRollover,
    DataFault,
    Drift,
    Dropout,
    Duplicate,
    Reboot,
    Reorder,
    Spike,
    Stuck,
    Timed,
)
from config.units import NS_PER_S
from ingest.messages import Asset
from simulator.device import Columns, Report, Stretch, VdaConnection

Value = float | int | None
_HOUR_NS = 3_600 * NS_PER_S
_DECIMALS = 6
"""Finer than any instrument: what sums and differences of readings are rounded to."""
_OWN_STREAMS = 100
"""Streams of a device below this number are the device's own."""

COUNTERS = frozenset(
    {
        "produced", "scrap", "rework", "inspected", "first_pass", "energy_kwh", "length_m",
        "scrap_m", "melt_kg", "spark_faults", "uplink_failures", "downlink_failures",
    }
)  # fmt: skip
"""Channels that count up, in a memory that a reboot clears."""


@dataclass(frozen=True, slots=True)
class Said:
    """Something a device says, as it leaves for the link."""

    report: Report | None
    """``None``: its birth."""
    goes_ns: int
    """When it goes to the terminal; its stamps may say an earlier time."""
    boot: int = 1
    again: bool = False
    """Whether it is the one before once more, with the same number."""
    until_heard: bool = False
    """Whether it is said again when the link loses it."""

    @property
    def said_ns(self) -> int:
        """When the device made it, and numbered it."""
        return self.goes_ns if self.report is None else self.report.sent_ns


class Spoiler:
    """All that spoils the telemetry of one device."""

    def __init__(
        self, asset: Asset, faults: Iterable[tuple[int, DataFault]], seed: int, start_ns: int
    ) -> None:
        """``faults`` each with its number in the scenario, which chooses its random stream."""
        identity = crc32(str(asset).encode())
        self._asset = asset
        self._readings: list[_Readings] = []
        self._messages: list[_Messages] = []
        self._announced: list[Spike | CounterRollover] = []
        reboots: list[Reboot] = []
        for number, fault in faults:
            if isinstance(fault, Spike | CounterRollover) and fault.announced:
                self._announced.append(fault)
            draws = np.random.default_rng([seed, identity, _OWN_STREAMS + number])
            match fault:
                case Reboot():
                    reboots.append(fault)
                case Duplicate():
                    self._messages.append(_Duplicates(fault, start_ns, draws))
                case Reorder():
                    self._messages.append(_Delays(fault, start_ns, draws))
                case Dropout(of="messages"):
                    self._messages.append(_Losses(fault, start_ns, draws))
                case ChannelFault():
                    self._readings.append(_READINGS[type(fault)](fault, start_ns, draws))
                case _:
                    pass  # a clock's
        self._boots = _Boots(asset, reboots, start_ns)

    def modulus(self, channels: Iterable[str]) -> dict[str, float]:
        """Where counters begin again at 0, of those that announce it; of several moduli of one
        counter nobody could say."""
        moduli = [f for f in self._announced if isinstance(f, CounterRollover)]
        found: dict[str, float] = {}
        for name in COUNTERS.intersection(channels):
            mine = {fault.modulus for fault in moduli if fnmatchcase(name, fault.channel)}
            if len(mine) == 1:
                found[name] = mine.pop()
        return dict(sorted(found.items()))

    def sentinels(self, channels: Iterable[str]) -> dict[str, list[float]]:
        """Readings that mean no measurement, of channels that announce them."""
        spikes = [f for f in self._announced if isinstance(f, Spike)]
        found: dict[str, list[float]] = {}
        for name in channels:
            values = {v for f in spikes if fnmatchcase(name, f.channel) for v in f.values}
            if values:
                found[name] = sorted(values)
        return found

    def first(self, reports: Iterable[Report]) -> list[Said]:
        """What it says at the very start, spared by all but what sits in its counters."""
        out: list[Said] = []
        for report in reports:
            self._boots.watch(report)
            wrapped = self._read(report, [r for r in self._readings if isinstance(r, _Rollover)])
            out.append(Said(wrapped, report.sent_ns))
        return out

    def spoil(self, reports: Iterable[Report], stretch: Stretch) -> list[Said]:
        """What goes to the terminal of all it says about a stretch, in the order it was made."""
        in_order = sorted(reports, key=lambda report: report.sent_ns)
        out: list[Said] = []
        for each in self._boots.restart(in_order, stretch):
            report = each.report
            said = each if report is None else replace(each, report=self._read(report))
            parts = [said]
            if report is not None and not said.until_heard:
                for stage in self._messages:
                    parts = [part for one in parts for part in stage.spoil(one)]
            out += parts
        return out

    def _read(self, report: Report, stages: "Sequence[_Readings] | None" = None) -> Report:
        if isinstance(report, Columns):
            for stage in self._readings if stages is None else stages:
                report = stage.spoil(report)
        return report


class _Stage:
    """One fault of one device: when it holds, and its draws."""

    def __init__(self, fault: Timed, start_ns: int, draws: np.random.Generator) -> None:
        self.begin_ns = start_ns + fault.after
        self.end_ns = self.begin_ns + fault.length
        self.draws = draws

    def holds(self, t_ns: int) -> bool:
        return self.begin_ns <= t_ns < self.end_ns


class _Readings(_Stage):
    """Spoils the readings of some channels that are taken while it holds."""

    def __init__(self, fault: ChannelFault, start_ns: int, draws: np.random.Generator) -> None:
        super().__init__(fault, start_ns, draws)
        self._glob = fault.channel

    def spoil(self, columns: Columns) -> Columns:
        when = [i for i, t_ns in enumerate(columns.t_ns) if self.holds(t_ns)]
        ch: dict[str, Sequence[Value]] = {}
        for name, values in columns.ch.items():
            if not fnmatchcase(name, self._glob):
                ch[name] = values
                continue
            self.watch((columns.stream, name), columns.t_ns, values)
            read = list(values)
            if when:
                spoilt = self.read((columns.stream, name), columns.t_ns, values, when)
                for i, value in zip(when, spoilt, strict=True):
                    read[i] = value
            ch[name] = read
        return replace(columns, ch=ch)

    def watch(self, key: tuple[str, str], t_ns: Sequence[int], values: Sequence[Value]) -> None:
        """Look at what comes before."""

    def read(
        self, key: tuple[str, str], t_ns: Sequence[int], values: Sequence[Value], when: list[int]
    ) -> list[Value]:
        """What is read in place of some values."""
        raise NotImplementedError


class _Stuck(_Readings):
    def __init__(self, fault: Stuck, start_ns: int, draws: np.random.Generator) -> None:
        super().__init__(fault, start_ns, draws)
        self._held: dict[tuple[str, str], Value] = {}

    def watch(self, key: tuple[str, str], t_ns: Sequence[int], values: Sequence[Value]) -> None:
        for t, value in zip(t_ns, values, strict=True):
            if t < self.begin_ns:
                self._held[key] = value

    def read(
        self, key: tuple[str, str], t_ns: Sequence[int], values: Sequence[Value], when: list[int]
    ) -> list[Value]:
        return [self._held.setdefault(key, values[i]) for i in when]


class _Drift(_Readings):
    def __init__(self, fault: Drift, start_ns: int, draws: np.random.Generator) -> None:
        super().__init__(fault, start_ns, draws)
        self._per_ns = fault.per_h / _HOUR_NS

    def read(
        self, key: tuple[str, str], t_ns: Sequence[int], values: Sequence[Value], when: list[int]
    ) -> list[Value]:
        return [_plus(values[i], (t_ns[i] - self.begin_ns) * self._per_ns) for i in when]


class _Spike(_Readings):
    def __init__(self, fault: Spike, start_ns: int, draws: np.random.Generator) -> None:
        super().__init__(fault, start_ns, draws)
        self._ratio, self._values = fault.ratio, fault.values

    def read(
        self, key: tuple[str, str], t_ns: Sequence[int], values: Sequence[Value], when: list[int]
    ) -> list[Value]:
        dice = self.draws.random((len(when), 2)).tolist()
        n = len(self._values)
        return [
            _plain(self._values[int(which * n)]) if hit < self._ratio else values[i]
            for i, (hit, which) in zip(when, dice, strict=True)
        ]


class _Missing(_Readings):
    def __init__(self, fault: Dropout, start_ns: int, draws: np.random.Generator) -> None:
        super().__init__(fault, start_ns, draws)
        self._ratio = fault.ratio

    def read(
        self, key: tuple[str, str], t_ns: Sequence[int], values: Sequence[Value], when: list[int]
    ) -> list[Value]:
        dice = self.draws.random(len(when)).tolist()
        return [None if hit < self._ratio else values[i] for i, hit in zip(when, dice, strict=True)]


class _Rollover(_Readings):
    def __init__(self, fault: CounterRollover, start_ns: int, draws: np.random.Generator) -> None:
        super().__init__(fault, start_ns, draws)
        self._modulus = fault.modulus

    def read(
        self, key: tuple[str, str], t_ns: Sequence[int], values: Sequence[Value], when: list[int]
    ) -> list[Value]:
        return [self._wrapped(values[i]) for i in when]

    def _wrapped(self, value: Value) -> Value:
        if value is None:
            return None
        rest = round(fmod(value, self._modulus), _DECIMALS)
        return int(rest) if isinstance(value, int) and rest.is_integer() else rest


_READINGS: Mapping[type[ChannelFault], Callable[..., _Readings]] = {
    Stuck: _Stuck, Drift: _Drift, Spike: _Spike, Dropout: _Missing, CounterRollover: _Rollover,
}  # fmt: skip


class _Messages(_Stage):
    """Spoils some of the messages that are made while it holds."""

    def __init__(
        self, fault: Duplicate | Reorder | Dropout, start_ns: int, draws: np.random.Generator
    ) -> None:
        super().__init__(fault, start_ns, draws)
        self._ratio = fault.ratio

    def spoil(self, said: Said) -> list[Said]:
        """What becomes of a message; one that is a copy shares the fate of its original."""
        if said.again or not self.holds(said.said_ns) or self.draws.random() >= self._ratio:
            return [said]
        return self.hit(said)

    def hit(self, said: Said) -> list[Said]:
        """What becomes of one of those it strikes."""
        raise NotImplementedError


class _Losses(_Messages):
    def hit(self, said: Said) -> list[Said]:
        return []


class _Duplicates(_Messages):
    def hit(self, said: Said) -> list[Said]:
        return [said, replace(said, again=True)]


class _Delays(_Messages):
    def __init__(self, fault: Reorder, start_ns: int, draws: np.random.Generator) -> None:
        super().__init__(fault, start_ns, draws)
        self._window_ns = fault.window

    def hit(self, said: Said) -> list[Said]:
        held_ns = int(self.draws.integers(1, self._window_ns, endpoint=True))
        return [replace(said, goes_ns=said.goes_ns + held_ns)]


class _Boots:
    """When a device is down, and what of its counters and readings it knows after that."""

    def __init__(self, asset: Asset, reboots: Iterable[Reboot], start_ns: int) -> None:
        self._asset = asset
        spans = ((start_ns + f.after, start_ns + f.after + f.length) for f in reboots)
        self._spans = sorted(spans)
        self._boot = 1
        self._base: dict[str, Value] = {}
        """By counter the reading at which it last began anew."""
        self._read: dict[str, tuple[int, Value]] = {}
        """By channel the last reading, as the machine has it."""
        self._streams: dict[str, tuple[str, ...]] = {}
        """Channels of what is said at a start, by stream."""
        self._online = False

    def watch(self, report: Report) -> None:
        """Note what is said at the start of the run."""
        if isinstance(report, VdaConnection):
            self._online = True
        elif isinstance(report, Columns):
            self._streams[report.stream] = tuple(
                dict.fromkeys((*self._streams.get(report.stream, ()), *report.ch))
            )
            self._learn([report], report.sent_ns)

    def restart(self, reports: Sequence[Report], stretch: Stretch) -> list[Said]:
        """What is said of all that happened in a stretch, in order of time."""
        if not self._spans:
            return [Said(report, report.sent_ns) for report in reports]
        out: list[Said] = []
        since_ns = stretch.after_ns + 1
        for down_ns, up_ns in self._spans:
            if up_ns <= stretch.after_ns or down_ns > stretch.to_ns:
                continue
            if down_ns > stretch.after_ns:
                out += self._during(reports, since_ns, down_ns, stretch)
                self._learn(reports, down_ns)
                self._base = {n: v for n, (_, v) in self._read.items() if n in COUNTERS}
            since_ns = up_ns
            if up_ns <= stretch.to_ns:
                self._learn(reports, up_ns)
                self._boot += 1
                out += self._begin(up_ns)
        out += self._during(reports, since_ns, stretch.to_ns + 1, stretch)
        self._learn(reports, stretch.to_ns)
        return out

    def _during(
        self, reports: Iterable[Report], from_ns: int, to_ns: int, stretch: Stretch
    ) -> list[Said]:
        """What is said in ``[from_ns, to_ns)``, with nothing from before it."""
        out: list[Said] = []
        for report in reports:
            if not isinstance(report, Columns):
                if from_ns <= report.sent_ns < to_ns:
                    out.append(Said(report, report.sent_ns, self._boot))
                continue
            part = report
            if stretch.bundled and report.sent_ns == stretch.to_ns:
                # A bundle stands for messages that were sent at once.
                kept = [i for i, t_ns in enumerate(report.t_ns) if from_ns <= t_ns < to_ns]
                part = _some(report, kept, min(report.sent_ns, to_ns - 1))
            elif not from_ns <= report.sent_ns < to_ns:
                continue
            elif report.t_ns[0] < from_ns and from_ns > stretch.after_ns + 1:
                kept = [i for i, t_ns in enumerate(report.t_ns) if t_ns >= from_ns]
                part = _some(report, kept, report.sent_ns)
            if part.t_ns:
                out.append(Said(self._counted(part), part.sent_ns, self._boot))
        return sorted(out, key=lambda said: said.goes_ns)

    def _begin(self, t_ns: int) -> list[Said]:
        """What a device says when it has started: what it is, and how it is."""
        reports: list[Report] = [VdaConnection(self._asset, t_ns)] if self._online else []
        for stream, names in self._streams.items():
            ch = {name: (self._read[name][1],) for name in names if name in self._read}
            reports.append(self._counted(Columns(self._asset, stream, t_ns, (t_ns,), ch)))
        said = [Said(report, t_ns, self._boot, until_heard=True) for report in reports]
        return [Said(None, t_ns, self._boot, until_heard=True), *said]

    def _counted(self, columns: Columns) -> Columns:
        """With counters as they are since the last start."""
        if not self._base:
            return columns
        ch = {
            name: [_plus(v, -(self._base[name] or 0)) for v in values]
            if name in self._base
            else values
            for name, values in columns.ch.items()
        }
        return replace(columns, ch=ch)

    def _learn(self, reports: Iterable[Report], to_ns: int) -> None:
        """Note the last reading of every channel up to a time."""
        for report in reports:
            if isinstance(report, Columns):
                n = sum(t_ns <= to_ns for t_ns in report.t_ns)
                for name, values in report.ch.items() if n else ():
                    known = self._read.get(name)
                    if known is None or report.t_ns[n - 1] >= known[0]:
                        self._read[name] = (report.t_ns[n - 1], values[n - 1])


def _some(columns: Columns, kept: Sequence[int], sent_ns: int) -> Columns:
    """Some of the samples, sent at a time."""
    ch = {name: [values[i] for i in kept] for name, values in columns.ch.items()}
    return replace(columns, sent_ns=sent_ns, t_ns=[columns.t_ns[i] for i in kept], ch=ch)


def _plus(value: Value, more: float) -> Value:
    """A reading moved by something: whole numbers stay whole, and nothing stays nothing."""
    if value is None:
        return None
    return round(value + more) if isinstance(value, int) else round(value + more, _DECIMALS)


def _plain(value: float) -> float | int:
    """A sentinel as an instrument writes it."""
    return int(value) if value.is_integer() else value
