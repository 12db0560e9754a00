"""What becomes of stored credentials when keys change, are lost, come back, or when somebody alters the database."""

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.unit.test_pki_sealing import first_version

from onepass.api import errors, meta
from onepass.api.errors import ApiError
from onepass.api.meta import JSON, Object
from onepass.controllers.publish import Publish
from onepass.controllers.reseal import Reseal
from onepass.controllers.rotate import closed
from onepass.pki import sealkeys
from onepass.pki.sealing import Damaged, KeyAway, KeyMissing, SealError
from onepass.registry import clusters, credentials, records
from onepass.registry.changes import Changes, Version
from onepass.registry.sealed import Outdated, Records, Resealing
from onepass.registry.store import Store, Write
from onepass.runtime import sealsources
from onepass.runtime.datadir import DataDir
from onepass.runtime.sealer import Sealer
from onepass.runtime.sealsources import Keys
from onepass.runtime.settings import SealKey, Settings, SettingsError
from onepass.storage.interface import Op, Page, Record, Storage

# The same in every run, as tests are named by them.
OLD, NEW, OTHER = (sealkeys.PREFIX + base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2, 3))
OLD_ID, NEW_ID = sealkeys.name(OLD), sealkeys.name(NEW)
SECRETS = b"/secret/registry/cluster.karpor.io/clusters/"


def cluster(name: str, token: str = "") -> Object:
    return {
        "metadata": {"name": name},
        "spec": {
            "access": {
                "endpoint": "https://k8s.example",
                "credential": {"type": "ServiceAccountToken", "serviceAccountToken": token or f"token-of-{name}"},
            }
        },
    }


@dataclass
class Site:
    """A storage, opened with some keys."""

    storage: Storage
    write: Write

    def sealer(self, *lines: str) -> Sealer:
        return Sealer([Keys("test", lambda: "\n".join(lines))])

    def store(self, *lines: str) -> Store:
        return Store(self.storage, clusters.strategy(), sealer=self.sealer(*lines))

    async def made(self, count: int, *lines: str) -> None:
        store = self.store(*lines)
        for number in range(count):
            await store.create("", cluster(f"c{number}"), self.write)

    def reseal(self, *lines: str, storage: Storage | None = None) -> Reseal:
        return Reseal(Resealing(storage or self.storage, clusters.strategy(), self.sealer(*lines)))

    async def token(self, name: str, *lines: str) -> str:
        store = self.store(*lines)
        secret = await store.secret(name, meta.uid(await store.get("", name)))
        return str(json.loads(secret or b"{}").get("serviceAccountToken"))

    async def sealed(self) -> dict[bytes, bytes]:
        return {each.key: each.value for each in (await self.storage.range(SECRETS)).records}


@pytest.fixture
def site(storage: Storage, write: Write) -> Site:
    return Site(storage, write)


async def test_every_record_is_sealed_by_the_new_key_and_no_object_is_touched(site: Site) -> None:
    await site.made(230, OLD)
    objects = [each.modified for each in (await site.storage.range(b"/registry")).records]
    reseal = site.reseal(NEW, OLD)
    await reseal.round()
    assert (+reseal.census.keys, reseal.census.waiting) == (Counter({NEW_ID: 230}), 0)
    assert [each.modified for each in (await site.storage.range(b"/registry")).records] == objects
    assert await site.token("c229", NEW) == "token-of-c229"
    with pytest.raises(KeyMissing):
        await site.token("c229", OLD)
    before = await site.storage.revision()
    await reseal.round()
    assert await site.storage.revision() == before, "a second round writes nothing"


async def test_records_of_the_first_version_become_envelopes(site: Site) -> None:
    await site.made(1, OLD)
    obj = await site.store(OLD).get("", "c0")
    context = SECRETS + b"c0@" + meta.uid(obj).encode()
    secret = b'{"serviceAccountToken":"of-before"}'
    await site.storage.commit([Op(SECRETS + b"c0", first_version(OLD, secret, context))])
    assert await site.token("c0", OLD) == "of-before"
    await site.reseal(OLD).round()
    assert (await site.sealed())[SECRETS + b"c0"].startswith(b"\x02")
    assert await site.token("c0", OLD) == "of-before"


@dataclass
class Stopping:
    """A storage that stops, or has others write, at the commit of that number."""

    storage: Storage
    at: int
    meanwhile: Sequence[Op] = ()
    commits: int = 0

    async def get(self, key: bytes) -> Record | None:
        return await self.storage.get(key)

    async def range(self, prefix: bytes, *, after: bytes = b"", limit: int = 0, revision: int = 0) -> Page:
        return await self.storage.range(prefix, after=after, limit=limit, revision=revision)

    async def commit(self, ops: Sequence[Op]) -> int:
        self.commits += 1
        if self.commits == self.at:
            if not self.meanwhile:
                raise KeyboardInterrupt
            await self.storage.commit(self.meanwhile)
        return await self.storage.commit(ops)


async def test_a_crash_in_between_loses_nothing(site: Site) -> None:
    await site.made(250, OLD)
    with pytest.raises(KeyboardInterrupt):
        await site.reseal(NEW, OLD, storage=Stopping(site.storage, 2)).round()  # type: ignore[arg-type]
    counted = site.reseal(NEW, OLD)
    records = await counted.records.page(b"", 1000)
    counted.records.count(records, counted.census)
    assert (counted.census.keys, counted.census.waiting) == (Counter({NEW_ID: 100, OLD_ID: 150}), 150)
    assert {await site.token(f"c{n}", NEW, OLD) for n in range(250)} == {f"token-of-c{n}" for n in range(250)}
    await counted.round()
    assert +counted.census.keys == Counter({NEW_ID: 250})


async def test_what_others_write_or_delete_meanwhile_stays_so(site: Site) -> None:
    """One record gets a new credential, another is deleted, between the reading and the write."""
    await site.made(3, OLD)
    newer = await site.store(OLD).update("", "c1", lambda _: cluster("c1", "newer"), replace(site.write, dry_run=True))
    context = Records(site.storage, site.sealer(OLD), credentials.bound).context(SECRETS + b"c1", newer.obj)
    written = site.sealer(OLD).seal(b'{"serviceAccountToken":"newer"}', context)
    meanwhile = [Op(SECRETS + b"c1", written), Op(SECRETS + b"c2", None)]
    reseal = site.reseal(NEW, OLD, storage=Stopping(site.storage, 1, meanwhile))  # type: ignore[arg-type]
    await reseal.round()
    assert sorted(await site.sealed()) == [SECRETS + b"c0", SECRETS + b"c1"]
    assert await site.token("c0", NEW) == "token-of-c0"
    assert await site.token("c1", OLD) == "newer"
    await site.reseal(NEW, OLD).round()
    assert await site.token("c1", NEW) == "newer"


async def test_what_cannot_be_opened_is_left_as_it_is(site: Site) -> None:
    await site.made(2, OLD)
    before = await site.sealed()
    reseal = site.reseal(OTHER)
    await reseal.round()
    assert await site.sealed() == before
    assert (reseal.census.waiting, reseal.census.closed) == (2, Counter({OLD_ID: 2}))
    await site.reseal(OTHER, OLD).round()
    assert await site.token("c1", OTHER) == "token-of-c1"


async def test_a_record_of_one_cluster_is_none_of_another(site: Site) -> None:
    await site.made(2, OLD)
    await site.storage.commit([Op(SECRETS + b"c0", (await site.sealed())[SECRETS + b"c1"])])
    with pytest.raises(Damaged, match="altered, or belong to something else"):
        await site.token("c0", OLD)
    moved = await site.sealed()
    await site.reseal(NEW, OLD).round()
    assert (await site.sealed())[SECRETS + b"c0"] == moved[SECRETS + b"c0"], "nothing seals it into its new place"
    with pytest.raises(Damaged):
        await site.token("c0", NEW, OLD)


@pytest.mark.parametrize("line", [{"endpoint": "https://thief.example"}, {"insecure": True}, {"serverName": "thief"}])
async def test_a_credential_does_not_follow_a_cluster_that_is_led_elsewhere(site: Site, line: Object) -> None:
    """By who can write the database, past the API, which would have refused it."""
    await site.made(1, OLD)
    key = SECRETS.removeprefix(b"/secret") + b"c0"
    (record,) = (await site.storage.range(key)).records
    obj = records.decode(record)
    access = meta.section(meta.section(obj, "spec"), "access")
    access.update(line)
    await site.storage.commit([Op(key, records.encode(obj))])
    with pytest.raises(Damaged):
        await site.token("c0", OLD)
    await site.reseal(NEW, OLD).round()
    with pytest.raises(Damaged):
        await site.token("c0", NEW, OLD)
    await site.storage.commit([Op(key, record.value)])
    assert await site.token("c0", OLD) == "token-of-c0"


async def test_the_same_credential_for_another_place_is_sealed_for_that(site: Site) -> None:
    await site.made(1, OLD)
    store, moved = site.store(OLD), cluster("c0")
    meta.section(meta.section(moved, "spec"), "access")["endpoint"] = "https://new.example"
    await store.update("", "c0", lambda _: moved, site.write)
    assert await site.token("c0", OLD) == "token-of-c0"
    await site.reseal(NEW, OLD).round()
    assert await site.token("c0", NEW) == "token-of-c0"


async def test_a_cluster_that_was_born_again_does_not_open_the_record_of_before(site: Site) -> None:
    await site.made(1, OLD)
    before = await site.sealed()
    await site.store(OLD).delete("", "c0", site.write)
    await site.made(1, OLD)
    await site.storage.commit([Op(SECRETS + b"c0", before[SECRETS + b"c0"])])
    with pytest.raises(Damaged):
        await site.token("c0", OLD)


@pytest.mark.parametrize("token", ["token-of-c0", "another"])
async def test_a_credential_that_is_supplied_heals_what_a_lost_key_closed(site: Site, token: str) -> None:
    """Also the same one: it has the same fingerprint, and yet it is to be stored."""
    await site.made(1, OLD)
    store = site.store(OTHER)
    generation = (await store.get("", "c0"))["metadata"]["generation"]  # type: ignore[index, call-overload]
    await store.update("", "c0", lambda _: cluster("c0", token), replace(site.write, dry_run=True))
    with pytest.raises(KeyMissing):
        await site.token("c0", OTHER)
    healed = (await store.update("", "c0", lambda _: cluster("c0", token), site.write)).obj
    assert await site.token("c0", OTHER) == token
    assert healed["metadata"]["generation"] == generation + 1, "who follows the spec looks again"  # type: ignore
    again = (await store.update("", "c0", lambda _: cluster("c0", token), site.write)).obj
    assert meta.resource_version(again) == meta.resource_version(healed), "what opens is not written again"


async def test_what_is_closed_can_be_changed_relabelled_and_deleted(site: Site) -> None:
    await site.made(2, OLD)
    store, before = site.store(OTHER), await site.sealed()

    def labelled(obj: Object) -> Object:
        return {**obj, "metadata": {**meta.section(obj, "metadata"), "labels": {"a": "b"}}}

    await store.update("", "c0", labelled, site.write)
    assert await site.sealed() == before
    assert await site.token("c0", OLD) == "token-of-c0"
    await store.delete("", "c1", site.write)
    assert list(await site.sealed()) == [SECRETS + b"c0"]


async def test_without_a_key_a_credential_is_refused_and_everything_else_is_not(site: Site, tmp_path: Path) -> None:
    source = Keys("file:/run/seal.key", (tmp_path / "none").read_text)
    store = Store(site.storage, clusters.strategy(), sealer=Sealer([source]))
    with pytest.raises(ApiError) as caught:
        await store.create("", cluster("c0"), site.write)
    assert caught.value.code == 503
    assert caught.value.message == (
        "the credential cannot be stored: there is no key to seal it with: file:/run/seal.key gives no key "
        "(No such file or directory)"
    )
    await store.create("", {"metadata": {"name": "open"}, "spec": {"access": {"endpoint": "https://x"}}}, site.write)
    assert await site.sealed() == {}


@pytest.mark.parametrize(
    ("error", "reason", "ends"),
    [
        (KeyMissing("its key is not at hand"), "KeyMissing", "; give the key back with --seal-key, or DO THIS"),
        (KeyAway("the plugin is away"), "KeyUnavailable", "the plugin is away"),
        (Damaged("the sealed bytes were altered"), "CredentialDamaged", "were altered; DO THIS"),
        (ValueError("odd"), "Unreadable", "opened: what is stored is none; DO THIS"),
    ],
)
def test_a_closed_credential_is_told_with_what_to_do(error: ValueError, reason: str, ends: str) -> None:
    condition = closed(error, "DO THIS")
    assert (condition.type, condition.true, condition.reason) == ("CredentialValid", False, reason)
    assert condition.message.startswith("the stored credential cannot be opened: ")
    assert condition.message.endswith(ends)


async def test_publish_tries_again_only_what_it_could_not_make() -> None:
    made: list[str] = []
    shut, outdated, now = {"b"}, {0}, 1

    class Secrets:
        async def secret(self, name: str, uid: str, generation: JSON = None) -> bytes | None:
            made.append(name)
            if name in shut:
                raise SealError("closed")
            if generation in outdated:
                raise Outdated("changed")
            return None

    class Objects:
        def get(self, key: str, name: str, namespace: str = "") -> Object | None:
            return {"metadata": {"name": name, "uid": name, "generation": now}}

    shown: list[list[str]] = []

    class Plane:
        def policy(self) -> object:
            return None

        def member(self, cluster: Object, secret: bytes | None) -> str:
            return f"{meta.name(cluster)}{now}"

        def show(self, policy: object, members: dict[str, object]) -> None:
            shown.append(sorted(map(str, members.values())))

    both = ("a", "b")
    publish = Publish(Objects(), Secrets(), Plane())  # type: ignore[arg-type]
    await publish.publish(both)
    await publish.publish(both)
    assert (made, shown) == (["a", "b"], [["a1"], ["a1"]])
    shut.clear()
    publish.again()
    await publish.publish(both)
    assert (made, shown[-1]) == (["a", "b", "b"], ["a1", "b1"])
    now, outdated = 2, {2}
    await publish.publish(both)
    assert shown[-1] == ["a1", "b1"], "what the database has is newer than what the mirror says: the last one stays"
    outdated.clear()
    await publish.publish(both)
    assert shown[-1] == ["a2", "b2"]


async def test_members_stay_published_while_the_storage_is_away_and_follow_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, away = 1, False
    shown: list[list[str]] = []
    back = asyncio.Event()

    class Secrets:
        async def secret(self, name: str, uid: str, generation: object = None) -> bytes | None:
            if away:
                raise errors.unavailable("etcd does not answer")
            return None

    class Objects:
        def follow(self, versions: Mapping[str, Version]) -> Changes:
            changes = Changes(versions)
            changes.stir("clusters.cluster.karpor.io", self.get("", "a"))
            return changes

        def get(self, key: str, name: str, namespace: str = "") -> Object:
            return {"metadata": {"name": "a", "uid": "a", "generation": now}}

    class Plane:
        def policy(self) -> object:
            return None

        def member(self, cluster: Object, secret: bytes | None) -> str:
            return f"a{now}"

        def show(self, policy: object, members: dict[str, object]) -> None:
            nonlocal away
            shown.append(sorted(map(str, members.values())))
            away = away and len(shown) < 4
            if shown[-1] == ["a2"]:
                back.set()

    monkeypatch.setattr("onepass.controllers.publish.RETRY_SECONDS", 0.01)
    publish = Publish(Objects(), Secrets(), Plane())  # type: ignore[arg-type]
    await publish.publish(("a",))
    now, away = 2, True
    running = asyncio.create_task(publish.run())
    async with asyncio.timeout(120):
        await back.wait()
    running.cancel()
    await asyncio.wait((running,))
    assert shown == [["a1"]] * 4 + [["a2"]]


async def test_a_credential_is_told_for_the_state_of_its_cluster_alone(site: Site) -> None:
    """So that what was meant for one endpoint is never sent to the one before it."""
    await site.made(1, OLD)
    store = site.store(OLD)
    uid = meta.uid(await store.get("", "c0"))
    assert await store.secret("c0", uid, 1)
    await store.update("", "c0", lambda _: cluster("c0", "new"), site.write)
    with pytest.raises(Outdated):
        await store.secret("c0", uid, 1)
    assert await store.secret("c0", uid, 2)
    with pytest.raises(Damaged):
        await store.secret("c0", "another", 2)


async def test_a_credential_that_moves_while_it_is_read_is_not_damaged(site: Site) -> None:
    await site.made(1, OLD)
    moved = cluster("c0", "moved")
    meta.section(meta.section(moved, "spec"), "access")["endpoint"] = "https://new.example"
    obj = await site.store(OLD).get("", "c0")

    class Torn(Stopping):
        """Somebody writes between the reading of the object and that of its record."""

        async def get(self, key: bytes) -> Record | None:
            self.commits += 1
            if self.commits == self.at:
                await site.store(OLD).update("", "c0", lambda _: moved, site.write)
            return await self.storage.get(key)

    for at in (1, 2, 3):
        await site.store(OLD).update("", "c0", lambda _: cluster("c0"), site.write)
        torn = Torn(site.storage, at)
        found = await Records(torn, site.sealer(OLD), credentials.bound).read(  # type: ignore[arg-type]
            SECRETS.removeprefix(b"/secret") + b"c0", meta.uid(obj)
        )
        assert json.loads(found or b"")["serviceAccountToken"] == ("token-of-c0" if at == 3 else "moved")


def built(tmp_path: Path, *keys: str, sealed: bool = False) -> Sealer:
    chosen = Settings(data_dir=tmp_path, seal_keys=tuple(map(SealKey.parse, keys)))
    return sealsources.build(chosen, DataDir.open(tmp_path), sealed)


def test_the_first_start_makes_a_key_file_and_a_later_one_finds_it(tmp_path: Path) -> None:
    first = built(tmp_path)
    file = tmp_path / "pki" / "seal.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert built(tmp_path, sealed=True).sources[0].keys == first.sources[0].keys


def test_a_lost_key_file_is_never_made_anew_beside_what_it_sealed(tmp_path: Path) -> None:
    sealer = built(tmp_path, sealed=True)
    assert not (tmp_path / "pki" / "seal.key").exists()
    with pytest.raises(SealError, match=r"seal\.key gives no key \(No such file or directory\)"):
        sealer.seal(b"x", b"")
    (tmp_path / "pki" / "seal.key").write_text(OLD)
    source = sealer.sources[0]
    assert isinstance(source, Keys)
    assert source.look()
    assert sealer.unseal(sealer.seal(b"x", b""), b"") == b"x"


def test_a_key_file_that_is_damaged_while_running_leaves_the_keys_in_use(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(OLD)
    (source, *_) = built(tmp_path, f"file:{file}").sources
    assert isinstance(source, Keys)
    file.write_text("half a ke")
    assert (source.look(), source.keys) == (False, (OLD_ID,))
    assert "gives no key (line 1 is no key" in source.why
    file.write_text(f"{NEW}\n{OLD}\n")
    assert (source.look(), source.keys, source.why) == (True, (NEW_ID, OLD_ID), "")


async def test_a_key_file_that_is_read_without_end_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that nobody writes to, as a file of a network's that is away."""
    monkeypatch.setattr(sealsources, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(sealsources, "HANG_SECONDS", 0.05)
    file, changed = tmp_path / "key", asyncio.Event()
    file.write_text(OLD)
    (source, *_) = built(tmp_path, f"file:{file}").sources
    file.unlink()
    os.mkfifo(file)
    task = asyncio.create_task(source.run(changed.set))
    async with asyncio.timeout(120):
        while "does not end" not in source.why:  # noqa: ASYNC110  the source tells nobody
            await asyncio.sleep(0.01)  # which a read on the event loop would not let end
        assert list(source.keys) == [OLD_ID]
        writer = await asyncio.to_thread(file.open, "w")  # once the read is there
        writer.write(f"{NEW}\n{OLD}\n")
        file.unlink()  # so that no other read waits
        file.write_text(f"{NEW}\n{OLD}\n")
        writer.close()
        await changed.wait()
    assert (*source.keys, source.why) == (NEW_ID, OLD_ID, "")
    task.cancel()
    await asyncio.wait({task})


def test_with_other_sources_the_key_file_of_the_data_directory_still_opens(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(NEW)
    sealed = built(tmp_path).seal(b"x", b"")
    later = built(tmp_path, f"file:{tmp_path / 'key'}", "unix:///run/kms.sock", sealed=True)
    own = f"file:{tmp_path}/pki/seal.key"
    assert [each.name for each in later.sources] == [f"file:{tmp_path}/key", "unix:///run/kms.sock", own]
    assert (later.unseal(sealed, b""), later.fresh(sealed)) == (b"x", False)
    assert [each.name for each in built(tmp_path, own).sources] == [own]
    assert [each.name for each in built(tmp_path / "other", "env:NOT_THERE").sources] == ["env:NOT_THERE"]


_CHILD = """
import os, subprocess, sys
from onepass.runtime import sealsources
value = sealsources.take("MY_KEY")
child = subprocess.run(["env"], capture_output=True, text=True).stdout
began_with = open("/proc/self/environ", "rb").read()
print(len(value), "MY_KEY" in child, value in child, value.encode() in began_with, b"KEPT=kept" in began_with)
print(sealsources.take("MY_KEY"))
"""


def test_a_key_from_the_environment_is_seen_by_nobody_afterwards() -> None:
    environment = os.environ | {"MY_KEY": OLD, "KEPT": "kept"}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD], env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split("\n")[:2] == [f"{len(OLD)} False False False True", "None"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("file:/etc/onepass/seal.key", "file:/etc/onepass/seal.key"),
        ("file:///etc/onepass/seal.key", "file:/etc/onepass/seal.key"),
        ("env:ONEPASS_SEAL_KEY", "env:ONEPASS_SEAL_KEY"),
        ("unix:///run/kms/kms.sock", "unix:///run/kms/kms.sock"),
        ("unix:/run/kms/kms.sock", "unix:///run/kms/kms.sock"),
    ],
)
def test_where_a_key_comes_from(text: str, shown: str) -> None:
    assert str(SealKey.parse(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "file:",
        "env:",
        "env:A=B",
        "env:1A",
        "unix:kms.sock",
        "unix:",
        "tcp://1.2.3.4:5",
        f"unix:///{'x' * 107}",
        OLD,
    ],
)
def test_what_names_no_source_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        SealKey.parse(text)
    assert str(caught.value) == "--seal-key: give file:PATH, env:NAME, or unix:///PATH of a KMS v2 plugin's socket"


def test_a_source_twice_and_a_timeout_of_nothing_are_refused() -> None:
    with pytest.raises(SettingsError, match="the same source is given twice"):
        Settings(seal_keys=(SealKey.parse("env:A"), SealKey.parse("env:A")))
    for timeout in (0.0, -1.0, 61.0, float("nan")):
        with pytest.raises(SettingsError, match="--kms-timeout"):
            Settings(kms_timeout=timeout)
