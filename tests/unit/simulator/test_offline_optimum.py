"""Belady's optimum, a lower bound for the loads of any router."""

from functools import lru_cache

from hypothesis import given
from hypothesis import strategies as st

from lora_router.simulator.offline_optimum import fewest_loads


def test_the_textbook_sequence() -> None:
    # Silberschatz, "Operating System Concepts", page replacement: nine faults with three frames.
    assert fewest_loads("70120304230321201701", 3) == 9


def test_with_a_slot_for_each_adapter_each_is_loaded_once() -> None:
    assert fewest_loads("abcabcabc", 3) == 3


@given(st.text("abcd", max_size=9), st.integers(1, 3))
def test_no_choice_of_what_to_evict_does_better(asked: str, slots: int) -> None:
    @lru_cache(None)
    def best(position: int, resident: frozenset[str]) -> int:
        if position == len(asked):
            return 0
        adapter = asked[position]
        if adapter in resident:
            return best(position + 1, resident)
        kept = [resident] if len(resident) < slots else [resident - {each} for each in resident]
        return 1 + min(best(position + 1, left | {adapter}) for left in kept)

    assert fewest_loads(asked, slots) == best(0, frozenset())
