import pytest

from bench.perfect_slots import PerfectSlots
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.trace import BASE_MODEL, Arrival

_ENGINE = EngineOptions(
    step_seconds=0.02, step_seconds_per_request=0.0, prefill_seconds_per_token=0.0
)
_LOAD = _ENGINE.host_load_seconds


def _times(slots: int, *asked: tuple[float, str, int]) -> list[float]:
    perfect = PerfectSlots(_ENGINE, slots)
    perfect.play(Arrival(at, model, 100, tokens) for at, model, tokens in asked)
    return [seconds for _, seconds in perfect.times]


def test_a_request_waits_only_while_all_slots_of_the_fleet_are_taken() -> None:
    times = _times(2, (0.0, "a", 51), (0.0, "b", 101), (0.0, "c", 1))
    assert times == pytest.approx([_LOAD + 0.02, _LOAD + 0.02, 51 * 0.02 + 2 * _LOAD + 0.02])


def test_a_request_joins_others_of_its_adapter_without_a_slot() -> None:
    assert _times(1, (0.0, "a", 51), (0.5, "a", 1)) == pytest.approx([_LOAD + 0.02, 0.02])


def test_an_adapter_that_was_used_last_need_not_be_loaded_again() -> None:
    times = _times(1, (0.0, "a", 1), (1.0, "a", 1), (2.0, "b", 1), (3.0, "a", 1))
    assert times == pytest.approx([_LOAD + 0.02, 0.02, _LOAD + 0.02, _LOAD + 0.02])


def test_the_base_model_needs_no_slot() -> None:
    assert _times(1, (0.0, "a", 51), (0.0, BASE_MODEL, 1)) == pytest.approx([_LOAD + 0.02, 0.02])
