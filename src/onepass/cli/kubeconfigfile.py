"""Puts what a login gives into the user's kubeconfig, beside whatever else is in it."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.cli.failure import Failure
from onepass.runtime import datadir, kubeconfig


@dataclass(frozen=True, slots=True)
class Merged:
    """The names of the contexts that lead to the gateway and to members, and the current one."""

    contexts: tuple[str, ...]
    current: str


def default(environment: Mapping[str, str] = os.environ) -> Path:
    """The first file of $KUBECONFIG, else ~/.kube/config, as kubectl writes."""
    listed = [name for name in environment.get("KUBECONFIG", "").split(os.pathsep) if name]
    return Path(listed[0]) if listed else Path.home() / ".kube" / "config"


def merge(path: Path, server: str, ca: bytes, user: Object, name: str, clusters: Sequence[str]) -> Merged:
    """Write contexts for the gateway and for `clusters`, with `user` as their user named `name`. Raises Failure.

    What led to this gateway with that user before is replaced; nothing else is touched, and no name of somebody
    else's context is taken. The current context stays, unless there is none or it was ours and is gone.
    """
    config = _read(path)
    before = {str(c.get("name")): c for c in _listed(config, "contexts")}
    urls = {str(c.get("name")): meta.text(meta.section(c, "cluster"), "server") for c in _listed(config, "clusters")}

    def is_ours(context: Object) -> bool:
        told = meta.section(context, "context")
        url = urls.get(meta.text(told, "cluster"), "")
        return meta.text(told, "user") == name and (url == server or url.startswith(f"{server}/apis/"))

    ours = {each for each, context in before.items() if is_ours(context)}
    shared = {meta.text(meta.section(c, "context"), "cluster") for each, c in before.items() if each not in ours}
    dropped = {meta.text(meta.section(before[each], "context"), "cluster") for each in ours} - shared
    wanted = [("onepass", server), *((each, server + kubeconfig.PROXY.format(each)) for each in clusters)]
    named = _names([place for place, _ in wanted], (before.keys() - ours) | (urls.keys() - dropped))

    def kept(kind: str, gone: Callable[[str], bool]) -> list[JSON]:
        return [each for each in _listed(config, kind) if not gone(str(each.get("name")))]

    ca_data: Object = {"certificate-authority-data": kubeconfig.encoded(ca)} if ca else {}
    namespaces = {each: meta.text(meta.section(before[each], "context"), "namespace") for each in ours}
    made: list[JSON] = [
        {"name": given, "cluster": {"server": url, **ca_data}} for given, (_, url) in zip(named, wanted, strict=True)
    ]
    contexts: list[JSON] = [_context(given, name, namespaces) for given in named]
    config["clusters"] = kept("clusters", lambda each: each in dropped) + made
    config["contexts"] = kept("contexts", lambda each: each in ours) + contexts
    config["users"] = [*kept("users", lambda each: each == name), {"name": name, "user": user}]
    current = str(config.get("current-context") or "")
    if current not in {str(c.get("name")) for c in _listed(config, "contexts")}:
        current = named[min(1, len(named) - 1)]  # the first member, if there is any
    config |= {"apiVersion": "v1", "kind": "Config", "current-context": current}
    _write(path, config)
    return Merged(tuple(named), current)


def _context(name: str, user: str, namespaces: Mapping[str, str]) -> Object:
    told: Object = {"cluster": name, "user": user}
    return {"name": name, "context": told | ({"namespace": namespaces[name]} if namespaces.get(name) else {})}


def _names(places: Sequence[str], taken: set[str]) -> list[str]:
    """A name for each place that nobody else has."""
    named: list[str] = []
    for place in places:
        candidate, number = place, 1
        while candidate in taken or candidate in named:
            candidate = f"onepass-{place}" if number == 1 else f"onepass-{place}-{number}"
            number += 1
        named.append(candidate)
    return named


def _listed(config: Object, kind: str) -> list[Object]:
    found = config.get(kind)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _read(path: Path) -> Object:
    try:
        found = yaml.safe_load(path.read_bytes()) if path.exists() else {}
    except OSError as error:
        raise Failure(f"{path} cannot be read ({error.strerror})", "name another file with --output") from error
    except yaml.YAMLError as error:
        raise Failure(f"{path} is not a kubeconfig: it is not YAML", "name another file with --output") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Failure(f"{path} is not a kubeconfig", "name another file with --output")
    return found


def _write(path: Path, config: Object) -> None:
    try:
        real = path.resolve()  # a link stays one
        real.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        datadir.write_private(real, kubeconfig.dump(config))
    except OSError as error:
        raise Failure(f"{path} cannot be written ({error.strerror})", "name another file with --output") from error
