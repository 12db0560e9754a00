"""Storage addresses."""

from pathlib import Path

import pytest

from onepass.storage import address
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
    assert str(address.sqlite_path(written)) == path


def test_a_path_comes_back_from_its_address(tmp_path: Path) -> None:
    assert address.sqlite_path(f"sqlite://{tmp_path}/store.db") == tmp_path / "store.db"
    assert address.sqlite_path(f"sqlite:///{tmp_path}/store.db") == tmp_path / "store.db"


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
        ("etcd://127.0.0.1:2379", "etcd storage is not supported by this version"),
        ("postgres://user:hunter2@db/onepass", "postgres storage is not supported"),
    ],
)
def test_anything_else_is_refused_with_what_to_write(written: str, sentence: str) -> None:
    with pytest.raises(Unusable) as caught:
        address.sqlite_path(written)
    assert sentence in str(caught.value)
    assert "write sqlite:///PATH with an absolute path" in str(caught.value)
    assert "hunter2" not in str(caught.value)
