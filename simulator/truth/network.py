"""Truth of delays and services: of each device's own messages, and of what the network carried."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from config.units import NS_PER_MS
from simulator.device import Ints
from simulator.network import HOPS, Posted, Seen
from simulator.plant.control import Control
from simulator.truth.evidence import Family, Peaks, Readings, Sums, Values, over, where
from simulator.truth.windows import Run, Windows, any_of, as_is

_DEADLINE_NS = 10 * NS_PER_MS


def _of_service(s: Sums) -> Values:
    yield "service_availability", s.ratios("up", "time")
    yield "service_failures", [float(n) for n in s["falls"]]


def _of_misses(p: Peaks) -> Values:
    yield "misses_in_a_row", [None if n is None else float(n) for n in p.highest]


def _of_delays(r: Readings) -> Values:
    """The delay that a share of the messages keeps, in ms, and the share that keeps 10 ms."""
    shares = r.shares(500, 990, 999)
    for name, found in zip(("delay_p50", "delay_p99", "delay_p999"), shares, strict=True):
        yield name, _ms(found)
    yield "within_10ms", _in_time(r)


def _of_uplink(r: Readings) -> Values:
    return _of_way("uplink", r)


def _of_downlink(r: Readings) -> Values:
    return _of_way("downlink", r)


def _of_way(way: str, r: Readings) -> Values:
    for name, found in zip(("p50", "p99"), r.shares(500, 990), strict=True):
        yield f"{way}_delay_{name}", _ms(found)
    yield f"{way}_within_10ms", _in_time(r)


def _ms(found: Sequence[int | None]) -> list[float | None]:
    return [None if ns is None else ns / NS_PER_MS for ns in found]


def _in_time(r: Readings) -> list[float | None]:
    return [over(good, n) for good, n in zip(r.within(_DEADLINE_NS), r.n, strict=True)]


def _of_clocks(p: Peaks) -> Values:
    yield "clock_skew", _ms(p.highest)


def _of_early(s: Sums) -> Values:
    yield "early_messages", where(s["any"], s["early"])


def _of_hops(s: Sums) -> Values:
    yield "messages", where(s["n"], s["n"])
    for hop in HOPS:
        yield f"{hop}_delay", s.ratios(hop, "n", Fraction(1, NS_PER_MS))


def service(run: Run, control: Control, w: Windows) -> list[Family]:
    """Of a device's control traffic: whether it was served."""
    a, b = (run.spent(w, (s.up, as_is)) for s in control.services)
    failed, other = (w.events(s.failures) for s in control.services)
    sums = Sums({
        "up": [x + y for x, y in zip(a, b, strict=True)],
        "time": [2 * ns for ns in w.lengths],
        "falls": [x + y for x, y in zip(failed, other, strict=True)],
    })  # fmt: skip
    return [Family(sums, _of_service, pooled=True)]


def delays(posted: Posted, w: Windows, *, drawn: bool = False) -> list[Family]:
    """Of an asset's own messages by their sending, and of its control traffic by arrival. Where its
    heartbeats are ``drawn`` nobody knows how many messages in a row were late."""
    own = [Readings(w, posted.sent_ns, posted.arrival_ns - posted.sent_ns)]
    own += [Readings(w, arrival_ns, delay_ns) for arrival_ns, delay_ns in posted.control]
    whole = Readings.pooled(own)
    found = [Family(whole, _of_delays, pooled=True), *_clock(posted, whole.n, w)]
    if posted.control and not drawn:
        misses = [_misses(arrival_ns, delay_ns, w) for arrival_ns, delay_ns in posted.control]
        found.append(Family(Peaks.pooled(misses), _of_misses, pooled=True))
    return found


def _clock(posted: Posted, heard: Sequence[int], w: Windows) -> list[Family]:
    """What an asset's own stamps say, right or wrong."""
    ahead_ns = posted.stamped_ns - posted.arrival_ns
    peaks = Peaks.of(w, posted.sent_ns, ahead_ns)
    early = Readings(w, posted.sent_ns, any_of(ahead_ns)).totals
    sums = Sums({"any": heard, "early": early})
    return [Family(peaks, _of_clocks, pooled=True), Family(sums, _of_early, pooled=True)]


def carried(posted: Posted, seen: Seen, w: Windows) -> list[Family]:
    """Of a cell, a slice or a kind of device: what it carried, by arrival."""
    pane_ns = np.repeat(seen.pane_ns, seen.n)
    down = np.repeat(seen.down, seen.n)
    whole, *ways = (
        Readings(w, pane_ns[which], seen.delay_ns[which]) for which in (slice(None), ~down, down)
    )
    sums = {"n": whole.n}
    for hop, spent in zip(HOPS, seen.hops_ns, strict=True):
        sums[hop] = Readings(w, seen.pane_ns, spent).totals
    told = Readings(w, posted.sent_ns, posted.sent_ns).n
    heard = [x + y for x, y in zip(told, whole.n, strict=True)]
    return [
        Family(whole, _of_delays), Family(Sums(sums), _of_hops),
        *(Family(r, kpis) for r, kpis in zip(ways, (_of_uplink, _of_downlink), strict=True)),
        *_clock(posted, heard, w),
    ]  # fmt: skip


def _misses(arrival_ns: Ints, delay_ns: Ints, w: Windows) -> Peaks:
    """The longest run of messages beyond the deadline that a window saw the end or a part of."""
    late = delay_ns > _DEADLINE_NS
    place = np.arange(len(late))
    since = np.maximum.accumulate(np.where(late, -1, place)) if len(late) else place
    return Peaks.of(w, arrival_ns[late], (place - since)[late], idle=0)
