"""Puts the parts of the router together, and starts, drains and stops them."""

import asyncio
import logging

from lora_router import __version__
from lora_router.admin.server import AdminServer, Readiness
from lora_router.app_metrics import (
    add_app_metrics,
    add_certificate_metrics,
    add_endpoint_metrics,
    add_gateway_metrics,
    add_watchdog_metrics,
)
from lora_router.assembly import (
    LoopClock,
    connect_lists,
    make_director,
    make_discovery,
    make_fleet,
    make_health_check,
    make_peering,
    make_scraper,
    make_transport,
    tls_files,
)
from lora_router.config.settings import Settings
from lora_router.endpoint_discovery.service import EndpointDiscovery
from lora_router.extproc.certificate_watch import CertificateWatch
from lora_router.extproc.gateway_faults import GatewayFaults
from lora_router.peering.metrics import PeerMetrics
from lora_router.readiness import RouterReadiness
from lora_router.supervision import Supervisor, stop_part, unless
from lora_router.telemetry.metrics import Telemetry
from lora_router.watchdog import Watchdog

log = logging.getLogger("lora_router")

_DECIDED_BEFORE_SECONDS = 2.0
"""How long before the end of a drain the requests that are still held are decided."""
_DRAIN_EXTRA_SECONDS = 3.0
"""How much longer than its timeout a drain may take before it is abandoned."""
_STOP_PART_SECONDS = 2.5
"""Timeout for stopping one part. Longer than ``STOP_SECONDS``, which the tasks in it have.

Both leave less than the 10 s that the chart's grace period has after the drain, in the worst case.
"""


class App:
    """One router. Must be created inside a running event loop."""

    def __init__(self, settings: Settings) -> None:
        """Create the parts. Nothing listens or is read yet.

        Raises:
            BrokenAlgorithmError: An installed algorithm cannot be loaded.
            SecretError: The secret of peers cannot be used.
        """
        self._settings = settings
        self.fleet = make_fleet(settings)
        self.telemetry = Telemetry(self.fleet)
        self.supervisor = Supervisor(self.telemetry.task_failed)
        self.fleet.changes.on_failure = self._listener_failed
        self.director = make_director(settings, self.fleet, self.telemetry)
        self.endpoint_discovery = EndpointDiscovery(self.fleet, LoopClock())
        self.gateway = GatewayFaults()
        self.peering = make_peering(settings, self.fleet, self.director, self.supervisor)
        self.transport = make_transport(
            settings,
            self.director,
            self.telemetry,
            self.supervisor,
            self.endpoint_discovery,
            self.gateway,
            self.peering,
        )
        self.discovery = make_discovery(settings, self.fleet, self.telemetry, self.supervisor)
        self.scraper = make_scraper(settings, self.fleet, self.telemetry, self.supervisor)
        connect_lists(self.fleet, self.director, self.scraper)
        self.health_check = make_health_check(settings, self.fleet, self.supervisor)
        self._readiness = RouterReadiness(
            self.fleet, self.supervisor, metrics_max_age=settings.metrics_max_age_seconds
        )
        self._readiness.add_details(self.discovery.status)
        self._readiness.add_details(self.gateway.status)
        self.certificates = self._watch_certificates()
        self.watchdog = Watchdog(settings.loop_stall_seconds)
        self.admin = AdminServer(
            self.telemetry,
            self.readiness,
            lambda: self.watchdog.silence,
            host=settings.admin_host,
            port=settings.admin_port,
        )
        self._hurry = asyncio.Event()
        add_app_metrics(self.telemetry, self.transport, self.director, self.supervisor)
        add_gateway_metrics(self.telemetry, self.gateway)
        add_watchdog_metrics(self.telemetry, self.watchdog)
        add_endpoint_metrics(self.telemetry, self.endpoint_discovery)
        if self.peering is not None:
            self._readiness.add_details(self.peering.status)
            self.telemetry.registry.register(PeerMetrics(self.peering.hub))

    def readiness(self) -> Readiness:
        """Return whether this router should receive new requests, and the reason if not."""
        return self._readiness.read()

    async def start(self) -> None:
        """Listen, read the pods, scrape each once, and report readiness.

        Raises:
            PodsFileError, CredentialsError: The list of pods is invalid or cannot be reached.
            AdminError: The admin address is in use or not available.
            TransportError: The gRPC address is in use or not available, or the TLS files are
                invalid.
        """
        self.watchdog.start()
        await self.admin.start()
        await self.discovery.start()
        await self.scraper.start()
        await self.health_check.start()
        await self.transport.start()
        if self.certificates is not None:
            self.certificates.start()
        if self.peering is not None:
            self.peering.start()
        log.info(
            "lora-router %s listens: gRPC on %s:%d, admin on %s:%d, %d pods, algorithm %s",
            __version__,
            self._settings.grpc_host,
            self.transport.port,
            self._settings.admin_host,
            self.admin.port,
            len(self.fleet),
            self._settings.algorithm,
        )
        await self.discovery.synced()
        await self._warm_up()

    def refresh(self) -> None:
        """Read the files again that the router follows: the list of pods, the TLS files."""
        self.discovery.refresh()
        if self.certificates is not None:
            self.certificates.refresh()

    def hurry(self) -> None:
        """End a drain at once. Envoy finishes the answers that it is sending."""
        self._hurry.set()

    async def stop(self) -> None:
        """Drain, then stop every part. May be called after a start that failed or was cancelled.

        Each part is stopped within a timeout, whether or not the others stop.
        """
        self._readiness.draining = True
        if self.transport.started:
            await self._drain()
        if self.peering is not None:
            await stop_part("peering", self.peering.stop(), _STOP_PART_SECONDS)
        await asyncio.gather(
            stop_part("scraper", self.scraper.stop(), _STOP_PART_SECONDS),
            stop_part("discovery", self.discovery.stop(), _STOP_PART_SECONDS),
            stop_part("health check", self.health_check.stop(), _STOP_PART_SECONDS),
            stop_part("background tasks", self.supervisor.stop(), _STOP_PART_SECONDS),
        )
        await stop_part("admin server", self.admin.stop(), _STOP_PART_SECONDS)
        self.watchdog.stop()

    async def _warm_up(self) -> None:
        try:
            async with asyncio.timeout(self._settings.startup_timeout_seconds):
                await self.scraper.first_round()
        except TimeoutError:
            unread = sum(state.metrics is None for state in self.fleet.ready())
            log.warning("startup timeout: ready without a scrape of %d pods", unread)
        if self.peering is not None:
            await self.peering.joined()
        self._readiness.warm = True
        await self.transport.set_ready(ready=True)
        log.info("ready: %d of %d pods are ready", len(self.fleet.ready()), len(self.fleet))

    async def _drain(self) -> None:
        settings = self._settings
        await stop_part("readiness", self.transport.set_ready(ready=False))
        self.endpoint_discovery.close()
        if self.peering is not None:
            self.peering.drain()
        await unless(self._hurry, asyncio.sleep(settings.drain_delay_seconds))
        drain_seconds = settings.drain_timeout_seconds
        # The last decisions must reach Envoy before the streams are closed.
        decided_in = drain_seconds - min(_DECIDED_BEFORE_SECONDS, drain_seconds / 5)
        await stop_part("held requests", self._drain_held(decided_in))
        await stop_part(
            "transport",
            self._drain_transport(drain_seconds),
            drain_seconds + _DRAIN_EXTRA_SECONDS,
        )

    async def _drain_held(self, seconds: float) -> None:
        self.director.drain(seconds)

    async def _drain_transport(self, seconds: float) -> None:
        if not await unless(self._hurry, self._drain_streams(seconds)):
            self.director.drain(0)
            await self._drain_streams(0)

    async def _drain_streams(self, seconds: float) -> None:
        closed = await self.transport.drain(seconds)
        log.info("drained; %d streams were still open and were closed", closed)

    def _watch_certificates(self) -> CertificateWatch | None:
        files = tls_files(self._settings)
        if files is None:
            return None
        watch = CertificateWatch(files, self.transport, self.supervisor)
        self._readiness.add_details(watch.status)
        add_certificate_metrics(self.telemetry, watch)
        return watch

    def _listener_failed(self, listener: str, error: BaseException) -> None:
        self.supervisor.failed("fleet-listener", error, about=listener)
