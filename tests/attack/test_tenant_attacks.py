"""Nothing of one member's reaches another: under load, while members are renamed, remade, rotated and refused
(THREATS 24)."""

import base64
import itertools
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from tests.attack import echo
from tests.attack.conftest import (
    CLUSTERS,
    EVERYTHING,
    PASSES,
    Person,
    Site,
    certificate_of,
    granting,
)
from tests.attack.echo import Echo
from tests.attack.rawhttp import request
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

REQUESTS = 300  # of each worker


def token(name: str) -> dict[str, Any]:
    return {"type": "ServiceAccountToken", "serviceAccountToken": f"token-of-{name}"}


class Load:
    """Workers that ask several members by turns, on connections that they keep, until stopped or done."""

    def __init__(self, site: Site, person: Person, names: tuple[str, ...]) -> None:
        self.site, self.person, self.names = site, person, names
        self.codes: dict[int, int] = {}
        self.lock = threading.Lock()

    def work(self, worker: int) -> None:
        with self.site.wire(self.person) as wire:
            for number, name in zip(range(REQUESTS), itertools.cycle(self.names), strict=False):
                path = f"{CLUSTERS}/{name}/proxy/api/v1/for-{name}-{worker}-{number}"
                wire.send(request("GET", path))
                code = wire.answer().code
                with self.lock:
                    self.codes[code] = self.codes.get(code, 0) + 1
                assert code in (200, 403, 404, 502, 503), code


def own(member: Echo, name: str, said: set[str]) -> None:
    """Every request that reached `member` was for `name`, with a credential of its own."""
    for seen in member.requests():
        assert seen.target.startswith(f"/api/v1/for-{name}-"), (name, seen.target)
        assert {*seen.all("authorization"), seen.peer} <= said, (name, seen)
        assert seen.sni in ("", f"{name}.example"), (name, seen.sni)


@contextmanager
def several(*names: str) -> Iterator[Mapping[str, Echo]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(echo.running(name, http2=name.endswith("2"))) for name in names}


def test_no_member_ever_sees_what_is_anothers(site: Site) -> None:
    """Two members by token and two by certificate; while requests run, credentials turn and members come and go."""
    names = ("t1", "t2", "x1", "x2")
    tenant = site.person("tenant")
    site.made(PASSES, granting("tenants", [EVERYTHING], names, user="tenant"))
    with several(*names) as members:

        def credential(name: str, turn: int) -> dict[str, Any]:
            said = f"{name}-{turn}"
            return certificate_of(members[name], said) if name.startswith("x") else token(said)

        for name in names:
            site.made(CLUSTERS, site.member(name, members[name], credential=credential(name, 0)))
        for name in names:
            site.healthy(name)
        load = Load(site, tenant, names)
        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(load.work, worker) for worker in range(8)]
            for turn in itertools.count(1):
                name = names[turn % 4]
                if turn % 3 == 0:  # gone, and back with another credential
                    site.gone(f"{CLUSTERS}/{name}")
                    site.made(CLUSTERS, site.member(name, members[name], credential=credential(name, turn)))
                elif turn % 3 == 1:  # another credential
                    spec = {"spec": {"access": {"credential": credential(name, turn)}}}
                    answer = site.api("PATCH", f"{CLUSTERS}/{name}", spec, kind="merge-patch+json")
                    assert answer.code == 200, answer.body
                else:  # a certificate authority that no certificate is of, and back
                    wrong = base64.b64encode(members[names[(turn + 1) % 4]].ca).decode()
                    for ca in (wrong, base64.b64encode(members[name].ca).decode()):
                        access = {"caBundle": ca, "credential": credential(name, turn)}
                        moved = {"spec": {"access": access}}
                        assert site.api("PATCH", f"{CLUSTERS}/{name}", moved, kind="merge-patch+json").code == 200
                if all(each.done() for each in running):
                    break
            for each in running:
                each.result()
        try:
            for name, member in members.items():
                turns = {f"{name}-{number}" for number in range(turn + 1)}
                said = turns | {""} if name.startswith("x") else {f"Bearer token-of-{each}" for each in turns} | {""}
                own(member, name, said)
                everything = member.everything()
                for other in set(names) - {name}:
                    assert f"token-of-{other}".encode() not in everything
            assert load.codes.get(200, 0) > REQUESTS, load.codes
        finally:
            for name in names:
                site.gone(f"{CLUSTERS}/{name}")
            site.gone(f"{PASSES}/tenants")


def test_two_members_at_one_address_are_two(site: Site) -> None:
    """The same host and port under two names, with two tokens and two server names."""
    tenant = site.person("neighbour")
    site.made(PASSES, granting("neighbours", [EVERYTHING], ["left", "right"], user="neighbour"))
    with echo.running("both") as both:
        servers = {"left": "member.example", "right": "localhost"}
        for name, server in servers.items():
            site.made(CLUSTERS, site.member(name, both, serverName=server, credential=token(name)))
        try:
            for name in servers:
                site.healthy(name)
                eventually(lambda n=name: site.ask(tenant, f"{CLUSTERS}/{n}/proxy/version").code == 200)  # type: ignore[misc]
            load = Load(site, tenant, ("left", "right"))
            with ThreadPoolExecutor(4) as pool:
                for each in [pool.submit(load.work, worker) for worker in range(4)]:
                    each.result()
            assert load.codes.get(200, 0) == 4 * REQUESTS, load.codes
            connections: dict[int, set[str]] = {}
            for seen in both.requests():
                name = "left" if "for-left-" in seen.target else "right"
                assert seen.all("authorization") == [f"Bearer token-of-{name}"]
                assert seen.sni == servers[name]
                connections.setdefault(seen.connection, set()).add(name)
            assert all(len(names) == 1 for names in connections.values())
        finally:
            site.gone(f"{CLUSTERS}/left")
            site.gone(f"{CLUSTERS}/right")
            site.gone(f"{PASSES}/neighbours")
