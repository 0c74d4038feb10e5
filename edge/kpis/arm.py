"""Robot arms: cycles, protective stops, lost grips, joint load."""

from collections.abc import Callable

from edge.kpi import BY_SAMPLES, Accuracy, Kpi, bins, median, number, quantile, ratio
from edge.measures import Facts
from edge.measures.flags import Flags
from edge.measures.runs import CounterRuns
from edge.measures.values import Values

_STEPS_PER_S = 1_000
CYCLE = Values("cycle_s", _STEPS_PER_S, stream="event")
TO_HALF_A_MS = Accuracy(absolute=0.5 / _STEPS_PER_S)
_RUNS = CounterRuns("cycle")
_STEPS_PER_A = 1_000
_J1 = Values("current_j1_a", _STEPS_PER_A)
_ARM = ("robot_arm",)
_CYCLE_CLAUSE = "OPC 40001-1 OperationCycleCounter"


def cycle_time(facts: Facts) -> float | None:
    histogram = bins(facts, "cycle_s_bins")
    total = sum(step * count for step, count in histogram.items())
    return ratio(total, sum(histogram.values()) * _STEPS_PER_S)


def _runs(count: Callable[[Facts], int]) -> Callable[[Facts], float | None]:
    return lambda facts: float(count(facts)) if "cycle_runs_values" in facts else None


def _median_s(name: str) -> Callable[[Facts], float | None]:
    def value(facts: Facts) -> float | None:
        found = median(bins(facts, name))
        return None if found is None else found / 1_000

    return value


def _rises(channel: str) -> Callable[[Facts], float | None]:
    def value(facts: Facts) -> float | None:
        return float(number(facts, f"{channel}_rises") or 0) if _known(facts, channel) else None

    return value


def _true_ratio(channel: str) -> Callable[[Facts], float | None]:
    return lambda facts: ratio(number(facts, f"{channel}_true"), _known(facts, channel))


def _true_share(channel: str) -> Callable[[Facts], float | None]:
    def value(facts: Facts) -> float | None:
        known, blank = _known(facts, channel), number(facts, f"{channel}_blank")
        return ratio(number(facts, f"{channel}_true"), known and known + (blank or 0))

    return value


def _blank(channel: str) -> Callable[[Facts], float | None]:
    def value(facts: Facts) -> float | None:
        blank = number(facts, f"{channel}_blank")
        return None if blank is None else float(blank)

    return value


def _known(facts: Facts, channel: str) -> int | None:
    return number(facts, f"{channel}_known") or None


def _current(share: float) -> Callable[[Facts], float | None]:
    def value(facts: Facts) -> float | None:
        step = quantile(bins(facts, "current_j1_a_bins"), share)
        return None if step is None else step / _STEPS_PER_A

    return value


def _flag_kpis(channel: str, what: str, clause: str) -> tuple[Kpi, ...]:
    measures = (Flags(channel),)
    return (
        Kpi(
            name=f"{channel}s" if channel.endswith("stop") else f"{channel}_events",
            unit="{event}", better="down", kinds=_ARM, needs=(channel,),
            summary=f"How often {what} began; a blank cell neither begins nor ends one.",
            formula="rising edges between known samples", clause=clause,
            measures=measures, value=_rises(channel), rolls_up=True,
            accuracy=BY_SAMPLES,
        ),
        Kpi(
            name=f"{channel}_ratio", unit="1", better="down", kinds=_ARM, needs=(channel,),
            summary=f"Share of known samples with {what}.",
            formula="true samples / known samples", clause=clause,
            measures=measures, value=_true_ratio(channel), rolls_up=True,
            accuracy=BY_SAMPLES,
        ),
        Kpi(
            name=f"{channel}_share", unit="1", better="down", kinds=_ARM, needs=(channel,),
            summary=f"Share of all samples that are known to have {what}: blank ones count below.",
            formula="true samples / (known + blank samples)", clause=clause,
            measures=measures, value=_true_share(channel), rolls_up=True,
            accuracy=BY_SAMPLES,
        ),
        Kpi(
            name=f"{channel}_blank", unit="{sample}", better="down", kinds=_ARM, needs=(channel,),
            summary=f"Samples that do not say whether there was {what}.",
            formula="blank samples", clause=clause,
            measures=measures, value=_blank(channel), rolls_up=True,
        ),
    )  # fmt: skip


def _current_kpi(name: str, share: float) -> Kpi:
    return Kpi(
        name=name, unit="A", better="", kinds=_ARM, needs=("current_j1_a",),
        summary=f"Current of joint 1 that {share:.0%} of samples stay at or below, to 1 mA.",
        formula=f"quantile {share}, nearest rank", clause="OPC 40010-1 motor load",
        measures=(_J1,), value=_current(share), bounds=(None, None),
        accuracy=Accuracy(absolute=0.5 / _STEPS_PER_A),
    )  # fmt: skip


KPIS = (
    Kpi(
        name="arm_cycle_time", unit="s", better="down", kinds=_ARM, needs=("cycle_s",),
        summary="Mean time of the cycles that ended in the window.",
        formula="sum of cycle times / cycles", clause="OPC 40001-1 OperationDuration",
        measures=(CYCLE,), value=cycle_time, rolls_up=True, accuracy=TO_HALF_A_MS,
    ),
    Kpi(
        name="cycle_runs", unit="{run}", better="", kinds=_ARM, needs=("cycle",),
        summary="Runs of equal readings of the cycle counter that began in the window.",
        formula="runs", clause=_CYCLE_CLAUSE,
        measures=(_RUNS,), value=_runs(lambda f: sum(bins(f, "cycle_runs_values").values())),
    ),
    Kpi(
        name="cycles_distinct", unit="{cycle}", better="up", kinds=_ARM, needs=("cycle",),
        summary="Different cycles seen; one that comes back counts once.",
        formula="different values of runs", clause=_CYCLE_CLAUSE,
        measures=(_RUNS,), value=_runs(lambda f: len(bins(f, "cycle_runs_values"))),
    ),
    Kpi(
        name="cycle_distance", unit="s", better="down", kinds=_ARM, needs=("cycle",),
        summary="Median time from the start of a cycle to the start of the next.",
        formula="median of start to start", clause="OPC 40001-1 OperationDuration",
        measures=(_RUNS,), value=_median_s("cycle_runs_distances"),
    ),
    Kpi(
        name="cycle_length", unit="s", better="down", kinds=_ARM, needs=("cycle",),
        summary="Median time from the first to the last sample of the cycles that are over.",
        formula="median of first to last sample", clause="OPC 40001-1 OperationDuration",
        measures=(_RUNS,), value=_median_s("cycle_runs_lengths"),
    ),
    *_flag_kpis("protective_stop", "a protective stop", "OPC 40010-1 ProtectiveStop"),
    *_flag_kpis("grip_lost", "a lost grip", "OPC 40010-1 tool state"),
    _current_kpi("current_j1_p5", 0.05),
    _current_kpi("current_j1_p50", 0.5),
    _current_kpi("current_j1_p95", 0.95),
)  # fmt: skip
