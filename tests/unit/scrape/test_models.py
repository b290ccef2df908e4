"""Reading ``/v1/models``."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_router.fleet.catalog import ServedModel
from lora_router.scrape.models import ModelsError, read_models

RECORDED = Path(__file__).parents[2] / "data" / "vllm-0.32.0" / "v1_models.json"


def test_the_recorded_list_has_a_base_model_and_its_adapters() -> None:
    assert read_models(RECORDED.read_bytes()) == (
        ServedModel("base"),
        *(ServedModel(f"a{number}", "base") for number in (1, 2, 3, 4)),
    )


def test_a_model_that_is_its_own_parent_is_no_adapter() -> None:
    assert read_models(b'{"data": [{"id": "m", "parent": "m"}]}') == (ServedModel("m"),)


def test_a_model_without_a_name_is_left_out() -> None:
    assert read_models(b'{"data": [{"id": ""}]}') == ()


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"data": {}}', b'{"data": [{}]}', b'{"data": [{"id": 5}]}', b"\xff"],
)
def test_what_is_no_list_of_models_is_refused(body: bytes) -> None:
    with pytest.raises(ModelsError, match="not a list of models"):
        read_models(body)


@given(st.binary(max_size=100))
def test_no_bytes_whatever_raise_anything_else(body: bytes) -> None:
    for wrapped in (body, b'{"data": [' + body + b"]}"):
        with suppress(ModelsError):
            read_models(wrapped)
