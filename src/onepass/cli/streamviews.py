"""How streams are shown. Pure: objects in, markup out."""

from collections.abc import Sequence
from datetime import datetime

from onepass.api import meta
from onepass.api.meta import Object
from onepass.cli import clusterviews
from onepass.cli.output import safe

COLUMNS = ("ID", "USER", "CLUSTER", "VERB", "WHAT", "NAMESPACE", "SINCE", "FROM")
FOLLOWED = ("", *COLUMNS)
_SHORT = 8  # characters of an id that tell streams apart, as those of a commit do
_GATEWAY = "(gateway)"
_SESSIONS = {"exec": "exec", "attach": "attach", "portforward": "port-forward"}


def selector(user: str, cluster: str) -> str:
    """The field selector that chooses streams; a comma or a backslash in a name is escaped."""
    terms = [("spec.user", user), ("spec.cluster", cluster)]
    return ",".join(f"{path}={_escaped(value)}" for path, value in terms if value)


def _escaped(value: str) -> str:
    return "".join(f"\\{c}" if c in "\\,=" else c for c in value)


def name(stream: Object) -> str:
    return meta.name(stream)


def user(stream: Object) -> str:
    return meta.text(meta.section(stream, "spec"), "user")


def rows(streams: Sequence[Object], now: datetime) -> list[tuple[str, ...]]:
    ordered = sorted(streams, key=lambda each: meta.text(meta.section(each, "metadata"), "creationTimestamp"))
    return [_row(stream, now) for stream in ordered]


def _row(stream: Object, now: datetime) -> tuple[str, ...]:
    spec = meta.section(stream, "spec")
    acts_as = meta.text(spec, "actsAs")
    return (
        safe(name(stream)[:_SHORT]),
        safe(user(stream) + (f" as {acts_as}" if acts_as else "")),
        safe(meta.text(spec, "cluster") or _GATEWAY),
        safe(verb(spec)),
        safe(what(spec)),
        safe(meta.text(spec, "namespace")),
        clusterviews.age(stream, now),
        safe(meta.text(spec, "source").rpartition(":")[0]),
    )


def verb(spec: Object) -> str:
    """The word that people know: exec and not create."""
    _, _, subresource = meta.text(spec, "resource").partition("/")
    return _SESSIONS.get(subresource, "logs" if subresource == "log" else meta.text(spec, "verb"))


def what(spec: Object) -> str:
    """`pods/web`, `pods`, or the path of what is no resource."""
    resource = meta.text(spec, "resource").partition("/")[0]
    named = meta.text(spec, "object")
    return f"{resource}/{named}" if resource and named else resource or meta.text(spec, "path")


def line(kind: str, stream: Object, now: datetime) -> str:
    """One change of a watch; "" for what is none."""
    sign = {"ADDED": "[green]+[/]", "DELETED": "[red]-[/]"}.get(kind)
    return "  ".join((sign, *(cell or "-" for cell in _row(stream, now)))) if sign else ""


def sentence(stream: Object) -> str:
    spec = meta.section(stream, "spec")
    cluster = meta.text(spec, "cluster")
    where = f"on {cluster}" if cluster else "on the gateway"
    return safe(f"{user(stream)}'s {verb(spec)} of {what(spec)} {where}")
