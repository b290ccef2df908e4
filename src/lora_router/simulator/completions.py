"""Answers of a simulated pod: documents and stream events in the formats of vLLM 0.32.0."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web

from lora_router.simulator.engine import EngineRequest
from lora_router.simulator.requests import RequestError

WORD = " token"
"""The text of every token."""
DONE = b"data: [DONE]\n\n"
EVENT_STREAM = "text/event-stream; charset=utf-8"
_FINGERPRINT = "vllm-0.32.0-simulated"


@dataclass(frozen=True, slots=True)
class Shape:
    """The names that an endpoint uses in its answers."""

    id_prefix: str
    document: str
    chunk: str
    chat: bool


CHAT = Shape("chatcmpl", "chat.completion", "chat.completion.chunk", chat=True)
COMPLETION = Shape("cmpl", "text_completion", "text_completion", chat=False)


def completion(
    shape: Shape, model: str, job: EngineRequest, *, details: bool = False
) -> dict[str, object]:
    """Return the answer of a request that is not streamed.

    Args:
        shape: The names of the endpoint.
        model: The model's name.
        job: The request, which has ended.
        details: Whether the usage names the cached tokens.
    """
    text = WORD * job.generated
    content: dict[str, object] = (
        {"message": {"role": "assistant", "content": text}} if shape.chat else {"text": text}
    )
    return {
        **_head(shape.id_prefix, shape.document, model, job),
        "choices": [_choice(content, "length")],
        "system_fingerprint": _FINGERPRINT,
        "usage": _usage(job, details=details),
    }


class EventWriter:
    """Turns the tokens of one stream into events.

    Each event between the first and the last one has ``interval`` tokens. These events are equal,
    so they are encoded once.
    """

    def __init__(
        self,
        shape: Shape,
        model: str,
        job: EngineRequest,
        *,
        interval: int,
        include_usage: bool,
        details: bool = False,
    ) -> None:
        self._shape = shape
        self._job = job
        self._interval = interval
        self._include_usage = include_usage
        self._details = details
        self._head = _head(shape.id_prefix, shape.chunk, model, job)
        self._middle = self._text_event(interval, None)
        self._begun = False
        self._unsent = 0

    def token(self, *, last: bool) -> bytes:
        """Add a token; return the bytes to send now, which may be none."""
        self._unsent += 1
        if last:
            return self._opening() + self._text_event(self._unsent, "length") + self._ending()
        if not self._begun:
            # The first token does not wait for further tokens.
            self._unsent = 0
            return self._opening() + self._text_event(1, None)
        if self._unsent < self._interval:
            return b""
        self._unsent = 0
        return self._middle

    def _opening(self) -> bytes:
        """Return the event before the first token. In a chat it names the role."""
        if self._begun or not self._shape.chat:
            self._begun = True
            return b""
        self._begun = True
        role = {"delta": {"role": "assistant", "content": ""}}
        return self._event([_choice(role, None)])

    def _ending(self) -> bytes:
        if not self._include_usage:
            return DONE
        usage = _usage(self._job, details=self._details)
        return self._event([], usage=usage, system_fingerprint=_FINGERPRINT) + DONE

    def _text_event(self, tokens: int, finish_reason: str | None) -> bytes:
        text = WORD * tokens
        piece: dict[str, object] = (
            {"delta": {"content": text}} if self._shape.chat else {"text": text}
        )
        return self._event([_choice(piece, finish_reason)])

    def _event(self, choices: Sequence[object], **rest: object) -> bytes:
        document = {**self._head, "choices": choices, **rest}
        return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def embedding(model: str, job: EngineRequest, inputs: int) -> dict[str, object]:
    """Return the answer of ``/v1/embeddings``, with the same short vector for each text."""
    tokens = job.prompt_tokens
    return {
        **_head("embd", "list", model, job),
        "data": [
            {"object": "embedding", "index": index, "embedding": [0.5, -0.5, 0.5, -0.5]}
            for index in range(inputs)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
    }


def transcription(job: EngineRequest) -> dict[str, object]:
    """Return the answer of ``/v1/audio/transcriptions``."""
    return {"text": WORD * job.generated, "usage": {"type": "duration", "seconds": 1}}


def unknown_model(model: str, base: str) -> RequestError:
    """Return vLLM's error for a model that the pod does not serve."""
    message = f"The model `{model}` does not exist. Valid aliases: {base}."
    return RequestError(404, "NotFoundError", message, "model")


def error_response(error: RequestError, headers: Mapping[str, str]) -> web.Response:
    """Return the response for an error."""
    document = {
        "message": error.message,
        "type": error.kind,
        "param": error.param,
        "code": error.status,
    }
    return web.json_response({"error": document}, status=error.status, headers=headers)


def _head(id_prefix: str, kind: str, model: str, job: EngineRequest) -> dict[str, object]:
    return {
        "id": f"{id_prefix}-{job.id}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def _choice(content: Mapping[str, object], finish_reason: str | None) -> dict[str, object]:
    # vLLM adds a stop reason only to the choice that ends the answer.
    stop = {} if finish_reason is None else {"stop_reason": None}
    return {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason, **stop}


def _usage(job: EngineRequest, *, details: bool) -> dict[str, object]:
    usage: dict[str, object] = {
        "prompt_tokens": job.prompt_tokens,
        "total_tokens": job.prompt_tokens + job.generated,
        "completion_tokens": job.generated,
    }
    # As in vLLM, nothing is said of a prompt without a cached token.
    if details and job.cached_tokens:
        usage["prompt_tokens_details"] = {"cached_tokens": job.cached_tokens}
    return usage
