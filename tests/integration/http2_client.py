"""A client that speaks HTTP/2 and sends trailers, which usual clients cannot."""

import asyncio
from collections.abc import Iterable, Mapping

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset


async def request(
    port: int,
    pieces: Iterable[bytes],
    *,
    path: str = "/v1/completions",
    headers: Mapping[str, str] | None = None,
    trailers: Mapping[str, str] | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """Send a request; return status, headers and body of its response.

    Raises:
        TimeoutError: There is no response after a long time.
        ConnectionError: The stream or the connection ends without one.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(60):
            connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
            connection.initiate_connection()
            listed = {
                ":method": "POST",
                ":path": path,
                ":scheme": "http",
                ":authority": "gateway",
                "content-type": "application/json",
                **(headers or {}),
            }
            connection.send_headers(1, list(listed.items()))
            writer.write(connection.data_to_send())
            last = list(pieces)
            for number, piece in enumerate(last, 1):
                await _send(connection, reader, writer, piece)
                if number == len(last) and not trailers:
                    connection.end_stream(1)
                writer.write(connection.data_to_send())
                await writer.drain()
            if trailers:
                connection.send_headers(1, list(trailers.items()), end_stream=True)
                writer.write(connection.data_to_send())
            return await _response(connection, reader, writer)
    finally:
        writer.close()


async def _send(
    connection: H2Connection,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    piece: bytes,
) -> None:
    while piece:
        room = min(connection.local_flow_control_window(1), connection.max_outbound_frame_size)
        if room:
            connection.send_data(1, piece[:room])
            piece = piece[room:]
            writer.write(connection.data_to_send())
            continue
        data = await reader.read(65536)
        if not data:
            raise ConnectionError("the connection was closed")
        connection.receive_data(data)
        writer.write(connection.data_to_send())


async def _response(
    connection: H2Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[int, dict[str, str], bytes]:
    headers: dict[str, str] = {}
    body = b""
    while data := await reader.read(65536):
        for event in connection.receive_data(data):
            if isinstance(event, ResponseReceived):
                headers = {str(name): str(value) for name, value in event.headers or ()}
            elif isinstance(event, DataReceived):
                body += event.data or b""
                connection.acknowledge_received_data(event.flow_controlled_length or 0, 1)
            elif isinstance(event, StreamEnded):
                return int(headers[":status"]), headers, body
            elif isinstance(event, StreamReset):
                raise ConnectionError(f"the stream was reset: {event.error_code}")
        writer.write(connection.data_to_send())
    raise ConnectionError("the connection was closed")
