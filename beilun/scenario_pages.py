"""The page of published scenarios: what they must come out at, what differs, what that contributes.

All but the contributions follows from the files of scenarios, plants and claims. Contributions are
measured (``beilun verify --one-at-a-time --docs docs/scenarios.md``) and stand between markers that
carry a fingerprint of what was run. Where the files have changed since, the page says so.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beilun import console
from beilun.documenting import NOTE, table
from config.changes import values_at
from config.claims import Claim, Headlines, load_claims
from config.errors import ConfigError
from config.scenario import Scenario, find_scenario
from config.units import format_duration

if TYPE_CHECKING:
    from beilun.steady import Estimate
    from beilun.verifying import Contribution

_BEGIN = "<!-- contributions to {}: fingerprint {}, seeds {} -->"
_END = "<!-- end of contributions to {} -->"
_BLOCK = re.compile(
    r"<!-- contributions to (\S+): fingerprint (\w+), seeds (\d+) -->\n(.*?)\n"
    r"<!-- end of contributions to \1 -->",
    re.DOTALL,
)
_INTRO = """What was published about Ningbo's factories, and how it comes out here. `beilun verify`
runs each scenario over seeds, finds the warm-up by MSER-5, and holds the mean over seeds of each
KPI, over the steady part of the runs, against its band; `beilun verify NAME --one-at-a-time` makes
the tables of contributions. No scenario can set a KPI: a change sets values of the plant's file, or
the network, and the edge computes KPIs from what is on the wire.

The value of a piece and the number of heads are the same before and after. `alone` is what a change
does to the scenario before when nothing else is changed, `share` that as a share of the effect of
all together, `last` what would be missing if only this change were left out. Effects are paired,
seed by seed, with the same dice; ± is half of the 95 % interval. Shares need not add up to 100 %:
changes help, or stand in for, one another."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A table of contributions, and what it is of."""

    fingerprint: str
    seeds: int
    table: str


def page(measured: Mapping[str, Measured]) -> str:
    """The whole page, with contributions by scenario as they were measured."""
    text = [NOTE, "", "# Published scenarios", "", _INTRO, ""]
    for headlines in load_claims().headline:
        text += _section(headlines, measured.get(headlines.scenario))
    return "\n".join(text)


def measured_in(text: str) -> dict[str, Measured]:
    """The tables of contributions that a page has, by scenario."""
    return {m[1]: Measured(m[2], int(m[3]), m[4]) for m in _BLOCK.finditer(text)}


def with_effects(
    path: Path, scenario: Scenario, seeds: int, effects: Sequence["Contribution"]
) -> str:
    """The page at a path with newly measured contributions to a scenario."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("no such page", at=str(path), hint="`make docs` writes it") from None
    claims = load_claims()
    if claims.of(scenario.name) is None:
        raise ConfigError(f"has no section on {scenario.name}", at=str(path))
    found = Measured(fingerprint(scenario), seeds, effect_table(effects))
    return page({**measured_in(text), scenario.name: found})


def fingerprint(scenario: Scenario) -> str:
    """Of all that decides what is run, before and after."""
    before = scenario.with_only(())
    known = [
        [each.network, each.length, each.start, each.telemetry, each.plant_data()]
        for each in (before, scenario)
    ]
    changes = [[change.name, change.set] for change in scenario.change]
    plain = json.dumps([known, changes], sort_keys=True, default=str)
    return hashlib.sha256(plain.encode()).hexdigest()[:12]


def effect_table(effects: Sequence["Contribution"]) -> str:
    """Contributions as a table of the page."""
    rows = [
        (
            f"`{effect.change}`" if effect.change else "all together",
            f"`{effect.claim.kpi}` [{effect.unit}]",
            *effect_cells(effect),
            "" if effect.steady else "no steady state without or with only this",
        )
        for effect in effects
    ]
    return table(("change", "KPI", "alone", "±", "share", "last", "±", ""), rows)


def effect_cells(effect: "Contribution") -> tuple[str, str, str, str, str]:
    """Alone, its interval, its share, last, its interval."""
    share = console.NO_DATA if effect.share is None else f"{effect.share:.0%}"
    return (*_signed(effect.alone), share, *_signed(effect.last))


def _signed(found: "Estimate | None") -> tuple[str, str]:
    if found is None:
        return digits(None), digits(None)
    return f"{found.mean:+.4g}", digits(found.half)


def digits(value: float | None) -> str:
    """Four digits, since bands of 2 % are judged by them."""
    return console.NO_DATA if value is None else f"{value:.4g}"


def _section(headlines: Headlines, measured: Measured | None) -> list[str]:
    scenario = find_scenario(headlines.scenario)
    base = f", based on `{scenario.base}`" if scenario.base else ""
    text = [
        f"## {scenario.name}",
        "",
        f"{scenario.summary} Plant `{scenario.plant}`, network `{scenario.network}`,"
        f" {format_duration(scenario.length)}{base}.",
        "",
        table(("claim", "band", "source"), [_claim(claim) for claim in headlines.claim]),
        "",
    ]
    for note in dict.fromkeys(claim.note for claim in headlines.claim if claim.note):
        text += [note, ""]
    if scenario.change:
        old = "before" if scenario.base else "plant"
        new = "after" if scenario.base else "here"
        text += [table(("change", "parameter", old, new, "why"), list(_changes(scenario))), ""]
    if not scenario.base:
        return text
    command = f"beilun verify {scenario.name} --one-at-a-time"
    if measured is None and len(scenario.change) == 1:
        return text  # what it contributes is all there is
    if measured is None:
        return [*text, f"What each contributes was not measured yet: `{command}`.", ""]
    stale = measured.fingerprint != fingerprint(scenario)
    if stale:
        text += ["**The files have changed since this was measured.**", ""]
    text += [
        f"`{command} --seeds {measured.seeds}`:",
        "",
        _BEGIN.format(scenario.name, measured.fingerprint, measured.seeds),
        measured.table,
        _END.format(scenario.name),
        "",
    ]
    return text


def _claim(claim: Claim) -> tuple[str, str, str]:
    band = "reported"
    if claim.band is not None:
        low, high = (f"{end:.0%}" if claim.against else f"{end:g}" for end in claim.band)
        band = f"{low} to {high}"
    elif claim.same_as:
        band = "± turnover days / days looked at"
    return f"`{claim.text}`", band, claim.source


def _changes(scenario: Scenario) -> Iterator[tuple[str, ...]]:
    """Every value that a scenario changes, as it was before all of its changes, and as it is."""
    from simulator.plant import make_plant

    before = scenario.with_only(())
    was = make_plant(before.plant_data(), at=before.name).model_dump(mode="json")
    for change in scenario.change:
        for path, value in change.set.items():
            old = [before.network] if path in change.own else values_at(was, path)
            yield f"`{change.name}`", f"`{path}`", _values(old), _values([value]), change.why


def _values(found: Sequence[Any]) -> str:
    """Each value once; a range where there are many numbers."""
    distinct = list(dict.fromkeys(json.dumps(value, ensure_ascii=False) for value in found))
    if len(distinct) > 3 and all(isinstance(value, int | float) for value in found):
        return f"{min(found):g} to {max(found):g}"
    return ", ".join(f"`{value}`" for value in distinct) or "–"
