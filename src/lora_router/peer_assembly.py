"""Makes the parts by which routers are peers from the settings. ``app`` puts them together."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_router.config.settings import Settings
from lora_router.fleet.catalog_digests import CatalogDigests
from lora_router.fleet.fleet import Fleet
from lora_router.loop_clock import LoopClock
from lora_router.peering.addresses import AddressSource, FoundPeers, ListedPeers
from lora_router.peering.secret import Secret
from lora_router.peering.worker_place import WorkerPlace
from lora_router.routing.director import Director
from lora_router.scrape.scraper import Scraper
from lora_router.scrape.sharing import Sharing
from lora_router.supervision import Supervisor
from lora_router.telemetry.metrics import Telemetry

if TYPE_CHECKING:
    from lora_router.peering.clients import ClientTls
    from lora_router.peering.peering import Peering
    from lora_router.peering.reading_exchange import ReadingHub
    from lora_router.peering.redis_connection import RedisServer
    from lora_router.replication.leadership import Leadership, LeaseOptions
    from lora_router.replication.loader_lease import LoaderLease


@dataclass(frozen=True, slots=True)
class WorkerPeers:
    """What a worker needs to have peers on other hosts."""

    place: WorkerPlace
    addresses: AddressSource
    secrets: tuple[bytes, ...] = ()
    """Those that the parent uses."""


def make_peering(
    settings: Settings,
    fleet: Fleet,
    director: Director,
    supervisor: Supervisor,
    worker: WorkerPeers | None = None,
) -> "Peering | None":
    """Return what exchanges reports with other routers, or ``None`` if there are none.

    Args:
        settings: The settings.
        fleet: What is reported, and what reports are applied to.
        director: Has the requests that are held.
        supervisor: Runs the tasks.
        worker: Where this process is, if it is a worker, and who finds the peers for it.

    Raises:
        SecretError: ``peer_secret_file`` cannot be used, and there is none of the parent.
        ServiceError: The namespace of ``peer_service`` is unknown.
        RedisMissingError: The extra ``redis`` is needed and not installed.
        PasswordError: ``peering_password_file`` cannot be used by a router without workers.
    """
    if not settings.has_peers:
        return None
    # grpcio takes a large part of the startup time.
    from lora_router.peering.peering import Peering

    secret_file = settings.peer_secret_file
    kept = () if worker is None else worker.secrets
    source: AddressSource | None = None
    if settings.has_mesh:
        source = make_peer_addresses(settings) if worker is None else worker.addresses
    return Peering(
        fleet,
        director,
        source,
        LoopClock(),
        supervisor,
        tls=_peer_tls(settings),
        secret=None if secret_file is None else Secret(secret_file, kept),
        redis=_redis_server(settings),
        place=None if worker is None else worker.place,
    )


def _redis_server(settings: Settings) -> "RedisServer | None":
    from lora_router.peering.redis_connection import RedisServer

    address = settings.redis_address
    if address is None:
        return None
    return RedisServer(
        address,
        settings.peering_prefix,
        settings.peering_password_file,
        settings.peer_tls_ca_file,
        settings.peer_tls_cert_file,
        settings.peer_tls_key_file,
    )


def check_peers(settings: Settings) -> Secret | None:
    """Check what every worker needs for its peers on other hosts, and return the secret.

    Raises:
        SecretError: ``peer_secret_file`` cannot be used.
        RedisMissingError: The extra ``redis`` is needed and not installed.
        PasswordError: ``peering_password_file`` cannot be used.
    """
    secret: Secret | None = None
    if settings.has_peers and settings.peer_secret_file is not None:
        secret = Secret(settings.peer_secret_file)
    if settings.redis_address is not None:
        from lora_router.peering.redis_connection import check

        server = _redis_server(settings)
        assert server is not None  # noqa: S101 -- there is an address
        check(server)
    return secret


def make_peer_addresses(settings: Settings) -> AddressSource | None:
    """Return what finds the peers of the mesh, or ``None`` without a mesh.

    Raises:
        ServiceError: The namespace of ``peer_service`` is unknown.
    """
    if settings.peers is not None:
        return ListedPeers(settings.peers)
    if settings.peer_service is None:
        return None
    # The Kubernetes client takes a second to import.
    from lora_router.discovery.endpoint_slices import EndpointSlices, service_query
    from lora_router.discovery.kubernetes_api import Credentials

    query = service_query(settings.peer_service)
    slices = EndpointSlices(
        query,
        Credentials(settings.kubernetes_kubeconfig, settings.kubernetes_context),
        port=settings.grpc_port,
        watch_seconds=settings.kubernetes_watch_seconds,
    )
    return FoundPeers(slices.follow, f"{query.service}.{query.namespace}.svc")


def _peer_tls(settings: Settings) -> "ClientTls | None":
    from lora_router.peering.clients import ClientTls

    client_ca = settings.grpc_tls_client_ca_file
    ca = settings.peer_tls_ca_file or client_ca
    if settings.grpc_tls_cert_file is None and ca is None:
        return None
    certificate, key = settings.peer_tls_cert_file, settings.peer_tls_key_file
    if certificate is None and client_ca is not None:
        certificate, key = settings.grpc_tls_cert_file, settings.grpc_tls_key_file
    return ClientTls(ca, certificate, key, settings.peer_tls_server_name)


def make_leadership(
    settings: Settings,
    peering: "Peering | None",
    telemetry: Telemetry,
    supervisor: Supervisor,
) -> "Leadership | None":
    """Return what decides whether this router leads, or ``None`` if all routers do.

    Raises:
        LeaseNameError: The namespace of the Lease is unknown.
    """
    if settings.replication != "lease" or peering is None:
        return None
    # The Kubernetes client takes a second to import.
    from lora_router.replication.leadership import Leadership
    from lora_router.replication.metrics import LeaseMetrics

    hub = peering.hub
    leadership = Leadership(
        hub.name,
        _lease_options(settings, settings.routers_name, settings.lease_duration_seconds),
        supervisor,
        knows=lambda router: router in hub.peers,
    )
    telemetry.registry.register(LeaseMetrics(leadership))
    return leadership


def make_loader_lease(
    settings: Settings, identity: str, telemetry: Telemetry, supervisor: Supervisor
) -> "LoaderLease | None":
    """Return what decides by a Lease whether this router loads adapters.

    Args:
        settings: The settings.
        identity: What this run of the router writes into the Lease.
        telemetry: Shows failures.
        supervisor: Runs its tasks.

    Returns:
        ``None`` if something else decides: there are no other routers, one router leads, or pods do
        not come from Kubernetes.

    Raises:
        LeaseNameError: The namespace of the Lease is unknown.
    """
    if (
        not settings.loads_adapters
        or not settings.has_peers
        or settings.replication == "lease"
        or settings.endpoints is not None
    ):
        return None
    from lora_router.replication.loader_lease import (
        SHORTEST_SECONDS,
        LoaderLease,
        loader_lease_name,
    )
    from lora_router.replication.metrics import LeaseErrors

    seconds = max(settings.lease_duration_seconds, SHORTEST_SECONDS)
    options = _lease_options(settings, loader_lease_name(settings.routers_name), seconds)
    lease = LoaderLease(identity, options, supervisor)
    telemetry.registry.register(LeaseErrors(lease.leadership.candidate))
    return lease


def _lease_options(settings: Settings, name: str, seconds: int) -> "LeaseOptions":
    # The Kubernetes client takes a second to import.
    from lora_router.discovery.kubernetes_api import Credentials
    from lora_router.replication.kubernetes_lease import lease_name
    from lora_router.replication.leadership import LeaseOptions

    namespace = (settings.peer_service or "").rpartition("/")[0]
    return LeaseOptions(
        lease_name(name, settings.lease_namespace or namespace or None),
        seconds,
        Credentials(settings.kubernetes_kubeconfig, settings.kubernetes_context),
        watch_seconds=settings.kubernetes_watch_seconds,
    )


def share_scrapes(
    settings: Settings,
    fleet: Fleet,
    scraper: Scraper,
    telemetry: Telemetry,
    hub: "ReadingHub | None",
) -> Sharing | None:
    """Let this router and its peers read each pod once for all of them.

    Args:
        settings: The settings.
        fleet: The pods.
        scraper: Reads the pods.
        telemetry: Shows what is shared.
        hub: The peers, if there are some.

    Returns:
        ``None`` if this router reads all pods itself.
    """
    if hub is None or not settings.scrape_sharing:
        return None
    from lora_router.peering.metrics import ReadingMetrics
    from lora_router.peering.reading_exchange import ReadingExchange

    digests = CatalogDigests()
    exchange = ReadingExchange(hub, fleet, digests)
    sharing = Sharing(
        hub.name,
        scraper.intake,
        interval=settings.pod_metric_refresh_interval_ms / 1000,
        models_interval=settings.models_refresh_interval_seconds,
        clock=LoopClock.now,
        tell=exchange.tell,
        tell_presence=exchange.tell_presence,
    )
    exchange.receiver, exchange.interval = sharing, scraper.pace
    scraper.share(sharing, digests)
    telemetry.registry.register(ReadingMetrics(exchange))
    return sharing
