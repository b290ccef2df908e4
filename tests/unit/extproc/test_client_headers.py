"""What answers tell clients, and what they tell Envoy's access log."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from lora_router.extproc.client_headers import in_own_answer, tell_decision, tell_request_id
from lora_router.extproc.decision_metadata import NAMESPACE, encode_metadata
from lora_router.extproc.pb.core_pb2 import HeaderValue, HeaderValueOption
from lora_router.extproc.pb.ext_proc_pb2 import (
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    ImmediateResponse,
    ProcessingResponse,
)
from lora_router.telemetry.decisions import Decision
from tests.fleet import make_fleet
from tests.unit.extproc.conversation import (
    Conversation,
    request_body,
    request_headers,
    response_headers,
    served_by,
    told,
)

ID = [("x-request-id", b"r-1")]
SQL = b'{"model": "sql-lora"}'
TEXTS = st.text(st.characters(codec="utf-8"), max_size=300)
PRINTED = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300)


def decision(**values: Any) -> Decision:
    return Decision(arrived_at=1.0, **values)


def metadata_of(answer: ProcessingResponse) -> Mapping[str, Any]:
    every: Mapping[str, Any] = MessageToDict(answer.dynamic_metadata)
    found: Mapping[str, Any] = every.get(NAMESPACE, {})
    return found


def told_client(answer: ProcessingResponse) -> dict[str, str]:
    if answer.HasField("immediate_response"):
        return told(answer.immediate_response.headers).set
    return told(answer.response_headers.response.header_mutation).set


def mutation(headers: Mapping[str, str]) -> HeaderMutation:
    return HeaderMutation(
        set_headers=[
            HeaderValueOption(
                header=HeaderValue(key=key, raw_value=value.encode()),
                append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
            )
            for key, value in headers.items()
        ]
    )


class TestBytes:
    @pytest.mark.slow
    @given(TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, st.floats(0, 1e5))
    def test_metadata_are_those_that_protobuf_writes(
        self, pod: str, reason: str, algorithm: str, adapter: str, base_model: str, held: float
    ) -> None:
        record = decision(
            pod=pod,
            reason=reason,
            algorithm=algorithm,
            adapter=adapter,
            base_model=base_model,
            held_seconds=held,
        )
        texts = {
            "pod": pod,
            "reason": reason,
            "algorithm": algorithm,
            "adapter": adapter,
            "base_model": base_model,
        }
        expected = ProcessingResponse()
        listed = {key: text for key, text in texts.items() if text}
        expected.dynamic_metadata.update({NAMESPACE: listed | {"held_ms": round(held * 1000)}})

        assert ProcessingResponse.FromString(encode_metadata(record)) == expected

    @given(PRINTED, PRINTED, PRINTED, st.floats(0, 1e5))
    def test_headers_are_those_that_protobuf_writes(
        self, request_id: str, pod: str, reason: str, held: float
    ) -> None:
        record = decision(pod=pod, reason=reason, held_seconds=held)
        headers = {"x-request-id": request_id} if 0 < len(request_id) <= 128 else {}
        milliseconds = str(round(held * 1000))
        all_headers = headers | {
            "x-lora-router-pod": pod,
            "x-lora-router-reason": reason,
            "x-lora-router-held-ms": milliseconds,
        }
        own_headers = dict(all_headers)
        del own_headers["x-lora-router-pod"]

        response = ProcessingResponse.FromString(
            tell_request_id(request_id) + tell_decision(record)
        )
        own = ProcessingResponse.FromString(in_own_answer(request_id, record))

        common = CommonResponse(header_mutation=mutation(all_headers))
        assert response == ProcessingResponse(response_headers=HeadersResponse(response=common))
        assert own == ProcessingResponse(
            immediate_response=ImmediateResponse(headers=mutation(own_headers))
        )

    @pytest.mark.parametrize("request_id", ["", "a\nb", "é", "x" * 129])
    def test_an_id_that_does_not_belong_into_a_header_is_not_told(self, request_id: str) -> None:
        assert tell_request_id(request_id) == b""
        assert in_own_answer(request_id, None) == b""

    def test_a_reason_of_a_plug_in_cannot_end_a_header(self) -> None:
        record = decision(pod="pod", reason="a\r\nset-cookie: b")

        answer = ProcessingResponse.FromString(tell_decision(record))

        assert told_client(answer)["x-lora-router-reason"] == "unprintable"


class TestClients:
    def test_the_id_of_the_request_is_told_with_each_answer(self) -> None:
        talk = Conversation()

        *_, answer = talk.say(
            request_headers(headers=ID), request_body(SQL), response_headers("503")
        )

        assert told_client(answer) == {"x-request-id": "r-1"}

    def test_an_id_that_the_router_made_is_the_one_that_the_pod_got(self) -> None:
        talk = Conversation()

        _, routed, answer = talk.say(request_headers(), request_body(SQL), response_headers())

        sent = told(routed.request_body.response.header_mutation).set["x-request-id"]
        assert told_client(answer) == {"x-request-id": sent}

    @pytest.mark.parametrize(
        ("path", "method"), [("/v1/models", "GET"), ("/v1/files/file-1", "GET"), ("/pause", "POST")]
    )
    def test_and_with_answers_of_the_router_itself(self, path: str, method: str) -> None:
        known = Conversation().say(request_headers(path, method=method, end=True, headers=ID))
        made = Conversation().say(request_headers(path, method=method, end=True))

        assert told_client(known[-1])["x-request-id"] == "r-1"
        assert len(told_client(made[-1])["x-request-id"]) == 36

    def test_the_id_of_an_error_in_anthropics_shape_is_the_same(self) -> None:
        (_, answer) = Conversation().say(request_headers("/v1/messages"), request_body(b"no"))

        document = json.loads(answer.immediate_response.body)
        assert document["request_id"] == told_client(answer)["x-request-id"]

    def test_where_the_setting_says_so_they_learn_the_decision(self) -> None:
        talk = Conversation(records=10, tells_decisions=True)

        *_, answer = talk.say(request_headers(headers=ID), request_body(SQL), response_headers())

        headers = told_client(answer)
        assert headers["x-lora-router-pod"] in {"pod-1", "pod-2"}
        assert headers["x-lora-router-reason"] == "least-request"
        assert headers["x-lora-router-held-ms"] == "0"

    def test_they_learn_the_pod_that_answered(self) -> None:
        talk = Conversation(make_fleet(2), records=10, tells_decisions=True)
        _, routed = talk.say(request_headers(), request_body(SQL))
        picked = told(routed.request_body.response.header_mutation).set["target-pod"]
        other = {"10.0.0.1:8000": 2, "10.0.0.2:8000": 1}[picked]

        (answer,) = talk.say(response_headers(attributes=served_by(f"10.0.0.{other}:8000")))

        assert told_client(answer)["x-lora-router-pod"] == f"pod-{other}"

    def test_a_refusal_tells_its_reason(self) -> None:
        talk = Conversation(records=10, tells_decisions=True)

        _, answer = talk.say(request_headers(), request_body(b'{"model": "x"}'))

        headers = told_client(answer)
        assert headers["x-lora-router-reason"] == "unknown-model"
        assert headers["x-lora-router-held-ms"] == "0"
        assert "x-lora-router-pod" not in headers


class TestMetadata:
    def test_the_answer_that_names_the_pod_has_the_decision(self) -> None:
        talk = Conversation(make_fleet(1), records=10)

        _, answer = talk.say(request_headers(), request_body(SQL))

        assert metadata_of(answer) == {
            "pod": "pod-1",
            "reason": "least-request",
            "algorithm": "least-request",
            "adapter": "sql-lora",
            "base_model": "base",
            "held_ms": 0,
        }
        assert "envoy.lb" in answer.dynamic_metadata.fields

    def test_a_refusal_has_its_reason(self) -> None:
        talk = Conversation(records=10)

        _, answer = talk.say(request_headers(), request_body(b'{"model": "x"}'))

        assert metadata_of(answer) == {
            "reason": "unknown-model",
            "algorithm": "least-request",
            "held_ms": 0,
        }

    def test_without_records_there_are_none(self) -> None:
        _, answer = Conversation().say(request_headers(), request_body(SQL))

        assert metadata_of(answer) == {}
