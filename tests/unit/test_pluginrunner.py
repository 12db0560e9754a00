"""Credential programs as they run: what they get, how long, and what becomes of a bad answer."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from onepass.api.meta import JSON, Object
from onepass.pki.execcredential import PluginRefused
from onepass.registry.execplugins import Plugin
from onepass.runtime import pluginrunner
from onepass.runtime.pluginrunner import Runner
from onepass.runtime.settings import SettingsError

V1 = "client.authentication.k8s.io/v1"


def cluster(*args: str, env: list[JSON] | None = None, **program: JSON) -> Object:
    execute: Object = {"command": sys.executable, "args": [*args], "env": env or [], **program}
    access: Object = {"endpoint": "https://k8s.example", "credential": {"type": "OIDC", "execConfig": execute}}
    return {"metadata": {"name": "prod"}, "spec": {"access": access}}


def runner(*args: str, seconds: float = 30.0, **fields: object) -> Runner:
    plugin = Plugin(sys.executable, args, ("*",), (("GIVEN", "by-the-operator"),), ("MINE",))
    return Runner((replace(plugin, **fields),), seconds)  # type: ignore[arg-type]


def answer(**status: object) -> str:
    return f"print({json.dumps({'apiVersion': V1, 'kind': 'ExecCredential', 'status': status})!r})"


async def test_it_runs_with_its_arguments_in_an_environment_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEPASS_SECRET", "not for programs")
    source = (
        "import json, os, sys\n"
        "told = json.dumps([sorted(os.environ), sys.argv[1:], sys.stdin.read(), os.environ['KUBERNETES_EXEC_INFO']])\n"
        f"print(json.dumps({{'apiVersion': '{V1}', 'kind': 'ExecCredential', 'status': {{'token': told}}}}))"
    )
    asked = cluster("-c", source, "prod", env=[{"name": "MINE", "value": "x"}], provideClusterInfo=True)
    names, arguments, given, info = json.loads((await runner("-c", source, "*").run(asked)).token)
    assert set(names) - {"LC_CTYPE"} == {"GIVEN", "KUBERNETES_EXEC_INFO", "LANG", "MINE", "PATH"}
    assert (arguments, given) == (["prod"], "")
    spec = {"interactive": False, "cluster": {"server": "https://k8s.example"}}
    assert json.loads(info) == {"kind": "ExecCredential", "apiVersion": V1, "spec": spec}


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("exit(3)", "failed with exit status 3"),
        ("", "did not answer with JSON"),
        ("print('[]')", "did not answer with an ExecCredential"),
        (answer(), "without a token"),
        (answer(clientKeyData="k"), "a client certificate or a key alone"),
        (answer(token="t", expirationTimestamp="soon"), "an expirationTimestamp that is none"),
        (answer(token="t").replace(V1, "client.authentication.k8s.io/v9"), "in another version"),
        ("print('x' * 10**6)", "says too much"),
    ],
)
async def test_a_bad_answer_is_told_without_what_it_says(source: str, why: str) -> None:
    with pytest.raises(PluginRefused) as caught:
        await runner("-c", source).run(cluster("-c", source))
    assert why in str(caught.value)


async def test_a_program_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    source = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)"
    )
    with pytest.raises(PluginRefused, match="did not end within"):
        await runner("-c", source, seconds=3.0).run(cluster("-c", source))
    child = Path("/proc") / (tmp_path / "child").read_text()
    deadline = time.monotonic() + 10
    while child.exists() and "\nState:\tZ" not in (child / "status").read_text():
        assert time.monotonic() < deadline


async def test_a_program_that_is_no_longer_listed_is_not_run() -> None:
    with pytest.raises(PluginRefused, match="is not run: the operator"):
        await Runner(()).run(cluster("-c", "exit(0)"))


@pytest.mark.parametrize(
    ("listed", "told"),
    [
        ("a: [", "not YAML"),
        ({"plugins": {}}, "a list `plugins`"),
        ({"plugins": [{"command": "aws", "endpoints": ["*"]}]}, "plugin 1: command 'aws' must be the absolute path"),
        ({"plugins": [{"command": "/absent", "endpoints": ["*"]}]}, "command '/absent'"),
        ({"plugins": [{"command": sys.executable}]}, "endpoints must say"),
        ({"plugins": [{"command": sys.executable, "endpoints": "*"}]}, "endpoints must be a list"),
        ({"plugins": [{"command": sys.executable, "endpoints": ["*"], "arg": []}]}, "has no field arg"),
        ({"plugins": [{"command": sys.executable, "endpoints": ["*"], "env": {"A": 1}}]}, "env must be"),
    ],
)
def test_a_list_that_cannot_be_used_is_told(tmp_path: Path, listed: object, told: str) -> None:
    path = tmp_path / "plugins.yaml"
    path.write_text(listed if isinstance(listed, str) else yaml.safe_dump(listed))
    with pytest.raises(SettingsError) as caught:
        pluginrunner.read(path)
    assert told in str(caught.value)


def test_a_list_is_read(tmp_path: Path) -> None:
    path = tmp_path / "plugins.yaml"
    entry = {"command": sys.executable, "args": ["a", "*"], "endpoints": ["*.x"], "env": {"A": "b"}, "allowEnv": ["C"]}
    path.write_text(yaml.safe_dump({"plugins": [entry]}))
    assert pluginrunner.read(path) == (Plugin(sys.executable, ("a", "*"), ("*.x",), (("A", "b"),), ("C",)),)
