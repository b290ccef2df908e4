"""Prompts in conversations: who reads them, and what the fleet knows afterwards."""

import gc
import json
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.states import ROUTED
from lora_router.extproc.usage_reading import UsageReading
from lora_router.fleet.catalog import ServedModel
from lora_router.fleet.prompt import Prompt
from lora_router.routing.algorithm import InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from tests.fleet import make_fleet
from tests.unit.extproc.conversation import (
    Conversation,
    request_body,
    request_headers,
    response_body,
    response_headers,
)

PROSE = "The clerk counted the columns once more, and wrote down what was left. " * 4


class MostCached:
    """Picks the pod that has most of the prompt, else the one with the fewest requests."""

    name = "most-cached"
    reads_prompts = True

    def __init__(self) -> None:
        self.prompts: list[Prompt | None] = []

    def pick(self, request: InferenceRequest, candidates: Candidates, _now: float) -> Pick:
        self.prompts.append(request.prompt)
        cached = candidates.cached(request.model, request.prompt)
        pods = {each.pod.name: each for each in candidates}
        for state in cached:
            return Pick(pods[state.pod.name], "prefix")
        return Pick(min(candidates, key=lambda each: each.in_flight), "least-request")


class Unaware(MostCached):
    """The same, but it does not ask for prompts."""

    reads_prompts = False


def chat(turns: int, system: str = PROSE) -> bytes:
    messages = [{"role": "system", "content": system}]
    for turn in range(turns):
        messages.append({"role": "user", "content": f"question {turn}: {PROSE}"})
        if turn < turns - 1:
            messages.append({"role": "assistant", "content": f"answer {turn}: {PROSE}"})
    return json.dumps({"model": "base", "messages": messages, "stream": True}).encode()


def ask(server: Conversation, bodies: Sequence[bytes], **headers: object) -> list[str]:
    """Ask for each body in a session of its own, which stays open. Return the pods."""
    pods = []
    for body in bodies:
        before = {state: state.in_flight for state in server.fleet}
        server.session = server.another()
        server.say(request_headers(**headers), request_body(body))  # type: ignore[arg-type]
        (pod,) = [state.pod.name for state in server.fleet if state.in_flight > before[state]]
        pods.append(pod)
    return pods


@pytest.mark.parametrize("mode", [ProcessingMode.BUFFERED, ProcessingMode.FULL_DUPLEX_STREAMED])
def test_the_turns_of_a_chat_go_to_the_pod_that_has_its_beginning(
    mode: "ProcessingMode.BodySendMode",
) -> None:
    server = Conversation(make_fleet(), algorithm=MostCached())

    first, other, second = ask(server, [chat(1), chat(1, "Else. " * 50), chat(2)], mode=mode)

    assert first == second != other


def test_without_an_algorithm_that_asks_no_prompt_is_read() -> None:
    algorithm = Unaware()
    server = Conversation(make_fleet(), algorithm=algorithm)

    ask(server, [chat(1), chat(2)])

    assert algorithm.prompts == [None, None]
    assert server.fleet.prefixes.count == 0


def test_the_tokens_are_estimated_by_what_the_bytes_of_the_model_were_worth() -> None:
    algorithm = MostCached()
    server = Conversation(make_fleet(), algorithm=algorithm)
    server.context.lengths.learn("base", 2000, 1000)

    ask(server, [chat(1)])

    (prompt,) = algorithm.prompts
    assert prompt is not None
    assert prompt.tokens == prompt.size / 2


def test_a_path_whose_requests_continue_nothing_has_no_prompt() -> None:
    algorithm = MostCached()
    server = Conversation(make_fleet(), algorithm=algorithm)

    ask(server, [json.dumps({"model": "base", "input": PROSE}).encode()], path="/v1/embeddings")

    assert algorithm.prompts == [None]


def answer(server: Conversation, prompt_tokens: int) -> None:
    """Answer the request of the last session, and end it."""
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 1}
    server.say(
        response_headers(),
        response_body(json.dumps({"usage": usage}).encode(), end=True),
    )
    server.session.end()


def test_answers_teach_how_long_a_token_is() -> None:
    algorithm = MostCached()
    server = Conversation(
        make_fleet(),
        algorithm=algorithm,
        headers=HeaderNames(reads_answers=True),
        usage=UsageReading(),
        records=10,
    )
    for _ in range(2):
        ask(server, [chat(1).replace(b'"stream": true', b'"stream": false')])
        answer(server, prompt_tokens=250)

    first, second = algorithm.prompts
    assert first is not None
    assert second is not None
    assert first.tokens == first.size / 4
    assert second.tokens == pytest.approx(250)


def test_the_record_says_what_was_believed_to_be_cached() -> None:
    server = Conversation(make_fleet(), algorithm=MostCached(), records=10)

    ask(server, [chat(1), chat(2)])

    second, first = server.log
    assert first.expected_cached_tokens == 0
    assert first.estimated_prompt_tokens == pytest.approx(200, abs=50)
    assert second.expected_cached_tokens == pytest.approx(first.estimated_prompt_tokens, abs=1)


def test_the_record_of_an_algorithm_that_does_not_ask_says_nothing() -> None:
    server = Conversation(make_fleet(), algorithm=Unaware(), records=10)

    ask(server, [chat(1)])

    (record,) = server.log
    assert (record.estimated_prompt_tokens, record.expected_cached_tokens) == (None, None)


class TestRequestsThatWait:
    """A request that waits keeps its prompt's names, and no body. Nobody counts those bodies."""

    @pytest.mark.parametrize("algorithm", [MostCached, Unaware])
    def test_while_the_lists_of_pods_are_read_again(self, algorithm: type[MostCached]) -> None:
        asked = algorithm()
        server = Conversation(make_fleet(), algorithm=asked, max_body_bytes=2**21)
        look = server.context.director.second_look
        look.look = lambda: True
        body = chat(1, PROSE * 4000).replace(b'"base"', b'"new"')

        with kept_bytes() as kept:
            assert server.say(request_headers(), request_body(body))
            assert server.session.is_held
        assert server.session.collected_bytes == 0
        assert kept[0] < len(body) // 10

        state = next(iter(server.fleet))
        server.fleet.put_models(state, [ServedModel("base"), ServedModel("new", "base")])
        look.ended()

        assert server.session.state is ROUTED
        (prompt,) = asked.prompts
        assert (prompt is not None) is asked.reads_prompts
        assert prompt is None or prompt.size > len(PROSE) * 4000

    def test_while_peers_may_know_an_id(self) -> None:
        asked = MostCached()
        server = Conversation(
            make_fleet(), algorithm=asked, max_body_bytes=2**21, pass_unknown_ids=False
        )
        made = server.context.ids.made
        made.is_shared = True
        body = json.dumps(
            {"model": "base", "input": PROSE * 4000, "previous_response_id": "resp_1"}
        ).encode()

        with kept_bytes() as kept:
            assert server.say(request_headers("/v1/responses"), request_body(body))
            assert server.session.is_held
        assert kept[0] < len(body) // 10

        server.clock.advance(1.0)
        assert not server.session.is_held


@contextmanager
def kept_bytes() -> Iterator[list[int]]:
    """Measure the memory that is taken inside the block, and not given back."""
    found: list[int] = []
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield found
        gc.collect()
        found.append(tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()
