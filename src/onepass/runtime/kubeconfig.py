"""Kubeconfigs that OnePass writes: one context for the gateway and one for each member cluster."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

import yaml

from onepass.api import yamltext
from onepass.api.meta import JSON, Object

PROXY = "/apis/cluster.karpor.io/v1beta1/clusters/{}/proxy"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a kubeconfig needs to reach the gateway as one user: URLs and PEM."""

    server: str
    ca: bytes
    user: str
    certificate: bytes
    private_key: bytes = field(repr=False)


def encoded(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


def _place(url: str, authority: str) -> Object:
    return {"server": url, "certificate-authority-data": authority}


def _proof(entry: Entry) -> Object:
    return {
        "client-certificate-data": encoded(entry.certificate),
        "client-key-data": encoded(entry.private_key),
    }


def document(entry: Entry, clusters: Sequence[str], *, current: str = "", gateway: str = "onepass") -> Object:
    """A kubeconfig whose contexts are named `gateway` and as the clusters; `current` falls back to the first one.

    A cluster that is called as the gateway has its context with `-member` behind.
    """
    names = {name: f"{name}-member" if name == gateway else name for name in clusters}
    places = {gateway: entry.server} | {names[name]: entry.server + PROXY.format(name) for name in clusters}
    user, authority = f"{entry.user}@{gateway}", encoded(entry.ca)
    listed: list[JSON] = [{"name": name, "cluster": _place(url, authority)} for name, url in places.items()]
    contexts: list[JSON] = [{"name": name, "context": {"cluster": name, "user": user}} for name in places]
    first = names[clusters[0]] if clusters else gateway
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": listed,
        "contexts": contexts,
        "users": [{"name": user, "user": _proof(entry)}],
        "current-context": current if current in places else first,
    }


def direct(name: str, entry: Entry) -> Object:
    """A kubeconfig that leads to one API server as it is, by a context `name`."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": _place(entry.server, encoded(entry.ca))}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "users": [{"name": name, "user": _proof(entry)}],
        "current-context": name,
    }


def dump(config: JSON) -> bytes:
    return yamltext.dump(config, allow_unicode=False).encode()


class Writer:
    """Dumps kubeconfigs that follow one another, as `dump` does, and writes anew only the entries that are new: with
    thousands of clusters the whole takes YAML most of a second."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], tuple[JSON, bytes]] = {}  # by list and name: what was written, and how

    def dump(self, config: Object) -> bytes:
        known, self._entries = self._entries, {}
        parts = []
        for key, value in config.items():
            if key not in ("clusters", "contexts") or not isinstance(value, list) or not value:
                parts.append(dump({key: value}))
                continue
            parts.append(f"{key}:\n".encode())
            for entry in value:
                at = key, str(entry["name"]) if isinstance(entry, dict) else ""
                same = known.get(at)
                self._entries[at] = same if same and same[0] == entry else (entry, dump([entry]))
                parts.append(self._entries[at][1])
        return b"".join(parts)


def current_context(content: bytes) -> str:
    """The current context of a kubeconfig, or "" when it cannot be told."""
    try:
        config = yaml.load(content, Loader=yaml.CSafeLoader)
    except yaml.YAMLError:
        return ""
    chosen = config.get("current-context") if isinstance(config, dict) else None
    return chosen if isinstance(chosen, str) else ""
