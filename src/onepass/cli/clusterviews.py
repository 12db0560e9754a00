"""How clusters are shown. Pure: objects in, markup out."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.cli import durations
from onepass.cli.output import safe

COLUMNS = ("NAME", "PROVIDER", "ENDPOINT", "HEALTH", "VERSION", "NODES", "AGE")
# Beside Ready, which is the health, in this order.
_TOLD = ("Reachable", "Authorized", "CredentialValid")
_ENDING = ("EndsSoon", "RenewalFails")
_WARNS = (*_ENDING, "ProgramFails", "ClockBehind", "SomeEndpointsUnreachable")


@dataclass(frozen=True, slots=True)
class Health:
    """The prober's word on a cluster; `known` is false while it has not looked yet."""

    known: bool
    healthy: bool
    why: str
    reason: str = ""  # in a word


def access(cluster: Object) -> Object:
    """`spec.access`."""
    return meta.section(meta.section(cluster, "spec"), "access")


def credential(cluster: Object) -> Object:
    """`spec.access.credential`: of what is secret, a fingerprint."""
    return meta.section(access(cluster), "credential")


def endpoint(cluster: Object) -> str:
    """Where it is, without a slash at the end."""
    return meta.text(access(cluster), "endpoint").rstrip("/")


def endpoints(cluster: Object) -> list[str]:
    """Every one that it has, the first one first."""
    further = access(cluster).get("endpoints")
    return [endpoint(cluster), *(each.rstrip("/") for each in _texts(further))]


def _texts(listed: JSON) -> list[str]:
    return [each for each in listed if isinstance(each, str)] if isinstance(listed, list) else []


def conditions(obj: Object) -> list[Object]:
    """`status.conditions`, without entries that are no objects."""
    listed = meta.section(obj, "status").get("conditions")
    return [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []


def health(cluster: Object) -> Health:
    ready = next((c for c in conditions(cluster) if c.get("type") == "Ready"), None)
    healthy = meta.section(cluster, "status").get("healthy") is True
    if ready is None:
        return Health(healthy, healthy, "")
    return Health(True, healthy, meta.text(ready, "message"), meta.text(ready, "reason"))


def age(obj: Object, now: datetime) -> str:
    made = durations.moment(meta.text(meta.section(obj, "metadata"), "creationTimestamp"))
    return durations.show((now - made).total_seconds()) if made else ""


def _health(cluster: Object) -> str:
    found = health(cluster)
    if not found.known:
        return "[yellow]not probed yet[/]"
    return "[green]healthy[/]" if found.healthy else "[red]unhealthy[/]"


def _health_and_reason(cluster: Object) -> str:
    found = health(cluster)
    return _health(cluster) + (f": {safe(found.reason)}" if not found.healthy and found.reason else "")


def advice(clusters: Sequence[Object]) -> str:
    """A sentence below a list, when some cluster in it is unhealthy, or is about to be."""
    unwell = [meta.name(each) for each in clusters if (found := health(each)).known and not found.healthy]
    if unwell:
        return f"What is wrong, and what to do: onepass cluster show {safe(shlex.quote(unwell[0]))}"
    ending = [meta.name(each) for each in clusters for told in conditions(each) if _ends(told)]
    if not ending:
        return ""
    whose = f"{ending[0]} and {len(ending) - 1} more" if ending[1:] else ending[0]
    return f"Credentials end soon, of {safe(whose)}: onepass cluster show {safe(shlex.quote(ending[0]))}"


def _ends(condition: Object) -> bool:
    return meta.text(condition, "type") == "CredentialValid" and meta.text(condition, "reason") in _ENDING


def _nodes(cluster: Object) -> str:
    return safe(str(meta.section(cluster, "status").get("nodes", "")))


def _condition(condition: Object, said: str) -> tuple[str, str]:
    """A line of `facts`, without the sentence that was `said` before."""
    status, message = meta.text(condition, "status"), meta.text(condition, "message")
    colour = {"True": "green", "False": "red"}.get(status, "yellow")
    if status == "True" and meta.text(condition, "reason") in _WARNS:
        colour = "yellow"
    word = {"True": "yes", "False": "no"}.get(status, "not known")
    told = f": {safe(message)}" if message and message != said else ""
    return meta.text(condition, "type"), f"[{colour}]{word}[/]{told}"


def rows(clusters: Sequence[Object], now: datetime) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for cluster in clusters:
        spec = meta.section(cluster, "spec")
        found.append(
            (
                safe(meta.name(cluster)),
                safe(meta.text(spec, "provider")),
                safe(meta.text(access(cluster), "endpoint")),
                _health_and_reason(cluster),
                safe(meta.text(meta.section(cluster, "status"), "version")),
                _nodes(cluster),
                age(cluster, now),
            )
        )
    return found


def facts(cluster: Object, now: datetime) -> list[tuple[str, str]]:
    """Everything of one cluster as name and value."""
    spec, status = meta.section(cluster, "spec"), meta.section(cluster, "status")
    reached, held = access(cluster), credential(cluster)
    mode = meta.text(reached, "identity") or "Gateway"
    found = health(cluster)
    shown = _health(cluster) + (f": {safe(found.why)}" if found.known and not found.healthy and found.why else "")
    checked = "not checked (insecure)" if reached.get("insecure") is True else ""
    return [
        ("Name", safe(meta.name(cluster))),
        ("Display name", safe(meta.text(spec, "displayName"))),
        ("Description", safe(meta.text(spec, "description"))),
        ("Provider", safe(meta.text(spec, "provider"))),
        ("Labels", safe(", ".join(f"{k}={v}" for k, v in sorted(meta.labels(cluster).items())))),
        ("Endpoint", safe(", ".join(endpoints(cluster)))),
        ("Proxy", safe(meta.text(reached, "proxyURL"))),  # its password is not in it
        ("Server name", safe(meta.text(reached, "serverName"))),
        ("Certificate", safe(checked)),
        ("Credential", safe(f"{meta.text(held, 'type')} {meta.text(held, 'fingerprint')}".strip())),
        ("Users appear as", "the gateway's credential" if mode == "Gateway" else "themselves (impersonation)"),
        ("Health", shown),
        ("Version", safe(meta.text(status, "version"))),
        ("Nodes", _nodes(cluster) or ("not told: the stored credential may not list them" if found.healthy else "")),
        ("Latency", safe(meta.text(status, "latency"))),
        *(_condition(each, found.why) for kind in _TOLD for each in conditions(cluster) if each.get("type") == kind),
        ("Age", age(cluster, now)),
    ]
