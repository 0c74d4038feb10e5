"""Factories whose KPIs are known by arithmetic, row by row: no edge was asked for the goldens.

Every case below is a life (``tests.machines``) and, for each window, what a person with a pencil
books from its script: minutes, pieces and samples. The formulas of ISO 22400-2 turn that into
values, in fractions. ``python -m tests.test_known_answers`` writes them to ``tests/known`` as files
for ``beilun replay --expect``, after which a person reviews the diff.

How the minutes of planned busy time (PBT) are booked:

    apt EXECUTE      aust STARTING, RESETTING, mode 4      adet HELD, ABORTED, SUSPENDED, ...
    adot no order, IDLE      care being maintained      dark (in none of them) nobody knows

Samples ``n`` are those of the script: the state every minute, each reading of a counter and the one
at the start, each change of calendar or order.
"""

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from beilun.cli import main
from beilun.commands.replay import replay
from edge import kpis
from edge.rows import Row, digest
from ingest.messages import Asset
from ingest.recording import Recording
from tests.machines import NS_PER_S, Life, Machine, epoch_ns, published, record, seconds

F = Fraction
KNOWN = Path(__file__).with_name("known")
GROUP = 500
"""Messages that are journalled together."""
NEAR = 5e-10
"""Nine digits."""
Value = F | float | int | None
Values = dict[str, Value]

# the formulas -----------------------------------------------------------------------------------


def over(a: Value, b: Value) -> Value:
    """A quotient; none without evidence or over nothing."""
    return None if a is None or not b else F(a) / F(b)


@dataclass(frozen=True)
class Booked:
    """One work unit, or several together, in one window: minutes, pieces, events."""

    apt: F | int = 0
    aust: F | int = 0
    adet: F | int = 0
    adot: F | int = 0
    care: F | int = 0
    aoet: F | int = 0
    """With an order on the unit, planned or not, as far as it is known what the unit did."""
    ttr: F | int = 0
    """Of PBT, stopped for an internal cause."""
    fe: int = 0
    pq: int = 0
    sq: int = 0
    rq: int = 0
    run: F | int = 0
    """What the pieces were planned to take: PRI x PQ, order by order."""

    def __add__(self, other: "Booked") -> "Booked":
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Booked(**sums)


def unit(b: Booked) -> Values:
    """The KPIs of a machine that tells its state, pieces and scrap; domain.md, 2.2."""
    pbt = b.apt + b.aust + b.adet + b.adot + b.care
    aupt, aubt, gq = b.apt + b.aust, b.apt + b.aust + b.adet, b.pq - b.sq - b.rq
    ttf = pbt - b.ttr  # no case is maintained outside TTR
    made = F(b.run * gq, b.pq) if b.pq else 0
    return {
        "availability": over(b.apt, pbt),
        "effectiveness": over(b.run, b.apt),
        "quality_ratio": over(gq, b.pq),
        "oee": over(made, pbt),  # availability x effectiveness x quality: APT cancels
        "nee": over(F(aupt, b.apt) * made if b.apt else 0, pbt),
        "output": gq if pbt or b.pq else None,
        "allocation_efficiency": over(aubt, pbt),
        "utilisation_efficiency": over(b.apt, aubt),
        "technical_efficiency": over(b.apt, b.apt + b.adet),
        "setup_ratio": over(b.aust, aupt),
        "equipment_load_ratio": over(b.run, pbt),
        "scrap_ratio": over(b.sq, b.pq),
        "throughput_rate": over(60 * b.pq, b.aoet),
        "allocation_ratio": over(aubt, b.aoet),
        "production_process_ratio": over(b.apt, b.aoet),
        "failures": b.fe if pbt else None,
        "mtbf": over(F(aupt, 60), b.fe),
        "mttf": over(F(ttf, 60), b.fe),
        "mttr": over(F(b.ttr, 60), b.fe),
        "mtbf_iso": F(aupt, 60) / (b.fe + 1) if pbt else None,
        "mttf_iso": F(ttf, 60) / (b.fe + 1) if pbt else None,
        "mttr_iso": F(b.ttr, 60) / (b.fe + 1) if pbt else None,
    }


def bin_ms(delay_ms: float) -> float:
    """How a delay is read back: the harmonic mean of its bin's edges, 232 bins a decade from 1 µs;
    10 ms is the upper edge of its bin."""
    top = math.ceil(232 * math.log10(delay_ms * 1_000))
    low, high = (1e-3 * 10 ** (edge / 232) for edge in (top - 1, top))
    return 2 * low * high / (low + high)


TEN = bin_ms(10)
HEARD: Values = {
    "delay_p50": TEN, "delay_p99": TEN, "delay_p999": TEN, "within_10ms": 1, "clock_skew": -TEN,
    "early_messages": 0,
}  # fmt: skip
"""Every message takes 10 ms."""
UNHEARD: Values = dict.fromkeys(HEARD)

UNITS = {
    "output": "{piece}", "throughput_rate": "{piece}/h", "failures": "{event}", "mtbf": "h",
    "mttf": "h", "mttr": "h", "mtbf_iso": "h", "mttf_iso": "h", "mttr_iso": "h",
    "energy_per_unit": "kW.h/{piece}", "co2_per_unit": "kg/{piece}", "shot_cycle_time": "s",
    "line_speed": "m/s", "running_speed": "m/s", "good_length": "m",
    "energy_per_metre": "kW.h/m", "melt_per_metre": "kg/m", "melt_rate": "kg/h",
    "wip": "{piece}", "wip_turnover_days": "d", "wip_age_days": "d",
    "wip_inventory_days": "d", "order_lead_time": "d", "inventory_turns": "{turn}/a",
    "throughput": "{piece}/h", "output_per_head": "{piece}/{person}/h",
    "value_per_head": "{CNY}/{person}/a", "delay_p50": "ms", "delay_p99": "ms",
    "agv_mission_time": "s", "arm_cycle_time": "s", "cycle_runs": "{run}",
    "cycles_distinct": "{cycle}", "cycle_distance": "s", "cycle_length": "s",
    "protective_stops": "{event}", "protective_stop_blank": "{sample}",
    "grip_lost_events": "{event}", "grip_lost_blank": "{sample}", "current_j1_p5": "A",
    "current_j1_p50": "A", "current_j1_p95": "A", "delay_p999": "ms", "clock_skew": "ms",
    "early_messages": "{message}",
}  # fmt: skip
"""UCUM; every other KPI is a ratio."""
ALONE = {
    "throughput_rate", "allocation_ratio", "production_process_ratio", "mtbf_iso", "mttf_iso",
    "mttr_iso", "first_pass_yield", "energy_per_unit", "co2_per_unit", "biscuit_cm", "biscuit_cmk",
    "biscuit_cp", "biscuit_cpk", "line_speed", "running_speed", "melt_rate", "order_number",
    "cycle_runs", "cycles_distinct", "cycle_distance", "cycle_length", "current_j1_p5",
    "current_j1_p50", "current_j1_p95",
}  # fmt: skip
"""KPIs of one unit, which a line does not have."""
OF_CELLS = {"availability", "allocation_efficiency", "utilisation_efficiency",
            "technical_efficiency", "setup_ratio", "failures", "mtbf", "mttf", "mttr"}  # fmt: skip
"""Rolled up of machines and cells, not of cable lines."""

# cases ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hand:
    """What one window of an asset comes to: where it lies, in hours since the life began (the start
    may be before it), samples, and values."""

    start: str
    length: str
    n: int
    values: Values
    asset: str = "m1"
    late: int = 0
    order: int | None = None
    """Of which order this is the window; such a window does not roll up."""


@dataclass(frozen=True)
class Case:
    """A life, what it shows, its golden rows, and some of their values as one would write them."""

    life: Life
    shows: str
    hands: Sequence[Hand]
    says: Mapping[tuple[int, str], Value]
    """By place among the hands and KPI: the value on paper, which the formulas must give too."""
    together: Sequence[Hand] = field(default_factory=tuple[Hand, ...])
    """Roll-ups, where there are several machines; of one machine they are its own values."""


CASES: list[Case] = []


def at(name: str) -> Asset:
    return Asset("k", "hall", "line", name)


def case(
    name: str,
    shows: str,
    script: str,
    hands: Sequence[Hand],
    says: Mapping[tuple[int, str], Value],
    *,
    kind: str = "machine",
    windows: tuple[str, ...] = ("2h",),
    start: str = "2026-01-05T06:00:00+00:00",
    limits: Mapping[str, tuple[float, float]] | None = None,
    zone: str = "UTC",
) -> None:
    """Add a case of one machine."""
    machine = Machine(at("m1"), kind, script, dict(limits or {}))
    life = Life(name, start, (machine,), windows, zone)
    CASES.append(Case(life, shows, hands, says))


case(
    "perfect", "8 h planned, no loss: every factor is 1",
    """
    0:00       planned=1 order=1 pri_s=60 scrap=0 EXECUTE
    0:00-8:00  produced+1 every 60s
    8:00       end
    """,
    [Hand("0:00", "8:00", 480 + 481 + 2, unit(Booked(apt=480, aoet=480, pq=480, run=480)))],
    {(0, "availability"): 1, (0, "effectiveness"): 1, (0, "quality_ratio"): 1, (0, "oee"): 1,
     (0, "nee"): 1, (0, "setup_ratio"): 0, (0, "technical_efficiency"): 1, (0, "output"): 480,
     (0, "throughput_rate"): 60, (0, "mtbf"): None, (0, "mtbf_iso"): 8},
    windows=("8h",), start="2026-01-05T08:00:00+00:00",
)  # fmt: skip

case(
    "available", "8 h less a break of 30 min, 90 min down: availability = 360/450",
    """
    0:00       planned=1 order=1 pri_s=60 scrap=0 EXECUTE
    0:00-3:00  produced+1 every 60s
    3:00       HELD
    4:30       EXECUTE
    4:30-5:00  produced+1 every 60s
    5:00       planned=0 IDLE
    5:30       planned=1 EXECUTE
    5:30-8:00  produced+1 every 60s
    8:00       end
    """,
    [Hand("0:00", "8:00", 480 + 361 + 3 + 1,
          unit(Booked(apt=180 + 30 + 150, adet=90, ttr=90, fe=1, aoet=480, pq=360, run=360)))],
    {(0, "availability"): F(360, 450), (0, "effectiveness"): 1, (0, "oee"): F(8, 10),
     (0, "allocation_efficiency"): 1, (0, "throughput_rate"): 45,
     (0, "allocation_ratio"): F(450, 480), (0, "production_process_ratio"): F(360, 480),
     (0, "mtbf"): 6, (0, "mtbf_iso"): 3, (0, "mttr"): F(3, 2), (0, "mttr_iso"): F(3, 4)},
    windows=("8h",), start="2026-01-05T08:00:00+00:00",
)  # fmt: skip

case(
    "quality", "every fifth piece is scrap: quality = 96/120",
    """
    0:00       planned=1 order=1 pri_s=60 EXECUTE
    0:00-2:00  produced+1 every 60s
    0:00-2:00  scrap+1 every 300s
    2:00       end
    """,
    [Hand("0:00", "2:00", 120 + 121 + 2,
          unit(Booked(apt=120, aoet=120, pq=120, sq=24, run=120)))],
    {(0, "quality_ratio"): F(96, 120), (0, "scrap_ratio"): F(24, 120), (0, "oee"): F(8, 10),
     (0, "output"): 96, (0, "availability"): 1, (0, "effectiveness"): 1},
)  # fmt: skip

case(
    "half-speed", "planned 30 s a piece, takes 60 s: effectiveness = 60/120",
    """
    0:00       planned=1 order=1 pri_s=30 scrap=0 EXECUTE
    0:00-2:00  produced+1 every 60s
    2:00       end
    """,
    [Hand("0:00", "2:00", 120 + 121 + 2, unit(Booked(apt=120, aoet=120, pq=120, run=F(120, 2))))],
    {(0, "availability"): 1, (0, "effectiveness"): F(1, 2), (0, "oee"): F(1, 2),
     (0, "equipment_load_ratio"): F(1, 2)},
)  # fmt: skip

RUNS = Booked(apt=60, aoet=60, pq=60, run=60)
STARVES = Booked(adet=60, aoet=60)
case(
    "starved", "an hour of work, then an hour without material: a delay, not a failure",
    """
    0:00       planned=1 order=1 pri_s=60 scrap=0 EXECUTE
    0:00-1:00  produced+1 every 60s
    1:00       SUSPENDED
    2:00       end
    """,
    [Hand("0:00", "1:00", 60 + 61 + 2, unit(RUNS)),
     Hand("1:00", "1:00", 60, unit(STARVES)),
     Hand("0:00", "2:00", 120 + 61 + 2, unit(RUNS + STARVES))],
    {(1, "availability"): 0, (1, "oee"): 0, (1, "output"): 0, (1, "effectiveness"): None,
     (1, "quality_ratio"): None, (1, "allocation_efficiency"): 1, (1, "failures"): 0,
     (1, "technical_efficiency"): 0, (1, "equipment_load_ratio"): 0, (2, "availability"): F(1, 2),
     (2, "technical_efficiency"): F(60, 120), (2, "throughput_rate"): 30},
    windows=("1h", "2h"),
)  # fmt: skip

case(
    "blocked", "no room behind it for 41 min: availability = 79/120, and no failure",
    """
    0:00       planned=1 order=1 pri_s=60 scrap=0 EXECUTE
    0:00-0:40  produced+1 every 60s
    0:40:00    SUSPENDING
    0:40:30    SUSPENDED
    1:20:00    UNSUSPENDING
    1:21:00    EXECUTE
    1:21-2:00  produced+1 every 60s
    2:00       end
    """,
    [Hand("0:00", "2:00", 120 + 1 + (1 + 40 + 39) + 2,
          unit(Booked(apt=40 + 39, adet=41, aoet=120, pq=79, run=79)))],
    {(0, "availability"): F(79, 120), (0, "technical_efficiency"): F(79, 120), (0, "failures"): 0,
     (0, "utilisation_efficiency"): F(79, 120), (0, "effectiveness"): 1},
)  # fmt: skip

case(
    "setup-only", "an hour of set-up: used for the order, and nothing produced",
    """
    0:00  planned=1 order=1 pri_s=60 produced=0 scrap=0 RESETTING
    0:10  STARTING
    0:20  mode=4 EXECUTE
    1:00  end
    """,
    [Hand("0:00", "1:00", 60 + 1 + 2, unit(Booked(aust=60, aoet=60)))],
    {(0, "setup_ratio"): 1, (0, "availability"): 0, (0, "allocation_efficiency"): 1,
     (0, "utilisation_efficiency"): 0, (0, "technical_efficiency"): None, (0, "oee"): 0,
     (0, "nee"): 0, (0, "mtbf_iso"): 1},
    windows=("1h",),
)  # fmt: skip

case(
    "unused", "planned for an hour, and there is no order: available and down",
    """
    0:00  planned=1 order=0 produced=0 scrap=0 EXECUTE
    1:00  end
    """,
    [Hand("0:00", "1:00", 60 + 1 + 2, unit(Booked(adot=60)))],
    {(0, "availability"): 0, (0, "allocation_efficiency"): 0, (0, "utilisation_efficiency"): None,
     (0, "throughput_rate"): None, (0, "oee"): 0, (0, "output"): 0},
    windows=("1h",),
)  # fmt: skip

case(
    "overtime", "an hour of production that nobody planned: pieces, and no planned time",
    """
    0:00       planned=0 order=1 pri_s=60 scrap=0 EXECUTE
    0:00-1:00  produced+1 every 60s
    1:00       end
    """,
    [Hand("0:00", "1:00", 60 + 61 + 2, unit(Booked(aoet=60, pq=60, run=60)))],
    {(0, "availability"): None, (0, "oee"): None, (0, "effectiveness"): None,
     (0, "quality_ratio"): 1, (0, "output"): 60, (0, "throughput_rate"): 60,
     (0, "failures"): None, (0, "allocation_ratio"): 0},
    windows=("1h",),
)  # fmt: skip

case(
    "across-shifts", "an order from an hour before the end of a shift to an hour after it",
    """
    0:00       planned=1 order=0 scrap=0 IDLE
    1:00       order=7 pri_s=60 EXECUTE
    1:00-3:00  produced+1 every 60s
    3:00       order=0 IDLE
    4:00       end
    """,
    [Hand("-6:00", "8:00", 120 + (1 + 60) + 1 + 2,
          unit(Booked(apt=60, adot=60, aoet=60, pq=60, run=60))),
     Hand("2:00", "8:00", 120 + 60 + 1,
          unit(Booked(apt=60, adot=60, aoet=60, pq=60, run=60))),
     Hand("1:00", "2:00", 120 + 120 + 1, unit(Booked(apt=120, aoet=120, pq=120, run=120)),
          order=7)],
    {(0, "availability"): F(1, 2), (1, "availability"): F(1, 2), (2, "availability"): 1,
     (0, "output"): 60, (1, "output"): 60, (2, "output"): 120, (2, "throughput_rate"): 60},
    windows=("shift", "order"), zone="Asia/Shanghai", start="2026-01-05T12:00:00+08:00",
)  # fmt: skip

BEFORE = Booked(apt=50, adet=10, ttr=10, fe=1, aoet=60, pq=50, run=50)
AFTER = Booked(apt=40, adet=20, ttr=20, aoet=60, pq=40, run=40)
case(
    "across-windows", "a stop of 30 min, 10 in one hour and 20 in the next: one failure",
    """
    0:00       planned=1 order=1 pri_s=60 scrap=0 EXECUTE
    0:00-0:50  produced+1 every 60s
    0:50       HELD
    1:20       EXECUTE
    1:20-2:00  produced+1 every 60s
    2:00       end
    """,
    [Hand("0:00", "1:00", 60 + 51 + 2, unit(BEFORE)), Hand("1:00", "1:00", 60 + 40, unit(AFTER)),
     Hand("0:00", "2:00", 120 + 91 + 2, unit(BEFORE + AFTER))],
    {(0, "availability"): F(50, 60), (1, "availability"): F(40, 60), (2, "availability"): F(3, 4),
     (0, "failures"): 1, (1, "failures"): 0, (2, "failures"): 1, (0, "mttr"): F(10, 60),
     (1, "mttr"): None, (2, "mttr"): F(30, 60), (1, "mttr_iso"): F(20, 60)},
    windows=("1h", "2h"),
)  # fmt: skip


case(
    "on-the-hour", "a piece told at 1:00 sharp is the second hour's, its energy the first's",
    """
    0:00             planned=1 order=1 pri_s=60 scrap=0 EXECUTE
    0:00:30-1:59:30  produced+1 energy_kwh+0.5 every 60s
    2:00             end
    """,
    # Pieces at 0:01 to 0:59, then 1:00 to 1:59; energy up to 1:00, then from 1:01 on.
    [Hand("0:00", "1:00", 60 + (1 + 59) + 2, unit(replace(RUNS, pq=59, run=59)) | {
        "energy_per_unit": F(30, 59)}),
     Hand("1:00", "1:00", 60 + 60, unit(RUNS) | {"energy_per_unit": F("29.5") / 60})],
    {(0, "output"): 59, (1, "output"): 60, (0, "effectiveness"): F(59, 60),
     (1, "effectiveness"): 1},
    windows=("1h",),
)  # fmt: skip


def night(*minutes: int, order_min: int) -> Values:
    made = sum(minutes)
    return unit(Booked(apt=made, aoet=order_min, pq=made, run=made))


case(
    "overnight", "planned 22:00-02:00 and 02:30-05:30, over midnight: one shift, two days",
    """
    0:00       planned=1 order=1 pri_s=60 scrap=0 EXECUTE
    0:00-4:00  produced+1 every 60s
    4:00       planned=0 IDLE
    4:30       planned=1 EXECUTE
    4:30-7:30  produced+1 every 60s
    7:30       planned=0 IDLE
    8:00       end
    """,
    [Hand("0:00", "8:00", 480 + 421 + 4 + 1, night(240, 180, order_min=480)),
     Hand("-22:00", "24:00", 120 + 121 + 2, night(120, order_min=120)),
     Hand("2:00", "24:00", 360 + 300 + 3, night(120, 180, order_min=360))],
    {(0, "output"): 420, (1, "output"): 120, (2, "output"): 300, (0, "availability"): 1,
     (1, "availability"): 1, (2, "availability"): 1, (0, "allocation_ratio"): F(420, 480)},
    windows=("shift", "day"), zone="Asia/Shanghai", start="2026-01-05T22:00:00+08:00",
)  # fmt: skip

for season, start, hours, day in (
    ("spring", "2026-03-28T22:00:00+01:00", 7, 23), ("autumn", "2026-10-24T22:00:00+02:00", 9, 25),
):  # fmt: skip
    case(
        f"clocks-in-{season}",
        f"the clocks change in the night shift, which has {hours} h, and its day {day}",
        f"""
        0:00          planned=1 order=1 pri_s=60 scrap=0 EXECUTE
        0:00-{hours}:00  produced+1 every 60s
        {hours}:00    end
        """,
        [Hand("0:00", f"{hours}:00", 60 * hours + 60 * hours + 1 + 2,
              night(60 * hours, order_min=60 * hours)),
         Hand("-22:00", "24:00", 120 + 121 + 2, night(120, order_min=120)),
         Hand("2:00", f"{day}:00", 2 * 60 * (hours - 2),
              night(60 * (hours - 2), order_min=60 * (hours - 2)))],
        {(0, "output"): 60 * hours, (1, "output"): 120, (2, "output"): 60 * hours - 120,
         (0, "oee"): 1, (1, "oee"): 1, (2, "oee"): 1},
        windows=("shift", "day"), zone="Europe/Berlin", start=start,
    )  # fmt: skip

FIRST = Booked(apt=60, aoet=60, pq=60, run=60)
SECOND = Booked(apt=30, aoet=30, pq=45, run=F(45, 2))
case(
    "two-orders", "PRI 60 s for an hour, then PRI 30 s at 40 s a piece; one told as they change",
    """
    0:00             planned=1 order=1 pri_s=60 scrap=0 EXECUTE
    0:00:30-1:00:30  produced+1 every 60s
    1:00             order=2 pri_s=30
    1:00-1:30        produced+1 every 40s
    1:30             order=0 IDLE
    2:00             end
    """,
    [Hand("0:00", "2:00", 120 + (1 + 60 + 45) + 1 + 3,
          unit(FIRST + SECOND + Booked(adot=30))),
     # the 60th piece, told at 1:00 sharp, is the first order's; its sample lies in the second's
     Hand("0:00", "1:00", 60 + (1 + 59) + 1 + 1, unit(FIRST), order=1),
     Hand("1:00", "0:30", 30 + (1 + 45) + 1, unit(SECOND), order=2)],
    {(1, "effectiveness"): 1, (2, "effectiveness"): F(3, 4),
     (0, "effectiveness"): F(165, 180),  # (60 + 22.5) / 90, not the mean, 7/8
     (0, "availability"): F(90, 120), (1, "throughput_rate"): 60, (2, "throughput_rate"): 90},
    windows=("2h", "order"),
)  # fmt: skip

case(
    "restarted", "the machine starts anew after 60 pieces, and its counter with it: 120 pieces",
    """
    0:00       planned=1 order=1 pri_s=60 scrap=0 EXECUTE
    0:00-2:00  produced+1 every 60s
    1:00       restart
    2:00       end
    """,
    [Hand("0:00", "2:00", 120 + (1 + 120 + 1) + 2,
          unit(Booked(apt=120, aoet=120, pq=120, run=120)))],
    {(0, "output"): 120, (0, "oee"): 1},
)  # fmt: skip

case(
    "silent", "nothing is heard for 30 of 120 min, in which it stands: that is no evidence",
    """
    0:00       planned=1 order=1 pri_s=60 scrap=0 EXECUTE
    0:00-0:30  produced+1 every 60s
    0:30-1:00  silent
    1:00-2:00  produced+1 every 60s
    2:00       end
    """,
    [Hand("0:00", "0:30", 30 + 31 + 2, unit(Booked(apt=30, aoet=30, pq=30, run=30))),
     Hand("0:30", "0:30", 0, unit(Booked())),
     Hand("1:00", "0:30", 30 + 30, unit(Booked(apt=30, aoet=30, pq=30, run=30))),
     Hand("1:30", "0:30", 30 + 30, unit(Booked(apt=30, aoet=30, pq=30, run=30))),
     # Shares are of the 90 min that are known; the order, whose time the MES tells, took 120.
     Hand("0:00", "2:00", 90 + 91 + 2, unit(Booked(apt=90, aoet=90, pq=90, run=90)) | {
         "throughput_rate": F(90 * 60, 120)})],
    {(1, "availability"): None, (1, "oee"): None, (1, "output"): None, (1, "failures"): None,
     (1, "allocation_ratio"): None, (4, "availability"): 1, (4, "oee"): 1, (4, "output"): 90},
    windows=("30m", "2h"),
)  # fmt: skip

case(
    "no-pace-planned", "an order whose PRI nobody told: no effectiveness and no OEE, not 0",
    """
    0:00       planned=1 order=1 scrap=0 EXECUTE
    0:00-1:00  produced+1 every 60s
    1:00       end
    """,
    [Hand("0:00", "1:00", 60 + 61 + 2, unit(Booked(apt=60, aoet=60, pq=60)) | dict.fromkeys(
        ("effectiveness", "oee", "nee", "equipment_load_ratio")))],
    {(0, "availability"): 1, (0, "quality_ratio"): 1, (0, "effectiveness"): None,
     (0, "oee"): None},
    windows=("1h",),
)  # fmt: skip

case(
    "no-calendar", "nobody told whether it was planned: pieces and pace, and no share of anything",
    """
    0:00       order=1 pri_s=60 scrap=0 EXECUTE
    0:00-1:00  produced+1 every 60s
    1:00       end
    """,
    [Hand("0:00", "1:00", 60 + 61 + 1, unit(Booked(pq=60, run=60)) | {"throughput_rate": 60})],
    {(0, "availability"): None, (0, "oee"): None, (0, "output"): 60, (0, "quality_ratio"): 1,
     (0, "allocation_ratio"): None, (0, "production_process_ratio"): None},
    windows=("1h",),
)  # fmt: skip

case(
    "rework", "of 60 pieces 6 are scrap and 9 to be reworked; 45 were good at once",
    """
    0:00       planned=1 order=1 pri_s=60 quantity=100 planned_scrap=25 EXECUTE
    0:00-1:00  produced+4 inspected+4 first_pass+3 every 240s
    0:00-1:00  scrap+1 every 600s
    0:00-1:00  rework+3 every 1200s
    1:00       end
    """,
    [Hand("0:00", "1:00", 60 + (1 + 15 + 6) + 2,  # rework is told together with pieces
          unit(Booked(apt=60, aoet=60, pq=60, sq=6, rq=9, run=60)) | {
              "rework_ratio": F(9, 60), "first_pass_yield": F(45, 60),
              "actual_to_planned_scrap": 6 / (60 * F(25, 100 + 25))})],
    {(0, "quality_ratio"): F(45, 60), (0, "scrap_ratio"): F(1, 10), (0, "output"): 45,
     (0, "actual_to_planned_scrap"): F(6, 12), (0, "oee"): F(3, 4)},
    windows=("1h",),
)  # fmt: skip

case(
    "scrap-plan", "6 scrap of 60 pieces, of an order with 20 scrap planned on 100: 6 of 10",
    """
    0:00       planned=1 order=1 pri_s=60 quantity=100 planned_scrap=20 EXECUTE
    0:00-1:00  produced+1 every 60s
    0:00-1:00  scrap+1 every 600s
    1:00       end
    """,
    [Hand("0:00", "1:00", 60 + (1 + 60 + 6) + 2,
          unit(Booked(apt=60, aoet=60, pq=60, sq=6, run=60)) | {
              "actual_to_planned_scrap": 6 / (60 * F(20, 100 + 20))})],
    {(0, "actual_to_planned_scrap"): F(6, 10)},
    windows=("1h",),
)  # fmt: skip

case(
    "maintained", "a repair of 20 min after 10 min of waiting, and 40 min of planned maintenance",
    """
    0:00       planned=1 order=1 pri_s=60 scrap=0 maintenance=0 EXECUTE
    0:00-1:00  produced+1 every 60s
    1:00       ABORTED
    1:10       maintenance=1
    1:30       maintenance=0 STARTING
    1:35       EXECUTE
    1:35-2:00  produced+1 every 60s
    2:00       planned=0 maintenance=2 IDLE
    2:40       planned=1 maintenance=0 EXECUTE
    2:40-3:00  produced+1 every 60s
    3:00       end
    """,
    [Hand("0:00", "3:00", 180 + 106 + 3 + 1,
          unit(Booked(apt=60 + 25 + 20, aust=5, adet=10, care=20, ttr=10 + 20, fe=1, aoet=180,
                      pq=105, run=105)) | {"corrective_maintenance_ratio": F(20, 20 + 40)})],
    {(0, "availability"): F(105, 140), (0, "allocation_efficiency"): F(120, 140),
     (0, "corrective_maintenance_ratio"): F(1, 3), (0, "mttr"): F(1, 2), (0, "mtbf"): F(110, 60),
     (0, "setup_ratio"): F(5, 110), (0, "nee"): F(110, 140)},
    windows=("3h",),
)  # fmt: skip

case(
    "failures", "failures of 10, 20 and 30 min in 4 h: MTBF 60 min by FE, 45 by FE + 1",
    """
    0:00       planned=1 order=1 pri_s=60 scrap=0 EXECUTE
    0:00-0:50  produced+1 every 60s
    0:50       HOLDING
    0:51       HELD
    0:59       UNHOLDING
    1:00       EXECUTE
    1:00-2:00  produced+1 every 60s
    2:00       HELD
    2:20       EXECUTE
    2:20-3:00  produced+1 every 60s
    3:00       ABORTING
    3:01       ABORTED
    3:25       CLEARING
    3:30       EXECUTE
    3:30-4:00  produced+1 every 60s
    4:00       end
    """,
    [Hand("0:00", "4:00", 240 + 181 + 2,
          unit(Booked(apt=180, adet=60, ttr=10 + 20 + 30, fe=3, aoet=240, pq=180, run=180)))],
    {(0, "failures"): 3, (0, "mtbf"): 1, (0, "mtbf_iso"): F(45, 60), (0, "mttf"): 1,
     (0, "mttf_iso"): F(45, 60), (0, "mttr"): F(20, 60), (0, "mttr_iso"): F(15, 60)},
    windows=("4h",), start="2026-01-05T08:00:00+00:00",
)  # fmt: skip

QUARTER = Booked(apt=30, aoet=30, pq=30, run=30)
STOP = Booked(adet=30, aoet=30, ttr=30, fe=1)
case(
    "sliding", "an hour every half hour: a stop of 30 min is in two of five windows",
    """
    0:00       planned=1 order=1 pri_s=60 scrap=0 EXECUTE
    0:00-1:00  produced+1 every 60s
    1:00       HELD
    1:30       EXECUTE
    1:30-2:00  produced+1 every 60s
    2:00       end
    """,
    [Hand("-0:30", "1:00", 30 + 31 + 2, unit(QUARTER)),
     Hand("0:00", "1:00", 60 + 61 + 2, unit(QUARTER + QUARTER)),
     Hand("0:30", "1:00", 60 + 30, unit(QUARTER + STOP)),
     Hand("1:00", "1:00", 60 + 30, unit(STOP + QUARTER)),
     Hand("1:30", "1:00", 30 + 30, unit(QUARTER))],
    {(0, "availability"): 1, (1, "availability"): 1, (2, "availability"): F(1, 2),
     (3, "availability"): F(1, 2), (4, "availability"): 1, (3, "failures"): 1},
    windows=("1h/30m",),
)  # fmt: skip

case(
    "energy", "0.25 kWh a piece; the grid's factor is 0.5 kg/kWh, then 0.7: 9 kg for 60 pieces",
    """
    0:00       planned=1 order=1 pri_s=60 scrap=0 co2_kg_per_kwh=0.5 EXECUTE
    0:00-1:00  produced+1 energy_kwh+0.25 every 60s
    0:30       co2_kg_per_kwh=0.7
    1:00       end
    """,
    [Hand("0:00", "1:00", 60 + (1 + 60 + 1) + 2,
          unit(Booked(apt=60, aoet=60, pq=60, run=60)) | {
              "energy_per_unit": F(15, 60),
              "co2_per_unit": (F("7.5") * F("0.5") + F("7.5") * F("0.7")) / 60})],
    {(0, "energy_per_unit"): F(1, 4), (0, "co2_per_unit"): F(9, 60)},
    windows=("1h",),
)  # fmt: skip

case(
    "late", "five pieces of 0:20 reach the edge at 1:30: the first hour's rows are amended",
    """
    0:00       planned=1 order=1 pri_s=60 scrap=0 EXECUTE
    0:20       produced+5 arrives 1:30
    0:30-2:00  produced+1 every 60s
    2:00       end
    """,
    [Hand("0:00", "1:00", 60 + (1 + 1 + 30) + 2,
          unit(Booked(apt=60, aoet=60, pq=35, run=35)) | HEARD | {
              # 94 messages, the birth aside, one of which took 70 min
              "delay_p99": bin_ms(70 * 60_000 + 10), "delay_p999": bin_ms(70 * 60_000 + 10),
              "within_10ms": F(93, 94)}, late=1),
     Hand("1:00", "1:00", 60 + 60, unit(Booked(apt=60, aoet=60, pq=60, run=60)))],
    {(0, "output"): 35, (1, "output"): 60, (0, "effectiveness"): F(35, 60)},
    windows=("1h",),
)  # fmt: skip

case(
    "warm-up", "of the first ten shots after a start three are scrap, of all 55 four",
    """
    0:00       planned=1 order=1 pri_s=60 STARTING
    0:05       EXECUTE
    0:05-0:08  produced+1 scrap+1 cycle_s=60 every 60s
    0:08-1:00  produced+1 cycle_s=58.5 every 60s
    0:30       scrap+1
    1:00       end
    """,
    [Hand("0:00", "1:00", 60 + (1 + 55 + 1) + 55 + 2,
          unit(Booked(apt=55, aust=5, aoet=60, pq=55, sq=4, run=55)) | {
              "warm_up_scrap_ratio": F(3, 10),
              "shot_cycle_time": (3 * F(60) + 52 * F("58.5")) / 55})],
    {(0, "scrap_ratio"): F(4, 55), (0, "availability"): F(55, 60), (0, "setup_ratio"): F(5, 60)},
    kind="casting_cell", windows=("1h",),
)  # fmt: skip

case(
    "capability", "biscuits of 24, 25, 26, 25 mm within 22 to 29: s^2 = 2/3, sigma^2 = 1/2",
    """
    0:10  biscuit_mm=24
    0:20  biscuit_mm=25
    0:30  biscuit_mm=26
    0:40  biscuit_mm=25
    1:00  end
    """,
    [Hand("0:00", "1:00", 4, {
        # mean 25; s^2 = (1 + 0 + 1 + 0) / 3; steps 1, 1, -1: sigma^2 = (1 + 1 + 1) / 3 / 2
        "biscuit_cm": 7 / (6 * math.sqrt(2 / 3)), "biscuit_cmk": 3 / (3 * math.sqrt(2 / 3)),
        "biscuit_cp": 7 / (6 * math.sqrt(1 / 2)), "biscuit_cpk": 3 / (3 * math.sqrt(1 / 2))})],
    # the upper limit is 4 mm from the mean, the lower one 3
    {(0, "biscuit_cmk"): math.sqrt(1.5), (0, "biscuit_cpk"): math.sqrt(2)},
    kind="casting_cell", windows=("1h",), limits={"biscuit_mm": (22.0, 29.0)},
)  # fmt: skip

case(
    "cable", "1.4 m/s while it runs, 90 of 120 min, 60 m of it scrap",
    """
    0:00       planned=1 order=1 EXECUTE
    0:00-1:30  length_m+84 energy_kwh+0.42 melt_kg+168 every 60s
    0:00-1:30  scrap_m+20 every 1800s
    1:30       HELD
    2:00       end
    """,
    [Hand("0:00", "2:00", 120 + (1 + 90 + 3) + 2, {
        "running_speed": F(90 * 84, 90 * 60), "line_speed": F(90 * 84 - 60, 120 * 60),
        "good_length": 7_500, "energy_per_metre": F("0.42") / 84,
        "melt_per_metre": F(168, 84), "melt_rate": F(90 * 168, 90) * 60,
        **{name: value for name, value in unit(
            Booked(apt=90, adet=30, ttr=30, fe=1, aoet=120)).items()
           if name in OF_CELLS - {"availability"} or name.endswith("_iso")
           or name in ("allocation_ratio", "production_process_ratio")}})],
    {(0, "running_speed"): F(14, 10), (0, "line_speed"): F(7_500, 7_200),
     (0, "utilisation_efficiency"): F(3, 4), (0, "energy_per_metre"): F("0.005"),
     (0, "melt_per_metre"): 2, (0, "melt_rate"): 10_080},
    kind="cable_line",
)  # fmt: skip

case(
    "vehicle", "two missions of 30 min in 2 h; 10 of 50 min driven empty, 10 of 60 waited; charge",
    """
    0:00  planned=1 mission=0 driving=0 loaded=0 waiting=0 battery_ratio=0.9
    0:10  mission=1 driving=1
    0:20  loaded=1
    0:40  mission=0 driving=0 loaded=0 battery_ratio=0.5005
    1:00  mission=1 waiting=1 battery_ratio=0.6
    1:10  waiting=0 driving=1 loaded=1
    1:30  mission=0 driving=0 loaded=0
    2:00  end
    """,
    [Hand("0:00", "2:00", 120 + 1, {
        "agv_utilisation": F(30 + 30, 120), "agv_mission_time": F(60 * 60, 2),
        "agv_empty_ratio": F(10, 30 + 20), "agv_waiting_ratio": F(10, 60),
        "agv_battery_min": F("0.5005"),
        "agv_battery_mean": (40 * F("0.9") + 20 * F("0.5005") + 60 * F("0.6")) / 120})],
    {(0, "agv_utilisation"): F(1, 2), (0, "agv_mission_time"): 1_800,
     (0, "agv_battery_mean"): F("82.01") / 120},
    kind="agv",
)  # fmt: skip

case(
    "arm", "cycles 7, 7, 8, 9: three, begun 20 and 10 min apart; one stop, in two of four samples",
    """
    0:10  cycle=7 current_j1_a=1 protective_stop=0 grip_lost=0
    0:20  cycle=7 current_j1_a=2 protective_stop=1 grip_lost=0
    0:30  cycle=8 current_j1_a=3 protective_stop=1 grip_lost=0 cycle_s=1200
    0:40  cycle=9 current_j1_a=4 protective_stop=0 grip_lost=0 cycle_s=600
    1:00  end
    """,
    [Hand("0:00", "1:00", 4 + 2, {
        "arm_cycle_time": F(1_200 + 600, 2), "cycle_runs": 3, "cycles_distinct": 3,
        "cycle_distance": F(1_200 + 600, 2),  # medians: of 0:10 to 0:30 and 0:30 to 0:40
        "cycle_length": F(600 + 0, 2),  # of 0:10 to 0:20 and 0:30 to 0:30; cycle 9 is not over
        "protective_stops": 1, "protective_stop_ratio": F(2, 4), "protective_stop_share": F(2, 4),
        "protective_stop_blank": 0, "grip_lost_events": 0, "grip_lost_ratio": 0,
        "grip_lost_share": 0, "grip_lost_blank": 0,
        "current_j1_p5": 1, "current_j1_p50": 2, "current_j1_p95": 4})],
    {(0, "cycle_distance"): 900, (0, "cycle_length"): 300},
    kind="robot_arm", windows=("1h",),
)  # fmt: skip

DAYS = F(86_400)
case(
    "steady-flow", "a piece in and one out every 2 h, 60 in between: 5 days by each of three forms",
    """
    0:00        entered=60 left=0 scrapped=0 heads=3 value_cny=500
    0:00-24:00  entered+1 left+1 age_piece_s+432000 every 7200s
    24:00       end
    """,
    [Hand("0:00", "24:00", 1 + 12, {
        "wip": 60, "throughput": F(12, 24),
        "wip_turnover_days": F(60, 12), "wip_age_days": 12 * 432_000 / DAYS / 12,
        "inventory_turns": F(12 * 365, 60), "wip_inventory_days": 365 / F(12 * 365, 60),
        "fall_off_ratio": 0, "output_per_head": F(12, 3 * 24),
        "value_per_head": F(12 * 500 * 365, 3)})],
    {(0, "wip_turnover_days"): 5, (0, "wip_age_days"): 5, (0, "wip_inventory_days"): 5,
     (0, "inventory_turns"): 73, (0, "value_per_head"): 730_000},
    kind="material_flow", windows=("1d",), start="2026-01-05T00:00:00+00:00",
)  # fmt: skip

case(
    "uneven-flow", "10 pieces for an hour, 4 for another: Little's law and ages differ",
    """
    0:00       entered=10 left=0 scrapped=0
    0:30       consumed+100 good+90 integrated_good+92 orders_finished+2 lead_order_s+259200
    0:40       production_loss+5 storage_loss+2 other_loss+1
    1:00       left+5 scrapped+1 age_piece_s+54000
    1:30       entered+4 left+4 age_piece_s+14400
    2:00       end
    """,
    [Hand("0:00", "2:00", 5, {
        "wip": F(10 + 4, 2), "throughput": F(9, 2),
        "wip_turnover_days": F(7 * 2, 9 * 24),  # 7 pieces / 4.5 pieces/h
        "wip_age_days": (54_000 + 14_400) / DAYS / 9,
        "inventory_turns": F(9 * 12 * 365, 7), "wip_inventory_days": F(7, 9 * 12),
        "fall_off_ratio": F(1, 4), "finished_goods_ratio": F(90, 100),
        "integrated_goods_ratio": F(92, 100), "production_loss_ratio": F(5, 100),
        "storage_loss_ratio": F(2, 100), "other_loss_ratio": F(1, 100),
        "order_lead_time": 259_200 / DAYS / 2})],
    {(0, "wip_turnover_days"): F(14, 216), (0, "wip_age_days"): F(19, 216),  # 7 600 s each
     (0, "order_lead_time"): F(3, 2)},
    kind="material_flow",
)  # fmt: skip

case(
    "crew", "5 present and 5 at work, 5 and 4, 4 and 2: 480 of 570 minutes",
    """
    0:00  attending=5 working=5
    1:00  attending=5 working=4
    1:30  attending=4 working=2
    2:00  end
    """,
    [Hand("0:00", "2:00", 3, {
        "worker_efficiency": F(5 * 60 + 4 * 30 + 2 * 30, 5 * 90 + 4 * 30)})],
    {(0, "worker_efficiency"): F(480, 570)},
    kind="crew",
)  # fmt: skip

LONG = Booked(apt=60, adet=60, ttr=60, fe=1, aoet=120, pq=60, run=60)
SHORT = Booked(apt=30, aoet=120, pq=30, sq=10, run=30)
CASES.append(
    Case(
        Life(
            "two-machines", "2026-01-05T06:00:00+00:00",
            (
                Machine(at("m1"), "machine", """
                0:00       planned=1 order=1 pri_s=60 scrap=0 EXECUTE
                0:00-1:00  produced+1 every 60s
                1:00       HELD
                2:00       end
                """),
                Machine(at("m2"), "machine", """
                0:00       planned=1 order=2 pri_s=60 EXECUTE
                0:00-0:30  produced+1 every 60s
                0:00-0:30  scrap+1 every 180s
                0:30       planned=0 IDLE
                2:00       end
                """),
            ),
            ("2h",),
        ),
        "120 min planned at 1/2 and 30 min at 1: the line's availability is 90/150, not 3/4",
        [Hand("0:00", "2:00", 120 + 61 + 2, unit(LONG)),
         Hand("0:00", "2:00", 120 + 31 + 2 + 1, unit(SHORT), "m2")],
        {(0, "availability"): F(1, 2), (1, "availability"): 1, (0, "quality_ratio"): 1,
         (1, "quality_ratio"): F(2, 3), (2, "availability"): F(90, 150),
         (2, "quality_ratio"): F(80, 90), (2, "oee"): F(80, 150), (2, "output"): 80},
        together=[Hand("0:00", "2:00", 183 + 154, unit(LONG + SHORT), "-")],
    )
)  # fmt: skip

# goldens ----------------------------------------------------------------------------------------


def hours_ns(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    return sign * seconds(text.lstrip("-")) * NS_PER_S


def cells(chosen: Case) -> list[list[object]]:
    """The golden rows of a case: every KPI of every asset and roll-up in every window."""
    out: list[list[object]] = []
    kinds = {m.asset.name: m.kind for m in chosen.life.machines}
    groups: list[Hand] = []
    for hand in chosen.hands:
        values = (HEARD if hand.n else UNHEARD) | hand.values
        if hand.order is not None:
            values["order_number"] = hand.order
        out += _cells(chosen.life, tuple(at(hand.asset)), hand, values)
        if not chosen.together and hand.order is None:
            cable = OF_CELLS if kinds[hand.asset] == "cable_line" else set[str]()
            groups.append(replace(hand, values={
                name: value for name, value in values.items() if name not in ALONE | cable
            }))  # fmt: skip
    for hand in chosen.together:
        values = HEARD | {name: v for name, v in hand.values.items() if name not in ALONE}
        groups.append(replace(hand, values=values))
    for hand in groups:
        for levels in (("k", "hall", "line"), ("k", "hall"), ("k",)):
            place = (*levels, *["-"] * (4 - len(levels)))
            out += _cells(chosen.life, place, hand, hand.values)
    return sorted(out, key=lambda row: (*map(str, row[:5]), row[6], row[5]))


def _cells(life: Life, place: tuple[str, ...], hand: Hand, values: Values) -> list[list[object]]:
    start_ns = epoch_ns(life.start) + hours_ns(hand.start)
    return [
        [*place, kpi, start_ns, hours_ns(hand.length), None if value is None else float(value),
         hand.n, hand.late, UNITS.get(kpi, "1")]
        for kpi, value in values.items()
    ]  # fmt: skip


def golden(chosen: Case) -> str:
    """The golden file: made by no version, so that rows are compared to nine digits."""
    head: dict[str, object] = {"golden": 1, "shows": chosen.shows, "versions": {}}
    return "\n".join((json.dumps(head), *map(json.dumps, cells(chosen)))) + "\n"


def file_of(chosen: Case) -> Path:
    return KNOWN / f"{chosen.life.name}.ndjson"


# tests ------------------------------------------------------------------------------------------

Key = tuple[Asset, str, int, int]
Replayed = Callable[[Case], tuple[Path, list[Row]]]


def by_name(name: str) -> Case:
    (found,) = [chosen for chosen in CASES if chosen.life.name == name]
    return found


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Replayed:
    """The recording of a case and its rows, each made once."""

    @cache
    def made(name: str) -> tuple[Path, list[Row]]:
        path = tmp_path_factory.mktemp(name) / "r.beilun"
        life = by_name(name).life
        messages = published(life)
        record(life, path, [messages[i : i + GROUP] for i in range(0, len(messages), GROUP)])
        return path, rows_of(path)

    return lambda chosen: made(chosen.life.name)


def rows_of(path: Path) -> list[Row]:
    with Recording.open(path) as recording:
        rows, pipeline = replay(recording)
        assert pipeline.account().closes
        assert pipeline.complete
    return rows


def close(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return abs(a - b) <= NEAR * max(abs(a), abs(b))


@pytest.mark.parametrize("chosen", CASES, ids=lambda chosen: chosen.life.name)
def test_the_golden_file_is_the_arithmetic(chosen: Case) -> None:
    assert file_of(chosen).read_text() == golden(chosen)
    places = [tuple(row[:7]) for row in cells(chosen)]
    assert len(places) == len(set(places))


@pytest.mark.parametrize("chosen", CASES, ids=lambda chosen: chosen.life.name)
def test_the_formulas_give_what_is_on_paper(chosen: Case) -> None:
    hands = [*chosen.hands, *chosen.together]
    for (place, kpi), value in chosen.says.items():
        found = hands[place].values[kpi]
        assert close(
            None if found is None else float(found), None if value is None else float(value)
        ), (place, kpi)


def test_no_golden_is_left_over() -> None:
    assert {path.name for path in KNOWN.iterdir()} == {file_of(chosen).name for chosen in CASES}


@pytest.mark.parametrize("chosen", CASES, ids=lambda chosen: chosen.life.name)
def test_the_edge_gives_the_known_rows(
    chosen: Case, replayed: Replayed, capsys: pytest.CaptureFixture[str]
) -> None:
    path, rows = replayed(chosen)
    mine = {row[:4]: row for row in rows}
    known: dict[Key, Any] = {}
    for row in map(json.loads, file_of(chosen).read_text().splitlines()[1:]):
        known[Asset(*row[:4]), row[4], row[5], row[6]] = row[7:]
    wrong = [
        (key, known.get(key), found and tuple(found[4:8]))
        for key in sorted(mine.keys() | known.keys())
        if (found := mine.get(key)) is None
        or key not in known
        or [found.n, found.late, found.unit] != known[key][1:]
        or not close(found.value, known[key][0])
    ]
    told = "\n".join(f"{a}: known {b}, edge {c}" for a, b, c in wrong[:20])
    assert not wrong, told
    assert main(["replay", str(path), "--expect", str(file_of(chosen))]) == 0
    assert f"all {len(rows):,} rows" in capsys.readouterr().out


@pytest.mark.parametrize("chosen", CASES, ids=lambda chosen: chosen.life.name)
def test_any_order_and_repetition_gives_the_same_digest(
    chosen: Case, replayed: Replayed, tmp_path: Path
) -> None:
    messages = published(chosen.life)
    dice = random.Random(chosen.life.name)
    shuffled = [*messages, *dice.sample(messages, len(messages) // 3)]
    dice.shuffle(shuffled)
    late = len(shuffled) - 20  # these come when most windows are closed
    record(chosen.life, tmp_path / "b.beilun", [shuffled[:late], shuffled[late:]])
    _, rows = replayed(chosen)
    assert digest(rows_of(tmp_path / "b.beilun")) == digest(rows)


@pytest.mark.parametrize(
    ("name", "kpi", "column", "change"),
    [
        ("perfect", "oee", 7, 0.999999998), ("overtime", "effectiveness", 7, 0.0),
        ("late", "output", 9, 0), ("two-machines", "availability", 7, 0.75),
        ("capability", "biscuit_cpk", 8, 5), ("steady-flow", "wip", 6, 3_600 * NS_PER_S),
    ],
)  # fmt: skip
def test_one_changed_golden_fails(
    name: str, kpi: str, column: int, change: object, replayed: Replayed, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    chosen = by_name(name)
    path, _ = replayed(chosen)
    head, *lines = file_of(chosen).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    place = next(i for i, row in enumerate(rows) if row[4] == kpi and row[column] != change)
    rows[place][column] = change
    changed = tmp_path / "changed.ndjson"
    changed.write_text("\n".join([head, *map(json.dumps, rows)]) + "\n")
    assert main(["replay", str(path), "--expect", str(changed)]) == 1
    gone = 2 if column == 6 else 1  # a row somewhere else is one too few and one too many
    assert f"{kpi}: {gone} rows moved" in capsys.readouterr().out


def test_a_life_is_the_same_bytes_again() -> None:
    for chosen in CASES:
        assert published(chosen.life) == published(chosen.life)


UNKNOWN = {
    "service_*", "misses_in_a_row", "messages", "endpoint_delay", "radio_delay", "core_delay",
    "transport_delay", "pressure_*", "diameter_*", "eccentricity_*", "spark_faults_per_km",
    "co2_per_metre", "uplink_*", "downlink_*",
}  # fmt: skip
"""KPIs that no machine here has."""


def test_every_other_kpi_has_a_known_answer_that_is_a_number() -> None:
    answered = {row[4] for chosen in CASES for row in cells(chosen) if row[7] is not None}
    answered.discard("order_number")
    for name in kpis.load():
        excused = any(
            name == glob or (glob.endswith("*") and name.startswith(glob[:-1])) for glob in UNKNOWN
        )
        assert (name in answered) != excused, name


if __name__ == "__main__":
    KNOWN.mkdir(exist_ok=True)
    for each in CASES:
        file_of(each).write_text(golden(each))
