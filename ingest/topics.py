"""The topic tree of the wire contract."""

import re

from ingest.messages import Asset

ROOT = "beilun/v1"
LINK = "_link"

STREAMS = ("birth", "state", "process", "event", "orders", "calendar", "flow", "link", "service")
"""``state`` and ``birth`` are retained, the others are not.

state     PackML state changes, at once          process   sampled signals and counters
event     something done (a shot, a cycle)       orders    the job registered on a unit (MES)
calendar  planned busy or not (MES)              flow      pieces entered, left, scrapped (MES)
link      per-second delay histograms of control traffic
service   both directions of control traffic: up or down, failures, misses of the deadline
"""

_LEVEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def is_level(name: str) -> bool:
    """Whether a name may stand between two slashes of a topic."""
    return _LEVEL.fullmatch(name) is not None


def of(asset: Asset, stream: str) -> str:
    """Topic of one stream of one asset."""
    return f"{ROOT}/{asset.site}/{asset.area}/{asset.line}/{asset.name}/{stream}"


def parse(topic: str) -> tuple[Asset, str] | None:
    """Asset and stream of a telemetry topic, ``None`` for any other."""
    parts = topic.split("/")
    if len(parts) != 7 or "/".join(parts[:2]) != ROOT or not all(map(is_level, parts[2:])):
        return None
    return Asset(*parts[2:6]), parts[6]


def parse_progress(topic: str) -> tuple[str, str] | None:
    """Site and connection of a progress topic, ``None`` for any other."""
    parts = topic.split("/")
    if len(parts) != 6 or parts[3] != LINK or parts[5] != "progress":
        return None
    return parts[2], parts[4]


def progress(site: str, conn: str) -> str:
    """Where a connection says how far it is."""
    return f"{ROOT}/{site}/{LINK}/{conn}/progress"


def confirm(site: str, conn: str) -> str:
    """Where the edge says what it has committed of a connection."""
    return f"{ROOT}/{site}/{LINK}/{conn}/confirm"


def probe(session: str) -> str:
    """Where an edge sends itself a message, to time the way through the broker."""
    return f"{ROOT}/{LINK}/{session}/probe"


def kpi(asset: Asset, name: str, window: str) -> str:
    """Where a KPI feed publishes the rows of one KPI, asset and kind of windows (`1h`, `shift`).

    Every level is there, also of a roll-up: those below it are ``-``, which no asset can be called.
    So a topic means one series only, and ``beilun/v1/+/+/+/+/kpi/oee/1h`` is all of a KPI.
    A sliding window, ``1h/5m``, is the level ``1h-5m``.
    """
    return f"{of(asset, 'kpi')}/{name}/{window.replace('/', '-')}"


SUBSCRIPTIONS = (
    f"{ROOT}/+/+/+/+/+",
    f"{ROOT}/+/{LINK}/+/progress",
    "uagv/v2/+/+/state",
    "uagv/v2/+/+/connection",
    "uagv/v2/+/+/factsheet",
)
"""What an edge listens to. The KPI feed lies two levels deeper and is never matched."""
