"""Key pairs: our own on P-256, and which keys of others are taken.

KeyRefused   not a key, or not one that TLS takes; the message is a sentence that fits after "the key"
"""

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

_RSA_BITS = range(2048, 8193)  # Envoy refuses fewer, BoringSSL more


class KeyRefused(ValueError):
    """Not a key, or not one that TLS takes."""


def generate() -> ec.EllipticCurvePrivateKey:
    """A new key on P-256, the curve that every TLS stack and every JOSE library has."""
    return ec.generate_private_key(ec.SECP256R1())


def to_pem(key: PrivateKeyTypes) -> bytes:
    """PKCS #8 in PEM, unencrypted: whoever stores it sees to who may read it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def from_pem(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """One of our own keys. Raises KeyRefused for anything but a P-256 key."""
    key = any_from_pem(pem)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise KeyRefused(f"is {describe(key.public_key())} and not ECDSA P-256")
    return key


def any_from_pem(pem: bytes) -> PrivateKeyTypes:
    """A private key of any kind, as a person gives it. Raises KeyRefused."""
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise KeyRefused("is encrypted: give it without a passphrase") from error
    except UnsupportedAlgorithm as error:
        raise KeyRefused("is of a kind that is not supported") from error
    except ValueError as error:
        # What the library says may repeat a part of the key.
        raise KeyRefused("is not a private key in PEM") from error


def describe(key: PublicKeyTypes) -> str:
    """What a person calls a key: "RSA 2048", "ECDSA P-256"."""
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA {_CURVES.get(key.curve.name, key.curve.name)}"
    return "Ed25519" if isinstance(key, ed25519.Ed25519PublicKey) else "neither RSA nor ECDSA"


def check_client(key: PublicKeyTypes) -> None:
    """Raises KeyRefused unless Envoy, as BoringSSL verifies by default, takes a client that proves itself with `key`.

    Those are RSA, ECDSA P-256 and P-384: no other is in kVerifySignatureAlgorithms (ssl/extensions.cc).
    """
    _check(key, ("secp256r1", "secp384r1"), ed25519_too=False)


def check_upstream(key: PublicKeyTypes) -> None:
    """Raises KeyRefused unless Envoy can prove itself to a server with `key` (source/common/tls/context_impl.cc)."""
    _check(key, tuple(_CURVES), ed25519_too=True)


_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


def _check(key: PublicKeyTypes, curves: tuple[str, ...], *, ed25519_too: bool) -> None:
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size not in _RSA_BITS:
            raise KeyRefused(f"is {describe(key)}: RSA keys have 2048 to 8192 bits")
        # Small exponents break with bad padding, BoringSSL refuses large ones.
        if not 65537 <= key.public_numbers().e < 2**33:
            raise KeyRefused("is RSA with an unusual exponent: 65537 is the usual one")
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in curves:
            names = " or ".join(_CURVES[curve] for curve in curves)
            raise KeyRefused(f"is {describe(key)}: use {names}, or RSA")
    elif not (ed25519_too and isinstance(key, ed25519.Ed25519PublicKey)):
        raise KeyRefused(f"is {describe(key)}: use ECDSA P-256 or RSA")
