"""OpenAI's Python client."""

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

openai = pytest.importorskip("openai", reason="`make test-clients` installs the clients")

from tests.clients.openai_answers import ARGUMENTS, TEXT  # noqa: E402
from tests.clients.prompts import CHAT_TOOLS, MESSAGES, SOUND, TOOL  # noqa: E402
from tests.clients.service import MODELS, REPEATS, Service  # noqa: E402
from tests.waiting import until  # noqa: E402

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def client(service: Service) -> AsyncIterator[Any]:
    async with openai.AsyncOpenAI(
        base_url=service.openai_url, api_key="none", max_retries=0
    ) as client:
        yield client


async def test_chat(service: Service, client: Any, model: str) -> None:
    for _ in range(REPEATS):
        answer = await client.chat.completions.create(model=model, messages=MESSAGES)

        assert answer.choices[0].message.content == TEXT
        assert answer.model == model
    assert service.models == [model] * REPEATS


async def test_chat_stream(service: Service, client: Any, model: str) -> None:
    stream = await client.chat.completions.create(
        model=model, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == TEXT
    assert chunks[-1].usage.total_tokens == 5
    assert service.models == [model]


async def test_chat_tools(service: Service, client: Any, model: str) -> None:
    answer = await client.chat.completions.create(model=model, messages=MESSAGES, tools=CHAT_TOOLS)
    call = answer.choices[0].message.tool_calls[0]
    followed = await client.chat.completions.create(
        model=model,
        messages=[
            *MESSAGES,
            answer.choices[0].message,
            {"role": "tool", "tool_call_id": call.id, "content": "Rain"},
        ],
    )

    assert (call.function.name, call.function.arguments) == ("weather", ARGUMENTS)
    assert followed.choices[0].message.content == TEXT
    assert service.models == [model, model]


async def test_streamed_tools(service: Service, client: Any, model: str) -> None:
    async with client.chat.completions.stream(
        model=model, messages=MESSAGES, tools=CHAT_TOOLS
    ) as stream:
        answer = await stream.get_final_completion()

    assert answer.choices[0].message.tool_calls[0].function.arguments == ARGUMENTS
    assert service.models == [model]


async def test_a_prompt_of_a_megabyte(service: Service, client: Any, model: str) -> None:
    long = [{"role": "user", "content": "Hello " * 200_000}]

    answer = await client.chat.completions.create(model=model, messages=long)

    assert answer.choices[0].message.content == TEXT
    assert service.models == [model]


async def test_completion(service: Service, client: Any, model: str) -> None:
    answer = await client.completions.create(model=model, prompt="Hello")
    stream = await client.completions.create(model=model, prompt="Hello", stream=True)
    streamed = [chunk.choices[0].text async for chunk in stream]

    assert (answer.choices[0].text, "".join(streamed)) == (TEXT, TEXT)
    assert service.models == [model, model]


async def test_embeddings(service: Service, client: Any, model: str) -> None:
    answer = await client.embeddings.create(model=model, input=["one", "two"])
    floats = await client.embeddings.create(model=model, input="one", encoding_format="float")

    assert [each.embedding for each in answer.data] == [[0.5, -0.5], [0.5, -0.5]]
    assert floats.data[0].embedding == [0.5, -0.5]
    assert service.models == [model, model]


async def test_forms_of_sound(service: Service, client: Any, model: str) -> None:
    for _ in range(REPEATS):
        written = await client.audio.transcriptions.create(model=model, file=SOUND)

        assert written.text == TEXT
    translated = await client.audio.translations.create(model=model, file=SOUND)

    assert translated.text == TEXT
    assert service.models == [model] * (REPEATS + 1)


async def test_a_sound_of_a_megabyte(service: Service, client: Any, model: str) -> None:
    long = ("sound.wav", io.BytesIO(b"\r\n--x" * 200_000), "audio/wav")

    written = await client.audio.transcriptions.create(
        model=model, file=long, language="en", timestamp_granularities=["word", "segment"]
    )

    assert written.text == TEXT
    assert service.models == [model]


async def test_speech(service: Service, client: Any, model: str) -> None:
    sound = await client.audio.speech.create(model=model, voice="alloy", input="Hello")

    assert (await sound.aread()).startswith(b"RIFF")
    assert service.models == [model]


async def test_images_and_moderations(service: Service, client: Any, model: str) -> None:
    made = await client.images.generate(model=model, prompt="A cat")
    edited = await client.images.edit(
        model=model, prompt="A hat", image=("cat.png", b"PNG", "image/png")
    )
    judged = await client.moderations.create(model=model, input="Hello")

    assert (made.data[0].b64_json, edited.data[0].b64_json) == ("UA==", "UA==")
    assert not judged.results[0].flagged
    assert service.models == [model] * 3


async def test_azure(service: Service, model: str) -> None:
    if "/" in model:
        pytest.skip("a deployment is one segment of the path")
    async with openai.AsyncAzureOpenAI(
        azure_endpoint=service.url, api_key="none", api_version="2024-10-21", max_retries=0
    ) as client:
        for _ in range(REPEATS):
            answer = await client.chat.completions.create(model=model, messages=MESSAGES)

            assert answer.choices[0].message.content == TEXT
    assert service.models == [model] * REPEATS


async def test_realtime(service: Service, client: Any, model: str) -> None:
    async with client.realtime.connect(model=model) as connection:
        begun = await connection.recv()
        await connection.response.create()
        answer = await connection.recv()
    # A pod has seen the call when the connection is closed.
    await until(lambda: bool(service.calls), 60)

    assert (begun.session.model, answer.text) == (model, TEXT)
    assert service.models == [model]


async def test_models(service: Service, client: Any) -> None:
    for _ in range(REPEATS):
        listed = [model.id async for model in client.models.list()]

        assert listed == sorted(MODELS)
    for _ in range(REPEATS):
        for name in MODELS:
            assert (await client.models.retrieve(name)).id == name
    assert service.calls == []


async def test_an_unknown_model_is_an_error_of_the_client(service: Service, client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as chat:
        await client.chat.completions.create(model="nobody", messages=MESSAGES)
    with pytest.raises(openai.NotFoundError) as one:
        await client.models.retrieve("nobody")

    assert (chat.value.code, one.value.code) == ("model_not_found", "model_not_found")
    assert service.calls == []


async def test_responses(service: Service, client: Any, model: str) -> None:
    answer = await client.responses.create(model=model, input="Hello")
    called = await client.responses.create(
        model=model, input="Hello", tools=[{"type": "function", **TOOL}]
    )

    assert answer.output_text == TEXT
    assert called.output[0].arguments == ARGUMENTS
    assert service.models == [model, model]


async def test_what_names_a_response_reaches_the_pod_that_made_it(
    service: Service, client: Any, model: str
) -> None:
    for _ in range(REPEATS):
        service.forget()
        first = await client.responses.create(model=model, input="Hello")
        second = await client.responses.create(
            model=model, input="And then?", previous_response_id=first.id
        )
        third = await client.responses.create(
            model=model, input="And then?", previous_response_id=second.id
        )
        found = await client.responses.retrieve(third.id)
        _items = await client.responses.input_items.list(first.id)
        stopped = await client.responses.cancel(second.id)
        await client.responses.delete(first.id)

        assert (found.id, stopped.id) == (third.id, second.id)
        assert len({call.pod for call in service.calls}) == 1


async def test_what_names_a_streamed_response_reaches_its_pod(
    service: Service, client: Any, model: str
) -> None:
    for _ in range(REPEATS):
        service.forget()
        stream = await client.responses.create(model=model, input="Hello", stream=True)
        events = [event async for event in stream]
        text = "".join(each.delta for each in events if each.type == "response.output_text.delta")
        first = events[0].response.id
        async with client.responses.stream(
            model=model, input="And then?", previous_response_id=first
        ) as followed:
            second = await followed.get_final_response()
        found = await client.responses.retrieve(second.id)

        assert (text, second.output_text, found.id) == (TEXT, TEXT, second.id)
        assert len({call.pod for call in service.calls}) == 1


async def test_responses_of_a_conversation_reach_its_pod(service: Service, client: Any) -> None:
    for _ in range(REPEATS):
        service.forget()
        made = await client.conversations.create()
        await client.responses.create(model="base", input="Hello", conversation=made.id)
        await client.responses.create(model="base", input="Hello", conversation={"id": made.id})
        await client.conversations.items.list(made.id)
        found = await client.conversations.retrieve(made.id)
        await client.conversations.delete(made.id)

        assert found.id == made.id
        assert len({call.pod for call in service.calls}) == 1


async def test_files_and_batches_reach_the_pod_that_made_them(
    service: Service, client: Any
) -> None:
    line = {
        "custom_id": "1",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "base", "messages": MESSAGES},
    }
    content = json.dumps(line).encode() + b"\n"
    for _ in range(REPEATS):
        service.forget()
        file = await client.files.create(file=("lines.jsonl", content), purpose="batch")
        found = await client.files.retrieve(file.id)
        read = await client.files.content(file.id)
        batch = await client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        running = await client.batches.retrieve(batch.id)
        stopped = await client.batches.cancel(batch.id)
        gone = await client.files.delete(file.id)

        assert (found.bytes, read.content, gone.deleted) == (len(content), content, True)
        assert (running.id, running.status) == (batch.id, "in_progress")
        assert stopped.status == "cancelling"
        assert len({call.pod for call in service.calls}) == 1


async def test_lists_of_files_and_batches(service: Service, client: Any) -> None:
    files = [file.object async for file in client.files.list()]
    batches = [batch.object async for batch in client.batches.list()]

    assert set(files) <= {"file"}
    assert set(batches) <= {"batch"}
    assert [call.path for call in service.calls] == ["/v1/files", "/v1/batches"]


@pytest.mark.parametrize("name", ["resp_nobody", "resp_" + "0" * 32])
async def test_a_response_that_no_pod_made_is_an_error_of_the_client(
    service: Service, client: Any, name: str
) -> None:
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(name)
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model="base", input="Hello", previous_response_id=name)
    service.forget()
