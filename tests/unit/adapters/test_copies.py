import pytest

from lora_router.adapters.copies import NOWHERE, CopyWorth
from lora_router.adapters.demand import Demand

_WORTH = CopyWorth(Demand({"hot": 20.0, "usual": 1.0, "rare": 0.01}), pod_load=8.0)


def test_a_copy_where_slots_are_many_saves_more_than_one_where_they_are_few() -> None:
    assert _WORTH.of("usual", 1, slots=2, more=8) > 2 * _WORTH.of("usual", 1, slots=2, more=2)


def test_a_further_copy_saves_less_the_more_slots_the_adapter_can_use_already() -> None:
    saved = [_WORTH.of("usual", 1, slots, more=4) for slots in (2, 4, 8)]
    assert saved == sorted(saved, reverse=True)


def test_what_a_copy_saves_is_the_waiting_that_it_ends() -> None:
    before, after = _WORTH.waits("usual", 4), _WORTH.waits("usual", 6)
    assert _WORTH.of("usual", 1, slots=4, more=2) == pytest.approx(before - after)


def test_an_adapter_that_is_always_in_flight_waits_for_no_slot() -> None:
    assert _WORTH.waits("hot", 2) < 1e-3 < _WORTH.waits("usual", 2)


def test_the_first_copy_of_a_rare_adapter_is_worth_more_than_the_second_of_a_usual_one() -> None:
    first = _WORTH.of("rare", 0, slots=0, more=2)
    assert first == pytest.approx(0.03 * NOWHERE)
    assert first > _WORTH.of("usual", 1, slots=4, more=4)


def test_a_copy_that_the_operator_wants_is_worth_less_than_first_ones_and_more_than_others() -> (
    None
):
    least_first = _WORTH.of("never-asked", 0, slots=0, more=4, needed=2)
    for name in ("hot", "usual", "rare", "never-asked"):
        assert _WORTH.of(name, 1, slots=1, more=4, needed=2) < least_first
        assert _WORTH.of(name, 1, slots=1, more=4, needed=2) > _WORTH.of("usual", 1, 4, 4)
