"""Python and Lua decide the same, on generated policies and requests: rules.py and rules.lua may never differ."""

from urllib.parse import quote

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit import luagate

from onepass.access import requestinfo, rules
from onepass.access.attributes import Attributes
from onepass.access.identity import ANONYMOUS, Identity
from onepass.access.policy import Binding, Grant, Mode, Policy, Rule, Subjects, Target

NOW = 1_700_000_000
THOROUGH = settings(max_examples=700, deadline=None, suppress_health_check=list(HealthCheck))

USERS = [
    "alice",
    "bob",
    "system:serviceaccount:default:robot",
    "system:serviceaccount:a:b:c",
    "Zoë",
    'o"brien\\',
    ANONYMOUS,
]
GROUPS = ["dev", "ops", "system:authenticated", "system:masters", "onepass:administrators"]
CLUSTERS = ["prod", "test", "dev-1"]
NAMESPACES = ["default", "kube-system", ""]
NAMES = ["web", "db", "*", "", "alice", "dev", "prod", "u-1", "é"]
VERBS = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "impersonate",
    "*",
    "proxy",
    "",
]
RESOURCES = [
    "pods", "pods/log", "pods/exec", "*/log", "*", "namespaces", "deployments", "clusters", "clusters/proxy", "*/proxy",
    "users", "groups", "serviceaccounts", "uids", "userextras/scopes", "*/scopes", "pods/*", "selfsubjectreviews",
]  # fmt: skip
API_GROUPS = ["", "apps", "*", "cluster.karpor.io", "authentication.k8s.io", "authorization.k8s.io"]
PATHS = ["*", "/metrics", "/metrics/*", "/api", "/healthz*", "/livez/**", "/é"]


def words(text: str) -> st.SearchStrategy[str]:
    return st.sampled_from(text.split())


def some(values: list[str], most: int = 3) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(values), max_size=most)


ANY = st.just(frozenset("*"))
RULES = st.lists(
    st.builds(
        Rule,
        verbs=ANY | some(VERBS),
        groups=ANY | some(API_GROUPS),
        resources=ANY | some(RESOURCES) | some(["*/log", "*/exec", "*/scopes"], 2),
        names=st.just(frozenset[str]()) | some(NAMES),
        namespaces=st.just(frozenset[str]()) | ANY | some([*NAMESPACES, "*"]),
        paths=st.lists(st.sampled_from(PATHS), max_size=2).map(tuple),
    ),
    max_size=3,
).map(tuple)
WIDE = st.just((Rule(frozenset("*"), frozenset("*"), frozenset("*"), paths=("*",)),))
PROXY = st.builds(
    lambda verbs, names: (Rule(verbs, frozenset({"cluster.karpor.io"}), frozenset({"clusters/proxy"}), names),),
    some(VERBS),
    some(CLUSTERS, 2),
)
BEGINNINGS = st.none() | st.integers(NOW - 9, NOW + 1)
ENDS = st.none() | st.integers(NOW - 1, NOW + 9)
MODES: st.SearchStrategy[Mode] = st.sampled_from(["Gateway", "Impersonate"])


def subjects(count: int) -> st.SearchStrategy[Subjects]:
    some_indices = st.lists(st.integers(0, max(count - 1, 0)), max_size=count, unique=True)
    indices = some_indices.map(lambda numbers: tuple(sorted(numbers))) | st.just(tuple(range(count)))
    return st.builds(
        Subjects,
        st.dictionaries(st.sampled_from(USERS), indices, max_size=4),
        st.dictionaries(st.sampled_from(GROUPS), indices, max_size=3),
    )


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    bindings = draw(
        st.lists(
            st.builds(Binding, st.text(max_size=4), RULES | PROXY | WIDE, st.sampled_from(["", "default"])), max_size=4
        )
    )
    clusters = ANY | some([*CLUSTERS, "*", "gone"])
    grants = draw(
        st.lists(st.builds(Grant, st.text(max_size=4), RULES | WIDE, clusters, MODES, BEGINNINGS, ENDS), max_size=5)
    )
    names = {CLUSTERS[0], *draw(some(CLUSTERS))}
    return Policy(
        bindings=tuple(bindings),
        bound=draw(subjects(len(bindings))),
        grants=tuple(grants),
        granted=draw(subjects(len(grants))),
        targets={name: Target(name, f"{name}.example", "", draw(MODES)) for name in sorted(names)},
    )


IDENTITIES = st.builds(
    Identity, st.sampled_from(USERS), st.lists(st.sampled_from(GROUPS), max_size=3, unique=True).map(tuple)
)
WANTED = st.none() | st.builds(
    Identity,
    st.sampled_from([*USERS, ""]),
    st.lists(st.sampled_from([*GROUPS, ""]), max_size=2).map(tuple),
    st.sampled_from(["", "u-1"]),
    st.dictionaries(st.sampled_from(["scopes", "log", ""]), st.lists(st.sampled_from(NAMES), max_size=2).map(tuple)),
)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get"])
INNER = words("""
    / /api /api/ /api/v1 /apis/apps/v1 /version /version/ /metrics /metrics/x /é /livez/ /healthz/etcd /openapi/v3
    /api/v1/pods /api/v1/pods/ /api/v1/pods/* /api/v1/namespaces /api/v1/namespaces/default /api/v1/users/bob
    /api/v1/namespaces/default/pods /api/v1/namespaces/default/pods/web /api/v1/namespaces/default/pods/web/log
    /api/v1/namespaces/kube-system/pods/db/exec /api/v1/namespaces/default/status /api/v1/nodes/n/proxy/exec/x
    /api/v1/watch/pods /api/v1/proxy/namespaces/default/pods/web/x /apis/apps/v1/namespaces/default/deployments/é
    /apis/authentication.k8s.io/v1/selfsubjectreviews /apis/authorization.k8s.io/v1/selfsubjectaccessreviews
    /apis/authorization.k8s.io/v1/namespaces/default/selfsubjectrulesreviews
    /api/v1/namespaces/default/serviceaccounts/robot
""")
ASKED = st.tuples(METHODS, INNER) | st.tuples(
    st.just("POST"),
    words("/apis/authentication.k8s.io/v1/selfsubjectreviews /apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
)
QUERIES = st.sampled_from(["", "watch=1", "watch=false", "fieldSelector=metadata.name%3Dweb", "limit=5&watch"])


@THOROUGH
@given(policies(), st.lists(st.tuples(IDENTITIES, ASKED, QUERIES, st.booleans(), WANTED), min_size=4, max_size=8))
def test_both_decide_alike(
    policy: Policy, requests: list[tuple[Identity, tuple[str, str], str, bool, Identity | None]]
) -> None:
    gate = luagate.Gate(policy, NOW)
    for identity, (method, inner), query, upgrade, wanted in requests:
        attributes = requestinfo.attributes(method, inner, query, upgrade)
        for cluster in CLUSTERS[:2]:
            decision = rules.decide(policy, identity, cluster, method, attributes, upgrade, NOW, wanted)
            code, message, *rest = gate.decide(identity, cluster, method, inner, query, upgrade, NOW, wanted)
            assert (code, message) == (decision.code, decision.message)
            if code == 200:
                as_user = decision.mode == "Impersonate"
                assert rest == [luagate.raw(decision.origin), as_user, decision.until, decision.here]


SEGMENTS = words(r"""
    api apis v1 namespaces default pods web exec watch proxy status log . .. ... %2e%2e %2E a%2Fb a%2fb %5C %00 a;b %3Bx
    %zz % %4 %C3%A9 %ff %ed%a0%80 %c0%af %70ods p%6fds %252F %20 é a\b %7f a+b @:~!$&'()*,= #x [x] clusters
    cluster.karpor.io v1beta1 prod %f4%90%80%80 %F0%9F%98%80
""")
ODD = st.sampled_from(["", "a b"]) | st.text("ab%2eF/.;", max_size=4)
PATHS_SENT = st.lists(SEGMENTS | ODD, max_size=9).map(lambda parts: "/" + "/".join(parts))
QUERY_KEYS = st.sampled_from(["watch", "%77atch", "fieldSelector", "follow", "Watch", "field+Selector", "", "watch;"])
QUERY_VALUES = st.just("") | words(r"""
    1 0 true false FALSE False fal%C5%BFe fal%c5%bfe %30 f = % a;b + é metadata.name=web metadata.name%3Dweb
    metadata.name%3D%3Dweb metadata.name!=web metadata.name=a,metadata.name=b metadata.name=b%2Cmetadata.name==a
    a%5C,b=c,metadata.name=x metadata.name=a%5C%2Cb metadata.name=.. metadata.name=a%2Fb metadata.name=x,foo
    metadata.name=%FF metadata.name=a%5C metadata.name=a%5Cb spec.x!=%5C%5C,metadata.name=q metadata.name= =x
""")
QUERY = st.builds(
    "&".join, st.lists(st.tuples(QUERY_KEYS, st.sampled_from(["=", "", "=="]), QUERY_VALUES).map("".join), max_size=4)
) | st.just("&".join(["a"] * 1001))
GATE = luagate.Gate(Policy())


def read(method: str, path: str, query: str, upgrade: bool) -> Attributes | str:
    """The attributes, or why there are none."""
    try:
        return requestinfo.parse(method, path, query, upgrade)
    except requestinfo.Malformed as error:
        return str(error)


@settings(THOROUGH, max_examples=4000)
@given(METHODS, PATHS_SENT | INNER, QUERY, st.booleans())
def test_both_read_a_request_line_alike(method: str, path: str, query: str, upgrade: bool) -> None:
    found = GATE.parse(method, path, query, upgrade)
    attributes = read(method, path, query, upgrade)
    if isinstance(attributes, str):
        assert found == attributes
        return
    assert isinstance(found, dict)
    assert found.pop("any", None) == (f"*/{attributes.subresource}" if attributes.subresource else None)
    said = {name: found.get(name, "") for name in ("group", "version", "resource", "subresource", "name")}
    assert said == {name: getattr(attributes, name) for name in said}
    for name in ("verb", "path", "is_resource", "namespace"):
        assert found[name] == getattr(attributes, name)
    assert not attributes.is_resource or found["qualified"] == attributes.qualified


@settings(THOROUGH, max_examples=3000)
@given(QUERY)
def test_both_read_the_query_of_a_list_alike(query: str) -> None:
    found, attributes = GATE.parse("GET", "/api/v1/pods", query, False), read("GET", "/api/v1/pods", query, False)
    if isinstance(found, dict) and isinstance(attributes, Attributes):
        assert (found["verb"], found["name"]) == (attributes.verb, attributes.name)
    else:
        assert found == attributes


@settings(THOROUGH, max_examples=2000)
@given(
    PATHS_SENT,
    st.sampled_from(
        ["/apis/cluster.karpor.io/v1beta1/clusters/prod/proxy", "/apis/kusionstack.io/Cluster/prod/proxy", ""]
    ),
)
def test_the_member_sees_the_path_that_was_decided_on(path: str, prefix: str) -> None:
    decoded, wire = GATE.globals.onepass.requestinfo.decode(luagate.raw(prefix + path))
    try:
        expected = requestinfo.decode(prefix + path)
    except requestinfo.Malformed:
        assert decoded is None
        return
    assert wire == quote(expected, safe="/-._~!$&'()*+,=:@")
    member = requestinfo.member(expected)
    found = GATE.globals.onepass.requestinfo.member(decoded)
    assert (found and tuple(map(luagate.cooked, found))) == (member and (member.cluster, member.path))
