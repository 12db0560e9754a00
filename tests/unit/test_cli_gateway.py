"""The client against a real TLS server that plays the API: what it finds, what it says when things go wrong.

The server is a few dictionaries, so that a test can make any step of a command fail; the whole product is under test
in tests/e2e/test_cli.py.
"""

import base64
import contextlib
import json
import os
import re
import shlex
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from onepass.api.meta import Object
from onepass.cli import client, enrolment, foothold
from onepass.cli.failure import Failure, Refused, Unreachable

CA = trustme.CA()
ISSUED = CA.issue_cert(common_name="bob").cert_chain_pems[0].bytes()


@dataclass
class Api:
    """What the server holds, what it was asked, and which answers a test put in the way."""

    url: str = ""
    objects: dict[str, Object] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)  # "METHOD /path" -> status and body
    warnings: list[str] = field(default_factory=list)
    unsigned: bool = False  # no certificate ever comes
    watched: threading.Event = field(default_factory=threading.Event)
    kubeconfig: Path = Path()

    def refuse(self, request: str, code: int, message: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
        self.answers[request] = (code, json.dumps(status).encode())

    def handle(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        split = urlsplit(target)
        path, query = split.path, parse_qs(split.query)
        self.asked.append(f"{method} {path}")
        if f"{method} {path}" in self.answers:
            return self.answers[f"{method} {path}"]
        if method == "POST":
            made = json.loads(body)
            path = f"{path}/{made['metadata']['name']}"
            if path in self.objects:
                return 409, json.dumps({"message": "already exists"}).encode()
            self.objects[path] = made
            return 201, json.dumps(made).encode()
        if "watch" in query:
            self.watched.set()
            if self.unsigned:
                return 200, b""
            name = query["fieldSelector"][0].removeprefix("metadata.name=")
            event = {"type": "ADDED", "object": self.objects[f"{path}/{name}"]}
            return 200, json.dumps(event).encode() + b"\n"
        if method == "PUT" and path.endswith("/approval"):
            path = path.removesuffix("/approval")
            self.objects[path] = json.loads(body)
            kinds = [c["type"] for c in json.loads(body)["status"]["conditions"]]
            if "Approved" in kinds and "Revoked" not in kinds:
                status = self.objects[path]["status"]
                assert isinstance(status, dict)
                status["certificate"] = base64.b64encode(ISSUED).decode()
        elif method == "PATCH":
            spec = self.objects[path]["spec"]
            assert isinstance(spec, dict)
            spec.update(json.loads(body)["spec"])
        elif method == "DELETE":
            self.objects.pop(path, None)
            return 200, b'{"kind": "Status", "status": "Success"}'
        if path in self.objects:
            return 200, json.dumps(self.objects[path]).encode()
        items = [obj for key, obj in sorted(self.objects.items()) if key.rpartition("/")[0] == path]
        if items or path in (client.CLUSTERS, client.PASSES, client.REQUESTS):
            return 200, json.dumps({"kind": "List", "metadata": {}, "items": items}).encode()
        return 404, json.dumps({"message": f'"{path}" not found', "code": 404}).encode()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    state = Api()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            code, body = state.handle(self.command, self.path, self.rfile.read(length))
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            for text in state.warnings:
                self.send_header("Warning", f'299 - "{text}"')
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815  names of the standard library

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA.issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    state.url = f"https://127.0.0.1:{server.server_port}"
    state.kubeconfig = tmp_path / "kubeconfig"
    state.kubeconfig.write_text(yaml.safe_dump(document(state.url)))
    state.objects[f"{client.CLUSTERS}/prod"] = {"metadata": {"name": "prod"}, "spec": {}}
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def document(server: str, ca: bytes = b"") -> dict[str, object]:
    place = {"server": server, "certificate-authority-data": base64.b64encode(ca or CA.cert_pem.bytes()).decode()}
    return {
        "current-context": "onepass",
        "clusters": [{"name": "onepass", "cluster": place}],
        "contexts": [{"name": "onepass", "context": {"cluster": "onepass", "user": "admin"}}],
        "users": [{"name": "admin", "user": {"token": "t"}}],
    }


def onepass(api: Api, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, without a terminal."""
    return subprocess.run(
        [str(Path(sys.executable).parent / "onepass"), "--kubeconfig", str(api.kubeconfig), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=api.kubeconfig.parent,
    )


def test_the_first_kubeconfig_that_is_named_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = {}
    for name in ("given", "dir", "env", "envdir", ".onepass"):
        (tmp_path / name).mkdir()
        folders[name] = tmp_path / name / "admin.kubeconfig"
        folders[name].touch()
    environment = {"ONEPASS_KUBECONFIG": str(folders["env"]), "ONEPASS_DATA_DIR": str(tmp_path / "envdir")}
    assert client.locate(folders["given"], tmp_path / "dir", environment) == folders["given"]
    assert client.locate(None, tmp_path / "dir", environment) == folders["dir"]
    assert client.locate(None, None, environment) == folders["env"]
    assert client.locate(None, None, {"ONEPASS_DATA_DIR": str(tmp_path / "envdir")}) == folders["envdir"]
    assert client.locate(None, None, {"ONEPASS_KUBECONFIG": ""}) == Path(".onepass/admin.kubeconfig")
    assert client.locate(None, None, {"KUBECONFIG": str(folders["env"])}) == Path(".onepass/admin.kubeconfig")


def test_kubectls_own_kubeconfig_counts_when_a_gateway_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ours, other, broken = tmp_path / "ours", tmp_path / "other", tmp_path / "broken"
    ours.write_text(yaml.safe_dump(document("https://127.0.0.1:1")))
    other.write_text(ours.read_text().replace("onepass", "prod"))
    broken.write_text("{")
    assert client.locate(None, None, {"KUBECONFIG": f"{broken}{os.pathsep}{other}{os.pathsep}{ours}"}) == ours
    (tmp_path / ".kube").mkdir()
    ours.rename(tmp_path / ".kube" / "config")
    assert client.locate(None, None, {"HOME": str(tmp_path)}) == tmp_path / ".kube" / "config"
    for environment in ({"KUBECONFIG": str(other)}, {"HOME": str(tmp_path), "ONEPASS_DATA_DIR": "elsewhere"}):
        with pytest.raises(Failure, match=r"there is no gateway's kubeconfig"):
            client.locate(None, None, environment)


def test_no_kubeconfig_at_all_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Failure) as caught:
        client.locate(None, None, {})
    assert "onepass up" in caught.value.hint


@pytest.mark.parametrize(
    "content", ["", "[]", "a: [", "contexts: []", "current-context: x\nclusters: []\ncontexts: []"]
)
def test_a_kubeconfig_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(Failure, match=str(path)):
        client.Gateway(path)


def test_a_context_for_a_member_leads_to_the_gateway_too(api: Api) -> None:
    config = document(f"{api.url}{client.CLUSTERS}/prod/proxy")
    api.kubeconfig.write_text(yaml.safe_dump(config))
    with client.Gateway(api.kubeconfig) as gateway:
        assert gateway.url == api.url
        assert [obj["metadata"] for obj in gateway.list(client.CLUSTERS)] == [{"name": "prod"}]


def test_nothing_listening_is_told_with_what_to_do(api: Api, tmp_path: Path) -> None:
    api.kubeconfig.write_text(yaml.safe_dump(document("https://127.0.0.1:1")))
    with client.Gateway(api.kubeconfig) as gateway, pytest.raises(Unreachable) as caught:
        gateway.get("/version")
    assert caught.value.what == "no gateway answers at https://127.0.0.1:1 (nothing listens there)"
    assert "onepass up" in caught.value.hint


def test_a_certificate_of_another_authority_is_told_apart(api: Api) -> None:
    api.kubeconfig.write_text(yaml.safe_dump(document(api.url, trustme.CA().cert_pem.bytes())))
    with client.Gateway(api.kubeconfig) as gateway, pytest.raises(Unreachable) as caught:
        gateway.get("/version")
    ends = r"is not the gateway of \S+ \((self-signed certificate|unable to get)[\w -]*\)"
    assert re.search(ends, caught.value.what)


def test_a_proxy_of_the_environment_is_not_used_for_loopback(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    with client.Gateway(api.kubeconfig) as gateway:
        assert len(gateway.list(client.CLUSTERS)) == 1


@pytest.mark.parametrize(
    ("code", "hint"), [(401, "ask for a new pass"), (403, "administrator"), (500, ""), (404, "a OnePass gateway?")]
)
def test_a_refusal_is_told_in_the_words_of_the_api(api: Api, code: int, hint: str) -> None:
    api.refuse(f"GET {client.PASSES}", code, "because")
    with client.Gateway(api.kubeconfig) as gateway, pytest.raises(Refused) as caught:
        gateway.list(client.PASSES)
    assert caught.value.what == "because"
    assert caught.value.code == code
    assert hint in caught.value.hint


@pytest.mark.parametrize(("annotations", "command"), [({}, "remove"), ({foothold.JOINED: "onepass-system"}, "leave")])
def test_a_name_that_is_taken_is_made_free_by_what_takes_all_of_it_away(
    api: Api, annotations: Object, command: str
) -> None:
    taken: Object = {"kind": "Cluster", "metadata": {"name": "prod", "annotations": annotations}}
    api.objects[f"{client.CLUSTERS}/prod"] = taken
    api.refuse(f"POST {client.CLUSTERS}", 409, "already exists")
    with client.Gateway(api.kubeconfig) as gateway, pytest.raises(Failure, match="registered already") as caught:
        enrolment.register(gateway, taken)
    assert f"onepass cluster {command} prod" in caught.value.hint


def test_warnings_of_the_api_are_shown_and_stay_out_of_the_result(api: Api) -> None:
    api.warnings = [r"rules name \"pods\", not \"pod\"", "and another"]
    done = onepass(api, "cluster", "list", "-o", "json")
    assert json.loads(done.stdout)["items"]
    assert done.stderr.splitlines() == ['warning: rules name "pods", not "pod"', "warning: and another"]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"", b"\xff"])
def test_an_answer_that_is_no_object_is_not_taken_for_one(api: Api, body: bytes) -> None:
    api.answers["GET /version"] = (200, body)
    with client.Gateway(api.kubeconfig) as gateway, pytest.raises(Failure, match="did not answer with an object"):
        gateway.get("/version")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a?b", "a%2fb", "a\nb"])
def test_no_name_leaves_its_segment_of_the_path(name: str) -> None:
    with pytest.raises(Failure):
        client.segment(name)


def test_waiting_ends_at_its_deadline(api: Api) -> None:
    with client.Gateway(api.kubeconfig) as gateway:
        assert gateway.wait(client.CLUSTERS, "prod", lambda obj: False, 0.3) is None


def test_waiting_ends_with_the_object_it_waits_for(api: Api) -> None:
    with client.Gateway(api.kubeconfig) as gateway:
        assert gateway.wait(client.CLUSTERS, "prod", lambda obj: True, 30) == api.objects[f"{client.CLUSTERS}/prod"]


def test_a_pass_is_issued_as_one_kubeconfig(api: Api) -> None:
    path = api.kubeconfig.parent / "bob.kubeconfig"
    done = onepass(
        api, "pass", "issue", "bob", "--group", "dev", "--cluster", "prod", "-n", "web", "--name", "b1", "-o", str(path)
    )
    assert done.returncode == 0, done.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    config = yaml.safe_load(path.read_text())
    assert config["current-context"] == "prod"
    contexts = {entry["name"]: entry["context"] for entry in config["contexts"]}
    assert set(contexts) == {"prod", "onepass"}
    assert contexts["prod"]["namespace"] == "web"
    assert "namespace" not in contexts["onepass"]
    servers = {entry["name"]: entry["cluster"]["server"] for entry in config["clusters"]}
    assert servers["prod"] == f"{api.url}{client.CLUSTERS}/prod/proxy"
    [user] = config["users"]
    key = serialization.load_pem_private_key(base64.b64decode(user["user"]["client-key-data"]), None)
    request = api.objects[f"{client.REQUESTS}/b1"]["spec"]
    assert isinstance(request, dict)
    asked = x509.load_pem_x509_csr(base64.b64decode(str(request["request"])))
    assert asked.public_key() == key.public_key()
    assert asked.subject.rfc4514_string() == "O=dev,CN=bob"
    assert f"{client.PASSES}/b1" in api.objects
    assert "onepass pass revoke b1" in done.stdout


def test_a_pass_on_standard_output_is_the_kubeconfig_alone(api: Api) -> None:
    done = onepass(api, "pass", "issue", "bob", "--cluster", "prod", "-o", "-")
    assert done.returncode == 0
    assert yaml.safe_load(done.stdout)["kind"] == "Config"
    assert "onepass pass revoke" in done.stderr


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (f"POST {client.REQUESTS}", 403),
        (f"PUT {client.REQUESTS}/b1/approval", 403),
        (f"GET {client.REQUESTS}", 500),  # the watch for the certificate
        (f"POST {client.PASSES}", 422),
    ],
)
def test_a_failure_in_the_middle_takes_back_what_was_made(api: Api, request_: str, code: int) -> None:
    before = dict(api.objects)
    api.refuse(request_, code, "not today")
    path = api.kubeconfig.parent / "bob.kubeconfig"
    done = onepass(api, "pass", "issue", "bob", "--cluster", "prod", "--name", "b1", "-o", str(path))
    assert done.returncode == 1
    assert "error: not today" in done.stderr
    assert "Traceback" not in done.stderr
    assert api.objects == before
    assert not path.exists()


def interrupted(process: subprocess.Popen[str]) -> str:
    """What it says then. As by a person: again after a while, since Python drops one that falls into a finalizer."""
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            _, errors = process.communicate(timeout=60)
            break
    assert process.returncode == 130
    return errors


def test_an_interrupt_takes_back_what_was_made(api: Api) -> None:
    before = dict(api.objects)
    api.unsigned = True
    command = ["pass", "issue", "bob", "--cluster", "prod", "--name", "b1", "-o", "bob.kubeconfig"]
    with subprocess.Popen(
        [str(Path(sys.executable).parent / "onepass"), "--kubeconfig", str(api.kubeconfig), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=api.kubeconfig.parent,
    ) as process:
        assert api.watched.wait(120)
        assert api.objects != before
        errors = interrupted(process)
    assert "Traceback" not in errors
    assert api.objects == before


def test_an_interrupted_wait_for_a_new_member_tells_that_it_stays_registered(api: Api, tmp_path: Path) -> None:
    (tmp_path / "member.yaml").write_text(yaml.safe_dump(document("https://member.test")))
    command = ["cluster", "add", "late", "--kubeconfig", str(tmp_path / "member.yaml")]
    with subprocess.Popen(
        [str(Path(sys.executable).parent / "onepass"), "--kubeconfig", str(api.kubeconfig), *command],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert api.watched.wait(120)
        errors = interrupted(process)
    assert "late stays registered. See how it is: onepass cluster show late" in errors


def test_a_file_that_cannot_be_written_takes_back_what_was_made(api: Api, tmp_path: Path) -> None:
    before = dict(api.objects)
    folder = tmp_path / "full"
    folder.mkdir()
    long = folder / ("x" * 255)
    done = onepass(api, "pass", "issue", "bob", "--cluster", "prod", "--name", "b1", "-o", str(long))
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert api.objects == before


def test_a_file_that_is_there_is_not_written_over(api: Api, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text("precious")
    done = onepass(api, "pass", "issue", "bob", "--cluster", "prod", "-o", str(path))
    assert done.returncode == 1
    assert "--force" in done.stderr
    assert path.read_text() == "precious"
    assert api.asked == []
    assert onepass(api, "pass", "issue", "bob", "--cluster", "prod", "-o", str(path), "--force").returncode == 0
    assert "precious" not in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "say which clusters"),
        (["--cluster", "prod", "--selector", "a=b"], "not by both"),
        (["--cluster", "moon"], "there is no cluster moon"),
        (["--cluster", "prod", "--verbs", ","], "--verbs is empty"),
        (["--cluster", "prod", "--for", "tomorrow"], "--for: 'tomorrow' is not a span of time"),
        (["--cluster", "prod", "--group", ""], "no certificate can carry"),
        (["--cluster", "prod", "--name", "a/b"], "cannot be the name"),
    ],
)
def test_a_pass_that_cannot_be_is_refused_before_anything_is_made(api: Api, arguments: list[str], told: str) -> None:
    done = onepass(api, "pass", "issue", "bob", *arguments, "-o", "out.kubeconfig")
    assert done.returncode == 1
    assert told in done.stderr
    assert not [request for request in api.asked if not request.startswith("GET")]


def test_an_own_name_that_is_taken_is_left_alone(api: Api) -> None:
    api.objects[f"{client.PASSES}/b1"] = {"metadata": {"name": "b1"}, "spec": {}}
    done = onepass(api, "pass", "issue", "bob", "--cluster", "prod", "--name", "b1", "-o", "out.kubeconfig")
    assert done.returncode == 1
    assert "there is a pass b1 already" in done.stderr
    assert f"{client.PASSES}/b1" in api.objects


def test_revoking_suspends_the_pass_and_marks_its_certificate_once(api: Api) -> None:
    assert onepass(api, "pass", "issue", "bob", "--cluster", "prod", "--name", "b1", "-o", "f").returncode == 0
    first, second = (onepass(api, "pass", "revoke", "b1") for _ in range(2))
    assert (first.returncode, second.returncode) == (0, 0)
    assert "no longer may" in first.stdout
    assert "suspended before" in second.stdout
    assert api.objects[f"{client.PASSES}/b1"]["spec"]["suspended"] is True  # type: ignore[index, call-overload]
    status = json.loads(json.dumps(api.objects[f"{client.REQUESTS}/b1"]["status"]))
    assert [c["type"] for c in status["conditions"]] == ["Approved", "Revoked"]


def test_revoking_leaves_the_certificate_of_another_pass_alone(api: Api) -> None:
    assert onepass(api, "pass", "issue", "bob", "--cluster", "prod", "--name", "b1", "-o", "f").returncode == 0
    api.objects[f"{client.PASSES}/evil"] = {
        "metadata": {"name": "evil", "annotations": {"access.karpor.io/certificate-signing-request": "b1"}},
        "spec": {},
    }
    done = onepass(api, "pass", "revoke", "evil")
    assert "left alone" in done.stdout
    assert "Revoked" not in json.dumps(api.objects[f"{client.REQUESTS}/b1"])


def test_revoking_what_is_not_there_fails_in_a_sentence(api: Api) -> None:
    done = onepass(api, "pass", "revoke", "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")


def test_a_wrong_command_line_exits_with_two(api: Api) -> None:
    assert onepass(api, "pass", "issue").returncode == 2
    assert onepass(api, "nonsense").returncode == 2


def test_names_are_completed_from_the_api(api: Api) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "onepass")],
        env={
            "_ONEPASS_COMPLETE": "complete_bash",
            "COMP_WORDS": f"onepass --kubeconfig {api.kubeconfig} cluster show p",
            "COMP_CWORD": "5",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == ["prod"], done.stderr


def test_an_import_names_the_whole_command_by_which_a_context_can_be_joined(api: Api, tmp_path: Path) -> None:
    config = document("https://127.0.0.1:1")
    config["users"][0]["user"] = {"exec": {"command": "aws", "apiVersion": "client.authentication.k8s.io/v1"}}  # type: ignore[index]
    path = tmp_path / "my clouds"
    path.write_text(yaml.safe_dump(config))
    done = onepass(api, "cluster", "import", "--kubeconfig", str(path), "--no-wait")
    assert done.returncode == 1
    (command,) = re.findall("onepass cluster join .*", done.stdout)
    context = str(config["current-context"])
    assert shlex.split(command)[3:] == [context, "--kubeconfig", str(path), "--context", context]
