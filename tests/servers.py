"""Real stores for tests, on free loopback ports, stopped by their process ids."""

import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qs, quote, urlencode, urlsplit
from urllib.request import Request, urlopen

READY_S = 30.0


def victoria_metrics() -> str | None:
    return shutil.which("victoria-metrics")


def influxd() -> str | None:
    return shutil.which("influxd")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(url: str, body: bytes | None = None, timeout_s: float = 10) -> bytes:
    with urlopen(Request(url, body), timeout=timeout_s) as answer:
        return bytes(answer.read())


class Running:
    """A server that can be killed and started again on its port and its files."""

    def __init__(self, words: list[str], url: str, ready: str, folder: Path) -> None:
        self.url = url
        self._words, self._ready, self._folder = words, ready, folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self._words, stdout=log, stderr=log)
        until_s = time.monotonic() + READY_S
        while True:
            try:
                get(self._ready, timeout_s=1)
                return
            except (URLError, OSError):
                assert time.monotonic() < until_s, (self._folder / "log").read_text()[-2_000:]
                assert self.process.poll() is None, (self._folder / "log").read_text()[-2_000:]
                time.sleep(0.05)

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(10)
            self.process = None


class Victoria(Running):
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        words = [
            str(victoria_metrics()), f"-httpListenAddr=127.0.0.1:{port}",
            f"-storageDataPath={folder / 'data'}", "-retentionPeriod=100y",
            "-dedup.minScrapeInterval=1ms",
        ]  # fmt: skip
        super().__init__(words, url, f"{url}/health", folder)

    def read(self, field: str = "value") -> dict[tuple[str, str, str, int], float]:
        """What is stored, by path of the asset, KPI, window and start in ms."""
        get(f"{self.url}/internal/force_flush")
        match = quote(f'{{__name__="kpi_{field}"}}')
        out: dict[tuple[str, str, str, int], float] = {}
        for line in get(f"{self.url}/api/v1/export?match[]={match}&start=1").splitlines():
            found = json.loads(line)
            tags = found["metric"]
            path = "/".join(tags[level] for level in ("site", "area", "line", "asset"))
            for value, t_ms in zip(found["values"], found["timestamps"], strict=True):
                key = (path, tags["kpi"], tags["window"], t_ms)
                assert key not in out, f"twice: {key}"
                out[key] = value
        return out


class Influx(Running):
    """Debian's InfluxDB 1.6 behind an adapter that gives it the path of the v2 write API."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        port, admin = free_port(), free_port()
        (folder / "conf").write_text(
            f'reporting-disabled = true\nbind-address = "127.0.0.1:{admin}"\n'
            f'[meta]\ndir = "{folder}/meta"\n[data]\ndir = "{folder}/data"\n'
            f'wal-dir = "{folder}/wal"\n[http]\nbind-address = "127.0.0.1:{port}"\n'
            "[monitor]\nstore-enabled = false\n"
        )
        self.own = f"http://127.0.0.1:{port}"
        words = [str(influxd()), "-config", str(folder / "conf")]
        super().__init__(words, self.own, f"{self.own}/ping", folder)

    def query(self, text: str) -> list[list[object]]:
        asked = urlencode({"db": "beilun", "q": text, "epoch": "ns"})
        [found] = json.loads(get(f"{self.own}/query?{asked}", b""))["results"]
        return [row for series in found.get("series", []) for row in series["values"]]


@contextmanager
def running_victoria(folder: Path) -> Iterator[Victoria]:
    server = Victoria(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill(signal.SIGTERM)


@contextmanager
def running_influx(folder: Path) -> Iterator[Influx]:
    server = Influx(folder)
    try:
        server.start()
        server.query("CREATE DATABASE beilun")
        with adapted(server) as url:
            server.url = url
            yield server
    finally:
        server.kill(signal.SIGTERM)


@contextmanager
def adapted(server: Influx) -> Iterator[str]:
    """``/api/v2/write`` becomes ``/write``; the rest passes as it is."""

    class Adapter(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = urlsplit(self.path)
            asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
            path = self.path
            if parts.path == "/api/v2/write":
                path = "/write?" + urlencode(
                    {"db": asked["bucket"], "precision": asked["precision"]}
                )
            self._pass(path, body)

        def do_GET(self) -> None:
            self._pass(self.path, None)

        def _pass(self, path: str, body: bytes | None) -> None:
            kept = ("Content-Encoding", "Content-Type")
            head = {name: self.headers[name] for name in kept if name in self.headers}
            try:
                with urlopen(Request(server.own + path, body, head), timeout=10) as answer:
                    self._answer(answer.status, answer.read())
            except HTTPError as error:
                self._answer(error.code, error.read())
            except (URLError, OSError):
                self.close_connection = True

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    front = ThreadingHTTPServer(("127.0.0.1", 0), Adapter)
    thread = threading.Thread(target=front.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{front.server_address[1]}"
    finally:
        front.shutdown()
        front.server_close()
