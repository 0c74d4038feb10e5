"""Fixtures: private brokers of both kinds on free loopback ports."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from ingest.broker import Broker, mosquitto_path, running_broker
from tests.servers import influxd, victoria_metrics

Kind = Literal["mosquitto", "embedded"]

# A job that a shell starts in the background ignores Ctrl-C, and so would every process of a test.
signal.signal(signal.SIGINT, signal.default_int_handler)


SERVERS = {
    "needs_mosquitto": ("mosquitto", mosquitto_path),
    "needs_victoria_metrics": ("victoria-metrics", victoria_metrics),
    "needs_influxd": ("influxdb", influxd),
    "needs_openssl": ("openssl", lambda: shutil.which("openssl")),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("BEILUN_REQUIRE_SERVERS") == "1":
        return  # where servers are required, their absence fails the tests
    for mark, (name, path) in SERVERS.items():
        if path() is not None:
            continue
        absent = pytest.mark.skip(reason=f"{name} is not installed")
        for item in items:
            if item.get_closest_marker(mark):
                item.add_marker(absent)


@pytest.fixture(
    scope="session",
    params=[pytest.param("mosquitto", marks=pytest.mark.needs_mosquitto), "embedded"],
)
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broker]:
    """A broker that answers, of each kind in turn; topics are the test's own business."""
    kind: Kind = request.param
    with running_broker(kind, tmp_path_factory.mktemp(kind)) as running:
        yield running


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """Where a test's own broker keeps its files."""
    return tmp_path / "broker"
