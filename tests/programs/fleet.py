"""A fleet of members in one process: each is an address of 127.0.0.0/8 on one port, all behave as they are told.

It counts at the members what a gateway does to them: looks that are under way at once, and requests. A look begins with
a connection that carries no request (the prober's handshake), or with a request (its question, through Envoy).
"""

import argparse
import asyncio
import json
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import trustme
import uvloop

SERVER_NAME = "fleet.test"
MODES = ("well", "mute", "deaf", "stranger", "flapping")
"""Answers; takes connections and never speaks TLS; speaks TLS and never answers; answers 401; 503 every second time."""

_VERSION = json.dumps({"major": "1", "minor": "33", "gitVersion": "v1.33.1"})
_NODES = json.dumps({"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": []})
_UNAUTHORIZED = json.dumps({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 401})


def address(number: int) -> str:
    """Of the member of that number, below 60,000."""
    return f"127.9.{number // 250}.{number % 250 + 1}"


@dataclass
class Counts:
    """What has been seen until now."""

    looks: int = 0  # connections that begin
    versions: int = 0  # questions that were asked
    hanging: int = 0  # connections of members that hang which are open now
    most_hanging: int = 0
    most: int = 0  # members that are being looked at, at once
    looked_at: int = 0  # members that were looked at, ever
    well_asked: int = 0  # members that are well and were asked for their version, ever
    first_round: float = 0.0  # seconds from the first look to the last member that is well


@dataclass
class Fleet:
    """The members; the mode of a number is that of the first of `modes` that it is below."""

    modes: Sequence[tuple[int, str]]
    counts: Counts = field(default_factory=Counts)
    busy: dict[int, int] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    asked: set[int] = field(default_factory=set)
    answers: dict[int, int] = field(default_factory=dict)
    began: float = 0.0

    def mode(self, number: int) -> str:
        return next((mode for below, mode in self.modes if number < below), "well")

    def enter(self, number: int) -> None:
        self.busy[number] = self.busy.get(number, 0) + 1
        self.counts.most = max(self.counts.most, len(self.busy))

    def leave(self, number: int) -> None:
        self.busy[number] -= 1
        if not self.busy[number]:
            del self.busy[number]

    def look(self, number: int) -> None:
        self.began = self.began or time.monotonic()
        self.counts.looks += 1
        self.seen.add(number)
        self.counts.looked_at = len(self.seen)

    def hang(self, more: int) -> None:
        self.counts.hanging += more
        self.counts.most_hanging = max(self.counts.most_hanging, self.counts.hanging)

    def answer(self, number: int, path: str) -> tuple[int, str]:
        if not path.startswith("/version"):
            return 200, _NODES
        self.counts.versions += 1
        mode = self.mode(number)
        if mode == "stranger":
            return 401, _UNAUTHORIZED
        times = self.answers[number] = self.answers.get(number, 0) + 1
        if mode == "well" and number not in self.asked:
            self.asked.add(number)
            self.counts.well_asked = len(self.asked)
            self.counts.first_round = time.monotonic() - self.began
        return (503, "{}") if mode == "flapping" and times % 2 == 0 else (200, _VERSION)


class Connection(asyncio.Protocol):
    """TLS is done; HTTP/1.1, one request after the other."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self.fleet, self.number, self.received, self.within = fleet, number, b"", True
        self.transport: asyncio.Transport | None = None
        fleet.look(number)
        fleet.enter(number)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by what it does, not by its class

    def data_received(self, data: bytes) -> None:
        self.received += data
        while b"\r\n\r\n" in self.received:
            head, _, self.received = self.received.partition(b"\r\n\r\n")
            if not self.within:
                self.within = True
                self.fleet.enter(self.number)
            if self.fleet.mode(self.number) == "deaf":
                return
            code, body = self.fleet.answer(self.number, head.split(b" ")[1].decode())
            told = f"HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
            assert self.transport is not None
            self.transport.write(told.encode())
            self.done()

    def connection_lost(self, _error: Exception | None) -> None:
        self.done()

    def done(self) -> None:
        if self.within:
            self.within = False
            self.fleet.leave(self.number)


async def mute(fleet: Fleet, number: int, accepted: socket.socket) -> None:
    """A member that takes a connection and says nothing, until it is closed."""
    fleet.look(number)
    fleet.enter(number)
    fleet.hang(+1)
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while await loop.sock_recv(accepted, 4096):
            pass
    accepted.close()
    fleet.hang(-1)
    fleet.leave(number)


async def serve(fleet: Fleet) -> None:
    """Tells where it is, then answers each line of standard input with what was counted, until that ends."""
    authority, loop = trustme.CA(), asyncio.get_running_loop()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(SERVER_NAME).configure_cert(context)
    context.set_alpn_protocols(["http/1.1"])
    # Every address of loopback is a member, and no other way leads here.
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    listener.bind(("0.0.0.0", 0))
    listener.listen(1024)
    listener.setblocking(False)
    tasks: set[asyncio.Task[None]] = set()

    async def speak(number: int, accepted: socket.socket) -> None:
        if fleet.mode(number) == "mute":
            await mute(fleet, number, accepted)
            return
        with suppress(OSError):  # who hangs up within the handshake
            await loop.connect_accepted_socket(lambda: Connection(fleet, number), accepted, ssl=context)

    async def accept() -> None:
        while True:
            accepted, _ = await loop.sock_accept(listener)
            accepted.setblocking(False)
            parts = [int(part) for part in accepted.getsockname()[0].split(".")]
            if parts[:2] != [127, 9]:
                accepted.close()
                continue
            task = loop.create_task(speak(parts[2] * 250 + parts[3] - 1, accepted))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    accepting = loop.create_task(accept())
    print(
        json.dumps({"port": listener.getsockname()[1], "ca": authority.cert_pem.bytes().decode()}),
        flush=True,
    )
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(asdict(fleet.counts)), flush=True)
    for task in (accepting, *tasks):
        task.cancel()
    await asyncio.gather(accepting, *tasks, return_exceptions=True)
    listener.close()


@dataclass(frozen=True)
class Running:
    """A fleet in a process of its own."""

    port: int
    ca: str
    process: subprocess.Popen[str]

    def endpoint(self, number: int) -> str:
        return f"https://{address(number)}:{self.port}"

    def counts(self) -> Counts:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return Counts(**json.loads(self.process.stdout.readline()))


@contextmanager
def running(*modes: tuple[int, str]) -> Iterator[Running]:
    """`modes` as (how many, mode), for the numbers from 0 on; every further member is well."""
    below, bounds = 0, []
    for count, mode in modes:
        below += count
        bounds.append(f"{below}={mode}")
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.programs.fleet", *bounds],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                complaints.seek(0)
                raise AssertionError(f"the fleet did not start: {complaints.read()}")
            yield Running(**json.loads(line), process=process)
        finally:
            process.stdin.close()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def _bound(text: str) -> tuple[int, str]:
    below, _, mode = text.partition("=")
    if mode not in MODES:
        raise argparse.ArgumentTypeError(f"{mode!r} is none of {', '.join(MODES)}")
    return int(below), mode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modes", nargs="*", type=_bound, metavar="BELOW=MODE")
    uvloop.run(serve(Fleet(parser.parse_args().modes)))
