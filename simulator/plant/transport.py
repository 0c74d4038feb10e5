"""How a plant moves its containers: who is called how, in which zones, by which reservations."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from config import tomlfile
from config.units import MetresPerSecond, Seconds, parse_duration

if TYPE_CHECKING:
    from simulator.plant import Plant

Policy = Literal["nearest", "oldest", "earliest_due"]


class Transport(BaseModel):
    """The table ``[transport]`` of a plant; every setting has a default."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    dispatch: str = "event"
    """When calls for a vehicle are looked at: `event` is at once, a duration like 30m is by a
    person with a list, who looks so often in planned time."""
    policy: Policy = "oldest"
    """Which call is served first: `oldest`, `earliest_due` by its order, or `nearest`, the one with
    the shortest way to an idle vehicle. The nearest idle vehicle always goes."""
    load_s: Seconds = 25.0
    """Time to load a container."""
    unload_s: Seconds = 25.0
    """Time to unload a container."""
    reservations: bool = True
    """Whether nodes are for one vehicle at a time, and so are the lanes between two that it holds.
    Without, vehicles drive through each other."""
    charge_points: dict[str, Annotated[int, Field(ge=1)]] = {}
    """Charging stations at a node, if more than one: each is for one vehicle."""
    zone: Literal["site", "area"] = "site"
    """With `area` a vehicle serves stations of its own area only, if it names no zones itself.
    Containers change between areas at their gates."""
    gate: dict[str, str] = {}
    """By area the node where its containers are handed to the tugger train and taken from it."""
    gate_slots: Annotated[int, Field(ge=1)] = 20
    """Containers from other areas that have room at a gate, those on their way counted; more stay
    where they are."""
    tugger_every: str = "30m"
    """How often the tugger train goes round the gates, in planned time."""
    tugger_mps: MetresPerSecond = 1.5
    """Its mean speed."""

    @field_validator("dispatch", "tugger_every")
    @classmethod
    def _is_duration(cls, value: str) -> str:
        if value != "event" and parse_duration(value) <= 0:
            raise ValueError("must be longer than nothing")
        return value

    @field_validator("tugger_every")
    @classmethod
    def _is_no_event(cls, value: str) -> str:
        if value == "event":
            raise ValueError("a train has a timetable; give a duration like 30m")
        return value

    @property
    def dispatch_ns(self) -> int | None:
        """How often calls are looked at; ``None`` is at once."""
        return None if self.dispatch == "event" else parse_duration(self.dispatch)

    @property
    def tugger_ns(self) -> int:
        """From one round of the tugger train to the next."""
        return parse_duration(self.tugger_every)

    def problems(self, plant: "Plant") -> Iterator[str]:
        """What does not fit the plant it is of, in the words of its file."""
        nodes = [node.name for node in plant.node]
        for word in (*self.charge_points, *self.gate.values()):
            if word not in nodes:
                yield f"transport: unknown node {word}{tomlfile.guess(word, nodes)}"
        areas = [spec.area for spec in plant.device]
        for area in self.gate:
            if area not in areas:
                yield f"transport: gate of unknown area {area}{tomlfile.guess(area, areas)}"
        if self.zone == "area":
            of_stations = {
                spec.area for spec in plant.device
                if spec.kind != "agv" and getattr(spec, "node", None) is not None
            }  # fmt: skip
            for area in sorted(of_stations - set(self.gate)):
                yield f"transport: zone = 'area' needs a gate of {area}"
