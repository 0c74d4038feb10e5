"""A scenario from factory to KPI rows in one process, with no broker between."""

from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING

from beilun.composing import edge_header, policy_of, scenario_header
from config.scenario import Scenario
from config.units import NS_PER_DAY
from edge.pipeline import Ending, Pipeline
from edge.store import RowStore
from ingest.decode import Decoder
from ingest.messages import TruthRow
from ingest.recording import Recording
from ingest.subscribe import Received

if TYPE_CHECKING:
    from simulator.factory import Factory

GROUP = 500
"""Messages that are journalled together."""
RUN = "offline"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to, and what it really was."""

    ending: Ending
    truth: list[TruthRow]


def make_factory(scenario: Scenario, run: str, *, trace: bool = False) -> "Factory":
    """The factory of a scenario; equal arguments give equal messages.

    ``trace`` keeps the way of every message over the link; it changes no message.
    """
    from config.faults import DataFault
    from simulator.factory import Factory
    from simulator.link.layout import load_layout
    from simulator.link.link import Link
    from simulator.link.profile import load_profile
    from simulator.plant import make_plant

    file = scenario.plant_file()
    plant = make_plant(scenario.plant_data(), at=str(file))
    layout = None
    if plant.radio is not None:
        folder = file.parent if isinstance(file, Path) else Path()
        layout = load_layout(plant.radio.layout, folder)
    profile = load_profile(scenario.network)
    spoilt = [fault for fault in scenario.fault if isinstance(fault, DataFault)]
    faults = [fault for fault in scenario.fault if not isinstance(fault, DataFault)]
    link = Link(profile, scenario.seed, layout, faults, scenario.start)
    return Factory(
        plant,
        link,
        scenario.seed,
        run,
        scenario.start,
        scenario.length,
        interval_ns=scenario.interval_ns,
        pane_ns=_told_ns(scenario),
        cells=link.cell_names,
        faults=spoilt,
        trace=trace,
    )


def _told_ns(scenario: Scenario) -> int:
    """How often the edge is told how far each connection is, and what the network carried: every
    pane of the edge or, where samples are rarer, with them, or of events only twice a day; but as
    often as a window may begin or end."""
    most_ns = NS_PER_DAY // 2 if scenario.interval_ns is None else scenario.interval_ns
    edge = scenario.edge
    return max(edge.pane_ns, gcd(most_ns, *(kind.grain_ns for kind in edge.kinds)))


def run_offline(scenario: Scenario, path: Path) -> Outcome:
    """Run a whole scenario into a recording at ``path``."""
    factory = make_factory(scenario, RUN)
    with Recording.create(path) as recording:
        recording.set_meta({**scenario_header(scenario, RUN), "edge": edge_header(scenario.edge)})
        store = RowStore(recording)
        store.prepare()
        pipeline = Pipeline(recording, Decoder(), policy_of(scenario.edge), RUN, store.write)
        pending: list[Received] = []
        for chunk in factory.chunks():
            pending += [_received(item.topic, item.payload) for item in chunk.in_order()]
            while len(pending) >= GROUP:
                pipeline.take(pending[:GROUP])
                del pending[:GROUP]
        pipeline.take(pending)
        truth = factory.truth(scenario.edge.kinds)
        recording.write_truth(truth)
        return Outcome(pipeline.conclude(store), truth)


def _received(topic: str, payload: bytes) -> Received:
    return Received(topic, payload, 0, False, (0, 0))
