"""A pod whose answers state how many tokens they took, as servers do, or do not."""

import asyncio
import json
from dataclasses import dataclass

from aiohttp import web

from tests.integration.echo_pod import EchoPod


@dataclass
class UsagePod(EchoPod):
    """Answers with what the field ``answer`` of a request says.

    A list becomes a stream of events. With ``"waits": true``, its last event is not sent before
    ``may_end`` is set. With ``"cut": true``, the connection is closed instead.
    """

    async def _echo(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self._record(request, body)
        document = json.loads(body)
        answer, headers = document["answer"], {"x-pod": self.name}
        if not isinstance(answer, list):
            response = web.json_response(answer, headers=headers)
            if document.get("compressed"):
                response.enable_compression(web.ContentCoding.gzip)
            return response
        stream = web.StreamResponse(
            headers=headers | {"content-type": "text/event-stream; charset=utf-8"}
        )
        await stream.prepare(request)
        *events, last = answer
        for event in events:
            await stream.write(f"data: {json.dumps(event)}\n\n".encode())
            await asyncio.sleep(0)
        if document.get("waits"):
            await self.may_end.wait()
        if document.get("cut"):
            assert request.transport is not None
            request.transport.abort()
            return stream
        await stream.write(f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n".encode())
        return stream
