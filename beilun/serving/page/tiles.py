"""Headline tiles: the numbers a plant is run by, each with its target, trend and age of data.

A tile shows the last window with a value that had ended at the moment shown. From then on its data
grows older by event time; after two windows' length it is stale, and says for how long:

    age = moment shown - end of that window    (live: and the time nobody wrote anything)

A replay that stands still does not age: what is shown is what was known then.

A target is asked of windows of one kind, a whole shift or day as a rule. Over others it is no
verdict: a minute of a die change is no bad day. So a tile of other windows says how the last window
was of which the target is asked, beside its number.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from nicegui import ui

from beilun.serving.page import words
from beilun.serving.page.clock import Session
from beilun.serving.page.shell import Text, box, mark
from config.globs import asset_matches
from config.windows import longest
from edge.rows import ALL, Row
from ingest.messages import Asset

if TYPE_CHECKING:
    from beilun.serving.reading import Reader

KPIS = ("line_speed", "wip_turnover_days", "oee", "value_per_head", "within_10ms")
"""In the order of the tiles."""
MOST_OF_ONE = 3
"""Tiles of one KPI that does not roll up, like the speeds of several lines."""
WINDOWS = 30
"""Windows of a trend."""
STALE_WINDOWS = 2
BACK_WINDOWS = 1_000
"""How far back the last value is looked for; what is older is no data."""


def path_of(asset: Asset) -> str:
    """`site/area/line/name`, shorter for a group: how people and addresses write it."""
    return "/".join(level for level in asset if level != ALL)


def asset_of(path: str) -> Asset:
    """The asset or group of a path; missing levels are for everything below."""
    levels = [level for level in path.split("/") if level][:4]
    return Asset(*levels, *[ALL] * (4 - len(levels)))


class Band(NamedTuple):
    """Where a value should be, ends included; ``None``: no bound on that side."""

    low: float | None
    high: float | None
    each: bool = False
    """Asked of each member of the group, and so of what they are together."""
    window: str = ""
    """Label of the windows of which it is asked; empty: of any."""

    def holds(self, value: float) -> bool:
        """Whether a value is in it."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def text(self, unit: str, language: str) -> str:
        """For people; shares in percent."""
        low, high = (_end(end, unit, language) for end in self[:2])
        if self.low is None:
            return words.say("band.at_most", language, high=high)
        if self.high is None:
            return words.say("band.at_least", language, low=low)
        return words.say("band.between", language, low=low, high=high)


def _end(value: float | None, unit: str, language: str) -> str:
    """A bound as somebody would have written it."""
    if value is None:
        return ""
    if unit == "1":
        return f"{value * 100:.6g}%"
    if abs(value) >= 10_000:
        return words.quantity(value, unit, language, short=True)[0]
    return f"{value:.6g}"


class Headline(NamedTuple):
    """One tile: which KPI of which asset or group, and where it should be."""

    kpi: str
    asset: Asset
    band: Band | None


class Wanted(NamedTuple):
    """A target as a scenario or a claim states it: ``asset`` is a glob, empty for any."""

    kpi: str
    asset: str
    low: float | None
    high: float | None
    window: str = ""
    """Label of the windows of which it is asked; empty: of any."""

    def means(self, asset: Asset) -> bool:
        """Whether it is asked of this asset or group."""
        return not self.asset or asset_matches(self.asset, path_of(asset))


def targets(reader: "Reader") -> list[Wanted]:
    """What the scenario of a recording expects, then what was published of it. What is asked of the
    run, or was published, is of the longest windows, as `beilun.verdict` has it."""
    from config.claims import load_claims

    kinds = reader.kinds()
    run = longest(kinds).label if kinds else ""
    found: list[Wanted] = []
    for expect in reader.expects():
        low, high = expect.value[0], expect.value[-1]
        window = run if expect.window == "run" else expect.window
        ends = {">=": (low, None), ">": (low, None), "<=": (None, high), "<": (None, high)}
        found.append(
            Wanted(expect.kpi, expect.asset or "", *ends.get(expect.op, (low, high)), window)
        )
    claims = load_claims().of(reader.scenario)
    published = claims.claim if claims else ()
    return found + [
        Wanted(claim.kpi, claim.asset, *claim.band, run)
        for claim in published
        if claim.band is not None and not claim.against
    ]


def band_of(
    kpi: str, asset: Asset, wanted: Iterable[Wanted], members: Collection[Asset]
) -> Band | None:
    """The first target that is asked of an asset, or of each ``member`` of the group, which has the
    KPI too: a mean of what is in a band is in it."""
    meant = [each for each in wanted if each.kpi == kpi]
    for each in meant:
        if each.means(asset):
            return Band(each.low, each.high, window=each.window)
    for each in meant:
        if members and all(each.means(member) for member in members):
            return Band(each.low, each.high, True, each.window)
    return None


def is_group(asset: Asset) -> bool:
    """Whether it stands for everything below a level."""
    return asset.name == ALL


def within(member: Asset, group: Asset) -> bool:
    """Whether an asset belongs to a group."""
    return all(level in (ALL, own) for level, own in zip(group, member, strict=True))


def headlines(rows: Iterable[Row], wanted: Sequence[Wanted]) -> list[Headline]:
    """Which tiles there are: of each KPI that has any row, the asset that a target names, else the
    whole site, else the first few assets that have it."""
    having: dict[str, list[Asset]] = {}
    for row in rows:
        having.setdefault(row.kpi, []).append(row.asset)
    found: list[Headline] = []
    for kpi in KPIS:
        assets = sorted(set(having.get(kpi, ())))
        named = [asset for asset in assets if any(w.kpi == kpi and w.means(asset) for w in wanted)]
        sites = [asset for asset in assets if asset.area == ALL]
        plain = [asset for asset in assets if not is_group(asset)]
        # A target of every press is best shown for all of them.
        chosen = (named if len(named) == 1 else []) or sites or named or plain or assets
        for asset in chosen[:MOST_OF_ONE]:
            members = [each for each in plain if within(each, asset)] if is_group(asset) else []
            found.append(Headline(kpi, asset, band_of(kpi, asset, wanted, members)))
    return found


def tiles_of(
    reader: "Reader", window: str, wanted: Sequence[Wanted], sees: Callable[[Asset], bool]
) -> list[Headline]:
    """The tiles of a recording; by all that it has, not by what had closed by some moment, so that
    none comes and goes while a replay plays. A KPI that never had a value in a recording that is
    finished is one that the plant does not have."""
    end_ns = reader.end_ns()
    found = headlines((row for row in reader.last(set(KPIS), window, end_ns) if sees(row.asset)),
                      wanted)  # fmt: skip
    if reader.live():
        return found
    return [
        tile
        for tile in found
        if _newest(reader.history(tile.asset, tile.kpi, window, reader.start_ns, end_ns))
    ]


class Reading(NamedTuple):
    """What a tile has to show."""

    value: float | None
    unit: str
    end_ns: int
    """End of the window it is of; 0 where there never was a value."""
    length_ns: int
    trend: tuple[float | None, ...]
    """Values of the last windows, oldest first; ``None``: no evidence."""
    judged: float | None
    """What the target is held against: the value, or where the target is asked of other windows
    that of the last of these; ``None``: none has closed, or there is no target."""


def readings(reader: "Reader", tiles: Sequence[Headline], window: str, t_ns: int) -> list[Reading]:
    """Of each tile what was known at a moment. Reads the store; takes milliseconds."""
    rows = reader.last({tile.kpi for tile in tiles}, window, t_ns)
    last = {(row.asset, row.kpi): row for row in rows}
    found: list[Reading] = []
    for tile in tiles:
        row = last.get((tile.asset, tile.kpi))
        if row is None:
            found.append(Reading(None, "", 0, 0, (), None))
            continue
        length_ns = row.window_length_ns
        past = reader.history(tile.asset, tile.kpi, window, t_ns - WINDOWS * length_ns, t_ns)
        past = [each for each in past if each.span.end_ns <= t_ns]
        known = _newest(past)
        if known is None:
            first_ns = t_ns - BACK_WINDOWS * length_ns
            known = _newest(reader.history(tile.asset, tile.kpi, window, first_ns, t_ns))
        value = known.value if known else None
        found.append(
            Reading(
                value,
                row.unit,
                known.span.end_ns if known else 0,
                length_ns,
                tuple(each.value for each in past[-WINDOWS:]),
                value if _is_meant(tile.band, window) else _judged(reader, tile, t_ns),
            )
        )
    return found


def _is_meant(band: Band | None, window: str) -> bool:
    """Whether a target is asked of these windows."""
    return band is not None and band.window in ("", window)


def _judged(reader: "Reader", tile: Headline, t_ns: int) -> float | None:
    """Of the last window that the target is asked of."""
    if tile.band is None:
        return None
    last = reader.last({tile.kpi}, tile.band.window, t_ns, path_of(tile.asset))
    return next((row.value for row in last if row.asset == tile.asset), None)


def _newest(past: Sequence[Row]) -> Row | None:
    """The last that has a value."""
    return next((row for row in reversed(past) if row.value is not None), None)


def sparkline(trend: Sequence[float | None], band: Band | None) -> str:
    """A trend as SVG: a gap where there was no evidence, the target as a band behind it."""
    known = [value for value in trend if value is not None]
    if len(known) < 2:
        return ""
    wide, high = 240.0, 44.0
    ends = [end for end in (band[:2] if band else ()) if end is not None]
    low, top = min(known), max(known)
    spread = top - low or abs(top) or 1.0
    # A target far away would flatten the trend, which is what a trend is for.
    ends = [end for end in ends if low - 2 * spread <= end <= top + 2 * spread]
    low, top = min([low, *ends]), max([top, *ends])
    pad = 0.1 * ((top - low) or abs(top) or 1.0)
    low, top = low - pad, top + pad

    def y(value: float) -> float:
        return round(high - (value - low) / (top - low) * high, 1)

    step = wide / max(len(trend) - 1, 1)
    parts: list[str] = []
    if band and ends:
        upper = y(band.high) if band.high is not None and band.high in ends else 0.0
        lower = y(band.low) if band.low is not None and band.low in ends else high
        parts.append(
            f'<rect class="b-band" x="0" y="{upper}" width="{wide}" height="{lower - upper:.1f}"/>'
        )
    path, pen = "", "M"
    for place, value in enumerate(trend):
        if value is None:
            pen = "M"
            continue
        path += f"{pen}{place * step:.1f} {y(value)}"
        pen = "L"
    parts.append(f'<path class="b-trend" d="{path}"/>')
    final = trend[-1]
    if final is not None:
        parts.append(f'<circle class="b-last" cx="{wide}" cy="{y(final)}" r="3.5"/>')
    return (
        f'<svg viewBox="-2 -2 {wide + 8:g} {high + 4:g}" preserveAspectRatio="none"'
        f' aria-hidden="true">{"".join(parts)}</svg>'
    )


class Tile:
    """One headline number on the screen; made once, ``show`` changes what has changed."""

    def __init__(self, session: Session, tile: Headline) -> None:
        self._session = session
        say, language = session.say, session.language
        self.root = box("b-tile")
        self.root.props["data-kpi"] = tile.kpi
        self.root.props["data-asset"] = path_of(tile.asset)
        with self.root:
            with box("b-tile-head"):
                Text(say(f"tile.{tile.kpi}"), "b-tile-name")
                Text(path_of(tile.asset).rpartition("/")[2], "b-tile-asset")
            with box("b-tile-value"):
                self._number = Text("–", "b-number")
                self._unit = Text("", "b-unit")
            self._spark = ui.html("", sanitize=False).classes("b-spark")
            self._drawn: tuple[object, ...] = ()
            with box("b-tile-foot"):
                self._sign = Text("", "b-sign")
                self._age = Text("", "b-age")
        self._kpi, self._band = tile.kpi, tile.band
        self._language = language

    def show(self, reading: Reading, t_ns: int) -> None:
        """What was read for the moment ``t_ns``."""
        session, band, say = self._session, self._band, self._session.say
        number, unit = words.quantity(
            reading.value, reading.unit, self._language, kpi=self._kpi, short=True
        )
        percent = reading.value is not None and words.is_share(self._kpi, reading.unit)
        self._number.text = f"{number}%" if percent else number
        self._unit.text = "" if percent or not reading.unit else unit
        if reading.value is None:
            sign, stale = say("tile.none"), bool(reading.length_ns)
            self._age.text = ""
        else:
            age_ns = age_of(session, reading, t_ns)
            stale = age_ns > STALE_WINDOWS * reading.length_ns
            age = words.age(age_ns, self._language)
            self._age.text = say("tile.stale" if stale else "tile.age", age=age)
            sign = ""
        verdict = ""
        meant = _is_meant(band, session.window)
        if band is not None and reading.value is not None:
            sign = self._target(band, reading, meant=meant)
            if reading.judged is not None:
                verdict = "in" if band.holds(reading.judged) else "out"
                sign = f"{'✓' if verdict == 'in' else '✗'} {sign}"
        self._sign.text = sign
        for name, value in (("data-stale", str(stale).lower()), ("data-verdict", verdict)):
            mark(self.root, name, value)
        self._draw(reading, band if meant else None)

    def _target(self, band: Band, reading: Reading, *, meant: bool) -> str:
        say, language = self._session.say, self._language
        text = band.text(reading.unit, language)
        target = say("tile.target_each" if band.each else "tile.target", band=text)
        if meant:
            return target
        number, unit = words.quantity(
            reading.judged, reading.unit, language, kpi=self._kpi, short=True
        )
        percent = "%" if unit == "%" and reading.judged is not None else ""
        return say("tile.over", target=target, window=band.window, value=number + percent)

    def _draw(self, reading: Reading, band: Band | None) -> None:
        drawn = (reading.trend, band)
        if drawn != self._drawn:
            self._drawn = drawn
            self._spark.content = sparkline(reading.trend, band)


def age_of(session: Session, reading: Reading, t_ns: int) -> int:
    """How old what is shown is, in event time; where a live recording has gone quiet, with the time
    that nobody has written."""
    return t_ns - reading.end_ns + session.quiet_ns
