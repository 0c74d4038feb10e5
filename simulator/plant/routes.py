"""Products and the routes they take, and the orders and lots of them that go through the plant.

product    step 0: cast on dcm* ── step 1: trim on arm* ── step 2: machine on mc* ── store
order      so many good pieces of a product, wanted by a date
lot        the part of an order that one unit makes at once as the first step: a *job*
container  pieces of one order that travel together (the transfer batch)
"""

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import pairwise
from math import ceil
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from config.units import DelayNs, DurationNs, Ratio, Seconds, format_duration

_STRICT = ConfigDict(
    strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
)
Count = Annotated[int, Field(ge=1)]
_AS_WRITTEN = PlainSerializer(format_duration, return_type=str, when_used="json")
Duration = Annotated[DurationNs, _AS_WRITTEN]
"""Nanoseconds, in a file written like 90s."""
Delay = Annotated[DelayNs, _AS_WRITTEN]
"""The same, or none: 0s."""


def _as_tuple(value: Any) -> Any:
    """One name may be written without brackets."""
    return (value,) if isinstance(value, str) else value


Globs = Annotated[
    tuple[str, ...],
    BeforeValidator(_as_tuple, json_schema_input_type=str | tuple[str, ...]),
    Field(strict=False, min_length=1),
]


class Step(BaseModel):
    """One operation of a route, on any one of some units."""

    model_config = _STRICT

    operation: str
    """What is done, like cast."""
    units: Globs
    """Names of the devices that can do it; globs like `dcm*`."""
    pri_s: Seconds
    """Planned run time per item (cable: per metre)."""
    tool: str = ""
    """Die, fixture or cutter; another one than before on a unit means a set-up."""
    tools: Count | None = None
    """How many of that tool there are: no more first operations use it at once. Not counted if not
    given."""
    pieces_per_container: Count | None = None
    """Transfer batch in which its pieces go on; the plant's if not given."""

    def fits(self, unit: str) -> bool:
        """Whether a device of this name can do it."""
        return _fits(unit, self.units)


@lru_cache(maxsize=1 << 14)
def _fits(unit: str, globs: tuple[str, ...]) -> bool:
    """Lots are held against units over and over."""
    return any(fnmatchcase(unit, glob) for glob in globs)


class Product(BaseModel):
    """A table `[[product]]`: what is made, and how."""

    model_config = _STRICT

    name: str
    """Its name in orders."""
    lot_size: Count | None = None
    """Most pieces of an order that one unit makes at once; the whole order if not given."""
    planned_scrap_ratio: Ratio = 0.06
    """Scrap that the plan allows for, as a share of the good pieces, in whole pieces."""
    step: Annotated[tuple[Step, ...], Field(strict=False, min_length=1)]
    """Its route, operation by operation; after the last it goes to the warehouse."""


class OrderSpec(BaseModel):
    """A table `[[order]]`: so much of a product."""

    model_config = _STRICT

    number: Count
    """Unique in the plant; below 100000, where the orders of `[demand]` begin."""
    product: str
    """Name of a product."""
    quantity: Count
    """Good pieces, or good metres."""
    due: Duration | None = None
    """When it is due, from the start of the run."""
    unit: str = ""
    """The one device that does its first operation; any that can if not given."""


@dataclass(slots=True, eq=False)
class Order:
    """An order, and how far it has come."""

    number: int
    product: Product
    quantity: int
    due_ns: int
    unit: str = ""
    released_ns: int | None = None
    """When the first of its lots was released."""
    started_ns: int | None = None
    """When the first of its lots was begun."""
    finished_ns: int | None = None
    """When no piece of it was in process any more."""
    lots: list[int] = field(default_factory=list[int])
    """Quantities of the lots that are not released."""
    jobs: int = 0
    """Lots released and not done."""
    in_process: int = 0
    """Pieces that have entered, those sure to enter included, and neither left nor been lost."""
    open_lots: int = 0
    open_pieces: int = 0
    """What of the released lots counts as on the floor."""

    def __post_init__(self) -> None:
        most = self.product.lot_size or self.quantity
        count = -(-self.quantity // most)
        ends = [self.quantity * n // count for n in range(count + 1)]
        self.lots = [high - low for low, high in pairwise(ends)]

    @property
    def planned_scrap(self) -> int:
        """Pieces of scrap that the plan allows for, rounded up."""
        return ceil(round(self.quantity * self.product.planned_scrap_ratio, 6))

    @property
    def steps(self) -> tuple[Step, ...]:
        """Its route."""
        return self.product.step


@dataclass(slots=True, eq=False)
class Job:
    """A lot: what one unit makes of an order, as its first operation."""

    order: Order
    quantity: int
    """Good pieces, or good metres, to be made."""
    released_ns: int
    number: int
    """Of all lots of the plant, in the order of their release."""

    @property
    def step(self) -> Step:
        """The first step of the route."""
        return self.order.product.step[0]

    @property
    def operation(self) -> str:
        """What is done."""
        return self.step.operation
