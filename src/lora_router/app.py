"""The one place where the parts are put together, started, drained and stopped."""

import asyncio
import gc
import logging
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Protocol

from lora_router import __version__
from lora_router.admin.server import AdminServer, Readiness
from lora_router.config.settings import Settings
from lora_router.discovery.pods_file import PodsFile
from lora_router.extproc.body import InferencePaths
from lora_router.extproc.exchange import SessionContext
from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.tls import TlsFiles
from lora_router.extproc.transport import Transport
from lora_router.fleet.fleet import Fleet
from lora_router.routing.algorithm import AlgorithmOptions
from lora_router.routing.director import Director
from lora_router.routing.registry import load_algorithms
from lora_router.routing.waiting_queue import Timer
from lora_router.routing.waiting_room import Limits
from lora_router.scrape.scraper import Scraper
from lora_router.supervision import Supervisor, stop_part, unless
from lora_router.telemetry.logs import dropped_lines
from lora_router.telemetry.metrics import Telemetry

log = logging.getLogger("lora_router")

_DECIDED_BEFORE_SECONDS = 2.0
"""How long before the end of a drain the requests that still wait are decided."""
_DRAIN_EXTRA_SECONDS = 10.0
"""How much longer than its time a drain may take until it is given up."""
_STOP_PART_SECONDS = 10.0
"""A part has longer than the tasks in it, which have ``STOP_SECONDS``."""
_NAMED_TASKS = 5
"""Failing tasks that ``/readyz`` names; the others are counted."""


class Discovery(Protocol):
    """Where the pods come from."""

    async def start(self) -> None:
        """Begin to keep the cache in step."""

    async def synced(self) -> None:
        """Wait until the cache has had its first full list."""

    async def stop(self) -> None:
        """End it; the pods stay as they are."""

    def status(self) -> dict[str, object]:
        """Return what ``/readyz`` shows of it."""


class LoopClock:
    """The running event loop's clock, which is also the scraper's."""

    now = staticmethod(time.monotonic)

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call once, ``seconds`` from now."""
        return asyncio.get_running_loop().call_later(seconds, call)


class App:
    """One router process. Make it inside a running event loop."""

    def __init__(self, settings: Settings) -> None:
        """Put the parts together; nothing listens or is read yet.

        Raises:
            BrokenAlgorithmError: An installed algorithm cannot be loaded.
        """
        self._settings = settings
        self.fleet = Fleet(metrics_max_age=settings.metrics_max_age_seconds)
        self.telemetry = Telemetry(self.fleet)
        self.supervisor = Supervisor(self.telemetry.task_failed)
        self.fleet.changes.on_failure = self._listener_failed
        self.director = Director(
            self.fleet,
            load_algorithms(
                AlgorithmOptions(
                    lora_affinity_threshold=settings.lora_affinity_threshold,
                    metrics_max_age=settings.metrics_max_age_seconds,
                    extra=settings.algorithm_options,
                )
            ),
            settings.algorithm,
            LoopClock(),
            self.telemetry.decisions,
            default_model=settings.default_model,
            max_hold_seconds=settings.max_hold_seconds,
            limits=Limits(settings.max_held_requests, settings.max_held_requests_per_model),
        )
        self.transport = _make_transport(
            settings,
            SessionContext(
                director=self.director,
                observer=self.telemetry.decisions,
                paths=InferencePaths(settings.inference_paths),
                headers=HeaderNames(
                    target_pod=settings.target_pod_header,
                    destination=settings.destination_header,
                    strategy=settings.strategy_header,
                    pod_filter=settings.filter_header,
                    model=settings.model_header,
                ),
                max_body_bytes=settings.max_body_bytes,
            ),
            self.supervisor,
        )
        self.discovery = self._make_discovery()
        self.scraper = Scraper(
            self.fleet,
            self.telemetry,
            interval=settings.pod_metric_refresh_interval_ms / 1000,
            models_interval=settings.models_refresh_interval_seconds,
            timeout=settings.scrape_timeout_seconds,
            concurrency=settings.scrape_concurrency,
            api_key=settings.pod_api_key,
            supervisor=self.supervisor,
        )
        self.admin = AdminServer(
            self.telemetry,
            self.readiness,
            host=settings.admin_host,
            port=settings.admin_port,
        )
        self._warm = False
        self._draining = False
        self.telemetry.add_gauge(
            "lora_router_open_streams",
            "ext_proc streams open; Envoy keeps one for each request until its end.",
            lambda: self.transport.open_streams,
        )
        self.telemetry.add_gauge(
            "lora_router_held_requests",
            "Requests that wait in the router for a pod.",
            lambda: self.director.held,
        )
        self.telemetry.add_counter(
            "lora_router_log_lines_dropped_total",
            "Log lines dropped because standard error was not read fast enough, or is closed.",
            dropped_lines,
        )
        self.telemetry.add_gauge(
            "lora_router_failing_tasks",
            "Background tasks that fail whenever they are restarted; /readyz names them.",
            lambda: len(self.supervisor.failing()),
        )

    def readiness(self) -> Readiness:
        """Return whether new requests should come here, and why not.

        A background task that cannot be kept running is named, and does not make the router
        unready: it routes on what it knows, the fault most likely meets all routers at the same
        time, and without any router no request is served at all. Before the list of pods has been
        read once there is nothing to route on, and the router is not ready anyway.
        """
        failing = self.supervisor.failing()
        if self._draining:
            reason = "shutting down"
        elif not self.fleet.synced:
            reason = "the list of pods has not been read yet"
        elif not self._warm:
            reason = "waiting for the first scrape of the pods"
        else:
            reason = "ready"
        ready = reason == "ready"
        now, max_age = time.monotonic(), self._settings.metrics_max_age_seconds
        ready_pods = self.fleet.ready()
        stale = sum(state.fresh_metrics(now, max_age) is None for state in ready_pods)
        details: dict[str, object] = {
            "pods": len(self.fleet),
            "ready_pods": len(ready_pods),
            "stale_pods": stale,
            **self.discovery.status(),
        }
        if failing:
            reason += f"; {len(failing)} background tasks fail whenever they are restarted"
            # The list of pods concerns all requests, a scrape those for one pod.
            failing.sort(key=lambda each: each.task.startswith("scrape"))
            details["failing_tasks"] = dict(Counter(each.task for each in failing))
            details["failures"] = [str(each) for each in failing[:_NAMED_TASKS]]
        return Readiness(ready, reason, details)

    async def start(self) -> None:
        """Listen, read the pods, scrape them once, and then say that we are ready.

        Raises:
            PodsFileError, CredentialsError: The list of pods is wrong, or there is no way to it.
            AdminError: The admin address cannot be had.
            TransportError: The gRPC address cannot be had, or the TLS files cannot be used.
        """
        await self.admin.start()
        await self.discovery.start()
        await self.scraper.start()
        await self.transport.start()
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

    async def stop(self) -> None:
        """Drain, then stop all parts. Safe to call after a failed or half-done start.

        Every part is stopped whatever happens to the others, each within its time.
        """
        self._draining = True
        if self.transport.started:
            await self._drain()
        await stop_part("scraper", self.scraper.stop(), _STOP_PART_SECONDS)
        await stop_part("discovery", self.discovery.stop(), _STOP_PART_SECONDS)
        await stop_part("background tasks", self.supervisor.stop(), _STOP_PART_SECONDS)
        await stop_part("admin server", self.admin.stop(), _STOP_PART_SECONDS)

    async def _drain(self) -> None:
        settings = self._settings
        await stop_part("readiness", self.transport.set_ready(ready=False))
        await asyncio.sleep(settings.drain_delay_seconds)
        drain_seconds = settings.drain_timeout_seconds
        # What is decided last must reach Envoy before the streams are closed.
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
        closed = await self.transport.drain(seconds)
        log.info("drained; %d streams were still open and have been let go", closed)

    def _listener_failed(self, listener: str, error: BaseException) -> None:
        self.supervisor.failed("fleet-listener", error, about=listener)

    def _make_discovery(self) -> Discovery:
        settings = self._settings
        if settings.endpoints is not None:
            return PodsFile(settings.endpoints, self.fleet, supervisor=self.supervisor)
        # The client's models take a second to import, and only this discovery needs it.
        from lora_router.discovery.kubernetes import KubernetesOptions, KubernetesPods
        from lora_router.discovery.kubernetes_api import Credentials
        from lora_router.discovery.pod_object import PortRules

        pods = KubernetesPods(
            self.fleet,
            KubernetesOptions(
                namespaces=tuple(dict.fromkeys(settings.kubernetes_namespaces)),
                selector=settings.kubernetes_selector,
                ports=PortRules(settings.kubernetes_port_name, settings.kubernetes_port),
                credentials=Credentials(
                    settings.kubernetes_kubeconfig, settings.kubernetes_context
                ),
                watch_seconds=settings.kubernetes_watch_seconds,
            ),
            self.telemetry,
            self.supervisor,
        )
        self.telemetry.add_gauge(
            "lora_router_pods_age_seconds",
            "Seconds since the Kubernetes API server last said that the pods are as we know them.",
            lambda: pods.age,
        )
        return pods

    async def _warm_up(self) -> None:
        try:
            async with asyncio.timeout(self._settings.startup_timeout_seconds):
                await self.scraper.first_round()
        except TimeoutError:
            unread = sum(state.metrics is None for state in self.fleet.ready())
            log.warning("ready although %d pods could not be scraped yet", unread)
        self._warm = True
        await self.transport.set_ready(ready=True)
        log.info("ready: %d of %d pods are", len(self.fleet.ready()), len(self.fleet))


def _make_transport(
    settings: Settings, context: SessionContext, supervisor: Supervisor
) -> Transport:
    tls = None
    if settings.grpc_tls_cert_file is not None and settings.grpc_tls_key_file is not None:
        tls = TlsFiles(
            settings.grpc_tls_cert_file,
            settings.grpc_tls_key_file,
            settings.grpc_tls_client_ca_file,
        )
    make: Callable[..., Transport]
    # Only the chosen one is imported: grpcio alone takes a good part of the start.
    if settings.transport == "builtin":
        from lora_router.extproc.builtin_transport import BuiltinTransport

        make = BuiltinTransport
    else:
        from lora_router.extproc.grpcio_transport import GrpcioTransport

        make = partial(GrpcioTransport, supervisor=supervisor)
    return make(
        context,
        host=settings.grpc_host,
        port=settings.grpc_port,
        max_message_bytes=settings.grpc_max_message_size_bytes,
        tls=tls,
    )


def _collect_less_often() -> None:
    """Leave what lives as long as the process out of garbage collections, and have fewer of them.

    A request leaves nothing that only the collector finds, but makes enough objects to have it run
    many times a second, each time over all pods and models if it comes to the oldest generation.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then drain.

    Raises:
        ValueError, OSError, BrokenAlgorithmError: The start failed; the text says why.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app = App(settings)
    try:
        if await unless(stop, app.start()):
            _collect_less_often()
            await stop.wait()
        log.info("received a signal: draining")
    finally:
        await app.stop()
