"""The memory of remembered decisions is bounded, whatever clients ask for."""

import tracemalloc

from lora_router.extproc.decision_metadata import encode_metadata
from lora_router.routing.candidates import Candidates
from lora_router.routing.looks import MAX_LOOKS, looks_at
from lora_router.telemetry.decisions import DecisionLog
from tests.fleet import make_fleet

CAPACITY, NAMES = 1_000, 10_000
ORDINARY_BYTES, ABNORMAL_BYTES = 1_000, 3_000
"""The most that docs/decisions.md promises for a record: an ordinary one, and one that is kept
with its candidates."""


def fill(*, held: bool) -> int:
    """Return the bytes of a full ring after requests for many adapters."""
    candidates = Candidates.of(make_fleet(2 * MAX_LOOKS))
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    log = DecisionLog(CAPACITY, candidates_share=0.0)
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
        decision.looks = looks_at(candidates, adapter)
        if held:
            decision.held_looks = looks_at(candidates, adapter)
            decision.held_for, decision.held_seconds = "no-slot", 1.5
        log.decided(decision)
        decision.answered_at, decision.status = log.now(), 200
        log.ended(decision)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(log) == CAPACITY
    return after - before


def test_an_ordinary_record() -> None:
    taken = fill(held=False)

    print(f"{taken / CAPACITY:.0f} bytes for each ordinary record")
    assert taken / CAPACITY < ORDINARY_BYTES


def test_a_record_with_its_candidates() -> None:
    taken = fill(held=True)

    print(f"{taken / CAPACITY:.0f} bytes for each record with candidates")
    assert taken / CAPACITY < ABNORMAL_BYTES


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
