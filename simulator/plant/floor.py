"""The shop floor at work: material, vehicles and machines in one discrete-event world.

    shot -> cell's container -> AGV -> arm trims -> arm's container -> AGV -> warehouse

Time is integer nanoseconds. Material is never drawn at random: a cell whose output is full is
blocked, an arm without a container is starved, and each piece is somewhere at every instant. What
the machines tell the fleet manager and their interlocks at the MEC travels over the link, and what
it takes is time lost.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ingest.messages import Asset
from simulator.device import Device, Unit, World, kinds
from simulator.mes import Calendar, Flow, Lots, Mes
from simulator.plant import STATIONS, Plant, Roads
from simulator.plant.control import BEAT_BYTES, BEAT_NS, CONTROL_BYTES, Control
from simulator.plant.dispatch import Dispatch
from simulator.plant.fleet import Fleet
from simulator.plant.material import Container, Source, Station, Warehouse
from simulator.plant.operators import Operators
from simulator.plant.silences import Heartbeats
from simulator.plant.terminal import Terminal

if TYPE_CHECKING:
    from simulator.link.link import Link


class Floor:
    """Everything that happens in a plant, from ``start_ns`` to wherever ``run_to`` has led."""

    def __init__(self, plant: Plant, link: "Link", seed: int, start_ns: int) -> None:
        self.plant = plant
        self.seed = seed
        self.link = link
        self.env = World(start_ns)
        self.calendar = Calendar(plant.calendar)
        self.roads = Roads(plant)
        stations = [spec for spec in plant.device if spec.kind in STATIONS]
        area, line = (stations[0].area, stations[0].line) if stations else ("casting", "line1")
        self.has_flow = bool(stations)
        self.flow = Flow(Asset(plant.site, area, line, plant.flow), start_ns, plant.staff)
        self._lots = Lots()
        self.dispatch = Dispatch(plant, self.env, self.calendar, self.flow, self._lots, seed)
        self.operators = Operators(plant.operators, self.env, self.calendar)
        self.fleet = Fleet(self.env, self.calendar, self.roads, plant)
        self.warehouse = Warehouse(plant, self.env, self.flow, seed)
        self.controls: list[Control] = []
        self.draws_heartbeats = plant.heartbeats == "drawn" and not link.faults
        self._heartbeats: Heartbeats | None = None
        if self.draws_heartbeats:
            self._heartbeats = Heartbeats(
                plant, self.roads, link, seed, start_ns, BEAT_NS, BEAT_BYTES
            )
        self._terminals: dict[str, Terminal] = {}
        self._specs = {spec.name: spec for spec in plant.device}
        self.taken_from: frozenset[str] = frozenset(
            name for spec in plant.device for name in getattr(spec, "pay_off_from", ())
        )
        """Names of the lines whose reels others take."""
        self.devices: list[Device] = [kinds()[s.kind].model(s, self) for s in plant.device]
        self.units: list[Unit] = [device for device in self.devices if isinstance(device, Unit)]
        self.named: Mapping[str, Device] = {d.asset.name: d for d in self.devices}
        """Devices by their names."""
        self._stations = {n: d for n, d in self.named.items() if isinstance(d, Station)}
        self._sinks: dict[tuple[str, ...], tuple[Station, ...]] = {}
        """Stations by the globs of a step."""
        assets = [*(device.asset for device in self.devices)]
        flow = self.flow if self.has_flow else None
        orders = self.dispatch.orders
        self.mes = Mes(plant, self.calendar, self.units, assets, flow, self._lots, start_ns, orders)
        for device in self.devices:
            self.env.process(device.run())
        self.env.process(self.fleet.run())
        self.env.process(self.dispatch.run())
        self.env.process(self.operators.run())

    def onward(self, container: Container, source: Source) -> None:
        """Send a full container from a station to the next step of its order, or to the warehouse
        after the last."""
        now, order = self.env.now, container.order
        container.sent_ns = now
        self._lots.note(source.asset, now, order, container.step, container.pieces, 0)
        steps = order.steps
        if container.step >= len(steps):
            self.fleet.call(container, source, (self.warehouse,))
            return
        step = steps[container.step]
        if (sinks := self._sinks.get(step.units)) is None:
            sinks = tuple(d for name, d in self._stations.items() if step.fits(name))
            self._sinks[step.units] = sinks
        operation = steps[container.step - 1].operation
        self.dispatch.move(operation, lambda: self.fleet.call(container, source, sinks))

    def terminal(self, asset: Asset) -> Terminal:
        """A device's terminal, the same whoever asks."""
        path = str(asset)
        if path not in self._terminals:
            spec = self._specs.get(asset.name)
            place, origin = None, (0.0, 0.0)
            if (radio := self.plant.radio) is not None and spec is not None:
                place, origin = self.plant.place_of(spec), (radio.x_m, radio.y_m)
            self._terminals[path] = Terminal(self.link, path, self.env.now, place, origin)
        return self._terminals[path]

    def control(self, asset: Asset, sizes: tuple[int, int] = CONTROL_BYTES) -> Control:
        """A device's control traffic, its messages up and down mostly of these sizes."""
        control = Control(self.terminal(asset), asset, self.env.now, self._heartbeats, sizes)
        self.controls.append(control)
        return control

    def run_to(self, t_ns: int) -> None:
        """Let everything happen up to and including a time."""
        self.env.run_to(t_ns)

    def wip(self) -> int:
        """Pieces on the floor, counted where they are."""
        return sum(device.pieces() for device in self.devices) + self.fleet.tugger.pieces()
