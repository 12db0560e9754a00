"""Where a member cluster may be: what the gateway connects to is chosen by users, so it must not be led astray.

Judged twice: what is written in an endpoint, when it is written, by `check`; and each address that a connection would
go to, by `judge` in the control plane and by `refused` in the data plane, because a name may lead elsewhere tomorrow.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from onepass.registry import names

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_PATH = re.compile(r"(/[A-Za-z0-9._~:-]+)*/?")
_NUMERIC = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
# RFC 6052 and RFC 8215: the last 32 bits are an IPv4 address.
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
# Metadata services that hand out credentials of the machine, and lie outside the link-local ranges.
_METADATA_ADDRESSES = frozenset(
    map(ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"))
)
_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"})
LOOPBACK = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
# `judge` as a list, for who can only compare: this network, link-local, multicast, reserved and broadcast, unspecified,
# and the forms of IPv6 that stand for an IPv4 address: mapped, NAT64 (RFC 6052, RFC 8215), 6to4, Teredo.
_NEVER: tuple[Network, ...] = (
    *map(IPv4Network, ("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")),
    *map(IPv6Network, ("::/128", "fe80::/10", "ff00::/8")),
    *map(IPv6Network, ("::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")),
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What this gateway and its operator add to the rules that always hold."""

    loopback: bool = False  # members may be on this machine, because the gateway serves only this machine
    port: int = 0  # the gateway's own: on this machine no member is there
    own: frozenset[Address] = frozenset()  # this machine's addresses on its networks; no member is there
    allowed: tuple[Network, ...] = ()  # members are in one of these; empty: anywhere


GetBounds = Callable[[], Bounds]


def anywhere() -> Bounds:
    """The rules that always hold."""
    return Bounds()


def judge(address: str, port: int, bounds: Bounds) -> Sequence[str]:
    """What keeps a connection from being made to an address that a name led to, as sentences."""
    return _address(ip_address(address), port, bounds)


def refused(bounds: Bounds) -> Sequence[tuple[Network, int]]:
    """Where no connection of the data plane may go: networks, each with the one port that is meant or 0 for all."""
    single = [*sorted(_METADATA_ADDRESSES, key=_order), *sorted(bounds.own, key=_order)]
    never: list[Network] = [*_NEVER]
    never += [ip_network(address) for address in single]
    here = bounds.port if bounds.loopback else 0
    return [(network, 0) for network in never] + [(network, here) for network in LOOPBACK]


def _order(address: Address) -> tuple[int, int]:
    return address.version, int(address)


def check(endpoint: str, bounds: Bounds) -> Sequence[str]:
    """What keeps an endpoint from being used, as sentences; empty when nothing does."""
    try:
        url = urlsplit(endpoint)
        name, port = url.hostname or "", url.port
    except ValueError:
        return ["must be a URL such as https://api.example.com:6443"]
    if endpoint != endpoint.strip() or not endpoint.isprintable() or "\\" in endpoint:
        return ["must be a URL without spaces, backslashes and control characters"]
    if not endpoint.startswith("https://"):
        return ["must begin with https://"]
    if "@" in url.netloc:
        return ["must not carry a user name or password"]
    if "?" in endpoint or "#" in endpoint:
        return ["must not carry a query or a fragment"]
    if port == 0 or url.netloc.endswith(":"):
        return ["the port must be between 1 and 65535"]
    if not _PATH.fullmatch(url.path) or any(step in (".", "..") for step in url.path.split("/")):
        return ["the path must be plain segments, without empty ones, dots alone and percent signs"]
    return host(name, port or 443, bounds, bracketed=url.netloc.startswith("["))


def server_name(value: str) -> Sequence[str]:
    """What keeps `value` from being the name in a certificate: a DNS name or an IP address."""
    return () if is_address(value) else names.subdomain(value)


def is_address(host: str) -> bool:
    """Whether a host is an IP address rather than a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def host(host: str, port: int, bounds: Bounds, *, bracketed: bool = False) -> Sequence[str]:
    """What keeps a host, an address or a name, from being connected to, as sentences."""
    if not host:
        return ["must name a host"]
    try:
        address = ip_address(host)
    except ValueError:
        return _name(host, port, bounds, bracketed=bracketed)
    if isinstance(address, IPv6Address) and address.scope_id:
        return ["the address must not have a zone"]
    return _address(address, port, bounds)


def _name(host: str, port: int, bounds: Bounds, *, bracketed: bool) -> Sequence[str]:
    if bracketed:
        return ["must have an IPv6 address between its brackets"]
    # Resolvers read 2130706433, 0x7f.1 and 127.1 as addresses: no such host is a name (WHATWG URL, "ends in a number").
    if _NUMERIC.fullmatch(host.rstrip(".").rpartition(".")[2]):
        return ["an IPv4 address must be four decimal numbers without leading zeros"]
    if host == "localhost" or host.endswith(".localhost"):
        return _here(port, bounds)
    if host in _METADATA_NAMES:
        return ["must not be a metadata service"]
    return [f"the host is no DNS name: {problem}" for problem in names.subdomain(host)]


def _address(address: Address, port: int, bounds: Bounds) -> Sequence[str]:
    inner = _embedded(address)
    if inner is not None:
        return [f"must not be an IPv4 address in IPv6 form; write {inner}"]
    if address.is_loopback:
        return _here(port, bounds)
    if address in _METADATA_ADDRESSES:
        return ["must not be a metadata service"]
    if address.is_link_local:
        return ["must not be a link-local address, where metadata services live"]
    if address.is_unspecified or address.is_multicast or _is_reserved(address):
        return ["must be the address of one machine"]
    if address in bounds.own:
        return ["must not be an address of the gateway's own machine"]
    if bounds.allowed and not any(address in network for network in bounds.allowed):
        return ["is outside of the networks that the operator of the gateway allows members to be in"]
    return []


def _here(port: int, bounds: Bounds) -> Sequence[str]:
    if not bounds.loopback:
        return ["must not be this machine"]
    return ["must not be the gateway itself"] if port == bounds.port else []


def _is_reserved(address: Address) -> bool:
    # 0.0.0.0/8 is "this network", which Linux takes for this machine (RFC 1122, 3.2.1.3).
    return isinstance(address, IPv4Address) and (address.is_reserved or address.packed[0] == 0)


def _embedded(address: Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for, or None."""
    if isinstance(address, IPv4Address):
        return None
    low = int(address)
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    compatible = 1 < low < 2**32  # RFC 4291, 2.5.5.1
    if compatible or any(address in network for network in _NAT64):
        return IPv4Address(low & 0xFFFFFFFF)
    return None
