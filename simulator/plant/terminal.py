"""A device's radio terminal: where it is, and its bearers, which all move with it."""

from collections.abc import Iterator
from typing import NamedTuple

from simulator.link.columns import Ints
from simulator.link.link import Bearer, Direction, Link
from simulator.plant.silences import Drawn

TELEMETRY = "telemetry"


class Way(NamedTuple):
    """A bearer of a terminal, by a name of its own there."""

    name: str
    """``telemetry``, and by direction ``up`` and ``down`` (a second one: ``up2``)."""
    down: bool
    slice: str | None
    bearer: Bearer | Drawn


class Terminal:
    """One device on the link. Without a place it is served by one cell for ever."""

    def __init__(
        self,
        link: Link,
        ue: str,
        t_ns: int,
        place: tuple[float, float] | None,
        origin: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self._link, self._ue, self._origin = link, ue, origin
        self.ways: list[Way] = []
        self._track: list[tuple[int, float, float]] = [] if place is None else [(t_ns, *place)]
        self.telemetry = self._way(TELEMETRY, Direction.UP, None)
        """What it reports rides the network's default slice."""

    def bearer(self, direction: Direction, slice: str | None = None) -> Bearer:
        """A traced bearer that follows the terminal from here on."""
        return self._way(self._name(direction), direction, slice)

    def add(self, bearer: Drawn, direction: Direction, slice: str | None = None) -> None:
        """A bearer whose messages are drawn: its law knows the places, and it follows nobody."""
        self.ways.append(Way(self._name(direction), direction is Direction.DOWN, slice, bearer))

    def _name(self, direction: Direction) -> str:
        name = direction.name.lower()
        number = sum(way.name.startswith(name) for way in self.ways) + 1
        return name if number == 1 else f"{name}{number}"

    def _way(self, name: str, direction: Direction, slice: str | None) -> Bearer:
        made = self._link.bearer(self._ue, direction, slice, trace=True)
        for t_ns, x_m, y_m in self._track:
            made.move(t_ns, x_m + self._origin[0], y_m + self._origin[1])
        self.ways.append(Way(name, direction is Direction.DOWN, slice, made))
        return made

    def move(self, t_ns: int, x_m: float, y_m: float) -> None:
        """Be at a place of the plant's map at a time; see ``Bearer.move`` for what is allowed."""
        self._track = [(t_ns, x_m, y_m)]
        for way in self.ways:
            if not isinstance(way.bearer, Drawn):
                way.bearer.move(t_ns, x_m + self._origin[0], y_m + self._origin[1])

    def take_traces(self) -> Iterator[tuple[Way, dict[str, Ints]]]:
        """Where the time of each message since the last call went, bearer by bearer; to be called
        again and again, for what is not taken is kept."""
        for way in self.ways:
            yield way, way.bearer.take_trace()
