"""Fallbacks: the pods that Envoy may try after the picked one."""

import random

import pytest

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.routing.algorithm import Algorithm, AlgorithmOptions, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.routing.fallback import Fallbacks
from lora_router.routing.least_request import LeastRequest
from lora_router.routing.lora_placement import LoraPlacement
from tests.fleet import make_fleet, make_metrics, state_of

OPTIONS = AlgorithmOptions(rng=random.Random(1))
PLACEMENT = LoraPlacement(OPTIONS)


def full(fleet: Fleet, *numbers: int) -> None:
    """Let other adapters take all slots of pods."""
    for number in numbers:
        state = state_of(fleet, number)
        fleet.put_metrics(state, make_metrics(["other"], max_lora=1))
        fleet.ledger.reserve(state, "other")


def fallbacks(
    fleet: Fleet, adapter: str | None, *, count: int = 1, algorithm: Algorithm = PLACEMENT
) -> set[tuple[str, ...]]:
    """Return the fallbacks of 50 requests that were picked for pod-1."""
    candidates = Candidates.of(fleet.serving(adapter or "base").pods)
    request = InferenceRequest(adapter or "base", adapter)
    finder = Fallbacks(count, lambda: len(fleet.ready()))
    return {finder.of(algorithm, request, state_of(fleet, 1), candidates) for _ in range(50)}


def test_a_request_for_the_base_model_may_go_to_any_other_pod() -> None:
    assert fallbacks(make_fleet(3), None) == {("10.0.0.2:8000",), ("10.0.0.3:8000",)}


def test_as_many_as_wanted() -> None:
    assert fallbacks(make_fleet(3), None, count=0) == {()}
    assert {len(each) for each in fallbacks(make_fleet(3), None, count=3)} == {2}


def test_an_only_pod_has_no_fallback() -> None:
    assert fallbacks(make_fleet(1), None) == {()}


def test_where_other_pods_do_not_serve_the_model_the_picked_pod_is_tried_again() -> None:
    """Otherwise Envoy would choose one of those, whose 404 is final for the client."""
    fleet = make_fleet(2)
    fleet.put_models(state_of(fleet, 2), [ServedModel("base")])

    assert fallbacks(fleet, "sql-lora") == {("10.0.0.1:8000",)}


def test_a_pod_without_a_free_slot_is_none() -> None:
    fleet = make_fleet(3)
    full(fleet, 2)

    assert fallbacks(fleet, "sql-lora") == {("10.0.0.3:8000",)}


def test_a_pod_where_the_adapter_runs_is_one() -> None:
    fleet = make_fleet(3)
    full(fleet, 2, 3)
    fleet.ledger.reserve(state_of(fleet, 3), "sql-lora")

    assert fallbacks(fleet, "sql-lora") == {("10.0.0.3:8000",)}


def test_an_algorithm_that_ignores_slots_accepts_any_pod() -> None:
    fleet = make_fleet(3)
    full(fleet, 2, 3)

    assert len(fallbacks(fleet, "sql-lora", algorithm=LeastRequest(OPTIONS))) == 2


def test_an_algorithm_that_raises_costs_only_the_fallback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        name = "broken"

        def pick(self, _request: InferenceRequest, candidates: Candidates, _now: float) -> Pick:
            return Pick(candidates[0], "first")

        def accepts(self, *_arguments: object) -> bool:
            raise RuntimeError("broken")

    assert fallbacks(make_fleet(3), None, algorithm=Broken()) == {()}
    assert "has no fallback" in caplog.text
