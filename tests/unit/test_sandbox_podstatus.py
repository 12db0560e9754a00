"""The status of a pod from its containers' states, and what `kubectl get pods` makes of it."""

from collections.abc import Sequence

import pytest

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.sandbox import pods, podstatus
from onepass.sandbox.podstatus import ContainerState, Running, Terminated, Waiting

NOW = 1_700_000_000.0
UP = Running(NOW)
DONE = Terminated(0, "Completed", NOW, NOW + 1)
BAD = Terminated(3, "Error", NOW, NOW + 1)
NEW = Waiting()
LOOP = Waiting("CrashLoopBackOff", "back-off 10s")

State = Waiting | Running | Terminated


def pod(policy: str, status: Object | None = None, init: int = 0, main: int = 1) -> Object:
    spec: dict[str, JSON] = {"restartPolicy": policy}
    spec["initContainers"] = [{"name": f"i{n}"} for n in range(init)]
    spec["containers"] = [{"name": f"c{n}"} for n in range(main)]
    return {"metadata": {"name": "p"}, "spec": spec, "status": status or {}}


def states(prefix: str, given: Sequence[State | tuple[State, Terminated]]) -> list[ContainerState]:
    made = []
    for number, state in enumerate(given):
        now, last = state if isinstance(state, tuple) else (state, None)
        made.append(ContainerState(f"{prefix}{number}", "busybox", now, last))
    return made


def conditions(status: Object) -> dict[str, str]:
    return {meta.text(c, "type"): meta.text(c, "status") for c in pods.maps(status["conditions"])}


@pytest.mark.parametrize(
    ("policy", "init", "main", "phase", "word", "ready"),
    [
        ("Always", [], [NEW], "Pending", "ContainerCreating", False),
        ("Always", [], [UP], "Running", "Running", True),
        ("Always", [], [UP, NEW], "Running", "ContainerCreating", False),
        ("Always", [], [(LOOP, BAD)], "Running", "CrashLoopBackOff", False),
        ("Always", [], [BAD], "Running", "Error", False),
        ("Never", [], [DONE], "Succeeded", "Completed", False),
        ("Never", [], [BAD], "Failed", "Error", False),
        ("Never", [], [UP, BAD], "Running", "Error", False),
        ("Never", [], [DONE, BAD], "Failed", "Completed", False),
        ("Never", [], [UP, DONE], "Running", "NotReady", False),
        ("OnFailure", [], [DONE], "Succeeded", "Completed", False),
        ("OnFailure", [], [BAD], "Running", "Error", False),
        ("OnFailure", [], [(LOOP, BAD)], "Running", "CrashLoopBackOff", False),
        ("Always", [UP], [NEW], "Pending", "Init:0/1", False),
        ("Always", [DONE, UP], [NEW], "Pending", "Init:1/2", False),
        ("Always", [DONE], [UP], "Running", "Running", True),
        ("Never", [BAD], [NEW], "Failed", "Init:Error", False),
        ("OnFailure", [(LOOP, BAD)], [NEW], "Pending", "Init:CrashLoopBackOff", False),
    ],
)
def test_phase_word_and_readiness_follow_the_containers(
    policy: str,
    init: Sequence[State | tuple[State, Terminated]],
    main: Sequence[State | tuple[State, Terminated]],
    phase: str,
    word: str,
    ready: bool,
) -> None:
    made = pod(policy, init=len(init), main=len(main))
    status = podstatus.compute(made, states("i", init), states("c", main), NOW)
    assert status["phase"] == phase
    assert conditions(status)["Ready"] == str(ready)
    cells = {column.name: column.cell({**made, "status": status}, NOW) for column in pods.COLUMNS}
    assert cells["Status"] == word
    assert str(cells["Ready"]).endswith(f"/{len(main)}")


def test_a_pod_that_is_being_deleted_says_so() -> None:
    made = pod("Always")
    status = podstatus.compute(made, [], states("c", [UP]), NOW)
    dying: Object = {**made, "status": status, "metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert pods.COLUMNS[1].cell(dying, NOW) == "Terminating"


def test_a_condition_keeps_its_time_until_it_changes() -> None:
    first = podstatus.compute(pod("Always"), [], states("c", [NEW]), NOW)
    second = podstatus.compute(pod("Always", first), [], states("c", [UP]), NOW + 60)
    times = {meta.text(c, "type"): meta.text(c, "lastTransitionTime") for c in pods.maps(second["conditions"])}
    assert times["Ready"] == "2023-11-14T22:14:20Z"
    assert times["PodScheduled"] == "2023-11-14T22:13:20Z"
    assert second["startTime"] == first["startTime"]


@pytest.mark.parametrize("state", [NEW, LOOP, UP, DONE, BAD])
@pytest.mark.parametrize("last", [None, BAD])
def test_what_is_stored_of_a_container_is_read_back(state: State, last: Terminated | None) -> None:
    container = ContainerState("c0", "busybox", state, last, restarts=4, id="sandbox://1")
    status = podstatus.compute(pod("Always"), [], [container], NOW)
    assert podstatus.restored(pods.maps(status["containerStatuses"])[0]) == container


def test_a_status_that_is_no_status_is_a_container_that_waits() -> None:
    odd: Object = {"name": "c", "state": {"terminated": {"exitCode": "x", "startedAt": 7}}, "restartCount": "many"}
    read = podstatus.restored(odd)
    assert read.restarts == 0
    assert isinstance(read.state, Terminated)
    assert read.state.exit_code == 255
