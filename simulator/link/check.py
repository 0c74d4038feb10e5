"""The link against published measurements and its own promises: a list of findings.

The measurements are in ``simulator/link/measured``; nothing but this file reads them. A finding
without a verdict (``ok`` is None) is a number to report: no target is stated for it.

Figures that no constant was adjusted on are told apart (``held_out``); they are the ones that say
something about another network.

L3 joins the few quantiles of a table by straight lines. For the mid-band downlink (nine in ten near
5.3 ms, one in ten near 9.6) the lines put mass where there was none, and the published sample is
itself further from them than L3 allows. So the distance is also told against the sample's finer
quantiles, which were published later.
"""

import tomllib
from collections.abc import Iterator
from importlib.resources import files
from typing import Annotated, Literal, NamedTuple, Protocol

import numpy as np
from pydantic import Field

from config.faults import Congestion
from config.model import Spec
from config.units import NS_PER_MS, NS_PER_S
from simulator.link.columns import Floats, Ints
from simulator.link.journey import Journey
from simulator.link.layout import Layout, load_layout
from simulator.link.link import Bearer, Direction, Link
from simulator.link.profile import Cellular, PositiveMs, Profile, Tcp, Udp, load_profile
from simulator.link.surroundings import Surroundings

_T0_NS = 1_767_571_200 * NS_PER_S
_N = 200_000
_STALL_NS = 100 * NS_PER_MS
_LONG_NS = 24 * 3_600 * NS_PER_S
_NARROW_MBPS = 5.0
_VEHICLES = 4
_STAND_NS = 600 * NS_PER_S

Pairs = Annotated[tuple[Annotated[tuple[float, float], Field(strict=False)], ...],
                  Field(strict=False)]  # fmt: skip


class Measured(Spec):
    """One published distribution of one-way delays."""

    id: str
    networks: Annotated[tuple[str, ...], Field(strict=False)]
    adjusted: bool = True
    """Whether constants of these profiles were adjusted with this in sight."""
    direction: Literal["up", "down", "both"]
    """``both``: there and back."""
    n_bytes: Annotated[int, Field(gt=0)]
    period_ms: PositiveMs
    mean_ms: PositiveMs
    sd_ms: PositiveMs
    quantiles_ms: Pairs
    """Per cent and delay."""
    above_ms: Pairs = ()
    """Delay and the share that took longer."""
    detail_ms: Pairs = ()
    """The same law at more points."""
    lag1: float | None = None
    """Autocorrelation of neighbours."""
    misfit: str = ""
    """Where the model is known not to follow, and why."""


class Finding(NamedTuple):
    """One line of the comparison."""

    id: str
    what: str
    measured: float | None
    modelled: float
    target: str
    ok: bool | None
    held_out: bool = False
    """No constant was adjusted with the published figure in sight."""
    why: str = ""
    """What stands between the two."""


def measured(name: str) -> list[Measured]:
    """What was published about the network that a profile stands for."""
    found: list[Measured] = []
    folder = files("simulator.link") / "measured"
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".toml"):
            links = tomllib.loads(file.read_text("utf-8"))["link"]
            found += [Measured.model_validate(link) for link in links]
    return [each for each in found if name in each.networks]


def check(profile_name: str, seed: int) -> list[Finding]:
    """L1 to L11 and other published figures (B, H), as far as they concern this profile."""
    profile = load_profile(profile_name)
    found: list[Finding] = []
    for each in measured(profile_name):
        found += _against(each, profile, seed)
    if profile.transport.kind == "tcp":
        found += _stalls(profile, seed)
        found += _acknowledged(profile, seed)
    if isinstance(profile.radio, Cellular):
        found += _moving(profile, seed, load_layout("ikd"))
        found += _loaded(profile, seed)
        found += _isolated(profile, profile.radio, seed)
    if profile_name == "private-5g" and isinstance(profile.radio, Cellular):
        found += _midband(profile, profile.radio, seed)
    return sorted(found, key=lambda f: (f.held_out, "LBH".index(f.id[0]), int(f.id[1:])))


def _stream(period_ms: float, n: int, n_bytes: int) -> tuple[Ints, Ints]:
    t_ns = _T0_NS + np.arange(n, dtype=np.int64) * round(period_ms * NS_PER_MS)
    return t_ns, np.full(n, n_bytes, np.int64)


def _delays_ms(bearer: Bearer, period_ms: float, n: int, n_bytes: int) -> Floats:
    t_ns, sizes = _stream(period_ms, n, n_bytes)
    arrival_ns = bearer.send_many(t_ns, sizes)
    delays: Floats = (arrival_ns - t_ns)[arrival_ns >= 0] / NS_PER_MS
    return delays


def _bare(profile: Profile) -> Profile:
    """Without a transport that stalls: the radio's own delays."""
    return profile.model_copy(update={"transport": Udp(kind="udp"), "drop_ratio": 0.0})


# --- L1 to L5, L9, L10 ---------------------------------------------------------------------------

_JUDGED = {
    "L1": ({50.0, 95.0, 99.0, 99.9}, 1.1),
    "L2": ({50.0, 95.0, 99.0, 99.9}, 1.1),
    "L5": ({50.0, 99.9}, 1.1),
    "L9": ({50.0, 99.0}, 1.5),
    "L10": ({50.0, 99.0}, 1.1),
    "H1": ({50.0, 95.0, 99.0}, 1.5),  # of another network: the factor of the comparators
}


def _against(each: Measured, profile: Profile, seed: int) -> Iterator[Finding]:
    bare = _bare(profile)
    directions = (
        list(Direction) if each.direction == "both" else [Direction[each.direction.upper()]]
    )
    ms: Floats = np.sum(
        [
            _delays_ms(Link(bare, seed).bearer("check", way), each.period_ms, _N, each.n_bytes)
            for way in directions
        ],
        axis=0,
    )
    judged, factor = _JUDGED.get(each.id, (set[float](), 1.0))
    out = not each.adjusted
    for per_cent, target in each.quantiles_ms:
        if per_cent in (50.0, 90.0, 95.0, 99.0, 99.9):
            got = float(np.percentile(ms, per_cent))
            ok = target / factor <= got <= target * factor if per_cent in judged else None
            words = f"within a factor {factor:g}" if per_cent in judged else ""
            what = f"{each.direction} p{per_cent:g} [ms]"
            yield Finding(each.id, what, target, got, words, ok, out, each.misfit)
    for limit, share in each.above_ms:
        got = float(np.mean(ms > limit))
        what = f"{each.direction} share above {limit:g} ms"
        if each.id == "L1" and limit == 8.0:
            yield Finding("L4", what, share, got, "0.08 to 0.12", 0.08 <= got <= 0.12)
        else:
            yield Finding(each.id, what, share, got, "", None, out, each.misfit)
    if each.detail_ms:
        table: Floats = np.array(each.quantiles_ms).T
        detail: Floats = np.array(each.detail_ms).T
        what = f"{each.direction} KS distance, quantiles joined by lines"
        own = _apart(detail[1], detail[0] / 100.0, table[1], table[0] / 100.0)
        why = f"the published sample is itself {own:.2f} from these lines" if own >= 0.1 else ""
        line = _ks(ms, table[1], table[0] / 100.0)
        yield Finding("L3", what, own, line, "below 0.10", line < 0.10, why=why)
        what = f"{each.direction} KS distance, all published quantiles"
        fine = _ks(ms, detail[1], detail[0] / 100.0)
        yield Finding("L3", what, None, fine, "", None)
    if each.lag1 is not None:
        lag = _irregular_lag1(bare, seed, directions, each.n_bytes)
        what = f"{each.direction} lag-1 autocorrelation at about 1 Hz, standing"
        ok = abs(lag - each.lag1) <= 0.05
        yield Finding(each.id, what, each.lag1, lag, "within 0.05", ok, held_out=True)


def _apart(x_ms: Floats, cdf: Floats, line_ms: Floats, line_cdf: Floats) -> float:
    """Kolmogorov's distance of two laws, at the first one's points."""
    line = np.interp(x_ms, line_ms, line_cdf)
    return float(np.max(np.abs(line - cdf)))


def _irregular_lag1(
    profile: Profile, seed: int, directions: list[Direction], n_bytes: int
) -> float:
    """Of a stream whose gaps are drawn, so that no frame can lock to it."""
    gaps_ns = np.random.default_rng([seed, 0x1A6]).integers(
        NS_PER_S // 2, 3 * NS_PER_S // 2, 50_000
    )
    t_ns = _T0_NS + np.cumsum(gaps_ns)
    delays: Floats = np.zeros(len(t_ns))
    for way in directions:
        arrival_ns = (
            Link(profile, seed).bearer("check", way).send_many(t_ns, np.full_like(t_ns, n_bytes))
        )
        delays += np.where(arrival_ns >= 0, arrival_ns - t_ns, np.nan)
    delays = delays[~np.isnan(delays)]
    return float(np.corrcoef(delays[:-1], delays[1:])[0, 1])


def _ks(ms: Floats, x_ms: Floats, cdf: Floats) -> float:
    """Kolmogorov's distance of a sample from a law given at points."""
    law = np.interp(np.sort(ms), x_ms, cdf)
    step = np.arange(len(ms) + 1) / len(ms)
    return float(max(np.max(step[1:] - law), np.max(law - step[:-1])))


# --- L6 ------------------------------------------------------------------------------------------


def _moving(profile: Profile, seed: int, layout: Layout) -> Iterator[Finding]:
    """Autocorrelation of vehicles' delays at 20 Hz, driving from cell to cell at 1.2 m/s; beside it
    what part of that a standing device has too, and what weak coverage makes of it."""
    weak = layout.model_copy(update={"cell": layout.cell[8:9]})
    cases = [
        ("on the move, radio", _bare(profile), layout, 1.2),
        ("standing, radio", _bare(profile), layout, 0.0),
        ("on the move among the blocks of one cell, radio", _bare(profile), weak, 1.2),
    ]
    if profile.transport.kind == "tcp":
        cases.insert(0, ("on the move, TCP", profile, layout, 1.2))
    for words, network, cells, speed_mps in cases:
        link = Link(network, seed, cells)
        for direction in Direction:
            lags: list[float] = []
            for number in range(_VEHICLES):
                bearer = link.bearer(f"agv-{number}", direction)
                tour_ns = tour(bearer, layout, speed_mps)
                ms = _delays_ms(bearer, 50.0, tour_ns // (50 * NS_PER_MS), 100)
                lags.append(float(np.corrcoef(ms[:-1], ms[1:])[0, 1]))
            lag = float(np.mean(lags))
            what = f"{direction.name.lower()} lag-1 autocorrelation at 20 Hz, {words}"
            judged = words.startswith("on the move,")
            yield Finding(
                "L6",
                what,
                None,
                lag,
                "above 0.1" if judged else "",
                lag > 0.1 if judged else None,
            )


class Moved(Protocol):
    """A bearer, or the journey of one."""

    def move(self, t_ns: int, x_m: float, y_m: float) -> None:
        """See ``Bearer.move``."""
        ...


def tour(bearer: Moved, layout: Layout, speed_mps: float, start_ns: int = _T0_NS) -> int:
    """Drive past every cell and back to the first, or stand there; how long that takes."""
    here, t_ns = layout.cell[0], start_ns
    bearer.move(t_ns, here.x_m, here.y_m)
    if not speed_mps:
        return _STAND_NS
    for there in (*layout.cell[1:], layout.cell[0]):
        way_m = float(np.hypot(there.x_m - here.x_m, there.y_m - here.y_m))
        t_ns += round(way_m / speed_mps * NS_PER_S)
        bearer.move(t_ns, there.x_m, there.y_m)
        here = there
    return t_ns - start_ns


# --- L7 ------------------------------------------------------------------------------------------


def _stalls(profile: Profile, seed: int) -> Iterator[Finding]:
    assert isinstance(profile.transport, Tcp)
    t_ns, sizes = _stream(10.0, _N, 100)
    arrival_ns = Link(profile, seed).bearer("check", Direction.UP).send_many(t_ns, sizes)
    delay_ns = arrival_ns - t_ns
    first = np.flatnonzero((np.diff(arrival_ns, prepend=0) > 0) & (delay_ns > _STALL_NS))
    share = len(first) / _N
    judged = isinstance(profile.radio, Cellular)  # contention is not a stall, and a cable is good
    ok = share <= 3e-3 if judged else None
    target = "at most 0.003" if judged else ""
    yield Finding("L7", "delays above 100 ms per message, TCP", None, share, target, ok)
    if len(first):
        trip_ms = sum(
            float(np.median(_delays_ms(Link(_bare(profile), seed).bearer("check", d), 10.0, 2_000,
                                       100)))
            for d in Direction
        )  # fmt: skip
        expected = profile.transport.min_rto_ms + trip_ms
        got = float(np.median(delay_ns[first])) / NS_PER_MS
        yield Finding("L7", "first delay of a stall, timeout and round trip [ms]", expected, got,
                      "within a factor 1.1", expected / 1.1 <= got <= expected * 1.1)  # fmt: skip
    backward = int(np.sum(np.diff(arrival_ns) < 0))
    yield Finding("L7", "messages out of order", None, backward, "0", backward == 0)


def _acknowledged(profile: Profile, seed: int) -> Iterator[Finding]:
    """MQTT's QoS 1 at 10 Hz: when the sender knows, and whether the order holds."""
    t_ns, sizes = _stream(100.0, _N // 10, 100)
    sent = Link(profile, seed).confirmed("check", Direction.UP)
    arrival_ns, acked_ns = sent.send_many(t_ns, sizes)
    for per_cent in (50, 99):
        took_ms = float(np.percentile(acked_ns - t_ns, per_cent)) / NS_PER_MS
        what = f"QoS 1 up, acknowledged p{per_cent} [ms]"
        yield Finding("L7", what, None, took_ms, "", None)
    backward = int(np.sum(np.diff(arrival_ns) < 0) + np.sum(acked_ns < arrival_ns))
    what = "QoS 1 up, out of order or acknowledged before it came"
    yield Finding("L7", what, None, backward, "0", backward == 0)


# --- L8, L11 -------------------------------------------------------------------------------------


def _video(load_mbps: float, flow_mbps: float, slice: str = "") -> Congestion:
    return Congestion(
        kind="congestion",
        after=1,
        length=_LONG_NS,
        flows=max(round(load_mbps / flow_mbps), 1),
        flow_mbps=flow_mbps,
        direction="both",
        slice=slice,
    )


def _sharing(radio: Cellular, rule: Literal["priority", "none"]) -> Cellular:
    return radio.model_copy(update={"sharing": radio.sharing.model_copy(update={"rule": rule})})


def _loaded(profile: Profile, seed: int) -> Iterator[Finding]:
    """5 Mbit/s, seven tenths full, no slices, a steady signal: 1,500 bytes every 10 ms and every
    50 ms. (In a fade of a few dB the device alone would overload so narrow a cell.)"""
    assert isinstance(profile.radio, Cellular)
    steady = profile.radio.shadowing.model_copy(update={"sd_db": 0.0, "margin_db": 30.0})
    radio = profile.radio.model_copy(update={"shadowing": steady})
    for direction in Direction:
        part = direction.name.lower()
        carrier = radio.up if direction is Direction.UP else radio.down
        narrow = _sharing(radio, "none").model_copy(
            update={part: carrier.model_copy(update={"rate_mbps": _NARROW_MBPS})}
        )
        network = _bare(profile).model_copy(update={"radio": narrow})
        link = Link(network, seed, faults=[_video(0.7 * _NARROW_MBPS, 0.25)], start_ns=_T0_NS)
        fast, slow = (
            float(np.mean(_delays_ms(link.bearer("check", direction), period_ms, 20_000, 1_500)))
            for period_ms in (10.0, 50.0)
        )
        what = f"{part} mean at 10 ms over mean at 50 ms, narrow loaded cell"
        yield Finding("L8", what, None, fast / slow, "clearly above 1", fast / slow > 1.1)


def _isolated(profile: Profile, radio: Cellular, seed: int) -> Iterator[Finding]:
    """What saturating video does to the p99 of the most urgent slice."""
    if not {"control", "video"} <= radio.slices.named.keys():
        return
    rules: dict[Literal["priority", "none"], str] = {"priority": "slices on", "none": "slices off"}
    for rule, words in rules.items():
        network = _bare(profile).model_copy(update={"radio": _sharing(radio, rule)})
        for direction in Direction:
            carrier = radio.up if direction is Direction.UP else radio.down
            full = [_video(1.2 * carrier.rate_mbps, 4.0, "video")]
            idle, busy = (
                float(np.percentile(_delays_ms(link.bearer("check", direction, "control"), 10.0,
                                               20_000, 100), 99))
                for link in (Link(network, seed, start_ns=_T0_NS),
                             Link(network, seed, faults=full, start_ns=_T0_NS))
            )  # fmt: skip
            what = f"{direction.name.lower()} control p99 under saturating video over idle, {words}"
            on = rule == "priority"
            yield Finding("L11", what, None, busy / idle, "at most 1.1" if on else "above 1.1",
                          (busy / idle <= 1.1) == on)  # fmt: skip


# --- other published figures ---------------------------------------------------------------------


def _midband(profile: Profile, radio: Cellular, seed: int) -> Iterator[Finding]:
    """Figures of other mid-band networks, beside what the profile gives under like traffic."""
    bare = _bare(profile)

    def ms(way: Direction, period_ms: float, n: int = 50_000, n_bytes: int = 100) -> Floats:
        return _delays_ms(Link(bare, seed).bearer("check", way), period_ms, n, n_bytes)

    up, down = ms(Direction.UP, 10.0), ms(Direction.DOWN, 10.0)
    share = float(np.mean((down >= 4.0) & (down <= 10.0)))
    yield Finding("H2", "down share within 4 to 10 ms (Rischke)", 0.95, share,
                  "within a factor 1.1", 0.95 / 1.1 <= share <= 0.95 * 1.1, True)  # fmt: skip
    most_ms = profile.core.fixed_ms + profile.core.spread_ms
    yield Finding("H3", "longest time in the core and its switch [ms] (Rischke)", 0.4, most_ms,
                  "", None, True, "the model's has a switch more, and no outliers")  # fmt: skip
    extra_ms = float(np.median(ms(Direction.UP, 1_000.3, 20_000)) - np.median(up))
    yield Finding("H4", "up median at 1 Hz less that at 100 Hz, the request [ms]", None, extra_ms,
                  "2 to 10", 2.0 <= extra_ms <= 10.0, True)  # fmt: skip
    for words, delays in (("up", up), ("down", down)):
        jump_ms = float(np.mean(np.abs(np.diff(delays))))
        yield Finding("H5", f"{words} mean delay variation between neighbours [ms] (Rischke)", None,
                      jump_ms, "0.5 to 5", 0.5 <= jump_ms <= 5.0, True)  # fmt: skip
    best_ms = float(np.median(ms(Direction.DOWN, 10.0, n_bytes=125)))
    yield Finding("H6", "down p50 at 100 kbit/s [ms] (Kottkamp: best)", 7.0, best_ms, "below 7",
                  best_ms < 7.0, True)  # fmt: skip
    worst_ms = float(np.percentile(ms(Direction.UP, 0.7467, n_bytes=1_400), 99.9))
    yield Finding("H7", "up p99.9 at 15 Mbit/s [ms] (Kottkamp: worst)", 18.0, worst_ms, "", None,
                  True, "a public non-standalone network with others' traffic")  # fmt: skip
    gaps_ms = handover_gaps_ms(profile, seed, load_layout("ikd"))
    failed = gaps_ms >= radio.mobility.reestablish.fixed_ms
    share = 1.0 - float(np.mean(failed))
    median_ms = float(np.median(gaps_ms[~failed]))
    yield Finding("H8", "median gap of a handover on a tour [ms] (vendor)", 35.0, median_ms,
                  "below 50", median_ms < 50.0)  # fmt: skip
    yield Finding("H9", "share of handovers that succeed on a tour (vendor)", 0.96, share,
                  "above 0.96", share > 0.96)  # fmt: skip


def handover_gaps_ms(profile: Profile, seed: int, layout: Layout, vehicles: int = 12) -> Floats:
    """Every gap that these vehicles meet on a tour, to 2 ms."""
    world = Surroundings(profile, seed, layout, (), 0).world
    assert world is not None
    found: list[Floats] = []
    for number in range(vehicles):
        journey = Journey(world, number)
        tour_ns = tour(journey, layout, 1.2)
        t_ns = _T0_NS + np.arange(tour_ns // (2 * NS_PER_MS), dtype=np.int64) * (2 * NS_PER_MS)
        until_ns = journey.many(t_ns)[2]
        first = np.flatnonzero((until_ns > 0) & (np.append(0, until_ns[:-1]) != until_ns))
        found.append((until_ns - t_ns)[first] / NS_PER_MS)
    return np.concatenate(found)
