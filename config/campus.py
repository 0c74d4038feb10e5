"""What may leave the campus: the addresses inside it, and the summaries allowed out."""

from collections.abc import Collection
from fnmatch import fnmatchcase
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, cast

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from config.alarms import PREFIX
from config.globs import asset_matches
from config.model import Spec
from config.tomlfile import guess
from config.windows import WindowLabel

Network = IPv4Network | IPv6Network


def _as_network(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return ip_network(value)
    except ValueError:
        pass
    try:
        meant = f"; did you mean {ip_network(value, strict=False)}?"
    except ValueError:
        meant = ""
    raise ValueError(f"should be a network like 10.0.0.0/8, got {value!r}{meant}")


_PRIVATE = ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
"""This machine (RFC 1122, RFC 4291), and addresses nobody routes (RFC 1918, RFC 4193)."""


class Summary(Spec):
    """Rows that may leave. All three are required: what is not said stays inside."""

    kpi: str
    """Name of a KPI, or a glob over names (`arm_*`), or of an alarm (`alarm.*`)."""
    asset: str
    """Glob over names (`dcm*`) or, with slashes, over whole paths; `*` is every asset."""
    window: WindowLabel
    """The windows, one of those in use."""

    @field_validator("kpi")
    @classmethod
    def _is_known(cls, kpi: str, info: ValidationInfo) -> str:
        known = cast("dict[str, Collection[str]]", info.context or {}).get("kpis", ())
        if known and not kpi.startswith(PREFIX) and not any(fnmatchcase(n, kpi) for n in known):
            raise ValueError(f"unknown KPI {kpi!r}{guess(kpi, known)}")
        return kpi

    def allows(self, kpi: str, path: str, window: str) -> bool:
        """Whether a row of this KPI, asset path and windows is meant."""
        return (
            window == self.window and fnmatchcase(kpi, self.kpi) and asset_matches(self.asset, path)
        )


class Campus(Spec):
    """The boundary of the MEC; with it in a scenario, bytes that cross it are counted."""

    only: bool = True
    """Whether all that may leave are the summaries below; `false` counts and forbids nothing."""
    networks: Annotated[
        tuple[Annotated[Network, BeforeValidator(_as_network, json_schema_input_type=str)], ...],
        Field(strict=False, min_length=1),
    ] = tuple(map(ip_network, _PRIVATE))
    """Addresses inside; default: this machine and the private ranges. Name your own where a private
    range reaches beyond the campus (a company's VPN)."""
    summary: Annotated[tuple[Summary, ...], Field(strict=False)] = ()
    """Rows of a KPI feed (`--summaries`) that may leave; none: no row does."""

    def allows(self, kpi: str, path: str, window: str) -> bool:
        """Whether a row may leave: where `only` is set, by one of the summaries."""
        return not self.only or any(s.allows(kpi, path, window) for s in self.summary)

    @property
    def spelt(self) -> str:
        """The networks inside, for people."""
        return ", ".join(map(str, self.networks))
