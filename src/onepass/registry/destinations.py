"""Where a member cluster may be: what the gateway connects to is chosen by users, so it must not be led astray.

Only the written address is judged here; a name is judged again where it is resolved.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from onepass.registry import names

_PATH = re.compile(r"(/[A-Za-z0-9._~:-]+)*/?")
_NUMERIC = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
# Metadata services that hand out credentials of the machine, and lie outside the link-local ranges.
_METADATA_ADDRESSES = frozenset(
    map(ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"))
)
_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"})


def check(endpoint: str, *, allow_loopback: bool) -> Sequence[str]:
    """What keeps an endpoint from being used, as sentences; empty when nothing does."""
    try:
        url = urlsplit(endpoint)
        host, port = url.hostname or "", url.port
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
    return _host(host, bracketed=url.netloc.startswith("["), allow_loopback=allow_loopback)


def server_name(value: str) -> Sequence[str]:
    """What keeps `value` from being the name in a certificate: a DNS name or an IP address."""
    try:
        ip_address(value)
    except ValueError:
        return names.subdomain(value)
    return ()


def _host(host: str, *, bracketed: bool, allow_loopback: bool) -> Sequence[str]:
    if not host:
        return ["must name a host"]
    try:
        address = ip_address(host)
    except ValueError:
        return _name(host, bracketed=bracketed, allow_loopback=allow_loopback)
    if isinstance(address, IPv6Address) and address.scope_id:
        return ["the address must not have a zone"]
    return _address(address, allow_loopback=allow_loopback)


def _name(host: str, *, bracketed: bool, allow_loopback: bool) -> Sequence[str]:
    if bracketed:
        return ["must have an IPv6 address between its brackets"]
    # Resolvers read 2130706433, 0x7f.1 and 127.1 as addresses: no such host is a name (WHATWG URL, "ends in a number").
    if _NUMERIC.fullmatch(host.rstrip(".").rpartition(".")[2]):
        return ["an IPv4 address must be four decimal numbers without leading zeros"]
    if host == "localhost" or host.endswith(".localhost"):
        return [] if allow_loopback else ["must not be this machine"]
    if host in _METADATA_NAMES:
        return ["must not be a metadata service"]
    return [f"the host is no DNS name: {problem}" for problem in names.subdomain(host)]


def _address(address: IPv4Address | IPv6Address, *, allow_loopback: bool) -> Sequence[str]:
    inner = _embedded(address)
    if inner is not None:
        return [f"must not be an IPv4 address in IPv6 form; write {inner}"]
    if address.is_loopback:
        return [] if allow_loopback else ["must not be this machine"]
    if address in _METADATA_ADDRESSES:
        return ["must not be a metadata service"]
    if address.is_link_local:
        return ["must not be a link-local address, where metadata services live"]
    if address.is_unspecified or address.is_multicast or _is_reserved(address):
        return ["must be the address of one machine"]
    return []


def _is_reserved(address: IPv4Address | IPv6Address) -> bool:
    # 0.0.0.0/8 is "this network", which Linux takes for this machine (RFC 1122, 3.2.1.3).
    return isinstance(address, IPv4Address) and (address.is_reserved or address.packed[0] == 0)


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | None:
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
    if address in _NAT64 or (1 < low < 2**32):  # the second: "IPv4-compatible", RFC 4291, 2.5.5.1
        return IPv4Address(low & 0xFFFFFFFF)
    return None
