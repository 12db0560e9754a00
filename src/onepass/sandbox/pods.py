"""The Pod kind of a member: what a pod may be, and how `kubectl get pods` shows it."""

from collections.abc import Mapping, Sequence

from onepass.api import meta
from onepass.api.errors import Cause
from onepass.api.meta import JSON, Object, Resource
from onepass.registry import causes, lifecycle, names
from onepass.registry.strategy import Actor, Column, Strategy
from onepass.sandbox.podmodels import Pod

RESOURCE = Resource("", "v1", "Pod", "pods", "pod", True, ("po",), ("all",))


def strategy(node: str) -> Strategy:
    """Pods of a member whose only node is `node`: every pod is placed on it at once."""

    def prepare_create(obj: Object, actor: Actor) -> Object:
        spec = {**meta.section(obj, "spec"), "nodeName": node}
        spec.setdefault("serviceAccountName", "default")
        for key in ("containers", "initContainers"):
            if key in spec:
                spec[key] = [_pulled(container) for container in maps(spec[key])]
        moment = lifecycle.timestamp(actor.now)
        scheduled: JSON = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": moment}]
        return {**obj, "spec": spec, "status": {"phase": "Pending", "conditions": scheduled, "qosClass": "BestEffort"}}

    return Strategy(
        resource=RESOURCE,
        model=Pod,
        columns=COLUMNS,
        subresources={"status": ("status",)},
        prepare_create=prepare_create,
        grace=_grace,
        tells_deleted=True,
        validate=_validate,
        selectable={
            "spec.nodeName": lambda obj: meta.text(meta.section(obj, "spec"), "nodeName"),
            "spec.restartPolicy": lambda obj: meta.text(meta.section(obj, "spec"), "restartPolicy"),
            "spec.serviceAccountName": lambda obj: meta.text(meta.section(obj, "spec"), "serviceAccountName"),
            "status.phase": lambda obj: meta.text(meta.section(obj, "status"), "phase"),
            "status.podIP": lambda obj: meta.text(meta.section(obj, "status"), "podIP"),
        },
    )


def maps(value: JSON) -> list[Object]:
    """The mappings in a list; none when it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def containers(obj: Object) -> list[Object]:
    """The containers of a pod."""
    return maps(meta.section(obj, "spec").get("containers"))


def init_containers(obj: Object) -> list[Object]:
    """The containers that run before the others."""
    return maps(meta.section(obj, "spec").get("initContainers"))


def _pulled(container: Object) -> Object:
    if container.get("imagePullPolicy"):
        return container
    name = meta.text(container, "image").rsplit("/", 1)[-1]
    latest = "@" not in name and (":" not in name or name.endswith(":latest"))
    return {**container, "imagePullPolicy": "Always" if latest else "IfNotPresent"}


def _grace(obj: Object, asked: int | None) -> int:
    """As core/v1 does: what the client says, else what the pod says; a pod that has ended waits for nobody."""
    if meta.text(meta.section(obj, "status"), "phase") in ("Succeeded", "Failed"):
        return 0
    wanted = meta.section(obj, "spec").get("terminationGracePeriodSeconds")
    if asked is not None:
        return max(0, asked)
    return wanted if isinstance(wanted, int) else 30


def _validate(obj: Object, old: Object | None) -> Sequence[Cause]:
    wrong: list[Cause] = []
    seen: set[str] = set()
    for field, group in (("initContainers", init_containers(obj)), ("containers", containers(obj))):
        for index, container in enumerate(group):
            path = f"spec.{field}[{index}]"
            name = meta.text(container, "name")
            wrong += [causes.invalid(f"{path}.name", name, problem) for problem in names.check("label", name)]
            if name in seen:
                wrong.append(Cause("FieldValueDuplicate", f'Duplicate value: "{name}"', f"{path}.name"))
            seen.add(name)
            if not meta.text(container, "image"):
                wrong.append(causes.required(f"{path}.image"))
            wrong += [
                causes.invalid(f"{path}.env[{at}].name", variable, "must be a name without '=' and null bytes")
                for at, variable in enumerate(meta.text(env, "name") for env in maps(container.get("env")))
                if not variable or "=" in variable or "\0" in variable
            ]
    if old is not None and _fixed(obj) != _fixed(old):
        told = (
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
            "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
            "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
        )
        wrong.append(causes.forbidden("spec", told))
    return wrong


def _fixed(obj: Object) -> Object:
    """What of a pod's spec may never change."""
    spec = {k: v for k, v in meta.section(obj, "spec").items() if k not in ("activeDeadlineSeconds", "tolerations")}
    for key in ("containers", "initContainers"):
        spec[key] = [{k: v for k, v in container.items() if k != "image"} for container in maps(spec.get(key))]
    return spec


def _statuses(obj: Object) -> list[Object]:
    return maps(meta.section(obj, "status").get("containerStatuses"))


def _ready(obj: Object, _now: float) -> JSON:
    ready = sum(status.get("ready") is True for status in _statuses(obj))
    return f"{ready}/{len(containers(obj))}"


def _restarts(obj: Object, _now: float) -> JSON:
    counts = (status.get("restartCount") for status in _statuses(obj))
    return sum(count for count in counts if isinstance(count, int))


def _gates(obj: Object, _now: float) -> JSON:
    gates = [meta.text(gate, "conditionType") for gate in maps(meta.section(obj, "spec").get("readinessGates"))]
    conditions = maps(meta.section(obj, "status").get("conditions"))
    true = {c.get("type") for c in conditions if c.get("status") == "True"}
    return f"{sum(gate in true for gate in gates)}/{len(gates)}" if gates else "<none>"


def _state(obj: Object, _now: float) -> JSON:
    """The one word that `kubectl get pods` shows: the most telling reason among the pod and its containers."""
    status = meta.section(obj, "status")
    word = meta.text(status, "reason") or meta.text(status, "phase") or "Unknown"
    total = len(init_containers(obj))
    words = [_init_word(s, total, i) for i, s in enumerate(maps(status.get("initContainerStatuses")))]
    waiting = next((told for told in words if told), "")
    if waiting:
        word = waiting
    else:
        running = False
        for container in reversed(_statuses(obj)):
            state = meta.section(container, "state")
            running = running or container.get("ready") is True
            word = _word(state) or word
        if word == "Completed" and running:
            word = "Running" if _is_ready(status) else "NotReady"
    return "Terminating" if "deletionTimestamp" in meta.section(obj, "metadata") else word


def _is_ready(status: Object) -> bool:
    conditions = maps(status.get("conditions"))
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _word(state: Object) -> str:
    ended: Mapping[str, JSON] = meta.section(state, "terminated")
    return meta.text(meta.section(state, "waiting"), "reason") or str(ended.get("reason") or "")


def _init_word(container: Object, total: int, index: int) -> str:
    state = meta.section(container, "state")
    ended = meta.section(state, "terminated")
    if ended and ended.get("exitCode") == 0:
        return ""
    reason = _word(state)
    return f"Init:{reason}" if reason and reason != "PodInitializing" else f"Init:{index}/{total}"


COLUMNS = (
    Column("Ready", _ready, description="Containers that are ready, of how many."),
    Column("Status", _state, description="What the pod does, in a word."),
    Column("Restarts", _restarts, type="integer", description="How many times its containers were started anew."),
    Column(
        "IP",
        lambda obj, _now: meta.text(meta.section(obj, "status"), "podIP") or "<none>",
        priority=1,
        description="Address of the pod.",
    ),
    Column(
        "Node",
        lambda obj, _now: meta.text(meta.section(obj, "spec"), "nodeName") or "<none>",
        priority=1,
        description="The node that runs it.",
    ),
    Column(
        "Nominated Node",
        lambda obj, _now: meta.text(meta.section(obj, "status"), "nominatedNodeName") or "<none>",
        priority=1,
        description="The node that it is to take over; there is none in a sandbox.",
    ),
    Column(
        "Readiness Gates",
        _gates,
        priority=1,
        description="How many of its own conditions for being ready hold.",
    ),
)
