"""Sessions: chats whose prompts grow, because each one repeats all that was said before.

The prompt of a request is the prompt of the previous request of its session, the answer to it, and
a new message. A server that keeps the blocks of prompts and answers (vLLM: *automatic prefix
caching*) computes only the message. The blocks have names, so that the simulated pods and routers
see the same: two prompts begin with the same blocks as far as the names of their blocks are equal.

A trace does not depend on the fleet that it is played on: a session goes on at the times that are
drawn for it, whether or not its previous answer has ended.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lora_router.simulator.lengths import Even, Lengths

LONGEST_PROMPT = 1_000_000
"""Tokens. A session ends before a prompt is longer."""
BLOCK_TOKENS = 64
"""Tokens of a block that has a name, unless the scenario says otherwise."""
_NAMES = 2
"""Names that a session reserves, as a multiple of the blocks of the longest prompt: an answer may
be as long."""


@dataclass(frozen=True, slots=True)
class Sessions:
    """What sessions are like."""

    turns: Even
    """Requests of a session."""
    first_prompt: Lengths
    """Tokens of the first message. The system prompt comes before it."""
    growth: Lengths
    """Tokens by which the prompt grows from one request to the next: an answer and a message. At
    least the answer and one token."""
    think_seconds: float
    """From the end of an answer to the next request, on average. Exponentially distributed."""
    share: float = 1.0
    """Share of all requests that belong to sessions."""
    answer_tokens_per_second: float = 30.0
    """How fast an answer is taken to come: a session goes on after it and the time to think."""
    system_tokens: int = 0
    """Tokens with which all sessions of one adapter, or of the base model, begin."""
    block_tokens: int = BLOCK_TOKENS

    @property
    def mean_turns(self) -> float:
        """Requests of a session on average."""
        return (self.turns.least + self.turns.most) / 2

    @property
    def share_of_starts(self) -> float:
        """Sessions among all that begins: sessions and single requests."""
        return self.share / (self.share + (1.0 - self.share) * self.mean_turns)

    @property
    def requests_per_start(self) -> float:
        """Requests of what begins, on average."""
        return 1.0 + self.share_of_starts * (self.mean_turns - 1.0)


class Turn(NamedTuple):
    """One request of a session."""

    after: float
    """Seconds since the previous request of the session. 0 for its first one."""
    prompt_tokens: int
    output_tokens: int
    blocks: Sequence[int]
    """Names of the whole blocks of the prompt and of the answer."""


@dataclass(slots=True)
class SessionMaker:
    """Makes the requests of sessions, and names their blocks."""

    sessions: Sessions
    output: Lengths
    """Tokens of an answer."""
    _system: dict[str, range] = field(default_factory=dict)
    """Blocks of the system prompt of each model."""
    _next_name: int = 0

    @property
    def lead_seconds(self) -> float:
        """How long before a trace the first of its sessions begins.

        Sessions that began earlier have ended with near certainty, so that the trace has its rate
        and its mix of young and old sessions from its first second.
        """
        sessions = self.sessions
        answer = self.output.mean / sessions.answer_tokens_per_second
        return 2.0 * sessions.turns.most * (sessions.think_seconds + answer)

    def turns(self, rng: random.Random, model: str) -> Iterator[Turn]:
        """Yield the requests of a new session."""
        sessions = self.sessions
        size = sessions.block_tokens
        shared = sessions.system_tokens // size
        system = self._system.get(model)
        if system is None:
            system = self._system[model] = self._names(shared)
        own = self._names(_NAMES * LONGEST_PROMPT // size)[shared:]
        prompt = sessions.system_tokens + sessions.first_prompt.draw(rng)
        after = 0.0
        for _ in range(sessions.turns.draw(rng)):
            if prompt > LONGEST_PROMPT:
                return
            output = min(self.output.draw(rng), LONGEST_PROMPT)
            blocks = own[: (prompt + output) // size - shared]
            yield Turn(after, prompt, output, (*system, *blocks) if system else blocks)
            prompt += max(sessions.growth.draw(rng), output + 1)
            answer_seconds = output / sessions.answer_tokens_per_second
            after = answer_seconds + _exponential(rng, sessions.think_seconds)

    def _names(self, count: int) -> range:
        """Return names that nothing else has."""
        first = self._next_name
        self._next_name += count
        return range(first, self._next_name)


def _exponential(rng: random.Random, mean: float) -> float:
    return rng.expovariate(1.0 / mean) if mean else 0.0
