"""The demo's load: the same requests for every algorithm, and an outcome for each of them."""

import asyncio
from collections import Counter
from itertools import pairwise

import aiohttp
import pytest

from lora_router.demo.chats import (
    CHATS_PER_SECOND,
    FIRST_TOKENS,
    TURN_SECONDS,
    TURN_TOKENS,
    TURNS,
    Turn,
)
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
from lora_router.simulator.requests import count_tokens
from lora_router.simulator.simulated_pod import PodOptions, SimulatedPod


def test_a_seed_makes_the_same_trace_each_time_and_another_seed_another() -> None:
    assert make_trace(7, 10) == make_trace(7, 10)
    assert make_trace(7, 10) != make_trace(8, 10)


def test_a_longer_trace_begins_with_the_shorter_one() -> None:
    short, long = make_trace(1, 5), make_trace(1, 10)
    assert long[: len(short)] == short


@pytest.mark.slow
def test_a_trace_has_the_rate_the_shares_and_the_lengths_it_says() -> None:
    trace = make_trace(1, 4000)
    models = Counter(arrival.model for arrival in trace)
    low, high = OUTPUT_TOKENS
    rate = REQUESTS_PER_SECOND + TURNS * CHATS_PER_SECOND

    assert len(trace) / 4000 == pytest.approx(rate, rel=0.02)
    assert models[BASE] / len(trace) == pytest.approx(BASE_SHARE, rel=0.05)
    assert set(models) == {BASE, *ADAPTERS}
    assert models[ADAPTERS[0]] > models[ADAPTERS[-1]] > models[ADAPTERS[0]] / 2
    assert {arrival.output_tokens for arrival in trace} == set(range(low, high + 1))
    assert [arrival.at for arrival in trace] == sorted(arrival.at for arrival in trace)
    assert trace[0].at > 0
    assert trace[-1].at < 4000


def test_the_turns_of_a_chat_are_for_one_model_and_come_one_after_the_other() -> None:
    chats: dict[int, list[tuple[int, str, float]]] = {}
    for arrival in make_trace(1, 60):
        turn = arrival.turn
        if turn is not None:
            chats.setdefault(turn.chat, []).append((turn.number, arrival.model, arrival.at))

    assert chats
    for turns in chats.values():
        numbers, models, times = zip(*turns, strict=True)
        assert numbers == tuple(range(len(turns)))
        assert len(set(models)) == 1
        assert all(b - a == pytest.approx(TURN_SECONDS) for a, b in pairwise(times))


def _tokens(messages: list[dict[str, str]]) -> int:
    return sum(count_tokens(message["content"]) for message in messages)


def test_a_turn_repeats_the_chat_so_far_and_adds_to_it() -> None:
    first, second, other = Turn(3, 0).messages(), Turn(3, 1).messages(), Turn(4, 0).messages()

    assert second[: len(first)] == first
    assert _tokens(first) == FIRST_TOKENS
    assert _tokens(second) - _tokens(first) == TURN_TOKENS
    assert other[0] == first[0]
    assert other[1] != first[1]


async def test_a_turn_says_how_much_of_its_prompt_the_pod_had() -> None:
    engine = EngineOptions(step_seconds=0.001, step_seconds_per_request=0, prefix_caching=True)
    trace = [Arrival(0.0, BASE, 2, Turn(0, number)) for number in (0, 1)]
    async with SimulatedPod(PodOptions("pod-0", prompt_tokens_details=True, engine=engine)) as pod:
        for arrival in trace:
            player = Player(f"http://{pod.address}", [arrival])
            await player.play()
    (second,) = player.outcomes

    assert second.chat_tokens > FIRST_TOKENS
    assert 0.9 * FIRST_TOKENS < second.cached_tokens < second.chat_tokens


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
