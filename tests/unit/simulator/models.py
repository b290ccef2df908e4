"""The two models of a vLLM pod, each as a function from requests to the times of their tokens."""

from collections.abc import Callable, Sequence

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


def by_steps(options: EngineOptions, asks: Sequence[Ask]) -> list[Tokens]:
    """Run the step-by-step engine, as the simulated pods of the demo do."""
    engine = Engine(options)
    requests = [EngineRequest(adapter, prompt, output, at) for at, adapter, prompt, output in asks]
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
    return [(first[request], last[request]) for request in requests]


def by_events(options: EngineOptions, asks: Sequence[Ask]) -> list[Tokens]:
    """Run the pod of long simulations, which needs a few events per request."""
    events = EventQueue()
    pod = PodModel("pod-0", options, events, lambda _request: None)
    requests = []
    for at, adapter, prompt, output in asks:
        request = SimulatedRequest(adapter or "base", adapter, prompt, output, at)
        requests.append(request)
        events.call_at(at, lambda request=request: pod.submit(request))  # type: ignore[misc]
    events.run(lambda: False)
    assert pod.load == 0
    assert pod.free_slots == options.max_loras
    return [(request.first_token, request.ended) for request in requests]
