"""What a session makes of responses: who answered, where, and whether there was a request."""

from collections.abc import Sequence

import pytest

from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.states import ANSWERED, ROUTED
from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import Hold, InferenceRequest, Pick
from tests.fleet import make_fleet, state_of
from tests.unit.extproc.conversation import (
    Conversation,
    request_body,
    request_headers,
    request_trailers,
    response_body,
    response_headers,
    response_trailers,
    served_by,
    told,
)

SQL = b'{"model": "sql-lora", "messages": []}'
POD_1, POD_2 = "10.0.0.1:8000", "10.0.0.2:8000"
STREAMED = request_headers(mode=ProcessingMode.STREAMED, send_body_without_waiting=True)


class FirstPod:
    """Sends everything to the first pod, and holds requests while it is busy."""

    name = "first-pod"

    def pick(
        self, _request: InferenceRequest, candidates: Sequence[PodView], _now: float
    ) -> Pick | Hold:
        return Hold("busy", 5.0) if candidates[0].in_flight else Pick(candidates[0], "first")


def two_pods() -> Conversation:
    return Conversation(make_fleet(2), algorithm=FirstPod())


def answers_of(conversation: Conversation) -> dict[tuple[str, str], float]:
    """Return the counted answers by who gave them and their class, without zeros."""
    (metric,) = conversation.context.answers.collect()
    return {
        (sample.labels["by"], sample.labels["status"]): sample.value
        for sample in metric.samples
        if sample.value
    }


def in_flight(conversation: Conversation) -> list[int]:
    return [state.in_flight for state in conversation.fleet]


class TestPassing:
    def test_every_response_message_is_answered_in_kind(self) -> None:
        conversation = two_pods()
        conversation.say(request_headers(), request_body(SQL))

        answers = conversation.say(
            response_headers(),
            response_body(b"token", end=False),
            response_body(b"", end=True),
            response_trailers(),
        )

        assert [answer.WhichOneof("response") for answer in answers] == [
            "response_headers",
            "response_body",
            "response_body",
            "response_trailers",
        ]
        changes = told(answers[0].response_headers.response.header_mutation)
        assert (list(changes.set), changes.removed) == (["x-request-id"], [])
        assert not answers[1].response_body.response.HasField("body_mutation")

    @pytest.mark.parametrize("mode", [0, 1, 2, 3])
    def test_response_headers_and_an_open_stream_are_asked_for(
        self, mode: "ProcessingMode.BodySendMode"
    ) -> None:
        (first,) = two_pods().say(
            request_headers(mode=mode, response_body_mode=ProcessingMode.STREAMED)
        )

        asked = first.mode_override
        assert asked.request_header_mode == ProcessingMode.SEND
        assert asked.response_header_mode == ProcessingMode.SEND
        assert asked.response_trailer_mode == ProcessingMode.SEND
        assert asked.response_body_mode == ProcessingMode.STREAMED

    def test_a_request_that_passes_through_keeps_its_body_mode(self) -> None:
        (answer,) = two_pods().say(request_headers("/upload", mode=ProcessingMode.BUFFERED_PARTIAL))

        asked = answer.mode_override
        assert asked.request_body_mode == ProcessingMode.BUFFERED_PARTIAL
        assert asked.response_header_mode == ProcessingMode.SEND
        assert asked.response_trailer_mode == ProcessingMode.SEND

    @pytest.mark.parametrize("path", ["/upload", "/v1/completions"])
    def test_nothing_is_asked_where_envoy_does_not_wait(self, path: str) -> None:
        answers = two_pods().say(
            request_headers(path, mode=ProcessingMode.FULL_DUPLEX_STREAMED), request_body(SQL)
        )

        assert not any(answer.HasField("mode_override") for answer in answers)

    def test_a_mode_that_is_not_known_is_left_alone(self) -> None:
        (first,) = two_pods().say(request_headers(mode=ProcessingMode.GRPC))

        assert not first.HasField("mode_override")


class TestRecording:
    def test_an_answer_is_counted_by_who_gave_it(self) -> None:
        conversation = two_pods()
        conversation.say(request_headers(), request_body(SQL))

        conversation.say(response_headers(attributes=served_by(POD_1)))

        assert answers_of(conversation) == {("pod", "2xx"): 1}
        assert in_flight(conversation) == [1, 0]

    def test_envoys_own_answers_are_told_from_those_of_pods(self) -> None:
        conversation = two_pods()
        conversation.say(request_headers(), request_body(SQL))

        reset = "upstream_reset_before_response_started{connection_termination}"
        conversation.say(response_headers("503", attributes=served_by(POD_1, 503, reset)))

        assert answers_of(conversation) == {("envoy", "5xx"): 1}

    def test_without_attributes_the_status_is_in_the_headers(self) -> None:
        conversation = two_pods()
        conversation.say(request_headers(), request_body(SQL))

        conversation.say(response_headers("404"))

        assert answers_of(conversation) == {("unknown", "4xx"): 1}

    def test_a_request_counts_where_envoy_sent_it(self) -> None:
        conversation = two_pods()
        conversation.say(request_headers(), request_body(SQL))

        conversation.say(response_headers(attributes=served_by(POD_2)))

        assert in_flight(conversation) == [0, 1]
        conversation.session.end()
        assert in_flight(conversation) == [0, 0]

    def test_the_endpoint_picker_protocol_names_the_endpoint_in_metadata(self) -> None:
        conversation = two_pods()
        conversation.say(request_headers(), request_body(SQL))

        conversation.say(response_headers(served=POD_2))

        assert in_flight(conversation) == [0, 1]

    def test_a_request_that_passes_through_counts_too(self) -> None:
        conversation = Conversation(make_fleet(1))
        conversation.say(request_headers("/v1/files"), response_headers("413"))

        answers = conversation.say(request_body(b"rest", end=False), request_body(b""))

        assert answers_of(conversation) == {("unknown", "4xx"): 1}
        assert [answer.WhichOneof("response") for answer in answers] == ["request_body"] * 2
        assert conversation.fleet.ledger.total == 1

    @pytest.mark.parametrize("status", ["100", "103"])
    def test_an_informational_response_is_no_answer(self, status: str) -> None:
        conversation = two_pods()
        conversation.say(request_headers(), request_body(SQL))

        (answer,) = conversation.say(response_headers(status))
        assert answer.HasField("response_headers")
        assert answers_of(conversation) == {}
        conversation.say(response_headers("500"))

        assert answers_of(conversation) == {("unknown", "5xx"): 1}

    def test_switching_protocols_is_an_answer(self) -> None:
        conversation = two_pods()
        conversation.say(request_headers(end=True), response_headers("101"))

        assert answers_of(conversation) == {("unknown", "1xx"): 1}

    def test_only_the_first_answer_counts(self) -> None:
        conversation = two_pods()
        conversation.say(request_headers(), request_body(SQL))

        conversation.say(response_headers("200"), response_headers("500"))

        assert answers_of(conversation) == {("unknown", "2xx"): 1}

    def test_a_failure_to_record_an_answer_does_not_cut_it(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        conversation = two_pods()
        conversation.say(request_headers(), request_body(SQL))
        monkeypatch.setattr("lora_router.fleet.ledger.Reservation.answered", lambda *_: 1 / 0)

        (answer,) = conversation.say(response_headers())

        assert answer.HasField("response_headers")
        assert "ZeroDivisionError" in caplog.text
        for _ in range(10):
            another = conversation.another()
            for message in (request_headers(), request_body(SQL), response_headers()):
                another.receive(message.SerializeToString())
            another.end()
        assert caplog.text.count("failed to record an answer") == 1


class TestAnsweredByAnotherFilter:
    """An earlier filter answers, such as one for authentication, rate limits, or CORS."""

    @pytest.mark.parametrize("status", ["401", "429", "204", ""])
    def test_a_stream_may_begin_with_the_response(self, status: str) -> None:
        conversation = two_pods()

        answers = conversation.say(
            response_headers(status, first=ProcessingMode.NONE),
            response_body(b"sorry", end=False),
            response_trailers(),
        )

        assert [answer.WhichOneof("response") for answer in answers] == [
            "response_headers",
            "response_body",
            "response_trailers",
        ]
        assert conversation.decisions.seen == []
        assert answers_of(conversation) == {}
        conversation.session.end()
        assert conversation.fleet.ledger.total == 0

    @pytest.mark.parametrize(
        "first", [response_body(b"sorry", end=True), response_trailers()], ids=["body", "trailers"]
    )
    def test_or_with_what_is_sent_of_the_response(self, first: ProcessingRequest) -> None:
        conversation = two_pods()

        (answer,) = conversation.say(first)

        assert answer.WhichOneof("response") == first.WhichOneof("request")

    def test_in_full_duplex_its_body_is_sent_back(self) -> None:
        conversation = two_pods()

        _, answer = conversation.say(
            response_headers("401", first=ProcessingMode.FULL_DUPLEX_STREAMED),
            response_body(b"sorry", end=True),
        )

        streamed = answer.response_body.response.body_mutation.streamed_response
        assert (streamed.body, streamed.end_of_stream) == (b"sorry", True)

    def test_no_request_may_follow(self) -> None:
        conversation = two_pods()
        conversation.say(response_headers("401"))

        assert "after the response" in conversation.breaks(request_headers()).message


class TestAnsweredBeforeAPodWasPicked:
    """Envoy answers by itself: the body is too large, or the client too slow."""

    @pytest.mark.parametrize("headers", [request_headers(), STREAMED], ids=["buffered", "pieces"])
    def test_the_request_is_not_routed(self, headers: ProcessingRequest) -> None:
        conversation = two_pods()
        conversation.say(headers)

        (answer,) = conversation.say(response_headers("408"))

        assert answer.HasField("response_headers")
        assert conversation.session.state is ANSWERED
        assert conversation.say(request_body(SQL), request_trailers()) == []
        assert conversation.fleet.ledger.total == 0
        assert answers_of(conversation) == {}

    @pytest.mark.parametrize("trailers", [[], [request_trailers()]], ids=["body", "trailers"])
    def test_a_held_request_is_cancelled(self, trailers: list[ProcessingRequest]) -> None:
        conversation = two_pods()
        busy = conversation.another()
        for message in (request_headers(), request_body(SQL)):
            busy.receive(message.SerializeToString())
        conversation.say(request_headers(), request_body(SQL), *trailers)
        assert conversation.context.director.held == 1

        conversation.say(response_headers("504"))

        assert conversation.context.director.held == 0
        busy.end()
        conversation.clock.advance(10)
        assert conversation.late == []
        assert in_flight(conversation) == [0, 0]

    def test_an_informational_response_changes_nothing(self) -> None:
        conversation = two_pods()

        conversation.say(request_headers(), response_headers("100"), request_body(SQL))

        assert conversation.session.state is ROUTED
        assert state_of(conversation.fleet, 1).in_flight == 1
