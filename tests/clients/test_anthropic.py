"""Anthropic's Python client, and the calls of Claude Code, which uses the same API."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

anthropic = pytest.importorskip("anthropic", reason="`make test-clients` installs the clients")

from tests.clients.anthropic_answers import TEXT  # noqa: E402
from tests.clients.service import MODELS, REPEATS, Service  # noqa: E402

pytestmark = pytest.mark.asyncio(loop_scope="session")

MESSAGES = [{"role": "user", "content": "Hello"}]
TOOLS = [
    {
        "name": "weather",
        "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
    }
]
LONG = [{"role": "user", "content": "Hello " * 200_000}]
CLAUDE_CODE = ["claude-code-20250219", "interleaved-thinking-2025-05-14"]
SYSTEM = [{"type": "text", "text": "You are", "cache_control": {"type": "ephemeral"}}]


@pytest_asyncio.fixture(loop_scope="session")
async def client(service: Service) -> AsyncIterator[Any]:
    async with anthropic.AsyncAnthropic(
        base_url=service.url, api_key="none", max_retries=0
    ) as client:
        yield client


async def test_message(service: Service, client: Any, model: str) -> None:
    answer = await client.messages.create(model=model, max_tokens=16, messages=MESSAGES)

    assert (answer.content[0].text, answer.model) == (TEXT, model)
    assert service.models == [model]


async def test_stream(service: Service, client: Any, model: str) -> None:
    async with client.messages.stream(model=model, max_tokens=16, messages=MESSAGES) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        last = await stream.get_final_message()

    assert (text, last.stop_reason, last.usage.output_tokens) == (TEXT, "end_turn", 2)
    assert service.models == [model]


async def test_tools(service: Service, client: Any, model: str) -> None:
    answer = await client.messages.create(
        model=model, max_tokens=16, messages=MESSAGES, tools=TOOLS
    )
    call = answer.content[0]
    followed = await client.messages.create(
        model=model,
        max_tokens=16,
        messages=[
            *MESSAGES,
            {"role": "assistant", "content": answer.content},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "Rain"}],
            },
        ],
    )

    assert (answer.stop_reason, call.name, call.input) == ("tool_use", "weather", {"city": "Paris"})
    assert followed.content[0].text == TEXT
    assert service.models == [model, model]


async def test_streamed_tools(service: Service, client: Any, model: str) -> None:
    async with client.messages.stream(
        model=model, max_tokens=16, messages=MESSAGES, tools=TOOLS
    ) as stream:
        answer = await stream.get_final_message()

    assert answer.content[0].input == {"city": "Paris"}
    assert service.models == [model]


async def test_count_tokens(service: Service, client: Any, model: str) -> None:
    for _ in range(REPEATS):
        counted = await client.messages.count_tokens(model=model, messages=MESSAGES)

        assert counted.input_tokens == 3
    assert service.models == [model] * REPEATS


async def test_the_calls_of_claude_code(service: Service, client: Any, model: str) -> None:
    session = client.with_options(default_headers={"x-app": "cli", "user-agent": "claude-cli/2.0"})
    common = {"model": model, "messages": LONG, "tools": TOOLS, "betas": CLAUDE_CODE}

    counted = await session.beta.messages.count_tokens(**common, system=SYSTEM)
    async with session.beta.messages.stream(
        **common, system=SYSTEM, max_tokens=16, metadata={"user_id": "user_1"}
    ) as stream:
        answer = await stream.get_final_message()
    one = await session.beta.models.retrieve(model)

    assert counted.input_tokens == 3
    assert answer.content[0].input == {"city": "Paris"}
    assert one.id == model
    assert service.models == [model, model]


async def test_models(service: Service, client: Any) -> None:
    for _ in range(REPEATS):
        listed = [model.id async for model in client.models.list()]
        paged = [model.id async for model in client.models.list(limit=1)]

        assert listed == paged == sorted(MODELS)
    for name in MODELS:
        found = await client.models.retrieve(name)
        assert (found.id, found.type) == (name, "model")
    assert service.calls == []


async def test_an_unknown_model_is_an_error_in_the_shape_of_this_api(
    service: Service, client: Any
) -> None:
    with pytest.raises(anthropic.NotFoundError) as message:
        await client.messages.create(model="nobody", max_tokens=16, messages=MESSAGES)
    with pytest.raises(anthropic.NotFoundError) as counted:
        await client.messages.count_tokens(model="nobody", messages=MESSAGES)
    with pytest.raises(anthropic.NotFoundError) as one:
        await client.models.retrieve("nobody")

    for error in (message, counted, one):
        assert error.value.body["type"] == "error"
        assert error.value.body["error"]["type"] == "not_found_error"
        assert "nobody" in error.value.body["error"]["message"]
    assert service.calls == []
