"""What people give: bundles, chains and keys."""

from datetime import UTC, datetime

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import NameOID

from onepass.pki import certificates, keys

NOW = 1_800_000_000
DAY = 86400
RSA = rsa.generate_private_key(65537, 2048)
EC = keys.generate()


def make(
    key: CertificateIssuerPrivateKeyTypes = EC, since: int = NOW - DAY, until: int = NOW + DAY, serial: int = 1
) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "member")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(datetime.fromtimestamp(since, UTC))
        .not_valid_after(datetime.fromtimestamp(until, UTC))
    )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return certificates.to_pem([builder.sign(key, algorithm)])


GOOD, OLD, EARLY = make(), make(until=NOW - 1), make(since=NOW + 1)
BROKEN = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


# Bundles


@pytest.mark.parametrize(
    ("pem", "count"),
    [
        (GOOD, 1),
        (GOOD + GOOD, 2),
        (b"# the authority of prod\r\n" + GOOD.replace(b"\n", b"\r\n"), 1),
        (OLD + GOOD, 2),
        (make(since=NOW), 1),
        (make(until=NOW), 1),
    ],
    ids=["one", "two", "comment and CRLF", "old and good", "just begun", "just ending"],
)
def test_a_bundle_has_one_certificate_that_is_valid(pem: bytes, count: int) -> None:
    assert len(certificates.bundle(pem, NOW)) == count


@pytest.mark.parametrize(
    ("pem", "sentence"),
    [
        (b"", "is not PEM: it has no BEGIN CERTIFICATE line"),
        (b"MIIB", "is not PEM: it has no BEGIN CERTIFICATE line"),
        (x509.load_pem_x509_certificate(GOOD).public_bytes(serialization.Encoding.DER), "is not PEM"),
        (BROKEN, "holds something between BEGIN and END that is not a certificate"),
        (GOOD + BROKEN, "holds something between BEGIN and END that is not a certificate"),
        (GOOD[:-60], "holds something between BEGIN and END that is not a certificate"),
        (GOOD + keys.to_pem(EC), "contains a private key: give the certificates alone"),
        (OLD, "has expired: CN=member was valid until 2027-01-15 07:59 UTC"),
        (EARLY, "is not valid yet: CN=member is valid from 2027-01-15 08:00 UTC"),
        (OLD + EARLY, "has expired"),
    ],
    ids=["empty", "no armour", "DER", "broken", "good and broken", "cut", "key", "old", "early", "old and early"],
)
def test_a_bundle_that_verifies_nothing_is_refused(pem: bytes, sentence: str) -> None:
    with pytest.raises(certificates.CertificateRefused) as caught:
        certificates.bundle(pem, NOW)
    assert str(caught.value).startswith(sentence)


def test_a_bundle_made_by_another_library_is_read() -> None:
    ca = trustme.CA()
    assert len(certificates.bundle(ca.cert_pem.bytes(), datetime.now(UTC).timestamp())) == 1


# Pairs


@pytest.mark.parametrize(
    "key",
    [
        EC,
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        RSA,
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["P-256", "P-384", "P-521", "RSA", "Ed25519"],
)
def test_a_pair_that_envoy_takes_is_a_pair(key: CertificateIssuerPrivateKeyTypes) -> None:
    leaf = certificates.pair(make(key, serial=7) + GOOD, keys.to_pem(key), NOW)
    assert leaf.serial_number == 7


def test_keys_in_their_own_formats_are_read() -> None:
    for key in (EC, RSA):
        old = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        certificates.pair(make(key), old, NOW)


def encrypted() -> bytes:
    return EC.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )


@pytest.mark.parametrize(
    ("certificate", "key", "sentence"),
    [
        (GOOD, keys.to_pem(keys.generate()), "does not belong to the certificate"),
        (GOOD, keys.to_pem(RSA), "does not belong to the certificate"),
        (
            make(RSA) + GOOD,
            keys.to_pem(EC),
            "does not belong to the certificate, which has to be the first",
        ),
        (GOOD, b"", "is not a private key in PEM"),
        (GOOD, GOOD, "is not a private key in PEM"),
        (GOOD, b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", "is not a private key in PEM"),
        (GOOD, encrypted(), "is encrypted: give it without a passphrase"),
    ],
    ids=["other", "other kind", "leaf last", "empty", "certificate", "broken", "encrypted"],
)
def test_a_key_that_does_not_fit_is_refused(certificate: bytes, key: bytes, sentence: str) -> None:
    with pytest.raises(keys.KeyRefused) as caught:
        certificates.pair(certificate, key, NOW)
    assert str(caught.value).startswith(sentence)
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (rsa.generate_private_key(65537, 1024), "is RSA 1024: RSA keys have 2048 to 8192 bits"),
        (ec.generate_private_key(ec.SECP224R1()), "is ECDSA secp224r1: use P-256 or P-384 or P-521, or RSA"),
        (dsa.generate_private_key(2048), "is neither RSA nor ECDSA: use ECDSA P-256 or RSA"),
    ],
)
def test_a_key_that_envoy_refuses_is_refused(key: CertificateIssuerPrivateKeyTypes, sentence: str) -> None:
    with pytest.raises(keys.KeyRefused) as caught:
        certificates.pair(make(key), keys.to_pem(key), NOW)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("certificate", "sentence"),
    [(OLD, "has expired"), (OLD + GOOD, "has expired"), (EARLY, "is not valid yet"), (BROKEN, "holds something")],
)
def test_a_certificate_that_proves_nothing_is_refused(certificate: bytes, sentence: str) -> None:
    with pytest.raises(certificates.CertificateRefused, match=sentence):
        certificates.pair(certificate, keys.to_pem(EC), NOW)


# Values


@pytest.mark.parametrize(("number", "serial"), [(1, "1"), (0x0F01, "f01"), (0xABCDEF << 100, "abcdef" + "0" * 25)])
def test_a_serial_is_lower_case_hex_without_leading_zeros(number: int, serial: str) -> None:
    assert certificates.serial(certificates.chain(make(serial=number))[0]) == serial


def test_a_certificate_tells_its_times_in_unix_seconds() -> None:
    (certificate,) = certificates.chain(GOOD)
    assert (certificates.not_before(certificate), certificates.not_after(certificate)) == (NOW - DAY, NOW + DAY)


def test_our_keys_come_back_from_their_pem() -> None:
    assert keys.from_pem(keys.to_pem(EC)).private_numbers() == EC.private_numbers()


@pytest.mark.parametrize(
    ("pem", "sentence"),
    [
        (keys.to_pem(RSA), "is RSA 2048 and not ECDSA P-256"),
        (keys.to_pem(ec.generate_private_key(ec.SECP384R1())), "is ECDSA P-384 and not ECDSA P-256"),
        (b"", "is not a private key in PEM"),
    ],
)
def test_a_key_that_is_not_ours_is_refused(pem: bytes, sentence: str) -> None:
    with pytest.raises(keys.KeyRefused) as caught:
        keys.from_pem(pem)
    assert str(caught.value) == sentence
