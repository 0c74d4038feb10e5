"""The engine against clocks that are wrong, against silence, and with a network's own assets."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.windows import window
from edge import kpis
from edge.columns import Columns
from edge.engine import Engine
from edge.measures import Measure, Settling
from edge.policy import Policy
from edge.rows import ALL, Row
from ingest.bins import bin_of
from ingest.codecs import Unusable
from ingest.codecs.uns import Uns
from ingest.messages import (
    Asset,
    Batch,
    Birth,
    Envelope,
    Identity,
    Message,
    Meta,
    Progress,
    Record,
    Tick,
)

S = 10**9
NOW = 1_767_571_200 * S
YEARS = 20 * 365 * 86_400 * S
ASSET = Asset("s", "a", "l", "m1")
CHANNELS = {"state": "1", "produced": "1", "scrap": "1"}


class Feed:
    """Records of one connection, and an engine's past made of them."""

    def __init__(self, run: str | None = "r", policy: Policy | None = None) -> None:
        self.records: list[Record] = []
        self.rows: dict[object, Row] = {}
        self.run = run
        self.engine = Engine(policy or Policy(), tuple(kpis.load().values()), self, run=run)
        self.recalled: list[tuple[int, int]] = []
        self._seq = 0

    def recall(self, first_ns: int, last_ns: int) -> list[Record]:
        self.recalled.append((first_ns, last_ns))
        return self.records

    def meta(self, arrival_ns: int, asset: Asset = ASSET) -> Meta:
        self._seq += 1
        conn = "s/c" if self.run else ""
        identity = Identity(str(asset), 1, self._seq)
        return Meta(identity, arrival_ns, arrival_ns, self.run or "", conn, self._seq)

    def say(self, message: Message) -> None:
        record = Record(Envelope("uns", "t", 0, b""), message, len(self.records))
        self.records.append(record)
        self.engine.feed([record])
        self.keep(self.engine.advance())

    def keep(self, rows: list[Row]) -> None:
        self.rows.update({row.key: row for row in rows})

    def birth(self, t_ns: int, arrival_ns: int, asset: Asset = ASSET) -> None:
        meta = self.meta(arrival_ns, asset)
        self.say(Birth(asset, "casting_cell", t_ns, CHANNELS, meta))

    def parts(self, t_ns: list[int], arrival_ns: int) -> None:
        produced = np.arange(len(t_ns), dtype=np.float64)
        channels = {"produced": produced, "state": np.full(len(t_ns), 6.0)}
        times = np.array(t_ns, dtype=np.int64)
        self.say(Batch(ASSET, "event", times, channels, self.meta(arrival_ns)))

    def progress(self, arrival_ns: int, *, end: bool = False) -> None:
        self.say(Progress("s/c", "r", arrival_ns, self._seq + 1, self._seq, {}, 0, end, 1))


@pytest.mark.timeout(20)
def test_a_birth_of_years_ago_makes_rows_from_now() -> None:
    feed = Feed()
    feed.birth(NOW - YEARS, NOW)
    feed.parts([NOW, NOW + 30 * S], NOW + 31 * S)
    feed.progress(NOW + 120 * S, end=True)
    feed.keep(feed.engine.finish())
    first = min(row.window_start_ns for row in feed.rows.values())
    assert first >= NOW - 2 * 86_400 * S


@pytest.mark.timeout(20)
def test_a_sample_of_years_ago_amends_nothing_and_is_counted() -> None:
    feed = Feed()
    feed.birth(NOW, NOW)
    feed.parts([NOW - YEARS], NOW + S)
    feed.parts([NOW - YEARS, NOW + S], NOW + 2 * S)
    feed.progress(NOW + 120 * S, end=True)
    feed.keep(feed.engine.finish())
    assert feed.engine.ledger.too_late == 1
    assert min(row.window_start_ns for row in feed.rows.values()) >= NOW - 8 * 3_600 * S


@pytest.mark.timeout(20)
def test_years_of_silence_make_no_rows_and_state_is_kept_over_it() -> None:
    feed = Feed(run=None)
    feed.birth(NOW, NOW)
    feed.parts([NOW, NOW + 30 * S], NOW + 30 * S)
    later = NOW + YEARS
    feed.say(Tick(later))
    feed.parts([later, later + 30 * S], later + 30 * S)
    feed.say(Tick(later + 600 * S))
    feed.keep(feed.engine.finish())
    minutes = [
        row
        for row in feed.rows.values()
        if row.window_length_ns == 60 * S and row.kpi == "output" and row.asset == ASSET
    ]
    assert len(minutes) < 3 * 1440
    assert {r.window_start_ns for r in minutes} >= {NOW, later}


@pytest.mark.timeout(20)
def test_a_progress_from_the_future_closes_what_there_is() -> None:
    feed = Feed()
    feed.birth(NOW, NOW)
    feed.parts([NOW, NOW + 30 * S], NOW + 30 * S)
    feed.progress(NOW + YEARS, end=True)
    feed.keep(feed.engine.finish())
    assert feed.rows


def test_a_connection_without_messages_has_no_say() -> None:
    feed = Feed()
    feed.say(Progress("s/forged", "r", NOW + 3_600 * S, 1, 0, {}, 0, True))
    assert not feed.engine.ended
    assert feed.engine.watermark_ns is None
    feed.birth(NOW, NOW)
    feed.progress(NOW + 60 * S)
    assert feed.engine.watermark_ns == NOW + 60 * S


def test_a_simulations_progress_does_not_stop_a_foreign_edge() -> None:
    feed = Feed(run=None)
    feed.birth(NOW, NOW)
    feed.say(Progress("s/c", "yesterday", NOW - YEARS, 1, 0, {}, 0, True))
    feed.say(Tick(NOW + 90 * S))
    assert feed.engine.watermark_ns == NOW + 90 * S
    assert {row.window_start_ns for row in feed.rows.values()} == {NOW}


# A network's own assets

SLICE, CELL = Asset("s", "network", "slices", "urllc"), Asset("s", "network", "cells", "c1")
HOPS = ("endpoint", "radio", "core", "transport")
SEEN = {"bin": "1", "count": "1", "down": "1", "hop_messages": "1"} | {
    f"hop_{hop}_ns": "ns" for hop in HOPS
}
MISSES = {"uplink_misses": "1", "downlink_misses": "1"}
BLANK = math.nan
BIN = int(bin_of(np.array([5_000_000]))[0])


def linked(feed: Feed, asset: Asset, rows: int, arrival_ns: int, **columns: list[float]) -> None:
    """A ``link`` message of some rows, all of the pane that begins now."""
    channels = {name: np.array(values, dtype=np.float64) for name, values in columns.items()}
    times = np.full(rows, NOW, dtype=np.int64)
    feed.say(Batch(asset, "link", times, channels, feed.meta(arrival_ns, asset)))


def announced(feed: Feed, asset: Asset, kind: str, channels: dict[str, str]) -> None:
    feed.say(Birth(asset, kind, NOW, channels, feed.meta(NOW, asset)))


def value(feed: Feed, asset: Asset, kpi: str) -> float | None:
    return feed.rows[asset, kpi, 60 * S, NOW].value


def over(feed: Feed) -> None:
    feed.progress(NOW + 120 * S, end=True)
    feed.keep(feed.engine.finish())


def network() -> Feed:
    """Four heartbeats of a machine and one of its messages, seen by a slice and a cell too."""
    feed = Feed()
    announced(feed, ASSET, "casting_cell", CHANNELS | MISSES)
    for asset, kind in ((SLICE, "slice"), (CELL, "radio_cell")):
        announced(feed, asset, kind, SEEN)
    feed.parts([NOW, NOW + S], NOW + S)
    nothing = [BLANK, BLANK]
    linked(
        feed, ASSET, 2, NOW + 10 * S,
        bin=[BIN, BIN + 700], count=[3, 1], down=[0, 1],
        uplink_misses=[BLANK, 0], downlink_misses=[BLANK, 1],
    )  # fmt: skip
    for asset in (SLICE, CELL):
        linked(
            feed, asset, 3, NOW + 10 * S,
            bin=[0, BIN, BIN + 700], count=[1, 3, 1], down=[0, 0, 1], hop_messages=[*nothing, 5],
            hop_endpoint_ns=[*nothing, 10**15 + 1], hop_radio_ns=[*nothing, 20_000_001],
            hop_core_ns=[*nothing, 0], hop_transport_ns=[BLANK, 9e12, 1],
        )  # fmt: skip
    over(feed)
    return feed


def test_each_message_is_in_a_roll_up_once() -> None:
    """By the device that sent it; what a cell or a slice sees of it is apart."""
    feed = network()
    site = Asset("s", ALL, ALL, ALL)
    # The machine's: three heartbeats within 10 ms and one beyond, and two messages of its own.
    assert value(feed, site, "within_10ms") == value(feed, ASSET, "within_10ms") == 5 / 6
    assert {row.asset for row in feed.rows.values() if row.asset.area == "network"} == {
        SLICE, CELL,
    }  # fmt: skip
    assert not any(row.kpi in ("radio_delay", "messages") for row in feed.rows.values()
                   if row.asset == site)  # fmt: skip
    assert feed.rows[site, "within_10ms", 60 * S, NOW].n == 4  # samples and rows of the machine


def test_a_report_on_the_network_is_none_of_the_messages_it_tells_of() -> None:
    feed = network()
    for asset in (SLICE, CELL):
        assert value(feed, asset, "within_10ms") == 4 / 5
        assert value(feed, asset, "messages") == 5
        assert value(feed, asset, "clock_skew") is not None  # of the monitor


def test_the_time_in_a_hop_is_an_exact_sum_divided_once() -> None:
    feed = network()
    assert value(feed, SLICE, "endpoint_delay") == (10**15 + 1) / (5 * 10**6)
    assert value(feed, SLICE, "radio_delay") == 20_000_001 / (5 * 10**6)
    assert value(feed, SLICE, "core_delay") == 0
    assert value(feed, SLICE, "transport_delay") == (9 * 10**12 + 1) / (5 * 10**6)
    assert (ASSET, "radio_delay", 60 * S, NOW) not in feed.rows


def test_misses_stand_in_any_stream_beside_blanks() -> None:
    assert value(network(), ASSET, "misses_in_a_row") == 1
    feed = Feed()
    announced(feed, ASSET, "casting_cell", CHANNELS | MISSES)
    linked(
        feed, ASSET, 1, NOW + 10 * S, bin=[BLANK], count=[BLANK], down=[BLANK],
        uplink_misses=[7], downlink_misses=[BLANK],
    )  # fmt: skip
    over(feed)
    assert value(feed, ASSET, "misses_in_a_row") == 7
    assert value(feed, ASSET, "delay_p999") is not None  # of the message itself
    assert value(feed, ASSET, "within_10ms") == 1
    assert feed.rows[ASSET, "misses_in_a_row", 60 * S, NOW].n == 1


@pytest.mark.parametrize(("bin_", "count"), [(9e12, 1), (-9e12, 1), (BIN, 0), (BIN, -3)])
def test_what_no_stamps_can_give_is_no_delay(bin_: float, count: float) -> None:
    feed = Feed()
    announced(feed, SLICE, "slice", SEEN)
    linked(feed, SLICE, 1, NOW + 10 * S, bin=[bin_], count=[count], hop_messages=[1])
    over(feed)
    assert value(feed, SLICE, "delay_p50") is None


def test_a_window_that_cuts_what_is_gathered_has_no_evidence() -> None:
    """Reports of 20 s are no evidence of 10 s, nor of 30; a line has none where one of its own has
    none."""
    other = ASSET._replace(name="m2")
    grain = {"uplink_misses": 20 * S, "downlink_misses": 5 * S}
    labels = ("10s", "20s", "30s", "1m")
    feed = Feed(policy=Policy(10 * S, tuple(window(w, "UTC", ("00:00",)) for w in labels)))
    for asset, gathered_ns in ((ASSET, grain), (other, {})):
        meta = feed.meta(NOW, asset)
        feed.say(Birth(asset, "casting_cell", NOW, MISSES, meta, gathered_ns=gathered_ns))
        linked(feed, asset, 1, NOW + 10 * S, uplink_misses=[7], downlink_misses=[2])
    over(feed)
    line = ASSET._replace(name=ALL)
    assert {key for key, row in feed.rows.items() if row.kpi == "misses_in_a_row"
            and row.value is not None and row.window_start_ns == NOW} == {
        *((other, "misses_in_a_row", s * S, NOW) for s in (10, 20, 30, 60)),
        *((asset, "misses_in_a_row", s * S, NOW)
          for asset in (ASSET, line, Asset("s", "a", ALL, ALL), Asset("s", ALL, ALL, ALL))
          for s in (20, 60)),
    }  # fmt: skip
    assert feed.rows[ASSET, "misses_in_a_row", 10 * S, NOW].n == 1


def said(**columns: list[float | None]) -> list[Message]:
    n = len(next(iter(columns.values())))
    document = {"t_ns": NOW, "after_ns": [0] * n, "ch": columns}
    topic = "beilun/v1/s/network/slices/urllc/link"
    return list(Uns().decode(Envelope("uns", topic, NOW, json.dumps(document).encode())))


def test_sums_of_nanoseconds_cross_the_wire_exactly() -> None:
    [batch] = said(bin=[3, None], hop_radio_ns=[None, 10**15 + 1])
    assert isinstance(batch, Batch)
    assert batch.channels["hop_radio_ns"][1] == 10**15 + 1
    assert np.isnan(batch.channels["bin"][1])


@pytest.mark.parametrize("columns", [{"count": [10**13]}, {"hop_radio_ns": [10**16]}])
def test_what_is_too_large_to_add_up_is_refused(columns: dict[str, list[float | None]]) -> None:
    with pytest.raises(Unusable):
        said(**columns)


def test_a_message_sent_after_it_arrived_is_read() -> None:
    """By its stamps: the sender's clock is ahead."""
    stamps = {
        "run": "r", "conn": "c", "cseq": 1, "boot": 1, "seq": 1, "sent_ns": NOW + 3 * S,
        "arrival_ns": NOW,
    }  # fmt: skip
    payload = json.dumps({"t_ns": NOW, "ch": {"x": [1]}, "x_beilun": stamps}).encode()
    [batch] = Uns().decode(Envelope("uns", "beilun/v1/s/a/l/m1/process", NOW, payload))
    assert isinstance(batch, Batch)
    assert (batch.meta.sent_ns, batch.meta.arrival_ns) == (NOW + 3 * S, NOW)


# amending

HOUR = 3_600 * S


def again(records: list[Record], order: list[int], policy: Policy) -> dict[object, Row]:
    """Last rows of records in some order, one at a time."""
    feed = Feed(policy=policy)
    for place in order:
        feed.records.append(records[place])
        feed.engine.feed([records[place]])
        feed.keep(feed.engine.advance())
    feed.keep(feed.engine.finish())
    return {key: row._replace(revision=0) for key, row in feed.rows.items() if not row.gone}


@pytest.mark.parametrize(
    ("after_ns", "retention_ns"), [(2 * HOUR, 600 * S), (11 * HOUR, 600 * S), (5 * HOUR, HOUR)]
)
def test_a_record_inside_a_long_silence_makes_the_same_rows_early_and_late(
    after_ns: int, retention_ns: int
) -> None:
    policy = Policy(retention_ns=retention_ns)
    feed = Feed(policy=policy)
    feed.birth(NOW, NOW)
    feed.parts([NOW, NOW + 30 * S], NOW + 31 * S)
    feed.parts([NOW + after_ns], NOW + after_ns + S)
    feed.progress(NOW + 16 * HOUR)
    feed.parts([NOW + 16 * HOUR], NOW + 16 * HOUR + S)
    feed.progress(NOW + 17 * HOUR, end=True)
    straight = again(feed.records, [0, 1, 2, 3, 4, 5], policy)
    minutes = {r.window_start_ns for r in straight.values() if r.window_length_ns == 60 * S}
    assert NOW + after_ns in minutes
    for order in ([0, 1, 3, 2, 4, 5], [0, 1, 3, 4, 5, 2], [0, 3, 4, 2, 5, 1], [3, 4, 5, 2, 1, 0]):
        assert again(feed.records, order, policy) == straight


def test_a_late_record_is_followed_no_farther_than_it_changes_anything() -> None:
    feed = Feed()
    feed.birth(NOW, NOW)
    for minute in range(180):
        t_ns = NOW + minute * 60 * S
        if minute != 100:
            feed.parts([t_ns, t_ns + 50 * S], t_ns + 51 * S)
        feed.progress(t_ns + 51 * S)
    assert not feed.recalled
    t_ns = NOW + 100 * 60 * S
    feed.parts([t_ns, t_ns + 50 * S], t_ns + 51 * S)
    assert feed.recalled
    # Its neighbours, with which it was kept as one, and the hour whose rows it changes.
    assert min(first for first, _ in feed.recalled) >= NOW + 60 * 60 * S
    assert max(last for _, last in feed.recalled) <= NOW + 128 * 60 * S
    assert feed.rows[ASSET, "output", 60 * S, t_ns].n == 2


SETTLING = sorted(
    {m.name: m for k in kpis.load().values() for m in k.measures if isinstance(m, Settling)}.items()
)
READING = st.tuples(st.integers(0, 179), st.integers(0, 40), st.integers(1, 3))


@pytest.mark.parametrize("measure", [m for _, m in SETTLING], ids=[name for name, _ in SETTLING])
@given(readings=st.dictionaries(st.integers(0, 11), st.lists(READING, max_size=8)))
def test_a_settled_state_stands_for_the_state(
    measure: Measure, readings: dict[int, list[tuple[int, int, int]]]
) -> None:
    assert isinstance(measure, Settling)
    batches = [
        Batch(
            ASSET, "event", np.array([NOW + second * S]),
            {measure.channels[which % len(measure.channels)]: np.array([float(value)])},
            Meta(Identity("m1", boot, 12 * n + which), NOW),
        )
        for which, told in sorted(readings.items())
        for n, (second, value, boot) in enumerate(told)
    ]  # fmt: skip
    a, b, c = (
        measure.fold(Columns(batches, NOW + start * S, NOW + (start + 60) * S))
        for start in (0, 60, 120)
    )
    ends = [NOW + 60 * S, NOW + 120 * S, NOW + 180 * S]
    first = measure.edge(measure.zero(), NOW)
    second = measure.edge(measure.merge(first, a), ends[0])
    third = measure.edge(measure.merge(second, b), ends[1])
    plain = [a, b, c]
    settled = [
        measure.settle(known, state)
        for known, state in zip((first, second, third), plain, strict=True)
    ]
    for known, folded, state, end_ns in zip(
        (first, second, third), plain, settled, ends, strict=True
    ):
        assert measure.edge(state, end_ns) == measure.edge(measure.merge(known, folded), end_ns)
    for begin, before in ((0, first), (1, second), (2, third)):
        for end in range(begin + 1, 4):
            told = [before, before]
            for i in range(begin, end):
                told = [measure.merge(told[0], plain[i]), measure.merge(told[1], settled[i])]
            assert measure.facts(told[0]) == measure.facts(told[1])
            assert measure.edge(told[0], ends[end - 1]) == measure.edge(told[1], ends[end - 1])
    joint = measure.merge(settled[0], measure.merge(settled[1], settled[2]))
    assert measure.facts(measure.merge(first, joint)) == measure.facts(
        measure.merge(measure.merge(measure.merge(first, a), b), c)
    )


@given(order=st.permutations(range(9)))
def test_reordered_messages_and_new_starts_are_counted_whatever_order_they_are_fed_in(
    order: list[int],
) -> None:
    feed = Feed()
    # Start, number, arrival: 2 arrived after 3, 1 of start 2 with 2 of it; 4 twice, once later.
    said = [(1, 1, 1), (1, 2, 4), (1, 3, 3), (1, 4, 5), (1, 4, 9), (2, 1, 6), (2, 2, 6), (3, 9, 8),
            (3, 7, 9)]  # fmt: skip
    for place in order:
        boot, seq, second = said[place]
        meta = Meta(Identity("m1", boot, seq), NOW + second * S, NOW, "r", "s/c", 1)
        channels = {"state": np.array([6.0])}
        feed.say(Batch(ASSET, "event", np.array([NOW]), channels, meta))
    feed.engine.finish()
    ledger = feed.engine.ledger
    assert (ledger.reordered, ledger.rebooted) == (2, 2)
    assert (ledger.accepted, ledger.duplicate, ledger.imbalance()) == (8, 1, 0)
    assert ledger.entries()["reordered"] == 2
