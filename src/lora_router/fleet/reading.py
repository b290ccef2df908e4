"""What was read from one page of one pod, by this process or by another one. Records only."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from lora_router.fleet.catalog import Catalog
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.fleet.pod_state import PodState

Page = Literal["metrics", "models"]


@dataclass(frozen=True, slots=True)
class ReadFailure:
    """A read that gave nothing."""

    page: Page
    cause: str
    """One of a few words, for a label."""
    unreachable: bool = False
    """Whether the pod's own endpoint refused or reset the connection, or did not respond in time.
    ``Fleet.put_scrape_failure`` has the exceptions."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One read of one page of one pod."""

    state: PodState
    """The record of the pod that was read. A new server under the same name has another one."""
    read_at: float
    """When the page arrived, or the read failed, on the monotonic clock of this process."""
    found: PodMetrics | Catalog | ReadFailure

    @property
    def page(self) -> Page:
        """The page that was read."""
        found = self.found
        if isinstance(found, ReadFailure):
            return found.page
        return "metrics" if isinstance(found, PodMetrics) else "models"


def last_readings(states: Iterable[PodState], now: float) -> Iterator[Reading]:
    """Yield what is known of some pods as readings, for a process that has read nothing yet.

    Args:
        states: The pods.
        now: The time that lists of models get: the time at which they were read is not recorded.
    """
    for state in states:
        if state.metrics is not None:
            yield Reading(state, state.metrics.scraped_at, state.metrics)
        if state.models_known and state.pod.models is None:
            yield Reading(state, now, state.catalog)
