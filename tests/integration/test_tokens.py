"""Numbers of tokens are read from answers, and Envoy learns them, through a real Envoy."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lora_router.telemetry.decisions import Decision
from tests.integration.gateway import Gateway, gateway
from tests.integration.second_envoy import second_envoy
from tests.integration.usage_pod import UsagePod
from tests.waiting import until

pytestmark = pytest.mark.envoy

NUMBERS = ("prompt_tokens", "completion_tokens", "cached_tokens", "total_tokens")
CHUNK = {"id": "x", "object": "chat.completion.chunk", "choices": [{"delta": {"content": "hi"}}]}
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
ASKS: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
START = {"type": "message_start", "message": {"usage": {"input_tokens": 20, "output_tokens": 1}}}
END = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 9}}
FULL_DUPLEX: dict[str, Any] = {
    "allow_mode_override": False,
    "failure_mode_allow": False,
    "processing_mode": {
        "request_body_mode": "FULL_DUPLEX_STREAMED",
        "request_trailer_mode": "SEND",
        "response_body_mode": "FULL_DUPLEX_STREAMED",
    },
}


@dataclass
class Metered:
    """A gateway whose Envoy writes the numbers into its access log."""

    gate: Gateway
    log: Path

    async def ask(self, path: str = "/v1/chat/completions", **fields: object) -> bytes:
        document = {"model": "sql", **fields}
        async with self.gate.client.post(self.gate.url + path, json=document) as response:
            assert response.status == 200
            return await response.read()

    async def logged(self, count: int = 1) -> dict[str, Any]:
        """The last line of the access log, once it has so many."""
        await until(lambda: self.log.exists() and self.log.read_text().count("\n") >= count)
        line: dict[str, Any] = json.loads(self.log.read_text().splitlines()[-1])
        return line

    async def recorded(self, count: int = 1) -> Decision:
        """The last record, once so many requests have ended."""
        decisions = self.gate.app.decisions
        assert decisions is not None
        await until(lambda: sum(bool(each.ended_at) for each in decisions) == count)
        return next(iter(decisions))

    async def numbers(self, count: int = 1) -> tuple[object, ...]:
        """What Envoy logged. The record has the same."""
        line, record = await self.logged(count), await self.recorded(count)
        logged = tuple(line[name] for name in NUMBERS)
        assert logged[:3] == (record.prompt_tokens, record.completion_tokens, record.cached_tokens)
        return logged


@asynccontextmanager
async def metered(
    folder: Path, changes: dict[str, Any] | None = None, **settings: object
) -> AsyncIterator[Metered]:
    pods = [UsagePod("one", ("sql",))]
    async with gateway(folder, pods, **{"tokens": "on", **settings}) as gate:
        log = folder / "access.log"
        names = ("adapter", "base_model", *NUMBERS)
        line = {name: f"%DYNAMIC_METADATA(io.lora_router:{name})%" for name in names}
        logger = {
            "name": "file",
            "typed_config": {
                "@type": "type.googleapis.com/"
                "envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": str(log),
                "log_format": {"json_format": line},
            },
        }
        envoy = second_envoy(gate, folder, manager={"access_log": [logger]}, **(changes or {}))
        async with envoy:
            gate.envoy = envoy
            yield Metered(gate, log)


@pytest.mark.parametrize(
    ("mode", "transport"),
    [("buffered", "builtin"), ("streamed", "grpcio"), ("full-duplex", "builtin")],
)
async def test_documents_and_streams_in_every_mode(
    tmp_path: Path, mode: str, transport: str
) -> None:
    async with metered(tmp_path, envoy_body_mode=mode, transport=transport) as gate:
        details = {"prompt_tokens_details": {"cached_tokens": 5}}
        await gate.ask(answer={"text": "x" * 100_000, "usage": USAGE | details})
        assert await gate.numbers(1) == (11, 7, 5, 18)

        await gate.ask(**ASKS, answer=[CHUNK] * 20 + [{"choices": [], "usage": USAGE}])
        assert await gate.numbers(2) == (11, 7, None, 18)

        await gate.ask("/v1/messages", stream=True, answer=[START, CHUNK, END])
        assert await gate.numbers(3) == (20, 9, None, 29)

        completed = {"response": {"id": "r", "usage": {"input_tokens": 4, "output_tokens": 3}}}
        await gate.ask("/v1/responses", stream=True, answer=[CHUNK, completed])
        assert await gate.numbers(4) == (4, 3, None, 7)

        await gate.ask("/v1/embeddings", answer={"data": [], "usage": {"prompt_tokens": 2}})
        assert await gate.numbers(5) == (2, None, None, 2)


async def test_a_gateway_that_sends_all_answers_needs_no_override(tmp_path: Path) -> None:
    async with metered(tmp_path, FULL_DUPLEX) as gate:
        text = "x" * 300_000
        answer = await gate.ask(answer={"text": text, "usage": USAGE})
        assert json.loads(answer)["text"] == text
        assert await gate.numbers(1) == (11, 7, None, 18)

        await gate.ask(**ASKS, answer=[CHUNK] * 20 + [{"choices": [], "usage": USAGE}])
        assert await gate.numbers(2) == (11, 7, None, 18)


async def test_an_answer_without_numbers_says_nothing(tmp_path: Path) -> None:
    async with metered(tmp_path) as gate:
        sent = await gate.ask(answer={"text": json.dumps({"usage": USAGE})})
        assert json.loads(json.loads(sent)["text"]) == {"usage": USAGE}
        assert await gate.numbers(1) == (None, None, None, None)

        await gate.ask(compressed=True, answer={"text": "x" * 9_999, "usage": USAGE})
        assert await gate.numbers(2) == (None, None, None, None)

        await gate.ask(answer={"usage": {"prompt_tokens": -1, "completion_tokens": 10**20}})
        assert await gate.numbers(3) == (None, None, None, None)


@pytest.mark.parametrize(("tokens", "expected"), [("on", None), ("all", 11), ("off", None)])
async def test_a_stream_that_was_not_asked_for_numbers_is_left_alone(
    tmp_path: Path, tokens: str, expected: int | None
) -> None:
    async with metered(tmp_path, tokens=tokens) as gate:
        await gate.ask(stream=True, answer=[CHUNK, {"choices": [], "usage": USAGE}])
        assert (await gate.numbers())[0] == expected


@pytest.mark.parametrize("by", ["client", "pod"])
async def test_a_stream_that_is_cut_counts_what_it_stated_before(tmp_path: Path, by: str) -> None:
    async with metered(tmp_path) as gate:
        document = {"model": "sql", "stream": True, "answer": [START, CHUNK, END]}
        document |= {"waits": True, "cut": by == "pod"}
        url = gate.gate.url + "/v1/messages"
        async with gate.gate.client.post(url, json=document) as response:
            await response.content.readuntil(b"\n\n")
            if by == "pod":
                gate.gate.pods[0].may_end.set()
                gate.gate.pods[0].may_end.set()
                with pytest.raises(aiohttp.ClientPayloadError):
                    await response.content.read()
            else:
                response.close()
        assert await gate.numbers() == (20, 1, None, 21)


async def test_pieces_of_a_stream_arrive_when_they_are_sent(tmp_path: Path) -> None:
    async with metered(tmp_path) as gate:
        document = {"model": "sql", **ASKS, "waits": True, "answer": [CHUNK, {"usage": USAGE}]}
        url = gate.gate.url + "/v1/chat/completions"
        async with gate.gate.client.post(url, json=document) as response, asyncio.timeout(60):
            assert await response.content.readuntil(b"\n\n")
            assert gate.gate.in_flight == 1
            (pod,) = gate.gate.pods
            pod.may_end.set()
            assert b"usage" in await response.content.read()
        await until(lambda: gate.gate.in_flight == 0)
        assert await gate.numbers() == (11, 7, None, 18)


async def test_a_gateway_that_ignores_the_router_is_reported(tmp_path: Path) -> None:
    async with metered(tmp_path, {"allow_mode_override": False}) as gate:
        for count in range(1, 7):
            await gate.ask(answer={"usage": USAGE})
            assert await gate.numbers(count) == (None, None, None, None)
        assert "allow_mode_override" in str(gate.gate.app.gateway.status())
