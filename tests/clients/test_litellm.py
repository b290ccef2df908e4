"""LiteLLM, as a library."""

from typing import Any

import pytest

with pytest.MonkeyPatch.context() as patch:
    # The list of prices is part of the package. Without this, the import asks for a newer one.
    patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm = pytest.importorskip("litellm", reason="`make test-clients` installs the clients")

from tests.clients.openai_answers import ARGUMENTS, TEXT
from tests.clients.prompts import CHAT_TOOLS, MESSAGES, SOUND
from tests.clients.service import REPEATS, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture(params=["openai", "hosted_vllm"])
def provider(request: pytest.FixtureRequest) -> str:
    """The two ways in which LiteLLM calls servers like vLLM."""
    name: str = request.param
    return name


@pytest.fixture
def common(service: Service) -> dict[str, Any]:
    return {"api_base": service.openai_url, "api_key": "none", "max_retries": 0}


async def test_chat_stream_and_tools(
    service: Service, common: dict[str, Any], provider: str, model: str
) -> None:
    asked = {"model": f"{provider}/{model}", "messages": MESSAGES, **common}

    answer = await litellm.acompletion(**asked)
    stream = await litellm.acompletion(**asked, stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    called = await litellm.acompletion(**asked, tools=CHAT_TOOLS)

    assert (answer.choices[0].message.content, text) == (TEXT, TEXT)
    assert called.choices[0].message.tool_calls[0].function.arguments == ARGUMENTS
    assert service.models == [model] * 3


async def test_embeddings_and_sound(
    service: Service, common: dict[str, Any], provider: str, model: str
) -> None:
    name = f"{provider}/{model}"

    vectors = await litellm.aembedding(model=name, input=["one", "two"], **common)
    written = await litellm.atranscription(model=name, file=SOUND, **common)

    assert len(vectors.data) == 2
    assert written.text == TEXT
    assert service.models == [model] * 2


async def test_completion(service: Service, common: dict[str, Any], model: str) -> None:
    answer = await litellm.atext_completion(
        model=f"text-completion-openai/{model}", prompt="Hello", **common
    )

    assert answer.choices[0].text == TEXT
    assert service.models == [model]


async def test_rerank(service: Service, common: dict[str, Any], model: str) -> None:
    ranked = await litellm.arerank(
        model=f"hosted_vllm/{model}", query="Hello", documents=["one", "two"], **common
    )

    assert len(ranked.results) == 2
    assert service.models == [model]


async def test_messages(service: Service, model: str) -> None:
    answer = await litellm.acompletion(
        model=f"anthropic/{model}",
        messages=MESSAGES,
        api_base=service.url,
        api_key="none",
        max_retries=0,
    )

    assert answer.choices[0].message.content == TEXT
    assert service.models == [model]


async def test_what_names_a_response_reaches_the_pod_that_made_it(
    service: Service, common: dict[str, Any]
) -> None:
    for _ in range(REPEATS):
        service.forget()
        first = await litellm.aresponses(model="openai/base", input="Hello", **common)
        second = await litellm.aresponses(
            model="openai/base", input="And then?", previous_response_id=first.id, **common
        )
        found = await litellm.aget_responses(
            response_id=second.id, custom_llm_provider="openai", **common
        )

        assert found.status == "completed"
        assert len({call.pod for call in service.calls}) == 1


async def test_files_and_batches_reach_the_pod_that_made_them(
    service: Service, common: dict[str, Any]
) -> None:
    provider = {"custom_llm_provider": "openai", **common}
    for _ in range(REPEATS):
        service.forget()
        file = await litellm.acreate_file(
            file=("lines.jsonl", b"{}\n"), purpose="batch", **provider
        )
        batch = await litellm.acreate_batch(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            **provider,
        )
        found = await litellm.aretrieve_batch(batch_id=batch.id, **provider)

        assert found.status == "in_progress"
        assert len({call.pod for call in service.calls}) == 1


async def test_an_unknown_model_is_an_error_of_the_client(
    service: Service, common: dict[str, Any]
) -> None:
    with pytest.raises(litellm.NotFoundError):
        await litellm.acompletion(model="openai/nobody", messages=MESSAGES, **common)

    assert service.calls == []
