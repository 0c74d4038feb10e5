"""A mapping: how a table's columns, or somebody's MQTT JSON, become an asset's channels."""

import codecs
import re
import tomllib
from collections.abc import Mapping as Table
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from config import tomlfile
from config.errors import ConfigError, UsageError

_STRICT = ConfigDict(
    strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
)

TIME_FORMATS = ("iso8601", "epoch_s", "epoch_ms", "epoch_us", "epoch_ns")
NAMED = re.compile(r"\{([a-z][a-z0-9_]*)\}")
"""A named topic level, as it stands in a topic pattern and in the levels of an asset."""

_LEVEL = r"[A-Za-z0-9][A-Za-z0-9._-]*"
Level = Annotated[str, Field(pattern=rf"^{_LEVEL}$")]
Char = Annotated[str, Field(min_length=1, max_length=1)]
Text = Annotated[str, Field(min_length=1)]


class AssetOf(BaseModel):
    """Whose samples these are, by the ISA-95 levels; `{name}` is a named level of the topic."""

    model_config = _STRICT

    site: Text
    """Site, like lab."""
    area: Text
    """Area of the site."""
    line: Text
    """Line or cell of the area."""
    name: Text
    """The asset itself."""
    kind: Level
    """Device kind, like robot_arm; it decides which KPIs apply."""
    names: dict[str, Level] = {}
    """Plain names for topic levels that are none, like { "Presse 9" = "press9" }."""

    @field_validator("site", "area", "line", "name")
    @classmethod
    def _is_level(cls, text: str) -> str:
        if re.fullmatch(_LEVEL, NAMED.sub("x", text)) is None:
            raise ValueError(
                f"{text!r} should be letters, digits, dots, dashes and underscores,"
                " or name a topic level, like {machine}"
            )
        return text

    def levels(self) -> tuple[str, str, str, str]:
        """The four levels as written."""
        return self.site, self.area, self.line, self.name

    def uses(self) -> set[str]:
        """Names of the topic levels in use."""
        return set(NAMED.findall("/".join(self.levels())))


class TableOf(BaseModel):
    """How a text table is written."""

    model_config = _STRICT

    delimiter: Char = ","
    """Between two cells."""
    decimal: Literal[".", ","] = "."
    """Between the whole and the fraction of a number."""
    quote: Annotated[str, Field(max_length=1)] = '"'
    """Around a cell that holds a delimiter; empty: none."""
    missing: Annotated[tuple[str, ...], Field(strict=False)] = ("",)
    """Texts that mean: no evidence."""
    encoding: str = "utf-8"
    """Of the file; a byte order mark is skipped."""
    skip_lines: Annotated[int, Field(ge=0)] = 0
    """Lines before the header."""
    columns: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Names of the columns where the file has no header."""

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            codecs.lookup(name)
        except LookupError:
            raise ValueError(f"unknown encoding {name!r}") from None
        return name

    @model_validator(mode="after")
    def _tells_apart(self) -> Self:
        if self.delimiter == self.quote:
            raise ValueError("delimiter and quote are the same")
        if self.delimiter == self.decimal and not self.quote:
            raise ValueError("delimiter and decimal are the same, and there is no quote")
        return self


class LiveOf(BaseModel):
    """Which MQTT messages, and where in them the samples are."""

    model_config = _STRICT

    topic: Text
    """Pattern like plant/{area}/{machine}/data; {name} and + stand for one level."""
    samples: str = ""
    """JSON pointer to the sample, or to an array of samples; default: the whole payload."""

    @field_validator("topic")
    @classmethod
    def _is_pattern(cls, topic: str) -> str:
        names = NAMED.findall(topic)
        rest = NAMED.sub("", topic)
        if re.search(r"[{}#\0]", rest):
            raise ValueError("a level is plain text, + or {name} (small letters); # is not taken")
        if any("+" in level and level != "+" for level in topic.split("/")):
            raise ValueError("+ stands for a whole level")
        if len(set(names)) != len(names):
            raise ValueError("names a level twice")
        return topic

    @field_validator("samples")
    @classmethod
    def _is_pointer(cls, pointer: str) -> str:
        return _pointer(pointer)

    def names(self) -> set[str]:
        """Names of its levels."""
        return set(NAMED.findall(self.topic))


class TimeOf(BaseModel):
    """Where the event time stands, and how it is written."""

    model_config = _STRICT

    column: str | None = None
    """Column of the table."""
    pointer: str | None = None
    """JSON pointer in a sample; default: the time the message was received."""
    format: str = "iso8601"
    """iso8601, epoch_s, epoch_ms, epoch_us, epoch_ns, or a pattern like %d.%m.%Y %H:%M:%S."""
    zone: str = ""
    """Time zone of stamps that carry none, like UTC or Europe/Berlin."""

    @field_validator("format")
    @classmethod
    def _is_format(cls, text: str) -> str:
        if text not in TIME_FORMATS and "%" not in text:
            raise ValueError(
                f"should be {', '.join(TIME_FORMATS)} or a pattern like %d.%m.%Y %H:%M:%S,"
                f" got {text!r}{tomlfile.guess(text, TIME_FORMATS)}"
            )
        return text

    @field_validator("zone")
    @classmethod
    def _is_zone(cls, zone: str) -> str:
        if zone not in ("", "UTC"):
            try:
                ZoneInfo(zone)
            except (KeyError, ValueError, OSError):
                raise ValueError(
                    f"unknown time zone {zone!r}; write it like UTC or Europe/Berlin"
                ) from None
        return zone

    @field_validator("pointer")
    @classmethod
    def _is_pointer(cls, pointer: str | None) -> str | None:
        return None if pointer is None else _pointer(pointer)

    @model_validator(mode="after")
    def _has_zone(self) -> Self:
        if "%" in self.format and "%z" not in self.format and not self.zone:
            raise ValueError("the format has no %z, so it needs a zone, like UTC")
        return self


class Channel(BaseModel):
    """One column or JSON value as a channel: its meaning and its unit."""

    model_config = _STRICT

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """Small letters, digits and underscores."""
    column: Text | None = None
    """Header of the column, exactly."""
    pointer: str | None = None
    """JSON pointer in a sample."""
    when: dict[str, str] = {}
    """Only in messages whose named topic levels are these, like { signal = "temp" }."""
    as_: Annotated[Literal["number", "bool", "map"], Field(alias="as")] = "number"
    """How a cell is read."""
    unit: Text
    """Unit after scaling; 1 where there is none."""
    role: Literal["signal", "counter", "event", "state"] = "signal"
    """signal: measured. counter: grows. event: counts when it turns true. state: holds."""
    scale: Annotated[float, Field(gt=-1e12, lt=1e12)] = 1.0
    """Multiplied with the number read."""
    offset: Annotated[float, Field(gt=-1e12, lt=1e12)] = 0.0
    """Added after scaling."""
    values: dict[str, float] = {}
    """For a map: the number of each text."""
    modulus: Annotated[float, Field(gt=0, lt=1e12)] | None = None
    """Of a counter: where it begins again at 0, in its unit, after scaling."""
    sentinels: Annotated[tuple[float, ...], Field(strict=False)] = ()
    """Numbers, as they are read, that mean no evidence: full scale, an open thermocouple."""

    @field_validator("pointer")
    @classmethod
    def _is_pointer(cls, pointer: str | None) -> str | None:
        return None if pointer is None else _pointer(pointer)

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> Self:
        context: Table[str, Any] = info.context or {}
        wrong: list[str] = []
        if context.get("table") and self.column is None:
            wrong.append("needs a column, since there is a [table]")
        if context.get("live") and self.pointer is None:
            wrong.append("needs a pointer, since there is a [live]")
        if self.role == "counter" and self.as_ != "number":
            wrong.append("a counter is a number")
        if self.role == "event" and self.as_ != "bool":
            wrong.append("an event is a bool")
        if self.role == "signal" and self.as_ != "number":
            wrong.append(f'a {self.as_} is no signal; say role = "event" or "state"')
        if self.as_ != "number" and (self.scale, self.offset) != (1.0, 0.0):
            wrong.append(f"a {self.as_} has no scale or offset")
        if (self.as_ == "map") != bool(self.values):
            wrong.append("a map has values, and nothing else has")
        if self.modulus is not None and self.role != "counter":
            wrong.append("only a counter has a modulus")
        if self.sentinels and self.as_ != "number":
            wrong.append("only a number has sentinels")
        if self.scale == 0:
            wrong.append("scale 0 leaves nothing")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


class Mapping(BaseModel):
    """Columns of a table or values of MQTT JSON as the channels of an asset."""

    model_config = _STRICT

    name: Text
    """By default the name of the file."""
    summary: str = ""
    """One line that says what it reads."""
    asset: AssetOf
    """Whose samples these are."""
    table: TableOf | None = None
    """How a text table is written, for `beilun import`."""
    live: LiveOf | None = None
    """Which MQTT messages, for `beilun edge --map`."""
    time: TimeOf = TimeOf()
    """Where the event time stands."""
    channel: Annotated[tuple[Channel, ...], Field(strict=False, min_length=1, max_length=1000)]
    """The channels."""

    @field_validator("channel")
    @classmethod
    def _named_once(cls, channels: tuple[Channel, ...]) -> tuple[Channel, ...]:
        names = [channel.name for channel in channels]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}")
        return channels

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        wrong: list[str] = []
        named = self.live.names() if self.live else set[str]()
        if self.table is None and self.live is None:
            wrong.append("needs a [table], a [live], or both")
        if self.table is not None and self.time.column is None:
            wrong.append("time needs a column, since there is a [table]")
        if self.table is not None and self.asset.uses():
            wrong.append("a [table] has no topic, so the asset cannot name its levels")
        used = self.asset.uses().union(*(channel.when for channel in self.channel))
        wrong += [
            f"{{{name}}} is no level of the topic{tomlfile.guess(name, named)}"
            for name in sorted(used - named)
        ]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    _text: str = PrivateAttr(default="")

    @property
    def text(self) -> str:
        """The TOML it was read from: a recording keeps it."""
        return self._text

    def units(self) -> dict[str, str]:
        """Channels with their units, as a birth tells them."""
        return {channel.name: channel.unit for channel in self.channel}

    def moduli(self) -> dict[str, float]:
        """Where counters begin again at 0, as a birth tells it."""
        return {c.name: c.modulus for c in self.channel if c.modulus is not None}


def mapping_names() -> list[str]:
    """Names of the shipped mappings."""
    found = (files("config") / "mappings").iterdir()
    return sorted(f.name.removesuffix(".toml") for f in found if f.name.endswith(".toml"))


def find_mapping_file(name_or_path: str | Path) -> Path | Traversable:
    """The file of a shipped mapping by name, or of one by path."""
    text = str(name_or_path)
    if "/" in text or text.endswith(".toml") or Path(text).is_file():
        return Path(text)
    if text not in mapping_names():
        raise UsageError(
            f"unknown mapping {text}{tomlfile.guess(text, mapping_names())}",
            hint=f"shipped: {', '.join(mapping_names())}; a file is given by its path, ./m.toml",
        )
    return files("config") / "mappings" / f"{text}.toml"


def find_mapping(name_or_path: str | Path) -> Mapping:
    """A shipped mapping by name, or one from a file; raises with all problems of the file."""
    source = find_mapping_file(name_or_path)
    tomlfile.load(source)  # for its errors: a missing file, no text, no TOML
    return parse_mapping(
        source.read_bytes().decode(), source.name.removesuffix(".toml"), at=str(source)
    )


def parse_mapping(text: str, name: str = "mapping", *, at: str = "mapping") -> Mapping:
    """A mapping from its text, such as the copy in a recording's header."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}", at=at) from None
    context = {"table": "table" in data, "live": "live" in data}
    mapping = tomlfile.validate({"name": name, **data}, Mapping, at=at, context=context)
    mapping._text = text  # pyright: ignore[reportPrivateUsage]
    return mapping


def pointer_parts(pointer: str) -> tuple[str, ...]:
    """The reference tokens of a JSON pointer (RFC 6901), unescaped.

    >>> pointer_parts("/data/a~1b/0")
    ('data', 'a/b', '0')
    """
    return tuple(p.replace("~1", "/").replace("~0", "~") for p in pointer.split("/")[1:])


def _pointer(pointer: str) -> str:
    if re.fullmatch(r"(?:/(?:[^~/]|~[01])*)*", pointer, re.DOTALL) is None:
        raise ValueError(
            f"should be a JSON pointer like /data/temp, or empty for the whole, got {pointer!r}"
        )
    return pointer
