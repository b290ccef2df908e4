"""One simulated pod over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.requests import name_blocks
from lora_router.simulator.simulated_pod import PodOptions, SimulatedPod
from tests.waiting import until

DATA = Path(__file__).parents[2] / "data" / "vllm-0.32.0"
RECORDED_ERRORS = json.loads((DATA / "error_bodies.json").read_text())
LONG = 8000
"""More tokens than a test waits for."""


class Client:
    """A client of one pod."""

    def __init__(self, pod: SimulatedPod, session: aiohttp.ClientSession) -> None:
        self.pod = pod
        self.session = session

    def url(self, path: str) -> str:
        return f"http://{self.pod.address}{path}"

    async def post(
        self, path: str, document: object = None, **more: Any
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        body: dict[str, Any] = {} if document is None else {"json": document}
        async with self.session.post(self.url(path), **body, **more) as response:
            return response, await response.read()

    async def chat(self, **fields: object) -> tuple[aiohttp.ClientResponse, Any]:
        document = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
        response, body = await self.post("/v1/chat/completions", document | fields)
        return response, json.loads(body)

    async def get(self, path: str) -> tuple[aiohttp.ClientResponse, bytes]:
        async with self.session.get(self.url(path)) as response:
            return response, await response.read()

    async def state(self) -> Any:
        return json.loads((await self.get("/debug/state"))[1])


@asynccontextmanager
async def a_pod(**options: Any) -> AsyncIterator[Client]:
    engine = EngineOptions(
        max_loras=2,
        step_seconds=0.002,
        step_seconds_per_request=0.0,
        host_load_seconds=0.0,
        disk_load_seconds=0.0,
    )
    values: dict[str, Any] = {
        "name": "pod-0",
        "adapters": ("a1", "a2", "a3"),
        "engine": engine,
    } | options
    async with (
        SimulatedPod(PodOptions(**values)) as pod,
        aiohttp.ClientSession() as session,
    ):
        yield Client(pod, session)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with a_pod() as client:
        yield client


@asynccontextmanager
async def generating(client: Client, model: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """A stream of ``model`` that continues to the end of the block."""
    async with client.session.post(
        client.url("/v1/chat/completions"),
        json={"model": model, "messages": [], "max_tokens": LONG, "stream": True},
    ) as response:
        await response.content.readline()
        yield response
        response.close()


# Completions


async def test_a_chat_is_answered(client: Client) -> None:
    response, answer = await client.chat(model="a1")
    assert response.status == 200
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "a1"
    assert answer["usage"]["completion_tokens"] == 3
    assert response.headers["x-pod"] == "pod-0"
    assert response.headers["x-adapter-state"] == "cold"


async def test_a_text_is_completed(client: Client) -> None:
    response, body = await client.post("/v1/completions", {"model": "a1", "prompt": "hello"})
    answer = json.loads(body)
    assert response.status == 200
    assert answer["object"] == "text_completion"
    assert answer["usage"]["completion_tokens"] == 16


async def test_a_stream_ends_with_usage_and_done(client: Client) -> None:
    response, body = await client.post(
        "/v1/chat/completions",
        {
            "model": "base",
            "messages": [],
            "max_completion_tokens": 4,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
        headers={"x-request-id": "req-123"},
    )
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["x-adapter-state"] == "base"
    *_, usage, done, nothing = body.split(b"\n\n")
    assert (done, nothing) == (b"data: [DONE]", b"")
    last = json.loads(usage.removeprefix(b"data: "))
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 4
    assert last["id"] == "chatcmpl-req-123"


# The prefix cache

CACHING = EngineOptions(
    step_seconds=0.002, host_load_seconds=0.0, disk_load_seconds=0.0, prefix_caching=True
)
TURNS: list[dict[str, str]] = [
    {"role": "user", "content": "Tell me of slots, and of what is loaded into them. " * 8},
    {"role": "assistant", "content": "A slot has the weights of one adapter. " * 8},
    {"role": "user", "content": "And then?"},
]


async def test_usage_names_the_tokens_of_a_chat_that_were_cached() -> None:
    async with a_pod(engine=CACHING, prompt_tokens_details=True) as client:
        answers = [
            (await client.chat(model=model, messages=TURNS[:turns]))[1]["usage"]
            for model, turns in (("a1", 1), ("a1", 1), ("a1", 3), ("a2", 3))
        ]
    first, again, longer, other = answers

    assert "prompt_tokens_details" not in first  # As in vLLM, if there are none.
    assert again["prompt_tokens_details"] == longer["prompt_tokens_details"]
    cached = again["prompt_tokens_details"]["cached_tokens"]
    assert cached % 16 == 0
    assert first["prompt_tokens"] - 16 <= cached < first["prompt_tokens"]
    assert "prompt_tokens_details" not in other


async def test_a_stream_ends_with_the_cached_tokens_too() -> None:
    async with a_pod(engine=CACHING, prompt_tokens_details=True) as client:
        for _ in range(2):
            _, body = await client.post(
                "/v1/chat/completions",
                {
                    "model": "base",
                    "messages": TURNS,
                    "stream": True,
                    "stream_options": {"include_usage": True},
                },
            )
    usage = json.loads(body.split(b"\n\n")[-3].removeprefix(b"data: "))["usage"]

    assert 0 < usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"]


@pytest.mark.parametrize("details", [False, True])
async def test_without_the_option_or_the_cache_usage_says_nothing_of_it(details: bool) -> None:
    engine = EngineOptions(step_seconds=0.002, prefix_caching=not details)
    async with a_pod(engine=engine, prompt_tokens_details=details) as client:
        for _ in range(2):
            _, answer = await client.chat(model="base", messages=TURNS)

    assert "prompt_tokens_details" not in answer["usage"]


async def test_the_page_counts_queried_and_cached_tokens() -> None:
    async with a_pod(engine=CACHING) as client:
        for _ in range(3):
            _, answer = await client.chat(model="base", messages=TURNS)
        _, page = await client.get("/metrics")
    tokens = answer["usage"]["prompt_tokens"]
    found = {
        line.partition("{")[0]: float(line.rpartition(" ")[2])
        for line in page.decode().splitlines()
        if line.startswith(("vllm:prefix_cache_", "vllm:prompt_tokens_cached"))
    }
    cached = (tokens - 1) // 16 * 16

    assert found["vllm:prefix_cache_queries_total"] == 3 * tokens
    assert found["vllm:prefix_cache_hits_total"] == 2 * cached
    assert found["vllm:prompt_tokens_cached_total"] == 2 * cached
    assert f'source="local_compute"}} {3.0 * tokens - 2 * cached}'.encode() in page
    assert b'enable_prefix_caching="True"' in page


@pytest.mark.parametrize("text", ["", "short", "x" * 64, "ÄÖ\ud800" * 100])
def test_a_text_has_a_name_for_each_full_block(text: str) -> None:
    names = name_blocks(text)

    assert len(names) == len(text) // 64
    assert len(set(names)) == len(names)
    assert name_blocks(text + "y" * 64)[: len(names)] == names
    assert name_blocks("z" + text)[:1] != names[:1] or not names


# Streams


async def test_tokens_come_one_by_one_and_not_at_the_end(client: Client) -> None:
    async with generating(client, "a1") as response:
        for _ in range(5):
            assert await response.content.readline()
        assert (await client.state())["running"] == 1


async def test_without_a_model_the_base_model_answers(client: Client) -> None:
    for fields in ({}, {"model": ""}, {"model": None}):
        response, answer = await client.chat(**fields)
        assert response.status == 200
        assert answer["model"] == "base"


async def test_an_unknown_model_is_refused_as_recorded(client: Client) -> None:
    response, answer = await client.chat(model="nope")
    status, _headers, recorded = RECORDED_ERRORS["unknown_chat"]
    assert response.status == status
    assert answer == json.loads(recorded)


async def test_a_model_that_is_not_a_string_is_refused(client: Client) -> None:
    response, answer = await client.chat(model=5)
    status, _headers, recorded = RECORDED_ERRORS["bad_json_type"]
    assert response.status == status
    assert answer["error"]["param"] == json.loads(recorded)["error"]["param"]


async def test_more_tokens_than_the_model_has_are_refused(client: Client) -> None:
    response, answer = await client.chat(max_tokens=99999)
    status, _headers, recorded = RECORDED_ERRORS["too_long"]
    assert response.status == status
    assert answer == json.loads(recorded)


@pytest.mark.parametrize(
    ("words", "given", "error"),
    [
        (7_000, {"max_tokens": 1_192}, ""),
        (7_000, {"max_tokens": 1_193}, "at least 7000 input tokens, for a total of at least 8193"),
        (8_191, {}, ""),
        (8_192, {}, "requested 0 output tokens"),
        (9_000, {"max_completion_tokens": 1}, "for a total of at least 9001 tokens"),
    ],
)
async def test_a_prompt_and_an_answer_that_exceed_the_models_length_are_refused(
    client: Client, words: int, given: dict[str, int], error: str
) -> None:
    body = {"prompt": "word" * words, "stream": True, **given}
    # The status of a stream comes before its first token.
    async with client.session.post(client.url("/v1/completions"), json=body) as response:
        assert response.status == (400 if error else 200)
        if error:
            found = (await response.json())["error"]
            assert error in found["message"]
            assert (found["type"], found["param"]) == ("BadRequestError", "input_tokens")


async def test_a_text_to_embed_that_exceeds_the_models_length_is_refused(client: Client) -> None:
    for text in ("word" * 8_193, ["one", "word" * 8_193]):
        response, answer = await client.post("/v1/embeddings", {"input": text})
        assert response.status == 400
        assert "for a total of at least 8193 tokens" in json.loads(answer)["error"]["message"]


async def test_several_choices_are_as_many_running_requests_and_one_prompt(client: Client) -> None:
    document = {"model": "a1", "prompt": "word" * 8, "max_tokens": LONG, "n": 3, "stream": True}
    async with client.session.post(client.url("/v1/completions"), json=document) as response:
        await response.content.readline()
        assert (await client.state())["running"] == 3
        response.close()

    response, answer = await client.chat(model="a1", n=3, max_tokens=5)
    assert response.status == 200
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["completion_tokens"] == 15
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + 15


async def test_several_choices_are_streamed_together_and_end_once(client: Client) -> None:
    document = {"prompt": "word", "max_tokens": 4, "n": 2, "stream": True}
    options = {"stream_options": {"include_usage": True}}
    _response, body = await client.post("/v1/completions", document | options)

    *events, done, nothing = body.decode().split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    *tokens, usage = [json.loads(event.removeprefix("data: ")) for event in events]
    indexes = [token["choices"][0]["index"] for token in tokens]
    assert sorted(indexes) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert usage["usage"] == {"prompt_tokens": 1, "total_tokens": 9, "completion_tokens": 8}


@pytest.mark.parametrize("choices", [0, -1, "3", True, 1.5, 1000])
async def test_an_invalid_number_of_choices_is_refused(client: Client, choices: object) -> None:
    response, answer = await client.chat(n=choices)
    assert response.status == 400
    assert answer["error"]["param"] == "n"


@pytest.mark.parametrize("tokens", [0, -1, "3", True, 1.5])
async def test_an_invalid_number_of_tokens_is_refused(client: Client, tokens: object) -> None:
    response, answer = await client.chat(max_tokens=tokens)
    assert response.status == 400
    assert answer["error"]["param"] == "max_tokens"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b"\xff\xfe\xfd", b"[" * 100_000, b'"text"', b"null"]
)
async def test_a_body_that_is_not_an_object_is_refused(client: Client, body: bytes) -> None:
    for path in ("/v1/chat/completions", "/v1/embeddings", "/v1/load_lora_adapter"):
        response, answer = await client.post(path, data=body)
        assert response.status == 400
        assert json.loads(answer)["error"]["code"] == 400


# The other endpoints


async def test_texts_are_embedded(client: Client) -> None:
    response, body = await client.post("/v1/embeddings", {"model": "a1", "input": ["one", "two"]})
    answer = json.loads(body)
    assert response.status == 200
    assert [entry["index"] for entry in answer["data"]] == [0, 1]
    assert answer["model"] == "a1"


async def test_one_text_is_embedded(client: Client) -> None:
    _response, body = await client.post("/v1/embeddings", {"input": "one"})
    assert len(json.loads(body)["data"]) == 1


async def test_speech_is_transcribed(client: Client) -> None:
    form = aiohttp.FormData({"model": "a2"})
    form.add_field("file", b"RIFF" * 500, filename="speech.wav", content_type="audio/wav")
    response, body = await client.post("/v1/audio/transcriptions", data=form)
    assert response.status == 200
    assert "token" in json.loads(body)["text"]
    assert response.headers["x-adapter-state"] == "cold"
    assert "a2" in client.pod.engine.slots


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "multipart/form-data; boundary=x"),
        (b"nonsense", "multipart/form-data; boundary=x"),
        (b"nonsense", "multipart/form-data"),
        (b"{}", "application/json"),
        (b"--x\r\ncontent-disposition: form-data; name=model\r\n\r\na1\r\n--x--\r\n",
         "multipart/form-data; boundary=x"),
    ],
)  # fmt: skip
async def test_a_form_without_a_file_is_refused(client: Client, body: bytes, kind: str) -> None:
    response, answer = await client.post(
        "/v1/audio/transcriptions", data=body, headers={"content-type": kind}
    )
    assert response.status == 400
    assert json.loads(answer)["error"]["code"] == 400


async def test_adapters_come_and_go_in_the_list_of_models(client: Client) -> None:
    async def listed() -> list[str]:
        return [model["id"] for model in json.loads((await client.get("/v1/models"))[1])["data"]]

    new = {"lora_name": "a9", "lora_path": "/adapters/a9"}
    assert (await client.post("/v1/load_lora_adapter", new))[0].status == 200
    assert await listed() == ["base", "a1", "a2", "a3", "a9"]
    assert (await client.chat(model="a9"))[0].status == 200
    assert (await client.post("/v1/load_lora_adapter", new))[0].status == 400
    assert (await client.post("/v1/unload_lora_adapter", {"lora_name": "a9"}))[0].status == 200
    assert await listed() == ["base", "a1", "a2", "a3"]
    assert (await client.chat(model="a9"))[0].status == 404
    assert (await client.post("/v1/unload_lora_adapter", {"lora_name": "a9"}))[0].status == 404


@pytest.mark.parametrize("stalls", [True, False])
async def test_a_load_takes_the_time_of_a_load_from_disk_and_stalls_the_batch(
    *, stalls: bool
) -> None:
    engine = EngineOptions(step_seconds=0.001, disk_load_seconds=0.2, loads_block=stalls)
    async with a_pod(engine=engine) as client, generating(client, "base"):
        steps, began = client.pod.engine.steps, asyncio.get_running_loop().time()
        new = {"lora_name": "a9", "lora_path": "s3://bucket/a9"}
        assert (await client.post("/v1/load_lora_adapter", new))[0].status == 200
        assert asyncio.get_running_loop().time() - began >= 0.2
        assert (client.pod.engine.steps <= steps + 5) is stalls
        assert "a9" in client.pod.engine.slots
        assert "a9" in client.pod.engine.host_cache
        listed = json.loads((await client.get("/v1/models"))[1])["data"]
        assert listed[-1]["root"] == "s3://bucket/a9"


async def test_without_runtime_loading_there_are_no_calls() -> None:
    async with a_pod(runtime_loading=False) as client:
        new = {"lora_name": "a9", "lora_path": "/a9"}
        assert (await client.post("/v1/load_lora_adapter", new))[0].status == 404


async def test_sources_without_a_fit_adapter_are_refused_as_by_vllm(client: Client) -> None:
    for path, status, text in (
        ("/missing/a9", 404, "Loading lora a9 failed: No adapter found for /missing/a9"),
        ("/unfit/a9", 400, "LoRA rank 64 is greater than max_lora_rank 16."),
    ):
        document = {"lora_name": "a9", "lora_path": path}
        response, body = await client.post("/v1/load_lora_adapter", document)
        assert (response.status, json.loads(body)["error"]["message"]) == (status, text)


async def test_a_load_in_place_replaces_an_adapter(client: Client) -> None:
    document = {"lora_name": "a1", "lora_path": "/new/a1"}
    assert (await client.post("/v1/load_lora_adapter", document))[0].status == 400

    document |= {"load_inplace": True}  # type: ignore[dict-item]
    assert (await client.post("/v1/load_lora_adapter", document))[0].status == 200

    assert client.pod.adapters.roots["a1"] == "/new/a1"


async def test_an_adapter_needs_a_name_and_a_path(client: Client) -> None:
    for document in ({}, {"lora_name": "a9"}, {"lora_name": 5, "lora_path": "/a"}):
        assert (await client.post("/v1/load_lora_adapter", document))[0].status == 400


async def test_an_adapter_unloaded_while_it_generates_goes_on(client: Client) -> None:
    async with generating(client, "a1") as response:
        await client.post("/v1/unload_lora_adapter", {"lora_name": "a1"})
        for _ in range(5):
            assert await response.content.readline()
        assert list(client.pod.engine.listed) == ["a1"]


async def test_pages_are_served(client: Client) -> None:
    response, page = await client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=1.0.0; charset=utf-8"
    assert b"\nvllm:num_requests_running{" in page
    assert (await client.get("/health"))[0].status == 200


async def test_the_metrics_show_what_runs(client: Client) -> None:
    async with generating(client, "a1"):
        page = (await client.get("/metrics"))[1].decode()
    assert 'running_lora_adapters="a1",waiting_lora_adapters="a1"' in page


# State of the adapter


async def test_an_answer_reports_the_state_of_its_adapter(client: Client) -> None:
    async with generating(client, "a1"):
        response, _ = await client.chat(model="a1")
        assert response.headers["x-adapter-state"] == "active"
    await until(lambda: not client.pod.engine.running)
    response, _ = await client.chat(model="a1")
    assert response.headers["x-adapter-state"] == "resident"
    response, _ = await client.chat(model="a2")
    assert response.headers["x-adapter-state"] == "cold"


async def test_a_request_without_a_slot_waits_while_others_pass(client: Client) -> None:
    async with generating(client, "a1"), generating(client, "a2"):
        waiting = asyncio.create_task(client.chat(model="a3"))
        await until(lambda: client.pod.engine.deferred == 1)
        assert (await client.chat(model="a1"))[0].status == 200
        state = await client.state()
        assert (state["waiting"], state["deferred"], state["slot_waits"]) == (1, 1, 1)
        assert not waiting.done()
    response, _ = await waiting
    assert response.status == 200
    assert response.headers["x-adapter-state"] == "cold"


async def test_the_state_names_what_is_in_the_slots(client: Client) -> None:
    async with generating(client, "a1"):
        state = await client.state()
    assert state["pod"] == "pod-0"
    assert state["slots"] == {"a1": 1}
    assert (state["loads"], state["max_loras"]) == (1, 2)


# Clients that disconnect


@pytest.mark.parametrize("stream", [True, False])
async def test_a_disconnect_aborts_the_request(client: Client, stream: bool) -> None:
    request = asyncio.create_task(client.chat(model="a1", max_tokens=LONG, stream=stream))
    await until(lambda: len(client.pod.engine.running) == 1)
    request.cancel()
    await until(lambda: not client.pod.engine.running)
    assert (await client.get("/metrics"))[1].decode().count(
        'request_success_total{engine="0",finished_reason="abort",model_name="base"} 1.0'
    ) == 1


async def test_a_disconnect_aborts_a_request_that_waits_for_a_slot(
    client: Client,
) -> None:
    async with generating(client, "a1"), generating(client, "a2"):
        request = asyncio.create_task(client.chat(model="a3"))
        await until(lambda: client.pod.engine.deferred == 1)
        request.cancel()
        await until(lambda: not client.pod.engine.waiting)


async def test_a_pod_can_be_stopped_while_it_generates() -> None:
    async with a_pod() as client:
        request = asyncio.create_task(client.chat(model="a1", max_tokens=LONG))
        await until(lambda: len(client.pod.engine.running) == 1)
    with pytest.raises(aiohttp.ClientError):
        await request


# Requests that arrived


async def test_a_request_can_be_read_back_as_it_arrived(client: Client) -> None:
    response, body = await client.post(
        "/debug/echo?x=1", data=b"12345", headers={"target-pod": "10.0.0.1:80"}
    )
    echo = json.loads(body)
    assert response.status == 200
    assert (echo["pod"], echo["method"], echo["path"]) == ("pod-0", "POST", "/debug/echo?x=1")
    assert ["target-pod", "10.0.0.1:80"] in echo["headers"]
    assert echo["body_bytes"] == 5
    assert json.loads((await client.get("/debug/echo"))[1])["method"] == "GET"


async def test_requests_are_counted_on_every_path_and_watching_is_not(client: Client) -> None:
    await client.chat(model="a1")
    response, body = await client.get("/nowhere?x=1")
    assert response.status == 404
    assert json.loads(body)["error"]["code"] == 404
    assert (await client.get("/v1/chat/completions"))[0].status == 405
    await client.get("/metrics")
    seen = json.loads((await client.get("/debug/requests"))[1])
    assert seen == {
        "count": 3,
        "requests": ["POST /v1/chat/completions", "GET /nowhere", "GET /v1/chat/completions"],
    }


async def test_errors_name_the_pod(client: Client) -> None:
    assert (await client.get("/nowhere"))[0].headers["x-pod"] == "pod-0"


# Options


async def test_a_preloaded_pod_has_its_adapters_in_host_memory() -> None:
    async with a_pod(preload=True) as client:
        assert set(client.pod.engine.host_cache) == {"a1", "a2", "a3"}


def test_invalid_options_are_named() -> None:
    with pytest.raises(ValueError, match="stream_interval must be at least 1"):
        PodOptions(name="pod-0", stream_interval=0)
    with pytest.raises(ValueError, match="'base' cannot be an adapter too"):
        PodOptions(name="pod-0", adapters=("base",))
