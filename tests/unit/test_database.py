"""Which storage an operator may choose, and the sentence for what cannot be."""

from pathlib import Path

import pytest

from onepass.pki import authority, certificates, keys
from onepass.runtime import database
from onepass.runtime.settings import EtcdAccess, Settings, SettingsError

NOW = 1_700_000_000.0


def settings(storage: str, **etcd: object) -> Settings:
    return Settings(storage=storage, etcd=EtcdAccess(**etcd))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tls")
    made, other = authority.create("etcd", NOW), authority.create("other", NOW)
    written = {
        "ca": certificates.to_pem([made.certificate]),
        "key": keys.to_pem(made.key),
        "other": keys.to_pem(other.key),
        "empty": b"",
        "password": b"hunter2\n",
    }
    for name, content in written.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in written} | {"missing": folder / "missing"}


def test_only_etcd_is_shared(tmp_path: Path) -> None:
    assert not database.place(Settings(data_dir=tmp_path)).shared
    found = database.place(settings("etcd://127.0.0.1:2379/a"))
    assert found.shared
    assert str(found.where) == "etcd at 127.0.0.1:2379"


def test_whatever_etcd_asks_for_can_be_given(files: dict[str, Path]) -> None:
    given = {"ca": files["ca"], "certificate": files["ca"], "key": files["key"]}
    found = database.place(settings("etcds://a:1,b:2", **given, user="onepass", password=files["password"]))
    assert found.access is not None
    assert (found.access.servers, found.access.tls, found.access.user) == (("a:1", "b:2"), True, "onepass")


@pytest.mark.parametrize("server", ["127.0.0.1:1", "[::1]:1", "localhost:1"])
def test_a_password_may_go_to_this_machine_without_tls(files: dict[str, Path], server: str) -> None:
    assert database.place(settings(f"etcd://{server}", user="onepass", password=files["password"])).shared


@pytest.mark.parametrize(
    ("address", "given", "sentence"),
    [
        ("etcd://a", {}, "--storage: the storage address 'etcd://a'"),
        ("", {"user": "x"}, "the --etcd options are of use with --storage etcd"),
        ("sqlite:///a", {"ca": "ca"}, "the --etcd options are of use with --storage etcd"),
        ("etcd://a:1", {"ca": "ca"}, "--etcd-cafile is of use with TLS only"),
        ("etcd://a:1", {"certificate": "ca", "key": "key"}, "--etcd-certfile is of use with TLS only"),
        ("etcds://a:1", {"certificate": "ca"}, "give both, or none"),
        ("etcds://a:1", {"key": "key"}, "give both, or none"),
        ("etcds://a:1", {"ca": "missing"}, "--etcd-cafile .*missing: No such file"),
        ("etcds://a:1", {"ca": "empty"}, "has no certificate"),
        ("etcds://a:1", {"certificate": "ca", "key": "other"}, "does not belong to the certificate"),
        ("etcds://a:1", {"certificate": "missing", "key": "key"}, "--etcd-certfile .*missing: No such file"),
        ("etcds://a:1", {"certificate": "empty", "key": "key"}, "--etcd-certfile"),
        ("etcds://a:1", {"user": "x"}, "--etcd-user and --etcd-password-file: give both"),
        ("etcds://a:1", {"password": "password"}, "--etcd-user and --etcd-password-file: give both"),
        ("etcds://a:1", {"user": "x", "password": "missing"}, "--etcd-password-file .*missing: No such file"),
        ("etcd://127.0.0.1:1,a:1", {"user": "x", "password": "password"}, "a password goes over TLS only"),
    ],
)
def test_what_cannot_be_is_told_at_once(
    files: dict[str, Path], address: str, given: dict[str, str], sentence: str
) -> None:
    chosen: dict[str, object] = {k: v if k == "user" else files[v] for k, v in given.items()}
    with pytest.raises(SettingsError, match=sentence) as caught:
        database.place(settings(address, **chosen))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("seconds", [1.0, 9.9, 90_000.0, -1.0])
def test_history_has_bounds(seconds: float) -> None:
    with pytest.raises(SettingsError, match="--etcd-compaction-interval"):
        EtcdAccess(compaction=seconds)
