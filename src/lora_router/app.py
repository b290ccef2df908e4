"""Builds the router from its parts, and starts, drains and stops them."""

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
"""How long before the end of a drain the requests that are still held are decided."""
_DRAIN_EXTRA_SECONDS = 3.0
"""How much longer than its timeout a drain may take before it is abandoned."""
_STOP_PART_SECONDS = 2.5
"""Timeout for stopping one part. Longer than ``STOP_SECONDS``, which the tasks in it have.

Both leave less than the 10 s that the chart's grace period has after the drain, in the worst case.
"""
_NAMED_TASKS = 5
"""Number of failing tasks that ``/readyz`` describes. The others are only counted."""


class Discovery(Protocol):
    """Finds the pods and applies them to the fleet."""

    async def start(self) -> None:
        """Start to follow the pods."""

    async def synced(self) -> None:
        """Wait until the fleet has received its first full list."""

    async def stop(self) -> None:
        """Stop following. The fleet keeps its pods."""

    def status(self) -> dict[str, object]:
        """Return the fields that ``/readyz`` shows."""


class LoopClock:
    """The clock of the running event loop. The scraper uses the same."""

    now = staticmethod(time.monotonic)

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Schedule one call, ``seconds`` from now."""
        return asyncio.get_running_loop().call_later(seconds, call)


class App:
    """One router process. Must be created inside a running event loop."""

    def __init__(self, settings: Settings) -> None:
        """Create the parts. Nothing listens or is read yet.

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
            "Open ext_proc streams. Envoy keeps one open for each request until it ends.",
            lambda: self.transport.open_streams,
        )
        self.telemetry.add_gauge(
            "lora_router_held_requests",
            "Requests that wait in this router for a pod.",
            lambda: self.director.held,
        )
        self.telemetry.add_counter(
            "lora_router_log_lines_dropped_total",
            "Log lines dropped because standard error is not read fast enough or is closed.",
            dropped_lines,
        )
        self.telemetry.add_gauge(
            "lora_router_failing_tasks",
            "Background tasks that keep failing. /readyz describes them.",
            lambda: len(self.supervisor.failing()),
        )

    def readiness(self) -> Readiness:
        """Return whether this router should receive new requests, and the reason if not.

        Tasks that cannot be kept running are reported but do not make the router unready. The
        router still routes on what it knows, and a fault in a task most likely affects every
        router at the same time: if all became unready, no request would be served. Before the
        first list of pods the router has nothing to route on, and is unready for that reason.
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
            reason += f"; {len(failing)} background tasks keep failing"
            # Discovery affects all requests, a scrape only those for one pod.
            failing.sort(key=lambda each: each.task.startswith("scrape"))
            details["failing_tasks"] = dict(Counter(each.task for each in failing))
            details["failures"] = [str(each) for each in failing[:_NAMED_TASKS]]
        return Readiness(ready, reason, details)

    async def start(self) -> None:
        """Listen, read the pods, scrape each once, and report readiness.

        Raises:
            PodsFileError, CredentialsError: The list of pods is invalid or cannot be reached.
            AdminError: The admin address is in use or not available.
            TransportError: The gRPC address is in use or not available, or the TLS files are
                invalid.
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
        """Drain, then stop every part. May be called after a start that failed or was cancelled.

        Each part is stopped within a timeout, whether or not the others stop.
        """
        self._draining = True
        if self.transport.started:
            await self._drain()
        await asyncio.gather(
            stop_part("scraper", self.scraper.stop(), _STOP_PART_SECONDS),
            stop_part("discovery", self.discovery.stop(), _STOP_PART_SECONDS),
            stop_part("background tasks", self.supervisor.stop(), _STOP_PART_SECONDS),
        )
        await stop_part("admin server", self.admin.stop(), _STOP_PART_SECONDS)

    async def _drain(self) -> None:
        settings = self._settings
        await stop_part("readiness", self.transport.set_ready(ready=False))
        await asyncio.sleep(settings.drain_delay_seconds)
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
        closed = await self.transport.drain(seconds)
        log.info("drained; %d streams were still open and were closed", closed)

    def _listener_failed(self, listener: str, error: BaseException) -> None:
        self.supervisor.failed("fleet-listener", error, about=listener)

    def _make_discovery(self) -> Discovery:
        settings = self._settings
        if settings.endpoints is not None:
            return PodsFile(settings.endpoints, self.fleet, supervisor=self.supervisor)
        # The Kubernetes client takes a second to import, and only this discovery needs it.
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
            "Seconds since the Kubernetes API server last confirmed the list of pods.",
            lambda: pods.age,
        )
        return pods

    async def _warm_up(self) -> None:
        try:
            async with asyncio.timeout(self._settings.startup_timeout_seconds):
                await self.scraper.first_round()
        except TimeoutError:
            unread = sum(state.metrics is None for state in self.fleet.ready())
            log.warning("startup timeout: ready without a scrape of %d pods", unread)
        self._warm = True
        await self.transport.set_ready(ready=True)
        log.info("ready: %d of %d pods are ready", len(self.fleet.ready()), len(self.fleet))


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
    # Import only the selected transport: grpcio takes a large part of the startup time.
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
    """Exclude the objects of the startup from garbage collection, and collect less often.

    A request leaves no reference cycles, but allocates enough objects to trigger many collections
    a second. Collections of the oldest generation would visit all pods and models each time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then drain.

    Raises:
        ValueError, OSError, BrokenAlgorithmError: The start failed. The message has the cause.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app = App(settings)
    loop.set_exception_handler(app.supervisor.callback_failed)
    try:
        if await unless(stop, app.start()):
            _collect_less_often()
            await stop.wait()
        log.info("received a signal, draining")
    finally:
        await app.stop()
