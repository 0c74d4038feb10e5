"""What the verbs share: settings and scenario to policy, header, broker address and signals."""

import asyncio
import contextlib
import json
import platform
import secrets
import signal
from collections.abc import Coroutine, Generator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from config.campus import Campus
from config.errors import BeilunError, Exit, RecordingError, UnreachableError, UsageError
from config.scenario import (
    EdgeSettings,
    Expect,
    Scenario,
    Tolerance,
    find_scenario,
    network_names,
)
from config.settings import Broker
from config.tomlfile import guess
from config.units import NS_PER_S, format_duration, parse_duration
from config.version import __version__
from edge import kpis
from edge.policy import Policy
from ingest.broker import BrokerAddress
from ingest.recording import Recording

T = TypeVar("T")


def scenario_of(
    name: str, *, seed: int | None = None, length: str | None = None, network: str | None = None
) -> Scenario:
    """A scenario with what the command line changes of it, validated again."""
    if length is not None:
        try:
            whole = parse_duration(length) % NS_PER_S == 0
        except ValueError as error:
            raise UsageError(f"--for: {error}") from None
        if not whole:
            raise UsageError(f"--for {length}: a run lasts whole seconds")
    if seed is not None and seed < 0:
        raise UsageError(f"--seed {seed}: seeds start at 0")
    if network is not None and network not in network_names():
        raise UsageError(
            f"--network: unknown network {network!r}{guess(network, network_names())}",
            hint="`beilun networks` lists them",
        )
    changes = {"seed": seed, "length": length, "network": network}
    given = {key: value for key, value in changes.items() if value is not None}
    return find_scenario(name, kpis=kpis.load(), changes=given)


def policy_of(settings: EdgeSettings) -> Policy:
    """The edge's policy from its settings."""
    return Policy(
        settings.pane_ns, settings.kinds, settings.lateness, settings.retention, settings.max_skew
    )


def edge_header(settings: EdgeSettings) -> str:
    """The edge's settings as a recording keeps them."""
    plain = {
        name: format_duration(getattr(settings, name))
        for name in ("pane", "lateness", "retention", "max_skew")
    }
    calendar = {"zone": settings.zone, "shifts": settings.shifts}
    return json.dumps({"windows": settings.windows, **calendar, **plain})


def recorded_policy(recording: Recording) -> Policy:
    """The policy a recording was made under."""
    found = recording.meta_json("edge")
    if found is None:
        raise RecordingError("holds no edge settings", at=str(recording.path))
    return policy_of(EdgeSettings.model_validate(found))


def recorded_campus(recording: Recording) -> Campus | None:
    """The boundary a recording was made within: it holds for what is sent of it later."""
    scenario: dict[str, Any] = recording.meta_json("scenario") or {}
    found = scenario.get("campus")
    return None if found is None else Campus.model_validate(found)


def recorded_scenario(recording: Recording) -> tuple[list[Expect], dict[str, Tolerance]]:
    """What a recording's scenario expects and tolerates; nothing for an import."""
    found: dict[str, Any] = recording.meta_json("scenario") or {}
    for item in found.get("expect", ()):
        if isinstance(item.get("window"), int):  # of a recording that knew lengths only
            item["window"] = format_duration(item["window"])
    expected = [Expect.model_validate(item) for item in found.get("expect", ())]
    tolerated = found.get("tolerance", {}).items()
    return expected, {kpi: Tolerance.model_validate(item) for kpi, item in tolerated}


def versions() -> dict[str, str]:
    """What a result may depend on besides its inputs."""
    import numpy as np

    return {"beilun": __version__, "python": platform.python_version(), "numpy": np.__version__}


def scenario_header(scenario: Scenario, run: str) -> Mapping[str, str]:
    """Header entries of a simulated run."""
    from beilun.layout import encode, layout_of

    return {
        "run": run,
        "source": "simulated",
        "name": scenario.name,
        "seed": str(scenario.seed),
        "start_ns": str(scenario.start),
        "length_ns": str(scenario.length),
        "scenario": scenario.model_dump_json(),
        "layout": encode(layout_of(scenario)),
        "versions": json.dumps(versions()),
    }


def new_run() -> str:
    """A name no other run has; its length is always the same, since it travels in messages."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def address_of(settings: Broker) -> BrokerAddress:
    """The broker to connect to, with the user name and password set apart from its address."""
    address = BrokerAddress.parse(settings.url)
    if settings.username:
        return BrokerAddress(address.host, address.port, settings.username, settings.secret())
    return address


def fresh(path: Path, *, force: bool) -> Path:
    """A place for a new file; what is there is only replaced when told so, and set aside as
    ``.old`` until ``settle`` says that the new one is good."""
    if path.exists():
        if not force:
            raise RecordingError(
                "there is such a file", at=str(path), hint="--force replaces it, -o names another"
            )
        path.replace(_aside(path))
    return path


def settle(path: Path, *, good: bool) -> None:
    """Let go of a file that was set aside, or put it back in place of one that came to nothing."""
    if not good:
        path.unlink(missing_ok=True)
        if _aside(path).exists():
            _aside(path).replace(path)
    _aside(path).unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ".old")


def failure_of(what: str, code: int | None, said: str) -> BeilunError:
    """The error of another process of ours, in the last of its own words, with its exit code."""
    lines = [line for line in said.strip().splitlines() if not line.startswith("exit ")]
    told = "\n".join(lines[-12:]).removeprefix("error: ") or f"exit code {code}"
    error = UnreachableError if code == Exit.UNREACHABLE else BeilunError
    failed = error(f"{what}: {told}")
    failed.exit = Exit(code) if code in set(Exit) else Exit.BUG
    return failed


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` that lets its tasks end in peace: whoever interrupts while it clears up after
    itself interrupts afterwards, and who does so twice interrupts at once."""
    runner = asyncio.Runner()
    try:
        return runner.run(main)
    finally:
        for number in _SIGNALS:
            runner.get_loop().remove_signal_handler(number)
        with _interrupts_later():
            runner.close()


@contextlib.contextmanager
def _interrupts_later() -> Generator[None]:
    """The first signal interrupts at the end of this, the second at once."""
    told: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        del frame
        told.append(number)
        if len(told) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, hear) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if told:
        raise KeyboardInterrupt


class Stop:
    """The first SIGINT or SIGTERM sets ``event``, the second interrupts what ``run_loop`` runs."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.signal: signal.Signals | None = None

    def listen(self) -> None:
        """Begin to listen, on the running loop."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)
        self.event.set()

    @property
    def interrupted(self) -> bool:
        """Whether a person broke it off (a service stopped by SIGTERM is done)."""
        return self.signal == signal.SIGINT
