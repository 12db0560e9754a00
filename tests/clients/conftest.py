"""Prints the client matrix when a run ends, and fails a whole run in which a row is empty without a reason."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.clients import access
from tests.clients.access import Access, Member, Proven
from tests.clients.matrix import Matrix
from tests.e2e import conftest as e2e
from tests.e2e.conftest import Gateway
from tests.e2e.sandbox.members import Running
from tests.programs import golang, kubemembers
from tests.programs.gomembers import GoMember

MATRIX = pytest.StashKey[Matrix]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "client(name): a test of this client, a row of the client matrix")
    config.stash[MATRIX] = Matrix()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("client"):
            config.stash[MATRIX].clients.add(mark.args[0])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        for mark in item.iter_markers("client"):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            item.config.stash[MATRIX].reasons.setdefault(mark.args[0], reason)
    return report


def whole(config: pytest.Config) -> bool:
    """Every test of a file was to run: nothing was picked by name, marker or number, nor stopped at a failure."""
    option = config.option
    return not (option.keyword or option.markexpr or option.maxfail or option.collectonly) and not any(
        "::" in argument for argument in config.args
    )


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """What a worker of a divided run tells when it ends."""
    node.config.stash[MATRIX].merge(node.workeroutput.get("matrix", {}))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["matrix"] = session.config.stash[MATRIX].told()
        return
    if exitstatus == pytest.ExitCode.OK and whole(session.config) and session.config.stash[MATRIX].empty():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    matrix = config.stash[MATRIX]
    if not matrix.clients or config.option.collectonly:
        return
    terminalreporter.section("client matrix")
    for line in matrix.lines():
        terminalreporter.write_line(line)
    for row in matrix.empty() if whole(config) else ():
        terminalreporter.write_line(f"error: {row}: nothing ran, and nothing says why", red=True)


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
