"""The sentences of a refusal: what was refused, in Kubernetes' words, and how to get it.

gateway/gatekeeper.lua builds the same sentences; what a user reads must not depend on who refused.
"""

import re

from onepass.access.attributes import Attributes

_PLAIN = re.compile(r"[A-Za-z0-9._:/@+-]+")  # what may stand in a command that a person will paste into a shell

NEVER_GROUPS = 'groups that begin with "system:" are never impersonated'
NEVER_ANONYMOUS = "the anonymous user is never impersonated"
NEVER_USERS = 'the member would have to see the user, and users that begin with "system:" are never impersonated'
BOUNDED = "the cluster sees the user for some of these, and its own rules may allow less"
NO_USER = "impersonating a group, a uid or an extra field needs a user to impersonate as well"


def no_cluster(cluster: str) -> str:
    return f'clusters.cluster.karpor.io "{cluster}" not found'


def denied(user: str, cluster: str, attributes: Attributes, why: str = "") -> str:
    """Why a request to a member is refused; `why` replaces the advice where no pass would help.

    Wording: k8s.io/apiserver/pkg/endpoints/handlers/responsewriters, with the cluster named.
    """
    advice = why or _advice(user, cluster, attributes)
    if not attributes.is_resource:
        path = f'User "{user}" cannot {attributes.verb} path "{attributes.path}"'
        return f'forbidden: {path} of cluster "{cluster}": {advice}'
    group = attributes.group
    what = f"{attributes.resource}.{group}" if group else attributes.resource
    named = f'{what} "{attributes.name}"' if attributes.name else what
    where = f'in the namespace "{attributes.namespace}"' if attributes.namespace else "at the cluster scope"
    return (
        f'{named} is forbidden: User "{user}" cannot {attributes.verb} resource "{attributes.qualified}" '
        f'in API group "{group}" {where} of cluster "{cluster}": {advice}'
    )


def _advice(user: str, cluster: str, attributes: Attributes) -> str:
    words = (user, cluster, attributes.verb, attributes.qualified, attributes.namespace or "-")
    # No certificate is issued to a name that begins with "system:", so that command would be refused.
    known = attributes.is_resource and not user.startswith("system:")
    if not known or not all(_PLAIN.fullmatch(word) for word in words):
        return "ask an administrator for a pass"
    inside = f" --namespace {attributes.namespace}" if attributes.namespace else ""
    return (
        f"ask an administrator for a pass: onepass pass issue {user} --cluster {cluster} "
        f"--verbs {attributes.verb} --resource {attributes.qualified}{inside} -o FILE"
    )
