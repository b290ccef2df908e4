"""``StreamEndpoints`` over grpcio."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from lora_router.endpoint_discovery import service
from lora_router.endpoint_discovery.grpcio_handler import endpoints_handler
from lora_router.endpoint_discovery.service import PATH, EndpointDiscovery
from tests.fleet import ManualClock, make_fleet, make_pod
from tests.unit.endpoint_discovery.envoy_side import Received, read, request


class Router:
    """A gRPC server that only tells its pods."""

    def __init__(self) -> None:
        self.fleet = make_fleet(1)
        self.clock = ManualClock()
        self.discovery = EndpointDiscovery(self.fleet, self.clock)
        self.clock.advance(1)
        self.server = grpc.aio.server()
        self.server.add_generic_rpc_handlers((endpoints_handler(self.discovery),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    def join(self, number: int) -> None:
        self.fleet.upsert(make_pod(number))
        self.clock.advance(1)


@pytest_asyncio.fixture
async def router() -> AsyncIterator[Router]:
    made = Router()
    await made.server.start()
    yield made
    made.discovery.close()
    await made.server.stop(1)


@pytest_asyncio.fixture
async def channel(router: Router) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{router.port}") as made:
        yield made


async def receive(call: grpc.aio.StreamStreamCall) -> Received:
    return read(await call.read())


async def test_an_envoy_follows_the_pods(router: Router, channel: grpc.aio.Channel) -> None:
    call = channel.stream_stream(PATH)()
    await call.write(request("pods"))
    first = await receive(call)
    router.join(2)
    await call.write(request("pods", nonce=first.nonce))

    assert len(first.pods) == 1
    assert len((await receive(call)).pods) == 2
    assert router.discovery.open_streams == 1

    await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK
    assert router.discovery.open_streams == 0


async def test_a_rejection_is_counted_and_the_next_version_follows(
    router: Router, channel: grpc.aio.Channel
) -> None:
    call = channel.stream_stream(PATH)()
    await call.write(request("pods"))
    first = await receive(call)
    await call.write(request("pods", nonce=first.nonce, rejects="malformed IP address"))
    router.join(2)

    assert len((await receive(call)).pods) == 2
    assert router.discovery.rejected == 1


async def test_what_is_no_request_ends_its_stream(channel: grpc.aio.Channel) -> None:
    call = channel.stream_stream(PATH)()
    await call.write(b"\xff")

    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_client_that_leaves_is_forgotten(router: Router, channel: grpc.aio.Channel) -> None:
    call = channel.stream_stream(PATH)()
    await call.write(request("pods"))
    await receive(call)
    call.cancel()

    async with asyncio.timeout(60):
        while router.discovery.open_streams:
            await asyncio.sleep(0.01)


async def test_a_router_that_stops_ends_the_streams_and_accepts_no_more(
    router: Router, channel: grpc.aio.Channel
) -> None:
    call = channel.stream_stream(PATH)()
    await call.write(request("pods"))
    await receive(call)

    router.discovery.close()

    assert await call.code() is grpc.StatusCode.UNAVAILABLE
    assert await channel.stream_stream(PATH)().code() is grpc.StatusCode.UNAVAILABLE


async def test_streams_over_the_limit_are_refused(
    router: Router, channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_STREAMS", 1)
    first = channel.stream_stream(PATH)()
    await first.write(request("pods"))
    await receive(first)

    assert await channel.stream_stream(PATH)().code() is grpc.StatusCode.UNAVAILABLE
    assert router.discovery.open_streams == 1
