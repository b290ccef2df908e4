"""``cost`` and ``hold``: the least expected wait, on pods alone or in the router as well.

These are the two policies of the first simulation of this project, before ``lora-placement``.
"""

import random

from lora_router.fleet.adapter_beliefs import AWAY, IN_SLOT
from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import (
    AlgorithmOptions,
    Hold,
    InferenceRequest,
    Pick,
    WakesOn,
)
from lora_router.routing.candidates import Candidates
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.policies.prompt_tokens import tokens_of

_HOLD_SECONDS = 3600.0
"""The router's own limit is shorter."""
_ANSWER_STEPS = 200
"""Steps of a usual answer. A slot is occupied that long."""


class Cost:
    """Picks the pod with the least expected wait until the first token.

    The wait is the sum of

    - the time of a step with the requests that are on the pod,
    - the queue: the prompts that were sent there and are not processed yet (``PodView.work``),
    - the time of loading the adapter, unless it is believed to be in a slot (by LRU, from what was
      sent there),
    - and, where neither the adapter runs nor a slot is free, the time until a slot is free: one
      usual answer for each adapter that waits before it, divided by the number of slots.

    What is in flight is known exactly, by adapter, requests that wait on the pod included.
    """

    name = "cost"
    reads_prompts = True

    def __init__(self, options: AlgorithmOptions, engine: EngineOptions) -> None:
        self._random: random.Random = options.rng
        self._engine = engine

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick | Hold:
        """Return the pod with the least expected wait, with ties at random."""
        pod = self._cheapest(request.adapter, candidates, now)
        return Pick(pod, "least-wait", tokens_of(request))

    def _cheapest(
        self, adapter: str | None, pods: Candidates | list[PodView], now: float
    ) -> PodView:
        waits = [self.expected_wait(pod, adapter, now) for pod in pods]
        least = min(waits)
        ties = [pod for pod, wait in zip(pods, waits, strict=True) if wait == least]
        return ties[0] if len(ties) == 1 else self._random.choice(ties)

    def expected_wait(self, pod: PodView, adapter: str | None, now: float) -> float:
        """Return the expected time until the first token, in seconds."""
        engine = self._engine
        requests = pod.in_flight + pod.beliefs.foreign_requests
        step = engine.step_seconds + engine.step_seconds_per_request * requests
        wait = step + pod.work.pending_seconds(now)
        if adapter is None:
            return wait
        where = pod.beliefs.where(adapter)
        if where != IN_SLOT:
            wait += engine.disk_load_seconds if where == AWAY else engine.host_load_seconds
        ahead = waiting_before(pod, adapter)
        return wait + ahead * _ANSWER_STEPS * step / (pod.beliefs.slots or 1)


class HoldForSlot(Cost):
    """Like ``cost``, but a request for which no pod has a slot waits in the router.

    It is sent when a slot becomes free.
    """

    name = "hold"

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick | Hold:
        """Return the pod with the least expected wait of those with a slot, or hold."""
        adapter = request.adapter
        if adapter is None or not request.may_hold:
            return super().pick(request, candidates, now)
        with_slot = [pod for pod in candidates if not waiting_before(pod, adapter)]
        if not with_slot:
            return Hold("no-slot", _HOLD_SECONDS, wakes_on=WakesOn.FREE_SLOT)
        return Pick(self._cheapest(adapter, with_slot, now), "least-wait", tokens_of(request))


def waiting_before(pod: PodView, adapter: str) -> int:
    """Return how many adapters must leave a slot of the pod before the adapter gets one."""
    beliefs = pod.beliefs
    slots = beliefs.slots
    if slots is None or adapter in beliefs.foreign_adapters:
        return 0
    in_flight = pod.in_flight_adapters
    if adapter in in_flight:
        # They came in this order, so the first ones have the slots.
        return max(0, list(in_flight).index(adapter) - slots + 1)
    return max(0, 1 - (beliefs.free_slots or 0))
