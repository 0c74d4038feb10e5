"""A scenario: a plant, a network, a seed, a span of time, and what is expected of it.

One may be based on another and say by named changes what is different:

    base = "ikd-before"
    [[change]]
    name = "dispatch-on-event"
    why = "vehicles are called when a container is full, not every 30 minutes"
    set = { "transport.dispatch" = "event" }

It then has everything of its base but what it is called, its summary and its expectations; keys and
tables it gives itself replace the base's as a whole. Plant and network differ by changes only, so
that nothing differs without a reason.
"""

from collections.abc import Collection, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from config import tomlfile
from config.alarms import AlarmSettings
from config.campus import Campus
from config.changes import OWN, Change, changed
from config.errors import ConfigError, UsageError
from config.faults import Fault
from config.globs import asset_matches
from config.units import (
    NS_PER_DAY,
    NS_PER_S,
    DurationNs,
    TimeNs,
    format_duration,
    parse_duration,
    parse_time,
)
from config.windows import (
    UNIT,
    Window,
    WindowLabel,
    as_label,
    check_zone,
    ordered,
    shift_minutes,
    window,
)

_STRICT = ConfigDict(
    strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
)

Op = Literal[">=", "<=", ">", "<", "==", "between"]


def _as_tuple(value: object) -> object:
    """One bound may be written without brackets."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (value,)
    if not isinstance(value, list | tuple):
        raise ValueError(f"should be a number, or for between a list of two, got {value!r}")
    return cast("object", value)


def _as_expected(value: object) -> object:
    return value if value == "run" else as_label(value)


ExpectedLabel = Annotated[
    str,
    BeforeValidator(_as_expected, json_schema_input_type=str),
    Field(json_schema_extra={"unit": f"{UNIT}, run"}),
]


class EdgeSettings(BaseModel):
    """How the edge cuts time. Part of a scenario, and a section of the settings."""

    model_config = _STRICT

    pane: DurationNs = 10 * NS_PER_S
    """Longest stretch that is folded at once; the shortest window or step where that is shorter."""
    zone: str = "UTC"
    """Whose local time days and shifts go by, like Asia/Shanghai."""
    shifts: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = (
        "06:00",
        "14:00",
        "22:00",
    )
    """Working shifts by local time, like 22:00-06:00; one without an end lasts until the next."""
    windows: Annotated[tuple[WindowLabel, ...], Field(strict=False, min_length=1)] = (
        "1m",
        "1h",
        "8h",
    )
    """KPI windows: lengths, 1h/5m (an hour, every 5 minutes), shift, day, order; whole panes."""
    lateness: DurationNs = 2 * NS_PER_S
    """How long after a pane's end a message may arrive and not be late."""
    retention: DurationNs = NS_PER_DAY
    """How late a sample may be and still amend its row."""
    max_skew: DurationNs = 5 * NS_PER_S
    """How far ahead of its arrival a sample may claim to be."""

    @field_validator("zone")
    @classmethod
    def _is_known(cls, zone: str) -> str:
        return check_zone(zone)

    @field_validator("shifts")
    @classmethod
    def _are_shifts(cls, shifts: tuple[str, ...]) -> tuple[str, ...]:
        shift_minutes(shifts)
        return shifts

    @field_validator("windows")
    @classmethod
    def _of_whole_panes(cls, labels: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        kinds = [window(label, "UTC", ("00:00",)) for label in labels]
        shortest = min(kind.shortest_ns for kind in kinds)
        pane = min(info.data.get("pane", shortest), shortest)
        if broken := [k.label for k in kinds if k.grain_ns % pane]:
            raise ValueError(
                f"every window must be a multiple of the pane ({format_duration(pane)});"
                f" {', '.join(broken)} is not"
            )
        return ordered(labels)

    @property
    def kinds(self) -> tuple[Window, ...]:
        """The windows, by calendar where they go by it."""
        return tuple(window(label, self.zone, self.shifts) for label in self.windows)

    @property
    def pane_ns(self) -> int:
        """The pane in use."""
        return min(self.pane, *(kind.shortest_ns for kind in self.kinds))


class Expect(BaseModel):
    """One expectation; without data it fails."""

    model_config = _STRICT

    kpi: str
    """Name of a KPI; `beilun kpis` lists them."""
    asset: str | None = None
    """Glob over names (`dcm*`) or, with slashes, over whole paths; default: every asset."""
    window: ExpectedLabel = "run"
    """The windows that must hold it, one of those in use; `run` is the longest side by side."""
    after: DurationNs | None = None
    """Virtual time a run must have lasted for this to be judged; a shorter one skips it."""
    op: Op
    """How the measured value must stand to `value`."""
    value: Annotated[
        tuple[float, ...],
        BeforeValidator(_as_tuple, json_schema_input_type=float | tuple[float, ...]),
        Field(strict=False, max_length=2),
    ]
    """The bound in the unit of the KPI, or for `between` the list of both."""

    @field_validator("kpi")
    @classmethod
    def _is_known(cls, kpi: str, info: ValidationInfo) -> str:
        return _known("KPI", kpi, _context(info).get("kpis", ()))

    @field_validator("value")
    @classmethod
    def _fits_op(cls, value: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        op = info.data.get("op")
        if op == "between" and (len(value) != 2 or value[0] > value[1]):
            raise ValueError("between needs a low and a high bound, like [0.5, 1.4]")
        if op != "between" and op is not None and len(value) != 1:
            raise ValueError(f"{op} needs one number")
        return value

    def matches(self, path: str) -> bool:
        """Whether an asset path (`site/area/line/name`, roll-ups shorter) is meant."""
        return self.asset is None or asset_matches(self.asset, path)

    def holds(self, measured: float) -> bool:
        """Whether a value meets it."""
        low = self.value[0]
        match self.op:
            case ">=":
                return measured >= low
            case "<=":
                return measured <= low
            case ">":
                return measured > low
            case "<":
                return measured < low
            case "==":
                return measured == low
            case "between":
                return low <= measured <= self.value[1]

    def __str__(self) -> str:
        return f"{self.kpi}{f'@{self.asset}' if self.asset else ''} {self.bound}"

    @property
    def bound(self) -> str:
        """The right-hand side, as in `>= 0.6`."""
        return f"{self.op} {' and '.join(f'{v:g}' for v in self.value)}"


class Tolerance(BaseModel):
    """How far a KPI may move before `beilun replay --expect` says so: the wider of the two."""

    model_config = _STRICT

    relative: Annotated[float, Field(ge=0, json_schema_extra={"unit": "ratio"})] = 0.0
    """Share of the expected value."""
    absolute: Annotated[float, Field(ge=0)] = 0.0
    """In the unit of the KPI."""

    def covers(self, expected: float, got: float) -> bool:
        """Whether the difference is within it."""
        return abs(got - expected) <= max(self.absolute, self.relative * abs(expected))


class Scenario(BaseModel):
    """All that a run depends on; a run is a pure function of it and of the version."""

    model_config = _STRICT

    name: str = ""
    """By default the name of the file."""
    summary: str = ""
    """One line that says what it shows."""
    base: str = ""
    """A shipped scenario by name, or a path to a scenario file, that this one is based on."""
    plant: str
    """A shipped plant by name, or a path to a plant file, relative to the scenario."""
    network: str = "private-5g"
    """Profile of the radio; `beilun networks` lists them."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Start of every random stream."""
    start: TimeNs = parse_time("2026-01-05T00:00:00Z")
    """Where virtual time starts."""
    length: DurationNs
    """How much virtual time passes."""
    telemetry: str = "1s"
    """How often devices sample their signals, in whole seconds, like 1s or 1m; `events`: never, and
    what happened is sent bundled."""
    edge: EdgeSettings = EdgeSettings()
    """How the edge cuts time."""
    alarms: AlarmSettings = AlarmSettings()
    """Which alarm rules are in force; a path is relative to the scenario."""
    fault: Annotated[tuple[Fault, ...], Field(strict=False)] = ()
    """What goes wrong with the network and with what devices send, and when; `beilun faults`
    describes them."""
    campus: Campus | None = None
    """What may leave the campus; without this table nothing is counted and nothing withheld."""
    change: Annotated[tuple[Change, ...], Field(strict=False)] = ()
    """What is different from the base; without a base, from the plant as its file has it."""
    expect: Annotated[tuple[Expect, ...], Field(strict=False)] = ()
    """What must hold at the end."""
    tolerance: dict[str, Tolerance] = {}
    """Per KPI, how far a replay may differ; default: not at all."""

    _folder: Path = PrivateAttr(default=Path())
    _base: "Scenario | None" = PrivateAttr(default=None)
    _written: dict[str, Any] = PrivateAttr(default_factory=dict[str, Any])
    """In the words of the file, with what it has from its base."""

    @field_validator("plant")
    @classmethod
    def _has_plant(cls, plant: str, info: ValidationInfo) -> str:
        if not tomlfile.is_path(plant):
            return _known("plant", plant, plant_names())
        folder = _context(info).get("folder", Path())
        if not (folder / plant).is_file():
            raise ValueError(f"no such file: {folder / plant}")
        return plant

    @field_validator("network")
    @classmethod
    def _has_network(cls, network: str) -> str:
        return _known("network", network, network_names())

    @field_validator("telemetry")
    @classmethod
    def _is_interval(cls, telemetry: str) -> str:
        if telemetry == "events":
            return telemetry
        interval_ns = parse_duration(telemetry)
        if not 0 < interval_ns <= NS_PER_DAY or interval_ns % NS_PER_S:
            raise ValueError("needs whole seconds, like 1s or 1m, at most a day; or events")
        return format_duration(interval_ns)

    @field_validator("tolerance")
    @classmethod
    def _of_known_kpis(
        cls, tolerance: dict[str, Tolerance], info: ValidationInfo
    ) -> dict[str, Tolerance]:
        for kpi in tolerance:
            _known("KPI", kpi, _context(info).get("kpis", ()))
        return tolerance

    @field_validator("change")
    @classmethod
    def _each_once(cls, changes: tuple[Change, ...], info: ValidationInfo) -> tuple[Change, ...]:
        if not info.data.get("base") and any(change.own for change in changes):
            raise ValueError("it has no base whose network it could change; write network itself")
        names = [change.name for change in changes]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two are called {', '.join(twice)}")
        return changes

    @model_validator(mode="after")
    def _names_windows_in_use(self) -> Self:
        named = [(f"expect #{n}", each.window) for n, each in enumerate(self.expect, 1)]
        if self.campus is not None:
            out = enumerate(self.campus.summary, 1)
            named += [(f"campus.summary #{n}", each.window) for n, each in out]
        for where, label in named:
            if label not in ("run", *self.edge.windows):
                used = ", ".join(self.edge.windows)
                raise ValueError(f"{where}.window {label} is not in edge.windows ({used})")
        return self

    @property
    def alarms_file(self) -> str:
        """``alarms.file``, a path as seen from here."""
        name = self.alarms.file
        return str(self._folder / name) if tomlfile.is_path(name) else name

    @property
    def interval_ns(self) -> int | None:
        """Between samples of a signal; ``None`` where none are taken."""
        return None if self.telemetry == "events" else parse_duration(self.telemetry)

    def plant_file(self) -> Path | Traversable:
        """Where the plant is described."""
        if tomlfile.is_path(self.plant):
            return self._folder / self.plant
        return files("config") / "plants" / f"{self.plant}.toml"

    def plant_data(self) -> dict[str, Any]:
        """The tables of the plant with every change made, the base's first; not yet validated."""
        made: list[Change] = []
        here: Scenario | None = self
        while here is not None:
            made = [*here.change, *made]
            here = here._base
        return changed(tomlfile.load(self.plant_file()), made, at=f"scenario {self.name}")

    @property
    def based_on(self) -> "Scenario | None":
        """The scenario this one is based on, by itself."""
        return self._base

    def with_only(self, names: Collection[str]) -> Self:
        """The same scenario with some of its changes: those that have these names."""
        kept = tuple(change for change in self.change if change.name in names)
        network = self.network if self._base is None else self._base.network
        for change in kept:
            network = change.own.get("network", network)
        return self.model_copy(update={"change": kept, "network": network})

    def within(self, folder: Path, base: "Scenario | None", written: Mapping[str, Any]) -> Self:
        """The same scenario, its relative paths starting at ``folder``."""
        same = self.model_copy()
        same._folder, same._base, same._written = folder, base, dict(written)
        return same

    def inherited(self) -> dict[str, Any]:
        """What a scenario that is based on this one has of it, in the words of the file."""
        left = ("name", "summary", "base", "change", "expect")
        plant = (
            str(Path(str(self.plant_file())).resolve())
            if tomlfile.is_path(self.plant)
            else self.plant
        )
        kept = {k: v for k, v in self._written.items() if k not in left} | {"plant": plant}
        if tomlfile.is_path(self.alarms.file):
            kept["alarms"] = {"file": str(Path(self.alarms_file).resolve())}
        return kept


def scenario_names() -> list[str]:
    """Names of the shipped scenarios."""
    return _names("scenarios")


def network_names() -> list[str]:
    """Names of the shipped network profiles."""
    return _names("networks")


def plant_names() -> list[str]:
    """Names of the shipped plants."""
    return _names("plants")


def find_scenario(
    name_or_path: str | Path,
    *,
    kpis: Collection[str] = (),
    changes: Mapping[str, object] | None = None,
) -> Scenario:
    """A shipped scenario by name, or one from a file; ``kpis`` are the names it may expect.

    ``changes`` replace settings of the file, in the words of the file.
    """
    text = str(name_or_path)
    if tomlfile.is_path(text) or Path(text).is_file():
        return read_scenario(Path(text), kpis=kpis, changes=changes)
    if text not in scenario_names():
        raise UsageError(
            f"unknown scenario {text}{tomlfile.guess(text, scenario_names())}",
            hint="`beilun scenarios` lists them; a file is given by its path, like ./scenario.toml",
        )
    source = files("config") / "scenarios" / f"{text}.toml"
    return read_scenario(source, kpis=kpis, changes=changes)


def read_scenario(
    source: Path | Traversable,
    *,
    kpis: Collection[str] = (),
    changes: Mapping[str, object] | None = None,
) -> Scenario:
    """A scenario from its file, which also names it; see ``find_scenario``."""
    return _read(source, kpis, changes or {}, ())


def _read(
    source: Path | Traversable,
    kpis: Collection[str],
    changes: Mapping[str, object],
    above: tuple[str, ...],
) -> Scenario:
    """``above``: the files that are based on this one, to end where one is based on itself."""
    at = str(source)
    folder = source.parent if isinstance(source, Path) else Path()
    written = tomlfile.load(source)
    base: Scenario | None = None
    if isinstance(name := written.get("base"), str):
        if restated := [key for key in ("plant", *OWN) if key in written]:
            raise ConfigError(
                f"{' and '.join(restated)}: it has that from its base",
                at=at,
                hint="write what is different as a [[change]], with its reason",
            )
        base = _base(name, folder, kpis, (*above, at))
        written = {**base.inherited(), **written, **_own(written)}
    data = {"name": source.name.removesuffix(".toml"), **written, **changes}
    context: Mapping[str, object] = {"folder": folder, "kpis": kpis}
    try:
        made = tomlfile.validate(data, Scenario, at=at, context=context)
    except ConfigError as error:
        error.hint = error.hint or "`beilun config schema scenario` lists every setting"
        raise
    return made.within(folder, base, written)


def _base(name: str, folder: Path, kpis: Collection[str], above: tuple[str, ...]) -> Scenario:
    path = tomlfile.is_path(name)
    if not path and name not in scenario_names():
        known = tomlfile.guess(name, scenario_names())
        raise ConfigError(f"base: unknown scenario {name!r}{known}", at=above[-1])
    source = folder / name if path else files("config") / "scenarios" / f"{name}.toml"
    if str(source) in above or len(above) > _DEEPEST:
        raise ConfigError("base: it is based on itself", at=above[-1])
    return _read(source, kpis, {}, above)


_DEEPEST = 20


def _own(written: Mapping[str, Any]) -> dict[str, Any]:
    """What the changes of a file, not yet validated, set of the scenario itself."""
    found: dict[str, Any] = {}
    changes = written.get("change")
    for change in cast("list[object]", changes) if isinstance(changes, list) else []:
        table = cast("dict[str, Any]", change) if isinstance(change, dict) else {}
        values = table.get("set")
        if isinstance(values, dict):
            values = cast("dict[str, Any]", values)
            found |= {key: value for key, value in values.items() if key in OWN}
    return found


def _context(info: ValidationInfo) -> dict[str, Any]:
    return cast("dict[str, Any]", info.context or {})


def _names(folder: str) -> list[str]:
    found = (files("config") / folder).iterdir()
    return sorted(f.name.removesuffix(".toml") for f in found if f.name.endswith(".toml"))


def _known(what: str, name: str, names: Collection[str]) -> str:
    if names and name not in names:
        raise ValueError(f"unknown {what} {name!r}{tomlfile.guess(name, names)}")
    return name
