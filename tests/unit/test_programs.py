"""When a credential program is asked, what is kept of its answer, and what happens when the member refuses that."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from tests.unit.conftest import NOW
from tests.unit.test_registry_mirror import running

from onepass.api import meta
from onepass.api.meta import Object
from onepass.controllers import conditions
from onepass.controllers.conditions import Condition
from onepass.controllers.probe import CLUSTERS
from onepass.controllers.programs import Programs
from onepass.controllers.rotate import LOOK_SECONDS
from onepass.pki import sealkeys
from onepass.pki.execcredential import Issued, PluginRefused
from onepass.registry import clusters
from onepass.registry.execplugins import Plugin
from onepass.registry.mirror import Mirror
from onepass.registry.store import Store, Write
from onepass.runtime.sealer import Sealer
from onepass.runtime.sealsources import Keys
from onepass.runtime.statuses import Statuses
from onepass.storage.interface import Storage

PLUGIN = Plugin("/bin/plugin", (), ("*",))


def cluster() -> Object:
    program: Object = {"command": "plugin", "apiVersion": "client.authentication.k8s.io/v1"}
    credential: Object = {"type": "OIDC", "execConfig": program}
    return {
        "metadata": {"name": "prod"},
        "spec": {"access": {"endpoint": "https://k8s.example", "credential": credential}},
    }


@dataclass
class Site:
    """A store with one cluster, and the controller on it, whose steps are made by hand."""

    store: Store
    mirror: Mirror
    programs: Programs
    now: float = NOW
    asked: list[float] = field(default_factory=list)  # for each run, after when an answer would have done
    answers: list[Issued | PluginRefused] = field(default_factory=list)

    async def ask(self, _cluster: Object, since: float) -> Issued:
        self.asked.append(since)
        answer = self.answers.pop(0) if self.answers else Issued(f"token-{len(self.asked)}", ends=self.now + 3600)
        if isinstance(answer, PluginRefused):
            raise answer
        return answer

    async def step(self, after: float = 0.0) -> float:
        """The next look, when it is time; returns after how many seconds the one after it is due."""
        self.now += after
        while self._stale(await self.store.get("", "prod")):
            await self.mirror.changed(self.mirror.generation)
        again = await self.programs.reconcile("prod")
        assert again is not None
        return again

    def _stale(self, stored: Object) -> bool:
        mirrored = self.mirror.get(CLUSTERS, "prod")
        return mirrored is None or meta.resource_version(mirrored) != meta.resource_version(stored)

    async def probed(self, code: str) -> None:
        """The prober has looked at the member."""

        def applied(status: Object) -> Object:
            told = Condition("Ready", code == "Ready", code, "as the prober says", generation)
            return {**status, "conditions": conditions.merged(status.get("conditions"), self.now, told)}

        stored = await self.store.get("", "prod")
        generation = int(str(meta.section(stored, "metadata")["generation"]))
        await Statuses(self.store).write("prod", meta.uid(stored), applied)

    async def told(self) -> tuple[str, str]:
        found = await self.condition()
        return str(found["status"]), str(found["reason"])

    async def condition(self) -> Object:
        listed = meta.section(await self.store.get("", "prod"), "status").get("conditions")
        every = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        (found,) = [each for each in every if each["type"] == "CredentialValid"]
        return found


@pytest.fixture
async def site(storage: Storage, write: Write) -> AsyncGenerator[Site]:
    async with made(storage, write) as it:
        yield it


@asynccontextmanager
async def made(storage: Storage, write: Write, *sources: Keys) -> AsyncGenerator[Site]:
    sealer = Sealer(sources or [Keys("test", sealkeys.generate)])
    store = Store(storage, clusters.strategy(plugins=(PLUGIN,)), sealer=sealer)
    mirror = Mirror({CLUSTERS: store})
    await store.create("", cluster(), write)

    async def ask(obj: Object, since: float) -> Issued:
        return await it.ask(obj, since)

    it = Site(store, mirror, Programs(mirror, store, Statuses(store), ask, lambda: it.now))
    async with running(mirror):
        yield it


async def test_an_answer_is_used_until_shortly_before_it_ends(site: Site) -> None:
    again = await site.step()
    assert 0.69 * 3600 < again < 0.81 * 3600
    assert await site.told() == ("True", "Valid")
    assert again - 11 < await site.step(10) <= again - 10
    assert len(site.asked) == 1
    await site.step(again)
    assert len(site.asked) == 2


async def test_the_next_look_is_within_an_hour_and_a_clock_that_is_set_back_makes_the_program_be_asked(
    site: Site,
) -> None:
    """By the clock of a machine that sleeps no time passes, and nobody tells when it is set."""
    site.answers = [Issued("t", "", "", site.now + 400 * 86400.0)] * 2
    assert await site.step() == LOOK_SECONDS
    assert await site.step(10) == LOOK_SECONDS
    assert len(site.asked) == 1
    await site.step(-30 * 86400.0)
    assert len(site.asked) == 2
    await site.step(1)
    assert len(site.asked) == 2


async def test_after_another_start_what_is_stored_stays_in_use(site: Site) -> None:
    await site.step()
    before = await site.store.get("", "prod")
    site.programs._answers.clear()  # what a new process knows
    site.answers = [PluginRefused("did not end within 30 s")]
    await site.step()
    after = await site.store.get("", "prod")
    assert meta.section(after, "spec") == meta.section(before, "spec")
    assert await site.told() == ("True", "ProgramFails")


async def test_an_answer_whose_key_is_lost_is_told_beside_the_program_that_fails(
    storage: Storage, write: Write
) -> None:
    keys = [sealkeys.generate()]
    source = Keys("test", lambda: keys[0])
    async with made(storage, write, source) as site:
        await site.step()
        site.programs._answers.clear()
        kept = keys[0]
        for text, status in ((sealkeys.generate(), "False"), (kept, "True")):
            keys[0] = text
            source.look()
            site.answers = [PluginRefused("did not end within 30 s")]
            await site.step()
            found = await site.condition()
            assert (found["status"], found["reason"]) == (status, "ProgramFails")
            assert "did not end within 30 s" in str(found["message"])
            assert ("what it answered before cannot be opened: it is sealed" in str(found["message"])) == (text != kept)


async def test_before_the_first_answer_there_is_nothing_to_use(site: Site) -> None:
    site.answers = [PluginRefused("failed with exit status 1")] * 2
    first, second = await site.step(), await site.step(10)
    assert 3 < first < 7
    assert 6 < second < 14
    assert await site.told() == ("False", "ProgramFails")
    await site.step(20)
    assert await site.told() == ("True", "Valid")
    # Each time an answer is wanted that is newer than the failure before.
    assert site.asked == [0.0, NOW, NOW + 10]


async def test_when_the_member_refuses_it_the_program_is_asked_once_and_then_ever_less_often(site: Site) -> None:
    await site.step()
    await site.probed("Unauthorized")
    assert await site.step() == 5  # not within a moment after the first: the prober may have seen what was before
    assert len(site.asked) == 1
    moments = []
    for _ in range(4000):
        before = len(site.asked)
        await site.step(1)
        if len(site.asked) > before:
            await site.probed("Unauthorized")
            moments.append(int(site.now - NOW))
        if len(moments) == 8:
            break
    assert moments == [5, 15, 35, 75, 155, 315, 615, 915]
    assert site.asked[1] == NOW  # no answer of before
    assert await site.told() == ("False", "Refused")
    await site.probed("Ready")
    await site.step()
    assert await site.told() == ("True", "Valid")
    await site.probed("Unauthorized")
    await site.step(6)
    assert len(site.asked) == 10  # the patience of before is forgotten


@pytest.mark.parametrize("ends", [-1.0, -3600.0])
async def test_an_answer_that_has_ended_is_told(site: Site, ends: float) -> None:
    site.answers = [Issued("token", ends=NOW + ends)]
    await site.step()
    assert await site.told() == ("False", "ProgramFails")
