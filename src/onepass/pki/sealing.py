"""Secrets at rest: envelope encryption, by the scheme that kube-apiserver has for KMS v2 plugins.

A process draws a seed, and has it wrapped by a key-encryption key once. Each record gets a key of its own from the seed
(HKDF-SHA256 with 32 random bytes as info, then AES-256-GCM) and carries the wrapped seed, so that it can be opened
without any other record. https://kubernetes.io/docs/tasks/administer-cluster/kms-provider/

    SealError     sealed bytes cannot be opened, or nothing can be sealed
      KeyMissing    the key that they were sealed with is not at hand
      KeyAway       the key is kept by somebody who does not answer now; this heals by itself
      Damaged       they were altered, or belong to something else

Sealed bytes are a version (1 byte), the kind of key (1), then key id, wrapped seed and annotations, each after its
length; the info (32); and the ciphertext with its tag. All before the ciphertext, and the caller's context, are
authenticated with it: nothing sealed passes for anything else. Version 1, which older releases wrote, had no seed.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

KEY, KMS = 1, 2  # kinds of key-encryption keys: one that we hold, and one behind a KMS plugin
SEED = 32
_OLD, _VERSION = b"\x01", b"\x02"
_OLD_HEADER = 9  # version and the id of the key
_INFO, _TAG, _NONCE = 32, 16, 12
_SHOWN = 1024  # characters of a key id; KMS v2 allows no more bytes
_CUT = "these are not sealed bytes"


class SealError(ValueError):
    """Sealed bytes cannot be opened, or nothing can be sealed. `reason` is a CamelCase word for a condition."""

    reason: ClassVar[str] = "SealFailed"


class KeyMissing(SealError):
    """The key that they were sealed with is not at hand."""

    reason = "KeyMissing"


class KeyAway(SealError):
    """The key is kept by somebody who does not answer now."""

    reason = "KeyUnavailable"


class Damaged(SealError):
    """They were altered, or belong to something else."""

    reason = "CredentialDamaged"


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A seed as a key-encryption key has wrapped it; `annotations` are a plugin's, sorted."""

    kind: int
    key_id: str
    ciphertext: bytes
    annotations: tuple[tuple[str, bytes], ...] = ()

    @property
    def key(self) -> str:
        """The name of the key, as people read it. KMS v2 says of a key_id that it may be logged."""
        shown = "".join(c if c.isprintable() else "?" for c in self.key_id[:_SHOWN])
        return f"kms:{shown}" if self.kind == KMS else shown


@dataclass(frozen=True, slots=True)
class Seed:
    """What the keys of records come from, and its wrapped form."""

    secret: bytes = field(repr=False)
    wrapped: Wrapped


@dataclass(frozen=True, slots=True)
class Envelope:
    """Sealed bytes, taken apart. `wrapped` has no ciphertext in version 1, which used the key itself."""

    wrapped: Wrapped
    header: bytes  # what is authenticated, beside the context
    info: bytes  # in version 1 the nonce
    text: bytes

    @property
    def old(self) -> bool:
        return is_old(self.header)


def new_seed() -> bytes:
    return secrets.token_bytes(SEED)


def seal(seed: Seed, secret: bytes, context: bytes) -> bytes:
    """Only `unseal` with the same seed and the same context gives `secret` back."""
    info = secrets.token_bytes(_INFO)
    header = _header(seed.wrapped) + info
    cipher, nonce = _record(seed.secret, info)
    return header + cipher.encrypt(nonce, secret, header + context)


def unseal(envelope: Envelope, seed: bytes, context: bytes) -> bytes:
    """`seed` is what `envelope.wrapped` unwraps to; for version 1 the key. Raises Damaged."""
    cipher, nonce = (AESGCM(seed), envelope.info) if envelope.old else _record(seed, envelope.info)
    try:
        return cipher.decrypt(nonce, envelope.text, envelope.header + context)
    except InvalidTag as error:
        raise Damaged("the sealed bytes were altered, or belong to something else") from error


def is_old(sealed: bytes) -> bool:
    """Whether an older release sealed it, in version 1."""
    return sealed.startswith(_OLD)


def parse(sealed: bytes) -> Envelope:
    """Raises Damaged for what is no sealed bytes; whether they are genuine, only `unseal` tells."""
    if is_old(sealed):
        info, text = sealed[_OLD_HEADER : _OLD_HEADER + _NONCE], sealed[_OLD_HEADER + _NONCE :]
        if len(text) < _TAG:
            raise Damaged(_CUT)
        header = sealed[:_OLD_HEADER]
        return Envelope(Wrapped(KEY, header[1:].hex(), b""), header, info, text)
    if not sealed.startswith(_VERSION):
        raise Damaged(_CUT)
    parts = _Parts(sealed, len(_VERSION))
    kind, key_id, ciphertext = parts.take(1)[0], parts.text(), parts.sized()
    annotations = tuple(_annotations(parts))
    info = parts.take(_INFO)
    text = sealed[parts.at :]
    if kind not in (KEY, KMS) or len(text) < _TAG:
        raise Damaged(_CUT)
    return Envelope(Wrapped(kind, key_id, ciphertext, annotations), sealed[: parts.at], info, text)


def _record(seed: bytes, info: bytes) -> tuple[AESGCM, bytes]:
    """The cipher and the nonce of one record. Both come from the seed and `info`, which is never drawn twice."""
    derived = HKDFExpand(SHA256(), 32 + _NONCE, info).derive(seed)
    return AESGCM(derived[:32]), derived[32:]


def _header(wrapped: Wrapped) -> bytes:
    parts = [wrapped.key_id.encode(), wrapped.ciphertext]
    listed = [part for name, value in wrapped.annotations for part in (name.encode(), value)]
    count = len(wrapped.annotations).to_bytes(2, "big")
    return _VERSION + bytes([wrapped.kind]) + b"".join(map(_sized, parts)) + count + b"".join(map(_sized, listed))


def _annotations(parts: "_Parts") -> Iterator[tuple[str, bytes]]:
    for _ in range(int.from_bytes(parts.take(2), "big")):
        yield parts.text(), parts.sized()


def _sized(part: bytes) -> bytes:
    return len(part).to_bytes(2, "big") + part


@dataclass(slots=True)
class _Parts:
    """Reads bytes from the front. Raises Damaged where they end too soon."""

    content: bytes
    at: int

    def take(self, size: int) -> bytes:
        part = self.content[self.at : self.at + size]
        if len(part) < size:
            raise Damaged(_CUT)
        self.at += size
        return part

    def sized(self) -> bytes:
        return self.take(int.from_bytes(self.take(2), "big"))

    def text(self) -> str:
        try:
            return self.sized().decode()
        except UnicodeDecodeError as error:
            raise Damaged(_CUT) from error
