"""The budget of bytes for a stream of ``grpc.aio``: a stream that has to wait is not read.

``grpc.aio`` itself reads whole messages, so only the pieces that a session collects are counted.
"""

import asyncio
from collections.abc import Callable

from lora_router.extproc.outputs import Outputs
from lora_router.extproc.session import Session
from lora_router.extproc.states import PIECES
from lora_router.grpc_server.budget import Account, Budget


class StreamMemory:
    """What the session of one stream keeps."""

    __slots__ = ("_account", "_budget", "_send", "_session", "_settled")

    def __init__(self, budget: Budget, session: Session, send: Callable[[Outputs], None]) -> None:
        """Create the memory of a new stream.

        Args:
            budget: Counts the bytes.
            session: The session.
            send: Sends output that is not the result of a received message.
        """
        self._budget = budget
        self._session = session
        self._send = send
        self._account: Account | None = None
        self._settled = asyncio.Event()

    async def let_in(self) -> None:
        """Count what the session keeps, and wait until it may receive more."""
        session = self._session
        if self._account is None:
            if session.state is not PIECES or session.expected_bytes <= self._budget.small:
                return
            # Envoy's clock runs since the headers, and a long body takes its time.
            self._send(session.delayed(self._budget.wait_seconds))
            self._account = Account(self._budget, self)
        self._account.keep(session.collected_bytes, session.expected_bytes)
        self._settled.clear()
        if not self._account.lets_in() and not self._account.is_refused:
            await self._settled.wait()

    def release(self) -> None:
        """Count nothing any more."""
        # The account refers to this object. Without this reference there is no cycle to collect.
        account, self._account = self._account, None
        if account is not None:
            account.clear()

    # Called by the budget

    def admitted(self) -> None:
        """Read on."""
        self._settled.set()

    def must_wait(self) -> None:
        """Ask Envoy for the time."""
        self._send(self._session.delayed(self._budget.wait_seconds))

    def refused(self) -> None:
        """Answer that there is no room, and read on: the session takes nothing more."""
        self._send(self._session.overloaded())
        self._settled.set()
