"""The memory of remembered decisions is bounded, whatever clients ask for."""

import tracemalloc

import pytest

from lora_router.extproc.decision_metadata import encode_metadata
from lora_router.fleet.adapters_in_flight import AdaptersInFlight
from lora_router.routing.algorithm import AlgorithmOptions, InferenceRequest
from lora_router.routing.candidates import Candidates
from lora_router.routing.least_request import LeastRequest
from lora_router.routing.looks import MAX_SEEN, Onlooker
from lora_router.routing.recollection import Recollection
from lora_router.telemetry.decisions import DecisionLog
from tests.fleet import make_fleet

CAPACITY, NAMES = 1_000, 10_000
ORDINARY_BYTES, ABNORMAL_BYTES = 1_000, 3_500
"""The most that docs/decisions.md promises for a record: an ordinary one, and one that is kept
with its candidates."""


def fill(*, held: bool) -> int:
    """Return the bytes of a full ring after requests for many adapters."""
    fleet = make_fleet(2 * MAX_SEEN)
    candidates = Candidates.of(fleet)
    least = LeastRequest(AlgorithmOptions())
    recollection = Recollection({least.name: least})
    onlooker = Onlooker(AdaptersInFlight(fleet))
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    log = DecisionLog(CAPACITY, candidates_share=0.0)
    log.recall = recollection.recall
    for number in range(NAMES):
        adapter = f"team-{number % 1000}/adapter-{number:08}"
        decision = log.begin(f"4d5a7c1e-0000-4000-8000-{number:012}", "/v1/chat/completions")
        decision.adapter = adapter
        # Each text is an object of its own, as if it came from the network.
        decision.model = f"team-{number % 1000}/adapter-{number:08}"
        decision.base_model = "meta-llama/Llama-3.1-8B-Instruct"
        decision.outcome = "routed"
        decision.size = 1000 + number
        decision.asked_at = decision.decided_at = log.now()
        pick = least.pick(InferenceRequest(adapter), candidates, 0.0)
        decision.algorithm, decision.pod = least.name, pick.pod.pod.name
        decision.notes = pick.notes
        if held:
            decision.held_looks = onlooker.at(candidates, adapter)
            decision.held_for, decision.held_seconds = "no-slot", 1.5
        log.decided(decision)
        decision.answered_at, decision.status = log.now(), 200
        log.ended(decision)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(log) == CAPACITY
    return after - before


@pytest.mark.slow
def test_an_ordinary_record() -> None:
    taken = fill(held=False)

    print(f"{taken / CAPACITY:.0f} bytes for each ordinary record")
    assert taken / CAPACITY < ORDINARY_BYTES


@pytest.mark.slow
def test_a_record_with_its_candidates() -> None:
    taken = fill(held=True)

    print(f"{taken / CAPACITY:.0f} bytes for each record with candidates")
    assert taken / CAPACITY < ABNORMAL_BYTES


@pytest.mark.slow
def test_encoded_metadata_are_forgotten() -> None:
    log = DecisionLog(1)
    tracemalloc.start()
    for number in range(12_000):
        decision = log.begin("", "")
        decision.pod, decision.adapter = "pod-1", f"adapter-{number}"
        encode_metadata(decision)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert taken < 8_000_000
