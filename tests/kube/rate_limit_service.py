"""A rate limit service as Envoy asks one, which counts in memory."""

from collections import Counter
from types import TracebackType
from typing import Self

import grpc
from envoy_data_plane.envoy.service.ratelimit import v3 as ratelimit

from tests.kube.gateway_config import Document

_CODE = ratelimit.RateLimitResponseCode


class RateLimitService:
    """Refuses a tenant that used as many tokens as it may, or more."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used: Counter[str] = Counter()
        """By the value of the last entry of a descriptor, which is the tenant."""
        self.asked = 0

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(
            self._should_rate_limit,
            request_deserializer=ratelimit.RateLimitRequest.parse,
            response_serializer=bytes,
        )
        service = "envoy.service.ratelimit.v3.RateLimitService"
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {"ShouldRateLimit": handler}),)
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._server.stop(0)

    async def _should_rate_limit(
        self, request: ratelimit.RateLimitRequest, _context: object
    ) -> ratelimit.RateLimitResponse:
        self.asked += 1
        is_over = False
        for descriptor in request.descriptors:
            tenant = descriptor.entries[-1].value
            is_over |= self.used[tenant] >= self.limit
            hits = descriptor.hits_addend
            self.used[tenant] += request.hits_addend if hits is None else hits
        code = _CODE.OVER_LIMIT if is_over else _CODE.OK
        return ratelimit.RateLimitResponse(overall_code=code)

    def cluster(self) -> Document:
        """Return the cluster by which an Envoy of Envoy Gateway asks the service."""
        address = {"socketAddress": {"address": "127.0.0.1", "portValue": self.port}}
        name = "ratelimit_cluster"
        return {
            "name": name,
            "type": "STATIC",
            "connectTimeout": "10s",
            "loadAssignment": {
                "clusterName": name,
                "endpoints": [{"lbEndpoints": [{"endpoint": {"address": address}}]}],
            },
            "typedExtensionProtocolOptions": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/"
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicitHttpConfig": {"http2ProtocolOptions": {}},
                }
            },
        }
