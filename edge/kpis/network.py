"""One-way delay of messages: quantiles, and the share within 10 ms."""

from collections.abc import Callable

from config.units import NS_PER_MS
from edge.kpi import Kpi, bins, quantile, ratio
from edge.measures import Facts
from edge.measures.delays import Delays
from ingest.bins import PER_DECADE, delay_of

_DELAYS = Delays()
TEN_MS_BIN = 4 * PER_DECADE
"""The last bin whose delays are all within 10 ms: four decades above 1 µs."""


def _quantile_ms(share: float) -> Callable[[Facts], float | None]:
    def value(facts: Facts) -> float | None:
        found = quantile(bins(facts, "delay_bins"), share)
        return None if found is None else delay_of(found) / NS_PER_MS

    return value


def within_10ms(facts: Facts) -> float | None:
    histogram = bins(facts, "delay_bins")
    good = sum(count for number, count in histogram.items() if number <= TEN_MS_BIN)
    return ratio(good, sum(histogram.values()))


def _delay(name: str, share: float, words: str) -> Kpi:
    return Kpi(
        name=name, unit="ms", better="down", kinds=(), needs=(),
        summary=f"One-way delay {words}, per message, bins of 0.5 % relative error.",
        formula=f"quantile {share} of arrival - sending", clause="3GPP TS 22.261 latency",
        measures=(_DELAYS,), value=_quantile_ms(share), rolls_up=True,
    )  # fmt: skip


KPIS = (
    _delay("delay_p50", 0.5, "half the messages keep"),
    _delay("delay_p99", 0.99, "99 % of messages keep"),
    _delay("delay_p999", 0.999, "99.9 % of messages keep"),
    Kpi(
        name="within_10ms", unit="1", better="up", kinds=(), needs=(),
        summary="Share of messages whose one-way delay is at most 10 ms.",
        formula="messages within 10 ms / messages", clause="3GPP TS 22.104 latency",
        measures=(_DELAYS,), value=within_10ms, rolls_up=True,
    ),
)  # fmt: skip
