"""Where peers are: addresses from the settings, resolved again and again."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol

from lora_router.log_limit import LogLimit

log = logging.getLogger("lora_router.peering")

MAX_ADDRESSES = 64
UNIX = "unix:"
"""What the address of a Unix socket begins with."""
_LONGEST_PATH = 107
"""Bytes of the path of a Unix socket on Linux."""
REFRESH_SECONDS = 3.0
_RESOLVE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a peer may be."""

    target: str
    """``ip:port``, ``[ip]:port`` for IPv6, ``unix:/path`` for a socket of this host."""
    host: str
    """The name by which it was found, which its certificate must have."""

    @property
    def is_local(self) -> bool:
        """Whether it is a Unix socket: file permissions protect it, and TLS is not used."""
        return self.target.startswith(UNIX)


class AddressSource(Protocol):
    """Finds the addresses of all routers, this one's included."""

    async def follow(self, use: Callable[[Collection[PeerAddress]], None]) -> None:
        """Call ``use`` with all addresses whenever they may have changed, for ever."""


class LocalPeers:
    """Routers on this host, each behind a Unix socket of its own."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Create it.

        Args:
            paths: The sockets, absolute paths. This router's own may be among them, and those
                that do not exist yet.

        Raises:
            ValueError: A path cannot be the address of a socket.
        """
        self._addresses = [_local(path) for path in paths]

    async def follow(self, use: Callable[[Collection[PeerAddress]], None]) -> None:
        """Call ``use`` once: the addresses never change."""
        use(self._addresses)
        await asyncio.Event().wait()


class AllOf:
    """The addresses of several sources together."""

    def __init__(self, sources: Sequence[AddressSource]) -> None:
        self._sources = sources

    async def follow(self, use: Callable[[Collection[PeerAddress]], None]) -> None:
        """Call ``use`` with the addresses of all sources, once each of them has found its own."""
        found: dict[int, Collection[PeerAddress]] = {}

        def put(number: int, addresses: Collection[PeerAddress]) -> None:
            found[number] = addresses
            if len(found) == len(self._sources):
                use(dict.fromkeys(chain(*found.values())).keys())

        async with asyncio.TaskGroup() as group:
            for number, source in enumerate(self._sources):
                group.create_task(source.follow(partial(put, number)))


class ListedPeers:
    """The routers in the setting ``peers``. A name stands for all its addresses."""

    def __init__(self, peers: str, refresh_seconds: float = REFRESH_SECONDS) -> None:
        """Create it.

        Args:
            peers: ``host:port``, or several joined by commas.
            refresh_seconds: How often names are resolved.
        """
        self._peers = [_split(each) for each in peers.split(",")]
        self._refresh_seconds = refresh_seconds
        self._resolved: dict[tuple[str, int], Sequence[PeerAddress]] = {}
        self._limit = LogLimit(60.0)

    async def follow(self, use: Callable[[Collection[PeerAddress]], None]) -> None:
        """Resolve the names, call ``use``, and repeat."""
        while True:
            await asyncio.gather(*(self._resolve(*each) for each in self._peers))
            found = dict.fromkeys(
                address for each in self._peers for address in self._resolved.get(each, ())
            )
            use(found.keys())
            await asyncio.sleep(self._refresh_seconds)

    async def _resolve(self, host: str, port: int) -> None:
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(
                    host, port, type=socket.SOCK_STREAM
                )
        except (OSError, UnicodeError) as error:
            # The last answer stays in use: most failures are the resolver's.
            self._limit.log(log, logging.WARNING, host, "cannot resolve peer %s: %s", host, error)
            return
        self._resolved[host, port] = tuple(
            dict.fromkeys(PeerAddress(_target(str(each[4][0]), port), host) for each in found)
        )


class FoundPeers:
    """Routers that a discovery finds."""

    def __init__(
        self,
        follow: Callable[[Callable[[Collection[tuple[str, int]]], None]], Awaitable[None]],
        host: str,
    ) -> None:
        """Create it.

        Args:
            follow: Calls its argument with all addresses and ports, for ever.
            host: The name that the certificates of all of them must have.
        """
        self._follow = follow
        self._host = host

    async def follow(self, use: Callable[[Collection[PeerAddress]], None]) -> None:
        """Call ``use`` whenever the discovery has found something."""
        await self._follow(
            lambda found: use([PeerAddress(_target(*each), self._host) for each in found])
        )


def _split(peer: str) -> tuple[str, int]:
    host, _, port = peer.strip().rpartition(":")
    return host.strip("[]"), int(port)


def _local(path: Path) -> PeerAddress:
    text = str(path)
    # A percent sign would be decoded, because the address is a URI.
    if not path.is_absolute() or "%" in text or len(text.encode()) > _LONGEST_PATH:
        raise ValueError(
            f"{text}: the path of a Unix socket must be absolute, without a percent sign, and at "
            f"most {_LONGEST_PATH} bytes long"
        )
    return PeerAddress(UNIX + text, text)


def _target(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
