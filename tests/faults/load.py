"""A load that is sent at a fixed rate, whatever becomes of it, and remembers every request."""

import asyncio
import itertools
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp

from tests.faults.pods import MODELS

GAVE_UP = "the client gave up"
PATIENCE_SECONDS = 300.0
"""Nobody loses patience where other processes have taken the machine: how long answers take depends
on them."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client saw of one request."""

    at: float
    """When it was sent, on the clock of ``time.monotonic``."""
    model: str
    algorithm: str
    status: int = 0
    """0: there was no answer."""
    first_byte_seconds: float = 0.0
    """Time until the headers of the answer, or until it failed."""
    taken_seconds: float = 0.0
    """Of those, how long the processes that take part waited for a core, at most."""
    seconds: float = 0.0
    complete: bool = False
    """Whether the answer came to its end."""
    pod: str = ""
    retry_after: str = ""
    """The header, where there was one."""
    error: str = ""
    """The code in the body of an error, or why there was no answer."""

    @property
    def served(self) -> bool:
        """Whether the client got what it asked for."""
        return self.status == 200 and self.complete


class Client:
    """Sends requests to one gateway."""

    def __init__(
        self,
        url: str,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        taken: Callable[[], float] = float,
    ) -> None:
        """Create a client.

        Args:
            url: The address of the gateway.
            patience_seconds: Time after which it gives up.
            taken: Returns how long the processes that take part have waited for a core.
        """
        self._url = url
        self._taken = taken
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=patience_seconds),
        )

    async def complete(
        self, model: str, algorithm: str = "", *, stream: bool = True, **body: object
    ) -> Seen:
        """Send one completion and read its answer."""
        document = {"model": model, "prompt": "Say it.", "stream": stream, **body}
        return await self.send(json.dumps(document).encode(), model, algorithm, stream=stream)

    async def send(
        self, data: bytes, model: str, algorithm: str = "", *, stream: bool = True
    ) -> Seen:
        """Send a body that is written already."""
        headers = {"content-type": "application/json"}
        if algorithm:
            headers["routing-strategy"] = algorithm
        at, first, status = time.monotonic(), 0.0, 0
        taken_before = taken = self._taken()
        pod = retry_after = answer = error = ""
        complete = False
        try:
            async with self._session.post(
                f"{self._url}/v1/completions", data=data, headers=headers
            ) as response:
                first, status = time.monotonic(), response.status
                taken = self._taken()
                pod = response.headers.get("x-pod", "")
                retry_after = response.headers.get("retry-after", "")
                answer = await response.text()
                complete = not stream or status != 200 or answer.endswith("[DONE]\n\n")
        except TimeoutError:
            error = GAVE_UP
        except (aiohttp.ClientError, UnicodeError) as raised:
            error = type(raised).__name__
        now = time.monotonic()
        return Seen(
            at=at,
            model=model,
            algorithm=algorithm,
            status=status,
            first_byte_seconds=(first or now) - at,
            taken_seconds=(taken if first else self._taken()) - taken_before,
            seconds=now - at,
            complete=complete,
            pod=pod,
            retry_after=retry_after,
            error=error or (_code(answer) if status != 200 else ""),
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._session.close()


class Load:
    """Requests for all models and with all given algorithms in turn, from entry to exit."""

    def __init__(
        self,
        url: str,
        *,
        rate: float,
        algorithms: Sequence[str] = ("",),
        models: Sequence[str] = MODELS,
        patience_seconds: float = PATIENCE_SECONDS,
        taken: Callable[[], float] = float,
    ) -> None:
        self.seen: list[Seen] = []
        """The requests that have ended."""
        self._client = Client(url, patience_seconds=patience_seconds, taken=taken)
        self._interval = 1 / rate
        self._algorithms = algorithms
        self._models = models
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._sender = asyncio.create_task(self._send())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Send no more, and wait for all answers."""
        self._sender.cancel()
        await asyncio.gather(self._sender, *self._open, return_exceptions=True)
        await self._client.close()

    async def for_(self, seconds: float) -> None:
        """Let it run for a time."""
        await asyncio.sleep(seconds)
        assert not self._sender.done(), self._sender.exception()

    async def _send(self) -> None:
        due = time.monotonic()
        chance = random.Random(1)
        for number in itertools.count():
            due += self._interval
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            model, algorithm = chance.choice(self._models), chance.choice(self._algorithms)
            task = asyncio.create_task(
                self._one(model, algorithm, stream=chance.random() < 0.5, user=str(number))
            )
            self._open.add(task)
            task.add_done_callback(self._open.discard)

    async def _one(self, model: str, algorithm: str, *, stream: bool, user: str) -> None:
        answer = await self._client.complete(model, algorithm, stream=stream, user=user)
        self.seen.append(answer)


def _code(answer: str) -> str:
    try:
        return str(json.loads(answer)["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return answer[:60]
