"""When a credential is renewed, how, and what is told of it."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import jwt
import pytest
from tests.unit.conftest import NOW
from tests.unit.test_registry_mirror import running

from onepass.api import meta
from onepass.api.meta import JSON, Object
from onepass.controllers import conditions, rotate
from onepass.controllers.conditions import Condition
from onepass.controllers.findings import Answer
from onepass.controllers.probe import CLUSTERS
from onepass.controllers.refusals import Patience
from onepass.controllers.rotate import Rotate
from onepass.pki import lifetimes, sealkeys
from onepass.pki.lifetimes import Lifetime
from onepass.registry import clusters
from onepass.registry.mirror import Mirror
from onepass.registry.store import Store, Write
from onepass.runtime.sealer import Sealer
from onepass.runtime.sealsources import Keys
from onepass.runtime.statuses import Statuses
from onepass.storage.interface import Storage

ACCOUNT = "system:serviceaccount:onepass-system:onepass"
HOUR, DAY = 3600.0, 86400.0


def token(begins: float, ends: float, subject: str = ACCOUNT) -> str:
    return jwt.encode({"iat": int(begins), "exp": int(ends), "sub": subject}, "k" * 32)


def cluster(secret: str, *, renew: bool = True, requested: bool = False) -> Object:
    credential: Object = {"type": "ServiceAccountToken", "serviceAccountToken": secret}
    annotations: Object = {rotate.REQUESTED: "now"} if requested else {}
    return {
        "metadata": {"name": "prod", "annotations": annotations},
        "spec": {
            "access": {"endpoint": "https://k8s.example", "credential": credential | ({"renew": True} if renew else {})}
        },
    }


@dataclass
class Member:
    """Answers TokenRequests."""

    code: int = 201
    body: Callable[[], JSON] = lambda: {"status": {"token": token(NOW, NOW + 10 * HOUR)}}
    asked: list[tuple[str, str, object]] = field(default_factory=list)

    async def post(self, name: str, path: str, body: bytes) -> Answer:
        self.asked.append((name, path, json.loads(body)))
        return Answer(self.code, json.dumps(self.body()).encode())


@dataclass
class Site:
    """A store with one cluster, and the controller on it, whose steps are made by hand at `now`."""

    store: Store
    mirror: Mirror
    rotate: Rotate
    now: float

    async def step(self) -> float | None:
        while self.mirror.get(CLUSTERS, "prod") is None or self._stale(await self.store.get("", "prod")):
            await self.mirror.changed(self.mirror.generation)
        return await self.rotate.reconcile("prod")

    def _stale(self, stored: Object) -> bool:
        mirrored = self.mirror.get(CLUSTERS, "prod")
        return mirrored is None or meta.resource_version(mirrored) != meta.resource_version(stored)

    async def token(self) -> str:
        obj = await self.store.get("", "prod")
        secret = await self.store.secret("prod", meta.uid(obj))
        return str(json.loads(secret or b"{}")["serviceAccountToken"])

    async def conditions(self) -> dict[str, tuple[str, str, str]]:
        listed = meta.section(await self.store.get("", "prod"), "status").get("conditions")
        every = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        return {str(it["type"]): (str(it["status"]), str(it["reason"]), str(it["message"])) for it in every}

    async def condition(self) -> tuple[str, str, str]:
        return (await self.conditions())[rotate.CONDITION]


@asynccontextmanager
async def site(storage: Storage, write: Write, obj: Object, member: Member, now: float = NOW) -> AsyncGenerator[Site]:
    store = Store(storage, clusters.strategy(), sealer=Sealer([Keys("test", sealkeys.generate)]))
    mirror = Mirror({CLUSTERS: store})
    # Registered while the token still held.
    early = replace(write, actor=replace(write.actor, now=NOW - 100 * HOUR))
    await store.create("", obj, early)
    async with running(mirror):
        made = Site(store, mirror, Rotate(mirror, store, Statuses(store), member.post, lambda: made.now), now)
        yield made


async def test_a_token_is_renewed_when_most_of_its_time_has_passed(storage: Storage, write: Write) -> None:
    member, old = Member(), token(NOW - 9 * HOUR, NOW + HOUR)
    async with site(storage, write, cluster(old), member) as it:
        assert await it.step() is None
        assert await it.token() != old
        path = "/api/v1/namespaces/onepass-system/serviceaccounts/onepass/token"
        spec = {"expirationSeconds": 10 * 3600}
        assert member.asked == [
            ("prod", path, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
        ]
        assert await it.step() == rotate.LOOK_SECONDS
        assert len(member.asked) == 1
        status, reason, message = await it.condition()
        assert (status, reason) == ("True", "Valid")
        assert "less than a day left; it is renewed before that" in message


async def test_a_token_is_left_alone_before(storage: Storage, write: Write) -> None:
    member, old = Member(), token(NOW - HOUR, NOW + 9 * HOUR)
    async with site(storage, write, cluster(old), member) as it:
        due = rotate.due(await it.store.get("", "prod"), Lifetime(NOW - HOUR, NOW + 9 * HOUR))
        assert 6.5 * HOUR - 1 <= due - NOW <= 7 * HOUR + 1
        for it.now in (NOW, due - rotate.LOOK_SECONDS - 1):
            assert await it.step() == rotate.LOOK_SECONDS
        it.now = due - 5
        assert await it.step() == pytest.approx(5)
        assert (member.asked, await it.token()) == ([], old)
        it.now = due
        await it.step()
        assert len(member.asked) == 1


async def test_a_token_is_renewed_at_once_on_request(storage: Storage, write: Write) -> None:
    member, old = Member(), token(NOW - HOUR, NOW + 9 * HOUR)
    async with site(storage, write, cluster(old, requested=True), member) as it:
        assert await it.step() is None
        assert await it.token() != old
        assert rotate.REQUESTED not in meta.annotations(await it.store.get("", "prod"))
        await it.step()
        assert len(member.asked) == 1


async def test_what_is_not_to_be_renewed_is_not(storage: Storage, write: Write) -> None:
    member = Member()
    async with site(
        storage, write, cluster(token(NOW - 9 * HOUR, NOW + HOUR), renew=False, requested=True), member
    ) as it:
        await it.step()
        assert member.asked == []
        assert "it is renewed" not in (await it.condition())[2]


@pytest.mark.parametrize(
    ("code", "body", "why"),
    [
        (401, {}, "refuses the present token"),
        (403, {"message": "no"}, "may not make tokens for itself"),
        (404, {}, "service account onepass-system/onepass is gone"),
        (500, {"message": "broken\x1b[31m"}, "the member answered 500 broken"),
        (201, {}, "did not answer with a token"),
        (201, {"status": {"token": "junk"}}, "did not answer with a token"),
        (201, {"status": {"token": token(NOW, NOW + 9, "system:serviceaccount:kube-system:onepass")}}, "of the same"),
        (201, {"status": {"token": token(NOW - 9, NOW - 1)}}, "compare the clocks"),
    ],
)
async def test_a_renewal_that_fails_is_told_and_tried_again(
    storage: Storage, write: Write, code: int, body: JSON, why: str
) -> None:
    member, old = Member(code, lambda: body), token(NOW - 9 * HOUR, NOW + HOUR)
    async with site(storage, write, cluster(old), member) as it:
        pauses = [await it.step() for _ in range(3)]
        assert [pause is not None and 0.7 <= pause / 5 / 2**n <= 1.3 for n, pause in enumerate(pauses)] == [True] * 3
        status, reason, message = await it.condition()
        assert (status, reason) == ("True", "RenewalFails")
        assert why in message
        assert "\x1b" not in message
        assert await it.token() == old
        member.code, member.body = 201, Member().body
        await it.step()
        await it.step()
        assert (await it.condition())[1] == "Valid"


async def refused(it: Site, reason: str = "Unauthorized") -> None:
    def applied(status: Object) -> Object:
        told = Condition("Ready", reason == "Ready", reason, "as the prober says", generation)
        return {**status, "conditions": conditions.merged(status.get("conditions"), NOW, told)}

    stored = await it.store.get("", "prod")
    generation = int(str(meta.section(stored, "metadata")["generation"]))
    await Statuses(it.store).write("prod", meta.uid(stored), applied)


async def test_a_token_that_the_member_refuses_is_renewed_early_and_once(storage: Storage, write: Write) -> None:
    member, old = Member(), token(NOW - HOUR, NOW + 9 * HOUR)
    async with site(storage, write, cluster(old), member) as it:
        await refused(it)
        assert await it.step() is None
        assert await it.token() != old
        # The prober has not looked again yet: what it says is of the token before.
        assert await it.step() == rotate.LOOK_SECONDS
        await refused(it)  # also the new one
        again = await it.step()
        assert again is not None
        assert 0 < again <= 10
        assert len(member.asked) == 1
        await refused(it, "Ready")
        await it.step()
        assert (await it.conditions())["CredentialValid"][:2] == ("True", "Valid")
        assert len(member.asked) == 1


async def test_a_token_that_is_refused_for_its_renewal_too_is_told(storage: Storage, write: Write) -> None:
    member = Member(401, lambda: {})
    async with site(storage, write, cluster(token(NOW - HOUR, NOW + 9 * HOUR)), member) as it:
        await refused(it)
        pauses = [await it.step() for _ in range(3)]
        assert all(pause is not None and pause > 0.7 * 5 for pause in pauses)
        assert len(member.asked) == 1  # no time has passed
        status, reason, message = (await it.conditions())["CredentialValid"]
        assert (status, reason) == ("False", "Refused")
        assert "the member refuses the token" in message
        assert message.endswith("; give the gateway a new credential: onepass cluster rotate prod --kubeconfig FILE")


async def test_of_two_that_renew_the_first_is_kept(storage: Storage, write: Write) -> None:
    member = Member()
    async with site(storage, write, cluster(token(NOW - 9 * HOUR, NOW + HOUR)), member) as it:
        first, second = token(NOW, NOW + 10 * HOUR), token(NOW, NOW + 11 * HOUR)

        async def overtaken(name: str, path: str, body: bytes) -> Answer:
            def faster(obj: Object) -> Object:
                access = meta.section(meta.section(obj, "spec"), "access")
                meta.section(access, "credential")["serviceAccountToken"] = first
                return obj

            await it.store.update("", "prod", faster, write)
            return Answer(201, json.dumps({"status": {"token": second}}).encode())

        it.rotate.post = overtaken
        await it.step()
        assert await it.token() == first


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        (token(NOW - HOUR, NOW - 60), ("False", "Expired")),
        (token(NOW - HOUR, NOW + 60), ("True", "EndsSoon")),
        (token(NOW - HOUR, NOW + 60 * DAY), ("True", "Valid")),
        ("no-jwt", ("True", "NoEnd")),
    ],
)
async def test_every_credential_is_told_of(storage: Storage, write: Write, secret: str, told: tuple[str, str]) -> None:
    async with site(storage, write, cluster(secret, renew=False), Member()) as it:
        await it.step()
        assert (await it.condition())[:2] == told


REMEDY = "onepass cluster rotate prod --kubeconfig FILE"


@pytest.mark.parametrize("what", ["token", "client certificate"])
@pytest.mark.parametrize(
    ("left", "status", "reason", "words"),
    [
        (31 * DAY, True, "Valid", "31 days left"),
        (30 * DAY + 1, True, "Valid", "30 days left"),
        (30 * DAY, True, "EndsSoon", f"30 days left; before that, DO {REMEDY}"),
        (29 * DAY, True, "EndsSoon", f"29 days left; before that, DO {REMEDY}"),
        (8 * DAY - 1, True, "EndsSoon", f"7 days left; before that, DO {REMEDY}"),
        (2 * DAY, True, "EndsSoon", f"2 days left; before that, DO {REMEDY}"),
        (2 * DAY - 1, True, "EndsSoon", f"1 day left; before that, DO {REMEDY}"),
        (DAY, True, "EndsSoon", f"1 day left; before that, DO {REMEDY}"),
        (DAY - 1, True, "EndsSoon", f"less than a day left; before that, DO {REMEDY}"),
        (1, True, "EndsSoon", f"less than a day left; before that, DO {REMEDY}"),
        (0, False, "Expired", f"ended 2026-11-20 12:00 UTC; DO {REMEDY}"),
        (-DAY, False, "Expired", f"ended 2026-11-19 12:00 UTC; DO {REMEDY}"),
    ],
)
def test_what_is_left_of_a_credential_is_told(what: str, left: float, status: bool, reason: str, words: str) -> None:
    now = 1795176000.0  # 2026-11-20 12:00 UTC
    ending = rotate.Held(what, Lifetime(now - 90 * DAY, now + left))
    told = rotate.told(ending, now, rotate.Case(f"DO {REMEDY}"))
    assert (told.true, told.reason) == (status, reason)
    assert told.message.startswith(f"the {what} end")
    assert told.message.endswith(words)
    refused = rotate.told(ending, now, rotate.Case(f"DO {REMEDY}", refused=True))
    assert refused.reason == ("Refused" if status else "Expired"), "that it has ended says more than that it is refused"
    renewed = rotate.told(ending, now, rotate.Case("", renews=True))
    assert renewed.reason == ("Valid" if status else "Expired")
    failing = rotate.told(ending, now, rotate.Case(f"DO {REMEDY}", renews=True, failure="so it is"))
    assert failing.reason == ("RenewalFails" if status else "Expired")
    assert "; it is not renewed: so it is" in failing.message


@pytest.mark.parametrize(
    ("begins_in", "taken", "told"),
    [
        (59, False, (True, "Valid", "days left")),
        (61, False, (False, "NotYetValid", "counts only from 2026-11-20 12:01 UTC; compare the clocks")),
        (DAY, False, (False, "NotYetValid", "counts only from 2026-11-21 12:00 UTC; compare the clocks")),
        (DAY, True, (True, "ClockBehind", "the gateway's clock is behind the member's; set the one that is wrong")),
    ],
    ids=["a-little", "soon", "tomorrow", "and-taken"],
)
def test_a_credential_that_does_not_count_yet_is_told(
    begins_in: float, taken: bool, told: tuple[bool, str, str]
) -> None:
    now = 1795176000.0
    early = rotate.Held("token", Lifetime(now + begins_in, now + 90 * DAY))
    found = rotate.told(early, now, rotate.Case("", refused=not taken and not told[0], taken=taken))
    assert (found.true, found.reason) == told[:2]
    assert told[2] in found.message


async def test_each_day_less_is_told_although_nothing_changes_but_the_time(storage: Storage, write: Write) -> None:
    begins, ends = NOW + HOUR, NOW + 32.5 * DAY
    wanted = {"NotYetValid": NOW} | {f"Valid, {left} days left": ends - (left + 1) * DAY for left in (31, 30)}
    wanted |= {f"EndsSoon, {left} days left": ends - (left + 1) * DAY for left in range(29, 1, -1)}
    wanted |= {"EndsSoon, 1 day left": ends - 2 * DAY, "EndsSoon, less than a day left": ends - DAY, "Expired": ends}
    wanted["Valid, 32 days left"] = begins - 60  # as clocks differ a little
    seen: dict[str, float] = {}
    async with site(storage, write, cluster(token(begins, ends), renew=False), Member()) as it:
        while "Expired" not in seen:
            pause = await it.step()
            assert pause is not None
            _, reason, message = await it.condition()
            left = message.partition(" UTC, ")[2].partition(";")[0]
            seen.setdefault(f"{reason}, {left}" if left else reason, it.now)
            it.now += pause
    assert seen == pytest.approx(wanted, abs=2)


async def test_a_clock_that_is_set_is_noticed_without_any_change(storage: Storage, write: Write) -> None:
    """Also one that was ahead: what was told to have ended has not."""
    member, old = Member(401, lambda: {}), token(NOW - HOUR, NOW + 50 * DAY)
    async with site(storage, write, cluster(old, renew=False), member, NOW + 51 * DAY) as it:
        for it.now, told in (
            (NOW + 51 * DAY, "Expired"),
            (NOW, "Valid"),
            (NOW + 30 * DAY, "EndsSoon"),
            (NOW - 400 * DAY, "NotYetValid"),
            (NOW, "Valid"),
        ):
            again = await it.step()
            assert again is not None
            assert 1 <= again <= rotate.LOOK_SECONDS
            assert (await it.condition())[1] == told


def test_who_was_tried_later_than_now_is_not_waited_for() -> None:
    patience = Patience(5, 300)
    patience.tried("prod", NOW)
    assert patience.wait("prod", NOW, 0.0) == 10
    assert patience.wait("prod", NOW - 400 * DAY, 0.0) == 0


async def test_the_loop_renews_by_itself(storage: Storage, write: Write) -> None:
    old = token(NOW - 9 * HOUR, NOW + HOUR)
    async with site(storage, write, cluster(old), Member()) as it:
        task = asyncio.create_task(it.rotate.run())
        try:
            async with asyncio.timeout(60):
                while await it.token() == old:
                    await it.mirror.changed(it.mirror.generation)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("claims", "bound"),
    [
        ({"iat": 1, "exp": 9, "sub": ACCOUNT}, True),
        ({"exp": 9, "sub": ACCOUNT}, False),
        ({"iat": 1, "sub": ACCOUNT}, False),
        ({"iat": 1, "exp": 9, "sub": "system:serviceaccount:a/../../x:b"}, False),
        ({"iat": 1, "exp": 9, "sub": "system:serviceaccount:a:b/../c"}, False),
        ({"iat": 1, "exp": 9, "sub": "system:serviceaccount:a:b\n"}, False),
        ({"iat": 9, "exp": 1, "sub": ACCOUNT}, False),
        ({"iat": True, "exp": 10**18, "sub": ACCOUNT}, False),
        ({"iat": 1, "exp": 9, "sub": "jane"}, False),
    ],
)
def test_only_bound_tokens_of_service_accounts_can_be_renewed(claims: dict[str, object], bound: bool) -> None:
    assert (lifetimes.bound(jwt.encode(claims, "k" * 32)) is not None) is bound
