"""Clusters: member clusters, and how the gateway reaches them."""

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from onepass.api import cluster_v1beta1, meta
from onepass.api.errors import Cause
from onepass.api.meta import JSON, Object, Resource
from onepass.registry import causes, credentials, destinations, execplugins, proxies
from onepass.registry.strategy import Column, Strategy

RESOURCE = Resource(
    "cluster.karpor.io", "v1beta1", "Cluster", "clusters", "cluster", namespaced=False, short_names=("cl",)
)

_MOST_ENDPOINTS = 16


def strategy(
    *, bounds: destinations.GetBounds = destinations.anywhere, plugins: Sequence[execplugins.Plugin] = ()
) -> Strategy:
    """Clusters within `bounds`, with the credential programs that the operator listed."""
    return Strategy(
        resource=RESOURCE,
        model=cluster_v1beta1.Cluster,
        columns=_COLUMNS,
        subresources={"status": ("status",)},
        conceal=credentials.conceal(RESOURCE),
        bound=credentials.bound,
        marked=credentials.marked,
        unmanaged=("spec.access.credential.fingerprint",),
        validate=_validator(bounds, plugins),
        warn=_warn,
    )


def _validator(
    bounds: destinations.GetBounds, plugins: Sequence[execplugins.Plugin]
) -> Callable[[Object, Object | None], Sequence[Cause]]:
    def validate(obj: Object, _old: Object | None) -> Sequence[Cause]:
        access = _access(obj)
        endpoint = meta.text(access, "endpoint")
        shown = endpoint if "@" not in endpoint else "https://…"  # what stands before @ may be a password
        wrong = [
            causes.invalid("spec.access.endpoint", shown, problem) for problem in destinations.check(endpoint, bounds())
        ]
        name = meta.text(access, "serverName")
        if name:
            wrong += [causes.invalid("spec.access.serverName", name, p) for p in destinations.server_name(name)]
        endpoints = _further(access)
        for number, each in enumerate(endpoints):
            field, told = f"spec.access.endpoints[{number}]", each if "@" not in each else "https://…"
            wrong += [causes.invalid(field, told, problem) for problem in destinations.check(each, bounds())]
            if not wrong and urlsplit(each).path.rstrip("/") != urlsplit(endpoint).path.rstrip("/"):
                wrong.append(causes.invalid(field, told, "must have the same path as spec.access.endpoint"))
        if len(endpoints) > _MOST_ENDPOINTS:
            many = f"must have at most {_MOST_ENDPOINTS} items"
            wrong.append(Cause("FieldValueTooMany", many, "spec.access.endpoints"))
        proxy = meta.text(access, "proxyURL")
        if proxy and not wrong:
            hosts = [urlsplit(each).hostname or "" for each in (endpoint, *endpoints)]
            wrong += [causes.invalid("spec.access.proxyURL", proxy, p) for p in proxies.check(proxy, hosts, bounds())]
        return [*wrong, *_credential(meta.section(access, "credential"), endpoint, plugins)]

    return validate


def _further(access: Object) -> Sequence[str]:
    endpoints = access.get("endpoints")
    return [each for each in endpoints if isinstance(each, str)] if isinstance(endpoints, list) else ()


def _credential(credential: Object, endpoint: str, plugins: Sequence[execplugins.Plugin]) -> Sequence[Cause]:
    """What is wrong with what is left of a credential once its secret is out."""
    if not credential:
        return ()
    field, kind = "spec.access.credential", meta.text(credential, "type")
    known = (credentials.TOKEN, credentials.X509, credentials.OIDC)
    if kind not in known:
        return [causes.unsupported(f"{field}.type", kind, known)]
    if credential.get("renew") is True and kind != credentials.TOKEN:
        return [causes.forbidden(f"{field}.renew", f"type {kind} has no token that could be renewed")]
    program = meta.section(credential, "execConfig")
    if not program:
        if kind == credentials.OIDC:
            return [causes.required(f"{field}.execConfig", "type OIDC gets its token from a program")]
        return ()
    if kind != credentials.OIDC:
        return [causes.forbidden(f"{field}.execConfig", f"type {kind} takes no program")]
    plugin, told = execplugins.find(plugins, program, endpoint)
    return () if plugin else [causes.forbidden(f"{field}.execConfig", told)]


def _warn(obj: Object) -> Sequence[str]:
    access = _access(obj)
    if not access.get("insecure"):
        return ()
    told = [
        "spec.access.insecure: whoever can answer for the endpoint gets the credential and every request;"
        " give caBundle instead"
    ]
    if access.get("caBundle"):
        told.append("spec.access.caBundle: not used while insecure is true")
    return told


def _access(obj: Object) -> Object:
    return meta.section(meta.section(obj, "spec"), "access")


def _status(key: str) -> Callable[[Object, float], JSON]:
    return lambda obj, _now: str(meta.section(obj, "status").get(key, ""))


def _reason(obj: Object, _now: float) -> str:
    """Why it is as it is, by the condition Ready."""
    listed = meta.section(obj, "status").get("conditions")
    every = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    return next((meta.text(each, "reason") for each in every if each.get("type") == "Ready"), "")


def _healthy(obj: Object, _now: float) -> str:
    healthy = meta.section(obj, "status").get("healthy")
    return str(healthy) if isinstance(healthy, bool) else "Unknown"


_COLUMNS = (
    Column(
        "Provider",
        lambda obj, _: meta.text(meta.section(obj, "spec"), "provider"),
        description="Who runs the cluster.",
    ),
    Column("Endpoint", lambda obj, _: meta.text(_access(obj), "endpoint"), description="URL of its API server."),
    Column("Healthy", _healthy, description="Whether the cluster answers requests through the gateway."),
    Column("Version", _status("version"), description="Kubernetes version of the cluster."),
    Column(
        "Display Name",
        lambda obj, _: meta.text(meta.section(obj, "spec"), "displayName"),
        priority=1,
        description="What people call it.",
    ),
    Column("Reason", _reason, priority=1, description="Why it is healthy or not, in a word."),
    Column("Nodes", _status("nodes"), priority=1, description="How many nodes it has."),
    Column("Latency", _status("latency"), priority=1, description="Time that a small request takes."),
    Column("Protocol", _status("alpn"), priority=1, description="h2 or http/1.1."),
    Column(
        "Credential",
        lambda obj, _: meta.text(meta.section(_access(obj), "credential"), "type"),
        priority=1,
        description="By which kind of credential the gateway comes to it.",
    ),
    Column(
        "Identity",
        lambda obj, _: meta.text(_access(obj), "identity") or "Gateway",
        priority=1,
        description="As whom requests reach it.",
    ),
)
