"""The plain kinds of a member: their rules and their columns."""

import base64
import binascii
from collections.abc import Callable, Sequence

from onepass.api import meta
from onepass.api.errors import Cause
from onepass.api.meta import JSON, Object, Resource
from onepass.registry import ages, causes
from onepass.registry.strategy import Actor, Column, Strategy
from onepass.sandbox.objectmodels import ConfigMap, Event, Node, Secret, Service
from onepass.sandbox.pods import maps

NODE = Resource("", "v1", "Node", "nodes", "node", False, ("no",))
EVENT = Resource("", "v1", "Event", "events", "event", True, ("ev",))
CONFIG_MAP = Resource("", "v1", "ConfigMap", "configmaps", "configmap", True, ("cm",))
SECRET = Resource("", "v1", "Secret", "secrets", "secret", True)
SERVICE = Resource("", "v1", "Service", "services", "service", True, ("svc",), ("all",))


def _keys(obj: Object, _now: float) -> JSON:
    return len(meta.section(obj, "data")) + len(meta.section(obj, "binaryData"))


def _frozen(obj: Object, old: Object | None) -> Sequence[Cause]:
    """An object that says so may never change its data again."""
    if old is None or old.get("immutable") is not True:
        return ()
    changed = [k for k in ("data", "binaryData", "immutable") if obj.get(k) != old.get(k)]
    return [causes.forbidden(key, "field is immutable when `immutable` is set") for key in changed]


def _base64(field: str, values: Object) -> list[Cause]:
    wrong = []
    for key, value in values.items():
        try:
            base64.b64decode(str(value), validate=True)
        except (ValueError, binascii.Error):
            wrong.append(causes.invalid(f"{field}[{key}]", "<hidden>", "must be base64"))
    return wrong


def _with_strings(obj: Object, _actor: Actor) -> Object:
    strings = obj.get("stringData")
    if not isinstance(strings, dict):
        return obj
    encoded: Object = {k: base64.b64encode(str(v).encode()).decode() for k, v in strings.items()}
    rest = {k: v for k, v in obj.items() if k != "stringData"}
    return {**rest, "data": {**meta.section(obj, "data"), **encoded}}


def _ports(obj: Object, _now: float) -> JSON:
    ports = maps(meta.section(obj, "spec").get("ports"))
    return ",".join(f"{port.get('port')}/{port.get('protocol', 'TCP')}" for port in ports) or "<none>"


def _selector(obj: Object, _now: float) -> JSON:
    selector = meta.section(meta.section(obj, "spec"), "selector")
    return ",".join(f"{key}={value}" for key, value in sorted(selector.items())) or "<none>"


def _node_state(obj: Object, _now: float) -> JSON:
    conditions = maps(meta.section(obj, "status").get("conditions"))
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
    closed = ",SchedulingDisabled" if meta.section(obj, "spec").get("unschedulable") is True else ""
    return ("Ready" if ready else "NotReady") + closed


def _of_involved(key: str) -> Callable[[Object], str]:
    return lambda obj: meta.text(meta.section(obj, "involvedObject"), key)


def _about(obj: Object, _now: float) -> JSON:
    about = meta.section(obj, "involvedObject")
    return f"{meta.text(about, 'kind').lower()}/{meta.text(about, 'name')}"


def _seen(key: str) -> Callable[[Object, float], JSON]:
    def cell(obj: Object, now: float) -> JSON:
        return ages.since(meta.text(obj, key) or meta.text(obj, "firstTimestamp") or meta.text(obj, "eventTime"), now)

    return cell


def _source(obj: Object, _now: float) -> JSON:
    source = meta.section(obj, "source")
    return ", ".join(part for part in (meta.text(source, "component"), meta.text(source, "host")) if part)


def _address(kind: str) -> Callable[[Object, float], JSON]:
    def cell(obj: Object, _now: float) -> JSON:
        addresses = maps(meta.section(obj, "status").get("addresses"))
        return next((meta.text(a, "address") for a in addresses if a.get("type") == kind), "<none>")

    return cell


def _node_info(key: str) -> Callable[[Object, float], JSON]:
    return lambda obj, _now: meta.text(meta.section(meta.section(obj, "status"), "nodeInfo"), key) or "<unknown>"


CONFIG_MAPS = Strategy(
    CONFIG_MAP,
    ConfigMap,
    (Column("Data", _keys, type="integer", description="How many keys it has."),),
    validate=lambda obj, old: [*_base64("binaryData", meta.section(obj, "binaryData")), *_frozen(obj, old)],
)
SECRETS = Strategy(
    SECRET,
    Secret,
    (
        Column("Type", lambda obj, _now: meta.text(obj, "type"), description="What the keys stand for."),
        Column("Data", _keys, type="integer", description="How many keys it has."),
    ),
    prepare_create=_with_strings,
    prepare_update=lambda _old, new, actor: _with_strings(new, actor),
    validate=lambda obj, old: [*_base64("data", meta.section(obj, "data")), *_frozen(obj, old)],
    selectable={"type": lambda obj: meta.text(obj, "type")},
)
SERVICES = Strategy(
    SERVICE,
    Service,
    (
        Column("Type", lambda obj, _now: meta.text(meta.section(obj, "spec"), "type"), description="Type of service."),
        Column(
            "Cluster-IP",
            lambda obj, _now: meta.text(meta.section(obj, "spec"), "clusterIP") or "<none>",
            description="Its address; the sandbox gives none.",
        ),
        Column("External-IP", lambda _obj, _now: "<none>", description="Its address from outside; there is none."),
        Column("Port(s)", _ports, description="Its ports."),
        Column("Selector", _selector, priority=1, description="Labels of its pods."),
    ),
    subresources={"status": ("status",)},
    generations=False,
    name_rule="label",
)
EVENTS = Strategy(
    EVENT,
    Event,
    (
        Column("Last Seen", _seen("lastTimestamp"), description="How long ago it happened last."),
        Column("Type", lambda obj, _now: meta.text(obj, "type"), description="Normal or Warning."),
        Column("Reason", lambda obj, _now: meta.text(obj, "reason"), description="What happened, as one word."),
        Column("Object", _about, description="What it happened to."),
        Column(
            "Subobject",
            lambda obj, _now: meta.text(meta.section(obj, "involvedObject"), "fieldPath"),
            priority=1,
            description="The part of the object that it happened to.",
        ),
        Column("Source", _source, priority=1, description="Who saw it happen."),
        Column("Message", lambda obj, _now: meta.text(obj, "message"), description="What happened, as a sentence."),
        Column("First Seen", _seen("firstTimestamp"), priority=1, description="How long ago it happened first."),
        Column(
            "Count",
            lambda obj, _now: obj.get("count") or 1,
            type="integer",
            priority=1,
            description="How many times it happened.",
        ),
        Column("Name", lambda obj, _now: meta.name(obj), format="name", priority=1, description="Name of the event."),
    ),
    selectable={
        **{
            f"involvedObject.{key}": _of_involved(key)
            for key in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
        },
        "reason": lambda obj: meta.text(obj, "reason"),
        "type": lambda obj: meta.text(obj, "type"),
        "source": lambda obj: meta.text(meta.section(obj, "source"), "component"),
        "reportingComponent": lambda obj: meta.text(obj, "reportingComponent"),
    },
)
NODES = Strategy(
    NODE,
    Node,
    (
        Column("Status", _node_state, description="Whether it takes pods."),
        Column("Roles", lambda _obj, _now: "sandbox", description="What it is for."),
        ages.AGE,
        Column("Version", _node_info("kubeletVersion"), description="Version of its kubelet."),
        Column("Internal-IP", _address("InternalIP"), priority=1, description="Its address inside the cluster."),
        Column("External-IP", _address("ExternalIP"), priority=1, description="Its address from outside."),
        Column("OS-Image", _node_info("osImage"), priority=1, description="Its operating system."),
        Column("Kernel-Version", _node_info("kernelVersion"), priority=1, description="Version of its kernel."),
        Column(
            "Container-Runtime",
            _node_info("containerRuntimeVersion"),
            priority=1,
            description="What runs its containers.",
        ),
    ),
    subresources={"status": ("status",)},
    generations=False,
    selectable={"spec.unschedulable": lambda obj: str(meta.section(obj, "spec").get("unschedulable", False)).lower()},
)
