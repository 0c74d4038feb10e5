"""A station that is fed: containers wait at its input, and leave done by its output lane."""

from collections import deque

from simulator.device import Bell, Unit
from simulator.plant.material import Container, Output


class FedUnit(Unit):
    """A unit that works on the pieces of one container after the other.

    What inherits it calls ``lanes`` when it is made, takes a container from ``_input`` itself and
    keeps the pieces it works on in ``_at_work``.
    """

    node: str
    """Where AGVs bring and fetch containers."""
    output: Output

    def lanes(self, input_slots: int, output_slots: int, bell: Bell) -> None:
        """Lay out both lanes; the bell rings whenever a container has come."""
        self._slots = input_slots
        """Containers at its input, the one at work and those on their way included."""
        size = self.floor.plant.pieces_per_container
        self.output = Output(self.env, size, output_slots, self._call)
        self._bell = bell
        self._input: deque[Container] = deque()
        self._coming = 0
        self._at_work: deque[int] = deque()
        """When each piece of the container at work entered, those done or lost in the present run
        included."""

    def free(self) -> int:
        """Containers there is room for, those on their way counted."""
        return self._slots - self._coming - len(self._input) - bool(self._at_work)

    def reserve(self) -> None:
        """One will come."""
        self._coming += 1

    def receive(self, container: Container) -> None:
        """It is here."""
        self._coming -= 1
        self._input.append(container)
        self._bell.ring()

    def _call(self, container: Container) -> None:
        self.floor.onward(container, self)

    def pieces(self) -> int:
        """At the input, at work, and on the output lane."""
        return sum(c.pieces for c in self._input) + len(self._at_work) + self.output.pieces()
