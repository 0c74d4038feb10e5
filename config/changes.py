"""Named changes of a plant: what differs between before and after, line by line, and why.

A change sets values at paths into the tables of the plant's file:

    pieces_per_container = 100           a key at the top
    transport.dispatch = "event"         a key of a table
    device.dcm*.die_change_s = 2400      a key of every table of a list whose name the glob matches

Names of paths are those of the file, and items of a list go by their ``name`` (orders by their
``number``, steps of a product by their ``operation``). Changes of different paths may be made in
any order, and one made twice is made once, so each can be added or left out on its own: the table
of contributions rests on that.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from fnmatch import fnmatchcase
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator

from config.errors import ConfigError
from config.tomlfile import guess

OWN = ("network",)
"""Keys of the scenario itself that a change may set. Seed, length and windows are no part of a
factory: a change of those would change the measurement."""
_MARKS = frozenset("*?[")
_LABELS = ("name", "number", "operation")


class Change(BaseModel):
    """One difference to the scenario this one is based on, or to the plant as its file has it."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    """What it is called in tables, like smaller-batches."""
    why: Annotated[str, Field(min_length=1)]
    """One line: the reason, with the source or the range of the values."""
    set: Annotated[dict[str, Any], Field(min_length=1)]
    """New values by path, like `device.dcm*.die_change_s = 2400`; `network` is the scenario's."""

    @field_validator("set", mode="before")
    @classmethod
    def _by_path(cls, value: object) -> object:
        """Dotted keys without quotes are tables to TOML; only lists and plain values are set."""
        return dict(_flat(cast("dict[str, Any]", value))) if isinstance(value, dict) else value

    @property
    def own(self) -> dict[str, Any]:
        """What it sets of the scenario itself."""
        return {path: value for path, value in self.set.items() if path in OWN}

    @property
    def plant(self) -> dict[str, Any]:
        """What it sets of the plant."""
        return {path: value for path, value in self.set.items() if path not in OWN}


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(cast("dict[str, Any]", value), f"{prefix}{key}.")
        else:
            yield prefix + key, value


def changed(data: Mapping[str, Any], changes: Sequence[Change], *, at: str) -> dict[str, Any]:
    """Tables of a plant with the changes made, in order; the ones given stay as they are.

    Raises one ``ConfigError`` with every path that leads nowhere. Whether a plant knows the last
    key of a path, and may have the value, is found when the plant is made.
    """
    out = deepcopy(dict(data))
    wrong: list[str] = []
    for change in changes:
        for path, value in change.plant.items():
            try:
                for table, key in _places(out, path):
                    table[key] = deepcopy(value)
            except ValueError as error:
                wrong.append(f"change[{change.name}].set.{path}   {error}")
    if wrong:
        raise ConfigError(
            f"{len(wrong)} path{'s' if len(wrong) > 1 else ''} of changes not in the plant",
            at=at,
            details=wrong,
        )
    return out


def values_at(data: Mapping[str, Any], path: str) -> list[Any]:
    """What stands at a path now, once for each place; nothing where the key is not there."""
    found = (table.get(key) for table, key in _places(deepcopy(dict(data)), path))
    return [value for value in found if value is not None]


def _places(data: dict[str, Any], path: str) -> list[tuple[dict[str, Any], str]]:
    """Every table a path leads to, with the key to set there; tables on the way are made, items of
    lists are not."""
    *way, key = path.split(".")
    if not key or not all(way) or _MARKS & set(key):
        raise ValueError("is no path: it ends with the name of a setting")
    here: list[object] = [data]
    for place, part in enumerate(way):
        after: list[object] = []
        for node in here:
            if isinstance(node, dict):
                table = cast("dict[str, Any]", node)
                if _MARKS & set(part):
                    raise ValueError(f"has a glob {part!r} where there is no list")
                after.append(table.setdefault(part, {}))
            elif isinstance(node, list):
                items = cast("list[dict[str, Any]]", node)
                after += [item for item in items if fnmatchcase(_label(item), part)]
            else:
                raise ValueError(f"goes on after {'.'.join(way[:place])}, which is a value")
        if not after:
            names = [_label(item) for node in here for item in cast("list[Any]", node)]
            raise ValueError(f"nothing is called {part!r} there{guess(part, names)}")
        here = after
    if any(isinstance(node, list) for node in here):
        raise ValueError(f"{way[-1]} is a list: name its items, like {way[-1]}.*.{key}")
    if any(not isinstance(node, dict) for node in here):
        raise ValueError(f"goes on after {'.'.join(way)}, which is a value")
    return [(cast("dict[str, Any]", node), key) for node in here]


def _label(item: object) -> str:
    """What an item of a list is called."""
    table = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
    return next((str(table[key]) for key in _LABELS if key in table), "")
