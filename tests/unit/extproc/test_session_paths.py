"""What a session does with a request depends on its path."""

import json
from collections.abc import Sequence

import pytest

from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from lora_router.fleet.pod_state import PodView
from lora_router.routing.algorithm import Hold, InferenceRequest, Pick
from tests.fleet import make_fleet
from tests.unit.extproc.conversation import (
    Conversation,
    read_answer,
    request_body,
    request_headers,
    request_trailers,
    told,
)

SQL = b'{"model": "sql-lora"}'
BASE = b'{"model": "base"}'
FULL_DUPLEX = ProcessingMode.FULL_DUPLEX_STREAMED


def conversation(**options: object) -> Conversation:
    return Conversation(make_fleet(1), **options)  # type: ignore[arg-type]


class HoldsFirst:
    """Holds each request, and picks when its time is up."""

    name = "holds-first"

    def pick(
        self, request: InferenceRequest, candidates: Sequence[PodView], _now: float
    ) -> Pick | Hold:
        return Hold("busy", 1.0) if request.may_hold else Pick(candidates[0], "first")


class TestRefusedPaths:
    @pytest.mark.parametrize("path", ["/v1/load_lora_adapter", "/llm/sleep", "/metrics"])
    def test_the_client_gets_404_and_no_pod_is_picked(self, path: str) -> None:
        talk = conversation()

        (answer,) = talk.say(request_headers(path))

        immediate = answer.immediate_response
        assert immediate.status.code == 404
        assert json.loads(immediate.body)["error"]["code"] == "path_refused"
        assert talk.fleet.ledger.total == 0
        assert talk.decisions.seen == [("none", "refused", "path-refused")]

    def test_the_client_is_told_why_servers_would_disagree_about_a_path(self) -> None:
        (answer,) = conversation().say(request_headers("/sleep%0a"))

        error = json.loads(answer.immediate_response.body)["error"]
        assert error["code"] == "path_refused"
        assert error["message"].startswith(r"The path '/sleep\n' is not served: ")
        assert "control character" in error["message"]

    def test_a_setting_opens_them(self) -> None:
        (answer,) = conversation(admin_allowed=True).say(request_headers("/sleep", end=True))

        assert answer.WhichOneof("response") == "request_headers"


class TestUnknownPaths:
    def test_a_json_body_that_names_a_model_is_routed_by_it(self) -> None:
        _, answer = conversation().say(request_headers("/my/own"), request_body(SQL))

        assert told(answer.request_body.response.header_mutation).set["model"] == "sql-lora"

    def test_a_gateway_that_sends_no_path_is_served_too(self) -> None:
        headers = request_headers("/x")
        del headers.request_headers.headers.headers[:2]

        _, answer = conversation().say(headers, request_body(SQL))

        assert told(answer.request_body.response.header_mutation).set["model"] == "sql-lora"

    @pytest.mark.parametrize("body", [b"{}", b'{"a": 1}', b"no json", b"", b"[1]"])
    def test_any_other_body_passes_to_any_pod(self, body: bytes) -> None:
        talk = conversation()

        _, answer = talk.say(request_headers("/my/own"), request_body(body))

        mutation = told(answer.request_body.response.header_mutation)
        assert mutation.set["target-pod"]
        assert mutation.removed == ["routing-strategy", "model"]
        assert talk.fleet.ledger.total == 1

    @pytest.mark.parametrize(
        "messages",
        [
            [request_headers("/my/own", end=True)],
            [request_headers("/my/own", content_type="text/plain")],
            [request_headers("/my/own"), request_body(b"{}")],
            [request_headers("/my/own"), request_body(b"no json")],
        ],
        ids=["no body", "text", "no model", "no JSON"],
    )
    def test_a_setting_refuses_them(self, messages: list[object]) -> None:
        talk = conversation(refuse_unknown_paths=True)

        answers = talk.say(*messages)  # type: ignore[arg-type]

        assert answers[-1].immediate_response.status.code == 404
        assert talk.fleet.ledger.total == 0

    def test_the_setting_does_not_refuse_a_body_that_names_a_model(self) -> None:
        talk = conversation(refuse_unknown_paths=True)

        _, answer = talk.say(request_headers("/my/own"), request_body(SQL))

        assert answer.WhichOneof("response") == "request_body"

    def test_without_a_body_where_one_was_announced_the_request_is_refused(self) -> None:
        _, answer = conversation().say(request_headers("/my/own"), request_trailers())

        assert answer.immediate_response.status.code == 400

    def test_a_body_in_pieces_goes_on_as_one(self) -> None:
        talk = conversation()

        answers = talk.say(
            request_headers("/my/own", mode=FULL_DUPLEX),
            request_body(b"{", end=False),
            request_body(b"}"),
        )

        headers, body = answers
        assert told(headers.request_headers.response.header_mutation).set["target-pod"]
        piece = body.request_body.response.body_mutation.streamed_response
        assert (piece.body, piece.end_of_stream) == (b"{}", True)


class TestBodiesThatAreNotRead:
    def test_envoy_is_asked_not_to_send_them(self) -> None:
        (answer,) = conversation().say(request_headers("/v1/files"))

        assert answer.mode_override.request_body_mode == ProcessingMode.NONE
        assert answer.mode_override.response_trailer_mode == ProcessingMode.SEND

    def test_an_envoy_that_sends_them_anyway_is_answered(self) -> None:
        answers = conversation().say(request_headers("/v1/files"), request_body(b"file"))

        assert answers[-1].WhichOneof("response") == "request_body"


class TestTheQueryNamesTheModel:
    PATH = "/v1/realtime?model=sql-lora"

    def test_the_request_is_routed_at_once(self) -> None:
        (answer,) = conversation().say(request_headers(self.PATH, method="GET"))

        assert told(answer.request_headers.response.header_mutation).set["model"] == "sql-lora"
        assert answer.mode_override.request_body_mode == ProcessingMode.NONE

    def test_without_a_name_any_pod_gets_it(self) -> None:
        (answer,) = conversation().say(request_headers("/v1/realtime", method="GET"))

        assert "model" not in told(answer.request_headers.response.header_mutation).set

    @pytest.mark.parametrize("name", ["a%0Ab", "%20a", "x" * 600])
    def test_a_name_that_no_header_can_have_is_refused(self, name: str) -> None:
        (answer,) = conversation().say(request_headers(f"/v1/realtime?model={name}", method="GET"))

        assert answer.immediate_response.status.code == 400

    def test_while_it_is_held_pieces_are_kept(self) -> None:
        talk = conversation(algorithm=HoldsFirst())
        talk.say(
            request_headers(self.PATH, mode=FULL_DUPLEX),
            request_body(b"one", end=False),
            request_body(b"two", end=False),
        )

        talk.clock.advance(1)

        headers, body = map(read_answer, talk.late)
        assert told(headers.request_headers.response.header_mutation).set["model"] == "sql-lora"
        assert not headers.HasField("mode_override")
        kept = body.request_body.response.body_mutation.streamed_response
        assert (kept.body, kept.end_of_stream) == (b"onetwo", False)
        (last,) = talk.say(request_body(b"three"))
        streamed = last.request_body.response.body_mutation.streamed_response
        assert (streamed.body, streamed.end_of_stream) == (b"three", True)


class TestThePathNamesTheModel:
    PATH = "/openai/deployments/sql-lora/chat/completions"

    def test_where_the_body_names_none(self) -> None:
        _, answer = conversation().say(request_headers(self.PATH), request_body(b"{}"))

        assert told(answer.request_body.response.header_mutation).set["model"] == "sql-lora"

    def test_the_body_counts_because_the_pod_reads_it(self) -> None:
        _, answer = conversation().say(
            request_headers(self.PATH), request_body(b'{"model":"base"}')
        )

        assert told(answer.request_body.response.header_mutation).set["model"] == "base"

    def test_a_request_without_a_body_is_routed_by_it(self) -> None:
        (answer,) = conversation().say(request_headers(self.PATH, end=True))

        assert told(answer.request_headers.response.header_mutation).set["model"] == "sql-lora"
