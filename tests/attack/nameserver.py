"""A DNS server whose answers a test changes under way (RFC 1035): A and AAAA records, with a lifetime of a second."""

import ipaddress
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

_A, _AAAA = 1, 28
SERVFAIL, SILENT = "SERVFAIL", "SILENT"


@dataclass
class Nameserver:
    """`zone` maps names to addresses; names that are not in it do not exist. `mood` may be SERVFAIL or SILENT."""

    port: int
    zone: dict[str, Sequence[str]] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    mood: str = ""

    def answer(self, query: bytes) -> bytes:
        labels, at = [], 12
        while size := query[at]:
            labels.append(query[at + 1 : at + 1 + size].decode())
            at += size + 1
        question = query[12 : at + 5]
        name, kind = ".".join(labels).lower(), struct.unpack("!H", query[at + 1 : at + 3])[0]
        addresses = [ipaddress.ip_address(each) for each in self.zone.get(name, ())]
        wanted = [each for each in addresses if (each.version == 4) == (kind == _A) and kind in (_A, _AAAA)]
        records = b"".join(
            b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 1, len(each.packed)) + each.packed for each in wanted
        )
        code = 0 if name in self.zone else 3
        if self.mood == SERVFAIL:
            wanted, records, code = [], b"", 2
        self.asked[name] = self.asked.get(name, 0) + 1
        return query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(wanted), 0, 0) + question + records


@contextmanager
def running() -> Iterator[Nameserver]:
    """On loopback, over UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(0.2)
        server = Nameserver(listener.getsockname()[1])
        done = threading.Event()

        def serve() -> None:
            while not done.is_set():
                try:
                    query, peer = listener.recvfrom(4096)
                except TimeoutError:
                    continue
                answer = server.answer(query)
                if server.mood != SILENT:
                    listener.sendto(answer, peer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server
        finally:
            done.set()
            thread.join(10)
