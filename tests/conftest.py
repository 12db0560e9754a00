"""Options of the whole test suite, and which of its tests run in one process when files of tests run side by side."""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

pytest_plugins = ["tests.clients.matrixplugin"]
SHARED = ("tests/attack/", "tests/clients/", "tests/e2e/")  # files that share servers, and meet what those before left


class ByServers(LoadFileScheduling):
    """The files of a folder that shares servers in one process and in their order, every other file by itself."""

    def _split_scope(self, nodeid: str) -> str:
        return next((folder for folder in SHARED if nodeid.startswith(folder)), super()._split_scope(nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByServers:
    return ByServers(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew; read the difference")
