"""What a run measures: one base point, and from there each dimension alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lora_router.config.settings import Settings
from lora_router.routing.registry import installed

DEFAULT_ALGORITHM = str(Settings.model_fields["algorithm"].default)


@dataclass(frozen=True, slots=True)
class Point:
    """One combination of load and fleet."""

    body_bytes: int = 1_000
    connections: int = 64
    pods: int = 8
    algorithm: str = DEFAULT_ALGORITHM


BASE = Point()


@dataclass(frozen=True, slots=True)
class Plan:
    """The points of a run, and how long each of them is measured."""

    bodies: Sequence[int] = (1_000, 10_000, 220_000, 2_000_000)
    connections: Sequence[int] = (1, 32, 64, 256)
    pods: Sequence[int] = (8, 100, 1_000)
    algorithms: Sequence[str] = ()
    """Empty: all installed algorithms."""
    adapters: int = 10_000
    rounds: int = 2
    """Rounds for each point. In each round the listeners are measured in turn."""
    base_rounds: int = 5
    """Rounds for the base point."""
    seconds: float = 1.5
    warm_up: float = 0.5
    streams: int = 10_000
    starts: int = 5
    scraped_pods: int = 1_000
    settle_seconds: float = 2.0
    """Wait for the first scrapes, which all start at once, to end."""
    scrape_seconds: float = 10.0
    questions: int = 3_000

    def points(self) -> list[Point]:
        """Return all points without duplicates, the base point first."""
        algorithms = self.algorithms or sorted(installed())
        listed = [BASE]
        listed += [replace(BASE, body_bytes=size) for size in self.bodies]
        listed += [replace(BASE, connections=count) for count in self.connections]
        listed += [replace(BASE, pods=count) for count in self.pods]
        listed += [replace(BASE, algorithm=name) for name in algorithms]
        return list(dict.fromkeys(listed))


FULL = Plan()
QUICK = Plan(
    bodies=(220_000,),
    connections=(1,),
    pods=(100,),
    algorithms=("least-request",),
    rounds=1,
    base_rounds=1,
    seconds=1.0,
    warm_up=0.3,
    streams=1_000,
    starts=1,
    scraped_pods=200,
    settle_seconds=1.5,
    scrape_seconds=2.0,
    questions=300,
)
