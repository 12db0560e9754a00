"""proxyURL: what it may be, and its password, which is write-only.

A read shows the address with `MASK` in the password's place, and a write that carries that back unchanged keeps the
stored one. No fingerprint is shown: a password, unlike a token, could be guessed from it.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

from onepass.registry import destinations
from onepass.registry.destinations import Bounds

MASK = "xxxxx"
_PORTS = {"http": 80, "https": 443}
_SOCKS = ("socks", "socks4", "socks4a", "socks5", "socks5h")
_LIMIT = 1024
_SHAPE = "must be a URL such as http://proxy.example.com:3128"


def parted(url: str) -> tuple[str, str | None]:
    """The URL as it may be shown, and its password as written; None without one. Raises ValueError, without the value.

    Whatever stands before an @ and cannot be told apart is refused, because it may be a password.
    """
    if "@" not in url:
        return url, None
    scheme, separator, rest = url.partition("://")
    userinfo, _, host = rest.rpartition("@")
    user, colon, password = userinfo.partition(":")
    plain = separator and user and all(c not in userinfo for c in "/?#@\\[]") and userinfo.isprintable()
    if not plain or not userinfo.isascii() or " " in userinfo or len(url) > _LIMIT:
        raise ValueError(f"{_SHAPE}; user name and password stand before the @, with percent signs for what is special")
    return (f"{scheme}://{user}:{MASK}@{host}", password) if colon else (url, None)


def check(url: str, hosts: Sequence[str], bounds: Bounds) -> Sequence[str]:
    """What keeps a proxy (as `parted` shows it) from being the way to `hosts`, as sentences."""
    scheme = url.partition("://")[0].lower()
    if scheme in _SOCKS:
        return [
            "SOCKS is not spoken by Envoy, which carries all requests; name a proxy that takes HTTP CONNECT, such as "
            "http://proxy.example.com:3128 (a small one, such as privoxy, can stand before a SOCKS server)"
        ]
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return [_SHAPE]
    if url != url.strip() or not url.isprintable() or "\\" in url or not url.startswith(("http://", "https://")):
        return [_SHAPE]
    netloc = parts.netloc.rpartition("@")[2]
    if parts.path.strip("/") or "?" in url or "#" in url:
        return ["must not carry a path, a query or a fragment"]
    if port == 0 or netloc.endswith(":"):
        return ["the port must be between 1 and 65535"]
    wrong = destinations.host(host, port or _PORTS[scheme], bounds, bracketed=netloc.startswith("["))
    if not wrong and bounds.allowed and not all(map(destinations.is_address, hosts)):
        return [
            "behind a proxy the endpoint must be an IP address, because the operator of the gateway allows members in "
            "certain networks alone, and where a name leads is for the proxy to say"
        ]
    return wrong
