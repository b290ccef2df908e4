"""A router in a simulation: the fleet and the director that serve, fed by simulated scrapes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod import Pod
from lora_router.fleet.pod_metrics import PodMetrics
from lora_router.routing.algorithm import Algorithm
from lora_router.routing.director import Director
from lora_router.simulator.events import EventQueue
from lora_router.simulator.fleet_options import FleetOptions
from lora_router.simulator.pod_model import PodModel
from lora_router.simulator.trace import BASE_MODEL


@dataclass(slots=True)
class DecisionCounts:
    """Counts the outcomes of all routers. It is the observer of their directors."""

    held: int = 0
    refused: int = 0

    def decided(self, _algorithm: str, outcome: str, _reason: str, _seconds: float) -> None:
        """Count an outcome."""
        self.held += outcome == "held"
        self.refused += outcome == "refused"


class RouterModel:
    """One router: its fleet, its director, and what it learns from pods and other routers."""

    def __init__(
        self,
        options: FleetOptions,
        algorithm: Algorithm,
        events: EventQueue,
        counts: DecisionCounts,
    ) -> None:
        self.fleet = Fleet()
        self.director = Director(
            self.fleet,
            {algorithm.name: algorithm},
            algorithm.name,
            events,
            counts,
            max_hold_seconds=options.max_hold_seconds,
        )
        self._options = options
        self._events = events
        self._served = [ServedModel(BASE_MODEL)]
        self._served += [ServedModel(name, BASE_MODEL) for name in options.adapters]

    def put(self, number: int, generation: int, *, ready: bool) -> None:
        """Learn of a pod, as from discovery and the first read of its models."""
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:8000"
        url = f"http://{address}"
        pod = Pod(
            f"pod-{number}", address, f"{url}/metrics", f"{url}/v1/models", ready,
            uid=str(generation),
        )  # fmt: skip
        self.fleet.upsert(pod)
        state = self.fleet.get(pod.name)
        if state is not None and not state.models_known:
            self.fleet.put_models(state, self._served)

    def start_scrapes(self, number: int, pod: Callable[[], PodModel], after: float) -> None:
        """Scrape a pod at every interval.

        Args:
            number: The pod's number.
            pod: Returns the pod as it is now; an outage replaces it.
            after: Seconds until the first scrape.
        """

        def scrape() -> None:
            state = self.fleet.get(f"pod-{number}")
            if state is not None and state.pod.ready:
                metrics = self._metrics(pod())
                self._events.call_later(
                    self._options.scrape_delay_seconds,
                    lambda: self.fleet.put_metrics(state, metrics),
                )
            self._events.call_later(self._options.scrape_seconds, scrape)

        self._events.call_later(after, scrape)

    def start_exchange(
        self, name: str, others: Sequence["RouterModel"], every: float, after: float
    ) -> None:
        """Send this router's ledger to the other routers at every interval.

        Args:
            name: This router's name.
            others: The routers that receive it.
            every: Seconds between two exchanges.
            after: Seconds until the first one.
        """

        def report() -> None:
            now = self._events.time
            share = self.fleet.report_to_peers(name, every, self.director.held_adapters(), now)

            def arrive() -> None:
                for other in others:
                    other.fleet.put_peer(share, self._events.time)

            self._events.call_later(self._options.exchange_delay_seconds, arrive)
            self._events.call_later(every, report)

        self._events.call_later(after, report)

    def _metrics(self, pod: PodModel) -> PodMetrics:
        metrics = pod.metrics(tells_residency=self._options.tells_residency)
        return metrics if self._options.knowledge.scrapes else _without_requests(metrics)


def _without_requests(metrics: PodMetrics) -> PodMetrics:
    """Return the snapshot without its requests: it reports only slots."""
    lora = metrics.lora
    if lora is not None:
        lora = replace(lora, running=frozenset(), waiting=frozenset())
    return replace(metrics, running=None, waiting=None, deferred=None, lora=lora)
