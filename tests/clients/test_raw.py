"""Bytes: what a cluster answers, and what it answers through the gateway, may not differ in status, headers or body."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import httpx2
import pytest
from tests.e2e import ways
from tests.e2e.conftest import Gateway
from tests.e2e.ways import Way
from tests.programs.gomembers import GoMember

pytestmark = pytest.mark.e2e

NAMESPACES = "/api/v1/namespaces"
MAPS = f"{NAMESPACES}/default/configmaps"
JSON = "application/json"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
PARTIAL = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
PROTOBUF = "application/vnd.kubernetes.protobuf"

# Of the request, not of the answer.
PER_REQUEST = {"date", "audit-id"}
VARYING = re.compile(
    rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"  # a uid
    rb"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    rb'|"(resourceVersion|continue)":"[^"]*"|resourceVersion[^\d]{0,4}\d+'
)


@dataclass(frozen=True)
class Ask:
    """A request; `varies` when its answer tells of times, uids or versions that are new each time."""

    name: str
    path: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    varies: bool = False


def accept(kind: str) -> dict[str, str]:
    return {"Accept": kind}


def sends(kind: str) -> dict[str, str]:
    return {"Content-Type": kind}


MAP = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"raw"},"data":{"a":"b"}}'
DRY = "?dryRun=All&fieldManager=raw"
ASKS = (
    Ask("version", "/version"),
    Ask("legacy discovery", "/api"),
    Ask("groups", "/apis"),
    Ask("aggregated discovery", "/apis", headers=accept(AGGREGATED)),
    Ask("resources", "/api/v1"),
    Ask("resources in YAML", "/apis/apps/v1", headers=accept("application/yaml")),
    Ask("resources in protobuf", "/api/v1", headers=accept(PROTOBUF)),
    Ask("openapi v2", "/openapi/v2"),
    Ask(
        "openapi v2 in protobuf",
        "/openapi/v2",
        headers=accept("application/com.github.proto-openapi.spec.v2@v1.0+protobuf"),
    ),
    Ask("openapi v3", "/openapi/v3"),
    Ask("openapi v3 of a group", "/openapi/v3/api/v1"),
    Ask("openapi v3 of an old hash", "/openapi/v3/api/v1?hash=0"),
    Ask("openapi v3, compressed", "/openapi/v3/apis/apps/v1", headers={"Accept-Encoding": "gzip"}),
    Ask("health, verbose", "/livez?verbose"),
    Ask("health of one check", "/readyz/ping"),
    Ask("issuer", "/.well-known/openid-configuration"),
    Ask("paths", "/"),
    Ask("object", f"{NAMESPACES}/default"),
    Ask("object in YAML", f"{NAMESPACES}/default", headers=accept("application/yaml")),
    Ask("object in protobuf", f"{NAMESPACES}/default", headers=accept(PROTOBUF)),
    Ask("object in CBOR", f"{NAMESPACES}/default", headers=accept("application/cbor")),
    Ask("object as a table", f"{NAMESPACES}/default", headers=accept(TABLE), varies=True),
    Ask("pretty object", f"{NAMESPACES}/default?pretty=true"),
    Ask("list", NAMESPACES, varies=True),
    Ask("list, compressed", "/apis/rbac.authorization.k8s.io/v1/clusterroles", headers={"Accept-Encoding": "gzip"}),
    Ask("list of metadata", NAMESPACES, headers=accept(PARTIAL), varies=True),
    Ask("first page", "/apis/rbac.authorization.k8s.io/v1/clusterroles?limit=3", varies=True),
    Ask(
        "selected",
        f"{NAMESPACES}?labelSelector=kubernetes.io%2Fmetadata.name%20in%20%28default%2Ckube-system%29",
        varies=True,
    ),
    Ask(
        "selected with a plus",
        f"{NAMESPACES}?labelSelector=a+in+(b)&fieldSelector=metadata.name%3Ddefault",
        varies=True,
    ),
    Ask("a parameter twice", f"{NAMESPACES}?labelSelector=a&labelSelector=b", varies=True),
    Ask("an empty parameter", f"{NAMESPACES}?limit=&watch="),
    Ask("part of a body", "/openapi/v2", headers={"Range": "bytes=0-9"}),
    Ask("watch", f"{NAMESPACES}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Ddefault", varies=True),
    Ask(
        "watch in protobuf",
        f"{NAMESPACES}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dno",
        headers=accept(f"{PROTOBUF};stream=watch"),
    ),
    Ask("watch of a bad version", f"{NAMESPACES}?watch=1&resourceVersion=no"),
    Ask("bad version", f"{NAMESPACES}?resourceVersion=no"),
    Ask("version to come", f"{NAMESPACES}?resourceVersion=999999999999&timeout=1s", varies=True),
    Ask("HEAD of discovery", "/api/v1", "HEAD"),
    Ask("HEAD of health", "/livez", "HEAD"),
    Ask("HEAD of an object", f"{NAMESPACES}/default", "HEAD"),
    Ask("OPTIONS", f"{NAMESPACES}/default", "OPTIONS"),
    Ask("no such path", "/apis/none.example.com/v1/things"),
    Ask("no such object", f"{MAPS}/none"),
    Ask("no such resource", "/api/v1/nothings"),
    Ask("no such subresource", f"{MAPS}/none/status"),
    Ask("not acceptable", NAMESPACES, headers=accept("text/html")),
    Ask("not acceptable for an object", f"{NAMESPACES}/default", headers=accept("image/png")),
    Ask("not allowed on an object", f"{NAMESPACES}/default", "POST", sends(JSON), b"{}"),
    Ask("not allowed on a collection", MAPS, "PUT", sends(JSON), MAP),
    Ask("not allowed on discovery", "/api/v1", "DELETE"),
    Ask("create", MAPS + DRY, "POST", sends(JSON), MAP, varies=True),
    Ask(
        "create in YAML",
        MAPS + DRY,
        "POST",
        sends("application/yaml"),
        b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: raw}\n",
        varies=True,
    ),
    Ask("create what exists", NAMESPACES, "POST", sends(JSON), b'{"metadata":{"name":"default"}}'),
    Ask("create what is no JSON", MAPS, "POST", sends(JSON), MAP[:-10]),
    Ask("create what is not UTF-8", MAPS + DRY, "POST", sends(JSON), MAP.replace(b"b", b"\xff"), varies=True),
    Ask("create an unknown kind", MAPS, "POST", sends(JSON), MAP.replace(b"ConfigMap", b"Nothing")),
    Ask("create an invalid name", MAPS, "POST", sends(JSON), MAP.replace(b"raw", b"Raw_")),
    Ask(
        "create with an unknown field",
        MAPS + DRY + "&fieldValidation=Strict",
        "POST",
        sends(JSON),
        MAP.replace(b"data", b"date"),
    ),
    Ask(
        "create with a warning",
        MAPS + DRY + "&fieldValidation=Warn",
        "POST",
        sends(JSON),
        MAP.replace(b'"a"', b'"a":"c","a"'),
        varies=True,
    ),
    Ask("create of a media type that is none", MAPS, "POST", sends("text/plain"), MAP),
    Ask("create without a media type", MAPS + DRY, "POST", {}, MAP, varies=True),
    Ask("create with nothing", MAPS, "POST", sends(JSON)),
    Ask("create with a bad option", MAPS + "?dryRun=Some", "POST", sends(JSON), MAP),
    Ask("apply", MAPS + "/raw" + DRY, "PATCH", sends("application/apply-patch+yaml"), MAP, varies=True),
    Ask("apply without a manager", MAPS + "/raw", "PATCH", sends("application/apply-patch+yaml"), MAP),
    Ask("patch of a media type that is none", f"{NAMESPACES}/default", "PATCH", sends(JSON), b"{}"),
    Ask("patch that is no JSON", f"{NAMESPACES}/default", "PATCH", sends("application/merge-patch+json"), b"{"),
    Ask("update with another name", f"{NAMESPACES}/default", "PUT", sends(JSON), b'{"metadata":{"name":"other"}}'),
    Ask(
        "update of an old version",
        f"{NAMESPACES}/default",
        "PUT",
        sends(JSON),
        b'{"metadata":{"name":"default","resourceVersion":"1"}}',
    ),
    Ask("delete, dry run", f"{NAMESPACES}/default?dryRun=All", "DELETE", varies=True),
    Ask("delete what is not there", f"{MAPS}/none", "DELETE"),
    Ask(
        "delete with a bad precondition",
        f"{NAMESPACES}/kube-public",
        "DELETE",
        sends(JSON),
        b'{"preconditions":{"uid":"x"}}',
        varies=True,
    ),
    Ask("3 MiB and more", MAPS, "POST", sends(JSON), b'{"data":{"a":"' + b"a" * 3_200_000 + b'"}}'),
    Ask("logs of no pod", f"{NAMESPACES}/default/pods/none/log"),
    Ask("exec without an upgrade", f"{NAMESPACES}/default/pods/none/exec?command=a", "POST"),
    Ask("service proxy", f"{NAMESPACES}/default/services/none/proxy/a/b?c=d"),
    Ask("metrics", "/metrics/slis", headers=accept("text/plain"), varies=True),
)


@pytest.fixture(scope="module", params=["HTTP/1.1", "HTTP/2"])
def clients(
    request: pytest.FixtureRequest, gateway: Gateway, kubemember: GoMember, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[httpx2.Client, httpx2.Client]]:
    """One straight to the member and one through the gateway, which comes to it with the same credential."""
    gateway.register("raw", endpoint=kubemember.endpoint, ca=kubemember.ca.encode(), **kubemember.proof("x509"))
    direct = ways.direct(tmp_path_factory.mktemp("direct"), kubemember, "x509")
    through = ways.through(tmp_path_factory.mktemp("through"), gateway.kubeconfig, gateway.url, "raw", "x509")
    with client(direct, request.param) as one, client(through, request.param) as other:
        yield one, other


def client(way: Way, protocol: str) -> httpx2.Client:
    two = protocol == "HTTP/2"
    return httpx2.Client(
        base_url=way.server, verify=way.tls(), http1=not two, http2=two, timeout=ways.DEADLINE, trust_env=False,
        headers={"User-Agent": "raw", "Accept": JSON, "Accept-Encoding": "identity"},
    )  # fmt: skip


@dataclass(frozen=True)
class Answer:
    protocol: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def ask(client: httpx2.Client, what: Ask, **more: str) -> Answer:
    prefix = client.base_url.path.rstrip("/")  # of a redirect
    with client.stream(what.method, what.path, headers={**what.headers, **more}, content=what.body or None) as response:
        body = b"".join(response.iter_raw())
        kept = [(name.lower(), value) for name, value in response.headers.items() if name.lower() not in PER_REQUEST]
    if what.varies:
        body = VARYING.sub(b"<varies>", body)
        kept = [each for each in kept if each[0] != "content-length"]
    # A list may come as one field or as several, and with spaces or without (RFC 9110, 5.3).
    joined = sorted((name, re.sub(r" *, *", ", ", value.removeprefix(prefix))) for name, value in kept)
    return Answer(response.http_version, response.status_code, tuple(joined), body)


@pytest.mark.parametrize("what", ASKS, ids=[each.name for each in ASKS])
def test_the_bytes_are_the_members(clients: tuple[httpx2.Client, httpx2.Client], what: Ask) -> None:
    # What is no constant may change between the two, or end before a busy server has said it.
    for _ in range(3 if what.varies else 1):
        direct, through = (ask(each, what) for each in clients)
        if through == direct:
            break
    assert through.protocol == direct.protocol
    assert (through.status, through.headers) == (direct.status, direct.headers)
    assert through.body == direct.body


@pytest.mark.parametrize("path", ["/openapi/v2", "/api", "/apis"])
def test_what_is_not_modified_is_not_sent_again(clients: tuple[httpx2.Client, httpx2.Client], path: str) -> None:
    kind = AGGREGATED if path.startswith("/api") else JSON
    first = [ask(each, Ask("first", path, headers=accept(kind))) for each in clients]
    assert first[0] == first[1]
    tag = dict(first[0].headers)["etag"]
    again = [ask(each, Ask("again", path, headers=accept(kind)), **{"If-None-Match": tag}) for each in clients]
    assert again[0] == again[1]
    assert (again[0].status, again[0].body) == (304, b"")
