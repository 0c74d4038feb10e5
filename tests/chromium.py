"""A headless Chromium that talks to this host only, and what tests ask of it."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

WAIT_S = 20.0


def find() -> tuple[str, str]:
    """Paths of browser and driver; skips where one is missing, unless servers are required."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if browser and driver:
        return browser, driver
    if os.environ.get("BEILUN_REQUIRE_SERVERS") == "1":
        pytest.fail("chromium or chromedriver is missing: apt-get install chromium chromium-driver")
    pytest.skip("needs chromium and chromedriver")


@contextmanager
def browser(folder: Path, width: int, height: int) -> Iterator["Browser"]:
    """A browser with a profile of its own in ``folder``, which is left behind."""
    program, driver = find()
    options = ChromeOptions()
    options.binary_location = program
    for word in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync",
        "disable-dev-shm-usage", "no-proxy-server", "enable-precise-memory-info",
        "js-flags=--expose-gc", "force-prefers-reduced-motion", "hide-scrollbars",
        f"user-data-dir={folder}", f"window-size={width},{height}",
        # What is asked of any other name fails at once, and is seen in the log of requests.
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):  # fmt: skip
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    try:
        yield Browser(chrome, width, height)
    finally:
        chrome.quit()


def desktop(width: int, height: int) -> tuple[Any, Any]:
    """Two fixtures for a module that has an ``address``: ``window``, one for all its tests; and
    ``browser``, the same, after whose test the console must be clean, and nobody else asked."""

    @pytest.fixture(scope="module")
    def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
        with browser(tmp_path_factory.mktemp("profile"), width, height) as found:
            yield found

    @pytest.fixture
    def watched(window: Browser, address: str) -> Iterator[Browser]:
        window.resize(width, height)
        window.cookie(address, beilun_theme="dark", beilun_language="en")
        window.complaints()
        window.hosts()
        yield window
        complaints, hosts = window.complaints(), window.hosts()
        assert complaints == [], complaints
        assert hosts == {"127.0.0.1"}, hosts

    return window, watched


class Browser:
    """One window."""

    def __init__(self, chrome: Chrome, width: int, height: int) -> None:
        self.chrome = chrome
        self.resize(width, height)

    def resize(self, width: int, height: int) -> None:
        """The size of what a page sees, in CSS pixels: a phone is narrower than any window."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def open(self, address: str) -> None:
        """Load a page; what must be on it is to be waited for."""
        self.chrome.get(address)

    def cookie(self, address: str, **values: str) -> None:
        """Set cookies of a host before its page is opened."""
        for name, value in values.items():
            self.chrome.execute_cdp_cmd(
                "Network.setCookie", {"url": address, "name": name, "value": value}
            )

    def all(self, css: str) -> list[WebElement]:
        """Elements there are now."""
        return self.chrome.find_elements(By.CSS_SELECTOR, css)

    def texts(self, css: str) -> list[str]:
        """Texts of elements, as they are in the page, also of those that are scrolled away."""
        found: list[str] = self.run(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent.trim())",
            css,
        )
        return found

    def text(self, css: str) -> str:
        """Text of the first of some elements; empty where there is none."""
        return next(iter(self.texts(css)), "")

    def run(self, script: str, *args: Any) -> Any:
        """Run JavaScript and return its result."""
        return self.chrome.execute_script(script, *args)

    def until(self, holds: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
        """Wait until something holds, and return it; fails with ``what`` was waited for."""
        wait = WebDriverWait(self.chrome, timeout_s, 0.05)
        return wait.until(lambda _: holds(), f"{what} did not come in {timeout_s:g} s")

    def press(self, keys: str, *, shift: bool = False) -> None:
        """Press a key with nothing in particular focused."""
        self.run(
            "document.activeElement?.blur();"
            "document.body.dispatchEvent(new KeyboardEvent('keydown',"
            "{key: arguments[0], shiftKey: arguments[1], bubbles: true, cancelable: true}))",
            keys,
            shift,
        )

    def picture(self, file: Path) -> None:
        """Save what is on the screen as PNG."""
        self.chrome.save_screenshot(str(file))

    def complaints(self) -> list[str]:
        """Errors and warnings on the console since the last call."""
        return [
            entry["message"]
            for entry in self.chrome.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING")
        ]

    def hosts(self) -> set[str]:
        """Hosts that anything was asked of since the last call."""
        found: set[str] = set()
        for entry in self.chrome.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                address = urlsplit(message["params"]["request"]["url"])
            elif message["method"] == "Network.webSocketCreated":
                address = urlsplit(message["params"]["url"])
            else:
                continue
            if address.scheme in ("http", "https", "ws", "wss"):
                found.add(address.hostname or "")
        return found

    def received(self) -> list[str]:
        """Everything that came by socket since the last call, or the last of ``hosts``."""
        found: list[str] = []
        for entry in self.chrome.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.webSocketFrameReceived":
                found.append(str(message["params"]["response"]["payloadData"]))
        return found

    def heap_bytes(self) -> int:
        """JavaScript's heap after a full collection."""
        self.chrome.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
        return int(self.run("return performance.memory.usedJSHeapSize"))

    def nodes(self) -> int:
        """Elements in the document."""
        return int(self.run("return document.getElementsByTagName('*').length"))
