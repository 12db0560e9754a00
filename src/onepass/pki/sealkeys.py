"""Key-encryption keys that the gateway holds itself: 256 bits each, one a line of a text."""

import base64
import binascii
import hashlib
import secrets
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from onepass.pki import sealing
from onepass.pki.sealing import Damaged, Envelope, SealError, Seed, Wrapped

PREFIX = "onepass-seal-1:"
_ID = 8
_NONCE = 12


class NoKey(SealError):
    """A text that holds no keys; what it says instead is not told."""


def generate() -> str:
    """A new key as a line."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def name(line: str) -> str:
    """The id of the key in a line, which tells nothing about it. Raises NoKey."""
    return Keyring.parse(line).ids[0]


class Keyring:
    """Wraps seeds with the first of some keys, and unwraps them with any, so that keys can be renewed."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """`keys` of 32 bytes each."""
        self._keys = {_identify(key): key for key in keys}
        self.ids: tuple[str, ...] = tuple(self._keys)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keyring) and list(self._keys.items()) == list(other._keys.items())

    __hash__ = None  # type: ignore[assignment]  # equal by what must be hashed nowhere

    @classmethod
    def parse(cls, text: str) -> "Keyring":
        """One key a line; lines that begin with # are for people. Raises NoKey."""
        keys: list[bytes] = []
        for number, line in enumerate(map(str.strip, text.splitlines()), 1):
            if not line or line.startswith("#"):
                continue
            try:
                key = base64.b64decode(line.removeprefix(PREFIX), validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if not line.startswith(PREFIX) or len(key) != 32:
                raise NoKey(f"line {number} is no key: a key begins with {PREFIX}, as `onepass seal generate` makes it")
            keys.append(key)
        if not keys:
            raise NoKey("it holds no key")
        return cls(keys)

    def seed(self) -> Seed:
        """A new one, wrapped by the first key."""
        made, nonce, kek = sealing.new_seed(), secrets.token_bytes(_NONCE), self.ids[0]
        ciphertext = nonce + AESGCM(self._keys[kek]).encrypt(nonce, made, kek.encode())
        return Seed(made, Wrapped(sealing.KEY, kek, ciphertext))

    def unwrap(self, envelope: Envelope) -> bytes | None:
        """The seed (version 1: the key) that an envelope needs; None when its key is none of ours. Raises Damaged."""
        wrapped = envelope.wrapped
        key = self._keys.get(wrapped.key_id) if wrapped.kind == sealing.KEY else None
        if key is None or envelope.old:
            return key
        nonce, text = wrapped.ciphertext[:_NONCE], wrapped.ciphertext[_NONCE:]
        try:
            return AESGCM(key).decrypt(nonce, text, wrapped.key_id.encode())
        except (InvalidTag, ValueError) as error:
            raise Damaged("the wrapped key in the sealed bytes was altered") from error


def _identify(key: bytes) -> str:
    """A name for a key, which tells nothing about it."""
    return hashlib.sha256(b"onepass seal key\0" + key).digest()[:_ID].hex()
