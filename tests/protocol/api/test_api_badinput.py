"""What nobody should send: each gets a Status with the right code and reason, and the server is as before."""

import asyncio
import contextlib
import json
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.protocol.api.conftest import DEADLINE, Api

from onepass.api.errors import ApiError
from onepass.apiserver import encoding, protobuf, reading, strictness

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
CLUSTERS = "/apis/cluster.karpor.io/v1beta1/clusters"
JSON, YAML, PROTOBUF = "application/json", "application/yaml", protobuf.TYPE
LIMIT = 200_000  # of the server in conftest
BAD, INVALID = (400, "BadRequest"), (422, "Invalid")


def account(name: str, **more: object) -> bytes:
    return json.dumps({"metadata": {"name": name}, **more}).encode()


BODIES: list[tuple[str, str, bytes, tuple[int, str]]] = [
    ("nothing", JSON, b"", BAD),
    ("white space", JSON, b" \n", BAD),
    ("truncated", JSON, account("a")[:-1], BAD),
    ("truncated in a string", JSON, b'{"metadata":{"name":"a', BAD),
    ("trailing garbage", JSON, account("a") + b"x", BAD),
    ("two objects", JSON, account("a") + account("b"), BAD),
    ("a number", JSON, b"1", BAD),
    ("a list", JSON, b"[]", BAD),
    ("null", JSON, b"null", BAD),
    ("NaN", JSON, b'{"metadata":{"name":NaN}}', BAD),
    ("a lone surrogate", JSON, b'{"metadata":{"name":"\\ud800"}}', BAD),
    ("not UTF-8", JSON, b'{"metadata":{"name":"\xff\xfe"}}', BAD),
    ("not UTF-8 in a key", JSON, b'{"\xc3\x28":1,"metadata":{"name":"a"}}', BAD),
    ("deeply nested objects", JSON, b'{"a":' * 50_000 + b"1" + b"}" * 50_000, (413, "RequestEntityTooLarge")),
    ("nested objects", JSON, b'{"a":' * 1000 + b"1" + b"}" * 1000, BAD),
    ("nested lists", JSON, b'{"a":' + b"[" * 900 + b"]" * 900 + b"}", BAD),
    ("nested just below the parser's own limit", JSON, b'{"a":' * 200 + b"1" + b"}" * 200, BAD),
    ("a name that is a number", JSON, b'{"metadata":{"name":7}}', BAD),
    ("metadata that is a list", JSON, b'{"metadata":[]}', BAD),
    ("metadata that is a string", JSON, b'{"metadata":"a"}', BAD),
    ("labels that are numbers", JSON, b'{"metadata":{"name":"a","labels":{"a":1}}}', BAD),
    ("labels that are a list", JSON, b'{"metadata":{"name":"a","labels":["a"]}}', BAD),
    ("labels that are an empty list", JSON, b'{"metadata":{"name":"a","labels":[]}}', BAD),
    ("a namespace that is a number", JSON, b'{"metadata":{"name":"a","namespace":0}}', BAD),
    ("a time that is none", JSON, b'{"metadata":{"name":"a","creationTimestamp":"x"}}', BAD),
    ("a uid that is a number", JSON, b'{"metadata":{"name":"a","uid":0}}', BAD),
    ("owners that are an empty object", JSON, b'{"metadata":{"name":"a","ownerReferences":{}}}', BAD),
    ("a kind that is a number", JSON, account("a", kind=1), BAD),
    ("another kind", JSON, account("a", kind="Pod"), BAD),
    ("another version", JSON, account("a", apiVersion="v2"), BAD),
    ("no name", JSON, b'{"metadata":{}}', INVALID),
    ("an upper-case name", JSON, account("Robot"), INVALID),
    ("a name with a slash", JSON, account("a/b"), INVALID),
    ("a name of dots", JSON, account(".."), INVALID),
    ("a name with a line break", JSON, account("a\nb"), INVALID),
    ("a name with a zero byte", JSON, account("a\0"), INVALID),
    ("a long name", JSON, account("a" * 254), INVALID),
    ("a label that is no name", JSON, b'{"metadata":{"name":"a","labels":{"-":"x"}}}', INVALID),
    ("a label's value that is none", JSON, b'{"metadata":{"name":"a","labels":{"a":"-"}}}', INVALID),
    ("an annotation that is no name", JSON, b'{"metadata":{"name":"a","annotations":{"a b":"x"}}}', INVALID),
    ("a finalizer that is no name", JSON, b'{"metadata":{"name":"a","finalizers":["a b"]}}', INVALID),
    ("a huge list", JSON, account("a", secrets=[1] * 60_000), INVALID),
    ("too large", JSON, account("a", x="y" * LIMIT), (413, "RequestEntityTooLarge")),
    ("XML", "application/xml", b"<a/>", (415, "UnsupportedMediaType")),
    ("a form", "application/x-www-form-urlencoded", b"a=b", (415, "UnsupportedMediaType")),
    ("CBOR", "application/cbor", b"\xa0", (415, "UnsupportedMediaType")),
    ("a patch", "application/merge-patch+json", account("a"), (415, "UnsupportedMediaType")),
    ("no media type at all", "nonsense", account("a"), (415, "UnsupportedMediaType")),
    ("YAML with a tab", YAML, b"metadata:\n\tname: a\n", BAD),
    ("YAML that is a word", YAML, b"hello", BAD),
    ("YAML with a tag", YAML, b"metadata: !!python/object:os.system {}\n", BAD),
    ("YAML of two documents", YAML, b"metadata: {name: a}\n---\nmetadata: {name: b}\n", BAD),
    ("YAML with an alias of nothing", YAML, b"metadata: *nothing\n", BAD),
    ("YAML that contains itself", YAML, b"metadata: &m {name: a, labels: *m}\n", BAD),
    ("nested YAML", YAML, b"a: " + b"[" * 5000 + b"]" * 5000, BAD),
    ("a YAML bomb", YAML, b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
        b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(8)), BAD),
    ("YAML that is not UTF-8", YAML, b"metadata: {name: \xff}\n", BAD),
    ("protobuf without its mark", PROTOBUF, b"\x0a\x00", BAD),
    ("protobuf cut off", PROTOBUF, b"k8s\0\x0a\xff", BAD),
    ("protobuf of no kind", PROTOBUF, b"k8s\0", (415, "UnsupportedMediaType")),
]  # fmt: skip


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("kind", "body", "told"), [row[1:] for row in BODIES], ids=[row[0] for row in BODIES])
async def test_bodies_that_cannot_be(shared: Api, kind: str, body: bytes, told: tuple[int, str]) -> None:
    before = await shared.get(ACCOUNTS)
    for path in (ACCOUNTS, REVIEWS) if told not in (INVALID,) and b"metadata" not in body else (ACCOUNTS,):
        answer = await shared.send("POST", path, body, headers={"content-type": kind})
        status = answer.json()
        assert (answer.status_code, status["reason"]) == told, status
        assert (status["kind"], status["apiVersion"], status["status"]) == ("Status", "v1", "Failure")
        assert status["code"] == answer.status_code
        assert len(answer.content) < 100_000
        assert ("causes" in status.get("details", {})) is (told == INVALID)
    assert await shared.get(ACCOUNTS) == before


@pytest.mark.asyncio(loop_scope="module")
async def test_a_great_many_mistakes_get_a_small_answer(shared: Api) -> None:
    many = {f"unknown{number}": 1 for number in range(5000)}
    warned = await shared.send("POST", f"{ACCOUNTS}?dryRun=All", account("a", **many))
    assert warned.status_code == 201
    assert 10 < len(warned.headers.get_list("warning")) <= 40
    strict = await shared.send("POST", f"{ACCOUNTS}?dryRun=All&fieldValidation=Strict", account("a", **many))
    assert (strict.status_code, len(strict.content) < 20_000) == (400, True)
    assert strict.json()["message"].endswith("...")
    wrong = await shared.send("POST", ACCOUNTS, account("a", secrets=[1] * 60_000))
    causes = wrong.json()["details"]["causes"]
    assert (wrong.status_code, len(causes), causes[0]["field"]) == (422, 64, "secrets[0]")
    assert "and 59936 more" in wrong.json()["message"]


@pytest.mark.asyncio(loop_scope="module")
async def test_unknown_fields_are_told_and_never_kept(shared: Api) -> None:
    odd = account("odd", colour="red")
    for validation, code in (("Strict", 400), ("Warn", 201), ("Ignore", 201)):
        answer = await shared.send("POST", f"{ACCOUNTS}?dryRun=All&fieldValidation={validation}", odd)
        assert answer.status_code == code
        assert ("warning" in answer.headers) is (validation == "Warn")
        assert "red" not in answer.text


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("method", "path", "accept", "told"),
    [
        ("GET", ACCOUNTS, "text/html", (406, "NotAcceptable")),
        ("GET", ACCOUNTS, "application/json;as=Chair;g=meta.k8s.io;v=v1", (406, "NotAcceptable")),
        ("GET", ACCOUNTS, "application/json;as=Table;g=meta.k8s.io;v=v2", (406, "NotAcceptable")),
        ("GET", ACCOUNTS, "application/json;g=apidiscovery.k8s.io;v=v2", (406, "NotAcceptable")),
        ("GET", ACCOUNTS, "application/json;stream=chairs", (406, "NotAcceptable")),
        ("GET", f"{ACCOUNTS}?watch=1", "application/yaml", (406, "NotAcceptable")),
        ("GET", f"{ACCOUNTS}/nobody", "*/*", (404, "NotFound")),
        ("GET", "/apis/nothing/v1/chairs", "*/*", (404, "NotFound")),
        ("PUT", ACCOUNTS, "*/*", (405, "MethodNotAllowed")),
        ("POST", f"{ACCOUNTS}/robot", "*/*", (405, "MethodNotAllowed")),
        ("DELETE", "/api/v1/namespaces", "*/*", (405, "MethodNotAllowed")),
    ],
)
async def test_requests_that_cannot_be(shared: Api, method: str, path: str, accept: str, told: tuple[int, str]) -> None:
    answer = await shared.send(method, path, headers={"accept": accept})
    assert (answer.status_code, answer.json()["reason"], answer.json()["code"]) == (*told, told[0])


# What clients send: Accept, and the Content-Type that they get, of a list and of the groups.
GROUPS = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
BETA = GROUPS.replace("v=v2;", "v=v2beta1;")
TABLES = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("path", "accept", "content_type", "kind"),
    [
        ("/apis", "application/json, */*", JSON, "APIGroupList"),  # kubectl 1.20
        ("/apis", f"{BETA},application/json", JSON, "APIGroupList"),  # client-go 0.26
        ("/apis", f"{GROUPS},{BETA},application/json", GROUPS, "APIGroupDiscoveryList"),  # client-go since 0.30
        ("/api", f"{GROUPS},{BETA},application/json", GROUPS, "APIGroupDiscoveryList"),
        ("/apis", f"{GROUPS};profile=nopeer,application/json", GROUPS, "APIGroupDiscoveryList"),
        ("/apis", BETA, "", ""),
        ("/apis", "", JSON, "APIGroupList"),
        (ACCOUNTS, f"{TABLES},application/json", JSON, "Table"),  # kubectl get
        (ACCOUNTS, "application/vnd.kubernetes.protobuf,application/json", JSON, "ServiceAccountList"),
        (ACCOUNTS, "application/vnd.kubernetes.protobuf", "", ""),
        (ACCOUNTS, "application/yaml;q=0.9, application/json;q=0.5", YAML, ""),
        (ACCOUNTS, "*/*;q=0.1, application/yaml", YAML, ""),
        (ACCOUNTS, "application/*", JSON, "ServiceAccountList"),
        (ACCOUNTS, "text/html, */*;q=0.8", JSON, "ServiceAccountList"),
        (ACCOUNTS, "application/json;q=0, application/yaml", YAML, ""),
        (ACCOUNTS, "application/json;q=many, application/yaml;q=0.1", YAML, ""),
    ],
)  # fmt: skip
async def test_each_accept_header_gets_what_it_asks_for_first(
    shared: Api, path: str, accept: str, content_type: str, kind: str
) -> None:
    answer = await shared.send("GET", path, headers={"accept": accept})
    if not content_type:
        assert answer.status_code == 406
        return
    assert (answer.status_code, answer.headers["content-type"]) == (200, content_type)
    if kind:
        assert answer.json()["kind"] == kind


FEW = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
TEXT = st.text(max_size=40)  # without surrogates
WORDS = st.sampled_from(
    ["watch", "limit", "continue", "labelSelector", "fieldSelector", "resourceVersion", "resourceVersionMatch",
     "timeoutSeconds", "sendInitialEvents", "includeObject", "pretty", "dryRun", "fieldManager", "fieldValidation",
     "=", "&", "%", "%00", "%ff", "%2f", ";", "true", "0", "-1", "9" * 30, "a in (b", "!", "in", "metadata.name",
     "\x7f", "Exact", "NotOlderThan", "e30", "as=Table", "q=", "application/json", "application/yaml", "*/*", ",",
     "v=v1"]
)  # fmt: skip
PIECES = st.lists(WORDS | TEXT, max_size=12).map("".join)


PATHS = [ACCOUNTS, f"{ACCOUNTS}/a", "/apis", "/openapi/v3", "/readyz", "/"]


def _printable(text: str) -> bytes:
    """As a header or a request line can carry it."""
    return "".join(c if 32 < ord(c) < 127 else "".join(f"%{b:02x}" for b in c.encode()) for c in text).encode()


def _sent(port: int, target: bytes, headers: bytes, body: bytes, method: bytes) -> tuple[int, bytes]:
    async def send() -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n" % (method, target, headers)
            + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        async with asyncio.timeout(DEADLINE):
            answer = await reader.read()
        writer.close()
        return int(answer.split(b" ", 2)[1]), answer

    return asyncio.run_coroutine_threadsafe(send(), _loops[port]).result(DEADLINE)


_loops: dict[int, asyncio.AbstractEventLoop] = {}


@pytest.mark.asyncio(loop_scope="module")
async def test_no_request_line_and_no_header_is_a_fault(shared: Api) -> None:
    _loops[shared.port] = asyncio.get_running_loop()

    @FEW
    @given(
        path=st.sampled_from(PATHS) | PIECES.map("/{}".format),
        query=PIECES,
        accept=PIECES,
        kind=PIECES,
        method=st.sampled_from([b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"HEAD"]),
        body=st.binary(max_size=40),
    )  # fmt: skip
    def fuzz(path: str, query: str, accept: str, kind: str, method: bytes, body: bytes) -> None:
        target = b"%s?timeoutSeconds=1&dryRun=All&%s" % (_printable(path).replace(b"?", b"%3f"), _printable(query))
        headers = b"Accept: %s\r\nContent-Type: %s" % (_printable(accept), _printable(kind))
        code, answer = _sent(shared.port, target, headers, body, method)
        assert code < 500 or code == 504, answer

    await asyncio.to_thread(fuzz)
    assert (await shared.send("GET", "/livez")).text == "ok"


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
MANY = settings(max_examples=400, deadline=None)


@MANY
@given(VALUES)
def test_json_is_read_as_it_was_written(value: object) -> None:
    assert encoding.load(json.dumps(value).encode(), JSON, 64) == json.loads(json.dumps(value))


@MANY
@given(
    st.binary(max_size=200)
    | TEXT.map(str.encode)
    | st.lists(st.sampled_from([b"{", b"}", b"[", b"]", b":", b",", b'"', b"- ", b"\n", b"  ", b"&a ", b"*a", b"!!",
                                b"<<: ", b"? ", b"|", b"1e9", b"0x", b"\xff", b"k8s\0", b"\x0a\x02v1", b"\x12"]),
               max_size=40).map(b"".join),
    st.sampled_from([JSON, YAML, PROTOBUF]),
)  # fmt: skip
def test_no_body_is_a_fault(body: bytes, kind: str) -> None:
    for prefix in (b"", b"k8s\0") if kind == PROTOBUF else (b"",):
        with contextlib.suppress(ApiError):  # anything else is a fault
            encoding.load(prefix + body, kind, 64)


LARGE_BODIES = [
    ("POST", ACCOUNTS, JSON),
    ("POST", ACCOUNTS, YAML),
    ("PUT", f"{ACCOUNTS}/large", JSON),
    ("PATCH", f"{ACCOUNTS}/large", "application/merge-patch+json"),
    ("PATCH", f"{ACCOUNTS}/large?fieldManager=large", "application/apply-patch+yaml"),
    ("DELETE", f"{ACCOUNTS}/large", JSON),
    ("POST", REVIEWS, JSON),
]


@pytest.mark.parametrize(("method", "path", "kind"), LARGE_BODIES)
async def test_large_bodies_are_read_beside_the_event_loop(
    api: Api, monkeypatch: pytest.MonkeyPatch, method: str, path: str, kind: str
) -> None:
    readers: list[threading.Thread] = []
    real = strictness.asked if method != "DELETE" else encoding.load_object

    def noted(*arguments: Any) -> Any:
        readers.append(threading.current_thread())
        return real(*arguments)

    monkeypatch.setattr(*((strictness, "asked") if method != "DELETE" else (encoding, "load_object")), noted)
    body = json.dumps({"metadata": {"name": "large", "annotations": {"much": "x" * reading.LARGE}}}).encode()
    await api.client.request(method, path, content=body, headers={"content-type": kind})
    assert readers
    assert threading.main_thread() not in readers
