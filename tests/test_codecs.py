"""Codecs: whatever arrives is a message or is refused with a reason, and reads back the same."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import topics
from ingest.bins import LOW_NS, bin_of, delay_of
from ingest.codecs.vda5050 import CODEC as VDA
from ingest.decode import Decoder
from ingest.messages import Asset, Batch, Birth, Envelope, Progress, Reject

DECODER = Decoder()
T0 = 1_767_571_200 * 10**9
PROCESS = "beilun/v1/s/a/l/m/process"
REASONS = {"too_large", "not_json", "bad_shape", "absurd_time", "unknown_topic", "unmapped"}

words = st.text(max_size=8)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)
near = st.fixed_dictionaries(
    {"t_ns": st.just(T0) | anything, "ch": st.just({"x": [1.0, None]}) | anything},
    optional={
        "every_ns": st.integers() | anything,
        "after_ns": st.lists(st.integers()) | anything,
        "x_beilun": anything,
        "kind": anything,
        "headerId": anything,
        "timestamp": st.just("2026-01-05T00:00:00Z") | anything,
        "orderId": st.just("o") | anything,
    },
)
tree = st.sampled_from(
    [
        PROCESS, "beilun/v1/s/a/l/m/birth", "beilun/v1/s/_link/c/progress", "beilun/v1/s/a/l/m/kpi",
        "uagv/v2/m/1/state", "uagv/v2/m/1/connection", "uagv/v2/m/1/order", "x/y", "beilun/v1/",
    ]
)  # fmt: skip


@given(topic=tree | st.text(max_size=30), payload=st.binary(max_size=200))
def test_bytes_are_read_or_refused(topic: str, payload: bytes) -> None:
    found = DECODER.receive(topic, payload, T0)
    assert not isinstance(found, Reject) or found.reason in REASONS


@given(topic=tree, said=near | anything)
def test_json_is_read_or_refused(topic: str, said: Any) -> None:
    found = DECODER.receive(topic, json.dumps(said).encode(), T0)
    assert not isinstance(found, Reject) or found.reason in REASONS


def test_deep_nesting_is_refused() -> None:
    for topic in (PROCESS, "uagv/v2/m/1/state"):
        found = DECODER.receive(topic, b"[" * 100_000, T0)
        assert isinstance(found, Reject)


cells = st.none() | st.floats(-1e6, 1e6).map(lambda value: round(value, 6))


@given(values=st.lists(cells, min_size=1, max_size=30), step=st.integers(1, 10**10))
def test_columns_come_back_as_they_were_sent(values: list[float | None], step: int) -> None:
    regular = {"t_ns": T0, "every_ns": step, "ch": {"x": values}}
    offsets = {"t_ns": T0, "after_ns": [step * i for i in range(len(values))], "ch": {"x": values}}
    read = []
    for said in (regular, offsets):
        found = DECODER.receive(PROCESS, json.dumps(said).encode(), T0)
        assert not isinstance(found, Reject)
        [record] = found
        assert isinstance(record.message, Batch)
        read.append(record.message)
    for batch in read:
        assert batch.asset == Asset("s", "a", "l", "m")
        assert batch.t_ns.tolist() == [T0 + step * i for i in range(len(values))]
        column = [None if np.isnan(v) else v for v in batch.channels["x"].tolist()]
        assert column == values


def test_births_and_progress_are_read() -> None:
    stamps = {
        "run": "r",
        "conn": "c",
        "cseq": 1,
        "boot": 1,
        "seq": 1,
        "sent_ns": T0,
        "arrival_ns": T0,
    }
    said = {"kind": "press", "t_ns": T0, "ch": {"x": "mm"}, "x_beilun": stamps}
    found = DECODER.receive("beilun/v1/s/a/l/m/birth", json.dumps(said).encode(), 0)
    assert not isinstance(found, Reject)
    birth = found[0].message
    assert isinstance(birth, Birth)
    assert (birth.kind, dict(birth.channels), birth.meta.conn) == ("press", {"x": "mm"}, "s/c")
    progress = {"run": "r", "arrival_ns": T0, "next_cseq": 1, "made": 0, "lost": {}, "shed": 0}
    found = DECODER.receive("beilun/v1/s/_link/c/progress", json.dumps(progress).encode(), 0)
    assert not isinstance(found, Reject)
    assert isinstance(found[0].message, Progress)
    assert found[0].message.conn == "s/c"


def test_a_foreign_agv_needs_nothing_of_ours() -> None:
    """A VDA 5050 2.1 state without our stamps: the vehicle stands on its own, by its serial."""
    said = {
        "headerId": 7, "timestamp": "2026-01-05T00:00:01.250Z", "version": "2.1.0",
        "manufacturer": "KIT", "serialNumber": "0001", "orderId": "o-1", "orderUpdateId": 0,
        "lastNodeId": "n1", "lastNodeSequenceId": 0, "driving": True, "actionStates": [],
        "nodeStates": [{"nodeId": "n2", "sequenceId": 2, "released": True}], "edgeStates": [],
        "batteryState": {"batteryCharge": 80.0, "charging": False}, "operatingMode": "AUTOMATIC",
        "errors": [], "safetyState": {"eStop": "NONE", "fieldViolation": False},
    }  # fmt: skip
    topic = "uagv/v2/KIT/0001/state"
    [batch] = VDA.decode(Envelope("vda5050", topic, T0 + 2 * 10**9, json.dumps(said).encode()))
    assert isinstance(batch, Batch)
    assert batch.asset == Asset("vda5050", "agv", "fleet", "0001")
    assert batch.t_ns.tolist() == [T0 + 1_250_000_000]
    assert batch.channels["mission"].tolist() == [1.0]
    assert batch.channels["battery_ratio"].tolist() == [0.8]
    assert np.isnan(batch.channels["x_m"]).all()


@given(delay=st.integers(LOW_NS + 1, 10**12))
def test_a_bin_is_half_a_per_cent_wide_and_ten_ms_is_an_edge(delay: int) -> None:
    [number] = bin_of(np.array([delay])).tolist()
    assert abs(delay_of(number) - delay) <= 0.005 * delay
    assert (number <= 4 * 232) == (delay <= 10_000_000)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "+", "#", "_x", "ü"])
def test_names_that_are_no_topic_level_are_refused(name: str) -> None:
    assert not topics.is_level(name)
