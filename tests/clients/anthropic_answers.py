"""Answers in Anthropic's formats, complete enough for the clients that parse them."""

import json
from collections.abc import Mapping
from typing import Any

TEXT = "Hello there"
ARGUMENTS = '{"city":"Paris"}'
"""What every tool is called with."""

Asked = Mapping[str, Any]


def message(asked: Asked) -> dict[str, Any]:
    """Return an answer of ``/v1/messages``: a tool call if there are tools."""
    return {
        **_head(asked),
        "content": [_block(asked)],
        "stop_reason": _reason(asked),
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }


def message_events(asked: Asked) -> list[bytes]:
    """Return the events of a streamed message."""
    block = _block(asked)
    begun = {
        **_head(asked),
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 3, "output_tokens": 0},
    }
    if block["type"] == "text":
        empty = {**block, "text": ""}
        deltas = [{"type": "text_delta", "text": part} for part in _halves(TEXT)]
    else:
        empty = {**block, "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": part} for part in _halves(ARGUMENTS)]
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": empty},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": _reason(asked), "stop_sequence": None},
            "usage": {"output_tokens": 2},
        },
        {"type": "message_stop"},
    ]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]


def token_count(_asked: Asked) -> dict[str, Any]:
    """Return an answer of ``/v1/messages/count_tokens``."""
    return {"input_tokens": 3}


def error(text: str, _param: str | None) -> dict[str, Any]:
    """Return the error for something that is not there."""
    return {"type": "error", "error": {"type": "not_found_error", "message": text}}


def _head(asked: Asked) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": asked["model"],
        "stop_sequence": None,
    }


def _block(asked: Asked) -> dict[str, Any]:
    if tools := asked.get("tools"):
        arguments = json.loads(ARGUMENTS)
        return {"type": "tool_use", "id": "toolu_1", "name": tools[0]["name"], "input": arguments}
    return {"type": "text", "text": TEXT}


def _reason(asked: Asked) -> str:
    return "tool_use" if asked.get("tools") else "end_turn"


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]
