"""One pod's record in the fleet: what discovery, the scraper, and the ledger know about it."""

from collections.abc import Mapping
from typing import Protocol

from lora_router.fleet.adapter_beliefs import AdapterBeliefs
from lora_router.fleet.catalog import EMPTY, BaseModels, Catalog
from lora_router.fleet.health import PodHealth
from lora_router.fleet.load_seconds import Loads
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_work import PodWork


class PodView(Protocol):
    """What an algorithm may read about a pod: a read-only view of the fleet's own record."""

    @property
    def pod(self) -> Pod:
        """The pod's description: name, address, labels."""

    @property
    def metrics(self) -> PodMetrics | None:
        """The last good snapshot, of any age; ``None`` before the first one."""

    @property
    def in_flight(self) -> int:
        """Requests of this router on the pod.

        Each counts from the pick to the end of its stream.
        """

    @property
    def in_flight_adapters(self) -> Mapping[str, int]:
        """The number of these requests for each adapter. Adapters without requests are omitted."""

    @property
    def adapters(self) -> Mapping[str, str | None]:
        """Adapters that the pod serves, each with its base model's name if that is known."""

    @property
    def base_models(self) -> BaseModels:
        """The names of the base models that the pod serves."""

    @property
    def beliefs(self) -> AdapterBeliefs:
        """The estimate of what is in the pod's adapter slots, from all evidence."""

    @property
    def work(self) -> PodWork:
        """The prompt tokens on their way to the pod, and how fast it is."""

    def fresh_metrics(self, now: float, max_age: float) -> PodMetrics | None:
        """Return the last snapshot if it is fresh, else ``None``.

        A snapshot is fresh if it is at most ``max_age`` seconds old at ``now``.
        """


class PodState:
    """The fleet's record of one pod. Only the fleet and the ledger write to it."""

    __slots__ = (
        "beliefs",
        "catalog",
        "health",
        "in_flight",
        "in_flight_adapters",
        "loading",
        "loads",
        "metrics",
        "models_known",
        "pod",
        "scrape_failures",
        "unreachable_scrapes",
        "work",
    )

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.metrics: PodMetrics | None = None
        self.catalog: Catalog = EMPTY
        self.models_known = False
        self.health = PodHealth()
        self.in_flight = 0
        self.in_flight_adapters: dict[str, int] = {}
        self.beliefs = AdapterBeliefs(self.in_flight_adapters)
        self.beliefs.told(pod.lora, pod.engine)
        self.work = PodWork()
        self.loading: set[str] = set()
        """Adapters that requests of this router brought there, without a first byte yet."""
        self.loads: Loads | None = None
        """What was seen of loads of adapters. ``None``: nothing yet."""
        self.scrape_failures = 0
        """The number of consecutive failed scrapes."""
        self.unreachable_scrapes = 0
        """The number of consecutive scrapes for which the pod could not be reached."""

    @property
    def base_models(self) -> BaseModels:
        """Base models that the pod serves."""
        return self.catalog.base_models

    @property
    def adapters(self) -> Mapping[str, str | None]:
        """Adapters that the pod serves, each with its base model's name if that is known."""
        return self.catalog.adapters

    def is_server(self, pod: Pod) -> bool:
        """Return whether a description is of this server, under whatever name."""
        return (self.pod.address, self.pod.uid) == (pod.address, pod.uid)

    def __repr__(self) -> str:
        return f"<PodState {self.pod.name} {self.pod.address} in_flight={self.in_flight}>"

    def fresh_metrics(self, now: float, max_age: float) -> PodMetrics | None:
        """Return the last snapshot if it is fresh, else ``None``.

        A snapshot is fresh if it is at most ``max_age`` seconds old at ``now``.
        """
        metrics = self.metrics
        if metrics is None or now - metrics.scraped_at > max_age:
            return None
        return metrics
