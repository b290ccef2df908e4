"""Answers to Envoy that are assembled from cached parts."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lora_router.extproc import answers
from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingResponse
from lora_router.fleet.fleet import Fleet
from lora_router.routing.outcome import Routed
from tests.fleet import make_fleet, make_pod, state_of
from tests.unit.extproc.conversation import told

NAMES = HeaderNames()


FLEET = make_fleet(1)


def routed(model: str) -> Routed:
    """Return an outcome with the pod 10.0.0.1:8000."""
    reservation = FLEET.ledger.reserve(state_of(FLEET, 1), None)
    return Routed(reservation, "lora-placement", "reason", model)


@given(st.text(st.characters(codec="utf-8"), max_size=300), st.booleans())
@example("", True)
@example("a", True)
@example("b" * 128, False)
@example("數" * 40, True)
def test_an_answer_of_parts_is_the_one_that_protobuf_writes(model: str, to_body: bool) -> None:
    data = answers.routed(NAMES, routed(model), to_body=to_body, has_id=True)

    read = ProcessingResponse.FromString(data)
    assert read.SerializeToString() == data
    answer = read.request_body if to_body else read.request_headers
    headers = told(answer.response.header_mutation).set
    assert headers["target-pod"] == "10.0.0.1:8000"
    assert (headers.get("model", ""), "routing-strategy" in headers) == (model, bool(model))


@pytest.mark.parametrize("to_body", [True, False])
def test_a_request_without_an_id_is_given_one(to_body: bool) -> None:
    ids = set()
    for _ in range(2):
        data = answers.routed(NAMES, routed("base"), to_body=to_body, has_id=False)
        read = ProcessingResponse.FromString(data)
        answer = read.request_body if to_body else read.request_headers
        ids.add(told(answer.response.header_mutation).set["x-request-id"])

    assert len(ids) == 2
    assert all(len(each) == 36 for each in ids)


@pytest.mark.parametrize("has_id", [True, False])
def test_a_gateway_learns_the_namespace_and_base_model_of_the_pod_where_it_asks(
    has_id: bool,
) -> None:
    fleet = Fleet()
    fleet.upsert(make_pod(1, name="models/vllm-1", base_model="llama"))
    [state] = fleet
    outcome = Routed(fleet.ledger.reserve(state, None), "random", "reason", "sql")
    names = HeaderNames(pool="x-pool")

    data = answers.routed(names, outcome, to_body=True, has_id=has_id)

    response = ProcessingResponse.FromString(data).request_body.response
    assert told(response.header_mutation).set["x-pool"] == "models/llama"
    assert response.clear_route_cache
    assert "x-pool" in names.ours
    assert "x-pool" not in NAMES.ours
