"""What a run measures: a point of every dimension, and from there one dimension after the other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lora_router.config.settings import Settings
from lora_router.routing.registry import installed

DEFAULT_ALGORITHM = str(Settings.model_fields["algorithm"].default)


@dataclass(frozen=True, slots=True)
class Point:
    """What is sent, and to how many pods."""

    body_bytes: int = 1_000
    connections: int = 64
    pods: int = 8
    algorithm: str = DEFAULT_ALGORITHM


BASE = Point()


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of it, and for how long."""

    bodies: Sequence[int] = (1_000, 10_000, 220_000, 2_000_000)
    connections: Sequence[int] = (1, 32, 64, 256)
    pods: Sequence[int] = (8, 100, 1_000)
    algorithms: Sequence[str] = ()
    """None given: all that are installed."""
    adapters: int = 10_000
    rounds: int = 2
    """Times that each point is measured, in turn with what it is held against."""
    base_rounds: int = 5
    """Likewise for the point from which the others start."""
    seconds: float = 1.5
    warm_up: float = 0.5
    streams: int = 10_000
    starts: int = 5
    scraped_pods: int = 1_000
    settle_seconds: float = 2.0
    """Before that: the first scrapes, all at once, are over."""
    scrape_seconds: float = 10.0
    questions: int = 3_000

    def points(self) -> list[Point]:
        """Return all points, the base first, each once."""
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
