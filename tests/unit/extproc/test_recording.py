"""Each request has one record, complete, however it ends."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from lora_router.extproc.every_pod import EveryPod
from lora_router.extproc.gateway_faults import UNSEEN_IN_A_ROW
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.extproc.session import Session
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_calls import PodRequest, PodResult
from lora_router.fleet.pod_state import PodState, PodView
from lora_router.routing.algorithm import Hold, InferenceRequest, Pick
from lora_router.telemetry.decisions import Decision
from tests.fleet import make_fleet, state_of
from tests.unit.extproc.conversation import (
    Conversation,
    request_body,
    request_headers,
    request_trailers,
    response_body,
    response_headers,
    served_by,
)

SQL = b'{"model": "sql-lora", "stream": true}'
ID = ("x-request-id", b"r-1")
POD_1, POD_2 = "10.0.0.1:8000", "10.0.0.2:8000"
STREAMED, FULL_DUPLEX = ProcessingMode.STREAMED, ProcessingMode.FULL_DUPLEX_STREAMED


class FirstPod:
    """Sends everything to the first pod, and holds requests while it is busy."""

    name = "first-pod"

    def pick(
        self, request: InferenceRequest, candidates: Sequence[PodView], _now: float
    ) -> Pick | Hold:
        if request.may_hold and candidates[0].in_flight:
            return Hold("no-slot", 5.0)
        return Pick(candidates[0], "first")


class Talk(Conversation):
    """A conversation whose decisions are recorded. Its fleet has two pods, unless it is given."""

    def __init__(self, fleet: Fleet | None = None, **options: Any) -> None:
        self.told: list[Decision] = []
        self.decided: list[Decision] = []
        super().__init__(fleet, algorithm=FirstPod(), records=100, **options)
        self.log.on_decided.append(self.decided.append)
        self.log.on_ended.append(self.told.append)

    def ask(self, body: bytes = SQL, path: str = "/v1/chat/completions", **more: Any) -> None:
        """Send a request in a new stream. Its body takes 1 s."""
        self.session = self.another()
        self.say(request_headers(path, headers=[ID], **more))
        self.clock.advance(1.0)
        self.say(request_body(body))

    def make_busy(self) -> Session:
        """Send a request to the first pod. Return its session, which is still open."""
        busy = self.another()
        for message in (request_headers(headers=[("x-request-id", b"busy")]), request_body(SQL)):
            busy.receive(message.SerializeToString())
        return busy

    def end(self) -> Decision:
        """End the stream. Return its record, which must be the only one, and complete."""
        self.session.end()
        self.session.end()
        return self.only()

    def only(self) -> Decision:
        """Return the only record that is complete, beside that of the busy request."""
        [decision] = [each for each in self.told if each.request_id != "busy"]
        assert list(self.log).count(decision) == 1
        assert self.decided.count(decision) == 1
        assert decision.number > 0
        assert decision.arrived_at <= decision.decided_at <= decision.ended_at
        assert decision.outcome
        assert decision.reason
        return decision


class TestRouted:
    def test_the_record_of_an_answered_request_has_all_of_it(self) -> None:
        talk = Talk()
        talk.ask()
        talk.clock.advance(2.0)
        talk.say(response_headers(attributes=served_by(POD_1)))
        talk.clock.advance(4.0)

        record = talk.end()

        assert (record.request_id, record.path) == ("r-1", "/v1/chat/completions")
        assert (record.model, record.adapter, record.base_model) == ("sql-lora", "sql-lora", "base")
        assert (record.size, record.stream) == (len(SQL), True)
        assert (record.algorithm, record.outcome, record.reason) == ("first-pod", "routed", "first")
        assert (record.pod, record.endpoint, record.place) == ("pod-1", POD_1, "nowhere")
        assert (record.status, record.details, record.retried_on) == (200, "", "")
        # The clock stands still while the router decides, so that time is taken from the body's.
        assert record.body_seconds + record.decision_seconds == pytest.approx(1.0)
        assert (record.pod_seconds, record.first_byte_seconds, record.seconds) == (2.0, 3.0, 7.0)
        assert not talk.log.is_abnormal(record)

    def test_it_can_be_read_while_the_request_is_in_flight(self) -> None:
        talk = Talk()
        talk.ask()

        [record] = talk.log

        assert (record.pod, record.answered_at, record.ended_at) == ("pod-1", 0.0, 0.0)
        assert [pod.pod.name for pod, *_ in record.looks.rows] == ["pod-1", "pod-2"]
        assert talk.told == []

    def test_a_request_for_a_base_model_has_no_adapter(self) -> None:
        talk = Talk()
        talk.ask(b'{"model": "base"}')

        record = talk.end()

        assert (record.adapter, record.base_model, record.place) == ("", "base", "")

    def test_the_id_that_the_router_makes_is_recorded(self) -> None:
        talk = Talk()
        _, answer = talk.say(request_headers(), request_body(SQL))

        headers = answer.request_body.response.header_mutation.set_headers
        made = {each.header.key: each.header.raw_value.decode() for each in headers}
        assert talk.end().request_id == made["x-request-id"]

    def test_the_pod_that_envoy_tried_instead_is_named(self) -> None:
        talk = Talk()
        talk.ask()
        talk.say(response_headers(attributes=served_by(POD_2)))

        record = talk.end()

        assert (record.pod, record.retried_on) == ("pod-1", "pod-2")
        assert talk.log.is_abnormal(record)
        assert [seen.pod for seen in record.seen] == ["pod-1", "pod-2"]

    def test_a_request_for_a_further_copy_of_its_adapter_says_so(self) -> None:
        talk = Talk(make_fleet(12))
        first = talk.fleet.ledger.reserve(state_of(talk.fleet, 12), "sql-lora")
        last = talk.fleet.ledger.reserve(state_of(talk.fleet, 2), "sql-lora")
        first.release()
        talk.ask()

        record = talk.end()

        assert (record.pod, record.place, record.replicated) == ("pod-1", "nowhere", True)
        assert last.open

    def test_one_that_the_router_does_not_know_is_named_by_its_endpoint(self) -> None:
        talk = Talk()
        talk.ask()
        talk.say(response_headers(attributes=served_by("10.9.9.9:80")))

        assert talk.end().retried_on == "10.9.9.9:80"

    def test_why_envoy_answered_instead_of_the_pod(self) -> None:
        talk = Talk()
        talk.ask()
        talk.say(response_headers("503", attributes=served_by(POD_1, 503, "connection_failure")))

        record = talk.end()

        assert (record.status, record.details) == (503, "connection_failure")
        assert record.failed

    def test_only_the_final_response_counts(self) -> None:
        talk = Talk()
        talk.ask()
        talk.say(response_headers("103"))
        talk.clock.advance(1.0)
        talk.say(response_headers("200"), response_headers("500"))

        record = talk.end()

        assert (record.status, record.pod_seconds) == (200, 1.0)

    @pytest.mark.parametrize("mode", [STREAMED, FULL_DUPLEX])
    def test_a_body_in_pieces_is_asked_about_when_it_is_complete(
        self, mode: "ProcessingMode.BodySendMode"
    ) -> None:
        talk = Talk()
        talk.say(request_headers(mode=mode, send_body_without_waiting=True))
        talk.clock.advance(1.0)
        talk.say(request_body(SQL[:9], end=False))
        talk.clock.advance(1.0)
        talk.say(request_body(SQL[9:], end=False), request_trailers(), response_headers())

        record = talk.end()

        assert (record.outcome, record.size) == ("routed", len(SQL))
        assert record.body_seconds + record.decision_seconds == pytest.approx(2.0)

    def test_a_request_that_names_no_model_passes(self) -> None:
        talk = Talk()
        talk.clock.advance(1.0)
        talk.say(request_headers("/upload", end=True, headers=[ID]), response_headers())

        record = talk.end()

        assert (record.algorithm, record.outcome, record.model) == ("pass-through", "routed", "")
        assert (record.pod in {"pod-1", "pod-2"}, record.base_model) == (True, "")
        assert (record.body_seconds, record.first_byte_seconds) == (0.0, 0.0)

    def test_a_request_with_an_id_goes_to_its_pod(self) -> None:
        talk = Talk(make_fleet(3))
        talk.context.ids.made.learn("resp_1", state_of(talk.fleet, 3))
        talk.ask(b'{"model": "base", "previous_response_id": "resp_1"}', "/v1/responses")
        talk.say(response_headers(), response_body(b"{}", end=True))

        record = talk.end()

        assert (record.reason, record.pod, record.held_for) == ("sticky", "pod-3", "")

    def test_a_slow_one_keeps_its_candidates(self) -> None:
        talk = Talk(slow_seconds=2.0)
        talk.ask()
        talk.clock.advance(1.5)
        talk.say(response_headers())

        record = talk.end()

        assert [(seen.pod, seen.requests, seen.place) for seen in record.seen] == [
            ("pod-1", 0, "nowhere"),
            ("pod-2", 0, "nowhere"),
        ]
        assert record.looks.rows == ()


class TestUnanswered:
    def test_a_client_that_leaves_before_the_answer_is_no_failure_of_the_pod(self) -> None:
        talk = Talk()
        talk.ask()

        record = talk.end()

        assert (record.outcome, record.unanswered, record.failed) == ("routed", True, False)
        assert record.first_byte_seconds is None
        assert talk.log.is_abnormal(record)

    def test_a_gateway_that_never_shows_answers_leaves_it_open(self) -> None:
        talk = Talk()
        for _ in range(UNSEEN_IN_A_ROW):
            talk.ask()
            talk.session.end()
        talk.told.clear()

        talk.ask()
        talk.session.end()

        [record] = talk.told
        assert not record.unanswered
        assert not talk.log.is_abnormal(record)

    def test_a_message_out_of_order_cuts_the_stream(self) -> None:
        talk = Talk()
        talk.ask()

        talk.breaks(request_headers())

        record = talk.end()
        assert (record.outcome, record.pod, record.unanswered) == ("routed", "pod-1", True)


class TestRefused:
    @pytest.mark.parametrize(
        ("message", "options", "reason", "status"),
        [
            (
                request_headers("/x", method="GET", end=True),
                {"refuse_unknown_paths": True},
                "path-refused",
                404,
            ),
            (request_headers(headers=[("content-length", b"99999")]), {}, "body-too-large", 413),
            (
                request_headers(headers=[("content-encoding", b"br")]),
                {},
                "unsupported-encoding",
                415,
            ),
            (request_headers(headers=[("a", b"1")] * 100), {}, "too-many-headers", 431),
            (request_headers("/v1/load_lora_adapter"), {}, "path-refused", 404),
        ],
        ids=["path", "length", "encoding", "headers", "admin"],
    )
    def test_at_the_headers(
        self, message: ProcessingRequest, options: dict[str, Any], reason: str, status: int
    ) -> None:
        talk = Talk(**options)
        talk.say(message)

        record = talk.end()

        assert (record.algorithm, record.outcome) == ("none", "refused")
        assert (record.reason, record.status) == (reason, status)
        assert (record.pod, record.held_for, record.asked_at) == ("", "", 0.0)

    @pytest.mark.parametrize(
        ("body", "reason"), [(b"no json", "bad-body"), (b"x" * 20_000, "body-too-large")]
    )
    def test_at_the_body(self, body: bytes, reason: str) -> None:
        talk = Talk()
        talk.ask(body)

        record = talk.end()

        assert (record.outcome, record.algorithm) == ("refused", "none")
        assert record.reason == reason
        assert record.body_seconds == 1.0

    def test_an_unknown_model(self) -> None:
        talk = Talk()
        talk.ask(b'{"model": "nobody-has-it"}')

        record = talk.end()

        assert (record.outcome, record.reason, record.status) == ("refused", "unknown-model", 404)
        assert (record.model, record.adapter, record.algorithm) == (
            "nobody-has-it",
            "",
            "first-pod",
        )
        assert talk.log.is_abnormal(record)

    def test_a_filter_that_nobody_passes_names_the_adapter_all_the_same(self) -> None:
        talk = Talk()
        talk.session = talk.another()
        filtered = [ID, ("external-filter", b"zone=none")]
        talk.say(request_headers(headers=filtered), request_body(SQL))

        record = talk.end()

        assert (record.reason, record.adapter, record.base_model) == (
            "none-selected",
            "sql-lora",
            "base",
        )

    def test_an_unknown_algorithm_is_not_repeated(self) -> None:
        talk = Talk()
        talk.say(request_headers(headers=[("routing-strategy", b"of a client")]), request_body(SQL))

        record = talk.end()

        assert (record.algorithm, record.reason) == ("none", "unknown-algorithm")

    def test_an_id_that_nobody_made(self) -> None:
        talk = Talk()
        talk.say(request_headers("/v1/responses/resp_x", method="GET", end=True))

        record = talk.end()

        assert (record.algorithm, record.reason, record.status) == ("none", "id-not-found", 404)

    def test_without_memory_for_the_body(self) -> None:
        talk = Talk()
        talk.say(request_headers())
        talk.session.overloaded()

        record = talk.end()

        assert (record.reason, record.status) == ("router-overloaded", 503)

    def test_without_a_pod_a_request_does_not_pass(self) -> None:
        talk = Talk(Fleet())
        talk.say(request_headers("/upload", end=True))

        record = talk.end()

        assert (record.algorithm, record.reason) == ("pass-through", "no-ready-pod")


class TestHeld:
    def test_then_routed(self) -> None:
        talk = Talk()
        busy = talk.make_busy()
        talk.ask()
        talk.clock.advance(2.0)
        busy.end()
        talk.clock.advance(0.5)
        talk.say(response_headers())

        record = talk.end()

        assert (record.outcome, record.held_for, record.pod) == ("routed", "no-slot", "pod-1")
        assert record.held_seconds == pytest.approx(2.0, abs=0.1)
        assert record.first_byte_seconds == 3.5
        parts = (
            record.body_seconds,
            record.held_seconds,
            record.decision_seconds,
            record.pod_seconds,
        )
        assert sum(part or 0.0 for part in parts) == pytest.approx(3.5, abs=0.001)
        assert [(seen.pod, seen.requests, seen.place) for seen in record.held_seen] == [
            ("pod-1", 1, "running"),
            ("pod-2", 0, "nowhere"),
        ]
        assert [(seen.pod, seen.requests) for seen in record.seen] == [("pod-1", 0), ("pod-2", 0)]

    def test_then_its_client_left(self) -> None:
        talk = Talk()
        talk.make_busy()
        talk.ask()
        talk.clock.advance(2.0)

        record = talk.end()

        assert (record.outcome, record.reason) == ("cancelled", "client-left")
        assert (record.held_for, record.held_seconds) == ("no-slot", 2.0)
        assert (record.algorithm, record.adapter, record.base_model) == (
            "first-pod",
            "sql-lora",
            "base",
        )

    def test_then_refused_because_its_time_is_up(self) -> None:
        talk = Talk()
        talk.make_busy()
        talk.ask()
        talk.fleet.replace([])
        talk.clock.advance(40.0)

        record = talk.end()

        assert (record.outcome, record.held_for) == ("refused", "no-slot")
        assert record.held_seconds == 5.0
        assert record.status == 503
        assert record.adapter == "sql-lora"

    def test_then_envoy_answered(self) -> None:
        talk = Talk()
        talk.make_busy()
        talk.ask()
        talk.clock.advance(3.0)
        talk.say(response_headers("504", attributes=served_by("", 504, "response_timeout")))

        record = talk.end()

        assert (record.outcome, record.reason) == ("cancelled", "answered-before")
        assert (record.status, record.details) == (504, "response_timeout")
        assert record.held_seconds == 3.0

    def test_while_the_lists_of_pods_are_read_again(self) -> None:
        talk = Talk()
        look = talk.context.director.second_look
        look.look = lambda: True
        talk.ask(b'{"model": "nobody-has-it"}')
        talk.clock.advance(1.0)
        look.ended()

        record = talk.end()

        assert (record.outcome, record.reason) == ("refused", "unknown-model")
        assert (record.held_for, record.held_seconds) == ("unknown-model", 1.0)
        assert record.algorithm == "first-pod"

    def test_while_peers_may_know_an_id(self) -> None:
        talk = Talk(make_fleet(3))
        made = talk.context.ids.made
        made.is_shared = True
        talk.say(request_headers("/v1/responses/resp_1", method="GET", end=True, headers=[ID]))
        made.learn("resp_1", state_of(talk.fleet, 2))
        talk.clock.advance(1.0)
        talk.say(response_headers())

        record = talk.end()

        assert (record.outcome, record.algorithm, record.pod) == ("routed", "sticky", "pod-2")
        assert record.held_for == "unknown-id"
        assert record.held_seconds == pytest.approx(0.15, abs=0.001)


class TestAnsweredByOthers:
    def test_the_router_answers_about_models(self) -> None:
        talk = Talk()
        talk.say(request_headers("/v1/models", method="GET", end=True, headers=[ID]))

        record = talk.end()

        assert (record.algorithm, record.outcome, record.reason) == ("none", "answered", "models")
        assert (record.status, record.request_id) == (200, "r-1")
        assert not talk.log.is_abnormal(record)

    def test_every_pod_gets_the_request(self) -> None:
        talk = Talk(admin_allowed=True)
        object.__setattr__(talk.context, "every_pod", EveryPod(talk.context.director, Pods()))
        talk.ask(b'{"lora_name": "new"}', "/v1/load_lora_adapter")

        record = talk.end()

        assert (record.outcome, record.reason, record.status) == ("answered", "every-pod", 200)

    def test_an_earlier_filter_answered_so_there_was_no_request(self) -> None:
        talk = Talk()

        talk.say(response_headers("401"), response_body(b"no", end=True))
        talk.session.end()

        assert (list(talk.log), talk.told, talk.decided) == ([], [], [])

    def test_envoy_answered_before_the_body_was_there(self) -> None:
        talk = Talk()
        talk.say(request_headers(), response_headers("408"))

        record = talk.end()

        assert (record.outcome, record.reason, record.status) == (
            "cancelled",
            "answered-before",
            408,
        )

    @pytest.mark.parametrize("last", [response_body(b"", end=True), request_trailers()])
    def test_or_so_it_seems_where_headers_are_not_sent(self, last: ProcessingRequest) -> None:
        talk = Talk()
        talk.say(request_headers(mode=STREAMED, send_body_without_waiting=True), last)

        assert talk.end().outcome in {"cancelled", "refused"}

    def test_in_observability_mode_nothing_is_recorded(self) -> None:
        talk = Talk()
        message = request_headers()
        message.observability_mode = True

        talk.say(message)
        talk.session.end()

        assert (list(talk.log), talk.told) == ([], [])


class TestCut:
    def test_the_client_left_before_the_body(self) -> None:
        talk = Talk()
        talk.say(request_headers(headers=[ID]))

        record = talk.end()

        assert (record.outcome, record.reason) == ("cancelled", "client-left")
        assert (record.request_id, record.algorithm) == ("r-1", "")

    def test_a_gateway_that_breaks_the_protocol(self) -> None:
        talk = Talk()
        talk.say(request_headers())
        talk.breaks(request_headers())

        assert talk.end().reason == "protocol-error"

    def test_a_fault_of_the_router(self, monkeypatch: pytest.MonkeyPatch) -> None:
        talk = Talk()
        talk.say(request_headers())
        monkeypatch.setattr("lora_router.routing.director.Director.route", lambda *_: 1 / 0)
        talk.breaks(request_body(SQL))

        record = talk.end()

        assert (record.outcome, record.reason) == ("cancelled", "internal-error")


@pytest.mark.slow
def test_a_thousand_requests_have_a_thousand_records_in_order() -> None:
    talk = Talk()
    numbers: list[int] = []
    talk.log.on_decided.append(lambda decision: numbers.append(decision.number))
    for _ in range(1000):
        talk.ask(b'{"model": "base"}')
        talk.say(response_headers())
        talk.session.end()

    assert numbers == list(range(1, 1001))
    assert len(talk.told) == 1000
    assert len(talk.log) == 100


def test_without_a_log_nothing_is_recorded() -> None:
    talk = Conversation()

    talk.say(request_headers(), request_body(SQL), response_headers())
    talk.session.end()

    assert list(talk.log) == []


def test_long_names_are_cut() -> None:
    talk = Talk()
    name = "n" * 500
    talk.ask(json.dumps({"model": name}).encode())

    assert len(talk.end().model) == 256


class Pods:
    """Pods that all answer 200 at once."""

    def call(
        self, states: Sequence[PodState], _request: PodRequest, _seconds: float, on_done: Any
    ) -> None:
        on_done([PodResult(state, 200, "said") for state in states])
