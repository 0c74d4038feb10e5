"""Drafts mappings from MQTT traffic: no I/O, bounded memory, one commented TOML per kind of topic.

Topics are of one kind where they have as many levels and (nearly) the same JSON pointers. Levels
that differ within a kind get names; bare values, one signal a topic, become channels by level.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, cast

import msgspec

from config.units import NS_PER_DAY, NS_PER_S
from ingest.cells import number
from ingest.codecs import MAX_BYTES
from ingest.codecs import uns as uns_codec
from ingest.codecs import vda5050 as vda_codec
from ingest.packml import PackML
from ingest.topics import is_level

MAX_TOPICS = 5_000
MAX_POINTERS = 300
"""How many values of one kind of topic are drafted."""
KEPT_TEXTS = 12
"""Texts of more values than that are no states."""
ALIKE = 0.6
"""Share of pointers two topics of a kind have in common."""
NEAR_NS = 3_650 * NS_PER_DAY
"""Numbers this near to the time of receipt are times."""

_FORMATS = {"epoch_s": NS_PER_S, "epoch_ms": 1_000_000, "epoch_us": 1_000, "epoch_ns": 1}
_TIME_WORDS = re.compile(r"(?:^|_)(?:ts|time|timestamp|t|date|datetime|stamp)(?:_|$)")
_PLAIN_LEVELS = {"data", "state", "status", "telemetry", "json", "value", "values", "out", "pv"}
_UNITS = (
    (r"temp(erature)?|_c$|celsius", "degC"), (r"kwh", "kWh"), (r"power|_kw$", "kW"),
    (r"current|amp|_a$", "A"), (r"volt", "V"), (r"pressure|_bar$", "bar"), (r"speed|_mps$", "m/s"),
    (r"_s$|seconds", "s"), (r"_ms$", "ms"), (r"_mm$", "mm"), (r"percent|_pct$", "%"),
)  # fmt: skip
_STATES = {
    "run": PackML.EXECUTE, "running": PackML.EXECUTE, "executing": PackML.EXECUTE,
    "stop": PackML.STOPPED, "stopp": PackML.STOPPED, "error": PackML.ABORTED,
    "fault": PackML.ABORTED, "alarm": PackML.ABORTED, "off": PackML.STOPPED,
    "waiting": PackML.SUSPENDED, "blocked": PackML.SUSPENDED, "starved": PackML.SUSPENDED,
    "pause": PackML.HELD, "paused": PackML.HELD, "ready": PackML.IDLE,
} | {state.name.casefold(): state for state in PackML}  # fmt: skip

_decode = msgspec.json.Decoder().decode


@dataclass(slots=True)
class _Seen:
    """What was seen at one pointer of one topic."""

    n: int = 0
    kinds: set[str] = field(default_factory=set[str])
    texts: set[str] = field(default_factory=set[str])
    many: bool = False
    changes: bool = False
    """Whether the text changes on any one topic: else it is a name, not a state."""
    low: float = float("inf")
    high: float = float("-inf")
    last: float | None = None
    rises: int = 0
    falls: int = 0
    whole: bool = True
    formats: set[str] | None = None
    """How it could be a time; ``None``: nothing seen yet."""
    naive: bool = False

    def see(self, value: object, received_ns: int) -> None:
        self.n += 1
        if isinstance(value, str) and (plain := _as_number(value)) is not None:
            value = plain
        kind = _kind(value)
        self.kinds.add(kind)
        if kind == "text":
            self._text(cast(str, value))
        elif kind == "number":
            self._number(cast(float, value))
        if kind != "null":
            formats = _times(value, received_ns)
            self.formats = formats if self.formats is None else self.formats & formats
            self.naive |= "iso8601" in formats and _is_naive(cast(str, value))

    def _text(self, text: str) -> None:
        if text in self.texts:
            return
        self.changes |= bool(self.texts)
        if len(self.texts) >= KEPT_TEXTS or len(text) > 60:
            self.many = True
        else:
            self.texts.add(text)

    def _number(self, value: float) -> None:
        self.low, self.high = min(self.low, value), max(self.high, value)
        self.whole &= float(value).is_integer()
        if self.last is not None:
            self.rises += value > self.last
            self.falls += value < self.last
        self.last = value

    def join(self, other: "_Seen") -> None:
        """Add what was seen at the same pointer of another topic."""
        self.n += other.n
        self.kinds |= other.kinds
        self.texts |= other.texts
        self.changes |= other.changes
        self.many |= other.many or len(self.texts) > KEPT_TEXTS
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.rises += other.rises
        self.falls += other.falls
        self.whole &= other.whole
        if other.formats is not None:
            self.formats = (
                set(other.formats) if self.formats is None else self.formats & other.formats
            )
        self.naive |= other.naive

    @property
    def kind(self) -> str:
        """number, bool, text, or mixed."""
        kinds = self.kinds - {"null"}
        return kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "null"

    @property
    def constant(self) -> bool:
        """Whether it never changed on any topic."""
        return not self.changes if self.kind == "text" else self.n > 1 and self.low == self.high

    @property
    def counts(self) -> bool:
        """Whole numbers that grow, with hardly a fall (a reset)."""
        return self.whole and self.rises >= 2 and self.falls * 10 <= self.rises and self.low >= 0


@dataclass(slots=True)
class _Topic:
    levels: tuple[str, ...]
    listed: bool = False
    seen: dict[str, _Seen] = field(default_factory=dict[str, _Seen])


class _Value(NamedTuple):
    """A value to be drafted as a channel."""

    pointer: str
    seen: _Seen
    when: str = ""
    """The topic level it comes from, where each signal has its topic."""


class Survey:
    """Looks at messages, then drafts; ``unread`` counts by reason what gave nothing."""

    def __init__(self) -> None:
        self.messages = 0
        self.unread: Counter[str] = Counter()
        self._topics: dict[str, _Topic] = {}

    def add(self, topic: str, payload: bytes, received_ns: int) -> None:
        """Look at one message."""
        self.messages += 1
        if not topic or topic.startswith("$") or re.search(r"[+#{}\0]", topic):
            self.unread["reserved topic"] += 1
        elif uns_codec.CODEC.claims(topic) or vda_codec.CODEC.claims(topic):
            self.unread["read without a mapping"] += 1
        elif len(payload) > MAX_BYTES:
            self.unread["too large"] += 1
        else:
            self._look(topic, payload, received_ns)

    def _look(self, topic: str, payload: bytes, received_ns: int) -> None:
        try:
            document: object = _decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.unread["not JSON"] += 1
            return
        entry = self._topics.get(topic)
        if entry is None:
            if len(self._topics) >= MAX_TOPICS:
                self.unread["more topics than are kept"] += 1
                return
            entry = self._topics[topic] = _Topic(tuple(topic.split("/")))
        entry.listed |= isinstance(document, list)
        samples = cast(list[object], document) if isinstance(document, list) else [document]
        for sample in samples[:1_000]:
            for pointer, value in _scalars(sample):
                if pointer not in entry.seen and len(entry.seen) >= MAX_POINTERS:
                    self.unread["more values than are kept"] += 1
                    break
                entry.seen.setdefault(pointer, _Seen()).see(value, received_ns)

    def drafts(self) -> list[str]:
        """One mapping per kind of topic that has anything to map."""
        made = (_draft(kind) for kind in _kinds([t for t in self._topics.values() if t.seen]))
        return [draft for draft in made if draft]


def suggest(messages: Iterable[tuple[str, bytes, int]]) -> list[str]:
    """Mappings drafted from (topic, payload, time of receipt in ns)."""
    survey = Survey()
    for topic, payload, received_ns in messages:
        survey.add(topic, payload, received_ns)
    return survey.drafts()


def _scalars(value: object, pointer: str = "", depth: int = 0) -> Iterator[tuple[str, object]]:
    """Pointers to single values; an array of single values is a column, seen value by value."""
    if depth > 8:
        return
    if isinstance(value, dict):
        for name, inner in cast(dict[str, object], value).items():
            escaped = name.replace("~", "~0").replace("/", "~1")
            yield from _scalars(inner, f"{pointer}/{escaped}", depth + 1)
    elif isinstance(value, list):
        items = cast(list[object], value)
        if depth and all(isinstance(i, str | int | float | None) for i in items):
            for item in items[:1_000]:
                yield pointer, item
        else:
            for place, item in enumerate(items[:20]):
                yield from _scalars(item, f"{pointer}/{place}", depth + 1)
    elif len(pointer) < 200:
        yield pointer, value


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, int | float) else "text"


def _as_number(text: str) -> float | None:
    try:
        return number(text)
    except ValueError:
        return None


def _times(value: object, received_ns: int) -> set[str]:
    """The formats in which a value is a time near its receipt."""
    if isinstance(value, str):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            return set()
        return {"iso8601"} if len(value) >= 15 else set()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return set()
    near = {name for name, ns in _FORMATS.items() if abs(value * ns - received_ns) < NEAR_NS}
    return near if value > 0 else set()


def _is_naive(text: str) -> bool:
    return datetime.fromisoformat(text).tzinfo is None


def _kinds(topics: Sequence[_Topic]) -> list[list[_Topic]]:
    """Topics of one kind together, in order of their names."""
    kinds: list[list[_Topic]] = []
    for topic in sorted(topics, key=lambda t: t.levels):
        for kind in kinds:
            first = kind[0]
            if (
                len(first.levels) == len(topic.levels)
                and first.listed == topic.listed
                and (first.levels[0] == topic.levels[0] or len(topic.levels) == 1)
                and _alike(set(first.seen), set(topic.seen))
            ):
                kind.append(topic)
                break
        else:
            kinds.append([topic])
    return kinds


def _alike(a: set[str], b: set[str]) -> bool:
    return len(a & b) >= ALIKE * len(a | b)


def _draft(topics: list[_Topic]) -> str:
    """The commented TOML of one kind of topic; empty where nothing can be a channel."""
    levels = list(zip(*(topic.levels for topic in topics), strict=True))
    varying = [at for at, found in enumerate(levels) if len(set(found)) > 1]
    bare = all(set(topic.seen) == {""} for topic in topics)
    last = len(levels) - 1
    signal = last if bare and last in varying else None
    names, asset = _name_levels(levels, [at for at in varying if at != signal], signal)
    pattern = "/".join(
        f"{{{names[at]}}}" if at in names else found[0] for at, found in enumerate(levels)
    )
    values = _values(topics, signal)
    time = _time_of(values)
    channels, left = _channels(values, time)
    if not channels:
        return ""
    used = {names[at] for at in varying if at != signal}
    and_more = f" and {len(topics) - 1} more like it" if len(topics) > 1 else ""
    lines = [
        "# Drafted by `beilun map suggest` from traffic. Go through it: units, roles and levels",
        "# are guesses. `beilun map check FILE` shows what a message becomes.",
        f"# Seen: {_said('/'.join(topics[0].levels))}{and_more}.",
        f"summary = {_quoted(pattern)}",
        "",
        "[asset]",
        *(f"{level} = {_quoted(text)}" for level, text in asset.items()),
        'kind = "machine" # robot_arm, casting_cell, ...: `beilun devices`; it decides the KPIs',
        *_plain_names(levels, names, used),
        "",
        "[live]",
        f"topic = {_quoted(pattern)}",
        "",
        "[time]",
        *_time_lines(time),
    ]
    for channel in channels:
        lines += ["", *channel]
    if left:
        lines += ["", "# Left out:", *(f"# {text}" for text in left)]
    return "\n".join(lines) + "\n"


def _name_levels(
    levels: Sequence[tuple[str, ...]], varying: Sequence[int], signal: int | None
) -> tuple[dict[int, str], dict[str, str]]:
    """Names for the levels that vary, and the asset's levels made of them."""
    names: dict[int, str] = {}
    asset = {"site": "site", "area": "area", "line": "line", "name": "machine"}
    if signal is not None:
        names[signal] = "signal"
    for at, (level, word) in zip(
        reversed(varying),
        (("name", "machine"), ("line", "line"), ("area", "area"), ("site", "site")),
        strict=False,
    ):
        names[at] = word
        asset[level] = f"{{{word}}}"
    for at in varying:
        names.setdefault(at, f"level{at + 1}")
    fixed = [
        found[0]
        for at, found in enumerate(levels)
        if at not in names and is_level(found[0]) and found[0].casefold() not in _PLAIN_LEVELS
    ]
    if not varying and fixed:
        asset["name"] = fixed.pop()
    for level in ("site", "area", "line"):
        if not asset[level].startswith("{") and fixed:
            asset[level] = fixed.pop(0)
    return names, asset


def _plain_names(
    levels: Sequence[tuple[str, ...]], names: dict[int, str], used: set[str]
) -> Iterator[str]:
    """Plain names for topic levels that cannot be levels of an asset."""
    odd = sorted(
        {text for at, name in names.items() if name in used for text in levels[at]
         if not is_level(text)}
    )  # fmt: skip
    taken = {text for found in levels for text in found}
    pairs: list[str] = []
    for text in odd:
        plain = re.sub(r"[^A-Za-z0-9]+", "-", _ascii(text)).strip("-") or "unnamed"
        name, n = plain, 1
        while name in taken:
            n += 1
            name = f"{plain}-{n}"
        taken.add(name)
        pairs.append(f"{_quoted(text)} = {_quoted(name)}")
    if pairs:
        yield f"names = {{ {', '.join(pairs)} }}"


def _values(topics: Sequence[_Topic], signal: int | None) -> list[_Value]:
    """What was seen at each pointer, over all topics; bare values by the level of the signal."""
    merged: dict[tuple[str, str], _Seen] = {}
    for topic in topics:
        when = topic.levels[signal] if signal is not None else ""
        for pointer, seen in topic.seen.items():
            merged.setdefault((when, pointer), _Seen()).join(seen)
    return [_Value(pointer, seen, when) for (when, pointer), seen in merged.items()][:MAX_POINTERS]


def _time_of(values: Sequence[_Value]) -> _Value | None:
    """The event time: a value that is always a time; by its name, then the shortest."""
    stamps = [v for v in values if v.seen.formats and "null" not in v.seen.kinds and v.pointer]
    most = max((v.seen.n for v in values), default=0)
    named = sorted(
        (v for v in stamps if 2 * v.seen.n >= most),
        key=lambda v: (not _TIME_WORDS.search(_snake(v.pointer)), len(v.pointer), v.pointer),
    )
    return named[0] if named else None


def _time_lines(time: _Value | None) -> Iterator[str]:
    if time is None:
        yield "# No time was found in the payload: the time of receipt counts."
        return
    format_ = sorted(time.seen.formats or ())[0]
    yield f"pointer = {_quoted(time.pointer)}"
    yield f"format = {_quoted(format_)}"
    if time.seen.naive:
        yield 'zone = "UTC" # the stamps carry no zone: which is it?'


def _channels(values: Sequence[_Value], time: _Value | None) -> tuple[list[list[str]], list[str]]:
    """Lines of each channel, and what was left out."""
    names: set[str] = set()
    channels: list[list[str]] = []
    left: list[str] = []
    for value in values:
        if value is time:
            continue
        seen, where = value.seen, _said(value.when + value.pointer)
        if seen.kind == "text" and (seen.many or seen.constant or seen.formats):
            what = "a time" if seen.formats else "a text that never changed"
            what = "any text" if seen.many else what
            left.append(f"{where}: {what}, like {_said(min(seen.texts, default=''))}")
        elif seen.kind in ("mixed", "null") or seen.formats:
            what = "a time" if seen.formats else f"{' or '.join(sorted(seen.kinds))}"
            left.append(f"{where}: {what}")
        else:
            channels.append(_channel(value, _fresh(value, names)))
    return channels, left


def _channel(value: _Value, name: str) -> list[str]:
    seen = value.seen
    lines = ["[[channel]]", f'name = "{name}"', f"pointer = {_quoted(value.pointer)}"]
    if value.when:
        lines.append(f"when = {{ signal = {_quoted(value.when)} }}")
    if seen.kind == "bool":
        return [*lines, 'as = "bool"', 'unit = "1"', 'role = "state" # event: counts when true']
    if seen.kind == "text":
        states, note = _numbers(sorted(seen.texts))
        pairs = ", ".join(f"{_quoted(text)} = {n}" for text, n in states.items())
        return [
            *lines, 'as = "map"', f"values = {{ {pairs} }} # {note}",
            'unit = "PackML"' if note == "PackML states" else 'unit = "1"', 'role = "state"',
        ]  # fmt: skip
    unit = next((unit for hint, unit in _UNITS if re.search(hint, name)), None)
    lines.append(f'unit = "{unit or 1}" # {"a guess by the name" if unit else "which?"}')
    if seen.counts:
        return [*lines, 'role = "counter" # whole numbers that only grew']
    span = f"always {seen.low:g}" if seen.constant else f"{seen.low:g} to {seen.high:g}"
    return [*lines, f'role = "signal" # seen: {span}']


def _numbers(texts: Sequence[str]) -> tuple[dict[str, int], str]:
    """Numbers for the texts of a state."""
    known = {text: _STATES.get(text.strip().casefold()) for text in texts}
    if all(state is not None for state in known.values()):
        return {text: int(state or 0) for text, state in known.items()}, "PackML states"
    return {text: number for number, text in enumerate(texts, 1)}, "PackML numbers for a state"


def _fresh(value: _Value, taken: set[str]) -> str:
    """A channel name that is not taken yet: the last part of the pointer, more where needed."""
    parts = [p for p in (value.when, *value.pointer.split("/")) if p]
    name = "value"
    for wanted in range(1, len(parts) + 1):
        name = _snake("_".join(parts[-wanted:]))
        if name not in taken and not parts[-wanted].isdigit():
            break
    base, n = name, 1
    while name in taken:
        n += 1
        name = f"{base}_{n}"
    taken.add(name)
    return name


def _snake(text: str) -> str:
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", _ascii(text))
    name = re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")[:60].strip("_")
    return name if name[:1].isalpha() else f"v_{name}" if name else "value"


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _quoted(text: str) -> str:
    """A TOML string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _said(text: str) -> str:
    """A text inside a comment, on one line."""
    return _quoted(text if len(text) <= 80 else text[:77] + "...")
