"""proxyURL and endpoints of clusters: what they may be, and that the password of a proxy never comes back out."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any  # objects are JSON

import orjson
import pytest

from onepass.access.identity import Identity
from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import Object
from onepass.gateway import members
from onepass.pki.sealing import SealError
from onepass.registry import clusters, credentials, proxies, selection
from onepass.registry.destinations import Bounds
from onepass.registry.store import Store, Write
from onepass.storage.interface import Storage

TOKEN = "canary-token-0123456789"
PASSWORD = "canary-pass"
PROXY = f"http://user:{PASSWORD}@proxy.example:3128"
MASKED = "http://user:xxxxx@proxy.example:3128"


class Box:
    """Keeps what it is given, until it is `lost`."""

    lost = False

    def seal(self, secret: bytes, context: bytes) -> bytes:
        return secret

    def unseal(self, sealed: bytes, context: bytes) -> bytes:
        if self.lost:
            raise SealError("no key")
        return sealed


@pytest.fixture
def box() -> Box:
    return Box()


@pytest.fixture
def store(storage: Storage, box: Box) -> Store:
    return Store(storage, clusters.strategy(), sealer=box)


def cluster(*, token: str = TOKEN, **access: Any) -> dict[str, Any]:
    credential = {"type": "ServiceAccountToken", "serviceAccountToken": token}
    return {
        "apiVersion": "cluster.karpor.io/v1beta1",
        "kind": "Cluster",
        "metadata": {"name": "prod"},
        "spec": {"access": {"endpoint": "https://192.0.2.1:6443", "credential": credential, **access}},
    }


def changed(**access: Any) -> Callable[[Object], Object]:
    def change(obj: Object) -> Object:
        access_of(obj).update(access)
        return obj

    return change


def access_of(obj: Object) -> Object:
    return meta.section(meta.section(obj, "spec"), "access")


async def refused(call: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await call
    assert PASSWORD not in json.dumps(caught.value.status())
    return caught.value


async def sealed(store: Store, made: Object) -> Object:
    parsed: Object = orjson.loads(await store.secret("prod", meta.uid(made)) or b"{}")
    return parsed


@pytest.mark.parametrize(
    ("url", "shown", "password"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128", None),
        ("https://proxy.example", "https://proxy.example", None),
        (PROXY, MASKED, PASSWORD),
        ("http://user:@proxy.example", "http://user:xxxxx@proxy.example", ""),
        ("http://user@proxy.example", "http://user@proxy.example", None),
        ("http://u:a:b@[2001:db8::1]:8080", "http://u:xxxxx@[2001:db8::1]:8080", "a:b"),
        ("http://u%40corp:p%40%3A%2F%C3%A9@proxy.example", "http://u%40corp:xxxxx@proxy.example", "p%40%3A%2F%C3%A9"),
        ("socks5://u:p@proxy.example", "socks5://u:xxxxx@proxy.example", "p"),
        (MASKED, MASKED, proxies.MASK),
    ],
)
def test_a_password_leaves_the_url(url: str, shown: str, password: str | None) -> None:
    assert proxies.parted(url) == (shown, password)


@pytest.mark.parametrize(
    "url",
    [
        f"user:{PASSWORD}@proxy.example:3128",
        f"http:user:{PASSWORD}@proxy.example",
        f"http://user:{PASSWORD}@x@proxy.example",
        f"http://user:{PASSWORD}/@proxy.example",
        f"http://user:{PASSWORD}?@proxy.example",
        f"http://user:{PASSWORD}#@proxy.example",
        f"http://user:{PASSWORD}\\@proxy.example",
        f"http://user:{PASSWORD} @proxy.example",
        f"http://user:{PASSWORD}\n@proxy.example",
        f"http://user:{PASSWORD}é@proxy.example",
        f"http://:{PASSWORD}@proxy.example",
        f"http://user:{PASSWORD}{'x' * 1024}@proxy.example",
        f"http://proxy.example/?a=user:{PASSWORD}@x",
        f"http://proxy.example:3128/{PASSWORD}@x",
    ],
)
async def test_what_may_hide_a_password_is_refused_and_not_repeated(store: Store, write: Write, url: str) -> None:
    wrong = await refused(store.create("", cluster(proxyURL=url), write))
    assert [cause.field for cause in wrong.causes] == ["spec.access.proxyURL"]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("socks5://proxy.example:1080", "SOCKS is not spoken by Envoy"),
        ("SOCKS5H://proxy.example:1080", "name a proxy that takes HTTP CONNECT"),
        ("socks4://proxy.example", "SOCKS is not spoken by Envoy"),
        ("ftp://proxy.example", "must be a URL such as http://proxy.example.com:3128"),
        ("proxy.example:3128", "must be a URL such as"),
        ("http://", "must"),
        ("http:proxy.example", "must be a URL such as"),
        (" http://proxy.example", "must be a URL such as"),
        ("http://proxy.example\\x", "must be a URL such as"),
        ("http://proxy.example:x", "must be a URL such as"),
        ("http://proxy.example:70000", "must be a URL such as"),
        ("http://proxy.example:0", "the port must be between 1 and 65535"),
        ("http://proxy.example:", "the port must be between 1 and 65535"),
        ("http://proxy.example/path", "must not carry a path, a query or a fragment"),
        ("http://proxy.example?x=1", "must not carry a path, a query or a fragment"),
        ("http://proxy.example#x", "must not carry a path, a query or a fragment"),
        ("http://169.254.169.254", "must not be"),
        ("http://127.0.0.1:3128", "must not be this machine"),
        ("http://localhost:3128", "must not be this machine"),
        ("http://[::ffff:127.0.0.1]:3128", "must not be"),
        ("http://2130706433", "must"),
    ],
)
async def test_proxies_that_are_refused(store: Store, write: Write, url: str, told: str) -> None:
    wrong = await refused(store.create("", cluster(proxyURL=url), write))
    assert wrong.code == 422
    assert [cause.field for cause in wrong.causes] == ["spec.access.proxyURL"]
    assert told in wrong.message


@pytest.mark.parametrize("url", ["http://proxy.example", "https://proxy.example:8443/", "http://[2001:db8::1]:3128"])
async def test_proxies_that_are_taken(store: Store, write: Write, url: str) -> None:
    made = (await store.create("", cluster(proxyURL=url), write)).obj
    assert access_of(made)["proxyURL"] == url


async def test_within_networks_the_endpoint_behind_a_proxy_is_an_address(storage: Storage, write: Write) -> None:
    bounds = Bounds(allowed=(ip_network("192.0.2.0/24"),))
    store = Store(storage, clusters.strategy(bounds=lambda: bounds), sealer=Box())
    by_name = cluster(proxyURL="http://192.0.2.9:3128", endpoint="https://k8s.example")
    assert "behind a proxy the endpoint must be an IP" in (await refused(store.create("", by_name, write))).message
    outside = cluster(proxyURL="http://198.51.100.1:3128")
    assert "is outside of the networks" in (await refused(store.create("", outside, write))).message
    await store.create("", cluster(proxyURL="http://192.0.2.9:3128"), write)


async def test_a_password_is_sealed_and_seen_nowhere(store: Store, storage: Storage, write: Write) -> None:
    given = cluster(proxyURL=PROXY)
    given["metadata"]["annotations"] = {
        credentials.LAST_APPLIED: json.dumps(cluster(proxyURL=PROXY)),
        "tool.example/proxy": f"it is {PASSWORD}",
        "tool.example/note": "hello",
    }
    made = (await store.create("", given, write)).obj
    assert access_of(made)["proxyURL"] == MASKED
    left = meta.annotations(made)
    assert set(left) == {credentials.LAST_APPLIED, "tool.example/note"}
    assert access_of(json.loads(left[credentials.LAST_APPLIED]))["proxyURL"] == MASKED
    listed = await store.list("", selection.EVERYTHING)
    everything = json.dumps([made, await store.get("", "prod"), listed.items])
    assert PASSWORD not in everything
    stored = (await storage.range(b"/registry")).records
    assert not any(PASSWORD.encode() in record.value for record in stored)
    assert await sealed(store, made) == {"serviceAccountToken": TOKEN, "proxyPassword": PASSWORD}


async def test_a_last_applied_configuration_keeps_nothing_of_a_strange_proxy(store: Store, write: Write) -> None:
    applied = cluster(proxyURL=f"http://user:{PASSWORD}@x@proxy.example")
    given = cluster(proxyURL=PROXY)
    given["metadata"]["annotations"] = {credentials.LAST_APPLIED: json.dumps(applied)}
    made = (await store.create("", given, write)).obj
    assert PASSWORD not in json.dumps(made)


@pytest.mark.parametrize(
    "change",
    [
        changed(),
        changed(identity="Impersonate"),
        lambda _: cluster(proxyURL=MASKED),
        lambda _: cluster(proxyURL=PROXY),
    ],
    ids=["written back", "another field", "a new write of the token", "applied again"],
)
async def test_the_mask_keeps_the_password(store: Store, write: Write, change: Callable[[Object], Object]) -> None:
    made = (await store.create("", cluster(proxyURL=PROXY), write)).obj
    after = (await store.update("", "prod", change, write)).obj
    assert access_of(after)["proxyURL"] == MASKED
    assert await sealed(store, made) == {"serviceAccountToken": TOKEN, "proxyPassword": PASSWORD}


async def test_what_is_applied_again_writes_nothing(store: Store, storage: Storage, write: Write) -> None:
    await store.create("", cluster(proxyURL=PROXY), write)
    before = await storage.revision()
    for url in (PROXY, MASKED):
        await store.update("", "prod", lambda _, url=url: cluster(proxyURL=url), write)  # type: ignore[misc]
    await store.update("", "prod", changed(), write)
    assert await storage.revision() == before


async def test_a_new_password_and_a_new_token_each_leave_the_other(store: Store, write: Write) -> None:
    made = (await store.create("", cluster(proxyURL=PROXY), write)).obj
    again = (await store.update("", "prod", changed(proxyURL=PROXY.replace(PASSWORD, "another")), write)).obj
    assert meta.section(again, "metadata")["generation"] == 2  # so that the data plane hears of it
    assert await sealed(store, made) == {"serviceAccountToken": TOKEN, "proxyPassword": "another"}
    await store.update("", "prod", lambda _: cluster(token="new-token", proxyURL=MASKED), write)
    assert await sealed(store, made) == {"serviceAccountToken": "new-token", "proxyPassword": "another"}
    await store.update("", "prod", lambda _: cluster(), write)
    assert await sealed(store, made) == {"serviceAccountToken": TOKEN}


async def test_a_password_without_a_credential(store: Store, write: Write) -> None:
    given = cluster(proxyURL=PROXY)
    del given["spec"]["access"]["credential"]
    made = (await store.create("", given, write)).obj
    assert await sealed(store, made) == {"proxyPassword": PASSWORD}
    await store.update("", "prod", changed(proxyURL=None), write)
    assert await store.secret("prod", meta.uid(made)) is None


@pytest.mark.parametrize(
    "access",
    [
        {"proxyURL": MASKED.replace("proxy.", "attacker.")},
        {"proxyURL": MASKED.replace("3128", "3129")},
        {"proxyURL": MASKED.replace("user", "another")},
        {"proxyURL": MASKED.replace("http:", "https:")},
        {"proxyURL": "http://attacker.example:3128"},
        {"proxyURL": None},
        {"endpoints": ["https://192.0.2.66"]},
        {"endpoint": "https://192.0.2.66"},
    ],
)
@pytest.mark.parametrize("given", ["nothing", "the token"])
async def test_neither_password_nor_token_goes_elsewhere(
    store: Store, write: Write, access: dict[str, Any], given: str
) -> None:
    made = (await store.create("", cluster(proxyURL=PROXY), write)).obj
    if given == "nothing":
        wrong = await refused(store.update("", "prod", changed(**access), write))
        assert wrong.code == 422
        assert await store.get("", "prod") == made
        assert await sealed(store, made) == {"serviceAccountToken": TOKEN, "proxyPassword": PASSWORD}
        return
    whole = cluster(token="new-token", **{"proxyURL": MASKED, **access})
    if "xxxxx" in str(whole["spec"]["access"]["proxyURL"]):
        wrong = await refused(store.update("", "prod", lambda _: whole, write))
        assert "supply the password itself" in wrong.message
        return
    await store.update("", "prod", lambda _: whole, write)
    assert await sealed(store, made) == {"serviceAccountToken": "new-token"}


@pytest.mark.parametrize("access", [{"endpoint": "https://192.0.2.66"}, {"endpoints": ["https://192.0.2.66"]}])
async def test_a_stored_password_opens_no_way_to_another_member(
    store: Store, write: Write, access: dict[str, Any]
) -> None:
    given = cluster(proxyURL=PROXY)
    del given["spec"]["access"]["credential"]
    made = (await store.create("", given, write)).obj
    wrong = await refused(store.update("", "prod", changed(**access), write))
    assert "supply the password itself" in wrong.message
    assert PASSWORD not in wrong.message
    await store.update("", "prod", changed(proxyURL=PROXY, **access), write)
    assert await sealed(store, made) == {"proxyPassword": PASSWORD}


@pytest.mark.parametrize("url", ["http://user@attacker.example:3128", "http://user@proxy.example:3128"])
async def test_a_url_without_a_password_gets_none_that_is_stored(store: Store, write: Write, url: str) -> None:
    given = cluster(proxyURL=PROXY)
    del given["spec"]["access"]["credential"]
    made = (await store.create("", given, write)).obj
    await store.update("", "prod", changed(proxyURL=url), write)
    assert await store.secret("prod", meta.uid(made)) is None


async def test_a_mask_that_stands_for_nothing_is_refused(store: Store, write: Write) -> None:
    wrong = await refused(store.create("", cluster(proxyURL=MASKED), write))
    assert "supply the password itself: none is stored" in wrong.message
    await store.create("", cluster(proxyURL="http://user@proxy.example:3128"), write)
    assert (await refused(store.update("", "prod", changed(proxyURL=MASKED), write))).code == 422


async def test_with_the_key_lost_a_password_can_be_supplied_again(store: Store, box: Box, write: Write) -> None:
    made = (await store.create("", cluster(proxyURL=PROXY), write)).obj
    box.lost = True
    wrong = await refused(store.update("", "prod", changed(proxyURL=PROXY), write))
    assert "supply the credential and every password again" in wrong.message
    await store.update("", "prod", lambda _: cluster(token="new-token", proxyURL=PROXY), write)
    box.lost = False
    assert await sealed(store, made) == {"serviceAccountToken": "new-token", "proxyPassword": PASSWORD}


async def test_the_controllers_keep_the_password_with_a_new_token(store: Store, write: Write) -> None:
    made = (await store.create("", cluster(proxyURL=PROXY), write)).obj
    system = replace(write, actor=replace(write.actor, identity=Identity("system:onepass")))

    def renewed(obj: Object) -> Object:
        meta.section(access_of(obj), "credential")["serviceAccountToken"] = "renewed-token"
        return obj

    await store.update("", "prod", renewed, system)
    assert await sealed(store, made) == {"serviceAccountToken": "renewed-token", "proxyPassword": PASSWORD}


@pytest.mark.parametrize(
    ("endpoints", "field"),
    [
        (["http://192.0.2.2"], "spec.access.endpoints[0]"),
        (["https://192.0.2.2", f"https://u:{PASSWORD}@192.0.2.3"], "spec.access.endpoints[1]"),
        (["https://127.0.0.1"], "spec.access.endpoints[0]"),
        (["https://169.254.169.254"], "spec.access.endpoints[0]"),
        (["https://192.0.2.2/k8s"], "spec.access.endpoints[0]"),
        ([f"https://192.0.2.{number}" for number in range(2, 19)], "spec.access.endpoints"),
        ("https://192.0.2.2", "spec.access.endpoints"),
        ([7], "spec.access.endpoints[0]"),
    ],
)
async def test_endpoints_that_are_refused(store: Store, write: Write, endpoints: Any, field: str) -> None:
    wrong = await refused(store.create("", cluster(endpoints=endpoints), write))
    assert [cause.field for cause in wrong.causes] == [field]


async def test_places_of_a_member(store: Store, write: Write) -> None:
    several = ["https://192.0.2.2", "https://[2001:db8::1]:6443", "https://192.0.2.1:6443", "https://192.0.2.2:443"]
    made = (await store.create("", cluster(endpoints=several), write)).obj
    target = members.member(made, None)
    assert target.places == (("192.0.2.1", 6443), ("192.0.2.2", 443), ("2001:db8::1", 6443))
    assert target.server_name == "192.0.2.1"


@pytest.mark.parametrize(
    ("url", "password", "said"),
    [
        ("http://proxy.example", "", ""),
        ("http://user@proxy.example", "", "user:"),
        ("http://u%40corp:xxxxx@proxy.example", "p%40%3A%C3%A9%20x", "u@corp:p@:é x"),
    ],
)
def test_what_a_proxy_is_told(url: str, password: str, said: str) -> None:
    """RFC 7617: the pair in UTF-8 and base64."""
    proxy = members.proxy(url, password)
    assert proxy is not None
    assert (proxy.host, proxy.port) == ("proxy.example", 80)
    assert proxy.authorization == ("Basic " + base64.b64encode(said.encode()).decode() if said else "")
    assert not said or proxy.authorization not in repr(proxy)
