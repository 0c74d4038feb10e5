"""Where OEE went: planned time to effective time, with every nanosecond in exactly one loss.

Theory of operation
===================

The facts are those of the KPI ``oee`` itself (`edge.kpis.oee.UNIT`), folded once more from the
messages of one machine, so that what is left at the end over planned time *is* its OEE:

    covered ─┬─ not planned
             └─ planned (PBT) ─┬─ no evidence: nobody heard the machine
                               └─ seen ─┬─ unplanned stops   held, aborted, repaired
                                        ├─ planned stops     set up, warmed up, serviced
                                        ├─ suspended         blocked or starved
                                        ├─ other stops       stopping, by hand, nothing to do
                                        └─ producing (APT) ─┬─ reduced speed
                                                            └─ at the planned pace ─┬─ scrap
                                                                                    ├─ rework
                                                                                    └─ effective

Times are integers and parts of them exact fractions, so the sums close exactly and not nearly.
Stops are told apart by what `edge.iso22400` tells time by: state, order, mode, maintenance.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from edge.columns import Columns
from edge.iso22400 import (
    CORRECTIVE,
    DELAY,
    DOWN,
    FAILED,
    MAINTAINED,
    PREVENTIVE,
    PRODUCTION,
    element,
)
from edge.kpi import number
from edge.kpis.oee import UNIT, good, planned_run_us, seen_ns
from edge.measures import Fact, add_facts, tailored
from edge.measures.situations import Rises, Situations, Times
from ingest.messages import Batch, Birth
from ingest.packml import Mode, PackML

UNPLANNED = "unplanned_stops"
PLANNED = "planned_stops"
SUSPENDED = "suspended"
OTHER = "other_stops"
SPEED = "reduced_speed"
SCRAP = "scrap"
REWORK = "rework"
STOPS = (UNPLANNED, PLANNED, SUSPENDED, OTHER)
"""Classes of losses in which a machine does not produce, in the order of the tree."""


class Reason(NamedTuple):
    """Why a machine did not produce: the class of the loss, and what the machine said."""

    loss: str
    code: str
    """``mode_setup``, ``held``, ``no_order`` ...: a state in lower case where that tells most."""


_SUSPENDED = frozenset({PackML.SUSPENDING, PackML.SUSPENDED, PackML.UNSUSPENDING})
_SPECIAL = {
    CORRECTIVE: Reason(UNPLANNED, "corrective_maintenance"),
    PREVENTIVE: Reason(PLANNED, "preventive_maintenance"),
    MAINTAINED: Reason(PLANNED, "maintenance"),
}


def reason_of(
    state: int | None, order: int | None, mode: int | None = None, maintenance: int | None = None
) -> Reason | None:
    """Why a moment of planned time was lost; ``None``: it was not (it produced), or nobody knows.

    It is a reason exactly where `edge.iso22400.element` finds an element other than production.
    """
    where = element(state, order, mode, maintenance)
    if where is None or where == PRODUCTION:
        return None
    if where in _SPECIAL:
        return _SPECIAL[where]
    assert state is not None
    name = PackML(state).name.lower()
    if where == DOWN:
        idle = order is not None and order <= 0
        return Reason(OTHER, "no_order" if idle else name)
    if where == DELAY:
        if state in FAILED:
            return Reason(UNPLANNED, name)
        if mode == Mode.MANUAL:
            return Reason(OTHER, "by_hand")
        return Reason(SUSPENDED if state in _SUSPENDED else OTHER, name)
    return Reason(PLANNED, "mode_setup" if mode == Mode.SETUP else name)


_CALENDAR = "unplanned_ns"


def _describe(times: Times, rises: Rises) -> dict[str, Fact]:
    del rises
    facts: dict[str, int] = {}
    for (state, planned, order, _, mode, maintenance), spent_ns in times:
        if not planned:
            facts[_CALENDAR] = facts.get(_CALENDAR, 0) + spent_ns
        elif (reason := reason_of(state, order, mode, maintenance)) is not None:
            name = "/".join(reason)
            facts[name] = facts.get(name, 0) + spent_ns
    return dict(facts)


_REASONS = Situations("stops", UNIT.components, (), _describe)


@dataclass(frozen=True, slots=True)
class Account:
    """Facts of one machine over a stretch of time, or of several together."""

    covered_ns: int
    """Time that was looked at, over all machines."""
    facts: Mapping[str, Fact]
    """Of `edge.kpis.oee.UNIT`."""
    stops: Mapping[Reason, int]
    """Planned time in ns by reason."""
    machines: int = 1
    counts: bool = True
    """Whether every machine counts its pieces: one that does not has no OEE, and no speed or scrap
    that could be told apart."""


def account(batches: Sequence[Batch], birth: Birth, start_ns: int, end_ns: int) -> Account:
    """The facts of one machine in ``[start_ns, end_ns)``.

    ``batches`` are its messages of that time and of as much before as it takes to know calendar,
    order and state when it begins: what was told before the first of them is not known. Each
    identity once; `beilun.serving.reading` gives them so.
    """
    units, reasons = tailored(UNIT, birth), tailored(_REASONS, birth)
    before_ns = min((int(b.t_ns[0]) for b in batches if len(b)), default=start_ns)
    facts: list[Mapping[str, Fact]] = []
    for measure in (units, reasons):
        state = measure.fold(Columns(batches, start_ns, end_ns))
        if before_ns < start_ns:
            known = measure.edge(measure.fold(Columns(batches, before_ns, start_ns)), start_ns)
            state = measure.merge(known, state)
        facts.append(measure.facts(state))
    stops: dict[Reason, int] = {}
    for name in facts[1]:
        loss, slash, code = name.partition("/")
        if slash:
            stops[Reason(loss, code)] = number(facts[1], name) or 0
    return Account(end_ns - start_ns, facts[0], stops, counts="produced" in birth.channels)


def together(accounts: Iterable[Account]) -> Account:
    """Several machines as one: times and pieces add up."""
    covered_ns, machines, counts = 0, 0, True
    facts: dict[str, Fact] = {}
    stops: dict[Reason, int] = {}
    for one in accounts:
        covered_ns += one.covered_ns
        machines += one.machines
        counts = counts and one.counts
        facts = add_facts(facts, one.facts)
        for reason, spent_ns in one.stops.items():
            stops[reason] = stops.get(reason, 0) + spent_ns
    return Account(covered_ns, facts, stops, machines, counts)


@dataclass(frozen=True, slots=True)
class Tree:
    """The loss tree of an account; times in ns, exact.

    Where nobody planned the pace of some pieces, or counts them, it ends at production: ``paced``
    and what follows are ``None``, and so is ``oee``.
    """

    covered_ns: int
    planned_ns: int
    dark_ns: int
    """Planned, and nobody heard the machine: it is in no loss, and OEE is of what was seen."""
    seen_ns: int
    stops_ns: Mapping[str, int]
    """By class, all of ``STOPS``."""
    producing_ns: int
    paced_ns: int | None
    """What the pieces were planned to take; more than ``producing_ns`` where they went faster."""
    scrap_ns: Fraction | None
    rework_ns: Fraction | None
    effective_ns: Fraction | None

    @property
    def losses_ns(self) -> dict[str, Fraction]:
        """By class, ``STOPS`` first, as far as known. A negative one is a gain: pieces
        that took less than planned."""
        found = {name: Fraction(self.stops_ns[name]) for name in STOPS}
        if self.paced_ns is not None and self.scrap_ns is not None and self.rework_ns is not None:
            found[SPEED] = Fraction(self.producing_ns - self.paced_ns)
            found[SCRAP] = self.scrap_ns
            found[REWORK] = self.rework_ns
        return found

    @property
    def left_ns(self) -> Fraction:
        """What the losses leave of the time seen: effective time, or as far as that is known."""
        return Fraction(self.producing_ns) if self.effective_ns is None else self.effective_ns

    @property
    def oee(self) -> float | None:
        """Effective time over planned time that was seen: the KPI ``oee`` to the bit."""
        if self.effective_ns is None or not self.seen_ns:
            return None
        return float(self.effective_ns / self.seen_ns)

    @property
    def closes(self) -> bool:
        """Whether everything adds up."""
        return (
            self.seen_ns + self.dark_ns == self.planned_ns <= self.covered_ns
            and sum(self.losses_ns.values(), self.left_ns) == self.seen_ns
        )


def tree(of: Account) -> Tree:
    """Share the time of an account out."""
    facts = of.facts
    planned_ns = number(facts, "pbt_ns") or 0
    stops_ns: dict[str, int] = dict.fromkeys(STOPS, 0)
    for reason, spent_ns in of.stops.items():
        stops_ns[reason.loss] += spent_ns
    made, run_us = number(facts, "produced") or 0, planned_run_us(facts) if of.counts else None
    producing_ns = number(facts, "apt_ns") or 0
    scrap_ns = rework_ns = effective_ns = paced_ns = None
    if run_us is not None:
        # Without production or pieces nothing is effective, as OEE has it: 0.
        paced_ns = run_us * 1_000 if producing_ns and made else 0
        per_piece = Fraction(paced_ns, made) if made else Fraction(0)
        scrap_ns = per_piece * (number(facts, "scrap") or 0)
        rework_ns = per_piece * (number(facts, "rework") or 0)
        effective_ns = per_piece * (good(facts) or 0)
    return Tree(
        of.covered_ns, planned_ns, number(facts, "dark_ns") or 0, seen_ns(facts) or 0, stops_ns,
        producing_ns, paced_ns, scrap_ns, rework_ns, effective_ns,
    )  # fmt: skip


class Cause(NamedTuple):
    """One bar of a Pareto chart."""

    reason: Reason
    spent_ns: int
    share: float
    """Of all stops."""
    running: float
    """Share of this and all greater ones."""


def pareto(of: Account) -> list[Cause]:
    """Reasons of stops, the greatest first; equal ones by name."""
    total_ns = sum(of.stops.values())
    return list(_running(sorted(of.stops.items(), key=lambda item: (-item[1], item[0])), total_ns))


def _running(stops: Sequence[tuple[Reason, int]], total_ns: int) -> Iterator[Cause]:
    passed_ns = 0
    for reason, spent_ns in stops:
        if spent_ns:
            passed_ns += spent_ns
            yield Cause(reason, spent_ns, spent_ns / total_ns, passed_ns / total_ns)
