"""What is said to and heard from a KMS v2 plugin, the one that kube-apiserver's encryption at rest has.

https://kubernetes.io/docs/tasks/administer-cluster/kms-provider/#developing-a-kms-plugin-gRPC-server-kms-v2 ; the
fields are those of k8s.io/kms/apis/v2. Pure: bytes in, checked values out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message

from onepass.pki import sealing
from onepass.pki.sealing import Wrapped

SERVICE = "v2.KeyManagementService"
LARGEST = 64 << 10  # bytes of a message that is worth reading: the limits below, with room
_VERSIONS = ("v2", "v2beta1")
_KEY_ID, _CIPHERTEXT, _ANNOTATIONS = 1 << 10, 1 << 10, 32 << 10  # bytes; kube-apiserver's limits
_DOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+\.?")

_Proto = descriptor_pb2.FieldDescriptorProto
_STRING, _BYTES, _MAP = _Proto.TYPE_STRING, _Proto.TYPE_BYTES, _Proto.TYPE_MESSAGE
_MESSAGES: Mapping[str, Mapping[str, tuple[int, "_Proto.Type.ValueType"]]] = {
    "StatusRequest": {},
    "StatusResponse": {"version": (1, _STRING), "healthz": (2, _STRING), "key_id": (3, _STRING)},
    "EncryptRequest": {"plaintext": (1, _BYTES), "uid": (2, _STRING)},
    "EncryptResponse": {"ciphertext": (1, _BYTES), "key_id": (2, _STRING), "annotations": (3, _MAP)},
    "DecryptRequest": {
        "ciphertext": (1, _BYTES),
        "uid": (2, _STRING),
        "key_id": (3, _STRING),
        "annotations": (4, _MAP),
    },
    "DecryptResponse": {"plaintext": (1, _BYTES)},
}


class PluginRefused(Exception):
    """The text is the end of a sentence about the plugin."""


@dataclass(frozen=True, slots=True)
class Fields:
    """A message of any of the kinds; what a kind has not stays empty."""

    version: str = ""
    healthz: str = ""
    key_id: str = ""
    uid: str = ""
    ciphertext: bytes = b""
    plaintext: bytes = field(default=b"", repr=False)
    annotations: Mapping[str, bytes] = field(default_factory=dict)


def encode(message: str, fields: Fields) -> bytes:
    made = _class(message)()
    for name, (_, kind) in _MESSAGES[message].items():
        value = getattr(fields, name)
        if kind == _MAP:
            getattr(made, name).update(value)
        else:
            setattr(made, name, value)
    return made.SerializeToString(deterministic=True)


def decode(message: str, body: bytes) -> Fields:
    """Raises PluginRefused for what is no such message."""
    try:
        read = _class(message).FromString(body)
    except DecodeError as error:
        raise PluginRefused("does not speak KMS v2") from error
    found = {name: getattr(read, name) for name in _MESSAGES[message]}
    if "annotations" in found:
        found["annotations"] = dict(found["annotations"])
    return Fields(**found)


def healthy_key(status: Fields) -> str:
    """The id of the key that the plugin encrypts with now. Raises PluginRefused unless the plugin is well."""
    if status.version not in _VERSIONS:
        raise PluginRefused(f"speaks version {_shown(status.version)} of the KMS API, and v2 is needed")
    if status.healthz != "ok":
        raise PluginRefused(f"says that it is not well: {_shown(status.healthz)}")
    _check_key_id(status.key_id)
    return status.key_id


def wrapped(answer: Fields) -> Wrapped:
    """What an EncryptResponse says. Raises PluginRefused for what kube-apiserver would not take either."""
    _check_key_id(answer.key_id)
    if not answer.ciphertext or len(answer.ciphertext) > _CIPHERTEXT:
        raise PluginRefused(f"encrypted to {len(answer.ciphertext)} bytes, and 1 to {_CIPHERTEXT} are allowed")
    if any(not _DOMAIN.fullmatch(name) for name in answer.annotations):
        raise PluginRefused("answered with an annotation whose name is no fully qualified domain name")
    if sum(len(name.encode()) + len(value) for name, value in answer.annotations.items()) > _ANNOTATIONS:
        raise PluginRefused(f"answered with annotations of more than {_ANNOTATIONS} bytes")
    return Wrapped(sealing.KMS, answer.key_id, answer.ciphertext, tuple(sorted(answer.annotations.items())))


def seed(answer: Fields) -> bytes:
    """What a DecryptResponse says. Raises PluginRefused for what cannot be one of our seeds."""
    if len(answer.plaintext) != sealing.SEED:
        raise PluginRefused("decrypted to something that was never encrypted here")
    return answer.plaintext


def _check_key_id(key_id: str) -> None:
    if not key_id or len(key_id.encode()) > _KEY_ID:
        raise PluginRefused(f"names its key with {len(key_id.encode())} bytes, and 1 to {_KEY_ID} are allowed")


def _shown(text: str) -> str:
    return repr("".join(c for c in text if c.isprintable())[:200])


@cache
def _class(name: str) -> type[Message]:
    file = descriptor_pb2.FileDescriptorProto(name="onepass/kmsv2", package="v2", syntax="proto3")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for each, (number, kind) in fields.items():
            described.field.add(name=each, number=number, type=kind, label=_Proto.LABEL_OPTIONAL)
            if kind == _MAP:
                _map(described, message)
    pool = descriptor_pool.DescriptorPool()  # of its own: another library may have registered the same names
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"v2.{name}"))


def _map(described: descriptor_pb2.DescriptorProto, message: str) -> None:
    """A map<string, bytes> is a repeated message of key and value (protobuf's own encoding of maps)."""
    entry = described.nested_type.add(name="AnnotationsEntry")
    entry.options.map_entry = True
    for number, (part, kind) in enumerate((("key", _STRING), ("value", _BYTES)), 1):
        entry.field.add(name=part, number=number, type=kind, label=_Proto.LABEL_OPTIONAL)
    described.field[-1].label = _Proto.LABEL_REPEATED
    described.field[-1].type_name = f".v2.{message}.AnnotationsEntry"
