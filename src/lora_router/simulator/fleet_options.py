"""What a simulated fleet consists of."""

from dataclasses import dataclass, field
from enum import StrEnum

from lora_router.fleet.lora_spec import COMMAND_LINE, UNLIMITED, LoraSpec
from lora_router.routing.overload import Overload
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.knowledge import SCRAPES, Knowledge
from lora_router.simulator.network import WireOptions
from lora_router.simulator.pod_autoscaler import AutoscalerOptions


@dataclass(frozen=True, slots=True)
class Outage:
    """A pod that leaves and returns."""

    pod: int
    at: float
    """Seconds from the start."""
    lasts: float
    """Seconds until it returns, empty."""
    sudden: bool = False
    """Whether its requests are lost (and sent again at once). Otherwise they end first."""


@dataclass(frozen=True, slots=True)
class LoaderOptions:
    """What loads adapters."""

    before_seconds: float = 0.0
    """How long it loads before the first request."""


class RouterTrouble(StrEnum):
    """What can happen to a router."""

    KILLED = "killed"
    """It dies. After the time a new router begins in its place."""
    STALLED = "stalled"
    """Its event loop stands still."""
    PARTED = "parted"
    """No message passes between it and other routers."""


@dataclass(frozen=True, slots=True)
class RouterEvent:
    """Something that happens to a router."""

    trouble: RouterTrouble
    router: int
    at: float
    """Seconds from the start."""
    lasts: float
    """Seconds until it is over."""


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """A fleet of pods and the routers in front of it."""

    engines: tuple[EngineOptions, ...]
    """One for each pod at the start. Pods that start later take these values in turn."""
    adapters: tuple[str, ...]
    """What every pod serves, beside the base model."""
    routers: int = 1
    knowledge: Knowledge = SCRAPES
    """What each router knows of the requests of the others."""
    wire: WireOptions = field(default_factory=WireOptions)
    """What happens to messages between routers."""
    router_events: tuple[RouterEvent, ...] = ()
    clock_rates: tuple[float, ...] = (1.0,)
    """Seconds that the routers' clocks count in a second. The routers take these values in turn."""
    scrape_seconds: float = 0.25
    """The default of the router's setting."""
    scrape_delay_seconds: float = 0.005
    tells_residency: bool = False
    """Whether pods export which adapters are loaded (vllm-project/vllm#54830)."""
    host_memory_told: bool = False
    """Whether routers know how many adapters fit in a pod's host memory, and which were there at
    the start, as from the pod's command line. Otherwise they assume that everything fits."""
    preloaded: tuple[str, ...] | None = None
    """Adapters in the host memory of every pod at the start, as many of the first ones as fit.
    ``None``: all adapters, as in a fleet that has run for long. Pods that start later, after an
    outage or by the autoscaler, have none."""
    outages: tuple[Outage, ...] = ()
    strangers: float = 0.0
    """Share of the requests that pass no router. They go to a random pod."""
    lost_scrapes: float = 0.0
    """Share of the scrapes that fail."""
    max_hold_seconds: float = 600.0
    overload: Overload = field(default_factory=Overload)
    """How routers treat requests for which there is no room."""
    loader: LoaderOptions | None = None
    """Loads adapters on pods, which list only what is loaded. ``None``: every pod lists all."""
    autoscaler: AutoscalerOptions | None = None
    """Makes the fleet larger and smaller. ``None``: the number of pods is fixed."""

    @property
    def begins_at(self) -> float:
        """The simulated time at which the simulation begins. The trace begins at 0."""
        return 0.0 if self.loader is None else -self.loader.before_seconds

    def engine(self, pod: int) -> EngineOptions:
        """Return the options of a pod, by its number."""
        return self.engines[pod % len(self.engines)]

    def preloaded_on(self, pod: int) -> tuple[str, ...]:
        """Return the adapters that are in a pod's host memory at the start."""
        names = self.adapters if self.preloaded is None else self.preloaded
        return names[: self.engines[pod].max_cpu_loras]

    def spec_of(self, pod: int, generation: int = 0) -> LoraSpec:
        """Return what the specification of a pod says about its adapters.

        Args:
            pod: Its number.
            generation: How often it was replaced.
        """
        if not self.host_memory_told and self.loader is None:
            return LoraSpec(host_memory=UNLIMITED)
        engine = self.engine(pod)
        return LoraSpec(
            slots=engine.max_loras,
            host_memory=engine.max_cpu_loras,
            source=COMMAND_LINE,
            # Pods that start later have nothing in host memory.
            preloaded=self.preloaded_on(pod) if pod < len(self.engines) and not generation else (),
            # Without a loader, pods list what they have not loaded yet.
            loads_when_listed=self.loader is not None,
        )
