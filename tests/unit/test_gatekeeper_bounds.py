"""What one request, one answer or one object may cost the gatekeeper: it runs where all are served."""

import time
from collections.abc import Sequence
from importlib import resources

import pytest
from tests.unit.luagate import Certificate, Gate

from onepass.access import compile as compiling
from onepass.access.policy import Policy
from onepass.api.meta import Object

LUA = resources.files("onepass.gateway")
ALICE = Certificate("alice")
CPU_SECONDS = 1.0  # of what takes thousandths when it grows in proportion, and many seconds when with the square


def passing(name: str, *rules: Object) -> Object:
    spec: Object = {"subjects": [{"kind": "User", "name": "alice"}], "clusters": {"names": ["c1"]}, "rules": [*rules]}
    return {"metadata": {"name": name}, "spec": spec}


def policy(*passes: Object) -> Policy:
    cluster: Object = {"metadata": {"name": "c1"}, "spec": {"access": {"endpoint": "https://192.0.2.1:6443"}}}
    return compiling.compile({"passes.access.karpor.io": passes, "clusters.cluster.karpor.io": [cluster]})


def rule(resource: str) -> Object:
    return {"verbs": ["get"], "apiGroups": [""], "resources": [resource]}


@pytest.mark.parametrize(
    "passes",
    [
        pytest.param([passing("long", *(rule(f"r{n}") for n in range(30_000)))], id="one of many rules"),
        pytest.param(
            [passing(f"p{k}", *(rule(f"r{k * 200 + n}") for n in range(200))) for k in range(150)],
            id="many",
        ),
        pytest.param(
            [passing("named", rule("r29999") | {"resourceNames": [f"n{n}" for n in range(100_000)]})], id="many names"
        ),
    ],
)
def test_no_pass_is_too_long_for_the_script(passes: Sequence[Object]) -> None:
    """A script that LuaJIT cannot load is refused by Envoy, and with it every later change of anybody's rights."""
    gate = Gate(policy(*passes))
    path = "/apis/cluster.karpor.io/v1beta1/clusters/c1/proxy/api/v1/namespaces/web/{}/n99999"
    assert gate.request("GET", path.format("r29999"), certificate=ALICE).code == 0
    assert gate.request("GET", path.format("r30000"), certificate=ALICE).code == 403


def test_rules_beyond_one_statement_keep_their_order_and_their_number() -> None:
    gate = Gate(policy(passing("long", *(rule(f"r{n}") for n in range(1000)))))
    assert len(gate.globals.policy.grants[1].rules) == 1000


def test_nothing_that_a_client_sends_is_sorted() -> None:
    """Lua's quicksort takes seconds for the few thousand terms of a field selector in an order made for it (McIlroy, A
    Killer Adversary for Quicksort, 1999), of anybody who can connect."""
    assert "table.sort" not in LUA.joinpath("requestinfo.lua").read_text()
    outcome = Gate(policy()).request("GET", "/api/v1/pods?fieldSelector=b=,a=,metadata.name=z,metadata.name=y")
    assert outcome.metadata["request"]["objectRef"]["name"] == "y"


def test_no_redirect_of_a_member_holds_a_worker_up() -> None:
    gate = Gate(policy())
    began = time.process_time()
    outcome = gate.response("301", ("location", "/openapi/v3/" + "a" * 58_000), metadata={"cluster": "c1"})
    assert time.process_time() - began < CPU_SECONDS
    assert outcome.one(":status") == "502"
