"""A private broker answers when entered, is gone when left, and never outlives its parent."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt import publish, subscribe
from paho.mqtt.client import MQTTMessage

from config.errors import UnreachableError, UsageError
from ingest import broker as brokers
from ingest.broker import PROBE, Broker, BrokerAddress, running_broker

KINDS = [pytest.param("mosquitto", marks=pytest.mark.needs_mosquitto), "embedded"]


def answers(address: BrokerAddress) -> bool:
    try:
        with socket.create_connection((address.host, address.port), timeout=2) as sock:
            sock.sendall(PROBE)
            return sock.recv(64)[:1] == b"\x20"
    except OSError:
        return False


def gone(pid: int, within_s: float = 10.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True  # dead, and nobody here to bury it
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_an_address_is_read_as_people_write_it() -> None:
    assert BrokerAddress.parse("mqtt://10.0.0.7") == BrokerAddress("10.0.0.7", 1883)
    assert BrokerAddress.parse("mqtt://[::1]:1884") == BrokerAddress("::1", 1884)
    full = BrokerAddress.parse("mqtt://ann:p%40ss@floor.example:99")
    assert full == BrokerAddress("floor.example", 99, "ann", "p@ss")


def test_the_password_is_never_shown() -> None:
    address = BrokerAddress.parse("mqtt://ann:secret@floor.example:99")
    assert "secret" not in f"{address} {address!r}"
    with pytest.raises(UsageError) as caught:
        BrokerAddress.parse("mqtt://ann:secret@floor.example:99999")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "localhost:1883",
        "http://localhost",
        "mqtt://",
        "mqtt://:1883",
        "mqtt://host:abc",
        "mqtt://host:0",
        "mqtt://host:65536",
        "mqtt://host/topic",
        "mqtt://a b",
        "mqtt://:secret@host",
        "mqtt://[::1",
    ],
)
def test_nonsense_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        BrokerAddress.parse(url)


@given(
    host=st.from_regex(r"[a-z][a-z0-9-]{0,10}(\.[a-z]{2,5})?", fullmatch=True),
    port=st.integers(1, 65535),
    user=st.none() | st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True),
)
def test_what_is_shown_reads_back(host: str, port: int, user: str | None) -> None:
    address = BrokerAddress(host, port, user)
    assert BrokerAddress.parse(str(address)) == address


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_when_entered_and_is_gone_when_left(kind: brokers.Kind, workdir: Path) -> None:
    with running_broker(kind, workdir) as broker:
        assert broker.kind == kind
        assert broker.address.host == "127.0.0.1"
        assert answers(broker.address)
    assert gone(broker.pid, 0.1)
    assert not answers(broker.address)


def test_auto_takes_mosquitto_where_it_is_installed(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = "mosquitto" if brokers.mosquitto_path() else "embedded"
    with running_broker("auto", workdir) as broker:
        assert broker.kind == wanted
    monkeypatch.setattr(brokers, "mosquitto_path", lambda: None)
    with running_broker("auto", workdir) as broker:
        assert broker.kind == "embedded"
    with (
        pytest.raises(UnreachableError, match="not installed"),
        running_broker("mosquitto", workdir),
    ):
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_a_taken_port_is_an_error_that_shows_the_log(kind: brokers.Kind, workdir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(UnreachableError) as caught,
            running_broker(kind, workdir, port=port),
        ):
            pass
    assert "in use" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("kind", KINDS)
def test_another_port_is_tried_when_one_is_taken(
    kind: brokers.Kind, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1], brokers.free_port()])
        monkeypatch.setattr(brokers, "free_port", lambda: next(ports))
        with running_broker(kind, workdir) as broker:
            assert answers(broker.address)


@pytest.mark.parametrize("kind", KINDS)
def test_it_dies_with_its_parent(kind: brokers.Kind, workdir: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from ingest.broker import running_broker\n"
        "with running_broker(sys.argv[1], Path(sys.argv[2])) as broker:\n"
        "    print(broker.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, kind, str(workdir)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
    assert gone(pid)


@pytest.mark.parametrize("kind", KINDS)
def test_a_restarted_broker_is_another_process_at_the_same_address(
    kind: brokers.Kind, workdir: Path
) -> None:
    with running_broker(kind, workdir) as broker:
        first, address = broker.pid, broker.address
        with socket.create_connection((address.host, address.port), timeout=10) as client:
            client.sendall(PROBE)
            assert client.recv(64)[:1] == b"\x20"
            # A thread of its own, and gone at once: what it started must stay.
            asker = threading.Thread(target=broker.restart)
            asker.start()
            seen_alive = []
            while asker.is_alive():
                seen_alive.append(broker.alive())
                asker.join(0.001)
            client.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(64) == b""
        assert gone(first, 0.1)
        assert all(seen_alive)  # nobody may take a restart for a death
        assert broker.alive()
        assert broker.pid != first
        assert broker.address == address
        assert answers(address)
        second = broker.pid
    assert gone(second, 0.1)
    assert not answers(address)


@pytest.mark.needs_mosquitto
def test_mosquitto_keeps_over_a_restart_what_it_had_saved(workdir: Path) -> None:
    def retained(address: BrokerAddress) -> str:
        got = subscribe.simple("kept", hostname=address.host, port=address.port, retained=True)
        assert isinstance(got, MQTTMessage)
        return got.payload.decode()

    with running_broker("mosquitto", workdir) as broker:
        where = {"hostname": broker.address.host, "port": broker.address.port}
        publish.single("kept", "word", qos=1, retain=True, **where)
        saved = workdir / "mosquitto.db"
        until = time.monotonic() + 10
        while not (saved.exists() and b"word" in saved.read_bytes()):
            assert time.monotonic() < until
            time.sleep(0.05)
        broker.restart()
        assert retained(broker.address) == "word"


@pytest.mark.parametrize("kind", KINDS)
def test_a_broker_that_does_not_come_back_is_an_error(
    kind: brokers.Kind, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_broker(kind, workdir) as broker:
        monkeypatch.setattr("ingest.broker.sys.executable", "/bin/false")
        with pytest.raises(UnreachableError, match="did not start"):
            broker.restart()
        assert not broker.alive()


def test_two_brokers_do_not_meet(broker: Broker, workdir: Path) -> None:
    with running_broker("auto", workdir) as other:
        assert other.address.port != broker.address.port
