"""``instructor``, which turns answers into records, over both APIs."""

import pytest

instructor = pytest.importorskip("instructor", reason="`make test-clients` installs the clients")

from anthropic import AsyncAnthropic  # noqa: E402
from openai import AsyncOpenAI  # noqa: E402
from pydantic import BaseModel  # noqa: E402

from tests.clients.service import Service  # noqa: E402

pytestmark = pytest.mark.asyncio(loop_scope="session")

MESSAGES = [{"role": "user", "content": "Hello"}]


class Weather(BaseModel):
    """The weather of a city."""

    city: str


@pytest.mark.parametrize("mode", ["TOOLS", "JSON", "JSON_SCHEMA"])
async def test_chat(service: Service, model: str, mode: str) -> None:
    async with AsyncOpenAI(base_url=service.openai_url, api_key="none") as plain:
        client = instructor.from_openai(plain, mode=instructor.Mode[mode])

        answer = await client.chat.completions.create(
            model=model, messages=MESSAGES, response_model=Weather, max_retries=0
        )

    assert answer.city == "Paris"
    assert service.models == [model]


async def test_a_stream_of_partial_records(service: Service, model: str) -> None:
    async with AsyncOpenAI(base_url=service.openai_url, api_key="none") as plain:
        client = instructor.from_openai(plain)

        parts = [
            part
            async for part in client.chat.completions.create_partial(
                model=model, messages=MESSAGES, response_model=Weather, max_retries=0
            )
        ]

    assert parts[-1].city == "Paris"
    assert service.models == [model]


async def test_messages(service: Service, model: str) -> None:
    async with AsyncAnthropic(base_url=service.url, api_key="none") as plain:
        client = instructor.from_anthropic(plain)

        answer = await client.messages.create(
            model=model,
            max_tokens=16,
            messages=MESSAGES,
            response_model=Weather,
            max_retries=0,
        )

    assert answer.city == "Paris"
    assert service.models == [model]
