"""Counts of instructions, as they are printed. Counting needs valgrind."""

from bench.instructions import PER_MICROSECOND, Count, Part


def nothing() -> None:
    """Do nothing."""


def test_a_count_tells_instructions_microseconds_and_whether_the_goal_is_met() -> None:
    recorded = Part("recorded", nothing, goal=2.0, beyond="off")

    assert str(Count(recorded, 1.5 * PER_MICROSECOND)).split() == (
        ["recorded", "+", "16,650", "+", "1.5", "µs,", "goal", "2:", "yes"]
    )
    assert str(Count(recorded, 3.0 * PER_MICROSECOND)).endswith("goal   2: NO")


def test_a_part_without_a_goal_has_only_its_cost() -> None:
    assert str(Count(Part("off", nothing), 11_100.0)).split() == ["off", "11,100", "1.0", "µs"]
