"""Clusters: what may be registered, and that a credential never comes back out or goes astray."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import jwt
import orjson
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from onepass.access.identity import Identity
from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import JSON, Object
from onepass.registry import clusters, credentials, selection
from onepass.registry.destinations import Bounds
from onepass.registry.execplugins import Plugin
from onepass.registry.store import Store, Write
from onepass.storage.interface import Storage

PLUGINS = (
    Plugin("/usr/bin/allowed", (), ("*.example",)),
    Plugin("/opt/aws", ("get-token", "--name", "*"), ("*.eks.example",), (), ("PROFILE",)),
)
TOKEN = "canary-token-0123456789"


class Passthrough:
    """Keeps what it is given: the tests look at what was meant to be sealed."""

    def seal(self, secret: bytes, context: bytes) -> bytes:
        return secret

    def unseal(self, sealed: bytes, context: bytes) -> bytes:
        return sealed


@dataclass(frozen=True)
class Pair:
    certificate: str
    private_key: str


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def pair(authority: trustme.CA) -> Pair:
    leaf = authority.issue_cert("client.example")
    return Pair(b64(leaf.cert_chain_pems[0].bytes()), b64(leaf.private_key_pem.bytes()))


@pytest.fixture
def bundle(authority: trustme.CA) -> str:
    return b64(authority.cert_pem.bytes())


@pytest.fixture
def store(storage: Storage) -> Store:
    return Store(storage, clusters.strategy(plugins=PLUGINS), sealer=Passthrough())


def cluster(access: dict[str, JSON] | None = None, **metadata: JSON) -> Object:
    return {
        "apiVersion": "cluster.karpor.io/v1beta1",
        "kind": "Cluster",
        "metadata": {"name": "prod", **metadata},
        "spec": {
            "provider": "kind",
            "displayName": "",
            "description": "",
            "finalized": True,
            "access": {"endpoint": "https://k8s.example:6443", **(access or {})},
        },
    }


def with_token(token: str = TOKEN, **access: JSON) -> dict[str, JSON]:
    return {"credential": {"type": "ServiceAccountToken", "serviceAccountToken": token}, **access}


def with_pair(pair: Pair, **access: JSON) -> dict[str, JSON]:
    both: Object = {"certificate": pair.certificate, "privateKey": pair.private_key}
    return {"credential": {"type": "X509Certificate", "x509": both}, **access}


def access_of(obj: Object) -> Object:
    return meta.section(meta.section(obj, "spec"), "access")


def changed(**access: JSON) -> Callable[[Object], Object]:
    def change(obj: Object) -> Object:
        access_of(obj).update(access)
        return obj

    return change


async def refusal(call: object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await call  # type: ignore[misc]
    return caught.value


async def test_karpors_manifests_are_kept_as_they_are(store: Store, write: Write, pair: Pair, bundle: str) -> None:
    made = await store.create("", cluster(with_pair(pair, caBundle=bundle, insecure=False)), write)
    assert made.warnings == ()
    spec = meta.section(made.obj, "spec")
    assert {k: spec[k] for k in ("provider", "displayName", "description", "finalized")} == {
        "provider": "kind",
        "displayName": "",
        "description": "",
        "finalized": True,
    }
    assert access_of(made.obj)["caBundle"] == bundle


async def test_a_token_is_seen_only_as_a_fingerprint(store: Store, storage: Storage, write: Write) -> None:
    made = (await store.create("", cluster(with_token()), write)).obj
    credential = meta.section(access_of(made), "credential")
    assert set(credential) == {"type", "fingerprint"}
    assert meta.text(credential, "fingerprint").startswith("sha256:")
    listed = await store.list("", selection.EVERYTHING)
    stored = (await storage.range(b"/registry")).records
    assert TOKEN not in json.dumps([made, await store.get("", "prod"), listed.items])
    assert all(TOKEN.encode() not in record.value for record in stored)
    kept = await store.secret("prod", meta.uid(made))
    assert orjson.loads(kept or b"") == {"serviceAccountToken": TOKEN}


async def test_a_certificate_and_its_key_leave_the_object(store: Store, write: Write, pair: Pair) -> None:
    made = (await store.create("", cluster(with_pair(pair)), write)).obj
    text = json.dumps(made)
    assert pair.certificate not in text
    assert pair.private_key not in text
    kept = orjson.loads(await store.secret("prod", meta.uid(made)) or b"")
    assert kept == {"x509": {"certificate": pair.certificate, "privateKey": pair.private_key}}


async def test_no_annotation_repeats_a_credential(store: Store, write: Write, pair: Pair) -> None:
    applied = json.dumps(cluster(with_token()))
    annotations: Object = {
        credentials.LAST_APPLIED: applied,
        "tool.example/manifest": f"token: {TOKEN}",
        "tool.example/note": "hello",
    }
    made = (await store.create("", cluster(with_token(), annotations=annotations), write)).obj
    left = meta.annotations(made)
    assert set(left) == {credentials.LAST_APPLIED, "tool.example/note"}
    assert access_of(json.loads(left[credentials.LAST_APPLIED]))["credential"] == {"type": "ServiceAccountToken"}
    again = {**annotations, credentials.LAST_APPLIED: "not JSON: " + TOKEN}
    updated = (await store.update("", "prod", lambda _: cluster(with_token(), annotations=again), write)).obj
    assert set(meta.annotations(updated)) == {"tool.example/note"}


async def test_applying_the_same_manifest_again_writes_nothing(
    store: Store, storage: Storage, write: Write, pair: Pair
) -> None:
    for access in (with_token(), with_pair(pair)):
        await store.update("", "prod", lambda _, a=access: cluster(a), write, create_if_absent=True)  # type: ignore[misc]
        before = await storage.revision()
        await store.update("", "prod", lambda _, a=access: cluster(a), write)  # type: ignore[misc]
        assert await storage.revision() == before


async def test_what_was_read_can_be_written_back(store: Store, write: Write) -> None:
    made = (await store.create("", cluster(with_token()), write)).obj

    def renamed(obj: Object) -> Object:
        meta.section(obj, "spec")["displayName"] = "Production"
        return obj

    await store.update("", "prod", renamed, write)
    assert TOKEN.encode() in (await store.secret("prod", meta.uid(made)) or b"")


async def test_a_new_token_takes_the_place_of_the_old(store: Store, write: Write) -> None:
    made = (await store.create("", cluster(with_token()), write)).obj
    before = meta.section(access_of(made), "credential")["fingerprint"]

    def rotated(obj: Object) -> Object:  # what a merge patch of the token alone makes of the object
        meta.section(access_of(obj), "credential")["serviceAccountToken"] = "another-token"
        return obj

    after = (await store.update("", "prod", rotated, write)).obj
    assert meta.section(access_of(after), "credential")["fingerprint"] != before
    assert b"another-token" in (await store.secret("prod", meta.uid(made)) or b"")
    assert meta.section(after, "metadata")["generation"] == 2


async def test_a_credential_can_change_its_type_or_go(store: Store, write: Write, pair: Pair) -> None:
    made = (await store.create("", cluster(with_token()), write)).obj
    await store.update("", "prod", lambda _: cluster(with_pair(pair)), write)
    assert b"x509" in (await store.secret("prod", meta.uid(made)) or b"")
    gone = (await store.update("", "prod", lambda _: cluster(), write)).obj
    assert "credential" not in access_of(gone)
    assert await store.secret("prod", meta.uid(made)) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("endpoint", "https://attacker.example"),
        ("endpoint", "https://k8s.example:6443/elsewhere"),
        ("insecure", True),
        ("serverName", "attacker.example"),
        ("caBundle", "BUNDLE"),
        ("proxyURL", "http://attacker.example:3128"),
        ("endpoints", ["https://attacker.example"]),
    ],
)
async def test_a_stored_credential_is_never_sent_elsewhere(
    store: Store, write: Write, bundle: str, key: str, value: JSON
) -> None:
    value = bundle if value == "BUNDLE" else value
    made = (await store.create("", cluster(with_token()), write)).obj
    refused = await refusal(store.update("", "prod", changed(**{key: value}), write))
    assert refused.code == 422
    assert f"spec.access.{key}: Forbidden: may not change unless the credential is supplied again" in refused.message
    assert await store.get("", "prod") == made
    again = (await store.update("", "prod", lambda _: cluster({**with_token(), key: value}), write)).obj
    assert access_of(again)[key] == value
    bare = (await store.update("", "prod", lambda _: cluster({key: value}), write)).obj
    assert "credential" not in access_of(bare)
    assert await store.secret("prod", meta.uid(made)) is None


@pytest.mark.parametrize(
    "credential",
    [
        {"type": "X509Certificate", "fingerprint": "STORED"},
        {"type": "ServiceAccountToken", "fingerprint": "sha256:" + "0" * 64},
        {"type": "ServiceAccountToken"},
        {"type": "OIDC", "fingerprint": "STORED"},
    ],
)
async def test_a_stored_credential_is_kept_only_under_its_own_fingerprint(
    store: Store, write: Write, credential: dict[str, JSON]
) -> None:
    made = (await store.create("", cluster(with_token()), write)).obj
    if credential.get("fingerprint") == "STORED":
        credential = {**credential, "fingerprint": meta.section(access_of(made), "credential")["fingerprint"]}
    refused = await refusal(store.update("", "prod", changed(credential=credential), write))
    assert refused.code == 422
    assert await store.get("", "prod") == made


@pytest.mark.parametrize(
    ("credential", "told"),
    [
        (
            {"type": "ServiceAccountToken"},
            "serviceAccountToken: Required value: type ServiceAccountToken needs the token",
        ),
        ({"type": "X509Certificate"}, "x509: Required value"),
        ({"type": "Password", "serviceAccountToken": "s3cret-value"}, 'type: Unsupported value: "Password"'),
        ({"type": "Password"}, 'type: Unsupported value: "Password"'),
        ({"serviceAccountToken": "s3cret-value"}, "type: Required value"),
        ({"type": "X509Certificate", "serviceAccountToken": "s3cret-value"}, "does not agree"),
        ({"type": "ServiceAccountToken", "serviceAccountToken": "s3cret-value with spaces"}, "without spaces"),
        ({"type": "ServiceAccountToken", "serviceAccountToken": "s3cret-value\n"}, "without spaces and line ends"),
        ({"type": "ServiceAccountToken", "serviceAccountToken": "s3cret-value" * 9000}, "at most"),
        ({"type": "ServiceAccountToken", "serviceAccountToken": {"s3cret-value": 1}}, "must be of type string"),
        ({"type": "X509Certificate", "x509": {"certificate": "aGk="}}, "x509.privateKey: Required value"),
        ({"type": "X509Certificate", "x509": {"certificate": "!", "privateKey": "s3cret-value"}}, "PEM in base64"),
        (
            {"type": "X509Certificate", "x509": {"certificate": "aGk=", "privateKey": "aGk="}},
            "the certificate is not PEM",
        ),
        (
            {"type": "X509Certificate", "x509": {"certificate": "PAIR", "privateKey": "aGk="}},
            "the key is not a private key in PEM",
        ),
        (
            {"type": "X509Certificate", "x509": {"certificate": "PAIR", "privateKey": "OTHER"}},
            "the key does not belong to the certificate",
        ),
        (
            {"type": "X509Certificate", "x509": {"certificate": "PAIR", "privateKey": "LOCKED"}},
            "the key is encrypted",
        ),
        ({"type": "OIDC"}, "execConfig: Required value"),
        ({"type": "OIDC", "execConfig": {"command": "/bin/sh", "args": ["-c", "touch PWNED"]}}, "has not allowed this"),
        ({"type": "OIDC", "execConfig": {"command": "other"}}, "has not allowed this program"),
        ({"type": "OIDC", "execConfig": {"command": "/tmp/allowed"}}, "has not allowed this program"),
        ({"type": "OIDC", "execConfig": {"command": "allowed", "args": ["x"]}}, "has not allowed these arguments"),
        (
            {"type": "ServiceAccountToken", "serviceAccountToken": "s3cret-value", "execConfig": {"command": "x"}},
            "takes no",
        ),
        ({"type": "OIDC", "fingerprint": "sha256:0", "execConfig": {"command": "x"}}, "set by the server"),
    ],
)
async def test_credentials_that_cannot_work_are_refused(
    store: Store, storage: Storage, write: Write, pair: Pair, credential: dict[str, JSON], told: str
) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    locked = other.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"x"))
    words: dict[JSON, str] = {
        "PAIR": pair.certificate,
        "OTHER": b64(other.private_bytes(pem, pkcs8, serialization.NoEncryption())),
        "LOCKED": b64(locked),
    }
    given = credential.get("x509")
    if isinstance(given, dict):
        credential = {**credential, "x509": {k: words.get(v, v) if isinstance(v, str) else v for k, v in given.items()}}
    refused = await refusal(store.create("", cluster({"credential": credential}), write))
    assert refused.code == 422
    assert told in refused.message
    assert "s3cret-value" not in json.dumps(refused.status())
    assert (await storage.range(b"/")).records == []


async def test_an_expired_certificate_is_refused(store: Store, write: Write, pair: Pair, bundle: str) -> None:
    later = replace(write, actor=replace(write.actor, now=4e10))
    for access, told in (
        (with_pair(pair), "x509.certificate: Invalid value: the certificate has expired"),
        (with_token(caBundle=bundle), "caBundle: Invalid value: has expired"),
    ):
        assert told in (await refusal(store.create("", cluster(access), later))).message
    await store.create("", cluster(with_token(caBundle=bundle)), write)
    await store.update("", "prod", changed(identity="Impersonate"), later)


async def test_a_fingerprint_is_the_one_that_other_tools_tell(store: Store, write: Write, pair: Pair) -> None:
    made = (await store.create("", cluster(with_pair(pair)), write)).obj
    leaf = x509.load_pem_x509_certificate(base64.b64decode(pair.certificate))
    told = meta.section(access_of(made), "credential")["fingerprint"]
    assert told == "sha256:" + leaf.fingerprint(hashes.SHA256()).hex()


async def test_a_listed_program_is_allowed(store: Store, write: Write) -> None:
    access: dict[str, JSON] = {"credential": {"type": "OIDC", "execConfig": {"command": "/usr/bin/allowed"}}}
    made = (await store.create("", cluster(access), write)).obj
    assert await store.secret("prod", meta.uid(made)) is None


GOOD = [
    "https://k8s.example",
    "https://k8s.example/",
    "https://K8S.example:6443",
    "https://k8s.example:6443/k8s/clusters/c-m-1",
    "https://10.0.0.7:6443",
    "https://[2001:db8::7]:6443",
    "https://[2001:db8::7]/prefix",
    "https://single",
]
BAD = [
    "",
    "k8s.example",
    "http://k8s.example",
    "HTTPS://k8s.example",
    "file:///etc/passwd",
    "https://",
    "https://:6443",
    "https://user:s3cret@k8s.example",
    "https://k8s.example@attacker.example",
    "https://k8s.example?x=y",
    "https://k8s.example/#x",
    "https://k8s.example#",
    "https://k8s.example:0",
    "https://k8s.example:65536",
    "https://k8s.example:",
    "https://k8s.example:x",
    "https://k8s.example/a/../b",
    "https://k8s.example//a",
    "https://k8s.example/%2e%2e",
    "https://k8s.example/a;b",
    "https://k8s.example\\@attacker.example",
    "https://k8s.example\n",
    " https://k8s.example",
    "https://k8s .example",
    "https://k8s.example.",
    "https://-k8s.example",
    "https://k_8s.example",
    "https://bücher.example",
    "https://x" + "a" * 260,
    "https://[2001:db8::7",
    "https://[fe80::1%25eth0]",
    "https://[k8s.example]",
    # this machine
    "https://localhost",
    "https://a.localhost",
    "https://127.0.0.1:10000",
    "https://127.8.8.8",
    "https://[::1]",
    "https://[::ffff:127.0.0.1]",
    "https://0.0.0.0",
    "https://0.1.2.3",
    "https://[::]",
    # one address, written otherwise
    "https://2130706433",
    "https://0x7f000001",
    "https://0x7f.1",
    "https://127.1",
    "https://0177.0.0.1",
    "https://127.0.0.1.",
    "https://k8s.example.0x7f",
    # metadata services and link-local
    "https://169.254.169.254",
    "https://169.254.1.1",
    "https://[::ffff:169.254.169.254]",
    "https://[::ffff:a9fe:a9fe]",
    "https://[64:ff9b::169.254.169.254]",
    "https://[2002:a9fe:a9fe::]",
    "https://[::169.254.169.254]",
    "https://[fe80::1]",
    "https://[fd00:ec2::254]",
    "https://100.100.100.200",
    "https://168.63.129.16",
    "https://metadata.google.internal",
    "https://METADATA.google.internal",
    "https://metadata",
    # no machine at all
    "https://255.255.255.255",
    "https://224.0.0.1",
    "https://[ff02::1]",
]


@pytest.mark.parametrize("endpoint", GOOD)
async def test_endpoints_that_are_taken(store: Store, write: Write, endpoint: str) -> None:
    made = (await store.create("", cluster({"endpoint": endpoint}), write)).obj
    assert access_of(made)["endpoint"] == endpoint


@pytest.mark.parametrize("endpoint", BAD)
async def test_endpoints_that_are_refused(store: Store, write: Write, endpoint: str) -> None:
    refused = await refusal(store.create("", cluster({"endpoint": endpoint}), write))
    assert refused.code == 422
    assert {cause.field for cause in refused.causes} == {"spec.access.endpoint"}
    assert "s3cret" not in refused.message


@pytest.mark.parametrize("endpoint", ["https://localhost:1", "https://127.0.0.1:6443", "https://[::1]:6443"])
async def test_this_machine_is_allowed_on_demand(storage: Storage, write: Write, endpoint: str) -> None:
    local = Store(storage, clusters.strategy(bounds=lambda: Bounds(loopback=True)), sealer=Passthrough())
    await local.create("", cluster({"endpoint": endpoint}), write)
    refused = await refusal(local.create("", cluster({"endpoint": "https://169.254.169.254"}, name="x"), write))
    assert refused.code == 422


@pytest.mark.parametrize(
    ("access", "field"),
    [
        ({"serverName": "a b"}, "spec.access.serverName"),
        ({"serverName": "*.example"}, "spec.access.serverName"),
        ({"proxyURL": "socks5://proxy.example:1080"}, "spec.access.proxyURL"),
        ({"caBundle": "%%%"}, "spec.access.caBundle"),
        ({"caBundle": b64(b"hello")}, "spec.access.caBundle"),
        ({"identity": "Nobody"}, "spec.access.identity"),
        ({"endpoint": 7}, "spec.access.endpoint"),
        ({"endpoint": None}, "spec.access.endpoint"),
    ],
)
async def test_other_fields_are_checked(store: Store, write: Write, access: dict[str, JSON], field: str) -> None:
    refused = await refusal(store.create("", cluster(access), write))
    assert refused.code == 422
    assert [cause.field for cause in refused.causes] == [field]


@pytest.mark.parametrize("name", ["k8s.example", "10.0.0.1", "2001:db8::1"])
async def test_server_names_are_names_or_addresses(store: Store, write: Write, name: str) -> None:
    made = (await store.create("", cluster({"serverName": name}), write)).obj
    assert access_of(made)["serverName"] == name


async def test_an_unverified_cluster_is_warned_of(store: Store, write: Write, bundle: str) -> None:
    made = await store.create("", cluster({"insecure": True, "caBundle": bundle}), write)
    assert [warning.partition(":")[0] for warning in made.warnings] == ["spec.access.insecure", "spec.access.caBundle"]


async def test_columns_tell_a_cluster(store: Store, write: Write) -> None:
    made = (await store.create("", cluster(with_token()), write)).obj
    told = {column.name: column.cell(made, 0.0) for column in store.strategy.columns}
    assert told == {
        "Provider": "kind",
        "Endpoint": "https://k8s.example:6443",
        "Healthy": "Unknown",
        "Version": "",
        "Display Name": "",
        "Reason": "",
        "Nodes": "",
        "Latency": "",
        "Protocol": "",
        "Credential": "ServiceAccountToken",
        "Identity": "Gateway",
    }


@pytest.mark.parametrize(
    ("claims", "kind", "told"),
    [
        ({"exp": 9e9}, "ServiceAccountToken", "renew: Forbidden: the token is no bound token"),
        ({"iat": 1, "exp": 9e9, "sub": "jane"}, "ServiceAccountToken", "renew: Forbidden: the token is no bound token"),
        ({"iat": 1, "exp": 2, "sub": "system:serviceaccount:a:b"}, "ServiceAccountToken", "the token has ended"),
        ({"iat": 1, "exp": 9e9, "sub": "system:serviceaccount:a:b"}, "ServiceAccountToken", ""),
        ({}, "OIDC", "renew: Forbidden: type OIDC has no token"),
    ],
)
async def test_only_what_can_be_renewed_is_promised_to_be(
    store: Store, write: Write, claims: dict[str, JSON], kind: str, told: str
) -> None:
    token = jwt.encode(claims, "k" * 32)
    credential: dict[str, JSON] = {"type": kind, "renew": True}
    if kind == "OIDC":
        credential["execConfig"] = {"command": "/usr/bin/allowed"}
    else:
        credential["serviceAccountToken"] = token
    if told:
        refused = await refusal(store.create("", cluster({"credential": credential}), write))
        assert told in refused.message
        assert token not in refused.message
    else:
        made = (await store.create("", cluster({"credential": credential}), write)).obj
        assert meta.section(access_of(made), "credential")["renew"] is True


def by_program(args: list[JSON], env: list[JSON] | None = None, endpoint: str = "https://c.eks.example") -> Object:
    program: Object = {"command": "aws", "args": args, "env": env or []}
    return cluster({"endpoint": endpoint, "credential": {"type": "OIDC", "execConfig": program}})


@pytest.mark.parametrize(
    ("obj", "told"),
    [
        (by_program(["get-token", "--name", "prod"]), ""),
        (by_program(["get-token", "--name", "prod"], [{"name": "PROFILE", "value": "x"}]), ""),
        (by_program(["get-token", "--name", "--debug"]), "these arguments"),
        (by_program(["get-token", "--name", ""]), "these arguments"),
        (by_program(["get-token", "--name"]), "these arguments"),
        (by_program(["get-token", "--name", "a", "b"]), "these arguments"),
        (by_program(["s3", "--name", "a"]), "these arguments"),
        (by_program(["get-token", "--name", "a"], [{"name": "LD_PRELOAD", "value": "x"}]), "environment variables"),
        (by_program(["get-token", "--name", "a"], endpoint="https://attacker.test"), "for this endpoint"),
        (by_program(["get-token", "--name", "a"], endpoint="https://x.eks.example.attacker.test"), "for this endpoint"),
    ],
)
async def test_a_program_is_asked_only_what_the_operator_listed(
    store: Store, write: Write, obj: Object, told: str
) -> None:
    if told:
        assert told in (await refusal(store.create("", obj, write))).message
    else:
        await store.create("", obj, write)


async def test_what_a_program_answered_is_kept_only_for_where_it_was_asked_for(store: Store, write: Write) -> None:
    system = replace(write, actor=replace(write.actor, identity=Identity("system:onepass")))
    made = (await store.create("", by_program(["get-token", "--name", "a"]), write)).obj

    def answered(obj: Object) -> Object:
        meta.section(access_of(obj), "credential")["serviceAccountToken"] = TOKEN
        return obj

    assert (await refusal(store.update("", "prod", answered, write))).code == 422
    after = (await store.update("", "prod", answered, system)).obj
    assert TOKEN not in json.dumps(after)
    assert TOKEN.encode() in (await store.secret("prod", meta.uid(made)) or b"")
    await store.update("", "prod", changed(identity="Impersonate"), write)
    assert await store.secret("prod", meta.uid(made)) is not None
    moved = (await store.update("", "prod", changed(endpoint="https://d.eks.example"), write)).obj
    assert await store.secret("prod", meta.uid(made)) is None
    assert "fingerprint" not in meta.section(access_of(moved), "credential")
