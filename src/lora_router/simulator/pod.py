"""One simulated pod over HTTP: vLLM's OpenAI-style server around the engine model.

Every answer tells in headers what a test or a demo wants to know: ``x-pod``, and
``x-adapter-state``, which is how the request found its adapter when it arrived: ``active`` (a
request of it was running there), ``resident`` (loaded and idle), ``cold``, or ``base``.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from lora_router.simulator.engine import Engine, EngineOptions, EngineRequest
from lora_router.simulator.pages import CONTENT_TYPE, MetricsPage, models_document

_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class PodOptions:
    """What a simulated pod is like."""

    name: str
    base: str = "base"
    adapters: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 0
    """0 takes a free one."""
    engine: EngineOptions = field(default_factory=EngineOptions)


class SimulatedPod:
    """A pod that runs in this process: ``async with SimulatedPod(options) as pod``."""

    def __init__(self, options: PodOptions) -> None:
        self.options = options
        self.engine = Engine(options.engine)
        self.adapters = list(options.adapters)
        self.address = ""
        self._page = MetricsPage(self.engine, options.base)
        self._tokens: dict[EngineRequest, asyncio.Queue[bool]] = {}
        self._work = asyncio.Event()
        self._started = int(time.time())
        app = web.Application(client_max_size=1 << 28)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/debug/state", self._state)
        app.router.add_post("/v1/load_lora_adapter", self._load)
        app.router.add_post("/v1/unload_lora_adapter", self._unload)
        for path in ("/v1/chat/completions", "/v1/completions"):
            app.router.add_post(path, self._complete)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.options.host, self.options.port, shutdown_timeout=0.1)
        await site.start()
        port = self._runner.addresses[0][1]
        self.address = f"{self.options.host}:{port}"
        self._loop = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)
        await self._runner.cleanup()

    # The engine's loop

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            step = self.engine.begin_step(loop.time())
            if step is None:
                self._work.clear()
                await self._work.wait()
                due = loop.time()
                continue
            # Steps follow each other without drift, but never make up for lost time in a burst.
            due = max(due + step.seconds, loop.time())
            await asyncio.sleep(due - loop.time())
            batch = self.engine.end_step()
            self._page.note_step(batch, loop.time())
            for request in batch:
                queue = self._tokens.get(request)
                if queue is not None:
                    queue.put_nowait(request.finished)

    # Pages

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._page.render(), headers={"content-type": CONTENT_TYPE})

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response(models_document(self.options.base, self.adapters, self._started))

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

    async def _load(self, request: web.Request) -> web.Response:
        document = await _json(request)
        name = document.get("lora_name")
        if not isinstance(name, str) or not name:
            return _error(400, "BadRequestError", "'lora_name' must be given.", "lora_name")
        if name not in self.adapters:
            self.adapters.append(name)
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload(self, request: web.Request) -> web.Response:
        name = (await _json(request)).get("lora_name")
        if name not in self.adapters:
            return _error(404, "NotFoundError", "The adapter cannot be found.", "lora_name")
        self.adapters.remove(name)
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    # Generating

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        try:
            document = await _json(request)
        except ValueError:
            return _error(400, "Bad Request", "The body is not a JSON object.", None)
        model = document.get("model") or self.options.base
        if not isinstance(model, str):
            return _error(400, "Bad Request", "Input should be a valid string", "body.model")
        if model != self.options.base and model not in self.adapters:
            return _error(404, "NotFoundError", f"The model `{model}` does not exist.", "model")
        job = self._submit(model, document)
        headers = {"x-pod": self.options.name, "x-adapter-state": self._found(job)}
        try:
            if document.get("stream") is True:
                return await self._stream(request, model, job, headers, document)
            while not await self._tokens[job].get():
                pass
        finally:
            del self._tokens[job]
            if not job.finished:
                self.engine.abort(job)
                self._page.note_abort()
                self._work.set()
        answer = {
            "id": _completion_id(request),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": " token" * job.output_tokens},
                    "finish_reason": "length",
                }
            ],
            "usage": _usage(job),
        }
        return web.json_response(answer, headers=headers)

    def _submit(self, model: str, document: dict[str, Any]) -> EngineRequest:
        prompt = document.get("messages") or document.get("prompt") or ""
        job = EngineRequest(
            adapter=None if model == self.options.base else model,
            prompt_tokens=max(1, len(json.dumps(prompt)) // 4),
            output_tokens=_positive(document.get("max_tokens"), 16),
            arrived=asyncio.get_running_loop().time(),
        )
        self._tokens[job] = asyncio.Queue()
        self.engine.submit(job)
        self._work.set()
        return job

    def _found(self, job: EngineRequest) -> str:
        if job.adapter is None:
            return "base"
        if job.adapter in self.engine.active:
            return "active"
        return "resident" if job.adapter in self.engine.slots else "cold"

    async def _stream(
        self,
        request: web.Request,
        model: str,
        job: EngineRequest,
        headers: dict[str, str],
        document: dict[str, Any],
    ) -> web.StreamResponse:
        answer = web.StreamResponse(
            headers={**headers, "content-type": "text/event-stream; charset=utf-8"}
        )
        head: dict[str, object] = {
            "id": _completion_id(request),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        token = _event(head, [_choice({"content": " token"}, None)])
        last = _event(head, [_choice({"content": " token"}, "length")])
        finished = False
        # Like vLLM, nothing goes out before there is a token, not even the status.
        while not finished:
            finished = await self._tokens[job].get()
            if not answer.prepared:
                await answer.prepare(request)
                await answer.write(
                    _event(head, [_choice({"role": "assistant", "content": ""}, None)])
                )
            await answer.write(last if finished else token)
        options = document.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage"):
            await answer.write(_event({**head, "usage": _usage(job)}, []))
        await answer.write(b"data: [DONE]\n\n")
        return answer


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        document = json.loads(await request.read())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("not an object")
    return document


def _positive(value: object, default: int) -> int:
    return value if isinstance(value, int) and value > 0 else default


def _completion_id(request: web.Request) -> str:
    return f"chatcmpl-{request.headers.get('x-request-id', 'sim')}"


def _choice(delta: dict[str, object], finish_reason: str | None) -> dict[str, object]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _event(head: dict[str, object], choices: Sequence[object]) -> bytes:
    return b"data: " + json.dumps({**head, "choices": choices}).encode() + b"\n\n"


def _usage(job: EngineRequest) -> dict[str, int]:
    return {
        "prompt_tokens": job.prompt_tokens,
        "completion_tokens": job.generated,
        "total_tokens": job.prompt_tokens + job.generated,
    }


def _error(status: int, kind: str, message: str, param: str | None) -> web.Response:
    error = {"message": message, "type": kind, "param": param, "code": status}
    return web.json_response({"error": error}, status=status)
