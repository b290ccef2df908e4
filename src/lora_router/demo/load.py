"""The demo's load: a trace made from a seed, and a client that replays it.

Twelve adapters share four pods of four slots. That is enough for all of them, with little to spare.
Each adapter has three to five requests in progress at any time. An adapter that is active on a pod
therefore stays active, and a router that sends its requests elsewhere takes a slot from another
adapter. One request in seven is for the base model, which needs no slot.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import aiohttp

BASE = "base"
ADAPTERS = tuple(f"lora-{number:02d}" for number in range(1, 13))
REQUESTS_PER_SECOND = 36.0
BASE_SHARE = 1 / 7
OUTPUT_TOKENS = (30, 60)
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


def make_trace(seed: int, seconds: float) -> tuple[Arrival, ...]:
    """Return Poisson arrivals; the last adapter is a third less popular than the first."""
    rng = random.Random(seed)
    weights = [1.0 - number / (3 * len(ADAPTERS)) for number in range(len(ADAPTERS))]
    trace = []
    at = rng.expovariate(REQUESTS_PER_SECOND)
    while at < seconds:
        model = BASE if rng.random() < BASE_SHARE else rng.choices(ADAPTERS, weights)[0]
        trace.append(Arrival(at, model, rng.randint(*OUTPUT_TOKENS)))
        at += rng.expovariate(REQUESTS_PER_SECOND)
    return tuple(trace)


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
        document = {
            "model": arrival.model,
            "messages": [{"role": "user", "content": "Tell me about slots."}],
            "max_tokens": arrival.output_tokens,
            "stream": True,
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
                end = (end + chunk)[-16:]
            return Outcome(
                model=arrival.model,
                error=None if end.endswith(b"data: [DONE]\n\n") else "the answer was cut off",
                first_token_seconds=first,
                pod=response.headers.get("x-pod", ""),
                adapter_state=response.headers.get("x-adapter-state", ""),
            )
