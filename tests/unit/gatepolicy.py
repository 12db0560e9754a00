"""One policy and some people, on which the tests of the gatekeeper try it."""

import json

from tests.unit.luagate import Certificate, Gate, Outcome

from onepass.access.policy import Binding, Grant, Policy, Rule, Subjects, Target

NOW = 1_700_000_000
PROD = "/apis/cluster.karpor.io/v1beta1/clusters/prod/proxy"
ALIAS = "/apis/kusionstack.io/Cluster/prod/proxy"
ROBOT = "system:serviceaccount:ci:robot"
EVERYTHING = Rule(frozenset("*"), frozenset("*"), frozenset("*"), paths=("*",))
READING = Rule(frozenset({"get", "list", "watch"}), frozenset({""}), frozenset({"pods", "pods/log"}))
IMPERSONATING = Rule(
    frozenset({"impersonate"}), frozenset("*"), frozenset({"users", "groups", "userextras/scopes"}),
    frozenset({"carol", "qa", "view"}),
)  # fmt: skip
POLICY = Policy(
    bindings=(Binding("ClusterRoleBinding/admins", (EVERYTHING,)),),
    bound=Subjects(groups={"onepass:administrators": (0,)}),
    grants=(
        Grant("reader", (READING,), frozenset({"prod"}), "Gateway", None, NOW + 60),
        Grant("as-self", (EVERYTHING,), frozenset({"*"}), "Impersonate"),
        Grant("acting", (READING, IMPERSONATING), frozenset({"prod"}), "Gateway"),
    ),
    granted=Subjects(users={"bob": (0,), "dora": (1,), "eve": (2,), ROBOT: (0,)}, groups={"selves": (1,)}),
    targets={
        "prod": Target("prod", "prod.example:6443", "", "Gateway"),
        "test": Target("test", "[::1]", "/k8s/c-1", "Gateway"),
    },
    accounts={ROBOT: "uid-1"},
    revoked=frozenset({"bad1"}),
)
GATE = Gate(POLICY, NOW)
ADMIN = Certificate("admin", ("onepass:administrators",))
BOB = Certificate("bob", ("dev", "qa team"))
DORA = Certificate("dora", ("dev", "ops"))
EVE = Certificate("eve")
CLAIMS = {
    "iss": "https://onepass", "sub": ROBOT, "exp": NOW + 600,
    "kubernetes.io": {"namespace": "ci", "serviceaccount": {"name": "robot", "uid": "uid-1"}},
}  # fmt: skip


def refusal(outcome: Outcome) -> tuple[int, str, str]:
    """Code, reason and message, after checking that it is a whole Status."""
    status = json.loads(outcome.body)
    assert outcome.answer["content-type"] == "application/json"
    assert (status["kind"], status["apiVersion"], status["status"]) == ("Status", "v1", "Failure")
    assert status["code"] == outcome.code
    assert not outcome.logged
    return outcome.code, status["reason"], status["message"]


def as_(user: str = "", *groups: str, **extra: str) -> list[tuple[str, str]]:
    headers = [("impersonate-user", user)] if user else []
    headers += [("impersonate-group", group) for group in groups]
    return headers + [(f"impersonate-{name.replace('_', '-')}", value) for name, value in extra.items()]
