"""The status of a pod, from the states of its containers. Pure.

The phases and conditions are those of https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.registry import lifecycle
from onepass.sandbox import pods


@dataclass(frozen=True, slots=True)
class Waiting:
    reason: str = "ContainerCreating"
    message: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    started: float  # Unix seconds


@dataclass(frozen=True, slots=True)
class Terminated:
    exit_code: int
    reason: str
    started: float
    finished: float
    message: str = ""


@dataclass(frozen=True, slots=True)
class ContainerState:
    """One container, with the run before the present one. `id` names the present or last run."""

    name: str
    image: str
    state: Waiting | Running | Terminated = Waiting()
    last: Terminated | None = None
    restarts: int = 0
    id: str = ""

    @property
    def succeeded(self) -> bool:
        return isinstance(self.state, Terminated) and self.state.exit_code == 0

    @property
    def failed(self) -> bool:
        return isinstance(self.state, Terminated) and self.state.exit_code != 0


def compute(pod: Object, init: Sequence[ContainerState], main: Sequence[ContainerState], now: float) -> Object:
    """The whole `status` of a pod; conditions that have not changed keep their time."""
    policy = meta.text(meta.section(pod, "spec"), "restartPolicy") or "Always"
    before = meta.section(pod, "status")
    phase = _phase(policy, init, main)
    status: Object = {
        **{key: before[key] for key in ("reason", "message") if key in before},
        "phase": phase,
        "qosClass": before.get("qosClass", "BestEffort"),
        "startTime": before.get("startTime") or lifecycle.timestamp(now),
        "hostIP": "127.0.0.1",
        "hostIPs": [{"ip": "127.0.0.1"}],
        "podIP": "127.0.0.1",
        "podIPs": [{"ip": "127.0.0.1"}],
        "conditions": _conditions(before, phase, init, main, now),
        "containerStatuses": [_told(container, ready=isinstance(container.state, Running)) for container in main],
    }
    if init:
        status["initContainerStatuses"] = [_told(container, ready=container.succeeded) for container in init]
    return status


def restored(told: Object) -> ContainerState:
    """What a stored status says of a container."""
    state, last = meta.section(told, "state"), meta.section(told, "lastState")
    restarts = told.get("restartCount")
    present: Waiting | Running | Terminated = Waiting()
    if started := meta.section(state, "running"):
        present = Running(_seconds(started, "startedAt"))
    elif ended := meta.section(state, "terminated"):
        present = _terminated(ended)
    elif waiting := meta.section(state, "waiting"):
        present = Waiting(meta.text(waiting, "reason"), meta.text(waiting, "message"))
    before = meta.section(last, "terminated")
    return ContainerState(
        name=meta.text(told, "name"),
        image=meta.text(told, "image"),
        state=present,
        last=_terminated(before) if before else None,
        restarts=restarts if isinstance(restarts, int) else 0,
        id=meta.text(told, "containerID"),
    )


def _phase(policy: str, init: Sequence[ContainerState], main: Sequence[ContainerState]) -> str:
    if any(container.failed for container in init) and policy == "Never":
        return "Failed"
    if not all(container.succeeded for container in init):
        return "Pending"
    if any(isinstance(c.state, Running) for c in main):
        return "Running"
    if any(isinstance(c.state, Waiting) and c.last is None for c in main):
        return "Pending"
    if policy == "Always" or any(isinstance(c.state, Waiting) for c in main):
        return "Running"
    if all(c.succeeded for c in main):
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def _conditions(
    before: Object, phase: str, init: Sequence[ContainerState], main: Sequence[ContainerState], now: float
) -> list[JSON]:
    unready = [container.name for container in main if not isinstance(container.state, Running)]
    uninitialized = [container.name for container in init if not container.succeeded]
    ended = phase in ("Succeeded", "Failed")
    why: Object = {}
    if ended:
        why = {"reason": "PodCompleted" if phase == "Succeeded" else "PodFailed"}
    elif unready:
        told = f"containers with unready status: [{' '.join(unready)}]"
        why = {"reason": "ContainersNotReady", "message": told}
    not_initialized: Object = {}
    if uninitialized:
        told = f"containers with incomplete status: [{' '.join(uninitialized)}]"
        not_initialized = {"reason": "ContainersNotInitialized", "message": told}
    ready = not unready and not uninitialized and not ended
    old = {meta.text(condition, "type"): condition for condition in pods.maps(before.get("conditions"))}
    conditions: list[JSON] = []
    for kind, holds, extra in (
        ("PodReadyToStartContainers", not ended, {}),
        ("Initialized", not uninitialized, not_initialized),
        ("Ready", ready, why),
        ("ContainersReady", ready, why),
        ("PodScheduled", True, {}),
    ):
        value = "True" if holds else "False"
        since = old[kind].get("lastTransitionTime") if old.get(kind, {}).get("status") == value else None
        moment = since or lifecycle.timestamp(now)
        conditions.append({"type": kind, "status": value, "lastProbeTime": None, "lastTransitionTime": moment, **extra})
    return conditions


def _told(container: ContainerState, *, ready: bool) -> Object:
    return {
        "name": container.name,
        "image": container.image,
        "imageID": "",
        "containerID": container.id,
        "ready": ready,
        "started": isinstance(container.state, Running),
        "restartCount": container.restarts,
        "state": _state(container.state, container.id),
        "lastState": _state(container.last, container.id) if container.last else {},
    }


def _state(state: Waiting | Running | Terminated, id: str) -> Object:
    match state:
        case Waiting(reason, message):
            return {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        case Running(started):
            return {"running": {"startedAt": lifecycle.timestamp(started)}}
        case Terminated(code, reason, started, finished, message):
            ended: Object = {
                "exitCode": code,
                "reason": reason,
                "startedAt": lifecycle.timestamp(started),
                "finishedAt": lifecycle.timestamp(finished),
                "containerID": id,
            }
            return {"terminated": {**ended, **({"message": message} if message else {})}}


def _terminated(told: Object) -> Terminated:
    code = told.get("exitCode")
    return Terminated(
        exit_code=code if isinstance(code, int) else 255,
        reason=meta.text(told, "reason"),
        started=_seconds(told, "startedAt"),
        finished=_seconds(told, "finishedAt"),
        message=meta.text(told, "message"),
    )


def _seconds(told: Object, key: str) -> float:
    try:
        return datetime.fromisoformat(meta.text(told, key)).timestamp()
    except ValueError:
        return 0.0
