"""Who may look: tokens in a file, roles, sessions of browsers, and what a customer gets to see.

    operator   sees everything, and acknowledges alarms
    viewer     sees everything
    customer   sees KPIs, states and signals of its assets while its orders run there; nothing else

A token is shown once, when it is made; the file keeps a salted scrypt of it. Without such a file
nobody signs in: then the page is served on this host only, and everybody there is an operator.

    Authorization: Bearer NAME.SECRET ─┐
                                       ├─► who? ─► viewer ─► the reader, narrowed to what it may see
    cookie of a signed-in browser ─────┘

Everything is denied that is not allowed here: ``Narrowed`` answers each question a ``Reader`` does,
and those that concern others with nothing. The file is read again when it changes: whose entry is
gone or is another one is signed out.
"""

import hashlib
import hmac
import logging
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from beilun.layout import Layout
from beilun.serving.reading import (
    AlarmSpan,
    AssetInfo,
    CellSpan,
    DelayBin,
    FaultSpan,
    OrderAt,
    Place,
    Reader,
    Refused,
    Sink,
    Stage,
    StateSpan,
)
from config import tomlfile
from config.alarms import PREFIX, Rule
from config.errors import ConfigError
from config.globs import asset_matches
from config.scenario import Expect
from config.windows import Window
from edge.rows import ALL, ORDER_NUMBER, Row
from ingest.messages import Asset, Batch, Birth, Floats, Times

Role = Literal["operator", "viewer", "customer"]

SCRYPT = {"n": 1 << 14, "r": 8, "p": 1, "dklen": 32}
"""16 MiB and some 50 ms a guess (RFC 7914); a token has 256 bits of its own anyway."""
SESSION_S = 12 * 3600.0
"""How long a browser stays signed in: a shift, and what it runs over."""
SESSIONS = 10_000
"""The most browsers signed in; of more the oldest has to sign in anew."""
FAILURES = 10
"""So many failed attempts from one address..."""
FAILURES_S = 60.0
"""...in this time, and it has to wait."""
LOOK_S = 1.0
"""How often the tokens file is looked at, at most."""
KNOWN = 1_000
"""Tokens that are remembered as good, by a keyed hash, so that not every request costs a scrypt."""

_log = logging.getLogger(__name__)
_MODEL = ConfigDict(extra="forbid", frozen=True, strict=True)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{32,64}$")]


class Token(BaseModel):
    """One entry of a tokens file."""

    model_config = _MODEL

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    role: Role
    salt: Hex
    scrypt: Hex
    assets: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Of a customer: globs over its assets, as in scenarios."""
    orders: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Of a customer: globs over the numbers of its orders."""

    @model_validator(mode="after")
    def _limits_customers(self) -> Self:
        limited = bool(self.assets), bool(self.orders)
        if self.role == "customer" and limited != (True, True):
            raise ValueError(f"{self.name}: a customer needs assets and orders")
        if self.role != "customer" and limited != (False, False):
            raise ValueError(f"{self.name}: assets and orders are for customers")
        return self

    def is_of(self, secret: str) -> bool:
        """Whether the secret is the one this was made with."""
        found = _scrypt(secret, bytes.fromhex(self.salt))
        return hmac.compare_digest(found, bytes.fromhex(self.scrypt))


class Tokens(BaseModel):
    """A tokens file."""

    model_config = _MODEL

    token: Annotated[tuple[Token, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        names = [token.name for token in self.token]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two tokens are called {', '.join(twice)}")
        return self


def _scrypt(secret: str, salt: bytes) -> bytes:
    return hashlib.scrypt(secret.encode(), salt=salt, maxmem=64 << 20, **SCRYPT)


def read_tokens(path: Path) -> tuple[Token, ...]:
    """The tokens of a file; raises ``ConfigError`` with every problem."""
    return tomlfile.read(path, Tokens).token


def make_token(
    path: Path, name: str, role: Role, assets: Sequence[str] = (), orders: Sequence[str] = ()
) -> str:
    """Add a token to a file, which is made where there is none, and return what its owner needs: it
    cannot be had again. Raises ``ConfigError`` where the name is taken or something is missing."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be a name", hint="letters, digits, dash and underscore, at most 64"
        )
    known = read_tokens(path) if path.exists() else ()
    if any(token.name == name for token in known):
        raise ConfigError(
            f"there is a token called {name}", at=str(path), hint="take its entry out of the file"
        )
    secret, salt = secrets.token_urlsafe(32), secrets.token_bytes(16)
    entry = {
        "name": name, "role": role, "salt": salt.hex(), "scrypt": _scrypt(secret, salt).hex(),
        "assets": list(assets), "orders": list(orders),
    }  # fmt: skip
    tomlfile.validate({"token": [entry]}, Tokens, at=f"token {name}")
    lines = "".join(f"{key} = {_toml(value)}\n" for key, value in entry.items() if value)
    old = path.read_text() if path.exists() else "# Made by `beilun serve token`.\n"
    new = path.with_name(path.name + ".new")
    new.touch(mode=0o600)
    new.write_text(f"{old}\n[[token]]\n{lines}")
    new.replace(path)
    return f"{name}.{secret}"


def _toml(value: str | Sequence[str]) -> str:
    if not isinstance(value, str):
        return f"[{', '.join(map(_toml, value))}]"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# who --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody who may look, and at what."""

    name: str
    role: Role
    assets: tuple[str, ...] = ()
    orders: tuple[str, ...] = ()
    entry: str = field(default="", repr=False, compare=False)
    """Which entry of the tokens file let them in: the hash there."""

    @property
    def limited(self) -> bool:
        """Whether there is anything it may not see."""
        return self.role == "customer"

    def sees(self, asset: Asset) -> bool:
        """Whether anything of an asset or group may be shown. Of a customer's assets that is only
        so while its order runs there: ask a reader ``narrowed`` for it."""
        if not self.limited:
            return True
        return ALL not in asset and any(asset_matches(g, str(asset)) for g in self.assets)

    def owns(self, order: int) -> bool:
        """Whether an order may be shown."""
        return not self.limited or any(fnmatchcase(str(order), glob) for glob in self.orders)

    def narrowed(self, reader: Reader) -> Reader:
        """The recording as this viewer may see it."""
        return Narrowed(reader, self) if self.limited else reader


ANYBODY = Viewer("anybody", "operator")
"""Who looks where nobody has to sign in."""


class TooMany(Exception):
    """Too many failed attempts; ``wait_s`` until the next is looked at."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"too many failed attempts; wait {wait_s:.0f} s")
        self.wait_s = wait_s


class Access:
    """Tokens and sessions of one server, for any number of threads.

    ``now_s`` is a clock that only goes forward. Of a ``file`` what it says now holds, at most
    ``LOOK_S`` late: nobody gets in by one that is gone, and one that somebody left half written
    changes nothing until it can be read.
    """

    def __init__(
        self,
        tokens: Sequence[Token] | None,
        *,
        file: Path | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """``None``: nobody has to sign in."""
        self._tokens = None if tokens is None else {token.name: token for token in tokens}
        self._file = file
        self._read: tuple[int, int, int] | None = _stamp(file)
        self._looked_s = now_s()
        self._now_s = now_s
        self._lock = threading.Lock()
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, Viewer] = OrderedDict()
        self._sessions: OrderedDict[bytes, tuple[float, Viewer]] = OrderedDict()
        self._failed: dict[str, list[float]] = {}
        self._nobody = Token(
            name="nobody", role="viewer", salt=secrets.token_hex(16), scrypt=secrets.token_hex(32)
        )

    @classmethod
    def of(cls, file: Path) -> Self:
        """By a tokens file; raises ``ConfigError`` with every problem."""
        made = cls((), file=file)  # its age is noted before it is read: no change is missed
        made._tokens = {token.name: token for token in read_tokens(file)}
        return made

    @property
    def open(self) -> bool:
        """Whether nobody has to sign in."""
        return self._tokens is None

    def entitled(self, viewer: Viewer) -> bool:
        """Whether somebody who was let in would be let in again: the entry is there and is still
        the same."""
        if self._tokens is None:
            return True
        self._look()
        found = self._tokens.get(viewer.name)
        return found is not None and _viewer(found) == viewer and found.scrypt == viewer.entry

    def _look(self) -> None:
        """Read the tokens file again, if it is another one."""
        with self._lock:
            if self._file is None or self._now_s() < self._looked_s + LOOK_S:
                return
            self._looked_s = self._now_s()
            stamp = _stamp(self._file)
            if stamp == self._read:
                return
            self._read = stamp
            try:
                found = () if stamp is None else read_tokens(self._file)
            except ConfigError as error:
                _log.error("the tokens stay as they were: %s", error)
                return
            self._tokens = {token.name: token for token in found}
            _log.warning("tokens read again: %d in %s", len(found), self._file)

    def check(self, token: str, address: str) -> Viewer | None:
        """Whose token it is; raises ``TooMany`` for an address that failed too often. Takes some
        50 ms for one that is not known yet, be its name right or wrong."""
        mark = self._mark(token)
        with self._lock:
            known = self._known.get(mark)
        if known is not None and self.entitled(known):
            return known
        self._look()
        with self._lock:
            mine = self._count(address)
        name, _, secret = token.partition(".")
        found = (self._tokens or {}).get(name)
        good = (found or self._nobody).is_of(secret) and found is not None
        with self._lock:
            if not good or found is None:
                return None
            self._failed[address].remove(mine)
            viewer = _viewer(found)
            self._known[mark] = viewer
            if len(self._known) > KNOWN:
                self._known.popitem(last=False)
            return viewer

    def _count(self, address: str) -> float:
        """Count an attempt as failed, until it turns out to be good: many at once are many."""
        now_s = self._now_s()
        for who in list(self._failed):
            self._failed[who] = [at for at in self._failed[who] if at > now_s - FAILURES_S]
            if not self._failed[who]:
                del self._failed[who]
        failed = self._failed.setdefault(address, [])
        if len(failed) >= FAILURES:
            raise TooMany(failed[0] + FAILURES_S - now_s)
        failed.append(now_s)
        return now_s

    def sign_in(self, viewer: Viewer) -> str:
        """A new session; the word is for the cookie and is kept nowhere."""
        word = secrets.token_urlsafe(32)
        with self._lock:
            self._sessions[self._mark(word)] = self._now_s() + SESSION_S, viewer
            if len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)
        return word

    def session(self, word: str) -> Viewer | None:
        """Whose session it is, while it lasts."""
        mark = self._mark(word)
        with self._lock:
            found = self._sessions.get(mark)
        if found is None:
            return None
        if found[0] < self._now_s() or not self.entitled(found[1]):
            self.sign_out(word)
            return None
        return found[1]

    def sign_out(self, word: str) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(self._mark(word), None)

    def _mark(self, word: str) -> bytes:
        """What is kept of a secret: nobody who reads this process's memory later can use it."""
        return hmac.digest(self._key, word.encode(), "sha256")


def _viewer(token: Token) -> Viewer:
    return Viewer(token.name, token.role, token.assets, token.orders, token.scrypt)


def _stamp(file: Path | None) -> tuple[int, int, int] | None:
    """What changes when a file does; ``None``: it is not there."""
    try:
        found = None if file is None else file.stat()
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)


# what a customer sees ---------------------------------------------------------------------------


class Narrowed(Reader):
    """A recording as a customer may see it: its own assets, while its own orders run there.

    A window is shown if it lies within one of its orders: one that holds another customer's minutes
    as well would tell of them.
    """

    def __init__(self, reader: Reader, viewer: Viewer) -> None:
        self._whole = reader
        self._viewer = viewer
        self.path = reader.path
        self.name = reader.name
        self._orders: dict[Asset, tuple[int, list[OrderAt]]] = {}

    def close(self) -> None:
        """The whole reader belongs to somebody else."""

    # header -------------------------------------------------------------------------------------

    @property
    def scenario(self) -> str:
        return ""

    @property
    def seed(self) -> int | None:
        return None

    @property
    def simulated(self) -> bool:
        return self._whole.simulated

    @property
    def site(self) -> str:
        return self._whole.site

    @property
    def windows(self) -> tuple[str, ...]:
        return self._whole.windows

    def kinds(self) -> tuple[Window, ...]:
        return self._whole.kinds()

    @property
    def zone(self):  # type: ignore[no-untyped-def]
        return self._whole.zone

    @property
    def start_ns(self) -> int:
        return self._whole.start_ns

    def end_ns(self) -> int:
        return self._whole.end_ns()

    def newest_ns(self) -> int:
        return self._whole.newest_ns()

    def live(self) -> bool:
        return self._whole.live()

    def version(self) -> int:
        return self._whole.version()

    def layout(self) -> Layout | None:
        """Its own stations, and nothing around them."""
        whole = self._whole.layout()
        if whole is None:
            return None
        own = {info.asset for info in self.assets()}
        names = {asset.name for asset in own}
        areas = {asset.area for asset in own}
        return Layout(
            stations={name: at for name, at in whole.stations.items() if name in names},
            areas={name: at for name, at in whole.areas.items() if name in areas},
            utc_offset=whole.utc_offset,
            products={
                number: product
                for number, product in whole.products.items()
                if self._viewer.owns(int(number))
            },
        )

    def faults(self) -> list[FaultSpan]:
        return []

    def expects(self) -> list[Expect]:
        return []

    # assets and rows ----------------------------------------------------------------------------

    def assets(self) -> list[AssetInfo]:
        return [info for info in self._whole.assets() if self._viewer.sees(info.asset)]

    def groups(self) -> list[Asset]:
        return []

    def kpi_names(self, asset: Asset | None = None) -> list[str]:
        own = [info.asset for info in self.assets()] if asset is None else [asset]
        names = {n for a in own if self._viewer.sees(a) for n in self._whole.kpi_names(a)}
        return sorted(names)

    def last(self, kpis: Collection[str], window: str, t_ns: int, asset: str = "*") -> list[Row]:
        return self._shown(self._whole.last(kpis, window, t_ns, asset))

    def history(
        self, asset: Asset, kpi: str, window: str, from_ns: int, to_ns: int, most: int = 2_000
    ) -> list[Row]:
        if not self._viewer.sees(asset):
            return []
        return self._shown(self._whole.history(asset, kpi, window, from_ns, to_ns, most))

    def query(
        self,
        kpis: Collection[str],
        asset: str,
        window: str,
        from_ns: int,
        to_ns: int,
        limit: int,
        after: tuple[int, int] = (0, 0),
        sees: Callable[[Asset], bool] = lambda _: True,
    ) -> tuple[list[Row], tuple[int, int] | None]:
        rows: list[Row] = []
        following: tuple[int, int] | None = after
        while following is not None and len(rows) < limit:
            found, following = self._whole.query(
                kpis, asset, window, from_ns, to_ns, limit - len(rows), following,
                lambda one: self._viewer.sees(one) and sees(one),
            )  # fmt: skip
            rows += self._shown(found)
        return rows, following

    def truth(
        self, asset: Asset, kpi: str, window_start_ns: int, window_length_ns: int
    ) -> float | None:
        if not self.shows(asset, window_start_ns, window_start_ns + window_length_ns):
            return None
        return self._whole.truth(asset, kpi, window_start_ns, window_length_ns)

    def truth_history(
        self, asset: Asset, kpi: str, window: str, from_ns: int, to_ns: int
    ) -> list[tuple[int, int, float | None]]:
        if not self._viewer.sees(asset):
            return []
        found = self._whole.truth_history(asset, kpi, window, from_ns, to_ns)
        return [each for each in found if self.shows(asset, each[0], each[0] + each[1])]

    def changes(self, after: int, limit: int = 1_000) -> list[tuple[int, Row]]:
        found: list[tuple[int, Row]] = []
        while len(found) < limit:
            some = self._whole.changes(after, limit)
            if not some:
                break
            after = some[-1][0]
            found += [(number, row) for number, row in some if self.allows(row)]
        return found[:limit]

    def change_span(self) -> tuple[int, int]:
        return self._whole.change_span()

    def alarms(self, t_ns: int, since_ns: int) -> list[AlarmSpan]:
        return []

    def alarm_rules(self) -> dict[str, Rule]:
        return {}

    # what devices said --------------------------------------------------------------------------

    def states(self, asset: Asset, from_ns: int, to_ns: int) -> list[StateSpan]:
        out: list[StateSpan] = []
        for first_ns, last_ns in self._while_own(asset, from_ns, to_ns):
            out += self._whole.states(asset, first_ns, last_ns)
        return out

    def signals(
        self, asset: Asset, channels: Sequence[str], from_ns: int, to_ns: int, most: int = 4_000
    ) -> dict[str, tuple[Times, Floats]]:
        import numpy as np

        parts: dict[str, list[tuple[Times, Floats]]] = {}
        for first_ns, last_ns in self._while_own(asset, from_ns, to_ns):
            found = self._whole.signals(asset, channels, first_ns, last_ns - 1, most)
            for name, part in found.items():
                parts.setdefault(name, []).append(part)
        return {
            name: (np.concatenate([t for t, _ in some]), np.concatenate([v for _, v in some]))
            for name, some in parts.items()
        }

    def told(self, asset: Asset, from_ns: int, to_ns: int) -> tuple[Birth | None, list[Batch]]:
        born, told = (
            self._whole.told(asset, from_ns, to_ns) if self._viewer.sees(asset) else (None, [])
        )
        runs = self._while_own(asset, from_ns, to_ns)
        return born, [
            batch
            for batch in told
            if batch.stream != "orders"
            and any(a <= int(batch.t_ns[0]) and int(batch.t_ns[-1]) < b for a, b in runs)
        ]

    def delays(self, asset: Asset, from_ns: int, to_ns: int) -> list[DelayBin]:
        return []

    def positions(self, t_ns: int, trail_s: float = 60) -> dict[Asset, Place]:
        return {}

    def orders(self, t_ns: int) -> dict[Asset, OrderAt]:
        found = self._whole.orders(t_ns)
        return {
            asset: order
            for asset, order in found.items()
            if self._viewer.sees(asset) and self._viewer.owns(order.number)
        }

    def order_spans(self, asset: Asset) -> list[OrderAt]:
        if not self._viewer.sees(asset):
            return []
        version = self._whole.version()
        known = self._orders.get(asset)
        if known is None or known[0] != version:
            spans = self._whole.order_spans(asset)
            known = version, [order for order in spans if self._viewer.owns(order.number)]
            self._orders[asset] = known
        return known[1]

    # health -------------------------------------------------------------------------------------

    def ledger(self) -> dict[str, dict[str, int]]:
        return {}

    def rejects(self, limit: int = 100) -> list[Refused]:
        return []

    def sinks(self, to: Literal["", "webhook"] = "") -> Sink | None:
        return None

    def hops(self) -> dict[str, dict[str, float]]:
        return {}

    def camped(self, from_ns: int, to_ns: int) -> dict[str, list[CellSpan]]:
        return {}

    def stages(self) -> list[Stage]:
        return []

    # inside -------------------------------------------------------------------------------------

    def shows(self, asset: Asset, start_ns: int, end_ns: int) -> bool:
        """Whether a stretch of time of an asset may be shown: as a whole, or not at all."""
        return any(
            order.since_ns <= start_ns and (order.until_ns is None or end_ns <= order.until_ns)
            for order in self.order_spans(asset)
        )

    def allows(self, row: Row) -> bool:
        """Whether a row may be shown."""
        if row.kpi == ORDER_NUMBER or row.kpi.startswith(PREFIX):
            return False
        return self.shows(row.asset, *row.span)

    def _shown(self, rows: Sequence[Row]) -> list[Row]:
        return [row for row in rows if self.allows(row)]

    def _while_own(self, asset: Asset, from_ns: int, to_ns: int) -> list[tuple[int, int]]:
        """The parts of a stretch of time in which its orders run on an asset."""
        out: list[tuple[int, int]] = []
        for order in self.order_spans(asset):
            first_ns = max(from_ns, order.since_ns)
            last_ns = to_ns if order.until_ns is None else min(to_ns, order.until_ns)
            if first_ns < last_ns:
                out.append((first_ns, last_ns))
        return out
