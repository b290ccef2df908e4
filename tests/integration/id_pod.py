"""A pod that makes IDs: of responses, also as a stream of events, of files and of batches."""

import asyncio
import json
from dataclasses import dataclass, field

from aiohttp import web

from tests.integration.echo_pod import EchoPod


@dataclass
class IdPod(EchoPod):
    """Knows only the IDs that it made. IDs contain its name, so that tests see who made one."""

    made: set[str] = field(default_factory=set)

    async def _echo(self, request: web.Request) -> web.StreamResponse:
        _, kind, *rest = request.path.strip("/").split("/")
        body = await request.read()
        document = json.loads(body) if request.content_type == "application/json" and body else {}
        named = [*rest[:1]] + [
            document[name]
            for name in ("previous_response_id", "input_file_id")
            if document.get(name)
        ]
        if any(each not in self.made for each in named):
            return self._answer({"error": {"code": "the_pod_does_not_know_it"}}, 404)
        if rest or request.method != "POST":
            return self._answer({"id": rest[0] if rest else "", "pod": self.name})
        made = f"{kind}-{self.name}-{len(self.made)}"
        self.made.add(made)
        if not document.get("stream"):
            return self._answer({"id": made, "pod": self.name})
        answer = web.StreamResponse(
            headers={"x-pod": self.name, "content-type": "text/event-stream; charset=utf-8"}
        )
        await answer.prepare(request)
        created = json.dumps({"type": "response.created", "response": {"id": made}})
        await answer.write(f"event: response.created\ndata: {created}\n\n".encode())
        for number in range(int(document.get("tokens", 3))):
            await answer.write(f"data: {number}\n\n".encode())
            await asyncio.sleep(float(document.get("pause", 0)))
        return answer

    def _answer(self, document: object, status: int = 200) -> web.Response:
        return web.json_response(document, status=status, headers={"x-pod": self.name})
