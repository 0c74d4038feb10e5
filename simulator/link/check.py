"""The link against published measurements and its own promises: a list of findings.

The measurements are in ``simulator/link/measured``; nothing but this file reads them. A finding
without a verdict (``ok`` is None) is a number to report: no target is stated for it.

Between two published quantiles nothing is known. L3 joins them by straight lines, which for the
mid-band downlink (nine in ten near 5.3 ms, one in ten near 9.9) puts mass where there was none: the
line's mean is not the published one. So the distance is also told against the smoothest law, in the
sense of greatest entropy, that has the published quantiles, mean and standard deviation.
"""

import tomllib
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

from config.faults import Congestion
from config.model import Spec
from config.units import NS_PER_MS, NS_PER_S
from simulator.link.columns import Floats, Ints
from simulator.link.layout import Layout, load_layout
from simulator.link.link import Bearer, Direction, Link
from simulator.link.profile import Cellular, PositiveMs, Profile, Tcp, Udp, load_profile

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
    direction: Literal["up", "down"]
    n_bytes: Annotated[int, Field(gt=0)]
    period_ms: PositiveMs
    mean_ms: PositiveMs
    sd_ms: PositiveMs
    quantiles_ms: Pairs
    """Per cent and delay."""
    above_ms: Pairs = ()
    """Delay and the share that took longer."""


class Finding(NamedTuple):
    """One line of the comparison."""

    id: str
    what: str
    measured: float | None
    modelled: float
    target: str
    ok: bool | None


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
    """L1 to L11, as far as they concern this profile."""
    profile = load_profile(profile_name)
    found: list[Finding] = []
    for each in measured(profile_name):
        found += _against(each, profile, seed)
    if profile.transport.kind == "tcp":
        found += _stalls(profile, seed)
    if isinstance(profile.radio, Cellular):
        found += _moving(profile, seed, load_layout("ikd"))
        found += _loaded(profile, seed)
        found += _isolated(profile, profile.radio, seed)
    return sorted(found, key=lambda f: (f.id[0] == "B", int(f.id[1:])))


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
}


def _against(each: Measured, profile: Profile, seed: int) -> Iterator[Finding]:
    direction = Direction[each.direction.upper()]
    bearer = Link(_bare(profile), seed).bearer("check", direction)
    ms = _delays_ms(bearer, each.period_ms, _N, each.n_bytes)
    judged, factor = _JUDGED.get(each.id, (set[float](), 1.0))
    for per_cent, target in each.quantiles_ms:
        if per_cent in (50.0, 90.0, 95.0, 99.0, 99.9):
            got = float(np.percentile(ms, per_cent))
            ok = target / factor <= got <= target * factor if per_cent in judged else None
            words = f"within a factor {factor:g}" if per_cent in judged else ""
            yield Finding(each.id, f"{each.direction} p{per_cent:g} [ms]", target, got, words, ok)
    for limit, share in each.above_ms:
        got = float(np.mean(ms > limit))
        what = f"{each.direction} share above {limit:g} ms"
        if each.id == "L1" and limit == 8.0:
            yield Finding("L4", what, share, got, "0.08 to 0.12", 0.08 <= got <= 0.12)
        else:
            yield Finding(each.id, what, share, got, "", None)
    if each.id in ("L1", "L2"):
        per_cents, values = zip(*each.quantiles_ms, strict=True)
        cdf = np.array(per_cents) / 100.0
        line = _ks(ms, np.array(values), cdf)
        smooth = _ks(ms, *smoothest(values, cdf, each.mean_ms, each.sd_ms))
        what = f"{each.direction} KS distance, quantiles joined by"
        yield Finding("L3", f"{what} lines", None, line, "below 0.10", line < 0.10)
        yield Finding("L3", f"{what} greatest entropy", None, smooth, "below 0.10", smooth < 0.10)


def _ks(ms: Floats, x_ms: Floats, cdf: Floats) -> float:
    """Kolmogorov's distance of a sample from a law given at points."""
    law = np.interp(np.sort(ms), x_ms, cdf)
    step = np.arange(len(ms) + 1) / len(ms)
    return float(max(np.max(step[1:] - law), np.max(law - step[:-1])))


def smoothest(
    quantiles: Sequence[float], cdf: Floats, mean: float, sd: float, points: int = 400
) -> tuple[Floats, Floats]:
    """The law of greatest entropy with these quantiles, mean and deviation: points and CDF.

    Within each interval its density is ``exp(a u + b u**2)`` up to a factor, with the same a and b
    everywhere; Newton's method finds them.
    """
    x = np.array(quantiles)
    share = (np.arange(points) + 0.5) / points
    place = x[:-1, None] + np.diff(x)[:, None] * share
    mass = np.diff(cdf)
    u = (place - mean) / sd
    powers = np.stack([u, u * u])
    slope: Floats = np.zeros(2)
    goal = np.array([0.0, 1.0])
    weights = np.empty_like(u)
    for _ in range(100):
        lift = np.tensordot(slope, powers, 1)
        weights = np.exp(lift - lift.max(axis=1, keepdims=True))
        weights *= (mass / weights.sum(axis=1))[:, None]
        inner = (powers * weights).sum(axis=2)
        miss = goal - inner.sum(axis=1)
        if np.abs(miss).max() < 1e-9:
            break
        spread = np.einsum("ikl,jkl,kl->ij", powers, powers, weights)
        spread -= np.einsum("ik,jk,k->ij", inner, inner, 1.0 / mass)
        (p, q), (_, r) = spread.tolist()
        one, two = miss.tolist()
        step = np.array([r * one - q * two, p * two - q * one]) / (p * r - q * q)
        slope = slope + np.clip(step, -1.0, 1.0)
    edges = (x[:-1, None] + np.diff(x)[:, None] * (np.arange(points) + 1.0) / points).ravel()
    return np.append(x[0], edges), np.append(cdf[0], cdf[0] + np.cumsum(weights))


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


def tour(bearer: Bearer, layout: Layout, speed_mps: float, start_ns: int = _T0_NS) -> int:
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
    """5 Mbit/s, seven tenths full, no slices: 1,500 bytes every 10 ms and every 50 ms."""
    radio = profile.radio
    assert isinstance(radio, Cellular)
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
