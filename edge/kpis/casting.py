"""Die-casting cells: the time of a shot."""

from edge.kpi import Kpi
from edge.kpis.arm import CYCLE, TO_HALF_A_MS, cycle_time

KPIS = (
    Kpi(
        name="shot_cycle_time", unit="s", better="down", kinds=("casting_cell",),
        needs=("cycle_s",),
        summary="Mean time of the shots that ended in the window.",
        formula="sum of cycle times / shots", clause="OPC 40001-1 OperationDuration",
        measures=(CYCLE,), value=cycle_time, rolls_up=True, accuracy=TO_HALF_A_MS,
    ),
)  # fmt: skip
