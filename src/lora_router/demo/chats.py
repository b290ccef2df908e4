"""Chats of the demo: conversations whose prompts grow with each turn.

Each turn repeats the conversation so far, as clients of a chat API do. A pod that answered the turn
before has the keys and values of that beginning in its prefix cache, and computes only the rest.
Texts are made from a seed, because only their length and their equality matter here.
"""

import random
from dataclasses import dataclass

from lora_router.simulator.requests import CHARACTERS_PER_TOKEN

CHATS_PER_SECOND = 0.7
"""How many conversations begin in a second."""
TURNS = 5
TURN_SECONDS = 2.5
"""From one turn to the next. Turns do not wait for answers, so that all algorithms get the same
requests at the same times."""
FIRST_TOKENS = 1200
"""Length of the first prompt, of which ``SYSTEM_TOKENS`` are equal in all chats."""
SYSTEM_TOKENS = 200
TURN_TOKENS = 600
"""By how much a turn is longer than the one before: the answer, and the next question."""
_ANSWER_TOKENS = 100


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a chat."""

    chat: int
    """Number of the chat."""
    number: int
    """Number of the turn in it, from 0."""

    def messages(self) -> list[dict[str, str]]:
        """Return the conversation up to this turn's question."""
        question = _text(f"chat {self.chat}", FIRST_TOKENS - SYSTEM_TOKENS)
        messages = [
            {"role": "system", "content": _text("system", SYSTEM_TOKENS)},
            {"role": "user", "content": question},
        ]
        for turn in range(self.number):
            seed = f"chat {self.chat}, turn {turn}"
            answer = _text(f"{seed}: answer", _ANSWER_TOKENS)
            question = _text(f"{seed}: question", TURN_TOKENS - _ANSWER_TOKENS)
            messages.append({"role": "assistant", "content": answer})
            messages.append({"role": "user", "content": question})
        return messages


def _text(seed: str, tokens: int) -> str:
    """Return a text of a length that is different for each seed."""
    return random.Random(seed).randbytes(tokens * CHARACTERS_PER_TOKEN // 2).hex()
