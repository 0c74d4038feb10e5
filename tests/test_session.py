"""The run protocol over both brokers: everything sent arrives, whatever stops in between."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.errors import UnreachableError
from ingest import publish, topics
from ingest.broker import Broker, BrokerAddress, free_port, mosquitto_path, running_broker
from ingest.contiguous import Contiguous
from ingest.publish import Outgoing, Publisher, publishing
from ingest.subscribe import Received, Subscriber, subscribed

TIMEOUT_S = 40.0


def run(test: Callable[[], Awaitable[None]]) -> None:
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


class Floor:
    """A site of its own per test, so that tests may share a broker."""

    def __init__(self, site: str, conns: int = 3) -> None:
        self.site = site
        self.run = f"run-{site}"
        self.conns = [f"{site}-{number}" for number in range(conns)]

    def topic(self, conn: str) -> str:
        return f"{topics.ROOT}/{self.site}/area/line/{conn}/process"

    def filters(self) -> list[str]:
        return [f"{topics.ROOT}/{self.site}/+/+/+/+", topics.progress(self.site, "+")]

    def message(self, conn: str, cseq: int) -> Outgoing:
        body = {"conn": conn, "cseq": cseq, "fill": "x" * 500}
        return Outgoing(self.topic(conn), json.dumps(body).encode(), cseq)

    async def send(self, publisher: Publisher, count: int, start: int = 1) -> None:
        for cseq in range(start, start + count):
            for conn in self.conns:
                await publisher.send(conn, self.message(conn, cseq))

    async def end(self, publisher: Publisher) -> None:
        for conn in self.conns:
            await publisher.say(conn, topics.progress(self.site, conn), b'{"end":true}')


class Journal:
    """What a toy edge has committed; outlives the edge."""

    def __init__(self) -> None:
        self.seen = Contiguous()
        self.payloads: dict[tuple[str, int], bytes] = {}
        self.order: dict[str, list[int]] = {}
        self.ends: set[str] = set()
        self.said_at: dict[str, int] = {}
        self.altered = 0
        self.repeats = 0
        self.foreign = 0

    def commit(self, received: Received) -> None:
        if (link := topics.parse_progress(received.topic)) is not None:
            _, conn = link
            self.ends.add(conn)
            self.said_at[conn] = self.seen.highest(conn)
            return
        try:
            body: Any = json.loads(received.payload)
            conn, cseq = str(body["conn"]), int(body["cseq"])
        except (ValueError, TypeError, KeyError, RecursionError):
            self.foreign += 1
            return
        key = conn, cseq
        if key in self.payloads:
            self.repeats += 1
            self.altered += self.payloads[key] != received.payload
        else:
            self.order.setdefault(conn, []).append(cseq)
        self.payloads[key] = received.payload
        self.seen.add(conn, cseq)

    def holds(self, count: int) -> bool:
        return len(self.payloads) >= count

    def assert_whole(self, floor: Floor, count: int) -> None:
        assert len(self.payloads) == count * len(floor.conns)
        assert {conn: self.seen.highest(conn) for conn in floor.conns} == dict.fromkeys(
            floor.conns, count
        )
        assert self.altered == 0


@asynccontextmanager
async def toy_edge(
    address: BrokerAddress, floor: Floor, journal: Journal, edge: str = "edge-1", clean: bool = True
) -> AsyncGenerator[Subscriber, None]:
    """Commits what comes, acknowledges, and confirms about every 50 ms."""

    async with subscribed(
        address, floor.filters(), client_id=f"{edge}-{floor.site}", clean=clean
    ) as subscriber:

        async def read() -> None:
            while True:
                batch = await subscriber.messages()
                for received in batch:
                    journal.commit(received)
                subscriber.ack(received.token for received in batch)

        async def confirm() -> None:
            while True:
                for conn in floor.conns:
                    body = {"run": floor.run, "edge": edge, "cseq": journal.seen.highest(conn)}
                    await subscriber.publish(
                        topics.confirm(floor.site, conn), json.dumps(body).encode()
                    )
                await asyncio.sleep(0.05)

        tasks = [asyncio.create_task(read()), asyncio.create_task(confirm())]
        try:
            yield subscriber
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    task.result()


def test_everything_arrives_once_and_in_order(broker: Broker) -> None:
    floor, journal, count = Floor("whole"), Journal(), 1_500

    async def test() -> None:
        async with (
            toy_edge(broker.address, floor, journal) as edge,
            publishing(broker.address, floor.site, floor.conns, floor.run) as publisher,
        ):
            await floor.send(publisher, count)
            await floor.end(publisher)
            assert await publisher.drained(TIMEOUT_S)
            await until(lambda: journal.ends == set(floor.conns))
            assert publisher.stats.confirmed == publisher.stats.sent == count * 3
            assert ("MQTT 5" if broker.kind == "mosquitto" else "MQTT 3.1.1") in edge.broker

    run(test)
    journal.assert_whole(floor, count)
    assert all(order == list(range(1, count + 1)) for order in journal.order.values())
    # The end was said after everything and came after everything.
    assert journal.said_at == dict.fromkeys(floor.conns, count)


def test_a_full_window_waits_for_an_edge(broker: Broker) -> None:
    floor, journal, count, window = Floor("absent"), Journal(), 300, 50

    async def test() -> None:
        async with publishing(
            broker.address, floor.site, floor.conns, floor.run, window
        ) as publisher:
            sending = asyncio.create_task(floor.send(publisher, count))
            await until(lambda: publisher.unconfirmed(floor.conns[0]) == window)
            assert not await publisher.drained(0.2)
            assert publisher.stats.confirmed == 0
            assert publisher.stats.sent <= window * 3
            async with toy_edge(broker.address, floor, journal):
                await sending
                await floor.end(publisher)
                assert await publisher.drained(TIMEOUT_S)
                await until(lambda: journal.ends == set(floor.conns))

    run(test)
    journal.assert_whole(floor, count)


def test_an_absent_edge_costs_its_broker_little(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "STALL_S", 0.1)
    monkeypatch.setattr(publish, "SOON_S", 0.05)
    floor, journal, count = Floor("probe", 1), Journal(), 500

    async def test() -> None:
        async with publishing(broker.address, floor.site, floor.conns, floor.run) as publisher:
            await floor.send(publisher, count)
            # All once more, and from then on a few at a time.
            began_s = asyncio.get_running_loop().time()
            await until(lambda: publisher.stats.resent >= count + 3 * publish.PROBES)
            took_s = asyncio.get_running_loop().time() - began_s
            assert publisher.stats.resent <= count + (took_s / publish.STALL_S + 1) * publish.PROBES
            async with toy_edge(broker.address, floor, journal):
                assert await publisher.drained(TIMEOUT_S)

    run(test)
    journal.assert_whole(floor, count)


def test_an_edge_restarted_in_the_middle_misses_nothing(broker: Broker) -> None:
    floor, journal, count = Floor("edges"), Journal(), 1_000

    async def test() -> None:
        async with publishing(broker.address, floor.site, floor.conns, floor.run, 200) as publisher:
            sending = asyncio.create_task(floor.send(publisher, count))
            for number in range(3):
                async with toy_edge(broker.address, floor, journal, f"edge-{number}"):
                    await until(partial(journal.holds, (number + 1) * count // 2))
            async with toy_edge(broker.address, floor, journal, "edge-last"):
                await sending
                await floor.end(publisher)
                assert await publisher.drained(TIMEOUT_S)
                await until(lambda: journal.ends == set(floor.conns))

    run(test)
    journal.assert_whole(floor, count)


def test_what_was_said_reaches_an_edge_that_comes_later(broker: Broker) -> None:
    floor, journal = Floor("late", 1), Journal()

    async def test() -> None:
        async with publishing(broker.address, floor.site, floor.conns, floor.run) as publisher:
            async with toy_edge(broker.address, floor, journal, "first"):
                await floor.send(publisher, 10)
                assert await publisher.drained(TIMEOUT_S)
            await floor.end(publisher)
            assert await publisher.drained(TIMEOUT_S)
            assert not journal.ends
            async with toy_edge(broker.address, floor, journal, "second"):
                await until(lambda: bool(journal.ends))

    run(test)


@pytest.mark.needs_mosquitto
@pytest.mark.parametrize("clean", [True, False])
def test_mosquitto_killed_in_the_middle_loses_nothing(workdir: Path, clean: bool) -> None:
    floor, journal, count = Floor("killed"), Journal(), 2_000

    async def test() -> None:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(running_broker("mosquitto", workdir))
            async with (
                toy_edge(first.address, floor, journal, clean=clean) as edge,
                publishing(first.address, floor.site, floor.conns, floor.run, 300) as publisher,
            ):
                sending = asyncio.create_task(floor.send(publisher, count))
                await until(lambda: len(journal.payloads) > count)
                os.kill(first.pid, signal.SIGKILL)
                await until(lambda: not edge.is_connected)
                stack.close()
                stack.enter_context(running_broker("mosquitto", workdir, port=first.address.port))
                await sending
                await floor.end(publisher)
                assert await publisher.drained(TIMEOUT_S)
                await until(lambda: journal.ends == set(floor.conns))
                assert edge.reconnects == 1
                assert publisher.stats.reconnects == 3

    run(test)
    journal.assert_whole(floor, count)


def test_the_embedded_broker_killed_in_the_middle_loses_nothing(workdir: Path) -> None:
    floor, journal, count = Floor("amqtt"), Journal(), 500

    async def test() -> None:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(running_broker("embedded", workdir))
            async with (
                toy_edge(first.address, floor, journal) as edge,
                publishing(first.address, floor.site, floor.conns, floor.run, 100) as publisher,
            ):
                sending = asyncio.create_task(floor.send(publisher, count))
                await until(lambda: len(journal.payloads) > count)
                os.kill(first.pid, signal.SIGKILL)
                await until(lambda: not edge.is_connected)
                stack.close()
                stack.enter_context(running_broker("embedded", workdir, port=first.address.port))
                await sending
                assert await publisher.drained(TIMEOUT_S)

    run(test)
    journal.assert_whole(floor, count)


def test_garbage_of_others_does_no_harm(broker: Broker) -> None:
    floor, journal, count = Floor("garbage"), Journal(), 400
    garbage = [
        b"",
        b"\xff\x00{",
        b"[" * 100_000,
        b"null",
        b"[1,2]",
        b'{"run":1,"edge":2,"cseq":3}',
        json.dumps({"run": "other", "edge": "x", "cseq": 10**6}).encode(),
        json.dumps({"run": floor.run, "edge": "x", "cseq": "9"}).encode(),
        json.dumps({"run": floor.run, "edge": "x", "cseq": True}).encode(),
        json.dumps({"run": floor.run, "edge": "x", "cseq": -1}).encode(),
    ]

    async def test() -> None:
        async with (
            toy_edge(broker.address, floor, journal),
            subscribed(broker.address, [], client_id="vandal") as vandal,
            publishing(broker.address, floor.site, floor.conns, floor.run, 100) as publisher,
        ):

            async def vandalise() -> None:
                host, port = broker.address.host, broker.address.port
                while True:
                    _, writer = await asyncio.open_connection(host, port)
                    writer.write(os.urandom(2_000))
                    writer.transport.abort()
                    for payload in garbage:
                        for conn in floor.conns:
                            await vandal.publish(topics.confirm(floor.site, conn), payload, qos=1)
                        await vandal.publish(floor.topic("x"), payload, qos=1)
                    await asyncio.sleep(0.02)

            task = asyncio.create_task(vandalise())
            await floor.send(publisher, count)
            assert await publisher.drained(TIMEOUT_S)
            await until(lambda: journal.foreign > len(garbage))
            task.cancel()
            await asyncio.wait([task])

    run(test)
    journal.assert_whole(floor, count)


def test_a_megabyte_passes_as_received(broker: Broker) -> None:
    payload = os.urandom(1_000_000)

    async def test() -> None:
        async with subscribed(broker.address, ["big/+"], client_id="big") as subscriber:
            assert await subscriber.publish("big/one", payload, qos=1)
            [received] = await subscriber.messages()
            assert received.payload == payload
            assert received.topic == "big/one"
            assert received.received_ns > 0
            assert not received.retained
            subscriber.ack([received.token])
            assert await subscriber.publish("big/two", b"after")
            [received] = await subscriber.messages()
            assert received.payload == b"after"

    run(test)


def test_retained_messages_say_so(broker: Broker) -> None:
    async def test() -> None:
        async with subscribed(broker.address, [], client_id="births") as publisher:
            await publisher.publish("retain/me", b"hello", retain=True, qos=1)
        async with subscribed(broker.address, ["retain/+"], client_id="late") as subscriber:
            [received] = await subscriber.messages()
            assert (received.payload, received.retained) == (b"hello", True)
            await subscriber.publish("retain/me", b"", retain=True, qos=1)

    run(test)


def test_a_full_backlog_stops_reading_and_drops_nothing(broker: Broker) -> None:
    floor, count, backlog = Floor("slow", 1), 3_000, 100
    conn = floor.conns[0]

    async def test() -> None:
        async with (
            subscribed(
                broker.address, floor.filters(), client_id="slow", backlog=backlog
            ) as subscriber,
            publishing(broker.address, floor.site, [conn], floor.run, count) as publisher,
        ):
            await floor.send(publisher, count)
            await until(lambda: len(subscriber) >= backlog)
            # What goes to and fro through broker and loop meanwhile would have brought more.
            async with subscribed(broker.address, ["mark/slow"], client_id="mark") as mark:
                for number in range(10):
                    assert await mark.publish("mark/slow", str(number).encode())
                    [received] = await mark.messages()
                    assert received.payload == str(number).encode()
                    mark.ack([received.token])
            # At QoS 1 the receive maximum holds; else one read of 256 KiB may exceed.
            assert len(subscriber) <= backlog + 600
            numbers: list[int] = []
            while len(set(numbers)) < count:
                batch = await subscriber.messages()
                numbers += [json.loads(received.payload)["cseq"] for received in batch]
                subscriber.ack(received.token for received in batch)
            assert numbers[:count] == list(range(1, count + 1))

    run(test)


@pytest.mark.needs_mosquitto
def test_what_was_not_acknowledged_comes_again(workdir: Path) -> None:
    async def test() -> None:
        with running_broker("mosquitto", workdir) as broker:
            async with subscribed(
                broker.address, ["again/+"], client_id="again", clean=False
            ) as subscriber:
                for number in range(5):
                    await subscriber.publish("again/x", str(number).encode(), qos=1)
                got: list[Received] = []
                while len(got) < 5:
                    got += await subscriber.messages()
                subscriber.ack(received.token for received in got[:3])
            async with subscribed(
                broker.address, ["again/+"], client_id="again", clean=False
            ) as subscriber:
                payloads: list[bytes] = []
                while len(payloads) < 2:
                    payloads += [received.payload for received in await subscriber.messages()]
                assert payloads == [b"3", b"4"]

    run(test)


def test_nobody_there_is_unreachable() -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else can answer there
        taken.bind(("127.0.0.1", 0))
        address = BrokerAddress("127.0.0.1", taken.getsockname()[1])

        async def subscribe() -> None:
            async with subscribed(address, ["x"], client_id="x"):
                pass

        async def send() -> None:
            async with publishing(address, "s", ["c"], "r"):
                pass

        for test in (subscribe, send):
            with pytest.raises(UnreachableError) as caught:
                run(test)
            assert str(address) in str(caught.value)
            assert caught.value.hint


@pytest.mark.needs_mosquitto
def test_a_refusal_is_unreachable(workdir: Path) -> None:
    server = mosquitto_path()
    assert server is not None
    workdir.mkdir()
    config, port = workdir / "closed.conf", free_port()
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous false\n")
    address = BrokerAddress("127.0.0.1", port, "ann", "wrong")

    async def test() -> None:
        async with subscribed(address, ["x"], client_id="x"):
            pass

    with subprocess.Popen([server, "-c", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
            with pytest.raises(UnreachableError, match="refused"):
                run(test)
        finally:
            process.terminate()


@pytest.mark.slow
def test_the_embedded_broker_cuts_off_who_does_not_read(workdir: Path) -> None:
    floor, journal, count = Floor("stuck", 1), Journal(), 300

    async def test() -> None:
        with running_broker("embedded", workdir) as broker:
            async with (
                subscribed(broker.address, ["#"], client_id="stuck", backlog=1) as stuck,
                toy_edge(broker.address, floor, journal),
                publishing(broker.address, floor.site, floor.conns, floor.run) as publisher,
            ):
                fat = b"x" * 1_000_000
                for _ in range(12):
                    await publisher.say(floor.conns[0], "other/fat", fat)
                    await publisher.say(floor.conns[0], "other/fat2", fat)
                await floor.send(publisher, count)
                assert await publisher.drained(TIMEOUT_S)
                assert len(stuck) > 0
            assert "cut off" in broker.log.read_text()

    run(test)
    journal.assert_whole(floor, count)


def test_a_number_out_of_turn_is_a_bug(broker: Broker) -> None:
    async def test() -> None:
        async with publishing(broker.address, "turn", ["c"], "r") as publisher:
            await publisher.send("c", Outgoing("turn/x", b"", 1))
            with pytest.raises(ValueError, match="number 3 after 1"):
                await publisher.send("c", Outgoing("turn/x", b"", 3))

    run(test)


@given(order=st.permutations(range(1, 30)), repeats=st.lists(st.integers(1, 29)))
def test_the_highest_contiguous_number_in_any_order(order: list[int], repeats: list[int]) -> None:
    seen, came = Contiguous(), set[int]()
    for cseq in [*order, *repeats]:
        seen.add("c", cseq)
        came.add(cseq)
        highest = seen.highest("c")
        assert set(range(1, highest + 1)) <= came
        assert highest + 1 not in came
        assert seen.missing("c") == (max(came) > highest)
    assert seen.highest("c") == 29
    assert seen.highest("other") == 0


@given(
    numbers=st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 12))), cut=st.integers(0, 20)
)
def test_a_restart_from_what_was_contiguous_forgets_only_what_came_ahead(
    numbers: list[tuple[str, int]], cut: int
) -> None:
    whole, before = Contiguous(), Contiguous()
    for conn, cseq in numbers:
        whole.add(conn, cseq)
    for conn, cseq in numbers[:cut]:
        before.add(conn, cseq)
    after = Contiguous({conn: before.highest(conn) for conn in "ab"})
    for conn, cseq in numbers:  # the publisher repeats what was not confirmed
        after.add(conn, cseq)
    assert [after.highest(conn) for conn in "ab"] == [whole.highest(conn) for conn in "ab"]
