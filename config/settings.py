"""Settings in layers, each value with its origin.

Lowest first: default < scenario < ``beilun.toml`` (the nearest upward, then ``--config``) <
``BEILUN_SECTION__KEY`` < flag. One spelling everywhere: ``[run] speed`` is ``BEILUN_RUN__SPEED``.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from config import tomlfile
from config.alarms import AlarmSettings
from config.errors import ConfigError
from config.scenario import EdgeSettings, Scenario
from config.units import NS_PER_S, DurationNs, format_duration

FILE = "beilun.toml"
RESERVED = frozenset({"BEILUN_REQUIRE_SERVERS"})
"""Variables of ours that are not settings."""
LISTS = (("edge", "windows"), ("edge", "shifts"), ("serve", "proxies"))
"""Settings that are lists; a variable separates their items by commas."""
SECRETS = (("broker", "password"), ("store", "token"), ("webhook", "secret"))
"""Settings that no file may hold, but name a file for."""
HIDDEN = "••••"

_MODEL = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def _as_speed(value: object) -> object:
    """``max``, or a number above 0, also as text (from the environment)."""
    try:
        speed = float(value) if isinstance(value, str | int | float) and value != "max" else None
    except ValueError:
        speed = 0.0
    if speed is not None and not 0 < speed < float("inf"):
        raise ValueError(f"should be max or a number above 0, got {value!r}")
    return value if speed is None else speed


def _is_address(text: str) -> bool:
    address = urlsplit(text)
    return address.scheme == "mqtt" and bool(address.hostname)


def _as_url(value: object) -> object:
    own = ("auto", "mosquitto", "embedded")
    if isinstance(value, str) and value not in own and not _is_address(value):
        raise ValueError(
            "should be auto, mosquitto, embedded, or an address like mqtt://localhost:1883"
        )
    return value


def _as_feed_url(value: object) -> object:
    if isinstance(value, str) and value and not _is_address(value):
        raise ValueError("should be an address like mqtt://localhost:1883, or empty")
    return value


def _as_network(text: str) -> str:
    try:
        return str(ip_network(text.strip()))
    except ValueError:
        raise ValueError(
            f"should be an address or network like 10.0.0.2 or 10.0.0.0/24, got {text!r}"
        ) from None


def _is_http(text: str) -> bool:
    try:
        found = urlsplit(text)
        return bool(found.scheme in ("http", "https") and found.hostname and found.port != 0)
    except ValueError:
        return False


def _as_store_url(value: object) -> object:
    if not isinstance(value, str) or not value:
        return value
    if not _is_http(value) or urlsplit(value).username or urlsplit(value).query:
        raise ValueError(f"should be like http://127.0.0.1:8086, got {value!r}")
    return value.rstrip("/")


def _as_webhook_url(value: object) -> object:
    if not isinstance(value, str) or not value:
        return value
    if not _is_http(value) or urlsplit(value).username or urlsplit(value).fragment:
        raise ValueError(f"should be like https://host/path, without a password, got {value!r}")
    return value


def first_line(path: Path, key: str) -> str:
    """A secret from its file; ``key`` is the setting that names it."""
    try:
        return path.read_text().split("\n", 1)[0]
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", at=f"{key} {path}") from None


class Broker(BaseModel):
    """Which MQTT broker, and as whom."""

    model_config = _MODEL

    url: Annotated[str, BeforeValidator(_as_url)] = "auto"
    """`mqtt://host:port`, `mosquitto`, `embedded`, or `auto`: mosquitto if there, else embedded."""
    username: str = ""
    """Empty: anonymous."""
    password: SecretStr | None = None
    """Only from the environment; in a file name a `password_file`."""
    password_file: Path | None = None
    """File whose first line is the password."""
    patience: DurationNs = 300 * NS_PER_S
    """How long a run seeks a broker that went away before it gives up; a service never does."""

    @property
    def own_kind(self) -> Literal["auto", "mosquitto", "embedded"] | None:
        """Which broker to start ourselves; ``None`` where an address is given."""
        match self.url:
            case "auto" | "mosquitto" | "embedded" as kind:
                return kind
            case _:
                return None

    def secret(self) -> str | None:
        """The password, wherever it comes from."""
        if self.password is not None:
            return self.password.get_secret_value()
        if self.password_file is None:
            return None
        return first_line(self.password_file, "broker.password_file")


class Run(BaseModel):
    """How fast a run goes and where it leaves its files."""

    model_config = _MODEL

    speed: Annotated[Literal["max"] | float, BeforeValidator(_as_speed)] = "max"
    """Virtual seconds per second (1 is real time), or `max`."""
    directory: Path = Path("runs")
    """Where recordings are written."""


class Feed(BaseModel):
    """Where final KPI rows are published for others to see."""

    model_config = _MODEL

    url: Annotated[str, BeforeValidator(_as_feed_url)] = ""
    """`mqtt://[user:password@]host:port`; empty: nowhere. A scenario's `[campus]` may withhold."""


class Store(BaseModel):
    """The InfluxDB v2 API that final KPI rows are written to, beside the recording."""

    model_config = _MODEL

    url: Annotated[str, BeforeValidator(_as_store_url)] = ""
    """`http://host:8086` or `https://…`; empty: the recording alone."""
    bucket: Annotated[str, Field(min_length=1)] = "beilun"
    """Bucket; VictoriaMetrics ignores it."""
    org: str = ""
    """Organisation; VictoriaMetrics ignores it."""
    token: SecretStr | None = None
    """Only from the environment; in a file name a `token_file`."""
    token_file: Path | None = None
    """File whose first line is the token."""
    timeout: DurationNs = 10 * NS_PER_S
    """How long the server may take to answer."""
    keep: DurationNs = 60 * NS_PER_S
    """How long rows are kept after they were accepted, to be sent again after a restart there."""
    backlog: Annotated[int, Field(ge=1, json_schema_extra={"unit": "rows"})] = 2_000_000
    """The most rows that wait for the server; after that the oldest are dropped, and counted."""

    def secret(self) -> str:
        """The token, wherever it comes from; empty for none."""
        if self.token is not None:
            return self.token.get_secret_value()
        return "" if self.token_file is None else first_line(self.token_file, "store.token_file")


class Webhook(BaseModel):
    """Where alarms are posted as they are raised and cleared."""

    model_config = _MODEL

    url: Annotated[str, BeforeValidator(_as_webhook_url)] = ""
    """`https://host/path`; empty: nowhere."""
    secret: SecretStr | None = None
    """Key of the signature; only from the environment, in a file name a `secret_file`."""
    secret_file: Path | None = None
    """File whose first line is the secret."""
    timeout: DurationNs = 10 * NS_PER_S
    """How long the server may take to answer."""
    backlog: Annotated[int, Field(ge=1, json_schema_extra={"unit": "alarms"})] = 100_000
    """The most that wait for the server; after that the oldest are dropped, and counted."""

    def key(self) -> str:
        """The secret, wherever it comes from; empty: nothing is signed."""
        if self.secret is not None:
            return self.secret.get_secret_value()
        if self.secret_file is None:
            return ""
        return first_line(self.secret_file, "webhook.secret_file")


class Serve(BaseModel):
    """Where the operators' page and the API are served."""

    model_config = _MODEL

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """Address to listen on; any other than this host's own needs a `tokens_file`."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """Port to listen on; 0: any that is free."""
    tokens_file: Path | None = None
    """Who may sign in; `beilun serve token` adds to it. Without it nobody has to."""
    acks: Path | None = None
    """Where it is kept who acknowledged which alarm: a folder, or a file that ends with `.acks`;
    without it beside the recording."""
    certificate: Path | None = None
    """PEM file with this server's certificate, and those that vouch for it; with it and its `key`
    everything is https."""
    key: Path | None = None
    """PEM file with the certificate's private key, without a passphrase."""
    proxies: tuple[Annotated[str, AfterValidator(_as_network)], ...] = ()
    """Addresses or networks of proxies that may say for whom they ask, and whether by https."""


class Log(BaseModel):
    """What is told on stderr."""

    model_config = _MODEL

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is told."""


class Values(BaseModel):
    """The sections of ``beilun.toml``."""

    model_config = _MODEL

    broker: Broker = Broker()
    run: Run = Run()
    edge: EdgeSettings = EdgeSettings()
    feed: Feed = Feed()
    store: Store = Store()
    alarms: AlarmSettings = AlarmSettings()
    webhook: Webhook = Webhook()
    serve: Serve = Serve()
    log: Log = Log()


@dataclass(frozen=True, slots=True)
class Setting:
    """One effective value, as it is shown: its key, text, unit, origin and meaning."""

    key: str
    value: str
    unit: str
    origin: str
    doc: str


@dataclass(frozen=True, slots=True)
class Settings:
    """The effective settings of this process."""

    values: Values
    origins: Mapping[str, str]
    """Where each ``section.key`` that is not a default comes from."""

    @property
    def broker(self) -> Broker:
        return self.values.broker

    @property
    def run(self) -> Run:
        return self.values.run

    @property
    def edge(self) -> EdgeSettings:
        return self.values.edge

    @property
    def feed(self) -> Feed:
        return self.values.feed

    @property
    def store(self) -> Store:
        return self.values.store

    @property
    def alarms(self) -> AlarmSettings:
        return self.values.alarms

    @property
    def webhook(self) -> Webhook:
        return self.values.webhook

    @property
    def serve(self) -> Serve:
        return self.values.serve

    @property
    def log(self) -> Log:
        return self.values.log

    def show(self) -> Iterator[Setting]:
        """Every setting; secrets stay hidden."""
        for section, name in _keys():
            model: BaseModel = getattr(self.values, section)
            field = type(model).model_fields[name]
            unit = tomlfile.unit_of(Values, (section, name))
            yield Setting(
                f"{section}.{name}",
                _shown(name, getattr(model, name), duration=unit.startswith("duration")),
                unit.split(",")[0],
                self.origins.get(f"{section}.{name}", "default"),
                field.description or "",
            )


def load(
    scenario: Scenario | None = None,
    *,
    config: Path | None = None,
    flags: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Settings:
    """The effective settings; one ``ConfigError`` lists every problem of every layer.

    ``flags`` maps ``section.key`` to a value; ``None`` means that the flag was not given.
    """
    layers: dict[tuple[str, str], tuple[object, str]] = {}
    found: list[str] = []
    if scenario is not None:
        for name in scenario.edge.model_fields_set:
            layers["edge", name] = getattr(scenario.edge, name), f"scenario {scenario.name}"
        if scenario.alarms.model_fields_set:
            layers["alarms", "file"] = scenario.alarms_file, f"scenario {scenario.name}"
    nearest = nearest_file(folder or Path.cwd())
    for path in [p for p in (nearest, config) if p is not None]:
        values = read_file(path)
        for section in values.model_fields_set:
            model: BaseModel = getattr(values, section)
            for name in model.model_fields_set:
                layers[section, name] = getattr(model, name), str(path)
    _from_environment(os.environ if env is None else env, layers, found)
    for key, value in (flags or {}).items():
        section, _, name = key.partition(".")
        if value is not None:
            layers[section, name] = value, f"flag {flag_of(key)}"
    return _settled(layers, found)


def read_file(path: Path) -> Values:
    """One ``beilun.toml``; paths in it start where it lies, and it may hold no password."""
    data = tomlfile.load(path)
    for section, secret in SECRETS:
        table = data.get(section)
        if isinstance(table, dict) and secret in table:
            raise ConfigError(
                f"a {secret} does not belong in this file",
                at=f"{path}, {section}.{secret}",
                hint=f"set BEILUN_{section.upper()}__{secret.upper()}, or name a file in"
                f" {section}.{secret}_file",
            )
    values = tomlfile.validate(data, Values, at=str(path))
    base, broker, run, store = path.parent, values.broker, values.run, values.store
    if broker.password_file is not None:
        broker = broker.model_copy(update={"password_file": base / broker.password_file})
    if "directory" in run.model_fields_set:
        run = run.model_copy(update={"directory": base / run.directory})
    if store.token_file is not None:
        store = store.model_copy(update={"token_file": base / store.token_file})
    alarms, webhook = values.alarms, values.webhook
    if tomlfile.is_path(alarms.file):
        alarms = alarms.model_copy(update={"file": str(base / alarms.file)})
    if webhook.secret_file is not None:
        webhook = webhook.model_copy(update={"secret_file": base / webhook.secret_file})
    serve = values.serve
    for name in ("tokens_file", "acks", "certificate", "key"):
        if (file := getattr(serve, name)) is not None:
            serve = serve.model_copy(update={name: base / file})
    read = {"broker": broker, "run": run, "store": store, "alarms": alarms, "webhook": webhook,
            "serve": serve}  # fmt: skip
    return values.model_copy(
        update={name: v for name, v in read.items() if name in values.model_fields_set}
    )


def nearest_file(folder: Path) -> Path | None:
    """The first ``beilun.toml`` from a folder upward."""
    start = folder.absolute()
    found = (parent / FILE for parent in (start, *start.parents))
    return next((path for path in found if path.is_file()), None)


def flag_of(key: str) -> str:
    """How a setting is spelt as a flag of a verb."""
    short = {"broker.url": "--broker", "run.speed": "--speed", "run.directory": "--directory",
             "feed.url": "--summaries", "store.url": "--store", "webhook.url": "--webhook",
             "serve.host": "--host", "serve.port": "--port", "serve.acks": "--acks",
             "serve.tokens_file": "--tokens-file"}  # fmt: skip
    return short.get(key, "--" + key.replace(".", "-").replace("_", "-"))


def variable_of(key: str) -> str:
    """How a setting is spelt in the environment."""
    return "BEILUN_" + key.replace(".", "__").upper()


def _keys() -> Iterator[tuple[str, str]]:
    for section, field in Values.model_fields.items():
        model = type(cast("BaseModel", field.default))
        for name in model.model_fields:
            yield section, name


def _from_environment(
    env: Mapping[str, str],
    layers: dict[tuple[str, str], tuple[object, str]],
    found: list[str],
) -> None:
    variables = {variable_of(f"{section}.{name}"): (section, name) for section, name in _keys()}
    for variable in sorted(env):
        if not variable.startswith("BEILUN_") or variable in RESERVED:
            continue
        if variable not in variables:
            found.append(f"{variable}   unknown setting{tomlfile.guess(variable, variables)}")
            continue
        where = variables[variable]
        text = env[variable]
        value: object = text.split(",") if where in LISTS else text
        layers[where] = value, variable


def _settled(layers: Mapping[tuple[str, str], tuple[object, str]], found: list[str]) -> Settings:
    data: dict[str, dict[str, Any]] = {}
    for (section, name), (value, _) in layers.items():
        data.setdefault(section, {})[name] = value

    def spelt(loc: tomlfile.Loc) -> str:
        origin = layers[str(loc[0]), str(loc[1])][1] if loc[:2] in layers else "settings"
        key = tomlfile.key(loc, data)
        if origin.startswith("flag "):
            return origin.removeprefix("flag ")
        return origin if origin.startswith("BEILUN_") else f"{key} ({origin})"

    try:
        values = Values.model_validate(data)
    except ValidationError as error:
        found = found + tomlfile.problems(error, Values, data, spelt)
    else:
        if not found:
            return Settings(values, {f"{s}.{n}": o for (s, n), (_, o) in layers.items()})
    raise ConfigError(
        tomlfile.count(found),
        at="settings",
        details=found,
        hint="`beilun config show` lists every setting with its value and origin",
    )


def _shown(name: str, value: object, *, duration: bool) -> str:
    if isinstance(value, SecretStr):
        return HIDDEN
    if name == "url" and isinstance(value, str) and "?" in value:
        return value.partition("?")[0] + "?" + HIDDEN  # a webhook's may hold a key
    if name == "url" and isinstance(value, str) and "@" in value:
        scheme, _, rest = value.partition("://")
        return f"{scheme}://{HIDDEN}@{rest.rpartition('@')[2]}"
    if isinstance(value, tuple):
        return ", ".join(cast("tuple[str, ...]", value))
    if duration and isinstance(value, int):
        return format_duration(value)
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)
