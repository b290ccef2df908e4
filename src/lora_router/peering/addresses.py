"""Where peers are: addresses from the settings, resolved again and again."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from lora_router.log_limit import LogLimit

log = logging.getLogger("lora_router.peering")

MAX_ADDRESSES = 64
REFRESH_SECONDS = 3.0
_RESOLVE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a peer may be."""

    target: str
    """``ip:port``, ``[ip]:port`` for IPv6."""
    host: str
    """The name by which it was found, which its certificate must have."""


class AddressSource(Protocol):
    """Finds the addresses of all routers, this one's included."""

    @property
    def is_complete(self) -> bool:
        """Whether ``use`` was called with all addresses, and not only with those found first."""

    async def follow(self, use: Callable[[Collection[PeerAddress]], None]) -> None:
        """Call ``use`` with all addresses whenever they may have changed, for ever."""


class ListedPeers:
    """The routers in the setting ``peers``. A name stands for all its addresses.

    Each name is resolved on its own, so that one that nobody answers for does not delay the others.
    """

    def __init__(self, peers: str, refresh_seconds: float = REFRESH_SECONDS) -> None:
        """Create it.

        Args:
            peers: ``host:port``, or several joined by commas.
            refresh_seconds: How often names are resolved.
        """
        self._peers = tuple(dict.fromkeys(_split(each) for each in peers.split(",")))
        self._refresh_seconds = refresh_seconds
        self._resolved: dict[tuple[str, int], Sequence[PeerAddress]] = {}
        self._is_complete = False
        self._limit = LogLimit(60.0)

    @property
    def is_complete(self) -> bool:
        """Whether each name has been resolved, or could not be."""
        return self._is_complete

    async def follow(self, use: Callable[[Collection[PeerAddress]], None]) -> None:
        """Resolve the names, each again and again, and call ``use`` when some of them are."""
        asked = asyncio.Event()
        never_asked = set(self._peers)

        async def keep_resolved(peer: tuple[str, int]) -> None:
            while True:
                await self._resolve(*peer)
                never_asked.discard(peer)
                asked.set()
                await asyncio.sleep(self._refresh_seconds)

        async with asyncio.TaskGroup() as names:
            for each in self._peers:
                names.create_task(keep_resolved(each), name="peer-name")
            while True:
                await asked.wait()
                asked.clear()
                self._is_complete = not never_asked
                use(self._found())

    def _found(self) -> Collection[PeerAddress]:
        return dict.fromkeys(
            address for each in self._peers for address in self._resolved.get(each, ())
        ).keys()

    async def _resolve(self, host: str, port: int) -> None:
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(
                    host, port, type=socket.SOCK_STREAM
                )
        except TimeoutError:
            self._failed(host, f"no answer within {_RESOLVE_SECONDS:g} s")
            return
        except (OSError, UnicodeError) as error:
            self._failed(host, error)
            return
        self._resolved[host, port] = tuple(
            dict.fromkeys(PeerAddress(_target(str(each[4][0]), port), host) for each in found)
        )

    def _failed(self, host: str, why: object) -> None:
        # The last answer stays in use: most failures are the resolver's.
        self._limit.log(log, logging.WARNING, host, "cannot resolve peer %s: %s", host, why)


class FoundPeers:
    """Routers that a discovery finds."""

    is_complete = True
    """It finds all of them at once."""

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


def _target(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
