"""Ages, and rows."""

import pytest

from onepass.api.errors import ApiError
from onepass.api.meta import Object
from onepass.apiserver import printers
from onepass.registry import ages, catalog
from onepass.registry.strategy import Strategy
from onepass.sandbox import kinds

MINUTE, HOUR, DAY = 60, 3600, 86400
YEAR = 365 * DAY


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        # k8s.io/apimachinery/pkg/util/duration
        (-2, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (1.9, "1s"),
        (119, "119s"),
        (2 * MINUTE, "2m"),
        (2 * MINUTE + 5, "2m5s"),
        (9 * MINUTE + 59, "9m59s"),
        (10 * MINUTE + 59, "10m"),
        (3 * HOUR - 1, "179m"),
        (3 * HOUR, "3h"),
        (3 * HOUR + 7 * MINUTE + 59, "3h7m"),
        (8 * HOUR + 59 * MINUTE, "8h"),
        (48 * HOUR - 1, "47h"),
        (2 * DAY, "2d"),
        (2 * DAY + 5 * HOUR, "2d5h"),
        (8 * DAY + 5 * HOUR, "8d"),
        (2 * YEAR - 1, "729d"),
        (2 * YEAR, "2y"),
        (2 * YEAR + 3 * DAY, "2y3d"),
        (8 * YEAR + 3 * DAY, "8y"),
    ],
)
def test_durations_are_told_in_two_units_at_most(seconds: float, told: str) -> None:
    assert ages.human_duration(seconds) == told


@pytest.mark.parametrize(
    ("created", "told"), [("2026-01-31T12:00:00Z", "5m"), ("", "<unknown>"), ("yesterday", "<unknown>")]
)
def test_an_age_is_told_from_the_creation(created: str, told: str) -> None:
    obj: Object = {"metadata": {"creationTimestamp": created}}
    assert ages.age(obj, 1769860800.0 + 5 * MINUTE) == told


def test_only_three_things_can_be_included() -> None:
    assert [printers.check_include(value) for value in ("", "None", "Object")] == ["Metadata", "None", "Object"]
    with pytest.raises(ApiError):
        printers.check_include("Everything")


# Name of the column, and whether only `-o wide` shows it, as k8s.io/kubernetes/pkg/printers/internalversion has them.
COLUMNS = {
    "namespaces": "Name Status Age",
    "serviceaccounts": "Name Age",
    "certificatesigningrequests.certificates.k8s.io": "Name Age SignerName Requestor RequestedDuration Condition",
    "clusterroles.rbac.authorization.k8s.io": "Name Created_At",
    "roles.rbac.authorization.k8s.io": "Name Created_At",
    "clusterrolebindings.rbac.authorization.k8s.io": "Name Role Age (Users) (Groups) (ServiceAccounts)",
    "rolebindings.rbac.authorization.k8s.io": "Name Role Age (Users) (Groups) (ServiceAccounts)",
    "configmaps": "Name Data Age",
    "secrets": "Name Type Data Age",
    "services": "Name Type Cluster-IP External-IP Port(s) Age (Selector)",
    "events": "Last_Seen Type Reason Object (Subobject) (Source) Message (First_Seen) (Count) (Name)",
    "nodes": "Name Status Roles Age Version (Internal-IP) (External-IP) (OS-Image) (Kernel-Version) "
    "(Container-Runtime)",
    "pods": "Name Ready Status Restarts Age (IP) (Node) (Nominated_Node) (Readiness_Gates)",
}


@pytest.mark.parametrize(
    "strategy",
    {s.resource.key: s for s in (*catalog.gateway(), *kinds.member("node"))}.values(),
    ids=lambda strategy: strategy.resource.key,
)
def test_the_columns_of_a_kind_are_those_of_a_real_server(strategy: Strategy) -> None:
    shown = printers.columns(strategy)
    assert all(column.description for column in shown)
    assert [column.name for column in shown if column.format == "name"] == ["Name"]
    told = [column.name.replace(" ", "_") for column in shown]
    told = [f"({name})" if column.priority else name for name, column in zip(told, shown, strict=True)]
    if strategy.resource.group.endswith("karpor.io"):
        assert (told[0], "Age" in told) == ("Name", True)  # not Kubernetes' own
    else:
        assert " ".join(told) == COLUMNS[strategy.resource.key]
    empty: Object = {"metadata": {"name": "x"}}
    assert all(isinstance(column.cell(empty, 0.0), str | int | None) for column in shown)
