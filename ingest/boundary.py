"""The campus boundary: who a connection really talks to, and how many bytes crossed to whom.

Theory of operation
===================

                      inside: campus.networks        │ outside
    simulate ─telemetry, control─► broker            │
                                     │               │
    edge ◄───────────────────────────┘               │
    edge ───────────────── summary (KPI feed) ───────┼──► broker of the group
    edge ── summary (all rows) ─► store              │
    edge ── summary (alarms) ───► webhook            │

A process has one boundary. It is not handed from function to function but stands around a block
(``guarding``), and every ``Session`` made in the block takes part, and every store and webhook
(``edge.sinks.counted``): a connection that nobody told of the boundary would be a hole in it.

- **Who.** The address is the peer's of the socket that was really opened, never the name that was
  asked for; every new connection is asked again, since a name may lead elsewhere by then.
- **How many.** Counted where a message is handed to MQTT: topic and payload, once for every time it
  is written (a message that is sent again leaves again). Not counted: MQTT's own packets (connect,
  acknowledgements, pings), headers of MQTT, TCP and IP, and what the broker itself passes on, as a
  bridge does. What goes to a store or a webhook is counted as it is handed to the socket, with its
  headers.
"""

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from typing import Literal, NamedTuple, cast, get_args

from config.campus import Campus
from config.errors import ConfigError

Traffic = Literal["telemetry", "control", "summary"]
"""``telemetry``: everything devices say; ``control``: progress, confirms, probes; ``summary``: rows
of a KPI feed, or to a store or a webhook."""

Destination = Literal["broker", "store", "webhook"]
_CARRIES: dict[Destination, tuple[str, str]] = {
    "broker": ("telemetry", "a broker inside with --broker"),
    "store": ("a row that is not among its summaries", "a store inside with --store"),
    "webhook": ("an alarm by webhook", "a webhook inside in webhook.url"),
}
"""What it would get that may not leave, and where to name another."""

TRAFFIC: tuple[Traffic, ...] = get_args(Traffic)


class OutsideError(ConfigError):
    """A connection would lead out of a campus that nothing may leave.

    It exits 3, not 1: it is raised before a byte was written, so the promise held. Two settings
    contradict each other, the broker's address and the campus's networks. Exit 1 is kept for bytes
    that did leave.
    """


@dataclass(slots=True)
class Peer:
    """One address at the far end, and the bytes that were handed over to be sent there."""

    address: str
    inside: bool
    sent_bytes: dict[Traffic, int] = field(default_factory=lambda: dict.fromkeys(TRAFFIC, 0))

    def count(self, traffic: Traffic, topic: str, payload: bytes) -> None:
        self.sent_bytes[traffic] += len(topic.encode()) + len(payload)


class Sent(NamedTuple):
    """What one half of a run sent to one address, in bytes."""

    half: str
    address: str
    inside: bool
    sent_bytes: Mapping[Traffic, int]


class Boundary:
    """Says of an address whether it is inside, refuses where that matters, and counts."""

    def __init__(self, campus: Campus) -> None:
        self._campus = campus
        self._peers: dict[str, Peer] = {}

    def inside(self, address: str) -> bool:
        """Whether an address, as a socket spells it, is in one of the campus's networks."""
        found = ip_address(address)
        if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped  # what a socket for both families makes of an IPv4 peer
        return any(found in network for network in self._campus.networks)

    def admit(
        self,
        address: str,
        where: str,
        *,
        may_leave: bool,
        kind: Destination = "broker",
    ) -> Peer:
        """The peer's account; raises ``OutsideError`` where nothing may be sent there.

        ``may_leave`` is for connections that carry nothing but the summaries that a campus names.
        ``where`` is for people.
        """
        peer = self._peers.get(address)
        if peer is None:
            peer = self._peers[address] = Peer(address, self.inside(address))
        if self._campus.only and not peer.inside and not may_leave:
            what, other = _CARRIES[kind]
            raise OutsideError(
                f"{what} may not leave the campus, and {address} is outside ({self._campus.spelt})",
                at=f"{kind} {where}",
                hint=f"name {other}; or, if that one is inside, add its network to networks in the"
                " scenario's [campus]",
            )
        return peer

    def entries(self) -> dict[str, int]:
        """The counts as entries of a ledger, in bytes; ``sent`` reads them back."""
        return {
            f"{'inside' if peer.inside else 'outside'} {traffic} {peer.address}": count
            for peer in self._peers.values()
            for traffic, count in peer.sent_bytes.items()
        }


def side(half: str) -> str:
    """The side of a recording's ledger that holds the bytes of one half of a run."""
    return f"bytes:{half}"


def sent(half: str, entries: Mapping[str, int]) -> list[Sent]:
    """What the entries of one half say, address by address."""
    peers: dict[tuple[str, str], dict[Traffic, int]] = {}
    for entry, count in entries.items():
        where, traffic, address = entry.split(" ", 2)
        peers.setdefault((where, address), {})[cast("Traffic", traffic)] = count
    return [
        Sent(half, address, where == "inside", counts)
        for (where, address), counts in sorted(peers.items())
    ]


def outside(counts: Iterable[Sent], traffic: Traffic) -> int:
    """Bytes of a kind that left, over all halves."""
    return sum(each.sent_bytes[traffic] for each in counts if not each.inside)


_around: ContextVar[Boundary | None] = ContextVar("boundary", default=None)


@contextmanager
def guarding(campus: Campus | None) -> Generator[Boundary | None, None, None]:
    """Put a boundary around every connection made in the block; none without a campus."""
    boundary = None if campus is None else Boundary(campus)
    token = _around.set(boundary)
    try:
        yield boundary
    finally:
        _around.reset(token)


def around() -> Boundary | None:
    """The boundary of the block we are in."""
    return _around.get()
