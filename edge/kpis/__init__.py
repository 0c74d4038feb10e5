"""One KPI family a file, each ending with ``KPIS``; third parties add theirs by entry point."""

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points

from edge.kpi import Kpi

GROUP = "beilun.kpis"


@cache
def load() -> dict[str, Kpi]:
    """Every KPI there is, by name, in order of name."""
    found: dict[str, Kpi] = {}
    modules = [
        importlib.import_module(f"{__name__}.{info.name}")
        for info in pkgutil.iter_modules(__path__)
    ]
    modules += [point.load() for point in entry_points(group=GROUP)]
    for module in modules:
        for kpi in module.KPIS:
            if kpi.name in found:
                raise ValueError(f"two KPIs are called {kpi.name}")
            found[kpi.name] = kpi
    return dict(sorted(found.items()))
