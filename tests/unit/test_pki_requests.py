"""Requests for certificates, the bad ones above all."""

import base64
from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from hypothesis import example, given
from hypothesis import strategies as st

from onepass.pki import authority

KEY = ec.generate_private_key(ec.SECP256R1())
CN, ORG, UNIT = NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME
NOTHING_MORE = dict.fromkeys(
    (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ),
    False,
)


def request(
    subject: Sequence[tuple[ObjectIdentifier, str]] = ((CN, "alice"),),
    extensions: Sequence[x509.ExtensionType] = (),
    key: CertificateIssuerPrivateKeyTypes = KEY,
) -> bytes:
    # Without validation: what a library refuses to write, an attacker writes.
    name = x509.Name([x509.NameAttribute(oid, value, _validate=False) for oid, value in subject])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM)


def usage(**usages: bool) -> x509.KeyUsage:
    return x509.KeyUsage(**(NOTHING_MORE | usages))


# Good ones


def test_a_plain_request_is_read() -> None:
    asked = authority.parse_request(request([(ORG, "dev"), (CN, "alice"), (ORG, "ops")]))
    assert asked == authority.Request("alice", ("dev", "ops"), KEY.public_key(), frozenset())


def test_groups_count_once_and_other_attributes_not_at_all() -> None:
    asked = authority.parse_request(request([(ORG, "dev"), (UNIT, "emea"), (CN, "alice"), (ORG, "dev")]))
    assert (asked.common_name, asked.organizations) == ("alice", ("dev",))


def test_extensions_that_a_client_certificate_has_anyway_may_be_asked_for() -> None:
    asked = authority.parse_request(
        request(
            extensions=[
                x509.BasicConstraints(ca=False, path_length=None),
                usage(digital_signature=True, key_encipherment=True),
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),
                x509.SubjectKeyIdentifier.from_public_key(KEY.public_key()),
            ]
        )
    )
    assert asked.usages == {"digital signature", "key encipherment", "client auth"}


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)],
    ids=["P-384", "RSA 2048"],
)
def test_keys_that_the_gateway_verifies_are_taken(key: CertificateIssuerPrivateKeyTypes) -> None:
    assert authority.parse_request(request(key=key)).public_key == key.public_key()


@pytest.mark.parametrize("name", ["alice", "a", "x" * 64, "jane@example.com", "o'brien, jr. #1;{}[]<>%$*", "Jane Doe"])
def test_names_are_printable_ascii(name: str) -> None:
    asked = authority.parse_request(request([(CN, name), (ORG, name)]))
    assert (asked.common_name, asked.organizations) == (name, (name,))


# Bad ones


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"not a request",
        request().replace(b"CERTIFICATE REQUEST", b"CERTIFICATE"),
        request().replace(b"CERTIFICATE REQUEST", b"NEW CERTIFICATE REQUEST"),
        request() + request([(CN, "mallory")]),
        request()[:-60],
        b"-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n",
        b"-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n",
        b"-----BEGIN CERTIFICATE REQUEST-----\n\xff\x00\n-----END CERTIFICATE REQUEST-----\n",
        b" " * 20_000 + request(),
    ],
    ids=["empty", "text", "certificate", "new", "two", "cut", "hollow", "wrong", "binary", "long"],
)
def test_what_is_not_one_request_is_refused(pem: bytes) -> None:
    with pytest.raises(authority.MalformedRequest):
        authority.parse_request(pem)


def test_a_request_that_its_key_has_not_signed_is_refused() -> None:
    der = bytearray(x509.load_pem_x509_csr(request()).public_bytes(Encoding.DER))
    at = der.index(b"alice")
    der[at : at + 5] = b"admin"
    forged = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    with pytest.raises(authority.MalformedRequest, match="is not signed by its own key"):
        authority.parse_request(forged)


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (rsa.generate_private_key(65537, 1024), "the key is RSA 1024: RSA keys have 2048 to 8192 bits"),
        (rsa.generate_private_key(3, 2048), "the key is RSA with an unusual exponent: 65537 is the usual one"),
        (ec.generate_private_key(ec.SECP224R1()), "the key is ECDSA secp224r1: use P-256 or P-384, or RSA"),
        (ec.generate_private_key(ec.SECP521R1()), "the key is ECDSA P-521: use P-256 or P-384, or RSA"),
        (ed25519.Ed25519PrivateKey.generate(), "the key is Ed25519: use ECDSA P-256 or RSA"),
    ],
)
def test_keys_that_are_weak_or_cannot_be_verified_are_refused(
    key: CertificateIssuerPrivateKeyTypes, sentence: str
) -> None:
    with pytest.raises(authority.WeakKey) as caught:
        authority.parse_request(request(key=key))
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    "name",
    ["a\0b", "a\rb", "a\nb", "a\tb", "a\x7fb", 'a"b', "a\\b", " a", "a ", " ", "jürgen", "\u0430lice", "a\u200bb"],
    ids=ascii,
)
@pytest.mark.parametrize("place", ["common name", "organization"])
def test_names_that_a_header_cannot_carry_are_refused(place: str, name: str) -> None:
    subject = [(CN, name)] if place == "common name" else [(CN, "alice"), (ORG, "dev"), (ORG, name)]
    with pytest.raises(authority.SubjectRefused, match=f"has {place} .*printable ASCII") as caught:
        authority.parse_request(request(subject))
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


@pytest.mark.filterwarnings("ignore:Attribute's length must be")
@pytest.mark.parametrize(
    ("subject", "sentence"),
    [
        ([], "needs one common name, which becomes the user, and has 0"),
        ([(ORG, "dev")], "needs one common name, which becomes the user, and has 0"),
        ([(CN, "alice"), (CN, "bob")], "needs one common name, which becomes the user, and has 2"),
        ([(CN, "x" * 300)], f"has common name '{'x' * 64}' of 300 characters; 1 to 64 may be"),
        ([(CN, "alice"), (ORG, "x" * 65)], f"has organization '{'x' * 64}' of 65 characters; 1 to 64 may be"),
        ([(CN, "")], "has common name '' of 0 characters; 1 to 64 may be"),
        ([(CN, "alice"), *((ORG, f"g{n}") for n in range(33))], "has 33 organizations; at most 32 can be groups"),
    ],
)
def test_subjects_that_are_no_user_are_refused(subject: list[tuple[ObjectIdentifier, str]], sentence: str) -> None:
    with pytest.raises(authority.SubjectRefused) as caught:
        authority.parse_request(request(subject))
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("extension", "sentence"),
    [
        (x509.BasicConstraints(ca=True, path_length=None), "asks to be a certificate authority"),
        (x509.BasicConstraints(ca=True, path_length=0), "asks to be a certificate authority"),
        (usage(key_cert_sign=True), "asks for the key usage key cert sign"),
        (usage(digital_signature=True, crl_sign=True), "asks for the key usage crl sign"),
        (usage(key_agreement=True, encipher_only=True), "asks for the key usage key agreement"),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), "asks for the extended key usage 1.3.6.1.5.5.7.3.1"),
        (
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
            "asks for the extended key usage 2.5.29.37.0",
        ),
        (x509.SubjectAlternativeName([x509.DNSName("gateway")]), "has subject alternative names"),
        (x509.SubjectAlternativeName([x509.RFC822Name("a@b.c")]), "has subject alternative names"),
        (
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://a/b")]),
            "has subject alternative names",
        ),
        (x509.NameConstraints([x509.DNSName("a")], None), "has the extension 2.5.29.30"),
        (x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00"), "has the extension 1.2.3.4"),
    ],
    ids=str,
)
def test_whoever_asks_for_more_than_a_client_certificate_is_refused(
    extension: x509.ExtensionType, sentence: str
) -> None:
    with pytest.raises(authority.ExtensionRefused) as caught:
        authority.parse_request(request(extensions=[extension]))
    assert str(caught.value).startswith(sentence)


GOOD = x509.load_pem_x509_csr(
    request([(ORG, "dev"), (CN, "alice")], [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])])
).public_bytes(Encoding.DER)


def armour(der: bytes) -> bytes:
    body = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"


def overwritten(at: int, byte: int) -> bytes:
    return GOOD[:at] + bytes([byte]) + GOOD[at + 1 :]


@given(st.builds(overwritten, st.integers(0, len(GOOD) - 1), st.integers(0, 255)))
@example(GOOD)
@example(overwritten(8, 1))  # a version that is none
def test_a_request_with_any_byte_changed_is_refused_in_words_or_is_the_same_request(der: bytes) -> None:
    try:
        asked = authority.parse_request(armour(der))
    except authority.RequestError:
        assert der != GOOD
    else:
        assert (asked.common_name, asked.organizations) == ("alice", ("dev",))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_words(der: bytes) -> None:
    with pytest.raises(authority.RequestError):
        authority.parse_request(armour(der))
