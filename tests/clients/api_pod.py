"""A pod that speaks the APIs of OpenAI and Anthropic as far as their clients read the answers.

It is strict where routing matters: it knows only its own models, and only the IDs that it made.
"""

import itertools
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.clients import anthropic_answers, openai_answers
from tests.clients.stored import Stored
from tests.integration.echo_pod import EchoPod

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_ROUTER = "lora-router"
"""How the router's name begins when it reads pages or probes a pod by itself."""
_ASKED = web.RequestKey("asked", dict)
_order = itertools.count()


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as a pod saw it."""

    pod: str
    method: str
    path: str
    model: str
    """The model that it names; empty if it names none."""
    status: int
    order: int


class UnknownError(Exception):
    """The request names something that this pod does not have."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass
class ApiPod(EchoPod):
    """A pod with the endpoints that clients call."""

    calls: list[Call] = field(default_factory=list)
    stored: Stored = field(init=False)

    def __post_init__(self) -> None:
        self.stored = Stored(self.name)

    @property
    def models(self) -> tuple[str, ...]:
        """All models that it serves."""
        return ("base", *self.adapters)

    def _add_routes(self, app: web.Application) -> None:
        app.middlewares.append(self._watch)
        add = app.router.add_route
        for path, answer in openai_answers.DOCUMENTS.items():
            add("POST", path, self._document(answer))
        add("POST", "/openai/deployments/{model}/chat/completions", self._chat)
        add("POST", "/v1/chat/completions", self._chat)
        add("POST", "/v1/completions", self._completion)
        add("POST", "/v1/audio/speech", self._speech)
        add("GET", "/v1/realtime", self._realtime)
        add("POST", "/v1/messages", self._message)
        add("POST", "/v1/messages/count_tokens", self._document(anthropic_answers.token_count))
        add("POST", "/v1/responses", self._response)
        add("GET", "/v1/responses/{id}", self._stored("responses"))
        add("DELETE", "/v1/responses/{id}", self._delete("responses"))
        add("POST", "/v1/responses/{id}/cancel", self._stored("responses"))
        add("GET", "/v1/responses/{id}/input_items", self._items("responses"))
        add("POST", "/v1/conversations", self._conversation)
        add("GET", "/v1/conversations/{id}", self._stored("conversations"))
        add("DELETE", "/v1/conversations/{id}", self._delete("conversations"))
        add("GET", "/v1/conversations/{id}/items", self._items("conversations"))
        add("POST", "/v1/files", self._upload)
        add("GET", "/v1/files", self._list("files"))
        add("GET", "/v1/files/{id}", self._stored("files"))
        add("DELETE", "/v1/files/{id}", self._delete("files"))
        add("GET", "/v1/files/{id}/content", self._content)
        add("POST", "/v1/batches", self._batch)
        add("GET", "/v1/batches", self._list("batches"))
        add("GET", "/v1/batches/{id}", self._stored("batches"))
        add("POST", "/v1/batches/{id}/cancel", self._cancelled_batch)

    @web.middleware
    async def _watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse models that are not here, and remember every request of a client."""
        # On Azure's paths the model is in the path, and a WebSocket has it in the query.
        asked = {**request.query, **request.match_info, **await _asked(request)}
        model = asked.get("model", "")
        request[_ASKED] = asked
        if request.headers.get("user-agent", "").startswith(_ROUTER):
            return await handler(request)
        try:
            if model and model not in self.models:
                raise UnknownError(f"The model `{model}` does not exist.", "model")
            answer = await handler(request)
        except UnknownError as error:
            answer = self._not_found(request, error)
        except web.HTTPException as error:
            self._remember(request, model, error.status)
            raise
        self._remember(request, model, answer.status)
        return answer

    def _remember(self, request: web.Request, model: str, status: int) -> None:
        call = Call(self.name, request.method, request.path, model, status, next(_order))
        self.calls.append(call)

    def _not_found(self, request: web.Request, error: UnknownError) -> web.Response:
        error_of = anthropic_answers.error if "/messages" in request.path else openai_answers.error
        return self._json(error_of(str(error), error.param), status=404)

    def _json(self, document: object, status: int = 200) -> web.Response:
        return web.json_response(document, status=status, headers={"x-pod": self.name})

    # Answers that depend on the request alone

    def _document(self, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return self._json(answer(request[_ASKED]))

        return handle

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = request[_ASKED]
        if asked.get("stream"):
            return await self._events(request, openai_answers.chat_events(asked))
        return self._json(openai_answers.chat(asked))

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        asked = request[_ASKED]
        if asked.get("stream"):
            return await self._events(request, openai_answers.completion_events(asked))
        return self._json(openai_answers.completion(asked))

    async def _message(self, request: web.Request) -> web.StreamResponse:
        asked = request[_ASKED]
        if asked.get("stream"):
            return await self._events(request, anthropic_answers.message_events(asked))
        return self._json(anthropic_answers.message(asked))

    async def _speech(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"RIFF sound", content_type="audio/wav")

    async def _realtime(self, request: web.Request) -> web.WebSocketResponse:
        """Answer each message of a WebSocket with its type."""
        asked: dict[str, Any] = request[_ASKED]
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json(openai_answers.realtime_begin(asked))
        async for message in socket:
            await socket.send_json(openai_answers.realtime_answer(message.json()))
        return socket

    async def _events(self, request: web.Request, events: list[bytes]) -> web.StreamResponse:
        answer = web.StreamResponse(
            headers={"x-pod": self.name, "content-type": "text/event-stream; charset=utf-8"}
        )
        await answer.prepare(request)
        for event in events:
            await answer.write(event)
        return answer

    # What this pod made, and no other pod knows

    async def _response(self, request: web.Request) -> web.StreamResponse:
        asked = request[_ASKED]
        for kind, name in (
            ("responses", asked.get("previous_response_id")),
            ("conversations", _id(asked.get("conversation"))),
        ):
            if name:
                self._find(kind, name)
        made = self.stored.add("responses", openai_answers.response(asked))
        if asked.get("stream"):
            return await self._events(request, openai_answers.response_events(made))
        return self._json(made)

    async def _conversation(self, _request: web.Request) -> web.StreamResponse:
        return self._json(self.stored.add("conversations", {"metadata": {}}))

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        file = form["file"]
        assert isinstance(file, web.FileField)
        content = file.file.read()
        made = self.stored.add(
            "files",
            {
                "bytes": len(content),
                "filename": file.filename,
                "purpose": str(form["purpose"]),
                "status": "processed",
            },
        )
        self.stored.contents[made["id"]] = content
        return self._json(made)

    async def _content(self, request: web.Request) -> web.StreamResponse:
        file = self._find("files", request.match_info["id"])
        return web.Response(body=self.stored.contents[file["id"]])

    async def _batch(self, request: web.Request) -> web.StreamResponse:
        asked = request[_ASKED]
        self._find("files", asked["input_file_id"])
        wanted = {name: asked[name] for name in ("input_file_id", "endpoint", "completion_window")}
        return self._json(self.stored.add("batches", {**wanted, "status": "in_progress"}))

    async def _cancelled_batch(self, request: web.Request) -> web.StreamResponse:
        batch = self._find("batches", request.match_info["id"])
        batch["status"] = "cancelling"
        return self._json(batch)

    def _find(self, kind: str, name: str) -> dict[str, Any]:
        found = self.stored.find(kind, name)
        if found is None:
            raise UnknownError(f"{kind}: '{name}' not found on {self.name}.", "id")
        return found

    def _stored(self, kind: str) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return self._json(self._find(kind, request.match_info["id"]))

        return handle

    def _delete(self, kind: str) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            found = self._find(kind, request.match_info["id"])
            self.stored.remove(kind, found["id"])
            return self._json({"id": found["id"], "object": found["object"], "deleted": True})

        return handle

    def _items(self, kind: str) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            self._find(kind, request.match_info["id"])
            return self._json(openai_answers.page([]))

        return handle

    def _list(self, kind: str) -> Handler:
        async def handle(_request: web.Request) -> web.StreamResponse:
            return self._json(openai_answers.page(self.stored.all(kind)))

        return handle


async def _asked(request: web.Request) -> Mapping[str, Any]:
    """Return the fields of the body: a JSON object's or a form's."""
    if request.content_type == "application/json":
        body = await request.read()
        document = json.loads(body) if body else {}
        return document if isinstance(document, dict) else {}
    if request.content_type == "multipart/form-data":
        return dict((await request.post()).items())
    return {}


def _id(conversation: object) -> str:
    """Return the ID of a conversation, which stands alone or in an object."""
    if isinstance(conversation, dict):
        return str(conversation["id"])
    return str(conversation or "")
