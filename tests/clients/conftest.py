"""What the tests of clients share: a gateway, members, and the matrix that they fill."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.clients import access
from tests.clients.access import Access, Member, Proven
from tests.clients.matrix import Matrix
from tests.clients.matrixplugin import MATRIX
from tests.e2e import conftest as e2e
from tests.e2e.conftest import Gateway
from tests.e2e.sandbox.members import Running
from tests.programs import golang, kubemembers
from tests.programs.gomembers import GoMember


@pytest.fixture(scope="session")
def matrix(pytestconfig: pytest.Config) -> Matrix:
    return pytestconfig.stash[MATRIX]


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for every client, with a sandbox member."""
    with e2e.running(tmp_path_factory.mktemp("clients"), "--sandbox", "1") as started:
        yield started


@pytest.fixture(scope="session")
def kubemember(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoMember]:
    """A member that is Kubernetes' own kube-apiserver. Skips without Go."""
    try:
        with kubemembers.running(tmp_path_factory.mktemp("kubemember")) as member:
            yield member
    except golang.GoMissing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def member(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    """Kubernetes' own kube-apiserver, directly and through the gateway; without Go a sandbox member."""
    ways = tmp_path_factory.mktemp("ways")
    with ExitStack() as stack:
        try:
            kube = stack.enter_context(kubemembers.running(tmp_path_factory.mktemp("member")))
            proven = Proven(kube.endpoint, kube.ca.encode(), kube.certificate.encode(), kube.key.encode(), kube.token)
            yield access.member(gateway, ways, "kube", proven, real=True)
        except golang.GoMissing:
            sandbox = stack.enter_context(Running(tmp_path_factory.mktemp("member"))).access
            assert sandbox is not None
            proven = Proven(sandbox.endpoint, sandbox.ca, sandbox.certificate, sandbox.private_key, sandbox.token)
            yield access.member(gateway, ways, "east", proven, real=False)


@pytest.fixture(scope="session")
def own(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Access]:
    """The gateway's own API, by a certificate and by a token."""
    return access.own(gateway, tmp_path_factory.mktemp("own"), "sandbox-1")


@pytest.fixture(scope="session")
def helm() -> Path:
    """helm, built from its Go module. Skips without Go."""
    try:
        return golang.build(Path(golang.__file__).parent / "helm", "helm.sh/helm/v4/cmd/helm")
    except golang.GoMissing as missing:
        pytest.skip(str(missing))
