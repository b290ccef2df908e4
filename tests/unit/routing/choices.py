"""What an algorithm picks in a fleet that a test describes, one line for each pod."""

import random
from collections import Counter

from lora_router.fleet.fleet import Fleet
from lora_router.routing.algorithm import Algorithm, AlgorithmOptions, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from tests.fleet import make_fleet, make_metrics, state_of

SQL = InferenceRequest(model="sql-lora", adapter="sql-lora")
BASE = InferenceRequest(model="base")
NOW = 1000.0


def options(**changes: object) -> AlgorithmOptions:
    return AlgorithmOptions(rng=random.Random(1), **changes)  # type: ignore[arg-type]


def picks(
    algorithm: Algorithm, fleet: Fleet, request: InferenceRequest = SQL, times: int = 200
) -> dict[str, int]:
    """Return how often each pod is picked, while no pick is counted as in flight."""
    pods = Candidates.of(fleet.serving(request.model).pods)
    counts: Counter[str] = Counter()
    for _ in range(times):
        pick = algorithm.pick(request, pods, NOW)
        assert isinstance(pick, Pick)
        counts[pick.pod.pod.name] += 1
    return dict(counts)


def reason(algorithm: Algorithm, fleet: Fleet, request: InferenceRequest = SQL) -> str:
    pick = algorithm.pick(request, Candidates.of(fleet.serving(request.model).pods), NOW)
    assert isinstance(pick, Pick)
    return pick.reason


def scraped(fleet: Fleet, number: int, *running: str, **changes: object) -> None:
    """Give a pod a snapshot that is one second old."""
    values: dict[str, object] = {"scraped_at": NOW - 1.0} | changes
    fleet.put_metrics(state_of(fleet, number), make_metrics(running, **values))  # type: ignore[arg-type]


def in_flight(fleet: Fleet, number: int, adapter: str | None, times: int = 1) -> None:
    for _ in range(times):
        fleet.ledger.reserve(state_of(fleet, number), adapter)


def in_flight_at_a_peer(fleet: Fleet, *requests: tuple[int, str | None]) -> None:
    """Have a peer report requests, each a pod's number and an adapter."""
    there = make_fleet(len(fleet))
    for number, adapter in requests:
        in_flight(there, number, adapter)
    fleet.put_peer(there.report_to_peers("there", 0.1, {}, NOW), NOW)
