"""Where the cells stand and what is in the way: a TOML file in ``config/layouts``."""

import math
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from config import tomlfile
from config.errors import ConfigError
from config.faults import Area
from config.model import Spec
from config.units import Decibels, Metres
from simulator.link.columns import Floats
from simulator.link.profile import Propagation

_STEP_M = 0.25
_REACH_M = 2_000.0
_HAIR_M = 1e-9


class Mast(Spec):
    """One cell."""

    name: str
    station: str
    """Stations share power and backhaul."""
    x_m: Metres
    y_m: Metres


class Block(Area):
    """A shop wall, a rack or a machine row: no line of sight through it."""

    loss_db: Decibels = 8.0


class Layout(Spec):
    """The radio map of a plant."""

    summary: str
    """One line that says what it shows."""
    source: str
    """Where counts and places come from."""
    area: Area
    """The ground it covers."""
    mast_m: Annotated[float, Field(gt=0, json_schema_extra={"unit": "m"})] = 6.0
    """Height of the antennas above the devices'."""
    cell: Annotated[tuple[Mast, ...], Field(strict=False, min_length=1)]
    block: Annotated[tuple[Block, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        names = [cell.name for cell in self.cell]
        if len(set(names)) < len(names) or {c.station for c in self.cell} & set(names):
            raise ValueError("cells and stations need names of their own")
        return self

    def cells(self, name: str) -> list[int]:
        """Numbers of the cells that a cell's, a station's or the empty name means."""
        found = [i for i, c in enumerate(self.cell) if name in ("", c.name, c.station)]
        if not found:
            known = sorted({c.name for c in self.cell} | {c.station for c in self.cell})
            raise ConfigError(f"the layout has no cell {name!r}", hint=f"known: {', '.join(known)}")
        return found


def layout_names() -> list[str]:
    """Every shipped layout, sorted."""
    folder = files("config") / "layouts"
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml"))


def load_layout(name: str | Path, folder: Path = Path()) -> Layout:
    """A shipped layout by name, or the one of a file; raises ``ConfigError``, all problems told.

    A relative path begins at ``folder``.
    """
    source = folder / name
    if source.suffix != ".toml":
        if name not in layout_names():
            known = ", ".join(layout_names())
            raise ConfigError(f"unknown layout {str(name)!r}", hint=f"known: {known}")
        return tomlfile.read(files("config") / "layouts" / f"{name}.toml", Layout)
    return tomlfile.read(source, Layout)


class Map:
    """Received power before shadowing, as columns.

    Path loss is TR 38.901's indoor factory (sparse clutter, low base station), tabulated over the
    distance so that no logarithm is taken per message.
    """

    def __init__(self, layout: Layout, spec: Propagation) -> None:
        self._spec = spec
        self._x = np.array([c.x_m for c in layout.cell])
        self._y = np.array([c.y_m for c in layout.cell])
        self._mast2 = layout.mast_m * layout.mast_m
        self._blocks = layout.block
        d = np.maximum(np.arange(0.0, _REACH_M + 2 * _STEP_M, _STEP_M), 1.0)
        log_d, log_f = np.log10(d), math.log10(spec.carrier_ghz)
        self._clear = 31.84 + 21.50 * log_d + 19.0 * log_f
        self._hidden = np.maximum(33.0 + 25.5 * log_d + 20.0 * log_f, self._clear)

    def power(self, x_m: Floats, y_m: Floats, z: Floats) -> Floats:
        """dBm of every cell (columns) at every place (rows), given the shadowing's dice."""
        dx, dy = x_m[:, None] - self._x, y_m[:, None] - self._y
        place = np.minimum(np.sqrt(dx * dx + dy * dy + self._mast2), _REACH_M) / _STEP_M
        low = place.astype(np.int64)
        rest = place - low
        lost = np.zeros_like(place)
        per_x, per_y = (
            1.0 / np.where(dx == 0.0, _HAIR_M, dx),
            1.0 / np.where(dy == 0.0, _HAIR_M, dy),
        )
        for block in self._blocks:
            enter_x, leave_x = _span((x_m - block.x_m)[:, None], per_x, block.width_m)
            enter_y, leave_y = _span((y_m - block.y_m)[:, None], per_y, block.height_m)
            # The way enters the rectangle if it is between both pairs of sides at once.
            enter, leave = np.maximum(enter_x, enter_y), np.minimum(leave_x, leave_y)
            lost += (np.maximum(enter, 0.0) < np.minimum(leave, 1.0)) * block.loss_db
        hidden = lost > 0.0
        a = np.where(hidden, self._hidden[low], self._clear[low])
        b = np.where(hidden, self._hidden[low + 1], self._clear[low + 1])
        sd = np.where(hidden, self._spec.blocked_sd_db, self._spec.sight_sd_db)
        power: Floats = self._spec.power_dbm - (a + (b - a) * rest) - lost + sd * z
        return power


def _span(past_m: Floats, per_m: Floats, size_m: float) -> tuple[Floats, Floats]:
    """Part of the way, in one axis, that lies between two sides of a rectangle."""
    one, two = past_m * per_m, (past_m - size_m) * per_m
    return np.minimum(one, two), np.maximum(one, two)
