"""What the pages of a router say, as plain records."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lora_router.fleet.lora_spec import ASSUMED

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, as the router knows it."""

    name: str
    ready: bool = True
    health: str = "healthy"
    """``healthy``, ``suspect``, ``ejected`` or ``trying``."""
    why: str = ""
    """Why it is not healthy."""
    base_models: tuple[str, ...] = ()
    engine: str | None = None
    slots: int | None = None
    listed: int = 0
    """Adapters that it lists."""
    fingerprint: str = ""
    """Equal for pods that list the same models."""
    used: int = 0
    """Adapters that were used on it, as far as the router remembers."""
    in_memory: int | None = None
    """Adapters in slots and host memory, if the server reports it."""
    evicted: int | None = None
    """Of the used ones, those that are in neither, if the server reports it, or the size of its
    host memory is known."""
    host_memory: int | None = None
    """Adapters that fit in host memory. ``None``: no limit is known."""
    host_memory_source: str = ASSUMED
    """How that is known: ``command-line``, ``label``, ``pods-file``, ``assumed`` or ``learned``."""
    load_seconds: float | None = None
    """Mean time of loading an adapter, if the server reports it."""
    shows_load: bool = True
    """Whether its metrics show how many requests it has."""
    scrape_failures: int = 0
    """Failed scrapes in a row."""
    age_seconds: float | None = None
    """Age of its last good scrape. ``None``: there was none."""
    in_flight: int = 0
    strangers: int = 0
    """Requests on it that neither this router nor a peer sent."""
    clock_seconds: float | None = None
    """By how much its clock is ahead of the router's; negative: behind. ``None``: unknown."""


@dataclass(frozen=True, slots=True)
class Router:
    """One process of a router, or a peer."""

    name: str = ""
    version: str = ""
    algorithm: str = ""
    ready: bool = True
    reason: str = "ready"
    has_peers: bool = False
    """Whether peering is configured."""
    peers: tuple[str, ...] = ()
    """The peers that it hears."""
    decisions: int = 10_000
    """Decisions that it remembers."""
    max_hold_seconds: float = 30.0
    metrics_max_age_seconds: float = 15.0
    loop_lag_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter."""

    name: str
    base_model: str = ""
    listed: int = 0
    """Pods that list it."""
    requests: int = 0
    """Its requests since the router started."""
    busy: bool = False
    """Whether it has requests now."""
    state: str = ""
    """How far it is as declared (``adapters.status.State``); empty: it is not declared."""
    unplaced_because: str = ""
    """Why it belongs on no pod, if it is declared and does not."""
    wanted: int = 0
    """Pods on which it belongs, if it is declared."""
    failing: tuple[tuple[str, str], ...] = ()
    """Pods that failed to load or to unload it, each with what it said."""

    @property
    def is_declared(self) -> bool:
        """Whether a router decides which pods have it."""
        return bool(self.state)


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that is known."""

    routers: Sequence[Router] = ()
    """The router that was asked is the first."""
    unreachable: Sequence[str] = ()
    """Processes and peers that did not answer."""
    pods: Sequence[Pod] = ()
    adapters: Sequence[Adapter] = ()
    """The busiest ones."""
    adapters_more: int = 0
    """How many there are besides."""
    readiness: Mapping[str, object] = field(default_factory=dict)
    """What ``/readyz`` says."""
    metrics: Mapping[str, Sequence[tuple[Labels, float]]] = field(default_factory=dict)
    """The samples of ``/metrics``, by name."""
    details: Mapping[str, int] = field(default_factory=dict)
    """Envoy's reasons for answers of its own, with the number of requests, of the last decisions.
    """
    given_up: Sequence[float] = ()
    """How long requests had been held, in seconds, when client or gateway gave them up."""
    now: float = 0.0
    """Seconds since 1970."""

    @property
    def router(self) -> Router:
        """The router that was asked."""
        return self.routers[0] if self.routers else Router()

    def total(self, metric: str, **labels: str) -> float:
        """Return the sum of a metric's samples, of those that have some labels."""
        return sum(
            value
            for found, value in self.metrics.get(metric, ())
            if all(found.get(name) == label for name, label in labels.items())
        )

    def with_several_pods(self) -> set[str]:
        """Return the base models that several ready pods serve."""
        return {base_model for base_model, pods in self.by_base_model() if len(pods) > 1}

    def by_base_model(self) -> Iterator[tuple[str, list[Pod]]]:
        """Yield the ready pods of each base model."""
        found: dict[str, list[Pod]] = {}
        for pod in self.pods:
            if pod.ready and pod.base_models:
                found.setdefault(pod.base_models[0], []).append(pod)
        yield from found.items()
