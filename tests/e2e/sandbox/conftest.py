"""Sandbox members for kubectl, each test in a namespace of its own: directly, and through the gateway by both ways."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.e2e.sandbox import members
from tests.e2e.sandbox.members import Member, Running


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("sandbox")) as started:
        yield started


# Through the gateway, `make up` registers the first sandbox member by certificate and the second one by token.
@pytest.fixture(params=["direct", "sandbox-1", "sandbox-2"], ids=["direct", "gateway-x509", "gateway-token"])
def kubectl(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Member]:
    """kubectl in a namespace of the test's own, which goes with it."""
    if request.param == "direct":
        access = request.getfixturevalue("running").access
        member = Member(tmp_path, members.kubeconfig(access), access)
    else:
        config = yaml.safe_load(request.getfixturevalue("gateway").kubeconfig.read_text())
        member = Member(tmp_path, yaml.safe_dump(config | {"current-context": request.param}))
    name = f"t{time.monotonic_ns()}"
    member("create", "namespace", name)
    member("config", "set-context", "--current", f"--namespace={name}")
    yield member
    for process in member.started:
        process.kill()
        process.communicate()
    member("delete", "namespace", name)
