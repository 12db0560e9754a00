"""Policies and requests from a seed: what the gatekeeper's two readings are tried on, in this process and in Envoy.

A case is its seed and its number: the same two give the same case, whatever ran before.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from onepass.access import requestinfo, rules
from onepass.access.identity import AUTHENTICATED, Identity
from onepass.access.policy import Binding, Grant, Mode, Policy, Rule, Subjects, Target


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


USERS = ("alice", "bob", "Zoë", 'o"brien\\', "a.*b", "]]x")
GROUPS = ("dev", "ops", "onepass:administrators", "qa team")
CLUSTERS = ("prod", "test")
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "impersonate", "proxy")
API_GROUPS = ("", "apps", "cluster.karpor.io", "authentication.k8s.io", "authorization.k8s.io")
RESOURCES = (
    "pods", "pods/log", "pods/exec", "*/log", "namespaces", "deployments", "clusters/proxy", "*/proxy", "users",
    "groups", "uids", "userextras/scopes", "secrets", "nodes/proxy", "selfsubjectreviews", "serviceaccounts",
)  # fmt: skip
NAMES = ("web", "db", "alice", "dev", "prod", "u-1", "é", "default", "bob", "qa")
NAMESPACES = ("default", "kube-system", "")
PATHS = ("*", "/metrics", "/metrics/*", "/api", "/healthz*", "/livez/**", "/é", "/a b")
SCOPES = ("", "", "default")  # of bindings
ACTED_AS = (*USERS[:2], "system:anonymous", "system:serviceaccount:d:r")
ACTED_GROUPS = (*GROUPS, "system:masters")
METHODS = ("GET",) * 8 + ("HEAD", "POST", "POST", "PUT", "PATCH", "DELETE", "DELETE", "OPTIONS")
INNER = words("""
    / /api /api/ /api/v1 /apis/apps/v1 /version /version/ /metrics /metrics/x /é /livez/ /healthz/etcd /openapi/v3
    /api/v1/pods /api/v1/pods/ /api/v1/pods/web /api/v1/secrets /api/v1/namespaces /api/v1/namespaces/default
    /api/v1/namespaces/default/pods /api/v1/namespaces/default/pods/web /api/v1/namespaces/default/pods/web/log
    /api/v1/namespaces/default/pods/db/exec /api/v1/namespaces/kube-system/secrets/db /api/v1/nodes/n/proxy/x/y
    /api/v1/namespaces/default/status /api/v1/watch/pods /api/v1/watch/namespaces/default/pods/web
    /api/v1/proxy/namespaces/d/pods/web/x /apis/apps/v1/namespaces/default/deployments/é
    /api/v1/namespaces/default/serviceaccounts/robot /apis/authentication.k8s.io/v1/selfsubjectreviews
    /apis/authorization.k8s.io/v1/selfsubjectaccessreviews /apis/authorization.k8s.io/v1/selfsubjectrulesreviews
""")
QUERIES = ("",) * 8 + words("""
    watch=1 watch=true watch=TRUE watch= watch watch=0 watch=false watch=FALSE %77atch=1 watch=%31 Watch=1 watch=%
    watch=false&watch=true watch=true&watch=false limit=5&watch x=y;watch=1 a=b#c follow=1 watch=fal%C5%BFe
    fieldSelector=metadata.name%3Dweb fieldSelector=metadata.name=db fieldSelector=metadata.name!=db
    fieldSelector=metadata.name=%FF fieldSelector=metadata.name=a%5C,metadata.name=web fieldSelector=metadata.name=..
    fieldSelector=x=y,metadata.name==web&watch=1 field%53elector=metadata.name%3ddb
    fieldSelector=metadata.name=%E2%80%C3%A9%AE fieldSelector=metadata.name=db+ fieldSelector=+metadata.name=db
""")
PREFIXES = (
    *("/apis/cluster.karpor.io/v1beta1/clusters/{}/proxy",) * 6,
    "/apis/kusionstack.io/Cluster/{}/proxy",
    "/apis/cluster.karpor.io/v1beta1/clusters/{}",
    "/apis/cluster.karpor.io/v1beta1/clusters/{}/proxyx",
)
# Put into a path somewhere: what hides a separator, a segment or its end from one reader and not from another.
TRICKS = (
    " ",
    "\t",
    "\x00",
    "\x7f",
    *words(r"""
    %2F %2f %5C %5c \ ; %3B %3b ;x=y .. %2e%2e %2E. . %2e // /./ /../ %00 %0a %7f %ff %C3%A9 %c0%af %ed%a0%80 %25 %252F
    %252e %zz % %4 # é %E2%80%AE %E2%80%C3%A9%AE ..; ..%2f ..%5c %20 + ~ * : @ ! $ & ' ( ) , = %F0%9F%98%80 %u002f
    %f4%90%80%80 %C3 %A9
"""),
)

SEGMENTS = words("""
    api apis v1 v2beta1 apps namespaces default pods web exec attach portforward log proxy watch status finalize nodes
    services clusters cluster.karpor.io scale é - _ ~ a.b 0 API Namespaces pods:x redirect
""")
KEYS = words("watch fieldSelector %77atch field%53elector Watch follow limit labelSelector metadata.name watch+ +watch")
VALUES = (
    "",
    *words(r"""
    1 0 true false FALSE False no t f null %30 fal%C5%BFe metadata.name=web metadata.name==web metadata.name!=web
    metadata.name%3Dweb metadata.name=a%5C,b metadata.name=a\ metadata.name=a,metadata.name=b metadata.name
    metadata.name= a=b,metadata.name=c metadata.name=c,a=b =x x= , ,,metadata.name=d, metadata.name=%2F
    metadata.name=.. %5C%5C=a
    metadata.name=web+ +metadata.name=web metadata.name%20=web metadata.namespace=x,metadata.name=y
    metadata.name=%C3%A9
"""),
)


@dataclass(frozen=True)
class Request:
    """A request line as it is sent, who sends it, and whom they act as."""

    method: str
    path: str
    query: str
    user: str
    groups: tuple[str, ...]
    upgrade: bool = False
    acting: tuple[tuple[str, str], ...] = ()

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def identity(self) -> Identity:
        return Identity(self.user, (*self.groups, AUTHENTICATED))

    def wanted(self) -> Identity | None:
        """Whom the headers say; each but groups and extras is there once."""
        if not self.acting:
            return None
        said: Mapping[str, str] = dict(self.acting)
        groups = tuple(value for name, value in self.acting if name == "impersonate-group")
        extra: dict[str, tuple[str, ...]] = {}
        for name, value in self.acting:
            if name.startswith("impersonate-extra-"):
                key = name.removeprefix("impersonate-extra-")
                extra[key] = (*extra.get(key, ()), value)
        return Identity(said.get("impersonate-user", ""), groups, said.get("impersonate-uid", ""), extra)


@dataclass(frozen=True)
class Expected:
    """What becomes of a request: a refusal, or where it goes and as which target."""

    code: int
    message: str = ""
    cluster: str = ""  # "": to the gateway's own API
    target: str = ""
    as_user: bool = False


@dataclass
class Case:
    """A policy and requests on which it is tried."""

    seed: int
    number: int
    policy: Policy
    requests: list[Request] = field(default_factory=list)


def case(seed: int, number: int, count: int, now: int) -> Case:
    """Case `number` of `seed`, with `count` requests. No bound of a grant lies within a minute of `now`."""
    chance = random.Random(f"{seed}/{number}")
    made = Case(seed, number, _policy(chance, now))
    made.requests = [_request(chance) for _ in range(count)]
    return made


def expected(policy: Policy, request: Request, now: int) -> Expected:
    """What Python makes of a request."""
    try:
        decoded = requestinfo.decode(request.path)
    except requestinfo.Malformed as error:
        return Expected(400, str(error))
    member = requestinfo.member(decoded)
    if member is None:
        return Expected(200)
    try:
        attributes = requestinfo.attributes(request.method, member.path, request.query, request.upgrade)
    except requestinfo.Malformed as error:
        return Expected(400, str(error))
    decision = rules.decide(
        policy, request.identity, member.cluster, request.method, attributes, request.upgrade, now, request.wanted()
    )
    if decision.code != 200:
        return Expected(decision.code, decision.message)
    if decision.here:
        return Expected(200)
    wire = quote(member.path, safe="/-._~!$&'()*+,=:@")
    target = policy.targets[member.cluster].prefix + wire + (f"?{request.query}" if request.query else "")
    return Expected(200, "", member.cluster, target, decision.mode == "Impersonate")


def reduced(policy: Policy, differs: Callable[[Policy], bool]) -> Policy:
    """A policy with as few rules as may be on which `differs` still holds, as it does on `policy`."""
    while smaller := next(filter(differs, _smaller(policy)), None):
        policy = smaller
    return policy


def _smaller(policy: Policy) -> Iterator[Policy]:
    grants, bindings = policy.grants, policy.bindings
    yield from (
        replace(policy, grants=(*grants[:at], replace(grant, rules=rules), *grants[at + 1 :]))
        for at, grant in enumerate(grants)
        for rules in _fewer(grant.rules)
    )
    yield from (
        replace(policy, bindings=(*bindings[:at], replace(binding, rules=rules), *bindings[at + 1 :]))
        for at, binding in enumerate(bindings)
        for rules in _fewer(binding.rules)
    )


def _fewer(kept: tuple[Rule, ...]) -> Iterator[tuple[Rule, ...]]:
    if len(kept) > 1:
        yield ()
    for at in range(len(kept)):
        yield (*kept[:at], *kept[at + 1 :])


def _some(chance: random.Random, values: Sequence[str], most: int = 3) -> frozenset[str]:
    return frozenset(chance.sample(values, chance.randint(0, min(most, len(values)))))


def _rule(chance: random.Random) -> Rule:
    every = frozenset("*")
    return Rule(
        verbs=every if chance.random() < 0.3 else _some(chance, VERBS, 4),
        groups=every if chance.random() < 0.6 else _some(chance, API_GROUPS),
        resources=every if chance.random() < 0.3 else _some(chance, RESOURCES, 5),
        names=frozenset() if chance.random() < 0.7 else _some(chance, NAMES),
        namespaces=frozenset() if chance.random() < 0.7 else _some(chance, NAMESPACES),
        paths=tuple(chance.sample(PATHS, chance.randint(0, 2))),
    )


def _rules(chance: random.Random) -> tuple[Rule, ...]:
    if chance.random() < 0.1:
        return (Rule(frozenset("*"), frozenset("*"), frozenset("*"), paths=("*",)),)
    return tuple(_rule(chance) for _ in range(chance.randint(0, 3)))


def _subjects(chance: random.Random, count: int) -> Subjects:
    def indices() -> tuple[int, ...]:
        return tuple(sorted(chance.sample(range(count), chance.randint(0, count))))

    users = {name: indices() for name in chance.sample(USERS, chance.randint(0, 4))}
    groups = {name: indices() for name in chance.sample((*GROUPS, AUTHENTICATED), chance.randint(0, 3))}
    return Subjects(users, groups)


def _policy(chance: random.Random, now: int) -> Policy:
    modes: tuple[Mode, ...] = ("Gateway", "Gateway", "Impersonate")
    begins = (None, None, None, now - 3600, now + 3600)
    ends = (None, None, None, now + 3600, now - 3600)

    def proxy() -> tuple[Rule, ...]:
        names = _some(chance, CLUSTERS, 2)
        resources = (
            frozenset({"clusters", "clusters/proxy"}) if chance.random() < 0.5 else frozenset({"clusters/proxy"})
        )
        return (Rule(_some(chance, VERBS, 5), frozenset({"cluster.karpor.io"}), resources, names),)

    bindings = tuple(
        Binding(
            f"ClusterRoleBinding/b{n}",
            proxy() if chance.random() < 0.5 else _rules(chance),
            chance.choice(SCOPES),
        )
        for n in range(chance.randint(0, 4))
    )
    grants = tuple(
        Grant(
            f"pass-{n}",
            _rules(chance),
            frozenset("*") if chance.random() < 0.5 else _some(chance, (*CLUSTERS, "gone"), 2),
            chance.choice(modes),
            chance.choice(begins),
            chance.choice(ends),
        )
        for n in range(chance.randint(0, 5))
    )
    known = ("prod",) if chance.random() < 0.2 else CLUSTERS
    return Policy(
        bindings=bindings,
        bound=_subjects(chance, len(bindings)),
        grants=grants,
        granted=_subjects(chance, len(grants)),
        targets={
            name: Target(name, f"{name}.example", chance.choice(["", "", "/k8s/c-1"]), chance.choice(modes))
            for name in known
        },
    )


def _twisted(chance: random.Random, path: str) -> str:
    """The path with letters encoded, and with tricks put in."""
    if chance.random() < 0.4:
        path = quote(path, safe="/")
    if chance.random() < 0.3:
        at = chance.randrange(len(path))
        if path[at].isalpha() and path[at].isascii():
            encoded = f"%{ord(path[at]):02x}"
            path = path[:at] + (encoded.upper() if chance.random() < 0.5 else encoded) + path[at + 1 :]
    if chance.random() < 0.35:
        for _ in range(chance.randint(1, 2)):
            at = chance.randint(1, len(path))
            path = path[:at] + chance.choice(TRICKS) + path[at:]
    return path


def _acting(chance: random.Random) -> tuple[tuple[str, str], ...]:
    if chance.random() < 0.8:
        return ()
    headers: list[tuple[str, str]] = []
    if chance.random() < 0.8:
        headers.append(("impersonate-user", chance.choice(ACTED_AS)))
    headers += [("impersonate-group", chance.choice(ACTED_GROUPS)) for _ in range(chance.choice((0, 0, 1, 2)))]
    if chance.random() < 0.2:
        headers.append(("impersonate-uid", "u-1"))
    if chance.random() < 0.2:
        headers.append(("impersonate-extra-scopes", chance.choice(NAMES[:2])))
    return tuple(headers)


def _request(chance: random.Random) -> Request:
    cluster = chance.choice((*CLUSTERS, *CLUSTERS, *CLUSTERS, "gone"))
    if chance.random() < 0.06:
        path = chance.choice(INNER)
    else:
        path = chance.choice(PREFIXES).format(cluster) + chance.choice(INNER)
    return Request(
        method=chance.choice(METHODS),
        path=_twisted(chance, path),
        query=chance.choice(QUERIES),
        user=chance.choice(USERS),
        groups=tuple(chance.sample(GROUPS, chance.randint(0, 1))),
        upgrade=chance.random() < 0.05,
        acting=_acting(chance),
    )


def line(chance: random.Random) -> tuple[str, str, str]:
    """A method, a path and a query as a member might get them, or something that is none: for those who only read."""
    method = chance.choice((*METHODS, "get", "TRACE", "CONNECT", ""))
    if chance.random() < 0.5:
        path = chance.choice(INNER)
    else:
        path = "/" + "/".join(chance.choice(SEGMENTS) for _ in range(chance.randint(0, 9)))
    for _ in range(chance.choice((0, 0, 1, 1, 2, 4))):
        path = _twisted(chance, path) if path else "/"
    parameters = [chance.choice(KEYS) + chance.choice(("=", "", "==")) + chance.choice(VALUES) for _ in range(4)]
    query = chance.choice(QUERIES) if chance.random() < 0.5 else "&".join(parameters[: chance.randint(0, 4)])
    if query and chance.random() < 0.2:
        at = chance.randint(0, len(query))
        query = query[:at] + chance.choice(TRICKS) + query[at:]
    return method, path, query
