"""What serves gateways: the path of requests, from the director to the port."""

import asyncio
import logging
from collections.abc import Collection, Mapping
from socket import gethostname
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from lora_router.adapter_assembly import make_declared, make_first_use
from lora_router.admin.server import Readiness
from lora_router.app_metrics import (
    add_app_metrics,
    add_certificate_metrics,
    add_endpoint_metrics,
    add_gateway_metrics,
    add_name_metrics,
    add_pod_access_metrics,
    add_trace_metrics,
    add_watchdog_metrics,
)
from lora_router.assembly import (
    follow_rewrites,
    make_director,
    make_fleet,
    make_pod_access,
    make_transport,
    tls_source,
)
from lora_router.config.settings import Settings
from lora_router.counted import counted
from lora_router.debug.answering import Debug, Process
from lora_router.debug.fact_rows import RouterFacts
from lora_router.endpoint_discovery.service import EndpointDiscovery
from lora_router.extproc.certificate_watch import CertificateWatch
from lora_router.extproc.gateway_faults import GatewayFaults
from lora_router.fleet.ambiguous_names import AmbiguousNames
from lora_router.loop_clock import LoopClock
from lora_router.observation_assembly import follow_decisions, make_decisions, make_traces
from lora_router.peer_assembly import WorkerPeers, make_peering
from lora_router.peering.metrics import PeerMetrics
from lora_router.readiness import RouterReadiness
from lora_router.scrape.health_check import HealthCheck
from lora_router.supervision import Supervisor, stop_part, unless
from lora_router.telemetry.lacking_slots import LackingSlots
from lora_router.telemetry.logs import set_format, set_level
from lora_router.telemetry.metrics import Telemetry
from lora_router.telemetry.traffic import Traffic
from lora_router.watchdog import Watchdog

if TYPE_CHECKING:
    from lora_router.discovery.model_rewrites import FollowedRewrites
    from lora_router.telemetry.trace_export import TraceExport

log = logging.getLogger("lora_router")

_DECIDED_BEFORE_SECONDS = 2.0
"""How long before the end of a drain the requests that are still held are decided."""
_DRAIN_EXTRA_SECONDS = 3.0
"""How much longer than its timeout a drain may take before it is abandoned."""


class Front:
    """Serves gateways from a fleet that somebody else keeps up to date.

    Must be created inside a running event loop.
    """

    def __init__(
        self,
        settings: Settings,
        worker: WorkerPeers | None = None,
        environ: Mapping[str, str] = MappingProxyType({}),
        *,
        pod_files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Create the parts. Nothing listens yet.

        Args:
            settings: The settings.
            worker: Where this process is, if it is a worker. Then it accepts no connections: it
                gets those that another process accepted.
            environ: Where OpenTelemetry's variables are. If they ask for traces, its SDK reads the
                process's environment too.
            pod_files: What the files with keys and certificates for pods contained when they could
                last be used, if that is known.

        Raises:
            BrokenAlgorithmError: An installed algorithm cannot be loaded.
            SecretError: The secret of peers cannot be used, and the parent of workers has none.
            PodAccessError: A file with a key or certificate for pods cannot be used, and nothing is
                known of it.
        """
        self._settings = settings
        self.fleet = make_fleet(settings)
        self.telemetry = Telemetry(self.fleet)
        self.supervisor = Supervisor(self.telemetry.task_failed)
        self.fleet.changes.on_failure = self._listener_failed
        self.director = make_director(settings, self.fleet, self.telemetry)
        self.declared = make_declared(settings, self.fleet, LoopClock())
        """The adapters that are declared, if any may be."""
        self.first_use = make_first_use(settings, self.declared, self.director, LoopClock())
        self.endpoint_discovery = EndpointDiscovery(self.fleet, LoopClock())
        self.gateway = GatewayFaults()
        self.peering = make_peering(settings, self.fleet, self.director, self.supervisor, worker)
        self.pod_access = make_pod_access(settings, pod_files)
        self.decisions = make_decisions(settings, self._follower_failed)
        """Every decision of this process, if they are recorded."""
        self.traffic: Traffic | None = None
        """What became of them, by base model, pod and adapter."""
        if self.decisions is not None:
            self.traffic = Traffic(self.decisions, settings.metrics_adapters, self.fleet)
            self.telemetry.follow(self.traffic)
            follow_decisions(settings, self.decisions, LoopClock())
        self.traces = self._make_traces(environ)
        """Sends a span for each request, if requests are traced."""
        self.transport = make_transport(
            settings,
            self.director,
            self.telemetry,
            self.supervisor,
            self.endpoint_discovery,
            self.gateway,
            self.pod_access,
            self.peering,
            self.decisions,
            listens=worker is None,
            traced=self.traces is not None,
        )
        self.health_check = HealthCheck(
            self.fleet,
            self.supervisor,
            probe=settings.outlier_probe,
            slot_probe=settings.slot_probe,
            access=self.pod_access,
        )
        self._readiness = RouterReadiness(
            self.fleet, self.supervisor, metrics_max_age=settings.metrics_max_age_seconds
        )
        ambiguous = AmbiguousNames(self.fleet, self.director.names.rewrites.aliases)
        self._readiness.add_details(self.gateway.status, ambiguous.status, self.pod_access.status)
        self._rewrites = self._follow_rewrites()
        self.certificates = self._watch_certificates()
        self.watchdog = Watchdog(settings.loop_stall_seconds)
        self._hurry = asyncio.Event()
        add_app_metrics(self.telemetry, self.transport, self.director, self.supervisor)
        add_pod_access_metrics(self.telemetry, self.pod_access)
        add_gateway_metrics(self.telemetry, self.gateway)
        add_name_metrics(self.telemetry, ambiguous)
        add_watchdog_metrics(self.telemetry, self.watchdog)
        add_endpoint_metrics(self.telemetry, self.endpoint_discovery)
        self.lacking_slots = LackingSlots(self.fleet, self.director)
        self.telemetry.registry.register(self.lacking_slots)
        if self.peering is not None:
            self._readiness.add_details(self.peering.status)
            self.telemetry.registry.register(
                PeerMetrics(self.peering.hub, self.peering.redis, self._is_worker)
            )
        process = Process(
            self._is_ready,
            lag=lambda: self.watchdog.lag,
            peers=lambda: self._peer_names,
            facts=self._facts,
        )
        self.debug = Debug(self.director, self.decisions, process, self.traffic)
        """Answers questions about this process."""

    def readiness(self) -> Readiness:
        """Return whether this router should receive new requests, and the reason if not."""
        return self._readiness.read()

    def use_log(self, level: str, style: Literal["text", "json"]) -> None:
        """Use other settings of the log."""
        set_level(level)
        set_format(style)

    def hurry(self) -> None:
        """End a drain at once. Envoy finishes the answers that it is sending."""
        self._hurry.set()
        # Decisions first, so that they reach Envoy before the streams are closed.
        self.director.drain(0)
        self.transport.hurry()

    async def _serve(self) -> None:
        """Listen. Readiness is not reported yet.

        Raises:
            TransportError: The gRPC address is in use or not available, or the TLS files are
                invalid.
        """
        self.pod_access.start(self.supervisor)
        self.supervisor.keep("lacking-slots", self.lacking_slots.keep_counting)
        await self.health_check.start()
        await self.transport.start()
        if self.certificates is not None:
            self.certificates.start()
        if self._rewrites is not None:
            self._rewrites.start()
        if self.peering is not None:
            self.peering.start()
        if self.first_use is not None:
            self.first_use.start()

    async def _drain(self) -> None:
        settings = self._settings
        await stop_part("readiness", self.transport.set_ready(ready=False))
        self.endpoint_discovery.close()
        if self.peering is not None:
            self.peering.drain()
        await unless(self._hurry, asyncio.sleep(settings.drain_delay_seconds))
        drain_seconds = 0.0 if self._hurry.is_set() else settings.drain_timeout_seconds
        # The last decisions must reach Envoy before the streams are closed.
        decided_in = drain_seconds - min(_DECIDED_BEFORE_SECONDS, drain_seconds / 5)
        await stop_part("held requests", self._drain_held(decided_in))
        await stop_part(
            "transport",
            self._drain_transport(drain_seconds),
            settings.drain_timeout_seconds + _DRAIN_EXTRA_SECONDS,
        )

    async def _drain_held(self, seconds: float) -> None:
        self.director.drain(seconds)

    async def _drain_transport(self, seconds: float) -> None:
        closed = await self.transport.drain(seconds)
        log.info("drained; %s closed", counted(closed, "open stream"))

    def _facts(self) -> RouterFacts:
        settings = self._settings
        return RouterFacts(
            has_peers=settings.has_peers,
            decisions=settings.decisions,
            max_hold_seconds=settings.max_hold_seconds,
            metrics_max_age_seconds=settings.metrics_max_age_seconds,
            max_body_bytes=settings.max_body_bytes,
        )

    def _is_worker(self, _peer: str) -> bool:
        """Return whether a peer is a worker of the same router."""
        return False

    def _is_ready(self) -> tuple[bool, str]:
        readiness = self.readiness()
        return readiness.ready, readiness.reason

    @property
    def name(self) -> str:
        """The name of this router among its peers, or that of its host."""
        return gethostname() if self.peering is None else self.peering.hub.name

    @property
    def _peer_names(self) -> Collection[str]:
        return () if self.peering is None else self.peering.hub.peers

    def _make_traces(self, environ: Mapping[str, str]) -> "TraceExport | None":
        traces = make_traces(environ, self.decisions)
        if traces is not None:
            add_trace_metrics(self.telemetry, lambda: traces.dropped)
            if self.traffic is not None:
                self.traffic.traces = True
        return traces

    async def _stop_traces(self) -> None:
        """Send the spans that wait."""
        if self.traces is not None:
            await self.traces.stop()

    def _follow_rewrites(self) -> "FollowedRewrites | None":
        rewrites = follow_rewrites(self._settings, self.director.names, self.supervisor)
        if rewrites is not None:
            self._readiness.add_condition(rewrites.unread)
            self._readiness.add_details(rewrites.status)
        return rewrites

    def _watch_certificates(self) -> CertificateWatch | None:
        files = tls_source(self._settings)
        if files is None:
            return None
        watch = CertificateWatch(files, self.transport, self.supervisor)
        self._readiness.add_details(watch.status)
        add_certificate_metrics(self.telemetry, watch)
        return watch

    def _listener_failed(self, listener: str, error: BaseException) -> None:
        self.supervisor.failed("fleet-listener", error, about=listener)

    def _follower_failed(self, follower: str, error: BaseException) -> None:
        self.supervisor.failed("decision-follower", error, about=follower)
