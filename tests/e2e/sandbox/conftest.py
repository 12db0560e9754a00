"""One sandbox member for the tests of a module, and a namespace for each test."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.sandbox.members import (
    Member,
    Running,
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("sandbox")) as started:
        yield started


@pytest.fixture
def kubectl(running: Running, tmp_path: Path) -> Iterator[Member]:
    """kubectl in a namespace of the test's own, which goes with it."""
    assert running.access is not None
    member = Member(tmp_path, running.access)
    name = f"t{time.monotonic_ns()}"
    member("create", "namespace", name)
    member("config", "set-context", "--current", f"--namespace={name}")
    yield member
    for process in member.started:
        process.kill()
        process.communicate()
    member("delete", "namespace", name)
