"""The administrator's kubeconfig: it follows the clusters, keeps what a person chose, and costs little for many."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml
from tests.unit.conftest import member
from tests.waiting import eventually

from onepass.api.meta import JSON, Object
from onepass.pki import sealkeys
from onepass.registry import clusters
from onepass.registry.mirror import Mirror
from onepass.registry.store import Store, Write
from onepass.runtime import adminkubeconfig, kubeconfig
from onepass.runtime.adminkubeconfig import AdminKubeconfig
from onepass.runtime.kubeconfig import Entry, Writer
from onepass.runtime.sealer import Sealer
from onepass.runtime.sealsources import Keys
from onepass.storage.interface import Storage

ENTRY = Entry("https://gateway.test", b"authority", "admin", b"certificate", b"key")


@dataclass
class Site:
    store: Store
    write: Write
    admin: AdminKubeconfig

    async def create(self, name: str) -> None:
        await self.store.create("", member(name), self.write)

    def told(self) -> Object:
        """What the file holds; nothing when it is none, or no kubeconfig."""
        try:
            found = yaml.safe_load(self.admin.path.read_bytes())
        except (FileNotFoundError, yaml.YAMLError):
            return {}
        return found if isinstance(found, dict) else {}

    async def until(self, holds: Callable[[Object], bool]) -> None:
        await asyncio.to_thread(eventually, lambda: holds(self.told()))


@asynccontextmanager
async def following(storage: Storage, write: Write, path: Path) -> AsyncGenerator[Site]:
    store = Store(storage, clusters.strategy(), sealer=Sealer([Keys("test", sealkeys.generate)]))
    mirror = Mirror({clusters.RESOURCE.key: store})
    site = Site(store, write, AdminKubeconfig(path, ENTRY, mirror))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(mirror.run()), group.create_task(site.admin.run())]
        yield site
        for task in tasks:
            task.cancel()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adminkubeconfig, "_HOLD", 0.01)


def contexts(config: Object) -> list[str]:
    listed = config.get("contexts")
    return [str(each["name"]) for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


def use(path: Path, name: str) -> None:
    """As `kubectl config use-context` does, which writes the keys in another order."""
    config = yaml.safe_load(path.read_bytes())
    path.write_bytes(yaml.safe_dump({**config, "current-context": name}).encode())


async def test_it_follows_the_clusters_and_keeps_the_context_that_was_chosen(
    storage: Storage, write: Write, tmp_path: Path
) -> None:
    async with following(storage, write, tmp_path / "kubeconfig") as site:
        await site.until(lambda told: contexts(told) == ["onepass"])
        for name in ("a", "b"):
            await site.create(name)
        await site.until(lambda told: contexts(told) == ["onepass", "a", "b"])
        use(site.admin.path, "b")
        await site.create("c")
        await site.until(lambda told: contexts(told) == ["onepass", "a", "b", "c"])
        assert site.told()["current-context"] == "b"
        await site.create("d")  # when the file is as it was left, it is not read
        await site.until(lambda told: contexts(told)[-1] == "d")
        assert site.told()["current-context"] == "b"
        await site.store.delete("", "b", site.write)
        await site.until(lambda told: contexts(told) == ["onepass", "a", "c", "d"])
        assert site.told()["current-context"] in ("a", "onepass")


async def test_renewed_it_leads_to_the_gateway_as_it_is_now(storage: Storage, write: Write, tmp_path: Path) -> None:
    async with following(storage, write, tmp_path / "kubeconfig") as site:
        await site.create("a")
        await site.until(lambda told: contexts(told) == ["onepass", "a"])
        use(site.admin.path, "a")
        site.admin.renew(replace(ENTRY, ca=b"another"))
        assert yaml.safe_load(site.admin.path.read_bytes()) == kubeconfig.document(
            replace(ENTRY, ca=b"another"), ["a"], current="a"
        )


@pytest.mark.parametrize("content", [None, b"", b"\xff{", b"- a list", b"current-context: [a]"])
async def test_a_file_that_is_gone_or_none_of_ours_is_written_anew(
    storage: Storage, write: Write, tmp_path: Path, content: bytes | None
) -> None:
    async with following(storage, write, tmp_path / "kubeconfig") as site:
        await site.until(lambda told: contexts(told) == ["onepass"])
        site.admin.path.unlink()
        if content is not None:
            site.admin.path.write_bytes(content)
        await site.create("a")
        await site.until(lambda told: contexts(told) == ["onepass", "a"])


NAMES = ["a", "b", "null", "1e3", "0x1", "yes", "onepass", "x" * 200]
BARE = ["y", "n", "08", "1e3", "1.5e3", "0o7", "0x1f", "0b1", "12e5", "no", "1.5", "2026-1-2", "7d", "1.2.3"]


def test_kubectl_reads_the_names_that_yaml_has_another_meaning_for(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_bytes(kubeconfig.dump(kubeconfig.document(ENTRY, BARE, current="y")))
    command = [
        str(Path(sys.executable).parent / "kubectl"),
        "--kubeconfig",
        str(path),
        "config",
        "get-contexts",
        "-o",
        "name",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stderr, sorted(done.stdout.split())) == ("", sorted(["onepass", *BARE]))
    assert contexts(yaml.safe_load(path.read_bytes())) == ["onepass", *BARE]


def test_what_is_written_piece_by_piece_is_what_is_written_at_once() -> None:
    writer = Writer()
    for entry in (ENTRY, replace(ENTRY, ca=b"another" * 99)):
        for names in ([], NAMES, NAMES[::-1], NAMES[2:], NAMES):
            config = kubeconfig.document(entry, names, current="b")
            assert writer.dump(config) == kubeconfig.dump(config)
    odd: Object = {"clusters": [1, {"name": "a"}, {"name": "a", "x": 1}], "contexts": [], "current-context": None}
    assert writer.dump(odd) == kubeconfig.dump(odd)


def test_of_many_entries_only_the_new_ones_are_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    writer, names = Writer(), [f"member-{number}" for number in range(100)]
    writer.dump(kubeconfig.document(ENTRY, names))
    written, really = list[JSON](), kubeconfig.dump

    def counted(value: JSON) -> bytes:
        written.append(value)
        return really(value)

    monkeypatch.setattr(kubeconfig, "dump", counted)
    config = kubeconfig.document(ENTRY, [*names[1:], "new"])
    writer.dump(config)
    assert [each for each in written if isinstance(each, list)] == [
        [each for each in listed if isinstance(each, dict) and each["name"] == "new"]
        for listed in (config["clusters"], config["contexts"])
        if isinstance(listed, list)
    ]
    assert len(written) < 10
