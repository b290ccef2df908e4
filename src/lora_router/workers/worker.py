"""One worker: serves gateways from what the parent hands on."""

import asyncio
import json
import logging
import socket
from collections.abc import Mapping
from types import MappingProxyType

from lora_router.adapter_assembly import share_failed_loads
from lora_router.admin.server import Readiness
from lora_router.asking import Asking
from lora_router.config.settings import Settings
from lora_router.extproc.builtin_transport import BuiltinTransport
from lora_router.front import Front
from lora_router.garbage import collect_less_often
from lora_router.log_limit import LogLimit
from lora_router.loop_clock import LoopClock
from lora_router.peer_assembly import WorkerPeers
from lora_router.peering.exchanges import connect
from lora_router.peering.hub import Hub
from lora_router.peering.id_exchange import IdExchange
from lora_router.peering.limits import MAX_PEERS, MAX_WORKERS
from lora_router.peering.mesh import Mesh
from lora_router.peering.metrics import PeerMetrics
from lora_router.peering.questions import QuestionExchange
from lora_router.peering.worker_place import WorkerPlace
from lora_router.supervision import stop_part
from lora_router.workers import messages
from lora_router.workers.addresses import ToldAddresses
from lora_router.workers.descriptors import (
    CONNECTION,
    RELAY,
    has_spare_descriptors,
    receive_descriptors,
)
from lora_router.workers.framing import FramedProtocol
from lora_router.workers.kept import NOTHING, Kept
from lora_router.workers.loading import AdaptersOfWorker
from lora_router.workers.merged_metrics import send_metrics
from lora_router.workers.messages import (
    Addresses,
    Ask,
    AskMetrics,
    Declared,
    Drain,
    FromParent,
    Hurry,
    Looked,
    MayLoad,
    NotLoaded,
    Objectives,
    Pods,
    Readings,
    Refresh,
    Shed,
    Speak,
    Synced,
    Tell,
    UseLog,
    Warm,
)
from lora_router.workers.peer_link import Links, new_name
from lora_router.workers.received import Received
from lora_router.workers.relays import Relays
from lora_router.workers.voice import PassedReadings

log = logging.getLogger("lora_router.workers")

REPORT_SECONDS = 0.25
_READ_EVERY = 4
"""Reports after which readiness is read again, unless it changed: that walks over the pods."""
_PEERS_SECONDS = 1.0
"""Time that readiness waits for the first reports of other workers."""
_STOP_PART_SECONDS = 2.5


class Worker(Front):
    """One worker. Must be created inside a running event loop."""

    def __init__(
        self,
        number: int,
        settings: Settings,
        control: FramedProtocol,
        descriptors: socket.socket,
        host: str,
        environ: Mapping[str, str] = MappingProxyType({}),
        *,
        kept: Kept = NOTHING,
    ) -> None:
        """Create the parts.

        Args:
            number: The worker's number.
            settings: The settings of the router.
            control: Sends to the parent.
            descriptors: Where the parent passes descriptors. It must not block.
            host: Identifies this run of the parent.
            environ: Where OpenTelemetry's variables are.
            kept: What is used at the start if the files cannot be.

        Raises:
            SecretError, PodAccessError: A file cannot be used, and nothing was kept of it.
        """
        self._addresses = ToldAddresses()
        place = WorkerPlace(host, number, settings.workers)
        peers = WorkerPeers(place, self._addresses, kept.secrets)
        super().__init__(settings, peers, environ, pod_files=kept.pod_files)
        self._transport.kept_tls = kept.tls
        self._control = control
        self._descriptors = descriptors
        self._connections = 0
        """Connections that it was handed, those included that it could not receive."""
        self._is_short = False
        """Whether it has no file descriptors left."""
        self.hub = self._make_hub(number)
        share_failed_loads(self.first_use, self.hub)
        questions = QuestionExchange(self.hub) if self.peering is None else self.peering.questions
        self.asking = Asking(self.hub.name, self.debug.answer, questions, self.supervisor)
        self._workers = Mesh(self.hub, most=MAX_PEERS + MAX_WORKERS)
        self.links = Links(self._workers)
        self.relays: Relays | None = None
        self._readings = PassedReadings(control, self.report)
        self._connect_hosts()
        self._received = Received(self.fleet, self._send, LoopClock.now)
        self._received.connect(self.director.second_look)
        self._adapters: AdaptersOfWorker | None = None
        if self.declared is not None and self.first_use is not None:
            self._adapters = AdaptersOfWorker(self.declared, self.first_use, self.fleet, self._send)
        self._report_timer: asyncio.TimerHandle | None = None
        self._drained = asyncio.Event()
        self._is_draining = False
        self._reports = 0
        """Reports since ``report`` was called."""
        self._known = Readiness(ready=False, reason="starting", details={})
        self._details = b"{}"
        self._limit = LogLimit()

    async def start(self) -> None:
        """Serve. The worker is not ready before the parent says that pods were read.

        Raises:
            TransportError: The TLS files are invalid, and nothing was kept of earlier ones.
        """
        self.watchdog.start()
        await self._serve()
        if self.certificates is not None:
            self.certificates.refresh()  # It tells if what was kept is in use.
        if self._adapters is not None:
            self.supervisor.keep("adapter-demand", self._adapters.keep_telling)
            self.supervisor.keep("declared-adapters", self._adapters.keep_declaring)
        asyncio.get_running_loop().add_reader(self._descriptors.fileno(), self._descriptors_arrive)
        self.report()

    async def drained(self) -> None:
        """Wait until a drain that the parent ordered has ended."""
        await self._drained.wait()

    async def stop(self) -> None:
        """End the drain, if one is running, or drain at once; then stop every part."""
        self.hurry()
        await self._drain_once()
        if self._report_timer is not None:
            self._report_timer.cancel()
        asyncio.get_running_loop().remove_reader(self._descriptors.fileno())
        if self.peering is None:
            self.hub.leave()
        else:
            await stop_part("peering", self.peering.stop(), _STOP_PART_SECONDS)
        self.links.close()
        if self.relays is not None:
            self.relays.close()
        await asyncio.gather(
            stop_part("health check", self.health_check.stop(), _STOP_PART_SECONDS),
            stop_part("background tasks", self.supervisor.stop(), _STOP_PART_SECONDS),
            stop_part("traces", self._stop_traces(), _STOP_PART_SECONDS),
        )
        self.watchdog.stop()

    # From the parent

    def receive(self, message: FromParent) -> None:
        """Handle a message."""
        match message:
            case Readings():
                self._received.readings(message)
            case Pods():
                self._received.pods(message)
            case Synced():
                self.fleet.synced = True
            case Objectives(priorities):
                self.director.priorities.put(priorities)
            case Looked():
                self._received.looked()
            case Warm(peers):
                self.supervisor.once("warm-up", self._warm_up(peers))
            case AskMetrics(number):
                sending = send_metrics(number, self.telemetry.metrics(), self._send)
                self.supervisor.once("send-metrics", sending)
            case Ask():
                self.supervisor.once("ask", self._ask(message))
            case Shed():
                self._transport.server.shed()
            case Addresses() | Speak() | Tell() | MayLoad():
                self._serve_hosts(message)
            case Declared() | NotLoaded():
                self._serve_loads(message)
            case _:
                self._obey(message)

    async def _ask(self, message: Ask) -> None:
        answers = await self.asking.ask(message.question)
        self._send(messages.encode(messages.Answered(message.number, tuple(answers))))

    def _serve_hosts(self, message: Addresses | Speak | Tell | MayLoad) -> None:
        """Handle a message that concerns peers on other hosts."""
        match message:
            case Addresses():
                self._addresses.told(message)
            case Speak(speaks):
                self._readings.speaks = speaks
            case Tell(data):
                if self.peering is not None:
                    self.peering.tell(data)
            case MayLoad(may_load):
                self.hub.use_may_load(may_load)

    def _serve_loads(self, message: Declared | NotLoaded) -> None:
        """Handle a message that concerns declared adapters."""
        if self._adapters is None:
            return
        match message:
            case Declared():
                self._adapters.declared(message)
            case NotLoaded():
                self._adapters.not_loaded(message)

    def _obey(self, message: FromParent) -> None:
        """Handle a message that an operator caused."""
        match message:
            case Refresh():
                self.pod_access.refresh()
                if self.certificates is not None:
                    self.certificates.refresh()
            case UseLog(level, style):
                self.use_log(level, style)
            case Drain():
                self.supervisor.once("drain", self._drain_once())
            case Hurry():
                self.hurry()

    def report(self) -> None:
        """Tell the parent how this worker is doing, because that changed, and again soon."""
        self._reports = 0
        self._report()

    def _report(self) -> None:
        if self._reports % _READ_EVERY == 0:
            self._known = self.readiness()
            self._details = json.dumps(self._known.details).encode()
        is_short = self._is_short
        self._is_short = is_short and not has_spare_descriptors(self._descriptors)
        self._reports += 1
        readiness = self._known
        status = messages.Status(
            ready=readiness.ready,
            reason=readiness.reason,
            details=self._details,
            received=self._connections,
            connections=self._transport.server.connections,
            streams=self.transport.open_streams,
            links=self._linked(),
            name=self.hub.name,
            peers=tuple(name for name in self.hub.peers if not self._is_worker(name)),
            loaders=tuple(name for name in self.hub.loaders() if not self._is_worker(name)),
            short=is_short,
        )
        self._send(messages.encode(status))
        loop = asyncio.get_running_loop()
        if self._report_timer is not None:
            self._report_timer.cancel()
        self._report_timer = loop.call_later(REPORT_SECONDS, self._report)

    @property
    def _transport(self) -> BuiltinTransport:
        transport = self.transport
        assert isinstance(transport, BuiltinTransport)  # noqa: S101 -- the settings require it
        return transport

    def _send(self, message: bytes) -> None:
        self._control.send(message)

    def _descriptors_arrive(self) -> None:
        if not receive_descriptors(self._descriptors, self._take):
            asyncio.get_running_loop().remove_reader(self._descriptors.fileno())

    def _take(self, tag: bytes, received: socket.socket | None) -> None:
        if tag == CONNECTION:
            self._connections += 1
        if received is None:
            self._lost(tag)
            return
        if tag == CONNECTION:
            self._transport.server.take(received)
            return
        kind, number = tag[:1], int(tag[1:])
        if kind != RELAY:
            self.supervisor.once("worker-link", self.links.add(number, kind, received))
        elif self.relays is not None:
            self.supervisor.once("worker-link", self.relays.add(number, received))

    def _lost(self, tag: bytes) -> None:
        """Tell the parent that connections are lost here. Links it makes again by itself."""
        what = "a link to another worker"
        if tag == CONNECTION:
            what = "a gRPC connection"
            self._transport.bounds.refused_connections += 1
        self._limit.log(
            log,
            logging.ERROR,
            "descriptors",
            "%s is lost: this process has as many file descriptors as it may (ulimit -n)",
            what,
        )
        if not self._is_short:
            self._is_short = True
            self.report()

    def _make_hub(self, number: int) -> Hub:
        if self.peering is not None:
            return self.peering.hub
        hub = Hub(new_name(number), self.fleet, self.director.held_adapters, LoopClock())
        connect(hub, self.fleet, self.director)
        IdExchange(hub, self.fleet, self.director.sticky.made)
        self.telemetry.registry.register(PeerMetrics(hub))
        return hub

    def _connect_hosts(self) -> None:
        peering = self.peering
        if peering is None:
            return
        if peering.service is not None:
            self.relays = peering.service.relays = Relays(peering.service.mesh)
        if peering.redis is not None:
            peering.redis.broadcasts.is_heard_elsewhere = self._is_worker
        if self._settings.scrape_sharing:
            self.hub.readings = self._readings

    def _is_worker(self, peer: str) -> bool:
        """Return whether a peer is a worker of the same router."""
        return bool(self._workers.streams_of(peer))

    def _linked(self) -> tuple[int, ...]:
        """Return the workers to which nothing is missing."""
        numbers = self.links.numbers
        if self.relays is None:
            return numbers
        return tuple(each for each in numbers if each in self.relays.numbers)

    async def _warm_up(self, peers: int) -> None:
        await asyncio.gather(
            self._hear_workers(peers), *([] if self.peering is None else [self.peering.joined()])
        )
        collect_less_often()
        self._readiness.warm = True
        if not self._is_draining:
            await self.transport.set_ready(ready=True)
        self.report()

    async def _hear_workers(self, peers: int) -> None:
        if not await self.links.have_reported(peers, _PEERS_SECONDS):
            log.warning("not all workers have reported within %g s", _PEERS_SECONDS)

    async def _drain_once(self) -> None:
        if self._is_draining:
            await self._drained.wait()
            return
        self._is_draining = self._readiness.draining = True
        self.report()
        try:
            await self._drain()
        finally:
            self._drained.set()
