"""The newest and the oldest kubectl: what each prints and how it ends, on the gateway's own API and on a member.

Through the gateway to a member it may not differ from what the same kubectl prints when it asks the member itself.
"""

from collections.abc import Iterator, Mapping, Sequence

import pytest
from tests.clients import kubectls
from tests.clients import kubectlsteps as steps
from tests.clients import kubectlstreams as streams
from tests.clients.access import Access, Member
from tests.clients.kubectls import Kubectl, Said
from tests.clients.kubectlsteps import Step
from tests.clients.matrix import MEMBER, OWN, Matrix, Outcome
from tests.programs.debian import DebianMissing

pytestmark = pytest.mark.e2e

Result = tuple[str, Outcome, str]  # of a step by one way: which, what became of it, why

NEWEST, DEBIAN = "kubectl (newest)", "kubectl (Debian)"
EVERYWHERE = (*steps.BEGINNINGS, *steps.DISCOVERY, *steps.FORMS, *steps.WRITES, *steps.SERVER_SIDE)
ON_OWN = (*EVERYWHERE, *steps.OWN, *steps.IMPERSONATION, *steps.RIGHTS, *steps.ENDINGS)

NO_SPDY = "the sandbox speaks exec, attach and port-forward over WebSocket only, not over SPDY"


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
        return kubectls.of_debian()
    except DebianMissing as missing:
        pytest.skip(str(missing))


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


def cannot(kubectl: Kubectl, step: Step, target: str, told: Sequence[Said]) -> str:
    """Why the step means nothing here, or nothing."""
    if target == MEMBER and "--raw" in step.arguments and kubectl.minor < 24:
        return "this kubectl asks --raw paths of the server's root, whatever path its URL has"
    return f"the server: {NO_SPDY}" if any(NO_SPDY in said.err for said in told) else ""


def run(kubectl: Kubectl, target: str, ways: Mapping[str, Access], listed: Sequence[Step]) -> Iterator[Result]:
    """All commands by one way after the other: what they leave behind, the next finds as the one before did.

    The first way is what the others must equal. By a token, another credential to the same place, a part of the
    commands is enough, of the newest kubectl.
    """
    chosen = [step for step in listed if step.since <= kubectl.minor < step.before]
    told = {
        way: {
            number: say(kubectl, access, step)
            for number, step in enumerate(chosen)
            if way != "token" or step in steps.BRIEF
        }
        for way, access in ways.items()
        if way != "token" or kubectl.minor > 20
    }
    first = next(iter(told.values()))
    for number, step in enumerate(chosen):
        here = {way: said[number] for way, said in told.items() if number in said}
        unable = cannot(kubectl, step, target, list(here.values()))
        for way, said in here.items():
            reason = wrong(step, said)
            # Before 1.21 `diff` shows the times in managedFields too, which differ when a second has passed.
            steady = step.arguments[0] != "diff" or kubectl.minor >= 21
            if target == MEMBER and not reason and steady and said != first[number]:
                reason = f"{said} differs from the member's own {first[number]}"
            outcome: Outcome = "skipped" if unable else "failed" if reason else "passed"
            yield f"{number} {step.typed} ({way})", outcome, unable or reason


def recorded(matrix: Matrix, client: str, kubectl: Kubectl, target: str, results: Iterator[Result]) -> list[str]:
    """What failed. What the member says when it is asked directly is the measure, and not counted in the matrix."""
    failures = []
    for name, outcome, reason in results:
        if not name.endswith("(direct)"):
            matrix.add(client, kubectl.version, target, name, outcome, reason)
        if outcome == "failed":
            failures.append(f"{name}: {reason}")
    return failures


def test_the_gateways_own_api(kubectl: Kubectl, client: str, own: Mapping[str, Access], matrix: Matrix) -> None:
    assert recorded(matrix, client, kubectl, OWN, run(kubectl, OWN, own, ON_OWN)) == []


def test_a_member(kubectl: Kubectl, client: str, member: Member, matrix: Matrix) -> None:
    ways = {"direct": member.direct, **member.through}
    real = (*steps.REAL, *steps.IMPERSONATION)
    listed = (*EVERYWHERE, *steps.MEMBER, *(real if member.real else steps.SANDBOX), *steps.ENDINGS)
    assert recorded(matrix, client, kubectl, MEMBER, run(kubectl, MEMBER, ways, listed)) == []


def test_what_goes_on_on_the_gateways_own_api(
    kubectl: Kubectl, client: str, own: Mapping[str, Access], matrix: Matrix
) -> None:
    for way, access in own.items():
        with streams.namespace(kubectl, access):
            for step, does in streams.EVERYWHERE.items():
                with matrix.record(client, kubectl.version, OWN, f"{step} ({way})"):
                    assert does(kubectl, access) == streams.WANTED[step]


def test_what_goes_on_on_a_member(kubectl: Kubectl, client: str, member: Member, matrix: Matrix) -> None:
    for way, access in {"direct": member.direct, **member.through}.items():
        with streams.namespace(kubectl, access), streams.pod(kubectl, access):
            for step, does in streams.ON_MEMBER.items():
                if step in streams.SPDY and kubectl.minor < 30 and not member.real:
                    reason = f"the server: {NO_SPDY}"
                    if way != "direct":
                        matrix.add(client, kubectl.version, MEMBER, f"{step} ({way})", "skipped", reason)
                elif way == "direct":
                    assert does(kubectl, access) == streams.WANTED[step], step
                else:
                    with matrix.record(client, kubectl.version, MEMBER, f"{step} ({way})"):
                        assert does(kubectl, access) == streams.WANTED[step]
