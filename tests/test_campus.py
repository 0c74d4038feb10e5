"""Data never leaves the campus: what is refused, what is counted, and which summaries get out."""

import asyncio
import contextlib
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import topic_matches_sub

from beilun import campus as beilun_campus
from beilun import verdict
from config.campus import Campus, Summary
from config.errors import ConfigError, Exit
from config.globs import asset_matches
from config.scenario import Expect, find_scenario
from config.units import NS_PER_S, format_duration
from config.windows import Every
from edge import feed as feed_module
from edge.feed import Feed, feeding
from edge.rows import ALL, Row
from edge.sinks.influx import Refused, Server, Taken
from edge.sinks.webhook import Webhook
from ingest import topics
from ingest.boundary import Boundary, OutsideError, guarding, outside, sent
from ingest.broker import BrokerAddress, free_port, mosquitto_path
from ingest.messages import Asset
from ingest.publish import Outgoing, publishing
from ingest.session import Session
from ingest.subscribe import Received, subscribed

BEILUN = (sys.executable, "-m", "beilun")
QUIET = {k: v for k, v in os.environ.items() if not k.startswith("BEILUN_")}
AWAY = "127.0.0.2"
"""Loopback too, so nothing leaves this machine; outside a campus that ends at 127.0.0.1."""
HERE = [ip_network("127.0.0.1/32")]
TIMEOUT_S = 30.0
WINDOW_NS = 60 * NS_PER_S
WINDOWS = (Every(WINDOW_NS),)

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")


def campus(*, only: bool = True) -> Campus:
    return Campus(only=only, networks=tuple(HERE))


def row(name: str = "dcm01", *, window: int = 0, value: float | None = 0.5) -> Row:
    asset = Asset("ningbo", "casting", "line1", name)
    return Row(asset, "oee", window * WINDOW_NS, WINDOW_NS, value, 7, 1, "1")


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test on a loop of its own, and see that it leaves neither task nor thread."""

    async def guarded() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await test()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    before = threading.active_count()
    asyncio.run(guarded())
    assert threading.active_count() == before


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@contextlib.contextmanager
def mosquitto(
    workdir: Path, host: str = AWAY, port: int | None = None, more: str = ""
) -> Generator[BrokerAddress, None, None]:
    """A mosquitto at an address of the test's choice; it keeps its retained messages in workdir."""
    server = mosquitto_path()
    assert server is not None
    workdir.mkdir(exist_ok=True)
    address = BrokerAddress(host, port or free_port())
    config = workdir / "mosquitto.conf"
    config.write_text(
        f"{'user root' if os.geteuid() == 0 else ''}\nlistener {address.port} {host}\n"
        f"allow_anonymous true\npersistence true\npersistence_location {workdir}/\n"
        f"max_queued_messages 0\nlog_dest none\n{more}"
    )
    process = subprocess.Popen([server, "-c", str(config)])
    try:
        while True:
            assert process.poll() is None
            with contextlib.suppress(OSError), socket.create_connection((host, address.port), 1):
                break
            time.sleep(0.01)
        yield address
    finally:
        process.terminate()
        process.wait()


async def heard(address: BrokerAddress, count: int) -> list[Received]:
    """All that is retained at a broker, once there are as many as expected and no more come."""
    async with subscribed(address, ["#"], client_id="ear") as inbox:
        found: list[Received] = []
        while len(found) < count:
            found += await inbox.messages()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                found += await inbox.messages()
        return found


def beilun(*words: str, folder: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*BEILUN, *words], cwd=folder, env=QUIET, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def short(folder: Path, *, only: bool) -> Path:
    """The shipped scenario, with or without its ban, as a file of its own."""
    text = (Path(__file__).parents[1] / "config/scenarios/campus-only.toml").read_text()
    assert "\nonly = true" in text
    path = folder / "short.toml"
    path.write_text(text.replace("\nonly = true", f"\nonly = {str(only).lower()}"))
    return path


# what a scenario says ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('networks = ["10.0.0.1/8"]', "got '10.0.0.1/8'; did you mean 10.0.0.0/8?"),
        ('networks = ["home"]', "should be a network like 10.0.0.0/8, got 'home'"),
        ("networks = []", "needs at least one"),
        ('summary = [{ kpi = "oe", asset = "*", window = "1m" }]', "did you mean oee?"),
        ('summary = [{ kpi = "oex*", asset = "*", window = "1m" }]', "unknown KPI 'oex*'"),
        ('summary = [{ kpi = "oee", window = "1m" }]', "campus.summary #1.asset"),
        ('summary = [{ kpi = "oee", asset = "*" }]', "campus.summary #1.window"),
        (
            'summary = []\n[[expect]]\nkpi = "oee"\nop = ">"\nvalue = 0\nwindow = "7m"',
            "expect #1.window 7m is not in edge.windows",
        ),
        (
            'summary = [{ kpi = "o*", asset = "*", window = "7m" }]',
            "campus.summary #1.window 7m is not in edge.windows (1m, 1h, 8h)",
        ),
    ],
)
def test_a_wrong_table_is_told_in_the_words_of_the_file(
    text: str, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'plant = "quickstart"\nlength = "1h"\n[campus]\n{text}\n')
    with pytest.raises(ConfigError) as caught:
        find_scenario(path, kpis=["oee", "output"])
    assert told in str(caught.value)


WORDS = st.sampled_from(["a", "ab", "b", "*", "a*", "?"])
GLOBS = st.lists(WORDS, min_size=1, max_size=4).map("/".join)
PATHS = st.lists(st.sampled_from(["a", "ab", "b"]), min_size=1, max_size=4).map("/".join)


@given(glob=GLOBS, path=PATHS)
def test_an_asset_means_the_same_to_an_expectation_and_to_a_summary(glob: str, path: str) -> None:
    expect = Expect(kpi="oee", asset=glob, op=">=", value=(0.0,))
    summary = Summary(kpi="oee", asset=glob, window="1m")
    assert expect.matches(path) == summary.allows("oee", path, "1m")
    assert expect.matches(path) == asset_matches(glob, path)
    assert not summary.allows("oee", path, "2m")
    assert not summary.allows("output", path, "1m")


def test_what_is_not_named_stays_inside_and_without_the_ban_nothing_is_withheld() -> None:
    named = Summary(kpi="o*", asset="casting", window="1m")
    one = Campus(summary=(named,))
    assert one.allows("oee", "ningbo/casting", "1m")
    assert not one.allows("oee", "ningbo/casting/line1", "1m")
    assert not Campus().allows("oee", "ningbo/casting", "1m")
    assert Campus(only=False, summary=(named,)).allows("wip", "ningbo", 1)


# the boundary ------------------------------------------------------------------------------------


@given(st.ip_addresses())
def test_inside_is_what_the_networks_hold_however_a_socket_spells_it(
    address: IPv4Address | IPv6Address,
) -> None:
    private = [
        *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
        *("::1/128", "fc00::/7"),
    ]
    boundary = Boundary(Campus())
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    expected = any((mapped or address) in ip_network(network) for network in private)
    assert boundary.inside(str(address)) == expected
    if isinstance(address, IPv4Address):
        assert boundary.inside(f"::ffff:{address}") == expected


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        *(("127.0.0.1", True), ("10.255.0.9", True), ("172.31.0.1", True), ("fd00::7", True)),
        *(("8.8.8.8", False), ("172.32.0.1", False), ("2001:db8::1", False)),
        *(("fd00::7%eth0", True), ("fe80::1%eth0", False)),
    ],
)
def test_the_campus_is_private_unless_it_says_otherwise(address: str, inside: bool) -> None:
    assert Boundary(Campus()).inside(address) == inside


PACKETS = st.lists(
    st.tuples(
        st.sampled_from(["127.0.0.1", AWAY, "::1", "fe80::1%eth0"]),
        st.sampled_from(["telemetry", "control", "summary"]),
        st.text(max_size=5),
        st.binary(max_size=50),
    )
)


@given(PACKETS)
def test_counts_survive_the_ledger_and_add_up(packets: list[Any]) -> None:
    boundary = Boundary(campus(only=False))
    for address, traffic, topic, payload in packets:
        boundary.admit(address, "mqtt://x", may_leave=False).count(traffic, topic, payload)
    counts = sent("edge", boundary.entries())
    assert len(counts) == len({address for address, *_ in packets})
    for kind in ("telemetry", "control", "summary"):
        sizes = [
            (address, len(topic.encode()) + len(payload))
            for address, traffic, topic, payload in packets
            if traffic == kind
        ]
        assert outside(counts, kind) == sum(s for a, s in sizes if a != "127.0.0.1")
        assert sum(each.sent_bytes[kind] for each in counts) == sum(s for _, s in sizes)


def test_a_half_that_left_no_count_shows_nothing() -> None:
    boundary = Boundary(campus())
    boundary.admit("127.0.0.1", "mqtt://x", may_leave=False)
    counts = sent("edge", boundary.entries())
    judged = beilun_campus.judge(campus(), counts, ["edge"])
    assert [v.measured for v in judged] == [0.0, 0.0]
    assert verdict.exit_code(judged) == Exit.OK
    judged = beilun_campus.judge(campus(), counts, ["edge", "simulator"])
    assert [v.measured for v in judged] == [None, None]
    assert verdict.exit_code(judged) == Exit.FAILED
    assert "no count of the simulator" in verdict.lines(judged)[0]


@linux
@pytest.mark.parametrize("host", [AWAY, "localhost"])
def test_not_a_byte_goes_to_a_broker_outside(host: str) -> None:
    """The peer counts, not the name; and it is known before MQTT has said anything."""
    elsewhere = Campus(networks=(ip_network("10.0.0.0/8"),))
    got: list[bytes] = []

    async def test() -> None:
        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got.append(await reader.read())
            writer.close()

        async with await asyncio.start_server(listen, host, 0) as server:
            address = BrokerAddress(host, server.sockets[0].getsockname()[1])
            with guarding(elsewhere), pytest.raises(OutsideError) as caught:
                async with publishing(address, "ningbo", ["a"], "run"):
                    pass
            with guarding(elsewhere), pytest.raises(OutsideError):
                async with subscribed(address, ["#"], client_id="edge"):
                    pass
            assert caught.value.exit == Exit.INVALID
            assert "10.0.0.0/8" in str(caught.value)
            await until(lambda: len(got) == 2)

    run(test)
    assert got == [b"", b""]


@linux
@pytest.mark.needs_mosquitto
def test_a_name_that_comes_to_lead_outside_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection made anew is judged anew."""
    port = free_port()
    lead = {"to": "127.0.0.1"}
    resolve = asyncio.base_events.BaseEventLoop.getaddrinfo

    async def getaddrinfo(self: Any, host: str, *rest: Any, **more: Any) -> Any:
        return await resolve(self, lead["to"] if host == "broker" else host, *rest, **more)

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", getaddrinfo)

    async def test() -> None:
        with contextlib.ExitStack() as near, mosquitto(tmp_path / "far", port=port):
            near.enter_context(mosquitto(tmp_path / "near", "127.0.0.1", port))
            with guarding(campus()) as boundary:
                async with publishing(
                    BrokerAddress("broker", port), "ningbo", ["a"], "run"
                ) as publisher:
                    await publisher.send("a", Outgoing("t", b"one", 1))
                    assert not await publisher.drained(0.2)  # nobody confirms
                    lead["to"] = AWAY
                    near.close()
                    assert boundary is not None
                    await until(lambda: f"outside telemetry {AWAY}" in boundary.entries())
                    assert outside(sent("simulator", boundary.entries()), "telemetry") == 0
                    lead["to"] = "127.0.0.1"
                    with mosquitto(tmp_path / "near", "127.0.0.1", port):
                        await until(lambda: publisher.stats.resent > 0)
            async with subscribed(BrokerAddress(AWAY, port), ["#"], client_id="ear") as inbox:
                assert len(inbox) == 0

    run(test)


@linux
@pytest.mark.needs_mosquitto
def test_what_leaves_is_counted_byte_by_byte(tmp_path: Path) -> None:
    async def test() -> None:
        with mosquitto(tmp_path / "away") as address, guarding(campus(only=False)) as boundary:
            assert boundary is not None
            async with (
                subscribed(address, ["#"], client_id="ear") as inbox,
                publishing(address, "ningbo", ["a", "b"], "run") as publisher,
            ):
                for number in range(1, 51):
                    for conn in ("a", "b"):
                        payload = os.urandom(number)
                        await publisher.send(conn, Outgoing(f"t/{conn}", payload, number))
                await publisher.say("a", "said/ä", b"end")
                got: list[Received] = []
                while len(got) < 101:
                    got += await inbox.messages()
            counts = sent("simulator", boundary.entries())
            sizes = {"t": 0, "said": 0}
            for message in got:
                kind = message.topic.split("/")[0]
                sizes[kind] += len(message.topic.encode()) + len(message.payload)
            assert outside(counts, "telemetry") == sizes["t"] > 0
            assert outside(counts, "control") == sizes["said"] == len("said/ä".encode()) + 3
            judged = beilun_campus.judge(campus(), counts, ["simulator"])
            assert verdict.exit_code(judged) == Exit.FAILED
            assert verdict.lines(judged)[0].startswith("FAIL  bytes_outside@telemetry == 0")
            assert not beilun_campus.judge(campus(only=False), counts, ["simulator"])

    run(test)


# topics of the feed ------------------------------------------------------------------------------

LEVELS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,3}", fullmatch=True) | st.just("kpi")
SERIES = st.tuples(
    st.tuples(LEVELS, LEVELS, LEVELS, LEVELS),
    st.integers(1, 4),
    LEVELS,
    st.sampled_from([1, 60, 3_600, 5_400]),
)


def topic_of(series: Any) -> str:
    levels, depth, name, window_s = series
    asset = Asset(*levels[:depth], *[ALL] * (4 - depth))
    return topics.kpi(asset, name, format_duration(window_s * NS_PER_S))


@given(SERIES, SERIES)
def test_a_topic_means_one_series_and_no_edge_listens_to_it(one: Any, other: Any) -> None:
    same = (one[0][: one[1]], *one[1:]) == (other[0][: other[1]], *other[1:])
    assert (topic_of(one) == topic_of(other)) == same
    assert topics.parse(topic_of(one)) is None
    assert not any(topic_matches_sub(each, topic_of(one)) for each in topics.SUBSCRIPTIONS)
    assert topic_matches_sub(f"{topics.ROOT}/+/+/+/+/kpi/+/+", topic_of(one))


# the queue of the feed ---------------------------------------------------------------------------


class Wire(Session):
    """A session whose broker does what the test says, in order, as MQTT demands."""

    def __init__(self) -> None:
        super().__init__(BrokerAddress("nowhere"), "feed", may_leave=True)
        self.up = False
        self.receive_maximum = 3
        self.flying: list[tuple[str, dict[str, Any], bool]] = []
        self.taken: list[tuple[str, dict[str, Any], bool]] = []

    @property
    def connected(self) -> bool:
        return self.up

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool, traffic: str) -> bool:
        assert (qos, traffic) == (1, "summary")
        if self.up:
            self.flying.append((topic, json.loads(payload), retain))
            assert len(self.flying) <= self.receive_maximum
        return self.up

    def lose(self) -> None:
        """What was in flight may or may not have arrived; here it did not."""
        self.up = False
        self.flying.clear()

    def come(self) -> None:
        if not self.up:
            self.up = True
            self.on_ready()

    def take(self, accepted: bool) -> None:
        if self.flying:
            message = self.flying.pop(0)
            if accepted:
                self.taken.append(message)
            self.on_puback(accepted)
            self.on_batch()


def test_the_oldest_go_out_first_and_are_the_first_to_be_dropped() -> None:
    wire = Wire()
    feed = Feed(wire, lambda *_: True, WINDOWS, most=4)
    feed.offer([row(window=window) for window in range(6)], lambda _: 0)
    assert (feed.fed.dropped, feed.fed.waiting) == (2, 4)
    wire.come()
    wire.take(True)
    wire.lose()
    wire.come()  # what was in flight goes out again, in the same order
    while wire.flying:
        wire.take(True)
    minutes = [body["window_start_ns"] // WINDOW_NS for _, body, _ in wire.taken]
    assert minutes == [2, 3, 4, 5]
    assert wire.taken[-1][2]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(0, 5), st.integers(0, 3)),
        st.sampled_from([("lose",), ("come",), ("take", True), ("take", False)]),
    ),
    max_size=60,
)


@given(steps=STEPS, most=st.integers(1, 6))
def test_every_row_offered_is_somewhere(steps: list[Any], most: int) -> None:
    wire = Wire()
    feed = Feed(wire, lambda offered, _: offered.asset.name != "dcm03", WINDOWS, most=most)
    last: dict[tuple[str, int], int] = {}
    for number, (what, *args) in enumerate(steps):
        if what == "offer":
            window, asset = args
            last[f"dcm0{asset}", window * WINDOW_NS] = number
            feed.offer([row(f"dcm0{asset}", window=window)], lambda _, number=number: number)
        else:
            getattr(wire, what)(*args)
        fed = feed.fed
        assert fed.offered == (
            fed.withheld + fed.delivered + fed.refused + fed.replaced + fed.dropped + fed.waiting
        )
        assert fed.waiting <= most + wire.receive_maximum
    wire.come()
    while wire.flying:
        wire.take(True)
    assert feed.fed.waiting == 0
    assert feed.fed.delivered == len(wire.taken)
    names = {topic.split("/")[5] for topic, _, _ in wire.taken}
    assert "dcm03" not in names
    if not feed.fed.dropped and not feed.fed.refused:
        # The last revision of every window has arrived, and after the earlier ones.
        got = {
            (topic.split("/")[5], body["window_start_ns"]): body["revision"]
            for topic, body, _ in wire.taken
        }
        assert got == {key: n for key, n in last.items() if key[0] != "dcm03"}
    for name in names:
        retained = [
            body["window_start_ns"]
            for topic, body, retain in wire.taken
            if topic.split("/")[5] == name and retain
        ]
        assert retained == sorted(retained)  # the past is never retained over the present


# real brokers ------------------------------------------------------------------------------------


@linux
@pytest.mark.needs_mosquitto
def test_a_broker_that_goes_and_comes_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.session.BACKOFF_S", (0.02, 0.1))
    port, names = free_port(), [f"m{number}" for number in range(300)]

    async def test() -> None:
        address = BrokerAddress(AWAY, port)
        async with feeding(address, lambda *_: True, WINDOWS) as feed:
            assert feed is not None
            feed.offer([row(name) for name in names[:100]], lambda _: 0)  # nobody is there yet
            assert feed.fed.waiting == 100
            await until(lambda: "Connect call failed" in feed.trouble)
            with mosquitto(tmp_path / "away", port=port):
                await until(lambda: feed.fed.delivered >= 100)
                feed.offer([row(name) for name in names[100:200]], lambda _: 0)
            # Whether or not those were written before it went, they are not forgotten.
            feed.offer([row(name) for name in names[200:]], lambda _: 0)
            with mosquitto(tmp_path / "away", port=port):
                assert await feed.drained()
                found = await heard(address, 300)
        assert feed.fed.delivered == feed.fed.offered == 300
        assert {m.topic.split("/")[5] for m in found} == set(names)
        assert len(found) == 300

    run(test)


def test_an_absent_broker_delays_the_end_no_longer_than_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed_module, "SILENCE_S", 0.3)

    async def test() -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        async with feeding(
            BrokerAddress("127.0.0.1", free_port()), lambda *_: True, WINDOWS
        ) as feed:
            assert feed is not None
            feed.offer([row()], lambda _: 0)
        assert 0.3 <= loop.time() - began_s < 3.0
        assert feed.fed.waiting == 1
        assert feed.trouble

    run(test)


@pytest.mark.needs_mosquitto
def test_rows_a_broker_refuses_are_not_called_delivered(tmp_path: Path) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic write beilun/v1/ningbo/casting/line1/dcm01/#\n")
    rules.chmod(0o600)

    async def test() -> None:
        with mosquitto(tmp_path / "strict", "127.0.0.1", more=f"acl_file {rules}\n") as address:
            async with feeding(address, lambda *_: True, WINDOWS) as feed:
                assert feed is not None
                feed.offer([row("dcm01"), row("dcm02"), row("dcm01", window=1)], lambda _: 0)
                assert await feed.drained()
        assert (feed.fed.delivered, feed.fed.refused, feed.fed.waiting) == (2, 1, 0)

    run(test)


@linux
@pytest.mark.needs_mosquitto
def test_exactly_the_allowed_summaries_leave_a_run(tmp_path: Path) -> None:
    with mosquitto(tmp_path / "away") as address:
        done = beilun(
            "run", "campus-only", "--summaries", str(address), "-o", "a.beilun", "--junit", "j.xml",
            folder=tmp_path,
        )  # fmt: skip
        found: list[Received] = []

        async def listen() -> None:
            found.extend(await heard(address, 2))

        run(listen)
    expected = {}
    db = sqlite3.connect(f"{(tmp_path / 'a.beilun').as_uri()}?mode=ro", uri=True)
    rows = db.execute(
        "SELECT site, area, line, asset, kpi, window_length_ns, value, unit, n, late, revision,"
        " window_start_ns FROM kpi_rows WHERE window_length_ns = ? AND"
        " (area || kpi = 'castingoutput' AND line = '-' OR asset || kpi = 'cl01line_speed')",
        (900 * NS_PER_S,),
    )
    for site, area, line, name, kpi, length_ns, value, unit, n, late, revision, start_ns in rows:
        topic = f"beilun/v1/{site}/{area}/{line}/{name}/kpi/{kpi}/{format_duration(length_ns)}"
        expected[topic] = {
            "value": value, "unit": unit, "n": n, "late": late, "revision": revision,
            "window_start_ns": start_ns, "window_length_ns": length_ns,
        }  # fmt: skip
    counted = dict(db.execute("SELECT entry, messages FROM ledger WHERE side = 'bytes:edge'"))
    db.close()
    assert set(expected) == {
        "beilun/v1/ningbo/casting/-/-/kpi/output/15m",
        "beilun/v1/ningbo/cable/hall1/cl01/kpi/line_speed/15m",
    }
    assert {m.topic: json.loads(m.payload) for m in found} == expected
    assert len(found) == 2
    size = sum(len(m.topic) + len(m.payload) for m in found)
    assert counted[f"outside summary {AWAY}"] == size
    assert f"bytes that left: telemetry 0, control 0, summary {size:,}" in done.stdout
    assert re.search(r"rows [\d,]+ = delivered 2 \+ withheld [\d,]+\n", done.stdout)
    assert re.search(r"^feed +2 ", done.stdout, re.MULTILINE)  # each was timed
    assert "PASS  bytes_outside@telemetry == 0" in done.stdout
    assert "bytes_outside@control" in (tmp_path / "j.xml").read_text()


class Ear:
    """A store that takes everything, and counts every byte that comes to its socket."""

    def __init__(self, host: str) -> None:
        self._listener = socket.create_server((host, 0))
        self.host, self.port = host, self._listener.getsockname()[1]
        self.bytes = self.connections = 0
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                opened, _ = self._listener.accept()
                self.connections += 1
                with opened, contextlib.suppress(OSError):
                    self._answer(opened)

    def _answer(self, opened: socket.socket) -> None:
        held = b""
        while data := opened.recv(65_536):
            self.bytes += len(data)
            held += data
            head, blank, body = held.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            if blank and length is not None and len(body) == int(length[1]):
                opened.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                held = b""

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@contextlib.contextmanager
def ear(host: str) -> Generator[Ear, None, None]:
    made = Ear(host)
    try:
        yield made
    finally:
        made.close()


def store_at(url: str) -> Server:
    return Server(url, bucket="b", token="secret", timeout_ns=5 * NS_PER_S)


def leading(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """Where a name leads from now on: first to this machine, and wherever it is changed to."""
    leads = ["127.0.0.1"]
    asked = socket.getaddrinfo

    def elsewhere(host: Any, port: Any, *more: Any, **other: Any) -> Any:
        return asked(leads[0] if host == name else host, port, *more, **other)

    monkeypatch.setattr(socket, "getaddrinfo", elsewhere)
    return leads


@linux
class TestStore:
    def test_within_the_campus_every_byte_is_counted_headers_too(self) -> None:
        with ear("127.0.0.1") as store, guarding(campus()) as boundary:
            with contextlib.closing(store_at(store.url)) as server:
                for n in range(1, 4):
                    assert isinstance(server.write(["kpi value=1 1"] * n * 100), Taken)
            assert boundary is not None
            assert boundary.entries()["inside summary 127.0.0.1"] == store.bytes > 500
            assert outside(sent("edge", boundary.entries()), "summary") == 0

    def test_outside_it_is_refused_before_a_byte_leaves(self) -> None:
        with ear(AWAY) as store:
            with guarding(campus()), pytest.raises(OutsideError, match=f"{AWAY} is outside") as it:
                store_at(store.url)
            assert f"store {store.url}" in str(it.value) and "--store" in str(it.value)
            assert store.bytes == 0

    def test_outside_of_a_campus_that_only_counts_it_is_counted(self) -> None:
        with ear(AWAY) as store, guarding(campus(only=False)) as boundary:
            with contextlib.closing(store_at(store.url)) as server:
                assert isinstance(server.write(["kpi value=1 1"]), Taken)
            assert boundary is not None
            left = outside(sent("edge", boundary.entries()), "summary")
            assert left == store.bytes > 0

    def test_a_name_that_comes_to_lead_outside_is_not_followed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        leads = leading(monkeypatch, "store.test")
        with ear(AWAY) as store, guarding(campus()):
            # Nobody is there at first: it is judged once there is.
            with contextlib.closing(store_at(f"http://store.test:{store.port}")) as server:
                leads[0] = AWAY
                answer = server.write(["kpi value=1 1"])
            assert isinstance(answer, Refused) and "is outside" in answer.why
            until_s = time.monotonic() + TIMEOUT_S
            while not store.connections:
                assert time.monotonic() < until_s
                time.sleep(0.01)
        assert (store.connections, store.bytes) == (1, 0)

    def test_a_store_that_is_not_there_yet_is_no_reason_to_refuse(self) -> None:
        with guarding(campus()):
            store_at(f"http://127.0.0.1:{free_port()}").close()

    def test_a_run_counts_what_its_store_got_or_is_refused(self, tmp_path: Path) -> None:
        scenario = str(short(tmp_path, only=True))
        words = ("run", scenario, "--for", "15m", "--broker", "embedded", "-o", "a.beilun")
        with ear(AWAY) as away:
            refused = beilun(*words, "--store", away.url, folder=tmp_path, expect=3)
            assert away.bytes == 0
        assert f"{AWAY} is outside" in refused.stderr
        assert not (tmp_path / "a.beilun").exists()
        with ear("127.0.0.1") as here:
            done = beilun(*words, "--store", here.url, folder=tmp_path)
        db = sqlite3.connect(tmp_path / "a.beilun")
        counted = dict(db.execute("SELECT entry, messages FROM ledger WHERE side = 'bytes:edge'"))
        db.close()
        assert counted["inside summary 127.0.0.1"] == here.bytes > 10_000
        assert "bytes that left: telemetry 0, control 0, summary 0" in done.stdout
        later = (("store", "--store"), ("alarms", "--webhook"))
        for verb, option in later:  # what was made within the campus stays there afterwards
            with ear(AWAY) as away:
                words = (verb, "send", "a.beilun", option, away.url, "--all")
                assert "is outside" in beilun(*words, folder=tmp_path, expect=3).stderr
                assert away.bytes == 0


def webhook_at(url: str) -> Webhook:
    return Webhook(url, secret="s", timeout_ns=5 * NS_PER_S)


ALARM = json.dumps({"id": "r/alarm.low", "text": "x" * 400})


@linux
class TestWebhook:
    def test_within_the_campus_every_byte_is_counted_headers_too(self) -> None:
        with ear("127.0.0.1") as far, guarding(campus()) as boundary:
            with contextlib.closing(webhook_at(f"{far.url}/x?key=1")) as server:
                assert isinstance(server.write([ALARM] * 3), Taken)
            assert boundary is not None
            assert boundary.entries()["inside summary 127.0.0.1"] == far.bytes > 3 * len(ALARM)
            assert outside(sent("edge", boundary.entries()), "summary") == 0

    def test_outside_it_is_refused_before_a_byte_leaves(self) -> None:
        with ear(AWAY) as far:
            with guarding(campus()), pytest.raises(OutsideError, match=f"{AWAY} is outside") as it:
                webhook_at(f"{far.url}/x?key=1")
            assert f"webhook {far.url}/x" in str(it.value) and "webhook.url" in str(it.value)
            assert "key" not in str(it.value)
            assert far.bytes == 0

    def test_outside_of_a_campus_that_only_counts_it_is_counted(self) -> None:
        with ear(AWAY) as far, guarding(campus(only=False)) as boundary:
            with contextlib.closing(webhook_at(far.url)) as server:
                assert isinstance(server.write([ALARM]), Taken)
            assert boundary is not None
            left = outside(sent("edge", boundary.entries()), "summary")
            assert left == far.bytes > len(ALARM)

    def test_a_name_that_comes_to_lead_outside_is_not_followed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        leads = leading(monkeypatch, "far.test")
        with ear(AWAY) as far, guarding(campus()):
            with contextlib.closing(webhook_at(f"http://far.test:{far.port}/x")) as server:
                leads[0] = AWAY
                answer = server.write([ALARM])
            assert isinstance(answer, Refused) and "is outside" in answer.why
            assert far.bytes == 0


@linux
@pytest.mark.needs_mosquitto
def test_a_run_over_a_broker_outside_is_refused_or_counted(tmp_path: Path) -> None:
    with mosquitto(tmp_path / "away") as address:
        for words in (("run",), ("simulate",), ("edge", "--scenario")):
            refused = beilun(
                *words, str(short(tmp_path, only=True)), "--broker", str(address),
                folder=tmp_path, expect=3,
            )  # fmt: skip
            assert f"{AWAY} is outside" in refused.stderr
            assert "[campus]" in refused.stderr
        assert not list(tmp_path.glob("runs/short*"))
        done = beilun(
            "run", str(short(tmp_path, only=False)), "--for", "5m", "--broker", str(address),
            folder=tmp_path,
        )  # fmt: skip
    left = re.search(r"bytes that left: telemetry ([\d,]+), control ([\d,]+)", done.stdout)
    assert left is not None
    assert all(int(count.replace(",", "")) > 0 for count in left.groups())
    assert re.search(rf"simulator  {re.escape(AWAY)}  OUTSIDE", done.stdout)
    assert "bytes_outside" not in done.stdout


@pytest.mark.needs_mosquitto
def test_an_edge_feeds_too_and_without_a_campus_every_row(tmp_path: Path) -> None:
    """Into the broker it listens to itself: the feed never comes back to it as telemetry."""
    with mosquitto(tmp_path / "here", "127.0.0.1") as address:
        edge = subprocess.Popen(
            [*BEILUN, "edge", "--once", "--broker", str(address), "--summaries", str(address),
             "-o", "e.beilun"],
            cwd=tmp_path, env=QUIET, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            beilun("simulate", "--for", "2m", "--broker", str(address), folder=tmp_path)
            out, err = edge.communicate(timeout=60)
        finally:
            edge.kill()
    assert edge.returncode == 0, out + err
    assert "the sums close" in out
    assert "unusable" not in out
    fed = re.search(r"rows ([\d,]+) = delivered ([\d,]+) \+ withheld 0\n", out)
    assert fed is not None
    assert fed[1] == fed[2]
    db = sqlite3.connect(f"{(tmp_path / 'e.beilun').as_uri()}?mode=ro", uri=True)
    [[stored]] = db.execute("SELECT count(*) FROM kpi_rows").fetchall()
    db.close()
    assert int(fed[1].replace(",", "")) >= stored > 0
