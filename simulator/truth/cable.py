"""Truth of cable lines: length, scrap, melt, faults, and what the gauges read."""

from fractions import Fraction

import numpy as np

from simulator.devices.cable_line import CableLine
from simulator.truth.evidence import Family, Number, Readings, Spread, Sums, Values, over
from simulator.truth.units import HOUR_NS, KWH, orders_on, power, shares_of_time, use
from simulator.truth.windows import Run, Windows

_MM, _GRAMS = 1_000, 1_000


def _of_a_line(s: Sums) -> Values:
    yield from shares_of_time(s)
    yield from orders_on(s)
    yield "line_speed", s.ratios("good_mm", "pbt", 1_000_000)
    yield "running_speed", s.ratios("length_mm", "apt", 1_000_000)
    yield "melt_rate", _extruded(s, s.ratios("melt_g", "apt", Fraction(HOUR_NS, _GRAMS)))


def _of_cable(s: Sums) -> Values:
    yield "good_length", [float(Fraction(g) / _MM) for g in s["good_mm"]]
    yield "energy_per_metre", s.ratios("energy", "length_mm", Fraction(_MM, KWH))
    yield "co2_per_metre", s.ratios("co2", "length_mm", Fraction(_MM, KWH))
    yield "melt_per_metre", _extruded(s, s.ratios("melt_g", "length_mm", Fraction(_MM, _GRAMS)))
    yield "spark_faults_per_km", s.ratios("faults", "length_mm", 1_000_000)


def _extruded(s: Sums, values: list[float | None]) -> list[float | None]:
    """Only where there is an extruder."""
    return [v if n else None for v, n in zip(values, s["extruders"], strict=True)]


def _of_walls(r: Readings) -> Values:
    pairs = zip(r.totals, r.n, strict=True)
    yield "eccentricity_mean", [over(total, n * 10_000) for total, n in pairs]
    (p95,) = r.shares(950)
    yield "eccentricity_p95", [None if v is None else v / 10_000 for v in p95]


def line(run: Run, unit: CableLine, w: Windows) -> list[Family]:
    """Of one line."""
    length, bad = w.flowed(unit.length_mm), w.flowed(unit.scrap_mm)
    extruders: list[Number] = [unit.spec.extruders if unit.spec.wall_mm else 0] * len(w.spans)
    sums = Sums({
        **use(run, unit, w),
        **power(run, unit, w),
        "length_mm": length,
        "good_mm": [a - b for a, b in zip(length, bad, strict=True)],
        "faults": w.flowed(unit.spark_faults),
        "melt_g": w.flowed(unit.melt_g),
        "extruders": extruders,
    })  # fmt: skip
    times, diameter, eccentricity = (
        np.concatenate([np.empty(0, dtype=np.int64), *c])
        for c in (zip(*unit.gauged, strict=True) if unit.gauged else ((), (), ()))
    )
    walls = slice(None) if unit.spec.wall_mm else slice(0)  # where there is one to be measured
    return [
        Family(sums, _of_a_line),
        Family(sums, _of_cable, pooled=True),
        Family(Readings(w, times[walls], eccentricity[walls]), _of_walls, pooled=True),
        Spread("diameter", w, times, diameter).family(unit.limits["diameter_mm"], 100),
    ]
