"""Claims: which published headlines a scenario must come out at, and where they were published.

A claim names a KPI of one asset; what is held against its band is the mean over seeds of

    value                 the KPI over the steady part of a run, as the edge computes it
    against = "before"    value / value in another scenario with the same seed - 1
    same_as = "other_kpi" value / that KPI of the same run - 1, within the effect of the edges of
                          time: a stretch of T days misses or has too much at most what lies in the
                          shop at an edge, which is WIP / departures = (turnover days) / T of it

No band: the value is reported, whatever it is. Nothing here can reach a factory: scenarios never
see this file.
"""

from collections.abc import Collection
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from config import tomlfile
from config.units import NS_PER_DAY, DurationNs

_STRICT = ConfigDict(
    strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
)


class Claim(BaseModel):
    """One headline."""

    model_config = _STRICT

    kpi: str
    """Name of a KPI; `beilun kpis` lists them."""
    asset: str
    """Glob that means one asset: over names (`flow`) or, with slashes, over whole paths."""
    band: Annotated[tuple[float, float], Field(strict=False)] | None = None
    """The mean over seeds must lie in it, ends included: in the KPI's unit, or with `against` as a
    share, where -0.46 is 46 % less."""
    against: str = ""
    """Name of the scenario it is relative to."""
    same_as: str = ""
    """Name of the KPI it must agree with; it has no band of its own."""
    source: Annotated[str, Field(min_length=1)]
    """Where the figure is from, or why it is looked at."""
    note: str = ""
    """What a reader of the result must know."""

    @field_validator("kpi", "same_as")
    @classmethod
    def _is_known(cls, kpi: str, info: ValidationInfo) -> str:
        known: Collection[str] = cast("dict[str, Any]", info.context or {}).get("kpis", ())
        if kpi and known and kpi not in known:
            raise ValueError(f"unknown KPI {kpi!r}{tomlfile.guess(kpi, known)}")
        return kpi

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        if self.band is not None and self.band[0] > self.band[1]:
            raise ValueError("band: needs a low and a high end, like [13.0, 15.0]")
        if self.same_as and (self.band is not None or self.against):
            raise ValueError("same_as stands alone: its band is the effect of the edges of time")
        return self

    @property
    def reported(self) -> bool:
        """Whether any value will do."""
        return self.band is None and not self.same_as

    @property
    def text(self) -> str:
        """What is looked at, as in `wip@flow, over ikd-before`."""
        over = f", over {self.against}" if self.against else ""
        return f"{self.kpi}@{self.asset}{over}" + (f", over {self.same_as}" * bool(self.same_as))


class Series(BaseModel):
    """A KPI whose course tells when a factory has reached its steady state."""

    model_config = _STRICT

    kpi: str
    """Name of a KPI."""
    asset: str
    """Glob that means one asset."""


class Headlines(BaseModel):
    """A scenario, how its warm-up is found, and what it must come out at."""

    model_config = _STRICT

    scenario: str
    """Its name."""
    step: DurationNs = NS_PER_DAY
    """The warm-up test looks at the series in steps of this length."""
    warm_up: Annotated[tuple[Series, ...], Field(strict=False, min_length=1)]
    """What must have become steady; the longest warm-up found holds for all."""
    claim: Annotated[tuple[Claim, ...], Field(strict=False, min_length=1)]
    """What is published, in the order of the table."""


class Claims(BaseModel):
    """A whole file of them."""

    model_config = _STRICT

    headline: Annotated[tuple[Headlines, ...], Field(strict=False, min_length=1)]
    """Scenario by scenario, in the order in which they are told."""

    @model_validator(mode="after")
    def _refers_to_what_exists(self) -> Self:
        names = [each.scenario for each in self.headline]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)}: there twice")
        for each in self.headline:
            for claim in each.claim:
                if claim.against and claim.against not in names:
                    near = tomlfile.guess(claim.against, names)
                    raise ValueError(
                        f"{each.scenario}: {claim.text}: unknown scenario {claim.against}{near}"
                    )
        return self

    def of(self, scenario: str) -> Headlines | None:
        """What a scenario must come out at."""
        return next((each for each in self.headline if each.scenario == scenario), None)


def load_claims(source: Path | Traversable | None = None, *, kpis: Collection[str] = ()) -> Claims:
    """The shipped claims, or those of a file; ``kpis`` are the names they may use."""
    where = files("config") / "claims.toml" if source is None else source
    return tomlfile.read(where, Claims, context={"kpis": kpis})
