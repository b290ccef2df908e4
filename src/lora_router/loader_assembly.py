"""Makes the loader and what it needs, from the settings."""

import re
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Protocol

from lora_router.adapter_assembly import DeclaredParts
from lora_router.adapters.demand import Demand, DemandMeter
from lora_router.adapters.dispatch import LoaderOptions
from lora_router.adapters.first_places import WaitsForAdapters
from lora_router.adapters.loader import Loader
from lora_router.adapters.orders import Orders
from lora_router.adapters.planner import Planner
from lora_router.clock import Timer
from lora_router.config.settings import Settings
from lora_router.debug.loading import Loading
from lora_router.fleet.fleet import Fleet
from lora_router.loader_metrics import LoaderMetrics
from lora_router.loop_clock import LoopClock
from lora_router.peering.withdrawals import Withdrawals
from lora_router.scrape.adapter_calls import AdapterCalls
from lora_router.scrape.pod_access import PodAccess
from lora_router.scrape.scraper import Scraper
from lora_router.supervision import Supervisor
from lora_router.telemetry.metrics import Telemetry

if TYPE_CHECKING:
    from lora_router.adapters.first_use import FirstUse
    from lora_router.kubernetes_assembly import ModelAdapterParts
    from lora_router.peering.hub import Hub
    from lora_router.replication.leadership import Leadership
    from lora_router.replication.loader_lease import LoaderLease

GRACE_SECONDS = 0.3
"""Time until the requests that were on their way to an adapter that is withdrawn have arrived."""
GRACE_SECONDS_OF_SEVERAL = 1.0
"""The same where other processes have to learn that it is withdrawn."""
_HEARD_SECONDS = 0.5
"""After so long, all peers know that this router may load. It does not load before, because another
one may do so until it knows that."""
_WORKER = re.compile(r"-worker-[0-9]+-[0-9a-f]+$")


class LoadingPeers(Protocol):
    """The peers, as far as it matters which router loads."""

    @property
    def name(self) -> str:
        """The name of this router among them."""

    @property
    def peers(self) -> Collection[str]:
        """The names of all peers."""

    def loaders(self) -> Collection[str]:
        """Return the peers that may be the ones that load adapters.

        They are not starting or stopping, and adapters may be declared to them.
        """


class LoaderPart:
    """The loader, its connections to pods, and what answers questions about it."""

    def __init__(
        self,
        loader: Loader,
        meter: DemandMeter,
        calls: AdapterCalls,
        answers: Loading,
        resources: "ModelAdapterParts | None",
    ) -> None:
        self.loader = loader
        self.answers = answers
        """Answers questions about the loader, and gives it orders."""
        self.resources = resources
        """The resources of Kubernetes that declare adapters, if any do."""
        self._peers: LoadingPeers | None = None
        self._tell: Callable[[bool], None] = lambda _: None
        self._timer: Timer | None = None
        self._meter = meter
        self._calls = calls

    def tell_peers(self, peers: LoadingPeers, tell: Callable[[bool], None]) -> None:
        """Let peers know while this router may be the one that loads. Call it before ``start``.

        Args:
            peers: The peers.
            tell: Tells them whether it may.
        """
        self._peers, self._tell = peers, tell

    def follow(self, supervisor: Supervisor) -> None:
        """Begin to follow what declares adapters on Kubernetes."""
        if self.resources is not None:
            self.resources.start(supervisor)

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""
        return {} if self.resources is None else self.resources.status()

    def unread(self) -> str | None:
        """Return why a router should not get requests yet, or ``None``."""
        return None if self.resources is None else self.resources.resources.unread()

    def start(self) -> None:
        """Begin to load: the fleet is known."""
        self._meter.start()
        self._tell(True)
        if self._peers is None or not self._peers.peers:
            self.loader.start()
        else:
            self._timer = LoopClock().call_later(_HEARD_SECONDS, self.loader.start)

    async def stop(self) -> None:
        """Start no more calls, and close all connections."""
        if self._timer is not None:
            self._timer.cancel()
        self.loader.stop()
        self._tell(False)
        self._meter.stop()
        await self._calls.close()


def make_loader(  # noqa: PLR0913, PLR0917 -- the parts that it connects
    settings: Settings,
    fleet: Fleet,
    declared: DeclaredParts | None,
    scraper: Scraper,
    telemetry: Telemetry,
    supervisor: Supervisor,
    access: PodAccess,
    is_loader: Callable[[], bool],
    demand: Callable[[], Demand],
    *,
    hub: "Hub | None" = None,
    first_use: "FirstUse | None" = None,
    waits: WaitsForAdapters | None = None,
    is_held: Callable[[str], bool] | None = None,
    may_leave: Callable[[str], bool] | None = None,
) -> LoaderPart | None:
    """Return the loader, which does not run yet, or ``None`` if no adapters may be declared.

    Args:
        settings: The settings.
        fleet: The pods.
        declared: The declared adapters.
        scraper: Reads the pods, and takes in what calls change.
        telemetry: Shows what the loader does.
        supervisor: Runs the calls.
        access: The keys for pods.
        is_loader: Returns whether this router is the one that loads.
        demand: Returns for which adapters requests wait, and how many are in flight in other
            processes of this router.
        hub: The peers of this process, if there are some.
        first_use: Holds requests for adapters that are not loaded, in this process.
        waits: What does so, if it is not ``first_use``.
        is_held: Returns whether requests for an adapter wait, if ``first_use`` does not know.
        may_leave: Returns whether an older version gets no more requests, if ``first_use`` does not
            know.

    Raises:
        PoolNameError: The namespace of the InferencePool is unknown.
    """
    if declared is None:
        return None
    if first_use is not None:
        waits = waits or first_use
        is_held = is_held or first_use.is_held
        may_leave = may_leave or first_use.versions.may_leave
    calls = AdapterCalls(
        scraper,
        supervisor,
        access,
        seconds=settings.adapter_load_timeout_seconds,
    )
    if hub is not None:
        calls.tells = Withdrawals(hub, fleet, calls)
    is_alone = settings.workers == 1 and not settings.has_peers
    options = LoaderOptions(
        loads_at_once=settings.adapter_loads_at_once,
        grace_seconds=GRACE_SECONDS if is_alone else GRACE_SECONDS_OF_SEVERAL,
        in_place=settings.adapter_update == "in-place",
    )
    clock = LoopClock()
    held = first_use.held if first_use is not None else tuple
    meter = DemandMeter(
        fleet, clock, lambda: demand().waiting, held, elsewhere=lambda: demand().loads
    )
    loader = Loader(
        fleet,
        declared.declarations,
        calls,
        clock,
        options,
        demand=meter.demand,
        is_held=is_held or (lambda _: False),
        may_leave=may_leave or (lambda _: True),
        is_loader=is_loader,
        look=scraper.look_again,
        waits=waits,
        planner=Planner(settings.adapter_min_copies),
    )
    scraper.followers.subscribe_lists(loader.list_read)
    scraper.roots = declared.sources
    metrics = LoaderMetrics(loader)
    telemetry.registry.register(metrics)
    if first_use is not None:
        first_use.on_wanted = loader.want
    orders = Orders(declared.declarations, loader, declared.allowed, fleet)
    resources = None
    if settings.model_adapters:
        # The Kubernetes client takes a second to import.
        from lora_router.kubernetes_assembly import make_model_adapters

        resources = make_model_adapters(
            settings,
            declared.declarations,
            partial(declared.declare_list, "kubernetes"),
            declared.allowed,
            loader,
            supervisor,
        )
        metrics.status_writes = resources.writer.writes
    return LoaderPart(loader, meter, calls, Loading(loader, orders), resources)


def loader_choice(
    leadership: "Leadership | None",
    lease: "LoaderLease | None",
    hub: LoadingPeers | None,
) -> Callable[[], bool]:
    """Return what says whether this router is the one that loads.

    Where a Lease decides which router leads, or which one loads, that one does. Else the first of
    all routers that hear each other, and that may load, does. If they do not hear each other,
    several load. That does no harm, because all of them do the same.

    Args:
        leadership: Which router leads, if one does.
        lease: Which router loads, if a Lease of its own decides it.
        hub: The peers, if there are some.
    """
    if lease is not None:
        return lambda: lease.loads
    if leadership is not None:
        return lambda: leadership.leads
    if hub is not None:
        return lambda: is_first(hub)
    return lambda: True


def is_first(hub: LoadingPeers) -> bool:
    """Return whether a router is the first by name of itself and its peers that may load.

    The workers of one router count as one.
    """
    own = _WORKER.sub("", hub.name)
    return all(own <= _WORKER.sub("", peer) for peer in hub.loaders())
