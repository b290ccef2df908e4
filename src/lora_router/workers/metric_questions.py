"""Asks all workers for their metrics, and waits for the answers, but not for long."""

import asyncio
from collections.abc import Callable, Collection

from lora_router.workers import messages

_ANSWER_SECONDS = 2.0
_MAX_QUESTIONS = 8
"""Requests for ``/metrics`` at the same time for which workers are asked."""


class MetricQuestions:
    """The questions that wait for answers."""

    def __init__(self) -> None:
        self._number = 0
        self._waiting: dict[int, dict[int, asyncio.Future[None]]] = {}
        """By question and worker."""

    async def ask(self, workers: Collection[int], broadcast: Callable[[bytes], None]) -> None:
        """Ask workers, and wait until all have answered or ended, or some time has passed."""
        if not workers or len(self._waiting) >= _MAX_QUESTIONS:
            return
        self._number += 1
        number, loop = self._number, asyncio.get_running_loop()
        waiting = self._waiting[number] = {each: loop.create_future() for each in workers}
        try:
            broadcast(messages.encode(messages.AskMetrics(number)))
            await asyncio.wait(waiting.values(), timeout=_ANSWER_SECONDS)
        finally:
            del self._waiting[number]

    def answered(self, number: int, worker: int) -> None:
        """Note a worker's answer to a question."""
        _end(self._waiting.get(number, {}).get(worker))

    def ended(self, worker: int) -> None:
        """Wait no longer for a worker."""
        for waiting in self._waiting.values():
            _end(waiting.get(worker))


def _end(answer: "asyncio.Future[None] | None") -> None:
    if answer is not None and not answer.done():
        answer.set_result(None)
