"""``llama-index`` with the integrations for servers like OpenAI's."""

from typing import Any

import pytest

pytest.importorskip(
    "llama_index.llms.openai_like", reason="`make test-clients` installs the clients"
)

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike, OpenAILikeResponses

from tests.clients.openai_answers import TEXT
from tests.clients.service import REPEATS, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"rain in {city}"


@pytest.fixture
def common(service: Service) -> dict[str, Any]:
    return {"api_base": service.openai_url, "api_key": "none", "max_retries": 0}


async def test_chat_stream_and_tools(service: Service, common: dict[str, Any], model: str) -> None:
    asked = [ChatMessage(role="user", content="Hello")]
    llm = OpenAILike(model=model, is_chat_model=True, is_function_calling_model=True, **common)

    answer = await llm.achat(asked)
    text = "".join([piece.delta or "" async for piece in await llm.astream_chat(asked)])
    called = await llm.apredict_and_call([FunctionTool.from_defaults(weather)], "Hello")

    assert (answer.message.content, text) == (TEXT, TEXT)
    assert str(called) == "rain in Paris"
    assert service.models == [model] * 3


async def test_completion(service: Service, common: dict[str, Any], model: str) -> None:
    llm = OpenAILike(model=model, is_chat_model=False, **common)

    answer = await llm.acomplete("Hello")

    assert answer.text == TEXT
    assert service.models == [model]


async def test_embeddings(service: Service, common: dict[str, Any], model: str) -> None:
    embedding = OpenAILikeEmbedding(model_name=model, **common)

    assert await embedding.aget_text_embedding("Hello") == [0.5, -0.5]
    assert service.models == [model]


async def test_what_names_a_response_reaches_the_pod_that_made_it(
    service: Service, common: dict[str, Any]
) -> None:
    for _ in range(REPEATS):
        service.forget()
        llm = OpenAILikeResponses(model="base", track_previous_responses=True, **common)
        for _turn in range(3):
            answer = await llm.achat([ChatMessage(role="user", content="Hello")])
            assert answer.message.content == TEXT

        assert len(service.calls) == 3
        assert len({call.pod for call in service.calls}) == 1
