"""Follows the endpoints of one Service through its EndpointSlices.

A Service of routers has one slice of a few hundred bytes. So each change that the watch announces
leads to a new list, and nothing has to be put together from events.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from contextlib import aclosing
from pathlib import Path

from lora_router.discovery.kubernetes_api import (
    ApiError,
    Credentials,
    CredentialsError,
    KubernetesApi,
    Slice,
    SliceQuery,
    event_error,
)
from lora_router.log_limit import LogLimit

log = logging.getLogger("lora_router.discovery")

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
PORT_NAME = "grpc"
MAX_ENDPOINTS = 1000
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 10.0
_SHORTEST_SECONDS = 0.1
"""Time between two lists, however many events arrive."""


class ServiceError(ValueError):
    """The namespace of the Service is unknown."""


def service_query(name: str) -> SliceQuery:
    """Return the query for ``NAME`` in the router's own namespace, or for ``NAMESPACE/NAME``.

    Raises:
        ServiceError: The name has no namespace, and this process does not run in a pod.
    """
    namespace, slash, service = name.rpartition("/")
    if slash:
        return SliceQuery(namespace, service)
    try:
        return SliceQuery(NAMESPACE_FILE.read_text().strip(), service)
    except OSError:
        raise ServiceError(
            f"peer_service={name}: outside of a pod, write NAMESPACE/{name}"
        ) from None


class EndpointSlices:
    """Follows one Service."""

    def __init__(
        self,
        query: SliceQuery,
        credentials: Credentials,
        *,
        port: int,
        watch_seconds: int = 30,
    ) -> None:
        """Create it, without connecting.

        Args:
            query: The Service.
            credentials: How to reach the API server.
            port: The port of endpoints whose slice names none.
            watch_seconds: Server-side timeout of a watch.
        """
        self._query = query
        self._credentials = credentials
        self._port = port
        self._watch_seconds = watch_seconds
        self._limit = LogLimit(60.0)
        self._random = random.Random()

    async def follow(self, use: Callable[[Collection[tuple[str, int]]], None]) -> None:
        """Call ``use`` with all addresses and ports, first at once and then after each change."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                api = await KubernetesApi.open(self._credentials)
                try:
                    while True:
                        found = await api.slices(self._query)
                        use(self._endpoints(found.items or ()))
                        await self._until_changed(api, found.metadata.version)
                        pause = _FIRST_PAUSE_SECONDS
                        await asyncio.sleep(_SHORTEST_SECONDS)
                finally:
                    await api.close()
            except (ApiError, CredentialsError) as error:
                # The last endpoints stay in use.
                self._limit.log(
                    log,
                    logging.WARNING,
                    getattr(error, "cause", "credentials"),
                    "cannot follow the EndpointSlices of Service %s/%s: %s",
                    self._query.namespace,
                    self._query.service,
                    error,
                )
            await asyncio.sleep(pause * self._random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _until_changed(self, api: KubernetesApi, version: str) -> None:
        """Wait for the next change, or for the end of a watch without one.

        Raises:
            ApiError: The watch failed.
        """
        watch = api.watch(self._query, version, seconds=self._watch_seconds)
        async with aclosing(watch) as batches:
            async for batch in batches:
                for event in batch:
                    if event.type == "ERROR":
                        error = event_error(event)
                        if error.cause == "expired":
                            return
                        raise error
                    if event.type != "BOOKMARK":
                        return

    def _endpoints(self, slices: Collection[Slice]) -> Collection[tuple[str, int]]:
        found: dict[tuple[str, int], None] = {}
        for each in slices:
            port = self._port_of(each)
            for endpoint in each.endpoints or ():
                # Also those that are not ready: a router that starts wants to know its peers.
                if endpoint.addresses and not endpoint.conditions.terminating:
                    found[endpoint.addresses[0], port] = None
                if len(found) >= MAX_ENDPOINTS:
                    return found.keys()
        return found.keys()

    def _port_of(self, found: Slice) -> int:
        ports = [each for each in found.ports or () if each.port]
        named = [each for each in ports if each.name == PORT_NAME]
        chosen = named or (ports if len(ports) == 1 else [])
        return (chosen[0].port or self._port) if chosen else self._port
