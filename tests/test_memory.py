"""What the edge holds in memory: samples of open panes, and of long windows next to nothing."""

import gc
from collections.abc import Sequence

import numpy as np

from config.units import NS_PER_S
from config.windows import Shift, Span, shift_minutes
from edge import kpis
from edge.engine import Engine
from edge.policy import Policy
from edge.rows import ALL, Row
from ingest.messages import Asset, Batch, Birth, Envelope, Identity, Message, Meta, Progress, Record

S = NS_PER_S
SHIFT = Shift("UTC", shift_minutes(("00:00", "08:00", "16:00")))
BEGIN = 1_767_571_200 * S
CHANNELS: dict[str, str] = dict.fromkeys(
    ("state", "planned", "order", "pri_s", "produced", "scrap"), "1"
)


class Shop:
    """Machines of 1 Hz, and an edge that cannot look anything up in a journal."""

    def __init__(self, machines: int, begin_ns: int = BEGIN) -> None:
        self.policy = Policy(windows=(SHIFT,))
        self.engine = Engine(self.policy, tuple(kpis.load().values()), self, run="r")
        self.assets = [Asset("s", "a", f"l{i // 50}", f"m{i}") for i in range(machines)]
        self._seq = 0
        for asset in self.assets:
            self._feed(
                Birth(asset, "casting_cell", begin_ns, CHANNELS, self._meta(asset, begin_ns))
            )

    def recall(self, first_ns: int, last_ns: int) -> Sequence[Record]:
        raise AssertionError(f"nothing was late, and it asked for {Span(first_ns, last_ns)}")

    def say(self, t_ns: int, seconds: int) -> None:
        """So many samples of every machine, in one message of each."""
        times = t_ns + np.arange(seconds, dtype=np.int64) * S
        made = (times - BEGIN) // S
        channels = {
            "state": np.where(made % 600 < 540, 6.0, 11.0),
            "produced": (made // 50).astype(np.float64),
            "scrap": (made // 500).astype(np.float64),
        }
        end_ns = t_ns + seconds * S - 1  # a pane keeps a message that was sent in it
        for asset in self.assets:
            self._feed(Batch(asset, "process", times, channels, self._meta(asset, end_ns)))

    def over(self, t_ns: int) -> list[Row]:
        self._feed(Progress("c", "r", t_ns + self.policy.lateness_ns, 0, 0, {}, 0))
        return self.engine.advance()

    def _feed(self, message: Message) -> None:
        self.engine.feed([Record(Envelope("uns", "t", 0, b""), message)])

    def _meta(self, asset: Asset, arrival_ns: int) -> Meta:
        self._seq += 1
        return Meta(Identity(asset.name, 1, self._seq), arrival_ns, arrival_ns, "r", "c", self._seq)


def held() -> list[int]:
    """Where the samples begin of every batch that is alive in this process."""
    return [int(found.t_ns[0]) for found in gc.get_objects() if isinstance(found, Batch)]


def test_a_shift_of_2000_machines_holds_no_samples_but_of_open_panes() -> None:
    """They are announced 20 seconds before their shift of eight hours is over."""
    pane_ns, end_ns = Policy().pane_ns, BEGIN + 8 * 3_600 * S
    begin_ns = end_ns - 2 * pane_ns
    shop = Shop(2_000, begin_ns)
    for t_ns in range(begin_ns, end_ns, pane_ns):
        shop.say(t_ns, 10)
        assert shop.over(t_ns) == []  # all before this pane
        assert held() == [t_ns] * 2_000
    rows = shop.over(end_ns)
    assert held() == []
    assert {row.window_length_ns for row in rows} == {8 * 3_600 * S}
    machines = [row for row in rows if row.kpi == "output" and row.asset.name != ALL]
    assert [(row.asset, row.n) for row in machines] == [(asset, 20) for asset in shop.assets]


def test_a_shift_is_kept_in_few_pieces_a_machine() -> None:
    """The minutes of the last 20 one by one, those before in sixteens, whatever is in them."""
    shop = Shop(1)
    kept: list[int] = []
    for minute in range(480):
        shop.say(BEGIN + minute * 60 * S, 60)
        shop.over(BEGIN + (minute + 1) * 60 * S)
        (track,) = shop.engine._tracks.values()
        kept.append(len(track.blocks) + len(track.nodes))
    few = 480 // 16 + 15 + 5 + 16
    assert max(kept[:-1]) <= few
    assert kept[-1] <= 2 * few  # the row of the shift was made of nodes of nodes
