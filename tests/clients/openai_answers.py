"""Answers in OpenAI's formats, complete enough for the clients that parse them."""

import base64
import json
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Asked = Mapping[str, Any]

TEXT = "Hello there"
ARGUMENTS = '{"city":"Paris"}'
"""What every tool is called with, and what every structured answer says."""
_USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
_DONE = b"data: [DONE]\n\n"


def chat(asked: Asked) -> dict[str, Any]:
    """Return an answer of ``/v1/chat/completions``: a tool call if there are tools."""
    tool = _tool(asked)
    message: dict[str, Any] = {"role": "assistant", "content": None if tool else _text(asked)}
    if tool:
        message["tool_calls"] = [tool]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": "tool_calls" if tool else "stop",
    }
    return {**_head("chatcmpl-1", "chat.completion", asked), "choices": [choice], "usage": _USAGE}


def chat_events(asked: Asked) -> list[bytes]:
    """Return the events of a streamed chat."""
    tool = _tool(asked)
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if tool:
        begin = {**tool, "function": {**tool["function"], "arguments": ""}}
        deltas.append({"tool_calls": [{"index": 0, **begin}]})
        deltas += [
            {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}
            for part in _halves(ARGUMENTS)
        ]
    else:
        deltas += [{"content": part} for part in _halves(_text(asked))]
    head = _head("chatcmpl-1", "chat.completion.chunk", asked)
    last = "tool_calls" if tool else "stop"
    choices: list[dict[str, Any]] = [
        {"index": 0, "delta": delta, "finish_reason": None} for delta in deltas
    ]
    choices.append({"index": 0, "delta": {}, "finish_reason": last})
    chunks = [{**head, "choices": [choice]} for choice in choices]
    if (asked.get("stream_options") or {}).get("include_usage"):
        chunks.append({**head, "choices": [], "usage": _USAGE})
    return [*_data(chunks), _DONE]


def completion(asked: Asked) -> dict[str, Any]:
    """Return an answer of ``/v1/completions``."""
    choice = {"index": 0, "text": TEXT, "logprobs": None, "finish_reason": "stop"}
    return {**_head("cmpl-1", "text_completion", asked), "choices": [choice], "usage": _USAGE}


def completion_events(asked: Asked) -> list[bytes]:
    """Return the events of a streamed completion."""
    head = _head("cmpl-1", "text_completion", asked)
    choices: list[dict[str, Any]] = [
        {"index": 0, "text": part, "logprobs": None, "finish_reason": None}
        for part in _halves(TEXT)
    ]
    choices[-1]["finish_reason"] = "stop"
    return [*_data({**head, "choices": [choice]} for choice in choices), _DONE]


def response(asked: Asked) -> dict[str, Any]:
    """Return an answer of ``/v1/responses``, without its ID."""
    tools = asked.get("tools") or []
    item: dict[str, Any]
    if tools:
        item = {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": tools[0]["name"],
            "arguments": ARGUMENTS,
            "status": "completed",
        }
    else:
        text = {"type": "output_text", "text": TEXT, "annotations": [], "logprobs": []}
        item = {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [text],
        }
    return {
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": asked.get("model", "base"),
        "output": [item],
        "parallel_tool_calls": True,
        "previous_response_id": asked.get("previous_response_id"),
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": tools,
        "top_p": 1.0,
        "usage": {
            "input_tokens": 3,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 5,
        },
    }


def response_events(made: Mapping[str, Any]) -> list[bytes]:
    """Return the events of a streamed response. The first one has its ID."""
    begun = {**made, "status": "in_progress", "output": [], "usage": None}
    item = made["output"][0]
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": _empty(item)},
    ]
    if item["type"] == "message":
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        part = item["content"][0]
        events += [
            {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
            *(
                {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
                for piece in _halves(TEXT)
            ),
            {"type": "response.output_text.done", **place, "text": TEXT, "logprobs": []},
            {"type": "response.content_part.done", **place, "part": part},
        ]
    events += [
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": made},
    ]
    return [
        f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': n})}\n\n".encode()
        for n, event in enumerate(events)
    ]


def realtime_begin(asked: Asked) -> dict[str, Any]:
    """Return the first event of ``/v1/realtime``."""
    session = {"type": "realtime", "id": "sess_1", "object": "realtime.session"}
    return {
        "type": "session.created",
        "event_id": "event_1",
        "session": {**session, "model": asked["model"]},
    }


def realtime_answer(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer of one event."""
    place = {"event_id": "event_2", "item_id": "item_1", "response_id": "resp_1"}
    assert message["type"] == "response.create"
    return {
        "type": "response.output_text.done",
        **place,
        "output_index": 0,
        "content_index": 0,
        "text": TEXT,
    }


def error(message: str, param: str | None) -> dict[str, Any]:
    """Return vLLM's error for something that is not there."""
    return {
        "error": {"message": message, "type": "NotFoundError", "param": param, "code": 404},
    }


def page(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a list as the only page."""
    return {
        "object": "list",
        "data": found,
        "has_more": False,
        "first_id": found[0]["id"] if found else None,
        "last_id": found[-1]["id"] if found else None,
    }


def _embedding(asked: Asked) -> dict[str, Any]:
    inputs = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
    vector: Any = [0.5, -0.5]
    if asked.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack("<2f", 0.5, -0.5)).decode()
    data = [{"object": "embedding", "index": n, "embedding": vector} for n in range(len(inputs))]
    return {**_head("embd-1", "list", asked), "data": data, "usage": _USAGE}


def _transcription(_asked: Asked) -> dict[str, Any]:
    return {"text": TEXT, "usage": {"type": "duration", "seconds": 1}}


def _images(_asked: Asked) -> dict[str, Any]:
    return {"created": int(time.time()), "data": [{"b64_json": base64.b64encode(b"P").decode()}]}


def _moderation(asked: Asked) -> dict[str, Any]:
    result = {
        "flagged": False,
        "categories": {},
        "category_scores": {},
        "category_applied_input_types": {},
    }
    return {"id": "modr-1", "model": asked.get("model", "base"), "results": [result]}


def _rerank(asked: Asked) -> dict[str, Any]:
    results = [
        {"index": n, "document": {"text": text}, "relevance_score": 0.5}
        for n, text in enumerate(asked["documents"])
    ]
    return {
        "id": "rerank-1",
        "model": asked["model"],
        "results": results,
        "usage": {"total_tokens": 5},
    }


DOCUMENTS: dict[str, Callable[[Asked], dict[str, Any]]] = {
    "/v1/embeddings": _embedding,
    "/v1/audio/transcriptions": _transcription,
    "/v1/audio/translations": _transcription,
    "/v1/images/generations": _images,
    "/v1/images/edits": _images,
    "/v1/moderations": _moderation,
    "/v1/rerank": _rerank,
}
"""Paths whose answer is one document that depends on the request alone."""


def _head(name: str, kind: str, asked: Asked) -> dict[str, Any]:
    return {
        "id": name,
        "object": kind,
        "created": int(time.time()),
        "model": asked.get("model", "base"),
    }


def _text(asked: Asked) -> str:
    """Return the text of an answer, which is a document if one is asked for."""
    kind = (asked.get("response_format") or {}).get("type", "text")
    return TEXT if kind == "text" else ARGUMENTS


def _tool(asked: Asked) -> dict[str, Any] | None:
    """Return a call of the first tool."""
    if not asked.get("tools"):
        return None
    name = asked["tools"][0]["function"]["name"]
    return {
        "id": "call_1",
        "type": "function",
        "function": {"name": name, "arguments": ARGUMENTS},
    }


def _empty(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item of a response as it is when it begins."""
    empty: dict[str, Any] = {"content": []} if item["type"] == "message" else {"arguments": ""}
    return {**item, "status": "in_progress", **empty}


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


def _data(chunks: Iterable[Mapping[str, Any]]) -> list[bytes]:
    return [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
