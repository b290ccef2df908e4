"""The demo's load: the same requests for every algorithm, and an outcome for each of them."""

import asyncio
from collections import Counter

import aiohttp
import pytest

from lora_router.demo.load import (
    ADAPTERS,
    BASE,
    BASE_SHARE,
    OUTPUT_TOKENS,
    REQUESTS_PER_SECOND,
    Arrival,
    Player,
    make_trace,
)
from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.simulated_pod import PodOptions, SimulatedPod


def test_a_seed_makes_the_same_trace_each_time_and_another_seed_another() -> None:
    assert make_trace(7, 10) == make_trace(7, 10)
    assert make_trace(7, 10) != make_trace(8, 10)


def test_a_longer_trace_begins_with_the_shorter_one() -> None:
    short, long = make_trace(1, 5), make_trace(1, 10)
    assert long[: len(short)] == short


@pytest.mark.slow
def test_a_trace_has_the_rate_the_shares_and_the_lengths_it_says() -> None:
    trace = make_trace(1, 1000)
    models = Counter(arrival.model for arrival in trace)
    low, high = OUTPUT_TOKENS

    assert len(trace) / 1000 == pytest.approx(REQUESTS_PER_SECOND, rel=0.02)
    assert models[BASE] / len(trace) == pytest.approx(BASE_SHARE, rel=0.05)
    assert set(models) == {BASE, *ADAPTERS}
    assert models[ADAPTERS[0]] > models[ADAPTERS[-1]] > models[ADAPTERS[0]] / 2
    assert {arrival.output_tokens for arrival in trace} == set(range(low, high + 1))
    assert [arrival.at for arrival in trace] == sorted(arrival.at for arrival in trace)
    assert trace[0].at > 0
    assert trace[-1].at < 1000


async def test_every_request_has_an_outcome_and_an_error_says_what_happened() -> None:
    engine = EngineOptions(step_seconds=0.001, step_seconds_per_request=0, disk_load_seconds=0)
    trace = [Arrival(0.0, "a1", 5), Arrival(0.02, BASE, 5), Arrival(0.03, "absent", 5)]
    async with SimulatedPod(PodOptions("pod-0", adapters=("a1",), engine=engine)) as pod:
        player = Player(f"http://{pod.address}", trace)
        await player.play()

    outcomes = {outcome.model: outcome for outcome in player.outcomes}
    assert outcomes["a1"].error is None
    assert outcomes["a1"].pod == "pod-0"
    assert outcomes["a1"].adapter_state == "cold"
    assert 0 < outcomes["a1"].first_token_seconds < 5
    assert outcomes[BASE].adapter_state == "base"
    assert outcomes["absent"].error is not None
    assert "status 404" in outcomes["absent"].error


async def test_nobody_listening_and_a_cut_answer_are_errors() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\ndata: {}\n\n\n\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    player = Player(f"http://{host}:{port}", [Arrival(0.0, BASE, 1)])
    async with server:
        await player.play()
    assert [outcome.error for outcome in player.outcomes] == ["the answer was cut off"]

    player = Player(f"http://{host}:{port}", [Arrival(0.0, BASE, 1)])
    await player.play()
    assert aiohttp.ClientConnectorError.__name__ in str(player.outcomes[0].error)
