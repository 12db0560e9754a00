"""What etcd alone can do to the storage: servers that stop, die, forget, are shared, ask who we are."""

import asyncio
import json
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from tests.contract.conftest import DEADLINE, fill, keys, take, until_progress
from tests.contract.followers import follow
from tests.machine import free_port
from tests.programs import etcds
from tests.programs.debian import DebianMissing
from tests.programs.etcds import Etcd

from onepass.storage import etcd
from onepass.storage.etcd import EtcdStorage, Limits
from onepass.storage.etcdclient import Access, Patience
from onepass.storage.interface import Compacted, Op, OutcomeUnknown, Storage, Unavailable, Unusable

HASTY = Limits(quiet=0.05, pause=0.02, patience=Patience(connect=2, read=1, write=2, pause=0.05))


@asynccontextmanager
async def opened(servers: Sequence[Etcd], prefix: str = "p", limits: Limits = HASTY) -> AsyncIterator[EtcdStorage]:
    storage = await etcd.open_etcd(Access([each.server for each in servers]), prefix, limits)
    try:
        yield storage
    finally:
        await storage.close()


@contextmanager
def running(count: int = 1, flags: Sequence[str] = ()) -> Iterator[Sequence[Etcd]]:
    try:
        etcds.program()
    except DebianMissing as missing:
        pytest.skip(str(missing))
    with etcds.running(count, flags) as cluster:
        yield cluster


@pytest.fixture
def server() -> Iterator[Etcd]:
    """One that a test may ill-treat."""
    with running() as [one]:
        yield one


class Writer:
    """Writes two keys in one commit, again and again, and knows the last that was acknowledged."""

    def __init__(self, storage: Storage, name: bytes) -> None:
        self.storage = storage
        self.name = name
        self.acknowledged = 0
        self.revisions: list[int] = []
        self.failures = 0
        self.stop = False
        self._happened = asyncio.Event()

    async def run(self) -> None:
        number = 0
        while not self.stop:
            number += 1
            value = b"%d" % number
            try:
                gone = value if number % 3 == 0 else None
                ops = [Op(b"/left/" + self.name, value), Op(b"/right/" + self.name, value)]
                ops.append(Op(b"/gone/" + self.name, gone))
                self.revisions.append(await self.storage.commit(ops))
                self.acknowledged = number
            except Unavailable:
                self.failures += 1
                await asyncio.sleep(0.01)
            self._happened.set()

    async def more(self, count: int = 20) -> None:
        """Returns when that many more commits were acknowledged."""
        goal = len(self.revisions) + count
        await self._until(lambda: len(self.revisions) >= goal)

    async def failing(self) -> None:
        goal = self.failures + 1
        await self._until(lambda: self.failures >= goal)

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not holds():
                self._happened.clear()
                await self._happened.wait()


async def survive(servers: Sequence[Etcd], trouble: Callable[[list[Writer]], Awaitable[None]]) -> None:
    """Writers and followers on two storages while there is trouble: nothing is lost, doubled or out of order."""
    async with opened(servers) as one, opened(list(reversed(servers))) as two:
        followers = [await follow(storage, prefix) for storage in (one, two) for prefix in (b"", b"/left/", b"/gone/")]
        writers = [Writer(one, b"1"), Writer(one, b"2"), Writer(two, b"3")]
        async with asyncio.TaskGroup() as group:
            for writer in writers:
                group.create_task(writer.run())
            await writers[0].more()
            await trouble(writers)
            for writer in writers:
                await writer.more()
                writer.stop = True
        end = await one.range(b"")
        assert (await two.range(b"")).records == end.records
        for follower in followers:
            await follower.reach(end.revision)
            assert follower.records == [r for r in end.records if r.key.startswith(follower.prefix)]
        values = {record.key: record.value for record in end.records}
        acknowledged = [revision for writer in writers for revision in writer.revisions]
        assert len(set(acknowledged)) == len(acknowledged), "a revision belongs to one commit"
        for writer in writers:
            assert writer.revisions == sorted(writer.revisions)
            assert values[b"/left/" + writer.name] == values[b"/right/" + writer.name], "a commit is whole"
            assert int(values[b"/left/" + writer.name]) >= writer.acknowledged


async def test_a_server_that_is_stopped_for_a_while(server: Etcd) -> None:
    async def trouble(writers: list[Writer]) -> None:
        server.signal(signal.SIGSTOP)
        try:
            await writers[0].failing()
        finally:
            server.signal(signal.SIGCONT)

    await survive([server], trouble)


async def test_whether_a_write_was_done_is_told_as_far_as_it_is_known(server: Etcd) -> None:
    async with opened([server]) as storage:
        revision = await storage.commit([Op(b"/a", b"1")])
        server.signal(signal.SIGSTOP)
        try:
            with pytest.raises(OutcomeUnknown):
                await storage.commit([Op(b"/a", b"2", expected=revision)])
        finally:
            server.signal(signal.SIGCONT)
        await storage.revision()
        server.kill()
        with pytest.raises(Unavailable):
            await storage.revision()  # by which it is known that there is no connection any more
        with pytest.raises(Unavailable, match="refused") as nothing:
            await storage.commit([Op(b"/a", b"3")])
        assert not isinstance(nothing.value, OutcomeUnknown)
        server.start()
        server.ready()
        found = await storage.get(b"/a")
        assert found is not None
        assert found.value in (b"1", b"2")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_server_that_goes_and_comes_back(server: Etcd, how: signal.Signals) -> None:
    async def trouble(writers: list[Writer]) -> None:
        for _ in range(2):
            assert server.process is not None
            server.signal(how)
            await writers[0].failing()
            await asyncio.to_thread(server.process.wait)
            server.start()
            await writers[0].more()

    await survive([server], trouble)


async def test_a_cluster_that_loses_one_server_after_the_other() -> None:
    with running(3) as cluster:

        async def trouble(writers: list[Writer]) -> None:
            for _ in range(2):
                leader = led(cluster)
                leader.kill()
                for writer in writers:
                    await writer.more()
                leader.start(cluster)
                await asyncio.to_thread(leader.ready)

        await survive(cluster, trouble)


def led(cluster: Sequence[Etcd]) -> Etcd:
    """The leader."""
    for each in cluster:
        [told] = json.loads(each.ctl("endpoint", "status", "--write-out=json"))
        if told["Status"]["leader"] == told["Status"]["header"]["member_id"]:
            return each
    raise AssertionError("there is no leader")


async def test_a_server_that_lost_the_others_is_not_asked() -> None:
    with running(3) as cluster:
        limits = replace(HASTY, patience=replace(HASTY.patience, whole=0.5))  # nobody answers: one try says as much
        async with opened(cluster, limits=limits) as storage:
            follower = await follow(storage, b"")
            others = cluster[1:]
            for each in others:
                each.signal(signal.SIGSTOP)
            with pytest.raises(Unavailable):
                await storage.get(b"/a")
            with pytest.raises(Unavailable):
                await storage.commit([Op(b"/a", b"1")])
            for each in others:
                each.signal(signal.SIGCONT)
            async with asyncio.timeout(DEADLINE):
                while True:
                    try:
                        revision = await storage.commit([Op(b"/b", b"2")])
                        break
                    except Unavailable:
                        await asyncio.sleep(0.05)
            await follower.reach(revision)


# History that is gone


async def test_watchers_begin_anew_when_etcd_has_forgotten_what_they_missed(server: Etcd) -> None:
    async with opened([server]) as deaf, opened([server]) as other:
        watch = deaf.watch(b"", await deaf.revision())
        assert await until_progress(watch) == []
        deaf._feeding.cancel()  # nobody tells it anything meanwhile
        await asyncio.wait((deaf._feeding,))
        revisions = await fill(other, b"/a", b"/a", b"/a")
        await other.compact(revisions[-1])
        deaf._feeding = asyncio.create_task(deaf._feed())
        with pytest.raises(Compacted) as caught:
            await take(watch, 1)
        assert caught.value.oldest == revisions[-1]
        follower = await follow(deaf, b"")
        await follower.reach(await other.commit([Op(b"/a", None)]))
        assert follower.records == []


async def test_etcd_that_comes_back_empty_is_noticed(server: Etcd) -> None:
    async with opened([server]) as storage:
        await fill(storage, *(b"/%d" % n for n in range(20)))
        watch = storage.watch(b"", await storage.revision())
        assert await until_progress(watch) == []
        server.kill()
        shutil.rmtree(server.directory / server.name)
        server.start()
        with pytest.raises(Compacted):
            await take(watch, 1)
        follower = await follow(storage, b"")
        assert follower.records == []
        await follower.reach(await storage.commit([Op(b"/new", b"")]))
        assert [record.key for record in follower.records] == [b"/new"]


async def test_history_is_compacted_as_it_grows_old(server: Etcd) -> None:
    async with opened([server], limits=Limits(history=0.01, tick=0.01)) as storage:
        revisions = await fill(storage, b"/a", b"/a", b"/a")
        running = asyncio.create_task(storage.run())
        async with asyncio.timeout(DEADLINE):
            while not await forgotten(storage, revisions[0]):
                pass
        running.cancel()
        await asyncio.wait((running,))
        assert keys(await storage.range(b"")) == [b"/a"]


async def forgotten(storage: Storage, revision: int) -> bool:
    try:
        await storage.range(b"", revision=revision)
    except Compacted:
        return True
    return False


# Others on the same etcd


async def test_two_prefixes_are_two_stores(server: Etcd) -> None:
    async with opened([server], "one") as one, opened([server], "/one/more/") as two, opened([server], "") as root:
        watch = one.watch(b"", await one.revision())
        await fill(two, b"/theirs")
        await fill(root, b"/all")
        (mine,) = await fill(one, b"/mine")
        assert [(c.revision, c.key) for c in await take(watch, 1)] == [(mine, b"/mine")]
        for storage, name in ((one, b"/mine"), (two, b"/theirs"), (root, b"/all")):
            assert keys(await storage.range(b"")) == [name]
    assert server.ctl("get", "--prefix", "/", "--keys-only").split() == [
        "/data/all",
        "/one/data/mine",
        "/one/more/data/theirs",
        "/one/more/tip",
        "/one/tip",
        "/tip",
    ]


async def test_a_quiet_store_keeps_up_with_an_etcd_that_others_write_to(server: Etcd) -> None:
    async with opened([server], limits=Limits(quiet=0.01, tick=0.01)) as storage:
        watch = storage.watch(b"", await storage.revision())
        running = asyncio.create_task(storage.run())
        server.ctl("put", "/elsewhere", "1")
        behind = await storage.revision()
        async with asyncio.timeout(DEADLINE):
            async for event in watch:
                if event.revision >= behind:
                    break
        running.cancel()
        await asyncio.wait((running,))


async def test_what_a_newer_version_wrote_is_left_alone(server: Etcd) -> None:
    server.ctl("put", "/p/tip", "2")
    with pytest.raises(Unusable, match="/p/ was written by a newer onepass"):
        async with opened([server]):
            pass


# Who we are


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.crt")
    leaves = (("server", made.issue_cert("127.0.0.1")), ("client", made.issue_cert("c.test", common_name="c")))
    for name, leaf in leaves:
        leaf.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        leaf.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.crt")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.crt")
    return made


async def test_tls_on_both_sides(authority: trustme.CA, tmp_path: Path) -> None:
    flags = [
        f"--cert-file={tmp_path / 'server.crt'}",
        f"--key-file={tmp_path / 'server.key'}",
        "--client-cert-auth",
        f"--trusted-ca-file={tmp_path / 'ca.crt'}",
    ]
    with running(1, flags) as [server]:
        good = Access(
            [server.server],
            tls=True,
            ca=tmp_path / "ca.crt",
            certificate=tmp_path / "client.crt",
            key=tmp_path / "client.key",
        )
        storage = await etcd.open_etcd(good, "p", HASTY)
        await fill(storage, b"/a")
        assert keys(await storage.range(b"")) == [b"/a"]
        await storage.close()
        for access, why in (
            (replace(good, ca=tmp_path / "other.crt"), "CERTIFICATE_VERIFY_FAILED"),
            (Access([server.server], tls=True, ca=tmp_path / "ca.crt"), "."),
            (Access([server.server]), "."),
            (
                Access([server.server], tls=True, ca=tmp_path / "absent.crt"),
                "cannot read .*absent.crt: No such file",
            ),
        ):
            with pytest.raises((Unavailable, Unusable), match=why):
                await etcd.open_etcd(access, "p", HASTY)


async def test_a_client_certificate_renewed_on_disk_is_taken_once_the_old_one_is_refused(
    authority: trustme.CA, tmp_path: Path
) -> None:
    (tmp_path / "clients.crt").write_bytes((tmp_path / "ca.crt").read_bytes())
    flags = [
        f"--cert-file={tmp_path / 'server.crt'}",
        f"--key-file={tmp_path / 'server.key'}",
        "--client-cert-auth",
        f"--trusted-ca-file={tmp_path / 'clients.crt'}",
    ]
    ca, certificate, key = (tmp_path / name for name in ("ca.crt", "client.crt", "client.key"))
    with running(1, flags) as [server]:
        access = Access([server.server], tls=True, ca=ca, certificate=certificate, key=key)
        storage = await etcd.open_etcd(access, "p", HASTY)
        follower = await follow(storage, b"")
        await fill(storage, b"/a")
        other = trustme.CA()
        other.cert_pem.write_to_path(tmp_path / "clients.crt")
        leaf = other.issue_cert("c.test", common_name="c")
        server.kill()
        server.start()
        server.ready()
        with pytest.raises(Unavailable):  # the old certificate is not taken any more
            await storage.get(b"/a")
        leaf.private_key_pem.write_to_path(key)
        leaf.cert_chain_pems[0].write_to_path(certificate)
        async with asyncio.timeout(DEADLINE):
            while True:
                try:
                    [revision] = await fill(storage, b"/b")
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
        await follower.reach(revision)
        assert [record.key for record in follower.records] == [b"/a", b"/b"]
        await storage.close()


async def test_a_user_with_a_password_and_rights_on_the_prefix_alone(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("s3cret\n")
    with running() as [server]:
        server.ctl("user", "add", "root:toor")
        server.ctl("user", "grant-role", "root", "root")
        server.ctl("user", "add", "onepass:s3cret")
        server.ctl("role", "add", "onepass")
        server.ctl("role", "grant-permission", "--prefix=true", "onepass", "readwrite", "/p/")
        server.ctl("user", "grant-role", "onepass", "onepass")
        server.ctl("auth", "enable")
        ours = Access([server.server], user="onepass", password=password)
        storage = await etcd.open_etcd(ours, "p", HASTY)
        follower = await follow(storage, b"")
        first = storage._client._token
        server.ctl("--user=root:toor", "user", "passwd", "--interactive=false", "onepass", input="n3w")
        password.write_text("n3w")
        last = await storage.commit([Op(b"/a", b"1")])
        assert storage._client._token != first
        await follower.reach(last)
        await storage.close()
        wrong = tmp_path / "wrong"
        wrong.write_text("guess")
        for access, prefix, why in (
            (Access([server.server]), "p", "user name is empty"),
            (Access([server.server], user="onepass", password=wrong), "p", "invalid user ID or password"),
            (
                Access([server.server], user="onepass", password=tmp_path / "absent"),
                "p",
                "cannot read the password",
            ),
            (ours, "q", "permission denied"),
        ):
            with pytest.raises(Unusable, match=why) as caught:
                await etcd.open_etcd(access, prefix, HASTY)
            assert "n3w" not in str(caught.value)
            assert "guess" not in str(caught.value)


async def test_nobody_there() -> None:
    port = free_port()
    with pytest.raises(Unavailable, match=r"[Cc]onnection refused"):
        await etcd.open_etcd(Access([f"127.0.0.1:{port}"]), "p", HASTY)
