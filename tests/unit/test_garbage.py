"""How often a process collects garbage."""

import gc
from collections.abc import Iterator

import pytest

from lora_router.garbage import collect_seldom_at_start


@pytest.fixture(autouse=True)
def thresholds_as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_imports_at_the_start_cause_few_collections() -> None:
    gc.set_threshold(700, 10, 10)
    before = collections()

    collect_seldom_at_start()
    kept = [[number] for number in range(20_000)]

    assert len(kept) == 20_000
    assert collections() - before <= 1


def collections() -> int:
    return sum(generation["collections"] for generation in gc.get_stats())
