"""`onepass up` on a real etcd that stops, dies, forgets and comes back, under proxied load."""

import contextlib
import json
import os
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from tests.attack import echo
from tests.attack.echo import Echo
from tests.e2e import ways
from tests.e2e.conftest import Gateway, running
from tests.programs import etcds
from tests.programs.debian import DebianMissing
from tests.programs.etcds import Etcd
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

SECONDS = 60.0
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
PODS = "/apis/cluster.karpor.io/v1beta1/clusters/c1/proxy/api/v1/pods"


@pytest.fixture(scope="module")
def member() -> Iterator[Echo]:
    with echo.running("c1") as started:
        yield started


@pytest.fixture(scope="module")
def server() -> Iterator[Etcd]:
    try:
        etcds.program()
    except DebianMissing as missing:
        pytest.skip(str(missing))
    with etcds.running() as [one]:
        yield one


@dataclass
class Client:
    """The administrator, without kubectl's own patience; and what its load and its watch have met with."""

    gateway: Gateway
    answers: list[int | str] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    tls: ssl.SSLContext = field(init=False)
    told: str = ""  # the revision up to which the watch has told

    def __post_init__(self) -> None:
        home = self.gateway.data_dir / "home"
        home.mkdir(exist_ok=True)
        self.tls = ways.through(home, self.gateway.kubeconfig, self.gateway.url, "c1", "x509").tls()

    def http(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.gateway.url, verify=self.tls, trust_env=False, timeout=SECONDS)

    def load(self) -> None:
        with self.http() as http:
            while not self.done.wait(0.01):
                try:
                    self.answers.append(http.get(PODS).status_code)
                except httpx2.HTTPError as error:
                    self.answers.append(str(error))

    def watch(self) -> None:
        """As a reflector does: from a list, on from the last event when a watch ends, and anew when that is too old."""
        with self.http() as http:
            self.told = self._list(http)
            while not self.done.wait(0.05):
                with contextlib.suppress(httpx2.RemoteProtocolError):  # one that breaks off goes on where it was
                    self._follow(http)

    def _follow(self, http: httpx2.Client) -> None:
        asked = {"watch": "1", "resourceVersion": self.told, "timeoutSeconds": "3", "allowWatchBookmarks": "true"}
        with http.stream("GET", ACCOUNTS, params=asked) as answer:
            for line in answer.iter_lines() if answer.status_code == 200 else ():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    assert event["object"]["code"] in (410, 503), event
                    if event["object"]["code"] == 410:
                        self.told = self._list(http)
                    return
                self.told = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self.events.append((event["type"], event["object"]["metadata"]["name"]))
        if answer.status_code == 410:
            self.told = self._list(http)

    def _list(self, http: httpx2.Client) -> str:
        """Its revision; what has come meanwhile counts as told now."""
        while (answer := http.get(ACCOUNTS)).status_code != 200:
            if self.done.wait(0.1):
                return self.told
        found = answer.json()
        new = (("ADDED", each["metadata"]["name"]) for each in found["items"])
        self.events += [event for event in new if event not in self.events]
        return str(found["metadata"]["resourceVersion"])

    @contextmanager
    def busy(self) -> Iterator[None]:
        threads = [threading.Thread(target=each) for each in (self.load, self.watch)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.done.set()
            for thread in threads:
                thread.join(SECONDS)


def create(http: httpx2.Client, name: str) -> httpx2.Response:
    return http.post(ACCOUNTS, json={"metadata": {"name": name}})


def names(http: httpx2.Client) -> set[str]:
    return {each["metadata"]["name"] for each in http.get(ACCOUNTS).json()["items"]}


def refused(answer: httpx2.Response) -> None:
    assert (answer.status_code, answer.json()["reason"]) == (503, "ServiceUnavailable")
    assert "storage" in answer.json()["message"]


def ready(http: httpx2.Client) -> list[int]:
    """Of all checks, of those that the chart asks for, and of the process alone."""
    return [http.get(path).status_code for path in ("/readyz", "/readyz?exclude=storage", "/livez")]


def spent(gateway: Gateway) -> float:
    """Seconds of a processor that `onepass up` itself has used."""
    fields = Path(f"/proc/{gateway.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def logged(gateway: Gateway) -> int:
    return len((gateway.data_dir / "onepass.log").read_text().splitlines())


def test_members_are_reached_while_etcd_is_away_and_all_goes_on_by_itself(
    tmp_path: Path, server: Etcd, member: Echo
) -> None:
    url = f"etcd://{server.server}"
    with running(tmp_path / "gw", "--storage", f"{url}/first") as gateway:
        gateway.register("c1", endpoint=member.endpoint, ca=member.ca, token="canary")
        client = Client(gateway)
        with client.http() as http, client.busy():
            eventually(lambda: len(client.answers) > 20)
            assert create(http, "before").status_code == 201
            eventually(lambda: ("ADDED", "before") in client.events)

            server.signal(signal.SIGSTOP)
            try:
                refused(create(http, "stopped"))
                assert ready(http) == [500, 200, 200]
            finally:
                server.signal(signal.SIGCONT)
            eventually(lambda: ready(http) == [200, 200, 200])
            eventually(lambda: create(http, "between").status_code in (201, 409))

            server.kill()
            refused(create(http, "killed"))
            assert ready(http) == [500, 200, 200]
            began, cpu, lines, asked = time.monotonic(), spent(gateway), logged(gateway), len(client.answers)
            eventually(lambda: time.monotonic() > began + 8 and len(client.answers) > asked + 50)
            share = (spent(gateway) - cpu) / (time.monotonic() - began)
            more = logged(gateway) - lines
            print(f"without etcd: {share:.0%} of a processor, {more} lines in {time.monotonic() - began:.0f} s")
            assert share < 0.8
            assert more < 200
            server.start()
            server.ready()
            eventually(lambda: ready(http) == [200, 200, 200])
            eventually(lambda: create(http, "after").status_code in (201, 409))

            revision = json.loads(server.ctl("get", "x", "-w", "json"))["header"]["revision"]
            server.ctl("compact", str(revision))
            assert create(http, "forgotten").status_code == 201
            eventually(lambda: ("ADDED", "forgotten") in client.events)
            there = names(http)
            eventually(lambda: {name for _, name in client.events} >= there)

        assert {"before", "between", "after", "forgotten"} <= there
        assert "killed" not in there, "a write that was surely not done"
        assert set(client.answers) == {200}, "members are reached without storage"
        assert sorted(client.events) == sorted(("ADDED", name) for name in there), "once each"

    with (
        running(tmp_path / "gw", "--storage", f"etcd://{server.server}/first") as gateway,
        Client(gateway).http() as http,
    ):
        assert names(http) == there
        assert http.get(PODS).status_code == 200
    with (
        running(tmp_path / "2", "--storage", f"etcd://{server.server}/second") as gateway,
        Client(gateway).http() as http,
    ):
        assert names(http) == set()
        assert http.get("/apis/cluster.karpor.io/v1beta1/clusters").json()["items"] == []
