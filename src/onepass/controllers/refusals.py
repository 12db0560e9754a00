"""A member refuses the credential that it is reached by: when to get another one, once, and then ever less often."""

import shlex
from dataclasses import dataclass, field

from onepass.api import meta
from onepass.api.meta import Object
from onepass.controllers import conditions, feed
from onepass.controllers.loop import backoff
from onepass.registry import credentials

_REFUSED, _KIND = "Unauthorized", "Ready"  # the reason and the condition, as the prober tells


def refuses(cluster: Object) -> bool:
    """Whether the prober was last answered 401 by the member, with the credential that is stored now."""
    told = _told(cluster)
    return told.get("status") == "False" and told.get("reason") == _REFUSED


def takes(cluster: Object) -> bool:
    """Whether the member was last found to be well, with the credential that is stored now."""
    return _told(cluster).get("status") == "True"


def remedy(cluster: Object) -> str:
    """What to do about a credential of no use: a command to type that works for this member as it is registered."""
    held = credentials.of(cluster)
    if held.get("type") == credentials.OIDC:
        return "check as whom its credential program logs in, and that the member knows that user"
    what = "a new credential" if held else "one"
    return f"give the gateway {what}: onepass cluster rotate {shlex.quote(meta.name(cluster))} --kubeconfig FILE"


def version(cluster: Object) -> object:
    """What a controller that heeds this has to follow (controllers.feed)."""
    return feed.generation(cluster), refuses(cluster), takes(cluster)


def _told(cluster: Object) -> Object:
    found = conditions.find(meta.section(cluster, "status").get("conditions"), _KIND) or {}
    return found if found.get("observedGeneration") == feed.generation(cluster) else {}


@dataclass(slots=True)
class Patience:
    """When each member may be given another credential because it refuses its own. Seconds; the pause doubles."""

    first: float
    longest: float
    _tries: dict[str, tuple[int, float]] = field(default_factory=dict)

    def wait(self, name: str, now: float, since: float) -> float:
        """How long still; 0 when it is time. `since` is when the refused credential came to be, 0 when not known."""
        tries, last = self._tries.get(name, (0, since))
        if now < last:  # the clock was set back: who waits for it to come there again may wait for years
            return 0.0
        return max(0.0, last + backoff(self.first, self.longest, tries + 1) - now)

    def tried(self, name: str, now: float) -> None:
        self._tries[name] = (self.tries(name) + 1, now)

    def tries(self, name: str) -> int:
        return self._tries.get(name, (0, 0.0))[0]

    def forget(self, name: str) -> None:
        """The member takes its credential, or is gone."""
        self._tries.pop(name, None)
