"""Whether scenarios come out at what was published: runs over seeds, steady parts, claims judged.

Theory of operation
===================

    scenario + seed ─► factory ─► messages ─► decoder ─► engine ─► KPI rows      (a process each)
                                                           │
             a window for every step:  |--|--|--|--|--|    ├─► course of the KPIs that warm up
             and for every possible                        │
             end of the warm-up:            |-----------|  └─► KPIs over what is left
                                       cut ▲

There is no broker and no file; decoder and engine are those of any run, with the windows above and
the KPIs that are claimed; what assets say that have none of these is not read. The warm-up is found
after all seeds have run (``steady``). A value is the KPI over the whole steady stretch as the
engine computes it, not a mean of daily values: a ratio such as WIP over throughput is then that of
the sums. Scenarios that are compared run with the same seeds, and every stream of dice belongs to a
device, so differences are taken seed by seed.
"""

import gc
import os
import signal
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import gcd
from multiprocessing import get_context, parent_process
from multiprocessing.synchronize import Event
from threading import Thread
from typing import TYPE_CHECKING

from beilun.offline import RUN, make_factory
from beilun.steady import BATCH, FEWEST, Estimate, WarmUp, estimate, warm_up
from beilun.verdict import asset_path
from config.claims import Claim, Headlines
from config.errors import ConfigError
from config.globs import asset_matches
from config.scenario import Scenario
from config.units import NS_PER_DAY, format_duration
from config.windows import Span
from edge import kpis
from edge.engine import Engine
from edge.kpi import Kpi
from edge.policy import Policy
from edge.rows import Row
from ingest import topics
from ingest.broker import die_with_parent
from ingest.decode import Decoder
from ingest.messages import Batch, Birth, Record, Reject

if TYPE_CHECKING:
    from simulator.factory import Made, ProgressAt

Wanted = tuple[str, str]
"""A KPI, and a glob that means one asset."""


@dataclass(frozen=True, slots=True)
class Spans:
    """Windows that lie just there."""

    spans: tuple[Span, ...]

    label = "steady"

    @property
    def grain_ns(self) -> int:
        return gcd(*(edge_ns for span in self.spans for edge_ns in span))

    @property
    def shortest_ns(self) -> int:
        return min(span.length_ns for span in self.spans)

    @property
    def nominal_ns(self) -> int:
        return max(span.length_ns for span in self.spans)

    def over(self, first_ns: int, last_ns: int) -> list[Span]:
        return [s for s in self.spans if s.start_ns < last_ns and first_ns < s.end_ns]

    def ending(self, t_ns: int) -> list[Span]:
        return [span for span in self.spans if span.end_ns == t_ns]


class Memory:
    """What was fed, as the engine's past."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, int, Record]] = []

    def keep(self, records: Iterable[Record]) -> None:
        """Remember the samples among some records."""
        for record in records:
            message = record.message
            if isinstance(message, Batch):
                times = [int(message.t_ns[0]), int(message.t_ns[-1])]
                times += [] if message.meta.sent_ns is None else [message.meta.sent_ns]
                self._kept.append((min(times), max(times), record))

    def recall(self, first_ns: int, last_ns: int) -> list[Record]:
        return [record for low, high, record in self._kept if low <= last_ns and first_ns <= high]


class Reader:
    """Reads what KPIs are made of: all that assets say which have one of them, and from everybody
    else births, how far a connection is, and one message at a time that somebody was heard of."""

    def __init__(self, kpis: Sequence[Kpi]) -> None:
        self._kpis = kpis
        self._decoder = Decoder()
        self._unread = set[str]()
        """Topics of assets that have none of the KPIs, as their births say."""

    def read(self, items: Iterable["Made | ProgressAt"]) -> list[Record]:
        """The records of a chunk; of what is of no KPI only the last: that somebody was heard of
        then has windows that end there make rows."""
        records, passed = list[Record](), None
        for item in items:
            if item.topic in self._unread:
                passed = item
            else:
                records += self._records(item)
        return records if passed is None else records + self._records(passed)

    def _records(self, item: "Made | ProgressAt") -> list[Record]:
        read = self._decoder.receive(item.topic, item.payload, 0)
        if isinstance(read, Reject):
            raise RuntimeError(f"a message of our own cannot be read: {read.reason}")
        for record in read:
            if isinstance(record.message, Birth):
                self._note(record.message)
        return read

    def _note(self, born: Birth) -> None:
        said = {topics.of(born.asset, stream) for stream in topics.STREAMS if stream != "birth"}
        if any(kpi.applies(born.kind, born.channels, born.limits) for kpi in self._kpis):
            self._unread -= said
        else:
            self._unread |= said


@contextmanager
def _rarely_collecting() -> Generator[None]:
    """Have the collector leave alone what is there, and look seldom at what comes: a run makes
    hardly any cycles, but a collection looks at the whole factory."""
    usual = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


_OBJECTS = 50_000


@dataclass(frozen=True, slots=True)
class Run:
    """One run to be made: all that a process must know."""

    scenario: Scenario
    seed: int
    step_ns: int
    wanted: tuple[Wanted, ...]

    @property
    def steps(self) -> list[Span]:
        """The run, step by step; what is less than a step at its end is left out."""
        start_ns = self.scenario.start
        n = self.scenario.length // self.step_ns
        edges = [start_ns + k * self.step_ns for k in range(n + 1)]
        return [Span(a, b) for a, b in pairwise(edges)]

    @property
    def stretches(self) -> list[Span]:
        """What may be left of it: from the start, from the end of each batch of its first half."""
        steps = self.steps
        last = len(steps) // BATCH // 2 * BATCH
        return [Span(steps[k].start_ns, steps[-1].end_ns) for k in range(0, last + 1, BATCH)]


@dataclass(frozen=True, slots=True)
class Observed:
    """What one run came to: by KPI, its course step by step, and its value by what is left."""

    course: Mapping[Wanted, list[float | None]]
    left: Mapping[Wanted, list[float | None]]


def observe(run: Run) -> Observed:
    """Make one run."""
    steps, stretches = run.steps, run.stretches
    windows = Spans((*steps, *stretches))
    edge = run.scenario.edge.model_copy(  # what a step tells of is sent within the next
        update={
            "pane": windows.grain_ns,
            "windows": (format_duration(run.step_ns),),
            "lateness": max(run.scenario.edge.lateness, run.step_ns),
        }
    )
    scenario = run.scenario.model_copy(update={"seed": run.seed, "edge": edge})
    policy = Policy(edge.pane, (windows,), edge.lateness, edge.retention, edge.max_skew)
    known = kpis.load()
    made = [known[name] for name in dict.fromkeys(kpi for kpi, _ in run.wanted)]
    memory = Memory()
    engine, reader = Engine(policy, made, memory, run=RUN), Reader(made)
    factory = make_factory(scenario, RUN)
    found: dict[tuple[Wanted, Span], Row] = {}
    with _rarely_collecting():
        for chunk in factory.chunks(run.step_ns):
            records = reader.read(chunk.in_order())
            memory.keep(records)
            engine.feed(records)
            _sort_in(found, run.wanted, engine.advance())
    _sort_in(found, run.wanted, engine.finish())

    def values(wanted: Wanted, spans: Sequence[Span]) -> list[float | None]:
        rows = [found.get((wanted, span)) for span in spans]
        return [None if row is None else row.value for row in rows]

    return Observed(
        {wanted: values(wanted, steps) for wanted in run.wanted},
        {wanted: values(wanted, stretches) for wanted in run.wanted},
    )


def _sort_in(
    found: dict[tuple[Wanted, Span], Row], wanted: Sequence[Wanted], rows: Iterable[Row]
) -> None:
    """Keep the rows that are wanted; raises ``ConfigError`` where a glob means several assets."""
    for row in rows:
        for kpi, asset in wanted:
            if row.kpi != kpi or not asset_matches(asset, asset_path(row.asset)):
                continue
            other = found.setdefault(((kpi, asset), row.span), row)
            if other.asset != row.asset:
                both = f"{asset_path(other.asset)} and {asset_path(row.asset)}"
                raise ConfigError(
                    f"{kpi}@{asset} means {both}",
                    at="claims",
                    hint="write the whole path, with slashes",
                )
            found[(kpi, asset), row.span] = row


# many runs --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A scenario, or one with some of its changes, over all seeds."""

    scenario: Scenario
    headlines: Headlines
    seeds: tuple[int, ...]
    observed: tuple[Observed, ...]

    @cached_property
    def warm_up(self) -> WarmUp:
        """The longest of its warm-ups; not found where one is not."""
        found = [
            warm_up([one.course[s.kpi, s.asset] for one in self.observed])
            for s in self.headlines.warm_up
        ]
        steps = max(each.steps for each in found)
        return WarmUp(steps, found=all(each.found for each in found))

    @property
    def cut_ns(self) -> int:
        """What is cut at the start of each run."""
        return self.warm_up.steps * self.headlines.step

    @property
    def steady_ns(self) -> int:
        """How long a stretch is that values are of."""
        whole = self.scenario.length // self.headlines.step * self.headlines.step
        return whole - self.cut_ns

    def values(self, wanted: Wanted) -> list[float | None]:
        """A KPI over the steady stretch, seed by seed."""
        place = self.warm_up.steps // BATCH
        return [one.left[wanted][place] for one in self.observed]


Done = Callable[[int, str], None]
"""Told after each run: how many are done, and which it was."""


def cases(
    asked: Sequence[tuple[Scenario, Headlines, Collection[Wanted]]],
    seeds: Sequence[int],
    *,
    jobs: int,
    done: Done,
) -> list[Case]:
    """Run scenarios over seeds, each run in a process of its own; the same for any ``jobs``."""
    for scenario, headlines, _ in asked:
        if scenario.length < FEWEST * BATCH * headlines.step:
            length, step = format_duration(scenario.length), format_duration(headlines.step)
            raise ConfigError(
                f"lasts {length}; the warm-up test needs {FEWEST * BATCH} steps of {step} or more",
                at=f"scenario {scenario.name}",
            )
    runs = [
        Run(scenario, seed, headlines.step, tuple(sorted(wanted)))
        for scenario, headlines, wanted in asked
        for seed in seeds
    ]
    found = _made(runs, jobs, done)
    n = len(seeds)
    return [
        Case(scenario, headlines, tuple(seeds), tuple(found[i * n : (i + 1) * n]))
        for i, (scenario, headlines, _) in enumerate(asked)
    ]


def _made(runs: Sequence[Run], jobs: int, done: Done) -> list[Observed]:
    if jobs == 1:
        out: list[Observed] = []
        for run in runs:
            out.append(observe(run))
            done(len(out), _name(run))
        return out
    found: dict[int, Observed] = {}
    # A forked child would have the parent's threads' locks; a spawned one begins anew everywhere.
    context = get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(
        min(jobs, len(runs)), mp_context=context, initializer=_listen, initargs=(stop,)
    ) as pool:
        places = {pool.submit(observe, run): place for place, run in enumerate(runs)}
        try:
            for future in as_completed(places):
                found[places[future]] = future.result()
                done(len(found), _name(runs[places[future]]))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop.set()
            raise
    return [found[place] for place in range(len(runs))]


def _listen(stop: Event) -> None:
    """Have this process end with the parent's word, not with the Ctrl-C that reaches both, nor live
    longer than it."""
    parent = parent_process()
    assert parent is not None and parent.pid is not None
    die_with_parent(parent.pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_leave_at, args=(stop,), daemon=True).start()


def _leave_at(stop: Event) -> None:
    stop.wait()
    os._exit(1)


def _name(run: Run) -> str:
    return f"{run.scenario.name}, seed {run.seed}"


def cores() -> int:
    """How many processes can work at once."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


# judging ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim and what came out."""

    scenario: str
    claim: Claim
    unit: str
    values: tuple[float | None, ...]
    """Seed by seed."""
    estimate: Estimate | None
    band: tuple[float, float] | None
    ok: bool
    detail: str = ""

    @property
    def place(self) -> float | None:
        """Where in a published band the mean lies: 0 is its low end, 1 its high one."""
        band = self.claim.band
        if band is None or self.estimate is None or band[0] == band[1]:
            return None
        low, high = band
        return (self.estimate.mean - low) / (high - low)

    @property
    def sure(self) -> bool:
        """Whether the whole interval lies in the band."""
        if self.band is None or self.estimate is None or self.estimate.half is None:
            return False
        return self.band[0] <= self.estimate.low and self.estimate.high <= self.band[1]


def wanted_of(headlines: Headlines, others: Iterable[Headlines] = ()) -> set[Wanted]:
    """The KPIs a scenario's runs must tell, of its own claims and those of others against it."""
    found: set[Wanted] = {(each.kpi, each.asset) for each in headlines.warm_up}
    for claim in headlines.claim:
        found.add((claim.kpi, claim.asset))
        if claim.same_as:
            found.add((claim.same_as, claim.asset))
    for other in others:
        found |= {(c.kpi, c.asset) for c in other.claim if c.against == headlines.scenario}
    return found


def judge(case: Case, by_name: Mapping[str, Case]) -> list[Judged]:
    """Every claim about a scenario. A run without a steady state meets none that has a band."""
    return [_judge(claim, case, by_name) for claim in case.headlines.claim]


def _judge(claim: Claim, case: Case, by_name: Mapping[str, Case]) -> Judged:
    name = case.headlines.scenario
    values = measured(claim, case, by_name)
    unit = "1" if claim.against or claim.same_as else kpis.load()[claim.kpi].unit
    found = estimate(values)
    band = claim.band
    if claim.same_as:
        effect = _edge_effect(claim, case)
        band = None if effect is None else (-effect, effect)
    unsteady = [c for c in (case, by_name.get(claim.against)) if c and not c.warm_up.found]
    detail = ""
    if found is None:
        detail = "no data"
    elif unsteady:
        steps = "the first half was cut"
        detail = f"no steady state in {unsteady[0].headlines.scenario}: {steps}"
    ok = claim.reported or bool(
        found and band and not unsteady and band[0] <= found.mean <= band[1]
    )
    return Judged(name, claim, unit, tuple(values), found, band, ok and found is not None, detail)


def measured(claim: Claim, case: Case, by_name: Mapping[str, Case]) -> list[float | None]:
    """What a claim is about, seed by seed."""
    mine = case.values((claim.kpi, claim.asset))
    if claim.same_as:
        other = case.values((claim.same_as, claim.asset))
    elif claim.against:
        other = by_name[claim.against].values((claim.kpi, claim.asset))
    else:
        return mine
    return [a / b - 1 if a is not None and b else None for a, b in zip(mine, other, strict=True)]


def _edge_effect(claim: Claim, case: Case) -> float | None:
    """What lies in the shop at an edge of time, as a share of what passed: turnover days over the
    days looked at."""
    days = estimate(case.values((claim.same_as, claim.asset)))
    return None if days is None else days.mean * NS_PER_DAY / case.steady_ns


# one at a time ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one change does to one KPI, seed by seed against the same seed without it."""

    change: str
    """Its name; empty: all of them together."""
    claim: Claim
    unit: str
    alone: Estimate | None
    """Before with only this change, less before."""
    last: Estimate | None
    """After, less after without this change."""
    share: float | None
    """``alone`` over the effect of all together."""
    steady: bool
    """Whether both factories with and without it have a steady state."""


def variants(scenario: Scenario) -> list[tuple[str, Scenario]]:
    """Before, after, and for each change before with only it, and after without it."""
    names = [change.name for change in scenario.change]
    return [
        ("before", scenario.with_only(())),
        ("after", scenario),
        *((f"only {name}", scenario.with_only({name})) for name in names),
        *((f"without {name}", scenario.with_only({*names} - {name})) for name in names),
    ]


def contributions(found: Mapping[str, Case], after: Scenario) -> list[Contribution]:
    """Effects of each change on the KPI of each claim of its own; ``found`` by name of variant."""
    headlines = found["after"].headlines
    claims = {(c.kpi, c.asset): c for c in headlines.claim if not c.against and not c.same_as}
    claims |= {
        (c.kpi, c.asset): c for c in headlines.claim if c.against and (c.kpi, c.asset) not in claims
    }
    out: list[Contribution] = []
    for wanted, claim in claims.items():
        value = {name: case.values(wanted) for name, case in found.items()}
        unit = kpis.load()[claim.kpi].unit
        whole = _effect(value["after"], value["before"])
        steady = {name: case.warm_up.found for name, case in found.items()}
        for change in after.change:
            only, without = f"only {change.name}", f"without {change.name}"
            alone = _effect(value[only], value["before"])
            share = alone.mean / whole.mean if alone and whole and whole.mean else None
            last = _effect(value["after"], value[without])
            good = all(steady[name] for name in ("before", "after", only, without))
            out.append(Contribution(change.name, claim, unit, alone, last, share, good))
        good = steady["before"] and steady["after"]
        out.append(Contribution("", claim, unit, whole, whole, 1.0 if whole else None, good))
    return out


def _effect(a: Sequence[float | None], b: Sequence[float | None]) -> Estimate | None:
    pairs = zip(a, b, strict=True)
    return estimate([x - y if x is not None and y is not None else None for x, y in pairs])
