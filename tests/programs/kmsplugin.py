"""A KMS v2 plugin: a real gRPC server on a unix socket, whose keys and faults a test chooses."""

import os
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from onepass.pki import kmsv2
from onepass.pki.kmsv2 import Fields

NOTE = "kms.test.example"


@dataclass
class Kms:
    """The plugin's side. `keys` by key_id; the last one encrypts. `answer` replaces what a method answers."""

    keys: dict[str, bytes] = field(default_factory=dict)
    healthz: str = "ok"
    version: str = "v2"
    annotations: Mapping[str, bytes] = field(default_factory=lambda: {NOTE: b"\x00noted"})
    answer: dict[str, Callable[[Fields], Fields]] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    seen: list[bytes] = field(default_factory=list)  # every seed that went by
    hanging: threading.Event | None = None  # calls wait until it is set

    def __post_init__(self) -> None:
        if not self.keys:
            self.rotate("key-1")

    def rotate(self, key_id: str) -> None:
        self.keys[key_id] = secrets.token_bytes(32)

    def status(self, _asked: Fields) -> Fields:
        return Fields(version=self.version, healthz=self.healthz, key_id=list(self.keys)[-1])

    def encrypt(self, asked: Fields) -> Fields:
        assert asked.uid
        key_id, nonce = list(self.keys)[-1], os.urandom(12)
        self.seen.append(asked.plaintext)
        ciphertext = nonce + AESGCM(self.keys[key_id]).encrypt(nonce, asked.plaintext, None)
        return Fields(ciphertext=ciphertext, key_id=key_id, annotations=self.annotations)

    def decrypt(self, asked: Fields) -> Fields:
        assert asked.uid
        if asked.key_id not in self.keys:
            raise KeyError(f"no key {asked.key_id}")
        if dict(asked.annotations) != dict(self.annotations):
            raise KeyError("the annotations are others")
        try:
            found = AESGCM(self.keys[asked.key_id]).decrypt(asked.ciphertext[:12], asked.ciphertext[12:], None)
        except InvalidTag:
            raise KeyError("not encrypted here") from None
        return Fields(plaintext=found)

    @contextmanager
    def serving(self, path: Path) -> Iterator[None]:
        """On the socket `path`, until the end of the block."""
        methods = {"Status": self.status, "Encrypt": self.encrypt, "Decrypt": self.decrypt}
        handlers = {name: self._handler(name, method) for name, method in methods.items()}
        with ThreadPoolExecutor(8) as threads:
            server = grpc.server(threads)
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(kmsv2.SERVICE, handlers),))
            server.add_insecure_port(f"unix:{path}")
            server.start()
            try:
                yield
            finally:
                if self.hanging:
                    self.hanging.set()
                server.stop(None).wait()
                path.unlink(missing_ok=True)

    def _handler(self, name: str, method: Callable[[Fields], Fields]) -> "grpc.RpcMethodHandler[bytes, bytes]":
        def serve(body: bytes, context: grpc.ServicerContext) -> bytes:
            self.calls[name] += 1
            if self.hanging:
                self.hanging.wait(60)
            asked = kmsv2.decode(f"{name}Request", body)
            try:
                return kmsv2.encode(f"{name}Response", self.answer.get(name, method)(asked))
            except KeyError as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error.args[0]))

        return grpc.unary_unary_rpc_method_handler(serve)
