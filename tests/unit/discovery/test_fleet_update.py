"""Changes of the list of pods are applied in chunks."""

from lora_router.discovery.fleet_update import update_fleet
from lora_router.fleet.fleet import Fleet
from tests.fleet import make_pod


async def sizes(fleet: Fleet, models: int) -> list[int]:
    """Return how many pods are in each chunk of 20 pods with lists of models."""
    found: list[int] = []
    fleet.changes.pods.subscribe(lambda states: found.append(len(states)))
    names = tuple(f"model-{number}" for number in range(models))
    await update_fleet(fleet, [make_pod(number, models=names) for number in range(1, 21)], ())
    return found


async def test_a_small_change_is_applied_at_once() -> None:
    assert await sizes(Fleet(), 10) == [20]


async def test_pods_with_long_lists_are_more_work() -> None:
    assert await sizes(Fleet(), 4000) == [3, 3, 3, 3, 3, 3, 2]
