"""5QI: what TS 23.501 table 5.7.4-1 promises a flow. Data; the scheduler uses the priority."""

from typing import NamedTuple


class FiveQi(NamedTuple):
    """One row. The budget is one way between device and user plane function."""

    priority: int
    """Smaller goes first."""
    budget_ms: int
    error_ratio: float
    burst_bytes: int | None
    """Largest burst that a delay-critical flow may send within its budget."""
    example: str


FIVE_QI = {
    3: FiveQi(30, 50, 1e-3, None, "process-automation monitoring"),
    7: FiveQi(70, 100, 1e-3, None, "interactive video"),
    9: FiveQi(90, 300, 1e-6, None, "best effort"),
    80: FiveQi(68, 10, 1e-6, None, "low-latency eMBB"),
    82: FiveQi(19, 10, 1e-4, 255, "discrete automation"),
    83: FiveQi(22, 10, 1e-4, 1_354, "discrete automation"),
    84: FiveQi(24, 30, 1e-5, 1_354, "transport systems"),
    85: FiveQi(21, 5, 1e-5, 255, "electricity, high voltage"),
    86: FiveQi(18, 5, 1e-4, 1_354, "V2X, advanced driving"),
}
