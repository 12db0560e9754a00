"""Options of the whole test suite."""

import pytest

pytest_plugins = ["tests.clients.matrixplugin"]


SHARED = ("attack", "clients", "e2e")  # folders whose files share servers, and meet what those before left


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs in one process, and in the order of its collection, when files of tests run side by side."""
    for item in items:
        folder, *_ = item.nodeid.removeprefix("tests/").split("/")
        item.add_marker(pytest.mark.xdist_group(folder if folder in SHARED else item.nodeid.split("::")[0]))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew; read the difference")
