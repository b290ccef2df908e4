"""Requests that a session refuses before it reads a body, and the shape of its errors."""

import json

import pytest

from lora_router.extproc.pb.ext_proc_pb2 import ImmediateResponse, ProcessingResponse
from lora_router.extproc.pb.processing_mode_pb2 import ProcessingMode
from tests.fleet import make_fleet
from tests.unit.extproc.conversation import Conversation, request_body, request_headers

SQL = b'{"model": "sql-lora"}'


def conversation() -> Conversation:
    return Conversation(make_fleet(1))


def many(number: int) -> list[tuple[str, bytes]]:
    """Headers, so that a request has this number with the three that every request has."""
    return [(f"x-header-{index:03}", b"a value of a usual length") for index in range(number - 3)]


def refused(answers: list[ProcessingResponse]) -> ImmediateResponse:
    (answer,) = answers
    assert answer.WhichOneof("response") == "immediate_response"
    return answer.immediate_response


class TestEncodedBodies:
    @pytest.mark.parametrize("encoding", [b"gzip", b"zstd", b"br", b"deflate", b"gzip, identity"])
    @pytest.mark.parametrize("path", ["/v1/chat/completions", "/prefix/v1/chat/completions"])
    def test_the_client_gets_415_that_names_the_encoding(self, path: str, encoding: bytes) -> None:
        talk = conversation()
        headers = [("content-encoding", encoding)]

        answer = refused(talk.say(request_headers(path, headers=headers)))

        assert answer.status.code == 415
        error = json.loads(answer.body)["error"]
        assert error["code"] == "unsupported_encoding"
        assert f"'{encoding.decode()}'" in error["message"]
        assert talk.decisions.seen == [("none", "refused", "unsupported-encoding")]

    def test_identity_is_no_encoding(self) -> None:
        headers = [("content-encoding", b"identity")]

        first, _ = conversation().say(request_headers(headers=headers), request_body(SQL))

        assert first.WhichOneof("response") == "request_headers"

    @pytest.mark.parametrize("path", ["/v1/files", "/health", "/unknown"])
    def test_a_body_that_is_not_read_may_be_encoded(self, path: str) -> None:
        headers = [("content-encoding", b"gzip")]
        (answer,) = conversation().say(
            request_headers(path, headers=headers, content_type="application/octet-stream")
        )

        assert answer.WhichOneof("response") == "request_headers"


class TestManyHeaders:
    @pytest.mark.parametrize("mode", [ProcessingMode.BUFFERED, ProcessingMode.STREAMED, None])
    @pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/files"])
    def test_the_client_gets_431_if_the_router_would_add_too_many(
        self, path: str, mode: "ProcessingMode.BodySendMode | None"
    ) -> None:
        # The router sets four more: the pod twice, the algorithm, and the model.
        for number, too_many in ((96, False), (97, True), (300, True)):
            talk = conversation()
            answers = talk.say(request_headers(path, headers=many(number), mode=mode))
            if not too_many:
                assert all(each.WhichOneof("response") == "request_headers" for each in answers)
                continue
            answer = refused(answers)
            assert answer.status.code == 431
            assert json.loads(answer.body)["error"]["code"] == "request_headers_too_large"
            assert talk.decisions.seen == [("none", "refused", "too-many-headers")]

    @pytest.mark.parametrize("header", ["x-%d: ", "x%d:y", "x-client-header-%d: of a usual length"])
    def test_headers_count_however_short_they_are(self, header: str) -> None:
        name, value = header.split(":")
        listed = [(name % number, value.strip().encode()) for number in range(100)]

        assert refused(conversation().say(request_headers(headers=listed))).status.code == 431

    def test_few_long_headers_are_no_reason(self) -> None:
        headers = [("cookie", b"x" * 12_000), ("authorization", b"y" * 3000)]

        (answer,) = conversation().say(request_headers(headers=headers))

        assert answer.WhichOneof("response") == "request_headers"


class TestAnthropicsPaths:
    @pytest.mark.parametrize(
        ("path", "anthropic"),
        [
            ("/v1/messages", True),
            ("/v1/messages/count_tokens?beta=true", True),
            ("/v1/chat/completions", False),
        ],
    )
    def test_errors_have_the_shape_of_the_paths_api(self, path: str, anthropic: bool) -> None:
        talk = conversation()

        _, answer = talk.say(
            request_headers(path, headers=[("x-request-id", b"req-7")]),
            request_body(b'{"model": "no-such-model"}'),
        )

        assert answer.immediate_response.status.code == 404
        document = json.loads(answer.immediate_response.body)
        if anthropic:
            assert document["type"] == "error"
            assert document["error"]["type"] == "not_found_error"
            assert document["request_id"] == "req-7"
        else:
            assert document["error"]["code"] == "model_not_found"

    def test_a_body_that_is_refused_is_one_of_them(self) -> None:
        _, answer = conversation().say(request_headers("/v1/messages"), request_body(b"{"))

        error = json.loads(answer.immediate_response.body)["error"]
        assert error["type"] == "invalid_request_error"
        assert "not valid JSON" in error["message"]


def test_special_numbers_are_a_setting() -> None:
    body = b'{"model": "sql-lora", "temperature": NaN}'
    for allowed in (True, False):
        talk = Conversation(make_fleet(1), special_numbers=allowed)
        _, answer = talk.say(request_headers(), request_body(body))
        assert (answer.WhichOneof("response") == "request_body") == allowed
