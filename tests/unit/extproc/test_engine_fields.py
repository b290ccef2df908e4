"""Fields that only one engine reads."""

import pytest

from lora_router.extproc.engine_fields import read_lora_path


@pytest.mark.parametrize(
    ("body", "adapter"),
    [
        (b'{"text": "x"}', ""),
        (b'{"text": "x", "lora_path": "sql"}', "sql"),
        (b'{"text": ["x", "y"], "lora_path": [null, "sql"]}', "sql"),
        (b'{"text": "x", "lora_path": null}', ""),
        (b'{"text": "x", "lora_path": 5}', ""),
        (b'{"text": "\\"lora_path\\"", "x": {"lora_path": "sql"}}', ""),
        (b'{"text": "cut \\ud83d", "lora_path": "sql"}', "sql"),
        (b'{"temperature": NaN, "text": "NaN", "lora_path": "sql"}', "sql"),
        (b'{"temperature": NaN, "lora_path": ', ""),
        (b'{"text": "\xff", "lora_path": "sql"', ""),
    ],
)
def test_the_adapter_is_read_in_every_body_that_is_routed(body: bytes, adapter: str) -> None:
    assert read_lora_path(body) == adapter
