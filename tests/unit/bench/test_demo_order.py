"""The load of the demo shows what it is meant to show, whichever seed makes it."""

from inspect import signature

import pytest

from bench.demo_order import simulated_first_tokens
from lora_router.cli.demo import demo
from lora_router.demo.load import REQUESTS_PER_SECOND
from lora_router.demo.plan import SLOTS
from lora_router.demo.run import DEFAULT_ALGORITHMS


def usual(option: str) -> float:
    """Return the default of an option of ``lora-router demo``."""
    default: float = signature(demo).parameters[option].default
    return default


def test_the_command_runs_the_load_and_the_fleet_of_the_demo() -> None:
    assert usual("slots") == SLOTS
    assert usual("rate") == REQUESTS_PER_SECOND


@pytest.mark.parametrize("seed", range(1, 6))
def test_lora_placement_answers_first_by_far_in_the_demo(seed: int) -> None:
    duration = usual("duration")
    p99 = {
        name: simulated_first_tokens(name, duration, seed, draw=seed)[1]
        for name in DEFAULT_ALGORITHMS
    }

    best = p99.pop("lora-placement")
    assert best < 0.75 * min(p99.values())
