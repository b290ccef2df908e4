"""A session, driven with plain messages."""

import json
from collections.abc import Sequence

import pytest

from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.outputs import EndStream
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.fleet.fleet import Fleet
from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import AlgorithmOptions, Hold, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.routing.least_request import LeastRequest
from lora_router.routing.model_names import NamePolicy
from tests.fleet import make_fleet
from tests.unit.extproc.conversation import (
    Conversation,
    read_answer,
    request_body,
    request_headers,
    request_trailers,
    response_body,
    response_headers,
    told,
)

SQL = b'{"model": "sql-lora", "messages": []}'
OURS = ["target-pod", "x-gateway-destination-endpoint", "routing-strategy", "model"]
POD_1 = "10.0.0.1:8000"


def one_pod(**options: object) -> Conversation:
    return Conversation(make_fleet(1), **options)  # type: ignore[arg-type]


def metadata_of(response: ProcessingResponse) -> object:
    fields = response.dynamic_metadata.fields
    return {key: dict(fields[key].struct_value.items()) for key in fields}


def error_of(response: ProcessingResponse) -> tuple[int, dict[str, str], dict[str, object]]:
    """Return status, headers and error object of an immediate response."""
    immediate = response.immediate_response
    body = json.loads(immediate.body)
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    headers = told(immediate.headers).set
    assert headers["content-type"] == "application/json"
    assert " " not in immediate.details
    return immediate.status.code, headers, body["error"]


class PrioritiesSeen(LeastRequest):
    name = "priorities-seen"

    def __init__(self, seen: list[int]) -> None:
        super().__init__(AlgorithmOptions())
        self._seen = seen

    def pick(self, request: InferenceRequest, candidates: Candidates, now: float) -> Pick:
        self._seen.append(request.priority)
        return super().pick(request, candidates, now)


class TestBuffered:
    def test_the_query_of_a_path_does_not_matter(self) -> None:
        conversation = one_pod()
        path = "/v1/completions?api-version=1"
        _, routed = conversation.say(request_headers(path), request_body(SQL))
        assert told(routed.request_body.response.header_mutation).set["target-pod"] == POD_1

    def test_the_body_names_the_model_and_its_answer_names_the_pod(self) -> None:
        conversation = one_pod()

        first, second = conversation.say(request_headers(), request_body(SQL))

        assert told(first.request_headers.response.header_mutation).removed == OURS
        mutation = told(second.request_body.response.header_mutation)
        assert mutation.set.pop("x-request-id")
        assert mutation.set == {
            "target-pod": POD_1,
            "x-gateway-destination-endpoint": POD_1,
            "routing-strategy": "least-request",
            "model": "sql-lora",
        }
        assert mutation.overwrites
        assert second.request_body.response.clear_route_cache

    def test_header_and_metadata_never_differ(self) -> None:
        conversation = Conversation()
        _, answer = conversation.say(request_headers(), request_body(SQL))

        address = told(answer.request_body.response.header_mutation).set["target-pod"]

        assert metadata_of(answer) == {"envoy.lb": {"x-gateway-destination-endpoint": address}}

    def test_a_body_that_trailers_follow_is_complete_too(self) -> None:
        conversation = one_pod()

        _, answer, trailers = conversation.say(
            request_headers(), request_body(SQL, end=False), request_trailers()
        )

        assert told(answer.request_body.response.header_mutation).set["target-pod"] == POD_1
        assert trailers.HasField("request_trailers")

    def test_an_envoy_that_does_not_tell_its_modes_is_taken_to_buffer(self) -> None:
        _, answer = one_pod().say(request_headers(mode=None), request_body(SQL))

        assert answer.HasField("request_body")

    def test_a_request_id_of_the_client_is_kept(self) -> None:
        headers = [("x-request-id", b"abc")]

        _, answer = one_pod().say(request_headers(headers=headers), request_body(SQL))

        assert "x-request-id" not in told(answer.request_body.response.header_mutation).set

    def test_the_strategy_the_client_asked_for_is_the_one_that_goes_on(self) -> None:
        headers = [("routing-strategy", b"least-request")]

        _, answer = one_pod().say(request_headers(headers=headers), request_body(SQL))

        mutation = told(answer.request_body.response.header_mutation)
        assert mutation.set["routing-strategy"] == "least-request"

    def test_header_names_are_configurable(self) -> None:
        names = HeaderNames(target_pod="x-pod", destination="x-to", strategy="x-by", model="x-m")

        first, answer = one_pod(headers=names).say(request_headers(), request_body(SQL))

        assert told(first.request_headers.response.header_mutation).removed == [
            "x-pod",
            "x-to",
            "x-by",
            "x-m",
        ]
        mutation = told(answer.request_body.response.header_mutation).set
        assert mutation.keys() >= {"x-pod", "x-to", "x-by", "x-m"}
        assert metadata_of(answer) == {"envoy.lb": {"x-to": POD_1}}

    def test_further_paths_can_be_named_in_the_settings(self) -> None:
        conversation = one_pod(paths={"/my/generate": "routed"})

        _, answer = conversation.say(request_headers("/my/generate?x=1"), request_body(SQL))

        assert told(answer.request_body.response.header_mutation).set["model"] == "sql-lora"


class TestPassingThrough:
    @pytest.mark.parametrize(
        "headers",
        [
            request_headers("/v1/models", end=True),
            request_headers("/v1/chat/completions", end=True),
            request_headers("/v1/files"),
        ],
        ids=["another-path", "no-body", "another-path-with-a-body"],
    )
    def test_the_headers_are_answered_with_any_ready_pod(self, headers: ProcessingRequest) -> None:
        conversation = one_pod()

        (answer,) = conversation.say(headers)

        mutation = told(answer.request_headers.response.header_mutation)
        assert mutation.set["target-pod"] == POD_1
        assert mutation.set["x-gateway-destination-endpoint"] == POD_1
        assert mutation.overwrites
        assert mutation.removed == ["routing-strategy", "model"]
        assert conversation.fleet.ledger.total == 1

    def test_its_body_is_not_looked_at(self) -> None:
        conversation = one_pod()

        answers = conversation.say(
            request_headers("/upload", content_type="text/plain"),
            request_body(b"not json", end=False),
            request_body(b""),
        )

        assert [answer.WhichOneof("response") for answer in answers] == [
            "request_headers",
            "request_body",
            "request_body",
        ]

    def test_no_ready_pod_is_a_503(self) -> None:
        conversation = Conversation(Fleet())

        (answer,) = conversation.say(request_headers("/v1/models", end=True))

        status, headers, error = error_of(answer)
        assert (status, headers["x-error-no-model-backends"]) == (503, "true")
        assert error["code"] == "no_ready_pod"


class TestStreamed:
    def test_the_headers_wait_for_the_collected_body(self) -> None:
        conversation = one_pod()
        mode = request_headers(mode=ProcessingMode.STREAMED, send_body_without_waiting=True)

        assert conversation.say(mode, request_body(SQL[:9], end=False)) == []
        headers, one, two = conversation.say(request_body(SQL[9:]))

        mutation = told(headers.request_headers.response.header_mutation)
        assert (mutation.set["target-pod"], mutation.set["model"]) == (POD_1, "sql-lora")
        assert one.HasField("request_body")
        assert not one.request_body.response.HasField("body_mutation")
        assert two.HasField("request_body")

    def test_trailers_end_the_body(self) -> None:
        conversation = one_pod()
        mode = request_headers(mode=ProcessingMode.STREAMED, send_body_without_waiting=True)
        conversation.say(mode, request_body(SQL + b"    ", end=False))

        kinds = [a.WhichOneof("response") for a in conversation.say(request_trailers())]

        assert kinds == ["request_headers", "request_body", "request_trailers"]

    @pytest.mark.parametrize("mode", [ProcessingMode.STREAMED, ProcessingMode.NONE])
    def test_where_envoy_would_send_no_body_first_the_whole_body_is_asked_for(
        self, mode: "ProcessingMode.BodySendMode"
    ) -> None:
        conversation = one_pod()

        (first,) = conversation.say(
            request_headers(mode=mode, response_body_mode=ProcessingMode.BUFFERED)
        )
        assert first.mode_override.request_body_mode == ProcessingMode.BUFFERED
        (answer,) = conversation.say(request_body(SQL))

        assert told(answer.request_body.response.header_mutation).set["target-pod"] == POD_1

    def test_an_envoy_that_ignored_that_is_reported_in_the_log(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        conversation = one_pod()
        conversation.say(request_headers(mode=ProcessingMode.STREAMED))

        (answer,) = conversation.say(request_body(SQL[:9], end=False))

        assert error_of(answer)[0] == 400
        assert "allow_mode_override" in caplog.text

    def test_a_whole_body_that_is_malformed_and_has_trailers_is_not_blamed_on_envoy(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        conversation = one_pod()
        length = [("content-length", b"9")]
        conversation.say(request_headers(mode=ProcessingMode.STREAMED, headers=length))

        (answer,) = conversation.say(request_body(SQL[:9], end=False))

        assert error_of(answer)[0] == 400
        assert caplog.text == ""

    def test_a_body_over_the_limit_is_refused_at_the_piece_that_passes_it(self) -> None:
        conversation = one_pod(max_body_bytes=100)
        mode = request_headers(mode=ProcessingMode.STREAMED, send_body_without_waiting=True)
        conversation.say(mode, request_body(b"x" * 100, end=False))

        (answer,) = conversation.say(request_body(b"x", end=False))

        assert error_of(answer)[0] == 413
        assert conversation.say(request_body(b"x")) == []


class TestFullDuplex:
    def start(self, path: str = "/v1/completions") -> tuple[Conversation, list[ProcessingResponse]]:
        conversation = one_pod()
        mode = ProcessingMode.FULL_DUPLEX_STREAMED
        return conversation, conversation.say(request_headers(path, mode=mode))

    def pieces(self, answers: Sequence[ProcessingResponse]) -> list[tuple[bytes, bool]]:
        streamed = [a.request_body.response.body_mutation.streamed_response for a in answers]
        return [(piece.body, piece.end_of_stream) for piece in streamed]

    def test_the_pieces_are_sent_back_as_one(self) -> None:
        conversation, nothing = self.start()
        assert nothing == []

        answers = conversation.say(
            request_body(SQL[:9], end=False), request_body(SQL[9:], end=False), request_body(b"")
        )

        assert told(answers[0].request_headers.response.header_mutation).set["model"] == "sql-lora"
        assert self.pieces(answers[1:]) == [(SQL, False), (b"", True)]

    def test_a_last_piece_that_comes_twice_is_sent_back_once(self) -> None:
        conversation, _ = self.start()
        conversation.say(request_body(SQL))

        assert conversation.say(request_body(SQL)) == []

    def test_trailers_end_the_body_and_no_piece_does(self) -> None:
        conversation, _ = self.start()

        _, piece, trailers = conversation.say(request_body(SQL, end=False), request_trailers())

        assert self.pieces([piece]) == [(SQL, False)]
        assert trailers.HasField("request_trailers")

    def test_a_pass_through_body_flows(self) -> None:
        conversation, (headers,) = self.start("/v1/files")
        assert headers.HasField("request_headers")

        answers = conversation.say(request_body(b"a", end=False), request_body(b"b"))

        assert self.pieces(answers) == [(b"a", False), (b"b", True)]
        assert conversation.say(request_body(b"b")) == []

    def test_a_refusal_sends_nothing_back(self) -> None:
        conversation, _ = self.start()

        (answer,) = conversation.say(request_body(b"{}"))

        assert answer.HasField("immediate_response")

    def test_response_bodies_are_sent_back_too(self) -> None:
        conversation = one_pod()
        mode = ProcessingMode.FULL_DUPLEX_STREAMED
        conversation.say(request_headers(end=True, mode=mode, response_body_mode=mode))

        (answer,) = conversation.say(response_body(b"token", end=True))

        streamed = answer.response_body.response.body_mutation.streamed_response
        assert (streamed.body, streamed.end_of_stream) == (b"token", True)


class TestBufferedPartial:
    def headers(self) -> ProcessingRequest:
        return request_headers(mode=ProcessingMode.BUFFERED_PARTIAL)

    def test_a_whole_body_is_routed(self) -> None:
        _, answer = one_pod().say(self.headers(), request_body(SQL))

        assert told(answer.request_body.response.header_mutation).set["target-pod"] == POD_1

    def test_a_body_that_envoy_cut_is_too_large(self) -> None:
        conversation = one_pod()

        _, answer = conversation.say(self.headers(), request_body(SQL[:-3], end=False))

        assert error_of(answer)[0] == 413
        assert conversation.decisions.seen == [("none", "refused", "body-too-large")]


class TestCounting:
    def test_a_request_is_in_flight_until_its_stream_ends(self) -> None:
        conversation = one_pod()
        conversation.say(request_headers(), request_body(SQL), response_headers())
        assert conversation.fleet.ledger.total == 1

        conversation.session.end()
        conversation.session.end()

        assert conversation.fleet.ledger.total == 0

    def test_a_refused_request_is_never_counted(self) -> None:
        conversation = one_pod()
        conversation.say(request_headers(), request_body(b"{}"))

        assert conversation.fleet.ledger.total == 0

    def test_watching_only_routes_and_answers_nothing(self) -> None:
        conversation = one_pod()
        headers = request_headers(end=True)
        headers.observability_mode = True

        assert conversation.say(headers) == []
        assert conversation.fleet.ledger.total == 0


class TestRefusing:
    @pytest.mark.parametrize(
        ("body", "status", "marker", "code"),
        [
            (b"hello", 400, "x-error-request-body-processing", "invalid_request_body"),
            (b"[]", 400, "x-error-request-body-processing", "invalid_request_body"),
            (b'{"model":"a\\n"}', 400, "x-error-request-body-processing", "invalid_request_body"),
            (b"{}", 400, "x-error-no-model-in-request", "no_model_in_request"),
            (b'{"model":7}', 400, "x-error-no-model-in-request", "no_model_in_request"),
            (b'{"model":"nope"}', 404, "x-error-no-model-backends", "model_not_found"),
        ],
    )
    def test_a_bad_body_gets_a_clear_answer(
        self, body: bytes, status: int, marker: str, code: str
    ) -> None:
        conversation = one_pod()

        _, answer = conversation.say(request_headers(), request_body(body))

        got_status, headers, error = error_of(answer)
        assert (got_status, error["code"]) == (status, code)
        assert marker in headers
        assert conversation.decisions.seen[-1][1] == "refused"

    def test_an_unknown_model_stands_in_the_marker_header(self) -> None:
        _, answer = one_pod().say(request_headers(), request_body('{"model":"né"}'.encode()))

        _, headers, error = error_of(answer)
        assert headers["x-error-no-model-backends"] == "né"
        assert error["message"] == r"The model 'n\xe9' does not exist: no pod serves it."

    def test_an_unknown_algorithm_is_told_what_there_is(self) -> None:
        headers = [("routing-strategy", b"best\xff\n")]

        _, answer = one_pod().say(request_headers(headers=headers), request_body(SQL))

        status, marked, error = error_of(answer)
        assert (status, marked["x-error-invalid-routing-strategy"]) == (400, "true")
        assert "least-request" in str(error["message"])

    def test_a_bad_selector_is_a_400(self) -> None:
        headers = [("external-filter", b"gpu in (")]

        _, answer = one_pod().say(request_headers(headers=headers), request_body(SQL))

        status, marked, error = error_of(answer)
        assert (status, marked["x-error-external-filter"]) == (400, "true")
        assert error["param"] == "external-filter"

    def test_the_objective_gives_the_request_its_priority(self) -> None:
        seen: list[int] = []
        for objective in (b"chat", b"unknown", b""):
            conversation = Conversation(make_fleet(1), algorithm=PrioritiesSeen(seen))
            conversation.context.director.priorities.put({"chat": 10})
            headers = [("x-gateway-inference-objective", objective)]
            conversation.say(request_headers(headers=headers), request_body(SQL))

        assert seen == [10, 0, 0]

    @pytest.mark.parametrize(("name", "priorities"), [("x-priority", [-5, 0]), ("", [0, 0])])
    def test_a_header_states_the_priority_only_if_a_setting_names_it(
        self, name: str, priorities: list[int]
    ) -> None:
        seen: list[int] = []
        for priority in (b"-5", b"low"):
            conversation = Conversation(
                make_fleet(1), algorithm=PrioritiesSeen(seen), headers=HeaderNames(priority=name)
            )
            conversation.say(request_headers(headers=[("x-priority", priority)]), request_body(SQL))

        assert seen == priorities

    def test_a_subset_hint_without_one_of_our_pods_is_a_503(self) -> None:
        _, answer = one_pod().say(request_headers(subset=["10.9.9.9:1"]), request_body(SQL))

        assert error_of(answer)[0] == 503

    def test_pods_that_have_not_said_what_they_serve_make_it_a_503(self) -> None:
        fleet = make_fleet(1)
        for state in fleet:
            state.models_known = False

        _, answer = Conversation(fleet).say(request_headers(), request_body(b'{"model":"x"}'))

        assert error_of(answer)[2]["code"] == "models_unknown"

    def test_a_declared_length_over_the_limit_is_refused_before_the_body(self) -> None:
        conversation = one_pod(max_body_bytes=100)

        (answer,) = conversation.say(request_headers(headers=[("content-length", b"101")]))

        status, _, error = error_of(answer)
        assert (status, error["code"]) == (413, "request_too_large")

    @pytest.mark.parametrize("length", [b"", b"many", b"-1", b"9" * 5000, "²".encode()])
    def test_a_declared_length_that_is_none_is_ignored(self, length: bytes) -> None:
        _, answer = one_pod().say(
            request_headers(headers=[("content-length", length)]), request_body(SQL)
        )

        assert answer.HasField("request_body")

    def test_what_comes_after_a_refusal_is_ignored(self) -> None:
        conversation = one_pod()
        conversation.say(request_headers(), request_body(b"{}"))

        assert conversation.say(response_headers(), request_body(SQL)) == []


class TestOutOfOrder:
    @pytest.mark.parametrize(
        "message",
        [
            request_body(SQL),
            request_trailers(),
            ProcessingRequest(),
        ],
    )
    def test_the_headers_must_come_first(self, message: ProcessingRequest) -> None:
        end = one_pod().breaks(message)

        assert end.code == 9
        assert "first message must be request_headers" in end.message

    def test_the_headers_cannot_come_twice(self) -> None:
        conversation = one_pod()
        conversation.say(request_headers(), request_body(SQL))

        assert "twice" in conversation.breaks(request_headers()).message
        assert conversation.fleet.ledger.total == 0

    def test_a_message_of_no_known_kind_ends_the_stream(self) -> None:
        conversation = one_pod()
        conversation.say(request_headers())

        assert "unknown kind" in conversation.breaks(ProcessingRequest()).message

    def test_a_bug_ends_the_stream_and_not_the_process(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        conversation = one_pod()
        conversation.say(request_headers())
        monkeypatch.setattr("lora_router.extproc.exchange.read_body", lambda *_, **__: 1 / 0)

        end = conversation.breaks(request_body(SQL))

        assert (end.code, end.message) == (13, "lora-router: internal error")
        assert "ZeroDivisionError" in caplog.text
        assert "sql-lora" not in caplog.text

    def test_a_request_whose_renaming_fails_counts_on_no_pod(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        conversation = one_pod(names=NamePolicy(by_header=True))

        def out_of_memory(*_: object, **__: object) -> None:
            raise MemoryError

        monkeypatch.setattr("lora_router.extproc.exchange.renaming_of", out_of_memory)
        conversation.say(request_headers())

        end = conversation.breaks(request_body(SQL))

        assert read_answer(end.answer).immediate_response.status.code == 503
        assert conversation.fleet.ledger.total == 0


class OneEach:
    """Sends one request to each pod and holds the others."""

    name = "one-each"

    def pick(
        self, _request: InferenceRequest, candidates: Sequence[PodView], _now: float
    ) -> Pick | Hold:
        free = [pod for pod in candidates if not pod.in_flight]
        return Pick(free[0], "free") if free else Hold("no-slot", 5.0)


class TestHolding:
    def start(self) -> Conversation:
        conversation = one_pod(algorithm=OneEach())
        self.first = conversation.another()
        self.first.receive(request_headers().SerializeToString())
        self.first.receive(request_body(SQL).SerializeToString())
        return conversation

    def test_envoy_is_asked_for_more_time_than_the_hold_lasts(self) -> None:
        _, answer = self.start().say(request_headers(), request_body(SQL))

        assert answer.WhichOneof("response") is None
        assert answer.override_message_timeout.ToSeconds() == 7

    def test_the_answer_comes_without_another_message(self) -> None:
        conversation = self.start()
        conversation.say(request_headers(), request_body(SQL))

        self.first.end()

        (late,) = map(read_answer, conversation.late)
        assert told(late.request_body.response.header_mutation).set["target-pod"] == POD_1
        conversation.session.end()
        assert conversation.fleet.ledger.total == 0

    def test_a_client_that_leaves_while_held_is_forgotten(self) -> None:
        conversation = self.start()
        conversation.say(request_headers(), request_body(SQL))

        conversation.session.end()
        self.first.end()

        assert conversation.late == []
        assert conversation.fleet.ledger.total == 0

    def test_the_time_is_up(self) -> None:
        conversation = self.start()
        conversation.say(request_headers(), request_body(SQL))

        conversation.clock.advance(5)

        (late,) = map(read_answer, conversation.late)
        status, headers, _ = error_of(late)
        assert (status, headers["x-error-overloaded"], headers["retry-after"]) == (429, "true", "1")

    def test_trailers_that_come_while_held_are_answered_with_the_rest(self) -> None:
        conversation = self.start()
        mode = ProcessingMode.FULL_DUPLEX_STREAMED
        conversation.say(request_headers(mode=mode), request_body(SQL), request_body(SQL))
        conversation.say(request_trailers())

        self.first.end()

        said = [read_answer(output).WhichOneof("response") for output in conversation.late]
        assert said == ["request_headers", "request_body", "request_trailers"]

    def test_a_bug_in_a_late_answer_ends_the_stream_and_not_the_process(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        conversation = self.start()
        conversation.say(request_headers(), request_body(SQL))
        monkeypatch.setattr("lora_router.extproc.exchange.encode_routed", lambda *_, **__: 1 / 0)

        self.first.end()

        assert conversation.late == [EndStream(13, "lora-router: internal error")]
        assert conversation.fleet.ledger.total == 0
