"""Alarms: a function of the final rows, however they came; rules told in the words of the file."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beilun import alarming, remote
from beilun.commands.config import check_file
from beilun.commands.replay import replay
from beilun.composing import edge_header, policy_of, scenario_header
from beilun.serving.reading import Reader
from config.alarms import Rule, load_rules, rules_in_force
from config.errors import ConfigError
from config.settings import Webhook as WebhookSettings
from config.settings import load
from config.units import NS_PER_S
from config.windows import Every, Sliding, window
from edge import kpis
from edge.alarms import Alarms, is_alarm, standings
from edge.feed import feeding
from edge.pipeline import Pipeline
from edge.rows import LastRows, Row, digest
from edge.sinks import forward
from edge.sinks.forward import Forwarder, forwarding
from edge.sinks.influx import Later, Malformed, Refused, Taken
from edge.sinks.webhook import Webhook, identity_of, key_of
from edge.store import RowStore
from ingest.broker import Broker
from ingest.decode import Decoder
from ingest.messages import Asset
from ingest.recording import Recording
from ingest.subscribe import Received, subscribed
from tests.servers import free_port
from tests.test_promises import RUN, groups, messages, scenario

MINUTE_NS = 60 * NS_PER_S
START_NS = 1_546_300_800 * NS_PER_S
PLACE = Asset("s", "a", "l", "m1")
TEXT = {"en": "Something is up", "zh": "出问题了"}


def rule(**settings: Any) -> Rule:
    given = {"name": "low", "text": TEXT, "severity": "warning", "kpi": "oee", "window": "1m"}
    return Rule.model_validate({**given, **settings})


def row(
    n: int, value: float | None = 1.0, *, samples: int = 9, late: int = 0, asset: Asset = PLACE,
    gone: bool = False,
) -> Row:  # fmt: skip
    start_ns = START_NS + n * MINUTE_NS
    return Row(asset, "oee", start_ns, MINUTE_NS, value, samples, late, "1", gone=gone)


class Life:
    """Alarms over rows that come and are stored, as in a pipeline."""

    def __init__(self, *rules: Rule, past: "LastRows | RowStore | None" = None) -> None:
        self.past = LastRows() if past is None else past
        self.rules = rules
        self.alarms = Alarms(rules, (Every(MINUTE_NS),), self.past)

    def come(self, rows: Sequence[Row]) -> list[Row]:
        self.past.write(rows)
        told = self.alarms.fold(rows, lambda _: "machine")
        self.past.write(told)
        return told

    def restart(self) -> list[Row]:
        """Another process on the same store."""
        self.alarms = Alarms(self.rules, (Every(MINUTE_NS),), self.past)
        told = self.alarms.catch_up(START_NS + 10_000 * MINUTE_NS, lambda _: "machine")
        self.past.write(told)
        return told

    def told(self) -> dict[tuple[str, int], tuple[float | None, int]]:
        return {
            (r.kpi, (r.window_start_ns - START_NS) // MINUTE_NS): (r.value, r.n)
            for r in self.past.rows()
            if is_alarm(r)
        }


def changes(rule: Rule, values: Sequence[float | None]) -> list[tuple[int, float]]:
    """Where an alarm changes over windows with these values, and to what."""
    life = Life(rule)
    life.come([row(n, value) for n, value in enumerate(values)])
    return sorted((n, value) for (_, n), (value, _) in life.told().items() if value is not None)


class TestOneRule:
    def test_it_is_raised_when_it_held_long_enough_and_cleared_likewise(self) -> None:
        low = rule(below=0.5, clear_above=0.7, **{"for": "3m"}, clear_for=2)
        values = [0.4, 0.4, 0.6, 0.4, 0.4, 0.4, 0.4, 0.8, 0.6, 0.8, 0.8, 0.4]
        assert changes(low, values) == [(5, 1.0), (10, 0.0)]

    def test_the_threshold_itself_is_good_and_the_clearing_one_clears(self) -> None:
        assert changes(rule(below=0.5), [0.5, 0.4999, 0.5]) == [(1, 1.0), (2, 0.0)]
        assert changes(rule(above=0.5), [0.5, 0.5001, 0.5]) == [(1, 1.0), (2, 0.0)]
        assert changes(rule(above=0.5, clear_below=0.3), [0.6, 0.4, 0.3]) == [(0, 1.0), (2, 0.0)]

    def test_without_evidence_nothing_is_raised_and_nothing_cleared(self) -> None:
        low = rule(below=0.5, **{"for": 2})
        assert changes(low, [0.4, None, 0.4, None]) == []
        assert changes(low, [0.4, 0.4, None, None, 0.9]) == [(1, 1.0), (4, 0.0)]

    def test_stale_is_no_value_and_missing_is_no_sample(self) -> None:
        assert changes(rule(stale="2m"), [None, 0.0, None, None, 0.0]) == [(3, 1.0), (4, 0.0)]
        life = Life(rule(missing=2))
        life.come([row(0, 1.0, samples=0), row(1, None, samples=0), row(2, None, samples=1)])
        assert life.told() == {("alarm.low", 1): (1.0, 2), ("alarm.low", 2): (0.0, 1)}

    def test_late_samples_are_a_share_of_the_window(self) -> None:
        life = Life(rule(late_above=0.5))
        life.come([row(0, samples=4, late=2), row(1, samples=4, late=3), row(2, samples=4, late=0)])
        assert life.told() == {("alarm.low", 1): (1.0, 1), ("alarm.low", 2): (0.0, 1)}

    def test_a_change_has_the_window_in_which_it_came_and_how_long_it_held(self) -> None:
        life = Life(rule(below=0.5, **{"for": "3m"}))
        told = life.come([row(n, 0.1) for n in range(5)])
        assert told == [
            Row(PLACE, "alarm.low", START_NS + 2 * MINUTE_NS, MINUTE_NS, 1.0, 3, 0, "1")
        ]

    def test_it_looks_at_its_kind_of_windows_only(self) -> None:
        hours = Row(PLACE, "oee", START_NS, 60 * MINUTE_NS, 0.0, 9, 0, "1")
        odd = Row(PLACE, "oee", START_NS + NS_PER_S, MINUTE_NS, 0.0, 9, 0, "1")  # of an order
        assert Life(rule(below=0.5)).come([hours, odd]) == []

    def test_sliding_windows_count_by_their_steps(self) -> None:
        sliding = rule(below=0.5, window="1h/5m", **{"for": "10m"})
        assert sliding.to_raise == 2
        kind = window("1h/5m", "UTC", ())
        assert isinstance(kind, Sliding)
        past = LastRows()
        alarms = Alarms([sliding], [kind], past)
        rows = [
            Row(PLACE, "oee", START_NS + n * 5 * MINUTE_NS, 60 * MINUTE_NS, 0.1, 9, 0, "1")
            for n in range(3)
        ]
        past.write(rows)
        [told] = alarms.fold(rows, lambda _: None)
        assert told.window_start_ns == START_NS + 5 * MINUTE_NS

    def test_shifts_of_any_length_follow_one_another(self) -> None:
        kind = window("shift", "Europe/Berlin", ("06:00", "14:00", "22:00"))
        low = rule(below=0.5, window="shift", **{"for": 2})
        past = LastRows()
        alarms = Alarms([low], [kind, Every(MINUTE_NS)], past)
        first = 1_774_656_000 * NS_PER_S  # 28 March 2026, the day before clocks go forward
        spans = kind.over(first, first + 3 * 86_400 * NS_PER_S)
        rows = [Row(PLACE, "oee", s, e - s, 0.1, 9, 0, "1") for s, e in spans]
        assert len({r.window_length_ns for r in rows}) == 2
        past.write([*rows, *(row(n, 0.9) for n in range(3))])
        for each in rows:
            told = alarms.fold([each], lambda _: None)
            past.write(told)
        good = rows[0]._replace(value=0.9)
        past.write([good])
        told = alarms.fold([good], lambda _: None)
        assert [(r.window_start_ns, r.gone) for r in told] == [
            (rows[1].window_start_ns, True), (rows[2].window_start_ns, False)
        ]  # fmt: skip

    def test_it_looks_at_its_assets_only(self) -> None:
        line = Asset("s", "a", "l", "-")
        single = Life(rule(below=0.5))
        assert {r.asset for r in single.come([row(0, 0.1), row(0, 0.1, asset=line)])} == {PLACE}
        whole = Life(rule(below=0.5, level="line"))
        assert {r.asset for r in whole.come([row(0, 0.1), row(0, 0.1, asset=line)])} == {line}
        assert not Life(rule(below=0.5, asset="x*")).come([row(0, 0.1)])
        assert not Life(rule(below=0.5, kinds=["agv"])).come([row(0, 0.1)])


def by_hand(rule: Rule, rows: Sequence[Row]) -> dict[tuple[str, int], tuple[float | None, int]]:
    """Changes of an alarm, from all rows there are at last: at every window, whether each of the
    last so many since the last change tells for the other state."""

    def bad(each: Row) -> bool:
        match rule.condition:
            case "stale":
                return each.value is None
            case "missing":
                return each.n == 0
            case "above":
                return each.value is not None and each.value > rule.above  # type: ignore[operator]
            case _:
                return each.value is not None and each.value < rule.below  # type: ignore[operator]

    def good(each: Row) -> bool:
        match rule.condition:
            case "stale":
                return each.value is not None
            case "missing":
                return each.n > 0
            case "above":
                limit = rule.above if rule.clear_below is None else rule.clear_below
                return each.value is not None and each.value <= limit  # type: ignore[operator]
            case _:
                limit = rule.below if rule.clear_above is None else rule.clear_above
                return each.value is not None and each.value >= limit  # type: ignore[operator]

    ordered = sorted(rows, key=lambda r: r.window_start_ns)
    found: dict[tuple[str, int], tuple[float | None, int]] = {}
    since, standing = 0, False
    for at in range(len(ordered)):
        test, needed = (good, rule.to_clear) if standing else (bad, rule.to_raise)
        last = ordered[max(since, at + 1 - needed) : at + 1]
        if len(last) == needed and all(map(test, last)):
            standing, since = not standing, at + 1
            place = (ordered[at].window_start_ns - START_NS) // MINUTE_NS
            found[rule.row_name, place] = (float(standing), needed)
    return found


CONDITIONS = (
    {"above": 0.5}, {"above": 0.5, "clear_below": 0.2}, {"below": 0.5}, {"stale": 1}, {"stale": 3},
    {"below": 0.5, "clear_above": 0.8}, {"missing": 2},
)  # fmt: skip
values = st.sampled_from([None, 0.0, 0.3, 0.5, 0.6, 1.0])
batch = st.lists(
    st.tuples(st.integers(0, 15), values, st.integers(0, 1), st.booleans()), min_size=1, max_size=8
)
lives = st.lists(st.one_of(batch, batch, st.sampled_from(["restart", "die"])), max_size=12)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    given: dict[str, Any] = dict(draw(st.sampled_from(CONDITIONS)))
    if not {"stale", "missing"} & given.keys():
        given["for"] = draw(st.integers(1, 4))
    return rule(**given, clear_for=draw(st.integers(1, 4)))


def live(life: Life, one: Rule, steps: "list[Any]", *, orderly: bool) -> None:
    """Rows come, are amended, taken away and come again, and the process dies and another goes on:
    at every moment the alarms are those of the rows there are."""
    final: dict[int, Row] = {}
    for step in steps:
        if step == "restart":
            before = life.told()
            assert not any(each.gone for each in life.restart())
            assert life.told() == before
        elif step == "die":
            left = list(final)[::2]  # written, and never looked at by the one who died
            life.past.write([row(n, gone=True) for n in left])
            final = {n: each for n, each in final.items() if n not in left}
            life.restart()
            life.past.write(life.alarms.finish())
        else:
            rows: list[Row] = []
            for n, value, samples, gone in step:
                known = orderly and n not in final
                place = max(final, default=-1) + 1 if known else n
                made = row(place, value, samples=samples, gone=gone and place in final)
                rows.append(made)
                if made.gone:
                    del final[place]
                else:
                    final[place] = made
            life.come(rows)
        assert life.told() == by_hand(one, list(final.values()))


@settings(deadline=None, max_examples=300)
@given(one=rules(), steps=lives, orderly=st.booleans())
def test_alarms_are_a_function_of_the_final_rows(
    one: Rule, steps: list[Any], orderly: bool
) -> None:
    live(Life(one), one, steps, orderly=orderly)


@settings(deadline=None, max_examples=30)
@given(one=rules(), steps=lives)
def test_a_stored_past_is_as_good_as_one_in_memory(one: Rule, steps: list[Any]) -> None:
    path = Path(f"/dev/shm/beilun-alarms-{os.getpid()}-{time.monotonic_ns()}")
    try:
        with Recording.create(path) as recording:
            recording.db.execute("PRAGMA synchronous=OFF")
            store = RowStore(recording)
            store.prepare()
            live(Life(one, past=store), one, steps, orderly=False)
    finally:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


# over a recording --------------------------------------------------------------------------------

NERVOUS = """
[[rule]]
name = "tail"
text = { en = "Few within 10 ms", zh = "达标消息过少" }
severity = "info"
kpi = "within_10ms"
window = "1m"
below = 0.3
clear_above = 0.35

[[rule]]
name = "site_busy"
text = { en = "Misses in a row", zh = "连续超时" }
severity = "critical"
kpi = "misses_in_a_row"
level = "site"
window = "1m"
above = 2.0
for = "2m"

[[rule]]
name = "no_cycle"
text = { en = "No cycle ended", zh = "无完整循环" }
severity = "warning"
kpi = "arm_cycle_time"
window = "1m"
stale = "2m"

[[rule]]
name = "silent"
text = { en = "Silent", zh = "无数据" }
severity = "warning"
kpi = "within_10ms"
window = "1m"
missing = "1m"
"""
"""Rules that are raised and cleared all the time."""


@pytest.fixture(scope="module")
def nervous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "nervous.toml"
    path.write_text(NERVOUS, encoding="utf-8")
    return path


def edge(path: Path, rules: Path) -> tuple[Recording, RowStore, Pipeline]:
    chosen = scenario("6m")
    recording = Recording.create(path)
    found = load_rules(rules, kpis=kpis.load()).rule
    recording.set_meta({
        **scenario_header(chosen, RUN), "edge": edge_header(chosen.edge),
        **alarming.alarms_header(found),
    })  # fmt: skip
    store = RowStore(recording)
    store.prepare()
    policy = policy_of(chosen.edge)
    alarms = Alarms(found, policy.windows, store)
    return recording, store, Pipeline(recording, Decoder(), policy, RUN, store.write, alarms)


def recorded(path: Path, rules: Path, items: Sequence[Received], size: int) -> list[Row]:
    recording, store, pipe = edge(path, rules)
    with recording:
        for group in groups(items, size):
            pipe.take(group)
        return pipe.conclude(store).rows


@pytest.fixture(scope="module")
def published() -> list[Received]:
    return messages(scenario("6m"))


@pytest.fixture(scope="module")
def straight(
    published: list[Received], nervous: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Row]:
    path = tmp_path_factory.mktemp("straight") / "a.beilun"
    rows = recorded(path, nervous, published, 200)
    counts = Counter(row.kpi for row in rows if is_alarm(row))
    assert counts["alarm.tail"] > 10
    assert counts["alarm.no_cycle"] and counts["alarm.silent"] and counts["alarm.site_busy"]
    return rows


class TestRecording:
    @pytest.mark.parametrize("seed", [1, 2])
    def test_any_order_raises_the_same(
        self, seed: int, straight: list[Row], published: list[Received], nervous: Path,
        tmp_path: Path,
    ) -> None:  # fmt: skip
        dice = random.Random(seed)
        shuffled = [*published, *dice.sample(published, 100)]
        dice.shuffle(shuffled)
        rows = recorded(tmp_path / "b.beilun", nervous, shuffled, dice.choice([300, 1_000, 10_000]))
        assert digest(filter(is_alarm, rows)) == digest(filter(is_alarm, straight))
        assert digest(rows) == digest(straight)

    def test_a_replay_raises_the_same_by_the_rules_of_its_header(
        self, straight: list[Row], published: list[Received], nervous: Path, tmp_path: Path
    ) -> None:
        recorded(tmp_path / "b.beilun", nervous, published, 64)
        with Recording.open(tmp_path / "b.beilun") as recording:
            rows, _ = replay(recording)
            assert digest(rows) == digest(straight) == recording.meta("digest")

    def test_a_killed_edge_raises_the_same(
        self, straight: list[Row], published: list[Received], nervous: Path, tmp_path: Path
    ) -> None:
        jumbled = list(published)
        random.Random(7).shuffle(jumbled)
        path = tmp_path / "b.beilun"
        recording, store, pipe = edge(path, nervous)
        for group in groups(published[: len(published) // 2], 500):
            pipe.take(group)
        told = sorted(store.named("alarm.*"))
        assert told
        recording.db.close()  # no drain, no finish: as if killed
        recording, store, pipe = edge(path, nervous)
        with recording:
            pipe.resume()
            assert sorted(store.named("alarm.*")) == told  # revisions too: nobody is told again
            for group in groups(jumbled, 1_000):
                pipe.take(group)
            rows = pipe.conclude(store).rows
        assert digest(rows) == digest(straight)

    def test_rules_no_longer_in_force_leave_nothing_behind(
        self, published: list[Received], nervous: Path, tmp_path: Path
    ) -> None:
        path, fewer = tmp_path / "b.beilun", tmp_path / "fewer.toml"
        fewer.write_text(nervous.read_text("utf-8").replace('name = "tail"', 'name = "other"'))
        recording, store, pipe = edge(path, nervous)
        for group in groups(published[: len(published) // 2], 200):
            pipe.take(group)
        assert list(store.named("alarm.tail"))
        recording.db.close()
        recording, store, pipe = edge(path, fewer)
        with recording:
            pipe.resume()
            assert not list(store.named("alarm.tail")) and list(store.named("alarm.other"))
            for group in groups(published, 200):
                pipe.take(group)
            kept = pipe.conclude(store).digest
        with Recording.open(path) as again:
            assert digest(replay(again)[0]) == kept


def test_a_window_cut_short_raises_nothing(published: list[Received], tmp_path: Path) -> None:
    rules = tmp_path / "hour.toml"
    rules.write_text(NERVOUS.replace('"1m"\nmissing', '"1h"\nmissing'))
    rules.write_text(rules.read_text().replace('missing = "1m"', "above = 0.0"))
    rows = recorded(tmp_path / "a.beilun", rules, published, 500)
    assert any(row.window_length_ns == 3_600 * NS_PER_S for row in rows)
    assert not [row for row in rows if row.kpi == "alarm.silent"]


# the webhook -------------------------------------------------------------------------------------


class Got(NamedTuple):
    """One request that was answered."""

    head: Mapping[str, str]
    body: bytes
    status: int

    @property
    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class Receiver:
    """A real HTTP server that answers what it is told to, and remembers what it took."""

    def __init__(self) -> None:
        self.got: list[Got] = []
        self.says: Callable[[bytes], tuple[int, dict[str, str]]] = lambda _: (204, {})
        self.after: Callable[[], None] = lambda: None
        """Done once an answer is out."""
        self.wait_s = 0.0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, head = receiver.says(body)
                time.sleep(receiver.wait_s)
                receiver.got.append(Got(dict(self.headers.items()), body, status))
                with suppress(OSError):
                    self.send_response(status)
                    for name, value in {"Content-Length": "0", **head}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.flush()
                receiver.after()

            def log_message(self, format: str, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/alarms?key=hidden"

    def taken(self) -> list[Got]:
        return [each for each in self.got if each.status < 300]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(forward, "BACKOFF_S", (0.02, 0.1))
    made = Receiver()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()


@contextmanager
def posting(
    path: Path, url: str, **given: Any
) -> "Generator[tuple[Life, Forwarder, Recording], None, None]":
    """Alarms of one rule, stored and posted as a run does it."""
    low = rule(below=0.5)
    with Recording.create(path) as recording:
        recording.set_meta({"run": "r1"})
        store = RowStore(recording)
        store.prepare()
        life = Life(low, past=store)
        told = WebhookSettings(url=url, **given)
        with alarming.posting(told, recording, life.alarms) as poster:
            assert poster is not None
            yield life, poster, recording


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def drain(poster: Forwarder) -> None:
    async def main() -> None:
        async with asyncio.timeout(30), forwarding(poster):
            pass

    asyncio.run(main())


class TestWebhook:
    def test_an_alarm_is_posted_once_with_what_it_means(
        self, receiver: Receiver, tmp_path: Path
    ) -> None:
        with posting(tmp_path / "a.beilun", receiver.url) as (life, poster, _):
            life.come([row(0, 0.25), row(1, 0.75)])
            drain(poster)
            assert poster.outbox.counts().accepted == 2
        raised, cleared = (each.told for each in receiver.got)
        at = START_NS + MINUTE_NS
        assert raised == {
            "id": f"r1/alarm.low/s/a/l/m1/1m@{START_NS}/0", "run": "r1", "site": "s", "area": "a",
            "line": "l", "asset": "m1", "rule": "low", "severity": "warning", "text": TEXT,
            "state": "raised", "standing": False, "kpi": "oee", "value": 0.25, "unit": "1",
            "condition": "below", "threshold": 0.5, "window": "1m", "raised_ns": at,
            "changed_ns": at, "window_start_ns": START_NS, "window_length_ns": MINUTE_NS,
            "windows_held": 1, "revision": 0,
        }  # fmt: skip
        assert (cleared["state"], cleared["value"], cleared["raised_ns"]) == ("cleared", 0.75, at)
        assert cleared["changed_ns"] == at + MINUTE_NS

    def test_kpi_rows_are_not_posted_and_owed_to_nobody(
        self, receiver: Receiver, tmp_path: Path
    ) -> None:
        with posting(tmp_path / "a.beilun", receiver.url) as (life, poster, recording):
            life.come([row(n, 0.9) for n in range(50)])
            assert poster.outbox.counts().queued == 0
            tables = "SELECT count(*) FROM sqlite_master WHERE name = 'outbox'"
            assert recording.db.execute(tables).fetchone() == (0,)

    def test_what_was_amended_comes_as_another_revision(
        self, receiver: Receiver, tmp_path: Path
    ) -> None:
        with posting(tmp_path / "a.beilun", receiver.url) as (life, poster, _):
            for value in (0.25, 0.75, 0.125):
                life.come([row(0, value)])
                drain(poster)
        told = [each.told for each in receiver.got]
        assert [each["state"] for each in told] == ["raised", "gone", "raised"]
        assert [each["standing"] for each in told] == [True, False, True]
        assert [each["revision"] for each in told] == [0, 1, 2]
        assert len({each["id"] for each in told}) == 3

    def test_it_is_signed_as_standard_webhooks_are(
        self, receiver: Receiver, tmp_path: Path
    ) -> None:
        key = b"a key of some length"
        secret = "whsec_" + base64.b64encode(key).decode()
        with posting(tmp_path / "a.beilun", receiver.url, secret=secret) as (life, poster, _):
            life.come([row(0, 0.25)])
            drain(poster)
        [got] = receiver.got
        head = {name.lower(): value for name, value in got.head.items()}
        assert head["webhook-id"] == head["idempotency-key"] == got.told["id"]
        assert abs(int(head["webhook-timestamp"]) - time.time()) < 60
        signed = f"{head['webhook-id']}.{head['webhook-timestamp']}.".encode() + got.body
        wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert head["webhook-signature"] == f"v1,{wanted}"
        assert head["content-type"] == "application/json"

    def test_the_published_example_has_its_signature(self) -> None:
        from edge.sinks.webhook import signature

        # The example of the Standard Webhooks specification and its libraries.
        key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        body = b'{"test": 2432232314}'
        identity, stamp = "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330"
        wanted = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        assert signature(key, identity, stamp, body) == wanted

    def test_a_plain_secret_is_its_text_and_a_broken_one_is_told(self, tmp_path: Path) -> None:
        assert key_of("plain") == b"plain"
        with (
            pytest.raises(ConfigError, match="base64"),
            posting(tmp_path / "a.beilun", "http://127.0.0.1:9/", secret="whsec_%"),
        ):
            pass

    def test_what_it_answers_is_understood(self, receiver: Receiver) -> None:
        hook = Webhook(receiver.url, timeout_ns=5 * NS_PER_S)
        line = ['{"id": "x"}']

        def said(status: int, **head: str) -> Any:
            receiver.says = lambda _: (status, {k.replace("_", "-"): v for k, v in head.items()})
            return hook.write(line)

        assert said(200) == said(202) == said(204) == Taken(connected=False)
        assert isinstance(said(400), Malformed) and isinstance(said(422), Malformed)
        for status in (401, 403, 404, 410):
            assert isinstance(said(status), Refused), status
        moved = said(307, Location="http://127.0.0.1:9/elsewhere")
        assert isinstance(moved, Refused) and "elsewhere" in moved.why
        assert said(429, Retry_After="7") == Later("429 Too Many Requests", 7.0)
        assert said(500) == Later("500 Internal Server Error")
        assert hook.url.endswith("/alarms")  # what is told hides the key of the query
        nobody = Webhook(f"http://127.0.0.1:{free_port()}/", timeout_ns=NS_PER_S).write(line)
        assert isinstance(nobody, Later) and "refused" in nobody.why

    def test_one_refused_is_a_dead_letter_and_the_others_arrive(
        self, receiver: Receiver, tmp_path: Path
    ) -> None:
        receiver.says = lambda body: (422 if b'"asset":"m3"' in body else 200, {})
        places = [Asset("s", "a", "l", f"m{n}") for n in range(6)]
        with posting(tmp_path / "a.beilun", receiver.url) as (life, poster, recording):
            life.come([row(0, 0.25, asset=place) for place in places])
            drain(poster)
            counts = poster.outbox.counts()
            assert (counts.accepted, counts.dead, counts.waiting) == (5, 1, 0)
            [(line, why)] = recording.db.execute("SELECT line, reason FROM webhook_dead_letter")
            assert json.loads(line)["asset"] == "m3" and why.startswith("422")

    def test_a_slow_one_gets_the_same_again_and_nothing_is_lost(
        self, receiver: Receiver, tmp_path: Path
    ) -> None:
        receiver.wait_s = 0.6
        settings = {"timeout": "200ms"}
        with posting(tmp_path / "a.beilun", receiver.url, **settings) as (life, poster, _):
            life.come([row(0, 0.25), row(1, 0.75)])

            async def main() -> None:
                task = asyncio.create_task(poster.run())
                await until(lambda: len(receiver.got) >= 2)
                assert "timed out" in poster.trouble
                receiver.wait_s = 0.0
                await until(lambda: not poster.outbox.waiting())
                task.cancel()

            asyncio.run(asyncio.wait_for(main(), 30))
        counts = Counter(each.told["id"] for each in receiver.got)
        assert len(counts) == 2 and counts.most_common(1)[0][1] >= 3
        first, *others = [each for each in receiver.got if each.told["state"] == "raised"]
        assert all(each.body == first.body for each in others)

    def test_one_that_refuses_stops_it_and_everything_waits(
        self, receiver: Receiver, tmp_path: Path
    ) -> None:
        receiver.says = lambda _: (401, {})
        with posting(tmp_path / "a.beilun", receiver.url) as (life, poster, _):
            life.come([row(0, 0.25), row(1, 0.75)])
            drain(poster)
            assert poster.state == "stopped" and "401" in poster.trouble
            assert poster.outbox.counts().waiting == 2

    def test_its_backlog_is_told_while_it_lasts(self, receiver: Receiver, tmp_path: Path) -> None:
        receiver.says = lambda _: (503, {})
        with posting(tmp_path / "a.beilun", receiver.url) as (life, poster, recording):
            assert str(remote.Backlog(None, poster)) == "  webhook: nothing waits"
            life.come([row(0, 0.25), row(1, 0.75)])
            recording.db.execute("UPDATE webhook_outbox SET made_s = made_s - 90")
            asyncio.run(poster.step())
            told = str(remote.Backlog(None, poster))
            waits = r"  webhook: 2 alarms wait, the oldest for 1m3[01]s \(503 Service Unavailable\)"
            assert re.fullmatch(waits, told)

    def test_a_proxy_of_the_environment_is_used(
        self, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", receiver.url.partition("/alarms")[0])
        monkeypatch.setenv("no_proxy", "")
        asked: list[str] = []
        with posting(tmp_path / "a.beilun", "http://alarms.test/x") as (life, poster, _):
            receiver.after = lambda: asked.append("")
            life.come([row(0, 0.25)])
            drain(poster)
            assert poster.outbox.counts().accepted == len(asked) == 1


ENVIRONMENT = {
    k: v for k, v in os.environ.items()
    if not k.startswith("BEILUN_") and "proxy" not in k.lower()
}  # fmt: skip


def beilun(*words: str, folder: Path, **env: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "beilun", *words], cwd=folder, env={**ENVIRONMENT, **env},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_run_killed_between_the_answer_and_its_note_loses_nothing(
    receiver: Receiver, nervous: Path, tmp_path: Path
) -> None:
    """kill -9 of the whole process the moment an answer is out, first of the run, then of those
    that send what it left behind."""
    victims: list[subprocess.Popen[str]] = []
    fatal = {5, 12}

    def kill() -> None:
        if len(receiver.got) in fatal:
            victims[-1].send_signal(signal.SIGKILL)

    receiver.after = kill
    hook = {"BEILUN_WEBHOOK__URL": receiver.url, "BEILUN_WEBHOOK__SECRET": "s"}
    words = ("run", "quickstart", "--for", "6m", "--broker", "embedded", "-o", "a.beilun")
    ended: list[int] = []
    for n in range(6):
        sending = ("alarms", "send", "a.beilun")
        env = {**hook, "BEILUN_ALARMS__FILE": str(nervous)} if n == 0 else hook
        victims.append(beilun(*(words if n == 0 else sending), folder=tmp_path, **env))
        out, err = victims[-1].communicate(timeout=120)
        ended.append(victims[-1].returncode)
        if ended[-1] == 0:
            break
        assert ended[-1] == -signal.SIGKILL, out + err
    assert ended[0] == -signal.SIGKILL and ended[-1] == 0 and len(ended) == len(fatal) + 1
    db = sqlite3.connect(tmp_path / "a.beilun")
    [run] = db.execute("SELECT value FROM meta WHERE key = 'run'").fetchone()
    rows = db.execute(
        "SELECT site, area, line, asset, kpi, window_start_ns, window_length_ns, revision"
        " FROM kpi_rows WHERE kpi GLOB 'alarm.*'"
    ).fetchall()
    db.close()
    owed = {
        identity_of(Row(Asset(*place), kpi, start, length, 1.0, 1, 0, "1", revision), run)
        for *place, kpi, start, length, revision in rows
    }
    counts = Counter(each.told["id"] for each in receiver.taken())
    assert owed <= counts.keys() and len(owed) > 12
    doubled = {name for name, n in counts.items() if n > 1}
    assert len(doubled) <= len(fatal)
    assert all(each.head.get("Webhook-Signature") or each.head.get("webhook-signature")
               for each in receiver.got)  # fmt: skip


# MQTT --------------------------------------------------------------------------------------------


async def retained(broker: Broker, filter_: str, count: int) -> dict[str, dict[str, Any]]:
    """What a newcomer finds at a broker."""
    async with subscribed(broker.address, [filter_], client_id=f"ear-{time.monotonic_ns()}") as ear:
        found: dict[str, dict[str, Any]] = {}
        while len(found) < count:
            found |= {m.topic: json.loads(m.payload) for m in await ear.messages()}
        return found


def test_alarms_are_retained_with_what_they_mean(broker: Broker) -> None:
    site = f"site{time.monotonic_ns()}"
    place = Asset(site, "a", "l", "m1")
    life = Life(rule(below=0.5), rule(name="silent", missing=1))
    topic = f"beilun/v1/{site}/a/l/m1/kpi/alarm.low/1m"
    rows = [row(0, 0.25, asset=place), row(1, None, samples=0, asset=place)]

    def only_alarms(each: Row, _: str) -> bool:
        return is_alarm(each)

    async def main() -> None:
        about = life.alarms.about
        async with feeding(broker.address, only_alarms, (Every(MINUTE_NS),), about) as feed:
            assert feed is not None

            async def fed(rows: Sequence[Row]) -> None:
                feed.offer([*rows, *life.come(rows)], lambda _: 0)
                assert await feed.drained()

            await fed(rows)
            found = await retained(broker, f"beilun/v1/{site}/+/+/+/kpi/+/+", 2)
            assert found.keys() == {topic, topic.replace("low", "silent")}
            assert (found[topic]["value"], found[topic]["n"]) == (1.0, 1)
            alarm = found[topic]["alarm"]
            assert (alarm["severity"], alarm["text"]) == ("warning", TEXT)
            assert (alarm["value"], alarm["threshold"], alarm["condition"]) == (0.25, 0.5, "below")
            assert (alarm["state"], alarm["standing"]) == ("raised", True)
            assert alarm["raised_ns"] == alarm["changed_ns"] == START_NS + MINUTE_NS
            await fed([row(0, 0.75, asset=place)])  # it never was
            told = (await retained(broker, topic, 1))[topic]
            assert told["gone"] and not told["alarm"]["standing"]
        assert feed.fed.withheld == 3

    asyncio.run(asyncio.wait_for(main(), 30))


# files and settings ------------------------------------------------------------------------------


def written(folder: Path, text: str) -> Path:
    path = folder / "rules.toml"
    path.write_text(
        f"[[rule]]\nname = 'x'\nseverity = 'info'\ntext = {{ en = 'E', zh = 'Z' }}\n{text}"
    )
    return path


class TestFiles:
    def test_the_shipped_rules_are_good_and_differ_in_their_texts(self) -> None:
        rules = load_rules(kpis=kpis.load()).rule
        assert len({each.text.en for each in rules}) == len(rules)
        assert len({each.text.zh for each in rules}) == len(rules)
        assert all(any("\u4e00" <= c <= "\u9fff" for c in each.text.zh) for each in rules)

    def test_the_page_lists_them_as_they_are(self) -> None:
        page = (Path(__file__).parents[1] / "docs/alarms.md").read_text("utf-8")
        known = kpis.load()
        for each in load_rules(kpis=known).rule:
            told = each.told(known[each.kpi].unit)
            line = f"| `{each.name}` | {each.severity} | `{each.kpi}` | {each.level} | {told} |"
            assert line in page, line

    def test_rules_survive_the_header_of_a_recording(self, tmp_path: Path) -> None:
        rules = load_rules(kpis=kpis.load()).rule
        with Recording.create(tmp_path / "a.beilun") as recording:
            assert alarming.recorded_rules(recording) == ()
            recording.set_meta(alarming.alarms_header(rules))
            assert alarming.recorded_rules(recording) == rules

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("kpi = 'oe'\nwindow = '1h'\nbelow = 0.5", "unknown KPI 'oe'; did you mean oee?"),
            ("kpi = 'oee'\nwindow = '1h'", "needs one of above, below, late_above, stale, missing"),
            ("kpi = 'oee'\nwindow = '1h'\nbelow = 0.5\nabove = 0.7", "it has above and below"),
            ("kpi = 'scrap_ratio'\nwindow = '1h'\nabove = 20.0",
             "above 20 is beyond what scrap_ratio can be: 0 to 1 [1]"),
            ("kpi = 'line_speed'\nwindow = '1m'\nbelow = -1.0",
             "below -1 is beyond what line_speed can be: 0 to – [m/s]"),
            ("kpi = 'oee'\nwindow = '1h'\nbelow = 0.5\nclear_above = 0.4",
             "clear_above 0.4 is below below 0.5"),
            ("kpi = 'oee'\nwindow = '1h'\nbelow = 0.5\nclear_below = 0.4",
             "clear_below goes with above or late_above, not with below"),
            ("kpi = 'oee'\nwindow = '1m'\nbelow = 0.5\nfor = '90s'",
             "for: 90s is no whole number of windows"),
            ("kpi = 'oee'\nwindow = 'shift'\nbelow = 0.5\nfor = '8h'", "say how many of them"),
            ("kpi = 'oee'\nwindow = 'order'\nbelow = 0.5", "an order has no row before it ends"),
            ("kpi = 'oee'\nwindow = '1m'\nstale = '3m'\nfor = 2", "stale says itself how long"),
            ("kpi = 'oee'\nwindow = '1m'\nmissing = 0", "windows in a row, like 3, or a duration"),
            ("kpi = 'oee'\nwindow = '1m'\nbelow = 0.5\nkinds = ['casting_sell']",
             "not casting_sell; did you mean casting_cell?"),
            ("kpi = 'line_speed'\nwindow = '1m'\nbelow = 0.5\nlevel = 'line'",
             "line_speed is not given for a line"),
            ("kpi = 'oee'\nwindow = '1m'\nbelow = 0.5\nseverty = 'info'", "did you mean severity?"),
        ],
    )  # fmt: skip
    def test_what_is_wrong_is_told(self, text: str, told: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as found:
            check_file(written(tmp_path, text))
        assert told in str(found.value).replace("1m30s", "90s")

    def test_a_file_of_ones_own_names_windows_in_use_the_shipped_one_need_not(
        self, tmp_path: Path
    ) -> None:
        own = written(tmp_path, "kpi = 'oee'\nwindow = '2h'\nbelow = 0.5")
        assert check_file(own) == "alarms"
        with pytest.raises(ConfigError, match=r"2h is not in edge.windows \(1m, 1h\)"):
            rules_in_force(str(own), kpis=kpis.load(), windows=("1m", "1h"))
        assert rules_in_force(str(own), kpis=kpis.load(), windows=("2h",))
        shipped = rules_in_force("default", kpis=kpis.load(), windows=("1h",))
        assert {each.window for each in shipped} == {"1h"}
        assert rules_in_force("none", kpis=kpis.load(), windows=("1h",)) == ()

    def test_paths_start_where_they_are_written(self, tmp_path: Path) -> None:
        (tmp_path / "beilun.toml").write_text('[alarms]\nfile = "mine.toml"\n')
        deep = tmp_path / "a" / "b"
        deep.mkdir(parents=True)
        assert load(folder=deep, env={}).alarms.file == str(tmp_path / "mine.toml")
        with pytest.raises(ConfigError, match="did you mean default"):
            load(folder=tmp_path, env={"BEILUN_ALARMS__FILE": "defalt"})

    def test_a_scenario_names_rules_and_hands_them_on(self, tmp_path: Path) -> None:
        from config.scenario import read_scenario

        base = tmp_path / "base.toml"
        base.write_text('plant = "quickstart"\nlength = "5m"\n[alarms]\nfile = "./mine.toml"\n')
        above = tmp_path / "x" / "above.toml"
        above.parent.mkdir()
        above.write_text('base = "../base.toml"\n')
        for path in (base, above):
            chosen = read_scenario(path)
            found = load(chosen, env={}, folder=tmp_path)
            assert Path(found.alarms.file) == tmp_path / "mine.toml"
            assert found.origins["alarms.file"] == f"scenario {chosen.name}"

    def test_to_check_a_scenario_is_to_check_its_rules(self, tmp_path: Path) -> None:
        path = tmp_path / "day.toml"
        path.write_text('plant = "quickstart"\nlength = "5m"\n[alarms]\nfile = "./rules.toml"\n')
        with pytest.raises(ConfigError, match=r"rules\.toml"):
            check_file(path)
        rules = written(tmp_path, "kpi = 'oee'\nwindow = '2h'\nbelow = 0.5")
        with pytest.raises(ConfigError, match=r"2h is not in edge\.windows"):
            check_file(path)
        rules.write_text(rules.read_text().replace("2h", "1h"))
        assert check_file(path) == "scenario"

    def test_the_key_of_a_webhook_is_not_shown(self) -> None:
        env = {"BEILUN_WEBHOOK__URL": "https://host/x?key=1", "BEILUN_WEBHOOK__SECRET": "s"}
        shown = {each.key: each.value for each in load(env=env).show()}
        assert shown["webhook.url"] == "https://host/x?••••"
        assert shown["webhook.secret"] == "••••"


def test_standings_pair_what_was_raised_with_what_cleared_it() -> None:
    life = Life(rule(below=0.5))
    life.come([row(n, value) for n, value in enumerate([0.1, 0.9, 0.1, 0.1])])
    found = standings(life.past.rows())
    ends = [(each.raised_ns, each.cleared_ns) for each in found]
    at = [START_NS + n * MINUTE_NS for n in range(1, 5)]
    assert ends == [(at[0], at[1]), (at[2], None)]


def test_what_a_run_raised_is_listed_posted_and_counted(
    receiver: Receiver, tmp_path: Path, nervous: Path
) -> None:
    words = ("run", "quickstart", "--for", "3m", "--broker", "embedded", "-o", "a.beilun")
    hook = {"BEILUN_ALARMS__FILE": str(nervous), "BEILUN_WEBHOOK__URL": receiver.url}
    ran = beilun(*words, folder=tmp_path, **hook)
    out, err = ran.communicate(timeout=120)
    assert ran.returncode == 0, out + err
    told = next(line for line in out.splitlines() if line.startswith("Alarms: "))
    listed = beilun("alarms", "a.beilun", "--json", folder=tmp_path)
    lines = listed.communicate(timeout=60)[0].splitlines()
    found = [json.loads(line) for line in lines]
    assert told.startswith(f"Alarms: {len(found)} raised")
    assert {each["rule"] for each in found} <= {"tail", "site_busy", "no_cycle", "silent"}
    tails = [each for each in found if each["rule"] == "tail"]
    assert tails and all(each["value"] < each["threshold"] == 0.3 for each in tails)
    with closing(Reader(tmp_path / "a.beilun")) as reader:
        [posted] = [each for each in reader.stages() if each.stage == "webhook"]
    counted = (posted.in_, posted.out, posted.rejected, posted.dropped, posted.backlog)
    assert posted.in_ == len(receiver.taken()) + (posted.dropped or 0) and posted.out
    assert counted == (posted.in_, len(receiver.taken()), 0, posted.dropped, 0)
    again = beilun("replay", "a.beilun", folder=tmp_path)
    assert told in again.communicate(timeout=60)[0]
    assert again.returncode == 0


def test_rules_are_listed_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    from beilun.cli import main

    assert main(["alarms", "--json"]) == 0
    names = [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]
    shipped = [each for each in load_rules(kpis=kpis.load()).rule if each.window in ("1m", "1h")]
    assert names == [each.name for each in shipped]
    assert main(["alarms", "oee_low"]) == 0
    assert "OEE of the hour is low" in capsys.readouterr().out
    assert main(["alarms", "oeelow"]) == 2
    assert "did you mean oee_low?" in capsys.readouterr().err
