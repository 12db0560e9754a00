"""What `explain` and `who-can` ask the gateway, and how they tell what came of it."""

import re
import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from onepass.access import holding
from onepass.access.attributes import Attributes
from onepass.access.compile import Objects
from onepass.access.explaining import Answer, Question, Right, smallest
from onepass.access.identity import AUTHENTICATED, Identity
from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.cli import client, durations
from onepass.cli.client import Gateway
from onepass.cli.failure import Failure, Refused
from onepass.cli.output import safe

_SELF_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_RBAC = "/apis/rbac.authorization.k8s.io/v1"
# What decides, by Resource.key.
_PATHS = {
    "clusters.cluster.karpor.io": client.CLUSTERS,
    "passes.access.karpor.io": client.PASSES,
    **{
        f"{plural}.rbac.authorization.k8s.io": f"{_RBAC}/{plural}"
        for plural in ("clusterroles", "clusterrolebindings", "roles", "rolebindings")
    },
}
_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):[^:]+")
COLUMNS = ("WHO", "BY", "UNTIL", "THE CLUSTER SEES")  # on the gateway itself only the first two


def objects(gateway: Gateway) -> Objects:
    """Everything that decides."""
    return {key: gateway.list(path) for key, path in _PATHS.items()}


def identity(user: str, groups: Sequence[str]) -> Identity:
    """A user with the groups that everybody of this sort is in."""
    account = _ACCOUNT.fullmatch(user)
    more = ("system:serviceaccounts", f"system:serviceaccounts:{account[1]}") if account else ()
    return Identity(user, tuple(dict.fromkeys((*groups, *more, AUTHENTICATED))))


def question(
    gateway: Gateway,
    who: Identity,
    cluster: str,
    verb: str,
    resource: str,
    namespace: str,
    name: str,
    subresource: str,
) -> Question:
    """The question, with the resource as the API knows it. Raises Failure for a cluster that is not there."""
    base = ""
    if cluster:
        try:
            gateway.get(f"{client.CLUSTERS}/{client.segment(cluster)}")
        except Refused as refused:
            if refused.code != 404:
                raise
            raise Failure(f"there is no cluster {cluster}", "see them with: onepass cluster list") from refused
        base = f"{client.CLUSTERS}/{client.segment(cluster)}/proxy"
    verb = _verb(verb, cluster)
    if resource.startswith("/"):
        return Question(who, cluster, Attributes(verb, resource, False))
    plain, _, sub = resource.partition("/")
    plural, _, group = plain.partition(".")
    if not group and verb == "impersonate":  # about what no cluster lists among its resources
        group = "authentication.k8s.io" if plural in ("uids", "userextras") else ""
    elif not group:
        plural, group = _known(gateway, base, plural)
    asked = Attributes(verb, "", True, group, "", plural, sub or subresource, namespace, name)
    return Question(who, cluster, asked)


def _verb(verb: str, cluster: str) -> str:
    """As rules have it. Raises Failure for one that no Pass can name; the gateway's own API has more."""
    verb = verb.lower()
    if cluster and verb not in holding.VERBS | holding.METHODS:
        raise Failure(f"{verb} is no verb", f"on a cluster there are {', '.join(sorted(holding.VERBS))}")
    return verb


# What everybody means by these, where a member cannot be asked.
_GROUPS = {
    "apps": ("daemonsets", "deployments", "replicasets", "statefulsets"),
    "batch": ("cronjobs", "jobs"),
    "networking.k8s.io": ("ingresses", "networkpolicies"),
    "cluster.karpor.io": ("clusters",),
    "access.karpor.io": ("passes",),
    "rbac.authorization.k8s.io": ("clusterroles", "clusterrolebindings", "roles", "rolebindings"),
}


def _known(gateway: Gateway, base: str, word: str) -> tuple[str, str]:
    """The plural and the group of what somebody called by its plural, its singular or a short name."""
    try:
        for group, path in _versions(gateway, base):
            for found in _listed(gateway.get(path), "resources"):
                names = {found.get("name"), found.get("singularName"), *_texts(found.get("shortNames"))}
                if word in names and "/" not in meta.text(found, "name"):
                    return meta.text(found, "name"), group
    except Failure:
        return word, next((group for group, plurals in _GROUPS.items() if word in plurals), "")
    where = "that cluster" if base else "the gateway"
    raise Failure(f"{where} knows no resource {word}", "name it by its plural, with its group: deployments.apps")


def _versions(gateway: Gateway, base: str) -> Iterator[tuple[str, str]]:
    yield "", f"{base}/api/v1"
    for group in _listed(gateway.get(f"{base}/apis"), "groups"):
        preferred = meta.text(meta.section(group, "preferredVersion"), "groupVersion")
        yield meta.text(group, "name"), f"{base}/apis/{preferred}"


def _listed(obj: Object, key: str) -> list[Object]:
    value = obj.get(key)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _texts(value: JSON) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def asked_words(asked: Question) -> str:
    """`delete pods "web-1" in namespace web on cluster prod`."""
    about = asked.attributes
    what = about.path
    if about.is_resource:
        parent = f"{about.resource}.{about.group}" if about.group else about.resource
        what = f"{parent}/{about.subresource}" if about.subresource else parent
    name = f' "{about.name}"' if about.name else ""
    inside = f" in namespace {about.namespace}" if about.namespace else ""
    return f"{about.verb} {what}{name}{inside} on {f'cluster {asked.cluster}' if asked.cluster else 'the gateway'}"


def sentences(asked: Question, answer: Answer, now: float) -> Iterator[str]:
    """The answer for people, as markup."""
    user, what = f"[bold]{safe(asked.identity.user)}[/]", safe(asked_words(asked))
    if answer.allowed:
        yield f"[green]Yes[/], {user} may {what}:"
        for each in answer.rights:
            yield f"  {safe(_kind(each.origin))} gives it to {safe(each.through)}{safe(_until(each, now))}."
        modes = {each.mode for each in answer.rights}
        if asked.cluster and modes == {"Impersonate"}:
            yield "The cluster sees the user by name, and its own rules apply on top."
        return
    yield f"[red]No[/], {user} may not {what}."
    for near in answer.near:
        yield f"  {safe(_kind(near.origin))} would allow it, but {safe(near.why)}."
    for each in answer.groups:
        if each.through not in {f"Group {group}" for group in asked.identity.groups}:
            yield f"  {safe(_kind(each.origin))} gives it to {safe(each.through)}: is the user in it?"


def may_issue(gateway: Gateway) -> bool:
    """Whether who asks may have certificates issued, which `onepass pass issue` does beside making a Pass."""
    wanted: Object = {
        "group": "certificates.k8s.io",
        "resource": "signers",
        "name": "kubernetes.io/kube-apiserver-client",
        "verb": "approve",
    }
    review = gateway.create(
        _SELF_REVIEWS,
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": wanted},
        },
    )
    return meta.section(review, "status").get("allowed") is True


def remedy(asked: Question, issuing: bool) -> Iterator[str]:
    """What to type, and what to apply, so that it is allowed and nothing else is. `issuing`: who asks may issue."""
    import yaml

    made = smallest(asked, _title(asked))
    commands = [*_commands(asked, _title(asked))] if issuing or not asked.cluster else []
    yield "The least that would allow it:" if commands else "The least that would allow it, with kubectl apply -f FILE:"
    for command in commands:
        yield f"  {safe(command)}"
    if commands:
        yield "or, with kubectl apply -f FILE:"
    for line in yaml.safe_dump_all(made, sort_keys=False).splitlines():
        yield f"  {safe(line)}"


def _commands(asked: Question, name: str) -> Iterator[str]:
    about, user = asked.attributes, shlex.quote(asked.identity.user)
    what = f"{about.resource}.{about.group}" if about.group else about.resource
    what = shlex.quote(f"{what}/{about.subresource}" if about.subresource else what)
    inside = f" --namespace {shlex.quote(about.namespace)}" if about.namespace else ""
    verb = shlex.quote(about.verb)
    if asked.cluster:
        if about.is_resource and not about.name and not asked.identity.user.startswith("system:"):
            where = f"--cluster {shlex.quote(asked.cluster)}"
            yield f"onepass pass issue {user} {where} --verbs {verb} --resource {what}{inside} -o FILE"
        return
    kind = "role" if about.namespace else "clusterrole"
    target = f"--resource={what}" if about.is_resource else f"--non-resource-url={shlex.quote(about.path)}"
    named = f" --resource-name={shlex.quote(about.name)}" if about.name else ""
    account = _ACCOUNT.fullmatch(asked.identity.user)
    subject = f"--serviceaccount={user.removeprefix('system:serviceaccount:')}" if account else f"--user={user}"
    yield f"kubectl create {kind} {name} --verb={verb} {target}{named}{inside}"
    yield f"kubectl create {kind}binding {name} --{kind}={name} {subject}{inside}"


def _title(asked: Question) -> str:
    """A name for what would be made: who and what."""
    words = (asked.identity.user, asked.attributes.verb, asked.attributes.qualified or asked.attributes.path)
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")[:60].strip("-")


def rows(found: Sequence[Right], now: float) -> list[tuple[str, ...]]:
    return [
        (safe(each.through), safe(_kind(each.origin)), safe(_end(each, now) or "no end"), safe(_sees(each.mode)))
        for each in found
    ]


def _sees(mode: str) -> str:
    return "the user" if mode == "Impersonate" else "the gateway"


def _kind(origin: str) -> str:
    return origin.replace("/", " ", 1)


def _end(each: Right, now: float) -> str:
    if each.until is None:
        return ""
    return durations.clock(datetime.fromtimestamp(each.until, UTC), datetime.fromtimestamp(now, UTC))


def _until(each: Right, now: float) -> str:
    end = _end(each, now)
    return f", until {end}" if end else ""


def right(each: Right) -> Object:
    told: Object = {"by": each.origin, "subject": each.through, "identity": each.mode}
    if each.until is not None:
        told["until"] = durations.rfc3339(datetime.fromtimestamp(each.until, UTC))
    return told


def told(asked: Question, answer: Answer) -> Object:
    """The answer for programs."""
    value: Object = {"allowed": answer.allowed, "rights": [right(each) for each in answer.rights]}
    if not answer.allowed:
        value["near"] = [{"by": near.origin, "why": near.why} for near in answer.near]
        value["groups"] = [right(each) for each in answer.groups]
        value["smallest"] = [*smallest(asked, _title(asked))]
    return value
