"""What a look at a member found, when that is believed, and what becomes of `Cluster.status` by it. Pure.

One bad answer is no news of a member, and neither is one good answer of a member that was away: a status changes when
the same was found several times in a row. Whoever watches clusters hears of a member that comes and goes in one second
at most once, and nothing of it reaches the data plane.
"""

import json
import re
from dataclasses import dataclass, replace

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.controllers import conditions, refusals
from onepass.controllers.conditions import Condition
from onepass.gateway import replies
from onepass.registry import credentials

FAILURES = 3  # bad looks in a row before a member that was healthy is told to be unhealthy
REPEATS = 2  # looks in a row that find the same, before anything else is told
_MOST_REPEATS = 16  # of a member that keeps coming and going
_CALM = 40  # good looks in a row, after which it is forgotten that it did
_LATENCY_FACTOR, _LATENCY_LEAST = 2, 10  # told anew when it has changed by both this factor and these milliseconds
_WEIGHT = 0.25  # of the newest latency in the average
_LONGEST_TEXT = 200  # of what a member says, as far as it is worth a place in a sentence
_LONGEST_VERSION = 64
_LONGEST_OF_ENVOY = 2000  # of what Envoy itself says
_CONNECTED = ("BrokenOff", "NoAnswer", "NoCredential", "NotHTTP", "Overloaded")  # Envoy's words for who is there
_CHECK = "check that the endpoint is the API server's own, with its port and path"
_WHERE = "the condition CredentialValid or the log of the gateway says why"
# How Envoy tells what BoringSSL says, such as TLS_error:|26843:SSL routines:OPENSSL_internal:UNKNOWN_CA:TLS_error_end
_ENVOYS_TLS = re.compile(r"TLS_error:\|[^()]*?OPENSSL_internal:(\w+)[^()]*")
_LOOK = "see what its API server logs, and whatever stands before it"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back through Envoy, or from Envoy itself, when it says `why`. `nobody` says that there is none: that
    says nothing of the member."""

    code: int
    body: bytes
    why: str = ""
    nobody: bool = False

    @property
    def unknown(self) -> bool:
        """Envoy has not heard of the member yet."""
        return self.why == replies.NOT_PUBLISHED


@dataclass(frozen=True, slots=True)
class Finding:
    """One look at a member. `reason` is a CamelCase word, `message` a sentence for the administrator.

    `authorized` is None when the member was not asked, or did not say, whether it takes the credential.
    """

    reachable: bool
    healthy: bool
    reason: str
    message: str
    version: str = ""
    alpn: str = ""
    latency_ms: int = 0
    authorized: bool | None = None
    missing: str = ""  # which of several endpoints do not answer, and why


@dataclass(slots=True)
class Standing:
    """What is remembered of a member from look to look."""

    failures: int = 0  # in a row
    repeats: int = 0  # how often in a row the newest was found
    falls: int = 0  # how often it was told to be unhealthy since it last was calm
    latency: float = 0.0  # milliseconds, averaged
    nodes_due: float = 0.0  # when to count its nodes again, by the clock of the event loop
    newest: Finding | None = None
    generation: object = None  # of the Cluster that was looked at

    def begin(self, generation: object) -> None:
        """Look at this generation: what failed before was wanted otherwise, and is no reason to wait for long."""
        if generation != self.generation:
            self.generation, self.failures = generation, 0

    def seen(self, finding: Finding) -> None:
        """Count a look."""
        alike = self.newest is not None and replace(self.newest, latency_ms=finding.latency_ms) == finding
        self.newest = finding
        self.repeats = self.repeats + 1 if alike else 1
        self.failures = 0 if finding.healthy else self.failures + 1
        if finding.healthy:
            self.latency += (finding.latency_ms - self.latency) * (_WEIGHT if self.latency else 1.0)
            if self.repeats >= _CALM:
                self.falls = 0

    def believes(self, cluster: Object) -> bool:
        """Whether the newest finding is told of a cluster, or has to be found again first."""
        if self.newest is None or not told(cluster):
            return self.newest is not None
        if not _healthy(cluster):
            needed = min(_MOST_REPEATS, REPEATS << self.falls) if self.newest.healthy else REPEATS
            return self.repeats >= needed
        if not self.newest.healthy:
            return self.failures >= FAILURES
        return self.repeats >= REPEATS

    def fell(self) -> None:
        """It was healthy, and is told to be unhealthy."""
        self.falls = min(self.falls + 1, 8)


def told(cluster: Object) -> bool:
    """Whether the status tells of the cluster as it is wanted now: a changed spec makes it old."""
    ready = conditions.find(meta.section(cluster, "status").get("conditions"), "Ready")
    generation = meta.section(cluster, "metadata").get("generation")
    return ready is not None and ready.get("observedGeneration") == generation


def _healthy(cluster: Object) -> bool:
    return meta.section(cluster, "status").get("healthy") is True


def verdict(cluster: Object, answer: Answer, alpn: str, latency_ms: int) -> Finding:
    """What an answer to `GET /version` says of a member that a handshake has just succeeded with."""

    def bad(reason: str, message: str, *, reachable: bool = True, authorized: bool | None = None) -> Finding:
        return Finding(reachable, False, reason, message, alpn=alpn, authorized=authorized)

    said = meta.text(parsed(answer.body), "message")
    said = printable(_ENVOYS_TLS.sub(_in_words, said[:_LONGEST_OF_ENVOY]) if answer.why else said)
    if answer.unknown:
        return bad(answer.why, f"the data plane does not know the member; {_WHERE}")
    if answer.why:
        advice = f"; {_LOOK}" if answer.why in ("BrokenOff", "NoAnswer") else ""
        return bad(answer.why, f"{said}{advice}", reachable=answer.why in _CONNECTED)
    if answer.code == 200:
        version = meta.text(parsed(answer.body), "gitVersion")
        if version and len(version) <= _LONGEST_VERSION and version.isprintable():
            return Finding(True, True, "Ready", "the member answers", version, alpn, latency_ms, authorized=True)
        return bad("NotKubernetes", f"/version did not answer as a kube-apiserver does; {_CHECK}")
    if answer.code == 401:
        what = "the stored credential" if credentials.of(cluster) else "whoever brings no credential"
        return bad("Unauthorized", f"the member refuses {what}; {refusals.remedy(cluster)}", authorized=False)
    if answer.code == 403:
        return bad(
            "Forbidden",
            "the stored credential may not read /version; give it system:discovery",
            authorized=False,
        )
    if 300 <= answer.code < 400:
        return bad("Redirects", f"/version answered {answer.code}, a redirect, which is not followed; {_CHECK}")
    what_to_do = _LOOK if answer.code >= 500 or answer.code == 429 else _CHECK
    sentence = f"{f'/version answered {answer.code} {said}'.strip()}; {what_to_do}"
    return bad("Failing", sentence, reachable=answer.code not in (502, 503, 504))


def unanswered(error: OSError, alpn: str, seconds: float) -> Finding:
    """Of a member that a handshake has just succeeded with, and that broke off, or said too little in so long."""
    broken = isinstance(error, ConnectionError)
    why = "it broke off within its answer" if broken else f"nothing complete within {seconds:.0f} s"
    message = f"the member accepts connections but does not answer: {why}; {_LOOK}"
    return Finding(True, False, "BrokenOff" if broken else "NoAnswer", message, alpn=alpn)


def applied(cluster: Object, status: Object, finding: Finding, now: float) -> Object:
    """The status of a cluster with a finding in it; equal to what was there when nothing has changed.

    `status` is the newest one; what else the cluster says is what was looked at.
    """
    new = dict(status)
    new["healthy"] = finding.healthy
    generation = meta.section(cluster, "metadata").get("generation")
    observed = generation if isinstance(generation, int) else None
    made = [replace(each, generation=observed) for each in _conditions(cluster, finding)]
    new["conditions"] = conditions.merged(status.get("conditions"), now, *made)
    if finding.version:
        new["version"] = finding.version
    if finding.alpn:
        new["alpn"] = finding.alpn
    return new


def _conditions(cluster: Object, finding: Finding) -> tuple[Condition, ...]:
    reachable = Condition("Reachable", finding.reachable, finding.reason, finding.message)
    if finding.reachable:
        reachable = Condition("Reachable", True, "Connected", "the API server is there")
    if finding.reachable and finding.missing:
        reachable = Condition("Reachable", True, "SomeEndpointsUnreachable", finding.missing)
    return (
        reachable,
        _authorized(cluster, finding),
        Condition("Ready", finding.healthy, finding.reason, finding.message),
    )


def _authorized(cluster: Object, finding: Finding) -> Condition:
    credential = credentials.of(cluster)
    if finding.authorized is False:
        return Condition("Authorized", False, finding.reason, finding.message)
    if not credential:
        return Condition("Authorized", None, "NoCredential", "no credential is stored; the member sees nobody")
    if finding.authorized:
        return Condition("Authorized", True, "Accepted", "the member takes the stored credential")
    return Condition("Authorized", None, finding.reason, "the member has not said whether it takes the credential")


def as_it_was(status: Object) -> Object:
    return status


def with_latency(status: Object, latency: float) -> Object:
    """The status with an average latency in it; as it was unless that has changed by much: a quiet fleet writes
    nothing."""
    new, old = max(1, round(latency)), status.get("latency")
    before = int(old[:-2]) if isinstance(old, str) and old[:-2].isdigit() else 0
    close = abs(new - before) < _LATENCY_LEAST or before / _LATENCY_FACTOR <= new <= before * _LATENCY_FACTOR
    return status if before and close else {**status, "latency": f"{new}ms"}


def with_nodes(status: Object, nodes: int | None) -> Object:
    """The status with a number of nodes; None takes it away, as of a member that does not tell (any more)."""
    if nodes is None:
        return {name: value for name, value in status.items() if name != "nodes"}
    return {**status, "nodes": nodes}


@dataclass(frozen=True, slots=True)
class Page:
    """How many nodes a list tells of; `further` is where it goes on, when it does not say how many are left."""

    nodes: int
    further: str = ""


def nodes(answer: Answer) -> Page | None:
    """Of a list of nodes that may have been cut, by `remainingItemCount` and `continue` of meta/v1 ListMeta."""
    listed = parsed(answer.body) if answer.code == 200 else {}
    items, about = listed.get("items"), meta.section(listed, "metadata")
    if not isinstance(items, list):
        return None
    rest = about.get("remainingItemCount")
    if rest is None:
        return Page(len(items), meta.text(about, "continue"))
    return Page(len(items) + rest) if isinstance(rest, int) and 0 <= rest < 1 << 31 else None


def parsed(content: bytes) -> Object:
    """The JSON object that a member answered with; empty for anything else."""
    try:
        found: JSON = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _in_words(found: re.Match[str]) -> str:
    return found[1].lower().replace("_", " ")


def printable(text: str) -> str:
    """What a member says, as far as it is worth a place in a sentence."""
    return "".join(c for c in text if c.isprintable())[:_LONGEST_TEXT]
