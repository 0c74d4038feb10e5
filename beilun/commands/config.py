"""Settings and files: effective values with their origin, validation, and JSON Schema."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from beilun import console
from config.errors import BeilunError, ConfigError, Exit

app = typer.Typer(add_completion=False, no_args_is_help=True)

KINDS = ("scenario", "plant", "settings", "network")


@app.command()
def show(
    scenario: Annotated[str, typer.Option(help="With the settings of this scenario.")] = "",
    config: Annotated[Path | None, typer.Option(help="A settings file on top.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Every setting with its effective value and where that comes from; secrets stay hidden."""
    from config import settings
    from config.scenario import find_scenario

    rows = list(settings.load(find_scenario(scenario) if scenario else None, config=config).show())
    if as_json:
        console.ndjson(
            {"key": r.key, "value": r.value, "unit": r.unit, "origin": r.origin, "doc": r.doc}
            for r in rows
        )
    else:
        console.table(("setting", "value", "origin"), [(r.key, r.value, r.origin) for r in rows])


@app.command()
def check(files: Annotated[list[Path], typer.Argument(help="TOML files.")]) -> Exit:
    """Validate scenarios, plants, settings and network profiles, told apart by their content."""
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
    kind: Annotated[str, typer.Argument(help="scenario, plant, settings or network.")] = "scenario",
) -> None:
    """Print the JSON Schema of a kind of file, for editors."""
    from beilun.commands.nouns import known

    made = _models()[known("kind of file", kind, KINDS)].model_json_schema()
    console.out(json.dumps(as_written(made), indent=2, ensure_ascii=False))


def check_file(path: Path) -> str:
    """Validate one file by what it holds and return its kind; raises ``ConfigError``."""
    from config import settings, tomlfile
    from config.scenario import read_scenario
    from edge import kpis
    from simulator.plant import load_plant

    match kind_of(tomlfile.load(path)):
        case "scenario":
            plant = read_scenario(path, kpis=kpis.load()).plant_file()
            if isinstance(plant, Path):
                load_plant(plant)
            return "scenario"
        case "plant":
            load_plant(path)
            return "plant"
        case "network":
            _check_profile(path)
            return "network profile"
        case "settings":
            settings.read_file(path)
            return "settings"
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
    from config.scenario import Scenario
    from config.settings import Values
    from simulator.link.profile import Profile
    from simulator.plant import Plant

    return dict(zip(KINDS, (Scenario, Plant, Values, Profile), strict=True))


def as_written(node: Any) -> Any:
    """A schema in the words of the file: durations and times are text there, not nanoseconds."""
    from config.units import format_duration, format_time

    if isinstance(node, list):
        return [as_written(item) for item in node]
    if not isinstance(node, dict):
        return node
    shape = cast("dict[str, Any]", node)
    unit = str(shape.get("unit", ""))
    if unit.startswith("duration") or unit == "RFC 3339":
        rest = {k: v for k, v in shape.items() if k not in ("type", "exclusiveMinimum", "default")}
        default = shape.get("default")
        spell = format_duration if unit.startswith("duration") else format_time
        if isinstance(default, int):
            rest["default"] = spell(default)
        form = {"pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d))+$"}
        return {
            "type": "string",
            **({"format": "date-time"} if spell is format_time else form),
            **rest,
        }
    return {key: as_written(value) for key, value in shape.items()}
