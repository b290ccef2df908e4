"""The demo's load: a trace made from a seed, and a client that replays it.

Twelve adapters share four pods of two slots, so not all of them can run at once. Each adapter has
one request in progress on average, and sometimes none: then another adapter can have its slot. A
router that runs an adapter on several pods, or more adapters on a pod than it has slots, lets
requests of the others wait for whole answers. One request in seven is for the base model, which
needs no slot. Between these requests are the turns of chats (``chats``), each chat for one of the
same models.
"""

import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import aiohttp

from lora_router.demo.chats import CHATS_PER_SECOND, TURN_SECONDS, TURNS, Turn

BASE = "base"
ADAPTERS = tuple(f"lora-{number:02d}" for number in range(1, 13))
_POPULARITY = [1.0 - number / (3 * len(ADAPTERS)) for number in range(len(ADAPTERS))]
REQUESTS_PER_SECOND = 8.0
"""Without those of chats."""
BASE_SHARE = 1 / 7
OUTPUT_TOKENS = (30, 60)
_QUESTION = [{"role": "user", "content": "Tell me about slots."}]
_END_BYTES = 1024
"""How much of the end of an answer is kept: its last events."""
LONGEST_WAIT_SECONDS = 90.0
"""Timeout of a request. With ``random``, twelve adapters wait for four slots on each pod, and the
last requests are answered long after they were sent."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of a trace."""

    at: float
    """Seconds from the start."""
    model: str
    output_tokens: int
    turn: Turn | None = None
    """``None``: it is no part of a chat."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one request."""

    model: str
    error: str | None
    """``None`` if the answer was complete."""
    first_token_seconds: float = 0.0
    pod: str = ""
    adapter_state: str = ""
    """State of its adapter on arrival: ``active``, ``resident``, ``cold``; or ``base``."""
    at: float = 0.0
    """When it was due, in seconds from the start of the trace."""
    late_seconds: float = 0.0
    """How much later it was sent. Well below a step, unless the machine is too busy to measure."""
    chat_tokens: int = 0
    """Length of the prompt, if it is a turn of a chat."""
    cached_tokens: int = 0
    """Those of them that the pod found in its prefix cache."""


def make_trace(seed: int, seconds: float, rate: float = REQUESTS_PER_SECOND) -> tuple[Arrival, ...]:
    """Return Poisson arrivals; the last adapter is a third less popular than the first.

    Args:
        seed: Another seed gives other requests.
        seconds: Length.
        rate: Requests per second, without those of chats.
    """
    rng, chats = random.Random(seed), random.Random(f"chats {seed}")
    trace = [Arrival(at, *_model_and_length(rng)) for at in _times(rng, rate, seconds)]
    for chat, start in enumerate(_times(chats, CHATS_PER_SECOND, seconds)):
        model, _ = _model_and_length(chats)
        for turn in range(TURNS):
            at = start + turn * TURN_SECONDS
            length = chats.randint(*OUTPUT_TOKENS)
            if at < seconds:
                trace.append(Arrival(at, model, length, Turn(chat, turn)))
    return tuple(sorted(trace, key=lambda arrival: arrival.at))


def _times(rng: random.Random, rate: float, seconds: float) -> Iterator[float]:
    at = rng.expovariate(rate)
    while at < seconds:
        yield at
        at += rng.expovariate(rate)


def _model_and_length(rng: random.Random) -> tuple[str, int]:
    """Draw the model of a request, and the length of its answer."""
    model = BASE if rng.random() < BASE_SHARE else rng.choices(ADAPTERS, _POPULARITY)[0]
    return model, rng.randint(*OUTPUT_TOKENS)


class Player:
    """Replays a trace against a gateway. ``outcomes`` grows meanwhile."""

    def __init__(self, url: str, trace: Sequence[Arrival]) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._trace = trace
        self.outcomes: list[Outcome] = []

    async def play(self) -> None:
        """Send every request at its time, and wait for all answers."""
        loop = asyncio.get_running_loop()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=timeout
            ) as session,
            asyncio.TaskGroup() as requests,
        ):
            started = loop.time()
            for arrival in self._trace:
                delay = started + arrival.at - loop.time()
                if delay > 0:
                    await asyncio.sleep(delay)
                requests.create_task(
                    self._request(session, arrival, loop.time() - started - arrival.at)
                )

    async def _request(
        self, session: aiohttp.ClientSession, arrival: Arrival, late_seconds: float
    ) -> None:
        try:
            async with asyncio.timeout(LONGEST_WAIT_SECONDS):
                outcome = await self._ask(session, arrival)
        except TimeoutError:
            outcome = Outcome(arrival.model, f"no answer within {LONGEST_WAIT_SECONDS:g} s")
        except aiohttp.ClientError as error:
            outcome = Outcome(arrival.model, f"{type(error).__name__}: {error}")
        self.outcomes.append(replace(outcome, at=arrival.at, late_seconds=late_seconds))

    async def _ask(self, session: aiohttp.ClientSession, arrival: Arrival) -> Outcome:
        loop = asyncio.get_running_loop()
        turn = arrival.turn
        document = {
            "model": arrival.model,
            "messages": _QUESTION if turn is None else turn.messages(),
            "max_tokens": arrival.output_tokens,
            "stream": True,
            "stream_options": {"include_usage": turn is not None},
        }
        sent = loop.time()
        async with session.post(self._url, json=document) as response:
            if response.status != 200:
                text = (await response.text())[:200]
                return Outcome(arrival.model, f"status {response.status}: {text}")
            first = 0.0
            end = b""
            async for chunk in response.content.iter_any():
                first = first or loop.time() - sent
                end = (end + chunk)[-_END_BYTES:]
            prompt, cached = (0, 0) if turn is None else _usage(end)
            return Outcome(
                model=arrival.model,
                error=None if end.endswith(b"data: [DONE]\n\n") else "the answer was cut off",
                first_token_seconds=first,
                pod=response.headers.get("x-pod", ""),
                adapter_state=response.headers.get("x-adapter-state", ""),
                chat_tokens=prompt,
                cached_tokens=cached,
            )


def _usage(end: bytes) -> tuple[int, int]:
    """Return the tokens of a prompt, and how many of them were cached, from the end of a stream.

    The last event before ``[DONE]`` has them, with ``stream_options.include_usage``.
    """
    events = [line[5:] for line in end.split(b"\n") if line.startswith(b"data: {")]
    try:
        usage = json.loads(events[-1])["usage"]
        return usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]
    except (IndexError, KeyError, TypeError, ValueError):
        return 0, 0  # The answer was cut off.
