"""Whether the router should receive new requests: what ``/readyz`` reports."""

import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Protocol

from lora_router.admin.server import Readiness
from lora_router.fleet.engine_names import UNKNOWN
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.health import NAMES
from lora_router.supervision import Supervisor

_NAMED_PODS = 10
"""Number of unhealthy pods, and of pods that do not show their load, that ``/readyz`` names. The
others are only counted."""
_NAMED_TASKS = 5
"""Number of failing tasks that ``/readyz`` describes. The others are only counted."""


class Leadership(Protocol):
    """Decides which of several routers leads."""

    @property
    def leads(self) -> bool:
        """Whether this router leads."""

    def standby_reason(self) -> str:
        """Return why it does not, in one line."""

    def status(self) -> dict[str, object]:
        """Return further fields of the page."""


class RouterReadiness:
    """Derives readiness from the state of the router's parts."""

    def __init__(
        self,
        fleet: Fleet,
        supervisor: Supervisor,
        *,
        metrics_max_age: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create it, for a router that has not started.

        Args:
            fleet: The pods.
            supervisor: Knows the tasks that keep failing.
            metrics_max_age: Age in seconds at which a snapshot is stale.
            clock: Returns seconds, monotonic.
        """
        self._fleet = fleet
        self._supervisor = supervisor
        self._metrics_max_age = metrics_max_age
        self._clock = clock
        self._details: list[Callable[[], dict[str, object]]] = []
        self._conditions: list[Callable[[], str | None]] = []
        self._notes: list[Callable[[], str]] = []
        self.warm = False
        """Whether the first scrape round is over."""
        self.draining = False
        self._leadership: Leadership | None = None

    def add_details(self, *reads: Callable[[], dict[str, object]]) -> None:
        """Add fields to the page, which are read whenever the page is."""
        self._details += reads

    def follow(self, leadership: Leadership) -> None:
        """Make a router that does not lead unready."""
        self._leadership = leadership
        self.add_details(leadership.status)

    def add_condition(self, problem: Callable[[], str | None]) -> None:
        """Add what else must hold: ``problem`` returns why it does not, or ``None``."""
        self._conditions.append(problem)

    def add_note(self, read: Callable[[], str]) -> None:
        """Add what the reason says besides; an empty text adds nothing."""
        self._notes.append(read)

    def read(self) -> Readiness:
        """Return whether this router should receive new requests, and the reason if not.

        Tasks that cannot be kept running are reported but do not make the router unready. The
        router still routes on what it knows, and a fault in a task most likely affects every
        router at the same time: if all became unready, no request would be served. Before the
        first list of pods the router has nothing to route on, and is unready for that reason.
        """
        leadership = self._leadership
        standby = False
        if self.draining:
            reason = "shutting down"
        elif not self._fleet.synced:
            reason = "the list of pods has not been read yet"
        elif not self.warm:
            reason = "waiting for the first scrape of the pods"
        elif leadership is not None and not leadership.leads:
            reason, standby = leadership.standby_reason(), True
        else:
            problems = (problem() for problem in self._conditions)
            reason = next((each for each in problems if each is not None), "ready")
        ready = reason == "ready"
        if ready:
            reason = "; ".join((reason, *filter(None, (read() for read in self._notes))))
        now = self._clock()
        ready_pods = self._fleet.ready()
        fresh = [(each, each.fresh_metrics(now, self._metrics_max_age)) for each in ready_pods]
        stale = sum(metrics is None for _, metrics in fresh)
        loadless = [each.pod for each, found in fresh if found is not None and not found.shows_load]
        details: dict[str, object] = {
            "pods": len(self._fleet),
            "ready_pods": len(ready_pods),
            "stale_pods": stale,
        }
        if loadless:
            details["pods_without_load"] = len(loadless)
            details["without_load"] = {
                pod.name: pod.engine or UNKNOWN for pod in islice(loadless, _NAMED_PODS)
            }
        outliers = self._fleet.outliers
        if outliers is not None and outliers.unwell:
            details["unhealthy_pods"] = len(outliers.unwell)
            details["health"] = {
                state.pod.name: f"{NAMES[state.health.state]}: {state.health.cause}"
                for state in islice(outliers.unwell, _NAMED_PODS)
            }
        for read in self._details:
            details |= read()
        failing = self._supervisor.failing()
        if failing:
            reason += f"; {len(failing)} background tasks keep failing"
            # Discovery affects all requests, a scrape only those for one pod.
            failing.sort(key=lambda each: each.task.startswith("scrape"))
            details["failing_tasks"] = dict(Counter(each.task for each in failing))
            details["failures"] = [str(each) for each in failing[:_NAMED_TASKS]]
        return Readiness(ready, reason, details, standby)
