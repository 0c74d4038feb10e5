"""The operators' page: clock, words, colours, tiles, map, comparison; and all of it in Chromium."""

import asyncio
import json
import math
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote

import pytest

pytest.importorskip("nicegui")

from hypothesis import given
from hypothesis import strategies as st

from beilun.offline import run_offline
from beilun.serving.page import compare, kpi_words, plantmap, shell, tiles, words
from beilun.serving.page.clock import SPEEDS, Clock, Session, asked
from beilun.serving.page.tiles import Band, Headline, Reading, Wanted
from beilun.serving.reading import Reader
from config.alarms import load_rules
from config.faults import FAULTS
from config.scenario import find_scenario
from config.units import NS_PER_S, format_time
from edge import kpis
from edge.rows import ALL, Row
from edge.store import RowStore
from ingest import decode
from ingest.messages import Asset
from ingest.packml import PackML
from ingest.recording import Recording
from simulator.link.surroundings import CAUSES
from tests import chromium
from tests.test_serving import make_certificate

MINUTE_NS = 60 * NS_PER_S
PAGE = Path(shell.__file__).parent


def run(path: Path, seed: int, minutes: int) -> Path:
    small = {
        "name": "small", "why": "vehicles drive soon", "set": {"pieces_per_container": 3},
    }  # fmt: skip
    changes: dict[str, Any] = {
        "seed": seed, "length": f"{minutes}m", "edge": {"windows": ["1m", "5m"]},
        "change": [small],
    }  # fmt: skip
    run_offline(find_scenario("quickstart", changes=changes), path)
    return path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen minutes of quickstart: the lines run and the vehicles drive."""
    return run(tmp_path_factory.mktemp("page") / "here.beilun", 7, 16)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same plant with other luck, and shorter."""
    return run(tmp_path_factory.mktemp("page") / "other.beilun", 8, 8)


@pytest.fixture
def reader(recorded: Path) -> Iterator[Reader]:
    found = Reader(recorded)
    yield found
    found.close()


# clock ------------------------------------------------------------------------------------------

times = st.integers(0, 10**15)
moves = st.one_of(
    st.tuples(st.just("seek"), st.integers(-(10**15), 2 * 10**15)),
    st.tuples(st.just("advance"), st.floats(0, 100)),
    st.tuples(st.sampled_from(["play", "pause", "toggle", "follow"]), st.none()),
    st.tuples(st.just("pace"), st.integers(-20, 20)),
)


@given(start=times, length=times, is_open=st.booleans(), script=st.lists(moves))
def test_a_clock_never_leaves_its_recording_and_a_followed_end_is_the_end(
    start: int, length: int, is_open: bool, script: list[tuple[str, Any]]
) -> None:
    clock = Clock(start, start + length, is_open)
    end = start + length
    for what, value in script:
        if what == "advance":
            end += round(value) * NS_PER_S if is_open else 0
            clock.advance(value, end, is_open=is_open)
        elif value is None:
            getattr(clock, what)()
        else:
            getattr(clock, what)(value)
        assert start <= clock.t_ns <= end
        assert not (clock.following and clock.playing)
        assert not clock.following or clock.t_ns == clock.end_ns
        assert clock.speed in SPEEDS


@given(at=st.integers(0, 3600), waits=st.lists(st.floats(0, 10_000)))
def test_a_replay_that_stands_does_not_move_however_long_one_waits(
    at: int, waits: list[float]
) -> None:
    clock = Clock(0, 3600 * NS_PER_S, open=False)
    clock.seek(at * NS_PER_S)
    for wait in waits:
        clock.advance(wait, 3600 * NS_PER_S, is_open=False)
    assert clock.t_ns == at * NS_PER_S


@pytest.mark.parametrize("speed", SPEEDS)
def test_a_replay_plays_at_its_speed_and_stops_at_the_end(speed: float) -> None:
    clock = Clock(0, 1_000 * NS_PER_S, open=False, speed=speed)
    clock.seek(0)
    clock.play()
    clock.advance(2.0, clock.end_ns, is_open=False)
    assert clock.t_ns == round(2 * speed * NS_PER_S)
    clock.advance(1_000 / speed, clock.end_ns, is_open=False)
    assert clock.t_ns == clock.end_ns
    assert not clock.playing
    clock.play()
    assert clock.t_ns == 0, "from the start again"


def test_a_replay_of_a_live_recording_catches_up_and_follows() -> None:
    clock = Clock(0, 60 * NS_PER_S, open=True)
    assert clock.live
    clock.pause()
    clock.advance(5, 65 * NS_PER_S, is_open=True)
    assert (clock.live, clock.t_ns) == (False, 60 * NS_PER_S)
    clock.speed = 100.0
    clock.play()
    clock.advance(5, 70 * NS_PER_S, is_open=True)
    assert clock.live
    clock.advance(5, 70 * NS_PER_S, is_open=False)
    assert (clock.live, clock.following) == (False, True)


def test_an_address_says_what_when_and_over_which_windows() -> None:
    found = asked({"at": "a/b", "w": "1h", "t": "1970-01-01T00:00:01Z"})
    assert found == ("a/b", NS_PER_S, "1h", "", "")
    assert asked({"t": "yesterday", "r": "x", "c": "y"}) == ("", None, "", "x", "y")


# session ----------------------------------------------------------------------------------------


def test_nothing_is_called_while_nothing_changes(reader: Reader) -> None:
    session = Session(reader)
    calls: list[int] = []
    session.on_tick(lambda: calls.append(session.t_ns))
    session.clock.seek(reader.start_ns + 5 * MINUTE_NS)

    async def tick() -> None:
        for _ in range(50):
            await session.tick(0.25)

    asyncio.run(tick())
    assert calls == [reader.start_ns + 5 * MINUTE_NS]
    session.choose("5m" if session.window == "1m" else "1m")
    asyncio.run(tick())
    assert len(calls) == 2
    session.forget_view()
    asyncio.run(tick())
    assert len(calls) == 2


def test_one_callback_that_fails_keeps_no_other_from_its_turn(reader: Reader) -> None:
    session, calls = Session(reader), list[str]()

    def fail() -> None:
        raise ValueError("no")

    async def late() -> None:
        await asyncio.sleep(0)
        calls.append("async")

    session.on_tick(fail)
    session.on_tick(late)
    session.on_tick(lambda: calls.append("sync"))
    asyncio.run(session.tick(0.1))
    assert calls == ["async", "sync"]
    assert str(session.trouble) == "no"
    asyncio.run(session.tick(0.1))
    assert len(calls) == 2, "not again at once"
    asyncio.run(session.tick(2.0))
    assert len(calls) == 4
    session.forget_view()
    asyncio.run(session.tick(2.0))
    assert session.trouble is None


def test_a_tab_opens_with_windows_of_which_one_has_closed(reader: Reader) -> None:
    assert Session(reader).window == "5m"


def test_only_a_live_recording_that_nobody_writes_to_goes_quiet(tmp_path: Path) -> None:
    path = tmp_path / "live.beilun"
    with Recording.create(path) as recording:
        recording.set_meta({"start_ns": "0", "edge": '{"windows": ["1m"]}'})
        reader = Reader(path)
        session = Session(reader)
        asyncio.run(session.tick(9.0))
        assert session.quiet_ns == 0
        asyncio.run(session.tick(30.0))
        assert session.quiet_ns == 39 * NS_PER_S
        recording.set_meta({"x": "written"})
        asyncio.run(session.tick(0.25))
        assert session.quiet_ns == 0
        asyncio.run(session.tick(30.0))
        session.clock.pause()
        assert session.quiet_ns == 0, "what is replayed does not age by the clock on the wall"
        reader.close()


def test_a_live_clock_goes_with_the_newest_message_but_not_with_one_that_is_ahead(
    recorded: Path, tmp_path: Path
) -> None:
    path = tmp_path / "live.beilun"
    shutil.copy(recorded, path)
    with Recording.create(path) as recording:
        recording.drop_meta("finished")
        reader = Reader(path)
        closed_ns = reader.end_ns()
        recording.db.execute("DELETE FROM row WHERE window_start_ns >= ?", (closed_ns - MINUTE_NS,))
        assert reader.end_ns() == closed_ns - MINUTE_NS
        newest_ns = reader.newest_ns()
        assert closed_ns - 10 * NS_PER_S < newest_ns <= closed_ns, "of what came since"
        assert Session(reader).t_ns == newest_ns
        recording.db.execute("UPDATE block SET last_ns = last_ns + ?", (3_600 * NS_PER_S,))
        assert reader.newest_ns() == closed_ns + MINUTE_NS, "two windows beyond, no further"
        reader.close()


# words ------------------------------------------------------------------------------------------

BRACES = re.compile(r"\{(\w*)\}")
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def test_every_text_has_both_languages_with_the_same_blanks() -> None:
    for key, (english, chinese) in words.WORDS.items():
        assert english, key
        assert sorted(BRACES.findall(english)) == sorted(BRACES.findall(chinese)), key
        if re.search(r"[a-z]{2}", BRACES.sub("", english)) and key != "language":
            assert CHINESE.search(chinese), f"{key} is not in Chinese: {chinese}"


def test_every_shipped_kpi_state_and_unit_has_a_name() -> None:
    assert set(kpi_words.KPIS) == set(kpis.load())
    for name, (english, chinese) in kpi_words.KPIS.items():
        assert english != name
        assert CHINESE.search(chinese), name
    for state in PackML:
        assert words.state(state.name, "zh") != state.name.capitalize()
        assert re.fullmatch("[A-Z]", words.letter(state.name))
    for kpi in kpis.load().values():
        shown = words.unit(kpi.unit, "zh")
        assert "{" not in shown, f"{kpi.unit} of {kpi.name} has no words"


def test_whatever_a_factory_can_tell_of_is_told_in_chinese() -> None:
    assert set(kpi_words.SUMMARIES_ZH) == set(kpis.load())
    told = {f"kpi {name}": words.summary(name, "zh") for name in kpis.load()}
    assert all(told[f"kpi {name}"] != kpi.summary for name, kpi in kpis.load().items())
    told |= {f"rule {rule.name}": rule.text.zh for rule in load_rules(kpis=kpis.load()).rule}
    told |= {f"state {state.name}": words.state(state.name, "zh") for state in PackML}
    reasons = {key for key in words.WORDS if key.startswith("reason.")}
    assert {"reason.corrective", "reason.setup", "reason.external", "reason.charging"} < reasons
    told |= {key: words.say(key, "zh") for key in reasons}
    told |= {f"fault {kind}": words.fault(kind, "zh") for kind in FAULTS}
    told |= {f"cause {cause}": words.cause(cause, "zh") for cause in CAUSES if cause}
    assert [what for what, chinese in told.items() if not CHINESE.search(chinese)] == []
    refused = set[str]()
    for file in (Path(decode.__file__).parent).rglob("*.py"):
        refused |= set(re.findall(r'Unusable\(\s*"(\w+)"', file.read_text()))
    assert {"not_json", "unmapped"} < refused
    assert [one for one in refused if not CHINESE.search(words.cause(one, "zh"))] == []


def test_every_key_that_the_page_asks_for_is_there_and_none_is_idle() -> None:
    sources = "".join(f.read_text() for f in PAGE.glob("*.py") if "words" not in f.name)
    sources += (PAGE / "words.py").read_text().partition("def _pick")[2]
    quoted = set(re.findall(r"[\"']([\w.]+)[\"']", sources))
    used = quoted & set(words.WORDS)
    patterns = re.findall(r'"([\w.]*)\{[\w.()]+\}"', sources)
    composed = tuple(p for p in patterns if p.endswith("."))
    idle = [k for k in words.WORDS if k not in used and not (composed and k.startswith(composed))]
    assert not idle
    asked_for = set(re.findall(r'\bsay\(\s*"([\w.]+)"', sources))
    assert asked_for <= set(words.WORDS)


@given(ns=st.integers(0, 10**18))
def test_an_age_is_told_in_two_parts_at_most(ns: int) -> None:
    for language in words.LANGUAGES:
        assert 1 <= len(re.findall(r"\d+", words.age(ns, language))) <= 2


def test_a_clock_says_which_zone_it_is_in() -> None:
    east = timezone(timedelta(hours=8))
    assert words.clock(0, east) == ("1970-01-01", "08:00:00")
    assert words.zone_name(east, 0) == "UTC+08:00"
    assert words.zone_name(UTC, 0) == "UTC+00:00"


def test_what_is_no_share_is_never_in_percent() -> None:
    known = kpis.load()
    assert {name for name, kpi in known.items() if kpi.index} == {
        "actual_to_planned_scrap",
        *(f"{what}_{index}" for what in ("biscuit", "pressure", "diameter")
          for index in ("cm", "cmk", "cp", "cpk")),
    }  # fmt: skip
    for name, kpi in known.items():
        for language in words.LANGUAGES:
            assert ("%" in words.text_of(0.5, kpi.unit, language, kpi=name)) is kpi.is_share
            assert words.text_of(None, kpi.unit, language, kpi=name) == "–"
    pair = compare.Pair(row(PRESS, "pressure_cpk", 1.5), row(PRESS, "pressure_cpk", 1.25))
    assert compare.difference(pair, "zh") == ("▲ +0.250, 更好", "good")


def test_every_unit_that_a_machine_announces_has_words(reader: Reader) -> None:
    units = {unit for info in reader.assets() for unit in info.channels.values()}
    assert {"degC", "kN", "MPa", "bar", "mm", "A", "rad/s"} <= units
    for unit in units - {"1", "PackML"}:
        assert CHINESE.search(words.unit(unit, "zh")), unit
    assert words.unit("Cel", "en") == words.unit("degC", "en") == "°C"


def test_a_summary_is_told_in_each_language() -> None:
    for name, kpi in kpis.load().items():
        assert words.summary(name, "en") == kpi.summary
        assert CHINESE.search(words.summary(name, "zh"))
    assert words.summary("my_kpi", "zh") == "my_kpi"


# colours ----------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, two: str) -> float:
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [shell.DARK, shell.LIGHT], ids=["dark", "light"])
def test_colours_keep_the_contrast_of_wcag_aa(colours: shell.Palette) -> None:
    grounds = (colours.ground, colours.surface, colours.raised)
    for name in ("ink", "muted", "accent", "good", "warn", "bad"):
        for ground in grounds:
            assert contrast(getattr(colours, name), ground) >= 4.5, (name, ground)
    for state in PackML:
        colour = colours.states[state.name]
        assert contrast(colour, colours.on_state) >= 4.5, state
        assert all(contrast(colour, ground) >= 3 for ground in grounds[:2]), state
    for line in colours.series:
        assert contrast(line, colours.surface) >= 3


def test_a_letter_of_a_state_has_one_colour() -> None:
    """Where colour fails, letters must do."""
    of: dict[str, set[str]] = {}
    for state in PackML:
        of.setdefault(words.letter(state.name), set()).add(shell.DARK.states[state.name])
    assert all(len(colours) == 1 for colours in of.values())


# tiles ------------------------------------------------------------------------------------------

SITE, PRESS = Asset("s", ALL, ALL, ALL), Asset("s", "a", "l", "p1")


def row(asset: Asset, kpi: str, value: float | None = 1.0, start_ns: int = 0) -> Row:
    return Row(asset, kpi, start_ns, MINUTE_NS, value, 1, 0, "1")


def test_a_target_of_every_member_holds_for_the_group_and_says_so() -> None:
    presses = [Asset("s", "a", "l", f"p{n}") for n in (1, 2)]
    rows = [row(SITE, "oee"), *(row(press, "oee") for press in presses)]
    (tile,) = tiles.headlines(rows, [Wanted("oee", "p*", 0.6, None)])
    assert tile == Headline("oee", SITE, Band(0.6, None, each=True))
    (tile,) = tiles.headlines(rows, [Wanted("oee", "p1", 0.6, None)])
    assert tile == Headline("oee", presses[0], Band(0.6, None))
    (tile,) = tiles.headlines(rows, [])
    assert tile == Headline("oee", SITE, None)


def test_kpis_a_plant_does_not_have_have_no_tile() -> None:
    assert tiles.headlines([row(PRESS, "wip"), row(PRESS, "line_speed")], []) == [
        Headline("line_speed", PRESS, None)
    ]


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), max_size=40))
def test_a_trend_is_broken_where_there_was_no_evidence(trend: list[float | None]) -> None:
    drawn = tiles.sparkline(trend, None)
    known = [value is not None for value in trend]
    if sum(known) < 2:
        assert not drawn
        return
    runs = sum(now and not before for before, now in zip([False, *known], known, strict=False))
    assert drawn.count("M") == runs
    ys = [float(y) for y in re.findall(r"[ML][\d.]+ ([-\d.]+)", drawn)]
    assert len(ys) == sum(known)
    assert all(0 <= y <= 44 for y in ys)


def test_tiles_show_what_was_known_at_the_moment_and_nothing_later(reader: Reader) -> None:
    head = tiles.headlines(reader.last(set(tiles.KPIS), "1m", reader.end_ns()), [])
    assert [tile.kpi for tile in head] == list(tiles.KPIS)
    for at_ns in range(reader.start_ns, reader.end_ns() + 1, 90 * NS_PER_S):
        found = tiles.readings(reader, head, "1m", at_ns)
        for tile, shown in zip(head, found, strict=True):
            past = [
                one for one in reader.history(tile.asset, tile.kpi, "1m", 0, at_ns)
                if one.value is not None
            ]  # fmt: skip
            expected = past[-1].value if past else None
            assert shown.value == expected
            assert shown.end_ns <= at_ns


def test_a_scenarios_expectations_come_before_what_was_published(reader: Reader) -> None:
    wanted = tiles.targets(reader)
    assert Wanted("line_speed", "cl01", 0.8, 1.0, "5m") in wanted
    assert Wanted("oee", "dcm*", 0.6, None, "5m") in wanted
    claimed = cast(Reader, SimpleNamespace(expects=list, scenario="ikd-after", kinds=reader.kinds))
    assert Wanted("wip_turnover_days", "flow", 4.5, 5.5, "5m") in tiles.targets(claimed)


def test_a_target_is_held_against_the_windows_that_it_is_asked_of(reader: Reader) -> None:
    wanted = tiles.targets(reader)
    (head,) = (
        tile for tile in tiles.tiles_of(reader, "1m", wanted, lambda _: True)
        if tile.kpi == "line_speed"
    )  # fmt: skip
    assert head.band == Band(0.8, 1.0, window="5m")
    for minute in range(17):
        t_ns = reader.start_ns + minute * MINUTE_NS
        short, whole = (tiles.readings(reader, [head], label, t_ns)[0] for label in ("1m", "5m"))
        last = reader.last({"line_speed"}, "5m", t_ns, "*cl01")
        assert short.judged == (last[0].value if last else None)
        assert minute >= 5 or short.judged is None
        assert whole.judged == whole.value
        if minute and minute % 5 == 0:
            assert short.judged == whole.value and short.end_ns <= whole.end_ns


def test_data_ages_by_events_and_by_silence_only_where_it_is_live() -> None:
    reading = Reading(1.0, "1", 0, MINUTE_NS, (), None)
    for quiet_ns in (0, 60 * NS_PER_S):
        session = cast(Session, SimpleNamespace(quiet_ns=quiet_ns))
        assert tiles.age_of(session, reading, 5 * NS_PER_S) == 5 * NS_PER_S + quiet_ns


# map --------------------------------------------------------------------------------------------

stretches = st.lists(
    st.tuples(st.floats(-1e3, 1e3), st.floats(0, 100)).map(lambda s: (s[0], s[0] + s[1])),
    min_size=1, max_size=8,
)  # fmt: skip


@given(stretches, st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_an_axis_keeps_order_and_size_and_cuts_only_where_nothing_is(
    taken: list[tuple[float, float]], shares: list[float]
) -> None:
    axis = plantmap.Axis(taken)
    low, high = min(a for a, _ in taken), max(b for _, b in taken)
    places = sorted(low + share * (high - low) for share in shares)
    drawn = [axis.drawn_m(at) for at in places]
    assert all(b >= a - 1e-9 for a, b in pairwise(drawn))
    for begin, end in taken:
        assert math.isclose(axis.drawn_m(end) - axis.drawn_m(begin), end - begin, abs_tol=1e-6)
    assert axis.size_m <= high - low + 1e-6
    covered = sum(end - begin for begin, end in taken)
    gap_m = max(plantmap.GAP_M, 0.12 * covered)
    assert axis.size_m <= covered + gap_m * (len(taken) - 1) + 1e-6


def test_everything_of_a_plant_is_on_its_map_and_vehicles_are_on_the_lanes(reader: Reader) -> None:
    layout = reader.layout()
    assert layout is not None
    standing = plantmap.stations(reader.assets())
    assert {asset.name for asset in standing} == {
        "cl01", "dcm01", "dcm02", "dcm03", "dcm04", "arm01", "arm02", "arm03",
    }  # fmt: skip
    drawing = plantmap.survey(layout, standing)
    assert len(drawing.places) == len(standing)
    for place in drawing.places:
        assert 0 < place.x < drawing.width
        assert 0 < place.y < drawing.height
    ends = {end for way in drawing.ways for end in (way[:2], way[2:])}
    assert {drawing.at(node.x_m, node.y_m) for node in layout.nodes} <= ends


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 99)), min_size=1, unique=True))
def test_assets_without_places_stand_apart_in_their_area(names: list[tuple[str, int]]) -> None:
    assets = [Asset("s", area, "l", f"m{n}") for area, n in names]
    drawing = plantmap.grid(assets)
    spots = [(place.x, place.y) for place in drawing.places]
    assert len(set(spots)) == len(assets)
    rooms = {ground.name: ground for ground in drawing.areas}
    for place in drawing.places:
        ground = rooms[place.asset.area]
        assert ground.x < place.x < ground.x + ground.width
        assert ground.y < place.y < ground.y + ground.height


def test_names_from_a_recording_cannot_put_markup_on_the_map(reader: Reader) -> None:
    evil = Asset("s", "<b>", "l", "<script>alert(1)</script>")
    drawn = plantmap.svg(plantmap.grid([evil]), Session(reader))
    assert "<script" not in drawn
    assert "<b>" not in drawn


# compare ----------------------------------------------------------------------------------------

values = st.one_of(st.none(), st.floats(0, 1e6))
named = st.dictionaries(st.sampled_from(["oee", "scrap_ratio", "messages", "wip"]), values)


@given(named, named)
def test_comparing_the_other_way_round_turns_every_verdict_over(
    here: dict[str, float | None], there: dict[str, float | None]
) -> None:
    ours = [row(PRESS, kpi, value) for kpi, value in here.items()]
    theirs = [row(PRESS, kpi, value) for kpi, value in there.items()]
    found, turned = compare.pairs(ours, theirs), compare.pairs(theirs, ours)
    assert {pair.key for pair in found} == {
        f"{kpi} s/a/l/p1" for kpi in here if here[kpi] is not None and there.get(kpi) is not None
    }
    swap = {0: 2, 2: 0, 1: 1, 3: 3}
    assert {p.key: swap[p.verdict] for p in found} == {p.key: p.verdict for p in turned}
    assert [p.verdict for p in found] == sorted(p.verdict for p in found)
    for a, b in pairwise(found):
        assert a.verdict < b.verdict or a.size >= b.size


def test_a_filter_finds_by_name_people_use_and_by_asset() -> None:
    pair = compare.Pair(row(PRESS, "oee", 0.5), row(PRESS, "oee", 0.6))
    names = {"oee": "设备综合效率 OEE"}
    assert compare.matching([pair], "OEE p1", names) == [pair]
    assert compare.matching([pair], "综合", names) == [pair]
    assert compare.matching([pair], "wip", names) == []
    assert compare.difference(pair, "en") == ("▼ −10.0 points, worse", "bad")


# in a browser -----------------------------------------------------------------------------------


@contextmanager
def served(*words_: str, trouble: bool = False) -> Iterator[str]:
    """``beilun serve`` in a process of its own; yields its address. Nothing may go wrong in it, or
    with ``trouble`` one thing, which its log tells once."""
    line = [sys.executable, "-m", "beilun", "serve", *words_, "--port", "0"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as found:
        assert found.stdout is not None
        try:
            address = found.stdout.readline().strip().rstrip("/")
            assert re.match("https?://127.0.0.1:", address), found.stderr and found.stderr.read()
            yield address
        finally:
            found.terminate()
            _, said = found.communicate(timeout=20)
            assert "Traceback" not in said, said[-4_000:]
            assert "has been deleted" not in said, said[-4_000:]
            assert said.count("damaged") == trouble, said[-4_000:]


@pytest.fixture(scope="module")
def address(recorded: Path, other: Path) -> Iterator[str]:
    chromium.find()
    with served(str(recorded), "--compare", str(other)) as url:
        yield url


window, browser = chromium.desktop(1600, 900)


def open_at(browser: chromium.Browser, address: str, path: str, **query: str) -> None:
    browser.open(address + path + "?" + "&".join(f"{k}={quote(v)}" for k, v in query.items()))
    browser.until(lambda: browser.text(".b-hour"), "the clock")


def at(reader: Reader, seconds: float) -> str:
    return format_time(reader.start_ns + round(seconds * NS_PER_S))


def numbers(browser: chromium.Browser) -> dict[str, str]:
    """What the tiles show, by KPI."""
    found: dict[str, str] = browser.run(
        "return Object.fromEntries([...document.querySelectorAll('.b-tile')].map("
        "t => [t.dataset.kpi, t.querySelector('.b-number').textContent]))"
    )
    return found


def expected(reader: Reader, seconds: float, window: str) -> dict[str, str]:
    """What they must show, by the reader."""
    head = tiles.tiles_of(reader, window, tiles.targets(reader), lambda _: True)
    t_ns = reader.start_ns + round(seconds * NS_PER_S)
    found: dict[str, str] = {}
    for tile, reading in zip(head, tiles.readings(reader, head, window, t_ns), strict=True):
        number, _ = words.quantity(reading.value, reading.unit, "en", short=True)
        percent = reading.unit == "1" and reading.value is not None
        found[tile.kpi] = f"{number}%" if percent else number
    return found


def vehicles(browser: chromium.Browser) -> dict[str, str]:
    found: dict[str, str] = browser.run(
        "return Object.fromEntries([...document.querySelectorAll('.m-vehicle')].map("
        "v => [v.dataset.asset, v.style.transform]))"
    )
    return found


def chosen(browser: chromium.Browser, place: str) -> str:
    return str(browser.run("return document.querySelector(arguments[0]).value", f"{place} select"))


def seek(browser: chromium.Browser, share: float) -> None:
    """Click the replay bar so far along."""
    browser.run(
        "const line = document.querySelector('.b-line'), box = line.getBoundingClientRect();"
        "for (const kind of ['pointerdown', 'pointerup']) line.dispatchEvent(new PointerEvent(kind,"
        "{pointerId: 1, clientX: box.left + arguments[0] * box.width, clientY: box.top + 5,"
        " bubbles: true}))",
        share,
    )


def test_seeking_shows_what_the_recording_says_of_that_time(
    browser: chromium.Browser, address: str, reader: Reader
) -> None:
    open_at(browser, address, "/", t=at(reader, 300), w="1m")
    browser.until(lambda: numbers(browser) == expected(reader, 300, "1m"), "tiles of minute 5")
    browser.until(lambda: len(vehicles(browser)) == 2, "vehicles")
    before = vehicles(browser)
    seek(browser, 0.75)
    browser.until(lambda: numbers(browser) == expected(reader, 720, "1m"), "tiles of minute 12")
    browser.until(lambda: vehicles(browser) != before, "another place of the vehicles")
    local, utc = browser.texts(".b-hour")
    assert (int(local[:2]) - int(utc[:2])) % 24 == 8
    assert local[3:] == utc[3:]
    states = browser.run(
        "return [...document.querySelectorAll('.m-station')].map("
        "s => [s.dataset.asset, s.querySelector('.m-letter').textContent])"
    )
    t_ns = reader.start_ns + 720 * NS_PER_S
    for path, letter in states:
        spans = reader.states(tiles.asset_of(path), t_ns - MINUTE_NS, t_ns)
        assert letter == words.letter(spans[-1].state if spans else "")


def test_the_keyboard_does_all_that_the_mouse_does(
    browser: chromium.Browser, address: str, reader: Reader
) -> None:
    open_at(browser, address, "/", t=at(reader, 480), w="1m")
    utc = ".b-time[data-clock=utc] .b-hour"
    browser.until(lambda: browser.text(utc) == "00:08:00", "minute 8")
    browser.press("ArrowRight")
    browser.until(lambda: browser.text(utc) == "00:09:00", "minute 9")
    browser.press("ArrowLeft")
    browser.press("ArrowLeft")
    browser.until(lambda: browser.text(utc) == "00:07:00", "minute 7")
    browser.press("ArrowLeft", shift=True)
    browser.until(lambda: browser.text(utc) == "00:00:00", "the start")
    assert "t=2026-01-05T00:00:00Z" in browser.chrome.current_url
    for _ in range(6):
        browser.press("+")
    browser.until(lambda: chosen(browser, ".b-bar") == "100",
                  "100 times")  # fmt: skip
    browser.press(" ")
    browser.until(lambda: browser.text(".b-mode") == "Replay 100×", "playing")
    browser.until(lambda: browser.text(utc) > "00:01:00", "a minute of replay")
    browser.press(" ")
    browser.until(lambda: browser.text(".b-mode") == "Paused", "a pause")
    browser.press("g")
    browser.until(lambda: browser.text(utc) == "00:16:00", "the end")
    browser.press("w")
    browser.until(lambda: chosen(browser, ".b-tools") == "5m",
                  "other windows")  # fmt: skip
    browser.press("?")
    browser.until(lambda: browser.all(".b-help"), "the list of keys")
    browser.press("?")
    browser.until(lambda: not browser.all(".b-help"), "the list of keys to go")
    browser.press("7")
    browser.until(lambda: browser.chrome.current_url.split("?")[0].endswith("/compare"), "compare")
    browser.chrome.back()
    browser.until(lambda: browser.all(".b-map svg"), "the overview again")


def test_a_phone_sees_everything_without_scrolling_sideways(
    browser: chromium.Browser, address: str, reader: Reader
) -> None:
    browser.resize(390, 844)
    for path in (view.path for view in shell.views() if view.listed):
        open_at(browser, address, path, t=at(reader, 720), w="1m")
        browser.until(lambda: browser.all(".b-view > *"), path)
        wide, held = browser.run(
            "const v = document.querySelector('.b-view');"
            "return [document.documentElement.scrollWidth, v.scrollWidth - v.clientWidth]"
        )
        assert wide <= 390, path
        assert held <= 0, path
    assert not browser.run("return document.querySelector('.b-nav').offsetHeight")
    browser.all(".b-menu")[0].click()
    browser.until(
        lambda: browser.run("return document.querySelector('.b-nav').offsetHeight"), "menu"
    )


def test_the_other_language_leaves_no_word_of_this_one(
    browser: chromium.Browser, address: str, reader: Reader
) -> None:
    open_at(browser, address, "/", t=at(reader, 720), w="1m")
    browser.until(lambda: len(numbers(browser)) == 4, "tiles")
    english = {text for text, _ in words.WORDS.values() if re.search(r"[a-z]{3}", text)}
    english |= {text for text, _ in kpi_words.KPIS.values() if re.search(r"[a-z]{3}", text)}
    english |= {words.state(state.name, "en") for state in PackML}
    browser.press("l")
    browser.until(lambda: browser.text(".b-mode") == "已暂停", "Chinese")
    utc = ".b-time[data-clock=utc] .b-hour"
    assert browser.text(utc) == "00:12:00", "the moment stays"
    for path in (view.path for view in shell.views() if view.listed):
        open_at(browser, address, path, t=at(reader, 720), w="1m")
        assert browser.run("return document.documentElement.lang") == "zh-CN"
        browser.until(lambda: browser.all(".b-view > *"), path)
        seen = set(
            browser.run(
                "const out = []; const walk = document.createTreeWalker(document.body, 4);"
                "while (walk.nextNode()) { const p = walk.currentNode.parentElement;"
                "if (!p.closest('script, style, #popup, #too_long_message_popup'))"
                " out.push(walk.currentNode.textContent.trim()); }"
                "for (const e of document.querySelectorAll('[title], [aria-label], [placeholder]'))"
                " out.push(e.title ?? '', e.ariaLabel ?? '', e.placeholder ?? '');"
                "return out"
            )
        )
        assert not seen & (english - {"English"}), path
        assert not seen & set(words.WORDS), path


def test_leafing_through_the_views_leaves_nothing_behind(
    browser: chromium.Browser, address: str, reader: Reader
) -> None:
    open_at(browser, address, "/", t=at(reader, 720), w="1m")
    browser.until(lambda: browser.all(".m-station[data-state]"), "the map")
    nodes = browser.nodes()
    listed = [view for view in shell.views() if view.listed]
    for turn in range(4 * len(listed) + 1):
        browser.press(str(turn % len(listed) + 1))
        if turn % 3:  # some are closed before they are drawn
            browser.until(lambda: browser.all(".b-view > *"), "a view")
    browser.press("1")
    browser.until(lambda: browser.all(".m-station[data-state]"), "the map again")
    browser.until(lambda: browser.nodes() <= nodes + 5, "the others to be gone")


def test_dark_and_light_are_kept_for_the_next_visit(
    browser: chromium.Browser, address: str
) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"

    def rgb(colour: str) -> str:
        return f"rgb({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))})"

    open_at(browser, address, "/")
    browser.until(lambda: browser.run(ground) == rgb(shell.DARK.ground), "dark")
    browser.press("t")
    browser.until(lambda: browser.run(ground) == rgb(shell.LIGHT.ground), "light")
    open_at(browser, address, "/")
    browser.until(lambda: browser.run(ground) == rgb(shell.LIGHT.ground), "light again")


def test_two_recordings_stand_side_by_side_with_the_worst_first(
    browser: chromium.Browser, address: str, reader: Reader, other: Path
) -> None:
    open_at(browser, address, "/compare", t=at(reader, 450), w="1m")
    second = Reader(other)
    found = compare.pairs(
        reader.last((), "1m", reader.start_ns + 450 * NS_PER_S),
        second.last((), "1m", second.start_ns + 450 * NS_PER_S),
    )
    second.close()
    assert found[0].verdict == 0, "with other luck something is worse"
    shown = [
        [words.kpi(p.here.kpi, "en"), tiles.path_of(p.here.asset), compare.difference(p, "en")[0]]
        for p in found[: compare.SHOWN]
    ]

    def table() -> list[list[str]]:
        cells: list[list[str]] = browser.run(
            "return [...document.querySelectorAll('.b-view tbody tr')].map("
            "r => [0, 1, 4].map(n => r.cells[n].innerText.trim()))"
        )
        return cells

    browser.until(lambda: table() == shown, "the table")
    field = browser.all(".b-field")[0]
    field.send_keys("oee dcm01")
    browser.until(lambda: [r[:2] for r in table()] == [["OEE", "ningbo/casting/line1/dcm01"]],
                  "what was looked for")  # fmt: skip
    browser.until(lambda: browser.all(".b-view canvas"), "the chart")
    open_at(browser, address, "/compare", t=at(reader, 900), w="1m")
    browser.until(lambda: "7 min" in browser.text(".b-worse"), "word that the other had ended")


def test_a_recording_that_cannot_be_read_any_more_is_told_once_and_on_the_page(
    window: chromium.Browser, recorded: Path, tmp_path: Path
) -> None:
    path = tmp_path / "hurt.beilun"
    shutil.copy(recorded, path)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE block SET data = x'00'")
    db.close()
    with served(str(path), trouble=True) as url:
        window.cookie(url, beilun_theme="dark", beilun_language="en")
        open_at(window, url, "/")
        window.until(lambda: "damaged" in window.text(".b-trouble"), "word of it")
        window.press(" ")
        time.sleep(1.0)  # what must not happen: a line in the log for each of its ticks
        window.open("about:blank")


LINE = Asset("works", "cable", "hall1", "cl01")


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[Path, RowStore]]:
    """A recording that is still being written: a line that ran for six minutes of twenty."""
    path = tmp_path / "live.beilun"
    with Recording.create(path) as recording:
        edge = {"windows": ["1m"], "zone": "Asia/Shanghai"}
        recording.set_meta({"start_ns": "0", "edge": json.dumps(edge)})
        store = RowStore(recording)
        store.prepare()
        store.write(speed(minute, 0.9 if minute < 6 else None) for minute in range(20))
        yield path, store


def speed(minute: int, value: float | None) -> Row:
    return Row(LINE, "line_speed", minute * MINUTE_NS, MINUTE_NS, value, 60, 0, "m/s")


def test_a_live_page_follows_says_what_is_stale_and_shows_only_what_there_is(
    window: chromium.Browser, live: tuple[Path, RowStore]
) -> None:
    path, store = live
    window.resize(1600, 900)
    with served(str(path)) as url:
        window.cookie(url, beilun_theme="dark", beilun_language="en")
        open_at(window, url, "/")
        window.until(lambda: numbers(window) == {"line_speed": "0.900"}, "the tile")
        assert window.text(".b-mode") == "Live"
        assert window.text(".b-zone").startswith("Local, Asia/Shanghai")
        tile = window.all(".b-tile")[0]
        assert tile.get_attribute("data-stale") == "true"
        assert window.text(".b-age") == "stale for 14 min"
        store.write([speed(20, 0.85)])
        window.until(lambda: numbers(window) == {"line_speed": "0.850"}, "news")
        assert window.all(".b-tile")[0].get_attribute("data-stale") == "false"
        assert window.text(".b-time[data-clock=utc] .b-hour") == "00:21:00"
        window.press("ArrowLeft")
        window.until(lambda: window.text(".b-mode") == "Paused", "a pause")
        window.until(lambda: numbers(window) == {"line_speed": "0.900"}, "what was known then")
        store.write([speed(21, 0.8)])
        window.press("g")
        window.until(lambda: numbers(window) == {"line_speed": "0.800"}, "the newest")
        window.open("about:blank")


def test_by_another_window_a_tile_says_how_the_one_was_that_the_target_is_of(
    browser: chromium.Browser, address: str, reader: Reader
) -> None:
    tile, sign = ".b-tile[data-kpi=line_speed]", ".b-tile[data-kpi=line_speed] .b-sign"
    whole = reader.last({"line_speed"}, "5m", reader.start_ns + 720 * NS_PER_S, "*cl01")[0].value
    assert whole is not None
    inside = 0.8 <= whole <= 1.0
    for seconds, said, verdict in (
        (240, "target 0.8–1; 5m: –", ""),
        (720, f"{'✓' if inside else '✗'} target 0.8–1; 5m: {words.quantity(whole, 'm/s', 'en')[0]}",
         "in" if inside else "out"),
    ):  # fmt: skip
        open_at(browser, address, "/", t=at(reader, seconds), w="1m")
        browser.until(lambda said=said: browser.text(sign) == said, said)
        assert browser.all(tile)[0].get_attribute("data-verdict") == verdict
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")


def test_a_replay_that_is_loaded_again_goes_on_from_where_it_was(
    browser: chromium.Browser, address: str, reader: Reader
) -> None:
    open_at(browser, address, "/", t=at(reader, 480), w="1m")
    for _ in range(3):
        browser.press("+")
    browser.until(lambda: chosen(browser, ".b-bar") == "10", "ten times")
    browser.press(" ")
    utc = ".b-time[data-clock=utc] .b-hour"

    def told() -> str:
        found = re.search(r"[?&]t=2026-01-05T(\d\d:\d\d:\d\d)", browser.chrome.current_url)
        return found[1] if found else ""

    browser.until(lambda: told() >= "00:08:30", "the address", 15)
    browser.chrome.refresh()
    browser.until(lambda: browser.text(utc), "the clock")
    assert "00:08:30" <= told() <= browser.text(utc) < "00:20:00"
    assert browser.run("return window.socket !== undefined")


@pytest.mark.needs_openssl
def test_with_a_certificate_the_page_lives_by_https(
    window: chromium.Browser, recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = make_certificate(tmp_path)
    monkeypatch.setenv("BEILUN_SERVE__CERTIFICATE", str(certificate))
    monkeypatch.setenv("BEILUN_SERVE__KEY", str(key))
    window.complaints()
    window.hosts()
    window.chrome.execute_cdp_cmd("Security.setIgnoreCertificateErrors", {"ignore": True})
    with served(str(recorded)) as url:
        assert url.startswith("https:")
        window.cookie(url, beilun_theme="dark", beilun_language="en")
        open_at(window, url, "/", w="1m")
        window.until(lambda: len(numbers(window)) == 4, "tiles")
        window.press("ArrowLeft")
        window.until(lambda: window.text(".b-mode") == "Paused", "an answer by the socket")
        assert window.complaints() == []
        assert window.run("return performance.getEntries().every(e => !/^http:/.test(e.name))")
        window.open("about:blank")
    window.chrome.execute_cdp_cmd("Security.setIgnoreCertificateErrors", {"ignore": False})


def test_a_newer_run_is_offered_and_others_can_be_opened_and_compared(
    window: chromium.Browser, recorded: Path, other: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    runs = tmp_path / "runs"
    runs.mkdir()
    shutil.copy(recorded, runs / "here.beilun")
    (runs / "notes.beilun").write_text("no recording")
    monkeypatch.setenv("BEILUN_RUN__DIRECTORY", str(runs))
    with served() as url:
        window.resize(1600, 900)
        window.cookie(url, beilun_theme="dark", beilun_language="en")
        open_at(window, url, "/area", w="1m")
        assert not window.run("return document.querySelector('.b-news').offsetHeight")
        shutil.copy(other, runs / "later.beilun")
        window.until(lambda: window.run("return document.querySelector('.b-news').offsetHeight"),
                     "news")  # fmt: skip
        assert window.text(".b-news span") == "A newer run has begun: later"
        window.press("o")
        window.until(lambda: len(window.all(".b-list li")) == 2, "the list")
        assert sorted(text[:5] for text in window.texts(".b-list li")) == ["here2", "later"]
        window.press("o")
        window.until(lambda: not window.all(".b-list li"), "the list to go")
        window.press("n")
        utc = ".b-time[data-clock=utc] .b-hour"
        window.until(lambda: window.text(utc) == "00:08:00", "the end of the other")
        assert window.chrome.current_url.endswith("/area?r=later")
        assert not window.run("return document.querySelector('.b-news').offsetHeight")
        window.press("1")
        window.until(lambda: window.chrome.current_url.endswith("/?r=later"), "the overview")
        hrefs = window.run("return [...document.querySelectorAll('.b-nav a')].map(a => a.href)")
        assert all("r=later" in href for href in hrefs)
        window.press("o")
        window.until(lambda: window.all(".b-list li"), "the list")
        window.run("[...document.querySelectorAll('.b-list a')].at(-1).click()")
        window.until(lambda: "here" in window.text(".b-key:nth-of-type(2)"), "a comparison")
        assert window.chrome.current_url.endswith("/compare?r=later&c=here")
        for name in ("../../secret", "notes", "later.beilun", "%2Fetc%2Fpasswd"):
            open_at(window, url, "/", r=name)
            window.until(lambda: "no such recording" in window.text(".b-trouble"), name)
            assert window.text(utc) == "00:16:00", "the one it was started with"
        window.open("about:blank")


def test_ticking_grows_neither_the_page_nor_the_document(
    browser: chromium.Browser, address: str, reader: Reader
) -> None:
    open_at(browser, address, "/", t=at(reader, 630), w="1m")
    browser.until(lambda: len(vehicles(browser)) == 2, "vehicles")
    for _ in range(4):
        browser.press("+")
    utc = ".b-time[data-clock=utc] .b-hour"
    browser.press(" ")
    browser.until(lambda: browser.text(utc) > "00:11:00", "half a minute of warming up")
    heap, nodes = browser.heap_bytes(), browser.nodes()
    browser.until(lambda: browser.text(utc) > "00:14:00", "three minutes of ticks", 60)
    assert browser.heap_bytes() < heap + 2_000_000
    assert abs(browser.nodes() - nodes) < 20


def test_the_page_is_filled_within_two_seconds(
    browser: chromium.Browser, address: str, reader: Reader
) -> None:
    open_at(browser, address, "/", t=at(reader, 720), w="1m")
    browser.until(lambda: len(numbers(browser)) == 4, "tiles")
    began = time.monotonic()
    browser.chrome.refresh()
    browser.until(lambda: numbers(browser) == expected(reader, 720, "1m"), "tiles", 10)
    assert time.monotonic() - began < 2.0
