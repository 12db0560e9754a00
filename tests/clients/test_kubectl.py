"""The newest and the oldest kubectl: what each prints and how it ends, on the gateway's own API and on a member, where it
may not differ from what the same kubectl prints when it asks the member itself."""

from collections.abc import Iterator, Mapping, Sequence

import pytest
from tests.clients import kubectls
from tests.clients import kubectlsteps as steps
from tests.clients.access import Access, Member
from tests.clients.kubectls import Kubectl, Said
from tests.clients.kubectlsteps import Step
from tests.clients.matrix import MEMBER, OWN, Matrix

pytestmark = pytest.mark.e2e

NEWEST, DEBIAN = "kubectl (newest)", "kubectl (Debian)"
EVERYWHERE = (*steps.BEGINNINGS, *steps.DISCOVERY, *steps.FORMS, *steps.WRITES)


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.client(name), id=name[9:-1]) for name in (NEWEST, DEBIAN)],
)
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def kubectl(client: str) -> Kubectl:
    if client == NEWEST:
        return kubectls.newest()
    try:
        return kubectls.debians()
    except kubectls.KubectlMissing as missing:
        pytest.skip(str(missing))


def asked(kubectl: Kubectl, steps: Sequence[Step]) -> Iterator[Step]:
    return (step for step in steps if step.since <= kubectl.minor < step.before)


def say(kubectl: Kubectl, access: Access, step: Step) -> Said:
    editor = {"KUBE_EDITOR": f"sed -i -e '{step.editor}'"} if step.arguments[0] == "edit" else {}
    return kubectl.said(access, *step.arguments, input=step.input, env=editor)


def wrong(step: Step, said: Said) -> str:
    """What is not as it should be, or nothing."""
    if said.code != step.code:
        return f"exit {said.code}, not {step.code}: {said.out[-300:]}{said.err[-300:]}"
    if step.has not in said.out + said.err:
        return f"{step.has!r} is not in {said.out[-600:]!r} nor in {said.err[-300:]!r}"
    return ""


def run(
    kubectl: Kubectl, ways: Mapping[str, Access], listed: Sequence[Step]
) -> Iterator[tuple[str, Step, Mapping[str, Said]]]:
    """All commands by one way after the other: what they leave behind, the next finds as the one before did."""
    chosen = list(asked(kubectl, listed))
    told = {way: [say(kubectl, access, step) for step in chosen] for way, access in ways.items()}
    for number, step in enumerate(chosen):
        yield f"{number} {step.typed}", step, {way: said[number] for way, said in told.items()}


def test_the_gateways_own_api(kubectl: Kubectl, client: str, own: Mapping[str, Access], matrix: Matrix) -> None:
    failures = []
    for name, step, told in run(kubectl, own, (*EVERYWHERE, *steps.OWN, *steps.RIGHTS, *steps.ENDINGS)):
        for way, said in told.items():
            reason = wrong(step, said)
            matrix.add(client, kubectl.version, OWN, f"{name} ({way})", "failed" if reason else "passed", reason)
            failures += [f"{name} ({way}): {reason}"] if reason else []
    assert failures == []


def test_a_member(kubectl: Kubectl, client: str, member: Member, matrix: Matrix) -> None:
    ways = {"direct": member.direct, **member.through}
    failures = []
    for name, step, told in run(kubectl, ways, (*EVERYWHERE, *steps.MEMBER, *steps.ENDINGS)):
        direct = told["direct"]
        if reason := wrong(step, direct):
            failures.append(f"{name} (direct): {reason}")
        for way in member.through:
            reason = wrong(step, told[way])
            if not reason and told[way] != direct:
                reason = f"{told[way]} differs from the member's own {direct}"
            matrix.add(client, kubectl.version, MEMBER, f"{name} ({way})", "failed" if reason else "passed", reason)
            failures += [f"{name} ({way}): {reason}"] if reason else []
    assert failures == []
