"""The questions of people that the parent hands on to a worker, which asks all others."""

import asyncio

from lora_router.workers import messages
from lora_router.workers.member import Member

ANSWER_SECONDS = 5.0
"""Longer than a worker waits for the others."""
_MAX_QUESTIONS = 8


class Questions:
    """The questions that wait for answers."""

    def __init__(self) -> None:
        self._number = 0
        self._waiting: dict[int, asyncio.Future[messages.Answers]] = {}

    async def ask(self, member: Member, question: bytes) -> messages.Answers:
        """Return a worker's answers, its own and those of all others that it asked.

        They are empty if the worker does not answer in time, or if too many questions wait.
        """
        if len(self._waiting) >= _MAX_QUESTIONS:
            return ()
        self._number += 1
        number = self._number
        answers: asyncio.Future[messages.Answers] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answers
        member.process.send(messages.encode(messages.Ask(number, question)))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await answers
        except TimeoutError:
            return ()
        finally:
            del self._waiting[number]

    def answered(self, number: int, answers: messages.Answers) -> None:
        """Take in a worker's answers."""
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answers)
