"""A pod that records its requests, with as much of vLLM's HTTP API as Envoy and the router use."""

import asyncio
import itertools
import json
import ssl
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiohttp import web

from lora_router.listening import shown_address

_arrivals = itertools.count()
_WAITS = {"tokens": 1, "pause": 0, "waits": True}


@dataclass(frozen=True)
class Received:
    """One request, as a pod received it."""

    pod: str
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    arrival: int = field(default_factory=lambda: next(_arrivals))
    """Position in the order of all requests to pods of this process."""

    def header(self, name: str) -> list[str]:
        """Return all values of a header, in order."""
        return [value for key, value in self.headers if key.lower() == name]


@dataclass
class EchoPod:
    """Serves ``base`` and some adapters on a free loopback port.

    A response to a JSON body with ``"named": true`` names the model as the request did.

    A JSON body with ``"tokens": N`` and ``"pause": seconds`` gets a streamed response. With
    ``"waits": true``, and on the path ``/waits``, the response ends when ``may_end`` is set.
    """

    name: str
    adapters: tuple[str, ...] = ()
    running: str = ""
    """Value of the running and the waiting label of ``lora_requests_info``."""
    max_lora: int = 2
    received: list[Received] = field(default_factory=list)
    aborted: int = 0
    """Responses that were cut because the client closed the connection."""
    address: str = ""
    page: str | None = None
    """The metrics page, at any path that ends with ``/metrics``. Default: a page of vLLM."""
    lists_models: bool = True
    tls: ssl.SSLContext | None = None
    """With it, the pod takes TLS connections only."""
    host: str = "127.0.0.1"
    keys: dict[str, str | None] = field(default_factory=dict)
    """The header ``authorization`` of the last read of each page, by path."""
    may_end: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 28)
        app.router.add_get("/{prefix:.*}metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        self._add_routes(app)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        # With an address, the pod starts again after its end.
        port = int(self.address.rpartition(":")[2] or 0)
        site = web.TCPSite(self._runner, self.host, port, reuse_address=True, ssl_context=self.tls)
        await site.start()
        self.address = shown_address(self.host, self._runner.addresses[0][1])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    def _add_routes(self, app: web.Application) -> None:
        """Add what is not there for the router."""
        app.router.add_get("/v1/realtime", self._realtime)
        app.router.add_route("*", "/{path:.*}", self._echo)

    async def _metrics(self, request: web.Request) -> web.Response:
        self.keys[request.path] = request.headers.get("authorization")
        if self.page is not None:
            return web.Response(text=self.page, status=200 if self.page else 404)
        labels = (
            f'max_lora="{self.max_lora}",running_lora_adapters="{self.running}",'
            f'waiting_lora_adapters="{self.running}"'
        )
        return web.Response(
            text=(
                'vllm:num_requests_running{engine="0",model_name="base"} 0.0\n'
                'vllm:num_requests_waiting{engine="0",model_name="base"} 0.0\n'
                f"vllm:lora_requests_info{{{labels}}} 1.7954272141419287e+09\n"
            )
        )

    async def _models(self, request: web.Request) -> web.Response:
        self.keys[request.path] = request.headers.get("authorization")
        if not self.lists_models:
            return web.Response(status=404)
        listed = [{"id": "base", "parent": None}]
        listed += [{"id": name, "parent": "base"} for name in self.adapters]
        return web.json_response({"object": "list", "data": listed})

    def _record(self, request: web.Request, body: bytes) -> None:
        headers = list(request.headers.items())
        self.received.append(Received(self.name, request.method, request.path_qs, headers, body))

    async def _realtime(self, request: web.Request) -> web.StreamResponse:
        if "upgrade" not in request.headers:
            return await self._echo(request)
        self._record(request, b"")
        socket = web.WebSocketResponse()
        socket.headers["x-pod"] = self.name
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    async def _echo(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self._record(request, body)
        try:
            document = _WAITS if request.path == "/waits" else json.loads(body)
            is_named = bool(document.get("named"))
            if is_named and "tokens" not in document:
                named = {"pod": self.name, "model": document["model"]}
                return web.json_response(named, headers={"x-pod": self.name})
            tokens, pause = int(document["tokens"]), float(document["pause"])
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return web.json_response({"pod": self.name}, headers={"x-pod": self.name})
        answer = web.StreamResponse(
            headers={"x-pod": self.name, "content-type": "text/event-stream; charset=utf-8"}
        )
        try:
            await answer.prepare(request)
            for number in range(tokens):
                text = json.dumps({"model": document["model"]}) if is_named else str(number)
                await answer.write(f"data: {text}\n\n".encode())
                await asyncio.sleep(pause)
            if document.get("waits"):
                await self.may_end.wait()
            await answer.write(b"data: [DONE]\n\n")
        except (ConnectionError, asyncio.CancelledError):
            self.aborted += 1
            raise
        return answer
