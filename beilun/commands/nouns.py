"""What there is: KPIs, device kinds, scenarios, network profiles; listed, or one described."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from beilun import console
from config.errors import UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from config.campus import Campus
    from config.claims import Claims
    from config.scenario import EdgeSettings

Name = Annotated[str, typer.Argument(metavar="NAME", help="Describe this one.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


def kpis(name: Name = "", as_json: Json = False) -> None:
    """List the KPIs with unit and meaning, or describe one: formula, source, range, inputs, and how
    far from the truth it may be where every message arrives."""
    from edge import kpis as folder

    found = {
        kpi.name: {
            "name": kpi.name,
            "unit": kpi.unit,
            "better": kpi.better,
            "summary": kpi.summary,
            "formula": kpi.formula,
            "clause": kpi.clause,
            "range": kpi.range_text,
            "bound": kpi.accuracy.text(),
            "bound_of_orders": kpi.accuracy.text(cut=True),
            "kinds": list(kpi.kinds),
            "needs": list(kpi.needs),
            "reads": [name for name in kpi.inputs if name not in kpi.needs],
            "rolls_up": kpi.rolls_up,
        }
        for kpi in folder.load().values()
    }
    _answer("KPI", found, name, ("name", "unit", "better", "summary"), as_json=as_json)


def devices(name: Name = "", as_json: Json = False) -> None:
    """List the device kinds, or describe one with all its settings, units and defaults."""
    from simulator.device import kinds

    found = {
        kind.name: {
            "name": kind.name,
            "summary": kind.summary,
            "settings": [
                dict(zip(("setting", "default", "unit", "meaning"), row, strict=True))
                for row in kind.settings()
            ],
            "channels": dict(kind.channels),
        }
        for kind in kinds().values()
    }
    _answer("device kind", found, name, ("name", "summary"), as_json=as_json)


def faults(name: Name = "", as_json: Json = False) -> None:
    """List what can go wrong with a network and with what devices send, or describe one fault with
    its settings."""
    from config.faults import FAULTS
    from config.tomlfile import unit_of

    found = {
        kind: {
            "name": kind,
            "summary": " ".join((model.__doc__ or "").split()),
            "settings": [
                {
                    "setting": setting,
                    "default": "required" if field.is_required() else str(field.default),
                    "unit": unit_of(model, (setting,)),
                    "meaning": field.description or "",
                }
                for setting, field in model.model_fields.items()
                if setting != "kind"
            ],
        }
        for kind, model in FAULTS.items()
    }
    _answer("fault", found, name, ("name", "summary"), as_json=as_json)


def scenarios(name: Name = "", as_json: Json = False) -> None:
    """List the shipped scenarios, or describe one: its settings, what it changes and why, what goes
    wrong in it, and what is claimed of it."""
    from config.claims import load_claims
    from config.scenario import find_scenario, scenario_names
    from config.units import format_duration, format_time

    claims = load_claims()
    found: dict[str, dict[str, Any]] = {}
    for each in [name] if name in scenario_names() else scenario_names():
        scenario = find_scenario(each)
        found[each] = {
            "name": scenario.name,
            "summary": scenario.summary,
            "base": scenario.base or None,
            "plant": scenario.plant,
            "network": scenario.network,
            "seed": scenario.seed,
            "start": format_time(scenario.start),
            "length": format_duration(scenario.length),
            "edge": _edge(scenario.edge),
            "campus": boundary(scenario.campus),
            "fault": [told(fault) for fault in scenario.fault],
            "expect": [str(expect) for expect in scenario.expect],
            "tolerance": [f"{kpi} {told(wide)}" for kpi, wide in scenario.tolerance.items()],
            "changes": [
                {
                    "change": change.name,
                    "why": change.why,
                    "set": "; ".join(f"{path} = {value}" for path, value in change.set.items()),
                }
                for change in scenario.change
            ],
            "claims": list(_claimed(claims, each)),
        }
    _answer("scenario", found, name, ("name", "plant", "network", "length", "summary"),
            as_json=as_json)  # fmt: skip


def _claimed(claims: "Claims", name: str) -> Iterator[dict[str, str]]:
    """What a scenario must come out at, and what is compared with it."""
    for headlines in claims.headline:
        for claim in headlines.claim:
            if name not in (headlines.scenario, claim.against):
                continue
            band = "any" if claim.reported else "within the effect of the edges of time"
            if claim.band is not None:
                low, high = claim.band
                band = f"{low:+.0%} to {high:+.0%}" if claim.against else f"{low:g} to {high:g}"
            of = "" if headlines.scenario == name else f"{headlines.scenario}: "
            yield {"claim": f"{of}{claim.text}", "band": band, "source": claim.source}


def _edge(edge: "EdgeSettings") -> dict[str, str]:
    """How the edge cuts time; the pane is the one in use."""
    from config.units import format_duration

    return {
        "pane": format_duration(edge.pane_ns),
        "windows": ", ".join(edge.windows),
        "zone": edge.zone,
        "shifts": ", ".join(edge.shifts),
        "lateness": format_duration(edge.lateness),
        "retention": format_duration(edge.retention),
        "max_skew": format_duration(edge.max_skew),
    }


def boundary(campus: "Campus | None") -> dict[str, str] | None:
    """What may leave the campus; ``None`` where nothing is counted."""
    if campus is None:
        return None
    rows = ", ".join(f"{s.kpi}@{s.asset} {s.window}" for s in campus.summary) or "none"
    return {"only": str(campus.only).lower(), "networks": campus.spelt, "summary": rows}


def told(model: "BaseModel") -> str:
    """What a table of a file says, on one line, in its words; defaults are left out."""
    from pydantic import BaseModel

    from config.tomlfile import unit_of
    from config.units import format_duration

    words: list[str] = []
    for name, value in sorted(model, key=lambda item: item[0] != "kind"):
        if value == type(model).model_fields[name].default:
            continue
        if isinstance(value, BaseModel):
            text = f"({told(value)})"
        elif unit_of(type(model), (name,)).startswith("duration"):
            text = format_duration(value)
        else:
            text = str(value)
        words.append(text if name == "kind" else f"{name} {text}")
    return ", ".join(words)


def networks(name: Name = "", as_json: Json = False) -> None:
    """List the network profiles, or describe one with all its settings, units and defaults."""
    from simulator.link.profile import load_profile, profile_names

    found: dict[str, dict[str, Any]] = {}
    for each in [name] if name in profile_names() else profile_names():
        profile = load_profile(each)
        found[each] = {
            "name": each,
            "summary": profile.summary,
            "source": profile.source,
            "settings": list(_leaves(profile)),
        }
    _answer("network", found, name, ("name", "summary"), as_json=as_json)


def _answer(
    what: str,
    found: Mapping[str, Mapping[str, Any]],
    name: str,
    columns: Sequence[str],
    *,
    as_json: bool,
) -> None:
    chosen = [found[known(what, name, found)]] if name else list(found.values())
    if as_json:
        console.ndjson(chosen)
    elif name:
        _describe(chosen[0])
    else:
        console.table(columns, [[item[column] for column in columns] for item in chosen])


def _leaves(model: "BaseModel", prefix: str = "") -> Iterator[dict[str, Any]]:
    """Every setting of a validated file, tables flattened."""
    from pydantic import BaseModel

    from config.tomlfile import unit_of

    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{name}.")
        elif prefix or name not in ("name", "summary", "source"):
            unit = unit_of(type(model), (name,))
            meaning = field.description or ""
            yield {"setting": prefix + name, "value": value, "unit": unit, "meaning": meaning}


def known(what: str, name: str, names: Collection[str]) -> str:
    """``name`` if it is one of ``names``, else an error with a guess."""
    from config.tomlfile import guess

    if name not in names:
        there = ", ".join(names) or "none"
        raise UsageError(f"unknown {what} {name!r}{guess(name, names)}", hint=f"there are: {there}")
    return name


def _describe(item: Mapping[str, Any]) -> None:
    width = max(map(len, item)) + 2
    tables: list[tuple[str, list[dict[str, Any]]]] = []
    for key, value in item.items():
        if isinstance(value, dict):
            header = "unit" if key == "channels" else "value"
            pairs = cast("dict[str, Any]", value).items()
            tables.append((key, [{"name": name, header: text} for name, text in pairs]))
        elif isinstance(value, list):
            items = list(cast("Sequence[Any]", value))
            if items and isinstance(items[0], dict):
                tables.append((key, items))
            else:
                console.out(*_listed(key, items, width))
        else:
            shown = console.cell(value) if value is None or isinstance(value, bool) else value
            console.out(f"{key:{width}}{shown}".rstrip())
    for title, rows in tables:
        console.out("")
        columns = list(rows[0])
        console.table(columns, [[_plain(row[c]) for c in columns] for row in rows], title)


def _listed(key: str, values: list[Any], width: int) -> list[str]:
    first, *rest = values or ["any" if key == "kinds" else "none"]
    return [f"{key:{width}}{first}", *(f"{'':{width}}{value}" for value in rest)]


def _plain(value: object) -> object:
    """A setting's value as it is written; only bare numbers are left to be formatted."""
    return value if isinstance(value, str) else str(value)
