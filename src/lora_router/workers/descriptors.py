"""File descriptors that the parent passes to a worker, each with bytes that say what it is."""

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress

CONNECTION = b"c"
"""A connection of a gateway."""
OPENS, ACCEPTS = b"o", b"a"
"""One end of a link to another worker, whose number follows. The one that ``OPENS`` greets."""
RELAY = b"r"
"""One end of a way for streams that are passed on to another worker, whose number follows."""
_MAX_TAG_BYTES = 16
_AT_ONCE = 64
_SPARE = 8
"""Descriptors that a process should have left before it gets more."""


def descriptor_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a connection that keeps the bounds of messages."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in pair:
        end.setblocking(False)
    return pair


def send_descriptor(through: socket.socket, tag: bytes, sent: socket.socket) -> bool:
    """Pass a descriptor on; the caller still has to close its own.

    Returns:
        Whether that succeeded. It fails if the worker does not read, or has ended.
    """
    try:
        socket.send_fds(through, [tag], [sent.fileno()])
    except OSError:
        return False
    return True


def receive_descriptors(
    through: socket.socket, receive: Callable[[bytes, socket.socket | None], None]
) -> bool:
    """Pass on the descriptors that have arrived; return whether more can arrive.

    ``None``: it is lost, because this process has as many as it may. The kernel has closed it.
    """
    for _ in range(_AT_ONCE):
        try:
            tag, descriptors, _flags, _address = socket.recv_fds(through, _MAX_TAG_BYTES, 1)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        if not tag:
            return False
        if not descriptors:
            receive(tag, None)
        for descriptor in descriptors:
            # Its family is found out from the descriptor.
            received = socket.socket(fileno=descriptor)
            with suppress(OSError):
                received.setblocking(False)
            receive(tag, received)
    return True


def has_spare_descriptors(some: socket.socket) -> bool:
    """Return whether this process may have a few more descriptors. It copies that of a socket."""
    with ExitStack() as copies:
        for _ in range(_SPARE):
            try:
                copies.callback(os.close, os.dup(some.fileno()))
            except OSError:
                return False
    return True
