"""The two models of a vLLM pod, each as a function from requests to the times of their tokens."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from lora_router.simulator.engine import Engine, EngineRequest
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.events import EventQueue
from lora_router.simulator.pod_model import PodModel
from lora_router.simulator.simulated_request import SimulatedRequest

Ask = tuple[float, str | None, int, int]
"""Arrival, adapter, prompt tokens, output tokens."""

Tokens = tuple[float, float]
"""Times of the first and of the last token of a request."""

Model = Callable[[EngineOptions, Sequence[Ask]], list[Tokens]]


class NamedAsk(NamedTuple):
    """A request whose blocks have names."""

    at: float
    adapter: str | None
    prompt_tokens: int
    output_tokens: int
    blocks: Sequence[int] = ()
    block_tokens: int = 16


class Outcome(NamedTuple):
    """What became of some requests."""

    tokens: list[Tokens]
    cached_tokens: list[int]
    preemptions: int
    loads: int


def run_by_steps(options: EngineOptions, asks: Sequence[NamedAsk]) -> Outcome:
    """Run the step-by-step engine, as the simulated pods of the demo do."""
    engine = Engine(options)
    requests = [
        EngineRequest(
            ask.adapter,
            ask.prompt_tokens,
            ask.output_tokens,
            ask.at,
            blocks=ask.blocks,
            block_tokens=ask.block_tokens,
        )
        for ask in asks
    ]
    first: dict[EngineRequest, float] = {}
    last: dict[EngineRequest, float] = {}
    coming = sorted(requests, key=lambda request: request.arrived)
    now = 0.0
    while coming or engine.waiting or engine.running:
        while coming and coming[0].arrived <= now + 1e-9:
            engine.submit(coming.pop(0))
        step = engine.begin_step(now)
        if step is None:
            now = coming[0].arrived
            continue
        now += step.seconds
        for request in engine.end_step():
            first.setdefault(request, now)
            if request.finished:
                last[request] = now
    return Outcome(
        [(first[request], last[request]) for request in requests],
        [request.cached_tokens for request in requests],
        engine.preemptions,
        engine.loads,
    )


def run_by_events(options: EngineOptions, asks: Sequence[NamedAsk]) -> Outcome:
    """Run the pod of long simulations, which needs a few events per request."""
    events = EventQueue()
    pod = PodModel("pod-0", options, events, lambda _request: None)
    requests = []
    for ask in asks:
        request = SimulatedRequest(
            ask.adapter or "base",
            ask.adapter,
            ask.prompt_tokens,
            ask.output_tokens,
            ask.at,
            ask.blocks,
            ask.block_tokens,
        )
        requests.append(request)
        events.call_at(ask.at, lambda request=request: pod.submit(request))  # type: ignore[misc]
    events.run(lambda: False)
    assert pod.load == 0
    assert pod.free_slots == options.max_loras
    return Outcome(
        [(request.first_token, request.ended) for request in requests],
        [request.cached_tokens for request in requests],
        pod.counts.preemptions,
        pod.counts.loads,
    )


def by_steps(options: EngineOptions, asks: Sequence[Ask]) -> list[Tokens]:
    """Run the step-by-step engine."""
    return run_by_steps(options, [NamedAsk(*ask) for ask in asks]).tokens


def by_events(options: EngineOptions, asks: Sequence[Ask]) -> list[Tokens]:
    """Run the pod of long simulations."""
    return run_by_events(options, [NamedAsk(*ask) for ask in asks]).tokens
