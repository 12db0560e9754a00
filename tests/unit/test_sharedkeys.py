"""Keys that replicas share: the storage has them sealed, and each data directory has the same."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from onepass.pki import sealkeys
from onepass.registry import clusters
from onepass.registry.ownkeys import OwnKeys
from onepass.registry.sealed import OWN, Census, Resealing
from onepass.runtime import authorities, sharedkeys, trust
from onepass.runtime.datadir import DataDir
from onepass.runtime.sealer import Sealer
from onepass.runtime.sealsources import Keys
from onepass.runtime.settings import SettingsError
from onepass.runtime.sharedkeys import NotShared, SharedKeys
from onepass.storage import sqlite
from onepass.storage.interface import Op
from onepass.storage.sqlite import SqliteStorage

NOW = 1_700_000_000.0
NAMES = {"client-ca.crt", "client-ca.key", "serving-ca.crt", "serving-ca.key", "accounts.key"}


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SqliteStorage]:
    opened = await sqlite.open_sqlite(tmp_path / "shared.db")
    yield opened
    await opened.close()


def sealer(*keys: str) -> Sealer:
    text = "\n".join(keys) + "\n"
    return Sealer([Keys("test", lambda: text, fixed=True)])


KEY = sealkeys.generate()


def replica(storage: SqliteStorage, folder: Path, key: str = KEY) -> tuple[SharedKeys, DataDir]:
    data = DataDir.open(folder)
    return SharedKeys(OwnKeys(storage, sealer(key), sharedkeys.known), data.pki, lambda: NOW), data


def files(data: DataDir) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in data.pki.iterdir() if path.is_file()}


async def test_the_first_gives_what_it_has_and_the_others_take_it(storage: SqliteStorage, tmp_path: Path) -> None:
    (first, one), (second, two) = replica(storage, tmp_path / "1"), replica(storage, tmp_path / "2")
    await first.share()
    trust.prepare(one, NOW)
    await first.share()
    await second.share()
    assert files(one) == files(two)
    assert files(two).keys() == NAMES
    assert {path.stat().st_mode & 0o777 for path in two.pki.iterdir()} == {0o600}
    stored = (await storage.range(b"")).records
    assert not any(b"PRIVATE" in record.value or b"CERTIFICATE" in record.value for record in stored)


async def test_two_that_begin_at_once_end_with_the_same_keys(storage: SqliteStorage, tmp_path: Path) -> None:
    (first, one), (second, two) = replica(storage, tmp_path / "1"), replica(storage, tmp_path / "2")
    for data in (one, two):
        trust.prepare(data, NOW)
    await first.share()
    made = files(two)
    await second.share()
    assert files(one) == files(two)
    aside = two.pki / f"of-another-gateway-{int(NOW)}"
    assert {path.name: path.read_bytes() for path in aside.iterdir()} == made  # nothing is lost


async def test_what_was_just_made_and_comes_too_late_is_no_other_gateway(
    storage: SqliteStorage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (first, one), (second, two) = replica(storage, tmp_path / "1"), replica(storage, tmp_path / "2")
    assert second.none()
    for data in (one, two):
        trust.prepare(data, NOW)
    assert not second.none()
    await first.share()
    await second.share(unused=True)
    assert files(one) == files(two)
    assert not [path for path in two.pki.iterdir() if path.is_dir()]
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


async def test_the_next_authority_of_one_comes_to_all_and_of_two_the_first_counts(
    storage: SqliteStorage, tmp_path: Path
) -> None:
    (first, one), (second, two) = replica(storage, tmp_path / "1"), replica(storage, tmp_path / "2")
    trust.prepare(one, NOW)
    await first.share()
    await second.share()
    for data in (one, two):
        authorities.rotate(data.pki, authorities.SERVING, NOW)
    authorities.switch(one.pki)
    await first.share()
    await second.share()
    assert files(one) == files(two)
    assert {"serving-ca-2.crt", "serving-ca-2.key", "serving-ca-2.serves"} < files(two).keys()


async def test_an_authority_of_another_gateway_never_comes_to_the_replicas(
    storage: SqliteStorage, tmp_path: Path
) -> None:
    (first, one), (second, two) = replica(storage, tmp_path / "1"), replica(storage, tmp_path / "2")
    trust.prepare(one, NOW)
    await first.share()
    trust.prepare(two, NOW)
    authorities.rotate(two.pki, authorities.CLIENT, NOW)
    await second.share()
    await first.share()
    assert files(one) == files(two)
    assert files(one).keys() == NAMES


async def test_half_an_authority_is_not_shared(storage: SqliteStorage, tmp_path: Path) -> None:
    first, one = replica(storage, tmp_path / "1")
    trust.prepare(one, NOW)
    (one.pki / "client-ca-2.key").write_bytes(b"half")
    (one.pki / "seal.key").write_bytes(b"ours alone")
    (one.pki / "client-ca-2.key.bak").write_bytes(b"something else")
    await first.share()
    assert {record.key.removeprefix(OWN).decode() for record in (await storage.range(OWN)).records} == NAMES


async def test_another_seal_key_is_told_and_nothing_is_written(storage: SqliteStorage, tmp_path: Path) -> None:
    first, one = replica(storage, tmp_path / "1")
    trust.prepare(one, NOW)
    await first.share()
    other, two = replica(storage, tmp_path / "2", sealkeys.generate())
    told = r"own keys in the storage cannot be opened: give the --seal-key of its other replicas.*is not at hand\)$"
    with pytest.raises(SettingsError, match=told):
        await other.share()
    assert files(two) == {}


async def test_a_record_that_was_moved_is_not_taken(storage: SqliteStorage, tmp_path: Path) -> None:
    first, one = replica(storage, tmp_path / "1")
    trust.prepare(one, NOW)
    await first.share()
    for part in (b"crt", b"key"):  # whoever writes the database makes one authority pass for another
        moved = await storage.get(OWN + b"client-ca." + part)
        assert moved is not None
        await storage.commit([Op(OWN + b"serving-ca." + part, moved.value)])
    second, two = replica(storage, tmp_path / "2")
    with pytest.raises(SettingsError, match="cannot be opened"):
        await second.share()
    assert files(two) == {}


@pytest.mark.parametrize(
    "name", [b"\xff\xfe", b"", b"client-ca.crt/../x", b"../admin.key", b"client-ca.pem", b"x.serves"]
)
async def test_a_record_that_no_gateway_wrote_is_passed_over(
    storage: SqliteStorage, tmp_path: Path, name: bytes
) -> None:
    (first, one), (second, two) = replica(storage, tmp_path / "1"), replica(storage, tmp_path / "2")
    trust.prepare(one, NOW)
    await first.share()
    await storage.commit([Op(OWN + name, b"junk")])
    await first.share()
    await second.share()
    assert files(one) == files(two)
    assert files(two).keys() == NAMES


@pytest.mark.parametrize("gone", [NAMES, {"client-ca.crt"}, {"serving-ca.crt", "serving-ca.key"}, {"accounts.key"}])
async def test_what_the_storage_has_lost_comes_back_from_a_replica_and_is_not_made_anew(
    storage: SqliteStorage, tmp_path: Path, gone: set[str]
) -> None:
    (first, one), (second, two) = replica(storage, tmp_path / "1"), replica(storage, tmp_path / "2")
    trust.prepare(one, NOW)
    await first.share()
    before = files(one)
    await storage.commit([Op(OWN + name.encode(), None) for name in gone])
    if gone != NAMES:
        with pytest.raises(NotShared, match=f"has lost {sorted(gone)[0]}"):
            await second.share()
        assert files(two) == {}
    await first.share()
    await second.share()
    assert files(one) == files(two) == before


async def test_a_running_replica_does_not_change_its_keys_for_those_of_another_gateway(
    storage: SqliteStorage, tmp_path: Path
) -> None:
    (first, one), (second, two) = replica(storage, tmp_path / "1"), replica(storage, tmp_path / "2")
    trust.prepare(one, NOW)
    await first.share()
    first.begin()
    before = files(one)
    await storage.commit([Op(OWN + name.encode(), None) for name in NAMES])
    trust.prepare(two, NOW)
    await second.share()
    with pytest.raises(SettingsError, match="another gateway now"):
        await first.share()
    assert files(one) == before
    again, _ = replica(storage, tmp_path / "1")
    await again.share()
    assert files(one) == files(two)


async def test_they_are_sealed_anew_with_everything_else(storage: SqliteStorage, tmp_path: Path) -> None:
    first, one = replica(storage, tmp_path / "1")
    trust.prepare(one, NOW)
    await first.share()
    new = sealkeys.generate()
    both, census = Resealing(storage, clusters.strategy(), sealer(new, KEY)), Census()
    page = await both.page(b"", 100)
    both.count(page, census)
    assert census.waiting == len(NAMES)
    await both.reseal(page, census)
    assert census.waiting == 0
    assert not await both.page(page[-1].key, 100)
    after, two = replica(storage, tmp_path / "2", new)
    await after.share()
    assert files(two) == files(one)
