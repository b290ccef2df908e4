"""Gateways that close streams early, or send no response headers, are noticed, and no others."""

import logging
from collections.abc import Iterable

import pytest

from lora_router.extproc.gateway_faults import (
    BODIES_IN_A_ROW,
    EARLY_IN_A_ROW,
    EVENTS_IN_A_ROW,
    UNSEEN_IN_A_ROW,
    GatewayFaults,
)
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from tests.fleet import make_fleet
from tests.unit.extproc.conversation import (
    Conversation,
    request_body,
    request_headers,
    response_body,
    response_headers,
)

BUFFERED, STREAMED = ProcessingMode.BUFFERED, ProcessingMode.STREAMED
EARLY, LASTING = 0.002, 0.5


@pytest.fixture(autouse=True)
def all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lora_router.extproc")


def faults_of(gateway: GatewayFaults) -> list[str]:
    listed = gateway.status().get("gateway_faults", [])
    assert isinstance(listed, list)
    return listed


def levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records]


class TestClosedEarly:
    def ended(self, gateway: GatewayFaults, seconds: Iterable[float], mode: int = STREAMED) -> None:
        for each in seconds:
            gateway.stream_ended(mode, each, is_reset=True)

    def test_clients_that_leave_at_once_are_no_fault(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        gateway = GatewayFaults()

        for _ in range(EARLY_IN_A_ROW * 2):
            gateway.stream_ended(STREAMED, EARLY, is_reset=False)

        assert (faults_of(gateway), gateway.closed_early) == ([], 0)
        assert caplog.records == []

    def test_none_of_them_ends_a_fault(self) -> None:
        gateway = GatewayFaults()

        self.ended(gateway, [EARLY] * EARLY_IN_A_ROW)
        gateway.stream_ended(STREAMED, EARLY, is_reset=False)

        assert len(faults_of(gateway)) == 1

    def test_many_streams_in_a_row_that_end_at_once_are_a_fault(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        gateway = GatewayFaults()

        self.ended(gateway, [EARLY] * (EARLY_IN_A_ROW - 1))
        assert (faults_of(gateway), gateway.closed_early) == ([], 0)
        self.ended(gateway, [EARLY] * 3)

        (fault,) = faults_of(gateway)
        assert "STREAMED" in fault
        assert "response_trailer_mode: SEND" in fault
        assert gateway.closed_early == EARLY_IN_A_ROW + 2
        assert [record.getMessage() for record in caplog.records] == [fault]
        assert levels(caplog) == ["WARNING"]

    def test_one_stream_that_stays_open_disproves_it(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        gateway = GatewayFaults()

        self.ended(gateway, ([EARLY] * (EARLY_IN_A_ROW - 1) + [LASTING]) * 10)

        assert (faults_of(gateway), gateway.closed_early) == ([], 0)
        assert caplog.records == []

    def test_an_end_that_is_neither_early_nor_late_proves_nothing(self) -> None:
        gateway = GatewayFaults()

        self.ended(gateway, [EARLY, 0.05] * EARLY_IN_A_ROW)

        assert gateway.closed_early == EARLY_IN_A_ROW

    def test_the_fault_ends_when_a_stream_stays_open(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        gateway = GatewayFaults()

        self.ended(gateway, [EARLY] * EARLY_IN_A_ROW + [LASTING, LASTING])

        assert gateway.status() == {}
        assert gateway.closed_early == EARLY_IN_A_ROW
        assert levels(caplog) == ["WARNING", "INFO"]

    def test_each_body_mode_is_judged_by_itself(self) -> None:
        gateway = GatewayFaults()

        for _ in range(EARLY_IN_A_ROW):
            self.ended(gateway, [EARLY], STREAMED)
            self.ended(gateway, [LASTING], BUFFERED)

        (fault,) = faults_of(gateway)
        assert "STREAMED" in fault

    @pytest.mark.parametrize("mode", [-1, 77, 2**31 - 1])
    def test_a_mode_that_is_not_known_is_judged_too(self, mode: int) -> None:
        gateway = GatewayFaults()

        self.ended(gateway, [EARLY] * EARLY_IN_A_ROW, mode)

        (fault,) = faults_of(gateway)
        assert "UNKNOWN" in fault


class TestNoResponseHeaders:
    def test_many_requests_in_a_row_without_an_answer_are_a_fault(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        gateway = GatewayFaults()

        for _ in range(UNSEEN_IN_A_ROW + 5):
            gateway.ended_unseen()

        (fault,) = faults_of(gateway)
        assert "response_header_mode: SEND" in fault
        assert [record.getMessage() for record in caplog.records] == [fault]

    def test_an_answer_in_between_disproves_it(self, caplog: pytest.LogCaptureFixture) -> None:
        gateway = GatewayFaults()

        for _ in range(3):
            for _ in range(UNSEEN_IN_A_ROW - 1):
                gateway.ended_unseen()
            gateway.answer_seen()

        assert gateway.status() == {}
        assert caplog.records == []

    def test_the_fault_ends_with_the_first_answer(self, caplog: pytest.LogCaptureFixture) -> None:
        gateway = GatewayFaults()

        for _ in range(UNSEEN_IN_A_ROW):
            gateway.ended_unseen()
        gateway.answer_seen()

        assert gateway.status() == {}
        assert levels(caplog) == ["WARNING", "INFO"]


class TestNoResponseBodies:
    def test_some_documents_in_a_row_without_a_body_are_a_fault(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        gateway = GatewayFaults()

        for _ in range(BODIES_IN_A_ROW + 3):
            gateway.ended_without_body(event_stream=False)

        (fault,) = faults_of(gateway)
        assert "allow_mode_override: true" in fault
        assert levels(caplog) == ["WARNING"]

    def test_of_streams_of_events_it_takes_more_because_clients_leave_them(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        gateway = GatewayFaults()

        for _ in range(EVENTS_IN_A_ROW - 1):
            gateway.ended_without_body(event_stream=True)
        assert faults_of(gateway) == []
        for _ in range(3):
            gateway.ended_without_body(event_stream=True)

        assert len(faults_of(gateway)) == 1
        assert levels(caplog) == ["WARNING"]

    def test_the_fault_ends_with_the_first_body(self, caplog: pytest.LogCaptureFixture) -> None:
        gateway = GatewayFaults()

        for _ in range(EVENTS_IN_A_ROW):
            gateway.ended_without_body(event_stream=True)
        for _ in range(BODIES_IN_A_ROW):
            gateway.ended_without_body(event_stream=False)
        gateway.body_seen()

        assert gateway.status() == {}
        assert levels(caplog) == ["WARNING", "INFO"]


class TestEvidence:
    """What a session reports of a stream."""

    EVENTS = response_headers(content_type="text/event-stream; charset=utf-8")
    BODY = request_body(b'{"model": "base"}')
    STREAMED_BODY = request_body(b'{"model": "base", "stream": true}')

    def conversation(
        self,
        *messages: ProcessingRequest,
        seconds: float,
        times: int = EARLY_IN_A_ROW,
        path: str = "/v1/completions",
        is_reset: bool = True,
    ) -> Conversation:
        """Say the same on several streams, each of which ends some time after the last message."""
        conversation = Conversation(make_fleet(1))
        headers = request_headers(path, mode=STREAMED, send_body_without_waiting=True)
        for _ in range(times):
            session = conversation.another()
            for message in (headers, *messages):
                session.receive(message.SerializeToString())
            conversation.clock.advance(seconds)
            session.was_reset = is_reset
            session.end()
            session.end()
        return conversation

    def test_a_stream_of_events_takes_time(self) -> None:
        conversation = self.conversation(self.BODY, self.EVENTS, seconds=EARLY)

        assert conversation.context.gateway.closed_early == EARLY_IN_A_ROW

    def test_clients_that_leave_show_nothing(self) -> None:
        conversation = self.conversation(
            self.BODY, self.EVENTS, seconds=EARLY, times=99, is_reset=False
        )

        assert conversation.context.gateway.status() == {}

    def test_streams_that_end_with_their_answers_are_well(self) -> None:
        conversation = self.conversation(self.BODY, self.EVENTS, seconds=LASTING, times=200)

        assert conversation.context.gateway.status() == {}

    @pytest.mark.parametrize(
        "answer",
        [
            response_headers(),
            response_headers("429", content_type="text/event-stream"),
            response_headers(content_type="text/event-stream", end=True),
        ],
        ids=["no-events", "error", "no-body"],
    )
    def test_other_answers_may_end_at_once(self, answer: ProcessingRequest) -> None:
        conversation = self.conversation(self.STREAMED_BODY, answer, seconds=EARLY, times=200)

        assert conversation.context.gateway.status() == {}

    def test_without_response_headers_every_answer_that_is_to_be_streamed_takes_time(self) -> None:
        conversation = self.conversation(self.STREAMED_BODY, seconds=EARLY)
        assert conversation.context.gateway.closed_early == EARLY_IN_A_ROW

        conversation = self.conversation(self.BODY, seconds=EARLY)
        assert conversation.context.gateway.closed_early == 0

    def test_requests_that_end_without_response_headers_count(self) -> None:
        conversation = self.conversation(self.BODY, seconds=LASTING, times=UNSEEN_IN_A_ROW)

        (fault,) = faults_of(conversation.context.gateway)
        assert "no response headers" in fault

        session = conversation.another()
        for message in (request_headers(), self.BODY, response_headers()):
            session.receive(message.SerializeToString())
        assert conversation.context.gateway.status() == {}

    @pytest.mark.parametrize(
        ("path", "messages"),
        [
            ("/v1/files", [request_body(b"file")]),
            ("/v1/completions", [request_body(b"{}")]),
            ("/v1/completions", [response_headers("408")]),
            ("/v1/completions", []),
        ],
        ids=["pass-through", "refused", "another-filter", "left"],
    )
    def test_requests_that_name_no_model_or_reach_no_pod_show_nothing(
        self, path: str, messages: list[ProcessingRequest]
    ) -> None:
        conversation = self.conversation(*messages, seconds=EARLY, times=200, path=path)

        assert conversation.context.gateway.status() == {}

    def test_the_time_counts_from_the_headers_of_the_answer(self) -> None:
        conversation = Conversation(make_fleet(1))
        for _ in range(EARLY_IN_A_ROW):
            session = conversation.another()
            for message in (request_headers(), self.BODY):
                session.receive(message.SerializeToString())
            conversation.clock.advance(LASTING)
            for message in (self.EVENTS, response_body(b"data: 1", end=False)):
                session.receive(message.SerializeToString())
            conversation.clock.advance(EARLY)
            session.was_reset = True
            session.end()

        assert conversation.context.gateway.closed_early == EARLY_IN_A_ROW
