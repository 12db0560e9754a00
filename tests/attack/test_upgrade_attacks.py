"""Attacks by upgrades and by what members answer (THREATS 5, 6, 11)."""

import base64

import pytest
from tests.attack.conftest import C1, C2, Person, Site
from tests.attack.rawhttp import request

pytestmark = pytest.mark.e2e

CREATING = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch", "create"]}
WEBSOCKET = (
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", base64.b64encode(b"0123456789abcdef").decode()),
    ("sec-websocket-protocol", "v5.channel.k8s.io"),
)
SPDY = (("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v4.channel.k8s.io"))
KINDS = {"websocket": ("GET", WEBSOCKET), "spdy": ("POST", SPDY)}

SESSIONS = [
    "/api/v1/namespaces/d/pods/p/exec?command=id",
    "/api/v1/namespaces/d/pods/p/exec/?command=id",
    "/api/v1/namespaces/d/pods/p/attach",
    "/api/v1/namespaces/d/pods/p/portforward?ports=80",
    "/api/v1/nodes/n/proxy/exec/d/p/c?command=id",
    "/api/v1/namespaces/d/services/s/proxy/",
    "/api/v1/namespaces/d/pods/p/log?follow=1",
    "/api/v1/pods?watch=1",
]


@pytest.fixture(scope="module")
def maker(site: Site) -> Person:
    return site.person("maker", CREATING)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", [C1, C2])
@pytest.mark.parametrize("path", SESSIONS)
def test_whoever_only_reads_gets_no_session(
    site: Site, reader: Person, maker: Person, path: str, target: str, kind: str
) -> None:
    method, headers = KINDS[kind]
    member = site.c1 if target == C1 else site.c2
    before = len(member.requests())
    for each in {"GET", method}:
        with site.wire(reader) as wire:
            wire.send(request(each, target + path, *headers))
            assert wire.answer().code == 403
    assert len(member.requests()) == before
    with site.wire(maker) as wire:
        wire.send(request(method, target + path, *headers))
        assert wire.answer().code == 101
        wire.send(b"there")
        while len(wire.rest) < 5:
            assert wire._fill()
        assert wire.rest == b"there"


@pytest.mark.parametrize("upgrade", ["h2c", "tls/1.3", "foo", "websocket, h2c", "CONNECT-UDP"])
def test_other_upgrades_are_none(site: Site, maker: Person, upgrade: str) -> None:
    before = len(site.c1.requests())
    headers = (("connection", "Upgrade, HTTP2-Settings"), ("upgrade", upgrade), ("http2-settings", "AAMAAABkAAQAAP__"))
    with site.wire(maker) as wire:
        wire.send(request("GET", C1 + "/api/v1/pods", *headers))
        answer = wire.answer()
        assert answer.code in (400, 403, 404) or (answer.code == 200 and upgrade == "h2c")
    for seen in site.c1.requests()[before:]:
        assert not seen.all("upgrade")


REJECTIONS = {
    "403": b"HTTP/1.1 403 Forbidden\r\ncontent-length: 9\r\n\r\nforbidden",
    "404": b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnone",
    "200": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "302": b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("late", [False, True], ids=["same packet", "later"])
@pytest.mark.parametrize("code", REJECTIONS)
def test_what_follows_a_rejected_upgrade_is_no_request(
    site: Site, maker: Person, reader: Person, code: str, late: bool, kind: str
) -> None:
    method, headers = KINDS[kind]
    path = f"/api/v1/namespaces/d/pods/rejected-{code}-{kind}-{late}/exec"
    site.c1.answers[path] = REJECTIONS[code]
    hidden = f"/api/v1/namespaces/d/secrets/hidden-{code}-{kind}-{late}"
    smuggled = request("GET", hidden, ("host", "member"))
    with site.wire(maker) as wire:
        wire.send(request(method, C1 + path, *headers) + (b"" if late else smuggled))
        answer = wire.answer()
        if late:
            wire.send(smuggled)
        assert answer.code == (502 if code == "302" else int(code))
        follow = wire.answer()  # EOF, or an answer of the gateway itself: that path is none of its own
        assert follow.code in (0, 400, 401, 403, 404)
    (first,) = site.c1.requests(path)
    assert site.ask(reader, C1 + f"/api/v1/after-{code}-{kind}-{late}").code == 200
    (after,) = site.c1.requests(f"/api/v1/after-{code}-{kind}-{late}")
    assert not site.c1.requests("hidden-" + code + f"-{kind}-{late}")
    assert hidden.encode() not in site.c1.everything()
    assert after.connection != first.connection
    del site.c1.answers[path]


LOCATIONS = [
    "http://169.254.169.254/latest/meta-data/",
    "https://attacker.example/",
    "/api/v1/secrets",
    "/apis/cluster.karpor.io/v1beta1/clusters/c2/proxy/api/v1/secrets",
    "//attacker.example/x",
]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308, 300])
@pytest.mark.parametrize("location", LOCATIONS)
def test_a_members_redirect_goes_nowhere(site: Site, maker: Person, code: int, location: str) -> None:
    path = "/api/v1/namespaces/d/pods/moved"
    site.c1.answers[path] = (
        f"HTTP/1.1 {code} Moved\r\nlocation: {location}\r\ncontent-length: 5\r\nset-cookie: a=b\r\n\r\nmoved".encode()
    )
    before = len(site.c2.requests())
    for target, headers in ((path, ()), (path + "/exec", WEBSOCKET), (path + "/attach", SPDY)):
        with site.wire(maker) as wire:
            wire.send(request("GET", C1 + target, *headers))
            answer = wire.answer()
        assert answer.code == 502
        assert not answer.all("location")
        assert location.encode() not in answer.body
    assert len(site.c2.requests()) == before
    assert len(site.c1.requests("/api/v1/secrets")) == 0
    del site.c1.answers[path]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 0\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ],
)
def test_a_member_that_answers_nonsense_harms_only_its_own_request(site: Site, maker: Person, answer: bytes) -> None:
    path = "/api/v1/namespaces/d/pods/nonsense"
    site.c1.answers[path] = answer
    got = site.ask(maker, C1 + path).code
    assert got in (200, 502, 503)
    del site.c1.answers[path]
    assert site.ask(maker, C1 + "/api/v1/pods").code == 200
    assert site.ask(maker, C2 + "/api/v1/pods").code == 200
