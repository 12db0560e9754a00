"""A Cluster object, with what is sealed beside it, as a member of the data plane."""

import base64
import ipaddress
import json
from urllib.parse import urlsplit

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.gateway.ir import Credential, Member

_HTTPS = 443


def member(cluster: Object, secret: bytes | None) -> Member:
    """`secret` is the write-only part as the registry unsealed it; None reaches the member without a credential.

    Raises ValueError for an object that the registry would not have let in.
    """
    access = meta.section(meta.section(cluster, "spec"), "access")
    endpoint = urlsplit(meta.text(access, "endpoint"))
    if endpoint.scheme != "https" or not endpoint.hostname:
        raise ValueError("the endpoint is no https address")
    return Member(
        name=meta.name(cluster),
        host=endpoint.hostname,
        port=endpoint.port or _HTTPS,
        server_name=meta.text(access, "serverName") or endpoint.hostname,
        ca=_bytes(access.get("caBundle")),
        insecure=access.get("insecure") is True,
        http2=meta.text(meta.section(cluster, "status"), "alpn") == "h2",
        credential=_credential(secret),
    )


def is_literal(member: Member) -> bool:
    """Whether the endpoint is an IP address rather than a name."""
    try:
        ipaddress.ip_address(member.host)
    except ValueError:
        return False
    return True


def _credential(secret: bytes | None) -> Credential:
    if not secret:
        return Credential()
    said: JSON = json.loads(secret)
    held = said if isinstance(said, dict) else {}
    pair = meta.section(held, "x509")
    return Credential(
        certificate=_bytes(pair.get("certificate")),
        private_key=_bytes(pair.get("privateKey")),
        token=meta.text(held, "serviceAccountToken"),
    )


def _bytes(value: JSON) -> bytes:
    return base64.b64decode(value) if isinstance(value, str) else b""
