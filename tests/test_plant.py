"""The plant and what it publishes: material is conserved, bytes are reproducible, sums close."""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from config.errors import ConfigError, UsageError
from config.units import NS_PER_MS, NS_PER_S, parse_time
from config.windows import Every
from ingest import bins, codecs
from ingest.codecs import uns, vda5050
from ingest.messages import Batch, Birth, Envelope, Progress
from ingest.packml import PackML
from simulator.device import PANE_NS, Columns, Stretch
from simulator.devices.agv import Agv
from simulator.devices.robot_arm import RobotArm
from simulator.factory import Chunk, Factory, Made
from simulator.link.link import Direction, Link
from simulator.link.profile import load_profile
from simulator.link.surroundings import CAUSES
from simulator.mes import Calendar
from simulator.plant import CalendarSpec, Plant, Roads, Span, load_plant, make_plant
from simulator.plant.control import Control, Lane, Service
from simulator.plant.floor import Floor
from simulator.plant.material import Container, Output
from simulator.plant.routes import Order

START = parse_time("2026-01-05T00:00:00Z")
HOUR = 3600 * NS_PER_S
SCHEMAS = Path(__file__).parents[2] / "shared" / "data" / "vda5050_schemas" / "2.1.0"


class Fixed:
    """A link of one delay that loses every ``lose``-th message of a bearer."""

    def __init__(self, delay_ns: int, lose: int = 0) -> None:
        self.delay_ns, self.lose = delay_ns, lose
        self.profile = load_profile("ethernet")

    def plain(self, ue: str, delay_ns: int) -> "FixedBearer":
        del ue
        return FixedBearer(delay_ns, 0)

    def bearer(
        self, ue: str, direction: Direction, slice: str | None = None, *, trace: bool = False
    ) -> "FixedBearer":
        del ue, direction, slice, trace
        return FixedBearer(self.delay_ns, self.lose)


class FixedBearer:
    def __init__(self, delay_ns: int, lose: int) -> None:
        self.delay_ns, self.lose, self.count, self.last_ns = delay_ns, lose, 0, 0
        self.sent: list[tuple[int, int]] = []

    def take_trace(self) -> dict[str, Any]:
        sent, self.sent = np.array(self.sent, np.int64).reshape(-1, 2).T, []
        delay = np.where(sent[1] < 0, 0, sent[1] - sent[0])
        names = ("n_bytes", "hops_ns", "gap_ns", "queue_ns", "stall_ns", "cell", "air_ns",
                 "access_ns", "align_ns", "harq_ns", "rounds")  # fmt: skip
        blank = dict.fromkeys(names, np.zeros(len(delay), np.int64))
        cause = np.where(sent[1] < 0, CAUSES.index("drop"), 0)
        return blank | {
            "sent_ns": sent[0], "arrival_ns": sent[1], "core_ns": delay, "cause": cause
        }  # fmt: skip

    def move(self, t_ns: int, x_m: float, y_m: float) -> None:
        """A place changes nothing."""

    def send(self, t_ns: int, n_bytes: int) -> int | None:
        assert t_ns >= self.last_ns, "messages must be handed over in order of time"
        assert n_bytes > 0
        self.last_ns = t_ns
        self.count += 1
        if self.lose and self.count % self.lose == 0:
            self.sent.append((t_ns, -1))
            return None
        self.sent.append((t_ns, t_ns + self.delay_ns))
        return t_ns + self.delay_ns

    def send_many(self, t_ns: Any, n_bytes: Any) -> Any:
        pairs = zip(t_ns.tolist(), n_bytes.tolist(), strict=True)
        arrivals = [self.send(t, n) for t, n in pairs]
        return np.array([-1 if a is None else a for a in arrivals], dtype=np.int64)


def fixed(delay_ms: float, lose: int = 0) -> Link:
    return cast(Link, Fixed(round(delay_ms * NS_PER_MS), lose))


def real(network: str = "private-5g", seed: int = 1) -> Link:
    return Link(load_profile(network), seed)


@pytest.fixture(scope="module")
def quickstart() -> Plant:
    return load_plant("quickstart")


def factory(
    plant: Plant, link: Link, *, seed: int = 1, minutes: float = 20, run: str = "r"
) -> Factory:
    return Factory(plant, link, seed, run, START, round(minutes * 60) * NS_PER_S)


def everything(made: Factory, chunk_ns: int = 60 * NS_PER_S) -> tuple[list[Made], list[Chunk]]:
    chunks = list(made.chunks(chunk_ns))
    return [m for chunk in chunks for m in chunk.made], chunks


@pytest.fixture(scope="module")
def shift(quickstart: Plant) -> tuple[Factory, list[Made], list[Chunk]]:
    """Eight hours of quickstart over the private 5G network."""
    made = factory(quickstart, real(), minutes=480)
    return made, *everything(made)


def of(messages: list[Made], conn: str) -> list[Made]:
    return [m for m in messages if m.conn == conn]


def tables(plant: Plant) -> dict[str, Any]:
    data = json.loads(plant.model_dump_json())
    for edge in data["edge"]:
        if edge["length_m"] is None:
            del edge["length_m"]
    return cast(dict[str, Any], data)


# Material


def test_material_is_conserved_at_every_instant(quickstart: Plant) -> None:
    floor = Floor(quickstart, real("wifi-loaded"), 3, START)
    for minute in range(1, 8 * 60):
        floor.run_to(START + minute * 60 * NS_PER_S)
        flow, now = floor.flow, floor.env.now
        gone = flow.left.get(now) + flow.scrapped.get(now)
        assert flow.entered.get(now) == gone + floor.wip(), minute
    assert floor.flow.left.get(floor.env.now) > 500
    assert floor.wip() > 0


def test_every_second_is_in_one_state(shift: tuple[Factory, list[Made], list[Chunk]]) -> None:
    made = shift[0]
    for unit in made.floor.units:
        spent: Counter[PackML] = Counter()
        times = [*unit.state.t, START + 8 * HOUR]
        for (start, end), value in zip(pairwise(times), unit.state.v, strict=True):
            spent[PackML(value)] += end - start
        assert sum(spent.values()) == 8 * HOUR
        pause = range(START + 4 * HOUR + 60 * NS_PER_S, START + 4 * HOUR + HOUR // 2, 10 * NS_PER_S)
        assert all(unit.state.get(t) != PackML.EXECUTE for t in pause), "works in the break"


def test_a_full_output_blocks_and_an_empty_input_starves(quickstart: Plant) -> None:
    """Without vehicles at work nothing moves: cells end SUSPENDED, arms start SUSPENDED."""
    floor = Floor(quickstart, fixed(1e9), 1, START)  # orders take eleven days to arrive
    floor.run_to(START + 3 * HOUR)
    cells = [d for d in floor.units if d.asset.name.startswith("dcm")]
    assert {unit.state.last for unit in floor.units if "arm" in unit.path} == {PackML.SUSPENDED}
    assert {unit.state.last for unit in cells} <= {PackML.SUSPENDED, PackML.RESETTING, PackML.HELD}
    assert sum(unit.state.last == PackML.SUSPENDED for unit in cells) >= 2
    assert floor.flow.left.get(floor.env.now) == 0


def test_more_latency_never_delivers_more(quickstart: Plant) -> None:
    left = []
    for delay_ms in (1, 1_000, 5_000, 20_000):
        floor = Floor(quickstart, fixed(delay_ms), 1, START)
        floor.run_to(START + 4 * HOUR)
        now = floor.env.now
        trimmed = sum(d.produced.get(now) for d in floor.units if isinstance(d, RobotArm))
        left.append((floor.flow.left.get(now), trimmed))
    assert left == sorted(left, reverse=True)
    assert left[-1][1] < left[0][1]


def test_an_output_keeps_orders_apart_and_calls_once_per_container(quickstart: Plant) -> None:
    floor = Floor(quickstart, fixed(1), 1, START)
    first, second = (Order(n, quickstart.product[n], 100, START) for n in range(2))
    called: list[Container] = []
    lane = Output(floor.env, 3, 2, called.append)
    for _ in range(4):
        lane.put(first, START)
    assert [c.pieces for c in called] == [3]
    lane.put(second, START)  # the last piece of the first order leaves alone
    assert [(c.order, c.pieces) for c in called] == [(first, 3), (first, 1)]
    lane.put(second, START)
    assert lane.room(second)
    assert not lane.room(first)
    lane.put(second, START)
    assert not lane.room(second), "two wait, one is full"
    lane.take(called[0])
    assert [c.pieces for c in called] == [3, 1, 3]
    assert lane.room(first)
    assert lane.pieces() == 4


def test_an_output_takes_as_many_pieces_as_are_left(quickstart: Plant) -> None:
    floor = Floor(quickstart, fixed(1), 1, START)
    order = Order(1, quickstart.product[0], 100, START)
    called: list[Container] = []
    lane = Output(floor.env, 5, 1, called.append)
    assert lane.left(order) == 5
    lane.put_many(order, [START, START + 1])
    assert (lane.left(order), lane.left(order, 2)) == (3, 5)
    lane.begin(order, 2)
    assert [(c.step, c.pieces) for c in called] == [(1, 2)], "another step is another container"
    lane.put_many(order, range(5), 2)
    assert lane.left(order, 2) == lane.left(order) == 0, "full, and the slot is taken"
    lane.take(called[0])
    assert [list(c.entered_ns) for c in called] == [[START, START + 1], [0, 1, 2, 3, 4]]
    assert lane.left(order) == 5


# Calendar and map


def test_calendar() -> None:
    spec = CalendarSpec(
        utc_offset="+08:00",
        shift=(Span(start="08:00", end="16:00"),),
        pause=(Span(start="12:00", end="12:30"),),
    )
    calendar = Calendar(spec)
    clocks = [("00:00", True), ("03:59", True), ("04:00", False), ("04:29", False),
              ("04:30", True), ("07:59", True), ("08:00", False), ("23:59", False)]  # fmt: skip
    for clock, planned in clocks:
        t_ns = parse_time(f"2026-01-05T{clock}:00Z")
        assert calendar.planned(t_ns) is planned, clock
        change = calendar.next_change_ns(t_ns)
        assert change is not None
        assert change > t_ns
        assert calendar.planned(change) is not planned
        assert calendar.planned(change - 1) is planned
    steps = calendar.steps(START, START + 24 * HOUR)
    assert [(t - START) // (HOUR // 2) for t in steps.t] == [0, 8, 9, 16, 48]


def test_round_the_clock_never_changes() -> None:
    calendar = Calendar(CalendarSpec(shift=(Span(start="00:00", end="24:00"),)))
    assert calendar.next_change_ns(START) is None
    assert calendar.planned(START)
    assert calendar.pauses_ns(START) > START + 1000 * 24 * HOUR


def test_ways_are_shortest(quickstart: Plant) -> None:
    roads = Roads(quickstart)
    assert roads.way("c1", "store") == [
        ("c1", 0.0), ("a1", 8.0), ("a2", 28.0), ("a3", 48.0), ("a4", 68.0), ("a5", 98.0),
        ("store", 110.0),
    ]  # fmt: skip
    assert roads.distance_m("c1", "store") == roads.distance_m("store", "c1") == 110.0


# The plant file


def test_a_plant_file_tells_all_its_problems(quickstart: Plant) -> None:
    data = tables(quickstart)
    data["device"][0]["cycle_sec"] = 60.0
    data["device"][1]["scrap_ratio"] = 1.4
    data["device"][4]["kind"] = "robot_arn"
    with pytest.raises(ConfigError) as error:
        make_plant(data)
    text = str(error.value)
    assert "cycle_sec" in text
    assert "did you mean cycle_s?" in text
    assert "scrap_ratio" in text
    assert "[ratio]" in text
    assert "robot_arn" in text


def test_a_plant_file_refers_to_what_exists(quickstart: Plant) -> None:
    data = tables(quickstart)
    data["order"][0]["unit"] = "dmc01"
    data["edge"][0]["between"] = ["a1", "a22"]
    data["device"][7]["charger"] = "dok"
    data["device"][5]["name"] = "arm01"
    data["device"][6]["cycle_max_s"] = 5.0
    with pytest.raises(ConfigError) as error:
        make_plant(data)
    text = str(error.value)
    for words in ("unknown unit dmc01; did you mean dcm0", "unknown node a22; did you mean a2?",
                  "unknown node dok; did you mean dock?", "device arm01 is there twice",
                  "cycle_max_s 5 is below", "cannot be reached"):  # fmt: skip
        assert words in text


def test_an_unknown_plant_gets_a_guess() -> None:
    with pytest.raises(UsageError, match="did you mean quickstart"):
        load_plant("quickstrat")


def test_a_run_starts_on_a_pane(quickstart: Plant) -> None:
    with pytest.raises(ConfigError, match="10 s"):
        Factory(quickstart, fixed(1), 1, "r", START + NS_PER_S, HOUR)


# Bytes


def test_the_same_seed_makes_the_same_bytes_and_another_does_not(quickstart: Plant) -> None:
    a, b, c = (everything(factory(quickstart, real(seed=s), seed=s))[0] for s in (5, 5, 6))
    assert a == b
    assert [m.payload for m in a] != [m.payload for m in c]


def test_chunks_only_cut(quickstart: Plant) -> None:
    whole, chunks = everything(factory(quickstart, real("wifi-loaded")))
    for chunk_s in (7, 20, 600):
        cut, pieces = everything(factory(quickstart, real("wifi-loaded")), chunk_s * NS_PER_S)
        for conn in ("casting", "logistics", "cable", "mes"):
            assert of(cut, conn) == of(whole, conn)
            said = [p for c in pieces for p in c.progress if p.conn == conn]
            assert said == [p for c in chunks for p in c.progress if p.conn == conn]


def test_adding_a_device_leaves_the_others_alone(quickstart: Plant) -> None:
    data = tables(quickstart)
    twin = next(d for d in data["device"] if d["kind"] == "cable_line")
    data["device"].insert(0, twin | {"name": "cl00"})
    before = everything(factory(quickstart, real()))[0]
    after = everything(factory(make_plant(data), real()))[0]
    for conn in ("casting", "logistics"):
        assert of(before, conn) == of(after, conn)

    def cable(messages: list[Made]) -> list[dict[str, Any]]:
        said = [json.loads(m.payload) for m in messages if "/cl01/" in m.topic]
        return [{k: v for k, v in s.items() if k != "x_beilun"} for s in said]

    assert cable(before) == cable(after)


def decoded(message: Made) -> Any:
    envelope = Envelope("", message.topic, message.arrival_ns, message.payload)
    codec: codecs.Codec = uns.CODEC if uns.CODEC.claims(message.topic) else vda5050.CODEC
    return codec.decode(envelope)


def test_eight_hours_are_small_and_decode(shift: tuple[Factory, list[Made], list[Chunk]]) -> None:
    made, messages, chunks = shift
    progress = sum(len(c.progress) for c in chunks)
    assert len(messages) + progress < 100_000
    assert 50_000 < len(messages) < 85_000
    channels = {b.asset: b.channels for b in _births(messages)}
    own = {str(asset) for asset in channels if asset.area != "network"}
    crew = made.floor.mes.crew
    assert crew is not None
    assert own == {d.path for d in made.floor.devices} | {made.floor.flow.path, crew.path}
    counts: Counter[str] = Counter()
    for message in messages:
        for said in decoded(message):
            if isinstance(said, Batch):
                counts[said.stream] += 1
                extra = {"planned", "order", "pri_s", "psut_s", "quantity"}
                assert set(said.channels) <= set(channels[said.asset]) | extra
                assert said.meta.run == "r"
                assert said.meta.sent_ns is not None
                assert said.t_ns[-1] <= said.meta.sent_ns
    assert set(counts) == {
        "state",
        "process",
        "event",
        "orders",
        "calendar",
        "flow",
        "link",
        "service",
    }


def test_births_tell_limits_and_the_mes_tells_each_meter_its_co2_once(
    shift: tuple[Factory, list[Made], list[Chunk]],
) -> None:
    births = {str(b.asset): b for b in _births(shift[1])}
    cell = births["ningbo/casting/line1/dcm01"]
    assert cell.limits == {"biscuit_mm": (20.0, 30.0), "pressure_mpa": (65.0, 75.0)}
    assert births["ningbo/cable/hall1/cl01"].limits == {"diameter_mm": (61.5, 62.5)}
    assert births["ningbo/casting/line1/arm01"].limits == {}
    assert births["ningbo/staff/shift/crew"].kind == "crew"
    told: Counter[str] = Counter()
    for message in shift[1]:
        if message.topic.endswith(("/calendar", "/flow")):
            (said,) = decoded(message)
            told.update(f"{said.asset.name} {c}" for c in ("co2_kg_per_kwh", "heads", "value_cny")
                        if c in said.channels)  # fmt: skip
            if "co2_kg_per_kwh" in said.channels:
                assert said.channels["co2_kg_per_kwh"].tolist() == [0.5703]
    units = {unit.asset.name for unit in shift[0].floor.units}
    assert told == {f"{name} co2_kg_per_kwh": 1 for name in units} | {
        "flow heads": 1, "flow value_cny": 1
    }  # fmt: skip


def test_without_staff_nobody_is_counted(quickstart: Plant) -> None:
    data = tables(quickstart)
    del data["staff"]
    messages, _ = everything(factory(make_plant(data), fixed(1), minutes=1))
    births = {b.asset.name: b for b in _births(messages)}
    assert "crew" not in births
    assert not {"heads", "value_cny"} & set(births["flow"].channels)


def _births(messages: list[Made]) -> Iterator[Birth]:
    for message in messages:
        if message.topic.endswith("/birth"):
            assert message.retain
            yield from decoded(message)


def test_connections_number_what_they_publish(
    shift: tuple[Factory, list[Made], list[Chunk]],
) -> None:
    made, messages, chunks = shift
    for conn in made.connections:
        mine = of(messages, conn)
        assert [m.cseq for m in mine] == list(range(1, len(mine) + 1))
        assert all(a.arrival_ns <= b.arrival_ns for a, b in pairwise(mine))
        assert [json.loads(m.payload)["x_beilun"]["cseq"] for m in mine[:50]] == list(range(1, 51))
        said = [p for c in chunks for p in c.progress if p.conn == conn]
        assert [p.arrival_ns for p in said[:-1]] == list(
            range(START + PANE_NS, START + 8 * HOUR + 1, PANE_NS)
        )
        assert [p.end for p in said] == [False] * (len(said) - 1) + [True]
        cseq = 1
        for p in said:
            while cseq <= len(mine) and mine[cseq - 1].arrival_ns <= p.arrival_ns:
                cseq += 1
            assert p.next_cseq == cseq
            assert p.made >= p.next_cseq - 1 + sum(p.lost.values())
        account = made.ledger()[conn]
        assert account.made == account.published == len(mine)
    for chunk in chunks:
        last: dict[str, int] = {}
        for item in chunk.in_order():
            number = item.cseq if isinstance(item, Made) else item.next_cseq
            assert number >= last.get(item.conn, 0)
            last[item.conn] = number


def test_identities_are_unique(shift: tuple[Factory, list[Made], list[Chunk]]) -> None:
    seen: set[Any] = set()
    for message in shift[1]:
        for said in decoded(message):
            assert said.meta.identity not in seen
            seen.add(said.meta.identity)


def test_progress_decodes(shift: tuple[Factory, list[Made], list[Chunk]]) -> None:
    last = shift[2][-1].progress[-1]
    (said,) = uns.CODEC.decode(Envelope("uns", last.topic, 0, last.payload))
    assert isinstance(said, Progress)
    assert said.end
    assert said.next_cseq == last.next_cseq


def test_what_is_lost_is_counted_and_births_come_again(quickstart: Plant) -> None:
    made = factory(quickstart, fixed(8, lose=7), minutes=30)
    messages, chunks = everything(made)
    births = {m.topic for m in messages if m.topic.endswith("/birth")}
    assert {topic for topic in births if "/network/" not in topic} == {
        f"beilun/v1/{path}/birth"
        for path in [
            *(d.path for d in made.floor.devices),
            made.floor.flow.path,
            "ningbo/staff/shift/crew",
        ]
    }
    for conn, account in made.ledger().items():
        mine = of(messages, conn)
        assert [m.cseq for m in mine] == list(range(1, len(mine) + 1))
        assert account.published == len(mine)
        assert account.made == account.published + sum(account.lost.values()) + account.shed
        if conn not in ("mes", "network"):  # each device's bearer loses every seventh
            devices = len(made.floor.devices)
            assert account.made // 7 - devices < account.lost["drop"] <= account.made // 7
        end = next(p for p in chunks[-1].progress if p.end and p.conn == conn)
        assert (end.made, end.lost) == (account.made, account.lost)


def test_a_run_cut_short_closes_its_sums(quickstart: Plant) -> None:
    made = factory(quickstart, real("wifi-loaded"), minutes=60)
    chunks: list[Chunk] = []
    for chunk in made.chunks(25 * NS_PER_S):
        chunks.append(chunk)
        if len(chunks) == 5:
            made.stop()
    assert len(chunks) == 6
    assert all(p.end for p in chunks[-1].progress)
    assert len(chunks[-1].progress) == 5
    messages = [m for c in chunks for m in c.made]
    cut_ns = START + 125 * NS_PER_S
    for conn, account in made.ledger().items():
        mine = of(messages, conn)
        assert account.made == account.published == len(mine)
        assert all(json.loads(m.payload)["x_beilun"]["sent_ns"] <= cut_ns for m in mine)
    assert {r.window_start_ns for r in made.truth([Every(60 * NS_PER_S)])} == {
        START, START + 60 * NS_PER_S, START + 120 * NS_PER_S
    }  # fmt: skip


def test_a_partial_pane_at_the_end_is_sent(quickstart: Plant) -> None:
    messages, chunks = everything(factory(quickstart, fixed(5), minutes=1 + 3 / 60))
    last = [decoded(m)[0] for m in messages if m.topic.endswith("/dcm01/process")][-1]
    assert last.t_ns.tolist() == [START + s * NS_PER_S for s in (61, 62, 63)]
    assert {p.arrival_ns for p in chunks[-1].progress if p.end} == {
        START + 63 * NS_PER_S + 5 * NS_PER_MS,
        START + 63 * NS_PER_S,  # the MES said nothing late
        START + 63 * NS_PER_S + NS_PER_MS // 2,  # the network's report of the last pane
    }  # fmt: skip


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the VDA 5050 schemas are not here")
def test_vehicles_speak_vda5050(shift: tuple[Factory, list[Made], list[Chunk]]) -> None:
    import jsonschema  # type: ignore[import-untyped]

    ids: dict[str, list[int]] = {}
    seen: set[tuple[bool, ...]] = set()
    for name in ("state", "connection"):
        schema = json.loads((SCHEMAS / f"{name}.schema").read_text())
        checker = jsonschema.Draft7Validator(schema, format_checker=jsonschema.FormatChecker())
        said = [m for m in shift[1] if m.topic.startswith("uagv") and m.topic.endswith(f"/{name}")]
        assert said
        for number, message in enumerate(said):
            payload = json.loads(message.payload)
            ids.setdefault(message.topic, []).append(payload["headerId"])
            key = tuple(
                bool(payload.get(k))
                for k in ("orderId", "driving", "loads", "errors", "nodeStates")
            )
            if key not in seen or number % 50 == 0:
                checker.validate(payload)
                seen.add(key)
    assert len(seen) >= 5
    for numbers in ids.values():
        assert numbers == list(range(len(numbers)))


# Control over the link


def test_heartbeats_and_messages_share_a_bearer_in_order_of_time() -> None:
    lane = Lane(cast(Any, FixedBearer(3 * NS_PER_MS, 0)), START)
    assert lane.send(START + 500 * NS_PER_MS, 10) == START + 503 * NS_PER_MS
    lane.advance(START + NS_PER_S)
    arrived, delay = lane.delays(START + NS_PER_S)
    assert sorted(((arrived - START) // NS_PER_MS).tolist()) == [3, 203, 403, 503, 603, 803]
    assert set(delay.tolist()) == {3 * NS_PER_MS}
    assert (lane.made, lane.lost) == (7, 0)


class Gap(FixedBearer):
    """What is sent in the second second stalls until its end."""

    def send(self, t_ns: int, n_bytes: int) -> int | None:
        stalled = START + NS_PER_S <= t_ns < START + 2 * NS_PER_S
        arrival_ns = super().send(t_ns, n_bytes)
        return START + 2 * NS_PER_S if stalled else arrival_ns


def test_silence_is_found_where_it_begins_and_no_beat_is_sent_after_it() -> None:
    bearer = Gap(5 * NS_PER_MS, 0)
    lane = Lane(cast(Any, bearer), START)
    limit_ns = 300 * NS_PER_MS
    quiet_ns = lane.quiet(START + NS_PER_S // 2, START + 5 * NS_PER_S, limit_ns)
    assert quiet_ns == START + 1105 * NS_PER_MS
    assert quiet_ns is not None
    assert bearer.last_ns == START + NS_PER_S
    assert lane.hears(quiet_ns, quiet_ns) == START + 2 * NS_PER_S
    assert bearer.last_ns <= quiet_ns
    assert lane.quiet(START + 2 * NS_PER_S, START + 5 * NS_PER_S, limit_ns) is None
    assert bearer.last_ns <= START + 5 * NS_PER_S
    assert lane.heard_ns(START + 6 * NS_PER_S) == START + 5805 * NS_PER_MS


def test_on_a_dead_link_nothing_is_heard_until_something_comes() -> None:
    class Dead(FixedBearer):
        def send(self, t_ns: int, n_bytes: int) -> int | None:
            arrival_ns = super().send(t_ns, n_bytes)
            return arrival_ns if t_ns >= START + 10 * NS_PER_S else None

    lane = Lane(cast(Any, Dead(5 * NS_PER_MS, 0)), START)
    limit_ns = 300 * NS_PER_MS
    assert lane.quiet(START, START + NS_PER_S, limit_ns) == START + limit_ns
    assert lane.hears(START + limit_ns, START + 4 * NS_PER_S) is None
    assert lane.next_beat_ns == START + 4200 * NS_PER_MS
    back_ns = START + 10_005 * NS_PER_MS
    assert lane.hears(START + limit_ns, START + 60 * NS_PER_S) == back_ns
    assert lane.next_beat_ns == START + 10_200 * NS_PER_MS
    assert (lane.made, lane.lost) == (51, 50)


def test_one_by_one_or_as_columns_a_lane_hears_the_same() -> None:
    lanes = [Lane(real("wifi-loaded").bearer("x", Direction.DOWN), START) for _ in range(2)]
    for at in range(1, 60):
        lanes[0].heard_ns(START + at * 137 * NS_PER_MS)
    for lane in lanes:
        lane.send(START + 60 * NS_PER_S, 500)
    (a, da), (b, db) = (lane.delays(START + 90 * NS_PER_S) for lane in lanes)
    assert a.tolist() == b.tolist()
    assert da.tolist() == db.tolist()
    assert lanes[0].heard_ns(START + 90 * NS_PER_S) == lanes[1].heard_ns(START + 90 * NS_PER_S)


def test_delay_histograms_count_every_control_message(quickstart: Plant) -> None:
    floor = Floor(quickstart, fixed(7), 1, START)
    (control, *_) = floor.controls
    assert isinstance(control, Control)
    counted = 0
    for minute in range(30):
        start = START + minute * 60 * NS_PER_S
        floor.run_to(start + 60 * NS_PER_S)
        for report in control.reports(Stretch.every(start, start + 60 * NS_PER_S)):
            assert isinstance(report, Columns)
            if report.stream != "link":
                continue
            *blank, last = report.ch["uplink_misses"]
            assert not any(n is not None for n in blank), "misses come once per pane"
            assert last == 0
            (number,) = set(report.ch["bin"])
            assert bins.delay_of(int(number or 0)) == pytest.approx(7 * NS_PER_MS, rel=0.005)
            assert all(report.sent_ns - PANE_NS <= t < report.sent_ns for t in report.t_ns)
            counted += sum(cast(list[int], report.ch["count"]))
    made = control.up.made + control.down.made
    assert made - 2 <= counted <= made
    assert made >= 2 * 5 * 1800


def test_a_pane_without_arrivals_has_its_misses_alone(quickstart: Plant) -> None:
    floor = Floor(quickstart, fixed(15_000), 1, START)
    floor.run_to(START + 60 * NS_PER_S)
    (control, *_) = floor.controls
    reports = control.reports(Stretch.every(START, START + 60 * NS_PER_S))
    said = [r for r in reports if isinstance(r, Columns) and r.stream == "link"]
    assert len(said) == 6
    assert said[0].ch == {
        "bin": [None], "count": [None], "down": [None], "uplink_misses": [0], "downlink_misses": [0]
    }  # fmt: skip
    assert said[0].t_ns == [START + PANE_NS - 1]
    assert cast(int, said[-1].ch["downlink_misses"][-1]) > 50


def test_link_delay_is_waited_for(quickstart: Plant) -> None:
    floor = Floor(quickstart, fixed(40), 1, START)
    floor.run_to(START + 2 * HOUR)
    waits = {us for d in floor.units if isinstance(d, RobotArm) for _, _, us in d.cycles}
    assert waits == {80_000}
    assert all(d.mission.t[1] % NS_PER_MS == 0 for d in floor.devices if isinstance(d, Agv))


def test_a_service_is_down_once_a_beat_and_the_survival_time_passed() -> None:
    """Arrivals at 0.2, 0.4, 0.6 s, then nothing until 3 s: down from 1.0 to 3.0, one failure."""
    service = Service("uplink", START)
    beats = START + np.array([200, 400, 600], dtype=np.int64) * NS_PER_MS
    service.note(beats, START + NS_PER_S // 2 + 100 * NS_PER_MS)
    assert service.up.last == 1
    service.note(np.empty(0, dtype=np.int64), START + 2 * NS_PER_S)
    assert (service.up.last, service.failures.last) == (0, 1)
    service.note(np.array([START + 3 * NS_PER_S], dtype=np.int64), START + 3 * NS_PER_S)
    assert list(zip(service.up.t, service.up.v, strict=True)) == [
        (START, 1), (START + NS_PER_S, 0), (START + 3 * NS_PER_S, 1)
    ]  # fmt: skip


def test_misses_in_a_row_go_on_over_panes() -> None:
    service = Service("uplink", START)
    late, good = 11 * NS_PER_MS, 9 * NS_PER_MS
    assert service.longest_miss(np.array([good, late, late])) == 2
    assert service.longest_miss(np.array([late, good, late])) == 3
    assert service.longest_miss(np.array([good])) == 0
