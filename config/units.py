"""Time as integer nanoseconds, durations as people write them, and settings that carry a unit."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_DAY = 86_400 * NS_PER_S

_UNITS_NS = {
    "ms": NS_PER_MS,
    "s": NS_PER_S,
    "m": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
    "d": NS_PER_DAY,
}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_duration(text: str) -> int:
    """Nanoseconds of ``90s``, ``10m``, ``1h30m``, ``250ms``; a plain number has no unit and fails.

    >>> parse_duration("1h30m") == 5_400 * NS_PER_S
    True
    """
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"not a duration: {text!r}; write it with a unit, like 90s, 10m or 1h30m")
    return sum(round(float(number) * _UNITS_NS[unit]) for number, unit in parts)


def format_duration(ns: int) -> str:
    """The shortest spelling that ``parse_duration`` reads back.

    >>> format_duration(5_400 * NS_PER_S)
    '1h30m'
    """
    out = ""
    for unit in ("d", "h", "m", "s", "ms"):
        count, ns = divmod(ns, _UNITS_NS[unit])
        if count:
            out += f"{count}{unit}"
    return out or "0s"


def format_time(t_ns: int) -> str:
    """RFC 3339 in UTC, to the millisecond (rounded down) or to the second where that is exact."""
    whole, rest = divmod(t_ns, NS_PER_S)
    stamp = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{stamp}.{rest // NS_PER_MS:03d}Z" if rest else f"{stamp}Z"


def parse_time(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 stamp; one without a zone is refused.

    >>> parse_time("1970-01-01T00:00:01.5Z")
    1500000000
    """
    match = re.fullmatch(r"(.*?\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", text)
    if match is None:
        raise ValueError(f"not a time: {text!r}; write it like 2026-01-05T00:00:00Z")
    whole = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00"))
    return int(whole.timestamp()) * NS_PER_S + int((match[2] or "0").ljust(9, "0"))


def _as_ns(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


def _as_time_ns(value: Any) -> Any:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a time needs a zone, like 2026-01-05T00:00:00Z")
        return parse_time(value.isoformat())
    return parse_time(value) if isinstance(value, str) else value


def _unit(unit: str) -> dict[str, Any]:
    return {"unit": unit}


DurationNs = Annotated[
    int,
    BeforeValidator(_as_ns),
    Field(gt=0, json_schema_extra=_unit("duration, like 90s or 1h30m")),
]
DelayNs = Annotated[
    int,
    BeforeValidator(_as_ns),
    Field(ge=0, json_schema_extra=_unit("duration, like 90s or 1h30m")),
]
"""A duration that may be none: ``0s`` is at once."""
TimeNs = Annotated[int, BeforeValidator(_as_time_ns), Field(json_schema_extra=_unit("RFC 3339"))]
Seconds = Annotated[float, Field(gt=0, json_schema_extra=_unit("s"))]
Metres = Annotated[float, Field(json_schema_extra=_unit("m"))]
MetresPerSecond = Annotated[float, Field(gt=0, json_schema_extra=_unit("m/s"))]
Kilowatts = Annotated[float, Field(ge=0, json_schema_extra=_unit("kW"))]
Milliseconds = Annotated[float, Field(ge=0, json_schema_extra=_unit("ms"))]
Decibels = Annotated[float, Field(ge=0, json_schema_extra=_unit("dB"))]
MegabitsPerSecond = Annotated[float, Field(gt=0, le=1e6, json_schema_extra=_unit("Mbit/s"))]
Ratio = Annotated[float, Field(ge=0, le=1, json_schema_extra=_unit("ratio"))]
