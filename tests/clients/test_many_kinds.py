"""A member with 500 kinds of its own: finding out about them costs no more requests through the gateway than directly.

Counted are the requests that kubectl says it sends, with an empty discovery cache and with a filled one. All ways share
one home folder, as a person's contexts do, so that a cache of one cluster must not be taken for that of another.
"""

import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.clients import access, kubectls
from tests.clients.access import Access, Member, Proven
from tests.clients.kubectls import Kubectl
from tests.e2e.conftest import Gateway
from tests.programs import golang, kubemembers
from tests.programs.debian import DebianMissing

pytestmark = pytest.mark.e2e

GROUPS, KINDS = 25, 20
LAST = f"gadget{KINDS - 1}s.group{GROUPS - 1}.example.com"
_REQUEST = re.compile(r"""(?:GET |verb="GET" url=")(https://[^\s"]+)""")


def definition(group: str, number: int) -> dict[str, object]:
    name = f"gadget{number}"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{name}s.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": f"{name}s", "singular": name, "kind": name.capitalize()},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


def known(way: Access) -> int:
    listed = kubectls.newest().run(way, "api-resources", "-o", "name")
    return sum(line.startswith("gadget") for line in listed.stdout.splitlines())


@pytest.fixture(scope="module")
def many(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    try:
        with kubemembers.running(tmp_path_factory.mktemp("many")) as kube:
            proven = Proven(kube.endpoint, kube.ca.encode(), kube.certificate.encode(), kube.key.encode(), kube.token)
            made = access.member(gateway, tmp_path_factory.mktemp("ways-to-many"), "many", proven, real=True)
            items = [definition(f"group{n}.example.com", k) for n in range(GROUPS) for k in range(KINDS)]
            content = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
            done = kubectls.newest().run(made.direct, "create", "-f", "-", input=content)
            assert done.returncode == 0, done.stderr
            deadline = time.monotonic() + kubectls.DEADLINE
            while known(made.direct) < GROUPS * KINDS:
                assert time.monotonic() < deadline, "not all kinds are served"
                time.sleep(0.5)
            yield made
    except golang.GoMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(params=["newest", "Debian"])
def kubectl(request: pytest.FixtureRequest) -> Kubectl:
    if request.param == "newest":
        return kubectls.newest()
    try:
        return kubectls.of_debian()
    except DebianMissing as missing:
        pytest.skip(str(missing))


def requests(kubectl: Kubectl, way: Access, home: Path, *arguments: str) -> Sequence[str]:
    """The paths that it asks for."""
    done = kubectl.run(way, *arguments, "-v=6", env={"HOME": str(home)})
    assert done.returncode == 0, done.stderr
    return sorted(url.removeprefix(way.server) for url in _REQUEST.findall(done.stderr))


def test_it_takes_no_more_requests_than_directly(many: Member, kubectl: Kubectl, tmp_path: Path) -> None:
    commands = (
        ("get", LAST, "-n", "default"),  # with an empty cache
        ("get", LAST, "-n", "default"),
        ("api-resources",),
        ("get", "gadget3", "-n", "default"),
    )
    for command in commands:
        directly = requests(kubectl, many.direct, tmp_path, *command)
        for way in many.through.values():
            assert requests(kubectl, way, tmp_path, *command) == directly
        assert directly


def test_what_is_cached_of_one_cluster_is_not_taken_for_another(
    many: Member, member: Member, kubectl: Kubectl, tmp_path: Path
) -> None:
    requests(kubectl, many.certificate, tmp_path, "get", LAST, "-n", "default")
    other = kubectl.run(member.certificate, "get", LAST, "-n", "default", env={"HOME": str(tmp_path)})
    assert "the server doesn't have a resource type" in other.stderr
    requests(kubectl, many.certificate, tmp_path, "get", LAST, "-n", "default")
