"""Reading a member's kubeconfig: what is good, and a sentence for everything that is not."""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
import trustme
import yaml
from cryptography.hazmat.primitives import serialization

from onepass.api import meta
from onepass.cli.failure import Failure
from onepass.cli.memberconfig import Access, Kubeconfig

NOW = datetime.now(UTC)
CA = trustme.CA()
LEAF = CA.issue_cert(common_name="admin")
CERTIFICATE = LEAF.cert_chain_pems[0].bytes()
KEY = LEAF.private_key_pem.bytes()
CA_PEM = CA.cert_pem.bytes()


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


X509_USER = {"client-certificate-data": b64(CERTIFICATE), "client-key-data": b64(KEY)}


def document(user: Mapping[str, object], cluster: Mapping[str, object] | None = None) -> dict[str, object]:
    place = {"server": "https://10.0.0.1:6443", "certificate-authority-data": b64(CA_PEM)} | dict(cluster or {})
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": place}],
        "users": [{"name": "u", "user": dict(user)}],
    }


def read(folder: Path, content: object, context: str = "", now: datetime = NOW) -> Access:
    path = folder / "config"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return Kubeconfig(path).read(context, now=now)


def refusal(folder: Path, content: object, context: str = "", now: datetime = NOW) -> Failure:
    with pytest.raises(Failure) as caught:
        read(folder, content, context, now)
    return caught.value


def test_a_client_certificate_becomes_an_x509_credential(tmp_path: Path) -> None:
    spec = read(
        tmp_path, document(X509_USER, {"tls-server-name": "kube.internal", "proxy-url": "http://u:pw@p:1"})
    ).spec()
    assert spec == {
        "endpoint": "https://10.0.0.1:6443",
        "caBundle": b64(CA_PEM),
        "serverName": "kube.internal",
        "proxyURL": "http://u:pw@p:1",
        "credential": {"type": "X509Certificate", "x509": {"certificate": b64(CERTIFICATE), "privateKey": b64(KEY)}},
    }


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("socks5://u:s3cret@p:1080", "SOCKS is not spoken by Envoy"),
        ("p:3128", "must be a URL such as"),
        ("http://u:s3cret@p/x", "must not carry a path"),
        ("http://u:s3cret@x@p", "with percent signs for what is special"),
    ],
)
def test_a_proxy_that_no_gateway_uses_is_refused(tmp_path: Path, url: str, told: str) -> None:
    refused = refusal(tmp_path, document(X509_USER, {"proxy-url": url}))
    assert told in str(refused)
    assert "s3cret" not in f"{refused} {refused.hint}"


def test_a_proxy_that_is_named_goes_before_the_kubeconfigs(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(yaml.safe_dump(document(X509_USER, {"proxy-url": "socks5://p:1"})))
    config = Kubeconfig(tmp_path / "config")
    named = config.read(now=NOW, proxy_url="http://u:s3cret@q:3128")
    assert named.spec()["proxyURL"] == "http://u:s3cret@q:3128"
    assert "s3cret" not in repr(named)
    assert "proxyURL" not in config.read(now=NOW, proxy_url="").spec()


def test_a_token_becomes_a_service_account_token(tmp_path: Path) -> None:
    spec = read(tmp_path, document({"token": "abc.def\n"}, {"insecure-skip-tls-verify": True})).spec()
    assert meta.section(spec, "credential") == {"type": "ServiceAccountToken", "serviceAccountToken": "abc.def"}
    assert spec["insecure"] is True


def test_a_certificate_goes_before_a_token(tmp_path: Path) -> None:
    assert read(tmp_path, document(X509_USER | {"token": "abc"})).token == ""


def test_files_are_found_beside_the_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "there"
    (folder / "pki").mkdir(parents=True)
    (folder / "pki" / "ca.crt").write_bytes(CA_PEM)
    (folder / "pki" / "me.crt").write_bytes(CERTIFICATE)
    (folder / "pki" / "me.key").write_bytes(KEY)
    content = document({"client-certificate": "pki/me.crt", "client-key": str(folder / "pki" / "me.key")})
    content["clusters"] = [{"name": "c", "cluster": {"server": "https://m", "certificate-authority": "pki/ca.crt"}}]
    monkeypatch.chdir(tmp_path)
    access = read(folder, content)
    assert (access.ca, access.certificate, access.private_key) == (CA_PEM, CERTIFICATE, KEY)


def test_data_goes_before_a_file(tmp_path: Path) -> None:
    access = read(tmp_path, document(X509_USER | {"client-certificate": "absent.crt", "client-key": "absent.key"}))
    assert access.certificate == CERTIFICATE


def test_a_token_file_is_copied_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-the-file\n")
    access = read(tmp_path, document({"tokenFile": "token", "token": "stale"}))
    assert access.token == "from-the-file"
    assert any("copied" in warning for warning in access.warnings)


def test_the_named_context_is_taken_of_several_users(tmp_path: Path) -> None:
    content = document({"token": "first"})
    content["contexts"] = [
        {"name": "one", "context": {"cluster": "c", "user": "u"}},
        {"name": "two", "context": {"cluster": "c", "user": "v"}},
    ]
    content["users"] = [{"name": "u", "user": {"token": "first"}}, {"name": "v", "user": {"token": "second"}}]
    assert read(tmp_path, content).token == "first"
    assert read(tmp_path, content, "two").token == "second"


def test_an_unknown_context_is_refused_with_the_choices(tmp_path: Path) -> None:
    error = refusal(tmp_path, document(X509_USER), "three")
    assert "'three'" in error.what
    assert "one" in error.hint


def test_no_current_context_is_refused_with_the_choices(tmp_path: Path) -> None:
    error = refusal(tmp_path, document(X509_USER) | {"current-context": ""})
    assert "no current context" in error.what
    assert "--context: one" in error.hint


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        pytest.param("[" * 5000, "nested too deeply", id="deep lists"),
        pytest.param("{a: " * 5000, "nested too deeply", id="deep mappings"),
        pytest.param("x" * ((4 << 20) + 1), "larger than 4 MiB", id="large"),
        ("just text", "not a kubeconfig"),
        ("[1, 2]", "not a kubeconfig"),
        ("a: [1\nb: 2", "not YAML, line 2"),
        ("\x00", "not YAML"),
        ({"contexts": {}}, "not a kubeconfig"),
        (document(X509_USER) | {"users": []}, "the user 'u', which is not there"),
        (document(X509_USER) | {"clusters": None}, "the cluster 'c', which is not there"),
        (document({}), "neither a client certificate nor a token"),
        (document(X509_USER, {"server": "http://10.0.0.1"}), "not an https:// address"),
        (document(X509_USER, {"server": None}), "has no server"),
        (document(X509_USER, {"server": "https://[::1"}), "is not an address"),
        (document(X509_USER, {"server": "https://a:99999"}), "is not an address"),
        (document(X509_USER, {"server": "https://"}), "names no host"),
        (document(X509_USER, {"server": "https://a:0"}), "names no port"),
        (document(X509_USER, {"server": "https://u:p@a"}), "at a has more than a host, a port and a path"),
        (document(X509_USER, {"server": "https://a/?x=1"}), "at a has more than a host, a port and a path"),
        (document(X509_USER, {"insecure-skip-tls-verify": "true"}), "must be true or false, without quotes"),
        (document(X509_USER, {"certificate-authority-data": b64(b"junk")}), "no certificate in PEM"),
        (document(X509_USER, {"certificate-authority-data": b64(KEY)}), "no certificate in PEM"),
        (document(X509_USER, {"certificate-authority-data": b64(CA_PEM + KEY)}), "holds a private key"),
        (document({"token": 12345}), "put it in quotes"),
        (document({"client-certificate-data": b64(CERTIFICATE)}), "no client key"),
        (document({"client-certificate-data": "%%%a", "client-key-data": b64(KEY)}), "not base64"),
        (document({"client-certificate-data": b64(b"junk"), "client-key-data": b64(KEY)}), "is no certificate in PEM"),
        (
            document({"client-certificate-data": b64(CERTIFICATE), "client-key-data": b64(b"junk")}),
            "is no private key in PEM",
        ),
        (document({"client-certificate": "/absent.crt", "client-key": "/absent.key"}), "/absent.crt"),
        (document({"tokenFile": "/absent/token"}), "/absent/token"),
        (document({"token": "two words"}), "characters that no token has"),
        (document({"exec": {"command": "aws", "apiVersion": "v1"}}), "running aws"),
        (document({"auth-provider": {"name": "gcp"}}), "auth-provider"),
        (document({"username": "root", "password": "x"}), "password"),
        (document({"token": "abc", "as": "root"}), "somebody else"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_sentence(tmp_path: Path, content: object, told: str) -> None:
    error = refusal(tmp_path, content)
    assert told in error.what
    assert error.hint


@pytest.mark.parametrize("user", [{}, {"auth-provider": {"name": "gcp"}}, {"username": "a"}, {"token": "t", "as": "b"}])
def test_what_cannot_be_joined_either_is_not_sent_there(tmp_path: Path, user: Mapping[str, object]) -> None:
    hint = refusal(tmp_path, document(user)).hint
    assert "another context" in hint
    assert "--kubeconfig" not in hint


def test_a_login_by_program_comes_with_the_command_that_replaces_it(tmp_path: Path) -> None:
    hint = refusal(tmp_path, document({"exec": {"command": "aws"}})).hint
    assert f"onepass cluster join NAME --kubeconfig {tmp_path}/config --context one" in hint
    with pytest.raises(Failure) as caught:
        Kubeconfig(tmp_path / "config").read(now=NOW, name="prod")
    assert caught.value.hint == hint.replace("NAME", "prod")


def test_a_certificate_of_later_is_refused_with_the_day_that_it_counts_from(tmp_path: Path) -> None:
    told = refusal(tmp_path, document(X509_USER), now=NOW - timedelta(days=12000))
    assert "valid only from 20" in told.what
    assert "compare the clock" in told.hint


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    other = CA.issue_cert(common_name="other").private_key_pem.bytes()
    error = refusal(tmp_path, document(X509_USER | {"client-key-data": b64(other)}))
    assert "do not belong together" in error.what


def test_an_encrypted_key_is_refused(tmp_path: Path) -> None:
    key = serialization.load_pem_private_key(KEY, None)
    sealed = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    assert "encrypted" in refusal(tmp_path, document(X509_USER | {"client-key-data": b64(sealed)})).what


def test_an_expired_certificate_is_refused_and_one_about_to_expire_warned_of(tmp_path: Path) -> None:
    ends = NOW + timedelta(hours=10)
    leaf = CA.issue_cert(common_name="short", not_after=ends)
    user = {
        "client-certificate-data": b64(leaf.cert_chain_pems[0].bytes()),
        "client-key-data": b64(leaf.private_key_pem.bytes()),
    }
    assert "expires" in read(tmp_path, document(user)).warnings[0]
    assert "has expired" in refusal(tmp_path, document(user), now=ends + timedelta(minutes=1)).what
    assert not read(tmp_path, document(X509_USER)).warnings


def test_an_expired_token_is_refused_and_one_about_to_expire_warned_of(tmp_path: Path) -> None:
    def user(ends: datetime) -> dict[str, str]:
        return {"token": jwt.encode({"exp": int(ends.timestamp())}, "k" * 32)}

    assert "has expired" in refusal(tmp_path, document(user(NOW - timedelta(seconds=1)))).what
    (told,) = read(tmp_path, document(user(NOW + timedelta(hours=1)))).warnings
    assert "expires" in told
    assert told.endswith("give the gateway a new one before then: onepass cluster rotate NAME --kubeconfig FILE")
    assert read(tmp_path, document(user(NOW + timedelta(days=30)))).warnings
    assert not read(tmp_path, document(user(NOW + timedelta(days=30, seconds=1)))).warnings
    assert not read(tmp_path, document({"token": jwt.encode({"exp": 10**18}, "k" * 32)})).warnings


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(Failure, match=str(path)):
            Kubeconfig(path)


def test_secrets_stay_out_of_a_repr(tmp_path: Path) -> None:
    assert "hidden-token" not in repr(read(tmp_path, document({"token": "hidden-token"})))
    assert b64(KEY)[:40] not in repr(read(tmp_path, document(X509_USER)))
    assert "PRIVATE KEY" not in repr(read(tmp_path, document(X509_USER)))
