"""Secrets at rest: AES-256-GCM under a key that is kept outside the database.

    SealError   a key that is none, or sealed bytes that these keys did not seal for this context

Sealed bytes are a version (1 byte), the id of the key (8), a random nonce (12), and the ciphertext with its tag. The
version, the id and the caller's context are authenticated with it, so that nothing sealed passes for anything else.
"""

import base64
import binascii
import hashlib
import secrets
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_PREFIX = "onepass-seal-1:"
_VERSION = b"\x01"
_ID = 8
_NONCE = 12
_TAG = 16
_HEADER = len(_VERSION) + _ID


class SealError(ValueError):
    """A key that is none, or sealed bytes that these keys did not seal for this context."""


def generate() -> str:
    """A new key as the line that its file holds."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


class Keyring:
    """Seals with one key and unseals with several, so that keys can be renewed."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """`keys` of 32 bytes each; the first seals."""
        self._ciphers = {_VERSION + _identify(key): AESGCM(key) for key in keys}
        self._header = _VERSION + _identify(keys[0])

    @classmethod
    def parse(cls, text: str) -> "Keyring":
        """From the text of a key file: one key a line, the first one seals. Raises SealError, which shows no key."""
        keys: list[bytes] = []
        for number, line in enumerate(filter(None, map(str.strip, text.splitlines())), 1):
            try:
                key = base64.b64decode(line.removeprefix(_PREFIX), validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if not line.startswith(_PREFIX) or len(key) != 32:
                raise SealError(f"line {number} of the seal key is not a key: it begins with {_PREFIX}")
            keys.append(key)
        if not keys:
            raise SealError("the seal key is empty")
        return cls(keys)

    def seal(self, secret: bytes, context: bytes) -> bytes:
        """Only `unseal` with the same context gives `secret` back."""
        nonce = secrets.token_bytes(_NONCE)
        cipher = self._ciphers[self._header]
        return self._header + nonce + cipher.encrypt(nonce, secret, self._header + context)

    def unseal(self, sealed: bytes, context: bytes) -> bytes:
        """Raises SealError."""
        header, nonce, text = sealed[:_HEADER], sealed[_HEADER : _HEADER + _NONCE], sealed[_HEADER + _NONCE :]
        if len(text) < _TAG or not header.startswith(_VERSION):
            raise SealError("these are not sealed bytes")
        cipher = self._ciphers.get(header)
        if cipher is None:
            raise SealError(f"sealed with the key {header[1:].hex()}, which is not at hand")
        try:
            return cipher.decrypt(nonce, text, header + context)
        except InvalidTag as error:
            raise SealError("the sealed bytes were altered, or belong to something else") from error


def _identify(key: bytes) -> bytes:
    """A name for a key, which tells nothing about it."""
    return hashlib.sha256(b"onepass seal key\0" + key).digest()[:_ID]
