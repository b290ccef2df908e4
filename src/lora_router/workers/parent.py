"""The parent of workers: finds and reads the pods, serves the admin port, accepts connections."""

import asyncio
import logging
import secrets
from typing import Literal

from lora_router import __version__
from lora_router.adapter_assembly import make_adapters_file, make_declared, make_versions
from lora_router.admin.debug_pages import DebugPages
from lora_router.admin.server import AdminServer, Readiness
from lora_router.app_metrics import (
    add_pod_access_metrics,
    add_process_metrics,
    add_readiness_metrics,
    add_watchdog_metrics,
    add_worker_metrics,
)
from lora_router.asking import Answered
from lora_router.assembly import (
    make_director,
    make_discovery,
    make_fleet,
    make_pod_access,
    make_scraper,
    tls_source,
)
from lora_router.config.settings import Settings
from lora_router.counted import counted
from lora_router.debug.gathering import Gathering
from lora_router.extproc.transport_error import listen_error
from lora_router.listening import listen, shown_address
from lora_router.loader_assembly import LoaderPart, loader_choice, make_loader
from lora_router.loop_clock import LoopClock
from lora_router.peer_assembly import (
    check_peers,
    make_loader_lease,
    make_peer_addresses,
    share_scrapes,
)
from lora_router.peering.secret_watch import SecretWatch
from lora_router.readiness import RouterReadiness
from lora_router.routing.priorities import Priorities
from lora_router.supervision import Supervisor, stop_part, unless
from lora_router.telemetry.exposition import Page, resting
from lora_router.telemetry.logs import set_format, set_level
from lora_router.telemetry.metrics import Telemetry
from lora_router.watchdog import Watchdog
from lora_router.workers import messages
from lora_router.workers.addresses import FoundAddresses
from lora_router.workers.crew import Crew
from lora_router.workers.handed_on import HandedOn
from lora_router.workers.kept import Kept
from lora_router.workers.kept_tls import KeptTls
from lora_router.workers.listener import Listener
from lora_router.workers.loading import AdaptersOfCrew
from lora_router.workers.merged_metrics import Rising, family_of, merged
from lora_router.workers.process import WorkerProcess, start_worker
from lora_router.workers.voice import Voice

log = logging.getLogger("lora_router")

_STOP_PART_SECONDS = 2.5
_DRAIN_EXTRA_SECONDS = 6.0
"""How much longer than its timeout the drain of a worker may take before it is killed."""


class Parent:
    """A router with several workers. Must be created inside a running event loop."""

    def __init__(self, settings: Settings) -> None:
        """Create the parts. Nothing listens or is read yet.

        Raises:
            BrokenAlgorithmError: An installed algorithm cannot be loaded.
            SecretError, ServiceError, RedisMissingError, PasswordError: The settings of peers
                cannot be used.
            PodAccessError: A file with a key or certificate for pods cannot be used.
            TokenError: ``admin_token_file`` cannot be used.
        """
        self._settings = settings
        self._host = secrets.token_hex(8)
        # What workers load, too. An error is reported here, once.
        unused = make_fleet(settings)
        make_director(settings, unused, Telemetry(unused))
        self._secret = check_peers(settings)
        # Workers find out which pods fail: they see the answers.
        self.fleet = make_fleet(settings.model_copy(update={"outlier_ejection": False}))
        self.telemetry = Telemetry(self.fleet)
        self.supervisor = Supervisor(self.telemetry.task_failed)
        self.fleet.changes.on_failure = self._listener_failed
        priorities = Priorities()
        self.discovery = make_discovery(
            settings, self.fleet, self.telemetry, self.supervisor, priorities
        )
        self.pod_access = make_pod_access(settings)
        self.scraper = make_scraper(
            settings, self.fleet, self.telemetry, self.supervisor, self.pod_access
        )
        self.crew = Crew(
            settings.workers, self._start_worker, self.supervisor, relays=settings.has_mesh
        )
        self.handed_on = HandedOn(self.fleet, self.crew, self.scraper, priorities)
        source = make_peer_addresses(settings)
        self.addresses: FoundAddresses | None = None
        if source is not None:
            self.addresses = FoundAddresses(self.crew, source, self.supervisor)
        self.voice = self._share_scrapes()
        files = tls_source(settings)
        self.tls = None if files is None else KeptTls(files, self.supervisor)
        self.listener = Listener(self.crew)
        self.port = settings.grpc_port
        """The gRPC port, after ``start``."""
        self._readiness = RouterReadiness(
            self.fleet, self.supervisor, metrics_max_age=settings.metrics_max_age_seconds
        )
        self._readiness.add_condition(self.crew.problem)
        self._readiness.add_note(self.crew.not_ready)
        self._readiness.add_details(self.discovery.status)
        self._readiness.add_details(self.crew.status)
        self._readiness.add_details(self.pod_access.status)
        self.watchdog = Watchdog(settings.loop_stall_seconds)
        self.declared = make_declared(settings, self.fleet, LoopClock())
        self.adapters_file = make_adapters_file(settings, self.declared, self.supervisor)
        if self.adapters_file is not None:
            self._readiness.add_details(self.adapters_file.status)
        self.loader_lease = make_loader_lease(settings, self._host, self.telemetry, self.supervisor)
        if self.loader_lease is not None:
            self._readiness.add_details(self.loader_lease.status)
        self.loader = self._make_loader()
        pages = DebugPages(Gathering(self._ask))
        self.admin = AdminServer(
            self.page,
            self.readiness,
            lambda: self.watchdog.silence,
            host=settings.admin_host,
            port=settings.admin_port,
            token_file=settings.admin_token_file,
            show=pages.show,
            order=pages.order,
        )
        self._hurry = asyncio.Event()
        self._rising = Rising()
        add_readiness_metrics(self.telemetry, self.readiness)
        add_process_metrics(self.telemetry, self.supervisor)
        add_pod_access_metrics(self.telemetry, self.pod_access)
        add_watchdog_metrics(self.telemetry, self.watchdog)
        add_worker_metrics(
            self.telemetry,
            lambda: self.crew.ready,
            lambda: self.crew.restarts,
            lambda: self.listener.refused,
            lambda: self.handed_on.nameless,
        )

    def readiness(self) -> Readiness:
        """Return whether this router should receive new requests, and the reason if not."""
        return self._readiness.read()

    async def page(self, accept: str = "") -> Page:
        """Return the page that ``/metrics`` serves: the metrics of all processes, merged.

        Args:
            accept: The header of that name, which chooses the format.
        """
        pages = await self.crew.metrics()
        own = [family_of(part) async for part in resting(self.telemetry.metrics())]
        return await self.telemetry.written(merged((own, *pages), self._rising), accept)

    async def start(self) -> None:
        """Listen, start the workers, read the pods, scrape each once, and report readiness.

        Raises:
            PodsFileError, CredentialsError: The list of pods is invalid or cannot be reached.
            AdminError: The admin address is in use or not available.
            TransportError: The gRPC address is in use or not available, or the TLS files are
                invalid.
            WorkerStartError: A worker cannot start.
        """
        settings = self._settings
        self.watchdog.start()
        self.pod_access.warn()
        self.pod_access.start(self.supervisor)
        if self._secret is not None:
            SecretWatch(self._secret, self.supervisor).start()
        await self.admin.start()
        if self.adapters_file is not None:
            await self.adapters_file.start()
        if self.loader_lease is not None:
            self.loader_lease.start()
        if self.loader is not None:
            self.loader.follow(self.supervisor)
        await self.discovery.start()
        await self.scraper.start()
        if self.tls is not None:
            self.tls.start()
        try:
            listening = listen(settings.grpc_host, settings.grpc_port)
        except OSError as error:
            raise listen_error(settings.grpc_host, settings.grpc_port, error) from error
        self.port = listening.getsockname()[1]
        self.listener.start(listening)
        if self.addresses is not None:
            self.addresses.start()
        self.crew.start()
        await self.crew.started()
        log.info(
            "lora-router %s listens: gRPC on %s, admin on %s, %s, algorithm %s, %d workers",
            __version__,
            shown_address(settings.grpc_host, self.port),
            shown_address(settings.admin_host, self.admin.port),
            counted(len(self.fleet), "pod"),
            settings.algorithm,
            settings.workers,
        )
        await self.discovery.synced()
        self.handed_on.synced()
        await self._warm_up()

    def refresh(self) -> None:
        """Read the files again that the router follows: the list of pods, the TLS files."""
        self.discovery.refresh()
        if self.adapters_file is not None:
            self.adapters_file.refresh()
        self.pod_access.refresh()
        if self.tls is not None:
            self.tls.refresh()
        self.crew.broadcast(messages.encode(messages.Refresh()))

    def use_log(self, level: str, style: Literal["text", "json"]) -> None:
        """Use other settings of the log, in all processes."""
        set_level(level)
        set_format(style)
        self._settings = self._settings.model_copy(update={"log_level": level, "log_format": style})
        self.crew.broadcast(messages.encode(messages.UseLog(level, style)))

    def hurry(self) -> None:
        """End a drain at once. Envoy finishes the answers that it is sending."""
        self._hurry.set()
        self.crew.hurry()

    async def stop(self) -> None:
        """Drain all workers, then stop every part.

        May be called after a start that failed or was cancelled.
        """
        settings = self._settings
        self._readiness.draining = True
        if self.loader is not None:
            await stop_part("loader", self.loader.stop(), _STOP_PART_SECONDS)
        if self.loader_lease is not None:
            await stop_part("loader lease", self.loader_lease.resign(), _STOP_PART_SECONDS)
        self.crew.drain()
        if self.crew.members:
            # Workers serve until the delay is over: new connections are accepted until then.
            await unless(self._hurry, asyncio.sleep(settings.drain_delay_seconds))
        self.listener.close()
        await self.crew.ended(settings.drain_timeout_seconds + _DRAIN_EXTRA_SECONDS)
        await asyncio.gather(
            stop_part("scraper", self.scraper.stop(), _STOP_PART_SECONDS),
            stop_part("discovery", self.discovery.stop(), _STOP_PART_SECONDS),
            stop_part("background tasks", self.supervisor.stop(), _STOP_PART_SECONDS),
        )
        await stop_part("admin server", self.admin.stop(), _STOP_PART_SECONDS)
        self.watchdog.stop()

    async def _warm_up(self) -> None:
        await self.scraper.first_round(self._settings.startup_timeout_seconds)
        self._readiness.warm = True
        await self.crew.warm()
        if self.loader_lease is not None:
            self.loader_lease.campaign()
        if self.loader is not None:
            self.loader.start()
        log.info("ready: %d of %d pods are ready", len(self.fleet.ready()), len(self.fleet))

    async def _start_worker(self, number: int) -> WorkerProcess:
        kept = Kept(
            None if self.tls is None else self.tls.contents,
            () if self._secret is None else self._secret.current,
            dict(self.pod_access.current.contents),
        )
        return await start_worker(number, self._settings, self._host, kept)

    async def _ask(self, question: bytes) -> Answered:
        """Return the answers of all workers, and of this process about the loader."""
        answers = await self.crew.ask(question)
        if self.loader is None:
            return answers
        return [*answers, ("parent", await self.loader.answers.answer(question))]

    def _make_loader(self) -> LoaderPart | None:
        if self.declared is None:
            return None
        adapters = AdaptersOfCrew(self.crew, self.declared)
        versions = make_versions(self._settings, self.declared, self.fleet, LoopClock())
        part = make_loader(
            self._settings,
            self.fleet,
            self.declared,
            self.scraper,
            self.telemetry,
            self.supervisor,
            self.pod_access,
            loader_choice(None, self.loader_lease, self.voice),
            adapters.demand,
            waits=adapters,
            is_held=adapters.is_held,
            may_leave=versions.may_leave,
        )
        if part is not None:
            adapters.want = part.loader.want
            if self.voice is not None and self.loader_lease is None:
                part.tell_peers(self.voice, adapters.use_may_load)
            self._readiness.add_details(part.status)
            self._readiness.add_condition(part.unread)
        return part

    def _share_scrapes(self) -> Voice | None:
        """Share reads with other hosts; return what speaks to them."""
        if not self._settings.has_peers:
            return None
        voice = Voice(self.crew, LoopClock())
        sharing = share_scrapes(self._settings, self.fleet, self.scraper, self.telemetry, voice)
        if sharing is not None:
            voice.on_named = sharing.rename
            sharing.on_used = self.handed_on.hand_on
        return voice

    def _listener_failed(self, listener: str, error: BaseException) -> None:
        self.supervisor.failed("fleet-listener", error, about=listener)
