"""``toppings``: the rank-aware scheduling of Toppings, formerly CaraServe."""

import random

from lora_router.fleet.adapter_beliefs import AWAY, IN_SLOT
from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.policies.prompt_tokens import tokens_of

_ANSWER_TOKENS = 200.0
"""Usual length of an answer, over which the cost of the prompt is spread."""
_TPOT_LIMIT_SECONDS = 0.05
"""The objective for the time between two tokens."""
_PENALTY_SECONDS = 1.0
"""Added for each request that would miss the objective: more than any step takes."""


class Toppings:
    """Picks the server on which a request adds the least latency to all requests there.

    Source: Li et al., "Toppings: CPU-Assisted, Rank-Aware Adapter Serving for LLM Inference",
    USENIX ATC 2025, and its preprint "CaraServe", arXiv 2401.11240v1 (2024-01-20), section on
    rank-aware scheduling.

    1. Candidates are the servers that can load the adapter and have room for it on the GPU. Here:
       pods where it is in flight or a slot is free, and all pods if there are none.
    2. The cost of a server is, for a request that is added to it, what the prompt takes more
       (divided by the usual length of an answer) plus what a step takes more, times the number of
       requests there, the new one included. If a step would take longer than the objective, each
       of them costs a penalty.
    3. The server with the least cost is picked, with ties at random.

    The times come from profiles of the servers: here from the scenario's pods. Toppings computes on
    the CPU while an adapter is loaded, and vLLM does not, so the time of the load, from host memory
    or from disk, is a part of what the prompt takes. In its model the ranks of a batch's adapters
    decide what a step takes more. Simulated adapters have the same rank, so it depends on their
    number only.
    """

    name = "toppings"

    def __init__(self, options: AlgorithmOptions, engine: EngineOptions) -> None:
        self._random: random.Random = options.rng
        self._engine = engine

    def pick(self, request: InferenceRequest, candidates: Candidates, _now: float) -> Pick:
        """Return the pod with the least cost."""
        adapter = request.adapter
        pods: Candidates | list[PodView] = candidates
        if adapter is not None:
            pods = [pod for pod in candidates if _has_room(pod, adapter)] or candidates
        tokens = tokens_of(request)
        costs = [self.cost(pod, adapter, tokens) for pod in pods]
        least = min(costs)
        ties = [pod for pod, cost in zip(pods, costs, strict=True) if cost == least]
        return Pick(ties[0] if len(ties) == 1 else self._random.choice(ties), "least-cost")

    def cost(self, pod: PodView, adapter: str | None, tokens: float) -> float:
        """Return what a prompt of some tokens costs on a pod, in seconds for each token."""
        engine = self._engine
        prefill = engine.prefill_seconds_per_token * tokens
        if adapter is not None:
            where = pod.beliefs.where(adapter)
            if where != IN_SLOT:
                prefill += engine.disk_load_seconds if where == AWAY else engine.host_load_seconds
        requests = pod.in_flight + pod.beliefs.foreign_requests + 1
        more = prefill / _ANSWER_TOKENS + engine.step_seconds_per_request
        step = engine.step_seconds + engine.step_seconds_per_request * requests
        if step > _TPOT_LIMIT_SECONDS:
            more += _PENALTY_SECONDS
        return more * requests


def _has_room(pod: PodView, adapter: str) -> bool:
    beliefs = pod.beliefs
    free = beliefs.free_slots
    in_flight = adapter in pod.in_flight_adapters or adapter in beliefs.foreign_adapters
    return in_flight or free is None or free > 0
