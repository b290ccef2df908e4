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
    shape: Shape, model: str, *jobs: EngineRequest, details: bool = False
) -> dict[str, object]:
    """Return the answer of a request that is not streamed.

    Args:
        shape: The names of the endpoint.
        model: The model's name.
        jobs: What was generated for it, one for each choice. All have ended.
        details: Whether the usage names the cached tokens.
    """
    choices = []
    for index, job in enumerate(jobs):
        text = WORD * job.generated
        content: dict[str, object] = (
            {"message": {"role": "assistant", "content": text}} if shape.chat else {"text": text}
        )
        choices.append(_choice(content, "length", index))
    return {
        **_head(shape.id_prefix, shape.document, model, jobs[0]),
        "choices": choices,
        "system_fingerprint": _FINGERPRINT,
        "usage": _usage(*jobs, details=details),
    }


class EventWriter:
    """Turns the tokens of one choice of a stream into events.

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
        index: int = 0,
    ) -> None:
        self._shape = shape
        self._job = job
        self._interval = interval
        self._include_usage = include_usage
        self._details = details
        self._index = index
        self._head = _head(shape.id_prefix, shape.chunk, model, job)
        self._middle = self._text_event(interval, None)
        self._begun = False
        self._unsent = 0

    def token(self, *, last: bool) -> bytes:
        """Add a token; return the bytes to send now, which may be none.

        ``ending`` follows the last token.
        """
        self._unsent += 1
        if last:
            return self._opening() + self._text_event(self._unsent, "length")
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
        return self._event([_choice(role, None, self._index)])

    def ending(self, *others: EngineRequest) -> bytes:
        """Return what follows the last tokens of all choices.

        Args:
            others: What was generated for the other choices.
        """
        if not self._include_usage:
            return DONE
        usage = _usage(self._job, *others, details=self._details)
        return self._event([], usage=usage, system_fingerprint=_FINGERPRINT) + DONE

    def _text_event(self, tokens: int, finish_reason: str | None) -> bytes:
        text = WORD * tokens
        piece: dict[str, object] = (
            {"delta": {"content": text}} if self._shape.chat else {"text": text}
        )
        return self._event([_choice(piece, finish_reason, self._index)])

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


def _choice(
    content: Mapping[str, object], finish_reason: str | None, index: int
) -> dict[str, object]:
    # vLLM adds a stop reason only to the choice that ends the answer.
    stop = {} if finish_reason is None else {"stop_reason": None}
    return {"index": index, **content, "logprobs": None, "finish_reason": finish_reason, **stop}


def _usage(*jobs: EngineRequest, details: bool) -> dict[str, object]:
    """Return the usage of a request: its prompt once, and all choices."""
    job, generated = jobs[0], sum(each.generated for each in jobs)
    usage: dict[str, object] = {
        "prompt_tokens": job.prompt_tokens,
        "total_tokens": job.prompt_tokens + generated,
        "completion_tokens": generated,
    }
    # As in vLLM, nothing is said of a prompt without a cached token.
    if details and job.cached_tokens:
        usage["prompt_tokens_details"] = {"cached_tokens": job.cached_tokens}
    return usage
