"""Material on the move: containers, the lanes they wait on, and the warehouse they leave by."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable
from zlib import crc32

import numpy as np

from ingest.messages import Asset
from simulator.device import Bell, World
from simulator.mes import Flow
from simulator.plant import Plant
from simulator.plant.routes import Order


@dataclass(slots=True, eq=False)
class Container:
    """Pieces of one order that travel together, first in, first out."""

    order: Order
    entered_ns: deque[int] = field(default_factory=deque[int])
    """When each piece was shot."""
    step: int = 1
    """Steps of the route that are done with them: the index of the next one."""
    sent_ns: int = 0
    """When it was last sent on."""

    @property
    def pieces(self) -> int:
        """How many there are."""
        return len(self.entered_ns)


class Source(Protocol):
    """A station that hands full containers to the fleet."""

    asset: Asset
    node: str
    output: "Output"


class Sink(Protocol):
    """A station that takes containers; room is reserved before one is on its way."""

    node: str

    def free(self) -> int:
        """Containers there is room for, those on their way counted."""
        ...

    def reserve(self) -> None:
        """One will come."""
        ...

    def receive(self, container: Container) -> None:
        """It is here."""
        ...


@runtime_checkable
class Station(Sink, Protocol):
    """A station that does an operation."""

    asset: Asset


class Output:
    """The output lane of a station: one container being filled, and full ones waiting."""

    def __init__(
        self, env: World, size: int, slots: int, call: Callable[[Container], None]
    ) -> None:
        self.bell = Bell(env)
        self._size = size
        self._slots = slots
        self._call = call
        self._filling: Container | None = None
        self._closing = False
        self._waiting: list[Container] = []

    def room(self, order: Order, step: int = 1) -> bool:
        """Whether a piece of this order with so many steps done has a place."""
        filling = self._filling
        if filling is None or len(self._waiting) < self._slots:
            return True
        mine = filling.order is order and filling.step == step
        return not self._closing and mine and filling.pieces < self._size_of(order, step)

    def left(self, order: Order, step: int = 1) -> int:
        """How many pieces of this order have a place before a container is full."""
        if not self.room(order, step):
            return 0
        filling, size = self._filling, self._size_of(order, step)
        if filling is None or filling.order is not order or filling.step != step:
            return size
        return size - filling.pieces

    def begin(self, order: Order, step: int = 1) -> None:
        """Pieces of this order, with so many steps done, will follow: a container with others is
        closed."""
        filling = self._filling
        if filling is not None and (filling.order is not order or filling.step != step):
            self.close()

    def put(self, order: Order, entered_ns: int, step: int = 1) -> None:
        """Add a piece that was shot at a time; pieces of different orders never share a
        container."""
        self.put_many(order, (entered_ns,), step)

    def put_many(self, order: Order, entered_ns: Sequence[int], step: int = 1) -> None:
        """Add pieces that were shot at some times, at most as many as are ``left`` to the
        container; a larger number would overfill it."""
        if not len(entered_ns):
            return
        self.begin(order, step)
        if self._filling is None:
            self._filling = Container(order, step=step)
        self._filling.entered_ns.extend(entered_ns)
        if self._filling.pieces >= self._size_of(order, step):
            self.close()

    def _size_of(self, order: Order, step: int) -> int:
        """Pieces in a container that leaves the last of so many steps."""
        return order.steps[step - 1].pieces_per_container or self._size

    def close(self) -> None:
        """Send what is there on its way, now or as soon as the lane has a slot."""
        if self._filling is None:
            return
        self._closing = len(self._waiting) >= self._slots
        if not self._closing:
            done, self._filling = self._filling, None
            self._waiting.append(done)
            self._call(done)

    def take(self, container: Container) -> None:
        """A vehicle has it."""
        self._waiting.remove(container)
        if self._closing:
            self.close()
        self.bell.ring()

    def pieces(self) -> int:
        """Pieces on the lane."""
        filling = self._filling.pieces if self._filling else 0
        return filling + sum(container.pieces for container in self._waiting)


class Warehouse:
    """Takes everything; what arrives has left the process, as goods or as a loss."""

    def __init__(self, plant: Plant, env: World, flow: Flow, seed: int) -> None:
        self.node = plant.warehouse
        self._env = env
        self._flow = flow
        self._loss_ratio = plant.transport_loss_ratio
        self._lab_pieces = plant.lab_pieces
        self._in_lab: Counter[int] = Counter()
        self._dice = np.random.default_rng([seed, crc32(flow.path.encode()), 1])

    def free(self) -> int:
        """There is always room."""
        return 1

    def reserve(self) -> None:
        """Nothing to keep free."""

    def receive(self, container: Container) -> None:
        """Inspect the pieces and book them out."""
        now, order, good = self._env.now, container.order, list[int]()
        number = order.number
        for entered_ns, die in zip(
            container.entered_ns, self._dice.random(container.pieces).tolist(), strict=True
        ):
            if die < self._loss_ratio:
                self._flow.lose(now, self._flow.storage_loss, order)
            elif self._in_lab[number] < self._lab_pieces:
                self._in_lab[number] += 1
                self._flow.lose(now, self._flow.other_loss, order)
            else:
                good.append(entered_ns)
        self._flow.leave(now, good, order)
