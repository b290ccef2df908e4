"""Where peers on other hosts are: the parent finds them, once for all workers."""

import asyncio
from collections.abc import Callable, Collection

from lora_router.peering.addresses import AddressSource, PeerAddress
from lora_router.supervision import Supervisor
from lora_router.workers import messages
from lora_router.workers.crew import Crew
from lora_router.workers.member import Member


class FoundAddresses:
    """The parent's end."""

    def __init__(self, crew: Crew, source: AddressSource, supervisor: Supervisor) -> None:
        """Create it.

        Args:
            crew: The workers.
            source: Finds the addresses.
            supervisor: Runs the task.
        """
        self._crew = crew
        self._source = source
        self._supervisor = supervisor
        self._message: bytes | None = None
        crew.on_started.append(self._tell)

    def start(self) -> None:
        """Find addresses, and tell them to all workers whenever they have changed."""
        self._supervisor.keep("peer-addresses", lambda: self._source.follow(self._use))

    def _tell(self, member: Member) -> None:
        """Tell a worker that was started what is known."""
        if self._message is not None:
            member.process.send(self._message)

    def _use(self, addresses: Collection[PeerAddress]) -> None:
        found = tuple(sorted((each.target, each.host) for each in addresses))
        message = messages.encode(messages.Addresses(found, self._source.is_complete))
        if message != self._message:
            self._message = message
            self._crew.broadcast(message)


class ToldAddresses:
    """A worker's end: the source of its addresses."""

    def __init__(self) -> None:
        self._addresses: tuple[PeerAddress, ...] = ()
        self._changed = asyncio.Event()
        self.is_complete = False
        """Whether these are the addresses of all routers."""

    def told(self, message: messages.Addresses) -> None:
        """Use what the parent has found."""
        self._addresses = tuple(PeerAddress(*each) for each in message.addresses)
        self.is_complete = message.is_complete
        self._changed.set()

    async def follow(self, use: Callable[[Collection[PeerAddress]], None]) -> None:
        """Call ``use`` whenever the parent has found something, for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            use(self._addresses)
