"""``beilun verify``: run published scenarios over seeds, and hold them against the headlines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from beilun import console, scenario_pages, verdict
from beilun.verifying import (
    Case,
    Contribution,
    Judged,
    Wanted,
    cases,
    contributions,
    cores,
    judge,
    variants,
    wanted_of,
)
from config.claims import Claims, Headlines, load_claims
from config.errors import ConfigError, Exit, UsageError
from config.scenario import Scenario, find_scenario
from config.tomlfile import guess
from config.units import format_duration
from edge import kpis

RULE = """PASS: the mean over seeds lies in the band; `sure`: so does its whole 95 % interval.
± is half of that interval (Student t); `place` is where in the band the mean lies, 0 to 1."""
_COLUMNS = ("", "claim", "unit", "mean", "±", "band", "place", "sure", "")
_EFFECTS = ("change", "claim", "unit", "alone", "±", "share", "last", "±", "")


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SCENARIO]...", help="Only these; default: all with claims."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds: 1, 2, ... ")] = 20,
    jobs: Annotated[
        int, typer.Option(min=0, help="Processes at once; 0: as many as there are cores.")
    ] = 0,
    one_at_a_time: Annotated[
        bool, typer.Option("--one-at-a-time", help="What each change of a scenario contributes.")
    ] = False,
    claims: Annotated[
        Path | None, typer.Option(help="A file of claims; default: the published ones.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML there.")] = None,
    docs: Annotated[
        Path | None,
        typer.Option(help="Write the contributions into this page, between its markers."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> Exit:
    """Mean and 95 % interval over seeds of every claimed KPI; exit 1 outside a band."""
    told = load_claims(claims, kpis=kpis.load())
    folder = Path() if claims is None else claims.parent
    chosen = _chosen(told, names or [])
    if docs is not None and not one_at_a_time:
        raise UsageError("--docs writes contributions; it needs --one-at-a-time")
    if one_at_a_time:
        return _one_at_a_time(chosen, told, folder, seeds, jobs or cores(), docs, as_json=as_json)
    found = _run(_asked(_with_others(chosen, told), told, folder), seeds, jobs or cores())
    by_name = {case.headlines.scenario: case for case in found}
    judged = {each.scenario: judge(by_name[each.scenario], by_name) for each in chosen}
    if as_json:
        console.ndjson(
            _as_json(by_name[name], one) for name, all_ in judged.items() for one in all_
        )
    else:
        for name, all_ in judged.items():
            _tell(by_name[name], all_)
        console.out(RULE)
    every = [one for all_ in judged.values() for one in all_]
    if junit is not None:
        cases_ = [(f"{one.scenario}: {one.claim.text}", _failure(one)) for one in every]
        verdict.write(junit, verdict.junit_xml("verify", cases_))
    return Exit.OK if all(one.ok for one in every) else Exit.FAILED


def _chosen(told: Claims, names: Sequence[str]) -> list[Headlines]:
    there = [each.scenario for each in told.headline]
    for name in names:
        if name not in there:
            raise UsageError(
                f"nothing is claimed about {name!r}{guess(name, there)}",
                hint=f"there are: {', '.join(there)}",
            )
    return [each for each in told.headline if not names or each.scenario in names]


def _with_others(chosen: Sequence[Headlines], told: Claims) -> list[Headlines]:
    """Those, and what they are claimed against."""
    against = {claim.against for each in chosen for claim in each.claim}
    return [each for each in told.headline if each in chosen or each.scenario in against]


def _asked(
    run: Sequence[Headlines], told: Claims, folder: Path
) -> list[tuple[Scenario, Headlines, set[Wanted]]]:
    return [(_scenario(each, folder), each, wanted_of(each, told.headline)) for each in run]


def _scenario(each: Headlines, folder: Path) -> Scenario:
    """A scenario by the name that claims have for it; paths start where the claims are."""
    is_path = "/" in each.scenario or each.scenario.endswith(".toml")
    name = str(folder / each.scenario) if is_path else each.scenario
    try:
        return find_scenario(name, kpis=kpis.load())
    except UsageError as error:
        raise ConfigError(error.problem, at="claims", hint=error.hint) from None


def _run(
    asked: Sequence[tuple[Scenario, Headlines, set[Wanted]]], seeds: int, jobs: int
) -> list[Case]:
    total = len(asked) * seeds
    console.note(
        f"{len(asked)} scenario{'s' * (len(asked) > 1)} x {seeds} seed{'s' * (seeds > 1)}"
        f" on {min(jobs, total)} process{'es' * (min(jobs, total) > 1)}. Ctrl-C stops."
    )
    with console.progress(total, "runs") as bar:
        return cases(asked, range(1, seeds + 1), jobs=jobs, done=bar.update)


def _tell(case: Case, judged: Sequence[Judged]) -> None:
    console.table(_COLUMNS, [_line(one) for one in judged], title(case))
    for note in dict.fromkeys(one.claim.note for one in judged if one.claim.note):
        console.out(f"  {note}")
    console.out("")


def title(case: Case) -> str:
    """What was run, and what was cut of it as warm-up."""
    cut, found = format_duration(case.cut_ns), case.warm_up.found
    series = ", ".join(f"{s.kpi}@{s.asset}" for s in case.headlines.warm_up)
    n = len(case.seeds)
    said = f"warm-up {cut}, by MSER-5 of {series}" if found else "no steady state"
    length = format_duration(case.scenario.length)
    return f"{case.headlines.scenario}: {n} seed{'s' * (n > 1)} of {length}; {said}"


def _line(one: Judged) -> tuple[object, ...]:
    word = "    " if one.claim.reported and one.ok else "PASS" if one.ok else "FAIL"
    band = "reported" if one.band is None else f"{one.band[0]:.4g} to {one.band[1]:.4g}"
    sure = "" if one.band is None else "yes" if one.sure else "no"
    return (word, one.claim.text, one.unit, *_cells(one), band,
            _place(one.place), sure, one.detail)  # fmt: skip


def _cells(one: Judged) -> tuple[str, str]:
    """Mean and half of the interval."""
    if one.estimate is None:
        return scenario_pages.digits(None), scenario_pages.digits(None)
    return scenario_pages.digits(one.estimate.mean), scenario_pages.digits(one.estimate.half)


def _place(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _failure(one: Judged) -> str | None:
    if one.ok:
        return None
    return f"got {_cells(one)[0]}, band {one.band}" + (f" ({one.detail})" if one.detail else "")


def _as_json(case: Case, one: Judged) -> dict[str, object]:
    return {
        "scenario": one.scenario,
        "kpi": one.claim.kpi,
        "asset": one.claim.asset,
        "against": one.claim.against or None,
        "same_as": one.claim.same_as or None,
        "unit": one.unit,
        "seeds": len(case.seeds),
        "values": list(one.values),
        "mean": one.estimate and one.estimate.mean,
        "half": one.estimate and one.estimate.half,
        "band": one.band,
        "place": one.place,
        "sure": one.sure,
        "ok": one.ok,
        "warm_up_s": case.cut_ns / 1e9,
        "steady": case.warm_up.found,
        "detail": one.detail,
    }


# one at a time ----------------------------------------------------------------------------------


def _one_at_a_time(
    chosen: Sequence[Headlines],
    told: Claims,
    folder: Path,
    seeds: int,
    jobs: int,
    docs: Path | None,
    *,
    as_json: bool,
) -> Exit:
    for each in chosen:
        scenario = _scenario(each, folder)
        if scenario.based_on is None:
            console.note(f"{each.scenario}: is based on no other scenario")
            continue
        wanted = wanted_of(each, told.headline)
        asked = variants(scenario)
        found = _run([(variant, each, wanted) for _, variant in asked], seeds, jobs)
        by_name = {name: case for (name, _), case in zip(asked, found, strict=True)}
        effects = contributions(by_name, scenario)
        if as_json:
            console.ndjson(_effect_json(each.scenario, seeds, effect) for effect in effects)
        else:
            told_by = f"{each.scenario}: what each change contributes, {seeds} seeds"
            console.table(_EFFECTS, [_effect_line(effect) for effect in effects], told_by)
            console.out("")
        if docs is not None:
            verdict.write(docs, scenario_pages.with_effects(docs, scenario, seeds, effects))
    return Exit.OK


def _effect_line(effect: Contribution) -> tuple[object, ...]:
    cells = scenario_pages.effect_cells(effect)
    note = "" if effect.steady else "not steady"
    return (effect.change or "all together", effect.claim.text, effect.unit, *cells, note)


def _effect_json(scenario: str, seeds: int, effect: Contribution) -> Mapping[str, object]:
    return {
        "scenario": scenario,
        "change": effect.change or None,
        "kpi": effect.claim.kpi,
        "asset": effect.claim.asset,
        "unit": effect.unit,
        "seeds": seeds,
        "alone": effect.alone and effect.alone.mean,
        "alone_half": effect.alone and effect.alone.half,
        "share": effect.share,
        "last": effect.last and effect.last.mean,
        "last_half": effect.last and effect.last.half,
        "steady": effect.steady,
    }
