"""The ``mapped`` codec: anyone's JSON, read through a mapping.

A payload is one sample (an object, or a bare value), an array of samples, or one object whose
pointers lead to arrays of equal length. Every message yields the asset's birth as well, so that
decoding needs no memory; equal births are duplicates.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np

from config.mapping import NAMED, Channel, pointer_parts
from config.mapping import Mapping as MappingFile
from ingest.cells import shown, time_reader, value_reader
from ingest.codecs import Unusable
from ingest.codecs.stamps import check_times, meta_of
from ingest.messages import Asset, Batch, Birth, Envelope, Floats, Identity, Message, Meta
from ingest.topics import is_level

STREAM = "process"
MAX_SAMPLES = 20_000

_MISSING = object()
_decode = msgspec.json.Decoder().decode


class _Pick(NamedTuple):
    """Where a value stands in a sample, and how it is read."""

    name: str
    path: tuple[str, ...]
    read: Callable[[object], float]
    when: Mapping[str, str]


class Mapped:
    """Reads the topics of one mapping."""

    def __init__(self, mapping: MappingFile, name: str = "mapped") -> None:
        if mapping.live is None:
            raise ValueError("the mapping has no [live]")
        self.name = name
        self.mapping = mapping
        self.source = mapping.text
        self._pattern = re.compile("/".join(map(_level, mapping.live.topic.split("/"))))
        self._samples = pointer_parts(mapping.live.samples)
        pointer = mapping.time.pointer
        self._time = None if pointer is None else pointer_parts(pointer)
        self._read_time = time_reader(mapping.time)
        self._picks = [_pick(channel) for channel in mapping.channel]

    def topics(self) -> tuple[str, ...]:
        """What to subscribe to."""
        assert self.mapping.live is not None
        levels = self.mapping.live.topic.split("/")
        return ("/".join("+" if "{" in level else level for level in levels),)

    def claims(self, topic: str) -> bool:
        return self._pattern.fullmatch(topic) is not None

    def decode(self, envelope: Envelope) -> tuple[Message, ...]:
        matched = self._pattern.fullmatch(envelope.topic)
        if matched is None:
            raise Unusable("unknown_topic", f"not of the mapping {self.mapping.name}")
        levels = matched.groupdict()
        asset = self._asset(levels)
        picks = [p for p in self._picks if p.when.items() <= levels.items()]
        if not picks:
            raise Unusable("unmapped", f"no channel for {levels}")
        times, columns = self._read(_json(envelope.payload), picks, envelope.received_ns)
        check_times(int(times[0]), int(times[-1]))
        birth = Birth(
            asset, self.mapping.asset.kind, int(times[0]), self.mapping.units(),
            Meta(Identity(f"{asset}#birth", 0, 0), envelope.received_ns, resolution="derived"),
            modulus=self.mapping.moduli(),
        )  # fmt: skip
        meta = meta_of(None, envelope, str(asset))
        if self._time is None:  # a value told twice is two samples, not one told again
            identity = meta.identity._replace(boot=envelope.received_ns)
            meta = replace(meta, identity=identity)
        return birth, Batch(asset, STREAM, times, columns, meta)

    def _asset(self, levels: Mapping[str, str]) -> Asset:
        return Asset(*(self._named(text, levels) for text in self.mapping.asset.levels()))

    def _named(self, text: str, levels: Mapping[str, str]) -> str:
        names = self.mapping.asset.names

        def fill(found: re.Match[str]) -> str:
            level = levels[found[1]]
            return names.get(level, level)

        name = NAMED.sub(fill, text)
        if not is_level(name):
            raise Unusable(
                "unmapped", f"{shown(name)} is no plain name; give it one under [asset.names]"
            )
        return name

    def _read(
        self, document: object, picks: Sequence[_Pick], received_ns: int
    ) -> tuple["np.ndarray[Any, np.dtype[np.int64]]", dict[str, Floats]]:
        found = _at(document, self._samples)
        if isinstance(found, list):
            samples = cast(list[object], found)
            if not 0 < len(samples) <= MAX_SAMPLES:
                raise Unusable("bad_shape", f"{len(samples)} samples, 1 to {MAX_SAMPLES} are taken")
            if not any(isinstance(s, dict) for s in samples) and any(p.path for p in picks):
                raise Unusable("bad_shape", "an array of something else than objects")
            columns = [[_at(sample, pick.path) for sample in samples] for pick in picks]
            stamps = self._time and [_at(sample, self._time) for sample in samples]
            n = len(samples)
        else:
            columns, stamps, n = self._columnar(found, picks)
        if all(value is _MISSING for column in columns for value in column):
            raise Unusable("unmapped", "no pointer of the mapping leads to anything")
        times = np.array(self._times(stamps, n, received_ns), dtype=np.int64)
        values = {
            pick.name: np.array(_values(pick, column), dtype=np.float64)
            for pick, column in zip(picks, columns, strict=True)
        }
        if n > 1 and bool((np.diff(times) < 0).any()):
            order = np.argsort(times, kind="stable")
            times = times[order]
            values = {name: column[order] for name, column in values.items()}
        return times, values

    def _columnar(
        self, sample: object, picks: Sequence[_Pick]
    ) -> tuple[list[list[object]], list[object] | None, int]:
        """One sample, or an object of columns: then all that is there is an array."""
        found = [_at(sample, pick.path) for pick in picks]
        stamp = None if self._time is None else _at(sample, self._time)
        there = [value for value in (*found, stamp) if value is not _MISSING and value is not None]
        sizes = {len(cast(list[object], v)) if isinstance(v, list) else 0 for v in there}
        if sizes <= {0} and not any(isinstance(value, list) for value in there):
            return [[value] for value in found], None if self._time is None else [stamp], 1
        if len(sizes) != 1 or not all(isinstance(value, list) for value in there):
            raise Unusable("bad_shape", "arrays of unequal length, or arrays beside single values")
        n = sizes.pop()
        if not 0 < n <= MAX_SAMPLES:
            raise Unusable("bad_shape", f"{n} samples, 1 to {MAX_SAMPLES} are taken")
        columns = [
            cast(list[object], value) if isinstance(value, list) else [value] * n for value in found
        ]
        if self._time is None:
            return columns, None, n
        return columns, cast(list[object], stamp) if isinstance(stamp, list) else [stamp] * n, n

    def _times(self, stamps: Sequence[object] | None, n: int, received_ns: int) -> list[int]:
        if stamps is None:
            return [received_ns] * n
        try:
            times = [self._read_time(None if s is _MISSING else s) for s in stamps]
        except (ValueError, OverflowError) as error:
            raise Unusable("bad_shape", f"time: {error}") from None
        check_times(min(times), max(times))  # before it meets 64 bits
        return times


def _level(level: str) -> str:
    """A level of a topic pattern as a regular expression."""
    if level == "+":
        return "[^/]*"
    out, last = "", 0
    for found in NAMED.finditer(level):
        out += re.escape(level[last : found.start()]) + f"(?P<{found[1]}>[^/]+)"
        last = found.end()
    return out + re.escape(level[last:])


def _pick(channel: Channel) -> _Pick:
    if channel.pointer is None:
        raise ValueError(f"channel {channel.name} has no pointer")
    return _Pick(channel.name, pointer_parts(channel.pointer), value_reader(channel), channel.when)


def _json(payload: bytes) -> object:
    try:
        return _decode(payload)
    except msgspec.ValidationError as error:
        raise Unusable("not_finite", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unusable("not_json", str(error)) from None


def _at(document: object, path: tuple[str, ...]) -> object:
    """What a pointer leads to."""
    here = document
    for part in path:
        if isinstance(here, dict):
            here = cast(dict[str, object], here).get(part, _MISSING)
        elif isinstance(here, list) and part.isascii() and part.isdigit() and len(part) < 6:
            items = cast(list[object], here)
            here = items[int(part)] if int(part) < len(items) else _MISSING
        else:
            return _MISSING
    return here


def _values(pick: _Pick, column: Sequence[object]) -> list[float]:
    nan = float("nan")
    try:
        return [nan if v is None or v is _MISSING else pick.read(v) for v in column]
    except (ValueError, OverflowError) as error:
        raise Unusable("bad_shape", f"{pick.name}: {error}") from None
