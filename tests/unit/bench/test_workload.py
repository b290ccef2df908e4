"""The requests that the bench sends."""

import json

import pytest

from bench.workload import body, ext_proc_messages
from lora_router.extproc.pb.ext_proc_pb2 import ProcessingRequest


@pytest.mark.parametrize("size", [1_000, 10_000, 220_000])
def test_a_body_is_json_of_the_size_asked_for(size: int) -> None:
    data = body(size, "sql-lora")

    assert len(data) == size
    assert json.loads(data)["model"] == "sql-lora"


def test_envoys_messages_carry_the_headers_and_then_the_whole_body() -> None:
    first, second = (
        ProcessingRequest.FromString(data) for data in ext_proc_messages(500, "sql-lora")
    )

    headers = {item.key: item.raw_value for item in first.request_headers.headers.headers}
    assert headers["content-length"] == b"500"
    assert second.request_body.end_of_stream
    assert json.loads(second.request_body.body)["model"] == "sql-lora"
