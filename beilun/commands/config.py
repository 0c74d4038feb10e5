"""Settings and files: effective values with their origin, validation, and JSON Schema."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from beilun import console
from beilun.commands.nouns import boundary, told
from config.errors import BeilunError, ConfigError, Exit

if TYPE_CHECKING:
    from config.scenario import Scenario
    from config.settings import Setting

app = typer.Typer(add_completion=False, no_args_is_help=True)

KINDS = ("scenario", "plant", "settings", "network", "layout", "mapping", "claims", "alarms")


@app.command()
def show(
    scenario: Annotated[str, typer.Option(help="With the settings of this scenario.")] = "",
    config: Annotated[Path | None, typer.Option(help="A settings file on top.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Every setting with its effective value and where that comes from; secrets stay hidden."""
    from config import settings
    from config.scenario import find_scenario
    from config.units import format_duration

    chosen = find_scenario(scenario) if scenario else None
    effective = settings.load(chosen, config=config)
    rows = list(effective.show())
    pane_ns = effective.edge.pane_ns
    if pane_ns != effective.edge.pane:
        why = "the shortest window or step"
        rows.append(
            settings.Setting("edge.pane in use", format_duration(pane_ns), "duration", why, why)
        )
    rows += _of(chosen) if chosen is not None else []
    if as_json:
        console.ndjson(
            {"key": r.key, "value": r.value, "unit": r.unit, "origin": r.origin, "doc": r.doc}
            for r in rows
        )
    else:
        console.table(("setting", "value", "origin"), [(r.key, r.value, r.origin) for r in rows])


def _of(scenario: "Scenario") -> "Iterator[Setting]":
    """What a scenario says beside the settings: faults, and what may leave the campus."""
    from config.settings import Setting

    origin = f"scenario {scenario.name}"
    for number, fault in enumerate(scenario.fault, 1):
        yield Setting(f"fault #{number}", told(fault), "", origin, "what goes wrong, and when")
    for name, value in (boundary(scenario.campus) or {}).items():
        yield Setting(f"campus.{name}", value, "", origin, "what may leave the campus")


@app.command()
def check(files: Annotated[list[Path], typer.Argument(help="TOML files.")]) -> Exit:
    """Validate files of any kind, told apart by their content."""
    worst = Exit.OK
    for path in files:
        try:
            kind = check_file(path)
        except BeilunError as error:
            worst = error.exit
            console.error(f"error: {error}")
        else:
            console.out(f"ok  {path}  ({kind})")
    return worst


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(help=", ".join(KINDS) + ".")] = "scenario",
) -> None:
    """Print the JSON Schema of a kind of file, for editors."""
    from beilun.commands.nouns import known

    model = _models()[known("kind of file", kind, KINDS)]
    if kind == "plant":
        from simulator.plant import load_plant

        model = type(load_plant("quickstart"))  # with the settings of every device kind
    made = model.model_json_schema()
    if kind == "scenario":  # what is required may come from its base
        made["anyOf"] = [{"required": made.pop("required")}, {"required": ["base"]}]
    console.out(json.dumps(as_written(made), indent=2, ensure_ascii=False))


def check_file(path: Path) -> str:
    """Validate one file by what it holds and return its kind; raises ``ConfigError``."""
    from beilun.rehearsal import rehearse
    from config import settings, tomlfile
    from config.alarms import load_rules, rules_in_force
    from config.claims import load_claims
    from config.mapping import find_mapping
    from config.scenario import read_scenario
    from edge import kpis
    from simulator.link.layout import load_layout
    from simulator.plant import load_plant

    match kind_of(tomlfile.load(path)):
        case "scenario":
            chosen = read_scenario(path, kpis=kpis.load())
            for note in rehearse(chosen):
                console.note(f"{path}: {note}")
            rules_in_force(chosen.alarms_file, kpis=kpis.load(), windows=chosen.edge.windows)
            return "scenario"
        case "plant":
            load_plant(path)
            return "plant"
        case "network":
            _check_profile(path)
            return "network profile"
        case "layout":
            load_layout(path)
            return "layout"
        case "settings":
            settings.read_file(path)
            return "settings"
        case "mapping":
            find_mapping(path)
            return "mapping"
        case "claims":
            load_claims(path, kpis=kpis.load())
            return "claims"
        case "alarms":
            load_rules(path, kpis=kpis.load())
            return "alarms"
        case _:
            raise ConfigError(
                "is none of: " + ", ".join(KINDS),
                at=str(path),
                hint="`beilun init` writes a commented example of each",
            )


def _check_profile(path: Path) -> None:
    from config import tomlfile
    from simulator.link.profile import Profile, load_profile

    data = tomlfile.load(path)
    like = data.pop("like", None)
    base = load_profile(like).model_dump() if isinstance(like, str) else {}
    tomlfile.validate({**base, **data, "name": path.stem}, Profile, at=str(path))


def kind_of(data: Mapping[str, Any]) -> str | None:
    """Whose top-level keys a file has most of; ``None`` where it has nobody's."""
    known = {kind: set(model.model_fields) for kind, model in _models().items()}
    known["network"].add("like")
    shares = {kind: len(data.keys() & fields) for kind, fields in known.items()}
    best = max(shares, key=lambda kind: shares[kind])
    return best if shares[best] else None


def _models() -> dict[str, Any]:
    from config.alarms import Rules
    from config.claims import Claims
    from config.mapping import Mapping as TableMapping
    from config.scenario import Scenario
    from config.settings import Values
    from simulator.link.layout import Layout
    from simulator.link.profile import Profile
    from simulator.plant import Plant

    models = (Scenario, Plant, Values, Profile, Layout, TableMapping, Claims, Rules)
    return dict(zip(KINDS, models, strict=True))


def as_written(node: object) -> Any:
    """A schema in the words of the file: durations and times are text there, not nanoseconds."""
    from config.units import format_duration, format_time

    if isinstance(node, list):
        return [as_written(item) for item in cast("list[object]", node)]
    if not isinstance(node, dict):
        return node
    shape = {key: as_written(value) for key, value in cast("dict[str, Any]", node).items()}
    if "$ref" in shape:
        shape.pop("default", None)  # the table's own keys say it
    unit = str(shape.get("unit", ""))
    of_items = str(shape.get("items", {}).get("unit", "")) if shape.get("type") == "array" else ""
    default = shape.get("default")
    if unit.startswith("duration") and isinstance(default, int):
        shape["default"] = format_duration(default)
    elif unit == "RFC 3339" and isinstance(default, int):
        shape["default"] = format_time(default)
    elif of_items.startswith("duration") and isinstance(default, list):
        shape["default"] = [format_duration(each) for each in cast("list[int]", default)]
    if unit.startswith("duration"):
        shape |= {"type": "string", "pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d))+$"}
    elif unit == "RFC 3339":
        shape |= {"type": "string", "format": "date-time"}
    if shape.get("type") == "string":
        for word in ("gt", "exclusiveMinimum"):
            shape.pop(word, None)
    return shape
