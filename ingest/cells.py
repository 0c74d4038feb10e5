"""Cells of foreign tables and values of foreign JSON, read as times and numbers, strictly."""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from zoneinfo import ZoneInfo

from config.mapping import Channel, TimeOf
from config.tomlfile import guess
from config.units import NS_PER_S

LARGEST = 9e12
"""Values count in millionths as 64-bit integers; beyond it they would not fit."""

_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.]\d*)?|[.]\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_TRUE = {"true", "1", "yes", "on", "t", "y", "1.0"}
_FALSE = {"false", "0", "no", "off", "f", "n", "0.0"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FACTORS = {"epoch_s": NS_PER_S, "epoch_ms": 1_000_000, "epoch_us": 1_000, "epoch_ns": 1}

Scalar = object
"""Text of a cell, or any value of JSON; what is no scalar is refused."""


def value_reader(channel: Channel, decimal: str = ".") -> Callable[[Scalar], float]:
    """How a channel's cells are read; the reader raises ``ValueError`` in a person's words."""
    match channel.as_:
        case "number":
            return lambda value: _measured(number(value, decimal), channel)
        case "bool":
            return boolean
        case "map":
            return lambda value: _mapped(value, channel)


def number(value: Scalar, decimal: str = ".") -> float:
    """A number, also as text; nothing that only looks like one.

    >>> number(" -7,39E-30", ",")
    -7.39e-30
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = value.strip() if isinstance(value, str) else ""
    plain = text.replace(",", ".") if decimal == "," and "." not in text else text
    if _NUMBER.fullmatch(plain) is None or (decimal == "," and "." in text):
        raise ValueError(f"not a number: {shown(value)}")
    return float(plain)


def boolean(value: Scalar) -> float:
    """1 or 0 of true/false, yes/no, on/off, 1/0."""
    text = str(value).strip().casefold() if is_scalar(value) else ""
    if text not in _TRUE and text not in _FALSE:
        raise ValueError(f"neither true nor false: {shown(value)}")
    return float(text in _TRUE)


def in_range(value: float) -> float:
    """Refuse what fixed point cannot hold, and infinities."""
    if not -LARGEST <= value <= LARGEST:
        raise ValueError(f"beyond ±{LARGEST:g}: {value!r}")
    return value


def _measured(value: float, channel: Channel) -> float:
    """A number in the channel's unit; NaN where it means no evidence."""
    if value in channel.sentinels:
        return math.nan
    return in_range(value * channel.scale + channel.offset)


def _mapped(value: Scalar, channel: Channel) -> float:
    text = str(value).strip() if is_scalar(value) else ""
    found = channel.values.get(text)
    if found is None:
        raise ValueError(f"not among the values: {shown(value)}{guess(text[:100], channel.values)}")
    return found


def time_reader(time: TimeOf, decimal: str = ".") -> Callable[[Scalar], int]:
    """How event times are read, in ns since the epoch; the reader raises ``ValueError``."""
    zone: tzinfo | None = None
    if time.zone:
        zone = UTC if time.zone == "UTC" else ZoneInfo(time.zone)
    if time.format == "iso8601":
        return lambda value: _iso(_text(value), zone)
    if (factor := _FACTORS.get(time.format)) is not None:
        return lambda value: _since_epoch(value, factor, decimal)
    return lambda value: _ns(datetime.strptime(_text(value), time.format), zone)  # noqa: DTZ007


def _text(value: Scalar) -> str:
    if not isinstance(value, str):
        raise ValueError(f"not a time: {shown(value)}")
    return value.strip()


def _iso(text: str, zone: tzinfo | None) -> int:
    t_ns = _ns(datetime.fromisoformat(text), zone)
    if len(text) > 26 and (more := re.search(r"[.,]\d{6}(\d+)", text)):
        t_ns += int(more[1][:3].ljust(3, "0"))  # what datetime cuts off
    return t_ns


def _ns(stamp: datetime, zone: tzinfo | None) -> int:
    if stamp.tzinfo is None:
        if zone is None:
            raise ValueError("the stamp has no time zone; set time.zone")
        stamp = stamp.replace(tzinfo=zone)
    since = stamp - _EPOCH
    return (since.days * 86_400 + since.seconds) * NS_PER_S + since.microseconds * 1_000


def _since_epoch(value: Scalar, factor: int, decimal: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value * factor
    text = repr(value) if isinstance(value, float) else _text(value)
    if decimal == "," and isinstance(value, str):
        text = text.replace(",", ".")
    if _NUMBER.fullmatch(text) is None or len(text) > 40:
        raise ValueError(f"not a time: {shown(value)}")
    stamp = Decimal(text)
    if not -(10**20) < stamp < 10**20:
        raise ValueError(f"not a time: {shown(value)}")
    return round(stamp * factor)


def is_scalar(value: Scalar) -> bool:
    """Whether it is a single value."""
    return isinstance(value, str | int | float)


def shown(value: Scalar) -> str:
    """A value in a message: whole when short."""
    text = repr(value) if is_scalar(value) or value is None else f"a {type(value).__name__}"
    return text if len(text) <= 40 else f"{text[:37]}..."
