"""Each attack leaves one record: who it was, as far as that is known, and what became of it; and no secret in it."""

from typing import Any  # parsed JSON of the records

import pytest
from tests.attack.conftest import C1, CLUSTERS, TOKEN_1, Person, Site
from tests.attack.rawhttp import request
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

Headers = tuple[tuple[str, str], ...]
PODS = C1 + "/api/v1/pods"
WEBSOCKET: Headers = (("connection", "Upgrade"), ("upgrade", "websocket"))
SECRET = "canary-of-a-client"
DETAILS = "access.karpor.io/details"
OWN = ("token in header", "front proxy", "endpoint")  # decided by the gateway's own API server

# One of each kind of the attacks in this folder that are whole requests: method, target, headers, the code.
ATTACKS: dict[str, tuple[str, str, Headers, int]] = {
    "impersonation": ("GET", PODS, (("impersonate-user", "admin"), ("impersonate-group", "system:masters")), 403),
    "front proxy": ("GET", CLUSTERS, (("x-remote-user", "admin"), ("x-forwarded-for", "127.0.0.9")), 403),
    "underscore": ("GET", PODS, (("impersonate_user", "admin"),), 400),
    "hop by hop": ("GET", PODS, (("connection", "impersonate-user, authorization"),), 200),
    "session": ("GET", C1 + "/api/v1/namespaces/d/pods/p/exec?command=id", WEBSOCKET, 403),
    "encoded slash": ("GET", C1 + "/api/v1/namespaces/default%2Fsecrets", (), 400),
    "traversal": ("GET", C1 + "/../../absent/proxy/api/v1/secrets", (), 403),
    "encoded letters": ("DELETE", C1 + "/api/v1/namespaces/d/%73ecrets/s", (), 403),
    "watch": ("DELETE", PODS + "?watch=1", (), 403),
    "semicolon": ("GET", C1 + "/api/v1/namespaces/d;x=y", (), 400),
    "method": ("PROPFIND", PODS, (), 403),
    "endpoint": ("POST", CLUSTERS, (), 403),
    "token in query": ("GET", f"{PODS}?access_token={SECRET}", (), 200),
    "token in header": ("GET", "/version", (("authorization", f"Bearer {SECRET}"), ("cookie", SECRET)), 200),
    "large header": ("GET", PODS, (("x-large", "a" * 110_000),), 431),
    "absent cluster": ("GET", CLUSTERS + "/absent/proxy/api", (), 403),
    "other upgrade": ("GET", PODS, (("connection", "Upgrade"), ("upgrade", "foo")), 403),
}


def test_one_record_each(site: Site, reader: Person) -> None:
    for name, (method, target, headers, code) in ATTACKS.items():
        with site.wire(reader) as wire:
            wire.send(request(method, target, ("user-agent", f"attack/{name}"), *headers))
            assert wire.answer(method).code == code, name
    with site.wire() as wire:
        wire.send(request("GET", PODS, ("user-agent", "attack/nobody"), ("authorization", f"Bearer {SECRET}")))
        assert wire.answer().code == 401

    def told() -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for record in site.records():
            agent = str(record.get("userAgent", ""))
            if agent.startswith("attack/") and record["stage"] == "ResponseComplete":
                found.setdefault(agent.removeprefix("attack/"), []).append(record)
        return found

    expected = {name: code for name, (_, _, _, code) in ATTACKS.items()} | {"nobody": 401}
    # What Envoy's parser refuses it has not read as far as the user agent: the record says what was wrong.
    unread = {"large header": "http1.headers_too_large", "underscore": "http1.unexpected_underscore"}
    expected = {name: code for name, code in expected.items() if name not in unread}
    eventually(lambda: told().keys() >= expected.keys())
    eventually(lambda: {*unread.values()} <= {each["annotations"].get(DETAILS) for each in site.records()})
    records = told()
    for name, code in expected.items():
        assert len(records[name]) == 1, name
        record = records[name][0]
        assert record["responseStatus"]["code"] == code, name
        assert record["sourceIPs"], name
        assert "127.0.0.9" not in record["sourceIPs"]
        if "user" in record:
            assert record["user"]["username"] == ("system:anonymous" if name == "nobody" else "reader"), name
        decision = record["annotations"].get("authorization.k8s.io/decision")
        assert decision == ("allow" if code == 200 else "forbid") or name in OWN, name
    log = (site.gateway.data_dir / "audit.log").read_bytes()
    for secret in (SECRET, TOKEN_1, "PRIVATE KEY"):
        assert secret.encode() not in log
