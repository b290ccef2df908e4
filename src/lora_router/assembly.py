"""Makes the parts of the router from its settings. ``app`` puts them together."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Protocol

from lora_router.config.settings import Settings
from lora_router.discovery.pods_file import PodsFile
from lora_router.endpoint_discovery.service import PATH as ENDPOINTS_PATH
from lora_router.endpoint_discovery.service import EndpointDiscovery
from lora_router.endpoint_discovery.stream_call import StreamEndpoints
from lora_router.extproc.context import SessionContext
from lora_router.extproc.every_pod import EveryPod
from lora_router.extproc.gateway_faults import GatewayFaults
from lora_router.extproc.header_names import CONFORMANCE_HEADER, HeaderNames
from lora_router.extproc.models_answer import ModelsAnswers
from lora_router.extproc.path_table import rules_of_settings
from lora_router.extproc.paths import Paths
from lora_router.extproc.self_signed import SelfSigned
from lora_router.extproc.sticky_ids import StickyIds
from lora_router.extproc.tls import TlsFiles, TlsSource
from lora_router.extproc.transport import Transport
from lora_router.extproc.usage_reading import usage_reading
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.health import HealthRules
from lora_router.fleet.outliers import Outliers
from lora_router.fleet.pod_state import PodState
from lora_router.grpc_server.limits import Limits as ConnectionLimits
from lora_router.grpc_server.limits import ProcessLimits
from lora_router.loop_clock import LoopClock
from lora_router.peering.exchange_call import Exchange
from lora_router.peering.service import PATH as PEERS_PATH
from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.director import Director
from lora_router.routing.model_names import ModelNames, NamePolicy
from lora_router.routing.model_rewrites import Rewrite, Target
from lora_router.routing.overload import Overload
from lora_router.routing.priorities import Priorities
from lora_router.routing.registry import load_algorithms
from lora_router.routing.roll import Limits
from lora_router.routing.terms.weights import ADAPTER_LOAD_SECONDS
from lora_router.scrape.pod_access import AccessOptions, PodAccess
from lora_router.scrape.pod_calls import PodCalls
from lora_router.scrape.scraper import Scraper
from lora_router.supervision import Supervisor
from lora_router.telemetry.decisions import DecisionLog
from lora_router.telemetry.metrics import Telemetry

if TYPE_CHECKING:
    from lora_router.discovery.model_rewrites import FollowedRewrites
    from lora_router.peering.peering import Peering


STREAMS_PER_CONNECTION = 100
"""Streams after which a gateway is told to open another connection, where several processes share
the connections: the lowest number that RFC 9113 recommends. With the limits of 1,024 connections of
this server and of Envoy's circuit breakers, it allows 100,000 requests in flight."""


class Discovery(Protocol):
    """Finds the pods and applies them to the fleet."""

    async def start(self) -> None:
        """Start to follow the pods."""

    async def synced(self) -> None:
        """Wait until the fleet has received its first full list."""

    async def stop(self) -> None:
        """Stop following. The fleet keeps its pods."""

    def refresh(self) -> None:
        """Read the list again now, if nothing reports its changes."""

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""


def make_fleet(settings: Settings) -> Fleet:
    """Return a fleet without pods."""
    outliers = None
    if settings.outlier_ejection:
        outliers = Outliers(
            HealthRules(
                consecutive_failures=settings.outlier_consecutive_failures,
                failure_share=settings.outlier_failure_share,
                max_ejected_share=settings.outlier_max_ejected_share,
                min_ejection_seconds=settings.outlier_min_ejection_seconds,
                max_ejection_seconds=settings.outlier_max_ejection_seconds,
                first_byte_seconds=settings.outlier_first_byte_seconds,
                first_byte_factor=settings.outlier_first_byte_factor,
            ),
            LoopClock.now,
        )
    return Fleet(metrics_max_age=settings.metrics_max_age_seconds, outliers=outliers)


def make_pod_access(settings: Settings, kept: Mapping[str, bytes] | None = None) -> PodAccess:
    """Return the keys for pods, and whose certificates are accepted.

    Args:
        settings: The settings.
        kept: What the files contained when they could last be used, for when they cannot be used
            now.

    Raises:
        PodAccessError: A file cannot be read or used, and nothing was kept.
    """
    return PodAccess(
        AccessOptions(
            api_key=settings.pod_api_key,
            api_key_file=settings.pod_api_key_file,
            metrics_token_file=settings.pod_metrics_token_file,
            ca_file=settings.pod_tls_ca_file,
            server_name=settings.pod_tls_server_name,
            skip_verify=settings.pod_tls_skip_verify,
            certificate_file=settings.pod_tls_cert_file,
            key_file=settings.pod_tls_key_file,
        ),
        kept=kept,
    )


def make_director(settings: Settings, fleet: Fleet, telemetry: Telemetry) -> Director:
    """Return the director, with all installed algorithms.

    Raises:
        BrokenAlgorithmError: An installed algorithm cannot be loaded.
    """
    telemetry.counts.expect(settings.algorithm)
    director = Director(
        fleet,
        load_algorithms(
            AlgorithmOptions(
                takes_notes=settings.decisions > 0,
                lora_affinity_threshold=settings.lora_affinity_threshold,
                metrics_max_age=settings.metrics_max_age_seconds,
                extra=settings.algorithm_options,
            )
        ),
        settings.algorithm,
        LoopClock(),
        telemetry.counts,
        default_model=settings.default_model,
        max_hold_seconds=settings.max_hold_seconds,
        limits=Limits(settings.max_held_requests, settings.max_held_requests_per_model),
        overload=Overload(
            settings.closed_slots_share,
            sheds=settings.overload == "shed",
            max_expected_wait_seconds=settings.max_expected_wait_seconds,
            max_requests_per_pod=settings.max_requests_per_pod,
            max_seconds_per_token=settings.max_seconds_per_token,
        ),
        fallbacks=settings.fallbacks,
        names=_name_policy(settings),
    )
    director.sticky.made.limit(settings.max_ids_bytes)
    load_seconds = settings.algorithm_options.get(ADAPTER_LOAD_SECONDS.name)
    if load_seconds is not None:  # The algorithm that reads it has checked it.
        fleet.ledger.load_times.assume(float(load_seconds))
    return director


def _name_policy(settings: Settings) -> NamePolicy:
    rewrites = tuple(
        Rewrite(name, tuple(Target(model, weight) for model, weight in targets.items()))
        for name, targets in settings.model_rewrites.items()
    )
    return NamePolicy(
        rewrites,
        unknown=settings.unknown_model,
        unknown_base=settings.unknown_model_base,
        falls_back=settings.adapter_fallback == "base",
        by_header=settings.model_rewrite_header is not None,
    )


def make_transport(  # noqa: PLR0913, PLR0917 -- the parts that it connects
    settings: Settings,
    director: Director,
    telemetry: Telemetry,
    supervisor: Supervisor,
    endpoint_discovery: EndpointDiscovery,
    gateway: GatewayFaults,
    pod_access: PodAccess,
    peering: "Peering | None" = None,
    decisions: DecisionLog | None = None,
    *,
    listens: bool = True,
    traced: bool = False,
) -> Transport:
    """Return the selected transport, which does not listen yet.

    If it never ``listens``, it is one of several processes behind one port. Gateways are then told
    to open another connection sooner, which another process gets.
    """
    usage = usage_reading(settings.tokens, decisions is not None, settings.envoy_body_mode)
    if usage is not None:
        telemetry.registry.register(usage.counts)
    context = SessionContext(
        director=director,
        observer=telemetry.counts,
        paths=_paths(settings),
        headers=HeaderNames(
            gateway_max=settings.gateway_max_headers,
            target_pod=settings.target_pod_header,
            destination=settings.destination_header,
            strategy=settings.strategy_header,
            pod_filter=settings.filter_header,
            model=settings.model_header,
            objective=settings.objective_header,
            pool=settings.pool_header or "",
            rewrite_key=settings.rewrite_sticky_header or "",
            passes_authorization=settings.admin_paths == "allow",
            reads_traceparent=traced,
            selection=CONFORMANCE_HEADER if settings.conformance_header else "",
            new_model=settings.model_rewrite_header or "",
            tenant=settings.tenant_header or "",
            priority=settings.priority_header or "",
            reads_answers=settings.tokens != "off",
        ),
        max_body_bytes=settings.max_body_bytes,
        models=ModelsAnswers(director, LoopClock()),
        ids=StickyIds(
            director.fleet,
            director.sticky.made,
            LoopClock(),
            pass_unknown=settings.unknown_ids == "pass",
        ),
        every_pod=(
            EveryPod(director, PodCalls(supervisor, pod_access))
            if settings.admin_paths == "allow"
            else None
        ),
        answers_as_asked=settings.answer_model == "asked",
        refuse_unknown_paths=settings.unknown_paths == "refuse",
        special_numbers=settings.json_nan == "allow",
        decisions=decisions,
        tells_decisions=settings.response_headers == "on",
        usage=usage,
        answers=telemetry.answers,
        gateway=gateway,
    )
    if decisions is not None:
        director.observe()
        decisions.recall = director.recollection.recall
    make: Callable[..., Transport]
    # Import only the selected transport: grpcio takes a large part of the startup time.
    if settings.transport == "builtin":
        from lora_router.extproc.builtin_transport import BuiltinTransport

        methods = {ENDPOINTS_PATH: StreamEndpoints(endpoint_discovery).open_call}
        if peering is not None and peering.service is not None:
            methods[PEERS_PATH] = Exchange(peering.service).open_call
        limits = (
            ConnectionLimits()
            if listens
            else ConnectionLimits(announced_streams=STREAMS_PER_CONNECTION)
        )
        make = partial(
            BuiltinTransport,
            methods=methods,
            limits=limits,
            host=settings.grpc_host if listens else None,
        )
    else:
        from lora_router.endpoint_discovery.grpcio_handler import endpoints_handler
        from lora_router.extproc.grpcio_transport import GrpcioTransport

        handlers = [endpoints_handler(endpoint_discovery)]
        if peering is not None and peering.service is not None:
            from lora_router.peering.grpcio_handler import peers_handler

            handlers.append(peers_handler(peering.service))
        make = partial(
            GrpcioTransport, supervisor=supervisor, handlers=handlers, host=settings.grpc_host
        )
    return make(
        context,
        port=settings.grpc_port,
        max_message_bytes=settings.grpc_max_message_size_bytes,
        tls=tls_source(settings),
        process_limits=ProcessLimits(
            buffered_bytes=settings.max_buffered_bytes,
            connections=settings.grpc_max_connections,
            streams=settings.grpc_max_streams,
        ),
    )


def _paths(settings: Settings) -> Paths:
    named = {**dict.fromkeys(settings.inference_paths, "routed"), **settings.paths}
    return Paths(
        rules_of_settings(named.items()),
        settings.path_prefixes,
        admin_allowed=settings.admin_paths == "allow",
    )


def tls_source(settings: Settings) -> TlsSource | None:
    """Return where the certificate of the gRPC server comes from, or ``None`` without TLS."""
    if settings.grpc_tls_self_signed:
        return SelfSigned()
    if settings.grpc_tls_cert_file is None or settings.grpc_tls_key_file is None:
        return None
    return TlsFiles(
        settings.grpc_tls_cert_file,
        settings.grpc_tls_key_file,
        settings.grpc_tls_client_ca_file,
    )


def make_discovery(
    settings: Settings,
    fleet: Fleet,
    telemetry: Telemetry,
    supervisor: Supervisor,
    priorities: Priorities,
) -> Discovery:
    """Return what finds the pods: the pods file, else Kubernetes.

    Args:
        settings: The settings.
        fleet: Receives the pods.
        telemetry: Counts events.
        supervisor: Runs the tasks.
        priorities: Receives the priorities of objectives.

    Raises:
        PoolNameError: The namespace of the InferencePool is unknown.
    """
    if settings.endpoints is not None:
        return PodsFile(settings.endpoints, fleet, pages=settings.page_rules, supervisor=supervisor)
    # The Kubernetes client takes a second to import, and only this discovery needs it.
    from lora_router.kubernetes_assembly import make_kubernetes_discovery

    return make_kubernetes_discovery(settings, fleet, telemetry, supervisor, priorities)


def follow_rewrites(
    settings: Settings, names: ModelNames, supervisor: Supervisor
) -> "FollowedRewrites | None":
    """Return what follows rewrites of model names on Kubernetes, or ``None`` if nothing does.

    Raises:
        PoolNameError: The namespace of the InferencePool is unknown.
    """
    if not settings.inference_model_rewrites:
        return None
    # The Kubernetes client takes a second to import.
    from lora_router.kubernetes_assembly import make_followed_rewrites

    return make_followed_rewrites(settings, names, supervisor)


def make_scraper(
    settings: Settings,
    fleet: Fleet,
    telemetry: Telemetry,
    supervisor: Supervisor,
    access: PodAccess,
) -> Scraper:
    """Return the scraper of the pods, which does not run yet."""
    return Scraper(
        fleet,
        telemetry,
        interval=settings.pod_metric_refresh_interval_ms / 1000,
        models_interval=settings.models_refresh_interval_seconds,
        timeout=settings.scrape_timeout_seconds,
        concurrency=settings.scrape_concurrency,
        access=access,
        supervisor=supervisor,
    )


def connect_lists(fleet: Fleet, director: Director, scraper: Scraper) -> None:
    """Let doubts about what pods serve lead to reads of their lists of models."""

    def read_soon(states: Collection[PodState]) -> None:
        for state in states:
            scraper.read_models_soon(state)

    fleet.changes.doubted.subscribe(read_soon)
    director.second_look.look = scraper.look_again
    scraper.followers.subscribe_looked(director.second_look.ended)
