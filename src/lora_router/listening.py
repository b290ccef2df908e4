"""Listening sockets, of both address families where the kernel has both."""

import errno
import os
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


def cannot_listen(host: str, port: int, what: str, cause: OSError | None = None) -> str:
    """Return why nothing can listen on an address, and which settings give it.

    Args:
        host: The address.
        port: The port.
        what: What would listen, and its settings.
        cause: What the kernel or the resolver said, if that is known.
    """
    number = None if cause is None else cause.errno
    if number is not None and number < 0:
        # The numbers of the resolver are negative. `socket.create_server` hides its type of error.
        reason = "no address of this host has that name"
    elif number:
        reason = os.strerror(number)
    else:
        reason = "address not available"
    if number in (errno.EADDRINUSE, None):
        reason += "; does another process use the port?"
    return f"cannot listen on {shown_address(host, port)} for {what}: {reason}"


def shown_address(host: str, port: int) -> str:
    """Return an address for people and for URLs: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
