"""The write-only part of a Cluster: taken out of the object on write, so that no read can show it.

What is taken out is stored as JSON in the shape that it had in spec.access.credential: {"serviceAccountToken": ...} or
{"x509": {"certificate": ..., "privateKey": ...}}. What stays is the type and a fingerprint. Beside it is the password
of a proxy, as it stood in proxyURL: {"proxyPassword": ...}.
"""

import base64
import binascii
import functools
import hashlib
from collections.abc import Callable, Sequence

import orjson
from cryptography.hazmat.primitives.serialization import Encoding

from onepass.api import errors, meta
from onepass.api.errors import ApiError, Cause
from onepass.api.meta import Object, Resource
from onepass.pki import certificates, keys, lifetimes
from onepass.registry import causes, proxies
from onepass.registry.strategy import Actor, Concealed

TOKEN, X509, OIDC = "ServiceAccountToken", "X509Certificate", "OIDC"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_FIELD = "spec.access.credential"
_SECRET_FIELDS = ("serviceAccountToken", "x509")
# Where a credential goes, and to whom. Who may change these could send a stored credential to a server of their own.
_PLACES = ("endpoint", "endpoints")
_BOUND = ("endpoint", "endpoints", "caBundle", "insecure", "serverName", "proxyURL")
_PASSWORD = "proxyPassword"  # noqa: S105  the key in what is stored
_SYSTEM = "system:onepass"  # the controllers; no user has a name that begins with system:
_TOKEN_LIMIT = 48 * 1024  # bytes; a header that members still take


class _Refused(Exception):
    """One cause; the value that it is about is told to nobody."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.message)
        self.cause = cause


def conceal(resource: Resource) -> Callable[[Object, Object | None, Actor], Concealed]:
    """The strategy function for a kind with a spec.access.credential; `resource` names it in refusals."""

    def take_out(obj: Object, old: Object | None, actor: Actor) -> Concealed:
        try:
            return _take_out(obj, old, actor)
        except _Refused as refused:
            raise _invalid(resource, obj, [refused.cause]) from None

    return take_out


def marked(obj: Object) -> Object:
    """A concealed object with the fingerprint of its secret in the secret's place: see Strategy.marked."""
    access = _access(obj)
    credential = meta.section(access, "credential")
    fingerprint = meta.text(credential, "fingerprint")
    if not fingerprint:
        return obj
    secret: Object = {"serviceAccountToken": fingerprint}
    if credential.get("type") == X509:
        secret = {"x509": {"certificate": fingerprint, "privateKey": fingerprint}}
    elif credential.get("type") != TOKEN:
        return obj
    shown: Object = {**access, "credential": {**credential, **secret}}
    return {**obj, "spec": {**meta.section(obj, "spec"), "access": shown}}


def of(obj: Object) -> Object:
    """spec.access.credential, empty where there is none."""
    return meta.section(_access(obj), "credential")


def answered(obj: Object) -> bool:
    """Whether there is a credential; of type OIDC there is none before the program has answered once."""
    return bool(meta.text(of(obj), "fingerprint"))


def awaited(obj: Object) -> bool:
    """Whether a program has yet to answer for the first time: until then a request would come without a credential."""
    return of(obj).get("type") == OIDC and not answered(obj)


def bound(obj: Object) -> bytes:
    """Where the stored credential goes: see Strategy.bound. Who alters the database cannot lead it elsewhere."""
    access = _access(obj)
    return orjson.dumps({key: access[key] for key in _BOUND if access.get(key)}, option=orjson.OPT_SORT_KEYS)


def pem(value: str) -> bytes:
    """What a Go []byte field holds. Raises ValueError, without the value."""
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be PEM in base64") from None


def _invalid(resource: Resource, obj: Object, wrong: Sequence[Cause]) -> ApiError:
    return errors.invalid(resource, meta.name(obj), wrong)


def _take_out(obj: Object, old: Object | None, actor: Actor) -> Concealed:
    access, now = _access(obj), actor.now
    access, password = _without_password(access, _access(old or {}))
    if access.get("caBundle") and access["caBundle"] != _access(old or {}).get("caBundle"):
        _bundle(meta.text(access, "caBundle"), now)
    given = meta.section(access, "credential")
    secret = {key: given[key] for key in _SECRET_FIELDS if given.get(key)}
    seen: Object = {key: value for key, value in given.items() if key not in (*_SECRET_FIELDS, "fingerprint")}
    before = of(old or {})
    stored: bytes | None = b""
    known = False
    if secret:
        if given.get("renew") is True:
            _renewable(meta.text(secret, "serviceAccountToken"), now)
        seen["fingerprint"] = _fingerprint(_kind(given, secret, actor), secret, now)
        same = (seen["fingerprint"], seen["type"]) == (before.get("fingerprint"), before.get("type"))
        known = same and old is not None and bound(obj) == bound(old)
        stored = orjson.dumps(secret)
    elif given.get("type") in (TOKEN, X509):
        seen["fingerprint"] = _kept(given, before)
        _stay(access, _access(old or {}))
        stored = None
    elif given.get("type") == OIDC and before.get("fingerprint") and _same_program(access, _access(old or {})):
        if given.get("fingerprint", before["fingerprint"]) != before["fingerprint"]:
            raise _Refused(causes.forbidden(f"{_FIELD}.fingerprint", "set by the server"))
        seen["fingerprint"] = before["fingerprint"]
        stored = None
    elif given and given.get("fingerprint") and given["fingerprint"] != before.get("fingerprint"):
        raise _Refused(causes.forbidden(f"{_FIELD}.fingerprint", "set by the server"))
    shown: Object = {**access, "credential": seen} if given else {k: v for k, v in access.items() if k != "credential"}
    spec: Object = {**meta.section(obj, "spec"), "access": shown}
    words: Object = {**secret, _PASSWORD: password} if password not in (None, proxies.MASK) else secret
    made: Object = {**obj, "metadata": _cleaned(obj, words), "spec": spec}
    if password is None:
        return Concealed(made, stored, known)
    if stored is not None and password != proxies.MASK:
        whole = _with_password(stored, password, None)
        return Concealed(made, whole, merged=lambda _before: whole)
    return Concealed(made, None, merged=functools.partial(_with_password, stored, password))


def _without_password(access: Object, before: Object) -> tuple[Object, str | None]:
    """What may be shown, and the password in proxyURL. The mask stands for the stored one, and goes where that goes."""
    field = "spec.access.proxyURL"
    try:
        shown, password = proxies.parted(meta.text(access, "proxyURL"))
    except ValueError as wrong:
        raise _Refused(_wrong(field, wrong)) from None
    if password == proxies.MASK and shown != before.get("proxyURL"):
        raise _Refused(_wrong(field, "supply the password itself: none is stored for this user of this proxy"))
    if password == proxies.MASK and any((access.get(key) or None) != (before.get(key) or None) for key in _PLACES):
        told = "supply the password itself: the stored one opens the way to the endpoints of before, and to no others"
        raise _Refused(_wrong(field, told))
    return (access if password is None else {**access, "proxyURL": shown}), password


def _with_password(stored: bytes | None, password: str, before: bytes | None) -> bytes:
    """What is to be stored, where `stored` is as in Concealed and `before` is what was."""
    known: Object = orjson.loads(before) if before else {}
    rest: Object = known if stored is None else orjson.loads(stored or b"{}")
    kept = meta.text(known, _PASSWORD) if password == proxies.MASK else password
    return orjson.dumps({**rest, _PASSWORD: kept})


def _access(obj: Object) -> Object:
    return meta.section(meta.section(obj, "spec"), "access")


def _kept(given: Object, before: Object) -> str:
    """The fingerprint of the stored credential, when that is what the write means."""
    fingerprint = meta.text(given, "fingerprint")
    if not fingerprint:
        field, told = (
            ("serviceAccountToken", "the token")
            if given.get("type") == TOKEN
            else ("x509", "the certificate and its private key")
        )
        raise _Refused(causes.required(f"{_FIELD}.{field}", f"type {given['type']} needs {told}"))
    if fingerprint != before.get("fingerprint") or given.get("type") != before.get("type"):
        told = "this is not the fingerprint of the stored credential; supply the credential itself"
        raise _Refused(causes.invalid(f"{_FIELD}.fingerprint", fingerprint, told))
    return fingerprint


def _kind(given: Object, secret: Object, actor: Actor) -> str:
    """What is checked: what a program answered is a token or a pair, and only the system itself puts that here."""
    kind = meta.text(given, "type")
    if kind == OIDC and actor.identity.user == _SYSTEM:
        return X509 if "x509" in secret else TOKEN
    return kind


def _same_program(access: Object, before: Object) -> bool:
    """Whether what a program answered for `before` is still good: asked in the same way, and sent to the same place."""
    programs = [meta.section(meta.section(each, "credential"), "execConfig") for each in (access, before)]
    return programs[0] == programs[1] and all((access.get(key) or None) == (before.get(key) or None) for key in _BOUND)


def _stay(access: Object, before: Object) -> None:
    """Refuse to send a stored credential anywhere but where it was meant for."""
    for key in _BOUND:
        if (access.get(key) or None) != (before.get(key) or None):
            told = (
                "may not change unless the credential is supplied again in the same write, "
                "because the stored one would go to another server"
            )
            raise _Refused(causes.forbidden(f"spec.access.{key}", told))


def _bundle(text: str, now: float) -> None:
    try:
        certificates.bundle(pem(text), now)
    except ValueError as wrong:
        raise _Refused(_wrong("spec.access.caBundle", wrong)) from None


def _wrong(field: str, problem: object) -> Cause:
    """As causes.invalid, without the value: it may be one that nobody is to read."""
    return Cause("FieldValueInvalid", f"Invalid value: {problem}", field)


def _fingerprint(kind: str, secret: Object, now: float) -> str:
    """Check a new credential, and make its fingerprint."""
    if kind == TOKEN and "x509" not in secret:
        material = _token(meta.text(secret, "serviceAccountToken"))
    elif kind == X509 and "serviceAccountToken" not in secret:
        material = _pair(meta.section(secret, "x509"), now)
    elif kind in (TOKEN, X509, OIDC):
        told = f"type {kind} does not agree with the credential that is given"
        raise _Refused(causes.invalid(f"{_FIELD}.type", kind, told))
    else:
        raise _Refused(causes.unsupported(f"{_FIELD}.type", kind, (TOKEN, X509, OIDC)))
    return "sha256:" + hashlib.sha256(material).hexdigest()


def _token(token: str) -> bytes:
    if not token.isascii() or not token.isprintable() or " " in token or len(token) > _TOKEN_LIMIT:
        told = f"must be printable ASCII without spaces and line ends, at most {_TOKEN_LIMIT} bytes"
        raise _Refused(_wrong(f"{_FIELD}.serviceAccountToken", told))
    return token.encode()


def _renewable(token: str, now: float) -> None:
    """Refuse to promise the renewal of a token that cannot be renewed."""
    held = lifetimes.bound(token)
    if held is None:
        told = (
            "the token is no bound token of a service account, such as `kubectl create token` makes: "
            "it cannot be renewed"
        )
        raise _Refused(causes.forbidden(f"{_FIELD}.renew", told))
    if held.lifetime.ends <= now:
        raise _Refused(_wrong(f"{_FIELD}.serviceAccountToken", "the token has ended; supply one that still holds"))


def _pair(given: Object, now: float) -> bytes:
    """The chain in DER, of a certificate that is valid at `now` and fits its key; the key follows from it.

    Of one certificate alone, the hash of this is its fingerprint as other tools tell it.
    """
    found: dict[str, bytes] = {}
    for part in ("certificate", "privateKey"):
        if not given.get(part):
            raise _Refused(causes.required(f"{_FIELD}.x509.{part}"))
        try:
            found[part] = pem(meta.text(given, part))
        except ValueError as wrong:
            raise _Refused(_wrong(f"{_FIELD}.x509.{part}", wrong)) from None
    try:
        certificates.pair(found["certificate"], found["privateKey"], now)
    except keys.KeyRefused as wrong:
        raise _Refused(_wrong(f"{_FIELD}.x509.privateKey", f"the key {wrong}")) from None
    except certificates.CertificateRefused as wrong:
        raise _Refused(_wrong(f"{_FIELD}.x509.certificate", f"the certificate {wrong}")) from None
    chain = certificates.chain(found["certificate"])
    return b"".join(certificate.public_bytes(Encoding.DER) for certificate in chain)


def _cleaned(obj: Object, secret: Object) -> Object:
    """Metadata whose annotations repeat nothing of a credential."""
    metadata = meta.section(obj, "metadata")
    annotations = meta.section(metadata, "annotations")
    if not annotations:
        return metadata
    words = list(_words(secret))
    kept: Object = {}
    for key, value in annotations.items():
        clean = _without_credential(str(value)) if key == LAST_APPLIED else str(value)
        if clean and not any(word in clean for word in words):
            kept[key] = clean
    return {**metadata, "annotations": kept}


def _without_credential(text: str) -> str:
    """A last-applied configuration without the secret fields; "" when it cannot be read."""
    try:
        applied = orjson.loads(text)
    except ValueError:
        return ""
    if not isinstance(applied, dict):
        return ""
    access, credential = _access(applied), of(applied)
    for key in _SECRET_FIELDS:
        credential.pop(key, None)
    if access.get("proxyURL"):
        try:
            access["proxyURL"], _ = proxies.parted(meta.text(access, "proxyURL"))
        except ValueError:
            del access["proxyURL"]
    return orjson.dumps(applied).decode() + "\n"


def _words(value: object) -> Sequence[str]:
    """Every string in a secret that is long enough to be one."""
    if isinstance(value, dict):
        return [word for inner in value.values() for word in _words(inner)]
    return [value] if isinstance(value, str) and len(value) >= 8 else []
