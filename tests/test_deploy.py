"""``docker-compose.yml`` and ``deploy/``: parsed, linted, and run as plain processes with the same
words and settings, for no engine runs containers here."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
import yaml

from beilun import dashboards
from beilun.serving.access import make_token, read_tokens
from config.alarms import PREFIX
from config.errors import UnreachableError
from config.units import NS_PER_S
from edge import kpis
from edge.rows import Row
from edge.sinks.lines import line_of
from edge.store import RowStore
from ingest.broker import BrokerAddress
from ingest.messages import Asset
from ingest.recording import Recording
from ingest.subscribe import subscribed
from tests.servers import free_port, running_victoria

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OWN_HOST = re.compile(r"^(127\.0\.0\.1:)")


@pytest.mark.parametrize("name", SERVICES)
class TestEveryService:
    def test_has_a_pinned_image_without_a_registry(self, name: str) -> None:
        image, _, tag = SERVICES[name]["image"].partition(":")
        assert tag and tag != "latest" and "." not in image

    def test_has_no_rights_it_does_not_need(self, name: str) -> None:
        service = SERVICES[name]
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert not str(service["user"]).startswith(("0", "root"))
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}

    def test_says_whether_it_is_well(self, name: str) -> None:
        assert "healthcheck" in SERVICES[name] or SERVICES[name]["restart"] == "no"

    def test_listens_on_this_host_alone(self, name: str) -> None:
        assert all(OWN_HOST.match(port) for port in SERVICES[name].get("ports", []))

    def test_mounts_what_is_there(self, name: str) -> None:
        for volume in SERVICES[name].get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists()
                assert volume.endswith(":ro")
            else:
                assert source in COMPOSE["volumes"]

    def test_names_networks_secrets_and_services_that_exist(self, name: str) -> None:
        service = SERVICES[name]
        assert set(service.get("networks", [])) <= set(COMPOSE["networks"])
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        told = [v for v in service.get("environment", {}).values() if "/run/secrets/" in str(v)]
        assert {Path(v).name for v in told} <= set(service.get("secrets", []))


def test_the_page_may_write_down_who_saw_an_alarm_and_nothing_else() -> None:
    volumes = [volume.split(":") for volume in SERVICES["page"]["volumes"]]
    writable = [target for _, target, *how in volumes if how != ["ro"]]
    assert writable == [SERVICES["page"]["environment"]["BEILUN_SERVE__ACKS"]]
    assert f"mkdir /data {writable[0]} " in (DEPLOY / "Dockerfile").read_text()


def test_secrets_are_made_up_once_and_kept_out_of_the_repository(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    shutil.copytree(DEPLOY / "secrets", folder, ignore=shutil.ignore_patterns("*_*"))
    subprocess.run([folder / "make.sh"], check=True)
    assert read_tokens(folder / "page_tokens") == ()  # nobody may look until somebody is added
    made = {name: (folder / name).read_text() for name in COMPOSE["secrets"]}
    assert all(len(secret) == 48 for name, secret in made.items() if name != "page_tokens")
    assert len(set(made.values())) == len(made)
    subprocess.run([folder / "make.sh"], check=True)
    assert made == {name: (folder / name).read_text() for name in made}
    assert all(each["file"] == f"deploy/secrets/{n}" for n, each in COMPOSE["secrets"].items())
    assert (DEPLOY / "secrets" / ".gitignore").read_text().startswith("*\n")


def test_the_image_is_built_from_what_is_there() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    assert all((ROOT / name).exists() for names in copied for name in names.split())
    assert {"simulator", "ingest", "edge", "config", "beilun"} < set(" ".join(copied).split())
    assert re.search(r"^USER beilun$", text, re.MULTILINE)


class TestDashboards:
    @pytest.fixture(params=sorted(dashboards.dashboards()))
    def board(self, request: pytest.FixtureRequest) -> dict[str, Any]:
        return dict(json.loads((DEPLOY / "grafana" / "dashboards" / request.param).read_text()))

    def test_are_those_of_today(self) -> None:
        folder = DEPLOY / "grafana" / "dashboards"
        kept = {path.name: path.read_text() for path in folder.iterdir()}
        assert kept == dashboards.dashboards(), "make docs"

    def test_panels_do_not_overlap(self, board: dict[str, Any]) -> None:
        for a, b in combinations([panel["gridPos"] for panel in board["panels"]], 2):
            assert (
                a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
                or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
            )  # fmt: skip
        assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in board["panels"])
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])

    def test_ask_the_source_that_is_provisioned_for_kpis_that_exist(
        self, board: dict[str, Any]
    ) -> None:
        [source] = yaml.safe_load(
            (DEPLOY / "grafana" / "provisioning" / "datasources" / "beilun.yaml").read_text()
        )["datasources"]
        variables = {variable["name"] for variable in board["templating"]["list"]}
        for panel in board["panels"]:
            assert panel["datasource"]["uid"] == source["uid"]
            [target] = panel["targets"]
            query = target["query"]
            [kpi] = re.findall(r'r\.kpi == "([^"]+)"', query)
            assert kpi == "${kpi}" or kpi in kpis.load()
            assert set(re.findall(r"\$\{(\w+)\}", query)) <= variables
            assert query.count("(") == query.count(")")
            assert f'bucket: "{source["jsonData"]["defaultBucket"]}"' in query

    def test_have_a_state_timeline_that_says_more_than_a_colour(self) -> None:
        for name in ("site", "line", "asset"):
            board = json.loads(dashboards.dashboards()[f"beilun-{name}.json"])
            [panel] = [p for p in board["panels"] if p["type"] == "state-timeline"]
            defaults = panel["fieldConfig"]["defaults"]
            words = [each["options"]["result"]["text"] for each in defaults["mappings"]]
            assert len(set(words)) == len(defaults["thresholds"]["steps"]) == 3

    def test_mark_alarms_by_the_rows_that_the_edge_writes(self, board: dict[str, Any]) -> None:
        variables = {variable["name"] for variable in board["templating"]["list"]}
        row = Row(Asset("s", "a", "l", "m"), f"{PREFIX}oee_low", 0, 60 * NS_PER_S, 1.0, 1, 0, "1")
        written = line_of(row, "1m")
        raised, cleared = board["annotations"]["list"]
        for annotation, value in ((raised, "1.0"), (cleared, "0.0")):
            query = annotation["target"]["query"]
            assert annotation["datasource"] == dashboards.SOURCE
            assert set(re.findall(r"\$\{(\w+)\}", query)) <= variables
            assert query.count("(") == query.count(")") and query.count("{") == query.count("}")
            [pattern] = re.findall(r"r\.kpi =~ /(.+?)/", query)
            [kpi] = re.findall(r"kpi=([^,]+)", written)
            assert re.match(pattern, kpi) and not re.match(pattern, "alarmed")
            assert f"r.value == {value}" in query and "r.known == 1" in query
        assert f"known=1i,value={row.value}" in written


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """Mosquitto with the very configuration of the container, but for its folders and its port."""
    secrets = tmp_path / "secrets"
    shutil.copytree(DEPLOY / "secrets", secrets, ignore=shutil.ignore_patterns("*_*"))
    subprocess.run([secrets / "make.sh"], check=True)
    passwords = tmp_path / "passwords"
    subprocess.run([DEPLOY / "mosquitto" / "users.sh", passwords, secrets], check=True)
    port = free_port()
    conf = (DEPLOY / "mosquitto" / "mosquitto.conf").read_text()
    (tmp_path / "data").mkdir()
    shutil.copy(DEPLOY / "mosquitto" / "acl", tmp_path / "acl")
    for path in (passwords, tmp_path / "acl"):
        path.chmod(0o600)
    for old, new in (
        ("listener 1883", f"listener {port} 127.0.0.1\nuser root"),
        ("/mosquitto/users/passwords", str(passwords)),
        ("/mosquitto/config/acl", str(tmp_path / "acl")),
        ("/mosquitto/data/", f"{tmp_path / 'data'}/"),
    ):
        assert conf.count(old) == 1
        conf = conf.replace(old, new)
    (tmp_path / "mosquitto.conf").write_text(conf)
    program = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
    assert program
    with (tmp_path / "mosquitto.log").open("wb") as log:
        process = subprocess.Popen([program, "-c", tmp_path / "mosquitto.conf"], stderr=log)
    try:
        until_s = time.monotonic() + 10
        while not answers(port):
            assert process.poll() is None and time.monotonic() < until_s
            time.sleep(0.02)
        yield port, secrets
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
    assert "Error" not in (tmp_path / "mosquitto.log").read_text()


def environment(service: str, secrets: Path, port: int, store: str) -> dict[str, str]:
    """The environment of a service, its addresses and folders those of this machine."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("BEILUN_")}
    told = {k: str(v) for k, v in SERVICES[service]["environment"].items()}
    for name, value in told.items():
        told[name] = (
            value.replace("/run/secrets", str(secrets))
            .replace("mqtt://broker:1883", f"mqtt://127.0.0.1:{port}")
            .replace("http://influxdb:8086", store)
            .replace("/data", str(secrets.parent))
        )
    return own | told


@pytest.mark.needs_mosquitto
@pytest.mark.needs_victoria_metrics
def test_the_services_work_together_under_the_brokers_access_list(
    broker: tuple[int, Path], tmp_path: Path
) -> None:
    port, secrets = broker
    with running_victoria(tmp_path / "vm") as store:
        halves = {
            name: subprocess.Popen(
                [sys.executable, "-m", "beilun", *SERVICES[name]["command"], *more],
                env=environment(name, secrets, port, store.url), cwd=tmp_path,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for name, more in (("edge", ()), ("simulator", ("--speed", "max", "--for", "2m")))
        }  # fmt: skip
        ended = {name: (*half.communicate(timeout=120), half) for name, half in halves.items()}
        for name, (out, err, half) in ended.items():
            assert half.returncode == 0, f"{name}: {out}\n{err}"
        out = ended["edge"][0]
        assert "the sums close" in out
        assert "lost 0" in out or re.search(r"delivered [\d,]+", out)
        accepted = re.search(r"rows ([\d,]+) = accepted \1$", out, re.MULTILINE)
        assert accepted, out
        assert len(store.read("known")) > 0


@pytest.mark.needs_mosquitto
def test_the_viewer_hears_no_telemetry_and_strangers_hear_nothing(
    broker: tuple[int, Path],
) -> None:
    port, secrets = broker

    def address(user: str) -> BrokerAddress:
        password = (secrets / f"broker_{user}").read_text()
        return BrokerAddress.parse(f"mqtt://{user}:{password}@127.0.0.1:{port}")

    async def heard() -> list[str]:
        async with (
            subscribed(address("viewer"), ["beilun/#"], client_id="viewer") as viewer,
            subscribed(address("simulator"), [], client_id="simulator") as simulator,
            subscribed(address("edge"), [], client_id="edge") as edge,
        ):
            await simulator.publish("beilun/v1/s/a/l/x/process", b"secret", qos=1)
            await edge.publish("beilun/v1/s/a/l/x/kpi/oee/1h", b"1", qos=1)
            return [message.topic for message in await viewer.messages()]

    async def refused(url: str) -> None:
        with pytest.raises(UnreachableError, match="refused"):
            async with subscribed(BrokerAddress.parse(url), ["#"], client_id="stranger"):
                pass

    async def main() -> None:
        async with asyncio.timeout(30):
            assert await heard() == ["beilun/v1/s/a/l/x/kpi/oee/1h"]
            await refused(f"mqtt://127.0.0.1:{port}")
            await refused(f"mqtt://viewer:wrong@127.0.0.1:{port}")

    asyncio.run(main())


class TestPage:
    """The page reads a volume that it may not write to, as a process without the right to ignore
    the permissions of files: what a container without capabilities is."""

    @pytest.fixture
    def data(self, tmp_path: Path) -> Iterator[Path]:
        folder = tmp_path / "data" / "runs"
        folder.mkdir(parents=True)
        yield folder
        folder.chmod(0o755)

    @contextmanager
    def page(self, data: Path, tmp_path: Path) -> Iterator[tuple[str, str]]:
        """Its address, and a token that opens it."""
        secrets = tmp_path / "secrets"
        secrets.mkdir()
        token = make_token(secrets / "page_tokens", "wang", "viewer")
        for path in data.iterdir():
            path.chmod(0o444)
        data.chmod(0o555)
        port = free_port()
        told = environment("page", secrets, port, "")
        told |= {"BEILUN_RUN__DIRECTORY": str(data), "HOME": str(tmp_path / "home")}
        told |= {"BEILUN_SERVE__ACKS": str(tmp_path / "acks")}
        words = [word.replace("/run/secrets", str(secrets)) for word in SERVICES["page"]["command"]]
        words[words.index("0.0.0.0")] = "127.0.0.1"
        setpriv = shutil.which("setpriv")
        assert setpriv is not None
        without = [setpriv, "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
        with (tmp_path / "page.log").open("wb") as log:
            process = subprocess.Popen(
                [*without, sys.executable, "-m", "beilun", *words, "--port", str(port)],
                env=told, cwd=tmp_path, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            until_s = time.monotonic() + 60
            while not answers(port):
                said = (tmp_path / "page.log").read_text()
                assert process.poll() is None and time.monotonic() < until_s, said
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}", token
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)

    @pytest.mark.parametrize("writer", ["writes", "has ended", "was killed"])
    def test_reads_a_volume_it_may_not_write_to(
        self, data: Path, tmp_path: Path, writer: str
    ) -> None:
        code = (
            "import sys, time; from pathlib import Path; from tests.test_deploy import *\n"
            "made = filled(Path(sys.argv[1]))\n"
            "print('ready', flush=True)\n"
            "if sys.stdin.readline() == 'more\\n': more(made); print('more', flush=True)\n"
            "sys.stdin.readline(); made.close()"
        )
        pipe = subprocess.PIPE
        with subprocess.Popen(
            [sys.executable, "-c", code, str(data / "edge.beilun")], stdin=pipe, stdout=pipe,
            text=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
        ) as process:  # fmt: skip
            assert process.stdin is not None and process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            if writer == "was killed":
                process.kill()
                process.wait()
                assert (data / "edge.beilun-wal").stat().st_size > 0
            elif writer == "has ended":
                process.stdin.write("end\n\n")
                process.stdin.flush()
                assert process.wait(20) == 0
                assert not (data / "edge.beilun-wal").exists()
            with self.page(data, tmp_path) as (url, token):
                assert health(url) == 200
                assert rows(url, token) == [0.5]
                if writer == "writes":
                    process.stdin.write("more\n")
                    process.stdin.flush()
                    assert process.stdout.readline() == "more\n"
                    assert rows(url, token) == [0.75]  # the last of each asset
                assert rows(url, "wang.wrong") is None
            process.kill()

    def test_its_health_is_asked_for_as_compose_asks(self, data: Path, tmp_path: Path) -> None:
        filled(data / "edge.beilun").close()
        with self.page(data, tmp_path) as (url, _):
            _, program, *words = SERVICES["page"]["healthcheck"]["test"]
            words = [word.replace("http://127.0.0.1:8080", url) for word in words]
            assert program == "python"
            assert subprocess.run([sys.executable, *words], check=False).returncode == 0
        assert subprocess.run([sys.executable, *words], check=False, stderr=-3).returncode != 0


START_NS = 1_767_571_200 * NS_PER_S


def filled(path: Path) -> Recording:
    made = Recording.create(path)
    made.set_meta({"edge": json.dumps({"windows": ["1h"]}), "run": "r", "source": "live"})
    RowStore(made).prepare()
    RowStore(made).write([hourly(0, 0.5)])
    return made


def more(made: Recording) -> None:
    RowStore(made).write([hourly(1, 0.75)])


def hourly(hour: int, value: float) -> Row:
    hour_ns = 3_600 * NS_PER_S
    return Row(Asset("s", "a", "l", "m"), "oee", START_NS + hour * hour_ns, hour_ns, value, 9, 0,
               "1")  # fmt: skip


def health(url: str) -> int:
    with urlopen(f"{url}/healthz/ready", timeout=10) as answer:
        return int(answer.status)


def rows(url: str, token: str) -> list[float] | None:
    """The last value of every asset, as the API tells it; `None` where it lets nobody in."""
    asked = urlencode({"kpi": "oee", "window": "1h", "asset": "*"})
    try:
        with urlopen(
            Request(f"{url}/api/v1/kpis?{asked}", headers={"Authorization": f"Bearer {token}"}),
            timeout=10,
        ) as answer:
            return [row["value"] for row in json.loads(answer.read())["rows"]]
    except HTTPError as error:
        assert error.code == 401
        return None
