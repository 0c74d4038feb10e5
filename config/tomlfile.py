"""TOML files into models, with every problem of a file told at once in the words of the file."""

import difflib
import re
import tomllib
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from config.errors import ConfigError

M = TypeVar("M", bound=BaseModel)
Loc = tuple[str | int, ...]
Source = Path | Traversable


def guess(word: str, known: Collection[str]) -> str:
    """`; did you mean X?` where something known looks like it, else nothing.

    >>> guess("cycle_sec", ["cycle_s", "scrap_ratio"])
    '; did you mean cycle_s?'
    """
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def is_path(name: str) -> bool:
    """Whether a word names a file of one's own, and not something shipped.

    >>> is_path("quickstart"), is_path("./quickstart"), is_path("quickstart.toml")
    (False, True, True)
    """
    return "/" in name or name.endswith(".toml")


def read(source: Source, model: type[M], *, context: Mapping[str, Any] | None = None) -> M:
    """Read one file into ``model``; raises one ``ConfigError`` that lists all its problems."""
    return validate(load(source), model, at=str(source), context=context)


def load(source: Source) -> dict[str, Any]:
    """The tables of a file, not yet validated."""
    at = str(source)
    try:
        return tomllib.loads(source.read_bytes().decode())
    except FileNotFoundError:
        raise ConfigError("no such file", at=at, hint=_siblings(source)) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", at=at) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 text (byte {error.start})", at=at) from None
    except tomllib.TOMLDecodeError as error:
        where = re.fullmatch(
            r"(.*) \(at (?:line (\d+), column (\d+)|(end of document))\)", str(error)
        )
        if where is None:
            raise ConfigError(f"not TOML: {error}", at=at) from None
        place = where[4] or f"line {where[2]}, column {where[3]}"
        raise ConfigError(
            f"not TOML: {where[1]}",
            at=f"{at}, {place}",
            hint='text needs quotes, like length = "8h"',
        ) from None


def validate(
    data: Mapping[str, Any], model: type[M], *, at: str, context: Mapping[str, Any] | None = None
) -> M:
    """``data`` as ``model``; ``context`` reaches the validators of the model."""
    bare = [
        (loc, f"needs a unit, got {value!r} [{unit}]")
        for loc, unit, value in _leaves(model, data)
        if unit.startswith("duration") and isinstance(value, int | float)
    ]
    found: list[tuple[Loc, str]] = bare
    checked: M | None = None
    try:
        checked = model.model_validate(data, context=context)
    except ValidationError as error:
        seen = {loc for loc, _ in bare}
        found = bare + [
            (loc, text) for loc, text in _explain(error, model, data) if loc not in seen
        ]
    if found or checked is None:
        raise ConfigError(count(found), at=at, details=_aligned(found, data))
    return checked


def problems(
    error: ValidationError,
    model: type[BaseModel],
    data: Mapping[str, Any] | None = None,
    name: Callable[[Loc], str] | None = None,
) -> list[str]:
    """What pydantic found, one aligned line each; ``name`` spells a key in its reader's words."""
    raw = data or {}
    return _aligned(list(_explain(error, model, raw)), raw, name)


def count(found: Sequence[object]) -> str:
    """``1 problem``, ``5 problems``."""
    return f"{len(found)} problem{'s' if len(found) != 1 else ''}"


def unit_of(model: type[BaseModel], loc: Loc) -> str:
    """The unit a setting is written in, empty where it has none."""
    return _describe(model, loc)[1]


def key(loc: Loc, data: Mapping[str, Any]) -> str:
    """A key as a person finds it in the file: items of a list by name, else by number from 1.

    >>> key(("cell", 1, "cycle_s"), {"cell": [{}, {"name": "dcm02"}]})
    'cell[dcm02].cycle_s'
    >>> key(("expect", 0, "op"), {"expect": [{}]})
    'expect #1.op'
    """
    out, here = "", cast("Any", data)
    for part in loc:
        if isinstance(part, int):
            here = _item(here, part)
            label = _table(here).get("name")
            out += f"[{label}]" if isinstance(label, str) else f" #{part + 1}"
        else:
            out += f".{part}" if out else part
            here = _table(here).get(part)
    return out


def _table(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _item(value: object, place: int) -> Any:
    items = cast("Sequence[Any]", value) if isinstance(value, list | tuple) else ()
    return items[place] if place < len(items) else None


def _siblings(source: Source) -> str:
    if not isinstance(source, Path) or not source.parent.is_dir():
        return "is its folder right?"
    names = sorted(p.name for p in source.parent.glob("*.toml"))
    near = difflib.get_close_matches(source.name, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {source.parent / near[0]}?"
    return "`beilun init` writes a commented set of files to start from"


def _aligned(
    found: Sequence[tuple[Loc, str]],
    data: Mapping[str, Any],
    name: Callable[[Loc], str] | None = None,
) -> list[str]:
    lines = [(name(loc) if name else key(loc, data), text) for loc, text in found]
    width = max((len(label) for label, _ in lines), default=0)
    return [f"{label:{width}}   {text}" if width else text for label, text in lines]


_GOT_ALREADY = {"value_error", "assertion_error", "missing", "extra_forbidden"}


def _explain(
    error: ValidationError, model: type[BaseModel], data: Mapping[str, Any]
) -> Iterator[tuple[Loc, str]]:
    for item in error.errors(include_url=False):
        loc = _in_data(item["loc"], data)
        known, unit = _describe(model, item["loc"])
        text = _text(item["type"], item["msg"])
        tail = f" [{unit}]" if unit else ""
        value = item["input"]
        if item["type"] == "extra_forbidden":
            yield loc, f"unknown setting{guess(str(item['loc'][-1]), known)}"
        elif item["type"] == "union_tag_invalid":
            about = item.get("ctx", {})
            tags = re.findall(r"'([^']*)'", str(about.get("expected_tags")))
            tag = str(about.get("tag"))
            yield (*loc, "kind"), f"unknown kind {tag!r}{guess(tag, tags)}"
        elif item["type"] == "union_tag_not_found":
            yield (*loc, "kind"), "is missing"
        elif item["type"] == "missing":
            yield loc, f"is missing{tail}"
        elif unit.startswith("duration") and isinstance(value, str | int | float):
            yield loc, f"should be a positive duration, got {value!r}{tail}"
        elif item["type"] in _GOT_ALREADY or isinstance(value, dict | list | tuple | BaseModel):
            yield loc, text + tail
        else:
            yield loc, f"{text}, got {value!r}{tail}"


def _text(kind: str, message: str) -> str:
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return "should be a table"
    if kind == "path_type":
        return "should be a path"
    if kind == "too_short":
        return "needs at least one"
    message = re.sub(r"^(?:Input|String) should", "should", message)
    return message.replace("valid dictionary", "table").replace("valid tuple", "list")


def _in_data(loc: Loc, data: Mapping[str, Any]) -> Loc:
    """A location without the tags pydantic adds for the members of a union."""
    out: list[str | int] = []
    here = cast("Any", data)
    for place, part in enumerate(loc):
        if isinstance(part, int) and isinstance(here, list | tuple):
            here = _item(cast("object", here), part)
        elif isinstance(here, dict) and (part in here or place == len(loc) - 1):
            here = _table(cast("object", here)).get(str(part))
        else:
            continue
        out.append(part)
    return tuple(out)


def _describe(model: type[BaseModel], loc: Loc) -> tuple[list[str], str]:
    """The settings known where ``loc`` ends, and the unit of its value."""
    here: list[Any] = [model]
    known: list[str] = []
    unit = ""
    for part in loc:
        known, unit = [], ""
        after: list[Any] = []
        for kind in here:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                fields = {f.alias or n: f for n, f in kind.model_fields.items()}
                known += fields
                if isinstance(part, str) and part in fields:
                    unit = unit or _unit(fields[part].metadata, fields[part])
                    after.append(fields[part].annotation)
                elif part == _tag(kind):
                    after.append(kind)
            else:
                after += _inner(kind, part)
        here, inner = [], [*after]
        while inner:
            kind = inner.pop()
            origin = get_origin(kind)
            if origin is Annotated:
                base, *metadata = get_args(kind)
                unit = unit or _unit(metadata)
                inner.append(base)
            elif origin in (Union, types.UnionType):
                inner += get_args(kind)
            else:
                here.append(kind)
    return known, unit


def _inner(kind: Any, part: str | int) -> list[Any]:
    """What a list or table holds; a part that is no place in it is the tag of a union."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (list, tuple, set, frozenset) and isinstance(part, int):
        return [args[0]] if args else []
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return [args[1]] if part != "[key]" else [args[0]]
    return [kind]


def _tag(kind: type[BaseModel]) -> str | None:
    field = kind.model_fields.get("kind")
    return str(field.default) if field is not None else None


def _unit(metadata: Sequence[Any], field: FieldInfo | None = None) -> str:
    for extra in (field, *metadata):
        notes = _table(getattr(extra, "json_schema_extra", None))
        if "unit" in notes:
            return str(notes["unit"])
    return ""


def _leaves(model: type[BaseModel], data: Any, loc: Loc = ()) -> Iterator[tuple[Loc, str, Any]]:
    """Every plain value of a file with the unit its setting is written in."""
    if isinstance(data, Mapping):
        for name, value in cast("Mapping[str, Any]", data).items():
            yield from _leaves(model, value, (*loc, name))
    elif isinstance(data, list):
        for number, value in enumerate(cast("Sequence[Any]", data)):
            yield from _leaves(model, value, (*loc, number))
    else:
        yield loc, unit_of(model, loc), data
