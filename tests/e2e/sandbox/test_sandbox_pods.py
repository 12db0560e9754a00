"""A sandbox member under the real kubectl: the life of a pod, and its logs."""

import json
import os
from pathlib import Path

import pytest
from tests.e2e.sandbox import members
from tests.e2e.sandbox.members import Member, Running, first_line, read_line
from tests.waiting import eventually

pytestmark = pytest.mark.e2e


def test_a_pod_runs_is_described_and_goes(kubectl: Member) -> None:
    kubectl.pod("web", "sleep", "1000")
    row = kubectl("get", "pods", "-o", "wide").splitlines()[1].split()
    assert row[:4] == ["web", "1/1", "Running", "0"]
    assert row[5] == "127.0.0.1"
    assert row[6].endswith("-node")
    described = kubectl("describe", "pod", "web")
    for reason in ("Scheduled", "Pulled", "Created", "Started"):
        assert reason in described
    assert "Started container web" in kubectl("get", "events")
    kubectl("delete", "pod", "web")
    assert "not found" in kubectl.run("get", "pod", "web", check=False).stderr
    assert "Killing" in kubectl("get", "events")


def test_a_pod_gets_its_time_to_end_and_no_more(kubectl: Member) -> None:
    polite = "trap 'echo bye; exit 0' TERM; echo up; while true; do sleep 0.05; done"
    kubectl.pod("polite", "sh", "-c", polite)
    follow = kubectl.start("logs", "-f", "polite")
    read_line(follow, lambda line: line == "up\n")
    kubectl("delete", "pod", "polite", "--grace-period=60")
    assert read_line(follow, lambda line: line == "bye\n")
    kubectl.pod("deaf", "sh", "-c", "trap '' TERM; while true; do sleep 0.05; done")
    kubectl("delete", "pod", "deaf", "--grace-period=1")
    kubectl.pod("forced", "sh", "-c", "trap '' TERM; while true; do sleep 0.05; done")
    kubectl("delete", "pod", "forced", "--grace-period=0", "--force")


def test_what_a_container_leaves_behind_ends_with_it(kubectl: Member) -> None:
    kubectl.pod("parent", "sh", "-c", "setsid sleep 4321 & echo $!; wait")
    orphan = int(first_line(kubectl, "parent"))
    os.kill(orphan, 0)
    kubectl("delete", "pod", "parent", "--now")
    eventually(lambda: not Path(f"/proc/{orphan}").exists())


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (3, "Failed")])
def test_a_pod_that_ends_tells_how(kubectl: Member, code: int, phase: str) -> None:
    kubectl("run", "once", "--image=busybox", "--restart=Never", "--", "sh", "-c", f"echo done; exit {code}")
    kubectl("wait", f"--for=jsonpath={{.status.phase}}={phase}", "pod/once", "--timeout=60s")
    state = json.loads(kubectl("get", "pod", "once", "-o", "jsonpath={.status.containerStatuses[0].state}"))
    assert state["terminated"]["exitCode"] == code
    assert kubectl("logs", "once") == "done\n"


def test_a_container_that_fails_starts_again_and_its_last_words_are_kept(kubectl: Member) -> None:
    kubectl("run", "crash", "--image=busybox", "--", "sh", "-c", "echo run $$; exit 1")
    reason = "jsonpath={.status.containerStatuses[0].state.waiting.reason}"
    kubectl("wait", f"--for={reason}=CrashLoopBackOff", "pod/crash", "--timeout=60s")

    def waits_again() -> bool:
        ready, status, restarts = kubectl("get", "pod", "crash").splitlines()[1].split()[1:4]
        return (ready, status) == ("0/1", "CrashLoopBackOff") and int(restarts) >= 1

    eventually(waits_again)  # the wait may be over by now, and the next one begins
    now, before = kubectl("logs", "crash"), kubectl("logs", "crash", "--previous")
    assert now.startswith("run ")
    assert before.startswith("run ")
    assert now != before


def test_init_containers_run_before_and_variables_come_from_objects(kubectl: Member) -> None:
    kubectl("create", "configmap", "settings", "--from-literal=colour=blue")
    kubectl("create", "secret", "generic", "hidden", "--from-literal=word=swordfish")
    main = {
        "name": "main",
        "image": "busybox",
        "command": ["sh", "-c", "echo $POD $COLOUR $WORD $(GREETING); sleep 1000"],
        "env": [
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
            {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "word"}}},
            {"name": "GREETING", "value": "hello-$(POD)"},
        ],
    }
    init = {"name": "first", "image": "busybox", "command": ["sh", "-c", "echo first"]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "two"},
        "spec": {"initContainers": [init], "containers": [main]},
    }
    kubectl("apply", "-f", "-", input=json.dumps(pod))
    kubectl("wait", "--for=condition=Ready", "pod/two", "--timeout=60s")
    assert kubectl("logs", "two", "-c", "first") == "first\n"
    eventually(lambda: kubectl("logs", "two") == "two blue swordfish hello-two\n")


def test_a_pod_without_a_program_says_what_to_do(kubectl: Member) -> None:
    kubectl("run", "odd", "--image=example.com/none:1")
    reason = "jsonpath={.status.containerStatuses[0].state.waiting.reason}"
    kubectl("wait", f"--for={reason}=ErrImagePull", "pod/odd", "--timeout=60s")
    assert "give the container a command" in kubectl("describe", "pod", "odd")
    assert "is waiting to start" in kubectl.run("logs", "odd", check=False).stderr


def test_a_deleted_namespace_takes_its_pods_along(kubectl: Member) -> None:
    kubectl("create", "namespace", "doomed")
    kubectl("run", "p", "-n", "doomed", "--image=busybox")
    kubectl("wait", "-n", "doomed", "--for=condition=Ready", "pod/p", "--timeout=60s")
    kubectl("delete", "namespace", "doomed")
    eventually(lambda: "doomed" not in kubectl("get", "pods", "-A"))


def test_logs_are_cut_as_asked(kubectl: Member) -> None:
    kubectl.pod("talk", "sh", "-c", "for i in 1 2 3 4 5; do echo line $i; done; echo odd >&2; sleep 1000")
    eventually(lambda: "odd" in kubectl("logs", "talk"))
    assert kubectl("logs", "talk", "--tail=2").splitlines()[-1] in ("odd", "line 5")
    assert kubectl("logs", "talk", "--limit-bytes=6") == "line 1"
    assert kubectl("logs", "talk", "--tail=0") == ""
    stamp, text = kubectl("logs", "talk", "--timestamps", "--tail=1").split(" ", 1)
    assert stamp.endswith("Z")
    assert text in ("odd\n", "line 5\n")
    assert kubectl("logs", "talk", "--since=1h").count("line") == 5
    assert kubectl("logs", "talk", "--since-time=2200-01-01T00:00:00Z") == ""
    wrong = kubectl.run("logs", "talk", "-c", "none", check=False)
    assert "container none is not valid for pod talk" in wrong.stderr


def test_logs_are_followed_until_the_container_ends(kubectl: Member) -> None:
    kubectl("run", "count", "--image=busybox", "--restart=Never", "--", "sh", "-c", "echo one; read x; echo two")
    kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/count", "--timeout=60s")
    assert kubectl("logs", "-f", "count") == "one\ntwo\n"


def test_a_second_start_finds_its_objects_and_runs_its_pods_again(tmp_path: Path) -> None:
    for count in range(2):
        with Running(tmp_path) as started:
            assert started.access is not None
            folder = tmp_path / f"kubectl{count}"
            folder.mkdir()
            kubectl = Member(folder, members.kubeconfig(started.access), started.access)
            if count == 0:
                kubectl.pod("lasting", "sh", "-c", "echo $$; sleep 1000")
                kubectl("run", "once", "--image=busybox", "--restart=Never", "--", "sh", "-c", "echo ended")
                kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/once", "--timeout=60s")
                pid = int(first_line(kubectl, "lasting"))
            else:
                assert not Path(f"/proc/{pid}").exists()
                restarts = "jsonpath={.status.containerStatuses[0].restartCount}"
                kubectl("wait", f"--for={restarts}=1", "pod/lasting", "--timeout=60s")
                assert kubectl("logs", "lasting", "--previous").strip() == str(pid)
                assert kubectl("logs", "once") == "ended\n"
                assert kubectl("get", "pod", "once", "-o", "jsonpath={.status.phase}") == "Succeeded"
