"""One simulated pod over HTTP: vLLM's OpenAI-compatible server around the engine model.

Every answer has two headers for tests and the demo: ``x-pod``, and ``x-adapter-state``, which is
the state of the request's adapter at its arrival: ``active`` (a request for it was running here),
``resident`` (loaded and idle), ``cold``, or ``base`` (the request asks for the base model).
"""

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiohttp import web

from lora_router.simulator import completions
from lora_router.simulator.completions import CHAT, COMPLETION, EVENT_STREAM, EventWriter, Shape
from lora_router.simulator.driver import EngineDriver, Generation
from lora_router.simulator.engine import Engine, EngineRequest
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.loaded_adapters import LoadedAdapters
from lora_router.simulator.metrics_page import CONTENT_TYPE, MetricsPage, models_document
from lora_router.simulator.requests import (
    BLOCK_TOKENS,
    Asked,
    RequestError,
    read_completion,
    read_embedding,
    read_transcription,
)

_REMEMBERED_REQUESTS = 1000
_WATCHED = ("/metrics", "/health", "/debug/")
"""Paths that are read to observe the pod. They are not counted as requests."""


@dataclass(frozen=True, slots=True)
class PodOptions:
    """The options of a simulated pod."""

    name: str
    base: str = "base"
    adapters: tuple[str, ...] = ()
    preload: bool = False
    """Whether all adapters are in host memory at the start."""
    host: str = "127.0.0.1"
    port: int = 0
    """0: any free port."""
    stream_interval: int = 1
    """Tokens in each event of a stream after the first one, like vLLM's option of this name."""
    prompt_tokens_details: bool = False
    """Whether the usage in answers names the prompt tokens that were cached, like vLLM's option
    ``--enable-prompt-tokens-details``."""
    runtime_loading: bool = True
    """Whether adapters can be loaded and unloaded, as with vLLM's environment variable
    ``VLLM_ALLOW_RUNTIME_LORA_UPDATING``."""
    engine: EngineOptions = field(default_factory=EngineOptions)

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: An option is invalid.
        """
        if self.stream_interval < 1:
            raise ValueError(f"stream_interval must be at least 1, not {self.stream_interval}")
        if self.base in self.adapters:
            raise ValueError(f"the base model {self.base!r} cannot be an adapter too")


class SimulatedPod:
    """A pod that runs in this process: ``async with SimulatedPod(options) as pod``."""

    def __init__(self, options: PodOptions) -> None:
        self.options = options
        self.engine = Engine(options.engine)
        if options.preload:
            self.engine.preload(options.adapters)
        self.address = ""
        """``host:port``, once it listens."""
        self.requests: deque[str] = deque(maxlen=_REMEMBERED_REQUESTS)
        """The last requests, as ``METHOD /path``."""
        self.request_count = 0
        self._page = MetricsPage(self.engine, options.base)
        self._driver = EngineDriver(self.engine, self._page)
        self.adapters = LoadedAdapters(options.base, options.adapters, self._driver.load)
        self._started = int(time.time())
        app = web.Application(client_max_size=1 << 28, middlewares=[self._answer])
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/debug/state", self._state)
        app.router.add_get("/debug/requests", self._requests)
        app.router.add_route("*", "/debug/echo", self._echo)
        if options.runtime_loading:
            self.adapters.add_routes(app.router)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._completion)
        app.router.add_post("/v1/embeddings", self._embedding)
        app.router.add_post("/v1/audio/transcriptions", self._transcription)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.options.host, self.options.port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        port = self._runner.addresses[0][1]
        self.address = f"{self.options.host}:{port}"
        self._driver.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()
        await self._driver.stop()

    # Every request

    @web.middleware
    async def _answer(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Record the request, and format all errors as vLLM does."""
        if not request.path.startswith(_WATCHED):
            self.requests.append(f"{request.method} {request.path}")
            self.request_count += 1
        try:
            return await handler(request)
        except RequestError as error:
            return self._error(error)
        except web.HTTPException as error:
            kind = "NotFoundError" if error.status == 404 else "Bad Request"
            return self._error(RequestError(error.status, kind, error.reason))

    def _error(self, error: RequestError) -> web.Response:
        return completions.error_response(error, {"x-pod": self.options.name})

    # Pages

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._page.render(), headers={"content-type": CONTENT_TYPE})

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response(
            models_document(self.options.base, self.adapters.roots, self._started)
        )

    async def _state(self, _request: web.Request) -> web.Response:
        engine = self.engine
        return web.json_response(
            {
                "pod": self.options.name,
                "running": len(engine.running),
                "waiting": len(engine.waiting),
                "deferred": engine.deferred,
                "slots": dict(engine.slots),
                "max_loras": engine.options.max_loras,
                "loads": engine.loads,
                "slot_waits": engine.slot_waits,
            }
        )

    async def _requests(self, _request: web.Request) -> web.Response:
        return web.json_response({"count": self.request_count, "requests": list(self.requests)})

    async def _echo(self, request: web.Request) -> web.Response:
        """Return the request as it arrived, with its headers and without its body."""
        return web.json_response(
            {
                "pod": self.options.name,
                "method": request.method,
                "path": request.path_qs,
                "headers": [[name.lower(), value] for name, value in request.headers.items()],
                "body_bytes": len(await request.read()),
            }
        )

    # Generating

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._complete(request, CHAT)

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        return await self._complete(request, COMPLETION)

    async def _complete(self, request: web.Request, shape: Shape) -> web.StreamResponse:
        asked = await read_completion(request)
        model, jobs, headers = self._admit(request, asked)
        details = self.options.prompt_tokens_details
        async with self._driver.generate(jobs) as generation:
            if not asked.stream:
                await _until_last(generation)
                answered = completions.completion(shape, model, *jobs, details=details)
                return web.json_response(answered, headers=headers)
            # As in vLLM, the status is sent at once and the first event with the first token.
            answer = web.StreamResponse(headers={**headers, "content-type": EVENT_STREAM})
            await answer.prepare(request)
            writers = [
                EventWriter(
                    shape,
                    model,
                    job,
                    interval=self.options.stream_interval,
                    include_usage=asked.include_usage,
                    details=details,
                    index=index,
                )
                for index, job in enumerate(jobs)
            ]
            left = len(jobs)
            async for number, last in generation:
                left -= last
                event = writers[number].token(last=last)
                if not left:
                    event += writers[0].ending(*jobs[1:])
                if event:
                    await answer.write(event)
            return answer

    async def _embedding(self, request: web.Request) -> web.Response:
        asked = await read_embedding(request)
        model, [job], headers = self._admit(request, asked)
        async with self._driver.generate([job]) as generation:
            await _until_last(generation)
        return web.json_response(completions.embedding(model, job, asked.inputs), headers=headers)

    async def _transcription(self, request: web.Request) -> web.Response:
        asked = await read_transcription(request)
        _model, [job], headers = self._admit(request, asked)
        async with self._driver.generate([job]) as generation:
            await _until_last(generation)
        return web.json_response(completions.transcription(job), headers=headers)

    def _admit(
        self, request: web.Request, asked: Asked
    ) -> tuple[str, list[EngineRequest], dict[str, str]]:
        """Return the model's name, the requests for the engine, and the answer's headers.

        As in vLLM, each choice of an answer is a request of the engine.
        """
        base = self.options.base
        model = asked.model or base
        if model != base and model not in self.adapters:
            raise completions.unknown_model(model, base)
        adapter = None if model == base else model
        name = request.headers.get("x-request-id") or uuid.uuid4().hex
        now = asyncio.get_running_loop().time()
        jobs = [
            EngineRequest(
                adapter=adapter,
                prompt_tokens=asked.prompt_tokens,
                output_tokens=asked.output_tokens,
                arrived=now,
                id=name,
                blocks=asked.blocks,
                block_tokens=BLOCK_TOKENS,
            )
            for _ in range(asked.choices)
        ]
        return model, jobs, {"x-pod": self.options.name, "x-adapter-state": self._found(adapter)}

    def _found(self, adapter: str | None) -> str:
        if adapter is None:
            return "base"
        if adapter in self.engine.active:
            return "active"
        return "resident" if adapter in self.engine.slots else "cold"


async def _until_last(generation: Generation) -> None:
    async for _last in generation:
        pass
