"""The official client libraries on a member, directly and through the gateway, and on the gateway's own API.

Through the gateway each sees what it sees of the member itself; the own API answers as Kubernetes' own kube-apiserver.
"""

from collections.abc import Iterator, Mapping

import pytest
from tests.clients import kubectlstreams, sdks
from tests.clients.access import Access, Member
from tests.clients.matrix import MEMBER, OWN, Matrix
from tests.clients.sdks import Sdk, Transcript

pytestmark = pytest.mark.e2e

RULE = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
# What a client is to see of the kinds that the gateway alone has.
ON_OWN: Mapping[str, Mapping[str, object]] = {
    "client-python": {
        "clusters": ["P", True],
        "passes": [True, [422, "Invalid"], [RULE], [404, "NotFound"]],
        "certificate": ["CN=jane", ["Approved"]],
    },
    "client-javascript": {"clusters": True, "passes": [True, [404, "NotFound"]], "certificate": "CN=jane"},
    "client-java": {"clusters": True},
}


@pytest.fixture(
    scope="module", params=[pytest.param(s, marks=pytest.mark.client(s.name), id=s.name) for s in sdks.SDKS]
)
def sdk(request: pytest.FixtureRequest) -> Sdk:
    found: Sdk = request.param
    try:
        found.build()
    except sdks.SdkMissing as missing:
        pytest.skip(str(missing))
    return found


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with kubectlstreams.echo() as number:
        yield number


@pytest.fixture(scope="module")
def direct(sdk: Sdk, member: Member, port: int) -> Transcript:
    """What the client sees of the member itself: the measure of the others."""
    told = sdk.run(member.direct, "member", sdk.name, port)
    assert told.errors == {}
    return told


def compared(sdk: Sdk, matrix: Matrix, target: str, way: str, told: Transcript, measure: Transcript) -> list[str]:
    """Records each step; gives those that failed."""
    failures = []
    for step in told.steps:
        reason = told.errors.get(step, "")
        if not reason and step in measure.values and told.values[step] != measure.values[step]:
            reason = f"saw {told.values[step]}, and of the member itself {measure.values[step]}"
        matrix.add(sdk.name, told.version, target, f"{step} ({way})", "failed" if reason else "passed", reason)
        failures += [f"{step}: {reason}"] if reason else []
    return failures


@pytest.mark.parametrize("way", ["certificate", "token"])
def test_a_member_through_the_gateway(
    sdk: Sdk, member: Member, direct: Transcript, port: int, way: str, matrix: Matrix
) -> None:
    told = sdk.run(member.through[way], "member", sdk.name, port)
    assert compared(sdk, matrix, MEMBER, way, told, direct) == []
    assert told.steps == direct.steps


def test_the_gateways_own_api(
    sdk: Sdk, own: Mapping[str, Access], direct: Transcript, port: int, matrix: Matrix
) -> None:
    told = sdk.run(own["token"], "own", sdk.name, port)
    assert compared(sdk, matrix, OWN, "token", told, direct) == []
    assert told.values.items() >= ON_OWN[sdk.name].items()
