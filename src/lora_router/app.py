"""A router in one process: puts its parts together, and starts, drains and stops them."""

import asyncio
import logging
from collections.abc import Mapping
from types import MappingProxyType

from lora_router import __version__
from lora_router.adapter_assembly import make_adapters_file, share_failed_loads
from lora_router.adapters.demand import Demand
from lora_router.admin.debug_pages import DebugPages
from lora_router.admin.server import AdminServer
from lora_router.app_metrics import add_readiness_metrics
from lora_router.asking import Asking
from lora_router.assembly import connect_lists, make_discovery, make_scraper
from lora_router.config.settings import Settings
from lora_router.counted import counted
from lora_router.debug.gathering import Gathering
from lora_router.front import Front
from lora_router.listening import shown_address
from lora_router.loader_assembly import LoaderPart, loader_choice, make_loader
from lora_router.peer_assembly import make_leadership, make_loader_lease, share_scrapes
from lora_router.supervision import stop_part

log = logging.getLogger("lora_router")

_STOP_PART_SECONDS = 2.5
"""Timeout for stopping one part. Longer than ``STOP_SECONDS``, which the tasks in it have.

Both leave less than the 10 s that the chart's grace period has after the drain, in the worst case.
"""


class App(Front):
    """One router. Must be created inside a running event loop."""

    def __init__(
        self, settings: Settings, environ: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Create the parts. Nothing listens or is read yet.

        Args:
            settings: The settings.
            environ: Where OpenTelemetry's variables are.

        Raises:
            BrokenAlgorithmError: An installed algorithm cannot be loaded.
            SecretError: The secret of peers cannot be used.
            PodAccessError: A file with a key or certificate for pods cannot be used.
            TokenError: ``admin_token_file`` cannot be used.
            LeaseNameError: The namespace of the Lease is unknown.
        """
        super().__init__(settings, environ=environ)
        share_failed_loads(self.first_use, None if self.peering is None else self.peering.hub)
        self.discovery = make_discovery(
            settings, self.fleet, self.telemetry, self.supervisor, self.director.priorities
        )
        self.scraper = make_scraper(
            settings, self.fleet, self.telemetry, self.supervisor, self.pod_access
        )
        connect_lists(self.fleet, self.director, self.scraper)
        self.sharing = share_scrapes(
            settings,
            self.fleet,
            self.scraper,
            self.telemetry,
            None if self.peering is None else self.peering.hub,
        )
        self._readiness.add_details(self.discovery.status)
        self.adapters_file = make_adapters_file(settings, self.declared, self.supervisor)
        if self.adapters_file is not None:
            self._readiness.add_details(self.adapters_file.status)
        self.leadership = make_leadership(settings, self.peering, self.telemetry, self.supervisor)
        if self.leadership is not None:
            self._readiness.follow(self.leadership)
        self.loader_lease = make_loader_lease(settings, self.name, self.telemetry, self.supervisor)
        if self.loader_lease is not None:
            self._readiness.add_details(self.loader_lease.status)
        self.loader = self._make_loader()
        questions = None if self.peering is None else self.peering.questions
        self.asking = Asking(
            self.name,
            self.debug.answer,
            questions,
            self.supervisor,
            obeys_peers=settings.peer_secret_file is not None,
            loads=lambda: self.loader is not None and self.loader.loader.loads,
        )
        pages = DebugPages(Gathering(self.asking.ask))
        self.admin = AdminServer(
            self.telemetry.served,
            self.readiness,
            lambda: self.watchdog.silence,
            host=settings.admin_host,
            port=settings.admin_port,
            token_file=settings.admin_token_file,
            show=pages.show,
            order=pages.order,
        )
        add_readiness_metrics(self.telemetry, self.readiness, may_lead=self.leadership is not None)

    def _make_loader(self) -> LoaderPart | None:
        hub = None if self.peering is None else self.peering.hub
        part = make_loader(
            self._settings,
            self.fleet,
            self.declared,
            self.scraper,
            self.telemetry,
            self.supervisor,
            self.pod_access,
            loader_choice(self.leadership, self.loader_lease, hub),
            self._demand,
            hub=hub,
            first_use=self.first_use,
        )
        if part is not None:
            self.debug.loading = part.answers
            if hub is not None and self.leadership is None and self.loader_lease is None:
                part.tell_peers(hub, hub.use_may_load)
            self._readiness.add_details(part.status)
            self._readiness.add_condition(part.unread)
        return part

    def _demand(self) -> Demand:
        return Demand(waiting=frozenset() if self.first_use is None else self.first_use.waiting())

    async def start(self) -> None:
        """Listen, read the pods, scrape each once, and report readiness.

        Raises:
            PodsFileError, CredentialsError: The list of pods is invalid or cannot be reached.
            WatchedFileError: The file of adapters is invalid.
            AdminError: The admin address is in use or not available.
            TransportError: The gRPC address is in use or not available, or the TLS files are
                invalid.
        """
        self.watchdog.start()
        self.pod_access.warn()
        await self.admin.start()
        if self.adapters_file is not None:
            await self.adapters_file.start()
        if self.loader is not None:
            self.loader.follow(self.supervisor)
        await self.discovery.start()
        await self.scraper.start()
        await self._serve()
        if self.leadership is not None:
            self.leadership.start(self._set_leads)
        if self.loader_lease is not None:
            self.loader_lease.start()
        log.info(
            "lora-router %s listens: gRPC on %s, admin on %s, %s, algorithm %s",
            __version__,
            shown_address(self._settings.grpc_host, self.transport.port),
            shown_address(self._settings.admin_host, self.admin.port),
            counted(len(self.fleet), "pod"),
            self._settings.algorithm,
        )
        await self.discovery.synced()
        await self._warm_up()

    def refresh(self) -> None:
        """Read the files again that the router follows: pods, adapters, TLS files, keys."""
        self.discovery.refresh()
        if self.adapters_file is not None:
            self.adapters_file.refresh()
        self.pod_access.refresh()
        if self.certificates is not None:
            self.certificates.refresh()

    async def stop(self) -> None:
        """Drain, then stop every part. May be called after a start that failed or was cancelled.

        Each part is stopped within a timeout, whether or not the others stop.
        """
        self._readiness.draining = True
        if self.loader is not None:
            await stop_part("loader", self.loader.stop(), _STOP_PART_SECONDS)
        if self.loader_lease is not None:
            await stop_part("loader lease", self.loader_lease.resign(), _STOP_PART_SECONDS)
        if self.leadership is not None:
            # Not ready first. Then another router may lead, while this one drains.
            await self._set_leads(False)
            await stop_part("lease", self.leadership.resign(), _STOP_PART_SECONDS)
        if self.transport.started:
            await self._drain()
        if self.peering is not None:
            await stop_part("peering", self.peering.stop(), _STOP_PART_SECONDS)
        await asyncio.gather(
            stop_part("scraper", self.scraper.stop(), _STOP_PART_SECONDS),
            stop_part("discovery", self.discovery.stop(), _STOP_PART_SECONDS),
            stop_part("health check", self.health_check.stop(), _STOP_PART_SECONDS),
            stop_part("background tasks", self.supervisor.stop(), _STOP_PART_SECONDS),
            stop_part("traces", self._stop_traces(), _STOP_PART_SECONDS),
        )
        await stop_part("admin server", self.admin.stop(), _STOP_PART_SECONDS)
        self.watchdog.stop()

    async def _warm_up(self) -> None:
        await self.scraper.first_round(self._settings.startup_timeout_seconds)
        if self.peering is not None:
            await self.peering.joined()
        self._readiness.warm = True
        if self.leadership is None:
            await self.transport.set_ready(ready=True)
        else:
            self.leadership.campaign()
        if self.loader_lease is not None:
            self.loader_lease.campaign()
        if self.loader is not None:
            self.loader.start()
        able = "ready" if self.leadership is None else "able to lead"
        log.info("%s: %d of %d pods are ready", able, len(self.fleet.ready()), len(self.fleet))

    async def _set_leads(self, leads: bool) -> None:
        if self.transport.started:
            await self.transport.set_ready(ready=leads and not self._readiness.draining)
