"""One pod's line in the cache: what discovery, the scraper and the ledger each know of it."""

from collections.abc import Mapping
from typing import Protocol

from lora_router.fleet.adapter_beliefs import AdapterBeliefs
from lora_router.fleet.catalog import EMPTY, Catalog
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_metrics import PodMetrics


class PodView(Protocol):
    """What an algorithm may read of a pod. The cache's own record, without the right to write."""

    @property
    def pod(self) -> Pod:
        """Name, address, labels."""

    @property
    def metrics(self) -> PodMetrics | None:
        """The last good scrape, of any age; ``None`` before the first."""

    @property
    def in_flight(self) -> int:
        """Requests of this router on the pod, counted from the decision to the stream's end."""

    @property
    def in_flight_adapters(self) -> Mapping[str, int]:
        """Of those, how many for each adapter. An adapter with none is not in it."""

    @property
    def adapters(self) -> Mapping[str, str | None]:
        """Adapters that the pod can serve, each with its base model's name where known."""

    @property
    def beliefs(self) -> AdapterBeliefs:
        """What is believed of the pod's adapter slots, from all evidence."""

    def fresh_metrics(self, now: float, max_age: float) -> PodMetrics | None:
        """Return the last scrape if it is at most ``max_age`` seconds old at ``now``."""


class PodState:
    """The cache's record of one pod. Written by the cache and the ledger only."""

    __slots__ = (
        "beliefs",
        "catalog",
        "in_flight",
        "in_flight_adapters",
        "metrics",
        "models_known",
        "pod",
        "scrape_failures",
    )

    def __init__(self, pod: Pod, usual_slots: int | None = None) -> None:
        self.pod = pod
        self.metrics: PodMetrics | None = None
        self.catalog: Catalog = EMPTY
        self.models_known = False
        self.in_flight = 0
        self.in_flight_adapters: dict[str, int] = {}
        self.beliefs = AdapterBeliefs(self.in_flight_adapters, usual_slots)
        self.scrape_failures = 0
        """Failed scrapes in a row."""

    @property
    def base_models(self) -> frozenset[str]:
        """Base models that the pod serves."""
        return self.catalog.base_models

    @property
    def adapters(self) -> Mapping[str, str | None]:
        """Adapters that the pod can serve, each with its base model's name where known."""
        return self.catalog.adapters

    def __repr__(self) -> str:
        return f"<PodState {self.pod.name} {self.pod.address} in_flight={self.in_flight}>"

    def fresh_metrics(self, now: float, max_age: float) -> PodMetrics | None:
        """Return the last scrape if it is at most ``max_age`` seconds old at ``now``."""
        metrics = self.metrics
        if metrics is None or now - metrics.scraped_at > max_age:
            return None
        return metrics
