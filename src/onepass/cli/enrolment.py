"""Registering member clusters, one or a whole kubeconfig, and telling what the prober finds."""

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.cli import client, clusterviews, foothold
from onepass.cli.failure import Failure, Refused
from onepass.cli.memberclient import Member
from onepass.cli.memberconfig import Access, Kubeconfig

# The prober's longest look is a handshake of 5 s, 5 s for Envoy to learn of the member, and a request of 10 s.
VERDICT_SECONDS = 25.0
UNPUBLISHED = "NotPublished"  # Envoy has not heard of the member yet, which says nothing of it
_PROXY = "a kubeconfig has proxyURL as proxy-url, and --proxy-url goes before it: mend that"
# By the prober's reasons, whose sentences are about fields of a Cluster that is not kept.
_HINTS = {
    "Unauthorized": "log in to that cluster anew, until kubectl works with this context",
    "CertificateInvalid": (
        "a kubeconfig has caBundle as certificate-authority-data, and serverName as tls-server-name: mend that"
    ),
    **dict.fromkeys(("ProxyForbidden", "ProxyNotFound", "ProxyUnauthorized", "ProxyUnreachable"), _PROXY),
}
_LABEL = re.compile(r"([^=\s]+)=([^=\s]*)")
_LONGEST_NAME = 63

Outcome = Literal["healthy", "registered", "skipped", "unhealthy", "failed"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What the person said about a cluster beside how it is reached."""

    provider: str = ""
    display_name: str = ""
    description: str = ""
    labels: Sequence[str] = ()
    impersonate: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one context; `why` is a sentence."""

    context: str
    cluster: str
    outcome: Outcome
    why: str = ""
    version: str = ""
    hint: str = ""  # what to do, of one that is not kept

    @property
    def good(self) -> bool:
        return self.outcome not in ("unhealthy", "failed")

    def plain(self) -> Object:
        return {
            "context": self.context,
            "cluster": self.cluster,
            "outcome": self.outcome,
            "reason": self.why,
            "version": self.version,
        }


def pairs(labels: Iterable[str]) -> dict[str, JSON]:
    """`k=v` texts as a mapping. Raises Failure."""
    found: dict[str, JSON] = {}
    for label in labels:
        match = _LABEL.fullmatch(label)
        if match is None:
            raise Failure(f"{label!r} is not a label", "write it as key=value, for example --label env=prod")
        found[match[1]] = match[2]
    return found


def cluster(name: str, access: Access, wish: Wish) -> Object:
    """The Cluster object to create."""
    spec: Object = {"provider": wish.provider, "displayName": wish.display_name or name}
    if wish.description:
        spec["description"] = wish.description
    spec["access"] = access.spec() | ({"identity": "Impersonate"} if wish.impersonate else {})
    return {
        "apiVersion": "cluster.karpor.io/v1beta1",
        "kind": "Cluster",
        "metadata": {"name": name, "labels": pairs(wish.labels)},
        "spec": spec,
    }


def leads_back(gateway: client.Gateway, server: str) -> bool:
    """Whether a member at this server would be the gateway itself, or what it carries already."""
    return server == gateway.url or server.startswith(f"{gateway.url}/")


def register(gateway: client.Gateway, obj: Object, *, dry_run: bool = False) -> Object:
    """Create the Cluster, or find out whether that would do; nothing remains when the API refuses. Raises Failure."""
    name = meta.name(obj)
    try:
        return gateway.create(f"{client.CLUSTERS}?dryRun=All" if dry_run else client.CLUSTERS, obj)
    except Refused as error:
        if error.code == 409:
            raise registered_already(find(gateway, name) or obj) from error
        raise


def registered_already(cluster: Object) -> Failure:
    name, command = shlex.quote(meta.name(cluster)), "remove {}"
    if foothold.JOINED in meta.annotations(cluster):
        command = "leave {} --kubeconfig FILE"
    hint = f"choose another name, or take that one away first: onepass cluster {command.format(name)}"
    return Failure(f"a cluster {meta.name(cluster)} is registered already", hint)


def find(gateway: client.Gateway, name: str) -> Object | None:
    """The Cluster, None when there is none."""
    try:
        return gateway.get(f"{client.CLUSTERS}/{client.segment(name)}")
    except Refused as refused:
        if refused.code != 404:
            raise
        return None


def registered(gateway: client.Gateway, name: str) -> Object:
    """The Cluster. Raises Failure when there is none."""
    found = find(gateway, name)
    if found is None:
        raise Failure(f"there is no cluster {name}", "see which there are: onepass cluster list")
    return found


def same_place(cluster: Object, member: Member) -> None:
    """Raises Failure when a kubeconfig leads elsewhere than a Cluster."""
    places = clusterviews.endpoints(cluster)
    if member.url.rstrip("/") not in places:
        at = ", ".join(places)
        raise Failure(
            f"context {member.context} leads to {member.url}, and {meta.name(cluster)} is registered at {at}",
            "choose the context of that member with --context",
        )


def verdict(gateway: client.Gateway, name: str, seconds: float = VERDICT_SECONDS) -> Object | None:
    """The Cluster once the prober has looked at it, None when it has not within `seconds`."""
    return gateway.wait(client.CLUSTERS, name, looked_at, seconds)


def looked_at(cluster: Object) -> bool:
    """Whether the prober's word is about the member, and not that it cannot be asked yet."""
    found = clusterviews.health(cluster)
    return found.known and found.reason != UNPUBLISHED


def judged(result: Result, found: Object | None, credential: str = "") -> Result:
    """A registered cluster's result with the prober's word, told of one that is not kept when it is bad.

    `credential` is how a sentence calls what it was registered with; by default it is the context's.
    """
    if found is None:
        why = f"it has not looked at it within {VERDICT_SECONDS:.0f} s"
        return replace(result, outcome="unhealthy", why=why, hint="see how the gateway is: onepass status")
    health = clusterviews.health(found)
    version = meta.text(meta.section(found, "status"), "version")
    if health.healthy:
        return replace(result, outcome="healthy", why=health.why, version=version)
    why, hint = health.why, _HINTS.get(health.reason, "")
    if health.reason == "Unauthorized":  # the prober's advice is for a cluster that is there
        why = f"the member refuses {credential or f'the credential of context {result.context}'}"
    return replace(result, outcome="unhealthy", why=why, hint=hint)


def settled(gateway: client.Gateway, result: Result, found: Object | None) -> Result:
    """As `judged`, and what is not healthy is taken away again: a mended kubeconfig can be registered anew."""
    result = judged(result, found)
    if not result.good:
        gateway.delete(f"{client.CLUSTERS}/{client.segment(result.cluster)}")
    return result


def named(context: str, taken: Iterable[str] = ()) -> str:
    """A DNS label made of a context's name, with `-2`, `-3` ... while it is taken. Raises Failure."""
    name = re.sub(r"[^a-z0-9]+", "-", context.lower()).strip("-")[:_LONGEST_NAME].strip("-")
    if not name:
        raise Failure(
            f"no name for a cluster can be made of {context!r}",
            "register it by a name that you choose: "
            f"onepass cluster add NAME --kubeconfig FILE --context {shlex.quote(context)}",
        )
    used = set(taken)
    if name not in used:
        return name
    number = 2
    while (candidate := f"{name[: _LONGEST_NAME - 4].rstrip('-')}-{number}") in used:
        number += 1
    return candidate


@dataclass(slots=True)
class Import:
    """Every context of one kubeconfig. What is registered already, at the same endpoint, is left as it is."""

    gateway: client.Gateway
    config: Kubeconfig
    wish: Wish
    now: datetime

    def run(
        self, wait: bool, progress: Callable[[str, int], AbstractContextManager[Callable[[str], None]]]
    ) -> list[Result]:
        """One result a context, in the order of the file; `progress` shows a bar."""
        contexts = self.config.contexts
        registered = {meta.name(obj): clusterviews.endpoint(obj) for obj in self.gateway.list(client.CLUSTERS)}
        results: list[Result] = []
        first: dict[str, str] = {}  # server -> the context by which it was taken
        with progress("registering", len(contexts)) as step:
            for context in contexts:
                results.append(self._one(context, registered, first))
                step(context)
        if not wait:
            return results
        waiting = sum(result.outcome == "registered" for result in results)
        with progress("waiting for the first probe", waiting) as step:
            for at, result in enumerate(results):
                if result.outcome == "registered":
                    results[at] = settled(self.gateway, result, verdict(self.gateway, result.cluster))
                    step(result.cluster)
        return results

    def _one(self, context: str, registered: dict[str, str], first: dict[str, str]) -> Result:
        server = self.config.server(context)
        if leads_back(self.gateway, server):
            return Result(context, "", "skipped", "it leads to this gateway itself")
        if server in first:
            return Result(context, "", "skipped", f"the same cluster as context {first[server]}")
        known = next((name for name, endpoint in registered.items() if endpoint == server), "")
        if known:
            return Result(context, known, "skipped", "registered already")
        try:
            name = named(context, registered)
            access = self.config.read(context, now=self.now, name=name)
            register(self.gateway, cluster(name, access, replace(self.wish, display_name=context)))
        except Failure as error:
            # In a table: the hint's lines, some of which are commands, in one.
            return Result(context, "", "failed", "; ".join(filter(None, (error.what, " ".join(error.hint.split())))))
        registered[name] = server
        first[server] = context
        return Result(context, name, "registered", "; ".join(access.warnings))
