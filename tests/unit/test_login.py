"""What a login keeps and writes, and how it comes back from the browser."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from onepass.access.identity import Identity
from onepass.api.meta import Object
from onepass.cli import credentialcache, kubeconfigfile, loopback, oidc
from onepass.cli.failure import Failure
from onepass.controllers import approve

SERVER = "https://gw.example:6443"


def merged(path: Path, *clusters: str) -> tuple[list[str], str]:
    found = kubeconfigfile.merge(path, SERVER, b"ca", {"token": "x"}, "alice@gw.example:6443", clusters)
    return list(found.contexts), found.current


def contexts(path: Path) -> list[str]:
    return [each["name"] for each in yaml.safe_load(path.read_text())["contexts"]]


def test_what_is_not_open_any_more_goes_and_what_is_chosen_stays(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "config"
    assert merged(path, "prod", "test") == (["onepass", "prod", "test"], "prod")
    config = yaml.safe_load(path.read_text())
    config["current-context"] = "test"
    config["contexts"][2]["context"]["namespace"] = "mine"
    path.write_text(yaml.safe_dump(config))
    assert merged(path, "test") == (["onepass", "test"], "test")
    config = yaml.safe_load(path.read_text())
    assert config["contexts"][1]["context"]["namespace"] == "mine"
    assert [each["name"] for each in config["clusters"]] == ["onepass", "test"]
    assert merged(path) == (["onepass"], "onepass")
    assert merged(path, "onepass") == (["onepass", "onepass-onepass"], "onepass")


def test_another_gateways_contexts_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "config"
    kubeconfigfile.merge(path, "https://other.example", b"", {}, "alice@other.example", ["prod"])
    assert merged(path, "prod")[0] == ["onepass-onepass", "onepass-prod"]
    assert contexts(path) == ["onepass", "prod", "onepass-onepass", "onepass-prod"]
    kubeconfigfile.merge(path, "https://other.example", b"", {}, "alice@other.example", [])
    assert contexts(path) == ["onepass-onepass", "onepass-prod", "onepass"]


@pytest.mark.parametrize("content", ["[]", "a: [", "7"])
def test_a_file_that_is_no_kubeconfig_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(Failure, match="is not a kubeconfig"):
        merged(path, "prod")
    assert path.read_text() == content


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "config"
    real.write_text("")
    link.symlink_to(real)
    merged(link, "prod")
    assert link.is_symlink()
    assert contexts(real) == ["onepass", "prod"]


def test_what_others_could_have_read_or_written_is_not_taken(tmp_path: Path) -> None:
    slot = credentialcache.Slot.of(tmp_path / "cache", "a", "b")
    assert slot == credentialcache.Slot.of(tmp_path / "cache", "a", "b")
    assert slot != credentialcache.Slot.of(tmp_path / "cache", "ab")
    with slot.locked():
        slot.write({"x": 1})
    assert slot.read() == {"x": 1}
    slot.path.chmod(0o640)
    assert slot.read() == {}
    slot.path.chmod(0o600)
    slot.path.write_text("{")
    assert slot.read() == {}
    slot.forget()
    assert slot.read() == {}


def test_one_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    slot = credentialcache.Slot.of(tmp_path, "a")
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with slot.locked():
            held.set()
            release.wait(120)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(120)
    with pytest.raises(Failure, match="too long"), slot.locked(0.1):
        pass
    release.set()
    thread.join()
    with slot.locked():
        pass


def get(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_only_the_answer_to_our_own_question_counts() -> None:
    with loopback.listening(0, "state") as answer:
        base = answer.redirect_uri
        assert base.startswith("http://127.0.0.1:")
        root = base.removesuffix("/callback")
        for stray in (f"{base}?code=x", f"{base}?state=other&code=x", f"{root}/?state=state", f"{root}/favicon.ico"):
            assert get(stray) == 404
        assert answer.wait(0.05) is None
        assert get(f"{base}?state=state&code=first") == 200
        assert get(f"{base}?state=state&code=second") == 200
        assert answer.wait(60) == "state=state&code=first"
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(base, timeout=60)


def test_tokens_are_kept_whole_or_not_at_all() -> None:
    tokens = oidc.Tokens("a", "b", 1000.0)
    assert oidc.Tokens.of(json.loads(json.dumps(tokens.plain()))) == tokens
    for damaged in ({}, {"id_token": "a", "refresh_token": "b"}, {"id_token": 1, "refresh_token": "b", "expires": 1}):
        assert oidc.Tokens.of(damaged) is None
    assert tokens.is_good(900)
    assert not tokens.is_good(950)


ASKING: Mapping[str, object] = {
    "username": "alice",
    "groups": ["dev", "system:authenticated"],
    "expirationSeconds": 3600,
}


@pytest.mark.parametrize(
    ("spec", "status", "named", "good"),
    [
        ({}, {}, ("alice", ("dev",)), True),
        ({"expirationSeconds": 86400}, {}, ("alice", ()), True),
        ({}, {}, ("bob", ()), False),
        ({}, {}, ("alice", ("ops",)), False),
        ({"expirationSeconds": 86401}, {}, ("alice", ()), False),
        ({"expirationSeconds": None}, {}, ("alice", ()), False),
        ({"username": ""}, {}, ("alice", ()), False),
        ({}, {"conditions": [{"type": "Denied"}]}, ("alice", ()), False),
        ({}, {"certificate": "x"}, ("alice", ()), False),
        ({}, {}, None, False),
    ],
)
def test_only_short_requests_in_ones_own_name_are_approved_by_themselves(
    spec: Mapping[str, object], status: Mapping[str, object], named: tuple[str, tuple[str, ...]] | None, good: bool
) -> None:
    def names(_: Object) -> tuple[str, tuple[str, ...]]:
        if named is None:
            raise ValueError("no request")
        return named

    request: Object = {"spec": {**ASKING, **spec}, "status": dict(status)}  # type: ignore[arg-type, dict-item]
    found = approve.wanted(request, names)
    assert found == (Identity("alice", ("dev", "system:authenticated")) if good else None)
