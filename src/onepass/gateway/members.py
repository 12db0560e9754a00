"""A Cluster object, with what is sealed beside it, as a member of the data plane."""

import base64
import ipaddress
import json
from urllib.parse import unquote, urlsplit

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.gateway.ir import Credential, Member, Place, Proxy

_HTTPS = 443
_PROXY_PORTS = {"http": 80, "https": 443}


def member(cluster: Object, secret: bytes | None) -> Member:
    """`secret` is the write-only part as the registry unsealed it; None reaches the member without a credential.

    Raises ValueError for an object that the registry would not have let in.
    """
    access = meta.section(meta.section(cluster, "spec"), "access")
    endpoint = meta.text(access, "endpoint")
    first = _place(endpoint)
    held = _held(secret)
    return Member(
        name=meta.name(cluster),
        host=first[0],
        port=first[1],
        server_name=meta.text(access, "serverName") or first[0],
        ca=_bytes(access.get("caBundle")),
        insecure=access.get("insecure") is True,
        http2=meta.text(meta.section(cluster, "status"), "alpn") == "h2",
        credential=_credential(held),
        others=_others(first, access.get("endpoints")),
        health=urlsplit(endpoint).path.rstrip("/") + "/readyz",
        proxy=proxy(meta.text(access, "proxyURL"), meta.text(held, "proxyPassword")),
    )


def is_address(host: str) -> bool:
    """Whether a host is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def proxy(url: str, password: str) -> Proxy | None:
    """What a proxyURL says; its password, which was taken out of it, comes beside it. Raises ValueError."""
    if not url:
        return None
    parts = urlsplit(url)
    if parts.scheme not in _PROXY_PORTS or not parts.hostname:
        raise ValueError("the proxy is no http or https address")
    tls = parts.scheme == "https"
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(password)}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()  # RFC 7617
    return Proxy(parts.hostname, parts.port or _PROXY_PORTS[parts.scheme], tls, authorization)


def _place(url: str) -> Place:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise ValueError("the endpoint is no https address")
    return parts.hostname, parts.port or _HTTPS


def _others(first: Place, urls: JSON) -> tuple[Place, ...]:
    found = [_place(url) for url in urls if isinstance(url, str)] if isinstance(urls, list) else []
    return tuple(place for place in dict.fromkeys(found) if place != first)


def _held(secret: bytes | None) -> Object:
    said: JSON = json.loads(secret) if secret else None
    return said if isinstance(said, dict) else {}


def _credential(held: Object) -> Credential:
    pair = meta.section(held, "x509")
    return Credential(
        certificate=_bytes(pair.get("certificate")),
        private_key=_bytes(pair.get("privateKey")),
        token=meta.text(held, "serviceAccountToken"),
    )


def _bytes(value: JSON) -> bytes:
    return base64.b64decode(value) if isinstance(value, str) else b""
