"""Asks every process of the fleet's routers what people want to know (``lora_router.debug``)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from lora_router.debug.questions import Answer, encode, is_order
from lora_router.log_limit import LogLimit
from lora_router.peering.questions import Answers as Replies
from lora_router.peering.questions import QuestionExchange
from lora_router.supervision import Supervisor

log = logging.getLogger("lora_router.tasks")

_NO_ORDERS = (
    "the router that loads adapters, {name}, takes orders of its peers only with peer_secret_file; "
    "give the order at its own admin port"
)
_NO_ORDERS_TO_WORKERS = (
    "a router with workers takes orders only at its own admin port; give the order at the admin "
    "port of the host that loads adapters (lora_router_loads_adapters is 1 there)"
)

Answered: TypeAlias = Sequence[tuple[str, bytes]]
"""The processes that were asked, by name, each with its answer. Empty: it did not answer."""
Answers: TypeAlias = Callable[[bytes], Awaitable[bytes]]
"""Answers a question for this process."""


class Asking:
    """Asks this process and all its peers, and answers what they ask."""

    def __init__(
        self,
        name: str,
        answer: Answers,
        exchange: QuestionExchange | None,
        supervisor: Supervisor,
        *,
        obeys_peers: bool = False,
        loads: Callable[[], bool] | None = None,
    ) -> None:
        """Begin to answer.

        Args:
            name: The name of this process.
            answer: Answers for this process.
            exchange: Carries questions and answers; ``None``: there are no peers.
            supervisor: Runs the tasks.
            obeys_peers: Whether orders of peers are obeyed: these have proved who they are.
            loads: Returns whether this process is the one that loads adapters; ``None``: this is a
                worker, whose parent may load.
        """
        self._obeys_peers = obeys_peers
        self._loads = loads
        self._name = name
        self._answer = answer
        self._exchange = exchange
        self._supervisor = supervisor
        self._limit = LogLimit(60.0)
        if exchange is not None:
            exchange.answer = self._asked

    async def ask(self, question: bytes) -> Answered:
        """Return the answers of this process and of all its peers.

        Raises:
            Exception: What ``answer`` raised in this process.
        """
        others: asyncio.Future[Replies] = asyncio.get_running_loop().create_future()

        def deliver(answers: Replies) -> None:
            if not others.done():  # Nobody may wait any more.
                others.set_result(answers)

        if self._exchange is None:
            deliver(Replies({}, ()))
        else:
            self._exchange.ask(question, deliver)
        own = await self._answer(question)
        got = await others
        return [(self._name, own), *got.texts.items(), *((name, b"") for name in got.missing)]

    def _asked(self, question: bytes, reply: Callable[[bytes], None]) -> None:
        if not self._obeys_peers and is_order(question):
            reply(encode(self._no_orders()))
            return
        self._supervisor.once("debug-answer", self._reply(question, reply))

    def _no_orders(self) -> Answer:
        """Return the answer to an order that is not obeyed. Who loads says so, with its name."""
        if self._loads is None:
            return Answer(error=_NO_ORDERS_TO_WORKERS)
        if not self._loads():
            return Answer()
        return Answer(error=_NO_ORDERS.format(name=self._name))

    async def _reply(self, question: bytes, reply: Callable[[bytes], None]) -> None:
        answer = b""
        try:
            answer = await self._answer(question)
        except Exception as error:
            self._limit.log(
                log, logging.ERROR, "answer", "failed to answer a peer's question", exc_info=error
            )
        finally:
            reply(answer)
