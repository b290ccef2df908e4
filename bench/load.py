"""A load generator: HTTP/1.1 connections that each send a request when the last one is answered.

``python -m bench.load`` runs as a process of its own. It reads a ``Load`` as JSON from standard
input and prints ``Heard`` as JSON. It must not limit the measurement, so it costs only about 10 µs
for each request: requests are prepared in advance, and only status and length of an answer are
read.
"""

import asyncio
import itertools
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import cast

import uvloop

from bench.process_costs import cpu_seconds
from bench.workload import PATH, adapter, body

_MOST_REQUESTS = 1000
_MOST_BYTES = 16 * 1024 * 1024
"""Bytes of the prepared requests, which are sent repeatedly."""
_SECONDS_TO_END = 10.0
_SECONDS_LONGER = 10.0


@dataclass(frozen=True, slots=True)
class Load:
    """What to send, and the processes whose CPU time is measured meanwhile."""

    port: int
    connections: int
    body_bytes: int
    targets: Sequence[str]
    """Addresses of pods. Each request names one in ``target-pod``, for the listeners on which the
    client names the pod. The listener of the router removes the header."""
    adapters: int
    """Number of adapters that are requested."""
    algorithm: str
    seconds: float
    """Length of the measured window. It is extended until there are enough answers."""
    warm_up: float
    """Seconds of load before the window."""
    processes: dict[str, int] = field(default_factory=dict)
    """Process ids by name."""
    rate: float = 0.0
    """Requests per second of all connections together, at random moments (Poisson). 0: each
    connection sends its next request as soon as the last one is answered."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The result, within the window only."""

    requests: int
    seconds: float
    p50_us: float
    p99_us: float
    cpu_us: dict[str, float]
    """CPU time per request, by process."""
    own_cpu_us: float


class LoadError(RuntimeError):
    """The server did not behave as expected. The message says what it sent."""


class _Connection(asyncio.Protocol):
    """One client, which waits for each answer."""

    __slots__ = ("_due", "_kept", "_run", "_sent", "_timer", "_transport")

    def __init__(self, run: "_Run") -> None:
        self._run = run
        self._kept = b""
        self._sent = 0.0
        self._due = 0.0
        """When the last request was to be sent, at a fixed rate."""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports are not subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def begin(self) -> None:
        """Send the first request."""
        self._due = asyncio.get_running_loop().time()
        self._next()

    def stop(self) -> None:
        """Send nothing more, if it waits for the time to send."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._run.idle()

    def _next(self) -> None:
        """Send the next request now, or when it is due."""
        if not self._run.rate:
            self._send()
            return
        self._due += self._run.pause()
        self._timer = asyncio.get_running_loop().call_at(self._due, self._send)

    def _send(self) -> None:
        self._timer = None
        self._sent = time.perf_counter()
        self._transport.write(next(self._run.requests))

    def data_received(self, data: bytes) -> None:
        if self._kept:
            data = self._kept + data
            self._kept = b""
        end = data.find(b"\r\n\r\n")
        if end < 0 or len(data) < end + 4 + _content_length(data, end):
            self._kept = data
            return
        run = self._run
        run.times.append(time.perf_counter() - self._sent)
        if not data.startswith(b"HTTP/1.1 200"):
            run.fail(f"an answer was not 200:\n{data[:2000].decode(errors='replace')}")
        elif run.stopping:
            run.idle()
        else:
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.fail(f"a connection was closed: {exc or 'by the other side'}")

    def close(self) -> None:
        self._transport.abort()


def _content_length(data: bytes, end: int) -> int:
    at = data.find(b"content-length: ", 0, end)
    if at < 0:
        raise LoadError(f"an answer has no content-length: {data[:end]!r}")
    return int(data[at + 16 : data.find(b"\r", at)])


class _Run:
    """One load, from the first connection to the last answer."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.requests: Iterator[bytes] = itertools.cycle(_requests(load))
        self.rate = load.rate
        self._rng = random.Random(2)
        self.times: list[float] = []
        self.stopping = False
        self._busy = 0
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def pause(self) -> float:
        """Return the seconds between two requests of a connection, at a fixed rate."""
        return self._rng.expovariate(self.rate / self._load.connections)

    def fail(self, why: str) -> None:
        if not self._ended.done():
            self._ended.set_exception(LoadError(why))

    def idle(self) -> None:
        self._busy -= 1
        if self._busy == 0 and not self._ended.done():
            self._ended.set_result(None)

    async def measure(self) -> Heard:
        load = self._load
        loop = asyncio.get_running_loop()
        connections = [
            (await loop.create_connection(lambda: _Connection(self), "127.0.0.1", load.port))[1]
            for _ in range(load.connections)
        ]
        self._busy = len(connections)
        for connection in connections:
            connection.begin()
        await self._wait(load.warm_up)
        began, first, clocks = time.perf_counter(), len(self.times), self._clocks()
        own = time.process_time()
        await self._wait(load.seconds)
        seconds, last, after = time.perf_counter() - began, len(self.times), self._clocks()
        own = time.process_time() - own
        self.stopping = True
        for connection in connections:
            connection.stop()
        async with asyncio.timeout(_SECONDS_TO_END):
            await self._ended
        for connection in connections:
            connection.close()
        times = sorted(self.times[first:last])
        if not times:
            raise LoadError(f"no request was answered within {seconds:.1f} s")
        count = len(times)
        return Heard(
            requests=count,
            seconds=seconds,
            p50_us=times[count // 2] * 1e6,
            p99_us=times[count * 99 // 100] * 1e6,
            cpu_us={name: (after[name] - clocks[name]) / count * 1e6 for name in clocks},
            own_cpu_us=own / count * 1e6,
        )

    async def _wait(self, seconds: float) -> None:
        """Wait for some time, and then until there is an answer for each connection."""
        enough = len(self.times) + self._load.connections
        latest = time.monotonic() + seconds + _SECONDS_LONGER
        await asyncio.wait((self._ended,), timeout=seconds)
        while not self._ended.done() and len(self.times) < enough and time.monotonic() < latest:
            await asyncio.wait((self._ended,), timeout=0.05)
        if self._ended.done():
            self._ended.result()

    def _clocks(self) -> dict[str, float]:
        return {name: cpu_seconds(pid) for name, pid in self._load.processes.items()}


def _requests(load: Load) -> list[bytes]:
    count = max(1, min(_MOST_REQUESTS, _MOST_BYTES // load.body_bytes))
    rng = random.Random(1)
    made = []
    for number in range(count):
        data = body(load.body_bytes, adapter(rng.randrange(load.adapters)))
        target = load.targets[number % len(load.targets)]
        head = (
            f"POST {PATH} HTTP/1.1\r\n"
            "host: gateway\r\n"
            "user-agent: bench\r\n"
            "content-type: application/json\r\n"
            f"target-pod: {target}\r\n"
            f"routing-strategy: {load.algorithm}\r\n"
            f"content-length: {len(data)}\r\n\r\n"
        )
        made.append(head.encode() + data)
    return made


async def main() -> None:
    """Run the load that standard input describes."""
    load = Load(**json.load(sys.stdin))
    print(json.dumps(asdict(await _Run(load).measure())))


if __name__ == "__main__":
    try:
        uvloop.run(main())
    except LoadError as error:
        sys.exit(f"load: {error}")
