"""Credential programs as they run: what they get, how long, and what becomes of a bad answer."""

import asyncio
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.waiting import eventually

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
    child = Path("/proc") / await started_and_hanging(source, tmp_path / "child")

    def gone() -> bool:
        try:
            return "\nState:\tZ" in (child / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True

    eventually(gone)


def content(path: Path) -> str:
    return path.read_text() if path.exists() else ""


async def started_and_hanging(source: str, child: Path) -> str:
    """Runs a program that does not end; the id of what it has started, which it writes to `child`."""
    for seconds in (3.0, 30.0, 120.0):  # on a busy machine it may be ended before it has come to that
        with pytest.raises(PluginRefused, match="did not end within"):
            async with asyncio.timeout(seconds * 10):
                await runner("-c", source, seconds=seconds).run(cluster("-c", source))
        if pid := content(child):
            return pid
    raise AssertionError("it never came to write anything")


async def test_what_has_left_the_process_group_and_holds_its_output_holds_up_nothing(tmp_path: Path) -> None:
    source = (
        "import subprocess, sys\n"
        "child = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(subprocess.Popen(child, start_new_session=True).pid))\n"
    )
    os.kill(int(await started_and_hanging(source, tmp_path / "child")), signal.SIGKILL)


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


@pytest.mark.parametrize(
    ("complaint", "told"),
    [
        ("error: token=abc failed", "error: token=[cut] failed"),
        ("AWS_SECRET_ACCESS_KEY: hunter2", "AWS_SECRET_ACCESS_KEY: [cut]"),
        ("Authorization: Bearer a.b.c", "Authorization: Bearer [cut]"),
        ('{"token": "abc"}', '{"token": [cut]'),
        ("got k8s-aws-v1.aHR0cHM6Ly9zdHMuYW1hem9uYXdz1234 from sts", "got [cut] from sts"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEF", "-----BEGIN PRIVATE KEY----- [cut]"),
        ("gke-gcloud-auth-plugin: the token has expired", "gke-gcloud-auth-plugin: the token has expired"),
        ("at /usr/local/lib/python3.11/site-packages/x.py", "at /usr/local/lib/python3.11/site-packages/x.py"),
        ("a\x1b[31mb\0", "a [31mb "),
    ],
)
def test_what_a_program_complains_is_logged_without_credentials(complaint: str, told: str) -> None:
    assert pluginrunner.said(complaint.encode()) == told


COUNTING = """\
import json, sys, time
open(sys.argv[1], "a").write("x")
time.sleep(0.2)
status = {"token": "t" + str(len(open(sys.argv[1]).read()))}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
"""


async def test_equal_invocations_share_an_answer_until_somebody_needs_a_newer_one(tmp_path: Path) -> None:
    now = 1000.0
    program = runner("-c", COUNTING, "*")
    program.clock = lambda: now
    fleet = [cluster("-c", COUNTING, str(tmp_path / "runs")) | {"metadata": {"name": f"c{n}"}} for n in range(200)]
    answers = await asyncio.gather(*(program.run(each) for each in fleet))
    assert {each.token for each in answers} == {"t1"}
    assert (await program.run(fleet[0], since=999.0)).token == "t1"
    assert (await program.run(fleet[0], since=1000.0)).token == "t2"  # its member has refused what it has
    now += pluginrunner.SHARED_SECONDS + 1
    assert (await program.run(fleet[0])).token == "t3"
    other = cluster("-c", COUNTING, str(tmp_path / "others"))
    assert (await program.run(other)).token == "t1"


async def test_one_program_that_hangs_holds_up_no_other(tmp_path: Path) -> None:
    hanging, prompt = "import sys, time; time.sleep(600)", answer(token="t")
    program = runner("-c", "*", "*", seconds=600.0)
    other = tmp_path / "other"
    other.symlink_to(sys.executable)
    program.plugins = (*program.plugins, Plugin(str(other), ("-c", "*"), ("*",)))
    waiting = [asyncio.create_task(program.run(cluster("-c", hanging, str(n)))) for n in range(100)]
    try:
        quick = cluster("-c", prompt)
        quick["spec"]["access"]["credential"]["execConfig"]["command"] = str(other)  # type: ignore[index,call-overload]
        async with asyncio.timeout(60):
            assert (await program.run(quick)).token == "t"
        assert not any(each.done() for each in waiting)
    finally:
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_failure_is_shared_as_an_answer_is(tmp_path: Path) -> None:
    source = f"open({str(tmp_path / 'runs')!r}, 'a').write('x'); exit(3)"
    program = runner("-c", source)
    told = await asyncio.gather(*(program.run(cluster("-c", source)) for _ in range(50)), return_exceptions=True)
    assert {str(each) for each in told} == {"failed with exit status 3; the gateway's log has what it said"}
    assert (tmp_path / "runs").read_text() == "x"
