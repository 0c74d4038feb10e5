"""Robot arms: cycle time as the controller reports it."""

from edge.kpi import Kpi, bins, ratio
from edge.measures import Facts
from edge.measures.values import Values

_STEPS_PER_S = 1_000
_CYCLE = Values("cycle_s", _STEPS_PER_S, stream="event")


def cycle_time(facts: Facts) -> float | None:
    histogram = bins(facts, "cycle_s_bins")
    total = sum(step * count for step, count in histogram.items())
    return ratio(total, sum(histogram.values()) * _STEPS_PER_S)


KPIS = (
    Kpi(
        name="arm_cycle_time", unit="s", better="down", kinds=("robot_arm",), needs=("cycle_s",),
        summary="Mean time of the cycles that ended in the window.",
        formula="sum of cycle times / cycles", clause="OPC 40001-1 OperationDuration",
        measures=(_CYCLE,), value=cycle_time, rolls_up=True,
    ),
)  # fmt: skip
