"""Addresses: of sockets, and the list of routers in ``envoy_router_address``."""

import ipaddress
from dataclasses import dataclass

from envoy_data_plane.envoy.config.core import v3 as core

from lora_router.config.settings import Settings
from lora_router.listening import EVERYWHERE


@dataclass(frozen=True, slots=True)
class RouterAddress:
    """One address at which Envoy reaches routers."""

    host: str
    """A DNS name, which may resolve to several routers, or an IP address."""
    port: int

    @property
    def is_ip(self) -> bool:
        """Whether the host is an IP address."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True


def router_addresses(settings: Settings) -> list[RouterAddress]:
    """Return every address of ``envoy_router_address``, in order."""
    given = settings.envoy_router_address or f"127.0.0.1:{settings.grpc_port}"
    addresses = []
    for each in given.split(","):
        host, _, port = each.strip().rpartition(":")
        addresses.append(RouterAddress(host.strip("[]"), int(port)))
    return addresses


def socket_address(host: str, port: int) -> core.Address:
    """Return an address as Envoy's typed message. A listener on ``::`` accepts IPv4 too."""
    address = core.SocketAddress(address=host, port_value=port, ipv4_compat=host == EVERYWHERE)
    return core.Address(socket_address=address)
