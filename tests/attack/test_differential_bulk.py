"""The gatekeeper as a whole against Python, on a great many requests: from the request line to what the member sees.

A fixed seed finds what it has always found; a fresh one, printed when it finds something, looks further every time.
ONEPASS_DIFFERENTIAL_SEED=N runs that seed again, and the message of a failure names the case.
"""

import json
import os
import secrets

import pytest
from tests.unit import generated
from tests.unit.generated import Expected, Request
from tests.unit.luagate import Certificate, Gate

from onepass.access.policy import Policy

NOW = 1_700_000_000
FIXED = 20260101
FRESH = int(os.environ.get("ONEPASS_DIFFERENTIAL_SEED") or secrets.randbits(48))
POLICIES, REQUESTS = 500, 220  # of each seed: 110,000 cases


def found(gate: Gate, request: Request) -> Expected:
    """What Lua makes of a request."""
    certificate = Certificate(request.user, request.groups)
    upgrade = (("connection", "upgrade"), ("upgrade", "websocket")) if request.upgrade else ()
    outcome = gate.request(request.method, request.target, *upgrade, *request.acting, certificate=certificate)
    assert not outcome.logged
    if outcome.code:
        return Expected(outcome.code, json.loads(outcome.body)["message"])
    member = outcome.one("x-onepass-member")
    if member is None:
        return Expected(200)
    ours = outcome.one("impersonate-user") is not None
    return Expected(200, "", member.removeprefix("member/"), outcome.one(":path") or "", ours)


def python(policy: Policy, request: Request) -> Expected:
    """What Python makes of it; with Impersonate-* of the client's own, those are what the member sees."""
    expected = generated.expected(policy, request, NOW)
    if expected.cluster and request.acting:
        return Expected(200, "", expected.cluster, expected.target, True)
    return expected


@pytest.mark.parametrize("seed", [FIXED, FRESH], ids=["fixed", "fresh"])
def test_lua_does_what_python_says(seed: int) -> None:
    codes: dict[int, int] = {}
    carried = 0
    for number in range(POLICIES):
        case = generated.case(seed, number, REQUESTS, NOW)
        gate = Gate(case.policy, NOW)
        for request in case.requests:
            expected = python(case.policy, request)
            if found(gate, request) != expected:
                smallest = generated.reduced(
                    case.policy,
                    lambda policy, r=request: found(Gate(policy, NOW), r) != python(policy, r),  # type: ignore[misc]
                )
                pytest.fail(
                    f"seed {seed}, case {number}: {request}\nLua: {found(Gate(smallest, NOW), request)}\n"
                    f"Python: {python(smallest, request)}\nwith {smallest}"
                )
            codes[expected.code] = codes.get(expected.code, 0) + 1
            carried += bool(expected.cluster)
    # The cases are worth something: each answer is among them many times.
    assert sum(codes.values()) == POLICIES * REQUESTS
    assert min(codes.get(200, 0), codes.get(400, 0), codes.get(403, 0), carried) > POLICIES * REQUESTS / 50, codes
    assert codes.get(404, 0) > 0
