"""Answers of the simulated pod, compared with answers recorded from vLLM 0.32.0."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_router.simulator.completions import CHAT, COMPLETION, EventWriter, Shape, completion
from lora_router.simulator.engine import EngineRequest

DATA = Path(__file__).parents[2] / "data" / "vllm-0.32.0"


def job(tokens: int, *, generated: int = 0) -> EngineRequest:
    return EngineRequest(
        "a1", prompt_tokens=8, output_tokens=tokens, arrived=0.0, id="req-123", generated=generated
    )


def written(
    tokens: int, *, shape: Shape = CHAT, interval: int = 1, usage: bool = True
) -> list[bytes]:
    """Return the bytes that are sent with each token."""
    request = job(tokens)
    events = EventWriter(shape, "a1", request, interval=interval, include_usage=usage)
    chunks = []
    for number in range(1, tokens + 1):
        request.generated = number
        chunks.append(events.token(last=number == tokens))
    chunks[-1] += events.ending()
    return chunks


def events_of(stream: bytes) -> list[Any]:
    """Parse a stream. The last event is the text ``[DONE]``."""
    *events, nothing = stream.decode(errors="replace").split("\n\n")
    assert nothing == ""
    assert all(event.startswith("data: ") for event in events)
    texts = [event.removeprefix("data: ") for event in events]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


def test_a_chat_stream_has_the_events_of_a_recorded_one() -> None:
    recorded = events_of((DATA / "chat_stream_usage.sse").read_bytes())
    ours = events_of(b"".join(written(6)))
    assert len(ours) == len(recorded)
    assert ours[-1] == recorded[-1] == "[DONE]"
    for our, their in zip(ours[:-1], recorded[:-1], strict=True):
        assert our.keys() <= their.keys()
        assert our["id"] == their["id"]
        assert our["object"] == their["object"]
        assert our["model"] == their["model"]
        assert our.get("usage") == their.get("usage")
        assert len(our["choices"]) == len(their["choices"])
        for our_choice, their_choice in zip(our["choices"], their["choices"], strict=True):
            assert our_choice.keys() <= their_choice.keys()
            assert our_choice["delta"].keys() == their_choice["delta"].keys()
            assert our_choice["finish_reason"] == their_choice["finish_reason"]


def test_the_last_event_has_no_choices_and_the_usage_only_if_asked_for() -> None:
    *_, last, _done = events_of(b"".join(written(2)))
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 2
    *_, last, _done = events_of(b"".join(written(2, usage=False)))
    assert last["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("tokens", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("interval", [1, 3, 100])
@pytest.mark.parametrize("shape", [CHAT, COMPLETION])
def test_no_token_is_lost_whatever_the_interval(tokens: int, interval: int, shape: Shape) -> None:
    chunks = written(tokens, interval=interval, shape=shape)
    assert chunks[0], "the first token never waits for others"
    events = [event for event in events_of(b"".join(chunks)) if event != "[DONE]"]
    texts = [
        choice["delta"]["content"] if shape is CHAT else choice["text"]
        for event in events
        for choice in event["choices"]
    ]
    assert "".join(texts) == " token" * tokens


def test_an_event_between_the_first_and_the_last_has_one_interval_of_tokens() -> None:
    sizes = [len(events_of(chunk)) for chunk in written(8, interval=3, usage=False)]
    # The role and the first token; then every third token; then the rest with the end.
    assert sizes == [2, 0, 0, 1, 0, 0, 1, 2]


def test_a_text_completion_has_the_recorded_format() -> None:
    recorded = json.loads(json.loads((DATA / "error_bodies.json").read_text())["missing_model"][2])
    ours = completion(COMPLETION, "base", job(2, generated=2))
    assert ours.keys() <= recorded.keys()
    assert ours["object"] == recorded["object"]
    assert str(ours["id"]).startswith("cmpl-")
    choices: Any = ours["choices"]
    assert choices[0].keys() <= recorded["choices"][0].keys()
    assert choices[0]["text"] == " token token"
    usage: Any = ours["usage"]
    assert usage == {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}


def test_a_chat_completion_has_a_message() -> None:
    ours = completion(CHAT, "a1", job(1, generated=1))
    choices: Any = ours["choices"]
    assert ours["object"] == "chat.completion"
    assert choices[0]["message"] == {"role": "assistant", "content": " token"}
