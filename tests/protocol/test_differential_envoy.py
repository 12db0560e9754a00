"""The same generated policies and requests through the real Envoy: what it decides is what Python says, and what the
member sees is what was decided on.

Policies arrive by discovery, as in a running gateway. Before the gatekeeper Envoy normalizes paths: where Python finds
a path that can be read in two ways, Envoy may have settled it, and then what the member saw must be allowed by itself.
"""

import asyncio
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import pytest
from tests.attack import echo
from tests.attack.echo import Echo, Seen
from tests.attack.rawhttp import Answer, Wire, request
from tests.attack.test_differential_bulk import FIXED, FRESH
from tests.protocol.dataplane import Plane
from tests.unit import generated
from tests.unit.generated import Request

from onepass.access.policy import Policy
from onepass.gateway import ir, resources, tables

POLICIES, REQUESTS = 25, 100  # of each seed


@dataclass
class Clients:
    """A connection for each of the people, opened anew when Envoy has closed it."""

    plane: Plane
    contexts: dict[tuple[str, ...], ssl.SSLContext] = field(default_factory=dict)
    wires: dict[tuple[str, ...], Wire] = field(default_factory=dict)

    def _wire(self, who: tuple[str, ...]) -> Wire:
        if who not in self.contexts:
            user, *groups = who
            context = self.contexts[who] = self.plane.context()
            issued = self.plane.authorities.clients.issue_cert(
                common_name=user, organization_name=groups[0] if groups else None
            )
            issued.configure_cert(context)
        if who not in self.wires:
            self.wires[who] = Wire.open(("127.0.0.1", self.plane.port), self.contexts[who])
        return self.wires[who]

    def ask(self, sent: Request, marker: str) -> Answer:
        who = (sent.user, *sent.groups)
        for _ in range(2):
            wire = self._wire(who)
            wire.send(request(sent.method, sent.target, ("x-case", marker), *sent.acting))
            answer = wire.answer(sent.method)
            if answer.code == 0 or "close" in answer.all("connection"):
                self.wires.pop(who).tls.close()
            if answer.code:
                return answer
        return answer

    def close(self) -> None:
        for wire in self.wires.values():
            wire.tls.close()


@contextmanager
def two_members() -> Iterator[dict[str, Echo]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(echo.running(name)) for name in generated.CLUSTERS}


def described(member: Echo) -> ir.Member:
    return ir.Member(member.name, "127.0.0.1", member.port, "127.0.0.1", member.ca, insecure=False, http2=False)


def marked(member: Echo, marker: str) -> list[Seen]:
    """What reached it with this mark; GET /version too, which no prober asks here."""
    with member.lock:
        return [each for each in member.seen if marker in each.all("x-case")]


def wrong(policy: Policy, sent: Request, answer: Answer, seen: dict[str, list[Seen]], now: int) -> str:
    """What is wrong with an answer and with what members saw, or ""."""
    expected = generated.expected(policy, sent, now)
    reached = [(name, each) for name, found in seen.items() for each in found]
    for name, each in reached:
        prefix = policy.targets[name].prefix
        if not each.target.startswith(prefix):
            return f"the member saw {each.target}, outside of its prefix"
        path, _, query = each.target.removeprefix(prefix).partition("?")
        alone = replace(sent, path=f"/apis/cluster.karpor.io/v1beta1/clusters/{name}/proxy{path}", query=query)
        if not generated.expected(policy, alone, now).cluster:
            return f"the member saw {each.target}, which is not allowed"
    if len(reached) != (answer.code == 200):
        return f"{len(reached)} requests reached members"
    if expected.code == 400 or "#" in sent.query:
        return "" if answer.code in (200, 400, 403, 404, 503) else "an answer that is none of those expected"
    if expected.cluster:
        targets = [(name, each.target) for name, each in reached]
        return "" if targets == [(expected.cluster, expected.target)] else f"members saw {targets}"
    if expected.code == 200:  # for the API server, of which there is none here
        return "" if answer.code == 503 else "it should have gone to the API server"
    if answer.code != expected.code:
        return "another code"
    same = sent.method == "HEAD" or answer.json()["message"] == expected.message
    return "" if same else "another message"


def tried(clients: Clients, members: dict[str, Echo], case: generated.Case, now: int) -> dict[int, int]:
    """Sends the requests of a case; returns how often each code came."""
    codes: dict[int, int] = {}
    for number, each in enumerate(case.requests):
        sent = replace(each, upgrade=False)
        for attempt in range(2):  # a worker may have judged the first one by the policy of before
            marker = f"{case.seed}-{case.number}-{number}-{attempt}"
            answer = clients.ask(sent, marker)
            seen = {name: marked(member, marker) for name, member in members.items()}
            why = wrong(case.policy, sent, answer, seen, now)
            if not why:
                break
        assert not why, (
            f"{why}\nseed {case.seed}, case {case.number}: {sent}\nEnvoy: {answer}\nmembers: {seen}\n"
            f"Python: {generated.expected(case.policy, sent, now)}\nwith {case.policy}"
        )
        codes[answer.code] = codes.get(answer.code, 0) + 1
    for member in members.values():
        with member.lock:
            member.seen.clear()
    return codes


@pytest.mark.parametrize("seed", [FIXED, FRESH], ids=["fixed", "fresh"])
async def test_envoy_does_what_python_says(plane: Plane, seed: int) -> None:
    plane.builder = resources.Builder(tables.source)
    clients, codes, now = Clients(plane), dict[int, int](), int(time.time())
    with two_members() as members:
        everyone = {name: described(member) for name, member in members.items()}
        try:
            for number in range(POLICIES):
                case = generated.case(seed, number, REQUESTS, now)
                known = {name: everyone[name] for name in case.policy.targets}
                await plane.show(replace(plane.gateway, policy=case.policy, members=known))
                for code, count in (await asyncio.to_thread(tried, clients, members, case, now)).items():
                    codes[code] = codes.get(code, 0) + count
        finally:
            clients.close()
    assert sum(codes.values()) == POLICIES * REQUESTS
    assert min(codes.get(code, 0) for code in (200, 400, 403)) > POLICIES * REQUESTS / 100, codes
