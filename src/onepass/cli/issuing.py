"""Issuing a pass and taking it back: a key made here, a certificate by the CSR API, a Pass, a kubeconfig.

The private key never leaves this machine. Whatever fails, or is interrupted, takes back what was made before it.
"""

import base64
import re
import secrets
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.cli import client, clusterviews, durations
from onepass.cli.failure import Failure, Refused
from onepass.runtime import kubeconfig

REQUEST_OF = "access.karpor.io/certificate-signing-request"  # on a Pass: the name of its CSR
PASS_OF = "access.karpor.io/pass"  # on a CSR: the name of its Pass  # noqa: S105  a label, not a password
SIGNER = "kubernetes.io/kube-apiserver-client"
CERTIFICATE_SECONDS = 30.0  # how long to wait for the certificate
_LONGEST = 64  # characters of a CN and of an O (X.520, ub-common-name and ub-organization-name)
_SHORTEST = 600  # the least that the CSR API takes as expirationSeconds


@dataclass(frozen=True, slots=True)
class Order:
    """What the person asked for. `resources` as `pods`, `pods/log` or `deployments.apps/scale`."""

    user: str
    groups: Sequence[str] = ()
    clusters: Sequence[str] = ()
    selector: str = ""
    verbs: Sequence[str] = ("get", "list", "watch")
    resources: Sequence[str] = ("*",)
    namespaces: Sequence[str] = ()
    seconds: int = 8 * 3600
    impersonate: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Issued:
    """What came of it. `until` is the earlier end of certificate and Pass."""

    granted: Object
    clusters: tuple[str, ...]
    until: datetime
    config: bytes
    contexts: tuple[str, ...]


def chosen(gateway: client.Gateway, order: Order) -> tuple[str, ...]:
    """The clusters that the pass is for now. Raises Failure when one is unknown, or there is none."""
    if not order.clusters and not order.selector:
        raise Failure("say which clusters: --cluster NAME, repeated, or --selector key=value")
    if order.clusters and order.selector:
        raise Failure("choose clusters by --cluster or by --selector, not by both")
    found = sorted(meta.name(obj) for obj in gateway.list(client.CLUSTERS, order.selector))
    if order.selector:
        if not found:
            raise Failure(f"no cluster matches {order.selector}", "see labels: onepass cluster list -o yaml")
        return tuple(found)
    unknown = [name for name in order.clusters if name not in found]
    if unknown:
        there = f"there are: {', '.join(found)}" if found else "none is registered yet: onepass cluster add"
        raise Failure(f"there is no cluster {', '.join(unknown)}", there)
    return tuple(dict.fromkeys(order.clusters))


def _selector(text: str) -> Object:
    """`k=v,k2=v2` as a LabelSelector; the set-based forms are for whoever writes the Pass by hand."""
    labels: dict[str, JSON] = {}
    for part in text.split(","):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals) or key.endswith("!"):
            raise Failure(
                f"{part!r} is not key=value", "for other selectors write the Pass itself: docs/concepts/passes.md"
            )
        labels[key] = value.removeprefix("=").strip()
    return {"matchLabels": labels}


def rules(order: Order) -> list[JSON]:
    """One rule an API group; a resource without a group is meant in every group. Raises Failure."""
    by_group: dict[str, list[JSON]] = {}
    for text in order.resources:
        resource, slash, subresource = text.strip().partition("/")
        plural, dot, group = resource.partition(".")
        if not plural or (dot and not group) or (slash and not subresource):
            raise Failure(f"{text!r} is not a resource", "write it as pods, pods/log or deployments.apps")
        key = "" if group == "core" else group if dot else "*"
        by_group.setdefault(key, []).append(plural + slash + subresource)
    found: list[JSON] = []
    for group, resources in by_group.items():
        rule: Object = {"verbs": list(order.verbs), "apiGroups": [group], "resources": resources}
        if order.namespaces:
            rule["namespaces"] = list(order.namespaces)
        found.append(rule)
    return found


def wanted(order: Order, name: str, now: datetime) -> Object:
    """The Pass to create."""
    where: Object = {"selector": _selector(order.selector)} if order.selector else {"names": list(order.clusters)}
    return {
        "apiVersion": "access.karpor.io/v1beta1",
        "kind": "Pass",
        "metadata": {"name": name, "annotations": {REQUEST_OF: name}},
        "spec": {
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": order.user}],
            "clusters": where,
            "rules": rules(order),
            "identity": {"mode": "Impersonate" if order.impersonate else "Gateway"},
            "notAfter": durations.rfc3339(now + timedelta(seconds=order.seconds)),
        },
    }


def title(order: Order) -> str:
    """The name of Pass and CSR: the one asked for, else one made of the user that nobody has yet."""
    stem = re.sub(r"[^a-z0-9]+", "-", order.user.lower()).strip("-")[:40].strip("-") or "pass"
    return order.name or f"{stem}-{secrets.token_hex(3)}"


def _request(order: Order, key: ec.EllipticCurvePrivateKey) -> bytes:
    if not all(1 <= len(text) <= _LONGEST for text in (order.user, *order.groups)):
        raise Failure(f"a user and each group have 1 to {_LONGEST} characters, or no certificate can carry them")
    try:
        names = [x509.NameAttribute(NameOID.COMMON_NAME, order.user)]
        names += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in order.groups]
        built = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names)).sign(key, hashes.SHA256())
    except ValueError as error:
        raise Failure("no certificate can carry this user and these groups: they are no Unicode text") from error
    return built.public_bytes(serialization.Encoding.PEM)


def _certificate(gateway: client.Gateway, order: Order, name: str, request: bytes) -> bytes:
    """Approve the CSR `name` and wait for its certificate (PEM)."""
    current = gateway.create(
        client.REQUESTS,
        {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"name": name, "annotations": {PASS_OF: name}},
            "spec": {
                "request": base64.b64encode(request).decode(),
                "signerName": SIGNER,
                "usages": ["client auth"],
                "expirationSeconds": max(_SHORTEST, order.seconds),
            },
        },
    )
    _conclude(gateway, current, "Approved", "IssuedByAdministrator", "issued by onepass pass issue")

    def settled(obj: Object) -> bool:
        kinds = {c.get("type") for c in clusterviews.conditions(obj)}
        return bool(meta.section(obj, "status").get("certificate")) or bool(kinds & {"Denied", "Failed"})

    signed = gateway.wait(client.REQUESTS, name, settled, CERTIFICATE_SECONDS)
    if signed is None:
        raise Failure(f"no certificate came within {CERTIFICATE_SECONDS:.0f} s", "see what the gateway logs")
    certificate = base64.b64decode(meta.text(meta.section(signed, "status"), "certificate"))
    if not certificate:
        why = next(
            (meta.text(c, "message") for c in clusterviews.conditions(signed) if c.get("type") != "Approved"), ""
        )
        raise Failure(f"the certificate was not issued: {why}")
    return certificate


def _conclude(gateway: client.Gateway, request: Object, kind: str, reason: str, message: str) -> None:
    """Add a condition through /approval, as `kubectl certificate approve` does; again when somebody else wrote."""
    name = meta.name(request)
    for _ in range(5):
        conditions: list[JSON] = [c for c in clusterviews.conditions(request) if c.get("type") != kind]
        conditions.append({"type": kind, "status": "True", "reason": reason, "message": message})
        status = meta.section(request, "status") | {"conditions": conditions}
        try:
            gateway.replace(f"{client.REQUESTS}/{name}/approval", request | {"status": status})
        except Refused as error:
            if error.code != 409:
                raise
            request = gateway.get(f"{client.REQUESTS}/{name}")
        else:
            return
    raise Failure(f"the certificate signing request {name} changes too often", "try again")


def _drop(gateway: client.Gateway, path: str) -> None:
    # The failure that led here is the one to tell.
    with suppress(Failure):
        gateway.delete(path)


def issue(gateway: client.Gateway, order: Order, now: datetime, made: ExitStack) -> Issued:
    """Everything up to the kubeconfig's content. `made` gets what undoes each step; the caller keeps or unwinds it."""
    clusters = chosen(gateway, order)
    name = title(order)
    segment = client.segment(name)
    granted = wanted(order, name, now)
    key = ec.generate_private_key(ec.SECP256R1())
    request = _request(order, key)
    if order.name and _taken(gateway, segment):
        raise Failure(f"there is a pass {name} already", "choose another --name, or leave it out")
    made.callback(_drop, gateway, f"{client.REQUESTS}/{segment}")
    certificate = _certificate(gateway, order, name, request)
    made.callback(_drop, gateway, f"{client.PASSES}/{segment}")
    granted = gateway.create(client.PASSES, granted)
    ends = x509.load_pem_x509_certificate(certificate).not_valid_after_utc
    own = "onepass" if "onepass" not in clusters else "onepass-gateway"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    entry = kubeconfig.Entry(gateway.url, gateway.ca, order.user, certificate, private)
    document = kubeconfig.document(entry, clusters, gateway=own)
    if len(order.namespaces) == 1:
        _start_in(document, order.namespaces[0], own)
    until = min(ends, now + timedelta(seconds=order.seconds))
    return Issued(granted, clusters, until, kubeconfig.dump(document), (*clusters, own))


def _taken(gateway: client.Gateway, segment: str) -> bool:
    for path in (client.PASSES, client.REQUESTS):
        with suppress(Refused):
            gateway.get(f"{path}/{segment}")
            return True
    return False


def _start_in(document: Object, namespace: str, own: str) -> None:
    """A pass for one namespace begins there: without that, kubectl would ask for `default` and be refused."""
    contexts = document["contexts"]
    for context in contexts if isinstance(contexts, list) else []:
        if isinstance(context, dict) and context.get("name") != own:
            meta.section(context, "context")["namespace"] = namespace


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a revocation took away; `certificate` says what became of the certificate."""

    before: Object
    already: bool
    certificate: str


def revoke(gateway: client.Gateway, name: str) -> Revoked:
    """Suspend the Pass, then revoke the certificate that was issued with it. Doing it twice changes nothing."""
    path = f"{client.PASSES}/{client.segment(name)}"
    before = gateway.get(path)
    already = meta.section(before, "spec").get("suspended") is True
    if not already:
        gateway.merge(path, {"spec": {"suspended": True}})
    request_name = meta.annotations(before).get(REQUEST_OF, "")
    if not request_name:
        return Revoked(before, already, "No certificate is known to have been issued with it.")
    try:
        request = gateway.get(f"{client.REQUESTS}/{client.segment(request_name)}")
    except Refused as error:
        if error.code != 404:
            raise
        told = (
            f"The signing request {request_name} is gone, so its certificate cannot be revoked; it grants nothing here."
        )
        return Revoked(before, already, told)
    # Whoever may write passes must not be able to point at another user's certificate.
    if meta.annotations(request).get(PASS_OF) != name:
        return Revoked(before, already, f"The signing request {request_name} is not of this pass; it was left alone.")
    if any(c.get("type") == "Revoked" for c in clusterviews.conditions(request)):
        return Revoked(before, already, "Its certificate was revoked before.")
    _conclude(gateway, request, "Revoked", "PassRevoked", f"pass {name} was revoked")
    return Revoked(before, already, "Its certificate is revoked: it opens nothing any more, whatever other passes say.")
