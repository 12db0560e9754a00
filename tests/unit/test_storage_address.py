"""Storage addresses."""

from pathlib import Path

import pytest

from onepass.storage import address
from onepass.storage.address import Etcd, Sqlite
from onepass.storage.interface import Unusable


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("sqlite:///var/lib/onepass.db", "/var/lib/onepass.db"),
        ("sqlite:////var/lib/onepass.db", "/var/lib/onepass.db"),
        ("SQLITE:///a", "/a"),
        ("sqlite:///with%20space/100%25.db", "/with space/100%.db"),
        ("sqlite:///with space.db", "/with space.db"),
        ("sqlite:///a:b@c", "/a:b@c"),
    ],
)
def test_a_sqlite_address_names_an_absolute_path(written: str, path: str) -> None:
    assert address.parse(written) == Sqlite(Path(path))


def test_a_path_comes_back_from_its_address(tmp_path: Path) -> None:
    assert address.parse(f"sqlite://{tmp_path}/store.db") == Sqlite(tmp_path / "store.db")
    assert address.parse(f"sqlite:///{tmp_path}/store.db") == Sqlite(tmp_path / "store.db")


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("", "'' is not a storage address"),
        ("/var/lib/onepass.db", "'/var/lib/onepass.db' is not a storage address"),
        ("sqlite:", "names no absolute path"),
        ("sqlite:onepass.db", "names no absolute path"),
        ("sqlite:/onepass.db", "names no absolute path"),
        ("sqlite://onepass.db", "names no absolute path"),
        ("sqlite://host/onepass.db", "names no absolute path"),
        ("sqlite:///", "names no file"),
        ("sqlite:////", "names no file"),
        ("sqlite:///directory/", "names no file"),
        ("sqlite:///a%00b", "names no file"),
        ("sqlite:///a?mode=ro", "has options, and there are none"),
        ("sqlite:///a?", "has options, and there are none"),
        ("sqlite:///a#b", "has options, and there are none"),
        ("sqlite://[::1/a", "is not a URL"),
        ("postgres://user:hunter2@db/onepass", "postgres storage is not supported"),
    ],
)
def test_anything_else_is_refused_with_what_to_write(written: str, sentence: str) -> None:
    with pytest.raises(Unusable) as caught:
        address.parse(written)
    assert sentence in str(caught.value)
    assert "write sqlite:///PATH with an absolute path" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "etcd"),
    [
        ("etcd://127.0.0.1:2379", Etcd(("127.0.0.1:2379",))),
        ("etcds://etcd-0.etcd:2379,etcd-1.etcd:2379/", Etcd(("etcd-0.etcd:2379", "etcd-1.etcd:2379"), tls=True)),
        ("ETCDS://[::1]:2379/a/b", Etcd(("[::1]:2379",), "a/b", tls=True)),
        ("etcd://a:1,a:1", Etcd(("a:1",))),
    ],
)
def test_an_etcd_address_names_servers_and_a_prefix(written: str, etcd: Etcd) -> None:
    assert address.parse(written) == etcd


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("etcd://", "'' is no HOST:PORT"),
        ("etcd:127.0.0.1:2379", "'' is no HOST:PORT"),
        ("etcd://etcd-0", "'etcd-0' is no HOST:PORT"),
        ("etcd://etcd-0:0", "is no HOST:PORT"),
        ("etcd://etcd-0:65536", "is no HOST:PORT"),
        ("etcd://a:1,,b:2", "'' is no HOST:PORT"),
        ("etcd://a:1, b:2", "' b:2' is no HOST:PORT"),
        ("etcd://root:hunter2@a:1", "has a user in it"),
        ("etcd://a:1/b?tls=true", "has options"),
        ("etcd://a:1/b c", "the prefix may have"),
        ("etcd://a:1/b//c", "the prefix may have"),
        ("etcd://[::1:2379", "is not a URL"),
    ],
)
def test_a_wrong_etcd_address_is_refused_with_what_to_write(written: str, sentence: str) -> None:
    with pytest.raises(Unusable) as caught:
        address.parse(written)
    assert sentence in str(caught.value)
    assert "write etcd://HOST:PORT" in str(caught.value)
    assert "hunter2" not in str(caught.value)
