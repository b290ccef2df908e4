"""Compare simulated pods with published measurements of vLLM: ``make bench-calibration``.

Prints, as tables in Markdown, the scenario keys of each server and what it and the simulated one
did with the same requests. Exits with status 1 if a figure differs by more than a third.
"""

import math
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from statistics import mean, median

from lora_router.simulator.engine_options import EngineOptions
from lora_router.simulator.events import EventQueue
from lora_router.simulator.percentile import percentile
from lora_router.simulator.pod_model import PodModel
from lora_router.simulator.simulated_request import SimulatedRequest

_MOST = 1 / 3
"""How far a simulated figure may be from the published one."""
_LAMBDA = "https://github.com/LambdaLabsML/vllm-benchmark (`results/prompt_N`, September 2024)"
_KUBEAI = (
    "https://github.com/substratusai/kubeai (`benchmarks/chat/scenarios/least-load-vs-prefix-hash`)"
)


@dataclass(frozen=True, slots=True)
class Server:
    """A real server."""

    name: str
    engine: EngineOptions
    source: str


CPU = Server(
    "CPU, Llama of 2 layers",
    EngineOptions(
        max_loras=2,
        max_cpu_loras=4,
        step_seconds=0.010,
        step_seconds_per_request=0.0002,
        prefill_seconds_per_token=0.0003,
        host_load_seconds=0.0,
        disk_load_seconds=0.0,
    ),
    "vLLM 0.32.0, measured for this project",
)
H100 = Server(
    "H100 SXM, Llama-3-8B bf16",
    EngineOptions(
        max_num_seqs=1024,
        step_seconds=0.0070,
        step_seconds_per_request=0.000035,
        prefill_seconds_per_token=1 / 25_000,
        kv_cache_tokens=440_000,
        chunk_tokens=2048,
        preemption=True,
    ),
    _LAMBDA,
)
A100 = Server(
    "A100 80 GB SXM, Llama-3-8B bf16",
    EngineOptions(
        max_num_seqs=1024,
        step_seconds=0.0112,
        step_seconds_per_request=0.00009,
        prefill_seconds_per_token=1 / 11_500,
        kv_cache_tokens=440_000,
        chunk_tokens=2048,
        preemption=True,
    ),
    _LAMBDA,
)
L4 = Server(
    "L4 (0.6 of its memory), Llama-3.1-8B FP8",
    EngineOptions(
        step_seconds=0.030,
        step_seconds_per_request=0.0003,
        prefill_seconds_per_token=1 / 3_700,
        kv_cache_tokens=23_000,
        prefix_caching=True,
        chunk_tokens=16_384,
        preemption=True,
    ),
    _KUBEAI,
)
SERVERS = (H100, A100, L4, CPU)


@dataclass(frozen=True, slots=True)
class Figure:
    """One published figure, in seconds unless it says otherwise."""

    server: Server
    what: str
    published: float
    simulate: Callable[[], float]

    @property
    def within(self) -> bool:
        """Whether the simulated figure is close enough."""
        return abs(self.simulate() / self.published - 1) <= _MOST


# Requests that come at once

_SHAREGPT = (
    *((13, 120), (25, 393), (27, 233), (10, 194), (329, 101), (29, 741), (399, 9), (328, 3)),
    *((4, 6), (205, 31), (16, 392), (372, 84), (403, 396), (9, 45), (12, 291), (770, 9)),
    *((227, 173), (8, 277), (14, 334), (390, 37), (659, 587), (59, 372), (76, 36), (744, 135)),
    *((619, 26), (279, 45), (344, 450), (9, 118), (10, 226), (45, 4), (11, 5), (4, 146)),
    *((80, 59), (768, 11), (317, 567), (40, 192), (619, 478), (8, 130), (298, 13), (16, 223)),
)
"""Tokens of the prompts and answers of Lambda's first 40 requests, which are ShareGPT's."""


@cache
def _at_once(server: Server, requests: int) -> list[SimulatedRequest]:
    """Send so many of these requests, again from the first one after 40."""
    lengths = [_SHAREGPT[number % len(_SHAREGPT)] for number in range(requests)]
    return _run(server, [(0.0, None, prompt, answer) for prompt, answer in lengths])


def _run(
    server: Server, asks: Iterable[tuple[float, str | None, int, int]]
) -> list[SimulatedRequest]:
    events = EventQueue()
    pod = PodModel("pod-0", server.engine, events, lambda _request: None)
    requests = [
        SimulatedRequest(adapter or "base", adapter, prompt, answer, at)
        for at, adapter, prompt, answer in asks
    ]
    for request in requests:
        events.call_at(request.arrived, partial(pod.submit, request))
    events.run(lambda: False)
    return requests


def _first_tokens(requests: Sequence[SimulatedRequest]) -> list[float]:
    return [request.first_token - request.arrived for request in requests]


def _ends(requests: Sequence[SimulatedRequest]) -> list[float]:
    return [request.ended - request.arrived for request in requests]


def _lambda_figures() -> Iterator[Figure]:
    published = {
        (H100, 10): (0.0624, 1.432, 5.37),
        (H100, 40): (0.261, 1.866, 5.94),
        (H100, 320): (1.63, 5.25, 10.8),
        (A100, 10): (0.127, 2.404, 8.59),
        (A100, 40): (0.535, 3.273, 9.83),
        (A100, 320): (3.42, 10.86, 21.0),
    }
    names = ("mean TTFT", "mean latency", "the last answer")
    for (server, count), three in published.items():
        for position, (name, figure) in enumerate(zip(names, three, strict=True)):
            what = f"{count} requests at once: {name}"
            yield Figure(
                server, what, figure, partial(_of_requests_at_once, server, count, position)
            )


def _of_requests_at_once(server: Server, count: int, position: int) -> float:
    requests = _at_once(server, count)
    return (mean(_first_tokens(requests)), mean(_ends(requests)), max(_ends(requests)))[position]


# Chats with a prefix cache

_CHATS, _CLIENTS, _ANSWER, _BLOCK = 1000, 80, 9, 16


def _chats() -> list[list[int]]:
    """Return tokens of the users' messages: chats of five turns or more, 7.3 at the mean."""
    rng = random.Random(1)
    return [
        [
            max(4, int(rng.lognormvariate(math.log(127) - 0.5, 1.0)))
            for _ in range(5 + int(rng.expovariate(1 / 2.8)))
        ]
        for _ in range(_CHATS)
    ]


class _Chatting:
    """80 clients, each with one chat after the other, on two pods."""

    def __init__(self, *, sticky: bool) -> None:
        self.ended: list[SimulatedRequest] = []
        self._sticky = sticky
        self._events = EventQueue()
        self._pods = [PodModel(f"pod-{n}", L4.engine, self._events, self._end) for n in range(2)]
        self._chats = list(enumerate(_chats()))
        self._then: dict[SimulatedRequest, Callable[[], None]] = {}
        for number in range(_CLIENTS):
            self._events.call_at(number / 1000, self._begin)
        self._events.run(lambda: False)

    @property
    def rate(self) -> float:
        """Requests in a second."""
        return len(self.ended) / self._events.time

    def _begin(self) -> None:
        if self._chats:
            number, messages = self._chats.pop()
            self._ask(number, messages, 0, 30)

    def _ask(self, number: int, messages: list[int], turn: int, tokens: int) -> None:
        if turn == len(messages):
            self._begin()
            return
        prompt = tokens + messages[turn] + 5  # The template of a message.
        whole = prompt + _ANSWER
        blocks = range(1000 * number, 1000 * number + whole // _BLOCK)
        request = SimulatedRequest("base", None, prompt, _ANSWER, self._events.time, blocks, _BLOCK)
        self._then[request] = partial(self._ask, number, messages, turn + 1, whole)
        self._pick(number).submit(request)

    def _pick(self, number: int) -> PodModel:
        """Return the pod with fewer requests, or the pod of the chat.

        As KubeAI's ``PrefixHash`` does, a chat's pod is left out if it has a quarter more requests
        than the average.
        """
        one, other = self._pods
        if not self._sticky:
            return one if one.load <= other.load else other
        home = self._pods[number % 2]
        limit = math.ceil(1.25 * (one.load + other.load + 1) / 2)
        return home if home.load < limit else self._pods[1 - number % 2]

    def _end(self, request: SimulatedRequest) -> None:
        self.ended.append(request)
        self._then.pop(request)()


@cache
def _chatting(*, sticky: bool) -> _Chatting:
    return _Chatting(sticky=sticky)


def _kubeai_figures() -> Iterator[Figure]:
    published = {False: (6.31, 6.66, 8.55, 12.4), True: (4.08, 2.45, 9.63, 19.2)}
    names = ("mean latency", "p50", "p90", "requests a second")
    for sticky, four in published.items():
        policy = "by prefix" if sticky else "by load"
        for position, (name, figure) in enumerate(zip(names, four, strict=True)):
            what = f"80 chats on 2 pods, {policy}: {name}"
            yield Figure(L4, what, figure, partial(_of_chats, position, sticky=sticky))


def _of_chats(position: int, *, sticky: bool) -> float:
    chatting = _chatting(sticky=sticky)
    ends = sorted(_ends(chatting.ended))
    return (mean(ends), percentile(ends, 0.5), percentile(ends, 0.9), chatting.rate)[position]


# Slots

_PROMPT = 9


def _slot_figures() -> Iterator[Figure]:
    for adapters, middle, longest in (
        *((1, 0.047, 0.047), (2, 0.047, 0.047), (4, 0.519, 0.987)),
        *((6, 0.833, 1.438), (8, 0.778, 2.215)),
    ):
        what = f"12 requests, 2 slots, adapters: {adapters}"
        times = partial(_waits_for_slots, 12, adapters, 66)
        yield Figure(CPU, f"{what}; p50 TTFT", middle, lambda times=times: median(times()))  # type: ignore[misc]
        yield Figure(CPU, f"{what}; longest TTFT", longest, lambda times=times: max(times()))  # type: ignore[misc]
    what = "5 requests of 500 tokens, 2 slots, adapters: 5; longest TTFT"
    yield Figure(CPU, what, 9.9, lambda: max(_waits_for_slots(5, 5, 500)))


def _waits_for_slots(requests: int, adapters: int, answer: int) -> list[float]:
    asks = [(n * 0.0001, f"a{n % adapters}", _PROMPT, answer) for n in range(requests)]
    return _first_tokens(_run(CPU, asks))


def figures() -> tuple[Figure, ...]:
    """Return all figures."""
    return (*_lambda_figures(), *_kubeai_figures(), *_slot_figures())


def tables() -> str:
    """Return both tables in Markdown."""
    lines = [
        "| server | `step_ms` | `step_ms_per_request` | `prefill_tokens_per_second` "
        "| `kv_cache_tokens` | `chunk_tokens` | source |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for server in SERVERS:
        engine = server.engine
        lines.append(
            f"| {server.name} | {engine.step_seconds * 1000:g} "
            f"| {engine.step_seconds_per_request * 1000:g} "
            f"| {1 / engine.prefill_seconds_per_token:,.0f} | {engine.kv_cache_tokens:,} "
            f"| {engine.chunk_tokens or 'absent'} | {server.source} |"
        )
    lines += [
        "",
        "| server | what | published | simulated | difference |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for figure in figures():
        simulated = figure.simulate()
        lines.append(
            f"| {figure.server.name} | {figure.what} | {figure.published:g} | {simulated:.3g} "
            f"| {simulated / figure.published - 1:+.0%} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the tables."""
    print(tables(), end="")
    if not all(figure.within for figure in figures()):
        sys.exit(1)


if __name__ == "__main__":
    main()
