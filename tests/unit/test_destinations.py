"""Where members may be, beyond what is written: this machine's own addresses, and the operator's networks."""

import contextlib
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from onepass.registry import destinations
from onepass.registry.destinations import Bounds
from onepass.runtime import memory, whereabouts
from onepass.runtime.settings import Listen, Settings

OWN = frozenset(map(ip_address, ("10.1.2.3", "fd12::7")))
BOUNDS = Bounds(port=6443, own=OWN)
LOCAL = Bounds(loopback=True, port=6443, own=OWN)
NARROW = Bounds(port=6443, own=OWN, allowed=(ip_network("10.1.0.0/16"), ip_network("fd00::/8")))


@pytest.mark.parametrize(
    ("endpoint", "bounds", "told"),
    [
        ("https://10.1.2.3:6443", BOUNDS, "must not be an address of the gateway's own machine"),
        ("https://10.1.2.3:10250", BOUNDS, "must not be an address of the gateway's own machine"),
        ("https://[fd12::7]", LOCAL, "must not be an address of the gateway's own machine"),
        ("https://10.1.2.3", NARROW, "must not be an address of the gateway's own machine"),
        ("https://127.0.0.1:6443", LOCAL, "must not be the gateway itself"),
        ("https://localhost:6443", LOCAL, "must not be the gateway itself"),
        ("https://127.8.8.8:6443", LOCAL, "must not be the gateway itself"),
        ("https://[::1]:6443", LOCAL, "must not be the gateway itself"),
        ("https://[::1]:6444", LOCAL, ""),
        ("https://localhost:6444", LOCAL, ""),
        ("https://127.0.0.1:6444", BOUNDS, "must not be this machine"),
        ("https://10.1.9.9", NARROW, ""),
        ("https://[fd99::1]", NARROW, ""),
        ("https://10.2.9.9", NARROW, "is outside of the networks"),
        ("https://8.8.8.8", NARROW, "is outside of the networks"),
        ("https://[2001:db8::1]", NARROW, "is outside of the networks"),
        ("https://name.example", NARROW, ""),  # judged where it leads
        ("https://[64:ff9b:1::a9fe:a9fe]", BOUNDS, "must not be an IPv4 address in IPv6 form"),
    ],
)
def test_what_the_operator_and_the_machine_add(endpoint: str, bounds: Bounds, told: str) -> None:
    wrong = destinations.check(endpoint, bounds)
    assert [each for each in wrong if told in each] if told else not wrong


ADDRESSES = (
    st.ip_addresses(v=4)
    | st.ip_addresses(v=6)
    | st.sampled_from(["169.254.", "127.", "0.", "224.", "240."]).flatmap(
        lambda start: st.ip_addresses(v=4).map(lambda a: ip_address(int(a) & 0xFFFFFF | int(start.split(".")[0]) << 24))
    )
    | st.ip_addresses(v=4).map(lambda a: ip_address(f"::ffff:{a}"))
    | st.ip_addresses(v=4).map(lambda a: ip_address(f"64:ff9b::{a}"))
    | st.sampled_from([*OWN, *map(ip_address, ("168.63.129.16", "fd00:ec2::254", "100.100.100.200", "::1", "::"))])
)


@given(ADDRESSES, st.sampled_from([BOUNDS, LOCAL]), st.sampled_from([6443, 443]))
@example(ip_address("169.254.169.254"), BOUNDS, 443)
@example(ip_address("10.1.2.3"), LOCAL, 443)
def test_both_planes_refuse_the_same_addresses(address: IPv4Address | IPv6Address, bounds: Bounds, port: int) -> None:
    networks = destinations.refused(bounds)
    refused = any(address in network and wanted in (0, port) for network, wanted in networks)
    compatible = address.version == 6 and 1 < int(address) < 2**32  # routed nowhere, and refused where it is written
    assert compatible or refused == bool(destinations.judge(str(address), port, bounds))


def test_the_machine_is_asked_for_its_addresses() -> None:
    here = whereabouts.Whereabouts(Settings(listen=Listen.parse("0.0.0.0:7443"), allow_endpoint_cidr=("10.0.0.0/8",)))
    bounds = here.bounds()
    assert (bounds.loopback, bounds.port, bounds.allowed) == (False, 7443, (ip_network("10.0.0.0/8"),))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked, contextlib.suppress(OSError):  # no network
        asked.connect(("192.0.2.1", 9))  # sends nothing; chooses the address that it would send from
        assert ip_address(asked.getsockname()[0]) in bounds.own
    assert ("127.0.0.0/8", 0) in here.for_envoy().refused
    local = whereabouts.Whereabouts(Settings(allow_endpoint_cidr=("10.0.0.0/8",))).for_envoy()
    assert ("127.0.0.0/8", 6443) in local.refused
    assert local.allowed == ("10.0.0.0/8", "127.0.0.0/8", "::1/128")


@pytest.mark.parametrize(
    ("written", "expected"), [("1000", 650), ("max", 1300), ("999999999999", 1300), ("", 1300), (None, 1300)]
)
def test_envoys_share_of_the_memory(tmp_path: Path, written: str | None, expected: int) -> None:
    limit = tmp_path / "memory.max"
    if written is not None:
        limit.write_text(written + "\n")
    assert memory.for_envoy((limit,), 2000) == expected


@pytest.mark.parametrize(("files", "expected"), [(20_000, 10_000), (1_048_576, 50_000), (-1, 50_000), (1, 1)])
def test_envoys_share_of_the_open_files(files: int, expected: int) -> None:
    assert memory.connections_for_envoy(files) == expected
