"""What a host cluster says of its front proxy: taken when it is whole, and told when it is not."""

import time
from pathlib import Path

import pytest
import trustme

from onepass.gateway import ir
from onepass.pki import certificates
from onepass.runtime import hostcluster
from onepass.runtime.settings import Extension, Listen, Settings, SettingsError

LISTEN = Listen.parse("127.0.0.1:6444")
CA = trustme.CA().cert_pem.bytes()
DATA = {
    "requestheader-client-ca-file": CA.decode(),
    "requestheader-allowed-names": '["front-proxy-client"]',
    "requestheader-username-headers": '["X-Remote-User"]',
    "requestheader-group-headers": '["X-Remote-Group","X-Other"]',
    "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
}


def test_a_config_map_as_kube_apiserver_writes_it() -> None:
    found = hostcluster.of_config_map(Extension(LISTEN, passes="narrow"), DATA, time.time())
    assert found == ir.Front(
        *("127.0.0.1", 6444, found.ca, ("front-proxy-client",)),
        groups=("x-remote-group", "x-other"),
        uids=(),
        passes="narrow",
    )
    assert found.ca.split() == CA.split()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"requestheader-client-ca-file": ""}, "runs without an aggregator"),
        ({"requestheader-client-ca-file": 1}, "runs without an aggregator"),
        ({"requestheader-client-ca-file": "no"}, "is not PEM"),
        ({"requestheader-allowed-names": "front"}, "is not JSON"),
        ({"requestheader-allowed-names": '{"a": 1}'}, "is not a list of names"),
        ({"requestheader-allowed-names": "[1]"}, "is not a list of names"),
        ({"requestheader-username-headers": "[]"}, "name no header"),
    ],
)
def test_what_does_not_say_it_is_refused(change: dict[str, object], why: str) -> None:
    with pytest.raises(hostcluster.HostError, match=why):
        hostcluster.of_config_map(Extension(LISTEN), DATA | change, time.time())


def test_a_file_of_the_operator(tmp_path: Path) -> None:
    (file := tmp_path / "ca.crt").write_bytes(CA)
    found = hostcluster.of_files(Extension(LISTEN, client_ca_file=file, username_headers=("X-User",)), time.time())
    assert (found.allowed, found.users, found.passes) == ((), ("x-user",), "ignore")
    file.write_bytes(b"")
    with pytest.raises(SettingsError, match="is not PEM"):
        hostcluster.of_files(Extension(LISTEN, client_ca_file=file), time.time())
    with pytest.raises(SettingsError):
        hostcluster.of_files(Extension(LISTEN, client_ca_file=tmp_path / "none"), time.time())


def test_the_file_is_followed_and_what_is_withdrawn_is_remembered(tmp_path: Path) -> None:
    old, new = trustme.CA().cert_pem.bytes(), trustme.CA().cert_pem.bytes()
    (file := tmp_path / "ca.crt").write_bytes(old)
    found: list[ir.Front] = []
    followed = hostcluster.HostCluster(Extension(LISTEN, client_ca_file=file), found.append, lambda: b"")
    (of_old,) = (certificates.digest(each) for each in certificates.chain(old))
    steps = [
        (old, True, ()),
        (old, False, ()),
        (b"", False, ()),
        (b"no", False, ()),
        (old + new, True, ()),
        (new, True, (of_old,)),
        (old, True, tuple(certificates.digest(each) for each in certificates.chain(new))),  # and back again
    ]
    for content, tells, withdrawn in steps:
        file.write_bytes(content)
        before = len(found)
        followed.look_at_file()
        assert (len(found) > before, found[-1].withdrawn) == (tells, withdrawn)
    file.unlink()
    followed.look_at_file()
    assert found[-1].ca.split() == old.split()


@pytest.mark.parametrize("text", ["", "[]", "{}", "a: [", "current-context: a"])
def test_a_kubeconfig_that_leads_nowhere(tmp_path: Path, text: str) -> None:
    (file := tmp_path / "config").write_text(text)
    with pytest.raises(hostcluster.HostError, match="is not a usable kubeconfig"):
        hostcluster.client(Extension(LISTEN, kubeconfig=file))
    with pytest.raises(hostcluster.HostError, match="not found"):
        hostcluster.client(Extension(LISTEN, kubeconfig=tmp_path / "none"))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"passes": "perhaps"}, "give ignore or narrow"),
        ({"username_headers": ()}, "give at least one"),
        ({"group_headers": ("X Group",)}, "give the name of a header"),
        ({"extra_headers_prefix": ("",)}, "give the name of a header"),
        ({"uid_headers": ("x:y",)}, "give the name of a header"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, tuple[str, ...]], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        Extension(LISTEN, **given)  # type: ignore[arg-type]


def test_the_port_is_one_of_its_own() -> None:
    with pytest.raises(SettingsError, match="own port"):
        Settings(listen=LISTEN, extension=Extension(LISTEN))
    with pytest.raises(SettingsError, match="--extension-listen"):
        Listen.parse("nowhere", "--extension-listen")
