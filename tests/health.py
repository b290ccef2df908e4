"""A client of the gRPC health checking protocol."""

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc


async def health(port: int, service: str) -> int:
    """Return the status of a service, as a number of the protocol."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        status: int = answer.status
        return status
