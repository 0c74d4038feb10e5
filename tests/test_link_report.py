"""The modelled link at the end of a run."""

from beilun.link_report import link_lines, observers, without_observers
from config.units import NS_PER_S
from edge.policy import Policy
from edge.rows import Row
from ingest.messages import Asset

URLLC, BULK = (Asset("s", "network", "slices", name) for name in ("urllc", "bulk"))
CELL = Asset("s", "network", "cells", "c1")
PRESS = Asset("s", "network", "slices", "press")
"""A machine of a plant that calls its areas so."""


def row(asset: Asset, kpi: str, value: float | None, minute: int = 0) -> Row:
    return Row(asset, kpi, minute * 60 * NS_PER_S, 60 * NS_PER_S, value, 1, 0, "ms")


ROWS = [
    row(URLLC, "messages", 5_000, minute=1), row(URLLC, "messages", 7),
    row(URLLC, "delay_p50", 4.5), row(URLLC, "within_10ms", 0.9998),
    row(URLLC, "radio_delay", 3.25),
    row(BULK, "messages", None), row(BULK, "radio_delay", None),
    row(CELL, "messages", 5_007), row(PRESS, "oee", 0.7), row(PRESS, "delay_p50", 4.5),
]  # fmt: skip


def test_each_slice_has_a_line_of_its_last_window() -> None:
    title, head, bulk, urllc, window = link_lines(ROWS, Policy())
    assert title == "Modelled link (virtual time)"
    assert head.split()[:3] == ["slice", "messages", "p50"]
    assert urllc.split() == ["urllc", "5000", "4.50", *"–", "99.98", *"–", "3.25", *"––"]
    assert bulk.split() == ["bulk", *"––––––––"]
    assert "2s to 12s after a sample of the last 10s" in window


def test_nothing_is_told_of_a_run_without_slices() -> None:
    assert link_lines([row(PRESS, "oee", 0.7), row(CELL, "messages", 1)], Policy()) == []


def test_the_networks_own_assets_are_known_by_their_kpis() -> None:
    assert observers(ROWS) == {URLLC, BULK, CELL}
    assert {r.asset for r in without_observers(ROWS)} == {PRESS}
