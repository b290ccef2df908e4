"""Fleets on which a policy picks, one line for each pod."""

import random
from collections.abc import Sequence

from lora_router.fleet.fleet import Fleet
from lora_router.fleet.lora_spec import LoraSpec
from lora_router.routing.algorithm import (
    Algorithm,
    AlgorithmOptions,
    Hold,
    InferenceRequest,
    Pick,
)
from lora_router.routing.candidates import Candidates
from lora_router.simulator.algorithms import make_algorithm
from lora_router.simulator.engine_options import EngineOptions
from tests.fleet import make_fleet, make_metrics, state_of

ADAPTERS = ("sql-lora", "law-lora", "med-lora", "fin-lora", "art-lora", "tax-lora")
ENGINE = EngineOptions()


def fleet_of(pods: int, slots: int = 4, adapters: Sequence[str] = ADAPTERS) -> Fleet:
    """Return idle pods with room for all adapters in host memory, and with some slots."""
    fleet = make_fleet(pods, adapters=adapters)
    for state in fleet:
        state.beliefs.told(LoraSpec(host_memory=64), None)
        fleet.put_metrics(state, make_metrics(max_lora=slots))
    return fleet


def policy(name: str, engine: EngineOptions = ENGINE) -> Algorithm:
    return make_algorithm(name, AlgorithmOptions(rng=random.Random(1)), engine)


def candidates(fleet: Fleet, model: str = "sql-lora") -> Candidates:
    return Candidates.of(fleet.serving(model).pods, prefixes=fleet.prefixes)


def ask(
    algorithm: Algorithm, fleet: Fleet, request: InferenceRequest, now: float = 0.0
) -> str | None:
    """Return the name of the pod that is picked; ``None``: the request is held."""
    answer = algorithm.pick(request, candidates(fleet, request.model), now)
    if isinstance(answer, Hold):
        return None
    assert isinstance(answer, Pick)
    assert answer.pod in candidates(fleet, request.model).members
    return answer.pod.pod.name


def send(
    algorithm: Algorithm, fleet: Fleet, request: InferenceRequest, now: float = 0.0
) -> str | None:
    """Ask, and count the request on the pod, as the director does."""
    name = ask(algorithm, fleet, request, now)
    if name is not None:
        state = state_of(fleet, int(name.removeprefix("pod-")))
        fleet.ledger.reserve(state, request.adapter)
        if request.prompt is not None:
            fleet.prefixes.sent(state, request.model, request.prompt)
    return name
