"""Prints the client matrix when a run ends, and fails a whole run in which a row is empty without a reason.

A plugin and no conftest, as in a divided run the process that prints collects no tests.
"""

from collections.abc import Generator
from typing import Any

import pytest
from tests.clients.matrix import Matrix

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
    picked = option.keyword or option.markexpr or option.maxfail or option.collectonly or config.getoption("lf", False)
    return not picked and not any("::" in argument for argument in config.args)


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
