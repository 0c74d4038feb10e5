"""Alarm rules: which KPI of which assets must not do what, for how long, and how it is told.

A rule looks at one KPI in windows of one kind, window by window in order of time:

    value   above ------------------x--x--x-----------x--x------------   the condition
            clear_below --x--x--------------------x---------x--x--x---   the condition to clear
                                          |                       |
                              `for` windows in a row: raised   `clear_for` in a row: cleared

Words follow ISA-18.2 / IEC 62682: `above` and `below` are setpoints, what lies between one and its
`clear_` is the deadband, `for` is the on-delay and `clear_for` the off-delay. Its *priority* is
`severity` here: critical is its high, warning its low to medium; info needs nobody to act, so by
ISA-18.2 it is a notice and no alarm. What it calls a *stale* alarm (one that stands for a day) is
something else than our `stale`, which is a KPI that nobody has evidence of.
"""

import re
from collections.abc import Collection, Mapping
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self, cast

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from config import tomlfile
from config.errors import ConfigError
from config.globs import asset_matches
from config.model import Spec
from config.units import NS_PER_MS, format_duration, parse_duration
from config.windows import Order, Sliding, WindowLabel, window

PREFIX = "alarm."
"""What the name of a rule has before it in the place of a KPI's name."""
DEFAULT, NONE = "default", "none"

Severity = Literal["critical", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")
Level = Literal["asset", "line", "area", "site"]
LEVELS: tuple[Level, ...] = ("site", "area", "line", "asset")
"""By how many names a path of that level has."""
Condition = Literal["above", "below", "late_above", "stale", "missing"]
CONDITIONS: tuple[Condition, ...] = ("above", "below", "late_above", "stale", "missing")


_RATIO: dict[str, Any] = {"unit": "ratio"}


class Known(Protocol):
    """What a rule has to know of a KPI."""

    @property
    def unit(self) -> str: ...
    @property
    def kinds(self) -> tuple[str, ...]: ...
    @property
    def rolls_up(self) -> bool: ...
    @property
    def range(self) -> tuple[float | None, float | None]: ...


def _as_held(value: object) -> object:
    if isinstance(value, str):
        length_ns = parse_duration(value)
        if length_ns < NS_PER_MS:
            raise ValueError(f"should be a positive duration, got {value!r}")
        return format_duration(length_ns)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"should be windows in a row, like 3, or a duration, got {value!r}")
    return value


Held = Annotated[
    int | str,
    BeforeValidator(_as_held),
    Field(json_schema_extra={"unit": "windows in a row, or time like 10m"}),
]


class Text(Spec):
    """What is told, in both languages."""

    en: Annotated[str, Field(min_length=1)]
    """English."""
    zh: Annotated[str, Field(min_length=1)]
    """Chinese."""


class Rule(Spec):
    """One rule; exactly one of `above`, `below`, `late_above`, `stale` and `missing`."""

    name: str
    """Lower case, digits, `_` and `-`: its rows are those of the KPI `alarm.<name>`."""
    text: Text
    """What is told when it is raised, like `{ en = "…", zh = "…" }`."""
    severity: Severity
    """`critical`: act now; `warning`: act this shift; `info`: know it."""
    kpi: str
    """Name of a KPI; `beilun kpis` lists them."""
    level: Level = "asset"
    """Whose rows: of single assets, or of a whole line, area or site."""
    asset: str = "*"
    """Glob over names (`dcm*`) or, with slashes, over whole paths, at that level."""
    kinds: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Device kinds; none: any."""
    window: WindowLabel
    """The windows, one of those in use; not `order`."""
    above: float | None = None
    """Raised where the value is above it, in the unit of the KPI."""
    below: float | None = None
    """Raised where the value is below it, in the unit of the KPI."""
    late_above: Annotated[float, Field(ge=0, lt=1, json_schema_extra=_RATIO)] | None = None
    """Raised where a greater share of the window's samples came after their pane was closed."""
    stale: Held | None = None
    """Raised where the KPI had no value for so long."""
    missing: Held | None = None
    """Raised where an asset of the roster sent no sample for so long."""
    held: Annotated[Held, Field(alias="for")] = 1
    """How long `above`, `below` or `late_above` must hold."""
    clear_below: float | None = None
    """With `above` and `late_above`: cleared at or below it. Default: the threshold itself."""
    clear_above: float | None = None
    """With `below`: cleared at or above it. Default: the threshold itself."""
    clear_for: Held = 1
    """How long that must hold. A window without evidence clears nothing."""

    @field_validator("name")
    @classmethod
    def _is_name(cls, name: str) -> str:
        if re.fullmatch(r"[a-z][a-z0-9_-]{0,63}", name) is None:
            raise ValueError(f"needs lower case letters, digits, _ and -, got {name!r}")
        return name

    @field_validator("kpi")
    @classmethod
    def _is_known(cls, kpi: str, info: ValidationInfo) -> str:
        known = _known(info)
        if known and kpi not in known:
            raise ValueError(f"unknown KPI {kpi!r}{tomlfile.guess(kpi, known)}")
        return kpi

    @field_validator("window")
    @classmethod
    def _has_a_next(cls, label: str, info: ValidationInfo) -> str:
        if label == Order.label:
            raise ValueError("an order has no row before it ends; name 1m, 1h, shift, ...")
        used = _context(info).get("windows")
        if used is not None and label not in used:
            near = tomlfile.guess(label, used)
            raise ValueError(f"{label} is not in edge.windows ({', '.join(used)}){near}")
        return label

    @model_validator(mode="after")
    def _fits(self, info: ValidationInfo) -> Self:
        self._check_condition()
        first = self.condition if self.limit is None else "for"
        for name, held in ((first, self._held), ("clear_for", self.clear_for)):
            try:
                _count(held, self.window)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        if (about := _known(info).get(self.kpi)) is not None:
            self._check_kpi(about)
        return self

    def _check_condition(self) -> None:
        given = [name for name in CONDITIONS if getattr(self, name) is not None]
        if len(given) != 1:
            got = f"has {' and '.join(given)}" if given else "has none"
            raise ValueError(f"needs one of {', '.join(CONDITIONS)}; it {got}")
        [condition] = given
        if condition in ("stale", "missing") and self.held != 1:
            raise ValueError(f"for: {condition} says itself how long")
        fits = {"clear_below": ("above", "late_above"), "clear_above": ("below",)}
        for name, fitting in fits.items():
            if getattr(self, name) is not None and condition not in fitting:
                raise ValueError(f"{name} goes with {' or '.join(fitting)}, not with {condition}")
        limit = self.limit
        if self.clear_below is not None and limit is not None and self.clear_below > limit:
            raise ValueError(f"clear_below {self.clear_below:g} is above {condition} {limit:g}")
        if self.clear_above is not None and limit is not None and self.clear_above < limit:
            raise ValueError(f"clear_above {self.clear_above:g} is below {condition} {limit:g}")

    def _check_kpi(self, about: Known) -> None:
        low, high = about.range
        for name in ("above", "below", "clear_above", "clear_below"):
            value = getattr(self, name)
            if value is None or (name == "clear_below" and self.late_above is not None):
                continue
            if (low is not None and value < low) or (high is not None and value > high):
                ends = " to ".join("–" if end is None else f"{end:g}" for end in (low, high))
                raise ValueError(
                    f"{name} {value:g} is beyond what {self.kpi} can be: {ends} [{about.unit}]"
                )
        if about.kinds and (strange := sorted({*self.kinds} - {*about.kinds})):
            near = tomlfile.guess(strange[0], about.kinds)
            raise ValueError(
                f"kinds: {self.kpi} is made for {', '.join(about.kinds)}, not {strange[0]}{near}"
            )
        if self.level != "asset" and not about.rolls_up:
            raise ValueError(f"level: {self.kpi} is not given for a {self.level}, only for assets")

    @cached_property
    def condition(self) -> Condition:
        """Which of the five it is."""
        return next(name for name in CONDITIONS if getattr(self, name) is not None)

    @cached_property
    def limit(self) -> float | None:
        """The threshold; ``None`` of ``stale`` and ``missing``."""
        found = (self.above, self.below, self.late_above)
        return next((value for value in found if value is not None), None)

    @cached_property
    def clear_limit(self) -> float | None:
        """Where it clears, that value included."""
        found = (self.clear_below, self.clear_above, self.limit)
        return next((value for value in found if value is not None), None)

    @property
    def _held(self) -> int | str:
        return next((held for held in (self.stale, self.missing) if held is not None), self.held)

    @cached_property
    def to_raise(self) -> int:
        """Windows in a row for which the condition holds when it is raised."""
        return _count(self._held, self.window)

    @cached_property
    def to_clear(self) -> int:
        """Windows in a row with evidence of the contrary when it is cleared."""
        return _count(self.clear_for, self.window)

    @property
    def row_name(self) -> str:
        """What its rows have in the place of a KPI."""
        return PREFIX + self.name

    def means(self, path: str, kind: str | None) -> bool:
        """Whether it looks at an asset, or at a group, which has no kind, by its path."""
        if path.count("/") != LEVELS.index(self.level) or not asset_matches(self.asset, path):
            return False
        return not self.kinds or kind in self.kinds

    def told(self, unit: str) -> str:
        """Condition and how long, for people, as in `below 0.9 for 5 x 1m, clears at 0.92`."""
        mark = "" if unit == "1" else f" {unit}"
        if self.limit is None:
            what = "no value" if self.condition == "stale" else "no sample"
        elif self.condition == "late_above":
            what, mark = f"share of late samples above {self.limit:g}", ""
        else:
            what = f"{self.condition} {self.limit:g}{mark}"
        clear = f"clears at {self.clear_limit:g}{mark}" if self.limit is not None else "clears"
        windows = f"{self.to_clear} x {self.window}"
        return f"{what} for {self.to_raise} x {self.window}; {clear} for {windows}"


class Rules(Spec):
    """A whole file of them."""

    rule: Annotated[tuple[Rule, ...], Field(strict=False)]
    """In the order in which they are told."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        names = [rule.name for rule in self.rule]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two are called {', '.join(twice)}")
        return self

    def as_json(self) -> str:
        """As a recording keeps them; ``Rules.model_validate_json`` reads it back."""
        return self.model_dump_json(by_alias=True, exclude_none=True)


def _as_file(value: object) -> object:
    if isinstance(value, str) and value not in (DEFAULT, NONE) and not tomlfile.is_path(value):
        near = tomlfile.guess(value, (DEFAULT, NONE))
        raise ValueError(f"should be default, none or a path like ./alarms.toml{near}")
    return value


class AlarmSettings(Spec):
    """Which alarm rules are in force."""

    file: Annotated[str, BeforeValidator(_as_file)] = DEFAULT
    """`default`: the shipped ones, as far as their windows are in use; `none`; or a path."""


def load_rules(
    source: Path | Traversable | None = None,
    *,
    kpis: Mapping[str, Known] | None = None,
    windows: Collection[str] | None = None,
) -> Rules:
    """The shipped rules, or those of a file; they may use these ``kpis`` and ``windows``."""
    where = files("config") / "alarms.toml" if source is None else source
    return tomlfile.read(where, Rules, context={"kpis": kpis or {}, "windows": windows})


def rules_in_force(
    file: str, *, kpis: Mapping[str, Known], windows: Collection[str]
) -> tuple[Rule, ...]:
    """What ``alarms.file`` means where these windows are in use. A shipped rule whose windows are
    not is left out; in a file of one's own it is an error."""
    if file == NONE:
        return ()
    if file == DEFAULT:
        shipped = load_rules(kpis=kpis).rule
        return tuple(rule for rule in shipped if rule.window in windows)
    try:
        return load_rules(Path(file), kpis=kpis, windows=windows).rule
    except ConfigError as error:
        error.hint = error.hint or "`beilun config schema alarms` lists every setting of a rule"
        raise


def _count(held: int | str, label: str) -> int:
    """How many windows of a kind, one after the other, a stretch of time is."""
    if isinstance(held, int):
        return held
    if label in ("shift", "day"):
        raise ValueError(f"a {label} has no one length; say how many of them, like 2")
    kind = window(label, "UTC", ("00:00",))
    step_ns = kind.step_ns if isinstance(kind, Sliding) else kind.nominal_ns
    count, rest = divmod(parse_duration(held), step_ns)
    if rest:
        raise ValueError(
            f"{held} is no whole number of windows: one comes every {format_duration(step_ns)}"
        )
    return count


def _context(info: ValidationInfo) -> dict[str, Any]:
    return cast("dict[str, Any]", info.context or {})


def _known(info: ValidationInfo) -> Mapping[str, Known]:
    return cast("Mapping[str, Known]", _context(info).get("kpis") or {})
