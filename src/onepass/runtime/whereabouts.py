"""Where this gateway is, and so where no member can be."""

import ipaddress
from dataclasses import dataclass

import psutil

from onepass.gateway import ir
from onepass.registry import destinations
from onepass.registry.destinations import Bounds
from onepass.runtime.settings import Settings


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Asked anew each time: addresses of a machine come and go."""

    settings: Settings

    def bounds(self) -> Bounds:
        """For the control plane."""
        listen = self.settings.listen
        return Bounds(listen.loopback, listen.port, _own_addresses(), self.settings.endpoint_cidrs)

    def for_envoy(self) -> ir.Bounds:
        """For the data plane."""
        bounds = self.bounds()
        allowed = bounds.allowed
        if allowed and bounds.loopback:
            allowed += destinations.LOOPBACK
        families = {address.version for address in bounds.own if not address.is_link_local}
        return ir.Bounds(
            refused=tuple((str(network), port) for network, port in destinations.refused(bounds)),
            allowed=tuple(map(str, allowed)),
            ipv6=families == {6},
        )


def _own_addresses() -> frozenset[destinations.Address]:
    texts = (
        each.address.partition("%")[0]
        for addresses in psutil.net_if_addrs().values()
        for each in addresses
        if each.family.name in ("AF_INET", "AF_INET6")
    )
    return frozenset(address for address in map(ipaddress.ip_address, texts) if not address.is_loopback)
