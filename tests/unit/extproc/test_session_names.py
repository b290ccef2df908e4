"""A pod may be asked for another model than the client wrote: what Envoy is told to change."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from lora_router.extproc import exchange
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.grpc_server.status import INTERNAL
from lora_router.routing.algorithm import Hold, InferenceRequest, Pick
from lora_router.routing.candidates import Candidates
from lora_router.routing.model_names import NamePolicy
from lora_router.routing.model_rewrites import Rewrite, Target
from lora_router.routing.outcome import Routed
from lora_router.routing.refusal import Refused
from lora_router.routing.waiting_queue import Held
from tests.fleet import make_fleet, make_pod
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

ALIAS = NamePolicy((Rewrite("gpt-small", (Target("sql-lora"),)),))
BODY = b'{"model": "gpt-small", "n": 1}'
NEW = b'{"model": "sql-lora", "n": 1}'
STREAMED = ProcessingMode.STREAMED
FULL_DUPLEX = ProcessingMode.FULL_DUPLEX_STREAMED


def conversation(**options: object) -> Conversation:
    return Conversation(make_fleet(1), **({"names": ALIAS} | options))  # type: ignore[arg-type]


class HoldsFirst:
    """Holds each request, and picks when its time is up."""

    name = "holds-first"

    def pick(self, request: InferenceRequest, candidates: Candidates, _now: float) -> Pick | Hold:
        return Hold("busy", 1.0) if request.may_hold else Pick(candidates[0], "first")


def check_whole_body(answer: ProcessingResponse, body: bytes, model: str = "sql-lora") -> None:
    common = answer.request_body.response
    assert common.body_mutation.body == body
    changes = told(common.header_mutation)
    assert changes.set["content-length"] == str(len(body))
    assert (changes.set["model"], changes.set["target-pod"]) == (model, "10.0.0.1:8000")
    assert changes.overwrites


class TestBodies:
    def test_a_whole_body_is_replaced_with_the_answer_that_names_the_pod(self) -> None:
        *_, answer = conversation().say(request_headers(), request_body(BODY))

        check_whole_body(answer, NEW)

    def test_a_name_that_is_not_rewritten_changes_nothing(self) -> None:
        *_, answer = conversation().say(request_headers(), request_body(NEW))

        assert not answer.request_body.response.HasField("body_mutation")
        assert "content-length" not in told(answer.request_body.response.header_mutation).set

    def test_the_body_of_a_held_request_is_kept_and_counted(self) -> None:
        talk = conversation(algorithm=HoldsFirst())
        talk.say(request_headers(), request_body(BODY))
        assert talk.session.collected_bytes == len(BODY)

        talk.clock.advance(2)

        check_whole_body(read_answer(talk.late[-1]), NEW)
        assert talk.session.collected_bytes == 0

    def test_in_streamed_mode_the_first_piece_is_replaced_and_the_others_are_emptied(self) -> None:
        talk = conversation()
        headers, *pieces = talk.say(
            request_headers(mode=STREAMED, send_body_without_waiting=True),
            request_body(BODY[:12], end=False),
            request_body(BODY[12:], end=False),
            request_body(b""),
        )

        changes = told(headers.request_headers.response.header_mutation)
        assert changes.set["content-length"] == str(len(NEW))
        mutations = [piece.request_body.response.body_mutation for piece in pieces]
        assert [mutation.body for mutation in mutations] == [NEW, b"", b""]
        assert [mutation.clear_body for mutation in mutations] == [False, True, True]

    @pytest.mark.parametrize("trailers", [False, True])
    def test_in_full_duplex_mode_the_new_body_is_sent(self, trailers: bool) -> None:
        talk = conversation()
        body = BODY[:-1] + b', "prompt": "' + b"x" * 9000 + b'"}'
        ends = [request_body(body[12:], end=not trailers)]
        headers, *pieces = talk.say(
            request_headers(mode=FULL_DUPLEX),
            request_body(body[:12], end=False),
            *ends,
            *([request_trailers()] if trailers else []),
        )

        changes = told(headers.request_headers.response.header_mutation)
        if trailers:
            assert pieces.pop().WhichOneof("response") == "request_trailers"
        sent = [piece.request_body.response.body_mutation.streamed_response for piece in pieces]
        assert b"".join(piece.body for piece in sent) == body.replace(b"gpt-small", b"sql-lora")
        assert [piece.end_of_stream for piece in sent] == [False] * (len(sent) - 1) + [not trailers]
        assert changes.set["content-length"] == str(len(body) - 1)

    def test_a_body_that_cannot_be_changed_is_refused_and_counts_nowhere(self) -> None:
        talk = conversation()
        repeated = b'{"model":"gpt-small",' + b",".join([b'"model":"gpt-small"'] * 9) + b"}"

        *_, answer = talk.say(request_headers(), request_body(repeated))

        assert answer.immediate_response.status.code == 400
        assert b"repeated" in answer.immediate_response.body
        assert talk.fleet.ledger.total == 0

    def test_the_default_model_may_be_an_alias(self) -> None:
        talk = conversation(default_model="gpt-small")

        *_, answer = talk.say(request_headers(), request_body(b'{"n": 1}'))

        check_whole_body(answer, b'{"model":"sql-lora","n": 1}')

    def test_a_body_without_a_model_stays_if_a_base_model_is_the_default(self) -> None:
        talk = conversation(names=None, default_model="base")

        *_, answer = talk.say(request_headers(), request_body(b'{"n": 1}'))

        assert not answer.request_body.response.HasField("body_mutation")


class TestPaths:
    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("/v1/realtime?model=gpt-small", "/v1/realtime?model=sql-lora"),
            ("/v1/realtime?x=%20&model=gpt%2Dsmall&y", "/v1/realtime?x=%20&model=sql-lora&y"),
            ("/v1/realtime?model=a&model=gpt-small", "/v1/realtime?model=sql-lora&model=sql-lora"),
        ],
    )
    def test_the_query_is_rewritten(self, path: str, expected: str) -> None:
        (answer,) = conversation().say(request_headers(path, method="GET", end=True))

        changes = told(answer.request_headers.response.header_mutation)
        assert changes.set[":path"] == expected
        assert changes.set["model"] == "sql-lora"
        assert answer.request_headers.response.clear_route_cache

    def test_a_query_that_names_a_served_model_stays(self) -> None:
        talk = conversation()

        (answer,) = talk.say(request_headers("/v1/realtime?model=sql-lora", end=True))

        assert ":path" not in told(answer.request_headers.response.header_mutation).set

    def test_azures_path_is_rewritten_and_the_body_gets_the_name(self) -> None:
        path = "/openai/deployments/gpt%2Dsmall/chat/completions?api-version=1"

        *_, answer = conversation().say(request_headers(path), request_body(b'{"n": 1}'))

        check_whole_body(answer, b'{"model":"sql-lora","n": 1}')
        changes = told(answer.request_body.response.header_mutation)
        assert changes.set[":path"] == (
            "/openai/deployments/sql-lora/chat/completions?api-version=1"
        )

    def test_without_any_rewrite_an_azure_body_gets_the_name_of_its_path(self) -> None:
        path = "/openai/deployments/sql-lora/chat/completions"

        *_, answer = conversation(names=None).say(request_headers(path), request_body(b'{"n": 1}'))

        check_whole_body(answer, b'{"model":"sql-lora","n": 1}')
        assert ":path" not in told(answer.request_body.response.header_mutation).set

    def test_on_azures_paths_the_name_in_the_body_counts(self) -> None:
        path = "/openai/deployments/base/chat/completions"

        *_, answer = conversation().say(request_headers(path), request_body(BODY))

        check_whole_body(answer, NEW)
        assert ":path" not in told(answer.request_body.response.header_mutation).set


class TestFallback:
    def test_the_base_model_answers_and_the_client_is_told(self) -> None:
        fleet = make_fleet(2, adapters=())
        state = fleet.get("pod-2")
        assert state is not None
        fleet.upsert(make_pod(2, ready=False, models=("base", "sql-lora")))
        talk = Conversation(fleet, names=NamePolicy(falls_back=True))

        _, answer, response = talk.say(
            request_headers(), request_body(b'{"model": "sql-lora"}'), response_headers()
        )

        check_whole_body(answer, b'{"model": "base"}', "base")
        changes = told(response.response_headers.response.header_mutation)
        assert changes.set.pop("x-request-id")
        assert changes.set == {"x-lora-router-fallback": "base"}
        assert talk.decisions.seen == [("least-request", "routed", "base-fallback")]


def test_a_header_makes_rewrites_sticky() -> None:
    from lora_router.extproc.header_names import HeaderNames

    split = NamePolicy((Rewrite("gpt-small", (Target("sql-lora"), Target("base"))),))
    talk = conversation(names=split, headers=HeaderNames(rewrite_key="x-user"))
    served: dict[str, set[str]] = {}
    for number in range(100):
        user = f"user-{number % 10}"
        talk.session = talk.another()
        *_, answer = talk.say(
            request_headers(headers=[("x-user", user.encode())]), request_body(BODY)
        )
        model = json.loads(answer.request_body.response.body_mutation.body)["model"]
        served.setdefault(user, set()).add(model)

    assert all(len(models) == 1 for models in served.values())
    assert set.union(*served.values()) == {"sql-lora", "base"}


class TestLoraPath:
    def conversation(self, engine: str) -> Conversation:
        fleet = make_fleet(1)
        fleet.upsert(make_pod(1, engine=engine))
        # Elsewhere there is a pod of SGLang, so that the field is read.
        fleet.upsert(make_pod(2, engine="sglang", models=("other",)))
        return Conversation(fleet)

    @pytest.mark.parametrize("value", [b'"sql-lora"', b'[null, "sql-lora", "x"]'])
    @pytest.mark.parametrize("model", [b'"model": "base", ', b""])
    def test_sglang_gets_the_body_as_it_is(self, value: bytes, model: bytes) -> None:
        talk = self.conversation("sglang")
        body = b"{" + model + b'"lora_path": ' + value + b"}"

        *_, answer = talk.say(request_headers(), request_body(body))

        changes = told(answer.request_body.response.header_mutation)
        assert (changes.set["model"], changes.set["target-pod"]) == (
            "base:sql-lora",
            "10.0.0.1:8000",
        )
        assert not answer.request_body.response.HasField("body_mutation")
        assert next(iter(talk.fleet)).in_flight_adapters == {"sql-lora": 1}

    def test_another_engine_gets_the_adapter_as_its_model(self) -> None:
        body = b'{"model": "base", "lora_path": "sql-lora"}'

        *_, answer = self.conversation("vllm").say(request_headers(), request_body(body))

        check_whole_body(answer, b'{"model": "sql-lora", "lora_path": "sql-lora"}')

    @pytest.mark.parametrize("value", [b"5", b"null", b"[]", b'""', b'{"a": 1}', b'["\\n"]'])
    def test_what_names_no_adapter_is_left_to_the_pod(self, value: bytes) -> None:
        body = b'{"model": "base", "lora_path": ' + value + b"}"

        *_, answer = self.conversation("sglang").say(request_headers(), request_body(body))

        assert told(answer.request_body.response.header_mutation).set["model"] == "base"

    def test_a_plain_name_of_an_adapter_becomes_sglangs(self) -> None:
        talk = self.conversation("sglang")

        *_, answer = talk.say(request_headers(), request_body(b'{"model": "sql-lora"}'))

        check_whole_body(answer, b'{"model": "base:sql-lora"}', "base:sql-lora")


class TestAnswers:
    """With ``answer_model: asked`` the answer names the model as the client did."""

    def routed(self, **first: object) -> Conversation:
        talk = conversation(answers_as_asked=True)
        headers, body = request_headers(**first), request_body(BODY)  # type: ignore[arg-type]
        *_, answer = talk.say(headers, body)
        assert answer.request_body.response.body_mutation.body == NEW
        removed = told(answer.request_body.response.header_mutation).removed
        assert "accept-encoding" in removed
        return talk

    def test_envoy_is_asked_for_the_body_and_each_piece_is_changed(self) -> None:
        talk = self.routed()

        headers, *pieces = talk.say(
            response_headers(),
            response_body(b'{"id":1,"model":"sql-', end=False),
            response_body(b'lora","x":', end=False),
            response_body(b'"model"', end=False),
            response_body(b"}", end=True),
        )

        assert told(headers.response_headers.response.header_mutation).removed == ["content-length"]
        assert headers.mode_override.response_body_mode == STREAMED
        mutations = [piece.response_body.response.body_mutation for piece in pieces]
        assert [each.WhichOneof("mutation") for each in mutations] == [
            "body",
            "body",
            "clear_body",
            "body",
        ]
        assert (
            b"".join(each.body for each in mutations) == b'{"id":1,"model":"gpt-small","x":"model"}'
        )

    def test_pieces_without_the_name_pass_unchanged(self) -> None:
        _, piece = self.routed().say(response_headers(), response_body(b'{"id":1}', end=True))

        assert not piece.response_body.response.HasField("body_mutation")

    def test_in_full_duplex_mode_the_changed_body_is_sent(self) -> None:
        talk = self.routed(response_body_mode=FULL_DUPLEX)

        headers, *pieces = talk.say(
            response_headers(content_type="text/event-stream"),
            response_body(b'data: {"model":"sql-lora"}\n\n', end=False),
            response_body(b"", end=True),
        )

        assert not headers.HasField("mode_override")
        sent = [piece.response_body.response.body_mutation.streamed_response for piece in pieces]
        assert b"".join(each.body for each in sent) == b'data: {"model":"gpt-small"}\n\n'
        assert sent[-1].end_of_stream

    @pytest.mark.parametrize(
        "response",
        [
            response_headers("204", end=True),
            response_headers("101", content_type=""),
            response_headers(content_type="audio/wav"),
        ],
    )
    def test_other_answers_are_left_alone(self, response: ProcessingRequest) -> None:
        (answer,) = self.routed().say(response)

        assert not answer.HasField("mode_override")
        assert not told(answer.response_headers.response.header_mutation).removed

    def test_a_request_that_was_not_rewritten_costs_nothing(self) -> None:
        talk = conversation(answers_as_asked=True)

        *_, answer = talk.say(request_headers(), request_body(NEW), response_headers())

        assert not answer.HasField("mode_override")


class TestFailures:
    """Whatever fails after a pod was picked, the request does not count there for ever."""

    @pytest.mark.parametrize("error", [MemoryError(), ValueError("no reason")])
    def test_while_the_name_is_replaced(
        self, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def fail(*_args: object, **_options: object) -> None:
            raise error

        monkeypatch.setattr(exchange, "renaming_of", fail)
        talk = conversation()
        talk.say(request_headers())

        end = talk.breaks(request_body(BODY))

        assert end.code == INTERNAL
        assert talk.fleet.ledger.total == 0

    def test_an_outcome_after_the_end_is_given_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        talk = conversation(algorithm=HoldsFirst())
        outcomes: list[Callable[[Routed | Refused], None]] = []
        director = talk.context.director
        admit = director.reception.admit

        def fail(*args: Any) -> Held | Routed | Refused:
            outcomes.append(args[5])
            admit(*args)
            raise MemoryError

        monkeypatch.setattr(director.reception, "admit", fail)
        talk.say(request_headers())
        assert talk.breaks(request_body(BODY)).code == INTERNAL

        talk.clock.advance(2.0)

        assert len(outcomes) == 1
        assert talk.fleet.ledger.total == 0
        assert talk.late == []
