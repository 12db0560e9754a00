"""Answers to `authentication.k8s.io` and `authorization.k8s.io`: who am I, whose token is this, may they.

https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from onepass.access.attributes import Attributes
from onepass.access.identity import Identity
from onepass.access.policy import Rule
from onepass.api import authentication_v1, authorization_v1, errors, meta
from onepass.api.errors import Cause
from onepass.api.meta import JSON, Object, Resource
from onepass.apiserver.ports import Authorizer, Kindless


@dataclass(frozen=True, slots=True)
class Verified:
    """A token that is good: whose it is, and which of the audiences that were asked for it has."""

    identity: Identity
    audiences: tuple[str, ...]


# A bearer token, and the audiences of who asks (none: this server's own); None for a token that is not good.
Verify = Callable[[str, Sequence[str]], Awaitable[Verified | None]]


def _resource(group: str, kind: str, namespaced: bool = False) -> Resource:
    return Resource(group, "v1", kind, f"{kind.lower()}s", kind.lower(), namespaced)


SELF_SUBJECT = _resource("authentication.k8s.io", "SelfSubjectReview")
TOKEN = _resource("authentication.k8s.io", "TokenReview")
SELF_ACCESS = _resource("authorization.k8s.io", "SelfSubjectAccessReview")
SELF_RULES = _resource("authorization.k8s.io", "SelfSubjectRulesReview")
ACCESS = _resource("authorization.k8s.io", "SubjectAccessReview")
LOCAL_ACCESS = _resource("authorization.k8s.io", "LocalSubjectAccessReview", namespaced=True)


def selves(authorize: Authorizer) -> tuple[Kindless, ...]:
    """The questions that callers ask about themselves."""
    return (
        Kindless(SELF_SUBJECT, authentication_v1.SelfSubjectReview, _who),
        Kindless(SELF_ACCESS, authorization_v1.SelfSubjectAccessReview, _self_access(authorize)),
        Kindless(SELF_RULES, authorization_v1.SelfSubjectRulesReview, _self_rules(authorize)),
    )


def every(authorize: Authorizer, verify: Verify) -> tuple[Kindless, ...]:
    """All six."""
    return (
        *selves(authorize),
        Kindless(TOKEN, authentication_v1.TokenReview, _token(verify)),
        Kindless(ACCESS, authorization_v1.SubjectAccessReview, _access(authorize, ACCESS)),
        Kindless(LOCAL_ACCESS, authorization_v1.LocalSubjectAccessReview, _access(authorize, LOCAL_ACCESS)),
    )


Answer = Callable[[Object, Identity, str], Awaitable[Object]]


def user_info(identity: Identity) -> Object:
    """An identity as `authentication.k8s.io/v1 UserInfo`."""
    told: Object = {"username": identity.user}
    if identity.uid:
        told["uid"] = identity.uid
    if identity.groups:
        told["groups"] = [*identity.groups]
    if identity.extra:
        told["extra"] = {key: [*values] for key, values in identity.extra.items()}
    return told


async def _who(obj: Object, identity: Identity, _namespace: str) -> Object:
    return {**obj, "status": {"userInfo": user_info(identity)}}


def _self_access(authorize: Authorizer) -> Answer:
    async def answer(obj: Object, identity: Identity, _namespace: str) -> Object:
        return await _judged(obj, identity, authorize, SELF_ACCESS)

    return answer


def _access(authorize: Authorizer, resource: Resource) -> Answer:
    async def answer(obj: Object, _identity: Identity, namespace: str) -> Object:
        spec = meta.section(obj, "spec")
        groups, extra = _texts(spec.get("groups")), meta.section(spec, "extra")
        if not meta.text(spec, "user") and not groups:
            raise _invalid(resource, "spec.user", "Required value: at least one of user or group must be specified")
        where = meta.text(meta.section(spec, "resourceAttributes"), "namespace")
        if resource.namespaced and where != namespace:
            told = f'Invalid value: "{where}": must match the namespace of the request'
            raise _invalid(resource, "spec.resourceAttributes.namespace", told)
        about = Identity(
            meta.text(spec, "user"),
            groups,
            meta.text(spec, "uid"),
            {key: _texts(values) for key, values in extra.items()},
        )
        return await _judged(obj, about, authorize, resource)

    return answer


async def _judged(obj: Object, about: Identity, authorize: Authorizer, resource: Resource) -> Object:
    kept = ("namespace",) if resource.namespaced else ()
    if any(value for key, value in meta.section(obj, "metadata").items() if key not in (*kept, "managedFields")):
        told = "must be empty except for namespace" if kept else "must be empty"
        raise _invalid(resource, "metadata", f"Invalid value: {told}")
    verdict = await authorize.allows(about, _attributes(meta.section(obj, "spec"), resource))
    status: Object = {"allowed": verdict.allowed}
    if verdict.reason:
        status["reason"] = verdict.reason
    return {**obj, "status": status}


def _attributes(spec: Object, resource: Resource) -> Attributes:
    """The request in question. Raises invalid unless exactly one of the two kinds of attributes is there."""
    asked, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if isinstance(asked, dict) and path is None:
        for name in ("fieldSelector", "labelSelector"):
            if name in asked:
                _check_selector(meta.section(asked, name), f"spec.resourceAttributes.{name}", resource)
        words = ("group", "version", "resource", "subresource", "namespace", "name")
        return Attributes(meta.text(asked, "verb"), "", True, *(meta.text(asked, word) for word in words))
    if isinstance(path, dict) and asked is None:
        return Attributes(meta.text(path, "verb"), meta.text(path, "path"), False)
    told = "Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified"
    raise _invalid(resource, "spec.resourceAttributes", told)


def _check_selector(selector: Object, field: str, resource: Resource) -> None:
    """A selector narrows what is asked, and RBAC looks at no selector: it only has to be one.

    Rule: k8s.io/kubernetes/pkg/apis/authorization/validation, validateFieldSelectorAttributes.
    """
    raw, listed = meta.text(selector, "rawSelector"), selector.get("requirements")
    wrong: list[Cause] = []
    if raw and listed:
        told = f'Invalid value: "{raw}": may not specified at the same time as requirements'
        wrong.append(Cause("FieldValueInvalid", told, f"{field}.rawSelector"))
    if not raw and not listed:
        told = f"Required value: when {field} is specified, requirements or rawSelector is required"
        wrong.append(Cause("FieldValueRequired", told, f"{field}.requirements"))
    for index, each in enumerate(listed if isinstance(listed, list) else []):
        if isinstance(each, dict):
            wrong += _requirement(each, f"{field}.requirements[{index}]")
    if wrong:
        raise errors.invalid(resource, "", wrong)


def _requirement(given: Object, field: str) -> Iterator[Cause]:
    """What is wrong with one requirement; an operator that is not known is let be, as newer ones may come."""
    operator, values = meta.text(given, "operator"), given.get("values")
    if not given.get("key"):
        yield Cause("FieldValueRequired", "Required value: must be specified", f"{field}.key")
    if operator in ("In", "NotIn") and not values:
        told = "Required value: must be specified when `operator` is 'In' or 'NotIn'"
        yield Cause("FieldValueRequired", told, f"{field}.values")
    if operator in ("Exists", "DoesNotExist") and values:
        told = "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        yield Cause("FieldValueForbidden", told, f"{field}.values")
    if not operator:
        yield Cause("FieldValueRequired", "Required value: must be specified", f"{field}.operator")


def _self_rules(authorize: Authorizer) -> Answer:
    async def answer(obj: Object, identity: Identity, _namespace: str) -> Object:
        namespace = meta.text(meta.section(obj, "spec"), "namespace")
        if not namespace:
            raise errors.bad_request("no namespace on request")
        rules, missing = await authorize.rules(identity, namespace)
        status: Object = {
            "resourceRules": [_resource_rule(rule) for rule in rules if rule.resources],
            "nonResourceRules": [
                {"verbs": _listed(rule.verbs), "nonResourceURLs": [*rule.paths]} for rule in rules if rule.paths
            ],
            "incomplete": bool(missing),
        }
        if missing:
            status["evaluationError"] = missing
        return {**obj, "status": status}

    return answer


def _resource_rule(rule: Rule) -> Object:
    told: Object = {
        "verbs": _listed(rule.verbs),
        "apiGroups": _listed(rule.groups),
        "resources": _listed(rule.resources),
    }
    return {**told, "resourceNames": _listed(rule.names)} if rule.names else told


def _listed(words: frozenset[str]) -> list[JSON]:
    return [*sorted(words)]


def _token(verify: Verify) -> Answer:
    async def answer(obj: Object, _identity: Identity, _namespace: str) -> Object:
        spec = meta.section(obj, "spec")
        token, audiences = meta.text(spec, "token"), _texts(spec.get("audiences"))
        if not token:
            raise errors.bad_request("token is required for TokenReview in authentication")
        verified = await verify(token, audiences)
        status: Object = {"authenticated": verified is not None}
        if verified is None:
            status["error"] = "the token is not good, or not for these audiences"
        else:
            status |= {"user": user_info(verified.identity), "audiences": [*verified.audiences]}
        # The token goes no further than here: what is answered may be logged by the client.
        return {**obj, "spec": {**spec, "token": ""}, "status": status}

    return answer


def _texts(value: JSON) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def _invalid(resource: Resource, field: str, told: str) -> errors.ApiError:
    reason = "FieldValueRequired" if told.startswith("Required") else "FieldValueInvalid"
    return errors.invalid(resource, "", [Cause(reason, told, field)])
