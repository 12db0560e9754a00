"""Authorities and what they issue, judged by OpenSSL and by cryptography's own verifier."""

import ipaddress
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from onepass.pki import authority, certificates, keys
from onepass.pki.authority import Authority, Request

NOW = datetime.now(UTC).timestamp()  # OpenSSL asks the clock
HOUR = 3600
DAY = 24 * HOUR
YEAR = 365 * DAY


@pytest.fixture(scope="module")
def ca() -> Authority:
    return authority.create("test serving", NOW)


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def alice(*groups: str, name: str = "alice") -> Request:
    return Request(name, groups, keys.generate().public_key())


def extension(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> x509.Extension[x509.ExtensionType]:
    return certificate.extensions.get_extension_for_class(kind)


class Files:
    """PEM files, which is all that the ssl module reads."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, name: str, *parts: bytes) -> str:
        path = self.directory / name
        path.write_bytes(b"".join(parts))
        return str(path)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def shake(client: ssl.SSLContext, server: ssl.SSLContext, host: str | None) -> ssl.SSLObject:
    """A TLS handshake in memory; the server's end of it. Raises what either end raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=host)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [ours, theirs]
    for _ in range(10):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                continue
        if not waiting:
            return theirs
    raise AssertionError("the handshake does not end")


def contexts(files: Files, ca: Authority, names: Sequence[str]) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A client that trusts `ca`, and a server with a certificate for `names`; strict, as Python 3.13 is by default."""
    key = keys.generate()
    serving = authority.issue_serving(ca, key.public_key(), names, NOW, DAY)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.write("s.crt", certificates.to_pem([serving])), files.write("s.key", keys.to_pem(key)))
    client = ssl.create_default_context(cadata=certificates.to_pem([ca.certificate]).decode())
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    return client, server


# Serving certificates


@pytest.mark.parametrize("host", ["gateway.example.com", "a.apps.example.com", "127.0.0.1", "::1"])
def test_openssl_accepts_a_server_under_each_of_its_names(files: Files, ca: Authority, host: str) -> None:
    names = ["gateway.example.com", "*.apps.example.com", "127.0.0.1", "::1"]
    shake(*contexts(files, ca, names), host)


@pytest.mark.parametrize("host", ["example.com", "127.0.0.2", "a.b.apps.example.com"])
def test_openssl_refuses_a_server_under_another_name(files: Files, ca: Authority, host: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(*contexts(files, ca, ["gateway.example.com", "*.apps.example.com", "127.0.0.1"]), host)


def test_openssl_refuses_a_server_of_another_authority(files: Files, ca: Authority) -> None:
    client, _ = contexts(files, authority.create("test serving", NOW), ["localhost"])
    _, server = contexts(files, ca, ["localhost"])
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(client, server, "localhost")


def test_a_serving_certificate_serves_and_nothing_else(ca: Authority) -> None:
    issued = authority.issue_serving(ca, keys.generate().public_key(), ["h" * 64 + ".example", "10.0.0.1"], NOW, DAY)
    assert extension(issued, x509.ExtendedKeyUsage).value == x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    assert extension(issued, x509.SubjectAlternativeName).value == x509.SubjectAlternativeName(
        [x509.DNSName("h" * 64 + ".example"), x509.IPAddress(ipaddress.ip_address("10.0.0.1"))]
    )
    assert extension(issued, x509.BasicConstraints).value == x509.BasicConstraints(ca=False, path_length=None)


@pytest.mark.parametrize(("names", "lifetime"), [([], DAY), (["a"], 0), (["a"], -1), (["ä"], DAY)])
def test_a_serving_certificate_that_makes_no_sense_is_not_issued(
    ca: Authority, names: list[str], lifetime: float
) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the library words the last one
        authority.issue_serving(ca, keys.generate().public_key(), names, NOW, lifetime)


# Client certificates


def verify_client(ca: Authority, certificate: x509.Certificate, at: float = NOW) -> None:
    store = verification.Store([ca.certificate])
    policy = verification.ExtensionPolicy.webpki_defaults_ee().require_not_present(x509.SubjectAlternativeName)
    builder = verification.PolicyBuilder().store(store).time(moment(at))
    builder = builder.extension_policies(ca_policy=verification.ExtensionPolicy.webpki_defaults_ca(), ee_policy=policy)
    builder.build_client_verifier().verify(certificate, [])


def test_cryptography_verifies_a_client_certificate_in_its_time(ca: Authority) -> None:
    issued = authority.issue_client(ca, alice("dev", "ops"), NOW, HOUR)
    verify_client(ca, issued)
    verify_client(ca, issued, NOW - 299)
    verify_client(ca, issued, NOW + HOUR - 1)
    for at in (NOW - 301, NOW + HOUR + 1):
        with pytest.raises(verification.VerificationError, match="not valid at validation time"):
            verify_client(ca, issued, at)
    with pytest.raises(verification.VerificationError):
        verify_client(authority.create("test serving", NOW), issued)


def test_openssl_accepts_a_client_and_tells_its_names(files: Files, ca: Authority) -> None:
    client, server = contexts(files, ca, ["localhost"])
    client_ca = authority.create("test clients", NOW)
    key = keys.generate()
    issued = authority.issue_client(client_ca, Request("alice", ("dev", "ops"), key.public_key()), NOW, HOUR)
    client.load_cert_chain(files.write("c.crt", certificates.to_pem([issued])), files.write("c.key", keys.to_pem(key)))
    server.load_verify_locations(cadata=certificates.to_pem([client_ca.certificate]).decode())
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags |= ssl.VERIFY_X509_STRICT
    seen = shake(client, server, "localhost").getpeercert()
    assert seen is not None
    assert seen["subject"] == (
        (("organizationName", "dev"),),
        (("organizationName", "ops"),),
        (("commonName", "alice"),),
    )
    assert seen["serialNumber"] == certificates.serial(issued).upper()


def test_a_client_certificate_is_no_server_and_a_serving_one_no_client(files: Files, ca: Authority) -> None:
    client, server = contexts(files, ca, ["localhost"])
    key = keys.generate()
    issued = authority.issue_client(ca, Request("localhost", (), key.public_key()), NOW, HOUR)
    server.load_cert_chain(files.write("c.crt", certificates.to_pem([issued])), files.write("c.key", keys.to_pem(key)))
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        shake(client, server, "localhost")
    serving = authority.issue_serving(ca, key.public_key(), ["localhost"], NOW, DAY)
    with pytest.raises(verification.VerificationError):
        verify_client(ca, serving)


def test_a_client_certificate_holds_what_the_design_says_and_no_more(ca: Authority) -> None:
    issued = authority.issue_client(ca, alice("ops", "dev", "ops"), NOW, HOUR)
    assert [(a.oid, a.value) for a in issued.subject] == [
        (NameOID.ORGANIZATION_NAME, "ops"),
        (NameOID.ORGANIZATION_NAME, "dev"),
        (NameOID.COMMON_NAME, "alice"),
    ]
    assert {e.oid for e in issued.extensions} == {
        kind.oid
        for kind in (
            x509.SubjectKeyIdentifier,
            x509.AuthorityKeyIdentifier,
            x509.BasicConstraints,
            x509.KeyUsage,
            x509.ExtendedKeyUsage,
        )
    }
    assert extension(issued, x509.BasicConstraints).value == x509.BasicConstraints(ca=False, path_length=None)
    assert extension(issued, x509.ExtendedKeyUsage).value == x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    usage = extension(issued, x509.KeyUsage).value
    assert isinstance(usage, x509.KeyUsage)
    assert (usage.digital_signature, usage.key_cert_sign, usage.crl_sign) == (True, False, False)
    assert issued.issuer == ca.certificate.subject


def test_serial_numbers_are_random_and_read_the_same_everywhere(ca: Authority) -> None:
    serials = [certificates.serial(authority.issue_client(ca, alice(), NOW, HOUR)) for _ in range(50)]
    assert len(set(serials)) == 50
    for serial in serials:
        assert len(serial) == 32
        assert serial[0] in "4567", "neither a leading zero nor a sign"
        assert serial == serial.lower()


def test_nothing_outlives_its_authority_or_begins_before_it(ca: Authority) -> None:
    last = certificates.not_after(ca.certificate)
    issued = authority.issue_client(ca, alice(), NOW, 20 * YEAR)
    assert certificates.not_after(issued) == last
    early = authority.issue_client(ca, alice(), NOW - 200, HOUR)
    assert certificates.not_before(early) == certificates.not_before(ca.certificate)
    for at in (NOW - DAY, last, last + 1):
        with pytest.raises(authority.AuthorityRefused, match="is not valid now"):
            authority.issue_client(ca, alice(), at, HOUR)


@pytest.mark.parametrize("lifetime", [0, -1])
def test_a_certificate_without_a_lifetime_is_not_issued(ca: Authority, lifetime: float) -> None:
    with pytest.raises(ValueError, match="lifetime"):
        authority.issue_client(ca, alice(), NOW, lifetime)


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "x" * 65, "é"])
def test_names_are_checked_again_when_a_certificate_is_issued(ca: Authority, name: str) -> None:
    with pytest.raises(authority.SubjectRefused):
        authority.issue_client(ca, alice(name=name), NOW, HOUR)
    with pytest.raises(authority.SubjectRefused):
        authority.issue_client(ca, alice(name), NOW, HOUR)


def test_keys_are_checked_again_when_a_certificate_is_issued(ca: Authority) -> None:
    weak = rsa.generate_private_key(65537, 1024).public_key()
    with pytest.raises(authority.WeakKey):
        authority.issue_client(ca, Request("alice", (), weak), NOW, HOUR)


# Authorities


def test_an_authority_may_sign_leaves_and_no_other_authority(ca: Authority) -> None:
    assert extension(ca.certificate, x509.BasicConstraints).value == x509.BasicConstraints(ca=True, path_length=0)
    usage = extension(ca.certificate, x509.KeyUsage).value
    assert isinstance(usage, x509.KeyUsage)
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    assert certificates.not_after(ca.certificate) - NOW == pytest.approx(3650 * DAY, abs=2)


def test_an_authority_comes_back_from_its_pem(ca: Authority) -> None:
    again = authority.load(certificates.to_pem([ca.certificate]), keys.to_pem(ca.key))
    assert again.certificate == ca.certificate
    verify_client(ca, authority.issue_client(again, alice(), NOW, HOUR))


def test_what_is_no_authority_is_not_loaded(ca: Authority) -> None:
    pem, key = certificates.to_pem([ca.certificate]), keys.to_pem(ca.key)
    own = keys.generate()
    leaf = certificates.to_pem([authority.issue_serving(ca, own.public_key(), ["a"], NOW, DAY)])
    p384 = keys.to_pem(ec.generate_private_key(ec.SECP384R1()))
    for certificate, private, why in [
        (pem, keys.to_pem(own), "key does not belong to its certificate"),
        (leaf, keys.to_pem(own), "not an authority's"),
        (b"", key, "certificate is not PEM"),
        (pem, b"", "key is not a private key in PEM"),
        (pem, p384, "key is ECDSA P-384 and not ECDSA P-256"),
    ]:
        with pytest.raises(authority.AuthorityRefused, match=why):
            authority.load(certificate, private)


def test_a_key_does_not_show_itself(ca: Authority) -> None:
    assert "PrivateKey" not in repr(ca)


# Revocation


def test_openssl_refuses_a_client_whose_serial_is_on_the_list(files: Files, ca: Authority) -> None:
    client_ca = authority.create("test clients", NOW)
    outcomes = []
    for name in ("kept", "revoked"):
        client, server = contexts(files, ca, ["localhost"])
        key = keys.generate()
        issued = authority.issue_client(client_ca, Request(name, (), key.public_key()), NOW, HOUR)
        chain = files.write("c.crt", certificates.to_pem([issued]))
        client.load_cert_chain(chain, files.write("c.key", keys.to_pem(key)))
        serials = ["1", certificates.serial(issued)] if name == "revoked" else ["1"]
        listed = authority.revocation_list(client_ca, serials)
        server.load_verify_locations(files.write("ca.crt", certificates.to_pem([client_ca.certificate]), listed))
        server.verify_mode = ssl.CERT_REQUIRED
        server.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_X509_STRICT
        try:
            shake(client, server, "localhost")
            outcomes.append((name, ""))
        except ssl.SSLCertVerificationError as error:
            outcomes.append((name, error.verify_message))
    assert outcomes == [("kept", ""), ("revoked", "certificate revoked")]


def test_a_revocation_list_is_the_same_bytes_for_the_same_serials(ca: Authority) -> None:
    one = authority.revocation_list(ca, ["ff", "1", "a0"])
    assert one == authority.revocation_list(ca, ["a0", "ff", "1", "ff"])
    assert one != authority.revocation_list(ca, ["ff", "1"])
    parsed = x509.load_pem_x509_crl(one)
    assert [entry.serial_number for entry in parsed] == [0x1, 0xA0, 0xFF]
    assert parsed.is_signature_valid(ca.key.public_key())
    assert parsed.next_update_utc == ca.certificate.not_valid_after_utc


def test_an_empty_revocation_list_is_a_list(ca: Authority) -> None:
    assert list(x509.load_pem_x509_crl(authority.revocation_list(ca, []))) == []


def test_a_certificate_tells_its_fingerprint(ca: Authority) -> None:
    der = ca.certificate.public_bytes(Encoding.DER)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(der)
    assert certificates.fingerprint(ca.certificate) == "sha256:" + digest.finalize().hex()
