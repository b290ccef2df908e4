"""The streams that this router opens, one to each address where a router may be.

Several workers may be behind an address. Then there is a stream to each of them: the answer to the
first one says how many there are.
"""

import asyncio
import logging
import random
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import grpc
import grpc.aio

from lora_router.grpc_server.status import OK, UNAVAILABLE
from lora_router.log_limit import LogLimit
from lora_router.peering.addresses import MAX_ADDRESSES, AddressSource, PeerAddress
from lora_router.peering.aio_link import AioLink
from lora_router.peering.conversation import Conversation
from lora_router.peering.limits import MAX_MESSAGE_BYTES, MAX_PEERS
from lora_router.peering.link import Ending
from lora_router.peering.mesh import Mesh
from lora_router.peering.reconnection import GREETING_SECONDS, Reconnection
from lora_router.peering.secret import HEADER, Secret
from lora_router.peering.service import PATH, WORKER_HEADER
from lora_router.supervision import Supervisor
from lora_router.threads import in_thread

log = logging.getLogger("lora_router.peering")

_FLUSH_SECONDS = 0.5
"""Time for peers to receive that this router leaves."""
_OTHER_WORKER_SECONDS = 3.0
"""A stream that another worker answered, because the right one did not run, is then replaced."""
_MAX_FURTHER = MAX_PEERS
"""Streams to workers other than the first ones, over all addresses."""
_OPTIONS = (
    # Connections are not shared: after a partition, a new one is faster than an old one.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    # Peers are reached directly, whatever proxy the environment names.
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
)


class _Place(NamedTuple):
    """Where a stream leads."""

    address: PeerAddress
    worker: int
    """The number of the worker; 1 also for a router without workers."""


@dataclass(frozen=True, slots=True)
class ClientTls:
    """The TLS files of the client, all in PEM format."""

    ca: Path | None = None
    """Authorities of the peers' certificates. ``None``: those that grpcio comes with."""
    certificate: Path | None = None
    key: Path | None = None
    """What this router presents, for mutual TLS."""
    server_name: str | None = None
    """The name that peers' certificates have. ``None``: the name by which a peer was found."""


class PeerClients:
    """Keeps a stream to each router."""

    def __init__(
        self,
        mesh: Mesh,
        source: AddressSource,
        supervisor: Supervisor,
        *,
        tls: ClientTls | None = None,
        secret: Secret | None = None,
    ) -> None:
        """Create it without streams.

        Args:
            mesh: The streams.
            source: Finds the addresses.
            supervisor: Runs the tasks.
            tls: The TLS files. Without them, connections are not encrypted.
            secret: Proves to peers that this router is one.
        """
        self._mesh = mesh
        self._source = source
        self._supervisor = supervisor
        self._tls = tls
        self._secret = secret
        self._tasks: dict[_Place, asyncio.Task[None]] = {}
        self._follow: asyncio.Task[None] | None = None
        self._open: dict[_Place, Conversation] = {}
        self._tried: set[_Place] = set()
        """Those to which an attempt ended, or needs not be waited for."""
        self._found = False
        self._stopping = False
        self._random = random.Random()
        self._limit = LogLimit(60.0)

    def start(self) -> None:
        """Find the peers, and connect to them."""
        self._follow = self._supervisor.keep(
            "peer-addresses", lambda: self._source.follow(self._use)
        )

    async def stop(self) -> None:
        """End all streams. Peers get some time to end them first."""
        self._stopping = True
        if self._follow is not None:
            self._follow.cancel()
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                while self._open:  # noqa: ASYNC110 -- it is short
                    await asyncio.sleep(0.005)
        except TimeoutError:
            log.debug("%d peers did not end their streams", len(self._open))
        for task in self._tasks.values():
            task.cancel()
        self._tasks = {}

    def has_joined(self) -> bool:
        """Return whether every peer that can be reached has sent its first report."""
        if not (self._found and self._source.is_complete):
            return False
        for place in self._tasks:
            conversation = self._open.get(place)
            peer = None if conversation is None else conversation.peer
            if place not in self._tried and (peer is None or not peer.number):
                return False
        return True

    def _use(self, addresses: Collection[PeerAddress]) -> None:
        """Open streams to new addresses, and end those to addresses that are gone."""
        self._found = True
        if self._stopping:
            return
        if len(addresses) > MAX_ADDRESSES:
            self._limit.log(
                log,
                logging.WARNING,
                "addresses",
                "%d addresses of peers; the first %d are used",
                len(addresses),
                MAX_ADDRESSES,
            )
        wanted = dict.fromkeys(sorted(addresses, key=lambda each: each.target)[:MAX_ADDRESSES])
        for place in tuple(self._tasks):
            if place.address not in wanted:
                self._end(place)
        for address in wanted:
            self._begin(_Place(address, 1))

    def _meet_workers(self, address: PeerAddress, workers: int) -> None:
        """Keep a stream to each of the workers behind an address, and to no more."""
        if self._stopping:
            return
        known = [place for place in self._tasks if place.address == address]
        for place in known:
            if place.worker > workers:
                self._end(place)
        if not known:
            return  # The address is not wanted any more.
        further = sum(place.worker > 1 for place in self._tasks)
        for number in range(len(known) + 1, workers + 1):
            if further >= _MAX_FURTHER:
                self._limit.log(
                    log,
                    logging.WARNING,
                    "workers",
                    "not all of the %d workers at %s are used: there are too many peers",
                    workers,
                    address.target,
                )
                return
            further += 1
            self._begin(_Place(address, number))

    def _begin(self, place: _Place) -> None:
        if place not in self._tasks:
            self._tasks[place] = self._supervisor.keep(
                "peer", partial(self._keep, place), about=place.address.target
            )

    def _end(self, place: _Place) -> None:
        self._tasks.pop(place).cancel()
        self._tried.discard(place)

    async def _keep(self, place: _Place) -> None:
        """Keep a stream to one router."""
        loop = asyncio.get_running_loop()
        reconnection = Reconnection(self._random)
        while not self._stopping:
            began = loop.time()
            try:
                conversation, why = await self._exchange(place)
            finally:
                if place in self._tasks:
                    self._tried.add(place)
            if not (conversation.is_itself or conversation.is_redundant or self._stopping):
                target = place.address.target
                self._limit.log(log, logging.INFO, place, "no stream to peer %s: %s", target, why)
            await asyncio.sleep(reconnection.pause_after(conversation, loop.time() - began))
        await asyncio.Event().wait()

    async def _exchange(self, place: _Place) -> tuple[Conversation, str]:
        """Open a stream and carry it to its end; return why it ended."""
        address = place.address
        link = AioLink()
        conversation = self._mesh.open(link)
        conversation.on_workers = lambda workers: self._met(place, conversation, workers)
        try:
            channel = await self._channel(address)
        except OSError as error:
            return conversation, f"TLS files: {error}"
        metadata: tuple[tuple[str, str], ...] = ((WORKER_HEADER, str(place.worker)),)
        if self._secret is not None:
            metadata += ((HEADER, self._secret.header),)
        timer = None
        try:
            call = channel.stream_stream(PATH)(metadata=metadata)
            self._open[place] = conversation
            conversation.greet()
            timer = asyncio.get_running_loop().call_later(
                GREETING_SECONDS, _expect_greeting, conversation, channel
            )
            try:
                await link.carry(conversation, call.read, call.write)
                if link.ending is not None:
                    return conversation, link.ending.message
            except (grpc.RpcError, grpc.aio.BaseError, asyncio.InvalidStateError) as error:
                log.debug("the stream to peer %s broke: %s", address.target, error)
            if not call.done():
                call.cancel()
                return conversation, "the stream ended"
            return conversation, f"{(await call.code()).name}: {await call.details()}"
        finally:
            if timer is not None:
                timer.cancel()
            self._open.pop(place, None)
            await channel.close()

    def _met(self, place: _Place, conversation: Conversation, workers: int) -> None:
        self._meet_workers(place.address, workers)
        if conversation.worker not in (0, place.worker):
            ending = Ending(OK, f"worker {place.worker} does not run")
            asyncio.get_running_loop().call_later(_OTHER_WORKER_SECONDS, conversation.close, ending)

    async def _channel(self, address: PeerAddress) -> grpc.aio.Channel:
        tls = self._tls
        if tls is None:
            return grpc.aio.insecure_channel(address.target, options=_OPTIONS)
        credentials = await in_thread(lambda: _credentials(tls), "peer-tls")
        name = tls.server_name or address.host
        return grpc.aio.secure_channel(
            address.target,
            credentials,
            options=(*_OPTIONS, ("grpc.ssl_target_name_override", name)),
        )


def _expect_greeting(conversation: Conversation, channel: grpc.aio.Channel) -> None:
    """End a stream on which the peer has not greeted yet, and say whether it was reached at all."""
    if conversation.peer is not None or channel.get_state() == grpc.ChannelConnectivity.READY:
        conversation.expect_greeting()
    else:
        conversation.close(Ending(UNAVAILABLE, f"no connection within {GREETING_SECONDS:g} s"))


def _credentials(files: ClientTls) -> grpc.ChannelCredentials:
    """Read the files at each connection, so that renewed certificates are used."""
    key = certificate = None
    if files.certificate is not None and files.key is not None:
        key, certificate = files.key.read_bytes(), files.certificate.read_bytes()
    ca = None if files.ca is None else files.ca.read_bytes()
    return grpc.ssl_channel_credentials(ca, key, certificate)
