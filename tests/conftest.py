"""Options of the whole test suite."""

import pytest

pytest_plugins = ["tests.clients.matrixplugin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew; read the difference")
