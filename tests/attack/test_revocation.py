"""Attack 19: what was taken back is used on, on every kind of connection that was open before."""

import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from tests.attack.conftest import C1, CLUSTERS, CSRS, PASSES, SECONDS, Person, Site
from tests.attack.rawhttp import Http2, Wire, request
from tests.waiting import eventually

BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
RULES = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
HELD = "/api/v1/namespaces/held/"
UPGRADE = (("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13"))
KEY = ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==")


@dataclass
class Held:
    """What somebody has open: a connection that is kept alive, one of HTTP/2, a watch, a followed log, an
    answer of a service that does not end, an exec."""

    site: Site
    person: Person
    kept: Wire = field(init=False)
    http2: Http2 = field(init=False)
    streams: dict[str, Wire] = field(default_factory=dict)

    def open(self, stack: ExitStack) -> None:
        self.kept = stack.enter_context(self.site.wire(self.person))
        self.http2 = stack.enter_context(self.site.http2(self.person))
        assert self.asked() == (200, 200)
        for name, target, headers in (
            ("watch", f"{C1}{HELD}pods?watch=1", ()),
            ("logs", f"{C1}{HELD}pods/p/log?follow=true", ()),
            ("proxied", f"{C1}{HELD}services/s/proxy/events", ()),
            ("exec", f"{C1}/api/v1/namespaces/n/pods/p/exec?command=sh", (*UPGRADE, KEY)),
        ):
            wire = self.streams[name] = stack.enter_context(self.site.wire(self.person))
            wire.send(request("GET", target, *headers))
            while b"\r\n\r\n" not in wire.rest:
                assert wire._fill()
            assert wire.rest.split(b" ")[1] in (b"200", b"101"), wire.rest
            wire.tls.settimeout(0.05)

    def asked(self) -> tuple[int, int]:
        """What the next requests on the two connections are answered with."""
        self.kept.send(request("GET", f"{C1}/api/v1/pods"))
        return self.kept.answer().code, self.http2.answer(self.http2.send("GET", f"{C1}/api/v1/pods")).code

    def alive(self) -> list[str]:
        """Which streams are open still."""
        return [name for name, wire in self.streams.items() if not over(wire)]


def over(wire: Wire) -> bool:
    try:
        return not wire._fill()
    except TimeoutError:
        return False


def refused_at_handshake(site: Site, person: Person) -> bool:
    try:
        return site.ask(person, "/version").code == 0
    except (ssl.SSLError, ConnectionError):
        return True


@pytest.fixture(scope="module", autouse=True)
def holding(site: Site) -> Iterator[None]:
    """c1 answers whatever is asked in the namespace `held` with a stream that does not end."""
    site.c1.answers[HELD] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{}\n\r\n"
    yield
    del site.c1.answers[HELD]


@pytest.fixture(scope="module")
def other(site: Site) -> Iterator[Held]:
    """Somebody who loses nothing."""
    with ExitStack() as stack:
        held = Held(site, site.person("keeps-theirs", RULES, clusters=("c1",)))
        held.open(stack)
        yield held


def take_certificate(site: Site, name: str) -> None:
    csrs = site.api("GET", CSRS).json()["items"]
    (csr,) = [each for each in csrs if each["metadata"]["name"].startswith(f"{name}-")]
    csr["status"]["conditions"].append({"type": "Revoked", "status": "True", "reason": "Test", "message": "test"})
    assert site.api("PUT", f"{CSRS}/{csr['metadata']['name']}/approval", csr).code == 200


def suspend(site: Site, name: str) -> None:
    answer = site.api("PATCH", f"{PASSES}/{name}", {"spec": {"suspended": True}}, kind="merge-patch+json")
    assert answer.code == 200, answer.body


def delete_pass(site: Site, name: str) -> None:
    site.gone(f"{PASSES}/{name}")


def delete_binding(site: Site, name: str) -> None:
    site.gone(f"{BINDINGS}/{name}")


def bound(site: Site, name: str) -> Person:
    """By a role on the gateway and not by a pass."""
    person = site.person(name)
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "User", "name": name, "apiGroup": group}
    role = {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": group}
    kind = {"apiVersion": f"{group}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name}}
    site.made(BINDINGS, kind | {"subjects": [subject], "roleRef": role})
    eventually(lambda: site.ask(person, f"{CLUSTERS}/c1/proxy/version").code == 200)
    return person


def passed(site: Site, name: str) -> Person:
    return site.person(name, RULES, clusters=("c1",))


@pytest.mark.parametrize(
    ("give", "take", "code"),
    [
        (passed, take_certificate, 401),
        (passed, suspend, 403),
        (passed, delete_pass, 403),
        (bound, delete_binding, 403),
    ],
)
def test_what_was_taken_back_is_of_no_use_on_any_connection(
    site: Site,
    other: Held,
    give: Callable[[Site, str], Person],
    take: Callable[[Site, str], None],
    code: int,
) -> None:
    name = f"loses-{uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:
        held = Held(site, give(site, name))
        held.open(stack)
        assert held.alive() == ["watch", "logs", "proxied", "exec"]
        take(site, name)
        began = time.monotonic()
        eventually(lambda: held.asked() == (code, code), "requests on open connections are still carried")
        asked = time.monotonic() - began
        eventually(lambda: not held.alive(), "streams are still open")
        ended = time.monotonic() - began
        if take is take_certificate:
            eventually(lambda: refused_at_handshake(site, held.person), "a new handshake is still taken")
    print(f"{take.__name__}: the next request after {asked:.2f} s, every stream after {ended:.2f} s")
    assert asked < SECONDS
    assert ended < SECONDS
    assert other.alive() == ["watch", "logs", "proxied", "exec"]
    assert other.asked() == (200, 200)
