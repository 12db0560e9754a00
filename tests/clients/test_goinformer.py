"""A shared informer of client-go, while what it follows is restarted: no event is lost or doubled."""

import json
import secrets
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.clients.matrix import MEMBER, OWN, Matrix
from tests.clients.test_goclient import CLIENT, goclient, version
from tests.e2e import conftest as e2e
from tests.e2e import ways
from tests.e2e.ways import Way
from tests.programs import kubemembers
from tests.programs.gomembers import GoMember

__all__ = ["goclient"]  # a fixture
pytestmark = [pytest.mark.e2e, pytest.mark.client(CLIENT)]


@dataclass
class Informer:
    """goclient with -informer: what it tells, line by line."""

    process: subprocess.Popen[str]
    lines: list[Mapping[str, Any]] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self.news:
                self.lines.append(json.loads(line))
                self.news.notify_all()

    def until(self, **wanted: str) -> None:
        with self.news:
            found = self.news.wait_for(
                lambda: any(wanted.items() <= line.items() for line in self.lines), ways.DEADLINE
            )
        assert found, f"{wanted} never came: {self.lines[-5:]}"

    def end(self) -> Mapping[str, Any]:
        """Its store and a list, when it is told to end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.until(event="end")
        return self.lines[-1]


@contextmanager
def following(program: Path, way: Way, namespace: str) -> Iterator[Informer]:
    command = [str(program), "-kubeconfig", str(way.directory / "config"), "-namespace", namespace, "-informer"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        informer = Informer(process)
        reader = threading.Thread(target=informer.read, daemon=True)
        reader.start()
        try:
            informer.until(event="synced")
            yield informer
        finally:
            process.kill()
            process.wait()
            reader.join()


@dataclass
class Writer:
    """Writes service accounts of a namespace, and remembers what it wrote: (name, turn)."""

    way: Way
    namespace: str
    written: list[tuple[str, str]] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)

    def send(self, method: str, path: str, body: object = None) -> None:
        """Send again until it is answered: a server that is being restarted refuses connections."""
        request = urllib.request.Request(
            f"{self.way.server}/api/v1/namespaces{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/merge-patch+json" if method == "PATCH" else "application/json"},
        )
        context, until = self.way.tls(), time.monotonic() + ways.DEADLINE
        while True:
            try:
                with urllib.request.urlopen(request, context=context, timeout=60):
                    return
            except urllib.error.HTTPError as refused:
                with refused:
                    if (refused.code, method) in ((409, "POST"), (404, "DELETE")):
                        return  # it was done before the answer was lost
                    if refused.code not in (429, 500, 502, 503, 504):
                        raise
            except OSError:
                pass
            assert time.monotonic() < until, f"{method} {path} was never answered"
            time.sleep(0.1)

    def begin(self) -> None:
        self.send("POST", "", {"metadata": {"name": self.namespace}})

    def create(self, name: str) -> None:
        labels = {"turn": "0"}
        self.send("POST", f"/{self.namespace}/serviceaccounts", {"metadata": {"name": name, "labels": labels}})
        self.written.append((name, "0"))

    def change(self, name: str, turn: int) -> None:
        patch = {"metadata": {"labels": {"turn": str(turn)}}}
        self.send("PATCH", f"/{self.namespace}/serviceaccounts/{name}", patch)
        self.written.append((name, str(turn)))

    def delete(self, name: str) -> None:
        self.send("DELETE", f"/{self.namespace}/serviceaccounts/{name}")
        self.gone.add(name)

    def some(self, prefix: str, after: str = "") -> None:
        """Three accounts, each changed, one deleted; and those of another time changed, one deleted."""
        for i in range(3):
            self.create(f"{prefix}-{i}")
            for turn in range(1, 4):
                self.change(f"{prefix}-{i}", turn)
        self.delete(f"{prefix}-2")
        if after:
            self.change(f"{after}-0", 9)
            self.delete(f"{after}-1")


def assert_told_right(informer: Informer, writer: Writer) -> None:
    """Each object's events are in order and told once, its last state among them, and the store is the server's.

    Of an object that came and went while nothing was connected, nothing need be told.
    """
    ours = {name for name, _ in writer.written}
    told = [line for line in informer.lines if line.get("name") in ours]
    for name in ours:
        events = [line for line in told if line["name"] == name]
        kinds = [line["event"] for line in events]
        if not kinds and name in writer.gone:
            continue
        assert (kinds[0], kinds.count("added")) == ("added", 1), (name, events)
        assert (kinds[-1] == "deleted", kinds.count("deleted")) == (name in writer.gone, int(name in writer.gone)), (
            events
        )
        versions = [int(line["version"]) for line in events if line["event"] != "deleted"]
        assert versions == sorted(set(versions)), (name, versions)
        last = [line["turn"] for line in events if line["event"] != "deleted"][-1]
        assert last == [turn for other, turn in writer.written if other == name][-1], (name, events)
    assert max(Counter((line["event"], line["name"], line["version"]) for line in told).values()) == 1
    end = informer.end()
    assert end["store"] == end["listed"]
    assert ours - writer.gone <= end["store"].keys()
    assert not writer.gone & end["store"].keys()


def assert_all_turns(informer: Informer, writer: Writer, *prefixes: str) -> None:
    """While it is connected, no change is skipped."""
    told = {(line["name"], line["turn"]) for line in informer.lines if line["event"] in ("added", "updated")}
    assert {each for each in writer.written if each[0].startswith(prefixes)} <= told


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def registered(gateway: e2e.Gateway, member: GoMember, folder: Path) -> Way:
    gateway.register("informed", endpoint=member.endpoint, ca=member.ca.encode(), **member.proof("token"))
    return ways.through(folder, gateway.kubeconfig, gateway.url, "informed", "token")


def port(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_the_member_is_restarted(goclient: Path, gateway: e2e.Gateway, matrix: Matrix, tmp_path: Path) -> None:
    """Two informers, one straight and one through the gateway, while the member is restarted."""
    state, namespace = made(tmp_path / "state"), f"informed-{secrets.token_hex(4)}"
    with ExitStack() as informers, ExitStack() as before:
        member = before.enter_context(kubemembers.running(state))
        direct = ways.direct(made(tmp_path / "direct"), member, "x509")
        through = registered(gateway, member, made(tmp_path / "through"))
        writer = Writer(direct, namespace)
        writer.begin()
        both = [informers.enter_context(following(goclient, way, namespace)) for way in (direct, through)]
        writer.some("before")
        for informer in both:
            informer.until(event="deleted", name="before-2")
        before.close()
        with kubemembers.running(state, port=port(member.endpoint)):
            writer.some("during", "before")
            writer.create("connected")
            with matrix.record(CLIENT, version(), MEMBER, "informer while the member is restarted"):
                for informer in both:
                    informer.until(event="added", name="connected")
                writer.some("after")
                for informer in both:
                    informer.until(event="deleted", name="after-2")
                    assert_all_turns(informer, writer, "before-", "after-")
                    assert_told_right(informer, writer)


def test_the_gateway_is_restarted(goclient: Path, kubemember: GoMember, matrix: Matrix, tmp_path: Path) -> None:
    """Two informers, one of the own API and one of a member, while the gateway is restarted."""
    state, namespace = tmp_path / "gateway", f"informed-{secrets.token_hex(4)}"
    with ExitStack() as informers, ExitStack() as before:
        gateway = before.enter_context(e2e.running(state))
        through = registered(gateway, kubemember, made(tmp_path / "through"))
        own = ways.through(made(tmp_path / "own"), gateway.kubeconfig, gateway.url, "", "x509", "")
        writers = {MEMBER: Writer(through, namespace), OWN: Writer(own, namespace)}
        both = {}
        for target, writer in writers.items():
            writer.begin()
            both[target] = informers.enter_context(following(goclient, writer.way, namespace))
            writer.some("before")
            both[target].until(event="deleted", name="before-2")
        before.close()
        with e2e.running(state, port=port(gateway.url)):
            for target, writer in writers.items():
                writer.some("during", "before")
                writer.create("connected")
                with matrix.record(CLIENT, version(), target, "informer while the gateway is restarted"):
                    both[target].until(event="added", name="connected")
                    writer.some("after")
                    both[target].until(event="deleted", name="after-2")
                    assert_all_turns(both[target], writer, "before-", "after-")
                    assert_told_right(both[target], writer)
