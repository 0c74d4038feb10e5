"""A KPI row as a line of InfluxDB line protocol.

    kpi,area=casting,asset=dcm01,kpi=oee,line=line1,site=ningbo,unit=1,window=1h
        known=1i,value=0.77,n=2412i,late=0i,revision=0i,length_ns=3600000000000i 1767571200000000000

One measurement; the tags, sorted by key, are the row's key and its unit, and the stamp is the start
of the window in nanoseconds, so that a revision overwrites what it amends, field by field. A row
without evidence has no ``value`` and ``known=0i``: a field once written cannot be taken back, so
whoever reads looks at ``known``. A row that is gone is one without evidence.
"""

from functools import lru_cache
from math import isfinite

from config.units import NS_PER_S
from edge.rows import Row
from ingest.messages import Asset

MEASUREMENT = "kpi"
_TAG = str.maketrans({",": r"\,", "=": r"\=", " ": r"\ "})
_NO_TAG = str.maketrans(dict.fromkeys("\n\r\t\\", "_"))
"""A tag value has no line ends, and a backslash at its end would eat what follows."""

AHEAD_NS = 60 * NS_PER_S
"""How far a window may start ahead of this machine's clock: servers drop in silence what lies in
the future (VictoriaMetrics: by two days), or keep it where no query looks."""


def line_of(row: Row, window: str) -> str:
    """One row as one line; ``window`` is what its window is called."""
    known = row.value is not None and not row.gone and isfinite(row.value)
    value = f"known=1i,value={row.value!r}" if known else "known=0i"
    counts = f"n={row.n}i,late={row.late}i,revision={row.revision}i"
    length = f"length_ns={row.window_length_ns}i"
    key = _key(row.asset, row.kpi, row.unit, window)
    return f"{key} {value},{counts},{length} {row.window_start_ns}"


@lru_cache(16_384)  # series come again and again, and making their key is most of the work
def _key(asset: Asset, kpi: str, unit: str, window: str) -> str:
    site, area, line, name = asset
    tags = (
        ("area", area), ("asset", name), ("kpi", kpi), ("line", line), ("site", site),
        ("unit", unit), ("window", window),
    )  # fmt: skip
    return ",".join((MEASUREMENT, *(f"{name}={_tag(value)}" for name, value in tags)))


def _tag(value: str) -> str:
    return value.translate(_NO_TAG).translate(_TAG) or "_"
