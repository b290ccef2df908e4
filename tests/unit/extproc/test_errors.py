"""The response to each refusal."""

import json

import pytest

from lora_router.extproc.errors import (
    ErrorAnswer,
    for_anthropic,
    overloaded_answer,
    path_answer,
    refusal_answer,
    too_large_answer,
)
from lora_router.routing.refusal import Refusal, Refused

ANSWERS = {
    Refusal.NO_MODEL: (400, "no_model_in_request", "x-error-no-model-in-request"),
    Refusal.UNKNOWN_ALGORITHM: (
        400,
        "invalid_routing_strategy",
        "x-error-invalid-routing-strategy",
    ),
    Refusal.BAD_SELECTOR: (400, "invalid_external_filter", "x-error-external-filter"),
    Refusal.UNKNOWN_MODEL: (404, "model_not_found", "x-error-no-model-backends"),
    Refusal.MODELS_UNKNOWN: (503, "models_unknown", "x-error-no-model-backends"),
    Refusal.MODEL_ELSEWHERE: (400, "model_elsewhere", "x-error-no-model-backends"),
    Refusal.ADAPTER_NOT_LOADED: (503, "adapter_not_loaded", "x-error-no-model-backends"),
    Refusal.NO_READY_POD: (503, "no_ready_pod", "x-error-no-model-backends"),
    Refusal.NONE_SELECTED: (503, "no_pod_selected", "x-error-no-model-backends"),
    Refusal.OVERLOADED: (429, "overloaded", "x-error-overloaded"),
    Refusal.TOO_MANY_HELD: (429, "too_many_held_requests", "x-error-overloaded"),
    Refusal.SHUTTING_DOWN: (503, "router_draining", "x-error-no-model-backends"),
}
RETRIED_SOON = {
    Refusal.ADAPTER_NOT_LOADED,
    Refusal.NO_READY_POD,
    Refusal.MODELS_UNKNOWN,
    Refusal.OVERLOADED,
    Refusal.TOO_MANY_HELD,
    Refusal.SHUTTING_DOWN,
}


@pytest.mark.parametrize("refusal", Refusal, ids=lambda refusal: refusal.value)
def test_each_refusal_has_a_status_a_code_and_a_marker(refusal: Refusal) -> None:
    answer = refusal_answer(Refused(refusal, model="sql-lora"), strategy="fastest")

    headers = dict(answer.headers)
    status, code, marker = ANSWERS[refusal]
    assert (answer.status, answer.code) == (status, code)
    assert marker in headers
    assert headers["content-type"] == b"application/json"
    assert ("retry-after" in headers) == (refusal in RETRIED_SOON)
    error = json.loads(answer.body)["error"]
    assert (error["code"], bool(error["message"])) == (code, True)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal_answer(Refused(Refusal.NO_MODEL)), "invalid_request_error"),
        (refusal_answer(Refused(Refusal.UNKNOWN_MODEL, "sql-lora")), "not_found_error"),
        (refusal_answer(Refused(Refusal.OVERLOADED)), "rate_limit_error"),
        (refusal_answer(Refused(Refusal.NO_READY_POD)), "overloaded_error"),
        (path_answer("/metrics"), "not_found_error"),
        (too_large_answer(1), "request_too_large"),
        (overloaded_answer(), "overloaded_error"),
    ],
)
def test_each_response_has_anthropics_shape_too(answer: ErrorAnswer, kind: str) -> None:
    same = for_anthropic(answer, "req-1")

    assert (same.status, same.code, same.headers) == (answer.status, answer.code, answer.headers)
    message = json.loads(answer.body)["error"]["message"]
    assert json.loads(same.body) == {
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": "req-1",
    }


def test_an_id_that_is_absent_or_too_long_is_not_repeated() -> None:
    for request_id in ("", "x" * 129):
        assert "request_id" not in json.loads(for_anthropic(path_answer("/x"), request_id).body)
