"""Arbitrary sequences of messages: no exception escapes, and all counts return to zero."""

from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from lora_router.extproc.event_reader import read_event
from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.outputs import EndStream, Output
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.session import TABLE, Session
from lora_router.extproc.states import (
    HELD,
    HELD_WITH_TRAILERS,
    OVER,
    PASSING,
    ROUTED,
    UNDECIDED,
)
from lora_router.fleet.pod_state import PodView
from lora_router.grpc_server.status import DEADLINE_EXCEEDED, INTERNAL, RESOURCE_EXHAUSTED
from lora_router.routing.algorithm import Hold, InferenceRequest, Pick
from tests.examples import examples
from tests.fleet import make_fleet, state_of
from tests.unit.extproc.conversation import (
    Conversation,
    read_answer,
    request_body,
    request_headers,
    request_trailers,
    response_body,
    response_headers,
    response_trailers,
    served_by,
)


class Moody:
    """Picks, holds, or fails, depending on the name of the model."""

    name = "moody"

    def pick(
        self, request: InferenceRequest, candidates: Sequence[PodView], _now: float
    ) -> Pick | Hold:
        if request.model == "raises":
            raise ZeroDivisionError
        if request.model == "held" and candidates[0].in_flight:
            return Hold("busy", 1.0)
        return Pick(candidates[0], "first")


def parse_or_empty(data: bytes) -> ProcessingRequest:
    request = ProcessingRequest()
    with suppress(DecodeError):
        request.ParseFromString(data)
    return request


MODES = st.sampled_from(ProcessingMode.BodySendMode.values())
BODIES = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        [
            b'{"model": "base"}',
            b'{"model": "held"}',
            b'{"model": "held", "stream": true}',
            b'{"model": "raises"}',
            b'{"model": "unknown"}',
            b'{"model":',
            b' "held"}',
            b'{"model": "base", "previous_response_id": "known"}',
            b'{"model": "base", "previous_response_id": "unknown"}',
            b'{"input_file_id": "known", "store": false}',
            b'{"id": "made"}',
            b'data: {"response": {"id": "made',
            b"x" * 200,
        ]
    ),
)
PATHS = st.sampled_from(
    [
        "/v1/completions",
        "/v1/audio/transcriptions",
        "/other",
        "",
        "/v1/models/base",
        "/v1/responses",
        "/v1/responses/known",
        "/v1/responses/unknown",
        "/v1/batches",
        "/sleep",
    ]
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            ["routing-strategy", "external-filter", "content-length", "x-request-id", "target-pod"]
        ),
        st.binary(max_size=10) | st.sampled_from([b"moody", b"gpu", b"!gpu", b"99", b"1000"]),
    ),
    max_size=3,
)
MESSAGES = st.one_of(
    st.builds(
        request_headers,
        PATHS,
        method=st.sampled_from(["POST", "GET"]),
        end=st.booleans(),
        mode=st.none() | MODES,
        response_body_mode=MODES,
        send_body_without_waiting=st.booleans(),
        subset=st.none() | st.lists(st.sampled_from(["10.0.0.1:8000", "x"]), max_size=2),
        headers=HEADERS,
    ),
    st.builds(request_body, BODIES, end=st.booleans()),
    st.builds(request_body, BODIES, end=st.booleans()),
    st.builds(request_trailers),
    st.builds(
        response_headers,
        st.sampled_from(["100", "101", "200", "404", "503", "", "x", "99999"]),
        end=st.booleans(),
        content_type=st.sampled_from(["application/json", "text/event-stream"]),
        attributes=st.none()
        | st.builds(
            served_by,
            st.sampled_from(["10.0.0.1:8000", "10.0.0.9:8000", "", "x" * 100]),
            st.floats(),
            st.sampled_from(["via_upstream", "upstream_reset_before_response_started{x}", ""]),
        ),
        served=st.none() | st.sampled_from(["10.0.0.1:8000", "x"]),
        first=st.none() | MODES,
    ),
    st.builds(response_body, BODIES, end=st.booleans()),
    st.builds(response_trailers),
    st.builds(ProcessingRequest),
    st.binary(max_size=30).map(parse_or_empty),
)


class Stream:
    """A session, and everything that it has sent."""

    def __init__(self, make: Callable[[Callable[[Sequence[Output]], None]], Session]) -> None:
        self.sent: list[Output] = []
        self.session = make(self.take)

    @property
    def has_ended(self) -> bool:
        """Whether the session has ended the stream by a status."""
        return any(isinstance(output, EndStream) for output in self.sent)

    def receive(self, message: ProcessingRequest) -> None:
        before = self.session.state
        event = read_event(message.SerializeToString(), HeaderNames())
        self.take(self.session.receive(message.SerializeToString()))
        step = TABLE[before].get(type(event))
        after = (OVER,) if step is None else step.to or (before,)
        assert self.session.state in after, "a way that is not in the table"

    def stop(self, why: Callable[[Session], Sequence[Output]]) -> None:
        """End the stream by the router. A request that is not decided gets an answer."""
        if self.has_ended:
            return
        undecided = self.session.state in UNDECIDED
        outputs = why(self.session)
        if undecided:
            (answer,) = outputs
            assert read_answer(answer).immediate_response.status.code in (413, 503)
            assert self.session.state is OVER
        self.take(outputs)
        self.session.end()

    def take(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            assert not self.has_ended
            if isinstance(output, EndStream):
                assert output.code != INTERNAL, "a session failed"
            else:
                read_answer(output)
            self.sent.append(output)


STOPS: dict[str, Callable[[Session], Sequence[Output]]] = {
    "overloaded": Session.overloaded,
    "draining": Session.draining,
    "deadline": lambda session: session.failed(DEADLINE_EXCEEDED),
    "too long": lambda session: session.failed(RESOURCE_EXHAUSTED),
}
"""Why the router ends a stream, which it may at any time."""


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(0, 2), MESSAGES),
        st.tuples(st.just("say"), st.integers(0, 2), MESSAGES),
        st.tuples(st.just("say"), st.integers(0, 2), MESSAGES),
        st.tuples(st.just("end"), st.integers(0, 2), st.none()),
        st.tuples(st.sampled_from(sorted(STOPS)), st.integers(0, 2), st.none()),
        st.tuples(st.just("wait"), st.floats(0, 2), st.none()),
    ),
    max_size=25,
)


@pytest.mark.slow
@examples(300)
@given(ACTIONS)
def test_whatever_is_said_counts_return_to_zero(
    actions: list[tuple[str, float, ProcessingRequest | None]],
) -> None:
    conversation = Conversation(
        make_fleet(2, adapters=["held", "raises"]), algorithm=Moody(), max_body_bytes=100
    )
    made = conversation.context.ids.made
    made.share()
    made.learn("known", state_of(conversation.fleet, 1))
    streams = [Stream(conversation.another) for _ in range(3)]

    for action, number, message in actions:
        if action == "wait":
            conversation.clock.advance(number)
            continue
        stream = streams[int(number)]
        if action == "end":
            stream.session.end()
        elif action in STOPS:
            stream.stop(STOPS[action])
        elif message is not None:
            stream.receive(message)

        in_flight = [one for one in streams if one.session.state in (PASSING, ROUTED)]
        assert conversation.fleet.ledger.total == len(in_flight)
        held = [one for one in streams if one.session.state in (HELD, HELD_WITH_TRAILERS)]
        ids = conversation.context.ids
        assert conversation.context.director.held + ids.waiting == len(held)

    for stream in streams:
        stream.session.end()
    assert conversation.fleet.ledger.total == 0
    assert conversation.context.director.held == 0
    assert conversation.context.ids.waiting == 0
    assert all(not state.in_flight_adapters for state in conversation.fleet)


@given(st.lists(st.binary(min_size=1, max_size=8), min_size=1, max_size=6), st.booleans())
def test_in_full_duplex_every_byte_of_a_body_is_sent_back(
    pieces: list[bytes], trailers: bool
) -> None:
    conversation = Conversation(make_fleet(1))
    mode = ProcessingMode.FULL_DUPLEX_STREAMED
    body = [b'{"model": "base", "x": "', *[piece.hex().encode() for piece in pieces], b'"}']

    said = [request_headers(mode=mode)]
    said += [
        request_body(piece, end=not trailers and number == len(body) - 1)
        for number, piece in enumerate(body)
    ]
    answers = conversation.say(*said, *([request_trailers()] if trailers else []))

    streamed = [
        answer.request_body.response.body_mutation.streamed_response
        for answer in answers
        if answer.HasField("request_body")
    ]
    assert b"".join(piece.body for piece in streamed) == b"".join(body)
    assert [piece.end_of_stream for piece in streamed].count(True) == (0 if trailers else 1)
