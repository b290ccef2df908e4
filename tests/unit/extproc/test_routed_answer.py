"""The answer that names the picked pod is the one that protobuf would encode."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lora_router.extproc.header_names import HeaderNames
from lora_router.extproc.pb.core_pb2 import HeaderValue, HeaderValueOption
from lora_router.extproc.pb.ext_proc_pb2 import (
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    ProcessingResponse,
)
from lora_router.extproc.routed_answer import encode_routed
from lora_router.fleet.fleet import Fleet
from lora_router.routing.outcome import Routed
from tests.fleet import make_pod
from tests.unit.extproc.conversation import told

MADE_ID = "8c1d5a52-3c6d-4f6e-9d1b-2f0e8f6f2a11"
NAMES = HeaderNames()
WITH_POOL = HeaderNames(
    target_pod="t",
    destination="x-" + "d" * 120,
    strategy="s" * 127,
    model="m" * 128,
    pool="x-pool",
)
LONG = st.integers(0, 300).map(lambda size: "x" * size) | st.just("y" * 20_000)
MODELS = st.text(st.characters(codec="utf-8"), max_size=300) | LONG
FALLBACKS = st.lists(st.sampled_from(["10.0.0.2:8000", "[fd00::3]:80"]) | LONG, max_size=3)


def outcome(
    model: str = "sql-lora",
    fallbacks: tuple[str, ...] = (),
    *,
    address: str = "10.0.0.1:8000",
    algorithm: str = "lora-placement",
) -> Routed:
    fleet = Fleet()
    fleet.upsert(make_pod(1, name="models/vllm-1", address=address, base_model="llama"))
    [state] = fleet
    return Routed(fleet.ledger.reserve(state, None), algorithm, "reason", model, fallbacks)


def by_protobuf(names: HeaderNames, routed: Routed, *, to_body: bool, request_id: str) -> bytes:
    destination = ",".join((routed.address, *routed.fallbacks))
    headers = {names.target_pod: routed.address, names.destination: destination}
    if names.pool:
        headers[names.pool] = "models/llama"
    if request_id:
        headers[names.request_id] = request_id
    if routed.model:
        headers |= {names.strategy: routed.algorithm, names.model: routed.model}
    mutation = HeaderMutation(
        set_headers=[
            HeaderValueOption(
                header=HeaderValue(key=key, raw_value=value.encode()),
                append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
            )
            for key, value in headers.items()
        ],
        remove_headers=[] if routed.model else [names.strategy, names.model],
    )
    common = CommonResponse(header_mutation=mutation, clear_route_cache=True)
    response = ProcessingResponse()
    if to_body:
        response.request_body.CopyFrom(BodyResponse(response=common))
    else:
        response.request_headers.CopyFrom(HeadersResponse(response=common))
    response.dynamic_metadata.update({"envoy.lb": {names.destination: destination}})
    return response.SerializeToString()


@given(
    MODELS,
    FALLBACKS,
    st.sampled_from(["10.0.0.1:8000", "[fd00::1]:8000", "x" * 200]),
    st.sampled_from(["random", "lora-placement", "z" * 128]),
    st.booleans(),
    st.sampled_from([NAMES, WITH_POOL]),
)
@example("", [], "10.0.0.1:8000", "random", True, NAMES)
@example("b" * 128, ["10.0.0.2:8000"], "10.0.0.1:8000", "random", False, NAMES)
@example("數" * 40, ["10.0.0.2:8000"], "10.0.0.1:8000", "random", True, WITH_POOL)
def test_the_bytes_are_those_that_protobuf_writes(
    model: str,
    fallbacks: list[str],
    address: str,
    algorithm: str,
    to_body: bool,
    names: HeaderNames,
) -> None:
    routed = outcome(model, tuple(fallbacks), address=address, algorithm=algorithm)

    data = encode_routed(names, routed, to_body=to_body, made_id="")
    assert data == by_protobuf(names, routed, to_body=to_body, request_id="")

    data = encode_routed(names, routed, to_body=to_body, made_id=MADE_ID)
    assert data == by_protobuf(names, routed, to_body=to_body, request_id=MADE_ID)


def test_the_destination_lists_the_fallbacks_and_the_target_pod_does_not() -> None:
    routed = outcome(fallbacks=("10.0.0.2:8000", "10.0.0.3:8000"))

    read = ProcessingResponse.FromString(encode_routed(NAMES, routed, to_body=True, made_id=""))

    listed = "10.0.0.1:8000,10.0.0.2:8000,10.0.0.3:8000"
    headers = told(read.request_body.response.header_mutation).set
    assert headers["target-pod"] == "10.0.0.1:8000"
    assert headers["x-gateway-destination-endpoint"] == listed
    metadata = read.dynamic_metadata.fields["envoy.lb"].struct_value
    assert dict(metadata.items()) == {"x-gateway-destination-endpoint": listed}


@pytest.mark.parametrize("made_id", ["", MADE_ID])
def test_a_gateway_learns_the_namespace_and_base_model_of_the_pod_where_it_asks(
    made_id: str,
) -> None:
    names = HeaderNames(pool="x-pool")

    data = encode_routed(names, outcome(), to_body=True, made_id=made_id)

    response = ProcessingResponse.FromString(data).request_body.response
    assert told(response.header_mutation).set["x-pool"] == "models/llama"
    assert response.clear_route_cache
    assert "x-pool" in names.ours
    assert "x-pool" not in NAMES.ours
