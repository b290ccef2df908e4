"""Fields that only one engine reads."""

import pytest

from lora_router.extproc.body import read_body
from lora_router.extproc.engine_fields import read_lora_path


def test_of_a_long_list_only_the_beginning_is_read() -> None:
    early = b'{"lora_path": [' + b"null," * 1000 + b'"sql"' + b',"x"' * 100_000 + b"]}"
    late = b'{"lora_path": [' + b"null," * 100_000 + b'"sql"]}'

    assert read_lora_path(read_body(early, "application/json").document) == "sql"
    assert read_lora_path(read_body(late, "application/json").document) == ""


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
        (b'{"text": ["x"], "lora_path": [ "" ,null, "\\"\\u0073ql", "other", 5]}', '"sql'),
        (b'{"text": ["x"], "lora_path": [null, ""]}', ""),
        (b'{"text": ["x"], "lora_path": [5, "sql"]}', ""),
        (b'{"text": "x", "lora_path": {"x": "sql"}}', ""),
        (b'{"text": "x", "lora_path": "%s"}' % (b"x" * 70_000), ""),
        (b'{"text": "x", "lora\\u005fpath": "sql"}', "sql"),
    ],
)
def test_the_adapter_is_read_in_every_body_that_is_routed(body: bytes, adapter: str) -> None:
    assert read_lora_path(read_body(body, "application/json").document) == adapter
