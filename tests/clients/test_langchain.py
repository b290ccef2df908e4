"""``langchain-openai``."""

from typing import Any

import pytest

langchain_openai = pytest.importorskip(
    "langchain_openai", reason="`make test-clients` installs the clients"
)

from pydantic import BaseModel  # noqa: E402

from tests.clients.openai_answers import TEXT  # noqa: E402
from tests.clients.service import REPEATS, Service  # noqa: E402

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Weather(BaseModel):
    """The weather of a city."""

    city: str


@pytest.fixture
def common(service: Service) -> dict[str, Any]:
    return {"base_url": service.openai_url, "api_key": "none", "max_retries": 0}


async def test_chat_stream_and_tools(service: Service, common: dict[str, Any], model: str) -> None:
    chat = langchain_openai.ChatOpenAI(model=model, **common)

    answer = await chat.ainvoke("Hello")
    text = "".join([piece.text async for piece in chat.astream("Hello")])
    called = await chat.bind_tools([Weather]).ainvoke("Hello")

    assert (answer.text, text) == (TEXT, TEXT)
    assert called.tool_calls[0]["args"] == {"city": "Paris"}
    assert service.models == [model] * 3


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
async def test_structured_output(
    service: Service, common: dict[str, Any], model: str, method: str
) -> None:
    chat = langchain_openai.ChatOpenAI(model=model, **common)

    answer = await chat.with_structured_output(Weather, method=method).ainvoke("Hello in JSON")

    assert answer.city == "Paris"
    assert service.models == [model]


async def test_embeddings(service: Service, common: dict[str, Any], model: str) -> None:
    # Otherwise it counts tokens with a tokenizer that it gets from the network.
    embeddings = langchain_openai.OpenAIEmbeddings(
        model=model, check_embedding_ctx_length=False, **common
    )

    assert await embeddings.aembed_documents(["one", "two"]) == [[0.5, -0.5], [0.5, -0.5]]
    assert service.models == [model]


async def test_what_names_a_response_reaches_the_pod_that_made_it(
    service: Service, common: dict[str, Any]
) -> None:
    chat = langchain_openai.ChatOpenAI(
        model="base", use_responses_api=True, use_previous_response_id=True, **common
    )
    for _ in range(REPEATS):
        service.forget()
        first = await chat.ainvoke("Hello")
        second = await chat.ainvoke([("user", "Hello"), first, ("user", "And then?")])

        assert second.text == TEXT
        assert len(service.calls) == 2
        assert len({call.pod for call in service.calls}) == 1
