"""Truth of material and persons: pieces in process, their ages, losses, orders, heads."""

from fractions import Fraction

from config.units import NS_PER_DAY, NS_PER_MS
from simulator.mes import Crew, Flow
from simulator.truth.evidence import Family, Sums, Values
from simulator.truth.units import HOUR_NS
from simulator.truth.windows import Integral, Run, Windows, as_is, marks

_YEAR_NS = 365 * NS_PER_DAY


def _of_material(s: Sums) -> Values:
    yield "wip", s.ratios("held", "time")
    days = s.ratios("held", "left", Fraction(1, NS_PER_DAY))
    yield "wip_turnover_days", days
    # With the average inventory over time the turns say the same as Little's law.
    yield "wip_inventory_days", [d or None for d in days]
    yield "inventory_turns", s.ratios("left", "held", _YEAR_NS)
    yield "wip_age_days", s.ratios("age_ms", "left", Fraction(NS_PER_MS, NS_PER_DAY))
    yield "order_lead_time", s.ratios("lead_ms", "finished", Fraction(NS_PER_MS, NS_PER_DAY))
    yield "throughput", s.ratios("left", "time", HOUR_NS)
    yield "fall_off_ratio", s.ratios("scrapped", "entered")
    for name, what in (
        ("finished_goods_ratio", "good"), ("integrated_goods_ratio", "good"),
        ("production_loss_ratio", "production_loss"), ("storage_loss_ratio", "storage_loss"),
        ("other_loss_ratio", "other_loss"),
    ):  # fmt: skip
        yield name, s.ratios(what, "consumed")


def _of_heads(s: Sums) -> Values:
    yield "output_per_head", s.ratios("left", "there", HOUR_NS)
    yield "value_per_head", s.ratios("value", "there", _YEAR_NS)


def _of_work(s: Sums) -> Values:
    yield "worker_efficiency", s.ratios("at_work", "there")


def material(run: Run, flow: Flow, w: Windows) -> list[Family]:
    """Of the flow of pieces through the plant."""
    at = marks(run.start_ns, run.end_ns, (flow.entered, flow.left, flow.scrapped))
    entered, left, scrapped = (log.at(at) for log in (flow.entered, flow.left, flow.scrapped))
    gone = w.events(flow.left)
    sums = Sums({
        "held": w.spent(Integral(at, entered - left - scrapped, run.end_ns)),
        "time": w.lengths,
        "left": gone,
        "entered": w.events(flow.entered),
        "scrapped": w.events(flow.scrapped),
        "age_ms": w.events(flow.age_ms),
        "finished": w.events(flow.finished),
        "lead_ms": w.events(flow.lead_ms),
        "consumed": w.flowed(flow.entered.at),
        "good": w.flowed(flow.left.at),
        "production_loss": w.flowed(flow.production_loss.at),
        "storage_loss": w.flowed(flow.storage_loss.at),
        "other_loss": w.flowed(flow.other_loss.at),
    })  # fmt: skip
    found = [Family(sums, _of_material, pooled=True)]
    if flow.staff is not None:
        each = Fraction(str(flow.staff.value_cny_per_piece))
        heads = Fraction(str(flow.staff.heads))
        sums = Sums({
            "left": gone,
            "value": [n * each for n in gone],
            "there": [heads * ns for ns in w.lengths],
        })  # fmt: skip
        found.append(Family(sums, _of_heads, pooled=True))
    return found


def persons(run: Run, crew: Crew, w: Windows) -> list[Family]:
    """Of those who work there."""
    crew.follow(run.end_ns)
    sums = Sums({
        "at_work": run.spent(w, (crew.working, as_is)),
        "there": run.spent(w, (crew.attending, as_is)),
    })  # fmt: skip
    return [Family(sums, _of_work, pooled=True)]
