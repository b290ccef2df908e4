"""Answers that are being generated while something fails."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.faults.field import Field
from tests.faults.load import Client, Seen
from tests.faults.pods import MODELS

_PAUSE_SECONDS = 0.05


class Answers:
    """What became of them, once the block has ended."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []


@asynccontextmanager
async def running_answers(
    gateway: Field, count: int, *, seconds: float = 5.0
) -> AsyncIterator[Answers]:
    """Have this many answers sent, token by token, for a time; wait for their end at the end."""
    client = Client(gateway.url, patience_seconds=120)
    chance = random.Random(2)
    tokens = int(seconds / _PAUSE_SECONDS)
    answers = Answers()
    tasks = [
        asyncio.create_task(
            client.complete(chance.choice(MODELS), max_tokens=tokens, pause=_PAUSE_SECONDS)
        )
        for _ in range(count)
    ]
    try:
        yield answers
        answers.seen = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await client.close()
