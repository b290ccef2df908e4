"""Connections, streams and bursts that the process bounds, over real sockets."""

import asyncio
import ssl
from pathlib import Path

import grpc

from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.tls import load_tls
from lora_router.grpc_server import frames
from lora_router.grpc_server.frames import frame, rst_stream
from lora_router.grpc_server.limits import Limits, ProcessLimits, Rate
from tests.integration.certificates import Certificates
from tests.integration.test_grpc_server_wire import HELLO, Served, Socket
from tests.integration.test_grpc_server_wire import serving as serving_echo
from tests.integration.test_transports import serving as serving_sessions
from tests.unit.extproc.conversation import request_body, request_headers
from tests.unit.grpc_server.peer import message
from tests.waiting import until

TWO = ProcessLimits(connections=2)


async def greeted(served: Served) -> Socket:
    """Return a client whose greeting the server has answered."""
    client = await Socket.connected(served)
    await answer(client)
    return client


async def answer(client: Socket) -> bytes:
    """Return what the server sends next; empty: it has closed the connection."""
    async with asyncio.timeout(60):
        try:
            return await client.reader.read(2**16)
        except ConnectionResetError:
            return b""


async def test_one_connection_too_many_is_closed_and_the_others_stay() -> None:
    async with serving_echo(process_limits=TWO) as served:
        clients = [await greeted(served) for _ in range(2)]
        await until(lambda: all(wire.greeted for wire in served.server._connections))

        late = await Socket.connected(served)
        assert await answer(late) == b""
        assert served.server.bounds.refused_connections == 1

        clients[0].writer.close()
        await until(lambda: served.connections == 1)
        another = await Socket.connected(served)
        assert await answer(another)
        for client in (*clients, late, another):
            client.writer.close()


async def test_who_is_silent_makes_room_for_a_gateway() -> None:
    async with serving_echo(process_limits=TWO) as served:
        silent = [await Socket.connected(served, b"") for _ in range(2)]
        await until(lambda: served.connections == 2)
        gateways = [await greeted(served) for _ in range(2)]

        for client in silent:
            while await answer(client):
                pass
        assert served.server.bounds.refused_connections == 0
        for client in (*silent, *gateways):
            client.writer.close()


async def test_who_does_not_finish_its_tls_handshake_makes_room(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    server_context = load_tls(certificates.files(mutual=False)).context
    async with serving_echo(
        tls=server_context, process_limits=ProcessLimits(connections=1)
    ) as served:
        silent = await Socket.connected(served, b"")
        await asyncio.sleep(0.05)
        context = ssl.create_default_context(cafile=str(certificates.client_ca))
        context.set_alpn_protocols(["h2"])
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", served.port, ssl=context, server_hostname="localhost"
        )
        gateway = Socket(reader, writer)
        writer.write(HELLO)

        assert await answer(gateway)
        assert await answer(silent) == b""
        for client in (silent, gateway):
            client.writer.close()


async def test_a_drain_ends_handshakes_too(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    async with serving_echo(tls=load_tls(certificates.files(mutual=False)).context) as served:
        silent = await Socket.connected(served, b"")
        await asyncio.sleep(0.05)
    assert await answer(silent) == b""
    silent.writer.close()


async def test_a_burst_of_frames_is_handled_in_turns_and_completely() -> None:
    limits = Limits(frames_per_turn=8)
    async with serving_echo(limits) as served:
        client = await greeted(served)
        numbers = range(1, 4001, 2)
        for number in numbers:
            client.open(number)
            client.writer.write(frame(frames.DATA, 0, number, message(b"mute")))
            client.writer.write(rst_stream(number, 8))
        await until(lambda: len(served.echo.taken) == len(numbers))
        await until(lambda: served.echo.open == served.server.bounds.streams == 0)
        client.open(5001)
        client.say(5001, message(b"x"))
        assert await answer(client)
        client.writer.close()


async def test_a_flood_of_resets_slows_down_only_who_floods() -> None:
    slow = ProcessLimits(resets=Rate(1, 20))
    async with serving_echo(process_limits=slow) as served:
        flooding, other = await greeted(served), await greeted(served)
        for number in range(1, 401, 2):
            flooding.open(number)
            flooding.writer.write(rst_stream(number, 8))
        flooding.open(401)
        flooding.say(401, message(b"late"))
        await until(lambda: served.server.bounds.resets.total >= 12)

        for number in range(1, 41, 2):
            other.open(number)
            other.say(number, message(b"soon"))
        await until(lambda: served.echo.taken.count(b"soon") == 20)

        assert served.echo.taken.count(b"late") == 0
        assert served.connections == 2
        for client in (flooding, other):
            client.writer.close()


async def test_streams_of_all_connections_are_bounded(transport: str) -> None:
    limits = ProcessLimits(streams=3)
    async with serving_sessions(transport, process_limits=limits) as served:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(served.address, options=options) for _ in range(2)]
        calls = [served.process(channel, timeout=60) for channel in channels for _ in range(2)]
        answered = 0
        for call in calls:
            try:
                await call.write(request_headers())
                answered += await call.read() is not grpc.aio.EOF
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                assert await call.code() in (
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.INTERNAL,  # Of the client: it was still writing.
                )
        assert answered == 3
        for channel in channels:
            await channel.close()
        await until(lambda: served.idle)


async def test_bodies_that_are_collected_wait_for_room_or_are_refused(transport: str) -> None:
    limits = ProcessLimits(buffered_bytes=16 * 2**20, wait_seconds=0.3)
    async with serving_sessions(transport, process_limits=limits) as served:
        budget = served.transport.bounds.budget
        async with grpc.aio.insecure_channel(served.address) as channel:
            mode = ProcessingMode.FULL_DUPLEX_STREAMED
            size = 7 * 2**20
            headers = request_headers(mode=mode, headers=[("content-length", b"%d" % size)])
            calls = [served.process(channel) for _ in range(2)]
            for call in calls:
                await call.write(headers)
                await call.write(request_body(b'{"x": "' + b"y" * 40_000, end=False))
                await asyncio.sleep(0.05)
            assert budget.used <= budget.limit
            refused = await calls[1].read()
            while not refused.HasField("immediate_response"):
                refused = await calls[1].read()
            assert refused.immediate_response.status.code == 503

            for _ in range(68):
                await calls[0].write(request_body(b"y" * 100_000, end=False))
            await calls[0].write(request_body(b'", "model": "base"}'))
            assert (await calls[0].read()).HasField("override_message_timeout")
            assert (await calls[0].read()).HasField("request_headers")
            for call in calls:
                call.cancel()
        await until(lambda: served.idle and budget.used == 0)


async def test_connections_are_bounded_as_far_as_the_transport_can(transport: str) -> None:
    async with serving_sessions(transport, process_limits=ProcessLimits(connections=2)) as served:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(served.address, options=options) for _ in range(4)]
        answers = 0
        for channel in channels:
            # The last ones may wait for an answer that does not come.
            call = served.process(channel, timeout=60 if answers < 2 else 1)
            try:
                await call.write(request_headers())
                answers += await call.read() is not grpc.aio.EOF
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                continue
        assert answers == 2
        for channel in channels:
            await channel.close()


async def test_large_bodies_arrive_over_tls_too(transport: str, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    body = b'{"model": "base", "x": "' + b"y" * 6_000_000 + b'"}'
    async with serving_sessions(transport, tls=certificates.files(mutual=False)) as served:
        target = f"localhost:{served.transport.port}"
        credentials = certificates.credentials(client=None)
        async with grpc.aio.secure_channel(target, credentials) as channel:
            calls = [served.process(channel, timeout=60) for _ in range(4)]
            for call in calls:
                await call.write(request_headers())
                await call.read()
            await asyncio.gather(*(call.write(request_body(body)) for call in calls))
            answers = [await call.read() for call in calls]
            assert all(each.HasField("request_body") for each in answers)
            for call in calls:
                await call.done_writing()
                assert await call.code() == grpc.StatusCode.OK
        await until(lambda: served.idle)
        assert served.transport.bounds.budget.used == 0
