"""Turns that come late."""

from lora_router.clock import LateTurns


def test_a_turn_after_a_stall_is_skipped() -> None:
    turns = LateTurns(0.3)

    assert [turns.skips(late) for late in (0.0, 0.3, 2.0, 0.0)] == [False, False, True, False]


def test_of_late_turns_in_a_row_every_second_one_is_done() -> None:
    turns = LateTurns(0.3)

    assert [turns.skips(1.0) for _ in range(5)] == [True, False, True, False, True]
