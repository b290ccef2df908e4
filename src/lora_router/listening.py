"""Listening sockets, of both address families where the kernel has both."""

import socket

EVERYWHERE = "::"
"""Stands for all addresses of a host, IPv4 and IPv6."""
EVERYWHERE_IPV4 = "0.0.0.0"  # noqa: S104 -- the operator chose to listen everywhere
"""The same on a host without IPv6."""


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket that does not block. ``::`` accepts IPv4 too.

    Raises:
        OSError: The address is in use or not available.
    """
    host = everywhere(host)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server(
        (host, port), family=family, backlog=1024, dualstack_ipv6=host == EVERYWHERE
    )
    listening.setblocking(False)
    return listening


def everywhere(host: str) -> str:
    """Return the address to listen on: another one for ``::`` if the kernel has no IPv6."""
    if host == EVERYWHERE and not socket.has_dualstack_ipv6():
        return EVERYWHERE_IPV4
    return host


def shown_address(host: str, port: int) -> str:
    """Return an address for people and for URLs: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
