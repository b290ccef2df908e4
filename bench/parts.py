"""What the parts of the request path cost: ``python bench/parts.py [--json]``.

CPU time of this process divided by the number of calls, the best of five rounds, so that a busy
machine disturbs it little.
"""

import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lora_router.cache.metrics import LoraActivity, PodMetrics
from lora_router.cache.pod import Pod
from lora_router.cache.pods import PodCache, ServedModel
from lora_router.extproc.body import InferencePaths, read_body
from lora_router.extproc.messages import HeaderNames
from lora_router.extproc.pb.core_pb2 import HeaderMap, HeaderValue
from lora_router.extproc.pb.ext_proc_pb2 import HttpBody, HttpHeaders, ProcessingRequest
from lora_router.extproc.session import Output, Session, SessionContext
from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest
from lora_router.routing.director import Director, Timer
from lora_router.routing.registry import load_algorithms
from lora_router.scrape.exposition import read_page
from lora_router.telemetry.metrics import Telemetry

ROUNDS = 5
PAGE = Path(__file__).parents[1] / "tests/data/vllm-0.32.0/12_after_unload_a5.prom"


def microseconds(call: Callable[[], object], calls: int) -> float:
    """Return CPU µs for each call."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(calls):
            call()
        best = min(best, (time.process_time() - started) / calls)
    return best * 1e6


def body(size: int) -> bytes:
    """Make a chat request of about ``size`` bytes for a model that stands last."""
    content = "x" * max(1, size - 90)
    message = {"role": "user", "content": content}
    return json.dumps({"messages": [message], "stream": True, "model": "adapter-0"}).encode()


def reading(data: bytes) -> Callable[[], object]:
    """Return a call that reads a body."""
    return lambda: read_body(data, "application/json")


def fleet(pods: int, adapters: int) -> PodCache:
    """Make a cache of pods that serve all adapters and run four of them each."""
    rng = random.Random(1)
    cache = PodCache()
    names = [f"adapter-{number}" for number in range(adapters)]
    models = [ServedModel("base"), *(ServedModel(name, "base") for name in names)]
    cache.replace(
        Pod(f"pod-{n}", f"10.{n // 65536}.{n // 256 % 256}.{n % 256}:8000", "", "")
        for n in range(pods)
    )
    for state in cache:
        cache.put_models(state, models)
        running = frozenset(rng.sample(names, 4))
        lora = LoraActivity(8, running, running, 0.0)
        cache.put_metrics(state, PodMetrics(scraped_at=0.0, running=4.0, lora=lora))
    return cache


class NoTimers:
    """A clock for requests that nobody holds."""

    def now(self) -> float:
        """Return seconds."""
        return 1.0

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Never called."""
        raise NotImplementedError


def conversation(cache: PodCache, size: int) -> Callable[[], object]:
    """Return a call that has one whole ext_proc conversation, parsing and writing included."""
    telemetry = Telemetry(cache)
    algorithms = load_algorithms(AlgorithmOptions())
    director = Director(cache, algorithms, "lora-affinity", NoTimers(), telemetry)
    context = SessionContext(director, telemetry, InferencePaths(), HeaderNames(), 1 << 25)
    listed = {
        ":method": "POST",
        ":path": "/v1/chat/completions",
        ":authority": "gateway",
        ":scheme": "http",
        "content-type": "application/json",
        "content-length": str(size),
        "user-agent": "bench",
        "x-forwarded-for": "10.0.0.1",
        "x-request-id": "2f1c7c52-7d0c-4d1b-9c0f-5f0e3f1c9a11",
    }
    headers = HeaderMap(
        headers=[HeaderValue(key=key, raw_value=text.encode()) for key, text in listed.items()]
    )
    first = ProcessingRequest(request_headers=HttpHeaders(headers=headers)).SerializeToString()
    second = ProcessingRequest(
        request_body=HttpBody(body=body(size), end_of_stream=True)
    ).SerializeToString()

    def nothing(_outputs: Sequence[Output]) -> None:
        return

    def whole() -> None:
        session = Session(context, nothing)
        for data in (first, second):
            for output in session.receive(ProcessingRequest.FromString(data)):
                output.SerializeToString()  # type: ignore[union-attr]
        session.end()

    return whole


def decisions(pods: int, adapters: int) -> dict[str, float]:
    """Measure each algorithm's ``pick``."""
    cache = fleet(pods, adapters)
    request = InferenceRequest(model="adapter-0", adapter="adapter-0")
    candidates = cache.serving("adapter-0").pods
    return {
        f"decision, {name}, {pods} pods": microseconds(
            lambda algorithm=algorithm: algorithm.pick(request, candidates, 1.0),  # type: ignore[misc]
            max(100, 20_000 // pods),
        )
        for name, algorithm in load_algorithms(AlgorithmOptions()).items()
    }


def main() -> None:
    """Measure and print."""
    page = PAGE.read_bytes()
    rows = {
        f"body, {size // 1000} KB": microseconds(reading(body(size)), max(50, 5_000_000 // size))
        for size in (1_000, 10_000, 220_000, 2_000_000)
    }
    rows |= {
        f"conversation, {size // 1000} KB body": microseconds(
            conversation(fleet(8, 100), size), max(50, 2_000_000 // size)
        )
        for size in (1_000, 220_000)
    }
    rows |= decisions(8, 100) | decisions(1000, 100)
    rows[f"metrics page of {len(page) // 1000} KB"] = microseconds(
        lambda: read_page(page, engine=None, scraped_at=0.0, wall_now=2e9), 200
    )
    if "--json" in sys.argv[1:]:
        print(json.dumps({name: round(value, 2) for name, value in rows.items()}))
        return
    for name, value in rows.items():
        print(f"{name:40} {value:10.1f} µs")


if __name__ == "__main__":
    main()
