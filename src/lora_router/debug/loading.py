"""What the router that loads adapters answers: how far each is as declared, and what it will do."""

import asyncio
from collections.abc import Callable
from time import time

from lora_router.adapters.loader import Loader
from lora_router.adapters.orders import OrderError, Orders
from lora_router.adapters.status import AdapterStatus, rows_in_steps
from lora_router.debug.arguments import Arguments, ArgumentsError
from lora_router.debug.parts import AdapterPart
from lora_router.debug.questions import Answer, AnswerError, encode, read_question
from lora_router.debug.rows import FailingLoad, LoaderStep, Obeyed

MAX_FAILING = 8
"""Pods that the row of an adapter names as failing."""
MAX_LOADING = 32
MAX_COPIES = 10_000
ACTIONS = ("load", "unload", "sync")
Row = Callable[[str], AdapterPart | None]
"""Returns the row of an adapter, a new one if it has none; ``None``: there are too many."""


class Loading:
    """Answers about the loader of one process, and gives it orders."""

    def __init__(self, loader: Loader, orders: Orders, wall: Callable[[], float] = time) -> None:
        """Create it.

        Args:
            loader: Loads adapters, or would if no other router did.
            orders: Obeys orders.
            wall: Returns seconds since 1970.
        """
        self._loader = loader
        self._orders = orders
        self._wall = wall

    async def answer(self, question: bytes) -> bytes:
        """Return what a process answers that serves no requests itself, encoded."""
        try:
            asked = read_question(question)
            arguments = Arguments.of(asked)
            if asked.kind == "adapters":
                rows: dict[str, AdapterPart] = {}
                await self.add_declared(
                    lambda name: _row(rows, name, arguments.limit), counts_pods=True
                )
                return encode(Answer(at=self._wall(), parts=[encode(list(rows.values()))]))
            if asked.kind == "steps":
                return encode(await self.steps(arguments))
            if asked.kind == "order":
                return encode(self.obey(arguments))
        except (AnswerError, ArgumentsError) as error:
            return encode(Answer(at=self._wall(), error=str(error)))
        return encode(Answer(at=self._wall()))

    async def add_declared(self, row: Row, *, counts_pods: bool = False) -> None:
        """Complete the rows of adapters by what is declared of them.

        Args:
            row: Returns the row of an adapter.
            counts_pods: Whether nobody else counts the pods that list them.
        """
        if not self._loader.loads:
            return
        for some in rows_in_steps(self._loader):
            for status in some:
                found = row(status.adapter.served_name)
                if found is not None:
                    _complete(found, status)
                    if counts_pods:
                        found.listed = status.loaded_count
            await asyncio.sleep(0)

    async def steps(self, arguments: Arguments) -> Answer:
        """Return the loads and unloads that are to be done, if this router does them."""
        if not self._orders.obeys:
            return Answer(at=self._wall())
        rows: list[LoaderStep] = []
        more = 0
        for steps in self._orders.pending():
            room = arguments.limit - len(rows)
            rows += [
                LoaderStep(
                    action=step.action,
                    adapter=step.adapter,
                    pod=step.pod,
                    reason=step.reason,
                    put_off=step.put_off,
                )
                for step in steps[:room]
            ]
            more += len(steps[room:])
            await asyncio.sleep(0)
        return Answer(at=self._wall(), parts=[encode(rows)], more=more)

    def obey(self, arguments: Arguments) -> Answer:
        """Give an order, if this router loads.

        Raises:
            ArgumentsError: It cannot be obeyed.
        """
        if not self._orders.obeys:
            return Answer(at=self._wall())
        action, name = arguments.text("action"), arguments.text("name")
        if action not in ACTIONS:
            raise ArgumentsError(f"action={action!r:.80}: must be one of {', '.join(ACTIONS)}")
        copies = arguments.whole("copies", 1, MAX_COPIES)
        try:
            if action == "sync":
                message = self._orders.sync()
            elif name is None:
                raise ArgumentsError("name: the name of an adapter is missing")
            elif action == "load":
                source, base_model = arguments.text("source"), arguments.text("base_model")
                message = self._orders.load(name, source, base_model, copies)
            else:
                message = self._orders.unload(name)
        except OrderError as error:
            raise ArgumentsError(str(error)) from None
        return Answer(at=self._wall(), parts=[encode([Obeyed(message=message)])])


def _row(rows: dict[str, AdapterPart], name: str, limit: int) -> AdapterPart | None:
    if name not in rows and len(rows) < limit:
        rows[name] = AdapterPart(name=name)
    return rows.get(name)


def _complete(row: AdapterPart, status: AdapterStatus) -> None:
    adapter = status.adapter
    row.base_model = row.base_model or adapter.base_model
    row.declared_by, row.state, row.source = adapter.origin, status.state, adapter.source
    row.unplaced_because = status.unplaced_because
    row.wanted = status.wanted_count
    row.loading = list(status.loading[:MAX_LOADING])
    row.failing = [
        FailingLoad(
            pod=each.pod,
            action=each.action,
            reason=each.reason,
            failures=each.failures,
            next_try_seconds=round(each.next_try_in, 1),
        )
        for each in status.failing[:MAX_FAILING]
    ]
