"""Attack 18: certificates that somebody should not get, and approvals that they should not give."""

import base64
import ipaddress
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.attack.conftest import CSRS, Person, Site
from tests.waiting import eventually

from onepass.api.meta import JSON, Object
from onepass.pki import keys

pytestmark = pytest.mark.e2e

SIGNER = "kubernetes.io/kube-apiserver-client"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
GROUP = "rbac.authorization.k8s.io"
ME = "mallory"
YEAR = 365 * 86400
MERGE = "merge-patch+json"
USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


@pytest.fixture(scope="module")
def mallory(site: Site) -> Person:
    """May do everything with certificate requests, but approve and sign them."""
    person = site.person(ME)
    kinds: list[JSON] = [f"certificatesigningrequests{sub}" for sub in ("", "/approval", "/status")]
    rule: Object = {"apiGroups": ["certificates.k8s.io"], "resources": kinds, "verbs": ["*"]}
    site.made(f"{RBAC}/clusterroles", {"metadata": {"name": "asks"}, "rules": [rule]})
    binding: Object = {
        "metadata": {"name": "asks"},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "asks"},
        "subjects": [{"apiGroup": GROUP, "kind": "User", "name": ME}],
    }
    site.made(f"{RBAC}/clusterrolebindings", binding)
    eventually(lambda: site.api("GET", CSRS, person=person).code == 200)
    return person


Build = Callable[[x509.CertificateSigningRequestBuilder], x509.CertificateSigningRequestBuilder]


def plain(builder: x509.CertificateSigningRequestBuilder) -> x509.CertificateSigningRequestBuilder:
    return builder


def extended(extension: x509.ExtensionType) -> Build:
    return lambda builder: builder.add_extension(extension, critical=False)


def usage(**given: bool) -> x509.KeyUsage:
    return x509.KeyUsage(**dict.fromkeys(USAGES, False) | given)


def pem(name: str, *groups: str, build: Build = plain, key: object = None) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the library would rather not write, an attacker does
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False)]
        attributes += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group, _validate=False) for group in groups]
    builder = build(x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes)))
    private = key if isinstance(key, rsa.RSAPrivateKey) else keys.generate()
    return base64.b64encode(builder.sign(private, hashes.SHA256()).public_bytes(Encoding.PEM)).decode()


def request(name: str, text: str, **spec: JSON) -> Object:
    asked: Object = {"request": text, "signerName": SIGNER, "usages": ["client auth"], **spec}
    return {"metadata": {"name": name}, "spec": asked}


@dataclass(frozen=True)
class Attack:
    """A request; `admin` whether an administrator is refused it too."""

    name: str
    groups: tuple[str, ...] = ()
    build: Build = plain
    admin: bool = True


ATTACKS = {
    "masters": Attack(ME, ("system:masters",)),
    "administrators": Attack(ME, ("onepass:administrators",)),
    "authenticated": Attack(ME, ("system:authenticated",)),
    "other-group": Attack(ME, ("ops",), admin=False),
    "other-name": Attack("alice", admin=False),
    "admins-name": Attack("admin", admin=False),
    "system-admin": Attack("system:admin"),
    "node": Attack("system:node:x", ("system:nodes",)),
    "account": Attack("system:serviceaccount:kube-system:y"),
    "anonymous": Attack("system:anonymous"),
    "nul": Attack("mallory\x00admin"),
    "line-break": Attack("mallory\r\nX-Remote-User: admin"),
    "quote": Attack('mal"lory'),
    "backslash": Attack("mal\\lory"),
    "long": Attack("m" * 300),
    "empty": Attack(""),
    "space": Attack("mallory "),
    "not-ascii": Attack("mаllory"),  # noqa: RUF001  a Cyrillic letter
    "many-groups": Attack(ME, tuple(f"g{number}" for number in range(40))),
    "authority": Attack(ME, build=extended(x509.BasicConstraints(ca=True, path_length=None))),
    "cert-sign": Attack(ME, build=extended(usage(key_cert_sign=True, digital_signature=True))),
    "crl-sign": Attack(ME, build=extended(usage(crl_sign=True))),
    "server": Attack(ME, build=extended(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]))),
    "any-usage": Attack(ME, build=extended(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]))),
    "dns": Attack(ME, build=extended(x509.SubjectAlternativeName([x509.DNSName("gateway")]))),
    "ip": Attack(ME, build=extended(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]))),
    "email": Attack(ME, build=extended(x509.SubjectAlternativeName([x509.RFC822Name("a@b.c")]))),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_certificate_for_more_than_oneself_is_refused(site: Site, mallory: Person, attack: str) -> None:
    case = ATTACKS[attack]
    body = request(f"attack-{attack}", pem(case.name, *case.groups, build=case.build))
    refused = site.api("POST", CSRS, body, person=mallory)
    assert refused.code in (403, 422), refused.body
    assert refused.json()["kind"] == "Status"
    if case.admin:  # whoever asks, and whoever would approve
        assert site.api("POST", CSRS, body).code == 422
    assert site.api("GET", f"{CSRS}/attack-{attack}").code == 404


def test_what_is_no_certificate_request_is_refused(site: Site, mallory: Person) -> None:
    weak = pem(ME, key=rsa.generate_private_key(65537, 1024))
    good = pem(ME)
    twice = base64.b64encode(base64.b64decode(good) * 2).decode()
    broken = bytearray(base64.b64decode(good))
    broken[200] ^= 1
    bodies: list[Object] = [
        request("bad", weak),
        request("bad", twice),
        request("bad", base64.b64encode(broken).decode()),
        request("bad", "no base64"),
        request("bad", ""),
        request("bad", good, expirationSeconds=1),
        request("bad", good, expirationSeconds=599),
        request("bad", good, expirationSeconds="600"),
        request("bad", good, usages=["client auth", "server auth"]),
        request("bad", good, usages=["cert sign"]),
        request("bad", good, usages=[]),
        request("bad", good, signerName="kubernetes.io/kubelet-serving"),
        request("bad", good, signerName="example.com/own"),
    ]
    for body in bodies:
        refused = site.api("POST", CSRS, body, person=mallory)
        assert refused.code == 422, (body, refused.body)


def test_nobody_approves_or_signs_without_the_right(site: Site, mallory: Person) -> None:
    forged: Object = {"username": "admin", "groups": ["onepass:administrators"], "uid": "0", "extra": {"a": ["b"]}}
    ten_years = 10 * YEAR
    body = request("mallory-own", pem(ME), expirationSeconds=ten_years, **forged)
    body["status"] = {"conditions": [{"type": "Approved", "status": "True"}], "certificate": "Zm9v"}
    made = site.api("POST", CSRS, body, person=mallory)
    assert made.code == 201, made.body
    told = made.json()
    assert (told["spec"]["username"], told["spec"].get("groups")) == (ME, ["system:authenticated"])
    assert not told.get("status")
    path = f"{CSRS}/mallory-own"
    approved: Object = {"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "Mine"}]}}
    signed: Object = {"status": {"certificate": base64.b64encode(b"forged").decode()}}
    for sub, change, codes in (
        ("/approval", approved, (403,)),
        ("/status", approved, (403,)),
        ("/status", signed, (403,)),
        ("", approved, (200,)),  # taken, and without effect
        ("", {"spec": {"username": "admin"}}, (200, 422)),
        ("", {"spec": {"request": pem("admin")}}, (422,)),
        ("", {"spec": {"expirationSeconds": 600}}, (422,)),
    ):
        answer = site.api("PATCH", path + sub, change, person=mallory, kind=MERGE)
        assert answer.code in codes, (sub, change, answer.body)
    now = site.api("GET", path).json()
    assert (now["spec"]["username"], now.get("status", {})) == (ME, {})

    assert site.api("PATCH", f"{path}/approval", approved, kind=MERGE).code == 200
    issued: list[str] = []

    def has_certificate() -> bool:
        issued[:] = [site.api("GET", path).json()["status"].get("certificate", "")]
        return bool(issued[0])

    eventually(has_certificate)
    certificate = x509.load_pem_x509_certificate(base64.b64decode(issued[0]))
    names = {attribute.oid: attribute.value for attribute in certificate.subject}
    assert names == {NameOID.COMMON_NAME: ME}
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lifetime.total_seconds() <= YEAR + 600
    extensions = certificate.extensions
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    # A decision stands, also for administrators, and so does what was signed.
    for sub, status in (
        ("/approval", '{"conditions": []}'),
        ("/approval", '{"conditions": [{"type": "Denied", "status": "True"}]}'),
        ("/status", '{"certificate": "b3RoZXI="}'),
    ):
        assert site.api("PATCH", path + sub, {"status": json.loads(status)}, kind=MERGE).code == 422
    site.gone(path)
