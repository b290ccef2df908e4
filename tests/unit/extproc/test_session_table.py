"""The state table of a session: it contains or refuses every event in every state."""

from collections.abc import Callable, Sequence

import pytest

from lora_router.extproc.body_arrival import BODY_WAIT_SECONDS
from lora_router.extproc.event_reader import read_event
from lora_router.extproc.events import (
    KINDS,
    Event,
    Observation,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    Unknown,
)
from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.outputs import EndStream
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.session import TABLE
from lora_router.extproc.states import (
    ANSWERED,
    HELD,
    HELD_WITH_TRAILERS,
    OVER,
    PASSING,
    PIECES,
    ROUTED,
    START,
    WHOLE_BODY,
    State,
)
from lora_router.fleet.pod_state import PodView
from lora_router.grpc_server.status import FAILED_PRECONDITION
from lora_router.routing.algorithm import Hold, InferenceRequest, Pick
from tests.fleet import make_fleet
from tests.unit.extproc.conversation import (
    Conversation,
    request_body,
    request_headers,
    request_trailers,
    response_body,
    response_headers,
    response_trailers,
)

BASE = b'{"model": "base"}'
HOLD = b'{"model": "sql-lora"}'
UNKNOWN = b'{"model": "unknown"}'


class HoldsAdapters:
    """Sends base requests to the pod, and holds those for adapters."""

    name = "holds-adapters"

    def pick(
        self, request: InferenceRequest, candidates: Sequence[PodView], _now: float
    ) -> Pick | Hold:
        if request.adapter is not None and request.may_hold:
            return Hold("busy", 1.0)
        return Pick(candidates[0], "first")


def buffered(*, end: bool = False) -> ProcessingRequest:
    return request_headers(end=end)


def streamed() -> ProcessingRequest:
    return request_headers(mode=ProcessingMode.STREAMED, send_body_without_waiting=True)


def untold() -> ProcessingRequest:
    return request_headers(mode=None)


def passing() -> ProcessingRequest:
    return request_headers("/upload", content_type="text/plain")


def named_by_query() -> ProcessingRequest:
    return request_headers(
        "/v1/realtime?model=sql-lora",
        mode=ProcessingMode.STREAMED,
        send_body_without_waiting=True,
    )


def observed() -> ProcessingRequest:
    request = request_headers()
    request.observability_mode = True
    return request


def piece(body: bytes) -> ProcessingRequest:
    return request_body(body, end=False)


WAYS_TO: dict[State, list[ProcessingRequest]] = {
    START: [],
    WHOLE_BODY: [buffered()],
    PIECES: [streamed()],
    HELD: [buffered(), request_body(HOLD)],
    HELD_WITH_TRAILERS: [buffered(), request_body(HOLD), request_trailers()],
    PASSING: [passing()],
    ROUTED: [buffered(), request_body(BASE)],
    ANSWERED: [buffered(), response_headers("408")],
    OVER: [buffered(), request_body(b"no JSON")],
}

ONE_OF_EACH: dict[type[Event], ProcessingRequest] = {
    RequestHeaders: buffered(),
    RequestBody: request_body(BASE),
    RequestTrailers: request_trailers(),
    ResponseHeaders: response_headers(),
    ResponseBody: response_body(b"token", end=False),
    ResponseTrailers: response_trailers(),
    Observation: observed(),
    Unknown: ProcessingRequest(),
}


def conversation_in(state: State, start: Sequence[ProcessingRequest] | None = None) -> Conversation:
    conversation = Conversation(make_fleet(1), algorithm=HoldsAdapters(), max_body_bytes=50)
    conversation.say(*(WAYS_TO[state] if start is None else start))
    assert conversation.session.state is state
    return conversation


def test_there_is_a_row_for_each_state_and_an_example_of_each_event() -> None:
    assert set(TABLE) == set(State) == set(WAYS_TO)
    assert set(KINDS) == set(ONE_OF_EACH)
    for event, request in ONE_OF_EACH.items():
        assert type(read_event(request.SerializeToString(), HeaderNames())) is event


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_each_event_in_a_state_is_in_the_table_or_ends_the_stream(state: State) -> None:
    for event in KINDS:
        check_event(state, event)


def check_event(state: State, event: type[Event]) -> None:
    conversation = conversation_in(state)

    outputs = conversation.session.receive(ONE_OF_EACH[event].SerializeToString())

    after = conversation.session.state
    if state is OVER:
        assert (outputs, after) == ((), OVER)
    elif event in TABLE[state]:
        assert not any(isinstance(output, EndStream) for output in outputs)
        assert after in (TABLE[state][event].to or (state,))
    else:
        (output,) = outputs
        assert isinstance(output, EndStream)
        assert output.code == FAILED_PRECONDITION
        assert after is OVER
    conversation.session.end()
    assert conversation.fleet.ledger.total == 0
    assert conversation.context.director.held == 0


STREAMED_HOLD = [streamed(), piece(HOLD)]
SPACES = b"    "
"""With them, it does not show that a body is complete."""
BRANCHES: list[tuple[list[ProcessingRequest], ProcessingRequest, State]] = [
    ([], buffered(), WHOLE_BODY),
    ([], streamed(), PIECES),
    ([], passing(), PASSING),
    ([], buffered(end=True), ROUTED),
    ([], named_by_query(), HELD),
    ([named_by_query()], piece(b"x"), HELD),
    ([named_by_query()], piece(b"x" * 51), OVER),
    ([], request_headers(headers=[("content-length", b"51")]), OVER),
    ([], observed(), OVER),
    ([buffered()], request_body(HOLD), HELD),
    ([buffered()], request_body(BASE), ROUTED),
    ([buffered()], request_body(UNKNOWN), OVER),
    ([buffered()], request_trailers(), OVER),
    ([untold()], piece(HOLD[:5]), PIECES),
    ([streamed()], piece(BASE[:5]), PIECES),
    ([streamed()], piece(BASE), PASSING),
    ([streamed()], piece(HOLD), HELD),
    ([streamed()], request_body(HOLD), HELD),
    ([streamed()], request_body(BASE), ROUTED),
    ([streamed()], piece(b"x" * 51), OVER),
    ([streamed(), piece(HOLD + SPACES)], request_trailers(), HELD_WITH_TRAILERS),
    ([streamed(), piece(BASE + SPACES)], request_trailers(), ROUTED),
    ([streamed(), piece(UNKNOWN + SPACES)], request_trailers(), OVER),
    ([buffered(), request_body(HOLD)], request_trailers(), HELD_WITH_TRAILERS),
    ([passing()], piece(b"x"), PASSING),
    ([passing()], request_body(b"x"), ROUTED),
    ([passing()], request_trailers(), ROUTED),
    *(
        (WAYS_TO[state], request, after)
        for state in (START, WHOLE_BODY, PIECES, HELD, HELD_WITH_TRAILERS)
        for request, after in (
            (response_headers("103"), state),
            (response_headers("503"), ANSWERED),
            (response_body(b"sorry", end=True), ANSWERED),
            (response_trailers(), ANSWERED),
        )
    ),
]
"""The messages so far, the next message, and the state after it."""


@pytest.mark.slow
def test_every_way_of_the_table_can_be_gone() -> None:
    gone = set()
    for before, request, after in BRANCHES:
        conversation = Conversation(make_fleet(1), algorithm=HoldsAdapters(), max_body_bytes=50)
        conversation.say(*before)
        # A gateway that does not say how it sends bodies waits for the answer to the headers.
        conversation.clock.advance(BODY_WAIT_SECONDS)
        state = conversation.session.state
        conversation.say(request)

        assert conversation.session.state is after
        gone.add((state, type(read_event(request.SerializeToString(), HeaderNames())), after))

    assert gone == {
        (state, event, after)
        for state, row in TABLE.items()
        for event, step in row.items()
        for after in step.to
    }


@pytest.mark.parametrize("state", [HELD, HELD_WITH_TRAILERS], ids=lambda state: state.name)
@pytest.mark.parametrize(
    ("happens", "after"),
    [
        (lambda conversation: conversation.clock.advance(1), ROUTED),
        (
            lambda conversation: conversation.fleet.replace([]) or conversation.clock.advance(1),
            OVER,
        ),
    ],
    ids=["routed", "refused"],
)
def test_a_held_request_leaves_its_state_when_it_is_decided(
    state: State, happens: Callable[[Conversation], None], after: State
) -> None:
    conversation = conversation_in(state)

    happens(conversation)
    conversation.clock.advance(1)

    assert conversation.session.state is after
    assert len(conversation.late) == (2 if (state, after) == (HELD_WITH_TRAILERS, ROUTED) else 1)
