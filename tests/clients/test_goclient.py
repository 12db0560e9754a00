"""client-go: what it does on a cluster, and on the same cluster through the gateway, may not differ.
What the gateway's own API answers may differ from a cluster's only where this file says so."""

import json
import re
import secrets
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.clients.matrix import MEMBER, OWN, Matrix
from tests.e2e import ways
from tests.e2e.conftest import Gateway
from tests.e2e.ways import Way
from tests.programs import golang
from tests.programs.gomembers import GoMember

CLIENT = "client-go"
SOURCE = Path(golang.__file__).parent / "goclient"
pytestmark = [pytest.mark.e2e, pytest.mark.client(CLIENT)]

Transcript = Mapping[str, Mapping[str, Any]]  # step -> its line

# Steps that are to fail, and the code of the Status. All others are to succeed.
FAILING = {
    "typed: create what exists": 409,
    "typed: create with an invalid name": 422,
    "typed: create in another namespace than the path's": 400,
    "typed: create in a namespace that is not there": 404,
    "typed: get what is not there": 404,
    "typed: update what changed meanwhile": 409,
    "typed: JSON patch whose test fails": 422,
    "typed: patch that is no JSON": 400,
    "apply: conflict": 409,
    "list: by a field that is none": 400,
    "list: bad label selector": 400,
    "list: bad continue": 400,
    "delete: precondition of another uid": 409,
    "delete: what is not there": 404,
    "certificate request: of nonsense": 422,
    "watch: a version that is none": 500,
    "kinds: more than an object may hold": 422,
    "kinds: more than a request may hold": 413,
    "kinds: custom resource, not of its schema": 422,
    "kinds: custom resource, against a rule": 422,
    "kinds: custom resource, applied": 409,
    "logs: of a container that is none": 400,
}

# Where the gateway answers for a member: docs/decisions/self-reviews.md.
BY_THE_GATEWAY = {"review: who am I"}

# Where the own API may answer otherwise than kube-apiserver: step, place in the line, why. Patterns.
OWN_WAYS = (
    (r"discovery: .*|openapi .*", r".*", "it has fewer kinds"),
    (r"review: who am I", r".*", "it is somebody else who asks"),
    (r"namespace: create", r"/result/spec/finalizers|.*/fieldsV1/f:(spec|metadata)", "its namespaces go at once"),
    (
        r"list: metadata alone",
        r"/result/items/\d+/(apiVersion|kind)",
        "in JSON items name their kind",
    ),
    (r"list: as a table", r"/result/columnDefinitions/\d+/description", "its own words"),
    (r"watch: a version that is none", r"/error/.*", "400, where kube-apiserver faults with 500"),
    (r"typed: JSON patch whose test fails|typed: patch that is no JSON", r"/error/(message|details)", "says more"),
    (r"list: bad .*|certificate request: of nonsense", r"/error/(message|details/causes/0/message)", "its own words"),
)


@pytest.fixture(scope="session")
def goclient() -> Path:
    try:
        return golang.build(SOURCE)
    except golang.GoMissing as missing:
        pytest.skip(str(missing))


def version() -> str:
    found = re.search(r"k8s\.io/client-go (v\S+)", (SOURCE / "go.mod").read_text())
    assert found is not None
    return found[1]


def transcript(goclient: Path, way: Way, *options: str) -> Transcript:
    namespace = f"goclient-{secrets.token_hex(4)}"
    done = subprocess.run(
        [goclient, "-kubeconfig", way.directory / "config", "-namespace", namespace, *options],
        env=way.environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {line["step"]: line for line in map(json.loads, done.stdout.splitlines())}


def outcome(step: str, line: Mapping[str, Any]) -> str:
    """Why the step did not end as it was to, or nothing."""
    if step not in FAILING:
        return f"failed: {line['error']}" if "error" in line else ""
    error = line.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return "" if code == FAILING[step] else f"was to fail with {FAILING[step]}: {line}"


def difference(one: object, other: object, path: str = "") -> Iterator[str]:
    """Where two values differ, each place a line."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from difference(one.get(key), other.get(key), f"{path}/{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from difference(a, b, f"{path}/{index}")
    elif one != other:
        yield f"{path}: {one!r} is {other!r}"


def judge(matrix: Matrix, target: str, problems: Mapping[str, str]) -> None:
    """Put every step into the matrix; fail with all that did not pass."""
    for step, problem in problems.items():
        matrix.add(CLIENT, version(), target, step, "failed" if problem else "passed", problem)
    assert {step: problem for step, problem in problems.items() if problem} == {}


@pytest.fixture(scope="module")
def registered(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Callable[[GoMember, str], Way]:
    """Registers a member by one of its credentials, and gives a way to it for a user with one of that kind."""

    def register(member: GoMember, by: str) -> Way:
        name = f"goclient-{by}"
        gateway.register(name, endpoint=member.endpoint, ca=member.ca.encode(), **member.proof(by))
        way = ways.through(tmp_path_factory.mktemp(name), gateway.kubeconfig, gateway.url, name, by)
        return way if by == "x509" else robot(gateway, way)

    return register


def robot(gateway: Gateway, way: Way) -> Way:
    """The same way for a service account that may do everything."""
    name = f"robot-{secrets.token_hex(4)}"
    gateway.kubectl("create", "serviceaccount", name, "-n", "default", context="onepass")
    subject = f"--serviceaccount=default:{name}"
    gateway.kubectl("create", "clusterrolebinding", name, "--clusterrole=cluster-admin", subject, context="onepass")
    token = gateway.kubectl("create", "token", name, "-n", "default", context="onepass").stdout.strip()
    made = Way(way.directory, way.by, way.server, way.ca, {"token": token})
    until_allowed(made)
    return made


def until_allowed(way: Way) -> None:
    """A permission is in force within a second of its writing."""
    until = time.monotonic() + ways.DEADLINE
    while (done := way.kubectl("get", "--raw", "/api/v1/namespaces")).returncode != 0:
        assert time.monotonic() < until, done.stderr


@pytest.fixture(scope="module")
def straight(
    goclient: Path, kubemember: GoMember, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Transcript]:
    """What client-go does on the member directly, by either credential."""
    return {
        by: transcript(goclient, ways.direct(tmp_path_factory.mktemp(f"straight-{by}"), kubemember, by))
        for by in ("x509", "token")
    }


def test_the_steps_do_what_they_say(straight: Mapping[str, Transcript]) -> None:
    for lines in straight.values():
        assert {step: problem for step, line in lines.items() if (problem := outcome(step, line))} == {}


@pytest.mark.parametrize("by", ["x509", "token"])
def test_a_member_is_the_same_through_the_gateway(
    goclient: Path,
    kubemember: GoMember,
    straight: Mapping[str, Transcript],
    registered: Callable[[GoMember, str], Way],
    matrix: Matrix,
    by: str,
) -> None:
    through = transcript(goclient, registered(kubemember, by))
    assert list(through) == list(straight[by])
    compared = {step: list(difference(straight[by][step], line)) for step, line in through.items()}
    judge(matrix, MEMBER, {step: "" if step in BY_THE_GATEWAY else "; ".join(each) for step, each in compared.items()})


def unexplained(step: str, places: Iterable[str]) -> Iterator[str]:
    """The differences that OWN_WAYS does not allow."""
    for each in places:
        place = each.partition(": ")[0]
        if not any(re.fullmatch(a, step) and re.fullmatch(b, place) for a, b, _ in OWN_WAYS):
            yield each


def test_the_own_api_is_as_a_cluster(
    goclient: Path,
    gateway: Gateway,
    straight: Mapping[str, Transcript],
    matrix: Matrix,
    tmp_path: Path,
) -> None:
    lines = transcript(goclient, ways.through(tmp_path, gateway.kubeconfig, gateway.url, "", "x509", ""), "-own")
    assert len(lines) > 50
    problems = {}
    for step, line in lines.items():
        told = unexplained(step, difference(straight["x509"][step], line))
        succeeds = step in FAILING or "error" not in line
        problems[step] = "; ".join(told) if succeeds else f"failed: {line['error']}"
    judge(matrix, OWN, problems)
