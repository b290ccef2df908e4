"""A grpcio client gets the same results from both transports."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lora_router.extproc.builtin_transport import BuiltinTransport
from lora_router.extproc.grpcio_transport import GrpcioTransport
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingResponse
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.transport import PROCESS_PATH, SERVICE, Transport
from lora_router.extproc.transport_error import TransportError
from lora_router.grpc_server.pb.reflection_pb2 import ServerReflectionRequest
from lora_router.grpc_server.reflection import METHOD, SERVICES
from tests.fleet import make_fleet
from tests.integration.calls import end_of
from tests.integration.certificates import Certificates
from tests.unit.extproc.conversation import Conversation, request_body, request_headers
from tests.unit.extproc.test_session_fuzz import Moody
from tests.waiting import until

MAX_MESSAGE = 8 * 1024 * 1024
GROWING_SECONDS = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Times that a test waits for, and that may be too short for a busy machine."""
MAKERS: dict[str, Callable[..., Transport]] = {
    "builtin": BuiltinTransport,
    "grpcio": GrpcioTransport,
}
BODY = request_body(b'{"model": "base"}')
HELD = request_body(b'{"model": "held"}')


@dataclass
class Served:
    """A transport with sessions behind it."""

    transport: Transport
    conversation: Conversation

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.transport.port}"

    def process(self, channel: grpc.aio.Channel, **options: object) -> grpc.aio.StreamStreamCall:
        method = channel.stream_stream(
            PROCESS_PATH,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=ProcessingResponse.FromString,
        )
        return method(**options)

    @property
    def idle(self) -> bool:
        return self.transport.open_streams == 0 and self.conversation.fleet.ledger.total == 0


@asynccontextmanager
async def serving(name: str, **options: object) -> AsyncIterator[Served]:
    fleet = make_fleet(1, adapters=["held"])
    conversation = Conversation(fleet, algorithm=Moody(), max_body_bytes=MAX_MESSAGE)
    transport = MAKERS[name](
        conversation.context,
        **{"host": "127.0.0.1", "port": 0, "max_message_bytes": MAX_MESSAGE, **options},
    )
    await transport.start()
    try:
        yield Served(transport, conversation)
    finally:
        await transport.drain(0)


@pytest.fixture
async def served(transport: str) -> AsyncIterator[Served]:
    async with serving(transport) as made:
        yield made


@pytest.fixture
async def channel(served: Served) -> AsyncIterator[grpc.aio.Channel]:
    options = [
        ("grpc.max_receive_message_length", 2 * MAX_MESSAGE),
        ("grpc.max_send_message_length", 2 * MAX_MESSAGE),
        ("grpc.max_metadata_size", 2**20),
    ]
    async with grpc.aio.insecure_channel(served.address, options=options) as made:
        yield made


async def route(call: grpc.aio.StreamStreamCall) -> ProcessingResponse:
    await call.write(request_headers())
    await call.read()
    await call.write(BODY)
    answer: ProcessingResponse = await call.read()
    return answer


async def test_a_conversation(served: Served, channel: grpc.aio.Channel) -> None:
    call = served.process(channel)
    answer = await route(call)
    assert answer.HasField("request_body")
    assert (served.transport.open_streams, served.conversation.fleet.ledger.total) == (1, 1)

    await call.done_writing()

    assert await call.code() == grpc.StatusCode.OK
    assert await call.initial_metadata() is not None
    assert served.idle


async def test_many_conversations_at_once(served: Served, channel: grpc.aio.Channel) -> None:
    async def one() -> grpc.StatusCode:
        call = served.process(channel)
        await route(call)
        await call.done_writing()
        return await call.code()

    codes = await asyncio.gather(*(one() for _ in range(200)))
    assert set(codes) == {grpc.StatusCode.OK}
    assert served.idle


async def test_a_cancelled_call_gives_its_request_back(
    served: Served, channel: grpc.aio.Channel
) -> None:
    call = served.process(channel)
    await route(call)
    call.cancel()

    await until(lambda: served.idle)


async def test_a_held_request_is_answered_when_a_slot_frees(
    served: Served, channel: grpc.aio.Channel
) -> None:
    first, second = served.process(channel), served.process(channel)
    for call in (first, second):
        await call.write(request_headers())
        await call.read()
        await call.write(HELD)
        await call.read()
    await first.done_writing()

    assert (await second.read()).HasField("request_body")
    second.cancel()
    await until(lambda: served.idle)


async def test_a_deadline_ends_the_call_and_gives_its_request_back(
    served: Served, channel: grpc.aio.Channel
) -> None:
    for seconds in GROWING_SECONDS:
        call = served.process(channel, timeout=seconds)
        # On a busy machine, a short deadline can pass before the request is routed.
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            if await route(call) is not grpc.aio.EOF:
                break

    assert served.conversation.fleet.ledger.total == 1
    assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: served.idle)


async def test_a_body_of_megabytes_goes_there_and_back(
    served: Served, channel: grpc.aio.Channel
) -> None:
    call = served.process(channel)
    mode = ProcessingMode.FULL_DUPLEX_STREAMED
    await call.write(request_headers(mode=mode))
    document = b'{"model": "base", "x": "' + b"y" * 5_000_000 + b'"}'
    await call.write(request_body(document))
    assert (await call.read()).HasField("override_message_timeout")
    assert (await call.read()).HasField("request_headers")
    back = b""
    while len(back) < len(document):
        answer = await call.read()
        back += answer.request_body.response.body_mutation.streamed_response.body

    assert back == document
    await call.done_writing()
    assert await call.code() == grpc.StatusCode.OK


def statuses(answers: list[ProcessingResponse]) -> list[int]:
    """Return what the client of a gateway gets."""
    return [answer.immediate_response.status.code for answer in answers]


async def test_a_message_over_the_limit_is_refused(
    served: Served, channel: grpc.aio.Channel, transport: str
) -> None:
    call = served.process(channel)
    await call.write(request_headers())
    await call.read()
    await call.write(request_body(b"x" * (MAX_MESSAGE + 1)))

    answers, code = await end_of(call)
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert statuses(answers) == ([413] if transport == "builtin" else [])
    await until(lambda: served.idle)


async def test_a_flood_of_metadata_is_refused_and_the_next_call_works(
    served: Served, channel: grpc.aio.Channel
) -> None:
    flood = [(f"x-{number}", "y" * 1000) for number in range(20)]
    call = served.process(channel, metadata=flood)
    assert await call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

    call = served.process(channel)
    await route(call)
    await call.done_writing()
    assert await call.code() == grpc.StatusCode.OK


@pytest.mark.parametrize("path", ["/nothing/Process", f"/{SERVICE}/Other", "/x"])
async def test_what_is_not_there_is_unimplemented(channel: grpc.aio.Channel, path: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await channel.unary_unary(path)(b"")
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_compressed_call_is_answered(served: Served, channel: grpc.aio.Channel) -> None:
    call = served.process(channel, compression=grpc.Compression.Gzip)
    await call.write(request_headers(headers=[("x", b"y" * 5000)]))
    assert (await call.read()).HasField("request_headers")
    await call.done_writing()

    assert await call.code() == grpc.StatusCode.OK


async def test_a_request_whose_gateway_closes_its_side_at_once_is_answered(
    served: Served, channel: grpc.aio.Channel
) -> None:
    first, second = served.process(channel), served.process(channel)
    await first.write(request_headers())
    await first.read()
    await first.write(HELD)
    await first.read()
    await second.write(request_headers())
    await second.write(HELD)
    await second.done_writing()
    assert (await second.read()).HasField("request_headers")
    assert (await second.read()).HasField("override_message_timeout")
    await first.done_writing()

    assert (await second.read()).HasField("request_body")
    assert await second.code() == grpc.StatusCode.OK
    await until(lambda: served.idle)


async def test_health_lists_its_services(served: Served, channel: grpc.aio.Channel) -> None:
    await served.transport.set_ready(ready=True)
    answer = await health_pb2_grpc.HealthStub(channel).List(health_pb2.HealthListRequest())
    serving = {name for name, each in answer.statuses.items() if each.status == 1}
    assert serving >= {"", "liveness", "readiness", "inference-extension", SERVICE}


async def test_a_session_that_fails_is_internal_and_the_next_one_works(
    served: Served, channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(served.conversation.context.director, "pass_through", lambda _subset: 1 / 0)
        call = served.process(channel)
        await call.write(request_headers(end=True))
        answers, code = await end_of(call)
        assert code == grpc.StatusCode.INTERNAL
        assert statuses(answers) == [503]
        assert await call.details() == "lora-router: internal error"
    call = served.process(channel)
    await route(call)
    call.cancel()
    await until(lambda: served.idle)


async def test_health_is_checked_and_watched(served: Served, channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    states = {}
    for service in ("", "readiness", "liveness", SERVICE):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        states[service] = answer.status
    not_serving, serving_ = 2, 1
    assert states == {
        "": not_serving,
        "readiness": not_serving,
        "liveness": serving_,
        SERVICE: not_serving,
    }

    watched = stub.Watch(health_pb2.HealthCheckRequest(service="readiness"))
    assert (await watched.read()).status == not_serving
    await served.transport.set_ready(ready=True)
    assert (await watched.read()).status == serving_
    watched.cancel()

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.Check(health_pb2.HealthCheckRequest(service="nothing"))
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_drain_waits_for_streams_and_lets_the_rest_go_with_ok(transport: str) -> None:
    for seconds in GROWING_SECONDS:
        # On a busy machine, a short drain can end before the first stream does.
        if await let_go_by_a_drain(transport, seconds) == 1:
            return
    pytest.fail("the drain did not wait for a stream that ended")


async def let_go_by_a_drain(transport: str, seconds: float) -> int:
    """Drain while two streams are open, and end one of them. Return how many were let go."""
    async with serving(transport) as served, grpc.aio.insecure_channel(served.address) as channel:
        ends, stays = served.process(channel), served.process(channel)
        await route(ends)
        await route(stays)

        draining = asyncio.create_task(served.transport.drain(seconds))
        async with asyncio.timeout(60):
            # The client has seen the GOAWAY.
            await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
        refused = served.process(channel)
        assert await refused.code() == grpc.StatusCode.UNAVAILABLE
        with suppress(asyncio.InvalidStateError):  # It was let go.
            await ends.done_writing()
        assert await ends.code() == grpc.StatusCode.OK

        let_go = await draining
        assert await stays.code() == grpc.StatusCode.OK
        assert served.idle
        return let_go


async def test_a_hurried_drain_lets_streams_go_at_once(
    served: Served, channel: grpc.aio.Channel
) -> None:
    stays = served.process(channel)
    await route(stays)
    draining = asyncio.create_task(served.transport.drain(600))
    await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)
    served.transport.hurry()
    async with asyncio.timeout(60):
        assert await draining == 1
    assert await stays.code() == grpc.StatusCode.OK


async def test_a_drain_ends_calls_that_watch_or_ask(
    served: Served, channel: grpc.aio.Channel
) -> None:
    watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    await watched.read()
    asking = channel.stream_stream(f"/{SERVICES[0]}/{METHOD}")()
    await asking.write(ServerReflectionRequest(list_services="").SerializeToString())
    await asking.read()
    async with asyncio.timeout(60):
        draining = asyncio.create_task(served.transport.drain(600))
        for call in (watched, asking):
            assert await call.code() == grpc.StatusCode.UNAVAILABLE
        assert await draining == 0


async def test_a_drain_of_nothing_takes_no_time(served: Served, channel: grpc.aio.Channel) -> None:
    await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    async with asyncio.timeout(60):
        assert await served.transport.drain(600) == 0


async def test_an_address_that_cannot_be_had_is_told(served: Served, transport: str) -> None:
    with pytest.raises(TransportError, match=f"cannot listen on {served.address} for gRPC"):
        async with serving(transport, port=served.transport.port):
            pass


async def test_ipv6_is_listened_on(transport: str) -> None:
    async with serving(transport, host="::") as served:
        for host in ("127.0.0.1", "[::1]"):
            async with grpc.aio.insecure_channel(f"{host}:{served.transport.port}") as channel:
                call = served.process(channel)
                await route(call)
                call.cancel()


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


async def works(served: Served, credentials: grpc.ChannelCredentials) -> bool:
    target = f"localhost:{served.transport.port}"
    async with grpc.aio.secure_channel(target, credentials) as channel:
        call = served.process(channel, timeout=60)
        try:
            await route(call)
            await call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass
        code = await call.code()
        assert code in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
        return bool(code == grpc.StatusCode.OK)


async def test_tls(transport: str, certificates: Certificates) -> None:
    async with serving(transport, tls=certificates.files(mutual=False)) as served:
        assert await works(served, certificates.credentials(client=None))
        assert served.idle


async def test_mutual_tls(transport: str, certificates: Certificates) -> None:
    async with serving(transport, tls=certificates.files(mutual=True)) as served:
        assert await works(served, certificates.credentials(client=certificates.authority))
        assert not await works(served, certificates.credentials(client=certificates.stranger))
        assert not await works(served, certificates.credentials(client=None))
        await until(lambda: served.idle)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("certificate", "grpc_tls_cert_file: .*: cannot be read: No such file"),
        ("key", "grpc_tls_key_file: .*: cannot be read: No such file"),
        ("client_ca", "grpc_tls_client_ca_file: .*: cannot be read: No such file"),
    ],
)
async def test_a_tls_file_that_is_missing_is_named(
    transport: str, certificates: Certificates, broken: str, message: str
) -> None:
    getattr(certificates, broken).unlink()
    with pytest.raises(TransportError, match=message):
        async with serving(transport, tls=certificates.files(mutual=True)):
            pass


@pytest.mark.parametrize("broken", ["certificate", "key", "client_ca"])
async def test_a_tls_file_that_is_something_else_is_named(
    transport: str, certificates: Certificates, broken: str
) -> None:
    path: Path = getattr(certificates, broken)
    path.write_text("hello")
    with pytest.raises(TransportError, match=str(path)):
        async with serving(transport, tls=certificates.files(mutual=True)):
            pass


async def test_a_key_of_another_certificate_is_told(
    transport: str, certificates: Certificates
) -> None:
    certificates.key.unlink()
    certificates.stranger.issue_cert("x").private_key_pem.write_to_path(certificates.key)
    with pytest.raises(TransportError, match="key values mismatch"):
        async with serving(transport, tls=certificates.files(mutual=False)):
            pass
