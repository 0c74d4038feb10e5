"""The shop floor at work: material, vehicles and machines in one discrete-event world.

    shot -> cell's container -> AGV -> arm trims -> arm's container -> AGV -> warehouse

Time is integer nanoseconds. Material is never drawn at random: a cell whose output is full is
blocked, an arm without a container is starved, and each piece is somewhere at every instant. What
the machines tell the fleet manager and their interlocks at the MEC travels over the link, and what
it takes is time lost.
"""

from typing import TYPE_CHECKING

from ingest.messages import Asset
from simulator.device import Device, Unit, World, kinds
from simulator.mes import Calendar, Flow, Mes
from simulator.plant import Plant, Roads
from simulator.plant.control import Control
from simulator.plant.fleet import Fleet
from simulator.plant.material import Sink, Warehouse
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
        cells = [spec for spec in plant.device if spec.kind == "casting_cell"]
        area, line = (cells[0].area, cells[0].line) if cells else ("casting", "line1")
        self.has_flow = bool(cells)
        self.flow = Flow(Asset(plant.site, area, line, plant.flow), start_ns, plant.staff)
        self.fleet = Fleet(self.env, self.calendar, self.roads)
        self.warehouse = Warehouse(plant, self.env, self.flow, seed)
        self.trimming: list[Sink] = []
        self.controls: list[Control] = []
        self._terminals: dict[str, Terminal] = {}
        self.devices: list[Device] = [kinds()[s.kind].model(s, self) for s in plant.device]
        self.units: list[Unit] = [device for device in self.devices if isinstance(device, Unit)]
        assets = [*(device.asset for device in self.devices)]
        flow = self.flow if self.has_flow else None
        self.mes = Mes(plant, self.calendar, self.units, assets, flow, start_ns)
        for device in self.devices:
            self.env.process(device.run())
        self.env.process(self.fleet.run())

    def terminal(self, asset: Asset) -> Terminal:
        """A device's terminal, the same whoever asks."""
        path = str(asset)
        if path not in self._terminals:
            spec = next((s for s in self.plant.device if s.name == asset.name), None)
            place, origin = None, (0.0, 0.0)
            if (radio := self.plant.radio) is not None and spec is not None:
                place, origin = self.plant.place_of(spec), (radio.x_m, radio.y_m)
            self._terminals[path] = Terminal(self.link, path, self.env.now, place, origin)
        return self._terminals[path]

    def control(self, asset: Asset) -> Control:
        """A device's control traffic."""
        control = Control(self.terminal(asset), asset, self.env.now)
        self.controls.append(control)
        return control

    def run_to(self, t_ns: int) -> None:
        """Let everything happen up to and including a time."""
        self.env.run(until=t_ns + 1)

    def wip(self) -> int:
        """Pieces on the floor, counted where they are."""
        return sum(device.pieces() for device in self.devices)
