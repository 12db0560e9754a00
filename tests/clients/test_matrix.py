"""The matrix counts what it is told, keeps reasons, and knows a row that is empty without one."""

import pytest
from tests.clients.matrix import MEMBER, OWN, Matrix


def test_what_becomes_of_a_step_is_recorded() -> None:
    matrix = Matrix()
    with matrix.record("kubectl", "v1", OWN, "get"):
        pass
    with pytest.raises(AssertionError), matrix.record("kubectl", "v1", OWN, "list"):
        raise AssertionError("two lines\nof reason")
    with pytest.raises(pytest.skip.Exception), matrix.record("kubectl", "v1", OWN, "exec"):
        pytest.skip("no pods here")
    assert [(step.name, step.outcome, step.reason) for step in matrix.steps] == [
        ("get", "passed", ""),
        ("list", "failed", "two lines"),
        ("exec", "skipped", "no pods here"),
    ]
    table = list(matrix.lines())
    assert table[1].split() == ["kubectl", "v1", "own", "API", "1", "1", "1"]
    assert table[2:] == [
        "failed: kubectl v1, own API, list: two lines",
        "skipped: kubectl v1, own API, exec: no pods here",
    ]


def test_a_row_that_is_empty_without_a_reason_is_known() -> None:
    matrix = Matrix(clients={"kubectl", "helm"})
    matrix.add("kubectl", "v1", OWN, "get", "passed")
    assert matrix.empty() == [f"helm, {OWN}", f"helm, {MEMBER}", f"kubectl, {MEMBER}"]
    matrix.reasons["helm"] = "there is no helm"
    assert matrix.empty() == [f"kubectl, {MEMBER}"]
    assert sum("not run: there is no helm" in line for line in matrix.lines()) == 2


def test_a_step_needs_a_known_target_and_a_skip_its_reason() -> None:
    with pytest.raises(ValueError, match="none of"):
        Matrix().add("kubectl", "v1", "the moon", "get", "passed")
    with pytest.raises(ValueError, match="without a reason"):
        Matrix().add("kubectl", "v1", OWN, "get", "skipped")
