"""Follows the endpoints of one Service through its EndpointSlices."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lora_router.discovery.kubernetes_api import ApiError, Credentials
from lora_router.discovery.resource_list import ResourceList, ResourceQuery
from lora_router.log_limit import LogLimit

log = logging.getLogger("lora_router.discovery")

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
PORT_NAME = "grpc"
MAX_ENDPOINTS = 1000


class SliceConditions(msgspec.Struct, frozen=True):
    """The state of an endpoint."""

    terminating: bool | None = None


class SliceEndpoint(msgspec.Struct, frozen=True):
    """One endpoint of an EndpointSlice."""

    addresses: list[str]
    conditions: SliceConditions = SliceConditions()


class SlicePort(msgspec.Struct, frozen=True):
    """One port of all endpoints of an EndpointSlice."""

    name: str | None = None
    port: int | None = None


class Slice(msgspec.Struct, frozen=True):
    """An EndpointSlice."""

    endpoints: list[SliceEndpoint] | None = None
    ports: list[SlicePort] | None = None


@dataclass(frozen=True, slots=True)
class SliceQuery:
    """The EndpointSlices of which Service to follow."""

    namespace: str
    service: str


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
        self._port = port
        self._limit = LogLimit(60.0)
        resources = ResourceQuery(
            "discovery.k8s.io",
            "v1",
            "endpointslices",
            query.namespace,
            # The label that the slices of a Service have.
            selector=f"kubernetes.io/service-name={query.service}",
        )
        self._list = ResourceList(resources, Slice, credentials, watch_seconds=watch_seconds)

    async def follow(self, use: Callable[[Collection[tuple[str, int]]], None]) -> None:
        """Call ``use`` with all addresses and ports, first at once and then after each change."""

        async def use_slices(slices: Sequence[Slice]) -> None:
            use(self._endpoints(slices))

        await self._list.follow(use_slices, self._lost)

    def _lost(self, error: ApiError) -> None:
        # The last endpoints stay in use.
        self._limit.log(
            log,
            logging.WARNING,
            error.cause,
            "cannot follow the EndpointSlices of Service %s/%s: %s",
            self._query.namespace,
            self._query.service,
            error,
        )

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
