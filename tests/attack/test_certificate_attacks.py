"""Client certificates of several authorities: who may say what, whose serial numbers count, and what rotation cuts."""

import base64
import datetime
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.attack.conftest import C1, CSRS, PASSES, READING, Person, Site, open_site
from tests.attack.rawhttp import Wire, request
from tests.attack.test_revocation import bound, over, refused_at_handshake
from tests.waiting import eventually

from onepass.pki import certificates, keys

pytestmark = pytest.mark.e2e

WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
DAY = datetime.timedelta(days=1)


def named(common_name: str, *organizations: str) -> x509.Name:
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in organizations]
    return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


@dataclass
class Corp:
    """An authority that is not the gateway's own, with its revocation list."""

    name: x509.Name
    parent: "Corp | None" = None
    key: ec.EllipticCurvePrivateKey = field(default_factory=keys.generate)
    revoked: list[int] = field(default_factory=list)
    certificate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        by = self.parent or self
        builder = self._builder(self.name, by, self.key, x509.random_serial_number())
        basic = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = builder.add_extension(basic, critical=True).sign(by.key, hashes.SHA256())

    @property
    def identifier(self) -> x509.AuthorityKeyIdentifier:
        """By this, verifiers tell authorities of the same name apart."""
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())

    @staticmethod
    def _builder(
        subject: x509.Name, by: "Corp", key: ec.EllipticCurvePrivateKey, serial: int
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(by.name)
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(now - DAY)
            .not_valid_after(now + 30 * DAY)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(by.identifier, critical=False)
        )

    def issue(self, folder: Path, subject: x509.Name, serial: int = 0) -> Person:
        key = keys.generate()
        builder = self._builder(subject, self, key, serial or x509.random_serial_number())
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        leaf = builder.add_extension(usage, critical=False).sign(self.key, hashes.SHA256())
        chain = [leaf, *([self.certificate] if self.parent else [])]
        path = folder / f"{time.monotonic_ns()}.pem"
        path.write_bytes(certificates.to_pem(chain) + keys.to_pem(key))
        return Person(subject.rfc4514_string(), path)

    def crl(self) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(now - DAY).next_update(now + DAY).add_extension(self.identifier, critical=False)
        for serial in self.revoked:
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - DAY).build()
            builder = builder.add_revoked_certificate(revoked)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM)


@dataclass
class House:
    """A gateway that takes certificates of two more authorities, and of one below the first."""

    site: Site
    folder: Path
    corp: Corp
    branch: Corp
    below: Corp

    def publish(self) -> None:
        path = self.folder / "crl.pem"
        path.with_suffix(".new").write_bytes(self.corp.crl() + self.branch.crl() + self.below.crl())
        path.with_suffix(".new").replace(path)

    def who(self, person: Person) -> tuple[str, list[str]]:
        answer = self.site.api(
            "POST", WHO, {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}, person=person
        )
        assert answer.code == 201, answer.body
        user = answer.json()["status"]["userInfo"]
        return user["username"], user["groups"]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    corp, branch = Corp(named("Corp CA", "Corp, Inc.")), Corp(named("Branch"))
    below = Corp(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "onepass client authority")]), parent=corp)
    (folder / "ca.pem").write_bytes(certificates.to_pem([corp.certificate, branch.certificate]))
    made = House(Site.__new__(Site), folder, corp, branch, below)
    made.publish()
    options = ("--client-ca-file", str(folder / "ca.pem"), "--client-crl-file", str(folder / "crl.pem"))
    with open_site(folder, *options) as site:
        made.site = site
        yield made


def test_names_of_a_certificate_are_user_and_groups_whoever_issued_it(house: House) -> None:
    for issuer in (house.corp, house.branch, house.below):
        person = issuer.issue(house.folder, named("carol", "dev", "qa team"))
        assert house.who(person) == ("carol", ["dev", "qa team", "system:authenticated"])


@pytest.mark.parametrize(
    "subject",
    [
        named("carol", "onepass:administrators"),
        named("carol", "system:masters"),
        named("carol", "onepass:other"),
        named("system:admin"),
        named("onepass:administrators"),
        x509.Name([]),
    ],
    ids=str,
)
def test_no_other_authority_gives_reserved_names(house: House, subject: x509.Name) -> None:
    """One of the issuers calls itself as our own authority does."""
    for issuer in (house.corp, house.branch, house.below):
        person = issuer.issue(house.folder, subject)
        for target in ("/version", f"{C1}/version"):
            assert house.site.ask(person, target).code == 401


def test_serial_numbers_are_an_authoritys_own(house: House) -> None:
    serial = x509.random_serial_number()
    people = {
        each: issuer.issue(house.folder, named("dave"), serial)
        for each, issuer in enumerate((house.corp, house.branch, house.below))
    }
    assert [house.who(person)[0] for person in people.values()] == ["dave"] * 3
    bound(house.site, "dave")
    with ExitStack() as stack:
        wire, lost, kept = (stack.enter_context(house.site.wire(people[each])) for each in (0, 0, 1))
        wire.send(request("GET", "/version"))
        assert wire.answer().code == 200
        for watch in (lost, kept):
            watch.send(request("GET", "/api/v1/namespaces?watch=1"))
            while b"\r\n\r\n" not in watch.rest:
                assert watch._fill()
            assert watch.rest.startswith(b"HTTP/1.1 200 ")
            watch.tls.settimeout(0.05)
        house.corp.revoked.append(serial)
        house.publish()

        def refused() -> bool:
            wire.send(request("GET", "/version"))
            return wire.answer().code == 401

        eventually(refused, "the next request on an open connection is not refused")
        eventually(lambda: over(lost), "the watch goes on")
        assert not over(kept)
    eventually(lambda: refused_at_handshake(house.site, people[0]), "the handshake is not refused")
    assert house.who(people[1])[0] == "dave"
    assert house.who(people[2])[0] == "dave"


def test_a_broken_list_changes_nothing(house: House) -> None:
    person = house.corp.issue(house.folder, named("erin"))
    assert house.who(person)[0] == "erin"
    (house.folder / "crl.pem").write_bytes(b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
    log = house.site.gateway.data_dir / "onepass.log"
    eventually(lambda: "cannot be used" in log.read_text())
    assert house.who(person)[0] == "erin"
    house.publish()


def issuer_of(person: Person) -> str:
    assert person.proof is not None
    return x509.load_pem_x509_certificate(person.proof.read_bytes()).issuer.rfc4514_string()


def test_rotation_of_the_client_authority_cuts_nobody(house: House) -> None:
    site = house.site
    old = site.person("old-timer", READING)
    pki = str(site.gateway.data_dir)
    with site.wire(old) as wire:
        wire.send(request("GET", f"{C1}/api/v1/kept"))
        assert wire.answer().code == 200
        site.gateway.onepass("ca", "rotate", "--client", "--data-dir", pki)

        def newcomer() -> bool:
            name = f"new-{time.monotonic_ns()}"
            return issuer_of(site.person(name)) == "CN=onepass client authority 2"

        eventually(newcomer, "the new authority does not issue")
        for _ in range(3):
            wire.send(request("GET", f"{C1}/api/v1/kept"))
            assert wire.answer().code == 200  # the same connection
        site.people.pop("old-timer")
        young = site._certificate("old-timer")
        assert issuer_of(Person("old-timer", young)) == "CN=onepass client authority 2"
        for person in (old, Person("old-timer", young)):
            eventually(lambda p=person: site.ask(p, f"{C1}/version").code == 200)  # type: ignore[misc]
        assert site.api("GET", "/readyz").code == 200  # the administrator's is of the old one

        # what the old one issued can still be taken back, on open connections and at the handshake
        (request_,) = [
            each["metadata"]["name"]
            for each in site.api("GET", CSRS).json()["items"]
            if base64.b64decode(each["status"]["certificate"]) in (old.proof or Path()).read_bytes()
        ]
        csr = site.api("GET", f"{CSRS}/{request_}").json()
        csr["status"]["conditions"].append({"type": "Revoked", "status": "True", "reason": "Test"})
        assert site.api("PUT", f"{CSRS}/{request_}/approval", csr).code == 200

        def refused() -> bool:
            wire.send(request("GET", f"{C1}/api/v1/kept"))
            return wire.answer().code == 401

        eventually(refused)
    eventually(lambda: refused_at_handshake(site, old))
    assert site.ask(Person("old-timer", young), f"{C1}/version").code == 200
    assert "active" in site.gateway.onepass("ca", "list", "--data-dir", pki).stdout
    site.gone(f"{PASSES}/old-timer")


def served_by(site: Site, ca: str) -> bool:
    context = ssl.create_default_context(cadata=ca)
    context.check_hostname = False
    try:
        with Wire.open(site.address, context):
            return True
    except ssl.SSLCertVerificationError:
        return False


def test_rotation_of_the_serving_authority_cuts_nobody(house: House) -> None:
    site = house.site
    pki = site.gateway.data_dir / "pki"
    directory = str(site.gateway.data_dir)
    first = (pki / "serving-ca.crt").read_text()
    with site.wire(site.admin) as wire:

        def holds() -> bool:
            wire.send(request("GET", "/version"))
            return wire.answer().code == 200

        assert holds()
        site.gateway.onepass("ca", "rotate", "--serving", "--data-dir", directory)

        def handed_out() -> bool:
            config = yaml.safe_load(site.gateway.kubeconfig.read_text())
            data = base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"])
            return len(x509.load_pem_x509_certificates(data)) == 2

        eventually(handed_out)
        second = (pki / "serving-ca-2.crt").read_text()
        assert served_by(site, first)
        assert not served_by(site, second)
        site.ca = first + second
        site.gateway.onepass("ca", "rotate", "--switch", "--data-dir", directory)
        eventually(lambda: served_by(site, second))
        assert not served_by(site, first)
        assert holds()
    assert site.gateway.kubectl("get", "clusters", context="onepass").returncode == 0
