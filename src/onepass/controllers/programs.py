"""Has credential programs run, outside of every request, and keeps what they answer until shortly before it ends.

What a program answers is sealed like every other credential, and used until there is another. When it ends is kept in
memory: after a start each program is asked once. It is also asked when the member refuses what it has answered, as
client-go does on a 401: once, and then ever less often.
"""

import base64
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from onepass.api import meta
from onepass.api.errors import ApiError
from onepass.api.meta import JSON, Object
from onepass.controllers import conditions, feed, refusals
from onepass.controllers.conditions import Condition
from onepass.controllers.loop import Loop, backoff
from onepass.controllers.probe import CLUSTERS
from onepass.controllers.refusals import Patience
from onepass.controllers.rotate import CONDITION, LOOK_SECONDS, RETRY_SECONDS, Clusters, Secrets
from onepass.pki import lifetimes
from onepass.pki.execcredential import Issued, PluginRefused
from onepass.registry import credentials

UNTOLD_SECONDS = 600.0  # how long an answer is used that does not say when it ends
_SHARE, _SPREAD = 0.8, 0.1

log = structlog.get_logger(__name__)

# A Cluster, and a moment after which it was answered at the earliest -> what its program answers; raises PluginRefused.
Run = Callable[[Object, float], Awaitable[Issued]]


_VALID = Condition(CONDITION, True, "Valid", "the credential program answers")
_REFUSED = Condition(
    CONDITION,
    False,
    "Refused",
    "the member refuses what the credential program answers, also after it was asked again; check as whom the program "
    "logs in, and that the member knows that user",
)


@dataclass(frozen=True, slots=True)
class _Answer:
    asked: str  # by what, and for which place
    at: float  # Unix seconds
    again: float  # when to ask again, in Unix seconds


@dataclass(slots=True)
class Programs:
    """The controller."""

    objects: feed.Objects
    secrets: Secrets
    clusters: Clusters
    ask: Run
    clock: Callable[[], float] = time.time
    concurrency: int = 1024  # how many wait; how many programs run is for `ask` to say
    _answers: dict[str, _Answer] = field(default_factory=dict)
    _failures: dict[str, int] = field(default_factory=dict)
    _asked: dict[str, float] = field(default_factory=dict)  # when the program was asked last, for each member
    _patience: Patience = field(default_factory=lambda: Patience(*RETRY_SECONDS))

    async def run(self) -> None:
        """Until cancelled."""
        await feed.run(
            self.objects, CLUSTERS, Loop("programs", self.reconcile, workers=self.concurrency), refusals.version
        )

    async def reconcile(self, name: str) -> float | None:
        """Look at one member; returns after how many seconds to look again."""
        cluster = self.objects.get(CLUSTERS, name)
        if cluster is None or credentials.of(cluster).get("type") != credentials.OIDC:
            for told in (self._answers, self._failures, self._asked):
                told.pop(name, None)
            self._patience.forget(name)
            return None
        refused = refusals.refuses(cluster)
        if refusals.takes(cluster):
            self._patience.forget(name)
        wait = await self._good_for(name, cluster, refused)
        if wait > 0:
            return wait
        return await self._again(name, cluster, refused)

    async def _good_for(self, name: str, cluster: Object, refused: bool) -> float:
        """How long what was answered last will do, in seconds; 0 when the program is to be asked."""
        known, now = self._answers.get(name), self.clock()
        if known is None or known.asked != _asked(cluster) or not credentials.answered(cluster):
            return 0.0
        if now < known.at:  # the clock was set back: when it is to be asked again is not known any more
            return 0.0
        if not refused:
            if not self._patience.tries(name):
                await self._tell(cluster, _VALID)
            return min(known.again - now, LOOK_SECONDS)
        if self._patience.tries(name):
            await self._tell(cluster, _REFUSED)
        return min(known.again - now, LOOK_SECONDS, self._patience.wait(name, now, known.at))

    async def _again(self, name: str, cluster: Object, refused: bool) -> float:
        asked, now = _asked(cluster), self.clock()
        if refused:
            self._patience.tried(name, now)
        try:
            issued = await self.ask(cluster, self._asked.get(name, 0.0))
            ends = _ends(issued)
            if ends is not None and ends <= now:
                raise PluginRefused("answered with a credential that has ended already")  # noqa: TRY301  told as its own
            await self._store(name, cluster, issued)
        except (PluginRefused, ApiError) as error:
            return await self._failed(name, cluster, error)
        finally:
            self._asked[name] = self.clock()
        self._failures.pop(name, None)
        share = _SHARE - _SPREAD * random.random()  # noqa: S311  spreads the programs of a fleet
        again = now + max(1.0, share * (ends - now) if ends is not None else UNTOLD_SECONDS)
        self._answers[name] = _Answer(asked, self.clock(), again)
        await self._tell(cluster, _REFUSED if self._patience.tries(name) > 1 else _VALID)
        wait = min(again - now, LOOK_SECONDS)
        return min(wait, self._patience.wait(name, now, now)) if refused else wait

    async def _store(self, name: str, cluster: Object, issued: Issued) -> None:
        asked = _asked(cluster)
        secret: dict[str, JSON] = {"serviceAccountToken": issued.token} if issued.token else {"x509": _pair(issued)}

        def swapped(current: Object) -> Object:
            if _asked(current) == asked:  # else it is about another program or another place by now
                credentials.of(current).update(secret)
            return current

        await self.clusters.change(name, meta.uid(cluster), swapped)

    async def _failed(self, name: str, cluster: Object, error: PluginRefused | ApiError) -> float:
        why = error.message if isinstance(error, ApiError) else str(error)
        log.warning("a credential program gives no credential", cluster=name, error=why)
        # What was answered before stays in use until it ends: the prober sees when the member refuses it.
        has, told = credentials.answered(cluster), f"the credential program {why}"
        try:
            await self.secrets.secret(name, meta.uid(cluster))
        except ValueError as closed:
            has, told = False, f"{told}; what it answered before cannot be opened: {closed}"
        await self._tell(cluster, Condition(CONDITION, has, "ProgramFails", told))
        self._failures[name] = self._failures.get(name, 0) + 1
        return backoff(*RETRY_SECONDS, self._failures[name]) * random.uniform(0.75, 1.25)  # noqa: S311

    async def _tell(self, cluster: Object, condition: Condition) -> None:
        def applied(status: Object) -> Object:
            return {**status, "conditions": conditions.merged(status.get("conditions"), self.clock(), condition)}

        status = meta.section(cluster, "status")
        if applied(status) != status:
            await self.clusters.write(meta.name(cluster), meta.uid(cluster), applied)


def _ends(issued: Issued) -> float | None:
    if issued.ends is not None:
        return issued.ends
    found = lifetimes.of_token(issued.token) if issued.token else lifetimes.of_certificate(issued.certificate.encode())
    return found.ends if found else None


def _pair(issued: Issued) -> Object:
    encoded = [base64.b64encode(each.encode()).decode() for each in (issued.certificate, issued.private_key)]
    return {"certificate": encoded[0], "privateKey": encoded[1]}


def _asked(cluster: Object) -> str:
    access = meta.section(meta.section(cluster, "spec"), "access")
    place = {key: value for key, value in access.items() if key not in ("credential", "identity")}
    return json.dumps([meta.uid(cluster), place, meta.section(credentials.of(cluster), "execConfig")], sort_keys=True)
