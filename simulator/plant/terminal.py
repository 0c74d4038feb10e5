"""A device's radio terminal: where it is, and its bearers, which all move with it."""

from simulator.link.link import Bearer, Direction, Link


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
        self._bearers: list[Bearer] = []
        self._track: list[tuple[int, float, float]] = [] if place is None else [(t_ns, *place)]
        self.telemetry = self.bearer(Direction.UP)
        """What it reports rides the network's default slice."""

    def bearer(self, direction: Direction, slice: str | None = None) -> Bearer:
        """A traced bearer that follows the terminal from here on."""
        made = self._link.bearer(self._ue, direction, slice, trace=True)
        for t_ns, x_m, y_m in self._track:
            made.move(t_ns, x_m + self._origin[0], y_m + self._origin[1])
        self._bearers.append(made)
        return made

    def move(self, t_ns: int, x_m: float, y_m: float) -> None:
        """Be at a place of the plant's map at a time; see ``Bearer.move`` for what is allowed."""
        self._track = [(t_ns, x_m, y_m)]
        for bearer in self._bearers:
            bearer.move(t_ns, x_m + self._origin[0], y_m + self._origin[1])
