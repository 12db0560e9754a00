"""Admission of CertificateSigningRequests: who may ask for whose certificate, approve it, and sign it.

The rules are those of Kubernetes' CertificateApproval and CertificateSigning plugins
(https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#authorization), and one of our
own: a request for a certificate in another's name needs the right to approve it.
"""

from onepass.access.attributes import Attributes
from onepass.access.identity import Identity
from onepass.api import errors, meta
from onepass.api.meta import Object
from onepass.apiserver.ports import Admission, Attempt, Authorizer
from onepass.pki import authority
from onepass.registry import causes, credentials, rolerules

REQUESTS = "certificatesigningrequests.certificates.k8s.io"
DECISIONS = ("Approved", "Denied", "Revoked")


def admission(authorize: Authorizer) -> Admission:
    async def admit(attempt: Attempt) -> None:
        if attempt.resource.key != REQUESTS or attempt.obj is None:
            return
        signer = meta.text(meta.section(attempt.old or attempt.obj, "spec"), "signerName")
        if attempt.operation == "CREATE":
            if not _asks_for_self(attempt.obj, attempt.identity):
                why = "the certificate would be in the name of another user or group, which takes the right to approve"
                await _require(authorize, attempt, "approve", signer, f"{why} requests")
        elif attempt.subresource == "approval":
            await _require(authorize, attempt, "approve", signer, "user not permitted to approve requests")
        elif attempt.subresource == "status" and attempt.obj.get("status") != (attempt.old or {}).get("status"):
            await _require(authorize, attempt, "sign", signer, "user not permitted to sign requests")
            _leaves_decisions(attempt.obj, attempt.old or {}, attempt)

    return admit


def _leaves_decisions(new: Object, old: Object, attempt: Attempt) -> None:
    """Raises invalid unless what is written through /approval is as it was: who signs does not also decide."""
    before, after = _decisions(old), _decisions(new)
    wrong = [
        causes.forbidden("status.conditions", f'updates may not {what} a condition of type "{kind}"')
        for kind in DECISIONS
        for what, is_so in (
            ("add", kind in after and kind not in before),
            ("modify", kind in after and kind in before and after[kind] != before[kind]),
            ("remove", kind in before and kind not in after),
        )
        if is_so
    ]
    if wrong:
        raise errors.invalid(attempt.resource, attempt.name, wrong)


def _decisions(obj: Object) -> dict[str, Object]:
    listed = rolerules.objects(meta.section(obj, "status").get("conditions"))
    return {meta.text(each, "type"): each for each in listed if each.get("type") in DECISIONS}


def _asks_for_self(obj: Object, identity: Identity) -> bool:
    """Whether the names in the request are the requester's own. One that cannot be read is refused later, by name."""
    try:
        asked = authority.parse_request(credentials.pem(meta.text(meta.section(obj, "spec"), "request")))
    except (ValueError, authority.RequestError):
        return True
    return asked.common_name == identity.user and set(asked.organizations) <= set(identity.groups)


async def _require(authorize: Authorizer, attempt: Attempt, verb: str, signer: str, why: str) -> None:
    domain = signer.partition("/")[0]
    for name in (signer, f"{domain}/*"):
        asked = Attributes(verb, "", True, "certificates.k8s.io", "v1", "signers", "", "", name)
        if (await authorize.allows(attempt.identity, asked)).allowed:
            return
    told = f'{REQUESTS} "{attempt.name}" is forbidden: {why} with signerName "{signer}"'
    raise errors.forbidden(told, attempt.resource, attempt.name)
