"""The network: one-way delay, its split by hop, clocks, and the service of control traffic."""

from collections.abc import Callable, Iterator
from fractions import Fraction

from config.units import NS_PER_MS
from edge.kpi import OBSERVERS, Accuracy, Kpi, bins, number, quantile, ratio
from edge.measures import Fact, Facts
from edge.measures.delays import DOWNLINK, MONITORED, UPLINK, Delays, Directed
from edge.measures.situations import Component, Situation, Situations
from edge.measures.sums import Sums
from edge.measures.values import Values
from ingest.bins import PER_DECADE, delay_of

_DELAYS = Delays()
_TOLD = ("bin", "count")
"""Delays of control traffic, which come as histograms."""
_DIRECTED = {way: Directed(way) for way in (UPLINK, DOWNLINK)}
_BINNED = 0.005
"""Relative error of a bin."""
TEN_MS_BIN = 4 * PER_DECADE
"""The last bin whose delays are all within 10 ms: four decades above 1 µs."""


def _quantile_ms(share: float, name: str = "delay") -> Callable[[Facts], float | None]:
    def value(facts: Facts) -> float | None:
        found = quantile(bins(facts, f"{name}_bins"), share)
        return None if found is None else delay_of(found) / NS_PER_MS

    return value


def _within(name: str = "delay") -> Callable[[Facts], float | None]:
    def value(facts: Facts) -> float | None:
        histogram = bins(facts, f"{name}_bins")
        good = sum(count for bin_, count in histogram.items() if bin_ <= TEN_MS_BIN)
        return ratio(good, sum(histogram.values()))

    return value


def _delay(name: str, share: float, words: str) -> Kpi:
    return Kpi(
        name=name, unit="ms", better="down", kinds=(), needs=(),
        summary=f"One-way delay {words}, per message, bins of 0.5 % relative error.",
        formula=f"quantile {share} of arrival - sending", clause="3GPP TS 22.261 latency",
        measures=(_DELAYS,), value=_quantile_ms(share), rolls_up=True,
        histograms=_TOLD,
        accuracy=Accuracy(relative=_BINNED, cut_s=None),
    )  # fmt: skip


def _directed(way: str) -> Iterator[Kpi]:
    """What a network's own assets tell of one direction."""
    measure = _DIRECTED[way]
    for name, share, words in (
        ("p50", 0.5, "half the messages"),
        ("p99", 0.99, "99 % of messages"),
    ):
        yield Kpi(
            name=f"{way}_delay_{name}", unit="ms", better="down", kinds=OBSERVERS,
            needs=measure.channels,
            summary=f"One-way delay {words} keep on the {way}, bins of 0.5 % relative error.",
            formula=f"quantile {share} of arrival - sending", clause="3GPP TS 22.261 latency",
            measures=(measure,), value=_quantile_ms(share, measure.name),
            accuracy=Accuracy(relative=_BINNED),
        )  # fmt: skip
    yield Kpi(
        name=f"{way}_within_10ms", unit="1", better="up", kinds=OBSERVERS,
        needs=measure.channels,
        summary=f"Share of messages on the {way} whose one-way delay is at most 10 ms.",
        formula="messages within 10 ms / messages", clause="3GPP TS 22.104 latency",
        measures=(measure,), value=_within(measure.name),
    )  # fmt: skip


def clock_skew(facts: Facts) -> float | None:
    """A delay is never below zero, so a clock is ahead by at least sending less arrival."""
    stamps = bins(facts, "stamp_bins")
    return -delay_of(min(stamps)) / NS_PER_MS if stamps else None


def early_messages(facts: Facts) -> float | None:
    early = number(facts, "early")
    return None if early is None else float(early)


def messages(facts: Facts) -> float | None:
    passed = number(facts, MONITORED)
    return None if passed is None else float(passed)


HOPS = ("endpoint", "radio", "core", "transport")
"""Parts of a message's delay: processing, the radio, the way between station and MEC, and waiting
behind a lost segment."""


def _hop(hop: str, words: str) -> Kpi:
    channels = (MONITORED, f"hop_{hop}_ns")

    def value(facts: Facts) -> float | None:
        return ratio(number(facts, channels[1]), number(facts, MONITORED), Fraction(1, NS_PER_MS))

    return Kpi(
        name=f"{hop}_delay", unit="ms", better="down", kinds=OBSERVERS, needs=channels,
        summary=f"Mean time of a message {words}.",
        formula=f"sum of {hop} times / messages", clause="3GPP TS 28.552, TS 23.501 5.33.3",
        measures=(Sums(f"{hop}_sums", channels, stream="link"),), value=value,
    )  # fmt: skip


def _describe(
    times: Iterator[tuple[Situation, int]], counts: Iterator[tuple[int, Situation, int]]
) -> dict[str, Fact]:
    facts: dict[str, int] = {}
    for situation, spent_ns in times:
        for up in situation:
            if up is not None:
                facts["service_known_ns"] = facts.get("service_known_ns", 0) + spent_ns
                facts["service_up_ns"] = facts.get("service_up_ns", 0) + up * spent_ns
    for _, _, count in counts:
        facts["service_failures"] = facts.get("service_failures", 0) + count
    return dict(facts)


_WAYS = ("uplink", "downlink")
_SERVICE = Situations(
    "service",
    tuple(Component(f"{way}_up") for way in _WAYS),
    tuple(f"{way}_failures" for way in _WAYS),
    _describe,
)
_MISSES = tuple(Values(f"{way}_misses", 1) for way in _WAYS)
_SERVED = tuple(f"{way}_{what}" for way in _WAYS for what in ("up", "failures"))


def service_availability(facts: Facts) -> float | None:
    return ratio(number(facts, "service_up_ns"), number(facts, "service_known_ns"))


def service_failures(facts: Facts) -> float | None:
    if not number(facts, "service_known_ns"):
        return None
    return float(number(facts, "service_failures") or 0)


def misses_in_a_row(facts: Facts) -> float | None:
    runs = [max(seen) for way in _WAYS if (seen := bins(facts, f"{way}_misses_bins"))]
    return float(max(runs)) if runs else None


KPIS = (
    Kpi(
        name="service_availability", unit="1", better="up", kinds=(), needs=_SERVED,
        summary="Share of time that control traffic is up, both ways; down once nothing came for "
        "a transfer interval and the survival time.",
        formula="up time / known time", clause="3GPP TS 22.104 communication service availability",
        measures=(_SERVICE,), value=service_availability, rolls_up=True,
    ),
    Kpi(
        name="service_failures", unit="{event}", better="down", kinds=(), needs=_SERVED,
        summary="How often control traffic went down, both ways together.",
        formula="falls of the service", clause="3GPP TS 22.104 communication service reliability",
        measures=(_SERVICE,), value=service_failures, rolls_up=True,
    ),
    Kpi(
        name="misses_in_a_row", unit="{message}", better="down", kinds=(),
        needs=tuple(f"{way}_misses" for way in _WAYS),
        summary="Longest run of control messages that took more than 10 ms, either way.",
        formula="max of consecutive misses", clause="3GPP TS 23.501 packet delay budget, 5QI 82/83",
        measures=_MISSES, value=misses_in_a_row, rolls_up=True, accuracy=Accuracy(cut_s=None),
    ),
    Kpi(
        name="messages", unit="{message}", better="", kinds=OBSERVERS, needs=(MONITORED,),
        summary="Messages that a cell, a slice or a group of devices passed on.",
        formula="messages", clause="3GPP TS 28.552",
        measures=(Sums("message_sum", (MONITORED,), stream="link"),), value=messages,
    ),
    _hop("endpoint", "in processing, of the device and of the network"),
    _hop("radio", "on the radio: queue, grant, slots, air, repeats, handovers"),
    _hop("core", "between the station and the MEC"),
    _hop("transport", "behind a segment that was lost and is sent again"),
    Kpi(
        name="clock_skew", unit="ms", better="", kinds=(), needs=(),
        summary="The least by which a sender's clock must be ahead of the edge's: minus the least "
        "delay as stamped. Above 0 the clock is wrong; far below the others', it is behind.",
        formula="max of sending - arrival", clause="3GPP TS 22.104 clock synchronicity",
        measures=(_DELAYS,), value=clock_skew, rolls_up=True, bounds=(None, None),
        accuracy=Accuracy(relative=_BINNED),
    ),
    Kpi(
        name="early_messages", unit="{message}", better="down", kinds=(), needs=(),
        summary="Messages that arrived before they were sent, as stamped: they tell of a clock and "
        "are in no delay.",
        formula="messages with arrival < sending", clause="3GPP TS 22.104 clock synchronicity",
        measures=(_DELAYS,), value=early_messages, rolls_up=True,
        histograms=_TOLD,
    ),
    _delay("delay_p50", 0.5, "half the messages keep"),
    _delay("delay_p99", 0.99, "99 % of messages keep"),
    _delay("delay_p999", 0.999, "99.9 % of messages keep"),
    Kpi(
        name="within_10ms", unit="1", better="up", kinds=(), needs=(),
        summary="Share of messages whose one-way delay is at most 10 ms.",
        formula="messages within 10 ms / messages", clause="3GPP TS 22.104 latency",
        measures=(_DELAYS,), value=_within(), rolls_up=True, accuracy=Accuracy(cut_s=None),
        histograms=_TOLD,
    ),
    *(kpi for way in _DIRECTED for kpi in _directed(way)),
)  # fmt: skip
