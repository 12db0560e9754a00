"""CertificateSigningRequests: who asks for a client certificate, and what was decided.

The rules are Kubernetes' (pkg/apis/certificates/validation), narrowed to client certificates and to names that a person
may have. Whether the requester may ask for this name, and the approver approve, is the API server's to decide.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from cryptography import x509

from onepass.api import certificates_v1, errors, meta
from onepass.api.errors import Cause
from onepass.api.meta import JSON, Object, Resource
from onepass.pki import authority, certificates
from onepass.registry import ages, causes, credentials, lifecycle, rolerules
from onepass.registry.strategy import Actor, Column, Strategy

RESOURCE = Resource(
    "certificates.k8s.io",
    "v1",
    "CertificateSigningRequest",
    "certificatesigningrequests",
    "certificatesigningrequest",
    namespaced=False,
    short_names=("csr",),
)
SIGNER = "kubernetes.io/kube-apiserver-client"
APPROVED, DENIED, FAILED, REVOKED = "Approved", "Denied", "Failed", "Revoked"

_SHORTEST = 600  # seconds
_USAGES = ("client auth", "digital signature", "key encipherment")
_RESERVED = ("system:", "onepass:")
_SERVERS = ("username", "uid", "groups", "extra")


def _on_create(obj: Object, actor: Actor) -> Object:
    """Whoever asks is who the gateway says, whatever the body says."""
    who = actor.identity
    told: dict[str, JSON] = {
        "username": who.user,
        "uid": who.uid,
        "groups": list(who.groups),
        "extra": {key: [*values] for key, values in who.extra.items()},
    }
    spec = {k: v for k, v in meta.section(obj, "spec").items() if k not in _SERVERS}
    return {**obj, "spec": {**spec, **{k: v for k, v in told.items() if v}}}


def _on_update(old: Object, new: Object, actor: Actor) -> Object:
    before = meta.section(old, "spec")
    theirs = {k: v for k, v in meta.section(new, "spec").items() if k not in _SERVERS}
    ours = {k: v for k, v in before.items() if k in _SERVERS}
    status = meta.section(new, "status")
    if "conditions" in status:
        status = {**status, "conditions": _timed(_conditions(old), rolerules.objects(status["conditions"]), actor.now)}
    return {**new, "spec": {**theirs, **ours}, **({"status": status} if status else {})}


def _timed(before: Mapping[str, Object], conditions: Sequence[Object], now: float) -> list[JSON]:
    """The conditions, each with the times that it lacks."""
    moment = lifecycle.timestamp(now)
    timed: list[JSON] = []
    for condition in conditions:
        old = before.get(meta.text(condition, "type"), {})
        since = old.get("lastTransitionTime") if old.get("status") == condition.get("status") else None
        timed.append(
            {"lastUpdateTime": old.get("lastUpdateTime") or moment, "lastTransitionTime": since or moment, **condition}
        )
    return timed


def _on_delete(obj: Object, actor: Actor) -> Object:
    certificate = _issued(obj)
    if REVOKED not in _conditions(obj) or certificate is None:
        return obj
    end = certificates.not_after(certificate)
    if end <= actor.now:
        return obj
    told = (
        f'certificatesigningrequests.certificates.k8s.io "{meta.name(obj)}" is forbidden: its certificate was taken '
        f"back, and would be good again without this record; it can be deleted after {lifecycle.timestamp(end)}"
    )
    raise errors.forbidden(told, RESOURCE, meta.name(obj))


def ends(obj: Object) -> float | None:
    """When the certificate that was issued ends (Unix seconds); None when there is none."""
    certificate = _issued(obj)
    return None if certificate is None else certificates.not_after(certificate)


def names(obj: Object) -> tuple[str, tuple[str, ...]]:
    """The user and the groups that the certificate would name. Raises ValueError."""
    asked = authority.parse_request(credentials.pem(meta.text(meta.section(obj, "spec"), "request")))
    return asked.common_name, asked.organizations


def _conditions(obj: Object) -> Mapping[str, Object]:
    """The conditions by type."""
    return {meta.text(c, "type"): c for c in rolerules.objects(meta.section(obj, "status").get("conditions"))}


def _issued(obj: Object) -> x509.Certificate | None:
    try:
        return certificates.chain(credentials.pem(meta.text(meta.section(obj, "status"), "certificate")))[0]
    except ValueError:
        return None


def _validate(obj: Object, old: Object | None) -> Sequence[Cause]:
    spec = meta.section(obj, "spec")
    if old is None:
        return [*_spec(spec), *_request(spec)]
    wrong = [] if spec == meta.section(old, "spec") else [causes.forbidden("spec", "a request cannot be changed")]
    return [*wrong, *_decisions(obj, old), *_certificate(obj, old)]


def _spec(spec: Object) -> Iterable[Cause]:
    signer = meta.text(spec, "signerName")
    if signer != SIGNER:
        yield causes.unsupported("spec.signerName", signer, [SIGNER])
    usages = rolerules.texts(spec.get("usages"))
    if not usages:
        yield causes.required("spec.usages")
    elif "client auth" not in usages:
        yield causes.invalid("spec.usages", list(usages), "must contain client auth: only client certificates are made")
    for index, usage in enumerate(usages):
        if usage not in _USAGES:
            yield causes.unsupported(f"spec.usages[{index}]", usage, _USAGES)
        elif usage in usages[:index]:
            yield causes.duplicate(f"spec.usages[{index}]", usage)
    seconds = spec.get("expirationSeconds")
    if isinstance(seconds, int) and seconds < _SHORTEST:
        told = f"may not specify a duration less than {_SHORTEST} seconds (10 minutes)"
        yield causes.invalid("spec.expirationSeconds", seconds, told)


def _request(spec: Object) -> Iterable[Cause]:
    try:
        asked = authority.parse_request(credentials.pem(meta.text(spec, "request")))
    except ValueError as wrong:
        return [Cause("FieldValueInvalid", f"Invalid value: {wrong}", "spec.request")]
    named = [("a common name", asked.common_name), *(("an organization", group) for group in asked.organizations)]
    return [
        causes.invalid("spec.request", name, f"{what} must not begin with {' or '.join(_RESERVED)}")
        for what, name in named
        if name.startswith(_RESERVED)
    ]


def _decisions(obj: Object, old: Object) -> Iterable[Cause]:
    field = "status.conditions"
    kinds = [meta.text(c, "type") for c in rolerules.objects(meta.section(obj, "status").get("conditions"))]
    for index, kind in enumerate(kinds):
        if not kind:
            yield causes.required(f"{field}[{index}].type")
        elif kind in kinds[:index]:
            yield causes.duplicate(f"{field}[{index}].type", kind)
    now, before = _conditions(obj), _conditions(old)
    for kind in (APPROVED, DENIED, FAILED, REVOKED):
        if kind in before and before[kind].get("status") != now.get(kind, {}).get("status"):
            yield causes.forbidden(field, f"updates may not remove or change a condition of type {kind}")
        if kind in now and now[kind].get("status") != "True":
            yield causes.invalid(f"{field}[{kind}].status", now[kind].get("status"), "must be True")
    if APPROVED in now and DENIED in now:
        yield causes.forbidden(field, "Approved and Denied conditions are mutually exclusive")
    if REVOKED in now and APPROVED not in now:
        yield causes.forbidden(field, "only what was approved can be revoked")


def _certificate(obj: Object, old: Object) -> Iterable[Cause]:
    field = "status.certificate"
    now, before = meta.section(obj, "status").get("certificate"), meta.section(old, "status").get("certificate")
    if before and now != before:
        yield causes.forbidden(field, "a certificate cannot be changed")
    elif now and not before:
        if APPROVED not in _conditions(obj):
            yield causes.forbidden(field, "a request must be approved before it gets a certificate")
        if _issued(obj) is None:
            yield Cause("FieldValueInvalid", "Invalid value: must be certificates in PEM, in base64", field)


def _condition_cell(obj: Object, _now: float) -> str:
    found = _conditions(obj)
    told = [kind for kind in (APPROVED, DENIED, FAILED, REVOKED) if kind in found]
    if meta.section(obj, "status").get("certificate"):
        told.insert(1, "Issued")
    return ",".join(told) or "Pending"


def _duration_cell(obj: Object, _now: float) -> str:
    seconds = meta.section(obj, "spec").get("expirationSeconds")
    if not isinstance(seconds, int):
        return "<none>"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _spec_cell(key: str) -> Callable[[Object, float], str]:
    return lambda obj, _now: meta.text(meta.section(obj, "spec"), key)


STRATEGY = Strategy(
    resource=RESOURCE,
    model=certificates_v1.CertificateSigningRequest,
    columns=(
        ages.AGE,
        Column("SignerName", _spec_cell("signerName"), description="Who is to sign."),
        Column("Requestor", _spec_cell("username"), description="Who asks."),
        Column("RequestedDuration", _duration_cell, description="How long the certificate is to hold."),
        Column("Condition", _condition_cell, description="What was decided, and whether it was signed."),
    ),
    subresources={"approval": ("status.conditions",), "status": ("status",)},
    generations=False,
    unmanaged=("spec.username", "spec.uid", "spec.groups", "spec.extra"),
    prepare_create=_on_create,
    prepare_update=_on_update,
    prepare_delete=_on_delete,
    validate=_validate,
    name_rule="path",
    selectable={"spec.signerName": lambda obj: meta.text(meta.section(obj, "spec"), "signerName")},
)
