"""The engine against clocks that are wrong, and against silence."""

import numpy as np
import pytest

from edge import kpis
from edge.engine import Engine
from edge.policy import Policy
from edge.rows import Row
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

    def __init__(self, run: str | None = "r") -> None:
        self.records: list[Record] = []
        self.rows: dict[object, Row] = {}
        self.run = run
        self.engine = Engine(Policy(), tuple(kpis.load().values()), self, run=run)
        self._seq = 0

    def recall(self, first_ns: int, last_ns: int) -> list[Record]:
        del first_ns, last_ns
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
